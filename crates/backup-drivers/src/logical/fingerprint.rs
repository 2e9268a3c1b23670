//! Noticing DDL where it cannot be locked out.
//!
//! MariaDB says that a table was rebuilt after a snapshot began (`ER_TABLE_DEF_CHANGED`), but not
//! that it was renamed or altered in place: where two tables, two columns or a partition and a
//! table swap names, a reader would get rows of the one under the name of the other. Every such
//! change of a table of InnoDB touches the definition's file, whose time is `CREATE_TIME`, except
//! `EXCHANGE PARTITION`, after which a partition has the number of a table. Other engines mean something
//! else by that time, or have none, so that their definitions are compared.

use std::collections::HashMap;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result, ResultExt};

use super::catalog::Table;
use super::ddl::{Parts, hex_literals, quote_text};
use super::inventory;
use super::reader::reader;
use super::select::{Selection, TableName};
use crate::connect::{ConnectOptions, Session};
use crate::wire;

/// `CREATE_TIME` counts seconds, so a change is seen only when it is of another second.
const RESOLUTION: Duration = Duration::from_millis(1100);

/// A table that was last changed so long ago was not in the second that is now, by whatever clock the data
/// directory has: a network's may be another than the server's.
const LONG_AGO: u64 = 60;

/// What every table looked like before the snapshot.
#[derive(Debug, Default)]
pub(super) struct Fingerprints(HashMap<TableName, Look>);

/// What a table looks like.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    marks: Marks,
    /// In seconds since 1970.
    created: Option<u64>,
    definition: Option<String>,
}

/// By what a change of a table is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marks {
    Time,
    Definition,
    Both,
}

impl Marks {
    /// Of ARCHIVE the time is that of the last write, of FEDERATED it takes another server to tell, and
    /// others say nothing at first and something later.
    fn of(engine: &str) -> Self {
        match engine.to_ascii_lowercase().as_str() {
            "innodb" => Marks::Time,
            // Theirs is when the files of rows were made, which stay when a column is renamed.
            "myisam" | "aria" | "memory" => Marks::Both,
            _ => Marks::Definition,
        }
    }
}

impl Fingerprints {
    /// Takes them, and waits until any later change can be told from them: not at all where no table was changed
    /// lately.
    pub(super) async fn take(
        source: &ConnectOptions,
        session: &mut Session,
        selection: &Selection,
    ) -> Result<Self> {
        let listed = inventory::list_engines(session.conn(), selection).await?;
        let now: Option<u64> = session.query_first("SELECT UNIX_TIMESTAMP()").await?;
        let long_ago = now.unwrap_or_default().saturating_sub(LONG_AGO);
        // As those that compare: settings of a session change what is printed.
        let mut reader = reader(source).await?;
        let mut tables = HashMap::new();
        for (name, engine) in listed {
            // Gone meanwhile: the snapshot will not have it either, or the check will fail.
            if let Some(look) = look(&mut reader, &name, Marks::of(&engine)).await? {
                tables.insert(name, look);
            }
        }
        reader.close().await;
        let mut created = tables.values().filter_map(|look| look.created);
        if created.any(|created| created > long_ago) {
            tokio::time::sleep(RESOLUTION).await;
        }
        Ok(Fingerprints(tables))
    }

    /// Fails when `now` are not the tables that there were.
    pub(super) fn same_tables(&self, now: &[TableName]) -> Result<()> {
        let come = now.iter().find(|name| !self.0.contains_key(*name));
        let gone = self.0.keys().find(|name| now.binary_search(name).is_err());
        match come.or(gone) {
            None => Ok(()),
            Some(name) => {
                Err(changed(format!("table {name} was created or dropped while the backup began")))
            }
        }
    }

    /// When a table was created, as the server said before the snapshot.
    pub(super) fn created(&self, name: &TableName) -> Option<u64> {
        self.0.get(name)?.created
    }

    /// Fails when the table is not what it was. Exact as long as `reader` has read from it in an
    /// open transaction, which keeps DDL off.
    pub(super) async fn check(&self, reader: &mut wire::Connection, table: &Table) -> Result<()> {
        let name = table.full_name();
        if let Some(before) = self.0.get(&name) {
            let now = look(reader, &name, before.marks)
                .await
                .context(|| format!("cannot see whether {name} was changed"))?;
            if now.as_ref() == Some(before) {
                return Ok(());
            }
        }
        Err(changed(format!("table {name} was changed by DDL during the backup")))
    }
}

/// What there is to see of a table. `None` where there is no such table.
async fn look(
    reader: &mut wire::Connection,
    name: &TableName,
    marks: Marks,
) -> Result<Option<Look>> {
    let mut look = Look { marks, created: None, definition: None };
    if marks != Marks::Definition {
        let sql = format!(
            "SELECT CAST(UNIX_TIMESTAMP(CREATE_TIME) AS UNSIGNED) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} \
             AND TABLE_NAME = {}",
            quote_text(&name.database),
            quote_text(&name.table)
        );
        let rows = reader.query_values(&sql).await?;
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        look.created = text(row.into_iter().next()).and_then(|seconds| seconds.parse().ok());
    }
    if marks != Marks::Time {
        match reader.query_values(&format!("SHOW CREATE TABLE {}", name.quoted())).await {
            Ok(rows) => {
                let definition =
                    text(rows.into_iter().next().and_then(|row| row.into_iter().nth(1)));
                look.definition = definition.map(|text| Parts::of(&text).without_counter());
            }
            Err(e) if e.server().is_some_and(|said| said.code == NO_SUCH_TABLE) => return Ok(None),
            // What the server cannot open is told of where its definition is wanted.
            Err(e) if e.server().is_some() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Some(look))
}

/// `ER_NO_SUCH_TABLE`.
const NO_SUCH_TABLE: u16 = 1146;

fn text(value: Option<Option<bytes::Bytes>>) -> Option<String> {
    value.flatten().map(|bytes| hex_literals(&bytes))
}

fn changed(message: String) -> Error {
    Error::new(ErrorKind::Source, message)
        .with_remedy("run the backup again when no DDL is running")
}

/// Which numbers of InnoDB tables are those of partitions.
#[derive(Debug)]
pub(super) struct Partitions(HashMap<u64, bool>);

impl Partitions {
    /// Reads them. `None` for an account without PROCESS, which cannot see them.
    pub(super) async fn read(session: &mut Session) -> Result<Option<Self>> {
        // A `#` in a name is written as `@0023` here.
        let sql = "SELECT TABLE_ID, NAME LIKE '%#P#%' FROM information_schema.INNODB_SYS_TABLES";
        match session.query_rows::<(u64, bool)>(sql).await {
            Ok(rows) => Ok(Some(Partitions(rows.into_iter().collect()))),
            Err(e) if e.server().is_some() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Fails when a table became a partition, or a partition a table.
    pub(super) fn check(&self, now: &Self) -> Result<()> {
        let moved = |(number, partition)| now.0.get(number).is_some_and(|p| p != partition);
        if self.0.iter().any(moved) {
            return Err(changed("a partition was changed by DDL during the backup".to_owned()));
        }
        Ok(())
    }
}
