//! The data directory of a server, and what of it is elsewhere.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use backup_core::{Error, Result};
use url::Url;

use super::tree::Root;

/// How the logs of Aria are called, and the file that tells of them.
const ARIA: &str = "aria_log";

/// Where the files of a server are: `file:///var/lib/mysql`, with the directories of those that are
/// not below it behind a `?`.
///
/// ```
/// use backup_drivers::files::DataDirectory;
/// let source: DataDirectory = "file:///var/lib/mysql?redo=/fast/redo&also=/big/archive".parse()?;
/// assert_eq!(source.redo.as_deref(), Some("/fast/redo".as_ref()));
/// assert_eq!(source.to_string(), "file:///var/lib/mysql");
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataDirectory {
    /// `datadir`.
    pub path: PathBuf,
    /// `innodb_log_group_home_dir`: the redo log.
    pub redo: Option<PathBuf>,
    /// `innodb_undo_directory`: undo tablespaces.
    pub undo: Option<PathBuf>,
    /// `innodb_data_home_dir`: the system tablespace.
    pub data: Option<PathBuf>,
    /// `aria_log_dir_path`: the logs of Aria, which its tables belong to (MariaDB).
    pub aria: Option<PathBuf>,
    /// Where the binary logs are; they are read for the position, not copied.
    pub binlogs: Option<PathBuf>,
    /// Directories of other tablespaces (`DATA DIRECTORY`, general tablespaces): what is below them
    /// goes into the data directory.
    pub also: Vec<PathBuf>,
    /// Logs for people, as a running server calls them: they are left out, wherever they are below it.
    pub logs: Vec<PathBuf>,
}

impl DataDirectory {
    /// A server whose files are all in one directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        DataDirectory { path: path.into(), ..DataDirectory::default() }
    }

    /// What is copied, and where it goes.
    pub(crate) fn roots(&self) -> Vec<Root> {
        let aria = self.aria.as_ref().filter(|at| !self.holds(at));
        // Those that were made before it was set would go where the ones in use go.
        let stale = aria.map(|_| ARIA);
        let logs = self.logs.clone();
        let mut roots = vec![Root { stale, logs, ..Root::datadir(&self.path) }];
        let mut add = |directory: &Option<PathBuf>, only: &[&str], system: bool| {
            if let Some(directory) = directory.as_ref().filter(|at| !self.holds(at)) {
                let only = only.iter().map(|&start| start.to_owned()).collect();
                roots.push(Root { only, system, ..Root::datadir(directory) });
            }
        };
        add(&self.redo, &["#innodb_redo", "ib_logfile"], false);
        add(&self.undo, &["undo", ".ibu"], false);
        add(&self.data, &["ibdata", "#ib_", "ib_buffer_pool"], true);
        for directory in &self.also {
            add(&Some(directory.clone()), &[], false);
        }
        if let Some(directory) = aria {
            let only = vec![ARIA.to_owned()];
            roots.push(Root { only, below: true, ..Root::datadir(directory) });
        }
        roots
    }

    /// The directory of the redo log.
    pub(super) fn redo(&self) -> &Path {
        self.redo.as_deref().unwrap_or(&self.path)
    }

    /// The directory of the system tablespace.
    pub(super) fn data(&self) -> &Path {
        self.data.as_deref().unwrap_or(&self.path)
    }

    /// Whether a directory is the data directory itself.
    fn holds(&self, directory: &Path) -> bool {
        match (directory.canonicalize(), self.path.canonicalize()) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        }
    }
}

impl FromStr for DataDirectory {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |problem: String| {
            Error::usage(problem).with_remedy(
                "write file:///var/lib/mysql, with ?redo=/DIR&undo=/DIR&data=/DIR&aria=/DIR&binlogs=/DIR&also=/DIR \
                 for what is elsewhere",
            )
        };
        let url = Url::parse(text)
            .map_err(|e| wrong(format!("`{text}` is no data directory")).with_source(e))?;
        if url.scheme() != "file" || !matches!(url.host_str(), None | Some("localhost")) {
            return Err(wrong(format!("`{text}` is no directory of this machine")));
        }
        let path =
            url.to_file_path().map_err(|()| wrong(format!("`{text}` is no absolute path")))?;
        let mut source = DataDirectory::new(path);
        for (name, value) in url.query_pairs() {
            let value = PathBuf::from(value.into_owned());
            if !value.is_absolute() {
                return Err(wrong(format!("`{name}` in `{text}` is no absolute path")));
            }
            match &*name {
                "redo" => source.redo = Some(value),
                "undo" => source.undo = Some(value),
                "data" => source.data = Some(value),
                "aria" => source.aria = Some(value),
                "binlogs" => source.binlogs = Some(value),
                "also" => source.also.push(value),
                _ => return Err(wrong(format!("`{name}` in `{text}` is not known"))),
            }
        }
        Ok(source)
    }
}

impl std::fmt::Display for DataDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "file://{}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_this_machine_and_nothing_else() {
        for bad in [
            "file://db1/var/lib/mysql",
            "mysql://localhost/",
            "/var/lib/mysql",
            "file:///var/lib/mysql?redo=here",
            "file:///var/lib/mysql?red=/x",
        ] {
            let e = bad.parse::<DataDirectory>().unwrap_err();
            assert_eq!(e.kind(), backup_core::ErrorKind::Usage, "{bad}");
        }
        let source: DataDirectory =
            "file:///a%20b?data=/d&undo=/u&aria=/l&also=/x&also=/y".parse().unwrap();
        assert_eq!(source.path, Path::new("/a b"));
        assert_eq!(source.roots().len(), 6);
        assert_eq!((source.redo(), source.data()), (Path::new("/a b"), Path::new("/d")));
    }
}
