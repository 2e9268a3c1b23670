//! Copies in other repositories: byte for byte where the target is a copy, written anew where it is
//! another repository.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod any_call;
#[path = "../common/mod.rs"]
mod common;
mod damage;
mod removed;

use std::time::Duration;

use backup_core::{Context, ErrorKind, Manifest, RecordEvent, Repository, Result};
use backup_storage::{
    Copied, CopyConsent, CopyOptions, CopyTarget, Repo, RepositoryOptions, check_content,
    check_objects, copy_backup, in_order,
};
use common::fault::{Fault, FaultStore};
use common::world::{Inner, backups, later, manifests, memory, objects, open, put, store};
use common::{
    Lock, Sample, back_up, context, memory_repo, memory_repo_of, options, restore_all, samples,
};
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
