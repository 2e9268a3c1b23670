//! Where what was received waits for the store: one pair of files a segment, `<seq>.json` with what
//! has to be known of it and `<seq>.binlog` with its bytes.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::{BinlogServer, ClusterName, Error, ErrorKind, Result, io_error};
use bytes::Bytes;
use jiff::Timestamp;

use super::segment::Head;

/// The directory of one cluster, held by one receiver.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    /// Locked while we live.
    lock: File,
}

/// A segment that waits for the store.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) head: Head,
    stem: PathBuf,
    /// How many bytes at its beginning are archived.
    skip: u64,
}

/// A segment that is being received.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) head: Head,
    stem: PathBuf,
    file: Arc<File>,
    /// What was not written yet.
    buffer: Vec<u8>,
    pub(super) len: u64,
    dirty: bool,
}

/// What is written with one call.
const BUFFER: usize = 256 << 10;

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let what = format!("cannot use {} of the spool", path.display());
    move |e| {
        io_error(e, ErrorKind::Internal, what).with_remedy(
            "make room or choose another --spool, then start again: nothing is lost as long as the \
             server keeps its binlogs",
        )
    }
}

/// A directory that cannot be made, or written to, is a matter of which one was named.
fn unusable(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let failed = failed(path);
    move |e| {
        let error = failed(e);
        match error.kind() {
            ErrorKind::Internal => error.with_kind(ErrorKind::Usage),
            _ => error,
        }
    }
}

fn make(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable(path))
}

fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(failed(path))
}

impl Drop for Spool {
    /// At once: a child of ours that is just being started would hold it until it runs.
    fn drop(&mut self) {
        // What fails here the end of the process does.
        let _ = self.lock.unlock();
    }
}

impl Spool {
    /// Opens the directory of a cluster below `root`.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] while another receiver has it; [`ErrorKind::Usage`] where it cannot be made or
    /// written to.
    pub(super) fn open(root: &Path, cluster: &ClusterName, now: Timestamp) -> Result<Self> {
        let directory = root.join(cluster.to_string());
        make(&directory)?;
        let path = directory.join("lock");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(unusable(&path))?;
        match lock.try_lock() {
            Ok(()) => {
                // For people.
                let since = now.strftime("%Y-%m-%d %H:%M:%S UTC");
                let who = format!("process {}, since {since}\n", std::process::id());
                lock.set_len(0)
                    .and_then(|()| lock.write_all(who.as_bytes()))
                    .map_err(failed(&path))?;
                Ok(Spool { directory, lock })
            }
            Err(TryLockError::WouldBlock) => {
                let who = std::fs::read_to_string(&path).unwrap_or_default();
                let who = match who.trim() {
                    "" => String::new(),
                    who => format!(": {who}"),
                };
                Err(Error::new(
                    ErrorKind::Busy,
                    format!("another receiver uses the spool {}{who}", directory.display()),
                )
                .with_remedy(
                    "one receiver a cluster is enough; or give this one, for another server of the \
                     cluster, another --spool",
                ))
            }
            Err(TryLockError::Error(e)) => Err(failed(&path)(e)),
        }
    }

    /// What an earlier receiver left, by server and number.
    pub(super) fn waiting(&self) -> Result<Vec<Waiting>> {
        let mut found = Vec::new();
        for server in std::fs::read_dir(&self.directory).map_err(failed(&self.directory))? {
            let server = server.map_err(failed(&self.directory))?.path();
            if !server.is_dir() {
                continue;
            }
            for entry in std::fs::read_dir(&server).map_err(failed(&server))? {
                let path = entry.map_err(failed(&server))?.path();
                if path.extension().is_some_and(|extension| extension == "binlog")
                    && !path.with_extension("json").exists()
                {
                    // Its writer died before or after it was a segment. It may be gone together
                    // with its head, and listed all the same.
                    Waiting::remove_files(&path.with_extension(""))?;
                }
                if path.extension().is_none_or(|extension| extension != "json") {
                    continue;
                }
                let json = std::fs::read(&path).map_err(failed(&path))?;
                let stem = path.with_extension("");
                match serde_json::from_slice(&json) {
                    Ok(head) => found.push(Waiting { head, stem, skip: 0 }),
                    // It was being written when its writer died: there is nothing behind it.
                    Err(_) => Waiting::remove_files(&stem)?,
                }
            }
        }
        found.sort_by(|a, b| (&a.head.server, a.head.seq).cmp(&(&b.head.server, b.head.seq)));
        Ok(found)
    }

    /// Begins a segment.
    pub(super) fn begin(&self, head: Head) -> Result<Draft> {
        let directory = self.directory.join(directory_of(&head.server));
        make(&directory)?;
        let stem = directory.join(format!("{:010}", head.seq));
        let json = serde_json::to_vec(&head)
            .map_err(|e| Error::internal("a segment cannot be written as JSON").with_source(e))?;
        let create = |path: &Path| {
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)
        };
        // What is first there says nothing yet; the head makes it a segment.
        let content = stem.with_extension("binlog");
        let file = create(&content).map_err(failed(&content))?;
        let path = stem.with_extension("json");
        let mut head_file = create(&path).map_err(failed(&path))?;
        head_file.write_all(&json).and_then(|()| head_file.sync_all()).map_err(failed(&path))?;
        sync_directory(&directory)?;
        sync_directory(&self.directory)?;
        Ok(Draft { head, stem, file: file.into(), buffer: Vec::new(), len: 0, dirty: false })
    }
}

fn directory_of(server: &BinlogServer) -> &str {
    server.as_str()
}

impl Draft {
    /// Adds bytes. They are safe after [`Draft::sync`].
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.len += bytes.len() as u64;
        self.dirty = true;
        if self.buffer.len() >= BUFFER { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        (&*self.file).write_all(&self.buffer).map_err(failed(&self.stem))?;
        self.buffer.clear();
        Ok(())
    }

    /// Waits until all that was added would survive a power cut.
    pub(super) async fn sync(&mut self) -> Result<()> {
        if !self.dirty {
            return Ok(());
        }
        self.write()?;
        let file = Arc::clone(&self.file);
        tokio::task::spawn_blocking(move || file.sync_data())
            .await
            .map_err(|e| Error::internal("a task of the spool ended early").with_source(e))?
            .map_err(failed(&self.stem))?;
        self.dirty = false;
        Ok(())
    }

    /// Ends it: from here on it waits for the store.
    pub(super) async fn close(mut self) -> Result<Waiting> {
        self.sync().await?;
        Ok(Waiting { head: self.head, stem: self.stem, skip: 0 })
    }
}

impl Waiting {
    /// What is left of it when its beginning is archived. Its files stay as they are.
    pub(super) fn rest(self, head: Head) -> Self {
        let skip = self.skip + head.start.saturating_sub(self.head.start);
        Waiting { head, skip, ..self }
    }

    /// Whether it goes on where all that `other` has ends.
    pub(super) fn continues(&self, other: &Waiting) -> Result<bool> {
        let (this, before) = (&self.head, &other.head);
        let same = this.server == before.server
            && this.file == before.file
            && this.format_description == before.format_description;
        Ok(same && this.start == before.start + other.content()?.len() as u64)
    }

    /// The names of its files, without what comes behind the dot.
    pub(super) fn stem(&self) -> &Path {
        &self.stem
    }

    /// Its bytes; none where it was only begun.
    pub(super) fn content(&self) -> Result<Bytes> {
        let path = self.stem.with_extension("binlog");
        match std::fs::read(&path) {
            Ok(content) => {
                let mut content = Bytes::from(content);
                let skip = usize::try_from(self.skip).unwrap_or(usize::MAX);
                Ok(content.split_off(skip.min(content.len())))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Bytes::new()),
            Err(e) => Err(failed(&path)(e)),
        }
    }

    /// Cuts off what cannot be used, so that nobody looks at it again.
    pub(super) fn truncate(&self, len: u64) -> Result<()> {
        let path = self.stem.with_extension("binlog");
        let file = OpenOptions::new().write(true).open(&path).map_err(failed(&path))?;
        file.set_len(self.skip + len).and_then(|()| file.sync_all()).map_err(failed(&path))
    }

    /// Removes it: it is in the store, or nothing is in it.
    pub(super) fn remove(&self) -> Result<()> {
        Waiting::remove_files(&self.stem)
    }

    fn remove_files(stem: &Path) -> Result<()> {
        // The head last: without content it is nothing, content without a head is never looked at.
        for extension in ["json", "binlog"] {
            let path = stem.with_extension(extension);
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(&path)(e)),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(seq: u64) -> Head {
        Head {
            cluster: "c".parse().unwrap(),
            server: BinlogServer::of_id(1),
            seq,
            file: "binlog.000001".into(),
            start: 0,
            format_description: String::new(),
            before: backup_core::GtidSet::empty(backup_core::Flavor::MariaDb),
            state_before: None,
            begins_inside: false,
            gap_before: None,
        }
    }

    /// Directories are listed in any order.
    #[test]
    fn torn_heads_are_removed_with_what_is_behind_them() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), &"c".parse().unwrap(), Timestamp::UNIX_EPOCH).unwrap();
        let directory = spool.directory.join("id-1");
        make(&directory).unwrap();
        for n in 0..100 {
            std::fs::write(directory.join(format!("{n}.json")), "{\"cluster\":").unwrap();
            std::fs::write(directory.join(format!("{n}.binlog")), "bytes").unwrap();
            std::fs::write(directory.join(format!("{}.binlog", n + 1000)), "bytes").unwrap();
        }
        assert!(spool.waiting().unwrap().is_empty());
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_was_synced_is_found_again() {
        let root = tempfile::tempdir().unwrap();
        let (cluster, now) = ("c".parse().unwrap(), Timestamp::UNIX_EPOCH);
        let spool = Spool::open(root.path(), &cluster, now).unwrap();
        let e = Spool::open(root.path(), &cluster, now).unwrap_err();
        let who = format!("process {}, since 1970-01-01", std::process::id());
        assert!(e.kind() == ErrorKind::Busy && e.report().contains(&who), "{}", e.report());
        let mut draft = spool.begin(head(2)).unwrap();
        draft.add(b"hello").unwrap();
        draft.sync().await.unwrap();
        drop((draft, spool));
        let spool = Spool::open(root.path(), &cluster, now).unwrap();
        drop(spool.begin(head(1)).unwrap());
        let waiting = spool.waiting().unwrap();
        assert_eq!(waiting.iter().map(|w| w.head.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(waiting[1].content().unwrap(), "hello");
        assert_eq!(waiting[1].head, head(2));
        waiting[1].truncate(2).unwrap();
        assert_eq!(waiting[1].content().unwrap(), "he");
        waiting.iter().for_each(|w| w.remove().unwrap());
        assert!(spool.waiting().unwrap().is_empty());
    }
}
