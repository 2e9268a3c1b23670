//! Files below the data directory that the server has, or had, and that are not there.
//!
//! The dictionary of InnoDB names tablespaces; the definition of a table of another engine (`.frm`, `.sdi`) needs files
//! of the table's name beside it. A copy without them would look whole, and the table would be lost.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

use backup_core::{Error, ErrorKind, Result, io_error};

use super::elsewhere::DICTIONARY;
use super::tree::{Found, Tree};
use crate::innodb::{self, NamedFile, TableFile};

/// How names begin of tables that a server makes while it changes another one.
const TEMPORARY: &str = "#sql";
/// MySQL's tablespace of temporary tables.
const TEMPORARY_SPACE: u32 = 0xffff_fffd;
/// Files of engines: the number of each in a `.frm` (`legacy_db_type`), its name in a `.sdi`, and their endings.
const ENGINES: [(u8, &str, &[&str]); 4] = [
    (9, "MyISAM", &["MYD", "MYI"]),
    (42, "Aria", &["MAD", "MAI"]),
    (17, "CSV", &["CSV", "CSM"]),
    (15, "ARCHIVE", &["ARZ"]),
];
/// Endings of files that are there together, whatever the definition says.
const PAIRS: [[&str; 2]; 2] = [["MYD", "MYI"], ["MAD", "MAI"]];
/// How a `.frm` of a table begins; that of a view is a text.
const FRM: [u8; 2] = [0xfe, 0x01];

/// What the dictionary of a stopped server tells.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    /// Files that are not there.
    pub(super) missing: Vec<String>,
    /// Files in whose place there is another one.
    pub(super) exchanged: Vec<String>,
    /// It is encrypted, or damaged.
    pub(super) unread: bool,
}

impl Dictionary {
    /// Compares the files in `tree` with it.
    pub(super) fn read(tree: &Tree) -> Result<Self> {
        let entries: HashMap<&str, &Found> =
            tree.found.iter().map(|found| (found.entry.path.as_str(), found)).collect();
        let first = tree.system.as_ref().and_then(|system| system.files.first());
        let mysql = entries.get(DICTIONARY);
        let Some(path) = mysql.map(|found| &found.source).or(first.map(|file| &file.source)) else {
            return Ok(Dictionary::default());
        };
        let failed = |e| io_error(e, ErrorKind::Source, format!("cannot read {}", path.display()));
        let mut file = File::open(path).map_err(failed)?;
        let read = match mysql {
            Some(_) => innodb::mysql_files(&mut file),
            None => innodb::innodb_tables(&mut file),
        };
        // A damaged page of it is found on its way into the copy.
        let Ok(Some(named)) = read else {
            return Ok(Dictionary { unread: true, ..Dictionary::default() });
        };
        let mut told = Dictionary::default();
        let spaces: HashSet<u32> =
            tree.found.iter().filter_map(|found| found.entry.space_id).collect();
        let mut frms = BTreeSet::new();
        for NamedFile { path, space } in named {
            // Others are looked for elsewhere.
            let Some(path) = below(&path) else { continue };
            let name = path.rsplit('/').next().unwrap_or_default();
            if name.starts_with(TEMPORARY) || space == Some(TEMPORARY_SPACE) {
                continue;
            }
            if mysql.is_none() {
                frms.extend(frm(&path).filter(|frm| !entries.contains_key(frm.as_str())));
            }
            match entries.get(path.as_str()).map(|found| found.entry.space_id) {
                // Undo tablespaces change their numbers.
                Some(Some(is)) if path.ends_with(".ibd") && space.is_some_and(|of| of != is) => {
                    let of = space.unwrap_or_default();
                    told.exchanged.push(format!(
                        "{}: the file is that of tablespace {is}, and not of {of}",
                        shown(&path)
                    ));
                }
                Some(_) => {}
                // Of MariaDB, a table in the system tablespace. MySQL looks into every file.
                None if mysql.is_none() && space.is_none() => {}
                None if mysql.is_some() && space.is_some_and(|of| spaces.contains(&of)) => {}
                None => told.missing.push(path),
            }
        }
        told.missing.extend(frms);
        told.missing.sort();
        Ok(told)
    }
}

/// A path of a dictionary below the data directory.
fn below(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str()?),
            _ => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// The definition of a table that has this tablespace (MariaDB). Those of full-text indexes have none.
pub(super) fn frm(ibd: &str) -> Option<String> {
    let (database, name) = ibd.strip_suffix(".ibd")?.split_once('/')?;
    let end = name.to_ascii_lowercase().find("#p#").unwrap_or(name.len());
    let hidden = name.starts_with("FTS_") || name.starts_with(TEMPORARY);
    (!hidden).then(|| format!("{database}/{}.frm", &name[..end]))
}

fn shown(path: &str) -> String {
    TableFile::of(path).map_or_else(|| path.to_owned(), |table| table.to_string())
}

/// Files that the definitions of tables need that are no tablespaces, and that `tree` lacks.
///
/// # Errors
/// [`ErrorKind::Source`] where a definition cannot be read.
pub(crate) fn of_definitions(tree: &Tree) -> Result<Vec<String>> {
    let paths: HashSet<&str> = tree.found.iter().map(|found| found.entry.path.as_str()).collect();
    let mut tables: HashMap<(String, String), &str> = HashMap::new();
    for path in &paths {
        if let (Some(TableFile { database, table, partition: None }), Some((stem, _))) =
            (TableFile::of(path), path.rsplit_once('.'))
        {
            tables.insert((database, table), stem);
        }
    }
    let mut missing = BTreeSet::new();
    for found in &tree.found {
        let path = &found.entry.path;
        let Some((database, name)) = path.split_once('/') else { continue };
        if name.starts_with(TEMPORARY) || name.contains('/') {
            continue;
        }
        let Some((stem, ending)) = path.rsplit_once('.') else { continue };
        let wants = match ending {
            "frm" => of_frm(found)?.map(|endings| (stem.to_owned(), endings)),
            "sdi" => of_sdi(found)?.map(|(table, endings)| {
                let known = TableFile::of(path).and_then(|file| {
                    tables.get(&(file.database, table.clone())).map(|stem| (*stem).to_owned())
                });
                (known.unwrap_or_else(|| format!("{database}/{table}")), endings)
            }),
            _ => None,
        };
        if let Some((stem, endings)) = wants {
            missing.extend(endings.iter().map(|ending| format!("{stem}.{ending}")));
        }
        for pair in PAIRS.iter().filter(|pair| pair.contains(&ending)) {
            missing.extend(pair.iter().map(|ending| format!("{stem}.{ending}")));
        }
    }
    Ok(missing.into_iter().filter(|path| !paths.contains(path.as_str())).collect())
}

/// The endings of the files that a definition of MariaDB needs.
fn of_frm(found: &Found) -> Result<Option<&'static [&'static str]>> {
    let mut head = Vec::new();
    let Some(file) = open(found)? else { return Ok(None) };
    file.take(4).read_to_end(&mut head).map_err(failed(found))?;
    let engine = (head.starts_with(&FRM)).then(|| head.get(3)).flatten();
    Ok(engine.and_then(|engine| {
        ENGINES.iter().find(|(number, ..)| number == engine).map(|(.., endings)| *endings)
    }))
}

/// The name of the table of a definition of MySQL, and the endings of the files that it needs.
fn of_sdi(found: &Found) -> Result<Option<(String, &'static [&'static str])>> {
    let mut text = Vec::new();
    let Some(mut file) = open(found)? else { return Ok(None) };
    file.read_to_end(&mut text).map_err(failed(found))?;
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let value = |key: &str| json.get("dd_object")?.get(key)?.as_str();
    let (Some(name), Some(engine)) = (value("name"), value("engine")) else { return Ok(None) };
    let engine = ENGINES.iter().find(|(_, known, _)| *known == engine);
    Ok(engine
        .filter(|_| !name.starts_with(TEMPORARY))
        .map(|(.., endings)| (name.to_owned(), *endings)))
}

/// A file of a server that may run, and may have taken it away.
fn open(found: &Found) -> Result<Option<File>> {
    match File::open(&found.source) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some).map_err(failed(found)),
    }
}

fn failed(found: &Found) -> impl Fn(std::io::Error) -> Error {
    let message = format!("cannot read {}", found.source.display());
    move |e| io_error(e, ErrorKind::Source, message.clone())
}

/// What is to be said of files that are missing.
pub(super) fn told(missing: &[String]) -> Option<String> {
    let (first, rest) = missing.split_first()?;
    let table = TableFile::of(first).map_or_else(String::new, |table| format!(" of {table}"));
    let more = match rest.len() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    Some(format!("files of the server are missing: {first}{table}{more}"))
}

/// Fails where files of a server are missing that is stopped.
pub(super) fn refuse(missing: &[String]) -> Result<()> {
    told(missing).map_or(Ok(()), |problem| {
        Err(Error::new(ErrorKind::Source, problem).with_remedy(
            "bring the files back; or start the server, and drop the tables or bring them back from an earlier backup \
             (restore --tables)",
        ))
    })
}

/// Fails where files of a server are missing that runs.
pub(crate) fn refuse_live(missing: &[String]) -> Result<()> {
    told(missing).map_or(Ok(()), |problem| {
        Err(Error::new(ErrorKind::Source, problem).with_remedy(
            "a server that has a file open can still read it, until it stops: take a logical backup of the table first \
             (--strategy logical --tables), and bring it back from that; DROP TABLE takes one away that cannot be read",
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tree::Root;

    #[test]
    fn a_table_needs_the_files_of_its_engine() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("shop")).unwrap();
        let sdi = r#"{"dd_object": {"name": "odd name", "engine": "MyISAM"}}"#;
        for (name, bytes) in [
            ("shop/old.frm", &[0xfe, 1, 10, 9, 0][..]),
            ("shop/old.MYD", b""),
            ("shop/old.MYI", b""),
            ("shop/view.frm", b"TYPE=VIEW"),
            ("shop/inno.frm", &[0xfe, 1, 10, 12, 0]),
            ("shop/#sql-1.frm", &[0xfe, 1, 10, 9, 0]),
            ("shop/parts#P#p0.MAD", b""),
            ("shop/parts#P#p0.MAI", b""),
            ("shop/odd@0020name_12.sdi", sdi.as_bytes()),
            ("shop/odd@0020name.MYD", b""),
            ("shop/odd@0020name.MYI", b""),
        ] {
            std::fs::write(at(name), bytes).unwrap();
        }
        let missing = || {
            let tree = Tree::walk(&[Root::datadir(dir.path())], false).unwrap();
            of_definitions(&tree).unwrap()
        };
        assert_eq!(missing(), [""; 0]);
        for name in ["old.MYD", "parts#P#p0.MAI", "odd@0020name.MYI"] {
            std::fs::remove_file(at("shop").join(name)).unwrap();
        }
        let expected = ["shop/odd@0020name.MYI", "shop/old.MYD", "shop/parts#P#p0.MAI"];
        assert_eq!(missing(), expected);
    }

    #[test]
    fn definitions_of_partitions_and_full_text_indexes() {
        assert_eq!(frm("a/t#P#p0.ibd").as_deref(), Some("a/t.frm"));
        assert_eq!(frm("a/t.ibd").as_deref(), Some("a/t.frm"));
        assert_eq!(frm("a/FTS_0001_CONFIG.ibd"), None);
        assert_eq!(below("./a/t.ibd").as_deref(), Some("a/t.ibd"));
        assert_eq!(below("/a/t.ibd").or(below("../t.ibd")), None);
    }
}
