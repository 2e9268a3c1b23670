//! Binlogs applied over a client connection, for targets that cannot replicate from us: statements as
//! they were written, under what they were written under, and changes of rows as BINLOG statements.
//!
//! One transaction comes after the other, so this is much slower than a replica. Where the account may,
//! transactions keep their GTIDs. What was applied is told by `gtid_executed`, else by a [mark].
//!
//! [mark]: mark

mod aside;
mod context;
pub(super) mod mark;
mod rows;
mod statement;
mod variable;
mod xa;

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use backup_core::{Context, Error, ErrorKind, Flavor, Gtid, Result, SegmentStore};
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use jiff::Timestamp;

use super::super::event::{Checksum, Event, Format, HEADER_LEN, Header, kind};
use super::super::gtid::{Begin, begins};
use super::super::payload;
use super::super::read::Reader;
use super::super::route::Route;
use super::super::rows::change;
use super::events::Heard;
use super::groups::{From, Groups, Step};
use super::remedy::{FREE_SPACE, is_full, remedy};
use super::target::Target;
use aside::Aside;
pub(super) use context::{Statement, Writer, needs_no_setting};
use mark::Mark;
use xa::xid;

/// Flag of an event: who does not know it may leave it out.
const IGNORABLE: u16 = 0x80;
/// Flags of MariaDB's GTID event.
const STANDALONE: u8 = 1;
const GROUP_COMMIT: u8 = 2;
const PREPARED_XA: u8 = 0x40;
const COMPLETED_XA: u8 = 0x80;

/// The transaction that is applied now.
#[derive(Debug, Default)]
struct Current {
    gtid: Option<Gtid>,
    file: String,
    start: u64,
    /// MySQL: its GTID, as long as the session is not told. Once it is, even a question uses it up.
    next: Option<String>,
    /// MariaDB: the distributed transaction that it prepares.
    xid: Option<String>,
    /// A statement that committed by itself was marked as begun.
    marked: bool,
    /// There is a transaction at the server.
    open: bool,
    /// When it was committed at its source.
    time: Timestamp,
}

/// One run.
pub(super) struct Direct<'a> {
    cx: &'a Context,
    target: &'a mut Target,
    route: Arc<Route>,
    flavor: Flavor,
    /// Transactions keep their GTIDs.
    keeps: bool,
    mark: Option<Mark>,
    current: Current,
    /// What the session was set to last.
    settings: Vec<String>,
    database: Vec<u8>,
    /// The file whose format the session knows.
    known_format: Option<usize>,
    file: usize,
    maps: Vec<Event>,
    rows: Vec<Event>,
    /// Files of LOAD DATA, by number.
    loads: HashMap<u32, std::fs::File>,
    collations: HashMap<u32, (String, String)>,
    /// The longest statement that the session takes, in bytes.
    longest: u64,
    /// What was restored is written down at a MySQL that cannot be told it.
    noted: bool,
    /// What statements said of scheduled events.
    heard: Heard,
    /// A session for what is no part of what is applied.
    aside: Aside,
}

impl<'a> Direct<'a> {
    /// Looks what the session may do. `again`: whether a statement that was begun by an earlier run is
    /// begun again.
    pub(super) async fn begin(
        cx: &'a Context,
        target: &'a mut Target,
        route: Arc<Route>,
        again: bool,
        heard: Heard,
    ) -> Result<Direct<'a>> {
        let flavor = target.facts.flavor;
        let mut direct = Direct {
            cx,
            target,
            route,
            flavor,
            keeps: false,
            mark: None,
            current: Current::default(),
            settings: Vec::new(),
            database: Vec::new(),
            known_format: None,
            file: 0,
            maps: Vec::new(),
            rows: Vec::new(),
            loads: HashMap::new(),
            collations: HashMap::new(),
            longest: u64::MAX,
            noted: false,
            heard,
            aside: Aside::default(),
        };
        lock(direct.target).await?;
        direct.keep_history().await;
        let longest = direct.target.value("SELECT @@SESSION.max_allowed_packet").await?;
        direct.longest = longest.parse().unwrap_or(u64::MAX);
        direct.keeps = direct.may_keep().await?;
        if flavor == Flavor::MySql && !direct.keeps && direct.route.applied.is_some() {
            let options = &direct.target.options;
            return Err(Error::new(
                ErrorKind::Privilege,
                format!(
                    "{options}: the account may not set GTIDs, without which BINLOG statements fail"
                ),
            )
            .with_remedy("grant REPLICATION_APPLIER, and see that gtid_mode is ON"));
        }
        let by_gtid = flavor == Flavor::MySql && direct.keeps;
        if by_gtid
            && let Some(applied) = direct.route.applied.clone()
            && !applied.is_subset(&direct.target.executed().await?)?
        {
            mark::note(direct.target, &applied).await?;
            direct.noted = true;
        }
        if !by_gtid {
            direct.mark = Some(Mark::begin(direct.target, &direct.route, again).await?);
        }
        if !direct.keeps && direct.route.applied.is_some() {
            cx.note("the account may not set GTIDs: transactions get new ones at the target");
        }
        Ok(direct)
    }

    /// What the events of the current file were written by.
    fn writer(&self) -> Writer {
        Writer::of(&self.route.files[self.file].format)
    }

    /// Tables with a history are altered as an applier does it: what the source was set to is in no binlog.
    async fn keep_history(&mut self) {
        if self.flavor == Flavor::MariaDb {
            // A server without such tables has nothing to set.
            let sql = "SET SESSION system_versioning_alter_history = KEEP";
            let _ = self.target.session.run(sql).await;
        }
    }

    /// Whether the session may choose the GTIDs of its transactions.
    async fn may_keep(&mut self) -> Result<bool> {
        if self.route.applied.is_none() {
            return Ok(false);
        }
        if self.flavor == Flavor::MySql
            && self.target.value("SELECT @@GLOBAL.gtid_mode").await? != "ON"
        {
            return Ok(false);
        }
        let session = &mut self.target.session;
        // Who may set it to what it is may set it.
        let tried = match self.flavor {
            Flavor::MySql => session.run("SET gtid_next = 'AUTOMATIC'").await,
            Flavor::MariaDb => session.run("SET SESSION server_id = @@GLOBAL.server_id").await,
        };
        match tried {
            Ok(_) => Ok(true),
            Err(e) if e.server().is_some() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Applies everything. Gives the length in bytes of what was applied, and what needs a look.
    pub(super) async fn run(
        &mut self,
        store: Arc<dyn SegmentStore>,
    ) -> Result<(u64, Option<String>)> {
        // Temporary tables of the source's sessions, and transactions that are prepared, as a replica
        // has them. Not everybody may.
        if self.flavor == Flavor::MySql {
            let _ = self.target.session.run("SET pseudo_replica_mode = ON").await;
        }
        let from = match (&self.mark, &self.route.applied) {
            (Some(mark), Some(_)) => From::Lacking(mark.applied.clone()),
            (Some(mark), None) => mark.place(&self.route),
            // What was restored may not be among what the server says.
            (None, applied) => {
                let executed = self.target.executed().await?;
                From::Lacking(match applied {
                    Some(applied) => executed.union(applied)?,
                    None => executed,
                })
            }
        };
        let route = Arc::clone(&self.route);
        let mut groups = Groups::new(self.cx, store, Arc::clone(&route), from);
        let mut applied = 0;
        let mut at = 0;
        loop {
            self.cx.check()?;
            let step = groups.next().await?;
            let passed = groups.take_passed();
            self.cx.progress().expect_less(passed.bytes, passed.transactions);
            match step {
                Step::Seek { file, position } => (self.file, at) = (file, position),
                Step::Event { event, last, .. } => {
                    let len = event.bytes().len() as u64;
                    if begins(event.kind()) {
                        self.current
                            .file
                            .clone_from(&route.files[self.file].segments[0].range.file);
                        self.current.start = at;
                    }
                    at += len;
                    if let Err(e) = self.event(&event).await {
                        self.did_not_run(&e).await;
                        return Err(self.explain(e));
                    }
                    if last {
                        self.end_group().await.map_err(|e| self.explain(e))?;
                        self.cx.progress().add_transactions(1, self.current.time);
                    }
                    applied += len;
                    self.cx.progress().add_bytes(len);
                }
                Step::End => break,
            }
        }
        Ok((applied, self.finish().await?))
    }

    /// Takes the mark of a statement back that the server refused.
    async fn did_not_run(&mut self, error: &Error) {
        if error.server().is_some()
            && self.current.marked
            && let Some(mark) = &self.mark
        {
            // Where it stays, somebody is asked.
            let _ = mark.running(self.target, "").await;
        }
    }

    fn explain(&self, error: Error) -> Error {
        if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Connect) {
            return error;
        }
        let Current { gtid, file, start, .. } = &self.current;
        let name = gtid.as_ref().map(|gtid| format!("{gtid}, ")).unwrap_or_default();
        let report = error.chain();
        let number = error.server().map_or(0, |server| server.code.into());
        let full = is_full(number, &report);
        Error::new(
            match error.kind() {
                ErrorKind::Privilege => ErrorKind::Privilege,
                _ if full => ErrorKind::Space,
                _ => ErrorKind::Target,
            },
            format!(
                "{} cannot apply the binlog ({name}{file} from {start}): {report}",
                self.target.options
            ),
        )
        .with_remedy(match number {
            _ if full => FREE_SPACE.to_owned(),
            // It says itself what to do.
            0 if !error.remedy().is_empty() => {
                format!(
                    "{}; everything before it is applied, and `holdfast binlog apply` goes on",
                    error.remedy()
                )
            }
            number => remedy(number).to_owned(),
        })
        .with_source(error)
    }

    async fn event(&mut self, event: &Event) -> Result<()> {
        if begins(event.kind()) {
            return self.group(event).await;
        }
        if event.kind() == kind::TRANSACTION_PAYLOAD {
            let mut inner = Vec::new();
            let read = payload::events(event.body(), |header, body| {
                inner.push((*header, Bytes::copy_from_slice(body)));
                Some(())
            });
            read.ok_or_else(|| {
                Error::new(
                    ErrorKind::Target,
                    "a compressed transaction is larger than 64 MiB, or cannot be read",
                )
                .with_remedy("let the target apply it as a replica: --apply replica")
            })?;
            for (header, body) in inner {
                self.one(&header, &body).await?;
            }
            return Ok(());
        }
        self.one(event.header(), event.body()).await
    }

    /// The beginning of a transaction.
    async fn group(&mut self, event: &Event) -> Result<()> {
        let Some(begin) = Begin::parse(event)? else { return Ok(()) };
        self.tell_format().await?;
        self.current.gtid.clone_from(&begin.gtid);
        self.current.time = begin.time;
        (self.current.xid, self.current.next) = (None, None);
        (self.current.marked, self.current.open) = (false, false);
        match &begin.gtid {
            Some(Gtid::MySql(gtid)) if self.keeps => self.current.next = Some(gtid.to_string()),
            Some(Gtid::MariaDb(gtid)) => {
                let body = event.body();
                let flags = body.get(12).copied().unwrap_or_default();
                if flags & PREPARED_XA != 0 {
                    let at = if flags & GROUP_COMMIT != 0 { 21 } else { 13 };
                    let mut rest = Reader::new(body.get(at..).unwrap_or_default());
                    let xid = xid(&mut rest, true);
                    self.current.xid =
                        Some(xid.ok_or_else(|| Error::damaged("a GTID event has no XA name"))?);
                }
                // What is prepared would keep the mark locked.
                let alone = flags & (STANDALONE | COMPLETED_XA) != 0;
                if alone || self.current.xid.is_some() {
                    self.begin_alone().await?;
                }
                if self.keeps {
                    let sql = format!(
                        "SET SESSION gtid_domain_id = {}, SESSION server_id = {}, SESSION gtid_seq_no \
                         = {}",
                        gtid.domain, gtid.server, gtid.seq
                    );
                    self.target.session.run(&sql).await?;
                }
                if !alone {
                    let sql = match &self.current.xid {
                        Some(xid) => format!("XA START {xid}"),
                        None => "START TRANSACTION".to_owned(),
                    };
                    self.target.session.run(&sql).await?;
                    self.current.open = true;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Tells the session how the events of this file look. MySQL takes that between transactions only.
    async fn tell_format(&mut self) -> Result<()> {
        if self.known_format == Some(self.file) {
            return Ok(());
        }
        if self.keeps && self.flavor == Flavor::MySql {
            // The GTID of the transaction before is used up, and nothing else may be run under it.
            self.target.session.run("SET gtid_next = 'AUTOMATIC'").await?;
        }
        let format = unchecked(&self.route.files[self.file].format);
        let sql = format!("BINLOG '{}'", BASE64_STANDARD.encode(format.bytes()));
        self.target.session.run(&sql).await?;
        self.known_format = Some(self.file);
        Ok(())
    }

    /// Before a statement that commits by itself: after a crash nobody could tell whether it ran.
    async fn begin_alone(&mut self) -> Result<()> {
        if self.mark.is_none() || self.current.marked {
            return Ok(());
        }
        self.current.marked = true;
        self.own_numbers().await?;
        let name = name_of(&self.current);
        match &self.mark {
            Some(mark) => mark.running(self.target, &name).await,
            None => Ok(()),
        }
    }

    /// Marks the transaction as applied, inside it.
    async fn mark_applied(&mut self) -> Result<()> {
        let at = (self.file, self.current.start);
        if let Some(mark) = &mut self.mark {
            mark.applied(self.target, self.current.gtid.as_ref(), at).await?;
        }
        Ok(())
    }

    async fn end_group(&mut self) -> Result<()> {
        self.flush().await?;
        if self.current.marked {
            self.own_numbers().await?;
            self.mark_applied().await?;
        }
        self.loads.clear();
        self.current.open = false;
        Ok(())
    }

    /// What is ours gets a number of the target.
    async fn own_numbers(&mut self) -> Result<()> {
        if !self.keeps {
            return Ok(());
        }
        let sql = match self.flavor {
            Flavor::MySql => "SET gtid_next = 'AUTOMATIC'",
            Flavor::MariaDb => {
                "SET SESSION gtid_domain_id = @@GLOBAL.gtid_domain_id, SESSION server_id = \
                 @@GLOBAL.server_id"
            }
        };
        self.target.session.run(sql).await.map(drop)
    }

    /// The end. Gives what needs a look.
    async fn finish(&mut self) -> Result<Option<String>> {
        self.own_numbers().await?;
        match self.mark.take() {
            Some(mark) => mark.end(self.target, &self.route).await,
            None => Ok(self.noted.then(mark::stays)),
        }
    }

    /// An event inside a transaction.
    async fn one(&mut self, header: &Header, body: &[u8]) -> Result<()> {
        let damaged = || Error::damaged(format!("an event of type {} cannot be read", header.kind));
        match header.kind {
            kind::TABLE_MAP => self.map(header, body).await?,
            _ if change(header.kind, body).is_some() => self.change(header, body).await?,
            kind::QUERY | kind::MARIADB_QUERY_COMPRESSED => {
                self.flush().await?;
                let compressed = header.kind == kind::MARIADB_QUERY_COMPRESSED;
                let (statement, _) = Statement::read(self.writer(), header, body, 0, compressed)?;
                self.query(header, &statement).await?;
            }
            kind::XID => {
                self.flush().await?;
                self.commit().await?;
            }
            kind::XA_PREPARE => {
                self.flush().await?;
                self.xa_prepare(body).await?;
            }
            kind::BEGIN_LOAD_QUERY | kind::APPEND_BLOCK => {
                let mut reader = Reader::new(body);
                let id = reader.u32().ok_or_else(damaged)?;
                let write = |file: &mut std::fs::File| file.write_all(reader.rest());
                let failed = |e| {
                    backup_core::io_error(e, ErrorKind::Target, "cannot keep a file of LOAD DATA")
                };
                if header.kind == kind::BEGIN_LOAD_QUERY {
                    self.loads.insert(id, tempfile::tempfile().map_err(failed)?);
                }
                write(self.loads.get_mut(&id).ok_or_else(damaged)?).map_err(failed)?;
            }
            kind::EXECUTE_LOAD_QUERY => self.load(header, body).await?,
            kind::INTVAR => {
                let mut reader = Reader::new(body);
                let (which, value) = (reader.u8(), reader.u64());
                let (which, value) = which.zip(value).ok_or_else(damaged)?;
                let name = if which == 1 { "last_insert_id" } else { "insert_id" };
                self.target.session.run(&format!("SET {name} = {value}")).await?;
            }
            kind::RAND => {
                let mut reader = Reader::new(body);
                let (a, b) = reader.u64().zip(reader.u64()).ok_or_else(damaged)?;
                let sql = format!("SET rand_seed1 = {a}, rand_seed2 = {b}");
                self.target.session.run(&sql).await?;
            }
            kind::USER_VAR => {
                let target = &mut *self.target;
                variable::set(target, body, &mut self.collations).await?;
            }
            kind::INCIDENT => {
                return Err(Error::new(
                    ErrorKind::Target,
                    "the server that wrote the binlog lost changes here (INCIDENT)",
                ));
            }
            // What the rows were made by, and what only groups of servers need.
            kind::ROWS_QUERY | kind::MARIADB_ANNOTATE_ROWS | 36 | 37 => {}
            _ if header.flags & IGNORABLE != 0 => {}
            other => {
                return Err(Error::new(
                    ErrorKind::Target,
                    format!("events of type {other} cannot be applied over a client connection"),
                )
                .with_remedy("let the target apply them as a replica: --apply replica"));
            }
        }
        Ok(())
    }

    /// Fails where the server would cut the connection, as it does at a statement that is too long for it.
    fn check_fits(&self, statement: usize) -> Result<()> {
        let len = statement as u64 + 1;
        if len <= self.longest {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Target,
            format!(
                "a statement of {len} bytes is longer than the max_allowed_packet of the target, {}",
                self.longest
            ),
        )
        .with_remedy(
            "raise it there (SET GLOBAL max_allowed_packet = 1073741824, or let the account have \
             SYSTEM_VARIABLES_ADMIN, on MariaDB SUPER, so that holdfast may), or let the target apply as a \
             replica (--apply replica)",
        ))
    }

    /// Gives the next transaction of a MySQL session its GTID.
    async fn set_gtid(&mut self) -> Result<()> {
        match self.current.next.take() {
            Some(gtid) => {
                self.target.session.run(&format!("SET gtid_next = '{gtid}'")).await.map(drop)
            }
            None => Ok(()),
        }
    }

    async fn commit(&mut self) -> Result<()> {
        if !self.current.marked {
            self.mark_applied().await?;
        }
        self.current.open = false;
        self.target.session.run("COMMIT").await.map(drop)
    }
}

/// Waits until no other session applies binlogs: that of a run that was killed may be at it yet. It goes
/// with the session.
pub(super) async fn lock(target: &mut Target) -> Result<()> {
    match target.value("SELECT GET_LOCK('holdfast_replay', 60)").await?.as_str() {
        "1" => Ok(()),
        _ => Err(Error::new(
            ErrorKind::Busy,
            format!("another run applies binlogs to {}", target.options),
        )
        .with_remedy("wait until it has ended, or end it")),
    }
}

/// A FORMAT_DESCRIPTION that says that there are no checksums.
fn unchecked(format: &Format) -> Event {
    let event = format.to_send(false);
    let mut body = event.body().to_vec();
    if let Some(algorithm) = body.last_mut() {
        *algorithm = 0;
    }
    debug_assert!(event.bytes().len() > HEADER_LEN, "it was read before");
    Event::build(*event.header(), &body, Checksum::Crc32)
}

fn name_of(current: &Current) -> String {
    match &current.gtid {
        Some(gtid) => gtid.to_string(),
        None => format!("{}:{}", current.file, current.start),
    }
}
