//! What a restore changes at the server as a whole, and puts back however it ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use backup_core::{Context, ErrorKind, Event, Result};

use super::super::inventory::ServerFacts;
use super::super::load::{Mark, Progress, allow_local_infile, forbid_local_infile};
use super::{Earlier, RedoLog};
use crate::connect::{ConnectOptions, Session};

/// What has to be put back. Each change is marked in the progress before it is made, so that a later
/// run puts back what one that was killed could not.
pub(super) struct Changes {
    local_infile: AtomicBool,
    trust: AtomicBool,
    redo_log: AtomicBool,
    /// How large the redo log was; 0 where it was left alone.
    redo_size: AtomicU64,
    /// What `max_allowed_packet` was; 0 where it was left alone.
    packet: AtomicU64,
}

/// The longest packet that servers send or take.
const PACKET: u64 = 1 << 30;

/// More brings nothing: pages are written out less often than they are changed by then.
const REDO_SIZE: u64 = 2 << 30;

impl Changes {
    /// What an earlier run left.
    pub(super) fn of(earlier: &Earlier) -> Self {
        let left = |mark| matches!(earlier, Earlier::Work(state) if state.has(mark)).into();
        let size = |mark| match earlier {
            Earlier::Work(state) => state.value(mark).and_then(|size| size.parse::<u64>().ok()),
            Earlier::Nothing | Earlier::Lost(_) => None,
        };
        Changes {
            local_infile: left(Mark::LocalInfile),
            trust: left(Mark::Trust),
            redo_log: left(Mark::RedoLog),
            redo_size: size(Mark::RedoSize).unwrap_or_default().into(),
            packet: size(Mark::Packet).unwrap_or_default().into(),
        }
    }

    /// Allows `LOAD DATA LOCAL`.
    pub(super) async fn allow_local_infile(
        &self,
        session: &mut Session,
        progress: Option<&Progress>,
    ) -> Result<()> {
        let on: Option<u8> = session.query_first("SELECT @@GLOBAL.local_infile").await?;
        if on == Some(1) {
            return Ok(());
        }
        if let Some(progress) = progress {
            progress.set(session, Mark::LocalInfile, "").await?;
        }
        self.local_infile.store(true, Ordering::Relaxed);
        allow_local_infile(session).await.map(drop)
    }

    /// Has sessions that begin from now on take documents of any length, where the account may: how long the longest
    /// one is, nobody knows before it is met.
    pub(super) async fn longer_packets(
        &self,
        session: &mut Session,
        progress: Option<&Progress>,
    ) -> Result<()> {
        let size: Option<u64> = session.query_first("SELECT @@GLOBAL.max_allowed_packet").await?;
        let Some(size) = size.filter(|size| *size < PACKET) else { return Ok(()) };
        let value = size.to_string();
        if try_to(session, progress, (Mark::Packet, &value), &packet(PACKET)).await? {
            self.packet.store(size, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Has a server with a binary log take functions and triggers from everybody, where the account may; who may not
    /// is taken them from for another reason, or was told before.
    pub(super) async fn trust_creators(
        &self,
        session: &mut Session,
        progress: Option<&Progress>,
    ) -> Result<()> {
        let sql = "SELECT @@GLOBAL.log_bin AND NOT @@GLOBAL.log_bin_trust_function_creators";
        if session.query_first::<u8>(sql).await? != Some(1) {
            return Ok(());
        }
        if try_to(session, progress, (Mark::Trust, ""), &trust("ON")).await? {
            self.trust.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Switches the redo log off.
    pub(super) async fn redo_log_off(
        &self,
        session: &mut Session,
        facts: &ServerFacts,
        ours: &[String],
        progress: Option<&Progress>,
    ) -> Result<()> {
        if !RedoLog::is_on(session).await? {
            return Ok(());
        }
        if let Some(progress) = progress {
            progress.set(session, Mark::RedoLog, "").await?;
        }
        self.redo_log.store(true, Ordering::Relaxed);
        RedoLog::off(session, facts, ours).await
    }

    /// Gives the redo log room where it is smaller than what is loaded: else the server writes every
    /// page out again and again. It is left alone where the account may not change it, or where it was
    /// made larger by a run that was interrupted.
    pub(super) async fn redo_log_larger(
        &self,
        session: &mut Session,
        bytes: u64,
        progress: Option<&Progress>,
    ) -> Result<()> {
        // The server takes multiples of a MiB.
        let wanted = bytes.min(REDO_SIZE) >> 20 << 20;
        let Some(size) = RedoLog::size(session).await?.filter(|size| *size < wanted) else {
            return Ok(());
        };
        let first = self.redo_size.load(Ordering::Relaxed) == 0;
        if first && let Some(progress) = progress {
            progress.set(session, Mark::RedoSize, &size.to_string()).await?;
        }
        match RedoLog::resize(session, wanted).await {
            Ok(()) if first => self.redo_size.store(size, Ordering::Relaxed),
            Ok(()) => {}
            Err(e) if e.server().is_some() && e.kind() != ErrorKind::Connect => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Puts everything back, over a connection of its own: that of the restore may have been cut off
    /// in the middle of a statement. What was put back is not put back again. The marks stay, for them to be dropped
    /// as a whole, but for those of a restore that `failed`.
    pub(super) async fn put_back(
        &self,
        cx: &Context,
        target: &ConnectOptions,
        progress: Option<&Progress>,
        failed: bool,
    ) -> Result<()> {
        let redo_log = self.redo_log.load(Ordering::Relaxed);
        let local_infile = self.local_infile.load(Ordering::Relaxed);
        let redo_size = self.redo_size.load(Ordering::Relaxed);
        let trusts = self.trust.load(Ordering::Relaxed);
        let length = self.packet.load(Ordering::Relaxed);
        if !redo_log && !local_infile && !trusts && redo_size == 0 && length == 0 {
            return Ok(());
        }
        let put = async {
            let mut session = Session::open(target).await?;
            let mut marks = Vec::new();
            if redo_log {
                RedoLog::on(&mut session).await?;
                marks.push(Mark::RedoLog);
            }
            if local_infile {
                forbid_local_infile(&mut session).await?;
                marks.push(Mark::LocalInfile);
            }
            if trusts {
                session.run(&trust("OFF")).await?;
                marks.push(Mark::Trust);
            }
            if redo_size > 0 {
                match RedoLog::resize(&mut session, redo_size).await {
                    // So it was not made larger either.
                    Err(e) if e.kind() == ErrorKind::Privilege => {}
                    other => other?,
                }
                marks.push(Mark::RedoSize);
            }
            if length > 0 {
                match session.run(&packet(length)).await {
                    // So it was not raised either.
                    Err(e) if e.kind() == ErrorKind::Privilege => {}
                    other => drop(other?),
                }
                marks.push(Mark::Packet);
            }
            if let Some(progress) = progress.filter(|_| failed) {
                for mark in marks {
                    // Not there where the restore failed before it began one. What is left marked
                    // is put back once more, which changes nothing.
                    let _ = progress.unset(&mut session, mark).await;
                }
            }
            session.close().await
        };
        let put = put.await;
        if put.is_ok() {
            for change in [&self.redo_log, &self.local_infile, &self.trust] {
                change.store(false, Ordering::Relaxed);
            }
            for change in [&self.redo_size, &self.packet] {
                change.store(0, Ordering::Relaxed);
            }
        }
        match put {
            // What broke the restore says more than that the target is out of reach now.
            Err(e) if failed => {
                let what = [
                    (redo_log, "the redo log off"),
                    (local_infile, "local_infile ON"),
                    (trusts, "log_bin_trust_function_creators ON"),
                    (redo_size > 0, "the redo log larger than it was"),
                    (length > 0, "max_allowed_packet larger than it was"),
                ];
                let what = what.into_iter().filter_map(|(is, what)| is.then_some(what));
                let text = format!(
                    "at the target may still be: {}: {}; running the restore again puts it back",
                    what.collect::<Vec<_>>().join(", "),
                    e.chain()
                );
                cx.event(Event::Warning { text });
                Ok(())
            }
            other => other,
        }
    }
}

/// Marks a change and makes it by `sql`, where the account may; gives whether it did.
async fn try_to(
    session: &mut Session,
    progress: Option<&Progress>,
    (mark, value): (Mark, &str),
    sql: &str,
) -> Result<bool> {
    if let Some(progress) = progress {
        progress.set(session, mark, value).await?;
    }
    match session.run(sql).await {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::Privilege => {
            if let Some(progress) = progress {
                progress.unset(session, mark).await?;
            }
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

fn packet(size: u64) -> String {
    format!("SET GLOBAL max_allowed_packet = {size}")
}

fn trust(value: &str) -> String {
    format!("SET GLOBAL log_bin_trust_function_creators = {value}")
}
