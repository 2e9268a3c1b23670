//! What the manifest says of a logical backup.

use std::collections::BTreeMap;

use backup_core::{Consistency, ConsistencyLevel, SourceInfo};

use super::backup::SHOWN;
use super::catalog::{Catalog, StoredKind, Table};
use super::damage::Lost;
use super::documents;
use super::dump::Released;
use super::inventory::ServerFacts;
use super::pace::Watcher;
use super::snapshot::Snapshot;
use crate::connect::ConnectOptions;

/// Tables without transactions are of the moment of the others when they were locked before it until
/// they were read.
pub(super) fn consistency(
    catalog: &Catalog,
    snapshot: &Snapshot,
    released: &Released,
) -> Consistency {
    let reason = &snapshot.reason;
    let own_rows = |t: &&Table| !t.transactional && !t.rows_elsewhere && !t.rows_left_out;
    let later: Vec<String> = catalog
        .tables
        .iter()
        .filter(own_rows)
        .filter(|t| {
            let name = t.full_name();
            !snapshot.locked.contains(&name) || released.late.contains(&name)
        })
        .map(|t| format!("{}.{} ({})", t.database, t.name, t.engine))
        .collect();
    if later.is_empty() {
        return Consistency { level: ConsistencyLevel::Exact, reason: reason.clone() };
    }
    let shown = later.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
    let more = later.len().saturating_sub(10);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let why = match (snapshot.locked.is_empty(), released.late.is_empty()) {
        (true, _) => "the account may not lock them",
        (_, false) => "they were not read before --table-lock-timeout was over",
        _ => "they were not there when the others were locked",
    };
    Consistency {
        level: ConsistencyLevel::Transactional,
        reason: format!(
            "{reason}; tables without transactions may be of a later moment, for {why}: \
             {shown}{more}"
        ),
    }
}

/// What only this strategy understands.
pub(super) fn details(
    snapshot: &Snapshot,
    resumed: Option<serde_json::Value>,
    lost: &[Lost],
    no_text: serde_json::Value,
    documents: &[documents::Found<'_>],
    watcher: Option<&Watcher>,
) -> serde_json::Value {
    let mut details = serde_json::Map::new();
    if let Some(watcher) = watcher {
        let seconds = watcher.throttled().as_secs_f64();
        details.insert("throttled_seconds".into(), seconds.into());
    }
    if !snapshot.applied.is_empty() {
        details.insert("applied".into(), serde_json::json!(snapshot.applied));
    }
    if !lost.is_empty() {
        let shown: Vec<&Lost> = lost.iter().take(SHOWN).collect();
        details.insert("lost".into(), serde_json::json!({ "ranges": lost.len(), "first": shown }));
    }
    if no_text.as_array().is_some_and(|found| !found.is_empty()) {
        details.insert("no_text".into(), no_text);
    }
    if !documents.is_empty() {
        let shown = &documents[..documents.len().min(SHOWN)];
        details.insert("documents".into(), serde_json::json!(shown));
    }
    details.extend(resumed.map(|resumed| ("resumed".to_owned(), resumed)));
    match details.is_empty() {
        true => serde_json::Value::Null,
        false => details.into(),
    }
}

pub(super) fn source_info(facts: &ServerFacts, source: &ConnectOptions) -> SourceInfo {
    SourceInfo {
        flavor: facts.flavor,
        version: facts.version_text.clone(),
        address: source.endpoint.to_string(),
        server_uuid: facts.server_uuid.clone(),
        server_id: facts.server_id,
        hostname: facts.hostname.clone(),
    }
}

pub(super) fn objects(catalog: &Catalog) -> BTreeMap<String, u64> {
    let mut objects = BTreeMap::new();
    let mut add = |name: &str, n: usize| {
        if n > 0 {
            objects.insert(name.to_owned(), n as u64);
        }
    };
    add("databases", catalog.databases.len());
    add("tables", catalog.tables.len());
    add("accounts", catalog.accounts.len());
    for (kind, name) in [
        (StoredKind::Sequence, "sequences"),
        (StoredKind::Function, "functions"),
        (StoredKind::Procedure, "procedures"),
        (StoredKind::View, "views"),
        (StoredKind::Trigger, "triggers"),
        (StoredKind::Event, "events"),
    ] {
        add(name, catalog.stored.iter().filter(|o| o.kind == kind).count());
    }
    objects
}
