//! Binlogs: applied to a server beside `mysqlbinlog | mysql`, and received beside
//! `mysqlbinlog --raw`.

mod load;
mod receive;
mod replay;

use std::path::Path;
use std::sync::Arc;

use backup_core::{ClusterName, Context, Result, SegmentInfo, SegmentStore};
use backup_drivers::binlog::{ReceiveOptions, Received};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::sandbox::Sandbox;
use backup_storage::{Repo, RepoUrl, RepositoryOptions};

pub(crate) use receive::{RECEIVE, measure as receive, ours};
pub(crate) use replay::measure as replay;

/// A server on which commits last, as users have them: binlog on, synced at each commit.
async fn durable(name: &str, options: &[(&str, &str)], cx: &Context) -> Result<Sandbox> {
    let install = xtask::servers::install(name)?;
    let mut builder = Sandbox::builder(&install).durable(true).tcp(true);
    for (name, value) in [("innodb_buffer_pool_size", "512M")].iter().chain(options) {
        builder = builder.option(*name, *value);
    }
    builder.start(cx).await
}

fn root(server: &Sandbox) -> ConnectOptions {
    ConnectOptions::socket(server.socket(), "root")
}

/// The rows of the tables, as the server sums them up.
async fn content(server: &Sandbox) -> Result<Vec<(String, Option<u64>)>> {
    let mut session = Session::open(&root(server)).await?;
    let names: Vec<String> = (0..load::TABLES).map(|n| format!("sbtest.sbtest{n}")).collect();
    let sums = session.query_rows(&format!("CHECKSUM TABLE {}", names.join(", "))).await?;
    session.close().await?;
    Ok(sums)
}

/// A repository with the archive of one server.
struct Archive {
    repo: Repo,
    cluster: ClusterName,
}

impl Archive {
    async fn begin(cx: &Context, place: &Path) -> Result<Archive> {
        let url: RepoUrl = place.display().to_string().parse()?;
        let repo = Repo::init(cx, &url, RepositoryOptions::default()).await?;
        Ok(Archive { repo, cluster: "bench".parse()? })
    }

    async fn receive(&self, cx: &Context, server: &Sandbox, spool: &Path) -> Result<Received> {
        let options = ReceiveOptions::new(self.cluster.clone(), spool.to_owned());
        let repo = Arc::new(self.repo.clone());
        backup_drivers::binlog::receive(cx, &root(server), repo, options).await
    }

    async fn segments(&self, cx: &Context) -> Result<Vec<SegmentInfo>> {
        let listed = self.repo.segments(cx, &self.cluster).await?;
        listed.into_iter().map(|listed| listed.info).collect()
    }
}

/// Names of a server's binlogs, and their length together.
async fn binlogs(server: &Sandbox) -> Result<(Vec<String>, u64)> {
    let mut session = Session::open(&root(server)).await?;
    let rows: Vec<mysql_async::Row> = session.query_rows("SHOW BINARY LOGS").await?;
    session.close().await?;
    let names = rows.iter().filter_map(|row| row.get(0)).collect();
    let len = rows.iter().filter_map(|row| row.get::<u64, _>(1)).sum();
    Ok((names, len))
}
