//! Removing what is of no more use: markers, marks, epochs of leases, unfinished files.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::Result;
use jiff::Timestamp;
use object_store::path::Path;

use super::report::{PruneReport, Refused};
use super::survey::{DEAD, State};
use super::sweep::Sweep;
use super::{Id, Run};
use crate::key::{self, BackupObject, Key, LeaseName, RecordName};
use crate::lease;
use crate::marks::{StoredMark, Victim, ZOMBIE};
use crate::store::Deleted;

/// `known` are the marks from before the look at the directories, `marks` those of now.
pub(super) async fn tidy(
    run: &Run<'_>,
    sweep: &Sweep<'_>,
    known: &[StoredMark],
    marks: &[StoredMark],
    report: &mut PruneReport,
) -> Result<()> {
    let listed: BTreeSet<Id> =
        sweep.directories.iter().filter(|d| d.is_listed()).map(super::Directory::id).collect();
    let barred = old_marks(run, sweep, known, marks, &listed, report).await?;
    for directory in &sweep.directories {
        if !matches!(directory.state, State::Backup(_)) {
            continue;
        }
        for (name, meta) in &directory.found.objects {
            let useless = match name.parse() {
                Ok(BackupObject::Active | BackupObject::Beat(_) | BackupObject::Suspended) => {
                    is_old(run, meta.modified, ZOMBIE)
                }
                // A prune that was stopped, of a backup that is kept after all. One that only stands
                // still for long may go on to remove the manifest, and this says then what became
                // of it.
                Ok(BackupObject::Retired) => {
                    is_old(run, meta.modified, ZOMBIE) && !barred.contains(&directory.id())
                }
                _ => false,
            };
            if useless
                && let Ok(kind) = name.parse()
                && sweep.delete(&directory.key(kind), report).await?
            {
                report.leftovers.other += 1;
            }
        }
    }
    old_epochs(run, sweep, report).await?;
    unfinished_files(run, sweep, report).await
}

fn is_old(run: &Run<'_>, modified: Timestamp, than: jiff::SignedDuration) -> bool {
    run.now.duration_since(modified) >= than
}

/// More marks than this that only tell of removed backups become one.
const SAID: usize = 8;

/// Removes marks of which every backup is gone. Gives the backups that marks go on naming.
///
/// A prune that stood still since it removed a manifest may go on to free the packs, so for a while
/// another mark says what was removed: no copy brings it back meanwhile.
async fn old_marks(
    run: &Run<'_>,
    sweep: &Sweep<'_>,
    known: &[StoredMark],
    marks: &[StoredMark],
    listed: &BTreeSet<Id>,
    report: &mut PruneReport,
) -> Result<BTreeSet<Id>> {
    let mut barred = BTreeSet::new();
    let there: BTreeSet<Id> = sweep.directories.iter().map(super::Directory::id).collect();
    let is_left = |victim: &Victim| {
        let cluster = &victim.cluster;
        let other = run.options.cluster.as_ref().is_some_and(|only| only != cluster);
        other || there.contains(&(cluster.clone(), victim.backup.clone()))
    };
    let mut said: BTreeMap<&RecordName, &[Victim]> = BTreeMap::new();
    for StoredMark { name, modified, mark } in marks {
        let old = is_old(run, *modified, ZOMBIE);
        let done = match mark {
            // Whatever it says, nobody acts by it any more.
            None => old,
            Some(mark) => {
                let open = |victim: &Victim| {
                    let cluster = &victim.cluster;
                    let other = run.options.cluster.as_ref().is_some_and(|only| only != cluster);
                    other || listed.contains(&(cluster.clone(), victim.backup.clone()))
                };
                let open_victims = mark.victims.iter().any(open);
                let open_spared = mark.spared.iter().any(open);
                let open_removed = mark.removed.iter().any(is_left);
                !open_victims
                    && (!open_spared || old)
                    && (mark.removed.is_empty() || (old && !open_removed))
            }
        };
        // What a newer one names may have come after we looked.
        let seen = known.iter().any(|k| k.name == *name);
        if seen && done && run.lease.is_some() {
            // What was spared may have been removed all the same, by a prune that stood still.
            let gone = |v: &&Victim| !listed.contains(&(v.cluster.clone(), v.backup.clone()));
            let named = mark.iter().flat_map(|m| m.victims.iter().chain(&m.spared));
            let removed: Vec<Victim> = named.filter(gone).cloned().collect();
            if !removed.is_empty() {
                run.check()?;
                run.say_removed(removed).await?;
            }
        }
        if seen && done && sweep.delete(&Key::Mark(name.clone()), report).await? {
            report.leftovers.other += 1;
            continue;
        }
        if let Some(mark) = mark
            && (seen && old && mark.victims.is_empty() && mark.spared.is_empty())
        {
            said.insert(name, &mark.removed);
        }
        let named = mark.iter().flat_map(|m| m.victims.iter().chain(&m.spared));
        barred.extend(named.map(|v| (v.cluster.clone(), v.backup.clone())));
    }
    if said.len() > SAID && run.lease.is_some() {
        let removed: BTreeSet<&Victim> =
            said.values().copied().flatten().filter(|v| is_left(v)).collect();
        let removed = removed.into_iter().cloned().collect();
        run.check()?;
        run.say_removed(removed).await?;
        for name in said.into_keys() {
            if sweep.delete(&Key::Mark(name.clone()), report).await? {
                report.leftovers.other += 1;
            }
        }
    }
    Ok(barred)
}

/// Removes epochs below the highest, which is the state, and questions of the time.
async fn old_epochs(run: &Run<'_>, sweep: &Sweep<'_>, report: &mut PruneReport) -> Result<()> {
    let store = run.repo.store();
    let found = store.list(&key::locks()).await?;
    for name in found.directories.iter().filter_map(|name| name.parse::<LeaseName>().ok()) {
        let mut epochs = lease::epochs(store, &name).await?;
        epochs.pop();
        for (epoch, modified) in epochs {
            let key = Key::Lease(name.clone(), epoch);
            if is_old(run, modified, DEAD) && sweep.delete(&key, report).await? {
                report.leftovers.other += 1;
            }
        }
    }
    for (name, meta) in found.objects {
        if (name.starts_with("now-") || name.starts_with("copy-"))
            && let Some(name) = RecordName::new(&name)
            && is_old(run, meta.modified, DEAD)
            && sweep.delete(&Key::Now(name), report).await?
        {
            report.leftovers.other += 1;
        }
    }
    Ok(())
}

/// Removes what writers to a local directory left half written when they died.
async fn unfinished_files(
    run: &Run<'_>,
    sweep: &Sweep<'_>,
    report: &mut PruneReport,
) -> Result<()> {
    let store = run.repo.store();
    if !store.is_directory() {
        return Ok(());
    }
    let mut places: Vec<Path> = vec![Path::default(), key::marks(), key::locks()];
    let leases = store.list(&key::locks()).await?.directories;
    let leases = leases.iter().filter_map(|name| name.parse::<LeaseName>().ok());
    places.extend(leases.map(|name| key::lease(&name)));
    let clusters: BTreeSet<_> = sweep.directories.iter().map(|d| &d.cluster).collect();
    places.extend(clusters.into_iter().map(key::records));
    places.extend(sweep.directories.iter().map(|d| key::backup(&d.cluster, &d.backup)));
    for place in places {
        for (name, meta) in store.staging(&place).await? {
            if !is_old(run, meta.modified, DEAD) {
                continue;
            }
            run.check()?;
            let removal = match run.lease {
                None => Deleted::Gone,
                Some(_) => store.delete_staging(&place, &name).await?,
            };
            match removal {
                Deleted::Gone => {
                    report.leftovers.other += 1;
                    report.bytes_freed += meta.bytes;
                }
                Deleted::Refused(e) => report
                    .refused
                    .push(Refused { object: format!("{place}/{name}"), reason: e.chain() }),
            }
        }
    }
    Ok(())
}
