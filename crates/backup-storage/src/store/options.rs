//! What a caller may choose about a store, and the credentials for it.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use backup_core::Secret;

/// Choices of the program that opens a store. Libraries read no environment: whatever comes from
/// there is put in here by the caller.
///
/// ```
/// use backup_storage::{Credentials, StoreOptions};
/// let options = StoreOptions {
///     credentials: Some(Credentials::Key {
///         id: "AKIAIOSFODNN7EXAMPLE".into(),
///         secret: backup_core::Secret::new("wJalrXUtnFEMI/K7MDENG"),
///         token: None,
///     }),
///     ..StoreOptions::default()
/// };
/// assert!(!format!("{options:?}").contains("wJalr"));
/// ```
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Who signs in to an object store; directories need none.
    pub credentials: Option<Credentials>,
    /// The endpoint of an `s3://` URL that names none.
    pub endpoint: Option<String>,
    /// The region of a URL that names none.
    pub region: Option<String>,
    /// How many bytes a second are written, over all clones of the store.
    pub upload_limit: Option<NonZeroU64>,
    /// How long a request may stand still (no byte moved either way) before it is given up and tried
    /// again. For NFS how long one call may take.
    pub request_timeout: Duration,
    /// After this time no further attempt of a request is begun.
    pub patience: Duration,
    /// The HTTP proxy to an object store.
    pub proxy: Option<Proxy>,
}

impl Default for StoreOptions {
    /// No credentials, no limits; requests may stand still for a minute, and are tried for two.
    fn default() -> Self {
        StoreOptions {
            credentials: None,
            endpoint: None,
            region: None,
            upload_limit: None,
            request_timeout: Duration::from_secs(60),
            patience: Duration::from_secs(120),
            proxy: None,
        }
    }
}

/// Who signs the requests to an object store. `Debug` shows no secret.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Credentials {
    /// An access key.
    Key {
        /// The public part.
        id: String,
        /// The secret part.
        secret: Secret,
        /// The session token that belongs to temporary keys.
        token: Option<Secret>,
    },
    /// Temporary keys from the metadata service of the virtual machine (IMDSv2), renewed as needed.
    Instance,
    /// Temporary keys for a token in a file, as Kubernetes gives it to pods (IRSA).
    WebIdentity {
        /// Where the token is; read again at each renewal.
        token_file: PathBuf,
        /// The role to take on.
        role: String,
    },
    /// Temporary keys from the agent of a container (ECS).
    Container {
        /// The path at the agent, as `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` has it.
        relative_uri: String,
    },
    /// Temporary keys from the agent of a pod (EKS Pod Identity).
    Pod {
        /// The URL, as `AWS_CONTAINER_CREDENTIALS_FULL_URI` has it.
        uri: String,
        /// Where the token is, as `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE` has it.
        token_file: PathBuf,
    },
}

/// An HTTP proxy.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Its URL; it may hold a password.
    pub url: Secret,
    /// Hosts that are reached without it, as the variable `NO_PROXY` lists them.
    pub except: String,
}
