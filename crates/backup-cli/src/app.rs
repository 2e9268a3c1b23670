//! From the command line to the exit code.

use std::ffi::OsStr;
use std::process::ExitCode;

use backup_core::{ClusterName, Context, Error, ErrorKind, MemoryBudget, Result, io_error};
use backup_storage::{Repo, RepoUrl, RepositoryOptions, Store, StoreOptions, Stores, Unlock};
use clap::Parser;

use crate::answer::Answer;
use crate::args::{Cli, Command, Global, Threads};
use crate::config::Config;
use crate::progress::{Mode, Reporter};
use crate::unlock::KeySource;
use crate::{failure, human, prompt, signals, store};

/// What commands are given.
pub(crate) struct App {
    /// Monitor, cancellation and limits of this run.
    pub(crate) cx: Context,
    /// The configuration file.
    pub(crate) config: Config,
    /// Whether the number of connections may follow what they bring.
    pub(crate) auto_threads: bool,
    /// The flags that named repository, key and configuration, for commands in remedies.
    pub(crate) repo_flags: String,
    repo: Option<String>,
    key: Option<KeySource>,
    upload_limit: Option<u64>,
}

impl App {
    /// The repository's URL, from the flag, the environment or the configuration.
    pub(crate) fn repo_url(&self) -> Result<RepoUrl> {
        let url = self.repo.as_deref().ok_or_else(|| {
            Error::usage("no repository was given")
                .with_remedy("name it with --repo, HOLDFAST_REPO, or `repo` in the configuration")
        })?;
        url.parse()
    }

    /// Whether a repository was named.
    pub(crate) fn has_repo(&self) -> bool {
        self.repo.is_some()
    }

    /// Opens the repository. Where it is encrypted, no key was given, and there is a terminal, the
    /// user is asked.
    pub(crate) async fn repo(&self, options: RepositoryOptions) -> Result<Repo> {
        let url = self.repo_url()?;
        let store = Store::open(&self.cx, &url, &self.store_options(&url)?).await?;
        let unlock = match self.key()? {
            None if prompt::is_possible() && Repo::is_encrypted(&store).await? => {
                let question = format!("Passphrase of repository {url}: ");
                Some(Unlock::Passphrase(prompt::ask(&self.cx, question).await?))
            }
            key => key,
        };
        let stores = self.stores();
        Repo::open_on(&self.cx, store, RepositoryOptions { unlock, stores, ..options }).await
    }

    /// Whether the repository is encrypted, which needs no key.
    pub(crate) async fn is_encrypted(&self) -> Result<bool> {
        let url = self.repo_url()?;
        let store = Store::open(&self.cx, &url, &self.store_options(&url)?).await?;
        Repo::is_encrypted(&store).await
    }

    /// How tiers and copies are reached.
    pub(crate) fn stores(&self) -> Stores {
        let limit = self.upload_limit;
        Stores::new(move |url| store::options(url, limit, |name| std::env::var(name).ok()))
    }

    /// The key of the repository, from the flags, the environment or the configuration.
    pub(crate) fn key(&self) -> Result<Option<Unlock>> {
        self.key.as_ref().map(|key| key.read(&self.cx)).transpose()
    }

    /// How to reach the store at `url`.
    pub(crate) fn store_options(&self, url: &RepoUrl) -> Result<StoreOptions> {
        store::options(url, self.upload_limit, |name| std::env::var(name).ok())
    }

    /// Opens the repository to read backups: where an object is damaged, a copy may stand in.
    pub(crate) async fn repo_or_copies(&self, options: RepositoryOptions) -> Result<Repo> {
        Ok(self.repo(options).await?.with_copies(&self.cx, &self.config.copies()?))
    }

    /// The cluster that a command needs, from its flag or the configuration.
    pub(crate) fn cluster(&self, flag: Option<&ClusterName>) -> Result<ClusterName> {
        flag.or(self.config.cluster.as_ref()).cloned().ok_or_else(|| {
            Error::usage("no cluster was given")
                .with_remedy("name it with --cluster, or `cluster` in the configuration")
        })
    }

    /// Fails where the repository has nothing of a cluster that was named by a flag, or has others
    /// alone: a name that was mistyped must not pass for a cluster that is well.
    pub(crate) async fn known(
        &self,
        repo: &Repo,
        flag: Option<&ClusterName>,
        cluster: &ClusterName,
    ) -> Result<()> {
        let known = self.cx.run(repo.clusters()).await?;
        if known.contains(cluster) || (flag.is_none() && known.is_empty()) {
            return Ok(());
        }
        let names: Vec<&str> = known.iter().map(ClusterName::as_str).collect();
        let remedy = match names.is_empty() {
            true => "look whether it is the right repository: it has no clusters yet".to_owned(),
            false => format!("the clusters in the repository are: {}", names.join(", ")),
        };
        let problem = format!("there are no backups and no binlogs of a cluster {cluster}");
        Err(Error::usage(problem).with_remedy(remedy))
    }
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let json = std::env::args_os().any(|arg| arg == OsStr::new("--json"));
            return failure::print_clap(&e, json).into();
        }
    };
    let Cli { global, command } = cli;
    let (json, quiet) = (global.json, global.quiet);
    let code = match &command {
        Command::Completions(completions) => completions.run().map(|()| 0),
        Command::Man(man) => man.run().map(|()| 0),
        _ => run(global, &command).and_then(|answer| answer.print(json, quiet)),
    };
    code.unwrap_or_else(|e| failure::print(&e, json)).into()
}

fn run(global: Global, command: &Command) -> Result<Answer> {
    // What a backup holds is for nobody else on the machine.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let config = Config::load(global.config.as_deref())?;
    let limits = Limits::choose(&global, &config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| io_error(e, ErrorKind::Internal, "cannot start threads"))?;
    let reporter = Reporter::start(limits.progress, global.verbosity());
    let mut builder = Context::builder().monitor(reporter.monitor()).memory(limits.memory);
    if let Some(Threads::Fixed(threads)) = limits.threads {
        builder = builder.threads(threads.into());
    }
    let auto_threads = limits.threads == Some(Threads::Auto);
    let cx = builder.build();
    reporter.watch(&cx);
    let repo_flags = global.repo_flags(std::env::var("HOLDFAST_REPO").ok().as_deref());
    let repo = global.repo.or_else(|| config.repo.clone());
    let key = KeySource::find(&global.key, &config)?;
    let upload_limit = global.upload_limit;
    let app = App { cx, config, auto_threads, repo_flags, repo, key, upload_limit };
    let answer = runtime.block_on(async {
        signals::watch(&app.cx)?;
        execute(&app, command).await
    });
    reporter.finish();
    // A prompt that still waits for the terminal must not keep the process.
    runtime.shutdown_background();
    answer
}

async fn execute(app: &App, command: &Command) -> Result<Answer> {
    match command {
        Command::Init(init) => init.run(app).await,
        Command::Key(key) => key.run(app).await,
        Command::Check(check) => check.run(app).await,
        Command::Backup(backup) => backup.run(app).await,
        Command::List(list) => list.run(app).await,
        Command::Show(show) => show.run(app).await,
        Command::Verify(verify) => verify.run(app).await,
        Command::Restore(restore) => restore.run(app).await,
        Command::Export(export) => export.run(app).await,
        Command::Import(import) => import.run(app).await,
        Command::Binlog(binlog) => binlog.run(app).await,
        Command::Prune(prune) => prune.run(app).await,
        Command::Copy(copy) => copy.run(app).await,
        Command::Tier(tier) => tier.run(app).await,
        Command::Thaw(thaw) => thaw.run(app).await,
        Command::Repair(repair) => repair.run(app).await,
        Command::Completions(_) | Command::Man(_) => {
            Err(Error::internal("this command needs no runtime"))
        }
    }
}

/// Flags that the configuration may give too.
struct Limits {
    progress: Mode,
    threads: Option<Threads>,
    memory: MemoryBudget,
}

impl Limits {
    fn choose(global: &Global, config: &Config) -> Result<Self> {
        let defaults = &config.defaults;
        let wrong = |key: &'static str| {
            move |problem: String| {
                Error::usage(format!("`{key}` in the configuration: {problem}"))
                    .with_remedy("correct the configuration file")
            }
        };
        let progress = match (global.progress, &defaults.progress) {
            (Some(mode), _) => mode,
            (None, Some(text)) => text.parse().map_err(wrong("progress"))?,
            (None, None) => Mode::Auto,
        };
        let memory = match (global.memory, &defaults.memory) {
            (Some(bytes), _) => MemoryBudget::new(bytes),
            (None, Some(text)) => {
                MemoryBudget::new(human::parse_bytes(text).map_err(wrong("memory"))?)
            }
            (None, None) => MemoryBudget::default(),
        };
        let threads = global.threads.or(defaults.threads);
        Ok(Limits { progress, threads, memory })
    }
}
