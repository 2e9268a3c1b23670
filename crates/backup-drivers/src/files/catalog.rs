//! The catalog of a file-level backup: what there was in the data directory, and what a server needs
//! to know to start on it.
//!
//! It is stored as the artifact [`CATALOG`], one JSON document a line: first a [`Header`], then one
//! [`Entry`] for each directory and file, parents before children, and last the number of entries.
//! `docs/format-files.md` describes it.

use std::collections::BTreeMap;

use backup_core::{ArtifactName, ArtifactSink, ArtifactSource, Error, Layout, Result};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::changes::CHANGES;

/// The artifact that holds the catalog.
pub const CATALOG: &str = "physical/catalog";

/// The format that this version writes; a higher one is refused.
pub const CATALOG_FORMAT: u32 = 1;

/// The first component of the names of files.
const FILES: &str = "files";

/// The longest catalog that is read, in bytes: some millions of files.
const MAX_BYTES: usize = 2 << 30;

/// What a file-level backup holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalog {
    /// About all of it.
    pub header: Header,
    /// Directories and files, parents before children.
    pub entries: Vec<Entry>,
}

/// What is said of the whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`CATALOG_FORMAT`].
    pub files_format: u32,
    /// What a server has to do with the files first.
    pub state: State,
    /// What a server needs to be told, to start on them.
    #[serde(default)]
    pub settings: Settings,
    /// What was in the data directory and is not in the backup, with the reason: temporary
    /// tablespaces, logs, sockets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
}

/// What must happen to restored files before they can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing: the server was shut down in order.
    Clean,
    /// They are of one moment of a running server: it recovers from its own redo log when it starts.
    Crashed,
    /// They are of several moments: the tool that read them must prepare them first.
    Unprepared,
}

/// Settings of the source that shape its files. What a stopped server does not tell is `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// `innodb_page_size`, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// `lower_case_table_names`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower_case_table_names: Option<u8>,
    /// Other variables by name, for the `my.cnf` of a server that is to start on the files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// Plugins that are loaded from libraries: `name` or `name=library`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<String>,
    /// Files and plugins that hold or fetch the keys of encrypted tablespaces. The keys themselves
    /// are not in the backup unless they are in the data directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keyring: Vec<String>,
    /// Lines of an option file: the plugin that has the keys of encrypted tablespaces, and its settings (MariaDB).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_plugin: Vec<String>,
    /// Tablespaces are encrypted, and their keys stand in the files under the key that is built into
    /// every MySQL. A server with a keyring, even an empty one, takes them over when it starts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keys_in_files: bool,
}

/// Something that is not in the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its path, from the data directory.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// A directory or a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it goes, from the data directory; components separated by `/`, none of them `.` or `..`.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes; 0 for a directory.
    #[serde(default)]
    pub bytes: u64,
    /// The size of its pages, where it is a tablespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// The number of its tablespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space_id: Option<u32>,
    /// Whether it had holes: runs of zeros that took no room.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sparse: bool,
    /// Permission bits.
    pub mode: u32,
    /// Number of its owner.
    pub uid: u32,
    /// Number of its group.
    pub gid: u32,
    /// Name of its owner, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Name of its group, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// When it was last changed.
    pub modified: Timestamp,
    /// Where it was, if that is not `path` in the data directory: the end of a symbolic link, or a
    /// tablespace that has a directory of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The path by which its artifacts are called, where that is not `path`: it was renamed while it was
    /// read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_as: Option<String>,
    /// Whether an artifact of changes has to be written over it. The file's own artifact may then be
    /// shorter than the file; what is missing are zeros.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changes: bool,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file.
    File,
}

/// The last line: a catalog without it was cut.
#[derive(Serialize, Deserialize)]
struct End {
    entries: u64,
}

impl Entry {
    /// The artifact that holds a file.
    ///
    /// # Errors
    /// When the path is longer than a name can be.
    pub fn artifact(&self) -> Result<ArtifactName> {
        self.named(FILES)
    }

    /// The artifact of what has to be written over it, if there is something.
    pub(crate) fn changes_artifact(&self) -> Result<Option<ArtifactName>> {
        self.changes.then(|| self.named(CHANGES)).transpose()
    }

    fn named(&self, kind: &str) -> Result<ArtifactName> {
        let stored = self.stored_as.as_deref().unwrap_or(&self.path);
        ArtifactName::from_parts(std::iter::once(kind).chain(stored.split('/')))
    }

    /// How the repository cuts it.
    #[must_use]
    pub fn layout(&self) -> Layout {
        match self.page_size {
            Some(size) if size.is_power_of_two() && (512..=65_536).contains(&size) => {
                Layout::Pages(size)
            }
            _ => Layout::Stream,
        }
    }

    /// Whether the path stays in the directory that it is joined to.
    fn is_inside(&self) -> bool {
        !self.path.contains('\0')
            && self.path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
    }
}

impl Catalog {
    /// Stores the catalog.
    ///
    /// # Errors
    /// What the sink fails with.
    pub async fn write(&self, sink: &dyn ArtifactSink) -> Result<()> {
        let mut writer = sink.create(CATALOG.parse()?, Layout::Stream).await?;
        writer.write(line(&self.header)?).await?;
        for entry in &self.entries {
            writer.write(line(entry)?).await?;
        }
        writer.write(line(&End { entries: self.entries.len() as u64 })?).await?;
        writer.finish(serde_json::Value::Null).await.map(drop)
    }

    /// As [`parse`](Self::parse) takes it.
    ///
    /// # Errors
    /// An internal error, should it be no JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = line(&self.header)?.to_vec();
        for entry in &self.entries {
            bytes.extend_from_slice(&line(entry)?);
        }
        bytes.extend_from_slice(&line(&End { entries: self.entries.len() as u64 })?);
        Ok(bytes)
    }

    /// Reads the catalog of a backup.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when there is none, or it is not what
    /// this version understands.
    pub async fn read(artifacts: &dyn ArtifactSource) -> Result<Self> {
        Catalog::parse(&artifacts.read(&CATALOG.parse()?, MAX_BYTES).await?)
    }

    /// Understands the bytes of a catalog.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when they are none, or a path leads out
    /// of the data directory.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |number: usize, problem: &dyn std::fmt::Display| {
            Error::damaged(format!("line {number} of {CATALOG}: {problem}"))
        };
        let mut lines = bytes.split(|&byte| byte == b'\n').enumerate();
        let (_, first) = lines.next().unwrap_or_default();
        let header: Header = serde_json::from_slice(first).map_err(|e| bad(1, &e))?;
        if header.files_format > CATALOG_FORMAT {
            return Err(bad(1, &format!("format {} is of a later version", header.files_format))
                .with_remedy("use the version of holdfast that took the backup, or a later one"));
        }
        let mut entries: Vec<Entry> = Vec::new();
        for (at, text) in lines {
            if let Ok(End { entries: count }) = serde_json::from_slice(text) {
                return match count == entries.len() as u64 {
                    true => Ok(Catalog { header, entries }),
                    false => Err(bad(at + 1, &format!("there are {} entries", entries.len()))),
                };
            }
            let entry: Entry = serde_json::from_slice(text).map_err(|e| bad(at + 1, &e))?;
            if !entry.is_inside() {
                let shown = entry.path.escape_debug();
                return Err(bad(at + 1, &format!("`{shown}` leads out of the data directory")));
            }
            entries.push(entry);
        }
        Err(Error::damaged(format!("{CATALOG} ends too early")))
    }

    /// The files, without directories.
    pub fn files(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.kind == Kind::File)
    }
}

fn line(value: &impl Serialize) -> Result<Bytes> {
    let mut text = serde_json::to_vec(value)
        .map_err(|e| Error::internal("the catalog cannot be written as JSON").with_source(e))?;
    text.push(b'\n');
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(path: &str) -> Entry {
        Entry {
            path: path.to_owned(),
            kind: Kind::File,
            bytes: 1,
            page_size: Some(16_384),
            space_id: Some(7),
            sparse: false,
            mode: 0o640,
            uid: 0,
            gid: 0,
            owner: None,
            group: None,
            modified: Timestamp::UNIX_EPOCH,
            origin: None,
            stored_as: None,
            changes: false,
        }
    }

    fn text(paths: &[&str]) -> Vec<u8> {
        let header = Header {
            files_format: CATALOG_FORMAT,
            state: State::Clean,
            settings: Settings::default(),
            left_out: Vec::new(),
        };
        let mut text = line(&header).unwrap().to_vec();
        for path in paths {
            text.extend(line(&entry(path)).unwrap());
        }
        text.extend(line(&End { entries: paths.len() as u64 }).unwrap());
        text
    }

    #[test]
    fn a_catalog_that_was_cut_anywhere_is_refused() {
        let whole = text(&["ibdata1", "shop/orders#p#p0.ibd"]);
        let catalog = Catalog::parse(&whole).unwrap();
        assert_eq!(catalog.entries[1].artifact().unwrap().parts()[2], "orders#p#p0.ibd");
        assert_eq!(catalog.entries[0].layout(), Layout::Pages(16_384));
        for end in 0..whole.len() - 1 {
            assert!(Catalog::parse(&whole[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn no_path_leads_out_of_the_directory() {
        for path in ["/etc/passwd", "../x", "a/../../x", "a//b", "", ".", "a/", "a\0b"] {
            let e = Catalog::parse(&text(&[path])).unwrap_err();
            assert!(e.report().contains("leads out"), "{path:?}: {}", e.report());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Catalog::parse(&bytes).is_err());
        }
    }
}
