//! `holdfast binlog undo`

use backup_core::{ClusterName, Error, ErrorKind, Gtid, Result, SegmentStore, shell_word};
use backup_drivers::binlog::undo::{Gone, undo};
use backup_drivers::connect::without_password;
use backup_drivers::logical::TableName;
use backup_storage::RepositoryOptions;
use serde_json::json;

use super::super::backup::{Names, flat, source, table_names};
use super::transaction;
use crate::answer::Answer;
use crate::app::App;
use crate::human;
use crate::login::DefaultsFile;

/// Print the statements that undo a transaction, from its archived rows
///
/// Nothing is run. The rows that the transaction left are compared with those that the server has now;
/// where others changed them since, no statement is printed, unless with --anyway.
#[derive(clap::Args)]
pub(super) struct Undo {
    /// The transaction
    #[arg(long, value_name = "GTID")]
    gtid: Gtid,
    /// The cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// The server that the rows are on: mysql://user@host:port/
    #[arg(long, value_name = "DSN")]
    source: Option<String>,
    #[command(flatten)]
    defaults_file: DefaultsFile,
    /// Only the rows of these tables
    #[arg(long, value_name = "DB.TABLE,…", value_parser = table_names)]
    table: Vec<Names<TableName>>,
    /// Print the statements although something speaks against them
    #[arg(long)]
    anyway: bool,
}

impl Undo {
    pub(super) async fn run(&self, app: &App) -> Result<Answer> {
        let cx = &app.cx;
        let cluster = app.cluster(self.cluster.as_ref())?;
        let repo = app.repo(RepositoryOptions::default()).await?;
        app.known(&repo, self.cluster.as_ref(), &cluster).await?;
        let source = source(app, self.source.as_deref(), &self.defaults_file);
        let source = source.resolve(cx).await?;
        let tables: Vec<TableName> = flat(&self.table);
        let listed = cx.run(repo.segments(cx, &cluster)).await?;
        let segments = listed.into_iter().filter_map(|listed| listed.info.ok()).collect();
        let found = cx.run(undo(cx, &repo, segments, &self.gtid, &tables, &source)).await;
        let found = found.map_err(|e| self.table_back(app, &cluster, e))?;
        let printed = found.problems.is_empty() || self.anyway;
        let document = json!({
            "transaction": found.transaction,
            "settings": found.settings,
            "statements": if printed { &found.statements[..] } else { &[] },
            "rows_compared": found.compared,
            "problems": found.problems,
            "notes": found.notes,
        });
        let mut text = format!("-- Undoes {}", comment(&transaction(&found.transaction)));
        text.push_str(&format!(
            "-- Compared with {source}: {}\n",
            human::several(found.compared, "row")
        ));
        for problem in &found.problems {
            text.push_str(&format!("-- PROBLEM: {}", comment(&human::plain(problem))));
        }
        for note in &found.notes {
            text.push_str(&format!("-- NOTE: {}", comment(&human::plain(note))));
        }
        if printed {
            for sql in &found.settings {
                text.push_str(&format!("{sql};\n"));
            }
            text.push_str("START TRANSACTION;\n");
            for sql in &found.statements {
                text.push_str(&format!("{sql};\n"));
            }
            text.push_str("COMMIT;\n");
        } else {
            text.push_str("-- No statement is printed; --anyway prints them all the same.\n");
        }
        let answer = Answer::new(&document, text)?;
        Ok(match found.problems.first() {
            None => answer,
            Some(_) if printed => answer.ending(Some(ErrorKind::Warnings)),
            Some(first) => {
                let more = match found.problems.len() - 1 {
                    0 => String::new(),
                    more => format!(" (and {})", human::several(more as u64, "more problem")),
                };
                let message = format!("{} is not undone: {first}{more}", self.gtid);
                answer.failing(Error::new(ErrorKind::Source, message).with_remedy(
                    "look at the problems that are printed; --anyway prints the statements all the same",
                ))
            }
        })
    }

    /// The error of a table that was dropped, with the commands that bring it back.
    fn table_back(&self, app: &App, cluster: &ClusterName, e: Error) -> Error {
        let gone = e.causes().find_map(|cause| cause.downcast_ref());
        let Some(table) = gone.map(|Gone(table)| table.to_string()) else { return e };
        let table = shell_word(&table);
        let target = self.source.as_deref().map_or("…".into(), without_password);
        let (target, repository) = (shell_word(&target), &app.repo_flags);
        let restore = |before: &str| {
            format!(
                "holdfast restore --cluster {cluster} --tables {table} --before-gtid {before} --target \
                 {target}{repository}"
            )
        };
        let remedy = format!(
            "bring the table back as it was before the transaction, and without all that came after: `{}`; or as it was \
             when it went, and undo this one then: `holdfast binlog find --cluster {cluster} --table {table} \
             --drop{repository}` shows what dropped it, and `{}` brings it",
            restore(&self.gtid.to_string()),
            restore("THAT-GTID"),
        );
        e.with_remedy(remedy)
    }
}

/// Lines of a comment, behind the mark of the first.
fn comment(text: &str) -> String {
    format!("{}\n", text.trim_end().replace('\n', "\n-- "))
}
