//! Code in the character sets of old clients.

use encoding_rs::Encoding;

/// `text` in a character set of the servers; `None` where it has no form there, or the character set
/// is not known here.
pub(super) fn encode(text: &str, charset: &str) -> Option<Vec<u8>> {
    let encoding: &'static Encoding = match charset {
        "latin1" => encoding_rs::WINDOWS_1252,
        "latin2" => encoding_rs::ISO_8859_2,
        "latin7" => encoding_rs::ISO_8859_13,
        "greek" => encoding_rs::ISO_8859_7,
        "hebrew" => encoding_rs::ISO_8859_8,
        "latin5" => encoding_rs::WINDOWS_1254,
        "cp1250" => encoding_rs::WINDOWS_1250,
        "cp1251" => encoding_rs::WINDOWS_1251,
        "cp1256" => encoding_rs::WINDOWS_1256,
        "cp1257" => encoding_rs::WINDOWS_1257,
        "cp866" => encoding_rs::IBM866,
        "koi8r" => encoding_rs::KOI8_R,
        "koi8u" => encoding_rs::KOI8_U,
        "macroman" => encoding_rs::MACINTOSH,
        "tis620" => encoding_rs::WINDOWS_874,
        "gbk" | "gb2312" => encoding_rs::GBK,
        "gb18030" => encoding_rs::GB18030,
        "big5" => encoding_rs::BIG5,
        "sjis" | "cp932" => encoding_rs::SHIFT_JIS,
        "ujis" | "eucjpms" => encoding_rs::EUC_JP,
        "euckr" => encoding_rs::EUC_KR,
        _ => return None,
    };
    let (bytes, _, replaced) = encoding.encode(text);
    // It has to come back, too.
    let back = encoding.decode_without_bom_handling(&bytes).0;
    (!replaced && back == text).then(|| bytes.into_owned())
}

/// Whether a client that does not know the character set takes the second byte of a character of
/// `encoded` for a backslash or a backtick, and so misses the end of the statement.
pub(super) fn misleads(text: &str, encoded: &[u8]) -> bool {
    [b'\\', b'`'].iter().any(|sign| {
        let count = |bytes: &[u8]| bytes.iter().filter(|byte| *byte == sign).count();
        count(text.as_bytes()) != count(encoded)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_form_is_said() {
        assert_eq!(encode("é€", "latin1").unwrap(), b"\xe9\x80");
        assert_eq!(encode("中", "gbk").unwrap(), b"\xd6\xd0");
        assert_eq!(encode("中", "latin1"), None);
        assert_eq!(encode("x", "klingon"), None);
        assert!(misleads("ソ", &encode("ソ", "sjis").unwrap()));
        assert!(!misleads("`中\\`", &encode("`中\\`", "gbk").unwrap()));
    }
}
