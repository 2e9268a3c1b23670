//! The configuration file: what would otherwise be typed every time.
//!
//! ```toml
//! repo = "/backup/holdfast"
//! copies = ["/mnt/usb/holdfast"]          # every backup should be there too
//! cluster = "shop"
//! source = "mysql://backup@db1/?ssl-mode=verify-identity"
//! key-file = "/etc/holdfast/backup.key"     # or passphrase-file
//!
//! [defaults]
//! defaults-file = "/etc/holdfast/my.cnf"   # where the source's password is
//! threads = 4
//! memory = "512MiB"
//! compression = "zstd:3"
//! throttle = "threads-running=30"          # of logical backups
//! progress = "lines"
//!
//! [retention]
//! keep-last = 3
//! keep-daily = 14
//! keep-weekly = 8
//! keep-monthly = 12
//! ```

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use backup_core::{ClusterName, Error, ErrorKind, Result, io_error};
use backup_storage::RepoUrl;
use serde::Deserialize;

use crate::args::Threads;

/// The longest configuration file, in bytes.
const LONGEST: u64 = 1 << 20;

/// What the file says; the command line wins over it.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The repository's URL.
    pub(crate) repo: Option<String>,
    /// The cluster, where a command needs one.
    pub(crate) cluster: Option<ClusterName>,
    /// Other places that are to have every backup: `holdfast copy` writes them, and reads fall back
    /// to those that are copies of the repository.
    pub(crate) copies: Vec<String>,
    /// The source's URL.
    pub(crate) source: Option<String>,
    /// `--passphrase-file`.
    #[serde(rename = "passphrase-file")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// `--key-file`.
    #[serde(rename = "key-file")]
    pub(crate) key_file: Option<PathBuf>,
    /// Values for other flags.
    pub(crate) defaults: Defaults,
    /// Values for the flags of `prune`.
    pub(crate) retention: Retention,
}

/// Values for flags that are not given.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Defaults {
    /// `--defaults-file` for the source.
    pub(crate) defaults_file: Option<PathBuf>,
    /// `--threads`.
    pub(crate) threads: Option<Threads>,
    /// `--memory`.
    pub(crate) memory: Option<String>,
    /// `--compression`.
    pub(crate) compression: Option<String>,
    /// `--throttle` of a logical backup.
    pub(crate) throttle: Option<String>,
    /// `--progress`.
    pub(crate) progress: Option<String>,
}

/// Values for flags of `prune` that are not given.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Retention {
    /// `--keep-last`.
    pub(crate) keep_last: Option<u32>,
    /// `--keep-within`.
    pub(crate) keep_within: Option<String>,
    /// `--keep-hourly`.
    pub(crate) keep_hourly: Option<u32>,
    /// `--keep-daily`.
    pub(crate) keep_daily: Option<u32>,
    /// `--keep-weekly`.
    pub(crate) keep_weekly: Option<u32>,
    /// `--keep-monthly`.
    pub(crate) keep_monthly: Option<u32>,
    /// `--keep-yearly`.
    pub(crate) keep_yearly: Option<u32>,
    /// `--grace`.
    pub(crate) grace: Option<String>,
    /// `--wait`.
    pub(crate) wait: Option<String>,
    /// `--keep-binlogs`.
    pub(crate) keep_binlogs: Option<String>,
    /// `--time-zone`.
    pub(crate) time_zone: Option<String>,
}

impl Config {
    /// The addresses of [`copies`](Self::copies).
    ///
    /// # Errors
    /// A usage error for one that is none.
    pub(crate) fn copies(&self) -> Result<Vec<RepoUrl>> {
        let parse = |url: &String| {
            url.parse().map_err(|e: Error| e.context("`copies` in the configuration"))
        };
        self.copies.iter().map(parse).collect()
    }

    /// Reads the file, or gives an empty configuration when there is none.
    ///
    /// # Errors
    /// A usage error that names the line, and an unknown key together with the known ones. It never
    /// quotes a line: a URL in it may hold a password.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Config::default()) };
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
        read.map_err(|e| {
            let message = format!("cannot read the configuration file {}", path.display());
            io_error(e, ErrorKind::Usage, message)
        })?;
        if text.len() as u64 == LONGEST {
            return Err(Error::usage(format!("{} is longer than 1 MiB", path.display()))
                .with_remedy("name the configuration file of holdfast"));
        }
        toml::from_str(&text).map_err(|e| {
            let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            Error::usage(format!("{}, line {line}: {}", path.display(), e.message()))
                .with_remedy("correct the configuration file")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(Some(file.path()))
    }

    #[test]
    fn the_documented_file_is_read() {
        let source = include_str!("config.rs");
        let example: Vec<&str> = source
            .lines()
            .skip_while(|line| *line != "//! ```toml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| line.trim_start_matches("//!").trim_start())
            .collect();
        let config = load(&example.join("\n")).unwrap();
        assert_eq!(config.cluster.unwrap().as_str(), "shop");
        assert_eq!(config.defaults.threads, Some(Threads::Fixed(4)));
        assert_eq!(config.retention.keep_weekly, Some(8));
        assert_eq!(config.defaults.defaults_file, Some("/etc/holdfast/my.cnf".into()));
    }

    #[test]
    fn threads_are_a_number_or_auto() {
        let config = load("[defaults]\nthreads = \"auto\"\n").unwrap();
        assert_eq!(config.defaults.threads, Some(Threads::Auto));
        for wrong in ["0", "257", "\"many\"", "1.5"] {
            let e = load(&format!("[defaults]\nthreads = {wrong}\n")).err().expect(wrong);
            assert!(e.to_string().contains("line 2: `threads`"), "{e}");
        }
    }

    #[test]
    fn errors_name_line_and_key_and_quote_no_secret() {
        for (text, part) in [
            (
                "repo = \"/b\"\nrepos = \"/c\"\n",
                "line 2: unknown field `repos`, expected one of `repo`",
            ),
            ("\n[defaults]\nthread = 1\n", "line 3: unknown field `thread`"),
            ("cluster = \"a/b\"\n", "line 1: `a/b` is no cluster name"),
            ("source = \"mysql://u:hunter2@h/\nx", ", line "),
            ("[defaults]\nthreads = -1\n", "line 2"),
        ] {
            let e = load(text).err().expect(text);
            assert!(e.to_string().contains(part), "{e}");
            assert!(!e.report().contains("hunter2"), "{}", e.report());
            assert_eq!(e.kind(), ErrorKind::Usage);
        }
    }
}
