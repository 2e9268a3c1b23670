//! The rows of a result set, as the packets they came in.

use backup_core::Result;
use bytes::Bytes;
use mysql_common::constants::CapabilityFlags;

use super::message::{self, OkInfo};
use super::{Column, Connection};
use crate::connect::{cannot_run, protocol};

/// The most columns a table or view can have in either server (4096), with room to spare.
const MAX_COLUMNS: u64 = 1 << 16;

/// A result set under way. Dropping it before its end makes the connection useless.
#[derive(Debug)]
pub struct RowStream<'a> {
    connection: &'a mut Connection,
    columns: Vec<Column>,
    binary: bool,
    sql: String,
    /// The size of the last batch; most reads bring about as many rows as the one before.
    expected: usize,
    /// What is left of a batch that [`RowStream::next`] began.
    batch: RowBatch,
    at: usize,
    end: Option<OkInfo>,
}

/// Rows that came together, in one piece of memory that they share.
#[derive(Debug, Clone, Default)]
pub struct RowBatch {
    bytes: Bytes,
    /// Offset and length of each row in `bytes`.
    rows: Vec<(u32, u32)>,
}

impl RowBatch {
    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none; never so for a batch of [`RowStream::next_batch`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The row packets, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.rows.iter().map(|&(at, len)| &self.bytes[at as usize..][..len as usize])
    }

    /// One row packet, sharing the memory of the batch. Keeping it keeps the whole batch.
    ///
    /// # Panics
    /// If there are not that many rows.
    #[must_use]
    pub fn row(&self, index: usize) -> Bytes {
        let (at, len) = self.rows[index];
        self.bytes.slice(at as usize..at as usize + len as usize)
    }

    /// Bytes of memory that the batch holds.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl<'a> IntoIterator for &'a RowBatch {
    type Item = &'a [u8];
    type IntoIter = Rows<'a>;

    fn into_iter(self) -> Rows<'a> {
        Rows { bytes: &self.bytes, rows: self.rows.iter() }
    }
}

/// The row packets of a [`RowBatch`].
#[derive(Debug, Clone)]
pub struct Rows<'a> {
    bytes: &'a [u8],
    rows: std::slice::Iter<'a, (u32, u32)>,
}

impl<'a> Iterator for Rows<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let &(at, len) = self.rows.next()?;
        Some(&self.bytes[at as usize..][..len as usize])
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }
}

impl ExactSizeIterator for Rows<'_> {}

impl<'a> RowStream<'a> {
    /// Reads the columns; `first` is the packet with their number.
    pub(super) async fn start(
        connection: &'a mut Connection,
        mut first: &[u8],
        binary: bool,
        sql: &str,
    ) -> Result<Self> {
        let count = message::lenenc(&mut first)
            .filter(|&count| count > 0 && count <= MAX_COLUMNS && first.is_empty())
            .ok_or_else(|| protocol("a number of columns that cannot be", cannot_run(sql)))?;
        let columns = read_columns(connection, count as usize, sql).await?;
        Ok(RowStream {
            connection,
            columns,
            binary,
            sql: sql.to_owned(),
            expected: 0,
            batch: RowBatch::default(),
            at: 0,
            end: None,
        })
    }

    /// The columns of this result; types and lengths may differ from what
    /// [`Statement::columns`](super::Statement::columns) said at prepare time.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// All the rows that have arrived, waiting for at least one; `None` at the end. This is the way
    /// to read fast: what a row costs here is its place in a list.
    ///
    /// # Errors
    /// The server's error in mid-stream, with the statement; [`ErrorKind::Connect`] if the
    /// connection breaks.
    ///
    /// [`ErrorKind::Connect`]: backup_core::ErrorKind::Connect
    pub async fn next_batch(&mut self) -> Result<Option<RowBatch>> {
        if self.end.is_some() {
            return Ok(None);
        }
        let mut rows = Vec::with_capacity(self.expected);
        let what = || cannot_run(&self.sql);
        let channel = &mut self.connection.channel;
        if let Some(bytes) = channel.read_rows(&mut rows).await.map_err(|e| e.context(what()))? {
            let batch = RowBatch { bytes, rows };
            self.expected = batch.len();
            if self.binary && batch.iter().any(|row| row[0] != message::OK) {
                return Err(protocol("a row does not begin with 0", what()));
            }
            return Ok(Some(batch));
        }
        let packet = channel.read().await.map_err(|e| e.context(what()))?;
        match packet.first() {
            Some(&message::ERR) => {
                self.connection.check(&packet, &self.sql)?;
                Ok(None)
            }
            // A row that begins like this is one of at least 16 MiB.
            Some(&message::EOF) if packet.len() < super::channel::PART => {
                self.end = Some(message::end_of_rows(&packet, self.connection.capabilities)?);
                self.connection.busy = false;
                Ok(None)
            }
            Some(&first) if !self.binary || first == message::OK => {
                let rows = vec![(0, packet.len() as u32)];
                Ok(Some(RowBatch { bytes: packet, rows }))
            }
            _ => Err(protocol("a packet that is neither row nor end", what())),
        }
    }

    /// The next row packet; `None` at the end.
    ///
    /// # Errors
    /// As [`RowStream::next_batch`].
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.at == self.batch.len() {
            match self.next_batch().await? {
                Some(batch) => (self.batch, self.at) = (batch, 0),
                None => {
                    (self.batch, self.at) = (RowBatch::default(), 0);
                    return Ok(None);
                }
            }
        }
        self.at += 1;
        Ok(Some(self.batch.row(self.at - 1)))
    }

    /// How the statement went; known after the end.
    #[must_use]
    pub fn info(&self) -> Option<&OkInfo> {
        self.end.as_ref()
    }

    pub(super) fn into_info(self) -> OkInfo {
        self.end.unwrap_or_default()
    }

    /// The values of a row of the text protocol; NULL is `None`.
    pub(super) fn text_values(&self, row: &Bytes) -> Result<Vec<Option<Bytes>>> {
        let broken = || protocol("a row that is shorter than its values", cannot_run(&self.sql));
        let mut rest = &row[..];
        let mut values = Vec::with_capacity(self.columns.len());
        for _ in &self.columns {
            if let Some(after) = rest.strip_prefix(&[0xfb]) {
                rest = after;
                values.push(None);
                continue;
            }
            let len = message::lenenc(&mut rest).ok_or_else(broken)?;
            let (value, after) = usize::try_from(len)
                .ok()
                .and_then(|len| rest.split_at_checked(len))
                .ok_or_else(broken)?;
            rest = after;
            values.push(Some(row.slice_ref(value)));
        }
        Ok(values)
    }
}

/// `count` column definitions, and the EOF behind them where it was not agreed to leave it out.
pub(super) async fn read_columns(
    connection: &mut Connection,
    count: usize,
    sql: &str,
) -> Result<Vec<Column>> {
    // Grows with what arrives, not with what was announced.
    let mut columns = Vec::new();
    if count == 0 {
        return Ok(columns);
    }
    for _ in 0..count {
        let packet = connection.channel.read().await.map_err(|e| e.context(cannot_run(sql)))?;
        connection.check(&packet, sql)?;
        columns.push(message::column(&packet)?);
    }
    if !connection.capabilities.contains(CapabilityFlags::CLIENT_DEPRECATE_EOF) {
        let packet = connection.channel.read().await.map_err(|e| e.context(cannot_run(sql)))?;
        connection.check(&packet, sql)?;
        if packet.first() != Some(&message::EOF) {
            return Err(protocol("no end after the columns", cannot_run(sql)));
        }
    }
    Ok(columns)
}
