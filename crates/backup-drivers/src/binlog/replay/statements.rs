//! Whether the account may run the statements of a route over a client connection, told before the first of them
//! is run: in whose name code is made, what else definitions need, what their sessions have to be set to.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Context, Error, ErrorKind, Flavor, Result, SegmentStore};

use super::super::route::Route;
use super::demands::Demands;
use super::direct::needs_no_setting;
use super::executed::When;
use super::target::Target;
use crate::connect::Session;
use crate::logical::inventory::{Need, Privilege, lacking_each};
use crate::logical::{AccountName, Place};

/// Fails where the target would refuse one of them.
pub(super) async fn check(
    cx: &Context,
    target: &mut Target,
    store: &dyn SegmentStore,
    route: &Route,
    when: When,
) -> Result<()> {
    let demands = match route.demands.get() {
        Some(demands) => demands,
        None => {
            cx.note("the binlogs are looked through for what their statements need");
            let found = Demands::of(cx, store, route).await?;
            route.demands.get_or_init(|| found)
        }
    };
    let mut problems = privileges(target, demands).await?;
    problems.extend(definers(target, demands, when).await?);
    problems.extend(code(target, demands).await?);
    problems.extend(settings(target, demands).await?);
    problems.extend(loads(target, demands).await?);
    problems.extend(events(target, demands).await?);
    refuse(target, &problems)
}

/// Something that the target would refuse.
struct Problem {
    kind: ErrorKind,
    what: String,
    remedy: String,
}

fn refuse(target: &Target, problems: &[Problem]) -> Result<()> {
    let Some(first) = problems.first() else { return Ok(()) };
    let mut said = BTreeSet::new();
    let whats: Vec<&str> = problems.iter().map(|problem| problem.what.as_str()).collect();
    let remedies: Vec<&str> = problems
        .iter()
        .map(|problem| problem.remedy.as_str())
        .filter(|remedy| said.insert(*remedy))
        .collect();
    Err(Error::new(
        first.kind,
        format!(
            "{}: statements of the binlogs would fail over a client connection, and none is run: {}",
            target.options,
            whats.join("; ")
        ),
    )
    .with_remedy(format!(
        "run {}; or let the target apply them as a replica (--apply replica), which needs none of it",
        remedies.join("; ")
    )))
}

/// What the account lacks of these needs, with why each is one.
async fn lacks(target: &mut Target, needs: Vec<(Need, String)>) -> Result<Vec<Problem>> {
    let (needs, whys): (Vec<Need>, Vec<String>) = needs.into_iter().unzip();
    let facts = target.facts.clone();
    let lacking = lacking_each(target.session.conn(), &facts, &needs).await?;
    let problem = |(privilege, why): (Option<Privilege>, String)| {
        let privilege = privilege?;
        Some(Problem {
            kind: ErrorKind::Privilege,
            what: format!("the account lacks {} ({why})", privilege.name),
            remedy: privilege.grant,
        })
    };
    Ok(lacking.into_iter().zip(whys).filter_map(problem).collect())
}

/// What definitions and changes need. What a table lacks is granted for its database: the table may not be there yet,
/// and then nobody can be granted anything on it.
async fn privileges(target: &mut Target, demands: &Demands) -> Result<Vec<Problem>> {
    let need = |(name, place): &(&'static str, Place), wide: bool| match place {
        Place::Server => Need::global(&[name]),
        Place::Database(database) => Need::on(database, &[name]),
        Place::Table(table) if wide => Need::on(&table.database, &[name]),
        Place::Table(table) => Need::of_table(table.clone(), &[name]),
    };
    let (facts, wanted) = (target.facts.clone(), &demands.privileges);
    let exact: Vec<Need> = wanted.keys().map(|what| need(what, false)).collect();
    let exact = lacking_each(target.session.conn(), &facts, &exact).await?;
    let wide: Vec<Need> = wanted.keys().map(|what| need(what, true)).collect();
    let wide = lacking_each(target.session.conn(), &facts, &wide).await?;
    // One grant for each place.
    let mut places: BTreeMap<String, (Vec<String>, String, &String)> = BTreeMap::new();
    for ((exact, wide), first) in exact.into_iter().zip(wide).zip(wanted.values()) {
        let (Some(_), Some(Privilege { name, grant })) = (exact, wide) else { continue };
        let to = grant.strip_prefix("GRANT ").and_then(|grant| grant.strip_prefix(&name));
        let (Some(to), Some((name, place))) = (to, name.split_once(" ON ")) else { continue };
        let (names, ..) =
            places.entry(place.to_owned()).or_insert_with(|| (Vec::new(), to.to_owned(), first));
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    let problem = |(place, (names, to, first)): (String, (Vec<String>, String, &String))| {
        let name = format!("{} ON {place}", names.join(", "));
        Problem {
            kind: ErrorKind::Privilege,
            what: format!("the account lacks {name} ({first})"),
            remedy: format!("GRANT {name}{to}"),
        }
    };
    Ok(places.into_iter().map(problem).collect())
}

/// To make code that runs in the name of others.
async fn definers(target: &mut Target, demands: &Demands, when: When) -> Result<Vec<Problem>> {
    let ourselves = ourselves(target).await?;
    let others: Vec<(&AccountName, &String)> =
        demands.definers.iter().filter(|(name, _)| !ourselves.contains(name)).collect();
    let Some((name, first)) = others.first() else { return Ok(Vec::new()) };
    let why = format!("code in the name of {name}, in {first}");
    let facts = target.facts.clone();
    let modern = facts.flavor == Flavor::MySql && facts.version.at_least(8, 2, 0);
    let mut needs = vec![(
        match facts.flavor {
            Flavor::MySql if modern => Need::global(&["SET_ANY_DEFINER"]),
            Flavor::MySql => Need::global(&["SET_USER_ID", "SUPER"]),
            Flavor::MariaDb => Need::or_super(&facts, &["SET USER", "SUPER"]),
        },
        why,
    )];
    if facts.flavor == Flavor::MariaDb {
        return lacks(target, needs).await;
    }
    // Who may not see the accounts is told by the server in its time.
    let mighty = accounts(target, "mysql.global_grants WHERE PRIV = 'SYSTEM_USER'").await?;
    if let Some((name, first)) =
        others.iter().find(|(name, _)| mighty.as_ref().is_some_and(|all| all.contains(name)))
    {
        let why = format!("code in the name of {name}, who has it, in {first}");
        needs.push((Need::global(&["SYSTEM_USER"]), why));
    }
    // Those of a backup are not there before it is restored.
    if modern
        && when != When::BeforeRestore
        && let Some(there) = accounts(target, "mysql.user").await?
        && let Some((name, first)) = others
            .iter()
            .find(|(name, _)| !there.contains(name) && !demands.accounts.contains(name))
    {
        let why = format!("code in the name of {name}, who is not there, in {first}");
        needs.push((Need::global(&["ALLOW_NONEXISTENT_DEFINER"]), why));
    }
    lacks(target, needs).await
}

/// The account that is signed in, and on MariaDB its role.
async fn ourselves(target: &mut Target) -> Result<BTreeSet<AccountName>> {
    let user = target.value("SELECT CURRENT_USER()").await?;
    let (user, host) = user.rsplit_once('@').unwrap_or((&user, ""));
    let mut all = BTreeSet::from([AccountName { user: user.into(), host: host.into() }]);
    if !target.mysql() {
        let role = target.value("SELECT CURRENT_ROLE()").await?;
        all.insert(AccountName { user: role, host: String::new() });
    }
    Ok(all)
}

/// Accounts of a MySQL out of a table of its own; `None` where it may not be read.
async fn accounts(target: &mut Target, from: &str) -> Result<Option<BTreeSet<AccountName>>> {
    let sql = format!("SELECT USER, HOST FROM {from}");
    match target.session.query_rows::<(String, String)>(&sql).await {
        Ok(rows) => {
            Ok(Some(rows.into_iter().map(|(user, host)| AccountName { user, host }).collect()))
        }
        Err(e) if e.server().is_some() => Ok(None),
        Err(e) => Err(e),
    }
}

/// Functions and triggers: a server with a binary log takes them from few, unless it is set to trust, as it is for the
/// time of the replay where the account may.
async fn code(target: &mut Target, demands: &Demands) -> Result<Vec<Problem>> {
    let Some(first) = demands.code.values().next() else { return Ok(Vec::new()) };
    let set = "SELECT @@GLOBAL.log_bin AND NOT @@GLOBAL.log_bin_trust_function_creators";
    if target.value(set).await? != "1" {
        return Ok(Vec::new());
    }
    let need = match target.facts.flavor {
        Flavor::MySql => Need::global(&["SYSTEM_VARIABLES_ADMIN", "SUPER"]),
        Flavor::MariaDb => Need::or_super(&target.facts, &["BINLOG ADMIN", "SUPER"]),
    };
    let why = format!("functions and triggers at a server with a binary log, {first}");
    let remedy = "SET GLOBAL log_bin_trust_function_creators = 1 at the target";
    lacks_or(target, need, why, remedy).await
}

/// What the account lacks, where something else helps too.
async fn lacks_or(
    target: &mut Target,
    need: Need,
    why: String,
    remedy: &str,
) -> Result<Vec<Problem>> {
    let mut problems = lacks(target, vec![(need, why)]).await?;
    for problem in &mut problems {
        problem.remedy = format!("{remedy}, or {}", problem.remedy);
    }
    Ok(problems)
}

/// What sessions have to be set to: the target is asked, in a session that nothing else is done in. What a session
/// is already nobody has to set.
async fn settings(target: &Target, demands: &Demands) -> Result<Vec<Problem>> {
    let mut session = Session::open(&target.options).await?;
    let mut problems = Vec::new();
    for (setting, first) in &demands.settings {
        let (name, value) = setting.split_once(" = ").unwrap_or_default();
        // MariaDB knows collations by large numbers, and character sets not: those are looked up.
        let is_collation = value.parse::<u32>().is_ok_and(|id| id > 255);
        if name == "character_set_client" && is_collation {
            continue;
        }
        // So are these.
        if name == "character_set_collations" && value != "''" {
            continue;
        }
        let Err(e) = session.run(&format!("SET SESSION {setting}")).await else { continue };
        if e.server().is_none() {
            return Err(e);
        }
        if needs_no_setting(setting, &e) {
            continue;
        }
        let now = match session.query_first(&format!("SELECT @@{name}")).await {
            Err(unknown) if unknown.server().is_some() => None,
            other => other?,
        };
        let now =
            now.and_then(|row: mysql_async::Row| row.get_opt::<Option<String>, _>(0)?.ok()?);
        if value == "DEFAULT" || now.as_deref() == Some(value) {
            continue;
        }
        problems.push(match e.kind() {
            ErrorKind::Privilege => Problem {
                kind: ErrorKind::Privilege,
                what: format!(
                    "the account may not set {name} of its session to {value} ({first}; it is {})",
                    now.as_deref().unwrap_or("NULL")
                ),
                remedy: match target.mysql() {
                    true => "GRANT SESSION_VARIABLES_ADMIN ON *.* TO the account".to_owned(),
                    false => "GRANT BINLOG REPLAY ON *.* TO the account".to_owned(),
                },
            },
            _ => Problem {
                kind: ErrorKind::Target,
                what: format!("{} ({first})", e.chain()),
                remedy: format!("what lets a session there have {setting}"),
            },
        });
    }
    session.close().await?;
    Ok(problems)
}

/// Files that statements load go to the server over the connection, which it is set to take where the account may.
async fn loads(target: &mut Target, demands: &Demands) -> Result<Vec<Problem>> {
    let Some(first) = &demands.loads else { return Ok(Vec::new()) };
    if target.value("SELECT @@GLOBAL.local_infile").await? == "1" {
        return Ok(Vec::new());
    }
    let need = match target.facts.flavor {
        Flavor::MySql => Need::global(&["SYSTEM_VARIABLES_ADMIN", "SUPER"]),
        Flavor::MariaDb => Need::global(&["SUPER"]),
    };
    let why = format!("LOAD DATA as a statement, {first}, and local_infile is OFF");
    lacks_or(target, need, why, "SET GLOBAL local_infile = ON at the target").await
}

/// Events that the statements switch on would run in the middle of them, unless the server runs none, as it does for the
/// time of the replay where the account may.
async fn events(target: &mut Target, demands: &Demands) -> Result<Vec<Problem>> {
    let Some(first) = &demands.events else { return Ok(Vec::new()) };
    if target.value("SELECT @@GLOBAL.event_scheduler").await? != "ON" {
        return Ok(Vec::new());
    }
    let need = match target.facts.flavor {
        Flavor::MySql => Need::global(&["SYSTEM_VARIABLES_ADMIN", "SUPER"]),
        Flavor::MariaDb => Need::global(&["SUPER"]),
    };
    let why = format!("events that would run before everything is applied, {first}");
    lacks_or(target, need, why, "SET GLOBAL event_scheduler = OFF at the target").await
}
