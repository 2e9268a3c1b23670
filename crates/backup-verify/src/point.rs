//! A backup of data files in a directory, brought to a point in time.

use std::path::Path;
use std::sync::Arc;

use backup_core::{
    Context, ErrorKind, Finding, GtidSet, Manifest, Repository, Result, ServerVersion, Severity,
    Strategy,
};
use backup_drivers::binlog::Route;
use backup_drivers::binlog::replay::Applied;
use backup_drivers::clone::Emptied;
use backup_drivers::connect::ConnectOptions;
use backup_drivers::files::{self, Catalog, Mark, OnFiles};
use backup_drivers::sandbox::{Scratch, ServerInstall};
use backup_storage::Repo;

use crate::drill::DrillOptions;

/// The way from restored files to a point, by a private server on them.
pub struct FilesPoint<'a> {
    repo: &'a Repo,
    manifest: &'a Manifest,
    route: Arc<Route>,
    options: DrillOptions,
    install: ServerInstall,
    /// The server that the directory is to replicate from.
    source: Option<ConnectOptions>,
    /// The command that goes the route from a server on the files.
    apply: String,
}

impl<'a> FilesPoint<'a> {
    /// Looks for the server, and whether it may run on the files. `apply` is the command that goes `route` from a
    /// server on them.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) where there is none to run.
    pub fn prepare(
        repo: &'a Repo,
        manifest: &'a Manifest,
        route: Arc<Route>,
        options: DrillOptions,
        apply: String,
    ) -> Result<Self> {
        let install = options.install(manifest)?;
        Ok(FilesPoint { repo, manifest, route, options, install, source: None, apply })
    }

    /// The directory is to be that of a replica of `source` then.
    #[must_use]
    pub fn following(mut self, source: Option<ConnectOptions>) -> Self {
        self.source = source;
        self
    }

    /// What [`run`](Self::run) would do.
    #[must_use]
    pub fn steps(&self) -> Vec<String> {
        let (flavor, version) = (self.install.flavor(), self.install.version());
        let start = format!(
            "start a private {flavor} {version} on them, of {}",
            self.install.base().display()
        );
        let mut steps = match self.route.is_empty() {
            true => vec!["apply no binlogs: the backup is at that point".to_owned()],
            false => vec![
                start.clone(),
                "apply all archived binlogs up to that point there, and shut it down".to_owned(),
            ],
        };
        if let Some(source) = &self.source {
            steps.push(start);
            steps.push(format!(
                "make it a replica of {source}, which the next server on them begins, and shut it down"
            ));
        }
        steps
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
        if !later || self.route.is_empty() && self.source.is_none() {
            return Vec::new();
        }
        let problem =
            format!("the files are of {of_backup}, and the private server is {own}, a later one");
        let remedy = format!("start {own} or later on them, or name another with --server-dir");
        vec![Finding::new(Severity::Warning, "version", problem, remedy)]
    }

    /// Why the files cannot come to the point, as far as the backup tells.
    ///
    /// # Errors
    /// What the repository fails with.
    pub async fn refusal(&self, cx: &Context, directory: &Path) -> Result<Option<Finding>> {
        if self.route.is_empty() || self.manifest.strategy != Strategy::Clone {
            return Ok(None);
        }
        let catalog = Catalog::read(&*self.repo.artifacts(cx, self.manifest).await?).await?;
        let emptied = Emptied::of(self.manifest, &catalog).with_flags(&self.options.flags);
        match emptied.refuse_route(cx, self.repo, &self.route, directory, &self.apply).await {
            Err(e) if e.kind() == ErrorKind::Target => {
                let (backup, remedy) = (self.manifest.backup.to_string(), e.remedy().to_owned());
                let finding = Finding::new(Severity::Error, backup, e.chain(), remedy);
                Ok(Some(finding.with_kind(e.kind())))
            }
            other => other.map(|()| None),
        }
    }

    /// Brings the files in `directory`, as the backup was restored there, to the point, and takes the mark away that
    /// the restore may have left ([`unfinished`](files::FilesRestoreOptions::unfinished)).
    ///
    /// # Errors
    /// When the server does not start on them, or a transaction cannot be applied.
    pub async fn run(&self, cx: &Context, directory: &Path) -> Result<Option<Applied>> {
        // As long as it is there the files are of no point: restored again, all of it is done again.
        let mark = Mark::left_in(directory)?;
        let unmark = || mark.map_or(Ok(()), Mark::remove);
        if self.route.is_empty() {
            return unmark().map(|()| None);
        }
        let (scratch, catalog) = self.place(cx).await?;
        let server = self.server(directory, scratch.path(), &catalog);
        let store = Arc::new(self.repo.clone());
        let emptied = (self.manifest.strategy == Strategy::Clone)
            .then(|| Emptied::of(self.manifest, &catalog).with_flags(&self.options.flags))
            .map(|emptied| (emptied, &*self.apply));
        let route = Arc::clone(&self.route);
        let applied = files::bring_to(cx, server, store, route, emptied).await;
        // The files are whole where it failed, too: `holdfast binlog apply` goes on from there.
        let unmarked = unmark();
        let applied = applied?;
        unmarked.map(|()| Some(applied))
    }

    /// Makes the files, which have the transactions `at`, those of a replica.
    ///
    /// # Errors
    /// When the server does not start on them, or refuses what it is told.
    pub async fn make_replica(&self, cx: &Context, directory: &Path, at: &GtidSet) -> Result<()> {
        let Some(source) = &self.source else { return Ok(()) };
        let (scratch, catalog) = self.place(cx).await?;
        let server = self.server(directory, scratch.path(), &catalog);
        files::make_replica(cx, server, source, at).await
    }

    fn server<'s>(
        &'s self,
        directory: &Path,
        scratch: &'s Path,
        catalog: &'s Catalog,
    ) -> OnFiles<'s> {
        OnFiles { data: directory.to_owned(), ..OnFiles::new(&self.install, scratch, catalog) }
    }

    /// Where the private server has what is its own, and what the backup says of the files.
    async fn place(&self, cx: &Context) -> Result<(Scratch, Catalog)> {
        let scratch = self.options.scratch("point")?;
        let artifacts = self.repo.artifacts(cx, self.manifest).await?;
        let catalog = Catalog::read(&*artifacts).await?;
        Ok((scratch, catalog))
    }
}
