//! Python with what `contrib/read_holdfast.py` needs: packages of Debian, fetched and unpacked as the
//! servers are.

use std::process::Command;

use backup_core::Result;

use super::{suites, tree};

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
    let root = tree::have(NAME, &suites(SUITE), PACKAGES)?;
    let mut command = tree::command(&root, &tree::find(&root.join("usr/bin"), "python3.")?)?;
    command
        .env("PYTHONHOME", root.join("usr"))
        .env("PYTHONNOUSERSITE", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("PYTHONPATH");
    Ok(command)
}
