//! Sources and stores that go away, come back as others, or run full.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Context, ErrorKind, ReplayTarget};
use backup_drivers::binlog::{ReceiveOptions, Received, RescueOptions, receive, rescue};
use backup_drivers::connect::Session;
use backup_storage::{Repo, StoreOptions};
use rstest::rstest;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::replay::{beginning, content, position, replay, route};
use crate::server::{Server, WORK};
use crate::store::{Store, cluster};

/// A receiver that waits for more, until it is told to end.
pub(crate) struct Following {
    cx: Context,
    task: JoinHandle<backup_core::Result<Received>>,
}

impl Following {
    pub(crate) fn start(
        store: &Store,
        server: &Server,
        change: impl FnOnce(&mut ReceiveOptions),
    ) -> Following {
        Following::into(&store.repo, store, server, change)
    }

    /// With another way to the repository.
    fn into(
        repo: &Repo,
        store: &Store,
        server: &Server,
        change: impl FnOnce(&mut ReceiveOptions),
    ) -> Following {
        let cx = Context::builder().build();
        let mut options = ReceiveOptions {
            follow: true,
            store_every: Duration::from_millis(100),
            sync_every: Duration::from_millis(20),
            ..store.options()
        };
        change(&mut options);
        let (with, source) = (cx.clone(), server.options());
        let repo = Arc::new(repo.clone());
        let task = tokio::spawn(async move { receive(&with, &source, repo, options).await });
        Following { cx, task }
    }

    pub(crate) async fn end(self) -> backup_core::Result<Received> {
        self.cx.cancellation().cancel();
        self.task.await.unwrap()
    }
}

/// Waits until everything of the server is archived.
pub(crate) async fn archived(store: &Store, server: &Server) {
    let there = position(server).await;
    for _ in 0..1200 {
        if store.segments().await.iter().any(|info| there.is_subset(&info.after).unwrap_or(false)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{there} is not archived within a minute");
}

async fn expect_whole(store: &Store, server: &Server, name: &str) {
    let segments = store.segments().await;
    for pair in segments.windows(2) {
        assert_eq!(pair[0].after, pair[1].before, "{} {}", pair[0].range, pair[1].range);
    }
    let target = Server::start(name, |builder| builder).await;
    let way = route(store, &beginning(server, ""), &ReplayTarget::End, &[]).await.unwrap();
    replay(store, &target, way).await;
    assert_eq!(content(&target).await, content(server).await);
}

/// Ends every connection that the server dumps its binlog to.
async fn cut(server: &Server) -> usize {
    cut_with(&mut server.session().await).await
}

async fn cut_with(session: &mut Session) -> usize {
    let sql = "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'";
    let ids: Vec<u64> = session.query_rows(sql).await.unwrap();
    for id in &ids {
        // It may be gone.
        let _ = session.run(&format!("KILL {id}")).await;
    }
    ids.len()
}

/// What the files below a directory hold. Some go away meanwhile.
fn len(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let entries = entries.filter_map(|entry| Some(entry.ok()?.path()));
    entries.map(|p| if p.is_dir() { len(&p) } else { p.metadata().map_or(0, |m| m.len()) }).sum()
}

/// A store that takes less than the source writes: the source is read all the same, and what waits is in the
/// spool, until the store has caught up.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_store_keeps_the_source_waiting_for_nothing(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::start(name, |builder| builder.option("binlog_format", "ROW")).await;
    let store = Store::new().await;
    server.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, a BLOB)"]).await;
    let repo = store
        .reopened(StoreOptions {
            upload_limit: NonZeroU64::new(256 << 10),
            ..StoreOptions::default()
        })
        .await;
    let following = Following::into(&repo, &store, &server, |o| o.segment_bytes = 256 << 10);
    let mut session = server.session().await;
    for id in 0..3000 {
        session.run(&format!("INSERT INTO d.t VALUES ({id}, RANDOM_BYTES(1000))")).await.unwrap();
    }
    let there = position(&server).await;
    // All of it is here long before the store has it.
    let behind = async || {
        let archived: u64 =
            store.segments().await.iter().map(|info| info.range.end - info.range.start).sum();
        (archived, archived + len(&store.path("spool")))
    };
    for _ in 0..1200 {
        if behind().await.1 > 3_000_000 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (archived_now, received) = behind().await;
    assert!(received > 3_000_000, "{received} bytes have come");
    assert!(archived_now < 3_000_000, "the store was not slow: {archived_now} bytes");
    archived(&store, &server).await;
    assert_eq!(position(&server).await, there);
    let received = following.end().await.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(received.waiting, 0);
    expect_whole(&store, &server, name).await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_cut_and_a_store_that_is_away(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::start(name, |builder| builder.option("binlog_format", "ROW")).await;
    let store = Store::new().await;
    server.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, a BLOB)"]).await;
    let following = Following::start(&store, &server, |options| options.segment_bytes = 64 << 10);
    let insert =
        |id: u64| format!("INSERT INTO d.t VALUES ({id}, REPEAT('x', {}))", id * 997 % 9000);
    let mut session = server.session().await;
    let mut cuts = 0;
    for id in 0..200 {
        session.run(&insert(id)).await.unwrap();
        if id % 40 == 39 {
            cuts += cut(&server).await;
        }
        if id == 100 {
            session.run("FLUSH BINARY LOGS").await.unwrap();
        }
    }
    archived(&store, &server).await;
    assert!(cuts > 0, "nothing was cut");

    // The repository is away; what comes waits in the spool.
    let (here, away) = (store.path("repo"), store.path("away"));
    std::fs::rename(&here, &away).unwrap();
    for id in 200..300 {
        session.run(&insert(id)).await.unwrap();
    }
    let there = position(&server).await;
    let spooled = || len(&store.path("spool"));
    for _ in 0..1200 {
        if spooled() > 100 * 2000 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(spooled() > 100 * 2000, "{} bytes in the spool", spooled());
    assert!(!following.task.is_finished());
    assert!(!here.join("clusters").exists(), "somebody made the repository anew");
    let _ = std::fs::remove_dir_all(&here);
    std::fs::rename(&away, &here).unwrap();
    archived(&store, &server).await;
    assert_eq!(position(&server).await, there);
    let received = following.end().await.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(received.waiting, 0);
    // Nobody waited for us: that is no RPO of 0.
    let rpo = received.rpo.unwrap();
    assert!(rpo.seconds.is_some_and(|s| s > 0.0) && rpo.why.contains("--semi-sync"), "{rpo:?}");
    expect_whole(&store, &server, name).await;
}

/// What may be lost is a number, semi-sync or not, and grows while the server is away.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_lost_is_known(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let mut server = Server::start(name, |builder| builder).await;
    let store = Store::new().await;
    let following = Following::start(&store, &server, |_| {});
    server.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"]).await;
    archived(&store, &server).await;
    let rpo = following.end().await.unwrap_or_else(|e| panic!("{}", e.report())).rpo.unwrap();
    assert!(rpo.seconds.is_some_and(|s| s > 0.0) && rpo.why.contains("--semi-sync"), "{rpo:?}");

    let following = Following::start(&store, &server, |_| {});
    server.run(&["INSERT INTO d.t VALUES (1)"]).await;
    archived(&store, &server).await;
    server.0.stop().await.unwrap();
    let stopped = std::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let away = stopped.elapsed().as_secs_f64();
    let rpo = following.end().await.unwrap_or_else(|e| panic!("{}", e.report())).rpo.unwrap();
    assert!(rpo.seconds.is_some_and(|s| s >= away) && rpo.why.contains("away"), "{rpo:?} {away}");
}

/// A server that is shut down in order says that the dump ends, and does not mean it.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_shut_down_is_waited_for(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let mut server = Server::start(name, |builder| builder).await;
    let store = Store::new().await;
    server.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"]).await;
    let following = Following::start(&store, &server, |_| {});
    archived(&store, &server).await;
    server.0.stop().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!following.task.is_finished(), "it took the shutdown for the end");
    server.0.restart(&store.cx).await.unwrap();
    server.run(&["INSERT INTO d.t VALUES (1)"]).await;
    archived(&store, &server).await;
    assert!(!following.task.is_finished());
    following.end().await.unwrap_or_else(|e| panic!("{}", e.report()));
    expect_whole(&store, &server, name).await;
}

/// Who was let in once is taken to be let in again some time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_was_changed_is_waited_for() {
    let server = Server::start("mysql-9.7", |builder| builder).await;
    let store = Store::new().await;
    let mut session = server.session().await;
    session.run("CREATE DATABASE d").await.unwrap();
    let following = Following::start(&store, &server, |_| {});
    archived(&store, &server).await;
    session.run("ALTER USER root@localhost IDENTIFIED BY 'other'").await.unwrap();
    assert!(cut_with(&mut session).await > 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!following.task.is_finished());
    session.run("ALTER USER root@localhost IDENTIFIED BY ''").await.unwrap();
    archived(&store, &server).await;
    following.end().await.unwrap_or_else(|e| panic!("{}", e.report()));
}

/// A small file system; it is gone with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, size: &str) -> SmallDisk {
        std::fs::create_dir(path).unwrap();
        let options = format!("size={size},mode=700");
        let mut mount = Command::new("mount");
        let status =
            mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).status().unwrap();
        assert!(status.success(), "mounting a tmpfs needs root; run this suite as root");
        SmallDisk(path.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_is_told_and_loses_nothing() {
    let name = "mysql-9.7";
    let server = Server::start(name, |builder| builder).await;
    let store = Store::new().await;
    server.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, a LONGBLOB)"]).await;
    for id in 0..6 {
        server
            .run(&[
                &format!("INSERT INTO d.t VALUES ({id}, RANDOM_BYTES(1024))"),
                &format!("UPDATE d.t SET a = REPEAT(a, 900) WHERE id = {id}"),
            ])
            .await;
    }
    let disk = SmallDisk::mount(&store.path("small"), "3m");
    let options = ReceiveOptions { spool: disk.0.clone(), ..store.options() };
    let repo = Arc::new(store.repo.clone());
    let e = receive(&store.cx, &server.options(), repo, options).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Space, "{}", e.report());
    assert!(e.report().contains("--spool"), "{}", e.report());
    // What did fit is archived, or comes again.
    let options =
        ReceiveOptions { spool: disk.0.clone(), segment_bytes: 1 << 20, ..store.options() };
    let repo = Arc::new(store.repo.clone());
    let again = receive(&store.cx, &server.options(), repo, options).await;
    if let Err(e) = &again {
        assert_eq!(e.kind(), ErrorKind::Space, "{}", e.report());
    }
    drop(disk);
    store.archive(&server).await;
    expect_whole(&store, &server, name).await;
}

#[rstest]
#[tokio::test]
async fn a_history_that_began_anew_is_another_one(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::start(name, |builder| builder).await;
    let store = Store::new().await;
    server.run(&WORK).await;
    store.archive(&server).await;
    let before = store.segments().await.len();
    let reset =
        if name.starts_with("mysql") { "RESET BINARY LOGS AND GTIDS" } else { "RESET MASTER" };
    server.run(&[reset, "CREATE DATABASE other"]).await;
    let attempt = async || {
        let repo = Arc::new(store.repo.clone());
        receive(&store.cx, &server.options(), repo, store.options()).await
    };
    let e = attempt().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Source, "{}", e.report());
    assert!(e.report().contains("anew"), "{}", e.report());
    assert_eq!(store.segments().await.len(), before);
    // It is no matter of lengths: not when the file is longer than the archived one, either.
    server
        .run(&[
            "CREATE TABLE other.t (a LONGTEXT)",
            "INSERT INTO other.t VALUES (REPEAT('x', 200000))",
        ])
        .await;
    let e = attempt().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Source, "{}", e.report());
    assert_eq!(store.segments().await.len(), before);
}

/// A new history gives the same GTIDs again: it is told apart also when it is as long as the archived one.
#[rstest]
#[tokio::test]
async fn a_new_history_that_is_as_long_is_another_one(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values((0, false), (2, false), (6, false), (6, true))] anew: (usize, bool),
) {
    let (files, purged) = anew;
    let mut server = Server::start(name, |builder| builder).await;
    let store = Store::new().await;
    let insert = async |server: &Server, n: usize| {
        let all = vec!["INSERT INTO d.t VALUES (NULL)"; n];
        server.run(&all).await;
    };
    server
        .run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY)"])
        .await;
    insert(&server, 3).await;
    store.archive(&server).await;
    // A restart, and a purge of what is archived, are no new history.
    server.0.restart(&store.cx).await.unwrap();
    insert(&server, 3).await;
    server.run(&["FLUSH BINARY LOGS"]).await;
    store.archive(&server).await;
    server.run(&["FLUSH BINARY LOGS"]).await;
    let last = server.binlogs().await.last().unwrap().clone();
    server.run(&[&format!("PURGE BINARY LOGS TO '{last}'")]).await;
    insert(&server, 3).await;
    store.archive(&server).await;
    let before = store.segments().await;
    let highest = before.last().unwrap().range.file.clone();

    let reset =
        if name.starts_with("mysql") { "RESET BINARY LOGS AND GTIDS" } else { "RESET MASTER" };
    // The name of a file is that of an archived one, or comes before it, or behind.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.run(&[reset]).await;
    for _ in 0..files {
        if !purged {
            insert(&server, 8).await;
        }
        server.run(&["FLUSH BINARY LOGS"]).await;
    }
    insert(&server, 12).await;
    if purged {
        let last = server.binlogs().await.last().unwrap().clone();
        server.run(&[&format!("PURGE BINARY LOGS TO '{last}'")]).await;
    }
    let names = server.binlogs().await;
    assert_eq!(names.contains(&highest), files > 3 && !purged, "{names:?} {highest}");
    let repo = Arc::new(store.repo.clone());
    let e = receive(&store.cx, &server.options(), repo, store.options()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Source, "{}", e.report());
    assert!(e.report().contains("began anew"), "{}", e.report());
    assert_eq!(store.segments().await, before);
    if purged {
        return;
    }
    // Nor are its files taken for archived ones when it is dead.
    server.0.stop().await.unwrap();
    let rescued =
        rescue(&store.cx, &store.repo, &cluster(), server.0.datadir(), RescueOptions::default())
            .await;
    let e = rescued.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Source, "{}", e.report());
    assert_eq!(store.segments().await, before);
}

#[tokio::test]
async fn a_server_that_was_upgraded_goes_on() {
    let store = Store::new().await;
    let place = TempDir::new().unwrap();
    let data = place.path().join("data");
    {
        // Begun from a copy, so that it may stay.
        let old = Server::start("mariadb-10.11", |builder| builder).await;
        old.run(&WORK).await;
        store.archive(&old).await;
        let mut old = old;
        old.0.stop().await.unwrap();
        let copied = Command::new("cp").arg("-a").arg(old.0.datadir()).arg(&data).status().unwrap();
        assert!(copied.success());
    }
    let server = Server::start("mariadb-11.8", |builder| builder.datadir(&data)).await;
    server.run(&["INSERT INTO d.t (a) VALUES ('of the new version')"]).await;
    let received = store.archive(&server).await;
    assert_eq!(received.warnings, Vec::<String>::new());
    let segments = store.segments().await;
    let versions: Vec<&str> = segments.iter().map(|info| &info.version[..5]).collect();
    assert!(
        versions.first().unwrap().starts_with("10.11")
            && versions.last().unwrap().starts_with("11.8")
    );
    assert!(backup_core::BinlogChain::new(segments).gaps().is_empty());
    expect_whole(&store, &server, "mariadb-11.8").await;
}

/// The server names the file to go on with, however many it has, and says so when it is gone.
#[rstest]
#[tokio::test]
async fn the_place_is_found_by_gtid_among_many_files(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    use backup_drivers::binlog::Dump;
    let server = Server::start(name, |builder| builder).await;
    server.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"]).await;
    let mut at = Vec::new();
    for id in 0..6 {
        server.run(&[&format!("INSERT INTO d.t VALUES ({id})")]).await;
        at.push((server.binlogs().await.last().unwrap().clone(), position(&server).await));
        server.run(&["FLUSH BINARY LOGS"]).await;
    }
    let options = crate::dump::options();
    for pair in at.windows(2) {
        let file = Dump::first_file(&server.options(), &pair[0].1, None, &options).await.unwrap();
        // What comes next is in the next file; that one begins with nothing more than this.
        assert_eq!(file, pair[1].0);
    }
    let last = server.binlogs().await.last().unwrap().clone();
    // A file that is being sent is not purged.
    let purge = format!("PURGE BINARY LOGS TO '{last}'");
    while server.binlogs().await.len() > 1 {
        cut(&server).await;
        server.run(&[&purge]).await;
    }
    let e = Dump::first_file(&server.options(), &at[1].1, None, &options).await.unwrap_err();
    let said = e.server().map(|said| said.code);
    assert_eq!(said, Some(1236), "{}", e.report());
}
