//! Donors whose files are encrypted: their keys come too, and go nowhere that is not encrypted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::{Repository as _, Severity, Verifier as _, pipeline};
use backup_drivers::clone::CloneBackup;
use backup_drivers::connect::{ConnectOptions, Session, SslMode};
use backup_storage::{Repo, RepoUrl, RepositoryOptions};
use backup_verify::{DrillOptions, DrillVerifier};

use crate::stage::{MYSQL, Stage, checksums, run, spec};

const SHAPES: [&str; 14] = [
    "CREATE USER backup@'%' IDENTIFIED BY 'secret'",
    "GRANT BACKUP_ADMIN ON *.* TO backup@'%'",
    "ALTER TABLESPACE mysql ENCRYPTION='Y'",
    "CREATE DATABASE d DEFAULT ENCRYPTION='Y'",
    "CREATE DATABASE churn DEFAULT ENCRYPTION='Y'",
    "CREATE TABLE d.t (id INT PRIMARY KEY, a VARCHAR(500))",
    "CREATE TABLE d.zip (id INT PRIMARY KEY, a VARCHAR(500)) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4",
    "CREATE TABLE d.packed (id INT PRIMARY KEY, a VARCHAR(500)) COMPRESSION='zlib'",
    "CREATE TABLE d.parts (id INT PRIMARY KEY, a VARCHAR(500)) PARTITION BY HASH (id) PARTITIONS 3",
    "CREATE TABLESPACE general ADD DATAFILE 'general.ibd' ENCRYPTION='Y'",
    "CREATE TABLE d.in_general (id INT PRIMARY KEY, a VARCHAR(500)) TABLESPACE general",
    "CREATE TABLE d.plain (id INT PRIMARY KEY) ENCRYPTION='N'",
    "INSERT INTO d.t WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 900) \
     SELECT n, REPEAT(SHA2(n, 256), 6) FROM r",
    "INSERT INTO d.plain VALUES (1)",
];

/// Encrypted tables that come, change and go.
async fn churn(options: ConnectOptions, stop: Arc<AtomicBool>) {
    let mut session = Session::open(&options).await.unwrap();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        run(
            &mut session,
            &[
                &format!("CREATE TABLE churn.t{n} (id INT PRIMARY KEY, a VARCHAR(500))"),
                &format!("INSERT INTO churn.t{n} SELECT * FROM d.t WHERE id < 50"),
                &format!("ALTER TABLE churn.t{n} ADD KEY (a)"),
                &format!("RENAME TABLE churn.t{n} TO churn.u{n}"),
                &format!("CREATE TABLESPACE ts{n} ADD DATAFILE 'ts{n}.ibd' ENCRYPTION='Y'"),
                &format!("CREATE TABLE churn.g{n} (id INT PRIMARY KEY) TABLESPACE ts{n}"),
                &format!("INSERT INTO churn.g{n} VALUES (1), (2)"),
                &format!("CREATE TABLE churn.p{n} (id INT) ENCRYPTION='N'"),
                &format!("ALTER TABLE churn.p{n} ENCRYPTION='Y'"),
            ],
        )
        .await;
        if let Some(old) = i32::checked_sub(n, 5).filter(|old| *old >= 0) {
            run(
                &mut session,
                &[
                    &format!("DROP TABLE churn.u{old}, churn.g{old}, churn.p{old}"),
                    &format!("DROP TABLESPACE ts{old}"),
                ],
            )
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_donor_is_cloned_where_its_keys_are_safe() {
    let stage = Stage::new(|builder| builder.keyring(true)).await;
    let mut donor = stage.session().await;
    run(&mut donor, &SHAPES).await;
    for table in ["zip", "packed", "parts", "in_general"] {
        run(&mut donor, &[&format!("INSERT INTO d.{table} SELECT * FROM d.t")]).await;
    }
    run(
        &mut donor,
        &["SET GLOBAL innodb_undo_log_encrypt = ON", "SET GLOBAL innodb_redo_log_encrypt = ON"],
    )
    .await;

    // Over a socket, and over TCP without TLS.
    let tcp = stage.tcp("backup", "secret");
    let e = stage.try_backup(&stage.cx, stage.source()).await.unwrap_err();
    assert!(e.report().contains("connect over TCP"), "{}", e.report());
    let plain = tcp.clone().with_ssl_mode(SslMode::Disabled);
    let e = stage.try_backup(&stage.cx, plain).await.unwrap_err();
    assert!(e.report().contains("ssl-mode=required"), "{}", e.report());
    // Into a repository that anybody can read.
    let url: RepoUrl = stage.directory.path().join("open").to_str().unwrap().parse().unwrap();
    let open = Repo::init(&stage.cx, &url, RepositoryOptions::default()).await.unwrap();
    let driver = CloneBackup::new(tcp.clone(), stage.options());
    let e = pipeline::backup(&stage.cx, &open, &driver, spec()).await.unwrap_err();
    assert!(e.report().contains("the repository is not encrypted"), "{}", e.report());

    let stop = Arc::new(AtomicBool::new(false));
    let churn = tokio::spawn(churn(stage.source(), Arc::clone(&stop)));
    let mut manifests = Vec::new();
    for _ in 0..2 {
        let taken = stage.try_backup(&stage.cx, tcp.clone()).await;
        manifests.push(taken.unwrap_or_else(|e| panic!("{}", e.report())));
    }
    stop.store(true, Ordering::Relaxed);
    churn.await.unwrap();
    run(&mut donor, &["DROP DATABASE churn"]).await;
    let sums = checksums(&mut donor).await;

    for manifest in &manifests {
        let restored = stage.restored(manifest, |builder| builder.keyring(true)).await;
        restored.check_tables().await;
        let mut session = restored.session().await;
        run(&mut session, &["INSERT INTO d.t VALUES (100000, 'new')"]).await;
        run(&mut session, &["DELETE FROM d.t WHERE id = 100000", "DROP DATABASE churn"]).await;
        assert_eq!(checksums(&mut session).await, sums);
        let clear: Vec<String> = session
            .query_rows(
                "SELECT NAME FROM information_schema.INNODB_TABLESPACES WHERE ENCRYPTION = 'N' \
                 AND (NAME LIKE 'd/%' OR NAME IN ('mysql', 'general')) AND NAME <> 'd/plain'",
            )
            .await
            .unwrap();
        assert_eq!(clear, Vec::<String>::new());
        // It has put everything under its own master key.
        run(&mut session, &["ALTER INSTANCE ROTATE INNODB MASTER KEY"]).await;
    }

    let install = xtask::servers::install(MYSQL).unwrap();
    let options = DrillOptions {
        server: Some(install.base().to_owned()),
        directory: Some(stage.directory.path().to_owned()),
        ..DrillOptions::default()
    };
    let artifacts = stage.repository.artifacts(&stage.cx, &manifests[0]).await.unwrap();
    let report = DrillVerifier::new(options).verify(&stage.cx, &manifests[0], artifacts).await;
    let report = report.unwrap_or_else(|e| panic!("{}", e.report()));
    let bad: Vec<_> = report.findings.iter().filter(|f| f.severity == Severity::Error).collect();
    assert!(bad.is_empty(), "{bad:?}");
}
