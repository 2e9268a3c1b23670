//! `kill -9` of the server that is read, and of the one that is written, at random moments: it ends
//! in an error that says what to do, or goes on by itself; run again, everything is exact.

use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use backup_core::Context;
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};

use crate::backup_killed::{Lab, rounds};
use crate::home::{Home, Run};
use crate::restore_killed::{content, fill};
use crate::server::{self, Server};

/// A server that loses nothing by a crash, however it came.
const DURABLE: [&str; 2] =
    ["SET GLOBAL sync_binlog = 1", "SET GLOBAL innodb_flush_log_at_trx_commit = 1"];

async fn durable(server: &Server) {
    server::run(&mut server.session().await, &DURABLE).await;
}

/// Lets a process run for as long; gives whether it still does.
fn run_for(child: &mut Child, time: Duration) -> bool {
    let began = Instant::now();
    while began.elapsed() < time {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        sleep(Duration::from_millis(1));
    }
    true
}

/// Who died says so, and what to do about it.
fn assert_told(run: &Run) {
    assert!(!run.stderr.contains("panicked"), "{run:#?}");
    assert!(matches!(run.code, Some(3 | 6 | 9)), "{run:#?}");
    // Before anything was begun there is nothing to go on with.
    let told = ["run the same command again", "run the command again", "the server's error log"];
    assert!(told.iter().any(|words| run.stderr.contains(words)), "{run:#?}");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_source_is_killed_goes_on_when_it_is_back(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let mut lab = Lab::start(name).await;
    let cx = Context::builder().build();
    let wanted = rounds(3);
    let (mut killed, mut resumed, mut tries) = (0, 0, 0);
    while killed < wanted || resumed == 0 {
        tries += 1;
        assert!(tries < 20 * (wanted + 1), "no backup lasts long enough for its source to die");
        lab.new_repository();
        durable(&lab.server).await;
        // What a clock of whole seconds cannot tell apart counts as changed.
        sleep(Duration::from_millis(3100));
        let pid = Pid::from_raw(i32::try_from(lab.server.0.pid().unwrap()).unwrap()).unwrap();
        let run = if tries % 2 == 0 {
            // When something was stored already.
            lab.disturbed(1 + tries as usize / 2 % 5, |_| kill_process(pid, Signal::KILL).unwrap())
        } else {
            // In each part of the time that a backup takes.
            let mut command = lab.home.command(lab.arguments());
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let part = (f64::from(tries % wanted) + rand::random::<f64>()) / f64::from(wanted);
            let was_running = run_for(&mut child, lab.duration.mul_f64(part));
            kill_process(pid, Signal::KILL).unwrap();
            let run = Run::from(child.wait_with_output().unwrap());
            was_running.then_some(run)
        };
        lab.server.0.kill();
        lab.server.0.restart(&cx).await.unwrap();
        durable(&lab.server).await;
        let Some(run) = run.filter(|run| run.code != Some(0)) else { continue };
        killed += 1;
        assert_told(&run);
        let last = lab.backup().expect(0).json();
        resumed += u32::from(last["resumed"]["chunks"].as_u64() > Some(0));
        lab.assert_exact(&last).await;
    }
    println!("{name}: {killed} killed, {resumed} gone on with");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_whose_target_is_killed_goes_on(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = Server::with_shop(name).await;
    fill(&mut source.session().await).await;
    let mut target = Server::start(name).await;
    let cx = Context::builder().build();
    let home = Home::with_repo();
    let url = source.url();
    home.run(["backup", "--repo", "repo", "--source", &url, "--cluster", "shop"]).expect(0);
    let expected = content(&source, "shop").await;
    let url = target.url();
    let restore = ["restore", "--repo", "repo", "--cluster", "shop", "--target", &url, "--json"];
    let began = Instant::now();
    home.run(restore).expect(0);
    let duration = began.elapsed();
    assert_eq!(content(&target, "shop").await, expected);

    let wanted = rounds(4);
    let (mut killed, mut alone, mut again, mut tries) = (0, 0, 0, 0);
    while killed < wanted {
        tries += 1;
        assert!(tries < 20 * (wanted + 1), "no restore lasts long enough for its target to die");
        server::run(&mut target.session().await, &["DROP DATABASE IF EXISTS shop"]).await;
        let mut child =
            home.command(restore).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let part = (f64::from(tries % wanted) + rand::random::<f64>()) / f64::from(wanted);
        let was_running = run_for(&mut child, duration.mul_f64(part));
        target.0.kill();
        target.0.restart(&cx).await.unwrap();
        let run = Run::from(child.wait_with_output().unwrap());
        if !was_running {
            continue;
        }
        killed += 1;
        if run.code == Some(0) {
            alone += 1;
        } else {
            again += 1;
            assert_told(&run);
            let last = home.run(restore);
            // It died after the last act of the restore: everything is there, as is seen below.
            if last.code != Some(9) {
                last.expect(0);
            }
        }
        assert_eq!(content(&target, "shop").await, expected, "{run:#?}");
        let marks =
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_name LIKE 'holdfast%'";
        assert_eq!(target.value(marks).await.as_deref(), Some("0"), "{run:#?}");
        let view = "SELECT COUNT(*) FROM shop.totals";
        assert_eq!(target.value(view).await, source.value(view).await, "{run:#?}");
    }
    println!("{name}: {killed} killed, {alone} went on alone, {again} were run again");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_whose_target_stays_away_ends_and_goes_on_later(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values("0", "2")] seconds: &str,
) {
    let source = Server::with_shop(name).await;
    fill(&mut source.session().await).await;
    let mut target = Server::start(name).await;
    let cx = Context::builder().build();
    let home = Home::with_repo();
    let url = source.url();
    home.run(["backup", "--repo", "repo", "--source", &url, "--cluster", "shop"]).expect(0);
    let expected = content(&source, "shop").await;
    let url = target.url();
    let restore = ["restore", "--repo", "repo", "--cluster", "shop", "--target", &url, "--json"];
    let patient: Vec<&str> = restore.into_iter().chain(["--retry-for", seconds]).collect();
    let began = Instant::now();
    home.run(restore).expect(0);
    let duration = began.elapsed();

    let mut tries = 0;
    let run = loop {
        tries += 1;
        assert!(tries < 50, "no restore lasts long enough for its target to die under its rows");
        server::run(&mut target.session().await, &["DROP DATABASE IF EXISTS shop"]).await;
        let mut command = home.command(patient.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        run_for(&mut child, duration.mul_f64(rand::random()));
        target.0.kill();
        // It ends by itself, with the target away.
        let run = Run::from(child.wait_with_output().unwrap());
        if run.stderr.contains("cannot load table shop.") {
            break run;
        }
        target.0.restart(&cx).await.unwrap();
    };
    let run = run.expect(3);
    assert_eq!(run.stderr.contains("trying again"), seconds != "0", "{run:#?}");
    assert!(run.stderr.contains("it goes on where it stopped"), "{run:#?}");
    target.0.restart(&cx).await.unwrap();
    let plan: Vec<&str> = restore.into_iter().chain(["--dry-run"]).collect();
    let plan = home.run(plan).expect(0).json();
    assert!(plan["steps"].to_string().contains("interrupted"), "{plan:#}");
    home.run(restore).expect(0);
    assert_eq!(content(&target, "shop").await, expected, "{run:#?}");
}
