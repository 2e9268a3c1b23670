//! Distributed transactions (XA) that are prepared while a backup is taken: it does not hold what they
//! changed, and later binlogs have only their COMMIT.

use std::collections::BTreeSet;

use backup_core::{Context, Result};

use crate::connect::Session;

/// So many are named.
const SHOWN: usize = 10;

/// The transactions that are prepared now, as SQL names them. None where the account may not ask.
pub(super) async fn prepared(cx: &Context, session: &mut Session) -> Result<BTreeSet<String>> {
    // format, lengths of the two parts of the name, the parts
    let rows: Vec<(i64, usize, usize, Vec<u8>)> = match session.query_rows("XA RECOVER").await {
        Ok(rows) => rows,
        // MySQL wants XA_RECOVER_ADMIN, and says so with XAER_RMERR.
        Err(e) if e.server().is_some() => {
            cx.note(format!("whether XA transactions are prepared was not seen: {}", e.chain()));
            return Ok(BTreeSet::new());
        }
        Err(e) => return Err(e),
    };
    Ok(rows.into_iter().map(|(format, global, _, data)| name(format, global, &data)).collect())
}

fn name(format: i64, global: usize, data: &[u8]) -> String {
    let (global, branch) = data.split_at(global.min(data.len()));
    let hex = |part: &[u8]| part.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("X'{}',X'{}',{format}", hex(global), hex(branch))
}

/// What a backup has to say of them: those that were prepared before its moment, and those that were
/// right after it. Of each of them the moment may lie between its PREPARE and its COMMIT.
pub(super) fn warning(transactions: &BTreeSet<String>) -> Option<String> {
    let names: Vec<&str> = transactions.iter().take(SHOWN).map(String::as_str).collect();
    let more = match transactions.len() - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!names.is_empty()).then(|| {
        format!(
            "XA transactions are prepared, and what they changed is not in this backup: {}{more}. Where one \
             was prepared before the backup and is committed after it, the way to a later point begins at \
             an earlier backup",
            names.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_counted() {
        let all: BTreeSet<String> = (0..12).map(|n| name(7, 1, &[n, 0xff])).collect();
        let told = warning(&all).unwrap();
        assert!(told.contains("X'00',X'ff',7; X'01'") && told.contains(" and 2 more."), "{told}");
        assert_eq!(warning(&BTreeSet::new()), None);
        // Lengths that do not fit the name.
        assert_eq!(name(1, 9, b"a"), "X'61',X'',1");
    }
}
