//! `holdfast restore`

use backup_core::{
    ClusterName, Error, ErrorKind, Listed, Manifest, Repository, RestoreSteps, Restored, Result,
    pipeline, select,
};
use backup_drivers::logical::{
    LogicalRestore, LogicalRestoreOptions, RenameRule, Selection, TableName,
};
use backup_storage::{Repo, RepositoryOptions};
use jiff::SignedDuration;
use serde_json::json;

use super::backup::{Names, flat, tables};
use super::point::{Point, Way};
use crate::answer::Answer;
use crate::app::App;
use crate::human;
use crate::login::{DefaultsFile, Server};

/// Restore a backup into a server
#[derive(clap::Args)]
pub(crate) struct Restore {
    /// An id, a unique prefix of one, or `latest`
    #[arg(value_name = "BACKUP", default_value = "latest")]
    backup: String,
    /// The cluster whose backup it is
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// The server to write: mysql://user@host:port/ or mysql://user@localhost/?socket=/path
    #[arg(long, value_name = "DSN")]
    target: Option<String>,
    #[command(flatten)]
    defaults_file: DefaultsFile,
    /// Only these tables
    #[arg(long, value_name = "DB.TABLE,…", value_parser = tables)]
    tables: Vec<Names<TableName>>,
    /// Restore a database or table under another name
    #[arg(long, value_name = "OLD=NEW", value_parser = rename)]
    rename: Vec<RenameRule>,
    #[command(flatten)]
    point: Point,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace what is at the target under the same names; --dry-run says what that destroys
    #[arg(long)]
    overwrite: bool,
}

fn rename(text: &str) -> Result<RenameRule, String> {
    text.parse::<RenameRule>().map_err(|e| e.report())
}

impl Restore {
    /// Restores, or plans to.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        let cx = &app.cx;
        let cluster = app.cluster(self.cluster.as_ref())?;
        let repo = app.repo_or_copies(RepositoryOptions::default()).await?;
        let listed = cx.run(repo.backups(cx, Some(&cluster))).await?;
        let (manifest, way) = self.choose(app, &repo, &cluster, listed).await?;
        let target = Server {
            role: "target",
            variable: "HOLDFAST_TARGET_PASSWORD",
            url: self.target.as_deref(),
            defaults_file: self.defaults_file.defaults_file.as_deref(),
        };
        let target = target.resolve(cx).await?;
        let address = target.to_string();
        let options = LogicalRestoreOptions {
            selection: Selection { tables: flat(&self.tables), ..Selection::default() },
            rename: self.rename.iter().cloned().collect(),
            overwrite: self.overwrite,
        };
        let driver = LogicalRestore::new(target.clone(), options);
        if let Some(way) = &way {
            way.preflight(cx, &target, true).await?;
        }
        if self.dry_run {
            let steps = pipeline::plan_restore(cx, &repo, &driver, &manifest).await?;
            return plan(&manifest, &address, &steps, way.as_ref());
        }
        let started = cx.now();
        let mut restored = pipeline::restore(cx, &repo, &driver, &manifest).await?;
        if let Some(way) = &way {
            let applied = way.apply(cx, &repo, &target, true).await.map_err(|e| {
                let remedy = format!(
                    "{}; `holdfast binlog apply` goes on from where the target stands",
                    e.remedy()
                );
                e.context(format!("backup {} is restored, the binlogs are not", manifest.backup))
                    .with_remedy(remedy)
            })?;
            restored.bytes += applied.bytes;
            restored.warnings.extend(applied.warnings);
        }
        done(&manifest, &restored, cx.now().duration_since(started), way.as_ref())
    }

    /// The backup that is restored, and the way on from it, where a point is asked for.
    async fn choose(
        &self,
        app: &App,
        repo: &Repo,
        cluster: &ClusterName,
        listed: Vec<Listed>,
    ) -> Result<(Manifest, Option<Way>)> {
        let Some(target) = self.point.target() else {
            return Ok((select(listed, &self.backup)?, None));
        };
        if !self.tables.is_empty() || !self.rename.is_empty() {
            return Err(Error::usage(
                "--tables and --rename cannot be joined with a point in time: binlogs are applied \
                 to all tables, under their own names",
            )
            .with_remedy(
                "restore everything to a throw-away server up to that point, and move the tables \
                 from there",
            ));
        }
        let whole = |manifest: &Manifest| !manifest.outcome.partial && !manifest.outcome.masked;
        let manifests = if self.backup == "latest" {
            listed.into_iter().filter_map(|l| l.manifest.ok()).filter(whole).collect()
        } else {
            let manifest = select(listed, &self.backup)?;
            if !whole(&manifest) {
                return Err(Error::usage(format!(
                    "{} does not hold all tables: binlogs cannot be applied to it",
                    manifest.backup
                ))
                .with_remedy("name a backup of everything, or none"));
            }
            vec![manifest]
        };
        let chosen = self.point.choose(&app.cx, repo, cluster, manifests, &target).await?;
        Ok((chosen.0, Some(chosen.1)))
    }
}

fn plan(
    manifest: &Manifest,
    target: &str,
    steps: &RestoreSteps,
    way: Option<&Way>,
) -> Result<Answer> {
    let mut document = json!({
        "backup": manifest.backup,
        "target": target,
        "dry_run": true,
        "steps": steps.steps,
        "destroys": steps.destroys,
    });
    let mut text = format!("To restore {} into {target}:\n", manifest.backup);
    for (n, step) in steps.steps.iter().enumerate() {
        text.push_str(&format!("{:>4}. {step}\n", n + 1));
    }
    if !steps.destroys.is_empty() {
        text.push_str("This destroys:\n");
        for object in &steps.destroys {
            text.push_str(&format!("  {object}\n"));
        }
    }
    if let Some(way) = way {
        document["binlog"] = way.as_json();
        text.push_str(&way.steps());
    }
    text.push_str("Nothing was done.\n");
    Answer::new(&document, human::plain(&text))
}

fn done(
    manifest: &Manifest,
    restored: &Restored,
    took: SignedDuration,
    way: Option<&Way>,
) -> Result<Answer> {
    let reached = &restored.reached;
    let at = match way {
        Some(way) => way.reached(reached),
        // A backup by itself stands for a position; only a replay of the binlog knows a time.
        None => json!({
            "time": null,
            "gtid": reached.gtid,
            "file": reached.file,
            "offset": reached.offset,
        }),
    };
    let mut document = json!({
        "backup": manifest.backup,
        "target": restored.target,
        "reached": at,
        "rows": restored.rows,
        "bytes": restored.bytes,
        "duration_seconds": took.as_secs_f64(),
        "warnings": restored.warnings,
    });
    let position = match way {
        Some(way) => {
            document["binlog"] = way.as_json();
            way.steps()
        }
        None => format!("Position: {reached}\n"),
    };
    let warnings = match restored.warnings.len() {
        0 => String::new(),
        n => format!("It ended with {} to look at.\n", human::warnings(n)),
    };
    let text = format!(
        "Restored {} into {}: {} rows, {}, in {}; all of it was compared with the backup.\n\
         {position}{warnings}",
        manifest.backup,
        restored.target,
        human::count(restored.rows),
        human::bytes(restored.bytes),
        human::duration(took.as_secs_f64()),
    );
    let ending = (!restored.warnings.is_empty()).then_some(ErrorKind::Warnings);
    Ok(Answer::new(&document, human::plain(&text))?.summary().ending(ending))
}
