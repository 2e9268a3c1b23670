//! Passphrases and key files: what opens a key slot.

use backup_core::{Error, Result, Secret, SecretBytes};

use super::slot::SlotKind;

/// What opens a key slot.
#[derive(Debug, Clone)]
pub enum Unlock {
    /// A passphrase, at least one byte. Its UTF-8 counts, as it is.
    Passphrase(Secret),
    /// The bytes of a key file: [`MIN_KEY_FILE`](Self::MIN_KEY_FILE) to
    /// [`MAX_KEY_FILE`](Self::MAX_KEY_FILE) of them, which nobody can guess.
    KeyFile(SecretBytes),
}

impl Unlock {
    /// The least bytes that a key file has.
    pub const MIN_KEY_FILE: usize = 32;
    /// The most bytes that a key file has.
    pub const MAX_KEY_FILE: usize = 1 << 20;

    /// The kind of slot that it opens.
    #[must_use]
    pub fn kind(&self) -> SlotKind {
        match self {
            Unlock::Passphrase(_) => SlotKind::Passphrase,
            Unlock::KeyFile(_) => SlotKind::KeyFile,
        }
    }

    /// Checks its length.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage).
    pub fn check(&self) -> Result<()> {
        let wrong =
            |problem: String, remedy: &'static str| Err(Error::usage(problem).with_remedy(remedy));
        match self {
            Unlock::Passphrase(secret) if secret.expose().is_empty() => {
                wrong("the passphrase is empty".to_owned(), "give one that nobody guesses")
            }
            Unlock::KeyFile(bytes)
                if !(Self::MIN_KEY_FILE..=Self::MAX_KEY_FILE).contains(&bytes.expose().len()) =>
            {
                wrong(
                    format!(
                        "the key file has {} bytes; it needs {} at least and 1 MiB at most",
                        bytes.expose().len(),
                        Self::MIN_KEY_FILE
                    ),
                    "make one of random bytes: `head -c 64 /dev/urandom > FILE`",
                )
            }
            _ => Ok(()),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Unlock::Passphrase(secret) => secret.expose().as_bytes(),
            Unlock::KeyFile(bytes) => bytes.expose(),
        }
    }
}
