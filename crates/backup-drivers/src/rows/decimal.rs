//! Decimal text as scaled integers.

/// Most digits of a value that is taken: all of them fit an `i64`.
const MAX_DIGITS: usize = 18;

/// Digits after the point of `text` and its value without the point, where [`append`] gives the
/// very same text back: `-?(0|[1-9][0-9]*)(\.[0-9]+)?`, no negative zero, at most 18 digits.
#[inline]
pub(super) fn parse(text: &[u8]) -> Option<(u8, i64)> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > MAX_DIGITS + 1 {
        return None;
    }
    // 19 digits, one too many, still fit.
    let mut magnitude = 0u64;
    let mut point = None;
    for (at, &byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            magnitude = magnitude * 10 + u64::from(digit);
        } else if byte == b'.' && point.is_none() {
            point = Some(at);
        } else {
            return None;
        }
    }
    let whole = point.unwrap_or(digits.len());
    let scale = point.map_or(0, |at| digits.len() - at - 1);
    let canonical = whole > 0
        && (whole == 1 || digits[0] != b'0')
        && (point.is_none() || scale > 0)
        && whole + scale <= MAX_DIGITS
        && !(negative && magnitude == 0);
    let magnitude = magnitude.cast_signed();
    canonical.then_some((scale as u8, if negative { magnitude.wrapping_neg() } else { magnitude }))
}

/// Appends `value × 10^-scale`. `scale` is at most 18.
#[inline]
pub(super) fn append(value: i64, scale: u8, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value.unsigned_abs()).as_bytes();
    let scale = usize::from(scale);
    if value < 0 {
        out.push(b'-');
    }
    if scale == 0 {
        return out.extend_from_slice(digits);
    }
    if let Some(zeros) = scale.checked_sub(digits.len()) {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', zeros));
        return out.extend_from_slice(digits);
    }
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    out.extend_from_slice(whole);
    out.push(b'.');
    out.extend_from_slice(fraction);
}

/// Largest scale a section may name.
pub(super) const MAX_SCALE: u8 = MAX_DIGITS as u8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: i64, scale: u8) -> String {
        let mut out = Vec::new();
        append(value, scale, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn canonical_text_only() {
        assert_eq!(parse(b"12.50"), Some((2, 1250)));
        assert_eq!(parse(b"-0.01"), Some((2, -1)));
        assert_eq!(parse(b"0"), Some((0, 0)));
        assert_eq!(parse(b"0.00"), Some((2, 0)));
        assert_eq!(parse(b"999999999999999999"), Some((0, 999_999_999_999_999_999)));
        for bad in [
            "",
            "-",
            ".",
            "-0",
            "-0.00",
            "00.5",
            "01",
            ".5",
            "5.",
            "+5",
            "1e5",
            "1.2.3",
            " 1",
            "--1",
            "1000000000000000000",
            "9999999999999999999",
            "0.1000000000000000000",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(text(i64::MIN, 18), "-9.223372036854775808");
        assert_eq!(text(5, 18), "0.000000000000000005");
    }

    proptest! {
        #[test]
        fn what_is_taken_comes_back(bytes in "-?[0-9]{0,12}\\.?[0-9]{0,9}") {
            if let Some((scale, value)) = parse(bytes.as_bytes()) {
                prop_assert_eq!(text(value, scale), bytes);
            }
        }

        #[test]
        fn canonical_text_is_taken(
            value in -999_999_999_999_999_999i64..=999_999_999_999_999_999,
            scale in 0u8..=17,
        ) {
            prop_assert_eq!(parse(text(value, scale).as_bytes()), Some((scale, value)));
        }
    }
}
