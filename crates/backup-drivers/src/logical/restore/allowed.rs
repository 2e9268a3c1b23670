//! What the target would refuse in the middle of a restore, told before the first row.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{ErrorKind, Finding, Flavor, Result, Severity};

use super::super::catalog::{Catalog, StoredKind, StoredObject, Table};
use super::super::ddl::{Code, Parts as DdlParts};
use super::super::inventory::{
    Need, Privilege, ServerFacts, counts_transactions, lacking, lacking_each,
};
use super::super::load::{LoadSettings, Progress, Shape};
use super::super::recreate::{Existing, ExistingKind, sequences};
use super::super::select::{TableName, quote_name};
use super::{LogicalRestoreOptions, Parts, in_name_of};
use crate::connect::Session;

/// What the restore makes, and how.
pub(super) struct Made<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) shapes: &'a [Shape],
    /// What is dropped for it.
    pub(super) destroyed: &'a [Existing],
    /// The marks of it.
    pub(super) progress: Option<&'a Progress>,
}

/// What the server as a whole is set to, and the account needs for it.
pub(super) async fn findings(
    session: &mut Session,
    made: &Made<'_>,
    settings: &LoadSettings,
    options: &LogicalRestoreOptions,
    logged: bool,
) -> Result<Vec<Finding>> {
    let facts = &settings.facts;
    let catalog = made.catalog;
    let mut findings = Vec::from_iter(read_only(session, facts).await?);
    findings.extend(read_only_databases(session, facts, catalog).await?);
    findings.extend(tables(session, facts, made, options).await?);
    let change = match facts.flavor {
        Flavor::MySql => ["SYSTEM_VARIABLES_ADMIN", "SUPER"],
        Flavor::MariaDb => ["SUPER", "SUPER"],
    };
    let has_rows = catalog.tables.iter().any(|table| table.digest.rows > 0);
    if has_rows && !is_on(session, "local_infile").await? {
        let lacks = lacking(session.conn(), facts, &[Need::global(&change)]).await?;
        findings.extend(lacks.iter().map(|privilege| {
            finding(
                "local_infile",
                format!(
                    "the target does not accept LOAD DATA LOCAL, and the account lacks {} to allow it",
                    privilege.name
                ),
                format!("SET GLOBAL local_infile = ON at the target, or {}", privilege.grant),
            )
        }));
    }
    if logged && !settings.binary_log {
        let any: &[&str] = match facts.flavor {
            Flavor::MySql => &["SESSION_VARIABLES_ADMIN", "SYSTEM_VARIABLES_ADMIN", "SUPER"],
            Flavor::MariaDb => &["BINLOG ADMIN", "SUPER"],
        };
        let lacks = lacking(session.conn(), facts, &[Need::global(any)]).await?;
        findings.extend(lacks.iter().map(|p| {
            lacks_for(p, "keep the restore out of the target's binary log", "with --binlog on")
        }));
    }
    if logged && settings.binary_log {
        findings.extend(transactions(session, made).await?);
        if facts.flavor == Flavor::MariaDb && !settings.statements {
            findings.extend(not_logged(catalog));
        }
    }
    if !options.redo_log && facts.flavor == Flavor::MySql {
        let need = Need::global(&["INNODB_REDO_LOG_ENABLE"]);
        let lacks = lacking(session.conn(), facts, &[need]).await?;
        findings.extend(
            lacks.iter().map(|p| lacks_for(p, "switch the redo log off", "without --redo-log off")),
        );
    }
    if settings.statements && settings.binary_log && facts.flavor == Flavor::MariaDb {
        findings.extend(statements(session, facts, catalog).await?);
    }
    findings.extend(code(session, facts, catalog).await?);
    findings.extend(in_name_of::findings(session, facts, catalog).await?);
    if logged && !is_on(session, "log_bin_trust_function_creators").await? {
        findings.extend(untrusted(session, facts, catalog).await?);
    }
    Ok(findings)
}

/// Tables that count transactions: a MariaDB that logs rows logs none that are loaded into them.
fn not_logged(catalog: &Catalog) -> Vec<Finding> {
    let filled = catalog.tables.iter().filter(|table| table.digest.rows > 0);
    let counting = filled.filter(|table| counts_transactions(&table.create));
    let finding = |table: &Table| {
        Finding::new(
            Severity::Warning,
            table.full_name().to_string(),
            "it is system-versioned by transactions, and MariaDB writes nothing to its binary log of rows that are \
             loaded into such a table: replicas have it empty then, and so has a point in time of this target",
            "restore it to each replica too (--tables, --binlog off), and take a full backup of the target then",
        )
    };
    counting.map(finding).collect()
}

/// Rows that go in at once, and may be too many for the target's binary log.
async fn transactions(session: &mut Session, made: &Made<'_>) -> Result<Option<Finding>> {
    let limit: Option<u64> = session.query_first("SELECT @@GLOBAL.max_binlog_cache_size").await?;
    let tables =
        made.catalog.tables.iter().zip(made.shapes).filter(|(table, _)| table.transactional);
    let at_once = |(table, shape): (&Table, &Shape)| {
        (table.data_bytes / shape.units(table).max(1) as u64, table.full_name())
    };
    let Some((bytes, table)) = tables.map(at_once).max() else { return Ok(None) };
    Ok(limit.filter(|limit| *limit < bytes).map(|limit| {
        Finding::new(
            Severity::Warning,
            table.to_string(),
            format!(
                "about {bytes} bytes of it go in at once, and the target's binary log takes transactions of \
                 {limit} (max_binlog_cache_size)"
            ),
            "raise it with SET GLOBAL at the target, or restore with --binlog off",
        )
    }))
}

/// Sequences, and tables that take numbers of them, which are not for a log of statements.
async fn statements(
    session: &mut Session,
    facts: &ServerFacts,
    catalog: &Catalog,
) -> Result<Vec<Finding>> {
    let made =
        |object: &&StoredObject| object.kind == StoredKind::Sequence && !object.keep_existing;
    let taker = catalog.tables.iter().find(|table| !sequences(&table.create).is_empty());
    let first = catalog.stored.iter().find(made).map(StoredObject::full_name);
    let Some(first) = first.or(taker.map(Table::full_name)) else { return Ok(Vec::new()) };
    let need = Need::or_super(facts, &["BINLOG ADMIN", "SUPER"]);
    let lacks = lacking(session.conn(), facts, &[need]).await?;
    let finding = |privilege: &Privilege| {
        finding(
            first.to_string(),
            format!(
                "the target logs statements (binlog_format), and takes nothing of sequences (ERROR 1665), and \
                 the account lacks {} to have rows logged instead",
                privilege.name
            ),
            format!("SET GLOBAL binlog_format = ROW at the target; or {}", privilege.grant),
        )
    };
    Ok(lacks.iter().map(finding).collect())
}

/// A server that takes no changes, or none from this account.
async fn read_only(session: &mut Session, facts: &ServerFacts) -> Result<Option<Finding>> {
    let off = "SET GLOBAL read_only = OFF at the target, or choose another one";
    let finding = |name: &str, problem: String, remedy: String| {
        Finding::new(Severity::Error, name, problem, remedy).with_kind(ErrorKind::Target)
    };
    if is_set(session, "super_read_only").await? {
        let problem = "the target takes no changes from anybody".to_owned();
        return Ok(Some(finding("super_read_only", problem, off.to_owned())));
    }
    if !is_set(session, "read_only").await? {
        return Ok(None);
    }
    let any: &[&str] = match facts.flavor {
        Flavor::MySql => &["CONNECTION_ADMIN", "SUPER"],
        Flavor::MariaDb if facts.version.at_least(10, 11, 0) => &["READ_ONLY ADMIN"],
        Flavor::MariaDb => &["READ_ONLY ADMIN", "SUPER"],
    };
    let lacks = lacking(session.conn(), facts, &[Need::global(any)]).await?;
    Ok(lacks.first().map(|privilege| {
        let problem = format!("the target takes changes only with {}", privilege.name);
        finding("read_only", problem, format!("{off}; or {}", privilege.grant))
    }))
}

/// Databases of the target that are written, and take no changes (MySQL, from 8.0.22).
async fn read_only_databases(
    session: &mut Session,
    facts: &ServerFacts,
    catalog: &Catalog,
) -> Result<Vec<Finding>> {
    if facts.flavor != Flavor::MySql || !facts.version.at_least(8, 0, 22) {
        return Ok(Vec::new());
    }
    let sql = "SELECT schema_name FROM information_schema.schemata_extensions \
               WHERE options LIKE '%READ ONLY=1%'";
    let read_only: Vec<String> = session.query_rows(sql).await?;
    let tables = catalog.tables.iter().map(|table| &table.database);
    let stored = catalog.stored.iter().map(|object| &object.database);
    let written: BTreeSet<&String> = tables.chain(stored).collect();
    let finding = |name: &String| {
        let problem = "the database takes no changes at the target (READ ONLY = 1)".to_owned();
        let remedy = format!("ALTER DATABASE {} READ ONLY = 0 at the target", quote_name(name));
        Finding::new(Severity::Error, name.clone(), problem, remedy).with_kind(ErrorKind::Target)
    };
    Ok(read_only.iter().filter(|name| written.contains(name)).map(finding).collect())
}

/// What making, filling and reading the tables takes, and keeping the marks of it.
async fn tables(
    session: &mut Session,
    facts: &ServerFacts,
    made: &Made<'_>,
    options: &LogicalRestoreOptions,
) -> Result<Vec<Finding>> {
    let Made { catalog, shapes, destroyed, progress } = *made;
    let folded = |name: &str| match facts.lower_case_table_names {
        1 => name.to_lowercase(),
        _ => name.to_owned(),
    };
    // By database and privilege, the tables that it is for.
    let mut needed: BTreeMap<(String, &'static str), Vec<TableName>> = BTreeMap::new();
    let mut need = |name: TableName, privileges: &[&'static str]| {
        for privilege in privileges {
            needed.entry((name.database.clone(), privilege)).or_default().push(name.clone());
        }
    };
    let made = options.parts != Parts::Data;
    for (table, shape) in catalog.tables.iter().zip(shapes) {
        let name = TableName { database: folded(&table.database), table: folded(&table.name) };
        let later = shape.indexes_later || shape.foreign_keys_later || shape.statistics_later;
        need(name.clone(), if later { &["ALTER"] } else { &[] });
        for parent in DdlParts::of(&table.create).parents(&table.database).iter().filter(|_| made) {
            let parent =
                TableName { database: folded(&parent.database), table: folded(&parent.table) };
            // MariaDB asks for any privilege on it.
            let any = if facts.flavor == Flavor::MySql { "REFERENCES" } else { "SELECT" };
            need(parent, &[any]);
        }
        let has_rows = table.digest.rows > 0 && !table.rows_elsewhere;
        need(name.clone(), if made { &["CREATE"] } else { &[] });
        need(name.clone(), if has_rows { &["INSERT"] } else { &[] });
        need(name, if table.rows_elsewhere { &[] } else { &["SELECT"] });
    }
    for Existing { name, kind, .. } in destroyed {
        if matches!(
            kind,
            ExistingKind::Table | ExistingKind::Stored(StoredKind::View | StoredKind::Sequence)
        ) {
            let name = TableName { database: folded(&name.database), table: folded(&name.table) };
            need(name, &["DROP"]);
        }
    }
    if let Some(progress) = progress {
        let TableName { database, table } = progress.name();
        let name = TableName { database: folded(database), table: table.clone() };
        need(name, &["CREATE", "DROP", "INSERT", "DELETE", "SELECT"]);
    }
    let sql = "SELECT schema_name FROM information_schema.schemata";
    let there: BTreeSet<String> = session.query_rows(sql).await?.into_iter().collect();
    for database in catalog.databases.iter().filter(|_| made) {
        let name = folded(&database.name);
        if !there.contains(&name) {
            needed.entry((name, "CREATE")).or_default();
        }
    }
    let whole: Vec<Need> =
        needed.keys().map(|(database, privilege)| Need::on(database, &[privilege])).collect();
    let lacks = lacking_each(session.conn(), facts, &whole).await?;
    // One statement for a database, with all that it takes.
    let mut grants: BTreeMap<&String, (Vec<&str>, Privilege)> = BTreeMap::new();
    for (((database, privilege), names), lack) in needed.iter().zip(lacks) {
        let Some(lack) = lack else { continue };
        let single: Vec<Need> =
            names.iter().map(|name| Need::of_table(name.clone(), &[privilege])).collect();
        if there.contains(database) && lacking(session.conn(), facts, &single).await?.is_empty() {
            continue;
        }
        grants.entry(database).or_insert((Vec::new(), lack)).0.push(privilege);
    }
    Ok(grants
        .into_values()
        .map(|(privileges, Privilege { name, grant })| {
            let all = privileges.join(", ");
            let together = |text: &str| text.replacen(privileges[0], &all, 1);
            let problem = format!("the account lacks {} for the tables", together(&name));
            finding("privileges", problem, together(&grant))
        })
        .collect())
}

/// What comes after the rows.
async fn code(
    session: &mut Session,
    facts: &ServerFacts,
    catalog: &Catalog,
) -> Result<Vec<Finding>> {
    let mut needs: Vec<Need> = Vec::new();
    for object in catalog.stored.iter().filter(|o| !o.keep_existing && !o.database.is_empty()) {
        let of_table = |name: &str, any| {
            let table = TableName { database: object.database.clone(), table: name.to_owned() };
            Need::of_table(table, any)
        };
        let need = match (object.kind, &object.table) {
            (StoredKind::View, _) => of_table(&object.name, &["CREATE VIEW"]),
            (StoredKind::Trigger, Some(table)) => of_table(table, &["TRIGGER"]),
            (StoredKind::Procedure | StoredKind::Function, _) => {
                Need::on(&object.database, &["CREATE ROUTINE"])
            }
            (StoredKind::Event, _) => Need::on(&object.database, &["EVENT"]),
            _ => continue,
        };
        needs.push(need);
    }
    let mut lacks = lacking(session.conn(), facts, &needs).await?;
    lacks.dedup();
    Ok(lacks
        .iter()
        .map(|p| {
            let problem = format!("the account lacks {} for what comes after the rows", p.name);
            finding("privileges", problem, p.grant.clone())
        })
        .collect())
}

/// Functions and triggers that are made.
pub(super) fn creators(catalog: &Catalog) -> impl Iterator<Item = &StoredObject> {
    let of_them = |object: &&StoredObject| {
        matches!(object.kind, StoredKind::Function | StoredKind::Trigger) && !object.keep_existing
    };
    catalog.stored.iter().filter(of_them)
}

/// Functions and triggers, which a server with a binary log does not take from everybody.
async fn untrusted(
    session: &mut Session,
    facts: &ServerFacts,
    catalog: &Catalog,
) -> Result<Vec<Finding>> {
    const TRUST: &str =
        "SET GLOBAL log_bin_trust_function_creators = 1 at the target for the time of the restore";
    let made: Vec<&StoredObject> = creators(catalog).collect();
    let Some(first) = made.first() else { return Ok(Vec::new()) };
    // Who may make the server trust for the time of the restore, or is trusted.
    let need = match facts.flavor {
        Flavor::MySql => Need::global(&["SYSTEM_VARIABLES_ADMIN", "SUPER"]),
        Flavor::MariaDb => Need::or_super(facts, &["BINLOG ADMIN", "SUPER"]),
    };
    let lacks = lacking(session.conn(), facts, &[need]).await?;
    let finding = |privilege: &Privilege| {
        // These it takes from nobody, unless it trusts.
        let (object, problem) = match made.iter().find(|object| is_unsafe(object)) {
            Some(unsafe_one) => (
                unsafe_one.full_name(),
                format!(
                    "the target has a binary log, in which it takes no function that is none of \
                     DETERMINISTIC, NO SQL and READS SQL DATA (ERROR 1418), and the account lacks {} to \
                     have it do so",
                    privilege.name
                ),
            ),
            None => (
                first.full_name(),
                format!(
                    "the target has a binary log, and takes functions and triggers only from accounts with \
                     {} (ERROR 1419)",
                    privilege.name
                ),
            ),
        };
        finding(object.to_string(), problem, format!("{TRUST}; or {}", privilege.grant))
    };
    Ok(lacks.iter().map(finding).collect())
}

/// Whether a function says nothing of what makes it safe.
fn is_unsafe(object: &StoredObject) -> bool {
    object.kind == StoredKind::Function && Code::of_function(&object.create) == Code::Undeclared
}

/// Whether a variable is there and not off.
async fn is_set(session: &mut Session, name: &str) -> Result<bool> {
    let sql = format!("SHOW GLOBAL VARIABLES LIKE '{}'", name.replace('_', "\\_"));
    let row: Option<(String, String)> = session.query_first(&sql).await?;
    Ok(row.is_some_and(|(_, value)| value != "OFF" && value != "0"))
}

async fn is_on(session: &mut Session, name: &str) -> Result<bool> {
    let sql = format!("SHOW GLOBAL VARIABLES LIKE '{}'", name.replace('_', "\\_"));
    let row: Option<(String, String)> = session.query_first(&sql).await?;
    // A server without such a variable has nothing against it.
    Ok(row.is_none_or(|(_, value)| value == "ON" || value == "1"))
}

fn lacks_for(privilege: &Privilege, what: &str, otherwise: &str) -> Finding {
    finding(
        "privileges",
        format!("the account lacks {} to {what}", privilege.name),
        format!("{}; or restore {otherwise}", privilege.grant),
    )
}

pub(super) fn finding(
    object: impl Into<String>,
    problem: String,
    remedy: impl Into<String>,
) -> Finding {
    Finding::new(Severity::Error, object, problem, remedy).with_kind(ErrorKind::Privilege)
}
