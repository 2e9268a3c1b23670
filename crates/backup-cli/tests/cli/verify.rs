use std::path::{Path, PathBuf};

use rstest::rstest;
use serde_json::Value;

use crate::backup::SmallDisk;
use crate::files_point::{How, backed_up};
use crate::home::Home;
use crate::server::{Server, install};

/// What may happen to a repository.
struct Damage {
    name: &'static str,
    /// The object that is hit.
    object: &'static str,
    /// What happens to its bytes; `None` removes it.
    change: fn(Vec<u8>) -> Option<Vec<u8>>,
    /// Whether a look at names and lengths is enough to see it.
    seen_by_objects: bool,
    /// Whether all the data is still there: the packs tell what the index would have told.
    restorable: bool,
}

fn flip_middle(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Some(bytes)
}

fn truncate(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    bytes.truncate(bytes.len() / 2);
    Some(bytes)
}

const fn damage(
    name: &'static str,
    object: &'static str,
    change: fn(Vec<u8>) -> Option<Vec<u8>>,
) -> Damage {
    Damage { name, object, change, seen_by_objects: true, restorable: false }
}

const DAMAGE: [Damage; 7] = [
    damage("truncated pack", "pack-1", truncate),
    Damage { seen_by_objects: false, ..damage("flipped bit", "pack-1", flip_middle) },
    damage("lost pack", "pack-1", |_| None),
    Damage { restorable: true, ..damage("truncated index", "index", truncate) },
    Damage {
        seen_by_objects: false,
        restorable: true,
        ..damage("flipped index", "index", flip_middle)
    },
    Damage { restorable: true, ..damage("lost index", "index", |_| None) },
    damage("flipped manifest", "manifest", flip_middle),
];

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(status.success());
}

fn object(home: &Home, repo: &str, name: &str) -> PathBuf {
    let files = home.files(repo);
    let found = files.into_iter().find(|(path, _)| path.ends_with(name));
    found.unwrap_or_else(|| panic!("no {name} in {repo}")).0
}

#[tokio::test]
async fn damage_is_found_and_never_restored() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    let url = server.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let content = server.content("shop").await;
    for (n, damage) in DAMAGE.iter().enumerate() {
        let repo = format!("damaged-{n}");
        copy(&home.path("repo"), &home.path(&repo));
        let path = object(&home, &repo, damage.object);
        let changed = (damage.change)(std::fs::read(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        if let Some(bytes) = changed {
            std::fs::write(&path, bytes).unwrap();
        }

        let verify = |level: &str| {
            home.run(["verify", "--repo", &repo, "--cluster", "shop", "--level", level, "--json"])
        };
        let run = verify("content").expect(11);
        let report = run.json();
        assert_eq!(report["ok"], false, "{}: {report:#}", damage.name);
        let findings = report["findings"].as_array().unwrap();
        for key in ["severity", "object", "problem", "remedy"] {
            let filled = |f: &Value| f[key].as_str().is_some_and(|text| !text.is_empty());
            assert!(findings.iter().all(filled), "{}: {report:#}", damage.name);
        }
        let names_it = |f: &Value| f["object"].as_str().unwrap().contains(damage.object);
        assert!(findings.iter().any(names_it), "{}: {report:#}", damage.name);
        let run = verify("objects");
        let code = if damage.seen_by_objects { 11 } else { 0 };
        assert_eq!(run.code, Some(code), "{}: {run:#?}", damage.name);

        let rename = format!("shop=restored_{n}");
        let args = ["restore", "--repo", &repo, "--cluster", "shop", "--target", &url];
        let run = home.run(args.into_iter().chain(["--rename", &rename]));
        let code = if damage.restorable { 0 } else { 8 };
        assert_eq!(run.code, Some(code), "{}: {run:#?}", damage.name);
        if damage.restorable {
            assert_eq!(server.content(&format!("restored_{n}")).await, content, "{}", damage.name);
        }
    }
    // The original is as it was.
    home.on_repo(["verify", "--all"]).expect(0);
}

#[tokio::test]
async fn a_proof_is_recorded_and_listed() {
    let server = Server::with_shop("mariadb-10.11").await;
    let home = Home::with_repo();
    let url = server.url();
    for cluster in ["a", "b"] {
        home.on_repo(["backup", "--source", &url, "--cluster", cluster]).expect(0);
    }
    let report = home.on_repo(["verify", "--json", "--cluster", "a"]).expect(0).json();
    assert_eq!((&report["level"], &report["ok"]), (&"content".into(), &true.into()));
    assert_eq!(report["findings"], serde_json::json!([]));

    let proof_of = |cluster: &str| {
        let listed = home.on_repo(["list", "--json", "--cluster", cluster]).expect(0).json();
        listed[0]["proof"].clone()
    };
    assert_eq!(proof_of("a")["level"], "content");
    assert_eq!(proof_of("a")["ok"], true);
    assert!(proof_of("a")["time"].is_string());
    assert!(proof_of("b").is_null());

    let reports =
        home.on_repo(["verify", "--all", "--level", "objects", "--json"]).expect(0).json();
    assert_eq!(reports.as_array().unwrap().len(), 2);
    // The weaker one takes nothing from what was proven before.
    assert_eq!(proof_of("a")["level"], "content");
    assert_eq!(proof_of("b")["level"], "objects");
    let table = home.on_repo(["list"]).expect(0).stdout;
    assert!(table.contains("content ok") && table.contains("objects ok"), "{table}");
}

#[tokio::test]
async fn one_unreadable_backup_hides_no_other() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    let url = server.url();
    for _ in 0..2 {
        home.on_repo(["backup", "--source", &url, "--cluster", "c"]).expect(0);
    }
    let manifest = object(&home, "repo", "manifest");
    let bytes = flip_middle(std::fs::read(&manifest).unwrap()).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    std::fs::write(&manifest, bytes).unwrap();

    let run = home.on_repo(["list", "--json"]).expect(14).says("cannot be read");
    let listed = run.json();
    let broken = |b: &&Value| b["error"].is_string();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed.as_array().unwrap().iter().filter(broken).count(), 1, "{listed:#}");
    assert!(home.on_repo(["list"]).expect(14).stdout.contains("UNREADABLE"));
    let reports = home.on_repo(["verify", "--all", "--json"]).expect(11).json();
    let ok = reports.as_array().unwrap().iter().filter(|r| r["ok"] == true).count();
    assert_eq!((reports.as_array().unwrap().len(), ok), (2, 1), "{reports:#}");
}

#[tokio::test]
async fn a_history_that_cannot_be_written_withholds_no_finding() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "c"]).expect(0);
    // Stands in the way of the records, even of root's.
    home.write("repo/clusters/c/records", "");
    home.on_repo(["verify"]).expect(14).says("not added to the history");
    let report = home.on_repo(["verify", "--all", "--json"]).expect(14).json();
    assert_eq!((&report[0]["ok"], &report[0]["recorded"]), (&true.into(), &false.into()));
    let listed = home.on_repo(["list", "--json"]).expect(14).says("cannot be read").json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    home.on_repo(["show", "latest"]).expect(14).says("cannot be read");
    std::fs::remove_file(object(&home, "repo", "pack-0")).unwrap();
    home.on_repo(["verify"]).expect(11).says("not added to the history");
    std::fs::remove_file(object(&home, "repo", "manifest")).unwrap();
    home.on_repo(["verify"]).expect(11).says("not added to the history");
}

#[test]
fn a_cluster_that_is_not_there_is_not_well() {
    let home = Home::with_repo();
    home.on_repo(["verify", "--all"]).expect(0);
    home.on_repo(["verify", "--all", "--cluster", "shpo"]).expect(2).says("no backup");
}

#[tokio::test]
async fn a_backup_that_cannot_be_read_stops_no_other() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    for _ in 0..2 {
        home.on_repo(["backup", "--source", &server.url(), "--cluster", "c"]).expect(0);
    }
    // Something else stands where the object was.
    let manifest = object(&home, "repo", "manifest");
    std::fs::remove_file(&manifest).unwrap();
    std::os::unix::fs::symlink("manifest", &manifest).unwrap();
    let reports = home.on_repo(["verify", "--all", "--json"]).expect(11).json();
    let ok: Vec<_> = reports.as_array().unwrap().iter().map(|r| r["ok"] == true).collect();
    assert_eq!(ok, [false, true], "{reports:#}");
    assert_eq!(reports[0]["findings"][0]["kind"], "damaged", "{reports:#}");
}

#[tokio::test]
async fn a_drill_is_a_proof_that_list_shows() {
    let server = Server::with_shop("mariadb-10.11").await;
    let home = Home::with_repo();
    let url = server.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let root = server.0.install().base().parent().unwrap().to_str().unwrap().to_owned();
    let run = home.on_repo(["verify", "--level", "drill", "--server-dir", &root, "--json"]);
    let report = run.expect(0).json();
    assert_eq!((&report["level"], &report["ok"]), (&"drill".into(), &true.into()), "{report:#}");
    let told = report["findings"][0]["problem"].as_str().unwrap();
    assert!(told.contains("515 rows") && told.contains("10.11"), "{report:#}");
    let listed = home.on_repo(["list", "--json"]).expect(0).json();
    assert_eq!(listed[0]["proof"]["level"], "drill", "{listed:#}");
    assert_eq!(listed[0]["proof"]["ok"], true);

    // A server of another version is no proof.
    let other = xtask::servers::install("mariadb-11.8").unwrap();
    let other = other.base().parent().unwrap().to_str().unwrap().to_owned();
    home.on_repo(["verify", "--level", "drill", "--server-dir", &other]).expect(2).says("11.8");
}

/// A disk that is full under the private server says nothing of the backup.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_without_room_is_no_proof(
    #[values(
        ("mysql-9.7", Some(How::Cold)),
        ("mariadb-10.11", Some(How::Tool)),
        // A MariaDB that is made on a full disk waits for room, for minutes.
        ("mysql-9.7", None),
    )]
    case: (&str, Option<How>),
) {
    let (name, how) = case;
    let home = Home::with_repo();
    let server = match how {
        Some(how) => backed_up(&home, name, how).await,
        None => {
            let server = Server::with_shop(name).await;
            let url = server.url();
            home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
            server
        }
    };
    drop(server);
    let listed = || home.on_repo(["list", "--json"]).expect(0).json();
    let shown = home.on_repo(["show", "latest", "--json"]).expect(0).json();
    let bytes = shown["totals"]["bytes_read"].as_u64().unwrap() >> 20;
    let disk = SmallDisk::mount(&home.path("disk"), "1g");
    let (dir, scratch) = (install(name), home.path("disk"));
    let drill = ["verify", "--level", "drill", "--server-dir", dir.to_str().unwrap()];
    let drill = [&drill[..], &["--scratch-dir", scratch.to_str().unwrap()]].concat();
    // For the files, and for less and less of what the server makes besides.
    for more in [3, 9, 20, 32] {
        disk.resize(&format!("{}m", bytes + more));
        let run = home.on_repo(drill.clone());
        assert!(run.code == Some(5) || more > 20 && run.code == Some(0), "{more}: {run:#?}");
        if run.code == Some(5) {
            run.says("which says nothing of the backup").says("--scratch-dir");
            assert_eq!(listed()[0]["proof"], Value::Null);
        }
    }
    disk.resize("3g");
    home.on_repo(drill).expect(0);
    assert_eq!(listed()[0]["proof"]["ok"], true);
}
