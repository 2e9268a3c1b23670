//! Tables moved from one server of this machine to another as files: transportable tablespaces.
//!
//! ```text
//! source                            target
//!                                   CREATE TABLE (by whoever calls), DISCARD TABLESPACE
//! FLUSH TABLES … FOR EXPORT
//!        t.ibd, t.cfg  ─ copied ─▶  beside its other files, with their owner
//! UNLOCK TABLES                     IMPORT TABLESPACE
//!                                   a checkpoint, where it is a MariaDB
//! ```
//!
//! Nothing of it is in the target's binary log, whose readers do not have the files.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backup_core::{Context, Error, ErrorKind, Flavor, Result, io_error};

use super::live::LiveServer;
use super::target::Room;
use crate::connect::{ConnectOptions, Session};
use crate::innodb::is_device;
use crate::logical::inventory::ServerFacts;
use crate::logical::{TableName, quote_name};
use crate::physical::CHECKPOINT;

/// Endings of the files of a table: its pages, what they look like, the key that encrypted them.
const ENDINGS: [&str; 2] = ["ibd", "cfg"];

/// Two servers of one machine and one series, between which tables move as files.
pub struct Transport {
    source: Session,
    target: Session,
    /// Where the files of the source are.
    from: PathBuf,
    /// Where those of the target are.
    to: PathBuf,
    flavor: Flavor,
}

impl Transport {
    /// From `source`, whose files are in `from`, to `target`. Gives why that cannot be, if so.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn open(
        source: &ConnectOptions,
        from: &Path,
        target: &ConnectOptions,
    ) -> Result<std::result::Result<Transport, String>> {
        let there = match LiveServer::find(target).await {
            Ok(live) => live,
            // It is another machine, most of the time.
            Err(e) if e.kind() == ErrorKind::Source => return Ok(Err(e.chain())),
            Err(e) => return Err(e),
        };
        let mut source = Session::open(source).await?;
        let mut target = Session::open(target).await?;
        let facts = crate::logical::inventory::server(source.conn()).await?;
        if let Some(why) = differ(&facts, &there.facts) {
            return Ok(Err(why));
        }
        let sql = "SELECT @@innodb_page_size";
        let (one, other): (Option<u64>, Option<u64>) =
            (source.query_first(sql).await?, target.query_first(sql).await?);
        if one != other {
            return Ok(Err("the target has pages of another size".to_owned()));
        }
        if let Err(e) = target.run("SET SESSION sql_log_bin = 0, foreign_key_checks = 0").await {
            return Ok(Err(e.chain()));
        }
        Ok(Ok(Transport {
            source,
            target,
            from: from.to_owned(),
            to: there.directory.path,
            flavor: facts.flavor,
        }))
    }

    /// Whether it is a sequence, which is its definition and one number.
    ///
    /// # Errors
    /// What the source says.
    pub async fn is_sequence(&mut self, table: &TableName) -> Result<bool> {
        let sql = "SELECT TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?";
        let found: Vec<String> =
            self.source.exec_rows(sql, (&table.database, &table.table)).await?;
        Ok(found.first().is_some_and(|kind| kind == "SEQUENCE"))
    }

    /// Why a table cannot move as a file, to a table of that name; `None` where it can.
    ///
    /// # Errors
    /// What the source says.
    pub async fn why_not(
        &mut self,
        table: &TableName,
        to: &TableName,
    ) -> Result<Option<&'static str>> {
        let names = [&table.database, &table.table, &to.database, &to.table];
        let plain = |name: &&String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !names.iter().all(plain) || names.iter().any(|name| is_device(name)) {
            return Ok(Some("its name is another one in the file system"));
        }
        let names = (&table.database, &table.table);
        if self.is_sequence(table).await? {
            return Ok(Some("it is a sequence"));
        }
        let sql = "SELECT ENGINE, LOWER(CREATE_OPTIONS) FROM information_schema.TABLES WHERE \
                   TABLE_SCHEMA = ? AND TABLE_NAME = ?";
        let found: Vec<(Option<String>, Option<String>)> =
            self.source.exec_rows(sql, names).await?;
        let (engine, options) = found.into_iter().next().unwrap_or_default();
        if engine.as_deref() != Some("InnoDB") {
            return Ok(Some("it is not of InnoDB"));
        }
        let options = options.unwrap_or_default();
        if options.contains("encrypt") {
            return Ok(Some("it is encrypted"));
        }
        let sql = "SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = ? AND \
                   TABLE_NAME = ? AND INDEX_TYPE = 'FULLTEXT'";
        let full_text: Vec<u64> = self.source.exec_rows(sql, names).await?;
        if full_text.first().is_some_and(|&count| count > 0) {
            return Ok(Some("its full-text indexes have files of their own"));
        }
        if self.flavor == Flavor::MariaDb && self.had_full_text(table).await? {
            return Ok(Some("it had a full-text index once, whose column no definition has"));
        }
        let files = self.files(table)?;
        if options.contains("partitioned") && self.flavor == Flavor::MariaDb {
            // One after the other, under names that are those of their files.
            let sql = "SELECT COUNT(*) FROM information_schema.PARTITIONS WHERE TABLE_SCHEMA = ? AND \
                       TABLE_NAME = ?";
            let there: Vec<u64> = self.source.exec_rows(sql, names).await?;
            if there.first() != Some(&(files.len() as u64)) {
                return Ok(Some("some of its partitions are elsewhere"));
            }
            let plain = |path: &PathBuf| {
                let name = partition(path).and_then(partition_name).unwrap_or_default();
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            };
            if !files.iter().all(plain) {
                return Ok(Some("its partitions have other names in the file system"));
            }
        }
        Ok(files.is_empty().then_some("it has no file of its own"))
    }

    /// Whether its file has the hidden column of full-text indexes, which stays when the last of them is dropped. A
    /// MariaDB imports such a file into a table without, and finds it damaged.
    async fn had_full_text(&mut self, table: &TableName) -> Result<bool> {
        let sql = "SELECT COUNT(*) FROM information_schema.INNODB_SYS_COLUMNS c JOIN \
                   information_schema.INNODB_SYS_TABLES t ON t.TABLE_ID = c.TABLE_ID WHERE t.NAME = CONCAT(?, '/', ?) \
                   AND c.NAME = 'FTS_DOC_ID'";
        let found: Vec<u64> = self.source.exec_rows(sql, (&table.database, &table.table)).await?;
        Ok(found.first().is_some_and(|&count| count > 0))
    }

    /// Moves the rows of `table` into `to`, a table of the same definition that is there and empty. Gives the
    /// bytes of its files.
    ///
    /// # Errors
    /// [`ErrorKind::Space`]; what the servers and the file system say. The table at the target has no rows then,
    /// and none of its files is left.
    pub async fn run(&mut self, cx: &Context, table: &TableName, to: &TableName) -> Result<u64> {
        let files = self.files(table)?;
        let bytes = files.iter().filter_map(|path| path.metadata().ok()).map(|m| m.len()).sum();
        let free = Room::of(&self.to)?.free;
        if bytes > free {
            return Err(Error::new(
                ErrorKind::Space,
                format!("{table} takes {bytes} bytes, and {} has {free}", self.to.display()),
            ));
        }
        let partitioned = files.iter().any(|path| partition(path).is_some());
        let imported = match partitioned && self.flavor == Flavor::MariaDb {
            false => self.import(cx, table, to, &files, partitioned).await,
            true => self.exchange(cx, table, to, &files).await,
        };
        imported?;
        // An import takes the largest number that is used.
        if let Some(next) = self.next_number(table).await? {
            let sql = format!("ALTER TABLE {} AUTO_INCREMENT = {next}", to.quoted());
            self.target.run(&sql).await?;
        }
        Ok(bytes)
    }

    /// Has a MariaDB make a checkpoint: until its next one `mariadb-backup` takes what was imported for dropped, and
    /// leaves it out of backups.
    ///
    /// # Errors
    /// What the target says: it may not know the variable, or its account may not set it.
    pub async fn settle(&mut self) -> Result<()> {
        if self.flavor == Flavor::MySql {
            return Ok(());
        }
        self.target.run(CHECKPOINT).await.map(drop).map_err(|e| {
            e.context(
                "the target made no checkpoint, and until its next one mariadb-backup takes the imported tables for \
                 dropped: a backup fails until then",
            )
        })
    }

    /// Puts files in the place of those of `to`. None of them is left when it fails.
    async fn import(
        &mut self,
        cx: &Context,
        table: &TableName,
        to: &TableName,
        files: &[PathBuf],
        partitioned: bool,
    ) -> Result<()> {
        let part = if partitioned { "PARTITION ALL " } else { "" };
        let (source, target) = (table.quoted(), to.quoted());
        self.target.run(&format!("ALTER TABLE {target} DISCARD {part}TABLESPACE")).await?;
        self.source.run(&format!("FLUSH TABLES {source} FOR EXPORT")).await?;
        let mut placed = Vec::new();
        let copied = self.copy(cx, files, to, partitioned, &mut placed).await;
        self.source.run("UNLOCK TABLES").await?;
        let imported = match copied {
            Ok(()) => {
                let sql = format!("ALTER TABLE {target} IMPORT {part}TABLESPACE");
                self.target.run(&sql).await.map(drop)
            }
            Err(e) => Err(e),
        };
        // What the pages look like is in the dictionary by now.
        let done = imported.is_ok();
        for path in
            placed.iter().filter(|path| !done || path.extension().is_some_and(|e| e == "cfg"))
        {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    let message = format!("cannot remove {}", path.display());
                    return Err(io_error(e, ErrorKind::Target, message));
                }
                _ => {}
            }
        }
        imported
    }

    /// Puts files in the places of the partitions of `to`: MariaDB imports tables only, and takes one for a
    /// partition when all of its rows belong there.
    async fn exchange(
        &mut self,
        cx: &Context,
        table: &TableName,
        to: &TableName,
        files: &[PathBuf],
    ) -> Result<()> {
        let single = TableName {
            database: to.database.clone(),
            table: format!("holdfast_partition_{:016x}", u64::from_le_bytes(cx.random())),
        };
        let (target, alone) = (to.quoted(), single.quoted());
        let mut done = Ok(());
        for file in files {
            let name = partition(file).and_then(partition_name).unwrap_or_default().to_owned();
            done = async {
                self.target.run(&format!("CREATE TABLE {alone} LIKE {target}")).await?;
                self.target.run(&format!("ALTER TABLE {alone} REMOVE PARTITIONING")).await?;
                self.import(cx, table, &single, std::slice::from_ref(file), false).await?;
                let name = quote_name(&name);
                let sql =
                    format!("ALTER TABLE {target} EXCHANGE PARTITION {name} WITH TABLE {alone}");
                self.target.run(&sql).await.map(drop)
            }
            .await;
            self.target.run(&format!("DROP TABLE IF EXISTS {alone}")).await?;
            if done.is_err() {
                break;
            }
        }
        done
    }

    /// What `AUTO_INCREMENT` gives next.
    async fn next_number(&mut self, table: &TableName) -> Result<Option<u64>> {
        if self.flavor == Flavor::MySql {
            self.source.run("SET SESSION information_schema_stats_expiry = 0").await?;
        }
        let sql = "SELECT AUTO_INCREMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?";
        let names = (&table.database, &table.table);
        let found: Vec<Option<u64>> = self.source.exec_rows(sql, names).await?;
        Ok(found.into_iter().next().flatten())
    }

    /// The tablespaces of a table of the source.
    fn files(&self, table: &TableName) -> Result<Vec<PathBuf>> {
        let directory = self.from.join(&table.database);
        let failed = |e| {
            io_error(e, ErrorKind::Internal, format!("cannot look into {}", directory.display()))
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let name = stem.find(['#']).map_or(stem, |at| &stem[..at]);
            if path.extension().is_some_and(|e| e == "ibd") && name == table.table {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// Copies files to the place of `to`. `placed` has those that are there, also when it fails.
    async fn copy(
        &self,
        cx: &Context,
        files: &[PathBuf],
        to: &TableName,
        partitioned: bool,
        placed: &mut Vec<PathBuf>,
    ) -> Result<()> {
        let directory = self.to.join(&to.database);
        for file in files {
            let part = partition(file).filter(|_| partitioned).unwrap_or_default();
            let name = format!("{}{part}", to.table);
            for ending in ENDINGS {
                cx.check()?;
                let (from, to) =
                    (file.with_extension(ending), directory.join(format!("{name}.{ending}")));
                // What somebody else put there stays.
                if to.symlink_metadata().is_err() {
                    placed.push(to.clone());
                }
                let copied = tokio::task::spawn_blocking({
                    let to = to.clone();
                    move || place(&from, &to)
                });
                copied
                    .await
                    .map_err(|e| Error::internal("a copy was lost").with_source(e))?
                    .map_err(|e| {
                        io_error(e, ErrorKind::Target, format!("cannot write {}", to.display()))
                    })?;
            }
        }
        Ok(())
    }
}

/// Why servers cannot take each other's tablespaces.
fn differ(source: &ServerFacts, target: &ServerFacts) -> Option<String> {
    let of = |facts: &ServerFacts| format!("{} {}", facts.flavor, facts.version);
    let same = source.flavor == target.flavor
        && source.version.series() == target.version.series()
        && target.version.patch() >= source.version.patch();
    if !same {
        return Some(format!("the target is {}, and the backup of {}", of(target), of(source)));
    }
    let names = source.lower_case_table_names != target.lower_case_table_names;
    names.then(|| "the target has other rules for the case of names".to_owned())
}

/// What is exchanged: `p0` of `#P#p0`, `s1` of `#P#p0#SP#s1`.
fn partition_name(ending: &str) -> Option<&str> {
    ending.rsplit('#').next()
}

/// `#P#p0` of `t#P#p0.ibd`.
fn partition(path: &Path) -> Option<&str> {
    let stem = path.file_stem()?.to_str()?;
    stem.find('#').map(|at| &stem[at..])
}

/// Copies a file that is not there yet, for the owner of the directory, and syncs it.
fn place(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut reader = std::fs::File::open(from)?;
    let mut writer = std::fs::File::create_new(to)?;
    std::io::copy(&mut reader, &mut writer)?;
    let directory = to.parent().unwrap_or(Path::new(".")).metadata()?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::fchown(&writer, Some(directory.uid()), Some(directory.gid()))?;
    }
    writer.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o660))?;
    writer.sync_all()
}
