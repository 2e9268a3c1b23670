//! `holdfast binlog list`

use backup_core::{BinlogServer, ClusterName, ErrorKind, Event, Result, SegmentStore};
use backup_storage::RepositoryOptions;
use serde_json::json;

use crate::answer::Answer;
use crate::app::App;
use crate::human::{self, Align};

/// List the archived binlogs of a cluster, file by file
#[derive(clap::Args)]
pub(super) struct List {
    /// The cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
}

/// Pieces of one file that join each other.
struct Line {
    server: BinlogServer,
    file: String,
    started: u32,
    start: u64,
    end: u64,
    transactions: u64,
    stored: u64,
    first: Option<jiff::Timestamp>,
    last: Option<jiff::Timestamp>,
    closed: bool,
}

impl List {
    pub(super) async fn run(&self, app: &App) -> Result<Answer> {
        let cluster = app.cluster(self.cluster.as_ref())?;
        let repo = app.repo(RepositoryOptions::default()).await?;
        app.known(&repo, self.cluster.as_ref(), &cluster).await?;
        let listed = app.cx.run(repo.segments(&app.cx, &cluster)).await?;
        let mut document = Vec::new();
        let mut lines: Vec<Line> = Vec::new();
        let mut ending = None;
        for segment in &listed {
            let info = match &segment.info {
                Ok(info) => info,
                Err(e) => {
                    let name = format!("{}/{}", segment.server, segment.seq);
                    let text = format!("segment {name} cannot be read: {}", e.report());
                    app.cx.event(Event::Warning { text });
                    document.push(json!({
                        "server": segment.server, "seq": segment.seq, "error": e.chain(),
                    }));
                    ending = Some(ErrorKind::Warnings);
                    continue;
                }
            };
            document.push(json!({
                "server": info.server,
                "seq": info.seq,
                "file": info.range.file,
                "start": info.range.start,
                "end": info.range.end,
                "bytes": info.bytes(),
                "bytes_stored": segment.stored,
                "transactions": info.transactions,
                "first_time": info.first_time,
                "last_time": info.last_time,
                "gtid_before": info.before,
                "gtid_after": info.after,
                "gap_before": info.gap_before,
                "archived_at": info.archived_at,
            }));
            let joins = |line: &&mut Line| {
                line.server == info.server
                    && line.file == info.range.file
                    && line.started == info.range.file_started
                    && line.end == info.range.start
            };
            match lines.last_mut().filter(joins) {
                Some(line) => {
                    line.end = info.range.end;
                    line.transactions += info.transactions;
                    line.stored += segment.stored;
                    line.first = line.first.or(info.first_time);
                    line.last = info.last_time.or(line.last);
                    line.closed = info.closes_file;
                }
                None => lines.push(Line {
                    server: info.server.clone(),
                    file: info.range.file.clone(),
                    started: info.range.file_started,
                    start: info.range.start,
                    end: info.range.end,
                    transactions: info.transactions,
                    stored: segment.stored,
                    first: info.first_time,
                    last: info.last_time,
                    closed: info.closes_file,
                }),
            }
        }
        let time = |time: Option<jiff::Timestamp>| time.map_or("-".to_owned(), human::time);
        let rows: Vec<Vec<String>> = lines
            .iter()
            .map(|line| {
                vec![
                    line.server.to_string(),
                    line.file.clone(),
                    format!("{}-{}{}", line.start, line.end, if line.closed { "" } else { "…" }),
                    human::count(line.transactions),
                    human::bytes(line.stored),
                    time(line.first),
                    time(line.last),
                ]
            })
            .collect();
        let columns = [
            ("SERVER", Align::Left),
            ("FILE", Align::Left),
            ("BYTES", Align::Left),
            ("TRANSACTIONS", Align::Right),
            ("STORED", Align::Right),
            ("FIRST", Align::Left),
            ("LAST", Align::Left),
        ];
        let text = match rows.is_empty() {
            true => format!("No binlogs of {cluster} are archived yet.\n"),
            false => human::table(&columns, &rows),
        };
        Ok(Answer::new(&document, text)?.ending(ending))
    }
}
