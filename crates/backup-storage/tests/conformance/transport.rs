//! What happens on the way: answers that are lost, bursts of refusals, bits that flip, silence.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::ErrorKind;
use backup_storage::{BackupObject, Created, Key, StoreOptions};
use bytes::Bytes;
use http::Method;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::common::noise;
use crate::server::{Dialect, Fault, Server};
use crate::suite;

fn pack(n: u32) -> Key {
    suite::key("shop", BackupObject::Pack(n))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_whose_answer_was_lost_is_ours() {
    for dialect in [Dialect::S3, Dialect::Oss] {
        let server = Server::start(dialect).await;
        let store = server.store("db").await;
        server.hurt(Method::PUT, "pack-0", 1, Fault::CutAfter);
        let bytes = Bytes::from(noise(1, 100_000));
        assert_eq!(store.create(&pack(0), bytes.clone()).await.unwrap(), Created::New);
        assert_eq!(store.get(&pack(0), 1 << 20).await.unwrap(), Some(bytes));
        assert_eq!(store.counts().puts, 2);
        // Not so when the other writer's bytes are others.
        server.hurt(Method::PUT, "pack-0", 1, Fault::CutBefore);
        let other = Bytes::from(noise(2, 100_000));
        assert_eq!(store.create(&pack(0), other).await.unwrap(), Created::Exists);
        assert_eq!(server.pending(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_are_made_again() {
    let server = Server::start(Dialect::S3).await;
    let store = server.store("db").await;
    let bytes = Bytes::from(noise(3, 300_000));
    for fault in [Fault::CutBefore, Fault::CutAfter] {
        for method in [Method::PUT, Method::GET, Method::HEAD, Method::DELETE] {
            server.hurt(method, "", 2, fault.clone());
        }
        assert_eq!(store.create(&pack(0), bytes.clone()).await.unwrap(), Created::New);
        assert_eq!(store.get(&pack(0), 1 << 20).await.unwrap().unwrap(), bytes);
        assert_eq!(store.len(&pack(0)).await.unwrap(), Some(300_000));
        server.hurt(Method::GET, "", 2, fault);
        assert_eq!(store.get_range(&pack(0), 5..9).await.unwrap().unwrap(), bytes[5..9]);
        server.hurt(Method::GET, "", 1, Fault::CutBody);
        assert_eq!(store.get(&pack(0), 1 << 20).await.unwrap().unwrap(), bytes);
        store.delete(&pack(0)).await.unwrap();
        assert_eq!(store.len(&pack(0)).await.unwrap(), None);
        assert_eq!(server.pending(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bursts_of_refusals_are_sat_out() {
    let server = Server::start(Dialect::S3).await;
    let store = server.store("db").await;
    for (status, code) in [
        (503, "SlowDown"),
        (500, "InternalError"),
        (502, ""),
        (504, ""),
        (429, "TooManyRequests"),
        (408, "RequestTimeout"),
        (409, "ConditionalRequestConflict"),
    ] {
        server.hurt(Method::PUT, "pack", 3, Fault::Answer(status, code, "busy"));
        server.hurt(Method::GET, "pack", 3, Fault::Answer(status, code, "busy"));
        let bytes = Bytes::from_static(b"patience");
        assert_eq!(store.create(&pack(0), bytes.clone()).await.unwrap(), Created::New, "{code}");
        assert_eq!(store.get(&pack(0), 100).await.unwrap(), Some(bytes));
        store.delete(&pack(0)).await.unwrap();
        assert_eq!(server.pending(), 0, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pause_that_the_store_asks_for_is_kept() {
    let server = Server::start(Dialect::S3).await;
    let store = server.store("db").await;
    let busy = Fault::AnswerWith(503, "SlowDown", ("retry-after", "1"));
    server.hurt(Method::GET, "pack", 2, busy);
    let started = Instant::now();
    assert_eq!(store.get(&pack(0), 100).await.unwrap(), None);
    assert!(started.elapsed() >= Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn patience_ends() {
    let server = Server::start(Dialect::S3).await;
    let options = StoreOptions { patience: Duration::from_millis(300), ..server.options() };
    let store = server.store_with(&server.url("db"), &options).await;
    let store = store.with_retry(Duration::from_millis(10), Duration::from_millis(20), 1_000_000);
    server.hurt(Method::GET, "pack", usize::MAX, Fault::Answer(503, "SlowDown", "busy"));
    let error = store.get(&pack(0), 100).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    assert!(error.report().contains("SlowDown"), "{error:?}");
    assert!(error.remedy().contains("--upload-limit"), "{error:?}");
    assert!(store.counts().gets > 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_on_the_way_is_not_stored() {
    for dialect in [Dialect::S3, Dialect::Oss] {
        let server = Server::start(dialect).await;
        let store = server.store("db").await;
        server.hurt(Method::PUT, "pack-0", 1, Fault::Corrupt);
        let error = store.create(&pack(0), noise(7, 100_000)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Store, "{error:?}");
        assert!(error.remedy().contains("changed on their way"), "{error:?}");
        assert_eq!(store.get(&pack(0), 1 << 20).await.unwrap(), None);
        assert_eq!(store.counts().puts, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stands_still_is_given_up_and_asked_again() {
    let server = Server::start(Dialect::S3).await;
    let options = StoreOptions { request_timeout: Duration::from_millis(200), ..server.options() };
    let store = server.store_with(&server.url("db"), &options).await;
    server.hurt(Method::PUT, "pack-0", 1, Fault::Silence);
    server.hurt(Method::GET, "pack-0", 1, Fault::Silence);
    assert_eq!(store.create(&pack(0), noise(7, 1_000)).await.unwrap(), Created::New);
    assert_eq!(store.get(&pack(0), 1_000).await.unwrap().unwrap(), noise(7, 1_000));
    server.hurt(Method::GET, "pack-0", 100, Fault::Silence);
    let error = store.get(&pack(0), 1_000).await.unwrap_err();
    assert!(error.report().contains("nothing moved for 0.2 seconds"), "{error:?}");
}

/// The limit is on the stream: an upload that takes many times the time in which it may stand still
/// goes through, and not faster than allowed.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_keep_to_the_limit() {
    let server = Server::start(Dialect::S3).await;
    let options = StoreOptions {
        upload_limit: NonZeroU64::new(400_000),
        request_timeout: Duration::from_millis(700),
        ..server.options()
    };
    let store = server.store_with(&server.url("db"), &options).await;
    let started = Instant::now();
    let uploads = (0..4).map(|n| {
        let store = store.clone();
        async move { store.create(&pack(n), noise(n.into(), 200_000)).await.unwrap() }
    });
    futures::future::join_all(uploads).await;
    // 800,000 bytes, the last portion of which is on its way.
    assert!(started.elapsed() >= Duration::from_millis(1_800), "{:?}", started.elapsed());
    assert_eq!(store.counts().puts, 4);
    for n in 0..4 {
        let found = store.get(&pack(n), 1 << 20).await.unwrap().unwrap();
        assert_eq!(found, noise(n.into(), 200_000));
    }
}

/// A server certificate of an authority of our own, and that authority's certificate.
fn certificates() -> (TlsAcceptor, String) {
    let authority = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&authority).unwrap().pem();
    let issuer = Issuer::new(params, authority);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), ca)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_the_authority_that_the_url_names_and_no_other() {
    let (tls, ca) = certificates();
    let server = Server::start_with(Dialect::S3, Some(tls)).await;
    let error = server.store("db").await.get(&pack(0), 100).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    assert!(error.report().contains("certificate"), "{error:?}");
    assert!(error.remedy().contains("ca=FILE"), "{error:?}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca).unwrap();
    let url = server.url_with("db", &format!("&ca={}", file.path().display()));
    let store = server.store_with(&url, &server.options()).await;
    suite::conforms_in_small(&store).await;
    assert!(!server.seen().is_empty());
}
