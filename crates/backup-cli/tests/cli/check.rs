use rstest::rstest;

use crate::home::{Home, Run};
use crate::server::{self, PASSWORD, Server};

#[rstest]
#[tokio::test]
async fn a_source_that_is_ready(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let server = Server::with_shop(name).await;
    let home = Home::with_repo();
    let run = home.on_repo(["check", "--source", &server.url(), "--json"]).expect(0);
    let document = run.json();
    assert_eq!(document["ok"], true);
    let findings = document["findings"].as_array().unwrap();
    assert!(findings.iter().all(|f| f["severity"] != "error"), "{document:#}");
    let room =
        |f: &&serde_json::Value| f["problem"].as_str().unwrap().contains(" free; the source");
    assert_eq!(findings.iter().filter(room).count(), 1, "{document:#}");

    let run = home.run(["check", "--source", &server.url()]).expect(0);
    assert!(run.stdout.contains("can be backed up"), "{run:?}");
}

#[tokio::test]
async fn a_repository_that_cannot_be_used_is_a_finding() {
    let server = Server::start("mysql-9.7").await;
    let home = Home::new();
    let run = home.on_repo(["check", "--source", &server.url()]).expect(7);
    assert!(run.stdout.contains("there is no repository"), "{run:?}");
}

#[rstest]
#[tokio::test]
async fn a_missing_privilege_is_named_with_its_grant(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::with_shop(name).await;
    let mut session = server.session().await;
    server::run(&mut session, &["CREATE USER poor@'%' IDENTIFIED BY 'poor'"]).await;
    let home = Home::with_repo();
    let url = server.tcp_url("poor");
    let run = |args: &[&str]| {
        let mut command = home.command(args);
        command.args(["--source", &url, "--repo", "repo", "--json"]);
        Run::of(command.env("HOLDFAST_SOURCE_PASSWORD", "poor"))
    };
    let document = run(&["check"]).expect(4).json();
    assert_eq!(document["ok"], false);
    let findings = document["findings"].as_array().unwrap();
    let grant = |f: &serde_json::Value| f["remedy"].as_str().unwrap().contains("GRANT ");
    assert!(findings.iter().any(|f| f["kind"] == "privilege" && grant(f)), "{document:#}");

    let error = run(&["backup", "--cluster", "c"]).expect(4).json()["error"].clone();
    assert_eq!(error["kind"], "privilege");
    assert!(error["remedy"].as_str().unwrap().contains("GRANT "), "{error:#}");
}

/// Whoever may read one database is told what that takes, and no more.
#[rstest]
#[tokio::test]
async fn a_part_of_a_server_needs_less(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let server = Server::with_shop(name).await;
    let mut session = server.session().await;
    let (position, routines) = match name.starts_with("mysql") {
        true => ("REPLICATION CLIENT", "GRANT SHOW_ROUTINE ON *.* TO part@'%'"),
        false => ("BINLOG MONITOR", "GRANT SELECT ON mysql.proc TO part@'%'"),
    };
    let grant = format!("GRANT {position}, RELOAD ON *.* TO part@'%'");
    let statements = [
        "CREATE USER part@'%' IDENTIFIED BY 'part'",
        "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON shop.* TO part@'%'",
        routines,
        grant.as_str(),
    ];
    server::run(&mut session, &statements).await;
    let home = Home::with_repo();
    let url = server.tcp_url("part");
    let run = |args: &[&str]| {
        let mut command = home.command(args);
        command.args(["--source", &url, "--repo", "repo"]);
        Run::of(command.env("HOLDFAST_SOURCE_PASSWORD", "part"))
    };
    run(&["check"]).expect(4);
    run(&["check", "--databases", "shop"]).expect(0);
    run(&["check", "--tables", "shop.*", "--exclude-tables", "shop.orders"]).expect(0);
    run(&["check", "--databases", "no*"]).expect(2).says("nothing fits");
    run(&["check", "--databases", "shop", "--strategy", "clone"]).expect(2).says("whole server");
    run(&["backup", "--cluster", "c", "--databases", "shop"]).expect(0);
}

#[test]
fn a_server_that_is_not_there() {
    let home = Home::new();
    for address in ["127.0.0.1:1", "no-such-host.invalid", "localhost/?socket=/no/such/socket"] {
        home.run(["check", "--source", &format!("mysql://root@{address}")]).expect(3);
    }
}

#[tokio::test]
async fn a_wrong_password_is_answered_in_the_servers_words() {
    let server = Server::start("mysql-9.7").await;
    server::backup_account(&mut server.session().await).await;
    let home = Home::new();
    let mut command = home.command(["check", "--json", "--source", &server.tcp_url("backup")]);
    command.env("HOLDFAST_SOURCE_PASSWORD", format!("x{PASSWORD}"));
    let run = Run::of(&mut command).expect(3).says("1045").hides(PASSWORD);
    let server = &run.json()["error"]["server"];
    assert_eq!((&server["code"], &server["state"]), (&1045.into(), &"28000".into()));
}

/// A backup refuses it, so the look before it does.
#[tokio::test]
async fn a_key_that_a_repository_has_no_use_for_is_found() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    home.write("secret", "a passphrase that locks nothing\n");
    let url = server.url();
    let with_key = |command: &[&str]| {
        let key = ["--source", &url, "--passphrase-file", "secret"];
        home.on_repo([command, &key].concat())
    };
    let said = "a passphrase or key file was given, and the repository in repo is not encrypted";
    with_key(&["backup", "--cluster", "c"]).expect(2).says(said);
    let run = with_key(&["check"]).expect(2);
    assert!(run.stdout.contains("cannot be backed up yet") && run.stdout.contains(said), "{run:?}");
}

/// What the server estimates of tables lags behind what was loaded a moment ago.
#[rstest]
#[tokio::test]
async fn young_data_count_in_full(
    #[values(("mysql-9.7", "clone"), ("mysql-9.7", "physical"), ("mariadb-10.11", "physical"))]
    case: (&str, &str),
) {
    let (name, strategy) = case;
    let server = Server::start(name).await;
    let mut session = server.session().await;
    if strategy == "clone" {
        server::run(&mut session, &["INSTALL PLUGIN clone SONAME 'mysql_clone.so'"]).await;
    }
    // Its figures are those of the empty table as long as nobody counts anew.
    let load = [
        "CREATE DATABASE young",
        "CREATE TABLE young.t (id INT AUTO_INCREMENT PRIMARY KEY, b BLOB) STATS_AUTO_RECALC=0, STATS_PERSISTENT=1",
        "INSERT INTO young.t (b) VALUES (RANDOM_BYTES(1000))",
    ];
    server::run(&mut session, &load).await;
    let double = "INSERT INTO young.t (b) SELECT RANDOM_BYTES(1000) FROM young.t";
    server::run(&mut session, &vec![double; 15]).await;
    let file = std::fs::metadata(server.0.datadir().join("young/t.ibd")).unwrap().len();
    assert!(file > 30 << 20, "{file}");
    let home = Home::with_repo();
    let url = server.url();
    let tool = server::install(name);
    let mut check = vec!["check", "--strategy", strategy, "--source", &url, "--json"];
    if strategy == "physical" {
        check.extend(["--tool", tool.to_str().unwrap()]);
    }
    let run = home.on_repo(check);
    let document = run.json();
    let findings = document["findings"].as_array().unwrap();
    let room = findings.iter().find_map(|f| f["problem"].as_str()?.split_once("the source has "));
    let (_, said) = room.unwrap_or_else(|| panic!("{document:#}"));
    let mut words = said.split(' ');
    let (number, unit) = (words.next().unwrap().parse::<f64>().unwrap(), words.next().unwrap());
    assert_eq!(unit, "MiB", "{said}");
    assert!(number * f64::from(1 << 20) > 0.98 * file as f64, "{said}, and the file has {file}");
}
