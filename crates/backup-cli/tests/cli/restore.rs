use std::io::Write;

use rstest::rstest;

use crate::backup::SmallDisk;
use crate::home::{Home, Run};
use crate::server::{self, PASSWORD, Server};

#[rstest]
#[tokio::test]
async fn what_was_backed_up_comes_back(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let server = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = server.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let content = server.content("shop").await;
    let restore = |more: &[&str]| {
        let mut args = vec!["restore", "--cluster", "shop", "--target", &url];
        args.extend(more);
        home.on_repo(args)
    };

    // A target with data in it is left alone.
    server::run(&mut server.session().await, &["DELETE FROM shop.orders WHERE id > 100"]).await;
    let changed = server.content("shop").await;
    let run = restore(&["--json"]).expect(9);
    assert_eq!(run.json()["error"]["kind"], "target");
    assert_eq!(server.content("shop").await, changed);

    // A plan changes nothing, and says what would be destroyed.
    let plan = restore(&["--overwrite", "--dry-run", "--json"]).expect(0).json();
    assert!(!plan["steps"].as_array().unwrap().is_empty(), "{plan:#}");
    let destroys = plan["destroys"].to_string();
    assert!(destroys.contains("shop.orders") && destroys.contains("shop.customers"), "{plan:#}");
    let text = restore(&["--overwrite", "--dry-run"]).expect(0).stdout;
    assert!(text.contains("This destroys:") && text.ends_with("Nothing was done.\n"), "{text}");
    assert_eq!(server.content("shop").await, changed);

    // Beside what is there.
    for (one, other) in [("shop=copy", "shop=other"), ("shop.orders=a.b", "shop.orders=a.c")] {
        let run = restore(&["--rename", one, "--rename", other]).expect(2);
        run.says("two new names are given for shop");
    }
    let document = restore(&["--rename", "shop=copy", "--threads", "2", "--json"]).expect(0).json();
    assert_eq!(document["rows"], 515, "{document:#}");
    assert!(document["bytes"].as_u64().unwrap() > 500_000, "{document:#}");
    assert!(document["duration_seconds"].is_number() && document["target"].is_string());
    assert!(document["reached"]["gtid"].is_string() && document["reached"]["time"].is_null());
    assert_eq!(server.content("copy").await, content);

    // Over what is there.
    let run = restore(&["--overwrite"]).expect(0);
    assert!(run.stdout.contains("515 rows"), "{run:?}");
    assert_eq!(server.content("shop").await, content);

    // A single table, and nothing else.
    server::run(&mut server.session().await, &["DROP DATABASE shop"]).await;
    restore(&["--tables", "shop.customers"]).expect(0);
    let tables = "SELECT GROUP_CONCAT(table_name) FROM information_schema.tables \
                  WHERE table_schema = 'shop'";
    assert_eq!(server.value(tables).await.as_deref(), Some("customers"));
}

#[tokio::test]
async fn the_target_has_a_password_of_its_own() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "shop"]).expect(0);
    let target = Server::start("mysql-9.7").await;
    server::backup_account(&mut target.session().await).await;
    let url = target.tcp_url("backup");
    let restore = |variable: &str| {
        let args = ["restore", "--repo", "repo", "--cluster", "shop", "--target", &url];
        Run::of(home.command(args).env(variable, PASSWORD)).hides(PASSWORD)
    };
    restore("HOLDFAST_SOURCE_PASSWORD").expect(3).says("1045");
    restore("HOLDFAST_TARGET_PASSWORD").expect(0);
    assert_eq!(target.content("shop").await, server.content("shop").await);
}

#[tokio::test]
async fn what_is_not_in_the_backup_cannot_be_restored() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    let url = server.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let args = ["restore", "--cluster", "shop", "--target", &url, "--tables", "shop.nothing"];
    home.on_repo(args).expect(2).says("shop.nothing");
}

/// Who moves to the other family learns of everything that is in the way, not of one thing after the other.
#[tokio::test]
async fn all_that_a_target_cannot_take_is_said_at_once() {
    let (source, target) = (Server::start("mariadb-10.11").await, Server::start("mysql-9.7").await);
    let tables = [
        "CREATE DATABASE d",
        "CREATE TABLE d.named (id UUID PRIMARY KEY)",
        "CREATE TABLE d.versioned (i INT PRIMARY KEY) WITH SYSTEM VERSIONING",
        "CREATE SEQUENCE d.numbers",
    ];
    server::run(&mut source.session().await, &tables).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &source.url(), "--cluster", "c"]).expect(0);
    let url = target.url();
    for more in [&[][..], &["--dry-run"]] {
        let args = ["restore", "--cluster", "c", "--target", &url];
        let run = home.on_repo([&args[..], more].concat()).expect(9);
        let run = run.says("has no type uuid").says("has no sequences");
        let run = run.says("has no system-versioned tables");
        assert_eq!(run.stderr.matches("restore to a server that has it").count(), 1, "{run:?}");
    }
    let there = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'd'";
    assert_eq!(target.value(there).await.as_deref(), Some("0"));
}

/// A copy of a child beside its live parent is tied to that one.
#[rstest]
#[tokio::test]
async fn a_copy_that_refers_to_a_live_table_is_told_of(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::start(name).await;
    let tables = [
        "CREATE DATABASE d",
        "CREATE TABLE d.parent (id INT PRIMARY KEY)",
        "CREATE TABLE d.child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES d.parent (id))",
        "INSERT INTO d.parent VALUES (1)",
        "INSERT INTO d.child VALUES (1, 1)",
    ];
    server::run(&mut server.session().await, &tables).await;
    let home = Home::with_repo();
    let url = server.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "c"]).expect(0);
    let restore = |more: &[&str]| {
        home.on_repo([&["restore", "--cluster", "c", "--target", &url], more].concat())
    };
    for (rename, copy) in [("d.child=d.copy", "d.copy"), ("d=e", "e.child")] {
        let told =
            format!("{copy}: its foreign key refers to d.parent, which is not restored with it");
        let child = ["--tables", "d.child", "--rename", rename];
        let plan = restore(&[&child[..], &["--dry-run"]].concat()).expect(0).stdout;
        assert!(plan.contains(&told), "{plan}");
        restore(&[&child[..], &["-v"]].concat()).expect(0).says(&told);
    }
    // Both together have nothing to do with it.
    let both = restore(&["--tables", "d.parent,d.child", "--rename", "d=f", "-v"]).expect(0);
    assert!(!both.stderr.contains("not restored with it"), "{both:?}");
    let foreign = "SELECT GROUP_CONCAT(referenced_table_schema) FROM \
                   information_schema.key_column_usage WHERE table_schema = 'f' AND \
                   referenced_table_name = 'parent'";
    assert_eq!(server.value(foreign).await.as_deref(), Some("f"));
}

/// Rows that found no room are loaded by the same command when there is some; those before them are not loaded again.
#[rstest]
#[case("mysql-9.7", "innodb_redo_log_capacity")]
#[case("mariadb-11.8", "innodb_log_file_size")]
#[tokio::test]
async fn a_target_that_was_full_is_gone_on_with(#[case] name: &str, #[case] log_size: &str) {
    let source = Server::with_shop(name).await;
    server::double_orders(&mut source.session().await, 6).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &source.url(), "--cluster", "shop"]).expect(0);
    let disk = SmallDisk::mount(&home.path("small"), "400m");
    let cx = backup_core::Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap();
    let builder = builder.datadir(home.path("small/data")).binary_log(false);
    let builder = builder.option(log_size, "8M");
    let mut target = Server(builder.start(&cx).await.unwrap());
    // All but some of the room is taken.
    let mut filler = std::fs::File::create(home.path("small/filler")).unwrap();
    let left = || {
        let stat = rustix::fs::statvfs(home.path("small")).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    while left() > 16 << 20 {
        filler.write_all(&[0; 1 << 20]).unwrap();
    }

    let url = target.url();
    let restore = || home.on_repo(["restore", "--cluster", "shop", "--target", &url]);
    let run = restore().expect(5).says("is left half restored").says("it goes on where it stopped");
    assert!(run.stderr.contains("is full") || run.stderr.contains("No space"), "{run:?}");
    filler.set_len(0).unwrap();
    restore().expect(0);
    assert_eq!(target.content("shop").await, source.content("shop").await);
    target.0.stop().await.unwrap();
    drop(disk);
}

/// Rows and indexes are sorted in files of the directory for temporary files. MariaDB may lose all rows there without
/// a word, and takes them one by one then; what is told is told as what it is.
#[rstest]
#[case("mysql-9.7", "4m", 5)]
#[case("mariadb-10.11", "14m", 0)]
#[case("mariadb-11.8", "14m", 0)]
#[case("mariadb-11.8", "4m", 5)]
#[tokio::test]
async fn no_room_for_temporary_files_is_told_and_costs_no_row(
    #[case] name: &str,
    #[case] room: &str,
    #[case] code: i32,
) {
    let home = Home::with_repo();
    let disk = SmallDisk::mount(&home.path("small"), "400m");
    let cx = backup_core::Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap();
    let tmpdir = home.path("small").display().to_string();
    let builder = builder.binary_log(false).option("tmpdir", tmpdir);
    let mut server = Server(builder.start(&cx).await.unwrap());
    let deep = match name.starts_with("mysql") {
        true => "SET SESSION cte_max_recursion_depth = 200000",
        false => "SET SESSION max_recursive_iterations = 200000",
    };
    let statements = [
        deep,
        "CREATE DATABASE big CHARACTER SET latin1",
        "USE big",
        "CREATE TABLE big.t (id INT PRIMARY KEY, a VARCHAR(60), b VARCHAR(60), c INT, d VARCHAR(80), KEY a (a), KEY b \
         (b), KEY c (c))",
        "INSERT INTO big.t WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 150000) \
         SELECT n, LEFT(SHA2(n, 256), 32), LEFT(SHA2(n + 7, 256), 32), n * 7, SHA2(n, 256) FROM s",
    ];
    server::run(&mut server.session().await, &statements).await;
    let url = server.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "big", "--databases", "big"]).expect(0);
    disk.resize(room);

    let arguments = ["restore", "--cluster", "big", "--target", &url, "--rename", "big=copy"];
    let run = home.on_repo(arguments).expect(code);
    if code != 0 {
        run.says("innodb_tmpdir").says("it goes on where it stopped");
        disk.resize("400m");
        home.on_repo(arguments).expect(0);
    }
    let mut session = server.session().await;
    let sums: Vec<(String, Option<u64>)> =
        session.query_rows("CHECKSUM TABLE big.t, copy.t").await.unwrap();
    assert!(sums[0].1.is_some() && sums[0].1 == sums[1].1, "{sums:?}");
    session.close().await.unwrap();
    server.0.stop().await.unwrap();
    drop(disk);
}

/// Nobody else looks whether rows of the others still have what they refer to.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_puts_a_parent_back_is_told_of_its_children(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let home = Home::with_repo();
    let server = Server::start(name).await;
    let tables = [
        "CREATE DATABASE f",
        "CREATE TABLE f.parent (id INT PRIMARY KEY)",
        "CREATE TABLE f.child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES f.parent (id))",
    ];
    let mut session = server.session().await;
    server::run(&mut session, &tables).await;
    let url = server.url();
    home.on_repo(["backup", "--cluster", "f", "--source", &url]).expect(0);
    let rows = ["INSERT INTO f.parent VALUES (5)", "INSERT INTO f.child VALUES (5, 5)"];
    server::run(&mut session, &rows).await;
    let restore = ["restore", "--cluster", "f", "--target", &url, "--overwrite", "--tables"];
    let told = "f.child of the target refers to it and is not restored with it";
    for more in [&["--dry-run"][..], &[]] {
        let run = home.on_repo([&restore[..], &["f.parent"], more].concat()).expect(14);
        assert!(format!("{run:?}").contains(told), "{run:?}");
    }
    let both = home.on_repo([&restore[..], &["f.parent,f.child"]].concat()).expect(0);
    assert!(!format!("{both:?}").contains("of the target refers"), "{both:?}");
}
