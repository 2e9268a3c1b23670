//! Distributed transactions.

use std::time::Duration;

use backup_core::{Error, ErrorKind, Flavor, Result};
use tokio::time::sleep;

use super::super::super::read::Reader;
use super::{Direct, lock};
use crate::connect::Session;

/// The list of transactions that MariaDB shows is renewed when nobody read it for 100 ms
/// (`CACHE_MIN_IDLE_TIME_NS` in its `trx0i_s.cc`). What is read later than this is of now.
const RENEWED: Duration = Duration::from_millis(150);
/// How often it is looked at before that is given up.
const LOOKS: u32 = 400;
/// From the end of a session in the list of processes to its end in the engine, where the account may not
/// see more: milliseconds, on a machine that is not very busy.
const UNSEEN: Duration = Duration::from_secs(1);
/// `ER_SPECIFIC_ACCESS_DENIED_ERROR`
const ACCESS_DENIED: u16 = 1227;

impl Direct<'_> {
    /// XA PREPARE, or XA COMMIT … ONE PHASE: u8 one phase, then the name.
    pub(super) async fn xa_prepare(&mut self, body: &[u8]) -> Result<()> {
        let damaged = || Error::damaged("an XA_PREPARE event cannot be read");
        let mut reader = Reader::new(body);
        let one_phase = reader.u8().ok_or_else(damaged)? != 0;
        let xid = xid(&mut reader, false).ok_or_else(damaged)?;
        let sql = match one_phase {
            true => format!("XA COMMIT {xid} ONE PHASE"),
            false => format!("XA PREPARE {xid}"),
        };
        self.target.session.run(&sql).await?;
        self.current.open = false;
        if !one_phase && self.flavor == Flavor::MariaDb {
            // A session holds to what it prepared until it ends.
            self.open_again().await?;
        }
        Ok(())
    }

    async fn open_again(&mut self) -> Result<()> {
        let fresh = Session::open(&self.target.options).await?;
        let old = std::mem::replace(&mut self.target.session, fresh);
        let id = old.id();
        old.close().await?;
        lock(self.target).await?;
        self.keep_history().await;
        self.let_go(id).await?;
        self.settings.clear();
        self.database.clear();
        self.known_format = None;
        Ok(())
    }

    /// Waits until the engine has let go of what the session `id` prepared. MariaDB ends a session in its
    /// list of distributed transactions first and in the engine last; an `XA COMMIT` in between says OK
    /// and commits nothing (seen on 10.11.19).
    async fn let_go(&mut self, id: u32) -> Result<()> {
        let engine = format!(
            "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id = {id}"
        );
        // One's own are shown to everybody.
        let processes =
            format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {id}");
        let mut sees_engine = true;
        for _ in 0..LOOKS {
            self.cx.check()?;
            sleep(RENEWED).await;
            let sql = if sees_engine { &engine } else { &processes };
            match self.target.session.query_first::<u64>(sql).await {
                Ok(Some(0)) if sees_engine => return Ok(()),
                Ok(Some(0)) => {
                    sleep(UNSEEN).await;
                    return Ok(());
                }
                Ok(_) => {}
                Err(e) if e.server().is_some_and(|s| s.code == ACCESS_DENIED) => {
                    sees_engine = false;
                }
                Err(e) => return Err(e),
            }
        }
        Err(Error::new(
            ErrorKind::Target,
            format!("the session {id}, which prepared an XA transaction, does not end"),
        )
        .with_remedy(
            "look at it with SHOW PROCESSLIST, end it, and go on with `holdfast binlog apply`",
        ))
    }
}

/// The name of a distributed transaction as SQL: format u32, lengths of its two parts (u8 or u32 each),
/// the parts.
pub(super) fn xid(reader: &mut Reader<'_>, short: bool) -> Option<String> {
    let format = reader.u32()?;
    let mut len = || match short {
        true => reader.u8().map(usize::from),
        false => reader.u32().and_then(|len| usize::try_from(len).ok()),
    };
    let (global, branch) = (len()?, len()?);
    let mut hex = |len| {
        let part = reader.take(len)?;
        Some(part.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    let (global, branch) = (hex(global)?, hex(branch)?);
    Some(format!("X'{global}',X'{branch}',{format}"))
}
