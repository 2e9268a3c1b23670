//! `holdfast verify`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::{
    BackupId, ClusterName, Error, ErrorKind, Finding, Level, Listed, Manifest, Report, Repository,
    Result, Severity, select,
};
use backup_drivers::clone::Flags;
use backup_drivers::connect::ConnectOptions;
use backup_drivers::foreign::examine_dump;
use backup_storage::{Repo, RepositoryOptions, SamplePlan, SampleRule};
use backup_verify::{DrillOptions, LEVELS, Whole, verify_drill, verify_listed, verify_sample};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;

use crate::answer::Answer;
use crate::app::App;
use crate::human;
use crate::login::{DefaultsFile, Server};

/// Verify that backups are whole
#[derive(clap::Args)]
pub(crate) struct Verify {
    /// An id, a unique prefix of one, or `latest`
    #[arg(value_name = "BACKUP", default_value = "latest", conflicts_with = "all")]
    backup: String,
    /// Verify every backup
    #[arg(long)]
    all: bool,
    /// Verify a dump of mysqldump, mariadb-dump or mydumper that is in no repository: a file, plain or
    /// compressed, or a directory
    #[arg(long, value_name = "PATH", conflicts_with_all = ["backup", "all", "cluster", "level"])]
    file: Option<PathBuf>,
    /// Look only at backups of this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// objects: everything is there and has its length; content: every byte matches its digest;
    /// logical: definitions, ranges, rows and keys are what they should be; drill: it was restored into a private server, and every row and definition is what was backed up
    #[arg(long, value_parser = level(), default_value = Level::Content.as_str())]
    level: Level,
    /// Read only so many percent of the packs, others each day; all within 100/N days
    #[arg(long, value_name = "N", value_parser = percent, conflicts_with = "max_bytes")]
    percent: Option<f64>,
    /// Read at most so much, such as 20GiB, others each day
    #[arg(long, value_name = "SIZE", value_parser = some_bytes)]
    max_bytes: Option<u64>,
    /// For a drill: the server to run, the directory that holds bin/mysqld or usr/sbin/mysqld
    #[arg(long, value_name = "DIR")]
    server_dir: Option<PathBuf>,
    /// For a drill: where the private server keeps its data meanwhile
    #[arg(long, value_name = "DIR")]
    scratch_dir: Option<PathBuf>,
    /// For a drill of data files: their source, which has to stand where the backup was taken. All of its tables
    /// are read, and compared with those of the drill
    #[arg(long, value_name = "DSN", conflicts_with_all = ["all", "file"])]
    source: Option<String>,
    #[command(flatten)]
    defaults_file: DefaultsFile,
}

/// `--percent`
fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse() {
        Ok(n) if n > 0.0 && n <= 100.0 => Ok(n),
        _ => Err("write a number above 0 and up to 100".to_owned()),
    }
}

fn some_bytes(text: &str) -> Result<u64, String> {
    match human::parse_bytes(text) {
        Ok(0) => Err("write a size above 0".to_owned()),
        other => other,
    }
}

/// `--level`, with those that this version has.
fn level() -> impl TypedValueParser<Value = Level> {
    PossibleValuesParser::new(LEVELS.map(Level::as_str)).map(|name| {
        LEVELS
            .into_iter()
            .find(|level| level.as_str() == name)
            .expect("the parser before lets only these names through")
    })
}

impl Verify {
    /// Verifies.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        if let Some(path) = &self.file {
            return verify_file(app, path).await;
        }
        let repo = Arc::new(app.repo(RepositoryOptions::default()).await?);
        // The configuration's cluster says which `latest` is meant; --all means all.
        let cluster = match (&self.cluster, self.all) {
            (Some(cluster), _) => Some(cluster),
            (None, false) => app.config.cluster.as_ref(),
            (None, true) => None,
        };
        let listed = app.cx.run(repo.backups(&app.cx, cluster)).await?;
        let chosen = if !self.all {
            vec![choose(listed, &self.backup)?]
        } else if listed.is_empty() && cluster.is_some() {
            // A name that was mistyped must not pass for a cluster that is well.
            select(listed, "latest").map(|_| Vec::new())?
        } else {
            listed
        };

        let plan = self.sample(app, &repo, &chosen)?;
        let source = self.source(app).await?;
        let whole = Whole::default();
        let mut documents = Vec::new();
        let mut text = String::new();
        let mut ending = None;
        for entry in chosen {
            let backup = entry.backup.clone();
            let result = match &plan {
                Some(plan) => verify_sample(&app.cx, &repo, plan, entry).await,
                None if self.level == Level::Drill => {
                    let options = self.drill(app);
                    verify_drill(&app.cx, &repo, &whole, options, source.as_ref(), entry).await
                }
                None => verify_listed(&app.cx, &repo, self.level, &whole, entry).await,
            };
            let (report, verdict) = match result {
                // One backup that cannot be read must not keep the others from being looked at.
                Err(e) if self.all && e.kind() != ErrorKind::Interrupted => {
                    ending = ending.filter(|kind| *kind != ErrorKind::Warnings).or(Some(e.kind()));
                    (unverified(&backup, self.level, &e), "not verified")
                }
                Err(e) => return Err(e),
                Ok(report) if report.ok() => {
                    // Others ask the history what is proven.
                    let unrecorded = report.unrecorded.as_ref().map(|_| ErrorKind::Warnings);
                    ending = ending.or(unrecorded);
                    (report, "ok")
                }
                Ok(report) => {
                    ending = Some(ErrorKind::Findings);
                    (report, "FAILED")
                }
            };
            documents.push(json!({
                "backup": backup,
                "level": report.level,
                "ok": report.ok(),
                "findings": report.findings,
                "sampled": report.sampled,
                "recorded": report.unrecorded.is_none(),
            }));
            text.push_str(&paragraph(&backup, &report, verdict));
        }
        if documents.is_empty() {
            text.push_str("There are no backups here yet.\n");
        }
        let document = match documents.pop() {
            Some(only) if !self.all => only,
            last => documents.into_iter().chain(last).collect(),
        };
        Ok(Answer::new(&document, text)?.summary().ending(ending))
    }
}

impl Verify {
    fn drill(&self, app: &App) -> DrillOptions {
        DrillOptions {
            server: self.server_dir.clone(),
            directory: self.scratch_dir.clone(),
            flags: Flags { repository: app.repo_flags.clone(), ..Flags::default() },
        }
    }

    /// What a drill is compared with, where it is.
    async fn source(&self, app: &App) -> Result<Option<ConnectOptions>> {
        let defaults_file = self.defaults_file.defaults_file.as_deref();
        match (&self.source, defaults_file) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err(Error::usage("--defaults-file is for --source")),
            (Some(_), _) if self.level != Level::Drill => {
                return Err(Error::usage("--source is for --level drill"));
            }
            (Some(_), _) => {}
        }
        let source = Server {
            role: "source",
            variable: "HOLDFAST_SOURCE_PASSWORD",
            url: self.source.as_deref(),
            defaults_file,
        };
        source.resolve(&app.cx).await.map(Some)
    }

    /// Which packs are read, where it is not all of them.
    fn sample(&self, app: &App, repo: &Repo, chosen: &[Listed]) -> Result<Option<Arc<SamplePlan>>> {
        let rule = match (self.percent, self.max_bytes) {
            (Some(percent), _) => SampleRule::Percent(percent),
            (None, Some(bytes)) => SampleRule::Bytes(bytes),
            (None, None) => return Ok(None),
        };
        if self.level != Level::Content {
            return Err(Error::usage("--percent and --max-bytes are for --level content"));
        }
        let manifests: Vec<Manifest> =
            chosen.iter().filter_map(|l| l.manifest.as_ref().ok()).cloned().collect();
        Ok(Some(Arc::new(SamplePlan::new(repo, &manifests, rule, app.cx.now()))))
    }
}

/// Verifies a dump where it is.
async fn verify_file(app: &App, path: &Path) -> Result<Answer> {
    app.cx.phase("reading the dump");
    let dump = app.cx.run(examine_dump(&app.cx, path)).await?;
    let contents = dump.contents();
    let ok = dump.findings.iter().all(|f| f.severity < Severity::Error);
    let document = json!({
        "file": path,
        "ok": ok,
        "program": contents.program,
        "server_version": contents.server_version,
        "complete": contents.complete,
        "position": contents.position,
        "bytes": contents.bytes,
        "lines": contents.lines,
        "statements": contents.statements,
        "rows": contents.rows(),
        "tables": contents.tables,
        "objects": contents.objects,
        "findings": dump.findings,
    });
    let mut text = format!("{}: {}\n", path.display(), if ok { "ok" } else { "FAILED" });
    if let Some(program) = &contents.program {
        text.push_str(&format!("  by {program}\n"));
    }
    text.push_str(&format!(
        "  {} in {} lines: {} statements, {} tables with {} rows\n",
        human::bytes(contents.bytes),
        human::count(contents.lines),
        human::count(contents.statements),
        human::count(contents.tables.len() as u64),
        human::count(contents.rows()),
    ));
    let mut findings: Vec<&Finding> = dump.findings.iter().collect();
    findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
    for finding in findings {
        text.push_str(&human::finding(finding));
    }
    let ending = (!ok).then_some(ErrorKind::Findings);
    Ok(Answer::new(&document, human::plain(&text))?.summary().ending(ending))
}

/// What is said of a backup of which nothing is known.
fn unverified(backup: &BackupId, level: Level, error: &Error) -> Report {
    let problem = format!("it could not be verified: {}", error.chain());
    let finding = Finding::new(Severity::Error, backup.as_str(), problem, error.remedy());
    let unrecorded = Some(error.chain());
    Report { unrecorded, ..Report::new(level, vec![finding.with_kind(error.kind())]) }
}

fn paragraph(backup: &BackupId, report: &Report, verdict: &str) -> String {
    let sample = if report.sampled.is_some() { " (sample)" } else { "" };
    let mut text = format!("{backup}  {}: {verdict}{sample}\n", report.level);
    let mut findings: Vec<&Finding> = report.findings.iter().collect();
    findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
    for finding in findings {
        text.push_str(&human::finding(finding));
    }
    text
}

/// As [`select`], but a manifest that cannot be read is for the verifier to report.
fn choose(mut listed: Vec<Listed>, wanted: &str) -> Result<Listed> {
    let fits = |(at, entry): &(usize, &Listed)| match wanted {
        "latest" => at + 1 == listed.len(),
        prefix => entry.backup.as_str().starts_with(prefix),
    };
    let fitting: Vec<usize> = listed.iter().enumerate().filter(fits).map(|(at, _)| at).collect();
    if let [at] = fitting[..] {
        return Ok(listed.swap_remove(at));
    }
    // None or several: the library has the words for that.
    let manifest = select(listed, wanted)?;
    let (cluster, backup) = (manifest.cluster.clone(), manifest.backup.clone());
    Ok(Listed { cluster, backup, manifest: Ok(manifest) })
}
