//! Which verifiers a level stands for.

use std::sync::Arc;

use backup_core::{Error, Level, Result, Verifier};
use backup_storage::Repo;

use crate::{ContentVerifier, ObjectsVerifier};

/// The levels that this version verifies at.
pub const LEVELS: [Level; 2] = [Level::Objects, Level::Content];

/// The verifiers of `level` and of those below it, the cheapest first, as
/// [`backup_core::pipeline::verify`] takes them.
///
/// # Errors
/// A usage error for a level that is not among [`LEVELS`].
pub fn verifiers_for(level: Level, repo: &Arc<Repo>) -> Result<Vec<Arc<dyn Verifier>>> {
    let objects: Arc<dyn Verifier> = Arc::new(ObjectsVerifier::new(Arc::clone(repo)));
    match level {
        Level::Objects => Ok(vec![objects]),
        Level::Content => Ok(vec![objects, Arc::new(ContentVerifier::new(Arc::clone(repo)))]),
        Level::Logical | Level::Drill => {
            let known = LEVELS.map(Level::as_str).join(" and ");
            Err(Error::usage(format!("level {level} is not in this version"))
                .with_remedy(format!("verify at one of the levels {known}")))
        }
    }
}
