//! Whether a tablespace of a backup is encrypted.

use backup_core::{ArtifactSource, Result};

use super::catalog::Entry;
use crate::innodb::{Geometry, HEAD_BYTES};

/// Whether MySQL encrypted a tablespace, as its first page says.
///
/// # Errors
/// Those of the repository.
pub async fn is_encrypted(artifacts: &dyn ArtifactSource, entry: &Entry) -> Result<bool> {
    let mut reader = artifacts.open(&entry.artifact()?).await?;
    let mut head = Vec::new();
    while head.len() < HEAD_BYTES {
        let Some(bytes) = reader.next().await? else { break };
        head.extend_from_slice(&bytes);
    }
    Ok(Geometry::read(&head).is_some_and(|geometry| geometry.mysql_encrypted()))
}
