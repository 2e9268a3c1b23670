//! `holdfast restore --target-dir`

use std::path::Path;
use std::sync::Arc;

use backup_core::{
    BackupChain, BinlogServer, Chain, Error, ErrorKind, Finding, Manifest, Repository,
    Restore as Driver, Result, Severity, pipeline,
};
use backup_drivers::clone::Emptied;
use backup_drivers::files::{Catalog, FilesRestore, FilesRestoreOptions, Successor, advice};
use backup_drivers::physical::{Link, PhysicalRestore, details};
use backup_drivers::sandbox::ServerConfig;
use backup_storage::Repo;
use backup_verify::{AsideOptions, FilesPoint, FilesServer, plan_tables, restore_tables};

use super::backup_tool::search_path;
use super::new_replica::NewReplica;
use super::point::Way;
use super::restore::Restore;
use super::restored::{done, plan};
use crate::answer::Answer;
use crate::app::App;

impl Restore {
    /// The backups that an increment needs before it.
    async fn chain(&self, app: &App, repo: &Repo, manifest: &Manifest) -> Result<Vec<Link>> {
        let listed = app.cx.run(repo.backups(&app.cx, Some(&manifest.cluster))).await?;
        let known: Vec<Manifest> = listed.into_iter().filter_map(|l| l.manifest.ok()).collect();
        let chain = BackupChain::to(manifest, &known);
        chain.check()?;
        let mut before = Vec::new();
        let (_, links) = chain.links().split_last().unwrap_or((manifest, &[]));
        for link in links {
            let artifacts = repo.artifacts(&app.cx, link).await?;
            before.push(Link { manifest: link.clone(), artifacts });
        }
        Ok(before)
    }

    /// Restores tables out of a backup of data files into a server that goes on running, or plans to.
    pub(super) async fn tables_of_files(
        &self,
        app: &App,
        repo: &Repo,
        manifest: &Manifest,
        options: AsideOptions,
        way: Option<Way>,
    ) -> Result<Answer> {
        let cx = &app.cx;
        if !self.chooses_tables() {
            return Err(Error::usage(format!(
                "{} is a backup of data files: all of it is restored into a directory",
                manifest.backup
            ))
            .with_remedy(
                "name it with --target-dir, and start a server on it; --tables or --databases take a \
                 part of it to a running server",
            ));
        }
        let address = options.target.to_string();
        let route = way.as_ref().map(|way| Arc::clone(&way.route));
        let before = match details(manifest) {
            Ok(_) => self.chain(app, repo, manifest).await?,
            Err(_) => Vec::new(),
        };
        let server = FilesServer { tool: self.tool.clone(), directories: search_path(), before };
        if self.dry_run {
            let steps = plan_tables(cx, repo, manifest, server, &options, route.as_deref()).await?;
            return plan(manifest, &address, &steps, way.as_ref());
        }
        let started = cx.now();
        let restored = restore_tables(cx, repo, manifest, server, options, route).await?;
        done(manifest, &restored, cx.now().duration_since(started), way.as_ref())
    }

    /// What comes back otherwise, and how the server that is to start on the directory fits, if it is named.
    async fn fit(
        &self,
        app: &App,
        repo: &Repo,
        manifest: &Manifest,
        directory: &Path,
    ) -> Result<Vec<Finding>> {
        let artifacts = repo.artifacts(&app.cx, manifest).await?;
        let catalog = app.cx.run(Catalog::read(&*artifacts)).await?;
        let emptied =
            Emptied::of(manifest, &catalog).with_flags(&self.private_server(app, manifest).flags);
        let mut findings = Vec::from_iter(emptied.finding());
        let Some(file) = &self.server_config else {
            findings.extend(advice(&catalog, None));
            return Ok(findings);
        };
        let install = self.private_server(app, manifest).any_install()?;
        let config = ServerConfig::read(&install, file)?;
        findings.extend(advice(&catalog, Some(&config)));
        let successor = Successor { install: &install, config: &config, directory };
        findings.extend(successor.fit(manifest, &catalog));
        Ok(findings)
    }

    /// Restores the files of a backup into a directory, or plans to.
    pub(super) async fn to_directory(
        &self,
        app: &App,
        repo: &Repo,
        manifest: &Manifest,
        directory: &Path,
        way: Option<Way>,
    ) -> Result<Answer> {
        let cx = &app.cx;
        if !manifest.strategy.has_data_files() {
            return Err(Error::usage(format!(
                "{} is a {} backup, which has no data files: it is restored into a server",
                manifest.backup, manifest.strategy
            ))
            .with_remedy("name a running server with --target"));
        }
        if !self.is_everything() {
            return Err(Error::usage(
                "all files of a backup are restored together: a directory takes no choice of \
                 databases, tables or names",
            )
            .with_remedy(
                "restore into an empty directory, start a server there, take what you need",
            ));
        }
        let replica = match &self.as_replica_of {
            Some(url) => Some(NewReplica::of(cx, url).await?),
            None => None,
        };
        if let Some(replica) = &replica {
            replica.check_source(cx, manifest, way.as_ref()).await?;
        }
        let point = match &way {
            Some(way) => {
                let server = self.private_server(app, manifest);
                let route = Arc::clone(&way.route);
                let source = replica.as_ref().map(|replica| replica.source.clone());
                let apply = format!(
                    "holdfast binlog apply --cluster {} --target …{}{}",
                    manifest.cluster,
                    self.point.flags(BinlogServer::of_source(&manifest.outcome.source).as_ref()),
                    app.repo_flags
                );
                let point = FilesPoint::prepare(repo, manifest, route, server, apply)?;
                Some(point.following(source))
            }
            None => None,
        };
        let options = FilesRestoreOptions {
            overwrite: self.overwrite,
            delta: self.delta,
            unfinished: point.is_some(),
        };
        let path = std::path::absolute(directory).map_err(|e| {
            Error::usage(format!("{} is no path", directory.display())).with_source(e)
        })?;
        // What a tool read, the tool prepares.
        let driver: Box<dyn Driver> = match details(manifest) {
            Ok(_) => {
                let tool = self.tool.clone();
                let before = self.chain(app, repo, manifest).await?;
                let driver = PhysicalRestore::new(path.clone(), options, tool, search_path());
                Box::new(driver.after(before))
            }
            Err(_) => Box::new(FilesRestore::new(path.clone(), options)),
        };
        let driver = &*driver;
        let fit = self.fit(app, repo, manifest, &path).await?;
        if self.dry_run {
            let mut steps = pipeline::plan_restore(cx, repo, driver, manifest).await?;
            steps.findings.extend(fit);
            if let Some(point) = &point {
                steps.steps.extend(point.steps());
                steps.findings.extend(point.findings());
                steps.findings.extend(point.refusal(cx, &path).await?);
            }
            let answer = plan(manifest, &directory.display().to_string(), &steps, way.as_ref())?;
            return Ok(match &replica {
                Some(replica) => answer.with("replica", replica.as_json(None), ""),
                None => answer,
            });
        }
        pipeline::refuse(cx, &fit, "the server does not fit the backup")?;
        let started = cx.now();
        let mut restored = pipeline::restore(cx, repo, driver, manifest).await?;
        let fit = fit.iter().filter(|finding| finding.severity == Severity::Warning);
        restored.warnings.extend(fit.map(in_one_line));
        if let Some(point) = &point {
            restored.warnings.extend(point.findings().iter().map(in_one_line));
            let applied = point.run(cx, &path).await.map_err(|e| {
                let said = e.remedy();
                let on = path.display();
                let again = format!(
                    "restore again with --overwrite, or start a server on {on}, and `holdfast binlog apply` goes on \
                     from where it stands"
                );
                let remedy = if e.kind() == ErrorKind::Interrupted {
                    again
                } else if !said.contains("binlog apply") {
                    format!("{said}; then {again}")
                } else if !said.contains("start a server") {
                    // The private server is gone.
                    format!("{said}, once a server runs on {on}")
                } else {
                    said.to_owned()
                };
                e.context(format!("backup {} is restored, the binlogs are not", manifest.backup))
                    .with_remedy(remedy)
            })?;
            if let Some(applied) = applied {
                restored.bytes += applied.bytes;
                restored.warnings.extend(applied.warnings);
            }
        }
        let Some((replica, point)) = replica.as_ref().zip(point.as_ref()) else {
            return done(manifest, &restored, cx.now().duration_since(started), way.as_ref());
        };
        if let Some(at) = NewReplica::start(manifest, way.as_ref()) {
            point.make_replica(cx, &path, &at).await.map_err(|e| {
                e.context("everything is restored; the directory is that of no replica yet")
                    .with_remedy(
                        "start a server on it with a server_id of its own, and name its source there \
                         (CHANGE REPLICATION SOURCE TO, CHANGE MASTER TO)",
                    )
            })?;
        }
        let answer = done(manifest, &restored, cx.now().duration_since(started), way.as_ref())?;
        Ok(answer.with(
            "replica",
            replica.as_json(None),
            &replica.done_files(manifest.outcome.source.flavor),
        ))
    }
}

fn in_one_line(finding: &Finding) -> String {
    format!("{} ({})", finding.problem, finding.remedy)
}
