//! The work of sysbench's `oltp_write_only`, on tables as it makes them: in each transaction two
//! UPDATEs by key, a DELETE and an INSERT of the same row.

use backup_core::{Error, Result};
use backup_drivers::connect::Session;
use backup_drivers::sandbox::Sandbox;

use super::root;

pub(super) const TABLES: u32 = 8;
const ROWS: u64 = 10_000;

/// Numbers that look like any, the same in each run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn digits(&mut self, groups: usize) -> String {
        let group = |numbers: &mut Numbers| format!("{:011}", numbers.below(99_999_999_999));
        (0..groups).map(|_| group(self)).collect::<Vec<_>>().join("-")
    }
}

/// Makes the tables.
pub(super) async fn prepare(server: &Sandbox) -> Result<()> {
    let mut session = Session::open(&root(server)).await?;
    session.run("CREATE DATABASE sbtest").await?;
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for table in 0..TABLES {
        let sql = format!(
            "CREATE TABLE sbtest.sbtest{table} (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
             k INT NOT NULL DEFAULT 0, c CHAR(120) NOT NULL DEFAULT '', \
             pad CHAR(60) NOT NULL DEFAULT '', KEY k_1 (k))"
        );
        session.run(&sql).await?;
        for chunk in 0..ROWS / 1000 {
            let rows: Vec<String> = (1..=1000)
                .map(|n| {
                    let (id, k) = (chunk * 1000 + n, numbers.below(ROWS) + 1);
                    format!("({id}, {k}, '{}', '{}')", numbers.digits(10), numbers.digits(5))
                })
                .collect();
            let sql = format!("INSERT INTO sbtest.sbtest{table} VALUES {}", rows.join(", "));
            session.run(&sql).await?;
        }
    }
    session.close().await
}

/// Runs so many transactions, from `clients` connections at once.
pub(super) async fn run(server: &Sandbox, transactions: u64, clients: u32) -> Result<()> {
    let mut tasks = Vec::new();
    for client in 0..clients {
        let mut session = Session::open(&root(server)).await?;
        let mut numbers = Numbers(0x2545_f491_4f6c_dd1d ^ u64::from(client + 1) << 17);
        let count = transactions / u64::from(clients);
        tasks.push(tokio::spawn(async move {
            for _ in 0..count {
                // Clients do not wait for each other's rows: each has those of its own remainder.
                let own = |numbers: &mut Numbers| {
                    let stride = u64::from(clients);
                    numbers.below(ROWS / stride) * stride + u64::from(client) + 1
                };
                let table = numbers.below(TABLES.into());
                let (a, b, c) = (own(&mut numbers), own(&mut numbers), own(&mut numbers));
                let (k, text, pad) = (numbers.below(ROWS), numbers.digits(10), numbers.digits(5));
                for sql in [
                    "BEGIN".to_owned(),
                    format!("UPDATE sbtest.sbtest{table} SET k = k + 1 WHERE id = {a}"),
                    format!("UPDATE sbtest.sbtest{table} SET c = '{text}' WHERE id = {b}"),
                    format!("DELETE FROM sbtest.sbtest{table} WHERE id = {c}"),
                    format!(
                        "INSERT INTO sbtest.sbtest{table} VALUES ({c}, {k}, '{text}', '{pad}')"
                    ),
                    "COMMIT".to_owned(),
                ] {
                    session.run(&sql).await?;
                }
            }
            session.close().await
        }));
    }
    for task in tasks {
        let ended = task.await;
        ended.map_err(|e| Error::internal("a client of the load ended early").with_source(e))??;
    }
    Ok(())
}
