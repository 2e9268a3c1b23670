//! The stream format of `xtrabackup` and `mariadb-backup`: files, cut into chunks that interleave.
//!
//! ```text
//! common : "XBSTCK01"(8) | flags u8 | type u8 | path length u32 | path          little-endian
//! 'P'    : common | payload length u64 | offset u64 | crc32 u32 | payload
//! 'E'    : common                                                              the file is at its end
//! 'S'    : XtraBackup: common | n u32 | payload length u64 | offset u64 | crc32 u32 | n × (skip u32, length u32) | payload
//!          MariaDB:    common | offset u64                                     go on from there
//! 'D'    : MariaDB: common                                                     the file is gone
//! 'R'    : MariaDB: common | length u32 | new path                             it has another name
//! ```
//!
//! There is no header, no trailer and no number of files, and `S` means two things: who made a stream must
//! be known, it cannot be seen. The tools' own readers end well on streams that were cut after a chunk, on
//! empty ones, on paths that lead elsewhere and on a file that comes twice. Here each of these is an error.
//!
//! The format is that of `xbstream.h`, `xbstream_read.cc` and `xbstream_write.cc` of both tools.

mod input;
mod reader;
mod writer;

pub use reader::{Event, StreamReader};
pub use writer::StreamWriter;

/// Who made a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `xtrabackup` and `xbstream`.
    XtraBackup,
    /// `mariadb-backup` and `mbstream`.
    MariaDb,
}

const MAGIC: &[u8; 8] = b"XBSTCK01";
/// What every chunk begins with, before the path.
const COMMON: usize = 14;
/// Paths are shorter than this (`FN_REFLEN`).
const PATH_LIMIT: usize = 512;

/// A reader that does not know the type of such a chunk may leave it out.
const IGNORABLE: u8 = 0x01;
/// MariaDB: the chunk is of a file that was closed before, and comes again. XtraBackup 9.7: the stream
/// goes to one object.
const REWRITE: u8 = 0x02;
