//! `contrib/read_holdfast.py`, which shares no code with Holdfast, reads what Holdfast wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use backup_core::{
    BackupSpec, BackupType, Context, Layout, Outcome, Repository, Secret, SecretBytes, Strategy,
    select,
};
use backup_storage::format::FrameHeader;
use backup_storage::{Repo, RepositoryOptions, Unlock};
use rstest::rstest;
use serde_json::json;

use crate::home::{Home, Run};
use crate::server::{self, Server};

/// The script, on the repository `repo` of a home.
async fn reader(home: &Home, args: &[&str]) -> Run {
    let python = tokio::task::spawn_blocking(xtask::servers::python).await.unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/read_holdfast.py");
    let mut command: Command = python.unwrap_or_else(|e| panic!("{}", e.report()));
    command.arg(script).args(args).current_dir(home.path("."));
    Run::of(&mut command)
}

/// A table of every kind and encoding of columns.
const ROWS: [&str; 3] = [
    "CREATE TABLE shop.kinds (
        id INT PRIMARY KEY, t TINYINT, su SMALLINT UNSIGNED, m MEDIUMINT, b BIGINT, bu BIGINT UNSIGNED,
        f FLOAT, d DOUBLE, n DECIMAL(20,4), day DATE, at DATETIME(6), stamp TIMESTAMP NULL, span TIME(3),
        y YEAR, word VARCHAR(20), pick ENUM('red', 'green', 'blue'), doc TEXT, data VARBINARY(50), bits BIT(12))",
    "INSERT INTO shop.kinds VALUES
        (1, -128, 65535, -8388608, -9223372036854775808, 18446744073709551615, 1.5, 0.1, -0.0500,
         '1000-01-01', '2026-11-20 10:15:30.000001', '2026-11-20 10:15:30', '-838:59:59.000', 1901, 'tab\tback\\\\',
         'red', 'two\nlines', X'00FF0A095C', b'101010101010'),
        (2, 127, 0, 8388607, 9223372036854775807, 0, -3.25e20, 1e300, 1234567890123456.7891, '9999-12-31',
         '1970-01-01 00:00:00', '1970-01-02 00:00:01', '00:00:00.250', 2155, '', 'blue', '\u{e4}\u{1f600}', '', b'0'),
        (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    "INSERT INTO shop.kinds SELECT id + 10 * seq, t, su, m, b, bu, f, d, n + seq, day, at, stamp, span, y,
        CONCAT(word, seq), pick, doc, data, bits FROM shop.kinds, (WITH RECURSIVE s (seq) AS
        (SELECT 1 UNION ALL SELECT seq + 1 FROM s WHERE seq < 200) SELECT seq FROM s) AS s",
];

/// Every file below a directory with its content, by its path there.
fn tree(root: &Path, files: Vec<(PathBuf, u64)>) -> BTreeMap<String, Vec<u8>> {
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    files.into_iter().map(|(path, _)| (name(&path), std::fs::read(path).unwrap())).collect()
}

#[rstest]
#[case("mysql-9.7", "zstd", &["--no-encryption"], &[])]
#[case("mariadb-10.11", "lz4", &["--key-file", "key"], &["--key-file", "key"])]
#[case("mysql-9.7", "xz", &["--passphrase-file", "pass", "--cipher", "chacha20-poly1305"], &["--passphrase-file", "pass"])]
#[case("mysql-9.7", "gzip", &["--key-file", "key"], &["--key-file", "key"])]
#[tokio::test]
async fn another_program_restores_from_the_page_alone(
    #[case] name: &str,
    #[case] compression: &str,
    #[case] init: &[&str],
    #[case] key: &[&str],
) {
    let server = Server::with_shop(name).await;
    server::run(&mut server.session().await, &ROWS).await;
    let home = Home::new();
    home.write("key", &"k".repeat(64));
    home.write("pass", "correct h\u{f6}rse\r\nsecond line\n");
    home.on_repo(["init", "-q"].iter().chain(init).copied()).expect(0);
    let url = server.url();
    let backup =
        ["backup", "--source", &url, "--cluster", "shop", "--json", "--compression", compression];
    let take = || home.on_repo(backup.iter().chain(key).copied()).expect(0).json();
    let first = take();
    // The second one refers to the first, and has deltas against it.
    let change = ["UPDATE shop.orders SET amount = amount + 1 WHERE id % 50 = 0"];
    server::run(&mut server.session().await, &change).await;
    let second = take();
    let id = second["backup"].as_str().unwrap();
    assert!(deltas(&home, id) > 0, "{second:#}");
    let read = async |args: &[&str]| reader(&home, &[key, &["repo"], args].concat()).await;

    let listed = read(&["list"]).await.expect(0);
    let lines: Vec<&str> = listed.stdout.lines().collect();
    let first = first["backup"].as_str().unwrap();
    assert!(lines[0].starts_with(&format!("{first}\tshop\tlogical\t")), "{listed:?}");
    assert!(lines[1].starts_with(id) && lines.len() == 2, "{listed:?}");
    let listed = read(&["artifacts", "latest"]).await.expect(0).stdout;

    // The same bytes as Holdfast reads.
    read(&["restore", first, "--output", "first"]).await.expect(0);
    read(&["restore", id, "--output", "out"]).await.expect(0);
    let restored = tree(&home.path("out"), home.files("out"));
    let options = RepositoryOptions { unlock: unlock(&home, key), ..RepositoryOptions::default() };
    let cx = Context::builder().build();
    let repo = Repo::open(&cx, &home.path("repo").into(), options).await.unwrap();
    let manifest = select(repo.backups(&cx, None).await.unwrap(), "latest").unwrap();
    let source = repo.artifacts(&cx, &manifest).await.unwrap();
    let artifacts = source.list().await.unwrap();
    assert_eq!(restored.len(), artifacts.len());
    assert_eq!(listed.lines().count(), artifacts.len());
    for artifact in &artifacts {
        let mut reader = source.open(&artifact.name).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(piece) = reader.next().await.unwrap() {
            bytes.extend_from_slice(&piece);
        }
        assert!(restored[artifact.name.as_str()] == bytes, "{}", artifact.name);
    }

    // The rows, loaded again by the server itself, are the rows that were there.
    read(&["restore", id, "tables/shop/kinds", "--output", "rows", "--rows"]).await.expect(0);
    let mut loads = vec!["CREATE TABLE shop.again LIKE shop.kinds".to_owned()];
    for (path, _) in home.files("rows") {
        if path.extension().is_some_and(|extension| extension == "tsv") {
            loads.push(format!(
                "LOAD DATA INFILE '{}' INTO TABLE shop.again CHARACTER SET binary",
                path.display()
            ));
        }
    }
    assert!(loads.len() > 1, "{:?}", home.files("rows"));
    let loads: Vec<&str> = loads.iter().map(String::as_str).collect();
    let mut session = server.session().await;
    server::run(&mut session, &loads).await;
    let sums: Vec<(String, Option<u64>)> =
        session.query_rows("CHECKSUM TABLE shop.kinds, shop.again").await.unwrap();
    assert!(sums[0].1.is_some_and(|sum| sum != 0) && sums[0].1 == sums[1].1, "{sums:?}");
    let count: Option<u64> = session.query_first("SELECT COUNT(*) FROM shop.again").await.unwrap();
    assert_eq!(count, Some(603));
    session.close().await.unwrap();
}

/// How many frames of a backup's packs are deltas.
fn deltas(home: &Home, backup: &str) -> usize {
    let packs = home.files(&format!("repo/clusters/shop/backups/{backup}"));
    let packs = packs.iter().filter(|(path, _)| path.to_str().unwrap().contains("/pack-"));
    let mut deltas = 0;
    for (path, _) in packs {
        let bytes = std::fs::read(path).unwrap();
        let mut at = 16;
        while let Some(header) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            let header = FrameHeader::parse(header).unwrap();
            deltas += usize::from(header.delta.is_some());
            at += header.frame_len() as usize;
        }
    }
    deltas
}

fn unlock(home: &Home, key: &[&str]) -> Option<Unlock> {
    match key {
        ["--key-file", file] => {
            Some(Unlock::KeyFile(SecretBytes::new(std::fs::read(home.path(file)).unwrap())))
        }
        ["--passphrase-file", _] => Some(Unlock::Passphrase(Secret::new("correct h\u{f6}rse"))),
        _ => None,
    }
}

#[tokio::test]
async fn the_script_refuses_what_is_damaged_and_needs_the_right_key() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::new();
    home.write("key", &"k".repeat(64));
    home.write("wrong", &"w".repeat(64));
    let key = ["--key-file", "key"];
    home.on_repo(["init", "-q"].into_iter().chain(key)).expect(0);
    let url = server.url();
    let backup = ["backup", "-q", "--source", &url, "--cluster", "shop"];
    home.on_repo(backup.into_iter().chain(key)).expect(0);

    reader(&home, &["repo", "list"]).await.expect(1).says("is encrypted");
    reader(&home, &["--key-file", "wrong", "repo", "list"]).await.expect(1).says("wrong");
    let restore = async |output: &str| {
        let args = ["--key-file", "key", "repo", "restore", "latest", "--output", output];
        reader(&home, &args).await
    };
    let pack = home.files("repo").into_iter().find(|(path, _)| path.ends_with("pack-0")).unwrap().0;
    let good = std::fs::read(&pack).unwrap();
    for at in [16 + 30, 16 + 62, 16 + 100] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&pack, &bad).unwrap();
        restore(&format!("bad-{at}")).await.expect(1).says("pack-0");
    }
    std::fs::write(&pack, &good).unwrap();
    // Without the index, from the packs.
    std::fs::remove_file(pack.with_file_name("index")).unwrap();
    restore("good").await.expect(0).says("rebuilt from the packs");
}

#[tokio::test]
async fn the_script_knows_tiers_rebuilt_indexes_and_what_is_no_backup() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::new();
    home.write("key", &"k".repeat(64));
    let key = ["--key-file", "key"];
    let holdfast = |args: &[&str]| home.on_repo(args.iter().chain(&key).copied());
    holdfast(&["init", "-q"]).expect(0);
    let url = server.url();
    holdfast(&["backup", "-q", "--source", &url, "--cluster", "shop"]).expect(0);
    let read = async |args: &[&str]| {
        reader(&home, &[&["--key-file", "key", "repo"], args].concat()).await.expect(0)
    };
    read(&["restore", "latest", "--output", "before"]).await;
    let before = tree(&home.path("before"), home.files("before"));

    // Two that were begun and never finished, of which one was given up.
    let options = RepositoryOptions { unlock: unlock(&home, &key), ..RepositoryOptions::default() };
    let cx = Context::builder().build();
    let repo = Repo::open(&cx, &home.path("repo").into(), options).await.unwrap();
    let spec = || BackupSpec {
        cluster: "shop".parse().unwrap(),
        strategy: Strategy::Logical,
        backup_type: BackupType::Full,
        parent: None,
    };
    let dead = repo.begin(&cx, spec()).await.unwrap().id().clone();
    let directory = format!("repo/clusters/shop/backups/{dead}");
    let long_ago = SystemTime::now() - Duration::from_secs(25 * 3600);
    for (path, _) in home.files(&directory) {
        std::fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }
    holdfast(&["prune", "-q", "--keep-last", "1", "--wait", "0"]).expect(0);
    assert!(home.path(&format!("{directory}/manifest")).exists(), "there is no tombstone");
    drop(repo.begin(&cx, spec()).await.unwrap());
    assert_eq!(read(&["list"]).await.stdout.lines().count(), 1);

    // Packs that moved, and an index that is lost and was rebuilt.
    std::fs::create_dir(home.path("warm")).unwrap();
    let warm = home.path("warm");
    let warm = warm.to_str().unwrap();
    holdfast(&["tier", "-q", "--warm", warm, "--warm-after", "0"]).expect(0);
    let packs = |place: &str| {
        home.files(place)
            .iter()
            .filter(|(path, _)| path.to_string_lossy().contains("pack-"))
            .count()
    };
    assert!(packs("warm") > 0 && packs("repo") == 0);
    let mut indexes = home.files("repo").into_iter().filter(|(path, _)| path.ends_with("index"));
    std::fs::remove_file(indexes.next().unwrap().0).unwrap();
    holdfast(&["repair", "index", "latest"]).expect(0);
    read(&["restore", "latest", "--output", "after"]).await.says("index-1 stands in for it");
    assert!(before == tree(&home.path("after"), home.files("after")));

    // The tier of another repository is none of this one's.
    let mark = std::fs::read_to_string(home.path("warm/tier.json")).unwrap();
    let id = repo.id().to_string();
    std::fs::write(home.path("warm/tier.json"), mark.replace(&id, &id.replace(&id[..1], "x")))
        .unwrap();
    let args = ["--key-file", "key", "repo", "restore", "latest", "--output", "none"];
    reader(&home, &args).await.expect(1).says("is not the warm tier of this repository");
}

/// A piece of an artifact of changes.
fn change(offset: u64, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&offset.to_le_bytes()[..], &length.to_le_bytes(), bytes].concat()
}

/// A backup of files as a clone leaves it: some were written over, grew or were made while they were read.
async fn cloned(home: &Home, changes: Vec<u8>) {
    let cx = Context::builder().build();
    let options = RepositoryOptions::default();
    let repo = Repo::open(&cx, &home.path("repo").into(), options).await.unwrap();
    let spec = BackupSpec {
        cluster: "shop".parse().unwrap(),
        strategy: Strategy::Clone,
        backup_type: BackupType::Full,
        parent: None,
    };
    let session = repo.begin(&cx, spec).await.unwrap();
    let file = |path: &str, bytes: u64| {
        json!({"path": path, "kind": "file", "bytes": bytes, "mode": 0o640, "uid": 0, "gid": 0,
               "modified": "2026-11-20T10:15:30Z"})
    };
    let mut lines = vec![json!({"files_format": 1, "state": "crashed", "settings": {}})];
    for path in ["shop", "empty"] {
        let mut entry = file(path, 0);
        (entry["kind"], entry["mode"]) = ("directory".into(), 0o750.into());
        lines.push(entry);
    }
    lines.push(file("shop/plain.ibd", 5000));
    let mut entry = file("shop/odd name.ibd", 100_000);
    entry["changes"] = true.into();
    lines.push(entry);
    let mut entry = file("shop/made.ibd", 20_000);
    (entry["changes"], entry["stored_as"]) = (true.into(), "shop/#sql-1.ibd".into());
    lines.push(entry);
    lines.push(json!({"entries": lines.len() - 1}));
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    for (name, content) in [
        ("files/shop/plain.ibd", vec![1; 5000]),
        ("files/shop/odd%20name.ibd", vec![2; 70_000]),
        ("changes/shop/odd%20name.ibd", changes),
        ("files/shop/#sql-1.ibd", Vec::new()),
        ("changes/shop/#sql-1.ibd", change(0, &[3; 16_384])),
        ("files/shop/dropped.ibd", vec![4; 10]),
        ("physical/catalog", lines.into_bytes()),
    ] {
        let mut writer = session.create(name.parse().unwrap(), Layout::Stream).await.unwrap();
        writer.write(content.into()).await.unwrap();
        writer.finish(serde_json::Value::Null).await.unwrap();
    }
    let outcome: Outcome = serde_json::from_value(json!({
        "source": {"flavor": "mysql", "version": "9.7.0", "address": "db:3306", "server_id": 1},
        "position": {}, "consistency": {"level": "exact", "reason": "a test"},
        "lock_seconds": 0.0, "rows": null,
    }))
    .unwrap();
    session.commit(outcome).await.unwrap();
}

#[tokio::test]
async fn the_script_makes_a_data_directory_with_what_was_written_over_its_files() {
    let home = Home::with_repo();
    let pieces = [change(10, b"over"), change(60_000, &[5; 20_000]), change(99_990, b"end")];
    cloned(&home, pieces.concat()).await;
    let read = reader(&home, &["repo", "files", "latest", "--output", "out"]).await.expect(0);
    assert!(read.stdout.contains("`crashed`"), "{read:?}");
    home.on_repo(["restore", "-q", "--cluster", "shop", "--target-dir", "restored"]).expect(0);
    let out = tree(&home.path("out"), home.files("out"));
    assert!(out == tree(&home.path("restored"), home.files("restored")));
    let odd = &out["shop/odd name.ibd"];
    assert_eq!(odd.len(), 100_000);
    assert_eq!(
        (&odd[8..16], &odd[99_988..99_994]),
        (&b"\x02\x02over\x02\x02"[..], &b"\0\0end\0"[..])
    );
    assert_eq!((odd[59_999], odd[60_000], odd[79_999], odd[80_000]), (2, 5, 5, 0));
    assert_eq!(
        out.keys().collect::<Vec<_>>(),
        ["shop/made.ibd", "shop/odd name.ibd", "shop/plain.ibd"]
    );
    assert!(home.path("out/empty").is_dir());

    // Nothing is laid over what is there, and nothing is made of pieces that make no sense.
    let again = ["repo", "files", "latest", "--output", "out"];
    reader(&home, &again).await.expect(1).says("is not empty");
    for (changes, problem) in [
        ([change(10, b"over"), change(12, b"lap")].concat(), "overlap"),
        (change(10, b"over")[..14].to_vec(), "is cut short"),
    ] {
        let home = Home::with_repo();
        cloned(&home, changes).await;
        reader(&home, &again).await.expect(1).says(problem);
    }
}
