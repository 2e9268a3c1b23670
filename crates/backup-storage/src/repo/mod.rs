//! The repository: its places, its backups, and its history.

pub(crate) mod mend;
mod open;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ArtifactSource, BackupChain, BackupId, BackupSession, BackupSpec, Chain, ClusterName, Context,
    Error, ErrorKind, Event, Finding, Listed, Manifest, Record, RecordEvent, Repository, Result,
    ResultExt, Severity,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::SignedDuration;
use jiff::tz::TimeZone;

use crate::check::check_objects;
use crate::failover::Copies;
use crate::format::{
    Config, FrameKind, Keys, MAX_MANIFEST, MAX_RAW, ObjectKind, Place, RepositoryId, Seals, hex,
    parse_manifest, parse_tombstone,
};
use crate::key::{self, BackupObject, Key, RecordName, SlotName};
use crate::options::RepositoryOptions;
use crate::scan::{is_damage, missing_object, read_single};
use crate::session::{Session, single};
use crate::shelf::{Elsewhere, Lower, Shelf};
use crate::source::Source;
use crate::store::taken;
use crate::store::{Created, Store};
use crate::tiers::{Tier, TierName};
use crate::url::RepoUrl;

pub(crate) use open::{has_clusters, is_free, read_config};

/// The program and version that objects name as their writer.
pub(crate) const WRITER: &str = concat!("holdfast ", env!("CARGO_PKG_VERSION"));

/// How many small objects are read at once.
pub(crate) const AT_ONCE: usize = 16;

/// A repository of format 1. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Repo {
    store: Store,
    shelf: Shelf,
    /// Copies that reads fall back to.
    copies: Copies,
    config: Arc<Config>,
    seals: Seals,
    /// The key slot that it was opened with.
    slot: Option<SlotName>,
    /// A key was given to a repository that is not encrypted.
    key_without_lock: bool,
    /// Without the key, which nobody needs any more.
    options: RepositoryOptions,
}

impl Repo {
    /// The place of an object that is about to be written.
    pub(crate) fn new_place(&self, cx: &Context, key: &Key) -> Place {
        self.seals.new_place(cx, key)
    }

    /// The repository's id.
    #[must_use]
    pub fn id(&self) -> &RepositoryId {
        &self.config.repository
    }

    /// The store under it.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The same repository, with copies that reads of backups fall back to where an object here is
    /// damaged or gone. They are opened when they are needed. Verification does not look at them.
    #[must_use]
    pub fn with_copies(&self, cx: &Context, urls: &[RepoUrl]) -> Self {
        let copies = urls.iter().map(|url| {
            let name = url.absolute().unwrap_or_else(|_| url.to_string());
            Elsewhere::at(name, Some(url.clone()), &self.options.stores).copy_of(self.id())
        });
        self.placed(self.shelf.clone(), Copies::new(cx, copies.collect()))
    }

    /// As [`with_copies`](Self::with_copies), with stores that are open.
    #[must_use]
    pub fn with_copy_stores(&self, cx: &Context, stores: Vec<Store>) -> Self {
        let copies = stores.into_iter().map(Elsewhere::open).collect();
        self.placed(self.shelf.clone(), Copies::new(cx, copies))
    }

    /// The same repository with these lower tiers, whatever its policy says: name, age, store.
    #[must_use]
    pub fn with_tier_stores(&self, tiers: Vec<(TierName, SignedDuration, Store)>) -> Self {
        let lower = tiers.into_iter().map(|(name, after, store)| Lower {
            tier: Tier { name, url: store.name().to_owned(), after, id: String::new() },
            place: Elsewhere::open(store),
        });
        let shelf = Shelf::with(self.store.clone(), lower.collect());
        Repo { shelf, ..self.clone() }
    }

    /// Without copies: what stands here is what is looked at.
    pub(crate) fn alone(&self) -> Self {
        self.placed(self.shelf.clone(), Copies::default())
    }

    /// The manifest of a backup from the first copy that has it whole.
    async fn manifest_of_copy(
        &self,
        cx: &Context,
        cluster: &ClusterName,
        backup: &BackupId,
        error: Error,
    ) -> Result<Manifest> {
        for copy in self.copies.places() {
            let read = async {
                let there = self.placed(
                    Shelf::new(copy.store().await?, &self.options.stores),
                    Copies::default(),
                );
                there.manifest(cluster, backup).await
            };
            let name = copy.name();
            match read.await {
                Ok(Some(manifest)) => {
                    let text = format!(
                        "the manifest of backup {backup} is read from the copy in {name}: {}",
                        error.chain()
                    );
                    cx.event(Event::Warning { text });
                    return Ok(manifest);
                }
                Ok(None) => {}
                Err(e) => {
                    cx.note(format!("the copy in {name} cannot give {backup}: {}", e.chain()));
                }
            }
        }
        Err(error)
    }

    /// Where its objects may stand.
    pub(crate) fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// Copies that reads fall back to.
    pub(crate) fn copies(&self) -> &Copies {
        &self.copies
    }

    /// What makes it a repository.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The keys, where it is encrypted.
    pub(crate) fn keys(&self) -> Option<&Keys> {
        self.seals.keys.as_ref()
    }

    /// Fails when a key was given to a repository that is not encrypted. Who gives a key means to
    /// encrypt; whoever can write to the store could have put another `holdfast.json` in its place,
    /// and nothing may end up in the clear by that.
    ///
    /// # Errors
    /// [`Usage`](backup_core::ErrorKind::Usage), with `what` would be in the clear.
    pub fn refuse_clear_text(&self, what: &str) -> Result<()> {
        if self.key_without_lock {
            return Err(Error::usage(format!(
                "a passphrase or key file was given, and the repository in {} is not encrypted: \
                 {what} would be stored in the clear",
                self.store.name()
            ))
            .with_remedy(
                "leave the key out if that is meant; if the repository was encrypted before, \
                 somebody replaced its holdfast.json: put that back from a copy",
            ));
        }
        Ok(())
    }

    /// The key slot that it was opened with, where it is encrypted.
    #[must_use]
    pub fn opened_with(&self) -> Option<&SlotName> {
        self.slot.as_ref()
    }

    /// The same repository with these lower tiers and copies.
    pub(crate) fn placed(&self, shelf: Shelf, copies: Copies) -> Self {
        Repo { store: shelf.home().clone(), shelf, copies, ..self.clone() }
    }

    /// Reads a part of an object of a backup; fewer bytes where it ends before, `None` where there is
    /// no such object.
    pub(crate) async fn read(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>> {
        let found = self.shelf.get_range(key, range.clone()).await;
        self.copies.stand_in(key, range, found).await
    }

    /// What objects are sealed with.
    pub(crate) fn seals(&self) -> &Seals {
        &self.seals
    }

    pub(crate) fn options(&self) -> &RepositoryOptions {
        &self.options
    }

    /// Whether the last verification of a backup that is on record found damage. Only records of its
    /// own time and later are read. What a drill could not do, though all bytes were there, is no damage.
    pub(crate) async fn proven_damaged(&self, cx: &Context, manifest: &Manifest) -> Result<bool> {
        let id = &manifest.backup;
        let found = self.store.list(&key::records(&manifest.cluster)).await?;
        let kind = RecordEvent::PROOF;
        let proofs = found.objects.iter().rev().map(|(name, _)| name).take_while(|name| {
            // Both begin with the time.
            name.get(..16) >= id.as_str().get(..16)
        });
        for name in proofs.filter(|name| name.split('-').nth(1) == Some(kind)) {
            cx.check()?;
            // A record that cannot be read says nothing.
            let Ok(record) = self.read_record(&manifest.cluster, name).await else { continue };
            if let RecordEvent::Proof { ok, sampled, findings, .. } = record.event
                && record.backup.as_ref() == Some(id)
                // What a sample did not look at may be damaged as before.
                && (!ok || sampled.is_none())
            {
                let of_bytes = |f: &Finding| f.kind.is_none_or(|kind| kind == ErrorKind::Damaged);
                let mut errors = findings.iter().filter(|f| f.severity == Severity::Error);
                return Ok(!ok && (findings.is_empty() || errors.any(of_bytes)));
            }
        }
        Ok(false)
    }

    /// Why nothing should be made that goes on from `last`, if so: a backup of its chain, as far as `known` has it, is
    /// missing, lacks objects or was found damaged. No content is read.
    ///
    /// # Errors
    /// As the store.
    pub async fn broken_chain(
        &self,
        cx: &Context,
        last: &Manifest,
        known: &[Manifest],
    ) -> Result<Option<String>> {
        let chain = BackupChain::to(last, known);
        if let Err(broken) = chain.check() {
            return Ok(Some(broken.to_string()));
        }
        for link in chain.links() {
            if self.proven_damaged(cx, link).await? {
                return Ok(Some(format!("{} was found damaged by a verification", link.backup)));
            }
            let report = check_objects(cx, self, link).await?;
            let mut worst = report.findings.iter().filter(|f| f.severity == Severity::Error);
            if let Some(finding) = worst.next() {
                return Ok(Some(format!("{}: {}", finding.object, finding.problem)));
            }
        }
        Ok(None)
    }

    /// The place of an object, for reading it.
    pub(crate) fn place(&self, key: &Key) -> Place {
        self.seals.place(key)
    }

    /// Reads the manifest of a backup; `None` when there is no such backup.
    ///
    /// # Errors
    /// [`Damaged`](backup_core::ErrorKind::Damaged) when it is damaged,
    /// [`Store`](backup_core::ErrorKind::Store) when it is of a newer format
    /// or the store fails.
    pub async fn manifest(
        &self,
        cluster: &ClusterName,
        backup: &BackupId,
    ) -> Result<Option<Manifest>> {
        Ok(match self.commitment(cluster, backup).await? {
            Commitment::Made(manifest) => Some(*manifest),
            Commitment::Open | Commitment::GivenUp => None,
        })
    }

    /// What stands in the place of a backup's manifest.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub(crate) async fn commitment(
        &self,
        cluster: &ClusterName,
        backup: &BackupId,
    ) -> Result<Commitment> {
        let key = Key::Backup(cluster.clone(), backup.clone(), BackupObject::Manifest);
        let place = self.place(&key);
        let json = read_single(
            &self.store,
            &key,
            &place,
            ObjectKind::Manifest,
            FrameKind::Manifest,
            MAX_MANIFEST,
        )
        .await?;
        let Some(json) = json else { return Ok(Commitment::Open) };
        if parse_tombstone(&json).is_some() {
            return Ok(Commitment::GivenUp);
        }
        let manifest = parse_manifest(&json).context(|| key.to_string())?;
        if &manifest.cluster == cluster && &manifest.backup == backup {
            Ok(Commitment::Made(Box::new(manifest)))
        } else {
            Err(Error::damaged(format!("{key} is the manifest of another backup")))
        }
    }

    /// A second look at a directory in which no manifest was found. A writer keeps its marker from
    /// before the index until after the manifest: an index with neither is that of a backup that has
    /// lost its manifest, unless it was retired. To leave it out would pass an older backup off as the
    /// latest.
    async fn without_manifest(
        &self,
        cluster: &ClusterName,
        backup: &BackupId,
    ) -> Result<Option<Result<Manifest>>> {
        let objects = self.store.list(&key::backup(cluster, backup)).await?.objects;
        let has = |object: BackupObject| {
            let name = object.to_string();
            objects.iter().any(|(found, _)| *found == name)
        };
        if has(BackupObject::Manifest) {
            // It was committed between the two looks.
            return Ok(self.manifest(cluster, backup).await.transpose());
        }
        let retired = has(BackupObject::Retired);
        if has(BackupObject::Active) || retired || !has(BackupObject::Index) {
            return Ok(None);
        }
        let key = Key::Backup(cluster.clone(), backup.clone(), BackupObject::Manifest);
        Ok(Some(Err(missing_object(&key))))
    }

    /// Begins a copy of a backup of another repository.
    pub(crate) async fn begin_as(&self, cx: &Context, original: &Manifest) -> Result<Session> {
        Session::begin_as(cx, self, original).await
    }

    /// The clusters of which there is anything, by name.
    ///
    /// # Errors
    /// As the store.
    pub async fn clusters(&self) -> Result<Vec<ClusterName>> {
        let found = self.store.list(&key::clusters()).await?;
        // What has no name of ours is not ours.
        let mut names: Vec<ClusterName> =
            found.directories.iter().filter_map(|d| d.parse().ok()).collect();
        names.sort();
        Ok(names)
    }

    async fn read_record(&self, cluster: &ClusterName, name: &str) -> Result<Record> {
        let name =
            RecordName::new(name).ok_or_else(|| Error::damaged("no record has such a name"))?;
        let key = Key::Record(cluster.clone(), name);
        let place = self.place(&key);
        let json =
            read_single(&self.store, &key, &place, ObjectKind::Record, FrameKind::Record, MAX_RAW)
                .await?
                .ok_or_else(|| missing_object(&key))?;
        serde_json::from_slice(&json).map_err(|e| {
            Error::damaged(format!("{key} is no record of this version")).with_source(e)
        })
    }
}

/// What stands in the place of a manifest.
#[derive(Debug)]
pub(crate) enum Commitment {
    /// Nothing.
    Open,
    /// The manifest of a backup.
    Made(Box<Manifest>),
    /// A tombstone: there will be no backup.
    GivenUp,
}

#[async_trait]
impl Repository for Repo {
    async fn backups(&self, cx: &Context, cluster: Option<&ClusterName>) -> Result<Vec<Listed>> {
        let clusters = match cluster {
            Some(cluster) => vec![cluster.clone()],
            None => self.clusters().await?,
        };
        let mut ids = Vec::new();
        for cluster in clusters {
            let found = self.store.list(&key::backups(&cluster)).await?;
            ids.extend(
                found
                    .directories
                    .iter()
                    .filter_map(|d| Some((cluster.clone(), d.parse::<BackupId>().ok()?))),
            );
        }
        let mut listed: Vec<Listed> = stream::iter(ids)
            .map(|(cluster, backup)| async move {
                cx.check()?;
                let manifest = match self.manifest(&cluster, &backup).await.transpose() {
                    None => self.without_manifest(&cluster, &backup).await?,
                    found => found,
                };
                let manifest = match manifest {
                    Some(Err(e)) if is_damage(&e) => {
                        match self.manifest_of_copy(cx, &cluster, &backup, e).await {
                            Err(e) => {
                                Some(Err(e.with_remedy(self.mend(cx, &cluster, &backup).await)))
                            }
                            found => Some(found),
                        }
                    }
                    other => other,
                };
                Ok::<_, Error>(manifest.map(|manifest| Listed { cluster, backup, manifest }))
            })
            .buffered(AT_ONCE)
            .try_filter_map(|listed| async { Ok(listed) })
            .try_collect()
            .await?;
        listed.sort_by(|a, b| (&a.backup, &a.cluster).cmp(&(&b.backup, &b.cluster)));
        Ok(listed)
    }

    async fn artifacts(
        &self,
        cx: &Context,
        manifest: &Manifest,
    ) -> Result<Arc<dyn ArtifactSource>> {
        Ok(Arc::new(Source::load(cx, self, manifest).await?))
    }

    async fn begin(&self, cx: &Context, spec: BackupSpec) -> Result<Arc<dyn BackupSession>> {
        self.refuse_clear_text("the backup")?;
        let session = Session::begin(cx, self, spec).await?;
        Ok(Arc::new(session))
    }

    async fn record(&self, cx: &Context, cluster: &ClusterName, record: &Record) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(record)
            .map_err(|e| Error::internal("a record cannot be written as JSON").with_source(e))?;
        json.push(b'\n');
        let time = record.time.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ");
        let name = format!("{time}-{}-{}", record.event.kind(), hex(&cx.random::<8>()));
        let name = RecordName::new(&name)
            .ok_or_else(|| Error::internal(format!("`{name}` cannot name a record")))?;
        let key = Key::Record(cluster.clone(), name);
        let bytes =
            single(&self.seals.new_place(cx, &key), ObjectKind::Record, FrameKind::Record, json)?;
        match self.store.create(&key, bytes).await? {
            Created::New => Ok(()),
            // Eight random bytes do not meet twice.
            Created::Exists => Err(taken(&key)),
        }
    }

    async fn records(&self, cx: &Context, cluster: &ClusterName) -> Result<Vec<Record>> {
        let found = self.store.list(&key::records(cluster)).await?;
        let mut records: Vec<Record> = stream::iter(found.objects)
            .map(|(name, _)| async move {
                cx.check()?;
                match self.read_record(cluster, &name).await {
                    Ok(record) => Ok(Some(record)),
                    Err(e) => {
                        cx.event(Event::Warning {
                            text: format!(
                                "the record {name} of {cluster} is left out: {}",
                                e.chain()
                            ),
                        });
                        Ok::<_, Error>(None)
                    }
                }
            })
            .buffered(AT_ONCE)
            .try_filter_map(|record| async { Ok(record) })
            .try_collect()
            .await?;
        records.sort_by_key(|r| r.time);
        Ok(records)
    }
}
