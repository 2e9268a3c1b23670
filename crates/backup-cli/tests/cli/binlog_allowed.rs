//! What stands in the way of a restore to a point is told before the first row.

use rstest::rstest;

use crate::home::Home;
use crate::server::{self, PASSWORD, Server};

const SCHEMATA: &str =
    "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'shop'";

/// A repository with a backup of `shop` with a trigger, and the binlogs behind it.
pub(crate) async fn archived(name: &str) -> (Home, Server) {
    let source = Server::with_shop(name).await;
    let mut session = source.session().await;
    let more = [
        "CREATE TRIGGER shop.stamp BEFORE INSERT ON shop.orders FOR EACH ROW SET NEW.amount = NEW.amount + 0",
        "CREATE FUNCTION shop.one() RETURNS INT DETERMINISTIC RETURN 1",
    ];
    server::run(&mut session, &more).await;
    let home = Home::with_repo();
    let url = source.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (4, 'd', NULL)"]).await;
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
    (home, source)
}

#[rstest]
#[tokio::test]
async fn what_the_account_lacks(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let mysql = name.starts_with("mysql");
    let (home, source) = archived(name).await;
    let target = Server::start(name).await;
    let mut root = target.session().await;
    let password = PASSWORD.replace('\\', "\\\\").replace('\'', "''");
    server::run(
        &mut root,
        &[
            &format!("CREATE USER poor@'%' IDENTIFIED BY '{password}'"),
            "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, LOCK TABLES, \
             CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE ON *.* TO poor@'%'",
        ],
    )
    .await;
    let to = target.tcp_url("poor");
    let restore = |more: &[&str]| {
        let all =
            ["restore", "--cluster", "shop", "--target", &to, "--no-users", "--definers", "strip"];
        let mut command = home.command([&all, more].concat());
        command.env("HOLDFAST_REPO", "repo").env("HOLDFAST_TARGET_PASSWORD", PASSWORD);
        crate::home::Run::of(&mut command)
    };
    // Neither way goes. A plan says so, and what it would not do is not begun.
    let (replica, direct) = match mysql {
        true => ("GRANT REPLICATION_SLAVE_ADMIN ON *.*", "GRANT REPLICATION_APPLIER ON *.*"),
        false => ("GRANT REPLICATION SLAVE ADMIN ON *.*", "GRANT BINLOG REPLAY ON *.*"),
    };
    for more in [&["--dry-run"][..], &[]] {
        let run = restore(&[&["--to-latest"], more].concat()).expect(4);
        run.says("nor apply binlogs over a client connection").says(replica).says(direct);
        let run = restore(&[&["--to-latest", "--apply", "replica"], more].concat()).expect(4);
        assert!(run.says(replica).stderr.find(direct).is_none());
        let run = restore(&[&["--to-latest", "--apply", "direct"], more].concat()).expect(4);
        assert_eq!(run.stderr.matches(direct).count(), 1, "{run:?}");
    }
    // The slow way goes; the trigger is missing one privilege, and then the server's trust.
    let granted: &[&str] = match mysql {
        true => &["GRANT REPLICATION_APPLIER, SYSTEM_VARIABLES_ADMIN ON *.* TO poor@'%'"],
        false => &["GRANT BINLOG REPLAY ON *.* TO poor@'%'"],
    };
    server::run(&mut root, granted).await;
    for more in [&["--dry-run"][..], &[]] {
        let run = restore(&[&["--to-latest"], more].concat()).expect(4);
        run.says("slower").says("GRANT TRIGGER ON `shop`.`orders`");
    }
    server::run(&mut root, &["GRANT TRIGGER ON *.* TO poor@'%'"]).await;
    // Who may make the server trust needs nobody to do it; SUPER is never asked for.
    for more in [&["--dry-run"][..], &[]].into_iter().filter(|_| !mysql) {
        let run = restore(&[&["--to-latest"], more].concat()).expect(4);
        let run = run.says("ERROR 1419").says("SET GLOBAL log_bin_trust_function_creators = 1");
        run.says("GRANT BINLOG ADMIN");
    }
    assert_eq!(target.value(SCHEMATA).await.as_deref(), Some("0"));
    if !mysql {
        server::run(&mut root, &["GRANT BINLOG ADMIN ON *.* TO poor@'%'"]).await;
    }
    restore(&["--to-latest", "--dry-run"]).expect(0).says("slower");
    let run = restore(&["--to-latest"]);
    assert!(matches!(run.code, Some(0 | 14)), "{run:?}");
    assert_eq!(target.content("shop").await, source.content("shop").await);
    let trusts = target.value("SELECT @@GLOBAL.log_bin_trust_function_creators").await;
    assert_eq!(trusts.as_deref(), Some("0"));
}

#[rstest]
#[tokio::test]
async fn what_the_server_is_set_to(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let (home, source) = archived(name).await;
    let unsafe_one = [
        "SET GLOBAL log_bin_trust_function_creators = 1",
        "CREATE FUNCTION shop.two() RETURNS INT RETURN 2",
    ];
    server::run(&mut source.session().await, &unsafe_one).await;
    home.on_repo(["backup", "--source", &source.url(), "--cluster", "shop"]).expect(0);
    let target = Server::start(name).await;
    let mut root = target.session().await;
    server::run(
        &mut root,
        &[
            "SET GLOBAL local_infile = OFF",
            "CREATE USER poor@'%' IDENTIFIED BY 'Secret-1'",
            "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, LOCK TABLES, \
             CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, TRIGGER ON *.* TO poor@'%'",
        ],
    )
    .await;
    let plain = ["restore", "--cluster", "shop", "--no-users", "--definers", "strip", "--target"];
    let (poor, to) = (target.tcp_url("poor"), target.url());
    let restore = |to: &str, more: &[&str]| {
        let mut command = home.command([&plain[..], &[to], more].concat());
        command.env("HOLDFAST_REPO", "repo");
        if to == poor {
            command.env("HOLDFAST_TARGET_PASSWORD", "Secret-1");
        }
        crate::home::Run::of(&mut command)
    };
    for more in [&["--dry-run"][..], &[]] {
        restore(&poor, more).expect(4).says("SET GLOBAL local_infile = ON");
    }
    server::run(&mut root, &["SET GLOBAL local_infile = ON"]).await;
    for more in [&["--dry-run"][..], &[]] {
        restore(&poor, &[&["--binlog", "off"], more].concat()).expect(4).says("--binlog on");
    }
    let may = match name.starts_with("mysql") {
        true => "SYSTEM_VARIABLES_ADMIN",
        false => "BINLOG ADMIN",
    };
    for more in [&["--dry-run"][..], &[]] {
        let run = restore(&poor, more).expect(4).says("shop.two").says("ERROR 1418");
        let run = run.says("SET GLOBAL log_bin_trust_function_creators = 1");
        run.says(&format!("GRANT {may} ON *.* TO 'poor'@'%'"));
    }
    assert_eq!(target.value(SCHEMATA).await.as_deref(), Some("0"));
    let trusts = "SELECT @@GLOBAL.log_bin_trust_function_creators";
    let again = ["DROP DATABASE shop", &format!("GRANT {may} ON *.* TO poor@'%'")];
    // Who may have the server trust for the time of the restore, root or another, does.
    for url in [&to, &poor] {
        restore(url, &["--dry-run"]).expect(0);
        restore(url, &[]).expect(0);
        assert_eq!(target.value(trusts).await.as_deref(), Some("0"));
        assert_eq!(target.value("SELECT shop.two()").await.as_deref(), Some("2"));
        assert_eq!(target.content("shop").await, source.content("shop").await);
        server::run(&mut root, &again).await;
    }
    // Or the server does anyway.
    let revoke = format!("REVOKE {may} ON *.* FROM poor@'%'");
    server::run(&mut root, &[&revoke, "SET GLOBAL log_bin_trust_function_creators = 1"]).await;
    restore(&poor, &[]).expect(0);
    assert_eq!(target.value(trusts).await.as_deref(), Some("1"));
    assert_eq!(target.content("shop").await, source.content("shop").await);
}

#[rstest]
#[case("mysql-9.7", "mariadb-10.11")]
#[case("mariadb-10.11", "mysql-9.7")]
#[tokio::test]
async fn binlogs_are_for_their_own_family(#[case] name: &str, #[case] other: &str) {
    let (home, _source) = archived(name).await;
    let target = Server::start(other).await;
    let to = target.url();
    let restore = ["restore", "--cluster", "shop", "--target", &to, "--no-users", "--to-latest"];
    let apply = ["binlog", "apply", "--cluster", "shop", "--target", &to, "--to-latest"];
    for command in [&restore[..], &apply] {
        for more in [&["--dry-run"][..], &[]] {
            let run = home.on_repo([command, more].concat()).expect(9);
            run.says("the binlogs of one are not for the other").says("without a point in time");
        }
    }
    assert_eq!(target.value(SCHEMATA).await.as_deref(), Some("0"));
}

#[rstest]
#[tokio::test]
async fn an_empty_target_is_at_no_time_before_the_archive(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let (home, _source) = archived(name).await;
    let target = Server::start(name).await;
    let to = target.url();
    let early = "2020-01-01T00:00:00Z";
    let apply = ["binlog", "apply", "--cluster", "shop", "--target", &to, "--to-time", early];
    for more in [&["--dry-run"][..], &[]] {
        home.on_repo([&apply, more].concat())
            .expect(10)
            .says("before everything that is archived")
            .says("begin with a backup");
    }
    let restore = ["restore", "--cluster", "shop", "--target", &to, "--to-time", early];
    home.on_repo(restore).expect(10).says("no full backup is older");
    assert_eq!(target.value(SCHEMATA).await.as_deref(), Some("0"));
    // A moment that the clocks showed twice is none, before anything is looked at.
    let twice = ["restore", "--cluster", "shop", "--target", &to, "--to-time"];
    let run =
        home.on_repo([&twice[..], &["2025-10-26T02:30:00[Europe/Berlin]"]].concat()).expect(2);
    run.says("twice").says("2025-10-26T00:30:00Z").says("2025-10-26T01:30:00Z");
}

/// The account that a new replica signs in with is asked for before anything is restored.
#[rstest]
#[tokio::test]
async fn what_a_replica_lacks_at_its_source(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let (home, source) = archived(name).await;
    let mut root = source.session().await;
    let password = PASSWORD.replace('\\', "\\\\").replace('\'', "''");
    let poor = format!("CREATE USER poor@'%' IDENTIFIED BY '{password}'");
    server::run(&mut root, &[&poor, "GRANT SELECT ON *.* TO poor@'%'"]).await;
    let target = Server::start(name).await;
    server::run(&mut target.session().await, &["SET GLOBAL server_id = 77"]).await;
    let (to, from) = (target.url(), source.tcp_url("poor"));
    let directory = home.path("target");
    let tool = server::install(name);
    let server = ["--target", &to];
    let files =
        ["--target-dir", directory.to_str().unwrap(), "--server-dir", tool.to_str().unwrap()];
    home.on_repo([
        "backup",
        "--cluster",
        "files",
        "--strategy",
        "physical",
        "--lock-and-copy",
        "--source",
        &source.url(),
    ])
    .expect(0);
    for (cluster, place) in [("shop", &server[..]), ("files", &files)] {
        for more in [&["--dry-run"][..], &[]] {
            let args = ["restore", "--cluster", cluster, "--as-replica-of", &from];
            let mut command = home.command([&args[..], place, more].concat());
            command.env("HOLDFAST_REPO", "repo").env("HOLDFAST_SOURCE_PASSWORD", PASSWORD);
            let run = crate::home::Run::of(&mut command).expect(4);
            run.says("may not replicate from there").says("GRANT REPLICATION SLAVE ON *.*");
        }
    }
    assert_eq!(target.value(SCHEMATA).await.as_deref(), Some("0"));
    assert!(!directory.exists());
}
