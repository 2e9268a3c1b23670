//! The direction of the crates' dependencies, as ARCHITECTURE.md draws it, and other house rules.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Normal and build dependencies between the crates of the workspace.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names: Vec<&str> = packages.iter().map(|p| p["name"].as_str().unwrap()).collect();
    packages
        .iter()
        .map(|package| {
            let inner = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|d| d["kind"].as_str() != Some("dev"))
                .map(|d| d["name"].as_str().unwrap().to_owned())
                .filter(|name| names.contains(&name.as_str()))
                .collect();
            (package["name"].as_str().unwrap().to_owned(), inner)
        })
        .collect()
}

#[test]
fn dependencies_only_point_down() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("backup-core", &[][..]),
        ("backup-drivers", &["backup-core"]),
        ("backup-storage", &["backup-core"]),
        ("backup-verify", &["backup-core", "backup-drivers", "backup-storage"]),
        ("backup-cli", &["backup-core", "backup-drivers", "backup-storage", "backup-verify"]),
        ("backup-ffi", &["backup-core", "backup-drivers", "backup-storage", "backup-verify"]),
        ("holdfast-benches", &["backup-core", "backup-drivers", "backup-storage", "xtask"]),
        ("xtask", &["backup-core", "backup-drivers"]),
    ]);
    let found = dependencies();
    assert_eq!(found.keys().collect::<Vec<_>>(), allowed.keys().collect::<Vec<_>>());
    for (package, inner) in found {
        for dependency in inner {
            assert!(
                allowed[package.as_str()].contains(&dependency.as_str()),
                "{package} must not depend on {dependency}; see ARCHITECTURE.md"
            );
        }
    }
}

fn tracked(pattern: &str) -> Vec<PathBuf> {
    let output =
        Command::new("git").args(["ls-files", "-z", pattern]).current_dir(root()).output().unwrap();
    assert!(output.status.success());
    let names = String::from_utf8(output.stdout).unwrap();
    names.split('\0').filter(|n| !n.is_empty()).map(|n| root().join(n)).collect()
}

#[test]
fn libraries_read_no_environment_and_print_nothing() {
    let mut read = 0;
    for library in ["core", "drivers", "storage", "verify"] {
        for file in tracked(&format!("crates/backup-{library}/src/*.rs")) {
            let text = std::fs::read_to_string(&file).unwrap();
            read += 1;
            for word in ["env::var", "env::home_dir", "println!", "eprintln!", "print!("] {
                let code = text.split("#[cfg(test)]").next().unwrap();
                let hit =
                    code.lines().find(|l| l.contains(word) && !l.trim_start().starts_with("//"));
                assert!(hit.is_none(), "{}: {}", file.display(), hit.unwrap_or_default());
            }
        }
    }
    assert!(read > 20, "only {read} files were found");
}

#[test]
fn unsafe_code_is_nowhere_but_in_the_c_abi() {
    for file in tracked("*.rs") {
        if file.components().any(|c| c.as_os_str() == "backup-ffi") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        // Written so that this line does not find itself.
        let word = ["allow(unsafe", "_code)"].concat();
        assert!(!text.contains(&word), "{}", file.display());
    }
}
