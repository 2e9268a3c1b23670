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

#[cfg(test)]
mod tests {
    use backup_core::{Context, ErrorKind};
    use backup_storage::{RepoUrl, RepositoryOptions};

    use super::*;

    #[tokio::test]
    async fn a_level_includes_those_below_it_and_later_ones_are_refused() {
        let cx = Context::builder().build();
        let dir = tempfile::tempdir().unwrap();
        let url = RepoUrl::from(dir.path());
        let repo = Arc::new(Repo::init(&cx, &url, RepositoryOptions::default()).await.unwrap());
        for (n, level) in LEVELS.into_iter().enumerate() {
            let levels: Vec<Level> =
                verifiers_for(level, &repo).unwrap().iter().map(|v| v.level()).collect();
            assert_eq!(levels, LEVELS[..=n]);
        }
        for level in [Level::Logical, Level::Drill] {
            let e = verifiers_for(level, &repo).err().unwrap();
            assert_eq!(e.kind(), ErrorKind::Usage);
            assert!(e.report().contains("objects and content"), "{}", e.report());
        }
    }
}
