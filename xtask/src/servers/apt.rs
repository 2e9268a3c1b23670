//! A private apt: its own sources, lists and cache, so that packages of any Debian suite can be
//! fetched without root and without a change to the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result, io_error};

/// The keys that sign Debian's suites.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const ATTEMPTS: u32 = 3;

pub(super) struct Apt {
    config: PathBuf,
}

impl Apt {
    /// Sets apt up in `dir`. `suites` are pairs of a mirror's URI and a suite.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when this machine lacks apt, dpkg or Debian's keys.
    pub(super) fn new(dir: &Path, suites: &[(String, String)]) -> Result<Apt> {
        if !Path::new(KEYRING).is_file() {
            return Err(Error::usage(format!(
                "{KEYRING} is not there to check Debian's signatures"
            ))
            .with_remedy("install the package debian-archive-keyring"));
        }
        let architecture = run(Command::new("dpkg").arg("--print-architecture"))?;
        let architecture = architecture.trim();
        let sources: String = suites
            .iter()
            .map(|(uri, suite)| {
                format!("deb [arch={architecture} signed-by={KEYRING}] {uri} {suite} main\n")
            })
            .collect();
        let place = dir.display();
        // Configuration of the machine is not read, for it may have hooks that clean the caches of
        // the machine; what it says about proxies and checks is kept.
        let mut config = format!(
            "Dir::Etc::main \"/dev/null\";\n\
             Dir::Etc::parts \"/dev/null\";\n\
             Dir::Etc::sourcelist \"{place}/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::preferences \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\n\
             Dir::State \"{place}/state\";\n\
             Dir::State::lists \"{place}/lists\";\n\
             Dir::State::status \"/dev/null\";\n\
             Dir::Cache \"{place}/cache\";\n\
             APT::Architecture \"{architecture}\";\n\
             APT::Architectures {{ \"{architecture}\"; }};\n\
             APT::Sandbox::User \"root\";\n\
             APT::Update::Error-Mode \"any\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::Retries \"3\";\n"
        );
        let kept = ["http", "https", "ForceIP", "Check-", "Max-ValidTime", "Min-ValidTime"];
        for line in run(Command::new("apt-config").arg("dump"))?.lines() {
            let setting = line.strip_prefix("Acquire::").unwrap_or_default();
            if kept.iter().any(|kept| setting.starts_with(kept)) {
                config.push_str(line);
                config.push('\n');
            }
        }
        let write = || {
            for part in ["lists/partial", "cache/archives/partial", "state"] {
                std::fs::create_dir_all(dir.join(part))?;
            }
            std::fs::write(dir.join("sources.list"), &sources)?;
            std::fs::write(dir.join("apt.conf"), &config)
        };
        write().map_err(|e| io_error(e, ErrorKind::Usage, format!("cannot write {place}")))?;
        Ok(Apt { config: dir.join("apt.conf") })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C");
        command
    }

    /// Fetches the lists of packages.
    pub(super) fn update(&self) -> Result<()> {
        retry(|| run(self.command("apt-get").args(["--quiet", "update"])).map(drop))
    }

    /// The version of `package` that would be fetched, without epoch.
    pub(super) fn version(&self, package: &str) -> Result<String> {
        let show = run(self.command("apt-cache").args(["show", "--no-all-versions", package]))?;
        let version = show.lines().find_map(|line| line.strip_prefix("Version: "));
        let version =
            version.ok_or_else(|| Error::internal(format!("{package} has no version")))?;
        Ok(version.split_once(':').map_or(version, |(_, rest)| rest).to_owned())
    }

    /// `packages` and what they need at run time to work in a directory of their own.
    pub(super) fn closure(&self, packages: &[&str]) -> Result<BTreeSet<String>> {
        let depends = run(self
            .command("apt-cache")
            .args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts"])
            .args(["--no-breaks", "--no-replaces", "--no-enhances"])
            .args(packages))?;
        Ok(closure(&depends, packages))
    }

    /// Downloads packages into `dir` and checks them against the signed lists.
    pub(super) fn download(&self, packages: &BTreeSet<String>, dir: &Path) -> Result<()> {
        retry(|| {
            let mut command = self.command("apt-get");
            run(command.args(["--quiet", "download"]).args(packages).current_dir(dir)).map(drop)
        })
    }
}

/// Unpacks a package below `root`.
pub(super) fn unpack(package: &Path, root: &Path) -> Result<()> {
    run(Command::new("dpkg").arg("--extract").args([package, root])).map(drop)
}

/// Whether a relocated program needs a package: it needs its own family and libraries, not the
/// programs that maintainer scripts and helper scripts call.
fn is_needed(package: &str) -> bool {
    let family = [
        "lib",
        "zlib",
        "mysql-",
        "mariadb-",
        "mydumper",
        "python3",
        "lvm2",
        "btrfs-progs",
        "e2fsprogs",
        "xfsprogs",
    ];
    family.iter().any(|prefix| package.starts_with(prefix)) && !package.ends_with("-perl")
}

/// Follows the output of `apt-cache depends --recurse`: names in the first column, and under each
/// `  Depends: name`, ` |Depends: name`, `  PreDepends: name`.
fn closure(depends: &str, packages: &[&str]) -> BTreeSet<String> {
    let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut package = "";
    for line in depends.lines() {
        if line.starts_with([' ', '|']) {
            if let Some((_, name)) = line.split_once("Depends: ") {
                needs.entry(package).or_default().push(name);
            }
        } else {
            package = line;
            needs.entry(package).or_default();
        }
    }
    let mut todo: Vec<&str> = packages.to_vec();
    let mut found = BTreeSet::new();
    while let Some(package) = todo.pop() {
        let Some(more) = needs.get(package) else {
            continue;
        };
        if is_needed(package) && found.insert(package.to_owned()) {
            todo.extend(more);
        }
    }
    found
}

/// The network fails now and then; apt tries each file again itself, this tries the whole again.
fn retry(work: impl Fn() -> Result<()>) -> Result<()> {
    let mut attempt = 1;
    loop {
        match work() {
            Err(e) if e.kind() == ErrorKind::Connect && attempt < ATTEMPTS => {
                std::thread::sleep(Duration::from_secs(1 << attempt));
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// Runs a program to its end and gives what it printed.
fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(std::process::Stdio::null()).output().map_err(|e| {
        io_error(e, ErrorKind::Usage, format!("cannot run {program}"))
            .with_remedy("servers are fetched with apt and dpkg: run this on Debian or Ubuntu")
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = text(&output.stderr);
    let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("W:")).collect();
    // apt says 100 for everything, and the network is what fails in practice.
    let kind = if program == "apt-get" { ErrorKind::Connect } else { ErrorKind::Usage };
    Err(Error::new(kind, format!("{program} failed with {}", output.status))
        .with_source(said.join(" | "))
        .with_remedy("check the network, the proxy and /etc/apt/sources.list, then try again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_followed_and_programs_are_not() {
        let depends = "\
mariadb-server
  PreDepends: procps
 |Depends: libssl3
  Depends: libssl4
  Depends: libdbi-perl
  Depends: mariadb-common
procps
  Depends: libproc2
libssl3
  Depends: zlib1g
zlib1g
libdbi-perl
mariadb-common
  Depends: <mariadb-virtual>
    mysql-common
libproc2
";
        let found: Vec<String> = closure(depends, &["mariadb-server"]).into_iter().collect();
        assert_eq!(found, ["libssl3", "mariadb-common", "mariadb-server", "zlib1g"]);
    }
}
