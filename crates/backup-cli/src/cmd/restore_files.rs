//! `holdfast restore --target-dir`

use std::path::Path;

use backup_core::{Error, Manifest, Result, Strategy, pipeline};
use backup_drivers::files::{FilesRestore, FilesRestoreOptions};
use backup_storage::Repo;

use super::point::Way;
use super::restore::{Restore, done, plan};
use crate::answer::Answer;
use crate::app::App;

impl Restore {
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
        if manifest.strategy == Strategy::Logical {
            return Err(Error::usage(format!(
                "{} is a logical backup: it is restored into a server",
                manifest.backup
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
        let driver = FilesRestore::new(
            std::path::absolute(directory).map_err(|e| {
                Error::usage(format!("{} is no path", directory.display())).with_source(e)
            })?,
            options,
        );
        if self.dry_run {
            let steps = pipeline::plan_restore(cx, repo, &driver, manifest).await?;
            return plan(manifest, &directory.display().to_string(), &steps, None);
        }
        let started = cx.now();
        let restored = pipeline::restore(cx, repo, &driver, manifest).await?;
        done(manifest, &restored, cx.now().duration_since(started), None)
    }
}
