//! Real servers, and things that get into their binlogs.

use backup_core::Context;
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::sandbox::{Sandbox, SandboxBuilder};

pub(crate) struct Server(pub(crate) Sandbox);

impl Server {
    pub(crate) async fn start(
        name: &str,
        describe: impl FnOnce(SandboxBuilder) -> SandboxBuilder,
    ) -> Server {
        let builder = xtask::servers::sandbox(name).await.unwrap().tcp(true);
        Server(describe(builder).start(&Context::builder().build()).await.unwrap())
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions::socket(self.0.socket(), "root")
    }

    pub(crate) async fn session(&self) -> Session {
        Session::open(&self.options()).await.unwrap()
    }

    pub(crate) async fn run(&self, statements: &[&str]) {
        let mut session = self.session().await;
        for sql in statements {
            session.run(sql).await.unwrap_or_else(|e| panic!("{}", e.report()));
        }
        session.close().await.unwrap();
    }

    /// Names of its binlogs.
    pub(crate) async fn binlogs(&self) -> Vec<String> {
        let rows: Vec<mysql_async::Row> =
            self.session().await.query_rows("SHOW BINARY LOGS").await.unwrap();
        rows.iter().map(|row| row.get(0).unwrap()).collect()
    }
}

/// Statements that leave something of most kinds in the binlog.
pub(crate) const WORK: [&str; 22] = [
    "CREATE DATABASE IF NOT EXISTS d",
    "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(300), b DECIMAL(20,4), j JSON)",
    "INSERT INTO d.t (a, b, j) VALUES ('one', 1.5, '{\"a\": 1}'), ('two', NULL, NULL)",
    "UPDATE d.t SET b = b + 1, a = REPEAT('x', 200)",
    "SET SESSION binlog_format = STATEMENT",
    "UPDATE d.t SET a = CONCAT(a, RAND(7), NOW()) WHERE id = 1",
    "SET SESSION binlog_format = ROW",
    "CREATE TABLE d.m (id INT PRIMARY KEY) ENGINE = MyISAM",
    "INSERT INTO d.m VALUES (1), (2)",
    "DELETE FROM d.m WHERE id = 2",
    "FLUSH BINARY LOGS",
    "BEGIN",
    "INSERT INTO d.t (a) VALUES ('in a transaction')",
    "INSERT INTO d.t (a) VALUES ('of two')",
    "COMMIT",
    "XA START 'x'",
    "INSERT INTO d.t (a) VALUES ('xa')",
    "XA END 'x'",
    "XA PREPARE 'x'",
    "XA COMMIT 'x'",
    "CREATE TABLE d.c AS SELECT id FROM d.t",
    "DROP TABLE d.c",
];
