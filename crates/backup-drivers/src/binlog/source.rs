//! A server as a source of binlogs: who it is, what it has, and where to go on.

use std::cmp::Ordering;

use backup_core::{
    BinlogFile, BinlogServer, Error, ErrorKind, Flavor, GtidDifference, GtidSet,
    MariaDbBinlogState, MariaDbGtid, MySqlGtidSet, Position, Result, SegmentInfo, Uuid,
};

use super::dump::{Dump, DumpOptions, Sent};
use super::group::Part;
use super::gtid::{state_before, transactions_before};
use crate::connect::{ConnectOptions, Session};
use crate::logical::inventory;

/// What a server says of its binlogs.
#[derive(Debug, Clone)]
pub struct BinlogSource {
    /// Who it is.
    pub server: BinlogServer,
    /// MySQL or MariaDB.
    pub flavor: Flavor,
    /// Its version.
    pub version: String,
    /// `@@server_id`.
    pub server_id: u64,
    /// Whether its transactions have GTIDs.
    pub has_gtids: bool,
    /// The transactions it has executed.
    pub executed: GtidSet,
    /// MariaDB: the last one of every server in its binlogs.
    pub state: Option<MariaDbBinlogState>,
    /// MariaDB: the last ones that it got as a replica.
    pub replicated: GtidSet,
    /// Its binlogs with their lengths, oldest first.
    pub files: Vec<(String, u64)>,
}

impl BinlogSource {
    /// Asks a server.
    ///
    /// # Errors
    /// As [`Session::query_rows`]; [`ErrorKind::Source`] when it writes no binlog.
    pub async fn of(session: &mut Session) -> Result<Self> {
        let facts = inventory::server(session.conn()).await?;
        let server = match facts.flavor {
            Flavor::MySql => {
                let uuid = facts.server_uuid.as_deref().unwrap_or_default();
                let uuid: Uuid = uuid.parse().map_err(|_| {
                    Error::new(ErrorKind::Source, "the server does not tell its server_uuid")
                })?;
                BinlogServer::of_uuid(uuid)
            }
            Flavor::MariaDb => BinlogServer::of_id(facts.server_id.try_into().unwrap_or_default()),
        };
        let rows: Vec<mysql_async::Row> =
            session.query_rows("SHOW BINARY LOGS").await.map_err(|e| {
                // ER_NO_BINARY_LOGGING
                match e.server() {
                    Some(said) if said.code == 1381 => {
                        e.with_kind(ErrorKind::Source).with_remedy("start the server with log_bin")
                    }
                    _ => e,
                }
            })?;
        let file = |row: &mysql_async::Row| {
            let name = row.get_opt::<String, _>(0)?.ok()?;
            Some((name, row.get_opt::<u64, _>(1)?.ok()?))
        };
        let files: Vec<_> = rows.iter().filter_map(file).collect();
        if files.iter().any(|(name, _)| name.ends_with(".ibb")) {
            return Err(Error::new(
                ErrorKind::Source,
                "the server keeps its binlog in InnoDB, which cannot be archived yet",
            )
            .with_remedy("set binlog_storage_engine to its default"));
        }
        let (has_gtids, executed, state, replicated) = match facts.flavor {
            Flavor::MySql => {
                let row: Option<(String, String)> = session
                    .query_first("SELECT @@GLOBAL.gtid_mode, @@GLOBAL.gtid_executed")
                    .await?;
                let (mode, executed) = row.unwrap_or_default();
                (
                    mode == "ON",
                    GtidSet::parse(Flavor::MySql, &executed)?,
                    None,
                    GtidSet::empty(Flavor::MySql),
                )
            }
            Flavor::MariaDb => {
                let sql = "SELECT @@GLOBAL.gtid_binlog_pos, @@GLOBAL.gtid_slave_pos, \
                           @@GLOBAL.gtid_binlog_state";
                let row: Option<(String, String, String)> = session.query_first(sql).await?;
                let (binlog, replica, state) = row.unwrap_or_default();
                let binlog = GtidSet::parse(Flavor::MariaDb, &binlog)?;
                let replicated = GtidSet::parse(Flavor::MariaDb, &replica)?;
                (true, binlog.union(&replicated)?, Some(state.parse()?), replicated)
            }
        };
        Ok(BinlogSource {
            server,
            flavor: facts.flavor,
            version: facts.version_text,
            server_id: facts.server_id,
            has_gtids,
            executed,
            state,
            replicated,
            files,
        })
    }

    /// MariaDB: the last transactions that it got as a replica, and has in none of its binlogs.
    pub(super) fn unlogged(&self) -> Vec<String> {
        let (Some(state), GtidSet::MariaDb(replicated)) = (&self.state, &self.replicated) else {
            return Vec::new();
        };
        let unlogged = replicated.iter().filter(|gtid| !state.contains(*gtid));
        unlogged.map(|gtid| gtid.to_string()).collect()
    }

    /// The length of one of its binlogs.
    pub(super) fn has(&self, file: &str) -> Option<u64> {
        self.files.iter().find(|(name, _)| name == file).map(|(_, len)| *len)
    }
}

/// Where an archive begins that has nothing yet.
#[derive(Debug, Clone, Default)]
pub enum From {
    /// With the oldest file that the server has.
    #[default]
    Oldest,
    /// With the file that is being written.
    Now,
    /// With the file that holds this position: that of the backup the archive is for.
    Position(Position),
}

/// Where a receiver goes on.
#[derive(Debug, Clone)]
pub(super) enum Start {
    /// In the middle of the file whose last archived piece this is.
    Resume(Box<SegmentInfo>),
    /// At the start of a file. `gap` says what is missing before it.
    File { name: String, gap: Option<String> },
}

/// What the archive of a cluster has.
#[derive(Debug, Clone, Default)]
pub(super) struct Archived {
    /// The last segment of this server.
    pub(super) tip: Option<SegmentInfo>,
    /// The transactions of all its servers; `None` where nothing is archived.
    pub(super) covered: Option<Covered>,
    /// Whether another server wrote later what this one had not, up to where it is archived.
    pub(super) went_on_elsewhere: bool,
}

/// Transactions that are archived.
#[derive(Debug, Clone)]
pub(super) struct Covered {
    pub(super) set: GtidSet,
    /// MariaDB: the last one of every server; `None` where only a position is known.
    pub(super) state: Option<MariaDbBinlogState>,
}

impl Covered {
    pub(super) fn of(tip: &SegmentInfo) -> Self {
        Covered { set: tip.after.clone(), state: tip.state_after.clone() }
    }

    pub(super) fn union(&self, other: &Covered) -> Result<Covered> {
        let state = match (&self.state, &other.state) {
            (Some(a), Some(b)) => Some(a.union(b)),
            _ => None,
        };
        Ok(Covered { set: self.set.union(&other.set)?, state })
    }

    /// What of these transactions is not archived, for people.
    pub(super) fn lacks(
        &self,
        set: &GtidSet,
        state: Option<&MariaDbBinlogState>,
    ) -> Result<Option<String>> {
        // By name, where both tell who wrote what; also what two servers wrote under the same numbers.
        if let (Some(have), Some(state)) = (&self.state, state) {
            let missing: Vec<String> =
                state.missing_in(have).map(|gtid| format!("up to {gtid}")).collect();
            if !missing.is_empty() {
                return Ok(Some(missing.join(", ")));
            }
        }
        let difference = set.difference(&self.set)?;
        Ok((!difference.is_empty()).then(|| named(set, &difference)))
    }
}

/// What of `set` is missing, by the names of transactions. MariaDB: the last of each domain has one, the numbers before
/// it may be of any server.
pub(super) fn named(set: &GtidSet, missing: &GtidDifference) -> String {
    let (GtidSet::MariaDb(set), GtidDifference::MariaDb(ranges)) = (set, missing) else {
        return missing.to_string();
    };
    let names = ranges.iter().map(|range| match set.get(range.domain) {
        Some(last) if last.seq == range.last && range.first == range.last => last.to_string(),
        Some(last) if last.seq == range.last => {
            format!("up to {last}, from number {} on", range.first)
        }
        _ => range.to_string(),
    });
    names.collect::<Vec<_>>().join(", ")
}

/// Finds where to go on, and what the user has to know about it.
///
/// # Errors
/// [`ErrorKind::Source`] when something is missing and that is not accepted.
pub(super) async fn locate(
    options: &ConnectOptions,
    dump: &DumpOptions,
    source: &BinlogSource,
    archived: &Archived,
    from: &From,
    accept_gap: bool,
) -> Result<(Start, Vec<String>)> {
    let mut warnings = Vec::new();
    if let Some(tip) = &archived.tip {
        match began_anew(options, dump, source, tip).await? {
            // It was made again, as a replica of the server that took over: its transactions tell where
            // to go on.
            Some(_) if source.has_gtids && archived.went_on_elsewhere => {}
            Some(why) => return Err(anew(&why)),
            None => {
                if let Some(start) = after_tip(source, tip) {
                    return Ok((start, warnings));
                }
            }
        }
    }
    let oldest = source.files.first().map(|(name, _)| name.clone());
    let oldest = oldest.ok_or_else(|| Error::new(ErrorKind::Source, "the server has no binlog"))?;
    let newest = source.files.last().map_or_else(|| oldest.clone(), |(name, _)| name.clone());
    let covered = match (&archived.covered, from) {
        (Some(covered), _) => covered.clone(),
        (None, From::Oldest) => return Ok((Start::File { name: oldest, gap: None }, warnings)),
        (None, From::Now) => return Ok((Start::File { name: newest, gap: None }, warnings)),
        (None, From::Position(position)) => match (&position.file, &position.gtid) {
            (_, Some(gtid)) if source.has_gtids => Covered { set: gtid.clone(), state: None },
            (Some(file), _) if source.has(file).is_some() => {
                return Ok((Start::File { name: file.clone(), gap: None }, warnings));
            }
            _ => return missing(&oldest, &position.to_string(), accept_gap, warnings),
        },
    };
    if !source.has_gtids {
        let last =
            archived.tip.as_ref().map_or("another server".to_owned(), |tip| tip.range.to_string());
        return missing(&oldest, &format!("everything after {last}"), accept_gap, warnings);
    }
    check_history(source, &covered, &mut warnings)?;
    // The server knows best, however many files it has. What it begins with is checked by what the
    // file itself says; where it refuses (MariaDB does when it lacks a transaction that is archived),
    // the files are looked at one by one.
    match Dump::first_file(options, &covered.set, covered.state.as_ref(), dump).await {
        // Of each domain a MariaDB looks at the last transaction alone: what it wrote itself, before it went on
        // as a replica, is passed over.
        Ok(name) if source.has(&name).is_some() && source.flavor == Flavor::MariaDb => {
            let (before, state) = before_file(options, dump, &name).await?;
            if covered.lacks(&before, state.as_ref())?.is_none() {
                return Ok((Start::File { name, gap: None }, warnings));
            }
        }
        Ok(name) if source.has(&name).is_some() => {
            return Ok((Start::File { name, gap: None }, warnings));
        }
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::Connect && e.server().is_none() => return Err(e),
        Err(_) => {}
    }
    // The newest file before which there is nothing that is not archived.
    let mut lacking = None;
    for (name, _) in source.files.iter().rev() {
        let (before, state) = before_file(options, dump, name).await?;
        match covered.lacks(&before, state.as_ref())? {
            None => return Ok((Start::File { name: name.clone(), gap: None }, warnings)),
            missing => lacking = missing,
        }
    }
    let lacking = lacking.unwrap_or_default();
    missing(&oldest, &lacking, accept_gap, warnings)
}

/// Why the server's binlogs cannot be the ones whose last archived piece this is; `None` where they may
/// be. Transactions tell nothing: a new history has the same GTIDs, once it is long enough.
async fn began_anew(
    options: &ConnectOptions,
    dump: &DumpOptions,
    source: &BinlogSource,
    tip: &SegmentInfo,
) -> Result<Option<String>> {
    let file = &tip.range.file;
    if source.has(file).is_some() {
        let same = tip.range.began_at(file_started(options, dump, file).await?);
        return Ok((!same).then(|| format!("{file} is another file than the archived one")));
    }
    // Files go from the oldest on, and numbers only up. Under another name they count from 1 again.
    let Ok(archived) = file.parse::<BinlogFile>() else { return Ok(None) };
    let older = |name: &str| name.parse::<BinlogFile>().is_ok_and(|file| file < archived);
    let older = source.files.iter().map(|(name, _)| name).find(|name| older(name));
    Ok(older.map(|older| format!("it has {older}, and no longer {file}, which is archived")))
}

/// When the server began a file.
async fn file_started(options: &ConnectOptions, dump: &DumpOptions, file: &str) -> Result<u32> {
    let dump = DumpOptions { follow: false, semi_sync: false, ..dump.clone() };
    let mut dump = Dump::begin(options, file, &dump).await?;
    loop {
        match dump.next().await? {
            Sent::File { format, .. } => return Ok(format.started()),
            Sent::Event { .. } | Sent::Heartbeat => {}
            Sent::End => {
                return Err(Error::new(ErrorKind::Source, format!("the server sends no {file}")));
            }
        }
    }
}

/// Goes on behind the last archived piece of the same server; `None` where its file is gone.
fn after_tip(source: &BinlogSource, tip: &SegmentInfo) -> Option<Start> {
    let file = &tip.range.file;
    if !tip.closes_file {
        let len = source.has(file)?;
        // Shorter than what we have of it: it is another file of that name.
        return (len >= tip.range.end).then(|| Start::Resume(Box::new(tip.clone())));
    }
    let next = tip.file_after()?;
    source.has(&next)?;
    Some(Start::File { name: next, gap: None })
}

fn missing(
    oldest: &str,
    what: &str,
    accept_gap: bool,
    mut warnings: Vec<String>,
) -> Result<(Start, Vec<String>)> {
    let text = format!(
        "the server has purged binlogs that are not archived; its oldest one is {oldest}, and these \
         transactions are missing before it: {what}"
    );
    if !accept_gap {
        return Err(Error::new(ErrorKind::Source, text).with_remedy(
            "take a full backup now, since no point after the gap can be reached from an older one; \
             then go on with --accept-gap. Keep binlogs longer at the server \
             (binlog_expire_logs_seconds)",
        ));
    }
    warnings.push(format!("{text}; take a full backup now"));
    Ok((Start::File { name: oldest.to_owned(), gap: Some(what.to_owned()) }, warnings))
}

fn anew(why: &str) -> Error {
    let text = format!(
        "the server's history began anew, and it gives GTIDs that are archived to other transactions \
         ({why})"
    );
    Error::new(ErrorKind::Source, text).with_remedy(
        "after RESET BINARY LOGS AND GTIDS, RESET MASTER, or a restart that lost commits, go on under \
         another cluster name, and take a full backup there first",
    )
}

/// The first file that is read behind the last archived piece of the same server says what came before
/// it: everything that is archived, or the server, of this id and with these transactions, lost it.
///
/// # Errors
/// [`ErrorKind::Source`] when it was lost.
pub(super) fn check_kept(
    server_id: u64,
    executed: &GtidSet,
    tip: &SegmentInfo,
    file: &str,
    before: &GtidSet,
    state: Option<&MariaDbBinlogState>,
) -> Result<()> {
    let number = |name: &str| name.parse::<BinlogFile>().ok();
    // Of one series, and later.
    if number(&tip.range.file).partial_cmp(&number(file)) != Some(Ordering::Less) {
        return Ok(());
    }
    let lost = match (&tip.state_after, state, executed) {
        // Its own: a domain can be deleted when it is no longer used.
        (Some(archived), Some(state), GtidSet::MariaDb(executed)) => archived
            .missing_in(state)
            .find(|gtid| u64::from(gtid.server) == server_id && executed.get(gtid.domain).is_some())
            .map(|gtid| format!("up to {gtid}")),
        _ => {
            let lost = tip.after.difference(before)?;
            (!lost.is_empty()).then(|| named(&tip.after, &lost))
        }
    };
    match lost {
        None => Ok(()),
        Some(lost) => Err(anew(&format!("{file} does not come behind what is archived: {lost}"))),
    }
}

/// Compares what is archived with what the server has executed.
fn check_history(
    source: &BinlogSource,
    covered: &Covered,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let lacks = covered.set.difference(&source.executed)?;
    if lacks.is_empty() {
        return Ok(());
    }
    let own = match &lacks {
        GtidDifference::MySql(set) => of_server(set, &source.server).map(|own| own.to_string()),
        GtidDifference::MariaDb(_) => own_lost(source, covered),
    };
    if let Some(own) = own {
        return Err(anew(&format!(
            "it no longer has transactions of its own that are archived: {own}"
        )));
    }
    let lacks = lost_ones(source, covered).unwrap_or_else(|| named(&covered.set, &lacks));
    warnings.push(format!(
        "the archive holds transactions that {} does not have (errant, or lost in a failover): {lacks}",
        source.server
    ));
    Ok(())
}

/// MariaDB: the last archived transactions of other servers that this one has not reached, or of which it tells that
/// it has fewer of that server.
fn lost_ones(source: &BinlogSource, covered: &Covered) -> Option<String> {
    let GtidSet::MariaDb(executed) = &source.executed else { return None };
    let has_fewer = |gtid: &MariaDbGtid| {
        let mut own = source.state.iter().flat_map(MariaDbBinlogState::iter);
        own.any(|own| (own.domain, own.server) == (gtid.domain, gtid.server) && own.seq < gtid.seq)
    };
    let archived = covered.state.as_ref()?.iter();
    let lost = archived.filter(|gtid| !executed.covers(*gtid) || has_fewer(gtid));
    let lost: Vec<String> = lost.map(|gtid| format!("up to {gtid}")).collect();
    (!lost.is_empty()).then(|| lost.join(", "))
}

/// MariaDB: the last archived transactions of this server with numbers that it has not reached, so
/// that it will give them to others.
fn own_lost(source: &BinlogSource, covered: &Covered) -> Option<String> {
    let GtidSet::MariaDb(executed) = &source.executed else { return None };
    let lost: Vec<String> = covered
        .state
        .as_ref()?
        .iter()
        .filter(|gtid| u64::from(gtid.server) == source.server_id && !executed.covers(*gtid))
        .map(|gtid| format!("up to {gtid}"))
        .collect();
    (!lost.is_empty()).then(|| lost.join(", "))
}

/// Those transactions of the set that this server committed first.
fn of_server(set: &MySqlGtidSet, server: &BinlogServer) -> Option<MySqlGtidSet> {
    let uuid: Uuid = server.as_str().parse().ok()?;
    let mut own = MySqlGtidSet::default();
    for (tsid, range) in set.intervals().filter(|(tsid, _)| tsid.uuid == uuid) {
        own.add_range(tsid.clone(), range).ok()?;
    }
    (!own.is_empty()).then_some(own)
}

/// The transactions before a file of the server.
async fn before_file(
    options: &ConnectOptions,
    dump: &DumpOptions,
    file: &str,
) -> Result<(GtidSet, Option<MariaDbBinlogState>)> {
    let dump = DumpOptions { follow: false, semi_sync: false, ..dump.clone() };
    let mut dump = Dump::begin(options, file, &dump).await?;
    loop {
        match dump.next().await? {
            Sent::Event { event, part, .. } => {
                if let Some(before) = transactions_before(&event)? {
                    return Ok((before, state_before(&event)?));
                }
                if matches!(part, Part::Begin(_)) {
                    break;
                }
            }
            Sent::End => break,
            Sent::File { .. } | Sent::Heartbeat => {}
        }
    }
    Err(Error::new(
        ErrorKind::Source,
        format!("{file} does not say which transactions came before it"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> GtidSet {
        GtidSet::parse(Flavor::MariaDb, text).unwrap()
    }

    fn covered(text: &str, state: &str) -> Covered {
        Covered { set: set(text), state: (!state.is_empty()).then(|| state.parse().unwrap()) }
    }

    #[test]
    fn transactions_are_named_and_not_their_numbers() {
        // A server that took over wrote number 4 anew, and one more.
        let archive = covered("0-81-4", "0-81-4");
        let state: MariaDbBinlogState = "0-81-3,0-82-5".parse().unwrap();
        let lacks = |archive: &Covered, state| archive.lacks(&set("0-82-5"), state).unwrap();
        assert_eq!(lacks(&archive, Some(&state)).as_deref(), Some("up to 0-82-5"));
        assert_eq!(lacks(&archive, None).as_deref(), Some("0-82-5"));
        assert_eq!(
            lacks(&covered("0-81-2", ""), None).as_deref(),
            Some("up to 0-82-5, from number 3 on")
        );
        assert_eq!(lacks(&covered("0-82-5", "0-81-3,0-82-5"), Some(&state)), None);
    }

    #[test]
    fn what_was_lost_in_a_failover_is_named() {
        let source = |executed: &str, state: &str| BinlogSource {
            server: BinlogServer::of_id(82),
            flavor: Flavor::MariaDb,
            version: String::new(),
            server_id: 82,
            has_gtids: true,
            executed: set(executed),
            state: Some(state.parse().unwrap()),
            replicated: GtidSet::empty(Flavor::MariaDb),
            files: Vec::new(),
        };
        let told = |archive: &Covered, source: &BinlogSource| {
            let mut warnings = Vec::new();
            check_history(source, archive, &mut warnings).unwrap();
            warnings.concat()
        };
        let archive = covered("0-81-5", "0-81-5");
        let text = told(&archive, &source("0-82-4", "0-81-3,0-82-4"));
        assert!(text.ends_with(": up to 0-81-5") && !text.contains("domain"), "{text}");
        // Another one went on behind it.
        let archive = covered("0-83-5", "0-81-4,0-83-5");
        let text = told(&archive, &source("0-82-4", "0-81-3,0-82-4"));
        assert!(text.ends_with(": up to 0-81-4, up to 0-83-5"), "{text}");
        assert_eq!(told(&archive, &source("0-83-6", "0-81-4,0-83-6")), "");
    }
}
