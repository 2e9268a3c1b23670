//! Indexes made anew from the packs.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use backup_core::{ErrorKind, Severity};
use backup_storage::{Repair, check_content, check_objects, repair_index};
use common::fault::{EACCES, Fault, FaultStore};
use common::world::{Inner, backups, hurt, lose, memory, objects, open, path, put, store};
use common::{back_up, context, listening, memory_repo, options, restore_all, samples};

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_damaged_index_is_rebuilt_and_then_all_is_well() {
    for lost in [true, false] {
        let (cx, warnings) = listening();
        let (repo, inner) = memory_repo(&cx).await;
        let samples = samples();
        let manifest = back_up(&cx, &repo, &samples).await.unwrap();
        assert_eq!(repair_index(&cx, &repo, &manifest).await.unwrap(), Repair::Whole);
        let index = path(&manifest, "index");
        if lost {
            lose(&inner, &index).await;
        } else {
            hurt(&inner, &index).await;
        }
        let before = backups(&inner).await;

        // Before the repair a restore works too, from the packs, with a warning.
        restore_all(&cx, &repo, &manifest, &samples).await.unwrap();
        assert!(warnings.take().iter().any(|w| w.contains("rebuilt from its packs")));
        assert!(!check_content(&cx, &repo, &manifest).await.unwrap().ok());

        let repaired = repair_index(&cx, &repo, &manifest).await.unwrap();
        let Repair::Rebuilt { object, artifacts, .. } = &repaired else { panic!("{repaired:?}") };
        assert_eq!((object.as_str(), *artifacts), ("index-1", manifest.totals.artifacts));
        let mut after = backups(&inner).await;
        assert!(after.remove(&path(&manifest, "index-1")).is_some());
        assert_eq!(after, before, "nothing else was touched");
        let again = repair_index(&cx, &repo, &manifest).await.unwrap();
        assert_eq!(again, Repair::StandsIn { object: "index-1".into() });

        warnings.take();
        restore_all(&cx, &repo, &manifest, &samples).await.unwrap();
        assert_eq!(warnings.take(), Vec::<String>::new(), "a repaired backup needs no warning");
        let content = check_content(&cx, &repo, &manifest).await.unwrap();
        assert!(content.ok(), "{:?}", content.findings);
        assert!(
            content
                .findings
                .iter()
                .any(|f| f.severity == Severity::Warning && f.problem.contains("index-1"))
        );
        let listing = check_objects(&cx, &repo, &manifest).await.unwrap();
        assert!(listing.ok(), "{:?}", listing.findings);

        // A rebuilt index that is damaged helps nobody, and hurts nobody.
        hurt(&inner, &path(&manifest, "index-1")).await;
        restore_all(&cx, &repo, &manifest, &samples).await.unwrap();
        let repaired = repair_index(&cx, &repo, &manifest).await.unwrap();
        assert!(matches!(repaired, Repair::Rebuilt { object, .. } if object == "index-2"));
        warnings.take();
        restore_all(&cx, &repo, &manifest, &samples).await.unwrap();
        assert_eq!(warnings.take(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_lacks_artifacts_is_not_made() {
    let cx = context();
    let (repo, inner) = memory_repo(&cx).await;
    let samples = samples();
    let manifest = back_up(&cx, &repo, &samples).await.unwrap();
    lose(&inner, &path(&manifest, "index")).await;
    let last = manifest.packs.last().unwrap().name.clone();
    let pack = objects(&inner).await[&path(&manifest, &last)].clone();
    lose(&inner, &path(&manifest, &last)).await;
    let e = repair_index(&cx, &repo, &manifest).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Damaged);
    assert!(e.report().contains("--tables"), "{}", e.report());
    assert!(!objects(&inner).await.contains_key(&path(&manifest, "index-1")));
    // With the pack comes the rest.
    put(&inner, &path(&manifest, &last), pack).await;
    repair_index(&cx, &repo, &manifest).await.unwrap();
    restore_all(&cx, &repo, &manifest, &samples).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_may_fail_or_die_at_any_call() {
    for fault in
        [Fault::CrashBefore, Fault::CrashAfter, Fault::FailBefore(EACCES), Fault::FailAfter(EACCES)]
    {
        for at in 0.. {
            let what = format!("{fault:?} at call {at}");
            let cx = context();
            let (repo, inner) = memory_repo(&cx).await;
            let samples = samples();
            let manifest = back_up(&cx, &repo, &samples).await.unwrap();
            lose(&inner, &path(&manifest, "index")).await;
            let before = backups(&inner).await;
            let faulty = FaultStore::new(&inner, at, fault);
            let hurt = async {
                let faulty: Inner = faulty.clone();
                let store = store(&faulty, "memory");
                let repo = backup_storage::Repo::open_on(&cx, store, options()).await?;
                repair_index(&cx, &repo, &manifest).await
            };
            let done = tokio::select! {
                result = hurt => result.is_ok(),
                () = faulty.crashed() => false,
            };
            for (path, bytes) in &before {
                assert_eq!(backups(&inner).await.get(path), Some(bytes), "{what}: {path}");
            }
            let repo = open(&cx, &inner).await;
            let again = repair_index(&cx, &repo, &manifest).await.unwrap();
            assert_ne!(again, Repair::Whole, "{what}");
            restore_all(&cx, &repo, &manifest, &samples).await.unwrap();
            assert!(check_content(&cx, &repo, &manifest).await.unwrap().ok(), "{what}");
            if !faulty.struck() {
                assert!(done && at >= 6, "only {at} calls");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_repairs_at_once_make_two_indexes_or_one() {
    let cx = context();
    let (repo, inner) = memory_repo(&cx).await;
    let manifest = back_up(&cx, &repo, &samples()).await.unwrap();
    lose(&inner, &path(&manifest, "index")).await;
    let both =
        tokio::join!(repair_index(&cx, &repo, &manifest), repair_index(&cx, &repo, &manifest));
    both.0.unwrap();
    both.1.unwrap();
    assert!(check_content(&cx, &repo, &manifest).await.unwrap().ok());
    let _ = memory();
}
