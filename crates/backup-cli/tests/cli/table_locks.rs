//! Tables without transactions: locked until they are read, and labelled where they could not be, or not
//! for long enough.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use rstest::rstest;

use crate::home::{Home, Run};
use crate::server::{self, Server};

const FILL: [&str; 3] = [
    "CREATE TABLE shop.slow (id INT PRIMARY KEY) ENGINE=MyISAM",
    "INSERT INTO shop.slow WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 100) SELECT n FROM s",
    "CREATE TABLE shop.empty (id INT PRIMARY KEY) ENGINE=MyISAM",
];

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn writers_of_tables_that_take_too_long_are_let_go_on(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::with_shop(name).await;
    server::run(&mut server.session().await, &FILL).await;
    let home = Home::with_repo();
    let url = server.url();
    // Five seconds and more for a hundred rows.
    let backup = [
        "backup",
        "--repo",
        "repo",
        "--cluster",
        "c",
        "--source",
        &url,
        "--json",
        "--table-lock-timeout",
        "1",
        "--where",
        "shop.slow:SLEEP(0.05) = 0",
    ];
    let mut command = home.command(backup);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let reading = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%`slow`%SLEEP(0.05)%ORDER BY%' \
                   AND info NOT LIKE '%processlist%'";
    while server.value(reading).await.as_deref() == Some("0") {
        assert!(child.try_wait().unwrap().is_none(), "the backup never read the table");
        sleep(Duration::from_millis(20));
    }
    // It waits for the lock, and not for the backup.
    server::run(&mut server.session().await, &["INSERT INTO shop.empty VALUES (1)"]).await;
    assert!(child.try_wait().unwrap().is_none(), "the writer waited for the whole backup");
    let run = Run::from(child.wait_with_output().unwrap()).expect(14);
    assert!(
        run.stderr.contains("before --table-lock-timeout was over: shop.slow (MyISAM)"),
        "{run:#?}"
    );
    let shown = home.on_repo(["show", "latest", "--json"]).expect(0).json();
    assert_eq!(shown["consistency"]["level"], "transactional", "{shown:#}");
}

#[rstest]
#[tokio::test]
async fn tables_that_may_not_be_locked_are_labelled(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::with_shop(name).await;
    let mut session = server.session().await;
    server::run(&mut session, &FILL).await;
    let (position, routines) = match name.starts_with("mysql") {
        true => ("REPLICATION CLIENT", "GRANT SHOW_ROUTINE ON *.* TO part@'%'"),
        false => ("BINLOG MONITOR", "GRANT SELECT ON mysql.proc TO part@'%'"),
    };
    let grant =
        format!("GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, RELOAD, {position} ON *.* TO part@'%'");
    server::run(&mut session, &["CREATE USER part@'%' IDENTIFIED BY 'part'", routines, &grant])
        .await;
    let home = Home::with_repo();
    let url = server.tcp_url("part");
    let mut command =
        home.command(["backup", "--repo", "repo", "--cluster", "c", "--source", &url]);
    let run = Run::of(command.env("HOLDFAST_SOURCE_PASSWORD", "part")).expect(14);
    assert!(
        run.stderr.contains("for the account may not lock them: shop.empty (MyISAM), shop.slow"),
        "{run:#?}"
    );
}
