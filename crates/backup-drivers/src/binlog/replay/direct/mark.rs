//! What was applied, in a table of the target: written in the transaction itself, so that both are there
//! or neither is. (The table goes into the target's binlog with the transactions, and to its replicas.)

use backup_core::{Error, ErrorKind, Gtid, GtidSet, Result};

use super::super::super::route::Route;
use super::super::groups::From;
use super::super::target::Target;

/// The database of the table, which is there only while binlogs are applied.
const DATABASE: &str = "holdfast_replay";

/// The mark of a run.
pub(in super::super) struct Mark {
    /// What was applied before, and since.
    pub(super) applied: GtidSet,
    /// Without GTIDs: number of the file in the route, and where the last transaction began.
    at: Option<(usize, u64)>,
}

/// What a run that was stopped had applied; `None` where there is no mark. A MySQL counts by itself what is
/// applied under its GTIDs.
pub(in super::super) async fn read(target: &mut Target) -> Result<Option<GtidSet>> {
    let sql = format!(
        "SELECT 1 FROM information_schema.tables WHERE table_schema = '{DATABASE}' AND table_name = 'mark'"
    );
    if target.value(&sql).await? != "1" {
        return Ok(None);
    }
    let text = target.value(&format!("SELECT gtid FROM {DATABASE}.mark")).await?;
    let marked = GtidSet::parse(target.facts.flavor, &text)?;
    match target.mysql() {
        true => marked.union(&target.executed().await?).map(Some),
        false => Ok(Some(marked)),
    }
}

/// Writes down what was restored, at a MySQL that the account cannot tell it: what is applied under its GTIDs
/// then is in `gtid_executed`.
pub(super) async fn note(target: &mut Target, restored: &GtidSet) -> Result<()> {
    create(target).await?;
    let sql = format!("REPLACE INTO {DATABASE}.mark VALUES (1, '{restored}', '', '')");
    target.session.run(&sql).await.map(drop)
}

async fn create(target: &mut Target) -> Result<()> {
    for sql in [
        format!("CREATE DATABASE IF NOT EXISTS {DATABASE}"),
        format!(
            "CREATE TABLE IF NOT EXISTS {DATABASE}.mark (id INT PRIMARY KEY, gtid LONGTEXT NOT NULL, place \
             VARCHAR(50) NOT NULL, running VARCHAR(200) NOT NULL) ENGINE = InnoDB CHARACTER SET ascii"
        ),
    ] {
        target.session.run(&sql).await?;
    }
    Ok(())
}

/// What is said where the mark has to stay.
pub(super) fn stays() -> String {
    format!(
        "the target cannot be told which transactions it has: the database {DATABASE} says it, for `holdfast \
         binlog apply`; drop it when nothing more is to be applied"
    )
}

impl Mark {
    /// Finds the mark of an earlier run that leads on from the same place, or begins one.
    pub(super) async fn begin(target: &mut Target, route: &Route, again: bool) -> Result<Mark> {
        let flavor = target.facts.flavor;
        let beginning = route.applied.clone().unwrap_or_else(|| GtidSet::empty(flavor));
        if let Some(applied) = read(target).await? {
            let running = target.value(&format!("SELECT running FROM {DATABASE}.mark")).await?;
            let skipped = route.skip.iter().any(|gtid| gtid.to_string() == running);
            if !running.is_empty() && !again && !skipped {
                return Err(target.refuse(
                    format!(
                        "an earlier run was stopped while a statement ran that commits by itself \
                         ({running}): whether it was executed cannot be told"
                    ),
                    "look whether it was; if so, say --skip-gtid with that GTID, if not, --apply-again",
                ));
            }
            if route.applied.is_some() && beginning.is_subset(&applied)? {
                let at = target.value(&format!("SELECT place FROM {DATABASE}.mark")).await?;
                let at =
                    at.split_once(':').and_then(|(f, p)| Some((f.parse().ok()?, p.parse().ok()?)));
                return Ok(Mark { applied, at });
            }
            if route.applied.is_none() {
                return Err(target.refuse(
                    "an earlier run was stopped, and without GTIDs it cannot be gone on with",
                    format!("restore again, after DROP DATABASE {DATABASE}"),
                ));
            }
        }
        create(target).await?;
        let sql = format!("REPLACE INTO {DATABASE}.mark VALUES (1, '{beginning}', '', '')");
        target.session.run(&sql).await?;
        Ok(Mark { applied: beginning, at: None })
    }

    /// Where to begin without GTIDs.
    pub(super) fn place(&self, route: &Route) -> From {
        match self.at {
            Some((file, position)) => From::Position { file, position: position + 1 },
            None => From::Position { file: 0, position: route.files[0].begin },
        }
    }

    /// A statement begins that commits by itself.
    pub(super) async fn running(&self, target: &mut Target, name: &str) -> Result<()> {
        let sql = format!("UPDATE {DATABASE}.mark SET running = '{name}'");
        target.session.run(&sql).await.map(drop)
    }

    /// A transaction is applied.
    pub(super) async fn applied(
        &mut self,
        target: &mut Target,
        gtid: Option<&Gtid>,
        (file, start): (usize, u64),
    ) -> Result<()> {
        if let Some(gtid) = gtid {
            self.applied.insert(gtid)?;
        }
        self.at = Some((file, start));
        let sql = format!(
            "UPDATE {DATABASE}.mark SET gtid = '{}', place = '{file}:{start}', running = ''",
            self.applied
        );
        target.session.run(&sql).await.map(drop)
    }

    /// Everything is applied: the target says so itself where it may be told. Gives what needs a look.
    pub(super) async fn end(self, target: &mut Target, route: &Route) -> Result<Option<String>> {
        if let Some(reached) = &route.reached {
            let missing = reached.difference(&self.applied)?;
            if !missing.is_empty() {
                return Err(Error::internal(format!(
                    "{missing} was not applied, and nothing failed"
                )));
            }
            let told = match remember(target, &self.applied).await {
                Ok(told) => told,
                Err(e) if e.kind() == ErrorKind::Privilege => false,
                Err(e) => return Err(e),
            };
            if !told {
                return Ok(Some(stays()));
            }
        }
        drop_table(target).await?;
        Ok(None)
    }
}

/// Tells a server where it stands, as its applier would; `false` where there is no such word.
async fn remember(target: &mut Target, applied: &GtidSet) -> Result<bool> {
    if target.mysql() {
        let untold = applied.difference(&target.executed().await?)?;
        if applied.is_empty() || target.value("SELECT @@GLOBAL.gtid_mode").await? != "ON" {
            return Ok(false);
        }
        if !untold.is_empty() {
            let sql = format!("SET GLOBAL gtid_purged = '+{untold}'");
            target.session.run(&sql).await?;
        }
        return Ok(true);
    }
    let sql = format!("SET GLOBAL gtid_slave_pos = '{applied}'");
    target.session.run(&sql).await.map(|_| true)
}

/// Takes away what an earlier run left.
pub(in super::super) async fn forget(target: &mut Target) -> Result<()> {
    match read(target).await? {
        Some(_) => drop_table(target).await,
        None => Ok(()),
    }
}

async fn drop_table(target: &mut Target) -> Result<()> {
    target.session.run(&format!("DROP DATABASE IF EXISTS {DATABASE}")).await.map(drop)
}

/// Turns the mark of a run over a client connection into what a replica goes by.
pub(in super::super) async fn hand_over(target: &mut Target) -> Result<()> {
    let Some(applied) = read(target).await? else { return Ok(()) };
    if remember(target, &applied).await? {
        return drop_table(target).await;
    }
    Err(target.refuse(
        "binlogs were applied there over a client connection, without their GTIDs, so that it cannot go \
         on as a replica",
        "go on with --apply direct",
    ))
}
