//! Disks that are full: below a restore, below the prepare after it, below temporary files.

use super::trouble::Stalled;
use super::{fill, install, number, on};
use crate::backup::SmallDisk;
use crate::home::{Home, Run};
use crate::server;

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_during_a_restore_is_said_and_gone_on_with() {
    let home = Home::with_repo();
    let mut server = on("mariadb-10.11", &home.path("data")).await;
    let mut session = server.session().await;
    fill(&mut session).await;
    let (url, tool) = (server.url(), install("mariadb-10.11"));
    let tool = tool.to_str().unwrap();
    let args = ["backup", "--strategy", "physical", "--source", &url, "--cluster", "bank"];
    home.on_repo([&args[..], &["--tool", tool]].concat()).expect(0);

    // Room for every byte, and not for every file: no look at the free space tells that before.
    let disk = SmallDisk::mount(&home.path("target"), "400m,nr_inodes=30");
    let to = home.path("target/data");
    let args = ["restore", "--cluster", "bank", "--tool", tool, "--json", "--target-dir"];
    let restore = || -> Run { home.on_repo([&args[..], &[to.to_str().unwrap()]].concat()) };
    let run = restore().expect(5).says("No space left");
    assert_eq!(run.json()["error"]["kind"], "space", "{run:?}");
    assert!(home.files("target/data").len() > 5, "it was in the middle");
    // A server started on it now would not be the one of the backup: the mark says so, and the next run goes on.
    restore().expect(5);
    disk.resize("400m,nr_inodes=100000");
    restore().expect(0);
    let restored = on("mariadb-10.11", &to).await;
    assert_eq!(number(&restored, "SELECT SUM(v) FROM bank.accounts").await, super::ACCOUNTS * 100);
    drop(restored);

    // Room for the files, and none for what their prepare makes of them: what was written after they were read.
    drop(disk);
    std::fs::remove_dir(home.path("target")).unwrap();
    let sql = [
        "CREATE TABLE bank.bulk (id INT PRIMARY KEY, t BLOB)",
        "INSERT INTO bank.bulk SELECT seq, REPEAT('a', 2000) FROM bank.seq_1_to_8000",
    ];
    server::run(&mut session, &sql).await;
    let stalled = Stalled::after(&home, "mariadb-10.11", 14_000_000);
    let child = stalled.begin(&home, &server);
    server::run(&mut session, &["UPDATE bank.bulk SET t = REPEAT('b', 2000)"; 2]).await;
    let backup = stalled.go_on(child).expect(0).json();
    let read = backup["bytes_read"].as_u64().unwrap();
    let disk = SmallDisk::mount(&home.path("target"), &format!("{}k", read / 1024 + 2048));
    let run = restore().expect(5).says("cannot prepare").says("not ready for a server");
    assert_eq!(run.json()["error"]["kind"], "space", "{run:?}");
    disk.resize("400m");
    home.on_repo([&args[..], &[to.to_str().unwrap(), "--overwrite"]].concat()).expect(0);
    let restored = on("mariadb-10.11", &to).await;
    assert_eq!(number(&restored, "SELECT SUM(v) FROM bank.accounts").await, super::ACCOUNTS * 100);
    assert_eq!(number(&restored, "SELECT COUNT(*) FROM bank.bulk WHERE t LIKE 'b%'").await, 8000);
    drop(restored);

    // No room for temporary files: said before the tool runs, and the server is as it was.
    let _full = SmallDisk::mount(&home.path("tmp"), "4k");
    std::fs::write(home.path("tmp/full"), [0; 4096]).unwrap();
    let args = ["backup", "--strategy", "physical", "--source", &url, "--cluster", "bank"];
    let mut command = home.command([&args[..], &["--tool", tool]].concat());
    let run = Run::of(command.env("HOLDFAST_REPO", "repo").env("TMPDIR", home.path("tmp")));
    run.expect(5).says("No space left");
    server::run(&mut session, &["DROP TABLE bank.old"]).await;
    server.0.stop().await.unwrap();
}
