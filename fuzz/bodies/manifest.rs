//! Manifests: what parses names no object outside of its backup and those that it needs.

use backup_storage::BackupObject;
use backup_storage::format::parse_manifest;
use serde_json::json;

pub fn run(bytes: &[u8]) {
    if let Ok(manifest) = parse_manifest(bytes) {
        for (number, pack) in (0..).zip(&manifest.packs) {
            assert_eq!(pack.name.parse(), Ok(BackupObject::Pack(number)));
        }
        assert_eq!(manifest.index.name, "index");
        for pack in manifest.needs.iter().flat_map(|needed| &needed.packs) {
            assert!(matches!(pack.name.parse(), Ok(BackupObject::Pack(_))));
        }
        let again = serde_json::to_vec(&manifest).expect("a manifest is JSON");
        parse_manifest(&again).expect("what was written can be read");
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let digest = |name: &str| json!({"name": name, "bytes": 100, "sha256": "0".repeat(64)});
    let manifest = json!({
        "format": 1,
        "backup": "20261121T101530Z-incr-7f3a9c",
        "cluster": "shop",
        "strategy": "logical",
        "type": "incremental",
        "parent": "20261120T101530Z-full-7f3a9c",
        "needs": [{"backup": "20261120T101530Z-full-7f3a9c", "packs": [digest("pack-3")]}],
        "started_at": "2026-11-21T10:15:30Z",
        "finished_at": "2026-11-21T10:16:30Z",
        "writer": "holdfast 0.1.0",
        "source": {"flavor": "mysql", "version": "9.7.0", "address": "db:3306", "server_id": 1},
        "position": {"gtid": "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5", "file": "b.1", "offset": 4},
        "consistency": {"level": "exact", "reason": "one snapshot"},
        "lock_seconds": 0.25,
        "rows": 5,
        "totals": {"artifacts": 1, "bytes_read": 2, "bytes_new": 2, "bytes_stored": 3},
        "packs": [digest("pack-0"), digest("pack-1")],
        "index": digest("index"),
    });
    let seed = serde_json::to_vec_pretty(&manifest).expect("JSON");
    parse_manifest(&seed).expect("a good manifest");
    vec![seed]
}
