//! Receivers and sources that are killed. What counts: nothing is missing, nothing is there twice, and
//! what the source was told to be safe is in the archive.

use std::process::{Child, Stdio};
use std::time::Duration;

use backup_drivers::connect::{ConnectOptions, Session};
use rstest::rstest;

use crate::home::{Home, Run};
use crate::server::{self, Server};

fn stream(home: &Home, url: &str, more: &[&str]) -> Child {
    let mut args =
        vec!["binlog", "stream", "--source", url, "--cluster", "shop", "--spool", "spool"];
    args.extend(["--from", "oldest", "--store-every", "1"]);
    args.extend(more);
    let log = std::fs::File::options().create(true).append(true).open(home.path("log")).unwrap();
    home.command(args)
        .env("HOLDFAST_REPO", "repo")
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn archive(home: &Home, url: &str) -> Run {
    let args = ["binlog", "backup", "--source", url, "--cluster", "shop", "--spool", "spool"];
    home.on_repo(args)
}

/// <https://mariadb.com/docs/server/reference/clientserver-protocol/replication-protocol/binlog_checkpoint_event>
const BINLOG_CHECKPOINT_EVENT: u8 = 161;

/// Every byte of every file, put together; panics where pieces overlap or leave a hole.
fn expect_whole(home: &Home, server: &Server, names: &[String]) {
    let list = home.on_repo(["binlog", "list", "--cluster", "shop", "--json"]).expect(0).json();
    let mut at: Vec<(String, u64)> = Vec::new();
    for segment in list.as_array().unwrap() {
        let file = segment["file"].as_str().unwrap();
        let (start, end) = (segment["start"].as_u64().unwrap(), segment["end"].as_u64().unwrap());
        match at.last_mut() {
            Some((last, offset)) if last == file => {
                assert_eq!(*offset, start, "{segment:#}");
                *offset = end;
            }
            _ => {
                assert_eq!(start, 0, "{segment:#}");
                at.push((file.to_owned(), end));
            }
        }
    }
    let there: Vec<(String, u64)> = names
        .iter()
        .map(|name| {
            let len = std::fs::metadata(server.0.datadir().join(name)).unwrap().len();
            (name.clone(), len)
        })
        .collect();
    let last = at.len() - 1;
    assert_eq!(at[..last], there[..there.len() - 1]);
    assert_eq!(at[last].0, there[last].0);
    // A MariaDB notes in its last file, whenever it likes, which of the earlier ones it needs no longer;
    // often several times, after several rotations. Nothing else may have come.
    let file = std::fs::read(server.0.datadir().join(&at[last].0)).unwrap();
    let mut rest = &file[usize::try_from(at[last].1).unwrap()..];
    while let [_, _, _, _, kind, _, _, _, _, size @ ..] = rest {
        assert_eq!(*kind, BINLOG_CHECKPOINT_EVENT, "archived: {at:?}, there: {there:?}");
        let (size, _) = size.split_first_chunk().unwrap();
        rest = &rest[u32::from_le_bytes(*size) as usize..];
    }
    assert!(rest.is_empty(), "a part of an event: {rest:?}");
    home.archive_is_whole();
}

/// How many rows the archive has inserted into a table.
fn inserted(home: &Home, table: &str) -> u64 {
    let find = ["binlog", "find", "--cluster", "shop", "--table", table, "--limit", "0", "--json"];
    let found = home.on_repo(find).expect(0).json();
    let rows = |t: &serde_json::Value| t["tables"][table]["inserted"].as_u64();
    found["transactions"].as_array().unwrap().iter().filter_map(rows).sum()
}

async fn binlogs(server: &Server) -> Vec<String> {
    let rows: Vec<(String, u64)> =
        match server.value("SELECT VERSION()").await.unwrap().contains("Maria") {
            true => server.session().await.query_rows("SHOW BINARY LOGS").await.unwrap(),
            false => {
                let rows: Vec<(String, u64, String)> =
                    server.session().await.query_rows("SHOW BINARY LOGS").await.unwrap();
                rows.into_iter().map(|(name, len, _)| (name, len)).collect()
            }
        };
    rows.into_iter().map(|(name, _)| name).collect()
}

/// How often something is killed; more by the environment, for a long run.
fn kills() -> u64 {
    std::env::var("HOLDFAST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_killed_leaves_no_hole(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = server.url();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let socket = server.0.socket();
    let load = tokio::spawn(async move {
        let mut session = Session::open(&ConnectOptions::socket(socket, "root")).await.unwrap();
        let mut n = 0;
        while stopped.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            n += 1;
            let sql =
                "INSERT INTO shop.orders (customer, amount, data) VALUES (1, 1, RANDOM_BYTES(500))";
            session.run(sql).await.unwrap();
            if n % 500 == 0 {
                session.run("FLUSH BINARY LOGS").await.unwrap();
            }
        }
    });
    for kill in 0..kills() {
        let mut receiver = stream(&home, &url, &["--segment-size", "64KiB"]);
        tokio::time::sleep(Duration::from_millis(300 + kill * 370 % 900)).await;
        assert!(
            receiver.try_wait().unwrap().is_none(),
            "{}",
            std::fs::read_to_string(home.path("log")).unwrap()
        );
        receiver.kill().unwrap();
        receiver.wait().unwrap();
    }
    stop.send(()).unwrap();
    load.await.unwrap();
    let done = archive(&home, &url).expect(0);
    expect_whole(&home, &server, &binlogs(&server).await);
    // As rows, or as the statements that the table was made with.
    let rows: u64 = server
        .value("SELECT COUNT(*) FROM shop.orders WHERE id > 512")
        .await
        .unwrap()
        .parse()
        .unwrap();
    assert!(inserted(&home, "shop.orders") >= rows);
    assert!(done.stderr.is_empty() || !done.stderr.contains("gap"), "{done:?}");
}

/// A long transaction is several segments: none of them is cut when they wait in the spool.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_transaction_that_waits_in_the_spool_stays_whole(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = server.url();
    let mut session = server.session().await;
    let table = ["SET SESSION binlog_format = ROW", "CREATE TABLE shop.t (n INT, data BLOB)"];
    server::run(&mut session, &table).await;
    archive(&home, &url).expect(0);
    let mut receiver = stream(&home, &url, &["--segment-size", "16KiB"]);
    let dumps =
        "SELECT COUNT(*) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'";
    while server.value(dumps).await.as_deref() == Some("0") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    std::fs::rename(home.path("repo"), home.path("away")).unwrap();
    let long = "INSERT INTO shop.t SELECT id, RANDOM_BYTES(1000) FROM shop.orders";
    server::run(&mut session, &[long]).await;
    while home.files("spool").iter().map(|(_, len)| len).sum::<u64>() < 512 * 1000 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Its end is there too: what was received is synced every second.
    tokio::time::sleep(Duration::from_secs(3)).await;
    receiver.kill().unwrap();
    receiver.wait().unwrap();
    let _ = std::fs::remove_dir_all(home.path("repo"));
    std::fs::rename(home.path("away"), home.path("repo")).unwrap();
    let rest = archive(&home, &url).expect(0).stdout;
    assert!(rest.contains("Archived") && !rest.contains("unknown position"), "{rest}");
    expect_whole(&home, &server, &binlogs(&server).await);
    assert_eq!(inserted(&home, "shop.t"), 512);
}

/// How many replicas acknowledge.
async fn clients(server: &Server) -> String {
    let sql = "SHOW GLOBAL STATUS LIKE 'Rpl\\_semi\\_sync\\_%\\_clients'";
    let row: Option<(String, String)> = server.session().await.query_first(sql).await.unwrap();
    row.map(|(_, value)| value).unwrap_or_default()
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_source_acknowledged_is_archived(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let cx = backup_core::Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap().tcp(true);
    let (builder, enabled) = match name.starts_with("mysql") {
        true => (
            builder
                .option("plugin-load-add", "semisync_source.so")
                .option("loose-rpl-semi-sync-source-enabled", "1")
                .option("loose-rpl-semi-sync-source-timeout", "60000"),
            "rpl_semi_sync_source_enabled",
        ),
        false => (
            builder
                // So that rows can be counted in what is archived.
                .option("binlog_format", "ROW")
                .option("rpl-semi-sync-master-enabled", "1")
                .option("rpl-semi-sync-master-wait-point", "AFTER_SYNC")
                .option("rpl-semi-sync-master-timeout", "60000"),
            "rpl_semi_sync_master_enabled",
        ),
    };
    let mut server = Server(builder.start(&cx).await.unwrap());
    let home = Home::with_repo();
    let url = server.url();
    // Nobody acknowledges yet.
    let mut session = server.session().await;
    server::run(&mut session, &[&format!("SET GLOBAL {enabled} = 0")]).await;
    server::run(&mut session, &["CREATE DATABASE shop", "CREATE TABLE shop.t (n INT PRIMARY KEY)"])
        .await;
    server::run(&mut session, &[&format!("SET GLOBAL {enabled} = 1")]).await;
    session.close().await.unwrap();
    let mut acknowledged = 0_u64;
    // Acknowledgements go over compressed lines too.
    let compression = if name.starts_with("mysql") { "zstd" } else { "zlib" };
    let compressed = format!("{url}&compression={compression}");
    for round in 0..kills() / 2 {
        let url = if round % 2 == 0 { &compressed } else { &url };
        let mut receiver = stream(&home, url, &["--semi-sync"]);
        while clients(&server).await != "1" {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(receiver.try_wait().unwrap().is_none());
        }
        let socket = server.0.socket();
        let begin = acknowledged;
        let load = tokio::spawn(async move {
            let mut session = Session::open(&ConnectOptions::socket(socket, "root")).await.unwrap();
            let mut done = begin;
            while session.run(&format!("INSERT INTO shop.t VALUES ({})", done + 1)).await.is_ok() {
                done += 1;
            }
            done
        });
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.0.kill();
        acknowledged = load.await.unwrap();
        assert!(acknowledged > begin, "nothing was acknowledged");
        // SIGTERM: it stores what it has.
        let pid = rustix::process::Pid::from_child(&receiver);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(
            receiver.wait().unwrap().success(),
            "{}",
            std::fs::read_to_string(home.path("log")).unwrap()
        );
        let rows = inserted(&home, "shop.t");
        assert!(rows >= acknowledged, "{rows} archived, {acknowledged} acknowledged");
        server.0.restart(&cx).await.unwrap();
        let kept: u64 = server.value("SELECT MAX(n) FROM shop.t").await.unwrap().parse().unwrap();
        acknowledged = kept;
    }
}

/// Ended while it applies binlogs, the rows are there: the same command says what goes on, and that does.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_to_a_point_is_gone_on_with(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values(rustix::process::Signal::INT, rustix::process::Signal::KILL)]
    signal: rustix::process::Signal,
) {
    let source = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = source.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let work = [
        "INSERT INTO shop.customers VALUES (4, 'n', NULL)",
        "SET SESSION binlog_format = STATEMENT",
        // Whoever applies it takes that long too.
        "INSERT INTO shop.customers VALUES (5, SLEEP(6), NULL)",
        "INSERT INTO shop.customers VALUES (6, 'n', NULL)",
    ];
    server::run(&mut source.session().await, &work).await;
    archive(&home, &url).expect(0);
    let target = Server::start(name).await;
    let to = target.url();
    let args = ["restore", "--cluster", "shop", "--target", &to, "--to-latest"];
    let mut command = home.command(args);
    command.env("HOLDFAST_REPO", "repo").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let waits = "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User sleep'";
    while target.value(waits).await.as_deref() == Some("0") {
        assert!(child.try_wait().unwrap().is_none(), "{:?}", child.wait_with_output());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
    let ended = Run::from(child.wait_with_output().unwrap());
    if signal == rustix::process::Signal::INT {
        let remedy = "What to do: `holdfast binlog apply` goes on";
        ended.expect(13).says("the binlogs are not").says(remedy);
    }
    home.on_repo(args).expect(9).says("`holdfast binlog apply` to the same point goes on");
    let apply = ["binlog", "apply", "--cluster", "shop", "--target", &to, "--to-latest"];
    home.on_repo(apply).expect(0);
    assert_eq!(target.content("shop").await, source.content("shop").await);
}
