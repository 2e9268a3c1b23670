//! The plugin that has the keys of encrypted files: its name, its library and its settings. `mariadb-backup` writes
//! them into an option file among the files; of a server that is asked they are in the catalog, as lines of such a file.
//! The keys themselves are in neither.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use backup_core::{ArtifactSource, Error, ErrorKind, Result, io_error};

use super::catalog::{Catalog, Settings, State};

/// The option file.
pub(crate) const OPTIONS: &str = "backup-my.cnf";
/// A file of some lines.
const MAX_BYTES: usize = 1 << 20;

/// A plugin without which nobody reads the encrypted files of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPlugin {
    name: String,
    library: String,
    /// Where the source had the library.
    directory: Option<PathBuf>,
    /// The lines of the option file that are about encryption, as they stand there: a value may be a secret.
    lines: Vec<String>,
    /// The files that its settings name.
    files: Vec<PathBuf>,
}

impl KeyPlugin {
    /// The plugin of a backup that `mariadb-backup` made, or whose source was asked, where it had one.
    ///
    /// # Errors
    /// Those of the repository.
    pub(crate) async fn of(artifacts: &dyn ArtifactSource) -> Result<Option<KeyPlugin>> {
        let catalog = Catalog::read(artifacts).await?;
        if let Some(told) = KeyPlugin::told(&catalog.header.settings) {
            return Ok(Some(told));
        }
        let Some(entry) = catalog.files().find(|entry| entry.path == OPTIONS) else {
            return Ok(None);
        };
        // Other files are of a server; what it had among them may be of long ago.
        if catalog.header.state != State::Unprepared {
            return Ok(None);
        }
        let bytes = artifacts.read(&entry.artifact()?, MAX_BYTES).await?;
        Ok(KeyPlugin::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// The same, as the settings of a source have it.
    pub(crate) fn told(settings: &Settings) -> Option<KeyPlugin> {
        KeyPlugin::parse(&settings.key_plugin.join("\n"))
    }

    /// The same, of files that are laid out in `data`.
    ///
    /// # Errors
    /// [`ErrorKind::Target`] when the option file cannot be read.
    pub(crate) fn beside(data: &Path) -> Result<Option<KeyPlugin>> {
        let path = data.join(OPTIONS);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(KeyPlugin::parse(&String::from_utf8_lossy(&bytes))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => {
                Err(io_error(e, ErrorKind::Target, format!("cannot read {}", path.display())))
            }
        }
    }

    fn parse(text: &str) -> Option<KeyPlugin> {
        let options = || {
            text.lines().filter_map(|line| {
                let (name, value) = line.split_once('=')?;
                Some((name.trim().replace('-', "_"), value.trim(), line))
            })
        };
        let value = |wanted: &str| {
            options().find(|(name, ..)| name == wanted).map(|(_, value, _)| unquoted(value))
        };
        let load = value("plugin_load").filter(|load| !load.is_empty())?;
        // `name=library`, or the library alone.
        let (name, library) = load.split_once('=').unwrap_or((load, load));
        let name = name.trim_end_matches(".so").to_owned();
        let library = match library.ends_with(".so") {
            true => library.to_owned(),
            false => format!("{library}.so"),
        };
        let settings = format!("{}_", name.to_ascii_lowercase());
        let of_plugin = |option: &str| option.starts_with(&settings);
        let lines = options()
            .filter(|(option, ..)| {
                option == "plugin_load" || option.starts_with("innodb_encrypt") || of_plugin(option)
            })
            .map(|(_, _, line)| line.to_owned())
            .collect();
        let files = options()
            .filter(|(option, ..)| of_plugin(option))
            .filter_map(|(option, value, _)| {
                let value = unquoted(value);
                let path = match option.ends_with("_filename") {
                    true => value,
                    false => value.strip_prefix("FILE:")?,
                };
                // From where others are named is the server's own affair.
                Some(PathBuf::from(path)).filter(|path| path.is_absolute())
            })
            .collect();
        let directory = value("plugin_dir").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        Some(KeyPlugin { name, library, directory, lines, files })
    }

    /// The directory that has its library: `own`, that of the program which is to load it, before the one of the
    /// source.
    ///
    /// # Errors
    /// [`ErrorKind::Target`] when a file that it has its keys from cannot be read, or its library is in neither.
    pub(crate) fn find(&self, own: Option<&Path>) -> Result<PathBuf> {
        let name = &self.name;
        for path in &self.files {
            File::open(path).map_err(|e| {
                let shown = path.display();
                Error::new(
                    ErrorKind::Target,
                    format!("files of the backup are encrypted by {name}, and its key file {shown} cannot be read"),
                )
                .with_source(e)
                .with_remedy(format!(
                    "put the key file of the source at {shown} on this machine, where the user that runs holdfast can \
                     read it, and run the same command again"
                ))
            })?;
        }
        let places: Vec<&Path> = own.into_iter().chain(self.directory.as_deref()).collect();
        let found = places.iter().find(|place| place.join(&self.library).is_file());
        found.map(|place| (*place).to_owned()).ok_or_else(|| {
            let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
            Error::new(
                ErrorKind::Target,
                format!(
                    "files of the backup are encrypted by the plugin {name}, and its library {} is not in {}",
                    self.library,
                    places.join(" or ")
                ),
            )
            .with_remedy(
                "install it, or name an installation that has it with --tool (--server-dir for a private server)",
            )
        })
    }

    /// Whether the redo log is encrypted, too.
    pub(crate) fn encrypts_log(&self) -> bool {
        self.lines.iter().any(|line| {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            name.trim().replace('-', "_") == "innodb_encrypt_log"
                && matches!(unquoted(value.trim()), "1" | "ON")
        })
    }

    /// What to do where files cannot be read though it has its files.
    pub(crate) fn remedy(&self) -> String {
        let files: Vec<String> = self.files.iter().map(|path| path.display().to_string()).collect();
        let of = match files.is_empty() {
            true => String::new(),
            false => format!(" in {}", files.join(" and ")),
        };
        format!("see that the keys of {}{of} are those of the source", self.name)
    }

    /// Writes an option file for a private server that is to load it.
    ///
    /// # Errors
    /// [`ErrorKind::Target`] or [`ErrorKind::Space`] when it cannot be written.
    pub(crate) fn write_options(&self, scratch: &Path) -> Result<PathBuf> {
        let path = scratch.join("keys.cnf");
        let text = format!("[mysqld]\n{}\n", self.lines.join("\n"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|e| {
            io_error(e, ErrorKind::Target, format!("cannot write {}", path.display()))
        })?;
        Ok(path)
    }
}

/// The lines of an option file for a plugin of a server that has these variables. None where a secret is among its
/// settings: that is not the backup's to keep.
pub(super) fn option_lines(
    name: &str,
    library: &str,
    variables: &BTreeMap<String, String>,
) -> Vec<String> {
    let settings = format!("{}_", name.to_ascii_lowercase());
    let wanted = |variable: &str| {
        variable.starts_with(&settings)
            || ["plugin_dir", "innodb_encrypt_log", "innodb_encrypt_tables"].contains(&variable)
    };
    let mut lines = vec![format!("plugin_load={name}={library}")];
    for (variable, value) in variables.iter().filter(|(variable, _)| wanted(variable)) {
        if is_secret(variable, value) {
            return Vec::new();
        }
        // What a quoted value cannot hold no option file of the source held either.
        if !value.is_empty() && !value.contains(['"', '\\', '\n']) {
            lines.push(format!("{variable}=\"{value}\""));
        }
    }
    lines
}

/// Whether a setting is a password or a token itself, and does not name the file that has it.
fn is_secret(variable: &str, value: &str) -> bool {
    let secret = ["filekey", "token", "password", "secret"];
    secret.iter().any(|ending| variable.ends_with(ending))
        && !value.is_empty()
        && !value.starts_with("FILE:")
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `mariadb-backup` 10.11.19 writes it.
    const WRITTEN: &str = "# This options file was generated by innobackupex.\n\n# The server\n[mysqld]\n\
        innodb_data_file_path=ibdata1:12M:autoextend\ninnodb_undo_directory=/srv/undo\n\n\
        plugin_dir=\"/usr/lib/mysql/plugin/\"\nplugin_load=file_key_management=file_key_management\n\
        file_key_management_encryption_algorithm=aes_cbc\nfile_key_management_filekey=FILE:KEY\n\
        file_key_management_filename=KEYS\ninnodb_encrypt_log=1\ninnodb_encrypt_tables=OFF\n";

    fn of(directory: &Path) -> KeyPlugin {
        let text = WRITTEN
            .replace("KEYS", &directory.join("keys").display().to_string())
            .replace("KEY\n", &format!("{}\n", directory.join("password").display()));
        KeyPlugin::parse(&text).unwrap()
    }

    #[test]
    fn a_backup_without_a_plugin_names_none() {
        assert_eq!(KeyPlugin::parse("[mysqld]\ninnodb_page_size=16384\nplugin_load=\n"), None);
        let bare = KeyPlugin::parse("plugin-load=hashicorp_key_management.so").unwrap();
        assert_eq!(bare.name, "hashicorp_key_management");
        assert_eq!(bare.library, "hashicorp_key_management.so");
    }

    #[test]
    fn what_a_server_tells_is_read_as_what_a_tool_wrote() {
        let variables = [
            ("file_key_management_filename", "/etc/keys #1"),
            ("file_key_management_filekey", ""),
            ("innodb_encrypt_log", "ON"),
            ("innodb_encryption_threads", "4"),
            ("plugin_dir", "/usr/lib/mysql/plugin/"),
        ];
        let mut variables: BTreeMap<String, String> =
            variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let lines = |variables: &_| {
            option_lines("file_key_management", "file_key_management.so", variables)
        };
        let key_plugin = lines(&variables);
        let plugin = KeyPlugin::told(&Settings { key_plugin, ..Settings::default() }).unwrap();
        assert_eq!(plugin.library, "file_key_management.so");
        assert_eq!(plugin.files, [Path::new("/etc/keys #1")]);
        assert_eq!(plugin.directory.as_deref(), Some(Path::new("/usr/lib/mysql/plugin/")));
        assert_eq!(plugin.lines.len(), 3, "{:?}", plugin.lines);
        assert_eq!(KeyPlugin::told(&Settings::default()), None);
        // Where the password is is told, and never the password.
        for (value, told) in [("FILE:/etc/password", true), ("hunter2", false)] {
            variables.insert("file_key_management_filekey".to_owned(), value.to_owned());
            assert_eq!(!lines(&variables).is_empty(), told, "{value}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let plugin = of(dir.path());
        assert_eq!(plugin.directory.as_deref(), Some(Path::new("/usr/lib/mysql/plugin/")));
        for name in ["password", "keys"] {
            let error = plugin.find(Some(dir.path())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Target);
            let path = dir.path().join(name).display().to_string();
            assert!(error.report().contains(&path), "{}", error.report());
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let plugin = KeyPlugin { directory: Some(dir.path().join("elsewhere")), ..plugin };
        let said = plugin.find(Some(dir.path())).unwrap_err().report();
        assert!(said.contains("file_key_management.so") && said.contains("elsewhere"), "{said}");
        // Where the source had it is good enough, and its own is better.
        let at = dir.path().join("elsewhere");
        std::fs::create_dir(&at).unwrap();
        std::fs::write(at.join("file_key_management.so"), "").unwrap();
        assert_eq!(plugin.find(Some(dir.path())).unwrap(), at);
        std::fs::write(dir.path().join("file_key_management.so"), "").unwrap();
        assert_eq!(plugin.find(Some(dir.path())).unwrap(), dir.path());
    }

    #[test]
    fn a_private_server_gets_what_is_about_keys_and_nothing_else() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = of(dir.path()).write_options(dir.path()).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(!text.contains("undo") && !text.contains("plugin_dir"), "{text}");
        assert_eq!(text.lines().count(), 7, "{text}");
        assert!(
            text.starts_with("[mysqld]\nplugin_load=file_key_management=file_key_management\n")
        );
    }
}
