//! Whether a backup means what it should, as far as that can be told without a server.
//!
//! | looked at | found |
//! |---|---|
//! | catalogue | objects that are there twice, figures that do not add up to those of the manifest |
//! | definitions | what cannot be a definition of that name; columns, keys, engine that are not in it; parents, tables of triggers, tables of views that are not there |
//! | chunks | ranges with a hole or an overlap; artifacts that are missing, that nobody names, whose attributes say otherwise |
//! | rows | blocks, kinds, counts and digests; keys out of order, twice, or outside their range |

mod chunks;
mod definitions;
mod keys;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{
    ArtifactInfo, ArtifactName, ArtifactSource, Context, ErrorKind, Finding, Manifest, Result,
    Severity,
};

use super::catalog::{CATALOG, Catalog};
use super::resume;

/// More findings than this of one table say nothing more.
const MOST: usize = 20;

/// Looks at everything. Damage is a finding; what cannot be read because the store fails is an error.
///
/// # Errors
/// When the store fails or the run is cancelled.
pub async fn examine(
    cx: &Context,
    manifest: &Manifest,
    artifacts: &dyn ArtifactSource,
) -> Result<Vec<Finding>> {
    let mut found = Found::default();
    let catalog = match Catalog::read(artifacts).await {
        Ok(catalog) => catalog,
        Err(e) if e.kind() == ErrorKind::Damaged => {
            found.error(CATALOG, format!("the catalogue cannot be read: {}", e.chain()));
            return Ok(found.findings);
        }
        Err(e) => return Err(e),
    };
    let listed: BTreeMap<ArtifactName, ArtifactInfo> =
        artifacts.list().await?.into_iter().map(|a| (a.name.clone(), a)).collect();
    figures(manifest, &catalog, &mut found);
    definitions::check(manifest, &catalog, &mut found);
    // The plan is for a backup that goes on with this one; a masked one has none.
    let mut named: BTreeSet<ArtifactName> = [CATALOG.parse()?, resume::PLAN.parse()?].into();
    cx.progress().expect_rows(catalog.tables.iter().map(|t| t.digest.rows).sum());
    for table in &catalog.tables {
        cx.check()?;
        chunks::check(table, &listed, &mut named, &mut found);
        rows::check(cx, table, artifacts, &mut found).await?;
    }
    for name in listed.keys().filter(|name| !named.contains(name)) {
        found.error(name.as_str(), "no table of the catalogue names this artifact".to_owned());
    }
    Ok(found.findings)
}

/// What the manifest says of the catalogue.
fn figures(manifest: &Manifest, catalog: &Catalog, found: &mut Found) {
    let outcome = &manifest.outcome;
    let rows: u64 = catalog.tables.iter().map(|t| t.digest.rows).sum();
    if outcome.rows.is_some_and(|counted| counted != rows) {
        found.error(
            CATALOG,
            format!(
                "its tables have {rows} rows, and the manifest counts {}",
                outcome.rows.unwrap_or_default()
            ),
        );
    }
    let source = &outcome.source;
    if source.flavor != catalog.header.flavor || source.version != catalog.header.server_version {
        found.error(
            CATALOG,
            format!(
                "it is of {} {}, and the manifest of {} {}",
                catalog.header.flavor, catalog.header.server_version, source.flavor, source.version
            ),
        );
    }
}

/// The findings so far.
#[derive(Default)]
struct Found {
    findings: Vec<Finding>,
    /// How many there are of each object.
    counts: BTreeMap<String, usize>,
}

impl Found {
    fn error(&mut self, object: &str, problem: String) {
        let remedy = "take another backup, and restore from an older one meanwhile";
        let finding = Finding::new(Severity::Error, object, problem, remedy);
        self.add(finding.with_kind(ErrorKind::Damaged));
    }

    fn warning(&mut self, object: &str, problem: String, remedy: &str) {
        self.add(Finding::new(Severity::Warning, object, problem, remedy));
    }

    fn add(&mut self, finding: Finding) {
        let count = self.counts.entry(finding.object.clone()).or_default();
        *count += 1;
        if *count <= MOST {
            self.findings.push(finding);
        } else if *count == MOST + 1 {
            let Finding { severity, object, remedy, .. } = finding;
            let more = Finding::new(severity, object, "and more of this kind", remedy);
            self.findings.push(more.with_kind(ErrorKind::Damaged));
        }
    }
}
