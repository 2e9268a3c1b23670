//! Whether the pages of a file are sound that a donor sends.
//!
//! Whole files are read while they are written to, so some of their pages are torn. Each of these comes
//! again, as it is, with the pages that changed. What is still bad then is damaged at the source.

use std::collections::BTreeSet;

use super::descriptor::Tablespace;
use crate::innodb::{self, Geometry};

/// More bad pages of a file than this are not counted one by one.
const MAX_BAD: usize = 1 << 20;

/// The pages of one file, each as the newest that came of it.
#[derive(Debug, Default)]
pub(super) struct Pages {
    geometry: Option<Geometry>,
    /// Where servers before 8.0.20 had their doublewrite buffer: pages of other tablespaces, which are still
    /// there after an upgrade.
    doublewrite: Option<[u64; 2]>,
    bad: BTreeSet<u64>,
}

impl Pages {
    /// Those of a file of which nothing came as a whole, for DDL made it meanwhile.
    pub(super) fn made(space: Tablespace) -> Pages {
        let geometry = space.page_size().map(|page_bytes| Geometry {
            space: space.id,
            page_bytes,
            zip: space.is_zip(),
            full_crc32: false,
            pages: 0,
            flags: space.flags,
        });
        Pages { geometry, ..Pages::default() }
    }

    /// Looks at what came of a file that is a tablespace. The second file of the system tablespace does
    /// not tell what its pages are.
    pub(super) fn look(&mut self, offset: u64, bytes: &[u8]) {
        if offset == 0 && self.geometry.is_none() {
            self.geometry = Geometry::read(bytes);
        }
        let Some(geometry) = self.geometry else { return };
        let size = geometry.page_bytes as usize;
        let first = offset / size as u64;
        for (number, page) in (first..).zip(bytes.chunks_exact(size)) {
            if geometry.space == 0 && number == innodb::SYSTEM_PAGE {
                self.doublewrite = innodb::doublewrite(page);
            }
            let extent = u64::from(innodb::extent_pages(geometry.page_bytes));
            let inside = |&area: &u64| (area..area.saturating_add(extent)).contains(&number);
            let foreign = self.doublewrite.is_some_and(|areas| areas.iter().any(inside));
            if foreign || innodb::check(page, number, &geometry).is_ok() {
                self.bad.remove(&number);
            } else if self.bad.len() < MAX_BAD {
                self.bad.insert(number);
            }
        }
    }

    /// The numbers of those that are bad.
    pub(super) fn bad(&self) -> impl Iterator<Item = u64> {
        self.bad.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clone::page_zero;

    #[test]
    fn a_torn_page_is_forgiven_when_it_comes_again() {
        let space = Tablespace { id: 7, flags: 0 };
        let good = page_zero::new(space).unwrap();
        let mut torn = good.to_vec();
        torn[9000] ^= 1;
        for mut pages in [Pages::made(space), Pages::default()] {
            pages.look(0, &torn);
            assert_eq!(pages.bad().collect::<Vec<_>>(), [0]);
            pages.look(0, &good);
            // It says that it is page 0.
            pages.look(16_384, &good);
            assert_eq!(pages.bad().collect::<Vec<_>>(), [1]);
        }
    }

    #[test]
    fn pages_of_an_old_doublewrite_buffer_are_not_looked_at() {
        let space = Tablespace { id: 0, flags: 0 };
        let mut pages = Pages::made(space);
        let mut five = vec![0; 16_384];
        let at = 16_384 - 200 + 10;
        for (n, word) in [536_853_855u32, 64, 128].into_iter().enumerate() {
            five[at + 4 * n..at + 4 * n + 4].copy_from_slice(&word.to_be_bytes());
        }
        pages.look(5 * 16_384, &five);
        for number in [64, 191, 192] {
            pages.look(number * 16_384, &[1; 16_384]);
        }
        assert_eq!(pages.bad().collect::<Vec<_>>(), [5, 192]);
    }
}
