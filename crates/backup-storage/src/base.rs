//! The base of a backup: an earlier one of the same cluster and strategy, which it is compared with.
//!
//! Everything here is a help, not a need: what cannot be read of the base is stored anew.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use backup_core::{
    ArtifactName, BackupId, Context, Event, Layout, Listed, Manifest, ObjectDigest, Result,
};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::catalog::Catalog;
use crate::check::check_objects;
use crate::format::{
    End, Entry, Extent, FrameKind, MAP_PART, MapPart, ObjectKind, UnitHash, parse_entry,
};
use crate::frames::{FrameAt, Frames};
use crate::index::{CatalogFrame, Line, key};
use crate::key::BackupObject;
use crate::part::Part;
use crate::repo::Repo;
use crate::scan::{Scanner, is_damage};

/// A backup that another one is compared with.
pub(crate) struct Base {
    pub(crate) manifest: Manifest,
    catalog: Catalog,
    pub(crate) frames: Frames,
    /// The last line of each artifact, by a part of the SHA-256 of its name.
    last: HashMap<u64, Line>,
    cx: Context,
    /// Whether people were told that something cannot be read.
    told: AtomicBool,
    /// The first damage that was found.
    damage: OnceLock<String>,
}

/// A copy of a unit, or several that follow each other, in the packs of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) at: FrameAt,
    pub(crate) raw_offset: u32,
    pub(crate) len: u32,
}

impl Copy {
    /// Whether `next` follows in the same frame.
    pub(crate) fn joins(&self, next: &Copy) -> bool {
        self.at == next.at && self.raw_offset + self.len == next.raw_offset
    }
}

/// What the base has of a unit.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    pub(crate) hash: UnitHash,
    pub(crate) copy: Copy,
    /// The whole version behind it, where the copy is a delta.
    pub(crate) base: Option<Copy>,
}

fn name_hash(name: &ArtifactName) -> u64 {
    let digest = Sha256::digest(name.as_str());
    u64::from_le_bytes(*digest.first_chunk().expect("a SHA-256 is longer than 8 bytes"))
}

impl Base {
    /// The newest backup of the cluster and strategy that can serve as a base; `None` where there is
    /// none, or none that is whole, which is told and added to `warnings` then.
    pub(crate) async fn choose(
        cx: &Context,
        repo: &Repo,
        listed: &[Listed],
        fits: impl Fn(&Manifest) -> bool,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Manifest>> {
        let newest = listed.iter().rev().filter_map(|l| l.manifest.as_ref().ok()).find(|m| fits(m));
        let Some(manifest) = newest else { return Ok(None) };
        // A backup that builds on damage is damaged itself.
        let known = repo.proven_damaged(cx, manifest).await?;
        if !known && check_objects(cx, repo, manifest).await?.ok() {
            return Ok(Some(manifest.clone()));
        }
        let text = format!(
            "backup {} is damaged: nothing of it is used, and everything is stored anew; `holdfast \
             verify {} --level content` says what is lost",
            manifest.backup, manifest.backup
        );
        cx.event(Event::Warning { text: text.clone() });
        warnings.push(text);
        Ok(None)
    }

    /// Learns where the lines of the catalog are.
    pub(crate) async fn load(cx: &Context, repo: &Repo, manifest: Manifest) -> Result<Base> {
        let index = key(&manifest, BackupObject::Index);
        let place = repo.place(&index);
        let bytes = manifest.index.bytes;
        let kind = ObjectKind::Index;
        let mut scanner = Scanner::open(repo.shelf(), &index, &place, kind, bytes, false).await?;
        let (mut frames, mut last) = (Vec::new(), HashMap::new());
        while let Some(frame) = scanner.next().await? {
            cx.check()?;
            if frame.header.kind != FrameKind::Catalog {
                continue;
            }
            let number = frames.len() as u32;
            frames.push(CatalogFrame {
                object: BackupObject::Index,
                offset: frame.offset,
                frame_len: frame.header.frame_len(),
            });
            let raw = scanner.open_frame(frame).await?;
            let mut start = 0;
            for text in raw.split_inclusive(|&b| b == b'\n') {
                let line = Line { frame: number, start, len: text.len() as u32 - 1 };
                start += text.len() as u32;
                let entry = parse_entry(&text[..text.len() - 1])?;
                if entry.end.is_some() {
                    last.insert(name_hash(&entry.name), line);
                }
            }
        }
        let catalog = Catalog::new(repo, &manifest.cluster, &manifest.backup, frames);
        let frames = Frames::new(cx, repo, &manifest.cluster);
        let (cx, told, damage) = (cx.clone(), AtomicBool::new(false), OnceLock::new());
        Ok(Base { manifest, catalog, frames, last, cx, told, damage })
    }

    /// Says once that something of the base cannot be read.
    pub(crate) fn unreadable(&self, error: &backup_core::Error) {
        let damaged = is_damage(error);
        let text = format!(
            "backup {} {}, and what cannot be read of it is stored anew: {}",
            self.manifest.backup,
            if damaged { "is damaged" } else { "cannot be read in full" },
            error.chain()
        );
        if damaged {
            let _ = self.damage.set(text.clone());
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            self.cx.event(Event::Warning { text });
        }
    }

    /// The first damage that was found in it. What is only out of reach, in an archive say, is none.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// What the base knows about the artifact of a name.
    pub(crate) async fn artifact(self: &Arc<Self>, name: &ArtifactName) -> Option<BaseArtifact> {
        let line = *self.last.get(&name_hash(name))?;
        match self.catalog.entry(line).await {
            Ok(entry) => BaseArtifact::new(self, name, entry),
            Err(e) => {
                self.unreadable(&e);
                None
            }
        }
    }

    /// The digest of a pack that the base has or needs.
    pub(crate) fn pack(&self, backup: &BackupId, number: u32) -> Option<&ObjectDigest> {
        if backup == &self.manifest.backup {
            return self.manifest.packs.get(number as usize);
        }
        let name = BackupObject::Pack(number).to_string();
        let needs = &self.manifest.needs;
        let needed = &needs[needs.binary_search_by(|n| n.backup.cmp(backup)).ok()?];
        needed.packs.iter().find(|pack| pack.name == name)
    }
}

/// An artifact of the base.
pub(crate) struct BaseArtifact {
    base: Arc<Base>,
    entry: Entry,
    end: End,
    /// The parts of the map that were read last, in order, and the number of the first.
    parts: VecDeque<Part>,
    first: usize,
    /// The unit that should come next.
    next: u64,
}

impl BaseArtifact {
    fn new(base: &Arc<Base>, name: &ArtifactName, entry: Entry) -> Option<Self> {
        // Two names with one hash: not in the life of this world, but it costs nothing to look.
        if &entry.name != name {
            return None;
        }
        let end = entry.end.clone()?;
        let base = Arc::clone(base);
        Some(BaseArtifact { base, entry, end, parts: VecDeque::new(), first: 0, next: 0 })
    }

    pub(crate) fn layout(&self) -> Layout {
        self.end.layout
    }

    /// Where the artifact is as a whole, when it is of one line and has these bytes; and what it has
    /// of a map.
    pub(crate) fn same(&self, sha256: &str, bytes: u64) -> Option<Vec<Copy>> {
        let end = &self.end;
        let whole = self.entry.seq == 0 && end.sha256 == sha256 && end.bytes == bytes;
        whole.then(|| self.entry.extents.iter().map(|extent| self.locate(extent)).collect())
    }

    fn locate(&self, extent: &Extent) -> Copy {
        let backup = match extent.source {
            0 => &self.base.manifest.backup,
            n => &self.entry.sources[n as usize - 1],
        };
        let at = FrameAt::of(backup, extent);
        Copy { at, raw_offset: extent.raw_offset, len: extent.len }
    }

    /// The frame that a part of the map is in, where its content is just this.
    pub(crate) async fn same_map(&self, number: usize, content: &[u8]) -> Option<Copy> {
        let at = self.locate(self.end.map.get(number)?);
        let found = self.base.frames.get(&[(at.at.clone(), u32::MAX)], FrameKind::Map).await;
        (found.ok()?.first()? == content).then_some(at)
    }

    async fn read(&self, number: usize) -> Result<Option<Part>> {
        let Some(extent) = self.end.map.get(number) else { return Ok(None) };
        let wanted = [(self.locate(extent).at, u32::MAX)];
        let contents: Vec<Bytes> = self.base.frames.get(&wanted, FrameKind::Map).await?;
        let Some(content) = contents.first() else { return Ok(None) };
        let layout = self.layout();
        let content = content.clone();
        let part = tokio::task::spawn_blocking(move || {
            MapPart::parse(&content).map(|map| Part::new(map, layout))
        })
        .await
        .map_err(crate::sync::lost_task)??;
        // What is too scattered is written anew, and so in one piece again.
        Ok((!part.is_scattered(layout)).then_some(part))
    }

    /// Makes sure that the parts `number` and the one after it, as far as there are such, are there.
    async fn turn_to(&mut self, number: usize) {
        let wanted = match self.layout() {
            Layout::Pages(_) => 1,
            Layout::Stream | Layout::Blocks => 2,
        };
        while self.first < number {
            self.parts.pop_front();
            self.first += 1;
        }
        if self.first > number {
            self.parts.clear();
            self.first = number;
        }
        while self.parts.len() < wanted {
            let part = match self.read(self.first + self.parts.len()).await {
                Ok(part) => part,
                Err(e) => {
                    self.base.unreadable(&e);
                    None
                }
            };
            let none = || {
                Part::new(
                    MapPart {
                        start: 0,
                        backups: Vec::new(),
                        hashes: Vec::new(),
                        lengths: Vec::new(),
                        runs: Vec::new(),
                    },
                    self.end.layout,
                )
            };
            self.parts.push_back(part.unwrap_or_else(none));
        }
    }

    /// What the base has at the position of a unit.
    pub(crate) async fn at(&mut self, unit: u64) -> Option<Unit> {
        let part = usize::try_from(unit / u64::from(MAP_PART)).ok()?;
        if part >= self.end.map.len() {
            return None;
        }
        if self.first != part || self.parts.is_empty() {
            self.turn_to(part).await;
        }
        self.parts.front()?.unit((unit % u64::from(MAP_PART)) as u32)
    }

    /// Looks for a unit of this hash near where the next one should be. Gives it, or else what stands
    /// where it should be.
    pub(crate) async fn find(&mut self, hash: &UnitHash) -> Found {
        let part = usize::try_from(self.next / u64::from(MAP_PART)).unwrap_or(usize::MAX);
        if part >= self.end.map.len() {
            return Found::Nothing;
        }
        if self.first != part || self.parts.is_empty() {
            self.turn_to(part).await;
        }
        let expected = (self.next % u64::from(MAP_PART)) as u32;
        let here = self.parts.front().and_then(|part| part.unit(expected));
        if let Some(unit) = &here
            && unit.hash == *hash
        {
            self.next += 1;
            return Found::Same(unit.clone());
        }
        for (i, part) in self.parts.iter().enumerate() {
            if let Some(&number) = part.places.get(hash)
                && let Some(unit) = part.unit(number)
            {
                self.next = (self.first + i) as u64 * u64::from(MAP_PART) + u64::from(number) + 1;
                return Found::Same(unit);
            }
        }
        // Most likely it is the unit that stood here, changed.
        self.next += 1;
        here.map_or(Found::Nothing, Found::Changed)
    }
}

/// What [`BaseArtifact::find`] found.
pub(crate) enum Found {
    /// The same unit.
    Same(Unit),
    /// What was there before.
    Changed(Unit),
    /// Nothing.
    Nothing,
}
