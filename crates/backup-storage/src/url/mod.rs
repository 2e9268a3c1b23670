//! Where a repository is.

mod bucket;

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use backup_core::{Error, ErrorKind, Result, io_error};
use percent_encoding::{percent_decode_str, percent_encode_byte};

pub use bucket::{BucketUrl, CreateOnly};

/// The address of a repository.
///
/// | written as | what it is |
/// |---|---|
/// | `/path`, `path`, `file:///path` | a directory of this machine |
/// | `nfs:///mount/path` | a directory that must be on a mounted NFS file system |
/// | `s3://bucket/prefix?endpoint=…&region=…` | an S3-compatible object store |
/// | `oss://bucket/prefix?endpoint=…` | Alibaba Cloud OSS |
///
/// It never holds a secret: an address with a user or a password in it is refused.
///
/// ```
/// use backup_storage::RepoUrl;
/// assert_eq!("file:///srv/my%20backups".parse::<RepoUrl>().unwrap().to_string(), "/srv/my backups");
/// assert!("s3://backups/db?region=eu-central-1".parse::<RepoUrl>().is_ok());
/// assert!("s3://key:secret@backups/db".parse::<RepoUrl>().is_err());
/// assert!("ftp://host/x".parse::<RepoUrl>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepoUrl {
    /// A directory of this machine.
    Local(PathBuf),
    /// A directory below the mount point of an NFS file system.
    Nfs(PathBuf),
    /// A prefix in a bucket of an S3-compatible store.
    S3(BucketUrl),
    /// A prefix in a bucket of Alibaba Cloud OSS.
    Oss(BucketUrl),
}

impl fmt::Display for RepoUrl {
    /// As [`FromStr`] reads it: addresses are kept in policies and in the history.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What is no UTF-8 cannot be written as a path.
            RepoUrl::Local(path) if path.to_str().is_none() && path.is_absolute() => {
                write!(f, "file://{}", escaped(path))
            }
            RepoUrl::Local(path) => path.display().fmt(f),
            RepoUrl::Nfs(path) => write!(f, "nfs://{}", escaped(path)),
            RepoUrl::S3(bucket) => write!(f, "s3://{bucket}"),
            RepoUrl::Oss(bucket) => write!(f, "oss://{bucket}"),
        }
    }
}

impl RepoUrl {
    /// The address without secrets, as it is to be kept: true wherever the program is run.
    ///
    /// # Errors
    /// When this machine cannot tell the directory that it works in.
    pub fn absolute(&self) -> Result<String> {
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|e| {
                io_error(e, ErrorKind::Store, format!("cannot tell where {} is", path.display()))
            })
        };
        Ok(match self {
            RepoUrl::Local(path) => RepoUrl::Local(absolute(path)?).to_string(),
            RepoUrl::Nfs(path) => RepoUrl::Nfs(absolute(path)?).to_string(),
            RepoUrl::S3(_) | RepoUrl::Oss(_) => self.to_string(),
        })
    }

    /// Whether the place is inside `other`, whatever it is called by symbolic links.
    #[must_use]
    pub fn is_inside(&self, other: &RepoUrl) -> bool {
        use RepoUrl::{Local, Nfs, Oss, S3};
        match (self, other) {
            (Local(this) | Nfs(this), Local(other) | Nfs(other)) => {
                let (this, other) = (real(this), real(other));
                this != other && this.starts_with(other)
            }
            (S3(this), S3(other)) | (Oss(this), Oss(other)) => {
                (&this.bucket, &this.endpoint) == (&other.bucket, &other.endpoint)
                    && this.prefix != other.prefix
                    && this.prefix.prefix_matches(&other.prefix)
            }
            _ => false,
        }
    }
}

/// Where a path leads, though not all of it may be there yet.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = path.ancestors().find_map(|there| Some((there, there.canonicalize().ok()?)));
    let rest = there.and_then(|(there, real)| Some(real.join(path.strip_prefix(there).ok()?)));
    rest.unwrap_or(path)
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
    // And of the others a slash is easily forgotten.
    let known = ["file", "nfs", "s3", "oss"].into_iter().find(|known| {
        let start = text.split_once(":/").map(|(start, _)| start);
        start.is_some_and(|start| start.eq_ignore_ascii_case(known))
    });
    if let Some(known) = known {
        return text.get(..known.len());
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
        const REMEDY: &str = "give a directory, as /path or file:///path, or nfs:///mount/path, \
                              s3://bucket/prefix, oss://bucket/prefix";
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
            "file" => path(text, "file").map(RepoUrl::Local),
            "nfs" => path(text, "nfs").map(RepoUrl::Nfs),
            "s3" => BucketUrl::parse(text, "s3").map(RepoUrl::S3),
            "oss" => BucketUrl::parse(text, "oss").map(RepoUrl::Oss),
            _ => Err(Error::usage(format!(
                "`{scheme}://` is no scheme of a repository; known are file://, nfs://, s3:// and \
                 oss://"
            ))
            .with_remedy(REMEDY)),
        }
    }
}

/// The path of a `file://` or `nfs://` URL: what [`escaped`] wrote, and what people do.
fn path(text: &str, scheme: &str) -> Result<PathBuf> {
    let bad = || {
        Error::usage(format!("this {scheme}:// URL names no path of this machine"))
            .with_remedy(format!("write it with three slashes: {scheme}:///path"))
    };
    let rest = text.split_once(':').map_or(text, |(_, rest)| rest);
    let path = match rest.strip_prefix("//") {
        Some(rest) => {
            let (host, path) = rest.split_at(rest.find('/').ok_or_else(bad)?);
            match host.is_empty() || host.eq_ignore_ascii_case("localhost") {
                true => path,
                false => return Err(bad()),
            }
        }
        None => rest,
    };
    if path.contains(['?', '#']) {
        return Err(bad().with_remedy("write `?` as %3F and `#` as %23"));
    }
    let bytes: Vec<u8> = percent_decode_str(path).collect();
    match path.starts_with('/') && !bytes.contains(&0) {
        true => Ok(PathBuf::from(OsString::from_vec(bytes))),
        false => Err(bad()),
    }
}

/// A path as it stands in a URL. What people can read stays as it is.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '%' | '?' | '#' | '\0'..='\x1f' | '\x7f' => {
                    text.push_str(percent_encode_byte(letter as u8));
                }
                letter => text.push(letter),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(percent_encode_byte(*byte)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::ErrorKind;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn a_prefix_is_inside_of_a_shorter_one() {
        let url = |text: &str| text.parse::<RepoUrl>().unwrap();
        let inside = |a: &str, b: &str| url(a).is_inside(&url(b));
        assert!(inside("s3://b/x/y", "s3://b/x") && inside("s3://b/x", "s3://b"));
        assert!(!inside("s3://b/xy", "s3://b/x") && !inside("s3://b/x", "s3://b/x"));
        assert!(!inside("s3://b/x", "s3://b/x/y") && !inside("s3://c/x/y", "s3://b/x"));
        assert!(!inside("oss://b/x/y?endpoint=https://e", "s3://b/x"));
    }

    fn local(text: &str) -> PathBuf {
        match text.parse().unwrap() {
            RepoUrl::Local(path) => path,
            other => panic!("{other:?}"),
        }
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
    fn nfs_urls_name_a_path_below_a_mount() {
        let url: RepoUrl = "nfs:///mnt/backup/my%20db".parse().unwrap();
        assert_eq!(url, RepoUrl::Nfs("/mnt/backup/my db".into()));
        assert_eq!(url.to_string(), "nfs:///mnt/backup/my db");
        let e = "nfs://filer/export".parse::<RepoUrl>().unwrap_err();
        assert!(e.remedy().contains("nfs:///path"), "{e:?}");
    }

    #[test]
    fn what_is_kept_of_an_address_leads_to_the_same_place() {
        for path in ["/mnt/a%20b", "/mnt/what? #1", "/mnt/x/../y", "//mnt/c|/\\x\n", "/mnt/my db/"]
        {
            for url in [RepoUrl::Nfs(path.into()), RepoUrl::Local(path.into())] {
                assert_eq!(url.to_string().parse::<RepoUrl>().unwrap(), url);
                let kept = url.absolute().unwrap().parse::<RepoUrl>().unwrap();
                assert_eq!(kept.absolute().unwrap(), url.absolute().unwrap());
            }
        }
    }

    proptest! {
        #[test]
        fn every_path_comes_back(bytes in vec(1_u8.., 0..40)) {
            let path = PathBuf::from(OsString::from_vec([b"/".to_vec(), bytes].concat()));
            for url in [RepoUrl::Nfs(path.clone()), RepoUrl::Local(path)] {
                prop_assert_eq!(url.to_string().parse::<RepoUrl>().unwrap(), url);
            }
        }
    }

    #[test]
    fn what_cannot_be_had_is_a_usage_error_without_secrets() {
        for bad in [
            "",
            "nfs:///x%00y",
            "a\0b",
            "file://host/x",
            "s3:/hunter2/x",
            "OSS:/hunter2",
            "file:///x?y",
            "nfs://hunter2/x",
            "nfs:///x?hunter2",
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
