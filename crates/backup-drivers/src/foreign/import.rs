//! A dump of another program as a backup in a repository.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ArtifactSink, ArtifactWriter, Backup, Consistency, ConsistencyLevel, Context, Error, ErrorKind,
    Event, Finding, Flavor, Layout, Outcome, Result, Severity, SourceInfo, Strategy,
};
use bytes::Bytes;

use super::dump::{Pieces, Reading, artifact};
use super::reader::Reader;
use super::scan::Fault;
use super::source::{self, DumpFile};

/// Name of the artifact that says what is in the files of a dump.
pub const CONTENTS: &str = "foreign/contents";

/// Keeps a dump: each file decompressed, under its own name, and what was counted in them.
#[derive(Debug, Clone)]
pub struct ForeignImport {
    path: PathBuf,
    salvage: bool,
}

impl ForeignImport {
    /// An import of a file, or of a directory as mydumper makes one. With `salvage` statements that
    /// make no sense are left out, of those that insert rows the rows from the first that makes
    /// none; without it they make the import fail.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, salvage: bool) -> Self {
        ForeignImport { path: path.into(), salvage }
    }

    /// Writes a file.
    async fn file(
        &self,
        cx: &Context,
        file: &DumpFile,
        faults: Option<Vec<Fault>>,
        reading: &mut Reading,
        sink: &dyn ArtifactSink,
    ) -> Result<()> {
        let mut writer = sink.create(artifact(&file.name)?, Layout::Stream).await?;
        let mut reader = reading.reader(file);
        let mut cut = faults.as_deref().map(Cut::of);
        let mut pieces = Pieces::of(file.path.clone());
        while let Some(piece) = pieces.next(cx).await? {
            let parts = match &mut cut {
                None => vec![piece],
                Some(cut) => cut.pass(&piece),
            };
            for part in parts {
                add(&mut reader, &mut *writer, part).await?;
            }
        }
        let broken = pieces.finish().await?;
        if let Some(end) = cut.and_then(Cut::finish) {
            add(&mut reader, &mut *writer, end).await?;
        }
        writer.finish(serde_json::Value::Null).await?;
        reading.add(file, reader, broken);
        Ok(())
    }
}

async fn add(reader: &mut Reader, writer: &mut dyn ArtifactWriter, piece: Bytes) -> Result<()> {
    reader.feed(&piece);
    writer.write(piece).await
}

#[async_trait]
impl Backup for ForeignImport {
    fn strategy(&self) -> Strategy {
        Strategy::Foreign
    }

    async fn preflight(&self, _: &Context) -> Result<Vec<Finding>> {
        source::files(&self.path).map(|_| Vec::new())
    }

    async fn run(&self, cx: &Context, sink: Arc<dyn ArtifactSink>) -> Result<Outcome> {
        let mut reading = Reading::default();
        let mut lost = Vec::new();
        for file in source::files(&self.path)? {
            cx.check()?;
            // What makes no sense has to be known before the first byte is kept.
            let faults = match (self.salvage, reading.reader(&file)) {
                (true, mut reader @ (Reader::Sql(_) | Reader::Rows(_))) => {
                    let mut pieces = Pieces::of(file.path.clone());
                    while let Some(piece) = pieces.next(cx).await? {
                        reader.feed(&piece);
                    }
                    let mut first = Reading::default();
                    let faults = first.add(&file, reader, pieces.finish().await?);
                    let found = first.found().into_iter();
                    lost.extend(found.filter(|f| f.severity == Severity::Error));
                    Some(faults)
                }
                _ => None,
            };
            self.file(cx, &file, faults, &mut reading, &*sink).await?;
        }
        let dump = reading.finish();
        let damage = dump.findings.iter().find(|f| f.severity == Severity::Error);
        if let Some(finding) = damage.filter(|_| !self.salvage || dump.is_empty()) {
            let more = dump.findings.len() - 1;
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            let problem = format!("{}: {}{more}", finding.object, finding.problem);
            let remedy = match dump.is_empty() {
                true => finding.remedy.as_str(),
                false => {
                    "take the dump again; holdfast verify --file lists all that is wrong, and --salvage keeps what \
                     can be read"
                }
            };
            return Err(Error::damaged(problem).with_remedy(remedy.to_owned()));
        }
        // What the dump as a whole tells, which no file of it does.
        let said = |f: &Finding| format!("{}: {}", f.object, f.problem);
        let known: BTreeSet<String> = lost.iter().map(said).collect();
        let wrong = dump.findings.iter().filter(|f| f.severity == Severity::Error).map(said);
        let more: Vec<String> = wrong.filter(|text| !known.contains(text)).collect();
        let text = serde_json::to_vec(&dump.parts)
            .map_err(|e| Error::internal("the contents cannot be written").with_source(e))?;
        let mut writer = sink.create(CONTENTS.parse()?, Layout::Stream).await?;
        writer.write(Bytes::from(text)).await?;
        writer.finish(serde_json::Value::Null).await?;

        let contents = dump.contents();
        let mut objects = contents.objects.clone();
        objects.insert("tables".to_owned(), contents.tables.len() as u64);
        let program = contents.program.clone().unwrap_or_else(|| "another program".to_owned());
        let mut warnings: Vec<String> =
            lost.iter().map(|f| format!("left out: {}", said(f))).collect();
        warnings.extend(more);
        if warnings.len() > 100 {
            let more = warnings.len() - 100;
            warnings.truncate(100);
            warnings.push(format!("and {more} more were left out"));
        }
        for text in &warnings {
            cx.event(Event::Warning { text: text.clone() });
        }
        Ok(Outcome {
            source: SourceInfo {
                flavor: contents.flavor.unwrap_or(Flavor::MySql),
                version: contents.server_version.clone().unwrap_or_else(|| "unknown".to_owned()),
                address: self.path.display().to_string(),
                server_uuid: None,
                server_id: 0,
                hostname: None,
            },
            position: contents.position.clone(),
            consistency: Consistency {
                level: ConsistencyLevel::None,
                reason: format!("a dump by {program}, which does not tell how it was taken"),
            },
            lock_seconds: 0.0,
            rows: Some(contents.rows()),
            objects,
            masked: false,
            partial: self.salvage,
            warnings,
            details: serde_json::Value::Null,
        })
    }
}

/// Lets through what makes sense of a stream.
struct Cut {
    /// What is kept: from, to, and whether a statement ends there that went on.
    ranges: std::vec::IntoIter<(u64, u64, bool)>,
    now: Option<(u64, u64, bool)>,
    offset: u64,
}

impl Cut {
    fn of(faults: &[Fault]) -> Cut {
        let mut ranges = Vec::new();
        let mut from = 0;
        for fault in faults {
            let until = fault.good_end.map_or(fault.start.offset, |good| good.offset);
            if until > from {
                ranges.push((from, until, fault.good_end.is_some()));
            }
            from = fault.end.offset.max(from);
        }
        ranges.push((from, u64::MAX, false));
        let mut ranges = ranges.into_iter();
        Cut { now: ranges.next(), ranges, offset: 0 }
    }

    /// What is kept of the next piece.
    fn pass(&mut self, piece: &Bytes) -> Vec<Bytes> {
        let mut kept = Vec::new();
        let end = self.offset + piece.len() as u64;
        while let Some((from, until, terminate)) = self.now {
            let (a, b) = (from.max(self.offset), until.min(end));
            if a < b {
                // Both are within the piece.
                kept.push(piece.slice((a - self.offset) as usize..(b - self.offset) as usize));
            }
            if until > end {
                break;
            }
            if terminate {
                kept.push(Bytes::from_static(b";\n"));
            }
            self.now = self.ranges.next();
        }
        self.offset = end;
        kept
    }

    /// What is to be added at the end.
    fn finish(self) -> Option<Bytes> {
        let (_, until, terminate) = self.now?;
        (terminate && until == self.offset).then(|| Bytes::from_static(b";\n"))
    }
}

impl ForeignImport {
    /// What a restore of such a backup is told; `flags` name the repository, for the command in it.
    #[must_use]
    pub fn not_restored(backup: &str, flags: &str) -> Error {
        Error::new(
            ErrorKind::Usage,
            format!("{backup} is a dump of another program, which only a client of its server can run"),
        )
        .with_remedy(format!(
            "write it into files with `holdfast export {backup} --format files --output DIR{flags}`, and load \
             DIR/foreign/files/… with mysql or mariadb"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::token::Place;
    use super::*;

    #[test]
    fn what_makes_no_sense_is_left_out_wherever_pieces_end() {
        let place = |offset| Place { line: 1, offset };
        let fault = |start, good_end: Option<u64>, end| Fault {
            start: place(start),
            good_end: good_end.map(place),
            end: place(end),
            at: place(start),
            problem: String::new(),
        };
        let text = b"0123456789abcdefghij";
        let faults = [fault(2, None, 5), fault(8, Some(11), 14), fault(15, Some(20), 20)];
        for size in 1..=text.len() {
            let mut cut = Cut::of(&faults);
            let mut kept = Vec::new();
            for piece in text.chunks(size) {
                let pieces = cut.pass(&Bytes::copy_from_slice(piece));
                kept.extend(pieces.into_iter().flatten());
            }
            kept.extend(cut.finish().into_iter().flatten());
            assert_eq!(kept, b"0156789a;\nefghij;\n", "{size}");
        }
    }
}
