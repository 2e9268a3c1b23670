//! Kinds of columns: how a value stands in a row packet.

use backup_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// How the values of a column stand in a row packet of the binary protocol.
///
/// The discriminant is the code in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Kind {
    /// Signed, 1 byte: TINYINT.
    I8 = 1,
    /// Unsigned, 1 byte.
    U8 = 2,
    /// Signed, 2 bytes: SMALLINT.
    I16 = 3,
    /// Unsigned, 2 bytes.
    U16 = 4,
    /// Signed, 4 bytes: INT and MEDIUMINT.
    I32 = 5,
    /// Unsigned, 4 bytes.
    U32 = 6,
    /// Signed, 8 bytes: BIGINT.
    I64 = 7,
    /// Unsigned, 8 bytes.
    U64 = 8,
    /// IEEE 754, 4 bytes: FLOAT.
    F32 = 9,
    /// IEEE 754, 8 bytes: DOUBLE.
    F64 = 10,
    /// A length byte and 0 or 4 bytes: DATE.
    Date = 11,
    /// A length byte and 0, 4, 7 or 11 bytes: DATETIME and TIMESTAMP.
    DateTime = 12,
    /// A length byte and 0, 8 or 12 bytes: TIME.
    Time = 13,
    /// Unsigned, 2 bytes: YEAR.
    Year = 14,
    /// A length-encoded string: everything else, from DECIMAL over BIT to JSON and VECTOR.
    Bytes = 15,
}

impl Kind {
    /// Every kind, in the order of the codes.
    pub const ALL: [Kind; 15] = [
        Kind::I8,
        Kind::U8,
        Kind::I16,
        Kind::U16,
        Kind::I32,
        Kind::U32,
        Kind::I64,
        Kind::U64,
        Kind::F32,
        Kind::F64,
        Kind::Date,
        Kind::DateTime,
        Kind::Time,
        Kind::Year,
        Kind::Bytes,
    ];

    /// The kind of a result set column, from the type byte of its definition packet
    /// (`MYSQL_TYPE_*`; the numbers are the same in MySQL and MariaDB) and its UNSIGNED flag.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] for a type that servers use inside only and never send.
    pub fn from_column(type_code: u8, unsigned: bool) -> Result<Kind> {
        Ok(match (type_code, unsigned) {
            (1, false) => Kind::I8,
            (1, true) => Kind::U8,
            (2, false) => Kind::I16,
            (2, true) => Kind::U16,
            (3 | 9, false) => Kind::I32,
            (3 | 9, true) => Kind::U32,
            (8, false) => Kind::I64,
            (8, true) => Kind::U64,
            (4, _) => Kind::F32,
            (5, _) => Kind::F64,
            (7 | 12, _) => Kind::DateTime,
            (10, _) => Kind::Date,
            (11, _) => Kind::Time,
            (13, _) => Kind::Year,
            // DECIMAL, VARCHAR, BIT; VECTOR; JSON to GEOMETRY. The NULL type (6) has no values.
            (0 | 6 | 15 | 16 | 242 | 245..=255, _) => Kind::Bytes,
            _ => {
                return Err(Error::new(
                    ErrorKind::Source,
                    format!("the server sent a column of the unknown type {type_code}"),
                )
                .with_remedy("exclude the table, or use the physical strategy"));
            }
        })
    }

    /// The code in a block.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The kind of a code in a block.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }

    /// Bytes of a value where all values have the same.
    #[must_use]
    pub fn width(self) -> Option<usize> {
        match self {
            Kind::I8 | Kind::U8 => Some(1),
            Kind::I16 | Kind::U16 | Kind::Year => Some(2),
            Kind::I32 | Kind::U32 | Kind::F32 => Some(4),
            Kind::I64 | Kind::U64 | Kind::F64 => Some(8),
            Kind::Date | Kind::DateTime | Kind::Time | Kind::Bytes => None,
        }
    }

    /// Whether values are DATE, DATETIME, TIMESTAMP or TIME, which have a length byte.
    #[must_use]
    pub fn is_temporal(self) -> bool {
        matches!(self, Kind::Date | Kind::DateTime | Kind::Time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_code(kind.code()), Some(kind));
        }
        assert_eq!(Kind::from_code(0), None);
        assert_eq!(Kind::from_code(16), None);
    }

    #[test]
    fn types_that_servers_never_send_are_refused() {
        // NEWDATE, TIMESTAMP2, DATETIME2, TIME2, TYPED_ARRAY, INVALID, BOOL.
        for code in [14, 17, 18, 19, 20, 243, 244] {
            assert_eq!(Kind::from_column(code, false).unwrap_err().kind(), ErrorKind::Source);
        }
        assert_eq!(Kind::from_column(9, true).unwrap(), Kind::U32);
        assert_eq!(Kind::from_column(246, true).unwrap(), Kind::Bytes);
    }
}
