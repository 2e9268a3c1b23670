//! Going on with a backup that was not finished.
//!
//! A backup writes down, before the first row, of which moment it is and how it cuts the tables. A
//! later one has a moment of its own. What the earlier one had read of a table is what the later one
//! would read, and may be taken over, if nothing changed the table between the two moments. That has to
//! be proven, by the server's set of transactions or by its binary log; where it is not, the table is
//! read again.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{
    ArtifactName, ArtifactSink, ArtifactSource, BackupId, Context, Error, Flavor, GtidSet, Layout,
    Position, Result,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::catalog::{Catalog, Chunk, Table};
use super::ddl::{Parts, is_of_its_row, quote_text};
use super::identity;
use super::inventory::{self, ServerFacts};
use super::no_text::NoText;
use super::plan::Range;
use super::replica::{self, Applied};
use super::scan::Scanned;
use super::snapshot::Snapshot;
use crate::binlog::{Place, touched};
use crate::connect::{ConnectOptions, Session};
use crate::logged;
use crate::rows::RowDigest;

/// Name of the artifact that holds the [`Plan`].
pub(super) const PLAN: &str = "logical/plan";
/// The version of its form, and of everything that makes chunks of two backups the same.
const VERSION: u32 = 2;
/// A longer plan is not read: it names more tables than a server can hold.
const MAX_PLAN: usize = 1 << 30;
/// Clocks count seconds, and a change may be noted a moment after it.
const SLACK: u64 = 2;

/// What a backup writes down before the first row.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    version: u32,
    position: Position,
    moment: Moment,
    tables: Vec<Planned>,
}

/// What a server says of itself at the moment of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moment {
    server: String,
    version: String,
    /// Its clock, in seconds since 1970.
    clock: u64,
    /// Since when it runs, by that clock.
    up_since: u64,
    /// Whether a crash takes nothing back that was committed, nor from its binary log alone.
    durable: bool,
    /// Whether every transaction has a GTID (MySQL).
    gtids: bool,
    /// Why the binary log does not tell of every change; nothing when it does.
    blind: Option<String>,
}

/// A table, and how it is cut.
#[derive(Debug, Serialize, Deserialize)]
struct Planned {
    database: String,
    table: String,
    /// A digest of all that says which rows are read and how.
    definition: String,
    /// Which table it is; nothing where that cannot be told.
    identity: Option<String>,
    /// When it was changed last, by the server's clock; nothing where the server does not know.
    #[serde(default)]
    updated: Option<u64>,
    ranges: Vec<Range>,
}

fn definition(table: &Table) -> Result<String> {
    let Table { create, engine, columns, key, filter, rows_left_out, history, .. } = table;
    let all = (create, engine, columns, key, filter, rows_left_out, history);
    let json = serde_json::to_vec(&all)
        .map_err(|e| Error::internal("a definition cannot be written").with_source(e))?;
    Ok(format!("{:032x}", xxh3_128(&json)))
}

/// The artifact of a range of a table.
pub(super) fn artifact(table: &Table, number: usize) -> Result<ArtifactName> {
    let part = format!("rows-{number:06}");
    ArtifactName::from_parts(["tables", &table.database, &table.name, &part])
}

/// The artifact of a part of a range that could not be read as a whole.
pub(super) fn piece(table: &Table, number: usize, piece: usize) -> Result<ArtifactName> {
    let part = format!("rows-{number:06}-{piece:04}");
    ArtifactName::from_parts(["tables", &table.database, &table.name, &part])
}

impl Moment {
    /// Asks the server, at any time while the snapshot is open.
    pub(super) async fn now(
        session: &mut Session,
        facts: &ServerFacts,
        applied: &[Applied],
    ) -> Result<Moment> {
        let (_, uptime) = session
            .query_first::<(String, u64)>("SHOW GLOBAL STATUS LIKE 'Uptime'")
            .await?
            .unwrap_or_default();
        let clock: u64 = session.query_first("SELECT UNIX_TIMESTAMP()").await?.unwrap_or_default();
        let variables = variables(session).await?;
        let is = |name: &str, value: &str| variables.get(name).is_some_and(|v| v == value);
        let blind = blind(session, facts, applied, &variables).await?;
        let server = facts.server_uuid.clone().unwrap_or_else(|| {
            format!("{}:{}", facts.hostname.clone().unwrap_or_default(), facts.server_id)
        });
        Ok(Moment {
            server,
            version: facts.version_text.clone(),
            clock,
            up_since: clock.saturating_sub(uptime),
            durable: is("sync_binlog", "1") && is("innodb_flush_log_at_trx_commit", "1"),
            gtids: facts.flavor == Flavor::MySql && is("gtid_mode", "ON"),
            blind,
        })
    }

    /// Whether the server was started between an earlier moment and this one.
    fn is_behind_a_restart_of(&self, earlier: &Moment) -> bool {
        self.up_since + SLACK > earlier.clock
    }

    /// Why nothing can be proven between an earlier moment and this one.
    fn apart_from(&self, earlier: &Moment) -> Option<String> {
        if self.server != earlier.server {
            return Some("it read another server".into());
        }
        if self.version != earlier.version {
            return Some("the server had another version".into());
        }
        if self.is_behind_a_restart_of(earlier) && !(self.durable && earlier.durable) {
            return Some(
                "the server was restarted meanwhile, and may have lost what was committed \
                 (sync_binlog and innodb_flush_log_at_trx_commit are not both 1)"
                    .into(),
            );
        }
        None
    }
}

/// Settings that say what the binary log tells.
async fn variables(session: &mut Session) -> Result<BTreeMap<String, String>> {
    let names = "'sync_binlog', 'innodb_flush_log_at_trx_commit', 'log_bin', 'gtid_mode', \
                 'log_replica_updates', 'log_slave_updates', 'slave_run_triggers_for_rbr', \
                 'wsrep_on'";
    let sql = format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})");
    Ok(session.query_rows::<(String, String)>(&sql).await?.into_iter().collect())
}

/// Why the binary log does not tell of every change; nothing when it does.
async fn blind(
    session: &mut Session,
    facts: &ServerFacts,
    applied: &[Applied],
    variables: &BTreeMap<String, String>,
) -> Result<Option<String>> {
    let is = |name: &str, value: &str| variables.get(name).is_some_and(|v| v == value);
    let logs_others = is("log_replica_updates", "ON") || is("log_slave_updates", "ON");
    Ok(if !is("log_bin", "ON") {
        Some("the server has no binary log".to_owned())
    } else if (!applied.is_empty() || is("wsrep_on", "ON")) && !logs_others {
        Some("the server does not log what it replicates (log_replica_updates)".to_owned())
    } else if is("slave_run_triggers_for_rbr", "YES") {
        Some("slave_run_triggers_for_rbr is YES".to_owned())
    } else {
        logged::filters(session, facts).await?
    })
}

/// Why a server's binary log does not tell of every change that it makes now; nothing when it does.
pub(super) async fn untold(session: &mut Session, facts: &ServerFacts) -> Result<Option<String>> {
    let applied = replica::applied(session, facts).await?;
    let variables = variables(session).await?;
    blind(session, facts, &applied, &variables).await
}

/// What was taken over from an earlier backup.
#[derive(Debug, Default)]
pub(super) struct Resumed {
    /// From which, where there was one.
    from: Option<BackupId>,
    /// The ranges of tables that go on as they were begun, by number of the table.
    pub ranges: BTreeMap<usize, Vec<Range>>,
    /// Chunks that need not be read, by numbers of table and range.
    pub chunks: BTreeMap<(usize, usize), Chunk>,
    bytes: u64,
    /// How it was proven.
    proof: String,
    /// What is read again, and why.
    again: BTreeMap<String, String>,
}

impl Resumed {
    /// For the manifest: what was taken from where, and why it could be.
    pub(super) fn report(&self, tables: &[Table]) -> Option<serde_json::Value> {
        /// As many tables are named.
        const NAMES: usize = 100;
        let from = self.from.as_ref()?;
        let mut chunks: BTreeMap<String, u64> = BTreeMap::new();
        for (table, _) in self.chunks.keys() {
            *chunks.entry(tables[*table].full_name().to_string()).or_default() += 1;
        }
        let count = chunks.len();
        let shown: BTreeMap<String, u64> = chunks.into_iter().take(NAMES).collect();
        let again: BTreeMap<&String, &String> = self.again.iter().take(NAMES).collect();
        Some(serde_json::json!({
            "from": from,
            "chunks": self.chunks.len(),
            "rows": self.chunks.values().map(|chunk| chunk.digest.rows).sum::<u64>(),
            "bytes": self.bytes,
            "tables": count,
            "proof": self.proof,
            "chunks_of": shown,
            "read_again": self.again.len(),
            "read_again_because": again,
        }))
    }

    /// A sentence for people.
    fn tell(&self, cx: &Context) {
        let Some(from) = &self.from else { return };
        let rows: u64 = self.chunks.values().map(|chunk| chunk.digest.rows).sum();
        let mut text = format!(
            "going on with backup {from}, which was not finished: {} chunks with {rows} rows are \
             taken from it",
            self.chunks.len()
        );
        if !self.proof.is_empty() {
            text.push_str(&format!(" ({})", self.proof));
        }
        if let Some((table, why)) = self.again.first_key_value() {
            let more = match self.again.len() {
                1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            text.push_str(&format!("; {table}{more} read again: {why}"));
        }
        cx.note(text);
    }
}

/// Whether which rows of a table are read depends on those rows alone.
fn chosen_alone(table: &Table) -> bool {
    table.filter.as_deref().is_none_or(is_of_its_row)
}

/// What is known when rows are about to be read.
pub(super) struct Ground<'a> {
    pub source: &'a ConnectOptions,
    pub position: &'a Position,
    pub moment: Moment,
    pub catalog: &'a Catalog,
    /// Which tables these are, in their order.
    pub identities: Vec<Option<String>>,
    /// When each was changed last.
    pub updated: Vec<Option<u64>>,
}

impl<'a> Ground<'a> {
    /// Asks the server, while the snapshot is open.
    pub(super) async fn of(
        session: &mut Session,
        source: &'a ConnectOptions,
        facts: &ServerFacts,
        snapshot: &'a Snapshot,
        catalog: &'a Catalog,
    ) -> Result<Ground<'a>> {
        let moment = Moment::now(session, facts, &snapshot.applied).await?;
        let watched = snapshot.fingerprints.as_ref();
        let identities = identity::of_all(session, facts, &catalog.tables, watched).await?;
        let updated = updated(session, &catalog.tables).await?;
        Ok(Ground { source, position: &snapshot.position, moment, catalog, identities, updated })
    }

    /// Takes over what is proven to be the same.
    pub(super) async fn resume(&self, cx: &Context, sink: &dyn ArtifactSink) -> Result<Resumed> {
        let Some(leftover) = sink.leftover().await? else { return Ok(Resumed::default()) };
        let mut resumed = Resumed { from: Some(leftover.backup.clone()), ..Resumed::default() };
        let plan = match read_plan(&*leftover.artifacts).await {
            Ok(plan) => plan,
            Err(e) if e.kind() == backup_core::ErrorKind::Damaged => {
                cx.note(format!("nothing is taken from {}: {}", leftover.backup, e.chain()));
                return Ok(Resumed::default());
            }
            Err(e) => return Err(e),
        };
        let planned: BTreeMap<(&str, &str), &Planned> =
            plan.tables.iter().map(|p| ((p.database.as_str(), p.table.as_str()), p)).collect();
        let unchanged = match self.unchanged(cx, &plan).await {
            Ok(unchanged) => unchanged,
            Err(e) if e.kind() == backup_core::ErrorKind::Interrupted => return Err(e),
            Err(e) => Unchanged::Nothing(e.chain()),
        };
        let mut wanted: BTreeMap<ArtifactName, (usize, usize)> = BTreeMap::new();
        for (i, table) in self.catalog.tables.iter().enumerate() {
            let key = (table.database.as_str(), table.name.as_str());
            let Some(planned) = planned.get(&key) else { continue };
            let why = match &unchanged {
                _ if planned.definition != definition(table)? => Some("it was defined otherwise"),
                _ if !table.transactional => Some("its engine has no transactions"),
                // The binary log tells of changes of this table alone.
                _ if !chosen_alone(table) => {
                    Some("what else than its rows decides by --where which are read is not known")
                }
                Unchanged::Nothing(why) => Some(why.as_str()),
                Unchanged::But { touched, .. } if !touched.contains_key(&i) => {
                    self.another(i, planned)
                }
                Unchanged::But { touched, .. } => touched.get(&i).map(String::as_str),
            };
            if let Some(why) = why {
                resumed.again.insert(table.full_name().to_string(), why.to_owned());
                continue;
            }
            for number in 0..planned.ranges.len() {
                wanted.insert(artifact(table, number)?, (i, number));
            }
            resumed.ranges.insert(i, planned.ranges.clone());
        }
        if let Unchanged::But { proof, .. } = unchanged {
            resumed.proof = proof;
        }
        if !wanted.is_empty() {
            let names: Vec<ArtifactName> = wanted.keys().cloned().collect();
            for info in sink.take_over(&names).await? {
                let Some(&(table, number)) = wanted.get(&info.name) else { continue };
                let range = &resumed.ranges[&table][number];
                let chunk = chunk_of(&info.name, &info.attributes, range)?;
                cx.progress().add_rows(chunk.digest.rows);
                resumed.bytes += info.bytes;
                resumed.chunks.insert((table, number), chunk);
            }
        }
        resumed.tell(cx);
        Ok(resumed)
    }

    /// Why a table may be another one than that of the plan.
    fn another(&self, i: usize, planned: &Planned) -> Option<&'static str> {
        match self.identities[i].as_ref().zip(planned.identity.as_ref()) {
            None => Some(
                "whether another table has its name by now is not told (the account needs PROCESS to see the \
                 numbers of tables)",
            ),
            Some((now, then)) => (now != then)
                .then_some("another table, or one with another partition, has its name by now"),
        }
    }

    /// Writes down how the tables are cut, for a later backup.
    pub(super) async fn write_down(
        &self,
        sink: &dyn ArtifactSink,
        ranges: &[Vec<Range>],
    ) -> Result<()> {
        let tables =
            self.catalog.tables.iter().zip(&self.identities).zip(&self.updated).zip(ranges);
        let tables = tables.map(|(((table, identity), updated), ranges)| {
            Ok(Planned {
                database: table.database.clone(),
                table: table.name.clone(),
                definition: definition(table)?,
                identity: identity.clone(),
                updated: *updated,
                ranges: ranges.clone(),
            })
        });
        let plan = Plan {
            version: VERSION,
            position: self.position.clone(),
            moment: self.moment.clone(),
            tables: tables.collect::<Result<_>>()?,
        };
        let json = serde_json::to_vec(&plan)
            .map_err(|e| Error::internal("the plan cannot be written as JSON").with_source(e))?;
        let mut writer = sink.create(PLAN.parse()?, Layout::Stream).await?;
        writer.write(Bytes::from(json)).await?;
        writer.finish(serde_json::Value::Null).await?;
        sink.checkpoint().await
    }

    /// Which tables are what they were.
    async fn unchanged(&self, cx: &Context, plan: &Plan) -> Result<Unchanged> {
        if let Some(why) = self.moment.apart_from(&plan.moment) {
            return Ok(Unchanged::Nothing(why));
        }
        let (was, is) = (&plan.position, self.position);
        let same_set = |a: &GtidSet, b: &GtidSet| a.to_string() == b.to_string();
        let gtids = self.moment.gtids && plan.moment.gtids;
        let set = was.gtid.as_ref().zip(is.gtid.as_ref()).filter(|(a, b)| same_set(a, b));
        let mut changed = BTreeMap::new();
        let mut proof;
        if let (true, Some((set, _))) = (gtids, set) {
            proof = format!("the server has executed {set} at both moments, and nothing else");
        } else {
            if let Some(why) = self.moment.blind.as_ref().or(plan.moment.blind.as_ref()) {
                return Ok(Unchanged::Nothing(why.clone()));
            }
            let place = |position: &Position| position.file.clone().zip(position.offset);
            let (Some(from), Some(to)) = (place(was), place(is)) else {
                return Ok(Unchanged::Nothing("its position is not known".into()));
            };
            cx.phase("reading the binary log");
            let place = |(file, offset): &(String, u64)| (file.clone(), *offset);
            let ((from_file, from_offset), (to_file, to_offset)) = (place(&from), place(&to));
            let begin = Place { file: &from_file, offset: from_offset };
            let end = Place { file: &to_file, offset: to_offset };
            let found = touched(cx, self.source, begin, end).await?;
            let stretch = format!("{from_file}:{from_offset} to {to_file}:{to_offset}");
            if let Some(what) = found.anything {
                return Ok(Unchanged::Nothing(format!(
                    "the binary log from {stretch} has {what}, which may have changed any table"
                )));
            }
            let mut names = found.tables.clone();
            for (i, table) in self.catalog.tables.iter().enumerate() {
                let name = (table.database.to_lowercase(), table.name.to_lowercase());
                let what = if found.is_redefined(&table.database, &table.name) {
                    "statements that may have to do with it"
                } else if names.contains(&name) {
                    "changes of it"
                } else {
                    continue;
                };
                changed.insert(i, format!("the binary log from {stretch} has {what}"));
                names.insert(name);
            }
            self.follow_foreign_keys(&names, &mut changed);
            proof = format!("the binary log from {stretch} has no change of these tables");
        }
        self.follow_updates(plan, &mut changed);
        if self.moment.is_behind_a_restart_of(&plan.moment) {
            proof.push_str(
                "; what a session without a binary log (sql_log_bin=0) changed before the server was restarted \
                 is told by nothing",
            );
        }
        Ok(Unchanged::But { touched: changed, proof })
    }

    /// Adds tables whose rows InnoDB may have changed with those of the tables that they refer to: it
    /// tells the binary log nothing of that before MySQL 9.6.
    fn follow_foreign_keys(
        &self,
        names: &BTreeSet<(String, String)>,
        changed: &mut BTreeMap<usize, String>,
    ) {
        let lower = |database: &str, table: &str| (database.to_lowercase(), table.to_lowercase());
        let mut reached = names.clone();
        loop {
            let before = reached.len();
            for (i, table) in self.catalog.tables.iter().enumerate() {
                let parents = Parts::of(&table.create).parents(&table.database);
                let parent =
                    parents.iter().find(|p| reached.contains(&lower(&p.database, &p.table)));
                if let Some(parent) = parent {
                    reached.insert(lower(&table.database, &table.name));
                    let why = format!("{parent}, which it refers to, was changed");
                    changed.entry(i).or_insert(why);
                }
            }
            if reached.len() == before {
                return;
            }
        }
    }

    /// Adds tables of which the server itself says that they were changed later, which a session
    /// without a binary log may have done; and those of which it knew when they were changed, and does not any more.
    fn follow_updates(&self, plan: &Plan, changed: &mut BTreeMap<usize, String>) {
        let known: BTreeSet<(&str, &str)> = plan
            .tables
            .iter()
            .filter(|planned| planned.updated.is_some())
            .map(|planned| (planned.database.as_str(), planned.table.as_str()))
            .collect();
        let restarted = self.moment.is_behind_a_restart_of(&plan.moment);
        for (i, (table, updated)) in self.catalog.tables.iter().zip(&self.updated).enumerate() {
            let why = match updated {
                Some(at) if at + SLACK > plan.moment.clock => {
                    "the server says that it was changed since"
                }
                None if !restarted
                    && known.contains(&(table.database.as_str(), table.name.as_str())) =>
                {
                    "the server has forgotten when it was changed last"
                }
                _ => continue,
            };
            changed.entry(i).or_insert_with(|| why.into());
        }
    }
}

/// When the server says that each table was changed last (`UPDATE_TIME`), in seconds since 1970. InnoDB keeps that in
/// memory, for as long as the table is open.
async fn updated(session: &mut Session, tables: &[Table]) -> Result<Vec<Option<u64>>> {
    // MySQL would tell what it cached up to a day ago.
    match session.run("SET SESSION information_schema_stats_expiry = 0").await {
        Err(e) if e.server().is_none() => return Err(e),
        _ => {}
    }
    let mut by_database: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for (i, table) in tables.iter().enumerate() {
        by_database.entry(&table.database).or_default().insert(&table.name, i);
    }
    let but_elsewhere = inventory::but_elsewhere(session.conn()).await?;
    let mut updated = vec![None; tables.len()];
    for (database, tables) in by_database {
        let sql = format!(
            "SELECT TABLE_NAME, UNIX_TIMESTAMP(UPDATE_TIME) FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA = {} AND UPDATE_TIME IS NOT NULL{but_elsewhere}",
            quote_text(database)
        );
        for (name, at) in session.query_rows::<(String, u64)>(&sql).await? {
            if let Some(&i) = tables.get(name.as_str()) {
                updated[i] = Some(at);
            }
        }
    }
    Ok(updated)
}

/// What is proven of the tables.
enum Unchanged {
    /// Nothing, and why.
    Nothing(String),
    /// That they are the same, but for these, and how that is known.
    But { touched: BTreeMap<usize, String>, proof: String },
}

async fn read_plan(artifacts: &dyn ArtifactSource) -> Result<Plan> {
    let json = artifacts.read(&PLAN.parse()?, MAX_PLAN).await?;
    let plan: Plan = serde_json::from_slice(&json)
        .map_err(|e| Error::damaged("its plan cannot be read").with_source(e))?;
    if plan.version != VERSION {
        return Err(Error::damaged("it was begun by another version of holdfast"));
    }
    Ok(plan)
}

/// What the attributes of a chunk's artifact say.
#[derive(Serialize, Deserialize)]
struct Attributes {
    digest: RowDigest,
    from: Option<String>,
    to: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    no_text: Vec<NoText>,
}

/// The attributes of a chunk's artifact.
pub(super) fn attributes(read: &Scanned, range: &Range) -> Result<serde_json::Value> {
    let attributes = Attributes {
        digest: read.digest,
        from: range.from.clone(),
        to: range.to.clone(),
        no_text: read.no_text.clone(),
    };
    serde_json::to_value(attributes)
        .map_err(|e| Error::internal("the attributes of a chunk cannot be written").with_source(e))
}

fn chunk_of(name: &ArtifactName, attributes: &serde_json::Value, range: &Range) -> Result<Chunk> {
    let Attributes { digest, from, to, no_text } = serde_json::from_value(attributes.clone())
        .map_err(|e| Error::damaged(format!("{name} does not say what it is")).with_source(e))?;
    let found = Range { from, to, ..Range::default() };
    if &found != range {
        return Err(Error::damaged(format!("{name} is not the range that was planned")));
    }
    Ok(Chunk { artifact: name.clone(), digest, from: found.from, to: found.to, no_text })
}
