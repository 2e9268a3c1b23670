//! The suite against a real server, by hand: see docs/stores.md.

use backup_core::Secret;
use backup_storage::{Credentials, Repo, RepoUrl, Store, StoreOptions, check_content};

use crate::common::{back_up, context, options, restore_all, samples};
use crate::server::{Dialect, KEY_ID, SECRET, Server};
use crate::suite;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("set {name}"))
}

/// HOLDFAST_TEST_URL names an empty prefix, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY a key for it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a server, named by HOLDFAST_TEST_URL"]
async fn a_real_server_conforms() {
    let cx = context();
    let url: RepoUrl = variable("HOLDFAST_TEST_URL").parse().unwrap();
    let credentials = Some(Credentials::Key {
        id: variable("AWS_ACCESS_KEY_ID"),
        secret: Secret::new(variable("AWS_SECRET_ACCESS_KEY")),
        token: None,
    });
    let store_options = StoreOptions { credentials, ..StoreOptions::default() };
    let store = Store::open(&cx, &url, &store_options).await.unwrap();
    if url.to_string().contains("create-only=look-first") {
        suite::conforms_without_races(&store).await;
    } else {
        suite::conforms(&store).await;
    }
    let repo = Repo::init_on(&cx, store.clone(), options()).await.unwrap();
    let manifest = back_up(&cx, &repo, &samples()).await.unwrap();
    let repo = Repo::open_on(&cx, store.clone(), options()).await.unwrap();
    assert!(check_content(&cx, &repo, &manifest).await.unwrap().ok());
    restore_all(&cx, &repo, &manifest, &samples()).await.unwrap();
    println!("{:?}", store.counts());
}

/// An S3 server for other programs, such as `holdfast` itself: prints its address and a key for it, and
/// ends with the input.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "serves until its input ends"]
async fn a_server_for_others() {
    let server = Server::start(Dialect::S3).await;
    println!("HOLDFAST_REPO='{}'", server.url("repo"));
    println!("AWS_ACCESS_KEY_ID={KEY_ID} AWS_SECRET_ACCESS_KEY={SECRET}");
    let end =
        tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    end.await.unwrap().unwrap();
}
