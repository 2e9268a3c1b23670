//! Files of a server that are not in its data directory: in the backup and back in their places, or refused by name.
//! Never left out.

use std::path::Path;

use backup_core::Context;
use rstest::rstest;

use crate::home::{Home, Run};
use crate::server::{self, Server, install};
use crate::snapshots::pair;

/// A server on a directory, with options that say what is elsewhere.
async fn on(name: &str, directory: &Path, options: &[(&str, &Path)]) -> Server {
    let cx = Context::builder().build();
    let mut builder =
        xtask::servers::sandbox(name).await.unwrap().datadir(directory).durable(false);
    for (name, value) in options {
        builder = builder.option(*name, value.to_str().unwrap());
    }
    Server(builder.start(&cx).await.unwrap())
}

/// Every table of the users with its content, each of them sound.
async fn sums(server: &Server) -> Vec<(String, Option<u64>)> {
    let mut session = server.session().await;
    let sql = "SELECT CONCAT(table_schema, '.', table_name) FROM information_schema.tables WHERE table_schema IN \
               ('shop', 'linked') AND table_type = 'BASE TABLE' ORDER BY 1";
    let tables = session.query_rows::<String>(sql).await.unwrap().join(", ");
    let sums = session.query_rows(&format!("CHECKSUM TABLE {tables} EXTENDED")).await.unwrap();
    let check = format!("CHECK TABLE {tables} EXTENDED");
    let said: Vec<(String, String, String, String)> = session.query_rows(&check).await.unwrap();
    assert!(said.iter().all(|(.., text)| text == "OK"), "{said:?}");
    session.close().await.unwrap();
    sums
}

/// Directories for what is elsewhere.
fn places<const N: usize>(home: &Home, names: [&str; N]) -> [std::path::PathBuf; N] {
    names.map(|name| {
        std::fs::create_dir(home.path(name)).unwrap();
        home.path(name)
    })
}

/// Every file below a directory, with what it holds.
fn content(home: &Home, name: &str) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let files = home.files(name).into_iter().filter(|(path, _)| path.is_file());
    files.map(|(path, _)| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn cold(home: &Home, source: &str) -> Run {
    home.on_repo(["backup", "--strategy", "physical", "--source", source, "--cluster", "shop"])
}

/// Restores the last backup beside the source, proves it there by a drill and by a server, and looks whether
/// anything of the source was touched.
async fn comes_back(home: &Home, name: &str, elsewhere: &[&str], before: &[(String, Option<u64>)]) {
    let was: Vec<_> = elsewhere.iter().map(|name| content(home, name)).collect();
    let servers = install(name);
    let servers = servers.to_str().unwrap();
    let drill = ["verify", "--level", "drill", "--server-dir", servers, "--cluster", "shop"];
    home.on_repo(drill).expect(0);
    let target = home.path("target");
    let to = ["restore", "--cluster", "shop", "--tool", servers, "--target-dir"];
    home.on_repo([&to[..], &[target.to_str().unwrap()]].concat()).expect(0);
    let mut restored = on(name, &target, &[]).await;
    assert_eq!(sums(&restored).await, before);
    if elsewhere.contains(&"ext") || elsewhere.contains(&"linked") {
        let writes = "UPDATE shop.far SET t = 'the restored one'";
        server::run(&mut restored.session().await, &[writes]).await;
    }
    restored.0.stop().await.unwrap();
    let is: Vec<_> = elsewhere.iter().map(|name| content(home, name)).collect();
    assert!(was == is, "a server on restored files wrote to those of the source");
    std::fs::remove_dir_all(target).unwrap();
}

#[tokio::test]
async fn tablespaces_of_a_stopped_mysql_are_copied_wherever_they_are() {
    let home = Home::with_repo();
    let (data, name) = (home.path("data"), "mysql-9.7");
    let [ext, undo, redo, system] = places(&home, ["ext", "undo", "redo", "system"]);
    let options = [
        ("innodb_directories", &*ext),
        ("innodb_undo_directory", &*undo),
        ("innodb_log_group_home_dir", &*redo),
        ("innodb_data_home_dir", &*system),
    ];
    let mut server = on(name, &data, &options).await;
    let mut session = server.session().await;
    server::shop(&mut session).await;
    let at = ext.display();
    let kinds = [
        format!("CREATE TABLE shop.far (id INT PRIMARY KEY, t VARCHAR(50)) DATA DIRECTORY='{at}'"),
        "INSERT INTO shop.far SELECT id, 'far' FROM shop.orders".to_owned(),
        format!("CREATE TABLESPACE general ADD DATAFILE '{at}/general.ibd'"),
        "CREATE TABLE shop.in_general (id INT PRIMARY KEY) TABLESPACE general".to_owned(),
        "INSERT INTO shop.in_general SELECT id FROM shop.orders".to_owned(),
        format!(
            "CREATE TABLE shop.parts (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION low VALUES LESS THAN \
             (100) DATA DIRECTORY='{at}', PARTITION high VALUES LESS THAN MAXVALUE)"
        ),
        "INSERT INTO shop.parts SELECT id FROM shop.orders".to_owned(),
        format!("CREATE UNDO TABLESPACE more ADD DATAFILE '{}/more.ibu'", undo.display()),
        // What is gone leaves its name in the dictionary for a while.
        format!("CREATE TABLE shop.gone (id INT PRIMARY KEY) DATA DIRECTORY='{at}'"),
        "DROP TABLE shop.gone".to_owned(),
    ];
    for sql in &kinds {
        server::run(&mut session, &[sql]).await;
    }
    let before = sums(&server).await;
    // Of a running server they are not copied, and that is said.
    let url = server.url();
    let live = ["--strategy", "physical", "--lock-and-copy", "--source", &url];
    let outside = "is outside of the data directory";
    home.on_repo([&["backup", "--cluster", "shop"], &live[..]].concat()).expect(6).says(outside);
    let check = home.on_repo([&["check"], &live[..]].concat()).expect(6);
    assert!(check.stdout.contains(outside), "{check:?}");
    server.0.stop().await.unwrap();

    let source = format!("file://{}", data.display());
    cold(&home, &source).expect(6).says("there is no redo log in");
    let source = format!("{source}?redo={}&data={}", redo.display(), system.display());
    let general = ext.join("general.ibd");
    cold(&home, &source)
        .expect(6)
        .says("files that are not below its data directory")
        .says("also=/DIR");
    let check = ["check", "--strategy", "physical", "--source", &source];
    let check = home.on_repo(check).expect(6);
    assert!(check.stdout.contains(general.to_str().unwrap()), "{check:?}");
    let source = format!("{source}&also={at}");
    cold(&home, &source).expect(6).says(undo.join("more.ibu").to_str().unwrap());
    let source = format!("{source}&undo={}", undo.display());
    // A disk that is not mounted.
    std::fs::rename(&general, home.path("away")).unwrap();
    cold(&home, &source).expect(6).says(general.to_str().unwrap());
    std::fs::rename(home.path("away"), &general).unwrap();
    cold(&home, &source).expect(0);
    comes_back(&home, name, &["data", "ext", "undo", "redo", "system"], &before).await;

    // With the settings of the source, beside its files, a server would find them twice.
    let config = home.write("my.cnf", &format!("[mysqld]\ninnodb_directories={at}\n"));
    let (target, servers) = (home.path("target"), install(name));
    let to = ["restore", "--cluster", "shop", "--target-dir", target.to_str().unwrap()];
    let more =
        ["--server-config", config.to_str().unwrap(), "--server-dir", servers.to_str().unwrap()];
    let plan = home.on_repo([&to[..], &more, &["--dry-run"]].concat()).expect(14).stdout;
    assert!(plan.contains("the server looks for tablespaces in"), "{plan}");
    home.on_repo(to).expect(0);
    let cx = Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap().datadir(&target).durable(false);
    let e = builder.option("innodb_directories", at.to_string()).start(&cx).await.unwrap_err();
    assert!(e.chain().contains("Multiple files found"), "{}", e.chain());
}

#[tokio::test]
async fn what_is_named_from_the_data_directory_is_below_it() {
    let home = Home::with_repo();
    let (data, name) = (home.path("data"), "mysql-9.7");
    let mut server = on(name, &data, &[]).await;
    let mut session = server.session().await;
    server::shop(&mut session).await;
    // In the dictionary, records of such a length make what follows them look like the path of another one.
    let sql = [
        "CREATE UNDO TABLESPACE u4 ADD DATAFILE 'u4.ibu'",
        "CREATE TABLESPACE general ADD DATAFILE 'g4.ibd'",
        "CREATE TABLE shop.far (id INT PRIMARY KEY, t VARCHAR(50)) TABLESPACE general",
        "INSERT INTO shop.far SELECT id, 'far' FROM shop.orders",
    ];
    server::run(&mut session, &sql).await;
    let before = sums(&server).await;
    server.0.stop().await.unwrap();
    let source = format!("file://{}", data.display());
    home.on_repo(["check", "--strategy", "physical", "--source", &source]).expect(0);
    cold(&home, &source).expect(0);
    comes_back(&home, name, &["data"], &before).await;
}

#[tokio::test]
async fn tablespaces_of_a_stopped_mariadb_are_copied_wherever_they_are() {
    let home = Home::with_repo();
    let (data, name) = (home.path("data"), "mariadb-10.11");
    let [ext, undo, redo, linked] = places(&home, ["ext", "undo", "redo", "linked"]);
    let files = format!("ibdata1:12M;{}/ibdata2:12M:autoextend", ext.display());
    let options = [
        ("innodb_undo_tablespaces", Path::new("3")),
        ("innodb_undo_directory", &*undo),
        ("innodb_log_group_home_dir", &*redo),
        ("innodb_data_home_dir", Path::new("")),
        ("innodb_data_file_path", Path::new(&files)),
    ];
    let mut server = on(name, &data, &options).await;
    make_mariadb(&server, &data, &ext, &linked).await;
    let before = sums(&server).await;
    let url = server.url();
    let live = ["--strategy", "physical", "--lock-and-copy", "--source", &url];
    let outside = "is outside of the data directory";
    home.on_repo([&["backup", "--cluster", "shop"], &live[..]].concat()).expect(6).says(outside);
    let check = home.on_repo([&["check"], &live[..]].concat()).expect(6);
    assert!(check.stdout.contains(outside), "{check:?}");
    server.0.stop().await.unwrap();

    let source = format!("file://{}?redo={}", data.display(), redo.display());
    let run = cold(&home, &source).expect(6).says("of the system tablespace").says("and 3 more");
    let check = ["check", "--strategy", "physical", "--source", &source];
    let check = home.on_repo(check).expect(run.code.unwrap());
    assert!(check.stdout.contains("of the system tablespace"), "{check:?}");
    let source = format!("{source}&also={}", ext.display());
    cold(&home, &source).expect(6).says("the undo tablespace with the number");
    let source = format!("{source}&undo={}", undo.display());
    cold(&home, &source).expect(0);
    let target = home.path("target");
    let to = ["restore", "--cluster", "shop", "--target-dir", target.to_str().unwrap()];
    home.on_repo([&to[..], &["--dry-run"]].concat()).expect(14);
    home.on_repo(to).expect(14).says("innodb_data_file_path=ibdata1");
    // All of it is in one directory now.
    let length = target.join("ibdata1").metadata().unwrap().len() >> 20;
    let files = format!("ibdata1:{length}M;ibdata2:12M:autoextend");
    let options = [("innodb_undo_tablespaces", "3"), ("innodb_data_file_path", &files)];
    let options = options.map(|(name, value)| (name, Path::new(value)));
    let restored = on(name, &target, &options).await;
    assert_eq!(sums(&restored).await, before);
}

/// Tables of MariaDB in places of all kinds.
async fn make_mariadb(server: &Server, data: &Path, ext: &Path, linked: &Path) {
    let mut session = server.session().await;
    server::shop(&mut session).await;
    // A database that somebody moved.
    std::fs::remove_dir(linked).unwrap();
    server::run(&mut session, &["CREATE DATABASE linked"]).await;
    std::fs::rename(data.join("linked"), linked).unwrap();
    std::os::unix::fs::symlink(linked, data.join("linked")).unwrap();
    let at = ext.display();
    let far = format!("DATA DIRECTORY='{at}'");
    for sql in [
        format!("CREATE TABLE shop.far (id INT PRIMARY KEY, t VARCHAR(50)) {far}"),
        "INSERT INTO shop.far SELECT id, 'far' FROM shop.orders".to_owned(),
        format!(
            "CREATE TABLE shop.old (id INT PRIMARY KEY) ENGINE=MyISAM {far} INDEX DIRECTORY='{at}'"
        ),
        "INSERT INTO shop.old SELECT id FROM shop.orders".to_owned(),
        format!("CREATE TABLE shop.aria (id INT PRIMARY KEY) ENGINE=Aria {far}"),
        "INSERT INTO shop.aria SELECT id FROM shop.orders".to_owned(),
        format!(
            "CREATE TABLE shop.parts (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION low VALUES LESS THAN \
             (100) {far}, PARTITION high VALUES LESS THAN MAXVALUE)"
        ),
        "INSERT INTO shop.parts SELECT id FROM shop.orders".to_owned(),
        "CREATE TABLE linked.t (id INT PRIMARY KEY) SELECT id FROM shop.orders".to_owned(),
        "CREATE TABLE linked.old (id INT PRIMARY KEY) ENGINE=MyISAM SELECT id FROM shop.orders"
            .to_owned(),
    ] {
        server::run(&mut session, &[&sql]).await;
    }
    session.close().await.unwrap();
}

#[tokio::test]
async fn links_and_far_tablespaces_of_a_stopped_mariadb_come_back_as_plain_files() {
    let home = Home::with_repo();
    let (data, name) = (home.path("data"), "mariadb-10.11");
    let [ext, linked] = places(&home, ["ext", "linked"]);
    let mut server = on(name, &data, &[]).await;
    make_mariadb(&server, &data, &ext, &linked).await;
    let before = sums(&server).await;
    server.0.stop().await.unwrap();
    cold(&home, &format!("file://{}", data.display())).expect(0);
    comes_back(&home, name, &["data", "ext", "linked"], &before).await;
}

#[tokio::test]
async fn a_tool_takes_links_and_far_tablespaces_with_it() {
    let home = Home::with_repo();
    let (data, name) = (home.path("data"), "mariadb-10.11");
    let [ext, linked, undo] = places(&home, ["ext", "linked", "undo"]);
    let options = [("innodb_undo_tablespaces", Path::new("3")), ("innodb_undo_directory", &*undo)];
    let mut server = on(name, &data, &options).await;
    make_mariadb(&server, &data, &ext, &linked).await;
    let before = sums(&server).await;
    let (url, tool) = (server.url(), install(name));
    let more = ["--strategy", "physical", "--source", &url, "--tool", tool.to_str().unwrap()];
    // Those of Aria it does not follow.
    let backup = || home.on_repo([&["backup", "--cluster", "shop"], &more[..]].concat());
    backup().expect(6).says("aria.MAD is a symbolic link").says("--lock-and-copy");
    server::run(&mut server.session().await, &["DROP TABLE shop.aria"]).await;
    let before: Vec<_> = before.into_iter().filter(|(name, _)| name != "shop.aria").collect();
    backup().expect(0);
    // The server must not write while its files are looked at.
    server.0.stop().await.unwrap();
    comes_back(&home, name, &["data", "ext", "linked", "undo"], &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_behind_a_link_is_copied_under_the_lock_and_refused_for_a_snapshot() {
    for name in ["mysql-9.7", "mariadb-10.11"] {
        let home = Home::with_repo();
        let data = home.path("data");
        let [linked] = places(&home, ["linked"]);
        let mut server = on(name, &data, &[]).await;
        let mut session = server.session().await;
        server::shop(&mut session).await;
        let far = "CREATE TABLE shop.far (id INT PRIMARY KEY, t VARCHAR(50))";
        server::run(&mut session, &[far, "INSERT INTO shop.far SELECT id, 'far' FROM shop.orders"])
            .await;
        server.0.stop().await.unwrap();
        std::fs::remove_dir(&linked).unwrap();
        std::fs::rename(data.join("shop"), &linked).unwrap();
        std::os::unix::fs::symlink(&linked, data.join("shop")).unwrap();
        let mut server = on(name, &data, &[]).await;
        let before = sums(&server).await;
        let url = server.url();

        let (create, remove) = pair::copying(&home);
        let run = tokio::task::block_in_place(|| pair::backup(&home, &url, &create, &remove));
        run.expect(6).says("shop of the server leads to").says("--lock-and-copy");
        assert!(!home.path("diary").exists(), "no snapshot was taken");
        let check = ["check", "--strategy", "snapshot", "--source", &url];
        let pair =
            ["--snapshot-create", create.to_str().unwrap(), "--snapshot-remove", "/bin/true"];
        let check = home.on_repo([&check[..], &pair].concat()).expect(6);
        assert!(check.stdout.contains("leads to"), "{check:?}");

        let args = ["backup", "--strategy", "physical", "--source", &url, "--cluster", "shop"];
        let more = ["--lock-and-copy", "--lock-timeout", "120"];
        tokio::task::block_in_place(|| home.on_repo([&args[..], &more].concat())).expect(0);
        server.0.stop().await.unwrap();
        comes_back(&home, name, &["data", "linked"], &before).await;
    }
}

/// A disk that is not mounted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_leads_nowhere_is_refused_by_name() {
    for name in ["mysql-9.7", "mariadb-10.11"] {
        let home = Home::with_repo();
        let data = home.path("data");
        let [disk] = places(&home, ["disk"]);
        let mut server = on(name, &data, &[]).await;
        let mut session = server.session().await;
        server::shop(&mut session).await;
        let sql = [
            "CREATE DATABASE linked",
            "CREATE TABLE linked.t (id INT PRIMARY KEY) ENGINE=MyISAM",
            "INSERT INTO linked.t VALUES (1)",
        ];
        server::run(&mut session, &sql).await;
        server.0.stop().await.unwrap();
        std::fs::rename(data.join("linked"), disk.join("linked")).unwrap();
        std::os::unix::fs::symlink(disk.join("linked"), data.join("linked")).unwrap();
        let unmounted = home.path("unmounted");
        std::fs::rename(&disk, &unmounted).unwrap();
        // What is of a process that is gone is in nobody's way.
        std::os::unix::fs::symlink("/nowhere/mysql.sock", data.join("mysql.sock")).unwrap();

        let file = format!("file://{}", data.display());
        let says = |run: Run| {
            let all = format!("{}{}", run.stdout, run.stderr);
            let link = format!("{} is a symbolic link to", data.join("linked").display());
            let to = disk.join("linked").display().to_string();
            assert!(run.code == Some(6) && all.contains(&link) && all.contains(&to), "{run:?}");
        };
        says(cold(&home, &file));
        says(home.on_repo(["check", "--strategy", "physical", "--source", &file]));
        let mut server = on(name, &data, &[]).await;
        let url = server.url();
        let locked = ["--strategy", "physical", "--lock-and-copy", "--source", &url];
        says(home.on_repo([&["check"], &locked[..]].concat()));
        says(home.on_repo([&["backup", "--cluster", "shop"], &locked[..]].concat()));
        let (create, remove) = pair::copying(&home);
        says(tokio::task::block_in_place(|| pair::backup(&home, &url, &create, &remove)));
        assert!(!home.path("diary").exists(), "a snapshot was taken");
        server.0.stop().await.unwrap();

        std::fs::rename(&unmounted, &disk).unwrap();
        let mut server = on(name, &data, &[]).await;
        let before = sums(&server).await;
        server.0.stop().await.unwrap();
        cold(&home, &file).expect(0);
        comes_back(&home, name, &["data", "disk"], &before).await;
    }
}

/// Tables that binlogs make in directories of the source, which the restore is not to touch, come into the data
/// directory, as those do that were there before.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binlogs_write_nothing_outside_of_the_target(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let mysql = name.starts_with("mysql");
    let home = Home::with_repo();
    let data = home.path("data");
    let [ext] = places(&home, ["ext"]);
    let options = [("innodb_directories", &*ext), ("log_bin", Path::new("binlog"))];
    let options = if mysql { &options[..] } else { &options[1..] };
    let mut server = on(name, &data, options).await;
    let mut session = server.session().await;
    let far = format!("DATA DIRECTORY='{}'", ext.display());
    let before = [
        "CREATE DATABASE shop".to_owned(),
        format!("CREATE TABLE shop.early (id INT PRIMARY KEY) {far}"),
        "INSERT INTO shop.early VALUES (1)".to_owned(),
        "CREATE TABLE shop.a (id INT PRIMARY KEY)".to_owned(),
    ];
    for sql in &before {
        server::run(&mut session, &[sql]).await;
    }
    server.0.stop().await.unwrap();
    cold(&home, &format!("file://{}?also={}", data.display(), ext.display())).expect(0);
    let server = on(name, &data, options).await;
    let mut session = server.session().await;
    let mut later = vec![
        // As servers come, and sessions of Holdfast do not.
        "SET SESSION sql_mode = 'STRICT_TRANS_TABLES', innodb_strict_mode = ON".to_owned(),
        format!("CREATE TABLE shop.far (id INT PRIMARY KEY) {far}"),
        "INSERT INTO shop.far VALUES (1), (2)".to_owned(),
        format!("CREATE TABLE shop.gone (id INT PRIMARY KEY) {far}"),
        "INSERT INTO shop.gone VALUES (1)".to_owned(),
        "DROP TABLE shop.gone".to_owned(),
        format!(
            "CREATE TABLE shop.parts (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION low VALUES LESS THAN \
             (100) {far}, PARTITION high VALUES LESS THAN MAXVALUE)"
        ),
        "INSERT INTO shop.parts VALUES (1), (200)".to_owned(),
        "TRUNCATE TABLE shop.early".to_owned(),
        "INSERT INTO shop.early VALUES (9)".to_owned(),
        "INSERT INTO shop.a VALUES (2)".to_owned(),
    ];
    if !mysql {
        for engine in ["MyISAM", "Aria"] {
            later.push(format!(
                "CREATE TABLE shop.of_{engine} (id INT PRIMARY KEY) ENGINE={engine} {far} INDEX DIRECTORY='{}'",
                ext.display()
            ));
            later.push(format!("INSERT INTO shop.of_{engine} VALUES (5)"));
        }
    }
    for sql in &later {
        server::run(&mut session, &[sql]).await;
    }
    let url = server.url();
    let archive = ["binlog", "backup", "--source", &url, "--cluster", "shop", "--from", "oldest"];
    home.on_repo(archive).expect(0);
    // Half of them are in the way of a second one, and half are not.
    let was = sums(&server).await;
    let dropped = if mysql { "shop.parts" } else { "shop.parts, shop.of_MyISAM" };
    server::run(&mut session, &["FLUSH TABLES", &format!("DROP TABLE {dropped}")]).await;
    let names = || home.files("ext").into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    let there = names();

    let target = home.path("target");
    let dir = install(name);
    let dir =
        ["restore", "--cluster", "shop", "--to-latest", "--server-dir", dir.to_str().unwrap()];
    let to = ["--target-dir", target.to_str().unwrap()];
    home.on_repo([&dir[..], &to].concat()).expect(0);
    assert_eq!(names(), there);
    let mut restored = on(name, &target, &[]).await;
    assert_eq!(sums(&restored).await, was);
    restored.0.stop().await.unwrap();
    assert_eq!(names(), there);

    // Beside the server that has them.
    let to = ["--target", &url, "--tables", "shop.far", "--rename", "shop.far=shop.far_then"];
    home.on_repo([&dir[..], &to].concat()).expect(0);
    assert_eq!(server.value("SELECT COUNT(*) FROM shop.far_then").await.as_deref(), Some("2"));
    assert_eq!(server.value("SELECT COUNT(*) FROM shop.far").await.as_deref(), Some("2"));
    assert_eq!(names(), there);
}

/// Pages that were half written are mended out of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_doublewrite_buffer_elsewhere_is_asked_for() {
    let home = Home::with_repo();
    let (data, name) = (home.path("data"), "mysql-9.7");
    let [buffer] = places(&home, ["buffer"]);
    let mut server = on(name, &data, &[("innodb_doublewrite_dir", &*buffer)]).await;
    server::shop(&mut server.session().await).await;
    let (create, remove) = pair::copying(&home);
    let url = server.url();
    let run = pair::backup(&home, &url, &create, &remove).expect(6);
    run.says("innodb_doublewrite_dir").says("--lock-and-copy");
    let check = ["check", "--strategy", "snapshot", "--snapshot-create", create.to_str().unwrap()];
    let more = ["--snapshot-remove", remove.to_str().unwrap(), "--snapshot-notes", "notes"];
    let check = home.on_repo([&check[..], &more, &["--source", &url]].concat()).expect(6);
    assert!(format!("{check:?}").contains("innodb_doublewrite_dir"), "{check:?}");
    server.0.kill();
    let take = |source: &str| {
        let args = ["backup", "--strategy", "physical", "--allow-unclean", "--cluster", "shop"];
        home.on_repo([&args[..], &["--source", source]].concat()).expect(14)
    };
    let source = format!("file://{}", data.display());
    take(&source).says("there are no doublewrite files");
    let run = take(&format!("{source}?also={}", buffer.display()));
    assert!(!run.stderr.contains("doublewrite"), "{run:?}");
}
