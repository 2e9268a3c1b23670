//! Programs to compare with: those of the PATH, else Debian's packages, unpacked below
//! `target/peers` and never installed.

#[path = "../../../xtask/src/servers/apt.rs"]
mod apt;
#[path = "../../../xtask/src/servers/sources.rs"]
mod sources;

use std::path::{Path, PathBuf};

use backup_core::{Error, Result};

use crate::server::file_error;

/// The suite whose newest package is taken.
const SUITE: &str = "sid";

/// The directory of the PATH that has all of these programs.
pub(super) fn on_path(programs: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|dir| programs.iter().all(|p| dir.join(p).is_file()))
}

/// The tree of a package and the libraries that it needs; it is fetched when it is missing.
pub(super) fn have(package: &str, libraries: &[&str]) -> Result<PathBuf> {
    let root = crate::target_directory().join("peers").join(package);
    if !root.is_dir() {
        fetch(&root, package, libraries)?;
    }
    Ok(root)
}

/// Fetches and unpacks it beside `root`, and moves it there when it is whole.
fn fetch(root: &Path, package: &str, libraries: &[&str]) -> Result<()> {
    let parent = root.parent().unwrap_or(root);
    std::fs::create_dir_all(parent).map_err(file_error(parent))?;
    let work = tempfile::tempdir_in(parent).map_err(file_error(parent))?;
    let mirror = sources::Mirror::of_this_machine();
    let apt = apt::Apt::new(&work.path().join("apt"), &[(mirror.archive, SUITE.to_owned())])?;
    apt.update()?;
    let version = apt.version(package)?;
    eprintln!("fetching {package} {version} from Debian {SUITE}");
    let mut packages = apt.closure(libraries)?;
    packages.insert(package.to_owned());
    let (archives, tree) = (work.path().join("archives"), work.path().join("tree"));
    for dir in [&archives, &tree] {
        std::fs::create_dir(dir).map_err(file_error(dir))?;
    }
    apt.download(&packages, &archives)?;
    for archive in std::fs::read_dir(&archives).map_err(file_error(&archives))? {
        apt::unpack(&archive.map_err(file_error(&archives))?.path(), &tree)?;
    }
    std::fs::rename(&tree, root).map_err(file_error(root))
}

/// The loader of a tree, and the directory of its libraries: the programs in it may need newer ones
/// than this machine has.
pub(super) fn runtime(root: &Path) -> Result<(PathBuf, PathBuf)> {
    let find = || {
        let mut triples =
            std::fs::read_dir(root.join("usr/lib")).ok()?.flatten().map(|entry| entry.path());
        let libraries = triples.find(|dir| dir.join("libc.so.6").exists())?;
        let loader =
            std::fs::read_dir(&libraries).ok()?.flatten().map(|entry| entry.path()).find(|p| {
                let name = p.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("ld") && name.contains(".so.") && !name.starts_with("ldb")
            })?;
        Some((loader, libraries))
    };
    find().ok_or_else(|| {
        Error::usage(format!("{} has no libc", root.display())).with_remedy("remove it")
    })
}
