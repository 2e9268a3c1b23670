//! The logical strategy as a [`Restore`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{
    ArtifactSource, Context, Error, ErrorKind, Event, Finding, Flavor, Manifest, Restore,
    RestoreSteps, Restored, Result, Severity, and_again,
};

use super::catalog::{Catalog, Column, StoredKind, Table};
use super::check;
use super::load::{self, Load, Mark, RedoLog, State};
use super::no_text::InvalidText;
use super::recreate::{self, Definers, Existing, ExistingKind};
use super::rename::Rename;
use super::select::Selection;
use super::waits;
use crate::connect::{ConnectOptions, Session};

mod allowed;
mod changes;
mod foresee;
mod in_name_of;
mod prepare;
mod steps;

use changes::Changes;
pub use foresee::Known;
use prepare::{Earlier, Prepared};

/// What a logical restore is asked for.
#[derive(Debug, Clone)]
pub struct LogicalRestoreOptions {
    /// Which databases and tables of the backup; everything by default.
    pub selection: Selection,
    /// Under which names.
    pub rename: Rename,
    /// Whether objects that the target has already are dropped first. Without it they make the
    /// restore fail before anything is written.
    pub overwrite: bool,
    /// Whether the restore is written to the target's binary log, so that its replicas and its own
    /// backups of the log have it too. It is by default; without it MariaDB loads large tables
    /// quicker, and replicas are left without what is restored.
    pub binary_log: bool,
    /// Whether the target keeps its redo log meanwhile (MySQL can do without). It does by default:
    /// a crash of a server without one destroys all of its tables.
    pub redo_log: bool,
    /// For how long work is tried again that fails by a deadlock or because a connection or the
    /// server went away. Default: 60 seconds.
    pub patience: Duration,
    /// Whether users and roles stay away, which come with a whole server otherwise.
    pub no_accounts: bool,
    /// What becomes of definers.
    pub definers: Definers,
    /// Definitions, rows or both.
    pub parts: Parts,
    /// What becomes of values that are no text of the character set of their column.
    pub invalid_text: InvalidText,
}

/// What of a backup is restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Parts {
    /// Definitions and rows.
    #[default]
    All,
    /// Definitions alone.
    Schema,
    /// Rows alone, into tables that are there and empty.
    Data,
}

impl Default for LogicalRestoreOptions {
    fn default() -> Self {
        LogicalRestoreOptions {
            selection: Selection::default(),
            rename: Rename::default(),
            overwrite: false,
            binary_log: true,
            redo_log: true,
            patience: Duration::from_secs(60),
            no_accounts: false,
            definers: Definers::default(),
            parts: Parts::default(),
            invalid_text: InvalidText::default(),
        }
    }
}

/// Creates the objects of a backup at a server, loads the rows over [`Context::threads`]
/// connections, and reads every row back to compare it.
///
/// What it has done it marks in a table of the target, in the same transactions, so that a restore
/// that was interrupted, however, goes on when it is run again.
#[derive(Debug, Clone)]
pub struct LogicalRestore {
    target: ConnectOptions,
    options: LogicalRestoreOptions,
    /// The target is a private server, whose files stay where it keeps them.
    private: bool,
    /// It has none of the servers that tables show rows of.
    alone: bool,
    /// Nobody will run it again: the backup is gone by then.
    once: bool,
    /// What there is to look at has been told.
    told: bool,
}

impl LogicalRestore {
    /// A restore to `target`.
    #[must_use]
    pub fn new(target: ConnectOptions, options: LogicalRestoreOptions) -> Self {
        LogicalRestore { target, options, private: false, alone: false, once: false, told: false }
    }

    /// For a private server: no table gets the directory of its own that it had.
    #[must_use]
    pub fn private(self) -> Self {
        LogicalRestore { private: true, ..self }
    }

    /// The same, for one that is thrown away then: tables of FEDERATED, which it takes another server to create, get
    /// another engine.
    #[must_use]
    pub fn rehearsal(self) -> Self {
        LogicalRestore { alone: true, ..self.private() }
    }

    /// Of a backup that nobody can restore a second time: what an early end leaves cannot be gone on with, and no
    /// mark of it stays at the target.
    #[must_use]
    pub fn once(self) -> Self {
        LogicalRestore { once: true, ..self }
    }

    /// A part of a restore that was looked at as a whole: what may come out otherwise is not told again.
    #[must_use]
    pub fn told(self) -> Self {
        LogicalRestore { told: true, ..self }
    }

    async fn restore(
        &self,
        cx: &Context,
        prepared: &mut Prepared,
        artifacts: Arc<dyn ArtifactSource>,
        changes: &Changes,
    ) -> Result<Vec<String>> {
        let (mut warnings, mut state) = match self.options.parts {
            Parts::Data => (Vec::new(), State::default()),
            Parts::All | Parts::Schema => {
                cx.phase("definitions");
                self.define(prepared).await?
            }
        };
        if !state.has(Mark::Checked) {
            let session = &mut prepared.session;
            let progress = prepared.progress.as_ref();
            changes.allow_local_infile(session, progress).await?;
            let tables = &prepared.catalog.tables;
            let has_documents =
                tables.iter().any(|t| t.columns.iter().any(Column::holds_documents));
            if has_documents && prepared.facts.flavor == Flavor::MySql {
                changes.longer_packets(session, progress).await?;
            }
            let bytes = prepared.catalog.tables.iter().map(|table| table.data_bytes).sum();
            changes.redo_log_larger(session, bytes, progress).await?;
            if !self.options.redo_log {
                let ours: Vec<String> =
                    prepared.catalog.databases.iter().map(|d| d.name.clone()).collect();
                changes.redo_log_off(session, &prepared.facts, &ours, progress).await?;
            }
            cx.phase("rows");
            prepared.begun = true;
            let again = self.load(cx, prepared, &mut state, &artifacts).await?;
            let Prepared { session, facts, catalog, settings, shapes, progress, .. } =
                &mut *prepared;
            let (target, tables, progress) = (&self.target, &catalog.tables, progress.as_ref());
            load::add_foreign_keys(cx, target, settings, tables, shapes, progress).await?;
            if (again || state.is_resumed()) && self.options.parts != Parts::Data {
                load::set_counters(target, settings, tables, shapes, progress).await?;
            }
            recreate::set_sequences(session.conn(), facts, catalog).await?;
            cx.phase("reading back");
            let tables: Vec<Table> =
                catalog.tables.iter().filter(|t| !t.rows_elsewhere).cloned().collect();
            let checked = check::run(cx, &self.target, &tables, artifacts).await;
            self.still_there(prepared).await?;
            let (session, progress) = (&mut prepared.session, &prepared.progress);
            match (checked, progress) {
                (Ok(more), None) => warnings.extend(more),
                (Ok(more), Some(progress)) => {
                    warnings.extend(more);
                    progress.set(session, Mark::Checked, "").await?;
                }
                (Err(e), Some(progress)) if e.kind() == ErrorKind::Damaged => {
                    // To go on with wrong rows would find them wrong again. What the marks tell to put back is put
                    // back first, here as at the end: a run that is killed in between leaves them to the next.
                    if changes.put_back(cx, &self.target, None, false).await.is_ok() {
                        progress.end(session).await?;
                        not_granted(cx, &prepared.lost);
                    }
                    return Err(e);
                }
                (Err(e), _) => return Err(e),
            }
        }
        if self.options.parts == Parts::Data {
            return Ok(warnings);
        }
        cx.phase("views, routines, triggers, events");
        let Prepared { session, facts, catalog, progress, lost, of_source, .. } = prepared;
        if allowed::creators(catalog).next().is_some() {
            changes.trust_creators(session, progress.as_ref()).await?;
        }
        if state.is_resumed()
            && let Some(progress) = progress
        {
            progress.set_grants(session, lost).await?;
        }
        let conn = session.conn();
        if state.has(Mark::Checked) {
            recreate::drop_existing(conn, facts, &code_of(catalog)).await?;
        }
        let mut accounts = recreate::create_accounts(conn, facts, catalog, lost).await?;
        warnings.extend(recreate::create_code(conn, facts, catalog, &mut accounts).await?);
        warnings.extend(accounts.finish(conn).await?);
        warnings.extend(recreate::missing_definers(conn, facts, catalog, of_source).await?);
        warnings.extend(recreate::create_triggers(conn, facts, catalog).await?);
        warnings.extend(recreate::create_events(conn, facts, catalog).await?);
        warnings.extend(recreate::differing_settings(conn, facts, catalog).await?);
        changes.put_back(cx, &self.target, None, false).await?;
        if let Some(progress) = progress {
            progress.end(session).await?;
        }
        // The last of all: a database that is read-only again takes no marks.
        warnings.extend(recreate::finish_tables(session.conn(), facts, catalog).await?);
        Ok(warnings)
    }

    /// Makes databases and empty tables, or those that an earlier run did not make. Gives warnings,
    /// and what that run did.
    async fn define(&self, prepared: &mut Prepared) -> Result<(Vec<String>, State)> {
        let Prepared {
            session,
            facts,
            catalog,
            plan,
            settings,
            shapes,
            progress,
            earlier,
            lost,
            begun,
            ..
        } = prepared;
        settings.leave_out(session).await?;
        let mut warnings = Vec::new();
        let mut state = match std::mem::replace(earlier, Earlier::Nothing) {
            Earlier::Work(state) => state,
            Earlier::Nothing | Earlier::Lost(_) => {
                warnings = recreate::create_databases(session.conn(), facts, catalog).await?;
                if let Some(progress) = progress {
                    progress.begin(session, lost).await?;
                }
                *begun = true;
                recreate::drop_existing(session.conn(), facts, &plan.existing).await?;
                if let Some(progress) = progress {
                    progress.set(session, Mark::Cleared, "").await?;
                }
                State::default()
            }
        };
        // Views that were not valid are made before there are tables; what an earlier run made of
        // them stays.
        let tables_are_there = (0..catalog.tables.len()).any(|i| state.has(Mark::Created(i)));
        if state.is_resumed() {
            recreate::keep_invalid_views(session.conn(), catalog).await?;
        }
        if !tables_are_there && !state.has(Mark::Defined) {
            warnings.extend(recreate::create_invalid_views(session.conn(), facts, catalog).await?);
        }
        if state.has(Mark::Checked) {
            return Ok((warnings, state));
        }
        if !state.has(Mark::Defined) {
            let resumed = state.is_resumed();
            recreate::create_before_tables(session.conn(), facts, catalog, resumed).await?;
        }
        let tables = &catalog.tables;
        load::create_tables(session, settings, tables, shapes, progress.as_ref(), &mut state)
            .await?;
        if let Some(progress) = progress {
            progress.set(session, Mark::Defined, "").await?;
        }
        Ok((warnings, state))
    }

    /// Loads all rows. Gives whether any needed more than one attempt.
    async fn load(
        &self,
        cx: &Context,
        prepared: &mut Prepared,
        state: &mut State,
        artifacts: &Arc<dyn ArtifactSource>,
    ) -> Result<bool> {
        let mut again = false;
        loop {
            let load = Load {
                target: self.target.clone(),
                settings: prepared.settings.clone(),
                tables: prepared.catalog.tables.clone(),
                shapes: prepared.shapes.clone(),
                artifacts: Arc::clone(artifacts),
                progress: prepared.progress.clone(),
                patience: self.options.patience,
            };
            again |= load.run(cx, state).await?;
            if self.still_there(prepared).await? {
                return Ok(again);
            }
            // The server may have come up anew, without what engines without transactions held.
            let Prepared { session, catalog, settings, shapes, progress, .. } = &mut *prepared;
            let Some(progress) = progress else { return Ok(again) };
            *state = progress.read(session).await?.unwrap_or_default();
            let tables = &catalog.tables;
            load::create_tables(session, settings, tables, shapes, Some(progress), state).await?;
        }
    }

    /// Opens the session anew if it was lost meanwhile, with the server or by idling. Gives whether
    /// it was there all the time.
    async fn still_there(&self, prepared: &mut Prepared) -> Result<bool> {
        if prepared.session.run("DO 0").await.is_ok() {
            return Ok(true);
        }
        prepared.session = Session::open(&self.target).await?;
        prepared.session.run(&waits::at_most(waits::RESTORE)).await?;
        prepared.settings.leave_out(&mut prepared.session).await?;
        match &prepared.progress {
            Some(progress) => progress.lock(&mut prepared.session).await.map(|()| false),
            None => Ok(false),
        }
    }

    /// What to tell of a restore that ended early.
    fn failed(&self, error: Error, begun: bool, resumable: bool) -> Error {
        let (kind, remedy) = (error.kind(), error.remedy().to_owned());
        let error = error.context(match begun {
            true => format!("{} is left half restored", self.target),
            false => format!("nothing was restored into {}", self.target),
        });
        let again = match (resumable, kind) {
            _ if !begun => "run the command again",
            (true, ErrorKind::Damaged) | (false, _) => "restore again with --overwrite",
            (true, _) => "run the command again: it goes on where it stopped",
        };
        match kind {
            ErrorKind::Interrupted => error.with_remedy(again),
            _ => error.with_remedy(and_again(&remedy, again)),
        }
    }
}

/// Tells of grants that went with what was dropped, where no other run will know of them.
fn not_granted(cx: &Context, lost: &[String]) {
    for grant in lost {
        cx.event(Event::Warning { text: format!("not granted again: {grant}") });
    }
}

/// Everything in databases that is created after the rows.
fn code_of(catalog: &Catalog) -> Vec<Existing> {
    let code = catalog
        .stored
        .iter()
        .filter(|o| !o.keep_existing && !o.database.is_empty() && o.kind != StoredKind::Sequence);
    code.map(|o| Existing {
        name: o.full_name(),
        kind: ExistingKind::Stored(o.kind),
        estimated_rows: None,
    })
    .collect()
}

/// The only server of a restore is the target.
fn of_target(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Source => error.with_kind(ErrorKind::Target),
        // That command knows what backups need.
        ErrorKind::Privilege if error.remedy().contains("`holdfast check`") => {
            error.with_remedy("grant the account at the target the privilege that the server names")
        }
        _ => error,
    }
}

#[async_trait]
impl Restore for LogicalRestore {
    async fn plan(
        &self,
        _: &Context,
        manifest: &Manifest,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<RestoreSteps> {
        let mut prepared = self.prepare(manifest, &*artifacts, false).await.map_err(of_target)?;
        self.refuse(&prepared)?;
        let mut steps = steps::of(&prepared, &self.target, &self.options);
        // The restore itself tells it when it makes them.
        let Prepared { session, facts, catalog, lost, earlier, .. } = &mut prepared;
        let accounts = recreate::foreseen_accounts(session.conn(), facts, catalog, lost).await;
        steps.findings.extend(accounts.map_err(of_target)?);
        if self.options.parts != Parts::Data && !matches!(earlier, Earlier::Work(_)) {
            let databases = recreate::foreseen_databases(session.conn(), facts, catalog).await;
            steps.findings.extend(databases.map_err(of_target)?);
        }
        prepared.session.close().await?;
        Ok(steps)
    }

    async fn run(
        &self,
        cx: &Context,
        manifest: &Manifest,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<Restored> {
        let prepared = cx.run(self.prepare(manifest, &*artifacts, true)).await;
        let mut prepared = prepared.map_err(of_target)?;
        self.refuse(&prepared)?;
        let mut warnings = std::mem::take(&mut prepared.catalog.warnings);
        let findings = prepared.plan.findings.iter().filter(|f| f.severity == Severity::Warning);
        warnings.extend(findings.map(|f| format!("{}: {} ({})", f.object, f.problem, f.remedy)));
        if self.told {
            warnings.clear();
            prepared.outside.clear();
        }
        // Before the first row is written.
        for text in &warnings {
            cx.event(Event::Warning { text: text.clone() });
        }
        let outside = prepared.outside.iter().filter(|f| f.severity == Severity::Info);
        for Finding { object, problem, remedy, .. } in outside {
            cx.note(format!("{object}: {problem} ({remedy})"));
        }
        if let Earlier::Work(_) = prepared.earlier {
            cx.note("going on with a restore that was interrupted");
        }

        let before = cx.progress().snapshot().bytes;
        let changes = Changes::of(&prepared.earlier);
        let work = self.restore(cx, &mut prepared, artifacts, &changes);
        let done = cx.run(waits::told(cx, &self.target, "", work)).await;
        changes.put_back(cx, &self.target, prepared.progress.as_ref(), done.is_err()).await?;
        if let (Err(_), true, Some(progress)) = (&done, self.once, prepared.progress.clone()) {
            if prepared.begun {
                not_granted(cx, &prepared.lost);
            }
            // A target that went away keeps it; it is not in the way of anything.
            if self.still_there(&mut prepared).await.is_ok() {
                progress.end(&mut prepared.session).await.ok();
            }
        }
        let resumable = prepared.progress.is_some() && !self.once;
        let begun = prepared.begun;
        let more = done.map_err(|e| self.failed(of_target(e), begun, resumable))?;
        for text in &more {
            cx.event(Event::Warning { text: text.clone() });
        }
        warnings.extend(more);
        prepared.session.close().await?;
        Ok(Restored {
            target: self.target.to_string(),
            reached: manifest.outcome.position.clone(),
            rows: prepared.catalog.tables.iter().map(|t| t.digest.rows).sum(),
            bytes: cx.progress().snapshot().bytes - before,
            warnings,
        })
    }
}
