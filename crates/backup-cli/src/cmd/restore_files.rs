//! `holdfast restore --target-dir`

use std::path::Path;

use backup_core::{
    BackupChain, Chain, Error, Manifest, Repository, Restore as Driver, Result, pipeline,
};
use backup_drivers::files::{FilesRestore, FilesRestoreOptions};
use backup_drivers::physical::{Link, PhysicalRestore, details};
use backup_storage::Repo;
use backup_verify::{AsideOptions, FilesServer, plan_tables, restore_tables};

use super::backup_tool::search_path;
use super::point::Way;
use super::restore::{Restore, done, plan};
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
        if way.is_some() {
            return Err(Error::usage(
                "single tables out of a backup of data files come back as they were at its position",
            )
            .with_remedy("restore without a point, or from a logical backup"));
        }
        let address = options.target.to_string();
        if self.dry_run {
            let steps = plan_tables(cx, repo, manifest, &options).await?;
            return plan(manifest, &address, &steps, None);
        }
        let before = match details(manifest) {
            Ok(_) => self.chain(app, repo, manifest).await?,
            Err(_) => Vec::new(),
        };
        let server = FilesServer { tool: self.tool.clone(), directories: search_path(), before };
        let started = cx.now();
        let restored = restore_tables(cx, repo, manifest, server, options).await?;
        done(manifest, &restored, cx.now().duration_since(started), None)
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
        if way.is_some() {
            return Err(Error::usage("a directory is restored as it was backed up").with_remedy(
                "restore without a point, start a server on the directory, and go on with \
                     `holdfast binlog apply`",
            ));
        }
        let options = FilesRestoreOptions { overwrite: self.overwrite, delta: self.delta };
        let path = std::path::absolute(directory).map_err(|e| {
            Error::usage(format!("{} is no path", directory.display())).with_source(e)
        })?;
        // What a tool read, the tool prepares.
        let driver: Box<dyn Driver> = match details(manifest) {
            Ok(_) => {
                let tool = self.tool.clone();
                let before = self.chain(app, repo, manifest).await?;
                Box::new(PhysicalRestore::new(path, options, tool, search_path()).after(before))
            }
            Err(_) => Box::new(FilesRestore::new(path, options)),
        };
        let driver = &*driver;
        if self.dry_run {
            let steps = pipeline::plan_restore(cx, repo, driver, manifest).await?;
            return plan(manifest, &directory.display().to_string(), &steps, None);
        }
        let started = cx.now();
        let restored = pipeline::restore(cx, repo, driver, manifest).await?;
        done(manifest, &restored, cx.now().duration_since(started), None)
    }
}
