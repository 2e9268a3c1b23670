//! Users and roles at targets with rules for passwords, or without a plugin: made as far as these let them, and told of
//! beforehand else.

use crate::export::client;
use crate::home::{Home, Run};
use crate::server::{self, Server};

fn restore(home: &Home, target: &Server, more: &[&str]) -> Run {
    let url = target.url();
    home.on_repo([&["restore", "--cluster", "c", "--target", &url][..], more].concat())
}

/// How many of these there are.
async fn count(server: &Server, names: &str) -> Option<String> {
    server.value(&format!("SELECT COUNT(*) FROM mysql.user WHERE User IN ({names})")).await
}

#[tokio::test]
async fn roles_come_to_a_mysql_that_checks_passwords() {
    const RULES: &str = "INSTALL COMPONENT 'file://component_validate_password'";
    let source = Server::start("mysql-9.7").await;
    let content = [
        "INSTALL PLUGIN auth_socket SONAME 'auth_socket.so'",
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY)",
        "CREATE ROLE plain",
        "CREATE ROLE other",
        "ALTER USER other PASSWORD HISTORY 3 COMMENT 'of its own'",
        "GRANT SELECT ON d.* TO plain",
        "CREATE USER able IDENTIFIED BY 'x'",
        "GRANT plain, other TO able",
        "CREATE USER open",
        "CREATE USER here@localhost IDENTIFIED WITH auth_socket",
    ];
    server::run(&mut source.session().await, &content).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &source.url(), "--cluster", "c"]).expect(0);
    let target = Server::start("mysql-9.7").await;
    let mut root = target.session().await;
    server::run(&mut root, &[RULES]).await;
    let dry = restore(&home, &target, &["--dry-run"]);
    let told = format!("{}{}", dry.stdout, dry.stderr);
    for text in [
        "open@%: the account has no password and is not created",
        "UNINSTALL COMPONENT 'file://component_validate_password'",
        "here@localhost: the account is not created: the target has no authentication plugin auth_socket",
    ] {
        assert!(told.contains(text), "{text}: {dry:?}");
    }
    assert!(!told.contains("plain@%: the") && !told.contains("other@%: the"), "{dry:?}");
    restore(&home, &target, &[]).expect(14).says("cannot create the account open@%");
    assert_eq!(count(&target, "'plain', 'other', 'able'").await.as_deref(), Some("3"));
    for name in ["plain", "other"] {
        let create = async |server: &Server| {
            let sql = format!("SHOW CREATE USER {name}");
            server.session().await.query_first::<String>(&sql).await.unwrap()
        };
        assert_eq!(create(&target).await, create(&source).await);
    }
    let grants: Vec<String> = root.query_rows("SHOW GRANTS FOR able").await.unwrap();
    assert!(grants.concat().contains("`plain`@`%`"), "{grants:?}");

    // As a file, which no account without a password can go into.
    let without = ["DROP USER open, here@localhost, other"];
    server::run(&mut source.session().await, &without).await;
    home.on_repo(["backup", "--source", &source.url(), "--cluster", "c"]).expect(0);
    let file = home.path("all.sql");
    home.on_repo(["export", "latest", "--cluster", "c", "--output", file.to_str().unwrap()])
        .expect(0);
    server::run(&mut root, &["DROP USER plain, other, able", "DROP DATABASE d"]).await;
    let mut sql = b"SET default_storage_engine = InnoDB;\n".to_vec();
    sql.extend(std::fs::read(&file).unwrap());
    client(&target, &sql);
    assert_eq!(count(&target, "'plain', 'other', 'able'").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn what_a_mariadb_takes_of_accounts_is_known_beforehand() {
    let source = Server::start("mariadb-10.11").await;
    let content = [
        "INSTALL SONAME 'auth_ed25519'",
        "CREATE DATABASE d",
        "CREATE ROLE r",
        "CREATE USER able@localhost IDENTIFIED VIA unix_socket",
        "CREATE USER open",
        "CREATE USER usual IDENTIFIED BY 'x'",
        "CREATE USER curved IDENTIFIED VIA ed25519 USING PASSWORD('x')",
    ];
    server::run(&mut source.session().await, &content).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &source.url(), "--cluster", "c"]).expect(0);
    let target = Server::start("mariadb-10.11").await;
    let mut root = target.session().await;
    server::run(&mut root, &["INSTALL SONAME 'simple_password_check'"]).await;
    let dry = restore(&home, &target, &["--dry-run"]);
    let told = format!("{}{}", dry.stdout, dry.stderr);
    for text in [
        "open@%: the account has no password and is not created",
        "usual@%: the account is not created: the target checks passwords",
        "SET GLOBAL strict_password_validation = OFF",
        "curved@%: the account is not created: the target has no authentication plugin ed25519",
    ] {
        assert!(told.contains(text), "{text}: {dry:?}");
    }
    restore(&home, &target, &[]).expect(14);
    assert_eq!(
        count(&target, "'r', 'able', 'open', 'usual', 'curved'").await.as_deref(),
        Some("2")
    );
    // As it says.
    server::run(&mut root, &["SET GLOBAL strict_password_validation = OFF", "DROP DATABASE d"])
        .await;
    restore(&home, &target, &[]).expect(14);
    assert_eq!(
        count(&target, "'r', 'able', 'open', 'usual', 'curved'").await.as_deref(),
        Some("3")
    );
}

#[rstest::rstest]
#[tokio::test]
async fn accounts_that_do_not_come_as_they_were_are_known_beforehand(
    #[values("mysql-9.7", "mariadb-10.11")] server: &str,
) {
    let source = Server::start(server).await;
    let content = [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY)",
        "CREATE USER able IDENTIFIED BY 'x'",
        "GRANT SELECT ON *.* TO able",
    ];
    server::run(&mut source.session().await, &content).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &source.url(), "--cluster", "c"]).expect(0);
    let target = Server::start(server).await;
    let mut root = target.session().await;
    server::run(&mut root, &["CREATE USER able IDENTIFIED BY 'y'"]).await;
    let stays = "the account able@% is there already and stays as it is";
    let dry = restore(&home, &target, &["--dry-run"]).expect(14);
    assert!(format!("{}{}", dry.stdout, dry.stderr).contains(stays), "{dry:?}");
    restore(&home, &target, &["--dry-run", "--no-users"]).expect(0);
    restore(&home, &target, &[]).expect(14).says(stays);

    server::run(&mut root, &["DROP USER able", "DROP DATABASE d"]).await;
    restore(&home, &target, &["--dry-run"]).expect(0);
    if server.starts_with("mysql") {
        let revoke = ["SET GLOBAL partial_revokes = ON", "REVOKE SELECT ON mysql.* FROM able"];
        server::run(&mut source.session().await, &revoke).await;
        home.on_repo(["backup", "--source", &source.url(), "--cluster", "c"]).expect(0);
        let lacks = "able@% gets no privileges on everything";
        let dry = restore(&home, &target, &["--dry-run"]).expect(14);
        assert!(format!("{}{}", dry.stdout, dry.stderr).contains(lacks), "{dry:?}");
        restore(&home, &target, &[]).expect(14).says(lacks);
    } else {
        restore(&home, &target, &[]).expect(0);
    }
}
