//! `s3://` and `oss://` addresses.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use backup_core::{Error, Result};
use object_store::path::Path;
use url::Url;
use url::form_urlencoded::{self, Serializer};

/// A prefix in a bucket, and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUrl {
    /// The bucket's name.
    pub bucket: String,
    /// Where the repository is in it; empty for the whole bucket.
    pub prefix: Path,
    /// Scheme, host and port of the store, such as `https://minio.example:9000`. Plain `http://` is
    /// used only where it is written out. `None` leaves it to the region.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: Option<String>,
    /// Whether the bucket stands in the path instead of in the host's name. `None` chooses: in the
    /// path where an `s3://` URL names an endpoint, in the host's name otherwise.
    pub path_style: Option<bool>,
    /// A file with certificates (PEM) of authorities that are trusted besides the system's own.
    pub ca: Option<PathBuf>,
    /// How the store is told not to overwrite. `None` for the way of the scheme.
    pub create_only: Option<CreateOnly>,
    /// Whether the credentials are those of the machine, from its metadata service.
    pub instance_credentials: bool,
}

/// How a store is told to create an object but never to overwrite one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateOnly {
    /// `If-None-Match: *`, as S3 and most that are compatible with it understand it.
    IfNoneMatch,
    /// `x-oss-forbid-overwrite: true`, as Alibaba Cloud OSS understands it.
    ForbidOverwrite,
    /// For stores that have neither: look whether the object is there, then write it. Two writers of
    /// one name at the same moment are not kept apart. Names of backups are random, so two backups
    /// never meet; leases can fail, so only one machine at a time may prune such a repository.
    LookFirst,
}

impl CreateOnly {
    const ALL: [(CreateOnly, &str); 3] = [
        (CreateOnly::IfNoneMatch, "if-none-match"),
        (CreateOnly::ForbidOverwrite, "forbid-overwrite"),
        (CreateOnly::LookFirst, "look-first"),
    ];
}

impl fmt::Display for CreateOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = CreateOnly::ALL.iter().find(|(this, _)| this == self);
        f.write_str(named.map_or("", |(_, name)| name))
    }
}

impl FromStr for CreateOnly {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        CreateOnly::ALL.iter().find(|(_, name)| *name == text).map(|(this, _)| *this).ok_or(())
    }
}

const PARAMETERS: &str = "endpoint, region, path-style, ca, create-only and credentials";

impl BucketUrl {
    /// Reads `scheme://bucket/prefix?…`. No error quotes the address: it may hold a secret.
    pub(super) fn parse(text: &str, scheme: &str) -> Result<Self> {
        let bad = |problem: &str| {
            Error::usage(format!("this {scheme}:// URL {problem}")).with_remedy(format!(
                "write it as {scheme}://bucket/prefix?endpoint=…&region=…; it can hold {PARAMETERS}"
            ))
        };
        let (_, rest) = text.split_once("://").ok_or_else(|| bad("names no bucket"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        if place.contains('@') {
            return Err(bad("holds a user or a password").with_remedy(
                "take it out: credentials come from the environment (AWS_ACCESS_KEY_ID, …) or from \
                 ~/.aws/credentials, never from the URL",
            ));
        }
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let edge = |c: char| c.is_ascii_alphanumeric();
        let named = bucket.len() <= 255
            && bucket.bytes().all(plain)
            && bucket.starts_with(edge)
            && bucket.ends_with(edge);
        if bucket.is_empty() {
            return Err(bad("names no bucket"));
        }
        if !named {
            return Err(bad("has a name of a bucket that no store takes").with_remedy(
                "a bucket's name has up to 255 letters, digits, `-`, `.` and `_`, and begins and ends \
                 with a letter or a digit",
            ));
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        // Characters that every store and every proxy takes as they are.
        let part = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|b| plain(b) || b"~=+,".contains(&b))
        };
        if !prefix.is_empty() && !prefix.split('/').all(part) {
            return Err(bad("has a prefix that not every store can take").with_remedy(
                "make the prefix of letters, digits and `-._~=+,`, in parts with one `/` between them",
            ));
        }
        let (bucket, prefix) = (bucket.to_owned(), Path::from(prefix));
        let mut parsed = BucketUrl {
            bucket,
            prefix,
            endpoint: None,
            region: None,
            path_style: None,
            ca: None,
            create_only: None,
            instance_credentials: false,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let ok = match &*name {
                "endpoint" => {
                    let endpoint = endpoint(&value);
                    let ok = endpoint.is_some();
                    ok & set(&mut parsed.endpoint, endpoint.unwrap_or_default())
                }
                "region" => is_region(&value) && set(&mut parsed.region, value.into_owned()),
                "path-style" => value.parse().is_ok_and(|style| set(&mut parsed.path_style, style)),
                "ca" => !value.is_empty() && set(&mut parsed.ca, PathBuf::from(&*value)),
                "create-only" => value.parse().is_ok_and(|how| set(&mut parsed.create_only, how)),
                "credentials" => {
                    let first = !std::mem::replace(&mut parsed.instance_credentials, true);
                    first && value == "instance"
                }
                // Its name may be what should not be seen.
                _ => return Err(bad("has a parameter that is not known")),
            };
            if !ok {
                return Err(bad(&format!("has a wrong or a second `{name}`"))
                    .with_remedy(parameter_remedy(&name)));
            }
        }
        Ok(parsed)
    }
}

/// Sets what was not set.
fn set<T>(place: &mut Option<T>, value: T) -> bool {
    place.replace(value).is_none()
}

/// `host`, `host:port` or either with `https://` or `http://`; nothing else.
fn endpoint(text: &str) -> Option<String> {
    let text = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = Url::parse(&text).ok()?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && matches!(url.scheme(), "http" | "https")
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none();
    // Url writes a `/` at the end, and leaves out the port of the scheme.
    plain.then(|| url.as_str().trim_end_matches('/').to_owned())
}

fn is_region(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

fn parameter_remedy(name: &str) -> &'static str {
    match name {
        "endpoint" => {
            "write endpoint=https://host:port, without user, path and query (http:// for a store \
             without TLS)"
        }
        "region" => "write the region's name, such as region=eu-central-1",
        "path-style" => "write path-style=true or path-style=false",
        "ca" => "write the path of a file with PEM certificates",
        "create-only" => {
            "write create-only=if-none-match, create-only=forbid-overwrite or create-only=look-first"
        }
        _ => "write credentials=instance, or leave it out",
    }
}

impl fmt::Display for BucketUrl {
    /// Without the scheme: `bucket/prefix?…`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bucket)?;
        if !self.prefix.as_ref().is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        let mut query = Serializer::new(String::new());
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                query.append_pair(name, &value);
            }
        };
        add("endpoint", self.endpoint.clone());
        add("region", self.region.clone());
        add("path-style", self.path_style.map(|style| style.to_string()));
        add("ca", self.ca.as_ref().map(|path| path.display().to_string()));
        add("create-only", self.create_only.map(|how| how.to_string()));
        add("credentials", self.instance_credentials.then(|| "instance".to_owned()));
        // What needs no escape in a query is easier to read without.
        let query = query.finish().replace("%3A", ":").replace("%2F", "/");
        if query.is_empty() { Ok(()) } else { write!(f, "?{query}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RepoUrl;
    use backup_core::ErrorKind;

    fn bucket(text: &str) -> BucketUrl {
        match text.parse().unwrap() {
            RepoUrl::S3(bucket) | RepoUrl::Oss(bucket) => bucket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn buckets_prefixes_and_parameters() {
        let url = bucket(
            "S3://my.bucket-1/a/b_c/?endpoint=http://10.0.0.1:9000&region=eu-1&path-style=false\
             &ca=/etc/ssl/my%20ca.pem&create-only=look-first&credentials=instance",
        );
        assert_eq!(url.bucket, "my.bucket-1");
        assert_eq!(url.prefix, Path::from_iter(["a", "b_c"]));
        assert_eq!(url.endpoint.as_deref(), Some("http://10.0.0.1:9000"));
        assert_eq!(url.region.as_deref(), Some("eu-1"));
        assert_eq!(url.path_style, Some(false));
        assert_eq!(url.ca, Some("/etc/ssl/my ca.pem".into()));
        assert_eq!(url.create_only, Some(CreateOnly::LookFirst));
        assert!(url.instance_credentials);
        let url = bucket("oss://b?endpoint=oss-cn-hangzhou.aliyuncs.com");
        assert_eq!(url.endpoint.as_deref(), Some("https://oss-cn-hangzhou.aliyuncs.com"));
        assert_eq!((url.prefix, url.path_style), (Path::default(), None));
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        for text in [
            "s3://b",
            "s3://b/p/q?endpoint=http://[::1]:9000&region=x",
            "oss://b/p?endpoint=https://h&region=r&path-style=true&ca=/c+d&create-only=if-none-match",
        ] {
            let url: RepoUrl = text.parse().unwrap();
            assert_eq!(url.to_string().parse::<RepoUrl>().unwrap(), url, "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_a_usage_error_that_quotes_nothing() {
        for (bad, why) in [("s3:///p", "no bucket"), ("s3://a b/p", "letters, digits")] {
            let report = bad.parse::<RepoUrl>().unwrap_err().report();
            assert!(report.contains(why), "{bad}: {report}");
        }
        for bad in [
            "s3://",
            "s3:///p",
            "s3://hunter2:9000/p",
            "s3://-hunter2/p",
            "s3://hunter2 /p",
            "s3://key:hunter2@b/p",
            "s3://hunter2@b/p",
            "s3://b/p@hunter2",
            "s3://b/hunter2//q",
            "s3://b/hunter2/../../q",
            "s3://b/p#hunter2",
            "s3://b?hunter2",
            "s3://b?secret=hunter2",
            "s3://b?endpoint=http://u:hunter2@h",
            "s3://b?endpoint=ftp://hunter2",
            "s3://b?endpoint=http://h/hunter2",
            "s3://b?endpoint=h&endpoint=hunter2",
            "s3://b?region=hunter2!",
            "s3://b?region=",
            "s3://b?path-style=hunter2",
            "s3://b?create-only=hunter2",
            "s3://b?credentials=hunter2",
            "s3://b?ca=",
            "oss://key:hunter2@b",
        ] {
            let Err(e) = bad.parse::<RepoUrl>() else { panic!("{bad}") };
            assert_eq!(e.kind(), ErrorKind::Usage, "{bad}");
            assert!(!e.report().contains("hunter2"), "{bad}: {}", e.report());
        }
    }
}
