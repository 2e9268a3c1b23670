//! What InnoDB's tablespace files look like: page sizes, page types, checksums, names.
//!
//! Everything here is pure: bytes in, facts out. Pages of MySQL 5.7 to 9.x and of MariaDB 10.2 and
//! later are known, with every page size, every checksum algorithm, `ROW_FORMAT=COMPRESSED`,
//! page compression and encryption of both. What cannot be checked without a key is counted, never
//! passed off as sound.
//!
//! ```
//! use backup_drivers::innodb::PageChecker;
//!
//! let mut checker = PageChecker::new();
//! checker.push(&[0; 65_536]);
//! let summary = checker.finish();
//! assert!(summary.first_problem().unwrap().to_string().contains("page 0"));
//! ```
//!
//! The layout is that of `fil0types.h`, `fsp0types.h` and `page0types.h` of both servers.

mod checker;
mod checksum;
mod copied;
mod delta;
mod dictionary;
mod executed;
mod geometry;
mod key;
mod kind;
mod name;
mod page;
mod sdi;
mod tree;

pub use checker::{BadPage, MAX_BAD_PAGES, PageChecker, PageSummary};
pub(crate) use checker::{SYSTEM_PAGE, doublewrite};
pub use checksum::Algorithm;
pub(crate) use checksum::seal;
pub(crate) use copied::CopiedPages;
pub use delta::DeltaChecker;
pub use dictionary::{NamedFile, innodb_tables, mysql_files};
pub use executed::gtid_executed;
pub(crate) use geometry::extent_pages;
pub use geometry::{Geometry, HEAD_BYTES, MAX_PAGE_BYTES};
pub(crate) use key::{Key, REDO_KEY_AT, key_place};
pub use kind::PageKind;
pub use name::{TableFile, is_device, is_tablespace};
pub use page::{Problem, Verdict, check};
pub use sdi::{Sdi, SdiKind, read_sdi};

/// What a page says of itself: its number, and its tablespace. The caller has [`HEAD_BYTES`] of it.
pub(crate) fn numbers(head: &[u8]) -> (u32, u32) {
    (u32_at(head, offset::NUMBER), u32_at(head, offset::SPACE))
}

/// Whether one of the pages at the beginning of a tablespace has a type and no LSN. A file that was only just made has
/// such ones without a type.
pub(crate) fn has_page_without_lsn(bytes: &[u8]) -> bool {
    let Some(geometry) = Geometry::read(bytes) else { return false };
    bytes.chunks_exact(geometry.page_bytes as usize).any(|page| {
        PageKind(u16_at(page, offset::KIND)) != PageKind::ALLOCATED
            && u64_at(page, offset::LSN) == 0
    })
}

/// A big-endian number in a page; the caller knows that it is inside.
fn u16_at(page: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([page[at], page[at + 1]])
}

/// As [`u16_at`].
fn u32_at(page: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]])
}

/// As [`u16_at`].
fn u64_at(page: &[u8], at: usize) -> u64 {
    u64::from(u32_at(page, at)) << 32 | u64::from(u32_at(page, at + 4))
}

/// Offsets of the file header that every page begins with, and of the trailer (`fil0types.h`).
mod offset {
    /// Checksum; key version in full_crc32 files.
    pub(super) const CHECKSUM: usize = 0;
    pub(super) const NUMBER: usize = 4;
    pub(super) const NEXT: usize = 12;
    pub(super) const LSN: usize = 16;
    pub(super) const KIND: usize = 24;
    /// Flush LSN in page 0; key version, compression facts or a counter of spatial indexes elsewhere.
    pub(super) const EXTRA: usize = 26;
    pub(super) const SPACE: usize = 34;
    pub(super) const DATA: usize = 38;
    /// From the end: the second checksum, then the low half of the LSN.
    pub(super) const TRAILER: usize = 8;
}
