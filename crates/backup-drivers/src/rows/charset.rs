//! Which bytes are text in a character set of the servers.
//!
//! A server checks text on its way in, but not what a table file, a row event or an older release
//! brought; such values are found nowhere until somebody reads or moves them.

use backup_core::Flavor;

/// A character set in which not every string of bytes is text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextForm {
    /// `ascii`.
    Ascii,
    /// `utf8mb3`, `utf8`: up to three bytes.
    Utf8Mb3,
    /// `utf8mb4`.
    Utf8Mb4,
    /// These two as MariaDB has them: halves of surrogate pairs are characters, up to so many bytes.
    Cesu8(u8),
    /// Characters of one or two bytes.
    Pairs(Pairs),
    /// `ujis`, `eucjpms`: up to three bytes.
    EucJp,
    /// `gb18030`: one, two or four bytes.
    Gb18030,
    /// `ucs2`: two bytes each.
    Ucs2,
    /// `utf16` and, with `true`, `utf16le`.
    Utf16(bool),
    /// `utf32`: four bytes each.
    Utf32,
}

/// Which bytes begin a pair, and which end one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// `gbk`.
    Gbk,
    /// `euckr`.
    EucKr,
    /// `gb2312`.
    Gb2312,
    /// `big5`.
    Big5,
    /// `sjis`, `cp932`, with single bytes beyond ASCII.
    Sjis,
}

impl TextForm {
    /// That of a character set, by the name that servers give it. `None` where every byte is text, or
    /// the character set is not known.
    #[must_use]
    pub fn of(charset: &str, flavor: Flavor) -> Option<TextForm> {
        let maria = flavor == Flavor::MariaDb;
        Some(match charset {
            "ascii" => TextForm::Ascii,
            "utf8" | "utf8mb3" if maria => TextForm::Cesu8(3),
            "utf8mb4" if maria => TextForm::Cesu8(4),
            "utf8" | "utf8mb3" => TextForm::Utf8Mb3,
            "utf8mb4" => TextForm::Utf8Mb4,
            "gbk" => TextForm::Pairs(Pairs::Gbk),
            "gb2312" => TextForm::Pairs(Pairs::Gb2312),
            "euckr" => TextForm::Pairs(Pairs::EucKr),
            "big5" => TextForm::Pairs(Pairs::Big5),
            "sjis" | "cp932" => TextForm::Pairs(Pairs::Sjis),
            "ujis" | "eucjpms" => TextForm::EucJp,
            "gb18030" => TextForm::Gb18030,
            "ucs2" => TextForm::Ucs2,
            "utf16" => TextForm::Utf16(false),
            "utf16le" => TextForm::Utf16(true),
            "utf32" => TextForm::Utf32,
            _ => return None,
        })
    }

    /// Most bytes of a character.
    #[must_use]
    pub fn width(self) -> u32 {
        match self {
            TextForm::Ascii => 1,
            TextForm::Pairs(_) | TextForm::Ucs2 => 2,
            TextForm::Utf8Mb3 | TextForm::EucJp | TextForm::Cesu8(..=3) => 3,
            TextForm::Utf8Mb4
            | TextForm::Cesu8(_)
            | TextForm::Gb18030
            | TextForm::Utf16(_)
            | TextForm::Utf32 => 4,
        }
    }

    /// Whether all of the values, which lie one after the other in `data`, are text for sure: most are
    /// plain ASCII, and that is seen at once.
    #[must_use]
    pub fn is_plain(self, data: &[u8]) -> bool {
        let wide = matches!(self, TextForm::Ucs2 | TextForm::Utf16(_) | TextForm::Utf32);
        !wide && data.is_ascii()
    }

    /// Whether the bytes are text.
    #[must_use]
    pub fn is_text(self, bytes: &[u8]) -> bool {
        match self {
            TextForm::Ascii => bytes.is_ascii(),
            TextForm::Utf8Mb4 => std::str::from_utf8(bytes).is_ok(),
            TextForm::Utf8Mb3 => {
                std::str::from_utf8(bytes).is_ok() && bytes.iter().all(|byte| *byte < 0xf0)
            }
            TextForm::Cesu8(width) => cesu8(bytes, width),
            TextForm::Pairs(pairs) => all(bytes, |rest| pairs.length(rest)),
            TextForm::EucJp => all(bytes, euc_jp),
            TextForm::Gb18030 => all(bytes, gb18030),
            TextForm::Ucs2 => bytes.len().is_multiple_of(2),
            TextForm::Utf16(little) => {
                let (units, rest) = bytes.as_chunks::<2>();
                let unit = |unit: &[u8; 2]| match little {
                    true => u16::from_le_bytes(*unit),
                    false => u16::from_be_bytes(*unit),
                };
                rest.is_empty() && char::decode_utf16(units.iter().map(unit)).all(|c| c.is_ok())
            }
            TextForm::Utf32 => {
                let (units, rest) = bytes.as_chunks::<4>();
                rest.is_empty() && units.iter().all(|unit| u32::from_be_bytes(*unit) <= 0x10_ffff)
            }
        }
    }
}

/// Whether `bytes` are characters from end to end; `next` gives the length of the first one.
fn all(mut bytes: &[u8], next: impl Fn(&[u8]) -> Option<usize>) -> bool {
    while let Some(first) = bytes.first() {
        let length = if first.is_ascii() { Some(1) } else { next(bytes) };
        match length.and_then(|length| bytes.get(length..)) {
            Some(rest) => bytes = rest,
            None => return false,
        }
    }
    true
}

impl Pairs {
    /// The length of the character that begins with a byte beyond ASCII.
    fn length(self, bytes: &[u8]) -> Option<usize> {
        let (first, second) = (*bytes.first()?, bytes.get(1).copied());
        if self == Pairs::Sjis && (0xa1..=0xdf).contains(&first) {
            return Some(1);
        }
        let second = second?;
        let is_pair = match self {
            Pairs::Gbk => {
                (0x81..=0xfe).contains(&first) && matches!(second, 0x40..=0x7e | 0x80..=0xfe)
            }
            Pairs::Gb2312 => (0xa1..=0xf7).contains(&first) && (0xa1..=0xfe).contains(&second),
            Pairs::EucKr => {
                (0x81..=0xfe).contains(&first)
                    && matches!(second, 0x41..=0x5a | 0x61..=0x7a | 0x81..=0xfe)
            }
            Pairs::Big5 => {
                (0xa1..=0xf9).contains(&first) && matches!(second, 0x40..=0x7e | 0xa1..=0xfe)
            }
            Pairs::Sjis => {
                matches!(first, 0x81..=0x9f | 0xe0..=0xfc)
                    && matches!(second, 0x40..=0x7e | 0x80..=0xfc)
            }
        };
        is_pair.then_some(2)
    }
}

/// UTF-8 in which three bytes may be half of a surrogate pair.
fn cesu8(bytes: &[u8], width: u8) -> bool {
    let mut rest = bytes;
    loop {
        let valid = match std::str::from_utf8(rest) {
            Ok(text) => text.len(),
            Err(e) => e.valid_up_to(),
        };
        let (text, after) = rest.split_at(valid);
        if width < 4 && text.iter().any(|byte| *byte >= 0xf0) {
            return false;
        }
        match after {
            [] => return true,
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, more @ ..] => rest = more,
            _ => return false,
        }
    }
}

fn euc_jp(bytes: &[u8]) -> Option<usize> {
    let high = |at: usize| bytes.get(at).is_some_and(|byte| (0xa1..=0xfe).contains(byte));
    match bytes.first()? {
        0x8e => bytes.get(1).filter(|byte| (0xa1..=0xdf).contains(*byte)).map(|_| 2),
        0x8f => (high(1) && high(2)).then_some(3),
        _ => (high(0) && high(1)).then_some(2),
    }
}

fn gb18030(bytes: &[u8]) -> Option<usize> {
    let within =
        |at: usize, from: u8, to: u8| bytes.get(at).is_some_and(|byte| (from..=to).contains(byte));
    if !within(0, 0x81, 0xfe) {
        return None;
    }
    match () {
        () if within(1, 0x40, 0x7e) || within(1, 0x80, 0xfe) => Some(2),
        () if within(1, 0x30, 0x39) && within(2, 0x81, 0xfe) && within(3, 0x30, 0x39) => Some(4),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_told_from_other_bytes() {
        let form = |charset: &str| TextForm::of(charset, Flavor::MySql).unwrap();
        let of = |charset: &str, bytes: &[u8]| form(charset).is_text(bytes);
        for (charset, text, other) in [
            ("ascii", &b"a\x7f"[..], &b"a\x80"[..]),
            ("utf8mb4", "é🎉".as_bytes(), b"\xc3"),
            ("utf8mb3", "é中".as_bytes(), "🎉".as_bytes()),
            ("gbk", b"\xd6\xd0\x81\x5c\x81\x60", b"\x81"),
            ("gbk", b"a", b"\xff\x40"),
            ("gb2312", b"\xd6\xd0", b"\x81\x5c"),
            ("euckr", b"\xb0\xa1\x81\x41", b"\xb0\x20"),
            ("big5", b"\xa4\x40\xa4\xfe", b"\xa4\x80"),
            ("sjis", b"\x83\x5c\xb1a", b"\x83"),
            ("cp932", b"\xfc\x40", b"\xfd\x40"),
            ("ujis", b"\xa4\xa2\x8e\xb1\x8f\xa2\xaf", b"\x8f\xa2"),
            ("gb18030", b"\x81\x30\x81\x30\xd6\xd0", b"\x81\x30\x81"),
            ("ucs2", b"\0a", b"\0ab"),
            ("utf16", b"\xd8\x3c\xdf\x89", b"\xd8\x3c"),
            ("utf16le", b"\x3c\xd8\x89\xdf", b"\xd8\x3c\xdf\x89\0"),
            ("utf32", b"\0\x01\xf3\x89", b"\0\x11\0\0"),
        ] {
            assert!(of(charset, text), "{charset}: {}", text.escape_ascii());
            assert!(!of(charset, other), "{charset}: {}", other.escape_ascii());
            assert!(of(charset, b""), "{charset}");
        }
        let half = b"a\xed\xa0\xbdz";
        let maria = |charset| TextForm::of(charset, Flavor::MariaDb).unwrap();
        assert!(!of("utf8mb4", half) && maria("utf8mb4").is_text(half));
        assert!(maria("utf8mb3").is_text(half) && !maria("utf8mb3").is_text("🎉".as_bytes()));
        assert!(
            maria("utf8mb4").is_text("🎉".as_bytes()) && !maria("utf8mb4").is_text(b"\xed\xa0")
        );
        assert_eq!(TextForm::of("latin1", Flavor::MySql), None);
        assert!(TextForm::Utf8Mb4.is_plain(b"abc") && !TextForm::Ucs2.is_plain(b"abc"));
    }
}
