//! What has to be there so that the binlogs of some tables can be applied without the rest.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::Flavor;

use super::catalog::{Catalog, StoredKind, Table};
use super::ddl::{Parts, Wanted};
use super::select::{Selection, TableName, quote_name};

/// Some tables of a backup, with those that they cannot do without.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The tables, and those that their foreign keys refer to: a server changes the rows of a table
    /// with those that they refer to, and says nothing of it in its binlog.
    pub selection: Selection,
    pub(crate) wanted: Wanted,
    /// Whether statements may change the tables without naming them.
    pub(crate) hidden: bool,
}

impl Scope {
    /// The scope of what `selection` names.
    ///
    /// # Errors
    /// Why the rest of the backup cannot be done without.
    pub fn of(catalog: &Catalog, selection: &Selection) -> Result<Scope, String> {
        let find =
            |name: &TableName| catalog.tables.iter().find(|table| table.full_name() == *name);
        let mut open: Vec<&Table> = Vec::new();
        for name in &selection.tables {
            open.push(find(name).ok_or_else(|| format!("{name} is not in the backup"))?);
        }
        if let Some(name) =
            selection.databases.iter().find(|n| !catalog.databases.iter().any(|d| d.name == **n))
        {
            return Err(format!("the database {name} is not in the backup"));
        }
        let databases = &selection.databases;
        open.extend(catalog.tables.iter().filter(|table| databases.contains(&table.database)));
        let mut tables: BTreeSet<TableName> = open.iter().map(|table| table.full_name()).collect();
        while let Some(table) = open.pop() {
            let name = table.full_name();
            if table.create.to_lowercase().contains("nextval(") {
                return Err(format!("{name} takes numbers of a sequence"));
            }
            for parent in Parts::of(&table.create).parents(&table.database) {
                if databases.contains(&parent.database) || !tables.insert(parent.clone()) {
                    continue;
                }
                if !databases.is_empty() {
                    return Err(format!("a foreign key of {name} refers to {parent}"));
                }
                let missing = || format!("{name} refers to {parent}, which is not in the backup");
                open.push(find(&parent).ok_or_else(missing)?);
            }
        }
        let odd = |name: &str| name.contains(['.', '\'', '"']);
        let names = tables.iter().flat_map(|t| [&t.database, &t.table]).chain(databases);
        if let Some(name) = names.into_iter().find(|name| odd(name)) {
            return Err(format!("no replication filter can be written for the name {name}"));
        }
        let code = |kind: StoredKind| {
            matches!(
                kind,
                StoredKind::View
                    | StoredKind::Trigger
                    | StoredKind::Procedure
                    | StoredKind::Function
                    | StoredKind::Event
            )
        };
        let wanted = match databases.is_empty() {
            true => Wanted::new(&tables, []),
            false => Wanted::new([], databases),
        };
        let mut stored = catalog.stored.iter().filter(|object| code(object.kind));
        let hidden = stored.any(|object| {
            let of_them = object.table.as_ref().is_some_and(|t| wanted.has(&object.database, t));
            !databases.is_empty() || of_them || wanted.is_mentioned_in(&object.create)
        });
        let selection = match databases.is_empty() {
            true => Selection { tables, ..Selection::default() },
            false => Selection { databases: databases.clone(), ..Selection::default() },
        };
        Ok(Scope { selection, wanted, hidden })
    }

    /// Statements that make a private server leave out what binlogs do to other tables.
    #[must_use]
    pub fn filter_statements(&self, flavor: Flavor) -> Vec<String> {
        let mut lists: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (option, value) in self.filters() {
            lists.entry(option).or_default().push(value);
        }
        let statement = |(option, values): (&str, Vec<String>)| match flavor {
            Flavor::MariaDb => format!("SET GLOBAL {option} = '{}'", text(&values.join(","))),
            Flavor::MySql => {
                let names: Vec<String> = match option {
                    "replicate_wild_do_table" => {
                        values.iter().map(|v| format!("'{}'", text(v))).collect()
                    }
                    _ => self
                        .selection
                        .tables
                        .iter()
                        .map(|t| format!("{}.{}", quote_name(&t.database), quote_name(&t.table)))
                        .collect(),
                };
                let filter = option.to_uppercase();
                format!("CHANGE REPLICATION FILTER {filter} = ({})", names.join(", "))
            }
        };
        lists.into_iter().map(statement).collect()
    }

    /// Options of a server that leave out what binlogs do to other tables.
    #[must_use]
    pub fn filters(&self) -> Vec<(&'static str, String)> {
        let Selection { databases, tables, .. } = &self.selection;
        // Here `_` and `%` stand for other characters.
        let literal = |name: &str| {
            let escape = |c| if matches!(c, '_' | '%' | '\\') { vec!['\\', c] } else { vec![c] };
            name.chars().flat_map(escape).collect::<String>()
        };
        let databases = databases
            .iter()
            .map(|name| ("replicate_wild_do_table", format!("{}.%", literal(name))));
        let tables =
            tables.iter().map(|t| ("replicate_do_table", format!("{}.{}", t.database, t.table)));
        databases.chain(tables).collect()
    }
}

/// The inside of a string of SQL.
fn text(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\'', "''")
}
