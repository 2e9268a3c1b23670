//! The servers that tests, benchmarks and demonstrations run on: packages of Debian, unpacked below
//! `target/servers` and never installed. Neither root nor a change to the machine is needed.
//!
//! ```no_run
//! let install = xtask::servers::install("mysql-9.7").unwrap();
//! ```

mod apt;
mod guest;
mod mydumper;
mod python;
mod sources;
mod tree;
mod volumes;

use std::fs::File;
use std::path::{Path, PathBuf};

use backup_core::{Context, Error, ErrorKind, Flavor, Result, io_error};
use backup_drivers::sandbox::{Sandbox, SandboxBuilder, ServerInstall};
use serde::{Deserialize, Serialize};

use apt::Apt;
pub use python::python;
use sources::Mirror;

pub use guest::{Guest, guest};
pub use mydumper::mydumper;
pub use volumes::{VolumeTools, volume_tools};

/// A server that can be had.
#[derive(Debug, PartialEq)]
pub struct Server {
    /// The name that people use, such as `mysql-9.7`.
    pub name: &'static str,
    /// Its family.
    pub flavor: Flavor,
    /// What its version begins with.
    pub version: &'static str,
    /// The suite of Debian that carries it.
    pub suite: &'static str,
    packages: &'static [&'static str],
}

/// All of them.
pub const SERVERS: [Server; 3] = [
    Server {
        name: "mysql-9.7",
        flavor: Flavor::MySql,
        version: "9.7.",
        suite: "sid",
        packages: &["mysql-server-core", "mysql-client-core", "mysql-client"],
    },
    Server {
        name: "mariadb-10.11",
        flavor: Flavor::MariaDb,
        version: "10.11.",
        suite: "bookworm",
        packages: MARIADB,
    },
    Server {
        name: "mariadb-11.8",
        flavor: Flavor::MariaDb,
        version: "11.8.",
        suite: "sid",
        packages: MARIADB,
    },
];

const MARIADB: &[&str] =
    &["mariadb-server-core", "mariadb-server", "mariadb-client", "mariadb-backup"];

/// Written last into an unpacked tree: a tree without it is not whole.
#[derive(Serialize, Deserialize)]
struct Stamp {
    server: String,
    version: String,
    packages: Vec<String>,
}

const STAMP: &str = "holdfast-server.json";
const FETCHING: &str = ".fetch-";

/// The server called `name`: the installation that its environment variable points to, else the
/// fetched one; it is fetched when it is missing. Test processes that ask at the same time wait for
/// the one that fetches.
///
/// # Errors
/// [`ErrorKind::Usage`] for an unknown name or a wrong installation, and those of [`fetch`].
pub fn install(name: &str) -> Result<ServerInstall> {
    let server = Server::named(name)?;
    if let Some(install) = server.present()? {
        return Ok(install);
    }
    fetch(server, false, &Context::builder().build())?;
    server.present()?.ok_or_else(|| Error::internal(format!("{name} was fetched and is not there")))
}

/// A sandbox of the server called `name`, fetched when it is missing, that starts from a copy of a
/// data directory initialised once: some seconds quicker for each test.
///
/// # Errors
/// Those of [`install`], and of the server that prepares the data directory.
pub async fn sandbox(name: &str) -> Result<SandboxBuilder> {
    let install = install(name)?;
    let templates = directory().join(".templates");
    let template = templates.join(format!("{name}-{}", install.version()));
    if !template.is_dir() {
        // Not on this thread, for the future that holds the lock may be waiting to run on it.
        let _lock = tokio::task::spawn_blocking(lock)
            .await
            .map_err(|e| Error::internal("cannot wait for a lock").with_source(e))??;
        if !template.is_dir() {
            std::fs::create_dir_all(&templates).map_err(|e| write_error(e, &templates))?;
            let work = tempfile::tempdir_in(&templates).map_err(|e| write_error(e, &templates))?;
            let data = work.path().join("data");
            let builder = Sandbox::builder(&install).directory(work.path()).datadir(&data);
            let cx = Context::builder().build();
            builder.durable(false).binary_log(false).start(&cx).await?.stop().await?;
            std::fs::rename(&data, &template).map_err(|e| write_error(e, &template))?;
        }
    }
    Ok(Sandbox::builder(&install).template(template))
}

/// Fetches a server, unless it is there already; `again` fetches it in any case.
///
/// # Errors
/// [`ErrorKind::Usage`] when this machine has no apt or the suite carries another version by now,
/// [`ErrorKind::Connect`] when the mirror does not answer, [`ErrorKind::Space`].
pub fn fetch(server: &Server, again: bool, cx: &Context) -> Result<()> {
    let _lock = lock()?;
    if !again && server.is_whole() {
        return Ok(());
    }
    server.fetch_locked(cx).map_err(|e| {
        let remedy = format!(
            "{}; or point {} to an installation of {} {}x",
            e.remedy().trim_end_matches('.'),
            server.variable(),
            server.flavor,
            server.version
        );
        e.context(format!("cannot fetch {} from Debian {}", server.name, server.suite))
            .with_remedy(remedy)
    })
}

impl Server {
    /// Finds it by name.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] that lists the names there are.
    pub fn named(name: &str) -> Result<&'static Server> {
        SERVERS.iter().find(|server| server.name == name).ok_or_else(|| {
            let names: Vec<&str> = SERVERS.iter().map(|server| server.name).collect();
            Error::usage(format!("there is no server called {name}"))
                .with_remedy(format!("name one of {}", names.join(", ")))
        })
    }

    /// The environment variable that names an installation to use instead, such as
    /// `HOLDFAST_MYSQL_9_7`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("HOLDFAST_{}", self.name.to_uppercase().replace(['-', '.'], "_"))
    }

    /// Where it is, or will be after it was fetched.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        std::env::var_os(self.variable()).map_or_else(|| directory().join(self.name), PathBuf::from)
    }

    /// The installation, if it is there.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when the environment variable points to something else.
    pub fn present(&self) -> Result<Option<ServerInstall>> {
        let given = std::env::var_os(self.variable()).is_some();
        if !given && !self.is_whole() {
            return Ok(None);
        }
        let install = ServerInstall::detect(self.directory()).map_err(|e| {
            let remedy = if given {
                format!("point {} to an installation of {}", self.variable(), self.flavor)
            } else {
                format!("run `cargo xtask servers fetch --again {}`", self.name)
            };
            e.context(format!("cannot use {}", self.name)).with_remedy(remedy)
        })?;
        if install.flavor() != self.flavor {
            let message = format!("{} is a {}", self.directory().display(), install.flavor());
            let remedy = format!("set {} to an installation of {}", self.variable(), self.flavor);
            return Err(Error::usage(message).with_remedy(remedy));
        }
        Ok(Some(install))
    }

    fn is_whole(&self) -> bool {
        std::fs::read(directory().join(self.name).join(STAMP))
            .is_ok_and(|text| serde_json::from_slice::<Stamp>(&text).is_ok())
    }

    /// Downloads, unpacks beside the final place, and moves it there.
    fn fetch_locked(&self, cx: &Context) -> Result<()> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |e| write_error(e, &path)
        };
        remove_leftovers();
        let work = tempfile::Builder::new()
            .prefix(FETCHING)
            .tempdir_in(directory())
            .map_err(failed(&directory()))?;
        // The lists of a suite take 100 MB and a second or two: not worth keeping.
        let apt = Apt::new(&work.path().join("apt"), &suites(self.suite))?;
        cx.note(format!("{}: reading the package lists of {}", self.name, self.suite));
        apt.update()?;
        let version = apt.version(self.packages[0])?;
        if !version.starts_with(self.version) {
            return Err(Error::usage(format!("Debian {} carries {version} now", self.suite))
                .with_remedy("fetch it from https://snapshot.debian.org by hand"));
        }
        let packages = apt.closure(self.packages)?;
        cx.note(format!("{}: downloading {version} ({} packages)", self.name, packages.len()));
        let (archives, root) = (work.path().join("archives"), work.path().join("root"));
        for dir in [&archives, &root] {
            std::fs::create_dir(dir).map_err(failed(dir))?;
        }
        apt.download(&packages, &archives)?;
        cx.note(format!("{}: unpacking", self.name));
        let mut unpacked = Vec::new();
        for archive in std::fs::read_dir(&archives).map_err(failed(&archives))? {
            let archive = archive.map_err(failed(&archives))?;
            apt::unpack(&archive.path(), &root)?;
            unpacked.push(archive.file_name().to_string_lossy().replace("%3a", ":"));
        }
        if unpacked.len() != packages.len() {
            let (got, wanted) = (unpacked.len(), packages.len());
            return Err(Error::new(
                ErrorKind::Connect,
                format!("apt-get fetched {got} packages of {wanted}"),
            ));
        }
        // It must run before it counts as fetched.
        ServerInstall::detect(&root)?;
        unpacked.sort();
        let stamp = Stamp { server: self.name.to_owned(), version, packages: unpacked };
        let stamp = serde_json::to_vec_pretty(&stamp)
            .map_err(|e| Error::internal("cannot write the stamp").with_source(e))?;
        std::fs::write(root.join(STAMP), stamp).map_err(failed(&root))?;
        let place = directory().join(self.name);
        if place.exists() {
            // Out of the way by a rename, so that no half-removed tree is ever in the place.
            std::fs::rename(&place, work.path().join("old")).map_err(failed(&place))?;
        }
        std::fs::rename(&root, &place).map_err(failed(&place))
    }
}

/// The parts of a suite, each with the mirror that has it.
fn suites(suite: &str) -> Vec<(String, String)> {
    let mirror = Mirror::of_this_machine();
    let mut suites = vec![(mirror.archive.clone(), suite.to_owned())];
    if suite != "sid" {
        suites.push((mirror.archive, format!("{suite}-updates")));
        suites.extend(mirror.security.map(|uri| (uri, format!("{suite}-security"))));
    }
    suites
}

/// Waits until no other process fetches or prepares a server.
fn lock() -> Result<File> {
    let place = directory();
    let open = || {
        std::fs::create_dir_all(&place)?;
        let file = File::create(place.join(".lock"))?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(|e| write_error(e, &place))
}

fn write_error(error: std::io::Error, path: &Path) -> Error {
    io_error(error, ErrorKind::Usage, format!("cannot write {}", path.display()))
}

/// Removes what a fetch left that was killed. Under the lock there is no other.
fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir(directory()) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(FETCHING) {
            // What cannot be removed only takes space; the fetch itself is not hindered.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// `target/servers` of this workspace.
fn directory() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let workspace = std::fs::canonicalize(&workspace).unwrap_or(workspace);
    workspace.join(target).join("servers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_is_found_by_its_name_and_has_a_variable() {
        for server in &SERVERS {
            assert_eq!(Server::named(server.name).unwrap(), server);
        }
        assert_eq!(SERVERS[0].variable(), "HOLDFAST_MYSQL_9_7");
        let error = Server::named("mysql-1").unwrap_err();
        assert!(error.report().contains("mariadb-10.11"), "{error:?}");
    }
}
