//! Backups that refer to what earlier ones have: what is new, what comes back, what is done when the
//! earlier one is damaged.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::{Context, ErrorKind, Finding, Layout, Level, Manifest, Repository, Severity};
use backup_storage::{Deltas, Repo, RepositoryOptions, Store, check_content, check_objects};
use bytes::Bytes;
use common::fault::{EIO, Fault, FaultStore};
use common::{Sample, back_up, context, listening, noise, options, restore_all};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;

mod common;

const PAGE: usize = 16_384;
const PAGES: Layout = Layout::Pages(PAGE as u32);

async fn repo(cx: &Context, deltas: Deltas) -> (Repo, Arc<dyn ObjectStore>) {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = Store::new(Arc::clone(&inner), "memory");
    let options = RepositoryOptions { deltas, ..options() };
    (Repo::init_on(cx, store, options).await.unwrap(), inner)
}

fn sample(name: &str, layout: Layout, content: &[u8]) -> Sample {
    let writes = match layout {
        Layout::Blocks => content.chunks(200_000).map(Bytes::copy_from_slice).collect(),
        // Of a length that meets no page and no frame.
        _ => content.chunks(777_777).map(Bytes::copy_from_slice).collect(),
    };
    Sample { name: name.to_owned(), layout, writes }
}

/// Compressible, as a database's pages are.
fn text(seed: u64, len: usize) -> Vec<u8> {
    noise(seed, len).iter().map(|b| b"etaoinsh"[usize::from(b % 8)]).collect()
}

async fn must_be_whole(cx: &Context, repo: &Repo, manifest: &Manifest, samples: &[Sample]) {
    restore_all(cx, repo, manifest, samples).await.unwrap();
    let report = check_content(cx, repo, manifest).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let report = check_objects(cx, repo, manifest).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pages_that_changed_are_new() {
    let cx = context();
    for deltas in [Deltas::Never, Deltas::Always] {
        let (repo, _) = repo(&cx, deltas).await;
        let mut file = text(1, 300 * PAGE);
        let first = back_up(&cx, &repo, &[sample("a.ibd", PAGES, &file)]).await.unwrap();
        assert_eq!(first.totals.bytes_new, first.totals.bytes_read);
        assert!(first.needs.is_empty());

        for page in [0, 7, 8, 150, 299] {
            file[page * PAGE + 100] ^= 0xff;
        }
        file.extend_from_slice(&text(2, 3 * PAGE));
        let samples = [sample("a.ibd", PAGES, &file)];
        let second = back_up(&cx, &repo, &samples).await.unwrap();
        assert_eq!(second.totals.bytes_new, 8 * PAGE as u64);
        assert_eq!(second.needs.len(), 1);
        assert_eq!(second.needs[0].backup, first.backup);
        must_be_whole(&cx, &repo, &second, &samples).await;
        let whole_pages = 8 * PAGE as u64 / 4;
        let stored: u64 = second.packs.iter().map(|p| p.bytes).sum();
        match deltas {
            Deltas::Never => assert!(stored > whole_pages, "{stored}"),
            // Three pages have no base; their text is three bits a byte.
            _ => assert!(stored < whole_pages, "{stored}"),
        }
    }
}

/// What is new beside something that changed can share a frame with it, and then stands in a delta.
#[tokio::test(flavor = "multi_thread")]
async fn what_grew_is_compared_with_afterwards_and_is_no_damage() {
    let cx = context();
    for layout in [PAGES, Layout::Blocks, Layout::Stream] {
        let (repo, _) = repo(&cx, Deltas::Always).await;
        let mut file = text(1, 100 * PAGE);
        for day in 0..4 {
            let samples = [sample("a.ibd", layout, &file)];
            let manifest = back_up(&cx, &repo, &samples).await.unwrap();
            assert_eq!(manifest.outcome.warnings, Vec::<String>::new(), "{layout:?}, day {day}");
            must_be_whole(&cx, &repo, &manifest, &samples).await;
            let stored: u64 = manifest.packs.iter().map(|pack| pack.bytes).sum();
            if day > 0 && layout == PAGES {
                // Ten pages are new, with three bits a byte; all others are deltas.
                let new = 10 * PAGE as u64 * 3 / 8;
                assert!(stored < 2 * new, "day {day}: {stored}");
            }
            for page in file.chunks_mut(PAGE) {
                page[100 + day as usize] ^= 0xff;
            }
            file.extend_from_slice(&text(10 + day, 10 * PAGE));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_change_costs_next_to_nothing() {
    let cx = context();
    let (repo, _) = repo(&cx, Deltas::Auto).await;
    let mut samples = common::samples();
    samples.push(sample("large", Layout::Stream, &noise(50, 9 << 20)));
    samples.push(sample("larger.ibd", PAGES, &noise(51, 700 * PAGE)));
    let first = back_up(&cx, &repo, &samples).await.unwrap();
    let mut last = first.clone();
    for _ in 0..3 {
        last = back_up(&cx, &repo, &samples).await.unwrap();
        assert_eq!(last.totals.bytes_new, 0);
        let stored: u64 = last.packs.iter().map(|p| p.bytes).sum();
        assert!(stored < 20_000, "{stored} bytes in packs");
        // All of it is in the first; those in between only said so.
        assert!(last.needs.iter().any(|needed| needed.backup == first.backup));
        must_be_whole(&cx, &repo, &last, &samples).await;
    }
    assert!(last.needs.len() <= 2, "{:?}", last.needs);
}

/// What is as long as a map has parts for, or has short frames, is not too scattered to be used.
#[tokio::test(flavor = "multi_thread")]
async fn long_artifacts_are_found_again_as_well() {
    let cx = context();
    for layout in [Layout::Stream, Layout::Blocks, PAGES] {
        let (repo, _) = repo(&cx, Deltas::Auto).await;
        let samples = [sample("long", layout, &noise(52, 48 << 20))];
        back_up(&cx, &repo, &samples).await.unwrap();
        for _ in 0..2 {
            let again = back_up(&cx, &repo, &samples).await.unwrap();
            assert_eq!(again.totals.bytes_new, 0, "{layout:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_found_again_behind_an_insertion() {
    let cx = context();
    for deltas in [Deltas::Never, Deltas::Always] {
        let (repo, _) = repo(&cx, deltas).await;
        let before = noise(60, 20 << 20);
        back_up(&cx, &repo, &[sample("s", Layout::Stream, &before)]).await.unwrap();
        let mut after = before.clone();
        after.splice(3 << 20..3 << 20, noise(61, 12_345));
        after.drain(11 << 20..(11 << 20) + 100_000);
        let samples = [sample("s", Layout::Stream, &after)];
        let second = back_up(&cx, &repo, &samples).await.unwrap();
        assert!(second.totals.bytes_new < 4 << 20, "{}", second.totals.bytes_new);
        must_be_whole(&cx, &repo, &second, &samples).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_blocks_are_deltas_to_what_they_were() {
    let cx = context();
    let (repo, _) = repo(&cx, Deltas::Always).await;
    let mut rows = noise(70, 30 * 200_000);
    let first = back_up(&cx, &repo, &[sample("t", Layout::Blocks, &rows)]).await.unwrap();
    for i in (0..rows.len()).step_by(40_000) {
        rows[i] ^= 1;
    }
    let samples = [sample("t", Layout::Blocks, &rows)];
    let second = back_up(&cx, &repo, &samples).await.unwrap();
    assert_eq!(second.totals.bytes_new, second.totals.bytes_read, "every block changed");
    let stored = second.totals.bytes_stored;
    assert!(stored * 100 < first.totals.bytes_stored, "{stored}");
    must_be_whole(&cx, &repo, &second, &samples).await;
    // And again: still against the first, never a delta to a delta.
    for i in (7..rows.len()).step_by(40_000) {
        rows[i] ^= 1;
    }
    let samples = [sample("t", Layout::Blocks, &rows)];
    let third = back_up(&cx, &repo, &samples).await.unwrap();
    assert!(third.totals.bytes_stored * 50 < first.totals.bytes_stored);
    assert!(third.needs.iter().all(|n| n.backup == first.backup), "{:?}", third.needs);
    must_be_whole(&cx, &repo, &third, &samples).await;
}

/// A delta that is no shorter than what it stands for is not made.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_nothing_left_of_its_base_is_whole_again() {
    let cx = context();
    let (repo, _) = repo(&cx, Deltas::Always).await;
    let before = sample("a.ibd", PAGES, &noise(80, 64 * PAGE));
    back_up(&cx, &repo, &[before]).await.unwrap();
    let samples = [sample("a.ibd", PAGES, &noise(81, 64 * PAGE))];
    let second = back_up(&cx, &repo, &samples).await.unwrap();
    assert!(second.needs.is_empty(), "{:?}", second.needs);
    must_be_whole(&cx, &repo, &second, &samples).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_dedup_a_backup_stands_alone() {
    let cx = context();
    let (first, inner) = repo(&cx, Deltas::Always).await;
    let samples = common::samples();
    back_up(&cx, &first, &samples).await.unwrap();
    let store = Store::new(inner, "memory");
    let options = RepositoryOptions { dedup: false, ..options() };
    let repo = Repo::open_on(&cx, store, options).await.unwrap();
    let second = back_up(&cx, &repo, &samples).await.unwrap();
    assert!(second.needs.is_empty());
    assert_eq!(second.totals.bytes_new, second.totals.bytes_read);
}

/// The objects of a backup.
async fn objects(inner: &Arc<dyn ObjectStore>, of: &Manifest, name: &str) -> Vec<Path> {
    let directory = Path::from(format!("clusters/{}/backups/{}", of.cluster, of.backup));
    let listed = inner.list_with_delimiter(Some(&directory)).await.unwrap();
    let paths = listed.objects.into_iter().map(|meta| meta.location);
    paths.filter(|p| p.filename().unwrap().starts_with(name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn index_and_manifest_of_the_base_are_not_needed_to_restore() {
    let cx = context();
    let (repo, inner) = repo(&cx, Deltas::Always).await;
    let mut file = text(90, 200 * PAGE);
    let first = back_up(&cx, &repo, &[sample("a.ibd", PAGES, &file)]).await.unwrap();
    file[50 * PAGE] ^= 1;
    let samples = [sample("a.ibd", PAGES, &file)];
    let second = back_up(&cx, &repo, &samples).await.unwrap();
    for name in ["manifest", "index"] {
        for path in objects(&inner, &first, name).await {
            inner.delete(&path).await.unwrap();
        }
    }
    must_be_whole(&cx, &repo, &second, &samples).await;
    // The index of the second, lost, comes back from its own packs.
    for path in objects(&inner, &second, "index").await {
        inner.delete(&path).await.unwrap();
    }
    let (cx, warnings) = listening();
    restore_all(&cx, &repo, &second, &samples).await.unwrap();
    assert!(warnings.take().iter().any(|w| w.contains("rebuilt")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_delta_is_made_against_is_needed_for_as_long_as_the_delta() {
    let cx = context();
    for layout in [PAGES, Layout::Blocks] {
        let (repo, inner) = repo(&cx, Deltas::Always).await;
        let mut file = text(1, 64 * PAGE);
        let first = back_up(&cx, &repo, &[sample("a", layout, &file)]).await.unwrap();
        for page in 0..64 {
            file[page * PAGE + 100] ^= 0xff;
        }
        let samples = [sample("a", layout, &file)];
        let second = back_up(&cx, &repo, &samples).await.unwrap();
        // Nothing changed since: all of it is the deltas of the second, against the first.
        let third = back_up(&cx, &repo, &samples).await.unwrap();
        assert_eq!(third.totals.bytes_new, 0);
        // Only what it needs is kept of the others, as after a prune.
        for other in [&first, &second] {
            let needed = third.needs.iter().find(|needed| needed.backup == other.backup);
            let needed = needed.map(|needed| needed.packs.as_slice()).unwrap_or_default();
            let mut names: Vec<&str> = vec!["index", "manifest"];
            let packs = other.packs.iter().filter(|pack| !needed.contains(pack));
            names.extend(packs.map(|pack| pack.name.as_str()));
            for name in names {
                for path in objects(&inner, other, name).await {
                    inner.delete(&path).await.unwrap();
                }
            }
        }
        must_be_whole(&cx, &repo, &third, &samples).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_built_on_damage_that_is_known() {
    let (cx, warnings) = listening();
    let samples = [sample("a.ibd", PAGES, &text(100, 200 * PAGE))];
    // A pack is gone; a pack is shorter; a verification has found damage.
    for case in 0..3 {
        let (repo, inner) = repo(&cx, Deltas::Always).await;
        let first = back_up(&cx, &repo, &samples).await.unwrap();
        let pack = &objects(&inner, &first, "pack-0").await[0];
        let bytes = inner.get(pack).await.unwrap().bytes().await.unwrap();
        inner.delete(pack).await.unwrap();
        match case {
            0 => {}
            1 => {
                let cut = bytes.slice(..bytes.len() - 1);
                inner.put(pack, cut.into()).await.unwrap();
            }
            _ => {
                let mut flipped = bytes.to_vec();
                flipped[5000] ^= 1;
                inner.put(pack, flipped.into()).await.unwrap();
                let report = check_content(&cx, &repo, &first).await.unwrap();
                assert!(!report.ok());
                let event = backup_core::RecordEvent::Proof {
                    level: report.level,
                    ok: report.ok(),
                    findings: report.findings,
                    duration_seconds: 0.1,
                    sampled: None,
                };
                let backup = Some(first.backup.clone());
                let record = backup_core::Record { time: cx.now(), backup, event };
                repo.record(&cx, &first.cluster, &record).await.unwrap();
            }
        }
        let second = back_up(&cx, &repo, &samples).await.unwrap();
        assert!(second.needs.is_empty(), "case {case}");
        assert!(warnings.take().iter().any(|w| w.contains("stored anew")), "case {case}");
        let kept = &second.outcome.warnings;
        assert!(kept.iter().any(|w| w.contains("is damaged")), "case {case}: {kept:?}");
        must_be_whole(&cx, &repo, &second, &samples).await;
    }
}

/// A drill whose server could not do what it took: all bytes are there all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_failed_for_other_reasons_than_its_bytes_serves() {
    let samples = [sample("a.ibd", PAGES, &noise(110, 64 * PAGE))];
    let finding = |kind| {
        Finding::new(Severity::Error, "function a.f", "the server refuses it", "").with_kind(kind)
    };
    for (kinds, serves) in [
        (vec![ErrorKind::Target, ErrorKind::Privilege], true),
        (vec![ErrorKind::Target, ErrorKind::Damaged], false),
    ] {
        let (cx, warnings) = listening();
        let (repo, _) = repo(&cx, Deltas::Always).await;
        let first = back_up(&cx, &repo, &samples).await.unwrap();
        let event = backup_core::RecordEvent::Proof {
            level: Level::Drill,
            ok: false,
            findings: kinds.into_iter().map(finding).collect(),
            duration_seconds: 0.1,
            sampled: None,
        };
        let backup = Some(first.backup.clone());
        let record = backup_core::Record { time: cx.now(), backup, event };
        repo.record(&cx, &first.cluster, &record).await.unwrap();
        let second = back_up(&cx, &repo, &samples).await.unwrap();
        assert_eq!(!second.needs.is_empty(), serves);
        let told = warnings.take().iter().any(|w| w.contains("stored anew"));
        assert_eq!(told, !serves);
    }
}

/// Where the damage is not known, what is read of the base is checked, and what is bad stored anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_cannot_be_read_makes_no_delta() {
    let (cx, warnings) = listening();
    let (repo, inner) = repo(&cx, Deltas::Always).await;
    let mut file = noise(110, 64 * PAGE);
    let first = back_up(&cx, &repo, &[sample("a.ibd", PAGES, &file)]).await.unwrap();
    let pack = &objects(&inner, &first, "pack-0").await[0];
    let mut bytes = inner.get(pack).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[5000] ^= 1;
    inner.delete(pack).await.unwrap();
    inner.put(pack, bytes.into()).await.unwrap();
    for page in 0..64 {
        file[page * PAGE] ^= 1;
    }
    let samples = [sample("a.ibd", PAGES, &file)];
    let second = back_up(&cx, &repo, &samples).await.unwrap();
    assert!(second.needs.is_empty(), "{:?}", second.needs);
    assert!(warnings.take().iter().any(|w| w.contains("stored anew")));
    let kept = &second.outcome.warnings;
    assert!(kept.iter().any(|w| w.contains("is damaged")), "{kept:?}");
    restore_all(&cx, &repo, &second, &samples).await.unwrap();
}

/// Changed pages among unchanged ones: the frames of the base hold both, and what each delta is made against.
#[tokio::test(flavor = "multi_thread")]
async fn no_frame_is_read_twice() {
    let cx = context();
    let (repo, inner) = repo(&cx, Deltas::Always).await;
    let mut file = noise(112, 1200 * PAGE);
    let samples = |file: &[u8]| [sample("a.ibd", PAGES, file), sample("b.ibd", PAGES, file)];
    back_up(&cx, &repo, &samples(&file)).await.unwrap();
    for page in (0..1200).step_by(5) {
        file[page * PAGE + 77] ^= 1;
    }
    let second = back_up(&cx, &repo, &samples(&file)).await.unwrap();
    let needed: u64 = second.needs.iter().flat_map(|n| &n.packs).map(|pack| pack.bytes).sum();
    let all = needed + second.totals.bytes_stored;
    assert!(second.totals.bytes_stored < needed / 10, "{second:?}");

    let counting = FaultStore::new(&inner, u64::MAX, Fault::FailBefore(EIO));
    let store = Store::new(Arc::clone(&counting) as Arc<dyn ObjectStore>, "memory");
    let repo = Repo::open_on(&cx, store, options()).await.unwrap();
    assert!(check_content(&cx, &repo, &second).await.unwrap().ok());
    // The packs of its own once as objects, and once more where artifacts are read across backups.
    let read = counting.read();
    assert!(read < all + all / 4, "{read} bytes were read of {all}");
    restore_all(&cx, &repo, &second, &samples(&file)).await.unwrap();
    let again = counting.read() - read;
    assert!(again < all + all / 4, "{again} bytes were read of {all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_strategy_or_cluster_is_no_base() {
    let cx = context();
    let (repo, _) = repo(&cx, Deltas::Always).await;
    let samples = common::samples();
    back_up(&cx, &repo, &samples).await.unwrap();
    let spec =
        backup_core::BackupSpec { strategy: backup_core::Strategy::Physical, ..common::spec() };
    let session = repo.begin(&cx, spec).await.unwrap();
    for sample in &samples {
        common::write(&*session, sample).await.unwrap();
    }
    let other = session.commit(common::outcome()).await.unwrap();
    assert!(other.needs.is_empty());
}

/// A change to a set of artifacts.
#[derive(Debug, Clone)]
enum Change {
    Flip(usize, usize),
    Insert(usize, usize, usize),
    Cut(usize, usize, usize),
    Grow(usize, usize),
    Replace(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = 0usize..3 << 20;
    let len = prop_oneof![1usize..200, 1usize..100_000];
    prop_oneof![
        (0usize..6, at.clone()).prop_map(|(a, at)| Change::Flip(a, at)),
        (0usize..6, at.clone(), len.clone()).prop_map(|(a, at, len)| Change::Insert(a, at, len)),
        (0usize..6, at, len.clone()).prop_map(|(a, at, len)| Change::Cut(a, at, len)),
        (0usize..6, len.clone()).prop_map(|(a, len)| Change::Grow(a, len)),
        (0usize..6, len).prop_map(|(a, len)| Change::Replace(a, len)),
    ]
}

fn apply(contents: &mut BTreeMap<&str, Vec<u8>>, change: &Change, seed: u64) {
    let (Change::Flip(a, _)
    | Change::Insert(a, ..)
    | Change::Cut(a, ..)
    | Change::Grow(a, _)
    | Change::Replace(a, _)) = *change;
    let content = contents.values_mut().nth(a).unwrap();
    let within = |at: usize| at.checked_rem(content.len()).unwrap_or(0);
    match *change {
        Change::Flip(_, at) if !content.is_empty() => {
            let at = within(at);
            content[at] ^= 1;
        }
        Change::Flip(..) => {}
        Change::Insert(_, at, len) => {
            let at = within(at);
            content.splice(at..at, text(seed, len));
        }
        Change::Cut(_, at, len) => {
            let at = within(at);
            let end = (at + len).min(content.len());
            content.drain(at..end);
        }
        Change::Grow(_, len) => content.extend_from_slice(&text(seed, len)),
        Change::Replace(_, len) => *content = text(seed, len),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever changes from one backup to the next: each gives back what was put into it, by itself.
    #[test]
    fn a_history_of_changes_comes_back(
        rounds in prop::collection::vec(prop::collection::vec(change(), 0..8), 1..6),
        deltas in any::<bool>(),
        seed in any::<u32>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let cx = context();
            let deltas = if deltas { Deltas::Always } else { Deltas::Never };
            let (repo, _) = repo(&cx, deltas).await;
            let seed = u64::from(seed);
            let mut contents = BTreeMap::from([
                ("a.ibd", text(seed, 150 * PAGE)),
                ("b.ibd", noise(seed + 1, 3 * PAGE + 5)),
                ("small", text(seed + 2, 5_000)),
                ("stream", text(seed + 3, 3 << 20)),
                ("rows", text(seed + 4, 2 << 20)),
                ("none", Vec::new()),
            ]);
            let layout = |name: &str| match name {
                "a.ibd" | "b.ibd" => PAGES,
                "rows" => Layout::Blocks,
                _ => Layout::Stream,
            };
            let mut done = Vec::new();
            for (round, changes) in (10..).zip(&rounds) {
                let samples: Vec<Sample> =
                    contents.iter().map(|(name, c)| sample(name, layout(name), c)).collect();
                done.push((back_up(&cx, &repo, &samples).await.unwrap(), samples));
                for (i, change) in (0..).zip(changes) {
                    apply(&mut contents, change, seed + 100 * round + i);
                }
            }
            for (manifest, samples) in &done {
                must_be_whole(&cx, &repo, manifest, samples).await;
            }
        });
    }
}
