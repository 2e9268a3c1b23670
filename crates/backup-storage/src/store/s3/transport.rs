//! How requests reach an object store.
//!
//! `object_store` brings a transport of its own; this one exists for what that lacks: an upload limit,
//! a limit on standing still rather than on the whole request, answers with all they say (region,
//! Retry-After), no redirects (they would break the signature) and no proxy from the environment.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{Error, Result};
use bytes::Bytes;
use futures::stream::{self, Stream};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpResponse, HttpResponseBody, HttpService,
};
use reqwest::{Certificate, NoProxy, redirect};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use url::Url;

use super::Answer;
use crate::store::options::Proxy;
use crate::store::throttle::Throttle;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers to what went wrong are short.
const MAX_ANSWER: usize = 64 << 10;

/// Makes the HTTP clients of a store.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    /// Authorities that are trusted besides those of the system.
    pub(super) authorities: Vec<Certificate>,
    pub(super) proxy: Option<Proxy>,
    pub(super) throttle: Option<Arc<Throttle>>,
    /// How long nothing may move before a request is given up.
    pub(super) idle: Duration,
}

impl Connector {
    fn client(&self, https_only: bool) -> Result<reqwest::Client> {
        let failed = |e: reqwest::Error| Error::internal("cannot set up HTTPS").with_source(e);
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::none())
            .https_only(https_only)
            // One connection a request: packs are large, and one slow answer must not hold up others.
            .http1_only()
            .tls_certs_merge(self.authorities.iter().cloned())
            .no_proxy();
        if let Some(proxy) = &self.proxy {
            let bad = |_| {
                // The cause may quote the URL, and with it a password.
                Error::usage("the address of the HTTP proxy cannot be read")
                    .with_remedy("correct HTTPS_PROXY")
            };
            let except = NoProxy::from_string(&proxy.except);
            let proxy = reqwest::Proxy::all(proxy.url.expose()).map_err(bad)?;
            builder = builder.proxy(proxy.no_proxy(except));
        }
        builder.build().map_err(failed)
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp);
        let client = self
            .client(plain.as_deref() != Some("true"))
            .map_err(|e| object_store::Error::Generic { store: "S3", source: Box::new(e) })?;
        let service = Transport { client, throttle: self.throttle.clone(), idle: self.idle };
        Ok(HttpClient::new(service))
    }
}

struct Transport {
    client: reqwest::Client,
    throttle: Option<Arc<Throttle>>,
    idle: Duration,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url = parts.uri.to_string().parse::<Url>();
        let url = url.map_err(|e| HttpError::new(HttpErrorKind::Decode, e))?;
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        let moved = Arc::new(Moved::default());
        if body.content_length() > 0 {
            // Its length is in the headers already.
            let upload = upload(body, self.throttle.clone(), Arc::clone(&moved));
            *request.body_mut() = Some(reqwest::Body::wrap_stream(upload));
        }
        let answer = tokio::select! {
            answer = self.client.execute(request) => answer.map_err(http_error)?,
            () = moved.stands_still(self.idle) => return Err(timed_out(self.idle)),
        };
        let (parts, body) = http::Response::from(answer).into_parts();
        let body = Download { body, idle: self.idle, timer: Box::pin(sleep(self.idle)) };
        if parts.status.is_success() {
            return Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)));
        }
        let body = short(body).await?;
        let answer = Answer::new(parts.status, &parts.headers, &body);
        Err(HttpError::new(HttpErrorKind::Unknown, answer))
    }
}

/// Reads the first bytes of a body.
async fn short(mut body: Download) -> Result<Vec<u8>, HttpError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() >= MAX_ANSWER {
            bytes.truncate(MAX_ANSWER);
            break;
        }
    }
    Ok(bytes)
}

/// When a byte moved last.
#[derive(Debug)]
struct Moved(Mutex<Instant>);

impl Default for Moved {
    fn default() -> Self {
        Moved(Mutex::new(Instant::now()))
    }
}

impl Moved {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns when nothing has moved for `idle`.
    async fn stands_still(&self, idle: Duration) {
        loop {
            let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() >= idle {
                return;
            }
            sleep_until(last + idle).await;
        }
    }
}

/// The bytes of a request, in portions that are paid for.
fn upload(
    body: impl Body<Data = Bytes, Error = HttpError> + Send + Unpin + 'static,
    throttle: Option<Arc<Throttle>>,
    moved: Arc<Moved>,
) -> impl Stream<Item = Result<Bytes, HttpError>> + Send {
    let start = (body, Bytes::new());
    stream::try_unfold(start, move |(mut body, mut rest)| {
        let (throttle, moved) = (throttle.clone(), Arc::clone(&moved));
        async move {
            while rest.is_empty() {
                match body.frame().await.transpose()?.map(Frame::into_data) {
                    Some(Ok(data)) => rest = data,
                    Some(Err(_)) => {}
                    None => return Ok(None),
                }
            }
            let portion = match throttle {
                Some(throttle) => {
                    let portion = rest.split_to(rest.len().min(throttle.portion()));
                    throttle.pay(portion.len() as u64).await;
                    portion
                }
                None => rest.split_to(rest.len().min(256 << 10)),
            };
            moved.now();
            Ok(Some((portion, (body, rest))))
        }
    })
}

/// The bytes of an answer. Ends with an error when none come for a while.
struct Download {
    body: reqwest::Body,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Body for Download {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let next = Instant::now() + self.idle;
            self.timer.as_mut().reset(next);
            return Poll::Ready(frame.map(|frame| frame.map_err(http_error)));
        }
        ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(timed_out(self.idle))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Sorts the failures of the client as `object_store` does.
fn http_error(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else {
        HttpErrorKind::Interrupted
    };
    // The caller names the object; the URL would say it again, longer.
    HttpError::new(kind, error.without_url())
}

fn timed_out(idle: Duration) -> HttpError {
    let text = format!("nothing moved for {} seconds", idle.as_secs_f32());
    HttpError::new(HttpErrorKind::Timeout, std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}
