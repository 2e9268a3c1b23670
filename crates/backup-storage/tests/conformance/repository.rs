//! Whole repositories in object stores: backed up, verified, restored, damaged, interrupted.

use std::path::{Path, PathBuf};

use backup_core::{ErrorKind, Manifest, Repository};
use backup_storage::{Repo, check_content, check_objects};
use http::Method;

use crate::common::{back_up, context, options, restore_all, samples};
use crate::server::{Dialect, Fault, Server};

async fn repo(server: &Server) -> Repo {
    Repo::init_on(&context(), server.store("my/repo").await, options()).await.unwrap()
}

/// Asserts that a backup is whole, by every way of looking at it.
async fn is_whole(repo: &Repo, manifest: &Manifest) {
    let cx = context();
    for report in
        [check_objects(&cx, repo, manifest).await, check_content(&cx, repo, manifest).await]
    {
        let findings = report.unwrap().findings;
        assert!(findings.is_empty(), "{findings:?}");
    }
    restore_all(&cx, repo, manifest, &samples()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_come_back_from_object_stores() {
    for dialect in [Dialect::S3, Dialect::Oss] {
        let (cx, server) = (context(), Server::start(dialect).await);
        let first = back_up(&cx, &repo(&server).await, &samples()).await.unwrap();
        let again = Repo::init_on(&cx, server.store("my/repo").await, options()).await.unwrap_err();
        assert!(again.to_string().contains("already"), "{again:?}");
        let repo = Repo::open_on(&cx, server.store("my/repo").await, options()).await.unwrap();
        let second = back_up(&cx, &repo, &samples()).await.unwrap();
        let listed = repo.backups(&cx, None).await.unwrap();
        let ids: Vec<_> = listed.iter().map(|listed| listed.backup.clone()).collect();
        assert_eq!(ids, [first.backup.clone(), second.backup.clone()]);
        for manifest in [first, second] {
            is_whole(&repo, &manifest).await;
        }
    }
}

fn files(under: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_a_bucket_is_found_and_never_restored() {
    let (cx, server) = (context(), Server::start(Dialect::S3).await);
    let repo = repo(&server).await;
    let manifest = back_up(&cx, &repo, &samples()).await.unwrap();
    let packs: Vec<PathBuf> = files(&server.files("my/repo"))
        .into_iter()
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("pack-"))
        .collect();
    assert_eq!(packs.len(), manifest.packs.len());
    let mut refused = 0;
    for path in packs {
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 3] ^= 4;
        for damaged in [Some(flipped), Some(whole[..whole.len() / 2].to_vec()), None] {
            match damaged {
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            assert!(!check_content(&cx, &repo, &manifest).await.unwrap().ok());
            // It compares what it reads with the truth; a restore does not read all of a pack.
            if let Err(error) = restore_all(&cx, &repo, &manifest, &samples()).await {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
                refused += 1;
            }
        }
        std::fs::write(&path, whole).unwrap();
    }
    assert!(refused >= manifest.packs.len(), "{refused}");
    is_whole(&repo, &manifest).await;
}

/// A store that fails for good in the middle: there is no backup, and the next one works.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_away_leaves_no_half_backup() {
    let (cx, server) = (context(), Server::start(Dialect::S3).await);
    let repo = repo(&server).await;
    let first = back_up(&cx, &repo, &samples()).await.unwrap();
    for object in ["pack-0", "index", "manifest"] {
        server.hurt(Method::PUT, object, 1, Fault::Answer(403, "AccessDenied", "no"));
        let error = back_up(&cx, &repo, &samples()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Store, "{error:?}");
        assert_eq!(server.pending(), 0);
        assert_eq!(repo.backups(&cx, None).await.unwrap().len(), 1);
    }
    is_whole(&repo, &first).await;
    let second = back_up(&cx, &repo, &samples()).await.unwrap();
    is_whole(&repo, &second).await;
}

/// Every request of a backup is answered once with a cut connection, before or after its work.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_harms_no_backup() {
    let (cx, server) = (context(), Server::start(Dialect::S3).await);
    let repo = repo(&server).await;
    for fault in [Fault::CutBefore, Fault::CutAfter, Fault::Answer(503, "SlowDown", "busy")] {
        for object in ["pack-0", "index", "manifest", "active"] {
            server.hurt(Method::PUT, object, 1, fault.clone());
        }
        server.hurt(Method::GET, "pack-0", 2, Fault::CutBody);
        let manifest = back_up(&cx, &repo, &samples()).await.unwrap();
        is_whole(&repo, &manifest).await;
        assert_eq!(server.pending(), 0);
    }
}
