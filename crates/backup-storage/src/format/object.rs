//! Objects: the header that each begins with, and the place that each is bound to.

use std::sync::Arc;

use backup_core::{Context, Error, Result};

use super::cipher::{Keys, Salt};
use super::{RepositoryId, newer};
use crate::key::Key;

/// Length of the header of an object.
pub const OBJECT_HEADER_LEN: usize = 16;

const MAGIC: &[u8; 8] = b"HOLDFAST";
const VERSION: u8 = 1;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// `pack-<n>`.
    Pack = 1,
    /// `index`.
    Index = 2,
    /// `manifest`.
    Manifest = 3,
    /// A record of the history.
    Record = 4,
    /// A piece of a binlog.
    Segment = 5,
}

/// What every object of a repository is sealed with: its id and, where it is encrypted, its keys.
#[derive(Debug, Clone)]
pub struct Seals {
    /// The repository's id.
    pub repository: RepositoryId,
    /// `None` when the repository is not encrypted.
    pub keys: Option<Keys>,
}

impl Seals {
    /// The place of an object, for reading it.
    #[must_use]
    pub fn place(&self, key: &Key) -> Place {
        Place { keys: self.keys.clone(), ..Place::new(&self.repository, key) }
    }

    /// The place of an object that is about to be written, once: what is sealed here is encrypted
    /// under a key of its own.
    #[must_use]
    pub fn new_place(&self, cx: &Context, key: &Key) -> Place {
        Place { salt: self.keys.is_some().then(|| cx.random()), ..self.place(key) }
    }
}

/// What binds bytes to the one place where they are true: repository and path, and the keys to them
/// where there are any. Not stored; every check is computed over it, so an object or a frame that was
/// moved or swapped fails its check.
#[derive(Debug, Clone)]
pub struct Place {
    data: Arc<[u8]>,
    path: Arc<str>,
    keys: Option<Keys>,
    /// Only where something is written.
    salt: Option<Salt>,
}

impl Place {
    /// The place of an object in a repository that is not encrypted.
    #[must_use]
    pub fn new(repository: &RepositoryId, key: &Key) -> Self {
        let path = key.to_string();
        let length = u16::try_from(path.len()).expect("keys are far shorter than 64 KiB");
        let mut data = Vec::with_capacity(path.len() + 48);
        data.extend_from_slice(MAGIC);
        data.extend_from_slice(repository.as_str().as_bytes());
        data.extend_from_slice(&length.to_le_bytes());
        data.extend_from_slice(path.as_bytes());
        Place { data: data.into(), path: path.into(), keys: None, salt: None }
    }

    /// The path of the object, for messages.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The bytes that a check covers in front of everything else.
    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }

    /// The keys to what stands here.
    pub(super) fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }

    /// The keys and the salt to seal with.
    ///
    /// # Errors
    /// A place for reading, in an encrypted repository.
    pub(super) fn sealing(&self) -> Result<Option<(&Keys, &Salt)>> {
        match (&self.keys, &self.salt) {
            (None, _) => Ok(None),
            (Some(keys), Some(salt)) => Ok(Some((keys, salt))),
            (Some(_), None) => Err(Error::internal(format!("{} is only read here", self.path))),
        }
    }

    /// The header of the object that stands here.
    #[must_use]
    pub fn object_header(&self, kind: ObjectKind) -> [u8; OBJECT_HEADER_LEN] {
        let mut header = [0; OBJECT_HEADER_LEN];
        header[..8].copy_from_slice(MAGIC);
        header[8] = kind as u8;
        header[9] = VERSION;
        let crc = self.crc(&header);
        header[12..].copy_from_slice(&crc.to_le_bytes());
        header
    }

    fn crc(&self, header: &[u8; OBJECT_HEADER_LEN]) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.data);
        crc.update(&header[..12]);
        crc.finalize()
    }

    /// Checks the first bytes of the object that stands here.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when they are not the header of an
    /// object of `kind` at this place; [`ErrorKind::Store`](backup_core::ErrorKind::Store) when they
    /// are one of a later version.
    pub fn check_object_header(&self, kind: ObjectKind, bytes: &[u8]) -> Result<()> {
        let damaged = |problem: &str| Err(Error::damaged(format!("{}: {problem}", self.path)));
        let Some(header) = bytes.first_chunk::<OBJECT_HEADER_LEN>() else {
            return damaged("the object is shorter than its header");
        };
        if &header[..8] != MAGIC {
            return damaged("the object does not begin as one of holdfast does");
        }
        if header[12..] != self.crc(header).to_le_bytes() {
            return damaged(
                "the header of the object is damaged, or the object belongs to another place",
            );
        }
        if header[9] != VERSION || header[10..12] != [0, 0] {
            return Err(newer(format!("{}: object version {}", self.path, header[9])));
        }
        if header[8] != kind as u8 {
            return damaged("the object is of another kind than its name says");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::ErrorKind;

    fn place(cluster: &str) -> Place {
        let id: RepositoryId = "00112233445566778899aabbccddeeff".parse().unwrap();
        let name = crate::key::RecordName::new("x").unwrap();
        Place::new(&id, &Key::Record(cluster.parse().unwrap(), name))
    }

    #[test]
    fn the_header_is_as_documented() {
        let place = place("c");
        assert_eq!(
            place.data(),
            b"HOLDFAST00112233445566778899aabbccddeeff\x14\x00clusters/c/records/x"
        );
        let header = place.object_header(ObjectKind::Record);
        assert_eq!(&header[..12], b"HOLDFAST\x04\x01\0\0");
        let mut covered = place.data().to_vec();
        covered.extend_from_slice(&header[..12]);
        assert_eq!(
            header[12..],
            crc32fast::hash(&covered).to_le_bytes(),
            "the CRC covers the place, then the header"
        );
    }

    #[test]
    fn every_changed_bit_is_seen() {
        let place = place("c");
        let good = place.object_header(ObjectKind::Record);
        place.check_object_header(ObjectKind::Record, &good).unwrap();
        for bit in 0..OBJECT_HEADER_LEN * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            let e = place.check_object_header(ObjectKind::Record, &bad).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Damaged, "bit {bit}");
        }
        for length in 0..OBJECT_HEADER_LEN {
            assert!(place.check_object_header(ObjectKind::Record, &good[..length]).is_err());
        }
    }

    #[test]
    fn another_place_or_kind_is_refused() {
        let header = place("c").object_header(ObjectKind::Record);
        assert!(place("d").check_object_header(ObjectKind::Record, &header).is_err());
        assert!(place("c").check_object_header(ObjectKind::Pack, &header).is_err());
    }

    #[test]
    fn a_later_version_is_named_as_such() {
        let place = place("c");
        for at in [9, 10, 11] {
            let mut header = place.object_header(ObjectKind::Record);
            header[at] = 2;
            let crc = place.crc(&header);
            header[12..].copy_from_slice(&crc.to_le_bytes());
            let e = place.check_object_header(ObjectKind::Record, &header).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Store);
            assert!(e.report().contains("newer holdfast"), "{}", e.report());
        }
    }
}
