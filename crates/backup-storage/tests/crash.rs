//! The crash matrix: a backup that fails or dies before or after each of its calls to the store.
//!
//! Whatever happens: earlier backups stay as they are, bit for bit; a backup is there if and only if
//! its manifest is, and then it is whole; the next backup works.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Context, Error, ErrorKind, Manifest, Repository};
use backup_storage::{Repo, Store, check_content, check_objects};
use bytes::Bytes;
use common::fault::{EACCES, EIO, ENOSPC, ETIMEDOUT, Fault, FaultStore};
use common::{Sample, back_up, context, listening, memory_repo, options, restore_all, samples};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

type Objects = BTreeMap<Path, Bytes>;

async fn objects(store: &Arc<dyn ObjectStore>) -> Objects {
    let metas: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut all = Objects::new();
    for meta in metas {
        let bytes = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
        all.insert(meta.location, bytes);
    }
    all
}

fn store(inner: Arc<dyn ObjectStore>) -> Store {
    Store::new(inner, "memory").with_retry(Duration::from_millis(1), Duration::from_millis(2), 3)
}

/// What the second backup came to.
enum Second {
    Done(Box<Manifest>),
    Failed(Error),
    Died,
}

struct After {
    second: Second,
    /// Whether the chosen call was reached at all.
    struck: bool,
    /// Objects that the second backup left, its manifest among them or not.
    left: Vec<Path>,
}

/// Backs up once in peace and once with a fault; then checks what must hold in any case.
async fn second_backup(
    what: String,
    faulty: impl FnOnce(&Arc<dyn ObjectStore>) -> Arc<FaultStore>,
) -> After {
    let cx = context();
    let samples: Vec<Sample> = samples().into_iter().take(4).collect();
    let (repo, inner) = memory_repo(&cx).await;
    let first = back_up(&cx, &repo, &samples).await.unwrap();
    let before = objects(&inner).await;

    let faulty = faulty(&inner);
    let hurt = async {
        let repo = Repo::open_on(&cx, store(faulty.clone()), options()).await?;
        back_up(&cx, &repo, &samples).await
    };
    let second = tokio::select! {
        result = hurt => result.map_or_else(Second::Failed, |m| Second::Done(Box::new(m))),
        () = faulty.crashed() => Second::Died,
    };

    let after = objects(&inner).await;
    for (path, bytes) in &before {
        assert_eq!(after.get(path), Some(bytes), "{what}: {path} was changed");
    }
    let left: Vec<Path> = after.into_keys().filter(|p| !before.contains_key(p)).collect();
    let has_manifest = left.iter().any(|p| p.filename() == Some("manifest"));

    let listed = repo.backups(&cx, None).await.unwrap();
    let mut listed: Vec<Manifest> = listed.into_iter().map(|l| l.manifest.unwrap()).collect();
    let at = listed
        .iter()
        .position(|m| m == &first)
        .unwrap_or_else(|| panic!("{what}: the first is gone"));
    listed.remove(at);
    assert_eq!(listed.len(), usize::from(has_manifest), "{what}: a manifest makes a backup");
    if let Second::Done(manifest) = &second {
        assert_eq!(listed.first(), Some(&**manifest), "{what}: what was reported as done is there");
    }
    let third = back_up(&cx, &repo, &samples).await.unwrap();
    for manifest in listed.iter().chain([&first, &third]) {
        restore_all(&cx, &repo, manifest, &samples).await.unwrap();
        let report = check_content(&cx, &repo, manifest).await.unwrap();
        assert!(report.findings.is_empty(), "{what}: {:?}", report.findings);
        let report = check_objects(&cx, &repo, manifest).await.unwrap();
        assert!(report.ok(), "{what}: {:?}", report.findings);
    }
    After { second, struck: faulty.struck(), left }
}

/// Runs a fault at every call until there is none left to hurt. Threads race, so some runs make a few
/// calls less than others: the last ones are sure to be met only when several runs are left unhurt.
async fn at_every_call(fault: Fault, mut check: impl FnMut(u64, After)) {
    const UNHURT: u32 = 6;
    let mut unhurt = 0;
    for at in 0.. {
        let what = format!("{fault:?} at call {at}");
        let after = second_backup(what, |inner| FaultStore::new(inner, at, fault)).await;
        if after.struck {
            check(at, after);
            continue;
        }
        assert!(at >= 7, "only {at} calls");
        assert!(matches!(after.second, Second::Done(_)));
        unhurt += 1;
        if unhurt == UNHURT {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dying_before_any_call() {
    at_every_call(Fault::CrashBefore, |at, after| {
        assert!(matches!(after.second, Second::Died), "call {at}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dying_after_any_call() {
    at_every_call(Fault::CrashAfter, |at, after| {
        assert!(matches!(after.second, Second::Died), "call {at}");
    })
    .await;
}

/// The last call that matters. Which number it has varies, so it is met by its name.
#[tokio::test(flavor = "multi_thread")]
async fn dying_around_the_manifest() {
    for (fault, complete) in [(Fault::CrashBefore, false), (Fault::CrashAfter, true)] {
        let what = format!("{fault:?} at the manifest");
        let after =
            second_backup(what, |inner| FaultStore::at_object(inner, "manifest", fault)).await;
        assert!(matches!(after.second, Second::Died), "{fault:?}");
        let left = |name| after.left.iter().any(|p| p.filename() == Some(name));
        assert_eq!(left("manifest"), complete, "{fault:?}: {:?}", after.left);
        assert!(left("active"), "{fault:?}: {:?}", after.left);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_failure_is_no_failure() {
    for fault in [Fault::FailBefore(ETIMEDOUT), Fault::FailAfter(ETIMEDOUT)] {
        at_every_call(fault, |at, after| match after.second {
            Second::Done(_) => {
                assert!(!after.left.iter().any(|p| p.filename() == Some("active")));
            }
            Second::Failed(e) => panic!("{fault:?} at call {at}: {e:?}"),
            Second::Died => panic!("nobody dies here"),
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_good_leaves_nothing() {
    for (errno, kind) in [(EACCES, ErrorKind::Store), (ENOSPC, ErrorKind::Space)] {
        let mut failed = 0;
        at_every_call(Fault::FailBefore(errno), |at, after| match after.second {
            Second::Failed(e) => {
                failed += 1;
                assert_eq!(e.kind(), kind, "call {at}: {e:?}");
                let kept = e.report().contains("holdfast list");
                assert_eq!(kept, !after.left.is_empty(), "call {at}: {:?}: {e:?}", after.left);
            }
            // The marker could not be removed, or something that is only compared with not be read:
            // then it is stored anew.
            Second::Done(_) => {}
            Second::Died => panic!("nobody dies here"),
        })
        .await;
        assert!(failed >= 5, "{failed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_but_reported_as_failed_is_removed_or_whole() {
    at_every_call(Fault::FailAfter(EACCES), |at, after| match after.second {
        Second::Failed(e) => {
            assert_eq!(e.kind(), ErrorKind::Store, "call {at}: {e:?}");
            if !after.left.is_empty()
                && !after.left.iter().any(|p| p.filename() == Some("manifest"))
            {
                // The answer to the marker's creation is all that can leave something alone.
                assert!(
                    after.left.iter().all(|p| p.filename() == Some("active")),
                    "{:?}",
                    after.left
                );
            }
        }
        Second::Done(_) => {}
        Second::Died => panic!("nobody dies here"),
    })
    .await;
}

/// Reading: a store that fails is an error of the store, a medium that fails is damage.
#[tokio::test(flavor = "multi_thread")]
async fn reading_from_a_failing_store() {
    let (cx, _) = listening();
    let (repo, inner) = memory_repo(&cx).await;
    let samples = samples();
    let manifest = back_up(&cx, &repo, &samples).await.unwrap();
    for (errno, kind) in [(EACCES, ErrorKind::Store), (EIO, ErrorKind::Damaged)] {
        let mut failed = 0;
        for at in 0.. {
            let faulty = FaultStore::new(&inner, at, Fault::FailBefore(errno));
            let result = restore_from(&cx, faulty.clone(), &manifest, &samples).await;
            if !faulty.struck() {
                result.unwrap();
                assert!(at > 6, "only {at} calls");
                break;
            }
            if let Err(e) = result {
                failed += 1;
                // Without holdfast.json there is no repository whose damage it could be.
                let kind = if at == 0 { ErrorKind::Store } else { kind };
                assert_eq!(e.kind(), kind, "call {at}: {e:?}");
            }
        }
        assert!(failed >= 5, "{failed}");
    }
    for at in 0.. {
        let faulty = FaultStore::new(&inner, at, Fault::FailBefore(ETIMEDOUT));
        restore_from(&cx, faulty.clone(), &manifest, &samples).await.unwrap();
        if !faulty.struck() {
            break;
        }
    }
}

async fn restore_from(
    cx: &Context,
    faulty: Arc<FaultStore>,
    manifest: &Manifest,
    samples: &[Sample],
) -> backup_core::Result<()> {
    let repo = Repo::open_on(cx, store(faulty), options()).await?;
    restore_all(cx, &repo, manifest, samples).await
}
