//! A donor, a repository, and servers on what was restored.

use backup_core::{BackupSpec, BackupType, Context, Manifest, Result, Secret, Strategy, pipeline};
use backup_drivers::clone::{CloneBackup, CloneOptions};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::files::{FilesRestore, FilesRestoreOptions};
use backup_drivers::sandbox::{Sandbox, SandboxBuilder};
use backup_storage::{Repo, RepoUrl, RepositoryOptions, Unlock};
use tempfile::TempDir;

pub(crate) const MYSQL: &str = "mysql-9.7";

pub(crate) struct Stage {
    pub(crate) cx: Context,
    pub(crate) donor: Sandbox,
    pub(crate) repository: Repo,
    pub(crate) directory: TempDir,
}

/// What every clone here is.
pub(crate) fn spec() -> BackupSpec {
    BackupSpec {
        cluster: "test".parse().unwrap(),
        strategy: Strategy::Clone,
        backup_type: BackupType::Full,
        parent: None,
    }
}

impl Stage {
    pub(crate) async fn new(describe: impl FnOnce(SandboxBuilder) -> SandboxBuilder) -> Stage {
        let cx = Context::builder().build();
        let directory = TempDir::new().unwrap();
        let builder = xtask::servers::sandbox(MYSQL).await.unwrap().tcp(true);
        let builder = builder.option("plugin-load-add", "clone=mysql_clone.so");
        let donor = describe(builder).start(&cx).await.unwrap();
        let url = directory.path().join("repo").to_str().unwrap().parse::<RepoUrl>().unwrap();
        let unlock = Some(Unlock::Passphrase(Secret::new("secret".to_owned())));
        let options = RepositoryOptions { unlock, ..RepositoryOptions::default() };
        let repository = Repo::init(&cx, &url, options).await.unwrap();
        Stage { cx, donor, repository, directory }
    }

    pub(crate) fn source(&self) -> ConnectOptions {
        ConnectOptions::socket(self.donor.socket(), "root")
    }

    /// Over TCP, encrypted as far as nobody asks for something else.
    pub(crate) fn tcp(&self, user: &str, password: &str) -> ConnectOptions {
        let password = Secret::new(password.to_owned());
        ConnectOptions::tcp("127.0.0.1", self.donor.port().unwrap(), user).with_password(password)
    }

    pub(crate) async fn session(&self) -> Session {
        Session::open(&self.source()).await.unwrap()
    }

    pub(crate) fn options(&self) -> CloneOptions {
        CloneOptions::new(self.directory.path())
    }

    pub(crate) async fn try_backup(
        &self,
        cx: &Context,
        source: ConnectOptions,
    ) -> Result<Manifest> {
        let driver = CloneBackup::new(source, self.options());
        pipeline::backup(cx, &self.repository, &driver, spec()).await
    }

    pub(crate) async fn backup(&self) -> Manifest {
        let taken = self.try_backup(&self.cx, self.source()).await;
        taken.unwrap_or_else(|e| panic!("{}", e.report()))
    }

    /// A server on the restored files.
    pub(crate) async fn restored(
        &self,
        manifest: &Manifest,
        describe: impl FnOnce(SandboxBuilder) -> SandboxBuilder,
    ) -> Restored {
        let data = TempDir::new_in(self.directory.path()).unwrap();
        let path = data.path().join("data");
        let driver = FilesRestore::new(&path, FilesRestoreOptions::default());
        pipeline::restore(&self.cx, &self.repository, &driver, manifest)
            .await
            .unwrap_or_else(|e| panic!("{}", e.report()));
        let builder = xtask::servers::sandbox(MYSQL).await.unwrap().datadir(&path).durable(false);
        let builder = builder.option("plugin-load-add", "clone=mysql_clone.so");
        let server =
            describe(builder).start(&self.cx).await.unwrap_or_else(|e| panic!("{}", e.report()));
        Restored { server, _data: data }
    }
}

pub(crate) struct Restored {
    pub(crate) server: Sandbox,
    _data: TempDir,
}

impl Restored {
    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions::socket(self.server.socket(), "root")
    }

    pub(crate) async fn session(&self) -> Session {
        Session::open(&self.options()).await.unwrap()
    }

    /// `CHECK TABLE … EXTENDED` of every InnoDB table.
    pub(crate) async fn check_tables(&self) {
        let mut session = self.session().await;
        let tables: Vec<String> = session
            .query_rows(
                "SELECT CONCAT('`', TABLE_SCHEMA, '`.`', TABLE_NAME, '`') \
                 FROM information_schema.TABLES WHERE ENGINE = 'InnoDB' \
                 AND TABLE_SCHEMA NOT IN ('mysql', 'sys', 'performance_schema')",
            )
            .await
            .unwrap();
        for table in tables {
            let checked = session.query_rows(&format!("CHECK TABLE {table} EXTENDED")).await;
            let rows: Vec<(String, String, String, String)> = checked.unwrap_or_else(|e| {
                let log = std::fs::read_to_string(self.server.error_log()).unwrap_or_default();
                panic!("{}\n{log}", e.report())
            });
            assert!(rows.iter().all(|row| row.3 == "OK"), "{rows:?}");
        }
    }
}

pub(crate) async fn run(session: &mut Session, statements: &[&str]) {
    for sql in statements {
        session.run(sql).await.unwrap_or_else(|e| panic!("{}\n{sql}", e.report()));
    }
}

/// `CHECKSUM TABLE` of every table outside the server's own databases.
pub(crate) async fn checksums(session: &mut Session) -> Vec<(String, Option<u64>)> {
    let tables: Vec<String> = session
        .query_rows(
            "SELECT CONCAT('`', TABLE_SCHEMA, '`.`', TABLE_NAME, '`') \
             FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' AND ENGINE = 'InnoDB' \
             AND TABLE_SCHEMA NOT IN ('mysql', 'sys', 'performance_schema') ORDER BY 1",
        )
        .await
        .unwrap();
    let mut sums = Vec::new();
    for table in tables {
        let sum: Option<(String, Option<u64>)> =
            session.query_first(&format!("CHECKSUM TABLE {table}")).await.unwrap();
        sums.push(sum.unwrap());
    }
    sums
}
