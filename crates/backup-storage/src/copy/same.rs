//! A copy of the same repository: object by object, byte for byte.

use std::collections::BTreeMap;

use backup_core::{
    BackupId, Context, Error, ErrorKind, Event, FORMAT, Manifest, ObjectDigest, Result,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::object::{Arrival, arrived, differs, digest_of, put, read_whole};
use super::{Copied, CopyOptions, was_removed};
use crate::format::{
    FRAME_HEADER_LEN, FrameKind, MAX_MANIFEST, OBJECT_HEADER_LEN, ObjectKind, parse_manifest,
};
use crate::index::{Index, key as object_key};
use crate::key::{self, BackupObject, Key};
use crate::marker::Marker;
use crate::marks::marked;
use crate::repair;
use crate::repo::{Repo, WRITER};
use crate::scan::{is_damage, missing_object, open_single};
use crate::store::Created;

/// The longest manifest object.
const MANIFEST: u64 = OBJECT_HEADER_LEN as u64 + FRAME_HEADER_LEN as u64 + MAX_MANIFEST as u64;

/// The content of `retired` where the source has none.
#[derive(Serialize)]
struct Retired {
    format: u32,
    backup: BackupId,
    at: jiff::Timestamp,
    by: &'static str,
    writer: &'static str,
}

/// An object to be copied.
struct Item {
    key: Key,
    digest: ObjectDigest,
    /// What it holds, where it was read already.
    bytes: Option<Bytes>,
}

pub(super) async fn copy(
    cx: &Context,
    from: &Repo,
    to: &Repo,
    manifest: &Manifest,
    options: CopyOptions,
) -> Result<Copied> {
    let manifest_key = object_key(manifest, BackupObject::Manifest);
    let original = read_manifest(from, manifest, &manifest_key).await?;
    let there = to.store().get(&manifest_key, MANIFEST).await?;
    let damaged =
        there.as_ref().is_some_and(|found| open_manifest(to, &manifest_key, found).is_err());
    let is_there = match &there {
        Some(found) if *found == original => true,
        Some(_) if damaged && options.replace_damaged => false,
        Some(_) if damaged => return Err(differs(to.store(), &manifest_key)),
        Some(_) => return Err(another_manifest(to, &manifest_key)),
        None => false,
    };
    let items = items(cx, from, manifest).await?;
    let bytes = items.iter().map(|i| i.digest.bytes).sum::<u64>() + original.len() as u64;
    let mut copied = Copied::of(bytes, is_there);

    // What an earlier run has proven is only looked for.
    let quick = is_there && !options.verify;
    let lengths = if quick { lengths(to, manifest).await? } else { BTreeMap::new() };
    let lacks = |i: &Item| lengths.get(&i.key.to_string()) != Some(&i.digest.bytes);
    if quick && !items.iter().any(lacks) {
        return Ok(copied);
    }

    let marker = Marker::create_as(cx, to.store(), manifest, to.options().heartbeat).await?;
    // Only after the marker is there: so either a prune sees it, or we see the prune's mark.
    not_marked(cx, to, manifest).await?;
    // A prune that ended since the first look has left no mark; what was there may be gone with it.
    let is_there = is_there && is_listed(to, manifest, &manifest.backup).await?;
    retire(cx, from, to, manifest).await?;
    copied.verified = !(quick && is_there);
    let missing = items.into_iter().filter(|i| copied.verified || lacks(i));
    let sent: Vec<u64> = stream::iter(missing)
        .map(|item| send(cx, from, to, item, options))
        .buffer_unordered(cx.threads())
        .try_filter_map(|sent| async move { Ok(sent) })
        .try_collect()
        .await?;
    copied.sent += sent.iter().sum::<u64>();
    copied.objects += sent.len() as u64;
    copied.already = is_there && sent.is_empty();
    // A prune that began meanwhile and knew nothing of us has left a mark by now, or has ended.
    not_marked(cx, to, manifest).await?;
    let own = is_there.then_some(&manifest.backup);
    for needed in manifest.parent.iter().chain(own) {
        if !is_listed(to, manifest, needed).await? {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("{needed} is not in {}: a prune removed it meanwhile", to.store().name()),
            )
            .with_remedy("copy again, its parents first"));
        }
    }
    marker.awake(cx)?;
    if !is_there {
        let digest = digest_of(BackupObject::Manifest.to_string(), &original);
        // Everything that it names is there by now, and no prune has a claim on it.
        if damaged {
            to.store().delete(&manifest_key).await?;
        }
        match to.store().create(&manifest_key, original.clone()).await? {
            Created::New => {}
            Created::Exists => return Err(another_manifest(to, &manifest_key)),
        }
        if arrived(to.shelf(), &manifest_key, &digest).await? != Arrival::Whole {
            return Err(differs(to.store(), &manifest_key));
        }
        copied.sent += original.len() as u64;
        copied.objects += 1;
    }
    end(cx, to, manifest, marker).await;
    Ok(copied)
}

/// Whether a backup of the cluster exists there.
async fn is_listed(to: &Repo, manifest: &Manifest, backup: &BackupId) -> Result<bool> {
    let key = Key::Backup(manifest.cluster.clone(), backup.clone(), BackupObject::Manifest);
    Ok(to.store().len(&key).await?.is_some())
}

/// The bytes of the manifest, which are those of the manifest that was listed.
async fn read_manifest(from: &Repo, manifest: &Manifest, key: &Key) -> Result<Bytes> {
    let bytes = from.store().get(key, MANIFEST).await?.ok_or_else(|| missing_object(key))?;
    if open_manifest(from, key, &bytes)? == *manifest {
        Ok(bytes)
    } else {
        Err(Error::damaged(format!("{key} is not the manifest that was listed before")))
    }
}

fn open_manifest(repo: &Repo, key: &Key, bytes: &Bytes) -> Result<Manifest> {
    let (object, kind) = (ObjectKind::Manifest, FrameKind::Manifest);
    parse_manifest(&open_single(key, &repo.place(key), object, kind, bytes)?)
}

fn another_manifest(to: &Repo, key: &Key) -> Error {
    Error::damaged(format!(
        "{key} in {} is another manifest: a prune there has given this backup up",
        to.store().name()
    ))
    .with_remedy("run the copy again after the next prune there")
}

/// Everything but the manifest: packs of other backups first, the index last.
async fn items(cx: &Context, from: &Repo, manifest: &Manifest) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut add = |backup: &BackupId, digest: &ObjectDigest| -> Result<()> {
        let object: BackupObject = digest
            .name
            .parse()
            .map_err(|()| Error::damaged("the manifest names objects that no backup has"))?;
        let key = Key::Backup(manifest.cluster.clone(), backup.clone(), object);
        items.push(Item { key, digest: digest.clone(), bytes: None });
        Ok(())
    };
    for need in &manifest.needs {
        need.packs.iter().try_for_each(|pack| add(&need.backup, pack))?;
    }
    manifest.packs.iter().try_for_each(|pack| add(&manifest.backup, pack))?;
    items.push(index(cx, from, manifest).await?);
    Ok(items)
}

/// The index, or the rebuilt one that stands in for it.
async fn index(cx: &Context, from: &Repo, manifest: &Manifest) -> Result<Item> {
    let key = object_key(manifest, BackupObject::Index);
    let error = match read_whole(from.shelf(), &key, &manifest.index).await {
        Ok(bytes) => return Ok(Item { key, digest: manifest.index.clone(), bytes: Some(bytes) }),
        Err(e) if is_damage(&e) => e,
        Err(e) => return Err(e),
    };
    for number in repair::copies(from, manifest).await? {
        let object = BackupObject::IndexCopy(number);
        let key = object_key(manifest, object);
        let read = Index::read_from(cx, from, from.shelf(), manifest, object).await;
        if read.is_ok()
            && let Some(bytes) = from.store().get(&key, u64::MAX).await?
        {
            let digest = digest_of(object.to_string(), &bytes);
            return Ok(Item { key, digest, bytes: Some(bytes) });
        }
    }
    Err(error.context("the index is damaged").with_remedy("run `holdfast repair index`, then copy"))
}

/// Lengths of what the target has of the backup, by full names.
async fn lengths(to: &Repo, manifest: &Manifest) -> Result<BTreeMap<String, u64>> {
    let mut lengths = BTreeMap::new();
    for backup in manifest.needs.iter().map(|n| &n.backup).chain([&manifest.backup]) {
        let directory = key::backup(&manifest.cluster, backup);
        for found in to.shelf().list(&directory).await? {
            lengths.entry(format!("{directory}/{}", found.name)).or_insert(found.bytes);
        }
    }
    Ok(lengths)
}

/// Removes the markers of a finished copy.
async fn end(cx: &Context, to: &Repo, manifest: &Manifest, mut marker: Marker) {
    let retired = object_key(manifest, BackupObject::Retired);
    let removed = match to.store().delete(&retired).await {
        Ok(()) => marker.remove().await,
        Err(e) => Err(e),
    };
    if let Err(e) = removed {
        let text = format!("markers of {} were left behind: {}", manifest.backup, e.chain());
        cx.event(Event::Warning { text });
    }
}

fn json(content: &impl Serialize) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(content)
        .map_err(|e| Error::internal("a marker cannot be written as JSON").with_source(e))?;
    json.push(b'\n');
    Ok(json)
}

/// Refuses to build on what a prune at the target is about to remove.
pub(super) async fn not_marked(cx: &Context, to: &Repo, manifest: &Manifest) -> Result<()> {
    let marked = marked(cx, to.store()).await?;
    let (cluster, backup) = (&manifest.cluster, &manifest.backup);
    if marked.is_removed(cx, to.store(), cluster, backup).await? {
        return Err(was_removed(to));
    }
    let needs = manifest.needs.iter().map(|n| &n.backup);
    let mut all = needs.chain(&manifest.parent).chain([&manifest.backup]);
    match all.find(|id| marked.contains(id)) {
        None => Ok(()),
        Some(id) => Err(Error::new(
            ErrorKind::Busy,
            format!("a prune of the copy in {} is about to remove {id}", to.store().name()),
        )
        .with_remedy("copy again when that prune has ended")),
    }
}

/// Where packs of a removed backup are copied, its directory at the target says so, before the packs
/// are there.
async fn retire(cx: &Context, from: &Repo, to: &Repo, manifest: &Manifest) -> Result<()> {
    for need in &manifest.needs {
        let of = |object| Key::Backup(manifest.cluster.clone(), need.backup.clone(), object);
        let (manifest, retired) = (of(BackupObject::Manifest), of(BackupObject::Retired));
        let there = to.store();
        if there.len(&manifest).await?.is_some() || there.len(&retired).await?.is_some() {
            continue;
        }
        let content = match from.store().get(&retired, 1 << 20).await {
            Ok(Some(bytes)) => bytes,
            _ => json(&Retired {
                format: FORMAT,
                backup: need.backup.clone(),
                at: cx.now(),
                by: "a copy of a backup that needs its packs",
                writer: WRITER,
            })?
            .into(),
        };
        // Another copy may have been quicker.
        there.create(&retired, content).await?;
    }
    Ok(())
}

/// Sends an object where it is not there whole. Gives the bytes that were sent.
async fn send(
    cx: &Context,
    from: &Repo,
    to: &Repo,
    item: Item,
    options: CopyOptions,
) -> Result<Option<u64>> {
    cx.check()?;
    let Item { key, digest, bytes } = item;
    let length = usize::try_from(digest.bytes).unwrap_or(usize::MAX);
    let _memory = cx.memory().reserve(length).await;
    let arrival = arrived(to.shelf(), &key, &digest).await?;
    if arrival == Arrival::Whole {
        cx.progress().add_bytes(digest.bytes);
        return Ok(None);
    }
    if arrival == Arrival::Differs && !options.replace_damaged {
        return Err(differs(to.store(), &key));
    }
    let bytes = match bytes {
        Some(bytes) => bytes,
        None => read_whole(from.shelf(), &key, &digest).await?,
    };
    if arrival == Arrival::Differs {
        to.store().delete(&key).await?;
    }
    put(to.store(), &key, &digest, bytes).await?;
    cx.progress().add_bytes(digest.bytes);
    cx.progress().add_stored(digest.bytes);
    Ok(Some(digest.bytes))
}
