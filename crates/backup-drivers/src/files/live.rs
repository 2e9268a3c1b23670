//! What a running server on this machine tells of its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::{Error, ErrorKind, Flavor, Result, SourceInfo};

use super::absent;
use super::catalog::Settings;
use super::cold::keyring;
use super::directory::DataDirectory;
use super::idle;
use super::key_plugin::option_lines;
use super::system::in_one_directory;
use crate::connect::{ConnectOptions, Session};
use crate::innodb::is_tablespace;
use crate::logical::inventory::{self, ServerFacts};

/// How often it is looked again for files that are not there, and after how long.
const AGAIN: usize = 3;
const AFTER: Duration = Duration::from_millis(300);

/// A server that runs here, and its files.
#[derive(Debug, Clone)]
pub(crate) struct LiveServer {
    pub(crate) facts: ServerFacts,
    pub(crate) directory: DataDirectory,
    pub(crate) settings: Settings,
    /// Where its doublewrite buffer is, if that is neither in the data directory nor below it (MySQL).
    pub(crate) doublewrite: Option<PathBuf>,
    address: String,
}

/// Variables that a server must have to find or understand its files, when they are not the defaults.
const SHAPING: [(&str, &[&str]); 6] = [
    ("innodb_data_file_path", &["ibdata1:12M:autoextend"]),
    ("innodb_undo_tablespaces", &["0", "2", "3"]),
    ("innodb_checksum_algorithm", &["crc32", "full_crc32"]),
    ("innodb_encrypt_log", &["OFF"]),
    ("innodb_compression_default", &["OFF"]),
    ("character_set_server", &["utf8mb4", "latin1"]),
];

/// Variables that name files which a server writes to while nobody can change a table, errors and what is asked of it.
const LOGS: [&str; 6] = [
    "general_log_file",
    "slow_query_log_file",
    "log_error",
    "server_audit_file_path",
    "audit_log_file",
    "sql_error_log_filename",
];

impl LiveServer {
    /// Asks a server, and makes sure that its data directory is here.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] when the server runs on another machine, or has files that this user
    /// cannot see.
    pub(crate) async fn find(source: &ConnectOptions) -> Result<Self> {
        let mut session = Session::open(source).await?;
        let facts = inventory::server(session.conn()).await?;
        let rows: Vec<(String, String)> = session.query_rows("SHOW GLOBAL VARIABLES").await?;
        let variables: BTreeMap<String, String> = rows.into_iter().collect();
        let get = |name: &str| variables.get(name).map(String::as_str).filter(|v| !v.is_empty());
        let datadir = PathBuf::from(get("datadir").unwrap_or_default());
        let elsewhere = |name: &str| {
            let path = get(name).filter(|path| !matches!(*path, "." | "./"))?;
            Some(datadir.join(path))
        };
        let directory = DataDirectory {
            redo: elsewhere("innodb_log_group_home_dir"),
            undo: elsewhere("innodb_undo_directory"),
            data: elsewhere("innodb_data_home_dir"),
            aria: elsewhere("aria_log_dir_path"),
            binlogs: None,
            also: Vec::new(),
            logs: LOGS.iter().filter_map(|name| Some(datadir.join(get(name)?))).collect(),
            path: datadir.clone(),
        };
        is_here(&directory, &facts)?;
        let mends = matches!(get("innodb_doublewrite"), Some("ON" | "DETECT_AND_RECOVER"));
        let doublewrite =
            elsewhere("innodb_doublewrite_dir").filter(|at| mends && !is_below(at, &datadir));
        let mut outside = tablespaces(&mut session, &facts).await?;
        let system = system_files(&variables, &directory);
        outside.extend(system.iter().cloned());
        outside.retain(|path| !is_inside(Path::new(path), &directory, &system));
        if let Some(path) = outside.first() {
            return Err(Error::new(
                ErrorKind::Source,
                format!("the tablespace {path} is outside of the data directory"),
            )
            .with_remedy(
                "move it into the data directory; or use the tool of the server (--strategy physical alone), --strategy \
                 logical, or a copy of the stopped server (file:///…?also=/DIR): files of a running server are taken \
                 from one directory tree",
            ));
        }
        let plugins = "SELECT plugin_name, plugin_library, plugin_type FROM information_schema.plugins WHERE \
                       plugin_library IS NOT NULL AND plugin_status = 'ACTIVE'";
        let mut plugins: Vec<(String, String, String)> = session.query_rows(plugins).await?;
        let encrypts = plugins.iter().find(|(.., kind)| kind == "ENCRYPTION");
        let key_plugin = encrypts.map(|(name, library, _)| option_lines(name, library, &variables));
        let plugins: Vec<(String, String)> =
            plugins.drain(..).map(|(name, library, _)| (name, library)).collect();
        let mut rings = keyring(&datadir);
        let keys = |name: &str| name.contains("keyring") || name.contains("key_management");
        rings.extend(plugins.iter().map(|(name, _)| name.clone()).filter(|name| keys(name)));
        let shaping = SHAPING.iter().filter_map(|(name, defaults)| {
            let value = get(name).filter(|value| !defaults.contains(value))?;
            let value = match *name {
                // All of it comes back into one directory.
                "innodb_data_file_path" => in_one_directory(value),
                _ => value.to_owned(),
            };
            Some(((*name).to_owned(), value))
        });
        let settings = Settings {
            page_size: get("innodb_page_size").and_then(|size| size.parse().ok()),
            lower_case_table_names: Some(facts.lower_case_table_names),
            variables: shaping.collect(),
            plugins: plugins.iter().map(|(name, library)| format!("{name}={library}")).collect(),
            keyring: rings,
            key_plugin: key_plugin.unwrap_or_default(),
            keys_in_files: false,
        };
        let live = LiveServer {
            facts,
            directory,
            settings,
            doublewrite,
            address: source.endpoint.to_string(),
        };
        session.close().await?;
        Ok(live)
    }

    /// As [`find`](Self::find), of a server that is copied: [`refuse_unlinked`](Self::refuse_unlinked), too.
    pub(crate) async fn find_whole(source: &ConnectOptions) -> Result<Self> {
        let live = LiveServer::find(source).await?;
        let mut session = Session::open(source).await?;
        live.refuse_unlinked(&mut session).await?;
        session.close().await?;
        Ok(live)
    }

    /// Fails where a tablespace or a definition that the server has is not there any more: it reads a file that somebody
    /// took away for as long as it has it open, and a copy would be without.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] that names it.
    pub(crate) async fn refuse_unlinked(&self, session: &mut Session) -> Result<()> {
        let mut missing = self.unlinked(session).await?;
        // Tables come and go.
        for _ in 0..AGAIN {
            if missing.is_empty() {
                break;
            }
            tokio::time::sleep(AFTER).await;
            let now = self.unlinked(session).await?;
            missing.retain(|path| now.contains(path));
        }
        absent::refuse_live(&missing)
    }

    /// Tablespaces and definitions that the server has, and that are not there.
    async fn unlinked(&self, session: &mut Session) -> Result<Vec<String>> {
        let mut names = tablespaces(session, &self.facts).await?;
        names.retain(|name| is_tablespace(name));
        if self.facts.flavor == Flavor::MariaDb {
            let sql = "SELECT NAME FROM information_schema.INNODB_SYS_TABLES WHERE NAME LIKE '%/%'";
            let tables: Vec<String> = session.query_rows(sql).await?;
            names.extend(tables.iter().filter_map(|name| absent::frm(&format!("{name}.ibd"))));
        }
        let here = |name: &str| self.directory.path.join(name.strip_prefix("./").unwrap_or(name));
        let gone = |name: &String| {
            let path = here(name);
            // A link to a disk that is not mounted is told in its own words.
            let gone = |path: &Path| {
                path.symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
            };
            gone(&path) && gone(&path.with_extension("isl"))
        };
        names.retain(gone);
        names.sort();
        Ok(names.iter().map(|name| name.strip_prefix("./").unwrap_or(name).to_owned()).collect())
    }

    pub(crate) fn source_info(&self) -> SourceInfo {
        SourceInfo {
            flavor: self.facts.flavor,
            version: self.facts.version_text.clone(),
            address: self.address.clone(),
            server_uuid: self.facts.server_uuid.clone(),
            server_id: self.facts.server_id,
            hostname: self.facts.hostname.clone(),
        }
    }
}

/// Whether a directory is another one or below it.
fn is_below(directory: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(directory).starts_with(real(other))
}

/// Whether the server that answered is the one whose files are here.
fn is_here(directory: &DataDirectory, facts: &ServerFacts) -> Result<()> {
    let datadir = &*directory.path;
    let not_here = |why: String| {
        Error::new(
            ErrorKind::Source,
            format!(
                "the data directory {} of the server is not on this machine: {why}",
                datadir.display()
            ),
        )
        .with_remedy(
            "run holdfast on the host of the server, as a user that may read its files, or use \
             --strategy logical",
        )
    };
    // The files by which it is recognised may be elsewhere.
    let sign = match idle::server_on(datadir) {
        Ok(None) => idle::server_on(directory.data()),
        other => other,
    };
    match sign {
        Ok(Some(_)) => {}
        Ok(None) => return Err(not_here("no server runs on the one here".to_owned())),
        Err(e) => return Err(not_here(e.chain())),
    }
    if facts.flavor == Flavor::MySql {
        let here = crate::binlog::auto_cnf(datadir).map(|server| server.as_str().to_owned());
        if here.is_some() && here != facts.server_uuid {
            return Err(not_here("the one here is of another server".to_owned()));
        }
    }
    Ok(())
}

/// The files of all tablespaces, but of temporary ones.
async fn tablespaces(session: &mut Session, facts: &ServerFacts) -> Result<Vec<String>> {
    let sql = match facts.flavor {
        // Undo tablespaces among them.
        Flavor::MySql => {
            "SELECT FILE_NAME FROM information_schema.FILES WHERE FILE_TYPE <> 'TEMPORARY' AND FILE_NAME IS NOT NULL"
        }
        Flavor::MariaDb => {
            "SELECT FILENAME FROM information_schema.INNODB_SYS_TABLESPACES WHERE FILENAME IS NOT NULL AND \
             NAME <> 'innodb_temporary'"
        }
    };
    session.query_rows(sql).await
}

/// The files of the system tablespace, where they need not be in the data directory.
fn system_files(variables: &BTreeMap<String, String>, directory: &DataDirectory) -> Vec<String> {
    let all = variables.get("innodb_data_file_path").map(String::as_str).unwrap_or_default();
    let names = all.split(';').filter_map(|file| file.split(':').next());
    let home = directory.data.clone().unwrap_or_default();
    names.map(|name| home.join(name).to_string_lossy().into_owned()).collect()
}

/// Whether a file is in one of the directories that are copied.
fn is_inside(path: &Path, directory: &DataDirectory, system: &[String]) -> bool {
    let DataDirectory { path: datadir, undo, data, .. } = directory;
    let normal = path.components().all(|part| part != std::path::Component::ParentDir);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let beside = |directory: &Option<PathBuf>, known: bool| {
        known && directory.as_ref().is_some_and(|directory| path.parent() == Some(directory))
    };
    normal
        && (!path.is_absolute()
            || path.starts_with(datadir)
            || beside(undo, name.starts_with("undo") || name.ends_with(".ibu"))
            || beside(data, system.iter().any(|file| Path::new(file) == path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_no_directory_that_is_copied_is_outside() {
        let directory = DataDirectory {
            undo: Some("/undo".into()),
            data: Some("/system".into()),
            ..DataDirectory::new("/data")
        };
        for (path, inside) in [
            ("./shop/t.ibd", true),
            ("undo_001", true),
            ("/data/shop/t.ibd", true),
            ("/undo/undo_001", true),
            ("/undo/more.ibu", true),
            ("/system/ibdata2", true),
            ("../elsewhere/t.ibd", false),
            ("/data/../t.ibd", false),
            ("/undo/shop/t.ibd", false),
            ("/ext/shop/t.ibd", false),
            ("/system/mysys", true),
            ("/system/other1", false),
        ] {
            let system = ["/system/mysys".to_owned(), "/system/ibdata2".to_owned()];
            assert_eq!(is_inside(Path::new(path), &directory, &system), inside, "{path}");
        }
        let all = "ibdata1:12M;/ext/ibdata2:50M:autoextend";
        let variables = BTreeMap::from([("innodb_data_file_path".into(), all.to_owned())]);
        assert_eq!(system_files(&variables, &directory), ["/system/ibdata1", "/ext/ibdata2"]);
        let one = DataDirectory::new("/data");
        assert_eq!(system_files(&variables, &one), ["ibdata1", "/ext/ibdata2"]);
    }
}
