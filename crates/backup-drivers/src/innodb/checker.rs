//! The pages of a file, checked while they pass by.

use std::collections::BTreeMap;
use std::fmt;

use super::page::{Problem, Verdict, check};
use super::{Algorithm, Geometry, HEAD_BYTES, PageKind, offset, u16_at, u32_at, u64_at};

/// So many bad pages of a file are kept by number; all are counted.
pub const MAX_BAD_PAGES: usize = 100;

/// The page of the system tablespace that says where the doublewrite buffer is, counted from its end, and
/// what stands there (`trx0sys.h`).
pub(crate) const SYSTEM_PAGE: u64 = 5;
const DOUBLEWRITE_FROM_END: usize = 200;
const DOUBLEWRITE_MAGIC: u32 = 536_853_855;

/// A page that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPage {
    /// Its number, counted from 0 in its file.
    pub number: u64,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for BadPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}: {}", self.number, self.problem)
    }
}

/// What the pages of a file are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageSummary {
    /// What the first page says; `None` where it says nothing that can be understood.
    pub geometry: Option<Geometry>,
    /// Pages in the file.
    pub pages: u64,
    /// Those whose checksum fits, by its algorithm.
    pub sound: BTreeMap<Algorithm, u64>,
    /// Those never used.
    pub zero: u64,
    /// Those of page compression.
    pub compressed: u64,
    /// Those that cannot be checked, for they are encrypted.
    pub encrypted: u64,
    /// Those of the doublewrite buffer inside the system tablespace, which are of other tablespaces and
    /// are not looked at.
    pub doublewrite: u64,
    /// Those that are wrong.
    pub bad_pages: u64,
    /// The first [`MAX_BAD_PAGES`] of them.
    pub bad: Vec<BadPage>,
    /// How many pages there are of each type.
    pub kinds: BTreeMap<PageKind, u64>,
    /// The largest LSN of a sound page.
    pub newest_lsn: u64,
}

impl PageSummary {
    /// The first page that is wrong.
    #[must_use]
    pub fn first_problem(&self) -> Option<&BadPage> {
        self.bad.first()
    }
}

/// Checks a file page by page, given in pieces of any length. Holds at most one page.
#[derive(Debug, Clone, Default)]
pub struct PageChecker {
    summary: PageSummary,
    /// The beginning of a page whose end did not come yet.
    partial: Vec<u8>,
    /// The first page of each of the two areas of the doublewrite buffer.
    doublewrite: Option<[u64; 2]>,
    /// The number of the file's first page in its tablespace.
    first: u64,
    /// That number is not known yet.
    adrift: bool,
    /// Nothing can be said about this file.
    lost: bool,
}

impl PageChecker {
    /// For a file that begins with page 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For a file that goes on with a tablespace (`ibdata2`). Its first sound page tells where.
    #[must_use]
    pub fn resume(geometry: Geometry) -> Self {
        let summary = PageSummary { geometry: Some(geometry), ..PageSummary::default() };
        PageChecker { summary, adrift: true, ..Self::default() }
    }

    /// What the first page says, once [`HEAD_BYTES`] bytes of it were given.
    #[must_use]
    pub fn geometry(&self) -> Option<&Geometry> {
        self.summary.geometry.as_ref()
    }

    /// Checks what has come in whole pages by now.
    pub fn push(&mut self, mut bytes: &[u8]) {
        if self.lost {
            return;
        }
        if self.summary.geometry.is_none() {
            let wanted = HEAD_BYTES.saturating_sub(self.partial.len()).min(bytes.len());
            let (head, rest) = bytes.split_at(wanted);
            self.partial.extend_from_slice(head);
            bytes = rest;
            if self.partial.len() < HEAD_BYTES {
                return;
            }
            self.summary.geometry = Geometry::read(&self.partial);
        }
        let Some(geometry) = self.summary.geometry else {
            self.lose();
            return;
        };
        let size = geometry.page_bytes as usize;
        if !self.partial.is_empty() {
            let wanted = (size - self.partial.len()).min(bytes.len());
            let (more, rest) = bytes.split_at(wanted);
            self.partial.extend_from_slice(more);
            bytes = rest;
            if self.partial.len() < size {
                return;
            }
            let page = std::mem::take(&mut self.partial);
            self.page(&page, &geometry);
            self.partial = page;
            self.partial.clear();
        }
        let mut pages = bytes.chunks_exact(size);
        for page in &mut pages {
            self.page(page, &geometry);
        }
        self.partial.extend_from_slice(pages.remainder());
    }

    fn lose(&mut self) {
        self.lost = true;
        self.partial = Vec::new();
        self.note(0, Problem::NoHeader);
    }

    fn page(&mut self, page: &[u8], geometry: &Geometry) {
        if self.adrift {
            let (said, index) = (u64::from(u32_at(page, offset::NUMBER)), self.summary.pages);
            let sound = check(page, said, geometry);
            if let (Ok(verdict), Some(first)) = (sound, said.checked_sub(index))
                && verdict != Verdict::Zero
            {
                (self.first, self.adrift) = (first, false);
            }
        }
        let number = self.first + self.summary.pages;
        self.summary.pages += 1;
        if geometry.space == 0 && !self.adrift {
            if number == SYSTEM_PAGE {
                self.doublewrite = doublewrite(page);
            }
            let extent = geometry.extent_pages();
            let inside = |&first: &u64| (first..first.saturating_add(extent)).contains(&number);
            if self.doublewrite.is_some_and(|areas| areas.iter().any(inside)) {
                self.summary.doublewrite += 1;
                return;
            }
        }
        match check(page, number, geometry) {
            Ok(verdict) => {
                match verdict {
                    Verdict::Sound(algorithm) => {
                        *self.summary.sound.entry(algorithm).or_default() += 1;
                    }
                    Verdict::Zero => self.summary.zero += 1,
                    Verdict::Compressed => self.summary.compressed += 1,
                    Verdict::Encrypted => self.summary.encrypted += 1,
                }
                if verdict != Verdict::Zero {
                    let kind = PageKind(u16_at(page, offset::KIND));
                    *self.summary.kinds.entry(kind).or_default() += 1;
                    let lsn = u64_at(page, offset::LSN);
                    self.summary.newest_lsn = self.summary.newest_lsn.max(lsn);
                }
            }
            Err(problem) => self.note(number - self.first, problem),
        }
    }

    fn note(&mut self, number: u64, problem: Problem) {
        self.summary.bad_pages += 1;
        if self.summary.bad.len() < MAX_BAD_PAGES {
            self.summary.bad.push(BadPage { number, problem });
        }
    }

    /// As [`finish`](Self::finish), of a file that is the whole of its tablespace, and that nobody was making longer or
    /// shorter.
    #[must_use]
    pub fn finish_whole(self) -> PageSummary {
        let mut summary = self.finish();
        if let Some(geometry) = summary.geometry
            && summary.pages < geometry.pages.into()
            && geometry.space != 0
        {
            summary.bad_pages += 1;
            summary
                .bad
                .push(BadPage { number: summary.pages, problem: Problem::Missing(geometry.pages) });
        }
        summary
    }

    /// The file is at its end.
    #[must_use]
    pub fn finish(mut self) -> PageSummary {
        if self.summary.geometry.is_none() && !self.lost {
            // Less than a header: an empty file, too.
            self.lose();
        } else if !self.partial.is_empty() {
            let bytes = u32::try_from(self.partial.len()).expect("less than a page");
            self.note(self.summary.pages, Problem::Cut(bytes));
        }
        self.summary
    }
}

/// Where the two areas of the doublewrite buffer begin, as the page of the transaction system says.
pub(crate) fn doublewrite(page: &[u8]) -> Option<[u64; 2]> {
    let at = page.len().checked_sub(DOUBLEWRITE_FROM_END)? + 10;
    if u32_at(page, at) != DOUBLEWRITE_MAGIC {
        return None;
    }
    Some([u64::from(u32_at(page, at + 4)), u64::from(u32_at(page, at + 8))])
}
