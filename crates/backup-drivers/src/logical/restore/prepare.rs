//! What is known of a restore before the first byte is written.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{
    ArtifactSource, BackupId, Error, ErrorKind, Finding, Flavor, Manifest, Result, Severity,
    Strategy, pipeline, shell_word,
};

use super::super::account::AccountName;
use super::super::catalog::Catalog;
use super::super::inventory::{self, ServerFacts};
use super::super::load::{
    self, LoadSettings, Mark, Progress, Shape, State, Way, has_binary_log, logs_statements,
};
use super::super::recreate::{self, Plan};
use super::super::select::TableName;
use super::super::{documents, no_text, replica, waits};
use super::allowed::{self, Made};
use super::{LogicalRestore, Parts};
use crate::connect::Session;
use crate::foreign::ForeignImport;
use crate::rows::RowDigest;

/// What is known before the first byte is written.
pub(super) struct Prepared {
    pub(super) session: Session,
    pub(super) facts: ServerFacts,
    pub(super) catalog: Catalog,
    pub(super) plan: Plan,
    /// What of its findings is about what does not come along.
    pub(super) outside: Vec<Finding>,
    pub(super) settings: LoadSettings,
    pub(super) shapes: Vec<Shape>,
    pub(super) progress: Option<Progress>,
    pub(super) earlier: Earlier,
    /// Grants of accounts of the target that go with routines which are dropped, to be given again.
    pub(super) lost: Vec<String>,
    /// The accounts that the source had, as far as the backup tells.
    pub(super) of_source: BTreeSet<AccountName>,
    /// Whether anything of the backup is at the target, or something was destroyed for it.
    pub(super) begun: bool,
}

/// What an earlier run of the same restore left at the target.
pub(super) enum Earlier {
    Nothing,
    /// Work that can be gone on with.
    Work(State),
    /// Work that cannot, and why.
    Lost(String),
}

impl LogicalRestore {
    /// Looks at backup and target. With `lock` no other process does the same restore from then on.
    pub(super) async fn prepare(
        &self,
        manifest: &Manifest,
        artifacts: &dyn ArtifactSource,
        lock: bool,
    ) -> Result<Prepared> {
        if manifest.strategy == Strategy::Foreign {
            return Err(ForeignImport::not_restored(manifest.backup.as_str(), ""));
        }
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
        if self.private {
            catalog = recreate::without_directories(catalog);
        }
        if self.alone {
            catalog = recreate::stand_in(catalog);
        }
        self.look(&manifest.backup, catalog, of_source, lock).await
    }

    /// Looks at the target, for what `catalog` holds.
    pub(super) async fn look(
        &self,
        backup: &BackupId,
        mut catalog: Catalog,
        of_source: BTreeSet<AccountName>,
        lock: bool,
    ) -> Result<Prepared> {
        let mut session = Session::open(&self.target).await?;
        session.run(&waits::at_most(waits::RESTORE)).await?;
        let facts = inventory::server(session.conn()).await?;
        let mut adapted = recreate::adapt(&mut catalog, &facts);
        if self.options.parts != Parts::Schema {
            adapted.extend(no_text::adapt(&mut catalog, self.options.invalid_text));
        }
        let data = self.options.parts == Parts::Data;
        match self.options.parts {
            Parts::All => {}
            Parts::Schema => catalog.tables.iter_mut().for_each(|table| {
                table.chunks.clear();
                table.digest = RowDigest::default();
            }),
            Parts::Data => {
                catalog.stored.clear();
                catalog.accounts.clear();
            }
        }
        // Rows alone go into tables of others, where nothing of ours may stand beside them.
        let progress = Progress::of(backup, &catalog).filter(|_| !data);
        let mut earlier = Earlier::Nothing;
        let mut lost = Vec::new();
        if let Some(progress) = &progress {
            if lock {
                progress.lock(&mut session).await?;
                progress.stop_leftovers(&mut session).await?;
            }
            // Before that mark only what was in the way had been touched.
            let state = progress.read(&mut session).await?;
            lost.extend(state.iter().flat_map(State::grants));
            if let Some(state) = state.filter(|s| s.has(Mark::Cleared)) {
                earlier = match load::not_ours(&mut session, &catalog.tables, &state).await? {
                    None => Earlier::Work(state),
                    Some(why) => Earlier::Lost(why),
                };
            }
        }
        let mut plan = recreate::plan(session.conn(), &facts, &catalog).await?;
        plan.findings.extend(adapted);
        if self.options.overwrite || matches!(earlier, Earlier::Work(_)) {
            match recreate::lost_grants(session.conn(), &facts, &plan.existing).await {
                Ok(grants) => {
                    let more = grants.into_iter().filter(|grant| !lost.contains(grant));
                    lost.extend(Vec::from_iter(more));
                }
                Err(e) if e.kind() == ErrorKind::Privilege => {
                    plan.findings.push(recreate::unseen_grants(&plan.existing));
                }
                Err(e) => return Err(e),
            }
        }
        let outside = self.outside(&mut session, &catalog).await?;
        plan.findings.extend(outside.iter().cloned());
        if self.options.parts != Parts::Schema && facts.flavor == Flavor::MySql {
            plan.findings.extend(documents::findings(&catalog));
        }
        if let Some(source) = replica::followed(&mut session, &facts).await? {
            plan.findings.push(Finding::new(
                Severity::Error,
                self.target.to_string(),
                format!(
                    "it is a replica of {source}, and its replication runs: it would go on over what is \
                     restored"
                ),
                "stop it with STOP REPLICA (STOP SLAVE), or remove it with RESET REPLICA ALL (RESET SLAVE \
                 ALL); or choose another target",
            ));
        }
        if data {
            plan.existing.clear();
            plan.findings.extend(recreate::check_empty(session.conn(), &catalog).await?);
        } else {
            let found = recreate::configured(session.conn(), &facts, &catalog).await?;
            plan.findings.extend(found);
        }
        let logged = has_binary_log(&mut session).await?;
        let settings = LoadSettings {
            facts: facts.clone(),
            // Where there is none nothing has to be left out, which not everybody may.
            binary_log: self.options.binary_log || !logged,
            statements: logged && logs_statements(&mut session).await?,
        };
        let written = logged && settings.binary_log;
        let clustered = load::is_clustered(&mut session).await?;
        let way = Way {
            flavor: facts.flavor,
            large_transactions: !written && !clustered,
            referenced: load::referenced(&mut session, &catalog.tables).await?,
            chosen: match &earlier {
                Earlier::Work(state) => load::chosen(&catalog.tables, state),
                Earlier::Nothing | Earlier::Lost(_) => BTreeMap::new(),
            },
        };
        let shapes = match data {
            true => vec![Shape::as_it_is(); catalog.tables.len()],
            false => Shape::of_all(&catalog.tables, &way),
        };
        if !self.private {
            let refused = recreate::refused_accounts(session.conn(), &facts, &catalog).await?;
            plan.findings.extend(refused);
            let made = Made {
                catalog: &catalog,
                shapes: &shapes,
                destroyed: if self.options.overwrite { &plan.existing } else { &[] },
                progress: progress.as_ref(),
            };
            let lacks = allowed::findings(&mut session, &made, &settings, &self.options, logged);
            let lacks = lacks.await?;
            plan.findings.extend(lacks);
        }
        Ok(Prepared {
            session,
            facts,
            catalog,
            plan,
            outside,
            settings,
            shapes,
            progress,
            begun: matches!(earlier, Earlier::Work(_)),
            earlier,
            lost,
            of_source,
        })
    }

    /// What is made, and depends on tables and sequences that are not.
    async fn outside(&self, session: &mut Session, catalog: &Catalog) -> Result<Vec<Finding>> {
        if self.private || self.options.parts == Parts::Data {
            return Ok(Vec::new());
        }
        let selection = &self.options.selection;
        let how = |name: &TableName| {
            let tables = selection.tables.iter().chain([name]).map(ToString::to_string);
            match selection.only_tables() && !selection.has_globs() {
                true => format!("--tables {}", shell_word(&Vec::from_iter(tables).join(","))),
                false => format!("choose {name} too"),
            }
        };
        recreate::outside(session.conn(), catalog, &self.options.rename, &how).await
    }

    /// Fails where the target does not allow the restore.
    pub(super) fn refuse(&self, prepared: &Prepared) -> Result<()> {
        let plan = &prepared.plan;
        let cannot = format!("{} cannot take the restore", self.target);
        if let Some(error) = pipeline::in_one(&plan.findings, &cannot, ErrorKind::Target) {
            return Err(error);
        }
        let lost = match &prepared.earlier {
            Earlier::Work(_) => return Ok(()),
            Earlier::Lost(why) => {
                format!(" (an interrupted restore cannot be gone on with: {why})")
            }
            Earlier::Nothing => String::new(),
        };
        if plan.existing.is_empty() || self.options.overwrite {
            return Ok(());
        }
        let shown: Vec<String> = plan.existing.iter().take(5).map(ToString::to_string).collect();
        let more = plan.existing.len().saturating_sub(5);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(Error::new(
            ErrorKind::Target,
            format!("{} has already: {}{more}{lost}", self.target, shown.join(", ")),
        )
        .with_remedy(
            "restore under other names with --rename, or see with --overwrite --dry-run what would \
             be destroyed, and then use --overwrite",
        ))
    }
}
