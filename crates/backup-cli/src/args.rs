//! What the command line takes, beyond the flags of single commands.

use std::path::PathBuf;
use std::str::FromStr;

use backup_core::{BackupType, Strategy, shell_word};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand};
use serde::Deserialize;

use crate::cmd;
use crate::human::parse_bytes;
use crate::progress::{Mode, Verbosity};
use crate::unlock::KeyFlags;

/// Backs up MySQL and MariaDB, and proves that what it backed up can be restored
#[derive(Parser)]
#[command(name = "holdfast", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Passwords come from HOLDFAST_SOURCE_PASSWORD and HOLDFAST_TARGET_PASSWORD, from --defaults-file, or
from a prompt. The key of an encrypted repository comes from --passphrase-file, --key-file,
HOLDFAST_PASSPHRASE, HOLDFAST_PASSPHRASE_FILE, HOLDFAST_KEY_FILE, or from a prompt.

Exit codes: 0 done, 1 internal error, 2 usage or configuration, 3 cannot connect or sign in,
4 missing privilege, 5 not enough space, 6 source in the wrong state, 7 repository or store failure,
8 backup damaged or chain broken, 9 target not empty or in the wrong state, 10 target point not
reachable, 11 verification found problems, 12 busy, 13 interrupted, 14 finished with warnings.";

/// Flags of every command.
#[derive(Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The repository: /path, nfs:///mount/path, s3://bucket/prefix or oss://bucket/prefix
    #[arg(long, value_name = "URL", env = "HOLDFAST_REPO", hide_env_values = true, global = true)]
    pub(crate) repo: Option<String>,
    #[command(flatten)]
    pub(crate) key: KeyFlags,
    /// Configuration file (TOML); flags win over it
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing but warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more; twice for every object
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    /// How progress is shown on standard error
    #[arg(long, value_enum, value_name = "HOW", global = true)]
    pub(crate) progress: Option<Mode>,
    /// How many connections and workers to use, or `auto`: one per core to begin with, and in a
    /// logical backup more or fewer by what they bring [default: one per core]
    #[arg(long, value_name = "N", global = true)]
    pub(crate) threads: Option<Threads>,
    /// How much memory buffers may take, such as 512MiB [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, global = true)]
    pub(crate) memory: Option<u64>,
    /// How many bytes a second to write to the repository, such as 20MiB [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = parse_rate, global = true)]
    pub(crate) upload_limit: Option<u64>,
}

/// A slower rate would let every request time out.
fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        rate @ 1024.. => Ok(rate),
        _ => Err("a rate is at least 1KiB a second".to_owned()),
    }
}

/// `--threads`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub(crate) enum Threads {
    /// One per core, and as many as bring something where that can be told.
    Auto,
    /// So many.
    Fixed(u16),
}

/// More connections than this help nobody and exhaust the server.
const MAX_THREADS: u16 = 256;

impl FromStr for Threads {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Threads::Auto),
            (_, Ok(n)) if (1..=MAX_THREADS).contains(&n) => Ok(Threads::Fixed(n)),
            _ => Err(format!("write a number from 1 to {MAX_THREADS}, or auto")),
        }
    }
}

/// As a configuration file has it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "`threads` takes a number or \"auto\"")]
enum Written {
    Number(i64),
    Text(String),
}

impl TryFrom<Written> for Threads {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let text = match written {
            Written::Number(n) => n.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(|e| format!("`threads`: {e}"))
    }
}

impl Global {
    /// The flags that name repository, key and configuration, as they were given. The repository may be that of the
    /// environment, which a command that is pasted there needs no flag for.
    pub(crate) fn repo_flags(&self, of_environment: Option<&str>) -> String {
        let repo = self.repo.as_deref().filter(|repo| Some(*repo) != of_environment);
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        [
            ("--repo", repo.map(str::to_owned)),
            ("--passphrase-file", path(&self.key.passphrase_file)),
            ("--key-file", path(&self.key.key_file)),
            ("--config", path(&self.config)),
        ]
        .into_iter()
        .filter_map(|(flag, value)| Some(format!(" {flag} {}", shell_word(&value?))))
        .collect()
    }

    /// What `-q` and `-v` say together.
    pub(crate) fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, 0) => Verbosity::Normal,
            (false, 1) => Verbosity::Verbose,
            (false, _) => Verbosity::Chatty,
        }
    }
}

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    Init(cmd::init::Init),
    Key(cmd::key::Key),
    Check(cmd::check::Check),
    Backup(Box<cmd::backup::Backup>),
    List(cmd::list::List),
    Show(cmd::show::Show),
    Verify(cmd::verify::Verify),
    Restore(Box<cmd::restore::Restore>),
    Export(cmd::export::Export),
    Import(cmd::import::Import),
    Binlog(cmd::binlog::Binlog),
    Prune(cmd::prune::Prune),
    Copy(cmd::copy::Copy),
    Tier(cmd::tier::Tier),
    Thaw(cmd::thaw::Thaw),
    Repair(cmd::repair::Repair),
    Completions(cmd::completions::Completions),
    Man(cmd::man::Man),
}

/// `--strategy`, with those that this version has.
pub(crate) fn strategy() -> impl TypedValueParser<Value = Strategy> {
    let known = [Strategy::Logical, Strategy::Physical, Strategy::Snapshot, Strategy::Clone];
    PossibleValuesParser::new(known.map(Strategy::as_str)).map(move |name| {
        known
            .into_iter()
            .find(|strategy| strategy.as_str() == name)
            .expect("the parser before lets only these names through")
    })
}

/// `--type`, with those that this version has.
pub(crate) fn backup_type() -> impl TypedValueParser<Value = BackupType> {
    let known = [BackupType::Full, BackupType::Incremental, BackupType::Differential];
    PossibleValuesParser::new(known.map(BackupType::as_str)).map(move |name| {
        known
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .expect("the parser before lets only these names through")
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        super::Cli::command().debug_assert();
    }
}
