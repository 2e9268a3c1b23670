//! A source, a target, and a repository between them.

use backup_core::{BackupSpec, BackupType, Context, Manifest, Restored, Strategy, pipeline};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::logical::{
    LogicalBackup, LogicalOptions, LogicalRestore, LogicalRestoreOptions,
};
use backup_drivers::sandbox::Sandbox;
use backup_storage::{Repo, RepoUrl, RepositoryOptions};
use tempfile::TempDir;

/// Two servers of one kind, and a repository.
pub(crate) struct Pair {
    pub(crate) cx: Context,
    pub(crate) source: Sandbox,
    pub(crate) target: Sandbox,
    pub(crate) repository: Repo,
    _directory: TempDir,
}

/// What every backup here is.
pub(crate) fn spec() -> BackupSpec {
    BackupSpec {
        cluster: "test".parse().unwrap(),
        strategy: Strategy::Logical,
        backup_type: BackupType::Full,
        parent: None,
    }
}

impl Pair {
    /// Starts both servers in a time zone of their own.
    pub(crate) async fn start(server: &str) -> Pair {
        Pair::start_with(server, &[]).await
    }

    /// The same, with options of the server.
    pub(crate) async fn start_with(server: &str, options: &[(&str, &str)]) -> Pair {
        Pair::start_between(server, server, options).await
    }

    /// Two servers of different versions.
    pub(crate) async fn start_between(from: &str, to: &str, options: &[(&str, &str)]) -> Pair {
        let cx = Context::builder().threads(3).build();
        let directory = TempDir::new().unwrap();
        let start = async |server: &str, zone: &str| {
            let mut builder = xtask::servers::sandbox(server).await.unwrap();
            for (name, value) in options {
                builder = builder.option(*name, *value);
            }
            builder.option("default-time-zone", zone).start(&cx).await.unwrap()
        };
        let source = start(from, "+05:45").await;
        let target = start(to, "-03:30").await;
        let url = directory.path().join("repo").to_str().unwrap().parse::<RepoUrl>().unwrap();
        let repository = Repo::init(&cx, &url, RepositoryOptions::default()).await.unwrap();
        Pair { cx, source, target, repository, _directory: directory }
    }

    pub(crate) fn source(&self) -> ConnectOptions {
        ConnectOptions::socket(self.source.socket(), "root")
    }

    pub(crate) fn target(&self) -> ConnectOptions {
        ConnectOptions::socket(self.target.socket(), "root")
    }

    pub(crate) async fn backup(&self, options: LogicalOptions) -> Manifest {
        let driver = LogicalBackup::new(self.source(), options);
        pipeline::backup(&self.cx, &self.repository, &driver, spec()).await.unwrap()
    }

    pub(crate) async fn restore(
        &self,
        manifest: &Manifest,
        options: LogicalRestoreOptions,
    ) -> Restored {
        let driver = LogicalRestore::new(self.target(), options);
        pipeline::restore(&self.cx, &self.repository, &driver, manifest).await.unwrap()
    }

    pub(crate) async fn stop(mut self) {
        self.source.stop().await.unwrap();
        self.target.stop().await.unwrap();
    }
}

/// Runs a file of statements that end with `;;`.
pub(crate) async fn run_script(session: &mut Session, script: &str) {
    session.run("SET NAMES utf8mb4").await.unwrap();
    for statement in script.split(";;\n") {
        let text: String =
            statement.lines().filter(|l| !l.starts_with("-- ")).collect::<Vec<_>>().join("\n");
        if !text.trim().is_empty() {
            session.run(&text).await.unwrap_or_else(|e| panic!("{}\n{text}", e.report()));
        }
    }
}
