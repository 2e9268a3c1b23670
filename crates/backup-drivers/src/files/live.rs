//! What a running server on this machine tells of its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Flavor, Result, SourceInfo};

use super::catalog::Settings;
use super::cold::keyring;
use super::directory::DataDirectory;
use super::idle;
use crate::connect::{ConnectOptions, Session};
use crate::logical::inventory::{self, ServerFacts};

/// A server that runs here, and its files.
#[derive(Debug, Clone)]
pub(crate) struct LiveServer {
    pub(crate) facts: ServerFacts,
    pub(crate) directory: DataDirectory,
    pub(crate) settings: Settings,
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
            binlogs: None,
            also: Vec::new(),
            path: datadir.clone(),
        };
        is_here(&datadir, &facts)?;
        let outside = outside(&mut session, &facts, &datadir).await?;
        if let Some(path) = outside.first() {
            return Err(Error::new(
                ErrorKind::Source,
                format!("the tablespace {path} is outside of the data directory"),
            )
            .with_remedy(
                "move it into the data directory, or use --strategy logical: files of a running \
                 server are taken from one directory tree",
            ));
        }
        let plugins = "SELECT plugin_name, plugin_library FROM information_schema.plugins WHERE \
                       plugin_library IS NOT NULL AND plugin_status = 'ACTIVE'";
        let plugins: Vec<(String, String)> = session.query_rows(plugins).await?;
        session.close().await?;
        let mut rings = keyring(&datadir);
        let keys = |name: &str| name.contains("keyring") || name.contains("key_management");
        rings.extend(plugins.iter().map(|(name, _)| name.clone()).filter(|name| keys(name)));
        let shaping = SHAPING.iter().filter_map(|(name, defaults)| {
            let value = get(name).filter(|value| !defaults.contains(value))?;
            Some(((*name).to_owned(), value.to_owned()))
        });
        let settings = Settings {
            page_size: get("innodb_page_size").and_then(|size| size.parse().ok()),
            lower_case_table_names: Some(facts.lower_case_table_names),
            variables: shaping.collect(),
            plugins: plugins.iter().map(|(name, library)| format!("{name}={library}")).collect(),
            keyring: rings,
            keys_in_files: false,
        };
        Ok(LiveServer { facts, directory, settings, address: source.endpoint.to_string() })
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

/// Whether the server that answered is the one whose files are here.
fn is_here(datadir: &Path, facts: &ServerFacts) -> Result<()> {
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
    match idle::holder(datadir) {
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

/// Tablespaces that are not below the data directory.
async fn outside(
    session: &mut Session,
    facts: &ServerFacts,
    datadir: &Path,
) -> Result<Vec<String>> {
    let sql = match facts.flavor {
        Flavor::MySql => "SELECT PATH FROM information_schema.INNODB_DATAFILES",
        Flavor::MariaDb => {
            "SELECT FILENAME FROM information_schema.INNODB_SYS_TABLESPACES WHERE FILENAME IS NOT NULL"
        }
    };
    let paths: Vec<String> = session.query_rows(sql).await?;
    let outside = |path: &String| {
        let at = Path::new(path);
        let normal = at.components().all(|part| part != std::path::Component::ParentDir);
        at.is_absolute() && !at.starts_with(datadir) || !normal
    };
    Ok(paths.into_iter().filter(outside).collect())
}
