//! The first page of a tablespace that DDL made while a clone was taken.
//!
//! The redo log writes it, but recovery has to recognise the file first: by the space id and the flags
//! in its first page (`clone0copy.cc`, `fsp0fsp.cc`).

use bytes::Bytes;

use super::descriptor::Tablespace;
use crate::innodb::{self, PageKind};

/// `FIL_PAGE_SRV_VERSION`, of page 0.
const SERVER_VERSION: usize = 8;
/// `FIL_PAGE_SPACE_VERSION`.
const SPACE_VERSION: usize = 12;
/// `FIL_PAGE_TYPE`, of two bytes.
const KIND: usize = 24;
/// `FIL_PAGE_SPACE_ID`.
const SPACE: usize = 34;
/// `FSP_SPACE_ID`, `FSP_SPACE_FLAGS` in the header of the tablespace.
const SPACE_AGAIN: usize = 38;
const FLAGS: usize = 54;

/// 8.0.17, the first version that clones; recovery only shows it.
const VERSION: u32 = 80_017;

/// The page. `None` where the flags know no size of pages.
pub(super) fn new(space: Tablespace) -> Option<Bytes> {
    let mut page = vec![0; space.page_size()? as usize];
    let mut put = |at: usize, value: u32| page[at..at + 4].copy_from_slice(&value.to_be_bytes());
    put(SERVER_VERSION, VERSION);
    put(SPACE_VERSION, 1);
    put(SPACE, space.id);
    // The donor's own recipient leaves it out. So the page is what it says in every check.
    put(KIND, u32::from(PageKind::SPACE_HEADER.0) << 16);
    put(SPACE_AGAIN, space.id);
    put(FLAGS, space.flags);
    innodb::seal(&mut page, space.is_zip());
    Some(page.into())
}
