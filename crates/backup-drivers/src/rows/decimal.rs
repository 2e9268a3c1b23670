//! Decimal text as scaled integers.

/// Most digits of a value that is taken: all of them fit an `i64`.
const MAX_DIGITS: usize = 18;

/// Digits after the point of `text`, for [`parse`]; all that follow a first point.
pub(super) fn scale(text: &[u8]) -> u8 {
    let fraction = text.iter().position(|byte| *byte == b'.').map_or(0, |at| text.len() - at - 1);
    u8::try_from(fraction).unwrap_or(u8::MAX)
}

/// The value of `text` without its point, where it has `scale` digits after the point and
/// [`append`] gives the very same text back: `-?(0|[1-9][0-9]*)(\.[0-9]+)?`, no negative zero, at
/// most 18 digits.
#[inline]
pub(super) fn parse(text: &[u8], scale: u8) -> Option<i64> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        text => (false, text),
    };
    let (whole, fraction) = if scale == 0 {
        (text, &[][..])
    } else {
        let (whole, rest) = text.split_at_checked(text.len().checked_sub(scale as usize + 1)?)?;
        (whole, rest.strip_prefix(b".")?)
    };
    if whole.is_empty()
        || whole.len() + fraction.len() > MAX_DIGITS
        || (whole[0] == b'0' && whole.len() > 1)
    {
        return None;
    }
    let mut all_digits = true;
    let mut append = |number: i64, byte: &u8| {
        let digit = byte.wrapping_sub(b'0');
        all_digits &= digit < 10;
        // Only what is no digit can make it wrap.
        number.wrapping_mul(10).wrapping_add(i64::from(digit))
    };
    let magnitude = whole.iter().fold(0, &mut append);
    let magnitude = fraction.iter().fold(magnitude, append);
    if !all_digits || (negative && magnitude == 0) {
        return None;
    }
    Some(if negative { -magnitude } else { magnitude })
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
        assert_eq!(parse(b"12.50", 2), Some(1250));
        assert_eq!(parse(b"12.50", 1), None);
        assert_eq!(parse(b"-0.01", 2), Some(-1));
        assert_eq!(parse(b"0", 0), Some(0));
        assert_eq!(parse(b"0.00", 2), Some(0));
        assert_eq!(parse(b"999999999999999999", 0), Some(999_999_999_999_999_999));
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
            let bad = bad.as_bytes();
            assert_eq!(parse(bad, scale(bad)), None, "{bad:?}");
        }
        for scale in 0..=u8::MAX {
            assert_eq!(
                parse(b"", scale).or(parse(b"-", scale)).or(parse(&[0xff; 18], scale)),
                None
            );
        }
        assert_eq!(text(i64::MIN, 18), "-9.223372036854775808");
        assert_eq!(text(5, 18), "0.000000000000000005");
    }

    proptest! {
        #[test]
        fn what_is_taken_comes_back(bytes in "-?[0-9]{0,12}\\.?[0-9]{0,9}") {
            let scale = scale(bytes.as_bytes());
            if let Some(value) = parse(bytes.as_bytes(), scale) {
                prop_assert_eq!(text(value, scale), bytes);
            }
        }

        #[test]
        fn canonical_text_is_taken(
            value in -999_999_999_999_999_999i64..=999_999_999_999_999_999,
            scale in 0u8..=17,
        ) {
            let text = text(value, scale);
            prop_assert_eq!(super::scale(text.as_bytes()), scale);
            prop_assert_eq!(parse(text.as_bytes(), scale), Some(value));
        }
    }
}
