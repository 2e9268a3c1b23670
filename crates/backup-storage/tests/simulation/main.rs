//! Thousands of random histories of backups, copies, prunes and proofs that run at once on one store, each
//! from a seed: one call to the store at a time, in any order; processes die, stand still for days and
//! go on, lose answers, and have wrong clocks. After every call, every backup that is listed can be
//! read.
//!
//! `HOLDFAST_SIMULATION_SEED=<n>` replays one history, and `HOLDFAST_SIMULATION_COUNT=<n>` plays so
//! many.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends at what it does not expect, and shows how to get there again"
)]

mod actors;
mod laws;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use backup_core::retention::Policy;
use backup_core::{ErrorKind, Result};
use backup_storage::{PruneOptions, Repo, RepositoryOptions, prune};
use jiff::SignedDuration;
use tokio::task::JoinHandle;

use actors::Actor;
use laws::Laws;
use world::{Dice, Turn, Waiting, World, pass};

/// How many histories are played by default.
const HISTORIES: u64 = 1000;
/// Nobody stands still for longer: what holds then is told in docs/adr/0009-pruning.md.
const LONGEST_SLEEP: Duration = Duration::from_secs(5 * 24 * 3600);

const EACCES: i32 = 13;
const ETIMEDOUT: i32 = 110;

/// What happened in all histories, to see that they are worth something.
#[derive(Default)]
struct Tally {
    steps: AtomicUsize,
    removed: AtomicUsize,
    with_needs: AtomicUsize,
    deaths: AtomicUsize,
    sleeps: AtomicUsize,
    given_up: AtomicUsize,
    copied: AtomicUsize,
}

struct History {
    world: std::sync::Arc<World>,
    dice: Dice,
    laws: Laws,
    running: BTreeMap<usize, JoinHandle<Result<()>>>,
    asleep: BTreeSet<usize>,
    next: usize,
    own_locks: bool,
}

impl History {
    fn actor(&mut self) -> Actor {
        self.next += 1;
        Actor::new(&self.world, self.next, &mut self.dice, self.own_locks)
    }

    fn start(&mut self) {
        let actor = self.actor();
        let number = self.next;
        let task = match self.dice.below(12) {
            0..5 => tokio::spawn(actor.back_up()),
            5..9 => tokio::spawn(actor.prune()),
            9..11 => tokio::spawn(actor.copy()),
            _ => tokio::spawn(actor.prove()),
        };
        self.running.insert(number, task);
    }

    /// Lets everybody run until they wait for their turn.
    async fn settle(&mut self, tally: &Tally) {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        let dead = self.world.state().dead.clone();
        let ended: Vec<usize> = self
            .running
            .iter()
            .filter(|(number, task)| task.is_finished() || dead.contains(number))
            .map(|(&number, _)| number)
            .collect();
        for number in ended {
            let task = self.running.remove(&number).unwrap();
            self.asleep.remove(&number);
            if !task.is_finished() {
                task.abort();
                tally.deaths.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if let Err(e) = task.await.unwrap() {
                let allowed = [ErrorKind::Busy, ErrorKind::Store, ErrorKind::Damaged];
                assert!(allowed.contains(&e.kind()) || e.kind() == ErrorKind::Internal, "{e:?}");
                if e.report().contains("given up") || e.report().contains("quicker with") {
                    tally.given_up.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        self.laws.check(&self.world);
    }

    /// Answers one of the calls that wait.
    fn step(&mut self, tally: &Tally) -> bool {
        let mut state = self.world.state();
        let awake: Vec<usize> = (0..state.waiting.len())
            .filter(|&i| {
                let waiting = &state.waiting[i];
                !self.asleep.contains(&waiting.actor)
            })
            .collect();
        let overdue = state.waiting.iter().position(|w| w.since.elapsed() > LONGEST_SLEEP);
        let Some(index) = overdue.or_else(|| self.dice.pick(&awake).copied()) else {
            return false;
        };
        let waiting = state.waiting.swap_remove(index);
        drop(state);
        tally.steps.fetch_add(1, Ordering::Relaxed);
        let deletes = waiting.call.starts_with("delete");
        // Where standing still is worst.
        let dangerous = waiting.call.ends_with("/manifest") && !waiting.call.starts_with("get");
        if dangerous && self.dice.permille(150) {
            self.sleep(waiting, tally);
            return true;
        }
        let turn = match self.dice.below(1000) {
            0..4 => Turn::Die,
            4..8 => {
                self.world.kill(waiting.actor);
                return true;
            }
            8..12 => Turn::Fail(ETIMEDOUT),
            12..18 => Turn::LoseAnswer(ETIMEDOUT),
            18..26 if deletes => Turn::Fail(EACCES),
            26..36 => {
                self.sleep(waiting, tally);
                return true;
            }
            _ => Turn::Go,
        };
        waiting.say(turn);
        true
    }

    /// Somebody stands still in the middle of what it does.
    fn sleep(&mut self, waiting: Waiting, tally: &Tally) {
        self.asleep.insert(waiting.actor);
        tally.sleeps.fetch_add(1, Ordering::Relaxed);
        self.world.state().waiting.push(waiting);
    }

    async fn time(&mut self) {
        // So far that nobody who waits oversleeps.
        let longest = {
            let state = self.world.state();
            let waited = state.waiting.iter().map(|w| w.since.elapsed()).max();
            LONGEST_SLEEP.saturating_sub(waited.unwrap_or_default())
        };
        let steps = if self.asleep.is_empty() { 20 } else { 26 };
        let seconds = match self.dice.below(steps) {
            0..10 => self.dice.below(120),
            10..17 => self.dice.below(3600),
            _ if self.asleep.is_empty() => self.dice.below(30 * 3600),
            _ => self.dice.below(4 * 24 * 3600),
        };
        pass(Duration::from_secs(seconds as u64).min(longest)).await;
        if self.dice.permille(20) {
            let skew = SignedDuration::from_hours(self.dice.below(48) as i64 - 24);
            self.world.state().skew = skew;
        }
        if self.dice.permille(100)
            && let Some(&actor) = self.dice.pick(&self.asleep.iter().copied().collect::<Vec<_>>())
        {
            self.asleep.remove(&actor);
        }
    }
}

async fn play(seed: u64, tally: &Tally, world: std::sync::Arc<World>) {
    let mut dice = Dice::new(seed);
    let own_locks = dice.permille(500);
    let mut history = History {
        world: std::sync::Arc::clone(&world),
        dice,
        laws: Laws::default(),
        running: BTreeMap::new(),
        asleep: BTreeSet::new(),
        next: 0,
        own_locks,
    };
    // A few backups in peace.
    let first = history.actor();
    let options = RepositoryOptions::default();
    Repo::init_on(&first.cx, first.store.clone(), options).await.unwrap();
    world.carry_off(&["holdfast.json".to_owned()]).await;
    for _ in 0..2 + history.dice.below(4) {
        let actor = history.actor();
        let _ = actor.back_up().await;
        let hours = history.dice.below(40) as u64;
        pass(Duration::from_secs(1 + hours * 3600)).await;
    }
    history.laws.check(&world);
    world.state().open = false;
    let mut to_start = 6 + history.dice.below(10);
    let mut later = 300;
    for _ in 0..20_000 {
        history.settle(tally).await;
        if to_start > 0
            && (history.running.len() < 2 || history.dice.permille(15))
            && history.running.len() < 5
        {
            to_start -= 1;
            history.start();
            continue;
        }
        if history.running.is_empty() {
            if !history.dice.permille(later) {
                break;
            }
            // From then on copies may bring back what was removed.
            later = 0;
            to_start = 4;
            pass(Duration::from_secs(8 * 24 * 3600)).await;
            let actor = history.actor();
            history.running.insert(history.next, tokio::spawn(actor.copy()));
            continue;
        }
        let often = if history.asleep.is_empty() { 20 } else { 60 };
        if history.dice.permille(often) {
            history.time().await;
        }
        if !history.step(tally) {
            history.time().await;
        }
    }
    assert!(history.running.is_empty(), "somebody never ends");

    tally.removed.fetch_add(history.laws.removed, Ordering::Relaxed);
    // Nobody is left who could disturb: prunes finish what was begun.
    world.state().skew = SignedDuration::ZERO;
    history.own_locks = false;
    for round in 0..4 {
        pass(Duration::from_secs(8 * 24 * 3600)).await;
        let actor = Actor { cx: first.cx.clone(), ..history.actor() };
        let policy = Policy { keep_last: 2, ..Policy::default() };
        let wait = SignedDuration::ZERO;
        let options = PruneOptions { policy, wait, ..PruneOptions::default() };
        let running = tokio::spawn(async move {
            let repo = actor.repo().await?;
            prune(&actor.cx, &repo, &options).await
        });
        while !running.is_finished() {
            history.settle(tally).await;
            let waiting = world.state().waiting.pop();
            match waiting {
                Some(waiting) => waiting.say(Turn::Go),
                None => pass(Duration::from_secs(60)).await,
            }
        }
        match running.await.unwrap() {
            // Somebody who ended gave the lease back just now.
            Err(e) if e.kind() == ErrorKind::Busy && round == 0 => {}
            ended => drop(ended.unwrap_or_else(|e| panic!("round {round}: {e:?}"))),
        }
        history.laws.check(&world);
    }
    history.laws.check_clean(&world);
    tally.with_needs.fetch_add(history.laws.with_needs, Ordering::Relaxed);
    tally.copied.fetch_add(history.laws.back, Ordering::Relaxed);
}

/// Plays a history; tells what happened last when a law was broken.
fn history(seed: u64, tally: &Tally) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let seen = std::sync::OnceLock::new();
    let played = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let world = World::new();
            let _ = seen.set(std::sync::Arc::clone(&world));
            play(seed, tally, world).await;
        });
    }));
    if played.is_err() {
        let trace = match seen.get() {
            Some(world) if std::env::var_os("HOLDFAST_SIMULATION_SEED").is_some() => {
                std::mem::take(&mut world.state().trace)
            }
            _ => Vec::new(),
        };
        eprintln!("{}\nHOLDFAST_SIMULATION_SEED={seed} breaks a law", trace.join("\n"));
    }
    played.is_ok()
}

fn number(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap())
}

#[test]
fn no_history_breaks_a_law() {
    let tally = Tally::default();
    if let Some(seed) = number("HOLDFAST_SIMULATION_SEED") {
        assert!(history(seed, &tally));
        return;
    }
    let count = number("HOLDFAST_SIMULATION_COUNT").unwrap_or(HISTORIES);
    let (next, broken) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        break;
                    }
                    if !history(seed, &tally) {
                        broken.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let seen = |n: &AtomicUsize| n.load(Ordering::Relaxed);
    println!(
        "{count} histories, {} calls, {} backups removed, {} on packs of others, {} deaths, {} \
         sleeps, {} given up while they were written, {} brought back by copies",
        seen(&tally.steps),
        seen(&tally.removed),
        seen(&tally.with_needs),
        seen(&tally.deaths),
        seen(&tally.sleeps),
        seen(&tally.given_up),
        seen(&tally.copied),
    );
    assert_eq!(broken.into_inner(), 0, "of {count} histories");
    let worth = [&tally.removed, &tally.with_needs, &tally.deaths, &tally.sleeps];
    assert!(worth.iter().all(|n| seen(n) as u64 > count / 20), "they say nothing");
    assert!(seen(&tally.given_up) > 0, "no backup was ever taken for dead");
    assert!(seen(&tally.copied) > 0, "no copy ever brought back what was removed");
}
