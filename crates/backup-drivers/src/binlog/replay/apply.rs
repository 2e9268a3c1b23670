//! The target's side of a replay: looked at, told to replicate, waited for, left as it was.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backup_core::{
    Context, Error, ErrorKind, Event, Flavor, GtidSet, Result, Secret, SegmentStore, Uuid,
};
use mysql_async::Row;

use super::super::route::Route;
use super::serve::Server;
use super::session::Identity;
use super::settings::Settings;
use crate::connect::{ConnectOptions, Endpoint, Session};
use crate::logical::inventory::{self, ServerFacts};

/// How a replay is done.
#[derive(Debug, Clone, Default)]
pub struct ApplyOptions {
    /// Whether the transactions that the route begins with were restored without their GTIDs, so that
    /// the target has to be told that it has them.
    pub tell_applied: bool,
    /// The address of ours that the target connects to; found by itself where there is none.
    pub listen: Option<IpAddr>,
    /// How many workers apply; without a number, four, or more where the machine has more cores.
    pub workers: Option<usize>,
}

/// What a replay did.
#[derive(Debug, Clone)]
pub struct Applied {
    /// What the target has now; `None` where there are no GTIDs.
    pub gtid: Option<GtidSet>,
    /// Length of what was applied, in bytes.
    pub bytes: u64,
    /// What needs a look.
    pub warnings: Vec<String>,
}

/// The name of the channel, where channels have names.
const CHANNEL: &str = "holdfast";
/// How long one question to the server waits.
const ROUND: u32 = 1;

/// Applies a route to `target`, whose data stand where the route begins. Returns when the last
/// transaction is applied.
///
/// # Errors
/// [`ErrorKind::Target`] when the target is in no state for it, or cannot apply a transaction;
/// [`ErrorKind::Damaged`] when the archive is damaged, with everything before the damage applied;
/// [`ErrorKind::Privilege`].
pub async fn apply(
    cx: &Context,
    target: &ConnectOptions,
    store: Arc<dyn SegmentStore>,
    route: Arc<Route>,
    options: &ApplyOptions,
) -> Result<Applied> {
    let mut applier = Applier::new(cx, target, route, options).await?;
    applier.check().await?;
    let outcome = applier.run(store).await;
    let ended = applier.clean_up(outcome.is_ok()).await;
    let bytes = outcome?;
    let gtid = ended?;
    for text in &applier.warnings {
        cx.event(Event::Warning { text: text.clone() });
    }
    Ok(Applied { gtid, bytes, warnings: applier.warnings })
}

/// Looks whether a replay could be done, and changes nothing (but for what an earlier replay left that
/// was killed).
///
/// # Errors
/// As [`apply`], before it does anything.
pub async fn preflight(
    cx: &Context,
    target: &ConnectOptions,
    route: &Arc<Route>,
    options: &ApplyOptions,
) -> Result<()> {
    let mut applier = Applier::new(cx, target, Arc::clone(route), options).await?;
    applier.check().await?;
    applier.session.close().await
}

/// Where a server stands: the transactions it has, as far as a replay goes on from there.
///
/// # Errors
/// As [`Session::query_first`]; [`ErrorKind::Target`] for a server without GTIDs.
pub async fn position(target: &ConnectOptions) -> Result<GtidSet> {
    let mut session = Session::open(target).await?;
    let facts = inventory::server(session.conn()).await?;
    let name = match facts.flavor {
        Flavor::MySql => "gtid_executed",
        Flavor::MariaDb => "gtid_slave_pos",
    };
    let text: Option<Option<String>> =
        session.query_first(&format!("SELECT @@GLOBAL.{name}")).await?;
    session.close().await?;
    GtidSet::parse(facts.flavor, &text.flatten().unwrap_or_default())
}

struct Applier<'a> {
    cx: &'a Context,
    target: &'a ConnectOptions,
    session: Session,
    facts: ServerFacts,
    route: Arc<Route>,
    options: &'a ApplyOptions,
    settings: Settings,
    warnings: Vec<String>,
    /// The target was told to replicate from us.
    configured: bool,
    /// What the target signs in with.
    login: Option<(String, Secret)>,
}

impl<'a> Applier<'a> {
    async fn new(
        cx: &'a Context,
        target: &'a ConnectOptions,
        route: Arc<Route>,
        options: &'a ApplyOptions,
    ) -> Result<Applier<'a>> {
        let mut session = Session::open(target).await?;
        let facts = inventory::server(session.conn()).await?;
        Ok(Applier {
            cx,
            target,
            session,
            facts,
            route,
            options,
            settings: Settings::default(),
            warnings: Vec::new(),
            configured: false,
            login: None,
        })
    }

    fn mysql(&self) -> bool {
        self.facts.flavor == Flavor::MySql
    }

    fn refuse(&self, problem: impl std::fmt::Display, remedy: &'static str) -> Error {
        Error::new(ErrorKind::Target, format!("{}: {problem}", self.target)).with_remedy(remedy)
    }

    async fn value(&mut self, sql: &str) -> Result<String> {
        let row: Option<Row> = self.session.query_first(sql).await?;
        let value = row.and_then(|row| row.get_opt::<Option<String>, _>(0)?.ok()?);
        Ok(value.unwrap_or_default())
    }

    fn status_statement(&self) -> &'static str {
        if self.mysql() { "SHOW REPLICA STATUS" } else { "SHOW SLAVE STATUS" }
    }

    /// Refuses a target that a replay would harm, before anything is changed.
    async fn check(&mut self) -> Result<()> {
        let flavor = self.route.files.first().map(|file| file.format.is_mariadb());
        if flavor.is_some_and(|mariadb| mariadb == self.mysql()) {
            return Err(self.refuse(
                format!("it is a {}, and the binlogs are not", self.facts.flavor),
                "restore to a server of the kind that wrote them",
            ));
        }
        self.remove_leftover().await?;
        let rows: Vec<Row> = self.session.query_rows(self.status_statement()).await?;
        if !rows.is_empty() {
            return Err(self.refuse(
                "it is a replica of another server",
                "stop it and remove that with RESET REPLICA ALL, or choose another target",
            ));
        }
        if self.mysql() {
            let mode = self.value("SELECT @@GLOBAL.gtid_mode").await?;
            match (&self.route.applied, mode.as_str()) {
                (Some(_), "ON") => {}
                (Some(_), _) => {
                    return Err(self.refuse(
                        format!("its gtid_mode is {mode}, and the transactions have GTIDs"),
                        "set gtid_mode to ON and enforce_gtid_consistency to ON at the target",
                    ));
                }
                (None, "ON" | "ON_PERMISSIVE") => {
                    return Err(self.refuse(
                        format!("its gtid_mode is {mode}, and the transactions have no GTIDs"),
                        "set gtid_mode to OFF at the target for the restore",
                    ));
                }
                (None, _) => {}
            }
            let filters = self
                .value("SELECT COUNT(*) FROM performance_schema.replication_applier_global_filters")
                .await?;
            if filters != "0" {
                return Err(self.refuse(
                    "it has replication filters, which would leave transactions out",
                    "remove them with CHANGE REPLICATION FILTER",
                ));
            }
        } else {
            let sql = "SHOW GLOBAL VARIABLES WHERE Value <> '' AND Variable_name IN \
                       ('replicate_do_db', 'replicate_do_table', 'replicate_ignore_db', \
                        'replicate_ignore_table', 'replicate_wild_do_table', \
                        'replicate_wild_ignore_table', 'replicate_rewrite_db')";
            let filters: Vec<(String, String)> = self.session.query_rows(sql).await?;
            if let Some((name, value)) = filters.first() {
                return Err(self.refuse(
                    format!("its replication filter {name} = {value} would leave transactions out"),
                    "set it to an empty value for the restore",
                ));
            }
        }
        self.check_executed().await
    }

    /// What a replay left that was killed.
    async fn remove_leftover(&mut self) -> Result<()> {
        let rows: Vec<Row> = self.session.query_rows(self.status_statement()).await?;
        for row in &rows {
            let text = |name: &str| {
                row.get_opt::<Option<String>, _>(name)
                    .and_then(Result::ok)
                    .flatten()
                    .unwrap_or_default()
            };
            let ours = if self.mysql() {
                text("Channel_Name") == CHANNEL
            } else {
                text("Master_User").starts_with(USER)
            };
            if ours {
                self.stop().await?;
            }
        }
        Ok(())
    }

    /// `gtid_executed`, or `gtid_slave_pos`.
    async fn executed(&mut self) -> Result<GtidSet> {
        let name = if self.mysql() { "gtid_executed" } else { "gtid_slave_pos" };
        let text = self.value(&format!("SELECT @@GLOBAL.{name}")).await?;
        GtidSet::parse(self.facts.flavor, &text)
    }

    /// Fails where the target would skip what is to come: it has those GTIDs already.
    async fn check_executed(&mut self) -> Result<()> {
        let route = Arc::clone(&self.route);
        let (Some(GtidSet::MySql(applied)), Some(GtidSet::MySql(reached))) =
            (&route.applied, &route.reached)
        else {
            return Ok(());
        };
        let GtidSet::MySql(executed) = self.executed().await? else { return Ok(()) };
        let known = reached.subtract(applied).intersect(&executed);
        if !known.is_empty() {
            return Err(self.refuse(
                format!(
                    "its gtid_executed has {} of the transactions that are to be applied already, \
                     so that it would skip them",
                    known.count()
                ),
                "restore to another server; or, where this is the old one and its binlogs are \
                 archived, run RESET BINARY LOGS AND GTIDS there first",
            ));
        }
        let untold = applied.subtract(&executed);
        if !untold.is_empty() && !self.options.tell_applied {
            return Err(self.refuse(
                format!("it lacks transactions that come before: {untold}"),
                "begin with a backup",
            ));
        }
        Ok(())
    }

    /// Tells the target which transactions it has.
    async fn begin_at(&mut self, applied: &GtidSet) -> Result<()> {
        if !self.options.tell_applied {
            return Ok(());
        }
        if let GtidSet::MySql(applied) = applied {
            if let GtidSet::MySql(executed) = self.executed().await? {
                let untold = applied.subtract(&executed);
                if !untold.is_empty() {
                    self.session.run(&format!("SET GLOBAL gtid_purged = '+{untold}'")).await?;
                }
            }
        } else {
            self.settings.set(&mut self.session, "gtid_strict_mode", "OFF").await?;
            self.session.run(&format!("SET GLOBAL gtid_slave_pos = '{applied}'")).await?;
        }
        Ok(())
    }

    async fn run(&mut self, store: Arc<dyn SegmentStore>) -> Result<u64> {
        let route = Arc::clone(&self.route);
        if let Some(applied) = &route.applied {
            self.begin_at(applied).await?;
        }
        if route.is_empty() {
            return Ok(0);
        }
        let flavor = self.facts.flavor;
        self.settings.set(&mut self.session, "event_scheduler", "OFF").await?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = self.options.workers.unwrap_or(cores.max(4));
        self.settings.hurry(&mut self.session, flavor, workers).await?;
        // Events of a server with the target's own id would be dropped, silently.
        let id = 1 << 30 | u32::from_le_bytes(self.cx.random()) >> 3;
        if !self.settings.set(&mut self.session, "server_id", &id.to_string()).await? {
            return Err(Error::new(
                ErrorKind::Privilege,
                format!("{}: the account may not change server_id for the replay", self.target),
            )
            .with_remedy("grant SYSTEM_VARIABLES_ADMIN (MySQL) or BINLOG ADMIN (MariaDB)"));
        }
        let told = self.settings.told();
        self.cx.note(format!("settings of the target that are put back at the end: {told}"));
        let server = self.serve(store, &route).await?;
        self.cx.progress().expect_bytes(route.bytes);
        self.start(server.address).await?;
        self.wait(&server, &route).await?;
        Ok(server.state.sent.load(Ordering::Relaxed))
    }

    async fn serve(&mut self, store: Arc<dyn SegmentStore>, route: &Arc<Route>) -> Result<Server> {
        let gtid_mode = match self.mysql() {
            true => self.value("SELECT @@GLOBAL.gtid_mode").await?,
            false => String::new(),
        };
        let secret: [u8; 12] = self.cx.random();
        let first = &route.files[0].format;
        let identity = Identity {
            flavor: self.facts.flavor,
            version: first.version.clone(),
            server_id: 1 << 30 | u32::from_le_bytes(self.cx.random()) >> 3 | 1 << 29,
            uuid: Uuid::from_bytes(self.cx.random()),
            user: format!("{USER}{:08x}", u32::from_le_bytes(self.cx.random())),
            password: Secret::new(secret.iter().map(|b| format!("{b:02x}")).collect::<String>()),
            gtid_mode,
            checksum: first.checksum,
        };
        let host = match self.options.listen {
            Some(host) => host,
            None => our_address(&self.target.endpoint).await?,
        };
        self.login = Some((identity.user.clone(), identity.password.clone()));
        Server::start(self.cx, host, store, Arc::clone(route), identity).await
    }

    /// Tells the target to replicate from us.
    async fn start(&mut self, address: SocketAddr) -> Result<()> {
        let (user, password) =
            self.login.clone().unwrap_or_else(|| (String::new(), Secret::new("")));
        let password = password.expose();
        let (host, port) = (address.ip(), address.port());
        let statements = if self.mysql() {
            let place = match &self.route.applied {
                Some(_) => "SOURCE_AUTO_POSITION = 1".to_owned(),
                None => {
                    let file = &self.route.files[0];
                    let position = file.begin.max(file.segments[0].range.start).max(4);
                    format!(
                        "SOURCE_AUTO_POSITION = 0, SOURCE_LOG_FILE = '{}', SOURCE_LOG_POS = {position}",
                        file.name
                    )
                }
            };
            [
                format!(
                    "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{host}', SOURCE_PORT = {port}, \
                     {place}, SOURCE_SSL = 0, SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = 100, \
                     SOURCE_HEARTBEAT_PERIOD = 2 FOR CHANNEL '{CHANNEL}'"
                ),
                format!(
                    "START REPLICA USER = '{user}' PASSWORD = '{password}' FOR CHANNEL '{CHANNEL}'"
                ),
            ]
        } else {
            [
                format!(
                    "CHANGE MASTER TO MASTER_HOST = '{host}', MASTER_PORT = {port}, \
                     MASTER_USER = '{user}', MASTER_PASSWORD = '{password}', \
                     MASTER_USE_GTID = slave_pos, MASTER_SSL = 0, \
                     MASTER_SSL_VERIFY_SERVER_CERT = 0, MASTER_HEARTBEAT_PERIOD = 2, \
                     MASTER_CONNECT_RETRY = 1"
                ),
                "START SLAVE".to_owned(),
            ]
        };
        self.configured = true;
        for sql in &statements {
            self.session.run(sql).await?;
        }
        Ok(())
    }

    /// Waits until the target has applied everything, and fails when it cannot.
    async fn wait(&mut self, server: &Server, route: &Route) -> Result<()> {
        let last = route.last.as_ref().map(|last| last.end).unwrap_or_default();
        let question = match (&route.reached, self.mysql()) {
            (Some(reached), true) => {
                format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{}', {ROUND})", served(reached, route))
            }
            (Some(reached), false) => format!("SELECT MASTER_GTID_WAIT('{reached}', {ROUND})"),
            (None, _) => {
                let file = route.files.last().map(|file| file.name.clone()).unwrap_or_default();
                format!("SELECT SOURCE_POS_WAIT('{file}', {last}, {ROUND}, '{CHANNEL}')")
            }
        };
        let mut told = 0;
        loop {
            self.cx.check()?;
            let row: Option<Row> = self.session.query_first(&question).await?;
            let answer = row.and_then(|row| row.get_opt::<Option<i64>, _>(0)?.ok()?);
            // 0: it is there. 1 (MySQL) and -1: the time is over. NULL: the applier does not run.
            let there = match (&route.reached, answer) {
                (None, Some(n)) => n >= 0,
                (Some(_), answer) => answer == Some(0),
                (None, None) => false,
            };
            if there {
                return Ok(());
            }
            let failed = server
                .state
                .failed
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .take();
            if let Some(error) = failed {
                return Err(error.context("the archive cannot be served to the target"));
            }
            self.check_applier().await?;
            let sent = server.state.sent.load(Ordering::Relaxed);
            self.cx.progress().add_bytes(sent - told);
            told = sent;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Fails when receiver or applier stopped with an error.
    async fn check_applier(&mut self) -> Result<()> {
        if self.mysql() {
            let sql = "SELECT LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE, LAST_SEEN_TRANSACTION \
                       FROM (SELECT LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE, \
                             LAST_APPLIED_TRANSACTION AS applied, \
                             APPLYING_TRANSACTION AS LAST_SEEN_TRANSACTION \
                             FROM performance_schema.replication_applier_status_by_worker \
                             WHERE CHANNEL_NAME = 'holdfast' AND LAST_ERROR_NUMBER NOT IN (0, 3030) \
                             UNION ALL \
                             SELECT LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE, '', '' \
                             FROM performance_schema.replication_connection_status \
                             WHERE CHANNEL_NAME = 'holdfast' AND LAST_ERROR_NUMBER NOT IN (0, 2003, 2013) \
                             AND SERVICE_STATE = 'OFF') AS errors LIMIT 1";
            let row: Option<(u32, String, String)> = self.session.query_first(sql).await?;
            if let Some((number, text, gtid)) = row {
                return Err(self.stopped(number, &text, &gtid));
            }
            return Ok(());
        }
        let row: Option<Row> = self.session.query_first(self.status_statement()).await?;
        let Some(row) = row else {
            return Err(self.refuse("its replication was removed by somebody else", "start again"));
        };
        let text = |name: &str| {
            row.get_opt::<Option<String>, _>(name)
                .and_then(Result::ok)
                .flatten()
                .unwrap_or_default()
        };
        for (number, message, running) in [
            ("Last_SQL_Errno", "Last_SQL_Error", "Slave_SQL_Running"),
            ("Last_IO_Errno", "Last_IO_Error", "Slave_IO_Running"),
        ] {
            let code: u32 = text(number).parse().unwrap_or(0);
            if code != 0 && text(running) == "No" {
                return Err(self.stopped(code, &text(message), &text("Gtid_IO_Pos")));
            }
        }
        Ok(())
    }

    fn stopped(&self, number: u32, text: &str, gtid: &str) -> Error {
        let which = if gtid.is_empty() { String::new() } else { format!(" at {gtid}") };
        Error::new(
            ErrorKind::Target,
            format!("{} cannot apply the binlog{which}: error {number}: {text}", self.target),
        )
        .with_remedy(
            "everything before it is applied; leave that transaction out with --skip-gtid where \
             that is right, and restore again",
        )
    }

    async fn stop(&mut self) -> Result<()> {
        let statements = if self.mysql() {
            [
                format!("STOP REPLICA FOR CHANNEL '{CHANNEL}'"),
                format!("RESET REPLICA ALL FOR CHANNEL '{CHANNEL}'"),
            ]
        } else {
            ["STOP SLAVE".to_owned(), "RESET SLAVE ALL".to_owned()]
        };
        for sql in statements {
            self.session.run(&sql).await?;
        }
        Ok(())
    }

    /// Leaves nothing of ours at the target, whatever happened, and looks that it has what it should.
    async fn clean_up(&mut self, done: bool) -> Result<Option<GtidSet>> {
        // The session may have been cut off in the middle of a question.
        match Session::open(self.target).await {
            Ok(session) => self.session = session,
            Err(e) if !done => {
                self.cx.event(Event::Warning {
                    text: format!("the target is out of reach and not cleaned up: {}", e.chain()),
                });
                return Ok(None);
            }
            Err(e) => return Err(e),
        }
        let stopped = if self.configured { self.stop().await } else { Ok(()) };
        self.settings.put_back(self.cx, &mut self.session).await;
        if !done {
            if let Err(e) = stopped {
                self.cx.event(Event::Warning {
                    text: format!("the target still replicates from us: {}", e.chain()),
                });
            }
            return Ok(None);
        }
        stopped?;
        // What was written while nobody waited for the disk.
        for sql in ["FLUSH LOCAL ENGINE LOGS", "FLUSH LOCAL BINARY LOGS"] {
            if let Err(e) = self.session.run(sql).await {
                self.warnings
                    .push(format!("what was applied may not be on disk yet: {}", e.chain()));
            }
        }
        let prepared: Vec<Row> = match self.session.query_rows("XA RECOVER").await {
            Ok(rows) => rows,
            Err(e) if e.kind() == ErrorKind::Privilege => Vec::new(),
            Err(e) => return Err(e),
        };
        if !prepared.is_empty() {
            self.warnings.push(format!(
                "{} XA transactions are prepared and neither committed nor rolled back at this \
                 point; XA RECOVER lists them",
                prepared.len()
            ));
        }
        let Some(reached) = self.route.reached.clone() else { return Ok(None) };
        let executed = self.executed().await?;
        let missing = served_set(&reached, &self.route).difference(&executed)?;
        if !missing.is_empty() {
            return Err(Error::internal(format!(
                "the target waited for {reached} and has {executed} now: {missing} is missing"
            )));
        }
        Ok(Some(executed))
    }
}

/// The set without what was omitted.
fn served_set(reached: &GtidSet, route: &Route) -> GtidSet {
    use super::super::route::Skipping;
    match (reached, route.skipping) {
        (GtidSet::MySql(set), Skipping::Omitted) => {
            let omitted = route.skip.iter().filter_map(|gtid| match gtid {
                backup_core::Gtid::MySql(gtid) => Some(gtid.clone()),
                backup_core::Gtid::MariaDb(_) => None,
            });
            GtidSet::MySql(set.subtract(&omitted.collect()))
        }
        _ => reached.clone(),
    }
}

fn served(reached: &GtidSet, route: &Route) -> String {
    served_set(reached, route).to_string()
}

/// What our accounts begin with.
const USER: &str = "holdfast-";

/// The address of this machine that the target can reach.
async fn our_address(target: &Endpoint) -> Result<IpAddr> {
    let Endpoint::Tcp { host, port } = target else { return Ok(Ipv4Addr::LOCALHOST.into()) };
    let failed = |e| {
        backup_core::io_error(e, ErrorKind::Target, format!("cannot find our address for {host}"))
            .with_remedy("name the address that the target can connect to")
    };
    let stream = tokio::net::TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
    Ok(stream.local_addr().map_err(failed)?.ip())
}
