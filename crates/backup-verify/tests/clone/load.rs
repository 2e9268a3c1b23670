//! A donor that is written to, and whose tables come and go: every size of pages, every kind of
//! tablespace.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use backup_core::{
    Flavor, GtidSet, Manifest, ReplayTarget, Repository as _, Severity, Verifier as _,
};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::files::Catalog;
use backup_verify::ContentVerifier;
use rstest::rstest;

use crate::point::{archive, replay, rows};
use crate::stage::{Restored, Stage, run};

fn rounds() -> usize {
    std::env::var("HOLDFAST_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// What the sessions that keep a donor busy have in common.
#[derive(Clone)]
struct Work {
    donor: ConnectOptions,
    outside: String,
    stop: Arc<AtomicBool>,
    /// The last transaction that was committed.
    counted: Arc<AtomicU64>,
    /// The last number that DDL made names of.
    named: Arc<AtomicU64>,
}

impl Work {
    async fn session(&self) -> Session {
        Session::open(&self.donor).await.unwrap()
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Moves money between accounts and counts, each in one transaction.
    async fn transfers(self) {
        let mut session = self.session().await;
        while self.goes_on() {
            let n = self.counted.load(Ordering::Relaxed) + 1;
            let (from, to) = (n % 100, (n * 7 + 1) % 100);
            for sql in [
                "BEGIN".to_owned(),
                format!("UPDATE bank.account SET money = money - 1 WHERE id = {from}"),
                format!("UPDATE bank.account SET money = money + 1 WHERE id = {to}"),
                format!("INSERT INTO bank.log VALUES ({n}, REPEAT('x', 500))"),
                format!("INSERT INTO bank.words VALUES ({n}, 'word{n} of many')"),
                "COMMIT".to_owned(),
            ] {
                session.run(&sql).await.unwrap_or_else(|e| panic!("{}", e.report()));
            }
            self.counted.store(n, Ordering::Relaxed);
            breath().await;
        }
    }

    /// Changes many rows at once.
    async fn bulk(self) {
        let mut session = self.session().await;
        for n in 0u64.. {
            if !self.goes_on() {
                return;
            }
            let from = n * 331 % 3000;
            for table in ["bulk", "zip", "packed", "parts", "in_general", "in_directory"] {
                let sql = format!(
                    "UPDATE bank.{table} SET a = REPEAT(SHA2(RAND(), 256), 1 + id % 7) \
                     WHERE id BETWEEN {from} AND {from} + 200"
                );
                session.run(&sql).await.unwrap_or_else(|e| panic!("{}", e.report()));
            }
            breath().await;
        }
    }

    /// Definitions that change all the time, names that go round in circles.
    async fn ddl(self) {
        let mut session = self.session().await;
        let mut named = VecDeque::new();
        while self.goes_on() {
            let n = self.named.fetch_add(1, Ordering::Relaxed);
            named.push_back(n);
            let mut statements = vec![
                format!("CREATE TABLE churn.t{n} (id INT PRIMARY KEY, a VARCHAR(100))"),
                format!("INSERT INTO churn.t{n} VALUES ({n}, 'a'), (-1, 'b')"),
                "RENAME TABLE churn.a TO churn.x, churn.b TO churn.a, churn.x TO churn.b".into(),
                format!("ALTER TABLE churn.t{n} ADD KEY (a), ALGORITHM=INPLACE"),
                format!("ALTER TABLE churn.t{n} ENGINE=InnoDB"),
                format!("TRUNCATE TABLE churn.t{n}"),
                format!("INSERT INTO churn.t{n} VALUES ({n}, 'a')"),
                format!("CREATE TABLESPACE ts{n} ADD DATAFILE 'ts{n}.ibd'"),
                format!("CREATE TABLE churn.g{n} (id INT PRIMARY KEY) TABLESPACE ts{n}"),
                format!("INSERT INTO churn.g{n} VALUES ({n})"),
                format!("CREATE DATABASE churn{n}"),
                format!(
                    "CREATE TABLE churn{n}.p (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 2"
                ),
                format!("INSERT INTO churn{n}.p VALUES (1), (2), ({n} + 10)"),
                format!("ALTER TABLE churn{n}.p ADD PARTITION PARTITIONS 1"),
                format!("CREATE TABLE churn{n}.f (id INT PRIMARY KEY, a TEXT, FULLTEXT (a))"),
                format!("INSERT INTO churn{n}.f VALUES (1, 'full text'), (2, 'number {n}')"),
            ];
            if named.len() > 3
                && let Some(old) = named.pop_front()
            {
                statements.extend([
                    format!("DROP TABLE churn.t{old}, churn.g{old}"),
                    format!("DROP TABLESPACE ts{old}"),
                    format!("DROP DATABASE churn{old}"),
                ]);
            }
            for sql in &statements {
                session.run(sql).await.unwrap_or_else(|e| panic!("{}\n{sql}", e.report()));
            }
            breath().await;
        }
    }

    /// Tablespaces outside of the data directory, and undo tablespaces. They do not go into the binary
    /// log: a server that replays it here would find the files of the donor.
    async fn tablespaces(self) {
        let mut session = self.session().await;
        run(&mut session, &["SET SESSION sql_log_bin = OFF"]).await;
        while self.goes_on() {
            let n = self.named.fetch_add(1, Ordering::Relaxed);
            let outside = &self.outside;
            let statements = [
                format!("CREATE TABLESPACE out{n} ADD DATAFILE '{outside}/out{n}.ibd'"),
                format!("CREATE TABLE outside.o{n} (id INT PRIMARY KEY) TABLESPACE out{n}"),
                format!("INSERT INTO outside.o{n} VALUES ({n})"),
                format!("CREATE UNDO TABLESPACE undo{n} ADD DATAFILE 'undo{n}.ibu'"),
                format!("ALTER UNDO TABLESPACE undo{n} SET INACTIVE"),
            ];
            run(&mut session, &statements.each_ref().map(String::as_str)).await;
            run(
                &mut session,
                &[&format!("DROP TABLE outside.o{n}"), &format!("DROP TABLESPACE out{n}")],
            )
            .await;
            // Not before it is empty, which the server sees to by and by.
            let drop = format!("DROP UNDO TABLESPACE undo{n}");
            while session.run(&drop).await.is_err() {
                breath().await;
            }
        }
    }
}

/// So that the donor is busy, and does not grow for ever.
async fn breath() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

async fn fill(donor: &mut Session, outside: &str, page: u32) {
    // Compressed pages are made of pages of up to 16 KiB.
    let zip = match page {
        65_536 => "ROW_FORMAT=DYNAMIC",
        _ => "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=2",
    };
    // Pages of 4 KiB have nothing to save in blocks of 4 KiB.
    let packed = match page {
        4096 => "",
        _ => "COMPRESSION='zlib'",
    };
    run(donor, &[
        "CREATE DATABASE bank",
        "CREATE DATABASE churn",
        "CREATE DATABASE outside",
        "CREATE TABLE bank.account (id INT PRIMARY KEY, money INT NOT NULL)",
        "CREATE TABLE bank.log (n BIGINT PRIMARY KEY, v VARCHAR(500))",
        "CREATE TABLE bank.words (n BIGINT PRIMARY KEY, a VARCHAR(100), FULLTEXT (a))",
        "CREATE TABLE churn.a (id INT PRIMARY KEY)",
        "CREATE TABLE churn.b (id INT PRIMARY KEY, other INT)",
        "INSERT INTO churn.a VALUES (1)",
        "INSERT INTO churn.b VALUES (1, 1)",
        "INSERT INTO bank.account WITH RECURSIVE r (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM r \
         WHERE n < 99) SELECT n, 1000 FROM r",
        &format!("CREATE TABLESPACE general ADD DATAFILE '{outside}/general.ibd'"),
        "CREATE TABLE bank.bulk (id INT PRIMARY KEY, a VARCHAR(500))",
        &format!("CREATE TABLE bank.zip (id INT PRIMARY KEY, a VARCHAR(500)) {zip}"),
        &format!("CREATE TABLE bank.packed (id INT PRIMARY KEY, a VARCHAR(500)) {packed}"),
        "CREATE TABLE bank.parts (id INT PRIMARY KEY, a VARCHAR(500)) PARTITION BY HASH (id) PARTITIONS 3",
        "CREATE TABLE bank.in_general (id INT PRIMARY KEY, a VARCHAR(500)) TABLESPACE general",
        &format!(
            "CREATE TABLE bank.in_directory (id INT PRIMARY KEY, a VARCHAR(500)) \
             DATA DIRECTORY='{outside}'"
        ),
        "SET SESSION cte_max_recursion_depth = 10000",
        "INSERT INTO bank.bulk WITH RECURSIVE r (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM r \
         WHERE n < 3000) SELECT n, REPEAT(SHA2(n, 256), 1 + n % 7) FROM r",
    ])
    .await;
    for table in ["zip", "packed", "parts", "in_general", "in_directory"] {
        run(donor, &[&format!("INSERT INTO bank.{table} SELECT * FROM bank.bulk")]).await;
    }
}

/// Whether all that was committed before the clone began is there, and every transaction whole.
async fn of_one_moment(restored: &Restored, before: u64) {
    let mut session = restored.session().await;
    let money: Option<i64> =
        session.query_first("SELECT CAST(SUM(money) AS SIGNED) FROM bank.account").await.unwrap();
    assert_eq!(money, Some(100_000));
    let log: Option<(u64, u64)> =
        session.query_first("SELECT COUNT(*), MAX(n) FROM bank.log").await.unwrap();
    let (count, last) = log.unwrap();
    assert_eq!(count, last, "a transaction is missing");
    assert!(count >= before, "{count} of {before} transactions that were there before");
    let words: Option<(u64, u64)> = session
        .query_first(&format!(
            "SELECT COUNT(*), SUM(MATCH (a) AGAINST ('+word{last}' IN BOOLEAN MODE) > 0) FROM bank.words"
        ))
        .await
        .unwrap();
    assert_eq!(words, Some((count, 1)));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_under_load_is_of_one_moment(#[values(4096, 16_384, 65_536)] page: u32) {
    let outside = tempfile::TempDir::new().unwrap();
    let outside = outside.path().to_str().unwrap();
    let stage = Stage::new(|builder| {
        builder
            .option("innodb_page_size", page.to_string())
            .option("innodb_directories", outside)
            .option("innodb_redo_log_capacity", "64M")
    })
    .await;
    let mut donor = stage.session().await;
    fill(&mut donor, outside, page).await;
    let mut work = Work {
        donor: stage.source(),
        outside: outside.to_owned(),
        stop: Arc::default(),
        counted: Arc::default(),
        named: Arc::default(),
    };
    for round in 0..rounds() {
        work.stop = Arc::default();
        let workers = [
            tokio::spawn(work.clone().transfers()),
            tokio::spawn(work.clone().bulk()),
            tokio::spawn(work.clone().ddl()),
            tokio::spawn(work.clone().tablespaces()),
        ];
        let begun = work.counted.load(Ordering::Relaxed) + 20;
        while work.counted.load(Ordering::Relaxed) < begun {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let before = work.counted.load(Ordering::Relaxed);
        let manifest = amid_ddl(&stage).await;
        work.stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.await.unwrap();
        }
        archive(&stage).await;
        pages_are_sound(&stage, &manifest).await;
        let (expected, end) =
            (rows(&stage.cx, &stage.source(), "outside").await, gtids(&mut donor).await);

        let restored = stage
            .restored(&manifest, |builder| builder.option("innodb_page_size", page.to_string()));
        let restored = restored.await;
        of_one_moment(&restored, before).await;
        restored.check_tables().await;
        // The server knows its position by itself now: between those that the manifest names, and the
        // one that recovery tells.
        let here = gtids(&mut restored.session().await).await;
        let first = manifest.outcome.position.gtid.as_ref().unwrap();
        assert!(first.is_subset(&here).unwrap(), "{first} {here}");
        let after = &manifest.outcome.details["position_after"]["gtid"];
        let after: GtidSet = serde_json::from_value(after.clone()).unwrap();
        assert!(here.is_subset(&after).unwrap(), "{here} {after}");
        assert_eq!(recovered(restored.server.datadir()), here);
        // From there the archive leads to what the donor has now.
        replay(&stage, &restored, &here, &ReplayTarget::End).await;
        assert_eq!(gtids(&mut restored.session().await).await, end);
        assert_eq!(rows(&stage.cx, &restored.options(), "outside").await, expected);
        let sizes = serde_json::to_string(&manifest.totals).unwrap();
        eprintln!("round {round} with pages of {page}: {before} transactions, {sizes}");
    }
}

/// A backup. A donor gives up, now and then, when DDL removes a file that it is about to read.
async fn amid_ddl(stage: &Stage) -> Manifest {
    for _ in 0..5 {
        match stage.try_backup(&stage.cx, stage.source()).await {
            Ok(manifest) => return manifest,
            Err(e) => {
                let code = e.server().map(|said| said.code);
                assert!(matches!(code, Some(1016 | 1017)), "{}", e.report());
                assert!(e.remedy().ends_with("try again"), "{}", e.report());
                eprintln!("taken again: {}", e.chain());
            }
        }
    }
    panic!("no clone in five attempts")
}

/// Every page of every tablespace, with the changes over it.
async fn pages_are_sound(stage: &Stage, manifest: &Manifest) {
    let artifacts = stage.repository.artifacts(&stage.cx, manifest).await.unwrap();
    let catalog = Catalog::read(&*artifacts).await.unwrap();
    let spaces = catalog.files().filter(|entry| entry.page_size.is_some()).count();
    assert!(catalog.files().any(|entry| entry.changes));
    let verifier = ContentVerifier::new(Arc::new(stage.repository.clone()));
    let report = verifier.verify(&stage.cx, manifest, artifacts).await.unwrap();
    assert!(report.findings.iter().all(|f| f.severity == Severity::Info), "{report:?}");
    let count = format!("pages of {spaces} tablespaces are sound");
    assert!(report.findings.iter().any(|f| f.problem.contains(&count)), "{report:?}");
}

async fn gtids(session: &mut Session) -> GtidSet {
    let text: Option<String> = session.query_first("SELECT @@GLOBAL.gtid_executed").await.unwrap();
    GtidSet::parse(Flavor::MySql, &text.unwrap()).unwrap()
}

/// What the first start on a clone has written down: the fifth line, and those after it.
fn recovered(data: &Path) -> GtidSet {
    let text = std::fs::read_to_string(data.join("#clone/#status_recovery")).unwrap();
    let gtids: Vec<&str> = text.lines().skip(4).collect();
    GtidSet::parse(Flavor::MySql, &gtids.concat()).unwrap()
}
