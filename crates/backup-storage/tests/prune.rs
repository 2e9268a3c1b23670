//! Pruning real repositories: what it leaves when it fails or dies before or after each of its calls
//! to the store, beside backups, on two machines at once, and what others left behind.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;
#[path = "conformance/server.rs"]
#[allow(dead_code, reason = "the conformance suite uses all of it")]
mod server;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backup_core::retention::Policy;
use backup_core::{Context, ErrorKind, Layout, Manifest, Repository, Result};
use backup_storage::{
    BackupObject, Created, Fate, Key, PruneOptions, PruneReport, Repo, RepoUrl, Store,
    check_content, check_objects, prune, unfinished,
};
use bytes::Bytes;
use common::aged::{Aged, Snapshot, Time};
use common::fault::{EACCES, ENOSPC, ETIMEDOUT, Fault, FaultStore};
use common::{Sample, back_up, builder, noise, options, restore_all, spec};
use jiff::SignedDuration;
use object_store::ObjectStore;
use object_store::path::Path;
use server::{Dialect, Server};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn at(time: &Time) -> Context {
    Context::builder().clock(Arc::new(time.clone())).threads(2).build()
}

fn store(inner: Arc<dyn ObjectStore>) -> Store {
    Store::new(inner, "memory").with_retry(Duration::from_millis(1), Duration::from_millis(2), 3)
}

async fn open(cx: &Context, inner: Arc<dyn ObjectStore>) -> Result<Repo> {
    Repo::open_on(cx, store(inner), options()).await
}

/// The data on a day: most of it never changes, so later backups need packs of earlier ones.
fn data(day: u64) -> Vec<Sample> {
    let mut pages = noise(1, 16_384 * 24);
    pages[16_384 * 3..16_384 * 4].copy_from_slice(&noise(100 + day, 16_384));
    let sample = |name: &str, layout, bytes: Vec<u8>| Sample {
        name: name.to_owned(),
        layout,
        writes: vec![Bytes::from(bytes)],
    };
    vec![
        sample("files/orders.ibd", Layout::Pages(16_384), pages),
        sample("new", Layout::Stream, noise(1000 + day, 100_000)),
        sample("same", Layout::Stream, noise(7, 100_000)),
    ]
}

/// Rules that keep the last one, at once.
fn last(n: u32) -> PruneOptions {
    PruneOptions {
        policy: Policy { keep_last: n, grace: SignedDuration::ZERO, ..Policy::default() },
        wait: SignedDuration::ZERO,
        ..PruneOptions::default()
    }
}

fn day_of(manifest: &Manifest) -> u64 {
    manifest.outcome.rows.unwrap()
}

/// Restores whatever is listed, and checks every byte of it.
async fn all_is_readable(cx: &Context, repo: &Repo, what: &str) -> Vec<Manifest> {
    let mut manifests = Vec::new();
    for listed in repo.backups(cx, None).await.unwrap() {
        let manifest = listed.manifest.unwrap_or_else(|e| panic!("{what}: {e:?}"));
        restore_all(cx, repo, &manifest, &data(day_of(&manifest))).await.unwrap();
        let report = check_content(cx, repo, &manifest).await.unwrap();
        assert!(report.ok(), "{what}: {:?}", report.findings);
        let report = check_objects(cx, repo, &manifest).await.unwrap();
        assert!(report.ok(), "{what}: {:?}", report.findings);
        manifests.push(manifest);
    }
    manifests
}

async fn back_up_day(cx: &Context, repo: &Repo, day: u64) -> Result<Manifest> {
    let session = repo.begin(cx, spec()).await?;
    for sample in data(day) {
        common::write(&*session, &sample).await?;
    }
    let outcome = backup_core::Outcome { rows: Some(day), ..common::outcome() };
    session.commit(outcome).await
}

/// Four days of backups, one that died on the second, and what is left of others.
async fn four_days(time: &Time) -> Snapshot {
    let aged = Aged::new(time, &Snapshot::new()).await;
    let cx = at(time);
    let repo = Repo::init_on(&cx, store(aged.clone()), options()).await.unwrap();
    for day in 0..4 {
        back_up_day(&cx, &repo, day).await.unwrap();
        time.pass(SignedDuration::from_mins(5));
        if day == 1 {
            let session = repo.begin(&cx, spec()).await.unwrap();
            for sample in data(9) {
                common::write(&*session, &sample).await.unwrap();
            }
            let pack = Key::Backup(spec().cluster, session.id().clone(), BackupObject::Pack(0));
            repo.store().create(&pack, Bytes::from_static(b"half a pack")).await.unwrap();
        }
        time.pass(DAY);
    }
    let manifests = all_is_readable(&cx, &repo, "before").await;
    assert_eq!(manifests.len(), 4);
    let needs: usize = manifests.iter().map(|m| m.needs.len()).sum();
    assert!(needs >= 3, "nothing was deduplicated: {manifests:?}");
    aged.snapshot().await
}

/// The paths of what is there, without what has a random name of its own.
fn shape(snapshot: &Snapshot) -> BTreeSet<Path> {
    let kept = snapshot.keys().filter(|p| !p.as_ref().starts_with("locks"));
    // Names of marks are those of a moment.
    kept.map(|p| if p.as_ref().starts_with("marks") { "marks".into() } else { p.clone() }).collect()
}

/// When what was removed and left nothing is forgotten: a mark tells of it until then.
async fn a_week_later(cx: &Context, time: &Time, repo: &Repo) {
    time.pass(DAY * 8);
    prune(cx, repo, &last(1)).await.unwrap();
}

enum Ended {
    Done,
    Failed(backup_core::Error),
    Died,
}

async fn hurt_prune(cx: &Context, faulty: &Arc<FaultStore>) -> Ended {
    let work = async {
        let repo = open(cx, faulty.clone()).await?;
        prune(cx, &repo, &last(1)).await
    };
    tokio::select! {
        result = work => match result {
            Ok(_) => Ended::Done,
            Err(e) => Ended::Failed(e),
        },
        () = faulty.crashed() => Ended::Died,
    }
}

/// A prune is hurt at every call; then everything listed is whole, and another prune finishes.
async fn at_every_call_of_prune(fault: Fault) -> (usize, usize, usize) {
    let time = Time::new();
    let before = four_days(&time).await;
    let cx = at(&time);
    let peaceful = {
        let aged = Aged::new(&time, &before).await;
        let repo = open(&cx, aged.clone()).await.unwrap();
        let report = prune(&cx, &repo, &last(1)).await.unwrap();
        assert_eq!(report.backups.iter().filter(|p| p.fate == Fate::Removed).count(), 3);
        assert_eq!(report.leftovers.unfinished, 1);
        assert!(report.bytes_freed > 0 && report.bytes_kept > 0, "{report:?}");
        assert_eq!(all_is_readable(&cx, &repo, "in peace").await.len(), 1);
        a_week_later(&cx, &time, &repo).await;
        shape(&aged.snapshot().await)
    };
    let (mut done, mut failed, mut died) = (0, 0, 0);
    for number in 0.. {
        let what = format!("{fault:?} at call {number}");
        let aged = Aged::new(&time, &before).await;
        let inner: Arc<dyn ObjectStore> = aged.clone();
        let faulty = FaultStore::new(&inner, number, fault);
        let ended = hurt_prune(&cx, &faulty).await;
        if !faulty.struck() {
            assert!(matches!(ended, Ended::Done) && number > 40, "only {number} calls");
            break;
        }
        match ended {
            Ended::Done => done += 1,
            Ended::Failed(e) => {
                common::no_panic(&e);
                failed += 1;
            }
            Ended::Died => died += 1,
        }
        let repo = open(&cx, inner).await.unwrap();
        let left = all_is_readable(&cx, &repo, &what).await;
        assert!(left.iter().any(|m| day_of(m) == 3), "{what}: the last is gone");
        time.pass(SignedDuration::from_hours(1));
        let report = prune(&cx, &repo, &last(1)).await;
        let report = report.unwrap_or_else(|e| panic!("{what}: {e:?}"));
        assert!(report.refused.is_empty(), "{what}: {report:?}");
        assert_eq!(all_is_readable(&cx, &repo, &what).await.len(), 1, "{what}");
        a_week_later(&cx, &time, &repo).await;
        assert_eq!(shape(&aged.snapshot().await), peaceful, "{what}");
    }
    (done, failed, died)
}

#[tokio::test(start_paused = true)]
async fn a_prune_that_dies_is_finished_by_the_next() {
    for fault in [Fault::CrashBefore, Fault::CrashAfter] {
        let (done, failed, died) = at_every_call_of_prune(fault).await;
        assert!(done == 0 && failed == 0 && died > 40, "{done} {failed} {died}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_prune_that_fails_is_finished_by_the_next() {
    for fault in [Fault::FailBefore(EACCES), Fault::FailAfter(EACCES)] {
        let (done, failed, died) = at_every_call_of_prune(fault).await;
        // What is refused is reported, and is no failure.
        assert!(done > 5 && failed > 5 && died == 0, "{done} {failed} {died}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_transient_failure_is_no_failure() {
    for fault in [Fault::FailBefore(ETIMEDOUT), Fault::FailAfter(ETIMEDOUT)] {
        let (done, failed, died) = at_every_call_of_prune(fault).await;
        assert!(failed == 0 && died == 0, "{done} {failed} {died}");
    }
}

/// A backup that is hurt at any call while a prune runs beside it.
#[tokio::test(start_paused = true)]
async fn a_backup_that_dies_beside_a_prune_hurts_nobody() {
    let time = Time::new();
    let before = four_days(&time).await;
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::FailBefore(EACCES)] {
        for number in 0.. {
            let what = format!("{fault:?} at call {number}");
            let (cx, other) = (at(&time), at(&time));
            let aged = Aged::new(&time, &before).await;
            let inner: Arc<dyn ObjectStore> = aged.clone();
            let faulty = FaultStore::new(&inner, number, fault);
            let hurt = async {
                let backup = async { back_up_day(&cx, &open(&cx, faulty.clone()).await?, 4).await };
                tokio::select! {
                    result = backup => result.is_ok(),
                    () = faulty.crashed() => false,
                }
            };
            let repo = open(&other, inner).await.unwrap();
            let options = last(1);
            let (made, pruned) = tokio::join!(hurt, prune(&other, &repo, &options));
            pruned.unwrap();
            let left = all_is_readable(&other, &repo, &what).await;
            assert!(!made || left.iter().any(|m| day_of(m) == 4), "{what}: the new one is gone");
            assert!(!left.is_empty(), "{what}");
            if !faulty.struck() {
                break;
            }
        }
    }
}

/// A store on which machines meet, as two of them see it; and what makes time pass there.
struct Meeting {
    name: &'static str,
    here: Store,
    there: Store,
    time: Option<Time>,
    _dir: Option<tempfile::TempDir>,
    _server: Option<Server>,
}

/// All kinds of stores.
async fn meetings() -> Vec<Meeting> {
    let time = Time::new();
    let memory: Arc<dyn ObjectStore> = Aged::new(&time, &Snapshot::new()).await;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let local = || Store::local(dir.path()).unwrap();
    let (here, there) = (local(), local());
    let mut all = vec![
        Meeting {
            name: "memory",
            here: store(memory.clone()),
            there: store(memory),
            time: Some(time),
            _dir: None,
            _server: None,
        },
        Meeting { name: "directory", here, there, time: None, _dir: Some(dir), _server: None },
    ];
    for (name, dialect) in [("S3", Dialect::S3), ("OSS", Dialect::Oss)] {
        let server = Server::start(dialect).await;
        let (here, there) = (server.store("r").await, server.store("r").await);
        let time = None;
        all.push(Meeting { name, here, there, time, _dir: None, _server: Some(server) });
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_on_one_repository() {
    for Meeting { name, here, there, time, _dir, _server } in meetings().await {
        let machine = || time.as_ref().map_or_else(|| Context::builder().build(), at);
        let (cx, other) = (machine(), machine());
        let repo = Repo::init_on(&cx, here, options()).await.unwrap();
        let second = Repo::open_on(&other, there, options()).await.unwrap();
        back_up_day(&cx, &repo, 0).await.unwrap();
        let mut removed = 0;
        for day in 1..5 {
            if let Some(time) = &time {
                time.pass(SignedDuration::from_secs(2));
            }
            let options = last(1);
            let (made, one, two) = tokio::join!(
                back_up_day(&cx, &repo, day),
                prune(&cx, &repo, &options),
                prune(&other, &second, &options),
            );
            made.unwrap();
            let mut pruned = 0;
            for result in [one, two] {
                match result {
                    Ok(report) => {
                        pruned += 1;
                        let gone = report.backups.iter().filter(|p| p.fate == Fate::Removed);
                        removed += gone.count();
                    }
                    Err(e) => assert_eq!(e.kind(), ErrorKind::Busy, "{name}: {e:?}"),
                }
            }
            assert!(pruned > 0, "{name}: the two kept each other from it");
            let left = all_is_readable(&other, &second, name).await;
            assert!(left.iter().any(|m| day_of(m) == day), "{name}: day {day}");
        }
        assert!(removed >= 2, "{name}: {removed}");
    }
}

#[tokio::test]
async fn what_dead_writers_left_in_a_directory_goes_when_it_is_old() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cx = Context::builder().build();
    let repo = Repo::init(&cx, &RepoUrl::from(dir.path()), options()).await.unwrap();
    back_up_day(&cx, &repo, 0).await.unwrap();
    let session = repo.begin(&cx, spec()).await.unwrap();
    let backups = dir.path().join("clusters/shop/backups");
    let dead = backups.join(session.id().as_str());
    std::fs::write(dead.join("pack-0"), vec![1; 5000]).unwrap();
    std::fs::write(dead.join("pack-1#7"), vec![1; 3000]).unwrap();
    let locks = dir.path().join("locks");
    std::fs::create_dir_all(&locks).unwrap();
    std::fs::write(locks.join("now-00112233445566778899aabbccddeeff"), "x").unwrap();
    let mine = backups.join("notes.txt");
    std::fs::write(&mine, "mine").unwrap();
    let listed = repo.backups(&cx, None).await.unwrap();

    let young = prune(&cx, &repo, &PruneOptions::default()).await.unwrap();
    assert_eq!((young.leftovers.unfinished, young.leftovers.other), (0, 0), "{young:?}");
    assert!(!young.rules && dead.join("pack-1#7").exists());
    assert_eq!(unfinished(&cx, &repo, None, &listed).await.unwrap().backups, []);

    let old = SystemTime::now() - Duration::from_secs(25 * 3600);
    for file in ["active", "pack-0", "pack-1#7"]
        .map(|f| dead.join(f))
        .iter()
        .chain(&[locks.join("now-00112233445566778899aabbccddeeff"), mine.clone()])
    {
        std::fs::File::options().append(true).open(file).unwrap().set_modified(old).unwrap();
    }
    let left = unfinished(&cx, &repo, None, &listed).await.unwrap();
    assert!(left.backups.len() == 1 && left.bytes > 8000, "{left:?}");
    let dry = PruneOptions { dry_run: true, ..PruneOptions::default() };
    let would = prune(&cx, &repo, &dry).await.unwrap();
    assert_eq!(would.leftovers.unfinished, 1);
    assert!(dead.join("pack-0").exists(), "a dry run removed it");
    let report = prune(&cx, &repo, &PruneOptions::default()).await.unwrap();
    assert_eq!(report.leftovers.unfinished, 1, "{report:?}");
    let names: Vec<_> = std::fs::read_dir(&dead).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["manifest"], "only the tombstone");
    assert!(mine.exists() && !locks.join("now-00112233445566778899aabbccddeeff").exists());
    // The writer was not dead: it learns that it was given up, and leaves nothing.
    let error = session.commit(common::outcome()).await.unwrap_err();
    assert!(error.report().contains("given up as dead"), "{}", error.report());
    assert_eq!(repo.backups(&cx, None).await.unwrap().len(), 1);
    assert_eq!(unfinished(&cx, &repo, None, &listed).await.unwrap().backups, []);
}

/// A copy that was bringing a removed backup back died, or stands still: packs may go, and it must not go on.
#[tokio::test]
async fn a_dead_copy_does_not_bring_back_what_was_removed() {
    let time = Time::new();
    let mut objects = four_days(&time).await;
    let cx = at(&time);
    let repo = open(&cx, Aged::new(&time, &objects).await).await.unwrap();
    let second = all_is_readable(&cx, &repo, "before").await.remove(1);
    let key = |object| Key::Backup(second.cluster.clone(), second.backup.clone(), object);
    let path = |object| Path::from(key(object).to_string());
    let (manifest, modified) = objects.remove(&path(BackupObject::Manifest)).unwrap();
    for object in [BackupObject::Retired, BackupObject::Active] {
        objects.insert(path(object), (Bytes::from_static(b"{}\n"), modified));
    }
    time.pass(DAY * 2);
    let aged = Aged::new(&time, &objects).await;
    let repo = open(&cx, aged.clone()).await.unwrap();
    prune(&cx, &repo, &last(9)).await.unwrap();
    // It wakes up.
    let created = repo.store().create(&key(BackupObject::Manifest), manifest).await.unwrap();
    assert_eq!(created, Created::Exists);
    assert_eq!(all_is_readable(&cx, &repo, "after").await.len(), 3);
    // Later only what others need is left.
    time.pass(DAY * 8);
    prune(&cx, &repo, &last(9)).await.unwrap();
    assert_eq!(all_is_readable(&cx, &repo, "in the end").await.len(), 3);
    let left = aged.snapshot().await;
    for object in [BackupObject::Manifest, BackupObject::Active, BackupObject::Index] {
        assert!(!left.contains_key(&path(object)), "{object}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_waits_and_a_backup_that_is_kept_after_all_stays() {
    let time = Time::new();
    let before = four_days(&time).await;
    let aged = Aged::new(&time, &before).await;
    let cx = at(&time);
    let repo = open(&cx, aged.clone()).await.unwrap();
    let fates = |report: &PruneReport| {
        report
            .backups
            .iter()
            .map(|p| match p.fate {
                Fate::Kept => 'k',
                Fate::Marked { .. } => 'm',
                Fate::Removed => 'r',
                _ => '?',
            })
            .collect::<String>()
    };
    let wait = |n| PruneOptions { wait: DAY, ..last(n) };
    assert_eq!(fates(&prune(&cx, &repo, &wait(1)).await.unwrap()), "mmmk");
    assert_eq!(fates(&prune(&cx, &repo, &wait(1)).await.unwrap()), "mmmk", "too early");
    // Now two more are to stay. They are not removed, whatever comes.
    assert_eq!(fates(&prune(&cx, &repo, &wait(3)).await.unwrap()), "mkkk");
    time.pass(DAY + SignedDuration::from_hours(1));
    let none = PruneOptions {
        policy: Policy { grace: SignedDuration::ZERO, ..Policy::default() },
        ..wait(0)
    };
    assert_eq!(fates(&prune(&cx, &repo, &none).await.unwrap()), "rkkk");
    assert_eq!(fates(&prune(&cx, &repo, &none).await.unwrap()), "kkk");
    assert_eq!(all_is_readable(&cx, &repo, "after").await.len(), 3);
    // A week later what was spared is forgotten; what was removed is not, as others need packs of it.
    for _ in 0..2 {
        time.pass(DAY * 9);
        prune(&cx, &repo, &none).await.unwrap();
    }
    let left = aged.snapshot().await;
    let marks: Vec<&Bytes> = left
        .iter()
        .filter(|(p, _)| p.as_ref().starts_with("marks"))
        .map(|(_, (bytes, _))| bytes)
        .collect();
    let [mark] = &marks[..] else { panic!("{:?}", left.keys()) };
    let mark: serde_json::Value = serde_json::from_slice(mark).unwrap();
    assert_eq!(mark["removed"].as_array().unwrap().len(), 1, "{mark:#}");
    assert!(mark["victims"].is_null() && mark["spared"].is_null(), "{mark:#}");
    assert!(!left.keys().any(|p| p.filename() == Some("active")), "{:?}", left.keys());
}

/// A writer that did not hear that its manifest was stored stores it again, however late.
#[tokio::test(start_paused = true)]
async fn a_backup_whose_writer_has_not_ended_is_not_removed() {
    use object_store::{PutMode, PutOptions};
    let time = Time::new();
    let before = four_days(&time).await;
    let aged = Aged::new(&time, &before).await;
    let cx = at(&time);
    let repo = open(&cx, aged.clone()).await.unwrap();
    let manifest = before.keys().find(|p| p.filename() == Some("manifest")).unwrap();
    let active = Path::from(manifest.as_ref().replace("/manifest", "/active"));
    let new = PutOptions::from(PutMode::Create);
    aged.put_opts(&active, Bytes::from_static(b"{}").into(), new).await.unwrap();
    let report = prune(&cx, &repo, &last(1)).await.unwrap();
    let first = &report.backups[0];
    assert!(manifest.as_ref().contains(first.backup.as_str()));
    assert_eq!(first.fate, Fate::Held);
    assert!(first.reasons[0].contains("writer"), "{first:?}");
    assert_eq!(all_is_readable(&cx, &repo, "meanwhile").await.len(), 2);
    time.pass(DAY * 8);
    let report = prune(&cx, &repo, &last(1)).await.unwrap();
    assert_eq!(report.backups[0].fate, Fate::Removed);
    assert_eq!(all_is_readable(&cx, &repo, "a week later").await.len(), 1);
    assert!(!aged.snapshot().await.contains_key(&active));
}

/// A prune every day leaves a mark every day, for as long as something is left of what it removed.
#[tokio::test(start_paused = true)]
async fn many_marks_that_tell_of_removed_backups_become_one() {
    use object_store::{PutMode, PutOptions};
    let time = Time::new();
    let before = four_days(&time).await;
    let aged = Aged::new(&time, &before).await;
    let cx = at(&time);
    let repo = open(&cx, aged.clone()).await.unwrap();
    prune(&cx, &repo, &last(1)).await.unwrap();
    let marks = async || {
        let all = aged.snapshot().await.into_iter();
        all.filter(|(p, _)| p.as_ref().starts_with("marks")).collect::<Vec<_>>()
    };
    let first = marks().await;
    assert_eq!(first.len(), 1);
    for day in 0..9 {
        let path = Path::from(format!("marks/2026112{day}T000000Z-00"));
        let new = PutOptions::from(PutMode::Create);
        aged.put_opts(&path, first[0].1.0.clone().into(), new).await.unwrap();
    }
    prune(&cx, &repo, &last(1)).await.unwrap();
    assert_eq!(marks().await.len(), 10, "they are young");
    time.pass(DAY * 8);
    prune(&cx, &repo, &last(1)).await.unwrap();
    let left = marks().await;
    assert_eq!(left.len(), 1, "{left:?}");
    let mark: serde_json::Value = serde_json::from_slice(&left[0].1.0).unwrap();
    // Of three that were removed, others need packs of one.
    assert_eq!(mark["removed"].as_array().unwrap().len(), 1, "{mark:#}");
}

#[tokio::test]
async fn an_unreadable_manifest_holds_its_cluster() {
    let cx = builder().build();
    let (repo, inner) = common::memory_repo(&cx).await;
    let samples = common::samples();
    for _ in 0..2 {
        back_up(&cx, &repo, &samples[4..]).await.unwrap();
    }
    let bad = back_up(&cx, &repo, &samples[4..]).await.unwrap();
    back_up(&cx, &repo, &samples[4..]).await.unwrap();
    let path = Path::from(format!("clusters/shop/backups/{}/manifest", bad.backup));
    use object_store::ObjectStoreExt;
    inner.delete(&path).await.unwrap();
    let report = prune(&cx, &repo, &last(1)).await.unwrap();
    assert!(report.backups.iter().all(|p| p.fate == Fate::Kept), "{report:?}");
    assert!(report.warnings.iter().any(|w| w.contains(bad.backup.as_str())), "{report:?}");
}

/// Object lock: what the store does not let go stays, is told of, and is gone when the lock has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_object_stays_and_is_no_failure() {
    let server = Server::start(Dialect::S3).await;
    let cx = Context::builder().build();
    let repo = Repo::init_on(&cx, server.store("r").await, options()).await.unwrap();
    let first = back_up_day(&cx, &repo, 0).await.unwrap();
    let second = back_up_day(&cx, &repo, 1).await.unwrap();
    back_up_day(&cx, &repo, 2).await.unwrap();
    let directory = |m: &Manifest| format!("r/clusters/shop/backups/{}", m.backup);
    server.hold(&format!("{}/index", directory(&first)));
    server.hold(&format!("{}/manifest", directory(&second)));
    // Some answers of S3 tell full seconds: what is of this second is younger than no time at all.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for round in 0..2 {
        let report = prune(&cx, &repo, &last(1)).await.unwrap();
        let objects: Vec<&str> = report.refused.iter().map(|r| r.object.as_str()).collect();
        assert_eq!(objects.len(), 2, "round {round}: {report:?}");
        assert!(objects.iter().any(|o| o.ends_with(&format!("{}/index", first.backup))));
        let fates: Vec<_> = report.backups.iter().map(|p| (&p.backup, p.fate)).collect();
        assert!(fates.contains(&(&second.backup, Fate::Held)), "{fates:?}");
        // Round 1 finds the first removed already.
        assert_eq!(fates.contains(&(&first.backup, Fate::Removed)), round == 0, "{fates:?}");
        assert_eq!(all_is_readable(&cx, &repo, "with locks").await.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_on_a_full_disk_says_what_helps() {
    let cx = builder().build();
    let mut full = 0;
    for at in 0..20 {
        let (_, inner) = common::memory_repo(&cx).await;
        let faulty = FaultStore::new(&inner, at, Fault::FailBefore(ENOSPC));
        let Ok(repo) = open(&cx, faulty).await else { continue };
        if let Err(e) = prune(&cx, &repo, &PruneOptions::default()).await {
            assert_eq!(e.kind(), ErrorKind::Space, "{e:?}");
            assert!(e.remedy().contains("no part of the repository"), "{}", e.report());
            full += 1;
        }
    }
    assert!(full > 0);
}
