//! `holdfast init`

use backup_core::Result;
use backup_storage::{Repo, RepositoryOptions, Store};
use serde_json::json;

use crate::answer::Answer;
use crate::app::App;

/// Create a repository
#[derive(clap::Args)]
pub(crate) struct Init {
    /// Store backups unencrypted; the only choice of this version
    #[arg(long)]
    no_encryption: bool,
}

impl Init {
    /// Creates it.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        let url = app.repo_url()?;
        let store = Store::make(&app.cx, &url, &app.store_options(&url)?).await?;
        let repo = Repo::init_on(&app.cx, store, RepositoryOptions::default()).await?;
        let document =
            json!({ "repo": url.to_string(), "id": repo.id().to_string(), "encrypted": false });
        let reminder = if self.no_encryption {
            ""
        } else {
            "Backups in it are not encrypted: who can read the directory can read the data.\n"
        };
        let text = format!("Created repository {} at {url}.\n{reminder}", repo.id());
        Ok(Answer::new(&document, text)?.summary())
    }
}
