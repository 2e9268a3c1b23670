//! A physical backup of a live MySQL over the wire, with nothing installed on its host.
//!
//! The clone plugin (8.0.17 and later) sends a consistent copy of all InnoDB data to another server. We
//! speak its protocol in the place of that server, and what it sends goes straight into the repository:
//! whole files first, compared with those of the backup before; then the pages that changed meanwhile;
//! then the redo log that makes it all one moment. A server that is started on the restored files recovers
//! from that redo log, as after a crash.
//!
//! ```text
//! Rpc → Session → Relay → Intake → artifacts, and the catalog of files
//! ```
//!
//! What a clone does not hold: rows of tables of other engines, binary logs, the configuration. Its position
//! is known exactly only when a server has recovered it; what the manifest names is a position before it.

mod descriptor;
mod donor;
mod emptied;
mod intake;
mod names;
mod page_zero;
mod pages;
mod relay;
mod rpc;
mod secrecy;
mod session;
mod spool;
#[cfg(test)]
mod tests;
mod unseen;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ArtifactSink, Backup, Consistency, ConsistencyLevel, Context, Error, ErrorKind, Event, Finding,
    Outcome, Result, SourceInfo, Strategy,
};

use tokio_util::task::AbortOnDropHandle;

use crate::connect::ConnectOptions;
use crate::files::{CATALOG_FORMAT, Catalog, Header, LeftOut, State};
use donor::Donor;
use intake::{Intake, Taken};
use session::Session;
use spool::Spool;

pub use donor::LeftEmpty;
pub use emptied::{Emptied, Flags, Marked, Others};
pub use rpc::Ddl;

/// How a clone is taken.
#[derive(Debug, Clone)]
pub struct CloneOptions {
    /// How DDL of other sessions goes together with it.
    pub ddl: Ddl,
    /// Where pages rest that change while the clone is taken, until the donor is free.
    pub spool: PathBuf,
    /// The most that may rest there, in bytes.
    pub spool_limit: u64,
    /// The logical backup that has the rows of the tables which a clone leaves empty, where there is one.
    pub others: Option<Others>,
    /// Whether such a backup is going to be taken, for [`Backup::preflight`].
    pub takes_others: bool,
    /// Whether the repository is encrypted, for [`Backup::preflight`]; the backup itself asks the
    /// repository.
    pub encrypted_repository: bool,
}

impl CloneOptions {
    /// Pages rest in `spool`, up to 64 GiB; DDL goes on.
    pub fn new(spool: impl Into<PathBuf>) -> Self {
        CloneOptions {
            ddl: Ddl::Concurrent,
            spool: spool.into(),
            spool_limit: 64 << 30,
            others: None,
            takes_others: false,
            encrypted_repository: true,
        }
    }
}

/// Takes a clone of a live MySQL server.
#[derive(Debug, Clone)]
pub struct CloneBackup {
    source: ConnectOptions,
    options: CloneOptions,
}

impl CloneBackup {
    /// A clone of `source`.
    #[must_use]
    pub fn new(source: ConnectOptions, options: CloneOptions) -> Self {
        CloneBackup { source, options }
    }

    /// The tables of a server whose rows a clone would not hold, as far as the account may see them.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn left_empty(source: &ConnectOptions) -> Result<Vec<LeftEmpty>> {
        let mut donor = Donor::ask(source).await?;
        let tables = donor.left_empty().await?;
        donor.close().await?;
        Ok(tables)
    }
}

#[async_trait]
impl Backup for CloneBackup {
    fn strategy(&self) -> Strategy {
        Strategy::Clone
    }

    async fn preflight(&self, _: &Context) -> Result<Vec<Finding>> {
        let mut donor = Donor::ask(&self.source).await?;
        donor.check()?;
        let mut findings = donor.findings(&self.source, self.options.encrypted_repository).await?;
        if self.options.others.is_none() && !self.options.takes_others {
            findings.extend(donor.empty_tables().await?);
        }
        let user = &self.source.user;
        findings.extend(donor.unseen(None).await?.map(|unseen| unseen.finding(user)));
        donor.close().await?;
        Ok(findings)
    }

    async fn run(&self, cx: &Context, sink: Arc<dyn ArtifactSink>) -> Result<Outcome> {
        let mut donor = cx.run(Donor::ask(&self.source)).await?;
        donor.check()?;
        let mut settings = cx.run(donor.settings()).await?;
        // Before the donor begins with anything.
        let spool = Spool::new(&self.options.spool, self.options.spool_limit)?;
        let reserve = async { Ok(cx.memory().reserve(relay::memory(cx)).await) };
        let _memory = cx.run(reserve).await?;
        cx.phase("clone");
        let before = cx.run(donor.position()).await?;
        // A clone may take longer than a server keeps an idle connection.
        donor.close().await?;
        let mut session = cx.run(Session::begin(&self.source, self.options.ddl)).await?;
        let page_size = settings.page_size.unwrap_or(16 << 10);
        let intake = Intake::new(cx, Arc::clone(&sink), spool, page_size, session.is_encrypted());
        let intake = self.take(cx, &mut session, intake).await?;
        cx.run(async {
            cx.phase("changed pages");
            let mut donor = Donor::ask(&self.source).await?;
            let after = donor.position().await?;
            let taken = intake.finish(&donor.facts).await?;
            if let Some((file, page)) = taken.damaged.first() {
                return Err(Error::new(
                    ErrorKind::Source,
                    format!(
                        "{} pages are damaged at the source, the first is page {page} of {file}",
                        taken.damaged.len()
                    ),
                )
                .with_remedy("run CHECK TABLE on it at the source; restore it from an earlier backup"));
            }
            let mut warnings = Vec::new();
            let left_out = self.left_out(&mut donor, &taken, &mut warnings).await?;
            if session.restarts() > 0 {
                cx.note(format!("the connection was lost and had again {} times", session.restarts()));
            }
            let objects = BTreeMap::from([(
                "files".to_owned(),
                taken.entries.iter().filter(|e| e.kind == crate::files::Kind::File).count() as u64,
            )]);
            let details = serde_json::json!({
                "changed_bytes": taken.changed,
                "restarts": session.restarts(),
                "position_after": after,
                "announced": session.announced().settings,
                "others": self.options.others.as_ref().map(|others| &others.backup),
            });
            settings.keys_in_files = taken.keys;
            let header =
                Header { files_format: CATALOG_FORMAT, state: State::Crashed, settings, left_out };
            Catalog { header, entries: taken.entries }.write(&*sink).await?;
            for text in &warnings {
                cx.event(Event::Warning { text: text.clone() });
            }
            let facts = donor.facts.clone();
            donor.close().await?;
            Ok(Outcome {
                source: SourceInfo {
                    flavor: facts.flavor,
                    version: facts.version_text,
                    address: self.source.endpoint.to_string(),
                    server_uuid: facts.server_uuid,
                    server_id: facts.server_id,
                    hostname: facts.hostname,
                },
                position: before,
                consistency: Consistency {
                    level: match warnings.is_empty() {
                        true => ConsistencyLevel::Exact,
                        false => ConsistencyLevel::Transactional,
                    },
                    reason: "all InnoDB data is of one moment after the recorded position; the restored \
                             server tells which"
                        .to_owned(),
                },
                lock_seconds: session.ddl_waited().as_secs_f64(),
                rows: None,
                objects,
                masked: false,
                partial: false,
                warnings,
                details,
            })
        })
        .await
    }
}

impl CloneBackup {
    /// Has `intake` take everything, and leaves the donor free, whatever happens.
    async fn take(&self, cx: &Context, session: &mut Session, intake: Intake) -> Result<Intake> {
        let (mut front, back) = relay::pair(cx, &self.options.spool, self.options.spool_limit);
        let taking = AbortOnDropHandle::new(tokio::spawn(back.run(intake)));
        let streamed = session.run(cx, &mut front).await;
        let is_cut = front.is_cut();
        drop(front);
        let taken = async {
            taking.await.map_err(|e| Error::internal("the clone's worker failed").with_source(e))?
        };
        match streamed {
            Ok(()) => taken.await,
            Err(e) if is_cut => Err(taken.await.err().unwrap_or(e)),
            Err(e) => Err(e),
        }
    }

    /// Names the tables whose rows a clone does not hold.
    async fn left_out(
        &self,
        donor: &mut Donor,
        taken: &Taken,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<LeftOut>> {
        let tables = donor.left_empty().await?;
        let dumped = |left: &&LeftEmpty| {
            let others = self.options.others.as_ref();
            others.filter(|others| others.tables.contains(&left.table))
        };
        let left_out = tables.iter().map(|left| LeftOut {
            path: left.to_string(),
            reason: match dumped(&left) {
                Some(others) => Others::reason(&others.backup),
                None => "a clone holds no rows of tables that are not InnoDB's".to_owned(),
            },
        });
        let left_out = left_out.collect();
        let lost: Vec<String> =
            tables.iter().filter(|left| dumped(left).is_none()).map(ToString::to_string).collect();
        if !lost.is_empty() {
            let remedy = match &self.options.others {
                None => "--clone-others dumps them beside the clone".to_owned(),
                Some(others) => format!(
                    "they came after backup {}, which has the others; the next clone has them dumped",
                    others.backup
                ),
            };
            warnings.push(format!(
                "these tables come back empty, for they are not InnoDB's: {}; {remedy}",
                lost.join(", ")
            ));
        }
        let unseen = donor.unseen(Some(taken.databases())).await?;
        warnings.extend(unseen.map(|unseen| unseen.in_one_line(&self.source.user)));
        Ok(left_out)
    }
}

/// Reads bytes in every way in which the body of a donor's answer is read, and gives the path of the file
/// that they describe, if they do. For fuzzing.
#[doc(hidden)]
#[must_use]
pub fn read_answer(bytes: &[u8]) -> Option<String> {
    let bytes = bytes::Bytes::copy_from_slice(bytes);
    rpc::read_body(&bytes);
    match descriptor::Descriptor::parse(&bytes) {
        Ok(descriptor::Descriptor::File(entry)) => entry.place().ok().map(|place| place.path),
        Ok(descriptor::Descriptor::State(state)) => {
            let _ = state.acknowledgement();
            None
        }
        _ => None,
    }
}

/// The donor says something that it may not.
fn broken(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::Source, "cannot take the clone")
        .with_source(format!("the source broke the protocol of clones: {}", problem.into()))
        .with_remedy("check that the address is that of a MySQL server, 8.0.17 or later")
}
