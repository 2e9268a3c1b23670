//! Definitions: whether each can be one, and whether what it refers to is there.

use std::collections::BTreeSet;

use backup_core::{Flavor, Manifest};

use super::super::catalog::{Catalog, StoredKind, StoredObject, Table};
use super::super::ddl::{Dialect, Parts, Token, TokenKind, significant, view_references};
use super::super::select::TableName;
use super::Found;

const NOT_HERE: &str = "restore it with what it refers to, or take a backup of everything";

pub(super) fn check(manifest: &Manifest, catalog: &Catalog, found: &mut Found) {
    let databases: BTreeSet<&str> = catalog.databases.iter().map(|d| d.name.as_str()).collect();
    let mut relations = BTreeSet::new();
    for database in &catalog.databases {
        if let Some(problem) =
            problem(&database.create, Dialect::default(), "DATABASE", &database.name)
        {
            found.error(&format!("database {}", database.name), problem);
        }
    }
    for table in &catalog.tables {
        let name = table.full_name();
        let shown = name.to_string();
        if !databases.contains(name.database.as_str()) {
            found.error(&shown, format!("its database {} is not in the catalogue", name.database));
        }
        for problem in of_table(table) {
            found.error(&shown, problem);
        }
        if !relations.insert(name) {
            found.error(&shown, "it is in the catalogue twice".to_owned());
        }
    }
    let mut seen = BTreeSet::new();
    for object in &catalog.stored {
        let shown = format!("{} {}", object.kind, object.full_name());
        if !object.database.is_empty() && !databases.contains(object.database.as_str()) {
            found
                .error(&shown, format!("its database {} is not in the catalogue", object.database));
        }
        for problem in of_stored(object) {
            found.error(&shown, problem);
        }
        if !seen.insert((object.kind, object.full_name())) {
            found.error(&shown, "it is in the catalogue twice".to_owned());
        }
        if matches!(object.kind, StoredKind::View | StoredKind::Sequence) {
            relations.insert(object.full_name());
        }
    }
    references(manifest, catalog, &relations, found);
}

/// Whether what definitions refer to is there.
fn references(
    manifest: &Manifest,
    catalog: &Catalog,
    relations: &BTreeSet<TableName>,
    found: &mut Found,
) {
    // Names may differ in case where the server does not tell them apart.
    let folds = catalog.header.lower_case_table_names != 0;
    let folded: BTreeSet<TableName> = match folds {
        true => relations.iter().map(lower).collect(),
        false => BTreeSet::new(),
    };
    let is_there =
        |name: &TableName| relations.contains(name) || (folds && folded.contains(&lower(name)));
    let part = if manifest.outcome.partial { ", which was not asked for" } else { "" };
    for table in &catalog.tables {
        for parent in Parts::of(&table.create).parents(&table.database) {
            if !is_there(&parent) {
                found.warning(
                    &table.full_name().to_string(),
                    format!(
                        "a foreign key refers to {parent}, which the backup does not hold{part}"
                    ),
                    NOT_HERE,
                );
            }
        }
    }
    for object in &catalog.stored {
        let shown = format!("{} {}", object.kind, object.full_name());
        match object.kind {
            StoredKind::Trigger => {
                let table = object.table.clone().unwrap_or_default();
                let table = TableName { database: object.database.clone(), table };
                if !is_there(&table) {
                    found.error(&shown, format!("its table {table} is not in the catalogue"));
                }
            }
            StoredKind::View if !object.invalid => {
                for table in view_references(&object.create).tables {
                    let database = table.database.unwrap_or_else(|| object.database.clone());
                    let name = TableName { database, table: table.name };
                    let own = super::super::SYSTEM_DATABASES
                        .contains(&name.database.to_lowercase().as_str());
                    let made = catalog.header.flavor == Flavor::MariaDb && is_numbers(&name.table);
                    if !own && !made && !is_there(&name) && !is_common(&object.create, &name.table)
                    {
                        found.warning(
                            &shown,
                            format!("it reads from {name}, which the backup does not hold{part}"),
                            NOT_HERE,
                        );
                    }
                }
            }
            _ => {}
        }
    }
}

/// Whether the engine SEQUENCE of MariaDB makes a table of this name up, in any database: `seq_1_to_9_step_2`.
fn is_numbers(name: &str) -> bool {
    let name = name.to_lowercase();
    let Some((from, to)) = name.strip_prefix("seq_").and_then(|rest| rest.split_once("_to_"))
    else {
        return false;
    };
    let (to, step) = to.split_once("_step_").unwrap_or((to, "1"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    [from, to, step].into_iter().all(is_number)
}

/// Whether a name is one that the view itself gives, in a WITH.
fn is_common(create: &str, name: &str) -> bool {
    let tokens = significant(create, Dialect::default());
    tokens.iter().any(|t| t.is_word("WITH"))
        && tokens.windows(2).any(|w| {
            w[0].name().as_deref() == Some(name) && (w[1].is_word("AS") || w[1].is_sign('('))
        })
}

fn lower(name: &TableName) -> TableName {
    TableName { database: name.database.to_lowercase(), table: name.table.to_lowercase() }
}

fn of_table(table: &Table) -> Vec<String> {
    let dialect = Dialect::default();
    let mut problems: Vec<String> =
        problem(&table.create, dialect, "TABLE", &table.name).into_iter().collect();
    if !problems.is_empty() {
        return problems;
    }
    let tokens = significant(&table.create, dialect);
    let defined = columns(&tokens);
    // The period of a system-versioned table may have columns that its definition does not show.
    let hidden = |name: &str| table.history && ["row_start", "row_end"].contains(&name);
    for column in &table.columns {
        if !defined.contains(&column.name) && !hidden(&column.name) {
            problems.push(format!("its definition has no column {}", column.name));
        }
    }
    for key in &table.key {
        if !defined.contains(key) && !hidden(key) {
            problems.push(format!("its definition has no column {key}, which is in its key"));
        }
    }
    let engine =
        tokens.windows(3).rfind(|w| w[0].is_word("ENGINE") && w[1].is_sign('=')).map(|w| w[2].text);
    if engine.is_some_and(|engine| !same_engine(engine, &table.engine)) {
        problems.push(format!(
            "its definition has the engine {}, and the catalogue {}",
            engine.unwrap_or_default(),
            table.engine
        ));
    }
    problems
}

/// The servers print some engines under another name than they list them.
fn same_engine(shown: &str, listed: &str) -> bool {
    let known = |name: &str| match name.to_lowercase().as_str() {
        "mrg_myisam" | "merge" => "merge".to_owned(),
        "heap" | "memory" => "memory".to_owned(),
        "ndb" | "ndbcluster" => "ndb".to_owned(),
        other => other.to_owned(),
    };
    known(shown) == known(listed)
}

/// The names that begin an element of the list of columns and keys.
fn columns(tokens: &[Token<'_>]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let (mut depth, mut starts) = (0, false);
    for token in tokens {
        match token.text {
            "(" if token.kind == TokenKind::Sign => {
                depth += 1;
                starts = depth == 1;
                continue;
            }
            ")" if token.kind == TokenKind::Sign => depth -= 1,
            "," if token.kind == TokenKind::Sign && depth == 1 => {
                starts = true;
                continue;
            }
            _ if starts && depth == 1 && token.kind == TokenKind::Name => {
                names.extend(token.name());
            }
            _ => {}
        }
        starts = false;
    }
    names
}

fn of_stored(object: &StoredObject) -> Vec<String> {
    let dialect = Dialect::of(object.sql_mode.as_deref().unwrap_or_default());
    let word = match object.kind {
        StoredKind::SpatialReferenceSystem => "SYSTEM".to_owned(),
        StoredKind::ResourceGroup => "GROUP".to_owned(),
        StoredKind::PackageBody => "BODY".to_owned(),
        kind => kind.to_string().to_uppercase(),
    };
    let mut problems: Vec<String> =
        problem(&object.create, dialect, &word, &object.name).into_iter().collect();
    if let Some(state) = &object.sequence
        && (state.next.parse::<i128>().is_err() || state.cycle.parse::<i128>().is_err())
    {
        problems.push("the sequence stands at no number".to_owned());
    }
    problems
}

/// Why `create` cannot be the definition of that name, if it cannot.
fn problem(create: &str, dialect: Dialect, kind: &str, name: &str) -> Option<String> {
    let tokens = significant(create, dialect);
    if !tokens.first().is_some_and(|t| t.is_word("CREATE")) {
        return Some("its definition does not begin with CREATE".to_owned());
    }
    let Some(at) = tokens.iter().position(|t| t.is_word(kind)) else {
        return Some(format!("its definition creates no {}", kind.to_lowercase()));
    };
    // A name may stand behind its database.
    let rest = tokens[at + 1..].iter().take(8);
    let fits = |t: &Token<'_>| t.name().is_some_and(|n| n.to_lowercase() == name.to_lowercase());
    if !rest.clone().any(fits) {
        return Some(format!("its definition is of another name than {name}"));
    }
    if let Some(open) = tokens.iter().find(|t| !is_closed(t)) {
        return Some(format!(
            "its definition has a quote that is never closed, at byte {}",
            open.start
        ));
    }
    let mut depth = 0_i64;
    for token in tokens.iter().filter(|t| t.kind == TokenKind::Sign) {
        match token.text {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            break;
        }
    }
    (depth != 0).then(|| "the parentheses of its definition do not match".to_owned())
}

fn is_closed(token: &Token<'_>) -> bool {
    let quoted = matches!(token.kind, TokenKind::Name | TokenKind::Text);
    !quoted || (token.text.len() >= 2 && token.text.ends_with(&token.text[..1]))
}
