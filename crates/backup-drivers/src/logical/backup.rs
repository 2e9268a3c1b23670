//! The logical strategy as a [`Backup`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ArtifactSink, Backup, ConsistencyLevel, Context, Error, ErrorKind, Event, Finding, Flavor,
    Layout, Outcome, Result, SecretBytes, Severity, Strategy, shell_word,
};
use bytes::Bytes;

use super::catalog::{CATALOG, Catalog, Table};
use super::damage::{self, OnCorrupt};
use super::inventory::{self, ServerFacts};
use super::mask::{MaskRules, Masks};
use super::outcome::{consistency, details, objects, source_info};
use super::pace::{self, Pace, Throttle, Watcher};
use super::pattern::TableGlob;
use super::remember::Cuts;
use super::replica::Paused;
use super::resume::{Ground, Resumed};
use super::select::{Selection, TableName, quote_name};
use super::snapshot::SnapshotOptions;
use super::waits;
use super::{ddl, documents, dump, no_text, plan, prepared, snapshot};
use crate::connect::{ConnectOptions, Session};
use crate::logged;
use crate::wire;

/// What a logical backup is asked for.
#[derive(Debug, Clone)]
pub struct LogicalOptions {
    /// Which databases and tables.
    pub selection: Selection,
    /// How the moment of the backup is reached.
    pub snapshot: SnapshotOptions,
    /// Stops the applier of a replica for the time of the backup, so that nothing changes meanwhile
    /// but by others.
    pub pause_replication: bool,
    /// Whether the number of connections that read at once follows what they bring. It begins with
    /// [`Context::threads`]; up to twice as many are opened, 16 at most.
    pub adapt: bool,
    /// The load of the source beyond which the backup waits, before its snapshot and between chunks.
    pub throttle: Option<Throttle>,
    /// About how many bytes of a table go into one artifact. Default: 64 MiB.
    pub chunk_bytes: u64,
    /// Whether users and roles are left out, which come with a whole server otherwise.
    pub no_accounts: bool,
    /// Conditions for the rows of tables, as SQL. The others are not kept.
    pub filters: BTreeMap<TableName, String>,
    /// Tables whose rows are left out.
    pub no_rows: BTreeSet<TableGlob>,
    /// How values are changed on the way. Accounts are left out then.
    pub mask: Option<MaskRules>,
    /// Whether `CHECK TABLE` is run on every table before.
    pub check_tables: bool,
    /// What is done about rows that the server cannot read.
    pub on_corrupt: OnCorrupt,
    /// Makes masked values the same in several backups; random without one.
    pub mask_secret: Option<SecretBytes>,
}

impl Default for LogicalOptions {
    fn default() -> Self {
        LogicalOptions {
            selection: Selection::default(),
            snapshot: SnapshotOptions::default(),
            pause_replication: false,
            adapt: false,
            throttle: None,
            chunk_bytes: plan::CHUNK_BYTES,
            no_accounts: false,
            filters: BTreeMap::new(),
            no_rows: BTreeSet::new(),
            mask: None,
            check_tables: false,
            on_corrupt: OnCorrupt::default(),
            mask_secret: None,
        }
    }
}

/// Reads rows and definitions by SQL, over [`Context::threads`] connections that see one moment.
#[derive(Debug, Clone)]
pub struct LogicalBackup {
    source: ConnectOptions,
    options: LogicalOptions,
}

impl LogicalBackup {
    /// A backup of `source`.
    #[must_use]
    pub fn new(source: ConnectOptions, options: LogicalOptions) -> Self {
        LogicalBackup { source, options }
    }
}

#[async_trait]
impl Backup for LogicalBackup {
    fn strategy(&self) -> Strategy {
        Strategy::Logical
    }

    async fn preflight(&self, _: &Context) -> Result<Vec<Finding>> {
        self.options.selection.check()?;
        let mut session = Session::open(&self.source).await?;
        let facts = inventory::server(session.conn()).await?;
        let mut findings = vec![Finding::new(
            Severity::Info,
            "server",
            format!("{} {}", facts.flavor, facts.version_text),
            "",
        )];
        self.masks()?;
        if let Some(watcher) = self.watcher().await? {
            watcher.close().await?;
        }
        let selection = inventory::resolve(session.conn(), &facts, &self.options.selection).await?;
        let missing = inventory::missing_privileges(session.conn(), &facts, &selection).await?;
        for privilege in missing {
            findings.push(
                Finding::new(
                    Severity::Error,
                    "privileges",
                    format!("{} has no {} privilege", self.source.user, privilege.name),
                    privilege.grant,
                )
                .with_kind(ErrorKind::Privilege),
            );
        }
        findings.extend(inventory::unreadable_tables(session.conn(), &selection).await?);
        findings.extend(self.without_files(&mut session, &facts, &selection).await?);
        let (selection, no_rows) = (&self.options.selection, &self.options.no_rows);
        for idle in inventory::idle_exclusions(session.conn(), &facts, selection, no_rows).await? {
            let problem = "nothing fits this pattern of what is to be left out";
            let remedy = "see that it is written as it is meant";
            findings.push(Finding::new(Severity::Warning, idle, problem, remedy));
        }
        if let Some(process) = inventory::missing_process(session.conn(), &facts).await? {
            let what = match facts.flavor {
                Flavor::MySql => {
                    "general tablespaces are not backed up, nor tables in them, and a backup that was not \
                     finished is not gone on with"
                }
                Flavor::MariaDb => {
                    "EXCHANGE PARTITION during the backup is not noticed, and a backup that was not finished is \
                     not gone on with"
                }
            };
            let problem = format!("{} has no {} privilege: {what}", self.source.user, process.name);
            findings.push(Finding::new(Severity::Info, "privileges", problem, process.grant));
        }
        findings.extend(logged::findings(&mut session, &facts).await?);
        session.close().await?;
        Ok(findings)
    }

    async fn run(&self, cx: &Context, sink: Arc<dyn ArtifactSink>) -> Result<Outcome> {
        let mut watcher = self.watcher().await?;
        if let Some(watcher) = &mut watcher {
            // A snapshot that waits keeps the server from forgetting old versions of rows.
            cx.run(watcher.calm(cx)).await?;
        }
        let paused = match self.options.pause_replication {
            true => self.pause(cx).await?,
            false => None,
        };
        // Locks are given back by their connections' end, so that dropping the work is safe.
        let longer = "a longer --lock-timeout waits longer";
        let read = waits::told(cx, &self.source, longer, self.read(cx, sink, watcher));
        let read = cx.run(read).await;
        let Some(paused) = paused else { return read };
        match (read, paused.resume(cx, &self.source).await) {
            (Ok(outcome), Ok(())) => Ok(outcome),
            (Ok(mut outcome), Err(e)) => {
                outcome.warnings.push(e.report());
                Ok(outcome)
            }
            // What broke the backup says more; the other one was told of.
            (Err(e), _) => Err(e),
        }
    }
}

impl LogicalBackup {
    /// Tables that nobody can read, and that say so of themselves.
    async fn without_files(
        &self,
        session: &mut Session,
        facts: &ServerFacts,
        selection: &Selection,
    ) -> Result<Vec<Finding>> {
        let found = inventory::without_files(session.conn(), facts, selection).await?;
        let read = found.into_iter().filter(|(name, _)| {
            let fits = |glob: &TableGlob| {
                inventory::in_servers_case_glob(facts, glob).matches(&name.database, &name.table)
            };
            !self.options.no_rows.iter().any(fits)
        });
        let severity = match self.options.on_corrupt {
            OnCorrupt::Fail => Severity::Error,
            OnCorrupt::Skip | OnCorrupt::Salvage => Severity::Warning,
        };
        let finding = |(name, error): (TableName, Error)| {
            let table = name.to_string();
            let remedy = format!(
                "give it its file back, or drop it; --on-corrupt skip keeps its definition alone, \
                 --exclude-tables {} leaves it out",
                shell_word(&table)
            );
            Finding::new(severity, table, error.chain(), remedy).with_kind(ErrorKind::Source)
        };
        Ok(read.map(finding).collect())
    }

    async fn read(
        &self,
        cx: &Context,
        sink: Arc<dyn ArtifactSink>,
        mut watcher: Option<Watcher>,
    ) -> Result<Outcome> {
        let mut session = Session::open(&self.source).await?;
        let facts = inventory::server(session.conn()).await?;
        let selection =
            &inventory::resolve(session.conn(), &facts, &self.options.selection).await?;
        let mut masks = self.masks()?;
        if let Some(masks) = masks.as_mut().filter(|_| facts.lower_case_table_names != 0) {
            masks.ignore_case();
        }
        let found_bad = match self.options.check_tables {
            true => self.check_tables(cx, &mut session, selection).await?,
            false => Vec::new(),
        };
        let mut snapshot_options = self.options.snapshot.clone();
        snapshot_options.unlocked = found_bad.iter().map(|(name, _)| name.clone()).collect();
        cx.phase("snapshot");
        let mut prepared = prepared::prepared(cx, &mut session).await?;
        let most = self.options.adapt.then(|| pace::most(cx.threads()));
        let count = most.unwrap_or(cx.threads());
        let taken = snapshot::open(cx, &self.source, &facts, selection, count, &snapshot_options);
        let mut snapshot = taken.await?;
        prepared.extend(prepared::prepared(cx, &mut session).await?);
        cx.phase("definitions");
        let mut catalog = inventory::read(session.conn(), &facts, selection).await?;
        same_tables(&snapshot.tables, &catalog)?;
        self.narrow(&facts, &mut catalog)?;
        try_filters(&self.source, &catalog.tables).await?;
        if selection.is_whole_server() && !self.options.no_accounts && masks.is_none() {
            catalog.accounts = inventory::accounts(session.conn(), &facts).await?;
        }
        let mut warnings = std::mem::take(&mut catalog.warnings);
        warnings.extend(self.leave_out(found_bad, &mut catalog));
        warnings.extend(recovery(&mut session).await?);
        warnings.extend(prepared::warning(&prepared));
        if let Some(masks) = &mut masks {
            masks.ask(&mut session, &catalog.tables).await?;
            warnings.extend(masks.prepare(&mut catalog)?);
            refuse_fixed_keys(&mut session, masks, &catalog.tables).await?;
        }
        let ground = Ground::of(&mut session, &self.source, &facts, &snapshot, &catalog).await?;
        // Masked values are not what the next backup would read.
        let mut resumed = match masks {
            None => ground.resume(cx, &*sink).await?,
            Some(_) => Resumed::default(),
        };
        let ranges = dump::cut(
            &mut session,
            &catalog.tables,
            masks.as_ref(),
            self.options.chunk_bytes,
            &resumed.ranges,
            &Cuts::of(&*sink).await?,
        )
        .await?;
        if masks.is_none() {
            ground.write_down(&*sink, &ranges).await?;
        }
        let resumption = resumed.report(&catalog.tables);
        cx.phase("rows");
        let readers = std::mem::take(&mut snapshot.readers);
        if let Some(watcher) = &mut watcher {
            watcher.ignore(readers.iter().map(wire::Connection::id));
        }
        let deadline = self.options.snapshot.table_lock_timeout;
        let locks = snapshot.table_locks.take().map(|locks| (locks, deadline));
        let work = dump::Work {
            readers,
            tables: std::mem::take(&mut catalog.tables),
            ranges,
            done: std::mem::take(&mut resumed.chunks),
            sink: Arc::clone(&sink),
            fingerprints: snapshot.fingerprints.take(),
            masks: masks.as_ref(),
            on_corrupt: self.options.on_corrupt,
            locks,
            pace: Pace::new(cx.threads().min(count), most, watcher.as_mut()),
        };
        let dump::Read { tables, released, lost } = dump::run(cx, work).await?;
        catalog.tables = tables;
        documents::look(&mut session, &facts, &mut catalog.tables).await?;
        let misread = no_text::found(&catalog.tables);
        warnings.extend(misread.iter().take(SHOWN).map(ToString::to_string));
        let misread = serde_json::json!(misread.iter().take(SHOWN).collect::<Vec<_>>());
        warnings.extend(lost.iter().take(SHOWN).map(ToString::to_string));
        if let Some(more) = lost.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            warnings.push(format!("{more} more ranges of rows could not be read"));
        }
        snapshot.still_guarded().await?;
        let mut writer = sink.create(CATALOG.parse()?, Layout::Stream).await?;
        for line in catalog.to_lines() {
            writer.write(Bytes::from(line?)).await?;
        }
        writer.finish(serde_json::Value::Null).await?;

        let consistency = consistency(&catalog, &snapshot, &released);
        if consistency.level != ConsistencyLevel::Exact {
            warnings.push(consistency.reason.clone());
        }
        for text in &warnings {
            cx.event(Event::Warning { text: text.clone() });
        }
        session.close().await?;
        Ok(Outcome {
            source: source_info(&facts, &self.source),
            position: snapshot.position.clone(),
            consistency,
            lock_seconds: snapshot.lock.max(released.held).as_secs_f64(),
            rows: Some(catalog.tables.iter().map(|t| t.digest.rows).sum()),
            objects: objects(&catalog),
            masked: masks.is_some(),
            partial: !selection.is_all()
                || !lost.is_empty()
                || catalog.tables.iter().any(is_narrowed),
            warnings,
            details: details(
                &snapshot,
                resumption,
                &lost,
                misread,
                &documents::found(&catalog.tables),
                watcher.as_ref(),
            ),
        })
    }
}

/// As many damaged ranges are told of one by one.
pub(super) const SHOWN: usize = 1000;

/// A server that was told to start in spite of damage may pass over damaged rows without a word.
async fn recovery(session: &mut Session) -> Result<Option<String>> {
    let level: Option<u64> = session.query_first("SELECT @@GLOBAL.innodb_force_recovery").await?;
    Ok(level.filter(|level| *level > 0).map(|level| {
        format!(
            "the source runs with innodb_force_recovery={level}: it may leave damaged rows out without \
             saying so; compare the numbers of rows"
        )
    }))
}

impl LogicalBackup {
    /// Finds damage before the snapshot.
    async fn check_tables(
        &self,
        cx: &Context,
        session: &mut Session,
        selection: &Selection,
    ) -> Result<Vec<(TableName, String)>> {
        if self.options.on_corrupt == OnCorrupt::Salvage {
            return Err(Error::usage("tables are to be checked, and read around what is damaged")
                .with_remedy(
                    "choose one: the servers mark a table that CHECK TABLE finds damaged, and read \
                     nothing of it from then on",
                ));
        }
        let tables = inventory::list_tables(session.conn(), selection).await?;
        let bad = damage::check_tables(cx, session, &tables).await?;
        match bad.first() {
            Some((name, said)) if self.options.on_corrupt == OnCorrupt::Fail => Err(Error::new(
                ErrorKind::Source,
                format!("table {name} is damaged at the source: CHECK TABLE says: {said}"),
            )
            .with_remedy(format!(
                "{} of {} tables are damaged: repair them; or use --on-corrupt salvage or skip",
                bad.len(),
                tables.len()
            ))),
            _ => Ok(bad),
        }
    }

    /// Warnings about tables that are damaged, whose rows are left out where that is wanted.
    fn leave_out(&self, bad: Vec<(TableName, String)>, catalog: &mut Catalog) -> Vec<String> {
        let skip = self.options.on_corrupt == OnCorrupt::Skip;
        let mut warnings = Vec::new();
        for (name, said) in bad {
            let table = catalog.tables.iter_mut().find(|table| table.full_name() == name);
            let what = match skip {
                true => "its rows are left out",
                false => "what can be read of it is kept",
            };
            warnings.push(format!("table {name}: CHECK TABLE says: {said}; {what}"));
            if let Some(table) = table {
                table.rows_left_out |= skip;
            }
        }
        warnings
    }

    async fn pause(&self, cx: &Context) -> Result<Option<Paused>> {
        let mut session = Session::open(&self.source).await?;
        let facts = inventory::server(session.conn()).await?;
        let paused = Paused::begin(&mut session, &facts).await?;
        if paused.is_none() && super::replica::is_stopped(&mut session, &facts).await? {
            // A backup that was killed may have left it so.
            let text = "the source is a replica whose applier stands still already: it is not started after the \
                        backup";
            cx.event(Event::Warning { text: text.to_owned() });
        }
        Ok(paused)
    }

    /// Who looks after the limits, if there are any.
    async fn watcher(&self) -> Result<Option<Watcher>> {
        let Some(limits) = &self.options.throttle else { return Ok(None) };
        if self.options.pause_replication && limits.replica_lag.is_some() {
            return Err(Error::usage(
                "replication is to be paused, and its lag to be kept small by waiting",
            )
            .with_remedy("leave out --pause-replication, or replica-lag in --throttle"));
        }
        Watcher::open(&self.source, limits).await.map(Some)
    }

    fn masks(&self) -> Result<Option<Masks>> {
        let secret = self.options.mask_secret.as_ref().map(SecretBytes::expose);
        self.options.mask.as_ref().map(|rules| Masks::new(rules, secret)).transpose()
    }

    /// Notes which rows are not wanted.
    fn narrow(&self, facts: &ServerFacts, catalog: &mut Catalog) -> Result<()> {
        let fold = |name: &str| match facts.lower_case_table_names {
            1 => name.to_lowercase(),
            _ => name.to_owned(),
        };
        for (name, filter) in &self.options.filters {
            // It would choose more rows than it seems to.
            if !ddl::is_whole(filter) {
                let text = format!(
                    "the condition for the rows of {name} closes or opens a parenthesis too many"
                );
                return Err(Error::usage(text).with_remedy("correct --where"));
            }
            let (database, table) = (fold(&name.database), fold(&name.table));
            let found =
                catalog.tables.iter_mut().find(|t| t.database == database && t.name == table);
            let found = found.ok_or_else(|| {
                Error::usage(format!("there is a condition for {name}, and no such table"))
                    .with_remedy("correct --where")
            })?;
            found.filter = Some(filter.clone());
        }
        for table in &mut catalog.tables {
            let fits = |glob: &TableGlob| {
                inventory::in_servers_case_glob(facts, glob).matches(&table.database, &table.name)
            };
            table.rows_left_out = self.options.no_rows.iter().any(fits);
        }
        Ok(())
    }
}

/// Fails where a key of several rows would be one fixed value: nobody could restore the backup.
async fn refuse_fixed_keys(session: &mut Session, masks: &Masks, tables: &[Table]) -> Result<()> {
    for table in tables.iter().filter(|table| !table.rows_left_out) {
        for key in masks.fixed_keys(table)? {
            let mut conditions: Vec<String> =
                key.iter().map(|name| format!("{} IS NOT NULL", quote_name(name))).collect();
            conditions.extend(table.filter.iter().map(|filter| format!("({filter}\n)")));
            let name = table.full_name();
            let conditions = conditions.join(" AND ");
            let sql = format!("SELECT 1 FROM {} WHERE {conditions} LIMIT 2", name.quoted());
            if session.query_rows::<u8>(&sql).await?.len() > 1 {
                return Err(Error::usage(format!(
                    "{name} has a key on {}, which would have the same fixed value in every row: no server takes \
                     two of them",
                    key.join(", ")
                ))
                .with_remedy("mask it with `hash` or `shape`, or leave the rows out with --no-rows"));
            }
        }
    }
    Ok(())
}

/// Has the server look at the conditions, which would be refused after hours of reading else.
async fn try_filters(source: &ConnectOptions, tables: &[Table]) -> Result<()> {
    if tables.iter().all(|table| table.filter.is_none()) {
        return Ok(());
    }
    // Like those that read: none that was told which database is meant where none is named.
    let mut session = Session::open(source).await?;
    for table in tables {
        let Some(filter) = &table.filter else { continue };
        let (database, name) = (quote_name(&table.database), quote_name(&table.name));
        let sql = format!("SELECT 1 FROM {database}.{name} WHERE ({filter}\n) LIMIT 0");
        if let Err(error) = session.run(&sql).await {
            let Some(server) = error.server() else { return Err(error) };
            let full_name = table.full_name();
            let text = format!(
                "the condition for the rows of {full_name} is not understood: the server said: ERROR {} ({}): {}",
                server.code, server.state, server.message
            );
            let remedy = match server.code {
                1046 => "write the name of the database before every other table in --where",
                _ => "correct --where",
            };
            return Err(Error::usage(text).with_remedy(remedy));
        }
    }
    session.close().await
}

/// Whether some of the table's rows are missing on purpose.
fn is_narrowed(table: &Table) -> bool {
    table.filter.is_some() || table.rows_left_out
}

/// Fails when a table came or went between the snapshot and the reading of the definitions.
fn same_tables(at_snapshot: &[TableName], catalog: &Catalog) -> Result<()> {
    let before: BTreeSet<TableName> = at_snapshot.iter().cloned().collect();
    let now: BTreeSet<TableName> = catalog.tables.iter().map(Table::full_name).collect();
    let differs = before.symmetric_difference(&now).next();
    match differs {
        None => Ok(()),
        Some(table) => Err(Error::new(
            ErrorKind::Source,
            format!("table {table} was created or dropped while the backup began"),
        )
        .with_remedy("run the backup again when no DDL is running")),
    }
}
