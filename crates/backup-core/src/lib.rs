//! The nouns, traits, plans and pipeline of Holdfast. This crate does no I/O of its own: stores are
//! in `backup-storage`, servers and tools in `backup-drivers`.

mod artifact;
mod backup;
mod binlog_chain;
mod chain;
mod claim;
mod context;
mod error;
mod gtid;
mod id;
mod manifest;
mod monitor;
pub mod pipeline;
mod position;
mod repository;
pub mod retention;
mod secret;
mod segment;
mod server;
mod shell;
mod verify;

pub use artifact::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSink, ArtifactSource, ArtifactWriter,
    ChangedReader, Layout, Leftover, Older,
};
pub use backup::{Backup, Restore, RestoreSteps, Restored};
pub use binlog_chain::{BinlogChain, Gap, Reach, ReplayBase, ReplayPlan, ReplayTarget, Stretch};
pub use chain::{BackupChain, Chain, ChainBreak, RestorePlan, Unreachable};
pub use claim::Claim;
pub use context::{
    Clock, Context, ContextBuilder, MemoryBudget, MemoryPermit, Random, SystemClock, SystemRandom,
};
pub use error::{Error, ErrorKind, Result, ResultExt, ServerError, and_again, io_error};
pub use gtid::{
    DomainRange, Gtid, GtidDifference, GtidSet, GtidTag, MAX_GNO, MariaDbBinlogState, MariaDbGtid,
    MariaDbGtidSet, MySqlGtid, MySqlGtidSet, Tsid,
};
pub use id::{BackupId, BackupType, ClusterName, Strategy};
pub use manifest::{
    Consistency, ConsistencyLevel, FORMAT, Manifest, Needed, ObjectDigest, Outcome, SourceInfo,
    Totals,
};
pub use monitor::{Event, Monitor, Progress, ProgressSnapshot, Silent};
pub use position::{BinlogFile, Position};
pub use repository::{BackupSession, BackupSpec, Listed, Record, RecordEvent, Repository, select};
pub use secret::{Secret, SecretBytes};
pub use segment::{
    Appended, BinlogRange, BinlogServer, ListedSegment, Only, SegmentInfo, SegmentStore,
};
pub use server::{Capabilities, Flavor, ServerVersion};
pub use shell::shell_word;
pub use uuid::Uuid;
pub use verify::{Finding, Level, Report, Sampled, Severity, Verifier};
