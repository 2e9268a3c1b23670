//! Drills: a backup restored into a private server of its own version, and everything looked at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{
    ArtifactSource, BackupChain, Chain, Context, Error, ErrorKind, Finding, Flavor, Level,
    Manifest, Report, Repository, Restore, Result, ServerVersion, Severity, Verifier, io_error,
};
use backup_drivers::clone::{Emptied, Flags};
use backup_drivers::connect::ConnectOptions;
use backup_drivers::files::{self, FilesRestore, FilesRestoreOptions};
use backup_drivers::logical::{Catalog, DrillReport, IdleSource, TableName, drill};
use backup_drivers::physical::{self, Link, PhysicalRestore};
use backup_drivers::sandbox::{Sandbox, SandboxBuilder, Scratch, ServerInstall};
use backup_storage::Repo;

/// Where installations of servers are looked for when none is named.
const USUAL_PLACES: [&str; 5] =
    ["/usr", "/usr/local/mysql", "/usr/local", "/opt/mysql", "/opt/mariadb"];

/// What is installed there.
fn usual_installs() -> impl Iterator<Item = ServerInstall> {
    let places = USUAL_PLACES.iter().filter(|place| Path::new(place).is_dir());
    places.filter_map(|place| ServerInstall::detect(place).ok())
}

/// A server may take long to start on a machine that has other work.
const START: Duration = Duration::from_secs(300);

/// How drills are held.
#[derive(Debug, Clone, Default)]
pub struct DrillOptions {
    /// The installation to run, see [`ServerInstall::detect`]; without one, that of this machine.
    pub server: Option<PathBuf>,
    /// Where the private server keeps its data, about as much as the source has; without it, where
    /// the operating system has temporary files.
    pub directory: Option<PathBuf>,
    /// What commands in remedies repeat.
    pub flags: Flags,
}

/// Restores a backup into a private server and proves that it is what was backed up: every row by
/// count and digest, every table by `CHECK TABLE`, every definition.
#[derive(Clone, Default)]
pub struct DrillVerifier {
    options: DrillOptions,
    /// Has what an increment needs before it.
    repo: Option<Arc<Repo>>,
    /// What the tables of a backup of data files have to hold, where that is known.
    source: Option<Arc<IdleSource>>,
    /// In what they differ from that.
    differences: Differences,
}

/// In what a backup differs from its source. It is no part of the proof: that a source was changed where no binary
/// log tells of it says nothing against the backup.
pub(crate) type Differences = Arc<Mutex<Vec<Finding>>>;

impl DrillVerifier {
    /// A drill as `options` say.
    #[must_use]
    pub fn new(options: DrillOptions) -> Self {
        DrillVerifier { options, ..DrillVerifier::default() }
    }

    /// One for backups of `repo`, increments among them.
    #[must_use]
    pub fn of(self, repo: &Arc<Repo>) -> Self {
        DrillVerifier { repo: Some(Arc::clone(repo)), ..self }
    }

    /// One that compares the tables of a backup of data files with those of its source.
    pub(crate) fn compared_with(self, source: IdleSource, differences: &Differences) -> Self {
        let differences = Arc::clone(differences);
        DrillVerifier { source: Some(Arc::new(source)), differences, ..self }
    }
}

impl DrillOptions {
    /// The server of the backup's series.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) when there is none.
    pub(crate) fn install(&self, backup: &Manifest) -> Result<ServerInstall> {
        let source = &backup.outcome.source;
        let wanted = ServerVersion::parse(&source.version, "")?;
        let fits = |install: &ServerInstall| {
            let version = ServerVersion::parse(install.version(), "");
            install.flavor() == source.flavor
                && version.is_ok_and(|v| v.series() == wanted.series())
        };
        let (major, minor) = wanted.series();
        let needed = format!("{} {major}.{minor}", source.flavor);
        let remedy = format!("name an installation of {needed} with --server-dir");
        if let Some(directory) = &self.server {
            let install = ServerInstall::detect(directory)?;
            if fits(&install) {
                return Ok(install);
            }
            let (flavor, version) = (install.flavor(), install.version());
            return Err(Error::usage(format!(
                "{} is {flavor} {version}, and the backup is of {needed}",
                directory.display()
            ))
            .with_remedy(remedy));
        }
        usual_installs().find(fits).ok_or_else(|| {
            Error::usage(format!("this machine has no {needed} to start")).with_remedy(remedy)
        })
    }

    /// The server that is named, or the first of this machine.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) when there is none.
    pub fn any_install(&self) -> Result<ServerInstall> {
        match &self.server {
            Some(directory) => ServerInstall::detect(directory),
            None => usual_installs().next().ok_or_else(|| {
                Error::usage("this machine has no server")
                    .with_remedy("name its installation with --server-dir")
            }),
        }
    }

    /// Where private servers keep their data.
    fn parent(&self) -> Result<PathBuf> {
        match &self.directory {
            Some(named) if !named.is_dir() => {
                Err(Error::usage(format!("there is no directory {}", named.display()))
                    .with_remedy("make it, or name another one with --scratch-dir"))
            }
            Some(named) => Ok(named.clone()),
            None => {
                let usual = std::env::temp_dir();
                if !usual.is_dir() {
                    return Err(Error::usage(format!("there is no directory {}", usual.display()))
                        .with_remedy(
                            "make it, set TMPDIR to another one, or name one with --scratch-dir",
                        ));
                }
                Ok(usual)
            }
        }
    }

    /// A new directory in which a private server has what is its own; gone when it is dropped, or with the next one
    /// where this process was killed. `what` is a part of its name.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where the directory that was named is not there, [`ErrorKind::Target`] or
    /// [`ErrorKind::Space`] where nothing can be written to it.
    pub(crate) fn scratch(&self, what: &str) -> Result<Scratch> {
        let parent = self.parent()?;
        Scratch::new(&parent, what).map_err(|e| {
            io_error(e, ErrorKind::Target, format!("cannot write to {}", parent.display()))
        })
    }

    /// Starts a server that takes whatever the source held, and does nothing by itself.
    pub(crate) async fn start(
        &self,
        cx: &Context,
        install: &ServerInstall,
        lower_case_table_names: u8,
        describe: impl FnOnce(SandboxBuilder) -> SandboxBuilder,
    ) -> Result<Sandbox> {
        let names = lower_case_table_names.to_string();
        let mut builder = Sandbox::builder(install)
            .durable(false)
            .binary_log(false)
            .start_timeout(START)
            .option("lower_case_table_names", names)
            .option("event_scheduler", "OFF")
            .option("local_infile", "ON")
            .option("max_allowed_packet", "1G")
            .option("innodb_buffer_pool_size", "256M")
            .option("innodb_strict_mode", "OFF");
        builder = match install.flavor() {
            Flavor::MySql => builder.option("innodb_redo_log_capacity", "1G"),
            Flavor::MariaDb => {
                builder.option("innodb_log_file_size", "512M").option("symbolic-links", "OFF")
            }
        };
        if self.directory.is_some() {
            builder = builder.directory(self.parent()?);
        }
        describe(builder).start(cx).await
    }
}

impl DrillVerifier {
    /// How the files of a backup come into a directory, ready for a server.
    async fn restore(
        &self,
        cx: &Context,
        install: &ServerInstall,
        scratch: &Path,
        backup: &Manifest,
        artifacts: &Arc<dyn ArtifactSource>,
    ) -> Result<Box<dyn Restore>> {
        let (data, options) = (files::data(scratch), FilesRestoreOptions::default());
        let prepared =
            files::Catalog::read(&**artifacts).await.is_ok_and(|c| files::starts_by_itself(&c));
        // What cannot be read the drill reports.
        if prepared || physical::details(backup).is_err() {
            return Ok(Box::new(FilesRestore::new(data, options)));
        }
        let mut before = Vec::new();
        if let (Some(repo), Some(_)) = (&self.repo, &backup.parent) {
            let listed = repo.backups(cx, Some(&backup.cluster)).await?;
            let known: Vec<Manifest> = listed.into_iter().filter_map(|l| l.manifest.ok()).collect();
            let chain = BackupChain::to(backup, &known);
            chain.check()?;
            let links = chain.links();
            for link in &links[..links.len() - 1] {
                let artifacts = repo.artifacts(cx, link).await?;
                before.push(Link { manifest: link.clone(), artifacts });
            }
        }
        // The tool of the server that the drill is held with.
        let tool = install.base().parent().unwrap_or(install.base()).to_owned();
        Ok(Box::new(PhysicalRestore::new(data, options, Some(tool), Vec::new()).after(before)))
    }

    /// The drill of a backup of data files.
    async fn files(
        &self,
        cx: &Context,
        install: &ServerInstall,
        backup: &Manifest,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<Report> {
        let scratch = self.options.scratch("drill")?;
        // What cannot be read the drill reports.
        let catalog = files::Catalog::read(&*artifacts).await.ok();
        let mut emptied =
            catalog.map(|catalog| Emptied::of(backup, &catalog).with_flags(&self.options.flags));
        let report = {
            let restore = self.restore(cx, install, scratch.path(), backup, &artifacts).await?;
            files::drill(cx, install, scratch.path(), backup, artifacts, &*restore).await?
        };
        if let Some(emptied) = emptied.as_mut().filter(|_| report.tables.is_some()) {
            // Some the account that took the clone may not have seen.
            emptied.tables.clone_from(&report.emptied);
        }
        let mut findings = vec![summary(backup, install, &report)];
        findings.extend(report.findings);
        findings.extend(emptied.as_ref().and_then(Emptied::finding));
        if let (Some(source), Some(tables)) = (&self.source, &report.tables) {
            let empty = emptied.into_iter().flat_map(|emptied| emptied.tables);
            let empty: BTreeSet<TableName> = empty.map(|left| left.table).collect();
            let compared = source.compare(backup.backup.as_str(), tables, &empty);
            let (differences, same): (Vec<Finding>, Vec<Finding>) =
                compared.into_iter().partition(|finding| finding.severity == Severity::Error);
            findings.extend(same);
            self.differences.lock().unwrap_or_else(PoisonError::into_inner).extend(differences);
        }
        Ok(Report::new(Level::Drill, findings))
    }
}

#[async_trait]
impl Verifier for DrillVerifier {
    fn level(&self) -> Level {
        Level::Drill
    }

    async fn verify(
        &self,
        cx: &Context,
        backup: &Manifest,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<Report> {
        let install = self.options.install(backup)?;
        if backup.strategy.has_data_files() {
            return self.files(cx, &install, backup, artifacts).await;
        }
        // What is wrong with it the drill says.
        let catalog = Catalog::read(&*artifacts).await.ok();
        let names = catalog.as_ref().map_or(0, |catalog| catalog.header.lower_case_table_names);
        let libraries = catalog.map(|catalog| engine_libraries(&install, &catalog));
        cx.phase(format!("starting {} {}", install.flavor(), install.version()));
        let load = |builder| with_libraries(builder, libraries.into_iter().flatten());
        let mut sandbox = match self.options.start(cx, &install, names, load).await {
            Err(e) if e.kind() == ErrorKind::Target => {
                files::has_room(&self.options.parent()?, &e.chain())?;
                return Err(e);
            }
            started => started?,
        };
        let target = ConnectOptions::socket(sandbox.socket(), "root");
        let report = drill(cx, &target, backup, artifacts).await;
        let log = std::fs::read_to_string(sandbox.error_log()).unwrap_or_default();
        // What the server says at its end does not matter; its data goes with it.
        sandbox.kill();
        let bad: Vec<String> = match &report {
            Ok(report) => report
                .findings
                .iter()
                .filter(|finding| finding.severity == Severity::Error)
                .map(|finding| finding.problem.clone())
                .collect(),
            Err(e) => vec![e.chain()],
        };
        if !bad.is_empty() && !cx.cancellation().is_cancelled() {
            files::has_room(sandbox.directory(), &format!("{log}\n{}", bad.join("\n")))?;
        }
        let report = report?;
        let mut findings = vec![summary(backup, &install, &report)];
        findings.extend(report.findings);
        Ok(Report::new(Level::Drill, findings))
    }
}

/// The libraries of the engines that the tables of a catalogue have, where they are no part of the server.
pub(crate) fn engine_libraries(install: &ServerInstall, catalog: &Catalog) -> BTreeSet<String> {
    install.engine_libraries(catalog.tables.iter().map(|table| table.engine.as_str()))
}

/// A private server that loads them.
pub(crate) fn with_libraries(
    builder: SandboxBuilder,
    libraries: impl IntoIterator<Item = String>,
) -> SandboxBuilder {
    libraries
        .into_iter()
        .fold(builder, |builder, library| builder.option("plugin_load_add", library))
}

/// What the drill took, for whoever has to plan a real restore.
fn summary(backup: &Manifest, install: &ServerInstall, report: &DrillReport) -> Finding {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let gigabytes = backup.totals.bytes_read as f64 / 1e9;
    let (restored, checked) = (report.restored_in.as_secs_f64(), report.checked_in.as_secs_f64());
    // Figures of a few megabytes say nothing about gigabytes.
    let per_gigabyte = match gigabytes >= 0.01 {
        true => format!(", {:.0} s per GB", restored / gigabytes),
        false => String::new(),
    };
    let text = format!(
        "restored into {} {} and read back in {restored:.1} s{per_gigabyte} ({gigabytes:.3} GB, {} rows); \
         everything was looked at once more in {checked:.1} s",
        install.flavor(),
        install.version(),
        report.rows
    );
    Finding::new(Severity::Info, backup.backup.as_str(), text, "")
}
