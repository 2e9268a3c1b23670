//! What mends a repository that has lost something, in commands to paste.

use backup_core::{BackupId, ClusterName, Context, RecordEvent, Repository, Result, shell_word};

use super::Repo;
use crate::url::RepoUrl;

/// What puts `what` of the repository at `name` back out of `copy`, where one is known.
fn command(what: &str, name: &str, copy: Option<&str>) -> String {
    let url = name.parse::<RepoUrl>();
    let name = url.and_then(|url| url.absolute()).unwrap_or_else(|_| name.to_owned());
    let copy = shell_word(copy.unwrap_or("COPY"));
    format!("`holdfast copy {what} --repo {copy} --to {} --replace-damaged`", shell_word(&name))
}

/// What puts a lost or damaged `holdfast.json` back.
pub(crate) fn config(name: &str) -> String {
    format!(
        "put it back from a copy of this repository, where it is the same, with {} (COPY is its place); or from a \
         version or a snapshot that the store keeps",
        command("--all", name, None)
    )
}

impl Repo {
    /// What puts the manifest of a backup back.
    pub(super) async fn mend(
        &self,
        cx: &Context,
        cluster: &ClusterName,
        backup: &BackupId,
    ) -> String {
        let copy = match self.copies.places().first() {
            Some(place) => Some(place.name().to_owned()),
            None => self.copied_to(cx, cluster, backup).await.ok().flatten(),
        };
        let command = command(backup.as_str(), self.store.name(), copy.as_deref());
        let back = match copy {
            Some(_) => format!("put it back from a copy of the repository: {command}"),
            None => format!(
                "put it back from a copy of the repository, where there is one (COPY): {command}"
            ),
        };
        format!(
            "{back}; or use another backup, and leave its directory where it is, for later backups may need its packs"
        )
    }

    /// Where the history says that the newest copy of a backup is, in a copy of this repository.
    async fn copied_to(
        &self,
        cx: &Context,
        cluster: &ClusterName,
        backup: &BackupId,
    ) -> Result<Option<String>> {
        let records = self.records(cx, cluster).await?.into_iter().rev();
        let mut copies = records.filter(|record| record.backup.as_ref() == Some(backup));
        Ok(copies.find_map(|record| match record.event {
            RecordEvent::Copied { to, repository, .. } if repository == self.id().as_str() => {
                Some(to)
            }
            _ => None,
        }))
    }
}
