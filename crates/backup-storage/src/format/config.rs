//! `holdfast.json`: what makes a directory or bucket a repository.

use std::fmt;
use std::str::FromStr;

use backup_core::{Context, Error, ErrorKind, FORMAT, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{hex, newer, unhex};

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
    /// What a program must know to use the repository, beyond format 1. This version knows nothing
    /// beyond it.
    #[serde(default)]
    pub requires: Vec<String>,
    /// How it is encrypted; `null` when it is not.
    #[serde(default)]
    pub encryption: serde_json::Value,
}

/// What comes before the digest in the last line but one.
const CHECK: &str = "  \"check\": \"";

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
            encryption: serde_json::Value::Null,
        }
    }

    /// The bytes of the object.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_string_pretty(self).expect("plain strings and numbers");
        // The check is the last member, on a line of its own, and covers every byte before its line.
        let covered = format!("{},\n", json.trim_end_matches("\n}"));
        let check = hex(&Sha256::digest(covered.as_bytes()));
        format!("{covered}{CHECK}{check}\"\n}}\n").into_bytes()
    }

    /// Reads the object.
    ///
    /// # Errors
    /// [`ErrorKind::Store`]: it is damaged, or it needs a newer version.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let damaged = |problem: &'static str| {
            Error::new(ErrorKind::Store, format!("holdfast.json is damaged: {problem}"))
                .with_remedy("put holdfast.json back from a copy of the repository")
        };
        let text = str::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
        let (covered, tail) = text
            .rfind(CHECK)
            .map(|at| text.split_at(at))
            .ok_or_else(|| damaged("it has no check"))?;
        let check = hex(&Sha256::digest(covered.as_bytes()));
        if tail != format!("{CHECK}{check}\"\n}}\n") {
            return Err(damaged("it does not match its check"));
        }
        // The format first: what else is in the file is for that format to say.
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        let no_json =
            |e: serde_json::Error| damaged("it is not what its format says").with_source(e);
        let Format { format } = serde_json::from_str(text).map_err(no_json)?;
        if format > u64::from(FORMAT) {
            return Err(newer(format!("holdfast.json: the repository has format {format}")));
        }
        let config: Config = serde_json::from_str(text).map_err(no_json)?;
        if config.format != FORMAT {
            return Err(damaged("there is no such format"));
        }
        if let Some(feature) = config.requires.first() {
            return Err(newer(format!(
                "holdfast.json: the repository needs `{}`",
                feature.escape_debug()
            )));
        }
        if !config.encryption.is_null() {
            return Err(newer("holdfast.json: the repository is encrypted"));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config() -> Config {
        Config {
            format: 1,
            repository: "00112233445566778899aabbccddeeff".parse().unwrap(),
            created_at: "2026-11-20T10:15:30Z".parse().unwrap(),
            writer: "holdfast 0.1.0".to_owned(),
            requires: Vec::new(),
            encryption: serde_json::Value::Null,
        }
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
    fn every_changed_bit_and_every_cut_is_seen() {
        let good = config().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let e = Config::parse(&bad).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Store, "bit {bit}");
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
            Config { encryption: serde_json::json!({}), ..config() },
        ] {
            let e = Config::parse(&newer.encode()).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Store);
            assert!(e.report().contains("newer holdfast"), "{}", e.report());
            assert!(e.report().contains("holdfast.json"), "{}", e.report());
        }
        assert!(Config::parse(&Config { format: 0, ..config() }.encode()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Config::parse(&bytes).is_err());
        }
    }
}
