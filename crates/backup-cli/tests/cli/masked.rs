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
