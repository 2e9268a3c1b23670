//! What stores refuse, and what a person is told to do about it.

use std::net::TcpListener;

use backup_core::{Error, ErrorKind, Secret};
use backup_storage::{
    BackupObject, Credentials, Deleted, Key, Repo, RepositoryOptions, Store, StoreOptions,
};
use bytes::Bytes;
use http::Method;

use crate::common::context;
use crate::server::{Dialect, Fault, KEY_ID, SECRET, Server};
use crate::suite;

fn pack(n: u32) -> Key {
    suite::key("shop", BackupObject::Pack(n))
}

fn key(id: &str, secret: &str) -> StoreOptions {
    StoreOptions {
        credentials: Some(Credentials::Key {
            id: id.into(),
            secret: Secret::new(secret),
            token: None,
        }),
        ..StoreOptions::default()
    }
}

/// The parts are all in what a person reads; no secret is.
fn says(error: &Error, kind: ErrorKind, parts: &[&str]) {
    let report = error.report();
    assert_eq!(error.kind(), kind, "{report}");
    for part in parts {
        assert!(report.contains(part), "`{part}` is not in: {report}");
    }
    for hidden in [SECRET, "a-wrong-secret", "Signature=", "Credential="] {
        assert!(!report.contains(hidden) && !format!("{error:?}").contains(hidden), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_told_apart() {
    let server = Server::start(Dialect::S3).await;
    let url = server.url("db");
    let store = server.store_with(&url, &key("AKIAWRONG", SECRET)).await;
    let error = store.get(&Key::Config, 100).await.unwrap_err();
    says(&error, ErrorKind::Store, &["holdfast.json", "s3://backups/db", "AWS_ACCESS_KEY_ID"]);
    let store = server.store_with(&url, &key(KEY_ID, "a-wrong-secret")).await;
    let error = store.create(&pack(0), Bytes::new()).await.unwrap_err();
    says(&error, ErrorKind::Store, &["SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"]);
    // Neither passes by itself.
    assert_eq!(store.counts().puts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_nothing_is_asked() {
    let server = Server::start(Dialect::S3).await;
    for (url, part) in [
        (server.url("db"), "AWS_ACCESS_KEY_ID"),
        ("oss://b?region=r".parse().unwrap(), "OSS_ACCESS_KEY_ID"),
    ] {
        let error = Store::open(&context(), &url, &StoreOptions::default()).await.unwrap_err();
        says(&error, ErrorKind::Usage, &[part]);
    }
    assert!(server.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_no_empty_repository() {
    let server = Server::start(Dialect::S3).await;
    let text = server.url("db").to_string().replace("backups", "elsewhere");
    let store = server.store_with(&text.parse().unwrap(), &server.options()).await;
    let parts = ["NoSuchBucket", "create the bucket"];
    says(&store.get(&Key::Config, 100).await.unwrap_err(), ErrorKind::Store, &parts);
    says(&store.create(&pack(0), Bytes::new()).await.unwrap_err(), ErrorKind::Store, &parts);
    let error =
        Repo::open_on(&context(), store.clone(), RepositoryOptions::default()).await.unwrap_err();
    says(&error, ErrorKind::Store, &parts);
    says(
        &Repo::init_on(&context(), store, RepositoryOptions::default()).await.unwrap_err(),
        ErrorKind::Store,
        &parts,
    );
}

/// What servers of other makes answer, played back.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_their_remedies() {
    let server = Server::start(Dialect::S3).await;
    let store = server.store("db").await;
    for (status, code, message, part) in [
        (403, "AccessDenied", "Access Denied", "s3:ListBucket"),
        (403, "RequestTimeTooSkewed", "The difference between …", "clock"),
        (403, "InvalidObjectState", "The operation is not valid …", "holdfast thaw"),
        (400, "AuthorizationHeaderMalformed", "expecting 'eu-1'", "region"),
        (301, "PermanentRedirect", "must be addressed using …", "region"),
        (400, "ExpiredToken", "The provided token has expired.", "AWS_SESSION_TOKEN"),
        (501, "NotImplemented", "A header you provided …", "create-only"),
        (405, "MethodNotAllowed", "not allowed", "the store's own"),
    ] {
        let before = store.counts().gets;
        server.hurt(Method::GET, "pack-0", 1, Fault::Answer(status, code, message));
        let error = store.get(&pack(0), 100).await.unwrap_err();
        says(&error, ErrorKind::Store, &["pack-0", "s3://backups/db", code, part, "R-1"]);
        assert_eq!(store.counts().gets, before + 1, "{code} was tried again");
    }
    server.hurt(Method::PUT, "pack-0", 1, Fault::Answer(507, "InsufficientStorage", "full"));
    let error = store.create(&pack(0), Bytes::new()).await.unwrap_err();
    says(&error, ErrorKind::Space, &["quota"]);
    let region = Fault::AnswerWith(400, "", ("x-amz-bucket-region", "ap-south-9"));
    server.hurt(Method::HEAD, "pack-0", 1, region);
    let error = store.head(&pack(0)).await.unwrap_err();
    says(&error, ErrorKind::Store, &["region=ap-south-9"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_the_store_keeps_is_recognised() {
    let server = Server::start(Dialect::S3).await;
    let store = server.store("db").await;
    for n in 0..2 {
        store.create(&pack(n), Bytes::from_static(b"kept")).await.unwrap();
    }
    server.hold(&format!("db/{}", pack(0)));
    let kept = async || match store.try_delete(&pack(0)).await.unwrap() {
        Deleted::Refused(error) => error,
        Deleted::Gone => panic!("it was removed"),
    };
    says(&kept().await, ErrorKind::Store, &["retention"]);
    assert!(matches!(store.try_delete(&pack(1)).await.unwrap(), Deleted::Gone));
    assert_eq!(store.get(&pack(0), 100).await.unwrap().unwrap(), "kept");
    let error = store.delete(&pack(0)).await.unwrap_err();
    says(&error, ErrorKind::Store, &["retention"]);
    // So is a key without the right to delete.
    server.hurt(Method::DELETE, "pack-0", 1, Fault::Answer(403, "AccessDenied", "Access Denied"));
    says(&kept().await, ErrorKind::Store, &["s3:DeleteObject"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_not_made_where_objects_are_overwritten() {
    let server = Server::start(Dialect::Deaf).await;
    let store = server.store("db").await;
    let error = Repo::init_on(&context(), store, RepositoryOptions::default()).await.unwrap_err();
    says(&error, ErrorKind::Store, &["overwrites objects", "create-only=look-first"]);
    assert_eq!(server.files("db").read_dir().unwrap().count(), 0, "the probe is left behind");
    let url = server.url_with("db", "&create-only=look-first");
    let store = server.store_with(&url, &server.options()).await;
    Repo::init_on(&context(), store, RepositoryOptions::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn oss_is_named_where_its_answer_to_a_conditional_put_is_seen() {
    let server = Server::start(Dialect::Oss).await;
    let url = server.url_with("db", "&create-only=if-none-match");
    let store = server.store_with(&url, &server.options()).await;
    let error = Repo::init_on(&context(), store, RepositoryOptions::default()).await.unwrap_err();
    says(&error, ErrorKind::Store, &["501", "oss:// URL"]);
    let url = server.url_with("db", "&path-style=true");
    let store = server.store_with(&url, &server.options()).await;
    let error = store.get(&pack(0), 100).await.unwrap_err();
    says(&error, ErrorKind::Store, &["SecondLevelDomainForbidden", "path-style"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_given_up_soon_and_named() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (endpoint, part) in [
        (format!("http://127.0.0.1:{port}"), "Connection refused"),
        (format!("https://127.0.0.1:{port}"), "Connection refused"),
        ("http://no-such-host.invalid".to_owned(), "correct the endpoint"),
    ] {
        let url = format!("s3://b/p?endpoint={endpoint}").parse().unwrap();
        let store = Store::open(&context(), &url, &key(KEY_ID, SECRET)).await.unwrap();
        let error = store.get(&Key::Config, 100).await.unwrap_err();
        says(&error, ErrorKind::Store, &[part, "s3://b/p"]);
        assert!(store.counts().gets <= 3, "{endpoint}: {:?}", store.counts());
    }
    // A store that speaks no TLS.
    let server = Server::start(Dialect::S3).await;
    let url = format!("s3://b/p?endpoint=https://{}", server.address).parse().unwrap();
    let store = Store::open(&context(), &url, &key(KEY_ID, SECRET)).await.unwrap();
    let error = store.get(&Key::Config, 100).await.unwrap_err();
    says(&error, ErrorKind::Store, &["http:// in the endpoint"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_certificates_are_checked() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (path, part) in [("/no/such/file", "cannot read"), (file.path().to_str().unwrap(), "PEM")] {
        let url = format!("s3://b?ca={path}").parse().unwrap();
        let error = Store::open(&context(), &url, &key(KEY_ID, SECRET)).await.unwrap_err();
        says(&error, ErrorKind::Usage, &[part, path]);
    }
}
