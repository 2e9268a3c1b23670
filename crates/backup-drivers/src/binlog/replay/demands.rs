//! What the statements of a route need of the account that runs them over a client connection, looked for
//! before the first of them is run.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use backup_core::{Context, Error, ErrorKind, Flavor, Result, SegmentStore};
use futures::StreamExt;

use super::super::ahead::read_segments;
use super::super::event::{Header, kind};
use super::super::group::Part;
use super::super::payload;
use super::super::route::Route;
use super::super::rows::{Change, TableMap, change};
use super::super::segment::{Placed, SegmentReader};
use super::direct::{Statement, Writer};
use super::told;
use crate::logical::{AccountName, Code, Demand, Dialect, Place, TableName};

/// Flag of an event: it depends on its connection (temporary tables).
const THREAD_SPECIFIC: u16 = 0x4;

/// What they need, each with the first transaction that does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Demands {
    /// Privileges, and where.
    pub(super) privileges: BTreeMap<(&'static str, Place), String>,
    /// The tables of a MySQL that changes of rows are of, by the numbers that they have now.
    maps: HashMap<u64, TableName>,
    /// Temporary tables that the statements create.
    temporary: BTreeSet<Place>,
    /// In whose name code is to run.
    pub(super) definers: BTreeMap<AccountName, String>,
    /// Functions and triggers.
    pub(super) code: BTreeMap<Code, String>,
    /// Accounts that the statements create.
    pub(super) accounts: BTreeSet<AccountName>,
    /// What sessions have to be set to: `name = value`.
    pub(super) settings: BTreeMap<String, String>,
    /// A file is loaded by a statement.
    pub(super) loads: Option<String>,
    /// A statement has the server run an event.
    pub(super) events: Option<String>,
}

impl Demands {
    /// Looks through everything that the route applies.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] for a damaged segment; [`ErrorKind::Target`] for what cannot be applied over a client
    /// connection at all; what the store fails with.
    pub(super) async fn of(cx: &Context, store: &dyn SegmentStore, route: &Route) -> Result<Self> {
        let mut demands = Demands::default();
        let mut reads = read_segments(cx, store, route.segments());
        let (mut open, mut at) = (None, 0);
        while let Some(((number, file), segment, content)) = reads.next().await {
            if number != at {
                (open, at) = (None, number);
            }
            let writer = Writer::of(&file.format);
            let mut reader = SegmentReader::new(segment, content?)?;
            while let Some(Placed { event, part, start, .. }) = reader.next_event()? {
                if let Part::Begin(begin) = &part {
                    let skipped = begin.gtid.as_ref().is_some_and(|g| route.skip.contains(g));
                    let served = file.serves(begin, start, route.applied.as_ref())?;
                    open = (served && !skipped).then(|| match &begin.gtid {
                        Some(gtid) => gtid.to_string(),
                        None => format!("{}:{start}", segment.range.file),
                    });
                }
                let Some(name) = &open else { continue };
                if event.kind() != kind::TRANSACTION_PAYLOAD {
                    demands.event(writer, event.header(), event.body(), name)?;
                    continue;
                }
                let mut failed = None;
                let read = payload::events(event.body(), |header, body| {
                    failed = demands.event(writer, header, body, name).err();
                    failed.is_none().then_some(())
                });
                match failed {
                    Some(e) => return Err(e),
                    None if read.is_none() => return Err(too_large(name)),
                    None => {}
                }
            }
        }
        Ok(demands)
    }

    fn event(&mut self, writer: Writer, header: &Header, body: &[u8], first: &str) -> Result<()> {
        // A MariaDB asks no more of who may run BINLOG statements.
        if writer.flavor() == Flavor::MySql
            && let Some((change, id)) = change(header.kind, body)
        {
            let name = match change {
                Change::Insert => "INSERT",
                Change::Update => "UPDATE",
                Change::Delete => "DELETE",
            };
            if let Some(table) = self.maps.get(&id) {
                let place = Place::Table(table.clone());
                self.privileges.entry((name, place)).or_insert_with(|| first.to_owned());
            }
            return Ok(());
        }
        let statement = match header.kind {
            kind::TABLE_MAP => {
                if let Some(TableMap { id, database, table, .. }) = TableMap::parse(body) {
                    self.maps.insert(id, TableName { database, table });
                }
                return Ok(());
            }
            kind::QUERY => Statement::read(writer, header, body, 0, false)?.0,
            kind::MARIADB_QUERY_COMPRESSED => Statement::read(writer, header, body, 0, true)?.0,
            kind::EXECUTE_LOAD_QUERY => {
                self.loads.get_or_insert_with(|| first.to_owned());
                Statement::read(writer, header, body, 13, false)?.0
            }
            _ => return Ok(()),
        };
        self.statement(header, &statement, first);
        Ok(())
    }

    fn statement(&mut self, header: &Header, statement: &Statement, name: &str) {
        // Those that only begin and end transactions are not run as they are.
        let frame = ["BEGIN", "COMMIT"];
        if frame.iter().any(|words| statement.sql.eq_ignore_ascii_case(words.as_bytes())) {
            return;
        }
        let note = || name.to_owned();
        let mut mode = 0;
        for setting in &statement.settings {
            if let Some(bits) = setting.strip_prefix("sql_mode = ") {
                mode = bits.parse().unwrap_or(0);
            }
            // One time is like the other.
            let is_known = setting.starts_with("timestamp = ")
                && self.settings.keys().any(|known| known.starts_with("timestamp = "));
            if !is_known && !self.settings.contains_key(setting) {
                self.settings.insert(setting.clone(), note());
            }
        }
        let thread = "pseudo_thread_id = ";
        if header.flags & THREAD_SPECIFIC != 0
            && !self.settings.keys().any(|known| known.starts_with(thread))
        {
            self.settings.insert(format!("{thread}{}", statement.thread), note());
        }
        let sql = String::from_utf8_lossy(&statement.sql);
        let database = String::from_utf8_lossy(&statement.database);
        if told::switches_on(&sql, &database) {
            self.events.get_or_insert_with(note);
        }
        let demand = Demand::of(&sql, &database, Dialect::of_bits(mode));
        self.temporary.extend(demand.temporary);
        for privilege in demand.privileges {
            if !self.temporary.contains(&privilege.1) {
                self.privileges.entry(privilege).or_insert_with(note);
            }
        }
        if let Some(definer) = demand.definer {
            self.definers.entry(definer).or_insert_with(note);
        }
        if let Some(code) = demand.code {
            self.code.entry(code).or_insert_with(note);
        }
        self.accounts.extend(demand.account);
    }
}

fn too_large(name: &str) -> Error {
    Error::new(
        ErrorKind::Target,
        format!(
            "the compressed transaction {name} is larger than 64 MiB, or cannot be read, and cannot be applied \
             over a client connection"
        ),
    )
    .with_remedy("let the target apply it as a replica: --apply replica")
}
