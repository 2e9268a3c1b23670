//! One replay, from the first look at the target to leaving it as it was.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use backup_core::{
    Context, Error, ErrorKind, Event, Flavor, Gtid, GtidSet, Result, Secret, SegmentStore, Uuid,
    io_error,
};
use mysql_async::Row;
use tokio::time::timeout;

use super::super::route::Route;
use super::allowed;
use super::check;
use super::direct::{Direct, mark};
use super::events::{self, Events, Heard};
use super::executed::{self, When};
use super::options::{Applied, ApplyOptions, Means};
use super::remedy::PRIVATE_SPACE;
use super::replica::{self, PATIENCE, Replica, USER, served_set, unanswered};
use super::room::Room;
use super::serve::{Server, State};
use super::session::Identity;
use super::settings::{SCHEDULER, Settings};
use super::stall;
use super::target::Target;
use crate::connect::{ConnectOptions, Endpoint};

/// How long a MySQL may take to stop after a failure, in seconds.
const STOP: u32 = 10;

/// Said of a MySQL that died while binlogs were applied. It counts as applied what is in its binlog.
const RESTARTED: &str = "the target was restarted while binlogs were applied, when commits did not wait for its disk. Where its \
     server alone died, nothing is missing; where its whole machine did (power, kernel), it may count transactions \
     as applied whose data are lost: restore again then";

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
    let mut applier = Applier::new(cx, target, store, route, options).await?;
    let when = applier.when();
    applier.may_not_replicate = applier.check(when, false).await?.is_some();
    applier.room = Room::of(&mut applier.target).await?;
    let outcome = applier.run().await.map_err(|e| applier.room.explain(e));
    let outcome = outcome.map_err(|e| match (e.kind(), options.private) {
        (ErrorKind::Space, true) => e.with_remedy(PRIVATE_SPACE),
        _ => e,
    });
    let ended = applier.clean_up(outcome.is_ok()).await;
    let bytes = outcome?;
    let gtid = ended?;
    for text in &applier.warnings {
        cx.event(Event::Warning { text: text.clone() });
    }
    Ok(Applied { gtid, bytes, warnings: applier.warnings })
}

/// Looks whether a replay could be done, and changes nothing (but for what an earlier replay left that
/// was killed). Where the route's beginning is to be restored first (`tell_applied`), this is to be
/// asked before: after the restore, what the target has of its own is harder to tell apart.
///
/// # Errors
/// As [`apply`], before it does anything.
pub async fn preflight(
    cx: &Context,
    target: &ConnectOptions,
    store: Arc<dyn SegmentStore>,
    route: &Arc<Route>,
    options: &ApplyOptions,
) -> Result<()> {
    let mut applier = Applier::new(cx, target, store, Arc::clone(route), options).await?;
    let when = if options.tell_applied { When::BeforeRestore } else { When::GoingOn };
    if let Some(lacks) = applier.check(when, true).await? {
        cx.event(Event::Warning {
            text: format!(
                "the account at {target} lacks {lacks} to replicate from here, so everything goes over a \
                 client connection, which is slower"
            ),
        });
    }
    applier.target.session.close().await
}

struct Applier<'a> {
    cx: &'a Context,
    target: Target,
    store: Arc<dyn SegmentStore>,
    route: Arc<Route>,
    options: &'a ApplyOptions,
    settings: Settings,
    warnings: Vec<String>,
    /// The target was told to replicate from us.
    configured: bool,
    /// Its scheduled events before.
    events: Option<Events>,
    /// What was said of them since.
    heard: Heard,
    /// The account lacks what it takes to be a replica.
    may_not_replicate: bool,
    /// It was applied over a client connection.
    direct: bool,
    /// A MariaDB applies at once only what was committed at once at its source.
    careful: bool,
    /// How the target's disks were.
    room: Room,
}

impl<'a> Applier<'a> {
    async fn new(
        cx: &'a Context,
        target: &ConnectOptions,
        store: Arc<dyn SegmentStore>,
        route: Arc<Route>,
        options: &'a ApplyOptions,
    ) -> Result<Applier<'a>> {
        let mut target = Target::open(target).await?;
        if options.private {
            // Its socket is gone with it.
            target.name = "the private server".to_owned();
        }
        Ok(Applier {
            cx,
            target,
            store,
            route,
            options,
            settings: Settings::default(),
            warnings: Vec::new(),
            configured: false,
            events: None,
            heard: Heard::default(),
            may_not_replicate: false,
            direct: false,
            careful: false,
            room: Room::default(),
        })
    }

    /// Refuses a target that a replay would harm, before anything is changed. Gives what the account lacks
    /// to be a replica, where that is not what it has to be. `look`: it is asked again before anything is done.
    async fn check(&mut self, when: When, look: bool) -> Result<Option<String>> {
        let ApplyOptions { private, again, means, .. } = *self.options;
        check::family(&self.target, &self.route)?;
        let lacks = match private {
            true => None,
            false => self.check_account(self.options, when).await?,
        };
        let means = if lacks.is_some() { Means::Direct } else { means };
        check::check(&mut self.target, &self.route, private, means).await?;
        let earlier = Settings::recall(self.cx, &mut self.target.session, look).await?;
        if !look {
            if earlier.killed {
                self.warnings.extend(events::left_disabled(&mut self.target.session).await?);
            }
            self.settings = earlier.kept;
        }
        if earlier.restarted
            && self.target.mysql()
            && self.target.value("SELECT @@GLOBAL.log_bin").await? == "1"
        {
            self.warnings.push(RESTARTED.into());
        }
        self.check_executed(when, again).await.map(|()| lacks)
    }

    async fn check_account(
        &mut self,
        options: &ApplyOptions,
        when: When,
    ) -> Result<Option<String>> {
        let (cx, route) = (self.cx, Arc::clone(&self.route));
        allowed::check(cx, &mut self.target, &*self.store, &route, options, when).await
    }

    async fn check_executed(&mut self, when: When, again: bool) -> Result<()> {
        // A run over a client connection goes on where it says.
        if when == When::GoingOn
            && let Some(applied) = &self.route.applied
            && let Some(marked) = mark::read(&mut self.target).await?
            && applied.is_subset(&marked)?
        {
            return Ok(());
        }
        // What a MySQL server has of it, it skips: that is never right.
        if again && !(self.target.mysql() && self.route.applied.is_some()) {
            return Ok(());
        }
        executed::check(self.cx, &mut self.target, &*self.store, &self.route, when, again).await
    }

    /// When it is that binlogs are applied.
    fn when(&self) -> When {
        match (self.options.tell_applied, self.options.private) {
            (false, _) => When::GoingOn,
            (true, true) => When::Private,
            (true, false) => When::AfterRestore,
        }
    }

    /// Tells the target which transactions it has.
    async fn begin_at(&mut self, applied: &GtidSet) -> Result<()> {
        if !self.options.tell_applied {
            return Ok(());
        }
        let session = &mut self.target.session;
        if let GtidSet::MySql(applied) = applied {
            if let GtidSet::MySql(executed) = self.target.executed().await? {
                let untold = applied.subtract(&executed);
                if !untold.is_empty() {
                    let sql = format!("SET GLOBAL gtid_purged = '+{untold}'");
                    self.target.session.run(&sql).await?;
                }
            }
        } else {
            self.settings.set(session, "gtid_strict_mode", "OFF").await?;
            session.run(&format!("SET GLOBAL gtid_slave_pos = '{applied}'")).await?;
        }
        Ok(())
    }

    /// Tables of the source may have directories there, which are not for a private server.
    async fn keep_to_its_directory(&mut self) -> Result<()> {
        let mysql = self.target.mysql();
        let session = &mut self.target.session;
        let links: Option<(String, String)> =
            session.query_first("SHOW GLOBAL VARIABLES LIKE 'have_symlink'").await?;
        // A MariaDB without links passes the directories over. In the mode below it refuses them where the statement
        // itself is strict.
        if !mysql && links.is_some_and(|(_, links)| links == "DISABLED") {
            return Ok(());
        }
        // The applier keeps this whatever mode a statement has.
        let sql = "SET GLOBAL sql_mode = CONCAT_WS(',', NULLIF(@@GLOBAL.sql_mode, ''), 'NO_DIR_IN_CREATE')";
        session.run(sql).await.map(drop)
    }

    async fn run(&mut self) -> Result<u64> {
        let route = Arc::clone(&self.route);
        if self.options.tell_applied {
            // What it says is of data that are there no more.
            mark::forget(&mut self.target).await?;
        }
        if let Some(applied) = &route.applied {
            match self.begin_at(applied).await {
                // A mark says it then.
                Err(e)
                    if e.kind() == ErrorKind::Privilege && self.options.means != Means::Replica => {
                }
                other => other?,
            }
        }
        self.events = Some(Events::of(&mut self.target.session).await?);
        if route.is_empty() {
            // A run over a client connection may have been stopped when only its mark was left.
            if !self.target.mysql() {
                match mark::hand_over(&mut self.target).await {
                    Err(e) if e.kind() == ErrorKind::Privilege => {}
                    other => other?,
                }
            }
            return Ok(0);
        }
        if self.options.private {
            self.keep_to_its_directory().await?;
        }
        match self.options.means {
            Means::Direct => self.run_direct().await,
            Means::Auto if self.may_not_replicate => self.run_direct().await,
            Means::Replica => self.run_as_replica(&route).await,
            Means::Auto => match self.run_as_replica(&route).await {
                Err(e) if e.kind() == ErrorKind::Privilege || replica::is_out_of_reach(&e) => {
                    self.cx.event(Event::Warning {
                        text: format!(
                            "the target cannot replicate from here, so everything goes over a client \
                             connection, which is slower: {}",
                            e.chain()
                        ),
                    });
                    self.target.open_again().await?;
                    if self.configured {
                        Replica::stop(&mut self.target).await?;
                        self.configured = false;
                    }
                    self.settings.put_back(self.cx, &mut self.target.session, true).await;
                    // Until now it seemed that nobody would ask for that.
                    let direct = ApplyOptions { means: Means::Direct, ..self.options.clone() };
                    self.check_account(&direct, self.when()).await?;
                    self.run_direct().await
                }
                other => other,
            },
        }
    }

    /// Over a client connection.
    async fn run_direct(&mut self) -> Result<u64> {
        self.direct = true;
        let logged = self.target.value("SELECT @@GLOBAL.log_bin").await? == "1";
        self.settings.wait_for_no_disk(&mut self.target.session, logged).await?;
        for (name, value) in [
            (SCHEDULER, "OFF"),
            // A change of rows is a third longer as a statement; 1 GiB is the most that servers take.
            ("max_allowed_packet", "1073741824"),
        ] {
            self.settings.set(&mut self.target.session, name, value).await?;
        }
        if let Some(demands) = self.route.demands.get() {
            for (name, wanted) in [
                ("local_infile", demands.loads.is_some()),
                ("log_bin_trust_function_creators", !demands.code.is_empty()),
            ] {
                if wanted {
                    self.settings.set(&mut self.target.session, name, "ON").await?;
                }
            }
        }
        // What a packet may be is asked when a session begins.
        self.target.open_again().await?;
        if !self.target.mysql() {
            self.settings.set(&mut self.target.session, "gtid_strict_mode", "OFF").await?;
        }
        self.expect();
        let (route, again) = (Arc::clone(&self.route), self.options.again);
        let heard = Arc::clone(&self.heard);
        let mut direct = Direct::begin(self.cx, &mut self.target, route, again, heard).await?;
        let (bytes, warning) = direct.run(Arc::clone(&self.store)).await?;
        self.warnings.extend(warning);
        Ok(bytes)
    }

    /// By the target's own applier.
    async fn run_as_replica(&mut self, route: &Arc<Route>) -> Result<u64> {
        mark::hand_over(&mut self.target).await?;
        self.change_settings().await?;
        let server = self.serve(route).await?;
        self.expect();
        self.configured = true;
        server.replica.start(&mut self.target, route).await?;
        Replica::wait(self.cx, &mut self.target, &*self.store, &server, route, &self.room).await?;
        Ok(server.state.sent())
    }

    /// Says how much there is to do.
    fn expect(&self) {
        self.cx.progress().expect_bytes(self.route.bytes);
        self.cx.progress().expect_transactions(self.route.transactions);
    }

    /// Makes the target apply as fast as it can, and everything that is sent.
    async fn change_settings(&mut self) -> Result<()> {
        let flavor = self.target.facts.flavor;
        let updates = match flavor {
            Flavor::MySql => "log_replica_updates",
            Flavor::MariaDb => "log_slave_updates",
        };
        let sql = format!("SELECT @@GLOBAL.log_bin AND @@GLOBAL.{updates}");
        let logged = self.target.value(&sql).await? == "1";
        let session = &mut self.target.session;
        self.settings.set(session, SCHEDULER, "OFF").await?;
        // The applier begins its transactions as everybody does. MariaDB before 11.1 has the second name alone.
        for name in ["transaction_read_only", "tx_read_only"] {
            self.settings.set(session, name, "OFF").await?;
        }
        self.settings.wait_for_no_disk(session, logged).await?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = self.options.workers.unwrap_or(cores.max(4));
        // Where the last one stands for all, it has to be the last.
        let in_order = self.route.is_narrowed();
        self.careful = flavor == Flavor::MariaDb && stall::has_sequences(session).await?;
        self.settings.hurry(session, flavor, workers, in_order, self.careful).await?;
        // Events of a server with the target's own id would be dropped, silently.
        let id = 1 << 30 | u32::from_le_bytes(self.cx.random()) >> 3;
        if !self.settings.set(session, "server_id", &id.to_string()).await? {
            return Err(Error::new(
                ErrorKind::Privilege,
                format!(
                    "{}: the account may not change server_id for the replay",
                    self.target.options
                ),
            )
            .with_remedy(
                "grant SYSTEM_VARIABLES_ADMIN (MySQL) or REPLICATION MASTER ADMIN (MariaDB)",
            ));
        }
        let told = self.settings.told();
        self.cx.note(format!("settings of the target that are put back at the end: {told}"));
        Ok(())
    }

    async fn serve(&mut self, route: &Arc<Route>) -> Result<Server> {
        let gtid_mode = match self.target.mysql() {
            true => self.target.value("SELECT @@GLOBAL.gtid_mode").await?,
            false => String::new(),
        };
        let host = match self.options.listen {
            Some(host) => host,
            None => our_address(&self.target.options.endpoint).await?,
        };
        let secret: [u8; 12] = self.cx.random();
        let first = &route.files[0].format;
        let identity = Identity {
            flavor: self.target.facts.flavor,
            version: first.version.clone(),
            server_id: 1 << 30 | u32::from_le_bytes(self.cx.random()) >> 3 | 1 << 29,
            uuid: Uuid::from_bytes(self.cx.random()),
            user: format!("{USER}{:08x}", u32::from_le_bytes(self.cx.random())),
            password: Secret::new(secret.iter().map(|b| format!("{b:02x}")).collect::<String>()),
            gtid_mode,
            checksum: first.checksum,
            tls: self.options.encrypt.unwrap_or(!host.is_loopback()),
        };
        let state = State::new(Arc::clone(&self.heard), self.careful);
        let (store, route) = (Arc::clone(&self.store), Arc::clone(route));
        Server::start(self.cx, host, store, route, identity, state).await
    }

    /// Leaves nothing of ours at the target, whatever happened, and looks that it has what it should.
    async fn clean_up(&mut self, done: bool) -> Result<Option<GtidSet>> {
        match self.target.open_again().await {
            Ok(()) => {}
            Err(e) if !done => {
                self.cx.event(Event::Warning {
                    text: format!(
                        "the target is out of reach and not cleaned up; the next run does it (`holdfast binlog \
                         apply`): {}",
                        e.chain()
                    ),
                });
                return Ok(None);
            }
            Err(e) => return Err(e),
        }
        let stopped = match self.configured {
            true if done => Replica::stop(&mut self.target).await,
            true => self.stop_after_failure().await,
            false => Ok(()),
        };
        let keeps_still = self.look_at_events(done).await;
        let put_back = self.settings.put_back(self.cx, &mut self.target.session, keeps_still);
        if done {
            put_back.await;
        } else if timeout(PATIENCE, put_back).await.is_err() {
            self.cx.event(Event::Warning {
                text: "the target does not take its settings back; the next run puts them back"
                    .into(),
            });
        }
        if !done {
            if let Err(e) = stopped {
                self.cx.event(Event::Warning {
                    text: format!("the target still replicates from us: {}", e.chain()),
                });
            }
            return Ok(None);
        }
        stopped?;
        self.last_look().await
    }

    /// Has the target run what its source ran, or nothing yet where the point is not reached. Gives whether its event
    /// scheduler has to stay off.
    async fn look_at_events(&mut self, done: bool) -> bool {
        let Some(events) = self.events.take() else { return false };
        if done {
            let session = &mut self.target.session;
            let put_right = events.put_right(session, &self.heard).await;
            self.warnings.extend(put_right.unwrap_or_else(|e| {
                vec![format!("which events the target is to run was not looked at: {}", e.chain())]
            }));
            return false;
        }
        if self.options.private {
            return false;
        }
        let warn = |text| self.cx.event(Event::Warning { text });
        // More may have been sent than was applied. What was run over a client connection was.
        let executed = if self.direct { None } else { self.target.executed().await.ok() };
        let is_there =
            |gtid: &Gtid| executed.as_ref().is_none_or(|all| all.contains(gtid).unwrap_or(true));
        let session = &mut self.target.session;
        match events.hold(session, &self.heard, is_there).await {
            Ok(held) => held.into_iter().for_each(warn),
            Err(e) => warn(format!(
                "events that the target does not run, as a replica would not, are not written down: {}",
                e.chain()
            )),
        }
        let stays = self.settings.is_changed(SCHEDULER)
            && events::any_enabled(session).await.unwrap_or(true);
        if stays {
            warn(format!(
                "the target's {SCHEDULER} stays OFF, or it would run its events before everything is applied: \
                 `holdfast binlog apply` goes on, and puts it back at the end; where nothing more is to be \
                 applied, run SET GLOBAL {SCHEDULER} = ON and DROP DATABASE holdfast_settings there"
            ));
        }
        stays
    }

    /// Stops the replication from us as far as the target does so soon: a receiver that waits for room does not stop
    /// before it has some, and nobody may ask for anything meanwhile. The next run stops it.
    async fn stop_after_failure(&mut self) -> Result<()> {
        match timeout(PATIENCE, self.stop_within_limit()).await {
            Ok(stopped) => stopped,
            Err(_) => {
                // The question that was given up has taken the session with it.
                self.target.open_again().await?;
                Err(unanswered(&self.target))
            }
        }
    }

    async fn stop_within_limit(&mut self) -> Result<()> {
        // MySQL has a limit of its own.
        let sql = "SHOW GLOBAL VARIABLES LIKE 'rpl\\_stop\\_replica\\_timeout'";
        let limit: Option<(String, String)> = self.target.session.query_first(sql).await?;
        let Some((name, before)) = limit else { return Replica::stop(&mut self.target).await };
        // Where it cannot be set, it is waited for.
        let _ = self.target.session.run(&format!("SET GLOBAL {name} = {STOP}")).await;
        let stopped = Replica::stop(&mut self.target).await;
        let _ = self.target.session.run(&format!("SET GLOBAL {name} = {before}")).await;
        stopped
    }

    /// What needs a look at the end, and whether everything is there.
    async fn last_look(&mut self) -> Result<Option<GtidSet>> {
        // What was written while nobody waited for the disk. Over a client connection that may be off.
        for sql in ["FLUSH LOCAL ENGINE LOGS", "FLUSH LOCAL BINARY LOGS"] {
            if let Err(e) = self.target.session.run(sql).await
                && !(self.direct && e.kind() == ErrorKind::Privilege)
            {
                self.warnings
                    .push(format!("what was applied may not be on disk yet: {}", e.chain()));
            }
        }
        let prepared: Vec<Row> = match self.target.session.query_rows("XA RECOVER").await {
            Ok(rows) => rows,
            // Not everybody may ask; MySQL says so with XAER_RMERR.
            Err(e) if e.server().is_some() => Vec::new(),
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
        let executed = self.target.executed().await?;
        if self.direct {
            // It was counted one by one.
            return Ok(Some(executed));
        }
        let missing = served_set(&reached, &self.route).difference(&executed)?;
        if !missing.is_empty() {
            return Err(Error::internal(format!(
                "the target waited for {reached} and has {executed} now: {missing} is missing"
            )));
        }
        Ok(Some(executed))
    }
}

/// The address of this machine that the target can reach.
async fn our_address(target: &Endpoint) -> Result<IpAddr> {
    let Endpoint::Tcp { host, port } = target else { return Ok(Ipv4Addr::LOCALHOST.into()) };
    let failed = |e| {
        io_error(e, ErrorKind::Target, format!("cannot find our address for {host}"))
            .with_remedy("name the address that the target can connect to")
    };
    let stream = tokio::net::TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
    Ok(stream.local_addr().map_err(failed)?.ip())
}
