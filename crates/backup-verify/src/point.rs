//! A backup of data files in a directory, brought to a point in time.

use std::path::Path;
use std::sync::Arc;

use backup_core::{
    Context, ErrorKind, Finding, Manifest, Repository, Result, ServerVersion, Severity, io_error,
};
use backup_drivers::binlog::Route;
use backup_drivers::binlog::replay::Applied;
use backup_drivers::files::{self, Catalog, OnFiles};
use backup_drivers::sandbox::ServerInstall;
use backup_storage::Repo;

use crate::drill::DrillOptions;

/// The way from restored files to a point, by a private server on them.
pub struct FilesPoint<'a> {
    repo: &'a Repo,
    manifest: &'a Manifest,
    route: Arc<Route>,
    options: DrillOptions,
    install: ServerInstall,
}

impl<'a> FilesPoint<'a> {
    /// Looks for the server, and whether it may run on the files.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where there is none to run.
    pub fn prepare(
        repo: &'a Repo,
        manifest: &'a Manifest,
        route: Arc<Route>,
        options: DrillOptions,
    ) -> Result<Self> {
        let install = options.install(manifest)?;
        Ok(FilesPoint { repo, manifest, route, options, install })
    }

    /// What [`run`](Self::run) would do.
    #[must_use]
    pub fn steps(&self) -> Vec<String> {
        if self.route.is_empty() {
            return vec!["apply no binlogs: the backup is at that point".to_owned()];
        }
        let (flavor, version) = (self.install.flavor(), self.install.version());
        vec![
            format!(
                "start a private {flavor} {version} on them, of {}",
                self.install.base().display()
            ),
            "apply all archived binlogs up to that point there, and shut it down".to_owned(),
        ]
    }

    /// What is worth knowing of a directory that this server has run on.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let own = self.install.version();
        let of_backup = &self.manifest.outcome.source.version;
        let version = |text: &str| ServerVersion::parse(text, "").ok();
        let later = version(own).zip(version(of_backup)).is_some_and(|(own, backup)| {
            own.series() == backup.series() && own.patch() > backup.patch()
        });
        if !later || self.route.is_empty() {
            return Vec::new();
        }
        let problem =
            format!("the files are of {of_backup}, and the private server is {own}, a later one");
        let remedy = format!("start {own} or later on them, or name another with --server-dir");
        vec![Finding::new(Severity::Warning, "version", problem, remedy)]
    }

    /// Brings the files in `directory`, as the backup was restored there, to the point.
    ///
    /// # Errors
    /// When the server does not start on them, or a transaction cannot be applied.
    pub async fn run(&self, cx: &Context, directory: &Path) -> Result<Option<Applied>> {
        if self.route.is_empty() {
            return Ok(None);
        }
        let parent = self.options.directory.clone().unwrap_or_else(std::env::temp_dir);
        let scratch = tempfile::Builder::new().prefix("holdfast-point-").tempdir_in(&parent);
        let scratch = scratch.map_err(|e| {
            io_error(e, ErrorKind::Target, format!("cannot write to {}", parent.display()))
        })?;
        let artifacts = self.repo.artifacts(cx, self.manifest).await?;
        let catalog = Catalog::read(&*artifacts).await?;
        let server = OnFiles {
            data: directory.to_owned(),
            ..OnFiles::new(&self.install, scratch.path(), &catalog)
        };
        let store = Arc::new(self.repo.clone());
        files::bring_to(cx, server, store, Arc::clone(&self.route)).await.map(Some)
    }
}
