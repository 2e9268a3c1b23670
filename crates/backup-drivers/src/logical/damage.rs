//! Sources with damaged tables: told of, left out, or read around.

use std::fmt;

use backup_core::{ArtifactSink, Context, Error, ErrorKind, Layout, Result};
use serde::Serialize;

use super::catalog::{Chunk, Table};
use super::mask::TableMask;
use super::plan::{self, Range};
use super::select::{TableName, quote_name};
use super::{resume, scan};
use crate::connect::Session;
use crate::wire;

/// What is done about rows that the server cannot read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnCorrupt {
    /// The backup fails.
    #[default]
    Fail,
    /// The rows of the table are left out, and told of.
    Skip,
    /// What can be read of the table is kept; what cannot is told of range by range.
    Salvage,
}

/// Rows that are not in the backup because the server could not read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Lost {
    pub table: String,
    /// The lowest key, inclusive; `None` = from the first row on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The end, exclusive; `None` = to the last row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The column that these are values of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// How many rows of the range come before those that are lost, where they are not told by keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_rows: Option<u64>,
    /// The key is masked: neither it nor how the range was asked for is told.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub masked_key: bool,
    pub error: String,
}

impl Lost {
    pub(super) fn of(table: &Table, range: &Range, error: &Error) -> Lost {
        Lost {
            table: table.full_name().to_string(),
            from: range.from.clone(),
            to: range.to.clone(),
            column: plan::range_column(table).map(|column| column.name.clone()),
            after_rows: None,
            masked_key: false,
            error: error.chain(),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {} is damaged: ", self.table)?;
        let column = self.column.as_deref().unwrap_or("the key");
        if self.masked_key {
            f.write_str("some of its rows, whose key is masked,")?;
            return write!(f, " could not be read and are not in the backup: {}", self.error);
        }
        match (&self.from, &self.to, self.after_rows) {
            (_, _, Some(0)) | (None, None, None) => f.write_str("its rows")?,
            (_, _, Some(n)) => write!(f, "all rows but the first {n}")?,
            (Some(from), Some(to), _) => {
                write!(f, "rows with {column} from {from} to below {to}")?;
            }
            (Some(from), None, _) => write!(f, "rows with {column} from {from} on")?,
            (None, Some(to), _) => write!(f, "rows with {column} below {to}")?,
        }
        write!(f, " could not be read and are not in the backup: {}", self.error)
    }
}

/// Whether the server says that what it has is damaged.
pub(super) fn is_corruption(error: &Error) -> bool {
    let Some(said) = error.server() else { return false };
    match said.code {
        // Wrong or old key file; marked as crashed; index, table or tablespace corrupt, missing, discarded, or
        // not to be decrypted (MySQL's and MariaDB's errmsg).
        // The first four are what MyISAM says where nobody translates it.
        126 | 127 | 144 | 145 | 1034 | 1035 | 1194 | 1195 | 1712 | 1812 | 1814 | 1815 | 1816
        | 1877 | 1932 | 3185 => true,
        // "Got error N from storage engine", of `include/my_base.h`: wrong or crashed index or record
        // file, file too short, table or index corrupt, decryption failed.
        1030 | 1296 => {
            let number = said.message.split(|c: char| !c.is_ascii_digit()).find(|n| !n.is_empty());
            let number = number.and_then(|n| n.parse::<u32>().ok());
            matches!(
                number,
                Some(126 | 127 | 134 | 144 | 145 | 155 | 175 | 176 | 180 | 192 | 194 | 197 | 1877)
            )
        }
        _ => false,
    }
}

/// Adds what can be done about rows that could not be read.
pub(super) fn explained(error: Error, table: &Table) -> Error {
    let name = table.full_name();
    if is_corruption(&error) {
        return error
            .context(format!("the server says that table {name} is damaged"))
            .with_kind(ErrorKind::Source)
            .with_remedy(
                "repair or restore the table; or take what there is: --on-corrupt salvage reads \
                 around the damage, --on-corrupt skip leaves the rows of such tables out",
            );
    }
    if error.kind() == ErrorKind::Connect {
        let remedy = error.remedy().trim_end_matches('.').to_owned();
        return error.context(format!("the server went away while it read table {name}")).with_remedy(
            format!(
                "{remedy}; where the server's error log tells of a corrupt page, the read crashed it: \
                 leave the table out (--exclude-tables), or the rows around the page (--where \
                 '{name}:…'); what else is finished is not read again"
            ),
        );
    }
    error
}

/// `CHECK TABLE` of these tables. Gives those that it finds fault with, and what it says.
pub(super) async fn check_tables(
    cx: &Context,
    session: &mut Session,
    tables: &[TableName],
) -> Result<Vec<(TableName, String)>> {
    cx.phase("checking tables");
    let mut bad = Vec::new();
    for name in tables {
        cx.check()?;
        let table = format!("{}.{}", quote_name(&name.database), quote_name(&name.table));
        let checked = cx.run(session.query_rows(&format!("CHECK TABLE {table}"))).await;
        let lines: Vec<(String, String, String, String)> = checked.map_err(|e| {
            let crashed = e.kind() == ErrorKind::Connect;
            let e = e.context(format!("cannot check table {name}"));
            match crashed {
                true => e.with_remedy(
                    "see the server's error log: where it crashed at a corrupt page of this table, \
                     leave the table out with --exclude-tables, or the rows around the page with \
                     --where",
                ),
                false => e,
            }
        })?;
        let said = lines.iter().filter(|(_, _, kind, text)| {
            let fine = kind == "status" && (text == "OK" || text.starts_with("Table is already"));
            // An engine that cannot check says so in a note.
            !fine && kind != "note"
        });
        let said: Vec<&str> = said.map(|(_, _, _, text)| text.as_str()).collect();
        if !said.is_empty() {
            bad.push((name.clone(), said.join("; ")));
        }
    }
    Ok(bad)
}

/// As many damaged places of one range are read around.
const PLACES: usize = 1000;

/// Reads around the damage in a range of a table.
pub(super) struct Salvage<'a> {
    pub cx: &'a Context,
    pub sink: &'a dyn ArtifactSink,
    pub table: &'a Table,
    pub mask: Option<&'a TableMask>,
    /// The number of the range, and the range.
    pub number: usize,
    pub range: &'a Range,
}

impl Salvage<'_> {
    /// What could be read, and what could not. `error` is what the first attempt ended with.
    pub(super) async fn run(
        &self,
        reader: &mut wire::Connection,
        error: Error,
    ) -> Result<(Vec<Chunk>, Vec<Lost>)> {
        self.read_around(reader, error).await.map_err(|e| match self.hides_key() {
            true => self.untold(&e),
            false => e,
        })
    }

    /// Whether the ends of ranges would tell values that are masked.
    fn hides_key(&self) -> bool {
        self.mask.is_some_and(|mask| mask.hides_key(self.table))
    }

    /// An error without the statement, which says the ends of a range.
    fn untold(&self, error: &Error) -> Error {
        let what = format!("cannot read table {}", self.table.full_name());
        let told = Error::new(error.kind(), what).with_remedy(error.remedy().to_owned());
        match error.server() {
            Some(said) => told.with_server(said.clone()),
            None => told,
        }
    }

    fn lost(&self, range: &Range, error: &Error) -> Lost {
        match self.hides_key() {
            true => Lost {
                masked_key: true,
                column: None,
                ..Lost::of(self.table, &Range::default(), &self.untold(error))
            },
            false => Lost::of(self.table, range, error),
        }
    }

    async fn read_around(
        &self,
        reader: &mut wire::Connection,
        error: Error,
    ) -> Result<(Vec<Chunk>, Vec<Lost>)> {
        let (mut chunks, mut lost) = (Vec::new(), Vec::new());
        let by_key = self.table.has_primary_key();
        let Some(column) = plan::range_column(self.table) else {
            let whole = Range { by_key, ..self.range.clone() };
            let (rows, _, error) = self.readable(reader, &whole, None).await?;
            let error = error.unwrap_or_else(|| Error::internal("the damage is gone"));
            let range = Range { limit: Some(rows), ..whole };
            let mut kept = 0;
            if rows > 0 {
                let chunk = self.piece(reader, &range, 0).await?;
                kept = chunk.digest.rows;
                chunks.push(chunk);
            }
            lost.push(Lost { after_rows: Some(kept), ..Lost::of(self.table, self.range, &error) });
            return Ok((chunks, lost));
        };
        let unsigned = column.column_type.contains("unsigned");
        let (low, high) = match unsigned {
            true => (0, 1_i128 << 64),
            false => (-(1_i128 << 63), 1_i128 << 63),
        };
        let parse = |text: &Option<String>, open| match text {
            None => Ok(open),
            Some(text) => text
                .parse::<i128>()
                .map_err(|e| Error::internal("the end of a range is no integer").with_source(e)),
        };
        let (mut from, to) = (parse(&self.range.from, low)?, parse(&self.range.to, high)?);
        let between = |a: i128, b: i128| Range {
            from: (a > low).then(|| a.to_string()),
            to: (b < high).then(|| b.to_string()),
            limit: None,
            by_key,
        };
        let mut error = error;
        while from < to {
            self.cx.check()?;
            let rest = between(from, to);
            if lost.len() == PLACES {
                lost.push(self.lost(&rest, &error));
                break;
            }
            let (rows, last, stopped) = self.readable(reader, &rest, Some(unsigned)).await?;
            let Some(stopped) = stopped else {
                chunks.push(self.piece(reader, &rest, chunks.len()).await?);
                break;
            };
            error = stopped;
            // Of several rows with one value of the first column some may be lost.
            let whole = i128::from(self.table.key.len() == 1);
            let good = last.map_or(from, |last| (last + whole).max(from));
            let kept =
                self.up_to(reader, from, good, rows, whole == 1, &between, &mut chunks).await?;
            // The next place that can be read: at ever longer steps, then between the last two.
            let (mut bad, mut step) = (good, 1);
            let mut next = loop {
                let at = good + step;
                if at >= to {
                    break to;
                }
                if self.is_readable(reader, &between(at, to)).await? {
                    break at;
                }
                (bad, step) = (at, step * 2);
            };
            while next - bad > 1 {
                let middle = bad + (next - bad) / 2;
                match self.is_readable(reader, &between(middle, to)).await? {
                    true => next = middle,
                    false => bad = middle,
                }
            }
            lost.push(self.lost(&between(kept, next), &error));
            from = next;
        }
        Ok((chunks, lost))
    }

    /// Reads from `from` to below `good` into an artifact, which was possible a moment ago. A server
    /// that looks for the end of a range may read on behind it, into the damage: so no more than
    /// `rows` are asked for where that says it, and else a little less. Gives up to where it read.
    #[expect(clippy::too_many_arguments, reason = "they are the state of the loop that calls it")]
    async fn up_to(
        &self,
        reader: &mut wire::Connection,
        from: i128,
        good: i128,
        rows: u64,
        exact: bool,
        between: &(impl Fn(i128, i128) -> Range + Sync),
        chunks: &mut Vec<Chunk>,
    ) -> Result<i128> {
        let (mut end, mut step) = (good, 1);
        while end > from {
            let limit = (exact && end == good).then_some(rows);
            let range = Range { limit, ..between(from, end) };
            match self.piece(reader, &range, chunks.len()).await {
                Ok(chunk) => {
                    chunks.push(chunk);
                    return Ok(end);
                }
                Err(e) if is_corruption(&e) => (end, step) = (end - step, step * 2),
                Err(e) => return Err(e),
            }
        }
        Ok(from)
    }

    /// Reads a range into an artifact.
    async fn piece(
        &self,
        reader: &mut wire::Connection,
        range: &Range,
        piece: usize,
    ) -> Result<Chunk> {
        let artifact = resume::piece(self.table, self.number, piece)?;
        let mut writer = self.sink.create(artifact.clone(), Layout::Blocks).await?;
        let read = scan::into_blocks(self.cx, reader, self.table, range, self.mask, &mut *writer);
        let read = read.await?;
        let open = Range::default();
        let range = if self.hides_key() { &open } else { range };
        writer.finish(resume::attributes(&read, range)?).await?;
        let (from, to) = (range.from.clone(), range.to.clone());
        Ok(Chunk { artifact, digest: read.digest, from, to, no_text: read.no_text })
    }

    /// How many rows can be read from the start of a range, the last value of its key's first column
    /// where that is an integer, and why it ended early.
    async fn readable(
        &self,
        reader: &mut wire::Connection,
        range: &Range,
        unsigned: Option<bool>,
    ) -> Result<(u64, Option<i128>, Option<Error>)> {
        let sql = plan::select_with_key(self.table, range, unsigned);
        let (mut rows, mut last) = (0, None);
        let statement = match reader.prepare(&sql).await {
            Err(e) if is_corruption(&e) => return Ok((rows, last, Some(e))),
            other => other?,
        };
        // A byte 0, a bitmap of NULLs from bit 2 on, then the values; the first has eight bytes.
        let at = 1 + (statement.columns().len() + 9) / 8;
        let mut found = match reader.execute(&statement, &[]).await {
            Err(e) if is_corruption(&e) => return Ok((rows, last, Some(e))),
            other => other?,
        };
        let ended = loop {
            match found.next_batch().await {
                Ok(None) => break None,
                Err(e) if is_corruption(&e) => break Some(e),
                Err(e) => return Err(e),
                Ok(Some(batch)) => {
                    self.cx.check()?;
                    for packet in batch.iter() {
                        rows += 1;
                        let value = packet.get(at..).and_then(|rest| rest.first_chunk::<8>());
                        last = match (unsigned, value) {
                            (Some(true), Some(bytes)) => {
                                Some(i128::from(u64::from_le_bytes(*bytes)))
                            }
                            (Some(false), Some(bytes)) => {
                                Some(i128::from(i64::from_le_bytes(*bytes)))
                            }
                            _ => None,
                        };
                    }
                }
            }
        };
        Ok((rows, last, ended))
    }

    async fn is_readable(&self, reader: &mut wire::Connection, range: &Range) -> Result<bool> {
        let first = Range { limit: Some(1), ..range.clone() };
        let (_, _, error) = self.readable(reader, &first, None).await?;
        Ok(error.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::server_error;
    use backup_core::ServerError;

    #[test]
    fn damage_is_told_from_other_errors() {
        let of = |code: u16, message: &str| {
            let said = ServerError { code, state: "HY000".into(), message: message.into() };
            is_corruption(&server_error(said, "read"))
        };
        assert!(of(1034, "Incorrect key file") && of(1194, "marked as crashed") && of(1712, ""));
        assert!(of(1814, "Tablespace has been discarded for table `t`"));
        assert!(of(1030, "Got error 126 - 'Index is corrupted' from storage engine MyISAM"));
        assert!(!of(1030, "Got error 28 - 'No space left on device' from storage engine"));
        assert!(!of(1030, "") && !of(1213, "Deadlock") && !of(1317, "Query was killed 126"));
        assert!(!is_corruption(&Error::damaged("x")));
    }

    #[test]
    fn what_is_lost_is_said_by_its_range() {
        let lost = |from: Option<&str>, to: Option<&str>, after_rows| {
            Lost {
                table: "a.t".into(),
                from: from.map(Into::into),
                to: to.map(Into::into),
                column: Some("id".into()),
                after_rows,
                masked_key: false,
                error: "e".into(),
            }
            .to_string()
        };
        assert!(lost(Some("1"), Some("9"), None).contains("id from 1 to below 9 could not"));
        assert!(lost(Some("1"), None, None).contains("id from 1 on"));
        assert!(lost(None, Some("9"), None).contains("id below 9"));
        assert!(lost(None, None, Some(7)).contains("all rows but the first 7"));
        assert!(lost(None, None, Some(0)).contains(": its rows could not"));
    }
}
