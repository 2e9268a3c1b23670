//! Packs that move to other stores as they age.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path as FsPath;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use backup_core::retention::Policy;
use backup_core::{Clock, Context, ErrorKind, Manifest, Repository, Severity};
use backup_storage::{
    PruneOptions, Repo, RepoUrl, TierName, TierSpec, check_content, check_objects, forget_tier,
    move_packs, places, plan_moves, policy, preview, prune, set_policy, thaw,
};
use common::fault::{EACCES, Fault, FaultStore};
use common::world::{Inner, backups, hurt, later, lose, memory, objects, path, put, store};
use common::{Sample, back_up, context, memory_repo, options, read_checked, restore_all, samples};
use jiff::{SignedDuration, Timestamp};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A clock that stands where it is put.
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.fetch_add(1, Ordering::SeqCst)).unwrap()
    }
}

/// Days after everything was backed up.
fn after(manifest: &Manifest, days: i64) -> Context {
    let seconds = manifest.finished_at.as_second() + days * 86_400;
    Context::builder().threads(3).clock(Arc::new(SetClock(AtomicI64::new(seconds)))).build()
}

/// A repository with a warm tier after a day and a cold one after ten.
struct World {
    hot: Inner,
    warm: Inner,
    cold: Inner,
    repo: Repo,
    manifests: Vec<Manifest>,
    samples: Vec<Vec<Sample>>,
}

fn tiered(repo: &Repo, warm: &Inner, cold: &Inner) -> Repo {
    repo.with_tier_stores(vec![
        (TierName::Warm, DAY, store(warm, "warm store")),
        (TierName::Cold, DAY * 10, store(cold, "cold store")),
    ])
}

async fn world(days: u64) -> World {
    let cx = context();
    let (repo, hot) = memory_repo(&cx).await;
    let (warm, cold) = (memory(), memory());
    let repo = tiered(&repo, &warm, &cold);
    let first: Vec<Sample> = samples().into_iter().take(4).collect();
    let mut world = World { hot, warm, cold, repo, manifests: Vec::new(), samples: Vec::new() };
    for day in 0..days {
        let samples = later(&first, day);
        world.manifests.push(back_up(&cx, &world.repo, &samples).await.unwrap());
        world.samples.push(samples);
    }
    world
}

impl World {
    async fn all_whole(&self, what: &str) {
        let cx = context();
        for (manifest, samples) in self.manifests.iter().zip(&self.samples) {
            restore_all(&cx, &self.repo, manifest, samples).await.unwrap();
            let report = check_objects(&cx, &self.repo, manifest).await.unwrap();
            assert!(report.ok(), "{what}: {:?}", report.findings);
            let report = check_content(&cx, &self.repo, manifest).await.unwrap();
            assert!(report.ok(), "{what}: {:?}", report.findings);
        }
    }

    /// How many packs each store has.
    async fn packs(&self) -> [usize; 3] {
        let count = async |inner| {
            let objects = backups(inner).await;
            objects.keys().filter(|p| p.filename().unwrap().starts_with("pack-")).count()
        };
        [count(&self.hot).await, count(&self.warm).await, count(&self.cold).await]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_move_down_as_they_age_and_everything_can_be_read() {
    let world = world(1).await;
    let manifest = &world.manifests[0];
    let all = manifest.packs.len();
    assert!(all >= 3);
    for (days, expected) in
        [(0, [all, 0, 0]), (2, [0, all, 0]), (5, [0, all, 0]), (11, [0, 0, all])]
    {
        let cx = after(manifest, days);
        let plan = plan_moves(&cx, &world.repo).await.unwrap();
        let before = world.packs().await;
        assert_eq!(plan.moves.is_empty(), before == expected, "after {days} days");
        let (_, report) = move_packs(&cx, &world.repo, "a test").await.unwrap();
        assert_eq!(report.packs as usize, plan.moves.len());
        assert_eq!(report.bytes, plan.bytes());
        assert_eq!(world.packs().await, expected, "after {days} days");
        let places = places(&world.repo, manifest).await.unwrap();
        let counts: Vec<usize> = places.iter().map(|(_, packs, _)| *packs as usize).collect();
        assert_eq!(counts, expected);
        world.all_whole(&format!("after {days} days")).await;
    }
    // Manifests and indexes stay; the lower stores have nothing but packs.
    let hot = backups(&world.hot).await;
    assert!(hot.contains_key(&path(manifest, "manifest")));
    assert!(hot.contains_key(&path(manifest, "index")));
    assert_eq!(objects(&world.cold).await.len(), all);
    assert!(objects(&world.warm).await.is_empty());
    // From the top to the bottom at once. How many packs there are is not the same each time: frames come from
    // several threads.
    let world = self::world(1).await;
    let all = world.manifests[0].packs.len();
    let cx = after(&world.manifests[0], 30);
    move_packs(&cx, &world.repo, "a test").await.unwrap();
    assert_eq!(world.packs().await, [0, 0, all]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_young_backup_needs_stays_young() {
    let cx = context();
    let (repo, hot) = memory_repo(&cx).await;
    let (warm, cold) = (memory(), memory());
    let repo = tiered(&repo, &warm, &cold);
    let first: Vec<Sample> = samples().into_iter().take(4).collect();
    let old = back_up(&cx, &repo, &first).await.unwrap();
    let then = after(&old, 5);
    let young = back_up(&then, &repo, &later(&first, 1)).await.unwrap();
    let needed: Vec<&str> = young
        .needs
        .iter()
        .filter(|n| n.backup == old.backup)
        .flat_map(|n| n.packs.iter().map(|p| p.name.as_str()))
        .collect();
    assert!(!needed.is_empty());
    let cx = after(&old, 5);
    move_packs(&cx, &repo, "a test").await.unwrap();
    for pack in &old.packs {
        let place = if needed.contains(&pack.name.as_str()) { &hot } else { &warm };
        assert!(backups(place).await.contains_key(&path(&old, &pack.name)), "{}", pack.name);
    }
    for pack in &young.packs {
        assert!(backups(&hot).await.contains_key(&path(&young, &pack.name)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_may_fail_or_die_at_any_call_of_any_store() {
    for which in 0..2 {
        for fault in [
            Fault::CrashBefore,
            Fault::CrashAfter,
            Fault::FailBefore(EACCES),
            Fault::FailAfter(EACCES),
            Fault::Garble,
        ] {
            for at in 0.. {
                let what = format!("{fault:?} at call {at} of store {which}");
                let world = world(1).await;
                let manifest = &world.manifests[0];
                let cx = after(manifest, 2);
                let faulty =
                    FaultStore::new(if which == 0 { &world.hot } else { &world.warm }, at, fault);
                let hurt: Inner = faulty.clone();
                let (hot, warm) =
                    if which == 0 { (&hurt, &world.warm) } else { (&world.hot, &hurt) };
                let work = async {
                    let repo = Repo::open_on(&cx, store(hot, "memory"), options()).await?;
                    move_packs(&cx, &tiered(&repo, warm, &world.cold), "a test").await
                };
                let ended = tokio::select! {
                    result = work => Some(result),
                    () = faulty.crashed() => None,
                };
                // Never nowhere.
                world.all_whole(&what).await;
                if let Some(Err(e)) = &ended {
                    common::no_panic(e);
                }
                // The lease of the dead run: a day later nobody holds it.
                for lock in objects(&world.hot).await.keys() {
                    if lock.as_ref().starts_with("locks/") {
                        lose(&world.hot, lock).await;
                    }
                }
                let (_, report) = move_packs(&cx, &world.repo, "again").await.unwrap();
                assert_eq!(report.problems, [], "{what}");
                assert_eq!(world.packs().await, [0, manifest.packs.len(), 0], "{what}");
                world.all_whole(&what).await;
                if !faulty.struck() {
                    ended.unwrap().unwrap();
                    break;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_pack_stays_where_it_is() {
    let world = world(1).await;
    let manifest = &world.manifests[0];
    hurt(&world.hot, &path(manifest, "pack-0")).await;
    let cx = after(manifest, 2);
    let (_, report) = move_packs(&cx, &world.repo, "a test").await.unwrap();
    assert_eq!(report.problems.len(), 1, "{report:?}");
    assert!(backups(&world.hot).await.contains_key(&path(manifest, "pack-0")));
    assert!(!backups(&world.warm).await.contains_key(&path(manifest, "pack-0")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_pack_below_is_replaced_by_the_good_one_above() {
    let world = world(1).await;
    let manifest = &world.manifests[0];
    // A move that died after the copy, and then the copy went bad.
    let pack = path(manifest, "pack-0");
    let good = objects(&world.hot).await[&pack].clone();
    put(&world.warm, &pack, good.clone()).await;
    let report = check_objects(&context(), &world.repo, manifest).await.unwrap();
    assert!(report.findings.iter().any(|f| f.problem.contains("two tiers")));
    hurt(&world.warm, &pack).await;
    let cx = after(manifest, 2);
    move_packs(&cx, &world.repo, "a test").await.unwrap();
    assert_eq!(objects(&world.warm).await[&pack], good);
    world.all_whole("after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_lost_below_is_missed() {
    let world = world(1).await;
    let manifest = &world.manifests[0];
    move_packs(&after(manifest, 2), &world.repo, "a test").await.unwrap();
    lose(&world.warm, &path(manifest, "pack-0")).await;
    let report = check_objects(&context(), &world.repo, manifest).await.unwrap();
    assert!(report.findings.iter().any(|f| f.severity == Severity::Error
        && f.object.ends_with("pack-0")
        && f.problem.contains("missing")));
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_may_move_while_they_are_read() {
    let cx = context();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let [hot, warm] = ["hot", "warm"].map(|name| dir.path().join(name));
    std::fs::create_dir(&warm).unwrap();
    let repo = Repo::init(&cx, &RepoUrl::from(hot.as_path()), options()).await.unwrap();
    let samples = samples();
    let manifest = back_up(&cx, &repo, &samples).await.unwrap();
    // Opened before there was any tier.
    let reader = Repo::open(&cx, &RepoUrl::from(hot.as_path()), options()).await.unwrap();
    let source = reader.artifacts(&cx, &manifest).await.unwrap();
    let spec = TierSpec {
        name: TierName::Warm,
        url: RepoUrl::from(warm.as_path()),
        after: SignedDuration::ZERO,
    };
    set_policy(&cx, &repo, &[spec]).await.unwrap();
    let reading = async {
        for sample in &samples {
            read_checked(&*source, &sample.name, &sample.content()).await.unwrap();
        }
    };
    let fresh = Repo::open(&cx, &RepoUrl::from(hot.as_path()), options()).await.unwrap();
    let moving = async { move_packs(&cx, &fresh, "a test").await.unwrap() };
    let ((), (_, report)) = tokio::join!(reading, moving);
    assert_eq!(report.packs as usize, manifest.packs.len());
    for sample in &samples {
        read_checked(&*source, &sample.name, &sample.content()).await.unwrap();
    }
    assert!(check_content(&cx, &fresh, &manifest).await.unwrap().ok());
    // A tier that is away is no damage, and no missing pack.
    std::fs::rename(&warm, dir.path().join("away")).unwrap();
    let fresh = Repo::open(&cx, &RepoUrl::from(hot.as_path()), options()).await.unwrap();
    let e = check_objects(&cx, &fresh, &manifest).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Store);
    assert!(e.report().contains("warm tier"), "{}", e.report());
    let source = fresh.artifacts(&cx, &manifest).await.unwrap();
    let e = read_checked(&*source, &samples[0].name, &samples[0].content()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Store, "{e:?}");
}

fn spec(name: TierName, path: &FsPath, days: i64) -> TierSpec {
    TierSpec { name, url: RepoUrl::from(path), after: DAY * i32::try_from(days).unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_forgets_no_store_that_holds_packs() {
    let cx = context();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let [hot, warm, cold, other] =
        ["hot", "warm", "cold", "other"].map(|name| dir.path().join(name));
    for dir in [&warm, &cold, &other] {
        std::fs::create_dir(dir).unwrap();
    }
    let repo = Repo::init(&cx, &RepoUrl::from(hot.as_path()), options()).await.unwrap();
    let manifest = back_up(&cx, &repo, &samples()).await.unwrap();
    assert!(policy(&repo).await.unwrap().tiers.is_empty());

    // Tiers follow each other, and each has a store of its own.
    for bad in [
        vec![spec(TierName::Cold, &cold, 1), spec(TierName::Warm, &warm, 2)],
        vec![spec(TierName::Warm, &warm, 3), spec(TierName::Cold, &cold, 2)],
    ] {
        let e = set_policy(&cx, &repo, &bad).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Usage);
    }
    let e = set_policy(&cx, &repo, &[spec(TierName::Warm, &hot, 1)]).await.unwrap_err();
    assert!(e.report().contains("repository"), "{}", e.report());
    let same = [spec(TierName::Warm, &warm, 0), spec(TierName::Cold, &warm, 1)];
    let e = set_policy(&cx, &repo, &same).await.unwrap_err();
    assert!(e.report().contains("warm tier of this repository"), "{}", e.report());

    set_policy(&cx, &repo, &[spec(TierName::Warm, &warm, 0)]).await.unwrap();
    let fresh = Repo::open(&cx, &RepoUrl::from(hot.as_path()), options()).await.unwrap();
    move_packs(&cx, &fresh, "a test").await.unwrap();

    // Another repository may not use it.
    let url = RepoUrl::from(dir.path().join("second"));
    let second = Repo::init(&cx, &url, options()).await.unwrap();
    let e = set_policy(&cx, &second, &[spec(TierName::Warm, &warm, 0)]).await.unwrap_err();
    assert!(e.report().contains("another repository"), "{}", e.report());

    let e = set_policy(&cx, &repo, &[spec(TierName::Warm, &other, 0)]).await.unwrap_err();
    assert!(e.report().contains("holds packs"), "{}", e.report());
    // The disk of the tier was not mounted: an empty directory is not taken for it.
    let moved = dir.path().join("moved");
    std::fs::rename(&warm, &moved).unwrap();
    std::fs::create_dir(&warm).unwrap();
    let again = back_up(&cx, &repo, &[]).await.unwrap();
    drop(again);
    let samples: Vec<Sample> = later(&samples(), 9);
    back_up(&cx, &repo, &samples).await.unwrap();
    let fresh = Repo::open(&cx, &RepoUrl::from(hot.as_path()), options()).await.unwrap();
    let e = move_packs(&cx, &fresh, "a test").await.unwrap_err();
    assert!(e.report().contains("mounted"), "{}", e.report());
    assert!(std::fs::read_dir(&warm).unwrap().next().is_none());
    // The store that was moved is known again.
    set_policy(&cx, &repo, &[spec(TierName::Warm, &moved, 0)]).await.unwrap();
    let fresh = Repo::open(&cx, &RepoUrl::from(hot.as_path()), options()).await.unwrap();
    assert!(check_content(&cx, &fresh, &manifest).await.unwrap().ok());
    let planned = preview(&fresh, &[spec(TierName::Warm, &moved, 400)]).await.unwrap();
    assert!(plan_moves(&cx, &planned).await.unwrap().moves.is_empty());
}

/// What every command does that reads from a tier or cleans it.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_not_the_tier_is_not_taken_for_it() {
    let cx = context();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let [hot, warm, away] = ["hot", "warm", "away"].map(|name| dir.path().join(name));
    std::fs::create_dir(&warm).unwrap();
    let repo = Repo::init(&cx, &RepoUrl::from(hot.as_path()), options()).await.unwrap();
    let samples = samples();
    let manifest = back_up(&cx, &repo, &samples).await.unwrap();
    let tier = [spec(TierName::Warm, &warm, 0)];
    set_policy(&cx, &repo, &tier).await.unwrap();
    let open = async || Repo::open(&cx, &RepoUrl::from(hot.as_path()), options()).await.unwrap();
    move_packs(&cx, &open().await, "a test").await.unwrap();
    std::fs::rename(&warm, &away).unwrap();
    let left = || {
        let mut left: Vec<_> =
            std::fs::read_dir(&warm).unwrap().map(|e| e.unwrap().path()).collect();
        left.sort();
        left
    };
    for what in ["an empty directory", "another repository"] {
        match what {
            "an empty directory" => std::fs::create_dir(&warm).unwrap(),
            _ => drop(Repo::init(&cx, &RepoUrl::from(warm.as_path()), options()).await.unwrap()),
        }
        let before = left();
        let is_refused = |e: backup_core::Error| {
            assert_eq!(e.kind(), ErrorKind::Store, "{what}: {e:?}");
            let said = e.report();
            assert!(said.contains("is not the warm tier of this repository"), "{what}: {said}");
            assert!(said.contains("What to do: see that the disk"), "{what}: {said}");
        };
        is_refused(check_objects(&cx, &open().await, &manifest).await.unwrap_err());
        is_refused(check_content(&cx, &open().await, &manifest).await.unwrap_err());
        is_refused(thaw(&cx, &open().await, &manifest, None).await.unwrap_err());
        is_refused(plan_moves(&cx, &open().await).await.unwrap_err());
        is_refused(move_packs(&cx, &open().await, "a test").await.unwrap_err());
        is_refused(set_policy(&cx, &open().await, &tier).await.unwrap_err());
        is_refused(preview(&open().await, &tier).await.unwrap_err());
        let remove = PruneOptions {
            policy: Policy { keep_last: 1, grace: SignedDuration::ZERO, ..Policy::default() },
            wait: SignedDuration::ZERO,
            ..PruneOptions::default()
        };
        let dry = PruneOptions { dry_run: true, ..remove.clone() };
        is_refused(prune(&cx, &open().await, &remove).await.unwrap_err());
        is_refused(prune(&cx, &open().await, &dry).await.unwrap_err());
        assert!(
            open().await.manifest(&manifest.cluster, &manifest.backup).await.unwrap().is_some()
        );
        // What needs no pack goes on; so does a backup, which compares with nothing then.
        let source = open().await.artifacts(&cx, &manifest).await.unwrap();
        assert_eq!(source.list().await.unwrap().len(), samples.len());
        back_up(&cx, &open().await, &samples[..1]).await.unwrap();
        assert_eq!(left(), before, "{what}");
        std::fs::remove_dir_all(&warm).unwrap();
    }
    // Nor does anybody propose to make something new in its place.
    let e = check_objects(&cx, &open().await, &manifest).await.unwrap_err();
    assert!(e.remedy().contains("mounted") && !e.report().contains("init"), "{}", e.report());
    // A tier that is there and holds packs is not forgotten; one that is lost is.
    std::fs::rename(&away, &warm).unwrap();
    assert!(check_content(&cx, &open().await, &manifest).await.unwrap().ok());
    let e = forget_tier(&cx, &open().await, TierName::Warm).await.unwrap_err();
    assert!(e.report().contains("holds packs"), "{}", e.report());
    std::fs::rename(&warm, &away).unwrap();
    assert!(forget_tier(&cx, &open().await, TierName::Warm).await.unwrap().tiers.is_empty());
    assert!(!check_objects(&cx, &open().await, &manifest).await.unwrap().ok());
    // When it is found again it is taken back.
    set_policy(&cx, &open().await, &[spec(TierName::Warm, &away, 0)]).await.unwrap();
    assert!(check_content(&cx, &open().await, &manifest).await.unwrap().ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_frees_the_lower_tiers_too() {
    let world = world(2).await;
    move_packs(&after(&world.manifests[1], 2), &world.repo, "a test").await.unwrap();
    let [first, second] = &world.manifests[..] else { panic!() };
    let needed: Vec<String> = second
        .needs
        .iter()
        .filter(|n| n.backup == first.backup)
        .flat_map(|n| n.packs.iter().map(|p| p.name.clone()))
        .collect();
    let options = PruneOptions {
        policy: Policy { keep_last: 1, grace: SignedDuration::ZERO, ..Policy::default() },
        wait: SignedDuration::ZERO,
        holder: "a test".into(),
        ..PruneOptions::default()
    };
    let cx = after(second, 400);
    prune(&cx, &world.repo, &options).await.unwrap();
    let left = backups(&world.warm).await;
    for pack in &first.packs {
        let there = left.contains_key(&path(first, &pack.name));
        assert_eq!(there, needed.contains(&pack.name), "{}", pack.name);
    }
    let cx = context();
    restore_all(&cx, &world.repo, second, &world.samples[1]).await.unwrap();
    assert!(world.repo.manifest(&first.cluster, &first.backup).await.unwrap().is_none());
}
