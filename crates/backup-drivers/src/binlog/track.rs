//! Following a binlog file event by event: where it is, what it holds up to there, and whether every
//! event joins the one before it.

use backup_core::{Error, Flavor, Gtid, GtidSet, MariaDbBinlogState, Result};

use super::body::Rotate;
use super::event::{Event, Format, MAGIC, kind};
use super::group::{Groups, Part};
use super::gtid::{Begin, state_before, transactions_before};

/// Follows one file.
#[derive(Debug, Clone)]
pub struct Tracker {
    format: Format,
    position: u64,
    groups: Groups,
    /// The transaction that is open.
    open: Option<Begin>,
    after: GtidSet,
    /// MariaDB: the same, by server.
    state: Option<MariaDbBinlogState>,
    /// There was one, open or ended.
    begun: bool,
    /// The file is at its end.
    closed: bool,
    next_file: Option<String>,
}

impl Tracker {
    /// Begins a file, with its FORMAT_DESCRIPTION; `at` is where that ends in the file.
    #[must_use]
    pub fn begin(format: Format) -> Self {
        let position = (MAGIC.len() + format.event.bytes().len()) as u64;
        let flavor = if format.is_mariadb() { Flavor::MariaDb } else { Flavor::MySql };
        Tracker {
            format,
            position,
            groups: Groups::default(),
            open: None,
            begun: false,
            after: GtidSet::empty(flavor),
            state: (flavor == Flavor::MariaDb).then(MariaDbBinlogState::default),
            closed: false,
            next_file: None,
        }
    }

    /// Goes on at byte `position` of a file, where `after` is what the server's binlogs hold up to
    /// there.
    #[must_use]
    pub fn resume(
        format: Format,
        position: u64,
        after: GtidSet,
        state: Option<MariaDbBinlogState>,
        inside: bool,
    ) -> Self {
        let groups = if inside { Groups::inside() } else { Groups::default() };
        Tracker { position, after, state, groups, ..Tracker::begin(format) }
    }

    /// The file's first event.
    #[must_use]
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// The byte after the last event.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The transactions that the server's binlogs held up to here: those that ended.
    #[must_use]
    pub fn after(&self) -> &GtidSet {
        &self.after
    }

    /// MariaDB: the last of those of every server.
    #[must_use]
    pub fn state(&self) -> Option<&MariaDbBinlogState> {
        self.state.as_ref()
    }

    /// Whether a transaction is open.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.groups.is_inside()
    }

    /// Whether the server wrote nothing more into the file.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The file that the server went on with.
    #[must_use]
    pub fn next_file(&self) -> Option<&str> {
        self.next_file.as_deref()
    }

    /// Whether a transaction came since we began to look.
    #[must_use]
    pub fn has_transactions(&self) -> bool {
        self.begun
    }

    /// Takes the next event of the file.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when the event does not join the last
    /// one, or cannot be read.
    pub fn feed(&mut self, event: &Event) -> Result<Part> {
        if self.closed {
            return Err(Error::damaged("an event comes after the one that ends its file"));
        }
        let end = self.position + event.bytes().len() as u64;
        // MariaDB computes checksums before it knows the place (11.4 and later): events inside a
        // transaction do not tell it then. Those around it do.
        let untold = event.header().end == 0 && self.format.is_mariadb();
        if event.header().end != end as u32 && !untold {
            return Err(Error::damaged(format!(
                "the event at byte {} says that it ends at {}, not at {end}",
                self.position,
                event.header().end
            )));
        }
        let part = self.groups.feed(event)?;
        if let Some(before) = transactions_before(event)? {
            self.after = before;
        }
        if let Some(state) = state_before(event)? {
            self.state = Some(state);
        }
        match &part {
            Part::Begin(begin) => {
                self.begun = true;
                self.open = Some(begin.clone());
            }
            Part::End => {
                if let Some(Begin { gtid: Some(gtid), .. }) = self.open.take() {
                    self.after.insert(&gtid)?;
                    if let (Some(state), Gtid::MariaDb(gtid)) = (&mut self.state, &gtid) {
                        state.update(*gtid);
                    }
                }
            }
            Part::Inside => {}
            Part::Between => self.open = None,
        }
        if let Some(rotate) = Rotate::parse(event)? {
            self.closed = true;
            self.next_file = Some(rotate.file);
        }
        // MySQL writes a STOP when it shuts down; nothing follows it.
        self.closed |= event.kind() == kind::STOP;
        self.position = end;
        Ok(part)
    }

    /// Passes bytes that the server keeps to itself: the event that starts encryption.
    pub(super) fn pass(&mut self, len: u64) {
        self.position += len;
    }
}
