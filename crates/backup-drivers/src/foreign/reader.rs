//! How each file of a dump is read: SQL, rows that SQL loads, what mydumper says of itself, or whatever lies beside.

use std::collections::BTreeMap;
use std::path::Path;

use super::lines::{Lines, Load};
use super::scan::Scan;
use super::source::DumpFile;
use super::token::Place;

/// Files with rows for `LOAD DATA`, and others that are no SQL.
const NO_SQL: [&str; 7] = ["dat", "tsv", "csv", "txt", "json", "sha256", "md5"];

/// What takes a file in pieces.
pub(super) enum Reader {
    Sql(Box<Scan>),
    Rows(Box<Lines>),
    /// The text of the `metadata`, which is small.
    Metadata(Vec<u8>),
    Other,
}

/// The statements that load other files, by the names of these below the directory of the dump.
pub(super) type Loads = BTreeMap<String, Load>;

impl Reader {
    /// That of a file. Those with rows come behind the statements that load them.
    pub(super) fn of(file: &DumpFile, loads: &Loads) -> Self {
        if is_metadata(&file.name) {
            return Reader::Metadata(Vec::new());
        }
        if !is_sql(&file.name) {
            let load = loads.get(&file.name);
            let lines =
                load.and_then(|load| Some(Lines::of(load.format.clone()?, load.table.clone())));
            return lines.map_or(Reader::Other, |lines| Reader::Rows(Box::new(lines)));
        }
        let plain = Path::new(&file.name);
        // A file of mydumper is called by its database and table.
        let name = plain.file_name().unwrap_or_default().to_string_lossy();
        let by_name = name.matches('.').count() >= 2 || name.ends_with("-schema.sql");
        let database = by_name.then(|| name.split('.').next().unwrap_or_default().to_owned());
        let scan = Scan::of_database(database);
        // Its code ends at the ends of lines, with no DELIMITER.
        let code = ["-schema-post.sql", "-schema-triggers.sql"].iter().any(|e| name.ends_with(e));
        Reader::Sql(Box::new(if code { scan.by_lines() } else { scan }))
    }

    /// The next bytes.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        match self {
            Reader::Sql(scan) => scan.feed(piece),
            Reader::Rows(lines) => lines.feed(piece),
            Reader::Metadata(text) if text.len() < 64 << 20 => text.extend_from_slice(piece),
            Reader::Metadata(_) | Reader::Other => {}
        }
    }

    /// Where it stands, if that is known.
    pub(super) fn place(&self) -> Option<Place> {
        match self {
            Reader::Sql(scan) => Some(scan.place()),
            Reader::Rows(lines) => Some(lines.place()),
            Reader::Metadata(_) | Reader::Other => None,
        }
    }
}

/// Whether a file holds statements, by its name.
pub(super) fn is_sql(name: &str) -> bool {
    let extension = Path::new(name).extension().unwrap_or_default().to_string_lossy();
    !NO_SQL.contains(&&*extension) && !is_metadata(name)
}

fn is_metadata(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or_default();
    name == "metadata" || name == "metadata.partial"
}

/// The name below the directory of the dump of a file that a statement in the file `by` loads.
pub(super) fn beside(by: &str, load: &Load) -> String {
    let name = load.file.rsplit('/').next().unwrap_or_default();
    let codec = crate::exchange::Codec::of_name(Path::new(name));
    let name = name.strip_suffix(codec.extension()).unwrap_or(name);
    match by.rsplit_once('/') {
        Some((directory, _)) => format!("{directory}/{name}"),
        None => name.to_owned(),
    }
}
