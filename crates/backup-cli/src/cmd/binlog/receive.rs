//! `holdfast binlog stream` and `holdfast binlog backup`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{
    BackupType, ClusterName, Error, ErrorKind, Event, Manifest, ReplayBase, Repository, Result,
    Strategy,
};
use backup_drivers::binlog::{From, ReceiveOptions, Received, receive};
use backup_storage::{Repo, RepositoryOptions};
use serde_json::json;

use super::super::backup::source;
use crate::answer::Answer;
use crate::app::App;
use crate::human::{self, parse_bytes};
use crate::login::DefaultsFile;

/// Archive what a server writes into its binlogs, as it writes it, until interrupted
#[derive(clap::Args)]
pub(super) struct Stream {
    #[command(flatten)]
    common: Common,
    /// Let commits of the server wait until what they wrote is safe in the spool; the server needs
    /// semi-synchronous replication on
    #[arg(long)]
    semi_sync: bool,
    /// The longest that a transaction waits in the spool before it goes to the repository
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    store_every: u64,
}

/// Archive the binlogs of a server up to now, from where the archive ends
#[derive(clap::Args)]
pub(super) struct Backup {
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Common {
    /// The server to read: mysql://user@host:port/ or mysql://user@localhost/?socket=/path
    #[arg(long, value_name = "DSN")]
    source: Option<String>,
    #[command(flatten)]
    defaults_file: DefaultsFile,
    /// The cluster whose archive it is
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// Where what was received waits for the repository [default: holdfast/spool below
    /// XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// How much may wait there
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, default_value = "64GiB")]
    spool_limit: u64,
    /// Where an archive begins that has nothing yet: at the newest full backup of the cluster, the
    /// oldest binlog of the server, or the one it writes now [default: backup, or oldest without one]
    #[arg(long, value_name = "WHERE", value_parser = ["backup", "oldest", "now"])]
    from: Option<String>,
    /// Go on where the server has purged what was not archived
    #[arg(long)]
    accept_gap: bool,
    /// Take the server for one of the cluster's, where neither its transactions nor backups tell that it is
    #[arg(long)]
    anyway: bool,
    /// At how many bytes a segment ends
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, default_value = "16MiB")]
    segment_size: u64,
}

impl Stream {
    pub(super) async fn run(&self, app: &App) -> Result<Answer> {
        self.common
            .run(app, |options| ReceiveOptions {
                follow: true,
                semi_sync: self.semi_sync,
                store_every: Duration::from_secs(self.store_every),
                ..options
            })
            .await
    }
}

impl Backup {
    pub(super) async fn run(&self, app: &App) -> Result<Answer> {
        self.common.run(app, |options| options).await
    }
}

impl Common {
    async fn run(
        &self,
        app: &App,
        change: impl FnOnce(ReceiveOptions) -> ReceiveOptions,
    ) -> Result<Answer> {
        let cx = &app.cx;
        let cluster = app.cluster(self.cluster.as_ref())?;
        let repo =
            app.repo(RepositoryOptions { writes: true, ..RepositoryOptions::default() }).await?;
        let source = source(app, self.source.as_deref(), &self.defaults_file);
        let source = source.resolve(cx).await?;
        let spool = spool(self.spool.as_ref(), &repo)?;
        let listed = cx.run(repo.backups(cx, Some(&cluster))).await?;
        // Dumps of other programs are no ground for binlogs.
        let manifests = listed.into_iter().filter_map(|listed| listed.manifest.ok());
        let manifests: Vec<Manifest> =
            manifests.filter(|manifest| manifest.strategy != Strategy::Foreign).collect();
        if manifests.is_empty() {
            let text = without_backup(app, &repo, &cluster).await?;
            cx.event(Event::Warning { text });
        }
        let options = ReceiveOptions {
            from: self.from(&cluster, &manifests)?,
            accept_gap: self.accept_gap,
            backups: manifests.iter().map(ReplayBase::of).collect(),
            anyway: self.anyway,
            segment_bytes: self.segment_size,
            spool_limit: self.spool_limit,
            ..ReceiveOptions::new(cluster.clone(), spool)
        };
        let started = cx.now();
        cx.phase("binlog");
        let received = receive(cx, &source, Arc::new(repo), change(options)).await?;
        let seconds = cx.now().duration_since(started).as_secs_f64();
        let mut begun = match received.new_archive && received.segments > 0 {
            true => format!("This is a new archive: the first of cluster {cluster}.\n"),
            false => String::new(),
        };
        if manifests.is_empty() {
            begun
                .push_str(&format!("There is no backup of cluster {cluster} to restore to yet.\n"));
        }
        let answer = answer(&cluster, &source.to_string(), &received, seconds)?;
        Ok(answer.with("backups", json!(manifests.len()), &begun))
    }

    /// Where an archive begins that has nothing yet.
    fn from(&self, cluster: &ClusterName, manifests: &[Manifest]) -> Result<From> {
        match self.from.as_deref() {
            Some("oldest") => return Ok(From::Oldest),
            Some("now") => return Ok(From::Now),
            _ => {}
        }
        let full = |manifest: &&Manifest| {
            manifest.backup_type == BackupType::Full && !manifest.outcome.partial
        };
        match manifests.iter().rfind(full) {
            Some(manifest) => Ok(From::Position(ReplayBase::of(manifest).position)),
            None if self.from.is_some() => {
                Err(Error::usage(format!("the cluster {cluster} has no full backup"))
                    .with_remedy("take one, or begin with --from oldest"))
            }
            None => Ok(From::Oldest),
        }
    }
}

/// What has to be known of a cluster that has no backup: its name may be mistyped.
async fn without_backup(app: &App, repo: &Repo, cluster: &ClusterName) -> Result<String> {
    let mut text = format!(
        "there is no backup of cluster {cluster}: from its binlogs alone nothing can be restored; take one with \
         `holdfast backup`"
    );
    let known = app.cx.run(repo.clusters()).await?;
    if !known.contains(cluster) && !known.is_empty() {
        let names: Vec<&str> = known.iter().map(ClusterName::as_str).collect();
        text.push_str(&format!(
            ". The repository does not know that name yet; its clusters are: {}",
            names.join(", ")
        ));
    }
    Ok(text)
}

/// The spool of a repository.
fn spool(flag: Option<&PathBuf>, repo: &Repo) -> Result<PathBuf> {
    let state = || {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let state = variable("XDG_STATE_HOME").map(PathBuf::from);
        state.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/state")))
    };
    let root = match flag {
        Some(root) => root.clone(),
        None => state()
            .ok_or_else(|| {
                Error::usage("there is no home directory to put the spool into")
                    .with_remedy("name a directory with --spool")
            })?
            .join("holdfast/spool"),
    };
    // What was received for one repository must not end up in another one.
    Ok(root.join(repo.id().to_string()))
}

pub(super) fn answer(
    cluster: &ClusterName,
    source: &str,
    received: &Received,
    seconds: f64,
) -> Result<Answer> {
    let position = &received.position;
    let document = json!({
        "cluster": cluster,
        "source": source,
        "segments": received.segments,
        "put_right": received.put_right,
        "transactions": received.transactions,
        "bytes": received.bytes,
        "bytes_stored": received.stored,
        "bytes_waiting": received.waiting,
        "new_archive": received.new_archive && received.segments > 0,
        "position": position,
        "rpo": received.rpo,
        "duration_seconds": seconds,
        "warnings": received.warnings,
    });
    let mut text = match received.segments {
        0 => format!("Nothing new in the binlogs of {source}.\n"),
        n => format!(
            "Archived {} of {source}: {}, {} ({} stored), in {}.\nUp to: {position}\n",
            human::several(n, "segment"),
            human::several(received.transactions, "transaction"),
            human::bytes(received.bytes),
            human::bytes(received.stored),
            human::duration(seconds),
        ),
    };
    if received.put_right > 0 {
        let segments = human::several(received.put_right, "segment");
        text.push_str(&format!("Whole again in the archive, from these binlogs: {segments}.\n"));
    }
    if let Some(rpo) = &received.rpo {
        let lost = match rpo.seconds {
            Some(0.0) => "nothing that was committed".to_owned(),
            Some(seconds) => {
                format!("the commits of the last {}", human::duration(seconds.max(0.1)))
            }
            None => "nobody knows how much, for nothing has come from it yet".to_owned(),
        };
        let why = if rpo.why.is_empty() { String::new() } else { format!(" ({})", rpo.why) };
        let as_of = human::time(rpo.as_of);
        text.push_str(&format!("If the server is lost now ({as_of}), so may be: {lost}{why}.\n"));
    }
    if received.waiting > 0 {
        text.push_str(&format!("{} still wait in the spool.\n", human::bytes(received.waiting)));
    }
    let ending = (!received.warnings.is_empty()).then_some(ErrorKind::Warnings);
    Ok(Answer::new(&document, human::plain(&text))?.summary().ending(ending))
}
