//! `holdfast repair`

use backup_core::{ClusterName, Error, ErrorKind, Event, Listed, Repository, Result, select};
use backup_storage::{Repair as Outcome, RepositoryOptions, repair_index};
use serde_json::json;

use crate::answer::Answer;
use crate::app::App;
use crate::human;

/// Make lost parts of a repository anew
#[derive(clap::Args)]
pub(crate) struct Repair {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Rebuild damaged indexes from the packs, as new objects; nothing is removed
    Index(Index),
}

#[derive(clap::Args)]
struct Index {
    /// An id, a unique prefix of one, or `latest`
    #[arg(value_name = "BACKUP", required_unless_present = "all", conflicts_with = "all")]
    backup: Option<String>,
    /// Every backup
    #[arg(long)]
    all: bool,
    /// Look only at backups of this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
}

impl Repair {
    /// Repairs.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        let What::Index(index) = &self.what;
        index.run(app).await
    }
}

impl Index {
    async fn run(&self, app: &App) -> Result<Answer> {
        let repo = app.repo(RepositoryOptions::default()).await?;
        let cluster = match (&self.cluster, self.all) {
            (Some(cluster), _) => Some(cluster),
            (None, false) => app.config.cluster.as_ref(),
            (None, true) => None,
        };
        let mut listed = app.cx.run(repo.backups(&app.cx, cluster)).await?;
        if let Some(wanted) = &self.backup {
            let manifest = select(listed, wanted)?;
            let (cluster, backup) = (manifest.cluster.clone(), manifest.backup.clone());
            listed = vec![Listed { cluster, backup, manifest: Ok(manifest) }];
        }
        let mut documents = Vec::new();
        let mut text = String::new();
        let mut ending = None;
        for Listed { backup, manifest, .. } in listed {
            let result = match manifest {
                Ok(manifest) => app.cx.run(repair_index(&app.cx, &repo, &manifest)).await,
                Err(e) => Err(e),
            };
            let (document, line) = match result {
                Ok(outcome) => told(&outcome),
                Err(e) if !self.all || e.kind() == ErrorKind::Interrupted => return Err(e),
                Err(e) => {
                    app.cx.event(Event::Warning { text: e.report() });
                    ending = ending.or(Some(e.kind()));
                    failed(&e)
                }
            };
            let mut document = document;
            document["backup"] = json!(backup);
            documents.push(document);
            text.push_str(&format!("{backup}  {line}\n"));
        }
        if documents.is_empty() {
            text.push_str("There are no backups here yet.\n");
        }
        let document = match documents.pop() {
            Some(only) if !self.all => only,
            last => documents.into_iter().chain(last).collect(),
        };
        Ok(Answer::new(&document, human::plain(&text))?.summary().ending(ending))
    }
}

fn told(outcome: &Outcome) -> (serde_json::Value, String) {
    match outcome {
        Outcome::Rebuilt { object, bytes, artifacts, damage } => (
            json!({
                "result": "rebuilt", "object": object, "bytes": bytes, "artifacts": artifacts,
                "damage": damage,
            }),
            format!(
                "rebuilt as {object}: {} artifacts, {}",
                human::count(*artifacts),
                human::bytes(*bytes)
            ),
        ),
        Outcome::StandsIn { object } => (
            json!({ "result": "stands-in", "object": object }),
            format!("damaged, and {object} stands in for it"),
        ),
        _ => (json!({ "result": "whole" }), "whole".to_owned()),
    }
}

fn failed(e: &Error) -> (serde_json::Value, String) {
    (json!({ "result": "failed", "error": e.chain(), "kind": e.kind() }), "FAILED".to_owned())
}
