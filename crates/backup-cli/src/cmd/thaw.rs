//! `holdfast thaw`

use std::time::Duration;

use backup_core::{ClusterName, ErrorKind, Event, Manifest, Repository, Result, select};
use backup_storage::{Repo, RepositoryOptions, Thaw as Found, ThawRequest, ThawSpeed, thaw};
use clap::ValueEnum;
use serde_json::json;

use crate::answer::Answer;
use crate::app::App;
use crate::human;

/// Ask object stores for what a backup needs of archive classes
#[derive(clap::Args)]
pub(crate) struct Thaw {
    /// An id, a unique prefix of one, or `latest`
    #[arg(value_name = "BACKUP")]
    backup: String,
    /// Look only at backups of this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// For how many days it can be read afterwards
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=365))]
    days: u32,
    /// How much of a hurry there is; what is fast costs more
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Speed::Standard)]
    speed: Speed,
    /// Come back when everything can be read
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// Say what can be read and what cannot, and ask for nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Speed {
    Expedited,
    Standard,
    Bulk,
}

/// The longest pause between two looks. Each look is a request for every object.
const PAUSE: Duration = Duration::from_secs(120);

impl Thaw {
    /// Asks, and waits where that is wanted.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        let cx = &app.cx;
        let repo = app.repo(RepositoryOptions::default()).await?;
        let cluster = self.cluster.as_ref().or(app.config.cluster.as_ref());
        let listed = cx.run(repo.backups(cx, cluster)).await?;
        let manifest = select(listed, &self.backup)?;
        cx.phase("thaw");
        let speed = match self.speed {
            Speed::Expedited => ThawSpeed::Expedited,
            Speed::Standard => ThawSpeed::Standard,
            Speed::Bulk => ThawSpeed::Bulk,
        };
        let request = (!self.dry_run).then_some(ThawRequest { days: self.days, speed });
        let mut found = cx.run(thaw(cx, &repo, &manifest, request)).await?;
        let asked = if self.dry_run { (0, 0) } else { found.archived };
        if !self.dry_run {
            found.thawing.0 += asked.0;
            found.thawing.1 += asked.1;
            found.archived = (0, 0);
        }
        if self.wait && !found.is_readable() {
            found = wait(app, &repo, &manifest, &found).await?;
        }
        let line = |(objects, bytes): (u64, u64)| json!({"objects": objects, "bytes": bytes});
        let document = json!({
            "backup": manifest.backup, "dry_run": self.dry_run, "can_be_read": found.is_readable(),
            "readable": line(found.readable), "asked": line(asked), "thawing": line(found.thawing),
            "archived": line(found.archived), "missing": line(found.missing), "until": found.until,
        });
        let ending = (found.missing.0 > 0).then_some(ErrorKind::Damaged);
        Ok(Answer::new(&document, text(&manifest, &found, asked))?.ending(ending))
    }
}

async fn wait(app: &App, repo: &Repo, manifest: &Manifest, first: &Found) -> Result<Found> {
    let cx = &app.cx;
    let mut pause = Duration::from_secs(1);
    let mut left = first.thawing.0;
    cx.event(Event::Note {
        text: format!("{} are on their way; waiting", human::several(left, "object")),
    });
    loop {
        cx.run(async {
            tokio::time::sleep(pause).await;
            Ok(())
        })
        .await?;
        pause = (pause * 2).min(PAUSE);
        let found = cx.run(thaw(cx, repo, manifest, None)).await?;
        if found.is_readable() {
            return Ok(found);
        }
        if found.thawing.0 + found.archived.0 < left {
            left = found.thawing.0 + found.archived.0;
            cx.event(Event::Note {
                text: format!("{} are still on their way", human::several(left, "object")),
            });
        }
    }
}

fn text(manifest: &Manifest, found: &Found, asked: (u64, u64)) -> String {
    let mut text = format!("Backup {}\n", manifest.backup);
    let earlier =
        (found.thawing.0.saturating_sub(asked.0), found.thawing.1.saturating_sub(asked.1));
    let now = (found.thawing.0 - earlier.0, found.thawing.1 - earlier.1);
    for (what, (objects, bytes)) in [
        ("can be read", found.readable),
        ("asked for now", now),
        ("asked for earlier, on their way", earlier),
        ("in an archive class, not asked for", found.archived),
        ("missing", found.missing),
    ] {
        if objects > 0 {
            let count = human::several(objects, "object");
            text.push_str(&format!("  {count}, {}: {what}\n", human::bytes(bytes)));
        }
    }
    if found.missing.0 > 0 {
        text.push_str("`holdfast verify` tells what can still be restored.\n");
    } else if !found.is_readable() {
        text.push_str("It cannot be restored yet; --wait comes back when it can.\n");
    } else if let Some(until) = found.until {
        text.push_str(&format!("It can be restored until {}.\n", human::time(until)));
    } else {
        text.push_str("It can be restored.\n");
    }
    text
}
