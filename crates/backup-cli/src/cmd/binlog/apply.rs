//! `holdfast binlog apply`

use backup_core::{ClusterName, ErrorKind, Position, ReplayTarget, Result};
use backup_storage::RepositoryOptions;
use serde_json::json;

use super::super::point::Point;
use crate::answer::Answer;
use crate::app::App;
use crate::human;
use crate::login::{DefaultsFile, Server};

/// Apply archived binlogs to a server that was restored before, from where it stands
#[derive(clap::Args)]
pub(super) struct Apply {
    /// The cluster whose binlogs they are
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// The server to write: mysql://user@host:port/ or mysql://user@localhost/?socket=/path
    #[arg(long, value_name = "DSN")]
    target: Option<String>,
    #[command(flatten)]
    defaults_file: DefaultsFile,
    #[command(flatten)]
    point: Point,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Apply {
    pub(super) async fn run(&self, app: &App) -> Result<Answer> {
        let cx = &app.cx;
        let cluster = app.cluster(self.cluster.as_ref())?;
        let repo = app.repo(RepositoryOptions::default()).await?;
        app.known(&repo, self.cluster.as_ref(), &cluster).await?;
        let target = Server {
            role: "target",
            variable: "HOLDFAST_TARGET_PASSWORD",
            url: self.target.as_deref(),
            defaults_file: self.defaults_file.defaults_file.as_deref(),
        };
        let target = target.resolve(cx).await?;
        let point = self.point.target().unwrap_or(ReplayTarget::End);
        let way = self.point.way_on(cx, &repo, &cluster, &target, &point).await?;
        way.preflight(cx, &repo, &target, false).await?;
        let mut document = json!({
            "target": target.to_string(),
            "dry_run": self.dry_run,
            "binlog": way.as_json(),
        });
        if self.dry_run {
            let text = format!("To bring {target} to {point}:\n{}Nothing was done.\n", way.steps());
            document["warnings"] = json!(way.route.warnings);
            return Ok(Answer::new(&document, human::plain(&text))?.ending(way.ending()));
        }
        let started = cx.now();
        let applied = way.apply(cx, &repo, &target, false).await?;
        let seconds = cx.now().duration_since(started).as_secs_f64();
        document["reached"] = way.reached(&Position::default());
        document["duration_seconds"] = json!(seconds);
        let warnings = [&applied.warnings[..], &way.route.warnings].concat();
        document["warnings"] = json!(warnings);
        let text = format!(
            "Applied {} to {target} in {}.\n{}",
            human::bytes(applied.bytes),
            human::duration(seconds),
            way.steps()
        );
        let ending = (!warnings.is_empty()).then_some(ErrorKind::Warnings);
        Ok(Answer::new(&document, human::plain(&text))?.summary().ending(ending))
    }
}
