//! Which flags of `backup` belong to which way of taking one.

use std::fmt;

use backup_core::{Error, Result, Strategy};

use super::backup::Backup;
use crate::app::App;

/// How a backup is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Rows, over a connection.
    Logical,
    /// A clone over the wire.
    Clone,
    /// By mariadb-backup or xtrabackup.
    Tool,
    /// Files of a stopped server, or of one that is locked.
    Copy,
    /// Files out of a snapshot.
    Snapshot,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Logical => "a logical backup",
            Way::Clone => "a clone",
            Way::Tool => "a backup by mariadb-backup or xtrabackup",
            Way::Copy => "a copy of data files",
            Way::Snapshot => "a snapshot",
        })
    }
}

/// A flag: its name, whether it says something other than its default, and what it is for.
pub(super) type Given = (&'static str, bool, &'static [Way]);

impl Backup {
    /// How this one is taken.
    pub(super) fn way(&self, app: &App) -> Way {
        match self.strategy {
            Strategy::Clone => Way::Clone,
            Strategy::Snapshot => Way::Snapshot,
            Strategy::Physical if self.files.copies(app, self.source.as_deref()) => Way::Copy,
            Strategy::Physical => Way::Tool,
            _ => Way::Logical,
        }
    }

    /// Refuses flags that would do nothing: whoever gave one relies on it.
    pub(super) fn check_flags(&self, way: Way) -> Result<()> {
        let flags = self.given().into_iter().chain(self.files.given());
        let mut flags = flags.chain(self.clone.given()).chain(self.tool.given());
        match flags.find(|(_, given, ways)| *given && !ways.contains(&way)) {
            None => Ok(()),
            Some((flag, _, ways)) => {
                let ways: Vec<String> = ways.iter().map(ToString::to_string).collect();
                Err(Error::usage(format!("{flag} does nothing for {way}"))
                    .with_remedy(format!("leave it out; it is for {}", ways.join(" or "))))
            }
        }
    }
}
