//! Statements that would keep a lock waiting, and everybody else behind it.

use std::time::{Duration, Instant};

use backup_core::{Context, Error, ErrorKind, Event, Result};
use mysql_async::prelude::Queryable;

use crate::connect::{Session, sql_error};

/// What is done about statements that run for long when the global read lock is due: the lock waits
/// for them, and all writers wait for the lock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LongQueries {
    /// The backup waits for their end before it asks for the lock; it fails when they do not end.
    #[default]
    Wait,
    /// Those that only read are killed; the backup waits for the others.
    Kill,
    /// The backup fails.
    Fail,
}

/// A statement that runs for long.
struct Statement {
    id: u64,
    user: String,
    seconds: u64,
    verb: String,
}

/// Waits until no statement runs for `long` or more, at most for `timeout`.
pub(crate) async fn clear(
    cx: &Context,
    session: &mut Session,
    policy: LongQueries,
    long: Duration,
    timeout: Duration,
) -> Result<()> {
    let began = Instant::now();
    let mut told = false;
    loop {
        let busy = running(session, long).await?;
        let Some(first) = busy.first() else { return Ok(()) };
        let described = format!(
            "statement {} of {} ({}) has been running for {} s",
            first.id, first.user, first.verb, first.seconds
        );
        if policy == LongQueries::Kill {
            for statement in busy.iter().filter(|s| s.verb == "SELECT") {
                let text = format!("killed statement {} of {}", statement.id, statement.user);
                match session.run(&format!("KILL QUERY {}", statement.id)).await {
                    Ok(_) => cx.event(Event::Warning { text }),
                    // It is over.
                    Err(e) if e.server().is_some_and(|s| s.code == 1094) => {}
                    Err(e) => return Err(e.context("cannot end a statement that runs for long")),
                }
            }
        }
        if policy == LongQueries::Fail || began.elapsed() >= timeout {
            return Err(Error::new(ErrorKind::Source, described).with_source(
                "the global read lock would wait for it, and every writer for the lock",
            )
            .with_remedy(
                "end it or wait for its end; --long-queries kill ends those that only read, and a \
                 longer --lock-timeout waits longer",
            ));
        }
        if !told {
            cx.event(Event::Note { text: format!("waiting before the lock: {described}") });
            told = true;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn running(session: &mut Session, long: Duration) -> Result<Vec<Statement>> {
    let own = u64::from(session.id());
    let sql = "SHOW FULL PROCESSLIST";
    let rows: Vec<mysql_async::Row> = session
        .conn()
        .query(sql)
        .await
        .map_err(|e| sql_error(e, "cannot list the statements that run"))?;
    let mut found = Vec::new();
    for row in rows {
        let text = |column| row.get_opt::<Option<String>, _>(column).and_then(Result::ok).flatten();
        let number = |column| row.get_opt::<u64, _>(column).and_then(std::result::Result::ok);
        let (Some(id), Some(seconds)) = (number(0), number(5)) else { continue };
        let command = text(4).unwrap_or_default();
        let counts = ["Query", "Execute"].contains(&command.as_str());
        if id == own || !counts || Duration::from_secs(seconds) < long {
            continue;
        }
        // An applier that has nothing to apply counts as a query, for as long as nothing came.
        let Some(info) = text(7) else { continue };
        let verb = info.split_whitespace().next().unwrap_or_default().to_uppercase();
        found.push(Statement { id, user: text(1).unwrap_or_default(), seconds, verb });
    }
    found.sort_by_key(|s| std::cmp::Reverse(s.seconds));
    Ok(found)
}
