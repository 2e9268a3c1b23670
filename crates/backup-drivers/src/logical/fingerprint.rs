//! Noticing DDL where it cannot be locked out.
//!
//! MariaDB says that a table was rebuilt after a snapshot began (`ER_TABLE_DEF_CHANGED`), but not
//! that it was renamed or altered in place: where two tables, two columns or a partition and a
//! table swap names, a reader would get rows of the one under the name of the other. Every such
//! change touches the definition's file, whose time is `CREATE_TIME`, except
//! `EXCHANGE PARTITION`, which changes the numbers of the InnoDB tables alone.

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
pub(super) struct Fingerprints {
    tables: HashMap<TableName, String>,
    numbers: bool,
}

impl Fingerprints {
    /// Takes them, and waits until any later change can be told from them.
    pub(super) async fn take(session: &mut Session, selection: &Selection) -> Result<Self> {
        session.run("SET SESSION time_zone = '+00:00'").await?;
        // Only where there are partitions can they be exchanged; reading the numbers is not free.
        let partitions = "SELECT 1 FROM information_schema.PARTITIONS \
                          WHERE PARTITION_NAME IS NOT NULL LIMIT 1";
        let numbers = session.query_first::<u8>(partitions).await?.is_some()
            && session
                .query_first::<u64>(
                    "SELECT TABLE_ID FROM information_schema.INNODB_SYS_TABLES LIMIT 1",
                )
                .await
                .is_ok();
        let wanted = inventory::list_tables(session.conn(), selection).await?;
        let mut tables = HashMap::with_capacity(wanted.len());
        for name in wanted {
            // Gone meanwhile: the snapshot will not have it either, or the check will fail.
            if let Some(found) = session.query_first::<String>(&query(&name, numbers)).await? {
                tables.insert(name, found);
            }
        }
        tokio::time::sleep(RESOLUTION).await;
        Ok(Fingerprints { tables, numbers })
    }

    /// Fails when the table is not what it was. Exact as long as `reader` has read from it in an
    /// open transaction, which keeps DDL off.
    pub(super) async fn check(&self, reader: &mut wire::Connection, table: &Table) -> Result<()> {
        let name = table.full_name();
        let rows = reader
            .query_values(&query(&name, self.numbers))
            .await
            .context(|| format!("cannot see whether {name} was changed"))?;
        let now = rows.first().and_then(|row| row.first()?.as_deref());
        if now.is_some() && now == self.tables.get(&name).map(String::as_bytes) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Source,
            format!("table {name} was changed by DDL during the backup"),
        )
        .with_remedy("run the backup again when no DDL is running"))
    }
}

/// One row with one text that differs after DDL on the table.
fn query(name: &TableName, numbers: bool) -> String {
    let (database, table) = (quote_text(&name.database), quote_text(&name.table));
    let numbers = if numbers {
        format!(
            "(SELECT GROUP_CONCAT(TABLE_ID ORDER BY NAME) FROM information_schema.INNODB_SYS_TABLES \
             WHERE SUBSTRING_INDEX(CONVERT(NAME USING binary), _binary'#', 1) = \
             CONCAT(CONVERT(CONVERT({database} USING filename) USING binary), _binary'/', \
             CONVERT(CONVERT({table} USING filename) USING binary)))"
        )
    } else {
        "NULL".to_owned()
    };
    format!(
        "SELECT CONCAT_WS(' ', COALESCE(CREATE_TIME, ''), {numbers}) \
         FROM information_schema.TABLES WHERE TABLE_SCHEMA = {database} AND TABLE_NAME = {table}"
    )
}
