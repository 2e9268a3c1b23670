//! Single objects on their way: read and compared, written, read back and compared.

use backup_core::{Error, ErrorKind, ObjectDigest, Result};
use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::digesting::Digesting;
use crate::format::hex;
use crate::key::Key;
use crate::scan::missing_object;
use crate::shelf::Shelf;
use crate::store::{Created, Store};

/// How much is asked of the store at once.
const WINDOW: u64 = 4 << 20;

/// What stands at the target under the name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Nothing.
    Missing,
    /// What should.
    Whole,
    /// Something else.
    Differs,
}

/// Reads an object wherever it stands and compares it with its digest: damage is not passed on.
///
/// # Errors
/// [`ErrorKind::Damaged`] when it is missing or not what was recorded; else what the store fails
/// with.
pub(crate) async fn read_whole(shelf: &Shelf, key: &Key, digest: &ObjectDigest) -> Result<Bytes> {
    let mut bytes =
        BytesMut::with_capacity(usize::try_from(digest.bytes).unwrap_or_default().min(1 << 30));
    // One byte more than there should be: an object that has grown is damaged too.
    while (bytes.len() as u64) <= digest.bytes {
        let at = bytes.len() as u64;
        let end = (at + WINDOW).min(digest.bytes + 1);
        let part = shelf.get_range(key, at..end).await?.ok_or_else(|| missing_object(key))?;
        bytes.extend_from_slice(&part);
        if (part.len() as u64) < end - at {
            break;
        }
    }
    let bytes = bytes.freeze();
    let mut sha256 = Digesting::new();
    sha256.add(vec![bytes.clone()], ()).await?;
    let sha256 = sha256.finish().await?;
    if bytes.len() as u64 == digest.bytes && sha256 == digest.sha256 {
        Ok(bytes)
    } else {
        Err(Error::damaged(format!("{key} does not match the digest in its manifest")))
    }
}

/// Reads what stands at the target and compares it, with memory for one window.
///
/// # Errors
/// When the store fails. What the medium cannot give back differs.
pub(crate) async fn arrived(shelf: &Shelf, key: &Key, wanted: &ObjectDigest) -> Result<Arrival> {
    let mut digest = Digesting::new();
    let mut at = 0;
    while at <= wanted.bytes {
        let end = (at + WINDOW).min(wanted.bytes + 1);
        let part = match shelf.get_range(key, at..end).await {
            Ok(Some(part)) => part,
            Ok(None) => return Ok(Arrival::Missing),
            Err(e) if e.kind() == ErrorKind::Damaged => return Ok(Arrival::Differs),
            Err(e) => return Err(e),
        };
        let short = (part.len() as u64) < end - at;
        at += part.len() as u64;
        digest.add(vec![part], ()).await?;
        if short {
            break;
        }
    }
    let whole = at == wanted.bytes && digest.finish().await? == wanted.sha256;
    Ok(if whole { Arrival::Whole } else { Arrival::Differs })
}

/// Creates an object, then reads it back and compares it.
///
/// # Errors
/// [`ErrorKind::Damaged`] when what can be read back is not what was written, or something else
/// stood there; else what the store fails with.
pub(crate) async fn put(
    store: &Store,
    key: &Key,
    digest: &ObjectDigest,
    bytes: Bytes,
) -> Result<()> {
    let created = store.create(key, bytes).await?;
    // Somebody else may write the same bytes at the same time.
    let arrival = arrived(&Shelf::with(store.clone(), Vec::new()), key, digest).await?;
    match (arrival, created) {
        (Arrival::Whole, _) => Ok(()),
        (_, Created::New) => Err(Error::damaged(format!(
            "{key} was written to {} and is not the same when it is read back",
            store.name()
        ))
        .with_remedy("see what the system's log says about the disk or the share")),
        (_, Created::Exists) => Err(differs(store, key)),
    }
}

/// Something else stands where an object should go.
pub(crate) fn differs(store: &Store, key: &Key) -> Error {
    Error::damaged(format!("{key} in {} is damaged: it is not what it should be", store.name()))
        .with_remedy("remove it there, or name --replace-damaged, and copy again")
}

/// Length and digest of bytes, under the last part of a name.
pub(crate) fn digest_of(name: impl Into<String>, bytes: &[u8]) -> ObjectDigest {
    ObjectDigest {
        name: name.into(),
        bytes: bytes.len() as u64,
        sha256: hex(&Sha256::digest(bytes)),
    }
}
