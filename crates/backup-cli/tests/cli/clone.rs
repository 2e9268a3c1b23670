//! Clones by the command line.

use backup_core::Context;

use crate::home::{Home, Run};
use crate::server::{self, Server, install};

const INSTALL: &str = "INSTALL PLUGIN clone SONAME 'mysql_clone.so'";

#[tokio::test]
async fn what_is_missing_for_a_clone_is_said_in_sql() {
    let server = Server::start("mysql-9.7").await;
    let mut session = server.session().await;
    server::run(&mut session, &["CREATE USER poor@'%' IDENTIFIED BY 'poor'"]).await;
    let home = Home::with_repo();
    let url = server.tcp_url("poor");
    let check = || {
        let mut command = home.command(["check", "--strategy", "clone", "--source", &url]);
        Run::of(command.env("HOLDFAST_SOURCE_PASSWORD", "poor"))
    };
    let grant = "GRANT BACKUP_ADMIN ON *.* TO 'poor'@'%'";
    let run = check();
    assert!(run.stdout.contains(INSTALL) && run.stdout.contains(grant), "{run:?}");
    server::run(&mut session, &[INSTALL]).await;
    let run = check().expect(4);
    assert!(!run.stdout.contains(INSTALL) && run.stdout.contains(grant), "{run:?}");
    server::run(&mut session, &[grant]).await;
    let run = check().expect(0);
    assert!(run.stdout.contains("#ib_archive"), "{run:?}");
}

#[tokio::test]
async fn what_a_clone_leaves_empty_is_dumped_beside_it() {
    let server = Server::with_shop("mysql-9.7").await;
    let mut session = server.session().await;
    server::run(
        &mut session,
        &[
            INSTALL,
            "CREATE TABLE shop.old (i INT NOT NULL) ENGINE=MyISAM",
            "INSERT INTO shop.old VALUES (1), (2)",
            "CREATE TABLE shop.sheet (i INT NOT NULL) ENGINE=CSV",
            "INSERT INTO shop.sheet VALUES (3)",
        ],
    )
    .await;
    let home = Home::with_repo();
    let url = server.url();
    let clone = ["backup", "--strategy", "clone", "--cluster", "c", "--source", &url, "--json"];
    // A spool that cannot be is said before the source has any work.
    let nowhere = clone.into_iter().chain(["--clone-spool", "/nowhere/at/all"]);
    let stderr = home.on_repo(nowhere).expect(2).stderr;
    assert!(stderr.contains("another directory with --clone-spool"), "{stderr}");
    // Any memory does.
    let plain = clone.into_iter().chain(["--memory", "1MiB"]);
    let plain = home.on_repo(plain).expect(14).json();
    assert!(plain["warnings"][0].as_str().unwrap().contains("shop.old (MyISAM)"), "{plain:#}");
    let with = home.on_repo(clone.into_iter().chain(["--clone-others"])).expect(0).json();
    assert_eq!(with["strategy"], "clone");
    let others = with["others"]["backup"].as_str().unwrap();
    assert_eq!(with["others"]["rows"], 3);
    // The newest is the clone, and it comes back beside its tables' rows.
    let shown = home.on_repo(["show", "latest", "--json"]).expect(0).stdout;
    assert!(shown.contains(others), "{shown}");
    server::run(&mut session, &["DELETE FROM shop.old", "DELETE FROM shop.sheet"]).await;
    let back = ["restore", others, "--cluster", "c", "--target", &url, "--overwrite"];
    home.on_repo(back).expect(0);
    let rows = "SELECT (SELECT COUNT(*) FROM shop.old) + (SELECT COUNT(*) FROM shop.sheet)";
    assert_eq!(server.value(rows).await.as_deref(), Some("3"));

    // An account that may not lock the tables: their dump has something to look at, which the clone does not hide.
    server::run(
        &mut session,
        &[
            "CREATE USER frugal@localhost",
            "GRANT BACKUP_ADMIN, RELOAD, REPLICATION CLIENT, SELECT ON *.* TO frugal@localhost",
            "GRANT TRIGGER ON shop.* TO frugal@localhost",
        ],
    )
    .await;
    let url = url.replace("root@", "frugal@");
    let clone = ["backup", "--strategy", "clone", "--cluster", "c", "--source", &url, "--json"];
    let with = home.on_repo(clone.into_iter().chain(["--clone-others"])).expect(14).json();
    let warning = with["others"]["warnings"][0].as_str().unwrap();
    assert!(warning.contains("may not lock them: shop.old (MyISAM)"), "{with:#}");
    let told = with["warnings"][0].as_str().unwrap();
    assert!(told.ends_with(warning) && told.starts_with("backup 2"), "{with:#}");
}

/// The keys of encrypted tables come with a clone, so what takes them has to be encrypted.
#[tokio::test]
async fn an_open_repository_for_an_encrypted_source_is_found_beforehand() {
    let cx = Context::builder().build();
    let builder = xtask::servers::sandbox("mysql-9.7").await.unwrap().keyring(true).tcp(true);
    let server = Server(builder.start(&cx).await.unwrap());
    let mut session = server.session().await;
    server::run(
        &mut session,
        &[
            INSTALL,
            "CREATE DATABASE shop",
            "CREATE TABLE shop.t (id INT PRIMARY KEY) ENCRYPTION = 'Y'",
            "CREATE USER seer@'%' IDENTIFIED BY 'see', poor@'%' IDENTIFIED BY 'see'",
            "GRANT BACKUP_ADMIN, SELECT, REPLICATION CLIENT, PROCESS ON *.* TO seer@'%'",
            "GRANT BACKUP_ADMIN, SELECT, REPLICATION CLIENT ON *.* TO poor@'%'",
        ],
    )
    .await;
    let home = Home::with_repo();
    for account in ["seer", "poor"] {
        let url = format!("{}?ssl-mode=required", server.tcp_url(account));
        for command in ["check", "backup"] {
            let args = [command, "--strategy", "clone", "--source", &url];
            let cluster = ["--cluster", "shop"].into_iter().filter(|_| command == "backup");
            let mut command = home.command(args.into_iter().chain(cluster));
            command.env("HOLDFAST_REPO", "repo").env("HOLDFAST_SOURCE_PASSWORD", "see");
            let run = Run::of(&mut command).expect(6);
            let said = format!("{}{}", run.stdout, run.stderr);
            assert!(said.contains("the repository is not encrypted"), "{account}: {said}");
        }
    }
}

/// Places that are not there are a mistake in the command line, and named.
#[tokio::test]
async fn what_is_named_and_not_there_is_told_of() {
    let server = Server::with_shop("mysql-9.7").await;
    server::run(&mut server.session().await, &[INSTALL]).await;
    let home = Home::with_repo();
    let url = server.url();
    let stopped = ["backup", "--strategy", "clone", "--cluster", "c", "--source", "file:///srv/d"];
    home.on_repo(stopped).expect(2).says("the source has to run");
    let clone = ["backup", "--strategy", "clone", "--cluster", "c", "--source", &url];
    home.on_repo(clone).expect(0);
    let tool = install("mysql-9.7");
    let with_server = ["--server-dir", tool.to_str().unwrap()];
    let scratch = ["--scratch-dir", "/nowhere/at/all"];
    let drill = ["verify", "latest", "--level", "drill"];
    let tables = ["restore", "--cluster", "c", "--target", &url, "--overwrite", "--tables"];
    for command in [&drill[..], &[&tables[..], &["shop.orders"]].concat()] {
        let run = home.on_repo([command, &with_server, &scratch].concat()).expect(2);
        run.says("there is no directory /nowhere/at/all");
    }
    let target = home.path("target");
    let files = ["restore", "--cluster", "c", "--target-dir", target.to_str().unwrap()];
    let config = ["--server-config", "/nowhere/my.cnf"];
    let run = home.on_repo([&files[..], &with_server, &config].concat()).expect(2);
    run.says("there is no option file /nowhere/my.cnf");
}

#[tokio::test]
async fn an_empty_table_out_of_a_clone_replaces_nothing() {
    let server = Server::with_shop("mysql-9.7").await;
    let mut session = server.session().await;
    server::run(
        &mut session,
        &[
            INSTALL,
            "CREATE TABLE shop.old (i INT NOT NULL) ENGINE=MyISAM",
            "INSERT INTO shop.old VALUES (1), (2)",
            // One that may not see the table cannot name it.
            "CREATE USER blind@localhost",
            "GRANT BACKUP_ADMIN, REPLICATION CLIENT ON *.* TO blind@localhost",
        ],
    )
    .await;
    let home = Home::with_repo();
    let url = server.url();
    let clone = |cluster: &str, url: &str, more: &[&str]| -> serde_json::Value {
        let args =
            ["backup", "--strategy", "clone", "--cluster", cluster, "--source", url, "--json"];
        let run = home.on_repo(args.into_iter().chain(more.iter().copied()));
        assert!([Some(0), Some(14)].contains(&run.code), "{run:?}");
        run.json()
    };
    clone("blind", &url.replace("root@", "blind@"), &[]);
    clone("alone", &url, &[]);
    let with = clone("both", &url, &["--clone-others"]);
    let others = with["others"]["backup"].as_str().unwrap();
    let tool = install("mysql-9.7");
    let restore = |cluster: &str, more: &[&str]| {
        let args = ["restore", "--cluster", cluster, "--target", &url, "--overwrite"];
        let args = args.into_iter().chain(["--server-dir", tool.to_str().unwrap()]);
        home.on_repo(args.chain(more.iter().copied()))
    };
    for choice in [["--tables", "shop.old"], ["--databases", "shop"]] {
        restore("blind", &choice).expect(2).says("shop.old (MyISAM)");
        for more in [&[][..], &["--dry-run"]] {
            let more = [&choice[..], more].concat();
            restore("alone", &more).expect(2).says("shop.old (MyISAM)").says("another backup");
            let named = format!("restore {others} --cluster both --target ");
            restore("both", &more).expect(2).says("shop.old (MyISAM)").says(&named);
        }
    }
    let rows = "SELECT COUNT(*) FROM shop.old";
    assert_eq!(server.value(rows).await.as_deref(), Some("2"));

    // What it says can be pasted, however the repository was named, and with a password in the URL.
    server::run(
        &mut session,
        &["DELETE FROM shop.old", "ALTER USER root@localhost IDENTIFIED BY 'pass'"],
    )
    .await;
    let with_password = url.replace("root@", "root:pass@");
    let flags = ["--repo", "repo", "--cluster", "both", "--server-dir", tool.to_str().unwrap()];
    let choice = ["--target", &with_password, "--overwrite", "--tables", "shop.old"];
    let run = home.run([&["restore"], &flags[..], &choice].concat()).expect(2);
    assert!(!run.stderr.contains("root:pass"), "{run:?}");
    server::run(&mut session, &["ALTER USER root@localhost IDENTIFIED BY ''"]).await;
    home.paste(&run.stderr, others).expect(0);
    assert_eq!(server.value(rows).await.as_deref(), Some("2"));
    server::run(&mut session, &["DELETE FROM shop.old"]).await;
    let flags = ["restore", "--repo", "repo", "--cluster", "both", "--target-dir", "data"];
    let plan = home.run([&flags[..], &["--dry-run"]].concat()).expect(14).stdout;
    home.paste(&plan.replace('\u{2026}', &format!("'{url}'")), others).expect(0);
    assert_eq!(server.value(rows).await.as_deref(), Some("2"));

    // What is destroyed is said before, of tables and of databases.
    let plan = |more: &[&str]| {
        let run = restore("both", &[more, &["--dry-run", "--json"]].concat()).expect(0);
        run.json()["destroys"].to_string()
    };
    let destroys = plan(&["--tables", "shop.customers"]);
    assert!(destroys.contains("table shop.customers (about "), "{destroys}");
    let destroys = plan(&["--databases", "shop", "--exclude-tables", "shop.old"]);
    assert!(destroys.contains("shop.customers") && destroys.contains("shop.orders"), "{destroys}");
    assert!(!destroys.contains("shop.old"), "{destroys}");
    // The others come, and the definition alone of the empty one.
    restore("both", &["--databases", "shop", "--exclude-tables", "shop.old"]).expect(0);
    restore("both", &["--tables", "shop.old", "--schema-only", "--rename", "shop.old=shop.shape"])
        .expect(0);
    home.on_repo([
        "restore",
        others,
        "--cluster",
        "both",
        "--target",
        &url,
        "--tables",
        "shop.old",
    ])
    .expect(9);

    // Whoever restores or shows all of it is told.
    let shown = home.on_repo(["show", "latest", "--cluster", "both"]).expect(0).stdout;
    assert!(shown.contains("shop.old: without its rows") && shown.contains(others), "{shown}");
    let line = format!("holdfast restore {others}");
    let place = ["restore", "--cluster", "both", "--target-dir", "data"];
    let run = home.on_repo(place.into_iter().chain(["--dry-run"])).expect(14);
    assert!(run.stdout.contains("shop.old (MyISAM)") && run.stdout.contains(&line), "{run:?}");
    home.on_repo(place).expect(14).says("shop.old (MyISAM)").says(&line);
    let drill = ["verify", "latest", "--cluster", "both", "--level", "drill", "--server-dir"];
    let run = home.on_repo(drill.into_iter().chain([tool.to_str().unwrap()])).expect(0);
    assert!(run.stdout.contains("shop.old (MyISAM)") && run.stdout.contains(&line), "{run:?}");
}

/// A clone leaves nothing of an ARCHIVE table that a server could open; the others are read all the same.
#[tokio::test]
async fn a_drill_is_held_whatever_engines_there_are() {
    let server = Server::with_shop("mysql-9.7").await;
    let mut session = server.session().await;
    let tables = [
        "CREATE TABLE shop.kept (id INT, t TEXT) ENGINE=ARCHIVE",
        "INSERT INTO shop.kept VALUES (1, 'x')",
        "CREATE TABLE shop.lines (id INT NOT NULL) ENGINE=CSV",
        "INSERT INTO shop.lines VALUES (1)",
        "CREATE TABLE shop.gone (id INT NOT NULL) ENGINE=BLACKHOLE",
        "INSTALL PLUGIN clone SONAME 'mysql_clone.so'",
    ];
    server::run(&mut session, &tables).await;
    let home = Home::with_repo();
    let url = server.url();
    let backup = ["backup", "--cluster", "c", "--strategy", "clone", "--source", &url];
    home.on_repo(backup).expect(14).says("shop.kept (ARCHIVE)");
    let tool = install("mysql-9.7");
    let drill = ["verify", "latest", "--cluster", "c", "--level", "drill", "--server-dir"];
    let run = home.on_repo([&drill[..], &[tool.to_str().unwrap()]].concat()).expect(0);
    for told in ["shop.kept (ARCHIVE)", "shop.orders"] {
        assert!(run.stdout.contains(told), "{run:?}");
    }
}

/// Binlogs lead on from rows that are not there, so no point behind the clone has them either.
#[tokio::test]
async fn an_empty_table_out_of_a_clone_comes_to_no_point() {
    let server = Server::with_shop("mysql-9.7").await;
    let mut session = server.session().await;
    let tables = [
        INSTALL,
        "CREATE TABLE shop.old (i INT NOT NULL) ENGINE=MyISAM",
        "INSERT INTO shop.old VALUES (1), (2)",
    ];
    server::run(&mut session, &tables).await;
    let home = Home::with_repo();
    let url = server.url();
    let clone = ["backup", "--strategy", "clone", "--cluster", "c", "--source", &url, "--json"];
    let with = home.on_repo(clone.into_iter().chain(["--clone-others"])).expect(0).json();
    let others = with["others"]["backup"].as_str().unwrap();
    let later =
        ["INSERT INTO shop.old VALUES (3)", "INSERT INTO shop.customers VALUES (4, 'd', NULL)"];
    server::run(&mut session, &later).await;
    let last = server.value("SELECT @@GLOBAL.gtid_executed").await.unwrap();
    let last = last.rsplit_once('-').map(|(first, last)| {
        let server = first.rsplit_once(':').unwrap().0;
        format!("{server}:{last}")
    });
    let last = last.unwrap();
    // A second that all of it is before, and something behind it.
    let clock = "SELECT DATE_FORMAT(UTC_TIMESTAMP() + INTERVAL 1 SECOND, '%Y-%m-%dT%H:%i:%sZ')";
    let moment = server.value(clock).await.unwrap();
    while server.value(clock).await.unwrap() <= moment {
        tokio::task::yield_now().await;
    }
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (5, 'e', NULL)"]).await;
    let archive = ["binlog", "backup", "--source", &url, "--cluster", "c", "--from", "oldest"];
    home.on_repo(archive).expect(0);

    let tool = install("mysql-9.7");
    let to = ["restore", "--cluster", "c", "--target", &url, "--overwrite"];
    let to = [&to[..], &["--server-dir", tool.to_str().unwrap()]].concat();
    let named = format!("logical backup {others}");
    for point in [["--to-gtid", &last], ["--to-time", &moment]] {
        for more in [&["--dry-run"][..], &[]] {
            for choice in [["--tables", "shop.old"], ["--databases", "shop"]] {
                let run = home.on_repo([&to[..], &choice, &point, more].concat()).expect(2);
                run.says("shop.old (MyISAM)").says(&named);
            }
        }
    }
    let rows = "SELECT COUNT(*) FROM shop.old";
    assert_eq!(server.value(rows).await.as_deref(), Some("3"));
    // What it says is whole: with the name that the table was to have, and all the way to the point.
    let aside = ["--repo", "repo", "--tables", "shop.old", "--rename", "shop.old=shop.saved"];
    let run = home.run([&to[..], &aside, &["--to-gtid", &last]].concat()).expect(2);
    let apply = format!("binlog apply --cluster c --target \u{2026} --to-gtid {last} --repo repo`");
    let whole =
        format!("holdfast restore {} --cluster c --target-dir", with["backup"].as_str().unwrap());
    let run = run.says(&apply).says(&whole);
    home.paste(&run.stderr, "--rename shop.old=shop.saved").expect(0);
    let saved = "SELECT COUNT(*) FROM shop.saved";
    assert_eq!(server.value(saved).await.as_deref(), Some("2"));
    // What has its rows comes to the same point.
    let other = ["--tables", "shop.customers", "--rename", "shop.customers=shop.then"];
    home.on_repo([&to[..], &other, &["--to-gtid", &last]].concat()).expect(0);
    let rows = "SELECT GROUP_CONCAT(id ORDER BY id) FROM shop.then";
    assert_eq!(server.value(rows).await.as_deref(), Some("1,2,3,4"));

    // Under another name it is as empty.
    server::run(&mut session, &["RENAME TABLE shop.old TO shop.older"]).await;
    home.on_repo(archive).expect(0);
    let renamed = ["--tables", "shop.older", "--to-latest"];
    let run = home.on_repo([&to[..], &renamed].concat()).expect(2);
    let run = run.says("shop.older was shop.old").says("--rename shop.old=shop.older");
    run.says(&format!("restore {others} --cluster c --target "));
    let rows = "SELECT COUNT(*) FROM shop.older";
    assert_eq!(server.value(rows).await.as_deref(), Some("3"));

    // What was never there has no other point to look at.
    let nothing = [&to[..], &["--tables", "shop.nosuch"]].concat();
    home.on_repo(nothing.clone()).expect(2).says("the backup holds no table shop.nosuch");
    let run = home.on_repo([&nothing[..], &["--to-latest"]].concat()).expect(10);
    run.says("table shop.nosuch is not there at that point");
    // A backup that cannot be read is named, and not passed over.
    let clone = with["backup"].as_str().unwrap();
    std::fs::remove_file(home.path(&format!("repo/clusters/c/backups/{clone}/manifest"))).unwrap();
    let run = home.on_repo([&to[..], &other, &["--to-latest"]].concat()).expect(10);
    run.says(&format!("backup {clone} is left out")).says("leave its directory where it is");
}

/// Rows that binlogs change in tables which a clone leaves empty: the rows of before come first, and then all of it is exact.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_a_clone_leaves_empty_come_to_a_point_behind_their_own_rows() {
    let source = Server::with_shop("mysql-9.7").await;
    let mut session = source.session().await;
    let tables = [
        INSTALL,
        "CREATE TABLE shop.old (i INT NOT NULL PRIMARY KEY, t VARCHAR(9)) ENGINE=MyISAM",
        "INSERT INTO shop.old VALUES (1, 'a'), (2, 'b'), (3, 'c')",
        "CREATE TABLE shop.sheet (i INT NOT NULL) ENGINE=CSV",
        "INSERT INTO shop.sheet VALUES (3)",
        // One that may not see the tables cannot name them.
        "CREATE USER blind@localhost",
        "GRANT BACKUP_ADMIN, REPLICATION CLIENT ON *.* TO blind@localhost",
    ];
    server::run(&mut session, &tables).await;
    let home = Home::with_repo();
    let url = source.url();
    let clone = ["backup", "--strategy", "clone", "--cluster", "c", "--json", "--source"];
    let with = [&clone[..], &[&url, "--clone-others"]].concat();
    let with = home.on_repo(with).expect(0).json();
    let others = with["others"]["backup"].as_str().unwrap();
    let both = with["backup"].as_str().unwrap();
    let unseen = url.replace("root@", "blind@");
    let blind = [&clone[..], &[&unseen]].concat();
    let blind = home.on_repo(blind).json()["backup"].as_str().unwrap().to_owned();
    let changes = [
        "INSERT INTO shop.customers VALUES (4, 'd', NULL)",
        "INSERT INTO shop.old VALUES (4, 'd')",
        "INSERT INTO shop.sheet VALUES (5)",
        "UPDATE shop.old SET t = 'two' WHERE i = 2",
        "DELETE FROM shop.old WHERE i = 1",
        "INSERT INTO shop.customers VALUES (5, 'e', NULL)",
    ];
    server::run(&mut session, &changes[..1]).await;
    let executed = source.value("SELECT @@GLOBAL.gtid_executed").await.unwrap();
    let last = executed.rsplit_once(['-', ':']).unwrap().1;
    let calm = format!("{}:{last}", executed.split_once(':').unwrap().0);
    server::run(&mut session, &changes[1..]).await;
    let archive = ["binlog", "backup", "--source", &url, "--cluster", "c", "--from", "oldest"];
    home.on_repo(archive).expect(0);

    let tool = install("mysql-9.7");
    let data = home.path("data");
    let restore = |backup: &str, more: &[&str]| {
        let args = ["restore", backup, "--cluster", "c", "--overwrite", "--target-dir"];
        let args = [&args[..], &[data.to_str().unwrap(), "--server-dir", tool.to_str().unwrap()]];
        home.on_repo([&args.concat()[..], more].concat())
    };
    // Up to the first change of theirs nothing stands in the way.
    restore(both, &["--to-gtid", &calm]).expect(14).says("before binlogs are applied to it");
    let first =
        "`holdfast restore OTHERS --cluster c --target … --overwrite`".replace("OTHERS", others);
    let then = "`holdfast binlog apply --cluster c --target … --to-latest`";
    let plan = restore(both, &["--to-latest", "--dry-run"]).expect(9).stdout;
    assert!(plan.contains(&first) && plan.contains(then), "{plan}");
    restore(&blind, &["--to-latest"]).expect(9).says("shop.old (MyISAM)").says(then);
    let run = restore(both, &["--to-latest"]).expect(9);
    let run =
        run.says("shop.old (MyISAM), shop.sheet (CSV)").says("is restored, the binlogs are not");
    run.says(&format!("start a server on {}", data.display())).says(&first).says(then);

    // As it says.
    let cx = Context::builder().build();
    let builder = xtask::servers::sandbox("mysql-9.7").await.unwrap().datadir(&data).tcp(true);
    let target = Server(builder.start(&cx).await.unwrap());
    assert_eq!(target.value("SELECT COUNT(*) FROM shop.customers").await.as_deref(), Some("3"));
    let to = target.url();
    home.on_repo(["restore", others, "--cluster", "c", "--target", &to, "--overwrite"]).expect(0);
    home.on_repo(["binlog", "apply", "--cluster", "c", "--target", &to, "--to-latest"]).expect(0);
    for table in ["shop.old", "shop.sheet", "shop.customers", "shop.orders"] {
        let sum = format!(
            "SELECT BIT_XOR(CRC32(CONCAT_WS(',', {}))) * 1000 + COUNT(*) FROM {table}",
            match table {
                "shop.old" => "i, t",
                "shop.sheet" => "i",
                _ => "id",
            }
        );
        assert_eq!(target.value(&sum).await, source.value(&sum).await, "{table}");
    }
    let rows = "SELECT GROUP_CONCAT(i, t ORDER BY i) FROM shop.old";
    assert_eq!(target.value(rows).await.as_deref(), Some("2two,3c,4d"));
}

/// An account that may not see all tables cannot name those that a clone leaves empty.
#[tokio::test]
async fn what_the_account_cannot_see_is_told_and_is_no_difference() {
    let source = Server::with_shop("mysql-9.7").await;
    let mut session = source.session().await;
    let tables = [
        INSTALL,
        "CREATE TABLE shop.old (i INT NOT NULL) ENGINE=MyISAM",
        "INSERT INTO shop.old VALUES (1), (2)",
        "CREATE USER blind@localhost, some@localhost, seer@localhost",
        "GRANT BACKUP_ADMIN, REPLICATION CLIENT ON *.* TO blind@localhost, some@localhost, seer@localhost",
        "GRANT PROCESS ON *.* TO some@localhost",
        "GRANT SELECT ON shop.orders TO some@localhost",
        "GRANT SELECT ON *.* TO seer@localhost",
    ];
    server::run(&mut session, &tables).await;
    let home = Home::with_repo();
    let url = |user: &str| source.url().replace("root@", &format!("{user}@"));
    let check = |user: &str, more: &[&str]| {
        let url = url(user);
        home.on_repo([&["check", "--strategy", "clone", "--source", &url], more].concat())
    };
    let lets = "GRANT SELECT ON *.* lets it see";
    let blind = check("blind", &[]).expect(0).stdout;
    assert!(blind.contains("blind may not see all tables: ") && blind.contains(lets), "{blind}");
    let some = check("some", &[]).expect(0).stdout;
    assert!(some.contains("some may not see all tables of shop: "), "{some}");
    let seer = check("seer", &[]).expect(0).stdout;
    assert!(!seer.contains("may not see") && seer.contains("shop.old (MyISAM)"), "{seer}");
    // What their dump needs is asked for with it.
    let others = ["--clone-others"];
    let seer = check("seer", &others).expect(4).stdout;
    assert!(!seer.contains("a clone holds no rows of") && seer.contains("TRIGGER"), "{seer}");
    let root = check("root", &others).expect(0).stdout;
    assert!(!root.contains("shop.old"), "{root}");
    let logical = ["check", "--source", &url("root"), "--clone-others"];
    home.on_repo(logical).expect(2).says("--strategy clone");

    let clone = ["backup", "--strategy", "clone", "--cluster", "c", "--source", &url("some")];
    home.on_repo(clone).expect(14).says("some may not see all tables of shop: ");
    let tool = install("mysql-9.7");
    let drill =
        ["verify", "latest", "--cluster", "c", "--level", "drill", "--source", &url("root")];
    let run = home.on_repo([&drill[..], &["--server-dir", tool.to_str().unwrap()]].concat());
    let stdout = run.expect(0).stdout;
    assert!(stdout.contains("come back empty") && stdout.contains("shop.old (MyISAM)"), "{stdout}");
    assert!(stdout.contains("2 tables with 515 rows are the same"), "{stdout}");
}
