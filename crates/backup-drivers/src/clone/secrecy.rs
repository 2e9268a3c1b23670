//! Whether the keys of a donor may pass.
//!
//! A donor sends pages as they are encrypted in its files, but keys in the clear, for the recipient to
//! put them under a master key of its own: in the first page of each tablespace, in the description of a
//! file that DDL made, in the header of the redo log. We have no master key. What we keep in the backup
//! is under the [key that every server has built in](crate::innodb); that key is public, so it protects
//! nothing: the repository has to.
//!
//! While changed pages rest on the local disk, keys do not rest with them.

use backup_core::{Error, ErrorKind, Result};

/// Who could read along.
#[derive(Debug, Clone, Copy)]
pub(super) struct Secrecy {
    /// The connection to the donor is encrypted.
    pub(super) wire: bool,
    /// What is kept is encrypted.
    pub(super) repository: bool,
}

impl Secrecy {
    /// Whether a key may pass.
    pub(super) fn check(self, name: &str) -> Result<()> {
        let encrypted = |problem: &str| {
            Error::new(
                ErrorKind::Source,
                format!("{name} is encrypted at the source, whose clones hold its key: {problem}"),
            )
        };
        if !self.wire {
            return Err(encrypted("the connection is not encrypted")
                .with_remedy("connect over TCP with ssl-mode=required, better verify-ca"));
        }
        if !self.repository {
            return Err(encrypted("the repository is not encrypted").with_remedy(
                "use a repository that was made with a passphrase or key file (holdfast init), or \
                 --strategy logical, which needs no keys",
            ));
        }
        Ok(())
    }
}
