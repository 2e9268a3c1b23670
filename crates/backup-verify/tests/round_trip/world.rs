//! Schemas as applications make them, through a restore and through a file of SQL. A file of statements
//! of one's own, for the servers' clients, is run too: `HOLDFAST_TEST_SCHEMA=file.sql`.

use backup_core::{Level, Repository, Severity, Verifier};
use backup_drivers::connect::Session;
use backup_drivers::exchange::{Codec, FileSet, Sums};
use backup_drivers::logical::{ExportOptions, LogicalOptions, LogicalRestoreOptions, export};
use backup_verify::LogicalVerifier;
use rstest::rstest;

use crate::exported::{client, load};
use crate::pair::{Pair, run_script};
use crate::sides;

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn schemas_of_applications_come_back_both_ways(
    #[values("mysql-9.7", "mariadb-10.11")] server: &str,
) {
    let pair = Pair::start(server).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    run_script(&mut source, include_str!("world.sql")).await;
    if let Some(file) = std::env::var_os("HOLDFAST_TEST_SCHEMA") {
        client(&pair.source, std::fs::File::open(file).unwrap().into());
    }
    let mut source = Session::open(&pair.source()).await.unwrap();
    let (rows, definitions) =
        (sides::rows(&mut source).await, sides::definitions(&mut source).await);
    assert!(rows.len() >= 17 && definitions.len() >= 25, "{} {}", rows.len(), definitions.len());

    let manifest = pair.backup(LogicalOptions::default()).await;
    let artifacts = pair.repository.artifacts(&pair.cx, &manifest).await.unwrap();
    let verifier = LogicalVerifier::new();
    let report = verifier.verify(&pair.cx, &manifest, artifacts.clone()).await.unwrap();
    let bad = report.findings.iter().filter(|f| f.severity > Severity::Info);
    assert_eq!((report.level, bad.count()), (Level::Logical, 0), "{:#?}", report.findings);

    pair.restore(&manifest, LogicalRestoreOptions::default()).await;
    let mut target = Session::open(&pair.target()).await.unwrap();
    sides::assert_same("rows", &rows, &sides::rows(&mut target).await);
    sides::assert_same("definitions", &definitions, &sides::definitions(&mut target).await);

    // Once more, over what was restored.
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("dump.sql");
    let files = FileSet::file(&path, Codec::Plain, Sums::default()).unwrap();
    let options = ExportOptions { add_drop: true, ..ExportOptions::default() };
    export(&pair.cx, &manifest, &*artifacts, &options, &files).await.unwrap();
    files.finish().await.unwrap();
    load(&pair, directory.path(), "cat dump.sql");
    sides::assert_same("rows", &rows, &sides::rows(&mut target).await);
    sides::assert_same("definitions", &definitions, &sides::definitions(&mut target).await);
    pair.stop().await;
}
