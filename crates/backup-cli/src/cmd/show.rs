//! `holdfast show`

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use backup_core::{
    ArtifactName, ArtifactSource, BackupType, ClusterName, Consistency, ConsistencyLevel, Error,
    ErrorKind, Event, Manifest, Record, RecordEvent, Repository, Result, Strategy, select,
};
use backup_drivers::clone::Emptied;
use backup_drivers::files::{self, LeftOut};
use backup_drivers::foreign::{CONTENTS, Dump, DumpPart};
use backup_drivers::innodb::TableFile;
use backup_drivers::logical::{Catalog, SYSTEM_DATABASES, TableName};
use backup_storage::{Repo, RepositoryOptions, places};
use serde::Serialize;
use serde_json::json;

use super::list::{Known, history};
use crate::answer::Answer;
use crate::app::App;
use crate::human::{self, Align};

/// Show what a backup holds
#[derive(clap::Args)]
pub(crate) struct Show {
    /// An id, a unique prefix of one, or `latest`
    #[arg(value_name = "BACKUP")]
    backup: String,
    /// Look only at backups of this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
}

/// A table of a backup.
#[derive(Debug, Default, Serialize)]
struct TableLine {
    table: String,
    engine: String,
    /// Not known of data files.
    rows: Option<u64>,
    bytes: u64,
    artifacts: usize,
    /// The columns whose values were changed.
    masked: Vec<String>,
    /// The condition that chose the rows.
    filter: Option<String>,
    rows_left_out: bool,
}

/// What a backup holds.
#[derive(Default)]
struct Content {
    tables: Option<Vec<TableLine>>,
    /// Of data files.
    left_out: Option<Vec<LeftOut>>,
}

impl Show {
    /// Shows it.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        let repo = app.repo_or_copies(RepositoryOptions::default()).await?;
        let cluster = self.cluster.as_ref().or(app.config.cluster.as_ref());
        let listed = app.cx.run(repo.backups(&app.cx, cluster)).await?;
        let manifest = select(listed, &self.backup)?;
        let history = history(&app.cx, &repo, &manifest.cluster).await?;
        let unread = history.is_none().then_some(ErrorKind::Warnings);
        let mut records = history.unwrap_or_default();
        records.retain(|record| record.backup.as_ref() == Some(&manifest.backup));

        // Damage inside must not hide what is known outside.
        let content = app.cx.run(content(app, &repo, &manifest)).await;
        let (Content { tables, left_out }, ending) = match content {
            Ok(content) => (content, unread),
            Err(e) if e.kind() == ErrorKind::Damaged => {
                let text = format!("the tables of the backup cannot be read: {}", e.report());
                app.cx.event(Event::Warning { text });
                (Content::default(), Some(ErrorKind::Damaged))
            }
            Err(e) => return Err(e),
        };
        // Nor a tier that is away.
        let places = app.cx.run(places(&repo, &manifest)).await.unwrap_or_else(|e| {
            let text = format!("where the packs are cannot be told: {}", e.report());
            app.cx.event(Event::Warning { text });
            Vec::new()
        });
        app.cx.check()?;
        let mut known = Known::default();
        for record in &records {
            known.add(record.time, record.event.clone());
        }
        let text = page(&manifest, tables.as_deref(), &records, &places, &known);
        let mut document = document(&manifest, tables.as_deref(), &records)?;
        document["left_out"] = json!(left_out);
        document["copies"] = json!(known.copies);
        document["tiers"] = places
            .iter()
            .map(|(tier, packs, bytes)| json!({"tier": tier, "packs": packs, "bytes": bytes}))
            .collect();
        Ok(Answer::new(&document, text)?.ending(ending))
    }
}

async fn content(app: &App, repo: &Repo, manifest: &Manifest) -> Result<Content> {
    let artifacts = repo.artifacts(&app.cx, manifest).await?;
    if manifest.strategy.has_data_files() {
        let catalog = files::Catalog::read(&*artifacts).await?;
        let tables = Some(filed(manifest, &catalog));
        return Ok(Content { tables, left_out: Some(catalog.header.left_out) });
    }
    let tables = match manifest.strategy {
        Strategy::Logical => Some(dumped(&*artifacts).await?),
        Strategy::Foreign => Some(counted(&*artifacts).await?),
        _ => None,
    };
    Ok(Content { tables, left_out: None })
}

/// The tables of a logical backup.
async fn dumped(artifacts: &dyn ArtifactSource) -> Result<Vec<TableLine>> {
    let catalog = Catalog::read(artifacts).await?;
    let sizes: HashMap<ArtifactName, u64> =
        artifacts.list().await?.into_iter().map(|a| (a.name, a.bytes)).collect();
    let line = |table: backup_drivers::logical::Table| TableLine {
        bytes: table.chunks.iter().filter_map(|c| sizes.get(&c.artifact)).sum(),
        artifacts: table.chunks.len(),
        rows: Some(table.digest.rows),
        table: TableName { database: table.database, table: table.name }.to_string(),
        engine: table.engine,
        masked: table.masked,
        filter: table.filter,
        rows_left_out: table.rows_left_out,
    };
    Ok(catalog.tables.into_iter().map(line).collect())
}

/// The tables of a dump of another program, as they were counted.
async fn counted(artifacts: &dyn ArtifactSource) -> Result<Vec<TableLine>> {
    let text = artifacts.read(&CONTENTS.parse()?, 256 << 20).await?;
    let parts: Vec<DumpPart> = serde_json::from_slice(&text)
        .map_err(|e| Error::damaged("the contents of the dump cannot be read").with_source(e))?;
    let tables = Dump { parts, findings: Vec::new() }.contents().tables;
    let line = |(table, rows)| TableLine { table, rows: Some(rows), ..TableLine::default() };
    Ok(tables.into_iter().map(line).collect())
}

/// The tables of users that have files of their own, and those whose rows a clone does not hold.
fn filed(manifest: &Manifest, catalog: &files::Catalog) -> Vec<TableLine> {
    let mut tables: BTreeMap<String, TableLine> = BTreeMap::new();
    for entry in catalog.files() {
        let path = entry.path.strip_suffix(".delta").unwrap_or(&entry.path);
        let engine = match path.rsplit_once('.').map(|(_, ending)| ending) {
            Some("ibd" | "new") => "InnoDB",
            Some("MYD" | "MYI") => "MyISAM",
            Some("MAD" | "MAI") => "Aria",
            Some("CSV") => "CSV",
            Some("ARZ") => "ARCHIVE",
            _ => continue,
        };
        let Some(TableFile { database, table, .. }) = TableFile::of(path) else { continue };
        // Those of full-text indexes do not name the table that they are of.
        let auxiliary = table.starts_with("FTS_") || table.starts_with("fts_");
        if auxiliary || SYSTEM_DATABASES.contains(&database.as_str()) {
            continue;
        }
        let name = TableName { database, table }.to_string();
        let line = tables.entry(name.clone()).or_default();
        (line.table, line.engine) = (name, engine.to_owned());
        line.bytes += entry.bytes;
        line.artifacts += 1;
    }
    for left in Emptied::of(manifest, catalog).tables {
        let line = tables.entry(left.table.to_string()).or_default();
        (line.table, line.engine) = (left.table.to_string(), left.engine);
        line.rows_left_out = true;
    }
    tables.into_values().collect()
}

/// The manifest's own keys, and `tables` and `records`.
fn document(
    manifest: &Manifest,
    tables: Option<&[TableLine]>,
    records: &[Record],
) -> Result<serde_json::Value> {
    let mut document = serde_json::to_value(manifest)
        .map_err(|e| Error::internal("the manifest cannot be written as JSON").with_source(e))?;
    document["tables"] = json!(tables);
    document["records"] = json!(records);
    Ok(document)
}

fn page(
    m: &Manifest,
    tables: Option<&[TableLine]>,
    records: &[Record],
    places: &[(String, u64, u64)],
    known: &Known,
) -> String {
    let mut page = format!("Backup {}\n", m.backup);
    for (name, value) in facts(m) {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "  {name:<12} {}", human::plain(&value));
    }
    if let [_, _, ..] = places {
        let tiers: Vec<String> = places
            .iter()
            .filter(|(_, packs, _)| *packs > 0)
            .map(|(tier, packs, bytes)| {
                format!("{tier} {} packs, {}", human::count(*packs), human::bytes(*bytes))
            })
            .collect();
        let _ = writeln!(page, "  {:<12} {}", "tiers", tiers.join("; "));
    }
    if let Some(tables) = tables {
        let columns = [
            ("TABLE", Align::Left),
            ("ENGINE", Align::Left),
            ("ROWS", Align::Right),
            ("DATA", Align::Right),
        ];
        let rows: Vec<Vec<String>> = tables
            .iter()
            .map(|t| {
                let rows = t.rows.map(human::count).unwrap_or_default();
                let bytes = human::bytes(t.bytes);
                vec![t.table.clone(), t.engine.clone(), rows, bytes]
            })
            .collect();
        let _ = write!(page, "\n{}", human::table(&columns, &rows));
        page.push_str(&changed(tables));
    }
    page.push_str("\nVerified:\n");
    let mut proofs = 0;
    for record in records {
        if let RecordEvent::Proof { level, ok, findings, duration_seconds, sampled } = &record.event
        {
            proofs += 1;
            let result =
                if *ok { "ok".into() } else { format!("FAILED, {} findings", findings.len()) };
            let sample = match sampled {
                Some(sampled) => format!(" of a sample, {} of {} packs", sampled.packs, sampled.of),
                None => String::new(),
            };
            let _ = writeln!(
                page,
                "  {}  {level}: {result}{sample} (took {})",
                human::time(record.time),
                human::duration(*duration_seconds)
            );
        }
    }
    if proofs == 0 {
        page.push_str("  never; run `holdfast verify`\n");
    }
    if !known.copies.is_empty() {
        page.push_str("\nCopies:\n");
    }
    for copy in &known.copies {
        let _ = writeln!(page, "  {}  {}", human::time(copy.time), human::plain(&copy.to));
    }
    page
}

/// What of the tables is not as it is at the source.
fn changed(tables: &[TableLine]) -> String {
    let mut lines = String::new();
    for table in tables {
        let mut what = Vec::new();
        if !table.masked.is_empty() {
            what.push(format!("masked: {}", table.masked.join(", ")));
        }
        what.extend(table.filter.as_ref().map(|filter| format!("only rows where {filter}")));
        if table.rows_left_out {
            what.push("without its rows".to_owned());
        }
        if !what.is_empty() {
            let line = human::plain(&format!("{}: {}", table.table, what.join("; ")));
            let _ = writeln!(lines, "  {line}");
        }
    }
    if lines.is_empty() { lines } else { format!("\nNot as at the source:\n{lines}") }
}

fn facts(m: &Manifest) -> Vec<(&'static str, String)> {
    let (outcome, totals) = (&m.outcome, &m.totals);
    let source = &outcome.source;
    let took = human::duration(m.finished_at.duration_since(m.started_at).as_secs_f64());
    let mut facts = vec![
        ("cluster", m.cluster.to_string()),
        ("strategy", format!("{}, {}", m.strategy, m.backup_type)),
        (
            "source",
            format!(
                "{} {} at {} (server id {})",
                source.flavor, source.version, source.address, source.server_id
            ),
        ),
        ("started", human::time(m.started_at)),
        ("finished", format!("{} (took {took})", human::time(m.finished_at))),
        ("position", outcome.position.to_string()),
        ("consistent", consistency(&outcome.consistency)),
        ("locked for", format!("{:.3} s", outcome.lock_seconds)),
    ];
    let mut add = |name, value: String| facts.push((name, value));
    if let Some(parent) = &m.parent {
        add("parent", parent.to_string());
    }
    if !m.needs.is_empty() {
        let needs: Vec<&str> = m.needs.iter().map(|n| n.backup.as_str()).collect();
        // Of an increment another backup is needed as a whole: its parent.
        let alone = match m.backup_type {
            BackupType::Full => "; this backup restores alone, and prune leaves those packs",
            BackupType::Incremental | BackupType::Differential => "",
        };
        let others = needs.join(", ");
        add("packs of", format!("{others} hold what had not changed since{alone}"));
    }
    if !outcome.objects.is_empty() {
        let objects: Vec<String> = outcome
            .objects
            .iter()
            .map(|(kind, n)| format!("{kind} {}", human::count(*n)))
            .collect();
        add("objects", objects.join(", "));
    }
    if outcome.partial {
        let what = match m.strategy {
            Strategy::Foreign => "what could be read of a damaged dump",
            _ => "only a part of the server was asked for",
        };
        add("partial", what.into());
    }
    if outcome.masked {
        add("masked", "values were changed on the way".into());
    }
    if let Some(others) = outcome.details["others"].as_str() {
        add("others", format!("{others} has the rows of tables that are not InnoDB's"));
    }
    // As the tool wrote it, lines and all.
    for (name, key) in [("replica", "replica_position"), ("galera", "galera_position")] {
        if let Some(position) = outcome.details[key].as_str() {
            add(name, position.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    if let Some(rows) = outcome.rows {
        add("rows", human::count(rows));
    }
    add(
        "read",
        format!(
            "{} in {} artifacts, of it {} new",
            human::bytes(totals.bytes_read),
            human::count(totals.artifacts),
            human::bytes(totals.bytes_new)
        ),
    );
    add("stored", format!("{}{}", human::bytes(totals.bytes_stored), ratio(m)));
    for warning in &outcome.warnings {
        add("warning", warning.clone());
    }
    facts
}

fn consistency(consistency: &Consistency) -> String {
    let level = match consistency.level {
        ConsistencyLevel::Exact => "exact",
        ConsistencyLevel::Transactional => "transactional",
        ConsistencyLevel::None => "no",
    };
    format!("{level}: {}", consistency.reason)
}

#[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
fn ratio(m: &Manifest) -> String {
    let (read, stored) = (m.totals.bytes_read as f64, m.totals.bytes_stored as f64);
    if read > 0.0 {
        format!(" ({:.1} % of what was read)", stored / read * 100.0)
    } else {
        String::new()
    }
}
