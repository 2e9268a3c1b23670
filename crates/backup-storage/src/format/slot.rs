//! Key slots: the master key of a repository, wrapped under a passphrase or a key file.

use std::fmt;

use argon2::{Argon2, Block, Params};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{self, HKDF_SHA256};
use backup_core::{Context, Error, ErrorKind, FORMAT, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::unlock::Unlock;
use super::{Hex, RepositoryId, checked, hex, newer};
use crate::key::{Key, SlotName};

/// What a slot is opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotKind {
    /// A passphrase.
    Passphrase,
    /// A key file.
    KeyFile,
}

impl SlotKind {
    /// Its name in the slot.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SlotKind::Passphrase => "passphrase",
            SlotKind::KeyFile => "key-file",
        }
    }
}

/// What a guess at a passphrase costs: the parameters of argon2id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Cost {
    /// Memory in KiB, 8 for each lane to 262,144 (256 MiB).
    pub memory_kib: u32,
    /// Passes over it, from 1; times the memory, at most 2 GiB.
    pub iterations: u32,
    /// Lanes, 1 to 16. They are computed one after the other.
    pub lanes: u32,
}

impl Default for Argon2Cost {
    /// 64 MiB, three passes, one lane: the second choice of RFC 9106.
    fn default() -> Self {
        Argon2Cost { memory_kib: 64 << 10, iterations: 3, lanes: 1 }
    }
}

impl Argon2Cost {
    /// The most memory that a slot may ask for, in KiB.
    const MAX_MEMORY_KIB: u32 = 256 << 10;
    const MAX_LANES: u32 = 16;
    /// The most memory times passes that a slot may ask for, in KiB.
    const MAX_WORK_KIB: u64 = 2 << 20;

    /// The parameters of the crate; `None` when they are out of bounds.
    fn params(self) -> Option<Params> {
        let work = u64::from(self.memory_kib) * u64::from(self.iterations);
        let within = self.lanes <= Self::MAX_LANES
            && self.memory_kib <= Self::MAX_MEMORY_KIB
            && work <= Self::MAX_WORK_KIB;
        let params = Params::new(self.memory_kib, self.iterations, self.lanes, Some(KEY_LEN));
        params.ok().filter(|_| within)
    }
}

const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;

/// How the key that wraps the master key is made of a passphrase or key file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name")]
enum Kdf {
    #[serde(rename = "argon2id")]
    Argon2id { memory_kib: u32, iterations: u32, lanes: u32, salt: Hex<16> },
    #[serde(rename = "hkdf-sha256")]
    Hkdf { salt: Hex<16> },
}

/// All members of a slot before the wrapped key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    format: u32,
    repository: RepositoryId,
    slot: SlotName,
    kind: SlotKind,
    label: String,
    created_at: Timestamp,
    kdf: Kdf,
    nonce: Hex<NONCE_LEN>,
}

/// A key slot, the object `keys/<slot>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Slot {
    head: Head,
    /// The text of the head. The wrapped key is bound to it, byte for byte.
    text: String,
    wrapped: [u8; KEY_LEN + TAG_LEN],
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({}, {})", self.head.slot, self.head.kind.as_str())
    }
}

/// What comes before the wrapped key, on the line before the check.
const WRAPPED: &str = "  \"wrapped\": \"";

impl Slot {
    /// The longest slot that is read, in bytes.
    pub const MAX_BYTES: u64 = 16 << 10;
    /// The longest label, in bytes.
    pub const MAX_LABEL: usize = 100;

    /// Wraps the master key of a repository. This takes the time that `cost` says, without an await.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`]: passphrase or key file are too short, the label is too long or has
    /// control characters, or `cost` is out of bounds.
    pub fn wrap(
        cx: &Context,
        repository: &RepositoryId,
        master: &[u8; KEY_LEN],
        unlock: &Unlock,
        label: &str,
        cost: Argon2Cost,
    ) -> Result<Slot> {
        unlock.check()?;
        if !is_label(label) {
            return Err(Error::usage("the label of the key slot is too long or not plain text")
                .with_remedy(format!("write at most {} bytes on one line", Self::MAX_LABEL)));
        }
        let salt = Hex(cx.random());
        let kdf = match unlock {
            Unlock::KeyFile(_) => Kdf::Hkdf { salt },
            Unlock::Passphrase(_) => {
                let Argon2Cost { memory_kib, iterations, lanes } = cost;
                Kdf::Argon2id { memory_kib, iterations, lanes, salt }
            }
        };
        let key = kdf.key(unlock).ok_or_else(|| {
            Error::usage("the parameters of argon2id are out of bounds")
                .with_remedy("ask for at most 256 MiB, 16 lanes, and 2 GiB over all passes")
        })?;
        let head = Head {
            format: FORMAT,
            repository: repository.clone(),
            slot: SlotName::new(cx),
            kind: unlock.kind(),
            label: label.to_owned(),
            created_at: cx.now(),
            kdf,
            nonce: Hex(cx.random()),
        };
        let text = checked::members(&head);
        let mut wrapped = [0; KEY_LEN + TAG_LEN];
        let (secret, tag) = wrapped.split_at_mut(KEY_LEN);
        secret.copy_from_slice(master);
        let sealed = aead(&key)
            .seal_in_place_separate_tag(head.nonce(), Aad::from(text.as_bytes()), secret)
            .map_err(|_| Error::internal("the master key cannot be wrapped"))?;
        tag.copy_from_slice(sealed.as_ref());
        Ok(Slot { head, text, wrapped })
    }

    /// The master key; `None` when it is another passphrase or key file, or the slot was changed.
    /// This takes the time that the slot asks for, within bounds, without an await.
    #[must_use]
    pub fn unwrap(&self, unlock: &Unlock) -> Option<Zeroizing<[u8; KEY_LEN]>> {
        if self.head.kind != unlock.kind() || unlock.check().is_err() {
            return None;
        }
        let key = self.head.kdf.key(unlock)?;
        let mut master = Zeroizing::new([0; KEY_LEN]);
        let (secret, tag) = self.wrapped.split_at(KEY_LEN);
        let aad = Aad::from(self.text.as_bytes());
        aead(&key)
            .open_separate_gather(self.head.nonce(), aad, secret, tag, &mut master[..])
            .ok()?;
        Some(master)
    }

    /// The bytes of the object.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        checked::close(&format!("{}{WRAPPED}{}\",\n", self.text, hex(&self.wrapped)))
    }

    /// Reads the object called `name`.
    ///
    /// # Errors
    /// [`ErrorKind::Store`]: it is damaged, it needs a newer version, or opening it would take more
    /// memory or time than a slot may ask for.
    pub fn parse(name: &SlotName, bytes: &[u8]) -> Result<Slot> {
        let key = Key::KeySlot(name.clone());
        let damaged = |problem: &str| {
            Error::new(ErrorKind::Store, format!("the key slot {key} is damaged: {problem}"))
                .with_remedy(
                    "put it back from a copy of the repository; or add a new key with `holdfast key \
                     add` and remove this one",
                )
        };
        let (text, covered) = checked::open(bytes).map_err(damaged)?;
        let no_json =
            |e: serde_json::Error| damaged("it is not what its format says").with_source(e);
        // The format first: what else is in the slot is for that format to say.
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        let Format { format } = serde_json::from_str(text).map_err(no_json)?;
        if format > u64::from(FORMAT) {
            return Err(newer(format!("{key}: the key slot has format {format}")));
        }
        let head: Head = serde_json::from_str(text).map_err(no_json)?;
        let (head_text, wrapped) = covered
            .rfind(WRAPPED)
            .map(|at| covered.split_at(at))
            .ok_or_else(|| damaged("it holds no key"))?;
        let wrapped = wrapped[WRAPPED.len()..].strip_suffix("\",\n").and_then(super::unhex);
        let wrapped = wrapped.ok_or_else(|| damaged("the key in it has the wrong length"))?;
        if head.format != FORMAT || head.slot != *name || head.kdf.kind() != head.kind {
            return Err(damaged("it is another slot than its name says"));
        }
        if !is_label(&head.label) {
            return Err(damaged("its label is no plain text"));
        }
        if !head.kdf.is_within_bounds() {
            return Err(Error::new(
                ErrorKind::Store,
                format!("the key slot {key} asks for more memory or time than any slot needs"),
            )
            .with_remedy("somebody made it to do harm, or another program did: remove it"));
        }
        Ok(Slot { head, text: head_text.to_owned(), wrapped })
    }

    /// The repository whose key it holds.
    #[must_use]
    pub fn repository(&self) -> &RepositoryId {
        &self.head.repository
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &SlotName {
        &self.head.slot
    }

    /// What it is opened with.
    #[must_use]
    pub fn kind(&self) -> SlotKind {
        self.head.kind
    }

    /// What its maker calls it; may be empty.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.head.label
    }

    /// When it was made, by the clock of its maker.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.head.created_at
    }

    /// The memory in bytes that opening it takes.
    #[must_use]
    pub fn memory(&self) -> usize {
        match self.head.kdf {
            Kdf::Argon2id { memory_kib, .. } => memory_kib as usize * Block::SIZE,
            Kdf::Hkdf { .. } => 0,
        }
    }
}

fn is_label(label: &str) -> bool {
    label.len() <= Slot::MAX_LABEL && !label.chars().any(char::is_control)
}

impl Head {
    fn nonce(&self) -> Nonce {
        Nonce::assume_unique_for_key(self.nonce.0)
    }
}

impl Kdf {
    fn kind(&self) -> SlotKind {
        match self {
            Kdf::Argon2id { .. } => SlotKind::Passphrase,
            Kdf::Hkdf { .. } => SlotKind::KeyFile,
        }
    }

    fn params(&self) -> Option<Params> {
        match *self {
            Kdf::Argon2id { memory_kib, iterations, lanes, .. } => {
                Argon2Cost { memory_kib, iterations, lanes }.params()
            }
            Kdf::Hkdf { .. } => None,
        }
    }

    fn is_within_bounds(&self) -> bool {
        matches!(self, Kdf::Hkdf { .. }) || self.params().is_some()
    }

    /// The key that wraps; `None` when parameters are out of bounds.
    fn key(&self, unlock: &Unlock) -> Option<Zeroizing<[u8; KEY_LEN]>> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        match self {
            Kdf::Argon2id { salt, .. } => {
                let params = self.params()?;
                // What the passes leave behind is wiped as well.
                let mut memory = Zeroizing::new(vec![Block::new(); params.block_count()]);
                let argon2 =
                    Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
                argon2
                    .hash_password_into_with_memory(
                        unlock.bytes(),
                        &salt.0,
                        &mut key[..],
                        &mut memory[..],
                    )
                    .ok()?;
            }
            Kdf::Hkdf { salt } => hkdf::Salt::new(HKDF_SHA256, &salt.0)
                .extract(unlock.bytes())
                .expand(&[b"holdfast key file"], HKDF_SHA256)
                .and_then(|okm| okm.fill(&mut key[..]))
                .ok()?,
        }
        Some(key)
    }
}

fn aead(key: &[u8; KEY_LEN]) -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes a key of 32 bytes");
    LessSafeKey::new(key)
}

#[cfg(test)]
mod tests;
