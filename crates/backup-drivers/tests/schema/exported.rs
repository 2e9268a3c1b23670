//! A whole server through files that the server's own client loads: not one line may differ.

use std::path::Path;

use backup_core::{Context, Flavor, Result};
use backup_drivers::exchange::{Codec, FileSet, Sums};
use backup_drivers::foreign::Scan;
use backup_drivers::logical::{
    ExportFormat, ExportOptions, Exported, LogicalOptions, examine, export,
};
use mysql_async::prelude::Queryable;
use rstest::rstest;
use tempfile::TempDir;

use crate::exact::{differing, everything};
use crate::memory::Kept;
use crate::server::Server;

/// Runs a file by the server's own client, as the file itself says.
pub(crate) fn load(target: &Server, directory: &Path, file: &str) {
    let version = target.sandbox().install().flavor();
    let client = if version == Flavor::MySql { "mysql" } else { "mariadb" };
    let output = target
        .sandbox()
        .install()
        .command(client)
        .unwrap()
        .args(["--no-defaults", "-uroot", "--binary-mode", "--comments", "--local-infile=1"])
        .args(["--max-allowed-packet=1G"])
        .arg(format!("--socket={}", target.sandbox().socket().display()))
        .current_dir(directory)
        .stdin(std::fs::File::open(directory.join(file)).unwrap())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = std::fs::read(directory.join(file)).unwrap();
    let at = errors.split("at line ").nth(1).and_then(|rest| rest.split(':').next());
    let at: usize = at.and_then(|n| n.trim().parse().ok()).unwrap_or(1);
    let shown: Vec<String> = text
        .split(|b| *b == b'\n')
        .skip(at.saturating_sub(4))
        .take(8)
        .map(|line| line.escape_ascii().to_string())
        .collect();
    assert!(output.status.success(), "{errors}\n{}", shown.join("\n"));
}

async fn exported(kept: &Kept, directory: &Path, format: ExportFormat) -> Result<Exported> {
    let cx = Context::builder().build();
    let files = match format {
        ExportFormat::Sql => {
            FileSet::file(&directory.join("dump.sql"), Codec::Plain, Sums::default())?
        }
        _ => FileSet::directory(directory, Codec::Plain, Sums::default())?,
    };
    let options = ExportOptions { format, ..ExportOptions::default() };
    let exported = export(&cx, &kept.manifest(), &*kept.artifacts(), &options, &files).await?;
    files.finish().await?;
    Ok(exported)
}

/// One file of SQL, `dump.sql`.
pub(crate) async fn exported_sql(kept: &Kept, directory: &Path) -> Result<Exported> {
    exported(kept, directory, ExportFormat::Sql).await
}

/// A server that has what no file of SQL can bring.
pub(crate) async fn target(name: &str) -> Result<Server> {
    let target = Server::start_with(name, &[("local_infile", "ON")], false).await?;
    let mut conn = target.connect().await?;
    let statement = match target.facts().await?.flavor {
        Flavor::MySql => "SET GLOBAL partial_revokes = ON",
        Flavor::MariaDb => "INSTALL SONAME 'auth_ed25519'",
    };
    conn.query_drop(statement).await.unwrap();
    // As some set it for all their applications.
    conn.query_drop("SET GLOBAL autocommit = OFF").await.unwrap();
    Ok(target)
}

#[rstest]
#[case("mysql-9.7", ExportFormat::Sql)]
#[case("mariadb-10.11", ExportFormat::Sql)]
#[case("mariadb-11.8", ExportFormat::Sql)]
#[case("mysql-9.7", ExportFormat::Csv)]
#[case("mariadb-10.11", ExportFormat::Tsv)]
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_server_comes_back_from_files(
    #[case] name: &str,
    #[case] format: ExportFormat,
) -> Result<()> {
    let source = Server::start(name).await?;
    source.fill().await?;
    source.fill_more().await?;
    let kept = Kept::backup(&source, LogicalOptions::default()).await?;
    // Nothing is wrong with it, however hard the schema is.
    let findings =
        examine(&Context::builder().build(), &kept.manifest(), &*kept.artifacts()).await?;
    assert!(findings.is_empty(), "{findings:#?}");
    let directory = TempDir::new().unwrap();
    let exported = exported(&kept, directory.path(), format).await?;
    let target = target(name).await?;
    let files: &[&str] = match format {
        ExportFormat::Sql => &["dump.sql"],
        _ => &["schema.sql", "rows.sql", "code.sql"],
    };
    for file in files {
        if let Some(kept) = std::env::var_os("HOLDFAST_TEST_KEEP") {
            std::fs::copy(
                directory.path().join(file),
                Path::new(&kept).join(format!("{name}-{file}")),
            )
            .unwrap();
        }
        load(&target, directory.path(), file);
        // Nor is anything wrong with it to whoever reads it as a dump of another program.
        let mut scan = Scan::default();
        scan.feed(&std::fs::read(directory.path().join(file)).unwrap());
        let (contents, faults) = scan.finish();
        assert_eq!(faults, [], "{file}");
        assert!(contents.statements > 0, "{file}");
    }
    let (before, after) = (everything(&source).await?, everything(&target).await?);
    // No client can be told that a statement is in a character set whose second bytes are quotes.
    let misread = |text: &str| {
        ["gbk", "sjis", "gbk_v", "gbk_v2"].iter().any(|n| {
            text.contains(&format!(" shop.{n}:"))
                || text.contains(&format!(" shop.{n} is created with"))
        })
    };
    let mut differing = differing(&before, &after);
    differing.retain(|line| !(misread(line) && line.contains("gbk") || line.contains("sjis")));
    assert!(
        differing.is_empty(),
        "{} of {} differ:\n{}",
        differing.len(),
        before.len(),
        differing.join("\n")
    );
    // Such are told of, and the views that are of no use, and nothing else.
    let other = exported.warnings.iter().filter(|w| {
        let told = misread(w) && w.contains("would misread");
        !(told || w.contains("reads from what is not there"))
    });
    assert_eq!(other.collect::<Vec<_>>(), Vec::<&String>::new());
    let text = std::fs::read(directory.path().join(files[0])).unwrap();
    let text = String::from_utf8_lossy(&text);
    assert!(text.starts_with("-- M") && text.contains("\n-- Server version\t"), "{}", &text[..80]);
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("-- Dump completed on 20") && text.ends_with('\n'), "{last}");
    Ok(())
}
