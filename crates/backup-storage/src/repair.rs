//! A damaged index made anew, from the catalog that the packs hold too.

use backup_core::{Context, Error, Event, Manifest, Result, ResultExt};
use bytes::Bytes;

use crate::format::{
    EndOfObject, FrameKind, OBJECT_HEADER_LEN, ObjectKind, Packed, compress, seal,
};
use crate::frames::decode_whole;
use crate::index::{CatalogFrame, Index, key};
use crate::key::{self, BackupObject};
use crate::repo::Repo;
use crate::scan::{is_damage, missing_object};
use crate::shelf::Shelf;
use crate::store::Created;

/// What [`repair_index`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Repair {
    /// The index is whole.
    Whole,
    /// The index is damaged, and one that was rebuilt before is whole.
    StandsIn {
        /// Its name, `index-<n>`.
        object: String,
    },
    /// It was rebuilt.
    Rebuilt {
        /// The name of the new object, `index-<n>`.
        object: String,
        /// Length of the new object in bytes.
        bytes: u64,
        /// How many artifacts it tells of: all of the backup.
        artifacts: u64,
        /// What was wrong with the index.
        damage: String,
    },
}

/// Makes a new index for a backup whose index is damaged or lost, as a new object `index-<n>`; what
/// is whole is left alone, and nothing is removed.
///
/// The new index is made of the catalog in the packs, and only when that tells of every artifact of
/// the backup. With less it is refused: an index that lacks artifacts would hide that they are gone,
/// even after their packs were put back. Nothing is lost by that; what the packs tell of can be
/// restored by name without an index.
///
/// # Errors
/// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when packs are damaged too, and their
/// catalog with them; else what the store fails with.
pub async fn repair_index(cx: &Context, repo: &Repo, manifest: &Manifest) -> Result<Repair> {
    let damage = match Index::read(cx, repo, manifest).await {
        Ok(_) => return Ok(Repair::Whole),
        Err(e) if is_damage(&e) => e.chain(),
        Err(e) => return Err(e),
    };
    if let Some((object, _)) = newest_copy(cx, repo, manifest).await? {
        return Ok(Repair::StandsIn { object: object.to_string() });
    }
    let index = Index::rebuild(cx, repo, manifest).await?;
    if index.lost > 0 {
        return Err(Error::damaged(format!(
            "the index of backup {} cannot be rebuilt: packs are damaged too, and with them the \
             catalog of {} of its {} artifacts",
            manifest.backup, index.lost, manifest.totals.artifacts
        ))
        .with_remedy(
            "put the damaged packs back with `holdfast copy` from a copy of the repository and \
             repair again; until then single tables can be restored with --tables",
        ));
    }
    let mut frames = Vec::new();
    for frame in &index.frames {
        cx.check()?;
        frames.push(catalog_frame(repo, manifest, frame).await?);
    }
    let mut number = copies(repo, manifest).await?.first().map_or(1, |n| n.saturating_add(1));
    loop {
        let object = BackupObject::IndexCopy(number);
        let bytes = seal_index(cx, repo, manifest, object, frames.clone())?;
        let length = bytes.len() as u64;
        let key = key(manifest, object);
        match repo.store().create(&key, bytes).await? {
            Created::New => {
                // Not before it was read from the store is it an index.
                Index::read_from(cx, repo, repo.shelf(), manifest, object)
                    .await
                    .context(|| format!("{key} was written and cannot be read back"))?;
                return Ok(Repair::Rebuilt {
                    object: object.to_string(),
                    bytes: length,
                    artifacts: manifest.totals.artifacts,
                    damage,
                });
            }
            // Somebody else repairs it too.
            Created::Exists => number = number.saturating_add(1),
        }
    }
}

/// The index to use where the original is damaged: the newest rebuilt one that is whole, else that
/// of a copy of the repository. `None` when there is neither.
pub(crate) async fn stand_in(
    cx: &Context,
    repo: &Repo,
    manifest: &Manifest,
    error: &Error,
) -> Result<Option<Index>> {
    if let Some((object, index)) = newest_copy(cx, repo, manifest).await? {
        cx.note(format!(
            "the index of backup {} is damaged and its repaired copy {object} is used: {}",
            manifest.backup,
            error.chain()
        ));
        return Ok(Some(index));
    }
    for copy in repo.copies().places() {
        let read = async {
            let shelf = Shelf::new(copy.store().await?, &repo.options().stores);
            Index::read_from(cx, repo, &shelf, manifest, BackupObject::Index).await
        };
        let text = match read.await {
            Ok(index) => {
                let text = format!(
                    "the index of backup {} is damaged and that of the copy in {} is used: {}",
                    manifest.backup,
                    copy.name(),
                    error.chain()
                );
                cx.event(Event::Warning { text });
                return Ok(Some(index));
            }
            Err(e) => format!("the copy in {} cannot help: {}", copy.name(), e.chain()),
        };
        cx.event(Event::Warning { text });
    }
    Ok(None)
}

/// The newest rebuilt index that is whole.
pub(crate) async fn newest_copy(
    cx: &Context,
    repo: &Repo,
    manifest: &Manifest,
) -> Result<Option<(BackupObject, Index)>> {
    for number in copies(repo, manifest).await? {
        let object = BackupObject::IndexCopy(number);
        match Index::read_from(cx, repo, repo.shelf(), manifest, object).await {
            Ok(index) => return Ok(Some((object, index))),
            Err(e) if is_damage(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// The numbers of the rebuilt indexes of a backup, the newest first.
pub(crate) async fn copies(repo: &Repo, manifest: &Manifest) -> Result<Vec<u32>> {
    let directory = key::backup(&manifest.cluster, &manifest.backup);
    let found = repo.store().list(&directory).await?.objects;
    let mut numbers: Vec<u32> = found
        .iter()
        .filter_map(|(name, _)| match name.parse() {
            Ok(BackupObject::IndexCopy(n)) => Some(n),
            _ => None,
        })
        .collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    Ok(numbers)
}

/// What a catalog frame of a pack holds, compressed again.
async fn catalog_frame(repo: &Repo, manifest: &Manifest, frame: &CatalogFrame) -> Result<Packed> {
    let key = key(manifest, frame.object);
    let end = frame.offset + u64::from(frame.frame_len);
    let bytes = repo
        .shelf()
        .get_range(&key, frame.offset..end)
        .await?
        .ok_or_else(|| missing_object(&key))?;
    let raw = decode_whole(&repo.place(&key), frame.offset, &bytes, FrameKind::Catalog)?;
    compress(repo.options().compression, raw)
}

/// The bytes of an index object.
fn seal_index(
    cx: &Context,
    repo: &Repo,
    manifest: &Manifest,
    object: BackupObject,
    frames: Vec<Packed>,
) -> Result<Bytes> {
    let place = repo.new_place(cx, &key(manifest, object));
    let count = u32::try_from(frames.len())
        .map_err(|_| Error::damaged("the catalog has too many frames"))?;
    let end = EndOfObject { catalog: OBJECT_HEADER_LEN as u64, frames: count }.pack();
    let mut bytes = place.object_header(ObjectKind::Index).to_vec();
    let catalog = frames.into_iter().map(|packed| (FrameKind::Catalog, packed));
    for (kind, packed) in catalog.chain([(FrameKind::End, end)]) {
        let frame = seal(&place, bytes.len() as u64, kind, packed)?;
        bytes.extend_from_slice(&frame.head);
        bytes.extend_from_slice(&frame.payload);
    }
    Ok(bytes.into())
}
