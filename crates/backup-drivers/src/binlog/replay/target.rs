//! The server that binlogs are applied to.

use std::fmt;

use backup_core::{Error, ErrorKind, Flavor, GtidSet, Result};
use mysql_async::Row;

use crate::connect::{ConnectOptions, Session};
use crate::logical::inventory::{self, ServerFacts};

/// A session at the target, and what is known of the server.
pub(crate) struct Target {
    pub(crate) options: ConnectOptions,
    /// What people are told that it is.
    pub(crate) name: String,
    pub(crate) session: Session,
    pub(crate) facts: ServerFacts,
}

impl Target {
    pub(crate) async fn open(options: &ConnectOptions) -> Result<Target> {
        let mut session = Session::open(options).await?;
        let facts = inventory::server(session.conn()).await?;
        Ok(Target { options: options.clone(), name: options.to_string(), session, facts })
    }

    /// A new session, where the old one may have been cut off in the middle of a question.
    pub(crate) async fn open_again(&mut self) -> Result<()> {
        self.session = Session::open(&self.options).await?;
        Ok(())
    }

    pub(crate) fn mysql(&self) -> bool {
        self.facts.flavor == Flavor::MySql
    }

    pub(crate) fn refuse(&self, problem: impl fmt::Display, remedy: impl Into<String>) -> Error {
        Error::new(ErrorKind::Target, format!("{}: {problem}", self.options))
            .with_remedy(remedy.into())
    }

    /// The first column of the first row as text; empty for NULL and for nothing.
    pub(crate) async fn value(&mut self, sql: &str) -> Result<String> {
        let row: Option<Row> = self.session.query_first(sql).await?;
        let value = row.and_then(|row| row.get_opt::<Option<String>, _>(0)?.ok()?);
        Ok(value.unwrap_or_default())
    }

    /// What the server says of each of its replica channels.
    pub(crate) async fn channels(&mut self) -> Result<Vec<Row>> {
        let sql = if self.mysql() { "SHOW REPLICA STATUS" } else { "SHOW SLAVE STATUS" };
        self.session.query_rows(sql).await
    }

    /// `gtid_executed`, or `gtid_slave_pos`.
    pub(crate) async fn executed(&mut self) -> Result<GtidSet> {
        let name = if self.mysql() { "gtid_executed" } else { "gtid_slave_pos" };
        let text = self.value(&format!("SELECT @@GLOBAL.{name}")).await?;
        GtidSet::parse(self.facts.flavor, &text)
    }

    /// Whether there are tables of users.
    pub(crate) async fn has_tables(&mut self) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM information_schema.tables WHERE table_type = 'BASE TABLE' \
                   AND table_schema NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys'))";
        Ok(self.value(sql).await? == "1")
    }
}

/// A column of a row as text; empty for NULL and where there is none.
pub(crate) fn text(row: &Row, name: &str) -> String {
    row.get_opt::<Option<String>, _>(name).and_then(Result::ok).flatten().unwrap_or_default()
}
