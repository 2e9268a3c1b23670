//! Which host a bucket is asked for.

use backup_core::{Error, Result};
use url::Url;

use super::Make;
use crate::store::options::StoreOptions;
use crate::url::BucketUrl;

/// Where requests for a bucket go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Scheme, host (with the bucket, where it stands there) and port.
    pub(super) endpoint: String,
    pub(super) region: String,
    /// Whether the bucket is in the host's name.
    pub(super) virtual_host: bool,
    /// Whether it is plain HTTP.
    pub(super) plain: bool,
}

impl Place {
    pub(super) fn choose(make: Make, url: &BucketUrl, options: &StoreOptions) -> Result<Self> {
        let region = url.region.as_ref().or(options.region.as_ref());
        // The variable of the AWS tools says nothing of OSS.
        let default = options.endpoint.as_ref().filter(|_| make == Make::S3);
        let named = url.endpoint.as_ref().or(default);
        let (endpoint, region, path_style) = match (make, named) {
            (Make::S3, Some(endpoint)) => {
                (endpoint.clone(), region.map_or("us-east-1", String::as_str), true)
            }
            (Make::S3, None) => {
                let region = region.map_or("us-east-1", String::as_str);
                let china = if region.starts_with("cn-") { ".cn" } else { "" };
                // The certificate covers one name before the endpoint's.
                let dotted = url.bucket.contains('.');
                (format!("https://s3.{region}.amazonaws.com{china}"), region, dotted)
            }
            (Make::Oss, Some(endpoint)) => {
                let region = region.map(String::as_str).or_else(|| oss_region(endpoint));
                (endpoint.clone(), region.unwrap_or("us-east-1"), false)
            }
            (Make::Oss, None) => {
                let region = region.ok_or_else(|| {
                    Error::usage("this oss:// URL names neither endpoint nor region").with_remedy(
                        "add endpoint=https://oss-cn-hangzhou.aliyuncs.com or the like",
                    )
                })?;
                let short = region.strip_prefix("oss-").unwrap_or(region);
                (format!("https://s3.oss-{short}.aliyuncs.com"), region.as_str(), false)
            }
        };
        let wrong = || {
            Error::usage("the endpoint of the object store cannot be read")
                .with_remedy("write it as https://host:port")
        };
        let mut parsed = if endpoint.contains("://") {
            Url::parse(&endpoint)
        } else {
            Url::parse(&format!("https://{endpoint}"))
        }
        .map_err(|_| wrong())?;
        if !matches!(parsed.scheme(), "http" | "https") || !parsed.username().is_empty() {
            return Err(wrong());
        }
        let virtual_host = !url.path_style.unwrap_or(path_style);
        if virtual_host {
            let host = parsed.host_str().ok_or_else(wrong)?;
            if matches!(parsed.host(), Some(url::Host::Ipv4(_) | url::Host::Ipv6(_))) {
                return Err(Error::usage("the bucket cannot stand before an IP address")
                    .with_remedy("name the endpoint's host, or add path-style=true to the URL"));
            }
            let host = format!("{}.{host}", url.bucket);
            parsed.set_host(Some(&host)).map_err(|_| wrong())?;
        }
        Ok(Place {
            endpoint: parsed.as_str().trim_end_matches('/').to_owned(),
            region: region.to_owned(),
            virtual_host,
            plain: parsed.scheme() == "http",
        })
    }
}

/// The region in the name of an endpoint of OSS, such as `oss-cn-hangzhou-internal.aliyuncs.com`.
fn oss_region(endpoint: &str) -> Option<&str> {
    let (_, rest) = endpoint.split_once("oss-")?;
    let region = rest.split(['.', ':', '/']).next()?;
    Some(region.strip_suffix("-internal").unwrap_or(region))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RepoUrl;

    fn choose(text: &str, options: &StoreOptions) -> Result<Place> {
        match text.parse().unwrap() {
            RepoUrl::S3(url) => Place::choose(Make::S3, &url, options),
            RepoUrl::Oss(url) => Place::choose(Make::Oss, &url, options),
            other => panic!("{other}"),
        }
    }

    fn place(text: &str) -> (String, String, bool) {
        let place = choose(text, &StoreOptions::default()).unwrap();
        (place.endpoint, place.region, place.virtual_host)
    }

    #[test]
    fn the_host_follows_from_the_url() {
        for (text, endpoint, region, virtual_host) in [
            ("s3://b", "https://b.s3.us-east-1.amazonaws.com", "us-east-1", true),
            (
                "s3://b?region=cn-north-1",
                "https://b.s3.cn-north-1.amazonaws.com.cn",
                "cn-north-1",
                true,
            ),
            ("s3://b.c?region=r", "https://s3.r.amazonaws.com", "r", false),
            ("s3://b?endpoint=http://127.0.0.1:9000", "http://127.0.0.1:9000", "us-east-1", false),
            ("s3://b?endpoint=h:1&path-style=false", "https://b.h:1", "us-east-1", true),
            (
                "oss://b?endpoint=oss-cn-hangzhou-internal.aliyuncs.com",
                "https://b.oss-cn-hangzhou-internal.aliyuncs.com",
                "cn-hangzhou",
                true,
            ),
            (
                "oss://b?region=cn-beijing",
                "https://b.s3.oss-cn-beijing.aliyuncs.com",
                "cn-beijing",
                true,
            ),
        ] {
            assert_eq!(place(text), (endpoint.into(), region.into(), virtual_host), "{text}");
        }
    }

    #[test]
    fn the_url_wins_over_the_options() {
        let options = StoreOptions {
            endpoint: Some("http://minio:9000".into()),
            region: Some("lab".into()),
            ..StoreOptions::default()
        };
        let found = choose("s3://b", &options).unwrap();
        assert_eq!((found.endpoint.as_str(), found.region.as_str()), ("http://minio:9000", "lab"));
        assert!(found.plain);
        let found = choose("s3://b?endpoint=https://h&region=x", &options).unwrap();
        assert_eq!((found.endpoint.as_str(), found.region.as_str()), ("https://h", "x"));
        assert!(!found.plain);
        let found = choose("oss://b?region=r", &options).unwrap();
        assert_eq!(found.endpoint, "https://b.s3.oss-r.aliyuncs.com");
    }

    #[test]
    fn what_cannot_be_reached_is_a_usage_error() {
        for text in ["oss://b", "s3://b?endpoint=http://10.0.0.1&path-style=false"] {
            let error = choose(text, &StoreOptions::default()).unwrap_err();
            assert_eq!(error.kind(), backup_core::ErrorKind::Usage, "{text}");
        }
    }
}
