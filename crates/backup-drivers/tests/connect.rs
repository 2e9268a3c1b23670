//! Both clients against real servers: how they connect, sign in, read rows and load them.

use backup_core::{Context, Result};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::sandbox::Sandbox;
use backup_drivers::wire::{Connection, Param};
use bytes::Bytes;
use rstest::rstest;

async fn start(name: &str) -> Sandbox {
    let install = xtask::servers::install(name).unwrap();
    Sandbox::builder(&install)
        .tcp(true)
        .option("max-allowed-packet", "128M")
        .option("local-infile", "1")
        .start(&Context::builder().build())
        .await
        .unwrap()
}

fn socket(server: &Sandbox) -> ConnectOptions {
    ConnectOptions::socket(server.socket(), "root")
}

#[rstest]
#[tokio::test]
async fn statements(#[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str) -> Result<()> {
    let server = start(name).await;
    let mut session = Session::open(&socket(&server)).await?;
    assert_eq!(session.query_first::<u32>("SELECT 1 + 1").await?, Some(2));

    let mut wire = Connection::connect(&socket(&server)).await?;
    wire.query("CREATE DATABASE d").await?;
    wire.query("CREATE TABLE d.t (a INT PRIMARY KEY, b VARCHAR(100))").await?;
    let ok = wire.query("INSERT INTO d.t VALUES (1, 'one'), (2, NULL), (3, '')").await?;
    assert_eq!(ok.affected_rows, 3);
    let values = wire.query_values("SELECT b, a FROM d.t ORDER BY a").await?;
    assert_eq!(values[0], [Some(Bytes::from("one")), Some(Bytes::from("1"))]);
    assert_eq!(values[1][0], None);
    assert_eq!(values[2][0], Some(Bytes::new()));
    let statement = wire.prepare("SELECT a FROM d.t WHERE a >= ? ORDER BY a").await?;
    let mut rows = wire.execute(&statement, &[Param::Int(2)]).await?;
    let mut seen = Vec::new();
    while let Some(row) = rows.next().await? {
        seen.push(row);
    }
    assert_eq!(seen, [&[0u8, 0, 2, 0, 0, 0][..], &[0, 0, 3, 0, 0, 0]]);
    Ok(())
}
