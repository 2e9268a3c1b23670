//! A `mysql_async` connection whose errors name the statement.

use std::borrow::Cow;

use backup_core::{Error, ErrorKind, Result};
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Params};

use super::{ConnectOptions, open, sql_error, statement_error, without_secrets};

/// Statements longer than this are cut in errors.
const SHOWN: usize = 120;

/// A connection for statements outside the hot paths, with errors of this project: each names the
/// statement, and has the kind and remedy of [`sql_error`].
///
/// A statement whose future is dropped before its end leaves its answer on the connection, where the next one would take
/// it for its own. So such a session answers nothing any more. It is not opened anew by itself: what it held (locks, a
/// transaction) would be gone without a word.
#[derive(Debug)]
pub struct Session {
    conn: Conn,
    /// A statement was begun, and its answer has not been read to the end.
    unanswered: bool,
}

impl Session {
    /// Connects; see [`open`].
    ///
    /// # Errors
    /// As [`open`].
    pub async fn open(options: &ConnectOptions) -> Result<Self> {
        Ok(Session { conn: open(options).await?, unanswered: false })
    }

    /// Whether a statement was begun and not waited for: nothing can be asked any more.
    pub(crate) fn is_left(&self) -> bool {
        self.unanswered
    }

    /// Notes that a statement begins.
    fn begin(&mut self, sql: &str) -> Result<()> {
        if std::mem::replace(&mut self.unanswered, true) {
            let what = "an earlier statement on the connection was not waited for";
            return Err(Error::new(ErrorKind::Connect, format!("{}: {what}", cannot_run(sql)))
                .with_remedy("run the command again"));
        }
        Ok(())
    }

    /// Notes that it has ended.
    fn end<T>(&mut self, done: mysql_async::Result<T>, sql: &str) -> Result<T> {
        self.unanswered = false;
        done.map_err(|e| statement_error(e, sql, cannot_run(sql)))
    }

    /// Every row of a text-protocol query.
    ///
    /// # Errors
    /// As [`sql_error`], with the statement.
    pub async fn query_rows<T: FromRow + Send + 'static>(&mut self, sql: &str) -> Result<Vec<T>> {
        self.begin(sql)?;
        let done = self.conn.query(sql).await;
        self.end(done, sql)
    }

    /// The first row of a text-protocol query.
    ///
    /// # Errors
    /// As [`sql_error`], with the statement.
    pub async fn query_first<T: FromRow + Send + 'static>(
        &mut self,
        sql: &str,
    ) -> Result<Option<T>> {
        self.begin(sql)?;
        let done = self.conn.query_first(sql).await;
        self.end(done, sql)
    }

    /// Runs a statement and drops its rows, if any. Gives the number of affected rows.
    ///
    /// # Errors
    /// As [`sql_error`], with the statement.
    pub async fn run(&mut self, sql: &str) -> Result<u64> {
        self.begin(sql)?;
        let done = self.conn.query_drop(sql).await;
        self.end(done, sql)?;
        Ok(self.conn.affected_rows())
    }

    /// Runs a statement that is encoded in the character set of the session; `sql` is what it says.
    pub(crate) async fn run_encoded(&mut self, encoded: &[u8], sql: &str) -> Result<()> {
        self.begin(sql)?;
        let done = self.conn.query_drop(encoded).await;
        self.end(done, sql)
    }

    /// Every row of a prepared statement with `params`.
    ///
    /// # Errors
    /// As [`sql_error`], with the statement (not the parameters).
    pub async fn exec_rows<T: FromRow + Send + 'static>(
        &mut self,
        sql: &str,
        params: impl Into<Params> + Send,
    ) -> Result<Vec<T>> {
        let params = params.into();
        self.begin(sql)?;
        let done = self.conn.exec(sql, params).await;
        self.end(done, sql)
    }

    /// The connection's number on the server, as `KILL` takes it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.conn.id()
    }

    /// The connection itself, for everything else. Of what is asked of it directly nothing is noted: who drops such a
    /// statement has to drop the session too.
    pub fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// Signs off. Dropping the session closes the connection too, but in the background.
    ///
    /// # Errors
    /// If the farewell cannot be sent; the connection is closed all the same.
    pub async fn close(self) -> Result<()> {
        self.conn.disconnect().await.map_err(|e| sql_error(e, "cannot close the connection"))
    }
}

/// "cannot run `SQL`", cut short, and cut before anything that may be a password or its hash.
pub(crate) fn cannot_run(sql: &str) -> String {
    let mut end = without_secrets(sql).len().min(SHOWN);
    while !sql.is_char_boundary(end) {
        end -= 1;
    }
    let shown: Cow<'_, str> =
        if end < sql.len() { format!("{}…", &sql[..end]).into() } else { sql.into() };
    format!("cannot run `{shown}`")
}

#[cfg(test)]
mod tests {
    use super::cannot_run;

    #[test]
    fn statements_in_errors_are_short_and_without_secrets() {
        assert_eq!(cannot_run("SELECT 1"), "cannot run `SELECT 1`");
        assert_eq!(
            cannot_run("CREATE USER u identified BY 'hunter2'"),
            "cannot run `CREATE USER u …`"
        );
        let long = cannot_run(&"ä".repeat(500));
        assert!(long.len() < 160 && long.ends_with("…`"), "{long}");
    }
}
