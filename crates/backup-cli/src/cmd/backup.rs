//! `holdfast backup`

use std::time::Duration;

use backup_core::{
    BackupSpec, BackupType, ClusterName, Error, ErrorKind, Manifest, Result, Strategy, pipeline,
};
use backup_drivers::logical::{LogicalBackup, LogicalOptions, Selection, TableName, split_name};
use backup_storage::RepositoryOptions;
use backup_storage::format::Compression;
use serde_json::json;

use crate::answer::Answer;
use crate::app::App;
use crate::args;
use crate::human;
use crate::login::{DefaultsFile, Server};

/// Take a backup
#[derive(clap::Args)]
pub(crate) struct Backup {
    /// The server to read: mysql://user@host:port/ or mysql://user@localhost/?socket=/path
    #[arg(long, value_name = "DSN")]
    source: Option<String>,
    #[command(flatten)]
    defaults_file: DefaultsFile,
    /// The cluster that the backup belongs to
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// How the source is read
    #[arg(long, value_parser = args::strategy(), default_value = "logical")]
    strategy: Strategy,
    /// How much the backup holds by itself
    #[arg(long = "type", value_parser = args::backup_type(), default_value = "full")]
    backup_type: BackupType,
    /// Only these databases, separated by commas
    #[arg(long, value_name = "DB,…", value_parser = databases, conflicts_with = "tables")]
    databases: Vec<Names<String>>,
    /// Only these tables
    #[arg(long, value_name = "DB.TABLE,…", value_parser = tables)]
    tables: Vec<Names<TableName>>,
    /// Without these tables
    #[arg(long, value_name = "DB.TABLE,…", value_parser = tables)]
    exclude_tables: Vec<Names<TableName>>,
    /// The longest that the global read lock may be waited for and held: the source's writers wait
    /// meanwhile
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    lock_timeout: u64,
    /// auto, none, lz4, zstd[:1-22], gzip[:1-9] or xz[:0-9]; higher levels are slower and smaller
    /// [default: zstd:1]
    #[arg(long, value_name = "CODEC", value_parser = compression)]
    compression: Option<Compression>,
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
        let repo = app.repo(self.repository_options(app)?).await?;
        let source = source(app, self.source.as_deref(), &self.defaults_file);
        let source = source.resolve(&app.cx).await?;
        let options = LogicalOptions {
            selection: self.selection(),
            lock_timeout: Duration::from_secs(self.lock_timeout),
            ..LogicalOptions::default()
        };
        let driver = LogicalBackup::new(source, options);
        let manifest = pipeline::backup(&app.cx, &repo, &driver, spec).await?;
        let warned = !manifest.outcome.warnings.is_empty();
        let ending = warned.then_some(ErrorKind::Warnings);
        Ok(Answer::new(&document(&manifest), text(&manifest))?.summary().ending(ending))
    }

    fn repository_options(&self, app: &App) -> Result<RepositoryOptions> {
        let compression = match (self.compression, &app.config.defaults.compression) {
            (Some(chosen), _) => chosen,
            (None, Some(text)) => text.parse()?,
            (None, None) => Compression::default(),
        };
        Ok(RepositoryOptions { compression, ..RepositoryOptions::default() })
    }

    fn selection(&self) -> Selection {
        Selection {
            databases: flat(&self.databases),
            tables: flat(&self.tables),
            exclude_tables: flat(&self.exclude_tables),
        }
    }
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

fn document(m: &Manifest) -> serde_json::Value {
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
    })
}

fn text(m: &Manifest) -> String {
    let took = m.finished_at.duration_since(m.started_at).as_secs_f64();
    let rows = m.outcome.rows.map(|n| format!("{} rows, ", human::count(n))).unwrap_or_default();
    let warnings = match m.outcome.warnings.len() {
        0 => String::new(),
        n => {
            let warnings = human::warnings(n);
            format!("It ended with {warnings} to look at; `holdfast show` repeats them.\n")
        }
    };
    format!(
        "Backup {} of cluster {} is complete: {rows}{} read, {} stored, in {}; locked for {:.3} s.\n\
         Position: {}\n{warnings}",
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

pub(super) fn databases(text: &str) -> Result<Names<String>, String> {
    let one = |name: &&str| match <[String; 1]>::try_from(split_name(name).map_err(|e| e.report())?)
    {
        Ok([database]) => Ok(database),
        Err(_) => Err(format!("`{name}` is no database; put names with dots in backticks")),
    };
    split_list(text).iter().map(one).collect::<Result<_, _>>().map(Names)
}

/// Tables, separated by commas.
pub(super) fn tables(text: &str) -> Result<Names<TableName>, String> {
    let one = |name: &&str| name.parse::<TableName>().map_err(|e| e.report());
    split_list(text).iter().map(one).collect::<Result<_, _>>().map(Names)
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
        let names = tables("shop.orders, `a,b`.`c``,d`").unwrap();
        let shown: Vec<String> = names.0.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["shop.orders", "`a,b`.`c``,d`"]);
        assert_eq!(databases("a,`b.c`").unwrap().0, ["a", "b.c"]);
        for bad in ["", "a,", "a.b", "`a"] {
            assert!(databases(bad).is_err(), "{bad}");
        }
        assert!(tables("a").is_err());
    }

    #[test]
    fn compressions() {
        assert_eq!(compression("auto"), Ok(Compression::Auto));
        assert_eq!(compression("zstd:3"), Ok(Compression::Zstd(3)));
        let report = compression("lzma").unwrap_err();
        assert!(report.contains("`lzma`") && report.contains("zstd:9"), "{report}");
    }
}
