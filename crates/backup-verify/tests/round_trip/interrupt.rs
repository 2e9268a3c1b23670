//! A run that is cancelled in the middle gives back what it changed at the servers.

use std::sync::{Arc, Mutex};

use backup_core::{Context, ErrorKind, Event, Monitor, pipeline};
use backup_drivers::connect::Session;
use backup_drivers::logical::{
    LogicalBackup, LogicalOptions, LogicalRestore, LogicalRestoreOptions,
};
use rstest::rstest;

use crate::pair::{Pair, spec};
use crate::sides;

/// Cancels the run when a phase begins.
struct CancelAt {
    phase: &'static str,
    run: Mutex<Option<Context>>,
}

impl Monitor for CancelAt {
    fn event(&self, event: Event) {
        if matches!(&event, Event::Phase { name } if name == self.phase) {
            self.run.lock().unwrap().as_ref().unwrap().cancel();
        }
    }
}

fn cancelled_at(phase: &'static str) -> Context {
    let monitor = Arc::new(CancelAt { phase, run: Mutex::new(None) });
    let cx = Context::builder().threads(2).monitor(monitor.clone()).build();
    *monitor.run.lock().unwrap() = Some(cx.clone());
    cx
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_behind(#[values("mysql-9.7", "mariadb-10.11")] server: &str) {
    let pair = Pair::start(server).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    for statement in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(200))",
        "INSERT INTO shop.t WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE \
         n < 900) SELECT n, REPEAT('x', 200) FROM r",
        "CREATE VIEW shop.v AS SELECT id FROM shop.t",
    ] {
        source.run(statement).await.unwrap();
    }

    for phase in ["snapshot", "definitions", "rows"] {
        let cx = cancelled_at(phase);
        let driver = LogicalBackup::new(pair.source(), LogicalOptions::default());
        let error = pipeline::backup(&cx, &pair.repository, &driver, spec()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{phase}: {}", error.report());
        // No lock is left: neither rows nor definitions have to wait.
        source.run("SET SESSION lock_wait_timeout = 5").await.unwrap();
        source.run("UPDATE shop.t SET v = 'y' WHERE id = 1").await.unwrap();
        source.run("ALTER TABLE shop.t COMMENT = 'changed'").await.unwrap();
    }
    let manifest = pair.backup(LogicalOptions::default()).await;

    let mut target = Session::open(&pair.target()).await.unwrap();
    target.run("SET GLOBAL local_infile = OFF").await.unwrap();
    let options = || LogicalRestoreOptions { overwrite: true, ..Default::default() };
    for phase in ["definitions", "rows", "reading back", "views, routines, triggers, events"] {
        let cx = cancelled_at(phase);
        let driver = LogicalRestore::new(pair.target(), options());
        let result = pipeline::restore(&cx, &pair.repository, &driver, &manifest).await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{phase}: {}", error.report());
        // Where nothing was made yet there is nothing to go on with.
        let remedy = match phase {
            "definitions" => "run the command again",
            _ => "goes on where it stopped",
        };
        assert!(error.report().contains(remedy), "{}", error.report());
        let allowed: Option<u8> = target.query_first("SELECT @@GLOBAL.local_infile").await.unwrap();
        assert_eq!(allowed, Some(0), "{phase}");
    }
    pair.restore(&manifest, options()).await;
    sides::assert_same("rows", &sides::rows(&mut source).await, &sides::rows(&mut target).await);
    let allowed: Option<u8> = target.query_first("SELECT @@GLOBAL.local_infile").await.unwrap();
    assert_eq!(allowed, Some(0));
    pair.stop().await;
}
