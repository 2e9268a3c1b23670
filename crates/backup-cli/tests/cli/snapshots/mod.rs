//! Snapshots of real volumes: a kernel of its own (User-Mode Linux) has the disks, LVM, btrfs, a server
//! under load, and this program again.

mod guest;
mod load;
pub(crate) mod pair;

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backup_core::Context;

/// Where the test has its things.
const DIRECTORY: &str = "HOLDFAST_TEST_GUEST_DIRECTORY";
/// How long a guest may take; it needs one or two minutes.
const LIMIT: Duration = Duration::from_secs(900);

const TOOLS: [&str; 12] = [
    "lvs",
    "lvcreate",
    "lvremove",
    "vgcreate",
    "vgs",
    "pvcreate",
    "lvchange",
    "btrfs",
    "mkfs.btrfs",
    "mke2fs",
    "mkfs.xfs",
    "lvextend",
];

#[tokio::test]
async fn lvm_volumes_thick_and_thin() {
    in_guest("snapshots::guest::lvm").await;
}

#[tokio::test]
async fn lvm_volumes_with_xfs() {
    in_guest("snapshots::guest::xfs").await;
}

#[tokio::test]
async fn btrfs_subvolumes() {
    in_guest("snapshots::guest::btrfs").await;
}

/// Runs a test of this program in a guest with two disks of 2 GiB.
async fn in_guest(test: &str) {
    let guest = xtask::servers::guest().unwrap();
    let tools = xtask::servers::volume_tools().unwrap();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let place = dir.path().display();

    let server = xtask::servers::install("mariadb-10.11").unwrap();

    // A data directory to begin with: it cannot be made in the guest.
    let cx = Context::builder().build();
    let seed = dir.path().join("seed");
    let builder = xtask::servers::sandbox("mariadb-10.11").await.unwrap();
    builder.datadir(&seed).durable(false).start(&cx).await.unwrap().stop().await.unwrap();

    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    for name in TOOLS {
        let path = bin.join(name);
        std::fs::write(&path, tools.script(name, &guest.busybox).unwrap()).unwrap();
        executable(&path);
    }
    for disk in ["a", "b"] {
        std::fs::File::create(dir.path().join(disk)).unwrap().set_len(2 << 30).unwrap();
    }
    let modules = [
        "kernel/drivers/md/dm-mod.ko",
        "kernel/drivers/md/dm-snapshot.ko",
        "kernel/drivers/md/dm-thin-pool.ko",
    ];
    let mut script = format!("#!{0} sh\nB='{0}'\n", guest.busybox.display());
    script.push_str(
        "$B mount -t proc proc /proc\n$B mount -t sysfs sysfs /sys\n$B mount -t devtmpfs dev /dev\n",
    );
    for at in ["/run", "/tmp", "/mnt", "/usr/local/sbin"] {
        writeln!(script, "$B mount -t tmpfs tmpfs {at}").unwrap();
    }
    script.push_str("$B mkdir -p /run/lock/lvm\n");
    for module in guest.modules(&modules).unwrap() {
        writeln!(script, "$B insmod '{}'", module.display()).unwrap();
    }
    write!(
        script,
        "$B cp '{place}'/bin/* /usr/local/sbin/\nexport PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         export HOME=/tmp {DIRECTORY}='{place}' HOLDFAST_TEST_ROUNDS='{}'\n\
         export HOLDFAST_MARIADB_10_11='{}'\ncd /tmp\n\
         '{}' {test} --ignored --exact --nocapture 2>&1\necho $? > '{place}/status'\n\
         $B sync\n$B halt -f\n",
        rounds(),
        server.base().parent().unwrap().display(),
        std::env::current_exe().unwrap().display()
    )
    .unwrap();
    let init = dir.path().join("init");
    std::fs::write(&init, script).unwrap();
    executable(&init);
    let log = dir.path().join("log");
    let mut kernel = guest
        .command(2000, &init)
        .arg(format!("ubd0={place}/a"))
        .arg(format!("ubd1={place}/b"))
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&log).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while kernel.try_wait().unwrap().is_none() {
        if started.elapsed() > LIMIT {
            kernel.kill().unwrap();
            kernel.wait().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let log = String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
    if let Some(keep) = std::env::var_os("HOLDFAST_TEST_GUEST_LOG") {
        std::fs::write(keep, &log).unwrap();
    }
    let status = std::fs::read_to_string(dir.path().join("status")).unwrap_or_default();
    assert_eq!(status.trim(), "0", "after {:?}\n{log}", started.elapsed());
    assert!(log.contains("1 passed"), "{log}");
}

/// How often what is long is repeated; 0: only a part of it, once.
fn rounds() -> u32 {
    std::env::var("HOLDFAST_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn executable(path: &Path) {
    assert!(Command::new("chmod").arg("+x").arg(path).status().unwrap().success());
}
