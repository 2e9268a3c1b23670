//! A dump that waits while the source has much to do, and one that finds its number of connections.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use backup_core::{Context, Event, Manifest, Monitor, pipeline};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::logical::{
    LogicalBackup, LogicalOptions, LogicalRestoreOptions, Selection, TableName,
};
use rstest::rstest;
use tokio::sync::Notify;

use crate::pair::{Pair, spec};
use crate::sides;

/// Long after every step of these tests.
const PATIENCE: Duration = Duration::from_secs(90);

/// Holds the dump at a phase until it is told to go on, and keeps the notes.
struct Stage {
    phase: &'static str,
    reached: Notify,
    go: Mutex<mpsc::Receiver<()>>,
    notes: Mutex<Vec<String>>,
    throttled: Notify,
}

impl Stage {
    fn new(phase: &'static str) -> (Arc<Self>, mpsc::Sender<()>) {
        let (sender, go) = mpsc::channel();
        let stage = Stage {
            phase,
            reached: Notify::new(),
            go: Mutex::new(go),
            notes: Mutex::default(),
            throttled: Notify::new(),
        };
        (Arc::new(stage), sender)
    }

    fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap().clone()
    }
}

impl Monitor for Stage {
    fn event(&self, event: Event) {
        match event {
            Event::Phase { name } if name == self.phase => {
                self.reached.notify_one();
                // Fails when the test has failed; then the dump may as well go on.
                let _ = self.go.lock().unwrap().recv();
            }
            Event::Note { text } => {
                if text.starts_with("throttled: ") {
                    self.throttled.notify_one();
                }
                self.notes.lock().unwrap().push(text);
            }
            _ => {}
        }
    }
}

/// Runs statements that take long until they are killed.
struct Sleepers {
    control: Session,
    running: Vec<(u32, tokio::task::JoinHandle<()>)>,
}

impl Sleepers {
    /// Returns when the server counts them all.
    async fn start(server: &ConnectOptions, count: usize) -> Sleepers {
        let mut control = Session::open(server).await.unwrap();
        let mut running = Vec::new();
        for _ in 0..count {
            let mut session = Session::open(server).await.unwrap();
            let id = session.id();
            let sleeping = async move {
                // It is killed.
                let _ = session.run("SELECT SLEEP(300)").await;
            };
            running.push((id, tokio::spawn(sleeping)));
        }
        let sql = "SHOW GLOBAL STATUS LIKE 'Threads_running'";
        while control.query_first::<(String, usize)>(sql).await.unwrap().unwrap().1 <= count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Sleepers { control, running }
    }

    async fn end(mut self) {
        for (id, sleeping) in self.running {
            self.control.run(&format!("KILL {id}")).await.unwrap();
            sleeping.await.unwrap();
        }
    }
}

fn context(stage: &Arc<Stage>, threads: usize) -> Context {
    Context::builder().threads(threads).monitor(Arc::<Stage>::clone(stage)).build()
}

fn throttle(text: &str) -> LogicalOptions {
    LogicalOptions { throttle: Some(text.parse().unwrap()), ..LogicalOptions::default() }
}

async fn backup(pair: &Pair, cx: &Context, options: LogicalOptions) -> Manifest {
    let driver = LogicalBackup::new(pair.source(), options);
    pipeline::backup(cx, &pair.repository, &driver, spec()).await.unwrap()
}

fn throttled_seconds(manifest: &Manifest) -> f64 {
    manifest.outcome.details["throttled_seconds"].as_f64().unwrap()
}

/// Many chunks of rows, and a table without transactions.
async fn fill(source: &mut Session) {
    for statement in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(200))",
        "INSERT INTO shop.t WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE \
         n < 900) SELECT n, REPEAT('x', 200) FROM r",
        "CREATE TABLE shop.u LIKE shop.t",
        "INSERT INTO shop.u SELECT * FROM shop.t",
        "CREATE TABLE shop.old (id INT PRIMARY KEY) ENGINE=MyISAM",
        "INSERT INTO shop.old VALUES (1), (2)",
        "ANALYZE TABLE shop.t, shop.u",
    ] {
        source.run(statement).await.unwrap();
    }
}

/// Sessions begin to run before the first chunk (`rows`), or before the snapshot (`backup`).
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dump_waits_while_others_run_and_goes_on_exactly(
    #[values("mysql-9.7", "mariadb-10.11")] server: &str,
    #[values("rows", "backup")] phase: &'static str,
) {
    let pair = Pair::start(server).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    fill(&mut source).await;
    let before = sides::rows(&mut source).await;
    let in_snapshot = phase == "rows";

    let (stage, go) = Stage::new(phase);
    let cx = context(&stage, 3);
    let ended = Arc::new(AtomicBool::new(false));
    let others = {
        let (stage, cx, ended, server) =
            (Arc::clone(&stage), cx.clone(), Arc::clone(&ended), pair.source());
        tokio::spawn(async move {
            stage.reached.notified().await;
            let sleepers = Sleepers::start(&server, 9).await;
            go.send(()).unwrap();
            tokio::time::timeout(PATIENCE, stage.throttled.notified()).await.unwrap();
            // Nothing is locked meanwhile, and nothing is read: what changes now is not in the
            // snapshot.
            source.run("SET SESSION lock_wait_timeout = 5").await.unwrap();
            if in_snapshot {
                source.run("UPDATE shop.t SET v = 'later'").await.unwrap();
            }
            source.run("INSERT INTO shop.old VALUES (3)").await.unwrap();
            source.run("DELETE FROM shop.old WHERE id = 3").await.unwrap();
            tokio::time::sleep(Duration::from_secs(3)).await;
            // But for the rows of the table that was locked: somebody would wait for them.
            assert!(cx.progress().snapshot().rows <= 2, "{:?}", cx.progress().snapshot());
            assert!(cx.progress().snapshot().throttled_seconds > 0);
            ended.store(true, Ordering::SeqCst);
            sleepers.end().await;
        })
    };
    let options = LogicalOptions { chunk_bytes: 16 << 10, ..throttle("threads-running=6") };
    let manifest = tokio::time::timeout(2 * PATIENCE, backup(&pair, &cx, options)).await.unwrap();
    assert!(ended.load(Ordering::SeqCst), "it was done while the others ran");
    others.await.unwrap();

    assert!(throttled_seconds(&manifest) > 0.0, "{:?}", manifest.outcome.details);
    assert_eq!(manifest.outcome.warnings, [""; 0]);
    let notes = stage.notes();
    assert!(notes.iter().any(|note| note.starts_with("no longer throttled")), "{notes:?}");
    pair.restore(&manifest, LogicalRestoreOptions::default()).await;
    let mut target = Session::open(&pair.target()).await.unwrap();
    sides::assert_same("rows", &before, &sides::rows(&mut target).await);
    pair.stop().await;
}

/// Programs that want more processors than there are, until they are told to stop.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "the pressure is that of the whole machine, which has to be left alone"]
async fn a_dump_waits_for_the_processors_of_the_machine(
    #[values("mysql-9.7", "mariadb-10.11")] server: &str,
) {
    let pair = Pair::start(server).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    fill(&mut source).await;
    let before = sides::rows(&mut source).await;
    let stop = Arc::new(AtomicBool::new(false));
    let processors = std::thread::available_parallelism().unwrap().get();
    let busy: Vec<_> = (0..4 * processors)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || while !stop.load(Ordering::Relaxed) {})
        })
        .collect();
    let pressed = async || {
        let text = tokio::fs::read_to_string("/proc/pressure/cpu").await.unwrap();
        let share = text.split("avg10=").nth(1).and_then(|rest| rest.split(' ').next());
        share.and_then(|share| share.parse::<f64>().ok()).unwrap() > 60.0
    };
    while !pressed().await {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (stage, _) = Stage::new("");
    let cx = context(&stage, 2);
    let others = {
        let (stage, cx, stop) = (Arc::clone(&stage), cx.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            tokio::time::timeout(PATIENCE, stage.throttled.notified()).await.unwrap();
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_eq!(cx.progress().snapshot().rows, 0);
            stop.store(true, Ordering::SeqCst);
        })
    };
    let manifest = backup(&pair, &cx, throttle("cpu-pressure=40")).await;
    others.await.unwrap();
    busy.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(throttled_seconds(&manifest) > 0.0, "{:?}", manifest.outcome.details);
    let notes = stage.notes();
    assert!(notes.iter().any(|note| note.contains("cpu pressure is")), "{notes:?}");
    pair.restore(&manifest, LogicalRestoreOptions::default()).await;
    let mut target = Session::open(&pair.target()).await.unwrap();
    sides::assert_same("rows", &before, &sides::rows(&mut target).await);
    pair.stop().await;
}

/// Small tables that take one and a half seconds each to read, by a condition.
async fn slow(source: &mut Session, tables: usize) -> LogicalOptions {
    source.run("CREATE DATABASE shop").await.unwrap();
    let mut options = LogicalOptions {
        selection: Selection { databases: ["shop".into()].into(), ..Selection::default() },
        ..LogicalOptions::default()
    };
    for i in 0..tables {
        let name: TableName = format!("shop.t{i}").parse().unwrap();
        source.run(&format!("CREATE TABLE {name} (id INT PRIMARY KEY)")).await.unwrap();
        source.run(&format!("INSERT INTO {name} VALUES (1), (2), (3), (4)")).await.unwrap();
        options.filters.insert(name, "SLEEP(0.37) = 0".to_owned());
    }
    options
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_a_dump_runs_itself_does_not_hold_it_up(
    #[values("mysql-9.7", "mariadb-10.11")] server: &str,
) {
    let pair = Pair::start(server).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    let slow = slow(&mut source, 16).await;
    let idle: Option<(String, u64)> =
        source.query_first("SHOW GLOBAL STATUS LIKE 'Threads_running'").await.unwrap();
    // Fewer than the eight that read.
    let limit = idle.unwrap().1 + 3;
    let (stage, _) = Stage::new("");
    let throttle = throttle(&format!("threads-running={limit}")).throttle;
    let options = LogicalOptions { throttle, ..slow };
    let manifest = backup(&pair, &context(&stage, 8), options).await;
    assert_eq!(manifest.outcome.rows, Some(64));
    assert_eq!(throttled_seconds(&manifest), 0.0, "{:?}", stage.notes());
    pair.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_connections_follows_what_they_bring(
    #[values("mysql-9.7", "mariadb-10.11")] server: &str,
) {
    let pair = Pair::start(server).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    let slow = slow(&mut source, 24).await;
    let (stage, _) = Stage::new("");
    let options = LogicalOptions { adapt: true, ..slow };
    let manifest = backup(&pair, &context(&stage, 3), options).await;
    assert_eq!(manifest.outcome.rows, Some(96));
    let notes = stage.notes();
    assert!(notes.iter().any(|note| note == "4 connections read now"), "{notes:?}");
    pair.restore(&manifest, LogicalRestoreOptions::default()).await;
    let mut target = Session::open(&pair.target()).await.unwrap();
    sides::assert_same("rows", &sides::rows(&mut source).await, &sides::rows(&mut target).await);

    // Many small chunks, as they come.
    for session in [&mut source, &mut target] {
        session.run("DROP DATABASE shop").await.unwrap();
    }
    fill(&mut source).await;
    let options = LogicalOptions { adapt: true, chunk_bytes: 16 << 10, ..Default::default() };
    let manifest = pair.backup(options).await;
    pair.restore(&manifest, LogicalRestoreOptions::default()).await;
    sides::assert_same("rows", &sides::rows(&mut source).await, &sides::rows(&mut target).await);
    pair.stop().await;
}
