//! Tables of a private server to a target on the same machine, as files where that can be.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use backup_core::{
    ClusterName, Context, Error, ErrorKind, Event, Finding, Position, Restored, Result, Severity,
    and_again, io_error,
};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::files::{self, Transport};
use backup_drivers::logical::{Census, LogicalRestoreOptions, Parts, Rename, Selection, TableName};

use crate::aside::{AsideOptions, Rows, look_over, move_over, unreadable};

/// Moves the tables that `options` choose from `source`, a private server on the restored files in `scratch`,
/// to their target: their tablespaces as they are where the target can import them, else row by row. Both ways
/// compare every row.
///
/// # Errors
/// As [`move_over`]; [`ErrorKind::Target`] when the target has other rows than the backup.
pub(crate) async fn move_tables(
    cx: &Context,
    cluster: &ClusterName,
    scratch: &Path,
    source: &ConnectOptions,
    options: &AsideOptions,
) -> Result<Restored> {
    let mut transport = match open(scratch, source, options).await? {
        Ok(transport) => transport,
        Err(why) => {
            cx.note(format!("what is restored is moved row by row: {why}"));
            return move_over(cx, cluster, scratch, source, options, Rows::Move, false).await;
        }
    };
    let selection = &options.restore.selection;
    let (mut by_file, mut by_row) = (BTreeSet::new(), BTreeSet::new());
    let mut sequences = BTreeSet::new();
    let wanted = |table: &&TableName| selection.wants_table(&table.database, &table.table);
    for table in selection.tables.iter().filter(wanted) {
        if transport.is_sequence(table).await? {
            sequences.insert(table.clone());
            continue;
        }
        match transport.why_not(table, &options.restore.rename.table(table)).await? {
            None => by_file.insert(table.clone()),
            Some(why) => {
                cx.note(format!("{table} is moved row by row: {why}"));
                by_row.insert(table.clone())
            }
        };
    }
    let mut done = Done::new(options);
    let mut way = Way { cx, cluster, scratch, source, options, sequences, told: false };
    if by_file.is_empty() {
        by_row.append(&mut way.sequences);
    } else if !by_row.is_empty() {
        // In two parts: what is wrong with the second is found before the first is made.
        let findings = way.look(&(&by_file | &by_row)).await?;
        let warnings = findings.iter().filter(|finding| finding.severity == Severity::Warning);
        for Finding { object, problem, remedy, .. } in warnings {
            let text = format!("{object}: {problem} ({remedy})");
            cx.event(Event::Warning { text: text.clone() });
            done.total.warnings.push(text);
        }
        way.told = true;
    }
    let moved = way.run(&mut transport, &by_file, &by_row, &mut done).await;
    moved.map_err(|e| done.failed(e, &(&(&by_file | &by_row) | &way.sequences)))?;
    Ok(done.total)
}

/// From where, and to where.
struct Way<'a> {
    cx: &'a Context,
    cluster: &'a ClusterName,
    scratch: &'a Path,
    source: &'a ConnectOptions,
    options: &'a AsideOptions,
    /// What goes with the definitions of tables that come as files.
    sequences: BTreeSet<TableName>,
    /// Whether what there is to look at has been told.
    told: bool,
}

impl Way<'_> {
    /// What the target says to all of it.
    async fn look(&self, tables: &BTreeSet<TableName>) -> Result<Vec<Finding>> {
        let chosen = choose(self.options, &(tables | &self.sequences));
        let path = self.place("looked")?;
        look_over(self.cx, self.cluster, &path, self.source, &chosen).await
    }

    async fn run(
        &self,
        transport: &mut Transport,
        by_file: &BTreeSet<TableName>,
        by_row: &BTreeSet<TableName>,
        done: &mut Done<'_>,
    ) -> Result<()> {
        let Way { cx, source, options, .. } = self;
        if !by_file.is_empty() {
            let chosen = choose(options, by_file);
            cx.phase("reading the tables");
            let before = Census::of(cx, source, &chosen.restore.selection).await;
            let before = before.map_err(unreadable)?;
            let bad = before.findings.iter().find(|finding| finding.severity == Severity::Error);
            if let Some(Finding { object, problem, .. }) = bad {
                return Err(Error::damaged(format!("the backup's {object} is damaged: {problem}"))
                    .with_remedy("restore it out of an older backup, and the others without it"));
            }
            let with_sequences = choose(options, &(by_file | &self.sequences));
            let made = self.move_rows("definitions", &with_sequences, Rows::Leave).await?;
            done.total.warnings.extend(made.warnings);
            done.has(&self.sequences);
            done.begun.extend(by_file.iter().cloned());
            cx.phase("importing the tables");
            let mut refused = BTreeSet::new();
            for table in by_file {
                match transport.run(cx, table, &options.restore.rename.table(table)).await {
                    Ok(bytes) => done.total.bytes += bytes,
                    Err(e) if e.kind() == ErrorKind::Interrupted => return Err(e),
                    Err(e) => {
                        cx.note(format!("{table} is moved row by row: {}", e.chain()));
                        refused.insert(table.clone());
                    }
                }
            }
            let imported = by_file - &refused;
            if !imported.is_empty()
                && let Err(e) = transport.settle().await
            {
                let text = e.chain();
                cx.event(Event::Warning { text: text.clone() });
                done.total.warnings.push(text);
            }
            done.total.rows += compare(cx, &before, &imported, options).await?;
            done.has(&imported);
            if !refused.is_empty() {
                // They are there, and empty.
                let mut again = choose(options, &refused);
                again.restore.overwrite = true;
                let moved = self.move_rows("refused", &again, Rows::Move).await?;
                done.add(moved, &refused);
            }
            cx.note(format!("{} tables were imported as files", imported.len()));
        }
        if !by_row.is_empty() {
            let chosen = choose(options, by_row);
            let moved = self.move_rows("rows", &chosen, Rows::Move).await?;
            done.add(moved, by_row);
        }
        Ok(())
    }

    /// Row by row, by way of a place of that name.
    async fn move_rows(&self, name: &str, chosen: &AsideOptions, rows: Rows) -> Result<Restored> {
        let path = self.place(name)?;
        move_over(self.cx, self.cluster, &path, self.source, chosen, rows, self.told).await
    }

    fn place(&self, name: &str) -> Result<PathBuf> {
        let path = self.scratch.join(name);
        std::fs::create_dir(&path).map_err(|e| {
            io_error(e, ErrorKind::Target, format!("cannot write {}", path.display()))
        })?;
        Ok(path)
    }
}

/// What is at the target by now.
struct Done<'a> {
    options: &'a AsideOptions,
    total: Restored,
    /// Whole, and compared.
    tables: BTreeSet<TableName>,
    /// There, and not whole yet.
    begun: BTreeSet<TableName>,
}

impl<'a> Done<'a> {
    fn new(options: &'a AsideOptions) -> Self {
        let total = Restored {
            target: options.target.to_string(),
            reached: Position::default(),
            rows: 0,
            bytes: 0,
            warnings: Vec::new(),
        };
        Done { options, total, tables: BTreeSet::new(), begun: BTreeSet::new() }
    }

    fn has(&mut self, tables: &BTreeSet<TableName>) {
        self.tables.extend(tables.iter().cloned());
        self.begun = &self.begun - tables;
    }

    fn add(&mut self, moved: Restored, tables: &BTreeSet<TableName>) {
        self.total.rows += moved.rows;
        self.total.bytes += moved.bytes;
        // Tables that are moved a second way have been warned of.
        let known = &mut self.total.warnings;
        let new = moved.warnings.into_iter().filter(|text| !known.contains(text));
        let new: Vec<String> = new.collect();
        known.extend(new);
        self.has(tables);
    }

    /// What to tell where not all of `chosen` came: what is at the target does not stay there without a word.
    fn failed(&self, error: Error, chosen: &BTreeSet<TableName>) -> Error {
        let others = &(chosen - &self.tables) - &self.begun;
        let parts = [
            (&self.tables, "restored"),
            (&self.begun, "there, and not whole"),
            (&others, "not restored"),
        ];
        if others.len() == chosen.len() {
            return error;
        }
        let parts = parts.into_iter().filter(|(tables, _)| !tables.is_empty());
        let said: Vec<String> = parts
            .map(|(tables, what)| {
                let to = |table| self.options.restore.rename.table(table).to_string();
                format!("{what}: {}", tables.iter().map(to).collect::<Vec<_>>().join(", "))
            })
            .collect();
        let remedy = error.remedy().trim_end_matches('.');
        let remedy = match remedy.contains("--overwrite") {
            true => remedy.to_owned(),
            false => and_again(remedy, "run the command again with --overwrite"),
        };
        let remedy = format!("{remedy}, which makes all of them anew; or drop what is there");
        error
            .context(format!("{} has a part: {}", self.options.target, said.join("; ")))
            .with_remedy(remedy)
    }
}

/// The way for files, or why there is none.
async fn open(
    scratch: &Path,
    source: &ConnectOptions,
    options: &AsideOptions,
) -> Result<std::result::Result<Transport, String>> {
    let LogicalRestoreOptions { selection, parts, binary_log, .. } = &options.restore;
    if !selection.only_tables() || *parts != Parts::All {
        return Ok(Err("only tables that are named come as files, with their rows".to_owned()));
    }
    if *binary_log {
        let mut target = Session::open(&options.target).await?;
        let on: Option<u8> = target.query_first("SELECT @@GLOBAL.log_bin").await?;
        target.close().await?;
        if on != Some(0) {
            return Ok(Err(
                "replicas of the target could not follow otherwise; --binlog off leaves them out"
                    .to_owned(),
            ));
        }
    }
    Transport::open(source, &files::data(scratch), &options.target).await
}

/// The part of what is chosen that these tables are. Rules for the names of the others have no place in it.
fn choose(options: &AsideOptions, tables: &BTreeSet<TableName>) -> AsideOptions {
    let mut chosen = options.clone();
    let others = &options.restore.selection.tables - tables;
    chosen.restore.rename = options.restore.rename.without(&others, tables);
    chosen.restore.selection.tables.clone_from(tables);
    chosen
}

/// Reads what the target has now, and fails unless it is what the private server had. Gives the rows.
async fn compare(
    cx: &Context,
    before: &Census,
    tables: &BTreeSet<TableName>,
    options: &AsideOptions,
) -> Result<u64> {
    if tables.is_empty() {
        return Ok(0);
    }
    cx.phase("reading the tables back");
    let rename: &Rename = &options.restore.rename;
    let selection = Selection {
        tables: tables.iter().map(|table| rename.table(table)).collect(),
        ..Selection::default()
    };
    let after = Census::of(cx, &options.target, &selection).await?;
    if let Some(finding) = after.findings.first() {
        return Err(Error::new(
            ErrorKind::Target,
            format!("{}: {}", finding.object, finding.problem),
        )
        .with_remedy("drop the table there, and restore it without --binlog off, row by row"));
    }
    let mut rows = 0;
    for (name, digest) in before.tables.iter().filter(|(name, _)| tables.contains(name)) {
        let to = rename.table(name);
        let found = after.tables.iter().find(|(name, _)| *name == to).map(|(_, digest)| digest);
        if found != Some(digest) {
            return Err(Error::new(
                ErrorKind::Target,
                format!("{to} at the target is not what {name} of the backup is"),
            )
            .with_remedy("restore again with --overwrite; was somebody writing to it?"));
        }
        rows += digest.rows;
    }
    Ok(rows)
}
