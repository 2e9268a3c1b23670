//! `mydumper`, unpacked, for tests of dumps that other programs wrote.

use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::{Error, Result};

use super::apt::{self, Apt};
use super::{FETCHING, directory, lock, remove_leftovers, suites, write_error};

const SUITE: &str = "bookworm";
/// With the C library, for it may need a newer one than the machine has.
const PACKAGES: &[&str] = &["mydumper", "libc6"];
/// Its place; the number goes up when the packages change.
const NAME: &str = "mydumper-1";

/// A command that runs `mydumper`, which is fetched when it is missing.
///
/// # Errors
/// Those of [`fetch`](super::fetch).
pub fn mydumper() -> Result<Command> {
    let root = directory().join(NAME);
    if !root.is_dir() {
        let _lock = lock()?;
        if !root.is_dir() {
            fetch(&root)
                .map_err(|e| e.context(format!("cannot fetch mydumper from Debian {SUITE}")))?;
        }
    }
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let libraries: Vec<PathBuf> =
        ["lib", "usr/lib"].iter().map(|lib| root.join(lib).join(&triple)).collect();
    let loader = libraries.iter().find_map(|dir| {
        let entries = std::fs::read_dir(dir).ok()?.flatten();
        let mut names = entries.map(|entry| entry.path());
        names.find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("ld-linux") && name.contains(".so.")
        })
    });
    let loader =
        loader.ok_or_else(|| Error::internal(format!("{} has no loader", root.display())))?;
    let mut command = Command::new(loader);
    let paths: Vec<String> = libraries.iter().map(|dir| dir.display().to_string()).collect();
    command
        .args(["--library-path", &paths.join(":")])
        .arg(root.join("usr/bin/mydumper"))
        .env_clear()
        .env("MARIADB_PLUGIN_DIR", root.join("usr/lib").join(&triple).join("libmariadb3/plugin"));
    Ok(command)
}

fn fetch(place: &Path) -> Result<()> {
    remove_leftovers();
    let work = tempfile::Builder::new().prefix(FETCHING).tempdir_in(directory());
    let work = work.map_err(|e| write_error(e, &directory()))?;
    let (archives, root) = (work.path().join("archives"), work.path().join("root"));
    for dir in [&archives, &root] {
        std::fs::create_dir(dir).map_err(|e| write_error(e, dir))?;
    }
    let apt = Apt::new(&work.path().join("apt"), &suites(SUITE))?;
    apt.update()?;
    apt.download(&apt.closure(PACKAGES)?, &archives)?;
    let entries = std::fs::read_dir(&archives).map_err(|e| write_error(e, &archives))?;
    for archive in entries {
        apt::unpack(&archive.map_err(|e| write_error(e, &archives))?.path(), &root)?;
    }
    std::fs::rename(&root, place).map_err(|e| write_error(e, place))
}
