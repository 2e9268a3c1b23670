//! The copy of a server that is stopped.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ArtifactSink, Backup, BinlogServer, Consistency, ConsistencyLevel, Context, Error, ErrorKind,
    Event, Finding, Flavor, GtidSet, Outcome, Position, Result, Severity, SourceInfo, Strategy,
    io_error,
};

use super::absent::{self, Dictionary};
use super::catalog::{CATALOG_FORMAT, Catalog, Header, Settings, State};
use super::copy::{Held, Was, copy_in};
use super::directory::DataDirectory;
use super::elsewhere;
use super::idle;
use super::left_out::{unexpected, unexpected_finding};
use super::redo::{self, Redo};
use super::system::{self, System};
use super::tree::Tree;
use super::unclosed::unclosed;
use crate::binlog::{BinlogEnd, binlog_end};
use crate::innodb::{CopiedPages, gtid_executed};

/// How a stopped server is copied.
#[derive(Debug, Clone, Copy, Default)]
pub struct ColdOptions {
    /// Copies a server that was not shut down in order too: it crashed, or was killed.
    pub allow_unclean: bool,
    /// Goes on where a page is damaged.
    pub allow_bad_pages: bool,
}

/// Copies the files of a stopped server.
#[derive(Debug, Clone)]
pub struct ColdBackup {
    source: DataDirectory,
    options: ColdOptions,
}

/// What a stopped server tells of itself.
struct Facts {
    redo: Redo,
    /// Why it was not shut down in order, or that cannot be said.
    unclean: Option<String>,
    /// The end of its binary logs, and why it is not known.
    binlogs: Result<Option<BinlogEnd>>,
    /// Why the GTIDs of that end are not known, where they are not.
    no_gtids: Option<String>,
}

/// Adds to the end of the binary logs of a MySQL what it has executed and they do not tell of: what it was restored
/// with, or replicated without logging it. Gives why that is not known.
fn add_executed(datadir: &Path, clean: bool, end: &mut Position) -> Option<String> {
    let of_logs = end.gtid.take().unwrap_or_else(|| GtidSet::empty(Flavor::MySql));
    let path = datadir.join("mysql.ibd");
    let failed = |e| io_error(e, ErrorKind::Source, "mysql.gtid_executed cannot be read");
    let table = std::fs::File::open(path).map_err(failed).and_then(|mut f| gtid_executed(&mut f));
    let known = table.and_then(|table| {
        // What a killed server had not written yet is in its redo log alone.
        if !clean && !table.is_subset(&of_logs)? {
            return Err(Error::new(
                ErrorKind::Source,
                "the server was not shut down in order, and has executed transactions that its binary logs do not \
                 tell of",
            ));
        }
        of_logs.union(&table)
    });
    match known {
        Ok(all) => {
            end.gtid = Some(all).filter(|all| !all.is_empty());
            None
        }
        Err(e) => {
            end.gtid_unknown = true;
            Some(e.chain())
        }
    }
}

impl ColdBackup {
    /// A copy of `source`.
    #[must_use]
    pub fn new(source: DataDirectory, options: ColdOptions) -> Self {
        ColdBackup { source, options }
    }

    /// Keeps servers off. Lost as soon as anything else closes one of these files.
    fn hold(&self) -> Result<Held> {
        let mut held = Held::default();
        for root in self.source.roots() {
            held.0.extend(idle::hold(&root.directory)?.0);
        }
        Ok(held)
    }

    /// What the last server left: what it says of itself, and its files.
    fn look(&self) -> Result<(Facts, Tree)> {
        let path = &self.source.path;
        std::fs::read_dir(path).map_err(|e| {
            io_error(e, ErrorKind::Source, format!("cannot read {}", path.display()))
        })?;
        self.hold()?;
        redo::files(self.source.redo())?;
        let roots = self.source.roots();
        let system = System::within(roots.iter().map(|root| &*root.directory))?;
        let system = system.and_then(|system| system.files.into_iter().next());
        let system = system.ok_or_else(|| system::none_in(self.source.data()))?;
        let mut redo = Redo::read(self.source.redo(), &system.source)?;
        let mut binlogs = binlog_end(self.source.binlogs.as_deref().unwrap_or(path));
        // InnoDB may have had nothing left to write when it was killed, other engines all the same.
        let open_log = match &binlogs {
            Ok(Some(BinlogEnd { in_use: true, position, .. })) => position.file.as_deref(),
            _ => None,
        };
        let unclean = redo.unclean.take().or_else(|| {
            open_log.map(|file| format!("its last binary log, {file}, was not closed"))
        });
        // A server that was killed decides by its binary log which transactions it had committed.
        let tree = Tree::walk(&roots, unclean.is_some())?;
        let unclean = match unclean {
            None => unclosed(&tree)?,
            known => known,
        };
        let no_gtids = match &mut binlogs {
            Ok(Some(end)) if redo.flavor == Flavor::MySql => {
                add_executed(path, unclean.is_none(), &mut end.position)
            }
            _ => None,
        };
        Ok((Facts { redo, unclean, binlogs, no_gtids }, tree))
    }
}

/// Why there is no position.
const NO_BINLOGS: &str =
    "there are no binary logs in the directory: nothing after this backup can be restored";
/// What is left to do where GTIDs are not known.
const NO_GTIDS: &str = "restores to a point need a server on the restored files first, which knows; then `holdfast \
                        binlog apply`";

fn no_gtids(why: &str) -> String {
    format!("which transactions the server has executed is not known: {why}")
}

/// What is to be said where a MySQL was killed and its doublewrite files are not there, which are files of their own since
/// 8.0.20, in the data directory or `innodb_doublewrite_dir`.
fn no_doublewrite(facts: &Facts, tree: &Tree) -> Option<(String, &'static str)> {
    let numbers =
        facts.redo.version.split(['.', '-', ' ']).map_while(|part| part.parse::<u32>().ok());
    let own_files = facts.redo.flavor == Flavor::MySql && numbers.ge([8, 0, 20]);
    let is_one = |path: &str| path.starts_with("#ib_") && path.ends_with(".dblwr");
    let there = tree.found.iter().any(|found| is_one(&found.entry.path));
    (facts.unclean.is_some() && own_files && !there).then(|| {
        let problem = "there are no doublewrite files (#ib_….dblwr, innodb_doublewrite_dir) in the directories: pages \
                       that were half written when the server was killed cannot be mended";
        (problem.to_owned(), "name their directory: file:///var/lib/mysql?also=/DIR")
    })
}

/// Where nothing can be said of files that are missing.
const UNREAD: &str =
    "the dictionary is encrypted or damaged: whether tablespaces are missing cannot be seen";

/// What the files of the server lack.
fn lacking(tree: &Tree) -> Result<Dictionary> {
    let mut told = Dictionary::read(tree)?;
    told.missing.extend(absent::of_definitions(tree)?);
    Ok(told)
}

/// The same where the server was killed: the last of what it did may be in its redo log alone.
fn perhaps_absent(lacking: &[String]) -> Option<String> {
    absent::told(lacking).map(|problem| {
        format!(
            "{problem}, unless it was just dropping or making them: prove this backup by a drill"
        )
    })
}

fn unclean(problem: &str) -> (String, &'static str) {
    (
        format!("the server was not shut down in order: {problem}"),
        "start it and stop it in order (innodb_fast_shutdown=0 or 1), or copy it as it is with \
         --allow-unclean: then InnoDB recovers when it is restored, and other tables may need repair",
    )
}

#[async_trait]
impl Backup for ColdBackup {
    fn strategy(&self) -> Strategy {
        Strategy::Physical
    }

    async fn preflight(&self, _: &Context) -> Result<Vec<Finding>> {
        let (facts, tree) = self.look()?;
        let mut findings = vec![Finding::new(
            Severity::Info,
            "server",
            format!("{} {}, stopped", facts.redo.flavor, facts.redo.version),
            "",
        )];
        if let Some(problem) = &facts.unclean {
            let severity = match self.options.allow_unclean {
                true => Severity::Warning,
                false => Severity::Error,
            };
            let (problem, remedy) = unclean(problem);
            findings.push(
                Finding::new(severity, "shutdown", problem, remedy).with_kind(ErrorKind::Source),
            );
        }
        if let Some((problem, remedy)) = no_doublewrite(&facts, &tree) {
            findings.push(Finding::new(Severity::Warning, "files", problem, remedy));
        }
        if let Some(why) = &facts.no_gtids {
            findings.push(Finding::new(Severity::Warning, "position", no_gtids(why), NO_GTIDS));
        }
        findings.extend(unexpected_finding(&tree.left_out));
        match elsewhere::check(&tree) {
            Ok(unseen) => findings.extend(unseen.map(|unseen| {
                let remedy =
                    "name their directories, if there are any: file:///var/lib/mysql?also=/DIR";
                Finding::new(Severity::Warning, "files", unseen, remedy)
            })),
            Err(e) => findings.push(
                Finding::new(Severity::Error, "files", e.chain(), e.remedy()).with_kind(e.kind()),
            ),
        }
        let Dictionary { missing: lacking, exchanged, unread } = lacking(&tree)?;
        if unread {
            let remedy = "prove the backup by a drill";
            findings.push(Finding::new(Severity::Info, "files", UNREAD, remedy));
        }
        match facts.unclean {
            None => findings.extend(absent::refuse(&lacking).err().map(|e| {
                let finding = Finding::new(Severity::Error, "files", e.chain(), e.remedy());
                finding.with_kind(e.kind())
            })),
            Some(_) => findings.extend(perhaps_absent(&lacking).map(|problem| {
                Finding::new(Severity::Warning, "files", problem, "prove the backup by a drill")
            })),
        }
        if let Some(first) = exchanged.first().filter(|_| facts.unclean.is_none()) {
            let severity = match self.options.allow_bad_pages {
                true => Severity::Warning,
                false => Severity::Error,
            };
            let remedy =
                "bring the table back from an earlier backup; --allow-bad-pages copies it as it is";
            let finding = Finding::new(severity, "files", first.clone(), remedy);
            findings.push(finding.with_kind(ErrorKind::Source));
        }
        let missing = match &facts.binlogs {
            Ok(Some(_)) => None,
            Ok(None) => Some(NO_BINLOGS.to_owned()),
            Err(e) => Some(format!("{}: nothing after this backup can be restored", e.chain())),
        };
        if let Some(problem) = missing {
            findings.push(Finding::new(
                Severity::Warning,
                "position",
                problem,
                "where they are elsewhere, name that: file:///var/lib/mysql?binlogs=/directory",
            ));
        }
        Ok(findings)
    }

    async fn run(&self, cx: &Context, sink: Arc<dyn ArtifactSink>) -> Result<Outcome> {
        let (facts, tree) = self.look()?;
        if let Some(problem) = facts.unclean.as_ref().filter(|_| !self.options.allow_unclean) {
            let (problem, remedy) = unclean(problem);
            return Err(Error::new(ErrorKind::Source, problem).with_remedy(remedy));
        }
        let crashed = facts.unclean.is_some();
        if let Some(unseen) = elsewhere::check(&tree)? {
            cx.note(unseen);
        }
        let Dictionary { missing: lacking, exchanged, unread } = lacking(&tree)?;
        if unread {
            cx.note(UNREAD);
        }
        let perhaps_absent = match crashed {
            true => perhaps_absent(&lacking),
            false => absent::refuse(&lacking).map(|()| None)?,
        };
        cx.phase("copying files");
        // Only now, for what was looked at would have taken the locks away. What ran in between is seen at the end.
        let held = self.hold()?;
        let was = if crashed { Was::Busy } else { Was::Still };
        let mut pages = copy_in(cx, &tree, &sink, &held, was).await?;
        drop(held);
        if !crashed {
            pages.bad.splice(0..0, exchanged);
        }
        tree.check_unchanged(&self.source.roots(), crashed)?;
        let doublewrite = no_doublewrite(&facts, &tree);
        let bad_pages = match crashed {
            true => pages.perhaps_torn(doublewrite.is_none()),
            false => pages.judge(self.options.allow_bad_pages)?,
        };
        let system = tree.system.as_ref();
        let files = system.and_then(System::data_file_path);
        let variables = files.map(|files| ("innodb_data_file_path".to_owned(), files));
        let catalog = Catalog {
            header: Header {
                files_format: CATALOG_FORMAT,
                state: if crashed { State::Crashed } else { State::Clean },
                settings: Settings {
                    page_size: system.map(|system| system.geometry.page_bytes),
                    variables: variables.into_iter().collect(),
                    keyring: keyring(&self.source.path),
                    ..Settings::default()
                },
                left_out: tree.left_out.clone(),
            },
            entries: tree.found.iter().map(|found| found.entry.clone()).collect(),
        };
        catalog.write(&*sink).await?;
        let doublewrite = doublewrite.map(|(problem, _)| problem);
        let more = perhaps_absent.into_iter().chain(bad_pages).chain(doublewrite).collect();
        Ok(self.outcome(cx, facts, &catalog, &pages, more))
    }
}

impl ColdBackup {
    fn outcome(
        &self,
        cx: &Context,
        facts: Facts,
        catalog: &Catalog,
        pages: &CopiedPages,
        more: Vec<String>,
    ) -> Outcome {
        let mut warnings = Vec::new();
        let end = facts.binlogs.unwrap_or_else(|e| {
            warnings.push(format!("the position is not known: {}", e.chain()));
            None
        });
        if end.is_none() && warnings.is_empty() {
            warnings.push(format!("the position is not known, for {NO_BINLOGS}"));
        }
        if let Some(why) = &facts.no_gtids {
            warnings.push(format!("{} ({NO_GTIDS})", no_gtids(why)));
        }
        let (level, reason) = match &facts.unclean {
            None => (
                ConsistencyLevel::Exact,
                "the server was shut down in order, and its files did not change while they were \
                 copied"
                    .to_owned(),
            ),
            Some(problem) => {
                let (problem, _) = unclean(problem);
                warnings.push(problem.clone());
                let reason = format!("{problem}; tables that are not InnoDB's may be damaged");
                (ConsistencyLevel::Transactional, reason)
            }
        };
        warnings.extend(more);
        warnings.extend(unexpected(&catalog.header.left_out));
        for text in &warnings {
            cx.event(Event::Warning { text: text.clone() });
        }
        Outcome {
            source: SourceInfo {
                flavor: facts.redo.flavor,
                version: version(&facts.redo, end.as_ref()),
                address: self.source.to_string(),
                server_uuid: match facts.redo.flavor {
                    Flavor::MySql => server_uuid(&self.source.path),
                    Flavor::MariaDb => None,
                },
                server_id: end.as_ref().map_or(0, |end| u64::from(end.server_id)),
                hostname: hostname(),
            },
            position: end.map_or_else(Position::default, |end| end.position),
            consistency: Consistency { level, reason },
            lock_seconds: 0.0,
            rows: None,
            objects: objects(catalog),
            masked: false,
            partial: false,
            warnings,
            details: pages.details(),
        }
    }
}

/// What the server said of itself last. Its redo log may be that of an earlier version that it was
/// upgraded from.
fn version(redo: &Redo, end: Option<&BinlogEnd>) -> String {
    let wrote = end.map(|end| end.version.as_str()).filter(|version| !version.is_empty());
    match (redo.flavor, wrote) {
        (_, Some(version)) => version.to_owned(),
        (Flavor::MariaDb, None) if !redo.version.contains("MariaDB") => {
            format!("{}-MariaDB", redo.version)
        }
        (_, None) => redo.version.clone(),
    }
}

/// Counts for people.
pub(crate) fn objects(catalog: &Catalog) -> BTreeMap<String, u64> {
    let files = catalog.files().count() as u64;
    let tablespaces = catalog.files().filter(|entry| entry.page_size.is_some()).count() as u64;
    BTreeMap::from([("files".to_owned(), files), ("tablespaces".to_owned(), tablespaces)])
}

/// What in the data directory tells of a keyring.
pub(crate) fn keyring(datadir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let named = |name: &str| name.contains("keyring") || name == "mysqld.my";
    for entry in std::fs::read_dir(datadir).into_iter().flatten().flatten() {
        if let Some(name) = entry.file_name().to_str().filter(|name| named(name)) {
            found.push(name.to_owned());
        }
    }
    found.sort();
    found
}

/// The identity of a MySQL server.
fn server_uuid(datadir: &Path) -> Option<String> {
    crate::binlog::auto_cnf(datadir).map(|server: BinlogServer| server.as_str().to_owned())
}

pub(crate) fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
