//! What a drill needs beside the rows: engines that are plugins, servers that tables show rows of, objects that belong
//! to no database.

use std::os::unix::fs::symlink;
use std::path::Path;

use rstest::rstest;

use crate::home::Home;
use crate::server::{self, Server, install};

/// The same directory out of links, but for what is at `without`.
fn mirror(from: &Path, to: &Path, without: &Path) {
    std::fs::create_dir(to).unwrap();
    let mut parts = without.iter();
    let (first, rest) = (parts.next().unwrap(), parts.as_path());
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.file_name() != first {
            symlink(entry.path(), place).unwrap();
        } else if rest != Path::new("") {
            mirror(&entry.path(), &place, rest);
        }
    }
}

#[rstest]
#[tokio::test]
async fn tables_of_plugins_and_of_other_servers(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let server = Server::start(name).await;
    let mut session = server.session().await;
    let here = format!(
        "CREATE SERVER here FOREIGN DATA WRAPPER mysql OPTIONS (SOCKET '{}', USER 'root', DATABASE 'f')",
        server.0.socket().display()
    );
    let statements = [
        "INSTALL SONAME 'ha_archive'",
        "INSTALL SONAME 'ha_blackhole'",
        "INSTALL SONAME 'ha_federatedx'",
        &here,
        "CREATE DATABASE ar",
        "CREATE TABLE ar.kept (a INT, b TEXT) ENGINE=ARCHIVE",
        "INSERT INTO ar.kept VALUES (1, 'one'), (2, 'two')",
        "CREATE TABLE ar.nothing (a INT) ENGINE=BLACKHOLE",
        "CREATE VIEW ar.numbers AS SELECT * FROM ar.seq_1_to_5 UNION ALL SELECT * FROM ar.seq_9_to_1_step_2",
        "CREATE DATABASE f",
        "CREATE TABLE f.rt (id INT PRIMARY KEY, v VARCHAR(9), KEY (v))",
        "CREATE TABLE f.fd (id INT PRIMARY KEY, v VARCHAR(9), KEY (v)) ENGINE=FEDERATED CONNECTION='here/rt'",
        "CREATE TABLE f.kept (id INT PRIMARY KEY)",
        "INSERT INTO f.kept VALUES (1), (2), (3)",
        "DROP TABLE f.rt",
        "FLUSH TABLES",
    ];
    server::run(&mut session, &statements).await;

    // That a table shows is gone, and nothing else is the worse for it.
    let (home, url) = (Home::with_repo(), server.url());
    home.on_repo(["check", "--source", &url]).expect(0);
    let backup = |more: &[&str]| {
        let command = ["backup", "--cluster", "c", "--source", &url, "--json"];
        home.on_repo([&command, more].concat())
    };
    let part = backup(&["--databases", "f", "--exclude-tables", "f.fd"]).expect(0).json();
    assert_eq!(part["rows"], 3, "{part:#}");
    let part = backup(&["--tables", "f.kept"]).expect(0).json();
    assert_eq!(part["rows"], 3, "{part:#}");
    let all = backup(&[]).expect(0).json();
    assert_eq!(all["rows"], 5, "{all:#}");

    // Tables of numbers are those of an engine.
    let verify = home.on_repo(["verify", "--cluster", "c", "--level", "logical"]).expect(0);
    assert!(!verify.stdout.contains("seq_"), "{verify:#?}");

    // A server that lacks an engine says nothing of the backup, and nobody takes it for damaged.
    let root = install(name);
    let poor = home.path("poor");
    let plugins = backup_drivers::sandbox::ServerInstall::detect(&root).unwrap();
    let plugins = plugins.base().strip_prefix(&root).unwrap().join("lib/mysql/plugin");
    mirror(&root, &poor, &plugins.join("ha_archive.so"));
    let drill = |root: &Path| {
        let root = root.to_str().unwrap();
        let verify = ["verify", "--cluster", "c", "--level", "drill", "--server-dir", root];
        home.on_repo(verify)
    };
    let run = drill(&poor).expect(9);
    run.says("ar.kept: the private server has no storage engine ARCHIVE").says("--server-dir");
    let list = home.on_repo(["list", "--cluster", "c", "--json"]).expect(0).json();
    let listed = list.as_array().unwrap().iter().find(|listed| listed["backup"] == all["backup"]);
    assert_eq!(listed.unwrap()["proof"]["level"], "logical", "{list:#}");
    let again = backup(&[]).expect(0).json();
    assert_eq!(again["warnings"].as_array().map_or(0, Vec::len), 0, "{again:#}");

    // With all of its plugins it takes what it has them for.
    let run = drill(&root).expect(0);
    assert!(run.stdout.contains("5 rows"), "{run:#?}");
    assert!(run.stdout.contains("f.fd: its definition is tried with InnoDB"), "{run:#?}");
}

/// What comes with a whole server, and belongs to no database, is there after a drill, and looked at.
#[tokio::test]
async fn objects_of_the_whole_server() {
    let server = Server::start("mysql-9.7").await;
    let mut session = server.session().await;
    let statements = [
        "CREATE DATABASE e",
        "CREATE RESOURCE GROUP rg TYPE = USER VCPU = 0",
        "CREATE RESOURCE GROUP `r``g 2` TYPE = USER VCPU = 0 THREAD_PRIORITY = 5 DISABLE",
        "CREATE TABLESPACE used ADD DATAFILE 'used.ibd'",
        "CREATE TABLESPACE idle ADD DATAFILE 'idle.ibd' FILE_BLOCK_SIZE = 8192",
        "CREATE TABLE e.t (id INT PRIMARY KEY) TABLESPACE used",
        "INSERT INTO e.t VALUES (1), (2)",
        "CREATE SPATIAL REFERENCE SYSTEM 4000000 NAME 'used' DEFINITION 'GEOGCS[\"a\",DATUM[\"a\",SPHEROID[\"a\",\
         6378137,298.257223563]],PRIMEM[\"Greenwich\",0],UNIT[\"degree\",0.017453292519943278],AXIS[\"Lat\",NORTH],\
         AXIS[\"Lon\",EAST]]'",
        "CREATE SPATIAL REFERENCE SYSTEM 4000001 NAME 'idle' DEFINITION 'GEOGCS[\"b\",DATUM[\"b\",SPHEROID[\"b\",\
         6378137,298.257223563]],PRIMEM[\"Greenwich\",0],UNIT[\"degree\",0.017453292519943278],AXIS[\"Lat\",NORTH],\
         AXIS[\"Lon\",EAST]]' ORGANIZATION 'ours' IDENTIFIED BY 7 DESCRIPTION 'x'",
        "CREATE TABLE e.g (id INT PRIMARY KEY, p POINT NOT NULL SRID 4000000, SPATIAL KEY (p))",
        "CREATE ROLE readers",
        "CREATE USER u@localhost IDENTIFIED BY 'secret' DEFAULT ROLE readers",
        "GRANT SELECT ON e.* TO readers",
        "CREATE SERVER far FOREIGN DATA WRAPPER mysql OPTIONS (HOST '192.0.2.1', USER 'x', DATABASE 'y')",
        "INSTALL COMPONENT 'file://component_query_attributes'",
        "CREATE FUNCTION e.attribute (n VARCHAR(9)) RETURNS VARCHAR(99) NO SQL RETURN mysql_query_attribute_string(n)",
    ];
    server::run(&mut session, &statements).await;
    let (home, url) = (Home::with_repo(), server.url());
    let backup = |more: &[&str]| {
        let command = ["backup", "--cluster", "c", "--source", &url, "--json"];
        home.on_repo([&command, more].concat()).expect(0)
    };
    let root = install("mysql-9.7");
    let verify =
        ["verify", "--cluster", "c", "--level", "drill", "--server-dir", root.to_str().unwrap()];
    backup(&[]);
    home.on_repo(verify).expect(0);
    // Of a part what its tables use comes along.
    backup(&["--databases", "e"]);
    home.on_repo(verify).expect(0);
}
