//! A backup by a tool, as a [`Backup`].

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{
    ArtifactSink, Backup, Consistency, ConsistencyLevel, Context, Error, ErrorKind, Event, Finding,
    Flavor, Outcome, Position, Result, SourceInfo, Strategy, io_error,
};
use tokio::io::{AsyncRead, ReadBuf};

use super::complete::{Tablespaces, refuse_imported, some};
use super::demux::{Demuxed, Owner, demux};
use super::details::{Parent, PhysicalDetails};
use super::history::Process;
use super::metadata::{Checkpoints, binlog_position, info_value};
use super::options::ToolOptions;
use super::preflight::look;
use super::run::{Log, Running};
use super::secret::Private;
use super::tool::Tool;
use crate::connect::{ConnectOptions, Endpoint, Session};
use crate::files::locked::no_position;
use crate::files::{CATALOG_FORMAT, Catalog, Header, Settings, State};
use crate::logical::inventory::{self, ServerFacts};
use crate::logical::logged_until;
use crate::xbstream::Dialect;

/// How long a tool whose output is at its end may take to end.
const GRACE: Duration = Duration::from_secs(20);

/// Reads the data files of a running server through the tool of its vendor, which must run on its host.
#[derive(Debug, Clone)]
pub struct PhysicalBackup {
    source: ConnectOptions,
    tool: Option<PathBuf>,
    directories: Vec<PathBuf>,
    options: ToolOptions,
    parent: Option<Parent>,
    /// What is to be said of the choice of the parent.
    remarks: Vec<String>,
}

/// What was found out before anything is run.
pub(super) struct Known {
    facts: ServerFacts,
    tool: Tool,
    pub(super) datadir: PathBuf,
    settings: Settings,
    log_bin: bool,
    process: Process,
}

impl PhysicalBackup {
    /// A full backup of `source` by `tool`, or the one that fits in `directories`.
    #[must_use]
    pub fn new(
        source: ConnectOptions,
        tool: Option<PathBuf>,
        directories: Vec<PathBuf>,
        options: ToolOptions,
    ) -> Self {
        PhysicalBackup { source, tool, directories, options, parent: None, remarks: Vec::new() }
    }

    /// Only what changed since `parent`, by the LSN of each page.
    #[must_use]
    pub fn since(mut self, parent: Parent) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Something to look at that is known before: it is told with the other warnings, and kept with them.
    #[must_use]
    pub fn remarking(mut self, text: impl Into<String>) -> Self {
        self.remarks.push(text.into());
        self
    }

    pub(super) fn source(&self) -> &ConnectOptions {
        &self.source
    }

    pub(super) fn options(&self) -> &ToolOptions {
        &self.options
    }

    /// The tool that would be run.
    pub(super) fn find_tool(&self, flavor: Flavor) -> Result<Tool> {
        Tool::find(flavor, self.tool.as_deref(), &self.directories)
    }

    pub(super) async fn examine(&self) -> Result<Known> {
        let mut session = Session::open(&self.source).await?;
        let facts = inventory::server(session.conn()).await?;
        let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('datadir', 'innodb_page_size', \
                   'innodb_data_file_path', 'innodb_undo_tablespaces', 'innodb_undo_directory', \
                   'innodb_data_home_dir', 'innodb_checksum_algorithm', 'log_bin')";
        let rows: Vec<(String, String)> = session.query_rows(sql).await?;
        let mut variables: BTreeMap<String, String> = rows.into_iter().collect();
        let datadir = PathBuf::from(variables.remove("datadir").unwrap_or_default());
        let log_bin = variables.remove("log_bin").is_some_and(|value| value == "ON");
        let page_size = variables.remove("innodb_page_size").and_then(|text| text.parse().ok());
        // Only what a server would not guess right.
        variables.retain(|name, value| {
            let usual = match name.as_str() {
                "innodb_data_file_path" => "ibdata1:12M:autoextend",
                "innodb_undo_directory" => "./",
                "innodb_undo_tablespaces" => return false,
                "innodb_checksum_algorithm" => return false,
                _ => "",
            };
            value != usual && !value.is_empty()
        });
        let sql = "SELECT PLUGIN_NAME, PLUGIN_LIBRARY FROM information_schema.PLUGINS \
                   WHERE PLUGIN_LIBRARY IS NOT NULL AND PLUGIN_STATUS = 'ACTIVE' ORDER BY 1";
        let plugins: Vec<(String, String)> = session.query_rows(sql).await?;
        let sql = "SHOW GLOBAL STATUS LIKE 'Innodb_lsn_current'";
        let lsn: Option<(String, u64)> = session.query_first(sql).await?;
        let process = Process::ask(&mut session, facts.flavor).await?;
        let tool = self.find_tool(facts.flavor)?;
        tool.check(&facts.version)?;
        self.check_host(&facts, &datadir)?;
        self.check_parent(&facts, &datadir, lsn.map(|(_, lsn)| lsn), &process)?;
        if let Some(parent) = self.parent.as_ref().filter(|_| facts.flavor == Flavor::MariaDb) {
            refuse_imported(&mut session, &datadir, parent).await?;
        }
        session.close().await?;
        let keyring = |name: &&(String, String)| {
            let name = name.0.to_ascii_lowercase();
            name.contains("key_management") || name.contains("keyring")
        };
        let keyring = plugins.iter().filter(keyring).map(|(name, _)| name.clone()).collect();
        let settings = Settings {
            page_size,
            lower_case_table_names: Some(facts.lower_case_table_names),
            variables,
            plugins: plugins
                .into_iter()
                .map(|(name, library)| format!("{name}={library}"))
                .collect(),
            keyring,
            keys_in_files: false,
            // It is in the tool's own option file.
            key_plugin: Vec::new(),
        };
        Ok(Known { facts, tool, datadir, settings, log_bin, process })
    }

    /// The tool copies files of this machine: those must be the server's.
    fn check_host(&self, facts: &ServerFacts, datadir: &Path) -> Result<()> {
        let elsewhere = |why: String| {
            Error::new(ErrorKind::Source, format!("the files of the server are not here: {why}"))
                .with_remedy("run holdfast on the host of the server, or take a logical backup")
        };
        let shown = datadir.display();
        std::fs::metadata(datadir.join("ibdata1"))
            .or_else(|_| {
                std::fs::read_dir(datadir).map(|_| ()).and_then(|()| std::fs::metadata(datadir))
            })
            .map_err(|e| match e.kind() {
                std::io::ErrorKind::PermissionDenied => io_error(
                    e,
                    ErrorKind::Source,
                    format!("cannot read the data directory {shown}"),
                )
                .with_remedy("run holdfast as the user of the server, or as root"),
                _ => elsewhere(format!("its data directory {shown} is not on this machine")),
            })?;
        if let Endpoint::Tcp { host, .. } = &self.source.endpoint {
            let local = matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1");
            let here = rustix::system::uname().nodename().to_string_lossy().into_owned();
            let there = facts.hostname.clone().unwrap_or_default();
            if !local && !there.is_empty() && there != here {
                return Err(elsewhere(format!("it runs on {there}, and this is {here}")));
            }
        }
        Ok(())
    }

    fn check_parent(
        &self,
        facts: &ServerFacts,
        datadir: &Path,
        lsn: Option<u64>,
        process: &Process,
    ) -> Result<()> {
        let Some(parent) = &self.parent else { return Ok(()) };
        let broken = |why: String| {
            Error::new(
                ErrorKind::Source,
                format!("an increment cannot go on from {}: {why}", parent.backup),
            )
            .with_remedy("take a full backup")
        };
        // What MariaDB calls its identity is made from the machine and the port, if there is one.
        let nameless = facts.flavor == Flavor::MariaDb;
        let other = nameless && parent.instance != instance(facts, datadir);
        if parent.server_uuid != facts.server_uuid || other {
            return Err(broken("it was read from another server".to_owned()));
        }
        if parent.version != facts.version_text {
            return Err(broken(format!(
                "the server was {} then, and is {} now",
                parent.version, facts.version_text
            )));
        }
        if let Some(lsn) = lsn.filter(|lsn| *lsn < parent.to_lsn) {
            return Err(broken(format!(
                "the server is at LSN {lsn}, and was at {} then: it was restored since, or is another one",
                parent.to_lsn
            )));
        }
        // Its LSN may have gone past that of the backup again since.
        let now = system_file(datadir);
        if parent.system_file.is_some() && now.is_some() && parent.system_file != now {
            return Err(broken("the files of the server were made anew since".to_owned()));
        }
        process.unproven(parent).map_or(Ok(()), |why| Err(broken(why)))
    }
}

#[async_trait]
impl Backup for PhysicalBackup {
    fn strategy(&self) -> Strategy {
        Strategy::Physical
    }

    async fn preflight(&self, _: &Context) -> Result<Vec<Finding>> {
        look(self).await
    }

    async fn run(&self, cx: &Context, sink: Arc<dyn ArtifactSink>) -> Result<Outcome> {
        let known = self.examine().await?;
        let owner = owner(&known.datadir)?;
        let private = Private::new(&self.source, known.tool.dialect())?;
        let arguments = self.options.backup_arguments(
            &known.tool,
            &private.options(),
            &private.work(),
            cx.threads(),
            self.parent.as_ref().map(|parent| parent.to_lsn),
        )?;
        let before = Tablespaces::of(&self.source, known.facts.flavor).await?;
        cx.phase("copying files");
        let mut running = Running::start(cx, &known.tool, &arguments)?;
        let (stdout, ended) = Watched::new(running.stdout()?);
        let overdue = running.overdue(self.options.lock_deadline);
        let read = tokio::select! {
            biased;
            error = overdue => Err(error),
            read = demux(cx, stdout, known.tool.dialect(), &sink, &owner) => read,
        };
        let (read, log) = match read {
            Ok(read) => (read, running.finish(cx).await?),
            Err(error) => {
                let ended = ended.load(Ordering::Relaxed);
                return Err(self.first_cause(&known, running, ended, error).await);
            }
        };
        drop(private);
        let (flavor, tool) = (known.facts.flavor, known.tool.name());
        before.check(&self.source, flavor, &tool, &read.entries).await?;
        self.conclude(cx, sink, known, read, log, before.last_table).await
    }
}

/// Adds the GTIDs that `mariadb-backup` leaves out of a position: it tells `gtid_current_pos`, which passes over what
/// another `server_id` wrote into the binary log by other means than replication (`mariadb-binlog | mariadb`). Gives a
/// warning where the server cannot tell them any more.
async fn all_gtids(source: &ConnectOptions, position: &mut Position) -> Result<Option<String>> {
    let (Some(file), Some(offset)) = (&position.file, position.offset) else { return Ok(None) };
    let mut session = Session::open(source).await?;
    let logged = logged_until(&mut session, file, offset).await?;
    session.close().await?;
    let Some(logged) = logged else {
        return Ok(Some(format!(
            "the server has its binary log {file} no more, so that GTIDs may be missing in the position: those of what \
             others than replication and the server itself wrote there"
        )));
    };
    let gtid = match &position.gtid {
        Some(told) => logged.union(told)?,
        None => logged,
    };
    position.gtid = Some(gtid).filter(|gtid| !gtid.is_empty());
    Ok(None)
}

impl PhysicalBackup {
    /// A tool that fails ends its stream too early: what it said is the cause. What the repository fails
    /// with is the cause of the tool's end, and so is what we do not understand of a stream that goes on.
    async fn first_cause(
        &self,
        known: &Known,
        running: Running,
        ended: bool,
        error: Error,
    ) -> Error {
        if error.kind() != ErrorKind::Damaged {
            let _ = running.end(Duration::ZERO).await;
            return error;
        }
        if !ended {
            let _ = running.end(Duration::ZERO).await;
            let what = format!("the stream of {} cannot be understood", known.tool.name());
            return Error::new(ErrorKind::Source, what).with_source(error).with_remedy(
                "take the backup again; report this with the versions of server and tool",
            );
        }
        // Its output is closed: it is at its end, and about to say why.
        let name = known.tool.name();
        let (status, log) = running.end(GRACE).await;
        match log.complaint(&name, status) {
            Some(complaint) => complaint,
            None => Error::new(
                ErrorKind::Source,
                format!("{name} says that it completed, but what it wrote is not whole"),
            )
            .with_source(error)
            .with_remedy("take the backup again; report this with the versions of server and tool"),
        }
    }

    /// All proofs, and what the manifest is to say.
    async fn conclude(
        &self,
        cx: &Context,
        sink: Arc<dyn ArtifactSink>,
        known: Known,
        read: Demuxed,
        log: Log,
        last_table: Option<u64>,
    ) -> Result<Outcome> {
        let Known { facts, tool, settings, datadir, log_bin, process } = known;
        let name = tool.name();
        let file = |names: [&str; 2]| names.iter().find_map(|name| read.metadata.get(*name));
        let incomplete = |what: String| {
            Error::new(ErrorKind::Source, format!("{name} says that it completed, but {what}"))
                .with_remedy(
                    "take the backup again; report this with the versions of server and tool",
                )
        };
        let checkpoints = file(["xtrabackup_checkpoints", "mariadb_backup_checkpoints"])
            .ok_or_else(|| incomplete("its checkpoints are not in the stream".to_owned()))?;
        let checkpoints = Checkpoints::parse(checkpoints).map_err(|e| incomplete(e.to_string()))?;
        let info = file(["xtrabackup_info", "mariadb_backup_info"])
            .ok_or_else(|| incomplete("its info file is not in the stream".to_owned()))?;
        let redo = ["ib_logfile0", "xtrabackup_logfile"];
        if !read.entries.iter().any(|entry| redo.contains(&entry.path.as_str())) {
            return Err(incomplete("no redo log is in the stream".to_owned()));
        }
        if checkpoints.last_lsn < checkpoints.to_lsn {
            return Err(incomplete(format!(
                "its redo log ends at {} before the checkpoint {}",
                checkpoints.last_lsn, checkpoints.to_lsn
            )));
        }
        let since = self.parent.as_ref().map_or(0, |parent| parent.to_lsn);
        let kind = if self.parent.is_some() { "incremental" } else { "full-backuped" };
        if checkpoints.from_lsn != since || checkpoints.backup_type != kind {
            return Err(incomplete(format!(
                "its backup is {} from LSN {}, and not {kind} from {since}",
                checkpoints.backup_type, checkpoints.from_lsn
            )));
        }
        if info_value(info, "partial").is_some_and(|partial| partial != "N") {
            return Err(incomplete("its backup is partial".to_owned()));
        }
        let said = info_value(info, "server_version").unwrap_or_default();
        if said.split('-').next() != facts.version_text.split('-').next() {
            return Err(incomplete(format!(
                "it read a server {said}, and we one of {}",
                facts.version_text
            )));
        }
        let mut position = match file(["xtrabackup_binlog_info", "mariadb_backup_binlog_info"]) {
            Some(text) => {
                binlog_position(text, facts.flavor).map_err(|e| incomplete(e.to_string()))?
            }
            None if log_bin => {
                let what = "its position in the binary log is not in the stream";
                return Err(incomplete(what.to_owned()));
            }
            None => Position::default(),
        };
        let mut warnings = self.remarks.clone();
        warnings.extend(log.warnings);
        if facts.flavor == Flavor::MariaDb {
            warnings.extend(all_gtids(&self.source, &mut position).await?);
        }
        warnings.extend(no_position(&position));
        if !read.reworked.is_empty() {
            let names = some(&read.reworked);
            warnings.push(format!(
                "{names} were renamed, emptied or made anew while they were read, which {name} is known to \
                 lose tables by that are not InnoDB's: prove this backup by a drill"
            ));
        }
        if let Some(first) = read.missing.first() {
            let more = match read.missing.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            warnings.push(format!(
                "{name} left out {first}{more}: tables cannot be opened without, so take the backup again"
            ));
        }
        warnings.extend(read.pages.judge(self.options.allow_bad_pages)?);
        let (major, minor, patch) = tool.version().own;
        let details = PhysicalDetails {
            tool: match tool.dialect() {
                Dialect::MariaDb => "mariadb-backup".to_owned(),
                Dialect::XtraBackup => "xtrabackup".to_owned(),
            },
            tool_version: format!("{major}.{minor}.{patch}"),
            instance: instance(&facts, &datadir),
            system_file: system_file(&datadir),
            from_lsn: checkpoints.from_lsn,
            to_lsn: checkpoints.to_lsn,
            last_lsn: checkpoints.last_lsn,
            last_table,
            server_started: process.started,
            binlog_tail: process.tail(&position),
            sound_pages: read.pages.sound,
            encrypted_pages: read.pages.encrypted,
            bad_pages: read.pages.bad.clone(),
            replica_position: file(["xtrabackup_slave_info", "mariadb_backup_slave_info"]).cloned(),
            galera_position: file(["xtrabackup_galera_info", "mariadb_backup_galera_info"])
                .cloned(),
        };
        let tablespaces = read.entries.iter().filter(|entry| entry.page_size.is_some()).count();
        let files =
            read.entries.iter().filter(|entry| entry.kind == crate::files::Kind::File).count();
        let objects = BTreeMap::from([
            ("files".to_owned(), files as u64),
            ("tablespaces".to_owned(), tablespaces as u64),
        ]);
        let header = Header {
            files_format: CATALOG_FORMAT,
            state: State::Unprepared,
            settings,
            left_out: Vec::new(),
        };
        Catalog { header, entries: read.entries }.write(&*sink).await?;
        for text in &warnings {
            cx.event(Event::Warning { text: text.clone() });
        }
        let how = match facts.flavor {
            Flavor::MariaDb => "BACKUP STAGE",
            Flavor::MySql => "the locks of xtrabackup",
        };
        Ok(Outcome {
            source: SourceInfo {
                flavor: facts.flavor,
                version: facts.version_text.clone(),
                address: self.source.endpoint.to_string(),
                server_uuid: facts.server_uuid.clone(),
                server_id: facts.server_id,
                hostname: facts.hostname.clone(),
            },
            position,
            consistency: Consistency {
                level: ConsistencyLevel::Exact,
                reason: format!(
                    "{name} brought all files to the recorded position, by {how} and the redo log"
                ),
            },
            lock_seconds: log.locked.as_secs_f64(),
            rows: None,
            objects,
            masked: false,
            partial: false,
            warnings,
            details: serde_json::to_value(details)
                .map_err(|e| Error::internal("the details cannot be written").with_source(e))?,
        })
    }
}

/// Which server it is, as far as one without an identity can be told.
fn instance(facts: &ServerFacts, datadir: &Path) -> String {
    let host = facts.hostname.as_deref().unwrap_or_default();
    format!("{host}:{} {}", datadir.display(), facts.server_id)
}

/// Output of a tool, which knows whether its end was seen.
struct Watched<R> {
    inner: R,
    ended: Arc<AtomicBool>,
}

impl<R> Watched<R> {
    fn new(inner: R) -> (Self, Arc<AtomicBool>) {
        let ended = Arc::new(AtomicBool::new(false));
        (Watched { inner, ended: Arc::clone(&ended) }, ended)
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Watched<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = read
            && buffer.filled().len() == before
            && buffer.remaining() > 0
        {
            self.ended.store(true, Ordering::Relaxed);
        }
        read
    }
}

/// Number and time of the making of the file that no server runs without.
fn system_file(datadir: &Path) -> Option<String> {
    let metadata = std::fs::metadata(datadir.join("ibdata1")).ok()?;
    let made = metadata.created().ok();
    let made = made.and_then(|made| made.duration_since(std::time::UNIX_EPOCH).ok());
    Some(format!("{} {}", metadata.ino(), made.unwrap_or_default().as_nanos()))
}

/// The data directory tells whom its files belong to.
fn owner(datadir: &Path) -> Result<Owner> {
    let metadata = std::fs::metadata(datadir).map_err(|e| {
        io_error(e, ErrorKind::Source, format!("cannot look at {}", datadir.display()))
    })?;
    let name = |file: &str, number: u32| {
        let text = std::fs::read_to_string(file).ok()?;
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(number)).then(|| name.to_owned())
        })
    };
    Ok(Owner {
        uid: metadata.uid(),
        gid: metadata.gid(),
        owner: name("/etc/passwd", metadata.uid()),
        group: name("/etc/group", metadata.gid()),
        datadir: datadir.to_owned(),
    })
}
