//! Increments where a backup that they would go on from cannot be restored any more.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{number, on};
use crate::home::{Home, Run};
use crate::server::{self, Server, install};

const NAME: &str = "mariadb-10.11";

/// Breaks the backup of an id.
type Break<'a> = &'a dyn Fn(&str);

fn take(home: &Home, server: &Server, kind: &str) -> Run {
    let (url, tool) = (server.url(), install(NAME));
    let args = ["backup", "--strategy", "physical", "--source", &url, "--cluster", "bank"];
    let more = ["--type", kind, "--tool", tool.to_str().unwrap(), "--json"];
    home.on_repo([&args[..], &more].concat())
}

fn id(run: &Run) -> String {
    run.json()["backup"].as_str().unwrap().to_owned()
}

/// The parent of the newest backup.
fn parent(home: &Home) -> String {
    // One without its manifest makes it end with 14.
    let listed = home.on_repo(["list", "--json"]).json();
    listed.as_array().unwrap().last().unwrap()["parent"].as_str().unwrap().to_owned()
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Changes bytes in the middle of a file.
fn damage(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    file.write_all_at(&[0x5a; 64], middle).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_increment_goes_on_only_from_what_can_be_restored() {
    let home = Home::with_repo();
    let server = on(NAME, &home.path("data")).await;
    let mut session = server.session().await;
    let sql =
        ["CREATE DATABASE bank", "CREATE TABLE bank.t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)"];
    server::run(&mut session, &sql).await;
    let write = ["INSERT INTO bank.t (v) SELECT seq FROM bank.seq_1_to_300"];
    let mut ids = Vec::new();
    for kind in ["full", "incremental", "incremental"] {
        server::run(&mut session, &write).await;
        ids.push(id(&take(&home, &server, kind).expect(0)));
    }
    server::run(&mut session, &write).await;
    let (repo, whole) = (home.path("repo"), home.path("whole"));
    copy(&repo, &whole);
    let directory = |id: &str| -> PathBuf { repo.join("clusters/bank/backups").join(id) };
    let [full, middle, last] = &ids[..] else { panic!("{ids:?}") };

    // One in the middle is gone, or only a piece of it: it goes on from what is before that.
    let gone = |name: &str| std::fs::remove_dir_all(directory(name)).unwrap();
    let short = |name: &str| {
        OpenOptions::new()
            .write(true)
            .open(directory(name).join("pack-0"))
            .unwrap()
            .set_len(500)
            .unwrap();
    };
    let unnamed = |name: &str| std::fs::remove_file(directory(name).join("manifest")).unwrap();
    let breaks: [(Break<'_>, &str); 4] =
        [(&gone, middle), (&short, middle), (&unnamed, middle), (&short, last)];
    for (n, (break_it, which)) in breaks.into_iter().enumerate() {
        copy(&whole, &repo);
        break_it(which);
        let run = take(&home, &server, "incremental").expect(14);
        run.says(&format!("{last} cannot be restored")).says("take a full backup soon");
        let from = if which == last { middle } else { full };
        assert_eq!(&parent(&home), from, "{n}");
        let to = home.path(&format!("restored{n}"));
        let tool = install(NAME);
        let args = ["restore", "--cluster", "bank", "--tool", tool.to_str().unwrap()];
        home.on_repo([&args[..], &["--target-dir", to.to_str().unwrap()]].concat()).expect(0);
        let restored = on(NAME, &to).await;
        assert_eq!(number(&restored, "SELECT COUNT(*) FROM bank.t").await, 1200, "{n}");
    }

    // Nothing is whole any more.
    let spoiled = |name: &str| {
        damage(&directory(name).join("pack-0"));
        home.on_repo(["verify", name, "--cluster", "bank", "--level", "content"]).expect(11);
    };
    let breaks: [Break<'_>; 3] = [&gone, &short, &spoiled];
    for break_it in breaks {
        copy(&whole, &repo);
        break_it(full);
        for kind in ["incremental", "differential"] {
            let run = take(&home, &server, kind);
            // Where it is not even listed, there is nothing that a differential one could be of.
            if run.code == Some(2) {
                assert!(kind == "differential" && !directory(full).exists());
                continue;
            }
            run.expect(8).says("cannot be restored").says("take a full backup");
        }
    }
    let all = home.on_repo(["list", "--json"]).expect(0).json();
    assert_eq!(all.as_array().unwrap().len(), 3, "{all:#}");
    server::run(&mut session, &write).await;
    take(&home, &server, "full").expect(14);
    take(&home, &server, "incremental").expect(0);
}
