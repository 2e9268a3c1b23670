//! The artifacts of a backup of any strategy as files.

use backup_core::{ArtifactName, ArtifactSource, Context, Result};

use super::Exported;
use crate::exchange::FileSet;

/// Writes every artifact of a backup into a file of its name: data files of a physical backup as they
/// were, row blocks and catalogue of a logical one. Files of a dump that was imported have the names that they had.
///
/// # Errors
/// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when an artifact does not match its
/// digest; what the operating system says of the files.
pub async fn export_artifacts(
    cx: &Context,
    artifacts: &dyn ArtifactSource,
    files: &FileSet,
) -> Result<Exported> {
    let listed = artifacts.list().await?;
    cx.progress().expect_bytes(listed.iter().map(|a| a.bytes).sum());
    for artifact in listed {
        let mut reader = artifacts.open(&artifact.name).await?;
        let mut file = files.create(&path(&artifact.name))?;
        while let Some(bytes) = reader.next().await? {
            cx.check()?;
            cx.progress().add_bytes(bytes.len() as u64);
            if !bytes.is_empty() {
                file.write(bytes).await?;
            }
        }
        file.finish(files).await?;
    }
    Ok(Exported::default())
}

/// Where an artifact goes. Their names are safe as paths.
fn path(name: &ArtifactName) -> String {
    let parts = name.parts();
    let usual = |part: &String| {
        !["", ".", ".."].contains(&part.as_str())
            && part.len() <= 255
            && !part.contains(['/', '\\', '\0'])
    };
    match parts.starts_with(&["foreign".to_owned(), "files".to_owned()]) {
        true if parts.iter().all(usual) => parts.join("/"),
        _ => name.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_dumps_are_as_they_were_and_never_lead_elsewhere() {
        let of = |parts: &[&str]| path(&ArtifactName::from_parts(parts.iter().copied()).unwrap());
        assert_eq!(of(&["foreign", "files", "a b", "é.sql"]), "foreign/files/a b/é.sql");
        assert_eq!(of(&["foreign", "files", "..", "x"]), "foreign/files/%2E%2E/x");
        assert_eq!(of(&["foreign", "files", "a/../b"]), "foreign/files/a%2F..%2Fb");
        assert_eq!(of(&["files", "a b"]), "files/a%20b");
    }
}
