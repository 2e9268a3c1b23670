//! `holdfast init`

use backup_core::{Error, Result};
use backup_storage::{Cipher, Repo, RepositoryOptions, SlotKind, Store, Unlock};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;

use crate::answer::Answer;
use crate::app::App;
use crate::prompt;

/// Create a repository
///
/// It is encrypted with the passphrase or key file that is given; --no-encryption makes one that is
/// not.
#[derive(clap::Args)]
pub(crate) struct Init {
    /// Store backups in the clear: who can read the repository can read the data
    #[arg(long, conflicts_with_all = ["passphrase_file", "key_file", "cipher"])]
    no_encryption: bool,
    /// How backups are encrypted [default: aes-256-gcm]
    #[arg(long, value_name = "CIPHER", value_parser = cipher())]
    cipher: Option<Cipher>,
}

impl Init {
    /// Creates it.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        let url = app.repo_url()?;
        let unlock = match self.no_encryption {
            true => None,
            false => Some(key(app).await?),
        };
        let kind = unlock.as_ref().map(Unlock::kind);
        let cipher = self.cipher.unwrap_or_default();
        let options = RepositoryOptions { unlock, cipher, ..RepositoryOptions::default() };
        let store = Store::make(&app.cx, &url, &app.store_options(&url)?).await?;
        let repo = Repo::init_on(&app.cx, store, options).await?;
        let mut document = json!({ "repo": url.to_string(), "id": repo.id().to_string(), "encrypted": kind.is_some() });
        let mut text = format!("Created repository {} at {url}.\n", repo.id());
        if let Some(kind) = kind {
            document["cipher"] = json!(cipher);
            document["key_slot"] = json!(repo.opened_with());
            let key = match kind {
                SlotKind::Passphrase => "passphrase",
                SlotKind::KeyFile => "key file",
            };
            text.push_str(&format!(
                "It is encrypted. Without the {key} nobody can read the backups: keep it elsewhere too.\n"
            ));
        }
        Ok(Answer::new(&document, text)?.summary())
    }
}

/// `--cipher`.
fn cipher() -> impl TypedValueParser<Value = Cipher> {
    let names = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305].map(Cipher::as_str);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Cipher>())
}

/// The key of the new repository.
async fn key(app: &App) -> Result<Unlock> {
    match app.key()? {
        Some(key) => Ok(key),
        None if prompt::is_possible() => {
            let what = format!("repository {}", app.repo_url()?);
            prompt::ask_new(&app.cx, &what).await.map(Unlock::Passphrase)
        }
        None => Err(Error::usage("whether the new repository is encrypted was not said").with_remedy(
            "give --passphrase-file FILE or --key-file FILE (`head -c 64 /dev/urandom > FILE` makes \
             one), or --no-encryption",
        )),
    }
}
