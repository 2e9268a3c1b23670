//! System tablespaces of several files, of other names, and in other places.

use std::path::Path;

use backup_core::Context;

use crate::home::{Home, Run};
use crate::server::{self, Server, install};

async fn on(name: &str, directory: &Path, options: &[(&str, &str)]) -> Server {
    let mut builder =
        xtask::servers::sandbox(name).await.unwrap().datadir(directory).durable(false);
    for (name, value) in options {
        builder = builder.option(*name, *value);
    }
    Server(builder.start(&Context::builder().build()).await.unwrap())
}

fn directory(home: &Home, name: &str) -> String {
    std::fs::create_dir(home.path(name)).unwrap();
    home.path(name).to_str().unwrap().to_owned()
}

/// Rows that are in the system tablespace itself, about so many mebibytes of them.
async fn fill(server: &Server, table: &str, mebibytes: u64) {
    let mut session = server.session().await;
    let rows = format!(
        "INSERT INTO {table} (t) WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {}) SELECT \
         REPEAT(SHA2(n, 256), 1000) FROM s",
        mebibytes * 16
    );
    server::run(&mut session, &[&rows]).await;
    session.close().await.unwrap();
}

async fn sum(server: &Server, table: &str) -> Vec<(String, Option<u64>)> {
    let mut session = server.session().await;
    let sum = session.query_rows(&format!("CHECKSUM TABLE {table} EXTENDED")).await.unwrap();
    session.close().await.unwrap();
    sum
}

fn cold(home: &Home, source: &str) -> Run {
    home.on_repo(["backup", "--strategy", "physical", "--source", source, "--cluster", "shop"])
}

fn drill(home: &Home, name: &str) -> Run {
    let servers = install(name);
    let drill = ["verify", "--level", "drill", "--cluster", "shop", "--server-dir"];
    home.on_repo([&drill[..], &[servers.to_str().unwrap()]].concat())
}

/// Restores the last backup, and starts a server on it that is told of the files as they are.
async fn comes_back(home: &Home, name: &str, files: &str, wanted: &[(String, Option<u64>)]) {
    let target = home.path("target");
    let to = ["restore", "--cluster", "shop", "--target-dir", target.to_str().unwrap()];
    // It ends as its dry run does, with the setting that the server needs.
    let planned = home.on_repo([&to[..], &["--dry-run"]].concat()).code.unwrap();
    assert!([0, 14].contains(&planned));
    home.on_repo(to).expect(planned);
    let mut restored = on(name, &target, &[("innodb_data_file_path", files)]).await;
    assert_eq!(sum(&restored, "shop.t").await, wanted);
    restored.0.stop().await.unwrap();
    std::fs::remove_dir_all(target).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mysql_that_was_cloned_is_known_to_run_and_its_system_files_come_back() {
    let home = Home::with_repo();
    let (name, data, system) = ("mysql-9.7", home.path("data"), directory(&home, "system"));
    let options = [
        ("plugin-load-add", "clone=mysql_clone.so"),
        ("innodb_data_home_dir", &system),
        ("innodb_data_file_path", "sysx:12M;sysy:12M:autoextend"),
    ];
    let mut server = on(name, &data, &options).await;
    let mut session = server.session().await;
    let table =
        "CREATE TABLE shop.t (id INT PRIMARY KEY AUTO_INCREMENT, t TEXT) TABLESPACE innodb_system";
    server::run(&mut session, &["CREATE DATABASE shop", table]).await;
    fill(&server, "shop.t", 50).await;
    let before = sum(&server, "shop.t").await;
    let url = server.url();
    let clone = ["backup", "--strategy", "clone", "--source", &url, "--cluster", "shop"];
    home.on_repo(clone).expect(0);

    // The clone took its locks away. It still runs.
    let runs = format!("a server runs on {}", data.display());
    for how in ["--overwrite", "--delta"] {
        let to = ["restore", "--cluster", "shop", "--target-dir", data.to_str().unwrap(), how];
        home.on_repo(to).expect(9).says(&runs);
    }
    let stopped = format!("file://{}?data={system}", data.display());
    let check = ["check", "--strategy", "physical", "--source", &stopped];
    let check = home.on_repo(check).expect(6);
    assert!(check.stdout.contains(&runs), "{check:?}");
    cold(&home, &stopped).expect(6).says(&runs);
    assert_eq!(sum(&server, "shop.t").await, before);

    // The first file is as long as it was, and the pages of the second are no headers.
    let verify = ["verify", "latest", "--level", "content", "--cluster", "shop"];
    home.on_repo(verify).expect(0);
    drill(&home, name).expect(0);
    let files = "sysx:12M;sysy:12M:autoextend";
    comes_back(&home, name, files, &before).await;

    let live = ["backup", "--strategy", "physical", "--lock-and-copy", "--source", &url];
    home.on_repo([&live[..], &["--cluster", "shop", "--lock-timeout", "120"]].concat()).expect(0);
    home.on_repo(verify).expect(0);
    drill(&home, name).expect(0);
    comes_back(&home, name, files, &before).await;

    // What is missing is named, and it is not the redo log.
    server.0.stop().await.unwrap();
    let none = format!("file://{}", data.display());
    let run = cold(&home, &none).expect(6).says("the system tablespace is not in");
    assert!(!run.stderr.contains("#ib_redo"), "{run:?}");
    cold(&home, &stopped).expect(0);
    home.on_repo(verify).expect(0);
    drill(&home, name).expect(0);
    comes_back(&home, name, files, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_copy_of_mariadb_without_its_system_tablespace_fails() {
    let home = Home::with_repo();
    let (name, data, system) = ("mariadb-10.11", home.path("data"), directory(&home, "system"));
    let options = [("innodb_data_home_dir", &*system)];
    let mut server = on(name, &data, &options).await;
    // Temporary tables are beside it, and nobody copies them.
    let url = server.url();
    let live = ["backup", "--strategy", "physical", "--lock-and-copy", "--source", &url];
    home.on_repo([&live[..], &["--cluster", "shop"]].concat()).expect(0);
    server.0.stop().await.unwrap();
    let source = format!("file://{}", data.display());
    cold(&home, &source).expect(6).says("the system tablespace").says("data=/DIR");
    let check = home.on_repo(["check", "--strategy", "physical", "--source", &source]);
    assert_eq!(check.code, Some(6), "{check:?}");
    // Lists of pages that were in memory may be in both, and are but a help.
    assert!(Path::new(&system).join("ib_buffer_pool").is_file());
    std::fs::write(data.join("ib_buffer_pool"), "1,2\n").unwrap();
    cold(&home, &format!("{source}?data={system}")).expect(0);
    drill(&home, name).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn system_files_of_other_names_are_copied_and_said_to_a_private_server() {
    let name = "mariadb-10.11";
    let table = "CREATE TABLE shop.t (id INT PRIMARY KEY AUTO_INCREMENT, t TEXT)";
    for (n, absolute) in [false, true].into_iter().enumerate() {
        let home = Home::with_repo();
        let (data, system) = (home.path("data"), directory(&home, "system"));
        let named = "sysA:12M;sysB:12M;sysC:12M:autoextend";
        let (directory, files) = match absolute {
            false => (&*system, named.to_owned()),
            true => ("", named.replace("sys", &format!("{system}/sys"))),
        };
        let options = [
            ("innodb_data_home_dir", directory),
            ("innodb_data_file_path", &files),
            ("innodb_file_per_table", "OFF"),
        ];
        let mut server = on(name, &data, &options).await;
        server::run(&mut server.session().await, &["CREATE DATABASE shop", table]).await;
        // Little in the second one first, and nothing in the last.
        fill(&server, "shop.t", [6, 40][n]).await;
        let before = sum(&server, "shop.t").await;
        server.0.stop().await.unwrap();
        let source = format!("file://{}", data.display());
        cold(&home, &source).expect(6).says("the system tablespace");
        for there in ["data", "also"] {
            let run = cold(&home, &format!("{source}?{there}={system}")).expect(0);
            assert!(!run.stderr.contains("arning"), "{run:?}");
            home.on_repo(["verify", "latest", "--level", "content", "--cluster", "shop"]).expect(0);
            drill(&home, name).expect(0);
            comes_back(&home, name, named, &before).await;
        }
        std::fs::rename(format!("{system}/sysB"), home.path("away")).unwrap();
        cold(&home, &format!("{source}?data={system}")).expect(6).says("of the system tablespace");
    }
}

/// The redo log begins with the same letters.
#[tokio::test(flavor = "multi_thread")]
async fn system_files_may_be_called_like_other_files_of_innodb() {
    let home = Home::with_repo();
    let (name, data) = ("mariadb-10.11", home.path("data"));
    let files = "ib_a:12M;ib_b:12M:autoextend";
    let options = [("innodb_data_file_path", files), ("innodb_file_per_table", "OFF")];
    let mut server = on(name, &data, &options).await;
    let table = "CREATE TABLE shop.t (id INT PRIMARY KEY AUTO_INCREMENT, t TEXT)";
    server::run(&mut server.session().await, &["CREATE DATABASE shop", table]).await;
    fill(&server, "shop.t", 30).await;
    let before = sum(&server, "shop.t").await;
    server.0.stop().await.unwrap();
    cold(&home, &format!("file://{}", data.display())).expect(0);
    drill(&home, name).expect(0);
    comes_back(&home, name, files, &before).await;
}
