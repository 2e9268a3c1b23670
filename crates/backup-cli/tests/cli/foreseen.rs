//! Single tables out of data files: what the restore would end with is told before a file is laid out, by it and by
//! its dry run alike.

use backup_core::Context;
use rstest::rstest;

use crate::files_point::{How, backed_up};
use crate::home::{Home, Run};
use crate::server::{self, PASSWORD, Server, install};

/// A restore of tables of `shop`, by this user of the target.
fn restore(home: &Home, name: &str, url: &str, more: &[&str]) -> Run {
    let tool = install(name);
    let all = ["restore", "--cluster", "shop", "--target", url, "--server-dir"];
    let mut command = home.command([&all[..], &[tool.to_str().unwrap()], more].concat());
    command.env("HOLDFAST_REPO", "repo");
    if url.contains("poor@") {
        command.env("HOLDFAST_TARGET_PASSWORD", PASSWORD);
    }
    Run::of(&mut command)
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_of_tables_ends_as_the_restore_does(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let mysql = name.starts_with("mysql");
    let home = Home::with_repo();
    let server = backed_up(&home, name, How::Locked).await;
    let mut session = server.session().await;
    let password = PASSWORD.replace('\\', "\\\\").replace('\'', "''");
    let account = [
        &format!("CREATE USER poor@'%' IDENTIFIED BY '{password}'"),
        "GRANT SELECT, INSERT ON shop.* TO poor@'%'",
        "DROP TABLE shop.noted",
        "SET GLOBAL local_infile = ON",
    ];
    server::run(&mut session, &account).await;
    let both = |url: &str, code: i32, tables: &[&str], says: &str| {
        for more in [&["--dry-run"][..], &[]] {
            let run = restore(&home, name, url, &[tables, more].concat()).expect(code).says(says);
            // Nothing was laid out for it.
            assert!(!run.stderr.contains("half restored"), "{run:?}");
        }
    };
    let noted = ["--tables", "shop.noted"];
    let poor = server.tcp_url("poor");
    let grant = "GRANT CREATE, DELETE, DROP ON `shop`.* TO 'poor'@'%'";
    both(&poor, 4, &noted, grant);
    server::run(&mut session, &[grant, "SET GLOBAL read_only = ON"]).await;
    both(&poor, 9, &noted, "read_only: the target takes");
    if mysql {
        server::run(&mut session, &["SET GLOBAL super_read_only = ON"]).await;
        both(&server.url(), 9, &noted, "super_read_only: the target takes no");
    }
    server::run(&mut session, &["SET GLOBAL read_only = OFF"]).await;

    // Names. Those of MySQL that have no file only its server knows.
    let names = [
        (["--tables", "shop.totals", "--rename", "shop=s"], "shop.totals", "is a view"),
        (["--tables", "shop.nothing", "--rename", "shop=s"], "shop.nothing", "holds no table"),
        (["--databases", "nobody", "--rename", "nobody=s"], "nobody", "holds no database nobody"),
    ];
    for (args, object, says) in names {
        let planned = restore(&home, name, &server.url(), &[&args[..], &["--dry-run"]].concat());
        match mysql {
            false => drop(planned.expect(2).says(says)),
            true => {
                let what = if args[0] == "--databases" { "this database" } else { "it" };
                let told = format!("{object}: the backup has no file of {what}");
                let planned = planned.expect(14);
                assert!(planned.stdout.contains(&told), "{planned:?}");
            }
        }
        restore(&home, name, &server.url(), &args).expect(2).says(says);
    }
    let left_out = ["--databases", "shop", "--exclude-tables", "shop.noetd", "--rename", "shop=s"];
    let planned = [&left_out[..], &["--dry-run"]].concat();
    restore(&home, name, &server.url(), &planned).expect(if mysql { 14 } else { 2 });
    let says = "there is no table shop.noetd, which is to be left out";
    restore(&home, name, &server.url(), &left_out).expect(2).says(says);
    let pattern = ["--databases", "shop", "--exclude-tables", "shop.x*", "--rename", "shop=s"];
    let planned = [&pattern[..], &["--dry-run"]].concat();
    let idle = "nothing in the backup fits `shop.x*`";
    let planned = restore(&home, name, &server.url(), &planned).expect(14);
    assert!(planned.stdout.contains(idle), "{planned:?}");
    restore(&home, name, &server.url(), &pattern).expect(14).says(idle);

    let planned = [&noted[..], &["--dry-run"]].concat();
    restore(&home, name, &poor, &planned).expect(0);
    restore(&home, name, &poor, &noted).expect(0);
}

/// The keyring of the source is in no backup, but where a clone had the keys sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_table_of_mysql_without_its_keyring_is_refused_beforehand() {
    let cx = Context::builder().build();
    let home = Home::with_repo();
    let data = home.path("data");
    let builder = xtask::servers::sandbox("mysql-9.7").await.unwrap().datadir(&data);
    let mut source = Server(builder.keyring(true).start(&cx).await.unwrap());
    let tables = [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.secret (id INT PRIMARY KEY) ENCRYPTION = 'Y'",
        "CREATE TABLE shop.open (id INT PRIMARY KEY)",
        "INSERT INTO shop.secret VALUES (1)",
    ];
    server::run(&mut source.session().await, &tables).await;
    source.0.stop().await.unwrap();
    let file = format!("file://{}", data.display());
    let backup = ["backup", "--cluster", "shop", "--strategy", "physical", "--source", &file];
    home.on_repo(backup).expect(0);
    // A drill on a server without these keys says nothing of the backup, and nothing is recorded.
    let bare = install("mysql-9.7");
    let drill = ["verify", "latest", "--cluster", "shop", "--level", "drill", "--server-dir"];
    let run = home.on_repo([&drill[..], &[bare.to_str().unwrap()]].concat()).expect(9);
    run.says("the private server has no keyring with the keys").says("--server-dir");
    let shown = home.on_repo(["list", "--json"]).expect(0).json();
    assert_eq!(shown[0]["proof"], serde_json::Value::Null, "{shown:#}");
    let target = Server::start("mysql-9.7").await;
    for more in [&["--dry-run"][..], &[]] {
        let secret = [&["--tables", "shop.secret"], more].concat();
        let run = restore(&home, "mysql-9.7", &target.url(), &secret).expect(9);
        run.says("shop.secret is encrypted, and its key is in the keyring of the source");
        let open = [&["--tables", "shop.open"], more].concat();
        restore(&home, "mysql-9.7", &target.url(), &open).expect(0);
    }
}

/// A MariaDB with tables that take numbers of sequences, and a backup of its files.
async fn with_sequences(home: &Home, how: How) -> Server {
    let name = "mariadb-10.11";
    let server = Server::start(name).await;
    let tables = [
        "CREATE DATABASE m",
        "CREATE DATABASE n",
        "CREATE SEQUENCE m.sq START WITH 100 NOCACHE",
        "CREATE SEQUENCE n.far START WITH 500 NOCACHE",
        "CREATE TABLE m.t (id BIGINT DEFAULT NEXTVAL(m.sq) PRIMARY KEY, x INT)",
        "CREATE TABLE m.u (id BIGINT DEFAULT (NEXTVAL(n.far) + 1) PRIMARY KEY, x INT)",
        "CREATE TABLE m.words (id INT PRIMARY KEY, t TEXT, FULLTEXT (t))",
        "INSERT INTO m.t (x) VALUES (1), (2)",
        "INSERT INTO m.u (x) VALUES (1)",
    ];
    server::run(&mut server.session().await, &tables).await;
    let (url, tool) = (server.url(), install(name));
    let tool = ["--tool", tool.to_str().unwrap()];
    let more = if how == How::Tool { &tool[..] } else { &["--lock-and-copy"] };
    let backup = ["backup", "--cluster", "shop", "--strategy", "physical", "--source", &url];
    home.on_repo([&backup[..], more].concat()).expect(0);
    server
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_that_tables_take_numbers_of_are_not_forgotten(
    #[values(How::Tool, How::Locked)] how: How,
    #[values("on", "off")] binlog: &str,
) {
    let name = "mariadb-10.11";
    let home = Home::with_repo();
    let source = with_sequences(&home, how).await;
    let target = Server::start(name).await;
    let restore = |url: &str, tables: &str, more: &[&str]| {
        let args = ["--tables", tables, "--binlog", binlog, "--tool"];
        let tool = install(name);
        restore(&home, name, url, &[&args[..], &[tool.to_str().unwrap()], more].concat())
    };
    // One of its own database comes along, and goes on where it stood.
    restore(&target.url(), "m.t", &["--dry-run"]).expect(0);
    restore(&target.url(), "m.t", &[]).expect(0);
    let mut session = target.session().await;
    let next = ["INSERT INTO m.t (x) VALUES (3)"];
    server::run(&mut session, &next).await;
    assert_eq!(target.value("SELECT MAX(id) FROM m.t").await.as_deref(), Some("102"));
    // The next one draws from that, as the source's own does.
    server::run(&mut session, &["DROP TABLE m.t"]).await;
    let says = "it takes numbers of m.sq, and will draw from the one that the target has";
    for more in [&["--dry-run"][..], &[]] {
        let run = restore(&target.url(), "m.t", more).expect(14);
        assert!(format!("{run:?}").contains(says), "{run:?}");
    }
    // Both are what was asked for: with a table that comes row by row, and put back.
    server::run(&mut session, &["DROP TABLE m.t"]).await;
    restore(&target.url(), "m.t,m.sq,m.words", &[]).expect(9).says("sequence m.sq");
    restore(&target.url(), "m.t,m.sq,m.words", &["--overwrite"]).expect(0);
    server::run(&mut session, &next).await;
    assert_eq!(target.value("SELECT MAX(id) FROM m.t").await.as_deref(), Some("102"));

    // One of another database has to be named.
    for more in [&["--dry-run"][..], &[], &["--overwrite"]] {
        let run = restore(&target.url(), "m.u,m.words", &[more, &["--rename", "m=k"]].concat());
        let run = run.expect(9).says("it takes numbers of the sequence n.far, which is not");
        run.says("restore both: --tables m.u,m.words,n.far");
    }
    let made = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'k'";
    assert_eq!(target.value(made).await.as_deref(), Some("0"));
    restore(&target.url(), "m.u,m.words,n.far", &["--rename", "m=k"]).expect(0);
    server::run(&mut session, &["INSERT INTO k.u (x) VALUES (2)"]).await;
    assert_eq!(target.value("SELECT MAX(id) FROM k.u").await.as_deref(), Some("502"));
    drop(source);
}

/// Of an increment there are changed pages, and names beside them that only a server can read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_looked_at_whatever_else_is_in_the_files() {
    let name = "mariadb-10.11";
    let home = Home::with_repo();
    let source = Server::start(name).await;
    let tables = [
        "SET NAMES utf8mb4",
        "CREATE DATABASE `ü b`",
        "CREATE TABLE `ü b`.`tä` (a INT PRIMARY KEY)",
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (a INT PRIMARY KEY)",
        "CREATE VIEW shop.v AS SELECT * FROM shop.t",
    ];
    server::run(&mut source.session().await, &tables).await;
    let (url, tool) = (source.url(), install(name));
    let tool = ["--tool", tool.to_str().unwrap()];
    for kind in ["full", "incremental"] {
        let backup = ["backup", "--cluster", "shop", "--strategy", "physical", "--source", &url];
        home.on_repo([&backup[..], &tool, &["--type", kind]].concat()).expect(0);
    }
    for (wanted, says) in [
        (["--tables", "shop.nosuch"], "the backup holds no table shop.nosuch"),
        (["--tables", "shop.v"], "shop.v is a view"),
        (["--databases", "nodb"], "the backup holds no database nodb"),
        (["--tables", "mysql.user"], "mysql is the server's own database"),
        (["--databases", "mysql"], "mysql is the server's own database"),
    ] {
        for more in [&["--dry-run"][..], &[]] {
            let all = [&wanted[..], &tool, &["--rename", "shop=s"], more].concat();
            restore(&home, name, &url, &all).expect(2).says(says);
        }
    }
    let planned = [&["--databases", "shop", "--overwrite", "--dry-run"][..], &tool].concat();
    let planned = restore(&home, name, &url, &planned).expect(0).stdout;
    assert!(planned.contains("shop.t") && !planned.contains("ibd"), "{planned}");
    let odd = ["--tables", "`ü b`.`tä`", "--rename", "`ü b`=s"];
    restore(&home, name, &url, &[&odd[..], &tool].concat()).expect(0);
}

/// A child without its parent takes no rows.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_without_its_parent_is_told_of(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values(true, false)] files: bool,
) {
    let home = Home::with_repo();
    let source = Server::start(name).await;
    let tables = [
        "CREATE DATABASE f",
        "CREATE TABLE f.parent (id INT PRIMARY KEY)",
        "CREATE TABLE f.child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES f.parent (id))",
        "INSERT INTO f.parent VALUES (1)",
        "INSERT INTO f.child VALUES (1, 1)",
    ];
    server::run(&mut source.session().await, &tables).await;
    let url = source.url();
    let backup = ["backup", "--cluster", "shop", "--source", &url];
    let locked = ["--strategy", "physical", "--lock-and-copy"];
    home.on_repo([&backup[..], if files { &locked } else { &[] }].concat()).expect(0);
    let target = Server::start(name).await;
    let url = target.url();
    let child = ["-v", "--tables", "f.child"];
    let says = "refers to f.parent, which is not restored with it and not at the target: it takes no more rows";
    let planned = restore(&home, name, &url, &[&child[..], &["--dry-run"]].concat());
    match files {
        // That is in no file which can be read without a server.
        true => {
            let planned = planned.expect(0);
            assert!(planned.stdout.contains("whether foreign keys refer to tables"), "{planned:?}");
        }
        false => {
            let planned = planned.expect(14);
            assert!(planned.stdout.contains(says), "{planned:?}");
            assert!(planned.stdout.contains("--tables f.child,f.parent"), "{planned:?}");
        }
    }
    let run = restore(&home, name, &url, &child).expect(14).says(says);
    assert!(!run.stderr.contains("tied to the target's own"), "{run:?}");
    let mut session = target.session().await;
    session.run("INSERT INTO f.child VALUES (2, 1)").await.unwrap_err();
    server::run(&mut session, &["DROP TABLE f.child", tables[1], tables[3]]).await;
    let run = restore(&home, name, &url, &child).expect(0);
    assert!(!run.stderr.contains("f.parent"), "{run:?}");
    server::run(
        &mut session,
        &["INSERT INTO f.child VALUES (2, 1)", "DROP TABLE f.child, f.parent"],
    )
    .await;
    restore(&home, name, &url, &["--tables", "f.child,f.parent"]).expect(0);
}

/// Sequences of the database of a table get its new name with it.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_are_looked_for_under_their_new_names(#[values("on", "off")] binlog: &str) {
    let name = "mariadb-10.11";
    let home = Home::with_repo();
    let source = with_sequences(&home, How::Locked).await;
    let target = Server::start(name).await;
    let mut session = target.session().await;
    let both = |code: i32, says: &[&str]| {
        let args = ["--tables", "m.t", "--rename", "m=k", "--binlog", binlog];
        for more in [&["--dry-run"][..], &[]] {
            let run = restore(&home, name, &target.url(), &[&args[..], more].concat());
            let run = run.expect(code);
            let (told, run) = (format!("{run:?}"), run);
            assert!(says.iter().all(|says| told.contains(says)), "{run:#?}");
            assert!(code != 0 || !told.contains("takes numbers"), "{run:#?}");
        }
    };
    let old = ["CREATE DATABASE m", "CREATE SEQUENCE m.sq START WITH 900"];
    server::run(&mut session, &old).await;
    tokio::task::block_in_place(|| both(0, &[]));
    let next = "SELECT next_not_cached_value FROM k.sq";
    assert_eq!(target.value(next).await.as_deref(), Some("102"));
    let new = ["DROP DATABASE m", "DROP TABLE k.t"];
    server::run(&mut session, &new).await;
    let says = ["takes numbers of k.sq, and will draw from", "restore both: --tables m.t,m.sq"];
    tokio::task::block_in_place(|| both(14, &says));
    drop(source);
}
