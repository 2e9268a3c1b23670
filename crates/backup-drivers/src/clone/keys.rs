//! The keys of encrypted tablespaces, and of the redo log.
//!
//! A donor sends pages as they are encrypted in its files, but keys in the clear, for the recipient to
//! put them under a master key of its own: in the first page of each tablespace, in the description of a
//! file that DDL made, in the header of the redo log. We have no master key. What we keep in the backup
//! is under the key that every server has built in and takes for master key 0 (`os0enc.cc`,
//! `DEFAULT_MASTER_KEY`); a server with a keyring puts them under its own key when it recovers the files. That
//! key is public, so it protects nothing: the repository has to.
//!
//! While changed pages rest on the local disk, keys do not rest with them.

use std::fmt;

use aws_lc_rs::cipher::{AES_256, EncryptingKey, UnboundCipherKey};
use backup_core::{Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use secrecy::zeroize::Zeroizing;

use super::descriptor::Tablespace;
use crate::innodb;

/// The key of a tablespace and its initialisation vector.
const KEY: usize = 64;

/// The description of a key in a file: magic, `u32` number of the master key, UUID of the server that has
/// it, key and vector, `u32` CRC-32C of the two in the clear.
const MAGIC: &[u8] = b"lCC";
const MASTER: std::ops::Range<usize> = 3..7;
const WRAPPED: std::ops::Range<usize> = 43..43 + KEY;
const SUM: std::ops::Range<usize> = 107..111;
const LENGTH: usize = 111;

/// In a file of the redo log: in its second block of 512 bytes (`log0log.h`).
pub(super) const REDO_AT: usize = 1072;

/// `XDES_ARR_OFFSET` and the bytes of a descriptor of an extent before its bitmap (`fsp0fsp.h`).
const EXTENTS_AT: usize = 150;
const EXTENT_HEAD: usize = 24;

/// Where the description of the key is in the first page of a tablespace: behind the descriptors of
/// extents, with two bits a page (`fsp_header_get_encryption_offset`).
pub(super) fn place(space: Tablespace, innodb_page_size: u32) -> Option<usize> {
    let page = space.page_size()? as usize;
    let extent = innodb::extent_pages(innodb_page_size) as usize;
    Some(EXTENTS_AT + (EXTENT_HEAD + extent / 4) * (page / extent))
}

/// A key in the clear.
#[derive(Clone)]
pub(super) struct Key(Zeroizing<[u8; KEY]>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Key {
    /// From the description of a file.
    pub(super) fn new(bytes: &[u8]) -> Option<Key> {
        Some(Key(Zeroizing::new(bytes.try_into().ok()?)))
    }

    /// Takes the key out of a page or header, where it stands at `at` in the clear.
    pub(super) fn take(bytes: &mut Bytes, at: usize) -> Option<Key> {
        let info = bytes.get(at..at + LENGTH)?;
        let clear = info.starts_with(MAGIC)
            && info[MASTER] == [0; 4]
            && crc32c::crc32c(&info[WRAPPED]).to_be_bytes() == info[SUM];
        // Otherwise it is under a master key of the donor.
        let key = clear.then(|| Key::new(&info[WRAPPED]))??;
        let mut without = BytesMut::from(std::mem::take(bytes));
        without[at..at + LENGTH][WRAPPED].fill(0);
        *bytes = without.freeze();
        Some(key)
    }

    /// Writes the description of the key at `at` of a page or header, under the built-in master key.
    pub(super) fn put(&self, bytes: &mut [u8], at: usize) -> Result<()> {
        let Some(info) = bytes.get_mut(at..at + LENGTH) else {
            return Err(Error::internal("a page has no room for its key"));
        };
        info[..MAGIC.len()].copy_from_slice(MAGIC);
        info[MASTER].fill(0);
        info[SUM].copy_from_slice(&crc32c::crc32c(&self.0[..]).to_be_bytes());
        info[WRAPPED].copy_from_slice(&self.0[..]);
        // `DEFAULT_MASTER_KEY`, filled up with zeros.
        let mut master = [0; 32];
        master[..16].copy_from_slice(b"DefaultMasterKey");
        let mut wrap = || {
            EncryptingKey::ecb(UnboundCipherKey::new(&AES_256, &master)?)?
                .encrypt(&mut info[WRAPPED])
                .map(drop)
        };
        wrap().map_err(|_| Error::internal("a key cannot be encrypted"))
    }

    /// [`put`](Self::put) into the first page of a tablespace, which gets its checksum anew.
    pub(super) fn put_into_page(
        &self,
        page: &mut [u8],
        space: Tablespace,
        innodb_page_size: u32,
    ) -> Result<()> {
        let at = place(space, innodb_page_size)
            .ok_or_else(|| Error::internal("a page has no size that there is"))?;
        self.put(page, at)?;
        innodb::seal(page, space.is_zip());
        Ok(())
    }
}

/// Who could read along.
#[derive(Debug, Clone, Copy)]
pub(super) struct Secrecy {
    /// The connection to the donor is encrypted.
    pub(super) wire: bool,
    /// What is kept is encrypted.
    pub(super) repository: bool,
}

impl Secrecy {
    /// Whether a key may pass.
    pub(super) fn check(self, name: &str) -> Result<()> {
        let encrypted = |problem: &str| {
            Error::new(
                ErrorKind::Source,
                format!("{name} is encrypted at the source, whose clones hold its key: {problem}"),
            )
        };
        if !self.wire {
            return Err(encrypted("the connection is not encrypted")
                .with_remedy("connect over TCP with ssl-mode=required, better verify-ca"));
        }
        if !self.repository {
            return Err(encrypted("the repository is not encrypted").with_remedy(
                "use a repository that was made with a passphrase or key file (holdfast init), or \
                 --strategy logical, which needs no keys",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Tablespace = Tablespace { id: 7, flags: 1 << 13 };

    #[test]
    fn the_place_is_that_of_every_size_of_pages() {
        assert_eq!(place(PAGE, 16 << 10), Some(10_390));
        // Pages of 4 KiB, and compressed ones of 8 KiB.
        assert_eq!(place(Tablespace { flags: 3 << 6, ..PAGE }, 4 << 10), Some(150 + 88 * 16));
        assert_eq!(place(Tablespace { flags: 4 << 1, ..PAGE }, 16 << 10), Some(150 + 40 * 128));
    }

    #[test]
    fn a_key_is_taken_and_put_back_wrapped() {
        let at = place(PAGE, 16 << 10).unwrap();
        let secret: Vec<u8> = (0..64).collect();
        let mut page = vec![0; 16 << 10];
        page[at..at + 3].copy_from_slice(MAGIC);
        page[at + 43..at + 107].copy_from_slice(&secret);
        page[at + 107..at + 111].copy_from_slice(&crc32c::crc32c(&secret).to_be_bytes());
        let holds = |bytes: &[u8]| bytes.windows(64).any(|w| w == secret);

        let mut bytes = Bytes::from(page.clone());
        let key = Key::take(&mut bytes, at).unwrap();
        assert!(holds(&page) && !holds(&bytes));
        assert!(Key::take(&mut bytes, at).is_none());
        assert_eq!(format!("{key:?}"), "***");

        let mut wrapped = bytes.to_vec();
        key.put_into_page(&mut wrapped, PAGE, 16 << 10).unwrap();
        assert!(!holds(&wrapped));
        assert_eq!(wrapped[at + 107..at + 111], page[at + 107..at + 111]);
        // By `openssl enc -aes-256-ecb -nopad`.
        let first = &wrapped[at + 43..at + 51];
        assert_eq!(first, [0xb3, 0x1c, 0xef, 0xb4, 0xbb, 0x3d, 0x66, 0xf5]);
        // What is under a master key stays as it is.
        let mut bytes = Bytes::from(wrapped.clone());
        assert!(Key::take(&mut bytes, at).is_none());
        assert_eq!(bytes, wrapped);
        assert!(Key::take(&mut Bytes::from_static(b"short"), at).is_none());
        assert!(key.put(&mut [0; 100], at).is_err());
    }
}
