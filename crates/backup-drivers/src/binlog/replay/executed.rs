//! Whether a target has executed already what is to be applied.
//!
//! A MySQL server would skip such transactions. A MariaDB server would execute them a second time:
//! its position as a replica says nothing of what it wrote itself, or got before that position was
//! set. Where it cannot be told, the target is refused.

use backup_core::{
    BinlogServer, Context, ErrorKind, GtidSet, MariaDbBinlogState, MariaDbGtid, MariaDbGtidSet,
    MySqlGtidSet, Result, SegmentInfo, SegmentStore,
};
use mysql_async::Row;

use super::super::route::Route;
use super::super::segment::SegmentReader;
use super::target::Target;

/// When it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// The data of the route's beginning are about to be restored.
    BeforeRestore,
    /// They were restored just now, which is in the target's own binlog.
    AfterRestore,
    /// They were restored for a private server of the caller.
    Private,
    /// The target itself says where it stands.
    GoingOn,
}

/// What to do where the files of a backup know more than the backup.
const ASK_THE_SERVER: &str = "restore into a directory without a point (no --to-…), start a server on it, and go on with \
                              `holdfast binlog apply`, which asks that server where it stands";

const AGAIN: &str =
    "where you know that its data are those of before these transactions, say --apply-again";

/// Fails where the target has transactions already that are to be applied, and where nobody can tell.
pub(super) async fn check(
    cx: &Context,
    target: &mut Target,
    store: &dyn SegmentStore,
    route: &Route,
    when: When,
    again: bool,
) -> Result<()> {
    let (Some(applied), Some(reached)) = (&route.applied, &route.reached) else {
        return check_author(target, route).await;
    };
    match (applied, reached) {
        (GtidSet::MySql(applied), GtidSet::MySql(reached)) => {
            check_mysql(target, applied, reached, when).await?;
        }
        (GtidSet::MariaDb(applied), GtidSet::MariaDb(reached)) => {
            check_mariadb(cx, target, store, route, (applied, reached), when).await?;
        }
        _ => {}
    }
    let unknown = when == When::GoingOn && !again && !route.is_empty();
    if unknown && has_none(applied, route)? && target.has_tables().await? {
        return Err(target.refuse(
            "it has tables, and does not know which transactions are in them, so that some could be \
             executed twice",
            format!("begin with a restore to a point (`holdfast restore --to-latest`); or, {AGAIN}"),
        ));
    }
    Ok(())
}

/// Whether nothing that is archived is among these transactions: those of a MySQL server may all be its
/// own.
fn has_none(applied: &GtidSet, route: &Route) -> Result<bool> {
    for segment in route.files.iter().flat_map(|file| &file.segments) {
        if !applied.intersection(&segment.after)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Without GTIDs: only the server that wrote the binlogs is known by name.
async fn check_author(target: &mut Target, route: &Route) -> Result<()> {
    if !target.mysql() {
        return Ok(());
    }
    let uuid = target.value("SELECT @@GLOBAL.server_uuid").await?;
    let mut segments = route.files.iter().flat_map(|file| &file.segments);
    match segments.find(|segment| segment.server.as_str() == uuid) {
        None => Ok(()),
        Some(segment) => Err(target.refuse(
            format!("it wrote {} itself, and would execute it twice", segment.range.file),
            format!("restore to another server; or, {AGAIN}"),
        )),
    }
}

async fn check_mysql(
    target: &mut Target,
    applied: &MySqlGtidSet,
    reached: &MySqlGtidSet,
    when: When,
) -> Result<()> {
    let GtidSet::MySql(executed) = target.executed().await? else { return Ok(()) };
    let known = reached.subtract(applied).intersect(&executed);
    if !known.is_empty() {
        return Err(target.refuse(
            format!(
                "its gtid_executed has {} of the transactions that are to be applied already, so \
                 that it would skip them",
                known.count()
            ),
            "restore to another server; or, where this is the old one and its binlogs are archived, \
             run RESET BINARY LOGS AND GTIDS there first",
        ));
    }
    let untold = applied.subtract(&executed);
    if !untold.is_empty() && when == When::GoingOn {
        return Err(target.refuse(
            format!("it lacks transactions that come before: {untold}"),
            "begin with a backup",
        ));
    }
    Ok(())
}

async fn check_mariadb(
    cx: &Context,
    target: &mut Target,
    store: &dyn SegmentStore,
    route: &Route,
    (applied, reached): (&MariaDbGtidSet, &MariaDbGtidSet),
    when: When,
) -> Result<()> {
    // The numbers of a domain that are to be applied.
    let to_come = |gtid: MariaDbGtid| {
        let from = applied.get(gtid.domain).map_or(0, |last| last.seq);
        reached.get(gtid.domain).is_some_and(|last| last.seq > from) && gtid.seq > from
    };
    if when != When::GoingOn
        && let GtidSet::MariaDb(position) = target.executed().await?
        && let Some(beyond) = position.iter().find(|gtid| to_come(*gtid))
    {
        let problem = format!(
            "its gtid_slave_pos says that it has executed {beyond}, which comes behind the backup, and would \
             execute transactions twice"
        );
        // The files of a replica that did not log what it got: a copy of them tells of its log alone.
        let remedy = match when {
            When::Private => ASK_THE_SERVER.to_owned(),
            _ => format!(
                "restore to another server; or, where its data are replaced by the restore, run SET \
                 GLOBAL gtid_slave_pos = '' there first; or, {AGAIN}"
            ),
        };
        return Err(target.refuse(problem, remedy));
    }
    let state = target.value("SELECT @@GLOBAL.gtid_binlog_state").await?;
    let state: MariaDbBinlogState = state.parse()?;
    let own = target.value("SELECT @@GLOBAL.server_id").await?;
    let archived = authors(route);
    for gtid in state.iter().filter(|gtid| to_come(*gtid) && archived.contains(&gtid.server)) {
        let remedy = format!(
            "restore to another server; or, where this is the old one, its binlogs are archived and \
             its data are replaced, run RESET MASTER there first; or, {AGAIN}"
        );
        if own != gtid.server.to_string() {
            return Err(target.refuse(
                format!(
                    "its binlog has {gtid}, which comes behind the point where the replay begins, so \
                     that it would execute transactions twice"
                ),
                remedy,
            ));
        }
        // Numbers of its own, or of another server with its server_id.
        match is_author(cx, target, store, route, gtid.server).await? {
            Some(false) => {}
            None if matches!(when, When::AfterRestore | When::Private) => {}
            Some(true) => {
                return Err(target.refuse(
                    format!(
                        "it wrote these binlogs itself (its own reach {gtid}), and would execute \
                         transactions twice"
                    ),
                    remedy,
                ));
            }
            None => {
                return Err(target.refuse(
                    format!(
                        "its server_id is that of the server which wrote the archived binlogs, and \
                         its own binlog has {gtid}: whether these are the same transactions cannot \
                         be told"
                    ),
                    format!("restore to a server with a server_id of its own; or, {AGAIN}"),
                ));
            }
        }
    }
    Ok(())
}

/// The server ids that wrote what is to be applied.
fn authors(route: &Route) -> Vec<u32> {
    let segments = || route.files.iter().flat_map(|file| &file.segments);
    let states = segments().filter_map(|segment| segment.state_after.as_ref());
    let mut ids: Vec<u32> = states.flat_map(MariaDbBinlogState::iter).map(|g| g.server).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// How many events of a segment are compared, and how many of them have to be the same to prove
/// anything: the first ones of a file are the same at all servers.
const LOOKED_AT: usize = 60;
const PROOF: usize = 8;
/// How many segments are looked for at the target.
const SEGMENTS: usize = 8;

/// Whether the target itself wrote the archived binlogs of the server `id`; `None` where its own
/// binlogs tell nothing of it.
async fn is_author(
    cx: &Context,
    target: &mut Target,
    store: &dyn SegmentStore,
    route: &Route,
    id: u32,
) -> Result<Option<bool>> {
    let server = BinlogServer::of_id(id);
    let segments: Vec<&SegmentInfo> = route
        .files
        .iter()
        .flat_map(|file| &file.segments)
        .filter(|segment| segment.server == server)
        .collect();
    let step = segments.len().div_ceil(SEGMENTS).max(1);
    for segment in segments.into_iter().step_by(step) {
        let mut reader = SegmentReader::new(segment, store.read(cx, segment).await?)?;
        let mut archived = Vec::new();
        while archived.len() < LOOKED_AT
            && let Some(placed) = reader.next_event()?
        {
            archived.push((placed.start, placed.event.header().server_id, placed.end));
        }
        let Some(&(from, ..)) = archived.first() else { continue };
        let file = segment.range.file.replace('\'', "''");
        let sql = format!("SHOW BINLOG EVENTS IN '{file}' FROM {from} LIMIT {}", archived.len());
        let there: Vec<Row> = match target.session.query_rows(&sql).await {
            Ok(rows) => rows,
            // It has no such file any more, or never had.
            Err(e) if e.chain().contains("Could not find target log") => continue,
            Err(e) if e.kind() == ErrorKind::Privilege => return Ok(None),
            // No event begins at that place.
            Err(e) if e.server().is_some() => return Ok(Some(false)),
            Err(e) => return Err(e),
        };
        let there = there.iter().map(|row| {
            let number = |name: &str| row.get_opt::<u64, _>(name).and_then(Result::ok);
            (number("Pos"), number("Server_id"), number("End_log_pos"))
        });
        let same = archived.iter().zip(there).take_while(|((start, id, end), found)| {
            *found == (Some(*start), Some(u64::from(*id)), Some(*end))
        });
        let same = same.count();
        if same < archived.len() {
            return Ok(Some(false));
        }
        if same >= PROOF {
            return Ok(Some(true));
        }
    }
    Ok(None)
}
