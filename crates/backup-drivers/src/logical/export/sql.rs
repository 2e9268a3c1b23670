//! One file of SQL, in the order in which an empty server takes it.

use backup_core::{Flavor, Position, Result};

use super::super::catalog::{Catalog, SequenceState, StoredKind, StoredObject, Table};
use super::super::ddl::{Dialect, inherit_collation, quote_text, significant};
use super::super::recreate;
use super::super::select::quote_name;
use super::accounts::Accounts;
use super::code::Code;
use super::script::Script;
use super::{Exported, Job, rows, views};
use crate::exchange::FileSet;

/// Writes the file.
pub(super) async fn run(job: &Job<'_>, files: &FileSet) -> Result<Exported> {
    let flavor = job.catalog.header.flavor;
    let mut script = Script::new(files.create("dump.sql")?, flavor);
    begin(job, &mut script);
    before_rows(job, &mut script).await?;
    for table in &job.catalog.tables {
        script.heading(&format!("Table {}: {} rows", table.full_name(), table.digest.rows));
        create_table(job, &mut script, table);
        rows::inserts(job, table, &mut script).await?;
    }
    after_rows(job, &mut script).await?;
    end(job, &mut script);
    let (file, longest, warnings) = script.end().await?;
    file.finish(files).await?;
    Ok(job.exported(longest, warnings))
}

/// Who made it, of what, and the settings.
pub(super) fn begin(job: &Job<'_>, script: &mut Script) {
    let manifest = job.manifest;
    let source = &manifest.outcome.source;
    script.comment(&format!(
        "{} dump by Holdfast {}, of backup {}",
        source.flavor,
        env!("CARGO_PKG_VERSION"),
        manifest.backup
    ));
    script.comment("");
    let databases: Vec<&str> = job.catalog.databases.iter().map(|d| d.name.as_str()).collect();
    script.comment(&format!("Host: {}    Database: {}", source.address, databases.join(", ")));
    script.comment("------------------------------------------------------");
    script.comment(&format!("Server version\t{}", source.version));
    script.comment("");
    let client = match source.flavor {
        Flavor::MySql => "mysql",
        Flavor::MariaDb => "mariadb",
    };
    script.comment(&format!(
        "To load it: {client} --binary-mode --comments --max-allowed-packet=1G < FILE"
    ));
    if manifest.outcome.masked {
        script.comment("Values were masked: this is no copy of the data.");
    }
    position(&manifest.outcome.position, source.flavor, script);
    script.raw("\n");
    let row_format =
        |t: &Table| t.create.contains("ROW_FORMAT=") || t.create.contains("KEY_BLOCK_SIZE");
    script.set_up(!job.catalog.tables.iter().any(row_format));
    // The mode is not what a session of code left, but that of the header.
    script.settings = None;
}

/// What a replica would be set to, as comments.
fn position(position: &Position, flavor: Flavor, script: &mut Script) {
    script.comment("");
    script.comment(&format!("Position: {position}"));
    let gtid = position.gtid.as_ref().map(ToString::to_string).filter(|g| !g.is_empty());
    match (flavor, gtid) {
        (Flavor::MySql, Some(gtid)) => {
            script.comment(&format!("SET @@GLOBAL.GTID_PURGED={};", quote_text(&gtid)));
        }
        (Flavor::MariaDb, Some(gtid)) => {
            script.comment(&format!("SET GLOBAL gtid_slave_pos={};", quote_text(&gtid)));
        }
        (_, None) => {}
    }
    if let (Some(file), Some(offset)) = (&position.file, position.offset) {
        let file = quote_text(&file.to_string());
        script.comment(&match flavor {
            Flavor::MySql => format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE={file}, SOURCE_LOG_POS={offset};"
            ),
            Flavor::MariaDb => {
                format!("CHANGE MASTER TO MASTER_LOG_FILE={file}, MASTER_LOG_POS={offset};")
            }
        });
    }
}

/// The last line, which many programs look for.
pub(super) fn end(job: &Job<'_>, script: &mut Script) {
    script.tear_down();
    let now = job.cx.now().to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S");
    script.raw("\n");
    script.comment(&format!("Dump completed on {now}"));
}

/// Everything up to the tables.
pub(super) async fn before_rows(job: &Job<'_>, script: &mut Script) -> Result<()> {
    let catalog = job.catalog;
    script.heading("Databases");
    for database in &catalog.databases {
        let create = database.create.strip_prefix("CREATE DATABASE ").unwrap_or(&database.create);
        script.run(format!("CREATE DATABASE IF NOT EXISTS {create}"));
    }
    let collations = job.collations();
    let mut code = Code::new(script, &collations);
    views::invalid(&mut code, catalog).await?;
    code.finish();
    for object in &catalog.stored {
        match object.kind {
            StoredKind::SpatialReferenceSystem => {
                let start = "CREATE SPATIAL REFERENCE SYSTEM ";
                let rest = object.create.strip_prefix(start).unwrap_or(&object.create);
                script.run(format!("{start}IF NOT EXISTS {rest}"));
            }
            StoredKind::Tablespace => script.run(&object.create),
            StoredKind::Sequence => {
                script.use_database(&object.database);
                drop_first(job, script, "SEQUENCE", object);
                script.run(&object.create);
                if let Some(state) = &object.sequence {
                    script.run(set_sequence(object, state));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Creates a table.
pub(super) fn create_table(job: &Job<'_>, script: &mut Script, table: &Table) {
    script.use_database(&table.database);
    if job.options.add_drop {
        script.run(format!("DROP TABLE IF EXISTS {}", quote_name(&table.name)));
    }
    script.run(inherit_collation(&table.create));
    if table.rows_left_out {
        script.comment("Its rows were left out of the backup.");
    }
    if let Some(filter) = &table.filter {
        script.comment(&format!("Only rows of this condition are in the backup: {filter}"));
    }
}

/// Everything after the rows.
pub(super) async fn after_rows(job: &Job<'_>, script: &mut Script) -> Result<()> {
    let catalog = job.catalog;
    for table in catalog.tables.iter().filter(|t| !t.histograms.is_empty()) {
        for (column, data) in &table.histograms {
            script.run(format!(
                "/*!80031 ANALYZE TABLE {}.{} UPDATE HISTOGRAM ON {} USING DATA {} */",
                quote_name(&table.database),
                quote_name(&table.name),
                quote_name(column),
                quote_text(data)
            ));
        }
    }
    // A default may have moved it.
    for object in catalog.stored.iter().filter(|o| o.kind == StoredKind::Sequence) {
        if let Some(state) = &object.sequence {
            script.run(set_sequence(object, state));
        }
    }
    let mut accounts = Accounts::new(catalog);
    accounts.create(script);
    script.flush().await?;
    let collations = job.collations();
    let mut code = Code::new(script, &collations);
    for kind in [
        StoredKind::Library,
        StoredKind::Function,
        StoredKind::Procedure,
        StoredKind::Package,
        StoredKind::PackageBody,
    ] {
        for object in catalog.stored.iter().filter(|o| o.kind == kind) {
            stored(job, &mut code, object).await?;
        }
    }
    accounts.on_code(code.script);
    for view in views::in_order(catalog) {
        stored(job, &mut code, view).await?;
        accounts.on_relation(&view.full_name(), code.script);
    }
    for view in catalog.stored.iter().filter(|o| o.kind == StoredKind::View && o.invalid) {
        accounts.on_relation(&view.full_name(), code.script);
    }
    for kind in [StoredKind::Trigger, StoredKind::Event] {
        for object in catalog.stored.iter().filter(|o| o.kind == kind) {
            stored(job, &mut code, object).await?;
        }
    }
    code.finish();
    accounts.finish(script);
    for object in catalog.stored.iter().filter(|o| o.kind == StoredKind::ResourceGroup) {
        script.run(&object.create);
    }
    for database in catalog.databases.iter().filter(|d| recreate::is_read_only(&d.create)) {
        script.run(format!("ALTER DATABASE {} READ ONLY = 1", quote_name(&database.name)));
    }
    script.flush().await
}

async fn stored(job: &Job<'_>, code: &mut Code<'_>, object: &StoredObject) -> Result<()> {
    let kind = object.kind.to_string();
    code.script.heading(&format!("The {kind} {}", object.full_name()));
    drop_first(job, code.script, &kind.to_uppercase(), object);
    code.create(object)?;
    code.script.flush().await
}

fn drop_first(job: &Job<'_>, script: &mut Script, kind: &str, object: &StoredObject) {
    // A package takes its body along, a table its triggers.
    if job.options.add_drop && !matches!(object.kind, StoredKind::PackageBody) {
        script.use_database(&object.database);
        if object.kind == StoredKind::Package {
            // MariaDB before 11.4 knows packages in this mode only. What creates it sets its own.
            script.run("SET SESSION sql_mode = 'ORACLE'");
        }
        script.run(format!("DROP {kind} IF EXISTS {}", quote_name(&object.name)));
    }
}

/// Puts a sequence where it stood. One that has given out its last value stands beyond its limit,
/// which SETVAL does not take: there the last value is marked as used.
fn set_sequence(object: &StoredObject, state: &SequenceState) -> String {
    let tokens = significant(&object.create, Dialect::default());
    let limit = |word: &str| {
        let at = tokens.iter().position(|t| t.is_word(word))?;
        let negative = tokens.get(at + 1)?.is_sign('-');
        let digits = tokens.get(at + 1 + usize::from(negative))?.text;
        let number: i128 = digits.parse().ok()?;
        Some(if negative { -number } else { number })
    };
    let next: i128 = state.next.parse().unwrap_or(0);
    let least = limit("minvalue").unwrap_or(next);
    let within = next.max(least).min(limit("maxvalue").unwrap_or(next).max(least));
    format!(
        "DO SETVAL({}.{}, {within}, {}, {})",
        quote_name(&object.database),
        quote_name(&object.name),
        u8::from(within != next),
        state.cycle
    )
}

/// What a database was created with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DatabaseOptions {
    /// Its collation, where the definition names it.
    pub(super) collation: Option<String>,
    /// `CHARACTER SET … COLLATE …`.
    pub(super) text: String,
}

impl DatabaseOptions {
    pub(super) fn of(create: &str) -> Self {
        let tokens = significant(create, Dialect::default());
        let after = |at: Option<usize>| tokens.get(at? + 1).map(|t| t.text.to_owned());
        let charset = after(
            tokens
                .windows(2)
                .position(|w| w[0].is_word("CHARACTER") && w[1].is_word("SET"))
                .map(|at| at + 1),
        );
        let collation = after(tokens.iter().position(|t| t.is_word("COLLATE")));
        let text = match (&charset, &collation) {
            (Some(charset), Some(collation)) => {
                format!("CHARACTER SET {charset} COLLATE {collation}")
            }
            (Some(charset), None) => format!("CHARACTER SET {charset}"),
            (None, Some(collation)) => format!("COLLATE {collation}"),
            (None, None) => String::new(),
        };
        DatabaseOptions { collation, text }
    }
}

/// Names of everything that privileges on tables can be about.
pub(super) fn relations(
    catalog: &Catalog,
) -> impl Iterator<Item = super::super::select::TableName> {
    let views =
        catalog.stored.iter().filter(|o| matches!(o.kind, StoredKind::View | StoredKind::Sequence));
    catalog.tables.iter().map(Table::full_name).chain(views.map(StoredObject::full_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_databases_are_read() {
        let create = "CREATE DATABASE `COLLATE` /*!40100 DEFAULT CHARACTER SET latin1 COLLATE latin1_bin */ /*!80016 \
                      DEFAULT ENCRYPTION='N' */";
        let options = DatabaseOptions::of(create);
        assert_eq!(options.text, "CHARACTER SET latin1 COLLATE latin1_bin");
        assert_eq!(options.collation.as_deref(), Some("latin1_bin"));
    }

    #[test]
    fn a_sequence_beyond_its_end_is_marked_as_used() {
        let object = StoredObject {
            create: "CREATE SEQUENCE `s` start with 1 minvalue -5 maxvalue 10 increment by 1"
                .into(),
            ..StoredObject::new(StoredKind::Sequence, "d".into(), "s".into())
        };
        let state = |next: &str| SequenceState { next: next.into(), cycle: "2".into() };
        assert_eq!(set_sequence(&object, &state("7")), "DO SETVAL(`d`.`s`, 7, 0, 2)");
        assert_eq!(set_sequence(&object, &state("11")), "DO SETVAL(`d`.`s`, 10, 1, 2)");
    }
}
