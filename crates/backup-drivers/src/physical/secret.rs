//! The private option file through which a tool gets its credentials.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use backup_core::{ErrorKind, Result, io_error};

use crate::connect::{ConnectOptions, Endpoint, SslMode};
use crate::sandbox::Scratch;
use crate::xbstream::Dialect;

/// A directory that only we can enter, with the option file in it. It goes with the value, or with the next run of
/// ours where this one is killed.
pub(super) struct Private {
    directory: Scratch,
}

impl Private {
    /// Writes the option file.
    pub(super) fn new(source: &ConnectOptions, dialect: Dialect) -> Result<Private> {
        let parent = std::env::temp_dir();
        let create = || {
            let directory = Scratch::new(&parent, "tool")?;
            std::fs::create_dir(directory.path().join("work"))?;
            let path = directory.path().join("my.cnf");
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(option_file(source, dialect).as_bytes())?;
            Ok(Private { directory })
        };
        create().map_err(|e| {
            let shown = parent.display();
            let error = io_error(
                e,
                ErrorKind::Usage,
                format!("cannot write a private option file in {shown}"),
            );
            match error.kind() {
                ErrorKind::Usage => {
                    error.with_remedy("name a directory that can be written to with TMPDIR")
                }
                _ => error,
            }
        })
    }

    pub(super) fn options(&self) -> PathBuf {
        self.directory.path().join("my.cnf")
    }

    pub(super) fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }
}

fn option_file(source: &ConnectOptions, dialect: Dialect) -> String {
    let mut text = String::from("[client]\n");
    let mut set = |name: &str, value: &str| {
        text.push_str(name);
        text.push_str("=\"");
        text.push_str(&escape(value));
        text.push_str("\"\n");
    };
    set("user", &source.user);
    if let Some(password) = &source.password {
        set("password", password.expose());
    }
    match &source.endpoint {
        Endpoint::Socket(path) => set("socket", &path.to_string_lossy()),
        Endpoint::Tcp { host, port } => {
            set("host", host);
            set("port", &port.to_string());
            set("protocol", "tcp");
        }
    }
    let path =
        |path: &Option<PathBuf>| path.as_deref().map(Path::to_string_lossy).map(String::from);
    if let Some(ca) = path(&source.tls.ca) {
        set("ssl-ca", &ca);
    }
    if let (Some(cert), Some(key)) = (path(&source.tls.cert), path(&source.tls.key)) {
        set("ssl-cert", &cert);
        set("ssl-key", &key);
    }
    let verified = matches!(source.tls.mode, SslMode::VerifyCa | SslMode::VerifyIdentity);
    match dialect {
        Dialect::XtraBackup => set(
            "ssl-mode",
            match source.tls.mode {
                SslMode::Disabled => "DISABLED",
                SslMode::Preferred => "PREFERRED",
                SslMode::Required => "REQUIRED",
                SslMode::VerifyCa => "VERIFY_CA",
                SslMode::VerifyIdentity => "VERIFY_IDENTITY",
            },
        ),
        // Its client checks certificates by default since 11.4, and ours says whether it should.
        Dialect::MariaDb if source.tls.mode == SslMode::Disabled => text.push_str("skip-ssl\n"),
        Dialect::MariaDb if verified => text.push_str("ssl\nssl-verify-server-cert\n"),
        Dialect::MariaDb => {
            if source.tls.mode == SslMode::Required {
                text.push_str("ssl\n");
            }
            text.push_str("loose-skip-ssl-verify-server-cert\n");
        }
    }
    text
}

/// As an option file reads it back, between double quotes.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for letter in value.chars() {
        match letter {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_we_can_read_it_and_it_goes() {
        let source = ConnectOptions::tcp("db1", 3307, "backup");
        let private = Private::new(&source, Dialect::XtraBackup).unwrap();
        let path = private.options();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("host=\"db1\"\nport=\"3307\"\n"), "{text}");
        drop(private);
        assert!(!path.exists());
    }

    #[test]
    fn any_password_stays_what_it_is() {
        assert_eq!(escape("p#w\"x\\n\n"), "p#w\\\"x\\\\n\\n");
    }
}
