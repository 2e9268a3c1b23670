//! Statistics of tables that a MySQL has found due, and writes even while nobody may change anything.
//!
//! It takes one table out of a list of its own every ten seconds, whatever its settings are by then, and does not show
//! the list. What shows is when it wrote the last one: nothing for longer than it leaves between two means that none is
//! left (`dict_stats_thread` of InnoDB).

use std::time::{Duration, Instant};

use backup_core::{Context, ErrorKind, Result};

use crate::connect::Session;

/// How long it leaves between two tables, and leaves a table alone that it has just counted (`MIN_RECALC_INTERVAL`).
const INTERVAL: Duration = Duration::from_secs(10);
/// What counting a table may take. It is written at the end of that.
const COUNTING: Duration = Duration::from_secs(3);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long it is waited for at the most: sixty tables.
const LIMIT: Duration = Duration::from_secs(600);

/// When statistics were last written, and when that was asked, in seconds of the server's clock.
type Written = (Option<i64>, i64);

/// Waits until all that are due are written, with no more to become due meanwhile. Where the account may not see when
/// they were, that is as long as one table may take; where there are too many, it goes on all the same.
pub(super) async fn settled(cx: &Context, session: &mut Session) -> Result<()> {
    let began = Instant::now();
    let (mut last, asked) = written(session).await?;
    let age = last.map_or(0, |last| asked.saturating_sub(last));
    let age = Duration::from_secs(u64::try_from(age).unwrap_or_default());
    // One that was counted before is put back into the list until it is old enough.
    let mut idle_since = began + INTERVAL.saturating_sub(age);
    cx.note("waiting until the server has written the statistics of tables that are due");
    while Instant::now() < idle_since + INTERVAL + COUNTING && began.elapsed() < LIMIT {
        cx.check()?;
        tokio::time::sleep(LOOK).await;
        let (now, _) = written(session).await?;
        if now != last {
            last = now;
            idle_since = Instant::now();
        }
    }
    Ok(())
}

async fn written(session: &mut Session) -> Result<Written> {
    let sql =
        "SELECT MAX(UNIX_TIMESTAMP(last_update)), UNIX_TIMESTAMP() FROM mysql.innodb_table_stats";
    match session.query_first(sql).await {
        Ok(row) => Ok(row.unwrap_or((None, 0))),
        Err(e) if e.kind() == ErrorKind::Privilege => Ok((None, 0)),
        Err(e) => Err(e),
    }
}
