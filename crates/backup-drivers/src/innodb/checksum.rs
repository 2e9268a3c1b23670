//! The checksums that InnoDB has had.

use super::{offset, u32_at};

/// How the checksum of a page was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// CRC-32C over header and body (`innodb_checksum_algorithm=crc32`), the default of MySQL 5.7 and
    /// later.
    Crc32,
    /// The same as MySQL 5.6 made it, its words in the other order.
    Crc32OldOrder,
    /// The fold of the first versions (`innodb`).
    Innodb,
    /// No checksum was made (`none`).
    None,
    /// CRC-32C over the whole page, MariaDB 10.5 and later.
    FullCrc32,
}

/// Stands where no checksum was made (`BUF_NO_CHECKSUM_MAGIC`).
pub(super) const NO_CHECKSUM: u32 = 0xDEAD_BEEF;

/// `buf_calc_page_crc32`: what changes while the page is written is left out.
pub(super) fn crc32(page: &[u8]) -> u32 {
    let end = page.len() - offset::TRAILER;
    crc32c::crc32c(&page[offset::NUMBER..offset::EXTRA]) ^ crc32c::crc32c(&page[offset::DATA..end])
}

/// As [`crc32`], with whole words of eight bytes read in the other order
/// (`ut_crc32_legacy_big_endian`).
pub(super) fn crc32_old_order(page: &[u8]) -> u32 {
    let end = page.len() - offset::TRAILER;
    swapped(page, offset::NUMBER, offset::EXTRA) ^ swapped(page, offset::DATA, end)
}

fn swapped(page: &[u8], from: usize, to: usize) -> u32 {
    // Up to the first multiple of eight byte by byte, as the page itself is aligned in memory.
    let aligned = from.next_multiple_of(8).min(to);
    let mut crc = crc32c::crc32c(&page[from..aligned]);
    let words = page[aligned..to].chunks_exact(8);
    let rest = words.remainder();
    for word in words {
        let mut word: [u8; 8] = word.try_into().expect("chunks of eight");
        word.reverse();
        crc = crc32c::crc32c_append(crc, &word);
    }
    crc32c::crc32c_append(crc, rest)
}

/// `ut_fold_binary` in 32 bits: all of its operations only carry upwards.
fn fold(bytes: &[u8]) -> u32 {
    const MASK: u32 = 1_463_735_687;
    const MASK_2: u32 = 1_653_893_711;
    bytes.iter().fold(0_u32, |fold, &byte| {
        let byte = u32::from(byte);
        (((fold ^ byte ^ MASK_2) << 8).wrapping_add(fold) ^ MASK).wrapping_add(byte)
    })
}

/// Whether both checksums of the page are those of the first versions. The second one is the fold of
/// the header or, in still older files, a copy of the LSN's upper half.
pub(super) fn is_innodb(page: &[u8]) -> bool {
    let end = page.len() - offset::TRAILER;
    let first =
        || fold(&page[offset::NUMBER..offset::EXTRA]).wrapping_add(fold(&page[offset::DATA..end]));
    let second = u32_at(page, end);
    let header = [fold(&page[..offset::EXTRA]), u32_at(page, offset::LSN)];
    header.contains(&second) && u32_at(page, offset::CHECKSUM) == first()
}

/// The parts of a page of `ROW_FORMAT=COMPRESSED` that its checksum covers.
fn zip_parts(page: &[u8]) -> [&[u8]; 3] {
    [&page[offset::NUMBER..offset::LSN], &page[offset::KIND..offset::EXTRA], &page[offset::SPACE..]]
}

/// `page_zip_calc_checksum`, crc32.
pub(super) fn zip_crc32(page: &[u8]) -> u32 {
    zip_parts(page).iter().fold(0, |crc, part| crc ^ crc32c::crc32c(part))
}

/// `page_zip_calc_checksum`, innodb: Adler-32 that begins with 0 instead of 1.
pub(super) fn zip_adler(page: &[u8]) -> u32 {
    let (mut a, mut b) = (0_u32, 0_u32);
    for part in zip_parts(page) {
        // So many sums of bytes fit into 32 bits.
        for some in part.chunks(5_552) {
            for &byte in some {
                a += u32::from(byte);
                b += a;
            }
            a %= 65_521;
            b %= 65_521;
        }
    }
    b << 16 | a
}

/// Gives a page of MySQL its checksum, crc32: twice in an ordinary page, once in one of
/// `ROW_FORMAT=COMPRESSED`.
pub(crate) fn seal(page: &mut [u8], zip: bool) {
    let sum = if zip { zip_crc32(page) } else { crc32(page) }.to_be_bytes();
    page[offset::CHECKSUM..offset::CHECKSUM + 4].copy_from_slice(&sum);
    if !zip {
        let tail = page.len() - offset::TRAILER;
        page[tail..tail + 4].copy_from_slice(&sum);
    }
}
