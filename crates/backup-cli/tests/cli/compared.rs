//! Drills of data files whose source is still what it was.

use rstest::rstest;

use crate::files_point::{How, backed_up};
use crate::home::Home;
use crate::server::{self, install};

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_is_compared_with_an_idle_source(
    #[values(
        ("mysql-9.7", How::Cold),
        ("mysql-9.7", How::Locked),
        ("mysql-9.7", How::Clone),
        ("mysql-9.7", How::Snapshot),
        ("mariadb-10.11", How::Cold),
        ("mariadb-10.11", How::Locked),
        ("mariadb-10.11", How::Tool),
        ("mariadb-10.11", How::Snapshot),
        ("mariadb-11.8", How::Tool)
    )]
    case: (&str, How),
) {
    let (name, how) = case;
    let home = Home::with_repo();
    let source = backed_up(&home, name, how).await;
    let (url, tool) = (source.url(), install(name));
    let drill = ["verify", "latest", "--level", "drill", "--server-dir", tool.to_str().unwrap()];
    let compared = [&drill[..], &["--source", &url, "--json"]].concat();
    let report = home.on_repo(compared.clone()).expect(0).json();
    let said = report["findings"].to_string();
    // 3 customers, 512 orders, 1 and 2 of the others.
    assert!(said.contains("4 tables with 518 rows are the same"), "{report:#}");

    // What the binary log does not tell of, the rows do.
    let mut session = source.session().await;
    let unseen = [
        "SET SESSION sql_log_bin = 0",
        "UPDATE shop.noted SET note = 'c' WHERE id = 2",
        "DROP TABLE shop.other",
        "CREATE TABLE shop.unseen (id INT PRIMARY KEY)",
    ];
    server::run(&mut session, &unseen).await;
    let report = home.on_repo(compared.clone()).expect(11).json();
    let findings = report["findings"].as_array().unwrap();
    let bad: Vec<&str> = findings
        .iter()
        .filter(|finding| finding["severity"] == "error")
        .map(|finding| finding["object"].as_str().unwrap())
        .collect();
    assert_eq!(bad, ["shop.noted", "shop.other", "shop.unseen"], "{report:#}");
    assert!(report["findings"].to_string().contains("2 tables with 515 rows are the same"));
    // That is the source's doing, and nothing against the backup.
    let list = home.on_repo(["list", "--json"]).expect(0).json();
    assert_eq!(list[0]["proof"]["ok"], true, "{list:#}");

    // A source that went on is no witness, and that is said before anything is laid out.
    let later = ["SET SESSION sql_log_bin = 1", "DELETE FROM shop.customers WHERE id = 3"];
    server::run(&mut session, &later).await;
    let run = home.on_repo(compared.clone()).expect(6);
    assert!(
        run.stdout.contains("it stands at") && run.stdout.contains("without --source"),
        "{run:?}"
    );
    home.on_repo(drill).expect(0);

    // Where there is nothing to compare, the flag is refused.
    let content = ["verify", "latest", "--source", &url];
    home.on_repo(content).expect(2).says("--level drill");
    home.on_repo(["backup", "--cluster", "shop", "--source", &url]).expect(0);
    let run = home.on_repo(compared).expect(2);
    assert!(run.stdout.contains("leave --source out"), "{run:?}");
}
