//! The memory budget holds, whatever the size of the data. A process of its own, so that its peak is
//! that of this test.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![cfg(target_os = "linux")]

mod common;

use std::sync::Arc;

use backup_core::{Context, Layout, MemoryBudget, Repository};
use backup_storage::{Repo, RepositoryOptions, check_content};
use bytes::Bytes;
use common::{noise, outcome, spec};

fn status(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(field)).unwrap();
    let kib: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

/// The memory that this process has now, in bytes; its peak begins anew: proc_pid_clear_refs(5).
fn begin() -> usize {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    status("VmRSS:")
}

/// The most memory that this process had since.
fn peak() -> usize {
    status("VmHWM:")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_peak_does_not_grow_with_the_data() {
    const BUDGET: usize = 64 << 20;
    const ARTIFACTS: usize = 8;
    const WRITES: usize = 75;
    let cx = Context::builder().threads(2).memory(MemoryBudget::new(BUDGET as u64)).build();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let repo = Repo::init(&cx, &dir.path().into(), RepositoryOptions::default()).await.unwrap();
    let data = Bytes::from(noise(1, 1 << 20));
    let before = begin();

    // 600 MiB that do not compress, from eight tasks at once, faster than they can be stored.
    let session = repo.begin(&cx, spec()).await.unwrap();
    let writers: Vec<_> = (0..ARTIFACTS)
        .map(|i| {
            let (session, data) = (Arc::clone(&session), data.clone());
            tokio::spawn(async move {
                let name = format!("a/{i}").parse().unwrap();
                let mut writer = session.create(name, Layout::Stream).await.unwrap();
                for _ in 0..WRITES {
                    writer.write(data.clone()).await.unwrap();
                }
                writer.finish(serde_json::Value::Null).await.unwrap();
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let manifest = session.commit(outcome()).await.unwrap();
    assert!(manifest.totals.bytes_stored > 600 << 20);
    let written = peak() - before;
    assert!(written < BUDGET, "writing took {} MiB", written >> 20);

    let before = begin();
    // Eight readers that fetch ahead, and a consumer that is slow to begin.
    let source = repo.artifacts(&cx, &manifest).await.unwrap();
    let mut readers = Vec::new();
    for i in 0..ARTIFACTS {
        readers.push(source.open(&format!("a/{i}").parse().unwrap()).await.unwrap());
    }
    for mut reader in readers {
        while reader.next().await.unwrap().is_some() {}
    }
    assert!(check_content(&cx, &repo, &manifest).await.unwrap().findings.is_empty());
    let read = peak() - before;
    assert!(read < BUDGET, "reading took {} MiB", read >> 20);
}
