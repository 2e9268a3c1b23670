//! The keys of encrypted tablespaces, and of the redo log, as MySQL keeps them.
//!
//! The first page of an encrypted tablespace, and the header of an encrypted redo log, hold its key under a
//! master key, which is in the keyring of the server; master key 0 is one that every MySQL has built in and
//! everybody knows (`os0enc.cc`, `DEFAULT_MASTER_KEY`). A server with a keyring puts what is under that one
//! under its own master key when it starts.

use std::fmt;

use aws_lc_rs::cipher::{
    AES_256, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey,
};
use backup_core::{Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use secrecy::zeroize::Zeroizing;

use super::seal;

/// The key of a tablespace and its initialisation vector.
const KEY: usize = 64;

/// The description of a key in a file: magic, `u32` number of the master key, UUID of the server that has
/// it, key and vector, `u32` CRC-32C of the two in the clear.
const MAGIC: &[u8] = b"lCC";
const MASTER: std::ops::Range<usize> = 3..7;
const WRAPPED: std::ops::Range<usize> = 43..43 + KEY;
const SUM: std::ops::Range<usize> = 107..111;
const LENGTH: usize = 111;

/// The versions of the description; only the last has the UUID, and only it has been written since 5.7.12.
const VERSIONS: &[u8] = b"lC";
const UUID: std::ops::Range<usize> = 7..43;

/// In a file of the redo log: in its second block of 512 bytes (`log0log.h`).
pub(crate) const REDO_KEY_AT: usize = 1072;

/// `XDES_ARR_OFFSET` and the bytes of a descriptor of an extent before its bitmap (`fsp0fsp.h`).
const EXTENTS_AT: usize = 150;
const EXTENT_HEAD: usize = 24;

/// Where the description of the key is in the first page of a tablespace with pages of `page_bytes`: behind the
/// descriptors of extents, with two bits a page (`fsp_header_get_encryption_offset`).
pub(crate) fn key_place(page_bytes: u32, innodb_page_size: u32) -> usize {
    let extent = super::extent_pages(innodb_page_size) as usize;
    EXTENTS_AT + (EXTENT_HEAD + extent / 4) * (page_bytes as usize / extent)
}

/// A key in the clear.
#[derive(Clone)]
pub(crate) struct Key(Zeroizing<[u8; KEY]>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Key {
    /// From the description of a file.
    pub(crate) fn new(bytes: &[u8]) -> Option<Key> {
        Some(Key(Zeroizing::new(bytes.try_into().ok()?)))
    }

    /// Takes the key out of a page or header, where it stands at `at` in the clear.
    pub(crate) fn take(bytes: &mut Bytes, at: usize) -> Option<Key> {
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
    pub(crate) fn put(&self, bytes: &mut [u8], at: usize) -> Result<()> {
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

    /// The key at `at` of a page or header that is under a master key of a server; `None` where there is no key,
    /// or it is under the built-in one. `master` finds master keys by the UUID of the server and their number.
    ///
    /// # Errors
    /// [`ErrorKind::Target`] when the master key is not found, or is not the one.
    pub(crate) fn unwrap_from(
        bytes: &[u8],
        at: usize,
        master: impl FnOnce(&str, u32) -> Option<Zeroizing<[u8; 32]>>,
    ) -> Result<Option<Key>> {
        let Some(info) = bytes.get(at..at + LENGTH) else { return Ok(None) };
        let number = info[MASTER].iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        if !info.starts_with(VERSIONS) || number == 0 {
            return Ok(None);
        }
        let failed = |why: &str| {
            Error::new(ErrorKind::Target, "cannot take an encryption key over")
                .with_source(why.to_owned())
                .with_remedy("restore again")
        };
        if !info.starts_with(MAGIC) {
            return Err(failed("its description is of an old version"));
        }
        let uuid = String::from_utf8_lossy(&info[UUID]);
        let master =
            master(&uuid, number).ok_or_else(|| failed("its master key is not in the keyring"))?;
        let mut key = Zeroizing::new([0; KEY]);
        key.copy_from_slice(&info[WRAPPED]);
        let mut unwrap = || {
            DecryptingKey::ecb(UnboundCipherKey::new(&AES_256, &master[..])?)?
                .decrypt(&mut key[..], DecryptionContext::None)
                .map(drop)
        };
        unwrap().map_err(|_| Error::internal("a key cannot be decrypted"))?;
        match crc32c::crc32c(&key[..]).to_be_bytes() == info[SUM] {
            true => Ok(Some(Key(key))),
            false => Err(failed("it is not under the master key that it names")),
        }
    }

    /// [`put`](Self::put) at `at` of the first page of a tablespace, which gets its checksum anew.
    pub(crate) fn put_into_page(&self, page: &mut [u8], at: usize, zip: bool) -> Result<()> {
        self.put(page, at)?;
        seal(page, zip);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_that_of_every_size_of_pages() {
        assert_eq!(key_place(16 << 10, 16 << 10), 10_390);
        // Pages of 4 KiB, and compressed ones of 8 KiB.
        assert_eq!(key_place(4 << 10, 4 << 10), 150 + 88 * 16);
        assert_eq!(key_place(8 << 10, 16 << 10), 150 + 40 * 128);
    }

    #[test]
    fn a_key_is_taken_and_put_back_wrapped() {
        let at = key_place(16 << 10, 16 << 10);
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
        key.put_into_page(&mut wrapped, at, false).unwrap();
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

    #[test]
    fn a_key_under_a_master_key_is_had_back_with_it_alone() {
        let master = || Some(Zeroizing::new([7; 32]));
        let secret: Vec<u8> = (0..64).collect();
        let mut wrapped = secret.clone();
        let key = UnboundCipherKey::new(&AES_256, &[7; 32]).unwrap();
        EncryptingKey::ecb(key).unwrap().encrypt(&mut wrapped).unwrap();
        let mut page = [MAGIC, &[0, 0, 0, 5], &[b'u'; 36], &wrapped].concat();
        page.extend(crc32c::crc32c(&secret).to_be_bytes());
        let found = Key::unwrap_from(&page, 0, |uuid, number| {
            assert_eq!((uuid, number), (&*"u".repeat(36), 5));
            master()
        });
        assert_eq!(found.unwrap().unwrap().0[..], secret);
        let failed = |page: &[u8], master: Option<Zeroizing<[u8; 32]>>| {
            Key::unwrap_from(page, 0, |_, _| master).unwrap_err().chain()
        };
        assert!(failed(&page, None).contains("not in the keyring"));
        assert!(failed(&page, Some(Zeroizing::new([8; 32]))).contains("not under the master key"));
        page[2] = b'B';
        assert!(failed(&page, master()).contains("old version"));
        // No key, a page that ends, and the built-in master key.
        assert!(Key::unwrap_from(&[0; 200], 0, |_, _| None).unwrap().is_none());
        assert!(Key::unwrap_from(&page[..60], 0, |_, _| None).unwrap().is_none());
        page[3..7].fill(0);
        assert!(Key::unwrap_from(&page, 0, |_, _| None).unwrap().is_none());
    }
}
