use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::home::Home;
use crate::server::{self, Server};

/// How many times a copy is killed.
const KILLS: u32 = 10;

/// A repository with two backups of a server.
async fn two_backups(home: &Home, server: &Server) {
    let url = server.url();
    for _ in 0..2 {
        home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
        server::run(
            &mut server.session().await,
            &["UPDATE shop.orders SET amount = 1 WHERE id = 7"],
        )
        .await;
    }
}

/// The objects of backups below a repository, with their lengths.
fn objects(home: &Home, repo: &str) -> Vec<(String, u64)> {
    let root = home.path(repo);
    let files = home.files(repo).into_iter();
    let names = files.map(|(path, len)| (path.strip_prefix(&root).unwrap().to_owned(), len));
    let names = names.map(|(path, len)| (path.to_str().unwrap().to_owned(), len));
    names.filter(|(name, _)| name.contains("/backups/")).collect()
}

#[tokio::test]
async fn backups_are_copied_listed_and_restored_from_the_copy() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    two_backups(&home, &server).await;
    let content = server.content("shop").await;
    home.on_repo(["copy", "--all"]).expect(2).says("--to");
    home.on_repo(["copy", "--to", "copy"]).expect(2);
    home.on_repo(["copy", "--all", "--to", "ftp://u:hunter2@h/x"]).expect(2).hides("hunter2");

    let document = home.on_repo(["copy", "--all", "--to", "copy", "--json"]).expect(0).json();
    let target = &document["targets"][0];
    assert_eq!(target["same"], true, "{document:#}");
    assert_eq!(target["backups"].as_array().unwrap().len(), 2);
    assert!(target["backups"][0]["bytes_sent"].as_u64().unwrap() > 0);
    assert_eq!(target["backups"][0]["verified"], true);
    assert_eq!(objects(&home, "copy"), objects(&home, "repo"));
    let text = home.on_repo(["copy", "--all", "--to", "copy"]).expect(0).stdout;
    assert_eq!(text.matches("was there, not read").count(), 2, "{text}");
    // What is only looked for is not called verified.
    for (flags, verified) in [(&[][..], false), (&["--verify"], true)] {
        let args = ["copy", "--all", "--to", "copy", "--json"].into_iter();
        let document = home.on_repo(args.chain(flags.iter().copied())).expect(0).json();
        let found = &document["targets"][0]["backups"][0];
        assert_eq!((&found["already"], &found["verified"]), (&true.into(), &verified.into()));
    }

    // Another repository.
    home.run(["init", "--repo", "other", "--no-encryption"]).expect(0);
    let document = home.on_repo(["copy", "latest", "--to", "other", "--json"]).expect(0).json();
    assert_eq!(document["targets"][0]["same"], false);
    for repo in ["copy", "other"] {
        home.run(["verify", "--all", "--repo", repo]).expect(0);
    }

    let listed = home.on_repo(["list", "--json"]).expect(0).json();
    let copies: Vec<usize> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["copies"].as_array().unwrap().len())
        .collect();
    assert_eq!(copies, [1, 2], "{listed:#}");
    let config = home.write("c.toml", "repo = \"repo\"\ncopies = [\"copy\", \"other\"]\n");
    let config = config.to_str().unwrap();
    let table = home.run(["list", "--config", config]).expect(0).stdout;
    assert!(table.contains("COPIES") && table.contains("1 of 2"), "{table}");
    assert!(table.contains("2 of 2"), "{table}");
    let page = home.on_repo(["show", "latest"]).expect(0).stdout;
    assert!(page.contains("Copies:") && page.contains("/other\n"), "{page}");
    // Without --to it is every copy of the configuration.
    home.run(["copy", "--all", "--config", config]).expect(0);
    let table = home.run(["list", "--config", config]).expect(0).stdout;
    assert_eq!(table.matches("2 of 2").count(), 2, "{table}");

    // The primary has lost a pack: a restore takes it from the copy, and says so.
    let packs = objects(&home, "repo").into_iter().filter(|(name, _)| name.contains("/pack-"));
    let (rows, _) = packs.max_by_key(|(_, len)| *len).unwrap();
    std::fs::remove_file(home.path("repo").join(rows)).unwrap();
    let url = server.url();
    let restore = ["restore", "--cluster", "shop", "--target", &url, "--rename", "shop=again"];
    home.on_repo(restore).expect(8);
    let restore = ["restore", "--config", config, "--cluster", "shop", "--target", &url];
    let rename = ["--rename", "shop=restored"];
    home.run(restore.into_iter().chain(rename)).expect(0).says("is read from the copy in");
    assert_eq!(
        server.value("SELECT COUNT(*) FROM restored.orders").await,
        Some(content.iter().map(|_| 512).next().unwrap().to_string())
    );
    home.run(["verify", "--config", config, "--all"]).expect(11);

    // The copy puts back what is lost.
    home.run(["copy", "--all", "--repo", "copy", "--to", "repo"]).expect(0);
    home.on_repo(["verify", "--all"]).expect(0);

    // What a prune removed there is not brought back at once.
    let last = ["prune", "--repo", "copy", "--keep-last", "1", "--grace", "0s", "--wait", "0s"];
    home.run(last).expect(0);
    let text = home.on_repo(["copy", "--all", "--to", "copy"]).expect(0).stdout;
    assert!(text.contains("left out: a prune removed it there"), "{text}");
    let document = home.on_repo(["copy", "--all", "--to", "copy", "--json"]).expect(0).json();
    let first = &document["targets"][0]["backups"][0];
    assert_eq!(first["left_out"], true, "{document:#}");
    let id = first["backup"].as_str().unwrap();
    home.on_repo(["copy", id, "--to", "copy"]).expect(12).says("a prune removed it from");
}

/// Turns a byte in the middle over.
fn turn_over(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// What mends a manifest is said wherever it is missed, and can be pasted.
#[tokio::test]
async fn a_damaged_manifest_names_the_copy_that_mends_it() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    two_backups(&home, &server).await;
    let listed = home.on_repo(["list", "--json"]).expect(0).json();
    let id = listed[0]["backup"].as_str().unwrap().to_owned();
    let manifest = home.files("repo").into_iter().map(|(path, _)| path);
    let mut manifest = manifest.filter(|path| path.ends_with(format!("{id}/manifest")));
    let manifest = manifest.next().unwrap();
    // Nobody knows of a copy yet.
    let whole = std::fs::read(&manifest).unwrap();
    turn_over(&manifest);
    let run = home.on_repo(["list"]).expect(14).says("where there is one (COPY)");
    run.says(&format!("holdfast copy {id} --repo COPY --to "));
    std::fs::remove_file(&manifest).unwrap();
    std::fs::write(&manifest, &whole).unwrap();
    home.on_repo(["copy", "--all", "--to", "the copy"]).expect(0);
    for lost in [false, true] {
        match lost {
            false => turn_over(&manifest),
            true => std::fs::remove_file(&manifest).unwrap(),
        }
        let command = format!("holdfast copy {id} --repo '");
        let list = home.on_repo(["list"]).expect(14).says(&command);
        let verified = home.on_repo(["verify", &id]);
        assert!(matches!(verified.code, Some(8 | 11)), "{verified:?}");
        let said = format!("{}{}", verified.stdout, verified.stderr);
        assert!(said.contains(&command), "{said}");
        home.on_repo(["repair", "index", &id]).expect(8).says(&command);
        home.paste(&list.stderr, &id).expect(0);
        home.on_repo(["verify", "--all"]).expect(0);
    }
}

/// The one object that nothing else tells of comes back out of a copy too, and only into a repository that is the same.
#[tokio::test]
async fn a_lost_holdfast_json_comes_back_from_a_copy() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::new();
    home.write("secret", "a passphrase of this repository\n");
    home.run(["init", "--repo", "repo", "--passphrase-file", "secret"]).expect(0);
    let key = |args: &[&str]| home.run([args, &["--passphrase-file", "secret"]].concat());
    key(&["backup", "--repo", "repo", "--source", &server.url(), "--cluster", "c"]).expect(0);
    key(&["copy", "--all", "--repo", "repo", "--to", "copy"]).expect(0);
    let config = home.path("repo/holdfast.json");
    let whole = std::fs::read(&config).unwrap();
    for lost in [false, true] {
        match lost {
            false => turn_over(&config),
            true => std::fs::remove_file(&config).unwrap(),
        }
        let copy = "holdfast copy --all --repo COPY --to ";
        let run = key(&["list", "--repo", "repo"]);
        assert!(matches!(run.code, Some(7 | 8)), "{run:?}");
        let run = run.says(copy).says("--replace-damaged");
        let back = ["copy", "--all", "--repo", "copy", "--to", "repo"];
        let refused = key(&back).expect(8).says("add --replace-damaged");
        assert!(refused.stderr.contains("cannot use the repository in"), "{refused:?}");
        let pasted = run
            .stderr
            .replace("COPY", "copy")
            .replace("damaged`", "damaged --passphrase-file secret`");
        home.paste(&pasted, "--all").expect(0).says("holdfast.json was put back");
        assert_eq!(std::fs::read(&config).unwrap(), whole);
        key(&["verify", "--all", "--repo", "repo"]).expect(0);
    }
    // Another repository does not become this one.
    home.run(["init", "--repo", "other", "--no-encryption"]).expect(0);
    home.run(["backup", "--repo", "other", "--source", &server.url(), "--cluster", "c"]).expect(0);
    std::fs::remove_file(home.path("other/holdfast.json")).unwrap();
    let there = home.files("other");
    let run = key(&["copy", "--all", "--repo", "repo", "--to", "other", "--replace-damaged"]);
    run.expect(8).says("no backup there can be told to be of this repository");
    assert_eq!(home.files("other"), there);
}

#[test]
fn a_copy_inside_the_repository_is_none() {
    let home = Home::with_repo();
    std::os::unix::fs::symlink("repo", home.path("link")).unwrap();
    let there = home.files("repo");
    let absolute = format!("file://{}/copy", home.path("repo").display());
    for place in ["repo/copy", "repo/deep/down", "link/copy", "repo/../repo/copy", &absolute] {
        let run = home.on_repo(["copy", "--all", "--to", place]).expect(2);
        run.says("is inside the repository itself");
    }
    assert_eq!(home.files("repo"), there);
    // One beside it whose name begins alike is another place.
    home.on_repo(["copy", "--all", "--to", "repo-copy"]).expect(0);
}

#[tokio::test]
async fn a_killed_copy_goes_on() {
    let server = Server::with_shop("mariadb-10.11").await;
    server::double_orders(&mut server.session().await, 4).await;
    let home = Home::with_repo();
    two_backups(&home, &server).await;
    let before = objects(&home, "repo");
    let began = Instant::now();
    home.on_repo(["copy", "--all", "--to", "whole"]).expect(0);
    let duration = began.elapsed();
    for n in 0..KILLS {
        let moment = duration * n / KILLS + duration.mul_f64(rand::random()) / KILLS;
        let mut command = home.command(["copy", "--all", "--repo", "repo", "--to", "copy"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while began.elapsed() < moment && child.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if home.path("copy/holdfast.json").exists() {
            home.run(["verify", "--all", "--level", "objects", "--repo", "copy"]).expect(0);
        }
    }
    home.on_repo(["copy", "--all", "--to", "copy"]).expect(0);
    home.run(["verify", "--all", "--repo", "copy"]).expect(0);
    let finished = |name: &str| !name.rsplit('/').next().unwrap().contains('#');
    let there: Vec<_> =
        objects(&home, "copy").into_iter().filter(|(name, _)| finished(name)).collect();
    assert_eq!(there, before);
    assert_eq!(objects(&home, "repo"), before);
}

#[tokio::test]
async fn packs_move_to_tiers_and_back_into_sight() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    two_backups(&home, &server).await;
    home.on_repo(["copy", "--all", "--to", "copy"]).expect(0);
    home.on_repo(["tier"]).expect(2).says("--warm");
    home.on_repo(["tier", "--warm", "warm"]).expect(2).says("--warm-after");
    home.on_repo(["tier", "--warm", "warm", "--warm-after", "soon"]).expect(2).says("30d");
    for name in ["warm", "cold"] {
        std::fs::create_dir(home.path(name)).unwrap();
    }
    let flags = ["tier", "--warm", "warm", "--warm-after", "0"];
    let planned = home.on_repo(flags.into_iter().chain(["--dry-run", "--json"])).expect(0).json();
    let packs = planned["moves"].as_array().unwrap().len();
    assert!(packs > 0, "{planned:#}");
    assert!(home.files("warm").is_empty());
    let done = home.on_repo(flags.into_iter().chain(["--json"])).expect(0).json();
    assert_eq!(done["packs"], packs);
    assert!(!objects(&home, "repo").iter().any(|(name, _)| name.contains("/pack-")));
    home.on_repo(["tier"]).expect(0);
    home.on_repo(["verify", "--all"]).expect(0);
    let shown = home.on_repo(["show", "latest", "--json"]).expect(0).json();
    assert_eq!(shown["tiers"][0]["packs"], 0, "{shown:#}");
    assert!(shown["tiers"][1]["packs"].as_u64().unwrap() > 0);
    assert!(home.on_repo(["show", "latest"]).expect(0).stdout.contains("warm"));
    home.on_repo(["tier", "--cold", "cold", "--cold-after", "0h"]).expect(0);
    let url = server.url();
    let restore = ["restore", "--cluster", "shop", "--target", &url, "--rename", "shop=restored"];
    home.on_repo(restore).expect(0);
    // A tier that is away is said by name; it is no damage.
    std::fs::rename(home.path("cold"), home.path("away")).unwrap();
    home.on_repo(["verify", "latest"]).expect(7).says("cold tier");
    // Nor is the directory where its disk should be, and nothing is said of the backups.
    std::fs::create_dir(home.path("cold")).unwrap();
    let proof = || home.on_repo(["list", "--json"]).expect(0).json()[1]["proof"].clone();
    let before = proof();
    let last = ["--keep-last", "1", "--grace", "0s", "--wait", "0s"];
    let text = home.on_repo(["verify", "--all"]).expect(7).stdout;
    assert_eq!(text.matches("content: not verified").count(), 2, "{text}");
    for command in [&["verify"][..], &["tier"], &["prune"], &restore] {
        let flags = if command == ["prune"] { &last[..] } else { &[] };
        let ran = home.on_repo(command.iter().chain(flags).copied()).expect(7);
        ran.says("cold is not the cold tier of this repository");
    }
    assert_eq!(proof(), before);
    // What is in it is in a copy too, and a restore goes on.
    let config = home.write("c.toml", "repo = \"repo\"\ncopies = [\"copy\"]\n");
    let copied = ["--config", config.to_str().unwrap(), "--cluster", "shop", "--target", &url];
    let rename = ["--rename", "shop=from_the_copy"];
    home.run(["restore"].into_iter().chain(copied).chain(rename))
        .expect(0)
        .says("is read from the copy in");
    home.on_repo(["tier", "--forget", "hot"]).expect(2).says("warm or cold");
    home.on_repo(["tier", "--forget", "cold"]).expect(0);
    home.on_repo(["verify", "latest"]).expect(11);
}

#[tokio::test]
async fn a_killed_tier_keeps_nobody_waiting() {
    let server = Server::with_shop("mariadb-10.11").await;
    let home = Home::with_repo();
    two_backups(&home, &server).await;
    std::fs::create_dir(home.path("warm")).unwrap();
    home.on_repo(["tier", "--warm", "warm", "--warm-after", "30d"]).expect(0);
    let leases = || -> Vec<_> { home.files("repo/locks/prune").into_iter().collect() };
    // It may end before it is stopped.
    let mut child = loop {
        let before = leases();
        let mut command = home.command(["tier", "--repo", "repo", "--warm-after", "0"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while leases() == before && child.try_wait().unwrap().is_none() {}
        let _ = kill_process(Pid::from_child(&child), Signal::STOP);
        if home.on_repo(["prune"]).code == Some(12) {
            break child;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    };
    // Another one is told who is at work.
    home.on_repo(["prune"]).expect(12).says(&format!("process {} on", child.id())).says(" until ");
    child.kill().unwrap();
    child.wait().unwrap();
    home.on_repo(["prune"]).expect(0).says("was taken over");
    home.on_repo(["tier"]).expect(0);
    home.on_repo(["verify", "--all"]).expect(0);
}

#[tokio::test]
async fn an_index_is_repaired_and_samples_are_no_proof_of_the_whole() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    two_backups(&home, &server).await;
    for (index, _) in objects(&home, "repo").iter().filter(|(name, _)| name.ends_with("/index")) {
        std::fs::remove_file(home.path("repo").join(index)).unwrap();
    }
    home.on_repo(["verify", "--all", "--level", "objects"]).expect(11);
    home.on_repo(["repair", "index"]).expect(2);
    let repaired = home.on_repo(["repair", "index", "--all", "--json"]).expect(0).json();
    let results: Vec<_> = repaired.as_array().unwrap().iter().map(|r| &r["result"]).collect();
    assert_eq!(results, ["rebuilt", "rebuilt"], "{repaired:#}");
    home.on_repo(["verify", "--all"]).expect(0);
    let text = home.on_repo(["repair", "index", "latest"]).expect(0).stdout;
    assert!(text.contains("index-1 stands in"), "{text}");

    let sample = ["verify", "latest", "--percent", "50", "--json"];
    let report = home.on_repo(sample).expect(0).json();
    assert_eq!(report["sampled"]["days"], 2, "{report:#}");
    let proof = || home.on_repo(["list", "--json"]).expect(0).json()[1]["proof"].clone();
    assert_eq!(proof()["level"], "content", "the full proof stays");
    assert!(home.on_repo(["show", "latest"]).expect(0).stdout.contains("of a sample"));
    home.on_repo(["verify", "--all", "--max-bytes", "10MiB"]).expect(0);
    home.on_repo(["verify", "--percent", "0"]).expect(2);
    home.on_repo(["verify", "--percent", "5", "--max-bytes", "1M"]).expect(2);
    home.on_repo(["verify", "--percent", "5", "--level", "objects"]).expect(2).says("content");
}

/// What S3 answers is in the tests of backup-storage; a directory has no archive classes.
#[tokio::test]
async fn a_backup_in_a_directory_needs_no_thaw() {
    let server = Server::with_shop("mariadb-10.11").await;
    let home = Home::with_repo();
    let url = server.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let text = home.on_repo(["thaw", "latest"]).expect(0).stdout;
    assert!(text.contains("It can be restored."), "{text}");
    let found = home.on_repo(["thaw", "latest", "--wait", "--json"]).expect(0).json();
    assert_eq!(found["can_be_read"], true, "{found:#}");
    assert!(found["readable"]["objects"].as_u64().unwrap() >= 2);
    for none in ["asked", "thawing", "archived", "missing"] {
        assert_eq!(found[none]["objects"], 0, "{found:#}");
    }
    home.on_repo(["thaw", "latest", "--days", "0"]).expect(2);
    home.on_repo(["thaw", "latest", "--wait", "--dry-run"]).expect(2);
    home.on_repo(["thaw", "20201120T101530Z-full-7f3a9c"]).expect(2);
    let pack = home.files("repo").into_iter().find(|(path, _)| path.ends_with("pack-0")).unwrap().0;
    std::fs::remove_file(pack).unwrap();
    let text = home.on_repo(["thaw", "latest"]).expect(8).stdout;
    assert!(text.contains("missing"), "{text}");
}
