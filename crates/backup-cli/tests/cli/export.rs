//! Backups as files, and files as backups.

use std::io::Write;
use std::process::{Command, Stdio};

use rstest::rstest;

use crate::home::Home;
use crate::server::{self, Server};

/// Runs SQL by the server's own client.
pub(crate) fn client(server: &Server, sql: &[u8]) {
    let name = match server.0.install().flavor() {
        backup_core::Flavor::MySql => "mysql",
        backup_core::Flavor::MariaDb => "mariadb",
    };
    let mut client = server
        .0
        .install()
        .command(name)
        .unwrap()
        .args(["--no-defaults", "-uroot", "--binary-mode", "--comments"])
        .arg(format!("--socket={}", server.0.socket().display()))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(sql).unwrap();
    assert!(client.wait().unwrap().success());
}

#[rstest]
#[tokio::test]
async fn a_backup_leaves_as_files_and_comes_back(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::with_shop(name).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "shop"]).expect(0);
    let content = server.content("shop").await;
    let export = |more: &[&str]| {
        let mut args = vec!["export", "latest", "--cluster", "shop", "--no-users"];
        args.extend(more);
        home.on_repo(args)
    };

    // A file, with its digest; and nothing is written over.
    let file = home.path("shop.sql.zst");
    let output = file.to_str().unwrap();
    let document =
        export(&["--output", output, "--checksums", "sha256", "--json"]).expect(0).json();
    assert_eq!((&document["rows"], &document["tables"]), (&515.into(), &2.into()), "{document:#}");
    let sums = Command::new("sha256sum")
        .args(["--strict", "-c", "shop.sql.zst.sha256"])
        .current_dir(home.path("."))
        .output()
        .unwrap();
    assert!(sums.status.success(), "{}", String::from_utf8_lossy(&sums.stderr));
    let before = std::fs::read(&file).unwrap();
    export(&["--output", output]).expect(9).says("is there already");
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let left: Vec<_> = std::fs::read_dir(home.path("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".holdfast"))
        .collect();
    assert_eq!(left, Vec::<String>::new());

    // A pipe into the server's own client, over what is there.
    server::run(&mut server.session().await, &["DROP TABLE shop.orders"]).await;
    let args = [
        "export",
        "--repo",
        "repo",
        "--cluster",
        "shop",
        "--output",
        "-",
        "--add-drop",
        "--no-users",
    ];
    let piped = home.command(args).output().unwrap();
    assert!(piped.status.success(), "{}", String::from_utf8_lossy(&piped.stderr));
    client(&server, &piped.stdout);
    assert_eq!(server.content("shop").await, content);
    assert_eq!(server.value("SELECT COUNT(*) FROM shop.totals").await.as_deref(), Some("1"));

    // Patterns choose; what fits nothing is no empty file.
    let one = home.path("one.sql");
    export(&["--output", one.to_str().unwrap(), "--tables", "sh*.cust*"]).expect(0);
    let text = std::fs::read_to_string(&one).unwrap();
    assert!(text.contains("CREATE TABLE `customers`") && !text.contains("`orders`"), "{text}");
    let none = home.path("none.sql");
    export(&["--output", none.to_str().unwrap(), "--tables", "no.*"]).expect(2);
    assert!(!none.exists());

    // The artifacts as they are, and a directory of tables that must be empty.
    let files = home.path("files");
    export(&["--output", files.to_str().unwrap(), "--format", "files"]).expect(0);
    assert!(files.join("logical/catalog").is_file() && files.join("tables").is_dir());
    export(&["--output", files.to_str().unwrap(), "--format", "csv"]).expect(9);
    export(&["--output", "/no/such/directory/x.sql"]).expect(9).says("a directory that is there");

    // The same file, checked and kept as a dump of another program.
    let document = home.run(["verify", "--file", output, "--json"]).expect(0).json();
    assert_eq!((&document["ok"], &document["rows"]), (&true.into(), &515.into()), "{document:#}");
    let import = home.on_repo(["import", output, "--cluster", "old", "--json"]).expect(0).json();
    // It is no ground for binlogs, and there are none.
    let check = home.on_repo(["binlog", "check", "--cluster", "old"]).expect(14).stdout;
    assert!(
        check.contains("nothing is archived") && check.contains("no backup of everything"),
        "{check}"
    );
    assert_eq!((&import["strategy"], &import["rows"]), (&"foreign".into(), &515.into()));
    assert_eq!(import["consistency"]["level"], "none");
    let list = home.on_repo(["list", "--cluster", "old"]).expect(0);
    assert!(list.stdout.contains("foreign"), "{list:?}");
    let show = home.on_repo(["show", "latest", "--cluster", "old"]).expect(0);
    assert!(show.stdout.contains("shop.customers"), "{show:?}");
    home.on_repo(["verify", "--cluster", "old", "--level", "logical"]).expect(0);
    let url = server.url();
    let refused = ["restore", "--cluster", "old", "--target", &url];
    home.on_repo(refused).expect(2).says("--format files");
    let flag = home.run([&refused[..], &["--repo", "repo"]].concat()).expect(2);
    flag.says("--format files --output DIR --repo repo`");
    // What can be restored is the latest there, whatever was imported after it.
    home.on_repo(["import", output, "--cluster", "shop"]).expect(0);
    let again =
        ["restore", "latest", "--cluster", "shop", "--target", &url, "--no-users", "--json"];
    let again = home.on_repo([&again[..], &["--rename", "shop=again"]].concat()).expect(0);
    let again = again.says("is passed over").json();
    assert_eq!(again["rows"], 515, "{again:#}");
    let back = home.path("back");
    home.on_repo([
        "export",
        "--cluster",
        "old",
        "--format",
        "files",
        "--output",
        back.to_str().unwrap(),
    ])
    .expect(0);
    assert!(back.join("foreign/files/shop.sql").is_file());

    // Cut, it is refused, found out, and saved.
    std::fs::write(home.path("cut.sql"), &piped.stdout[..piped.stdout.len() / 2]).unwrap();
    let run = home.run(["verify", "--file", "cut.sql"]).expect(11);
    assert!(run.stdout.contains("cut.sql:") && run.stdout.contains("FAILED"), "{run:?}");
    home.on_repo(["import", "cut.sql", "--cluster", "old"]).expect(8).says("--salvage");
    home.on_repo(["import", "cut.sql", "--cluster", "old", "--salvage"]).expect(14);
}

/// What a program leaves that could not sign in is no dump.
#[test]
fn nothing_is_no_dump() {
    let home = Home::with_repo();
    let said = "-- MySQL dump 10.13  Distrib 9.7.4\n-- Dump completed on 2026-11-20 10:15:30\n";
    home.write("empty.sql", "");
    home.write("lines.sql", "\n\n");
    home.write("said.sql", said);
    // A line's end, by gzip.
    let zipped =
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xe3\x02\x00\x93\x06\xd7\x32\x01\x00\x00\x00";
    std::fs::write(home.path("lines.sql.gz"), zipped).unwrap();
    for file in ["empty.sql", "lines.sql", "said.sql", "lines.sql.gz"] {
        let run = home.run(["verify", "--file", file]).expect(11);
        assert!(run.stdout.contains("nothing was dumped"), "{run:?}");
        for more in [&[][..], &["--salvage"]] {
            let import = ["import", file, "--cluster", "old"];
            home.on_repo([&import[..], more].concat()).expect(8).says("pipefail");
        }
    }
    assert_eq!(home.on_repo(["list", "--json"]).expect(0).json().as_array().unwrap().len(), 0);
    // One of several, too: the others can be saved.
    std::fs::create_dir(home.path("several")).unwrap();
    home.write("several/a.sql", "CREATE TABLE `t` (`a` int);\n");
    home.write("several/b.sql", "");
    home.on_repo(["import", "several", "--cluster", "old"]).expect(8).says("b.sql");
    home.on_repo(["import", "several", "--cluster", "old", "--salvage"]).expect(14).says("b.sql");
}

/// A dump that was cut, with a whole one behind it, is not whole.
#[rstest]
#[tokio::test]
async fn a_cut_dump_before_a_whole_one_is_found(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::with_shop(name).await;
    let program = if name.starts_with("mysql") { "mysqldump" } else { "mariadb-dump" };
    let dump = server
        .0
        .install()
        .command(program)
        .unwrap()
        .args(["--no-defaults", "-uroot", "--databases", "shop", "--skip-extended-insert"])
        .arg(format!("--socket={}", server.0.socket().display()))
        .output()
        .unwrap();
    assert!(dump.status.success(), "{dump:?}");
    let whole = dump.stdout;
    // Between two statements, where nothing else tells.
    let needle = b"INSERT INTO";
    let at = whole.windows(needle.len()).rposition(|window| window == needle).unwrap();
    let home = Home::with_repo();
    std::fs::write(home.path("twice.sql"), [&whole[..], &whole].concat()).unwrap();
    std::fs::write(home.path("cut.sql"), [&whole[..at], &whole].concat()).unwrap();
    home.run(["verify", "--file", "twice.sql"]).expect(0);
    let run = home.run(["verify", "--file", "cut.sql"]).expect(11);
    assert!(run.stdout.contains("another dump begins in line"), "{run:?}");
    home.on_repo(["import", "cut.sql", "--cluster", "old"]).expect(8).says("it was cut");
}

/// Before 11.4 a MariaDB drops packages in one sql_mode alone.
#[rstest]
#[tokio::test]
async fn packages_are_dropped_before_they_are_made(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let server = Server::start(name).await;
    let home = Home::with_repo();
    let mut session = server.session().await;
    let work = [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (a INT)",
        "SET SESSION sql_mode = 'ORACLE'",
        "CREATE PACKAGE shop.p AS FUNCTION f RETURN INT; END",
        "CREATE PACKAGE BODY shop.p AS FUNCTION f RETURN INT AS BEGIN RETURN 7; END; END",
        "SET SESSION sql_mode = ''",
        "CREATE TRIGGER shop.tr BEFORE INSERT ON shop.t FOR EACH ROW SET NEW.a = NEW.a + 1",
    ];
    server::run(&mut session, &work).await;
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "shop"]).expect(0);
    let args =
        ["export", "latest", "--cluster", "shop", "--add-drop", "--no-users", "--output", "-"];
    let file = home.command([&args[..], &["--repo", "repo"]].concat()).output().unwrap().stdout;
    server::run(&mut session, &["DROP DATABASE shop"]).await;
    // Where nothing is, and over what is there.
    for _ in 0..2 {
        client(&server, &file);
        assert_eq!(server.value("SELECT shop.p.f()").await.as_deref(), Some("7"));
        let triggers =
            "SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_schema = 'shop'";
        assert_eq!(server.value(triggers).await.as_deref(), Some("1"));
    }
}

/// Wildcards choose what is restored, as they choose what is backed up.
#[tokio::test]
async fn patterns_choose_what_is_restored_and_verified() {
    let server = Server::with_shop("mariadb-10.11").await;
    let home = Home::with_repo();
    let url = server.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let content = server.content("shop").await;
    server::run(&mut server.session().await, &["DROP DATABASE shop"]).await;
    let restore = |more: &[&str]| {
        let mut args = vec!["restore", "--cluster", "shop", "--target", &url];
        args.extend(more);
        home.on_repo(args)
    };
    restore(&["--tables", "shop.none*"]).expect(2).says("nothing fits");
    // Its view has nothing to read from then.
    restore(&["--databases", "sh?p", "--exclude-tables", "*.ord*"]).expect(14);
    let tables = "SELECT GROUP_CONCAT(table_name) FROM information_schema.tables \
                  WHERE table_schema = 'shop' AND table_type = 'BASE TABLE'";
    assert_eq!(server.value(tables).await.as_deref(), Some("customers"));
    restore(&["--tables", "*.orders"]).expect(0);
    assert_eq!(server.content("shop").await, content);
    let run = home.on_repo(["verify", "--cluster", "shop", "--level", "logical"]).expect(0);
    assert!(run.stdout.contains("logical: ok"), "{run:?}");
}

#[tokio::test]
async fn what_documents_hold_is_in_the_file_too() {
    let server = Server::with_shop("mysql-9.7").await;
    let mut session = server.session().await;
    let statements = [
        "CREATE TABLE shop.documents (id INT PRIMARY KEY, j JSON)",
        "INSERT INTO shop.documents VALUES (1, JSON_OBJECT('price', 1.50, 'sum', 2.5, 'at', CAST('2024-02-29' AS DATETIME)))",
    ];
    server::run(&mut session, &statements).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "shop"]).expect(0);
    let types = "SELECT CONCAT_WS(' ', j, JSON_TYPE(j->'$.price'), JSON_TYPE(j->'$.sum'), JSON_TYPE(j->'$.at')) FROM \
                 shop.documents";
    let before = server.value(types).await.unwrap();
    assert!(before.ends_with("DECIMAL DECIMAL DATETIME"), "{before}");
    let file = home.path("shop.sql");
    home.on_repo(["export", "latest", "--output", file.to_str().unwrap(), "--no-users"]).expect(0);
    server::run(&mut session, &["DROP DATABASE shop"]).await;
    client(&server, &std::fs::read(file).unwrap());
    assert_eq!(server.value(types).await.unwrap(), before);

    // Whoever reads a pipe may go away.
    let mut command = home.command(["export", "latest", "--repo", "repo", "--output", "-"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let run = crate::home::Run::from(child.wait_with_output().unwrap());
    run.expect(9).says("whatever reads standard output has ended");
}
