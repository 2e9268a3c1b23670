//! Locks of other sessions that we wait for: told of while it lasts, with who may hold them, and again where it was
//! too long.

use std::pin::pin;
use std::time::Duration;

use backup_core::{Context, Result, and_again};

use crate::connect::{ConnectOptions, Session, without_secrets};

/// The longest that a statement of a restore waits for a table that others use.
pub(super) const RESTORE: Duration = Duration::from_secs(300);
/// How often it is looked whether we wait.
const EVERY: Duration = Duration::from_secs(3);
/// From so many seconds of waiting on it is looked who is waited for, and told.
const LOOKED: u64 = 3;
const TOLD: u64 = 9;
/// So many sessions are named.
const SHOWN: usize = 5;

/// The statement that makes a session wait for locks on tables no longer than this.
pub(super) fn at_most(limit: Duration) -> String {
    format!("SET SESSION lock_wait_timeout = {}", limit.as_secs().max(1))
}

/// Does `work` with `server`, says meanwhile when it waits for a lock, and who held it where it fails for that.
/// `longer` says how it may wait longer.
pub(super) async fn told<T>(
    cx: &Context,
    server: &ConnectOptions,
    longer: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut seen = None;
    let done = {
        let mut work = pin!(work);
        let watch = watch(cx, server, &mut seen);
        tokio::select! {
            biased;
            done = &mut work => done,
            never = watch => match never {},
        }
    };
    match done {
        Err(e) if e.server().is_some_and(|said| said.code == 1205) => {
            let held = match seen {
                Some(held) => held,
                None => holders_now(server).await.unwrap_or_default(),
            };
            let what = match held.is_empty() {
                true => "another session holds a lock that was waited for in vain".to_owned(),
                false => format!("a lock was waited for in vain ({held})"),
            };
            let end = match longer {
                "" => "end that session (KILL and its number), or wait for its end".to_owned(),
                _ => {
                    format!("end that session (KILL and its number), or wait for its end; {longer}")
                }
            };
            Err(e.context(what).with_remedy(and_again(&end, "run the command again")))
        }
        other => other,
    }
}

/// Looks from time to time, and keeps in `seen` who was waited for last.
async fn watch(
    cx: &Context,
    server: &ConnectOptions,
    seen: &mut Option<String>,
) -> std::convert::Infallible {
    let mut session = None;
    let mut last_told = 0;
    loop {
        tokio::time::sleep(EVERY).await;
        let mut open = match session.take() {
            Some(open) => open,
            // There may be no connection to be had; the work will tell.
            None => match Session::open(server).await {
                Ok(open) => open,
                Err(_) => continue,
            },
        };
        let Ok(waiting) = waiting(&mut open, server).await else { continue };
        if let Some(Waiting { id, seconds, statement }) = waiting {
            let held = holders(&mut open, server, Some(id)).await.unwrap_or_default();
            if seconds >= TOLD && last_told != id {
                last_told = id;
                cx.note(format!(
                    "waiting for a lock for {seconds} s already, with {statement}{}",
                    if held.is_empty() { String::new() } else { format!(": {held}") }
                ));
            }
            *seen = Some(held);
        }
        session = Some(open);
    }
}

/// A session of ours that waits.
struct Waiting {
    id: u64,
    seconds: u64,
    statement: String,
}

async fn waiting(session: &mut Session, server: &ConnectOptions) -> Result<Option<Waiting>> {
    let sql = format!(
        "SELECT ID, TIME, LEFT(INFO, 300) FROM information_schema.PROCESSLIST WHERE (STATE LIKE 'Waiting for%lock' OR \
         STATE = 'Waiting for table flush') AND TIME >= {LOOKED} ORDER BY TIME DESC"
    );
    let rows: Vec<(u64, i64, Option<Vec<u8>>)> = session.query_rows(&sql).await?;
    let ours = rows.into_iter().find(|(id, ..)| server.opened.has(*id));
    Ok(ours.map(|(id, seconds, info)| Waiting {
        id,
        seconds: seconds.unsigned_abs(),
        statement: shown(&String::from_utf8_lossy(&info.unwrap_or_default())),
    }))
}

/// A statement, without what may be values of rows.
fn shown(statement: &str) -> String {
    let statement = without_secrets(statement);
    let end = ["WHERE", "VALUES", "SET ", "("].iter().filter_map(|word| statement.find(word)).min();
    let statement = statement[..end.unwrap_or(statement.len())].trim_end();
    let from = statement.find(" FROM ").filter(|_| statement.starts_with("SELECT"));
    match from {
        Some(from) => format!("`SELECT …{}`", &statement[from..]),
        None => format!("`{statement} …`"),
    }
}

async fn holders_now(server: &ConnectOptions) -> Result<String> {
    let mut session = Session::open(server).await?;
    let held = holders(&mut session, server, None).await?;
    session.close().await?;
    Ok(held)
}

/// Who holds what the session `waits` waits for, or who may.
async fn holders(
    session: &mut Session,
    server: &ConnectOptions,
    waits: Option<u64>,
) -> Result<String> {
    type Known = (u64, Option<String>, Option<String>, Option<i64>, Option<String>);
    let mut known: Vec<Known> = Vec::new();
    if let Some(waits) = waits {
        let sql = format!(
            "SELECT DISTINCT t.PROCESSLIST_ID, t.PROCESSLIST_USER, t.PROCESSLIST_COMMAND, t.PROCESSLIST_TIME, IF(g.OBJECT_NAME \
             IS NULL, g.OBJECT_TYPE, CONCAT(g.OBJECT_SCHEMA, '.', g.OBJECT_NAME)) FROM \
             performance_schema.metadata_locks w JOIN performance_schema.threads wt ON wt.THREAD_ID = \
             w.OWNER_THREAD_ID JOIN performance_schema.metadata_locks g ON g.OBJECT_TYPE = w.OBJECT_TYPE AND \
             g.OBJECT_SCHEMA <=> w.OBJECT_SCHEMA AND g.OBJECT_NAME <=> w.OBJECT_NAME AND g.LOCK_STATUS = 'GRANTED' AND \
             NOT (g.LOCK_TYPE = 'INTENTION_EXCLUSIVE' AND w.LOCK_TYPE = 'INTENTION_EXCLUSIVE') AND \
             g.OWNER_THREAD_ID <> w.OWNER_THREAD_ID JOIN performance_schema.threads t ON t.THREAD_ID = \
             g.OWNER_THREAD_ID WHERE w.LOCK_STATUS = 'PENDING' AND wt.PROCESSLIST_ID = {waits} AND t.PROCESSLIST_ID \
             IS NOT NULL"
        );
        // Not everybody may, and a server may not keep it.
        known = session.query_rows(&sql).await.unwrap_or_default();
    }
    let named = |(id, user, command, seconds, table): &Known| {
        let of = table.as_deref().map(|table| format!(" on {table}")).unwrap_or_default();
        let (user, command) = (user.as_deref().unwrap_or("?"), command.as_deref().unwrap_or("?"));
        format!("session {id} of {user}{of}, {command} for {} s", seconds.unwrap_or_default())
    };
    if !known.is_empty() {
        let known: Vec<String> = known.iter().take(SHOWN).map(named).collect();
        return Ok(format!("it is held by {}", known.join("; ")));
    }
    // Sessions with a transaction, and those that do nothing and may have said LOCK TABLES.
    let sql = "SELECT p.ID, p.USER, IF(t.trx_mysql_thread_id IS NULL, p.COMMAND, CONCAT(p.COMMAND, ', in a transaction')), \
               p.TIME, NULL FROM information_schema.PROCESSLIST p LEFT JOIN information_schema.INNODB_TRX t ON \
               t.trx_mysql_thread_id = p.ID WHERE (p.COMMAND = 'Sleep' OR t.trx_mysql_thread_id IS NOT NULL) AND \
               p.ID <> CONNECTION_ID() ORDER BY t.trx_mysql_thread_id IS NULL, p.TIME DESC";
    let others: Vec<Known> = session.query_rows(sql).await?;
    let others: Vec<String> =
        others.iter().filter(|(id, ..)| !server.opened.has(*id)).take(SHOWN).map(named).collect();
    Ok(match others.is_empty() {
        true => String::new(),
        false => format!("it may be held by {}", others.join("; ")),
    })
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn no_values_are_told_of_a_statement() {
        for (statement, expected) in [
            ("SELECT `id`, `v` FROM `d`.`t` WHERE 5 <= `id`", "`SELECT … FROM `d`.`t``"),
            ("DROP TABLE `d`.`t`", "`DROP TABLE `d`.`t` …`"),
            ("INSERT INTO `d`.`t` VALUES (1)", "`INSERT INTO `d`.`t` …`"),
            ("INSERT INTO `d`.`t` (`a`) VALUES (1)", "`INSERT INTO `d`.`t` …`"),
        ] {
            assert_eq!(shown(statement), expected);
        }
    }
}
