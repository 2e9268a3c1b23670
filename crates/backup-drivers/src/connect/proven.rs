//! With which password a server let us in.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use backup_core::Secret;

use super::{ConnectOptions, Endpoint};

/// What was right when it was tried, for all clones of some [`ConnectOptions`]. It begins with nothing.
#[derive(Clone, Default)]
pub struct Proven(Arc<Mutex<Option<Login>>>);

struct Login {
    endpoint: Endpoint,
    user: String,
    password: Secret,
}

impl Proven {
    /// Whether the server let us in with just these.
    pub(super) fn holds_for(&self, options: &ConnectOptions) -> bool {
        let login = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |login: &Login| {
            let password = options.password.as_ref().map(Secret::expose);
            login.endpoint == options.endpoint
                && login.user == options.user
                && password == Some(login.password.expose())
        };
        login.as_ref().is_some_and(same)
    }

    /// It did.
    pub(super) fn remember(&self, options: &ConnectOptions) {
        let login = options.password.clone().map(|password| Login {
            endpoint: options.endpoint.clone(),
            user: options.user.clone(),
            password,
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = login;
    }
}

impl fmt::Debug for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proven")
    }
}
