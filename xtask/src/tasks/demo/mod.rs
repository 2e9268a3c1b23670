//! `cargo xtask demo`: the whole story on a real server, from an empty machine to a proven restore.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use backup_core::{Context, Error, ErrorKind, Result, io_error};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::sandbox::Sandbox;
use xtask::servers::install;

/// The server it plays on.
const SERVER: &str = "mysql-9.7";
/// The table that gets lost.
const LOST: &str = "shop.orders";

/// What the demonstration plays with.
struct Stage {
    holdfast: PathBuf,
    directory: PathBuf,
    source: String,
}

pub(crate) async fn run(keep: Option<PathBuf>, cx: &Context) -> Result<()> {
    let started = Instant::now();
    step("Build holdfast, get a server");
    let holdfast = build()?;
    let install = install(SERVER)?;
    let scratch = tempfile::tempdir()
        .map_err(|e| io_error(e, ErrorKind::Internal, "cannot make a temporary directory"))?;
    let directory = keep.unwrap_or_else(|| scratch.path().to_path_buf());
    let mut sandbox = Sandbox::builder(&install).start(cx).await?;
    say(&format!("{} runs, with nothing but a socket", install.version().trim()));

    step("Make a database worth keeping");
    let mut session = Session::open(&ConnectOptions::socket(sandbox.socket(), "root")).await?;
    for statement in include_str!("sample.sql").split(";;\n") {
        let lines = statement.lines().filter(|line| !line.starts_with("-- "));
        let text = lines.collect::<Vec<_>>().join("\n");
        if !text.trim().is_empty() {
            session.run(&text).await?;
        }
    }
    say(
        "three schemas; views, a trigger, routines, an event, JSON, BLOBs, emoji, partitions, foreign keys",
    );

    let stage = Stage {
        holdfast,
        directory,
        source: format!("mysql://root@localhost/?socket={}", sandbox.socket().display()),
    };
    step("Back it up");
    stage.holdfast(&["init", "--no-encryption"])?;
    stage.holdfast(&["check", "--source", &stage.source])?;
    stage.holdfast(&["backup", "--source", &stage.source, "--cluster", "demo"])?;

    step("Look at it, and verify every byte");
    stage.holdfast(&["list"])?;
    stage.holdfast(&["show", "latest"])?;
    stage.holdfast(&["verify", "latest", "--cluster", "demo", "--level", "content"])?;

    step("Lose a table by accident");
    let before = digest(&mut session).await?;
    say(&format!("the server's own digest of {LOST}: {before}"));
    say(&format!("mysql> DROP TABLE {LOST};"));
    session.run(&format!("DROP TABLE {LOST}")).await?;

    step("Get it back");
    let target = ["--cluster", "demo", "--target", &stage.source, "--tables", LOST];
    stage.holdfast(&[&["restore", "latest", "--dry-run"], &target[..]].concat())?;
    let restoring = Instant::now();
    stage.holdfast(&[&["restore", "latest"], &target[..]].concat())?;
    let took = restoring.elapsed();

    step("Prove it");
    let after = digest(&mut session).await?;
    say(&format!("the server's own digest of {LOST}: {after}"));
    if before != after {
        return Err(Error::damaged(format!("{LOST} is not what it was: {before}, now {after}")));
    }
    session.close().await?;
    sandbox.stop().await?;
    say(&format!(
        "the same, row by row and bit by bit; back after {:.1} s. The whole story took {:.1} s.",
        took.as_secs_f64(),
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn step(title: &str) {
    println!("\n━━ {title}");
}

fn say(text: &str) {
    println!("   {text}");
}

/// Builds the command line as a user would run it.
fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--locked", "--package", "backup-cli"])
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| io_error(e, ErrorKind::Internal, "cannot run cargo"))?;
    if !output.status.success() {
        return Err(Error::internal("holdfast cannot be built"));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| Error::internal("cargo named no program"))
}

impl Stage {
    /// Runs a command of holdfast and shows it as a session at a terminal would.
    fn holdfast(&self, arguments: &[&str]) -> Result<()> {
        let repository = self.directory.join("backups");
        println!("   $ holdfast {}", arguments.join(" "));
        let began = Instant::now();
        let output = Command::new(&self.holdfast)
            .args(arguments)
            .env("HOLDFAST_REPO", &repository)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| io_error(e, ErrorKind::Internal, "cannot run holdfast"))?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            println!("   {line}");
        }
        if !output.status.success() {
            return Err(Error::internal(format!(
                "holdfast {} ended with {}",
                arguments[0], output.status
            )));
        }
        let stored = size(&repository).unwrap_or_default();
        let stored = stored as f64 / 1e6;
        say(&format!(
            "({:.2} s; the repository has {stored:.1} MB)",
            began.elapsed().as_secs_f64()
        ));
        Ok(())
    }
}

fn size(directory: &Path) -> std::io::Result<u64> {
    std::fs::read_dir(directory)?.try_fold(0, |sum, entry| {
        let entry = entry?;
        let metadata = entry.metadata()?;
        Ok(sum + if metadata.is_dir() { size(&entry.path())? } else { metadata.len() })
    })
}

/// A digest of the lost table's rows that the server computes, not we.
async fn digest(session: &mut Session) -> Result<String> {
    let columns: Vec<String> = session
        .query_rows(
            "SELECT CONCAT('IFNULL(HEX(CAST(`', COLUMN_NAME, '` AS BINARY)), ''~'')') FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA = 'shop' AND TABLE_NAME = 'orders' ORDER BY ORDINAL_POSITION",
        )
        .await?;
    let row = format!("SHA2(CONCAT_WS(',', {}), 256)", columns.join(", "));
    let sql = format!(
        "SELECT CONCAT(COUNT(*), ' rows, ', \
         LPAD(HEX(BIT_XOR(CAST(CONV(SUBSTRING({row}, 1, 16), 16, 10) AS UNSIGNED))), 16, '0')) FROM {LOST}"
    );
    let digest: Option<String> = session.query_first(&sql).await?;
    digest.ok_or_else(|| Error::internal("the server gave no digest"))
}
