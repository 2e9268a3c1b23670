//! `kill -9` of a restore at random moments: run again it goes on, and every row is there once.

use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use backup_drivers::connect::Session;
use rstest::rstest;

use crate::home::Home;
use crate::server::{self, Server};

/// A table without a key, where a row too many would not be refused; one whose indexes are built
/// afterwards; one that cannot take anything back.
pub(crate) async fn fill(session: &mut Session) {
    let twice = |times: usize, table: &str, values: &str| {
        vec![format!("INSERT INTO shop.{table} SELECT {values} FROM shop.{table}"); times]
    };
    let mut statements = vec![
        "CREATE TABLE shop.heap_of_rows (v VARCHAR(20), data VARBINARY(200))".to_owned(),
        "INSERT INTO shop.heap_of_rows VALUES ('same', RANDOM_BYTES(180))".to_owned(),
        "CREATE TABLE shop.keyed (id INT AUTO_INCREMENT PRIMARY KEY, a INT, b VARCHAR(40), KEY a (a), KEY \
         b (b))"
            .to_owned(),
        "INSERT INTO shop.keyed (a, b) VALUES (1, 'x')".to_owned(),
        "CREATE TABLE shop.plain (v VARCHAR(20)) ENGINE=MyISAM".to_owned(),
        "INSERT INTO shop.plain VALUES ('x')".to_owned(),
    ];
    statements.extend(twice(15, "heap_of_rows", "v, RANDOM_BYTES(180)"));
    statements.extend(twice(15, "keyed", "NULL, a + 1, UUID()"));
    statements.extend(twice(12, "plain", "v"));
    statements.push("ANALYZE TABLE shop.heap_of_rows, shop.keyed".to_owned());
    for sql in &statements {
        session.run(sql).await.unwrap_or_else(|e| panic!("{}", e.report()));
    }
}

const TABLES: [&str; 5] = ["customers", "heap_of_rows", "keyed", "orders", "plain"];

/// What the tables hold.
pub(crate) async fn content(server: &Server, database: &str) -> Vec<Option<u64>> {
    let tables = TABLES.map(|table| format!("{database}.{table}")).join(", ");
    let mut session = server.session().await;
    let sums: Vec<(String, Option<u64>)> =
        session.query_rows(&format!("CHECKSUM TABLE {tables}")).await.unwrap();
    session.close().await.unwrap();
    sums.into_iter().map(|(_, sum)| sum).collect()
}

/// How large the redo log may be, and the least that a server takes. `None` on MariaDB.
const REDO: &str = "SELECT VARIABLE_VALUE FROM performance_schema.global_variables WHERE VARIABLE_NAME \
                    = 'innodb_redo_log_capacity'";
const SMALL: u64 = 8 << 20;

/// A restore of documents makes it larger on MySQL.
const PACKET: &str = "SELECT @@GLOBAL.max_allowed_packet";

async fn redo_size(server: &Server, mysql: bool) -> Option<u64> {
    if !mysql {
        return None;
    }
    server.value(REDO).await.map(|size| size.parse().unwrap())
}

/// Kills restores at `kills` moments, one in each part of the time that one takes, and runs each
/// again until it is done; some are killed twice.
async fn kill(name: &str, kills: u32) {
    let server = Server::with_shop(name).await;
    let mut session = server.session().await;
    fill(&mut session).await;
    let document =
        ["CREATE TABLE shop.document (j JSON)", "INSERT INTO shop.document VALUES ('[1, 2]')"];
    server::run(&mut session, &document).await;
    let mysql = name.starts_with("mysql");
    if mysql {
        let small = format!("SET GLOBAL innodb_redo_log_capacity = {SMALL}");
        server::run(&mut session, &[&small]).await;
    }
    let small = redo_size(&server, mysql).await;
    assert_eq!(small, mysql.then_some(SMALL));
    let packet = server.value(PACKET).await;
    let home = Home::with_repo();
    let url = server.url();
    let backup = ["backup", "--repo", "repo", "--source", &url, "--cluster", "shop", "--json"];
    home.run(backup).expect(0);
    let expected = content(&server, "shop").await;
    let restore = [
        "restore",
        "--repo",
        "repo",
        "--cluster",
        "shop",
        "--target",
        &url,
        "--rename",
        "shop=copy",
        "--json",
    ];
    let began = Instant::now();
    home.run(restore).expect(0);
    let mut duration = began.elapsed();
    assert_eq!(content(&server, "copy").await, expected);

    let mut killed = 0;
    let mut resumed = 0;
    let (mut grown, mut longer) = (0, 0);
    // At least one of them has to have begun to write.
    while killed < kills || (resumed == 0 && killed < 10 * kills) {
        server::run(&mut session, &["DROP DATABASE copy"]).await;
        let parts = duration * (killed % kills) / kills;
        let mut moment = parts + duration.mul_f64(rand::random()) / kills;
        let marks =
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_name LIKE 'holdfast%'";
        loop {
            let mut command = home.command(restore);
            let began = Instant::now();
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            while began.elapsed() < moment && child.try_wait().unwrap().is_none() {
                sleep(moment.saturating_sub(began.elapsed()).min(Duration::from_millis(2)));
            }
            let elapsed = began.elapsed();
            child.kill().unwrap();
            if child.wait().unwrap().success() {
                duration = duration.min(elapsed);
                break;
            }
            killed += 1;
            grown += u32::from(redo_size(&server, mysql).await > small);
            longer += u32::from(server.value(PACKET).await != packet);
            if rand::random() {
                moment = duration.mul_f64(rand::random());
                continue;
            }
            let plan: Vec<&str> = restore.into_iter().chain(["--dry-run"]).collect();
            // Unlike a restore, a look does not wait until the server has ended what the process that
            // was killed had asked for.
            let mut looked = home.run(plan.iter().copied());
            for _ in 0..50 {
                if looked.code == Some(0) {
                    break;
                }
                sleep(Duration::from_millis(100));
                looked = home.run(plan.iter().copied());
            }
            if looked.code == Some(9) && server.value(marks).await.as_deref() == Some("0") {
                // Its last act at the server was done already: everything is there, as is seen below.
                break;
            }
            let plan = looked.expect(0).json();
            resumed += u32::from(plan["steps"].to_string().contains("interrupted"));
            home.run(restore).expect(0);
            break;
        }
        assert_eq!(content(&server, "copy").await, expected, "killed after {moment:?}");
        assert_eq!(server.value(marks).await.as_deref(), Some("0"));
        assert_eq!(redo_size(&server, mysql).await, small, "killed after {moment:?}");
        assert_eq!(server.value(PACKET).await, packet, "killed after {moment:?}");
    }
    assert!(grown > 0 || !mysql, "the redo log was never made larger");
    assert_eq!(longer > 0, mysql, "packets were made longer, or not");
    assert!(resumed > 0, "of {killed} that were killed {resumed} had begun to write");
}

#[rstest]
#[tokio::test]
async fn a_killed_restore_goes_on(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    kill(name, 10).await;
}

#[rstest]
#[tokio::test]
#[ignore = "takes minutes"]
async fn a_killed_restore_goes_on_at_any_moment(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    kill(name, 30).await;
}
