//! Tables that are encrypted at rest, and targets that have no keys for them.

use backup_core::{ErrorKind, Finding, Flavor, Result, Severity};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::super::catalog::{Catalog, StoredKind};
use super::super::ddl::{Dialect, significant};
use super::super::inventory::ServerFacts;
use super::compat::listed;
use super::target_error;
use crate::connect::sql_error;

/// What the target would refuse when the first of them is created (MySQL: ERROR 3185).
///
/// # Errors
/// When the target does not tell its plugins.
pub(super) async fn findings(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &Catalog,
) -> Result<Vec<Finding>> {
    // The families pass over each other's words.
    if catalog.header.flavor != facts.flavor {
        return Ok(Vec::new());
    }
    let tables = catalog.tables.iter().filter(|table| is_encrypted(&table.create));
    let spaces = catalog
        .stored
        .iter()
        .filter(|object| object.kind == StoredKind::Tablespace && is_encrypted(&object.create));
    let names = tables.map(|table| table.full_name().to_string());
    let names: Vec<String> = names.chain(spaces.map(|space| space.name.clone())).collect();
    if names.is_empty() || has_keys(conn, facts).await? != Some(false) {
        return Ok(Vec::new());
    }
    let (problem, remedy) = match facts.flavor {
        Flavor::MySql => (
            "encrypted at rest, and the target has no keyring to make keys in",
            "load a keyring component in the target (mysqld.my, component_keyring_file), or restore to a server \
             that has one",
        ),
        Flavor::MariaDb => (
            "encrypted at rest, and the target has no plugin that has keys",
            "load a plugin for encryption in the target (plugin_load_add=file_key_management), or restore to a \
             server that has one",
        ),
    };
    let finding = Finding::new(Severity::Error, listed(&names), problem, remedy);
    Ok(vec![finding.with_kind(ErrorKind::Target)])
}

/// `ENCRYPTION = 'Y'` (MySQL), `ENCRYPTED = YES` (MariaDB, which puts the first word between backticks).
fn is_encrypted(create: &str) -> bool {
    let tokens = significant(create, Dialect::default());
    let says = |at: usize, text: &str| {
        tokens
            .get(at)
            .is_some_and(|token| token.text.trim_matches(['`', '\'']).eq_ignore_ascii_case(text))
    };
    (0..tokens.len()).any(|at| {
        let value = if says(at + 1, "=") { at + 2 } else { at + 1 };
        (says(at, "ENCRYPTION") && says(value, "Y"))
            || (says(at, "ENCRYPTED") && says(value, "YES"))
    })
}

/// Whether a server can make keys; `None` where it does not tell this account.
async fn has_keys(conn: &mut Conn, facts: &ServerFacts) -> Result<Option<bool>> {
    let plugins = match facts.flavor {
        Flavor::MySql => {
            "SELECT COUNT(*) FROM information_schema.plugins WHERE plugin_status = 'ACTIVE' AND plugin_type = \
             'KEYRING'"
        }
        Flavor::MariaDb => {
            "SELECT COUNT(*) FROM information_schema.plugins WHERE plugin_status = 'ACTIVE' AND plugin_type = \
             'ENCRYPTION'"
        }
    };
    let failed = |e| target_error(sql_error(e, "cannot list the target's plugins"), facts);
    let plugins: Option<u64> = conn.query_first(plugins).await.map_err(failed)?;
    // Of components only this table tells, and not everybody.
    if plugins != Some(0) || facts.flavor == Flavor::MariaDb || !facts.version.at_least(8, 0, 24) {
        return Ok(Some(plugins != Some(0)));
    }
    let component = "SELECT COUNT(*) FROM performance_schema.keyring_component_status WHERE status_key = \
                     'Component_status' AND status_value = 'Active'";
    match conn.query_first::<u64, _>(component).await {
        Ok(active) => Ok(active.map(|active| active > 0)),
        Err(mysql_async::Error::Server(_)) => Ok(None),
        Err(e) => Err(target_error(sql_error(e, "cannot ask the target for its keyring"), facts)),
    }
}

#[cfg(test)]
mod tests {
    use super::is_encrypted;

    #[test]
    fn what_is_encrypted_says_so() {
        for create in [
            "CREATE TABLE `t` (`a` int) ENGINE=InnoDB /*!80016 ENCRYPTION='Y' */",
            "CREATE TABLESPACE `ts` ADD DATAFILE 'a.ibd' ENCRYPTION = 'Y'",
            "CREATE TABLE `t` (`a` int(11)) ENGINE=InnoDB `ENCRYPTED`=YES `ENCRYPTION_KEY_ID`=2",
        ] {
            assert!(is_encrypted(create), "{create}");
        }
        for create in [
            "CREATE TABLE `t` (`a` int) /*!80016 ENCRYPTION='N' */",
            "CREATE TABLE `t` (`a` int DEFAULT '1' COMMENT 'ENCRYPTION=''Y''')",
            "CREATE TABLE `t` (`a` int(11)) `ENCRYPTED`=NO",
        ] {
            assert!(!is_encrypted(create), "{create}");
        }
    }
}
