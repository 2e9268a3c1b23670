//! Backups as a stream that the servers' own tools extract, prepare, and start on.

use std::path::Path;
use std::process::{Command, Stdio};

use rstest::rstest;

use super::{ACCOUNTS, fill, number, on};
use crate::home::{Home, Run};
use crate::server::{self, Server, install};

/// A program of an installation.
pub(super) fn program(name: &str, program: &str) -> Command {
    xtask::servers::install(name).unwrap().command(program).unwrap()
}

/// Extracts a stream into a new directory with the tool of the server.
pub(super) fn extract(name: &str, stream: &Path, directory: &Path) {
    std::fs::create_dir(directory).unwrap();
    let stream = std::fs::File::open(stream).unwrap();
    let mut mbstream = program(name, "mbstream");
    Run::of(mbstream.arg("-x").arg("-C").arg(directory).stdin(stream)).expect(0);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn mbstream_and_mariadb_backup_take_what_is_exported(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let home = Home::with_repo();
    let mut server = on(name, &home.path("data")).await;
    let mut session = server.session().await;
    fill(&mut session).await;
    let (url, tool) = (server.url(), install(name));
    let take = |kind: &str| {
        let args = ["backup", "--strategy", "physical", "--type", kind, "--source", &url];
        let more = ["--cluster", "bank", "--tool", tool.to_str().unwrap(), "--json"];
        let document = home.on_repo([&args[..], &more].concat()).expect(0).json();
        document["backup"].as_str().unwrap().to_owned()
    };
    let full = take("full");
    let sql = [
        "UPDATE bank.accounts SET v = v + 1",
        "INSERT INTO bank.aria SELECT id + 1000, t FROM bank.aria",
        "CREATE TABLE bank.late (id INT PRIMARY KEY) SELECT seq AS id FROM bank.seq_1_to_1000",
    ];
    server::run(&mut session, &sql).await;
    let increment = take("incremental");

    let to = home.path("full.xb");
    let export = ["export", &full, "--format", "xbstream", "--output"];
    let args = [&export[..], &[to.to_str().unwrap(), "--json", "--checksums", "sha256"]].concat();
    let document = home.on_repo(args).expect(0).json();
    assert_eq!(document["bytes"], to.metadata().unwrap().len());
    assert!(document["files"].as_u64().unwrap() > 50, "{document:#}");
    let sums = home.path("full.xb.sha256");
    assert!(std::fs::read_to_string(sums).unwrap().contains("full.xb"));
    let data = home.path("full");
    extract(name, &to, &data);
    // The increment goes through a pipe.
    let piped = home.path("increment.xb");
    let out = std::fs::File::create(&piped).unwrap();
    let mut command = home.command(["export", &increment, "--format", "xbstream", "-o", "-"]);
    let status = command.env("HOLDFAST_REPO", "repo").stdout(out).stderr(Stdio::null()).status();
    assert!(status.unwrap().success());
    let delta = home.path("increment");
    extract(name, &piped, &delta);

    for more in [None, Some(&delta)] {
        let mut prepare = program(name, "mariadb-backup");
        prepare
            .args(["--no-defaults", "--prepare"])
            .arg(format!("--target-dir={}", data.display()));
        if let Some(delta) = more {
            prepare.arg(format!("--incremental-dir={}", delta.display()));
        }
        let run = Run::of(&mut prepare).expect(0);
        assert!(run.stderr.contains("completed OK!"), "{run:#?}");
    }
    let mut restored = on(name, &data).await;
    let sum = number(&restored, "SELECT SUM(v) FROM bank.accounts").await;
    assert_eq!(sum, 101 * ACCOUNTS);
    assert_eq!(number(&restored, "SELECT COUNT(*) FROM bank.late").await, 1000);
    assert_eq!(number(&restored, "SELECT COUNT(*) FROM bank.aria").await, 600);
    let sql = "CHECK TABLE bank.accounts, bank.packed, bank.words, bank.old, bank.aria EXTENDED";
    let said: Vec<(String, String, String, String)> =
        restored.session().await.query_rows(sql).await.unwrap();
    assert!(said.iter().all(|(.., text)| text == "OK"), "{said:?}");
    restored.0.stop().await.unwrap();
    server.0.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_files_becomes_a_stream_of_the_same_files() {
    let home = Home::with_repo();
    let data = home.path("data");
    let mut server = on("mysql-9.7", &data).await;
    let mut session = server.session().await;
    server::shop(&mut session).await;
    server.0.stop().await.unwrap();
    let url = format!("file://{}", data.display());
    let args = ["backup", "--strategy", "physical", "--source", &url, "--cluster", "shop"];
    home.on_repo(args).expect(0);
    let stream = home.path("copy.xb");
    let to = ["-o", stream.to_str().unwrap()];
    home.on_repo([&["export", "--format", "xbstream"][..], &to].concat()).expect(0);
    let out = home.path("out");
    extract("mariadb-10.11", &stream, &out);
    let mut files = 0;
    for (path, bytes) in home.files("out") {
        let original = data.join(path.strip_prefix(&out).unwrap());
        assert_eq!(original.metadata().unwrap().len(), bytes, "{}", original.display());
        assert!(std::fs::read(&path).unwrap() == std::fs::read(&original).unwrap(), "{path:?}");
        files += 1;
    }
    assert!(files > 10 && out.join("shop/orders.ibd").is_file());

    // Rows are no files, and parts of a server no stream.
    let server = Server::with_shop("mysql-9.7").await;
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "rows"]).expect(0);
    let args = ["export", "--cluster", "rows", "--format", "xbstream", "-o", "x"];
    home.on_repo(args).expect(2).says("no data files");
    let args =
        ["export", "--cluster", "shop", "--format", "xbstream", "-o", "x", "--tables", "a.b"];
    home.on_repo(args).expect(2).says("writes the whole backup");
    assert!(!home.path("x").exists());
}
