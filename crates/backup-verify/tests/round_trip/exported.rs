//! Every column type through files of other programs.

use std::path::Path;
use std::process::{Command, Stdio};

use backup_core::{Flavor, Repository};
use backup_drivers::connect::Session;
use backup_drivers::exchange::{Codec, FileSet, SumKind, Sums};
use backup_drivers::logical::{ExportFormat, ExportOptions, LogicalOptions, export};
use backup_drivers::sandbox::Sandbox;
use rstest::rstest;

use crate::pair::{Pair, run_script};
use crate::{sides, types};

/// Runs a file by the target's own client.
pub(crate) fn load(pair: &Pair, directory: &Path, command: &str) {
    let (program, file) = command.split_once(' ').unwrap();
    let mut from =
        Command::new(program).arg(directory.join(file)).stdout(Stdio::piped()).spawn().unwrap();
    client_in(&pair.target, from.stdout.take().unwrap().into(), directory);
    assert!(from.wait().unwrap().success());
}

/// Runs statements by a server's own client.
pub(crate) fn client(server: &Sandbox, input: Stdio) {
    client_in(server, input, Path::new("/"));
}

fn client_in(server: &Sandbox, input: Stdio, directory: &Path) {
    let client = match server.install().flavor() {
        Flavor::MySql => "mysql",
        Flavor::MariaDb => "mariadb",
    };
    let output = server
        .install()
        .command(client)
        .unwrap()
        .args(["--no-defaults", "-uroot", "--binary-mode", "--comments", "--local-infile=1"])
        .args(["--max-allowed-packet=1G"])
        .arg(format!("--socket={}", server.socket().display()))
        .current_dir(directory)
        .stdin(input)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[rstest]
#[case("mysql-9.7", ExportFormat::Sql, true)]
#[case("mariadb-10.11", ExportFormat::Sql, false)]
#[case("mariadb-11.8", ExportFormat::Sql, false)]
#[case("mysql-9.7", ExportFormat::Tsv, false)]
#[case("mariadb-10.11", ExportFormat::Csv, true)]
#[tokio::test(flavor = "multi_thread")]
async fn every_value_comes_back_from_files(
    #[case] server: &str,
    #[case] format: ExportFormat,
    #[case] big: bool,
) {
    let pair = Pair::start_with(server, &[("local_infile", "ON")]).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    run_script(&mut source, include_str!("types_common.sql")).await;
    run_script(&mut source, types::own(server)).await;
    if server == "mariadb-11.8" {
        run_script(&mut source, include_str!("types_mariadb_11.sql")).await;
    }
    if big {
        types::big_values(&pair).await;
    }
    let mut target = Session::open(&pair.target()).await.unwrap();
    target.run("SET GLOBAL max_allowed_packet = 1073741824").await.unwrap();
    // The file must not depend on the modes of either side.
    for session in [&mut source, &mut target] {
        session.run(&format!("SET GLOBAL sql_mode = '{}'", types::STRICT)).await.unwrap();
    }
    let manifest = pair.backup(LogicalOptions { chunk_bytes: 1 << 20, ..Default::default() }).await;

    let directory = tempfile::TempDir::new().unwrap();
    let sums: Sums = [SumKind::Sha256, SumKind::Md5].into_iter().collect();
    let files = match format {
        ExportFormat::Sql => {
            FileSet::file(&directory.path().join("dump.sql.gz"), Codec::Gzip, sums).unwrap()
        }
        _ => FileSet::directory(&directory.path().join("dump"), Codec::Plain, sums).unwrap(),
    };
    let artifacts = pair.repository.artifacts(&pair.cx, &manifest).await.unwrap();
    let options = ExportOptions { format, ..ExportOptions::default() };
    let exported = export(&pair.cx, &manifest, &*artifacts, &options, &files).await.unwrap();
    assert_eq!(Some(exported.rows), manifest.outcome.rows);
    files.finish().await.unwrap();

    let (place, commands): (_, &[&str]) = match format {
        ExportFormat::Sql => (directory.path().to_owned(), &["zcat dump.sql.gz"]),
        _ => (directory.path().join("dump"), &["cat schema.sql", "cat rows.sql", "cat code.sql"]),
    };
    let name = if format == ExportFormat::Sql { "dump.sql.gz" } else { "holdfast" };
    for (program, kind) in [("sha256sum", "sha256"), ("md5sum", "md5")] {
        let output = Command::new(program)
            .args(["--strict", "-c", &format!("{name}.{kind}")])
            .current_dir(&place)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for command in commands {
        load(&pair, &place, command);
    }
    let rows = sides::rows(&mut source).await;
    assert!(rows.len() > 20, "{rows:?}");
    sides::assert_same("rows", &rows, &sides::rows(&mut target).await);
    let definitions = sides::definitions(&mut source).await;
    sides::assert_same("definitions", &definitions, &sides::definitions(&mut target).await);
    pair.stop().await;
}
