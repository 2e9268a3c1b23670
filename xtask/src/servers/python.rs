//! Python with what `contrib/read_holdfast.py` needs: packages of Debian, fetched and unpacked as the
//! servers are.

use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::{Error, Result};

use super::apt::{self, Apt};
use super::{FETCHING, directory, lock, remove_leftovers, suites, write_error};

const SUITE: &str = "bookworm";
const PACKAGES: &[&str] = &[
    "python3",
    "python3-argon2",
    // Two of the others ask for it by what it provides, not by its name.
    "python3-cffi-backend",
    "python3-cryptography",
    "python3-lz4",
    "python3-zstandard",
];
/// Its place; the number goes up when the packages change.
const NAME: &str = "python-1";

/// A command that runs Python, which is fetched when it is missing. It sees no packages but its own.
///
/// # Errors
/// Those of [`fetch`](super::fetch).
pub fn python() -> Result<Command> {
    let root = directory().join(NAME);
    if !root.is_dir() {
        let _lock = lock()?;
        if !root.is_dir() {
            fetch(&root)
                .map_err(|e| e.context(format!("cannot fetch Python from Debian {SUITE}")))?;
        }
    }
    // With its own loader and libc: those of the machine may be older.
    let libraries = libraries(&root)?;
    let find = |dir: &Path, prefix: &str| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(|entry| entry.path())
            .collect();
        found.sort();
        found.pop().ok_or_else(|| Error::internal(format!("{} has no {prefix}", dir.display())))
    };
    let mut command = Command::new(find(&libraries[0], "ld-linux")?);
    let library_path: Vec<String> = libraries.iter().map(|dir| dir.display().to_string()).collect();
    command
        .args(["--library-path", &library_path.join(":")])
        .arg(find(&root.join("usr/bin"), "python3.")?)
        .env("PYTHONHOME", root.join("usr"))
        .env("PYTHONNOUSERSITE", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("PYTHONPATH");
    Ok(command)
}

/// The directories of libraries, that of the libc first.
fn libraries(root: &Path) -> Result<Vec<PathBuf>> {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let mut found: Vec<PathBuf> = ["lib", "usr/lib"]
        .map(|lib| root.join(lib).join(&triple))
        .into_iter()
        .filter(|dir| dir.is_dir())
        .collect();
    found.sort_by_key(|dir| !dir.join("libc.so.6").exists());
    match found.first() {
        Some(dir) if dir.join("libc.so.6").exists() => Ok(found),
        _ => Err(Error::internal(format!("{} has no libc", root.display()))),
    }
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
