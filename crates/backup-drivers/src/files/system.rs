//! The files of InnoDB's system tablespace, whatever they are called.
//!
//! The first begins with the header of tablespace 0. Those behind it begin in the middle of it: the numbers of their
//! pages go on where those of the file before end, and nothing else tells of them. Which they are, in which order, and
//! how long each is, a server has to be told (`innodb_data_file_path`), and does not start when it is told wrong.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Result, io_error};

use crate::innodb::{self, Geometry, HEAD_BYTES};

/// Servers make these files in whole mebibytes.
const STEP: u64 = 1 << 20;
/// The one that a server makes where it is told nothing, in bytes; it is never shorter.
const DEFAULT: (&str, u64) = ("ibdata1", 12 << 20);
/// How names of other files begin and end that are of whole pages.
const OTHERS: [&str; 8] =
    ["ib_logfile", "ib_buffer_pool", "#ib_", "aria_log", "undo", "ibtmp", "mysql-bin.", "binlog."];
const OTHER_ENDINGS: [&str; 4] = [".ibd", ".ibu", ".ibt", ".dblwr"];

/// What a file is of the system tablespace.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    First(Geometry),
    /// It begins with the page of this number.
    Later(u32),
    /// Nothing was written to its first page yet: it may be a later one.
    Unused,
}

/// A file of the system tablespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SystemFile {
    /// Its name.
    pub(super) name: String,
    /// Where it is.
    pub(super) source: PathBuf,
    /// Its length.
    pub(super) bytes: u64,
}

impl SystemFile {
    fn part(&self) -> io::Result<Option<Part>> {
        let name = &*self.name;
        let other = OTHERS.iter().any(|start| name.starts_with(start))
            || OTHER_ENDINGS.iter().any(|ending| name.ends_with(ending));
        if other {
            return Ok(None);
        }
        let mut head = [0; HEAD_BYTES];
        match File::open(&self.source).and_then(|file| file.read_exact_at(&mut head, 0)) {
            Ok(()) => {}
            // A running server takes files away.
            Err(e)
                if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(e),
        }
        Ok(part(&head, self.bytes))
    }
}

fn part(head: &[u8; HEAD_BYTES], bytes: u64) -> Option<Part> {
    if let Some(geometry) = Geometry::read(head) {
        return (geometry.space == 0).then_some(Part::First(geometry));
    }
    if bytes == 0 || !bytes.is_multiple_of(STEP) {
        return None;
    }
    if head.iter().all(|&byte| byte == 0) {
        return Some(Part::Unused);
    }
    match innodb::numbers(head) {
        (0, _) => None,
        (number, space) => (space == 0).then_some(Part::Later(number)),
    }
}

/// The system tablespace, as far as its files are there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct System {
    /// What its first page says.
    pub(super) geometry: Geometry,
    /// Its files in order, up to where one is missing.
    pub(super) files: Vec<SystemFile>,
}

impl System {
    /// Looks for it among files.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] when one cannot be read.
    pub(super) fn among(mut files: Vec<SystemFile>) -> Result<Option<System>> {
        // A copy that somebody made has another name.
        files.sort_by_key(|file| {
            (!file.name.starts_with("ibdata"), file.name.len(), file.name.clone())
        });
        let mut parts = Vec::new();
        for file in files {
            let read = file.part().map_err(|e| {
                io_error(e, ErrorKind::Source, format!("cannot read {}", file.source.display()))
            })?;
            parts.extend(read.map(|part| (part, file)));
        }
        let first = parts.iter().position(|(part, _)| matches!(part, Part::First(_)));
        let Some((Part::First(geometry), first)) = first.map(|n| parts.remove(n)) else {
            return Ok(None);
        };
        let mut system = System { geometry, files: vec![first] };
        loop {
            let pages = system.bytes() / u64::from(geometry.page_bytes);
            let goes_on = parts.iter().position(|(part, _)| match part {
                Part::Later(number) => u64::from(*number) == pages,
                Part::First(_) | Part::Unused => false,
            });
            let unused = || {
                let wanted = system.missing() > 0;
                parts.iter().position(|(part, _)| wanted && *part == Part::Unused)
            };
            match goes_on.or_else(unused) {
                Some(n) => system.files.push(parts.remove(n).1),
                None => return Ok(Some(system)),
            }
        }
    }

    /// Looks for it in directories, not below them.
    ///
    /// # Errors
    /// As [`among`](Self::among). A directory that cannot be read has none.
    pub(super) fn within<'a>(
        directories: impl IntoIterator<Item = &'a Path>,
    ) -> Result<Option<System>> {
        let files = directories.into_iter().flat_map(files_in).collect();
        System::among(files)
    }

    /// The length of its files together.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// How long it should be, as its header says.
    pub(super) fn wanted(&self) -> u64 {
        u64::from(self.geometry.pages) * u64::from(self.geometry.page_bytes)
    }

    /// How much of it is in no file.
    pub(super) fn missing(&self) -> u64 {
        self.wanted().saturating_sub(self.bytes())
    }

    /// What a server that starts on the files has to be told (`innodb_data_file_path`); `None` where they are what it
    /// expects by itself.
    pub(super) fn data_file_path(&self) -> Option<String> {
        if let [only] = &self.files[..]
            && only.name == DEFAULT.0
            && only.bytes >= DEFAULT.1
        {
            return None;
        }
        let files = self.files.iter().map(|file| format!("{}:{}M", file.name, file.bytes / STEP));
        // The last may grow, whether it was to or not.
        Some(format!("{}:autoextend", files.collect::<Vec<_>>().join(";")))
    }
}

/// Whether a file is of a system tablespace, or may be.
pub(super) fn is_part(path: &Path, name: &str, bytes: u64) -> bool {
    let file = SystemFile { name: name.to_owned(), source: path.to_owned(), bytes };
    matches!(file.part(), Ok(Some(_)))
}

/// The plain files in a directory.
fn files_in(directory: &Path) -> Vec<SystemFile> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let file = |entry: std::fs::DirEntry| {
        let source = entry.path();
        // What a link leads to is as good.
        let metadata = source.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let name = entry.file_name().into_string().ok()?;
        Some(SystemFile { name, source, bytes: metadata.len() })
    };
    entries.filter_map(file).collect()
}

/// The error where there is no system tablespace.
pub(super) fn none_in(directory: &Path) -> Error {
    let usual = directory.join(DEFAULT.0);
    if usual.is_file() {
        return Error::new(
            ErrorKind::Source,
            format!(
                "{} does not begin as a system tablespace does: its first page is damaged",
                usual.display()
            ),
        )
        .with_remedy("no server starts on it: restore an earlier backup");
    }
    Error::new(
        ErrorKind::Source,
        format!("the system tablespace is not in {} (innodb_data_home_dir)", directory.display()),
    )
    .with_remedy("name the directory that it is in: file:///var/lib/mysql?data=/DIR")
}

/// The value of `innodb_data_file_path` of a server that has all of these files in its data directory.
pub(crate) fn in_one_directory(data_file_path: &str) -> String {
    let file = |file: &str| {
        let (name, size) = file.split_once(':').unwrap_or((file, ""));
        let name = name.trim().rsplit('/').next().unwrap_or(name);
        if size.is_empty() { name.to_owned() } else { format!("{name}:{size}") }
    };
    data_file_path.split(';').map(file).collect::<Vec<_>>().join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 16_384;

    /// A file of so many mebibytes that begins with a page of this number.
    fn file(directory: &Path, name: &str, mebibytes: u64, number: Option<u32>, pages: u32) {
        let mut page = vec![0; PAGE];
        if let Some(number) = number {
            page[..4].fill(7);
            page[4..8].copy_from_slice(&number.to_be_bytes());
            page[24..26].copy_from_slice(&[0, if number == 0 { 8 } else { 2 }]);
            page[46..50].copy_from_slice(&pages.to_be_bytes());
        }
        let path = directory.join(name);
        std::fs::write(&path, page).unwrap();
        File::options().write(true).open(path).unwrap().set_len(mebibytes << 20).unwrap();
    }

    fn names(system: &System) -> Vec<&str> {
        system.files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn files_are_found_by_what_is_in_them_and_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        // Neither begins a tablespace, though there are zeros where the numbers would be.
        std::fs::write(at.join("ib_logfile0"), vec![0; 1 << 20]).unwrap();
        std::fs::write(at.join("zeros"), vec![0; 1 << 20]).unwrap();
        assert_eq!(System::within([at]).unwrap(), None);
        file(at, "mysys", 1, Some(0), 6 * 64);
        file(at, "b", 2, Some(64), 0);
        file(at, "a", 3, Some(3 * 64), 0);
        file(at, "stranger", 1, Some(7), 0);
        let system = System::within([at]).unwrap().unwrap();
        assert_eq!((names(&system), system.missing()), (vec!["mysys", "b", "a"], 0));
        let path = "mysys:1M;b:2M;a:3M:autoextend";
        assert_eq!(system.data_file_path().as_deref(), Some(path));

        // One of them is gone; one was never written to.
        std::fs::remove_file(at.join("b")).unwrap();
        std::fs::remove_file(at.join("zeros")).unwrap();
        let system = System::within([at]).unwrap().unwrap();
        assert_eq!((names(&system), system.missing()), (vec!["mysys"], 5 << 20));
        file(at, "c", 2, None, 0);
        let system = System::within([at]).unwrap().unwrap();
        assert_eq!((names(&system), system.missing()), (vec!["mysys", "c", "a"], 0));
    }

    #[test]
    fn a_server_is_told_nothing_that_it_expects() {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path(), "ibdata1", 76, Some(0), 76 * 64);
        file(dir.path(), "copy", 76, Some(0), 76 * 64);
        let system = System::within([dir.path()]).unwrap().unwrap();
        assert_eq!((names(&system), system.data_file_path()), (vec!["ibdata1"], None));
    }

    #[test]
    fn a_setting_of_files_that_were_elsewhere() {
        assert_eq!(in_one_directory("ibdata1:12M:autoextend"), "ibdata1:12M:autoextend");
        assert_eq!(
            in_one_directory("/s/a:12M;/t/b:1G:autoextend:max:5G"),
            "a:12M;b:1G:autoextend:max:5G"
        );
    }
}
