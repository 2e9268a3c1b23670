//! Secrets: passwords and keys that must never be printed, logged or stored.

use std::fmt;
use std::sync::Arc;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

/// A password or passphrase. `Debug` and `Display` show `***`; the memory is wiped on drop; there
/// is no way to serialise it.
///
/// ```
/// use backup_core::Secret;
/// let password = Secret::new("hunter2");
/// assert_eq!(format!("{password:?} {password}"), "*** ***");
/// assert_eq!(password.expose(), "hunter2");
/// ```
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a secret into custody.
    pub fn new(secret: impl Into<String>) -> Self {
        Secret(SecretString::from(secret.into()))
    }

    /// The secret itself. Hand it to the function that needs it and keep no copy.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Bytes of a key file. `Debug` shows `***`; the memory is wiped with the last clone.
///
/// ```
/// use backup_core::SecretBytes;
/// let key = SecretBytes::new(vec![1, 2, 3]);
/// assert_eq!(format!("{key:?}"), "***");
/// assert_eq!(key.expose(), [1, 2, 3]);
/// ```
#[derive(Clone)]
pub struct SecretBytes(Arc<Zeroizing<Vec<u8>>>);

impl SecretBytes {
    /// Takes a secret into custody.
    pub fn new(secret: impl Into<Zeroizing<Vec<u8>>>) -> Self {
        SecretBytes(Arc::new(secret.into()))
    }

    /// The secret itself. Hand it to the function that needs it and keep no copy.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
