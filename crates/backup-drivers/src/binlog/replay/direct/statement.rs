//! Statements, as they were written and under what they were written under.

use backup_core::{Error, ErrorKind, Flavor, Result};
use mysql_async::prelude::Queryable;

use super::super::super::event::Header;
use super::super::super::read::Reader;
use super::context::{Statement, needs_no_setting};
use super::{Direct, variable};
use crate::connect::{statement_error, without_secrets};
use crate::logical::quote_name;

/// Flag of an event: the default database does not matter.
const SUPPRESS_USE: u16 = 0x8;
/// Flag of an event: it depends on its connection (temporary tables).
const THREAD_SPECIFIC: u16 = 0x4;

impl Direct<'_> {
    /// Runs a statement.
    pub(super) async fn query(&mut self, header: &Header, statement: &Statement) -> Result<()> {
        let words = |text: &str| statement.sql.eq_ignore_ascii_case(text.as_bytes());
        let begins = |text: &str| {
            let start = statement.sql.get(..text.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(text.as_bytes()))
        };
        if words("BEGIN") {
            self.current.open = true;
            self.set_gtid().await?;
            return self.target.session.run("BEGIN").await.map(drop);
        }
        if words("COMMIT") {
            return self.commit().await;
        }
        // CREATE TABLE … SELECT of MySQL, whose rows follow.
        let opens = begins("XA START") || statement.sql.ends_with(b"START TRANSACTION");
        if !self.current.open && (!opens || begins("XA START")) {
            self.begin_alone().await?;
        }
        self.current.open |= opens;
        self.check_fits(statement.sql.len())?;
        let event = self.event_comes(statement).await?;
        self.prepare(header, statement).await?;
        self.set_gtid().await?;
        let done = self.target.session.conn().query_drop(&statement.sql[..]).await;
        let sql = String::from_utf8_lossy(&statement.sql);
        let shown: String = without_secrets(&sql).chars().take(200).collect();
        match done {
            Ok(()) => {
                if statement.error != 0 {
                    return Err(Error::new(
                        ErrorKind::Target,
                        format!(
                            "`{shown}` failed with error {} at the source, and not here",
                            statement.error
                        ),
                    ));
                }
                match event {
                    Some(event) => self.do_not_run(&event).await,
                    None => Ok(()),
                }
            }
            // It failed half way at the source too, and left as much.
            Err(mysql_async::Error::Server(e)) if e.code == statement.error && e.code != 0 => {
                Ok(())
            }
            Err(e) => Err(statement_error(e, &sql, format!("cannot run `{shown}`"))),
        }
    }

    /// Brings the session into the state in which a statement was run.
    async fn prepare(&mut self, header: &Header, statement: &Statement) -> Result<()> {
        if header.flags & SUPPRESS_USE == 0
            && !statement.database.is_empty()
            && statement.database != self.database
        {
            let name = String::from_utf8_lossy(&statement.database).into_owned();
            self.target.session.run(&format!("USE {}", quote_name(&name))).await?;
            self.database.clone_from(&statement.database);
        }
        if header.flags & THREAD_SPECIFIC != 0 {
            let sql = format!("SET SESSION pseudo_thread_id = {}", statement.thread);
            self.target.session.run(&sql).await?;
        }
        let mut new: Vec<String> =
            statement.settings.iter().filter(|s| !self.settings.contains(s)).cloned().collect();
        // MariaDB knows collations by large numbers, and character sets not.
        const CLIENT: &str = "character_set_client = ";
        const COLLATIONS: &str = "character_set_collations = ";
        for setting in &mut new {
            if let Some(pairs) = setting.strip_prefix(COLLATIONS)
                && pairs != "''"
            {
                *setting = format!("{COLLATIONS}'{}'", self.default_collations(pairs).await?);
                continue;
            }
            if let Some(id) = setting.strip_prefix(CLIENT).and_then(|id| id.parse().ok())
                && id > 255
                && self.flavor == Flavor::MariaDb
            {
                let found = variable::collation(self.target, id, &mut self.collations).await?;
                *setting = format!("{CLIENT}{}", found.0);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let all = format!("SET SESSION {}", new.join(", SESSION "));
        if let Err(e) = self.target.session.run(&all).await {
            if e.server().is_none() {
                return Err(e);
            }
            // Some of them not everybody may set: those have to be as they are already.
            for setting in &new {
                if let Err(e) = self.target.session.run(&format!("SET SESSION {setting}")).await
                    && !needs_no_setting(setting, &e)
                {
                    let (name, value) = setting.split_once(" = ").unwrap_or_default();
                    let now = self.target.value(&format!("SELECT @@{name}")).await;
                    if value != "DEFAULT" && now.ok().as_deref() != Some(value) {
                        return Err(e);
                    }
                }
            }
        }
        self.settings.clone_from(&statement.settings);
        Ok(())
    }

    /// Which collations character sets have by default, out of the numbers of both.
    async fn default_collations(&mut self, pairs: &str) -> Result<String> {
        let mut named = Vec::new();
        for pair in pairs.split(',') {
            let (of, to) = pair.split_once(':').unwrap_or_default();
            let (of, to) = (of.parse().unwrap_or_default(), to.parse().unwrap_or_default());
            let (charset, _) = variable::collation(self.target, of, &mut self.collations).await?;
            let (_, name) = variable::collation(self.target, to, &mut self.collations).await?;
            named.push(format!("{charset}={name}"));
        }
        Ok(named.join(","))
    }

    /// LOAD DATA as a statement, with the file that came before it.
    pub(super) async fn load(&mut self, header: &Header, body: &[u8]) -> Result<()> {
        let damaged = || Error::damaged("an EXECUTE_LOAD_QUERY event cannot be read");
        // file u32, where its name begins and ends in the statement u32 each, duplicates u8
        let (mut statement, extra) = Statement::read(self.writer(), header, body, 13, false)?;
        let mut extra = Reader::new(&extra);
        let id = extra.u32().ok_or_else(damaged)?;
        let (from, to) = extra.u32().zip(extra.u32()).ok_or_else(damaged)?;
        let duplicates = match extra.u8() {
            Some(2) => " REPLACE",
            Some(1) => " IGNORE",
            _ => "",
        };
        let (from, to) = (from as usize, to as usize);
        if from > to || to > statement.sql.len() {
            return Err(damaged());
        }
        let name = format!(" LOCAL INFILE 'holdfast'{duplicates} INTO");
        statement.sql.splice(from..to, name.into_bytes());
        let mut file = self.loads.remove(&id).ok_or_else(damaged)?;
        let failed = |e| {
            backup_core::io_error(e, ErrorKind::Target, "cannot read a file of LOAD DATA again")
        };
        std::io::Seek::rewind(&mut file).map_err(failed)?;
        let file = tokio::fs::File::from_std(file);
        self.target.session.conn().set_infile_handler(async move {
            Ok(Box::pin(tokio_util::io::ReaderStream::new(file)) as mysql_async::InfileData)
        });
        self.flush().await?;
        self.query(header, &statement).await
    }
}
