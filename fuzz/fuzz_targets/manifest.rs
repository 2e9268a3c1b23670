//! Manifests: what parses names no object outside of its backup.
#![no_main]

use backup_storage::BackupObject;
use backup_storage::format::parse_manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = parse_manifest(bytes) {
        for (number, pack) in (0..).zip(&manifest.packs) {
            assert_eq!(pack.name.parse(), Ok(BackupObject::Pack(number)));
        }
        assert_eq!(manifest.index.name, "index");
        let again = serde_json::to_vec(&manifest).expect("a manifest is JSON");
        parse_manifest(&again).expect("what was written can be read");
    }
});
