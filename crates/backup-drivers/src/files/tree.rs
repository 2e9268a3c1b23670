//! What there is in a data directory, and what of it goes into a backup.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Result, io_error};
use jiff::Timestamp;

use super::catalog::{Entry, Kind, LeftOut};
use super::left_out::{
    FOR_PEOPLE, NO_TEXT, REPOSITORY, is_of_a_process, is_replication, is_repository, left_out,
    replication,
};
use super::names::Names;
use super::system::{self, System, SystemFile};
use crate::innodb::{Geometry, HEAD_BYTES};

/// Symbolic links may lead to a directory above; no data directory is as deep as this.
const DEPTH: usize = 16;
/// The list of pages that were in memory: a help to begin with, and no harm where it is an older one.
const WARM: &str = "ib_buffer_pool";

/// The tree of a data directory.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// What is backed up, parents before children.
    pub(crate) found: Vec<Found>,
    /// What is not.
    pub(crate) left_out: Vec<LeftOut>,
    /// Symbolic links to what is not there, with where they lead.
    pub(crate) dangling: Vec<(PathBuf, PathBuf)>,
    /// The system tablespace, if its first file is there.
    pub(super) system: Option<System>,
    /// The file systems that it is on, by the numbers of their devices.
    pub(crate) devices: BTreeSet<u64>,
}

/// A directory or a file that is backed up.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// What the catalog says of it.
    pub(crate) entry: Entry,
    /// Where it is.
    pub(crate) source: PathBuf,
    /// What it looked like.
    pub(crate) stamp: Stamp,
}

/// By what a file that was written to is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    bytes: u64,
    seconds: i64,
    nanoseconds: i64,
    inode: u64,
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Stamp {
            bytes: metadata.len(),
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec(),
            inode: metadata.ino(),
        }
    }
}

/// A directory whose files go into a place of the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    /// Where it is.
    pub(crate) directory: PathBuf,
    /// Where its files go, from the data directory; empty for the data directory itself.
    pub(crate) place: String,
    /// The only files that are taken, by the beginnings of their names, or by their endings (`.ibu`); all where
    /// it is empty.
    pub(crate) only: Vec<String>,
    /// Whether files of the system tablespace are taken beside these, whatever they are called.
    pub(crate) system: bool,
    /// The beginning of the names of files that are not taken: the server has those that it uses in another root.
    pub(crate) stale: Option<&'static str>,
    /// Whether it may be below another root, where its files are taken as well.
    pub(crate) below: bool,
    /// Logs for people, which a running server writes to whatever it is kept from.
    pub(crate) logs: Vec<PathBuf>,
}

impl Root {
    /// The data directory itself.
    pub(crate) fn datadir(directory: impl Into<PathBuf>) -> Self {
        Root {
            directory: directory.into(),
            place: String::new(),
            only: Vec::new(),
            system: false,
            stale: None,
            below: false,
            logs: Vec::new(),
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let message = format!("cannot read {}", path.display());
    move |e| io_error(e, ErrorKind::Source, message)
}

impl Tree {
    /// Looks through directories. Binary logs are left out unless `binlogs`.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] when one cannot be read, or two files would go to one place.
    pub(crate) fn walk(roots: &[Root], binlogs: bool) -> Result<Tree> {
        let mut walk =
            Walk { tree: Tree::default(), names: Names::load(), seen: HashSet::new(), binlogs };
        for root in roots {
            walk.directory(root, &root.directory, &root.place, 0)?;
        }
        let mut places = HashMap::new();
        let (mut again, mut left_out) = (HashSet::new(), Vec::new());
        for (n, found) in walk.tree.found.iter().enumerate() {
            let path = &found.entry.path;
            let Some(first) = places.insert(path.clone(), n).map(|n| &walk.tree.found[n]) else {
                continue;
            };
            if found.entry.kind == Kind::Directory && first.entry.kind == Kind::Directory {
                continue;
            }
            // A link or a text leads to what a directory that was named has, too.
            let real = |found: &Found| found.source.canonicalize().ok();
            if (found.stamp != first.stamp || real(found) != real(first)) && path != WARM {
                return Err(Error::new(
                    ErrorKind::Source,
                    format!("two files of the source would both be {path}"),
                ));
            }
            again.insert(n);
            if path == WARM && real(found) != real(first) {
                let reason = format!("{}: the other one is in the backup", found.source.display());
                left_out.push(LeftOut { path: path.clone(), reason });
            }
        }
        walk.tree.left_out.extend(left_out);
        let mut n = 0..;
        walk.tree.found.retain(|_| n.next().is_none_or(|n| !again.contains(&n)));
        walk.tree.find_system()?;
        Ok(walk.tree)
    }

    /// Finds the files of the system tablespace, and says in their entries what they are.
    fn find_system(&mut self) -> Result<()> {
        let top =
            |found: &&Found| found.entry.kind == Kind::File && !found.entry.path.contains('/');
        let file = |found: &Found| SystemFile {
            name: found.entry.path.clone(),
            source: found.source.clone(),
            bytes: found.entry.bytes,
        };
        self.system = System::among(self.found.iter().filter(top).map(file).collect())?;
        let Some(system) = &self.system else { return Ok(()) };
        for (n, file) in system.files.iter().enumerate() {
            let found = self.found.iter_mut().find(|found| found.entry.path == file.name);
            if let Some(Found { entry, .. }) = found {
                entry.page_size = Some(system.geometry.page_bytes);
                entry.space_id = (n == 0).then_some(0);
            }
        }
        Ok(())
    }

    /// Fails where a link leads to what is not there. What the server has behind it, a disk that is not mounted, would
    /// not be in the backup, and nothing else would tell of it.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] that names link and target.
    pub(crate) fn refuse_dangling(&self) -> Result<()> {
        let Some(((link, to), rest)) = self.dangling.split_first() else { return Ok(()) };
        let more = match rest.len() {
            0 => String::new(),
            more => format!(", and so are {more} more"),
        };
        Err(Error::new(
            ErrorKind::Source,
            format!(
                "{} is a symbolic link to {}, where there is nothing{more}: what the server has there would not be in the \
                 backup",
                link.display(),
                to.display()
            ),
        )
        .with_remedy("mount what is not there; or remove a link that nobody needs"))
    }

    /// The length of all files together, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.found.iter().map(|found| found.entry.bytes).sum()
    }

    /// Fails when anything came, went or was written to since.
    pub(crate) fn check_unchanged(&self, roots: &[Root], binlogs: bool) -> Result<()> {
        let now = Tree::walk(roots, binlogs)?;
        let stamps = |tree: &Tree| -> std::collections::BTreeMap<String, Stamp> {
            let files = tree.found.iter().filter(|found| found.entry.kind == Kind::File);
            files.map(|found| (found.entry.path.clone(), found.stamp)).collect()
        };
        let (before, now) = (stamps(self), stamps(&now));
        let come = now.iter().find(|(path, stamp)| before.get(*path) != Some(*stamp));
        let gone = before.keys().find(|path| !now.contains_key(*path));
        match come.map(|(path, _)| path).or(gone) {
            None => Ok(()),
            Some(path) => Err(changed(path)),
        }
    }
}

/// A file did not stand still.
pub(crate) fn changed(path: &str) -> Error {
    Error::new(ErrorKind::Source, format!("{path} was changed while it was being copied"))
        .with_remedy("make sure that no server and no other program writes to the directory")
}

struct Walk {
    tree: Tree,
    names: Names,
    /// Directories, by device and inode.
    seen: HashSet<(u64, u64)>,
    binlogs: bool,
}

impl Walk {
    fn directory(&mut self, root: &Root, path: &Path, place: &str, depth: usize) -> Result<()> {
        let metadata = std::fs::metadata(path).map_err(failed(path))?;
        let new = self.seen.insert((metadata.dev(), metadata.ino()));
        let twice = root.below && depth == 0;
        if !(new || twice) || depth > DEPTH {
            return Err(Error::new(
                ErrorKind::Source,
                format!("{} is reached in two ways: a symbolic link leads back", path.display()),
            )
            .with_remedy("remove the link, or name the directory itself as the source"));
        }
        self.tree.devices.insert(metadata.dev());
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed(path))? {
            names.push(entry.map_err(failed(path))?.file_name());
        }
        names.sort();
        for name in names {
            let source = path.join(&name);
            let Some(name) = name.to_str() else {
                // Servers write ASCII only.
                let within = if place.is_empty() { String::new() } else { format!("{place}/") };
                self.leave_out(&format!("{within}{}", name.display()), NO_TEXT);
                continue;
            };
            let place = if place.is_empty() { name.to_owned() } else { format!("{place}/{name}") };
            if depth == 0 && root.stale.is_some_and(|stale| name.starts_with(stale)) {
                self.leave_out(&place, "not in use: the server has those of another directory");
                continue;
            }
            let wanted = |part: &String| match part.starts_with('.') {
                true => name.ends_with(part.as_str()),
                false => name.starts_with(part.as_str()),
            };
            if depth == 0 && !root.only.is_empty() && !root.only.iter().any(wanted) {
                let file = || std::fs::metadata(&source).ok().filter(Metadata::is_file);
                let is_part = |file: Metadata| system::is_part(&source, name, file.len());
                if !root.system || !file().is_some_and(is_part) {
                    continue;
                }
            }
            self.entry(root, &source, &place, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, root: &Root, source: &Path, place: &str, depth: usize) -> Result<()> {
        let link = match std::fs::symlink_metadata(source) {
            Ok(metadata) => metadata.is_symlink(),
            // A running server drops tables. Where nothing may change, that is seen afterwards.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(failed(source)(e)),
        };
        let metadata = match std::fs::metadata(source) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                if link {
                    self.leave_out(place, "a symbolic link that leads nowhere");
                    if !is_of_a_process(place) {
                        let to = std::fs::read_link(source).map_err(failed(source))?;
                        self.tree.dangling.push((source.to_owned(), to));
                    }
                }
                return Ok(());
            }
            Err(e) => return Err(failed(source)(e)),
        };
        let is_log = |log: &PathBuf| {
            let log = std::fs::metadata(log);
            log.is_ok_and(|log| (log.dev(), log.ino()) == (metadata.dev(), metadata.ino()))
        };
        let may_be_log = metadata.is_file() && !is_tablespace(place);
        if may_be_log && root.logs.iter().any(is_log) {
            self.leave_out(place, FOR_PEOPLE);
            return Ok(());
        }
        if metadata.is_file() && is_replication(place) {
            self.leave_out(place, &replication(source, place));
            return Ok(());
        }
        if let Some(reason) = left_out(source, place, &metadata, self.binlogs) {
            self.leave_out(place, reason);
            return Ok(());
        }
        if metadata.is_dir() && is_repository(source) {
            self.leave_out(place, REPOSITORY);
            return Ok(());
        }
        let origin = match link {
            true => Some(std::fs::canonicalize(source).map_err(failed(source))?),
            false => None,
        };
        if let Some(isl) = place.strip_suffix(".isl") {
            // A text file beside the definition says where the tablespace is.
            let text = std::fs::read_to_string(source).map_err(failed(source))?;
            let elsewhere = PathBuf::from(text.trim_end());
            let metadata = std::fs::metadata(&elsewhere).map_err(failed(&elsewhere))?;
            self.add(&format!("{isl}.ibd"), elsewhere.clone(), &metadata, Some(elsewhere))?;
            self.leave_out(place, "the tablespace that it names is in the backup in its place");
            return Ok(());
        }
        self.add(place, source.to_owned(), &metadata, origin)?;
        match metadata.is_dir() {
            true => self.directory(root, source, place, depth + 1),
            false => Ok(()),
        }
    }

    fn add(
        &mut self,
        place: &str,
        source: PathBuf,
        metadata: &Metadata,
        origin: Option<PathBuf>,
    ) -> Result<()> {
        let directory = metadata.is_dir();
        let mut tablespace = None;
        if !directory && is_tablespace(place) {
            tablespace = match header(&source) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                read => read.map_err(failed(&source))?,
            };
        }
        self.tree.devices.insert(metadata.dev());
        let modified =
            Timestamp::new(metadata.mtime(), i32::try_from(metadata.mtime_nsec()).unwrap_or(0));
        let entry = Entry {
            path: place.to_owned(),
            kind: if directory { Kind::Directory } else { Kind::File },
            bytes: if directory { 0 } else { metadata.len() },
            page_size: tablespace.map(|(_, size)| size),
            space_id: tablespace.map(|(space, _)| space),
            sparse: !directory && metadata.blocks() * 512 < metadata.len(),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            owner: self.names.user(metadata.uid()),
            group: self.names.group(metadata.gid()),
            modified: modified.unwrap_or(Timestamp::UNIX_EPOCH),
            origin: origin.map(|path| path.to_string_lossy().into_owned()),
            stored_as: None,
            changes: false,
        };
        self.tree.found.push(Found { entry, source, stamp: Stamp::of(metadata) });
        Ok(())
    }

    fn leave_out(&mut self, path: &str, reason: &str) {
        self.tree.left_out.push(LeftOut { path: path.to_owned(), reason: reason.to_owned() });
    }
}

/// Whether a file is made of InnoDB pages, by its name.
fn is_tablespace(place: &str) -> bool {
    let name = place.rsplit('/').next().unwrap_or(place);
    let numbered = |prefix: &str| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    name.ends_with(".ibd")
        || name.ends_with(".ibu")
        || numbered("ibdata")
        || numbered("undo_")
        || numbered("undo")
}

/// Number and page size of the tablespace that a file begins; `None` where it begins none.
pub(super) fn header(path: &Path) -> std::io::Result<Option<(u32, u32)>> {
    let file = File::open(path)?;
    let mut head = [0; HEAD_BYTES];
    match file.read_exact_at(&mut head, 0) {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    Ok(Geometry::read(&head).map(|geometry| (geometry.space, geometry.page_bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_makes_anew_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["shop", "#innodb_temp", "lost+found", "#innodb_redo"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        for name in [
            "ibdata1",
            "ibtmp1",
            "host.err",
            "host.pid",
            "tc.log",
            "aria_log.00000001",
            "core.123",
            "multi-master.info",
            "master.info",
            "master-far.info",
            "relay-log-far.info",
            "masters.info",
            "shop/master.info",
            "shop/t.000001",
            "#innodb_redo/#ib_redo7",
            "#innodb_redo/#ib_redo8_tmp",
        ] {
            std::fs::write(at(name), name).unwrap();
        }
        std::fs::write(at("relay-log.info"), "5\n./relay.000002\n555\nbinlog.000007\n4711\n0\n")
            .unwrap();
        std::fs::write(at("binlog.000001"), b"\xfebin rest").unwrap();
        std::fs::write(at("binlog.index"), "./binlog.000001\n").unwrap();
        std::fs::write(at("t.000001"), "no binlog").unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", at("dangling")).unwrap();
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("u.MYD"), "rows").unwrap();
        std::os::unix::fs::symlink(other.path(), at("elsewhere")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("my.sock")).unwrap();

        let tree = Tree::walk(&[Root::datadir(dir.path())], false).unwrap();
        let paths: Vec<&str> = tree.found.iter().map(|f| f.entry.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "#innodb_redo",
                "#innodb_redo/#ib_redo7",
                "aria_log.00000001",
                "elsewhere",
                "elsewhere/u.MYD",
                "ibdata1",
                "masters.info",
                "shop",
                "shop/master.info",
                "shop/t.000001",
                "t.000001",
                "tc.log",
            ]
        );
        assert_eq!(tree.left_out.len(), 16, "{:?}", tree.left_out);
        assert!(tree.found[3].entry.origin.is_some());
        let refused = tree.refuse_dangling().unwrap_err().report();
        assert!(refused.contains("dangling is a symbolic link to /nowhere/at/all"), "{refused}");
        std::os::unix::fs::symlink("/nowhere/mysql.sock", at("mysql.sock")).unwrap();
        std::fs::remove_file(at("dangling")).unwrap();
        let logs = vec![at("t.000001"), at("ibdata1"), at("not there")];
        let root = Root { logs, ..Root::datadir(dir.path()) };
        let without = Tree::walk(&[root], false).unwrap();
        without.refuse_dangling().unwrap();
        let has = |path: &str| without.found.iter().any(|found| found.entry.path == path);
        assert!(!has("t.000001") && has("ibdata1") && has("shop/t.000001"));
        let applier = tree.left_out.iter().find(|left| left.path == "relay-log.info").unwrap();
        assert!(applier.reason.ends_with("up to binlog.000007:4711"), "{applier:?}");

        let roots = [Root::datadir(dir.path())];
        tree.check_unchanged(&roots, false).unwrap();
        std::fs::write(at("shop/new"), "").unwrap();
        assert_eq!(tree.check_unchanged(&roots, false).unwrap_err().kind(), ErrorKind::Source);
    }

    #[test]
    fn a_link_that_leads_back_is_an_error_and_not_an_endless_walk() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("again")).unwrap();
        let e = Tree::walk(&[Root::datadir(dir.path())], false).unwrap_err();
        assert!(e.report().contains("leads back"), "{}", e.report());
    }
}
