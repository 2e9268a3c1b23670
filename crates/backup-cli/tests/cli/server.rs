//! Real servers with something in them.

use std::path::PathBuf;

use backup_core::Context;
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::sandbox::Sandbox;

/// A password that must never be printed.
pub(crate) const PASSWORD: &str = "hunter2;'\"#%";

/// A running server whose `root` has no password.
pub(crate) struct Server(pub(crate) Sandbox);

impl Server {
    /// Starts one, empty.
    pub(crate) async fn start(name: &str) -> Server {
        let cx = Context::builder().build();
        let builder = xtask::servers::sandbox(name).await.unwrap();
        Server(builder.tcp(true).start(&cx).await.unwrap())
    }

    /// Starts one with [`shop`].
    pub(crate) async fn with_shop(name: &str) -> Server {
        let server = Server::start(name).await;
        shop(&mut server.session().await).await;
        server
    }

    /// `root`, over the socket.
    pub(crate) fn url(&self) -> String {
        format!("mysql://root@localhost/?socket={}", self.0.socket().display())
    }

    /// `user` (and what follows it), over TCP.
    pub(crate) fn tcp_url(&self, user: &str) -> String {
        format!("mysql://{user}@127.0.0.1:{}/", self.0.port().unwrap())
    }

    /// A session of `root`.
    pub(crate) async fn session(&self) -> Session {
        Session::open(&ConnectOptions::socket(self.0.socket(), "root")).await.unwrap()
    }

    /// What a query gives as one value.
    pub(crate) async fn value(&self, sql: &str) -> Option<String> {
        let mut session = self.session().await;
        let value: Option<Option<String>> = session.query_first(sql).await.unwrap();
        session.close().await.unwrap();
        value.flatten()
    }

    /// Rows and content of `shop`, under this name.
    pub(crate) async fn content(&self, database: &str) -> Vec<(String, Option<u64>)> {
        let mut session = self.session().await;
        let sql = format!("CHECKSUM TABLE {database}.customers, {database}.orders");
        let sums: Vec<(String, Option<u64>)> = session.query_rows(&sql).await.unwrap();
        session.close().await.unwrap();
        let name = |table: &str| table.rsplit('.').next().unwrap().to_owned();
        sums.into_iter().map(|(table, sum)| (name(&table), sum)).collect()
    }
}

/// Where the installation of a server is.
pub(crate) fn install(name: &str) -> PathBuf {
    xtask::servers::install(name).unwrap().base().parent().unwrap().to_owned()
}

/// Statements, one after the other.
pub(crate) async fn run(session: &mut Session, statements: &[&str]) {
    for sql in statements {
        session.run(sql).await.unwrap_or_else(|e| panic!("{}", e.report()));
    }
}

/// The database `shop`: 3 customers, 512 orders, a view.
pub(crate) async fn shop(session: &mut Session) {
    let tables = [
        "CREATE DATABASE shop CHARACTER SET utf8mb4",
        "CREATE TABLE shop.customers (id INT PRIMARY KEY, name VARCHAR(50), joined DATE NULL)",
        "INSERT INTO shop.customers VALUES (1, 'Ada', '2024-02-29'), (2, 'Bj\u{f6}rk \u{1f600}', NULL), \
         (3, '', '1999-12-31')",
        "CREATE TABLE shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, customer INT NOT NULL, \
         amount DECIMAL(10,2), data VARBINARY(1000))",
        "INSERT INTO shop.orders (customer, amount, data) VALUES (1, 9.99, RANDOM_BYTES(1000))",
        "CREATE VIEW shop.totals AS SELECT customer, SUM(amount) AS total FROM shop.orders GROUP BY customer",
    ];
    run(session, &tables).await;
    double_orders(session, 9).await;
}

/// Doubles the orders so many times, each row with a kilobyte that does not compress.
pub(crate) async fn double_orders(session: &mut Session, times: usize) {
    let sql = "INSERT INTO shop.orders (customer, amount, data) \
               SELECT customer, amount + id, RANDOM_BYTES(1000) FROM shop.orders";
    run(session, &vec![sql; times]).await;
}

/// An account that may take backups, with [`PASSWORD`].
pub(crate) async fn backup_account(session: &mut Session) {
    let password = PASSWORD.replace('\\', "\\\\").replace('\'', "''");
    let create = format!("CREATE USER backup@'%' IDENTIFIED BY '{password}'");
    run(session, &[&create, "GRANT ALL PRIVILEGES ON *.* TO backup@'%'"]).await;
}
