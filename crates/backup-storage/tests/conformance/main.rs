//! One suite for every kind of store, and what is special about single kinds.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../common/mod.rs"]
mod common;

mod directory;
mod external;
mod refusals;
mod repository;
mod server;
mod suite;
mod thaw;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use backup_storage::Store;
use common::fault::{ETIMEDOUT, Fault, FaultStore};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use server::{Dialect, Server};

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    suite::conforms(&Store::new(Arc::new(InMemory::new()), "memory")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_conforms() {
    let dir = tempfile::tempdir().unwrap();
    suite::conforms(&Store::local(dir.path()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms() {
    let server = Server::start(Dialect::S3).await;
    suite::conforms(&server.store("a/b.c").await).await;
    let puts: Vec<_> = server.seen().into_iter().filter(|seen| seen.method == "PUT").collect();
    assert!(puts.len() > 1_000);
    for put in puts {
        assert_eq!(put.headers["if-none-match"], "*", "{}", put.path);
        assert!(put.headers.contains_key("x-amz-checksum-sha256"), "{}", put.path);
        assert!(put.headers["x-amz-content-sha256"].len() == 64, "{}", put.path);
        assert!(put.path.starts_with("/backups/a/b.c/"), "{}", put.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_bucket_conforms() {
    let server = Server::start(Dialect::S3).await;
    suite::conforms(&server.store("").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oss_conforms() {
    let server = Server::start(Dialect::Oss).await;
    suite::conforms(&server.store("db").await).await;
    for seen in server.seen() {
        assert!(!seen.headers.contains_key("if-none-match"));
        assert_eq!(seen.headers["host"], "backups.oss-cn-test.example", "{}", seen.path);
        if seen.method == "PUT" {
            assert_eq!(seen.headers["x-oss-forbid-overwrite"], "true");
            let signed = seen.headers["authorization"].to_str().unwrap();
            assert!(signed.contains("x-oss-forbid-overwrite"), "{signed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_create_only_puts_conforms_but_for_the_race() {
    let server = Server::start(Dialect::Deaf).await;
    let url = server.url_with("db", "&create-only=look-first");
    suite::conforms_without_races(&server.store_with(&url, &server.options()).await).await;
}

/// Every call of the suite in turn is answered with a time-out, once before and once after its work.
#[tokio::test(flavor = "multi_thread")]
async fn stores_conform_whichever_call_fails_once() {
    for fault in [Fault::FailBefore(ETIMEDOUT), Fault::FailAfter(ETIMEDOUT)] {
        let mut at = 0;
        loop {
            let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let faulty = FaultStore::new(&inner, at, fault);
            let (first, longest) = (Duration::from_millis(1), Duration::from_millis(2));
            let store = Store::new(faulty.clone(), "faulty").with_retry(first, longest, 3);
            suite::conforms_in_small(&store).await;
            if !faulty.struck() {
                break;
            }
            at += 1;
        }
        assert!(at > 20, "{at}");
    }
}
