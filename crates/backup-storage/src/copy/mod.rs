//! Copies of backups in other repositories.
//!
//! A target of the same id is a copy of the repository: its objects are the same byte for byte, and
//! so is what a restore needs to know. Any other repository gets the artifacts, written anew under
//! its own keys. Either way the manifest comes last, after everything else was read back from the
//! target and compared; what is damaged at the source never arrives.

mod binlogs;
pub(crate) mod object;
mod order;
mod other;
mod same;
mod target;

use backup_core::{
    Context, Error, ErrorKind, Event, Manifest, Record, RecordEvent, Repository, Result, ResultExt,
};

pub use binlogs::{CopiedBinlogs, copy_binlogs};
pub use order::in_order;
pub(crate) use other::all_arrived;
pub use target::{CopyConsent, CopyTarget};

use crate::marks::marked;
use crate::repo::Repo;

/// How a copy is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// Read also what an earlier run has copied and compared.
    pub verify: bool,
    /// Remove what is damaged at the target and write it again.
    pub replace_damaged: bool,
    /// Leave out what a prune removed from the target; else that is an error. It is for a week, and while
    /// others there need packs of it.
    pub leave_removed: bool,
}

/// What became of one backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// Whether the target had all of it before.
    pub already: bool,
    /// Length in bytes of the objects that make the backup at the target.
    pub bytes: u64,
    /// Of these, what was sent now.
    pub sent: u64,
    /// How many objects were sent.
    pub objects: u64,
    /// Whether all of it was read at the target in this run, and compared.
    pub verified: bool,
    /// Whether it was left out, see [`CopyOptions::leave_removed`].
    pub left_out: bool,
}

impl Copied {
    /// What the target has already, or gets now.
    fn of(bytes: u64, already: bool) -> Copied {
        Copied { already, bytes, sent: 0, objects: 0, verified: false, left_out: false }
    }
}

/// Copies one backup and notes it in the history of the source. What it needs before it has to be
/// there already, see [`in_order`].
///
/// Run again after an interruption it goes on: what arrived whole is not sent again.
///
/// # Errors
/// [`ErrorKind::Damaged`] when the source, or something that is at the target already, is damaged;
/// [`ErrorKind::Busy`] when a prune at the target has removed the backup, see
/// [`CopyOptions::leave_removed`], or is about to remove what would be copied or built on; else what the stores fail with. The target is then as it was before, but for objects that no
/// manifest names.
pub async fn copy_backup(
    cx: &Context,
    from: &Repo,
    target: &CopyTarget,
    manifest: &Manifest,
    options: CopyOptions,
) -> Result<Copied> {
    let to = target.repo();
    let (cluster, backup) = (&manifest.cluster, &manifest.backup);
    let removed = marked(cx, to.store()).await?.is_removed(cx, to.store(), cluster, backup).await?;
    if removed && options.leave_removed {
        return Ok(Copied { left_out: true, ..Copied::of(0, false) });
    }
    let copied = if removed {
        Err(was_removed(to))
    } else if target.is_same() {
        same::copy(cx, from, to, manifest, options).await
    } else {
        other::copy(cx, from, target, manifest, options).await
    };
    let copied = copied.context(|| {
        format!("backup {} was not copied to {to}", manifest.backup, to = target.name())
    })?;
    if !copied.already || options.verify || !target.is_noted(&manifest.backup) {
        note(cx, from, target, manifest, copied).await?;
    }
    Ok(copied)
}

/// A prune, also one that stood still for up to a week, might go on and take parts of it away.
fn was_removed(to: &Repo) -> Error {
    Error::new(ErrorKind::Busy, format!("a prune removed it from {}", to.store().name()))
        .with_remedy(
            "copy it into another place; here it can be when a week is over and nothing needs its packs",
        )
}

/// Adds the copy to the history of the source; where that takes nothing, it is a warning.
async fn note(
    cx: &Context,
    from: &Repo,
    target: &CopyTarget,
    manifest: &Manifest,
    copied: Copied,
) -> Result<()> {
    let record = Record {
        time: cx.now(),
        backup: Some(manifest.backup.clone()),
        event: RecordEvent::Copied {
            to: target.name().to_owned(),
            repository: target.repo().id().to_string(),
            bytes: copied.bytes,
            verified: copied.verified,
        },
    };
    match from.record(cx, &manifest.cluster, &record).await {
        Err(e) if e.kind() != ErrorKind::Interrupted => {
            let text = format!("the copy was not added to the history: {}", e.chain());
            cx.event(Event::Warning { text });
            Ok(())
        }
        other => other,
    }
}
