//! One value into another.

use aws_lc_rs::hmac;

/// An endless stream of bytes that depends on a secret and a value.
pub(super) struct Stream<'a> {
    key: &'a hmac::Key,
    value: &'a [u8],
    block: hmac::Tag,
    counter: u32,
    at: usize,
}

impl<'a> Stream<'a> {
    pub(super) fn new(key: &'a hmac::Key, value: &'a [u8]) -> Self {
        Stream { key, value, block: Self::tag(key, 0, value), counter: 0, at: 0 }
    }

    fn tag(key: &hmac::Key, counter: u32, value: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(key);
        context.update(&counter.to_be_bytes());
        context.update(value);
        context.sign()
    }

    fn byte(&mut self) -> u8 {
        if self.at == self.block.as_ref().len() {
            self.counter += 1;
            self.block = Self::tag(self.key, self.counter, self.value);
            self.at = 0;
        }
        self.at += 1;
        self.block.as_ref()[self.at - 1]
    }

    /// A number below `limit`, which is at least 1.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        let bytes = std::array::from_fn(|_| self.byte());
        // The bias is that of 64 bits over the limit, far below what anybody could see.
        u64::from_be_bytes(bytes) % limit.max(1)
    }

    /// A number of as many digits as `value`, at most `max`.
    pub(super) fn like(&mut self, value: u64, max: u64) -> u64 {
        let low = if value == 0 { 0 } else { 10u64.pow(value.ilog10()) };
        let high = low.saturating_mul(10).saturating_sub(1).max(9).min(max);
        low + self.below(high - low + 1)
    }
}

/// Letters for letters, digits for digits.
pub(super) fn shape(text: &str, stream: &mut Stream<'_>) -> String {
    text.chars()
        .map(|c| {
            let one_of = |first: u8, count, stream: &mut Stream<'_>| {
                char::from(first + stream.below(count) as u8)
            };
            match c {
                '0'..='9' => one_of(b'0', 10, stream),
                c if c.is_uppercase() => one_of(b'A', 26, stream),
                c if c.is_alphanumeric() => one_of(b'a', 26, stream),
                c => c,
            }
        })
        .collect()
}

/// As many digits as anybody wants of a hash: those of 128 bits.
pub(super) const MOST_DIGITS: usize = 32;

/// Hexadecimal digits that stand for a value.
pub(super) fn hash(stream: &mut Stream<'_>, digits: usize) -> String {
    (0..digits).map(|_| char::from_digit(stream.below(16) as u32, 16).unwrap_or('0')).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(secret: &[u8]) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, secret)
    }

    #[test]
    fn shape_keeps_what_is_no_letter_and_no_digit() {
        let key = key(b"k");
        let text = "Zoë O'Brien, +49 (30) 1234-5";
        let shaped = shape(text, &mut Stream::new(&key, text.as_bytes()));
        assert_ne!(shaped, text);
        assert_eq!(shaped.chars().count(), text.chars().count());
        for (a, b) in text.chars().zip(shaped.chars()) {
            assert_eq!(
                (a.is_ascii_digit(), a.is_uppercase()),
                (b.is_ascii_digit(), b.is_uppercase())
            );
            assert!(a.is_alphanumeric() || a == b, "{a} {b}");
        }
        assert_eq!(shape(text, &mut Stream::new(&key, text.as_bytes())), shaped);
        let other = self::key(b"other");
        assert_ne!(shape(text, &mut Stream::new(&other, text.as_bytes())), shaped);
    }

    proptest! {
        #[test]
        fn numbers_keep_their_digits(value: u64, max in any::<u64>()) {
            let max = max.max(value);
            let key = key(b"k");
            let like = Stream::new(&key, b"v").like(value, max);
            prop_assert!(like <= max);
            prop_assert_eq!(like.to_string().len(), value.to_string().len());
        }
    }
}
