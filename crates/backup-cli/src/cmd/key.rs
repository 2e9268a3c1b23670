//! `holdfast key`

use std::path::PathBuf;

use backup_core::{Error, Result};
use backup_storage::{KeySlot, RepositoryOptions, SlotName, Unlock};
use serde_json::json;

use crate::answer::Answer;
use crate::app::App;
use crate::human::{self, Align, plain};
use crate::prompt;
use crate::unlock::KeySource;

/// List, add and remove the keys of an encrypted repository
///
/// Each key slot holds the master key of the repository under a passphrase or key file of its own, and
/// opens it alone.
#[derive(clap::Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    List(List),
    Add(Add),
    Remove(Remove),
}

/// List the key slots
#[derive(clap::Args)]
struct List {}

/// Add a passphrase or key file that opens the repository
#[derive(clap::Args)]
struct Add {
    /// File with the new passphrase in its first line
    #[arg(long, value_name = "FILE", conflicts_with = "new_key_file")]
    new_passphrase_file: Option<PathBuf>,
    /// The new key file: 32 bytes or more that nobody can guess
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
    /// What the list calls it, such as whose it is
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    label: String,
}

/// Remove a key slot: its passphrase or key file opens the repository no more
///
/// Nothing is encrypted anew. Who copied the slot before, or the master key, can still read the
/// backups.
#[derive(clap::Args)]
struct Remove {
    /// The slot, as the list names it
    slot: SlotName,
}

impl Key {
    /// Does it.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        match &self.action {
            Action::List(list) => list.run(app).await,
            Action::Add(add) => add.run(app).await,
            Action::Remove(remove) => remove.run(app).await,
        }
    }
}

impl List {
    async fn run(&self, app: &App) -> Result<Answer> {
        let repo = app.repo(RepositoryOptions::default()).await?;
        let slots = app.cx.run(repo.key_slots(&app.cx)).await?;
        let document: Vec<serde_json::Value> = slots.iter().map(as_json).collect();
        let text = if slots.is_empty() {
            "The repository is not encrypted: it has no keys.\n".to_owned()
        } else {
            let rows: Vec<Vec<String>> = slots.iter().map(as_row).collect();
            human::table(&COLUMNS, &rows)
        };
        Answer::new(&document, text)
    }
}

impl Add {
    async fn run(&self, app: &App) -> Result<Answer> {
        let cx = &app.cx;
        let mut sources =
            KeySource::of(self.new_passphrase_file.as_deref(), self.new_key_file.as_deref());
        let given = sources.pop().map(|source| source.read(cx)).transpose()?;
        if given.is_none() && !prompt::is_possible() {
            return Err(Error::usage("no new key was given")
                .with_remedy("name it with --new-passphrase-file or --new-key-file"));
        }
        let repo = app.repo(RepositoryOptions::default()).await?;
        let unlock = match given {
            Some(unlock) => unlock,
            None => Unlock::Passphrase(prompt::ask_new(cx, "the new key slot").await?),
        };
        let slot = repo.add_key(cx, &unlock, &self.label).await?;
        let text =
            format!("Added key slot {}. It opens the repository from now on.\n", named(&slot));
        Ok(Answer::new(&as_json(&slot), text)?.summary())
    }
}

impl Remove {
    async fn run(&self, app: &App) -> Result<Answer> {
        let cx = &app.cx;
        let repo = app.repo(RepositoryOptions::default()).await?;
        let slots = cx.run(repo.key_slots(cx)).await?;
        repo.remove_key(cx, &self.slot).await?;
        let removed = slots.iter().find(|slot| slot.name == self.slot);
        let left = slots.len() - usize::from(removed.is_some());
        let mut text = match removed {
            Some(slot) => format!("Removed key slot {}.\n", named(slot)),
            None => format!("Removed key slot {}, which was damaged.\n", self.slot),
        };
        let own = removed.is_some_and(|slot| slot.opened);
        if own {
            text.push_str(&format!(
                "It was the one that opened the repository just now; from now on only the other {left} do.\n"
            ));
        }
        text.push_str(
            "Nothing was encrypted anew: who copied the slot before, or the master key, can still \
             read the backups.\n",
        );
        let document = json!({ "removed": self.slot, "opened": own, "left": left });
        Ok(Answer::new(&document, text)?.summary())
    }
}

const COLUMNS: [(&str, Align); 5] = [
    ("SLOT", Align::Left),
    ("KIND", Align::Left),
    ("LABEL", Align::Left),
    ("MADE", Align::Left),
    ("", Align::Left),
];

fn as_row(slot: &KeySlot) -> Vec<String> {
    vec![
        slot.name.to_string(),
        slot.kind.as_str().to_owned(),
        slot.label.clone(),
        human::time(slot.created_at),
        if slot.opened { "used now" } else { "" }.to_owned(),
    ]
}

fn as_json(slot: &KeySlot) -> serde_json::Value {
    json!({
        "slot": slot.name,
        "kind": slot.kind,
        "label": slot.label,
        "created_at": slot.created_at,
        "opened": slot.opened,
    })
}

fn named(slot: &KeySlot) -> String {
    match slot.label.as_str() {
        "" => format!("{} ({})", slot.name, slot.kind.as_str()),
        label => format!("{} ({}, {})", slot.name, slot.kind.as_str(), plain(label)),
    }
}
