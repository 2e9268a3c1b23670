//! By which means the account at the target may apply binlogs, asked before anything is changed there.

use backup_core::{Error, ErrorKind, Flavor, Result};

use super::super::route::Route;
use super::apply::{ApplyOptions, Means};
use super::target::Target;
use crate::logical::inventory::{Need, Privilege, lacking};

/// Fails where the account may apply the route by none of the means that are allowed. Gives what it lacks to
/// be a replica, where everything goes over a client connection for that reason.
pub(super) async fn check(
    target: &mut Target,
    route: &Route,
    options: &ApplyOptions,
) -> Result<Option<String>> {
    if route.is_empty() {
        return Ok(None);
    }
    let facts = target.facts.clone();
    let conn = target.session.conn();
    let replica = lacking(conn, &facts, &replica_needs(target.facts.flavor)).await?;
    let conn = target.session.conn();
    let direct = lacking(conn, &facts, &direct_needs(target.facts.flavor)).await?;
    match options.means {
        Means::Replica if !replica.is_empty() => {
            Err(refuse(target, "replicate from here", &[&replica]))
        }
        Means::Direct if !direct.is_empty() => {
            Err(refuse(target, "apply binlogs over a client connection", &[&direct]))
        }
        Means::Auto if !replica.is_empty() && !direct.is_empty() => Err(refuse(
            target,
            "replicate from here, nor apply binlogs over a client connection",
            &[&replica, &direct],
        )),
        Means::Auto if !replica.is_empty() => Ok(Some(names(&replica))),
        Means::Auto | Means::Replica | Means::Direct => Ok(None),
    }
}

fn names(missing: &[Privilege]) -> String {
    missing.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// `ways`: what is lacking for each of the ways, the quicker one first.
fn refuse(target: &Target, what: &str, ways: &[&[Privilege]]) -> Error {
    let lacks: Vec<String> = ways.iter().map(|missing| names(missing)).collect();
    let grants: Vec<String> = ways
        .iter()
        .map(|missing| missing.iter().map(|p| p.grant.as_str()).collect::<Vec<_>>().join("; "))
        .collect();
    Error::new(
        ErrorKind::Privilege,
        format!("{}: the account may not {what}: it lacks {}", target.options, lacks.join(", or ")),
    )
    .with_remedy(format!("run {}", grants.join("; or, for the slower way, ")))
}

/// To be told to replicate, watched, and rid of it, under a `server_id` that nobody has.
fn replica_needs(flavor: Flavor) -> Vec<Need> {
    match flavor {
        Flavor::MySql => vec![
            Need::global(&["REPLICATION_SLAVE_ADMIN", "SUPER"]),
            Need::global(&["REPLICATION CLIENT", "SUPER"]),
            Need::global(&["RELOAD"]),
            Need::global(&["SYSTEM_VARIABLES_ADMIN", "SUPER"]),
            Need::on("performance_schema", &["SELECT"]),
        ],
        Flavor::MariaDb => vec![
            Need::global(&["REPLICATION SLAVE ADMIN", "SUPER"]),
            Need::global(&["SLAVE MONITOR", "REPLICA MONITOR", "SUPER"]),
            Need::global(&["RELOAD"]),
            Need::global(&["REPLICATION MASTER ADMIN", "SUPER"]),
        ],
    }
}

/// To choose GTIDs and to run BINLOG statements.
fn direct_needs(flavor: Flavor) -> Vec<Need> {
    match flavor {
        Flavor::MySql => vec![
            Need::global(&["REPLICATION_APPLIER", "BINLOG_ADMIN", "SUPER"]),
            Need::global(&[
                "REPLICATION_APPLIER",
                "SESSION_VARIABLES_ADMIN",
                "SYSTEM_VARIABLES_ADMIN",
                "SUPER",
            ]),
        ],
        Flavor::MariaDb => vec![Need::global(&["BINLOG REPLAY", "SUPER"])],
    }
}
