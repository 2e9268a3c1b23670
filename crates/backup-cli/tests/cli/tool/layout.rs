//! Sources whose pages have another size, or whose system tablespace has other files, than a tool takes for granted.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use backup_core::Context;
use rstest::rstest;

use super::{faulty, install};
use crate::home::Home;
use crate::server::{self, Server};

type Options = &'static [(&'static str, &'static str)];

const SEVERAL_FILES: Options = &[
    ("innodb_file_per_table", "OFF"),
    ("innodb_data_file_path", "ibdata1:12M;ibdata2:10M;ibdata3:10M:autoextend"),
];
const ANOTHER_NAME: Options = &[("innodb_data_file_path", "mysys:14M:autoextend")];

async fn started(name: &str, directory: &Path, options: Options) -> Server {
    let mut builder =
        xtask::servers::sandbox(name).await.unwrap().datadir(directory).durable(false);
    for (name, value) in options {
        builder = builder.option(*name, *value);
    }
    Server(builder.start(&Context::builder().build()).await.unwrap())
}

async fn sums(server: &Server) -> Vec<(String, Option<u64>)> {
    server.session().await.query_rows("CHECKSUM TABLE a.t, a.u EXTENDED").await.unwrap()
}

#[rstest]
#[case::small("mariadb-10.11", &[("innodb_page_size", "4096")])]
#[case::large("mariadb-11.8", &[("innodb_page_size", "65536")])]
#[case::files("mariadb-10.11", SEVERAL_FILES)]
#[case::name("mariadb-11.8", ANOTHER_NAME)]
#[tokio::test(flavor = "multi_thread")]
async fn sources_of_another_layout_come_back(#[case] name: &str, #[case] options: Options) {
    let home = Home::with_repo();
    let mut server = started(name, &home.path("data"), options).await;
    let mut session = server.session().await;
    let sql = [
        "CREATE DATABASE a",
        "CREATE TABLE a.t (id INT PRIMARY KEY, v VARCHAR(1000))",
        "CREATE TABLE a.u (id INT PRIMARY KEY, v VARCHAR(1000)) ENGINE = Aria",
        "INSERT INTO a.t SELECT seq, REPEAT(MD5(seq), 30) FROM a.seq_1_to_30000",
        "INSERT INTO a.u SELECT seq, MD5(seq) FROM a.seq_1_to_100",
    ];
    server::run(&mut session, &sql).await;
    let (url, tool) = (server.url(), install(name));
    let tool = tool.to_str().unwrap();
    let mut taken = Vec::new();
    for kind in ["full", "incremental"] {
        let args = ["backup", "--strategy", "physical", "--type", kind, "--cluster", "a", "--json"];
        let run = home.on_repo([&args[..], &["--source", &url, "--tool", tool]].concat());
        let backup = run.expect(0).json()["backup"].as_str().unwrap().to_owned();
        taken.push((backup, sums(&server).await));
        let sql = "UPDATE a.t SET v = REPEAT(MD5(v), 30) WHERE id % 9 = 0";
        server::run(&mut session, &[sql]).await;
    }
    server.0.stop().await.unwrap();
    for (n, (backup, wanted)) in taken.iter().enumerate() {
        let directory = home.path(&format!("restored{n}"));
        let to = ["--cluster", "a", "--target-dir", directory.to_str().unwrap(), "--tool", tool];
        let restore = [&["restore", backup][..], &to].concat();
        // A server has to be told what it would not guess, before as after, and each once.
        let (variable, value) = options.last().unwrap();
        let setting = format!("{variable}={value}");
        home.on_repo([&restore[..], &["--dry-run"]].concat()).expect(14);
        let config = home
            .write("my.cnf", &format!("[mysqld]\n{setting}\ndatadir={}\n", directory.display()));
        let config = ["--server-config", config.to_str().unwrap(), "--server-dir", tool];
        home.on_repo([&restore[..], &config, &["--dry-run"]].concat()).expect(0);
        let done = home.on_repo([&restore[..], &["--json"]].concat()).expect(14).json();
        let [told] = &done["warnings"].as_array().unwrap()[..] else { panic!("{done:#}") };
        assert!(told.as_str().unwrap().contains(&format!("write {setting}")), "{done:#}");
        let mode = directory.join("a").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "as servers make them");
        let mut restored = started(name, &directory, options).await;
        assert_eq!(sums(&restored).await, *wanted, "{backup}");
        restored.0.stop().await.unwrap();
        let drill = ["verify", backup, "--cluster", "a", "--level", "drill", "--server-dir", tool];
        home.on_repo(drill).expect(0);
    }
}

/// As by the kernel that has no more memory: nothing says goodbye, and the tool works on.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_in_the_prepare_is_marked_and_gone_on_with() {
    let home = Home::with_repo();
    let name = "mariadb-10.11";
    let mut server = started(name, &home.path("data"), &[]).await;
    let mut session = server.session().await;
    let sql = [
        "CREATE DATABASE a",
        "CREATE TABLE a.t (id INT PRIMARY KEY, v VARCHAR(1000))",
        "CREATE TABLE a.u (id INT PRIMARY KEY, v VARCHAR(1000)) ENGINE = Aria",
        "INSERT INTO a.t SELECT seq, REPEAT(MD5(seq), 30) FROM a.seq_1_to_1000",
    ];
    server::run(&mut session, &sql).await;
    let (url, tool) = (server.url(), install(name));
    let tool = tool.to_str().unwrap();
    for kind in ["full", "incremental"] {
        let args = ["backup", "--strategy", "physical", "--type", kind, "--cluster", "a"];
        home.on_repo([&args[..], &["--source", &url, "--tool", tool]].concat()).expect(0);
        server::run(&mut session, &["DELETE FROM a.t WHERE id % 9 = 0"]).await;
        server::run(&mut session, &["UPDATE a.t SET v = 'x' WHERE id % 9 = 1"]).await;
    }
    server.0.stop().await.unwrap();
    let directory = home.path("restored");
    let to = ["restore", "--cluster", "a", "--target-dir", directory.to_str().unwrap(), "--tool"];
    // Before the increment is applied, and after it.
    for (n, script) in [
        "case \"$*\" in *--incremental-dir*) kill -9 $PPID; sleep 2;; esac; exec $REAL \"$@\"",
        "$REAL \"$@\"; case \"$*\" in *--incremental-dir*) kill -9 $PPID; sleep 2;; esac",
    ]
    .iter()
    .enumerate()
    {
        let faulty = faulty(&home, name, script);
        let killed = home.on_repo([&to[..], &[faulty.to_str().unwrap()]].concat());
        assert_eq!(killed.code, None, "{killed:?}");
        assert!(directory.join(".holdfast-restore").exists(), "{n}");
        // The tool is still at it.
        home.on_repo([&to[..], &[tool]].concat()).expect(12).says("another restore into");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while home.on_repo([&to[..], &[tool, "--dry-run"]].concat()).code != Some(0)
            || is_locked(&directory.join(".holdfast-restore"))
        {
            assert!(std::time::Instant::now() < deadline, "the tool does not end");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
    home.on_repo([&to[..], &[tool]].concat()).expect(0);
    assert!(!directory.join(".holdfast-restore").exists());
    let mut restored = started(name, &directory, &[]).await;
    let sql = "SELECT CONCAT(COUNT(*), ' ', SUM(v = 'x')) FROM a.t";
    assert_eq!(restored.value(sql).await.as_deref(), Some("889 112"));
    restored.0.stop().await.unwrap();
}

fn is_locked(path: &Path) -> bool {
    let file = std::fs::File::open(path).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
}
