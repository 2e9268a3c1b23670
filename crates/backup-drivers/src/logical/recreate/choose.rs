//! The part of a catalogue that is wanted, under the names that are wanted.

use std::collections::BTreeSet;

use backup_core::{Error, Flavor, Result};

use super::super::catalog::{Catalog, Database, StoredKind, StoredObject, Table};
use super::super::ddl::{
    Dialect, TableRename, drop_directories, mentions_database, rename_database, rename_header,
    rename_libraries, rename_table, rename_trigger, rename_view, replace_engine, switch_off,
};
use super::super::rename::Rename;
use super::super::select::{Selection, TableName, quote_name};
use super::spelling;

/// Takes what `selection` wants out of a catalogue and renames it.
///
/// Users and roles come with the whole server under its own names only.
///
/// With single tables chosen come their triggers, and the sequences in their defaults. A table that
/// is restored under another name in its own database gets new names for its foreign keys, CHECK
/// constraints (MySQL) and triggers, which have to differ from those of the original.
///
/// Names are compared without case where the source does so.
///
/// The chunks of the tables stay, so that their rows can be loaded. What is worth a look is added
/// to [`Catalog::warnings`].
///
/// # Errors
/// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) when the selection or a rule names what the
/// backup does not hold, or two tables end up under one name.
pub fn choose(catalog: Catalog, selection: &Selection, rename: &Rename) -> Result<Catalog> {
    let (selection, rename) = &spelling::of_source(&catalog, selection, rename)?;
    let databases: Vec<String> = catalog.databases.iter().map(|d| d.name.clone()).collect();
    let tables: Vec<TableName> = catalog.tables.iter().map(Table::full_name).collect();
    let selection = &selection.resolve(&databases, &tables)?;
    check_names(&catalog, selection, rename)?;
    let mut all = tables;
    all.extend(
        catalog.stored.iter().filter(|o| !o.database.is_empty()).map(StoredObject::full_name),
    );
    let idle = selection.idle_exclusions(&databases, &all)?;
    let mut catalog = select(catalog, selection);
    if catalog.header.lower_case_table_names != 0 {
        catalog.stored.iter_mut().for_each(on_table);
    }
    catalog.warnings = idle
        .into_iter()
        .map(|glob| format!("nothing in the backup fits `{glob}`, which is to be left out"))
        .collect();
    if !selection.is_whole_server() || !rename.is_empty() {
        // What they may do is told by names.
        catalog.accounts.clear();
    }
    if rename.is_empty() {
        return Ok(catalog);
    }
    let chosen = catalog.tables.iter().map(Table::full_name);
    let sequences = catalog.stored.iter().filter(|o| o.kind == StoredKind::Sequence);
    let sequences = sequences.map(StoredObject::full_name);
    let chosen: BTreeSet<TableName> = chosen.chain(sequences).collect();
    let renamer = Renamer { flavor: catalog.header.flavor, rename, chosen };
    renamer.apply(&mut catalog);
    check_unique(&catalog)?;
    Ok(catalog)
}

/// Takes the directories of their own off tables, as if they had been created without.
pub(in crate::logical) fn without_directories(mut catalog: Catalog) -> Catalog {
    for table in &mut catalog.tables {
        table.create = drop_directories(&table.create);
    }
    catalog
}

/// The engine whose tables cannot be created without the server that they show rows of.
const ELSEWHERE: &str = "FEDERATED";

/// The tables that [`stand_in`] changes.
pub(in crate::logical) fn of_other_servers(catalog: &Catalog) -> impl Iterator<Item = &Table> {
    catalog.tables.iter().filter(|table| table.engine.eq_ignore_ascii_case(ELSEWHERE))
}

/// Gives tables that show rows of other servers another engine: a rehearsal neither has these servers nor is it to
/// bother them.
pub(in crate::logical) fn stand_in(mut catalog: Catalog) -> Catalog {
    for table in &mut catalog.tables {
        if table.engine.eq_ignore_ascii_case(ELSEWHERE) {
            table.create = replace_engine(&table.create, ELSEWHERE, "InnoDB");
            table.engine = "InnoDB".to_owned();
        }
    }
    catalog
}

fn check_names(catalog: &Catalog, selection: &Selection, rename: &Rename) -> Result<()> {
    let missing = |what: String| {
        Error::usage(format!("the backup holds no {what}"))
            .with_remedy("see what it holds with `holdfast show`")
    };
    let has_database = |name: &String| catalog.databases.iter().any(|d| d.name == *name);
    let sequences = catalog.stored.iter().filter(|o| o.kind == StoredKind::Sequence);
    let names: BTreeSet<TableName> = catalog
        .tables
        .iter()
        .map(Table::full_name)
        .chain(sequences.map(StoredObject::full_name))
        .collect();
    let has_table = |name: &TableName| names.contains(name);
    let (databases, tables) = rename.sources();
    if let Some(name) = selection.databases.iter().chain(databases).find(|d| !has_database(d)) {
        return Err(missing(format!("database {name}")));
    }
    match selection.tables.iter().chain(tables).find(|t| !has_table(t)) {
        Some(name) => Err(missing(format!("table {name}"))),
        None => Ok(()),
    }
}

fn select(mut catalog: Catalog, selection: &Selection) -> Catalog {
    catalog.tables.retain(|t| selection.wants_table(&t.database, &t.name));
    catalog.databases.retain(|d| selection.wants_database(&d.name));
    let tables = &catalog.tables;
    let uses = |text: &str| tables.iter().any(|t| t.create.contains(text));
    let everything = selection.is_whole_server();
    catalog.stored.retain_mut(|object| match object.kind {
        StoredKind::ResourceGroup => everything,
        StoredKind::SpatialReferenceSystem => everything || uses(&format!("SRID {} ", object.name)),
        StoredKind::Tablespace => {
            object.keep_existing = true;
            everything || tables.iter().any(|t| t.is_in_tablespace(&object.name))
        }
        StoredKind::Sequence => {
            let call = format!("({}.{})", quote_name(&object.database), quote_name(&object.name));
            // One that only comes along with a table is not to put back the target's own.
            object.keep_existing = !selection.wants_table(&object.database, &object.name);
            !object.keep_existing || uses(&call)
        }
        StoredKind::Trigger => {
            let table = object.table.as_deref().unwrap_or_default();
            selection.wants_table(&object.database, table)
        }
        StoredKind::View => {
            !selection.only_tables() && selection.wants_table(&object.database, &object.name)
        }
        _ => !selection.only_tables() && selection.wants_database(&object.database),
    });
    catalog
}

/// Makes a trigger name its table as that is named: a source that does not tell cases apart kept the
/// statement as it was written, which other servers would take for a table that there is not.
fn on_table(object: &mut StoredObject) {
    if let (StoredKind::Trigger, Some(table), None) =
        (object.kind, &object.table, &object.create_bytes)
    {
        let dialect = Dialect::of(object.sql_mode.as_deref().unwrap_or_default());
        object.create = rename_trigger(&object.create, dialect, &object.name, table);
    }
}

struct Renamer<'a> {
    flavor: Flavor,
    rename: &'a Rename,
    /// The tables and sequences that are restored: references to others stay as they are.
    chosen: BTreeSet<TableName>,
}

impl Renamer<'_> {
    fn target(&self, name: &TableName) -> TableName {
        if self.chosen.contains(name) { self.rename.table(name) } else { name.clone() }
    }

    fn apply(&self, catalog: &mut Catalog) {
        let mut stored = std::mem::take(&mut catalog.stored);
        for object in &mut stored {
            self.stored(object, &mut catalog.warnings);
        }
        catalog.stored = stored;
        for table in &mut catalog.tables {
            let (old, new) = (table.full_name(), self.rename.table(&table.full_name()));
            table.create = self.definition(&table.create, &old, &new);
            // Other tables of its database that it refers to came along unless it left alone.
            if table.rows_elsewhere && new.database != self.rename.database(&old.database) {
                catalog.warnings.push(format!(
                    "the {} table {new} still shows the rows of what {old} refers to by name",
                    table.engine
                ));
            }
            (table.database, table.name) = (new.database, new.table);
        }
        self.databases(catalog);
    }

    fn definition(&self, create: &str, old: &TableName, new: &TableName) -> String {
        let target = |name: &TableName| self.target(name);
        rename_table(create, &TableRename { flavor: self.flavor, old, new, target: &target })
    }

    /// A database is created for every name that something goes to.
    fn databases(&self, catalog: &mut Catalog) {
        let tables = catalog.tables.iter().map(|t| t.database.as_str());
        let stored = catalog.stored.iter().map(|o| o.database.as_str());
        let used: BTreeSet<&str> = tables.chain(stored).collect();
        let mut databases: Vec<Database> = Vec::new();
        for database in &catalog.databases {
            let new = self.rename.database(&database.name);
            let moved_away = new == database.name && !used.contains(new) && !used.is_empty();
            if !moved_away && !databases.iter().any(|d| d.name == new) {
                let create = rename_database(&database.create, new);
                databases.push(Database { name: new.to_owned(), create });
            }
        }
        for &name in &used {
            if !name.is_empty() && !databases.iter().any(|d| d.name == name) {
                // Single tables that go to a database of which the backup knows nothing.
                let create = format!("CREATE DATABASE {}", quote_name(name));
                databases.push(Database { name: name.to_owned(), create });
            }
        }
        databases.sort_by(|a, b| a.name.cmp(&b.name));
        catalog.databases = databases;
    }

    fn stored(&self, object: &mut StoredObject, warnings: &mut Vec<String>) {
        let old = object.full_name();
        let dialect = Dialect::of(object.sql_mode.as_deref().unwrap_or_default());
        let database = self.rename.database(&object.database).to_owned();
        let before = object.create.clone();
        let databases = |name: &str| {
            let new = self.rename.database(name);
            (new != name).then(|| new.to_owned())
        };
        if let StoredKind::Function | StoredKind::Procedure = object.kind {
            object.create = rename_libraries(&object.create, dialect, &databases);
        }
        match object.kind {
            StoredKind::Tablespace
            | StoredKind::SpatialReferenceSystem
            | StoredKind::ResourceGroup => return,
            StoredKind::Sequence => {
                let new = self.target(&old);
                object.create = self.definition(&object.create, &old, &new);
                (object.database, object.name) = (new.database, new.table);
                return;
            }
            StoredKind::Trigger => {
                let table = TableName {
                    database: object.database.clone(),
                    table: object.table.clone().unwrap_or_default(),
                };
                let new = self.target(&table);
                if new == table {
                    return;
                }
                if new.database == table.database {
                    object.name = format!("{}_{}", object.name, new.table);
                }
                object.create = rename_trigger(&object.create, dialect, &object.name, &new.table);
                let renamed = Some(&table).filter(|t| t.table != new.table);
                self.warn_of_body(object, dialect, renamed, warnings);
                (object.database, object.table) = (new.database, Some(new.table));
            }
            StoredKind::View => {
                object.create = rename_view(&object.create, &databases);
                object.database = database;
            }
            _ if database == object.database => {}
            _ => {
                object.create = rename_header(&object.create, dialect);
                self.warn_of_body(object, dialect, None, warnings);
                object.database = database;
                // It would run beside the original, and on the tables of the original.
                if object.kind == StoredKind::Event
                    && let Some(off) = switch_off(&object.create, dialect)
                {
                    object.create = off;
                    warnings.push(format!(
                        "event {} is switched off, for it is a copy: see that its code is right, \
                         then ALTER EVENT … ENABLE",
                        object.full_name()
                    ));
                }
            }
        }
        // Bytes that are not what the text says cannot be rewritten.
        if object.create_bytes.is_some() && object.create != before {
            object.create_bytes = None;
            warnings.push(format!(
                "{} {old} holds bytes that are no text, and is restored without them because it is \
                 renamed",
                object.kind
            ));
        }
    }

    fn warn_of_body(
        &self,
        object: &StoredObject,
        dialect: Dialect,
        table: Option<&TableName>,
        warnings: &mut Vec<String>,
    ) {
        // The header has the new names already.
        if mentions_database(&object.create, dialect, &object.database, table) {
            warnings.push(format!(
                "the code of {} {} still uses the old names: it was written by hand and is not \
                 changed",
                object.kind,
                object.full_name()
            ));
        }
    }
}

/// Two tables under one name would be loaded into each other.
fn check_unique(catalog: &Catalog) -> Result<()> {
    let mut names = BTreeSet::new();
    match catalog.tables.iter().map(Table::full_name).find(|name| !names.insert(name.clone())) {
        None => Ok(()),
        Some(name) => Err(Error::usage(format!("two tables would be restored as {name}"))
            .with_remedy("rename them to different names")),
    }
}

#[cfg(test)]
mod tests {
    use backup_core::ErrorKind;

    use super::super::super::catalog::{Header, VERSION};
    use super::*;
    use crate::rows::RowDigest;

    fn table(database: &str, name: &str, create: &str) -> Table {
        Table {
            database: database.into(),
            name: name.into(),
            create: create.into(),
            engine: "InnoDB".into(),
            transactional: true,
            columns: Vec::new(),
            key: Vec::new(),
            rows_elsewhere: false,
            histograms: std::collections::BTreeMap::new(),
            history: false,
            filter: None,
            rows_left_out: false,
            masked: Vec::new(),
            documents: std::collections::BTreeMap::new(),
            estimated_rows: 0,
            data_bytes: 0,
            digest: RowDigest::default(),
            chunks: Vec::new(),
        }
    }

    fn stored(kind: StoredKind, name: &str, create: &str) -> StoredObject {
        StoredObject {
            create: create.into(),
            table: (kind == StoredKind::Trigger).then(|| "a".to_owned()),
            ..StoredObject::new(kind, "s".into(), name.into())
        }
    }

    fn catalog() -> Catalog {
        Catalog {
            header: Header {
                version: VERSION,
                flavor: Flavor::MariaDb,
                server_version: "10.11.19-MariaDB".into(),
                lower_case_table_names: 0,
            },
            databases: vec![
                Database { name: "k".into(), create: "CREATE DATABASE `k`".into() },
                Database { name: "s".into(), create: "CREATE DATABASE `s`".into() },
            ],
            tables: vec![
                table("k", "c", "CREATE TABLE `c` (FOREIGN KEY (`x`) REFERENCES `s`.`a` (`x`))"),
                table("s", "a", "CREATE TABLE `a` (`x` int DEFAULT nextval(`s`.`q`))"),
                table("s", "b", "CREATE TABLE `b` (FOREIGN KEY (`x`) REFERENCES `a` (`x`))"),
            ],
            stored: vec![
                stored(StoredKind::Sequence, "q", "CREATE SEQUENCE `q` start with 1"),
                stored(StoredKind::Procedure, "p", "CREATE PROCEDURE `p`() select 1 from s.a"),
                stored(
                    StoredKind::View,
                    "v",
                    "CREATE VIEW `v` AS select `s`.`a`.`x` AS `x` from `s`.`a`",
                ),
                stored(
                    StoredKind::Trigger,
                    "t",
                    "CREATE TRIGGER `t` BEFORE INSERT ON `a` FOR EACH ROW set @x=1",
                ),
            ],
            accounts: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn rules(rules: &[&str]) -> Rename {
        rules.iter().map(|r| r.parse::<super::super::super::RenameRule>().unwrap()).collect()
    }

    #[test]
    fn a_database_is_renamed_with_everything_that_refers_to_it() {
        let chosen = choose(catalog(), &Selection::default(), &rules(&["s=s2"])).unwrap();
        let names: Vec<String> = chosen.tables.iter().map(|t| t.full_name().to_string()).collect();
        assert_eq!(names, ["k.c", "s2.a", "s2.b"]);
        assert!(chosen.tables[0].create.contains("REFERENCES `s2`.`a`"));
        assert!(chosen.tables[1].create.contains("nextval(`s2`.`q`)"));
        assert!(chosen.tables[2].create.contains("REFERENCES `a`"));
        assert!(chosen.stored.iter().all(|o| o.database == "s2"));
        assert!(chosen.stored[2].create.contains("from `s2`.`a`"));
        assert_eq!(chosen.databases[1].create, "CREATE DATABASE `s2`");
        assert_eq!(chosen.warnings.len(), 1, "{:?}", chosen.warnings);
        assert!(chosen.warnings[0].contains("procedure s.p"));
    }

    #[test]
    fn a_table_is_copied_beside_the_original_with_its_sequence_and_triggers() {
        let selection =
            Selection { tables: ["s.a".parse().unwrap()].into(), ..Selection::default() };
        let chosen = choose(catalog(), &selection, &rules(&["s.a=s.a2"])).unwrap();
        assert_eq!(chosen.tables.len(), 1);
        assert_eq!(chosen.tables[0].create, "CREATE TABLE `a2` (`x` int DEFAULT nextval(`s`.`q`))");
        let kinds: Vec<StoredKind> = chosen.stored.iter().map(|o| o.kind).collect();
        assert_eq!(kinds, [StoredKind::Sequence, StoredKind::Trigger]);
        assert_eq!(chosen.stored[1].name, "t_a2");
        assert!(
            chosen.stored[1].create.starts_with("CREATE TRIGGER `t_a2` BEFORE INSERT ON `a2` ")
        );
    }

    #[test]
    fn names_that_do_not_exist_and_names_used_twice_are_refused() {
        let none = Selection { tables: ["s.z".parse().unwrap()].into(), ..Selection::default() };
        for (selection, rename) in [
            (none, Rename::default()),
            (Selection::default(), rules(&["z=y"])),
            (Selection::default(), rules(&["s.a=s.b"])),
        ] {
            let error = choose(catalog(), &selection, &rename).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
        }
    }

    #[test]
    fn names_are_compared_as_the_source_does() {
        let folded = |case| {
            let mut catalog = catalog();
            catalog.header.lower_case_table_names = case;
            catalog
        };
        let globs = |databases: &[&str], tables: &[&str], not: &[&str]| Selection {
            database_globs: databases.iter().map(|glob| glob.parse().unwrap()).collect(),
            table_globs: tables.iter().map(|glob| glob.parse().unwrap()).collect(),
            exclude_table_globs: not.iter().map(|glob| glob.parse().unwrap()).collect(),
            ..Selection::default()
        };
        let named = Selection { tables: ["S.A".parse().unwrap()].into(), ..Selection::default() };
        for (selection, rename, expected) in [
            (named, rules(&["S.A=x.A2"]), &["x.A2"][..]),
            (
                Selection { databases: ["K".into()].into(), ..globs(&[], &[], &[]) },
                rules(&["K=New"]),
                &["New.c"],
            ),
            (globs(&["K"], &[], &[]), Rename::default(), &["k.c"]),
            (globs(&[], &["S.*"], &["S.B"]), Rename::default(), &["s.a"]),
        ] {
            let chosen = choose(folded(1), &selection, &rename).unwrap();
            let names = Vec::from_iter(chosen.tables.iter().map(|t| t.full_name().to_string()));
            assert_eq!(names, expected);
            assert!(choose(folded(0), &selection, &rename).is_err(), "{selection:?}");
        }
        let two = rules(&["S=x", "s=y"]);
        let error = choose(folded(1), &Selection::default(), &two).unwrap_err();
        assert!(error.report().contains("two new names are given for s"), "{}", error.report());
    }
}
