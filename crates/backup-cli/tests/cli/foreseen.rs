//! Single tables out of data files: what the restore would end with is told before a file is laid out, by it and by
//! its dry run alike.

use backup_core::Context;
use rstest::rstest;

use crate::files_point::{How, backed_up};
use crate::home::{Home, Run};
use crate::server::{self, PASSWORD, Server, install};

/// A restore of tables of `shop`, by this user of the target.
fn restore(home: &Home, name: &str, url: &str, more: &[&str]) -> Run {
    let tool = install(name);
    let all = ["restore", "--cluster", "shop", "--target", url, "--server-dir"];
    let mut command = home.command([&all[..], &[tool.to_str().unwrap()], more].concat());
    command.env("HOLDFAST_REPO", "repo");
    if url.contains("poor@") {
        command.env("HOLDFAST_TARGET_PASSWORD", PASSWORD);
    }
    Run::of(&mut command)
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_of_tables_ends_as_the_restore_does(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let mysql = name.starts_with("mysql");
    let home = Home::with_repo();
    let server = backed_up(&home, name, How::Locked).await;
    let mut session = server.session().await;
    let password = PASSWORD.replace('\\', "\\\\").replace('\'', "''");
    let account = [
        &format!("CREATE USER poor@'%' IDENTIFIED BY '{password}'"),
        "GRANT SELECT, INSERT ON shop.* TO poor@'%'",
        "DROP TABLE shop.noted",
        "SET GLOBAL local_infile = ON",
    ];
    server::run(&mut session, &account).await;
    let both = |url: &str, code: i32, tables: &[&str], says: &str| {
        for more in [&["--dry-run"][..], &[]] {
            let run = restore(&home, name, url, &[tables, more].concat()).expect(code).says(says);
            // Nothing was laid out for it.
            assert!(!run.stderr.contains("half restored"), "{run:?}");
        }
    };
    let noted = ["--tables", "shop.noted"];
    let poor = server.tcp_url("poor");
    let grant = "GRANT CREATE, DELETE, DROP ON `shop`.* TO 'poor'@'%'";
    both(&poor, 4, &noted, grant);
    server::run(&mut session, &[grant, "SET GLOBAL read_only = ON"]).await;
    both(&poor, 9, &noted, "read_only: the target takes");
    if mysql {
        server::run(&mut session, &["SET GLOBAL super_read_only = ON"]).await;
        both(&server.url(), 9, &noted, "super_read_only: the target takes no");
    }
    server::run(&mut session, &["SET GLOBAL read_only = OFF"]).await;

    // Names. Those of MySQL that have no file only its server knows.
    let names = [
        (["--tables", "shop.totals", "--rename", "shop=s"], "shop.totals", "is a view"),
        (["--tables", "shop.nothing", "--rename", "shop=s"], "shop.nothing", "holds no table"),
        (["--databases", "nobody", "--rename", "nobody=s"], "nobody", "holds no database nobody"),
    ];
    for (args, object, says) in names {
        let planned = restore(&home, name, &server.url(), &[&args[..], &["--dry-run"]].concat());
        match mysql {
            false => drop(planned.expect(2).says(says)),
            true if args[0] == "--databases" => {}
            true => {
                let told = format!("{object}: the backup has no file of it");
                let planned = planned.expect(14);
                assert!(planned.stdout.contains(&told), "{planned:?}");
            }
        }
        restore(&home, name, &server.url(), &args).expect(2).says(says);
    }
    let left_out = ["--databases", "shop", "--exclude-tables", "shop.noetd", "--rename", "shop=s"];
    let planned = [&left_out[..], &["--dry-run"]].concat();
    restore(&home, name, &server.url(), &planned).expect(if mysql { 14 } else { 2 });
    let says = "there is no table shop.noetd, which is to be left out";
    restore(&home, name, &server.url(), &left_out).expect(2).says(says);
    let pattern = ["--databases", "shop", "--exclude-tables", "shop.x*", "--rename", "shop=s"];
    let planned = [&pattern[..], &["--dry-run"]].concat();
    let idle = "nothing in the backup fits `shop.x*`";
    let planned = restore(&home, name, &server.url(), &planned).expect(14);
    assert!(planned.stdout.contains(idle), "{planned:?}");
    restore(&home, name, &server.url(), &pattern).expect(14).says(idle);

    let planned = [&noted[..], &["--dry-run"]].concat();
    restore(&home, name, &poor, &planned).expect(0);
    restore(&home, name, &poor, &noted).expect(0);
}

/// The keyring of the source is in no backup, but where a clone had the keys sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_table_of_mysql_without_its_keyring_is_refused_beforehand() {
    let cx = Context::builder().build();
    let home = Home::with_repo();
    let data = home.path("data");
    let builder = xtask::servers::sandbox("mysql-9.7").await.unwrap().datadir(&data);
    let mut source = Server(builder.keyring(true).start(&cx).await.unwrap());
    let tables = [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.secret (id INT PRIMARY KEY) ENCRYPTION = 'Y'",
        "CREATE TABLE shop.open (id INT PRIMARY KEY)",
    ];
    server::run(&mut source.session().await, &tables).await;
    source.0.stop().await.unwrap();
    let file = format!("file://{}", data.display());
    let backup = ["backup", "--cluster", "shop", "--strategy", "physical", "--source", &file];
    home.on_repo(backup).expect(0);
    let target = Server::start("mysql-9.7").await;
    for more in [&["--dry-run"][..], &[]] {
        let secret = [&["--tables", "shop.secret"], more].concat();
        let run = restore(&home, "mysql-9.7", &target.url(), &secret).expect(9);
        run.says("shop.secret is encrypted, and its key is in the keyring of the source");
        let open = [&["--tables", "shop.open"], more].concat();
        restore(&home, "mysql-9.7", &target.url(), &open).expect(0);
    }
}
