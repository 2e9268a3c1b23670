//! Locks of others, and what a restore leaves when it is killed while it waits for one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::{Context, Event, Monitor, Restore, Result};
use backup_drivers::logical::{
    LogicalBackup, LogicalOptions, LogicalRestore, LogicalRestoreOptions, SnapshotOptions,
};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use rstest::rstest;

use crate::memory::Kept;
use crate::server::Server;

/// Keeps what is noted.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Monitor for Notes {
    fn event(&self, event: Event) {
        if let Event::Note { text } = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

async fn source(name: &str) -> Result<(Server, Kept)> {
    let source = Server::start(name).await?;
    let mut conn = source.connect().await?;
    for statement in [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (a INT PRIMARY KEY)",
        "INSERT INTO d.t VALUES (1), (2)",
        "CREATE FUNCTION d.f () RETURNS INT RETURN 1",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    let kept = Kept::backup(&source, LogicalOptions::default()).await?;
    Ok((source, kept))
}

async fn settings(conn: &mut Conn) -> (u8, u8) {
    let sql = "SELECT @@GLOBAL.local_infile, @@GLOBAL.log_bin_trust_function_creators";
    conn.query_first(sql).await.unwrap().unwrap()
}

/// Whatever the moment in which it dies: as long as something is to be put back there are marks that say so.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_is_put_back_before_the_marks_go(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let (_source, kept) = source(name).await?;
    let target = Server::start(name).await?;
    let (mut conn, mut holder) = (target.connect().await?, target.connect().await?);
    conn.query_drop("SET GLOBAL local_infile = OFF, GLOBAL log_bin_trust_function_creators = OFF")
        .await
        .unwrap();
    // The last thing is made to wait: somebody looks at the marks.
    let stopped = async {
        let marks = "SELECT CONCAT('d.', TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'd' AND \
                     TABLE_NAME LIKE 'holdfast%'";
        let table = loop {
            if let Some(table) = holder.query_first::<String, _>(marks).await.unwrap() {
                break table;
            }
        };
        holder.query_drop("BEGIN").await.unwrap();
        holder.query_drop(format!("SELECT * FROM {table}")).await.unwrap();
        let waits = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'DROP TABLE%holdfast%' AND STATE LIKE \
                     'Waiting for%lock'";
        loop {
            if let Some(id) = conn.query_first::<u64, _>(waits).await.unwrap() {
                break (id, settings(&mut conn).await);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let restore = kept.restore(&target, LogicalRestoreOptions::default());
    let (id, set) = tokio::select! {
        restored = restore => panic!("it did not wait: {restored:?}"),
        stopped = stopped => stopped,
    };
    assert_eq!(set, (0, 0));
    // As if it had died before; and the next run ends well.
    conn.query_drop(format!("KILL {id}")).await.unwrap();
    conn.query_drop("SET GLOBAL local_infile = ON").await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    holder.query_drop("ROLLBACK").await.unwrap();
    let marks = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_NAME LIKE 'holdfast%'";
    assert_eq!(conn.query_first::<u32, _>(marks).await.unwrap(), Some(1));
    kept.restore(&target, LogicalRestoreOptions::default()).await?;
    assert_eq!(settings(&mut conn).await, (0, 0));
    assert_eq!(conn.query_first::<u32, _>(marks).await.unwrap(), Some(0));
    assert_eq!(
        conn.query_first::<u32, _>("SELECT d.f() + COUNT(*) FROM d.t").await.unwrap(),
        Some(3)
    );
    Ok(())
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn locks_of_others_are_waited_for_and_told(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let (source, kept) = source(name).await?;
    // A backup behind somebody's LOCK TABLES.
    let mut holder = source.connect().await?;
    holder.query_drop("LOCK TABLES d.t WRITE").await.unwrap();
    let snapshot =
        SnapshotOptions { lock_timeout: Duration::from_secs(6), ..SnapshotOptions::default() };
    let options = LogicalOptions { snapshot, ..LogicalOptions::default() };
    let backup = Kept::backup_by(LogicalBackup::new(source.as_root(), options));
    let error = tokio::time::timeout(Duration::from_secs(60), backup).await.unwrap().err().unwrap();
    let told = error.report();
    let session = format!("session {} of root", holder.id());
    for part in [&session[..], "--lock-timeout", "1205"] {
        assert!(told.contains(part), "{part}: {told}");
    }

    // A restore behind somebody who has read a table.
    let target = Server::start(name).await?;
    kept.restore(&target, LogicalRestoreOptions::default()).await?;
    let mut holder = target.connect().await?;
    holder.query_drop("BEGIN").await.unwrap();
    holder.query_drop("SELECT * FROM d.t").await.unwrap();
    let notes = Arc::new(Notes::default());
    let cx = Context::builder().threads(2).monitor(Arc::clone(&notes) as _).build();
    let options = LogicalRestoreOptions { overwrite: true, ..Default::default() };
    let driver = LogicalRestore::new(target.as_root(), options);
    let manifest = kept.manifest();
    let restore = driver.run(&cx, &manifest, kept.artifacts());
    let session = format!("session {} of root", holder.id());
    let told = async {
        loop {
            let found =
                notes.0.lock().unwrap().iter().find(|n| n.contains("waiting for a lock")).cloned();
            if let Some(note) = found {
                holder.query_drop("ROLLBACK").await.unwrap();
                return note;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let both = async { tokio::join!(restore, told) };
    let (restored, note) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    restored?;
    assert!(note.contains(&session) && note.contains("DROP TABLE"), "{note}");
    Ok(())
}
