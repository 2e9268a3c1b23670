//! Backups that a prune removes, at the source or at the target, while they are copied or after.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use backup_core::retention::Policy;
use backup_core::{Clock, Context, ErrorKind};
use backup_storage::{CopyOptions, PruneOptions, Repo, copy_backup, prune};
use jiff::{SignedDuration, Timestamp};
use object_store::path::Path;

use crate::common::world::{backups, lose, manifests, memory, objects, open, path, put, store};
use crate::common::{builder, context, restore_all};
use crate::{all_whole, copy_all, quick, target, world};

#[tokio::test(flavor = "multi_thread")]
async fn packs_of_a_removed_backup_come_along_and_say_so() {
    let cx = context();
    let world = world(&cx, 2).await;
    let [first, second] = &world.manifests[..] else { panic!() };
    // As a prune leaves it: the manifest is gone, what the second needs is kept.
    for object in ["manifest", "index"] {
        lose(&world.inner, &path(first, object)).await;
    }
    put(&world.inner, &path(first, "retired"), "{}\n".into()).await;
    let needed = &second.needs.iter().find(|n| n.backup == first.backup).unwrap().packs;
    let kept = |name: &str| needed.iter().any(|p| p.name == name);
    for pack in first.packs.iter().filter(|pack| !kept(&pack.name)) {
        lose(&world.inner, &path(first, &pack.name)).await;
    }
    let to = memory();
    let target = target(&cx, &world.repo, &to).await.unwrap();
    let options = CopyOptions::default();
    copy_backup(&cx, &world.repo, &target, second, options).await.unwrap();
    assert_eq!(backups(&to).await, backups(&world.inner).await);
    let repo = open(&cx, &to).await;
    assert_eq!(manifests(&cx, &repo).await.len(), 1);
    restore_all(&cx, &repo, second, &world.samples[1]).await.unwrap();

    // A backup that is copied later, whose packs were there before: the mark of removal goes.
    let cx = context();
    let world = self::world(&cx, 2).await;
    let [first, second] = &world.manifests[..] else { panic!() };
    let to = memory();
    let target = self::target(&cx, &world.repo, &to).await.unwrap();
    copy_backup(&cx, &world.repo, &target, second, options).await.unwrap();
    assert!(backups(&to).await.contains_key(&path(first, "retired")));
    copy_backup(&cx, &world.repo, &target, first, options).await.unwrap();
    assert_eq!(backups(&to).await, backups(&world.inner).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_need_of_a_removed_backup_stays_in_another_repository() {
    let cx = context();
    let world = world(&cx, 3).await;
    let to = memory();
    Repo::init_on(&cx, store(&to, "target"), quick()).await.unwrap();
    copy_all(&cx, &world, &to).await.unwrap();
    let first = &world.manifests[0];
    lose(&to, &path(first, "manifest")).await;
    put(&to, &path(first, "retired"), "{}\n".into()).await;
    let before = backups(&to).await;
    let e = copy_all(&cx, &world, &to).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Store && e.report().contains("need packs of it"), "{e:?}");
    assert_eq!(backups(&to).await, before);
    all_whole(&cx, &world, &to, "after a refusal").await;
}

/// The clock of a machine that sleeps for a day between any two looks at it.
struct Sleeper(AtomicI64);

impl Clock for Sleeper {
    fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_hours(24 * self.0.fetch_add(1, Ordering::SeqCst))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_stood_still_does_not_finish_a_backup() {
    let cx = context();
    let asleep = builder().clock(Arc::new(Sleeper(AtomicI64::new(0)))).build();
    for same in [true, false] {
        let world = world(&cx, 1).await;
        let first = &world.manifests[0];
        let to = memory();
        if !same {
            Repo::init_on(&cx, store(&to, "target"), quick()).await.unwrap();
        }
        let target = target(&cx, &world.repo, &to).await.unwrap();
        let options = CopyOptions::default();
        let e = copy_backup(&asleep, &world.repo, &target, first, options).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Busy && e.report().contains("stood still"), "{e:?}");
        assert!(!backups(&to).await.contains_key(&path(first, "manifest")));
        target.close().await.unwrap();
        let copied = copy_all(&cx, &world, &to).await.unwrap();
        // Packs and index are there already where they are the same.
        assert!(!same || copied[0].objects == 1, "{copied:?}");
        all_whole(&cx, &world, &to, "after the sleep").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_prune_at_the_target_is_about_to_remove_is_not_built_on() {
    let cx = context();
    let world = world(&cx, 2).await;
    let [first, second] = &world.manifests[..] else { panic!() };
    let to = memory();
    let target = target(&cx, &world.repo, &to).await.unwrap();
    let options = CopyOptions::default();
    copy_backup(&cx, &world.repo, &target, first, options).await.unwrap();
    let mark = serde_json::json!({
        "format": 1, "at": "2026-11-20T10:15:30Z", "writer": "t", "nonce": "00",
        "victims": [{"cluster": "shop", "backup": first.backup, "reason": "old"}],
    });
    put(&to, &"marks/20261120T101530Z-00".into(), mark.to_string().into()).await;
    let e = copy_backup(&cx, &world.repo, &target, second, options).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Busy, "{e:?}");
    assert!(!backups(&to).await.contains_key(&path(second, "manifest")));
    lose(&to, &"marks/20261120T101530Z-00".into()).await;
    copy_backup(&cx, &world.repo, &target, second, options).await.unwrap();
    all_whole(&cx, &world, &to, "after the prune").await;
}

/// A prune that stood still after it removed the manifest may go on to take the packs.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_prune_at_the_target_removed_does_not_come_back_for_a_while() {
    let cx = context();
    let world = world(&cx, 2).await;
    let [first, second] = &world.manifests[..] else { panic!() };
    let to = memory();
    copy_all(&cx, &world, &to).await.unwrap();
    let last = PruneOptions {
        policy: Policy { keep_last: 1, grace: SignedDuration::ZERO, ..Policy::default() },
        wait: SignedDuration::ZERO,
        ..PruneOptions::default()
    };
    let there = open(&cx, &to).await;
    let today = Context::builder().build();
    prune(&today, &there, &last).await.unwrap();
    assert_eq!(manifests(&cx, &there).await.len(), 1);
    // Runs of every day do not shorten it.
    prune(&today, &there, &last).await.unwrap();

    let target = target(&cx, &world.repo, &to).await.unwrap();
    let options = CopyOptions::default();
    let e = copy_backup(&cx, &world.repo, &target, first, options).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Busy && e.report().contains("a prune removed it"), "{e:?}");
    let leave = CopyOptions { leave_removed: true, ..options };
    assert!(copy_backup(&cx, &world.repo, &target, first, leave).await.unwrap().left_out);
    // Others are not kept waiting, though they need packs of it.
    assert!(copy_backup(&cx, &world.repo, &target, second, options).await.unwrap().already);
    assert_eq!(manifests(&cx, &there).await.len(), 1);

    // As a prune leaves it a week later.
    let marks: Vec<Path> =
        objects(&to).await.into_keys().filter(|p| p.as_ref().starts_with("marks/")).collect();
    assert_eq!(marks.len(), 1, "{marks:?}");
    lose(&to, &marks[0]).await;
    copy_backup(&cx, &world.repo, &target, first, options).await.unwrap();
    all_whole(&cx, &world, &to, "a week later").await;
    assert_eq!(manifests(&cx, &there).await.len(), 2);
}
