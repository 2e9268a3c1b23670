//! Scheduled events that come with a replay. A replica makes every event that it is told of one that
//! only its source runs (`SLAVESIDE_DISABLED`, `Event_parse_data::check_originator_id` of the
//! servers), and here is no source any more: what it was there is told by the statements themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backup_core::{Gtid, Result};

use super::held;
use super::told::Told;
use crate::connect::Session;
use crate::logical::inventory::{decode, encode};
use crate::logical::quote_name;

/// Database and name of an event; names are case-insensitive.
pub(super) type Name = (String, String);

/// Whether a server runs an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Enabled,
    Disabled,
    /// Its source was to run it there, too.
    Elsewhere,
}

impl Status {
    /// As the servers' tables name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Status::Enabled => "ENABLED",
            Status::Disabled => "DISABLED",
            Status::Elsewhere => "SLAVESIDE_DISABLED",
        }
    }

    pub(super) fn named(name: &str) -> Self {
        match name {
            "ENABLED" => Status::Enabled,
            "DISABLED" => Status::Disabled,
            _ => Status::Elsewhere,
        }
    }
}

/// What was heard of events so far.
pub(super) type Heard = Arc<Mutex<Told>>;

pub(super) fn lock(heard: &Heard) -> MutexGuard<'_, Told> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An event of the target.
struct Event {
    name: Name,
    /// As it is written.
    quoted: String,
    definer: String,
    status: Status,
    made_in: Settings,
}

/// What the session of an event is set to. Whoever alters an event gives it those of his own, with its body left as it
/// is: it would read its own bytes as text of another character set.
struct Settings {
    sql_mode: String,
    time_zone: String,
    charset: String,
    collation: String,
}

impl Settings {
    async fn of(session: &mut Session) -> Result<Option<Settings>> {
        let sql = "SELECT @@sql_mode, @@time_zone, @@character_set_client, @@collation_connection";
        let row: Option<(String, String, String, String)> = session.query_first(sql).await?;
        Ok(row.map(|(sql_mode, time_zone, charset, collation)| Settings {
            sql_mode,
            time_zone,
            charset,
            collation,
        }))
    }

    /// Sets a session to them.
    async fn set(&self, session: &mut Session) -> Result<()> {
        // Which every character set and mode reads the same.
        session.run("SET SESSION sql_mode = ''").await?;
        // The only mode of MySQL 5.7 that 8.0 refuses.
        let modes: Vec<&str> =
            self.sql_mode.split(',').filter(|mode| *mode != "NO_AUTO_CREATE_USER").collect();
        let text = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let sql = format!(
            "SET SESSION character_set_client = {}, collation_connection = {}, time_zone = {}, sql_mode = {}",
            text(&self.charset),
            text(&self.collation),
            text(&self.time_zone),
            text(&modes.join(","))
        );
        session.run(&sql).await.map(drop)
    }
}

async fn events(session: &mut Session) -> Result<Vec<Event>> {
    let sql = "SELECT EVENT_SCHEMA, EVENT_NAME, STATUS, DEFINER, SQL_MODE, TIME_ZONE, CHARACTER_SET_CLIENT, \
               COLLATION_CONNECTION FROM information_schema.EVENTS";
    type Row = (String, String, String, String, String, String, String, String);
    let rows: Vec<Row> = session.query_rows(sql).await?;
    let event = |row: Row| {
        let (database, name, status, definer, sql_mode, time_zone, charset, collation) = row;
        let status = Status::named(&status);
        let definer = definer.rsplit_once('@').map_or_else(
            || quote_name(&definer),
            |(user, host)| format!("{}@{}", quote_name(user), quote_name(host)),
        );
        let quoted = format!("{}.{}", quote_name(&database), quote_name(&name));
        let made_in = Settings { sql_mode, time_zone, charset, collation };
        Event { name: key(&database, &name), quoted, definer, status, made_in }
    };
    Ok(rows.into_iter().map(event).collect())
}

pub(super) fn key(database: &str, name: &str) -> Name {
    (database.to_lowercase(), name.to_lowercase())
}

/// The word that all servers take.
const ELSEWHERE: &str = "DISABLE ON SLAVE";

const NOT_RUN: &str = "is not run by the target, since a replay leaves it to a source";

/// What the target's events are before a replay.
#[derive(Debug, Default)]
pub(super) struct Events(BTreeMap<Name, Status>);

impl Events {
    /// With what an earlier run wrote down of those that it did not switch on.
    pub(super) async fn of(session: &mut Session) -> Result<Self> {
        let found = events(session).await?;
        let mut found: BTreeMap<Name, Status> =
            found.into_iter().map(|event| (event.name, event.status)).collect();
        for (name, wanted) in held::read(session).await? {
            if let Some(status) = found.get_mut(&name)
                && *status == Status::Elsewhere
            {
                *status = wanted;
            }
        }
        Ok(Events(found))
    }

    /// Makes the target's events what they were at the source, at the end of a replay; gives what needs a look.
    pub(super) async fn put_right(
        mut self,
        session: &mut Session,
        heard: &Heard,
    ) -> Result<Vec<String>> {
        lock(heard).apply(&mut self.0, |_| true);
        let mut wrong = Vec::new();
        let mut warnings = Vec::new();
        for event in events(session).await? {
            match self.0.get(&event.name) {
                _ if event.status != Status::Elsewhere => {}
                Some(Status::Elsewhere) => {}
                Some(Status::Enabled) => wrong.push((event, "ENABLE")),
                Some(Status::Disabled) => wrong.push((event, "DISABLE")),
                // Its name was written in a character set that was not understood.
                None => warnings.push(format!(
                    "event {} {NOT_RUN}; where its source ran it, run ALTER EVENT … ENABLE there",
                    event.quoted
                )),
            }
        }
        warnings.extend(alter(session, &wrong, NOT_RUN).await?);
        held::forget(session).await?;
        Ok(warnings)
    }

    /// Leaves the target's events switched off where a replay did not come to its end, for the run that goes on. Gives
    /// what there is to say of it.
    pub(super) async fn hold(
        mut self,
        session: &mut Session,
        heard: &Heard,
        is_there: impl Fn(&Gtid) -> bool,
    ) -> Result<Option<String>> {
        lock(heard).apply(&mut self.0, is_there);
        let (mut names, mut wanted) = (Vec::new(), Vec::new());
        for event in events(session).await? {
            let status = self.0.get(&event.name).copied().unwrap_or(Status::Elsewhere);
            if event.status == Status::Elsewhere && status != Status::Elsewhere {
                if status == Status::Enabled {
                    names.push(event.quoted);
                }
                wanted.push((event.name, status));
            }
        }
        held::write(session, &wanted).await?;
        Ok((!names.is_empty()).then(|| {
            format!(
                "the target does not run {} before everything is applied: `holdfast binlog apply` goes on, and \
                 switches on at the end what its source ran",
                names.join(", ")
            )
        }))
    }
}

/// Whether there is an event of this name.
pub(super) async fn is_there(session: &mut Session, name: &Name) -> Result<bool> {
    Ok(events(session).await?.iter().any(|event| event.name == *name))
}

/// Whether the target would run anything by itself.
pub(super) async fn any_enabled(session: &mut Session) -> Result<bool> {
    Ok(events(session).await?.iter().any(|event| event.status == Status::Enabled))
}

/// Has the target not run an event, as a replica would not; gives what needs a look.
pub(super) async fn switch_off(session: &mut Session, name: &Name) -> Result<Vec<String>> {
    let mut found = events(session).await?;
    found.retain(|event| event.name == *name && event.status == Status::Enabled);
    let changes: Vec<_> = found.into_iter().map(|event| (event, ELSEWHERE)).collect();
    alter(session, &changes, "is run by the target before everything is applied").await
}

/// What to say of events that a run which was killed may have left as a replica has them: what they were at their
/// source is not known any more.
pub(super) async fn left_disabled(session: &mut Session) -> Result<Option<String>> {
    let known: BTreeMap<Name, Status> = held::read(session).await?.into_iter().collect();
    let mut left = events(session).await?;
    left.retain(|event| event.status == Status::Elsewhere && !known.contains_key(&event.name));
    let names: Vec<&str> = left.iter().map(|event| event.quoted.as_str()).collect();
    Ok((!names.is_empty()).then(|| {
        format!(
            "an earlier run was killed, and these events are not run by the target, as they would not be by a \
             replica: {}; where their source ran them, run ALTER EVENT … ENABLE there",
            names.join(", ")
        )
    }))
}

/// Leaves every event of a server that becomes a replica to its source, or both would run
/// it. Gives what needs a look.
pub(crate) async fn leave_to_source(session: &mut Session) -> Result<Vec<String>> {
    let mut enabled = events(session).await?;
    enabled.retain(|event| event.status == Status::Enabled);
    let changes: Vec<_> = enabled.into_iter().map(|event| (event, ELSEWHERE)).collect();
    alter(session, &changes, "is run by the replica too, and not by its source alone").await
}

/// Changes events, and gives what needs a look where one could not be: that it `is` what it was.
async fn alter(session: &mut Session, changes: &[(Event, &str)], is: &str) -> Result<Vec<String>> {
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let mut warnings = Vec::new();
    let ours = Settings::of(session).await?;
    // It is no change of the data: no transaction of the target's own tells of it.
    let unlogged = session.run("SET SESSION sql_log_bin = 0").await;
    for (event, word) in changes {
        let sql = format!("ALTER DEFINER = {} EVENT {} {word}", event.definer, event.quoted);
        let done = match &unlogged {
            Ok(_) => run_in(session, &event.made_in, &sql).await,
            Err(e) => Err(backup_core::Error::new(e.kind(), e.chain())),
        };
        if let Some(ours) = &ours {
            ours.set(session).await?;
        }
        if let Err(e) = done {
            let (name, why) = (&event.quoted, e.chain());
            warnings.push(format!("event {name} {is}; run `{sql}` there ({why})"));
        }
    }
    if unlogged.is_ok() {
        session.run("SET SESSION sql_log_bin = 1").await?;
    }
    Ok(warnings)
}

/// Runs a statement in a session that is set to `settings`.
async fn run_in(session: &mut Session, settings: &Settings, sql: &str) -> Result<()> {
    let bytes = encode(session.conn(), sql, &settings.charset).await?;
    if decode(session.conn(), &bytes, &settings.charset).await? != sql {
        return Err(backup_core::Error::new(
            backup_core::ErrorKind::Target,
            format!("its name does not fit into its character set {}", settings.charset),
        ));
    }
    settings.set(session).await?;
    session.run_encoded(&bytes, sql).await
}
