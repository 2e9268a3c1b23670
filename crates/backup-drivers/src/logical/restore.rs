//! The logical strategy as a [`Restore`].

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ArtifactSource, Context, Error, ErrorKind, Event, Finding, Manifest, Restore, RestoreSteps,
    Restored, Result, Severity, Strategy,
};

use super::account::AccountName;
use super::catalog::{Catalog, StoredKind, Table};
use super::inventory::{self, ServerFacts};
use super::recreate::{self, Definers, Plan};
use super::rename::Rename;
use super::select::Selection;
use super::{check, load};
use crate::connect::{ConnectOptions, Session};
use crate::rows::RowDigest;

/// What a logical restore is asked for.
#[derive(Debug, Clone, Default)]
pub struct LogicalRestoreOptions {
    /// Which databases and tables of the backup; everything by default.
    pub selection: Selection,
    /// Under which names.
    pub rename: Rename,
    /// Whether objects that the target has already are dropped first. Without it they make the
    /// restore fail before anything is written.
    pub overwrite: bool,
    /// Whether users and roles stay away, which come with a whole server otherwise.
    pub no_accounts: bool,
    /// What becomes of definers.
    pub definers: Definers,
    /// Definitions, rows or both.
    pub parts: Parts,
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

/// Creates the objects of a backup at a server, loads the rows over [`Context::threads`]
/// connections, and reads every row back to compare it.
#[derive(Debug, Clone)]
pub struct LogicalRestore {
    target: ConnectOptions,
    options: LogicalRestoreOptions,
}

/// What is known before the first byte is written.
struct Prepared {
    session: Session,
    facts: ServerFacts,
    catalog: Catalog,
    plan: Plan,
    /// The accounts that the source had, as far as the backup tells.
    of_source: BTreeSet<AccountName>,
}

impl LogicalRestore {
    /// A restore to `target`.
    #[must_use]
    pub fn new(target: ConnectOptions, options: LogicalRestoreOptions) -> Self {
        LogicalRestore { target, options }
    }

    async fn prepare(
        &self,
        manifest: &Manifest,
        artifacts: &dyn ArtifactSource,
    ) -> Result<Prepared> {
        if manifest.strategy != Strategy::Logical {
            return Err(Error::usage(format!(
                "{} is a {} backup, which this restore cannot read",
                manifest.backup, manifest.strategy
            )));
        }
        let catalog = Catalog::read(artifacts).await?;
        let of_source = catalog.accounts.iter().map(|a| a.name.clone()).collect();
        let mut catalog = recreate::choose(catalog, &self.options.selection, &self.options.rename)?;
        if self.options.no_accounts {
            catalog.accounts.clear();
        }
        recreate::change_definers(&mut catalog, &self.options.definers);
        let mut session = Session::open(&self.target).await?;
        let facts = inventory::server(session.conn()).await?;
        let mut plan = recreate::plan(session.conn(), &facts, &catalog).await?;
        plan.findings.extend(recreate::adapt(&mut catalog, &facts));
        match self.options.parts {
            Parts::All => {}
            Parts::Schema => catalog.tables.iter_mut().for_each(|table| {
                table.chunks.clear();
                table.digest = RowDigest::default();
            }),
            Parts::Data => {
                catalog.stored.clear();
                catalog.accounts.clear();
                plan.existing.clear();
                plan.findings.extend(recreate::check_empty(session.conn(), &catalog).await?);
            }
        }
        Ok(Prepared { session, facts, catalog, plan, of_source })
    }

    /// Fails where the target does not allow the restore.
    fn refuse(&self, plan: &Plan) -> Result<()> {
        if let Some(finding) = plan.findings.iter().find(|f| f.severity == Severity::Error) {
            let Finding { object, problem, remedy, kind, .. } = finding.clone();
            let kind = kind.unwrap_or(ErrorKind::Target);
            return Err(Error::new(kind, format!("{object}: {problem}")).with_remedy(remedy));
        }
        if plan.existing.is_empty() || self.options.overwrite {
            return Ok(());
        }
        let shown: Vec<String> = plan.existing.iter().take(5).map(ToString::to_string).collect();
        let more = plan.existing.len().saturating_sub(5);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(Error::new(
            ErrorKind::Target,
            format!("{} has already: {}{more}", self.target, shown.join(", ")),
        )
        .with_remedy(
            "restore under other names with --rename, or see with --overwrite --dry-run what would \
             be destroyed, and then use --overwrite",
        ))
    }

    async fn restore(
        &self,
        cx: &Context,
        prepared: &mut Prepared,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<Vec<String>> {
        let Prepared { session, facts, catalog, plan, of_source } = prepared;
        let conn = session.conn();
        let mut warnings = Vec::new();
        if self.options.parts != Parts::Data {
            cx.phase("definitions");
            recreate::drop_existing(conn, facts, &plan.existing).await?;
            warnings = recreate::create_databases(conn, facts, catalog).await?;
            warnings.extend(recreate::create_invalid_views(conn, facts, catalog).await?);
            recreate::create_tables(conn, facts, catalog).await?;
        }
        cx.phase("rows");
        let tables: Vec<Table> =
            catalog.tables.iter().filter(|t| !t.rows_elsewhere).cloned().collect();
        load::run(cx, &self.target, facts.flavor, &tables, Arc::clone(&artifacts)).await?;
        recreate::set_sequences(conn, facts, catalog).await?;
        cx.phase("reading back");
        warnings.extend(check::run(cx, &self.target, &tables, artifacts).await?);
        if self.options.parts == Parts::Data {
            return Ok(warnings);
        }
        cx.phase("views, routines, triggers, events");
        let mut accounts = recreate::create_accounts(conn, facts, catalog).await?;
        warnings.extend(recreate::create_code(conn, facts, catalog, &mut accounts).await?);
        warnings.extend(accounts.finish(conn).await?);
        warnings.extend(recreate::missing_definers(conn, facts, catalog, of_source).await?);
        warnings.extend(recreate::create_triggers(conn, facts, catalog).await?);
        warnings.extend(recreate::create_events(conn, facts, catalog).await?);
        warnings.extend(recreate::finish_tables(conn, facts, catalog).await?);
        Ok(warnings)
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
        let Prepared { session, catalog, plan, .. } = self.prepare(manifest, &*artifacts).await?;
        session.close().await?;
        self.refuse(&plan)?;
        Ok(RestoreSteps {
            steps: steps(&catalog, &self.target, self.options.parts),
            destroys: plan.existing.iter().map(ToString::to_string).collect(),
        })
    }

    async fn run(
        &self,
        cx: &Context,
        manifest: &Manifest,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<Restored> {
        let mut prepared = cx.run(self.prepare(manifest, &*artifacts)).await?;
        self.refuse(&prepared.plan)?;
        let mut warnings = std::mem::take(&mut prepared.catalog.warnings);
        let findings = prepared.plan.findings.iter();
        warnings.extend(findings.map(|f| format!("{}: {} ({})", f.object, f.problem, f.remedy)));

        let put_back = load::allow_local_infile(&mut prepared.session).await?;
        let before = cx.progress().snapshot().bytes;
        let done = cx.run(self.restore(cx, &mut prepared, artifacts)).await;
        if put_back {
            // The session may have been cut off in the middle of a statement.
            let reset = async {
                let mut session = Session::open(&self.target).await?;
                load::forbid_local_infile(&mut session).await?;
                session.close().await
            };
            match reset.await {
                // What broke the restore says more than that the target is out of reach now.
                Err(e) if done.is_err() => cx.event(Event::Warning {
                    text: format!("local_infile may still be ON at the target: {}", e.report()),
                }),
                other => other?,
            }
        }
        warnings.extend(done.map_err(|e| {
            let half = format!("{} is left half restored", self.target);
            match e.kind() {
                ErrorKind::Interrupted => {
                    e.context(half).with_remedy("run the command again with --overwrite")
                }
                _ => {
                    let remedy = format!("{}; then restore again with --overwrite", e.remedy());
                    e.context(half).with_remedy(remedy)
                }
            }
        })?);
        for text in &warnings {
            cx.event(Event::Warning { text: text.clone() });
        }
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

/// What will be done, for people.
fn steps(catalog: &Catalog, target: &ConnectOptions, parts: Parts) -> Vec<String> {
    if parts == Parts::Data {
        let tables = catalog.tables.iter();
        let step = |t: &Table| {
            format!("load {} rows into table {}, read them back", t.digest.rows, t.full_name())
        };
        return tables.map(step).collect();
    }
    let mut steps = Vec::new();
    for database in &catalog.databases {
        steps.push(format!("create database {} at {target} if it is not there", database.name));
    }
    for table in &catalog.tables {
        steps.push(format!(
            "create table {}, load {} rows, read them back",
            table.full_name(),
            table.digest.rows
        ));
    }
    let mut stored: Vec<_> = catalog.stored.iter().collect();
    // The order in which they are created.
    stored.sort_by_key(|o| match o.kind {
        StoredKind::Trigger => 1,
        StoredKind::Event => 2,
        _ => 0,
    });
    steps.extend(stored.iter().map(|o| match o.database.as_str() {
        "" => format!("create {} {}", o.kind, o.name),
        _ => format!("create {} {}", o.kind, o.full_name()),
    }));
    let accounts = catalog.accounts.iter();
    steps.extend(accounts.map(|a| format!("create account {} if it is not there", a.name)));
    steps
}
