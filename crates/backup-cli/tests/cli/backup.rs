use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;

use crate::home::{Home, Run};
use crate::server::{self, PASSWORD, Server};

#[rstest]
#[tokio::test]
async fn a_backup_says_what_it_did(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let server = Server::with_shop(name).await;
    let home = Home::with_repo();
    let source = server.url();
    let args = ["backup", "--source", &source, "--cluster", "shop", "--threads", "2"];
    let run = home.on_repo(args.into_iter().chain(["--json"])).expect(0);
    let document = run.json();
    for (key, value) in
        [("cluster", "shop"), ("strategy", "logical"), ("type", "full"), ("status", "ok")]
    {
        assert_eq!(document[key], value, "{document:#}");
    }
    assert_eq!(document["rows"], 515);
    for key in ["bytes_read", "bytes_new", "bytes_stored"] {
        assert!(document[key].as_u64().unwrap() > 500_000, "{document:#}");
    }
    for key in ["duration_seconds", "lock_seconds"] {
        assert!(document[key].as_f64().unwrap() >= 0.0, "{document:#}");
    }
    let position = &document["position"];
    assert!(position["file"].as_str().unwrap().starts_with("binlog."), "{document:#}");
    assert!(position["offset"].as_u64().unwrap() > 0 && position["gtid"].is_string());

    let listed = home.on_repo(["list", "--json"]).expect(0).json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    for key in
        ["backup", "cluster", "strategy", "type", "started_at", "finished_at", "bytes_stored"]
    {
        assert_eq!(listed[0][key], document[key], "{key}");
    }
    assert!(listed[0]["parent"].is_null() && listed[0]["proof"].is_null());

    // For people, and for cron.
    let run = home.on_repo(args).expect(0);
    assert!(run.stdout.contains("515 rows"), "{run:?}");
    let run = home.on_repo(args.into_iter().chain(["-q"])).expect(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
    assert_eq!(home.on_repo(["list", "--json"]).expect(0).json().as_array().unwrap().len(), 3);
}

/// As long as something is on its way to the store, there is no backup.
#[tokio::test]
async fn a_backup_is_finished_when_all_of_it_is_stored() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    let slow = ["--upload-limit", "256KiB", "--compression", "none", "--json"];
    let args = ["backup", "--source", &server.url(), "--cluster", "shop"];
    let document = home.on_repo([&args[..], &slow].concat()).expect(0).json();
    let finished: jiff::Timestamp = document["finished_at"].as_str().unwrap().parse().unwrap();
    let id = document["backup"].as_str().unwrap();
    let index = home.path(&format!("repo/clusters/shop/backups/{id}/index"));
    let stored = jiff::Timestamp::try_from(index.metadata().unwrap().modified().unwrap()).unwrap();
    assert!(finished >= stored, "{finished} is before {stored}");
}

/// Whoever gives a flag relies on it.
#[test]
fn flags_that_would_do_nothing_are_refused() {
    let home = Home::with_repo();
    let refused = |strategy: &str, flags: &[&str]| {
        let args = ["backup", "--cluster", "c", "--source", "mysql://nobody@127.0.0.1:1/"];
        let args = args.into_iter().chain(["--strategy", strategy]);
        let run = home.on_repo(args.chain(flags.iter().copied())).expect(2);
        run.says(&format!("{} does nothing for", flags[0]));
    };
    let logical = ["--no-users", "--check-tables", "--resume", "--pause-replication"];
    let cold = ["--allow-unclean", "--snapshot-size=1G", "--tool=/usr/bin/true", "--keep-redo"];
    for flag in logical.into_iter().chain(cold).chain(["--lock-and-copy", "--snapshot=lvm"]) {
        let (name, value) = flag.split_once('=').map_or((flag, None), |(n, v)| (n, Some(v)));
        let flags: Vec<&str> = [name].into_iter().chain(value).collect();
        refused("clone", &flags);
    }
    refused("clone", &["--on-corrupt", "skip"]);
    for flag in ["--clone-others", "--replica-position"] {
        refused("logical", &[flag]);
        refused("snapshot", &[flag]);
    }
    refused("physical", &["--always-lock"]);
    refused("logical", &["--lock-and-copy"]);
}

#[tokio::test]
async fn a_table_has_one_condition() {
    let source = Server::with_shop("mariadb-10.11").await;
    let home = Home::with_repo();
    let url = source.url();
    let one = ["backup", "--source", &url, "--cluster", "shop", "--where", "shop.orders:id<3"];
    let two = [&one[..], &["--where", "shop.orders:id>1"]].concat();
    home.on_repo(two).expect(2).says("two conditions are given for shop.orders");
    // It would be true of every row.
    for more in ["id<3) OR (1", "id<3)", "(id<3", "id IN (1,2)) OR ((1)"] {
        let filter = format!("shop.orders:{more}");
        let args = [&one[..one.len() - 1], &[&filter]].concat();
        home.on_repo(args).expect(2).says("a parenthesis too many");
    }
    home.on_repo(one).expect(0);
}

#[rstest]
#[tokio::test]
async fn limits_that_cannot_be_seen_are_refused(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::with_shop(name).await;
    let home = Home::with_repo();
    let backup = |source: &str, limits: &str, more: &[&str]| {
        let args = ["backup", "--cluster", "c", "--source", source, "--throttle", limits, "--json"];
        home.on_repo(args.into_iter().chain(more.iter().copied()))
    };
    let (socket, tcp) = (server.url(), server.tcp_url("root"));
    backup(&socket, "replica-lag=10s", &[]).expect(2).says("one of the replicas");
    for limit in ["cpu-pressure=40", "io-pressure=40"] {
        backup(&tcp, limit, &[]).expect(2).says("over its socket");
    }
    let paused = backup(&socket, "replica-lag=10s", &["--pause-replication"]).expect(2);
    paused.says("--pause-replication");
    assert_eq!(home.on_repo(["list", "--json"]).expect(0).json(), serde_json::json!([]));

    let document = backup(&socket, "threads-running=1000", &["--threads", "auto"]).expect(0).json();
    assert_eq!((&document["rows"], &document["throttled_seconds"]), (&515.into(), &0.0.into()));
    assert_eq!(document["status"], "ok");
    let id = document["backup"].as_str().unwrap();
    let shown = home.on_repo(["show", id, "--json"]).expect(0).json();
    assert_eq!(shown["details"]["throttled_seconds"], 0.0, "{shown:#}");
}

#[tokio::test]
async fn passwords_come_from_everywhere_and_are_shown_nowhere() {
    let server = Server::with_shop("mysql-9.7").await;
    server::backup_account(&mut server.session().await).await;
    let home = Home::with_repo();
    let escaped = PASSWORD.replace('"', "\\\"");
    home.write("my.cnf", &format!("[client]\nuser=backup\npassword=\"{escaped}\"\n"));
    let encoded: String = PASSWORD.bytes().map(|b| format!("%{b:02X}")).collect();
    let in_url = server.tcp_url(&format!("backup:{encoded}"));
    let url = server.tcp_url("backup");
    let backup = |source: &str, more: &[&str], variable: Option<&str>| {
        let mut command = home.command(["backup", "--cluster", "shop", "--repo", "repo", "-vv"]);
        command.args(["--source", source]).args(more);
        if let Some(password) = variable {
            command.env("HOLDFAST_SOURCE_PASSWORD", password);
        }
        Run::of(&mut command).hides(PASSWORD).hides(&encoded)
    };
    backup(&url, &[], Some(PASSWORD)).expect(0);
    backup(&url, &["--defaults-file", "my.cnf"], None).expect(0);
    backup(&in_url, &[], None).expect(0).says("HOLDFAST_SOURCE_PASSWORD");
    // Standard input is no terminal: nobody is asked.
    backup(&url, &[], None).expect(3).says("1045");
    backup(&url, &[], Some("wrong")).expect(3).says("1045");

    home.write(
        "c.toml",
        &format!(
            "source = \"{url}\"\ncluster = \"shop\"\n[defaults]\ndefaults-file = \"my.cnf\"\n"
        ),
    );
    home.on_repo(["backup", "--config", "c.toml"]).expect(0).hides(PASSWORD);

    for (path, _) in home.files("repo") {
        let bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(PASSWORD.len()).any(|w| w == PASSWORD.as_bytes());
        assert!(!found, "{}", path.display());
    }
}

#[tokio::test]
async fn only_what_was_asked_for_is_backed_up() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    let mut session = server.session().await;
    server::run(&mut session, &["CREATE DATABASE other", "CREATE TABLE other.t (i INT)"]).await;
    let tables = |more: &[&str]| {
        let mut args = vec!["backup", "--cluster", "c", "--json"];
        let url = server.url();
        args.extend(["--source", &url]);
        args.extend(more);
        let backup = home.on_repo(args).expect(0).json()["backup"].clone();
        let shown = home.on_repo(["show", backup.as_str().unwrap(), "--json"]).expect(0).json();
        let name = |t: &serde_json::Value| t["table"].as_str().unwrap().to_owned();
        let tables: Vec<String> = shown["tables"].as_array().unwrap().iter().map(name).collect();
        tables.join(" ")
    };
    assert_eq!(tables(&[]), "other.t shop.customers shop.orders");
    assert_eq!(tables(&["--databases", "other"]), "other.t");
    assert_eq!(tables(&["--tables", "shop.orders,other.t"]), "other.t shop.orders");
    assert_eq!(tables(&["--exclude-tables", "`shop`.`orders`"]), "other.t shop.customers");
}

#[tokio::test]
async fn compression_is_a_choice() {
    let server = Server::with_shop("mysql-9.7").await;
    let mut session = server.session().await;
    server::run(&mut session, &["UPDATE shop.orders SET data = REPEAT(LPAD(id, 10, '0'), 100)"])
        .await;
    let home = Home::with_repo();
    let stored = |compression: &str| {
        let url = server.url();
        let args = ["backup", "--source", &url, "--cluster", compression.trim_end_matches(":9")];
        let run = home.on_repo(args.into_iter().chain(["--compression", compression, "--json"]));
        run.expect(0).json()["bytes_stored"].as_u64().unwrap()
    };
    let (none, auto, zstd) = (stored("none"), stored("auto"), stored("zstd:9"));
    assert!(none > 500_000 && auto < none / 5 && zstd < none / 5, "{none} {auto} {zstd}");
}

/// A small file system; it is gone with the value.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(path: &Path, size: &str) -> SmallDisk {
        std::fs::create_dir(path).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs"])
            .arg(path)
            .status()
            .unwrap();
        assert!(status.success(), "mounting a tmpfs needs root; run this suite as root");
        SmallDisk(path.to_owned())
    }

    pub(crate) fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_ends_the_backup_and_harms_no_other() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::new();
    let _disk = SmallDisk::mount(&home.path("small"), "6m");
    home.run(["init", "--repo", "small/repo", "--no-encryption"]).expect(0);
    let url = server.url();
    let backup = || {
        home.run(["backup", "--repo", "small/repo", "--source", &url, "--cluster", "c", "--json"])
    };
    let first = backup().expect(0).json()["backup"].clone();

    server::double_orders(&mut server.session().await, 5).await;
    let run = backup().expect(5);
    assert_eq!(run.json()["error"]["kind"], "space", "{run:?}");

    let listed = home.run(["list", "--repo", "small/repo", "--json"]).expect(0).json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["backup"], first);
    home.run(["verify", "--repo", "small/repo", "--all"]).expect(0);
}

#[test]
fn a_repository_that_is_a_file_is_noticed_before_the_source() {
    let home = Home::new();
    home.write("repo", "mine");
    home.on_repo(["backup", "--cluster", "c", "--source", "mysql://root@127.0.0.1:1/"]).expect(7);
}

#[tokio::test]
async fn warnings_have_an_exit_code_of_their_own() {
    let server = Server::with_shop("mysql-9.7").await;
    let mut session = server.session().await;
    let broken = [
        "CREATE TABLE shop.old (i INT)",
        "CREATE VIEW shop.of_old AS SELECT i FROM shop.old",
        "DROP TABLE shop.old",
    ];
    server::run(&mut session, &broken).await;
    let home = Home::with_repo();
    let url = server.url();
    let run = home.on_repo(["backup", "--source", &url, "--cluster", "c", "--json"]);
    let document = run.expect(14).says("shop.of_old").json();
    assert_eq!(document["status"], "warnings");
    assert_eq!(document["warnings"].as_array().unwrap().len(), 1, "{document:#}");
    home.on_repo(["verify"]).expect(0);
}

#[tokio::test]
async fn progress_can_be_read_by_programs() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    let url = server.url();
    let args = ["backup", "--source", &url, "--cluster", "c", "--progress", "json"];
    let run = home.on_repo(args).expect(0);
    let lines: Vec<serde_json::Value> =
        run.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|l| l["event"] == "phase" && l["name"] == "rows"), "{run:?}");
    let last = lines.last().unwrap();
    assert_eq!((&last["event"], &last["rows"]), (&"progress".into(), &515.into()), "{run:?}");
    assert!(lines.iter().all(|l| l["time"].is_string()));

    let run = home.on_repo(args.map(|a| if a == "json" { "lines" } else { a })).expect(0);
    assert!(run.stderr.lines().any(|l| l == "holdfast: rows"), "{run:?}");
    let run = home.on_repo(args.map(|a| if a == "json" { "none" } else { a })).expect(0);
    assert_eq!(run.stderr, "");
}

/// A MySQL sends a document that is longer as text than max_allowed_packet as an empty string.
#[tokio::test]
async fn a_document_that_the_source_cannot_send_fails_the_backup() {
    let source = Server::start("mysql-9.7").await;
    let home = Home::with_repo();
    let mut session = source.session().await;
    let work = [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.j (id INT PRIMARY KEY, j JSON)",
        "INSERT INTO shop.j VALUES (1, '[1]'), (2, NULL), (7, JSON_OBJECT('a', REPEAT('q', 3000000)))",
        "SET GLOBAL max_allowed_packet = 1048576",
    ];
    server::run(&mut session, &work).await;
    let url = source.url();
    let backup = ["backup", "--source", &url, "--cluster", "shop"];
    let run = home.on_repo(backup).expect(6).says("shop.j.j (id = 7)");
    run.says("SET GLOBAL max_allowed_packet");
    server::run(&mut session, &["SET GLOBAL max_allowed_packet = 67108864"]).await;
    home.on_repo(backup).expect(0);

    // A target is made to take it, and is as it was then.
    let target = Server::start("mysql-9.7").await;
    let mut there = target.session().await;
    server::run(&mut there, &["SET GLOBAL max_allowed_packet = 1048576"]).await;
    let to = target.url();
    home.on_repo(["restore", "--cluster", "shop", "--target", &to]).expect(0);
    let packet = target.value("SELECT @@GLOBAL.max_allowed_packet").await;
    assert_eq!(packet.as_deref(), Some("1048576"));
    server::run(&mut there, &["SET GLOBAL max_allowed_packet = 67108864"]).await;
    let sum = "SELECT SUM(CRC32(CAST(j AS CHAR))) FROM shop.j";
    assert_eq!(source.value(sum).await, target.value(sum).await);
}
