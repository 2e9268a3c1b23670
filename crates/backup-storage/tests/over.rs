//! Artifacts read over an older state of them: what comes out is the artifact, whatever was there, and what was
//! the same is not read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use backup_core::{
    ArtifactSource, Context, ErrorKind, Layout, Manifest, Older, Repository, Result,
};
use backup_storage::{Deltas, Repo, RepositoryOptions, Store};
use bytes::Bytes;
use common::fault::{EIO, Fault, FaultStore};
use common::{Sample, back_up, context, noise, options};
use object_store::ObjectStore;
use object_store::memory::InMemory;

mod common;
#[path = "../../../fuzz/harness.rs"]
#[allow(dead_code, unreachable_pub, reason = "the fuzz tests use all of it")]
mod harness;

const PAGE: usize = 16_384;
const PAGES: Layout = Layout::Pages(PAGE as u32);
const NAME: &str = "files/a.ibd";

/// A file that is written over while it is compared.
#[derive(Clone)]
struct There(Arc<Mutex<Vec<u8>>>);

impl Older for There {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> std::io::Result<usize> {
        let there = self.0.lock().unwrap();
        let from = there.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        // Not everything at once, as files may do.
        let some = from.len().min(bytes.len()).min(70_000);
        bytes[..some].copy_from_slice(&from[..some]);
        Ok(some)
    }
}

fn sample(layout: Layout, content: &[u8]) -> Sample {
    let writes = content.chunks(777_777).map(Bytes::copy_from_slice).collect();
    Sample { name: NAME.to_owned(), layout, writes }
}

async fn repo(cx: &Context, deltas: Deltas) -> (Repo, Arc<dyn ObjectStore>) {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = Store::new(Arc::clone(&inner), "memory");
    let options = RepositoryOptions { deltas, ..options() };
    (Repo::init_on(cx, store, options).await.unwrap(), inner)
}

/// A repository that counts what is read of it.
async fn counted(cx: &Context, inner: &Arc<dyn ObjectStore>) -> (Repo, Arc<FaultStore>) {
    let counting = FaultStore::new(inner, u64::MAX, Fault::FailBefore(EIO));
    let store = Store::new(Arc::clone(&counting) as Arc<dyn ObjectStore>, "memory");
    (Repo::open_on(cx, store, options()).await.unwrap(), counting)
}

/// Brings `older` up to date. Gives what it is then, and how many bytes were given out.
async fn bring_up(source: &dyn ArtifactSource, older: &[u8]) -> Result<(Vec<u8>, usize)> {
    let there = There(Arc::new(Mutex::new(older.to_vec())));
    let reader = source.open_over(&NAME.parse()?, Arc::new(there.clone())).await?;
    let mut reader = reader.expect("the backup has a map of it");
    let (mut at, mut given) = (0, 0);
    while let Some((offset, piece)) = reader.next().await? {
        assert!(offset >= at, "pieces go back");
        at = offset + piece.len() as u64;
        given += piece.len();
        let mut there = there.0.lock().unwrap();
        let len = there.len().max(at as usize);
        there.resize(len, 0);
        there[offset as usize..at as usize].copy_from_slice(&piece);
    }
    let mut there = there.0.lock().unwrap().clone();
    assert!(there.len() as u64 >= reader.bytes(), "the end of it was never given out");
    there.truncate(usize::try_from(reader.bytes()).unwrap());
    Ok((there, given))
}

fn change(file: &mut [u8], pages: impl Iterator<Item = usize>, by: u8) {
    for page in pages {
        file[page * PAGE + 77] ^= by;
    }
}

async fn two_days(
    cx: &Context,
    repo: &Repo,
    layout: Layout,
) -> (Vec<u8>, Vec<u8>, Manifest, Manifest) {
    let first = noise(1, 1200 * PAGE);
    let mut second = first.clone();
    change(&mut second, (0..1200).step_by(20), 1);
    second.extend_from_slice(&noise(2, 7 * PAGE));
    let one = back_up(cx, repo, &[sample(layout, &first)]).await.unwrap();
    let two = back_up(cx, repo, &[sample(layout, &second)]).await.unwrap();
    (first, second, one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_there_it_is_the_artifact_then() {
    let cx = context();
    for (deltas, layout) in
        [(Deltas::Always, PAGES), (Deltas::Never, PAGES), (Deltas::Always, Layout::Stream)]
    {
        let (repo, _) = repo(&cx, deltas).await;
        let (first, second, one, two) = two_days(&cx, &repo, layout).await;
        // A third day changes some of what the second did: of its deltas only some pages are wanted.
        let mut third = second.clone();
        change(&mut third, (0..1200).step_by(40), 2);
        let three = back_up(&cx, &repo, &[sample(layout, &third)]).await.unwrap();

        // As a server leaves it that ran on the files: here and there other pages.
        let mut used = first.clone();
        change(&mut used, (0..1200).step_by(33), 8);
        let mut mixed = first.clone();
        mixed[..600 * PAGE].copy_from_slice(&second[..600 * PAGE]);
        let short = &first[..500 * PAGE + 5];
        let long = [&third[..], &noise(3, 3 * PAGE)].concat();
        let olders =
            [&first[..], &second, &third, &used, &mixed, short, &long, &noise(4, PAGE), &[][..]];
        for (manifest, content) in [(&one, &first), (&two, &second), (&three, &third)] {
            let source = repo.artifacts(&cx, manifest).await.unwrap();
            for (n, older) in olders.iter().enumerate() {
                let (is, given) = bring_up(&*source, older).await.unwrap();
                assert!(is == *content, "{layout:?}, older state {n}, {}", manifest.backup);
                let same = older.starts_with(content);
                assert_eq!(given == 0, same, "{layout:?}, older state {n}: {given} bytes given");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_the_same_is_not_read() {
    let cx = context();
    let (repo, inner) = repo(&cx, Deltas::Always).await;
    let (first, second, one, two) = two_days(&cx, &repo, PAGES).await;
    assert!(two.totals.bytes_stored < one.totals.bytes_stored / 10, "{two:?}");
    for (older, reads) in [(&first, two.totals.bytes_stored), (&second, 0)] {
        let (repo, counting) = counted(&cx, &inner).await;
        let source = repo.artifacts(&cx, &two).await.unwrap();
        let before = counting.read();
        let (is, given) = bring_up(&*source, older).await.unwrap();
        assert!(is == second);
        let read = counting.read() - before;
        // The map and the catalog; what deltas are made against is what was there.
        assert!(read <= reads + 200_000, "{read} bytes were read, {given} given");
    }
    // Where a base was written over, it comes from the repository.
    let mut used = first.clone();
    change(&mut used, 0..30, 8);
    let source = repo.artifacts(&cx, &two).await.unwrap();
    assert!(bring_up(&*source, &used).await.unwrap().0 == second);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_an_error_and_never_another_content() {
    let cx = context();
    let (repo, inner) = repo(&cx, Deltas::Always).await;
    let (first, second, _, two) = two_days(&cx, &repo, PAGES).await;
    let objects = common::objects(&*inner).await;
    let own = format!("{}/pack-", two.backup);
    let mut failed = 0;
    for (path, bytes) in objects.iter().filter(|(path, _)| path.as_ref().contains(&own)) {
        for part in 1..20 {
            let mut hurt = bytes.to_vec();
            let at = hurt.len() * part / 20;
            hurt[at] ^= 1;
            let mut all = objects.clone();
            all.insert(path.clone(), hurt.into());
            let store = Store::new(common::put_all(&all).await, "memory");
            let repo = Repo::open_on(&cx, store, options()).await.unwrap();
            let source = repo.artifacts(&cx, &two).await.unwrap();
            match bring_up(&*source, &first).await {
                Ok((is, _)) => assert!(is == second, "byte {at} of {path}"),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Damaged, "{}", e.chain());
                    failed += 1;
                }
            }
        }
    }
    assert!(failed > 10, "only {failed} flips were noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_short_for_a_map_is_read_as_a_whole() {
    let cx = context();
    let (repo, _) = repo(&cx, Deltas::Always).await;
    let two = back_up(&cx, &repo, &[sample(PAGES, &noise(1, PAGE))]).await.unwrap();
    let source = repo.artifacts(&cx, &two).await.unwrap();
    let there = There(Arc::default());
    assert!(source.open_over(&NAME.parse().unwrap(), Arc::new(there)).await.unwrap().is_none());
}

/// A backup of a small file whose pages are deltas, deltas of some pages only, and whole.
struct Small {
    runtime: tokio::runtime::Runtime,
    source: Arc<dyn ArtifactSource>,
    first: Vec<u8>,
    now: Vec<u8>,
}

fn small() -> &'static Small {
    static SMALL: std::sync::OnceLock<Small> = std::sync::OnceLock::new();
    SMALL.get_or_init(|| {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let first = noise(1, 200 << 10);
        let mut now = first.clone();
        let source = runtime.block_on(async {
            let cx = context();
            let (repo, _) = repo(&cx, Deltas::Always).await;
            let mut last = back_up(&cx, &repo, &[sample(Layout::Pages(1024), &now)]).await.unwrap();
            for day in 1..3_usize {
                (0..now.len()).step_by(3000 * day).for_each(|at| now[at] ^= day as u8);
                now.extend_from_slice(&noise(day as u64 + 1, 5 << 10));
                last = back_up(&cx, &repo, &[sample(Layout::Pages(1024), &now)]).await.unwrap();
            }
            repo.artifacts(&cx, &last).await.unwrap()
        });
        Small { runtime, source, first, now }
    })
}

/// Eight bytes are one change of what is there: where, how much, what is written there; the last one tells its
/// length, too.
fn over_changes(bytes: &[u8]) {
    let Small { runtime, source, first, now } = small();
    let mut older = if bytes.len().is_multiple_of(2) { first.clone() } else { now.clone() };
    for change in bytes.chunks(8) {
        let mut whole = [0; 8];
        whole[..change.len()].copy_from_slice(change);
        let [a, b, c, len, more, byte, cut, how] = whole;
        let at = u32::from_le_bytes([a, b, c, 0]) as usize % (older.len() + 1);
        let to = older.len().min(at + (usize::from(len) << (more % 8)));
        older[at..to].fill(byte);
        if how == 1 {
            older.truncate(older.len() - (usize::from(cut) << 4).min(older.len()));
        } else if how == 2 && older.len() < 1 << 20 {
            older.extend(vec![byte; usize::from(cut) << 4]);
        }
    }
    let (is, _) = runtime.block_on(bring_up(&**source, &older)).unwrap();
    assert!(is == *now);
}

#[test]
fn any_change_of_what_is_there_is_undone() {
    let seeds = [
        vec![],
        vec![0],
        [0, 0, 1, 200, 5, 7, 0, 0].repeat(3),
        [0, 128, 0, 1, 0, 0, 200, 1].to_vec(),
        [1, 2, 3, 255, 7, 0, 100, 2, 9].to_vec(),
    ];
    harness::Harness { name: "over", run: over_changes, longest: 400 }.short(2000, &seeds);
}
