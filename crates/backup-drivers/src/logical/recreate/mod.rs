//! Making the objects of a catalogue again.
//!
//! [`choose`] takes the part of a catalogue that is wanted and gives it the names it is to have;
//! everything after it works on the result and knows nothing of either. [`plan`] says what the
//! target holds already and what it lacks. Then, in this order, with rows loaded where one likes
//! after the tables: [`create_databases`], [`create_invalid_views`], [`create_tables`],
//! [`create_accounts`], [`create_code`], [`create_triggers`], [`create_events`], [`finish_tables`]. Triggers come after the rows, or they would fire; events come last, as they
//! begin to run at once.

mod accounts;
mod choose;
mod code;
mod compat;
mod configured;
mod definers;
mod definitions;
mod empty;
mod encrypted;
mod extras;
mod invalid;
mod lost_grants;
mod merged;
mod outside;
mod passwords;
mod plan;
mod settings;
mod spelling;

pub(super) use accounts::foreseen_accounts;
pub use accounts::{AccountsInWork, create_accounts};
pub use choose::choose;
pub(super) use choose::{of_other_servers, stand_in, without_directories};
pub use code::{create_code, create_events, create_triggers};
pub(super) use configured::configured;
pub(super) use definers::dialect;
pub use definers::{Definers, change_definers, list_definers, missing_definers};
pub(super) use definitions::{LARGEST_IN_MEMORY, foreseen_databases, is_read_only};
pub use definitions::{
    create_before_tables, create_databases, create_table, create_tables, prepare, set_sequences,
};
pub use empty::check_empty;
pub use extras::{adapt, finish_tables};
pub(super) use invalid::{Scene, Stage};
pub use invalid::{create_invalid_views, keep_invalid_views};
pub(super) use lost_grants::{lost_grants, unseen_grants};
pub use outside::sequences;
pub(super) use outside::{outside, unknown_sequence};
pub(super) use passwords::{plain_role, refused_accounts};
pub(super) use plan::lacking;
pub use plan::{Existing, ExistingKind, Plan, drop_existing, plan};
pub use settings::differing_settings;

use backup_core::{Error, ErrorKind, Flavor};

use super::inventory::ServerFacts;

/// An error of a restore: what the server refuses is a matter of the target, and a missing
/// privilege has a remedy.
fn target_error(error: Error, facts: &ServerFacts) -> Error {
    let code = error.server().map(|server| server.code);
    match (code, error.kind()) {
        // Not safe for the binary log, or no SUPER with the binary log on.
        (Some(1418 | 1419), _) => error.with_kind(ErrorKind::Privilege).with_remedy(
            "run SET GLOBAL log_bin_trust_function_creators = 1 at the target for the time of the \
             restore, or restore with an account that has SUPER",
        ),
        (Some(1227), _) => {
            let definer = match facts.flavor {
                Flavor::MySql if facts.version.at_least(8, 2, 0) => {
                    "GRANT SET_ANY_DEFINER, ALLOW_NONEXISTENT_DEFINER, SYSTEM_USER, \
                     SESSION_VARIABLES_ADMIN ON *.*"
                }
                Flavor::MySql => "GRANT SET_USER_ID, SYSTEM_USER, SESSION_VARIABLES_ADMIN ON *.*",
                Flavor::MariaDb => "GRANT SET USER ON *.*",
            };
            error.with_kind(ErrorKind::Privilege).with_remedy(format!(
                "run {definer} TO the account that restores: it creates objects in the name of \
                 their definers"
            ))
        }
        (Some(1298), _) => error.with_kind(ErrorKind::Target).with_remedy(
            "load the time zones at the target: mysql_tzinfo_to_sql /usr/share/zoneinfo | mysql mysql",
        ),
        (_, ErrorKind::Source) => error.with_kind(ErrorKind::Target),
        _ => error,
    }
}
