//! Data files of a server that had GTIDs once, brought to a point by binlogs without any.

use rstest::rstest;

use crate::files_point::{How, content, on};
use crate::home::Home;
use crate::server::{self, install};

/// A MySQL whose transactions had GTIDs once, and have none any more: its files have both.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gtids_that_were_switched_off(#[values(How::Cold, How::Locked, How::Clone)] how: How) {
    let name = "mysql-9.7";
    let home = Home::with_repo();
    let data = home.path("data");
    let off = [
        "SET GLOBAL gtid_mode = ON_PERMISSIVE",
        "SET GLOBAL gtid_mode = OFF_PERMISSIVE",
        "SET GLOBAL gtid_mode = OFF",
        "FLUSH BINARY LOGS",
    ];
    let mut source = on(name, &data).await;
    let mut session = source.session().await;
    server::shop(&mut session).await;
    server::run(&mut session, &off).await;
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (4, 'd', NULL)"]).await;
    let url = source.url();
    let file = format!("file://{}", data.display());
    let backup = |args: &[&str]| {
        home.on_repo([&["backup", "--cluster", "shop"], args].concat()).expect(0);
    };
    match how {
        How::Locked => backup(&["--strategy", "physical", "--source", &url, "--lock-and-copy"]),
        How::Clone => {
            server::run(&mut session, &["INSTALL PLUGIN clone SONAME 'mysql_clone.so'"]).await;
            backup(&["--strategy", "clone", "--source", &url]);
        }
        _ => {
            source.0.stop().await.unwrap();
            backup(&["--strategy", "physical", "--source", &file]);
            source = on(name, &data).await;
            session = source.session().await;
            server::run(&mut session, &off).await;
        }
    }
    let later = [
        "INSERT INTO shop.customers VALUES (5, 'e', NULL)",
        "DELETE FROM shop.customers WHERE id = 1",
        // The last file has no transaction.
        "FLUSH BINARY LOGS",
    ];
    server::run(&mut session, &later).await;
    let url = source.url();
    let archive = ["binlog", "backup", "--source", &url, "--cluster", "shop"];
    let all = [&archive[..], &["--from", "oldest"]].concat();
    if how == How::Locked {
        home.on_repo(all.clone()).expect(6).says("SET GLOBAL gtid_mode = OFF_PERMISSIVE");
        server::run(&mut session, &["SET GLOBAL gtid_mode = OFF_PERMISSIVE"]).await;
        home.on_repo(all).expect(0);
    } else {
        home.on_repo(archive).expect(0);
    }

    let (server_dir, target) = (install(name), home.path("target"));
    let to =
        ["--target-dir", target.to_str().unwrap(), "--server-dir", server_dir.to_str().unwrap()];
    let restore = ["restore", "--cluster", "shop", "--to-latest"];
    home.on_repo([&restore[..], &to].concat()).expect(0);
    let restored = on(name, &target).await;
    assert_eq!(content(&restored).await, content(&source).await);
    // Nothing tells how far a server without GTIDs has come.
    let there = restored.url();
    let apply = ["binlog", "apply", "--cluster", "shop", "--target", &there, "--to-latest"];
    home.on_repo(apply).expect(10).says("`holdfast restore` goes to the point at once");
}
