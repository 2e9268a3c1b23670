//! The settings of a server that is to be started by somebody else, as the server itself reads them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use backup_core::{Error, Result};

use super::install::{ServerInstall, option};

/// What stands for a value that is not there.
const NONE: &str = "(No default value)";

/// What a server would run with that is started with an option file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerConfig {
    values: BTreeMap<String, String>,
}

impl ServerConfig {
    /// Has the server of `install` read `file`, with all files that it includes, and say what comes of it. The
    /// server does not start: `--verbose --help` needs no data directory, and blocks for some tens of
    /// milliseconds.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) where the server does not take the file, in its own
    /// words.
    pub fn read(install: &ServerInstall, file: &Path) -> Result<ServerConfig> {
        let failed = || {
            Error::usage(format!(
                "{} {} does not start with {}",
                install.flavor(),
                install.version(),
                file.display()
            ))
            .with_remedy("mend the file, or name the server it is meant for with --server-dir")
        };
        if !file.is_file() {
            return Err(Error::usage(format!("there is no option file {}", file.display()))
                .with_remedy("name the one that the server on these files is to be started with"));
        }
        let output = install
            .server_command_with(option("defaults-file", file))
            .args(["--verbose", "--help"])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| failed().with_source(e))?;
        let config = Self::parse(&String::from_utf8_lossy(&output.stdout));
        // MySQL says what it could not read, shows the help all the same, and is content.
        let said = String::from_utf8_lossy(&output.stderr);
        let errors: Vec<&str> = said.lines().filter(|line| line.contains("[ERROR]")).collect();
        if !errors.is_empty() {
            return Err(failed().with_source(errors.join("; ")));
        }
        match output.status.success() && !config.values.is_empty() {
            true => Ok(config),
            false => Err(failed().with_source(said.trim().to_owned())),
        }
    }

    /// Reads the table at the end of the help: names padded with spaces, below a line of dashes.
    fn parse(help: &str) -> ServerConfig {
        let rows = help.lines().skip_while(|line| !line.starts_with("-----")).skip(1);
        let values = rows
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_once(' '))
            .map(|(name, value)| (name.replace('-', "_"), value.trim().to_owned()))
            .filter(|(_, value)| value != NONE)
            // What it believes where there is no data directory to try in. No file system of Linux has it so.
            .map(|(name, value)| match (name.as_str(), value.as_str()) {
                ("lower_case_table_names", "2") => (name, "0".to_owned()),
                _ => (name, value),
            })
            .collect();
        ServerConfig { values }
    }

    /// A setting, by its name with underscores; `None` where it has no value, or there is none of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// All names and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "mysqld  Ver 9.7.4-2\n\
        Variables (--variable-name=value)\n\
        and boolean options {FALSE|TRUE}                   Value (after reading options)\n\
        -------------------------------------------------- -------------\n\
        innodb-page-size                                   8192\n\
        innodb-data-home-dir                               (No default value)\n\
        init-connect                                       \n\
        log-error-services                                 log_filter_internal; log_sink_internal\n\
        \n\
        To see what values a running MySQL server is using, type\n\
        'mysqladmin variables' instead of 'mysqld --verbose --help'.\n";

    #[test]
    fn the_table_is_read() {
        let config = ServerConfig::parse(HELP);
        assert_eq!(config.get("innodb_page_size"), Some("8192"));
        assert_eq!(config.get("innodb_data_home_dir"), None);
        assert_eq!(config.get("init_connect"), None);
        let services = config.get("log_error_services");
        assert_eq!(services, Some("log_filter_internal; log_sink_internal"));
        assert_eq!(config.iter().count(), 3);
        assert_eq!(ServerConfig::parse("nothing"), ServerConfig::default());
    }
}
