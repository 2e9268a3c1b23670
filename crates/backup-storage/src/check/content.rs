//! Level `content`: is every byte what it was?

use std::collections::BTreeMap;

use backup_core::{
    ArtifactName, ArtifactReader, ArtifactSource, Context, Error, ErrorKind, Finding, Level,
    Manifest, ObjectDigest, Report, Result, Severity,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use super::{RESTORE_ANOTHER, check_manifest, damage, damage_of};
use crate::format::{Config, EndOfObject, FrameKind, ObjectKind};
use crate::index::{Index, key as object_key};
use crate::key::{self, BackupObject, Key};
use crate::repo::Repo;
use crate::scan::{Scanner, is_damage};
use crate::source::Source;

/// How many damaged places of an object are named.
const PLACES: usize = 5;
/// How many damaged tables or files are named.
const NAMES: usize = 100;

/// Reads every byte of every object of a backup and compares it with what was recorded when it was
/// made: `holdfast.json`, the manifest, the digests of packs and index, the catalog in the packs
/// against the index, and each artifact from its first byte to its last, wherever its frames are.
///
/// Goes on after damage, and says what is hit and what is not.
///
/// # Errors
/// When the store fails or the run is cancelled. Damage is in the report.
pub async fn check_content(cx: &Context, repo: &Repo, manifest: &Manifest) -> Result<Report> {
    let mut findings = Vec::new();
    findings.extend(check_config(repo).await?);
    findings.extend(check_manifest(repo, manifest).await?);
    let stored = manifest.packs.iter().fold(0, |sum: u64, pack| sum.saturating_add(pack.bytes));
    cx.progress().expect_bytes(stored.saturating_add(manifest.totals.bytes_read));

    // A digest covers what was written; what was added behind it shows in the listing alone.
    let directory = key::backup(&manifest.cluster, &manifest.backup);
    let lengths: BTreeMap<String, u64> =
        repo.store().list(&directory).await?.objects.into_iter().collect();
    let grown = |digest: &ObjectDigest| {
        let bytes = lengths.get(&digest.name).filter(|bytes| **bytes > digest.bytes)?;
        let more = bytes - digest.bytes;
        Some(damage(
            format!("{directory}/{}", digest.name),
            format!("{more} bytes were added to it"),
        ))
    };

    let mut catalog = Lines::default();
    let mut packs_are_whole = true;
    findings.extend(manifest.packs.iter().chain([&manifest.index]).filter_map(grown));
    let mut packs = stream::iter((0..).zip(manifest.packs.clone()))
        .map(
            |(number, digest)| async move { check_pack(cx, repo, manifest, number, &digest).await },
        )
        .buffered(cx.threads());
    while let Some((finding, lines)) = packs.try_next().await? {
        catalog.add(&lines);
        packs_are_whole &= finding.is_none();
        findings.extend(finding);
    }

    let name = object_key(manifest, BackupObject::Index).to_string();
    let index = match Index::read(cx, repo, manifest).await {
        Ok(index) => {
            if packs_are_whole && index_lines(repo, manifest).await? != catalog {
                findings.push(damage(name, "it tells another story than the catalog in the packs"));
            }
            index
        }
        Err(e) => {
            findings.push(damage_of(name, e)?);
            match Index::rebuild(cx, repo, manifest).await {
                Ok(index) => index,
                Err(e) => {
                    findings.push(damage_of(manifest.backup.as_str(), e)?);
                    return Ok(Report { level: Level::Content, findings });
                }
            }
        }
    };
    let lost = index.lost;
    let names: Vec<ArtifactName> = index.artifacts.keys().cloned().collect();
    let source = &Source::new(cx, repo, manifest, index);
    let damaged: Vec<(ArtifactName, Error)> = stream::iter(names)
        .map(|name| async move {
            match read(cx, source, &name).await {
                Ok(()) => Ok(None),
                Err(e) if is_damage(&e) => Ok(Some((name, e))),
                Err(e) => Err(e),
            }
        })
        .buffered(cx.threads())
        .try_filter_map(async |damaged| Ok(damaged))
        .try_collect()
        .await?;
    findings.extend(consequences(manifest, &damaged, lost, !findings.is_empty()));
    Ok(Report { level: Level::Content, findings })
}

async fn check_config(repo: &Repo) -> Result<Option<Finding>> {
    let found = repo.store().get(&Key::Config, Config::MAX_BYTES).await;
    let problem = match found.map(|bytes| bytes.as_deref().map(Config::parse)) {
        Ok(None) => "it is missing".to_owned(),
        Ok(Some(Ok(config))) if &config == repo.config() => return Ok(None),
        Ok(Some(Ok(config))) if &config.repository == repo.id() => {
            "it is another one than when the repository was opened".to_owned()
        }
        Ok(Some(Ok(_))) => "it is that of another repository".to_owned(),
        Ok(Some(Err(e))) => e.chain(),
        Err(e) => return damage_of(Key::Config.to_string(), e).map(Some),
    };
    Ok(Some(damage(Key::Config.to_string(), problem)))
}

/// A sum over the lines of a catalog that does not depend on their order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lines {
    count: u64,
    sum: u128,
}

impl Lines {
    fn add(&mut self, other: &Lines) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    fn add_frame(&mut self, raw: &[u8]) {
        for line in raw.split_inclusive(|&b| b == b'\n') {
            let digest = Sha256::digest(line);
            let half = digest.first_chunk().expect("a SHA-256 is longer than 16 bytes");
            self.add(&Lines { count: 1, sum: u128::from_le_bytes(*half) });
        }
    }
}

async fn index_lines(repo: &Repo, manifest: &Manifest) -> Result<Lines> {
    let key = object_key(manifest, BackupObject::Index);
    let place = repo.place(&key);
    let mut lines = Lines::default();
    let bytes = manifest.index.bytes;
    let kind = ObjectKind::Index;
    let mut scanner = Scanner::open(repo.store(), &key, &place, kind, bytes, false).await?;
    while let Some(frame) = scanner.next().await? {
        if frame.header.kind == FrameKind::Catalog {
            lines.add_frame(&scanner.open_frame(frame).await?);
        }
    }
    Ok(lines)
}

/// Compares a pack with its digest, and looks at its frames: where the digest is right at the
/// catalog's only, where it is wrong at all of them, to say where the damage is.
async fn check_pack(
    cx: &Context,
    repo: &Repo,
    manifest: &Manifest,
    number: u32,
    digest: &ObjectDigest,
) -> Result<(Option<Finding>, Lines)> {
    let key = object_key(manifest, BackupObject::Pack(number));
    let (lines, problem) = match walk(cx, repo, &key, digest, Frames::Catalog).await {
        Ok((lines, sha256, places)) if sha256 == digest.sha256 => {
            (lines, places.into_iter().next())
        }
        Ok((lines, ..)) => {
            let (_, _, places) = walk(cx, repo, &key, digest, Frames::All).await?;
            let shown = places.iter().take(PLACES).cloned().collect::<Vec<_>>().join("; ");
            let more = match places.len().saturating_sub(PLACES) {
                0 => String::new(),
                n => format!("; and {n} more places"),
            };
            let problem = format!("its bytes do not match the manifest's digest: {shown}{more}");
            (lines, Some(problem))
        }
        Err(e) if is_damage(&e) => (Lines::default(), Some(e.chain())),
        Err(e) => return Err(e),
    };
    Ok((problem.map(|problem| damage(key.to_string(), problem)), lines))
}

/// Which frames of a pack to open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Frames {
    /// Catalog and end; data frames are opened when artifacts are read.
    Catalog,
    /// All.
    All,
}

/// Walks through a pack. Gives its catalog lines, its SHA-256 and what is wrong with its frames.
async fn walk(
    cx: &Context,
    repo: &Repo,
    key: &Key,
    digest: &ObjectDigest,
    which: Frames,
) -> Result<(Lines, String, Vec<String>)> {
    let place = repo.place(key);
    let kind = ObjectKind::Pack;
    let mut scanner = Scanner::open(repo.store(), key, &place, kind, digest.bytes, true).await?;
    let mut lines = Lines::default();
    let mut places = Vec::new();
    let mut frames = 0;
    let mut catalog = None;
    let mut end = None;
    loop {
        cx.check()?;
        let frame = match scanner.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(e) if is_damage(&e) => {
                places.push(e.chain());
                scanner.resync().await?;
                continue;
            }
            Err(e) => return Err(e),
        };
        if which == Frames::Catalog {
            cx.progress().add_bytes(u64::from(frame.header.frame_len()));
        }
        let (kind, offset) = (frame.header.kind, frame.offset);
        if end.is_some() {
            places.push(format!("a frame at byte {offset} stands behind the end"));
        }
        if matches!(kind, FrameKind::Data | FrameKind::Map) && which == Frames::Catalog {
            frames += 1;
            continue;
        }
        let opened = scanner.open_frame(frame).await.and_then(|raw| match kind {
            FrameKind::Catalog => {
                catalog = catalog.or(Some(offset));
                lines.add_frame(&raw);
                Ok(())
            }
            FrameKind::End => {
                end = Some((offset, EndOfObject::parse(&raw)?));
                Ok(())
            }
            FrameKind::Data | FrameKind::Map => Ok(()),
            FrameKind::Manifest | FrameKind::Record => {
                Err(Error::damaged(format!("the frame at byte {offset} belongs into no pack")))
            }
        });
        match opened {
            Err(e) if is_damage(&e) => places.push(e.chain()),
            other => other?,
        }
        frames += u32::from(kind != FrameKind::End);
    }
    let right_end = end.is_some_and(|(offset, end)| {
        end == EndOfObject { catalog: catalog.unwrap_or(offset), frames }
    });
    if places.is_empty() && !right_end {
        places.push("its end frame is missing or does not fit".to_owned());
    }
    Ok((lines, scanner.finish().await?, places))
}

/// Reads an artifact to its end.
async fn read(cx: &Context, source: &Source, name: &ArtifactName) -> Result<()> {
    let mut reader: Box<dyn ArtifactReader> = source.open(name).await?;
    let count = |piece: &Bytes| cx.progress().add_bytes(piece.len() as u64);
    while let Some(piece) = reader.next().await? {
        cx.check()?;
        count(&piece);
    }
    Ok(())
}

/// What a person would call the thing that an artifact is a part of.
fn thing(name: &ArtifactName) -> String {
    match name.parts().as_slice() {
        [kind, database, table, ..] if kind == "tables" => format!("table `{database}`.`{table}`"),
        _ => name.to_string(),
    }
}

/// Says which tables and files are hit, and what can still be had.
fn consequences(
    manifest: &Manifest,
    damaged: &[(ArtifactName, Error)],
    lost: u64,
    objects_are_damaged: bool,
) -> Vec<Finding> {
    let mut things: BTreeMap<String, Vec<&(ArtifactName, Error)>> = BTreeMap::new();
    for hit in damaged {
        things.entry(thing(&hit.0)).or_default().push(hit);
    }
    let mut findings: Vec<Finding> = things
        .iter()
        .take(NAMES)
        .map(|(thing, hits)| {
            let others = match hits.len() - 1 {
                0 => String::new(),
                n => format!(" (and {n} more of its artifacts)"),
            };
            let problem = format!("it cannot be restored: {}{others}", hits[0].1.chain());
            damage(thing, problem)
        })
        .collect();
    let backup = manifest.backup.as_str();
    if things.len() > NAMES {
        let problem = format!("{} more tables and files are damaged", things.len() - NAMES);
        findings.push(damage(backup, problem));
    }
    if lost > 0 {
        let problem = format!(
            "{lost} of {} artifacts cannot be found: index and catalog are damaged",
            manifest.totals.artifacts
        );
        findings.push(damage(backup, problem));
    }
    if objects_are_damaged || !findings.is_empty() {
        let all = manifest.totals.artifacts;
        let intact = all.saturating_sub(lost + damaged.len() as u64);
        let (problem, remedy) = if intact == all {
            (format!("all {all} artifacts are intact and can be restored"), RESTORE_ANOTHER)
        } else {
            (
                format!("{intact} of {all} artifacts are intact"),
                "restore what is intact with --tables, and the rest from another backup",
            )
        };
        findings.push(
            Finding::new(Severity::Info, backup, problem, remedy).with_kind(ErrorKind::Damaged),
        );
    }
    findings
}
