//! Clones by the command line.

use crate::home::{Home, Run};
use crate::server::{self, Server};

const INSTALL: &str = "INSTALL PLUGIN clone SONAME 'mysql_clone.so'";

#[tokio::test]
async fn what_is_missing_for_a_clone_is_said_in_sql() {
    let server = Server::start("mysql-9.7").await;
    let mut session = server.session().await;
    server::run(&mut session, &["CREATE USER poor@'%' IDENTIFIED BY 'poor'"]).await;
    let home = Home::with_repo();
    let url = server.tcp_url("poor");
    let check = || {
        let mut command = home.command(["check", "--strategy", "clone", "--source", &url]);
        Run::of(command.env("HOLDFAST_SOURCE_PASSWORD", "poor"))
    };
    let grant = "GRANT BACKUP_ADMIN ON *.* TO 'poor'@'%'";
    let run = check();
    assert!(run.stdout.contains(INSTALL) && run.stdout.contains(grant), "{run:?}");
    server::run(&mut session, &[INSTALL]).await;
    let run = check().expect(4);
    assert!(!run.stdout.contains(INSTALL) && run.stdout.contains(grant), "{run:?}");
    server::run(&mut session, &[grant]).await;
    let run = check().expect(0);
    assert!(run.stdout.contains("#ib_archive"), "{run:?}");
}

#[tokio::test]
async fn what_a_clone_leaves_empty_is_dumped_beside_it() {
    let server = Server::with_shop("mysql-9.7").await;
    let mut session = server.session().await;
    server::run(
        &mut session,
        &[
            INSTALL,
            "CREATE TABLE shop.old (i INT NOT NULL) ENGINE=MyISAM",
            "INSERT INTO shop.old VALUES (1), (2)",
            "CREATE TABLE shop.sheet (i INT NOT NULL) ENGINE=CSV",
            "INSERT INTO shop.sheet VALUES (3)",
        ],
    )
    .await;
    let home = Home::with_repo();
    let url = server.url();
    let clone = ["backup", "--strategy", "clone", "--cluster", "c", "--source", &url, "--json"];
    // A spool that cannot be is said before the source has any work.
    let nowhere = clone.into_iter().chain(["--clone-spool", "/nowhere/at/all"]);
    let stderr = home.on_repo(nowhere).expect(2).stderr;
    assert!(stderr.contains("another directory with --clone-spool"), "{stderr}");
    let plain = home.on_repo(clone).expect(14).json();
    assert!(plain["warnings"][0].as_str().unwrap().contains("shop.old (MyISAM)"), "{plain:#}");
    let with = home.on_repo(clone.into_iter().chain(["--clone-others"])).expect(0).json();
    assert_eq!(with["strategy"], "clone");
    let others = with["others"]["backup"].as_str().unwrap();
    assert_eq!(with["others"]["rows"], 3);
    // The newest is the clone, and it comes back beside its tables' rows.
    let shown = home.on_repo(["show", "latest", "--json"]).expect(0).stdout;
    assert!(shown.contains(others), "{shown}");
    server::run(&mut session, &["DELETE FROM shop.old", "DELETE FROM shop.sheet"]).await;
    let back = ["restore", others, "--cluster", "c", "--target", &url, "--overwrite"];
    home.on_repo(back).expect(0);
    let rows = "SELECT (SELECT COUNT(*) FROM shop.old) + (SELECT COUNT(*) FROM shop.sheet)";
    assert_eq!(server.value(rows).await.as_deref(), Some("3"));

    // An account that may not lock the tables: their dump has something to look at, which the clone does not hide.
    server::run(
        &mut session,
        &[
            "CREATE USER frugal@localhost",
            "GRANT BACKUP_ADMIN, RELOAD, REPLICATION CLIENT, SELECT ON *.* TO frugal@localhost",
            "GRANT TRIGGER ON shop.* TO frugal@localhost",
        ],
    )
    .await;
    let url = url.replace("root@", "frugal@");
    let clone = ["backup", "--strategy", "clone", "--cluster", "c", "--source", &url, "--json"];
    let with = home.on_repo(clone.into_iter().chain(["--clone-others"])).expect(14).json();
    assert_eq!(with["warnings"], serde_json::json!([]), "{with:#}");
    let warning = with["others"]["warnings"][0].as_str().unwrap();
    assert!(warning.contains("may not lock them: shop.old (MyISAM)"), "{with:#}");
}
