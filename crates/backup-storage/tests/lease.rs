//! Leases: one holder at a time, and a dead one blocks nobody for long.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use backup_core::{Context, ErrorKind};
use backup_storage::{Key, Lease, LeaseName, Store};
use common::aged::{Aged, Snapshot, Time};
use jiff::SignedDuration;
use object_store::ObjectStore;

const TTL: Duration = Duration::from_secs(60);

struct Place {
    cx: Context,
    store: Store,
    aged: Arc<Aged>,
    time: Time,
}

impl Place {
    async fn new() -> Place {
        let time = Time::new();
        let aged = Aged::new(&time, &Snapshot::new()).await;
        let inner: Arc<dyn ObjectStore> = aged.clone();
        let cx = Context::builder().clock(Arc::new(time.clone())).build();
        Place { cx, store: Store::new(inner, "memory"), aged, time }
    }

    async fn acquire(&self, who: &str) -> backup_core::Result<Lease> {
        Lease::acquire(&self.cx, &self.store, LeaseName::Prune, who, TTL).await
    }

    async fn epochs(&self) -> Vec<u64> {
        let found = self.aged.snapshot().await;
        let number = |p: &object_store::path::Path| {
            p.as_ref().strip_prefix("locks/prune/").map(|n| n.parse().unwrap())
        };
        let mut epochs: Vec<u64> = found.keys().filter_map(number).collect();
        epochs.sort_unstable();
        epochs
    }
}

#[tokio::test(start_paused = true)]
async fn one_holds_it_until_it_is_released() {
    let place = Place::new().await;
    let first = place.acquire("process 1 on a").await.unwrap();
    let busy = place.acquire("process 2 on b").await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy);
    assert!(busy.report().contains("process 1 on a"), "{}", busy.report());
    first.check().unwrap();
    let token = first.token();
    first.release().await.unwrap();
    let second = place.acquire("process 2 on b").await.unwrap();
    assert!(second.token() > token, "a later holder has a higher token");
    // Another kind of work is another lease.
    Lease::acquire(&place.cx, &place.store, LeaseName::Tier, "c", TTL).await.unwrap();
    drop(second);
    tokio::time::sleep(Duration::from_secs(1)).await;
    place.acquire("process 3 on c").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn it_is_renewed_and_old_epochs_go() {
    let place = Place::new().await;
    let lease = place.acquire("a").await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(TTL).await;
        place.time.pass(SignedDuration::try_from(TTL).unwrap());
        lease.check().unwrap();
        assert_eq!(place.acquire("b").await.unwrap_err().kind(), ErrorKind::Busy);
    }
    assert_eq!(place.epochs().await.len(), 1);
    assert!(place.epochs().await[0] > 20);
}

#[tokio::test(start_paused = true)]
async fn a_dead_holder_is_watched_and_then_replaced() {
    let place = Place::new().await;
    let dead = place.acquire("a").await.unwrap();
    // It dies without a word.
    std::mem::forget(dead);
    place.store.delete(&Key::Lease(LeaseName::Prune, 1)).await.unwrap();
    let key = Key::Lease(LeaseName::Prune, 7);
    let epoch = r#"{"format":1,"kind":"hold","holder":"a","nonce":"0","at":"2026-11-20T10:15:30Z","ttl_ms":60000}"#;
    place.store.create(&key, epoch).await.unwrap();
    place.time.pass(SignedDuration::from_secs(119));
    assert_eq!(place.acquire("b").await.unwrap_err().kind(), ErrorKind::Busy, "too early");
    place.time.pass(SignedDuration::from_secs(2));
    let next = place.acquire("b").await.unwrap();
    assert_eq!(next.token(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_died_on_this_machine_is_replaced_at_once() {
    let place = Place::new().await;
    std::mem::forget(place.acquire("a").await.unwrap());
    let key = Key::Lease(LeaseName::Prune, 1);
    let written = place.store.get(&key, 1 << 20).await.unwrap().unwrap();
    let mut epoch: serde_json::Value = serde_json::from_slice(&written).unwrap();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    epoch["process"]["id"] = child.id().into();
    // On another machine, or in another container, nobody knows.
    for (part, other) in [("boot", "another".into()), ("namespace", 1.into())] {
        let mut elsewhere = epoch.clone();
        elsewhere["process"][part] = other;
        place.store.delete(&key).await.unwrap();
        place.store.create(&key, elsewhere.to_string()).await.unwrap();
        assert_eq!(place.acquire("b").await.unwrap_err().kind(), ErrorKind::Busy, "{part}");
    }
    place.store.delete(&key).await.unwrap();
    place.store.create(&key, epoch.to_string()).await.unwrap();
    let began = tokio::time::Instant::now();
    let next = place.acquire("b").await.unwrap();
    assert_eq!((next.token(), began.elapsed()), (2, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn who_finds_it_taken_learns_by_whom_since_when_and_until_when() {
    let place = Place::new().await;
    let _first = place.acquire("process 1 on a").await.unwrap();
    let said = place.acquire("b").await.unwrap_err().report();
    for part in ["process 1 on a", "since 2026-11-20 10:15:30 UTC", "until 2026-11-20 10:18:00 UTC"]
    {
        assert!(said.contains(part), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_seems_dead_and_is_not_keeps_it() {
    let place = Place::new().await;
    let slow = place.acquire("a").await.unwrap();
    // By the store's clock it is long silent, but it renews while it is watched.
    place.time.pass(SignedDuration::from_secs(150));
    assert_eq!(place.acquire("b").await.unwrap_err().kind(), ErrorKind::Busy);
    slow.check().unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_was_replaced_learns_it() {
    let place = Place::new().await;
    let first = place.acquire("a").await.unwrap();
    let epoch = r#"{"format":1,"kind":"hold","holder":"b","nonce":"1","at":"2026-11-20T10:15:30Z","ttl_ms":60000}"#;
    place.store.create(&Key::Lease(LeaseName::Prune, 9), epoch).await.unwrap();
    tokio::time::sleep(TTL).await;
    assert_eq!(first.check().unwrap_err().kind(), ErrorKind::Busy);
    first.release().await.unwrap();
    assert_eq!(place.epochs().await.last(), Some(&9), "the other one still holds it");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_blocks_nobody_for_ever() {
    let place = Place::new().await;
    std::mem::forget(place.acquire("a").await.unwrap());
    place.time.pass(SignedDuration::from_hours(-24 * 365));
    // The holder is alive: it renews.
    assert_eq!(place.acquire("b").await.unwrap_err().kind(), ErrorKind::Busy);
    let place = Place::new().await;
    let epoch = r#"{"format":1,"kind":"hold","holder":"a","nonce":"0","at":"2026-11-20T10:15:30Z","ttl_ms":60000}"#;
    place.store.create(&Key::Lease(LeaseName::Prune, 1), epoch).await.unwrap();
    place.time.pass(SignedDuration::from_hours(-24 * 365));
    place.acquire("b").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_a_holder() {
    let place = Place::new().await;
    place.store.create(&Key::Lease(LeaseName::Prune, 1), "{").await.unwrap();
    assert_eq!(place.acquire("b").await.unwrap_err().kind(), ErrorKind::Busy);
    place.time.pass(SignedDuration::from_hours(49));
    place.acquire("b").await.unwrap();
}
