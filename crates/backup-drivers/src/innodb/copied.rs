//! The pages of all files that were copied.

use backup_core::{Error, ErrorKind, Result};
use serde_json::Value;

use super::{PageSummary, TableFile};

/// What the pages of copied files are.
#[derive(Debug, Default)]
pub(crate) struct CopiedPages {
    /// The damaged ones, one text each.
    pub(crate) bad: Vec<String>,
    /// How many are sound.
    pub(crate) sound: u64,
    /// How many are encrypted, and cannot be checked.
    pub(crate) encrypted: u64,
}

impl CopiedPages {
    /// Counts the pages of one file. Of an increment of a tablespace that is told of the tablespace itself.
    pub(crate) fn add(&mut self, path: &str, summary: &PageSummary) {
        self.sound += summary.sound.values().sum::<u64>() + summary.zero + summary.compressed;
        self.encrypted += summary.encrypted;
        let path = path.strip_suffix(".delta").unwrap_or(path);
        let name = TableFile::of(path).map_or_else(|| path.to_owned(), |table| table.to_string());
        self.bad.extend(summary.bad.iter().map(|bad| format!("{name}, {bad}")));
    }

    /// What there is to say of damaged ones.
    fn problem(&self) -> Option<String> {
        let first = self.bad.first()?;
        Some(format!("the source has damaged pages: {first}, and {} more", self.bad.len() - 1))
    }

    /// A warning of damaged ones, if they are allowed.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] where there are any, and they are not.
    pub(crate) fn judge(&self, allowed: bool) -> Result<Option<String>> {
        match self.problem() {
            Some(problem) if !allowed => Err(Error::new(ErrorKind::Source, problem).with_remedy(
                "run CHECK TABLE there and bring the table back from an earlier backup; --allow-bad-pages backs it up \
                 as it is",
            )),
            problem => Ok(problem),
        }
    }

    /// A warning of pages that a server may have been writing just when it ended, or a snapshot was taken.
    /// It mends them out of its doublewrite buffer, if that is in the backup.
    pub(crate) fn perhaps_torn(&self, doublewrite: bool) -> Option<String> {
        self.problem().map(|problem| match doublewrite {
            true => format!(
                "{problem}: a server that starts on the files mends pages that were half written, and no other damage; \
                 prove this backup by a drill"
            ),
            false => format!(
                "{problem}: no server mends them, for the files of the doublewrite buffer are not in the backup; prove \
                 it by a drill"
            ),
        })
    }

    /// For the manifest.
    pub(crate) fn details(&self) -> Value {
        let mut details = serde_json::json!({ "sound_pages": self.sound });
        if self.encrypted > 0 {
            details["encrypted_pages"] = self.encrypted.into();
        }
        if !self.bad.is_empty() {
            details["bad_pages"] = self.bad.clone().into();
        }
        details
    }
}
