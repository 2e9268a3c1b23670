//! From an archive to a server.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use backup_core::{
    BinlogChain, Context, Error, ErrorKind, GtidSet, Position, ReplayBase, ReplayTarget, Result,
    io_error,
};
use backup_drivers::binlog::replay::{ApplyOptions, apply};
use backup_drivers::binlog::{Route, Skipping};
use backup_drivers::connect::Session;
use backup_drivers::sandbox::Sandbox;

use super::{Archive, binlogs, content, durable, load, root};
use crate::Arguments;
use crate::server::file_error;

/// Settings of the target, as holdfast finds and changes them.
const SHOWN: [&str; 10] = [
    "sync_binlog",
    "innodb_flush_log_at_trx_commit",
    "log_bin",
    "replica_parallel_workers",
    "replica_preserve_commit_order",
    "log_replica_updates",
    "slave_parallel_threads",
    "slave_parallel_mode",
    "log_slave_updates",
    "innodb_buffer_pool_size",
];

async fn settings(server: &Sandbox) -> Result<String> {
    let mut session = Session::open(&root(server)).await?;
    let names: Vec<String> = SHOWN.iter().map(|name| format!("'{name}'")).collect();
    let sql = format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({})", names.join(", "));
    let rows: Vec<(String, String)> = session.query_rows(&sql).await?;
    session.close().await?;
    let told: Vec<String> = rows.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Ok(told.join(" "))
}

/// Applies one archive with both, and prints how long that took.
pub(crate) async fn measure(arguments: &Arguments) -> Result<String> {
    let cx = Context::builder().build();
    let place = tempfile::tempdir()
        .map_err(|e| io_error(e, ErrorKind::Space, "cannot make a directory to work in"))?;
    let name = arguments.server.as_str();
    // Written in haste; only the binlogs matter.
    let options =
        [("sync_binlog", "0"), ("innodb_flush_log_at_trx_commit", "0"), ("binlog_format", "ROW")];
    let source = durable(name, &options, &cx).await?;
    load::prepare(&source).await?;
    load::run(&source, arguments.transactions, 8).await?;
    let archive = Archive::begin(&cx, &place.path().join("repo")).await?;
    let received = archive.receive(&cx, &source, &place.path().join("spool")).await?;
    let expected = content(&source).await?;
    let (files, bytes) = binlogs(&source).await?;

    let mut report = format!(
        "{name}: {} transactions, {:.0} MiB of binlogs, {} tables\n\n\
         | | wall (s) | workers |\n|---|---|---|\n",
        received.transactions,
        bytes as f64 / 1_048_576.0,
        load::TABLES
    );
    let mut best = f64::INFINITY;
    let mut found = String::new();
    for workers in &arguments.workers {
        let target = durable(name, &[], &cx).await?;
        found = settings(&target).await?;
        let chain = BinlogChain::new(archive.segments(&cx).await?);
        let gtid = Some(GtidSet::empty(source.install().flavor()));
        let base = ReplayBase { server: None, position: Position { gtid, ..Position::default() } };
        let began = Instant::now();
        let to = ReplayTarget::End;
        let plan = chain.plan(&base, &to)?;
        let skip = BTreeSet::new();
        let route =
            Route::resolve(&cx, &archive.repo, &chain, &plan, &to, skip, Skipping::Emptied).await?;
        let options =
            ApplyOptions { tell_applied: true, workers: Some(*workers), ..ApplyOptions::default() };
        let repo = Arc::new(archive.repo.clone());
        apply(&cx, &root(&target), repo, Arc::new(route), &options).await?;
        let seconds = began.elapsed().as_secs_f64();
        best = best.min(seconds);
        check(&target, &expected, "holdfast").await?;
        report.push_str(&format!("| holdfast | {seconds:.1} | {workers} |\n"));
    }
    let target = durable(name, &[], &cx).await?;
    let theirs = pipe(&source, &files, &target).await?;
    check(&target, &expected, "mysqlbinlog | mysql").await?;
    report.push_str(&format!("| mysqlbinlog \\| mysql | {theirs:.1} | 1 |\n\n"));
    report.push_str(&format!(
        "{:.1} times as fast (goal: 10). The target as both find it: {found}. While it applies, \
         holdfast sets sync_binlog=0, innodb_flush_log_at_trx_commit=0 (2 where what is applied goes into \
         its binlog), the workers, and on MySQL replica_preserve_commit_order=OFF, on MariaDB slave_parallel_mode=optimistic; then it puts them \
         back and flushes.\n",
        theirs / best
    ));
    Ok(report)
}

async fn check(target: &Sandbox, expected: &[(String, Option<u64>)], who: &str) -> Result<()> {
    if content(target).await? == expected {
        return Ok(());
    }
    Err(Error::internal(format!("{who} left other rows than the source has")))
}

/// `mysqlbinlog FILES | mysql`.
async fn pipe(source: &Sandbox, files: &[String], target: &Sandbox) -> Result<f64> {
    let install = target.install();
    let mut reader = install.command("mysqlbinlog")?;
    reader.args(files.iter().map(|name| source.datadir().join(name))).stdout(Stdio::piped());
    let mut writer = install.command("mysql")?;
    writer.args(["--no-defaults", "--user=root", "--binary-mode"]);
    writer.arg(format!("--socket={}", target.socket().display()));
    let failed = |e| io_error(e, ErrorKind::Internal, "cannot run the client programs");
    let began = Instant::now();
    let mut reader = reader.spawn().map_err(failed)?;
    if let Some(out) = reader.stdout.take() {
        writer.stdin(out);
    }
    let done = tokio::task::spawn_blocking(move || {
        let wrote = writer.stdout(Stdio::null()).status()?;
        Ok::<_, std::io::Error>(wrote.success() && reader.wait()?.success())
    });
    let done = done.await.map_err(|e| Error::internal("a task ended early").with_source(e))?;
    if !done.map_err(file_error(source.datadir()))? {
        return Err(Error::internal("mysqlbinlog | mysql failed"));
    }
    Ok(began.elapsed().as_secs_f64())
}
