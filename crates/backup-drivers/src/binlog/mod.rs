//! Binary logs: read from a server as a replica reads them, archived, and replayed.
//!
//! ```text
//! source → dump → receiver → spool → SegmentStore          (stream, backup)
//! SegmentStore → plan → replay server → target's applier   (point-in-time recovery)
//! ```
//!
//! Events are bytes that somebody else wrote: their length and checksum are checked before anything
//! else is believed of them, and what is kept is kept byte for byte.

mod ahead;
mod body;
mod dump;
pub mod event;
mod find;
mod group;
mod gtid;
mod inflate;
mod kin;
mod last;
mod narrow;
mod payload;
mod read;
mod receive;
pub mod replay;
mod rescue;
mod route;
mod rows;
mod segment;
mod semisync;
mod sound;
mod source;
mod spool;
mod summary;
mod tips;
mod touched;
mod track;
pub mod undo;
mod upload;

pub use ahead::read_segments;
pub use body::{Query, Rotate};
pub use dump::{Dump, DumpOptions, Sent};
pub use find::{FoundTransactions, find_transactions};
pub use group::{Groups, Part};
pub use gtid::{Begin, begins, transactions_before};
pub use last::{BinlogEnd, auto_cnf, binlog_end};
pub use narrow::{Narrowed, first_touch, narrow};
pub use receive::{ReceiveOptions, Received, receive};
pub use rescue::{RescueOptions, rescue};
pub use route::{Route, Skipping};
pub use segment::{Placed, SegmentReader, check_segment};
pub use semisync::Rpo;
pub use sound::SoundChain;
pub use source::{BinlogSource, From};
pub use summary::{RowCounts, Transaction};
pub use touched::{Place, Touched, touched};
pub use track::Tracker;
