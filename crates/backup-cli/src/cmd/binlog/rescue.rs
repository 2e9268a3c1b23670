//! `holdfast binlog rescue`

use std::path::PathBuf;

use backup_core::{BinlogServer, ClusterName, Result};
use backup_drivers::binlog::rescue;
use backup_storage::RepositoryOptions;

use super::receive::answer;
use crate::answer::Answer;
use crate::app::App;

/// Archive what is left in the binlogs of a dead server, from its directory
#[derive(clap::Args)]
pub(super) struct Rescue {
    /// The directory that the binlogs are in
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The cluster whose archive it is
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// The server that wrote them: its server_uuid (MySQL), or id-<server_id> (MariaDB) [default:
    /// what auto.cnf in the directory, or the binlogs themselves say]
    #[arg(long, value_name = "SERVER")]
    server: Option<BinlogServer>,
}

impl Rescue {
    pub(super) async fn run(&self, app: &App) -> Result<Answer> {
        let cx = &app.cx;
        let cluster = app.cluster(self.cluster.as_ref())?;
        let repo = app.repo(RepositoryOptions::default()).await?;
        let started = cx.now();
        cx.phase("binlog rescue");
        let rescued = rescue(cx, &repo, &cluster, &self.directory, self.server.clone()).await?;
        let seconds = cx.now().duration_since(started).as_secs_f64();
        answer(&cluster, &self.directory.display().to_string(), &rescued, seconds)
    }
}
