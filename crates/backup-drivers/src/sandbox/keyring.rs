//! A MySQL that has a keyring of its own.
//!
//! MySQL reads which components to load before everything else from a file `mysqld.my` beside its program
//! (symbolic links followed), and what `component_keyring_file` is to know from a file beside that plugin
//! (<https://dev.mysql.com/doc/refman/8.4/en/keyring-component-installation.html>). Neither belongs into an
//! installation that other servers use; so the sandbox gets a program and a plugin directory of its own.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Flavor, Result, io_error};

use super::install::ServerInstall;

const COMPONENT: &str = "component_keyring_file";

/// Where such a server keeps its keys.
pub(super) fn keys(private: &Path) -> PathBuf {
    private.join("keyring/keys")
}

/// The installation as a server takes it that keeps keys in a file in `private`, a directory of the
/// sandbox.
pub(super) fn equip(install: &ServerInstall, private: &Path) -> Result<ServerInstall> {
    let lacking = || {
        Error::usage(format!(
            "{} {} in {} has no {COMPONENT}",
            install.flavor(),
            install.version(),
            install.base().display()
        ))
        .with_remedy("name an installation of MySQL 8.0.24 or later with its plugins")
    };
    let plugins = install
        .plugins()
        .filter(|dir| dir.join(format!("{COMPONENT}.so")).is_file())
        .ok_or_else(lacking)?;
    if install.flavor() != Flavor::MySql {
        return Err(lacking());
    }
    let make = || -> io::Result<ServerInstall> {
        let home = private.join("keyring");
        let (programs, own_plugins) = (home.join("bin"), home.join("plugin"));
        std::fs::create_dir_all(&programs)?;
        std::fs::create_dir_all(&own_plugins)?;
        let program = programs.join("mysqld");
        // A link would do, where both are on one file system; a symbolic one is followed.
        if std::fs::hard_link(install.server_path(), &program).is_err() {
            std::fs::copy(install.server_path(), &program)?;
        }
        std::fs::write(
            programs.join("mysqld.my"),
            format!("{{\"components\": \"file://{COMPONENT}\"}}"),
        )?;
        // Tarballs find their libraries from the place of the program.
        let libraries = install.base().join("lib");
        if libraries.is_dir() {
            symlink(libraries, home.join("lib"))?;
        }
        for plugin in std::fs::read_dir(plugins)? {
            let plugin = plugin?;
            if plugin.path().extension().is_some_and(|extension| extension == "so") {
                symlink(plugin.path(), own_plugins.join(plugin.file_name()))?;
            }
        }
        let settings = serde_json::json!({"path": keys(private), "read_only": false});
        std::fs::write(own_plugins.join(format!("{COMPONENT}.cnf")), settings.to_string())?;
        Ok(install.moved(program, own_plugins))
    };
    make().map_err(|e| io_error(e, ErrorKind::Target, "cannot make a keyring for a sandbox server"))
}
