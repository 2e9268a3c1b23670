//! Which verifiers a level stands for.

use std::sync::Arc;

use backup_core::{Error, Level, Result, Verifier};
use backup_storage::Repo;

use crate::{ContentVerifier, DrillOptions, DrillVerifier, ObjectsVerifier};

/// The levels that this version verifies at.
pub const LEVELS: [Level; 3] = [Level::Objects, Level::Content, Level::Drill];

/// The verifiers of `level` and of those below it, the cheapest first, as
/// [`backup_core::pipeline::verify`] takes them. A drill is held with the server of this machine; see
/// [`verify_drill`](crate::verify_drill) for others.
///
/// # Errors
/// A usage error for a level that is not among [`LEVELS`].
pub fn verifiers_for(level: Level, repo: &Arc<Repo>) -> Result<Vec<Arc<dyn Verifier>>> {
    verifiers(level, repo, DrillOptions::default())
}

pub(crate) fn verifiers(
    level: Level,
    repo: &Arc<Repo>,
    drill: DrillOptions,
) -> Result<Vec<Arc<dyn Verifier>>> {
    let objects: Arc<dyn Verifier> = Arc::new(ObjectsVerifier::new(Arc::clone(repo)));
    match level {
        Level::Objects => Ok(vec![objects]),
        Level::Content => Ok(vec![objects, Arc::new(ContentVerifier::new(Arc::clone(repo)))]),
        Level::Drill => Ok(vec![
            objects,
            Arc::new(ContentVerifier::new(Arc::clone(repo))),
            Arc::new(DrillVerifier::new(drill).of(repo)),
        ]),
        Level::Logical => {
            let known = LEVELS.map(Level::as_str).join(", ");
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
        let e = verifiers_for(Level::Logical, &repo).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Usage);
        assert!(e.report().contains("objects, content, drill"), "{}", e.report());
    }
}
