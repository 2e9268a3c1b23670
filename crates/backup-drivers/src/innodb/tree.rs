//! The index of a table: from its root to its leaves, and their records.

use std::collections::BTreeSet;
use std::io::{Read, Seek};

use backup_core::Result;

use super::sdi::{INFIMUM, LEVEL_AT, Pages, bounded, damaged, next_record};
use super::{PageKind, offset, u16_at, u32_at};

/// A bit of a record's header: nobody sees it any more.
pub(super) const DELETED: u8 = 0x20;

/// Every record of the compact format (`rem0rec.h`) in an index that is not deleted: its page, and where in it. `key`
/// gives where the key of such a record ends.
pub(super) fn compact<F: Read + Seek>(
    pages: &mut Pages<'_, F>,
    root: u32,
    key: impl Fn(&[u8], usize) -> Result<usize>,
    mut record: impl FnMut(&[u8], usize) -> Result<()>,
) -> Result<()> {
    let child = |page: &[u8]| {
        let first = next_record(page, INFIMUM)?;
        let at = bounded(page, key(page, first).ok()?, 4).ok()?;
        Some(u32_at(page, at))
    };
    leaves(pages, root, child, |page| {
        // Each takes five bytes of header and more: a page cannot hold more of them.
        let (mut at, mut left) = (INFIMUM, page.len() / 5);
        while let Some(next) = next_record(page, at) {
            at = next;
            left = left.checked_sub(1).ok_or_else(|| damaged("a page goes in circles"))?;
            if page[at - 5] & DELETED == 0 {
                record(page, at)?;
            }
        }
        Ok(())
    })
}

/// Every leaf of an index, from left to right. `child` gives the page of a node's first child.
pub(super) fn leaves<F: Read + Seek>(
    pages: &mut Pages<'_, F>,
    root: u32,
    child: impl Fn(&[u8]) -> Option<u32>,
    mut leaf: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut page = pages.checked(root, PageKind::INDEX)?;
    let mut level = u16_at(&page, LEVEL_AT);
    while level > 0 {
        let number = child(&page).ok_or_else(|| damaged("a node has no child"))?;
        page = pages.checked(number, PageKind::INDEX)?;
        let below = u16_at(&page, LEVEL_AT);
        if below.checked_add(1) != Some(level) {
            return Err(damaged("an index is no tree"));
        }
        level = below;
    }
    let mut seen = BTreeSet::new();
    loop {
        leaf(&page)?;
        let next = u32_at(&page, offset::NEXT);
        if next == u32::MAX {
            return Ok(());
        }
        if !seen.insert(next) {
            return Err(damaged("the leaves of an index go in circles"));
        }
        page = pages.checked(next, PageKind::INDEX)?;
    }
}
