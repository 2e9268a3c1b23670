//! Files below the data directory that a server has, or had, and that are not there: named, and never passed over.

use rstest::rstest;

use crate::files_locked::on;
use crate::home::{Home, Run};
use crate::server::{self, Server};
use crate::snapshots::pair;

/// Tables of all kinds, and what has no file and is none the worse for it.
async fn tables(server: &Server, mysql: bool) {
    let mut session = server.session().await;
    server::shop(&mut session).await;
    let sql = [
        "CREATE TABLE shop.parts (id INT PRIMARY KEY) PARTITION BY HASH(id) PARTITIONS 3",
        "CREATE TABLE shop.old (id INT PRIMARY KEY) ENGINE=MyISAM",
        "CREATE TABLE shop.`odd name/ä, and a long one of MyISAM` (id INT PRIMARY KEY) ENGINE=MyISAM",
        "CREATE TABLE shop.words (id INT PRIMARY KEY, t TEXT, FULLTEXT (t))",
        "CREATE TABLE shop.csv (id INT NOT NULL) ENGINE=CSV",
        "CREATE TABLE shop.packed (id INT PRIMARY KEY) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8",
        "CREATE TABLE shop.apart (id INT PRIMARY KEY)",
        "ALTER TABLE shop.apart DISCARD TABLESPACE",
        "CREATE TABLE shop.gone (id INT PRIMARY KEY)",
        "DROP TABLE shop.gone",
        "SET GLOBAL innodb_file_per_table = OFF",
        "CREATE TABLE shop.inside (id INT PRIMARY KEY)",
        "SET GLOBAL innodb_file_per_table = ON",
    ];
    server::run(&mut session, &sql).await;
    let more: &[&str] = match mysql {
        true => &[
            "CREATE TABLESPACE gts ADD DATAFILE 'gts.ibd'",
            "CREATE TABLE shop.general (id INT PRIMARY KEY) TABLESPACE gts",
            "CREATE UNDO TABLESPACE more ADD DATAFILE 'more.ibu'",
            "CREATE TABLE shop.stored (id INT) ENGINE=ARCHIVE",
        ],
        false => &[
            "CREATE TABLE shop.aria (id INT PRIMARY KEY) ENGINE=Aria",
            "CREATE TABLE shop.aparts (id INT PRIMARY KEY) ENGINE=Aria PARTITION BY HASH(id) PARTITIONS 2",
            "CREATE SEQUENCE shop.numbers",
        ],
    };
    server::run(&mut session, more).await;
    // So many that the dictionary has more pages than one.
    let many: Vec<String> = (0..150)
        .map(|n| format!("CREATE TABLE shop.a_table_of_a_long_name_{n} (id INT PRIMARY KEY)"))
        .collect();
    server::run(&mut session, &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    session.close().await.unwrap();
}

fn cold(home: &Home, source: &str, more: &[&str]) -> Run {
    let args = ["backup", "--strategy", "physical", "--source", source, "--cluster", "shop"];
    home.on_repo([&args[..], more].concat())
}

#[rstest]
#[tokio::test]
async fn a_stopped_server_without_one_of_its_files_is_refused(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let mysql = name.starts_with("mysql");
    let home = Home::with_repo();
    let data = home.path("data");
    let source = format!("file://{}", data.display());
    let mut server = on(name, &data, &[]).await;
    tables(&server, mysql).await;
    server.0.stop().await.unwrap();
    let check = ["check", "--strategy", "physical", "--source", &source];
    assert!(!home.on_repo(check).expect(0).stdout.contains("missing"));
    let run = cold(&home, &source, &[]).expect(0);
    assert!(!run.stderr.contains("missing"), "{run:?}");

    let both = ["shop/orders.ibd", "shop/a_table_of_a_long_name_149.ibd", "shop/old.MYI"];
    let odd = "shop/odd@0020name@002f@0k@002c@0020and@0020a@0020long@0020one@0020of@0020MyISAM.MYD";
    let own = match mysql {
        true => {
            &["undo_001", "more.ibu", "gts.ibd", "shop/parts#p#p1.ibd", "shop/stored.ARZ", odd][..]
        }
        false => {
            &["shop/orders.frm", "shop/parts#P#p1.ibd", "shop/aria.MAD", "shop/numbers.ibd", odd]
        }
    };
    let away = home.path("away");
    for file in both.iter().chain(own) {
        std::fs::rename(data.join(file), &away).unwrap();
        let said = home.on_repo(check).expect(6).stdout;
        assert!(said.contains(&format!("missing: {file}")), "{said}");
        cold(&home, &source, &[]).expect(6).says(&format!("missing: {file}"));
        std::fs::rename(&away, data.join(file)).unwrap();
    }

    // It may be what the server was about to drop when it was killed.
    let mut server = on(name, &data, &[]).await;
    server.value("SELECT COUNT(*) FROM shop.orders").await;
    server.0.kill();
    std::fs::remove_file(data.join("shop/orders.ibd")).unwrap();
    cold(&home, &source, &["--allow-unclean"]).expect(14).says("missing: shop/orders.ibd");
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_server_that_reads_a_file_which_was_taken_away_is_refused(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let mysql = name.starts_with("mysql");
    let home = Home::with_repo();
    let data = home.path("data");
    let server = on(name, &data, &[]).await;
    tables(&server, mysql).await;
    let url = server.url();
    let (create, remove) = pair::of_one_moment(&home, &server);
    let locked = ["--strategy", "physical", "--lock-and-copy"];
    let snapshot = [
        "--strategy",
        "snapshot",
        "--snapshot-create",
        create.to_str().unwrap(),
        "--snapshot-remove",
        remove.to_str().unwrap(),
        "--snapshot-notes",
        "notes",
    ];
    let take = |way: &[&str], command: &str| {
        let args: &[&str] = match command {
            "check" => &["check", "--source", &url],
            _ => &["backup", "--cluster", "shop", "--source", &url],
        };
        tokio::task::block_in_place(|| home.on_repo([args, way].concat()))
    };
    let run = take(&locked, "backup").expect(0);
    assert!(!run.stderr.contains("missing"), "{run:?}");
    take(&snapshot, "backup").expect(0);

    let own = if mysql { "shop/parts#p#p1.ibd" } else { "shop/orders.frm" };
    for file in ["shop/orders.ibd", "shop/old.MYD", own] {
        let away = home.path("away");
        std::fs::rename(data.join(file), &away).unwrap();
        for way in [&locked[..], &snapshot] {
            let missing = format!("missing: {file}");
            let check = take(way, "check").expect(6);
            assert!(format!("{check:?}").contains(&missing), "{check:?}");
            take(way, "backup").expect(6).says(&missing).says("--strategy logical");
        }
        assert_eq!(server.value("SELECT COUNT(*) FROM shop.orders").await.as_deref(), Some("512"));
        std::fs::rename(&away, data.join(file)).unwrap();
    }
}
