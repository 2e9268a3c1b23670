//! Changes of rows as BINLOG statements.

use backup_core::Result;
use base64::prelude::{BASE64_STANDARD, Engine};

use super::super::super::event::{Checksum, Event, Header};
use super::super::super::rows::inflated;
use super::Direct;

/// Events of rows that go into one statement, in bytes; servers take at least 16 MiB.
const BATCH: usize = 1 << 20;
/// Flag of a rows event: the last of its statement.
const STATEMENT_END: u8 = 1;

impl Direct<'_> {
    /// A table that the next changes of rows are of.
    pub(super) async fn map(&mut self, header: &Header, body: &[u8]) -> Result<()> {
        if !self.rows.is_empty() {
            self.flush().await?;
        }
        self.maps.push(plain(header, body));
        Ok(())
    }

    /// Changes of rows.
    pub(super) async fn change(&mut self, header: &Header, body: &[u8]) -> Result<()> {
        self.rows.push(match inflated(header.kind, body) {
            Some((kind, body)) => plain(&Header { kind, ..*header }, &body),
            None => plain(header, body),
        });
        let ends = body.get(6).is_some_and(|flags| flags & STATEMENT_END != 0);
        let len: usize = self.rows.iter().map(|event| event.bytes().len()).sum();
        if ends || len >= BATCH {
            self.send_rows().await?;
        }
        if ends {
            self.maps.clear();
        }
        Ok(())
    }

    /// Sends what is left of changes of rows.
    pub(super) async fn flush(&mut self) -> Result<()> {
        if !self.rows.is_empty() {
            self.send_rows().await?;
        }
        self.maps.clear();
        Ok(())
    }

    /// Sends changes of rows, with the tables that they are of, as a statement of its own.
    async fn send_rows(&mut self) -> Result<()> {
        let mut rows = std::mem::take(&mut self.rows);
        if let Some(last) = rows.last_mut() {
            let mut body = last.body().to_vec();
            body[6] |= STATEMENT_END;
            *last = plain(last.header(), &body);
        }
        let len: usize = self.maps.iter().chain(&rows).map(|event| event.bytes().len()).sum();
        let mut sql = String::with_capacity(len / 3 * 4 + 64);
        sql.push_str("BINLOG '");
        for event in self.maps.iter().chain(&rows) {
            BASE64_STANDARD.encode_string(event.bytes(), &mut sql);
            sql.push('\n');
        }
        sql.push('\'');
        self.check_fits(sql.len())?;
        self.target.session.run(&sql).await.map(drop)
    }
}

/// An event without checksum, as the BINLOG statement takes it.
fn plain(header: &Header, body: &[u8]) -> Event {
    Event::build(*header, body, Checksum::None)
}
