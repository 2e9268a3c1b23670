//! A file of MHA's `save_binary_logs`: what was left in the binlogs of a dead server, in one file.
//!
//! It begins with the head of a binlog (magic number, FORMAT_DESCRIPTION, on MySQL PREVIOUS_GTIDS), goes
//! on with that binlog from a position on to its end, and then with the binlogs behind it, each without its
//! head: `concat_all_binlogs_from` in `lib/MHA/BinlogManager.pm` and `parse_init_headers` in
//! `BinlogHeaderParser.pm` of mha4mysql-node 0.58. It tells neither names nor positions: those are in the
//! events, each of which knows where it ends in its own file.

use std::path::Path;

use backup_core::{BinlogFile, Error, GtidSet, Result};

use super::super::body::Rotate;
use super::super::event::{
    Checksum, ENCRYPTED_MAGIC, Event, Format, HEADER_LEN, Header, MAGIC, MAX_EVENT, kind,
};
use super::super::gtid::{Begin, begins, transactions_before};
use super::{LocalFile, encrypted};

/// Flag of the first event of a relay log.
const RELAY_LOG: u16 = 0x0040;
/// How MHA names such files; the address and port of the server follow, and the time.
const NAME: &str = "saved_master_binlog_from_";

/// Whether MHA gives a file such a name.
pub(super) fn is_saved(name: &str) -> bool {
    name.starts_with(NAME)
}

/// When MHA saved a file of such a name: the digits at the end.
pub(super) fn saved_at(name: &str) -> String {
    let stem = name.trim_end_matches(".binlog");
    let digits = stem.rsplit(|c: char| !c.is_ascii_digit()).next();
    digits.unwrap_or_default().to_owned()
}

/// The file.
pub(super) struct Saved {
    pub(super) local: LocalFile,
    /// How long the head is.
    pub(super) head: u64,
    /// MySQL: what the head says that came before its binlog.
    pub(super) before: Option<GtidSet>,
    /// What is of one binlog each, in their order.
    pub(super) parts: Vec<Part>,
}

/// A piece of one binlog.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Its FORMAT_DESCRIPTION; `None` where it came without.
    pub(super) format: Option<Format>,
    /// Where position `start` is in the saved file.
    pub(super) at: u64,
    /// Where it begins in its binlog; 0 with the binlog's head.
    pub(super) start: u64,
    /// Where its last whole event ends.
    pub(super) end: u64,
    /// The binlog that the server went on with, from the event that says so.
    pub(super) next_file: Option<BinlogFile>,
    /// The server wrote nothing more into it.
    closed: bool,
    /// No event has told yet where it is (MariaDB, inside a transaction).
    untold: bool,
}

impl Part {
    fn new(at: u64, start: u64) -> Self {
        let (format, next_file) = (None, None);
        Part { format, at, start, end: start, next_file, closed: false, untold: false }
    }
}

impl Saved {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let magic = LocalFile::magic(path)?;
        if magic == ENCRYPTED_MAGIC {
            return Err(encrypted(path));
        }
        if std::fs::metadata(path).is_ok_and(|meta| meta.len() == 0) {
            let problem = format!("{} is empty: nothing was saved in it", path.display());
            return Err(Error::usage(problem).with_remedy(
                "copy it again from where MHA saved it (remote_workdir at the dead server, manager_workdir at the \
                 manager); where it is empty too, name the directory of the dead server's binlogs, if that can still \
                 be read",
            ));
        }
        if magic != MAGIC {
            let problem = format!("{} is no binlog", path.display());
            return Err(Error::usage(problem).with_remedy(
                "name the directory of a dead server's binlogs, or what MHA saved of them; it saves text \
                 where handle_raw_binlog is 0, which has lost what is needed",
            ));
        }
        let local = LocalFile::open(path)?;
        if local.format.event.header().flags & RELAY_LOG != 0 {
            let problem = format!("{} was saved from the relay logs of a replica", path.display());
            return Err(Error::usage(problem).with_remedy(
                "archive the binlogs of that replica, or what was saved from the source's own",
            ));
        }
        let mut saved = Saved { local, head: 0, before: None, parts: Vec::new() };
        saved.walk()?;
        Ok(saved)
    }

    /// Finds where one binlog ends and the next one begins.
    fn walk(&mut self) -> Result<()> {
        let mariadb = self.local.format.is_mariadb();
        let mut part = Part::new(0, 0);
        part.format = Some(self.local.format.clone());
        let mut at = (MAGIC.len() + self.local.format.event.bytes().len()) as u64;
        part.end = at;
        let mut in_head = true;
        while let Some(next) = self.next(at, &part)? {
            let Next { header, skip, event } = next;
            let begin = at + skip;
            let len = u64::from(header.len);
            if in_head && header.kind != kind::PREVIOUS_GTIDS {
                self.head = at;
                in_head = false;
            }
            let told = header.end != 0 || !mariadb;
            // Modulo 2^32, as the event has it.
            let joins = match (told, part.untold) {
                (true, false) => header.end == (part.end + len) as u32,
                (true, true) => true,
                // The first event behind a head tells.
                (false, _) => at != self.head,
            };
            let anew = part.closed || !joins || skip > 0 || header.kind == kind::FORMAT_DESCRIPTION;
            if anew {
                let start = match told {
                    true => u64::from(header.end).checked_sub(len),
                    false => Some(0),
                };
                let head = MAGIC.len() as u64 + HEADER_LEN as u64;
                match (&event, start) {
                    // What nobody tells the place of is the torn end of the part before.
                    _ if part.untold => break,
                    (Some(event), Some(4)) if header.kind == kind::FORMAT_DESCRIPTION => {
                        // The magic number may be left out.
                        let mut whole = Part::new(begin - MAGIC.len() as u64, 0);
                        let format = Format::parse(event.clone())?;
                        whole.format = Some(Format { event: format.to_send(false), ..format });
                        whole.end = MAGIC.len() as u64;
                        self.parts.push(std::mem::replace(&mut part, whole));
                    }
                    (_, Some(start)) if skip == 0 && (start >= head || !told) => {
                        let mut next = Part::new(begin, start);
                        next.untold = !told;
                        if at == self.head && !part.closed {
                            // The head is of the binlog that it is the middle of.
                            next.format = part.format.take();
                            part = next;
                        } else {
                            self.parts.push(std::mem::replace(&mut part, next));
                        }
                    }
                    // Garbage.
                    _ => break,
                }
            }
            part.end += len;
            if told && std::mem::take(&mut part.untold) {
                // Now it is known where it began.
                let Some(start) = u64::from(header.end).checked_sub(part.end) else { break };
                (part.start, part.end) = (start, header.end.into());
            }
            if let Some(event) = &event {
                if let Some(rotate) = Rotate::parse(event)? {
                    part.next_file = rotate.file.parse().ok();
                    part.closed = true;
                }
                if in_head {
                    self.before = transactions_before(event)?;
                }
            }
            part.closed |= header.kind == kind::STOP;
            at = begin + len;
        }
        if in_head {
            // Nothing but a head.
            return Ok(());
        }
        if !part.untold {
            self.parts.push(part);
        }
        Ok(())
    }

    /// The next event, as far as it has to be known here; `None` at the end, and where there is none.
    fn next(&self, at: u64, part: &Part) -> Result<Option<Next>> {
        let left = self.local.len.saturating_sub(at);
        let bytes = self.local.bytes(at, (HEADER_LEN + MAGIC.len()).min(left as usize))?;
        // Whole binlogs, one behind the other.
        let whole = bytes.strip_prefix(&MAGIC).and_then(Header::parse);
        let whole = whole.filter(|h| h.kind == kind::FORMAT_DESCRIPTION && h.end == 4 + h.len);
        let skip = if whole.is_some() { MAGIC.len() as u64 } else { 0 };
        let Some(header) = whole.or_else(|| Header::parse(&bytes)) else { return Ok(None) };
        let len = header.len as usize;
        if !(HEADER_LEN..=MAX_EVENT).contains(&len) || u64::from(header.len) > left - skip {
            return Ok(None);
        }
        let is_read =
            matches!(header.kind, kind::ROTATE | kind::FORMAT_DESCRIPTION | kind::PREVIOUS_GTIDS);
        let event = match is_read {
            true => {
                let checksum = self.checksum(part);
                match Event::check(self.local.bytes(at + skip, len)?, checksum) {
                    Ok(event) => Some(event),
                    Err(_) => return Ok(None),
                }
            }
            false => None,
        };
        Ok(Some(Next { header, skip, event }))
    }

    fn checksum(&self, part: &Part) -> Checksum {
        part.format.as_ref().unwrap_or(&self.local.format).checksum
    }

    /// Visits the events of a part that begin a transaction, with their places, until `visit` gives something.
    pub(super) fn find<T>(
        &self,
        part: &Part,
        visit: impl Fn(&Event, &Begin, u64) -> Option<T>,
    ) -> Result<Option<T>> {
        let mut position = part.start;
        if position == 0 {
            let format = part.format.as_ref().unwrap_or(&self.local.format);
            position = (MAGIC.len() + format.event.bytes().len()) as u64;
        }
        while position < part.end {
            let at = part.at + (position - part.start);
            let Some(next) = self.next(at, part)? else { break };
            let len = next.header.len as usize;
            if begins(next.header.kind) {
                let event = Event::check(self.local.bytes(at, len)?, self.checksum(part));
                // What is damaged is told when it is archived.
                let Ok(event) = event else { break };
                if let Some(begin) = Begin::parse(&event)?
                    && let Some(found) = visit(&event, &begin, position)
                {
                    return Ok(Some(found));
                }
            }
            position += len as u64;
        }
        Ok(None)
    }

    /// The first transaction that begins in a part, and where.
    pub(super) fn first(&self, part: &Part) -> Result<Option<(Begin, u64)>> {
        self.find(part, |_, begin, position| Some((begin.clone(), position)))
    }

    /// The names of the binlogs that the parts are of, where an event names one.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when one contradicts the others.
    pub(super) fn names(&self) -> Result<Option<Vec<BinlogFile>>> {
        let Some((at, next)) =
            self.parts.iter().enumerate().find_map(|(at, p)| Some((at, p.next_file.as_ref()?)))
        else {
            return Ok(None);
        };
        let wrong = || {
            Error::damaged(format!(
                "{} names binlogs that do not follow each other",
                self.local.path.display()
            ))
        };
        let mut first = next.clone();
        for _ in 0..=at {
            first = first.previous().ok_or_else(wrong)?;
        }
        self.names_from(&first).map(Some)
    }

    /// The names, beginning with this one.
    pub(super) fn names_from(&self, first: &BinlogFile) -> Result<Vec<BinlogFile>> {
        let mut names: Vec<BinlogFile> = Vec::new();
        for part in &self.parts {
            let counted = names.last().map_or_else(|| first.clone(), BinlogFile::next);
            let told = part.next_file.as_ref().and_then(BinlogFile::previous);
            let name = match told {
                // A binlog of which nothing was saved, for nothing was in it, lies between.
                Some(told) if told >= counted => told,
                Some(told) => {
                    return Err(Error::damaged(format!(
                        "{} names {told} where {counted} has to be",
                        self.local.path.display()
                    )));
                }
                None => counted,
            };
            names.push(name);
        }
        Ok(names)
    }
}

struct Next {
    header: Header,
    /// A magic number comes before it.
    skip: u64,
    /// Where it has to be looked at.
    event: Option<Event>,
}
