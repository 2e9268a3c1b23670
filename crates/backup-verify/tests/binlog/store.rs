//! A repository that an archive is in.

use std::path::PathBuf;
use std::sync::Arc;

use backup_core::{ClusterName, Context, SegmentInfo, SegmentStore};
use backup_drivers::binlog::{ReceiveOptions, Received, receive};
use backup_storage::{Repo, RepoUrl, RepositoryOptions, StoreOptions, Unlock};
use tempfile::TempDir;

use crate::server::Server;

pub(crate) struct Store {
    pub(crate) cx: Context,
    pub(crate) repo: Repo,
    directory: TempDir,
}

impl Store {
    pub(crate) async fn new() -> Store {
        let cx = Context::builder().build();
        let directory = TempDir::new().unwrap();
        let url = directory.path().join("repo").to_str().unwrap().parse::<RepoUrl>().unwrap();
        let repo = Repo::init(&cx, &url, options()).await.unwrap();
        Store { cx, repo, directory }
    }

    /// The repository once more, reached in another way.
    pub(crate) async fn reopened(&self, how: StoreOptions) -> Repo {
        let url = RepoUrl::from(self.path("repo"));
        let store = backup_storage::Store::open(&self.cx, &url, &how).await.unwrap();
        Repo::open_on(&self.cx, store, options()).await.unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn options(&self) -> ReceiveOptions {
        ReceiveOptions::new(cluster(), self.path("spool"))
    }

    /// Archives everything up to now.
    pub(crate) async fn archive(&self, server: &Server) -> Received {
        let repo = Arc::new(self.repo.clone());
        receive(&self.cx, &server.options(), repo, self.options())
            .await
            .unwrap_or_else(|e| panic!("{}", e.report()))
    }

    pub(crate) async fn segments(&self) -> Vec<SegmentInfo> {
        let listed = self.repo.segments(&self.cx, &cluster()).await.unwrap();
        listed.into_iter().map(|listed| listed.info.unwrap()).collect()
    }
}

fn options() -> RepositoryOptions {
    let unlock = Some(Unlock::Passphrase(backup_core::Secret::new("secret".to_owned())));
    RepositoryOptions { unlock, ..RepositoryOptions::default() }
}

pub(crate) fn cluster() -> ClusterName {
    "shop".parse().unwrap()
}
