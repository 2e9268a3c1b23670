//! Work that nobody planned: statements of every kind, in every format of the binlog, from several
//! sessions whose transactions overlap.

use std::path::PathBuf;
use std::sync::Arc;

use backup_core::Flavor;
use backup_drivers::connect::{ConnectOptions, Session};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::RwLock;
use tokio::task::JoinHandle;

use crate::server::Server;

/// The tables before the work begins.
const TABLES: [&str; 18] = [
    "CREATE DATABASE w",
    "CREATE DATABASE `w 2`",
    "CREATE TABLE w.t (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(100), n INT, b BLOB, \
     d DECIMAL(20,6), f DOUBLE, ts TIMESTAMP(6) NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), \
     e ENUM('x', 'y', ''), s SET('p', 'q', 'r'), bits BIT(17), y YEAR, tm TIME(3), \
     g INT GENERATED ALWAYS AS (n * 2) STORED, v VARCHAR(110) GENERATED ALWAYS AS (CONCAT(a, '!')) VIRTUAL, \
     KEY (n), KEY (v))",
    "CREATE TABLE w.audit (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(200))",
    "CREATE TRIGGER w.t_i AFTER INSERT ON w.t FOR EACH ROW INSERT INTO w.audit (what) VALUES (CONCAT('i', NEW.id))",
    "CREATE TRIGGER w.t_d BEFORE DELETE ON w.t FOR EACH ROW INSERT INTO w.audit (what) VALUES (CONCAT('d', OLD.id))",
    "CREATE TABLE w.j (id INT PRIMARY KEY, doc JSON)",
    "CREATE TABLE w.m (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(100)) ENGINE = MyISAM",
    "CREATE TABLE w.nokey (a INT, b VARCHAR(100))",
    "CREATE TABLE w.x (id INT PRIMARY KEY, a VARCHAR(50))",
    "CREATE TABLE w.s (id INT PRIMARY KEY, a VARCHAR(200), n BIGINT, r DOUBLE, ts DATETIME)",
    "CREATE TABLE w.load_here (id INT PRIMARY KEY, a VARCHAR(60), b VARCHAR(60))",
    "CREATE TABLE w.parent (id INT PRIMARY KEY, a INT)",
    "CREATE TABLE w.child (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES w.parent (id) ON DELETE CASCADE)",
    "CREATE TABLE `w 2`.`odd ``name` (`a b` INT PRIMARY KEY, `ü` TEXT) CHARACTER SET utf8mb4",
    "CREATE TABLE w.ev (id INT AUTO_INCREMENT PRIMARY KEY, ts DATETIME)",
    "CREATE PROCEDURE w.fill (IN k INT) INSERT INTO w.s (id, a, n) VALUES (k, CONCAT('proc', k), k * 3) \
     ON DUPLICATE KEY UPDATE n = n + 1",
    "INSERT INTO w.s (id, a, n) VALUES (1, 'one', 1), (2, 'two', 2), (3, 'three', 3)",
];

/// Work under way.
pub(crate) struct Work {
    rng: StdRng,
    mysql: bool,
    options: ConnectOptions,
    sessions: [Session; 3],
    /// A transaction is open in this one of the first two.
    open: [bool; 2],
    statements: Session,
    /// Prepared and not ended.
    prepared: Vec<u64>,
    /// Tables that came and may go.
    made: Vec<u64>,
    next: u64,
    csv: PathBuf,
    background: Vec<JoinHandle<()>>,
    /// Held by whoever must not be disturbed.
    pub(crate) gate: Arc<RwLock<bool>>,
    /// Statements that were run, and those that failed.
    pub(crate) done: (u64, u64),
}

async fn connect(options: &ConnectOptions, format: &str) -> Session {
    let mut session = Session::open(options).await.unwrap();
    for sql in [
        format!("SET SESSION binlog_format = '{format}'"),
        "SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1".to_owned(),
    ] {
        session.run(&sql).await.unwrap();
    }
    session
}

impl Work {
    pub(crate) async fn begin(server: &Server, seed: u64, csv: PathBuf) -> Work {
        let options = server.options();
        let mysql = server.0.install().flavor() == Flavor::MySql;
        server.run(&TABLES).await;
        let sessions = [
            connect(&options, "ROW").await,
            connect(&options, "MIXED").await,
            connect(&options, "ROW").await,
        ];
        let statements = connect(&options, "STATEMENT").await;
        let gate = Arc::new(RwLock::new(true));
        let mut background = Vec::new();
        for n in 0..2_u64 {
            server
                .run(&[&format!("CREATE TABLE w.bg{n} (id INT PRIMARY KEY, a VARCHAR(300))")])
                .await;
            let session = connect(&options, if n == 0 { "ROW" } else { "MIXED" }).await;
            let rng = StdRng::seed_from_u64(seed ^ (n + 1));
            background.push(tokio::spawn(beside(session, n, rng, Arc::clone(&gate))));
        }
        Work {
            rng: StdRng::seed_from_u64(seed),
            mysql,
            options,
            sessions,
            open: [false; 2],
            statements,
            prepared: Vec::new(),
            made: Vec::new(),
            next: 100,
            csv,
            background,
            gate,
            done: (0, 0),
        }
    }

    /// Ends what is prepared: a backup of rows does not have it.
    pub(crate) async fn end_prepared(&mut self) {
        while !self.prepared.is_empty() {
            self.finish_prepared().await;
        }
    }

    async fn finish_prepared(&mut self) {
        let k = self.prepared.remove(0);
        let word = if self.number(3) == 0 { "ROLLBACK" } else { "COMMIT" };
        self.run(2, &[format!("XA {word} 'x{k}', 'y', 7")]).await;
    }

    /// Ends everything but what is prepared.
    pub(crate) async fn end(mut self) {
        *self.gate.write().await = false;
        for task in self.background.drain(..) {
            task.await.unwrap();
        }
        for (n, session) in self.sessions.iter_mut().enumerate() {
            if n < 2 && self.open[n] {
                session.run("COMMIT").await.unwrap();
            }
        }
    }

    fn number(&mut self, below: u64) -> u64 {
        self.rng.random_range(0..below)
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Runs statements in one of the sessions; what the server does not want is left out.
    async fn run(&mut self, at: usize, statements: &[String]) {
        for sql in statements {
            let session = self.sessions.get_mut(at).unwrap_or(&mut self.statements);
            self.done.0 += 1;
            if let Err(e) = session.run(sql).await {
                // Duplicates, locks, tables that are not there any more: as in life.
                assert!(e.server().is_some(), "{sql}: {}", e.report());
                self.done.1 += 1;
            }
        }
    }

    /// Something.
    pub(crate) async fn step(&mut self) {
        let (k, n) = (self.fresh(), self.number(40));
        let row = 1 + self.number(60);
        let text: String = (0..self.number(60))
            .map(|_| char::from(b'a' + self.rng.random_range(0..26_u8)))
            .collect();
        let at = usize::from(self.number(2) == 1);
        let s = 3;
        match n {
            0..=3 => {
                let (f, bits) = (self.rng.random::<f64>() * 1e10, self.number(1 << 17));
                let sql = format!(
                    "INSERT INTO w.t (a, n, b, d, f, e, s, bits, y, tm) VALUES ('{text}', {k}, REPEAT(x'00ff', {row}), \
                     {k}.123456, {f:e}, 'y', 'p,r', {bits}, 2000 + {row}, '-12:34:56.789'), (NULL, NULL, NULL, NULL, NULL, '', '', NULL, NULL, NULL)"
                );
                self.run(at, &[sql]).await;
            }
            4..=6 => {
                let sql = format!(
                    "UPDATE w.t SET a = CONCAT('{text}', id), n = n + 1 WHERE id BETWEEN {row} AND {row} + 3"
                );
                self.run(at, &[sql]).await;
            }
            7 => self.run(at, &[format!("DELETE FROM w.t WHERE id = {row}")]).await,
            8..=10 => self.json(at, row, &text).await,
            11 => {
                // Of its own session: transactions do not wait for tables without.
                self.run(
                    2,
                    &[
                        format!("INSERT INTO w.m (a) VALUES ('{text}'), ('2')"),
                        format!("DELETE FROM w.m WHERE id = {row}"),
                    ],
                )
                .await;
            }
            12 => {
                let sql = [
                    format!(
                        "INSERT INTO w.nokey VALUES ({k}, '{text}'), ({k}, '{text}'), (NULL, NULL)"
                    ),
                    format!("UPDATE w.nokey SET b = 'up' WHERE a % 7 = {}", row % 7),
                    format!("DELETE FROM w.nokey WHERE a % 11 = {}", row % 11),
                ];
                self.run(2, &sql).await;
            }
            13..=15 => self.transaction(at, row).await,
            16 | 17 => self.xa(k).await,
            18 | 19 => self.load(k, if n == 18 { s } else { 2 }).await,
            20..=23 => self.as_written(k, row, &text).await,
            24 => self.temporary(if self.mysql || k.is_multiple_of(2) { s } else { 1 }, k).await,
            25..=28 => self.define(k, n, row).await,
            29 => {
                let sql = [
                    format!("INSERT IGNORE INTO w.parent VALUES ({row}, {k})"),
                    format!("INSERT IGNORE INTO w.child VALUES ({k}, {row})"),
                    format!("DELETE FROM w.parent WHERE id = {}", row / 2),
                ];
                self.run(2, &sql).await;
            }
            30 => {
                let sql = format!(
                    "INSERT INTO `w 2`.`odd ``name` VALUES ({k}, '\u{fc}{text}\u{1f600}'), (-{k}, NULL)"
                );
                self.run(at, &[sql]).await;
            }
            31 => self.settings(k).await,
            32 => {
                let sql = match k % 4 {
                    0 => "FLUSH BINARY LOGS".to_owned(),
                    1 => format!("CREATE USER w{k}@localhost IDENTIFIED BY 'x{k}'"),
                    2 => format!("CREATE OR REPLACE VIEW w.look AS SELECT id, {k} AS k FROM w.s"),
                    _ => "TRUNCATE w.load_here".to_owned(),
                };
                self.run(2, &[sql]).await;
            }
            33 => self.event(k).await,
            34 => {
                // A transaction that changes nothing, and one of many rows.
                let sql = [
                    format!("UPDATE w.s SET n = n WHERE id = {row}"),
                    "INSERT INTO w.t (a, n) SELECT a, n FROM w.s LIMIT 50".to_owned(),
                    "BEGIN".to_owned(),
                    format!("INSERT INTO w.x VALUES ({k}, 'rolled back')"),
                    "ROLLBACK".to_owned(),
                ];
                self.run(2, &sql).await;
            }
            35 => {
                let sql = [
                    "BEGIN".to_owned(),
                    format!("INSERT INTO w.x VALUES ({k}, 'kept')"),
                    "SAVEPOINT a".to_owned(),
                    format!("INSERT INTO w.x VALUES ({}, 'not')", k + 1_000_000),
                    "ROLLBACK TO SAVEPOINT a".to_owned(),
                    "COMMIT".to_owned(),
                ];
                self.run(2, &sql).await;
            }
            _ => {
                self.run(
                    at,
                    // No REPLACE: with minimal images a MariaDB does not write the columns that it
                    // sets to their defaults, so that its own replicas differ.
                    &[format!(
                        "INSERT INTO w.s (id, a, n) VALUES ({row}, '{text}', {k}) \
                         ON DUPLICATE KEY UPDATE a = '{text}', n = {k}"
                    )],
                )
                .await;
            }
        }
    }

    async fn json(&mut self, at: usize, row: u64, text: &str) {
        let sql = match self.number(4) {
            0 => format!(
                "INSERT INTO w.j VALUES ({row}, '{{\"a\": 1, \"text\": \"{text}\", \"list\": [1, 2.5, null, true], \
                 \"pad\": \"{}\"}}')",
                "p".repeat(300)
            ),
            1 => format!("UPDATE w.j SET doc = JSON_SET(doc, '$.a', {row}) WHERE id = {row}"),
            2 => format!(
                "UPDATE w.j SET doc = JSON_REPLACE(doc, '$.text', '{text}', '$.list[0]', 7)"
            ),
            _ => format!("UPDATE w.j SET doc = JSON_REMOVE(doc, '$.list[1]') WHERE id > {row}"),
        };
        self.run(at, &[sql]).await;
    }

    /// Opens a transaction, or ends the one that is open: others run in between.
    async fn transaction(&mut self, at: usize, row: u64) {
        let sql = match (self.open[at], self.number(4)) {
            (false, _) => "BEGIN",
            (true, 0) => "ROLLBACK",
            (true, _) => "COMMIT",
        };
        self.open[at] = !self.open[at];
        let mut sql = vec![sql.to_owned()];
        if self.open[at] {
            // Each has rows of its own.
            let id = row * 2 + at as u64;
            sql.push(format!("INSERT IGNORE INTO w.s (id, a) VALUES ({id}, 'in')"));
            sql.push(format!("UPDATE w.s SET n = {id} WHERE id = {id}"));
        }
        self.run(at, &sql).await;
    }

    async fn xa(&mut self, k: u64) {
        if self.prepared.len() > 2 || (!self.prepared.is_empty() && self.number(2) == 0) {
            self.finish_prepared().await;
            return;
        }
        let one_phase = self.number(4) == 0;
        let end = if one_phase { "COMMIT" } else { "PREPARE" };
        let one = if one_phase { " ONE PHASE" } else { "" };
        let sql = [
            format!("XA START 'x{k}', 'y', 7"),
            format!("INSERT INTO w.x VALUES ({k}, 'xa')"),
            format!("XA END 'x{k}', 'y', 7"),
            format!("XA {end} 'x{k}', 'y', 7{one}"),
        ];
        // A prepared one is its session's until that ends.
        let options = self.options.clone();
        let mut session = connect(&options, "ROW").await;
        for sql in sql {
            session.run(&sql).await.unwrap_or_else(|e| panic!("{}", e.report()));
        }
        session.close().await.unwrap();
        if !one_phase {
            self.prepared.push(k);
        }
    }

    async fn load(&mut self, k: u64, at: usize) {
        let lines: String = (0..20).map(|n| format!("{}\tl{k}\t\\N\n", k * 100 + n)).collect();
        std::fs::write(&self.csv, lines).unwrap();
        let how = ["", "IGNORE ", "REPLACE "][self.rng.random_range(0..3_usize)];
        let sql = format!(
            "LOAD DATA INFILE '{}' {how}INTO TABLE w.load_here (id, @a, b) SET a = UPPER(@a)",
            self.csv.display()
        );
        self.run(at, &[sql]).await;
    }

    /// Statements that are in the binlog as they are, with what they depend on.
    async fn as_written(&mut self, k: u64, row: u64, text: &str) {
        let sql = match self.number(7) {
            0 => vec![format!(
                "UPDATE w.s SET r = RAND(), ts = NOW(), a = CONCAT(LEFT(a, 100), '{text}') WHERE id = {row}"
            )],
            1 => vec![
                format!("SET @v := {k}, @w := 'it''s'"),
                format!("INSERT INTO w.s (id, a, n) VALUES ({k}, @w, @v)"),
            ],
            2 => vec![format!("CALL w.fill({k})")],
            3 => vec![
                "INSERT INTO w.m (a) VALUES ('first'), ('second')".to_owned(),
                "INSERT INTO w.m (a) VALUES (LAST_INSERT_ID())".to_owned(),
            ],
            4 => vec![
                "SET timestamp = 1700000000.5".to_owned(),
                format!("INSERT INTO w.s (id, ts) VALUES ({k}, NOW())"),
                "SET timestamp = DEFAULT".to_owned(),
            ],
            5 => vec![
                "SET sql_mode = ''".to_owned(),
                format!("INSERT INTO w.s (id, a, n) VALUES ({k}, 'x', 'no number')"),
                "SET sql_mode = DEFAULT".to_owned(),
            ],
            _ => vec![
                "SET SESSION time_zone = '+05:45', NAMES latin1, foreign_key_checks = 0"
                    .replace("NAMES latin1, ", ""),
                format!(
                    "INSERT INTO w.s (id, a, ts) VALUES ({k}, '{text}', FROM_UNIXTIME(1700000000))"
                ),
                "SET SESSION time_zone = DEFAULT, foreign_key_checks = 1".to_owned(),
            ],
        };
        self.run(3, &sql).await;
    }

    async fn temporary(&mut self, at: usize, k: u64) {
        let sql = [
            format!("CREATE TEMPORARY TABLE w.temp{k} (id INT PRIMARY KEY, a VARCHAR(20))"),
            format!("INSERT INTO w.temp{k} VALUES ({k}, 'temporary'), ({k} + 1000000, 'too')"),
            format!("INSERT IGNORE INTO w.s (id, a) SELECT id, a FROM w.temp{k}"),
            format!("DROP TEMPORARY TABLE w.temp{k}"),
        ];
        // Creating one commits.
        if at < 2 && self.open[at] {
            self.open[at] = false;
            self.run(at, &["COMMIT".to_owned()]).await;
        }
        self.run(at, &sql).await;
    }

    async fn define(&mut self, k: u64, n: u64, row: u64) {
        if self.made.is_empty() || n == 25 {
            self.made.push(k);
            let sql = match k % 3 {
                0 => format!(
                    "CREATE TABLE w.made{k} (id INT PRIMARY KEY, a VARCHAR(50), KEY (a)) PARTITION BY HASH (id) PARTITIONS 3"
                ),
                1 => format!(
                    "CREATE TABLE w.made{k} (id INT AUTO_INCREMENT PRIMARY KEY) AS SELECT a, n FROM w.s"
                ),
                _ => format!("CREATE TABLE w.made{k} LIKE w.nokey"),
            };
            self.run(2, &[sql]).await;
            return;
        }
        let which = self.rng.random_range(0..self.made.len());
        let t = self.made[which];
        let sql = match self.number(8) {
            0 => format!("ALTER TABLE w.made{t} ADD COLUMN c{k} INT DEFAULT {row}"),
            1 => format!(
                "ALTER TABLE w.made{t} ADD COLUMN g{k} INT AS ({row} + 1) STORED, ADD KEY k{k} (a)"
            ),
            2 => {
                self.made[which] = k;
                format!("RENAME TABLE w.made{t} TO w.made{k}")
            }
            3 => {
                self.made.remove(which);
                format!("DROP TABLE IF EXISTS w.made{t}, w.never{k}")
            }
            4 => format!("ALTER TABLE w.made{t} ENGINE = InnoDB, COMMENT 'c{k}'"),
            5 => format!("TRUNCATE TABLE w.made{t}"),
            6 => format!("INSERT INTO w.made{t} (a) VALUES ({k})"),
            _ => format!("UPDATE w.made{t} SET a = {k}"),
        };
        // Not every kind of table has a default for its key.
        if sql.starts_with("INSERT") && t.is_multiple_of(3) {
            return;
        }
        self.run(2, &[sql]).await;
    }

    async fn event(&mut self, k: u64) {
        let sql = match k % 5 {
            0 | 1 => format!(
                "CREATE EVENT IF NOT EXISTS w.e{} ON SCHEDULE EVERY 1 SECOND {} DO INSERT INTO w.ev (ts) VALUES (NOW())",
                k % 7,
                if k.is_multiple_of(2) { "ENABLE" } else { "DISABLE COMMENT 'ENABLE DO'" }
            ),
            2 => format!(
                "ALTER EVENT w.e{} {}",
                k % 7,
                if k.is_multiple_of(2) { "ENABLE" } else { "DISABLE" }
            ),
            3 => format!("ALTER EVENT w.e{} ON SCHEDULE EVERY 2 SECOND", k % 7),
            _ => format!("DROP EVENT IF EXISTS w.e{}", k % 7),
        };
        self.run(2, &[sql]).await;
    }

    async fn settings(&mut self, k: u64) {
        let sql = match (self.mysql, k % 4) {
            (true, 0) => "SET SESSION binlog_transaction_compression = ON",
            (true, 1) => "SET SESSION binlog_transaction_compression = OFF",
            (true, 2) => {
                "SET SESSION binlog_row_value_options = 'PARTIAL_JSON', binlog_row_image = 'MINIMAL'"
            }
            (true, _) => {
                "SET SESSION binlog_row_value_options = '', binlog_row_image = 'NOBLOB', binlog_rows_query_log_events = ON"
            }
            (false, 0) => "SET GLOBAL log_bin_compress = ON, log_bin_compress_min_len = 10",
            (false, 1) => "SET GLOBAL log_bin_compress = OFF",
            (false, 2) => {
                "SET SESSION binlog_row_image = 'MINIMAL', binlog_annotate_row_events = ON"
            }
            (false, _) => "SET SESSION binlog_row_image = 'FULL', binlog_alter_two_phase = ON",
        };
        let at = if self.open[0] { 2 } else { 0 };
        self.run(at, &[sql.to_owned()]).await;
    }
}

/// Transactions of one session on a table of its own, so that the server commits groups.
async fn beside(mut session: Session, n: u64, mut rng: StdRng, gate: Arc<RwLock<bool>>) {
    loop {
        {
            let go_on = gate.read().await;
            if !*go_on {
                return;
            }
            session.run("BEGIN").await.unwrap();
            for _ in 0..rng.random_range(1..5) {
                let (id, len) = (rng.random_range(0..200), rng.random_range(0..250));
                let sql = match rng.random_range(0..4) {
                    0 => format!("DELETE FROM w.bg{n} WHERE id = {id}"),
                    1 => format!("UPDATE w.bg{n} SET a = REPEAT('u', {len}) WHERE id = {id}"),
                    _ => format!("REPLACE INTO w.bg{n} VALUES ({id}, REPEAT('r', {len}))"),
                };
                session.run(&sql).await.unwrap();
            }
            session.run("COMMIT").await.unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
