//! Objects in archive classes: whether one can be read, and the request that makes it so
//! (`HeadObject` and `RestoreObject` of the S3 API, which `object_store` has no way to send or to
//! understand in full).

use http::header::HeaderMap;
use http::{Method, Request, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpConnector, HttpRequestBody, HttpResponse};
use object_store::path::Path;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::OnceCell;

use super::transport::Connector;
use super::{Answer, failure, sort};
use crate::store::{Availability, ThawRequest, ThawSpeed};

/// What a signature leaves as it is in a path.
const PLAIN: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Storage classes whose objects have to be asked for, hours before they can be read: those of AWS, then
/// those of Alibaba Cloud. `GLACIER_IR` is not among them: it answers at once.
const CLASSES: [&str; 5] = ["GLACIER", "DEEP_ARCHIVE", "Archive", "ColdArchive", "DeepColdArchive"];

/// A bucket, for these requests.
#[derive(Debug)]
pub(in crate::store) struct Archive {
    pub(super) connector: Connector,
    pub(super) options: ClientOptions,
    /// Made when it is needed, which is seldom.
    pub(super) client: OnceCell<HttpClient>,
    pub(super) credentials: AwsCredentialProvider,
    pub(super) region: String,
    /// The URL of the bucket, without a slash at its end.
    pub(super) bucket: String,
    /// What stands before every name.
    pub(super) prefix: Path,
}

impl Archive {
    /// Whether an object can be read.
    pub(in crate::store) async fn availability(
        &self,
        at: &Path,
    ) -> object_store::Result<Availability> {
        let answer = self.send(Method::HEAD, at, "", String::new()).await?;
        Ok(Seen::of(answer.headers()).availability())
    }

    /// Asks for an object of an archive class; that which can be read is left alone. Gives how it was.
    pub(in crate::store) async fn thaw(
        &self,
        at: &Path,
        request: ThawRequest,
    ) -> object_store::Result<Availability> {
        let answer = self.send(Method::HEAD, at, "", String::new()).await?;
        let seen = Seen::of(answer.headers());
        let before = seen.availability();
        if before != Availability::Archived {
            return Ok(before);
        }
        match self.send(Method::POST, at, "?restore=", body(request, seen.tiering)).await {
            Ok(_) => Ok(before),
            // Somebody else asked since.
            Err(e) if failure::answer(&e).is_some_and(Answer::is_thawing) => {
                Ok(Availability::Thawing)
            }
            Err(e) => Err(e),
        }
    }

    async fn send(
        &self,
        method: Method,
        at: &Path,
        query: &str,
        body: String,
    ) -> object_store::Result<HttpResponse> {
        let generic = |source: Box<dyn std::error::Error + Send + Sync>| {
            object_store::Error::Generic { store: "S3", source }
        };
        let path: Path = self.prefix.parts().chain(at.parts()).collect();
        let segments: Vec<String> = path
            .as_ref()
            .split('/')
            .map(|part| utf8_percent_encode(part, &PLAIN).to_string())
            .collect();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/{}{query}", self.bucket, segments.join("/")))
            .body(HttpRequestBody::from(body))
            .map_err(|e| generic(e.into()))?;
        let length = request.body().content_length();
        if length > 0 {
            request.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
        }
        let credential = self.credentials.get_credential().await?;
        AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, None)?;
        let client =
            self.client.get_or_try_init(async || self.connector.connect(&self.options)).await?;
        let answer = client.execute(request).await;
        answer.map_err(|e| sort(generic(Box::new(e)), &path))
    }
}

/// What the headers of an object tell.
struct Seen<'a> {
    class: &'a str,
    /// `ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"`
    restore: Option<&'a str>,
    /// In an archive tier of Intelligent-Tiering; such an object comes back for good.
    tiering: bool,
}

impl<'a> Seen<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        Seen {
            class: text("x-amz-storage-class").or(text("x-oss-storage-class")).unwrap_or_default(),
            restore: text("x-amz-restore").or(text("x-oss-restore")),
            tiering: headers.contains_key("x-amz-archive-status"),
        }
    }

    fn availability(&self) -> Availability {
        match self.restore {
            Some(text) if text.contains("ongoing-request=\"true\"") => Availability::Thawing,
            Some(text) if text.contains("ongoing-request=\"false\"") => {
                Availability::Readable { until: expiry(text) }
            }
            _ if self.tiering || CLASSES.contains(&self.class) => Availability::Archived,
            _ => Availability::Readable { until: None },
        }
    }
}

fn expiry(restore: &str) -> Option<Timestamp> {
    let (_, rest) = restore.split_once("expiry-date=\"")?;
    // What HTTP has as GMT, mail has as an offset too.
    let date = rest.split('"').next()?.replace("GMT", "+0000");
    Some(rfc2822::parse(&date).ok()?.timestamp())
}

fn body(request: ThawRequest, tiering: bool) -> String {
    let days = match tiering {
        true => String::new(),
        false => format!("<Days>{}</Days>", request.days),
    };
    let tier = match request.speed {
        ThawSpeed::Standard => "Standard",
        ThawSpeed::Bulk => "Bulk",
        ThawSpeed::Expedited => "Expedited",
    };
    format!(
        "<RestoreRequest xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{days}\
         <GlacierJobParameters><Tier>{tier}</Tier></GlacierJobParameters></RestoreRequest>"
    )
}

impl Answer {
    /// Whether the object was asked for before and is on its way.
    fn is_thawing(&self) -> bool {
        self.status == StatusCode::CONFLICT && self.code == "RestoreAlreadyInProgress"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_tell_whether_an_object_can_be_read() {
        let seen = |headers: &[(&'static str, &str)]| {
            let pairs = headers
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
            Seen::of(&pairs.collect()).availability()
        };
        let class = "x-amz-storage-class";
        assert_eq!(seen(&[]), Availability::Readable { until: None });
        for name in ["STANDARD_IA", "GLACIER_IR", "INTELLIGENT_TIERING"] {
            assert_eq!(seen(&[(class, name)]), Availability::Readable { until: None }, "{name}");
        }
        for name in CLASSES {
            assert_eq!(seen(&[(class, name)]), Availability::Archived, "{name}");
        }
        let tiering = [(class, "INTELLIGENT_TIERING"), ("x-amz-archive-status", "ARCHIVE_ACCESS")];
        assert_eq!(seen(&tiering), Availability::Archived);
        let ongoing = [(class, "GLACIER"), ("x-amz-restore", "ongoing-request=\"true\"")];
        assert_eq!(seen(&ongoing), Availability::Thawing);
        let done = "ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\"";
        let until = "2012-12-21T00:00:00Z".parse().ok();
        assert_eq!(
            seen(&[(class, "DEEP_ARCHIVE"), ("x-amz-restore", done)]),
            Availability::Readable { until }
        );
        let strange =
            [(class, "GLACIER"), ("x-amz-restore", "ongoing-request=\"false\", expiry-d")];
        assert_eq!(seen(&strange), Availability::Readable { until: None });
    }
}
