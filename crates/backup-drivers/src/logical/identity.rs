//! Which tables they are that have their names now.
//!
//! A session without a binary log may give two tables each other's names, or swap a partition for a
//! table, and no log, and no time of a change of rows, tells of it. InnoDB numbers its tables, and a number stays
//! with the rows. An account without PROCESS cannot see the numbers, and nothing else tells: MariaDB has
//! the time of a renaming as that of the table's creation, but leaves that of a table that became a partition.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Flavor, Result};

use super::catalog::Table;
use super::ddl::quote_text;
use super::fingerprint::Fingerprints;
use super::inventory::{self, ServerFacts};
use crate::connect::Session;
use crate::innodb::TableFile;

/// The numbers of InnoDB's tables, by their names in lower case.
type Numbers = BTreeMap<(String, String), BTreeSet<String>>;

/// What tells each table from others that have, or had, its name, in the order of the tables. `None` where nothing does. `watched` is what those looked like
/// before the snapshot that may be renamed while it is read.
pub(super) async fn of_all(
    session: &mut Session,
    facts: &ServerFacts,
    tables: &[Table],
    watched: Option<&Fingerprints>,
) -> Result<Vec<Option<String>>> {
    let Some(numbers) = numbers(session, facts.flavor).await? else {
        return Ok(vec![None; tables.len()]);
    };
    let created = created(session, tables).await?;
    let of_one = |table: &Table| {
        if !table.engine.eq_ignore_ascii_case("InnoDB") {
            return None;
        }
        let since = created.get(&(table.database.as_str(), table.name.as_str())).copied()?;
        // Chunks may be of the table that had the name when the snapshot began.
        if watched.is_some_and(|watched| watched.created(&table.full_name()) != Some(since)) {
            return None;
        }
        let key = (table.database.to_lowercase(), table.name.to_lowercase());
        let numbers: Vec<&str> = numbers.get(&key)?.iter().map(String::as_str).collect();
        Some(format!("{since} {}", numbers.join(" ")))
    };
    Ok(tables.iter().map(of_one).collect())
}

/// Reads them. `None` for an account without PROCESS, which cannot see them.
async fn numbers(session: &mut Session, flavor: Flavor) -> Result<Option<Numbers>> {
    let view = match flavor {
        Flavor::MySql => "INNODB_TABLES",
        Flavor::MariaDb => "INNODB_SYS_TABLES",
    };
    let sql = format!("SELECT NAME, TABLE_ID, SPACE FROM information_schema.{view}");
    let rows = match session.query_rows::<(String, u64, u64)>(&sql).await {
        Err(e) if e.server().is_some() => return Ok(None),
        rows => rows?,
    };
    let mut numbers = Numbers::new();
    for (name, number, space) in rows {
        let Some(file) = TableFile::of(&format!("{name}.ibd")) else { continue };
        let partition = file.partition.unwrap_or_default();
        let key = (file.database.to_lowercase(), file.table.to_lowercase());
        // Names that differ in case share a key, so that they are told here.
        let one = format!("{}/{partition}:{number}:{space}", file.table);
        numbers.entry(key).or_default().insert(one);
    }
    Ok(Some(numbers))
}

/// When tables were created, or what the server says of that.
async fn created<'a>(
    session: &mut Session,
    tables: &'a [Table],
) -> Result<BTreeMap<(&'a str, &'a str), u64>> {
    let mut by_database: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for table in tables {
        by_database.entry(&table.database).or_default().insert(&table.name);
    }
    let but_elsewhere = inventory::but_elsewhere(session.conn()).await?;
    let mut created = BTreeMap::new();
    for (database, names) in by_database {
        let sql = format!(
            "SELECT TABLE_NAME, CAST(UNIX_TIMESTAMP(CREATE_TIME) AS UNSIGNED) FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA = {} AND CREATE_TIME IS NOT NULL{but_elsewhere}",
            quote_text(database)
        );
        for (name, at) in session.query_rows::<(String, u64)>(&sql).await? {
            if let Some(name) = names.get(name.as_str()) {
                created.insert((database, *name), at);
            }
        }
    }
    Ok(created)
}
