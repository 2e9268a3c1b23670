//! Where the key of an encrypted repository comes from.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use backup_core::{Context, Error, ErrorKind, Event, Result, Secret, SecretBytes, io_error};
use backup_storage::Unlock;
use zeroize::Zeroizing;

use crate::config::Config;

/// The flags of every command that name a key.
#[derive(clap::Args)]
pub(crate) struct KeyFlags {
    /// File with the passphrase of the repository in its first line
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "key_file")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Key file of the repository: 32 bytes or more that nobody can guess
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) key_file: Option<PathBuf>,
}

/// A key, not read yet.
pub(crate) enum KeySource {
    /// The passphrase itself.
    Passphrase(Secret),
    /// A file whose first line is the passphrase.
    PassphraseFile(PathBuf),
    /// A key file.
    KeyFile(PathBuf),
}

impl KeySource {
    /// What the flags say, else the environment, else the configuration.
    ///
    /// # Errors
    /// A usage error where one of them names two keys.
    pub(crate) fn find(flags: &KeyFlags, config: &Config) -> Result<Option<KeySource>> {
        let given = KeySource::of(flags.passphrase_file.as_deref(), flags.key_file.as_deref());
        if let [_, ..] = &given[..] {
            return only("the command line", given);
        }
        let path = |name| variable(name).map(|value| value.map(PathBuf::from));
        let (passphrase_file, key_file) =
            (path("HOLDFAST_PASSPHRASE_FILE")?, path("HOLDFAST_KEY_FILE")?);
        let mut given = KeySource::of(passphrase_file.as_deref(), key_file.as_deref());
        given.extend(variable("HOLDFAST_PASSPHRASE")?.map(Secret::new).map(KeySource::Passphrase));
        if let [_, ..] = &given[..] {
            return only(
                "the environment (HOLDFAST_PASSPHRASE, HOLDFAST_PASSPHRASE_FILE, HOLDFAST_KEY_FILE)",
                given,
            );
        }
        only(
            "the configuration",
            KeySource::of(config.passphrase_file.as_deref(), config.key_file.as_deref()),
        )
    }

    /// The files that one place names.
    pub(crate) fn of(passphrase_file: Option<&Path>, key_file: Option<&Path>) -> Vec<KeySource> {
        let passphrase = passphrase_file.map(|path| KeySource::PassphraseFile(path.to_owned()));
        passphrase
            .into_iter()
            .chain(key_file.map(|path| KeySource::KeyFile(path.to_owned())))
            .collect()
    }

    /// Reads it.
    ///
    /// # Errors
    /// A usage error when the file cannot be read, is empty, or has a wrong length.
    pub(crate) fn read(&self, cx: &Context) -> Result<Unlock> {
        let unlock = match self {
            KeySource::Passphrase(secret) => Unlock::Passphrase(secret.clone()),
            KeySource::PassphraseFile(path) => Unlock::Passphrase(first_line(cx, path)?),
            KeySource::KeyFile(path) => {
                Unlock::KeyFile(SecretBytes::new(bytes(cx, path, Unlock::MAX_KEY_FILE)?))
            }
        };
        match (unlock.check(), self) {
            (Err(e), KeySource::PassphraseFile(path) | KeySource::KeyFile(path)) => {
                Err(e.context(path.display().to_string()))
            }
            (checked, _) => checked.map(|()| unlock),
        }
    }
}

/// The one key that a place names.
fn only(place: &str, mut given: Vec<KeySource>) -> Result<Option<KeySource>> {
    if given.len() > 1 {
        return Err(Error::usage(format!("{place} names more than one key of the repository"))
            .with_remedy("give one passphrase or key file; each opens the repository alone"));
    }
    Ok(given.pop())
}

/// A variable of the environment; one that is empty is not set.
fn variable(name: &str) -> Result<Option<String>> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Error::usage(format!("{name} is not UTF-8"))),
    }
}

/// The longest passphrase in a file, in bytes; what follows its line is not looked at.
const MAX_PASSPHRASE: usize = 64 << 10;

/// The first line of a file, without its end.
fn first_line(cx: &Context, path: &Path) -> Result<Secret> {
    let bytes = bytes(cx, path, MAX_PASSPHRASE)?;
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match str::from_utf8(line) {
        Ok("") => Err(Error::usage(format!("the first line of {} is empty", path.display()))
            .with_remedy("write the passphrase into it")),
        Ok(line) if line.len() <= MAX_PASSPHRASE => Ok(Secret::new(line)),
        _ => Err(Error::usage(format!("the first line of {} is no passphrase", path.display()))
            .with_remedy(
                "it must be UTF-8, and shorter than 64 KiB; for other bytes use --key-file",
            )),
    }
}

/// The bytes of a file; one more than `limit` where it is longer.
fn bytes(cx: &Context, path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>> {
    let failed =
        |e| io_error(e, ErrorKind::Usage, format!("cannot read the key in {}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if about.is_file() && about.permissions().mode() & 0o004 != 0 {
        let text = format!(
            "every user of this machine can read the key in {}; `chmod 600` keeps them out",
            path.display()
        );
        cx.event(Event::Warning { text });
    }
    // Room for all: a buffer that grows would leave copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 64));
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
