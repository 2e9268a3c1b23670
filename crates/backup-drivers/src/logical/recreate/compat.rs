//! What a target of another version or family would refuse, or silently take otherwise.

use std::collections::BTreeMap;

use backup_core::{ErrorKind, Finding, Flavor, ServerVersion, Severity};

use super::super::catalog::{Catalog, StoredKind, StoredObject, Table};
use super::super::ddl::{Dialect, Token, TokenKind, conditions, significant};
use super::super::inventory::ServerFacts;

/// How many names a finding lists.
const SHOWN: usize = 5;

/// Something that only some servers have: the first version of MySQL and of MariaDB that does.
type Since = (Option<(u16, u16, u16)>, Option<(u16, u16, u16)>);

const TABLESPACES: Since = (Some((5, 7, 6)), None);

/// Whether a server has general tablespaces.
pub(super) fn has_tablespaces(facts: &ServerFacts) -> bool {
    has(&facts.version, TABLESPACES)
}

/// A tablespace that no table of the backup is in.
fn is_unused(catalog: &Catalog, object: &StoredObject) -> bool {
    object.kind == StoredKind::Tablespace
        && !catalog.tables.iter().any(|t| t.is_in_tablespace(&object.name))
}

fn has(target: &ServerVersion, since: Since) -> bool {
    let since = match target.flavor() {
        Flavor::MySql => since.0,
        Flavor::MariaDb => since.1,
    };
    since.is_some_and(|(major, minor, patch)| target.at_least(major, minor, patch))
}

/// Everything that can be told from the definitions, before anything is written.
pub(super) fn findings(catalog: &Catalog, facts: &ServerFacts) -> Vec<Finding> {
    let target = &facts.version;
    let mut findings = Vec::new();
    findings.extend(versions(catalog, facts));
    let mut lacks = |what: &str, since: Since, names: Vec<String>| {
        if !names.is_empty() && !has(target, since) {
            let problem = format!("{} {} has no {what}", facts.flavor, facts.version_text);
            let remedy = "restore to a server that has it, or leave these out";
            findings.push(
                Finding::new(Severity::Error, listed(&names), problem, remedy)
                    .with_kind(ErrorKind::Target),
            );
        }
    };
    for (data_type, since) in [
        ("vector", (Some((9, 0, 0)), Some((11, 7, 1)))),
        ("uuid", (None, Some((10, 7, 0)))),
        ("inet6", (None, Some((10, 5, 0)))),
        ("inet4", (None, Some((10, 10, 0)))),
    ] {
        let of_type = |t: &Table| t.columns.iter().any(|c| c.data_type == data_type);
        lacks(&format!("type {data_type}"), since, tables(catalog, of_type));
    }
    let short_year = |t: &Table| t.columns.iter().any(|c| c.column_type == "year(2)");
    lacks("type year(2)", (None, Some((5, 5, 0))), tables(catalog, short_year));
    lacks("functional indexes", (Some((8, 0, 13)), None), tables(catalog, has_functional_index));
    lacks(
        "system-versioned tables",
        (None, Some((10, 3, 4))),
        tables(catalog, |t| has_words(t, "SYSTEM", "VERSIONING")),
    );
    for (kind, what, since) in [
        (StoredKind::Sequence, "sequences", (None, Some((10, 3, 0)))),
        (StoredKind::Package, "packages", (None, Some((10, 3, 5)))),
        (StoredKind::Library, "libraries", (Some((9, 2, 0)), None)),
        (StoredKind::Tablespace, "general tablespaces", TABLESPACES),
    ] {
        let objects = catalog.stored.iter().filter(|o| o.kind == kind && !is_unused(catalog, o));
        let name = |o: &StoredObject| match o.database.is_empty() {
            true => o.name.clone(),
            false => o.full_name().to_string(),
        };
        lacks(what, since, objects.map(name).collect());
    }
    findings.extend(passed_over(catalog, facts));
    findings.extend(otherwise(catalog, facts));
    findings
}

/// The target is of an earlier series than the source.
fn versions(catalog: &Catalog, facts: &ServerFacts) -> Option<Finding> {
    let header = &catalog.header;
    let source = ServerVersion::parse(&header.server_version, "").ok()?;
    let older = facts.flavor == header.flavor && facts.version.series() < source.series();
    older.then(|| {
        Finding::new(
            Severity::Warning,
            "server",
            format!(
                "the backup is of {} {}, the target is the older {}: what only the newer one knows \
                 is refused when it is created",
                header.flavor, header.server_version, facts.version_text
            ),
            "restore to a server of the same version or a later one if you can",
        )
    })
}

/// Parts of definitions that stand in comments for newer servers, or for the other family.
fn passed_over(catalog: &Catalog, facts: &ServerFacts) -> Vec<Finding> {
    let (major, minor) = facts.version.series();
    let number =
        u32::from(major) * 10_000 + u32::from(minor) * 100 + u32::from(facts.version.patch());
    let read = |maria: bool, since: u32| match facts.flavor {
        Flavor::MySql => !maria && since <= number,
        // It passes over what is for MySQL 5.7 and later, which is not what it is itself.
        Flavor::MariaDb => since <= number && (maria || !(50_700..=99_999).contains(&since)),
    };
    let mut findings = Vec::new();
    for table in &catalog.tables {
        let lost: Vec<String> = conditions(&table.create)
            .into_iter()
            .filter(|c| !read(c.mariadb, c.since))
            .map(|c| format!("`{}`", c.text.chars().take(60).collect::<String>()))
            .collect();
        if !lost.is_empty() {
            findings.push(Finding::new(
                Severity::Warning,
                table.full_name().to_string(),
                format!("the target passes over {} in its definition", listed(&lost)),
                "see that the table does without it, or restore to a server that knows it",
            ));
        }
    }
    findings
}

/// What is taken, and is not the same.
fn otherwise(catalog: &Catalog, facts: &ServerFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |names: Vec<String>, problem: &str, remedy: &str| {
        if !names.is_empty() {
            findings.push(Finding::new(Severity::Warning, listed(&names), problem, remedy));
        }
    };
    let of_types = |types: &[&str]| {
        tables(catalog, |t| t.columns.iter().any(|c| types.contains(&c.data_type.as_str())))
    };
    if catalog.header.flavor != facts.flavor {
        add(
            of_types(&["json"]),
            "MySQL keeps JSON documents in a form of its own, MariaDB as text",
            "see that the programs that use them do not mind",
        );
        let geometry = [
            "geometry",
            "point",
            "linestring",
            "polygon",
            "multipoint",
            "multilinestring",
            "multipolygon",
            "geometrycollection",
            "geomcollection",
        ];
        add(
            of_types(&geometry),
            "the two families keep the axes of geographic coordinates in different orders",
            "check the coordinates after the restore",
        );
    }
    if catalog.header.lower_case_table_names != 0 && facts.lower_case_table_names == 0 {
        add(
            in_other_case(catalog),
            "its code names tables in another case than they have; the source did not tell cases apart, the target does",
            "correct the code after the restore, or restore to a server with the source's lower_case_table_names",
        );
    }
    if !has_tablespaces(facts) {
        let unused = catalog.stored.iter().filter(|o| is_unused(catalog, o));
        add(
            unused.map(|o| o.name.clone()).collect(),
            "the target has no general tablespaces; no table is in these",
            "nothing, they are left out",
        );
    }
    if facts.flavor == Flavor::MySql && !facts.version.at_least(8, 0, 16) {
        add(
            tables(catalog, |t| has_words(t, "CHECK", "(")),
            "the target passes over CHECK constraints",
            "restore to MySQL 8.0.16 or later",
        );
    }
    findings
}

fn tables(catalog: &Catalog, wanted: impl Fn(&Table) -> bool) -> Vec<String> {
    catalog.tables.iter().filter(|t| wanted(t)).map(|t| t.full_name().to_string()).collect()
}

/// Code in which a name is that of a table or database but for its case. Views and keys have them as they are.
fn in_other_case(catalog: &Catalog) -> Vec<String> {
    let databases = catalog.databases.iter().map(|d| &d.name);
    let names = databases.chain(catalog.tables.iter().map(|t| &t.name));
    let names: BTreeMap<String, &String> = names.map(|name| (name.to_lowercase(), name)).collect();
    let differs = |object: &&StoredObject| {
        let dialect = Dialect::of(object.sql_mode.as_deref().unwrap_or_default());
        let tokens = significant(&object.create, dialect);
        let mut used = tokens.iter().filter_map(Token::name);
        used.any(|name| names.get(&name.to_lowercase()).is_some_and(|real| **real != name))
    };
    let code = [
        StoredKind::Function,
        StoredKind::Procedure,
        StoredKind::PackageBody,
        StoredKind::Trigger,
        StoredKind::Event,
    ];
    let objects = catalog.stored.iter().filter(|o| code.contains(&o.kind));
    objects.filter(differs).map(|o| format!("{} {}", o.kind, o.full_name())).collect()
}

fn has_words(table: &Table, first: &str, second: &str) -> bool {
    let tokens = significant(&table.create, Dialect::default());
    tokens.windows(2).any(|w| w[0].is_word(first) && (w[1].is_word(second) || w[1].text == second))
}

/// `KEY name ((expression))`
fn has_functional_index(table: &Table) -> bool {
    let tokens = significant(&table.create, Dialect::default());
    tokens.windows(4).any(|w| {
        w[0].is_word("KEY")
            && w[1].kind == TokenKind::Name
            && w[2].is_sign('(')
            && w[3].is_sign('(')
    })
}

pub(super) fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::super::super::catalog::{Column, Header, LoadMode, StoredObject, VERSION};
    use super::*;

    fn catalog(flavor: Flavor, version: &str, create: &str, data_type: &str) -> Catalog {
        let column = Column {
            name: "a".into(),
            column_type: data_type.into(),
            data_type: data_type.into(),
            fraction_digits: None,
            charset: None,
            load: LoadMode::Direct,
        };
        Catalog {
            header: Header {
                version: VERSION,
                flavor,
                server_version: version.into(),
                lower_case_table_names: 0,
            },
            databases: Vec::new(),
            tables: vec![Table {
                create: create.into(),
                columns: vec![column],
                ..Table::new("s".into(), "t".into())
            }],
            stored: Vec::new(),
            accounts: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn facts(version: &str) -> ServerFacts {
        let parsed = ServerVersion::parse(version, "").unwrap();
        ServerFacts {
            flavor: parsed.flavor(),
            version: parsed,
            version_text: version.into(),
            server_uuid: None,
            server_id: 1,
            hostname: None,
            lower_case_table_names: 0,
        }
    }

    #[track_caller]
    fn found(catalog: &Catalog, target: &str, severity: Severity, words: &[&str]) {
        let findings = findings(catalog, &facts(target));
        let fits = |f: &&Finding| f.severity == severity;
        let problems: Vec<&str> =
            findings.iter().filter(fits).map(|f| f.problem.as_str()).collect();
        assert_eq!(problems.len(), words.len(), "{findings:#?}");
        for word in words {
            assert!(problems.iter().any(|p| p.contains(word)), "{word}: {problems:#?}");
        }
    }

    #[test]
    fn what_a_target_lacks_or_passes_over_is_told() {
        use Severity::{Error, Warning};
        let plain = "CREATE TABLE `t` (\n  `a` int /*!80023 INVISIBLE */,\n  KEY `k` ((`a` + 1)),\n  CONSTRAINT `c` \
                     CHECK (`a` > 0)\n) ENGINE=InnoDB\n/*!50100 PARTITION BY HASH (`a`) */";
        let mysql = catalog(Flavor::MySql, "9.7.4", plain, "vector");
        found(&mysql, "9.7.4", Error, &[]);
        found(&mysql, "9.7.4", Warning, &[]);
        found(&mysql, "8.0.11", Error, &["type vector", "functional indexes"]);
        found(&mysql, "8.0.11", Warning, &["older", "INVISIBLE", "CHECK"]);
        found(&mysql, "11.8.9-MariaDB", Error, &["functional indexes"]);
        found(&mysql, "11.8.9-MariaDB", Warning, &["INVISIBLE"]);

        let versioned =
            "CREATE TABLE `t` (\n  `a` uuid /*M!100301 COMPRESSED*/\n) WITH SYSTEM VERSIONING";
        let mut maria = catalog(Flavor::MariaDb, "11.8.9-MariaDB", versioned, "uuid");
        maria.stored.push(StoredObject::new(StoredKind::Sequence, "s".into(), "q".into()));
        found(&maria, "11.8.9-MariaDB", Error, &[]);
        found(&maria, "10.6.1-MariaDB", Error, &["type uuid"]);
        found(&maria, "10.6.1-MariaDB", Warning, &["older"]);
        found(&maria, "9.7.4", Error, &["type uuid", "system-versioned", "sequences"]);
        found(&maria, "9.7.4", Warning, &["COMPRESSED"]);
    }

    /// A tablespace that no table is in is no reason to refuse a restore.
    #[test]
    fn a_tablespace_counts_where_a_table_is_in_it() {
        use Severity::{Error, Warning};
        let inside = "CREATE TABLE `t` (\n  `a` int\n) /*!50100 TABLESPACE `ts` */ ENGINE=InnoDB";
        let outside = "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB";
        for (create, errors, warnings) in [
            (inside, &["general tablespaces"][..], &[][..]),
            (outside, &[], &["no table is in these"]),
        ] {
            let mut mysql = catalog(Flavor::MySql, "9.7.4", create, "int");
            mysql.stored.push(StoredObject::new(
                StoredKind::Tablespace,
                String::new(),
                "ts".into(),
            ));
            found(&mysql, "9.7.4", Error, &[]);
            found(&mysql, "9.7.4", Warning, &[]);
            found(&mysql, "10.11.19-MariaDB", Error, errors);
            found(&mysql, "10.11.19-MariaDB", Warning, warnings);
        }
    }
}
