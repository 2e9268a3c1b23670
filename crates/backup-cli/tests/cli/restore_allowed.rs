//! Restores that the target does not allow: told before anything is done, with what allows them.

use std::process::Stdio;

use rstest::rstest;

use crate::home::{Home, Run};
use crate::server::{self, Server};

#[rstest]
#[tokio::test]
async fn the_grants_that_a_restore_lacks_are_printed(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::with_shop(name).await;
    let mut session = server.session().await;
    let account = [
        "SET GLOBAL local_infile = ON",
        "CREATE USER poor@'%' IDENTIFIED BY 'poor'",
        "GRANT SELECT, INSERT ON shop.* TO poor@'%'",
        "CREATE DATABASE half CHARACTER SET utf8mb4",
        "GRANT CREATE, INSERT ON half.* TO poor@'%'",
    ];
    server::run(&mut session, &account).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "c"]).expect(0);
    let url = server.tcp_url("poor");
    let restore = |to: &str, more: &[&str]| {
        let rename = format!("shop={to}");
        let args = ["restore", "--cluster", "c", "--target", &url, "--rename", &rename, "--json"];
        let tables = ["--tables", "shop.customers,shop.orders"];
        let mut command = home.command([&args[..], &tables, more].concat());
        command.env("HOLDFAST_REPO", "repo").env("HOLDFAST_TARGET_PASSWORD", "poor");
        Run::of(&mut command)
    };
    for (to, lacks) in [
        ("fresh", "GRANT CREATE, DELETE, DROP, INSERT, SELECT ON `fresh`.* TO 'poor'@'%'"),
        ("half", "GRANT DELETE, DROP, SELECT ON `half`.* TO 'poor'@'%'"),
    ] {
        for more in [&["--dry-run"][..], &[]] {
            let run = restore(to, more).expect(4);
            let error = run.json()["error"].clone();
            assert_eq!(error["remedy"], lacks, "{run:#?}");
            assert!(
                !run.stderr.contains("half restored") && !run.stderr.contains("holdfast check")
            );
            // As the page of exit codes says: nothing was touched.
            let touched = "SELECT CONCAT((SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = \
                           'fresh'), '-', (SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = \
                           'half'))";
            let fresh = if to == "fresh" { "0-0" } else { "1-0" };
            assert_eq!(server.value(touched).await.as_deref(), Some(fresh), "{run:#?}");
        }
        server::run(&mut session, &[lacks]).await;
        restore(to, &["--dry-run"]).expect(0);
        restore(to, &[]).expect(0);
        assert_eq!(server.content(to).await, server.content("shop").await);
    }
}

/// Who may not make code in the name of others is told so before the rows.
#[rstest]
#[tokio::test]
async fn the_grant_for_other_definers_is_printed(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let server = Server::start(name).await;
    let mut session = server.session().await;
    let content = [
        "SET GLOBAL local_infile = ON, GLOBAL log_bin_trust_function_creators = ON",
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (id INT PRIMARY KEY)",
        "INSERT INTO shop.t VALUES (1)",
        "CREATE USER other@'%'",
        "GRANT ALL ON shop.* TO other@'%'",
        "CREATE DEFINER=other@'%' FUNCTION shop.f() RETURNS INT DETERMINISTIC RETURN 1",
        "CREATE USER poor@'%' IDENTIFIED BY 'poor'",
        "GRANT ALL ON copy.* TO poor@'%'",
    ];
    server::run(&mut session, &content).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "c"]).expect(0);
    let url = server.tcp_url("poor");
    let restore = |more: &[&str]| {
        let args = ["restore", "--cluster", "c", "--target", &url, "--databases", "shop"];
        let last = ["--rename", "shop=copy", "--json"];
        let mut command = home.command([&args[..], &last, more].concat());
        command.env("HOLDFAST_REPO", "repo").env("HOLDFAST_TARGET_PASSWORD", "poor");
        Run::of(&mut command)
    };
    let grant = match name {
        "mysql-9.7" => "GRANT SET_ANY_DEFINER ON *.* TO 'poor'@'%'",
        _ => "GRANT SET USER ON *.* TO 'poor'@'%'",
    };
    let there = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'copy'";
    for more in [&["--dry-run"][..], &[]] {
        let run = restore(more).expect(4);
        let remedy = run.json()["error"]["remedy"].as_str().unwrap().to_owned();
        assert!(remedy.starts_with(grant) && remedy.contains("--definers strip"), "{run:#?}");
        assert_eq!(server.value(there).await.as_deref(), Some("0"), "{run:#?}");
    }
    restore(&["--definers", "strip"]).expect(0);
    server::run(&mut session, &["DROP DATABASE copy"]).await;
    restore(&["--map-definer", "other@%=poor@%"]).expect(0);
    server::run(&mut session, &["DROP DATABASE copy", grant]).await;
    restore(&["--dry-run"]).expect(0);
    restore(&[]).expect(0);
}

/// What is added to tables when they have their rows takes more than making them.
#[rstest]
#[tokio::test]
async fn the_grants_for_indexes_and_foreign_keys_are_printed(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let mysql = name.starts_with("mysql");
    let server = Server::start(name).await;
    let mut session = server.session().await;
    let ten = "SELECT 0 UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 \
               UNION SELECT 7 UNION SELECT 8 UNION SELECT 9";
    let rows = format!(
        "INSERT INTO shop.big (p) WITH d (n) AS ({ten}) SELECT 1 FROM d a, d b, d c, d e, d f WHERE f.n < 2"
    );
    let tables = [
        "SET GLOBAL local_infile = ON",
        "CREATE DATABASE shop",
        "CREATE DATABASE own",
        "CREATE TABLE own.parent (id INT PRIMARY KEY)",
        "INSERT INTO own.parent VALUES (1)",
        "CREATE TABLE shop.big (id INT AUTO_INCREMENT PRIMARY KEY, p INT, q INT, KEY (q), \
         FOREIGN KEY (p) REFERENCES own.parent (id))",
        &rows,
        "CREATE USER poor@'%' IDENTIFIED BY 'poor'",
        "GRANT CREATE, INSERT, SELECT, DELETE, DROP ON shop.* TO poor@'%'",
    ];
    server::run(&mut session, &tables).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "c"]).expect(0);
    server::run(&mut session, &["DROP TABLE shop.big"]).await;
    let url = server.tcp_url("poor");
    let restore = |more: &[&str]| {
        let args =
            ["restore", "--cluster", "c", "--target", &url, "--tables", "shop.big", "--json"];
        let mut command = home.command([&args[..], more].concat());
        command.env("HOLDFAST_REPO", "repo").env("HOLDFAST_TARGET_PASSWORD", "poor");
        Run::of(&mut command)
    };
    let mut lacks = String::new();
    for more in [&["--dry-run"][..], &[]] {
        let error = restore(more).expect(4).json()["error"].clone();
        lacks = error["remedy"].as_str().unwrap().to_owned();
        let on_parent =
            if mysql { "GRANT REFERENCES ON `own`.*" } else { "GRANT SELECT ON `own`.*" };
        assert!(
            lacks.contains("GRANT ALTER ON `shop`.*") && lacks.contains(on_parent),
            "{error:#}"
        );
    }
    let there = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'shop'";
    assert_eq!(server.value(there).await.as_deref(), Some("0"));
    // They are all that it takes.
    server::run(&mut session, &lacks.split("; ").collect::<Vec<_>>()).await;
    restore(&["--dry-run"]).expect(0);
    restore(&[]).expect(0);
    assert_eq!(server.value("SELECT COUNT(*) FROM shop.big").await.as_deref(), Some("20000"));
}

#[rstest]
#[tokio::test]
async fn a_target_that_takes_no_changes_is_found_beforehand(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::with_shop(name).await;
    let mut session = server.session().await;
    let account = [
        "CREATE USER poor@'%' IDENTIFIED BY 'poor'",
        "GRANT SELECT, INSERT, CREATE, DELETE, DROP, ALTER ON *.* TO poor@'%'",
        "SET GLOBAL local_infile = ON",
        "SET GLOBAL read_only = ON",
    ];
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "c"]).expect(0);
    server::run(&mut session, &account).await;
    let restore = |user: &str, to: &str, more: &[&str]| {
        let (url, rename) = (server.tcp_url(user), format!("shop={to}"));
        let args = ["restore", "--cluster", "c", "--target", &url, "--rename", &rename];
        let tables = ["--tables", "shop.customers"];
        let mut command = home.command([&args[..], &tables, more].concat());
        command.env("HOLDFAST_REPO", "repo").env("HOLDFAST_TARGET_PASSWORD", "poor");
        Run::of(&mut command)
    };
    for more in [&["--dry-run"][..], &[]] {
        let run = restore("poor", "copy", more).expect(9).says("read_only: the target takes");
        run.says("SET GLOBAL read_only = OFF").says("TO 'poor'@'%'");
    }
    // Who may all the same is not kept from it.
    let may = match name.starts_with("mysql") {
        true => "GRANT CONNECTION_ADMIN ON *.* TO poor@'%'",
        false => "GRANT READ_ONLY ADMIN ON *.* TO poor@'%'",
    };
    server::run(&mut session, &[may]).await;
    restore("poor", "copy", &[]).expect(0);
    if name.starts_with("mysql") {
        server::run(&mut session, &["SET GLOBAL super_read_only = ON"]).await;
        for more in [&["--dry-run"][..], &[]] {
            restore("poor", "other", more).expect(9).says("super_read_only: the target takes no");
        }
    }
}

/// What broke off before anything was made did not leave half of it.
#[tokio::test]
async fn nothing_is_left_half_restored_that_was_not_begun() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "c"]).expect(0);
    let mut holder = server.session().await;
    server::run(&mut holder, &["FLUSH TABLES WITH READ LOCK"]).await;
    let url = server.url();
    let restore = ["restore", "--cluster", "c", "--target", &url, "--rename", "shop=copy"];
    let mut command = home.command(restore);
    command.env("HOLDFAST_REPO", "repo").stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let waits = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'CREATE DATABASE%'";
    let id = loop {
        if let Some(id) = holder.query_first::<u64>(waits).await.unwrap() {
            break id;
        }
    };
    server::run(&mut holder, &[&format!("KILL QUERY {id}")]).await;
    let run = Run::from(child.wait_with_output().unwrap()).says("nothing was restored into");
    assert!(run.code != Some(0) && !run.stderr.contains("half restored"), "{run:?}");
    assert_eq!(run.stderr.matches("command again").count(), 1, "{run:?}");
    server::run(&mut holder, &["UNLOCK TABLES"]).await;
    home.on_repo(restore).expect(0);
}
