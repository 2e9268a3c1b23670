//! What is left out has to be there: a name that is mistyped would leave in what it was to leave out.

use crate::home::Home;
use crate::server::{self, Server};

#[tokio::test]
async fn names_that_are_not_there_are_refused_and_patterns_warn() {
    let server = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    let url = server.url();
    let run = |command: &[&str], more: &[&str]| home.on_repo([command, more].concat());
    let check = ["check", "--source", &url];
    let backup = ["backup", "--source", &url, "--cluster", "c"];
    run(&backup, &[]).expect(0);
    let restore = ["restore", "--cluster", "c", "--target", &url, "--rename", "shop=copy"];
    let dry = [&restore[..], &["--dry-run"]].concat();
    for command in [&check[..], &backup, &dry, &restore] {
        for (flag, name) in [("--exclude-tables", "shop.ordres"), ("--exclude-databases", "sohp")] {
            let run = run(command, &[flag, name]).expect(2);
            run.says(name).says("which is to be left out");
        }
    }
    run(&backup, &["--no-rows", "shop.ordres"]).expect(2).says("shop.ordres, whose rows");
    let table = ["--tables", "shop.customers"];
    run(&backup, &[&table[..], &["--no-rows", "shop.orders"]].concat()).expect(2).says("--no-rows");
    let count = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'copy'";
    assert_eq!(server.value(count).await.as_deref(), Some("0"));

    let nothing = ["--exclude-tables", "*.tmp_*,shop.orders", "--exclude-databases", "test*,mysql"];
    let warned = |text: &str| text.contains("*.tmp_*") && text.contains("test*");
    let seen = run(&check, &nothing).expect(0).stdout;
    assert!(warned(&seen) && !seen.contains("mysql: nothing"), "{seen}");
    let run_ = run(&backup, &[&nothing[..], &["--no-rows", "*.log_*,shop.customers"]].concat());
    assert!(warned(&run_.stderr) && run_.stderr.contains("*.log_*"), "{run_:?}");
    run_.expect(0);
    // A view can be left out too.
    run(&backup, &["--exclude-tables", "shop.totals"]).expect(0);
    let restore = ["restore", "--cluster", "c", "--target", &url, "--rename", "shop=copy"];
    let plan = run(&restore, &["--exclude-tables", "*.tmp_*", "--dry-run"]).expect(14).stdout;
    assert!(plan.contains("nothing in the backup fits `*.tmp_*`"), "{plan}");
    run(&restore, &["--exclude-tables", "*.tmp_*"]).expect(14).says("fits `*.tmp_*`");
    server::run(&mut server.session().await, &["DROP DATABASE copy"]).await;
}
