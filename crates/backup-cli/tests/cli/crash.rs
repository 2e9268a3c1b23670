//! `kill -9` at random moments of a backup.

use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::home::Home;
use crate::server::{self, Server};

/// How many times a backup is killed.
const KILLS: u32 = 20;

#[tokio::test]
async fn a_killed_backup_harms_no_other() {
    let server = Server::with_shop("mysql-9.7").await;
    server::double_orders(&mut server.session().await, 4).await;
    let home = Home::with_repo();
    let url = server.url();
    let backup = ["backup", "--repo", "repo", "--source", &url, "--cluster", "shop", "--json"];
    let began = Instant::now();
    let first = home.run(backup).expect(0).json()["backup"].clone();
    let mut duration = began.elapsed();
    let content = server.content("shop").await;

    let mut survivors = 1;
    let mut killed = 0;
    while killed < KILLS {
        // One moment in each twentieth of the run, so that no part of it is left out.
        let moment = duration * killed / KILLS + duration.mul_f64(rand::random()) / KILLS;
        let mut command = home.command(backup);
        let began = Instant::now();
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while began.elapsed() < moment && child.try_wait().unwrap().is_none() {
            sleep(moment.saturating_sub(began.elapsed()).min(Duration::from_millis(2)));
        }
        let elapsed = began.elapsed();
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            // It was quicker than the first one: the machine has more to give now.
            survivors += 1;
            duration = duration.min(elapsed);
        } else {
            killed += 1;
        }

        let run = home.on_repo(["list", "--json"]);
        assert_eq!(run.code, Some(0), "killed after {moment:?}: {run:#?}");
        let listed = run.json();
        let count = listed.as_array().unwrap().len();
        // Killed after its manifest was written and before it said so, a backup exists.
        assert!(count == survivors || count == survivors + 1, "after {moment:?}: {listed:#}");
        survivors = count;
        let run = home.on_repo(["verify", "--all", "--level", "objects"]);
        assert_eq!(run.code, Some(0), "killed after {moment:?}: {run:#?}");
    }
    home.on_repo(["verify", "--all", "--level", "content"]).expect(0);
    let last = home.run(backup).expect(0).json()["backup"].clone();
    for (backup, database) in [(first, "first"), (last, "last")] {
        let rename = format!("shop={database}");
        let id = backup.as_str().unwrap();
        home.on_repo(["restore", id, "--cluster", "shop", "--target", &url, "--rename", &rename])
            .expect(0);
        assert_eq!(server.content(database).await, content);
    }
}
