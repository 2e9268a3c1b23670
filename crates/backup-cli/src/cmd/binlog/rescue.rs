//! `holdfast binlog rescue`

use std::path::PathBuf;

use backup_core::{BinlogFile, BinlogServer, ClusterName, ReplayBase, Repository, Result};
use backup_drivers::binlog::{RescueOptions, rescue};
use backup_storage::RepositoryOptions;

use super::receive::answer;
use crate::answer::Answer;
use crate::app::App;

/// Archive what is left in the binlogs of a dead server, from its directory or from what MHA saved
#[derive(clap::Args)]
pub(super) struct Rescue {
    /// The directory that the binlogs are in; or a file saved_master_binlog_from_… of MHA's, or the directory
    /// that holds such
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The cluster whose archive it is
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// The server that wrote them: its server_uuid (MySQL), or id-<server_id> (MariaDB) [default:
    /// what auto.cnf in the directory, or the binlogs themselves say]
    #[arg(long, value_name = "SERVER")]
    server: Option<BinlogServer>,
    /// The binlog in which a file of MHA's begins, as MHA's log names it [default: what the events in it,
    /// or the archive, say]
    #[arg(long, value_name = "FILE")]
    first_file: Option<BinlogFile>,
    /// Take them for the cluster's, and --server for who wrote them, whatever auto.cnf or the binlogs
    /// themselves say
    #[arg(long)]
    anyway: bool,
    /// The repository need not know the cluster yet
    #[arg(long)]
    new_cluster: bool,
}

impl Rescue {
    pub(super) async fn run(&self, app: &App) -> Result<Answer> {
        let cx = &app.cx;
        let cluster = app.cluster(self.cluster.as_ref())?;
        let repo =
            app.repo(RepositoryOptions { writes: true, ..RepositoryOptions::default() }).await?;
        if !self.new_cluster {
            app.known(&repo, Some(&cluster), &cluster).await.map_err(|e| {
                let remedy = format!("{}; --new-cluster begins one", e.remedy());
                e.with_remedy(remedy)
            })?;
        }
        let started = cx.now();
        cx.phase("binlog rescue");
        let (server, first_file) = (self.server.clone(), self.first_file.clone());
        let listed = cx.run(repo.backups(cx, Some(&cluster))).await?;
        let backups = listed.iter().filter_map(|l| l.manifest.as_ref().ok());
        let backups = backups.map(ReplayBase::of).collect();
        let options = RescueOptions { server, first_file, anyway: self.anyway, backups };
        let rescued = rescue(cx, &repo, &cluster, &self.path, options).await?;
        let seconds = cx.now().duration_since(started).as_secs_f64();
        answer(&cluster, &self.path.display().to_string(), &rescued, seconds)
    }
}
