//! What runs in the guest.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::load::{self, Load};
use super::{DIRECTORY, rounds};
use crate::home::{Home, Run};
use crate::server::Server;

/// Says what comes next, for whoever reads the log.
fn step(started: Instant, text: &str) {
    #[expect(clippy::print_stdout, reason = "the log of a guest")]
    {
        println!("{:6.1} s: {text}", started.elapsed().as_secs_f32());
    }
}

/// Runs a command of the guest.
#[track_caller]
fn tool(program: &str, arguments: &[&str]) -> String {
    let run = Run::of(Command::new(program).args(arguments).stdin(Stdio::null()));
    assert_eq!(run.code, Some(0), "{program} {arguments:?}: {run:#?}");
    run.stdout
}

/// Puts the seed of the data directory somewhere.
fn plant(at: &Path) {
    let seed = PathBuf::from(std::env::var_os(DIRECTORY).unwrap()).join("seed");
    tool("cp", &["-a", seed.to_str().unwrap(), at.to_str().unwrap()]);
}

/// Backups of a server, from snapshots.
struct Scene {
    started: Instant,
    home: Home,
    server: Server,
    /// The number of the last transaction before the load.
    first: u64,
    how: Vec<String>,
}

impl Scene {
    async fn new(started: Instant, data: &Path, how: &[&str]) -> Scene {
        let server = load::start(data).await;
        let first = load::make(&server).await;
        let mut all: Vec<String> = ["--strategy", "snapshot", "--source"].map(str::to_owned).into();
        all.push(server.url());
        all.extend(how.iter().map(|&word| word.to_owned()));
        Scene { started, home: Home::with_repo(), server, first, how: all }
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["backup", "--repo", "repo", "--cluster", "bank"];
        all.extend(self.how.iter().map(String::as_str));
        all.extend(more);
        all
    }

    /// Takes a backup, restores it, starts a server on it, and looks at everything.
    async fn whole(&self) {
        let before = Instant::now();
        let document = self.home.run(self.arguments(&["--json"])).expect(0).json();
        let took = before.elapsed().as_secs_f32();
        let locked = &document["lock_seconds"];
        step(self.started, &format!("a backup took {took:.1} s, locked for {locked} s"));
        assert_eq!(document["consistency"]["level"], "exact", "{document:#}");
        let gtid = document["position"]["gtid"].as_str().unwrap_or_default().to_owned();
        let target = self.home.path("target");
        let to = target.to_str().unwrap();
        let restore = ["restore", "--repo", "repo", "--cluster", "bank", "--target-dir", to];
        self.home.run(restore).expect(0);
        load::check(&target, self.first, &gtid).await;
        step(self.started, "restored, and exact");
        std::fs::remove_dir_all(&target).unwrap();
    }

    /// Kills a backup as soon as it says that it begins something.
    fn killed_at(&self, phase: &str) -> bool {
        let arguments = self.arguments(&["--progress", "json"]);
        let mut backup = self.home.command(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let mut killed = false;
        for line in BufReader::new(backup.stderr.take().unwrap()).lines() {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap_or_default();
            if event["event"] == "phase" && event["name"] == phase {
                backup.kill().unwrap();
                killed = true;
            }
        }
        backup.wait().unwrap();
        killed
    }

    /// Kills at every step; then the next run finds and removes what is left.
    async fn kills(&self, leftovers: impl Fn() -> usize) {
        let all = ["lock", "snapshot", "mount", "copying files", "unmount", "remove snapshot"];
        // Each takes as long as a backup here: one tells most.
        let phases = if rounds() == 0 { &all[3..4] } else { &all[..] };
        let mut left = 0;
        for _ in 0..rounds().max(1) {
            for phase in phases {
                assert!(self.killed_at(phase), "no {phase}");
                left += leftovers();
                step(self.started, &format!("killed at {phase}: {} left", leftovers()));
            }
        }
        assert!(left > 0, "no kill left anything: nothing was tried");
        self.home.run(self.arguments(&[])).expect(0);
        assert_eq!(leftovers(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "runs in the guest of another test"]
async fn lvm() {
    let started = Instant::now();
    let step = |text: &str| step(started, text);
    tool("pvcreate", &["/dev/ubda", "/dev/ubdb"]);
    tool("vgcreate", &["data", "/dev/ubda", "/dev/ubdb"]);
    tool("lvcreate", &["-Wn", "-Zn", "-y", "-L", "700M", "-n", "thick", "data"]);
    tool("mke2fs", &["-q", "-t", "ext4", "/dev/data/thick"]);
    std::fs::create_dir("/mnt/thick").unwrap();
    tool("mount", &["-t", "ext4", "/dev/data/thick", "/mnt/thick"]);
    let data = Path::new("/mnt/thick/mysql");
    plant(data);
    step("a thick volume with a server");
    let scene = Scene::new(started, data, &["--snapshot-size", "300M"]).await;
    let busy = Load::begin(&scene.server).await;
    scene.whole().await;
    let leftovers = || {
        let there = tool("lvs", &["--noheadings", "-o", "lv_name", "data"]);
        let mounted = std::fs::read_to_string("/proc/mounts").unwrap();
        there.matches("holdfast-snap-").count() + mounted.matches("/run/holdfast").count()
    };
    assert_eq!(leftovers(), 0);
    scene.kills(leftovers).await;
    busy.end().await;

    step("files on two volumes");
    std::fs::create_dir("/tmp/elsewhere").unwrap();
    std::os::unix::fs::symlink("/tmp/elsewhere", data.join("elsewhere")).unwrap();
    let run = tokio::task::block_in_place(|| scene.home.run(scene.arguments(&[]))).expect(6);
    run.says("several file systems");
    std::fs::remove_file(data.join("elsewhere")).unwrap();

    step("a snapshot that overflows");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = std::thread::spawn({
        let stop = std::sync::Arc::clone(&stop);
        move || {
            // Beside the data directory, on the same volume; it ends by itself.
            for n in 0..2000_u32 {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let file = std::fs::File::create("/mnt/thick/junk").unwrap();
                let content = vec![n.to_le_bytes()[0]; 16 << 20];
                std::os::unix::fs::FileExt::write_all_at(&file, &content, 0).unwrap();
                file.sync_all().unwrap();
            }
        }
    });
    let small = ["--snapshot-size", "4M"];
    let mut arguments = scene.arguments(&small);
    arguments.retain(|word| !["300M"].contains(word));
    let at = arguments.iter().position(|word| *word == "--snapshot-size").unwrap();
    arguments.remove(at);
    let run = tokio::task::block_in_place(|| scene.home.run(arguments));
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().unwrap();
    run.expect(5).says("overflowed");
    assert_eq!(leftovers(), 0);
    let listed = scene.home.run(["list", "--repo", "repo", "--json"]).expect(0).json();
    let listed = listed.as_array().unwrap().len();
    step(&format!("{listed} backups are there"));
    drop(scene);

    step("a thin volume with a server");
    tool("lvcreate", &["-Wn", "-Zn", "-y", "-L", "1000M", "-T", "data/pool"]);
    tool("lvcreate", &["-Wn", "-y", "-V", "800M", "-T", "data/pool", "-n", "thin"]);
    tool("mke2fs", &["-q", "-t", "ext4", "/dev/data/thin"]);
    std::fs::create_dir("/mnt/thin").unwrap();
    tool("mount", &["-t", "ext4", "/dev/data/thin", "/mnt/thin"]);
    let data = Path::new("/mnt/thin/mysql");
    plant(data);
    let scene = Scene::new(started, data, &["--snapshot", "lvm"]).await;
    let busy = Load::begin(&scene.server).await;
    scene.whole().await;
    busy.end().await;
    assert_eq!(leftovers(), 0);
    drop(scene);
    step("done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "runs in the guest of another test"]
async fn btrfs() {
    let started = Instant::now();
    tool("mkfs.btrfs", &["-q", "/dev/ubda"]);
    std::fs::create_dir("/mnt/btrfs").unwrap();
    tool("mount", &["-t", "btrfs", "/dev/ubda", "/mnt/btrfs"]);
    tool("btrfs", &["subvolume", "create", "/mnt/btrfs/data"]);
    let data = Path::new("/mnt/btrfs/data/mysql");
    plant(data);
    let scene = Scene::new(started, data, &[]).await;
    let busy = Load::begin(&scene.server).await;
    scene.whole().await;
    let leftovers = || {
        let there = std::fs::read_dir("/mnt/btrfs").unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        there.map(name).filter(|name| name.to_string_lossy().contains("holdfast-snap-")).count()
    };
    scene.kills(leftovers).await;
    busy.end().await;
    drop(scene);
    step(started, "done");
}
