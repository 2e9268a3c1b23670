//! Single tables out of backups of data files, as files: imported by a server that goes on running.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rstest::rstest;

use super::{fill, number, on, transfers};
use crate::home::{Home, Run};
use crate::server::{self, Server, install};

/// Tables of kinds that move as files.
const KINDS: [&str; 14] = [
    "CREATE TABLE bank.split_up (id INT AUTO_INCREMENT PRIMARY KEY, t VARCHAR(50), INDEX (t)) PARTITION BY RANGE (id) \
     SUBPARTITION BY HASH (id) SUBPARTITIONS 2 (PARTITION low VALUES LESS THAN (100), PARTITION high VALUES LESS THAN MAXVALUE)",
    "INSERT INTO bank.split_up (t) SELECT seq FROM bank.seq_1_to_300",
    "CREATE TABLE bank.places (id INT PRIMARY KEY, p POINT NOT NULL, SPATIAL INDEX (p))",
    "INSERT INTO bank.places SELECT seq, POINT(seq, seq % 7) FROM bank.seq_1_to_300",
    "CREATE TABLE bank.derived (id INT AUTO_INCREMENT PRIMARY KEY, v INT, g INT AS (v * 2) VIRTUAL, INDEX (g))",
    "INSERT INTO bank.derived (v) SELECT seq FROM bank.seq_1_to_500",
    "CREATE TABLE bank.child (id INT PRIMARY KEY, a INT, FOREIGN KEY (a) REFERENCES bank.accounts (id))",
    "INSERT INTO bank.child SELECT seq, seq % 50 FROM bank.seq_1_to_100",
    "CREATE TABLE bank.grown (id INT PRIMARY KEY, t TEXT)",
    "INSERT INTO bank.grown SELECT seq, REPEAT('g', 9000) FROM bank.seq_1_to_90",
    "ALTER TABLE bank.grown ADD COLUMN more VARCHAR(20) DEFAULT 'later', ALGORITHM=INSTANT",
    "CREATE TABLE bank.dense (id INT PRIMARY KEY, t TEXT) PAGE_COMPRESSED=1",
    "INSERT INTO bank.dense SELECT seq, REPEAT('d', 3000) FROM bank.seq_1_to_90",
    "CREATE TRIGGER bank.counted AFTER INSERT ON bank.packed FOR EACH ROW UPDATE bank.derived SET v = 0 WHERE id = 1",
];

/// Definition and content of tables.
async fn all(server: &Server, tables: &[&str]) -> Vec<(String, String)> {
    let mut session = server.session().await;
    let mut found = Vec::new();
    for table in tables {
        let create: Option<(String, String)> =
            session.query_first(&format!("SHOW CREATE TABLE {table}")).await.unwrap();
        // That of virtual columns is another one each time.
        let sum = match table.ends_with(".derived") {
            true => {
                format!("SELECT '{table}', BIT_XOR(CRC32(CONCAT_WS(',', id, v, g))) FROM {table}")
            }
            false => format!("CHECKSUM TABLE {table} EXTENDED"),
        };
        let sum: Option<(String, Option<u64>)> = session.query_first(&sum).await.unwrap();
        let check: Vec<(String, String, String, String)> =
            session.query_rows(&format!("CHECK TABLE {table} EXTENDED")).await.unwrap();
        assert!(check.iter().all(|(.., text)| text == "OK"), "{check:?}");
        found.push((create.unwrap().1, format!("{sum:?}")));
    }
    found
}

fn cfg_files(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|e| e == "cfg")).count()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn tables_of_a_busy_mariadb_come_back_as_files(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let home = Home::with_repo();
    let data = home.path("data");
    let mut server = on(name, &data).await;
    let mut session = server.session().await;
    fill(&mut session).await;
    server::run(&mut session, &KINDS).await;
    let (url, tool) = (server.url(), install(name));
    let tool = tool.to_str().unwrap();
    let take = |kind: &str| {
        let args = ["backup", "--strategy", "physical", "--type", kind, "--source", &url];
        let more = ["--cluster", "bank", "--tool", tool, "--json"];
        let document = home.on_repo([&args[..], &more].concat()).expect(0).json();
        document["backup"].as_str().unwrap().to_owned()
    };
    take("full");
    let change = [
        "UPDATE bank.packed SET t = REPEAT('changed', 50) WHERE id % 3 = 0",
        "DELETE FROM bank.places WHERE id % 5 = 0",
        "INSERT INTO bank.derived (v) SELECT v FROM bank.derived",
        // What a server reserves without using it, it forgets at its end.
        "ALTER TABLE bank.derived AUTO_INCREMENT = 5000",
    ];
    server::run(&mut session, &change).await;
    let increment = take("incremental");

    let tables = [
        "bank.packed",
        "bank.places",
        "bank.derived",
        "bank.child",
        "bank.grown",
        "bank.dense",
        "bank.split_up",
        "bank.words",
        "bank.old",
        "bank.moves",
    ];
    let before = all(&server, &tables).await;
    server::run(&mut session, &[&format!("DROP TABLE {}", tables.join(", "))]).await;
    let stop = Arc::new(AtomicBool::new(false));
    server::run(
        &mut session,
        &["CREATE TABLE bank.moves LIKE bank.accounts", "DROP TABLE bank.moves"],
    )
    .await;
    let list = tables.join(",");
    let restore = |more: &[&str]| -> Run {
        let args = [
            "restore",
            "-v",
            &increment,
            "--cluster",
            "bank",
            "--target",
            &url,
            "--server-dir",
            tool,
        ];
        home.on_repo([&args[..], more].concat())
    };
    let run = restore(&["--tables", &list, "--binlog", "off"]).expect(0);
    let run = run.says("8 tables were imported as files");
    let run = run.says("bank.words is moved row by row: its full-text indexes");
    let run = run.says("bank.old is moved row by row: it is not of InnoDB");
    assert!(!run.stderr.contains("holdfast_partition"), "{run:?}");
    assert_eq!(all(&server, &tables).await, before);
    assert_eq!(cfg_files(&data.join("bank")), 0);

    // Others write meanwhile, to other tables; and it comes back under another name.
    let load = tokio::spawn(transfers(server.0.socket(), Arc::clone(&stop)));
    let rename = ["--rename", "bank.packed=bank.packed_then", "--binlog", "off"];
    let run = restore(&[&["--tables", "bank.packed"][..], &rename].concat()).expect(14);
    let run = run.says("1 tables were imported as files");
    run.says("warning: the code of trigger bank.counted_packed_then still uses the old names");
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    let [now, then] = [&["bank.packed"], &["bank.packed_then"]];
    assert_eq!(
        all(&server, now).await[0].1.replace("packed", ""),
        all(&server, then).await[0].1.replace("packed_then", "")
    );
    // What is there is not touched without a word, and is replaced with it.
    restore(&["--tables", "bank.grown", "--binlog", "off"]).expect(9);
    restore(&["--tables", "bank.grown", "--binlog", "off", "--overwrite"])
        .expect(0)
        .says("1 tables were imported as files");

    // Into the binary log only rows go.
    restore(&["--tables", "bank.child", "--overwrite"])
        .expect(0)
        .says("--binlog off leaves them out");
    // The others wrote to the last one.
    let (calm, expected) = (&tables[..tables.len() - 1], &before[..before.len() - 1]);
    assert_eq!(all(&server, calm).await, expected);
    // They are the server's own now.
    server::run(
        &mut session,
        &["INSERT INTO bank.places VALUES (1000, POINT(1, 2))", "OPTIMIZE TABLE bank.derived"],
    )
    .await;
    server.0.stop().await.unwrap();
    let mut server = on(name, &data).await;
    let sql = "SELECT COUNT(*) FROM bank.places WHERE ST_Within(p, ST_Buffer(POINT(1, 2), 0.1))";
    assert_eq!(number(&server, sql).await, 1);
    server.0.stop().await.unwrap();
    let log = std::fs::read_to_string(server.0.error_log()).unwrap();
    assert!(!log.contains("[ERROR]"), "{log}");

    // A server of another series takes rows.
    let other = if name == "mariadb-10.11" { "mariadb-11.8" } else { "mariadb-10.11" };
    let other = Server::start(other).await;
    let url = other.url();
    let args =
        ["restore", "-v", &increment, "--cluster", "bank", "--target", &url, "--server-dir", tool];
    let more = ["--tables", "bank.accounts", "--binlog", "off"];
    // An older one is worth a warning.
    let code = if name == "mariadb-10.11" { 0 } else { 14 };
    let run = home.on_repo([&args[..], &more].concat()).expect(code);
    run.says("row by row: the target is MariaDB");
    assert_eq!(number(&other, "SELECT COUNT(*) FROM bank.accounts").await, super::ACCOUNTS);
}

/// What changed since the backup before is in an increment only, also a whole table.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn tables_of_an_increment_come_with_what_is_in_it_alone(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let home = Home::with_repo();
    let data = home.path("data");
    let mut server = on(name, &data).await;
    fill(&mut server.session().await).await;
    let (tool, mut url) = (install(name), server.url());
    let tool = tool.to_str().unwrap();
    let take = |kind: &str, url: &str| {
        let args = ["backup", "--strategy", "physical", "--type", kind, "--source", url];
        home.on_repo([&args[..], &["--cluster", "bank", "--tool", tool]].concat()).expect(0);
    };
    take("full", &url);
    let change = [
        "CREATE TABLE bank.fresh (id INT PRIMARY KEY, t TEXT)",
        "INSERT INTO bank.fresh SELECT seq, REPEAT('f', 3000) FROM bank.seq_1_to_300",
        "CREATE TABLE bank.fresh_parts (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 2",
        "INSERT INTO bank.fresh_parts SELECT seq FROM bank.seq_1_to_300",
        "CREATE TABLE bank.fresh_words (id INT PRIMARY KEY, t TEXT, FULLTEXT (t))",
        "INSERT INTO bank.fresh_words SELECT seq, 'fresh words' FROM bank.seq_1_to_300",
        "UPDATE bank.packed SET t = REPEAT('changed', 50)",
        "UPDATE bank.accounts SET v = v + id",
    ];
    server::run(&mut server.session().await, &change).await;
    // The redo log of the increment says nothing of them any more.
    server.0.stop().await.unwrap();
    let server = on(name, &data).await;
    url = server.url();
    let tables = ["packed", "accounts", "fresh", "fresh_parts", "fresh_words"];
    let tables = tables.map(|table| format!("bank.{table}"));
    let names = tables.iter().map(String::as_str).collect::<Vec<_>>();
    let before = all(&server, &names).await;
    take("incremental", &url);

    let list = tables.join(",");
    let args = ["restore", "-v", "--cluster", "bank", "--target", &url, "--server-dir", tool];
    let drop = format!("DROP TABLE {list}");
    for (binlog, says) in [("off", "4 tables were imported as files"), ("on", "")] {
        server::run(&mut server.session().await, &[&drop]).await;
        let run = home.on_repo([&args[..], &["--tables", &list, "--binlog", binlog]].concat());
        run.expect(0).says(says);
        assert_eq!(all(&server, &names).await, before);
    }

    // What is there when another one fails is named, and what becomes of it.
    server::run(&mut server.session().await, &[&drop, "DROP TABLE bank.old"]).await;
    std::fs::create_dir(data.join("bank/old.MYD")).unwrap();
    let more = ["--tables", "bank.fresh,bank.packed,bank.old", "--binlog", "off"];
    let run = home.on_repo([&args[..], &more].concat()).expect(9);
    let run = run.says("has a part: restored: bank.fresh, bank.packed; not restored: bank.old");
    run.says("restore again with --overwrite, which makes all of them anew");
    let marks = "SELECT COUNT(*) FROM information_schema.tables WHERE table_name LIKE 'holdfast%'";
    assert_eq!(number(&server, marks).await, 0);
    std::fs::remove_dir(data.join("bank/old.MYD")).unwrap();
    home.on_repo([&args[..], &more].concat()).expect(9).says("has already: table bank.fresh");
    home.on_repo([&args[..], &more, &["--overwrite"]].concat()).expect(0);
    assert_eq!(number(&server, "SELECT COUNT(*) FROM bank.old").await, 300);
    let compared = ["bank.fresh", "bank.packed"];
    let now = all(&server, &compared).await;
    assert_eq!(now, [before[2].clone(), before[0].clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_partitions_of_mysql_come_back_as_files() {
    let home = Home::with_repo();
    let data = home.path("data");
    let mut server = on("mysql-9.7", &data).await;
    let mut session = server.session().await;
    server::shop(&mut session).await;
    let kinds = [
        "CREATE TABLE shop.parts (id INT PRIMARY KEY, t VARCHAR(100)) PARTITION BY HASH(id) PARTITIONS 3",
        "INSERT INTO shop.parts SELECT id, HEX(LEFT(data, 30)) FROM shop.orders",
        "CREATE TABLE shop.packed (id INT PRIMARY KEY, t VARCHAR(100)) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8",
        "INSERT INTO shop.packed SELECT id, 'x' FROM shop.orders",
        "CREATE TABLE shop.places (id INT PRIMARY KEY, p POINT NOT NULL SRID 4326, SPATIAL INDEX (p))",
        "INSERT INTO shop.places SELECT id, ST_SRID(POINT(id % 90, 1), 4326) FROM shop.orders",
        "ALTER TABLE shop.packed ADD COLUMN more INT DEFAULT 4",
        "CREATE TABLE shop.words (id INT PRIMARY KEY, t TEXT, FULLTEXT (t))",
        "INSERT INTO shop.words SELECT id, 'some words' FROM shop.orders",
        "ALTER TABLE shop.orders AUTO_INCREMENT = 5000",
        "CREATE TABLE shop.carts (id INT PRIMARY KEY) ENGINE = MEMORY",
        "INSERT INTO shop.carts VALUES (1)",
    ];
    server::run(&mut session, &kinds).await;
    let tables = ["shop.orders", "shop.parts", "shop.packed", "shop.places", "shop.words"];
    let before = all(&server, &tables).await;
    session.close().await.unwrap();
    server.0.stop().await.unwrap();
    let url = format!("file://{}", data.display());
    let args = ["backup", "--strategy", "physical", "--source", &url, "--cluster", "shop"];
    home.on_repo(args).expect(0);

    let target = on("mysql-9.7", &home.path("target")).await;
    let (url, dir) = (target.url(), install("mysql-9.7"));
    let args = [
        "restore",
        "-v",
        "--cluster",
        "shop",
        "--target",
        &url,
        "--server-dir",
        dir.to_str().unwrap(),
    ];
    let more = ["--tables", &tables.join(","), "--binlog", "off"];
    let run = home.on_repo([&args[..], &more].concat()).expect(0);
    run.says("4 tables were imported as files").says("shop.words is moved row by row");
    assert_eq!(all(&target, &tables).await, before);
    assert_eq!(cfg_files(&home.path("target").join("shop")), 0);

    // What cannot be put in its place as a file comes row by row.
    server::run(&mut target.session().await, &["DROP TABLE shop.places"]).await;
    std::fs::create_dir(home.path("target/shop/places.cfg")).unwrap();
    let more = ["--tables", "shop.places", "--binlog", "off"];
    let run = home.on_repo([&args[..], &more].concat()).expect(0);
    run.says("shop.places is moved row by row: cannot write").says("0 tables were imported");
    assert_eq!(all(&target, &tables).await, before);
    assert!(home.path("target/shop/places.cfg").is_dir());

    // That no file has its rows is told.
    let more = ["--tables", "shop.carts", "--binlog", "off"];
    let run = home.on_repo([&args[..], &more].concat()).expect(14);
    run.says("shop.carts is of engine MEMORY, whose rows are in no file");
    assert_eq!(target.value("SELECT COUNT(*) FROM shop.carts").await.as_deref(), Some("0"));
}

/// What is moved as a file and what row by row have each its own names.
#[tokio::test(flavor = "multi_thread")]
async fn each_way_of_a_restore_has_the_new_names_that_it_needs() {
    let (home, name) = (Home::with_repo(), "mariadb-10.11");
    let source = on(name, &home.path("data")).await;
    let sql = [
        "CREATE DATABASE ra",
        "CREATE DATABASE rb",
        "CREATE TABLE ra.t (id INT PRIMARY KEY) SELECT seq AS id FROM ra.seq_1_to_10",
        "CREATE TABLE rb.words (id INT PRIMARY KEY, t TEXT, FULLTEXT (t)) SELECT 1 AS id, 'words' AS t",
    ];
    server::run(&mut source.session().await, &sql).await;
    let url = source.url();
    let args = ["backup", "--strategy", "physical", "--source", &url, "--cluster", "bank"];
    home.on_repo([&args[..], &["--lock-and-copy"]].concat()).expect(0);

    let target = on(name, &home.path("target")).await;
    let (url, dir) = (target.url(), install(name));
    let args = ["restore", "-v", "--cluster", "bank", "--target", &url, "--binlog", "off"];
    let dir = ["--server-dir", dir.to_str().unwrap(), "--tables", "ra.t,rb.words"];
    let restore = |rules: &[&str]| {
        let rules = rules.iter().flat_map(|rule| ["--rename", rule]);
        home.on_repo([&args[..], &dir, &Vec::from_iter(rules)].concat())
    };
    let both = "SELECT CONCAT((SELECT COUNT(*) FROM ra2.t), (SELECT t FROM rb2.words))";
    for rules in [["ra=ra2", "rb=rb2"], ["ra.t=ra2.t", "rb.words=rb2.words"]] {
        let run = restore(&rules).expect(0);
        run.says("1 tables were imported as files").says("rb.words is moved row by row");
        assert_eq!(target.value(both).await.as_deref(), Some("10words"));
        let drop = ["DROP DATABASE ra2", "DROP DATABASE rb2"];
        server::run(&mut target.session().await, &drop).await;
    }
    // One that is for nothing is still a mistake.
    restore(&["ra=ra2", "rc=rc2"]).expect(2).says("no database rc");
}

/// The file keeps the column of a full-text index that was dropped, and names of devices are others in the file system.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_cannot_move_as_files_come_row_by_row(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let home = Home::with_repo();
    let server = on(name, &home.path("data")).await;
    let mut session = server.session().await;
    let made = [
        "CREATE DATABASE w",
        "CREATE DATABASE con",
        "CREATE TABLE w.searched (id INT PRIMARY KEY, t TEXT)",
        "INSERT INTO w.searched VALUES (1, 'a b')",
        "ALTER TABLE w.searched ADD FULLTEXT KEY f (t)",
        "ALTER TABLE w.searched DROP KEY f",
        "CREATE TABLE w.CON (id INT PRIMARY KEY)",
        "INSERT INTO w.CON VALUES (2)",
        "CREATE TABLE con.plain (id INT PRIMARY KEY)",
        "INSERT INTO con.plain VALUES (3)",
    ];
    server::run(&mut session, &made).await;
    let tables = ["w.searched", "w.CON", "con.plain"];
    let before = all(&server, &tables).await;
    let (url, tool) = (server.url(), install(name));
    let tool = tool.to_str().unwrap();
    let backup = ["backup", "--strategy", "physical", "--source", &url, "--cluster", "w"];
    home.on_repo([&backup[..], &["--tool", tool]].concat()).expect(0);
    server::run(&mut session, &["DROP DATABASE w", "DROP DATABASE con"]).await;
    let restore = ["restore", "--cluster", "w", "--target", &url, "--binlog", "off"];
    let server_dir = ["--server-dir", tool];
    for table in tables {
        home.on_repo([&restore[..], &server_dir, &["--tables", table]].concat()).expect(0);
    }
    assert_eq!(all(&server, &tables).await, before);
    server::run(&mut session, &["DROP DATABASE con"]).await;
    home.on_repo([&restore[..], &server_dir, &["--databases", "con"]].concat()).expect(0);
    assert_eq!(all(&server, &tables).await, before);
}
