//! The server that all tools read and write in one run.

use std::path::Path;
use std::time::{Duration, Instant};

use backup_core::{Context, Error, ErrorKind, Flavor, Result, io_error};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::sandbox::{Sandbox, SandboxBuilder, ServerInstall};

use crate::shop;

/// Settings of a server that keeps what it acknowledged, and has the data in memory.
const SETTINGS: [(&str, &str); 6] = [
    ("innodb_buffer_pool_size", "3G"),
    ("innodb_flush_log_at_trx_commit", "1"),
    ("sync_binlog", "1"),
    ("innodb_io_capacity", "5000"),
    ("max_allowed_packet", "64M"),
    ("local_infile", "ON"),
];

/// How long cleaning up after a load may take.
const CALM: Duration = Duration::from_secs(300);

/// A server with a session of ours.
pub(crate) struct Server {
    sandbox: Sandbox,
    session: Session,
    binary_log: bool,
    /// How large its redo log was made.
    redo_log: Option<String>,
}

impl Server {
    /// Starts it, with its data below `directory`, with or without a binary log, and with a redo log of this size.
    pub(crate) async fn start(
        name: &str,
        directory: &Path,
        binary_log: bool,
        redo_log: &str,
        cx: &Context,
    ) -> Result<Server> {
        let install = xtask::servers::install(name)?;
        let mut builder = Sandbox::builder(&install).directory(directory).durable(true);
        for (name, value) in SETTINGS.into_iter().chain([redo(install.flavor(), redo_log)]) {
            builder = builder.option(name, value);
        }
        let mut server = Server::launch(builder, binary_log, cx).await?;
        server.redo_log = Some(redo_log.to_owned());
        Ok(server)
    }

    /// Starts it on the data directory `data`, which is made when it is missing and stays. No binary
    /// log, and the redo log of a server that nobody has set up.
    pub(crate) async fn on(name: &str, data: &Path, cx: &Context) -> Result<Server> {
        let install = xtask::servers::install(name)?;
        let mut builder = Sandbox::builder(&install).datadir(data).durable(false);
        for (name, value) in SETTINGS {
            builder = builder.option(name, value);
        }
        Server::launch(builder, false, cx).await
    }

    async fn launch(builder: SandboxBuilder, binary_log: bool, cx: &Context) -> Result<Server> {
        let builder = builder
            .binary_log(binary_log)
            .start_timeout(Duration::from_secs(300))
            .stop_timeout(Duration::from_secs(300));
        let sandbox = builder.start(cx).await?;
        let session = Session::open(&ConnectOptions::socket(sandbox.socket(), "root")).await?;
        Ok(Server { sandbox, session, binary_log, redo_log: None })
    }

    /// Its installation.
    pub(crate) fn install(&self) -> &ServerInstall {
        self.sandbox.install()
    }

    /// MySQL or MariaDB.
    pub(crate) fn flavor(&self) -> Flavor {
        self.install().flavor()
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> std::path::PathBuf {
        self.sandbox.socket()
    }

    /// Its address as holdfast takes it.
    pub(crate) fn url(&self) -> String {
        format!("mysql://root@localhost/?socket={}", self.socket().display())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.sandbox.pid().ok_or_else(|| {
            Error::new(ErrorKind::Target, "the server has died")
                .with_remedy("see what the kernel's log says of memory")
        })
    }

    /// How it runs, in words.
    pub(crate) fn describe(&self) -> String {
        let settings: Vec<String> = SETTINGS
            .into_iter()
            .chain(self.redo_log.as_deref().map(|size| redo(self.flavor(), size)))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        format!(
            "{} {} on a Unix socket, binary log {}, {}",
            self.install().flavor(),
            self.install().version(),
            if self.binary_log { "on" } else { "off" },
            settings.join(" ")
        )
    }

    /// Runs a statement.
    pub(crate) async fn sql(&mut self, sql: &str) -> Result<u64> {
        self.session.run(sql).await
    }

    /// Makes the database and its tables, and loads them from the files in `directory`.
    pub(crate) async fn fill(&mut self, directory: &Path) -> Result<()> {
        self.make_tables().await?;
        for table in &shop::TABLES {
            self.sql(&table.load(directory, false)).await?;
        }
        for table in &shop::TABLES {
            self.sql(&format!("ANALYZE TABLE {}", table.name)).await?;
        }
        Ok(())
    }

    /// Makes the database with empty tables.
    pub(crate) async fn make_tables(&mut self) -> Result<()> {
        let database = shop::DATABASE;
        self.sql("SET SESSION sql_log_bin = 0, unique_checks = 0, foreign_key_checks = 0").await?;
        self.sql(&format!("CREATE DATABASE {database} DEFAULT CHARACTER SET utf8mb4")).await?;
        self.sql(&format!("USE {database}")).await?;
        for table in &shop::TABLES {
            self.sql(&table.create()).await?;
        }
        Ok(())
    }

    /// Drops the database.
    pub(crate) async fn empty(&mut self) -> Result<()> {
        self.sql(&format!("DROP DATABASE IF EXISTS {}", shop::DATABASE)).await.map(drop)
    }

    /// The server's own checksum of each table.
    pub(crate) async fn checksums(&mut self) -> Result<Vec<(String, Option<u64>)>> {
        let tables: Vec<String> =
            shop::TABLES.iter().map(|table| format!("{}.{}", shop::DATABASE, table.name)).collect();
        self.session.query_rows(&format!("CHECKSUM TABLE {} EXTENDED", tables.join(", "))).await
    }

    /// Waits until the server has written its dirty pages and purged old versions of rows, so that
    /// none of it happens in the time of whatever is measured next.
    pub(crate) async fn calm(&mut self) -> Result<()> {
        let history = match self.flavor() {
            Flavor::MySql => {
                "SELECT COUNT FROM information_schema.INNODB_METRICS \
                 WHERE NAME = 'trx_rseg_history_len'"
            }
            Flavor::MariaDb => {
                "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS \
                 WHERE VARIABLE_NAME = 'Innodb_history_list_length'"
            }
        };
        let percent: Option<f64> =
            self.session.query_first("SELECT @@GLOBAL.innodb_max_dirty_pages_pct").await?;
        self.sql("SET GLOBAL innodb_max_dirty_pages_pct = 0").await?;
        let began = Instant::now();
        while began.elapsed() < CALM {
            let dirty: Option<(String, u64)> = self
                .session
                .query_first("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'")
                .await?;
            let history: Option<u64> = self.session.query_first(history).await?;
            if dirty.is_some_and(|(_, pages)| pages < 100) && history.is_some_and(|n| n < 1000) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let percent = percent.unwrap_or(90.0);
        self.sql(&format!("SET GLOBAL innodb_max_dirty_pages_pct = {percent}")).await.map(drop)
    }

    /// Shuts it down.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.session.close().await?;
        self.sandbox.stop().await
    }
}

/// The setting of the redo log.
fn redo(flavor: Flavor, size: &str) -> (&'static str, &str) {
    match flavor {
        Flavor::MySql => ("innodb_redo_log_capacity", size),
        Flavor::MariaDb => ("innodb_log_file_size", size),
    }
}

/// An error of a file of ours.
pub(crate) fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let message = format!("cannot write {}", path.display());
    move |e| io_error(e, ErrorKind::Internal, message)
}
