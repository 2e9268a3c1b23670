//! Names that one server tells apart and another does not.

use backup_core::Context;
use rstest::rstest;

use crate::home::Home;
use crate::server::{self, Server};

/// A server to which names in any case are the same.
async fn ignoring_case(name: &str) -> Server {
    let builder = xtask::servers::sandbox(name).await.unwrap().tcp(true);
    let builder = builder.option("lower_case_table_names", "1");
    Server(builder.start(&Context::builder().build()).await.unwrap())
}

#[rstest]
#[tokio::test]
async fn what_becomes_one_is_refused_beforehand(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = Server::start(name).await;
    let content = [
        "CREATE DATABASE Cc",
        "CREATE DATABASE cC",
        "CREATE TABLE Cc.a (id INT PRIMARY KEY)",
        "CREATE TABLE cC.b (id INT PRIMARY KEY)",
        "INSERT INTO Cc.a VALUES (1)",
        "CREATE PROCEDURE Cc.pr() SELECT 1",
        "CREATE PROCEDURE cC.PR() SELECT 2",
    ];
    server::run(&mut source.session().await, &content).await;
    let target = ignoring_case(name).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &source.url(), "--cluster", "c"]).expect(0);
    let restore = |server: &Server, more: &[&str]| {
        let url = server.url();
        let args = ["restore", "--cluster", "c", "--no-users", "--target", &url];
        home.on_repo([&args[..], more].concat())
    };
    let made = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name IN ('cc', 'Dd')";
    for more in [&["--dry-run"][..], &[]] {
        let run = restore(&target, more).expect(9);
        let run = run.says("database cC: the target does not tell it from Cc");
        assert!(!run.stderr.contains("already"), "{run:?}");
        assert_eq!(target.value(made).await.as_deref(), Some("0"));

        let one = [&["--rename", "cC=Dd", "--rename", "Cc=Dd"][..], more].concat();
        let run = restore(&source, &one).expect(9).says("procedure Dd.pr");
        run.says("give one of their databases another name with --rename");
        let made = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'Dd'";
        assert_eq!(source.value(made).await.as_deref(), Some("0"));
    }
    restore(&target, &["--rename", "cC=dd"]).expect(0);
    let both =
        "SELECT COUNT(*) FROM information_schema.routines WHERE routine_schema IN ('cc', 'dd')";
    assert_eq!(target.value(both).await.as_deref(), Some("2"));
}

#[rstest]
#[tokio::test]
async fn a_source_that_ignores_case_may_be_named_in_any(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = ignoring_case(name).await;
    let content = [
        "CREATE DATABASE Shop",
        "CREATE TABLE Shop.ChildTab (id INT PRIMARY KEY, v VARCHAR(9))",
        "INSERT INTO Shop.ChildTab VALUES (1, 'a'), (2, 'b')",
    ];
    server::run(&mut source.session().await, &content).await;
    let home = Home::with_repo();
    let url = source.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "c", "--tables", "SHOP.childtab"])
        .expect(0);
    let restore = |more: &[&str]| {
        let args = ["restore", "--cluster", "c", "--target", &url];
        home.on_repo([&args[..], more].concat())
    };
    restore(&["--tables", "Shop.ChildTab", "--rename", "Shop.ChildTab=one.t"]).expect(0);
    restore(&["--databases", "Shop", "--rename", "SHOP=two"]).expect(0);
    restore(&["--tables", "Shop.Child*", "--overwrite"]).expect(0);
    restore(&["--databases", "Stop"]).expect(2).says("holds no database Stop");
    let rows = "SELECT COUNT(*) FROM one.t, two.childtab, shop.childtab";
    assert_eq!(source.value(rows).await.as_deref(), Some("8"));

    home.write("rules.toml", "[[mask]]\ncolumn = \"Shop.ChildTab.v\"\nwith = \"null\"\n");
    home.on_repo(["backup", "--source", &url, "--cluster", "c", "--mask", "rules.toml"]).expect(0);
    restore(&["--databases", "SHOP", "--rename", "shop=masked"]).expect(0);
    let values = "SELECT COUNT(v) FROM masked.childtab";
    assert_eq!(source.value(values).await.as_deref(), Some("0"));
}

#[test]
fn a_rule_is_for_one_name() {
    let home = Home::new();
    for rule in ["da=ra,db=rb", "da=ra=rb", "da,db=ra"] {
        let args = ["restore", "--repo", "repo", "--target", "mysql://u@h/", "--rename", rule];
        home.run(args).expect(2).says("repeat --rename");
    }
    let args = ["restore", "--repo", "repo", "--target", "mysql://u@h/", "--rename", "a=`b,c=d`"];
    let run = home.run(args);
    assert!(!run.stderr.contains("--rename"), "{run:?}");
}
