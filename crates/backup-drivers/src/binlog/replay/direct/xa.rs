//! Distributed transactions.

use backup_core::{Error, Flavor, Result};

use super::super::super::read::Reader;
use super::{Direct, lock};
use crate::connect::Session;

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
        std::mem::replace(&mut self.target.session, fresh).close().await?;
        lock(self.target).await?;
        self.settings.clear();
        self.database.clear();
        self.known_format = None;
        Ok(())
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
