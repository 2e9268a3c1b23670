//! Checks of a backup as the repository holds it: by listing, and byte by byte.

mod chain;
mod content;
mod objects;
mod pack;
mod sample;
mod stream;
mod users;

use backup_core::{Error, ErrorKind, Finding, Manifest, Result, Severity};

pub use content::check_content;
pub use objects::check_objects;
pub use sample::{SamplePlan, SampleRule, check_sample};

use crate::index::key;
use crate::key::BackupObject;
use crate::repo::Repo;
use crate::scan::is_damage;

const RESTORE_ANOTHER: &str = "take a new backup now; put the object back from a copy of the \
                               repository, or restore another backup where this one is needed";

/// What is said of an object that is not there.
const MISSING: &str = "it is missing";

/// Damage of an object.
fn damage(object: impl Into<String>, problem: impl Into<String>) -> Finding {
    Finding::new(Severity::Error, object, problem, RESTORE_ANOTHER).with_kind(ErrorKind::Damaged)
}

/// What an error says about `object`, when it tells of damage; other errors are the caller's.
fn damage_of(object: impl Into<String>, error: Error) -> Result<Finding> {
    if is_damage(&error) { Ok(damage(object, error.chain())) } else { Err(error) }
}

/// Whether the manifest in the store is the one that is being verified.
async fn check_manifest(repo: &Repo, manifest: &Manifest) -> Result<Option<Finding>> {
    let name = key(manifest, BackupObject::Manifest).to_string();
    match repo.manifest(&manifest.cluster, &manifest.backup).await {
        Ok(Some(found)) if &found == manifest => Ok(None),
        Ok(Some(_)) => Ok(Some(damage(name, "it is not the manifest that was listed before"))),
        Ok(None) => Ok(Some(damage(name, "it is missing: there is no such backup any more"))),
        Err(e) => damage_of(name, e).map(Some),
    }
}
