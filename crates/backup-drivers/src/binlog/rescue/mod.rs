//! Binlogs of a server that is dead: its files, read from its directory or from where somebody saved
//! them, or what MHA saved of them, up to the last transaction that is whole.

mod kin;
mod mend;
mod place;
mod saved;
mod writer;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use backup_core::{
    Appended, BinlogFile, BinlogServer, ClusterName, Context, Error, ErrorKind, GtidSet, Position,
    ReplayBase, Result, SegmentInfo, SegmentStore, Uuid, io_error,
};
use bytes::Bytes;

use self::place::Piece;
use self::saved::Saved;
use super::event::{
    Checksum, ENCRYPTED_MAGIC, Event, Events, Format, HEADER_LEN, Header, IN_USE, MAGIC, RELAY,
    holds_event, kind,
};
use super::kin::Kin;
use super::receive::Received;
use super::segment::{Head, Upto, examine, hex_of, sha256};
use super::source::{Covered, check_kept};
use super::tips::Archive;

/// What is read at once; more where a transaction is longer.
const WINDOW: usize = 16 << 20;
/// No first event is longer.
const FIRST: usize = 4096;

/// What is known of binlogs that are rescued, where they do not tell it themselves.
#[derive(Debug, Clone, Default)]
pub struct RescueOptions {
    /// Who wrote them.
    pub server: Option<BinlogServer>,
    /// The binlog in which what MHA saved begins.
    pub first_file: Option<BinlogFile>,
    /// Take `server` for who wrote them, and them for the cluster's, whatever they say themselves.
    pub anyway: bool,
    /// The backups of the cluster: which servers they were read from, and where those stood.
    pub backups: Vec<ReplayBase>,
}

/// Archives what is not archived yet of the binlogs in the directory `path`, or in what MHA saved: a file
/// `saved_master_binlog_from_…`, or a directory with nothing but such.
///
/// # Errors
/// [`ErrorKind::Source`] when they do not join the archive, or are others than the archived ones of their
/// names; [`ErrorKind::Usage`] when nobody knows who wrote them, they say that it was another server than the
/// one that is named, nothing tells that it is one of the cluster's, or there are none; [`ErrorKind::Damaged`] where something is damaged that has whole events
/// behind it. What comes before that is archived then.
pub async fn rescue(
    cx: &Context,
    store: &dyn SegmentStore,
    cluster: &ClusterName,
    path: &Path,
    options: RescueOptions,
) -> Result<Received> {
    let listed = store.segments(cx, cluster).await?;
    let archive = Archive::of(cx, &listed);
    let kin = Kin::of(&archive, &options.backups);
    let known = listed.into_iter().filter_map(|listed| listed.info.ok()).collect();
    let result = Received { new_archive: archive.tips.is_empty(), ..Received::default() };
    let mut rescue = Rescue { cx, store, cluster, archive, known, kin, result };
    if path.is_file() {
        rescue.saved(path, &options).await?;
        return Ok(rescue.result);
    }
    let files = match files(path) {
        Err(e) if e.kind() == ErrorKind::Usage => {
            let (saved, unfit) = saved_in(path);
            match (saved.first(), unfit.first()) {
                (None, None) => return Err(e),
                // It says why there is nothing in it.
                (None, Some(unfit)) => rescue.saved(unfit, &options).await?,
                (Some(_), _) => {}
            }
            for file in unfit {
                if let Err(e) = Saved::open(&file) {
                    rescue.warn(format!("{}; it is left out", e.chain()));
                }
            }
            for file in saved {
                cx.note(format!("{}", file.display()));
                rescue.saved(&file, &options).await?;
            }
            return Ok(rescue.result);
        }
        files => files?,
    };
    let server = writer::of_directory(path, &files, &options)?;
    if rescue.kin.is_new(&server) && !options.anyway {
        let mut known = None;
        for (name, path) in files.iter().rev() {
            let local = LocalFile::open(path)?;
            let piece = Piece::of_file(&local, server.clone(), name.to_string());
            known = rescue.kin.knows_piece(&piece)?;
            if known.is_some() {
                break;
            }
        }
        if known != Some(true) {
            return Err(kin::stranger(path, &server, cluster));
        }
    }
    for (at, (name, path)) in files.iter().enumerate() {
        cx.check()?;
        let local = LocalFile::open(path)?;
        let piece = Piece::of_file(&local, server.clone(), name.to_string());
        rescue.put_right(&piece).await?;
        rescue.is_archived_one(&piece).await?;
        rescue.fill(&piece).await?;
        rescue.piece(&piece, at + 1 == files.len()).await?;
    }
    rescue.tell_lacking(&server)?;
    Ok(rescue.result)
}

/// What MHA saved, in the order in which it did; and what has such a name, and is no binlog.
fn saved_in(directory: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return Default::default() };
    let saved = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?;
        saved::is_saved(name).then(|| (saved::saved_at(name), path.clone()))
    });
    let mut saved: Vec<(String, PathBuf)> = saved.collect();
    saved.sort();
    let saved = saved.into_iter().map(|(_, path)| path);
    saved.partition(|path| LocalFile::magic(path).is_ok_and(|magic| magic == MAGIC))
}

/// The binlog files of a directory, whatever they are called, by their numbers.
pub(super) fn all_files(directory: &Path) -> Result<Vec<(BinlogFile, PathBuf)>> {
    let failed = |e| {
        io_error(e, ErrorKind::Usage, format!("cannot read the directory {}", directory.display()))
    };
    let mut files: Vec<(BinlogFile, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).map(str::parse::<BinlogFile>);
        let Some(Ok(name)) = name else { continue };
        match LocalFile::magic(&path).unwrap_or_default() {
            // A relay log looks the same.
            MAGIC if name.to_string().contains("relay") => {}
            MAGIC => files.push((name, path)),
            ENCRYPTED_MAGIC => return Err(encrypted(&path)),
            _ => {}
        }
    }
    files.sort_by_key(|(name, _)| name.number());
    Ok(files)
}

/// The binlog files of a directory, in their order.
fn files(directory: &Path) -> Result<Vec<(BinlogFile, PathBuf)>> {
    let files = all_files(directory)?;
    match files.first() {
        None => Err(Error::usage(format!("there are no binlogs in {}", directory.display()))
            .with_remedy("name the directory that SHOW BINARY LOGS showed (log_bin_basename)")),
        Some((first, _)) if files.iter().any(|(name, _)| !name.same_series(first)) => {
            Err(Error::usage(format!("{} holds binlogs of several names", directory.display()))
                .with_remedy("put those of the server that is to be rescued into a directory"))
        }
        Some(_) => Ok(files),
    }
}

fn encrypted(path: &Path) -> Error {
    Error::new(ErrorKind::Source, format!("{} is encrypted by its server", path.display()))
        .with_remedy(
            "only a server with the keys can read it: start one on the directory, and archive from \
             it with `holdfast binlog backup`",
        )
}

pub(super) struct LocalFile {
    path: PathBuf,
    file: File,
    pub(super) len: u64,
    pub(super) format: Format,
    /// It has the mark of one that is being written.
    pub(super) in_use: bool,
    /// It has the mark of a relay log.
    pub(super) relay: bool,
}

impl LocalFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |e| io_error(e, ErrorKind::Source, format!("cannot read {}", path.display()));
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let mut start = vec![0; FIRST.min(usize::try_from(len).unwrap_or(FIRST))];
        file.read_exact_at(&mut start, 0).map_err(failed)?;
        let cut = || {
            Error::damaged(format!("{} does not begin as a binlog does", path.display()))
                .with_remedy(
                    "copy it again from where it comes from; what is not in it cannot be rescued",
                )
        };
        let first = start.get(MAGIC.len()..).ok_or_else(cut)?;
        let header = Header::parse(first).ok_or_else(cut)?;
        let event = first.get(..(header.len as usize).max(HEADER_LEN)).ok_or_else(cut)?;
        // Whole and checked as it is there; then as a server that closed the file would have it.
        let event = Event::check(Bytes::copy_from_slice(event), Checksum::Crc32)?;
        let format = Format::parse(event)?;
        let second = first.get(format.event.bytes().len()..).and_then(Header::parse);
        if format.is_mariadb() && second.is_some_and(|e| e.kind == kind::MARIADB_START_ENCRYPTION) {
            return Err(encrypted(path));
        }
        let flags = format.event.header().flags;
        let (in_use, relay) = (flags & IN_USE != 0, flags & RELAY != 0);
        let format = Format { event: format.to_send(false), ..format };
        Ok(LocalFile { path: path.to_owned(), file, len, format, in_use, relay })
    }

    /// The first bytes of a file.
    fn magic(path: &Path) -> Result<[u8; 4]> {
        let mut magic = [0; 4];
        let read = File::open(path).and_then(|file| file.read_exact_at(&mut magic, 0));
        match read {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(magic),
            Err(e) => Err(io_error(e, ErrorKind::Usage, format!("cannot read {}", path.display()))),
            Ok(()) => Ok(magic),
        }
    }

    /// Bytes as they are there.
    fn bytes(&self, at: u64, len: usize) -> Result<Bytes> {
        let len = usize::try_from(self.len.saturating_sub(at)).unwrap_or(len).min(len);
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at).map_err(|e| {
            io_error(e, ErrorKind::Source, format!("cannot read {}", self.path.display()))
        })?;
        Ok(bytes.into())
    }

    /// Bytes of a file that is one binlog, without the mark of one that is being written.
    pub(super) fn read(&self, start: u64, len: usize) -> Result<Bytes> {
        let bytes = self.bytes(start, len)?;
        Ok(if start == 0 { as_closed(&bytes, &self.format) } else { bytes })
    }
}

/// The start of a file with this first event, and its magic number.
fn as_closed(bytes: &Bytes, format: &Format) -> Bytes {
    let start = [&MAGIC, &format.event.bytes()[..]].concat();
    let mut bytes = bytes.to_vec();
    let len = start.len().min(bytes.len());
    bytes[..len].copy_from_slice(&start[..len]);
    bytes.into()
}

/// The MySQL server whose data directory it is.
pub(super) fn uuid_of(directory: &Path) -> Option<BinlogServer> {
    let text = std::fs::read_to_string(directory.join("auto.cnf")).ok()?;
    let line = text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        key.trim().replace('_', "-").eq_ignore_ascii_case("server-uuid").then_some(value)
    });
    line?.trim().parse::<Uuid>().ok().map(BinlogServer::of_uuid)
}

struct Rescue<'a> {
    cx: &'a Context,
    store: &'a dyn SegmentStore,
    cluster: &'a ClusterName,
    archive: Archive,
    /// The segments of the archive, with those that are added.
    known: Vec<SegmentInfo>,
    kin: Kin,
    result: Received,
}

impl Rescue<'_> {
    fn tip(&self, server: &BinlogServer) -> Option<SegmentInfo> {
        self.archive.tips.iter().find(|tip| tip.server == *server).cloned()
    }

    /// Archives what is not archived yet of a piece.
    async fn piece(&mut self, piece: &Piece<'_>, last: bool) -> Result<()> {
        let tip = self.tip(&piece.server);
        let started = piece.format.started();
        let is_other =
            |tip: &SegmentInfo| tip.range.file == piece.name && !tip.range.began_at(started);
        if tip.as_ref().is_some_and(is_other)
            || started != 0 && self.archive.is_another(&piece.server, &piece.name, started)
        {
            return Err(piece.is_another());
        }
        let mut start = piece.start;
        if let Some(tip) = &tip {
            let number = |name: &str| name.parse::<BinlogFile>().map(|file| file.number()).ok();
            if number(&piece.name) < number(&tip.range.file) {
                return Ok(());
            }
            if tip.range.file == piece.name && tip.range.end >= start {
                start = tip.range.end;
            }
        }
        // What was being written may be whole in the archive.
        if start > piece.end || start >= piece.limit {
            return Ok(());
        }
        // What comes before a piece of the middle of a file, where the archive does not end there.
        let mut before: Option<Covered> = None;
        if start > 0 && !tip.as_ref().is_some_and(|tip| piece.follows(tip, start)) {
            let (covered, place) = piece.enter(tip.as_ref(), self.archive.covered()?)?;
            (before, start) = (Some(covered), place);
        }
        let mut window = WINDOW;
        while start < piece.limit {
            let tip = self.tip(&piece.server);
            let here = tip.as_ref().filter(|tip| tip.range.file == piece.name && start > 0);
            let (set, state) = match (&before, &tip) {
                (Some(covered), _) => (covered.set.clone(), covered.state.clone()),
                (None, Some(tip)) => (tip.after.clone(), tip.state_after.clone()),
                (None, None) => (GtidSet::empty(piece.flavor()), None),
            };
            let head = Head {
                cluster: self.cluster.clone(),
                server: piece.server.clone(),
                seq: tip.as_ref().map_or(1, |tip| tip.seq + 1),
                file: piece.name.clone(),
                start,
                format_description: hex_of(&piece.format),
                before: set,
                state_before: state,
                begins_inside: before.is_none() && here.is_some_and(|tip| tip.ends_inside),
                gap_before: None,
            };
            let content = piece.read(start, window)?;
            let whole = start + content.len() as u64 == piece.limit;
            let found = examine(&head, &content, Upto::LastTransaction, sha256, self.cx.now())?;
            match found {
                Some(info) => {
                    start = info.range.end;
                    window = WINDOW;
                    if let Some(covered) = &before
                        && covered.lacks(&info.after, info.state_after.as_ref())?.is_none()
                    {
                        // Another server had it all.
                        continue;
                    }
                    self.check_joined(&info)?;
                    if let Some(tip) = &tip
                        && info.range.start == 0
                        && !self.archive.went_on_elsewhere(tip)?
                    {
                        let id = piece.format.event.header().server_id.into();
                        let state = info.state_before.as_ref();
                        check_kept(id, &info.before, tip, &piece.name, &info.before, state)?;
                    }
                    self.append(info, &content).await?;
                    before = None;
                }
                None if !whole => window = window.saturating_mul(4),
                None => {
                    self.torn(piece, start, &content, last)?;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Tells what the archive had that a new server of the cluster has not.
    fn tell_lacking(&mut self, server: &BinlogServer) -> Result<()> {
        let tip = self.tip(server).filter(|_| self.kin.is_new(server));
        let Some(tip) = tip else { return Ok(()) };
        if let Some(text) = self.kin.lacking(&tip)? {
            self.warn(text);
        }
        Ok(())
    }

    fn check_joined(&self, info: &SegmentInfo) -> Result<()> {
        let Some(covered) = self.archive.covered()? else { return Ok(()) };
        let Some(missing) = covered.lacks(&info.before, info.state_before.as_ref())? else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::Source,
            format!("transactions between the archive and {} are missing: {missing}", info.range),
        )
        .with_remedy("find the binlogs that come before, and rescue them together"))
    }

    async fn append(&mut self, info: SegmentInfo, content: &Bytes) -> Result<()> {
        let len = usize::try_from(info.bytes()).unwrap_or(usize::MAX).min(content.len());
        match self.store.append(self.cx, &info, content.slice(..len)).await? {
            Appended::Stored(stored) => self.result.stored += stored,
            Appended::Taken => {
                let there = self.store.segment(self.cluster, &info.server, info.seq).await;
                if !there.is_err_and(|e| e.kind() == ErrorKind::Damaged) {
                    return Err(Error::new(
                        ErrorKind::Busy,
                        format!("a receiver archives the binlogs of {} now", info.server),
                    )
                    .with_remedy("end it; then start this again"));
                }
                // The last one, of which nothing can be told: whatever it held is behind what is known.
                self.store.replace_damaged(self.cx, &info, content.slice(..len)).await?;
                self.has_put_right(&info);
            }
        }
        self.result.segments += 1;
        self.result.bytes += info.bytes();
        self.result.transactions += info.transactions;
        self.result.position = Position {
            gtid: Some(info.after.clone()).filter(|set| !set.is_empty()),
            ..Position::at(info.range.file.clone(), info.range.end)
        };
        self.cx.progress().add_bytes(info.bytes());
        self.archive.add(info.clone());
        self.known.push(info);
        Ok(())
    }

    /// What is left of a file, from `start` on, is no whole transaction.
    fn torn(&mut self, piece: &Piece<'_>, start: u64, rest: &Bytes, last: bool) -> Result<()> {
        let text = format!(
            "the last {} bytes of {}, from byte {start} on, are no whole transaction",
            piece.limit - start,
            piece.name
        );
        if !last {
            return Err(Error::damaged(text)
                .with_remedy("the file is damaged; get it from elsewhere, or take a full backup"));
        }
        // Events of a transaction that is open, up to the first one that is not whole.
        let skip = if start == 0 { MAGIC.len() + piece.format.event.bytes().len() } else { 0 };
        let open = rest.slice(skip.min(rest.len())..);
        let mut events = Events::new(open, start + skip as u64, piece.format.checksum);
        while matches!(events.next_whole(), Ok(Some(_))) {}
        let (at, rest) = (events.position(), events.rest());
        if !rest.is_empty() && holds_event(&rest.slice(1..), piece.format.checksum) {
            return Err(Error::damaged(format!(
                "{} is damaged at byte {at}, and goes on behind that; everything before it is archived",
                piece.name
            ))
            .with_remedy("get the file from elsewhere, or take a full backup of a server that goes on"));
        }
        self.warn(format!("{text}; they are left out"));
        Ok(())
    }
}
