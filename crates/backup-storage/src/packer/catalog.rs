//! What a backup says of its artifacts: lines of the catalog, and which packs of others it needs.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{ArtifactName, BackupId, Error, Needed, ObjectDigest, Result};
use bytes::Bytes;

use super::Packer;
use crate::base::Copy;
use crate::format::{
    Compression, End, EndOfObject, Entry, Extent, FrameKind, OBJECT_HEADER_LEN, ObjectKind, Packed,
    compress, seal,
};
use crate::frames::FrameAt;
use crate::key::BackupObject;
use crate::sync::lock;

/// Lines of the catalog are cut into frames of about this length: one is read to open an artifact.
const CATALOG_TARGET: usize = 256 << 10;

/// What a line of the catalog will say.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) id: u64,
    pub(crate) seq: u32,
    pub(crate) name: ArtifactName,
    pub(crate) extents: Vec<Copy>,
}

impl Draft {
    pub(crate) fn new(id: u64, name: ArtifactName) -> Self {
        Draft { id, seq: 0, name, extents: Vec::new() }
    }
}

/// The lines so far.
#[derive(Default)]
pub(super) struct Catalog {
    lines: Vec<u8>,
    /// Frames that are in no pack yet.
    pub(super) fresh: Vec<Packed>,
    /// All frames, for the index.
    all: Vec<Packed>,
}

/// Packs of other backups that this one refers to.
pub(super) type Used = BTreeMap<BackupId, BTreeSet<u32>>;

/// What is known of packs that no manifest tells of: their digests, and the packs that their deltas are
/// made against.
pub(super) type Learned = BTreeMap<(BackupId, u32), (ObjectDigest, BTreeSet<(BackupId, u32)>)>;

impl Catalog {
    /// Whether something waits for a place in a pack.
    pub(super) fn is_waiting(&self) -> bool {
        !self.lines.is_empty() || !self.fresh.is_empty()
    }
}

impl Packer {
    /// Adds a line to the catalog: the last one of its artifact, with the map, where `end` is given.
    pub(crate) fn line(&self, draft: &Draft, end: Option<(&End, &[Copy])>) -> Result<()> {
        let mut sources: Vec<BackupId> = Vec::new();
        let mut extent = |copy: &Copy| {
            let FrameAt { backup, pack, offset, frame_len, check } = &copy.at;
            let source = if *backup == self.backup {
                0
            } else {
                self.uses(backup, *pack);
                let known = sources.iter().position(|id| id == backup);
                known.unwrap_or_else(|| {
                    sources.push(backup.clone());
                    sources.len() - 1
                }) as u32
                    + 1
            };
            Extent {
                source,
                pack: *pack,
                offset: *offset,
                frame_len: *frame_len,
                raw_offset: copy.raw_offset,
                len: copy.len,
                check: *check,
            }
        };
        let extents = draft.extents.iter().map(&mut extent).collect();
        let end =
            end.map(|(end, map)| End { map: map.iter().map(&mut extent).collect(), ..end.clone() });
        let (id, seq, name) = (draft.id, draft.seq, draft.name.clone());
        let entry = Entry { id, seq, name, sources, extents, end };
        let line = serde_json::to_vec(&entry).map_err(|e| {
            Error::internal("an entry of the catalog cannot be written").with_source(e)
        })?;
        let mut catalog = lock(&self.catalog);
        if catalog.lines.len() + line.len() >= CATALOG_TARGET {
            self.cut(&mut catalog)?;
        }
        catalog.lines.extend_from_slice(&line);
        catalog.lines.push(b'\n');
        Ok(())
    }

    /// Takes note that a pack of another backup is needed.
    pub(crate) fn uses(&self, backup: &BackupId, pack: u32) {
        if *backup == self.backup {
            return;
        }
        let mut used = lock(&self.used);
        match used.get_mut(backup) {
            Some(packs) => {
                packs.insert(pack);
            }
            None => {
                used.insert(backup.clone(), BTreeSet::from([pack]));
            }
        }
    }

    /// Whether a pack of another backup may be referred to.
    pub(crate) fn knows(&self, backup: &BackupId, pack: u32) -> bool {
        self.digest_of(backup, pack).is_some()
    }

    /// Takes note of a pack of an unfinished backup, and of those that its deltas are made against.
    pub(crate) fn learn(
        &self,
        backup: BackupId,
        pack: u32,
        digest: ObjectDigest,
        bases: BTreeSet<(BackupId, u32)>,
    ) {
        lock(&self.learned).insert((backup, pack), (digest, bases));
    }

    fn digest_of(&self, backup: &BackupId, pack: u32) -> Option<ObjectDigest> {
        let of_base = self.base.as_ref().and_then(|base| base.pack(backup, pack)).cloned();
        of_base.or_else(|| {
            let learned = lock(&self.learned);
            learned.get(&(backup.clone(), pack)).map(|(digest, _)| digest.clone())
        })
    }

    /// What the manifest has to say about other backups.
    pub(crate) fn needs(&self) -> Result<Vec<Needed>> {
        let learned = lock(&self.learned).clone();
        for ((backup, pack), (_, bases)) in &learned {
            let is_used = lock(&self.used).get(backup).is_some_and(|used| used.contains(pack));
            for (backup, pack) in bases.iter().filter(|_| is_used) {
                self.uses(backup, *pack);
            }
        }
        let used = lock(&self.used);
        let lost = || Error::internal("the base of the backup does not know its packs");
        used.iter()
            .map(|(backup, packs)| {
                let packs = packs
                    .iter()
                    .map(|&number| self.digest_of(backup, number).ok_or_else(lost))
                    .collect::<Result<_>>()?;
                Ok(Needed { backup: backup.clone(), packs })
            })
            .collect()
    }

    /// Makes a frame of the lines collected.
    pub(super) fn cut(&self, catalog: &mut Catalog) -> Result<()> {
        let lines = std::mem::take(&mut catalog.lines);
        if !lines.is_empty() {
            // Done wherever a line happens to be added, so never the slow way.
            let compression = match self.options.compression {
                Compression::None => Compression::None,
                _ => Compression::Zstd(1),
            };
            let packed = compress(compression, lines.into())?;
            catalog.fresh.push(packed.clone());
            catalog.all.push(packed);
        }
        Ok(())
    }

    /// The bytes of the index: every frame of the catalog, sealed for its place there.
    pub(crate) fn index(&self) -> Result<Vec<Bytes>> {
        let place = self.new_place(BackupObject::Index);
        let frames = {
            let mut catalog = lock(&self.catalog);
            self.cut(&mut catalog)?;
            std::mem::take(&mut catalog.all)
        };
        let end = EndOfObject { catalog: OBJECT_HEADER_LEN as u64, frames: frames.len() as u32 };
        let mut parts = vec![Bytes::copy_from_slice(&place.object_header(ObjectKind::Index))];
        let mut offset = OBJECT_HEADER_LEN as u64;
        let catalog = frames.into_iter().map(|packed| (FrameKind::Catalog, packed));
        for (kind, packed) in catalog.chain([(FrameKind::End, end.pack())]) {
            let frame = seal(&place, offset, kind, packed)?;
            offset += u64::from(frame.header.frame_len());
            parts.extend([Bytes::copy_from_slice(&frame.head), frame.payload]);
        }
        Ok(parts)
    }
}
