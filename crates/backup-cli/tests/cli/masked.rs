//! Masks that make one value of two, where a key takes it once.

use rstest::rstest;

use crate::home::{Home, Run};
use crate::server::{self, Server};

#[rstest]
#[tokio::test]
async fn what_no_server_takes_back_is_no_backup(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::start(name).await;
    let mut session = server.session().await;
    let tables = [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY, email VARCHAR(60) UNIQUE, tag VARCHAR(9) NOT NULL, code CHAR(8), \
         UNIQUE KEY (tag, id), UNIQUE KEY (code, tag))",
        "INSERT INTO d.t VALUES (1, 'a@x', 'a', 'k'), (2, 'b@x', 'b', 'l'), (3, NULL, 'c', NULL)",
    ];
    server::run(&mut session, &tables).await;
    let home = Home::with_repo();
    let url = server.url();
    let backup = |rules: &[(&str, &str)]| -> Run {
        let rules = rules
            .iter()
            .map(|(column, with)| format!("[[mask]]\ncolumn = \"d.t.{column}\"\nwith = {with}\n"));
        home.write("rules.toml", &rules.collect::<String>());
        home.on_repo(["backup", "--source", &url, "--cluster", "c", "--mask", "rules.toml"])
    };
    let fixed = "{ fixed = \"x\" }";
    backup(&[("email", fixed)]).expect(2).says("d.t has a key on email").says("same fixed value");
    backup(&[("id", "{ fixed = \"7\" }")]).expect(2).says("d.t has a key on id");
    backup(&[("code", fixed), ("tag", fixed)]).expect(2).says("d.t has a key on code, tag");
    // What may go well is warned of.
    let part = "masked and part of a primary or unique key";
    backup(&[("tag", fixed)]).expect(14).says("d.t.tag is").says(part);
    let regex = "{ regex = { pattern = \"@.*\", replace = \"\" } }";
    backup(&[("email", regex)]).expect(14).says("d.t.email is").says(part);
    backup(&[("email", "\"hash\"")]).expect(0);
    backup(&[("email", "\"null\"")]).expect(0);
    // One row has no other to meet.
    server::run(&mut session, &["DELETE FROM d.t WHERE id = 2"]).await;
    backup(&[("email", fixed)]).expect(14);
    let restore = ["restore", "--cluster", "c", "--target", &url, "--rename", "d=copy"];
    home.on_repo(restore).expect(0);
    let emails = "SELECT GROUP_CONCAT(IFNULL(email, '-') ORDER BY id) FROM copy.t";
    assert_eq!(server.value(emails).await.as_deref(), Some("x,-"));
}

/// What tables ask of their values masks do not know.
#[rstest]
#[tokio::test]
async fn what_a_mask_may_break_is_said_before(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let server = Server::start(name).await;
    let mut session = server.session().await;
    let parted = "PARTITION BY RANGE";
    let tables = [
        "CREATE DATABASE d CHARACTER SET utf8mb4",
        "CREATE DATABASE e CHARACTER SET utf8mb4",
        "CREATE TABLE d.checked (id INT PRIMARY KEY, age INT, n INT, CHECK (age < 150))",
        "INSERT INTO d.checked VALUES (1, 20, 1), (2, 30, 2)",
        &format!(
            "CREATE TABLE d.r (size INT, v INT) {parted} (size) (PARTITION a VALUES LESS THAN (10))"
        ),
        "INSERT INTO d.r VALUES (1, 1)",
        &format!(
            "CREATE TABLE d.y (hired DATE) {parted} (YEAR(hired)) (PARTITION a VALUES LESS THAN (2030))"
        ),
        "INSERT INTO d.y VALUES ('2029-03-03')",
        &format!(
            "CREATE TABLE d.open (size INT) {parted} (size) (PARTITION a VALUES LESS THAN MAXVALUE)"
        ),
        "CREATE TABLE d.parent (name VARCHAR(20) PRIMARY KEY)",
        "CREATE TABLE d.child (id INT PRIMARY KEY, p VARCHAR(20), FOREIGN KEY (p) REFERENCES d.parent (name))",
        "CREATE TABLE e.parent (name VARCHAR(20) COLLATE utf8mb4_bin PRIMARY KEY)",
        "CREATE TABLE e.child (id INT PRIMARY KEY, p VARCHAR(20) COLLATE utf8mb4_bin, \
         FOREIGN KEY (p) REFERENCES e.parent (name))",
    ];
    server::run(&mut session, &tables).await;
    let home = Home::with_repo();
    let url = server.url();
    let backup = |rules: &[(&str, &str)]| -> Run {
        let rules = rules
            .iter()
            .map(|(column, with)| format!("[[mask]]\ncolumn = \"{column}\"\nwith = {with}\n"));
        home.write("rules.toml", &rules.collect::<String>());
        home.on_repo(["backup", "--source", &url, "--cluster", "c", "--mask", "rules.toml"])
    };
    let (hash, shape) = ("\"hash\"", "\"shape\"");
    backup(&[("d.checked.n", hash)]).expect(0);
    backup(&[("d.r.size", hash)]).expect(2).says("d.r.size").says("in which partition a row is");
    backup(&[("d.r.size", "{ fixed = \"5\" }")]).expect(14).says("d.r.size is masked and says");
    backup(&[("d.r.v", hash), ("d.open.size", hash)]).expect(0);
    backup(&[("d.y.hired", shape)]).expect(14).says("d.y.hired is masked and says");
    let restore = |rename| {
        home.on_repo([
            "restore",
            "--cluster",
            "c",
            "--target",
            &url,
            "--databases",
            "d",
            "--rename",
            rename,
        ])
    };
    restore("d=years").expect(0);
    let names = ("d.parent.name", "d.child.p");
    backup(&[(names.0, hash)]).expect(14).says("masked in different ways");
    backup(&[(names.0, hash), (names.1, shape)]).expect(14).says("masked in different ways");
    backup(&[(names.0, hash), (names.1, hash)]).expect(14).says("texts of different characters");
    backup(&[("e.parent.name", hash), ("e.child.p", hash)]).expect(0);
    backup(&[("d.checked.age", hash)])
        .expect(14)
        .says("d.checked.age is masked and part of a CHECK");
    match name {
        // No other backup helps, nor does a verification.
        "mysql-9.7" => restore("d=broken").expect(8).says("mask").hides("--level content"),
        _ => restore("d=kept").expect(0),
    };
    if name == "mysql-9.7" {
        return;
    }
    // JSON is text with a CHECK there.
    let tables =
        ["CREATE TABLE d.j (doc JSON, note LONGTEXT, s DATE, u DATE, PERIOD FOR p (s, u))"];
    server::run(&mut session, &tables).await;
    for with in [hash, shape, "{ fixed = \"x\" }"] {
        backup(&[("d.j.doc", with)]).expect(2).says("d.j.doc").says("it holds JSON");
    }
    backup(&[("d.j.doc", "{ fixed = \"{}\" }"), ("d.j.note", hash)]).expect(0);
    let regex = "{ regex = { pattern = \"[0-9]\", replace = \"#\" } }";
    backup(&[("d.j.doc", regex)]).expect(14).says("d.j.doc is masked and holds JSON");
    backup(&[("d.j.s", shape)]).expect(14).says("d.j.s is masked and an end of a period");
}
