//! Logical backups: whether what they hold means what it should.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ArtifactSource, Context, Error, Level, Manifest, Report, Result, Strategy, Verifier,
};
use backup_drivers::foreign::examine_kept;
use backup_drivers::logical::examine;

/// Looks at definitions, ranges, rows and keys of a logical backup, without a server: see
/// [`examine`].
#[derive(Debug, Clone, Copy, Default)]
pub struct LogicalVerifier {
    on_the_way: bool,
}

impl LogicalVerifier {
    /// A verifier of logical backups; others are a usage error.
    #[must_use]
    pub fn new() -> Self {
        LogicalVerifier::default()
    }

    /// One on the way to a higher level, which has nothing to say of other backups.
    #[must_use]
    pub fn on_the_way() -> Self {
        LogicalVerifier { on_the_way: true }
    }
}

#[async_trait]
impl Verifier for LogicalVerifier {
    fn level(&self) -> Level {
        Level::Logical
    }

    async fn verify(
        &self,
        cx: &Context,
        backup: &Manifest,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<Report> {
        if backup.strategy == Strategy::Logical {
            let findings = cx.run(examine(cx, backup, &*artifacts)).await?;
            return Ok(Report::new(Level::Logical, findings));
        }
        if backup.strategy == Strategy::Foreign {
            let findings = cx.run(examine_kept(cx, &*artifacts)).await?;
            return Ok(Report::new(Level::Logical, findings));
        }
        if self.on_the_way {
            return Ok(Report::new(Level::Logical, Vec::new()));
        }
        Err(Error::usage(format!(
            "{} is a {} backup: it holds files, not rows that could be looked at without a server",
            backup.backup, backup.strategy
        ))
        .with_remedy("verify it with --level content or --level drill"))
    }
}
