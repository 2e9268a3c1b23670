//! `holdfast backup`

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use backup_core::{
    BackupSpec, BackupType, ClusterName, Error, ErrorKind, Manifest, Result, SecretBytes, Strategy,
    io_error, pipeline,
};
use backup_drivers::logical::{
    Glob, LogicalBackup, LogicalOptions, LongQueries, MaskRules, OnCorrupt, Selection,
    SnapshotOptions, TableGlob, TableName, Throttle,
};
use backup_storage::format::Compression;
use backup_storage::{Deltas, RepositoryOptions, Resume};
use serde_json::json;

use super::backup_clone::CloneFlags;
use super::backup_files::FilesFlags;
use super::backup_tool::ToolFlags;
use super::backup_ways::{Given, Way};
use crate::answer::Answer;
use crate::app::App;
use crate::args;
use crate::human;
use crate::login::{DefaultsFile, Server};

/// Take a backup
#[derive(clap::Args)]
pub(crate) struct Backup {
    /// The server to read: mysql://user@host:port/ or mysql://user@localhost/?socket=/path; that of a
    /// stopped one: file:///var/lib/mysql
    #[arg(long, value_name = "DSN")]
    pub(super) source: Option<String>,
    #[command(flatten)]
    pub(super) defaults_file: DefaultsFile,
    /// The cluster that the backup belongs to
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// How the source is read
    #[arg(long, value_parser = args::strategy(), default_value = "logical")]
    pub(super) strategy: Strategy,
    /// How much the backup holds by itself
    #[arg(long = "type", value_parser = args::backup_type(), default_value = "full")]
    backup_type: BackupType,
    /// Only these databases, separated by commas; `*` and `?` are wildcards, except in backticks
    #[arg(long, value_name = "DB,…", value_parser = globs, conflicts_with = "tables")]
    databases: Vec<Names<Glob>>,
    /// Without these databases
    #[arg(long, value_name = "DB,…", value_parser = globs)]
    exclude_databases: Vec<Names<Glob>>,
    /// Only these tables
    #[arg(long, value_name = "DB.TABLE,…", value_parser = table_globs)]
    tables: Vec<Names<TableGlob>>,
    /// Without these tables
    #[arg(long, value_name = "DB.TABLE,…", value_parser = table_globs)]
    exclude_tables: Vec<Names<TableGlob>>,
    /// Only the rows of a table for which an SQL condition is true
    #[arg(long = "where", value_name = "DB.TABLE:CONDITION", value_parser = filter)]
    filters: Vec<(TableName, String)>,
    /// Definitions alone, without any rows
    #[arg(long)]
    schema_only: bool,
    /// These tables without their rows
    #[arg(long, value_name = "DB.TABLE,…", value_parser = table_globs)]
    no_rows: Vec<Names<TableGlob>>,
    /// Without users, roles and grants
    #[arg(long)]
    no_users: bool,
    /// Change values on the way by the rules in a TOML file, for a copy that others may see
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// Mask equal values equally in every backup that is taken with the same key file (16 bytes or
    /// more)
    #[arg(long, value_name = "FILE", requires = "mask")]
    mask_key_file: Option<PathBuf>,
    /// The longest that the global read lock may be waited for and held: the source's writers wait
    /// meanwhile
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(super) lock_timeout: u64,
    /// The longest that tables without transactions (MyISAM, Aria, …) stay locked while they are
    /// read, which is done first; after that they may be of a later moment than the others
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    table_lock_timeout: u64,
    /// Take the global read lock even where the server could do without (MariaDB)
    #[arg(long)]
    always_lock: bool,
    /// What to do about statements that run for 10 seconds and more before the global read lock: wait
    /// for them, kill those that only read, or fail
    #[arg(long, value_name = "HOW", value_parser = ["wait", "kill", "fail"], default_value = "wait")]
    pub(super) long_queries: String,
    /// Stop the applier of a replica for the time of the backup; it is started again in any case
    #[arg(long)]
    pub(super) pause_replication: bool,
    /// Wait, before the snapshot and between chunks of tables, while the source has more to do than
    /// this: sessions of others that run a statement (threads-running=30), a replica's lag
    /// (replica-lag=10s), or the share of time in percent in which something waits for processors or
    /// disks of this machine (cpu-pressure=40, io-pressure=40; over a socket). For mariadb-backup and
    /// xtrabackup, a number: the pairs of reads and writes a second that they may take of the disks
    #[arg(long, value_name = "LIMIT=N,…")]
    pub(super) throttle: Option<String>,
    /// auto, none, lz4, zstd[:1-22], gzip[:1-9] or xz[:0-9]; higher levels are slower and smaller
    /// [default: zstd:1]
    #[arg(long, value_name = "CODEC", value_parser = compression)]
    compression: Option<Compression>,
    /// Run CHECK TABLE on every table first
    #[arg(long)]
    check_tables: bool,
    /// What to do about rows that the server cannot read: fail, leave the rows of the table out, or
    /// read around them
    #[arg(long, value_name = "HOW", value_parser = ["fail", "skip", "salvage"], default_value = "fail")]
    on_corrupt: String,
    /// Go on with a backup that was not finished even where it cannot be told whether its process has
    /// ended; where that is sure, or it was silent for 20 minutes, this happens by itself
    #[arg(long, conflicts_with = "no_resume")]
    resume: bool,
    /// Whether what changed is stored as deltas to what an earlier backup holds: `auto` where the repository
    /// is a directory of this machine, for they cost the reading of what they are made against, now and at
    /// each restore
    #[arg(long, value_name = "WHEN", value_parser = ["auto", "always", "never"], default_value = "auto")]
    deltas: String,
    /// Read everything again, whatever an unfinished backup has
    #[arg(long)]
    no_resume: bool,
    #[command(flatten)]
    pub(super) files: FilesFlags,
    #[command(flatten)]
    pub(super) clone: CloneFlags,
    #[command(flatten)]
    pub(super) tool: ToolFlags,
}

impl Backup {
    /// Takes it.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        let spec = BackupSpec {
            cluster: app.cluster(self.cluster.as_ref())?,
            strategy: self.strategy,
            backup_type: self.backup_type,
            parent: None,
        };
        let way = self.way(app);
        self.check_flags(way)?;
        let by_tool = way == Way::Tool;
        let throttle = self.throttle(app, by_tool)?;
        let repo = app.repo(self.repository_options(app)?).await?;
        if by_tool {
            return self.by_tool(app, &repo, spec).await;
        }
        if spec.backup_type != BackupType::Full {
            return Err(Error::usage(format!(
                "only xtrabackup and mariadb-backup make {} backups; every other one stores what is new by itself",
                spec.backup_type
            ))
            .with_remedy("leave --type out, or take it with --strategy physical of a running server"));
        }
        if self.strategy == Strategy::Clone {
            return self.by_clone(app, &repo, spec).await;
        }
        if self.strategy != Strategy::Logical {
            let driver = self.files_driver(app).await?;
            return answer(&pipeline::backup(&app.cx, &repo, &*driver, spec).await?);
        }
        let source = source(app, self.source.as_deref(), &self.defaults_file);
        let source = source.resolve(&app.cx).await?;
        let options = LogicalOptions {
            selection: self.selection(),
            snapshot: self.snapshot(),
            pause_replication: self.pause_replication,
            adapt: app.auto_threads,
            throttle,
            no_accounts: self.no_users,
            filters: self.filters()?,
            no_rows: self.no_rows()?,
            check_tables: self.check_tables,
            on_corrupt: match self.on_corrupt.as_str() {
                "skip" => OnCorrupt::Skip,
                "salvage" => OnCorrupt::Salvage,
                _ => OnCorrupt::Fail,
            },
            mask: self.mask.as_deref().map(mask_rules).transpose()?,
            mask_secret: self.mask_key_file.as_deref().map(mask_key).transpose()?,
            ..LogicalOptions::default()
        };
        let driver = LogicalBackup::new(source, options);
        answer(&pipeline::backup(&app.cx, &repo, &driver, spec).await?)
    }

    /// Those flags of all backups that are not for all of them. What chooses databases, tables and rows
    /// is refused where it is read.
    pub(super) fn given(&self) -> [Given; 6] {
        use Way::{Clone, Logical, Tool};
        [
            ("--no-users", self.no_users, &[Logical]),
            ("--check-tables", self.check_tables, &[Logical]),
            ("--on-corrupt", self.on_corrupt != "fail", &[Logical]),
            ("--resume", self.resume, &[Logical]),
            ("--pause-replication", self.pause_replication, &[Logical, Tool]),
            // With a clone for --clone-others.
            ("--always-lock", self.always_lock, &[Logical, Clone]),
        ]
    }

    fn repository_options(&self, app: &App) -> Result<RepositoryOptions> {
        let compression = match (self.compression, &app.config.defaults.compression) {
            (Some(chosen), _) => chosen,
            (None, Some(text)) => text.parse()?,
            (None, None) => Compression::default(),
        };
        let resume = match (self.resume, self.no_resume) {
            (true, _) => Resume::Require,
            (_, true) => Resume::Never,
            _ => Resume::Auto,
        };
        let deltas = match self.deltas.as_str() {
            "always" => Deltas::Always,
            "never" => Deltas::Never,
            _ => Deltas::Auto,
        };
        Ok(RepositoryOptions {
            compression,
            resume,
            deltas,
            writes: true,
            ..RepositoryOptions::default()
        })
    }

    /// The limits of a logical backup. Those of the configuration say nothing about others.
    fn throttle(&self, app: &App, by_tool: bool) -> Result<Option<Throttle>> {
        if self.strategy == Strategy::Logical {
            let text = self.throttle.as_ref().or(app.config.defaults.throttle.as_ref());
            return text.map(|text| text.parse()).transpose();
        }
        match &self.throttle {
            Some(_) if !by_tool => Err(Error::usage(format!(
                "a {} backup is not read in chunks, and cannot wait between them",
                self.strategy
            ))
            .with_remedy("leave --throttle out, or use --strategy logical")),
            _ => Ok(None),
        }
    }

    pub(super) fn snapshot(&self) -> SnapshotOptions {
        SnapshotOptions {
            lock_timeout: Duration::from_secs(self.lock_timeout),
            table_lock_timeout: Duration::from_secs(self.table_lock_timeout),
            always_lock: self.always_lock,
            long_queries: match self.long_queries.as_str() {
                "kill" => LongQueries::Kill,
                "fail" => LongQueries::Fail,
                _ => LongQueries::Wait,
            },
            ..SnapshotOptions::default()
        }
    }

    fn filters(&self) -> Result<BTreeMap<TableName, String>> {
        let mut filters = BTreeMap::new();
        for (table, condition) in &self.filters {
            if filters.insert(table.clone(), condition.clone()).is_some() {
                return Err(Error::usage(format!("two conditions are given for {table}"))
                    .with_remedy("make one of them, with AND or OR"));
            }
        }
        Ok(filters)
    }

    fn no_rows(&self) -> Result<BTreeSet<TableGlob>> {
        let mut without: BTreeSet<TableGlob> = flat(&self.no_rows);
        if self.schema_only {
            without.insert("*.*".parse()?);
        }
        Ok(without)
    }

    /// Whether rows are left out or changed.
    pub(super) fn chooses_rows(&self) -> bool {
        !self.filters.is_empty()
            || !self.no_rows.is_empty()
            || self.schema_only
            || self.mask.is_some()
    }

    pub(super) fn selection(&self) -> Selection {
        Wanted {
            databases: &self.databases,
            exclude_databases: &self.exclude_databases,
            tables: &self.tables,
            exclude_tables: &self.exclude_tables,
        }
        .selection()
    }
}

/// The flags that choose databases and tables.
pub(super) struct Wanted<'a> {
    pub(super) databases: &'a [Names<Glob>],
    pub(super) exclude_databases: &'a [Names<Glob>],
    pub(super) tables: &'a [Names<TableGlob>],
    pub(super) exclude_tables: &'a [Names<TableGlob>],
}

impl Wanted<'_> {
    /// What they choose.
    pub(super) fn selection(&self) -> Selection {
        let databases: BTreeSet<Glob> = flat(self.databases);
        let tables: BTreeSet<TableGlob> = flat(self.tables);
        let literal = |glob: &Glob| glob.as_literal().is_some();
        Selection {
            databases: databases.iter().filter_map(|g| g.as_literal().map(str::to_owned)).collect(),
            database_globs: databases.iter().filter(|g| !literal(g)).cloned().collect(),
            tables: tables.iter().filter_map(TableGlob::as_literal).collect(),
            table_globs: tables.iter().filter(|g| g.as_literal().is_none()).cloned().collect(),
            exclude_databases: flat(self.exclude_databases),
            exclude_table_globs: flat(self.exclude_tables),
            ..Selection::default()
        }
    }
}

/// Reads the rules of `--mask`.
fn mask_rules(file: &Path) -> Result<MaskRules> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|e| io_error(e, ErrorKind::Usage, format!("cannot read the rules in {shown}")))?;
    let rules: MaskRules = toml::from_str(&text).map_err(|e| {
        Error::usage(format!("the rules in {shown} cannot be read"))
            .with_source(e)
            .with_remedy("see the page on masking in the documentation")
    })?;
    if rules.mask.is_empty() {
        return Err(Error::usage(format!("there is no rule in {shown}"))
            .with_remedy("a backup without rules would be a copy of the originals"));
    }
    Ok(rules)
}

fn mask_key(file: &Path) -> Result<SecretBytes> {
    let shown = file.display();
    let key = std::fs::read(file)
        .map_err(|e| io_error(e, ErrorKind::Usage, format!("cannot read the key in {shown}")))?;
    if key.len() < 16 {
        return Err(Error::usage(format!("the key in {shown} is shorter than 16 bytes"))
            .with_remedy("make one with `head -c 32 /dev/urandom`"));
    }
    Ok(SecretBytes::new(key))
}

/// The source, from flags or the configuration.
pub(super) fn source<'a>(
    app: &'a App,
    url: Option<&'a str>,
    defaults_file: &'a DefaultsFile,
) -> Server<'a> {
    Server {
        role: "source",
        variable: "HOLDFAST_SOURCE_PASSWORD",
        url: url.or(app.config.source.as_deref()),
        defaults_file: defaults_file.defaults_file.as_deref().or(app
            .config
            .defaults
            .defaults_file
            .as_deref()),
    }
}

pub(super) fn answer(manifest: &Manifest) -> Result<Answer> {
    let warned = !manifest.outcome.warnings.is_empty();
    let ending = warned.then_some(ErrorKind::Warnings);
    Ok(Answer::new(&document(manifest), text(manifest))?.summary().ending(ending))
}

pub(super) fn document(m: &Manifest) -> serde_json::Value {
    json!({
        "backup": m.backup,
        "cluster": m.cluster,
        "strategy": m.strategy,
        "type": m.backup_type,
        "status": if m.outcome.warnings.is_empty() { "ok" } else { "warnings" },
        "position": m.outcome.position,
        "consistency": m.outcome.consistency,
        "started_at": m.started_at,
        "finished_at": m.finished_at,
        "bytes_read": m.totals.bytes_read,
        "bytes_new": m.totals.bytes_new,
        "bytes_stored": m.totals.bytes_stored,
        "rows": m.outcome.rows,
        "duration_seconds": m.finished_at.duration_since(m.started_at).as_secs_f64(),
        "lock_seconds": m.outcome.lock_seconds,
        "warnings": m.outcome.warnings,
        "resumed": m.outcome.details.get("resumed"),
        "throttled_seconds": m.outcome.details.get("throttled_seconds"),
    })
}

pub(super) fn text(m: &Manifest) -> String {
    let took = m.finished_at.duration_since(m.started_at).as_secs_f64();
    let rows = m.outcome.rows.map(|n| format!("{} rows, ", human::count(n))).unwrap_or_default();
    let resumed = match m.outcome.details.get("resumed") {
        None => String::new(),
        Some(resumed) => format!(
            "{} of these rows were taken from {}, which was not finished.\n",
            human::count(resumed["rows"].as_u64().unwrap_or_default()),
            resumed["from"].as_str().unwrap_or_default()
        ),
    };
    let throttled = m.outcome.details.get("throttled_seconds").and_then(serde_json::Value::as_f64);
    let throttled = match throttled.filter(|seconds| *seconds > 0.0) {
        None => String::new(),
        Some(seconds) => {
            format!("For {} it waited until the source had less to do.\n", human::duration(seconds))
        }
    };
    let warnings = match m.outcome.warnings.len() {
        0 => String::new(),
        n => {
            let warnings = human::warnings(n);
            format!("It ended with {warnings} to look at; `holdfast show` repeats them.\n")
        }
    };
    format!(
        "Backup {} of cluster {} is complete: {rows}{} read, {} stored, in {}; locked for {:.3} s.\n\
         {resumed}{throttled}Position: {}\n{warnings}",
        m.backup,
        m.cluster,
        human::bytes(m.totals.bytes_read),
        human::bytes(m.totals.bytes_stored),
        human::duration(took),
        m.outcome.lock_seconds,
        human::plain(&m.outcome.position.to_string()),
    )
}

fn compression(text: &str) -> Result<Compression, String> {
    text.parse().map_err(|e: Error| e.report())
}

/// The value of one flag that takes a list.
#[derive(Debug, Clone)]
pub(super) struct Names<T>(Vec<T>);

/// The values of a flag that may be repeated.
pub(super) fn flat<T: Clone, C: FromIterator<T>>(lists: &[Names<T>]) -> C {
    lists.iter().flat_map(|list| &list.0).cloned().collect()
}

fn list<T: FromStr<Err = Error>>(text: &str) -> Result<Names<T>, String> {
    let one = |name: &&str| name.parse::<T>().map_err(|e| e.report());
    split_list(text).iter().map(one).collect::<Result<_, _>>().map(Names)
}

/// Databases, separated by commas, with wildcards.
pub(super) fn globs(text: &str) -> Result<Names<Glob>, String> {
    list(text)
}

/// Tables, separated by commas, with wildcards.
pub(super) fn table_globs(text: &str) -> Result<Names<TableGlob>, String> {
    list(text)
}

/// Tables by their names, separated by commas.
pub(super) fn table_names(text: &str) -> Result<Names<TableName>, String> {
    list(text)
}

/// A table and a condition, with a colon between.
fn filter(text: &str) -> Result<(TableName, String), String> {
    let mut quoted = false;
    let colon = text.find(|c| {
        quoted ^= c == '`';
        c == ':' && !quoted
    });
    let (table, condition) = colon.map_or((text, ""), |at| (&text[..at], &text[at + 1..]));
    if condition.trim().is_empty() {
        return Err("write db.table:condition".to_owned());
    }
    Ok((table.parse::<TableName>().map_err(|e| e.report())?, condition.to_owned()))
}

/// Splits at commas that are not inside backticks.
fn split_list(text: &str) -> Vec<&str> {
    let mut quoted = false;
    text.split(|c| {
        quoted ^= c == '`';
        c == ',' && !quoted
    })
    .map(str::trim)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_names() {
        let names = table_globs("shop.orders, `a,b`.`c``,d`").unwrap().0;
        let shown: Vec<String> =
            names.iter().map(|glob| glob.as_literal().unwrap().to_string()).collect();
        assert_eq!(shown, ["shop.orders", "`a,b`.`c``,d`"]);
        let databases = globs("a*,`b.c`").unwrap().0;
        assert!(databases[0].matches("ab") && databases[1].as_literal() == Some("b.c"));
        for bad in ["", "a,", "a.b", "`a"] {
            assert!(globs(bad).is_err(), "{bad}");
        }
        let (table, condition) = filter("`a:b`.c:x = 'y:z'").unwrap();
        assert_eq!((table.to_string().as_str(), condition.as_str()), ("`a:b`.c", "x = 'y:z'"));
        assert!(filter("a.b").is_err() && filter("a.b: ").is_err());
        assert!(table_globs("a").is_err());
    }

    #[test]
    fn compressions() {
        assert_eq!(compression("auto"), Ok(Compression::Auto));
        assert_eq!(compression("zstd:3"), Ok(Compression::Zstd(3)));
        let report = compression("lzma").unwrap_err();
        assert!(report.contains("`lzma`") && report.contains("zstd:9"), "{report}");
    }
}
