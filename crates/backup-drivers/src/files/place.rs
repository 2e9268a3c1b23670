//! One file of a restore.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use backup_core::{Error, Older, Result};
use bytes::Bytes;
use rustix::fs::OFlags;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::catalog::Entry;
use super::names::Names;
use super::restore::failed;

/// The grain in which zeros are left out, and pieces compared, where a file has no pages.
const BLOCK: usize = 4096;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing is there.
    Fresh,
    /// What is there is read, and written only where it differs.
    Update,
}

/// What became of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    /// Its length.
    pub(super) bytes: u64,
    /// How much of it was written.
    pub(super) written: u64,
    /// Whether it has the owner that it had.
    pub(super) owned: bool,
}

/// What is there of a file, to be compared with.
pub(super) struct There(File);

impl There {
    /// Opens what stands at `path`, where it is of the kind that [`place`] writes over: `None` where it is
    /// not, or is empty.
    pub(super) fn open(path: &Path) -> Option<There> {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        if !can_stay(&metadata) || metadata.len() == 0 {
            return None;
        }
        let no_links = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
        OpenOptions::new().read(true).custom_flags(no_links).open(path).ok().map(There)
    }
}

impl Older for There {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(bytes, offset)
    }
}

/// A link would lead out of the directory; a second name of the file may be another's.
fn can_stay(metadata: &std::fs::Metadata) -> bool {
    metadata.is_file() && metadata.nlink() == 1
}

/// Bytes of a file.
#[derive(Debug)]
pub(super) enum Piece {
    /// Those behind the last ones.
    Next(Bytes),
    /// Those from an offset on, where what is there differs; nothing of what is between was different.
    Differs(u64, Bytes),
    /// So far nothing more differs.
    Same(u64),
    /// Those from an offset on, over what is there.
    Over(u64, Bytes),
}

/// Writes the pieces of an artifact, in order, and syncs them to the disk. `whole` is cancelled once
/// the last one was given: without it the pieces ended because something failed.
pub(super) fn place(
    entry: &Entry,
    path: &Path,
    way: Way,
    mut pieces: mpsc::Receiver<Piece>,
    names: &Names,
    whole: &CancellationToken,
) -> Result<Placed> {
    let mut output = Output::open(entry, path, way).map_err(failed(path))?;
    let mut over = false;
    while let Some(piece) = pieces.blocking_recv() {
        if matches!(piece, Piece::Over(..)) && !std::mem::replace(&mut over, true) {
            output.end().map_err(failed(path))?;
        }
        match piece {
            Piece::Next(bytes) => output.add(&bytes),
            Piece::Differs(offset, bytes) => output.put(offset, &bytes),
            Piece::Same(end) => output.keep(end),
            Piece::Over(offset, bytes) => output.over(offset, &bytes),
        }
        .map_err(failed(path))?;
    }
    if entry.changes {
        if !over {
            output.end().map_err(failed(path))?;
        }
        output.lengthen(entry.bytes).map_err(failed(path))?;
    }
    if whole.is_cancelled() && output.at != entry.bytes {
        return Err(Error::damaged(format!(
            "{} has {} bytes, the catalog of the backup says {}",
            entry.path, output.at, entry.bytes
        )));
    }
    output.finish(entry, names).map_err(failed(path))
}

struct Output {
    file: File,
    at: u64,
    /// The length of what was there, as far as it is compared with.
    there: u64,
    written: u64,
    sparse: bool,
    unit: usize,
    old: Vec<u8>,
}

impl Output {
    fn open(entry: &Entry, path: &Path, way: Way) -> io::Result<Self> {
        let mut there = 0;
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            match way == Way::Update && can_stay(&metadata) {
                true => there = metadata.len(),
                false => std::fs::remove_file(path)?,
            }
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default())
            .open(path)?;
        if there > entry.bytes {
            file.set_len(entry.bytes)?;
            there = entry.bytes;
        }
        let unit = entry.page_size.map_or(BLOCK, |size| (size as usize).clamp(512, 1 << 16));
        Ok(Output { file, at: 0, there, written: 0, sparse: entry.sparse, unit, old: Vec::new() })
    }

    fn add(&mut self, piece: &[u8]) -> io::Result<()> {
        let common = usize::try_from(self.there.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let (known, beyond) = piece.split_at(common.min(piece.len()));
        if !known.is_empty() {
            self.old.resize(known.len(), 0);
            let mut old = std::mem::take(&mut self.old);
            self.file.read_exact_at(&mut old, self.at)?;
            let unit = self.unit;
            self.write(known, unit, |range| known[range.clone()] != old[range])?;
            self.old = old;
        }
        self.extend(beyond)
    }

    /// Writes what is known to differ, behind what is known to be the same.
    fn put(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.at = offset;
        let common = usize::try_from(self.there.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (known, beyond) = bytes.split_at(common.min(bytes.len()));
        self.write(known, known.len().max(1), |_| true)?;
        self.extend(beyond)
    }

    /// What is there is the same up to here.
    fn keep(&mut self, end: u64) -> io::Result<()> {
        self.at = end;
        Ok(())
    }

    /// Writes behind what was there.
    fn extend(&mut self, beyond: &[u8]) -> io::Result<()> {
        match self.sparse {
            false => self.write(beyond, beyond.len().max(1), |_| true),
            true => self.write(beyond, BLOCK, |range| beyond[range].iter().any(|&byte| byte != 0)),
        }
    }

    /// Writes over what is there.
    fn over(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.file.write_all_at(bytes, offset)
    }

    /// Ends what comes in order: an older state that was longer is zeros from here on.
    fn end(&mut self) -> io::Result<()> {
        match self.there > self.at {
            true => self.file.set_len(self.at),
            false => Ok(()),
        }
    }

    /// Makes it so long, with zeros behind what was written in order.
    fn lengthen(&mut self, bytes: u64) -> io::Result<()> {
        self.at = self.at.max(bytes);
        self.file.set_len(self.at)
    }

    /// Writes those units of `bytes` that are wanted, those that follow each other at once.
    fn write(
        &mut self,
        bytes: &[u8],
        unit: usize,
        wanted: impl Fn(std::ops::Range<usize>) -> bool,
    ) -> io::Result<()> {
        let mut from = 0;
        let mut start = 0;
        while start < bytes.len() {
            let end = (start + unit).min(bytes.len());
            if !wanted(start..end) {
                self.write_at(&bytes[from..start], from)?;
                from = end;
            }
            start = end;
        }
        self.write_at(&bytes[from..], from)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn write_at(&mut self, bytes: &[u8], offset: usize) -> io::Result<()> {
        self.written += bytes.len() as u64;
        match bytes.is_empty() {
            true => Ok(()),
            false => self.file.write_all_at(bytes, self.at + offset as u64),
        }
    }

    fn finish(self, entry: &Entry, names: &Names) -> io::Result<Placed> {
        self.file.set_len(self.at)?;
        let owned = own(&self.file, entry, names)?;
        self.file.set_permissions(PermissionsExt::from_mode(entry.mode))?;
        let modified: std::time::SystemTime = entry.modified.into();
        // A kind of file system that keeps no times is no reason to fail.
        let _ = self.file.set_modified(modified);
        self.file.sync_all()?;
        Ok(Placed { bytes: self.at, written: self.written, owned })
    }
}

/// Gives a file or directory to whom it belonged. `false`: only root may do that.
pub(super) fn own(file: &File, entry: &Entry, names: &Names) -> io::Result<bool> {
    let user = names.user_number(entry.owner.as_deref(), entry.uid);
    let group = names.group_number(entry.group.as_deref(), entry.gid);
    let is = file.metadata()?;
    if (is.uid(), is.gid()) == (user, group) {
        return Ok(true);
    }
    match std::os::unix::fs::fchown(file, Some(user), Some(group)) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalog::Kind;
    use super::*;

    fn entry(bytes: usize, sparse: bool) -> Entry {
        Entry {
            path: "t.ibd".into(),
            kind: Kind::File,
            bytes: bytes as u64,
            page_size: Some(16_384),
            space_id: None,
            sparse,
            mode: 0o640,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            owner: None,
            group: None,
            modified: jiff::Timestamp::UNIX_EPOCH,
            origin: None,
            stored_as: None,
            changes: false,
        }
    }

    fn put(path: &Path, entry: &Entry, way: Way, content: &[u8], piece: usize) -> Result<Placed> {
        let (sender, pieces) = mpsc::channel(content.len() / piece + 1);
        for piece in content.chunks(piece) {
            sender.try_send(Piece::Next(Bytes::copy_from_slice(piece))).unwrap();
        }
        drop(sender);
        let whole = CancellationToken::new();
        whole.cancel();
        place(entry, path, way, pieces, &Names::default(), &whole)
    }

    #[test]
    fn only_what_differs_is_written_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.ibd");
        let mut content: Vec<u8> = (0..20u32 * 16_384).map(|i| (i / 7) as u8).collect();
        let whole = entry(content.len(), false);
        let placed = put(&path, &whole, Way::Fresh, &content, 300_000).unwrap();
        assert_eq!((placed.bytes, placed.written), (content.len() as u64, content.len() as u64));
        content[5 * 16_384 + 3] ^= 1;
        content[19 * 16_384] ^= 1;
        // Pieces of a backup need not begin where pages do.
        let placed = put(&path, &whole, Way::Update, &content, 65_536).unwrap();
        assert_eq!(placed.written, 2 * 16_384);
        assert_eq!(std::fs::read(&path).unwrap(), content);
        // Shorter, then longer than what is there.
        for len in [7 * 16_384, 9 * 16_384 + 5] {
            content.resize(len, 9);
            put(&path, &entry(len, false), Way::Update, &content, 50_000).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o640);
    }

    /// Gives the pieces as they are.
    fn give(path: &Path, entry: &Entry, pieces: Vec<Piece>) -> Result<Placed> {
        let (sender, receiver) = mpsc::channel(pieces.len() + 1);
        pieces.into_iter().for_each(|piece| sender.try_send(piece).unwrap());
        drop(sender);
        let whole = CancellationToken::new();
        whole.cancel();
        place(entry, path, Way::Update, receiver, &Names::default(), &whole)
    }

    #[test]
    fn what_is_known_to_differ_is_written_and_the_end_is_that_of_the_backup() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.ibd");
        let old = vec![7; 10 * BLOCK];
        // Shorter and longer than what is there, and over its end.
        for bytes in [8 * BLOCK, 13 * BLOCK] {
            std::fs::write(&path, &old).unwrap();
            let mut new = old.clone();
            new.resize(bytes, 0);
            let differs = |from: usize, to: usize| {
                Piece::Differs(from as u64, Bytes::copy_from_slice(&new[from..to]))
            };
            let mut pieces = vec![differs(2 * BLOCK, 3 * BLOCK)];
            if bytes > old.len() {
                pieces.push(differs(9 * BLOCK, bytes));
            }
            pieces.push(Piece::Same(bytes as u64));
            let placed = give(&path, &entry(bytes, true), pieces).unwrap();
            assert_eq!(placed.bytes, bytes as u64);
            assert_eq!(std::fs::read(&path).unwrap(), new);
        }
        let e = give(&path, &entry(5, false), vec![Piece::Same(4)]).unwrap_err();
        assert_eq!(e.kind(), backup_core::ErrorKind::Damaged);
    }

    #[test]
    fn of_an_older_state_nothing_stays_behind_the_artifact() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.ibd");
        let whole = Entry { changes: true, ..entry(8 * BLOCK, false) };
        let mut content = vec![0; 8 * BLOCK];
        content[..2 * BLOCK].fill(3);
        content[6 * BLOCK..7 * BLOCK].fill(4);
        for start in [
            Piece::Next(Bytes::copy_from_slice(&content[..2 * BLOCK])),
            Piece::Differs(0, Bytes::copy_from_slice(&content[..2 * BLOCK])),
        ] {
            std::fs::write(&path, vec![7; 9 * BLOCK]).unwrap();
            let over = Bytes::copy_from_slice(&content[6 * BLOCK..7 * BLOCK]);
            give(&path, &whole, vec![start, Piece::Over(6 * BLOCK as u64, over)]).unwrap();
            assert!(std::fs::read(&path).unwrap() == content);
        }
    }

    #[test]
    fn holes_stay_holes_and_a_wrong_length_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.ibd");
        let mut content = vec![0; 4 << 20];
        content[1 << 20] = 1;
        let placed =
            put(&path, &entry(content.len(), true), Way::Fresh, &content, 1 << 20).unwrap();
        assert_eq!(placed.written, 4096);
        assert_eq!(std::fs::read(&path).unwrap(), content);
        assert!(path.metadata().unwrap().blocks() * 512 < 1 << 20);
        // Zeros over something that is there are written.
        content[1 << 20] = 0;
        put(&path, &entry(content.len(), true), Way::Update, &content, 1 << 20).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), content);
        let e = put(&path, &entry(5, false), Way::Fresh, b"four", 4).unwrap_err();
        assert_eq!(e.kind(), backup_core::ErrorKind::Damaged);
    }

    #[test]
    fn a_link_at_the_place_of_a_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("t.ibd"), dir.path().join("precious"));
        std::fs::write(&other, "precious").unwrap();
        for way in [Way::Update, Way::Fresh] {
            let _ = std::fs::remove_file(&path);
            std::os::unix::fs::symlink(&other, &path).unwrap();
            put(&path, &entry(3, false), way, b"new", 3).unwrap();
            std::fs::remove_file(&path).unwrap();
            std::fs::hard_link(&other, &path).unwrap();
            put(&path, &entry(3, false), way, b"new", 3).unwrap();
            assert_eq!(std::fs::read(&other).unwrap(), b"precious");
            assert_eq!(std::fs::read(&path).unwrap(), b"new");
        }
    }
}
