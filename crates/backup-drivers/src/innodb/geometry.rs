//! What the first page of a tablespace says about all of its pages.

use serde::{Deserialize, Serialize};

use super::{PageKind, offset, u16_at, u32_at};

/// How many bytes of a tablespace file tell its [`Geometry`].
pub const HEAD_BYTES: usize = 58;

/// The largest page there is.
pub const MAX_PAGE_BYTES: usize = 65_536;

const PAGES_AT: usize = 46;
const FLAGS_AT: usize = 54;

/// MariaDB since 10.4: the bit that says that the flags are of the full_crc32 format
/// (`FSP_FLAGS_FCRC32_POS_MARKER`). In the older format it is the highest bit of a field of four whose
/// values end at 5.
pub(super) const FULL_CRC32: u32 = 1 << 4;

/// The pages of a tablespace: their size, and how their checksums are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// The id of the tablespace.
    pub space: u32,
    /// Bytes of a page in the file: 1,024 to 65,536, a power of two.
    pub page_bytes: u32,
    /// Whether the pages are those of `ROW_FORMAT=COMPRESSED`, smaller in the file than in memory.
    pub zip: bool,
    /// Whether the file has MariaDB's full_crc32 format.
    pub full_crc32: bool,
    /// How many pages the tablespace has, as its header says; the file may be longer.
    pub pages: u32,
    /// The flags of the tablespace as they stand there.
    pub flags: u32,
}

impl Geometry {
    /// Reads it from the first [`HEAD_BYTES`] bytes of a file, or more of it. `None` when these
    /// bytes do not begin a tablespace: its first page must be numbered 0, say its own id twice the
    /// same, and have flags that a server would write.
    ///
    /// A server makes a file with a first page that has no type and counts no pages yet (`fil_ibd_create`); what
    /// comes then stands in the redo log until the page is flushed.
    #[must_use]
    pub fn read(head: &[u8]) -> Option<Geometry> {
        let head = head.get(..HEAD_BYTES)?;
        let kind = PageKind(u16_at(head, offset::KIND));
        let space = u32_at(head, offset::DATA);
        let pages = u32_at(head, PAGES_AT);
        let just_made = kind == PageKind::ALLOCATED && pages == 0 && space != 0;
        let is_first = u32_at(head, offset::NUMBER) == 0
            && u32_at(head, offset::SPACE) == space
            && (kind == PageKind::SPACE_HEADER || just_made);
        if !is_first {
            return None;
        }
        let flags = u32_at(head, FLAGS_AT);
        let (full_crc32, zip, page_bytes) = if flags & FULL_CRC32 != 0 {
            (true, false, page_bytes(flags & 0xf)?)
        } else {
            let logical = match flags >> 6 & 0xf {
                0 => 16_384,
                size => page_bytes(size)?,
            };
            match flags >> 1 & 0xf {
                0 => (false, false, logical),
                size @ 1..=5 if 512 << size <= logical => (false, true, 512 << size),
                _ => return None,
            }
        };
        Some(Geometry { space, page_bytes, zip, full_crc32, pages, flags })
    }

    /// Whether the tablespace is encrypted as MySQL says it. MariaDB says so in each page.
    #[must_use]
    pub fn mysql_encrypted(&self) -> bool {
        !self.full_crc32 && self.flags & 1 << 13 != 0
    }

    /// Pages of an extent (`FSP_EXTENT_SIZE`): 1 MiB of them, or 64 where pages are larger than
    /// 16 KiB.
    pub(super) fn extent_pages(&self) -> u64 {
        extent_pages(self.page_bytes).into()
    }
}

/// Pages of an extent by `innodb_page_size` (`fsp0types.h`).
pub(crate) fn extent_pages(innodb_page_size: u32) -> u32 {
    ((1 << 20) / innodb_page_size.clamp(4096, 65_536)).max(64)
}

/// The page size of a shift: 3 is 4 KiB, 7 is 64 KiB.
fn page_bytes(shift: u32) -> Option<u32> {
    (3..=7).contains(&shift).then(|| 512 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_by_the_flags_of_both_servers() {
        let size = |flags: u32| {
            let mut head = [0; HEAD_BYTES];
            head[offset::KIND + 1] = 8;
            head[FLAGS_AT..FLAGS_AT + 4].copy_from_slice(&flags.to_be_bytes());
            Geometry::read(&head).map(|geometry| geometry.page_bytes)
        };
        // MySQL: 16 KiB by default, 64 KiB, KEY_BLOCK_SIZE=8 of 16 KiB.
        for (flags, bytes) in [(0x0, 16_384), (0x4021, 16_384), (7 << 6, 65_536), (0x29, 8192)] {
            assert_eq!(size(flags), Some(bytes), "{flags:#x}");
        }
        // MariaDB full_crc32: 16 KiB, 4 KiB.
        assert_eq!(size(0x15), Some(16_384));
        assert_eq!(size(0x13), Some(4096));
        assert_eq!(size(0x1f), None);
    }

    #[test]
    fn a_file_that_was_just_made_is_a_tablespace_and_zeros_are_none() {
        // As MySQL 9.7.4 leaves it until the page is flushed for the first time.
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&[0x4a, 0x73, 0x3a, 0x05]);
        head[offset::SPACE + 3] = 2;
        head[offset::DATA + 3] = 2;
        head[FLAGS_AT + 3] = 0x21;
        let geometry = Geometry::read(&head).unwrap();
        assert_eq!((geometry.space, geometry.page_bytes, geometry.pages), (2, 16_384, 0));
        head[PAGES_AT + 3] = 7;
        assert_eq!(Geometry::read(&head), None, "pages are counted, and the page has no type");
        assert_eq!(Geometry::read(&[0; HEAD_BYTES]), None);
    }
}
