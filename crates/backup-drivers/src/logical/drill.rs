//! The dress rehearsal of a restore: everything into a private server, and everything looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::{
    ArtifactSource, Context, Error, ErrorKind, Finding, Manifest, Restore, Result, Severity,
    pipeline,
};
use serde_json::Value;
use tokio::task::JoinSet;

use super::catalog::{Catalog, Column, Table};
use super::check;
use super::inventory;
use super::plan::Range;
use super::reader::reader;
use super::recreate;
use super::restore::{LogicalRestore, LogicalRestoreOptions};
use super::scan;
use super::select::{Selection, TableName, quote_name};
use crate::clone::LeftEmpty;
use crate::connect::{ConnectOptions, Session};
use crate::rows::RowDigest;

/// What a drill found.
#[derive(Debug, Clone)]
pub struct DrillReport {
    /// What is not as it was backed up; tables by `database.table`.
    pub findings: Vec<Finding>,
    /// Rows that were restored.
    pub rows: u64,
    /// What all tables have in them, where a backup of data files does not know it and it could be read.
    pub tables: Option<Vec<(TableName, RowDigest)>>,
    /// Tables of a clone that have come without their rows, whether or not the account that took it might see them.
    pub emptied: Vec<LeftEmpty>,
    /// How long the restore took, with its reading back.
    pub restored_in: Duration,
    /// How long it took to look at everything once more.
    pub checked_in: Duration,
}

/// Restores a logical backup into the empty private server `target`, reads every table again and
/// compares rows and digests with the manifest, runs `CHECK TABLE`, and compares every definition.
///
/// Where the restore fails, each table is restored by itself, so that the findings name every one
/// that is damaged, and not the first alone. Tables with a directory of their own are restored
/// without it, for it may be that of the server which the backup is of.
///
/// # Errors
/// When the drill could not be carried out: the server or the repository went away, the run was
/// cancelled, or [`ErrorKind::Target`] where the server lacks an engine, a character set or a collation. What is
/// wrong with the backup is in the report.
pub async fn drill(
    cx: &Context,
    target: &ConnectOptions,
    manifest: &Manifest,
    artifacts: Arc<dyn ArtifactSource>,
) -> Result<DrillReport> {
    let mut report = DrillReport {
        findings: Vec::new(),
        rows: 0,
        tables: None,
        emptied: Vec::new(),
        restored_in: Duration::ZERO,
        checked_in: Duration::ZERO,
    };
    let catalog = match Catalog::read(&*artifacts).await {
        Ok(catalog) => catalog,
        Err(e) => {
            report.findings.push(finding(manifest.backup.as_str(), e)?);
            return Ok(report);
        }
    };
    let catalog = recreate::without_directories(catalog);
    report.findings.extend(recreate::of_other_servers(&catalog).map(|table| {
        let problem = "its definition is tried with InnoDB in place of FEDERATED, which takes the other server";
        Finding::new(Severity::Info, table.full_name().to_string(), problem, "")
    }));
    let catalog = recreate::stand_in(catalog);
    can_take(target, &catalog).await?;
    allow_partial_revokes(target, &catalog).await?;
    let began = Instant::now();
    let driver = LogicalRestore::new(target.clone(), LogicalRestoreOptions::default()).rehearsal();
    match driver.run(cx, manifest, Arc::clone(&artifacts)).await {
        Ok(restored) => {
            report.rows = restored.rows;
            report.findings.extend(
                restored.warnings.into_iter().map(|text| {
                    Finding::new(Severity::Warning, manifest.backup.as_str(), text, "")
                }),
            );
        }
        Err(e) => {
            let whole = finding(manifest.backup.as_str(), e)?;
            let single = one_by_one(cx, target, manifest, &artifacts, &catalog).await?;
            report.findings.extend(single);
            // What is wrong is no table by itself: a routine, a view.
            if !report.findings.iter().any(|f| f.severity == Severity::Error) {
                report.findings.push(whole);
            }
            report.restored_in = began.elapsed();
            return Ok(report);
        }
    }
    report.restored_in = began.elapsed();
    let began = Instant::now();
    if manifest.outcome.rows.is_some_and(|rows| rows != report.rows) {
        let rows = manifest.outcome.rows.unwrap_or_default();
        let problem = format!("{} rows were restored, the manifest says {rows}", report.rows);
        report.findings.push(damaged(manifest.backup.as_str(), problem));
    }
    cx.phase("checking tables");
    report.findings.extend(digests(cx, target, &catalog, &artifacts).await?);
    let mut session = Session::open(target).await?;
    report.findings.extend(cx.run(check_tables(&mut session, &catalog)).await?);
    report.findings.extend(cx.run(definitions(&mut session, catalog)).await?);
    session.close().await?;
    report.checked_in = began.elapsed();
    Ok(report)
}

/// Fails where the private server lacks what tables need: of the backup that says nothing.
async fn can_take(target: &ConnectOptions, catalog: &Catalog) -> Result<()> {
    let mut session = Session::open(target).await?;
    let facts = inventory::server(session.conn()).await?;
    let lacking = recreate::lacking(session.conn(), &facts, catalog).await?;
    session.close().await?;
    let of_private = |finding: Finding| {
        Finding {
        problem: finding.problem.replacen("the target", "the private server", 1),
        remedy: "add what is missing to that installation (MariaDB has engines in packages of their own), or \
                 name one that has it (--server-dir)"
            .to_owned(),
        ..finding
    }
    };
    let lacking: Vec<Finding> = lacking.into_iter().map(of_private).collect();
    let what = "the drill cannot be held, which says nothing of the backup";
    pipeline::in_one(&lacking, what, ErrorKind::Target).map_or(Ok(()), Err)
}

/// Has the private server take accounts that lack a privilege on single databases, as their own server did.
async fn allow_partial_revokes(target: &ConnectOptions, catalog: &Catalog) -> Result<()> {
    let mut grants = catalog.accounts.iter().flat_map(|account| &account.grants);
    if !grants.any(|grant| grant.starts_with("REVOKE")) {
        return Ok(());
    }
    let mut session = Session::open(target).await?;
    session.run("SET GLOBAL partial_revokes = ON").await?;
    session.close().await
}

/// An error as a finding, if it is about the backup and not about the way there.
fn finding(object: &str, error: Error) -> Result<Finding> {
    let kind = error.kind();
    match kind {
        ErrorKind::Interrupted | ErrorKind::Connect | ErrorKind::Store | ErrorKind::Space => {
            Err(error)
        }
        _ => Ok(Finding::new(Severity::Error, object, error.chain(), error.remedy().to_owned())
            .with_kind(kind)),
    }
}

fn damaged(object: impl Into<String>, problem: impl Into<String>) -> Finding {
    let remedy = "restore another backup, or this one without what is damaged";
    Finding::new(Severity::Error, object, problem, remedy).with_kind(ErrorKind::Damaged)
}

/// Restores every table by itself.
async fn one_by_one(
    cx: &Context,
    target: &ConnectOptions,
    manifest: &Manifest,
    artifacts: &Arc<dyn ArtifactSource>,
    catalog: &Catalog,
) -> Result<Vec<Finding>> {
    cx.phase("one table after the other");
    let mut findings = Vec::new();
    let mut session = Session::open(target).await?;
    for table in &catalog.tables {
        // What others left half done must not stand in the way of this one.
        for database in &catalog.databases {
            let sql = format!("DROP DATABASE IF EXISTS {}", quote_name(&database.name));
            session.run(&sql).await?;
        }
        let name = table.full_name();
        let selection = Selection { tables: [name.clone()].into(), ..Selection::default() };
        let options = LogicalRestoreOptions { selection, ..Default::default() };
        let driver = LogicalRestore::new(target.clone(), options).rehearsal();
        if let Err(e) = driver.run(cx, manifest, Arc::clone(artifacts)).await {
            findings.push(finding(&name.to_string(), e)?);
        }
    }
    session.close().await?;
    Ok(findings)
}

/// Reads every table as a whole, without regard to how it was cut when it was read.
async fn digests(
    cx: &Context,
    target: &ConnectOptions,
    catalog: &Catalog,
    artifacts: &Arc<dyn ArtifactSource>,
) -> Result<Vec<Finding>> {
    let tables = catalog.tables.iter().filter(|t| !t.rows_elsewhere).cloned();
    let queue: Vec<Table> = tables.collect();
    let queue = Arc::new(std::sync::Mutex::new(queue.into_iter()));
    let mut workers = JoinSet::new();
    for _ in 0..cx.threads() {
        let (cx, queue, target) = (cx.clone(), Arc::clone(&queue), target.clone());
        let artifacts = Arc::clone(artifacts);
        workers.spawn(async move {
            let mut reader = reader(&target).await?;
            let mut findings = Vec::new();
            loop {
                let next = queue.lock().expect("no panic while the queue is locked").next();
                let Some(table) = next else { break };
                let found = scan::digest(&cx, &mut reader, &table, &Range::default()).await?;
                if found == table.digest {
                    continue;
                }
                let name = table.full_name().to_string();
                let documents = table.columns.iter().any(Column::holds_documents);
                // Numbers inside of documents may have another form, of which the restore has told.
                let rounded = match documents && found.rows == table.digest.rows {
                    true => check::table(&cx, &mut reader, &table, &*artifacts).await,
                    false => Ok(false),
                };
                match rounded {
                    Ok(true) => {}
                    Ok(false) => {
                        let problem = format!(
                            "it holds {} rows with digest {found}, the backup has {} with {}",
                            found.rows, table.digest.rows, table.digest
                        );
                        findings.push(damaged(name, problem));
                    }
                    Err(e) => findings.push(finding(&name, e)?),
                }
            }
            reader.close().await;
            Ok::<_, Error>(findings)
        });
    }
    let mut findings = Vec::new();
    while let Some(ended) = workers.join_next().await {
        findings.extend(ended.map_err(|e| Error::internal("a worker panicked").with_source(e))??);
    }
    Ok(findings)
}

/// What the server itself has to say against its tables.
async fn check_tables(session: &mut Session, catalog: &Catalog) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for table in catalog.tables.iter().filter(|t| !t.rows_elsewhere) {
        let (database, name) = (quote_name(&table.database), quote_name(&table.name));
        let sql = format!("CHECK TABLE {database}.{name} EXTENDED");
        let said: Vec<(String, String, String, String)> = session.query_rows(&sql).await?;
        let bad = said.iter().find(|(_, _, kind, text)| {
            // "The storage engine for the table doesn't support check" is a note.
            kind.eq_ignore_ascii_case("error") || (kind == "status" && text != "OK")
        });
        if let Some((_, _, kind, text)) = bad {
            let problem = format!("CHECK TABLE says: {kind}: {text}");
            findings.push(damaged(table.full_name().to_string(), problem));
        }
    }
    Ok(findings)
}

/// Compares every definition with that of the backup.
async fn definitions(session: &mut Session, catalog: Catalog) -> Result<Vec<Finding>> {
    let facts = inventory::server(session.conn()).await?;
    // All of it, for it has nothing else: what belongs to no database comes with a whole server alone.
    let there = inventory::read(session.conn(), &facts, &Selection::default()).await?;
    let mut wanted = objects(catalog)?;
    let mut findings = Vec::new();
    for (name, found) in objects(there)? {
        match wanted.remove(&name) {
            Some(definition) => {
                let problems = differences(&found, &definition);
                findings.extend(problems.into_iter().map(|problem| damaged(name.clone(), problem)));
            }
            None => findings.push(damaged(name, "the backup does not have it")),
        }
    }
    // An event whose time is over is gone at once, which the restore has said.
    let missing = wanted.into_keys().filter(|name| !name.starts_with("event "));
    findings.extend(missing.map(|name| damaged(name, "it was not restored")));
    Ok(findings)
}

/// What must be the same on both sides, by what it is called.
type Definition = serde_json::Map<String, Value>;

/// How a definition is another one than that of the backup, if it is.
fn differences(found: &Definition, wanted: &Definition) -> Vec<String> {
    let said = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let names: BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
    let differing = names.into_iter().filter(|name| found.get(*name) != wanted.get(*name));
    differing
        .map(|name| {
            let (there, here) = (said(found.get(name)), said(wanted.get(name)));
            let name = if name == "create" { "definition" } else { &name.replace('_', " ") };
            format!("its {name} is {there}, the backup has {here}")
        })
        .collect()
}

/// Every object by its kind and name.
fn objects(catalog: Catalog) -> Result<BTreeMap<String, Definition>> {
    let mut objects = BTreeMap::new();
    let definition = |value| match value {
        Value::Object(map) => map,
        other => Definition::from_iter([("create".to_owned(), other)]),
    };
    for database in catalog.databases {
        let create = serde_json::json!({ "create": database.create });
        objects.insert(format!("database {}", database.name), definition(create));
    }
    for table in catalog.tables {
        // The key that its rows were read along is one of those in its definition.
        let text = serde_json::json!({
            "create": table.create, "engine": table.engine, "columns": table.columns,
        });
        objects.insert(table.full_name().to_string(), definition(text));
    }
    for object in catalog.stored {
        let text = serde_json::to_value(&object)
            .map_err(|e| Error::internal("a definition cannot be written down").with_source(e))?;
        objects.insert(format!("{} {}", object.kind, object.full_name()), definition(text));
    }
    Ok(objects)
}
