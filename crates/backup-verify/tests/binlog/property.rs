//! Every point of a history that nobody planned is reached: the tables there are those that the source
//! had at that moment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{
    Backup, BackupSpec, BackupType, Flavor, GtidSet, Manifest, ReplayBase, ReplayTarget, Restore,
    Strategy, pipeline,
};
use backup_drivers::binlog::Route;
use backup_drivers::binlog::replay::{self as replaying, ApplyOptions, apply};
use backup_drivers::connect::Session;
use backup_drivers::files::{FilesRestore, FilesRestoreOptions, LockOptions, LockedBackup};
use backup_drivers::logical::{
    LogicalBackup, LogicalOptions, LogicalRestore, LogicalRestoreOptions,
};
use backup_drivers::physical::{PhysicalBackup, PhysicalRestore, ToolOptions, details};
use backup_verify::{DrillOptions, FilesPoint};
use jiff::Timestamp;
use rstest::rstest;

use crate::replay::{beginning, route};
use crate::server::Server;
use crate::store::{Store, cluster};
use crate::workload::Work;

/// Everything in the databases of the work, and what is defined there.
type Content = BTreeMap<String, String>;

async fn content(session: &mut Session) -> Content {
    const OURS: &str = "IN ('w', 'w 2')";
    let mut content = Content::new();
    let tables: Vec<(String, String, String)> = session
        .query_rows(&format!(
            "SELECT table_schema, table_name, table_type FROM information_schema.tables \
             WHERE table_schema {OURS} ORDER BY 1, 2"
        ))
        .await
        .unwrap();
    let mut names = Vec::new();
    for (database, table, kind) in tables {
        let name = format!("`{database}`.`{}`", table.replace('`', "``"));
        let made: mysql_async::Row =
            session.query_first(&format!("SHOW CREATE TABLE {name}")).await.unwrap().unwrap();
        let made: String = made.get(1).unwrap();
        // What was rolled back counts here, and nobody tells a replica.
        let made: String = made
            .split(' ')
            .filter(|word| !word.starts_with("AUTO_INCREMENT="))
            .collect::<Vec<_>>()
            .join(" ");
        content.insert(name.clone(), made);
        if kind == "BASE TABLE" {
            let rows: Option<u64> =
                session.query_first(&format!("SELECT COUNT(*) FROM {name}")).await.unwrap();
            content.insert(format!("{name} rows"), rows.unwrap().to_string());
            // Few rows each, but defined anew all the time: shown in full, to see what differs.
            if table.starts_with("made") {
                let rows: Vec<mysql_async::Row> =
                    session.query_rows(&format!("SELECT * FROM {name}")).await.unwrap();
                let mut rows: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
                rows.sort();
                content.insert(format!("{name} values"), rows.join("\n"));
            }
            names.push(name);
        }
    }
    let sums: Vec<(String, Option<u64>)> =
        session.query_rows(&format!("CHECKSUM TABLE {}", names.join(", "))).await.unwrap();
    content.extend(sums.into_iter().map(|(name, sum)| (format!("{name} sum"), format!("{sum:?}"))));
    for (what, sql) in [
        (
            "trigger",
            format!(
                "SELECT CONCAT(trigger_schema, '.', trigger_name), CONCAT_WS(' ', event_object_table, action_timing, \
             event_manipulation, action_statement) FROM information_schema.triggers WHERE trigger_schema {OURS}"
            ),
        ),
        (
            "event",
            format!(
                "SELECT CONCAT(event_schema, '.', event_name), CONCAT_WS(' ', status, interval_value, event_comment, \
             event_definition) FROM information_schema.events WHERE event_schema {OURS}"
            ),
        ),
        (
            "routine",
            format!(
                "SELECT CONCAT(routine_schema, '.', routine_name), routine_definition FROM information_schema.routines \
             WHERE routine_schema {OURS}"
            ),
        ),
        (
            "user",
            "SELECT CONCAT(user, '@', host), '' FROM mysql.user WHERE user LIKE 'w%'".to_owned(),
        ),
    ] {
        let rows: Vec<(String, String)> = session.query_rows(&sql).await.unwrap();
        content.extend(rows.into_iter().map(|(name, text)| (format!("{what} {name}"), text)));
    }
    content
}

/// A moment of the source.
struct Moment {
    file: String,
    offset: u64,
    /// The GTID set there, where it can be told.
    gtids: GtidSet,
    /// Everything before this time was committed before, everything behind it later.
    time: Option<Timestamp>,
    content: Content,
}

async fn moment(server: &Server, work: &Work, session: &mut Session, timed: bool) -> Moment {
    let mysql = server.0.install().flavor() == Flavor::MySql;
    let undisturbed = work.gate.write().await;
    if timed {
        session.run("SET GLOBAL event_scheduler = OFF").await.unwrap();
    }
    session.run("FLUSH TABLES WITH READ LOCK").await.unwrap();
    let sql = if mysql { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    let row: mysql_async::Row = session.query_first(sql).await.unwrap().unwrap();
    let name = if mysql { "gtid_executed" } else { "gtid_binlog_pos" };
    let gtids: Option<String> =
        session.query_first(&format!("SELECT @@GLOBAL.{name}")).await.unwrap();
    let time = if timed {
        // MariaDB's times are full seconds, and those of the beginning of a statement.
        let now = Timestamp::now();
        let next = Timestamp::from_second(now.as_second() + 1).unwrap();
        let pause =
            if mysql { Duration::from_millis(5) } else { next.duration_since(now).unsigned_abs() };
        tokio::time::sleep(pause).await;
        Some(if mysql { Timestamp::now() } else { next })
    } else {
        None
    };
    let content = content(session).await;
    session.run("UNLOCK TABLES").await.unwrap();
    if timed {
        // A time is a place in the order of the binlog: what comes next must not say that it is older,
        // as what ran with a timestamp of its own does.
        session.run("INSERT INTO w.nokey VALUES (0, 'next')").await.unwrap();
        session.run("SET GLOBAL event_scheduler = ON").await.unwrap();
    }
    drop(undisturbed);
    Moment {
        file: row.get(0).unwrap(),
        offset: row.get(1).unwrap(),
        gtids: GtidSet::parse(server.0.install().flavor(), &gtids.unwrap()).unwrap(),
        time,
        content,
    }
}

fn rounds(default: usize) -> usize {
    std::env::var("HOLDFAST_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// A server that its own events leave alone.
async fn quiet(name: &str) -> Server {
    Server::start(name, |builder| builder.option("event_scheduler", "OFF")).await
}

async fn restored(store: &Store, manifest: &Manifest, name: &str) -> Server {
    let target = quiet(name).await;
    let options = LogicalRestoreOptions { binary_log: false, ..LogicalRestoreOptions::default() };
    let driver = LogicalRestore::new(target.options(), options);
    pipeline::restore(&store.cx, &store.repo, &driver, manifest).await.unwrap();
    target
}

/// The way from `base` to a moment, by one name of it or another.
async fn way(store: &Store, base: &ReplayBase, n: usize, moment: &Moment) -> Arc<Route> {
    let position =
        ReplayTarget::Position { server: None, file: moment.file.clone(), offset: moment.offset };
    let by_position =
        route(store, base, &position, &[]).await.unwrap_or_else(|e| panic!("{n}: {}", e.report()));
    let point = match (&moment.time, n % 3, &by_position.last, &by_position.first_left_out) {
        (Some(time), ..) => ReplayTarget::Time(*time),
        (None, 0, Some(last), _) => ReplayTarget::Gtid(last.gtid.clone().unwrap()),
        (None, 1, _, Some(next)) => ReplayTarget::BeforeGtid(next.gtid.clone().unwrap()),
        _ => position,
    };
    let way =
        route(store, base, &point, &[]).await.unwrap_or_else(|e| panic!("{n}: {}", e.report()));
    assert_eq!(way.reached, by_position.reached, "{n}: {point}");
    assert_eq!(way.reached.as_ref(), Some(&moment.gtids), "{n}: {point}");
    Arc::new(way)
}

/// Goes on from `base` to a moment.
async fn go(
    store: &Store,
    target: &Server,
    base: &ReplayBase,
    n: usize,
    moment: &Moment,
    first: bool,
) {
    let way = way(store, base, n, moment).await;
    let options = ApplyOptions { tell_applied: first, ..ApplyOptions::default() };
    let repo = Arc::new(store.repo.clone());
    apply(&store.cx, &target.options(), repo, way, &options)
        .await
        .unwrap_or_else(|e| panic!("moment {n}: {}", e.report()));
    compare(target, n, moment).await;
}

async fn compare(target: &Server, n: usize, moment: &Moment) {
    let there = content(&mut target.session().await).await;
    for (name, expected) in &moment.content {
        assert_eq!(there.get(name), Some(expected), "moment {n}: {name}");
    }
    assert_eq!(there.len(), moment.content.len(), "moment {n}: {there:#?}");
}

/// Where mariadb-backup is.
fn tool(name: &str) -> Option<PathBuf> {
    Some(xtask::servers::Server::named(name).unwrap().directory())
}

/// Data files, brought to a moment, and a server on them.
async fn go_by_files(store: &Store, name: &str, manifest: &Manifest, n: usize, moment: &Moment) {
    let route = way(store, &ReplayBase::of(manifest), n, moment).await;
    let server = xtask::servers::Server::named(name).unwrap().directory();
    let options = DrillOptions { server: Some(server), directory: None, ..DrillOptions::default() };
    let point = FilesPoint::prepare(&store.repo, manifest, route, options, String::new());
    let point = point.unwrap_or_else(|e| panic!("moment {n}: {}", e.report()));
    let directory = store.path(&format!("files-{n}"));
    let options = FilesRestoreOptions::default();
    // What a tool read, the tool prepares.
    let driver: Box<dyn Restore> = match details(manifest) {
        Ok(_) => Box::new(PhysicalRestore::new(&directory, options, tool(name), Vec::new())),
        Err(_) => Box::new(FilesRestore::new(&directory, options)),
    };
    pipeline::restore(&store.cx, &store.repo, &*driver, manifest).await.unwrap();
    let applied = point.run(&store.cx, &directory).await;
    applied.unwrap_or_else(|e| panic!("moment {n}, files: {}", e.report()));
    let target = Server::start(name, |builder| {
        builder.datadir(&directory).durable(false).option("event_scheduler", "OFF")
    })
    .await;
    compare(&target, n, moment).await;
    drop(target);
    std::fs::remove_dir_all(directory).unwrap();
}

/// `HOLDFAST_TEST_ROUNDS` moments, `HOLDFAST_TEST_SEED` to see a history again.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_moment_of_a_wild_history_comes_back(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let seed = std::env::var("HOLDFAST_TEST_SEED").ok().and_then(|n| n.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("HOLDFAST_TEST_SEED={seed}");
    let source = Server::start(name, |builder| {
        let builder = builder.option("event_scheduler", "ON").option("binlog_format", "ROW");
        match name.starts_with("mysql") {
            true => builder,
            false => builder.option("binlog_checksum", "CRC32"),
        }
    })
    .await;
    let store = Store::new().await;
    let mut control = source.session().await;
    control.run("SET SESSION lock_wait_timeout = 60").await.unwrap();
    let mut work = Work::begin(&source, seed, store.path("load.tsv")).await;
    for _ in 0..40 {
        work.step().await;
    }
    work.end_prepared().await;
    let driver = LogicalBackup::new(source.options(), LogicalOptions::default());
    let spec = BackupSpec {
        cluster: cluster(),
        strategy: Strategy::Logical,
        backup_type: BackupType::Full,
        parent: None,
    };
    let manifest = pipeline::backup(&store.cx, &store.repo, &driver, spec).await.unwrap();
    let spec = BackupSpec {
        cluster: cluster(),
        strategy: Strategy::Physical,
        backup_type: BackupType::Full,
        parent: None,
    };
    let driver: Box<dyn Backup> = match name.starts_with("mysql") {
        true => Box::new(LockedBackup::new(source.options(), LockOptions::default())),
        false => {
            let options = ToolOptions::default();
            Box::new(PhysicalBackup::new(source.options(), tool(name), Vec::new(), options))
        }
    };
    // Nobody may write meanwhile, and the work does not wait for as long as that takes.
    let undisturbed = work.gate.write().await;
    let files = pipeline::backup(&store.cx, &store.repo, &*driver, spec).await;
    let files = files.unwrap_or_else(|e| panic!("{}", e.report()));
    drop(undisturbed);
    let rounds = rounds(6);
    let mut moments = Vec::new();
    for n in 0..rounds {
        for _ in 0..25 {
            work.step().await;
        }
        moments.push(moment(&source, &work, &mut control, n % 5 == 3).await);
        if n % 4 == 1 {
            store.archive(&source).await;
        }
    }
    for _ in 0..10 {
        work.step().await;
    }
    let (done, failed) = work.done;
    println!("{done} statements, of which {failed} failed");
    assert!(failed * 4 < done, "{failed} of {done} statements failed");
    work.end().await;
    store.archive(&source).await;

    let base = ReplayBase::of(&manifest);
    let target = restored(&store, &manifest, name).await;
    for (n, moment) in moments.iter().enumerate() {
        let from = match n {
            0 => base.clone(),
            _ => {
                let here = replaying::position(&target.options()).await.unwrap();
                beginning(&source, &here.to_string())
            }
        };
        go(&store, &target, &from, n, moment, n == 0).await;
        if n % 20 == rounds.min(20) / 2 {
            let fresh = restored(&store, &manifest, name).await;
            go(&store, &fresh, &base, n, moment, true).await;
            go_by_files(&store, name, &files, n, moment).await;
        }
    }
}
