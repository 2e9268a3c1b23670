//! A copy in another repository: artifacts are read here and written anew there, under the same id.

use std::sync::Arc;

use backup_core::{
    ArtifactInfo, ArtifactSink, ArtifactSource, BackupSession, Context, Error, ErrorKind, Manifest,
    Repository, Result, ResultExt,
};
use futures::{StreamExt, TryStreamExt, stream};

use super::object::arrived;
use super::same::not_marked;
use super::{Copied, CopyOptions, CopyTarget, object::Arrival};
use crate::check::check_content;
use crate::index::key as object_key;
use crate::key::{self, BackupObject};
use crate::repo::Repo;
use crate::session::Session;
use crate::store::Store;

pub(super) async fn copy(
    cx: &Context,
    from: &Repo,
    target: &CopyTarget,
    manifest: &Manifest,
    options: CopyOptions,
) -> Result<Copied> {
    let to = target.repo();
    if let Some(there) = to.manifest(&manifest.cluster, &manifest.backup).await? {
        same_content(cx, from, to, manifest, &there).await?;
        if options.verify {
            whole(cx, to, &there).await?;
        }
        return Ok(Copied { verified: options.verify, ..Copied::of(stored(&there), true) });
    }
    let session = begin(cx, to, manifest).await?;
    let written = async {
        cx.run(write(cx, from, manifest, &session)).await?;
        target.check()?;
        not_marked(cx, to, manifest).await
    };
    match written.await {
        Ok(()) => {
            let there = session.commit(manifest.outcome.clone()).await?;
            // What the packs and the index are was read back before; now what makes it a backup.
            match to.manifest(&there.cluster, &there.backup).await? {
                Some(found) if found == there => {}
                _ => {
                    return Err(Error::damaged(format!(
                        "the manifest of {} was written to {} and is not the same when it is read \
                         back",
                        there.backup,
                        target.name()
                    )));
                }
            }
            let objects = there.packs.len() as u64 + 2;
            let bytes = stored(&there);
            Ok(Copied { sent: bytes, objects, verified: true, ..Copied::of(bytes, false) })
        }
        Err(e) => {
            // Packs may still be on their way, and must not arrive beside those of the next run,
            // which also removes what is left here.
            let _ = session.abort().await;
            Err(e)
        }
    }
}

fn stored(manifest: &Manifest) -> u64 {
    manifest.totals.bytes_stored
}

async fn begin(cx: &Context, to: &Repo, manifest: &Manifest) -> Result<Arc<Session>> {
    let retired = object_key(manifest, BackupObject::Retired);
    if to.store().len(&retired).await?.is_some() {
        // Under this id nothing else can be written while they are there.
        return Err(Error::new(
            ErrorKind::Store,
            format!("a prune removed it from {}, where others need packs of it", to.store().name()),
        )
        .with_remedy("copy it when a prune there has removed those too, or leave it out"));
    }
    // What an earlier copy left that died. No other backup has this id, and we hold the lease.
    let directory = key::backup(&manifest.cluster, &manifest.backup);
    to.store().remove_all(&directory, &BackupObject::Active.to_string()).await?;
    Ok(Arc::new(to.begin_as(cx, manifest).await?))
}

/// Writes every artifact as it was read.
async fn write(cx: &Context, from: &Repo, manifest: &Manifest, session: &Session) -> Result<()> {
    let source = from.artifacts(cx, manifest).await?;
    let infos = source.list().await?;
    cx.progress().expect_bytes(infos.iter().map(|i| i.bytes).sum());
    stream::iter(infos)
        .map(|info| artifact(cx, &*source, session, info))
        .buffer_unordered(cx.threads())
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

async fn artifact(
    cx: &Context,
    source: &dyn ArtifactSource,
    session: &Session,
    info: ArtifactInfo,
) -> Result<()> {
    let mut reader = source.open(&info.name).await?;
    let mut writer = session.create(info.name.clone(), info.layout).await?;
    // The reader has compared the whole with its digest when it gives its end.
    while let Some(piece) = reader.next().await? {
        cx.check()?;
        cx.progress().add_bytes(piece.len() as u64);
        writer.write(piece).await?;
    }
    let written = writer.finish(info.attributes.clone()).await?;
    if written == info {
        Ok(())
    } else {
        Err(Error::internal(format!("artifact {} changed on its way", info.name)))
    }
}

/// Sees that a backup of this id at the target is this one.
async fn same_content(
    cx: &Context,
    from: &Repo,
    to: &Repo,
    here: &Manifest,
    there: &Manifest,
) -> Result<()> {
    let list = async |repo: &Repo, manifest: &Manifest| -> Result<Vec<ArtifactInfo>> {
        repo.artifacts(cx, manifest).await?.list().await
    };
    let ours = list(from, here).await?;
    let theirs = list(to, there).await.context(|| "the copy that is there cannot be used")?;
    if ours == theirs && here.outcome == there.outcome && here.parent == there.parent {
        return Ok(());
    }
    Err(Error::damaged(format!(
        "{} has another backup under the id {}",
        to.store().name(),
        here.backup
    ))
    .with_remedy("see with `holdfast show` what it is; copy into another repository"))
}

async fn whole(cx: &Context, to: &Repo, there: &Manifest) -> Result<()> {
    let report = check_content(cx, to, there).await?;
    match report.findings.iter().find(|f| f.severity == backup_core::Severity::Error) {
        None => Ok(()),
        Some(f) => Err(Error::damaged(format!("{}: {}", f.object, f.problem))
            .with_remedy("remove the backup there and copy again")),
    }
}

/// Reads packs and index back from the target, before the manifest makes them a backup.
pub(crate) async fn all_arrived(cx: &Context, to: &Store, manifest: &Manifest) -> Result<()> {
    let shelf = &crate::shelf::Shelf::with(to.clone(), Vec::new());
    let digests: Vec<_> = manifest.packs.iter().chain([&manifest.index]).cloned().collect();
    stream::iter(digests)
        .map(|digest| async move {
            cx.check()?;
            let object: BackupObject = digest
                .name
                .parse()
                .map_err(|()| Error::internal("an object was stored under no name of ours"))?;
            let key = object_key(manifest, object);
            match arrived(shelf, &key, &digest).await? {
                Arrival::Whole => Ok(()),
                Arrival::Missing | Arrival::Differs => Err(Error::damaged(format!(
                    "{key} was written to {} and is not the same when it is read back",
                    to.name()
                ))),
            }
        })
        .buffer_unordered(cx.threads())
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}
