//! Copies in other repositories: byte for byte where the target is a copy, written anew where it is
//! another repository.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use backup_core::retention::Policy;
use backup_core::{Clock, Context, ErrorKind, Manifest, RecordEvent, Repository, Result, Severity};
use backup_storage::{
    Copied, CopyConsent, CopyOptions, CopyTarget, PruneOptions, Repo, RepositoryOptions,
    check_content, check_objects, copy_backup, in_order, prune,
};
use common::fault::{EACCES, EIO, ETIMEDOUT, Fault, FaultStore};
use common::world::{
    Inner, backups, hurt, later, lose, manifests, memory, objects, open, path, put, store,
};
use common::{
    Lock, Sample, back_up, builder, context, listening, memory_repo, memory_repo_of, options,
    read_checked, restore_all, samples,
};
use jiff::{SignedDuration, Timestamp};
use object_store::path::Path;

/// Leases of copies that died are taken over at once.
fn quick() -> RepositoryOptions {
    RepositoryOptions { heartbeat: Duration::from_millis(10), ..options() }
}

/// A repository with three backups, of which the later ones refer to the first.
struct World {
    inner: Inner,
    repo: Repo,
    manifests: Vec<Manifest>,
    samples: Vec<Vec<Sample>>,
}

async fn world(cx: &Context, days: u64) -> World {
    let (repo, inner) = memory_repo(cx).await;
    let first: Vec<Sample> = samples().into_iter().take(4).collect();
    let mut world = World { inner, repo, manifests: Vec::new(), samples: Vec::new() };
    for day in 0..days {
        let samples = later(&first, day);
        world.manifests.push(back_up(cx, &world.repo, &samples).await.unwrap());
        world.samples.push(samples);
    }
    world
}

async fn target(cx: &Context, from: &Repo, to: &Inner) -> Result<CopyTarget> {
    CopyTarget::open_on(cx, from, store(to, "target"), quick(), CopyConsent::default()).await
}

/// Copies all, again where this machine was too busy to renew a lease of 30 ms.
async fn copy_all(cx: &Context, world: &World, to: &Inner) -> Result<Vec<Copied>> {
    for _ in 0..50 {
        match copy_once(cx, world, to).await {
            Err(e) if e.kind() == ErrorKind::Busy => {}
            other => return other,
        }
    }
    copy_once(cx, world, to).await
}

async fn copy_once(cx: &Context, world: &World, to: &Inner) -> Result<Vec<Copied>> {
    let target = target(cx, &world.repo, to).await?;
    let mut all = Vec::new();
    for manifest in in_order(&world.manifests, &[]) {
        all.push(copy_backup(cx, &world.repo, &target, &manifest, CopyOptions::default()).await?);
    }
    target.close().await?;
    Ok(all)
}

/// Sees that a repository has whole backups and nothing else under their names.
async fn all_whole(cx: &Context, world: &World, to: &Inner, what: &str) {
    let repo = open(cx, to).await;
    for manifest in manifests(cx, &repo).await {
        let n = world.manifests.iter().position(|m| m.backup == manifest.backup).unwrap();
        let report = check_content(cx, &repo, &manifest).await.unwrap();
        assert!(report.findings.is_empty(), "{what}: {:?}", report.findings);
        let report = check_objects(cx, &repo, &manifest).await.unwrap();
        assert!(report.ok(), "{what}: {:?}", report.findings);
        restore_all(cx, &repo, &manifest, &world.samples[n]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_place_becomes_a_copy_byte_for_byte() {
    let cx = context();
    let world = world(&cx, 3).await;
    assert!(world.manifests[1].needs.iter().any(|n| n.backup == world.manifests[0].backup));
    let to = memory();
    let copied = copy_all(&cx, &world, &to).await.unwrap();
    assert!(copied.iter().all(|c| !c.already && c.sent > 0 && c.verified), "{copied:?}");
    assert_eq!(backups(&to).await, backups(&world.inner).await);
    let config = Path::from("holdfast.json");
    assert_eq!(objects(&to).await[&config], objects(&world.inner).await[&config]);
    all_whole(&cx, &world, &to, "copy").await;

    // The history says where copies are; run again, nothing is sent and nothing more is said.
    let records = world.repo.records(&cx, &"shop".parse().unwrap()).await.unwrap();
    let copies: Vec<_> = records
        .iter()
        .filter(|r| {
            matches!(&r.event, RecordEvent::Copied { to, repository, verified: true, bytes }
            if to == "target" && repository == world.repo.id().as_str() && *bytes > 0)
        })
        .collect();
    assert_eq!(copies.len(), 3, "{records:?}");
    let before = (objects(&world.inner).await, objects(&to).await);
    let copied = copy_all(&cx, &world, &to).await.unwrap();
    assert!(copied.iter().all(|c| c.already && c.sent == 0 && !c.verified), "{copied:?}");
    assert_eq!((objects(&world.inner).await, objects(&to).await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_repository_gets_the_same_artifacts_under_its_own_id() {
    let cx = context();
    let world = world(&cx, 3).await;
    let to = memory();
    let other = Repo::init_on(&cx, store(&to, "target"), quick()).await.unwrap();
    let copied = copy_all(&cx, &world, &to).await.unwrap();
    assert!(copied.iter().all(|c| !c.already && c.verified));
    let again = copy_all(&cx, &world, &to).await.unwrap();
    assert!(again.iter().all(|c| c.already && !c.verified));
    assert_ne!(other.id(), world.repo.id());
    all_whole(&cx, &world, &to, "other").await;
    for (there, here) in manifests(&cx, &other).await.iter().zip(&world.manifests) {
        assert_eq!(
            (&there.backup, &there.parent, &there.outcome, there.strategy, there.backup_type),
            (&here.backup, &here.parent, &here.outcome, here.strategy, here.backup_type)
        );
        assert_eq!((there.started_at, there.finished_at), (here.started_at, here.finished_at));
        let list = async |repo: &Repo, m: &Manifest| {
            repo.artifacts(&cx, m).await.unwrap().list().await.unwrap()
        };
        assert_eq!(list(&other, there).await, list(&world.repo, here).await);
    }
    let before = objects(&to).await;
    let copied = copy_all(&cx, &world, &to).await.unwrap();
    assert!(copied.iter().all(|c| c.already && c.sent == 0));
    let backups_only = |mut all: common::world::Objects| {
        all.retain(|p, _| p.as_ref().contains("/backups/"));
        all
    };
    assert_eq!(backups_only(objects(&to).await), backups_only(before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_none_for_a_copy_is_refused() {
    let cx = context();
    let world = world(&cx, 1).await;
    // The repository itself, by another name.
    let e = target(&cx, &world.repo, &world.inner).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Usage, "{e:?}");
    assert!(!objects(&world.inner).await.keys().any(|p| p.as_ref().starts_with("locks/copy-")));
    // Somebody's files.
    let to = memory();
    put(&to, &"mine.txt".into(), "mine".into()).await;
    let e = target(&cx, &world.repo, &to).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Store, "{e:?}");
    assert_eq!(objects(&to).await.len(), 1);
    // A place that had copies and is empty: a disk that is not mounted.
    let to = memory();
    copy_all(&cx, &world, &to).await.unwrap();
    let empty = memory();
    let e = target(&cx, &world.repo, &empty).await.unwrap_err();
    assert!(e.report().contains("mounted"), "{e:?}");
    assert!(objects(&empty).await.is_empty());
    let anew = CopyConsent { anew: true, ..CopyConsent::default() };
    let begun = CopyTarget::open_on(&cx, &world.repo, store(&empty, "target"), quick(), anew).await;
    assert!(begun.unwrap().is_same());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_encrypted_is_stored_in_the_clear_unless_that_is_wanted() {
    let cx = context();
    let (repo, inner) = memory_repo_of(&cx, Lock::Encrypted).await;
    let samples: Vec<Sample> = samples().into_iter().take(2).collect();
    let manifest = back_up(&cx, &repo, &samples).await.unwrap();
    let to = memory();
    let clear = Repo::init_on(&cx, store(&to, "target"), quick()).await.unwrap();
    let there = objects(&to).await;
    let world = World { inner, repo, manifests: vec![manifest], samples: vec![samples] };
    let e = copy_all(&cx, &world, &to).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Usage, "{e:?}");
    assert!(e.report().contains("in the clear"), "{}", e.report());
    assert_eq!(objects(&to).await, there);

    let wanted = CopyConsent { clear_text: true, ..CopyConsent::default() };
    let open =
        |options| CopyTarget::open_on(&cx, &world.repo, store(&to, "target"), options, wanted);
    // Who gives a key means to encrypt.
    let keyed = RepositoryOptions { unlock: Some(common::key_file(8)), ..quick() };
    assert_eq!(open(keyed).await.unwrap_err().kind(), ErrorKind::Usage);
    let target = open(quick()).await.unwrap();
    copy_backup(&cx, &world.repo, &target, &world.manifests[0], CopyOptions::default())
        .await
        .unwrap();
    target.close().await.unwrap();
    assert_eq!(manifests(&cx, &clear).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_in_the_place_of_a_copy_is_given_nothing() {
    let cx = context();
    let world = world(&cx, 1).await;
    copy_all(&cx, &world, &memory()).await.unwrap();
    let to = memory();
    Repo::init_on(&cx, store(&to, "target"), quick()).await.unwrap();
    let there = objects(&to).await;
    let e = target(&cx, &world.repo, &to).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Store, "{e:?}");
    assert!(e.report().contains("was a copy of this repository"), "{}", e.report());
    assert!(e.remedy().contains("--anew"), "{}", e.report());
    assert_eq!(objects(&to).await, there);
    // Who has said once that it is meant need not say it again.
    let anew = CopyConsent { anew: true, ..CopyConsent::default() };
    let target = CopyTarget::open_on(&cx, &world.repo, store(&to, "target"), quick(), anew).await;
    let target = target.unwrap();
    copy_backup(&cx, &world.repo, &target, &world.manifests[0], CopyOptions::default())
        .await
        .unwrap();
    target.close().await.unwrap();
    assert!(copy_all(&cx, &world, &to).await.unwrap()[0].already);
    // The other way round too: it was that repository, and is a third one now.
    let third = memory();
    Repo::init_on(&cx, store(&third, "target"), quick()).await.unwrap();
    let e = self::target(&cx, &world.repo, &third).await.unwrap_err();
    assert!(e.report().contains("was repository"), "{}", e.report());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_at_the_source_is_not_passed_on() {
    for object in ["pack-0", "manifest"] {
        let cx = context();
        let world = world(&cx, 1).await;
        hurt(&world.inner, &path(&world.manifests[0], object)).await;
        let to = memory();
        let e = copy_all(&cx, &world, &to).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Damaged, "{object}: {e:?}");
        let there = backups(&to).await;
        assert!(!there.contains_key(&path(&world.manifests[0], "manifest")), "{object}");
        assert!(!there.contains_key(&path(&world.manifests[0], object)), "{object}");
        assert!(manifests(&cx, &open(&cx, &to).await).await.is_empty());
        // Neither to another repository.
        let other = memory();
        Repo::init_on(&cx, store(&other, "target"), quick()).await.unwrap();
        if object == "pack-0" {
            let e = copy_all(&cx, &world, &other).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Damaged, "{object}: {e:?}");
            assert!(backups(&other).await.is_empty(), "{object}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_goes_only_with_one_that_stands_in_for_it() {
    let cx = context();
    let world = world(&cx, 1).await;
    let manifest = &world.manifests[0];
    hurt(&world.inner, &path(manifest, "index")).await;
    let to = memory();
    let e = copy_all(&cx, &world, &to).await.unwrap_err();
    assert!(e.report().contains("repair index"), "{e:?}");
    backup_storage::repair_index(&cx, &world.repo, manifest).await.unwrap();
    copy_all(&cx, &world, &to).await.unwrap();
    let there = backups(&to).await;
    assert!(!there.contains_key(&path(manifest, "index")));
    let repo = open(&cx, &to).await;
    restore_all(&cx, &repo, manifest, &world.samples[0]).await.unwrap();
    assert!(check_content(&cx, &repo, manifest).await.unwrap().ok());
    let copied = copy_all(&cx, &world, &to).await.unwrap();
    assert!(copied[0].already);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_at_the_target_is_told_and_mended() {
    let cx = context();
    let world = world(&cx, 2).await;
    let to = memory();
    copy_all(&cx, &world, &to).await.unwrap();
    let good = backups(&to).await;
    // What is gone is sent again: one object, and no other.
    lose(&to, &path(&world.manifests[0], "pack-0")).await;
    let copied = copy_all(&cx, &world, &to).await.unwrap();
    assert_eq!(copied[0].objects, 1);
    assert_eq!(backups(&to).await, good);
    // What is damaged is found where it is looked for, and never overwritten without a word.
    hurt(&to, &path(&world.manifests[0], "pack-0")).await;
    let target = target(&cx, &world.repo, &to).await.unwrap();
    let verify = CopyOptions { verify: true, ..CopyOptions::default() };
    let copy = |options| copy_backup(&cx, &world.repo, &target, &world.manifests[0], options);
    let e = copy(verify).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Damaged);
    assert!(e.report().contains("--replace-damaged"), "{e:?}");
    let copied = copy(CopyOptions { replace_damaged: true, ..verify }).await.unwrap();
    assert_eq!(copied.objects, 1);
    // A manifest too: flipped, or cut to nothing.
    let manifest = path(&world.manifests[0], "manifest");
    for cut in [false, true] {
        match cut {
            true => put(&to, &manifest, "".into()).await,
            false => hurt(&to, &manifest).await,
        }
        let e = copy(verify).await.unwrap_err();
        assert!(e.report().contains("--replace-damaged"), "{e:?}");
        let copied = copy(CopyOptions { replace_damaged: true, ..verify }).await.unwrap();
        assert_eq!(copied.objects, 1);
        assert_eq!(backups(&to).await, good);
    }
    assert_eq!(backups(&to).await, good);
}

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

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_at_once_do_not_disturb_each_other() {
    let cx = context();
    let world = world(&cx, 2).await;
    let to = memory();
    copy_all(&cx, &self::world(&cx, 0).await, &memory()).await.unwrap();
    drop(target(&cx, &world.repo, &to).await.unwrap());
    let (a, b) = tokio::join!(copy_all(&cx, &world, &to), copy_all(&cx, &world, &to));
    a.unwrap();
    b.unwrap();
    assert_eq!(backups(&to).await, backups(&world.inner).await);
}

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
                common::no_panic(e);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_keeps_other_bytes_is_found_out() {
    for same in [true, false] {
        let mut found = 0;
        for at in 0.. {
            let what = format!("at call {at}, same {same}");
            let cx = context();
            let world = world(&cx, 2).await;
            let to = memory();
            if !same {
                Repo::init_on(&cx, store(&to, "target"), quick()).await.unwrap();
            }
            let faulty = FaultStore::new(&to, at, Fault::Garble);
            let hurt: Inner = faulty.clone();
            let result = copy_all(&cx, &world, &hurt).await;
            found += usize::from(result.is_err());
            let opened = Repo::open_on(&cx, store(&to, "target"), quick()).await;
            assert!(opened.is_ok() || result.is_err(), "{what}: {opened:?}");
            if let Ok(repo) = opened {
                // A manifest that arrived damaged is no backup, and there is no other damage.
                for listed in repo.backups(&cx, None).await.unwrap() {
                    let Ok(manifest) = listed.manifest else { continue };
                    let report = check_content(&cx, &repo, &manifest).await.unwrap();
                    assert!(report.findings.is_empty(), "{what}: {:?}", report.findings);
                }
            }
            if !faulty.struck() {
                break;
            }
        }
        // Which call is which varies from run to run; what was not struck was looked at above.
        assert!(found >= 3, "{found} of the packs, indexes and manifests");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrived_is_not_sent_again() {
    let cx = context();
    let world = world(&cx, 1).await;
    let to = memory();
    let mut sent = 0;
    // Dies after a few calls more each time, until it gets through.
    for at in (12..).step_by(6) {
        let faulty = FaultStore::new(&to, at, Fault::CrashAfter);
        let hurt: Inner = faulty.clone();
        let died = tokio::select! {
            result = copy_all(&cx, &world, &hurt) => { sent += result.unwrap()[0].objects; false }
            () = faulty.crashed() => true,
        };
        if !died {
            break;
        }
        let there = backups(&to).await.len();
        // The marker is no object of the backup.
        let objects = there.saturating_sub(1) as u64;
        if objects >= 2 {
            let target = target(&cx, &world.repo, &to).await.unwrap();
            let options = CopyOptions::default();
            let all = backups(&world.inner).await.len() as u64;
            let copied =
                copy_backup(&cx, &world.repo, &target, &world.manifests[0], options).await.unwrap();
            assert_eq!(copied.objects + objects, all, "some were sent twice");
            sent += copied.objects;
            break;
        }
    }
    assert!(sent > 0);
    all_whole(&cx, &world, &to, "resumed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_falls_back_to_a_copy_and_says_so() {
    for damage in ["lost pack", "damaged pack", "lost index", "lost manifest", "bad medium"] {
        let (cx, warnings) = listening();
        let world = world(&cx, 2).await;
        let [first, second] = &world.manifests[..] else { panic!() };
        let to = memory();
        copy_all(&cx, &world, &to).await.unwrap();
        match damage {
            "lost pack" => lose(&world.inner, &path(first, "pack-0")).await,
            "damaged pack" => {
                for pack in &first.packs {
                    hurt(&world.inner, &path(first, &pack.name)).await;
                }
            }
            "lost index" => lose(&world.inner, &path(second, "index")).await,
            "lost manifest" => lose(&world.inner, &path(second, "manifest")).await,
            _ => {}
        }
        let alone = open(&cx, &world.inner).await;
        let report = check_content(&cx, &alone, second).await.unwrap();
        assert_eq!(report.ok(), damage == "bad medium", "{damage}: {:?}", report.findings);
        // The first two calls open the repository.
        let faulty = FaultStore::new(&world.inner, 4, Fault::FailBefore(EIO));
        let hurt: Inner = faulty.clone();
        let inner = if damage == "bad medium" { &hurt } else { &world.inner };
        let repo = open(&cx, inner).await.with_copy_stores(&cx, vec![store(&to, "the copy")]);
        warnings.take();
        let listed = repo.backups(&cx, None).await.unwrap();
        let manifest = listed.into_iter().map(|l| l.manifest.unwrap()).next_back().unwrap();
        assert_eq!(&manifest, second, "{damage}");
        restore_all(&cx, &repo, second, &world.samples[1]).await.unwrap();
        let said = warnings.take();
        assert!(said.iter().any(|w| w.contains("the copy")), "{damage}: {said:?}");
        // A verification is not deceived by it.
        if damage != "bad medium" {
            let report = check_content(&cx, &repo, second).await.unwrap();
            assert!(!report.ok(), "{damage}");
        }
        // A copy that is damaged in the same place is no help, and no wrong byte comes of it.
        if damage == "damaged pack" {
            common::world::hurt(&to, &path(first, "pack-0")).await;
            let source = repo.artifacts(&cx, first).await.unwrap();
            let mut lost = 0;
            for sample in &world.samples[0] {
                if let Err(e) = read_checked(&*source, &sample.name, &sample.content()).await {
                    assert_eq!(e.kind(), ErrorKind::Damaged);
                    lost += 1;
                }
            }
            assert!(lost > 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_a_shared_pack_names_all_whom_it_hits() {
    let cx = context();
    let world = world(&cx, 3).await;
    let [first, second, third] = &world.manifests[..] else { panic!() };
    let shared = &third.needs.iter().find(|n| n.backup == first.backup).unwrap().packs[0];
    for lost in [false, true] {
        let pack = path(first, &shared.name);
        if lost {
            lose(&world.inner, &pack).await;
        } else {
            hurt(&world.inner, &pack).await;
        }
        let report = match lost {
            true => check_objects(&cx, &world.repo, second).await.unwrap(),
            false => check_content(&cx, &world.repo, second).await.unwrap(),
        };
        let named = report.findings.iter().any(|f| {
            f.severity == Severity::Error
                && f.object.ends_with(pack.as_ref())
                && f.problem.contains(first.backup.as_str())
                && f.problem.contains(third.backup.as_str())
        });
        assert!(named, "{lost}: {:#?}", report.findings);
    }
}
