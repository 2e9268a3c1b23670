use rstest::rstest;

use crate::home::Home;
use crate::server::{self, Server};

const ORDERS: &str = "SELECT CONCAT(COUNT(*), ' ', SUM(amount)) FROM shop.orders";

/// A server in trouble: a backup, good work, a DELETE without WHERE, and good work after it.
#[rstest]
#[tokio::test]
async fn a_mistake_is_undone(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let source = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = source.url();
    let archive = || home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]);
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let mut session = source.session().await;
    server::run(&mut session, &["UPDATE shop.orders SET amount = amount + 1 WHERE id < 50"]).await;
    let first = archive().expect(0);
    assert!(first.stdout.contains("Archived"), "{first:?}");
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (4, 'Zo\u{eb}', NULL)"]).await;
    let good = source.value(ORDERS).await;
    let before = source.content("shop").await;
    server::run(&mut session, &["DELETE FROM shop.orders", "UPDATE shop.customers SET name = 'x'"])
        .await;
    let json = home
        .on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop", "--json"])
        .expect(0)
        .json();
    assert_eq!(json["transactions"], 3, "{json:#}");
    assert!(json["position"]["gtid"].is_string() && json["bytes_waiting"] == 0, "{json:#}");

    // It is found.
    let find =
        ["binlog", "find", "--cluster", "shop", "--table", "shop.orders", "--delete", "--json"];
    let found = home.on_repo(find).expect(0).json()["transactions"].clone();
    assert_eq!(found.as_array().unwrap().len(), 1, "{found:#}");
    let bad = found[0]["gtid"].as_str().unwrap().to_owned();
    // MariaDB logs a DELETE of everything as rows, or as it was written.
    let rows = found[0]["tables"]["shop.orders"]["deleted"].as_u64();
    assert!(
        rows == Some(512) || found[0]["statements"].to_string().contains("DELETE"),
        "{found:#}"
    );

    // Its rows could come back alone, where the binlog has them.
    let undo = home.on_repo([
        "binlog",
        "undo",
        "--cluster",
        "shop",
        "--gtid",
        &bad,
        "--source",
        &url,
        "--json",
    ]);
    if rows == Some(512) {
        let undo = undo.expect(0).json();
        assert_eq!(undo["statements"].as_array().unwrap().len(), 512, "{undo:#}");
        let text = home
            .on_repo(["binlog", "undo", "--cluster", "shop", "--gtid", &bad, "--source", &url])
            .expect(0)
            .stdout;
        assert_eq!(text.matches("\nINSERT INTO `shop`.`orders`").count(), 512);
    } else {
        undo.expect(6).says("statement");
    }

    // The plan names both sides of the cut.
    let target = Server::start(name).await;
    let to = target.url();
    let restore = |more: &[&str]| {
        let mut args = vec!["restore", "--cluster", "shop", "--target", &to];
        args.extend(more);
        home.on_repo(args)
    };
    let plan = restore(&["--before-gtid", &bad, "--dry-run", "--json"]).expect(0).json();
    assert_eq!(plan["binlog"]["first_left_out"]["gtid"], bad.as_str(), "{plan:#}");
    let last = &plan["binlog"]["last_applied"];
    assert!(last.to_string().contains("customers"), "{plan:#}");
    assert_eq!(
        target
            .value("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'shop'")
            .await
            .as_deref(),
        Some("0")
    );

    // Just before it.
    let done = restore(&["--before-gtid", &bad, "--json"]).expect(0).json();
    assert!(done["reached"]["time"].is_string(), "{done:#}");
    assert_eq!(target.value(ORDERS).await, good);
    assert_eq!(target.content("shop").await, before);
    // Nothing of ours is left.
    let status =
        if name.starts_with("mysql") { "SHOW REPLICA STATUS" } else { "SHOW SLAVE STATUS" };
    assert_eq!(target.value(status).await, None);
    assert_eq!(target.value("SELECT @@GLOBAL.server_id").await.as_deref(), Some("1"));

    // Further, from where it stands, around it.
    let apply = ["binlog", "apply", "--cluster", "shop", "--target", &to, "--skip-gtid", &bad];
    home.on_repo(apply).expect(0);
    assert_eq!(target.value(ORDERS).await, good);
    let names = "SELECT COUNT(*) FROM shop.customers WHERE name = 'x'";
    assert_eq!(target.value(names).await.as_deref(), Some("4"));

    // The archive is well, and a flipped bit is seen, and not applied.
    let check = ["binlog", "check", "--cluster", "shop", "--json"];
    let well = home.on_repo(check).expect(0).json();
    assert_eq!(
        (&well["ok"], well["backups"].as_array().unwrap().len()),
        (&true.into(), 1),
        "{well:#}"
    );
    let list = home.on_repo(["binlog", "list", "--cluster", "shop", "--json"]).expect(0).json();
    assert_eq!(list.as_array().unwrap().len() as u64, well["segments"].as_u64().unwrap());
    let segments = home.files("repo/clusters/shop/binlog");
    let (path, len) = segments.last().unwrap();
    let whole = std::fs::read(path).unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    bytes[usize::try_from(*len).unwrap() - 20] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let run = home.on_repo(check).expect(11);
    assert!(run.json()["findings"].to_string().contains("damaged"), "{run:?}");
    // What is in the others is found, and that something is missing is said.
    let some = home.on_repo(["binlog", "find", "--cluster", "shop", "--json"]).expect(14);
    let some = some.says("is damaged").json();
    assert!(!some["transactions"].as_array().unwrap().is_empty(), "{some:#}");
    assert_eq!(some["warnings"].as_array().unwrap().len(), 1, "{some:#}");
    home.on_repo(find).expect(14);
    // So where nobody knows what was in it.
    let broken = std::fs::read(path).unwrap();
    std::fs::write(path, &whole[..60]).unwrap();
    home.on_repo(find).expect(14).says("is damaged");
    std::fs::write(path, broken).unwrap();
    let fresh = Server::start(name).await;
    let args = ["restore", "--cluster", "shop", "--target", &fresh.url(), "--to-latest"];
    home.on_repo(args).expect(8);
    assert_eq!(
        fresh
            .value("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'shop'")
            .await
            .as_deref(),
        Some("0")
    );
}

#[tokio::test]
async fn points_that_cannot_be_reached_are_told_before_anything_is_done() {
    let source = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    let url = source.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let restore = |more: &[&str]| {
        let mut args = vec!["restore", "--cluster", "shop", "--target", &url];
        args.extend(more);
        home.on_repo(args)
    };
    let gtid = "00000000-0000-0000-0000-000000000001:5";
    restore(&["--to-gtid", gtid]).expect(10).says("archived");
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
    restore(&["--to-gtid", gtid]).expect(10).says(gtid);
    restore(&["--to-time", "2020-01-01T00:00:00Z"]).expect(10).says("older");
    restore(&["--to-time", "2220-01-01T00:00:00Z"]).expect(10).says("nothing that late");
    restore(&["--to-time", "2026-01-01 00:00:00"]).expect(2).says("zone");
    // The old server would skip what it has.
    let executed = source.value("SELECT @@GLOBAL.gtid_executed").await.unwrap();
    let mut session = source.session().await;
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (9, 'n', NULL)"]).await;
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
    restore(&["--to-latest", "--overwrite"]).expect(9).says("gtid_executed");
    assert_ne!(source.value("SELECT @@GLOBAL.gtid_executed").await.unwrap(), executed);
    let purge = [
        "FLUSH BINARY LOGS",
        "INSERT INTO shop.customers VALUES (10, 'n', NULL)",
        "FLUSH BINARY LOGS",
        "PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY",
    ];
    server::run(&mut session, &purge).await;
    let archive = ["binlog", "backup", "--source", &url, "--cluster", "shop"];
    home.on_repo(archive).expect(6).says("purged");
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop", "--accept-gap"])
        .expect(14);
    let check = ["binlog", "check", "--cluster", "shop"];
    let run = home.on_repo(check).expect(11);
    assert!(run.stdout.contains("gap") && run.stdout.contains("not its end"), "{run:?}");
    // What the message asks for puts it right: older backups lead as far as they do.
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (11, 'n', NULL)"]).await;
    home.on_repo(archive).expect(0);
    let run = home.on_repo(check).expect(0);
    for said in ["gap", "not its end", "the end of the archive", "from the newest backup on"] {
        assert!(run.stdout.contains(said), "{said}: {run:?}");
    }
    let json = home.on_repo(["binlog", "check", "--cluster", "shop", "--json"]).expect(0).json();
    let whole = json["backups"].as_array().unwrap().iter().map(|b| b["whole"] == true);
    assert_eq!((&json["ok"], whole.collect()), (&true.into(), vec![false, true]), "{json:#}");
}

/// An archive alone is no point to restore, and a spool has to be a place to write to.
#[tokio::test]
async fn what_is_missing_for_a_restore_is_said() {
    let source = Server::with_shop("mariadb-10.11").await;
    let home = Home::with_repo();
    let url = source.url();
    let archive = ["binlog", "backup", "--source", &url, "--cluster", "shop", "--spool"];
    home.on_repo([&archive[..], &["/proc"]].concat()).expect(2).says("--spool");
    home.on_repo([&archive[..], &["spool"]].concat()).expect(0);
    let restore = ["restore", "--cluster", "shop", "--target", &url, "--to-latest"];
    home.on_repo(restore)
        .expect(10)
        .says("there is no backup of cluster shop")
        .says("holdfast backup");
}

/// A piece in the middle of the archive is lost: nobody is told that everything was applied.
#[rstest]
#[tokio::test]
async fn a_hole_in_the_archive_is_not_passed_over(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = source.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let mut session = source.session().await;
    let (mut contents, mut pieces) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let work =
            ["UPDATE shop.orders SET amount = amount + 1 WHERE id < 50", "FLUSH BINARY LOGS"];
        server::run(&mut session, &work).await;
        home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
        contents.push(source.content("shop").await);
        pieces.push(home.files("repo/clusters/shop/binlog"));
    }
    // Everything that the second run archived.
    let lost = pieces[1].iter().filter(|file| !pieces[0].contains(file));
    let lost: Vec<_> = lost.map(|(path, _)| (path.clone(), std::fs::read(path).unwrap())).collect();
    for (path, _) in &lost {
        std::fs::remove_file(path).unwrap();
    }

    let target = Server::start(name).await;
    let to = target.url();
    let restore = |more: &[&str]| {
        let mut args = vec!["restore", "--cluster", "shop", "--target", &to];
        args.extend(more);
        home.on_repo(args)
    };
    let refused = restore(&["--to-latest"]).expect(10).says("these transactions are not archived");
    let refused = refused.says("--to-last-reachable").says("the archive goes on behind that");
    let schemata = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'shop'";
    assert_eq!(target.value(schemata).await.as_deref(), Some("0"));
    restore(&["--to-latest", "--dry-run"]).expect(10);

    // The place that it names can be reached, and is the last one that can.
    let (_, place) = refused.stderr.split_once("the last point that can be reached is ").unwrap();
    let place = place.split([' ', ',']).find(|word| word.contains("00000")).unwrap();
    let place = place.trim_end_matches(['.', '\n']);
    let last = |point: &[&str]| {
        let plan = restore(&[point, &["--dry-run", "--json"]].concat());
        // The one that is not where it was asked to go ends as the restore will.
        let there = point.len() == 2;
        let plan = plan.expect(if there { 0 } else { 14 }).json();
        assert_eq!(plan["warnings"].as_array().unwrap().is_empty(), there, "{plan:#}");
        plan["binlog"]["last_applied"].clone()
    };
    assert_eq!(last(&["--to-last-reachable"]), last(&["--to-position", place]));
    restore(&["--to-last-reachable"]).expect(14).says("not archived");
    assert_eq!(target.content("shop").await, contents[0]);

    let apply = |more: &[&str]| {
        let mut args = vec!["binlog", "apply", "--cluster", "shop", "--target", &to];
        args.extend(more);
        home.on_repo(args)
    };
    apply(&[]).expect(10).says("not archived");
    apply(&["--to-last-reachable", "--dry-run"]).expect(14);
    apply(&["--to-last-reachable"]).expect(14);
    assert_eq!(target.content("shop").await, contents[0]);
    for (path, bytes) in lost {
        std::fs::write(path, bytes).unwrap();
    }
    apply(&["--to-latest"]).expect(0);
    assert_eq!(target.content("shop").await, contents[2]);
}

/// What is prepared while a backup is taken is not in it: the backup says so, a replay stops where it is
/// committed, and an earlier backup leads on.
#[rstest]
#[tokio::test]
async fn what_is_prepared_during_a_backup_is_named(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = source.url();
    let backup = ["backup", "--source", &url, "--cluster", "shop", "--json"];
    let earlier = home.on_repo(backup).expect(0).json();
    let mut session = source.session().await;
    let prepare = [
        "XA START 'held', 'b', 7",
        "INSERT INTO shop.customers VALUES (4, 'n', NULL)",
        "XA END 'held', 'b', 7",
        "XA PREPARE 'held', 'b', 7",
    ];
    server::run(&mut session, &prepare).await;
    home.on_repo(backup).expect(14).says("X'68656c64',X'62',7");
    server::run(&mut session, &["XA COMMIT 'held', 'b', 7"]).await;
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
    for apply in ["replica", "direct"] {
        let target = Server::start(name).await;
        let to = target.url();
        let restore =
            ["restore", "--cluster", "shop", "--target", &to, "--to-latest", "--apply", apply];
        let run = home.on_repo(restore);
        assert_ne!(run.code, Some(0), "{run:?}");
        run.says("1397").says("earlier backup");
    }
    let target = Server::start(name).await;
    let to = target.url();
    let id = earlier["backup"].as_str().unwrap();
    let restore = ["restore", id, "--cluster", "shop", "--target", &to, "--to-latest"];
    home.on_repo(restore).expect(0);
    assert_eq!(target.content("shop").await, source.content("shop").await);
}

/// The newest are kept, what is left out is told, and a name that is printed can be given.
#[rstest]
#[tokio::test]
async fn what_is_found_is_the_newest(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let source = Server::start(name).await;
    let home = Home::with_repo();
    let url = source.url();
    let mut session = source.session().await;
    let work = [
        "SET SESSION binlog_format = ROW",
        "CREATE DATABASE `od``d.db`",
        "CREATE TABLE `od``d.db`.`,x.t` (id INT PRIMARY KEY)",
        "INSERT INTO `od``d.db`.`,x.t` VALUES (1)",
        "INSERT INTO `od``d.db`.`,x.t` VALUES (2)",
        "INSERT INTO `od``d.db`.`,x.t` VALUES (3), (4)",
    ];
    server::run(&mut session, &work).await;
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let find = |more: &[&str]| {
        home.on_repo([&["binlog", "find", "--cluster", "shop"], more].concat()).expect(0)
    };
    let table = "`od``d.db`.`,x.t`";
    let rows = ["--table", table, "--min-rows", "1"];
    let all = find(&[&rows[..], &["--limit", "0", "--json"]].concat()).json();
    assert_eq!(
        (all["transactions"].as_array().unwrap().len(), &all["left_out"]),
        (3, &0.into()),
        "{all:#}"
    );
    let run = find(&[&rows[..], &["--limit", "1", "--json"]].concat()).says("2 older ones");
    let newest = run.json();
    assert_eq!(newest["left_out"], 2);
    assert_eq!(newest["transactions"][0], all["transactions"][2]);
    assert_eq!(newest["transactions"].as_array().unwrap().len(), 1);
    assert!(!find(&rows).stderr.contains("older ones"));
    let shown = find(&["--min-rows", "2"]).stdout;
    assert!(shown.contains(&format!("    {table}: 2 rows inserted")), "{shown}");
    let deleted = find(&["--table", table, "--delete"]).stdout;
    assert_eq!(deleted, "No such transaction is archived.\n");
    let mistyped = find(&["--table", "shop.ordres", "--delete"]).stdout;
    assert!(mistyped.starts_with("No transaction that touches shop.ordres"), "{mistyped}");
    let swapped = ["binlog", "find", "--cluster", "shop", "--between", "2026-02-01T00:00:00Z"];
    let run = home.on_repo([&swapped[..], &["2026-01-01T00:00:00Z"]].concat()).expect(2);
    run.says("name the earlier time first");
    let gtid = newest["transactions"][0]["gtid"].as_str().unwrap();
    let undo = ["binlog", "undo", "--cluster", "shop", "--source", &url, "--gtid", gtid];
    let undone = home.on_repo([&undo[..], &["--table", table]].concat()).expect(0);
    assert_eq!(undone.stdout.matches("\nDELETE FROM").count(), 2, "{undone:?}");
}

/// What cannot be undone is an error for programs, too; and a table that is gone comes back by what is said.
#[rstest]
#[tokio::test]
async fn what_is_not_undone_is_told_with_a_way(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let cx = backup_core::Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap();
    let builder = builder.tcp(true).option("binlog_format", "ROW");
    let source = Server(builder.start(&cx).await.unwrap());
    let mut session = source.session().await;
    server::shop(&mut session).await;
    let home = Home::with_repo();
    let url = source.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let archive = || {
        home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
    };
    server::run(&mut session, &["DELETE FROM shop.customers WHERE id = 2"]).await;
    archive();
    let find = ["binlog", "find", "--cluster", "shop", "--table", "shop.customers", "--delete"];
    let found = home.on_repo([&find[..], &["--json"]].concat()).expect(0).json();
    let bad = found["transactions"][0]["gtid"].as_str().unwrap().to_owned();
    let undo = ["binlog", "undo", "--cluster", "shop", "--gtid", &bad, "--source", &url];

    // Somebody put another row there.
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (2, 'other', NULL)"]).await;
    let run = home.on_repo([&undo[..], &["--json"]].concat()).expect(6);
    let document = run.json();
    let error = &document["error"];
    assert_eq!(
        (&error["exit_code"], &error["kind"]),
        (&6.into(), &"source".into()),
        "{document:#}"
    );
    assert!(error["message"].as_str().unwrap().contains("there again"), "{document:#}");
    assert!(error["remedy"].as_str().unwrap().contains("--anyway"), "{document:#}");
    assert_eq!(document["statements"], serde_json::json!([]), "{document:#}");
    // Who sends the statements into a file reads it on the terminal.
    home.on_repo(undo).expect(6).says("is not undone: ").says("--anyway");
    let anyway = home.on_repo([&undo[..], &["--anyway", "--json"]].concat()).expect(14).json();
    assert_eq!(anyway["error"], serde_json::Value::Null, "{anyway:#}");

    server::run(&mut session, &["DROP VIEW shop.totals", "DROP TABLE shop.customers"]).await;
    archive();
    let run = home.on_repo([&undo[..], &["--json"]].concat()).expect(6);
    let remedy = run.json()["error"]["remedy"].as_str().unwrap().to_owned();
    let command = format!("restore --cluster shop --tables shop.customers --before-gtid {bad}");
    assert!(remedy.contains(&command) && !remedy.contains("holdfast check"), "{remedy}");
    let drop = ["binlog", "find", "--cluster", "shop", "--table", "shop.customers", "--drop"];
    assert!(remedy.contains(&format!("`holdfast {}`", drop.join(" "))), "{remedy}");
    let drop = home.on_repo([&drop[..], &["--json"]].concat()).expect(0).json();
    let drop = drop["transactions"][0]["gtid"].as_str().unwrap().to_owned();
    // As it was when it went; what stands in the way of undoing is in it again.
    let tool = server::install(name);
    let back = ["restore", "--cluster", "shop", "--tables", "shop.customers", "--target", &url];
    let back = [&back[..], &["--server-dir", tool.to_str().unwrap(), "--before-gtid"]].concat();
    home.on_repo([&back[..], &[&drop]].concat()).expect(0);
    home.on_repo(undo).expect(6).says("there again");
    // As it was before the transaction.
    server::run(&mut session, &["DROP TABLE shop.customers"]).await;
    home.on_repo([&back[..], &[&bad]].concat()).expect(0);
    let rows = "SELECT COUNT(*) FROM shop.customers WHERE name LIKE 'Bj%'";
    assert_eq!(source.value(rows).await.as_deref(), Some("1"));
}
