//! Noticing DDL where it cannot be locked out.
//!
//! MariaDB says that a table was rebuilt after a snapshot began (`ER_TABLE_DEF_CHANGED`), but not
//! that it was renamed or altered in place: where two tables, two columns or a partition and a
//! table swap names, a reader would get rows of the one under the name of the other. Every such
//! change touches the definition's file, whose time is `CREATE_TIME`, except
//! `EXCHANGE PARTITION`, after which a partition has the number of a table.

use std::collections::HashMap;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result, ResultExt};

use super::catalog::Table;
use super::ddl::quote_text;
use super::inventory;
use super::select::{Selection, TableName};
use crate::connect::Session;
use crate::wire;

/// `CREATE_TIME` counts seconds, so a change is seen only when it is of another second.
const RESOLUTION: Duration = Duration::from_millis(1100);

/// What every table looked like before the snapshot.
#[derive(Debug, Default)]
pub(super) struct Fingerprints(HashMap<TableName, Option<String>>);

impl Fingerprints {
    /// Takes them, and waits until any later change can be told from them.
    pub(super) async fn take(session: &mut Session, selection: &Selection) -> Result<Self> {
        session.run("SET SESSION time_zone = '+00:00'").await?;
        let mut tables = HashMap::new();
        for name in inventory::list_tables(session.conn(), selection).await? {
            // Gone meanwhile: the snapshot will not have it either, or the check will fail.
            if let Some(found) = session.query_first::<Option<String>>(&query(&name)).await? {
                tables.insert(name, found);
            }
        }
        tokio::time::sleep(RESOLUTION).await;
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

    /// Fails when the table is not what it was. Exact as long as `reader` has read from it in an
    /// open transaction, which keeps DDL off.
    pub(super) async fn check(&self, reader: &mut wire::Connection, table: &Table) -> Result<()> {
        let name = table.full_name();
        let rows = reader
            .query_values(&query(&name))
            .await
            .context(|| format!("cannot see whether {name} was changed"))?;
        let now = rows.first().and_then(|row| row.first()).map(Option::as_deref);
        let before = self.0.get(&name).map(|text| text.as_ref().map(String::as_bytes));
        if now.is_some() && now == before {
            return Ok(());
        }
        Err(changed(format!("table {name} was changed by DDL during the backup")))
    }
}

/// One row, whose value differs after DDL on the table.
fn query(name: &TableName) -> String {
    format!(
        "SELECT CAST(CREATE_TIME AS CHAR) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} \
         AND TABLE_NAME = {}",
        quote_text(&name.database),
        quote_text(&name.table)
    )
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
