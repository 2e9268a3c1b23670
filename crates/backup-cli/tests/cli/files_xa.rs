//! Distributed transactions (XA) that are prepared while data files are copied: the copy holds them, and tables out of it
//! at a later point have what they committed.

use rstest::rstest;

use crate::home::Home;
use crate::server::{self, Server};

#[rstest]
#[case("mysql-9.7", &["--lock-and-copy"])]
#[case("mariadb-10.11", &["--lock-and-copy"])]
#[case("mariadb-10.11", &[])]
#[tokio::test]
async fn tables_at_a_point_have_what_was_prepared_before(#[case] name: &str, #[case] how: &[&str]) {
    let source = Server::start(name).await;
    let mut session = source.session().await;
    server::shop(&mut session).await;
    let home = Home::with_repo();
    let url = source.url();
    let tool = server::install(name);
    let tool = tool.to_str().unwrap();
    let prepare = [
        "CREATE TABLE shop.other (a INT PRIMARY KEY)",
        "XA START 'held', 'b', 7",
        "INSERT INTO shop.customers VALUES (4, 'n', NULL)",
        "XA END 'held', 'b', 7",
        "XA PREPARE 'held', 'b', 7",
    ];
    server::run(&mut session, &prepare).await;
    let backup = ["backup", "--source", &url, "--cluster", "shop", "--strategy", "physical"];
    home.on_repo(
        [&backup[..], how, &["--tool", tool][..if how.is_empty() { 2 } else { 0 }]].concat(),
    )
    .expect(0);
    let target = Server::start(name).await;
    let to = target.url();
    let restore = [
        "restore",
        "--cluster",
        "shop",
        "--tables",
        "shop.customers",
        "--target",
        &to,
        "--server-dir",
        tool,
    ];
    // As of the backup it is not committed, which is said, and counts.
    let run = home.on_repo(restore).expect(14);
    run.says("XA transactions are prepared").says("X'68656c64',X'62',7");
    let count = "SELECT COUNT(*) FROM shop.customers WHERE id = 4";
    assert_eq!(target.value(count).await.as_deref(), Some("0"));

    let committed = ["XA COMMIT 'held', 'b', 7", "INSERT INTO shop.other VALUES (1)"];
    server::run(&mut session, &committed).await;
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
    home.on_repo([&restore[..], &["--to-latest", "--overwrite"]].concat()).expect(0);
    assert_eq!(target.value(count).await.as_deref(), Some("1"));
    let sum = "SELECT COUNT(*) FROM shop.customers";
    assert_eq!(target.value(sum).await, source.value(sum).await);
}
