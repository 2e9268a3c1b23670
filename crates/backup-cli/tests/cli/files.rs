//! Data files of real servers into a repository and back.

use std::path::Path;

use backup_core::Context;
use rstest::rstest;
use serde_json::Value;

use crate::home::Home;
use crate::server::{self, Server};

/// Tables of all kinds that are files of their own.
const KINDS: [&str; 8] = [
    "CREATE TABLE shop.parts (id INT PRIMARY KEY, t VARCHAR(100)) PARTITION BY HASH(id) PARTITIONS 3",
    "INSERT INTO shop.parts SELECT id, HEX(data) FROM (SELECT id, LEFT(data, 30) AS data FROM shop.orders) o",
    "CREATE TABLE shop.packed (id INT PRIMARY KEY, t VARCHAR(100)) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8",
    "INSERT INTO shop.packed SELECT id, 'x' FROM shop.orders",
    "CREATE TABLE shop.old (id INT PRIMARY KEY, t VARCHAR(100)) ENGINE=MyISAM",
    "INSERT INTO shop.old SELECT id, 'y' FROM shop.orders",
    "CREATE TABLE shop.`odd name/ä` (id INT PRIMARY KEY)",
    "INSERT INTO shop.`odd name/ä` VALUES (7)",
];

/// Every row of every table of `shop`.
async fn sums(server: &Server) -> Vec<(String, Option<u64>)> {
    let mut session = server.session().await;
    let tables: Vec<String> = session
        .query_rows(
            "SELECT CONCAT('`', table_name, '`') FROM information_schema.tables \
             WHERE table_schema = 'shop' AND table_type = 'BASE TABLE' ORDER BY 1",
        )
        .await
        .unwrap();
    let list: Vec<String> = tables.iter().map(|table| format!("shop.{table}")).collect();
    let sql = format!("CHECKSUM TABLE {}", list.join(", "));
    let sums = session.query_rows(&sql).await.unwrap();
    let check = format!("CHECK TABLE {}", list.join(", "));
    let said: Vec<(String, String, String, String)> = session.query_rows(&check).await.unwrap();
    assert!(said.iter().all(|(.., text)| text == "OK"), "{said:?}");
    session.close().await.unwrap();
    sums
}

/// A server on a directory.
async fn on(name: &str, directory: &Path) -> Server {
    let cx = Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap().datadir(directory).durable(false);
    Server(builder.start(&cx).await.unwrap())
}

async fn position(server: &Server, mysql: bool) -> (String, u64) {
    let mut session = server.session().await;
    if mysql {
        let row: Option<(String, u64, String, String, String)> =
            session.query_first("SHOW BINARY LOG STATUS").await.unwrap();
        return row.map(|(file, offset, ..)| (file, offset)).unwrap();
    }
    let row: Option<(String, u64, String, String)> =
        session.query_first("SHOW MASTER STATUS").await.unwrap();
    row.map(|(file, offset, ..)| (file, offset)).unwrap()
}

#[rstest]
#[tokio::test]
async fn a_stopped_server_is_copied_and_starts_elsewhere(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let mysql = name.starts_with("mysql");
    let home = Home::with_repo();
    let data = home.path("data");
    let source = format!("file://{}", data.display());
    let mut server = on(name, &data).await;
    server::shop(&mut server.session().await).await;
    server::run(&mut server.session().await, &KINDS).await;
    let before = sums(&server).await;
    let at = position(&server, mysql).await;
    let backup = ["backup", "--strategy", "physical", "--source", &source, "--cluster", "shop"];

    // While the server runs, and when it did not end in order, nothing is copied.
    home.on_repo(backup).expect(6).says("a server runs on");
    server.0.kill();
    home.on_repo(backup).expect(6).says("not shut down in order");
    let mut server = on(name, &data).await;
    assert_eq!(sums(&server).await, before);
    let at = if position(&server, mysql).await == at { at } else { position(&server, mysql).await };
    server.0.stop().await.unwrap();

    let first = home.on_repo(backup.into_iter().chain(["--json"])).expect(0).json();
    assert_eq!(first["strategy"], "physical");
    assert_eq!(first["position"]["file"], Value::from(at.0), "{first:#}");
    assert!(first["position"]["offset"].as_u64().unwrap() >= at.1, "{first:#}");
    assert!(first["position"]["gtid"].is_string(), "{first:#}");
    assert_eq!(first["consistency"]["level"], "exact");
    home.on_repo(["verify", "--level", "content"]).expect(0);
    let shown = home.on_repo(["show", "latest", "--json"]).expect(0).json();
    assert!(shown["objects"]["tablespaces"].as_u64().unwrap() > 5, "{shown:#}");
    let table = |name: &str| {
        let tables = shown["tables"].as_array().unwrap().iter();
        tables.clone().find(|table| table["table"] == name).unwrap_or_else(|| panic!("{shown:#}"))
    };
    assert!(table("shop.orders")["bytes"].as_u64().unwrap() > 500_000, "{shown:#}");
    assert_eq!(
        (&table("shop.orders")["engine"], &table("shop.orders")["rows"]),
        (&"InnoDB".into(), &Value::Null)
    );
    assert_eq!(table("shop.parts")["artifacts"], 3);
    assert_eq!(
        (&table("shop.old")["engine"], &table("shop.old")["artifacts"]),
        (&"MyISAM".into(), &2.into())
    );
    let version = shown["source"]["version"].as_str().unwrap();
    assert!(name.ends_with(&version.split('.').take(2).collect::<Vec<_>>().join(".")), "{version}");

    let servers = xtask::servers::install(name).unwrap();
    let install = servers.base().parent().unwrap().to_str().unwrap();
    let drill = ["verify", "--level", "drill", "--server-dir", install, "--json"];
    let drill = home.on_repo(drill).expect(0).json().to_string();
    assert!(drill.contains("512 rows, digest") && drill.contains("shop.orders"), "{drill}");

    // A plan writes nothing; then every file comes back, and a server starts on them.
    let target = home.path("target");
    let to = target.to_str().unwrap();
    let restore = ["restore", "--cluster", "shop", "--target-dir", to];
    home.on_repo(restore.into_iter().chain(["--dry-run"])).expect(0);
    assert!(!target.exists());
    home.on_repo(restore).expect(0);
    let mut restored = on(name, &target).await;
    assert_eq!(sums(&restored).await, before);
    home.on_repo(restore.into_iter().chain(["--overwrite"])).expect(9).says("a server runs on");
    restored.0.stop().await.unwrap();
    home.on_repo(restore).expect(9).says("is not empty");

    // The source goes on; the older state is brought up to date.
    let mut server = on(name, &data).await;
    let changes = [
        "UPDATE shop.orders SET amount = amount + 1 WHERE id % 50 = 0",
        "DROP TABLE shop.packed",
        "CREATE TABLE shop.newer (id INT PRIMARY KEY)",
        "INSERT INTO shop.old VALUES (1000000, 'more')",
    ];
    server::run(&mut server.session().await, &changes).await;
    let after = sums(&server).await;
    server.0.stop().await.unwrap();
    let second = home.on_repo(backup.into_iter().chain(["--json"])).expect(0).json();
    assert!(
        second["bytes_new"].as_u64() < first["bytes_new"].as_u64().map(|bytes| bytes / 2),
        "{second:#}"
    );
    let delta = restore.into_iter().chain(["--delta"]);
    let plan = home.on_repo(delta.clone().chain(["--dry-run", "--json"])).expect(0).json();
    assert!(plan["destroys"].to_string().contains("shop/packed.ibd"), "{plan:#}");
    home.on_repo(delta.chain(["-v"])).expect(0).says("bytes differed and were written");
    let mut restored = on(name, &target).await;
    assert_eq!(sums(&restored).await, after);
    restored.0.stop().await.unwrap();

    // Over everything, from the first backup.
    let first = first["backup"].as_str().unwrap();
    let over = ["restore", first, "--cluster", "shop", "--target-dir", to, "--overwrite"];
    let plan = home.on_repo(over.into_iter().chain(["--dry-run"])).expect(0).stdout;
    assert!(plan.contains("This destroys:") && plan.contains("ibdata1"), "{plan}");
    home.on_repo(over).expect(0);
    assert_eq!(sums(&on(name, &target).await).await, before);
}

#[rstest]
#[tokio::test]
async fn what_a_crash_left_is_copied_when_it_is_asked_for(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let home = Home::with_repo();
    let data = home.path("data");
    let mut server = on(name, &data).await;
    server::shop(&mut server.session().await).await;
    let before = sums(&server).await;
    server.0.kill();
    let source = format!("file://{}", data.display());
    let args = ["--strategy", "physical", "--source", &source, "--cluster", "shop"];
    let backup = ["backup", "--allow-unclean", "--json"].into_iter().chain(args);
    let document = home.on_repo(backup).expect(14).json();
    assert_eq!(document["consistency"]["level"], "transactional", "{document:#}");
    let target = home.path("target");
    let to = ["restore", "--repo", "repo", "--cluster", "shop", "--target-dir"];
    let to: Vec<&str> = to.into_iter().chain([target.to_str().unwrap()]).collect();
    // A restore that is killed goes on when it is asked for again.
    let mut whole = false;
    for wait in [0, 40, 150] {
        let mut restore = home.command(to.clone().into_iter().chain(["--progress", "json"]));
        let mut restore = restore.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let lines = std::io::BufReader::new(restore.stderr.take().unwrap());
        for line in std::io::BufRead::lines(lines) {
            if line.unwrap().contains("\"name\":\"restore\"") {
                tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
                restore.kill().unwrap();
            }
        }
        // It may have been quicker than the signal.
        let done = target.join("ibdata1").exists() && !target.join(".holdfast-restore").exists();
        whole = restore.wait().unwrap().success() || done;
        if whole {
            break;
        }
    }
    if !whole {
        home.run(to).expect(0);
    }
    assert!(!target.join(".holdfast-restore").exists());
    assert_eq!(sums(&on(name, &target).await).await, before);

    // What is no data directory is never emptied.
    home.write("precious", "precious");
    let root = home.path("");
    let over =
        ["restore", "--cluster", "shop", "--target-dir", root.to_str().unwrap(), "--overwrite"];
    home.on_repo(over).expect(9).says("no data directory");
    assert!(home.path("precious").exists());
}

/// InnoDB has nothing to recover, and tables without a log were being written.
#[rstest]
#[tokio::test]
async fn a_kill_that_innodb_did_not_notice_is_told(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
    #[values("ENGINE=MyISAM", "ENGINE=Aria TRANSACTIONAL=0")] engine: &str,
    #[values(true, false)] logs: bool,
) {
    let home = Home::with_repo();
    let data = home.path("data");
    let cx = Context::builder().build();
    let start = async || {
        let builder = xtask::servers::sandbox(name).await.unwrap().datadir(&data).durable(false);
        let builder = if logs { builder } else { builder.option("skip_log_bin", "1") };
        Server(builder.start(&cx).await.unwrap())
    };
    let source = format!("file://{}", data.display());
    let args = ["--strategy", "physical", "--source", &source];
    let mut server = start().await;
    let table = format!("CREATE TABLE d.t (a INT PRIMARY KEY, b INT, KEY (b)) {engine}");
    server::run(&mut server.session().await, &["CREATE DATABASE d", &table]).await;
    server.0.stop().await.unwrap();
    home.on_repo(["check"].into_iter().chain(args)).expect(0);
    let mut server = start().await;
    let sql =
        "SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0, GLOBAL innodb_max_dirty_pages_pct = 0";
    server::run(&mut server.session().await, &[sql]).await;
    // Until InnoDB is at rest.
    let lsn = "SELECT GROUP_CONCAT(variable_value ORDER BY 1) FROM information_schema.global_status WHERE \
               variable_name IN ('INNODB_LSN_CURRENT', 'INNODB_LSN_LAST_CHECKPOINT', 'INNODB_CHECKPOINT_AGE')";
    let mut last = None;
    loop {
        let now = server.value(lsn).await;
        if last == now {
            break;
        }
        last = now;
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    }
    let mut writer = server.session().await;
    let write = tokio::spawn(async move {
        writer.run("INSERT INTO d.t SELECT seq, seq FROM d.seq_1_to_100000000").await.unwrap_err()
    });
    let writes = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'INSERT INTO d.t%' AND \
                  time_ms > 500";
    while server.value(writes).await.as_deref() != Some("1") {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    server.0.kill();
    write.await.unwrap();
    let killed = "not shut down in order";
    let check = home.on_repo(["check"].into_iter().chain(args)).expect(6);
    let sign = if logs { "its last binary log" } else { "the table of d/t.MYI" };
    let sign = if engine.contains("Aria") { sign.replace("MYI", "MAI") } else { sign.to_owned() };
    assert!(check.stdout.contains(killed) && check.stdout.contains(&sign), "{check:?}");
    let backup = ["backup", "--cluster", "c"];
    home.on_repo(backup.into_iter().chain(args)).expect(6).says(killed).says("--allow-unclean");
    let run = home.on_repo(backup.into_iter().chain(["--allow-unclean"]).chain(args));
    run.expect(14).says(killed);
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_copied_while_others_wait(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let home = Home::with_repo();
    let data = home.path("data");
    let server = on(name, &data).await;
    server::shop(&mut server.session().await).await;
    server::run(&mut server.session().await, &KINDS).await;
    let url = server.url();
    let args = ["--strategy", "physical", "--source", &url, "--lock-and-copy"];
    let check = home.on_repo(["check"].into_iter().chain(args)).expect(0);
    assert!(check.stdout.contains("nobody can write"), "{check:?}");
    home.on_repo(["check", "--strategy", "snapshot", "--snapshot", "btrfs", "--source", &url])
        .expect(6);

    // An open transaction holds rows back, and its rows are not in the backup.
    let mut open = server.session().await;
    server::run(&mut open, &["BEGIN", "DELETE FROM shop.customers"]).await;
    let settings = "SELECT CONCAT_WS(' ', @@innodb_max_dirty_pages_pct, @@innodb_stats_auto_recalc, \
                    @@innodb_stats_persistent)";
    let before = server.value(settings).await;
    // A writer that does not end by itself until it is told to.
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = tokio::spawn({
        let (stop, mut session) = (std::sync::Arc::clone(&stop), server.session().await);
        async move {
            let mut rows = 0_u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) && rows < 100_000 {
                rows += 1;
                let sql = format!("INSERT INTO shop.old VALUES ({}, 'w')", 2_000_000 + rows);
                session.run(&sql).await.unwrap();
                let sql = format!("UPDATE shop.orders SET amount = {rows} WHERE id = 1");
                session.run(&sql).await.unwrap();
            }
        }
    });
    let backup = ["backup", "--cluster", "shop", "--lock-timeout", "120", "--json"];
    let run = tokio::task::block_in_place(|| home.on_repo(backup.into_iter().chain(args)));
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.await.unwrap();
    let document = run.expect(0).json();
    assert_eq!(document["consistency"]["level"], "exact", "{document:#}");
    assert!(document["lock_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(server.value(settings).await, before);
    drop(open);

    let target = home.path("target");
    let to = ["restore", "--cluster", "shop", "--target-dir", target.to_str().unwrap()];
    home.on_repo(to).expect(0);
    let restored = on(name, &target).await;
    assert_eq!(restored.value("SELECT COUNT(*) FROM shop.customers").await.as_deref(), Some("3"));
    // The writer wrote one row, then changed another: what is there is of one moment.
    let sql = "SELECT (SELECT COUNT(*) FROM shop.old WHERE id > 2000000) - \
               (SELECT CAST(amount AS SIGNED) FROM shop.orders WHERE id = 1)";
    let apart = restored.value(sql).await.unwrap();
    assert!(["0", "1", "-9"].contains(&apart.as_str()), "{apart}");
    sums(&restored).await;

    // A deadline that is too short fails the backup, and the server goes on.
    let short = ["backup", "--cluster", "shop", "--lock-timeout", "1"];
    let mut blocker = server.session().await;
    server::run(&mut blocker, &["LOCK TABLES shop.old WRITE"]).await;
    tokio::task::block_in_place(|| home.on_repo(short.into_iter().chain(args))).expect(6);
    server::run(&mut blocker, &["UNLOCK TABLES", "INSERT INTO shop.old VALUES (5000000, 'z')"])
        .await;
    assert_eq!(server.value(settings).await, before);
}

#[rstest]
#[tokio::test]
async fn archived_binlogs_lead_on_from_restored_files(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let home = Home::with_repo();
    let data = home.path("data");
    let mut server = on(name, &data).await;
    server::shop(&mut server.session().await).await;
    server.0.stop().await.unwrap();
    let source = format!("file://{}", data.display());
    let backup = ["backup", "--strategy", "physical", "--source", &source, "--cluster", "shop"];
    let document = home.on_repo(backup.into_iter().chain(["--json"])).expect(0).json();

    let server = on(name, &data).await;
    let later = [
        "DELETE FROM shop.orders WHERE id % 3 = 0",
        "CREATE TABLE shop.later (id INT PRIMARY KEY)",
        "INSERT INTO shop.later VALUES (1), (2)",
    ];
    server::run(&mut server.session().await, &later).await;
    let after = sums(&server).await;
    let url = server.url();
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
    drop(server);

    let target = home.path("target");
    let to = ["restore", "--cluster", "shop", "--target-dir", target.to_str().unwrap()];
    home.on_repo(to).expect(0);
    let restored = on(name, &target).await;
    if name.starts_with("mariadb") {
        let gtid = document["position"]["gtid"].as_str().unwrap();
        let sql = format!("SET GLOBAL gtid_slave_pos = '{gtid}'");
        server::run(&mut restored.session().await, &[&sql]).await;
    }
    let url = restored.url();
    home.on_repo(["binlog", "apply", "--target", &url, "--cluster", "shop"]).expect(0);
    assert_eq!(sums(&restored).await, after);
}

/// It has no rows at the source either, and comes back as it was.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_tablespace_is_no_damage(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let home = Home::with_repo();
    let server = Server::with_shop(name).await;
    let tables = [
        "CREATE TABLE shop.away (id INT PRIMARY KEY)",
        "INSERT INTO shop.away VALUES (1)",
        "ALTER TABLE shop.away DISCARD TABLESPACE",
    ];
    server::run(&mut server.session().await, &tables).await;
    let url = server.url();
    let args = ["backup", "--cluster", "shop", "--strategy", "physical", "--source", &url];
    home.on_repo([&args[..], &["--lock-and-copy"]].concat()).expect(0);
    let tool = server::install(name);
    let drill = ["verify", "--cluster", "shop", "--level", "drill", "--server-dir"];
    let run = home.on_repo([&drill[..], &[tool.to_str().unwrap()]].concat()).expect(0);
    let told = run.stdout.contains("shop.away: its tablespace was discarded");
    assert!(told && run.stdout.contains("shop.orders"), "{run:?}");
}
