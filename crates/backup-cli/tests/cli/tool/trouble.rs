//! What goes wrong while a tool reads a server: it dies, the server overtakes it, definitions change under it,
//! the disk fills, and the chain leads to another history.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use backup_core::Context;
use rstest::rstest;
use serde_json::json;

use super::stream::extract;
use super::{TABLES, backup, faulty, fill, number, on, rounds};
use crate::backup::SmallDisk;
use crate::home::{Home, Run};
use crate::server::{self, Server, install};

/// A tool that stands still after so many bytes of its stream, until it is told to go on.
pub(super) struct Stalled {
    pub(super) tool: PathBuf,
    /// What it wrote.
    stream: PathBuf,
    stands: PathBuf,
    on: PathBuf,
}

impl Stalled {
    pub(super) fn after(home: &Home, name: &str, bytes: u64) -> Stalled {
        let (stands, on, stream) = (home.path("stands"), home.path("on"), home.path("stream"));
        let script = format!(
            "set -o pipefail\n$REAL \"$@\" | {{ head -c {bytes}; touch {}; \
             until [ -e {} ] || [ ! -e {} ]; do sleep 0.05; done; cat; }} | tee {}",
            stands.display(),
            on.display(),
            stands.display(),
            stream.display()
        );
        Stalled { tool: faulty(home, name, &script), stream, stands, on }
    }

    /// Begins a backup, and waits until the tool stands still.
    pub(super) fn begin(&self, home: &Home, server: &Server) -> Child {
        let url = server.url();
        let tool = self.tool.to_str().unwrap();
        let args = ["backup", "--strategy", "physical", "--cluster", "bank", "--source", &url];
        let mut command = home.command(args.into_iter().chain(["--tool", tool, "--json"]));
        command.env("HOLDFAST_REPO", "repo").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        while !self.stands.exists() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it stood still");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        child
    }

    pub(super) fn go_on(&self, child: Child) -> Run {
        std::fs::write(&self.on, "").unwrap();
        Run::from(child.wait_with_output().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_is_killed_at_any_moment_leaves_nothing() {
    let home = Home::with_repo();
    let server = on("mariadb-10.11", &home.path("data")).await;
    fill(&mut server.session().await).await;
    let log = home.path("log");
    let script = format!("$REAL \"$@\" 2> >(tee {} >&2)", log.display());
    backup(&home, &server, &faulty(&home, "mariadb-10.11", &script)).expect(0);
    let lines = std::fs::read_to_string(&log).unwrap().lines().count();
    let (moments, mut whole) = (rounds(5).max(1), 1);
    for n in 0..moments {
        // What becomes of it, it says itself, or somebody who lies.
        let line = 1 + lines * n / moments;
        let end = if n % 3 == 2 { "exit 0" } else { "wait $pid" };
        let script = format!(
            "rm -f said; mkfifo said; $REAL \"$@\" 2> said & pid=$!\n\
             n=0; while IFS= read -r line; do echo \"$line\" >&2; n=$((n+1))\n\
             [ $n = {line} ] && kill -9 $pid; done < said; {end}"
        );
        let run = backup(&home, &server, &faulty(&home, "mariadb-10.11", &script));
        // It may have been through before it could be killed.
        match run.code {
            Some(0) => whole += 1,
            _ => drop(run.expect(6)),
        }
        let listed = home.on_repo(["list", "--json"]).expect(0).json();
        assert_eq!(listed.as_array().unwrap().len(), whole);
    }
    assert!(whole < 1 + moments.div_ceil(2), "{whole} of {moments} were not killed");
    // Nothing is locked, and the next one is whole.
    server::run(&mut server.session().await, &["DROP TABLE bank.old"]).await;
    backup(&home, &server, &faulty(&home, "mariadb-10.11", "exec $REAL \"$@\"")).expect(0);
    home.on_repo(["verify", "--all", "--level", "content"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_is_told_as_one_that_was_lost() {
    let home = Home::with_repo();
    let mut server = on("mariadb-10.11", &home.path("data")).await;
    fill(&mut server.session().await).await;
    let stalled = Stalled::after(&home, "mariadb-10.11", 3_000_000);
    let child = stalled.begin(&home, &server);
    server.0.kill();
    stalled.go_on(child).expect(3).says("could not reach the server, or lost it");
    let listed = home.on_repo(["list", "--json"]).expect(0).json();
    assert_eq!(listed.as_array().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holdfast_that_is_killed_frees_the_server_too() {
    let home = Home::with_repo();
    let server = on("mariadb-10.11", &home.path("data")).await;
    fill(&mut server.session().await).await;
    let stalled = Stalled::after(&home, "mariadb-10.11", 3_000_000);
    let mut child = stalled.begin(&home, &server);
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::write(&stalled.on, "").unwrap();
    server::run(&mut server.session().await, &["ALTER TABLE bank.old ADD COLUMN more INT"]).await;
    let listed = home.on_repo(["list", "--json"]).expect(0).json();
    assert_eq!(listed.as_array().unwrap().len(), 0);
    backup(&home, &server, &faulty(&home, "mariadb-10.11", "exec $REAL \"$@\"")).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_writes_over_its_redo_log_ends_the_backup() {
    let home = Home::with_repo();
    let cx = Context::builder().build();
    let builder = xtask::servers::sandbox("mariadb-10.11").await.unwrap();
    let builder = builder.durable(false).option("innodb_log_file_size", "4M");
    let server = Server(builder.start(&cx).await.unwrap());
    let mut session = server.session().await;
    server::run(&mut session, &TABLES).await;
    let stalled = Stalled::after(&home, "mariadb-10.11", 1_000_000);
    let child = stalled.begin(&home, &server);
    // Several times what the log holds, while nobody takes what the tool reads.
    let sql = [
        "CREATE TABLE bank.bulk (id INT PRIMARY KEY, t BLOB)",
        "INSERT INTO bank.bulk SELECT seq, REPEAT(RANDOM_BYTES(1000 + seq % 24), 8) FROM bank.seq_1_to_3000",
        "UPDATE bank.bulk SET t = REPEAT(RANDOM_BYTES(1000 + id % 24), 8)",
    ];
    server::run(&mut session, &sql).await;
    let run = stalled.go_on(child).expect(6);
    let said = run.json()["error"].clone();
    assert!(said["message"].as_str().unwrap().contains("wrote over its redo log"), "{said:#}");
    assert!(said["remedy"].as_str().unwrap().contains("innodb_log_file_size"), "{said:#}");
    assert_eq!(home.on_repo(["list", "--json"]).expect(0).json().as_array().unwrap().len(), 0);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_change_in_mid_backup_are_as_they_were_at_its_end(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
    #[values(2, 60)] percent: u64,
) {
    let home = Home::with_repo();
    let mut server = on(name, &home.path("data")).await;
    let mut session = server.session().await;
    fill(&mut session).await;
    let before = [
        "CREATE TABLE bank.dropped (id INT PRIMARY KEY) SELECT seq AS id FROM bank.seq_1_to_500",
        "CREATE TABLE bank.emptied (id INT PRIMARY KEY) SELECT seq AS id FROM bank.seq_1_to_500",
        "CREATE TABLE bank.renamed (id INT PRIMARY KEY) SELECT seq AS id FROM bank.seq_1_to_500",
        "CREATE TABLE bank.swap_a (id INT PRIMARY KEY) SELECT seq AS id FROM bank.seq_1_to_10",
        "CREATE TABLE bank.swap_b (id INT PRIMARY KEY) SELECT seq AS id FROM bank.seq_1_to_20",
        "CREATE DATABASE gone",
        "CREATE TABLE gone.t (id INT PRIMARY KEY)",
        "CREATE TABLE gone.old (id INT PRIMARY KEY) ENGINE=MyISAM",
        "CREATE TABLE bank.old_dropped (id INT PRIMARY KEY) ENGINE=MyISAM SELECT seq AS id FROM bank.seq_1_to_50",
        "CREATE TABLE bank.old_renamed (id INT PRIMARY KEY) ENGINE=MyISAM SELECT seq AS id FROM bank.seq_1_to_60",
        "CREATE TABLE bank.old_parts (id INT PRIMARY KEY) ENGINE=MyISAM PARTITION BY HASH (id) PARTITIONS 3",
        "INSERT INTO bank.old_parts SELECT seq FROM bank.seq_1_to_70",
        "CREATE TABLE bank.aria_renamed (id INT PRIMARY KEY) ENGINE=Aria SELECT seq AS id FROM bank.seq_1_to_80",
    ];
    server::run(&mut session, &before).await;
    let size = home.path("size");
    let whole = format!("set -o pipefail; $REAL \"$@\" | tee >(wc -c > {})", size.display());
    backup(&home, &server, &faulty(&home, name, &whole)).expect(0);
    let size: u64 = std::fs::read_to_string(size).unwrap().trim().parse().unwrap();
    let stalled = Stalled::after(&home, name, size * percent / 100);
    let child = stalled.begin(&home, &server);
    let meanwhile = [
        "DROP TABLE bank.dropped",
        "TRUNCATE TABLE bank.emptied",
        "INSERT INTO bank.emptied SELECT seq FROM bank.seq_1_to_7",
        "RENAME TABLE bank.renamed TO bank.other",
        "RENAME TABLE bank.swap_a TO bank.swap, bank.swap_b TO bank.swap_a, bank.swap TO bank.swap_b",
        "ALTER TABLE bank.words ADD COLUMN more VARCHAR(20) DEFAULT 'more', ADD INDEX (more)",
        "ALTER TABLE bank.moves REORGANIZE PARTITION",
        "OPTIMIZE TABLE bank.accounts",
        "CREATE TABLE bank.made (id INT PRIMARY KEY, t TEXT, FULLTEXT (t)) SELECT seq AS id, 'word' AS t \
         FROM bank.seq_1_to_400",
        "CREATE DATABASE fresh",
        "CREATE TABLE fresh.t (id INT PRIMARY KEY) SELECT seq AS id FROM bank.seq_1_to_30",
        "DROP DATABASE gone",
        "DROP TABLE bank.old_dropped",
        "RENAME TABLE bank.old_renamed TO bank.old_other, bank.aria_renamed TO bank.aria_other",
        "CREATE TABLE bank.old_renamed (id INT PRIMARY KEY) ENGINE=MyISAM SELECT seq AS id FROM bank.seq_1_to_9",
        "ALTER TABLE bank.old_parts COALESCE PARTITION 1",
        "ALTER TABLE bank.old ADD COLUMN more INT DEFAULT 7",
        "TRUNCATE TABLE bank.aria",
        "INSERT INTO bank.aria VALUES (1, 'one')",
    ];
    server::run(&mut session, &meanwhile).await;
    // What the tool is not to be trusted with is told.
    let run = stalled.go_on(child).expect(14).says("prove this backup by a drill");
    let id = run.json()["backup"].as_str().unwrap().to_owned();
    let expected = sums(&server).await;
    server.0.stop().await.unwrap();

    // The tool of the server takes the same files out of its stream as out of ours.
    let ours = home.path("ours.xb");
    let export = ["export", &id, "--format", "xbstream", "-o", ours.to_str().unwrap()];
    home.on_repo(export).expect(0);
    extract(name, &stalled.stream, &home.path("by-tool"));
    extract(name, &ours, &home.path("by-us"));
    let files = |place: &str| {
        let place = home.path(place);
        let short = |path: PathBuf| path.strip_prefix(&place).unwrap().to_owned();
        let of = home.files(place.file_name().unwrap().to_str().unwrap()).into_iter();
        of.map(|(path, bytes)| (short(path), bytes)).collect::<Vec<_>>()
    };
    assert_eq!(files("by-us"), files("by-tool"));
    for (path, _) in files("by-us") {
        let read = |place: &str| std::fs::read(home.path(place).join(&path)).unwrap();
        assert!(read("by-us") == read("by-tool"), "{path:?}");
    }

    let to = home.path("restored");
    let tool = install(name);
    let to = ["--target-dir", to.to_str().unwrap(), "--tool", tool.to_str().unwrap()];
    home.on_repo([&["restore", &id, "--cluster", "bank"][..], &to].concat()).expect(0);
    let mut restored = on(name, &home.path("restored")).await;
    assert_eq!(sums(&restored).await, expected);
    let found = "SELECT COUNT(*) FROM bank.made WHERE MATCH (t) AGAINST ('word' IN BOOLEAN MODE)";
    assert_eq!(number(&restored, found).await, 400);
    restored.0.stop().await.unwrap();
    let log = std::fs::read_to_string(restored.0.error_log()).unwrap();
    assert!(!log.contains("[ERROR]"), "{log}");
}

/// The tables of users with their content, each of them sound. Without those that the tool itself loses: it renames
/// and empties tables of Aria while their log says otherwise, and gives the new files of a table that was made
/// again to the one that was renamed.
async fn sums(server: &Server) -> Vec<(String, Option<u64>)> {
    let mut session = server.session().await;
    let sql = "SELECT CONCAT('`', table_schema, '`.`', table_name, '`') FROM information_schema.tables \
               WHERE table_schema IN ('bank', 'fresh', 'gone') AND table_type = 'BASE TABLE' AND table_name \
               NOT IN ('aria', 'aria_other', 'old_other', 'old_renamed') ORDER BY 1";
    let tables = session.query_rows::<String>(sql).await.unwrap().join(", ");
    let check = format!("CHECK TABLE {tables} EXTENDED");
    let said: Vec<(String, String, String, String)> = session.query_rows(&check).await.unwrap();
    assert!(said.iter().all(|(.., text)| text == "OK"), "{said:?}");
    session.query_rows(&format!("CHECKSUM TABLE {tables} EXTENDED")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_ends_the_backup_and_a_small_one_is_seen_before_a_restore() {
    let home = Home::new();
    let disk = SmallDisk::mount(&home.path("small"), "4m");
    home.run(["init", "--repo", "small/repo", "--no-encryption"]).expect(0);
    let server = on("mariadb-10.11", &home.path("data")).await;
    let mut session = server.session().await;
    fill(&mut session).await;
    let sql = [
        "CREATE TABLE bank.bulk (id INT PRIMARY KEY, t BLOB)",
        "INSERT INTO bank.bulk SELECT seq, RANDOM_BYTES(1000 + seq % 24) FROM bank.seq_1_to_8000",
    ];
    server::run(&mut session, &sql).await;
    let (url, tool) = (server.url(), install("mariadb-10.11"));
    let tool = tool.to_str().unwrap();
    let take = |kind: &str| {
        let args = ["backup", "--repo", "small/repo", "--strategy", "physical", "--source", &url];
        home.run(
            [&args[..], &["--cluster", "bank", "--tool", tool, "--type", kind, "--json"]].concat(),
        )
    };
    take("full").expect(5);
    assert_eq!(home.run(["list", "--repo", "small/repo", "--json"]).expect(0).json(), json!([]));
    // The tool has ended with it, and holds nothing.
    server::run(&mut session, &["ALTER TABLE bank.old ADD COLUMN more INT"]).await;
    disk.resize("200m");
    let read = |run: &Run| run.json()["bytes_read"].as_u64().unwrap();
    let full = take("full").expect(0);
    server::run(&mut session, &["UPDATE bank.bulk SET t = RANDOM_BYTES(1000 + id % 24)"]).await;
    let increment = take("incremental").expect(0);

    // There is room for the full backup, and none for the increment beside it.
    let room = read(&full) + read(&increment) / 2;
    let target = SmallDisk::mount(&home.path("target"), &format!("{}k", room / 1024));
    let to = home.path("target/data");
    let args = ["restore", "--repo", "small/repo", "--cluster", "bank", "--tool", tool];
    let args = [&args[..], &["--target-dir", to.to_str().unwrap()]].concat();
    for more in [&["--dry-run"][..], &[]] {
        home.run([&args[..], more].concat()).expect(5).says("has room for");
        assert!(!to.exists());
    }
    target.resize("400m");
    home.run(args).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_increment_does_not_go_on_from_another_history() {
    let home = Home::with_repo();
    let data = home.path("data");
    let mut server = on("mariadb-10.11", &data).await;
    fill(&mut server.session().await).await;
    let tool = install("mariadb-10.11");
    let tool = tool.to_str().unwrap();
    let take = |server: &Server, kind: &str| {
        let url = server.url();
        let args = ["backup", "--strategy", "physical", "--source", &url, "--cluster", "bank"];
        home.on_repo([&args[..], &["--tool", tool, "--type", kind, "--json"]].concat())
    };
    let full = take(&server, "full").expect(0).json()["backup"].as_str().unwrap().to_owned();
    let write = ["UPDATE bank.accounts SET v = v + 1"; 20];
    server::run(&mut server.session().await, &write).await;
    take(&server, "incremental").expect(0);
    server.0.stop().await.unwrap();

    // The same directory, as it was before, and gone on with to other pages of the same LSNs.
    let restore = ["restore", &full, "--cluster", "bank", "--tool", tool, "--target-dir"];
    let to = [data.to_str().unwrap(), "--overwrite"];
    home.on_repo([&restore[..], &to].concat()).expect(0);
    let mut server = on("mariadb-10.11", &data).await;
    take(&server, "incremental").expect(6).says("take a full backup");
    server::run(&mut server.session().await, &write).await;
    server::run(&mut server.session().await, &write).await;
    take(&server, "incremental").expect(6).says("made anew since");
    server.0.stop().await.unwrap();

    // The same again, written over the files that are there.
    let to = [data.to_str().unwrap(), "--delta"];
    home.on_repo([&restore[..], &to].concat()).expect(0);
    let mut server = on("mariadb-10.11", &data).await;
    let full = take(&server, "full").expect(0).json()["backup"].as_str().unwrap().to_owned();
    server::run(&mut server.session().await, &write).await;
    take(&server, "full").expect(0);
    server.0.stop().await.unwrap();
    let restore = ["restore", &full, "--cluster", "bank", "--tool", tool, "--target-dir"];
    home.on_repo([&restore[..], &to].concat()).expect(0);
    let mut server = on("mariadb-10.11", &data).await;
    let other = ["UPDATE bank.packed SET t = REPEAT('other', 500)"];
    server::run(&mut server.session().await, &other).await;
    take(&server, "incremental").expect(6).says("cannot be read up to the position");
    server::run(&mut server.session().await, &[other[0]; 50]).await;
    take(&server, "incremental").expect(6).says("the binary log is another one now");
    server.0.stop().await.unwrap();
}
