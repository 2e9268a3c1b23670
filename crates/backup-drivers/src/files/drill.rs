//! The dress rehearsal of a restore: the files laid out, a private server started on them, its log
//! read, every table checked and read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::{
    ArtifactSource, Context, Error, ErrorKind, Finding, Flavor, Manifest, Restore, Result, Secret,
    Severity, Strategy, io_error,
};

use super::catalog::{Catalog, State};
use super::key_plugin::KeyPlugin;
use super::system::{System, in_one_directory};
use super::target::Room;
use crate::clone::CloneBackup;
use crate::connect::ConnectOptions;
use crate::logical::{Census, DrillReport, Selection};
use crate::sandbox::{Sandbox, SandboxBuilder, ServerInstall};

/// Crash recovery of a large directory takes its time.
const START: Duration = Duration::from_secs(3600);
/// How many tables are named with their digests in the report.
const NAMED: usize = 1000;
/// The setting that names the files of the system tablespace.
const DATA_FILE_PATH: &str = "innodb_data_file_path";
/// How many lines of the server's log are findings of their own.
const LINES: usize = 20;

/// Restores a file-level backup into [`data`] of `scratch`, an empty directory of its own, by `restore`,
/// and looks at all of it.
///
/// The private server of `install` takes no connection but ours, starts no replication and no events.
///
/// # Errors
/// When the drill could not be carried out: no room ([`has_room`]), no repository, or the run was cancelled. What is
/// wrong with the backup is in the report.
pub async fn drill(
    cx: &Context,
    install: &ServerInstall,
    scratch: &Path,
    manifest: &Manifest,
    artifacts: Arc<dyn ArtifactSource>,
    restore: &dyn Restore,
) -> Result<DrillReport> {
    let mut report = DrillReport {
        findings: Vec::new(),
        rows: 0,
        tables: None,
        emptied: Vec::new(),
        restored_in: Duration::ZERO,
        checked_in: Duration::ZERO,
    };
    let object = manifest.backup.as_str();
    let catalog = match Catalog::read(&*artifacts).await {
        Ok(catalog) => catalog,
        Err(e) => {
            report.findings.push(finding(object, e)?);
            return Ok(report);
        }
    };
    // That a key is not on this machine says nothing of the backup. What cannot be read the restore tells.
    let keys = match install.flavor() {
        Flavor::MariaDb => KeyPlugin::of(&*artifacts).await.ok().flatten(),
        Flavor::MySql => None,
    };
    if let Some(keys) = &keys {
        keys.find(install.plugins())?;
    }
    let unreadable = |said: &str| match install.flavor() {
        Flavor::MariaDb => no_keys(said, keys.as_ref()),
        // Keys that are with the files are taken over by a keyring of the drill's own.
        Flavor::MySql if catalog.header.settings.keys_in_files => None,
        Flavor::MySql => no_keyring(said),
    };
    let began = Instant::now();
    if let Err(e) = restore.run(cx, manifest, artifacts).await {
        // Room has no part in what is damaged.
        if e.kind() != ErrorKind::Damaged {
            has_room(scratch, &e.chain())?;
        }
        report.findings.push(finding(object, e)?);
        return Ok(report);
    }
    cx.phase(format!("starting {} {}", install.flavor(), install.version()));
    let mut on_files = OnFiles::new(install, scratch, &catalog);
    if install.flavor() == Flavor::MySql {
        // One that has no number replicates nothing: it does not look for relay logs, which are in no backup.
        on_files.options.push(("server_id", "0".to_owned()));
    }
    let opened = async {
        let recovered = on_files.recover(cx).await?;
        Ok::<_, Error>((recovered, on_files.open_recovered(cx).await?))
    };
    let (recovered, (mut sandbox, target)) = match opened.await {
        Ok(opened) => opened,
        Err(e) => {
            if let Some(e) = unreadable(&e.chain()) {
                return Err(e);
            }
            has_room(scratch, &e.chain())?;
            report.findings.push(finding(object, e)?);
            return Ok(report);
        }
    };
    report.restored_in = began.elapsed();
    let began = Instant::now();
    cx.phase("checking tables");
    let emptied = match manifest.strategy {
        Strategy::Clone => CloneBackup::left_empty(&target).await,
        _ => Ok(Vec::new()),
    };
    // Of some engines a clone leaves nothing that can be opened.
    let empty = emptied.iter().flatten().map(|left| left.table.clone()).collect();
    let census = Census::but_for(cx, &target, &Selection::default(), &empty).await;
    let log = std::fs::read_to_string(sandbox.error_log()).unwrap_or_default();
    let log = recovered + &log;
    // What the server says at its end does not matter; its data goes with it.
    sandbox.kill();
    if let Some(e) = unreadable(&log) {
        return Err(e);
    }
    report.findings.extend(complaints(object, &log));
    let bad = match &census {
        Ok(census) => census.findings.iter().map(|finding| finding.problem.clone()).collect(),
        Err(e) => vec![e.chain()],
    };
    if !cx.cancellation().is_cancelled() && (!report.findings.is_empty() || !bad.is_empty()) {
        has_room(scratch, &format!("{log}\n{}", bad.join("\n")))?;
    }
    match census {
        // A server that died of what it read is no failure of the drill.
        Err(e) if e.kind() == ErrorKind::Connect => {
            let problem = format!("the server went away while its tables were read: {}", e.chain());
            report.findings.push(damaged(object, problem));
        }
        // The server has nothing but the backup: what it cannot tell of its tables is wrong with that.
        Err(e) if e.kind() == ErrorKind::Source => {
            let problem = format!("the server cannot tell what is in the backup: {}", e.chain());
            report.findings.push(damaged(object, problem));
        }
        census => {
            let census = census?;
            report.emptied = emptied?;
            report.rows = census.rows();
            report.findings.extend(census.findings);
            for (name, digest) in census.tables.iter().take(NAMED) {
                let text = format!("{} rows, digest {digest}", digest.rows);
                report.findings.push(Finding::new(Severity::Info, name.to_string(), text, ""));
            }
            report.tables = Some(census.tables);
        }
    }
    report.checked_in = began.elapsed();
    Ok(report)
}

/// Where in `scratch` the files are that a private server is to start on.
#[must_use]
pub fn data(scratch: &Path) -> PathBuf {
    scratch.join("data")
}

/// A private server on restored files, that nobody else can reach and that does nothing by itself.
#[derive(Debug, Clone)]
pub struct OnFiles<'a> {
    /// What it runs.
    pub install: &'a ServerInstall,
    /// A private directory for everything that is none of the files.
    pub scratch: &'a Path,
    /// The files.
    pub data: PathBuf,
    /// What the backup says of them.
    pub catalog: &'a Catalog,
    /// Options of the server besides.
    pub options: Vec<(&'static str, String)>,
}

impl<'a> OnFiles<'a> {
    /// On the files in [`data`] of `scratch`.
    #[must_use]
    pub fn new(install: &'a ServerInstall, scratch: &'a Path, catalog: &'a Catalog) -> Self {
        OnFiles { install, scratch, data: data(scratch), catalog, options: Vec::new() }
    }

    /// Starts it, with an account for us.
    ///
    /// # Errors
    /// When the server does not start on the files.
    pub async fn open(&self, cx: &Context) -> Result<(Sandbox, ConnectOptions)> {
        self.recover(cx).await?;
        self.open_recovered(cx).await
    }

    async fn open_recovered(&self, cx: &Context) -> Result<(Sandbox, ConnectOptions)> {
        let access = Access::write(cx, self.scratch)?;
        let sandbox = self.start(cx, &access).await?;
        let target =
            ConnectOptions::socket(sandbox.socket(), &access.user).with_password(access.password);
        Ok((sandbox, target))
    }

    /// The option file that has the server load the plugin with the keys of encrypted files, and where that is, where
    /// the source has told of it, or the tool that has read the files, which had to load it itself.
    fn keys(&self) -> Result<Option<(PathBuf, PathBuf)>> {
        if self.install.flavor() != Flavor::MariaDb {
            return Ok(None);
        }
        let keys = match self.catalog.header.state {
            State::Unprepared => KeyPlugin::beside(&self.data)?,
            State::Clean | State::Crashed => KeyPlugin::told(&self.catalog.header.settings),
        };
        let Some(keys) = keys else { return Ok(None) };
        Ok(Some((keys.write_options(self.scratch)?, keys.find(self.install.plugins())?)))
    }

    /// The files of the system tablespace, as the backup says or as they are: never those of the source, where they
    /// may have been.
    fn system_files(&self) -> Result<Option<String>> {
        match self.catalog.header.settings.variables.get(DATA_FILE_PATH) {
            Some(told) => Ok(Some(in_one_directory(told))),
            None => Ok(System::within([&*self.data])?.as_ref().and_then(System::data_file_path)),
        }
    }

    async fn start(&self, cx: &Context, access: &Access) -> Result<Sandbox> {
        let init = access.file.to_string_lossy().into_owned();
        self.start_with(cx, move |builder| builder.option("init-file", init.as_str())).await
    }

    /// Starts it as the files need it, with what `more` says.
    pub(super) async fn start_with(
        &self,
        cx: &Context,
        more: impl Fn(SandboxBuilder) -> SandboxBuilder,
    ) -> Result<Sandbox> {
        let settings = &self.catalog.header.settings;
        let keys = self.keys()?;
        let files = self.system_files()?;
        let builder = |names: Option<u8>| {
            let mut builder: SandboxBuilder = Sandbox::builder(self.install)
                .datadir(&self.data)
                .directory(self.scratch)
                .durable(false)
                .binary_log(false)
                .keyring(settings.keys_in_files)
                .start_timeout(START)
                .flag("skip-slave-start")
                .option("event_scheduler", "OFF")
                // What the source was told by SET PERSIST was meant for it.
                .option("loose-persisted-globals-load", "OFF")
                .option("innodb_buffer_pool_size", "256M");
            if self.install.flavor() == Flavor::MariaDb {
                // Tables that are made in directories of the source come into its own: see `NO_DIR_IN_CREATE`.
                builder = builder.option("symbolic-links", "OFF");
            }
            if let Some((file, plugins)) = &keys {
                let plugins = plugins.to_string_lossy();
                builder = builder.option_file(file).option("plugin_dir", plugins);
            }
            if let Some(names) = names {
                builder = builder.option("lower_case_table_names", names.to_string());
            }
            if let Some(size) = settings.page_size {
                builder = builder.option("innodb_page_size", size.to_string());
            }
            for (name, value) in settings.variables.iter().filter(|(name, _)| shapes(name)) {
                builder = builder.option(name, value);
            }
            if let Some(files) = &files {
                builder = builder.option(DATA_FILE_PATH, files);
            }
            for (name, value) in &self.options {
                builder = builder.option(*name, value);
            }
            more(builder)
        };
        match builder(settings.lower_case_table_names).start(cx).await {
            // A stopped server does not tell this one; MySQL keeps it in its dictionary and refuses another.
            Err(e)
                if self.install.flavor() == Flavor::MySql
                    && settings.lower_case_table_names.is_none()
                    && e.chain().contains("lower_case_table_names") =>
            {
                builder(Some(1)).start(cx).await
            }
            started => started,
        }
    }
}

/// An account of our own at the private server, whose others are those of the source.
struct Access {
    user: String,
    password: Secret,
    /// Makes the account when the server starts; nobody else can read it.
    file: PathBuf,
}

impl Access {
    fn write(cx: &Context, scratch: &Path) -> Result<Access> {
        let hex = |bytes: [u8; 16]| -> String {
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let user = format!("holdfast_{}", &hex(cx.random())[..12]);
        // Of all kinds of characters, whatever rule the source has for passwords.
        let password = format!("aA1-{}", hex(cx.random()));
        let file = scratch.join("init.sql");
        let text = format!(
            "CREATE USER '{user}'@'localhost' IDENTIFIED BY '{password}';\n\
             GRANT ALL PRIVILEGES ON *.* TO '{user}'@'localhost' WITH GRANT OPTION;\n"
        );
        std::fs::write(&file, text).map_err(|e| {
            io_error(e, ErrorKind::Target, format!("cannot write {}", file.display()))
        })?;
        Ok(Access { user, password: Secret::new(password), file })
    }
}

/// Settings without which a server does not find or understand the files.
fn shapes(name: &str) -> bool {
    ["innodb_undo_tablespaces", "innodb_log_file_size"].contains(&name)
}

/// The error where a MariaDB says that it cannot read what is encrypted, for it has no keys or others: nothing is known
/// of the backup then. The checksums of such pages are of what is encrypted, and are looked at without any key.
fn no_keys(said: &str, keys: Option<&KeyPlugin>) -> Option<Error> {
    // A redo log that is decrypted by others is no log at all.
    let log = keys.is_some_and(KeyPlugin::encrypts_log);
    let lacks = |line: &&str| {
        line.contains("InnoDB: Encrypted page")
            || line.contains("encryption key management plugin")
            || log && (line.contains("Malformed log record") || line.contains("Log scan aborted"))
    };
    let line = said.lines().find(lacks)?;
    let (problem, remedy) = match keys {
        Some(keys) => (
            "the private server cannot read encrypted files of the backup",
            format!(
                "{}; whether pages are damaged `holdfast verify --level content` tells without any key",
                keys.remedy()
            ),
        ),
        None => (
            "files of the backup are encrypted, and it does not tell by which plugin",
            "start a server with that plugin and its keys on restored files; copies of the running server \
             (--lock-and-copy, or by its tool) know the plugin, and drills of them load it"
                .to_owned(),
        ),
    };
    Some(Error::new(ErrorKind::Target, format!("{problem}: {line}")).with_remedy(remedy))
}

/// The error where a MySQL says that it cannot read what is encrypted, for its keyring is none or another one: nothing is
/// known of the backup then.
fn no_keyring(said: &str) -> Option<Error> {
    let mut lines = said.lines().flat_map(|line| line.split(" | "));
    let line = lines.find(|line| line.contains("keyring") && line.contains("loaded"))?;
    let problem =
        "the private server has no keyring with the keys of encrypted files of the backup";
    Some(Error::new(ErrorKind::Target, format!("{problem}: {line}")).with_remedy(
        "name an installation of MySQL that has the source's keyring component and its keys with --server-dir; whether \
         pages are damaged `holdfast verify --level content` tells without any key",
    ))
}

/// What a private server makes besides the data that are restored: a redo log, temporary tables, undo. With less room
/// than that, whatever goes wrong may be for want of it.
const SPARE: u64 = 64 << 20;
/// What servers say of a disk that is full.
const FULL: [&str; 9] = [
    "no space left on device",
    "out of disk space",
    "disk is full",
    "disk full",
    "' is full",
    "error number 28",
    "errno: 28",
    "error: 28",
    "error 28",
];

/// Fails where a private server in `directory`, which is not what it should be, has or had no room there, as can be
/// seen or as it `said`: nothing is known of the backup then.
///
/// # Errors
/// [`ErrorKind::Space`].
pub fn has_room(directory: &Path, said: &str) -> Result<()> {
    let said = said.to_ascii_lowercase();
    let free = Room::of(directory)?.free;
    if free >= SPARE && !FULL.iter().any(|full| said.contains(full)) {
        return Ok(());
    }
    let problem = format!(
        "the private server had not enough room in {} ({free} bytes are free), which says nothing of the backup",
        directory.display()
    );
    Err(Error::new(ErrorKind::Space, problem)
        .with_remedy("make room there, or name a directory that has more with --scratch-dir"))
}

/// Errors in the log of a server that recovered.
fn complaints(object: &str, log: &str) -> Vec<Finding> {
    // The list of pages that were in memory is a help to begin with; a server may never have written one.
    let warm = |line: &str| line.contains("ib_buffer_pool") && line.contains("for reading");
    let bad =
        |line: &&str| line.contains("[ERROR]") && !warm(line) || line.contains("InnoDB: Assertion");
    log.lines()
        .filter(bad)
        .take(LINES)
        .map(|line| damaged(object, format!("the log of the server says: {line}")))
        .collect()
}

fn damaged(object: &str, problem: String) -> Finding {
    Finding::new(Severity::Error, object, problem, "restore another backup")
        .with_kind(ErrorKind::Damaged)
}

/// An error as a finding, if it is about the backup and not about the way there.
fn finding(object: &str, error: Error) -> Result<Finding> {
    match error.kind() {
        ErrorKind::Interrupted | ErrorKind::Connect | ErrorKind::Store | ErrorKind::Space => {
            Err(error)
        }
        kind => Ok(Finding::new(Severity::Error, object, error.chain(), error.remedy().to_owned())
            .with_kind(kind)),
    }
}

/// Whether a server can start on restored files without more ado.
#[must_use]
pub fn starts_by_itself(catalog: &Catalog) -> bool {
    catalog.header.state != State::Unprepared
}
