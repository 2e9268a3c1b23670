//! `mydumper`, unpacked, for tests of dumps that other programs wrote.

use std::process::Command;

use backup_core::Result;

use super::{suites, tree};

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
    let root = tree::have(NAME, &suites(SUITE), PACKAGES)?;
    let plugins = root.join("usr/lib").join(tree::triple()).join("libmariadb3/plugin");
    let mut command = tree::command(&root, &root.join("usr/bin/mydumper"))?;
    command.env_clear().env("MARIADB_PLUGIN_DIR", plugins);
    Ok(command)
}
