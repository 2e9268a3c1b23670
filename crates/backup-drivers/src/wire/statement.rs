//! Prepared statements.

use backup_core::{Error, Result};
use mysql_common::constants::ColumnType;
use mysql_common::io::BufMutExt;

use super::rows::read_columns;
use super::{Column, Connection, message};
use crate::connect::{cannot_run, protocol};

/// A statement that the server has prepared, for as long as the connection lives or until
/// [`Connection::close_statement`].
#[derive(Debug)]
pub struct Statement {
    id: u32,
    sql: String,
    params: usize,
    columns: Vec<Column>,
}

/// A parameter of a prepared statement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Param<'a> {
    /// NULL.
    Null,
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A double.
    Double(f64),
    /// A string or blob. It has no character set, so it compares byte by byte.
    Bytes(&'a [u8]),
}

/// Marks an unsigned integer in a parameter's type.
const UNSIGNED: u8 = 0x80;

impl Statement {
    /// Reads what the server says about a statement; `first` begins its answer.
    pub(super) async fn read(connection: &mut Connection, first: &[u8], sql: &str) -> Result<Self> {
        // 0, id u32, columns u16, parameters u16, 0, warnings u16
        let [message::OK, a, b, c, d, columns_lo, columns_hi, params_lo, params_hi, ..] = *first
        else {
            return Err(protocol("a broken answer to a prepared statement", cannot_run(sql)));
        };
        let params = usize::from(u16::from_le_bytes([params_lo, params_hi]));
        read_columns(connection, params, sql).await?;
        let columns = usize::from(u16::from_le_bytes([columns_lo, columns_hi]));
        let columns = read_columns(connection, columns, sql).await?;
        Ok(Statement { id: u32::from_le_bytes([a, b, c, d]), sql: sql.to_owned(), params, columns })
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// The statement's text.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The number of parameters.
    #[must_use]
    pub fn params(&self) -> usize {
        self.params
    }

    /// The columns, as far as they are known before execution.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The argument of COM_STMT_EXECUTE.
    pub(super) fn request(&self, params: &[Param<'_>]) -> Result<Vec<u8>> {
        if params.len() != self.params {
            return Err(Error::internal(format!(
                "{}: it takes {} parameters, not {}",
                cannot_run(&self.sql),
                self.params,
                params.len()
            )));
        }
        // id, no cursor, one iteration
        let mut request = self.id.to_le_bytes().to_vec();
        request.extend([0, 1, 0, 0, 0]);
        if params.is_empty() {
            return Ok(request);
        }
        let nulls = request.len();
        request.resize(nulls + params.len().div_ceil(8), 0);
        request.push(1); // the types follow
        for (i, param) in params.iter().enumerate() {
            let (kind, flags) = match param {
                Param::Null => {
                    request[nulls + i / 8] |= 1 << (i % 8);
                    (ColumnType::MYSQL_TYPE_NULL, 0)
                }
                Param::Int(_) => (ColumnType::MYSQL_TYPE_LONGLONG, 0),
                Param::Uint(_) => (ColumnType::MYSQL_TYPE_LONGLONG, UNSIGNED),
                Param::Double(_) => (ColumnType::MYSQL_TYPE_DOUBLE, 0),
                Param::Bytes(_) => (ColumnType::MYSQL_TYPE_BLOB, 0),
            };
            request.extend([kind as u8, flags]);
        }
        for param in params {
            match param {
                Param::Null => {}
                Param::Int(n) => request.extend(n.to_le_bytes()),
                Param::Uint(n) => request.extend(n.to_le_bytes()),
                Param::Double(n) => request.extend(n.to_le_bytes()),
                Param::Bytes(bytes) => request.put_lenenc_str(bytes),
            }
        }
        Ok(request)
    }
}
