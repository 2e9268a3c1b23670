//! Copies of a running server under its lock, where the server goes on to write logs, or the account may do little.

use std::path::Path;

use backup_core::Context;
use rstest::rstest;

use crate::home::{Home, Run};
use crate::server::{self, Server};

/// A server on a directory, with options.
pub(crate) async fn on(name: &str, directory: &Path, options: &[(&str, &str)]) -> Server {
    let cx = Context::builder().build();
    let mut builder =
        xtask::servers::sandbox(name).await.unwrap().datadir(directory).durable(false);
    for (name, value) in options {
        builder = builder.option(*name, *value);
    }
    Server(builder.start(&cx).await.unwrap())
}

fn locked(home: &Home, url: &str, more: &[&str]) -> Run {
    let args = ["backup", "--strategy", "physical", "--lock-and-copy", "--cluster", "shop"];
    home.on_repo([&args[..], &["--source", url, "--lock-timeout", "120"], more].concat())
}

/// What is asked of the server for the copy goes into them.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn logs_for_people_are_left_out_whatever_they_are_called(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let home = Home::with_repo();
    let data = home.path("data");
    let options = [
        ("general_log", "ON"),
        ("general_log_file", "vm.log"),
        ("slow_query_log", "ON"),
        ("slow_query_log_file", "slow queries.txt"),
        ("long_query_time", "0"),
    ];
    let server = on(name, &data, &options).await;
    server::shop(&mut server.session().await).await;
    assert!(data.join("vm.log").exists() && data.join("slow queries.txt").exists());
    locked(&home, &server.url(), &[]).expect(0);
    let shown = home.on_repo(["show", "latest", "--cluster", "shop", "--json"]).expect(0).stdout;
    assert!(shown.contains("vm.log") && shown.contains("slow queries.txt"), "{shown}");
    let target = home.path("target");
    let to = ["restore", "--cluster", "shop", "--target-dir", target.to_str().unwrap()];
    home.on_repo(to).expect(0);
    assert!(target.join("shop").exists());
    assert!(!target.join("vm.log").exists() && !target.join("slow queries.txt").exists());
}

/// It cannot have InnoDB write what waits, and nobody is locked out for that to happen by itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_change_no_settings_copies_what_is_written_already() {
    let name = "mariadb-10.11";
    let home = Home::with_repo();
    let server = on(name, &home.path("data"), &[]).await;
    let mut session = server.session().await;
    server::shop(&mut session).await;
    let sql = [
        "CREATE USER bk@localhost IDENTIFIED BY 'sEcretPW'",
        "GRANT RELOAD, PROCESS, BINLOG MONITOR ON *.* TO bk@localhost",
    ];
    server::run(&mut session, &sql).await;
    let url = format!("mysql://bk:sEcretPW@localhost/?socket={}", server.0.socket().display());
    let args = ["check", "--strategy", "physical", "--lock-and-copy", "--source", &url];
    let check = home.on_repo(args).expect(0).stdout;
    assert!(check.contains("bk has no SUPER") && check.contains("GRANT SUPER"), "{check}");
    let began = std::time::Instant::now();
    locked(&home, &url, &[]).expect(4).says("the account may not have it write them").says("SUPER");
    assert!(began.elapsed().as_secs() < 60, "it waited under the lock");

    let eager =
        "SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0, GLOBAL innodb_max_dirty_pages_pct = 0";
    server::run(&mut session, &[eager]).await;
    locked(&home, &url, &[]).expect(0);
    let tool = server::install(name);
    let drill = ["verify", "--cluster", "shop", "--level", "drill", "--server-dir"];
    home.on_repo([&drill[..], &[tool.to_str().unwrap()]].concat()).expect(0);

    let back = ["SET GLOBAL innodb_max_dirty_pages_pct = 90", "GRANT SUPER ON *.* TO bk@localhost"];
    server::run(&mut session, &back).await;
    server::double_orders(&mut session, 1).await;
    locked(&home, &url, &[]).expect(0);
}

/// What the copy would fail at is found before.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_check_tells_each_privilege_that_a_copy_or_a_snapshot_needs(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let home = Home::with_repo();
    let server = on(name, &home.path("data"), &[]).await;
    let mut session = server.session().await;
    let create =
        format!("CREATE USER poor@'%' IDENTIFIED BY '{}'", server::PASSWORD.replace('\'', "''"));
    server::run(&mut session, &[&create]).await;
    let monitor = if name == "mysql-9.7" { "REPLICATION CLIENT" } else { "BINLOG MONITOR" };
    let needed = ["RELOAD", "PROCESS", monitor];
    let url = format!("mysql://poor@localhost/?socket={}", server.0.socket().display());
    let (create, remove) = crate::snapshots::pair::copying(&home);
    let snapshot = ["--strategy", "snapshot", "--snapshot-create", create.to_str().unwrap()];
    let snapshot = [
        &snapshot[..],
        &["--snapshot-remove", remove.to_str().unwrap(), "--snapshot-notes", "notes"],
    ];
    let snapshot = snapshot.concat();
    for how in [&["--strategy", "physical", "--lock-and-copy"][..], &snapshot] {
        let check = || {
            let mut command = home.command([&["check", "--source", &url], how].concat());
            Run::of(command.env("HOLDFAST_SOURCE_PASSWORD", server::PASSWORD))
        };
        let all = check().expect(4).stdout;
        assert!(needed.iter().all(|one| all.contains(&format!("GRANT {one} ON *.*"))), "{all}");
        for missing in needed {
            let others: Vec<&str> = needed.into_iter().filter(|one| *one != missing).collect();
            let grant = format!("GRANT {} ON *.* TO poor@'%'", others.join(", "));
            server::run(&mut session, &[&grant]).await;
            let said = check().expect(4).stdout;
            assert!(said.contains(&format!("GRANT {missing} ON *.*")), "{said}");
            let grant = format!("GRANT {missing} ON *.* TO poor@'%'");
            server::run(&mut session, &[&grant]).await;
            check().expect(0);
            server::run(&mut session, &["REVOKE ALL PRIVILEGES, GRANT OPTION FROM poor@'%'"]).await;
        }
    }
}

/// It writes the statistics of one table every ten seconds, whoever holds a lock. So those that were due when the copy
/// was asked for are written when the lock is taken, and the setting that finds more is put back.
#[tokio::test(flavor = "multi_thread")]
async fn statistics_that_are_due_are_written_before_the_lock() {
    let home = Home::with_repo();
    let server = on("mysql-9.7", &home.path("data"), &[]).await;
    let mut session = server.session().await;
    server::run(&mut session, &["CREATE DATABASE shop"]).await;
    let tables = ["shop.a", "shop.b", "shop.c"];
    for table in tables {
        let create = format!("CREATE TABLE {table} (s INT)");
        let insert = format!("INSERT INTO {table} VALUES (1), (2)");
        let double = format!("INSERT INTO {table} SELECT s + 10 FROM {table}");
        server::run(&mut session, &[&create, &insert, &double, &double]).await;
    }
    let run = locked(&home, &server.url(), &["-v"]).expect(0);
    let written =
        "SELECT COUNT(*) FROM mysql.innodb_table_stats WHERE database_name = 'shop' AND n_rows = 8";
    assert_eq!(server.value(written).await.as_deref(), Some("3"));
    assert!(run.stderr.contains("statistics of tables that are due"), "{run:?}");
    let setting = server.value("SELECT @@GLOBAL.innodb_stats_auto_recalc").await;
    assert_eq!(setting.as_deref(), Some("1"));
}
