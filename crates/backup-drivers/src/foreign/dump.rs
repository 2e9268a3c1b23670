//! A whole dump: its files, what is in them together, and what is wrong.

use std::path::{Path, PathBuf};

use backup_core::{
    ArtifactName, ArtifactSource, Context, Error, ErrorKind, Finding, Result, Severity,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::import::CONTENTS;
use super::metadata::Metadata;
use super::scan::{Contents, Fault, Scan};
use super::source::{self, Broken, DumpFile};

/// A file of a dump, and what is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DumpPart {
    /// Its name, below the directory of the dump.
    pub name: String,
    /// What is in it.
    pub contents: Contents,
}

impl DumpPart {
    fn is_sql(&self) -> bool {
        scan_of(&DumpFile { path: PathBuf::new(), name: self.name.clone() }).is_some()
    }
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
        self.parts.iter().all(|part| part.contents.statements == 0 && part.is_sql())
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
        let mut scan = scan_of(&file);
        let mut kept = Vec::new();
        let mut pieces = Pieces::of(file.path.clone());
        while let Some(piece) = pieces.next(cx).await? {
            match &mut scan {
                Some(scan) => scan.feed(&piece),
                None => remember(&file, &piece, &mut kept),
            }
        }
        reading.add(&file, scan, pieces.finish().await?, &kept);
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
    for part in parts {
        let name = artifact(&part.name)?;
        let file = DumpFile { path: PathBuf::new(), name: part.name.clone() };
        let Some(mut scan) = scan_of(&file) else { continue };
        let mut reader = artifacts.open(&name).await?;
        while let Some(bytes) = reader.next().await? {
            cx.check()?;
            scan.feed(&bytes);
        }
        let (mut contents, faults) = scan.finish();
        findings.extend(faults.iter().map(|fault| finding(&part.name, fault)));
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

/// How a file is read: SQL, or whatever lies beside it.
pub(super) fn scan_of(file: &DumpFile) -> Option<Scan> {
    let plain = Path::new(&file.name);
    let extension = plain.extension().unwrap_or_default().to_string_lossy();
    let other = ["dat", "tsv", "csv", "txt", "json", "sha256", "md5"].contains(&&*extension);
    if other || is_metadata(file) {
        return None;
    }
    // A file of mydumper is called by its database and table.
    let name = plain.file_name().unwrap_or_default().to_string_lossy();
    let by_name = name.matches('.').count() >= 2 || name.ends_with("-schema.sql");
    let database = by_name.then(|| name.split('.').next().unwrap_or_default().to_owned());
    Some(Scan::of_database(database))
}

fn is_metadata(file: &DumpFile) -> bool {
    let name = file.name.rsplit('/').next().unwrap_or_default();
    name == "metadata" || name == "metadata.partial"
}

/// Keeps the text of a `metadata` file, which is small.
pub(super) fn remember(file: &DumpFile, piece: &[u8], kept: &mut Vec<u8>) {
    if is_metadata(file) && kept.len() < 64 << 20 {
        kept.extend_from_slice(piece);
    }
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
}

impl Reading {
    /// A file was read. Gives its faults.
    pub(super) fn add(
        &mut self,
        file: &DumpFile,
        scan: Option<Scan>,
        broken: Option<Broken>,
        kept: &[u8],
    ) -> Vec<Fault> {
        let findings = &mut self.dump.findings;
        let place = scan.as_ref().map(Scan::place);
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
        match scan {
            Some(scan) => {
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
            None if is_metadata(file) => {
                let metadata = Metadata::parse(&String::from_utf8_lossy(kept));
                if !metadata.finished || file.name.ends_with(".partial") {
                    let problem = "mydumper did not say that it finished".to_owned();
                    findings.push(error(&file.name, problem));
                }
                contents.program = Some("mydumper".to_owned());
                contents.position = metadata.position.clone();
                contents.complete = metadata.finished;
                self.metadata = Some(metadata);
            }
            None => {}
        }
        self.dump.parts.push(DumpPart { name: file.name.clone(), contents });
        faults
    }

    /// All files were read.
    pub(super) fn finish(mut self) -> Dump {
        let contents = self.dump.contents();
        if let Some(metadata) = &self.metadata {
            for (table, rows) in &metadata.rows {
                let counted = contents.tables.get(table).copied().unwrap_or(0);
                // Rows in files of their own are not counted.
                let elsewhere = self.dump.parts.iter().any(|p| p.name.ends_with(".dat"));
                if counted != *rows && !elsewhere {
                    let problem =
                        format!("{counted} of {rows} rows are there, as mydumper counted them");
                    self.dump.findings.push(error(table, problem));
                }
            }
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
