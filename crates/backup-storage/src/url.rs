//! Where a repository is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use backup_core::{Error, ErrorKind, Result, io_error};

/// The address of a repository.
///
/// A path, absolute or relative, or a `file://` URL. ``nfs://``, ``s3://`` and ``oss://`` are known
/// and refused by a build without them.
///
/// ```
/// use backup_storage::RepoUrl;
/// assert_eq!("file:///srv/my%20backups".parse::<RepoUrl>().unwrap().to_string(), "/srv/my backups");
/// assert!("ftp://host/x".parse::<RepoUrl>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepoUrl {
    /// A directory of this machine.
    Local(PathBuf),
}

impl fmt::Display for RepoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RepoUrl::Local(path) => path.display().fmt(f),
        }
    }
}

impl RepoUrl {
    /// The address without secrets, as it is to be kept: true wherever the program is run.
    ///
    /// # Errors
    /// When this machine cannot tell the directory that it works in.
    pub fn absolute(&self) -> Result<String> {
        let RepoUrl::Local(path) = self;
        let absolute = std::path::absolute(path).map_err(|e| {
            io_error(e, ErrorKind::Store, format!("cannot tell where {} is", path.display()))
        })?;
        Ok(absolute.display().to_string())
    }
}

impl From<PathBuf> for RepoUrl {
    fn from(path: PathBuf) -> Self {
        RepoUrl::Local(path)
    }
}

impl From<&Path> for RepoUrl {
    fn from(path: &Path) -> Self {
        RepoUrl::Local(path.to_owned())
    }
}

/// The part before `://`, when it looks like a scheme.
fn scheme(text: &str) -> Option<&str> {
    // RFC 8089 writes `file:/path` too; taken for a path it would make a directory named `file:`.
    if text.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("file:/")) {
        return text.get(..4);
    }
    let (scheme, _) = text.split_once("://")?;
    let rest = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    (scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(rest))
        .then_some(scheme)
}

impl FromStr for RepoUrl {
    type Err = Error;

    /// # Errors
    /// A usage error that never quotes more than the scheme: the rest may hold a password.
    fn from_str(text: &str) -> Result<Self> {
        const REMEDY: &str = "give a directory, as /path or file:///path";
        if text.is_empty() {
            return Err(Error::usage("the address of the repository is empty").with_remedy(REMEDY));
        }
        if text.contains('\0') {
            return Err(Error::usage("a path cannot hold a NUL byte").with_remedy(REMEDY));
        }
        let Some(scheme) = scheme(text) else {
            return Ok(RepoUrl::Local(PathBuf::from(text)));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => {
                let bad = || {
                    Error::usage("this file:// URL names no path of this machine")
                        .with_remedy("write it with three slashes: file:///path")
                };
                let url = url::Url::parse(text).map_err(|e| bad().with_source(e))?;
                if url.query().is_some() || url.fragment().is_some() {
                    return Err(bad().with_remedy("write `?` as %3F and `#` as %23"));
                }
                url.to_file_path().map(RepoUrl::Local).map_err(|()| bad())
            }
            known @ ("nfs" | "s3" | "oss") => {
                Err(Error::usage(format!("this build has no {known}:// support"))
                    .with_remedy(REMEDY))
            }
            _ => Err(Error::usage(format!(
                "`{scheme}://` is no scheme of a repository; known are file://, nfs://, s3:// and \
                 oss://"
            ))
            .with_remedy(REMEDY)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::ErrorKind;

    fn local(text: &str) -> PathBuf {
        let RepoUrl::Local(path) = text.parse().unwrap();
        path
    }

    #[test]
    fn paths_and_file_urls() {
        assert_eq!(local("/srv/b"), Path::new("/srv/b"));
        assert_eq!(local("b/c"), Path::new("b/c"));
        assert_eq!(local("./we?ird #1"), Path::new("./we?ird #1"));
        assert_eq!(local("file:///srv/b"), Path::new("/srv/b"));
        assert_eq!(local("file:/srv/b"), Path::new("/srv/b"));
        assert_eq!(local("file:b"), Path::new("file:b"));
        assert_eq!(local("FILE://localhost/srv/%C3%A9"), Path::new("/srv/é"));
    }

    #[test]
    fn what_cannot_be_had_is_a_usage_error_without_secrets() {
        for bad in [
            "",
            "a\0b",
            "file://host/x",
            "file:///x?y",
            "s3://key:hunter2@b/p",
            "oss://key:hunter2@b",
            "nfs:///hunter2",
            "sftp://hunter2@host/x",
        ] {
            let e = bad.parse::<RepoUrl>().unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Usage, "{bad}");
            assert!(!e.report().contains("hunter2"), "{}", e.report());
        }
        let e = "ftp://x".parse::<RepoUrl>().unwrap_err().report();
        for known in ["ftp", "file", "nfs", "s3", "oss"] {
            assert!(e.contains(known), "{e}");
        }
    }
}
