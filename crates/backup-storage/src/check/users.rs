//! Which backups a damaged pack hits.

use std::collections::HashMap;

use backup_core::{BackupId, ClusterName, Context, Finding, Repository, Result};

use super::damage;
use crate::key::{self, BackupObject};
use crate::repo::Repo;

/// How many backups are named.
const NAMES: usize = 5;
/// How many objects with the same problem have a finding of their own.
const EACH: usize = 20;

/// The backups of a cluster by the packs that they have or need.
pub(super) struct Users(HashMap<(BackupId, String), Vec<BackupId>>);

impl Users {
    /// Reads every manifest of the cluster; those that cannot be read are left out.
    pub(super) async fn load(cx: &Context, repo: &Repo, cluster: &ClusterName) -> Result<Self> {
        let mut users: HashMap<(BackupId, String), Vec<BackupId>> = HashMap::new();
        for listed in repo.backups(cx, Some(cluster)).await? {
            let Ok(manifest) = listed.manifest else { continue };
            let own = manifest.packs.iter().map(|pack| (&manifest.backup, pack));
            let others = manifest.needs.iter().flat_map(|n| n.packs.iter().map(|p| (&n.backup, p)));
            for (backup, pack) in own.chain(others) {
                users
                    .entry((backup.clone(), pack.name.clone()))
                    .or_default()
                    .push(manifest.backup.clone());
            }
        }
        Ok(Users(users))
    }

    /// Says who else is hit, to be put behind a problem; empty when nobody is.
    fn besides(&self, verified: &BackupId, backup: &BackupId, pack: &str) -> String {
        let key = (backup.clone(), pack.to_owned());
        let all = self.0.get(&key).map(Vec::as_slice).unwrap_or_default();
        let others: Vec<&str> =
            all.iter().filter(|id| *id != verified).map(BackupId::as_str).collect();
        let shown = others.iter().take(NAMES).copied().collect::<Vec<_>>().join(", ");
        match others.len() {
            0 => String::new(),
            n if n > NAMES => format!("; {shown} and {} more backups need it too", n - NAMES),
            _ => format!("; needed by {shown} too"),
        }
    }
}

/// An object with something wrong.
pub(super) struct Problem {
    pub(super) backup: BackupId,
    /// Its name inside the directory of `backup`.
    pub(super) object: String,
    pub(super) problem: String,
}

/// A finding for each problem, with the other backups that it hits. Where the same happened to very
/// many, most are only counted.
pub(super) async fn findings(
    cx: &Context,
    repo: &Repo,
    cluster: &ClusterName,
    verified: &BackupId,
    problems: Vec<Problem>,
) -> Result<Vec<Finding>> {
    let shared = |p: &Problem| matches!(p.object.parse(), Ok(BackupObject::Pack(_)));
    let users = match problems.iter().any(shared) {
        true => Some(Users::load(cx, repo, cluster).await?),
        false => None,
    };
    let mut findings = Vec::new();
    let mut counted: HashMap<(BackupId, bool), u64> = HashMap::new();
    for (n, Problem { backup, object, problem }) in problems.into_iter().enumerate() {
        if n >= EACH {
            *counted.entry((backup, problem == super::MISSING)).or_default() += 1;
            continue;
        }
        let others = users.as_ref().map(|u| u.besides(verified, &backup, &object));
        let others = others.unwrap_or_default();
        let directory = key::backup(cluster, &backup);
        findings.push(damage(format!("{directory}/{object}"), format!("{problem}{others}")));
    }
    let mut counted: Vec<_> = counted.into_iter().collect();
    counted.sort();
    findings.extend(counted.into_iter().map(|((backup, missing), n)| {
        let what = if missing { "missing" } else { "damaged" };
        damage(key::backup(cluster, &backup).to_string(), format!("{n} more objects are {what}"))
    }));
    Ok(findings)
}
