//! Whether a target is in a state for a replay, before anything is changed there.

use backup_core::{Error, ErrorKind, Flavor, GtidSet, Result};

use super::super::route::Route;
use super::options::Means;
use super::replica::Replica;
use super::target::Target;

/// Refuses a target that a replay would harm. Removes what a replay left that was killed. A `private`
/// server has filters that are meant.
pub(super) async fn check(
    target: &mut Target,
    route: &Route,
    private: bool,
    means: Means,
) -> Result<()> {
    // Who may not ask is no replica of ours.
    let may_not = |e: &Error| e.kind() == ErrorKind::Privilege && means != Means::Replica;
    match Replica::remove_leftover(target).await {
        Err(e) if may_not(&e) => {}
        other => other?,
    }
    let channels = match target.channels().await {
        Err(e) if may_not(&e) => Vec::new(),
        other => other?,
    };
    if !channels.is_empty() {
        return Err(target.refuse(
            "it is a replica of another server",
            "stop it and remove that with RESET REPLICA ALL, or choose another target",
        ));
    }
    // Over a client connection it need not be off for what has no GTIDs.
    if target.mysql() && (means != Means::Direct || route.applied.is_some()) {
        check_gtid_mode(target, route).await?;
    }
    if means == Means::Direct {
        return Ok(());
    }
    if private { Ok(()) } else { check_filters(target).await }
}

/// Fails where the target is of the other family than what is to be applied.
pub(super) fn family(target: &Target, route: &Route) -> Result<()> {
    let family = route.files.first().map(|file| match file.format.is_mariadb() {
        true => Flavor::MariaDb,
        false => Flavor::MySql,
    });
    let family = family.or_else(|| route.applied.as_ref().and_then(GtidSet::flavor));
    if let Some(family) = family.filter(|family| *family != target.facts.flavor) {
        return Err(other_family(target, family));
    }
    Ok(())
}

/// The target is of the other family than the binlogs.
pub(super) fn other_family(target: &Target, family: Flavor) -> Error {
    target.refuse(
        format!(
            "it is a {} {}, and the archived binlogs are of a {family}: the binlogs of one are not for the \
             other",
            target.facts.flavor, target.facts.version_text
        ),
        format!(
            "choose a {family} as the target; or restore a backup without a point in time, which goes \
             between the two; or single tables to a point (--tables), which are brought there privately"
        ),
    )
}

async fn check_gtid_mode(target: &mut Target, route: &Route) -> Result<()> {
    let mode = target.value("SELECT @@GLOBAL.gtid_mode").await?;
    match (&route.applied, mode.as_str()) {
        (Some(_), "ON") => Ok(()),
        (Some(_), _) => Err(target.refuse(
            format!("its gtid_mode is {mode}, and the transactions have GTIDs"),
            "set gtid_mode to ON and enforce_gtid_consistency to ON at the target",
        )),
        (None, "ON" | "ON_PERMISSIVE") => Err(target.refuse(
            format!("its gtid_mode is {mode}, and the transactions have no GTIDs"),
            "set gtid_mode to OFF at the target for the restore",
        )),
        (None, _) => Ok(()),
    }
}

async fn check_filters(target: &mut Target) -> Result<()> {
    if target.mysql() {
        let sql = "SELECT COUNT(*) FROM performance_schema.replication_applier_global_filters";
        if target.value(sql).await? != "0" {
            return Err(target.refuse(
                "it has replication filters, which would leave transactions out",
                "remove them with CHANGE REPLICATION FILTER",
            ));
        }
        return Ok(());
    }
    let sql = "SHOW GLOBAL VARIABLES WHERE Value <> '' AND Variable_name IN \
               ('replicate_do_db', 'replicate_do_table', 'replicate_ignore_db', \
                'replicate_ignore_table', 'replicate_wild_do_table', \
                'replicate_wild_ignore_table', 'replicate_rewrite_db')";
    let filters: Vec<(String, String)> = target.session.query_rows(sql).await?;
    match filters.first() {
        None => Ok(()),
        Some((name, value)) => Err(target.refuse(
            format!("its replication filter {name} = {value} would leave transactions out"),
            "set it to an empty value for the restore",
        )),
    }
}
