//! Names that a target does not tell apart: what has them would become one, or be refused half way.

use std::collections::BTreeMap;

use backup_core::{ErrorKind, Finding, Flavor, Severity};

use super::super::catalog::{Catalog, StoredKind, StoredObject, Table};
use super::super::inventory::ServerFacts;
use super::super::select::TableName;
use super::plan::folded;

/// Databases and objects of the catalogue that have the same name for the target.
pub(super) fn findings(catalog: &Catalog, facts: &ServerFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut databases = BTreeMap::new();
    for name in catalog.databases.iter().map(|database| &database.name) {
        if let Some(other) = databases.insert(folded(facts, name), name) {
            findings.push(finding(
                format!("database {name}"),
                format!("the target does not tell it from {other}: its names ignore case"),
                "give one of them another name with --rename, or restore to a server with \
                 lower_case_table_names=0",
            ));
        }
    }

    // Tables, views and sequences share their names.
    let tables = catalog.tables.iter().map(|table| (None, Table::full_name(table)));
    // A sequence of which the name alone is known may be among the tables.
    let stored = catalog.stored.iter().filter(|object| {
        !object.database.is_empty()
            && (object.kind != StoredKind::Sequence || !object.create.is_empty())
    });
    let stored = stored.map(|object| (Some(object.kind), StoredObject::full_name(object)));
    let mut objects = BTreeMap::new();
    for (kind, name) in tables.chain(stored) {
        // What is in databases that become one is told by these.
        let key = (class(kind), name.database.clone(), told_by(facts, kind, &name.table));
        if let Some((other_kind, other)) = objects.insert(key, (kind, name.clone())) {
            findings.push(of_objects((kind, name), (other_kind, other)));
        }
    }
    findings
}

/// Which objects share their names.
fn class(kind: Option<StoredKind>) -> Option<StoredKind> {
    kind.filter(|kind| !matches!(kind, StoredKind::View | StoredKind::Sequence))
}

/// The name as the target compares those of this kind.
fn told_by(facts: &ServerFacts, kind: Option<StoredKind>, name: &str) -> String {
    match class(kind) {
        None => folded(facts, name),
        // They are named by files there.
        Some(StoredKind::Trigger) if facts.flavor == Flavor::MariaDb => name.to_owned(),
        Some(_) => name.to_lowercase(),
    }
}

fn of_objects(
    (kind, name): (Option<StoredKind>, TableName),
    (other_kind, other): (Option<StoredKind>, TableName),
) -> Finding {
    let word = |kind: Option<StoredKind>| kind.map_or("table".to_owned(), |kind| kind.to_string());
    let (this, that) = (word(kind), word(other_kind));
    if kind.is_none() && other_kind.is_none() {
        return finding(
            name.to_string(),
            format!("the target does not tell it from {other}: its names ignore case"),
            "give one of them another name with --rename, or restore to a server with \
             lower_case_table_names=0",
        );
    }
    let problem = match name == other {
        true => format!("another {that} would be restored under the same name"),
        false => {
            format!("the target does not tell it from the {that} {other}: case is ignored there")
        }
    };
    let remedy = match kind {
        Some(StoredKind::Trigger) => {
            "leave one of their tables out, or give its database another name with --rename"
        }
        _ => "give one of their databases another name with --rename",
    };
    finding(format!("{this} {name}"), problem, remedy)
}

fn finding(object: String, problem: String, remedy: &str) -> Finding {
    Finding::new(Severity::Error, object, problem, remedy).with_kind(ErrorKind::Target)
}

#[cfg(test)]
mod tests {
    use backup_core::ServerVersion;

    use super::super::super::catalog::{Database, Header, VERSION};
    use super::*;

    fn found(target: &str, case: u8, databases: &[&str], objects: &[(StoredKind, &str)]) -> usize {
        let parsed = ServerVersion::parse(target, "").unwrap();
        let facts = ServerFacts {
            flavor: parsed.flavor(),
            version: parsed,
            version_text: target.into(),
            server_uuid: None,
            server_id: 1,
            hostname: None,
            lower_case_table_names: case,
        };
        let header = Header {
            version: VERSION,
            flavor: Flavor::MariaDb,
            server_version: "11.8.9-MariaDB".into(),
            lower_case_table_names: 0,
        };
        let database =
            |name: &&str| Database { name: (*name).into(), create: "CREATE DATABASE".into() };
        let stored = |(kind, name): &(StoredKind, &str)| StoredObject {
            create: "CREATE".into(),
            ..StoredObject::new(*kind, databases[0].into(), (*name).into())
        };
        let catalog = Catalog {
            header,
            databases: databases.iter().map(database).collect(),
            tables: vec![Table::new(databases[0].into(), "t".into())],
            stored: objects.iter().map(stored).collect(),
            accounts: Vec::new(),
            warnings: Vec::new(),
        };
        findings(&catalog, &facts).len()
    }

    #[test]
    fn names_are_compared_as_the_target_does() {
        use StoredKind::{Event, Function, Procedure, Sequence, Trigger, View};
        let (mysql, maria) = ("9.7.4", "11.8.9-MariaDB");
        for target in [mysql, maria] {
            assert_eq!(found(target, 0, &["Cc", "cC"], &[]), 0);
            assert_eq!(found(target, 1, &["Cc", "cC"], &[]), 1);
            assert_eq!(found(target, 2, &["Cc", "cC", "cc"], &[]), 2);
            for (one, other, cases) in [
                ((Function, "f"), (Function, "F"), [1, 1]),
                ((Function, "f"), (Procedure, "f"), [0, 0]),
                ((Event, "e"), (Event, "E"), [1, 1]),
                ((View, "v"), (View, "V"), [0, 1]),
                ((View, "v"), (Sequence, "v"), [1, 1]),
                ((View, "T"), (Event, "t"), [0, 1]),
                ((Trigger, "t"), (Trigger, "t"), [1, 1]),
            ] {
                for (case, expected) in [0, 1].into_iter().zip(cases) {
                    let told = found(target, case, &["d"], &[one, other]);
                    assert_eq!(told, expected, "{target} {case} {one:?} {other:?}");
                }
            }
        }
        let triggers = [(Trigger, "r"), (Trigger, "R")];
        assert_eq!(found(mysql, 0, &["d"], &triggers), 1);
        assert_eq!(found(maria, 1, &["d"], &triggers), 0);
    }
}
