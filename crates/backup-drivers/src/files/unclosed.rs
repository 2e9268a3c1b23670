//! Tables without a redo log that a server had changed and not closed: the index file of each counts how often it was
//! opened to be changed. A server that was shut down in order left 0 in all of them.
//!
//! Layout: `MI_STATE_INFO` of `storage/myisam/myisamdef.h` and `MARIA_STATE_INFO` of `storage/maria/maria_def.h`, as
//! `mi_state_info_write` and `_ma_state_info_write_sub` write them: a header of 24 bytes, of which the first three tell
//! the engine, and the count in two bytes, the high one first.

use std::fs::File;
use std::os::unix::fs::FileExt;

use backup_core::{ErrorKind, Result, io_error};

use super::tree::Tree;

/// The endings of index files, and how these begin.
const INDEXES: [(&str, [u8; 3]); 2] = [(".MYI", [254, 254, 7]), (".MAI", [254, 254, 9])];
const OPEN_COUNT: usize = 24;

/// Why a stopped server was not shut down in order, as its tables of MyISAM and Aria tell.
///
/// # Errors
/// [`ErrorKind::Source`] when an index file cannot be read.
pub(super) fn unclosed(tree: &Tree) -> Result<Option<String>> {
    let mut first = None;
    let mut count = 0_u64;
    for found in &tree.found {
        let path = &found.entry.path;
        let index = INDEXES.iter().find(|(ending, _)| path.ends_with(ending));
        let Some((_, magic)) = index else { continue };
        let mut head = [0; OPEN_COUNT + 2];
        let read = File::open(&found.source).and_then(|file| file.read_exact_at(&mut head, 0));
        match read {
            Ok(()) => {}
            // No table: nothing of it was ever written.
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => continue,
            Err(e) => {
                let what = format!("cannot read {}", found.source.display());
                return Err(io_error(e, ErrorKind::Source, what));
            }
        }
        if head.starts_with(magic) && head[OPEN_COUNT..] != [0, 0] {
            count += 1;
            first.get_or_insert(path);
        }
    }
    Ok(first.map(|path| match count {
        1 => format!("the table of {path} was not closed"),
        _ => format!("{count} tables were not closed, {path} among them"),
    }))
}
