//! A disk that is full at any moment of a backup. Needs the right to mount a tmpfs.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![cfg(target_os = "linux")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::{ErrorKind, Repository};
use backup_storage::{Repo, RepositoryOptions, check_content, check_objects};
use common::{back_up, context, options, restore_all, samples};

/// A file system of its own, of a few MiB.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    const MIB: u64 = 10;

    fn mount() -> SmallDisk {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={}m,mode=700", Self::MIB);
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path());
        let output = mount.output().expect("this test needs mount(8)");
        assert!(
            output.status.success(),
            "this test needs the right to mount a tmpfs; run it as root: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        SmallDisk { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    /// Fills the disk but for `free` bytes.
    fn fill(&self, free: u64) {
        let filler = self.dir.path().join("filler");
        let _ = std::fs::remove_file(&filler);
        let used = used(&self.path());
        let wanted = (Self::MIB << 20).saturating_sub(used + free);
        let data = vec![1; 4096];
        let mut file = std::fs::File::create(&filler).unwrap();
        for _ in 0..wanted / 4096 {
            if std::io::Write::write_all(&mut file, &data).is_err() {
                return;
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The space that files take, in pages as tmpfs counts.
fn used(dir: &Path) -> u64 {
    files(dir).iter().map(|f| std::fs::metadata(f).unwrap().len().next_multiple_of(4096)).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_the_backup_and_nothing_else() {
    let cx = context();
    let disk = SmallDisk::mount();
    let url = disk.path().as_path().into();
    // Without deduplication: the second backup is to need as much room as the first.
    let options = RepositoryOptions { dedup: false, ..options() };
    let repo = Repo::init(&cx, &url, options).await.unwrap();
    let samples = samples();
    let first = back_up(&cx, &repo, &samples).await.unwrap();
    let before = files(&disk.path());

    let (mut done, mut full) = (0, 0);
    // From no room at all to more than enough; fine steps where only the last objects do not fit.
    let needed = first.totals.bytes_stored;
    let coarse = (0..needed + (512 << 10)).step_by(256 << 10);
    let fine = (needed - (16 << 10)..needed + (32 << 10)).step_by(4096);
    for free in coarse.chain(fine) {
        disk.fill(free);
        match back_up(&cx, &repo, &samples).await {
            Ok(manifest) => {
                done += 1;
                restore_all(&cx, &repo, &manifest, &samples).await.unwrap();
                let id = manifest.backup.as_str();
                std::fs::remove_dir_all(disk.path().join("clusters/shop/backups").join(id))
                    .unwrap();
            }
            Err(e) => {
                full += 1;
                assert_eq!(e.kind(), ErrorKind::Space, "{free} bytes free: {e:?}");
            }
        }
        assert_eq!(files(&disk.path()), before, "{free} bytes free: something was left");
        let listed = repo.backups(&cx, None).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].manifest.as_ref().unwrap(), &first);
    }
    assert!(done > 1 && full > 8, "{done} done, {full} did not fit");
    restore_all(&cx, &repo, &first, &samples).await.unwrap();
    for report in [
        check_objects(&cx, &repo, &first).await.unwrap(),
        check_content(&cx, &repo, &first).await.unwrap(),
    ] {
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
}
