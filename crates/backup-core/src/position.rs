//! Positions in a binary log. (Skeleton so that others can build; its owner replaces it.)

use serde::{Deserialize, Serialize};

/// A position: GTID set and/or file and offset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Executed GTIDs.
    pub gtid: Option<String>,
    /// Binary log file.
    pub file: Option<String>,
    /// Offset in it.
    pub offset: Option<u64>,
}
