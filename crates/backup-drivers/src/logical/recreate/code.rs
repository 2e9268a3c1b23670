//! Views, routines, triggers, events: each created in the session it was created in.

use backup_core::{Error, ErrorKind, Flavor, Result};
use mysql_async::Conn;

use super::super::catalog::{Catalog, StoredKind, StoredObject};
use super::super::ddl::quote_text;
use super::super::inventory::{ServerFacts, decode, encode, is_utf8, query, unhex};
use super::super::select::quote_name;
use super::accounts::AccountsInWork;
use super::definitions::{prepare, use_database};
use super::target_error;

/// Creates libraries, routines, packages and views, and grants what `accounts` may have on them.
/// Gives warnings, with the server's own words, for views that cannot be created.
///
/// # Errors
/// [`ErrorKind::Privilege`], [`ErrorKind::Target`] with the server's own words.
pub async fn create_code(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &Catalog,
    accounts: &mut AccountsInWork,
) -> Result<Vec<String>> {
    let mut creator = Creator::new(conn, facts).await?;
    for kind in [
        StoredKind::Library,
        StoredKind::Function,
        StoredKind::Procedure,
        StoredKind::Package,
        StoredKind::PackageBody,
    ] {
        for object in catalog.stored.iter().filter(|o| o.kind == kind) {
            creator.create(object).await?;
        }
    }
    let views = catalog.stored.iter().filter(|o| o.kind == StoredKind::View && !o.keep_existing);
    creator.views(views.collect(), accounts).await?;
    creator.finish().await
}

/// Creates the triggers, in the order in which they fire. Gives warnings.
///
/// # Errors
/// [`ErrorKind::Privilege`], [`ErrorKind::Target`] with the server's own words.
pub async fn create_triggers(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &Catalog,
) -> Result<Vec<String>> {
    let mut creator = Creator::new(conn, facts).await?;
    for trigger in catalog.stored.iter().filter(|o| o.kind == StoredKind::Trigger) {
        creator.create(trigger).await?;
    }
    creator.finish().await
}

/// Creates the events. Those that are on begin to run at once, where the scheduler is on. Gives
/// warnings for events that the server dropped or switched off because their time is over.
///
/// # Errors
/// [`ErrorKind::Privilege`], [`ErrorKind::Target`] with the server's own words.
pub async fn create_events(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &Catalog,
) -> Result<Vec<String>> {
    let mut creator = Creator::new(conn, facts).await?;
    for event in catalog.stored.iter().filter(|o| o.kind == StoredKind::Event) {
        creator.create(event).await?;
        creator.expired(event).await?;
    }
    creator.finish().await
}

/// Creates objects, and remembers what the session is set to.
pub(super) struct Creator<'a> {
    conn: &'a mut Conn,
    facts: &'a ServerFacts,
    database: Option<String>,
    settings: Option<String>,
    /// Databases whose default collation was changed for the time being, and what it was.
    collations: Vec<(String, String)>,
    warnings: Vec<String>,
}

impl<'a> Creator<'a> {
    pub(super) async fn new(conn: &'a mut Conn, facts: &'a ServerFacts) -> Result<Self> {
        prepare(conn, facts).await?;
        Ok(Creator {
            conn,
            facts,
            database: None,
            settings: None,
            collations: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// Creates an object under the settings that it was created under.
    pub(super) async fn create(&mut self, object: &StoredObject) -> Result<()> {
        let result = self.attempt(object).await;
        if result.is_err() {
            // Left as it was found, as far as that goes; the first error is the one to tell.
            let _ = self.restore_collations().await;
        }
        result.map_err(|e| target_error(e, self.facts))
    }

    async fn attempt(&mut self, object: &StoredObject) -> Result<()> {
        if self.database.as_deref() != Some(&object.database) {
            use_database(self.conn, self.facts, &object.database).await?;
            self.database = Some(object.database.clone());
        }
        let what = format!("cannot create the {} {}", object.kind, object.full_name());
        if let Some(collation) = &object.database_collation {
            self.database_collation(&object.database, collation, &what).await?;
        }
        let (charset, statement) = self.statement(object).await?;
        self.session(object, charset, &what).await?;
        query::run(self.conn, statement, &what).await
    }

    /// The bytes to send, and the character set they are in.
    async fn statement(&mut self, object: &StoredObject) -> Result<(Option<String>, Vec<u8>)> {
        let charset = object.charset.clone();
        if let Some(hex) = &object.create_bytes {
            let bytes = unhex(hex).ok_or_else(|| {
                Error::damaged(format!("the code of {} is damaged", object.full_name()))
            })?;
            return Ok((charset, bytes));
        }
        let text = &object.create;
        match &charset {
            Some(name) if !text.is_ascii() && !is_utf8(name) => {
                let bytes = encode(self.conn, text, name).await?;
                if decode(self.conn, &bytes, name).await? == *text {
                    return Ok((charset, bytes));
                }
                self.warnings.push(format!(
                    "the {} {} is created with the client character set utf8mb4: its text does not \
                     fit into {name}",
                    object.kind,
                    object.full_name()
                ));
                Ok((Some("utf8mb4".to_owned()), text.clone().into_bytes()))
            }
            _ => Ok((charset, text.clone().into_bytes())),
        }
    }

    async fn session(
        &mut self,
        object: &StoredObject,
        charset: Option<String>,
        what: &str,
    ) -> Result<()> {
        let sql_mode = object.sql_mode.as_deref().unwrap_or_default();
        // The only mode of MySQL 5.7 that 8.0 refuses.
        let sql_mode: Vec<&str> = sql_mode
            .split(',')
            .filter(|mode| self.facts.flavor == Flavor::MariaDb || *mode != "NO_AUTO_CREATE_USER")
            .collect();
        let mut assignments = vec![format!("sql_mode = {}", quote_text(&sql_mode.join(",")))];
        if let Some(charset) = charset {
            assignments.push(format!("character_set_client = {}", quote_text(&charset)));
        }
        if let Some(collation) = &object.collation {
            assignments.push(format!("collation_connection = {}", quote_text(collation)));
        }
        let time_zone = object.time_zone.as_deref().unwrap_or("+00:00");
        assignments.push(format!("time_zone = {}", quote_text(time_zone)));
        let settings = assignments.join(", ");
        if self.settings.as_ref() == Some(&settings) {
            return Ok(());
        }
        // The statement itself is ASCII, which every client character set reads the same; but the
        // modes of the object before must not decide how its strings are read.
        query::run(self.conn, "SET SESSION sql_mode = ''", what).await?;
        self.settings = None;
        query::run(self.conn, format!("SET SESSION {settings}"), what).await?;
        self.settings = Some(settings);
        Ok(())
    }

    /// Routines remember the collation of their database: of the moment they were created.
    async fn database_collation(
        &mut self,
        database: &str,
        collation: &str,
        what: &str,
    ) -> Result<()> {
        let rows = query::rows(self.conn, "SELECT @@collation_database", what).await?;
        let present = rows.first().and_then(|row| query::text(row, 0)).unwrap_or_default();
        if present == collation {
            return Ok(());
        }
        if !self.collations.iter().any(|(name, _)| name == database) {
            self.collations.push((database.to_owned(), present));
        }
        self.alter_collation(database, collation, what).await
    }

    async fn alter_collation(&mut self, database: &str, collation: &str, what: &str) -> Result<()> {
        if !collation.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(Error::damaged(format!("`{}` is no collation", collation.escape_debug())));
        }
        let sql = format!("ALTER DATABASE {} COLLATE {collation}", quote_name(database));
        // Names are read in the client's character set.
        query::run(self.conn, "SET NAMES utf8mb4", what).await?;
        query::run(self.conn, "SET SESSION sql_mode = ''", what).await?;
        self.settings = None;
        query::run(self.conn, sql, what).await
    }

    async fn restore_collations(&mut self) -> Result<()> {
        for (database, collation) in std::mem::take(&mut self.collations) {
            let what = format!("cannot give the database {database} its collation back");
            self.alter_collation(&database, &collation, &what).await?;
        }
        Ok(())
    }

    /// Views need the views that they read from: whoever fails is tried again after the others.
    async fn views(
        &mut self,
        mut views: Vec<&StoredObject>,
        accounts: &mut AccountsInWork,
    ) -> Result<()> {
        loop {
            let before = views.len();
            let mut failed = Vec::new();
            let mut errors = Vec::new();
            for view in views {
                match self.create(view).await {
                    Ok(()) => {}
                    Err(e) if e.server().is_some() && e.kind() == ErrorKind::Target => {
                        failed.push(view);
                        errors.push(e);
                    }
                    Err(e) => return Err(e),
                }
            }
            // What a view may read, its definer may have yet to be granted.
            let granted = self.grant(accounts).await?;
            if failed.is_empty() || (failed.len() == before && !granted) {
                self.warnings.extend(errors.iter().map(Error::chain));
                return Ok(());
            }
            views = failed;
        }
    }

    async fn grant(&mut self, accounts: &mut AccountsInWork) -> Result<bool> {
        let what = "cannot set up the session";
        query::run(self.conn, "SET NAMES utf8mb4", what).await?;
        query::run(self.conn, "SET SESSION sql_mode = ''", what).await?;
        self.settings = None;
        accounts.grant(self.conn).await
    }

    /// Notes what the server did with an event whose time is over.
    async fn expired(&mut self, event: &StoredObject) -> Result<()> {
        if self.conn.get_warnings() == 0 {
            return Ok(());
        }
        let what = format!("cannot create the event {}", event.full_name());
        for row in query::rows(self.conn, "SHOW WARNINGS", &what).await? {
            let outcome = match query::number(&row, 1) {
                1588 => "was not kept",
                // One that was off before is as it was.
                1544 if event.create.contains(" ENABLE ") => "is off now",
                _ => continue,
            };
            self.warnings.push(format!(
                "the event {} {outcome}: {}",
                event.full_name(),
                query::text(&row, 2).unwrap_or_default()
            ));
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<String>> {
        self.restore_collations().await.map_err(|e| target_error(e, self.facts))?;
        Ok(self.warnings)
    }
}
