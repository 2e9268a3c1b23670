//! A whole dump: its files, what is in them together, and what is wrong.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use backup_core::{
    ArtifactName, ArtifactSource, Context, Error, ErrorKind, Finding, Result, Severity,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::import::CONTENTS;
use super::metadata::{Metadata, Promised, TRIGGERS};
use super::reader::{Loads, Reader, beside, is_sql};
use super::scan::{Contents, Fault};
use super::source::{self, Broken, DumpFile};

/// A file of a dump, and what is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DumpPart {
    /// Its name, below the directory of the dump.
    pub name: String,
    /// What is in it.
    pub contents: Contents,
}

/// What a dump holds, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dump {
    /// Its files.
    pub parts: Vec<DumpPart>,
    /// What is wrong, file by file, in the order of lines.
    pub findings: Vec<Finding>,
}

impl Dump {
    /// Whether there is nothing in it that could be kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.contents.statements == 0 && is_sql(&part.name))
    }

    /// Everything in it together.
    #[must_use]
    pub fn contents(&self) -> Contents {
        let mut all = Contents::default();
        for DumpPart { contents, .. } in &self.parts {
            let one = contents.clone();
            all.program = all.program.or(one.program);
            all.server_version = all.server_version.or(one.server_version);
            all.flavor = all.flavor.or(one.flavor);
            if all.position == backup_core::Position::default() {
                all.position = one.position;
            }
            all.bytes += one.bytes;
            all.lines += one.lines;
            all.statements += one.statements;
            for (table, rows) in one.tables {
                *all.tables.entry(table).or_default() += rows;
            }
            for (kind, count) in one.objects {
                *all.objects.entry(kind).or_default() += count;
            }
            all.complete |= one.complete;
        }
        all
    }
}

/// Reads a dump from its first byte to its last.
///
/// # Errors
/// When a file cannot be read; damage is a finding.
pub async fn examine_dump(cx: &Context, path: &Path) -> Result<Dump> {
    let mut reading = Reading::default();
    for file in source::files(path)? {
        cx.check()?;
        let mut reader = reading.reader(&file);
        let mut pieces = Pieces::of(file.path.clone());
        while let Some(piece) = pieces.next(cx).await? {
            reader.feed(&piece);
        }
        reading.add(&file, reader, pieces.finish().await?);
    }
    Ok(reading.finish())
}

/// Reads a dump that was imported once more.
///
/// # Errors
/// When the store fails.
pub async fn examine_kept(cx: &Context, artifacts: &dyn ArtifactSource) -> Result<Vec<Finding>> {
    let parts: Vec<DumpPart> = artifacts
        .read(&CONTENTS.parse()?, 256 << 20)
        .await
        .and_then(|text| serde_json::from_slice(&text).map_err(|e| Error::damaged(e.to_string())))
        .map_err(|e| e.context("the contents of the dump cannot be told"))?;
    let mut findings = Vec::new();
    let mut loads = Loads::new();
    for part in parts {
        let name = artifact(&part.name)?;
        let file = DumpFile { path: PathBuf::new(), name: part.name.clone() };
        let mut reader = Reader::of(&file, &loads);
        match reader {
            Reader::Sql(_) => {}
            // Files of rows were imported before anybody counted them.
            Reader::Rows(_) if part.contents.bytes > 0 => {}
            Reader::Rows(_) | Reader::Metadata(_) | Reader::Other => continue,
        }
        let mut kept = artifacts.open(&name).await?;
        while let Some(bytes) = kept.next().await? {
            cx.check()?;
            reader.feed(&bytes);
        }
        let (mut contents, faults) = match reader {
            Reader::Sql(scan) => scan.finish(),
            Reader::Rows(lines) => lines.finish(),
            Reader::Metadata(_) | Reader::Other => continue,
        };
        findings.extend(faults.iter().map(|fault| finding(&part.name, fault)));
        let loaded = std::mem::take(&mut contents.loads).into_iter();
        loads.extend(loaded.map(|load| (beside(&part.name, &load), load)));
        // One that was imported with --salvage may lack its end.
        contents.not_put_back.clear();
        if contents != part.contents {
            let problem = "it does not hold what was counted when it was imported";
            findings.push(error(&part.name, problem.to_owned()));
        }
    }
    Ok(findings)
}

/// The artifact of a file.
pub(super) fn artifact(name: &str) -> Result<ArtifactName> {
    ArtifactName::from_parts(["foreign", "files"].into_iter().chain(name.split('/')))
}

/// The pieces of a file, decompressed by a thread of its own.
pub(super) struct Pieces {
    queue: mpsc::Receiver<Bytes>,
    reading: JoinHandle<std::result::Result<(), Broken>>,
}

impl Pieces {
    pub(super) fn of(path: PathBuf) -> Self {
        let (pieces, queue) = mpsc::channel::<Bytes>(4);
        let reading = tokio::task::spawn_blocking(move || {
            source::read(&path, |piece| pieces.blocking_send(Bytes::copy_from_slice(piece)).is_ok())
        });
        Pieces { queue, reading }
    }

    /// The next piece; nothing at the end, or where it cannot be read on.
    pub(super) async fn next(&mut self, cx: &Context) -> Result<Option<Bytes>> {
        cx.check()?;
        let piece = self.queue.recv().await;
        cx.progress().add_bytes(piece.as_ref().map_or(0, |p| p.len() as u64));
        Ok(piece)
    }

    /// Why it could not be read to its end, where it could not.
    pub(super) async fn finish(self) -> Result<Option<Broken>> {
        drop(self.queue);
        let read = self
            .reading
            .await
            .map_err(|e| Error::internal("the reading of a file panicked").with_source(e))?;
        match read {
            Ok(()) => Ok(None),
            Err(Broken::Cannot(e)) => Err(e),
            Err(broken) => Ok(Some(broken)),
        }
    }
}

/// Takes what is found file by file.
#[derive(Default)]
pub(super) struct Reading {
    dump: Dump,
    metadata: Option<Metadata>,
    loads: Loads,
}

impl Reading {
    /// What reads a file.
    pub(super) fn reader(&self, file: &DumpFile) -> Reader {
        Reader::of(file, &self.loads)
    }

    /// A file was read. Gives its faults.
    pub(super) fn add(
        &mut self,
        file: &DumpFile,
        reader: Reader,
        broken: Option<Broken>,
    ) -> Vec<Fault> {
        let findings = &mut self.dump.findings;
        let place = reader.place();
        let is_broken = broken.is_some();
        if let Some(Broken::Compressed { codec, at, error: e }) = broken {
            let line = place.map(|p| format!(", behind line {}", p.line)).unwrap_or_default();
            let problem = format!(
                "its {codec} stream is damaged or cut near byte {at} of the file{line}: {e}"
            );
            findings.push(error(&file.name, problem));
        }
        let mut contents = Contents::default();
        let mut faults = Vec::new();
        match reader {
            Reader::Sql(scan) => {
                (contents, faults) = scan.finish();
                findings.extend(faults.iter().map(|fault| finding(&file.name, fault)));
                if contents.statements == 0 && faults.is_empty() && !is_broken {
                    findings.push(nothing(&file.name));
                }
                for line in &contents.cut_before {
                    let problem = format!(
                        "another dump begins in line {line}, and the one before it does not end with `-- Dump \
                         completed`: it was cut"
                    );
                    findings.push(error(&file.name, problem));
                }
                if contents.says_its_end() && !contents.complete && !is_broken {
                    let problem = format!(
                        "it does not end with `-- Dump completed`: the dump was cut behind line {}",
                        contents.lines
                    );
                    findings.push(error(&file.name, problem));
                }
                // Dumps without comments do not say their end, but they have one.
                let whole = faults.is_empty() && !is_broken && !contents.says_its_end();
                if whole && !contents.not_put_back.is_empty() {
                    let names = Vec::from_iter(contents.not_put_back.iter().map(String::as_str));
                    let problem = format!(
                        "it keeps settings in {} at its beginning, and does not put them back at its end: the dump \
                         was cut behind line {}",
                        names.join(", "),
                        contents.lines
                    );
                    findings.push(error(&file.name, problem));
                }
            }
            Reader::Rows(lines) => {
                (contents, faults) = lines.finish();
                findings.extend(faults.iter().map(|fault| finding(&file.name, fault)));
            }
            Reader::Metadata(text) => {
                let metadata = Metadata::parse(&String::from_utf8_lossy(&text));
                if !metadata.finished || file.name.ends_with(".partial") {
                    let problem = "mydumper did not say that it finished".to_owned();
                    findings.push(error(&file.name, problem));
                }
                contents.program = Some("mydumper".to_owned());
                contents.position = metadata.position.clone();
                contents.complete = metadata.finished;
                self.metadata = Some(metadata);
            }
            Reader::Other => {}
        }
        let loaded = std::mem::take(&mut contents.loads).into_iter();
        self.loads.extend(loaded.map(|load| (beside(&file.name, &load), load)));
        self.dump.parts.push(DumpPart { name: file.name.clone(), contents });
        faults
    }

    /// What is wrong with the files that were read by now, each by itself.
    pub(super) fn found(self) -> Vec<Finding> {
        self.dump.findings
    }

    /// All files were read.
    pub(super) fn finish(mut self) -> Dump {
        let contents = self.dump.contents();
        let names: BTreeSet<&str> = self.dump.parts.iter().map(|part| part.name.as_str()).collect();
        let mut uncounted = BTreeSet::new();
        let mut findings = Vec::new();
        for (name, load) in &self.loads {
            if !names.contains(name.as_str()) {
                let problem = format!("it holds rows of {}, and is not there", load.table);
                findings.push(error(name, problem));
            } else if load.format.is_none() {
                let problem = "its rows are not counted: its fields have widths, or its lines a beginning of their own";
                let remedy = "restore it, and count them there";
                findings.push(Finding::new(Severity::Info, name, problem, remedy));
                uncounted.insert(&load.table);
            }
        }
        self.dump.findings.extend(findings);
        if let Some(metadata) = &self.metadata {
            self.dump.findings.extend(absent(metadata, &self.dump.parts));
            for (table, rows) in &metadata.rows {
                let counted = contents.tables.get(table).copied().unwrap_or(0);
                if counted != *rows && !uncounted.contains(table) {
                    let problem =
                        format!("{counted} of {rows} rows are there, as mydumper counted them");
                    self.dump.findings.push(error(table, problem));
                }
            }
        } else if self.dump.parts.iter().any(|part| part.name.ends_with("-schema-create.sql")) {
            let problem = "it is not there: mydumper did not finish, or not everything was copied";
            self.dump.findings.push(error("metadata", problem.to_owned()));
        } else if contents.program.is_none() {
            self.dump.findings.push(Finding::new(
                Severity::Info,
                "dump",
                "nothing in it says which program wrote it, nor whether it is complete",
                "dump with comments (mysqldump and mariadb-dump: without --skip-comments)",
            ));
        }
        self.dump
    }
}

/// The files that mydumper says it wrote, and that are not there. It may have been told to write no definitions.
fn absent(metadata: &Metadata, parts: &[DumpPart]) -> Vec<Finding> {
    let name = |part: &DumpPart| part.name.rsplit('/').next().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = parts.iter().map(name).collect();
    if !names.iter().any(|name| name.contains("-schema")) {
        return Vec::new();
    }
    let of_database = |file: &Promised, ending: &str| {
        names.iter().any(|name| {
            let behind = name.strip_prefix(&file.database);
            behind.is_some_and(|b| b.starts_with(['.', '-']) && b.ends_with(ending))
        })
    };
    let is_there = |file: &Promised| match &*file.ending {
        TRIGGERS => of_database(file, TRIGGERS),
        ending => names.contains(&format!("{}{ending}", file.database)),
    };
    // A database whose name is none for a file has files of another name.
    let missing = metadata.files.iter().filter(|file| of_database(file, "") && !is_there(file));
    missing
        .map(|file| {
            let name = format!("{}{}", file.database, file.ending);
            error(&name, format!("it holds {}, and is not there", file.what))
        })
        .collect()
}

/// A program that could not sign in, or was killed at once, leaves such a file.
fn nothing(name: &str) -> Finding {
    let problem = "there is no statement in it: nothing was dumped".to_owned();
    let remedy = "take the dump again, and look at how the program ends that writes it (in a pipe: `set -o pipefail`)";
    Finding::new(Severity::Error, name, problem, remedy).with_kind(ErrorKind::Damaged)
}

fn error(object: &str, problem: String) -> Finding {
    let remedy = "take the dump again; holdfast import --salvage keeps what can be read";
    Finding::new(Severity::Error, object, problem, remedy).with_kind(ErrorKind::Damaged)
}

fn finding(name: &str, fault: &Fault) -> Finding {
    let statement = match fault.start.line == fault.at.line {
        true => String::new(),
        false => format!(" (in the statement of line {})", fault.start.line),
    };
    let problem = format!(
        "byte {}: {}{statement}; what can be read goes on in line {}",
        fault.at.offset, fault.problem, fault.end.line
    );
    error(&format!("{name}:{}", fault.at.line), problem)
}
