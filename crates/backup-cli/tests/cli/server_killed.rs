//! `kill -9` of the server that is read, and of the one that is written, at random moments: it ends
//! in an error that says what to do, or goes on by itself; run again, everything is exact.

use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use backup_core::Context;
use backup_drivers::connect::Session;
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};

use crate::backup_killed::{Lab, rounds};
use crate::home::{Home, Run};
use crate::restore_killed::{content, fill};
use crate::server::{self, Server};

/// A server that loses nothing by a crash, however it came.
const DURABLE: [&str; 2] =
    ["SET GLOBAL sync_binlog = 1", "SET GLOBAL innodb_flush_log_at_trx_commit = 1"];

async fn durable(server: &Server) {
    server::run(&mut server.session().await, &DURABLE).await;
}

/// Lets a process run for as long; gives whether it still does.
fn run_for(child: &mut Child, time: Duration) -> bool {
    let began = Instant::now();
    while began.elapsed() < time {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        sleep(Duration::from_millis(1));
    }
    true
}

/// Who died says so, and what to do about it.
fn assert_told(run: &Run) {
    assert!(!run.stderr.contains("panicked"), "{run:#?}");
    assert!(matches!(run.code, Some(3 | 6 | 9)), "{run:#?}");
    // Before anything was begun there is nothing to go on with; it may have been away when it was called.
    let told = [
        "run the same command again",
        "run the command again",
        "the server's error log",
        "check that the server runs",
    ];
    assert!(told.iter().any(|words| run.stderr.contains(words)), "{run:#?}");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_source_is_killed_goes_on_when_it_is_back(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let mut lab = Lab::start(name).await;
    let cx = Context::builder().build();
    let wanted = rounds(3);
    let (mut killed, mut resumed, mut tries) = (0, 0, 0);
    while killed < wanted || resumed == 0 {
        tries += 1;
        assert!(tries < 20 * (wanted + 1), "no backup lasts long enough for its source to die");
        lab.new_repository();
        durable(&lab.server).await;
        // What a clock of whole seconds cannot tell apart counts as changed.
        sleep(Duration::from_millis(3100));
        let pid = Pid::from_raw(i32::try_from(lab.server.0.pid().unwrap()).unwrap()).unwrap();
        let run = if tries % 2 == 0 {
            // When something was stored already.
            lab.disturbed(1 + tries as usize / 2 % 5, |_| kill_process(pid, Signal::KILL).unwrap())
        } else {
            // In each part of the time that a backup takes.
            let mut command = lab.home.command(lab.arguments());
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let part = (f64::from(tries % wanted) + rand::random::<f64>()) / f64::from(wanted);
            let was_running = run_for(&mut child, lab.duration.mul_f64(part));
            kill_process(pid, Signal::KILL).unwrap();
            let run = Run::from(child.wait_with_output().unwrap());
            was_running.then_some(run)
        };
        lab.server.0.kill();
        lab.server.0.restart(&cx).await.unwrap();
        durable(&lab.server).await;
        let Some(run) = run.filter(|run| run.code != Some(0)) else { continue };
        killed += 1;
        assert_told(&run);
        let last = lab.backup().expect(0).json();
        resumed += u32::from(last["resumed"]["chunks"].as_u64() > Some(0));
        lab.assert_exact(&last).await;
    }
    println!("{name}: {killed} killed, {resumed} gone on with");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_whose_target_is_killed_goes_on(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = Server::with_shop(name).await;
    fill(&mut source.session().await).await;
    let mut target = Server::start(name).await;
    let cx = Context::builder().build();
    let home = Home::with_repo();
    let url = source.url();
    home.run(["backup", "--repo", "repo", "--source", &url, "--cluster", "shop"]).expect(0);
    let expected = content(&source, "shop").await;
    let url = target.url();
    let restore = ["restore", "--repo", "repo", "--cluster", "shop", "--target", &url, "--json"];
    let began = Instant::now();
    home.run(restore).expect(0);
    let duration = began.elapsed();
    assert_eq!(content(&target, "shop").await, expected);

    let wanted = rounds(4);
    let (mut killed, mut alone, mut again, mut tries) = (0, 0, 0, 0);
    while killed < wanted {
        tries += 1;
        assert!(tries < 20 * (wanted + 1), "no restore lasts long enough for its target to die");
        server::run(&mut target.session().await, &["DROP DATABASE IF EXISTS shop"]).await;
        let mut child =
            home.command(restore).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let part = (f64::from(tries % wanted) + rand::random::<f64>()) / f64::from(wanted);
        let was_running = run_for(&mut child, duration.mul_f64(part));
        target.0.kill();
        target.0.restart(&cx).await.unwrap();
        let run = Run::from(child.wait_with_output().unwrap());
        if !was_running {
            continue;
        }
        killed += 1;
        let mut last = None;
        if run.code == Some(0) {
            alone += 1;
        } else {
            again += 1;
            assert_told(&run);
            let again = home.run(restore);
            // It died after the last act of the restore: everything is there, as is seen below.
            last = match again.code {
                Some(9) => Some(again),
                _ => Some(again.expect(0)),
            };
        }
        assert_eq!(content(&target, "shop").await, expected, "{run:#?}, and then {last:#?}");
        let marks =
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_name LIKE 'holdfast%'";
        assert_eq!(target.value(marks).await.as_deref(), Some("0"), "{run:#?}");
        let view = "SELECT COUNT(*) FROM shop.totals";
        assert_eq!(target.value(view).await, source.value(view).await, "{run:#?}");
    }
    println!("{name}: {killed} killed, {alone} went on alone, {again} were run again");
}

/// A server that dies while it makes a table of MyISAM leaves files without a beginning, which it cannot open.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_being_made_when_the_target_died_is_made_again(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values("half", "none")] file: &str,
) {
    let source = Server::with_shop(name).await;
    fill(&mut source.session().await).await;
    let target = Server::start(name).await;
    let home = Home::with_repo();
    let url = source.url();
    home.run(["backup", "--repo", "repo", "--source", &url, "--cluster", "shop"]).expect(0);
    let expected = content(&source, "shop").await;
    let url = target.url();
    let restore = ["restore", "--repo", "repo", "--cluster", "shop", "--target", &url];
    let there = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'shop' AND table_name NOT LIKE \
                 'holdfast%'";
    let mut tries = 0;
    loop {
        tries += 1;
        assert!(tries < 50, "no restore is seen when it has made a table and not yet the last");
        server::run(&mut target.session().await, &["DROP DATABASE IF EXISTS shop"]).await;
        let mut child = home.command(restore).stderr(Stdio::null()).spawn().unwrap();
        while target.value(there).await.as_deref() == Some("0") {
            assert!(child.try_wait().unwrap().is_none(), "it made nothing");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let plain = "SELECT 1 FROM information_schema.tables WHERE table_schema = 'shop' AND table_name = 'plain'";
        if target.value(plain).await.is_none() {
            break;
        }
    }
    let half = ["CREATE TABLE shop.plain (id INT PRIMARY KEY) ENGINE=MyISAM", "FLUSH TABLES"];
    server::run(&mut target.session().await, &half).await;
    let index = target.0.datadir().join("shop/plain.MYI");
    match file {
        "half" => std::fs::write(index, "").unwrap(),
        _ => std::fs::remove_file(index).unwrap(),
    }
    assert!(target.session().await.run("SELECT 1 FROM shop.plain").await.is_err());
    home.run(restore).expect(0);
    assert_eq!(content(&target, "shop").await, expected);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_whose_target_stays_away_ends_and_goes_on_later(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values("0", "2")] seconds: &str,
) {
    let source = Server::with_shop(name).await;
    fill(&mut source.session().await).await;
    let mut target = Server::start(name).await;
    let cx = Context::builder().build();
    let home = Home::with_repo();
    let url = source.url();
    home.run(["backup", "--repo", "repo", "--source", &url, "--cluster", "shop"]).expect(0);
    let expected = content(&source, "shop").await;
    let url = target.url();
    let restore = ["restore", "--repo", "repo", "--cluster", "shop", "--target", &url, "--json"];
    let patient: Vec<&str> = restore.into_iter().chain(["--retry-for", seconds]).collect();
    let began = Instant::now();
    home.run(restore).expect(0);
    let duration = began.elapsed();

    let mut tries = 0;
    let run = loop {
        tries += 1;
        assert!(tries < 50, "no restore lasts long enough for its target to die under its rows");
        server::run(&mut target.session().await, &["DROP DATABASE IF EXISTS shop"]).await;
        let mut command = home.command(patient.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        run_for(&mut child, duration.mul_f64(rand::random()));
        target.0.kill();
        // It ends by itself, with the target away.
        let run = Run::from(child.wait_with_output().unwrap());
        if run.stderr.contains("cannot load table shop.") {
            break run;
        }
        target.0.restart(&cx).await.unwrap();
    };
    let run = run.expect(3);
    assert_eq!(run.stderr.contains("trying again"), seconds != "0", "{run:#?}");
    assert!(run.stderr.contains("it goes on where it stopped"), "{run:#?}");
    target.0.restart(&cx).await.unwrap();
    let plan: Vec<&str> = restore.into_iter().chain(["--dry-run"]).collect();
    let plan = home.run(plan).expect(0).json();
    assert!(plan["steps"].to_string().contains("interrupted"), "{plan:#}");
    home.run(restore).expect(0);
    assert_eq!(content(&target, "shop").await, expected, "{run:#?}");
}

/// Transactions of their own, each with rows in three tables, so that one that is half there or there
/// twice is seen: one table counts, one has no key, one is summed up.
async fn write_many(session: &mut Session, from: u32, to: u32) {
    let mut sql = String::new();
    for id in from..to {
        sql.push_str(&format!(
            "BEGIN; INSERT INTO shop.log VALUES ({id}); INSERT INTO shop.heap VALUES ({id}, 'x'); UPDATE \
             shop.sums SET n = n + 1, total = total + {id} WHERE id = {id} % 16; COMMIT;"
        ));
        if id % 100 == 99 || id + 1 == to {
            session
                .run(&std::mem::take(&mut sql))
                .await
                .unwrap_or_else(|e| panic!("{}", e.report()));
        }
    }
}

async fn log_of(server: &Server) -> Vec<Option<u64>> {
    let mut session = server.session().await;
    let sql = "CHECKSUM TABLE shop.log, shop.heap, shop.sums";
    let sums: Vec<(String, Option<u64>)> = session.query_rows(sql).await.unwrap();
    session.close().await.unwrap();
    sums.into_iter().map(|(_, sum)| sum).collect()
}

/// What it takes to go on is what the error says, and nothing that was committed at the source is lost or
/// there twice, nor in the binary log of the target, which its replicas read.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_whose_target_is_killed_goes_on(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values("replica", "direct")] means: &str,
) {
    let mysql = name.starts_with("mysql");
    let cx = Context::builder().build();
    let source = Server::with_shop(name).await;
    let mut session = source.session().await;
    let tables = [
        "CREATE TABLE shop.log (id INT PRIMARY KEY)",
        "CREATE TABLE shop.heap (id INT, v CHAR(1))",
        "CREATE TABLE shop.sums (id INT PRIMARY KEY, n INT NOT NULL, total BIGINT NOT NULL)",
        "INSERT INTO shop.sums VALUES (0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0), (5, 0, 0), (6, 0, 0), \
         (7, 0, 0), (8, 0, 0), (9, 0, 0), (10, 0, 0), (11, 0, 0), (12, 0, 0), (13, 0, 0), (14, 0, 0), (15, 0, 0)",
    ];
    server::run(&mut session, &tables).await;
    let home = Home::with_repo();
    let url = source.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    write_many(&mut session, 0, 12_000).await;
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let expected = log_of(&source).await;
    let executed = match mysql {
        true => "SELECT @@GLOBAL.gtid_executed",
        false => "SELECT @@GLOBAL.gtid_slave_pos",
    };
    let of_source = source.value(if mysql { executed } else { "SELECT @@GLOBAL.gtid_binlog_pos" });
    let of_source = of_source.await.unwrap();

    let wanted = rounds(2);
    let (mut killed, mut tries) = (0, 0);
    while killed < wanted {
        tries += 1;
        assert!(tries < 10 * (wanted + 1), "no replay lasts long enough for its target to die");
        let builder = xtask::servers::sandbox(name).await.unwrap().tcp(true);
        // The target keeps a binary log of what it applies, as a primary-to-be does.
        let builder = builder.option("server_id", "4711").option("log_slave_updates", "ON");
        let mut target = Server(builder.start(&cx).await.unwrap());
        durable(&target).await;
        let settings = "SELECT CONCAT_WS(',', @@GLOBAL.server_id, @@GLOBAL.sync_binlog, \
                        @@GLOBAL.innodb_flush_log_at_trx_commit, @@GLOBAL.event_scheduler)";
        let before = target.value(settings).await;
        let to = target.url();
        let args =
            ["restore", "--repo", "repo", "--cluster", "shop", "--target", &to, "--to-latest"];
        let args = args.into_iter().chain(["--apply", means]);
        let mut child =
            home.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let goal = 1 + (u64::from(tries) * 2617) % 9000;
        let rows = "SELECT (SELECT table_rows FROM information_schema.tables WHERE table_schema = 'shop' AND \
                    table_name = 'log') IS NOT NULL";
        while target.value(rows).await.as_deref() != Some("1")
            && child.try_wait().unwrap().is_none()
        {
            sleep(Duration::from_millis(10));
        }
        let mut session = target.session().await;
        while child.try_wait().unwrap().is_none() {
            let rows: Option<u64> =
                session.query_first("SELECT COUNT(*) FROM shop.log").await.unwrap();
            if rows >= Some(goal) {
                break;
            }
            sleep(Duration::from_millis(1));
        }
        target.0.kill();
        let run = Run::from(child.wait_with_output().unwrap());
        if run.code == Some(0) {
            continue;
        }
        killed += 1;
        let run = run.expect(3);
        let run = run.says("out of reach and not cleaned up");
        let run = run.says("`holdfast binlog apply` goes on from where the target stands");
        target.0.restart(&cx).await.unwrap();
        durable(&target).await;
        // The same command says what to do.
        let again = ["restore", "--cluster", "shop", "--target", &to, "--to-latest"];
        let again = home.on_repo(again);
        let log = || std::fs::read_to_string(target.0.error_log()).unwrap_or_default();
        assert_eq!(again.code, Some(9), "{again:#?}\n{}", log());
        let apply = ["binlog", "apply", "--cluster", "shop", "--target", &to, "--apply", means];
        let applied = home.on_repo(apply);
        assert_eq!(log_of(&target).await, expected, "{run:#?} {applied:#?}");
        // A MySQL counts what is in its binary log, which nobody synced: its machine may have died as well.
        match mysql {
            true => applied.expect(14).says("was restarted while binlogs were applied"),
            false => applied.expect(0),
        };
        // A MySQL has the transactions of the restore itself beside them.
        let has = target.value(executed).await.unwrap();
        assert!(has.split(",\n").any(|part| part == of_source), "{has}, {of_source}");
        assert_eq!(target.value(settings).await, before);
        let left =
            "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name LIKE 'holdfast%'";
        assert_eq!(target.value(left).await.as_deref(), Some("0"));
        let status = if mysql { "SHOW REPLICA STATUS" } else { "SHOW ALL SLAVES STATUS" };
        assert_eq!(target.value(status).await, None);
    }
    println!("{name}, {means}: {killed} killed");
}
