//! A backup that dies at random moments, and is run again: it goes on with what is proven to be the
//! same, and holds one moment of the source all the same.

use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use backup_drivers::connect::Session;
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::home::{Home, Run};
use crate::server::{self, Server};

const TABLES: usize = 6;

/// How many times each thing is done: more where somebody asks for it.
pub(crate) fn rounds(few: u32) -> u32 {
    std::env::var("HOLDFAST_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(few)
}

/// Tables that fill several packs each, and do not get smaller by compression.
async fn fill(session: &mut Session) {
    let mut statements = vec![
        "CREATE DATABASE big".to_owned(),
        "CREATE TABLE big.parent (id INT PRIMARY KEY, v INT)".to_owned(),
        "INSERT INTO big.parent VALUES (1, 1), (2, 2)".to_owned(),
        // Whatever is done to the parent changes it without a word in the binary log.
        "CREATE TABLE big.child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent (id) ON \
         DELETE CASCADE)"
            .to_owned(),
        "INSERT INTO big.child VALUES (1, 1), (2, 2), (3, 2)".to_owned(),
    ];
    for i in 0..TABLES {
        statements.push(format!(
            "CREATE TABLE big.t{i} (id INT AUTO_INCREMENT PRIMARY KEY, v VARBINARY(1024))"
        ));
        statements.push(format!("INSERT INTO big.t{i} (v) VALUES (RANDOM_BYTES(1000))"));
        for _ in 0..11 {
            statements
                .push(format!("INSERT INTO big.t{i} (v) SELECT RANDOM_BYTES(1000) FROM big.t{i}"));
        }
    }
    for sql in &statements {
        session.run(sql).await.unwrap_or_else(|e| panic!("{}", e.report()));
    }
}

/// A source with tables that take a while, and a repository.
pub(crate) struct Lab {
    pub(crate) server: Server,
    pub(crate) home: Home,
    /// How long a backup takes when nothing happens.
    pub(crate) duration: Duration,
    /// How many repositories there were.
    repositories: u32,
    /// What every backup is told besides.
    more: Vec<String>,
    /// Who takes backups.
    user: &'static str,
}

impl Lab {
    /// Fills a server, and takes one backup.
    pub(crate) async fn start(name: &str) -> Lab {
        let server = Server::start(name).await;
        fill(&mut server.session().await).await;
        let mut lab = Lab {
            server,
            home: Home::new(),
            duration: Duration::ZERO,
            repositories: 0,
            more: vec![],
            user: "root",
        };
        lab.new_repository();
        let began = Instant::now();
        lab.backup().expect(0);
        lab.duration = began.elapsed();
        lab
    }

    /// In a new repository every row is new, and packs fill soon.
    pub(crate) fn new_repository(&mut self) {
        self.repositories += 1;
        self.home.run(["init", "--repo", &self.repository(), "--no-encryption"]).expect(0);
    }

    fn repository(&self) -> String {
        format!("repo-{}", self.repositories)
    }

    fn on_repo(&self, words: &[&str]) -> Run {
        let repository = self.repository();
        self.home.run(words.iter().copied().chain(["--repo", &repository, "--cluster", "big"]))
    }

    /// Packs are small, so that something is stored early.
    pub(crate) fn arguments(&self) -> Vec<String> {
        // So slowly that there is time to kill it.
        let words = "backup --cluster big --databases big --json --memory 12MiB --upload-limit 10MiB --repo";
        let last = [self.repository(), "--source".to_owned(), self.source()];
        let words = words.split(' ').map(str::to_owned);
        words.chain(last).chain(self.more.iter().cloned()).collect()
    }

    fn source(&self) -> String {
        self.server.url().replace("root", self.user)
    }

    /// A backup to its end.
    pub(crate) fn backup(&self) -> Run {
        self.home.run(self.arguments())
    }

    /// Starts a backup and does `what` when it has stored `packs` packs and a random while passed.
    /// Gives how it ended; `None` when it ended before.
    pub(crate) fn disturbed(
        &self,
        packs: usize,
        what: impl FnOnce(&mut std::process::Child),
    ) -> Option<Run> {
        let mut command = self.home.command(self.arguments());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stored = || {
            let files = self.home.files(&self.repository());
            let paths = files.iter().map(|(path, _)| path.to_str().unwrap());
            // One that is on its way has another name.
            paths.filter(|path| path.contains("/pack-") && !path.contains('#')).count()
        };
        while stored() < packs {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            sleep(Duration::from_millis(2));
        }
        sleep(self.duration.mul_f64(rand::random::<f64>() / 10.0));
        what(&mut child);
        Some(Run::from(child.wait_with_output().unwrap()))
    }

    /// What the source holds is what the backup gives back.
    pub(crate) async fn assert_exact(&self, backup: &Value) {
        let id = backup["backup"].as_str().unwrap();
        self.on_repo(&["verify", id, "--level", "content"]).expect(0);
        let mut session = self.server.session().await;
        server::run(&mut session, &["DROP DATABASE IF EXISTS copy"]).await;
        let url = self.server.url();
        self.on_repo(&["restore", id, "--target", &url, "--rename", "big=copy"]).expect(0);
        let all = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'big'";
        let tables: Vec<String> = session.query_rows(all).await.unwrap();
        assert!(tables.len() > TABLES);
        for table in tables {
            let sql = format!("CHECKSUM TABLE big.{table}, copy.{table}");
            let sums: Vec<(String, Option<u64>)> = session.query_rows(&sql).await.unwrap();
            assert!(sums[0].1.is_some() && sums[0].1 == sums[1].1, "{id}: {sums:?}");
        }
        server::run(&mut session, &["DROP DATABASE copy"]).await;
    }
}

/// Backups that are killed, and what happens at the source before the next one.
#[rstest]
#[tokio::test]
async fn a_killed_backup_goes_on_with_what_did_not_change(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let mut lab = Lab::start(name).await;
    let mut session = lab.server.session().await;
    let wanted = rounds(4);
    let (mut killed, mut resumed) = (0, 0);
    let mut tries = 0;
    // One that died before its first chunk was stored has nothing to go on from.
    while killed < wanted || resumed == 0 {
        tries += 1;
        assert!(tries < 20 * (wanted + 1), "no backup lasts long enough to be killed");
        lab.new_repository();
        // What a clock of whole seconds cannot tell apart counts as changed.
        sleep(Duration::from_millis(3100));
        let kill = |child: &mut std::process::Child| child.kill().unwrap();
        let run = lab.disturbed(1 + tries as usize % 5, kill);
        if run.is_none_or(|run| run.code == Some(0)) {
            continue;
        }
        if lab.on_repo(&["list", "--json"]).expect(0).json() != serde_json::json!([]) {
            // Its last act was done already.
            continue;
        }
        killed += 1;
        // A name of its own: MariaDB writes nothing about a table that is there already.
        let ddl = format!("CREATE TABLE big.more_{killed} (id INT PRIMARY KEY)");
        // Whether the string ends at the quote depends on a mode of the session.
        let unclear =
            format!("CREATE TABLE big.more_{killed} (id INT PRIMARY KEY) COMMENT 'C:\\\\'");
        let (changed, statements): (&[&str], &[&str]) = match killed % 5 {
            0 => (
                &["child", "parent"],
                &["REPLACE INTO big.parent VALUES (9, 99)", "DELETE FROM big.parent WHERE v = 99"],
            ),
            1 => (&["t2"], &["UPDATE big.t2 SET v = RANDOM_BYTES(900) WHERE id = 1"]),
            2 => (&[], &["DO 1"]),
            // Only what it names may be another after it.
            3 => (&["t3"], &[&ddl, "ALTER TABLE big.t3 ENGINE = InnoDB"]),
            _ => (&["everything"], &[&unclear]),
        };
        server::run(&mut session, statements).await;
        let last = lab.backup().expect(0).json();
        let report = &last["resumed"];
        assert!(!report.is_null(), "it was left lying: {last:#}");
        if report["chunks"].as_u64() > Some(0) {
            resumed += 1;
        }
        for table in changed {
            assert!(*table != "everything" || report["chunks"] == 0, "{report:#}");
            let name = format!("big.{table}");
            assert!(report["chunks_of"].get(&name).is_none(), "{report:#}");
            let why = &report["read_again_because"];
            assert!(*table == "everything" || why.get(&name).is_some(), "{report:#}");
        }
        lab.assert_exact(&last).await;
        // Nothing of what is needed goes, and what is not needed goes.
        lab.on_repo(&["prune", "--keep-last", "1", "--wait", "0s", "--grace", "0s"]).expect(0);
        lab.on_repo(&["verify", "--all", "--level", "content"]).expect(0);
    }
    assert!(resumed > 0, "none of {killed} that were killed was gone on with");
}

/// Rows that a condition chose are of the moment of the backup that holds them, whatever it reads.
#[tokio::test]
async fn what_was_chosen_by_a_condition_is_taken_over_only_where_it_stays_so() {
    let mut lab = Lab::start("mysql-9.7").await;
    let mut session = lab.server.session().await;
    let function = "CREATE FUNCTION other.keep(i INT) RETURNS INT READS SQL DATA \
                    RETURN i > 9 OR (SELECT COUNT(*) FROM big.parent WHERE id = i)";
    server::run(&mut session, &["CREATE DATABASE other", function]).await;
    for condition in ["big.t0:other.keep(id)", "big.t1:id > 1"] {
        lab.more.extend(["--where", condition].map(str::to_owned));
    }
    let mut tries = 0;
    let report = loop {
        tries += 1;
        assert!(tries < 40, "no backup lasts long enough to be killed");
        lab.new_repository();
        server::run(&mut session, &["DELETE FROM big.parent WHERE id = 3"]).await;
        sleep(Duration::from_millis(3100));
        let run = lab.disturbed(4, |child| child.kill().unwrap());
        if run.is_none_or(|run| run.code == Some(0)) {
            continue;
        }
        server::run(&mut session, &["INSERT INTO big.parent VALUES (3, 3)"]).await;
        let last = lab.backup().expect(0).json();
        let id = last["backup"].as_str().unwrap();
        let url = lab.server.url();
        lab.on_repo(&["restore", id, "--target", &url, "--rename", "big=copy"]).expect(0);
        let sum = async |from: &str| {
            let sql = format!("SELECT CONCAT(COUNT(*), ' rows, ', SUM(id)) FROM {from}");
            lab.server.value(&sql).await.unwrap()
        };
        assert_eq!(sum("copy.t0").await, sum("big.t0 WHERE other.keep(id)").await);
        server::run(&mut session, &["DROP DATABASE copy"]).await;
        let report = &last["resumed"];
        if report["read_again_because"].get("big.t0").is_some()
            && report["chunks_of"].get("big.t1").is_some()
        {
            break report.clone();
        }
    };
    let why = report["read_again_because"]["big.t0"].as_str().unwrap();
    assert!(why.contains("by --where"), "{report:#}");
}

/// No log tells that two tables swapped names, or a partition and a table, and each has the definition that the other
/// one had.
#[rstest]
#[tokio::test]
async fn tables_that_swapped_names_are_read_again(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let mut lab = Lab::start(name).await;
    let mut session = lab.server.session().await;
    let parted = [
        "CREATE TABLE big.a_parted (id INT PRIMARY KEY, v VARBINARY(1024)) PARTITION BY RANGE (id) \
         (PARTITION p0 VALUES LESS THAN (9999), PARTITION p1 VALUES LESS THAN MAXVALUE)",
        "INSERT INTO big.a_parted SELECT id, RANDOM_BYTES(1000) FROM big.t0 WHERE id < 2000",
        "CREATE TABLE big.a_spare (id INT PRIMARY KEY, v VARBINARY(1024))",
        "INSERT INTO big.a_spare SELECT id, RANDOM_BYTES(1000) FROM big.t0 WHERE id < 2000",
        "CREATE USER poor@localhost",
        "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, RELOAD, LOCK TABLES ON *.* TO poor@localhost",
        match name {
            "mysql-9.7" => {
                "GRANT REPLICATION CLIENT, REPLICATION SLAVE, BACKUP_ADMIN, SHOW_ROUTINE ON *.* TO poor@localhost"
            }
            _ => "GRANT BINLOG MONITOR, REPLICATION SLAVE, BINLOG ADMIN ON *.* TO poor@localhost",
        },
        "GRANT SELECT ON mysql.* TO poor@localhost",
    ];
    server::run(&mut session, &parted).await;
    let swaps = [
        "SET SESSION sql_log_bin = 0",
        "RENAME TABLE big.t0 TO big.x, big.t1 TO big.t0, big.x TO big.t1",
        "RENAME TABLE big.t2 TO big.x, big.t3 TO big.t2, big.x TO big.t3",
        "ALTER TABLE big.a_parted EXCHANGE PARTITION p0 WITH TABLE big.a_spare",
        "SET SESSION sql_log_bin = 1",
    ];
    let swapped = ["t0", "t1", "t2", "t3", "a_parted", "a_spare"];
    // Of an account without PROCESS the numbers of tables are hidden.
    for user in ["root", "poor"] {
        lab.user = user;
        let (mut tries, mut taken) = (0, 0);
        while taken == 0 {
            tries += 1;
            assert!(tries < 40, "no backup lasts long enough to be killed");
            lab.new_repository();
            sleep(Duration::from_millis(3100));
            let run = lab.disturbed(8, |child| child.kill().unwrap());
            if run.is_none_or(|run| run.code == Some(0))
                || lab.on_repo(&["list", "--json"]).expect(0).json() != serde_json::json!([])
            {
                continue;
            }
            server::run(&mut session, &swaps).await;
            let last = lab.backup().expect(0).json();
            let report = &last["resumed"];
            for table in swapped {
                let name = format!("big.{table}");
                assert!(report["chunks_of"].get(&name).is_none(), "{name}: {report:#}");
                let why = report["read_again_because"][&name].as_str().unwrap_or_default();
                assert!(why.contains("has its name by now"), "{name}: {report:#}");
            }
            lab.assert_exact(&last).await;
            taken = report["chunks"].as_u64().unwrap();
            if user == "poor" {
                assert_eq!(taken, 0, "{report:#}");
                break;
            }
        }
    }
}

/// What breaks under a backup: its connections, and the source.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_source_breaks_goes_on(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let mut lab = Lab::start(name).await;
    let wanted = rounds(3);
    let (mut broken, mut resumed, mut tries) = (0, 0, 0);
    while broken < wanted || resumed == 0 {
        tries += 1;
        assert!(tries < 20 * wanted, "no backup lasts long enough to be broken");
        lab.new_repository();
        sleep(Duration::from_millis(3100));
        let mut session = lab.server.session().await;
        let ours = session.id();
        let others = format!(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'root' AND ID <> {ours}"
        );
        let ids = tokio::runtime::Handle::current();
        let run = lab.disturbed(1 + tries as usize % 5, |_| {
            tokio::task::block_in_place(|| {
                ids.block_on(async {
                    for id in session.query_rows::<u64>(&others).await.unwrap() {
                        // Those that just ended are no matter.
                        let _ = session.run(&format!("KILL {id}")).await;
                    }
                });
            });
        });
        let Some(run) = run.filter(|run| run.code != Some(0)) else { continue };
        broken += 1;
        let kinds = [Some(3), Some(6)];
        assert!(kinds.contains(&run.code), "{run:#?}");
        let run = run.says("run the same command again");
        assert_eq!(run.stderr.matches("command again").count(), 1, "{run:#?}");
        assert!(!run.stderr.contains("panicked"), "{run:#?}");
        let last = lab.backup().expect(0).json();
        resumed += u32::from(last["resumed"]["chunks"].as_u64() > Some(0));
        lab.assert_exact(&last).await;
    }
    assert!(resumed > 0, "none of {broken} that were broken was gone on with");
}

/// That the same command goes on is said, and that it has to be run again once.
#[tokio::test]
async fn an_interrupted_backup_says_once_how_it_goes_on() {
    let mut lab = Lab::start("mysql-9.7").await;
    for _ in 0..20 {
        lab.new_repository();
        let run = lab.disturbed(1, |child| {
            kill_process(Pid::from_child(child), Signal::INT).unwrap();
        });
        let Some(run) = run.filter(|run| run.stderr.contains("the same command again")) else {
            continue;
        };
        assert_eq!(run.stderr.matches("command again").count(), 1, "{run:#?}");
        run.expect(13);
        return;
    }
    panic!("no backup had stored anything that can be gone on from");
}

/// InnoDB keeps in memory when a table was changed, and forgets it with the table: nothing tells then of what a session
/// without a binary log did.
#[rstest]
#[ignore = "takes minutes: servers close tables once in 47 s"]
#[tokio::test]
async fn tables_whose_last_change_was_forgotten_are_read_again(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let mut lab = Lab::start(name).await;
    let mut session = lab.server.session().await;
    let many = (0..900).map(|n| format!("CREATE TABLE many.t{n} (id INT) ENGINE=InnoDB"));
    let before = [
        "CREATE DATABASE many",
        "SET GLOBAL table_definition_cache = 400",
        // Without a counter, which is another one when the table is opened again.
        "CREATE TABLE big.plain (id INT PRIMARY KEY)",
        "INSERT INTO big.plain VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9)",
    ];
    server::run(&mut session, &before).await;
    for create in many {
        session.run(&create).await.unwrap();
    }
    let mut told = false;
    while !told {
        lab.new_repository();
        sleep(Duration::from_millis(3100));
        let Some(_) = lab.disturbed(3, |child| child.kill().unwrap()) else { continue };
        let change = "DELETE FROM big.plain LIMIT 1";
        server::run(&mut session, &["SET sql_log_bin = 0", change, "SET sql_log_bin = 1"]).await;
        let known = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'big' AND \
                     TABLE_NAME = 'plain' AND UPDATE_TIME IS NOT NULL";
        let fresh = "SET SESSION information_schema_stats_expiry = 0";
        if name.starts_with("mysql") {
            server::run(&mut session, &[fresh]).await;
        }
        while session.query_first::<u32>(known).await.unwrap() != Some(0) {
            for n in 0..900 {
                session.query_first::<u32>(&format!("SELECT id FROM many.t{n}")).await.unwrap();
            }
            server::run(&mut session, &["FLUSH TABLES"]).await;
            sleep(Duration::from_secs(5));
        }
        let last = lab.backup().expect(0).json();
        if let Some(why) = last["resumed"]["read_again_because"].get("big.plain") {
            assert!(why.as_str().unwrap().contains("has forgotten"), "{last:#}");
            told = true;
        }
        lab.assert_exact(&last).await;
    }
}
