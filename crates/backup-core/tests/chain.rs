//! Chains of backups: in order, whole, or refused with the place where they break.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use backup_core::{BackupChain, BackupId, BackupType, Chain, Error, ErrorKind, Manifest};
use proptest::prelude::*;
use serde_json::json;

fn id(number: u32, kind: BackupType) -> BackupId {
    let kind = match kind {
        BackupType::Full => "full",
        BackupType::Incremental => "incr",
        BackupType::Differential => "diff",
    };
    format!("20261120T{:02}{:02}00Z-{kind}-{number:06x}", number / 60, number % 60).parse().unwrap()
}

fn backup(number: u32, kind: BackupType, parent: Option<&Manifest>) -> Manifest {
    let id = id(number, kind);
    let time = id.started_at().to_string();
    serde_json::from_value(json!({
        "format": 1, "backup": id, "cluster": "shop", "strategy": "physical", "type": kind,
        "parent": parent.map(|p| &p.backup), "started_at": time, "finished_at": time, "writer": "test",
        "source": {"flavor": "mariadb", "version": "10.11.19", "address": "db1", "server_id": 1, "server_uuid": "a"},
        "position": {}, "consistency": {"level": "exact", "reason": "test"},
        "lock_seconds": 0.0, "rows": null,
        "totals": {"artifacts": 0, "bytes_read": 0, "bytes_new": 0, "bytes_stored": 0},
        "packs": [], "index": {"name": "index", "bytes": 0, "sha256": ""},
    }))
    .unwrap()
}

/// A full backup, two increments on it, and a differential one.
fn family() -> [Manifest; 4] {
    let full = backup(0, BackupType::Full, None);
    let first = backup(1, BackupType::Incremental, Some(&full));
    let second = backup(2, BackupType::Incremental, Some(&first));
    let differential = backup(3, BackupType::Differential, Some(&full));
    [full, first, second, differential]
}

fn ids<'a>(manifests: impl IntoIterator<Item = &'a Manifest>) -> Vec<BackupId> {
    manifests.into_iter().map(|m| m.backup.clone()).collect()
}

#[test]
fn a_chain_goes_from_the_full_backup_to_the_last() {
    let known = family();
    let [full, first, second, differential] = &known;
    let chain = BackupChain::to(second, &known);
    assert_eq!(ids(chain.links()), ids([full, first, second]));
    chain.check().unwrap();
    assert_eq!(chain.plan(&second.backup).unwrap().backups, ids([full, first, second]));
    assert_eq!(chain.plan(&first.backup).unwrap().backups, ids([full, first]));
    assert_eq!(chain.plan(&full.backup).unwrap().backups, ids([full]));
    let other = chain.plan(&differential.backup).unwrap_err();
    assert!(other.to_string().contains("is not on this chain") && !other.passed, "{other}");
    let chain = BackupChain::to(differential, &known);
    assert_eq!(ids(chain.links()), ids([full, differential]));
    chain.check().unwrap();
}

#[test]
fn a_backup_that_is_missing_is_named() {
    let known = family();
    for lost in 0..2 {
        let rest: Vec<Manifest> =
            known.iter().enumerate().filter(|(n, _)| *n != lost).map(|(_, m)| m.clone()).collect();
        let chain = BackupChain::to(&known[2], &rest);
        let broken = chain.check().unwrap_err();
        assert_eq!(broken.link, known[lost].backup.to_string());
        assert!(broken.problem.contains("not in the repository"), "{broken}");
        let unreachable = chain.plan(&known[2].backup).unwrap_err();
        assert!(unreachable.to_string().contains(known[lost].backup.as_str()), "{unreachable}");
        assert_eq!(Error::from(broken).kind(), ErrorKind::Damaged);
        assert_eq!(Error::from(unreachable).kind(), ErrorKind::Unreachable);
    }
}

#[test]
fn backups_that_name_each_other_as_parents_end() {
    let [full, mut first, mut second, _] = family();
    first.parent = Some(second.backup.clone());
    second.parent = Some(first.backup.clone());
    let chain = BackupChain::to(&second, &[full.clone(), first, second.clone()]);
    assert_eq!(chain.check().unwrap_err().problem, "is its own ancestor");
    let mut alone = second;
    alone.parent = Some(alone.backup.clone());
    let chain = BackupChain::to(&alone, &[full, alone.clone()]);
    assert_eq!(chain.check().unwrap_err().problem, "is its own ancestor");
}

#[test]
fn links_that_do_not_join_are_told() {
    type Change = fn(&mut [Manifest; 4]);
    let cases: [(Change, usize, &str); 7] = [
        (|f| f[1].cluster = "other".parse().unwrap(), 1, "another cluster or strategy"),
        (|f| f[2].strategy = backup_core::Strategy::Clone, 2, "another cluster or strategy"),
        (|f| f[2].outcome.source.server_uuid = Some("b".into()), 2, "another server"),
        (|f| f[1].outcome.source.server_uuid = None, 1, "another server"),
        (|f| f[0].backup_type = BackupType::Incremental, 0, "has no parent"),
        (|f| f[1].backup_type = BackupType::Full, 1, "is full but has a parent"),
        (|f| f[2].backup_type = BackupType::Differential, 2, "is not full"),
    ];
    for (change, link, problem) in cases {
        let mut known = family();
        change(&mut known);
        let broken = BackupChain::to(&known[2], &known).check().unwrap_err();
        assert_eq!(broken.link, known[link].backup.to_string(), "{broken}");
        assert!(broken.problem.contains(problem), "{broken}");
    }
}

proptest! {
    /// Whatever there is, a plan is the way from a full backup to the one that was asked for, each the
    /// parent of the next, and there is one exactly where nothing on that way is missing.
    #[test]
    fn a_plan_is_the_way_and_nothing_more(
        parents in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8), 1..40),
        lost in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        asked in any::<prop::sample::Index>(),
    ) {
        let mut all: Vec<Manifest> = Vec::new();
        for (number, (parent, kind)) in (0..).zip(&parents) {
            let made = match (kind, all.is_empty()) {
                (0, _) | (_, true) => backup(number, BackupType::Full, None),
                (1, _) => {
                    let full: Vec<&Manifest> =
                        all.iter().filter(|m| m.backup_type == BackupType::Full).collect();
                    backup(number, BackupType::Differential, Some(full[parent.index(full.len())]))
                }
                _ => backup(number, BackupType::Incremental, Some(&all[parent.index(all.len())])),
            };
            all.push(made);
        }
        let target = asked.get(&all).clone();
        let lost: Vec<BackupId> = lost.iter().map(|n| n.get(&all).backup.clone()).collect();
        let known: Vec<Manifest> =
            all.iter().filter(|m| !lost.contains(&m.backup)).cloned().collect();

        let mut way = vec![&target];
        while let Some(parent) = &way[way.len() - 1].parent {
            way.push(all.iter().find(|m| &m.backup == parent).unwrap());
        }
        let gone = way[1..].iter().find(|m| lost.contains(&m.backup)).map(|m| m.backup.clone());
        way.reverse();
        let chain = BackupChain::to(&target, &known);
        match (chain.plan(&target.backup), gone) {
            (Ok(plan), None) => prop_assert_eq!(plan.backups, ids(way)),
            (Err(e), Some(gone)) => prop_assert!(e.problem.contains(gone.as_str()), "{}", e),
            (plan, gone) => prop_assert!(false, "{:?} {:?}", plan, gone),
        }
    }
}
