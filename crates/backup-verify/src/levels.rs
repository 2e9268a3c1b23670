//! Which verifiers a level stands for.

use std::sync::Arc;

use backup_core::{Level, Result, Verifier};
use backup_storage::Repo;

use crate::{ContentVerifier, DrillVerifier, LogicalVerifier, ObjectsVerifier, Whole};

/// The levels that this version verifies at.
pub const LEVELS: [Level; 4] = [Level::Objects, Level::Content, Level::Logical, Level::Drill];

/// The verifiers of `level` and of those below it, the cheapest first, as
/// [`backup_core::pipeline::verify`] takes them. A drill is held with the server of this machine; see
/// [`verify_drill`](crate::verify_drill) for others.
///
/// # Errors
/// None in this version, which has every level.
pub fn verifiers_for(level: Level, repo: &Arc<Repo>) -> Result<Vec<Arc<dyn Verifier>>> {
    verifiers(level, repo, &Whole::default(), DrillVerifier::default())
}

pub(crate) fn verifiers(
    level: Level,
    repo: &Arc<Repo>,
    whole: &Whole,
    drill: DrillVerifier,
) -> Result<Vec<Arc<dyn Verifier>>> {
    let objects: Arc<dyn Verifier> = Arc::new(ObjectsVerifier::new(Arc::clone(repo)));
    let content = ContentVerifier::new(Arc::clone(repo)).sparing(whole.clone());
    let content: Arc<dyn Verifier> = Arc::new(content);
    Ok(match level {
        Level::Objects => vec![objects],
        Level::Content => vec![objects, content],
        Level::Logical => vec![objects, content, Arc::new(LogicalVerifier::new())],
        Level::Drill => vec![
            objects,
            content,
            Arc::new(LogicalVerifier::on_the_way()),
            Arc::new(drill.of(repo)),
        ],
    })
}

#[cfg(test)]
mod tests {
    use backup_core::Context;
    use backup_storage::{RepoUrl, RepositoryOptions};

    use super::*;

    #[tokio::test]
    async fn a_level_includes_those_below_it() {
        let cx = Context::builder().build();
        let dir = tempfile::tempdir().unwrap();
        let url = RepoUrl::from(dir.path());
        let repo = Arc::new(Repo::init(&cx, &url, RepositoryOptions::default()).await.unwrap());
        for (n, level) in LEVELS.into_iter().enumerate() {
            let levels: Vec<Level> =
                verifiers_for(level, &repo).unwrap().iter().map(|v| v.level()).collect();
            assert_eq!(levels, LEVELS[..=n]);
        }
    }
}
