//! `holdfast binlog find`

use backup_core::{ClusterName, Error, ErrorKind, Event, Result, SegmentInfo, SegmentStore};
use backup_drivers::binlog::{FoundTransactions, Transaction, find_transactions};
use backup_drivers::logical::TableName;
use backup_storage::RepositoryOptions;
use jiff::Timestamp;
use serde_json::json;

use super::super::time;
use super::transaction;
use crate::answer::Answer;
use crate::app::App;
use crate::human;

/// Find transactions in the archived binlogs: by table, by what they did, by time
#[derive(clap::Args)]
pub(super) struct Find {
    /// The cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// Only those that change rows of this table, or have a statement that names it
    #[arg(long, value_name = "DB.TABLE")]
    table: Option<TableName>,
    /// Only those with a DROP or TRUNCATE statement; with --delete or --update, those that do any of these
    #[arg(long)]
    drop: bool,
    /// Only those that delete rows; see --drop
    #[arg(long)]
    delete: bool,
    /// Only those that update rows; see --drop
    #[arg(long)]
    update: bool,
    /// Only those that change at least so many rows
    #[arg(long, value_name = "N")]
    min_rows: Option<u64>,
    /// Only those that were committed at this time or later
    #[arg(long, value_name = "TIME", value_parser = time::time)]
    after: Option<Timestamp>,
    /// Only those that were committed before this time
    #[arg(long, value_name = "TIME", value_parser = time::time)]
    before: Option<Timestamp>,
    /// Both: only those that were committed from one time on, and before another
    #[arg(long, num_args = 2, value_names = ["FROM", "TO"], value_parser = time::time,
          conflicts_with_all = ["after", "before"])]
    between: Option<Vec<Timestamp>>,
    /// No more than so many, the newest; 0 for all
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

impl Find {
    fn after(&self) -> Option<Timestamp> {
        self.after.or_else(|| self.between.as_ref()?.first().copied())
    }

    fn before(&self) -> Option<Timestamp> {
        self.before.or_else(|| self.between.as_ref()?.get(1).copied())
    }

    pub(super) async fn run(&self, app: &App) -> Result<Answer> {
        let cx = &app.cx;
        if let (Some(after), Some(before)) = (self.after(), self.before())
            && after >= before
        {
            return Err(Error::usage(format!("no time is from {after} on and before {before}"))
                .with_remedy("name the earlier time first"));
        }
        let cluster = app.cluster(self.cluster.as_ref())?;
        let repo = app.repo(RepositoryOptions::default()).await?;
        app.known(&repo, self.cluster.as_ref(), &cluster).await?;
        let listed = cx.run(repo.segments(cx, &cluster)).await?;
        let in_time = |segment: &SegmentInfo| {
            let late =
                self.after().is_some_and(|after| segment.last_time.is_none_or(|t| t < after));
            let early =
                self.before().is_some_and(|before| segment.first_time.is_none_or(|t| t >= before));
            // The rest of a transaction that began before.
            segment.begins_inside || !(late || early)
        };
        let mut damaged = Vec::new();
        let mut segments: Vec<SegmentInfo> = Vec::new();
        for segment in listed {
            match segment.info {
                Ok(info) if in_time(&info) => segments.push(info),
                Ok(_) => {}
                // Nobody knows what was in it.
                Err(e) => damaged.push(format!(
                    "segment {}/{} is damaged: {}",
                    segment.server,
                    segment.seq,
                    e.chain()
                )),
            }
        }
        cx.progress().expect_bytes(segments.iter().map(SegmentInfo::bytes).sum());
        let limit = if self.limit == 0 { usize::MAX } else { self.limit };
        // The same transaction is in the binlogs of several servers.
        let mut seen = std::collections::HashSet::new();
        let mut touched = false;
        let found = find_transactions(cx, &repo, &segments, limit, |transaction| {
            touched |= self.is_of_table(transaction);
            self.wants(transaction)
                && transaction.gtid.as_ref().is_none_or(|gtid| seen.insert(gtid.clone()))
        })
        .await?;
        let FoundTransactions { transactions, left_out, damaged: unread } = &found;
        damaged.extend(unread.iter().cloned());
        for text in &damaged {
            let text = format!(
                "{text}; transactions in it may be missing here: `holdfast binlog check` says what to do"
            );
            cx.event(Event::Warning { text });
        }
        if *left_out > 0 {
            let older = human::count(*left_out);
            let text = format!("{older} older ones are left out; --limit 0 shows all");
            cx.event(Event::Warning { text });
        }
        let mut text: String = transactions.iter().map(transaction).collect();
        if transactions.is_empty() {
            let place = match damaged.is_empty() {
                true => "archived",
                false => "in what could be read of the archive",
            };
            text.push_str(&match &self.table {
                // A name that is mistyped is not one that nothing happened to.
                Some(table) if !touched => {
                    format!("No transaction that touches {table} is {place}, whatever it did.\n")
                }
                _ => format!("No such transaction is {place}.\n"),
            });
        }
        let ending = (!damaged.is_empty()).then_some(ErrorKind::Warnings);
        let document =
            json!({ "transactions": transactions, "left_out": left_out, "warnings": damaged });
        Ok(Answer::new(&document, text)?.ending(ending))
    }

    /// Whether it changes rows of the table, or has a statement that names it; of any table, where none is
    /// named.
    fn is_of_table(&self, transaction: &Transaction) -> bool {
        self.table.as_ref().is_none_or(|table| {
            transaction.tables.contains_key(&table.to_string())
                || transaction.statements.iter().any(|sql| names(sql, &table.table))
        })
    }

    fn wants(&self, transaction: &Transaction) -> bool {
        let says = |words: &[&str]| {
            transaction.statements.iter().any(|statement| {
                let upper = statement.trim_start().to_ascii_uppercase();
                words.iter().any(|word| upper.starts_with(word))
            })
        };
        let tables = || match &self.table {
            Some(table) => {
                transaction.tables.get(&table.to_string()).into_iter().collect::<Vec<_>>()
            }
            None => transaction.tables.values().collect(),
        };
        let rows: u64 = tables().iter().map(|t| t.inserted + t.updated + t.deleted).sum();
        let kinds = [
            (self.drop, says(&["DROP", "TRUNCATE"])),
            (self.delete, tables().iter().any(|t| t.deleted > 0) || says(&["DELETE"])),
            (self.update, tables().iter().any(|t| t.updated > 0) || says(&["UPDATE"])),
        ];
        let asked = kinds.iter().any(|(asked, _)| *asked);
        self.is_of_table(transaction)
            && (!asked || kinds.iter().any(|(asked, is)| *asked && *is))
            && self.min_rows.is_none_or(|least| rows >= least)
            && self.after().is_none_or(|after| transaction.time >= after)
            && self.before().is_none_or(|before| transaction.time < before)
    }
}

/// Whether a statement has this name as a word of its own.
fn names(statement: &str, name: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    statement.match_indices(name).any(|(at, _)| {
        let before = statement[..at].chars().next_back();
        let behind = statement[at + name.len()..].chars().next();
        !before.is_some_and(inside) && !behind.is_some_and(inside)
    })
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_name_is_found_as_a_word_of_its_own() {
        for sql in ["DROP TABLE t", "drop table `d`.`t`,x", "t", "UPDATE d.t SET a = 1"] {
            assert!(names(sql, "t"), "{sql}");
        }
        for sql in ["DROP TABLE tt", "DROP TABLE `at`", "t_old", "t$", ""] {
            assert!(!names(sql, "t"), "{sql}");
        }
        assert!(names("DROP TABLE old_tä, tä", "tä"));
        assert!(!names("DROP TABLE tä", "t"));
    }
}
