//! `holdfast copy`

use std::collections::BTreeSet;
use std::path::PathBuf;

use backup_core::{
    BackupId, ClusterName, Error, ErrorKind, Event, Listed, Manifest, Repository, Result, select,
};
use backup_storage::{
    Copied, CopiedBinlogs, CopyConsent, CopyOptions, CopyTarget, Repo, RepoUrl, RepositoryOptions,
    copy_backup, copy_binlogs, in_order,
};
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::app::App;
use crate::human;
use crate::unlock::KeySource;

/// Copy backups into another repository, and verify them there
#[derive(clap::Args)]
pub(crate) struct Copy {
    /// Ids, unique prefixes of ids, or `latest`; parents come along
    #[arg(value_name = "BACKUP", required_unless_present = "all", conflicts_with = "all")]
    backups: Vec<String>,
    /// Copy every backup
    #[arg(long)]
    all: bool,
    /// Look only at backups of this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// Where to: an empty place, a copy of this repository, or another repository
    /// [default: every one of `copies` in the configuration]
    #[arg(long, value_name = "URL")]
    to: Vec<String>,
    /// File with the passphrase of the target, where that is another repository and encrypted
    #[arg(long, value_name = "FILE", requires = "to", conflicts_with = "to_key_file")]
    to_passphrase_file: Option<PathBuf>,
    /// Key file of the target, where that is another repository and encrypted
    #[arg(long, value_name = "FILE", requires = "to")]
    to_key_file: Option<PathBuf>,
    /// Read again what earlier runs have copied and verified
    #[arg(long)]
    verify: bool,
    /// Remove damaged objects at the target and copy them again
    #[arg(long)]
    replace_damaged: bool,
    /// Without the archived binlogs of the cluster
    #[arg(long)]
    no_binlogs: bool,
    /// Copy into a place that has lost the copies that it had: it is empty, or holds another
    /// repository now
    #[arg(long)]
    anew: bool,
    /// Copy from an encrypted repository into another one that is not encrypted: who can read that
    /// one can read the data
    #[arg(long)]
    allow_unencrypted: bool,
}

/// What became of the binlogs of a cluster.
struct BinlogLine {
    cluster: ClusterName,
    result: Result<CopiedBinlogs>,
}

/// What became of a backup.
struct Line {
    manifest: Manifest,
    result: Result<Copied>,
}

impl Copy {
    /// Copies.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        let repo = app.repo(RepositoryOptions::default()).await?;
        let urls = match self.to.as_slice() {
            [] => app.config.copies()?,
            // Not by the parser of flags, which quotes what it refuses: it may hold a password.
            urls => urls.iter().map(|url| url.parse()).collect::<Result<Vec<RepoUrl>>>()?,
        };
        if urls.is_empty() {
            return Err(Error::usage("no target was given")
                .with_remedy("name it with --to, or `copies` in the configuration"));
        }
        let (backups, unreadable) = self.choose(app, &repo).await?;
        let mut documents = Vec::new();
        let mut text = String::new();
        let mut ending = (!unreadable.is_empty()).then_some(ErrorKind::Damaged);
        for url in urls {
            app.cx.phase(format!("copy to {url}"));
            let key =
                KeySource::of(self.to_passphrase_file.as_deref(), self.to_key_file.as_deref());
            let unlock = key.first().map(|key| key.read(&app.cx)).transpose()?;
            let stores = app.stores();
            let options =
                RepositoryOptions { unlock, stores, writes: true, ..RepositoryOptions::default() };
            let consent = CopyConsent {
                anew: self.anew,
                clear_text: self.allow_unencrypted,
                replace_damaged: self.replace_damaged,
            };
            let opened = app.cx.run(CopyTarget::open(&app.cx, &repo, &url, options, consent)).await;
            let target = match opened {
                Ok(target) => target,
                // One place that is away must not keep the others from their copies.
                Err(e) if self.to.len() != 1 && e.kind() != ErrorKind::Interrupted => {
                    app.cx.event(Event::Warning { text: e.report() });
                    documents.push(json!({ "to": url.to_string(), "error": e.chain() }));
                    ending = ending.or(Some(e.kind()));
                    continue;
                }
                Err(e) => return Err(e),
            };
            let lines = self.copy(app, &repo, &target, &backups).await?;
            ending = ending.or_else(|| {
                lines.iter().find_map(|line| line.result.as_ref().err().map(Error::kind))
            });
            let binlogs = self.copy_binlogs(app, &repo, &target, &lines).await?;
            ending = ending.or_else(|| {
                binlogs.iter().find_map(|line| line.result.as_ref().err().map(Error::kind))
            });
            documents.push(document(&target, &lines, &binlogs, &unreadable));
            text.push_str(&paragraph(&target, &lines, &binlogs));
            if let Err(e) = target.close().await {
                app.cx.event(Event::Warning { text: e.report() });
            }
        }
        Ok(Answer::new(&json!({ "targets": documents }), text)?.summary().ending(ending))
    }

    fn options(&self) -> CopyOptions {
        CopyOptions {
            verify: self.verify,
            replace_damaged: self.replace_damaged,
            leave_removed: self.all,
        }
    }

    /// The backups to copy, parents first; and those that cannot be read.
    async fn choose(&self, app: &App, repo: &Repo) -> Result<(Vec<Manifest>, Vec<BackupId>)> {
        let cluster = match (&self.cluster, self.all) {
            (Some(cluster), _) => Some(cluster),
            (None, false) => app.config.cluster.as_ref(),
            (None, true) => None,
        };
        let listed = app.cx.run(repo.backups(&app.cx, cluster)).await?;
        let mut chosen = Vec::new();
        let mut unreadable = Vec::new();
        if self.all {
            if listed.is_empty() && cluster.is_some() {
                select(listed, "latest")?;
                return Ok((chosen, unreadable));
            }
            for Listed { backup, manifest, .. } in listed {
                match manifest {
                    Ok(manifest) => chosen.push(manifest),
                    Err(e) => {
                        let text = format!("backup {backup} is not copied: {}", e.report());
                        app.cx.event(Event::Warning { text });
                        unreadable.push(backup);
                    }
                }
            }
            return Ok((in_order(&chosen, &[]), unreadable));
        }
        let known: Vec<Manifest> =
            listed.iter().filter_map(|l| l.manifest.as_ref().ok()).cloned().collect();
        for wanted in &self.backups {
            let again = app.cx.run(repo.backups(&app.cx, cluster)).await?;
            chosen.push(select(again, wanted)?);
        }
        Ok((in_order(&chosen, &known), unreadable))
    }

    /// Copies the archived binlogs of every cluster of which there are backups at the target now.
    async fn copy_binlogs(
        &self,
        app: &App,
        repo: &Repo,
        target: &CopyTarget,
        lines: &[Line],
    ) -> Result<Vec<BinlogLine>> {
        if self.no_binlogs {
            return Ok(Vec::new());
        }
        let arrived = lines.iter().filter(|line| line.result.is_ok());
        let clusters: BTreeSet<&ClusterName> = arrived.map(|line| &line.manifest.cluster).collect();
        let options = self.options();
        let mut copied = Vec::new();
        for cluster in clusters {
            app.cx.phase(format!("binlogs of {cluster}"));
            let copy = copy_binlogs(&app.cx, repo, target, cluster, options);
            let result = app.cx.run(copy).await;
            match &result {
                Ok(CopiedBinlogs { segments: 0, .. }) => continue,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => return result.map(|_| copied),
                Err(e) => app.cx.event(Event::Warning { text: e.report() }),
            }
            copied.push(BinlogLine { cluster: cluster.clone(), result });
        }
        Ok(copied)
    }

    /// Copies one after the other. A backup whose parent did not arrive is left out.
    async fn copy(
        &self,
        app: &App,
        repo: &Repo,
        target: &CopyTarget,
        backups: &[Manifest],
    ) -> Result<Vec<Line>> {
        let options = self.options();
        let mut failed = BTreeSet::new();
        let mut lines = Vec::new();
        for manifest in backups {
            let lost = manifest.parent.as_ref().filter(|p| failed.contains(*p));
            let result = match lost {
                Some(parent) => Err(Error::damaged(format!(
                    "backup {} was not copied: its parent {parent} was not",
                    manifest.backup
                ))),
                None => {
                    let copy = copy_backup(&app.cx, repo, target, manifest, options);
                    app.cx.run(copy).await
                }
            };
            if let Err(e) = &result {
                if e.kind() == ErrorKind::Interrupted || backups.len() == 1 {
                    return result.map(|_| lines);
                }
                app.cx.event(Event::Warning { text: e.report() });
                failed.insert(manifest.backup.clone());
                // The next one would meet the same wall.
                let wall = matches!(e.kind(), ErrorKind::Space | ErrorKind::Store);
                if wall {
                    return result.map(|_| lines);
                }
            }
            lines.push(Line { manifest: manifest.clone(), result });
        }
        Ok(lines)
    }
}

fn document(
    target: &CopyTarget,
    lines: &[Line],
    binlogs: &[BinlogLine],
    unreadable: &[BackupId],
) -> Value {
    let binlogs: Vec<Value> = binlogs
        .iter()
        .map(|BinlogLine { cluster, result }| match result {
            Ok(copied) => json!({
                "cluster": cluster, "ok": true, "segments": copied.segments,
                "segments_sent": copied.sent, "bytes_sent": copied.bytes,
            }),
            Err(e) => json!({
                "cluster": cluster, "ok": false, "error": e.chain(), "kind": e.kind(),
            }),
        })
        .collect();
    let backups: Vec<Value> = lines
        .iter()
        .map(|Line { manifest, result }| {
            let (backup, cluster) = (&manifest.backup, &manifest.cluster);
            match result {
                Ok(Copied { left_out: true, .. }) => json!({
                    "backup": backup, "cluster": cluster, "ok": true, "left_out": true,
                }),
                Ok(copied) => json!({
                    "backup": backup, "cluster": cluster, "ok": true,
                    "verified": copied.verified, "already": copied.already, "bytes": copied.bytes, "bytes_sent": copied.sent,
                    "objects_sent": copied.objects,
                }),
                Err(e) => json!({
                    "backup": backup, "cluster": cluster, "ok": false, "error": e.chain(),
                    "kind": e.kind(),
                }),
            }
        })
        .collect();
    json!({
        "to": target.name(),
        "repository": target.repo().id().to_string(),
        "same": target.is_same(),
        "backups": backups,
        "binlogs": binlogs,
        "unreadable": unreadable,
    })
}

fn paragraph(target: &CopyTarget, lines: &[Line], binlogs: &[BinlogLine]) -> String {
    let kind = if target.is_same() { "a copy of this repository" } else { "another repository" };
    let mut text = format!("To {}, {kind}:\n", target.name());
    for Line { manifest, result } in lines {
        let what = match result {
            Ok(Copied { already: true, verified: true, .. }) => "was there, verified".to_owned(),
            Ok(Copied { already: true, .. }) => "was there, not read".to_owned(),
            Ok(Copied { left_out: true, .. }) => "left out: a prune removed it there".to_owned(),
            Ok(copied) => format!(
                "copied and verified, {} in {} objects{}",
                human::bytes(copied.sent),
                human::count(copied.objects),
                if copied.verified { "" } else { "; the others were there, not read" }
            ),
            Err(_) => "FAILED".to_owned(),
        };
        text.push_str(&format!("  {}  {what}\n", manifest.backup));
    }
    for BinlogLine { cluster, result } in binlogs {
        let what = match result {
            Ok(CopiedBinlogs { segments, sent: 0, .. }) => {
                format!("all {} segments were there", human::count(*segments))
            }
            Ok(copied) => format!(
                "{} copied and verified, {}",
                human::several(copied.sent, "segment"),
                human::bytes(copied.bytes)
            ),
            Err(_) => "FAILED".to_owned(),
        };
        text.push_str(&format!("  binlogs of {cluster}  {what}\n"));
    }
    if lines.is_empty() {
        text.push_str("  There are no backups here yet.\n");
    }
    human::plain(&text)
}
