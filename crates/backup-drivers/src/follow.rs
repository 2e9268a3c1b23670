//! A restored server, made a replica of a source and watched until it has caught up.

use std::time::{Duration, Instant};

use backup_core::{
    BinlogServer, Context, Error, ErrorKind, Flavor, GtidSet, MariaDbGtidSet, ReplayBase, Result,
};
use mysql_async::Row;

use crate::binlog::replay::text;
use crate::binlog::replay::{Target, leave_to_source};
use crate::binlog::{Dump, DumpOptions};
use crate::connect::{ConnectOptions, Endpoint, SslMode, applier_said};
use crate::logical::inventory::{Need, Privilege, lacking};
use crate::logical::logged_until;

/// What a new replica says of itself when it has caught up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Following {
    /// The transactions that it has.
    pub gtid: GtidSet,
    /// How far it is behind its source, in seconds, by its own word; `None` where it does not tell.
    pub lag_seconds: Option<u64>,
    /// What needs a look.
    pub warnings: Vec<String>,
}

/// The events that this server ran. One that is made anew has not run yet, and a replica runs none.
const RAN: &str = "SELECT CONCAT(event_schema, '.', event_name) FROM information_schema.events WHERE \
                   last_executed IS NOT NULL";

/// For how long a replica may try to connect before that counts as an error.
const CONNECT: Duration = Duration::from_secs(60);
/// How often it is told how far it is.
const TOLD: Duration = Duration::from_secs(5);

/// Looks whether `target`, once it has the backup `base` and then the transactions `at`, could be made a
/// replica of `source`; changes nothing.
///
/// # Errors
/// [`ErrorKind::Usage`] for a source that is not named by host and port; [`ErrorKind::Privilege`] for an account of
/// it that may not replicate; [`ErrorKind::Source`] and
/// [`ErrorKind::Target`] for servers that do not fit, and a source that does not have all that the target
/// will have; [`ErrorKind::Unreachable`] when the source has purged what the target will lack.
pub async fn can_follow(
    cx: &Context,
    target: &ConnectOptions,
    source: &ConnectOptions,
    base: &ReplayBase,
    at: Option<&GtidSet>,
) -> Result<()> {
    let mut pair = Pair::open(target, source).await?;
    let Pair { source, target } = &mut pair;
    may_replicate(source).await?;
    if source.facts.flavor != target.facts.flavor {
        return Err(target.refuse(
            format!("it is a {}, and the source a {}", target.facts.flavor, source.facts.flavor),
            "replicate between servers of one kind",
        ));
    }
    for name in ["server_id", "server_uuid"] {
        if name == "server_uuid" && !target.mysql() {
            continue;
        }
        let sql = format!("SELECT @@GLOBAL.{name}");
        let (theirs, own) = (source.value(&sql).await?, target.value(&sql).await?);
        if theirs == own {
            return Err(target.refuse(
                format!("its {name} is that of the source, {own}"),
                "give it one of its own in its configuration",
            ));
        }
    }
    goes_by_gtid(target).await?;
    has_what_follows(cx, source, base, at).await?;
    pair.close().await
}

/// Looks whether a server with the backup `base` and then the transactions `at`, which does not run yet,
/// could be made a replica of `source`.
///
/// # Errors
/// As [`can_follow`].
pub async fn can_be_followed(
    cx: &Context,
    source: &ConnectOptions,
    flavor: Flavor,
    base: &ReplayBase,
    at: Option<&GtidSet>,
) -> Result<()> {
    address(source)?;
    let mut source = Target::open(source).await?;
    may_replicate(&mut source).await?;
    if source.facts.flavor != flavor {
        return Err(source.refuse(
            format!("it is a {}, and the backup of a {flavor}", source.facts.flavor),
            "replicate between servers of one kind",
        ));
    }
    has_what_follows(cx, &mut source, base, at).await?;
    source.session.close().await
}

/// Whether the account that the replica signs in with may be sent anything.
async fn may_replicate(source: &mut Target) -> Result<()> {
    let need = [Need::global(&["REPLICATION SLAVE"])];
    let missing = lacking(source.session.conn(), &source.facts, &need).await?;
    let Some(Privilege { name, grant }) = missing.first() else { return Ok(()) };
    let problem =
        format!("{}: the account may not replicate from there: it lacks {name}", source.options);
    Err(Error::new(ErrorKind::Privilege, problem).with_remedy(format!("run {grant}")))
}

/// Whether the source has these transactions, and still what comes behind them.
async fn has_what_follows(
    cx: &Context,
    source: &mut Target,
    base: &ReplayBase,
    at: Option<&GtidSet>,
) -> Result<()> {
    let no_gtids = || {
        Error::new(ErrorKind::Unreachable, "the backup has no GTIDs, by which a replica goes on")
            .with_remedy(match source.mysql() {
                true => "set gtid_mode to ON at the source and take a backup, or set the replica up by hand",
                false => "take a backup when something was written with log_bin on, or set the replica up by hand",
            })
    };
    let at = at.ok_or_else(no_gtids)?;
    goes_by_gtid(source).await?;
    let have = match source.mysql() {
        true => source.executed().await?,
        // What it wrote, and what it got.
        false => goal(source).await?.union(&source.executed().await?)?,
    };
    let lacking = at.difference(&have)?;
    if !lacking.is_empty() {
        return Err(is_another(&source.options, &lacking.to_string()));
    }
    if source.mysql() {
        let purged = source.value("SELECT @@GLOBAL.gtid_purged").await?;
        let lacking = GtidSet::parse(Flavor::MySql, &purged)?.difference(at)?;
        if !lacking.is_empty() {
            return Err(gone(&source.options, &lacking.to_string()));
        }
        return Ok(());
    }
    wrote(source, base).await?;
    would_send(cx, &source.options, at).await
}

/// MariaDB counts transactions by domain and `server_id`, which another server may have too: the one that the
/// backup was taken from has at the backup's place in its binlog, as long as it has that, the backup's last
/// transaction.
async fn wrote(source: &mut Target, base: &ReplayBase) -> Result<()> {
    let id = u32::try_from(source.facts.server_id).unwrap_or_default();
    let (Some(file), Some(offset), Some(GtidSet::MariaDb(last))) =
        (&base.position.file, base.position.offset, &base.position.gtid)
    else {
        return Ok(());
    };
    if base.server.as_ref() != Some(&BinlogServer::of_id(id)) {
        return Ok(());
    }
    let session = &mut source.session;
    let (begins, there) =
        (logged_until(session, file, 4).await?, logged_until(session, file, offset).await?);
    if begins.is_none() {
        return Ok(());
    }
    let there = match there {
        Some(GtidSet::MariaDb(there)) => there,
        _ => MariaDbGtidSet::default(),
    };
    // Of others it may have got transactions that it did not write, or that it wrote before it began anew.
    let replicated = source.executed().await?;
    let replicated = |gtid| matches!(&replicated, GtidSet::MariaDb(set) if set.covers(gtid));
    let mut own = last.iter().filter(|gtid| gtid.server == id);
    match own.find(|gtid| there.get(gtid.domain) != Some(*gtid) && !replicated(*gtid)) {
        None => Ok(()),
        Some(gtid) => Err(is_another(&source.options, &format!("{gtid} at {file}:{offset}"))),
    }
}

/// Whether a MariaDB would begin to send to a replica that has these transactions.
async fn would_send(cx: &Context, source: &ConnectOptions, at: &GtidSet) -> Result<()> {
    let options = DumpOptions::once(cx);
    match Dump::first_file(source, at, None, &options).await {
        Ok(_) => Ok(()),
        Err(e) => match e.server().map(|said| said.message.clone()) {
            Some(said) if said.contains("purged") => Err(gone(source, &said)),
            Some(said) if said.contains("not in the master's binlog") => {
                Err(is_another(source, &said))
            }
            _ => Err(e),
        },
    }
}

async fn goes_by_gtid(server: &mut Target) -> Result<()> {
    if !server.mysql() {
        return Ok(());
    }
    match server.value("SELECT @@GLOBAL.gtid_mode").await?.as_str() {
        "ON" => Ok(()),
        mode => Err(server.refuse(
            format!("its gtid_mode is {mode}"),
            "set gtid_mode and enforce_gtid_consistency to ON",
        )),
    }
}

/// Tells a server that replicates nothing, and that others cannot reach, where its files are to go on once they
/// are somebody else's: it is configured as a replica of `source`, and not started.
///
/// # Errors
/// What the server says.
pub(crate) async fn configure(
    server: &ConnectOptions,
    source: &ConnectOptions,
    at: &GtidSet,
) -> Result<()> {
    let mut server = Target::open(server).await?;
    tell(&mut server, at).await?;
    if let Some(wrong) = leave_to_source(&mut server.session).await?.pop() {
        return Err(server.refuse(wrong, "restore without --as-replica-of, and set it up by hand"));
    }
    server.session.run(&change(server.facts.flavor, source)?).await?;
    if server.mysql() {
        // Names no relay log of ours any more, or the next server would look for it; where to go on is kept.
        server.session.run("RESET REPLICA").await?;
    }
    server.session.close().await
}

/// Makes `target`, which has the transactions `at`, a replica of `source`, starts it, and waits until it
/// has everything that the source had when this began.
///
/// # Errors
/// [`ErrorKind::Unreachable`] when the source has purged what is needed; [`ErrorKind::Target`] when the
/// replica stops with an error or cannot connect, with what it says. Its replication stays configured
/// then.
pub async fn follow(
    cx: &Context,
    target: &ConnectOptions,
    source: &ConnectOptions,
    at: &GtidSet,
) -> Result<Following> {
    let mut pair = Pair::open(target, source).await?;
    let goal = goal(&mut pair.source).await?;
    tell(&mut pair.target, at).await?;
    let mut warnings = leave_to_source(&mut pair.target.session).await?;
    let ran: Vec<String> = pair.target.session.query_rows(RAN).await?;
    if !ran.is_empty() {
        warnings.push(format!(
            "before they were left to the source, the target itself has run the events {}: compare what they change, or \
             restore again with event_scheduler=OFF there",
            ran.join(", ")
        ));
    }
    if let (GtidSet::MySql(theirs), GtidSet::MySql(own)) = (&goal, &pair.target.executed().await?) {
        let errant = own.subtract(theirs);
        if !errant.is_empty() {
            warnings.push(format!(
                "the replica has transactions that its source has not: {errant}; when it becomes a source \
                 itself, its replicas will ask for them"
            ));
        }
    }
    pair.target.session.run(&change(pair.target.facts.flavor, source)?).await?;
    let start = if pair.target.mysql() { "START REPLICA" } else { "START SLAVE" };
    pair.target.session.run(start).await?;
    let lag_seconds = wait(cx, &mut pair, &goal).await?;
    let gtid = pair.target.executed().await?;
    pair.close().await?;
    Ok(Following { gtid, lag_seconds, warnings })
}

/// Sessions at both servers.
struct Pair {
    source: Target,
    target: Target,
}

impl Pair {
    async fn open(target: &ConnectOptions, source: &ConnectOptions) -> Result<Pair> {
        address(source)?;
        Ok(Pair { source: Target::open(source).await?, target: Target::open(target).await? })
    }

    async fn close(self) -> Result<()> {
        self.source.session.close().await?;
        self.target.session.close().await
    }
}

fn address(source: &ConnectOptions) -> Result<(&str, u16)> {
    match &source.endpoint {
        Endpoint::Tcp { host, port } => Ok((host, *port)),
        Endpoint::Socket(_) => {
            Err(Error::usage("a replica cannot reach its source by a socket of this machine")
                .with_remedy(
                    "name the source as mysql://user@host:port/, as the replica reaches it",
                ))
        }
    }
}

fn is_another(source: &ConnectOptions, what: &str) -> Error {
    Error::new(
        ErrorKind::Source,
        format!("{source} does not have transactions that the new replica will have: {what}"),
    )
    .with_remedy(
        "name the server that the backup is of, or one that took over from it; where that one lost these \
         transactions, restore to a point before them (--to-gtid, --to-time)",
    )
}

fn gone(source: &ConnectOptions, what: &str) -> Error {
    Error::new(
        ErrorKind::Unreachable,
        format!("{source} has purged transactions that the new replica lacks: {what}"),
    )
    .with_remedy(
        "archive its binlogs with `holdfast binlog backup` and restore up to --to-latest, or take a newer \
         backup",
    )
}

/// What the source has now.
async fn goal(source: &mut Target) -> Result<GtidSet> {
    let flavor = source.facts.flavor;
    let name = if source.mysql() { "gtid_executed" } else { "gtid_binlog_pos" };
    let text = source.value(&format!("SELECT @@GLOBAL.{name}")).await?;
    GtidSet::parse(flavor, &text)
}

/// Tells the target which transactions it has.
async fn tell(target: &mut Target, at: &GtidSet) -> Result<()> {
    let executed = target.executed().await?;
    let sql = match (at, &executed) {
        (GtidSet::MySql(at), GtidSet::MySql(executed)) => {
            let untold = at.subtract(executed);
            if untold.is_empty() {
                return Ok(());
            }
            format!("SET GLOBAL gtid_purged = '+{untold}'")
        }
        _ if at.is_subset(&executed)? => return Ok(()),
        _ => format!("SET GLOBAL gtid_slave_pos = '{at}'"),
    };
    target.session.run(&sql).await.map(drop)
}

/// The statement that names the source.
fn change(flavor: Flavor, source: &ConnectOptions) -> Result<String> {
    let (host, port) = address(source)?;
    let quote = |text: &str| text.replace('\\', "\\\\").replace('\'', "''");
    let (host, user) = (quote(host), quote(&source.user));
    let password =
        source.password.as_ref().map(|secret| quote(secret.expose())).unwrap_or_default();
    let mode = source.tls.mode;
    let tls = u8::from(mode != SslMode::Disabled);
    let verified = u8::from(mode >= SslMode::VerifyCa);
    // A file at the replica.
    let ca = match (&source.tls.ca, mode >= SslMode::VerifyCa) {
        (Some(ca), true) => Some(quote(&ca.to_string_lossy())),
        _ => None,
    };
    Ok(match flavor {
        Flavor::MySql => {
            let ca = ca.map(|ca| format!(", SOURCE_SSL_CA = '{ca}'")).unwrap_or_default();
            format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{host}', SOURCE_PORT = {port}, \
                 SOURCE_AUTO_POSITION = 1, SOURCE_SSL = {tls}, SOURCE_SSL_VERIFY_SERVER_CERT = \
                 {verified}{ca}, GET_SOURCE_PUBLIC_KEY = 1, SOURCE_CONNECT_RETRY = 5, SOURCE_USER = \
                 '{user}', SOURCE_PASSWORD = '{password}'"
            )
        }
        Flavor::MariaDb => {
            let ca = ca.map(|ca| format!(", MASTER_SSL_CA = '{ca}'")).unwrap_or_default();
            format!(
                "CHANGE MASTER TO MASTER_HOST = '{host}', MASTER_PORT = {port}, MASTER_USE_GTID = \
                 slave_pos, MASTER_SSL = {tls}, MASTER_SSL_VERIFY_SERVER_CERT = {verified}{ca}, \
                 MASTER_CONNECT_RETRY = 5, MASTER_USER = '{user}', MASTER_PASSWORD = '{password}'"
            )
        }
    })
}

/// Waits until the replica has everything of `goal`. Gives its lag then.
async fn wait(cx: &Context, pair: &mut Pair, goal: &GtidSet) -> Result<Option<u64>> {
    let target = &mut pair.target;
    let names: [&str; 5] = match target.mysql() {
        true => ["Replica_IO_Running", "Replica_SQL_Running", "Seconds_Behind_Source", "1", "0"],
        false => ["Slave_IO_Running", "Slave_SQL_Running", "Seconds_Behind_Master", "1", "0"],
    };
    let began = Instant::now();
    let mut told = Instant::now();
    loop {
        cx.check()?;
        let question = match target.mysql() {
            true => format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{goal}', 1)"),
            false => format!("SELECT MASTER_GTID_WAIT('{goal}', 1)"),
        };
        let there = target.value(&question).await? == "0";
        let rows = target.channels().await?;
        let Some(row) = rows.first() else {
            return Err(
                target.refuse("its replication was removed by somebody else", "start again")
            );
        };
        let running = text(row, names[0]) == "Yes" && text(row, names[1]) == "Yes";
        let lag = text(row, names[2]).parse::<u64>().ok();
        if there && running {
            return Ok(lag);
        }
        if let Some(error) = stopped(target, &pair.source, row, began.elapsed() > CONNECT) {
            return Err(error);
        }
        if told.elapsed() >= TOLD {
            told = Instant::now();
            let lag = lag.map_or("not known yet".to_owned(), |s| format!("{s} s"));
            cx.note(format!("the replica catches up; it is behind by: {lag}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Why the replica does not go on. What it tries again counts once it has had its time.
fn stopped(target: &Target, source: &Target, row: &Row, late: bool) -> Option<Error> {
    let number = |name: &str| text(row, name).parse::<u32>().unwrap_or(0);
    let stays =
        "the replication stays configured there: put that right and start it, or RESET REPLICA ALL";
    let sql = number("Last_SQL_Errno");
    if sql != 0 {
        let said = applier_said(&text(row, "Last_SQL_Error"));
        return Some(
            target.refuse(format!("it cannot apply what it gets: error {sql}: {said}"), stays),
        );
    }
    let io = number("Last_IO_Errno");
    let said = text(row, "Last_IO_Error");
    // 1236, and 13114 with that inside: the source has no such binlogs.
    if matches!(io, 1236 | 13114) {
        return Some(gone(&source.options, &said));
    }
    let running = text(row, if target.mysql() { "Replica_IO_Running" } else { "Slave_IO_Running" });
    if io != 0 && (late || running == "No") {
        return Some(
            target.refuse(format!("it cannot read from its source: error {io}: {said}"), stays),
        );
    }
    None
}
