//! Binlogs of a server that is dead: its files, read from its directory or from where somebody saved
//! them, up to the last transaction that is whole.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use backup_core::{
    Appended, BinlogFile, BinlogServer, ClusterName, Context, Error, ErrorKind, Event as Told,
    Flavor, GtidSet, Position, Result, SegmentInfo, SegmentStore, Uuid, io_error,
};
use bytes::Bytes;

use super::event::{Checksum, ENCRYPTED_MAGIC, Event, Format, HEADER_LEN, Header, MAGIC, kind};
use super::receive::Received;
use super::segment::{Head, Upto, examine, hex_of, sha256};
use super::tips::Archive;

/// What is read at once; more where a transaction is longer.
const WINDOW: usize = 16 << 20;
/// No first event is longer.
const FIRST: usize = 4096;

/// Archives the binlog files in `directory` that are not archived yet. `server` is who wrote them,
/// where neither `auto.cnf` there nor the files themselves tell.
///
/// # Errors
/// [`ErrorKind::Source`] when the files do not join the archive; [`ErrorKind::Usage`] when nobody
/// knows who wrote them, or there are none.
pub async fn rescue(
    cx: &Context,
    store: &dyn SegmentStore,
    cluster: &ClusterName,
    directory: &Path,
    server: Option<BinlogServer>,
) -> Result<Received> {
    let files = files(directory)?;
    let first = LocalFile::open(&files[0].1)?;
    let server = match server.or_else(|| first.server(directory)) {
        Some(server) => server,
        None => {
            return Err(Error::usage(format!(
                "{} does not tell which server wrote it",
                directory.display()
            ))
            .with_remedy("name it with --server and its server_uuid"));
        }
    };
    let archive = Archive::read(cx, store, cluster).await?;
    let mut rescue = Rescue { cx, store, cluster, server, archive, result: Received::default() };
    for (at, (name, path)) in files.iter().enumerate() {
        cx.check()?;
        rescue.file(&name.to_string(), path, at + 1 == files.len()).await?;
    }
    Ok(rescue.result)
}

/// The binlog files of a directory, in their order.
pub(super) fn files(directory: &Path) -> Result<Vec<(BinlogFile, PathBuf)>> {
    let failed = |e| {
        io_error(e, ErrorKind::Usage, format!("cannot read the directory {}", directory.display()))
    };
    let mut files: Vec<(BinlogFile, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).map(str::parse::<BinlogFile>);
        let Some(Ok(name)) = name else { continue };
        let mut magic = [0; 4];
        let read = File::open(&path).and_then(|file| file.read_exact_at(&mut magic, 0));
        match (read, magic) {
            // A relay log looks the same.
            (Ok(()), MAGIC) if name.to_string().contains("relay") => {}
            (Ok(()), MAGIC) => files.push((name, path)),
            (Ok(()), ENCRYPTED_MAGIC) => return Err(encrypted(&path)),
            _ => {}
        }
    }
    files.sort_by_key(|(name, _)| name.number());
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
}

impl LocalFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |e| io_error(e, ErrorKind::Source, format!("cannot read {}", path.display()));
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let mut start = vec![0; FIRST.min(usize::try_from(len).unwrap_or(FIRST))];
        file.read_exact_at(&mut start, 0).map_err(failed)?;
        let cut = || Error::damaged(format!("{} does not begin as a binlog does", path.display()));
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
        let format = Format { event: format.to_send(false), ..format };
        Ok(LocalFile { path: path.to_owned(), file, len, format })
    }

    /// Who wrote it: MariaDB by the id in its first event, MySQL by `auto.cnf` beside it.
    fn server(&self, directory: &Path) -> Option<BinlogServer> {
        if self.format.is_mariadb() {
            return Some(BinlogServer::of_id(self.format.event.header().server_id));
        }
        uuid_of(directory)
    }

    pub(super) fn read(&self, start: u64, len: usize) -> Result<Bytes> {
        let len = usize::try_from(self.len - start).unwrap_or(len).min(len);
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, start).map_err(|e| {
            io_error(e, ErrorKind::Source, format!("cannot read {}", self.path.display()))
        })?;
        if start == 0 {
            // Without the mark of a file that is being written.
            let first = self.format.event.bytes();
            if let Some(place) = bytes.get_mut(MAGIC.len()..MAGIC.len() + first.len()) {
                place.copy_from_slice(first);
            }
        }
        Ok(bytes.into())
    }
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
    server: BinlogServer,
    archive: Archive,
    result: Received,
}

impl Rescue<'_> {
    fn tip(&self) -> Option<SegmentInfo> {
        self.archive.tips.iter().find(|tip| tip.server == self.server).cloned()
    }

    async fn file(&mut self, name: &str, path: &Path, last: bool) -> Result<()> {
        let local = LocalFile::open(path)?;
        let tip = self.tip();
        let mut start = 0;
        let started = local.format.started();
        let is_other =
            |tip: &SegmentInfo| tip.range.file == name && tip.range.file_started != started;
        if tip.as_ref().is_some_and(is_other)
            || self.archive.is_another(&self.server, name, started)
        {
            return Err(Error::new(
                ErrorKind::Source,
                format!("{} is not the {name} that was archived", path.display()),
            )
            .with_remedy(
                "the server began its binlogs anew; archive them under another cluster name, with a \
                 backup of their own",
            ));
        }
        if let Some(tip) = &tip {
            let number = |name: &str| name.parse::<BinlogFile>().map(|file| file.number()).ok();
            if number(name) < number(&tip.range.file) {
                return Ok(());
            }
            if tip.range.file == name {
                start = tip.range.end;
            }
        }
        if start >= local.len {
            return Ok(());
        }
        let mut window = WINDOW;
        while start < local.len {
            let tip = self.tip();
            let inside = tip.as_ref().is_some_and(|tip| start > 0 && tip.ends_inside);
            let flavor = if local.format.is_mariadb() { Flavor::MariaDb } else { Flavor::MySql };
            let head = Head {
                cluster: self.cluster.clone(),
                server: self.server.clone(),
                seq: tip.as_ref().map_or(1, |tip| tip.seq + 1),
                file: name.to_owned(),
                start,
                format_description: hex_of(&local.format),
                before: tip.as_ref().map_or(GtidSet::empty(flavor), |tip| tip.after.clone()),
                state_before: tip.and_then(|tip| tip.state_after),
                begins_inside: inside,
                gap_before: None,
            };
            let content = local.read(start, window)?;
            let whole = start + content.len() as u64 == local.len;
            let found = examine(&head, &content, Upto::LastTransaction, sha256, self.cx.now())?;
            match found {
                Some(info) => {
                    self.check_joined(&info)?;
                    start = info.range.end;
                    self.append(info, &content).await?;
                    window = WINDOW;
                }
                None if !whole => window = window.saturating_mul(4),
                None => {
                    self.torn(name, start, local.len, last)?;
                    break;
                }
            }
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
                return Err(Error::new(
                    ErrorKind::Busy,
                    format!("a receiver archives the binlogs of {} now", self.server),
                )
                .with_remedy("end it; then start this again"));
            }
        }
        self.result.segments += 1;
        self.result.bytes += info.bytes();
        self.result.transactions += info.transactions;
        self.result.position = Position {
            gtid: Some(info.after.clone()).filter(|set| !set.is_empty()),
            file: Some(info.range.file.clone()),
            offset: Some(info.range.end),
        };
        self.cx.progress().add_bytes(info.bytes());
        self.archive.add(info);
        Ok(())
    }

    /// What is left of a file is no whole transaction.
    fn torn(&mut self, name: &str, start: u64, len: u64, last: bool) -> Result<()> {
        let text = format!(
            "the last {} bytes of {name}, from byte {start} on, are no whole transaction",
            len - start
        );
        if !last {
            return Err(Error::damaged(text)
                .with_remedy("the file is damaged; get it from elsewhere, or take a full backup"));
        }
        let text = format!("{text}; they are left out");
        self.cx.event(Told::Warning { text: text.clone() });
        self.result.warnings.push(text);
        Ok(())
    }
}
