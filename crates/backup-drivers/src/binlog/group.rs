//! Where transactions begin and end in a file.

use backup_core::Result;

use super::body::Query;
use super::event::{Event, kind};
use super::gtid::{Begin, begins};

/// What an event is to the transactions around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// It begins one.
    Begin(Begin),
    /// It is inside one that goes on.
    Inside,
    /// It is the last of one.
    End,
    /// It belongs to none.
    Between,
}

/// Follows the events of one file. Begins between transactions.
#[derive(Debug, Clone, Default)]
pub struct Groups(State);

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Outside,
    /// So many bytes are missing.
    Counted(u64),
    /// One that says how it ends.
    Open {
        /// MariaDB: one statement without a COMMIT.
        standalone: bool,
        /// There was a BEGIN, so that a statement does not end it.
        begun: bool,
    },
    /// Begins inside one whose begin was not seen.
    Unseen,
}

impl Groups {
    /// Begins inside a transaction, whose first part is elsewhere.
    #[must_use]
    pub fn inside() -> Self {
        Groups(State::Unseen)
    }

    /// Whether a transaction is open.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        !matches!(self.0, State::Outside)
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when the event cannot be read.
    pub fn feed(&mut self, event: &Event) -> Result<Part> {
        if begins(event.kind())
            && let Some(begin) = Begin::parse(event)?
        {
            let len = event.bytes().len() as u64;
            self.0 = match begin.len {
                // Some server versions leave the length out, as 0.
                Some(total @ 1..) => State::Counted(total.saturating_sub(len)),
                _ => State::Open {
                    standalone: begin.standalone,
                    // MariaDB's GTID is the BEGIN.
                    begun: event.kind() == kind::MARIADB_GTID && !begin.standalone,
                },
            };
            return Ok(Part::Begin(begin));
        }
        if matches!(
            event.kind(),
            kind::STOP
                | kind::ROTATE
                | kind::FORMAT_DESCRIPTION
                | kind::PREVIOUS_GTIDS
                | kind::MARIADB_BINLOG_CHECKPOINT
                | kind::MARIADB_GTID_LIST
                | kind::MARIADB_START_ENCRYPTION
        ) {
            self.0 = State::Outside;
            return Ok(Part::Between);
        }
        let ends = match &mut self.0 {
            State::Outside => return Ok(Part::Between),
            State::Counted(missing) => {
                *missing = missing.saturating_sub(event.bytes().len() as u64);
                *missing == 0
            }
            State::Open { standalone, begun } => match event.kind() {
                kind::XID | kind::XA_PREPARE | kind::INCIDENT => true,
                kind::TRANSACTION_PAYLOAD => true,
                _ => match Query::parse(event)? {
                    Some(query) if query.is("BEGIN") || query.begins_with("XA START") => {
                        *begun = true;
                        false
                    }
                    Some(query) => *standalone || !*begun || closes(&query),
                    None => false,
                },
            },
            State::Unseen => match event.kind() {
                kind::XID | kind::XA_PREPARE | kind::INCIDENT => true,
                kind::TRANSACTION_PAYLOAD => true,
                _ => Query::parse(event)?.is_some_and(|query| closes(&query)),
            },
        };
        if ends {
            self.0 = State::Outside;
        }
        Ok(if ends { Part::End } else { Part::Inside })
    }
}

/// Statements that end a transaction.
fn closes(query: &Query) -> bool {
    query.is("COMMIT")
        || query.is("ROLLBACK")
        || query.begins_with("XA COMMIT")
        || query.begins_with("XA ROLLBACK")
}
