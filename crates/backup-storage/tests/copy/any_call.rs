//! A copy that fails or dies at any call to either store.

use std::sync::Arc;
use std::time::Duration;

use backup_storage::Repo;
use object_store::path::Path;

use crate::common::fault::{EACCES, ETIMEDOUT, Fault, FaultStore};
use crate::common::world::{Inner, backups, manifests, memory, objects, open, store};
use crate::common::{context, no_panic, options};
use crate::{World, all_whole, copy_all, quick, world};

/// Fails or dies at every call, of the source or of the target; then runs again in peace.
async fn at_every_call(same: bool, at_target: bool) {
    for fault in [
        Fault::CrashBefore,
        Fault::CrashAfter,
        Fault::FailBefore(EACCES),
        Fault::FailAfter(EACCES),
        Fault::FailBefore(ETIMEDOUT),
    ] {
        for at in 0.. {
            let what = format!("{fault:?} at call {at}, same {same}, at target {at_target}");
            let cx = context();
            let world = world(&cx, 2).await;
            let to = memory();
            if !same {
                Repo::init_on(&cx, store(&to, "target"), quick()).await.unwrap();
            }
            let before = backups(&world.inner).await;
            let faulty = FaultStore::new(if at_target { &to } else { &world.inner }, at, fault);
            let hurt_store: Inner = faulty.clone();
            let hurt = {
                let (from, to) = if at_target {
                    (Arc::clone(&world.inner), hurt_store)
                } else {
                    (hurt_store, Arc::clone(&to))
                };
                let (cx, manifests) = (cx.clone(), world.manifests.clone());
                async move {
                    let repo = Repo::open_on(&cx, store(&from, "memory"), options()).await?;
                    let world = World { inner: from, repo, manifests, samples: Vec::new() };
                    copy_all(&cx, &world, &to).await
                }
            };
            // Of its own, so that whatever a process does that died ends with it.
            let process = tokio::runtime::Runtime::new().unwrap();
            let ended = tokio::select! {
                result = process.spawn(hurt) => Some(result.unwrap()),
                () = faulty.crashed() => None,
            };
            let end = move || process.shutdown_timeout(Duration::from_secs(60));
            tokio::task::spawn_blocking(end).await.unwrap();
            assert_eq!(backups(&world.inner).await, before, "{what}: the source was changed");
            if objects(&to).await.contains_key(&Path::from("holdfast.json")) {
                all_whole(&cx, &world, &to, &what).await;
            }
            if fault == Fault::FailBefore(ETIMEDOUT) {
                ended.as_ref().unwrap().as_ref().unwrap_or_else(|e| panic!("{what}: {e:?}"));
            }
            if let Some(Err(e)) = &ended {
                no_panic(e);
            }
            copy_all(&cx, &world, &to).await.unwrap_or_else(|e| panic!("{what}: again: {e:?}"));
            all_whole(&cx, &world, &to, &what).await;
            assert_eq!(manifests(&cx, &open(&cx, &to).await).await.len(), 2, "{what}");
            if same {
                let mut there = backups(&to).await;
                there.retain(|p, _| !p.filename().unwrap().starts_with("active"));
                assert_eq!(there, before, "{what}");
            }
            if !faulty.struck() {
                assert!(at > 10, "{what}: only {at} calls");
                ended.unwrap().unwrap();
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_may_fail_or_die_at_any_call_to_the_target() {
    at_every_call(true, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_may_fail_or_die_at_any_call_to_the_source() {
    at_every_call(true, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_to_another_repository_may_fail_or_die_at_any_call_to_it() {
    at_every_call(false, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_to_another_repository_may_fail_or_die_at_any_call_to_the_source() {
    at_every_call(false, false).await;
}
