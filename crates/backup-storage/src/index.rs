//! The index of one backup: which artifacts there are, and where their catalog lines stand.
//!
//! Extents stay in the store: what is kept in memory grows with the number of artifacts, not with
//! their size.

use std::collections::HashMap;

use backup_core::{
    ArtifactInfo, ArtifactName, BackupId, Context, Error, Event, Manifest, ObjectDigest, Result,
    ResultExt,
};

use crate::format::{
    End, EndOfObject, Entry, FrameKind, OBJECT_HEADER_LEN, ObjectKind, parse_entry,
};
use crate::key::{BackupObject, Key};
use crate::repair;
use crate::repo::Repo;
use crate::scan::{Scanned, Scanner, is_damage, missing_object, read_end};
use crate::shelf::Shelf;

/// A frame of the catalog.
#[derive(Debug, Clone)]
pub(crate) struct CatalogFrame {
    pub(crate) object: BackupObject,
    pub(crate) offset: u64,
    pub(crate) frame_len: u32,
}

/// Where a line of the catalog stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    /// Which of [`Index::frames`].
    pub(crate) frame: u32,
    pub(crate) start: u32,
    pub(crate) len: u32,
}

impl Line {
    /// For sorting: lines in the order in which they stand.
    pub(crate) fn place(&self) -> (u32, u32) {
        (self.frame, self.start)
    }
}

/// An artifact as the index knows it.
#[derive(Debug)]
pub(crate) struct Indexed {
    pub(crate) info: ArtifactInfo,
    /// Its parts, in order.
    pub(crate) parts: Vec<Line>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Sorted by name. There may be millions, so nothing is kept twice.
    pub(crate) artifacts: Vec<Indexed>,
    pub(crate) frames: Vec<CatalogFrame>,
    /// How many finished artifacts the backup has beyond those that are here.
    pub(crate) lost: u64,
}

/// Puts lines together that may come in any order.
struct Builder<'a> {
    manifest: &'a Manifest,
    /// Whether lines that point to where there is nothing are left out, rather than damage.
    lenient: bool,
    frames: Vec<CatalogFrame>,
    artifacts: HashMap<u64, Parts>,
}

struct Parts {
    name: ArtifactName,
    /// With their numbers, in the order in which they were found.
    lines: Vec<(u32, Line)>,
    /// The sum of the lengths of all extents.
    bytes: u64,
    end: Option<(u32, End)>,
}

impl<'a> Builder<'a> {
    fn new(manifest: &'a Manifest) -> Self {
        Builder { manifest, lenient: false, frames: Vec::new(), artifacts: HashMap::new() }
    }

    /// A pack of another backup.
    fn needed(&self, backup: &BackupId, number: u32) -> Option<&'a ObjectDigest> {
        let needs = &self.manifest.needs;
        let packs = &needs[needs.binary_search_by(|n| n.backup.cmp(backup)).ok()?].packs;
        let number_of = |pack: &ObjectDigest| match pack.name.parse() {
            Ok(BackupObject::Pack(n)) => n,
            _ => u32::MAX,
        };
        packs.binary_search_by_key(&number, number_of).ok().map(|at| &packs[at])
    }

    /// Adds the lines of one catalog frame.
    fn add(&mut self, frame: CatalogFrame, raw: &[u8]) -> Result<()> {
        let number = u32::try_from(self.frames.len())
            .map_err(|_| Error::damaged("the catalog has too many frames"))?;
        self.frames.push(frame);
        let mut start = 0;
        while start < raw.len() {
            let rest = &raw[start..];
            let len = rest
                .iter()
                .position(|&b| b == b'\n')
                .ok_or_else(|| Error::damaged("the last line of a catalog frame is cut off"))?;
            let line = Line { frame: number, start: start as u32, len: len as u32 };
            self.add_line(line, parse_entry(&rest[..len])?)?;
            start += len + 1;
        }
        Ok(())
    }

    fn add_line(&mut self, line: Line, entry: Entry) -> Result<()> {
        let damaged = |problem: &str| {
            Err(Error::damaged(format!("the catalog entry of {} {problem}", entry.name)))
        };
        let inside = |e: &crate::format::Extent| {
            let pack = match e.source {
                0 => self.manifest.packs.get(e.pack as usize),
                n => entry.sources.get(n as usize - 1).and_then(|id| self.needed(id, e.pack)),
            };
            pack.is_some_and(|pack| e.offset + u64::from(e.frame_len) <= pack.bytes)
        };
        if !entry.extents.iter().all(inside) {
            if self.lenient {
                return Ok(());
            }
            return damaged("points to where the manifest knows of no pack");
        }
        let bytes: u64 = entry.extents.iter().map(|e| u64::from(e.len)).sum();
        let parts = self.artifacts.entry(entry.id).or_insert_with(|| Parts {
            name: entry.name.clone(),
            // Nearly all have one.
            lines: Vec::with_capacity(1),
            bytes: 0,
            end: None,
        });
        if parts.name != entry.name || (entry.end.is_some() && parts.end.is_some()) {
            return damaged("contradicts another one");
        }
        parts.lines.push((entry.seq, line));
        parts.bytes += bytes;
        if let Some(end) = entry.end {
            // Maps are read where they are needed.
            parts.end = Some((entry.seq, End { map: Vec::new(), ..end }));
        }
        Ok(())
    }

    /// Keeps what is complete. Artifacts that were never finished are left out; the others must be
    /// whole when `strict`.
    fn finish(self, strict: bool) -> Result<Index> {
        let mut index = Index { frames: self.frames, ..Index::default() };
        for mut parts in self.artifacts.into_values() {
            parts.lines.sort_unstable_by_key(|(seq, _)| *seq);
            let twice = parts.lines.windows(2).any(|two| two[0].0 == two[1].0);
            let Some((last, end)) = parts.end else { continue };
            let whole = !twice
                && parts.lines.len() as u64 == u64::from(last) + 1
                && parts.lines.last().is_some_and(|(seq, _)| *seq == last)
                && parts.bytes == end.bytes;
            if !whole {
                if strict {
                    return Err(Error::damaged(format!(
                        "the catalog has not every part of {} once",
                        parts.name
                    )));
                }
                continue;
            }
            index.artifacts.push(Indexed {
                info: ArtifactInfo {
                    name: parts.name,
                    bytes: end.bytes,
                    sha256: end.sha256,
                    layout: end.layout,
                    attributes: end.attributes,
                },
                parts: parts.lines.into_iter().map(|(_, line)| line).collect(),
            });
        }
        index.artifacts.sort_unstable_by(|a, b| a.info.name.cmp(&b.info.name));
        let twice = index.artifacts.windows(2).find(|two| two[0].info.name == two[1].info.name);
        if let Some([one, _]) = twice {
            return Err(Error::damaged(format!("the catalog has {} twice", one.info.name)));
        }
        let found = index.artifacts.len() as u64;
        let expected = self.manifest.totals.artifacts;
        if found > expected || (strict && found < expected) {
            return Err(Error::damaged(format!(
                "the catalog has {found} artifacts where the manifest counts {expected}"
            )));
        }
        index.lost = expected - found;
        Ok(index)
    }
}

impl Index {
    /// An artifact.
    pub(crate) fn get(&self, name: &ArtifactName) -> Option<&Indexed> {
        let at = self.artifacts.binary_search_by(|a| a.info.name.cmp(name)).ok()?;
        Some(&self.artifacts[at])
    }

    /// Loads the index of a backup. Where it is damaged or gone, a rebuilt one that the store has
    /// stands in for it, or that of a copy of the repository; else it is rebuilt from the packs,
    /// with a warning.
    ///
    /// # Errors
    /// The store's failures; damage only when packs and index disagree beyond use.
    pub(crate) async fn load(cx: &Context, repo: &Repo, manifest: &Manifest) -> Result<Index> {
        let error = match Index::read(cx, repo, manifest).await {
            Err(e) if is_damage(&e) => e,
            other => return other,
        };
        if let Some(index) = repair::stand_in(cx, repo, manifest, &error).await? {
            return Ok(index);
        }
        cx.event(Event::Warning {
            text: format!(
                "the index of backup {} is damaged and is rebuilt from its packs: {}",
                manifest.backup,
                error.chain()
            ),
        });
        Index::rebuild(cx, repo, manifest).await
    }

    /// Reads the object `index`, which must be what the manifest says to the last bit.
    pub(crate) async fn read(cx: &Context, repo: &Repo, manifest: &Manifest) -> Result<Index> {
        Index::read_from(cx, repo, repo.shelf(), manifest, BackupObject::Index).await
    }

    /// Reads `index` or a rebuilt one from a store of the repository or of a copy. The manifest's
    /// digest proves the former; the checks of its frames and that nothing is missing the latter.
    pub(crate) async fn read_from(
        cx: &Context,
        repo: &Repo,
        shelf: &Shelf,
        manifest: &Manifest,
        object: BackupObject,
    ) -> Result<Index> {
        let key = key(manifest, object);
        let place = repo.place(&key);
        let original = object == BackupObject::Index;
        let bytes = match original {
            true => manifest.index.bytes,
            false => shelf.len(&key).await?.ok_or_else(|| missing_object(&key))?,
        };
        let mut scanner =
            Scanner::open(shelf, &key, &place, ObjectKind::Index, bytes, original).await?;
        let mut builder = Builder::new(manifest);
        let mut ended = false;
        while let Some(frame) = scanner.next().await? {
            cx.check()?;
            match frame.header.kind {
                FrameKind::Catalog if !ended => {
                    add_frame(&mut builder, &scanner, object, frame)
                        .await
                        .context(|| key.to_string())?;
                }
                FrameKind::End if !ended => {
                    let end = EndOfObject::parse(&scanner.open_frame(frame).await?)?;
                    ended = end.frames as usize == builder.frames.len();
                    if !ended {
                        return Err(Error::damaged(format!("{key} has lost frames")));
                    }
                }
                _ => return Err(Error::damaged(format!("{key} has a frame of another kind"))),
            }
        }
        if !ended {
            return Err(Error::damaged(format!("{key} has no end")));
        }
        if scanner.finish().await? != manifest.index.sha256 && original {
            return Err(Error::damaged(format!("{key} does not match the manifest's digest")));
        }
        builder.finish(true).context(|| key.to_string())
    }

    /// The artifacts that an unfinished backup has finished, from the catalog in its packs. What is
    /// damaged, or in packs that never came to be, is left out. The manifest's totals allow for any
    /// number of them.
    pub(crate) async fn of_leftover(
        cx: &Context,
        repo: &Repo,
        manifest: &Manifest,
    ) -> Result<Index> {
        let mut builder = Builder { lenient: true, ..Builder::new(manifest) };
        for (number, pack) in (0..).zip(&manifest.packs) {
            cx.check()?;
            if pack.bytes == 0 {
                continue;
            }
            let object = BackupObject::Pack(number);
            match collect_pack(cx, repo, manifest, &mut builder, object, pack.bytes).await {
                Err(e) if is_damage(&e) => cx.note(e.chain()),
                other => other?,
            }
        }
        // Nobody knows how many there should be.
        Ok(Index { lost: 0, ..builder.finish(false)? })
    }

    /// Collects the catalog frames of all packs. What is damaged is left out.
    pub(crate) async fn rebuild(cx: &Context, repo: &Repo, manifest: &Manifest) -> Result<Index> {
        let mut builder = Builder::new(manifest);
        for (number, pack) in (0..).zip(&manifest.packs) {
            cx.check()?;
            let object = BackupObject::Pack(number);
            if let Err(e) = collect_pack(cx, repo, manifest, &mut builder, object, pack.bytes).await
            {
                if !is_damage(&e) {
                    return Err(e);
                }
                cx.event(Event::Warning { text: e.chain() });
            }
        }
        builder.finish(false)
    }
}

/// Decompresses and checks a catalog frame and adds its lines.
async fn add_frame(
    builder: &mut Builder<'_>,
    scanner: &Scanner<'_>,
    object: BackupObject,
    frame: Scanned,
) -> Result<()> {
    let at = CatalogFrame { object, offset: frame.offset, frame_len: frame.header.frame_len() };
    builder.add(at, &scanner.open_frame(frame).await?)
}

/// Adds the catalog frames of one pack: those at its end, or where the end is damaged, all that are
/// found.
async fn collect_pack(
    cx: &Context,
    repo: &Repo,
    manifest: &Manifest,
    builder: &mut Builder<'_>,
    object: BackupObject,
    bytes: u64,
) -> Result<()> {
    let key = key(manifest, object);
    let place = repo.place(&key);
    let shelf = repo.shelf();
    let len = shelf.len(&key).await?.ok_or_else(|| missing_object(&key))?.min(bytes);
    let from = match read_end(shelf, &key, &place, len).await {
        Ok(end) => end.catalog,
        Err(e) if is_damage(&e) => OBJECT_HEADER_LEN as u64,
        Err(e) => return Err(e),
    };
    let mut scanner = Scanner::at(shelf, &key, &place, from, len);
    let mut first = None;
    loop {
        cx.check()?;
        let result = match scanner.next().await {
            Ok(None) => break,
            Ok(Some(frame)) if frame.header.kind == FrameKind::Catalog => {
                add_frame(builder, &scanner, object, frame).await
            }
            Ok(Some(_)) => Ok(()),
            Err(e) if is_damage(&e) => {
                scanner.resync().await?;
                Err(e)
            }
            Err(e) => return Err(e),
        };
        match result {
            Err(e) if is_damage(&e) => first = first.or(Some(e)),
            other => other?,
        }
    }
    first.map_or(Ok(()), Err)
}

/// The key of an object of a backup.
pub(crate) fn key(manifest: &Manifest, object: BackupObject) -> Key {
    Key::Backup(manifest.cluster.clone(), manifest.backup.clone(), object)
}
