//! Digests of rows that do not depend on their order.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use xxhash_rust::xxh3::xxh3_128;

/// How many rows, and the sum (modulo 2¹²⁸) of their 128-bit digests.
///
/// The digest of a row is XXH3-128 (seed 0) of its binary-protocol row packet without the leading
/// `0x00`: null bitmap and values. The sum does not depend on the order of rows nor on how a table
/// was cut into chunks, so that both sides of a restore can be compared. Displays the sum as 32
/// hexadecimal digits; serializes as `{"rows": …, "sum": "…"}`.
///
/// ```
/// use backup_drivers::rows::RowDigest;
/// let (a, b) = (RowDigest::of(b"\0\x01"), RowDigest::of(b"\0\x02"));
/// assert_eq!(a.merge(b), b.merge(a));
/// assert_eq!(RowDigest::default().to_string(), "0".repeat(32));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RowDigest {
    /// Number of rows.
    pub rows: u64,
    /// Wrapping sum of the rows' digests.
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub sum: u128,
}

impl RowDigest {
    /// The digest of one row; `row` is its packet after the `0x00` byte.
    #[must_use]
    pub fn of(row: &[u8]) -> Self {
        RowDigest { rows: 1, sum: xxh3_128(row) }
    }

    /// The digest of the rows of both.
    #[must_use]
    pub fn merge(self, other: RowDigest) -> Self {
        RowDigest { rows: self.rows + other.rows, sum: self.sum.wrapping_add(other.sum) }
    }

    /// Adds one row; `row` is its packet after the `0x00` byte.
    pub fn add(&mut self, row: &[u8]) {
        *self = self.merge(RowDigest::of(row));
    }
}

impl fmt::Display for RowDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.sum)
    }
}

impl std::iter::Sum for RowDigest {
    fn sum<I: Iterator<Item = RowDigest>>(digests: I) -> Self {
        digests.fold(RowDigest::default(), RowDigest::merge)
    }
}

fn to_hex<S: Serializer>(sum: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{sum:032x}"))
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(de::Error::custom("a row digest has 32 hexadecimal digits"));
    }
    u128::from_str_radix(&text, 16).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_round_trips_and_refuses_other_lengths() {
        let digest = RowDigest { rows: 3, sum: 0xabc };
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, r#"{"rows":3,"sum":"00000000000000000000000000000abc"}"#);
        assert_eq!(serde_json::from_str::<RowDigest>(&json).unwrap(), digest);
        assert!(serde_json::from_str::<RowDigest>(r#"{"rows":3,"sum":"+bc"}"#).is_err());
    }

    #[test]
    fn the_sum_wraps() {
        let top = RowDigest { rows: 1, sum: u128::MAX };
        assert_eq!([top, RowDigest { rows: 1, sum: 2 }].into_iter().sum::<RowDigest>().sum, 1);
    }
}
