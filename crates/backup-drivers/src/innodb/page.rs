//! One page, checked.

use std::fmt;
use std::io::Read;

use super::checksum::{self, Algorithm, NO_CHECKSUM};
use super::{Geometry, MAX_PAGE_BYTES, PageKind, offset, u16_at, u32_at};

/// In the type of a page of full_crc32: the page is compressed, and the rest of the type is its length.
const FULL_CRC32_COMPRESSED: u16 = 1 << 15;

/// What a page is that has nothing wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its checksum fits.
    Sound(Algorithm),
    /// It is empty: allocated and not used yet.
    Zero,
    /// It is compressed by page compression, and what the format allows to check was checked. Its
    /// checksum does not have to be of what is in the file.
    Compressed,
    /// It is encrypted, and its checksum is of the plain text: it cannot be checked without the key.
    Encrypted,
}

/// What is wrong with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// It does not begin a tablespace, though it is the first page of a file.
    NoHeader,
    /// Its checksum does not fit by any algorithm; the stored one.
    Checksum(u32),
    /// The two halves of the page were not written together: the LSN at its end is another one.
    Torn,
    /// It says that it is another page; which.
    Number(u32),
    /// It says that it is of another tablespace; which.
    Space(u32),
    /// Its compressed contents cannot be read.
    Compression,
    /// The file ends inside it, after so many bytes.
    Cut(u32),
    /// The file ends before it, and has fewer pages than its header says; so many.
    Missing(u32),
    /// It does not begin a block of an increment, or the increment ends too early.
    NoIncrement,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::NoHeader => f.write_str("it is no header of a tablespace"),
            Problem::Checksum(stored) => write!(f, "its checksum {stored:#010x} does not fit"),
            Problem::Torn => f.write_str("the LSNs at its beginning and end differ"),
            Problem::Number(number) => write!(f, "it says that it is page {number}"),
            Problem::Space(space) => write!(f, "it says that it is of tablespace {space}"),
            Problem::Compression => f.write_str("its compressed contents cannot be read"),
            Problem::NoIncrement => f.write_str("the increment is none that a tool writes"),
            Problem::Missing(pages) => {
                write!(
                    f,
                    "the file ends before it, and its header says that there are {pages} pages"
                )
            }
            Problem::Cut(bytes) => write!(f, "the file ends inside it, after {bytes} bytes"),
        }
    }
}

/// Checks the page of that number, whose length must be that of the geometry.
///
/// # Errors
/// What is wrong with it.
pub fn check(page: &[u8], number: u64, geometry: &Geometry) -> Result<Verdict, Problem> {
    debug_assert_eq!(page.len(), geometry.page_bytes as usize);
    let own_checksum = if geometry.full_crc32 {
        full_crc32(page)
    } else if geometry.zip {
        zip(page)
    } else {
        plain(page)
    };
    let verdict = own_checksum?;
    if verdict != Verdict::Zero {
        let (said, space) = (u32_at(page, offset::NUMBER), u32_at(page, offset::SPACE));
        if u64::from(said) != number {
            return Err(Problem::Number(said));
        }
        // MariaDB's full_crc32 encrypts and compresses this, too.
        let hidden = geometry.full_crc32
            && (stored(page) != 0 || u16_at(page, offset::KIND) & FULL_CRC32_COMPRESSED != 0);
        if space != geometry.space && !hidden {
            return Err(Problem::Space(space));
        }
    }
    Ok(verdict)
}

fn is_zero(page: &[u8]) -> bool {
    page.iter().all(|&byte| byte == 0)
}

fn stored(page: &[u8]) -> u32 {
    u32_at(page, offset::CHECKSUM)
}

/// MariaDB's full_crc32: the checksum stands at the end and covers all before it, as it is in the
/// file, encrypted or compressed (`buf_page_is_corrupted`).
fn full_crc32(page: &[u8]) -> Result<Verdict, Problem> {
    let kind = u16_at(page, offset::KIND);
    let mut used = page.len();
    let mut compressed = false;
    if kind & FULL_CRC32_COMPRESSED != 0 {
        // The rest of the type is then the length, in units of 256 bytes.
        used = usize::from(kind & !FULL_CRC32_COMPRESSED) << 8;
        compressed = used < page.len();
        if used > page.len() || used < offset::DATA + offset::TRAILER {
            return Err(Problem::Compression);
        }
    }
    let (body, tail) = page[..used].split_at(used - 4);
    let expected = u32_at(tail, 0);
    if crc32c::crc32c(body) != expected {
        return if is_zero(page) { Ok(Verdict::Zero) } else { Err(Problem::Checksum(expected)) };
    }
    let encrypted = stored(page) != 0;
    if !compressed && !encrypted && page[20..24] != page[used - 8..used - 4] {
        return Err(Problem::Torn);
    }
    Ok(Verdict::Sound(Algorithm::FullCrc32))
}

/// A page of `ROW_FORMAT=COMPRESSED`: one checksum, no trailer.
fn zip(page: &[u8]) -> Result<Verdict, Problem> {
    let kind = PageKind(u16_at(page, offset::KIND));
    if kind.is_mysql_encrypted() {
        return Ok(Verdict::Encrypted);
    }
    let fits = |sum: u32| {
        if sum == NO_CHECKSUM {
            return Some(Algorithm::None);
        }
        if sum == checksum::zip_crc32(page) {
            return Some(Algorithm::Crc32);
        }
        (sum == checksum::zip_adler(page)).then_some(Algorithm::Innodb)
    };
    if let Some(algorithm) = fits(stored(page)) {
        return Ok(match is_zero(page) {
            true => Verdict::Zero,
            false => Verdict::Sound(algorithm),
        });
    }
    if is_zero(page) {
        return Ok(Verdict::Zero);
    }
    if let Some(sum) = encrypted_checksum(page)
        && let Some(algorithm) = fits(sum)
    {
        return Ok(Verdict::Sound(algorithm));
    }
    Err(Problem::Checksum(stored(page)))
}

/// MariaDB before full_crc32: an encrypted page says so by the version of its key, and has a checksum of
/// what is in the file beside it.
fn encrypted_checksum(page: &[u8]) -> Option<u32> {
    let kind = PageKind(u16_at(page, offset::KIND));
    let first = u32_at(page, offset::NUMBER) == 0;
    let encrypted = !first && kind != PageKind::RTREE && u32_at(page, offset::EXTRA) != 0;
    encrypted.then(|| u32_at(page, offset::EXTRA + 4))
}

/// A page with a checksum at each end.
fn plain(page: &[u8]) -> Result<Verdict, Problem> {
    let kind = PageKind(u16_at(page, offset::KIND));
    match kind {
        PageKind::MYSQL_COMPRESSED => return mysql_compressed(page),
        PageKind::MARIADB_COMPRESSED => return mariadb_compressed(page),
        PageKind::MARIADB_COMPRESSED_ENCRYPTED => return Ok(Verdict::Encrypted),
        kind if kind.is_mysql_encrypted() => return Ok(Verdict::Encrypted),
        _ => {}
    }
    match two_checksums(page) {
        Err(_) if is_zero(page) => Ok(Verdict::Zero),
        Err(_) if encrypted_checksum(page) == Some(checksum::crc32(page)) => {
            Ok(Verdict::Sound(Algorithm::Crc32))
        }
        result => result,
    }
}

fn two_checksums(page: &[u8]) -> Result<Verdict, Problem> {
    let end = page.len() - offset::TRAILER;
    let both = |sum: u32| stored(page) == sum && u32_at(page, end) == sum;
    let algorithm = if both(checksum::crc32(page)) {
        Algorithm::Crc32
    } else if both(NO_CHECKSUM) {
        Algorithm::None
    } else if checksum::is_innodb(page) {
        Algorithm::Innodb
    } else if both(checksum::crc32_old_order(page)) {
        Algorithm::Crc32OldOrder
    } else {
        return Err(Problem::Checksum(stored(page)));
    };
    if page[offset::LSN + 4..offset::KIND] != page[end + 4..] {
        return Err(Problem::Torn);
    }
    Ok(Verdict::Sound(algorithm))
}

/// MySQL's page compression keeps the header, compresses the rest with the old trailer, and zeroes what
/// is saved. The checksum is of the plain page.
fn mysql_compressed(page: &[u8]) -> Result<Verdict, Problem> {
    let algorithm = page[27];
    let (kind, length, packed) =
        (u16_at(page, 28), usize::from(u16_at(page, 30)), usize::from(u16_at(page, 32)));
    let body = page.get(offset::DATA..offset::DATA + packed).ok_or(Problem::Compression)?;
    if length != page.len() - offset::DATA {
        return Err(Problem::Compression);
    }
    let mut plain = Vec::with_capacity(page.len());
    plain.extend_from_slice(&page[..offset::DATA]);
    plain.extend(unpack(algorithm, body, length)?);
    plain[offset::KIND..offset::EXTRA].copy_from_slice(&kind.to_be_bytes());
    two_checksums(&plain)?;
    Ok(Verdict::Compressed)
}

/// MariaDB's page compression before full_crc32 compresses the whole page behind a header of its own.
/// What comes out has no checksum that must fit.
fn mariadb_compressed(page: &[u8]) -> Result<Verdict, Problem> {
    let packed = usize::from(u16_at(page, offset::DATA));
    let begin = offset::DATA + 2;
    let body = page.get(begin..begin + packed).ok_or(Problem::Compression)?;
    // The algorithm is the last byte of the eight of the flush LSN.
    match page[33] {
        algorithm @ 1..=2 => {
            unpack(algorithm, body, page.len())?;
            Ok(Verdict::Compressed)
        }
        3..=6 => Ok(Verdict::Compressed),
        _ => Err(Problem::Compression),
    }
}

/// Unpacks what must come to exactly `length` bytes: 1 is zlib, 2 is LZ4 on both servers.
fn unpack(algorithm: u8, body: &[u8], length: usize) -> Result<Vec<u8>, Problem> {
    debug_assert!(length <= MAX_PAGE_BYTES);
    let mut plain = Vec::with_capacity(length + 1);
    match algorithm {
        1 => {
            flate2::read::ZlibDecoder::new(body)
                .take(length as u64 + 1)
                .read_to_end(&mut plain)
                .map_err(|_| Problem::Compression)?;
        }
        2 => {
            plain.resize(length, 0);
            let got = lz4_flex::block::decompress_into(body, &mut plain);
            plain.truncate(got.map_err(|_| Problem::Compression)?);
        }
        _ => return Err(Problem::Compression),
    }
    if plain.len() == length { Ok(plain) } else { Err(Problem::Compression) }
}
