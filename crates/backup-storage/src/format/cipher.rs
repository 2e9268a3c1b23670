//! Keys and ciphers: how frames are sealed in an encrypted repository.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use aws_lc_rs::hkdf::{self, HKDF_SHA256};
use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// An authenticated cipher, as frames and `holdfast.json` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[repr(u8)]
pub enum Cipher {
    /// AES-256-GCM: the faster one on every machine with AES instructions.
    #[default]
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305 (RFC 8439).
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305 = 2,
}

impl Cipher {
    /// The cipher of a number; `None` when this version has none of it.
    pub(super) fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Cipher::Aes256Gcm),
            2 => Some(Cipher::ChaCha20Poly1305),
            _ => None,
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Cipher::Aes256Gcm => &AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }

    /// The name in `holdfast.json` and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Cipher::Aes256Gcm => "aes-256-gcm",
            Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

impl FromStr for Cipher {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305]
            .into_iter()
            .find(|cipher| cipher.as_str() == text)
            .ok_or_else(|| {
                Error::usage(format!("there is no cipher `{}`", text.escape_debug()))
                    .with_remedy("use aes-256-gcm or chacha20-poly1305")
            })
    }
}

/// What an object's sub-key is derived with; new for every object written.
pub(crate) type Salt = [u8; 16];

/// The master key of a repository and the cipher that it is used with. Cheap to clone; shows
/// nothing of itself, and is wiped from memory with its last clone.
#[derive(Clone)]
pub struct Keys {
    cipher: Cipher,
    master: Arc<Zeroizing<[u8; 32]>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.cipher.as_str())
    }
}

/// Why a sealed payload does not open; what more could be said would only help a forger.
pub(super) struct Forged;

impl Keys {
    /// The keys that `master`, 32 random bytes, stands for.
    #[must_use]
    pub fn new(cipher: Cipher, master: Zeroizing<[u8; 32]>) -> Self {
        Keys { cipher, master: Arc::new(master) }
    }

    /// The cipher.
    #[must_use]
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The master key, for whoever wraps it.
    #[must_use]
    pub fn master(&self) -> &[u8; 32] {
        &self.master
    }

    /// 32 bytes for `purpose` that tell nothing about the master key.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        hkdf::Salt::new(HKDF_SHA256, &[])
            .extract(&self.master[..])
            .expand(&[purpose.as_bytes()], HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut bytes[..]))
            .expect("32 bytes are what HKDF-SHA256 is asked for");
        bytes
    }

    /// The key of one object: nobody who learns it can open another one.
    fn object_key(&self, cipher: Cipher, salt: &Salt, place: &[u8]) -> LessSafeKey {
        let info: [&[u8]; 2] = [b"holdfast frame", place];
        let prk = hkdf::Salt::new(HKDF_SHA256, salt).extract(&self.master[..]);
        let okm = prk.expand(&info, cipher.algorithm()).expect("32 bytes are within HKDF's bounds");
        LessSafeKey::new(UnboundKey::from(okm))
    }

    /// Encrypts `payload` in place and gives its tag.
    pub(super) fn seal(
        &self,
        salt: &Salt,
        place: &[u8],
        offset: u64,
        header: &[u8],
        payload: &mut [u8],
    ) -> Result<[u8; 16]> {
        let key = self.object_key(self.cipher, salt, place);
        let tag = key
            .seal_in_place_separate_tag(nonce(offset), aad(place, offset, header), payload)
            .map_err(|_| Error::internal("a frame cannot be encrypted"))?;
        tag.as_ref().try_into().map_err(|_| Error::internal("a cipher whose tag has not 16 bytes"))
    }

    /// Checks and decrypts what [`seal`](Self::seal) made.
    pub(super) fn open(
        &self,
        (cipher, salt, tag): (Cipher, &Salt, &[u8; 16]),
        place: &[u8],
        offset: u64,
        header: &[u8],
        payload: &[u8],
    ) -> Result<Vec<u8>, Forged> {
        let key = self.object_key(cipher, salt, place);
        let mut clear = vec![0; payload.len()];
        key.open_separate_gather(
            nonce(offset),
            aad(place, offset, header),
            payload,
            tag,
            &mut clear,
        )
        .map_err(|_| Forged)?;
        Ok(clear)
    }
}

/// An offset has one frame, and a key one object: no nonce comes twice.
fn nonce(offset: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&offset.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn aad(place: &[u8], offset: u64, header: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([place, &offset.to_le_bytes(), header].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(cipher: Cipher) -> Keys {
        Keys::new(cipher, Zeroizing::new([7; 32]))
    }

    #[test]
    fn keys_show_nothing() {
        assert_eq!(format!("{:?}", keys(Cipher::Aes256Gcm)), "Keys(aes-256-gcm)");
    }

    #[test]
    fn what_was_sealed_opens_with_everything_the_same_and_with_nothing_else() {
        for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
            let keys = keys(cipher);
            let (salt, clear) = ([1; 16], b"the quick brown fox".to_vec());
            let mut payload = clear.clone();
            let tag = keys.seal(&salt, b"place", 16, b"header", &mut payload).unwrap();
            assert_ne!(payload, clear);
            let open = |keys: &Keys, cipher, salt: &Salt, place: &[u8], offset, header: &[u8]| {
                keys.open((cipher, salt, &tag), place, offset, header, &payload).ok()
            };
            assert_eq!(open(&keys, cipher, &salt, b"place", 16, b"header"), Some(clear));
            let other = match cipher {
                Cipher::Aes256Gcm => Cipher::ChaCha20Poly1305,
                Cipher::ChaCha20Poly1305 => Cipher::Aes256Gcm,
            };
            let stranger = Keys::new(cipher, Zeroizing::new([8; 32]));
            assert!(open(&stranger, cipher, &salt, b"place", 16, b"header").is_none());
            assert!(open(&keys, other, &salt, b"place", 16, b"header").is_none());
            assert!(open(&keys, cipher, &[2; 16], b"place", 16, b"header").is_none());
            assert!(open(&keys, cipher, &salt, b"plaice", 16, b"header").is_none());
            assert!(open(&keys, cipher, &salt, b"place", 17, b"header").is_none());
            assert!(open(&keys, cipher, &salt, b"place", 16, b"heaper").is_none());
        }
    }

    #[test]
    fn derived_keys_differ_by_purpose() {
        let keys = keys(Cipher::Aes256Gcm);
        assert_eq!(keys.derive("a"), keys.derive("a"));
        assert_ne!(keys.derive("a"), keys.derive("b"));
        assert_ne!(keys.derive("a")[..], keys.master()[..]);
    }
}
