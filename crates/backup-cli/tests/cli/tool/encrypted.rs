//! Tables that MariaDB encrypts with keys of `file_key_management`: prepared, read and started on with the key file of
//! the source, and with nothing else of the machine's configuration.

use std::path::Path;

use backup_core::Context;
use rstest::rstest;

use super::install;
use crate::home::Home;
use crate::server::{self, Server};

/// A server on a directory, that has its keys from a file.
async fn with_keys(name: &str, directory: &Path, keys: &Path) -> Server {
    let builder = xtask::servers::sandbox(name).await.unwrap().datadir(directory).durable(false);
    // What is named as it is shapes a data directory, which is made before the plugin is there.
    let builder = builder
        .option("plugin-load-add", "file_key_management")
        .option("loose-file-key-management-filename", keys.to_str().unwrap())
        .option("loose-innodb-encrypt-log", "ON");
    Server(builder.start(&Context::builder().build()).await.unwrap())
}

async fn content(server: &Server) -> Vec<(String, Option<u64>)> {
    let sql = "CHECKSUM TABLE vault.secrets, vault.open EXTENDED";
    server.session().await.query_rows(sql).await.unwrap()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn encrypted_tables_come_back_with_the_key_file_of_the_source(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let home = Home::with_repo();
    let keys = home.write("keys", &format!("1;{}\n", "a7addd9adea9978fda19f21e6be98788".repeat(2)));
    let mut server = with_keys(name, &home.path("data"), &keys).await;
    let mut session = server.session().await;
    let sql = [
        "CREATE DATABASE vault",
        "CREATE TABLE vault.secrets (id INT PRIMARY KEY, t TEXT) ENCRYPTED=YES",
        "CREATE TABLE vault.open (id INT PRIMARY KEY, t TEXT)",
        "INSERT INTO vault.secrets SELECT seq, REPEAT('a platypus ', 20) FROM vault.seq_1_to_2000",
        "INSERT INTO vault.open SELECT seq, REPEAT('a quokka ', 20) FROM vault.seq_1_to_200",
    ];
    server::run(&mut session, &sql).await;
    let (url, tool) = (server.url(), install(name));
    let tool = tool.to_str().unwrap();
    let take = |kind: &str| {
        let args = ["backup", "--strategy", "physical", "--type", kind, "--cluster", "vault"];
        home.on_repo([&args[..], &["--source", &url, "--tool", tool]].concat()).expect(0);
    };
    take("full");
    let sql = "UPDATE vault.secrets SET t = REPEAT('a wombat ', 20) WHERE id % 7 = 0";
    server::run(&mut session, &[sql]).await;
    take("incremental");
    let before = content(&server).await;
    server::run(&mut session, &["DELETE FROM vault.secrets WHERE id % 2 = 0"]).await;
    let latest = content(&server).await;
    let archive = ["binlog", "backup", "--source", &url, "--cluster", "vault", "--from", "oldest"];
    home.on_repo(archive).expect(0);

    // Into a directory, from the full one and the increment; and on to a point, by a private server on the files.
    let here = ["--server-dir", tool, "--tool", tool];
    for (to, point, wanted) in
        [("restored", &[][..], &before), ("later", &["--to-latest"][..], &latest)]
    {
        let directory = home.path(to);
        let args = ["restore", "--cluster", "vault", "--target-dir", directory.to_str().unwrap()];
        let run = home.on_repo([&args[..], &here, point].concat()).expect(14);
        run.says("give the server the same keyring");
        let mut restored = with_keys(name, &directory, &keys).await;
        assert_eq!(&content(&restored).await, wanted, "{to}");
        restored.0.stop().await.unwrap();
        let file = std::fs::read(directory.join("vault/secrets.ibd")).unwrap();
        assert!(!file.windows(8).any(|bytes| bytes == b"platypus"), "{to}: it is in the clear");
    }

    // Into a private server, to be looked at, and to be read from.
    let drill = ["verify", "--cluster", "vault", "--level", "drill", "--server-dir", tool];
    let drill = home.on_repo([&drill[..], &["--json"]].concat()).expect(0).json().to_string();
    assert!(drill.contains("vault.secrets"), "{drill}");
    server::run(&mut session, &["DROP TABLE vault.secrets"]).await;
    let tables = ["restore", "--cluster", "vault", "--tables", "vault.secrets", "--target", &url];
    let tables = [&tables[..], &here].concat();
    home.on_repo(tables.iter().copied()).expect(0);
    assert_eq!(content(&server).await, before);

    // Without the key file nothing is begun, and it is named.
    server::run(&mut session, &["DROP TABLE vault.secrets"]).await;
    std::fs::rename(&keys, home.path("elsewhere")).unwrap();
    let to = home.path("none");
    let whole = ["restore", "--cluster", "vault", "--target-dir", to.to_str().unwrap()];
    let whole = [&whole[..], &here].concat();
    let planned = [&whole[..], &["--dry-run"]].concat();
    let planned_tables = [&tables[..], &["--dry-run"]].concat();
    let drill = ["verify", "--cluster", "vault", "--level", "drill", "--server-dir", tool];
    let named = format!("its key file {} cannot be read", keys.display());
    for args in [&whole[..], &planned, &tables, &planned_tables, &drill] {
        home.on_repo(args.iter().copied()).expect(9).says(&named);
    }
    assert!(!to.exists());

    // With other keys it is not the backup that is to blame.
    let other = format!("1;{}\n", "b8addd9adea9978fda19f21e6be98788".repeat(2));
    std::fs::write(&keys, other).unwrap();
    home.on_repo(whole.iter().copied())
        .expect(9)
        .says("see that the keys of file_key_management in");
    server.0.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_encrypted_files_are_drilled_with_the_keys_or_not_at_all() {
    let home = Home::with_repo();
    let name = "mariadb-10.11";
    let keys = home.write("keys", &format!("1;{}\n", "a7addd9adea9978fda19f21e6be98788".repeat(2)));
    let data = home.path("data");
    let mut server = with_keys(name, &data, &keys).await;
    let sql = [
        "CREATE DATABASE vault",
        "CREATE TABLE vault.secrets (id INT PRIMARY KEY, t TEXT) ENCRYPTED=YES",
        "INSERT INTO vault.secrets SELECT seq, REPEAT('a platypus ', 20) FROM vault.seq_1_to_2000",
    ];
    server::run(&mut server.session().await, &sql).await;
    let (url, tool) = (server.url(), install(name));
    let tool = tool.to_str().unwrap();
    let drill = ["verify", "--cluster", "vault", "--level", "drill", "--server-dir", tool];
    let proofs = || {
        let shown = home.on_repo(["show", "latest", "--json"]).expect(0).json();
        shown["verifications"].as_array().map_or(0, Vec::len)
    };

    let args = ["backup", "--strategy", "physical", "--lock-and-copy", "--cluster", "vault"];
    home.on_repo([&args[..], &["--source", &url, "--lock-timeout", "120"]].concat()).expect(0);
    let passed = home.on_repo([&drill[..], &["--json"]].concat()).expect(0).json().to_string();
    assert!(passed.contains("vault.secrets"), "{passed}");
    std::fs::rename(&keys, home.path("elsewhere")).unwrap();
    let named = format!("its key file {} cannot be read", keys.display());
    home.on_repo(drill).expect(9).says(&named);

    // Other keys prove as little of the backup.
    let before = proofs();
    std::fs::write(&keys, format!("1;{}\n", "b8addd9adea9978fda19f21e6be98788".repeat(2))).unwrap();
    home.on_repo(drill).expect(9).says("see that the keys of file_key_management in");
    assert_eq!(proofs(), before);
    std::fs::rename(home.path("elsewhere"), &keys).unwrap();

    // A stopped server tells nothing of its keys: nothing is proven, and the backup is not called bad.
    server.0.stop().await.unwrap();
    let source = format!("file://{}", data.display());
    let cold = ["backup", "--strategy", "physical", "--source", &source, "--cluster", "vault"];
    home.on_repo(cold).expect(0);
    let before = proofs();
    home.on_repo(drill).expect(9).says("it does not tell by which plugin");
    assert_eq!(proofs(), before);
}
