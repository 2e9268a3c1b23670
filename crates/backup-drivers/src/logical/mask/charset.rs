//! Text in the character sets of the servers.
//!
//! The forms of Unicode are known here. Of all others the source itself is asked what each of its characters is:
//! servers have character sets that no library knows, and maps of their own for those that libraries do know.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use backup_core::{Error, Result};

use super::super::inventory::unhex;
use crate::connect::Session;

/// How bytes are text.
#[derive(Debug, Clone)]
pub(super) enum Charset {
    /// `utf8mb4`.
    Utf8Mb4,
    /// `utf8mb3`, as `utf8` is called too.
    Utf8Mb3,
    /// `ucs2`.
    Ucs2,
    /// `utf16`.
    Utf16,
    /// `utf16le`.
    Utf16Le,
    /// `utf32`.
    Utf32,
    /// One of which the server said what its characters are.
    Told(Arc<Characters>),
}

impl Charset {
    /// A form of Unicode, by the name that servers give it.
    pub(super) fn unicode(name: &str) -> Option<Charset> {
        Some(match name {
            "utf8mb4" => Charset::Utf8Mb4,
            "utf8mb3" | "utf8" => Charset::Utf8Mb3,
            "ucs2" => Charset::Ucs2,
            "utf16" => Charset::Utf16,
            "utf16le" => Charset::Utf16Le,
            "utf32" => Charset::Utf32,
            _ => return None,
        })
    }

    /// The text in bytes, and whether it is all that is in them. What is no character becomes U+FFFD, or a question
    /// mark where there is none: bytes that nobody understands are not let through.
    pub(super) fn decode<'a>(&self, bytes: &'a [u8]) -> (Cow<'a, str>, bool) {
        let units = |unit: fn([u8; 2]) -> u16| {
            let (pairs, rest) = bytes.as_chunks::<2>();
            lossy(char::decode_utf16(pairs.iter().map(|pair| unit(*pair))).map(Result::ok), rest)
        };
        match self {
            Charset::Utf8Mb4 | Charset::Utf8Mb3 => match String::from_utf8_lossy(bytes) {
                Cow::Borrowed(text) => (Cow::Borrowed(text), true),
                changed => (changed, false),
            },
            Charset::Ucs2 | Charset::Utf16 => units(u16::from_be_bytes),
            Charset::Utf16Le => units(u16::from_le_bytes),
            Charset::Utf32 => {
                let (units, rest) = bytes.as_chunks::<4>();
                lossy(units.iter().map(|unit| char::from_u32(u32::from_be_bytes(*unit))), rest)
            }
            Charset::Told(characters) => characters.decode(bytes),
        }
    }

    /// Whether it has a character.
    pub(super) fn has(&self, c: char) -> bool {
        self.push(c, &mut Vec::new())
    }

    /// Adds a character to bytes. `false` where the character set does not have it: a question mark stands for it.
    pub(super) fn push(&self, c: char, out: &mut Vec<u8>) -> bool {
        let narrow = matches!(self, Charset::Utf8Mb3 | Charset::Ucs2);
        let known = !narrow || u32::from(c) <= 0xffff;
        let c = if known { c } else { '?' };
        let mut utf16 = [0; 2];
        match self {
            Charset::Utf8Mb4 | Charset::Utf8Mb3 => {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Charset::Ucs2 | Charset::Utf16 => {
                out.extend(c.encode_utf16(&mut utf16).iter().flat_map(|unit| unit.to_be_bytes()));
            }
            Charset::Utf16Le => {
                out.extend(c.encode_utf16(&mut utf16).iter().flat_map(|unit| unit.to_le_bytes()));
            }
            Charset::Utf32 => out.extend(u32::from(c).to_be_bytes()),
            Charset::Told(characters) => return characters.push(c, out),
        }
        known
    }
}

/// Text of characters, some of which are none, and whether all of them are.
fn lossy(characters: impl Iterator<Item = Option<char>>, rest: &[u8]) -> (Cow<'static, str>, bool) {
    let mut exact = rest.is_empty();
    let text = characters.map(|c| {
        exact &= c.is_some();
        c.unwrap_or(char::REPLACEMENT_CHARACTER)
    });
    let text: String = text.collect();
    (Cow::Owned(text), exact)
}

/// The characters of a character set, and their bytes.
#[derive(Debug, Default)]
pub(super) struct Characters {
    characters: HashMap<Vec<u8>, char>,
    bytes: HashMap<char, Vec<u8>>,
    /// Whether characters beyond the BMP have the four bytes that GB 18030 counts out for them.
    counts_on: bool,
}

/// From which to which byte, for each byte of a character.
type Bytes = &'static [(u8, u8)];

const ONE: Bytes = &[(0, 0xff)];
/// As wide as any character set has its pairs.
const TWO: Bytes = &[(0x81, 0xfe), (0x40, 0xfe)];
const THREE_OF_EUC: Bytes = &[(0x8f, 0x8f), (0xa1, 0xfe), (0xa1, 0xfe)];
const FOUR_OF_GB18030: Bytes = &[(0x81, 0x84), (0x30, 0x39), (0x81, 0xfe), (0x30, 0x39)];

impl Characters {
    /// Asks the server. What it says nothing of is no character.
    pub(super) async fn ask(session: &mut Session, charset: &str) -> Result<Self> {
        let forms: &[Bytes] = match charset {
            "gbk" | "gb2312" | "big5" | "sjis" | "cp932" | "euckr" => &[ONE, TWO],
            "ujis" | "eucjpms" => &[ONE, TWO, THREE_OF_EUC],
            "gb18030" => &[ONE, TWO, FOUR_OF_GB18030],
            _ => &[ONE],
        };
        let counts_on = charset == "gb18030";
        let mut all = Characters { counts_on, ..Characters::default() };
        for form in forms {
            type Answer = (String, Option<String>, Option<String>);
            let answers: Vec<Answer> = session.query_rows(&question(charset, form)).await?;
            for (bytes, character, preferred) in answers {
                let answer = (|| {
                    let bytes = unhex(&bytes)?;
                    // One character of UTF-32; two would be eight bytes.
                    let code = character.filter(|hex| hex.len() == 8)?;
                    let character = char::from_u32(u32::from_str_radix(&code, 16).ok()?)?;
                    // A question mark is the answer for what is no character, too.
                    (character != '?' || bytes == b"?").then_some((bytes, character))
                })();
                if let Some((bytes, character)) = answer {
                    // Of several forms of one character the server has one that it writes.
                    let preferred = preferred.and_then(|hex| unhex(&hex)).filter(|b| b != b"?");
                    all.bytes.insert(character, preferred.unwrap_or_else(|| bytes.clone()));
                    all.characters.insert(bytes, character);
                }
            }
        }
        match all.bytes.contains_key(&'?') {
            true => Ok(all),
            false => Err(Error::internal(format!("the server knows no character of {charset}"))),
        }
    }

    fn decode(&self, bytes: &[u8]) -> (Cow<'static, str>, bool) {
        let mut text = String::with_capacity(bytes.len());
        let (mut at, mut exact) = (0, true);
        while at < bytes.len() {
            let character = (1..=4).find_map(|length| {
                let bytes = bytes.get(at..at + length)?;
                Some((*self.characters.get(bytes)?, length))
            });
            let counted = || {
                let four = self.counts_on.then_some(bytes.get(at..)?.first_chunk::<4>()?)?;
                Some((beyond_bmp(*four)?, 4))
            };
            let (character, length) = character.or_else(counted).unwrap_or_else(|| {
                exact = false;
                ('?', 1)
            });
            text.push(character);
            at += length;
        }
        (Cow::Owned(text), exact)
    }

    fn push(&self, c: char, out: &mut Vec<u8>) -> bool {
        if let Some(bytes) = self.bytes.get(&c) {
            out.extend_from_slice(bytes);
            return true;
        }
        if let Some(number) = u32::from(c).checked_sub(0x1_0000).filter(|_| self.counts_on) {
            let digit = |count: u32, of: u32, first: u8| first + (number / count % of) as u8;
            out.extend([
                digit(12_600, 256, 0x90),
                digit(1260, 10, 0x30),
                digit(10, 126, 0x81),
                digit(1, 10, 0x30),
            ]);
            return true;
        }
        out.push(b'?');
        false
    }
}

/// The character beyond the BMP of four bytes of GB 18030.
fn beyond_bmp(bytes: [u8; 4]) -> Option<char> {
    let digit = |at: usize, first: u8, last: u8| {
        let fits = (first..=last).contains(&bytes[at]);
        fits.then(|| u32::from(bytes[at] - first))
    };
    let digits = (
        digit(0, 0x90, 0xe3)?,
        digit(1, 0x30, 0x39)?,
        digit(2, 0x81, 0xfe)?,
        digit(3, 0x30, 0x39)?,
    );
    char::from_u32(0x1_0000 + 12_600 * digits.0 + 1260 * digits.1 + 10 * digits.2 + digits.3)
}

/// Has the server say which character each of some bytes is, if any, and as which bytes it writes that.
fn question(charset: &str, form: Bytes) -> String {
    let mut sources = Vec::new();
    for (i, (first, last)) in form.iter().enumerate() {
        let rest: String =
            (*first..=*last).skip(1).map(|n| format!(" UNION ALL SELECT {n}")).collect();
        sources.push(format!("(SELECT {first} AS n{rest}) AS b{i}"));
    }
    let bytes: Vec<String> = (0..form.len()).map(|i| format!("b{i}.n")).collect();
    format!(
        "SELECT HEX(bytes), HEX(CONVERT(text USING utf32)), \
         HEX(CONVERT(CONVERT(text USING utf32) USING {charset})) \
         FROM (SELECT bytes, CONVERT(bytes USING {charset}) AS text \
         FROM (SELECT CHAR({}) AS bytes FROM {}) AS all_bytes) AS all_texts",
        bytes.join(", "),
        sources.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(charset: &Charset, text: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        text.chars().all(|c| charset.push(c, &mut bytes)).then_some(bytes)
    }

    fn told(pairs: &[(&[u8], char)], counts_on: bool) -> Charset {
        let mut characters = Characters { counts_on, ..Characters::default() };
        for (bytes, character) in pairs {
            characters.bytes.entry(*character).or_insert_with(|| bytes.to_vec());
            characters.characters.insert(bytes.to_vec(), *character);
        }
        Charset::Told(Arc::new(characters))
    }

    #[test]
    fn what_is_no_character_does_not_get_through() {
        let charset = told(&[(b"?", '?'), (b"a", 'a'), (b"\x81a", '丂'), (b"\x81b", '丂')], false);
        assert_eq!(charset.decode(b"a\x81aa"), ("a丂a".into(), true));
        assert_eq!(charset.decode(b"\x81b"), ("丂".into(), true));
        assert_eq!(charset.decode(b"\xffa\x81"), ("?a?".into(), false));
        assert_eq!(encode(&charset, "丂a").unwrap(), b"\x81aa");
        assert_eq!(encode(&charset, "b"), None);
        assert_eq!(encode(&Charset::Utf8Mb3, "€").unwrap(), "€".as_bytes());
        assert_eq!(encode(&Charset::Utf8Mb3, "😀"), None);
        assert_eq!(encode(&Charset::Ucs2, "😀"), None);
        assert_eq!(Charset::Utf16.decode(b"\0a\xd8\0\0b!"), ("a\u{fffd}b".into(), false));
        assert_eq!(Charset::Utf8Mb4.decode(b"a\xff"), ("a\u{fffd}".into(), false));
    }

    proptest! {
        #[test]
        fn text_there_and_back(text in "\\PC{0,8}", high in any::<char>()) {
            for name in ["utf8mb4", "utf16", "utf16le", "utf32"] {
                let charset = Charset::unicode(name).unwrap();
                let bytes = encode(&charset, &text).unwrap();
                prop_assert_eq!(charset.decode(&bytes), (Cow::Borrowed(text.as_str()), true));
            }
            let gb18030 = told(&[(b"?", '?')], true);
            if let Some(bytes) = encode(&gb18030, &high.to_string()).filter(|b| b.len() == 4) {
                prop_assert_eq!(gb18030.decode(&bytes), (high.to_string().into(), true));
            }
        }

        #[test]
        fn any_bytes_are_text(bytes: Vec<u8>) {
            for name in ["ucs2", "utf16le", "utf32", "utf8mb4", "utf8mb3"] {
                let _ = Charset::unicode(name).unwrap().decode(&bytes);
            }
            let _ = told(&[(b"?", '?')], true).decode(&bytes);
        }
    }
}
