//! A table as a server has it now.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Error, ErrorKind, Result};

use super::super::rows::{Column, TableMap};
use super::rows::Change;
use crate::connect::Session;
use crate::logical::TableName;

/// A column.
#[derive(Debug, Clone)]
pub(super) struct ColumnDefinition {
    pub(super) name: String,
    /// In lower case, without what follows it: `int`.
    pub(super) data_type: String,
    /// Of text.
    pub(super) charset: Option<String>,
    pub(super) unsigned: bool,
    /// The server computes it.
    pub(super) generated: bool,
    /// The server sets it in every UPDATE that does not.
    pub(super) on_update: bool,
    /// The longest value in bytes, of strings.
    pub(super) octets: usize,
}

impl ColumnDefinition {
    pub(super) fn quoted(&self) -> String {
        quote(&self.name)
    }

    /// Whether such a column has values of this type in a binlog.
    fn fits(&self, column: Column) -> bool {
        let kinds: &[u8] = match self.data_type.as_str() {
            "tinyint" => &[1],
            "smallint" => &[2],
            "mediumint" => &[9],
            "int" => &[3],
            "bigint" => &[8],
            "float" => &[4],
            "double" => &[5],
            "decimal" => &[246],
            "year" => &[13],
            "date" => &[10, 14],
            "time" => &[11, 19],
            "datetime" => &[12, 18],
            "timestamp" => &[7, 17],
            "char" | "binary" | "inet4" | "inet6" | "uuid" => &[254],
            "varchar" | "varbinary" => &[15, 253, 141],
            "tinytext" | "text" | "mediumtext" | "longtext" | "tinyblob" | "blob"
            | "mediumblob" | "longblob" => &[249, 250, 251, 252, 140],
            "json" => &[245],
            "vector" => &[242, 15],
            "enum" => &[247],
            "set" => &[248],
            "bit" => &[16],
            // All that is left are shapes.
            _ => &[255],
        };
        kinds.contains(&column.real_kind())
    }
}

/// A column of `information_schema`: name, type, character set, type in full, what else, longest value.
type Described = (String, String, Option<String>, String, String, Option<u64>);

/// A table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// Between backticks, with its database.
    pub(super) name: String,
    pub(super) columns: Vec<ColumnDefinition>,
    /// The columns of a key that names each row, by number; none where there is no such key.
    pub(super) key: Vec<usize>,
    /// Which rows of other tables, or its own, its rows refer to.
    pub(super) parents: Vec<Parent>,
    /// What would happen beside the statements.
    pub(super) beside: Vec<Beside>,
}

/// A foreign key, seen from the table that refers.
#[derive(Debug, Clone)]
pub(super) struct Parent {
    /// The name of the key.
    pub(super) name: String,
    /// Between backticks, with its database.
    pub(super) table: String,
    /// The columns that refer, by number, with the names of those that they refer to.
    pub(super) columns: Vec<(usize, String)>,
}

fn full(database: &str, table: &str) -> String {
    TableName { database: database.into(), table: table.into() }.quoted()
}

fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

impl Table {
    /// Asks a server for the table that a TABLE_MAP names; `None` where it is not there.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] when it is not as it was.
    pub(super) async fn of(session: &mut Session, map: &TableMap) -> Result<Option<Table>> {
        let params = || (map.database.clone(), map.table.clone());
        let name = full(&map.database, &map.table);
        let rows: Vec<Described> = session
            .exec_rows(
                "SELECT column_name, data_type, character_set_name, column_type, extra, \
                 character_octet_length FROM information_schema.columns \
                 WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position",
                params(),
            )
            .await?;
        let columns: Vec<ColumnDefinition> = rows
            .into_iter()
            .map(|(name, data_type, charset, column_type, extra, octets)| ColumnDefinition {
                name,
                data_type: data_type.to_lowercase(),
                charset,
                unsigned: column_type.to_lowercase().contains("unsigned"),
                generated: ["VIRTUAL GENERATED", "STORED GENERATED", "PERSISTENT"]
                    .iter()
                    .any(|word| extra.to_uppercase().contains(word)),
                on_update: extra.to_uppercase().contains("ON UPDATE"),
                octets: octets.and_then(|n| n.try_into().ok()).unwrap_or(0),
            })
            .collect();
        if columns.is_empty() {
            return Ok(None);
        }
        let same = columns.len() == map.columns.len()
            && columns.iter().zip(&map.columns).all(|(now, then)| now.fits(*then));
        if !same {
            return Err(Error::new(
                ErrorKind::Source,
                format!("{name} has other columns now than in the transaction"),
            )
            .with_remedy("it was altered since: restore to just before, and move the rows over"));
        }
        let key = key(session, params(), &columns).await?;
        let parents = parents(session, params(), &columns).await?;
        let beside = beside(session, params(), &name, &columns).await?;
        Ok(Some(Table { name, columns, key, parents, beside }))
    }
}

/// The columns of the primary key, or else of a unique key without NULL.
async fn key(
    session: &mut Session,
    table: (String, String),
    columns: &[ColumnDefinition],
) -> Result<Vec<usize>> {
    let rows: Vec<(String, Option<String>, Option<u64>, String)> = session
        .exec_rows(
            "SELECT index_name, column_name, sub_part, nullable FROM information_schema.statistics \
             WHERE table_schema = ? AND table_name = ? AND non_unique = 0 \
             ORDER BY index_name <> 'PRIMARY', index_name, seq_in_index",
            table,
        )
        .await?;
    let mut unfit = BTreeSet::new();
    let mut keys: Vec<(String, Vec<usize>)> = Vec::new();
    for (index, column, part, nullable) in rows {
        let at = column.and_then(|column| columns.iter().position(|c| c.name == column));
        match at {
            Some(at) if part.is_none() && nullable != "YES" && !columns[at].generated => {
                match keys.last_mut() {
                    Some((name, key)) if *name == index => key.push(at),
                    _ => keys.push((index, vec![at])),
                }
            }
            _ => {
                unfit.insert(index);
            }
        }
    }
    let key = keys.into_iter().find(|(name, _)| !unfit.contains(name));
    Ok(key.map(|(_, key)| key).unwrap_or_default())
}

/// What the rows of a table refer to.
async fn parents(
    session: &mut Session,
    table: (String, String),
    columns: &[ColumnDefinition],
) -> Result<Vec<Parent>> {
    let rows: Vec<(String, String, String, String, String)> = session
        .exec_rows(
            "SELECT constraint_name, column_name, referenced_table_schema, referenced_table_name, \
             referenced_column_name FROM information_schema.key_column_usage WHERE table_schema = ? \
             AND table_name = ? AND referenced_table_name IS NOT NULL ORDER BY 1, ordinal_position",
            table,
        )
        .await?;
    let mut parents: BTreeMap<String, Parent> = BTreeMap::new();
    for (key, column, database, parent, referenced) in rows {
        let at = columns.iter().position(|c| c.name == column);
        let parent = parents.entry(key.clone()).or_insert_with(|| Parent {
            name: key,
            table: full(&database, &parent),
            columns: Vec::new(),
        });
        parent.columns.extend(at.map(|at| (at, referenced)));
    }
    Ok(parents.into_values().collect())
}

/// What statements may do beside what they say.
#[derive(Debug, Clone)]
pub(super) struct Beside {
    when: When,
    /// For people.
    text: String,
    /// The table whose rows follow, between backticks, with its database.
    follows: Option<String>,
}

/// Which changes, or their undoing, it has to do with.
#[derive(Debug, Clone)]
enum When {
    /// A trigger fires at these statements, which undo a change.
    Undone(String),
    /// Rows of other tables follow one that goes.
    Gone,
    /// They follow one of which such a column changes.
    Changed(Vec<usize>),
}

impl Beside {
    /// What to say where it happens as this change is undone, or happened with it and is not undone: the
    /// binlog does not tell of it, or of a table that is not `wanted`.
    pub(super) fn of(
        &self,
        change: &Change,
        table: &Table,
        wanted: impl Fn(&str) -> bool,
    ) -> Option<String> {
        if !self.concerns(change, table) {
            return None;
        }
        match &self.follows {
            // Nothing followed, and nothing will.
            Some(_) if change.unchecked && change.before.is_some() => None,
            Some(child) if change.after.is_none() && change.cascades_told => {
                let text = format!(
                    "rows of {child} followed those of {} by a foreign key, and are not among the tables that are \
                     chosen",
                    table.name
                );
                (!wanted(child)).then_some(text)
            }
            _ => Some(self.text.clone()),
        }
    }

    /// Whether a change, or what undoes it, has to do with it.
    fn concerns(&self, change: &Change, table: &Table) -> bool {
        let (statement, updates) = match (&change.before, &change.after) {
            (Some(_), Some(_)) => ("UPDATE", true),
            (Some(_), None) => ("INSERT", false),
            (None, _) => ("DELETE", false),
        };
        match &self.when {
            When::Undone(event) => event.contains(statement),
            When::Gone => !updates,
            // Of columns that the server computes there are no values here.
            When::Changed(columns) => {
                let computed = |at: &usize| table.columns[*at].generated;
                updates && columns.iter().any(|at| computed(at) || change.changes(*at))
            }
        }
    }
}

/// Whether rows that refer follow one that is deleted, or of which such a column changes.
#[derive(Default)]
struct Rules {
    delete: bool,
    update: bool,
    columns: Vec<usize>,
}

/// Triggers, and foreign keys of other tables with the columns that they refer to.
async fn beside(
    session: &mut Session,
    table: (String, String),
    name: &str,
    columns: &[ColumnDefinition],
) -> Result<Vec<Beside>> {
    let triggers: Vec<(String, String)> = session
        .exec_rows(
            "SELECT trigger_name, event_manipulation FROM information_schema.triggers \
             WHERE event_object_schema = ? AND event_object_table = ? ORDER BY 1",
            table.clone(),
        )
        .await?;
    let mut beside: Vec<Beside> = triggers
        .into_iter()
        .map(|(trigger, event)| Beside {
            text: format!(
                "trigger {trigger} of {name} would fire at the {event} that undoes a change, and do more than that; \
                 drop it while the statements run"
            ),
            when: When::Undone(event),
            follows: None,
        })
        .collect();
    // Database and table that refer, what becomes of their rows, and the columns.
    type Referring = (String, String, String, String, String, String);
    let children: Vec<Referring> = session
        .exec_rows(
            "SELECT c.constraint_schema, c.table_name, c.constraint_name, c.delete_rule, c.update_rule, \
             k.referenced_column_name FROM information_schema.referential_constraints c \
             JOIN information_schema.key_column_usage k ON k.constraint_schema = c.constraint_schema \
             AND k.constraint_name = c.constraint_name AND k.table_name = c.table_name \
             WHERE c.unique_constraint_schema = ? AND c.referenced_table_name = ? ORDER BY 1, 2, 3",
            table,
        )
        .await?;
    let mut keys: BTreeMap<(String, String, String), Rules> = BTreeMap::new();
    for (database, child, key, delete, update, column) in children {
        let follows = |rule: &str| matches!(rule, "CASCADE" | "SET NULL");
        let rules = keys.entry((database, child, key)).or_default();
        (rules.delete, rules.update) = (follows(&delete), follows(&update));
        // In the letters in which they were written there.
        rules.columns.extend(columns.iter().position(|c| c.name.eq_ignore_ascii_case(&column)));
    }
    for ((database, child, _), Rules { delete, update, columns }) in keys {
        let child = full(&database, &child);
        let text = format!(
            "rows of {child} follow those of {name} by a foreign key; where the server did that by \
             itself, the binlog does not tell, and it is not undone"
        );
        let follows = Some(child);
        if delete {
            beside.push(Beside { when: When::Gone, text: text.clone(), follows: follows.clone() });
        }
        if update {
            beside.push(Beside { when: When::Changed(columns), text, follows });
        }
    }
    Ok(beside)
}
