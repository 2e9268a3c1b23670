//! A server under load, with sums that are always the same.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::Context;
use backup_drivers::sandbox::Sandbox;
use tokio::task::JoinHandle;

use crate::server::{self, Server};

/// Money moves between accounts, and each move is noted in the same transaction.
const TABLES: [&str; 8] = [
    "CREATE DATABASE bank",
    "CREATE TABLE bank.accounts (id INT PRIMARY KEY, money BIGINT NOT NULL)",
    "CREATE TABLE bank.moves (id BIGINT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(200))",
    "CREATE TABLE bank.log (id BIGINT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(200)) ENGINE=MyISAM",
    "CREATE TABLE bank.bulk (id INT PRIMARY KEY, data VARBINARY(4000))",
    "INSERT INTO bank.accounts SELECT seq, 1000 FROM bank.seq_1_to_100",
    "INSERT INTO bank.bulk SELECT seq, REPEAT(RANDOM_BYTES(1000), 4) FROM bank.seq_1_to_2000",
    "INSERT INTO bank.bulk SELECT seq + 10000, REPEAT(RANDOM_BYTES(1000), 4) FROM bank.seq_1_to_2000",
];

/// Starts a server on a copy of a data directory, in a kernel without asynchronous I/O.
pub(super) async fn start(data: &Path) -> Server {
    let cx = Context::builder().build();
    let install = xtask::servers::install("mariadb-10.11").unwrap();
    let builder = Sandbox::builder(&install)
        .datadir(data)
        .option("innodb_use_native_aio", "0")
        .option("innodb_buffer_pool_size_max", "64M")
        .durable(true);
    Server(builder.start(&cx).await.unwrap())
}

/// Makes the tables. Gives the number of the last transaction.
pub(super) async fn make(server: &Server) -> u64 {
    server::run(&mut server.session().await, &TABLES).await;
    sequence(&server.value("SELECT @@gtid_binlog_pos").await.unwrap())
}

/// `0-1-4711` is 4711.
pub(super) fn sequence(gtid: &str) -> u64 {
    gtid.rsplit('-').next().unwrap().parse().unwrap()
}

/// Connections that write until they are told to stop.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    pub(super) async fn begin(server: &Server) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for writer in 0..2_u32 {
            let mut session = server.session().await;
            let stop = Arc::clone(&stop);
            writers.push(tokio::spawn(async move {
                // It ends by itself, whatever the test does.
                for n in (0..200_000_u32).take_while(|_| !stop.load(Ordering::Relaxed)) {
                    let (from, to) = (n * 7 % 100 + 1, (n * 13 + writer) % 100 + 1);
                    let sql = [
                        "BEGIN".to_owned(),
                        format!("UPDATE bank.accounts SET money = money - 3 WHERE id = {from}"),
                        format!("UPDATE bank.accounts SET money = money + 3 WHERE id = {to}"),
                        format!("INSERT INTO bank.moves (note) VALUES ('{writer} {n}')"),
                        "COMMIT".to_owned(),
                    ];
                    for sql in sql {
                        // A deadlock between the two took the transaction back.
                        if session.run(&sql).await.is_err() {
                            let _ = session.run("ROLLBACK").await;
                            break;
                        }
                    }
                }
            }));
        }
        Load { stop, writers }
    }

    pub(super) async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.unwrap();
        }
    }
}

/// Starts a server on restored files and looks whether everything is of the moment that `gtid` names.
pub(super) async fn check(data: &Path, first: u64, gtid: &str) {
    let mut server = start(data).await;
    assert_eq!(
        server.value("SELECT SUM(money) FROM bank.accounts").await.as_deref(),
        Some("100000")
    );
    let moves: u64 =
        server.value("SELECT COUNT(*) FROM bank.moves").await.unwrap().parse().unwrap();
    assert_eq!(first + moves, sequence(gtid), "every transaction up to the position, and no other");
    let mut session = server.session().await;
    let sql = "CHECK TABLE bank.accounts, bank.moves, bank.log, bank.bulk EXTENDED";
    let said: Vec<(String, String, String, String)> = session.query_rows(sql).await.unwrap();
    assert!(said.iter().all(|(.., text)| text == "OK"), "{said:?}");
    session.close().await.unwrap();
    let log = std::fs::read_to_string(server.0.error_log()).unwrap();
    assert!(!log.contains("[ERROR]"), "{log}");
    server.0.stop().await.unwrap();
}
