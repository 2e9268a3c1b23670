//! Pages of an increment, as the servers' tools write them: `t.ibd.delta`, with what it is of in `t.ibd.meta`.
//!
//! ```text
//! block: "xtra" (the last one: "XTRA") | page numbers, 0xffffffff behind the last   as long as a page
//!        the pages                                                                  a quarter of a page's bytes, less one, at most
//! ```
//!
//! (`write_filt.cc` of both tools.) MariaDB does not write which format of checksums the tablespace has: a page is
//! sound that is by one of them.

use super::geometry::FULL_CRC32;
use super::{
    BadPage, Geometry, MAX_BAD_PAGES, MAX_PAGE_BYTES, PageKind, PageSummary, Problem, Verdict,
    check, offset, u16_at, u32_at,
};

/// Stands behind the last page number of a block.
const NONE: u32 = u32::MAX;

/// Checks the pages of an increment of one file, given in pieces of any length. Holds at most two pages.
#[derive(Debug, Clone)]
pub struct DeltaChecker {
    geometry: Geometry,
    /// Whether the format of checksums is not known.
    either: bool,
    summary: PageSummary,
    partial: Vec<u8>,
    /// The numbers of the pages that follow, the next one last.
    numbers: Vec<u32>,
    /// This is the last block.
    last: bool,
    /// Nothing more can be said.
    lost: bool,
}

impl DeltaChecker {
    /// By the text of the `.meta` file. `None` when it does not say what is needed.
    #[must_use]
    pub fn new(meta: &str) -> Option<DeltaChecker> {
        let value = |name: &str| {
            let line = meta.lines().find_map(|line| line.trim().strip_prefix(name));
            line?.trim().strip_prefix('=')?.trim().parse::<u32>().ok()
        };
        let (logical, zip) = (value("page_size")?, value("zip_size")?);
        let page_bytes = if zip > 0 { zip } else { logical };
        let size = 1024..=MAX_PAGE_BYTES as u32;
        if !page_bytes.is_power_of_two() || !size.contains(&page_bytes) {
            return None;
        }
        let flags = value("space_flags");
        let geometry = Geometry {
            space: value("space_id")?,
            page_bytes,
            zip: zip > 0,
            full_crc32: flags.is_some_and(|flags| zip == 0 && flags & FULL_CRC32 != 0),
            pages: 0,
            flags: flags.unwrap_or_default(),
        };
        let summary = PageSummary { geometry: Some(geometry), ..PageSummary::default() };
        Some(DeltaChecker {
            geometry,
            either: flags.is_none() && zip == 0,
            summary,
            partial: Vec::new(),
            numbers: Vec::new(),
            last: false,
            lost: false,
        })
    }

    /// Checks what has come in whole pages by now.
    pub fn push(&mut self, mut bytes: &[u8]) {
        let size = self.geometry.page_bytes as usize;
        while !self.lost && !bytes.is_empty() {
            let wanted = (size - self.partial.len()).min(bytes.len());
            let (more, rest) = bytes.split_at(wanted);
            self.partial.extend_from_slice(more);
            bytes = rest;
            if self.partial.len() == size {
                let page = std::mem::take(&mut self.partial);
                match self.numbers.pop() {
                    Some(number) => self.page(&page, number.into()),
                    None => self.begin(&page),
                }
                self.partial = page;
                self.partial.clear();
            }
        }
    }

    /// Reads the head of a block.
    fn begin(&mut self, head: &[u8]) {
        let mark = &head[..4];
        if self.last || !matches!(mark, b"xtra" | b"XTRA") {
            self.lose();
            return;
        }
        self.last = mark == b"XTRA";
        let numbers = head[4..].chunks_exact(4).map(|number| u32_at(number, 0));
        self.numbers = numbers.take_while(|&number| number != NONE).collect();
        self.numbers.reverse();
    }

    fn page(&mut self, page: &[u8], number: u64) {
        self.summary.pages += 1;
        // Pages of other tablespaces, in the doublewrite buffer that servers make in the system tablespace.
        let extent = self.geometry.extent_pages();
        if self.geometry.space == 0 && (extent..3 * extent).contains(&number) {
            self.summary.doublewrite += 1;
            return;
        }
        let full = Geometry { full_crc32: true, ..self.geometry };
        // The other format would take the one for encrypted, now and then.
        let checked = match self.either {
            true => check(page, number, &full).or_else(|_| check(page, number, &self.geometry)),
            false => check(page, number, &self.geometry),
        };
        match checked {
            Ok(Verdict::Sound(algorithm)) => {
                *self.summary.sound.entry(algorithm).or_default() += 1;
                let kind = PageKind(u16_at(page, offset::KIND));
                *self.summary.kinds.entry(kind).or_default() += 1;
            }
            Ok(Verdict::Zero) => self.summary.zero += 1,
            Ok(Verdict::Compressed) => self.summary.compressed += 1,
            Ok(Verdict::Encrypted) => self.summary.encrypted += 1,
            Err(problem) => self.note(number, problem),
        }
    }

    fn lose(&mut self) {
        self.lost = true;
        self.note(0, Problem::NoIncrement);
    }

    fn note(&mut self, number: u64, problem: Problem) {
        self.summary.bad_pages += 1;
        if self.summary.bad.len() < MAX_BAD_PAGES {
            self.summary.bad.push(BadPage { number, problem });
        }
    }

    /// The file is at its end.
    #[must_use]
    pub fn finish(mut self) -> PageSummary {
        let whole = self.last && self.numbers.is_empty() && self.partial.is_empty();
        if !whole && !self.lost {
            self.lose();
        }
        self.summary
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Algorithm, seal};
    use super::*;

    const META: &str = "page_size = 4096\nzip_size = 0 \nspace_id = 7\n";

    /// A page of tablespace 7 with a checksum.
    fn page(number: u32) -> Vec<u8> {
        let mut page = vec![number as u8; 4096];
        page[4..8].copy_from_slice(&number.to_be_bytes());
        [16..24, 26..34, 4088..4096].into_iter().for_each(|part| page[part].fill(0));
        page[24..26].copy_from_slice(&PageKind::INDEX.0.to_be_bytes());
        page[34..38].copy_from_slice(&7_u32.to_be_bytes());
        seal(&mut page, false);
        page
    }

    fn block(mark: &[u8; 4], numbers: &[u32]) -> Vec<u8> {
        let mut head = mark.to_vec();
        numbers.iter().chain([&NONE]).for_each(|n| head.extend_from_slice(&n.to_be_bytes()));
        head.resize(4096, 0);
        numbers.iter().for_each(|&n| head.extend_from_slice(&page(n)));
        head
    }

    fn checked(bytes: &[u8], piece: usize) -> PageSummary {
        let mut checker = DeltaChecker::new(META).unwrap();
        bytes.chunks(piece).for_each(|piece| checker.push(piece));
        checker.finish()
    }

    #[test]
    fn every_page_of_an_increment_is_checked_and_named_by_its_number() {
        let mut whole = block(b"xtra", &[3, 900]);
        whole.extend(block(b"XTRA", &[4]));
        let summary = checked(&whole, 1000);
        assert_eq!(summary.sound.values().sum::<u64>(), 3, "{summary:?}");
        assert_eq!(summary.bad, []);
        whole[2 * 4096 + 100] ^= 1;
        let summary = checked(&whole, 5000);
        assert_eq!(summary.bad[0].number, 900, "{summary:?}");
        assert!(matches!(summary.bad[0].problem, Problem::Checksum(_)), "{summary:?}");
        whole[2 * 4096 + 100] ^= 1;
        for wrong in [&whole[..whole.len() - 1], &whole[..3 * 4096], &whole[4096..], &[]] {
            let summary = checked(wrong, 700);
            assert_eq!(summary.bad.last().unwrap().problem, Problem::NoIncrement);
        }
        // One of nothing, as the tools write it for most files.
        assert_eq!(checked(&block(b"XTRA", &[]), 4096).bad, []);
        assert!(!checked(&whole, 4096).sound.contains_key(&Algorithm::None));
        for meta in
            ["", "page_size = 7\nzip_size = 0\nspace_id = 1", "page_size = 4096\nzip_size = 0"]
        {
            assert!(DeltaChecker::new(meta).is_none(), "{meta}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived_in_any_pieces(
            bytes in prop::collection::vec(any::<u8>(), 0..9000),
            marked: bool,
            piece in 1..5000usize,
        ) {
            let mut bytes = bytes;
            if marked && bytes.len() > 4 {
                bytes[..4].copy_from_slice(b"xtra");
            }
            prop_assert_eq!(checked(&bytes, piece), checked(&bytes, 4096));
        }
    }
}
