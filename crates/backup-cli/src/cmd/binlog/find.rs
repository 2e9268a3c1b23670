//! `holdfast binlog find`

use backup_core::{ClusterName, ErrorKind, Event, Result, SegmentInfo, SegmentStore};
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
    /// Only those with a DROP or TRUNCATE statement
    #[arg(long)]
    drop: bool,
    /// Only those that delete rows
    #[arg(long)]
    delete: bool,
    /// Only those that update rows
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
        let found = find_transactions(cx, &repo, &segments, limit, |transaction| {
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
            text.push_str(match damaged.is_empty() {
                true => "No such transaction is archived.\n",
                false => "No such transaction is in what could be read of the archive.\n",
            });
        }
        let ending = (!damaged.is_empty()).then_some(ErrorKind::Warnings);
        let document =
            json!({ "transactions": transactions, "left_out": left_out, "warnings": damaged });
        Ok(Answer::new(&document, text)?.ending(ending))
    }

    fn wants(&self, transaction: &Transaction) -> bool {
        let says = |words: &[&str]| {
            transaction.statements.iter().any(|statement| {
                let upper = statement.trim_start().to_ascii_uppercase();
                words.iter().any(|word| upper.starts_with(word))
            })
        };
        let of_table = self.table.as_ref().is_none_or(|table| {
            transaction.tables.contains_key(&table.to_string())
                || transaction.statements.iter().any(|statement| statement.contains(&table.table))
        });
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
        of_table
            && (!asked || kinds.iter().any(|(asked, is)| *asked && *is))
            && self.min_rows.is_none_or(|least| rows >= least)
            && self.after().is_none_or(|after| transaction.time >= after)
            && self.before().is_none_or(|before| transaction.time < before)
    }
}
