//! All rows read over the connection as a backup reads them, and dropped: what no dump can be faster than.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use backup_core::{Error, ErrorKind, Result, io_error};
use backup_drivers::connect::ConnectOptions;
use backup_drivers::wire::Connection;

use crate::server::Server;
use crate::shop;

/// The word by which this program calls itself.
pub(crate) const DRAIN: &str = "drain-from";

/// As many as a backup has on two processors.
const CONNECTIONS: usize = 2;

/// Into how many ranges a table with numbers for a key is cut.
const RANGES: u64 = 8;

/// The command that reads everything.
pub(crate) fn command(server: &Server) -> Result<Command> {
    let program = std::env::current_exe()
        .map_err(|e| io_error(e, ErrorKind::Internal, "this program has no name"))?;
    let mut command = Command::new(program);
    command.arg(DRAIN).arg(server.socket());
    Ok(command)
}

/// Reads all rows of the database, in the binary protocol.
pub(crate) async fn run(socket: &Path) -> Result<()> {
    let options = ConnectOptions::socket(socket, "root");
    let mut first = Connection::connect(&options).await?;
    let mut queries = VecDeque::new();
    for table in &shop::TABLES {
        let (name, from) = (table.name, format!("{}.{}", shop::DATABASE, table.name));
        // What cannot be cut is read first, so that the connections end together.
        match ["lineitem", "customer"].contains(&name) {
            false => queries.push_front(format!("SELECT * FROM {from}")),
            true => {
                let rows = first.query_values(&format!("SELECT MAX(id) + 1 FROM {from}")).await?;
                let end = rows.into_iter().flatten().flatten().next();
                let end: u64 = end
                    .and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok())
                    .ok_or_else(|| Error::internal(format!("{from} has no rows")))?;
                for range in 0..RANGES {
                    let (from_id, to_id) = (end * range / RANGES, end * (range + 1) / RANGES);
                    queries.push_back(format!(
                        "SELECT * FROM {from} WHERE id >= {from_id} AND id < {to_id}"
                    ));
                }
            }
        }
    }
    first.close().await;
    let queries = Arc::new(Mutex::new(queries));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (options, queries) = (options.clone(), Arc::clone(&queries));
        workers.spawn(async move {
            let mut connection = Connection::connect(&options).await?;
            loop {
                let next = queries.lock().expect("nobody panics with it").pop_front();
                let Some(sql) = next else { break };
                let statement = connection.prepare(&sql).await?;
                let mut rows = connection.execute(&statement, &[]).await?;
                while rows.next_batch().await?.is_some() {}
                connection.close_statement(statement).await?;
            }
            connection.close().await;
            Ok::<_, Error>(())
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.map_err(|e| Error::internal("a reader panicked").with_source(e))??;
    }
    Ok(())
}
