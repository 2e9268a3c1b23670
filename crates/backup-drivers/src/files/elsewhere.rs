//! Files of a stopped server that are not below its directory, and that nobody named.
//!
//! What MariaDB has elsewhere leaves a trace in its place, a link or a text (`.isl`), and is followed. Nothing is
//! left there of tablespaces of MySQL 8 and later, of undo tablespaces, and of further files of the system
//! tablespace: the first are in the dictionary (`mysql.tablespace_files` in `mysql.ibd`), the others in the system
//! tablespace itself. A copy without them would look whole.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Result, io_error};
use memchr::memmem;

use super::system::System;
use super::tree::{Found, Tree, header};
use crate::innodb::{self, Geometry, HEAD_BYTES, PageKind};

/// The tablespace of MySQL's dictionary.
pub(super) const DICTIONARY: &str = "mysql.ibd";
/// How much of the dictionary is read at once, in bytes: a multiple of every page.
const READ: usize = 1 << 20;
/// The page of the system tablespace that lists its rollback segments, and where in it (`trx0sys.h`).
const SEGMENTS_PAGE: u64 = 5;
const SEGMENTS_KIND: u16 = 7;
const SEGMENTS_AT: usize = 38 + 18;
const SEGMENTS: usize = 128;
/// The longest path in the dictionary, in bytes.
const PATH: usize = 512;
/// How names of tablespace files end there.
const ENDINGS: [&[u8]; 2] = [b".ibd", b".ibu"];
/// How the undo tablespaces are called that a server makes by itself.
const UNDO: &[u8] = b"undo_0";
/// The first record of a page (`PAGE_NEW_INFIMUM`), and the length of what is before each (`REC_N_NEW_EXTRA_BYTES`).
const INFIMUM: usize = 99;
const HEAD: usize = 5;
/// Where a record has its path, and how many bytes tell which of its columns are NULL: behind tablespace, number,
/// transaction and roll pointer in the clustered index, first in the other one.
const PATH_AT: [(usize, usize); 2] = [(25, 1), (0, 0)];
/// Where Aria keeps which of its logs is in use.
const ARIA_CONTROL: &str = "aria_log_control";

/// Fails when the tree lacks files that the server has. Gives what could not be seen, if anything.
///
/// # Errors
/// [`ErrorKind::Source`] that names them, and what the files fail with.
pub(super) fn check(tree: &Tree) -> Result<Option<&'static str>> {
    tree.refuse_dangling()?;
    let missing = missing(tree)?;
    let Some((first, rest)) = missing.split_first() else {
        let dictionary = tree.found.iter().find(|found| found.entry.path == DICTIONARY);
        let encrypted = dictionary.is_some_and(|found| is_encrypted(&found.source));
        return Ok(encrypted.then_some(
            "the dictionary is encrypted: whether tablespaces are outside of the data directory cannot be seen",
        ));
    };
    let more = match rest.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(Error::new(
        ErrorKind::Source,
        format!("the server has files that are not below its data directory: {first}{more}"),
    )
    .with_remedy(
        "name the directories that they are in: file:///var/lib/mysql?also=/DIR for tablespaces, undo=/DIR, \
         data=/DIR for the system tablespace, aria=/DIR; mount what is not there",
    ))
}

fn is_encrypted(path: &Path) -> bool {
    let mut head = [0; HEAD_BYTES];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut head, 0));
    read.is_ok() && Geometry::read(&head).is_some_and(|geometry| geometry.mysql_encrypted())
}

fn missing(tree: &Tree) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    let spaces: HashSet<u32> = tree.found.iter().filter_map(|found| found.entry.space_id).collect();
    let file = |path: &str| tree.found.iter().find(|found| found.entry.path == path);
    match tree.system.as_ref().and_then(|system| Some((system, system.files.first()?))) {
        Some((system, first)) => {
            let read = of_the_system_tablespace(system, &first.source, &spaces);
            missing.extend(read.map_err(failed(&first.source))?);
        }
        None => missing.push("the system tablespace (innodb_data_home_dir)".to_owned()),
    }
    let of_aria = |found: &Found| {
        found.entry.path.starts_with("mysql/") && found.entry.path.ends_with(".MAI")
    };
    if tree.found.iter().any(of_aria) && file(ARIA_CONTROL).is_none() {
        missing.push(format!("the logs of Aria, {ARIA_CONTROL} among them (aria_log_dir_path)"));
    }
    if let Some(dictionary) = file(DICTIONARY) {
        let read = of_the_dictionary(dictionary, &spaces);
        missing.extend(read.map_err(failed(&dictionary.source))?);
    }
    Ok(missing)
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let message = format!("cannot read {}", path.display());
    move |e| io_error(e, ErrorKind::Source, message)
}

/// Its own other files, and the undo tablespaces that it names.
fn of_the_system_tablespace(
    system: &System,
    first: &Path,
    spaces: &HashSet<u32>,
) -> std::io::Result<Vec<String>> {
    let file = File::open(first)?;
    let page = u64::from(system.geometry.page_bytes);
    let mut missing = Vec::new();
    if system.missing() > 0 {
        missing.push(format!(
            "{} of the {} bytes of the system tablespace (innodb_data_file_path)",
            system.missing(),
            system.wanted()
        ));
    }
    let mut list = vec![0; system.geometry.page_bytes as usize];
    match file.read_exact_at(&mut list, SEGMENTS_PAGE * page) {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(missing),
        other => other?,
    }
    // A page that is damaged tells nothing, and is found on its way into the copy.
    let sound = innodb::check(&list, SEGMENTS_PAGE, &system.geometry).is_ok();
    if !sound || list[24..26] != SEGMENTS_KIND.to_be_bytes() {
        return Ok(missing);
    }
    let mut undo: Vec<u32> = list[SEGMENTS_AT..SEGMENTS_AT + 8 * SEGMENTS]
        .chunks_exact(8)
        .filter_map(|slot| {
            let (space, page) = (slot.first_chunk::<4>()?, slot.last_chunk::<4>()?);
            (*page != [0xff; 4]).then(|| u32::from_be_bytes(*space))
        })
        .filter(|space| *space != 0 && !spaces.contains(space))
        .collect();
    undo.sort_unstable();
    undo.dedup();
    missing.extend(undo.iter().map(|space| {
        format!("the undo tablespace with the number {space} (innodb_undo_directory)")
    }));
    Ok(missing)
}

/// The files that MySQL's dictionary names and the tree lacks.
fn of_the_dictionary(dictionary: &Found, spaces: &HashSet<u32>) -> std::io::Result<Vec<String>> {
    let page_bytes = dictionary.entry.page_size.map_or(16_384, |size| size as usize);
    let file = File::open(&dictionary.source)?;
    let mut missing = Vec::new();
    let mut seen = HashSet::new();
    let mut buffer = vec![0; READ];
    let mut at = 0;
    while at < dictionary.entry.bytes {
        let len = usize::try_from(dictionary.entry.bytes - at).map_or(READ, |left| left.min(READ));
        file.read_exact_at(&mut buffer[..len], at)?;
        for page in buffer[..len].chunks_exact(page_bytes) {
            for mut path in elsewhere(page) {
                if let Some(datadir) = dictionary.source.parent() {
                    path.path = datadir.join(path.path);
                }
                let known = match header(&path.path) {
                    Ok(head) => head.is_some_and(|(space, _)| spaces.contains(&space)),
                    // What was dropped leaves its name behind for a while.
                    Err(_) => !path.live,
                };
                if !known && seen.insert(path.path.clone()) {
                    missing.push(path.path.display().to_string());
                }
            }
        }
        at += len as u64;
    }
    missing.sort();
    Ok(missing)
}

/// A path that a page of the dictionary may name.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    path: PathBuf,
    /// Whether it is that of a record that is not deleted, for certain.
    live: bool,
}

/// The paths in a page that lead out of the data directory: those of live records, and whatever else there is a file
/// for.
fn elsewhere(page: &[u8]) -> Vec<Named> {
    let mut named = Vec::new();
    let kind = page.get(24..26).map(|kind| u16::from_be_bytes([kind[0], kind[1]]));
    if kind != Some(PageKind::INDEX.0) {
        return named;
    }
    let ends = ENDINGS.iter().flat_map(|ending| {
        memmem::find_iter(page, ending).map(|at| at + ending.len()).collect::<Vec<_>>()
    });
    let undo = memmem::find_iter(page, UNDO).map(|at| {
        let digits = page[at + UNDO.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        at + UNDO.len() + digits.count()
    });
    let mut records = None;
    for end in ends.chain(undo) {
        let records = records.get_or_insert_with(|| live_paths(page));
        if let Some(&start) = records.get(&end) {
            let path = Path::new(str::from_utf8(&page[start..end]).unwrap_or_default());
            if path.is_absolute() || path.starts_with("..") {
                named.push(Named { path: path.to_owned(), live: true });
            }
            continue;
        }
        let text = page[end.saturating_sub(PATH)..end].iter().rev();
        let start = end - text.take_while(|&&byte| byte >= b' ').count();
        for at in memchr::memchr_iter(b'/', &page[start..end]).map(|at| start + at) {
            let Ok(path) = str::from_utf8(&page[at..end]) else { continue };
            let path = PathBuf::from(path);
            if path.is_file() {
                named.push(Named { path, live: false });
                break;
            }
        }
    }
    named
}

/// Where the paths of live records end, with where they begin, as far as the records are of such a table.
fn live_paths(page: &[u8]) -> HashMap<usize, usize> {
    let mut paths = HashMap::new();
    for record in live_records(page) {
        for (before, nulls) in PATH_AT {
            let Some(len) = length(page, record.saturating_sub(HEAD + nulls)) else { continue };
            let start = record + before;
            let text = page.get(start..start + len).unwrap_or_default();
            if !text.is_empty() && text.iter().all(|&byte| byte >= b' ') {
                paths.insert(start + len, start);
            }
        }
    }
    paths
}

/// The length of the first column of a record whose lengths vary, which stands backwards before `end`
/// (`rec_init_offsets_comp_ordinary`); `None` where the column is not in the page.
fn length(page: &[u8], end: usize) -> Option<usize> {
    let first = usize::from(*page.get(end.checked_sub(1)?)?);
    match first {
        0..0x80 => Some(first),
        0x80..0xc0 => Some((first & 0x3f) << 8 | usize::from(*page.get(end.checked_sub(2)?)?)),
        _ => None,
    }
}

/// Where the records of a page begin that are not deleted (`page0page.h`, `rem0rec.h`).
fn live_records(page: &[u8]) -> HashSet<usize> {
    let mut records = HashSet::new();
    let mut at = INFIMUM;
    // Each record takes five bytes at least.
    for _ in 0..page.len() / 5 {
        let Some(next) = page.get(at - 2..at).map(|next| [next[0], next[1]]) else { break };
        at = at.wrapping_add_signed(i16::from_be_bytes(next).into()) & (page.len() - 1);
        if at < INFIMUM {
            break;
        }
        let deleted = page.get(at - 5).is_none_or(|bits| bits & 0x20 != 0);
        if !deleted {
            records.insert(at);
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_page_is_survived(
            words in prop::collection::vec("[./a-z]{0,20}\\.ibd|/undo_00[0-9]|[\\x00-\\x40]{0,40}", 0..60),
            next in prop::collection::vec(any::<u8>(), 200),
        ) {
            let mut page = words.concat().into_bytes();
            page.extend_from_slice(&next);
            page.resize(4096, 0);
            page[24..26].copy_from_slice(&PageKind::INDEX.0.to_be_bytes());
            for path in elsewhere(&page) {
                prop_assert!(path.path.is_absolute() || path.path.starts_with(".."));
            }
            page.rotate_right(200);
            page[24..26].copy_from_slice(&PageKind::INDEX.0.to_be_bytes());
            elsewhere(&page);
        }
    }
}
