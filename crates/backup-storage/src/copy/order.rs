//! Which backups go with those that were asked for, and in which order.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{BackupId, ClusterName, Manifest};

/// The chosen backups and all that a restore of them needs before, parents first; backups that
/// others take packs from come before those too. A parent that is not there is left out.
#[must_use]
pub fn in_order(chosen: &[Manifest], known: &[Manifest]) -> Vec<Manifest> {
    let by_id: BTreeMap<(&ClusterName, &BackupId), &Manifest> =
        chosen.iter().chain(known).map(|m| ((&m.cluster, &m.backup), m)).collect();
    let mut wanted: BTreeSet<(&ClusterName, &BackupId)> = BTreeSet::new();
    let mut waiting: Vec<&Manifest> = chosen.iter().collect();
    while let Some(manifest) = waiting.pop() {
        if wanted.insert((&manifest.cluster, &manifest.backup))
            && let Some(parent) = &manifest.parent
        {
            waiting.extend(by_id.get(&(&manifest.cluster, parent)).copied());
        }
    }
    let mut order = Vec::new();
    let mut visited = BTreeSet::new();
    for key in &wanted {
        visit(key, &by_id, &wanted, &mut visited, &mut order);
    }
    order
}

type Name<'a> = (&'a ClusterName, &'a BackupId);

/// Depth first, without recursion: a chain may be as long as it likes.
fn visit<'a>(
    start: &Name<'a>,
    by_id: &BTreeMap<Name<'a>, &'a Manifest>,
    wanted: &BTreeSet<Name<'a>>,
    visited: &mut BTreeSet<Name<'a>>,
    order: &mut Vec<Manifest>,
) {
    let mut stack = vec![(*start, false)];
    while let Some((name, done)) = stack.pop() {
        let Some(manifest) = by_id.get(&name) else { continue };
        if done {
            order.push((*manifest).clone());
            continue;
        }
        if !wanted.contains(&name) || !visited.insert(name) {
            continue;
        }
        stack.push((name, true));
        let before = manifest.parent.iter().chain(manifest.needs.iter().map(|n| &n.backup));
        stack.extend(before.map(|id| ((&manifest.cluster, id), false)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest(id: &str, parent: Option<&str>, needs: &[&str]) -> Manifest {
        let full = |id: &str| format!("20261120T101530Z-full-00000{id}");
        let digest = |name: &str| json!({"name": name, "bytes": 1, "sha256": "0".repeat(64)});
        serde_json::from_value(json!({
            "format": 1, "backup": full(id), "cluster": "shop", "strategy": "logical",
            "type": "full", "parent": parent.map(full),
            "needs": needs.iter().map(|n| json!({"backup": full(n), "packs": []})).collect::<Vec<_>>(),
            "started_at": "2026-11-20T10:15:30Z", "finished_at": "2026-11-20T10:16:30Z",
            "writer": "t",
            "source": {"flavor": "mysql", "version": "9.7.0", "address": "d", "server_id": 1},
            "position": {"gtid": null, "file": null, "offset": null},
            "consistency": {"level": "exact", "reason": "r"}, "lock_seconds": 0.0, "rows": null,
            "totals": {"artifacts": 0, "bytes_read": 0, "bytes_new": 0, "bytes_stored": 0},
            "packs": [], "index": digest("index"),
        }))
        .unwrap()
    }

    fn ids(order: &[Manifest]) -> Vec<&str> {
        order.iter().map(|m| &m.backup.as_str()[27..]).collect()
    }

    #[test]
    fn ancestors_come_along_and_come_first() {
        // Ids that sort against the order of the chain: a clock was set back.
        let known = [
            manifest("a", Some("b"), &["c"]),
            manifest("b", Some("c"), &[]),
            manifest("c", None, &[]),
        ];
        assert_eq!(ids(&in_order(&known[..1], &known)), ["c", "b", "a"]);
        assert_eq!(ids(&in_order(&known[1..2], &known)), ["c", "b"]);
        assert_eq!(ids(&in_order(&known, &known)), ["c", "b", "a"]);
    }

    #[test]
    fn what_is_only_needed_for_packs_is_not_dragged_along() {
        let known = [manifest("b", None, &["a"]), manifest("a", None, &[])];
        assert_eq!(ids(&in_order(&known[..1], &known)), ["b"]);
        assert_eq!(ids(&in_order(&known, &known)), ["a", "b"]);
    }

    #[test]
    fn loops_and_gaps_end() {
        let known = [manifest("a", Some("b"), &["a"]), manifest("b", Some("a"), &[])];
        assert_eq!(in_order(&known[..1], &known).len(), 2);
        let known = [manifest("a", Some("f"), &["e"])];
        assert_eq!(ids(&in_order(&known, &known)), ["a"]);
    }
}
