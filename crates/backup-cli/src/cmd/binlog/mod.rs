//! `holdfast binlog`

mod apply;
mod check;
mod find;
mod list;
mod receive;
mod rescue;
mod undo;

use backup_core::Result;
use backup_drivers::binlog::Transaction;

use crate::answer::Answer;
use crate::app::App;
use crate::human;

/// Archive binary logs, and look into the archive
#[derive(clap::Args)]
pub(crate) struct Binlog {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Stream(receive::Stream),
    Backup(receive::Backup),
    Rescue(rescue::Rescue),
    List(list::List),
    Check(check::Check),
    Find(find::Find),
    Apply(apply::Apply),
    Undo(undo::Undo),
}

impl Binlog {
    /// Does what is asked.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        match &self.what {
            What::Stream(stream) => stream.run(app).await,
            What::Backup(backup) => backup.run(app).await,
            What::Rescue(rescue) => rescue.run(app).await,
            What::List(list) => list.run(app).await,
            What::Check(check) => check.run(app).await,
            What::Find(find) => find.run(app).await,
            What::Apply(apply) => apply.run(app).await,
            What::Undo(undo) => undo.run(app).await,
        }
    }
}

/// A transaction in a few lines.
pub(super) fn transaction(transaction: &Transaction) -> String {
    let name = transaction.gtid.as_ref().map_or("without GTID".to_owned(), ToString::to_string);
    let mut text = format!(
        "{name}  {}  {}:{}-{}\n",
        transaction.time, transaction.file, transaction.start, transaction.end
    );
    for (table, rows) in &transaction.tables {
        let mut counts = Vec::new();
        for (n, word) in
            [(rows.inserted, "inserted"), (rows.updated, "updated"), (rows.deleted, "deleted")]
        {
            if n > 0 {
                counts.push(format!("{} {word}", human::several(n, "row")));
            }
        }
        text.push_str(&format!("    {table}: {}\n", counts.join(", ")));
    }
    for statement in &transaction.statements {
        text.push_str(&format!("    {}\n", statement.replace('\n', " ")));
    }
    if transaction.uncounted {
        text.push_str("    some of its rows could not be counted\n");
    }
    human::plain(&text)
}
