//! `holdfast.json`: what makes a directory or bucket a repository.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::constant_time;
use backup_core::{Context, Error, FORMAT, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::cipher::{Cipher, Keys};
use super::{Hex, checked, hex, newer, unhex};

/// The id of a repository: 16 random bytes as 32 lower-case hex digits. Copies of a repository keep
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryId(String);

impl RepositoryId {
    /// A new one.
    #[must_use]
    pub fn new(cx: &Context) -> Self {
        RepositoryId(hex(&cx.random::<16>()))
    }

    /// The 32 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryId {
    type Err = Error;
    fn from_str(id: &str) -> Result<Self> {
        match unhex::<16>(id) {
            Some(_) => Ok(RepositoryId(id.to_owned())),
            None => Err(Error::damaged("a repository id is 32 lower-case hex digits")),
        }
    }
}

impl TryFrom<String> for RepositoryId {
    type Error = Error;
    fn try_from(id: String) -> Result<Self> {
        id.parse()
    }
}

impl From<RepositoryId> for String {
    fn from(id: RepositoryId) -> String {
        id.0
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The content of `holdfast.json`, without its check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The format, 1.
    pub format: u32,
    /// The repository's id.
    pub repository: RepositoryId,
    /// When it was created.
    pub created_at: Timestamp,
    /// The program and version that created it.
    pub writer: String,
    /// What a program must know to use the repository, beyond format 1. This version knows
    /// `encryption`, which an encrypted repository names.
    #[serde(default)]
    pub requires: Vec<String>,
    /// How it is encrypted; `null` when it is not.
    #[serde(default)]
    pub encryption: Option<Encryption>,
}

/// The feature that `requires` of an encrypted repository names.
const ENCRYPTION: &str = "encryption";

/// How a repository is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// The cipher that new frames are sealed with.
    pub cipher: Cipher,
    /// Tells the right master key from a wrong one, and nothing about it.
    key_check: Hex<32>,
}

impl Encryption {
    /// That of a repository with these keys.
    #[must_use]
    pub fn new(repository: &RepositoryId, keys: &Keys) -> Self {
        Encryption { cipher: keys.cipher(), key_check: Hex(key_check(repository, keys)) }
    }

    /// Whether these are the keys of the repository.
    #[must_use]
    pub fn is_key(&self, repository: &RepositoryId, keys: &Keys) -> bool {
        let check = key_check(repository, keys);
        constant_time::verify_slices_are_equal(&self.key_check.0, &check).is_ok()
    }
}

/// Bound to repository and cipher too, so that neither can be changed without the key.
fn key_check(repository: &RepositoryId, keys: &Keys) -> [u8; 32] {
    *keys.derive(&format!("holdfast key check {repository} {}", keys.cipher().as_str()))
}

impl Config {
    /// The longest `holdfast.json` that is read, in bytes.
    pub const MAX_BYTES: u64 = 1 << 20;

    /// A new repository.
    #[must_use]
    pub fn new(cx: &Context, writer: &str) -> Self {
        Config {
            format: FORMAT,
            repository: RepositoryId::new(cx),
            created_at: cx.now(),
            writer: writer.to_owned(),
            requires: Vec::new(),
            encryption: None,
        }
    }

    /// The same repository, encrypted with the master key and cipher of `keys`.
    #[must_use]
    pub fn encrypted(mut self, keys: &Keys) -> Self {
        self.encryption = Some(Encryption::new(&self.repository, keys));
        self.requires.push(ENCRYPTION.to_owned());
        self
    }

    /// The bytes of the object.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        checked::close(&checked::members(self))
    }

    /// Reads the object.
    ///
    /// # Errors
    /// [`Damaged`](backup_core::ErrorKind::Damaged); [`Store`](backup_core::ErrorKind::Store) where it needs a newer
    /// version.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let damaged = |problem: &'static str| {
            Error::damaged(format!("holdfast.json is damaged: {problem}"))
                .with_remedy("put holdfast.json back from a copy of the repository")
        };
        let (text, _) = checked::open(bytes).map_err(damaged)?;
        // The format first: what else is in the file is for that format to say.
        #[derive(Deserialize)]
        struct Format {
            format: u64,
            #[serde(default)]
            requires: Vec<String>,
            #[serde(default)]
            encryption: serde_json::Value,
        }
        let no_json =
            |e: serde_json::Error| damaged("it is not what its format says").with_source(e);
        let Format { format, requires, encryption } =
            serde_json::from_str(text).map_err(no_json)?;
        if format > u64::from(FORMAT) {
            return Err(newer(format!("holdfast.json: the repository has format {format}")));
        }
        if let Some(feature) = requires.iter().find(|feature| *feature != ENCRYPTION) {
            return Err(newer(format!(
                "holdfast.json: the repository needs `{}`",
                feature.escape_debug()
            )));
        }
        if requires.is_empty() != encryption.is_null()
            || serde_json::from_value::<Option<Encryption>>(encryption).is_err()
        {
            return Err(newer("holdfast.json: the repository is encrypted in another way"));
        }
        let config: Config = serde_json::from_str(text).map_err(no_json)?;
        if config.format != FORMAT {
            return Err(damaged("there is no such format"));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::ErrorKind;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    fn config() -> Config {
        Config {
            format: 1,
            repository: "00112233445566778899aabbccddeeff".parse().unwrap(),
            created_at: "2026-11-20T10:15:30Z".parse().unwrap(),
            writer: "holdfast 0.1.0".to_owned(),
            requires: Vec::new(),
            encryption: None,
        }
    }

    fn keys(byte: u8) -> Keys {
        Keys::new(Cipher::Aes256Gcm, [byte; 32].into())
    }

    #[test]
    fn the_file_is_as_documented() {
        let text = String::from_utf8(config().encode()).unwrap();
        let before = r#"{
  "format": 1,
  "repository": "00112233445566778899aabbccddeeff",
  "created_at": "2026-11-20T10:15:30Z",
  "writer": "holdfast 0.1.0",
  "requires": [],
  "encryption": null,
"#;
        let digest = hex(&Sha256::digest(before.as_bytes()));
        assert_eq!(text, format!("{before}  \"check\": \"{digest}\"\n}}\n"));
        assert_eq!(Config::parse(text.as_bytes()).unwrap(), config());
    }

    #[test]
    fn an_encrypted_repository_knows_its_key_and_cipher() {
        let config = config().encrypted(&keys(7));
        let parsed = Config::parse(&config.encode()).unwrap();
        assert_eq!(parsed, config);
        assert_eq!(parsed.requires, ["encryption"]);
        let encryption = parsed.encryption.unwrap();
        // Computed with Python's hmac, as docs/format.md says it.
        assert_eq!(
            hex(&encryption.key_check.0),
            "7b0ac6f320e34f53cc563ec1624b97d54eeb329f19911109394f1b10d625a95b"
        );
        assert!(encryption.is_key(&config.repository, &keys(7)));
        assert!(!encryption.is_key(&config.repository, &keys(8)));
        let other = Keys::new(Cipher::ChaCha20Poly1305, [7; 32].into());
        assert!(!encryption.is_key(&config.repository, &other));
        let elsewhere = "00112233445566778899aabbccddeef0".parse().unwrap();
        assert!(!encryption.is_key(&elsewhere, &keys(7)));
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_seen() {
        let good = config().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let e = Config::parse(&bad).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Damaged, "bit {bit}");
            assert!(e.report().contains("holdfast.json is damaged"), "{}", e.report());
        }
        for length in 0..good.len() {
            assert!(Config::parse(&good[..length]).is_err(), "{length}");
        }
        let mut longer = good;
        longer.push(b'\n');
        assert!(Config::parse(&longer).is_err());
    }

    #[test]
    fn what_needs_a_newer_version_says_so() {
        for newer in [
            Config { format: 2, ..config() },
            Config { requires: vec!["frob".into()], ..config() },
            Config { requires: vec!["encryption".into()], ..config() },
            Config { requires: Vec::new(), ..config().encrypted(&keys(7)) },
        ] {
            let e = Config::parse(&newer.encode()).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Store);
            assert!(e.report().contains("newer holdfast"), "{}", e.report());
            assert!(e.report().contains("holdfast.json"), "{}", e.report());
        }
        assert!(Config::parse(&Config { format: 0, ..config() }.encode()).is_err());
        let text = String::from_utf8(config().encrypted(&keys(7)).encode()).unwrap();
        for (from, to) in [("aes-256-gcm", "rot-13"), ("\"key_check\"", "\"kex_check\"")] {
            let members = text.replace(from, to);
            let (members, _) = members.split_at(members.find("  \"check\"").unwrap());
            let e = Config::parse(&checked::close(members)).unwrap_err();
            assert!(e.report().contains("newer holdfast"), "{}", e.report());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Config::parse(&bytes).is_err());
        }
    }
}
