//! Every page of the tablespaces of a backup: what the server itself would say of them.

use std::collections::HashMap;
use std::sync::Arc;

use backup_core::{
    ArtifactSource, Context, Error, ErrorKind, Finding, Manifest, Result, Severity, Strategy,
};
use backup_drivers::files::{Catalog, Entry, State, WholeFile};
use backup_drivers::innodb::{
    DeltaChecker, Geometry, HEAD_BYTES, PageChecker, PageSummary, TableFile,
};
use futures::{StreamExt, TryStreamExt, stream};

/// The longest text that says what an increment is of, in bytes.
const MAX_META: usize = 4096;
/// So many pages are findings of their own.
const NAMED: usize = 100;

/// Reads every tablespace and checks every page.
///
/// # Errors
/// When the artifacts cannot be read; what is wrong with the pages is a finding.
pub(crate) async fn check_pages(
    cx: &Context,
    backup: &Manifest,
    artifacts: &Arc<dyn ArtifactSource>,
) -> Result<Vec<Finding>> {
    let object = backup.backup.as_str();
    let catalog = match Catalog::read(&**artifacts).await {
        Ok(catalog) => catalog,
        Err(e) if e.kind() == ErrorKind::Damaged => {
            let finding = Finding::new(Severity::Error, object, e.chain(), e.remedy().to_owned());
            return Ok(vec![finding.with_kind(ErrorKind::Damaged)]);
        }
        Err(e) => return Err(e),
    };
    cx.phase("verify pages");
    // What a tool changes afterwards it has not prepared yet.
    let whole = |entry: &&Entry| {
        entry.page_size.is_some() && (!entry.changes || backup.strategy == Strategy::Clone)
    };
    let (system, others): (Vec<Entry>, Vec<Entry>) =
        catalog.files().filter(whole).cloned().partition(may_be_system);
    let first: Vec<Entry> = others.into_iter().filter(|entry| entry.space_id.is_some()).collect();
    let mut checked: Vec<(Entry, PageSummary)> = stream::iter(first)
        .map(|entry| {
            let (cx, artifacts) = (cx.clone(), Arc::clone(artifacts));
            async move {
                let summary = pages(&cx, &artifacts, &entry, PageChecker::new()).await?;
                Ok::<_, Error>((entry, summary))
            }
        })
        .buffer_unordered(cx.threads())
        .try_collect()
        .await?;
    checked.extend(system_tablespace(cx, artifacts, system).await?);
    checked.extend(headless(cx, artifacts, &catalog).await?);
    checked.extend(increments(cx, artifacts, &catalog).await?);
    Ok(findings(backup, &catalog, &checked))
}

/// Whether a file may be of the system tablespace: it is in the data directory itself, and is of no other one.
fn may_be_system(entry: &Entry) -> bool {
    let other = [".ibd", ".ibu"].iter().any(|ending| entry.path.ends_with(ending));
    !entry.path.contains('/')
        && !other
        && !entry.path.starts_with("undo")
        && matches!(entry.space_id, None | Some(0))
}

/// The pages of the system tablespace. Its files after the first go on with its pages, and have no header.
async fn system_tablespace(
    cx: &Context,
    artifacts: &Arc<dyn ArtifactSource>,
    files: Vec<Entry>,
) -> Result<Vec<(Entry, PageSummary)>> {
    let mut heads = Vec::new();
    for entry in files {
        let head = cx.run(head(&entry, artifacts)).await?;
        heads.push((Geometry::read(&head).filter(|geometry| geometry.space == 0), entry));
    }
    let geometry = heads.iter().find_map(|(geometry, _)| *geometry);
    let checked = heads.into_iter().map(|(own, entry)| async move {
        let checker = match (own, geometry) {
            (None, Some(geometry)) => PageChecker::resume(geometry),
            // Without a header nothing can be said of any of them.
            (Some(_), _) | (None, None) => PageChecker::new(),
        };
        let summary = pages(cx, artifacts, &entry, checker).await?;
        Ok((entry, summary))
    });
    stream::iter(checked).buffer_unordered(cx.threads()).try_collect().await
}

/// The beginning of a file, [`HEAD_BYTES`] of it at least if it has so many.
async fn head(entry: &Entry, artifacts: &Arc<dyn ArtifactSource>) -> Result<Vec<u8>> {
    let mut file = WholeFile::open(entry, &**artifacts).await?;
    let mut head = Vec::new();
    while let Some(bytes) = file.next().await?.filter(|_| head.len() < HEAD_BYTES) {
        head.extend_from_slice(&bytes);
    }
    Ok(head)
}

/// Files of tables whose first page is none, which is all that can be said of them. Those of zeros were only just made.
async fn headless(
    cx: &Context,
    artifacts: &Arc<dyn ArtifactSource>,
    catalog: &Catalog,
) -> Result<Vec<(Entry, PageSummary)>> {
    let mut found = Vec::new();
    let is_table =
        |path: &str| path.ends_with(".ibd") || path.contains('/') && path.ends_with(".new");
    let tables = catalog.files().filter(|entry| is_table(&entry.path) && entry.bytes > 0);
    for entry in tables.filter(|entry| entry.page_size.is_none()) {
        let head = cx.run(head(entry, artifacts)).await?;
        if head.iter().take(HEAD_BYTES).any(|&byte| byte != 0) {
            let mut checker = PageChecker::new();
            checker.push(&head);
            found.push((entry.clone(), checker.finish()));
        }
    }
    Ok(found)
}

/// The pages in increments of a tool.
async fn increments(
    cx: &Context,
    artifacts: &Arc<dyn ArtifactSource>,
    catalog: &Catalog,
) -> Result<Vec<(Entry, PageSummary)>> {
    let metas =
        catalog.files().filter_map(|entry| Some((entry.path.strip_suffix(".meta")?, entry)));
    let metas: HashMap<&str, &Entry> = metas.collect();
    let both = catalog.files().filter_map(|entry| {
        Some((entry.clone(), (*metas.get(entry.path.strip_suffix(".delta")?)?).clone()))
    });
    let both: Vec<(Entry, Entry)> = both.collect();
    let checked = stream::iter(both).map(|(entry, meta)| async move {
        let text = artifacts.read(&meta.artifact()?, MAX_META).await?;
        let checker = DeltaChecker::new(&String::from_utf8_lossy(&text));
        let Some(mut checker) = checker else {
            return Err(Error::damaged(format!("{} does not say what it is of", meta.path)));
        };
        let read = async {
            let mut file = WholeFile::open(&entry, &**artifacts).await?;
            while let Some(bytes) = file.next().await? {
                checker.push(&bytes);
            }
            Ok(checker.finish())
        };
        let summary = cx.run(read).await?;
        let path = entry.path.strip_suffix(".delta").unwrap_or(&entry.path).to_owned();
        Ok((Entry { path, ..entry }, summary))
    });
    checked.buffer_unordered(cx.threads()).try_collect().await
}

async fn pages(
    cx: &Context,
    artifacts: &Arc<dyn ArtifactSource>,
    entry: &Entry,
    mut checker: PageChecker,
) -> Result<PageSummary> {
    let read = async {
        let mut file = WholeFile::open(entry, &**artifacts).await?;
        while let Some(bytes) = file.next().await? {
            checker.push(&bytes);
        }
        Ok(checker.finish())
    };
    cx.run(read).await
}

fn findings(
    backup: &Manifest,
    catalog: &Catalog,
    checked: &[(Entry, PageSummary)],
) -> Vec<Finding> {
    let object = backup.backup.as_str();
    let severity = match (backup.strategy, catalog.header.state) {
        // A server that was killed left pages half written, which it mends from its doublewrite buffer. A
        // donor sends each of its pages whole.
        (Strategy::Physical | Strategy::Snapshot, State::Crashed) => Severity::Warning,
        _ => Severity::Error,
    };
    let mut bad = Vec::new();
    let (mut sound, mut encrypted, mut wrong) = (0, 0, 0);
    for (entry, summary) in checked {
        sound += summary.sound.values().sum::<u64>() + summary.zero + summary.compressed;
        encrypted += summary.encrypted;
        wrong += summary.bad_pages;
        let name = TableFile::of(&entry.path).map_or_else(|| entry.path.clone(), |t| t.to_string());
        for page in summary.bad.iter().take(NAMED.saturating_sub(bad.len())) {
            let remedy = "it was damaged at the source already: run CHECK TABLE there, and restore the table from an \
                          earlier backup";
            bad.push(
                Finding::new(severity, name.clone(), page.to_string(), remedy)
                    .with_kind(ErrorKind::Damaged),
            );
        }
    }
    if wrong > bad.len() as u64 {
        let text = format!("{wrong} pages are damaged; the first {} are named", bad.len());
        bad.push(Finding::new(severity, object, text, "see those that are named"));
    }
    let hidden = match encrypted {
        0 => String::new(),
        n => format!("; {n} are encrypted and cannot be checked"),
    };
    let text = format!("{sound} pages of {} tablespaces are sound{hidden}", checked.len());
    bad.push(Finding::new(Severity::Info, object, text, ""));
    bad
}
