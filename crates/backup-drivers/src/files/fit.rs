//! Whether a server will start on the files of a backup, and find everything there.
//!
//! What would keep it from that is found before the first byte is written, not by the server afterwards.

use std::path::Path;

use backup_core::{ErrorKind, Finding, Manifest, ServerVersion, Severity};

use super::catalog::{Catalog, Settings, State};
use super::system::in_one_directory;
use crate::sandbox::{ServerConfig, ServerInstall};

/// InnoDB's, where nothing is set.
const DATA_FILE_PATH: &str = "ibdata1:12M:autoextend";

/// A server that somebody is going to start on restored files.
#[derive(Debug, Clone, Copy)]
pub struct Successor<'a> {
    /// What it runs.
    pub install: &'a ServerInstall,
    /// How it is configured.
    pub config: &'a ServerConfig,
    /// Where the files are going to be.
    pub directory: &'a Path,
}

impl Successor<'_> {
    /// What does not fit a backup: errors keep the server from starting or from finding tables, warnings are
    /// worth knowing.
    #[must_use]
    pub fn fit(&self, manifest: &Manifest, catalog: &Catalog) -> Vec<Finding> {
        let settings = &catalog.header.settings;
        let mut found = Found(Vec::new());
        self.version(manifest, catalog.header.state, &mut found);
        self.shape(settings, &mut found);
        self.places(&mut found);
        self.variables(settings, &mut found);
        self.keyring(settings, &mut found);
        self.plugins(settings, &mut found);
        found.0
    }

    fn version(&self, manifest: &Manifest, state: State, found: &mut Found) {
        let source = &manifest.outcome.source;
        let (flavor, own) = (self.install.flavor(), self.install.version());
        if flavor != source.flavor {
            found.error(
                "version",
                format!("the server is {flavor}, and the files are of {}", source.flavor),
                format!("start {} {} on them, or a later one", source.flavor, source.version),
            );
            return;
        }
        let parse = |text: &str| ServerVersion::parse(text, "").ok();
        let Some((own_version, of_backup)) = parse(own).zip(parse(&source.version)) else { return };
        let both = format!("the server is {own}, and the files are of {}", source.version);
        let remedy = format!("start {} {} on them", source.flavor, source.version);
        match own_version.series().cmp(&of_backup.series()) {
            std::cmp::Ordering::Less => {
                found.error(
                    "version",
                    format!("{both}: no server takes files of a later one"),
                    remedy,
                );
            }
            // "Upgrade after a crash is not supported" (MySQL and MariaDB).
            std::cmp::Ordering::Greater if state == State::Crashed => found.error(
                "version",
                format!("{both}: a later series does not recover them"),
                format!(
                    "{remedy} first, and shut it down in order; then the later one upgrades them"
                ),
            ),
            std::cmp::Ordering::Greater => found.warning(
                "version",
                format!("{both}: it upgrades them when it starts"),
                format!("{remedy}, if you may have to go back"),
            ),
            std::cmp::Ordering::Equal if own_version.patch() < of_backup.patch() => {
                found.warning("version", format!("{both}: a later release"), remedy);
            }
            std::cmp::Ordering::Equal => {}
        }
    }

    /// What InnoDB and the dictionary cannot do without.
    fn shape(&self, settings: &Settings, found: &mut Found) {
        let mut same = |name: &str, wanted: Option<String>| {
            let own = self.config.get(name);
            if let Some((wanted, own)) = wanted.zip(own).filter(|(wanted, own)| wanted != own) {
                found.error(
                    name,
                    format!("the server has {own}, and the files were made with {wanted}"),
                    format!("write {name}={wanted} into its option file"),
                );
            }
        };
        same("innodb_page_size", settings.page_size.map(|size| size.to_string()));
        let names = settings.lower_case_table_names;
        same("lower_case_table_names", names.map(|names| names.to_string()));
        // A server that ran told its case of names, and this where it is not the default.
        let told =
            settings.variables.get("innodb_data_file_path").map(|told| in_one_directory(told));
        let usual = || settings.lower_case_table_names.map(|_| DATA_FILE_PATH.to_owned());
        let wanted = told.or_else(usual);
        let own = self.config.get("innodb_data_file_path").unwrap_or(DATA_FILE_PATH);
        // What was read off the files does not tell whether the last was to grow, but how long it is.
        let read_off = settings.lower_case_table_names.is_none();
        let fits =
            |wanted: &str| same_files(wanted, own) || read_off && lengths(wanted) == lengths(own);
        if let Some(wanted) = wanted.filter(|wanted| !fits(wanted)) {
            found.error(
                "innodb_data_file_path",
                format!("the server has {own}, and the files were made with {wanted}"),
                format!("write innodb_data_file_path={wanted} into its option file"),
            );
        }
    }

    /// Everything is restored into one directory: the server has to look there.
    fn places(&self, found: &mut Found) {
        let here = |path: &str| {
            let path = Path::new(path);
            let path = match path.strip_prefix("./") {
                Ok(relative) => self.directory.join(relative),
                Err(_) => self.directory.join(path),
            };
            path.components().eq(self.directory.components())
        };
        // Aria's is the data directory, where nothing else is said.
        let datadir = self.config.get("datadir").unwrap_or_default();
        let told =
            |path: &&str| !here(path) && *path != "." && Path::new(path) != Path::new(datadir);
        for name in PLACES {
            if let Some(path) = self.config.get(name).filter(told) {
                found.error(
                    name,
                    format!(
                        "the server looks in {path}, and everything is restored into {}",
                        self.directory.display()
                    ),
                    format!(
                        "take {name} out of its option file, or move the files there afterwards"
                    ),
                );
            }
        }
        let also = self.config.get("innodb_directories").unwrap_or_default().split(';');
        for path in also.map(str::trim).filter(|path| !path.is_empty() && !here(path)) {
            if self.directory.join(path).is_dir() {
                found.warning(
                    "innodb_directories",
                    format!(
                        "the server looks for tablespaces in {path}, too: it does not start when it finds there what \
                         is restored into {}",
                        self.directory.display()
                    ),
                    "take innodb_directories out of its option file, or what the source has left there out of that \
                     directory",
                );
            }
        }
        if let Some(path) = self.config.get("datadir").filter(|path| !here(path)) {
            found.warning(
                "datadir",
                format!("the server has {path}, and the files go to {}", self.directory.display()),
                "move them there before it starts, or set datadir",
            );
        }
    }

    /// Settings without which it starts, but does not do the same.
    fn variables(&self, settings: &Settings, found: &mut Found) {
        for (name, wanted) in told(settings) {
            let own = self.config.get(name).unwrap_or_default();
            let same = own.eq_ignore_ascii_case(&wanted)
                || switch(own).is_some_and(|own| switch(&wanted) == Some(own));
            if name != "innodb_data_file_path" && !same {
                found.warning(
                    name,
                    format!("the server has {name}={own}, and the source had {wanted}"),
                    format!("write {name}={wanted} into its option file, if that still holds"),
                );
            }
        }
    }

    fn keyring(&self, settings: &Settings, found: &mut Found) {
        // A manifest of components is beside the program, or in the data directory. Plugins have settings.
        let beside = self.install.server_path().with_file_name("mysqld.my");
        let has = beside.is_file()
            || self.directory.join("mysqld.my").is_file()
            || self.config.iter().any(|(name, _)| KEYS.iter().any(|key| name.starts_with(key)));
        if has {
            return;
        }
        if settings.keys_in_files {
            found.error(
                "keyring",
                "tablespaces are encrypted, and the server has no keyring: it would not start"
                    .to_owned(),
                "give it a keyring component (component_keyring_file, say); it may be empty",
            );
        } else if !settings.keyring.is_empty() {
            found.warning(
                "keyring",
                format!(
                    "the source had a keyring ({}), and the server seems to have none",
                    settings.keyring.join(", ")
                ),
                "give it that of the source, if tablespaces are encrypted",
            );
        }
    }

    fn plugins(&self, settings: &Settings, found: &mut Found) {
        let Some(directory) = self.install.plugins() else { return };
        for plugin in &settings.plugins {
            let (name, library) = plugin.split_once('=').unwrap_or((plugin, plugin));
            if !directory.join(library).is_file() {
                found.warning(
                    name,
                    format!(
                        "the source had this plugin, and {} has no {library}",
                        directory.display()
                    ),
                    "install it, if tables or accounts need it",
                );
            }
        }
    }
}

/// What is worth telling of a backup's settings before a server starts on it. Where its option file is known
/// ([`Successor::fit`] looks at that), only what no option file says.
#[must_use]
pub fn advice(catalog: &Catalog, config: Option<&ServerConfig>) -> Vec<Finding> {
    let settings = &catalog.header.settings;
    let unknown = config.is_none();
    let mut findings = Vec::new();
    let mut add = |object: &str, problem: String, remedy: String| {
        findings.push(Finding::new(Severity::Warning, object, problem, remedy));
    };
    if let Some(size) = settings.page_size.filter(|&size| unknown && size != 16_384) {
        add(
            "innodb_page_size",
            format!("the files have pages of {size} bytes"),
            format!("write innodb_page_size={size} into the my.cnf of the server"),
        );
    }
    if let Some(names) = settings.lower_case_table_names.filter(|&names| unknown && names != 0) {
        add(
            "lower_case_table_names",
            format!("the source ran with lower_case_table_names={names}"),
            format!("write lower_case_table_names={names} into the my.cnf of the server"),
        );
    }
    for (name, value) in told(settings).filter(|_| unknown) {
        add(
            name,
            format!("the source ran with {name}={value}"),
            format!("write {name}={value} into the my.cnf of the server"),
        );
    }
    if unknown && !settings.keyring.is_empty() {
        let keyring = settings.keyring.join(", ");
        add(
            "keyring",
            format!("the source had a keyring ({keyring}), whose keys are not all in the backup"),
            "give the server the same keyring before it starts".to_owned(),
        );
    }
    if settings.keys_in_files {
        add(
            "keyring",
            "encrypted tablespaces have their keys with them, as good as in the clear, until a server has \
             started on the files"
                .to_owned(),
            "let nobody else read the directory; start the server with a keyring component, which may be \
             empty: it takes the keys over"
                .to_owned(),
        );
    }
    findings
}

/// Variables that a server on the files is told: those of the source, but for where it had its files, for all are
/// restored into one directory.
fn told(settings: &Settings) -> impl Iterator<Item = (&str, String)> {
    let variables = settings.variables.iter().map(|(name, value)| (name.as_str(), value));
    variables.filter(|(name, _)| !PLACES.contains(name)).map(|(name, value)| match name {
        "innodb_data_file_path" => (name, in_one_directory(value)),
        _ => (name, value.clone()),
    })
}

/// Variables that say where a server has files.
const PLACES: [&str; 4] = [
    "innodb_data_home_dir",
    "innodb_log_group_home_dir",
    "innodb_undo_directory",
    "aria_log_dir_path",
];

/// With what the settings of keyring plugins begin, MySQL's and MariaDB's. MySQL knows some without any.
const KEYS: [&str; 5] = [
    "keyring_file",
    "keyring_encrypted_file",
    "keyring_vault",
    "file_key_management",
    "hashicorp_key_management",
];

/// What does not fit.
struct Found(Vec<Finding>);

impl Found {
    fn error(&mut self, object: &str, problem: String, remedy: impl Into<String>) {
        let finding = Finding::new(Severity::Error, object, problem, remedy);
        self.0.push(finding.with_kind(ErrorKind::Target));
    }

    fn warning(&mut self, object: &str, problem: String, remedy: impl Into<String>) {
        self.0.push(Finding::new(Severity::Warning, object, problem, remedy));
    }
}

/// Whether InnoDB takes the files of the one setting for those of the other: names and sizes of all of them,
/// except for the size of the last where it grows.
fn same_files(one: &str, other: &str) -> bool {
    let shape = |text: &str| -> Vec<(String, Option<Option<u64>>)> {
        let grows = text.split(';').map(|file| {
            file.split(':').nth(2).is_some_and(|word| word.eq_ignore_ascii_case("autoextend"))
        });
        let files = lengths(text).into_iter().zip(grows);
        files.map(|((name, length), grows)| (name, (!grows).then_some(length))).collect()
    };
    shape(one) == shape(other)
}

/// The names of the files of a setting, and their lengths in bytes.
fn lengths(setting: &str) -> Vec<(String, Option<u64>)> {
    let bytes = |text: &str| {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            _ => return None,
        };
        digits.parse::<u64>().ok()?.checked_mul(1 << shift)
    };
    let file = |file: &str| {
        let mut parts = file.split(':');
        (parts.next().unwrap_or_default().to_owned(), parts.next().and_then(bytes))
    };
    setting.split(';').map(file).collect()
}

/// A switch: servers say ON, and their help says TRUE.
fn switch(value: &str) -> Option<bool> {
    match value.to_ascii_uppercase().as_str() {
        "ON" | "TRUE" | "1" | "YES" => Some(true),
        "OFF" | "FALSE" | "0" | "NO" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_system_tablespace_are_compared_as_innodb_does() {
        assert!(same_files("ibdata1:12M:autoextend", "ibdata1:76M:autoextend"));
        assert!(same_files("a:10M;b:1g:autoextend:max:5G", "a:10M;b:2G:autoextend"));
        assert!(!same_files("a:10M;b:1G:autoextend", "a:11M;b:1G:autoextend"));
        assert!(!same_files("ibdata1:12M:autoextend", "ibdata1:12M"));
        assert!(!same_files("ibdata1:12M:autoextend", "ibdata2:12M:autoextend"));
        assert!(!same_files("a:10M", "a:10M;b:10M"));
        assert!(same_files("a:1G;b:2M:autoextend", "a:1024m;b:3M:autoextend"));
        assert_eq!(lengths("a:1G;b:2048K:autoextend"), lengths("a:1024M;b:2M"));
        assert_ne!(lengths("a:1G;b:2M"), lengths("a:1G;b:3M"));
    }

    #[test]
    fn a_server_is_told_no_place_of_the_source() {
        let variables = [
            ("innodb_data_file_path", "/srv/sys/A:12M;B:12M:autoextend"),
            ("innodb_data_home_dir", "/srv/sys"),
            ("innodb_encrypt_log", "ON"),
            ("innodb_undo_directory", "/srv/undo"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = Settings { variables: variables.into(), ..Settings::default() };
        let told: Vec<(&str, String)> = told(&settings).collect();
        let wanted = [
            ("innodb_data_file_path", "A:12M;B:12M:autoextend".to_owned()),
            ("innodb_encrypt_log", "ON".to_owned()),
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn switches_are_compared_by_what_they_mean() {
        assert_eq!(switch("ON"), switch("TRUE"));
        assert_ne!(switch("ON"), switch("false"));
        assert_eq!(switch("crc32"), None);
    }
}
