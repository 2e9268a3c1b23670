//! Keys of encrypted tablespaces, out of the keyring of a private server again.
//!
//! A server with a keyring puts the keys in the files under its own master key when it starts. The keyring of
//! a private one goes with it; so when it is shut down, every key in the files goes back under the key that is
//! built into every MySQL, as the restore had laid it out, for the user's own server to take over.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Result, io_error};
use secrecy::zeroize::Zeroizing;

use crate::innodb::{Geometry, Key, MAX_PAGE_BYTES, REDO_KEY_AT, key_place};
use crate::logical::inventory::unhex;

/// The first blocks of a file of the redo log.
const REDO_HEAD: usize = 2048;
/// What the ids of master keys begin with; then come the UUID of the server and the number
/// (`Encryption::MASTER_KEY_PREFIX`).
const PREFIX: &str = "INNODBKey";

/// The master keys in a file of `component_keyring_file`.
pub(super) struct Keyring(BTreeMap<String, Zeroizing<[u8; 32]>>);

impl Keyring {
    /// Reads the file, JSON of `{"elements": [{"data_id", "data"}]}` with keys in hexadecimal.
    ///
    /// # Errors
    /// [`ErrorKind::Target`] when it cannot be read or understood.
    pub(super) fn read(path: &Path) -> Result<Keyring> {
        let failed = || {
            Error::new(ErrorKind::Target, "cannot read the keyring of the private server")
                .with_remedy("restore without a point, and start a server with a keyring of yours")
        };
        let text = std::fs::read(path).map(Zeroizing::new).map_err(|e| failed().with_source(e))?;
        let json: serde_json::Value =
            serde_json::from_slice(&text).map_err(|_| failed().with_source("it is no JSON"))?;
        let elements = json["elements"].as_array().ok_or_else(failed)?;
        let keys = elements.iter().filter_map(|element| {
            let id = element["data_id"].as_str()?;
            Some((id.to_owned(), key_of(element["data"].as_str()?)?))
        });
        Ok(Keyring(keys.collect()))
    }

    fn find(&self, uuid: &str, number: u32) -> Option<Zeroizing<[u8; 32]>> {
        self.0.get(&format!("{PREFIX}-{uuid}-{number}")).cloned()
    }
}

/// A key in hexadecimal.
fn key_of(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = Zeroizing::new(unhex(text)?);
    Some(Zeroizing::new(bytes.as_slice().try_into().ok()?))
}

/// Puts every key in the files of a stopped server under the built-in key, and gives how many there were. Doing
/// it again does no harm.
///
/// # Errors
/// [`ErrorKind::Target`] when a file cannot be read or written, or a key is under none of the keyring.
pub(super) fn rekey(directory: &Path, innodb_page_size: u32, keyring: &Keyring) -> Result<usize> {
    let mut files = Vec::new();
    walk(directory, &mut files).map_err(|e| {
        io_error(e, ErrorKind::Target, format!("cannot read {}", directory.display()))
    })?;
    let mut keys = 0;
    for path in files {
        let failed = |e| io_error(e, ErrorKind::Target, format!("cannot write {}", path.display()));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut head = head(&path).map_err(failed)?;
        let geometry = Geometry::read(&head);
        let at = match geometry {
            Some(geometry) => key_place(geometry.page_bytes, innodb_page_size),
            None if name.starts_with("#ib_redo") => REDO_KEY_AT,
            None => continue,
        };
        let found = Key::unwrap_from(&head, at, |uuid, number| keyring.find(uuid, number));
        let Some(key) = found.map_err(|e| e.context(path.display().to_string()))? else { continue };
        match geometry {
            Some(geometry) => {
                head.truncate(geometry.page_bytes as usize);
                key.put_into_page(&mut head, at, geometry.zip)?;
            }
            None => {
                head.truncate(REDO_HEAD);
                key.put(&mut head, at)?;
            }
        }
        let file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
        file.write_all_at(&head, 0).and_then(|()| file.sync_data()).map_err(failed)?;
        keys += 1;
    }
    Ok(keys)
}

/// The beginning of a file, as long as the largest page.
fn head(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut head = Vec::new();
    File::open(path)?.take(MAX_PAGE_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}
