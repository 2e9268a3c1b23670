//! A repository on a real NFS server that goes away and comes back: server and client are in a
//! User-Mode Linux, which runs this program again.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, and what runs in its guest")]

#[path = "../../backup-storage/tests/common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backup_core::{Error, ErrorKind, Manifest, Repository};
use backup_storage::{
    BackupObject, Created, Key, Repo, RepoUrl, RepositoryOptions, Store, StoreOptions,
    check_content,
};
use bytes::Bytes;
use common::{back_up, context, options, restore_all, samples};

const DIRECTORY: &str = "HOLDFAST_TEST_GUEST_DIRECTORY";
const BUSYBOX: &str = "HOLDFAST_TEST_GUEST_BUSYBOX";

/// How long the guest may take. Nearly all of it is waiting: for grace periods and time-outs.
const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn a_repository_on_nfs_survives_the_loss_of_its_server() {
    let guest = xtask::servers::guest().unwrap();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let place = dir.path().display();
    for name in ["export", "mnt", "hard"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    let busybox = guest.busybox.display();
    let program = std::env::current_exe().unwrap();
    let modules = guest.modules(&["kernel/fs/nfsd/nfsd.ko", "kernel/fs/nfs/nfsv4.ko"]).unwrap();
    let insmod: String =
        modules.iter().map(|module| format!("$B insmod '{}'\n", module.display())).collect();
    let script = format!(
        "#!{busybox} sh\nB='{busybox}'\n\
         $B mount -t proc proc /proc\n$B mount -t sysfs sysfs /sys\n{insmod}\
         $B ifconfig lo 127.0.0.1 up\n$B mount -t tmpfs tmpfs '{place}/export'\n\
         $B mount -t nfsd nfsd /proc/fs/nfsd\ncd '{place}'\n\
         export {DIRECTORY}='{place}' {BUSYBOX}='{busybox}'\n\
         '{}' in_the_guest --ignored --exact --nocapture 2>&1\n\
         echo $? > '{place}/status'\n$B sync\n$B halt -f\n",
        program.display()
    );
    let init = dir.path().join("init");
    std::fs::write(&init, script).unwrap();
    assert!(Command::new("chmod").arg("+x").arg(&init).status().unwrap().success());
    let log = dir.path().join("log");
    let mut kernel = guest
        .command(768, &init)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&log).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let ended = loop {
        if let Some(status) = kernel.try_wait().unwrap() {
            break Some(status);
        }
        if started.elapsed() > LIMIT {
            kernel.kill().unwrap();
            kernel.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let log = String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
    let status = std::fs::read_to_string(dir.path().join("status")).unwrap_or_default();
    assert_eq!(status.trim(), "0", "{ended:?} after {:?}\n{log}", started.elapsed());
    assert!(log.contains("1 passed"), "{log}");
    println!("{log}");
}

/// The NFS server of the guest's kernel, without any daemon: what `exportfs` and `rpc.mountd` would
/// tell the kernel is written by hand.
struct Server {
    directory: PathBuf,
}

impl Server {
    fn start(&self) {
        let export = self.directory.join("export");
        let export = export.display();
        // For ever; read-write, any port, root is root, no checks of subtrees, the root of NFSv4.
        for (cache, line) in [
            ("auth.unix.ip", "nfsd 127.0.0.1 2147483647 here".to_owned()),
            ("nfsd.export", format!("here {export} 2147483647 9218 65534 65534 0")),
            ("nfsd.fh", format!("here 1 \\x00000000 2147483647 {export}")),
        ] {
            tell(&format!("/proc/net/rpc/{cache}/channel"), &format!("{line}\n"));
        }
        // With a list of its clients the kernel knows when there are none to wait for.
        let clients = self.directory.join("clients");
        std::fs::create_dir_all(&clients).unwrap();
        tell("/proc/fs/nfsd/nfsv4recoverydir", &format!("{}\n", clients.display()));
        for (file, value) in [
            // The least that it takes: after a start, clients may only claim what they had.
            ("nfsv4leasetime", "10"),
            ("nfsv4gracetime", "10"),
            // Version 3 would ask for a portmapper.
            ("versions", "-3 +4 +4.1 +4.2"),
            ("threads", "4"),
        ] {
            tell(&format!("/proc/fs/nfsd/{file}"), &format!("{value}\n"));
        }
    }

    fn stop(&self) {
        tell("/proc/fs/nfsd/threads", "0");
    }

    fn mount(&self, at: &str, options: &str) -> PathBuf {
        let place = self.directory.join(at);
        let options = format!("addr=127.0.0.1,clientaddr=127.0.0.1,nosharecache,{options}");
        let place_text = place.to_str().unwrap();
        busybox(&["mount", "-i", "-t", "nfs4", "-o", &options, "127.0.0.1:/", place_text]);
        place
    }
}

/// The kernel reads one write as one line.
fn tell(file: &str, text: &str) {
    std::fs::write(file, text).unwrap_or_else(|e| panic!("{file}: {e}"));
}

fn busybox(arguments: &[&str]) {
    let program = std::env::var_os(BUSYBOX).unwrap();
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{arguments:?}: {status}");
}

const SOFT: &str = "soft,timeo=5,retrans=1";

fn impatient() -> StoreOptions {
    StoreOptions {
        request_timeout: Duration::from_secs(20),
        patience: Duration::from_secs(1),
        ..StoreOptions::default()
    }
}

async fn open(url: &RepoUrl, of_store: &StoreOptions) -> Repo {
    let store = Store::open(&context(), url, of_store).await.unwrap();
    Repo::open_on(&context(), store, options()).await.unwrap()
}

async fn is_whole(repo: &Repo, manifest: &Manifest) {
    let report = check_content(&context(), repo, manifest).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    restore_all(&context(), repo, manifest, &samples()).await.unwrap();
}

fn is_the_servers_fault(error: &Error, part: &str) {
    println!("as it should be: {}", error.report());
    assert_eq!(error.kind(), ErrorKind::Store, "{error:?}");
    assert!(error.report().contains(part), "`{part}` is not in: {}", error.report());
}

fn key(n: u32) -> Key {
    let backup = "20261120T101530Z-full-7f3a9c".parse().unwrap();
    Key::Backup("single".parse().unwrap(), backup, BackupObject::Pack(n))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "runs in the guest of the other test"]
async fn in_the_guest() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let server = Server { directory: directory.clone() };
    let url = RepoUrl::Nfs(directory.join("mnt/repo"));
    let started = Instant::now();
    let step = |text: &str| println!("{:6.1} s: {text}", started.elapsed().as_secs_f32());

    step("nothing is written into a mount point without a mount");
    let error = Repo::init(&context(), &url, RepositoryOptions::default()).await.unwrap_err();
    is_the_servers_fault(&error, "not on a mounted NFS file system");
    assert_eq!(std::fs::read_dir(directory.join("mnt")).unwrap().count(), 0);

    step("the server starts");
    server.start();
    let mount = server.mount("mnt", SOFT);
    Repo::init(&context(), &url, options()).await.unwrap();
    let repo = open(&url, &impatient()).await;
    step("a backup");
    let first = back_up(&context(), &repo, &samples()).await.unwrap();
    is_whole(&repo, &first).await;
    step("writers of one name");
    one_of_many(repo.store()).await;

    step("the server is killed in the middle of a backup");
    let packs = directory.join("export/repo/clusters/shop/backups");
    let killer = async {
        loop {
            let backups: Vec<PathBuf> =
                std::fs::read_dir(&packs).unwrap().map(|entry| entry.unwrap().path()).collect();
            if backups.len() == 2 && backups.iter().all(|path| path.join("active").exists()) {
                break;
            }
            let second = backups.iter().find(|path| !path.join("manifest").exists());
            if second.is_some_and(|path| path.join("active").exists()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::task::spawn_blocking({
            let server = Server { directory: directory.clone() };
            move || server.stop()
        })
        .await
        .unwrap();
    };
    let (cx, samples) = (context(), samples());
    let (failed, ()) = tokio::join!(back_up(&cx, &repo, &samples), killer);
    is_the_servers_fault(&failed.unwrap_err(), "NFS server");
    step("without a server nothing is damaged, only out of reach");
    let lost = restore_all(&context(), &repo, &first, &samples).await.unwrap_err();
    is_the_servers_fault(&lost, "NFS server");
    let lost = repo.store().create(&key(9), Bytes::from_static(b"x")).await.unwrap_err();
    is_the_servers_fault(&lost, "NFS server");

    step("the server is back");
    server.start();
    // The kernel still answers with errors until it has found its server again; who is as patient as
    // a user is by default sees none of them.
    let patience = StoreOptions::default().patience;
    let repo = open(&url, &StoreOptions { patience, ..impatient() }).await;
    assert_eq!(repo.backups(&context(), None).await.unwrap().len(), 1);
    is_whole(&repo, &first).await;
    let second = back_up(&context(), &repo, &samples).await.unwrap();
    is_whole(&repo, &second).await;

    step("a mount that waits for its server for ever does not make us wait");
    let hard = server.mount("hard", "hard,timeo=10");
    let options = StoreOptions { request_timeout: Duration::from_secs(2), ..impatient() };
    let hard_url = RepoUrl::Nfs(hard.join("repo"));
    let store = Store::open(&context(), &hard_url, &options).await.unwrap();
    assert!(store.head(&Key::Config).await.unwrap().is_some());
    server.stop();
    let error = store.create(&key(5), Bytes::from(vec![1; 100_000])).await.unwrap_err();
    is_the_servers_fault(&error, "did not answer for 2 seconds");
    server.start();
    // What still waits in the kernel comes to its end, and the mount is as good as before.
    let patient = StoreOptions { request_timeout: Duration::from_secs(120), ..impatient() };
    let store = Store::open(&context(), &hard_url, &patient).await.unwrap();
    store.create(&key(6), Bytes::from(vec![1; 100_000])).await.unwrap();

    step("the mount goes away under an open repository");
    assert_eq!(repo.backups(&context(), None).await.unwrap().len(), 2);
    busybox(&["umount", "-l", mount.to_str().unwrap()]);
    let error = back_up(&context(), &repo, &samples).await.unwrap_err();
    is_the_servers_fault(&error, "mount");
    let error = restore_all(&context(), &repo, &first, &samples).await.unwrap_err();
    is_the_servers_fault(&error, "mount");
    is_the_servers_fault(&repo.backups(&context(), None).await.map(|_| ()).unwrap_err(), "mount");
    assert_eq!(std::fs::read_dir(&mount).unwrap().count(), 0, "something was written");

    step("and comes back");
    server.mount("mnt", SOFT);
    let repo = open(&url, &impatient()).await;
    assert_eq!(repo.backups(&context(), None).await.unwrap().len(), 2);
    for manifest in [&first, &second] {
        is_whole(&repo, manifest).await;
    }
    let third = back_up(&context(), &repo, &samples).await.unwrap();
    is_whole(&repo, &third).await;
    for place in [&mount, &hard] {
        busybox(&["umount", "-l", place.to_str().unwrap()]);
    }
    server.stop();
    step("done");
}

/// Hard links keep writers apart on NFS too.
async fn one_of_many(store: &Store) {
    for round in 0..3 {
        let writers = (0..8_u8).map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                store.create(&key(round), Bytes::from(vec![n; 5_000])).await.unwrap()
            })
        });
        let mut new = 0;
        for writer in writers.collect::<Vec<_>>() {
            new += usize::from(writer.await.unwrap() == Created::New);
        }
        assert_eq!(new, 1);
        store.delete(&key(round)).await.unwrap();
    }
}

/// What the guest needs is a path without what a shell would read otherwise.
#[test]
fn the_place_of_the_tests_needs_no_quoting() {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).to_str().unwrap();
    assert!(!place.contains('\''), "{place}");
}
