//! The content of a manifest frame.

use backup_core::{Error, FORMAT, Manifest, ObjectDigest, Result};
use serde::Deserialize;

use super::{newer, unhex};
use crate::key::BackupObject;

/// Reads the JSON of a manifest and checks what the rest of the code relies on: the format, and that
/// the objects are named and numbered as a writer does.
///
/// # Errors
/// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when it is no manifest,
/// [`ErrorKind::Store`](backup_core::ErrorKind::Store) when it is one of a newer format.
pub fn parse_manifest(json: &[u8]) -> Result<Manifest> {
    #[derive(Deserialize)]
    struct Format {
        format: u64,
    }
    let no_json = |e: serde_json::Error| Error::damaged("the manifest is not valid").with_source(e);
    let Format { format } = serde_json::from_slice(json).map_err(no_json)?;
    if format > u64::from(FORMAT) {
        return Err(newer(format!("the manifest has format {format}")));
    }
    let manifest: Manifest = serde_json::from_slice(json).map_err(no_json)?;
    let named = (0..)
        .map(BackupObject::Pack)
        .zip(&manifest.packs)
        .chain([(BackupObject::Index, &manifest.index)])
        .all(|(object, digest)| {
            digest.name == object.to_string() && unhex::<32>(&digest.sha256).is_some()
        });
    if named && needs_are_sound(&manifest) && manifest.format == FORMAT {
        Ok(manifest)
    } else {
        Err(Error::damaged("the manifest names objects that no backup has"))
    }
}

/// Whether what is needed of other backups is named, and sorted, as a writer does it.
fn needs_are_sound(manifest: &Manifest) -> bool {
    let number = |digest: &ObjectDigest| match digest.name.parse() {
        Ok(BackupObject::Pack(n)) if unhex::<32>(&digest.sha256).is_some() => Some(n),
        _ => None,
    };
    manifest.needs.is_sorted_by(|a, b| a.backup < b.backup)
        && manifest.needs.iter().all(|needed| {
            needed.backup != manifest.backup
                && !needed.packs.is_empty()
                && needed.packs.iter().all(|pack| number(pack).is_some())
                && needed.packs.is_sorted_by(|a, b| number(a) < number(b))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::ErrorKind;
    use serde_json::{Value, json};

    fn json() -> Value {
        let digest = |name: &str| json!({"name": name, "bytes": 100, "sha256": "0".repeat(64)});
        json!({
            "format": 1,
            "backup": "20261120T101530Z-full-7f3a9c",
            "cluster": "shop",
            "strategy": "logical",
            "type": "full",
            "started_at": "2026-11-20T10:15:30Z",
            "finished_at": "2026-11-20T10:16:30Z",
            "writer": "holdfast 0.1.0",
            "source": {"flavor": "mysql", "version": "9.7.0", "address": "db:3306", "server_id": 1},
            "position": {"gtid": null, "file": null, "offset": null},
            "consistency": {"level": "exact", "reason": "one snapshot"},
            "lock_seconds": 0.1,
            "rows": 5,
            "totals": {"artifacts": 1, "bytes_read": 2, "bytes_new": 3, "bytes_stored": 4},
            "packs": [digest("pack-0"), digest("pack-1")],
            "index": digest("index"),
            "a key of the future": [],
        })
    }

    #[test]
    fn a_manifest_comes_back() {
        let manifest = parse_manifest(json().to_string().as_bytes()).unwrap();
        assert_eq!(manifest.packs[1].name, "pack-1");
        let again = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(parse_manifest(&again).unwrap(), manifest);
    }

    #[test]
    fn what_no_writer_writes_is_refused() {
        let kind = |change: fn(&mut Value)| {
            let mut bad = json();
            change(&mut bad);
            parse_manifest(bad.to_string().as_bytes()).unwrap_err().kind()
        };
        assert_eq!(kind(|m| m["format"] = json!(2)), ErrorKind::Store);
        assert_eq!(kind(|m| m["format"] = json!(0)), ErrorKind::Damaged);
        assert_eq!(kind(|m| m["packs"][1]["name"] = json!("pack-2")), ErrorKind::Damaged);
        assert_eq!(kind(|m| m["packs"][0]["name"] = json!("../x")), ErrorKind::Damaged);
        assert_eq!(kind(|m| m["index"]["name"] = json!("pack-2")), ErrorKind::Damaged);
        assert_eq!(kind(|m| m["index"]["sha256"] = json!("00")), ErrorKind::Damaged);
        assert_eq!(kind(|m| m["backup"] = json!("x")), ErrorKind::Damaged);
        assert_eq!(parse_manifest(b"").unwrap_err().kind(), ErrorKind::Damaged);
    }
}
