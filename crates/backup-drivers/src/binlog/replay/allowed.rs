//! By which means the account at the target may apply binlogs, asked before anything is changed there.

use backup_core::{Context, Error, ErrorKind, Flavor, Result, SegmentStore};

use super::super::route::Route;
use super::executed::When;
use super::options::{ApplyOptions, Means};
use super::statements;
use super::target::Target;
use crate::logical::inventory::{Need, Privilege, ServerFacts, lacking};

/// Fails where the account may apply the route by none of the means that are allowed. Gives what it lacks to
/// be a replica, where everything goes over a client connection for that reason.
pub(super) async fn check(
    cx: &Context,
    target: &mut Target,
    store: &dyn SegmentStore,
    route: &Route,
    options: &ApplyOptions,
    when: When,
) -> Result<Option<String>> {
    if route.is_empty() {
        return Ok(None);
    }
    let facts = target.facts.clone();
    let conn = target.session.conn();
    let replica = lacking(conn, &facts, &replica_needs(&facts)).await?;
    let direct = direct_needs(target, route, when).await?;
    let direct = lacking(target.session.conn(), &facts, &direct).await?;
    let lacks = match options.means {
        Means::Replica if !replica.is_empty() => {
            return Err(refuse(target, "replicate from here", &[&replica]));
        }
        Means::Direct if !direct.is_empty() => {
            return Err(refuse(target, "apply binlogs over a client connection", &[&direct]));
        }
        Means::Auto if !replica.is_empty() && !direct.is_empty() => {
            return Err(refuse(
                target,
                "replicate from here, nor apply binlogs over a client connection",
                &[&replica, &direct],
            ));
        }
        Means::Auto if !replica.is_empty() => Some(names(&replica)),
        Means::Auto | Means::Replica | Means::Direct => None,
    };
    if lacks.is_some() || options.means == Means::Direct {
        statements::check(cx, target, store, route, when).await?;
    }
    Ok(lacks)
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
fn replica_needs(facts: &ServerFacts) -> Vec<Need> {
    match facts.flavor {
        Flavor::MySql => vec![
            Need::global(&["REPLICATION_SLAVE_ADMIN", "SUPER"]),
            Need::global(&["REPLICATION CLIENT", "SUPER"]),
            Need::global(&["RELOAD"]),
            Need::global(&["SYSTEM_VARIABLES_ADMIN", "SUPER"]),
            Need::on("performance_schema", &["SELECT"]),
        ],
        Flavor::MariaDb => vec![
            Need::or_super(facts, &["REPLICATION SLAVE ADMIN", "SUPER"]),
            Need::or_super(facts, &["SLAVE MONITOR", "REPLICA MONITOR", "SUPER"]),
            Need::global(&["RELOAD"]),
            Need::or_super(facts, &["REPLICATION MASTER ADMIN", "SUPER"]),
        ],
    }
}

/// To choose GTIDs and to run BINLOG statements, and to write down what was applied where the server does not
/// count it.
async fn direct_needs(target: &mut Target, route: &Route, when: When) -> Result<Vec<Need>> {
    let facts = target.facts.clone();
    let (mut needs, counts) = match facts.flavor {
        Flavor::MySql => {
            let needs = vec![
                Need::global(&["REPLICATION_APPLIER", "BINLOG_ADMIN", "SUPER"]),
                Need::global(&[
                    "REPLICATION_APPLIER",
                    "SESSION_VARIABLES_ADMIN",
                    "SYSTEM_VARIABLES_ADMIN",
                    "SUPER",
                ]),
            ];
            let tell = [Need::global(&["SYSTEM_VARIABLES_ADMIN", "SUPER"])];
            let restored = when != When::GoingOn;
            let counts = match &route.applied {
                None => false,
                Some(applied) if restored && !applied.is_empty() => {
                    lacking(target.session.conn(), &facts, &tell).await?.is_empty()
                }
                Some(_) => true,
            };
            (needs, counts)
        }
        Flavor::MariaDb => (vec![Need::or_super(&facts, &["BINLOG REPLAY", "SUPER"])], false),
    };
    if !counts {
        let mark = ["CREATE", "SELECT", "INSERT", "UPDATE", "DELETE", "DROP"];
        needs.extend(mark.into_iter().map(|p| Need::on("holdfast_replay", &[p])));
    }
    Ok(needs)
}
