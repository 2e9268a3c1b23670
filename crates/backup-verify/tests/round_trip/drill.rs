//! A drill passes for what is whole, and fails for whatever is not, by name.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSource, Error, ErrorKind, Level, Manifest,
    Report, Repository, Result, Severity, Verifier,
};
use backup_drivers::connect::Session;
use backup_drivers::logical::{CATALOG, LogicalOptions};
use backup_verify::{DrillOptions, DrillVerifier};
use bytes::Bytes;
use rstest::rstest;

use crate::pair::Pair;
use crate::stock;

/// Artifacts of which some are not what they were.
struct Altered {
    inner: Arc<dyn ArtifactSource>,
    edit: fn(&str) -> String,
    /// Artifacts with this in their names cannot be read.
    unreadable: &'static str,
}

struct Once(Option<Bytes>);

#[async_trait]
impl ArtifactReader for Once {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        Ok(self.0.take())
    }
}

#[async_trait]
impl ArtifactSource for Altered {
    async fn list(&self) -> Result<Vec<ArtifactInfo>> {
        self.inner.list().await
    }
    async fn open(&self, name: &ArtifactName) -> Result<Box<dyn ArtifactReader>> {
        if !self.unreadable.is_empty() && name.as_str().contains(self.unreadable) {
            return Err(Error::damaged(format!("{name} does not match its digest")));
        }
        if name.as_str() != CATALOG {
            return self.inner.open(name).await;
        }
        let text = self.inner.read(name, 1 << 20).await?;
        let edited = (self.edit)(std::str::from_utf8(&text).unwrap());
        assert!(!self.unreadable.is_empty() || edited.as_bytes() != text, "nothing was altered");
        Ok(Box::new(Once(Some(Bytes::from(edited)))))
    }
}

async fn drill(
    pair: &Pair,
    manifest: &Manifest,
    unreadable: &'static str,
    edit: fn(&str) -> String,
) -> Report {
    let inner = pair.repository.artifacts(&pair.cx, manifest).await.unwrap();
    let altered = Arc::new(Altered { inner, edit, unreadable });
    verifier(pair).verify(&pair.cx, manifest, altered).await.unwrap()
}

fn verifier(pair: &Pair) -> DrillVerifier {
    // The root of the tree that the servers of this test run from.
    let root = pair.source.install().base().parent().unwrap().to_owned();
    DrillVerifier::new(DrillOptions {
        server: Some(root),
        directory: None,
        ..DrillOptions::default()
    })
}

fn errors(report: &Report) -> Vec<(&str, &str)> {
    let errors = report.findings.iter().filter(|f| f.severity == Severity::Error);
    errors.map(|f| (f.object.as_str(), f.problem.as_str())).collect()
}

/// A catalogue in which the rows of a table, taken together, have another digest.
fn with_another_row(catalog: &str, table: &str) -> String {
    let at = catalog.find(&format!(r#""name":"{table}""#)).unwrap();
    let at = at + catalog[at..].find(r#""sum":""#).unwrap() + 7;
    let flipped = if catalog.as_bytes()[at] == b'0' { "1" } else { "0" };
    let old = &catalog[at..at + 32];
    catalog.replace(old, &format!("{flipped}{}", &old[1..]))
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_whole_passes(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] server: &str,
) {
    let pair = Pair::start_with(server, &[("log_bin_trust_function_creators", "1")]).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    stock::fill(&mut source).await;
    let manifest =
        pair.backup(LogicalOptions { chunk_bytes: 128 << 10, ..Default::default() }).await;

    let artifacts = pair.repository.artifacts(&pair.cx, &manifest).await.unwrap();
    let report = verifier(&pair).verify(&pair.cx, &manifest, artifacts).await.unwrap();
    assert!(report.ok(), "{:#?}", errors(&report));
    assert_eq!(report.level, Level::Drill);
    let rows = manifest.outcome.rows.unwrap();
    assert!(report.findings[0].problem.contains(&format!("{rows} rows")), "{report:#?}");

    // A row of one table differs: that table alone is named.
    let report = drill(&pair, &manifest, "", |text| with_another_row(text, "part")).await;
    assert!(!report.ok());
    let names: Vec<&str> = errors(&report).iter().map(|(object, _)| *object).collect();
    assert_eq!(names, ["stock.part"], "{report:#?}");

    // And where it is a document, whose numbers may have another form.
    if server.starts_with("mysql") {
        let report = drill(&pair, &manifest, "", |text| with_another_row(text, "clever")).await;
        let names: Vec<&str> = errors(&report).iter().map(|(object, _)| *object).collect();
        assert_eq!(names, ["stock.clever"], "{report:#?}");
    }

    // Two that cannot be read: both are named.
    let report = drill(&pair, &manifest, "tables/stock/c", str::to_owned).await;
    let names: Vec<&str> = errors(&report).iter().map(|(object, _)| *object).collect();
    let both = names.contains(&"stock.child") && names.contains(&"stock.counter");
    assert!(both && !names.contains(&"stock.big"), "{report:#?}");

    // The catalogue lost a table, and says something else of a definition than the server does.
    let lost = |text: &str| {
        let lines = text.lines().filter(|line| !line.contains(r#""name":"heap_of_rows""#));
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        text.replacen(r#""engine":"MEMORY""#, r#""engine":"CSV""#, 1)
    };
    let report = drill(&pair, &manifest, "", lost).await;
    let errors = errors(&report);
    assert!(errors[0].1.contains("the manifest says"), "{errors:#?}");
    assert!(errors.iter().any(|(name, _)| *name == "stock.fleeting"), "{errors:#?}");

    // No server of that kind.
    let wrong = DrillVerifier::new(DrillOptions {
        server: Some(pair.source.datadir().to_owned()),
        directory: None,
        ..DrillOptions::default()
    });
    let artifacts = pair.repository.artifacts(&pair.cx, &manifest).await.unwrap();
    let error = wrong.verify(&pair.cx, &manifest, artifacts).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{}", error.report());
    pair.stop().await;
}
