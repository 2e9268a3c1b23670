//! What is in a data directory, or in the place of a restore, and is not the server's.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use backup_core::Context;
use rstest::rstest;

use crate::home::{Home, Run};
use crate::server::{self, Server};

const NAME: &str = "mariadb-10.11";

async fn on(directory: &Path) -> Server {
    let builder = xtask::servers::sandbox(NAME).await.unwrap().datadir(directory).durable(false);
    Server(builder.start(&Context::builder().build()).await.unwrap())
}

/// A stopped server with one row.
async fn stopped(home: &Home) -> std::path::PathBuf {
    let data = home.path("data");
    let mut server = on(&data).await;
    server::shop(&mut server.session().await).await;
    server.0.stop().await.unwrap();
    data
}

fn cold(home: &Home, data: &Path) -> Run {
    let source = format!("file://{}", data.display());
    home.on_repo(["backup", "--strategy", "physical", "--source", &source, "--cluster", "shop"])
}

/// Everything else in the directory goes, and with it all backups.
#[rstest]
#[tokio::test]
async fn a_restore_removes_no_repository(#[values("--overwrite", "--delta")] how: &str) {
    let home = Home::with_repo();
    let data = stopped(&home).await;
    cold(&home, &data).expect(0);
    // The repository that is read, and another one in a directory of a name that the backup has, too.
    for place in ["backup", "shop"] {
        let inside = data.join(place).join("repo");
        std::fs::create_dir_all(data.join(place)).unwrap();
        std::fs::rename(home.path("repo"), &inside).unwrap();
        let repo = inside.to_str().unwrap();
        let to = ["restore", "--repo", repo, "--cluster", "shop", "--target-dir"];
        let to = [&to[..], &[data.to_str().unwrap(), how]].concat();
        for more in [&["--dry-run"][..], &[]] {
            let run = home.run([&to[..], more].concat()).expect(9);
            run.says(&format!("{repo} is a repository of backups"));
        }
        std::fs::rename(&inside, home.path("repo")).unwrap();
    }
    assert!(data.join("ibdata1").exists());
    home.on_repo(["verify", "latest", "--cluster", "shop"]).expect(0);
    let to = ["restore", "--cluster", "shop", "--target-dir", data.to_str().unwrap(), how];
    home.on_repo(to).expect(0);
    assert!(!data.join("backup").exists());
}

/// A repository would be in each of its own backups.
#[tokio::test]
async fn what_no_server_makes_is_left_out_and_told() {
    let home = Home::with_repo();
    let data = stopped(&home).await;
    std::fs::create_dir(data.join("backup")).unwrap();
    let own = data.join("backup/repo");
    std::fs::rename(home.path("repo"), &own).unwrap();
    let odd = OsStr::from_bytes(b"caf\xe9");
    std::fs::create_dir(data.join(odd)).unwrap();
    std::fs::write(data.join(odd).join("t.MYD"), "rows").unwrap();
    std::fs::write(data.join("shop").join(odd), "more").unwrap();
    let source = format!("file://{}", data.display());
    let args = ["--repo", own.to_str().unwrap(), "--strategy", "physical", "--source", &source];
    let check = home.run([&["check"][..], &args].concat());
    assert!(check.stdout.contains("backup/repo (a repository of backups)"), "{check:?}");
    let run = home.run([&["backup"][..], &args, &["--cluster", "shop"]].concat()).expect(14);
    run.says("backup/repo (a repository of backups)").says("(its name is no text)");

    // A restore into such a directory removes them, whatever they are called.
    std::fs::rename(&own, home.path("repo")).unwrap();
    for how in ["--delta", "--overwrite"] {
        std::fs::create_dir_all(data.join(odd)).unwrap();
        std::fs::write(data.join("shop").join(odd), "more").unwrap();
        let to = ["restore", "--cluster", "shop", "--target-dir", data.to_str().unwrap(), how];
        home.on_repo(to).expect(0);
        assert!(!data.join(odd).exists() && !data.join("shop").join(odd).exists());
    }
    let server = on(&data).await;
    assert_eq!(server.value("SELECT COUNT(*) FROM shop.customers").await.as_deref(), Some("3"));
}
