//! `holdfast binlog check`

use backup_core::{
    BinlogChain, ClusterName, ErrorKind, Finding, Manifest, Reach, ReplayBase, ReplayTarget,
    Repository, Result, SegmentInfo, SegmentStore, Severity, Strategy,
};
use backup_drivers::binlog::{check_segment, read_segments};
use backup_storage::RepositoryOptions;
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;

use crate::answer::Answer;
use crate::app::App;
use crate::human;

/// Check the archived binlogs: every byte, every event, and whether they lead on from each backup
#[derive(clap::Args)]
pub(super) struct Check {
    /// The cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// Only whether the pieces join each other; their content is not read
    #[arg(long)]
    quick: bool,
}

/// What to do where histories of servers went apart.
const APART: &str = "see with `holdfast binlog find` what it did, and bring it over where it counts; --to-latest follows the \
                     server that committed last, --to-gtid leads to any transaction";

/// What to do where no backup leads into the binlogs of a server.
const ALONE: &str = "take a full backup of that server now: its binlogs lead on from it";

impl Check {
    pub(super) async fn run(&self, app: &App) -> Result<Answer> {
        let cx = &app.cx;
        let cluster = app.cluster(self.cluster.as_ref())?;
        let repo = app.repo(RepositoryOptions::default()).await?;
        app.known(&repo, self.cluster.as_ref(), &cluster).await?;
        cx.phase("binlog check");
        let listed = cx.run(repo.segments(cx, &cluster)).await?;
        let mut findings = Vec::new();
        let mut segments: Vec<SegmentInfo> = Vec::new();
        let mut bytes = 0;
        let known = listed.iter().filter_map(|segment| segment.info.as_ref().ok());
        let known: Vec<SegmentInfo> = known.filter(|_| !self.quick).cloned().collect();
        let mut contents = read_segments(cx, &repo, known.iter().map(|info| ((), info)));
        for segment in listed {
            let name = format!("{}/{}", segment.server, segment.seq);
            let checked = match segment.info {
                Ok(info) => match contents.next().await {
                    Some((.., content)) => content_of(app, &info, content).await.map(|read| {
                        bytes += read;
                        info
                    }),
                    None => Ok(info),
                },
                Err(e) => Err(e),
            };
            match checked {
                Ok(info) => segments.push(info),
                Err(e) if e.kind() != ErrorKind::Damaged => return Err(e),
                Err(e) => findings.push(
                    Finding::new(
                        Severity::Error,
                        format!("segment {name}"),
                        e.chain(),
                        "put it back from a copy of the repository, or from the server's own file with \
                         `holdfast binlog rescue`; or take a full backup now",
                    )
                    .with_kind(ErrorKind::Damaged),
                ),
            }
        }
        let count = segments.len();
        let chain = BinlogChain::new(segments);
        for gap in chain.gaps() {
            let missing = match gap.missing.as_str() {
                "" => String::new(),
                gtids => format!(", transactions {gtids}"),
            };
            findings.push(Finding::new(
                Severity::Warning,
                format!("binlogs of {}", gap.server),
                format!("there is a gap between {} and {}{missing}", gap.after, gap.before),
                "backups from before the gap lead over it only where another server's binlogs do; \
                 the lines below say which",
            ));
        }
        let listed = cx.run(repo.backups(cx, Some(&cluster))).await?;
        let whole = |manifest: &Manifest| {
            let outcome = &manifest.outcome;
            !outcome.partial && !outcome.masked && manifest.strategy != Strategy::Foreign
        };
        let manifests = listed.into_iter().filter_map(|listed| listed.manifest.ok());
        let manifests: Vec<Manifest> = manifests.filter(whole).collect();
        let (mut backups, mut lines, mut apart) = (Vec::new(), String::new(), false);
        for (at, manifest) in manifests.iter().enumerate() {
            // What the newest one leads to can be had, whatever the older ones lead to.
            let severity = match at + 1 == manifests.len() {
                true => Severity::Error,
                false => Severity::Warning,
            };
            let problem = match chain.reach(&ReplayBase::of(manifest)) {
                Ok(Reach { last, time, whole }) => {
                    let time = time.unwrap_or(manifest.finished_at);
                    let place = last.as_ref().map_or(String::new(), |last| {
                        format!(" ({}:{})", last.range.file, last.range.end)
                    });
                    let end = if whole { "the end of the archive" } else { "not its end" };
                    let to = format!("{}{place}, {end}", human::time(time));
                    lines.push_str(&format!("From {} to {to}.\n", manifest.backup));
                    backups.push(json!({
                        "backup": manifest.backup,
                        "reaches": {
                            "time": time,
                            "gtid": last.as_ref().map(|last| &last.after),
                            "file": last.as_ref().map(|last| &last.range.file),
                            "offset": last.as_ref().map(|last| last.range.end),
                        },
                        "whole": whole,
                    }));
                    (!whole).then(|| format!("the archive leads from it to {to}"))
                }
                Err(e) => {
                    lines.push_str(&format!("From {} to nowhere.\n", manifest.backup));
                    backups.push(json!({
                        "backup": manifest.backup, "reaches": null, "whole": false,
                    }));
                    Some(e.to_string())
                }
            };
            if at + 1 == manifests.len() {
                let base = ReplayBase::of(manifest);
                let plan = chain.plan(&base, &ReplayTarget::Reachable);
                if let Ok(plan) = plan {
                    let left_out = chain.left_out(&base, &plan).into_iter();
                    let told = left_out.map(|problem| (problem, APART));
                    let told =
                        told.chain(chain.mixed(&base, &plan).map(|problem| (problem, ALONE)));
                    let object = format!("backup {}", manifest.backup);
                    let told = told.map(|(problem, remedy)| {
                        Finding::new(Severity::Warning, object.clone(), problem, remedy)
                    });
                    let before = findings.len();
                    findings.extend(told);
                    apart = findings.len() > before;
                }
            }
            if let Some(problem) = problem {
                let remedy = match severity {
                    Severity::Error => "take a full backup now",
                    _ => "begin with a newer backup for points behind that",
                };
                let object = format!("backup {}", manifest.backup);
                findings.push(Finding::new(severity, object, problem, remedy));
            }
        }
        let bases: Vec<ReplayBase> = manifests.iter().map(ReplayBase::of).collect();
        let alone = chain.unreached(&bases);
        apart |= !alone.is_empty();
        findings.extend(alone.into_iter().map(|problem| {
            Finding::new(Severity::Warning, format!("cluster {cluster}"), problem, ALONE)
        }));
        if count == 0 {
            findings.push(Finding::new(
                Severity::Warning,
                format!("cluster {cluster}"),
                "nothing is archived of its binlogs: only what is in backups can be restored",
                "archive them with `holdfast binlog backup` or `holdfast binlog stream`",
            ));
        }
        if manifests.is_empty() {
            findings.push(Finding::new(
                Severity::Warning,
                format!("cluster {cluster}"),
                "there is no backup of everything of it: from the binlogs alone nothing can be restored",
                "take one with `holdfast backup`",
            ));
        }
        let bad = findings.iter().any(|finding| finding.severity == Severity::Error);
        let document = json!({
            "cluster": cluster,
            "ok": !bad,
            "segments": count,
            "bytes": bytes,
            "findings": findings,
            "backups": backups,
        });
        let mut text = format!(
            "{} of {cluster}, {} read: {}.\n",
            human::several(count as u64, "segment"),
            human::bytes(bytes),
            match (bad, findings.is_empty()) {
                (true, _) => "problems were found",
                _ if count == 0 => "there are none",
                _ if manifests.is_empty() =>
                    "they are whole, and nothing can be restored from them",
                _ if apart => "they are whole, and the histories of its servers went apart",
                (false, false) => "all is well from the newest backup on",
                (false, true) => "all is well",
            }
        );
        if count > 0 {
            text.push_str(&lines);
        }
        for finding in &findings {
            text.push_str(&human::finding(finding));
        }
        let ending = match bad {
            true => Some(ErrorKind::Findings),
            false => (manifests.is_empty() || apart || count == 0).then_some(ErrorKind::Warnings),
        };
        Ok(Answer::new(&document, text)?.ending(ending))
    }
}

/// Checks what a segment holds; gives how many bytes that are.
async fn content_of(app: &App, info: &SegmentInfo, content: Result<Bytes>) -> Result<u64> {
    let content = content?;
    let checked = info.clone();
    let bytes = content.len() as u64;
    tokio::task::spawn_blocking(move || check_segment(&checked, &content)).await.map_err(
        |e| backup_core::Error::internal("a task of the check ended early").with_source(e),
    )??;
    app.cx.progress().add_bytes(bytes);
    Ok(bytes)
}
