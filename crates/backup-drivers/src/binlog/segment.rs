//! Pieces of binlog files on their way to the archive, and back from it.

use backup_core::{
    BinlogRange, BinlogServer, ClusterName, Error, ErrorKind, Flavor, GtidSet, MariaDbBinlogState,
    Result, SegmentInfo,
};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::event::{Event, Events, Format, MAGIC};
use super::group::Part;
use super::gtid::{Begin, transactions_before};
use super::track::Tracker;

/// What has to be known of a piece before its events can be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) cluster: ClusterName,
    pub(super) server: BinlogServer,
    pub(super) seq: u64,
    pub(super) file: String,
    pub(super) start: u64,
    /// The file's first event, in hex.
    pub(super) format_description: String,
    pub(super) before: GtidSet,
    pub(super) state_before: Option<MariaDbBinlogState>,
    pub(super) begins_inside: bool,
    pub(super) gap_before: Option<String>,
}

impl Head {
    /// The head of a segment as it is archived.
    pub(super) fn of(info: &SegmentInfo) -> Self {
        Head {
            cluster: info.cluster.clone(),
            server: info.server.clone(),
            seq: info.seq,
            file: info.range.file.clone(),
            start: info.range.start,
            format_description: info.format_description.clone(),
            before: info.before.clone(),
            state_before: info.state_before.clone(),
            begins_inside: info.begins_inside,
            gap_before: info.gap_before.clone(),
        }
    }

    /// The first event of the file.
    pub(super) fn format(&self) -> Result<Format> {
        format_of(&self.format_description)
    }
}

/// Reads a FORMAT_DESCRIPTION in hex.
pub(super) fn format_of(hex: &str) -> Result<Format> {
    let digits = hex.as_bytes();
    let nibble = |b: u8| char::from(b).to_digit(16).map(|digit| digit as u8);
    let bytes: Option<Vec<u8>> =
        digits.chunks(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(*pair.get(1)?)?)).collect();
    let bytes = bytes.ok_or_else(|| Error::damaged("the description of a binlog is no hex"))?;
    Format::parse(Event::check(bytes.into(), super::event::Checksum::Crc32)?)
}

/// The inverse of [`format_of`].
pub(super) fn hex_of(format: &Format) -> String {
    format.event.bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A piece of a binlog file, to be read event by event. Every event is checked: its checksum, and that
/// it joins the one before.
#[derive(Debug)]
pub struct SegmentReader {
    tracker: Tracker,
    events: Events,
}

/// An event of a segment.
#[derive(Debug)]
pub struct Placed {
    /// The event.
    pub event: Event,
    /// What it is to the transactions around it.
    pub part: Part,
    /// Where it begins in its file.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
}

impl SegmentReader {
    /// Begins to read the content of a segment.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when it does not begin as it should.
    pub fn new(info: &SegmentInfo, content: Bytes) -> Result<Self> {
        SegmentReader::open(&Head::of(info), content)
    }

    pub(super) fn open(head: &Head, mut content: Bytes) -> Result<Self> {
        let format = head.format()?;
        let mut at = head.start;
        let tracker = if at == 0 {
            let start = [&MAGIC, &format.event.bytes()[..]].concat();
            if !content.starts_with(&start) {
                return Err(Error::damaged(format!(
                    "the piece of {} does not begin as the file does",
                    head.file
                )));
            }
            content = content.slice(start.len()..);
            at = start.len() as u64;
            Tracker::begin(format.clone())
        } else {
            let (before, state) = (head.before.clone(), head.state_before.clone());
            Tracker::resume(format.clone(), at, before, state, head.begins_inside)
        };
        Ok(SegmentReader { tracker, events: Events::new(content, at, format.checksum) })
    }

    /// The next event; `None` at the end, and where the rest is only the beginning of an event.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged).
    pub fn next_whole(&mut self) -> Result<Option<Placed>> {
        let start = self.events.position();
        let Some(event) = self.events.next_whole()? else { return Ok(None) };
        let part = self.tracker.feed(&event)?;
        Ok(Some(Placed { event, part, start, end: self.events.position() }))
    }

    /// As [`next_whole`](Self::next_whole), where a piece of an event is damage.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged).
    pub fn next_event(&mut self) -> Result<Option<Placed>> {
        match self.next_whole()? {
            None if !self.events.rest().is_empty() => Err(Error::damaged(format!(
                "the event at byte {} is cut off",
                self.events.position()
            ))),
            found => Ok(found),
        }
    }

    /// Where we are in the file.
    #[must_use]
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }
}

/// How far a piece of a file can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upto {
    /// All of it, or it is damaged.
    End,
    /// To the end of its last whole transaction: what follows was still being written.
    LastTransaction,
}

/// Reads a piece of a file and says what is known of it, and how many bytes of it that is. `None`
/// when there is no event in it that can be used.
pub(super) fn examine(
    head: &Head,
    content: &Bytes,
    upto: Upto,
    sha256: impl FnOnce(&[u8]) -> String,
    now: Timestamp,
) -> Result<Option<SegmentInfo>> {
    let format = head.format()?;
    let mut reader = match SegmentReader::open(head, content.clone()) {
        // A file whose first event was not written yet.
        Err(_)
            if upto == Upto::LastTransaction && content.len() < format.event.bytes().len() + 4 =>
        {
            return Ok(None);
        }
        reader => reader?,
    };
    let flavor = if format.is_mariadb() { Flavor::MariaDb } else { Flavor::MySql };
    let mut info = SegmentInfo {
        cluster: head.cluster.clone(),
        server: head.server.clone(),
        seq: head.seq,
        flavor,
        version: format.version.clone(),
        range: BinlogRange {
            file: head.file.clone(),
            file_started: format.started(),
            start: head.start,
            end: head.start,
        },
        format_description: head.format_description.clone(),
        before: head.before.clone(),
        after: reader.tracker.after().clone(),
        state_before: head.state_before.clone(),
        state_after: None,
        begins_inside: head.begins_inside,
        ends_inside: head.begins_inside,
        transactions: 0,
        anonymous: 0,
        first_time: None,
        last_time: None,
        closes_file: false,
        next_file: None,
        gap_before: head.gap_before.clone(),
        sha256: String::new(),
        archived_at: now,
    };
    let mut open = Counted::default();
    // Whether the file has said what came before it.
    let mut told = head.start != 0;
    let mut usable = if head.start == 0 { reader.tracker.position() } else { head.start };
    loop {
        let placed = match upto {
            Upto::End => reader.next_event()?,
            // What is damaged there was being written, too.
            Upto::LastTransaction => match reader.next_whole() {
                Err(e) if e.kind() == ErrorKind::Damaged => None,
                placed => placed?,
            },
        };
        let Some(Placed { event, part, .. }) = placed else { break };
        if let Some(before) = transactions_before(&event)? {
            told = true;
            info.before = before;
            info.state_before = reader.tracker.state().cloned();
        }
        if let Part::Begin(begin) = &part {
            open.add(begin);
        }
        if !reader.tracker.is_inside() || upto == Upto::End {
            usable = reader.tracker.position();
            open.move_to(&mut info);
        }
    }
    info.after = reader.tracker.after().clone();
    info.state_after = reader.tracker.state().cloned();
    info.ends_inside = upto == Upto::End && reader.tracker.is_inside();
    info.closes_file = reader.tracker.is_closed();
    info.next_file = reader.tracker.next_file().map(str::to_owned);
    info.range.end = usable;
    // The very start of a file knows nothing of what came before: as a segment it would say that
    // nothing did.
    let too_short = upto == Upto::LastTransaction && !told && info.transactions == 0;
    if usable == head.start || too_short {
        return Ok(None);
    }
    let len = usize::try_from(info.bytes())
        .map_err(|_| Error::internal("a piece of a binlog is too long for memory"))?;
    info.sha256 = sha256(&content[..len]);
    Ok(Some(info))
}

/// Transactions that are not yet known to be whole.
#[derive(Default)]
struct Counted {
    transactions: u64,
    anonymous: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl Counted {
    fn add(&mut self, begin: &Begin) {
        self.transactions += 1;
        self.anonymous += u64::from(begin.gtid.is_none());
        self.first = Some(self.first.map_or(begin.time, |first| first.min(begin.time)));
        self.last = Some(self.last.map_or(begin.time, |last| last.max(begin.time)));
    }

    fn move_to(&mut self, info: &mut SegmentInfo) {
        let counted = std::mem::take(self);
        info.transactions += counted.transactions;
        info.anonymous += counted.anonymous;
        let either = |a: Option<Timestamp>,
                      b: Option<Timestamp>,
                      pick: fn(Timestamp, Timestamp) -> Timestamp| {
            match (a, b) {
                (Some(a), Some(b)) => Some(pick(a, b)),
                (a, b) => a.or(b),
            }
        };
        info.first_time = either(info.first_time, counted.first, Timestamp::min);
        info.last_time = either(info.last_time, counted.last, Timestamp::max);
    }
}

/// The SHA-256 of bytes as hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the content of a segment and compares what is in it with what is known of it.
///
/// # Errors
/// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when one does not fit the other.
pub fn check_segment(info: &SegmentInfo, content: &Bytes) -> Result<()> {
    let found = examine(&Head::of(info), content, Upto::End, sha256, info.archived_at)?;
    if found.as_ref() == Some(info) {
        return Ok(());
    }
    Err(Error::damaged(format!("segment {} holds other events than it says", info.name())))
}
