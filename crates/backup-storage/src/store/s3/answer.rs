//! What an S3-compatible store answers when it does not do what it was asked to.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use backup_core::ErrorKind;
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde::Deserialize;

/// An answer other than success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(super) status: StatusCode,
    /// The store's name for it, such as `NoSuchBucket`; answers to HEAD have none.
    pub(super) code: String,
    message: String,
    /// Where the bucket is, when the answer tells.
    region: Option<String>,
    /// The number under which the store's own log has it.
    request: Option<String>,
    /// The store's clock.
    date: Option<String>,
    /// How long to wait before the next attempt.
    pub(crate) retry_after: Option<Duration>,
}

/// The body of an answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Document {
    code: String,
    message: String,
    region: Option<String>,
    request_id: Option<String>,
}

/// A longer message is cut.
const MAX_MESSAGE: usize = 400;

impl Answer {
    pub(super) fn new(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        let body = String::from_utf8_lossy(body);
        let mut document: Document = quick_xml::de::from_str(&body).unwrap_or_default();
        if let Some((end, _)) = document.message.char_indices().nth(MAX_MESSAGE) {
            document.message.truncate(end);
        }
        Answer {
            status,
            code: document.code,
            message: document.message,
            region: text("x-amz-bucket-region").or(document.region).filter(|r| !r.is_empty()),
            request: text("x-amz-request-id").or(document.request_id),
            date: text(DATE.as_str()),
            // The other form, a date, is not used by object stores.
            retry_after: text(RETRY_AFTER.as_str())
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
        }
    }

    /// Whether there is no such object.
    pub(super) fn is_missing(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
            && matches!(&*self.code, "" | "NoSuchKey" | "NotFound" | "NoSuchVersion")
    }

    /// Whether another object has the name.
    pub(super) fn is_taken(&self) -> bool {
        self.status == StatusCode::PRECONDITION_FAILED
            || self.status == StatusCode::NOT_MODIFIED
            || (self.status == StatusCode::CONFLICT && self.code == "FileAlreadyExists")
    }

    /// Whether a lock on the object (WORM, retention, legal hold) keeps it.
    pub(crate) fn is_locked(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        let words =
            ["object lock", "object is locked", "worm", "retention", "legal hold", "immutab"];
        self.status.is_client_error()
            && (matches!(&*self.code, "FileImmutable" | "ObjectLocked" | "ObjectImmutable")
                || words.iter().any(|word| message.contains(word)))
    }

    /// Whether the store does not allow it to this user.
    pub(crate) fn is_denied(&self) -> bool {
        self.status == StatusCode::FORBIDDEN && self.code == "AccessDenied"
    }

    /// Whether the same request may succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        (matches!(self.status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
            // It means minutes or hours.
            && self.code != "GlacierExpeditedRetrievalNotAvailable")
            // The first is what S3 calls a 408; the others are conflicts with another request under
            // way, which are not about whether the object exists.
            || matches!(&*self.code, "RequestTimeout" | "ConditionalRequestConflict" | "OperationAborted")
    }

    /// What it means, and what to do about it.
    pub(crate) fn judge(&self) -> (ErrorKind, Cow<'static, str>) {
        let remedy = match &*self.code {
            _ if self.is_locked() => {
                "the object is locked until its retention ends; nothing has to be done until then"
            }
            "NoSuchBucket" => {
                "create the bucket, or correct its name or the endpoint in the repository's URL"
            }
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "AuthorizationQueryParametersError"
            | "IllegalLocationConstraintException" => return self.elsewhere(),
            "InvalidAccessKeyId" | "NotSignedUp" | "InvalidAccessKey" => {
                "the store does not know this access key; check AWS_ACCESS_KEY_ID (or the profile in \
                 ~/.aws/credentials), and that the endpoint is the store that gave it"
            }
            "SignatureDoesNotMatch" => {
                "check the secret key (AWS_SECRET_ACCESS_KEY, or the profile in ~/.aws/credentials); \
                 if it is right, check the region in the URL, and that no proxy changes requests"
            }
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
                "the temporary credentials are no longer valid; get new ones (AWS_SESSION_TOKEN \
                 belongs to its key pair)"
            }
            "RequestTimeTooSkewed" | "RequestExpired" => return self.skewed(),
            "InvalidObjectState" => {
                "the object is in an archive class; `holdfast thaw BACKUP` asks the store for all that the \
                 backup needs, and says when it can be read, which can take hours; then run the command \
                 again"
            }
            "GlacierExpeditedRetrievalNotAvailable" => {
                "the store has no room for requests in a hurry now; ask with `--speed standard`"
            }
            "QuotaExceeded" | "InsufficientStorage" | "StorageFull" | "XMinioStorageFull" => {
                return (ErrorKind::Space, "raise the quota or free space in the store".into());
            }
            "EntityTooLarge" => "the store takes no object of this size; choose smaller packs",
            "BadDigest" | "XAmzContentSHA256Mismatch" | "InvalidDigest" => {
                "the bytes were changed on their way to the store; test the memory of this machine, its \
                 network card and any proxy in between, and use an https:// endpoint"
            }
            "SecondLevelDomainForbidden" | "VirtualHostStyleRequired" => {
                "the store wants the bucket in the host's name; take path-style out of the URL"
            }
            _ => return self.judge_status(),
        };
        (ErrorKind::Store, remedy.into())
    }

    fn judge_status(&self) -> (ErrorKind, Cow<'static, str>) {
        let remedy = match self.status.as_u16() {
            300..=399 => return self.elsewhere(),
            // HEAD has no body: a wrong region is a mere 400 with the right one in a header.
            400 if self.region.is_some() => return self.elsewhere(),
            401 | 403 => {
                "give the key the rights s3:GetObject, s3:PutObject and s3:DeleteObject (to thaw \
                 archived objects s3:RestoreObject too) on the repository's objects and s3:ListBucket on the bucket (without the last one, a store \
                 refuses to say that an object is missing); docs/stores.md has a policy"
            }
            404 => "check bucket, endpoint and path-style in the repository's URL",
            501 => {
                "the store does not know a request that Holdfast needs; if it was the writing of an \
                 object, it has no create-only put: for Alibaba Cloud OSS use an oss:// URL, else see \
                 create-only in docs/stores.md"
            }
            507 => return (ErrorKind::Space, "raise the quota or free space in the store".into()),
            429 | 503 => {
                "the store is busy or asks for fewer requests; try again later, with fewer --threads \
                 or with --upload-limit"
            }
            500..=599 => "see the store's own log and status page, then try again",
            _ => "check the repository's URL; the answer above is the store's own",
        };
        (ErrorKind::Store, remedy.into())
    }

    fn elsewhere(&self) -> (ErrorKind, Cow<'static, str>) {
        let remedy = match &self.region {
            Some(region) => format!(
                "the bucket is in region {region}: write region={region} in the repository's URL (and \
                 the endpoint of that region, if you name one)"
            )
            .into(),
            None => "find out the bucket's region and endpoint, and write them into the repository's \
                     URL as region=… and endpoint=…"
                .into(),
        };
        (ErrorKind::Store, remedy)
    }

    fn skewed(&self) -> (ErrorKind, Cow<'static, str>) {
        let date = self.date.as_ref().map_or(String::new(), |date| format!(" ({date})"));
        let remedy = format!(
            "set this machine's clock: it is too far from that of the store{date}; NTP keeps it right"
        );
        (ErrorKind::Store, remedy.into())
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store answered {}", self.status.as_u16())?;
        match &*self.code {
            "" => write!(f, " {}", self.status.canonical_reason().unwrap_or_default())?,
            code => write!(f, " {code}")?,
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message.trim_end_matches('.'))?;
        }
        match &self.request {
            Some(request) => write!(f, " (request {request})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Answer {}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str, message: &str) -> Answer {
        let body = format!(
            "<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
             <Resource>/b/k</Resource><RequestId>R1</RequestId><HostId>h</HostId></Error>"
        );
        Answer::new(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn what_the_store_said_is_shown_with_its_request() {
        let denied = answer(403, "AccessDenied", "Access Denied.");
        assert_eq!(
            denied.to_string(),
            "the store answered 403 AccessDenied: Access Denied (request R1)"
        );
        let empty = Answer::new(StatusCode::BAD_GATEWAY, &HeaderMap::new(), b"<html>oops");
        assert_eq!(empty.to_string(), "the store answered 502 Bad Gateway");
    }

    #[test]
    fn only_what_passes_is_tried_again() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(answer(status, "X", "").is_transient(), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 405, 409, 411, 412, 416, 501, 505, 507] {
            assert!(!answer(status, "X", "").is_transient(), "{status}");
        }
        assert!(answer(409, "ConditionalRequestConflict", "").is_transient());
        assert!(answer(400, "RequestTimeout", "").is_transient());
        assert!(!answer(409, "FileAlreadyExists", "").is_transient());
        assert!(!answer(503, "GlacierExpeditedRetrievalNotAvailable", "").is_transient());
    }

    #[test]
    fn a_missing_bucket_is_no_missing_object() {
        assert!(answer(404, "NoSuchKey", "").is_missing());
        assert!(answer(404, "", "").is_missing());
        assert!(!answer(404, "NoSuchBucket", "").is_missing());
        assert!(!answer(403, "AccessDenied", "").is_missing());
    }

    #[test]
    fn a_conflict_is_a_taken_name_only_where_the_store_says_so() {
        assert!(answer(412, "PreconditionFailed", "").is_taken());
        assert!(answer(409, "FileAlreadyExists", "").is_taken());
        assert!(!answer(409, "ConditionalRequestConflict", "").is_taken());
        assert!(!answer(409, "OperationAborted", "").is_taken());
    }

    #[test]
    fn locks_of_every_make_are_known() {
        for (status, code, message) in [
            (403, "AccessDenied", "Access Denied because object protected by object lock."),
            (400, "InvalidRequest", "Object is WORM protected and cannot be overwritten"),
            (409, "FileImmutable", "The object you specified is immutable."),
            (403, "AccessDenied", "forbidden by object lock"),
        ] {
            assert!(answer(status, code, message).is_locked(), "{message}");
        }
        assert!(!answer(403, "AccessDenied", "Access Denied").is_locked());
        assert!(!answer(500, "InternalError", "retention").is_locked());
    }

    #[test]
    fn remedies_name_what_to_do() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-bucket-region", "eu-north-1".parse().unwrap());
        headers.insert(DATE, "Fri, 20 Nov 2026 10:15:30 GMT".parse().unwrap());
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        let redirect = Answer::new(StatusCode::MOVED_PERMANENTLY, &headers, b"");
        assert!(redirect.judge().1.contains("region=eu-north-1"));
        assert_eq!(redirect.retry_after, Some(Duration::from_secs(7)));
        let body = b"<Error><Code>RequestTimeTooSkewed</Code></Error>";
        let skewed = Answer::new(StatusCode::FORBIDDEN, &headers, body);
        assert!(skewed.judge().1.contains("Fri, 20 Nov 2026"), "{:?}", skewed.judge());
        for (status, code, part) in [
            (404, "NoSuchBucket", "create the bucket"),
            (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
            (403, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
            (400, "ExpiredToken", "AWS_SESSION_TOKEN"),
            (403, "AccessDenied", "s3:ListBucket"),
            (403, "InvalidObjectState", "holdfast thaw"),
            (503, "GlacierExpeditedRetrievalNotAvailable", "--speed"),
            (501, "NotImplemented", "create-only"),
            (503, "SlowDown", "--upload-limit"),
            (400, "BadDigest", "memory"),
        ] {
            let (kind, remedy) = answer(status, code, "").judge();
            assert_eq!(kind, ErrorKind::Store);
            assert!(remedy.contains(part), "{code}: {remedy}");
        }
        assert_eq!(answer(507, "", "").judge().0, ErrorKind::Space);
    }

    #[test]
    fn a_hostile_body_is_survived() {
        let long = format!("<Error><Code>X</Code><Message>{}</Message></Error>", "é".repeat(9999));
        let answer = Answer::new(StatusCode::BAD_REQUEST, &HeaderMap::new(), long.as_bytes());
        assert_eq!(answer.message.chars().count(), MAX_MESSAGE);
        for body in [&b"\xff\xfe<"[..], b"<a><a><a>", b"&lol;", b"<Error><Code><![CDATA[x"] {
            Answer::new(StatusCode::BAD_REQUEST, &HeaderMap::new(), body);
        }
    }
}
