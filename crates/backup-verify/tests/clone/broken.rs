//! Connections that break, donors that go, and backups that are given up.

use std::io::Write as _;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::{
    Context, ErrorKind, Event, Manifest, Monitor, Repository as _, Result, pipeline,
};
use backup_drivers::clone::{CloneBackup, CloneOptions, Ddl};
use backup_drivers::connect::ConnectOptions;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::line::Line;
use crate::stage::{Stage, checksums, run, spec};

pub(crate) async fn stage() -> (Stage, Line) {
    filled(Stage::new(|builder| builder).await).await
}

async fn filled(stage: Stage) -> (Stage, Line) {
    let mut donor = stage.session().await;
    run(&mut donor, &[
        "CREATE USER backup@'%' IDENTIFIED BY 'secret'",
        "GRANT BACKUP_ADMIN ON *.* TO backup@'%'",
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY, a TEXT)",
        "INSERT INTO d.t WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 900) \
         SELECT n, REPEAT(SHA2(n, 256), 60) FROM r",
    ])
    .await;
    let line = Line::to(stage.donor.port().unwrap()).await;
    (stage, line)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_line_is_taken_up_again() {
    let (stage, line) = stage().await;
    let sums = checksums(&mut stage.session().await).await;
    let rounds = std::env::var("HOLDFAST_TEST_ROUNDS").ok().and_then(|n| n.parse().ok());
    let rounds: i64 = rounds.unwrap_or(5);
    // About as much as the clone sends, and the logins before it.
    const ALL: i64 = 80 << 20;
    let mut resumed = 0;
    for n in 0..rounds {
        line.cut_after(2000 + ALL * n / rounds);
        match stage.try_backup(&stage.cx, line.options("backup", "secret")).await {
            Ok(manifest) => {
                resumed += manifest.outcome.details["restarts"].as_u64().unwrap();
                if n % 5 == 0 || n == rounds - 1 {
                    let restored = stage.restored(&manifest, |builder| builder).await;
                    assert_eq!(checksums(&mut restored.session().await).await, sums);
                    restored.check_tables().await;
                }
            }
            // Cut before there was a clone to go on with.
            Err(e) => assert_eq!(e.kind(), ErrorKind::Connect, "{}", e.report()),
        }
        line.cut_after(i64::MAX);
    }
    assert!(resumed > 0, "no clone was resumed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_line_carries_less_and_is_taken_up_again() {
    let (stage, line) = stage().await;
    let sums = checksums(&mut stage.session().await).await;
    let mut carried = Vec::new();
    for compression in [None, Some("zlib"), Some("zstd:1")] {
        let compression = compression.map(|text| text.parse().unwrap());
        let source = || ConnectOptions { compression, ..line.options("backup", "secret") };
        let before = line.carried();
        let whole = stage.try_backup(&stage.cx, source()).await.unwrap();
        let sent = line.carried() - before;
        assert_eq!(whole.outcome.details["restarts"], 0);
        carried.push(sent);

        line.cut_after(sent as i64 / 2);
        let resumed = stage.try_backup(&stage.cx, source()).await.unwrap();
        assert_eq!(resumed.outcome.details["restarts"], 1);
        let restored = stage.restored(&resumed, |builder| builder).await;
        assert_eq!(checksums(&mut restored.session().await).await, sums);
        restored.check_tables().await;
    }
    assert!(carried[1] * 2 < carried[0] && carried[2] * 2 < carried[0], "{carried:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_given_up_leaves_the_donor_free() {
    let (stage, line) = stage().await;
    for n in 0..4 {
        let cx = Context::builder().build();
        let (cancel, progress) = (cx.clone(), cx.clone());
        tokio::spawn(async move {
            // In the middle of the data.
            while progress.progress().snapshot().bytes < n * (8 << 20) + 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            cancel.cancel();
        });
        let e = stage.try_backup(&cx, line.options("backup", "secret")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Interrupted, "{}", e.report());
        // The donor takes one clone at a time: this one would be refused.
        let next = stage.try_backup(&stage.cx, line.options("backup", "secret")).await;
        assert!(next.is_ok(), "{}", next.unwrap_err().report());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_donor_lacks_is_said_with_its_remedy() {
    let (stage, line) = stage().await;
    let mut donor = stage.session().await;
    let wrong = stage.try_backup(&stage.cx, line.options("backup", "wrong")).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Connect);
    // A role gives it too, once it is one that the account signs in with.
    run(
        &mut donor,
        &[
            "REVOKE BACKUP_ADMIN ON *.* FROM backup@'%'",
            "CREATE ROLE cloner",
            "GRANT BACKUP_ADMIN ON *.* TO cloner",
            "GRANT cloner TO backup@'%'",
        ],
    )
    .await;
    let e = stage.try_backup(&stage.cx, line.options("backup", "secret")).await.unwrap_err();
    assert!(e.report().contains("SET DEFAULT ROLE ALL TO 'backup'@'%'"), "{}", e.report());
    run(&mut donor, &["SET DEFAULT ROLE ALL TO backup@'%'"]).await;
    let taken = stage.try_backup(&stage.cx, line.options("backup", "secret")).await;
    assert!(taken.is_ok(), "{}", taken.unwrap_err().report());
    run(&mut donor, &["REVOKE cloner FROM backup@'%'"]).await;
    let e = stage.try_backup(&stage.cx, line.options("backup", "secret")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Privilege);
    assert!(e.report().contains("GRANT BACKUP_ADMIN ON *.* TO 'backup'@'%'"), "{}", e.report());
    run(
        &mut donor,
        &["GRANT BACKUP_ADMIN ON *.* TO backup@'%'", "ALTER INSTANCE DISABLE INNODB REDO_LOG"],
    )
    .await;
    let e = stage.try_backup(&stage.cx, line.options("backup", "secret")).await.unwrap_err();
    assert!(e.report().contains("ALTER INSTANCE ENABLE INNODB REDO_LOG"), "{}", e.report());
    let small = "SET GLOBAL max_allowed_packet = 1048576";
    run(&mut donor, &["ALTER INSTANCE ENABLE INNODB REDO_LOG", small]).await;
    let e = stage.try_backup(&stage.cx, line.options("backup", "secret")).await.unwrap_err();
    assert!(e.report().contains("SET GLOBAL max_allowed_packet = 2097152"), "{}", e.report());
    let enough = "SET GLOBAL max_allowed_packet = 2097152";
    run(&mut donor, &[enough]).await;
    next_is_taken(&stage, &line).await;
    run(&mut donor, &["UNINSTALL PLUGIN clone"]).await;
    let e = stage.try_backup(&stage.cx, line.options("backup", "secret")).await.unwrap_err();
    assert!(e.report().contains("INSTALL PLUGIN clone"), "{}", e.report());
}

/// A backup that goes on by itself, and stands still in the middle of the data.
async fn held(stage: &Stage, line: &Line, options: CloneOptions) -> JoinHandle<Result<Manifest>> {
    line.hold_after(30 << 20);
    let driver = CloneBackup::new(line.options("backup", "secret"), options);
    let (cx, repository) = (stage.cx.clone(), stage.repository.clone());
    let mut backup =
        tokio::spawn(async move { pipeline::backup(&cx, &repository, &driver, spec()).await });
    tokio::select! {
        () = line.held() => backup,
        early = &mut backup => panic!("it ended before: {early:?}"),
    }
}

async fn next_is_taken(stage: &Stage, line: &Line) {
    let next = stage.try_backup(&stage.cx, line.options("backup", "secret")).await;
    assert!(next.is_ok(), "{}", next.unwrap_err().report());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_donor_is_cloned_once_at_a_time() {
    let (stage, line) = stage().await;
    let backup = held(&stage, &line, stage.options()).await;
    // Who may see it is told before anything is begun; the donor tells everybody else.
    let see = stage.try_backup(&stage.cx, stage.source()).await.unwrap_err();
    assert!(see.report().contains("another clone of the source is under way"), "{}", see.report());
    let refused = stage.try_backup(&stage.cx, stage.tcp("backup", "secret")).await.unwrap_err();
    assert!(refused.report().contains("wait until it ends"), "{}", refused.report());
    assert_eq!((see.kind(), refused.kind()), (ErrorKind::Source, ErrorKind::Source));
    line.release();
    backup.await.unwrap().unwrap_or_else(|e| panic!("{}", e.report()));
    next_is_taken(&stage, &line).await;
}

/// The sessions of a clone, at the donor.
async fn clones(stage: &Stage) -> Vec<u64> {
    let sql = "SELECT ID FROM performance_schema.processlist WHERE COMMAND = 'Clone' ORDER BY ID";
    stage.session().await.query_rows(sql).await.unwrap()
}

/// A donor waits for a client that is gone. The next one says how that is ended, which is tried here.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_nobody_takes_any_more_is_ended_by_what_is_said() {
    let (stage, line) = stage().await;
    let backup = held(&stage, &line, stage.options()).await;
    backup.abort();
    assert!(backup.await.is_err_and(|e| e.is_cancelled()));
    line.release();
    let mut donor = stage.session().await;
    let e = stage.try_backup(&stage.cx, stage.tcp("backup", "secret")).await.unwrap_err().report();
    assert!(e.contains("another clone of the source is under way, of session"), "{e}");
    let kill =
        e.split("; ").find(|part| part.starts_with("KILL ")).unwrap_or_else(|| panic!("{e}"));
    donor.run(kill.split(" ends").next().unwrap()).await.unwrap();
    next_is_taken(&stage, &line).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_a_clone_are_killed() {
    let (stage, line) = stage().await;
    let sums = checksums(&mut stage.session().await).await;
    let mut donor = stage.session().await;
    // That of the acknowledgements goes: we come back, and go on.
    let backup = held(&stage, &line, stage.options()).await;
    let sessions = clones(&stage).await;
    assert_eq!(sessions.len(), 2);
    run(&mut donor, &[&format!("KILL {}", sessions[1])]).await;
    line.release();
    let manifest = backup.await.unwrap().unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(manifest.outcome.details["restarts"], 1);
    let restored = stage.restored(&manifest, |builder| builder).await;
    assert_eq!(checksums(&mut restored.session().await).await, sums);
    // Those that only ask the donor go, as an idle one may: there is none that is needed.
    let backup = held(&stage, &line, stage.options()).await;
    let sql = "SELECT ID FROM performance_schema.processlist WHERE USER = 'backup' AND COMMAND <> 'Clone'";
    for session in donor.query_rows::<u64>(sql).await.unwrap() {
        run(&mut donor, &[&format!("KILL {session}")]).await;
    }
    line.release();
    backup.await.unwrap().unwrap_or_else(|e| panic!("{}", e.report()));
    // That of the data goes, and with it the donor lets go of the clone.
    let backup = held(&stage, &line, stage.options()).await;
    run(&mut donor, &[&format!("KILL {}", clones(&stage).await[0])]).await;
    line.release();
    let e = backup.await.unwrap().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Source);
    assert!(e.report().contains("or somebody killed its sessions"), "{}", e.report());
    next_is_taken(&stage, &line).await;
    // The clone goes: somebody wants that.
    let backup = held(&stage, &line, stage.options()).await;
    run(&mut donor, &[&format!("KILL QUERY {}", clones(&stage).await[0])]).await;
    line.release();
    let e = backup.await.unwrap().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Source);
    assert!(e.report().contains("stopped it with KILL"), "{}", e.report());
    next_is_taken(&stage, &line).await;
}

/// Keeps what is told.
#[derive(Default)]
struct Told(Mutex<Vec<String>>, Notify);

impl Monitor for Told {
    fn event(&self, event: Event) {
        if let Event::Phase { name: text } | Event::Warning { text } = event {
            self.0.lock().unwrap().push(text);
            self.1.notify_one();
        }
    }
}

impl Told {
    fn has(&self, what: &str) -> bool {
        self.0.lock().unwrap().iter().any(|text| text.starts_with(what))
    }

    async fn until(&self, what: &str) {
        while !self.has(what) {
            self.1.notified().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_donor_that_was_killed_has_forgotten_the_clone() {
    let (mut stage, line) = stage().await;
    let told = Arc::new(Told::default());
    let cx = Context::builder().monitor(Arc::clone(&told) as Arc<dyn Monitor>).build();
    stage.cx = cx.clone();
    // It comes again. Meanwhile it is said how long that may take.
    let backup = held(&stage, &line, stage.options()).await;
    stage.donor.kill();
    line.release();
    told.until("waiting for the source, which is given up in 29").await;
    stage.donor.restart(&cx).await.unwrap();
    let e = backup.await.unwrap().unwrap_err();
    assert!(told.has("the connection to the source was lost, trying again for 300 s: "));
    assert_eq!(e.kind(), ErrorKind::Source, "{}", e.report());
    assert!(e.report().contains("take the backup again"), "{}", e.report());
    next_is_taken(&stage, &line).await;
    // It does not, and would not have waited for us.
    let sql = "SET GLOBAL clone_donor_timeout_after_network_failure = 0";
    run(&mut stage.session().await, &[sql]).await;
    let backup = held(&stage, &line, stage.options()).await;
    stage.donor.kill();
    line.release();
    let e = backup.await.unwrap().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Connect, "{}", e.report());
    assert!(e.report().contains("could not be had again in 0 s"), "{}", e.report());
    stage.donor.restart(&cx).await.unwrap();
    next_is_taken(&stage, &line).await;
    assert_eq!(stage.repository.backups(&cx, None).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_waits_when_it_is_to_wait_but_not_for_ever() {
    let (stage, line) = stage().await;
    let mut donor = stage.session().await;
    run(&mut donor, &["SET SESSION lock_wait_timeout = 1"]).await;
    let blocked = |limit| CloneOptions { ddl: Ddl::Blocked { limit }, ..stage.options() };
    let backup = held(&stage, &line, blocked(600)).await;
    let e = donor.run("CREATE TABLE d.late (id INT)").await.unwrap_err();
    assert_eq!(e.server().unwrap().code, 1205, "{}", e.report());
    run(&mut donor, &["INSERT INTO d.t VALUES (100000, 'in time')"]).await;
    line.release();
    let manifest = backup.await.unwrap().unwrap_or_else(|e| panic!("{}", e.report()));
    assert!(manifest.outcome.lock_seconds > 0.0);
    run(&mut donor, &["CREATE TABLE d.late (id INT)"]).await;
    let restored = stage.restored(&manifest, |builder| builder).await;
    let sql = "SELECT COUNT(*) FROM d.t WHERE id = 100000";
    assert_eq!(restored.session().await.query_first::<u64>(sql).await.unwrap(), Some(1));

    let backup = held(&stage, &line, blocked(1)).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    line.release();
    let e = backup.await.unwrap().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Source);
    assert!(e.report().contains("kept DDL waiting for 1 s"), "{}", e.report());
    run(&mut donor, &["DROP TABLE d.late"]).await;
    next_is_taken(&stage, &line).await;
}

/// A small file system; it is gone with the value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> SmallDisk {
        let place = tempfile::TempDir::new().unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(place.path());
        assert!(mount.status().unwrap().success(), "mounting a tmpfs needs root");
        SmallDisk(place)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_the_donor_is_full() {
    let disk = SmallDisk::mount("500m");
    let data = disk.0.path().join("data");
    let stage = Stage::new(|builder| builder.datadir(data)).await;
    let (mut stage, line) = filled(stage).await;
    let mut donor = stage.session().await;
    let filler = disk.0.path().join("filler");
    let fill = || {
        let mut file = std::fs::File::create(&filler).unwrap();
        let full = std::iter::repeat_with(|| file.write_all(&[0; 4096])).find_map(Result::err);
        assert_eq!(full.unwrap().kind(), std::io::ErrorKind::StorageFull);
    };
    let change = ["SET SESSION sql_log_bin = OFF", "UPDATE d.t SET a = REVERSE(a)"];
    for full_before in [true, false] {
        if full_before {
            fill();
        }
        let backup = match full_before {
            true => tokio::spawn({
                let driver = CloneBackup::new(line.options("backup", "secret"), stage.options());
                let (cx, repository) = (stage.cx.clone(), stage.repository.clone());
                async move { pipeline::backup(&cx, &repository, &driver, spec()).await }
            }),
            false => {
                let backup = held(&stage, &line, stage.options()).await;
                fill();
                run(&mut donor, &change).await;
                line.release();
                backup
            }
        };
        match backup.await.unwrap() {
            // The donor needed no more room than it had.
            Ok(manifest) => {
                eprintln!("a clone of a full disk, full before: {full_before}");
                stage.restored(&manifest, |builder| builder).await.check_tables().await;
            }
            Err(e) => {
                eprintln!("full before: {full_before}: {}", e.report());
                let clear = [ErrorKind::Source, ErrorKind::Space];
                assert!(clear.contains(&e.kind()), "{}", e.report());
            }
        }
        std::fs::remove_file(&filler).unwrap();
        // The archiver of its redo log stays broken off until the server starts again; then a clone is
        // taken.
        let next = stage.try_backup(&stage.cx, line.options("backup", "secret")).await;
        if let Err(e) = next {
            assert!(!full_before, "{}", e.report());
            assert!(e.report().contains("restart it"), "{}", e.report());
            let cx = stage.cx.clone();
            stage.donor.restart(&cx).await.unwrap();
        }
        next_is_taken(&stage, &line).await;
    }
}
