use crate::home::Home;
use crate::server::Server;

#[tokio::test]
async fn a_backup_is_shown_with_its_tables_and_its_history() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    let url = server.url();
    let run = home.on_repo(["backup", "--source", &url, "--cluster", "shop", "--json"]).expect(0);
    let backup = run.json()["backup"].as_str().unwrap().to_owned();

    let page = home.on_repo(["show", &backup[..20]]).expect(0).stdout;
    for part in [backup.as_str(), "shop.orders", "512", "MySQL 9.7", "never", "logical, full"] {
        assert!(page.contains(part), "no {part} in\n{page}");
    }
    home.on_repo(["verify", "--level", "content"]).expect(0);
    let document = home.on_repo(["show", "latest", "--json"]).expect(0).json();
    assert_eq!(document["backup"], backup.as_str());
    assert_eq!(document["format"], 1);
    let orders = &document["tables"][1];
    assert_eq!((&orders["table"], &orders["rows"]), (&"shop.orders".into(), &512.into()));
    assert!(orders["bytes"].as_u64().unwrap() > 500_000);
    assert_eq!(document["records"][0]["kind"], "proof");
    let page = home.on_repo(["show", "latest"]).expect(0).stdout;
    assert!(page.contains("content: ok"), "{page}");

    // What a second one does not store again, it says whose it is; both restore alone.
    assert!(!page.contains("packs of"), "{page}");
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let page = home.on_repo(["show", "latest"]).expect(0).stdout;
    let line = format!(
        "packs of     {backup} hold what had not changed since; this backup restores alone"
    );
    assert!(page.contains(&line), "{page}");
    let needs = &home.on_repo(["show", "latest", "--json"]).expect(0).json()["needs"];
    assert_eq!(needs[0]["backup"], backup.as_str());

    home.on_repo(["show", "1999"]).expect(2).says("no backup `1999`");
    home.on_repo(["show", "latest", "--cluster", "other"]).expect(2);
}

#[tokio::test]
async fn what_is_not_as_at_the_source_is_shown() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    let rules = "[[mask]]\ncolumn = '*.customers.name'\nwith = 'hash'\n\n\
                 [[mask]]\ncolumn = '*.customers.joined'\nwith = 'null'\n";
    std::fs::write(home.path("mask.toml"), rules).unwrap();
    let url = server.url();
    let backup = [
        "backup",
        "--source",
        &url,
        "--cluster",
        "shop",
        "--mask",
        "mask.toml",
        "--no-rows",
        "*.orders",
    ];
    let where_ = ["--where", "shop.customers:id < 3"];
    home.on_repo(backup.into_iter().chain(where_)).expect(0);
    let page = home.on_repo(["show", "latest"]).expect(0).stdout;
    for part in [
        "shop.customers: masked: name, joined; only rows where id < 3",
        "shop.orders: without its rows",
    ] {
        assert!(page.contains(part), "no {part} in\n{page}");
    }
    let tables = &home.on_repo(["show", "latest", "--json"]).expect(0).json()["tables"];
    assert_eq!(tables[0]["masked"], serde_json::json!(["name", "joined"]));
    assert_eq!(
        (&tables[0]["filter"], &tables[1]["rows_left_out"]),
        (&"id < 3".into(), &true.into())
    );
}
