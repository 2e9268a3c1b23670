//! A source that has changed nothing since a backup of its data files was taken: its rows are what a drill of
//! that backup has to find.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Context, Error, ErrorKind, Finding, Manifest, Position, Result, Severity};

use super::census::Census;
use super::inventory::{self, ServerFacts};
use super::resume::untold;
use super::select::{Selection, TableName};
use super::snapshot::current_position;
use crate::connect::{ConnectOptions, Session};
use crate::rows::RowDigest;

/// What such a source holds.
#[derive(Debug, Clone)]
pub struct IdleSource {
    address: String,
    position: Position,
    tables: BTreeMap<TableName, RowDigest>,
    /// Tables whose rows are in no file.
    in_memory: BTreeSet<TableName>,
}

impl IdleSource {
    /// Reads all rows of `source`, in the way in which a drill reads them, and makes sure that it stood at
    /// the position of `backup` before the first and after the last. Another server of its cluster does
    /// too, where GTIDs say that it stands there.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] where it has moved on, or its binary log cannot tell; those of a logical backup.
    pub async fn read(
        cx: &Context,
        source: &ConnectOptions,
        backup: &Manifest,
    ) -> Result<IdleSource> {
        cx.phase("reading the source");
        cx.run(async {
            let mut session = Session::open(source).await?;
            let facts = inventory::server(session.conn()).await?;
            if let Some(why) = untold(&mut session, &facts).await? {
                return Err(not_compared(source, backup, &why));
            }
            let position = check(&mut session, &facts, source, backup).await?;
            let definitions =
                inventory::read(session.conn(), &facts, &Selection::default()).await?;
            // Reading all rows may take longer than a server keeps an idle connection.
            session.close().await?;
            let (in_memory, filed): (Vec<_>, Vec<_>) =
                definitions.tables.into_iter().partition(|table| table.engine == "MEMORY");
            let census = Census::rows_of(cx, source, filed).await?;
            if let Some(finding) = census.findings.first() {
                let problem = format!("{}: {}", finding.object, finding.problem);
                return Err(not_compared(source, backup, &problem));
            }
            let mut session = Session::open(source).await?;
            check(&mut session, &facts, source, backup).await?;
            session.close().await?;
            Ok(IdleSource {
                address: source.to_string(),
                position,
                tables: census.tables.into_iter().collect(),
                in_memory: in_memory.iter().map(super::Table::full_name).collect(),
            })
        })
        .await
    }

    /// Compares what a drill found in `tables` with it, but for those of `empty`, which the backup is known to have
    /// no rows of.
    #[must_use]
    pub fn compare(
        &self,
        backup: &str,
        tables: &[(TableName, RowDigest)],
        empty: &BTreeSet<TableName>,
    ) -> Vec<Finding> {
        let left_out = |name: &TableName| self.in_memory.contains(name) || empty.contains(name);
        let found: BTreeMap<&TableName, &RowDigest> =
            tables.iter().map(|(name, digest)| (name, digest)).collect();
        let names: BTreeSet<&TableName> = self.tables.keys().chain(found.keys().copied()).collect();
        let mut findings = Vec::new();
        let (mut same, mut rows) = (0, 0);
        for name in names.into_iter().filter(|name| !left_out(name)) {
            let problem = match (found.get(name), self.tables.get(name)) {
                (Some(here), Some(there)) if *here == there => {
                    same += 1;
                    rows += there.rows;
                    continue;
                }
                (Some(here), Some(there)) => format!(
                    "it is not what it is at the source: {} rows, digest {here} here, {} rows, digest \
                     {there} there",
                    here.rows, there.rows
                ),
                (None, _) => "it is at the source, and not here".to_owned(),
                (_, None) => format!("it is here, and {} sees no such table", self.address),
            };
            let remedy = "look at the table at the source, and take another backup now";
            findings.push(
                Finding::new(Severity::Error, name.to_string(), problem, remedy)
                    .with_kind(ErrorKind::Damaged),
            );
        }
        let mut text = format!(
            "compared with {}, which stood where the backup was taken ({}): {same} tables with {rows} rows \
             are the same",
            self.address, self.position
        );
        if !self.in_memory.is_empty() {
            let names: Vec<String> = self.in_memory.iter().map(ToString::to_string).collect();
            text.push_str(&format!(
                "; not compared, for their rows are in memory only: {}",
                names.join(", ")
            ));
        }
        findings.push(Finding::new(Severity::Info, backup, text, ""));
        findings
    }
}

/// Where the server stands, if that is where the backup was taken.
async fn check(
    session: &mut Session,
    facts: &ServerFacts,
    source: &ConnectOptions,
    backup: &Manifest,
) -> Result<Position> {
    let now = current_position(session, facts).await?;
    // Without, a transaction has no GTID that would tell of it.
    let mode: Option<(String, String)> =
        session.query_first("SHOW GLOBAL VARIABLES LIKE 'gtid_mode'").await?;
    let gtids = mode.is_none_or(|(_, mode)| mode == "ON");
    let then = &backup.outcome.position;
    match stands_at(then, &now, gtids, is_same_server(facts, backup)) {
        Some(true) => Ok(now),
        Some(false) => {
            Err(not_compared(source, backup, &format!("it stands at {now}, the backup at {then}")))
        }
        None => {
            let why = format!(
                "whether it has changed since cannot be told: it stands at {now}, the backup at {then}"
            );
            Err(not_compared(source, backup, &why))
        }
    }
}

fn is_same_server(facts: &ServerFacts, backup: &Manifest) -> bool {
    let source = &backup.outcome.source;
    match (&facts.server_uuid, &source.server_uuid) {
        (Some(here), Some(there)) => here == there,
        _ => facts.server_id == source.server_id && facts.hostname == source.hostname,
    }
}

/// Whether two places are one. `None` where that cannot be said.
fn stands_at(then: &Position, now: &Position, gtids: bool, same_server: bool) -> Option<bool> {
    // A server begins another file when it starts.
    let same_file = same_server && now.file.is_some() && then.file == now.file;
    if same_file && then.offset != now.offset {
        return Some(false);
    }
    match (&then.gtid, &now.gtid) {
        (Some(then), Some(now)) if gtids => Some(then == now),
        _ => same_file.then_some(true),
    }
}

fn not_compared(source: &ConnectOptions, backup: &Manifest, why: &str) -> Error {
    let problem = format!("{source} is not what {} can be compared with: {why}", backup.backup);
    Error::new(ErrorKind::Source, problem).with_remedy(
        "only a source that was idle since the backup can be compared: take one while nobody writes, and \
         compare it before anybody does; without --source the drill compares with nothing",
    )
}

#[cfg(test)]
mod tests {
    use backup_core::{Flavor, GtidSet};

    use super::*;

    #[test]
    fn every_table_that_differs_is_named() {
        let name = |text: &str| text.parse::<TableName>().unwrap();
        let of = |row: &str| RowDigest::of(row.as_bytes());
        let source = IdleSource {
            address: "db1".into(),
            position: Position::at("b.000001", 4),
            tables: [
                (name("d.same"), of("1")),
                (name("d.other"), of("2")),
                (name("d.only"), of("3")),
                (name("d.empty"), of("4")),
            ]
            .into(),
            in_memory: [name("d.memory")].into(),
        };
        let found = [
            (name("d.same"), of("1")),
            (name("d.other"), of("9")),
            (name("d.empty"), RowDigest::default()),
            (name("d.memory"), RowDigest::default()),
            (name("d.new"), of("5")),
        ];
        let findings = source.compare("backup", &found, &[name("d.empty")].into());
        let bad: Vec<&str> = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .map(|finding| finding.object.as_str())
            .collect();
        assert_eq!(bad, ["d.new", "d.only", "d.other"]);
        let last = &findings.last().unwrap().problem;
        assert!(last.contains("1 tables with 1 rows are the same"), "{last}");
        assert!(last.ends_with("in memory only: d.memory"), "{last}");
    }

    #[test]
    fn only_the_same_place_is_the_same() {
        let gtid = |n: u64| {
            let text = format!("3ab89017-e4eb-11f1-b6af-02fc00000001:1-{n}");
            Some(GtidSet::parse(Flavor::MySql, &text).unwrap())
        };
        let at = |gtid: Option<GtidSet>, file: &str, offset| Position {
            gtid,
            ..Position::at(file, offset)
        };
        let then = at(gtid(7), "b.000001", 500);
        for (now, gtids, same_server, expected) in [
            (at(gtid(7), "b.000001", 500), true, true, Some(true)),
            // Started since; a replica.
            (at(gtid(7), "b.000002", 4), true, true, Some(true)),
            (at(gtid(7), "b.000001", 900), true, false, Some(true)),
            (at(gtid(8), "b.000002", 4), true, true, Some(false)),
            // Something without a GTID.
            (at(gtid(7), "b.000001", 900), true, true, Some(false)),
            (at(gtid(7), "b.000001", 500), false, true, Some(true)),
            (at(gtid(7), "b.000002", 4), false, true, None),
            (at(None, "b.000001", 500), true, true, Some(true)),
            (at(None, "b.000001", 500), true, false, None),
            (Position::default(), true, true, None),
        ] {
            assert_eq!(stands_at(&then, &now, gtids, same_server), expected, "{now}");
        }
        let unknown = Position::default();
        assert_eq!(stands_at(&unknown, &unknown, true, true), None);
    }
}
