//! An S3 server on this machine, in this process: s3s-fs, with what it lacks (create-only puts that
//! hold against other writers), and with faults. It can be Alibaba Cloud OSS as well.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::Secret;
use backup_storage::{Credentials, Proxy, RepoUrl, Store, StoreOptions};
use bytes::Bytes;
use http::header::{HOST, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::host::SingleDomain;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

pub(crate) const BUCKET: &str = "backups";
pub(crate) const KEY_ID: &str = "AKIATESTTESTTESTTEST";
pub(crate) const SECRET: &str = "not-a-real-secret-key";
const OSS_DOMAIN: &str = "oss-cn-test.example";

/// Which store it is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// S3 with conditional puts.
    S3,
    /// As S3, but deaf for `If-None-Match`, as some are.
    Deaf,
    /// Alibaba Cloud OSS: 501 to conditional puts, `x-oss-forbid-overwrite`, virtual hosts only.
    Oss,
}

/// What goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// It answers this and does nothing.
    Answer(u16, &'static str, &'static str),
    /// As `Answer`, with a header.
    AnswerWith(u16, &'static str, (&'static str, &'static str)),
    /// The connection is cut before anything is done.
    CutBefore,
    /// It does its work; the connection is cut instead of an answer.
    CutAfter,
    /// A bit of the request's body is flipped.
    Corrupt,
    /// It answers with half of the body, and cuts the connection.
    CutBody,
    /// It never answers.
    Silence,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

struct Rule {
    method: Method,
    part: String,
    times: usize,
    fault: Fault,
}

struct State {
    dialect: Dialect,
    root: PathBuf,
    service: S3Service,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
    /// One writer of a name at a time.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Names that a lock keeps.
    held: Mutex<HashSet<String>>,
    /// Objects in an archive class.
    archived: Mutex<HashMap<String, Archived>>,
}

/// An object in the class GLACIER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Archived {
    /// Nobody asked for it.
    Frozen,
    /// It was asked for.
    Thawing,
    /// It can be read.
    Thawed,
}

/// When what is thawed goes back.
pub(crate) const EXPIRY: &str = "Sun, 20 Dec 2026 00:00:00 GMT";

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    directory: TempDir,
    accepting: AbortHandle,
    scheme: &'static str,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    pub(crate) async fn start(dialect: Dialect) -> Self {
        Server::start_with(dialect, None).await
    }

    pub(crate) async fn start_with(dialect: Dialect, tls: Option<TlsAcceptor>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(directory.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        if dialect == Dialect::Oss {
            builder.set_host(SingleDomain::new(OSS_DOMAIN).unwrap());
        }
        let state = Arc::new(State {
            dialect,
            root: directory.path().to_owned(),
            service: builder.build(),
            rules: Mutex::default(),
            seen: Mutex::default(),
            locks: Mutex::default(),
            held: Mutex::default(),
            archived: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let accepting = tokio::spawn(accept(listener, tls, Arc::clone(&state))).abort_handle();
        Server { address, state, directory, accepting, scheme }
    }

    /// Where the objects of a prefix are on disk.
    pub(crate) fn files(&self, prefix: &str) -> PathBuf {
        self.directory.path().join(BUCKET).join(prefix)
    }

    pub(crate) fn url(&self, prefix: &str) -> RepoUrl {
        self.url_with(prefix, "")
    }

    pub(crate) fn url_with(&self, prefix: &str, parameters: &str) -> RepoUrl {
        let (scheme, address) = (self.scheme, self.address);
        let text = match self.state.dialect {
            Dialect::Oss => {
                format!("oss://{BUCKET}/{prefix}?endpoint=http://{OSS_DOMAIN}{parameters}")
            }
            _ => format!("s3://{BUCKET}/{prefix}?endpoint={scheme}://{address}{parameters}"),
        };
        text.parse().unwrap()
    }

    pub(crate) fn options(&self) -> StoreOptions {
        let proxy =
            Proxy { url: Secret::new(format!("http://{}", self.address)), except: String::new() };
        StoreOptions {
            credentials: Some(Credentials::Key {
                id: KEY_ID.into(),
                secret: Secret::new(SECRET),
                token: None,
            }),
            // The names of virtual hosts lead here only by way of a proxy.
            proxy: (self.state.dialect == Dialect::Oss).then_some(proxy),
            ..StoreOptions::default()
        }
    }

    /// A store on a prefix, with short pauses between attempts.
    pub(crate) async fn store(&self, prefix: &str) -> Store {
        self.store_with(&self.url(prefix), &self.options()).await
    }

    pub(crate) async fn store_with(&self, url: &RepoUrl, options: &StoreOptions) -> Store {
        let store = Store::open(&crate::common::context(), url, options).await.unwrap();
        store.with_retry(Duration::from_millis(1), Duration::from_millis(5), 6)
    }

    /// Hurts the next `times` requests of a method whose path has `part`.
    pub(crate) fn hurt(&self, method: Method, part: &str, times: usize, fault: Fault) {
        let rule = Rule { method, part: part.to_owned(), times, fault };
        self.state.rules.lock().unwrap().push(rule);
    }

    /// How many hurts are left.
    pub(crate) fn pending(&self) -> usize {
        self.state.rules.lock().unwrap().iter().map(|rule| rule.times).sum()
    }

    /// Locks an object: it cannot be removed.
    pub(crate) fn hold(&self, key: &str) {
        self.state.held.lock().unwrap().insert(format!("/{BUCKET}/{key}"));
    }

    /// Moves an object to the class GLACIER.
    pub(crate) fn freeze(&self, key: &str) {
        self.state.archived.lock().unwrap().insert(format!("/{BUCKET}/{key}"), Archived::Frozen);
    }

    /// Gives all objects back that were asked for.
    pub(crate) fn hours_pass(&self) {
        for state in self.state.archived.lock().unwrap().values_mut() {
            if *state == Archived::Thawing {
                *state = Archived::Thawed;
            }
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            match tls {
                None => serve(socket, state).await,
                Some(tls) => {
                    if let Ok(socket) = tls.accept(socket).await {
                        serve(socket, state).await;
                    }
                }
            }
        });
    }
}

async fn serve(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, state: Arc<State>) {
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { state.handle(request).await }
    });
    // It ends with an error when a fault cuts it.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
}

/// The connection is to be cut.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut")
    }
}

impl std::error::Error for Cut {}

fn answer(status: u16, code: &str, message: &str) -> Response<Body> {
    let body = format!(
        "<Error><Code>{code}</Code><Message>{message}</Message><RequestId>R-1</RequestId></Error>"
    );
    Response::builder().status(status).body(Body::from(body)).unwrap()
}

impl State {
    async fn handle(&self, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
        let (mut parts, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return Err(Cut) };
        let mut body = body.to_bytes();
        // A proxy is given the whole URL.
        parts.uri = parts.uri.path_and_query().unwrap().as_str().parse().unwrap();
        let path = self.bucket_path(&parts);
        self.seen.lock().unwrap().push(Seen {
            method: parts.method.clone(),
            path: path.clone(),
            headers: parts.headers.clone(),
        });
        let fault = self.fault(&parts.method, &path);
        match &fault {
            Some(Fault::CutBefore) => return Err(Cut),
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Answer(status, code, message)) => {
                return Ok(answer(*status, code, message));
            }
            Some(Fault::AnswerWith(status, code, (name, value))) => {
                let mut answer = answer(*status, code, "");
                answer.headers_mut().insert(*name, HeaderValue::from_static(value));
                return Ok(answer);
            }
            Some(Fault::Corrupt) => {
                let mut bytes = body.to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                body = bytes.into();
            }
            _ => {}
        }
        // As S3 answers; s3s would say 500.
        let digest =
            Sha256::digest(&body).iter().fold(String::new(), |hex, b| hex + &format!("{b:02x}"));
        let said = parts.headers.get("x-amz-content-sha256").and_then(|d| d.to_str().ok());
        if said.is_some_and(|said| said.len() == 64 && said != digest) {
            return Ok(answer(400, "XAmzContentSHA256Mismatch", "The provided …"));
        }
        let bucket = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        if !self.root.join(bucket).is_dir() {
            // s3s-fs knows that in listings only.
            return Ok(answer(404, "NoSuchBucket", "The specified bucket does not exist"));
        }
        let request = Request::from_parts(parts, body);
        let archived = self.archived.lock().unwrap().get(&path).copied();
        if request.method() == Method::POST && request.uri().query() == Some("restore=") {
            return Ok(self.restore(request, &path).await);
        }
        if request.method() == Method::GET
            && matches!(archived, Some(Archived::Frozen | Archived::Thawing))
        {
            let text = "The operation is not valid for the object's storage class";
            return Ok(answer(403, "InvalidObjectState", text));
        }
        let mut response = match self.dialect {
            Dialect::Oss => self.oss(request, &path).await,
            _ => self.s3(request, &path).await,
        };
        if let Some(archived) = archived {
            let headers = response.headers_mut();
            headers.insert("x-amz-storage-class", HeaderValue::from_static("GLACIER"));
            let restore = match archived {
                Archived::Frozen => None,
                Archived::Thawing => Some("ongoing-request=\"true\"".to_owned()),
                Archived::Thawed => {
                    Some(format!("ongoing-request=\"false\", expiry-date=\"{EXPIRY}\""))
                }
            };
            if let Some(restore) = restore {
                headers.insert("x-amz-restore", restore.parse().unwrap());
            }
        }
        match fault {
            Some(Fault::CutAfter) => return Err(Cut),
            Some(Fault::CutBody) => {
                let whole = response.body_mut().collect().await.unwrap();
                let whole = whole.to_bytes();
                let half = whole.slice(..whole.len() / 2);
                let pieces = [Ok(half), Err(std::io::Error::other("cut"))];
                let body = http_body_util::StreamBody::new(futures::stream::iter(
                    pieces.map(|piece| piece.map(hyper::body::Frame::data)),
                ));
                *response.body_mut() = Body::http_body(body);
            }
            _ => {}
        }
        Ok(response)
    }

    /// RestoreObject, as AWS documents it.
    async fn restore(&self, request: Request<Bytes>, path: &str) -> Response<Body> {
        let body = String::from_utf8(request.body().to_vec()).unwrap();
        // s3s knows the operation and checks its signature; s3s-fs does not have it.
        let checked = self.service.call(request.map(Body::from)).await.unwrap();
        if checked.status() != StatusCode::NOT_IMPLEMENTED {
            return checked;
        }
        if !body.contains("<Days>") || !body.contains("<GlacierJobParameters><Tier>") {
            return answer(400, "MalformedXML", "The XML you provided was not well-formed …");
        }
        let mut archived = self.archived.lock().unwrap();
        match archived.get_mut(path) {
            None => answer(403, "InvalidObjectState", "Restore is not allowed for the object's …"),
            Some(Archived::Thawing) => {
                answer(409, "RestoreAlreadyInProgress", "Object restore is already in progress")
            }
            Some(state) => {
                let status = if *state == Archived::Frozen { 202 } else { 200 };
                *state = if *state == Archived::Frozen { Archived::Thawing } else { *state };
                Response::builder().status(status).body(Body::empty()).unwrap()
            }
        }
    }

    /// The path with the bucket, wherever that was.
    fn bucket_path(&self, parts: &http::request::Parts) -> String {
        let host = parts.headers.get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
        match host.strip_suffix(&format!(".{OSS_DOMAIN}")) {
            Some(bucket) => format!("/{bucket}{}", parts.uri.path()),
            None => parts.uri.path().to_owned(),
        }
    }

    fn fault(&self, method: &Method, path: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap();
        let rule = rules
            .iter_mut()
            .find(|rule| rule.times > 0 && rule.method == method && path.contains(&rule.part))?;
        rule.times -= 1;
        Some(rule.fault.clone())
    }

    async fn oss(&self, mut request: Request<Bytes>, path: &str) -> Response<Body> {
        let host = request.headers().get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
        if !host.ends_with(&format!(".{OSS_DOMAIN}")) {
            return answer(
                403,
                "SecondLevelDomainForbidden",
                "Use virtual hosted style to access.",
            );
        }
        if request.method() == Method::PUT && request.headers().contains_key(IF_NONE_MATCH) {
            return answer(501, "NotImplemented", "A header you provided implies functionality …");
        }
        let forbid = request.headers().get("x-oss-forbid-overwrite");
        if request.method() == Method::PUT && forbid.is_some_and(|value| value == "true") {
            // It was not signed; s3s goes by the list of signed headers.
            request.headers_mut().insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
            let response = self.s3(request, path).await;
            return if response.status() == StatusCode::PRECONDITION_FAILED {
                answer(409, "FileAlreadyExists", "The object you specified already exists …")
            } else {
                response
            };
        }
        self.s3(request, path).await
    }

    async fn s3(&self, request: Request<Bytes>, path: &str) -> Response<Body> {
        let lock = {
            let mut locks = self.locks.lock().unwrap();
            Arc::clone(locks.entry(path.to_owned()).or_default())
        };
        let _turn = match *request.method() {
            Method::PUT => Some(lock.lock().await),
            _ => None,
        };
        if request.method() == Method::DELETE && self.held.lock().unwrap().contains(path) {
            let text = "Access Denied because object protected by object lock.";
            return answer(403, "AccessDenied", text);
        }
        if self.dialect == Dialect::Deaf && request.headers().contains_key(IF_NONE_MATCH) {
            let _ = std::fs::remove_file(self.root.join(path.trim_start_matches('/')));
        }
        self.service.call(request.map(Body::from)).await.unwrap()
    }
}
