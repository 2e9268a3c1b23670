//! Servers that encrypt their binlogs: what they send is in the clear, what lies on their disks is of no
//! use without their keys.

use std::path::Path;
use std::process::Command;

use backup_core::{Context, ErrorKind, ReplayTarget};
use backup_drivers::binlog::{RescueOptions, rescue};
use backup_drivers::sandbox::{Sandbox, ServerInstall};
use rstest::rstest;
use tempfile::TempDir;

use crate::replay::{beginning, content, replay, route};
use crate::server::{Server, WORK};
use crate::store::{Store, cluster};

/// A MySQL whose installation (of hard links) names a keyring: the manifest has to be beside the
/// program, where other servers would read it, too.
async fn mysql(place: &Path) -> Server {
    let install = xtask::servers::install("mysql-9.7").unwrap();
    xtask::servers::sandbox("mysql-9.7").await.unwrap();
    let root = install.base().ancestors().find(|path| path.ends_with("mysql-9.7")).unwrap();
    let template = root.with_file_name(".templates");
    let template = template.join(format!("mysql-9.7-{}", install.version()));
    let copy = place.join("mysql-9.7");
    assert!(Command::new("cp").arg("-al").arg(root).arg(&copy).status().unwrap().success());
    let program = copy.join(install.server_path().strip_prefix(root).unwrap());
    let manifest = "{\"components\": \"file://component_keyring_file\"}";
    std::fs::write(program.with_file_name("mysqld.my"), manifest).unwrap();
    let plugins = copy.join("usr/lib/mysql/plugin");
    let keys = place.join("keys");
    let keyring = format!("{{\"path\": \"{}\", \"read_only\": false}}", keys.display());
    std::fs::write(plugins.join("component_keyring_file.cnf"), keyring).unwrap();
    let install = ServerInstall::detect(&copy).unwrap();
    let builder = Sandbox::builder(&install).template(template).tcp(true);
    let builder = builder.option("plugin-dir", plugins.to_str().unwrap());
    let builder = builder.option("binlog_encryption", "ON");
    Server(builder.start(&Context::builder().build()).await.unwrap())
}

async fn mariadb(place: &Path) -> Server {
    let keys = place.join("keys");
    std::fs::write(&keys, format!("1;{}\n", "a7addd9adea9978fda19f21e6be98788".repeat(2))).unwrap();
    Server::start("mariadb-10.11", |builder| {
        builder
            .option("plugin-load-add", "file_key_management")
            .option("loose-file-key-management-filename", keys.to_str().unwrap())
            .option("encrypt-binlog", "ON")
    })
    .await
}

#[rstest]
#[tokio::test]
async fn what_is_encrypted_at_the_source_arrives_in_the_clear(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let place = TempDir::new().unwrap();
    let source = match name.starts_with("mysql") {
        true => mysql(place.path()).await,
        false => mariadb(place.path()).await,
    };
    let store = Store::new().await;
    source.run(&WORK).await;
    store.archive(&source).await;
    // In the middle of an encrypted file.
    source
        .run(&[
            "INSERT INTO d.t (a) VALUES ('later')",
            "FLUSH BINARY LOGS",
            "INSERT INTO d.t (a) VALUES ('more')",
        ])
        .await;
    let received = store.archive(&source).await;
    assert_eq!(received.warnings, Vec::<String>::new());

    let first = source.0.datadir().join("binlog.000001");
    let bytes = std::fs::read(first).unwrap();
    let plain = |bytes: &[u8]| bytes.windows(9).any(|window| window == b"CREATE TA");
    assert!(!plain(&bytes), "the source does not encrypt");

    let target = Server::start(name, |builder| builder).await;
    let way = route(&store, &beginning(&source, ""), &ReplayTarget::End, &[]).await.unwrap();
    replay(&store, &target, way).await;
    assert_eq!(content(&target).await, content(&source).await);

    let before = store.segments().await.len();
    let e =
        rescue(&store.cx, &store.repo, &cluster(), source.0.datadir(), RescueOptions::default())
            .await
            .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Source, "{}", e.report());
    assert!(e.report().contains("encrypted"), "{}", e.report());
    assert_eq!(store.segments().await.len(), before);
}
