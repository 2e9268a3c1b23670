//! The GTIDs of a backup of MariaDB are all that its data have, whoever wrote it and whichever log has it.

use rstest::rstest;

use crate::home::Home;
use crate::server::{self, Server, install};

/// Takes a backup in one of the ways, and gives its GTIDs.
fn gtids(home: &Home, server: &Server, name: &str, how: &str) -> String {
    let (url, tool) = (server.url(), install(name));
    let mut args = vec!["backup", "--source", &url, "--cluster", "shop", "--json"];
    match how {
        "logical" => args.extend(["--strategy", "logical"]),
        "locked" => args.extend(["--strategy", "logical", "--always-lock"]),
        "files" => args.extend(["--strategy", "physical", "--lock-and-copy"]),
        _ => args.extend(["--strategy", "physical", "--tool", tool.to_str().unwrap()]),
    }
    let document = home.on_repo(args).expect(0).json();
    document["position"]["gtid"].as_str().unwrap_or_default().to_owned()
}

/// `mariadb-binlog | mariadb` leaves the numbers of the server that wrote the log. `gtid_current_pos`, which
/// `mariadb-backup` tells, passes over them.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_another_server_wrote_into_the_log_is_not_applied_again(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
    #[values("logical", "files", "tool")] how: &str,
) {
    let home = Home::with_repo();
    let server = Server::start(name).await;
    let mut session = server.session().await;
    let own = ["CREATE DATABASE shop", "CREATE TABLE shop.log (t VARCHAR(20))"];
    server::run(&mut session, &[&own[..], &["INSERT INTO shop.log VALUES ('own')"]].concat()).await;
    let piped =
        ["SET gtid_domain_id = 20, server_id = 77", "INSERT INTO shop.log VALUES ('piped')"];
    server::run(&mut session, &piped).await;
    let logged = server.value("SELECT @@gtid_binlog_pos").await.unwrap();
    assert!(logged.contains("20-77-"), "{logged}");
    assert_eq!(gtids(&home, &server, name, how), logged);

    let mut session = server.session().await;
    server::run(&mut session, &["INSERT INTO shop.log VALUES ('after')"]).await;
    let url = server.url();
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let rows = "SELECT GROUP_CONCAT(t ORDER BY t) FROM shop.log";
    let target = Server::start(name).await;
    let tool = install(name);
    let mut restore = vec!["restore", "--cluster", "shop", "--to-latest"];
    let (to, directory) = (target.url(), home.path("target"));
    match how {
        "logical" => restore.extend(["--target", &to]),
        _ => restore.extend(["--target-dir", directory.to_str().unwrap(), "--server-dir"]),
    }
    match how {
        "logical" => {}
        "tool" => restore.extend([tool.to_str().unwrap(), "--tool", tool.to_str().unwrap()]),
        _ => restore.push(tool.to_str().unwrap()),
    }
    home.on_repo(restore).expect(0);
    let found = match how {
        "logical" => target.value(rows).await,
        _ => {
            let cx = backup_core::Context::builder().build();
            let builder = xtask::servers::sandbox(name).await.unwrap().datadir(&directory);
            Server(builder.start(&cx).await.unwrap()).value(rows).await
        }
    };
    assert_eq!(found.as_deref(), Some("after,own,piped"));
}

/// What replication brought is in the data, where the server's own log has it as little as where the log began anew.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_replicated_is_in_the_position(
    #[values("logical", "locked", "files", "tool")] how: &str,
    #[values("ON", "OFF")] log_slave_updates: &str,
) {
    let name = "mariadb-10.11";
    let home = Home::with_repo();
    let cx = backup_core::Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap().durable(false).binary_log(true);
    let builder = builder.option("log-slave-updates", log_slave_updates);
    let server = Server(builder.start(&cx).await.unwrap());
    let mut session = server.session().await;
    // It was a primary, and is a replica now.
    let before = ["CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY)"];
    server::run(&mut session, &before).await;
    server::run(&mut session, &["SET GLOBAL gtid_slave_pos = '0-79-5009,3-80-4'"]).await;
    assert_eq!(gtids(&home, &server, name, how), "0-79-5009,3-80-4");
    // And a primary again.
    server::run(&mut session, &["INSERT INTO shop.t VALUES (1)"]).await;
    let own = server.value("SELECT @@gtid_binlog_pos").await.unwrap();
    assert!(own.ends_with("-5010"), "{own}");
    if how == "logical" {
        let url = server.url();
        home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
        let target = Server::start(name).await;
        let to = target.url();
        let restore = ["restore", "--cluster", "shop", "--to-latest", "--target", &to];
        home.on_repo(restore).expect(0);
        assert_eq!(target.value("SELECT COUNT(*) FROM shop.t").await.as_deref(), Some("1"));
    }
    assert_eq!(gtids(&home, &server, name, how), format!("{own},3-80-4"));
}
