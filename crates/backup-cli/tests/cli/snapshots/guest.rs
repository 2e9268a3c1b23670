//! What runs in the guest.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Writes over a file beside the data directory again and again, in its place; it ends by itself, too.
struct Overwrite {
    stop: Arc<AtomicBool>,
    writer: std::thread::JoinHandle<()>,
}

impl Overwrite {
    /// Begins once the file is there, with that many pieces of 16 MiB.
    fn begin(path: &Path, pieces: u64) -> Overwrite {
        let open = std::fs::File::options().create(true).truncate(false).write(true).open(path);
        let file = open.unwrap();
        let write = move |n: u64| {
            let content = vec![n.to_le_bytes()[0]; 16 << 20];
            file.write_all_at(&content, (n % pieces) << 24).and_then(|()| file.sync_all())
        };
        (0..pieces).for_each(|n| write(n).unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let writer = std::thread::spawn(move || {
            // A volume that is full fails; that is for the backup to find.
            let _ =
                (pieces..4000).take_while(|_| !stopped.load(Ordering::Relaxed)).try_for_each(write);
        });
        Overwrite { stop, writer }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.writer.join().unwrap();
    }
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

/// Snapshots of the group `data`, and mounts of them.
fn leftovers() -> usize {
    let there = tool("lvs", &["--noheadings", "-o", "lv_name", "data"]);
    let mounted = std::fs::read_to_string("/proc/mounts").unwrap();
    there.matches("holdfast-snap-").count() + mounted.matches("/run/holdfast").count()
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
    let writer = Overwrite::begin(Path::new("/mnt/thick/junk"), 1);
    let mut arguments = scene.arguments(&["--snapshot-size", "4M"]);
    arguments.retain(|word| *word != "300M");
    let at = arguments.iter().position(|word| *word == "--snapshot-size").unwrap();
    arguments.remove(at);
    let run = tokio::task::block_in_place(|| scene.home.run(arguments));
    writer.end();
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

    step("a thin pool that overflows");
    // What is written into a full pool fails at once, instead of after a minute.
    let full = ["-Wn", "-Zn", "-y", "--errorwhenfull", "y", "-L", "500M", "-T", "data/small"];
    tool("lvcreate", &full);
    tool("lvcreate", &["-Wn", "-y", "-V", "460M", "-T", "data/small", "-n", "tight"]);
    tool("mke2fs", &["-q", "-t", "ext4", "/dev/data/tight"]);
    std::fs::create_dir("/mnt/tight").unwrap();
    tool("mount", &["-t", "ext4", "/dev/data/tight", "/mnt/tight"]);
    let data = Path::new("/mnt/tight/mysql");
    plant(data);
    let scene = Scene::new(started, data, &["--snapshot", "lvm"]).await;
    // It fits as long as there is no snapshot of it.
    let writer = Overwrite::begin(Path::new("/mnt/tight/junk"), 14);
    let run = tokio::task::block_in_place(|| scene.home.run(scene.arguments(&[])));
    writer.end();
    run.expect(5).says("the thin pool data/small overflowed").says("lvextend");
    assert_eq!(leftovers(), 0);
    let listed = scene.home.run(["list", "--repo", "repo", "--json"]).expect(0).json();
    assert_eq!(listed.as_array().unwrap().len(), 0, "{listed:#}");
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

/// A snapshot of XFS has the identity of what it is of, and a log to be replayed before anything can be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "runs in the guest of another test"]
async fn xfs() {
    let started = Instant::now();
    tool("pvcreate", &["/dev/ubda", "/dev/ubdb"]);
    tool("vgcreate", &["data", "/dev/ubda", "/dev/ubdb"]);
    tool("lvcreate", &["-Wn", "-Zn", "-y", "-L", "700M", "-n", "thick", "data"]);
    tool("lvcreate", &["-Wn", "-Zn", "-y", "-L", "1000M", "-T", "data/pool"]);
    tool("lvcreate", &["-Wn", "-y", "-V", "800M", "-T", "data/pool", "-n", "thin"]);
    for (volume, how) in [("thick", &["--snapshot-size", "300M"][..]), ("thin", &[])] {
        step(started, &format!("XFS on a {volume} volume"));
        let (device, at) = (format!("/dev/data/{volume}"), format!("/mnt/{volume}"));
        tool("mkfs.xfs", &["-q", &device]);
        std::fs::create_dir(&at).unwrap();
        tool("mount", &["-t", "xfs", &device, &at]);
        let data = Path::new(&at).join("mysql");
        plant(&data);
        let scene = Scene::new(started, &data, how).await;
        let busy = Load::begin(&scene.server).await;
        scene.whole().await;
        scene.kills(leftovers).await;
        busy.end().await;
    }
    step(started, "done");
}
