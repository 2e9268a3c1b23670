//! Addresses of servers, and where their passwords come from.

use std::path::{Path, PathBuf};

use backup_core::{Context, Error, Event, Result, Secret};
use backup_drivers::connect::{ConnectOptions, Session};

use crate::prompt;

/// A server that a command reads or writes.
pub(crate) struct Server<'a> {
    /// `source` or `target`: the name of the flag.
    pub(crate) role: &'static str,
    /// The environment variable that may hold the password.
    pub(crate) variable: &'static str,
    /// Its URL.
    pub(crate) url: Option<&'a str>,
    /// An option file of the servers' own clients.
    pub(crate) defaults_file: Option<&'a Path>,
}

impl Server<'_> {
    /// Address and password.
    ///
    /// The password is that of the environment, else of the URL, else of the option file. Where
    /// there is none, the server asks for one and there is a terminal, the user is asked.
    ///
    /// # Errors
    /// A usage error when no server is named; what the connection fails with, when it was tried.
    pub(crate) async fn resolve(&self, cx: &Context) -> Result<ConnectOptions> {
        if self.url.is_none() && self.defaults_file.is_none() {
            return Err(Error::usage(format!("no {} was given", self.role)).with_remedy(format!(
                "name it with --{} mysql://user@host/ or --defaults-file",
                self.role
            )));
        }
        if self.url.is_some_and(|url| url.starts_with("file:")) {
            return Err(Error::usage(format!(
                "file: names the directory of a stopped server, and the {} has to run for this",
                self.role
            ))
            .with_remedy("start the server and name it as mysql://user@host/"));
        }
        let options = ConnectOptions::resolve(self.url, self.defaults_file, self.variable()?)?;
        if options.password_in_url {
            cx.event(Event::Warning {
                text: format!(
                    "the password of the {} is in its URL, where the process list and the shell's \
                     history show it; {} or --defaults-file hide it",
                    self.role, self.variable
                ),
            });
        }
        if options.password.is_some() || !prompt::is_possible() {
            return Ok(options);
        }
        match cx.run(Session::open(&options)).await {
            Ok(session) => {
                // It was only a question; how the farewell goes does not matter.
                let _ = session.close().await;
                Ok(options)
            }
            Err(e) if e.server().is_some_and(|server| server.code == ACCESS_DENIED) => {
                let password = prompt::ask(cx, format!("Password of {options}: ")).await?;
                Ok(options.with_password(password))
            }
            Err(e) => Err(e),
        }
    }

    fn variable(&self) -> Result<Option<Secret>> {
        match std::env::var(self.variable) {
            Ok(password) => Ok(Some(password).filter(|p| !p.is_empty()).map(Secret::new)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(Error::usage(format!("{} is not UTF-8", self.variable)))
            }
        }
    }
}

/// `ER_ACCESS_DENIED_ERROR` of both servers.
const ACCESS_DENIED: u16 = 1045;

/// The flag that both directions share.
#[derive(clap::Args)]
pub(crate) struct DefaultsFile {
    /// Option file of the servers' own clients (groups client and holdfast): user, password,
    /// socket, TLS
    #[arg(long, value_name = "FILE")]
    pub(crate) defaults_file: Option<PathBuf>,
}
