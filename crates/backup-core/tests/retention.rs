//! Retention: what must hold whatever backups there are, whatever the rules and the clocks.

#![allow(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

use std::collections::BTreeSet;

use backup_core::retention::{
    Candidate, Decision, Facts, Plan, Policy, Proof, Reason, plan_marked,
};
use backup_core::{BackupId, ClusterName, Level, Record, RecordEvent, Strategy};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use proptest::prelude::*;
use proptest::strategy::Strategy as Generator;

const NOW: &str = "2026-11-20T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn id(time: Timestamp, number: usize) -> BackupId {
    let time = time.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ");
    format!("{time}-full-{number:06x}").parse().unwrap()
}

/// A full backup of `shop` that was made some hours ago.
fn full(hours: i64, number: usize) -> Candidate {
    let time = now() - SignedDuration::from_hours(hours);
    Candidate {
        cluster: "shop".parse().unwrap(),
        backup: id(time, number),
        modified: time,
        facts: Some(Facts {
            strategy: Strategy::Logical,
            parent: None,
            finished_at: time,
            partial: false,
            masked: false,
            proof: Proof::None,
        }),
    }
}

fn with(mut candidate: Candidate, change: impl FnOnce(&mut Facts)) -> Candidate {
    change(candidate.facts.as_mut().unwrap());
    candidate
}

fn kept(plan: &Plan) -> BTreeSet<(ClusterName, BackupId)> {
    plan.kept().map(|v| (v.cluster.clone(), v.backup.clone())).collect()
}

/// Which of the candidates stay, as a string of `k` and `-`.
fn shape(plan: &Plan) -> String {
    let letter = |d: &Decision| if *d == Decision::Remove { '-' } else { 'k' };
    plan.verdicts.iter().map(|v| letter(&v.decision)).collect()
}

fn days(ages: &[i64]) -> Vec<Candidate> {
    ages.iter().enumerate().map(|(i, age)| full(age * 24, i)).collect()
}

#[test]
fn the_rules_one_by_one() {
    // 2026-11-20 is a Friday.
    let all = days(&[2, 3, 4, 10, 11, 40, 41, 400]);
    let none = Policy::default;
    for (policy, expected) in [
        (none(), "kkkkkkkk"),
        (Policy { keep_last: 3, ..none() }, "kkk-----"),
        (Policy { keep_daily: 4, ..none() }, "kkkk----"),
        (Policy { keep_weekly: 2, ..none() }, "k--k----"),
        (Policy { keep_monthly: 2, ..none() }, "k----k--"),
        (Policy { keep_yearly: 2, ..none() }, "k------k"),
        (Policy { keep_within: Some(2.days()), ..none() }, "kkk-----"),
        (Policy { keep_within: Some(1.month()), ..none() }, "kkkkk---"),
        (Policy { keep_last: 1, keep_yearly: 5, ..none() }, "k------k"),
    ] {
        assert_eq!(shape(&policy.plan(&all, now())), expected, "{policy:?}");
    }
}

#[test]
fn borders_of_days_follow_the_time_zone() {
    // 23:30 and 00:30 in UTC are 00:30 and 01:30 of one day in Berlin.
    let all = [full(24 * 3 + 11, 0), full(24 * 3 + 12, 1)].map(|mut c| {
        c.backup = id(c.backup.started_at() - SignedDuration::from_mins(30), 0);
        c
    });
    let daily = Policy { keep_daily: 2, ..Policy::default() };
    assert_eq!(shape(&daily.plan(&all, now())), "kk");
    let berlin = Policy { time_zone: TimeZone::get("Europe/Berlin").unwrap(), ..daily };
    assert_eq!(shape(&berlin.plan(&all, now())), "k-");
}

#[test]
fn a_kept_increment_keeps_its_chain() {
    let base = full(100, 0);
    let middle = with(full(90, 1), |f| f.parent = Some(base.backup.clone()));
    let last = with(full(80, 2), |f| f.parent = Some(middle.backup.clone()));
    let other = full(95, 3);
    let all = [base.clone(), middle.clone(), last.clone(), other];
    let plan = Policy { keep_last: 1, ..Policy::default() }.plan(&all, now());
    assert_eq!(shape(&plan), "kkk-");
    assert_eq!(
        plan.verdicts[0].decision,
        Decision::Keep(vec![Reason::ChainOf(middle.backup.clone())])
    );
    assert_eq!(plan.verdicts[1].decision, Decision::Keep(vec![Reason::ChainOf(last.backup)]));
}

#[test]
fn the_last_proven_stays_and_a_bad_one_takes_no_place() {
    let one = Policy { keep_last: 1, ..Policy::default() };
    let proof = |level| move |f: &mut Facts| f.proof = level;
    let mut all = days(&[2, 3, 4, 5]);
    all[3] = with(all[3].clone(), proof(Proof::Ok(Level::Content)));
    all[2] = with(all[2].clone(), proof(Proof::Ok(Level::Objects)));
    assert_eq!(shape(&one.plan(&all, now())), "k--k", "the highest level counts");
    all[0] = with(all[0].clone(), proof(Proof::Failed(Level::Content)));
    assert_eq!(shape(&one.plan(&all, now())), "kk-k");
    all.truncate(2);
    all[1] = with(all[1].clone(), proof(Proof::Failed(Level::Objects)));
    assert_eq!(shape(&one.plan(&all, now())), "k-", "all are bad: the newest stays");
}

#[test]
fn young_and_future_ones_stay_and_take_no_place() {
    let one = Policy { keep_last: 1, ..Policy::default() };
    let mut all = days(&[2, 3]);
    // Dated back, but the store got it an hour ago.
    all.push(Candidate { modified: now() - SignedDuration::from_hours(1), ..full(40, 7) });
    all.push(full(5, 8));
    all.push(with(full(-2, 9), |f| f.proof = Proof::Ok(Level::Drill)));
    let plan = one.plan(&all, now());
    assert_eq!(shape(&plan), "k-kkk");
    assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    let bold = Policy { grace: SignedDuration::ZERO, ..one };
    assert_eq!(shape(&bold.plan(&all, now())), "---kk");
}

#[test]
fn grace_and_the_leeway_of_clocks_end_to_the_second() {
    let one = Policy { keep_last: 1, ..Policy::default() };
    let second = SignedDuration::from_secs(1);
    let at = |ago: SignedDuration, number| {
        let time = now() - ago;
        let made = with(full(0, number), |f| f.finished_at = time);
        Candidate { backup: id(time, number), modified: time, ..made }
    };
    let all = [at(second, 0), at(one.grace - second, 1), at(one.grace, 2), full(48, 3)];
    let plan = one.plan(&all, now());
    assert_eq!(shape(&plan), "kkk-", "the third takes the place, the first two are young");
    let Decision::Keep(reasons) = &plan.verdicts[1].decision else { panic!() };
    assert_eq!(reasons[..], [Reason::Young]);
    let Decision::Keep(reasons) = &plan.verdicts[2].decision else { panic!() };
    assert!(!reasons.contains(&Reason::Young), "{reasons:?}");

    let hour = SignedDuration::from_hours(1);
    for (ahead, warnings) in [(hour, 0), (hour + second, 1)] {
        let plan = one.plan(&[at(-ahead, 0)], now());
        assert_eq!((shape(&plan).as_str(), plan.warnings.len()), ("k", warnings));
    }
}

/// A copy brings back the parent of what is proven: young as it is, it pushes nothing out, and what it makes
/// whole is the only proven chain.
#[test]
fn a_chain_whose_parent_was_put_back_stays_and_takes_no_place() {
    let one = Policy { keep_last: 1, ..Policy::default() };
    let parent = Candidate { modified: now(), ..full(100, 0) };
    let child = with(full(90, 1), |f| {
        f.parent = Some(parent.backup.clone());
        f.proof = Proof::Ok(Level::Drill);
    });
    let all = [parent, child, full(50, 2), full(60, 3)];
    let plan = one.plan(&all, now());
    assert_eq!(shape(&plan), "kkk-");
    let Decision::Keep(reasons) = &plan.verdicts[1].decision else { panic!() };
    assert_eq!(reasons[..], [Reason::YoungChain]);
    assert_eq!(plan.removed().map(|v| &v.backup).collect::<Vec<_>>(), [&all[3].backup]);
    let said = plan.verdicts.iter().filter_map(|verdict| match &verdict.decision {
        Decision::Keep(reasons) => {
            Some(reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        Decision::Remove => None,
    });
    let child = all[1].backup.as_str();
    assert_eq!(
        said.collect::<Vec<_>>(),
        [
            format!("younger than the grace time, {child} needs it"),
            "it needs one that is younger than the grace time or of the future".to_owned(),
            "keep-last: 1 of 1, the newest, and none is proven".to_owned(),
        ]
    );
}

/// Two chains rest on a parent that is young: neither pushes the other out.
#[test]
fn a_chain_that_was_made_whole_pushes_no_other_out() {
    let yearly =
        Policy { keep_yearly: 1, grace: SignedDuration::from_hours(2), ..Policy::default() };
    let [first, second] = [full(1, 0), Candidate { modified: now(), ..full(80, 1) }];
    let child = |hours, n, parent: &Candidate| {
        with(full(hours, n), |f| {
            f.parent = Some(parent.backup.clone());
            f.proof = Proof::Ok(Level::Objects);
        })
    };
    let [older, newer] = [child(5000, 2, &first), child(70, 3, &second)];
    let before = [first, older, newer];
    assert_eq!(shape(&yearly.plan(&before, now())), "kkk");
    let after: Vec<_> = before.into_iter().chain([second]).collect();
    assert_eq!(shape(&yearly.plan(&after, now())), "kkkk");
}

#[test]
fn what_cannot_be_read_stays_and_holds_its_cluster() {
    let one = Policy { keep_last: 1, ..Policy::default() };
    let mut all = days(&[2, 3, 4]);
    all.push(Candidate { facts: None, ..full(30 * 24, 9) });
    all.extend(
        days(&[2, 3]).into_iter().map(|c| Candidate { cluster: "other".parse().unwrap(), ..c }),
    );
    let plan = one.plan(&all, now());
    assert_eq!(shape(&plan), "kkkkk-");
    assert_eq!(plan.warnings.len(), 1);
    let Decision::Keep(reasons) = &plan.verdicts[1].decision else { panic!() };
    assert_eq!(reasons[..], [Reason::MayBeNeeded(all[3].backup.clone())]);
}

#[test]
fn parts_and_masked_copies_push_no_whole_backup_out() {
    let one = Policy { keep_last: 1, ..Policy::default() };
    let mut all = days(&[2, 3, 4, 5, 6]);
    all[0] = with(all[0].clone(), |f| f.partial = true);
    all[1] = with(all[1].clone(), |f| f.masked = true);
    all[2] = with(all[2].clone(), |f| f.strategy = Strategy::Physical);
    assert_eq!(shape(&one.plan(&all, now())), "kkkk-");
}

#[test]
fn without_rules_only_what_was_marked_goes_and_the_protected_of_it_stays() {
    let mut all = days(&[2, 3, 4]);
    all[0] = with(all[0].clone(), |f| f.proof = Proof::Ok(Level::Content));
    let key = |c: &Candidate| (c.cluster.clone(), c.backup.clone());
    let marked: BTreeSet<_> = all[..2].iter().map(key).collect();
    let plan = plan_marked(&all, &marked, SignedDuration::from_hours(24), now());
    assert_eq!(shape(&plan), "k-k");
}

#[test]
fn a_proof_holds_until_one_of_its_level_fails() {
    let backup = id(now(), 1);
    let history = |proofs: &[(Level, bool)]| {
        let records: Vec<Record> = proofs
            .iter()
            .map(|&(level, ok)| Record {
                time: now(),
                backup: Some(backup.clone()),
                event: RecordEvent::Proof {
                    level,
                    ok,
                    findings: vec![],
                    duration_seconds: 0.0,
                    sampled: None,
                },
            })
            .collect();
        Proof::of(&backup, &records)
    };
    use Level::{Content, Objects};
    assert_eq!(history(&[]), Proof::None);
    assert_eq!(history(&[(Content, true), (Objects, true)]), Proof::Ok(Content));
    assert_eq!(history(&[(Content, true), (Objects, false)]), Proof::Failed(Objects));
    assert_eq!(history(&[(Content, false), (Objects, true)]), Proof::Failed(Content));
    assert_eq!(history(&[(Objects, false), (Content, true)]), Proof::Ok(Content));
    assert_eq!(
        history(&[(Content, false), (Content, true)]),
        Proof::Ok(Content),
        "it was repaired"
    );
    assert_eq!(Proof::of(&id(now(), 2), &[]), Proof::None);
}

prop_compose! {
    fn policy()(
        keep_last in 0u32..4, keep_hourly in 0u32..4, keep_daily in 0u32..4,
        keep_weekly in 0u32..3, keep_monthly in 0u32..3, keep_yearly in 0u32..3,
        within in prop::option::of(1i64..60), grace in 0i64..72,
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "Asia/Kathmandu"]),
    ) -> Policy {
        Policy {
            keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly,
            keep_within: within.map(ToSpan::days),
            grace: SignedDuration::from_hours(grace),
            time_zone: TimeZone::get(zone).unwrap(),
        }
    }
}

prop_compose! {
    fn facts()(
        physical in prop::bool::weighted(0.2), partial in prop::bool::weighted(0.2),
        masked in prop::bool::weighted(0.1), proof in 0u8..6,
    ) -> Facts {
        Facts {
            strategy: if physical { Strategy::Physical } else { Strategy::Logical },
            parent: None,
            finished_at: now(),
            partial,
            masked,
            proof: match proof {
                0 => Proof::Ok(Level::Objects),
                1 => Proof::Ok(Level::Content),
                2 => Proof::Failed(Level::Content),
                _ => Proof::None,
            },
        }
    }
}

/// Backups of two clusters, some with parents, which may be missing, younger, or their own children.
fn candidates() -> impl Generator<Value = Vec<Candidate>> {
    let one = (
        -30i64..9000,
        0i64..60,
        prop::bool::weighted(0.1),
        facts(),
        prop::option::weighted(0.3, any::<prop::sample::Index>()),
        prop::bool::weighted(0.02),
    );
    prop::collection::vec(one, 0..24).prop_map(|drawn| {
        let mut all: Vec<Candidate> = drawn
            .iter()
            .enumerate()
            .map(|(i, (hours, late, other, facts, _, unreadable))| {
                let mut candidate = full(*hours, i);
                candidate.modified += SignedDuration::from_hours(*late);
                let finished_at = candidate.backup.started_at();
                candidate.facts = (!unreadable).then(|| Facts { finished_at, ..facts.clone() });
                if *other {
                    candidate.cluster = "other".parse().unwrap();
                }
                candidate
            })
            .collect();
        let ids: Vec<BackupId> = all.iter().map(|c| c.backup.clone()).collect();
        for (candidate, (.., parent, _)) in all.iter_mut().zip(&drawn) {
            if let (Some(facts), Some(parent)) = (&mut candidate.facts, parent) {
                facts.parent = Some(parent.get(&ids).clone());
            }
        }
        // Some parents are missing.
        let mut drawn = drawn.iter();
        all.retain(|_| drawn.next().is_none_or(|(hours, ..)| hours % 10 != 0));
        all
    })
}

fn restorable(all: &[Candidate], one: &Candidate) -> bool {
    let mut link = one;
    for _ in 0..=all.len() {
        match &link.facts {
            None => return false,
            Some(f) if matches!(f.proof, Proof::Failed(_)) => return false,
            Some(Facts { parent: None, .. }) => return true,
            Some(Facts { parent: Some(parent), .. }) => {
                let found = all.iter().find(|c| c.cluster == one.cluster && c.backup == *parent);
                match found {
                    None => return false,
                    Some(found) => link = found,
                }
            }
        }
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_backup_gets_one_verdict_and_no_child_loses_its_parent(
        all in candidates(), policy in policy(),
    ) {
        let plan = policy.plan(&all, now());
        prop_assert_eq!(plan.verdicts.len(), all.len());
        let kept = kept(&plan);
        for candidate in &all {
            let key = (candidate.cluster.clone(), candidate.backup.clone());
            let Some(facts) = &candidate.facts else {
                prop_assert!(kept.contains(&key), "an unreadable one goes");
                continue;
            };
            if let Some(parent) = &facts.parent {
                let parent = (candidate.cluster.clone(), parent.clone());
                let there = all.iter().any(|c| (c.cluster.clone(), c.backup.clone()) == parent);
                prop_assert!(!kept.contains(&key) || !there || kept.contains(&parent));
            }
        }
    }

    #[test]
    fn something_that_can_be_restored_is_left_of_every_group(
        all in candidates(), policy in policy(),
    ) {
        let plan = policy.plan(&all, now());
        let kept = kept(&plan);
        let group = |c: &Candidate| {
            c.facts.as_ref().map(|f| (c.cluster.clone(), f.strategy, f.partial, f.masked))
        };
        let proven = |c: &Candidate| {
            restorable(&all, c) && matches!(c.facts.as_ref().unwrap().proof, Proof::Ok(_))
        };
        for candidate in all.iter().filter(|c| restorable(&all, c)) {
            let mut left = all
                .iter()
                .filter(|c| group(c) == group(candidate))
                .filter(|c| kept.contains(&(c.cluster.clone(), c.backup.clone())));
            prop_assert!(left.clone().any(|c| restorable(&all, c)));
            prop_assert!(!proven(candidate) || left.any(proven), "the last proven goes");
        }
    }

    #[test]
    fn keep_last_keeps_so_many_that_can_be_restored(all in candidates(), n in 1u32..6) {
        // One whose parent is younger than itself takes no place, which is no matter here.
        let all: Vec<Candidate> = all
            .into_iter()
            .map(|mut c| {
                c.modified = c.backup.started_at();
                if let Some(facts) = &mut c.facts {
                    facts.parent.take_if(|p| p.started_at() >= c.modified);
                }
                c
            })
            .collect();
        let policy = Policy { keep_last: n, ..Policy::default() };
        let kept = kept(&policy.plan(&all, now()));
        let whole = |c: &&Candidate| {
            restorable(&all, c) && c.cluster.as_str() == "shop" && c.facts.as_ref().is_some_and(|f| {
                (f.strategy, f.partial, f.masked) == (Strategy::Logical, false, false)
            })
        };
        let there = all.iter().filter(whole).count();
        let left = all
            .iter()
            .filter(whole)
            .filter(|c| kept.contains(&(c.cluster.clone(), c.backup.clone())))
            .count();
        prop_assert!(left >= there.min(n as usize));
    }

    #[test]
    fn more_rules_keep_more(all in candidates(), a in policy(), b in policy()) {
        let more = Policy {
            keep_last: a.keep_last.max(b.keep_last),
            keep_hourly: a.keep_hourly.max(b.keep_hourly),
            keep_daily: a.keep_daily.max(b.keep_daily),
            keep_weekly: a.keep_weekly.max(b.keep_weekly),
            keep_monthly: a.keep_monthly.max(b.keep_monthly),
            keep_yearly: a.keep_yearly.max(b.keep_yearly),
            ..a.clone()
        };
        prop_assume!(!a.is_empty());
        let (few, many) = (kept(&a.plan(&all, now())), kept(&more.plan(&all, now())));
        prop_assert!(few.is_subset(&many));
        let empty = kept(&Policy { grace: a.grace, ..Policy::default() }.plan(&all, now()));
        prop_assert_eq!(empty.len(), all.len(), "no rule keeps everything");
    }

    /// Whoever can write to the repository, on purpose or with a clock that is wrong, pushes nothing
    /// out before the grace time is over.
    #[test]
    fn an_intruder_evicts_nothing_at_once(
        all in candidates(), new in candidates(), policy in policy(), seen in 0i64..72,
    ) {
        let grace = policy.grace + SignedDuration::from_hours(seen + 1);
        let policy = Policy { grace, ..policy };
        let arrived = now() - SignedDuration::from_hours(seen);
        let mut with_new = all.clone();
        for (i, mut candidate) in new.into_iter().enumerate() {
            candidate.backup = id(candidate.backup.started_at(), 100 + i);
            candidate.modified = candidate.modified.max(arrived);
            with_new.push(candidate);
        }
        // A parent that was missing comes back.
        let mut parents = all.iter().filter_map(|c| c.facts.as_ref()?.parent.clone());
        let missing = parents.find(|p| all.iter().all(|c| c.backup != *p));
        with_new.extend(missing.map(|backup| Candidate { backup, modified: arrived, ..full(0, 0) }));
        let before = kept(&policy.plan(&all, now()));
        let after = kept(&policy.plan(&with_new, now()));
        prop_assert!(before.is_subset(&after), "{:?}", before.difference(&after));
    }

    /// A clock that stands in the past removes nothing that one that is right would keep; however
    /// far ahead it is, the newest of each rule stay.
    #[test]
    fn clocks_that_jump(all in candidates(), policy in policy(), jump in 1i64..200_000) {
        let jump = SignedDuration::from_hours(jump);
        let late = policy.plan(&all, now() - jump);
        if jump > SignedDuration::from_hours(9000 + 100) {
            prop_assert_eq!(late.removed().count(), 0, "everything is of the future");
        }
        // Ages only decide about grace and the future: ahead of everything, nothing changes more.
        let ahead = policy.plan(&all, now() + SignedDuration::from_hours(200));
        let far = policy.plan(&all, now() + SignedDuration::from_hours(200) + jump);
        prop_assert_eq!(ahead.verdicts, far.verdicts);
    }

    #[test]
    fn a_later_good_backup_never_breaks_the_chain_of_a_kept_one(
        all in candidates(), policy in policy(), hours in 80i64..9000,
    ) {
        let before = policy.plan(&all, now());
        let mut more = all.clone();
        more.push(full(hours, 999));
        let after = policy.plan(&more, now());
        for (b, a) in before.verdicts.iter().zip(&after.verdicts) {
            if let (Decision::Keep(reasons), Decision::Remove) = (&b.decision, &a.decision) {
                for reason in reasons {
                    if let Reason::ChainOf(child) = reason {
                        let child = after.verdicts.iter().find(|v| {
                            v.backup == *child && v.cluster == b.cluster
                        });
                        prop_assert_eq!(&child.unwrap().decision, &Decision::Remove);
                    }
                }
            }
        }
    }
}
