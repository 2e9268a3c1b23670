//! Verification by samples, and what verification says of many objects and of chains.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeSet;

use backup_core::{BackupType, Level, Manifest, Severity};
use backup_storage::{SamplePlan, SampleRule, check_content, check_objects, check_sample};
use common::world::{backups, hurt, lose, manifests, path};
use common::{back_up, context, memory_repo, samples};
use jiff::{SignedDuration, Timestamp};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn start() -> Timestamp {
    "2026-11-20T10:15:30Z".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_of_some_days_find_any_damage() {
    let cx = context();
    let (repo, inner) = memory_repo(&cx).await;
    for _ in 0..2 {
        back_up(&cx, &repo, &samples()).await.unwrap();
    }
    let all = manifests(&cx, &repo).await;
    let packs: u64 = all.iter().map(|m| m.packs.len() as u64).sum();
    for rule in [SampleRule::Percent(30.0), SampleRule::Bytes(2_200_000)] {
        let days = SamplePlan::new(&repo, &all, rule, start()).days();
        assert!((2..=10).contains(&days), "{rule:?}: {days}");
        let mut read = BTreeSet::new();
        for day in 0..days {
            let today = start() + DAY * i32::try_from(day).unwrap();
            let plan = SamplePlan::new(&repo, &all, rule, today);
            // The same for whoever asks on this day.
            let later = SamplePlan::new(&repo, &all, rule, today + SignedDuration::from_hours(13));
            for manifest in &all {
                assert_eq!(plan.of(&manifest.backup), later.of(&manifest.backup));
                let report = check_sample(&cx, &repo, manifest, &plan).await.unwrap();
                assert!(report.ok(), "{:?}", report.findings);
                let sampled = report.sampled.unwrap();
                assert_eq!(sampled.packs, plan.of(&manifest.backup).len() as u64);
                assert_eq!(report.level, Level::Content);
                assert!(
                    report.findings.iter().any(|f| f.severity == Severity::Info
                        && f.problem.contains("not proven by samples"))
                );
                read.extend(plan.of(&manifest.backup).into_iter().cloned());
            }
        }
        assert_eq!(read.len() as u64, packs, "{rule:?}");
    }

    let victim = all[0].packs.last().unwrap().name.clone();
    hurt(&inner, &path(&all[0], &victim)).await;
    let mut found = 0;
    for day in 0..4 {
        let today = start() + DAY * day;
        let plan = SamplePlan::new(&repo, &all, SampleRule::Percent(25.0), today);
        assert_eq!(plan.days(), 4);
        let report = check_sample(&cx, &repo, &all[0], &plan).await.unwrap();
        found += usize::from(!report.ok());
    }
    assert_eq!(found, 1, "on the day that it is its turn");
}

#[tokio::test(flavor = "multi_thread")]
async fn very_many_lost_packs_make_few_findings() {
    let cx = context();
    let (repo, inner) = memory_repo(&cx).await;
    let manifest = back_up(&cx, &repo, &samples()).await.unwrap();
    // The manifest that is verified claims packs that nobody has.
    let mut claims = manifest.clone();
    let pack = claims.packs[0].clone();
    for n in claims.packs.len()..300_000 {
        claims.packs.push(backup_core::ObjectDigest { name: format!("pack-{n}"), ..pack.clone() });
    }
    let report = check_objects(&cx, &repo, &claims).await.unwrap();
    assert!(!report.ok());
    assert!(report.findings.len() < 50, "{}", report.findings.len());
    let missing = 300_000 - manifest.packs.len() - 20;
    let rest = format!("{missing} more objects are missing");
    assert!(report.findings.iter().any(|f| f.problem == rest), "{:?}", report.findings);
    for name in backups(&inner).await.keys().filter(|p| p.filename().unwrap().starts_with("pack")) {
        lose(&inner, name).await;
    }
    let report = check_content(&cx, &repo, &manifest).await.unwrap();
    assert!(!report.ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_chain_is_a_finding() {
    let cx = context();
    let (repo, _) = memory_repo(&cx).await;
    let full = back_up(&cx, &repo, &samples()).await.unwrap();
    let child = |parent: Option<&Manifest>| Manifest {
        backup_type: BackupType::Incremental,
        parent: parent.map(|m| m.backup.clone()),
        ..full.clone()
    };
    let problems = async |manifest: &Manifest| -> Vec<String> {
        let report = check_objects(&cx, &repo, manifest).await.unwrap();
        let errors = report.findings.into_iter().filter(|f| f.severity == Severity::Error);
        errors.map(|f| f.problem).filter(|p| p.contains("chain")).collect()
    };
    assert_eq!(problems(&full).await, Vec::<String>::new());
    let other = back_up(&cx, &repo, &samples()).await.unwrap();
    assert_eq!(problems(&child(Some(&other))).await, Vec::<String>::new());
    assert!(problems(&child(Some(&full))).await[0].contains("its own parent"));
    assert!(problems(&child(None)).await[0].contains("has no parent"));
    let mut orphan = child(Some(&full));
    orphan.parent = Some("20200101T000000Z-full-000000".parse().unwrap());
    assert!(problems(&orphan).await[0].contains("is not there"));
}
