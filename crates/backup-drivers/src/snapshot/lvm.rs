//! Snapshots of logical volumes, thick and thin.

use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::{Error, ErrorKind, Result, io_error};
use serde::Deserialize;

use super::command::{command, run};
use super::mount::{Mounted, mount_read_only, unmount_all};
use super::volume::{MARK, Volume, mount_point};

/// A thick snapshot without a size of its own gets this part of its origin, in percent.
const SHARE: u32 = 20;

/// A logical volume with a file system on it.
pub(super) struct Lvm {
    group: String,
    volume: String,
    /// The thin pool, where it is a thin volume.
    pool: Option<String>,
    /// `-L` of a thick snapshot, such as `20G`.
    size: Option<String>,
    kind: String,
    /// The data directory, from the root of the file system.
    inside: PathBuf,
}

/// A line of `lvs --reportformat json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    vg_name: String,
    lv_name: String,
    origin: String,
    pool_lv: String,
    segtype: String,
    lv_attr: String,
    data_percent: String,
    metadata_percent: String,
    lv_path: String,
}

#[derive(Deserialize)]
struct Report {
    report: Vec<Lines>,
}

#[derive(Deserialize)]
struct Lines {
    lv: Vec<Line>,
}

const COLUMNS: &str =
    "vg_name,lv_name,origin,pool_lv,segtype,lv_attr,data_percent,metadata_percent,lv_path";

fn lvs(what: &str) -> Result<Vec<Line>> {
    let mut lvs = command("lvs");
    lvs.args(["--reportformat", "json", "--options", COLUMNS, what]);
    let said = run(&mut lvs)?;
    let report: Report = serde_json::from_str(&said).map_err(|e| {
        Error::new(ErrorKind::Source, "`lvs` said something that is no report").with_source(e)
    })?;
    Ok(report.report.into_iter().flat_map(|lines| lines.lv).collect())
}

impl Lvm {
    /// The volume that a data directory is on.
    pub(super) fn find(datadir: &Path, size: Option<String>) -> Result<Self> {
        let mounted = Mounted::of(datadir)?;
        let datadir = datadir.canonicalize().map_err(|e| {
            io_error(e, ErrorKind::Source, format!("cannot find {}", datadir.display()))
        })?;
        let no_volume = |e: Error| {
            e.context(format!("{} is on no logical volume", mounted.device))
                .with_remedy("use --snapshot btrfs or a command pair, or another strategy")
        };
        let lines = lvs(&mounted.device).map_err(no_volume)?;
        let line = lines.into_iter().next().ok_or_else(|| {
            no_volume(Error::new(ErrorKind::Source, "`lvs` knows no such volume"))
        })?;
        let below = datadir.strip_prefix(&mounted.at).unwrap_or(&datadir);
        let root = mounted.root.strip_prefix("/").unwrap_or(&mounted.root);
        Ok(Lvm {
            group: line.vg_name,
            volume: line.lv_name,
            pool: (line.segtype == "thin").then_some(line.pool_lv),
            size,
            kind: mounted.kind,
            inside: root.join(below),
        })
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}/{name}", self.group)
    }

    fn line(&self, name: &str) -> Result<Option<Line>> {
        let lines = lvs(&self.group)?;
        Ok(lines.into_iter().find(|line| line.lv_name == name))
    }

    fn overflow(&self, what: &str) -> Error {
        Error::new(ErrorKind::Space, format!("{what} overflowed: what was copied of it is void"))
            .with_remedy(match self.pool {
                Some(_) => "extend the thin pool (lvextend), or run the backup at a quieter time",
                None => {
                    "give the snapshot more room with --snapshot-size, or run the backup at a \
                         quieter time"
                }
            })
    }
}

impl Volume for Lvm {
    fn describe(&self) -> String {
        let kind = if self.pool.is_some() { "thin" } else { "thick" };
        format!("logical volume {}/{} ({kind}, {})", self.group, self.volume, self.kind)
    }

    fn sweep(&self) -> Result<Vec<String>> {
        let mut gone = Vec::new();
        for line in lvs(&self.group)? {
            if line.lv_name.starts_with(MARK) && line.origin == self.volume {
                self.close(&line.lv_name)?;
                self.remove(&line.lv_name)?;
                gone.push(line.lv_name);
            }
        }
        Ok(gone)
    }

    fn create(&self, name: &str) -> Result<()> {
        let mut create = command("lvcreate");
        create.args(["--yes", "--snapshot", "--name", name]);
        match (&self.pool, &self.size) {
            // Thin snapshots are not activated by themselves otherwise.
            (Some(_), _) => create.args(["--setactivationskip", "n"]),
            (None, Some(size)) => create.args(["--size", size]),
            (None, None) => create.args(["--extents", &format!("{SHARE}%ORIGIN")]),
        };
        run(create.arg(self.full_name(&self.volume))).map(drop)
    }

    fn open(&self, name: &str) -> Result<PathBuf> {
        let line = self
            .line(name)?
            .ok_or_else(|| Error::new(ErrorKind::Source, format!("the snapshot {name} is gone")))?;
        let at = mount_point(name);
        std::fs::create_dir_all(&at)
            .map_err(|e| io_error(e, ErrorKind::Source, format!("cannot make {}", at.display())))?;
        mount_read_only(Path::new(&line.lv_path), &at, &self.kind)?;
        Ok(at.join(&self.inside))
    }

    fn check(&self, name: &str) -> Result<Option<f64>> {
        let line = self
            .line(name)?
            .ok_or_else(|| Error::new(ErrorKind::Source, format!("the snapshot {name} is gone")))?;
        let percent = |text: &str| text.parse::<f64>().unwrap_or(0.0);
        if let Some(pool) = &self.pool {
            let pool_line = self.line(pool)?.unwrap_or_default();
            let full = percent(&pool_line.data_percent).max(percent(&pool_line.metadata_percent));
            // The ninth character tells of a pool that is out of space or failed.
            let health = pool_line.lv_attr.chars().nth(8);
            if full >= 100.0 || matches!(health, Some('F' | 'D' | 'M')) {
                return Err(self.overflow(&format!("the thin pool {}/{pool}", self.group)));
            }
            return Ok(Some(full));
        }
        let full = percent(&line.data_percent);
        // `I` and `S` in the fifth place: an invalid snapshot, active or suspended.
        let invalid = matches!(line.lv_attr.chars().nth(4), Some('I' | 'S'));
        if full >= 100.0 || invalid {
            return Err(self.overflow(&format!("the snapshot {name}")));
        }
        Ok(Some(full))
    }

    fn close(&self, name: &str) -> Result<()> {
        let at = mount_point(name);
        unmount_all(&at)?;
        // Only an empty directory goes.
        let _ = std::fs::remove_dir(&at);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        if self.line(name)?.is_none() {
            return Ok(());
        }
        let mut remove: Command = command("lvremove");
        run(remove.args(["--yes", "--force", &self.full_name(name)])).map(drop)
    }
}
