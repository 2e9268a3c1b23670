//! The damage matrix: every kind of object, hurt in every way that is easy to think of.
//!
//! Whatever happens: `check_content` finds it, nothing panics, no reader gives out a wrong byte, and
//! what is not hit can still be read.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::{Context, ErrorKind, Manifest, Repository, Result, Severity, select};
use backup_storage::format::{
    Codec, Config, FRAME_HEADER_LEN, FrameHeader, FrameKind, Keys, Packed, Seals, Slot, open, seal,
};
use backup_storage::{Key, Repo, RepositoryOptions, Store, check_content, check_objects};
use bytes::Bytes;
use common::{
    Lock, Sample, back_up, context, listening, memory_repo_with, noise, objects, options, put_all,
    read_checked, samples,
};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use rstest::rstest;

/// A repository with two backups, of which the second is hurt.
struct Matrix {
    cx: Context,
    lock: Lock,
    samples: Vec<Sample>,
    objects: BTreeMap<Path, Bytes>,
    older: Manifest,
    manifest: Manifest,
    /// For each pack, the artifacts that have bytes in it.
    in_pack: BTreeMap<Path, BTreeSet<String>>,
    /// For each pack, the artifacts that are gone with it and the index.
    in_pack_or_catalog: BTreeMap<Path, BTreeSet<String>>,
}

/// What was seen of a repository with damage.
struct Seen {
    /// Artifacts that could not be read.
    lost: BTreeSet<String>,
}

impl Matrix {
    async fn new(lock: Lock) -> Matrix {
        let cx = context();
        // Each backup has all of its bytes: what another's damage does to it is tried elsewhere.
        let options = RepositoryOptions { dedup: false, ..lock.options() };
        let (repo, inner) = memory_repo_with(&cx, options).await;
        let samples = samples();
        let older = back_up(&cx, &repo, &samples).await.unwrap();
        let manifest = back_up(&cx, &repo, &samples).await.unwrap();
        assert!(manifest.packs.len() >= 3, "{:?}", manifest.packs);
        let objects = objects(&*inner).await;
        let mut matrix = Matrix {
            cx,
            lock,
            samples,
            objects,
            older,
            manifest,
            in_pack: BTreeMap::new(),
            in_pack_or_catalog: BTreeMap::new(),
        };
        for pack in matrix.manifest.packs.clone() {
            let path = matrix.path(&pack.name);
            let mut objects = matrix.objects.clone();
            objects.remove(&path);
            let seen = matrix.look(&objects, &format!("without {path}")).await;
            matrix.in_pack.insert(path.clone(), seen.lost);
            objects.remove(&matrix.path("index"));
            let seen = matrix.look(&objects, &format!("without {path} and index")).await;
            matrix.in_pack_or_catalog.insert(path, seen.lost);
        }
        assert!(matrix.in_pack.values().all(|artifacts| !artifacts.is_empty()));
        assert!(matrix.in_pack.values().all(|artifacts| artifacts.len() < matrix.samples.len()));
        matrix
    }

    async fn open(&self, store: &Arc<dyn ObjectStore>) -> Result<Repo> {
        let store = Store::new(Arc::clone(store), "memory");
        Repo::open_on(&self.cx, store, self.lock.options()).await
    }

    fn path(&self, object: &str) -> Path {
        Path::from(format!("clusters/shop/backups/{}/{object}", self.manifest.backup))
    }

    /// The objects that are hurt: `holdfast.json` and all of the newer backup.
    fn targets(&self) -> Vec<Path> {
        let id = self.manifest.backup.as_str();
        let targets: Vec<Path> = self
            .objects
            .keys()
            .filter(|p| p.as_ref() == "holdfast.json" || p.as_ref().contains(id))
            .cloned()
            .collect();
        assert_eq!(targets.len(), self.manifest.packs.len() + 3);
        targets
    }

    /// What its objects are sealed with.
    fn seals(&self) -> Seals {
        let config = Config::parse(&self.objects[&Path::from("holdfast.json")]).unwrap();
        let keys = config.encryption.map(|encryption| {
            let path = self.objects.keys().find(|path| path.as_ref().starts_with("keys/")).unwrap();
            let name = path.filename().unwrap().parse().unwrap();
            let slot = Slot::parse(&name, &self.objects[path]).unwrap();
            let master = slot.unwrap(&self.lock.options().unlock.unwrap()).unwrap();
            Keys::new(encryption.cipher, master)
        });
        Seals { repository: config.repository, keys }
    }

    /// Looks at a repository whose objects were changed: it must be found, and no wrong byte read.
    async fn look(&self, objects: &BTreeMap<Path, Bytes>, what: &str) -> Seen {
        let store = put_all(objects).await;
        // Opened in peace, then hurt: a repository that cannot be opened finds nothing more.
        let config = self.objects[&Path::from("holdfast.json")].clone();
        store.put(&"holdfast.json".into(), config.clone().into()).await.unwrap();
        let repo = self.open(&store).await.unwrap();
        match objects.get(&Path::from("holdfast.json")) {
            Some(bytes) => {
                store.put(&"holdfast.json".into(), bytes.clone().into()).await.unwrap();
            }
            None => store.delete(&"holdfast.json".into()).await.unwrap(),
        }
        if objects.get(&Path::from("holdfast.json")) != Some(&config) {
            let again = self.open(&store).await;
            let lost = !objects.contains_key(&Path::from("holdfast.json"));
            let kind = if lost { ErrorKind::Damaged } else { ErrorKind::Store };
            assert_eq!(again.unwrap_err().kind(), kind, "{what}: it opened");
        }

        let report = check_content(&self.cx, &repo, &self.manifest)
            .await
            .unwrap_or_else(|e| panic!("{what}: {e:?}"));
        assert!(!report.ok(), "{what}: not found");
        for finding in &report.findings {
            assert_eq!(finding.kind, Some(ErrorKind::Damaged), "{what}: {finding:?}");
        }

        let source = repo.artifacts(&self.cx, &self.manifest).await;
        let mut lost = BTreeSet::new();
        match source {
            Ok(source) => {
                for sample in &self.samples {
                    let read = read_checked(&*source, &sample.name, &sample.content()).await;
                    if let Err(e) = read {
                        assert_eq!(e.kind(), ErrorKind::Damaged, "{what}: {e:?}");
                        lost.insert(sample.name.clone());
                    }
                }
            }
            Err(e) => panic!("{what}: {e:?}"),
        }
        let all = self.samples.len();
        let intact = all - lost.len();
        let said = match intact == all {
            true => format!("all {all} artifacts are intact and can be restored"),
            false => format!("{intact} of {all} artifacts are intact"),
        };
        assert!(
            report.findings.iter().any(|f| f.severity == Severity::Info && f.problem == said),
            "{what}: {said}, but: {:?}",
            report.findings
        );
        Seen { lost }
    }

    async fn hurt_same_length(&self, path: &Path, what: &str, damaged: Bytes) {
        assert_eq!(damaged.len(), self.objects[path].len());
        self.hurt(path, what, Some(damaged)).await;
    }

    /// Hurts one object in one way.
    async fn hurt(&self, path: &Path, what: &str, damaged: Option<Bytes>) {
        let what = format!("{path}: {what}");
        let mut objects = self.objects.clone();
        let length = damaged.as_ref().map(Bytes::len);
        match damaged {
            Some(bytes) => {
                assert_ne!(bytes, self.objects[path], "{what}: no damage");
                objects.insert(path.clone(), bytes);
            }
            None => drop(objects.remove(path)),
        }
        let seen = self.look(&objects, &what).await;
        let none = BTreeSet::new();
        // The index is rebuilt from packs; the manifest was read before it was hurt.
        let at_most = self.in_pack.get(path).unwrap_or(&none);
        assert!(seen.lost.is_subset(at_most), "{what}: {:?} lost", seen.lost);

        let store = put_all(&objects).await;
        let opened = self.open(&store).await;
        let Ok(repo) = opened else { return };
        let objects_report = check_objects(&self.cx, &repo, &self.manifest).await.unwrap();
        let manifest = path.filename() == Some("manifest");
        if manifest || length != Some(self.objects[path].len()) {
            assert!(!objects_report.ok(), "{what}: the listing looked well");
        }
        let listed = repo.backups(&self.cx, None).await.unwrap();
        let of = |id| listed.iter().find(|l| &l.backup == id);
        let older = of(&self.older.backup).unwrap();
        assert_eq!(older.manifest.as_ref().unwrap(), &self.older, "{what}");
        match of(&self.manifest.backup) {
            Some(l) if manifest => {
                let kind = l.manifest.as_ref().unwrap_err().kind();
                assert_eq!(kind, ErrorKind::Damaged, "{what}");
            }
            Some(l) => assert_eq!(l.manifest.as_ref().unwrap(), &self.manifest, "{what}"),
            None => panic!("{what}: the backup is not listed"),
        }
        let report = check_content(&self.cx, &repo, &self.older).await.unwrap();
        assert!(report.findings.is_empty(), "{what}: the older backup: {:?}", report.findings);
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn deleted_or_cut_or_longer(#[values(Lock::Open, Lock::Encrypted)] lock: Lock) {
    let matrix = Matrix::new(lock).await;
    for path in matrix.targets() {
        let good = matrix.objects[&path].clone();
        matrix.hurt(&path, "deleted", None).await;
        // Also at the ends of headers, and just before the end frame.
        for length in [0, 1, 15, 16, 17, 96, good.len() / 2, good.len() - 96, good.len() - 1] {
            let length = length.min(good.len() - 1);
            matrix.hurt(&path, &format!("cut to {length}"), Some(good.slice(..length))).await;
        }
        for more in [&[0][..], &[0; 4096], &good[16..], &good[good.len() - 96..]] {
            let longer = Bytes::from([&good[..], more].concat());
            matrix.hurt(&path, &format!("{} bytes longer", more.len()), Some(longer)).await;
        }
    }
}

/// At 30 random places of each object, or as many as `HOLDFAST_TEST_FLIPS` says, and at telling ones.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn one_bit_flipped(#[values(Lock::Open, Lock::Encrypted)] lock: Lock) {
    let matrix = Matrix::new(lock).await;
    let places = std::env::var("HOLDFAST_TEST_FLIPS").map_or(30, |n| n.parse().unwrap());
    for (seed, path) in (1..).zip(matrix.targets()) {
        let good = matrix.objects[&path].clone();
        let random = noise(seed, 4 * places);
        let mut bits: Vec<usize> = random
            .chunks_exact(4)
            .map(|four| u32::from_le_bytes(four.try_into().unwrap()) as usize % (good.len() * 8))
            .collect();
        // In the object's header, in the first frame's, in the end frame.
        bits.extend([3, 8 * 9, 8 * 13, 8 * 16, 8 * 28, 8 * 50, 8 * 80, 8 * 93]);
        bits.extend([1, 16, 90].map(|from_end| (good.len() - from_end) * 8));
        for bit in bits {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            matrix.hurt(&path, &format!("bit {bit} flipped"), Some(bad.into())).await;
        }
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn zeroed_and_overwritten_ranges(#[values(Lock::Open, Lock::Encrypted)] lock: Lock) {
    let matrix = Matrix::new(lock).await;
    for path in matrix.targets() {
        let good = matrix.objects[&path].clone();
        for (from, to) in
            [(0, 16), (16, 96), (good.len() / 3, good.len() / 2), (good.len() - 96, good.len())]
        {
            for fill in [0u8, 0xff] {
                let mut bad = good.to_vec();
                bad[from..to].fill(fill);
                matrix.hurt(&path, &format!("{fill} from {from} to {to}"), Some(bad.into())).await;
            }
        }
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn taken_from_elsewhere(#[values(Lock::Open, Lock::Encrypted)] lock: Lock) {
    let matrix = Matrix::new(lock).await;
    let (older, newer) = (matrix.older.backup.as_str(), matrix.manifest.backup.as_str());
    for path in matrix.targets() {
        // The object of the same name of the older backup: as whole as can be, and wrong.
        let twin = Path::from(path.as_ref().replace(newer, older));
        if let Some(bytes) = matrix.objects.get(&twin).filter(|_| twin != path) {
            matrix.hurt(&path, "the older backup's", Some(bytes.clone())).await;
        }
        // Any other object of the repository.
        for other in matrix.targets() {
            if other != path {
                let bytes = matrix.objects[&other].clone();
                matrix.hurt(&path, &format!("replaced by {other}"), Some(bytes)).await;
            }
        }
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn two_objects_swapped(#[values(Lock::Open, Lock::Encrypted)] lock: Lock) {
    let matrix = Matrix::new(lock).await;
    let targets = matrix.targets();
    for (i, a) in targets.iter().enumerate() {
        for b in &targets[..i] {
            let mut objects = matrix.objects.clone();
            objects.insert(a.clone(), matrix.objects[b].clone());
            objects.insert(b.clone(), matrix.objects[a].clone());
            let seen = matrix.look(&objects, &format!("{a} and {b} swapped")).await;
            let none = BTreeSet::new();
            let index = [a, b].iter().any(|p| p.filename() == Some("index"));
            let lost_with = if index { &matrix.in_pack_or_catalog } else { &matrix.in_pack };
            let at_most: BTreeSet<String> = [a, b]
                .into_iter()
                .flat_map(|p| lost_with.get(p).unwrap_or(&none).iter().cloned())
                .collect();
            assert!(seen.lost.is_subset(&at_most), "{:?}", seen.lost);
        }
    }
}

/// Two frames of the same pack swapped: each one is whole, and at the wrong place.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn frames_swapped_inside_a_pack(#[values(Lock::Open, Lock::Encrypted)] lock: Lock) {
    let matrix = Matrix::new(lock).await;
    let mut swapped = 0;
    for pack in &matrix.manifest.packs {
        let path = matrix.path(&pack.name);
        let good = &matrix.objects[&path];
        let starts: Vec<usize> =
            (16..good.len()).filter(|&at| good[at..].starts_with(b"HFF1")).collect();
        for pair in starts.windows(3) {
            let bad = [
                &good[..pair[0]],
                &good[pair[1]..pair[2]],
                &good[pair[0]..pair[1]],
                &good[pair[2]..],
            ]
            .concat();
            swapped += 1;
            matrix.hurt(&path, "two frames swapped", Some(bad.into())).await;
        }
    }
    assert!(swapped >= 3, "{swapped}");
}

/// Seals the frame at `at` again, for its own place, with other content of the same length: as whole
/// as the frame that was there, so that only what is recorded elsewhere can tell.
fn forge(matrix: &Matrix, path: &Path, at: usize, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let object = path.filename().unwrap().parse().unwrap();
    let manifest = &matrix.manifest;
    let key = Key::Backup(manifest.cluster.clone(), manifest.backup.clone(), object);
    let seals = matrix.seals();

    let mut bytes = matrix.objects[path].to_vec();
    let header = FrameHeader::parse(bytes[at..].first_chunk().unwrap()).unwrap();
    assert_eq!(header.codec, Codec::None, "its length would change");
    let payload = at + FRAME_HEADER_LEN..at + header.frame_len() as usize;
    let stored = Bytes::copy_from_slice(&bytes[payload.clone()]);
    let mut content = open(&seals.place(&key), at as u64, &header, stored).unwrap().to_vec();
    change(&mut content);
    let packed =
        Packed { codec: Codec::None, raw_len: header.raw_len, delta: None, stored: content.into() };
    let place = seals.new_place(&matrix.cx, &key);
    let forged = seal(&place, at as u64, header.kind, packed).unwrap();
    bytes[at..at + FRAME_HEADER_LEN].copy_from_slice(&forged.head);
    bytes[payload].copy_from_slice(&forged.payload);
    bytes.into()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn whole_frames_that_were_never_written(#[values(Lock::Open, Lock::Encrypted)] lock: Lock) {
    let matrix = Matrix::new(lock).await;
    let mut forged = 0;
    for path in matrix.targets() {
        let good = matrix.objects[&path].clone();
        let starts = (16..good.len()).filter(|&at| good[at..].starts_with(b"HFF1"));
        for at in starts {
            let header = FrameHeader::parse(good[at..].first_chunk().unwrap()).unwrap();
            if header.codec == Codec::None && header.kind != FrameKind::Manifest {
                let bad = forge(&matrix, &path, at, |content| content[8] ^= 1);
                matrix.hurt_same_length(&path, "a forged frame", bad).await;
                forged += 1;
            }
        }
    }
    assert!(forged > 6, "{forged}");
}

/// A manifest is the root of all digests; one that is replaced under a running check is noticed.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_another_than_the_one_listed(
    #[values(Lock::Open, Lock::Encrypted)] lock: Lock,
) {
    let matrix = Matrix::new(lock).await;
    let path = matrix.path("manifest");
    let bad = forge(&matrix, &path, 16, |content| {
        let text = String::from_utf8(content.clone()).unwrap();
        *content = text.replace("\"rows\": 5", "\"rows\": 6").into_bytes();
    });
    let mut objects = matrix.objects.clone();
    objects.insert(path, bad);
    let seen = matrix.look(&objects, "another manifest").await;
    assert!(seen.lost.is_empty());
}

/// The index and a pack at once: what the other packs' catalogs know can be read by name, but there
/// is no list that would pass for a complete one.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn index_and_pack_lost_together(#[values(Lock::Open, Lock::Encrypted)] lock: Lock) {
    let matrix = Matrix::new(lock).await;
    let (cx, warnings) = listening();
    let mut incomplete = 0;
    for pack in &matrix.manifest.packs {
        let mut objects = matrix.objects.clone();
        let path = matrix.path(&pack.name);
        objects.remove(&path);
        objects.remove(&matrix.path("index"));
        let repo = matrix.open(&put_all(&objects).await).await.unwrap();
        let source = repo.artifacts(&cx, &matrix.manifest).await.unwrap();
        let heard = warnings.take();
        assert!(heard.iter().any(|w| w.contains("index")), "{heard:?}");
        if let Err(e) = source.list().await {
            incomplete += 1;
            assert_eq!(e.kind(), ErrorKind::Damaged);
        }
        let mut found = 0;
        for sample in &matrix.samples {
            match read_checked(&*source, &sample.name, &sample.content()).await {
                Ok(()) => found += 1,
                Err(e) => assert_eq!(e.kind(), ErrorKind::Damaged),
            }
        }
        let report = check_content(&cx, &repo, &matrix.manifest).await.unwrap();
        let said = format!("{found} of {} artifacts are intact", matrix.samples.len());
        assert!(report.findings.iter().any(|f| f.problem == said), "{said}: {:?}", report.findings);
    }
    assert!(incomplete > 0);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn findings_name_object_and_table(#[values(Lock::Open, Lock::Encrypted)] lock: Lock) {
    let matrix = Matrix::new(lock).await;
    let path = matrix.path("pack-0");
    let mut objects = matrix.objects.clone();
    objects.remove(&path);
    let repo = matrix.open(&put_all(&objects).await).await.unwrap();
    let report = check_content(&matrix.cx, &repo, &matrix.manifest).await.unwrap();
    let errors: Vec<&str> = report
        .findings
        .iter()
        .filter(|f| f.severity == Severity::Error)
        .map(|f| f.object.as_str())
        .collect();
    assert_eq!(errors[0], path.as_ref());
    for artifact in &matrix.in_pack[&path] {
        let thing = match artifact.strip_prefix("tables/shop/") {
            Some(table) => format!("table `shop`.`{}`", table.split('/').next().unwrap()),
            None => artifact.clone(),
        };
        assert!(errors.contains(&thing.as_str()), "{thing}: {errors:?}");
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn strangers_in_the_directory_are_told_of(#[values(Lock::Open, Lock::Encrypted)] lock: Lock) {
    let matrix = Matrix::new(lock).await;
    let mut objects = matrix.objects.clone();
    objects.insert(matrix.path("active"), "x".into());
    objects.insert(matrix.path("pack-99"), "x".into());
    objects.insert(matrix.path("notes.txt"), "x".into());
    objects.insert(matrix.path("sub/notes.txt"), "x".into());
    let repo = matrix.open(&put_all(&objects).await).await.unwrap();
    let report = check_objects(&matrix.cx, &repo, &matrix.manifest).await.unwrap();
    assert!(report.ok());
    let mut found: Vec<_> = report
        .findings
        .iter()
        .map(|f| (f.severity, f.object.rsplit('/').next().unwrap()))
        .collect();
    found.sort();
    let warning = Severity::Warning;
    assert_eq!(
        found,
        [
            (Severity::Info, "active"),
            (warning, "notes.txt"),
            (warning, "pack-99"),
            (warning, "sub")
        ]
    );
    let report = check_content(&matrix.cx, &repo, &matrix.manifest).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_manifest_does_not_pass_an_older_backup_off_as_the_latest(
    #[values(Lock::Open, Lock::Encrypted)] lock: Lock,
) {
    let matrix = Matrix::new(lock).await;
    let listed = async |objects: &BTreeMap<Path, Bytes>| {
        let repo = matrix.open(&put_all(objects).await).await.unwrap();
        repo.backups(&matrix.cx, None).await.unwrap()
    };
    let mut objects = matrix.objects.clone();
    objects.remove(&matrix.path("manifest"));
    let error = select(listed(&objects).await, "latest").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.report().contains(matrix.manifest.backup.as_str()), "{}", error.report());

    // With the marker it is a backup in progress; without the index it never came to a manifest.
    objects.insert(matrix.path("active"), "x".into());
    assert_eq!(select(listed(&objects).await, "latest").unwrap(), matrix.older);
    objects.remove(&matrix.path("active"));
    objects.remove(&matrix.path("index"));
    assert_eq!(select(listed(&objects).await, "latest").unwrap(), matrix.older);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_not_ours_hide_nothing() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    let cx = context();
    let dir = tempfile::tempdir().unwrap();
    let repo = Repo::init(&cx, &dir.path().into(), options()).await.unwrap();
    let manifest = back_up(&cx, &repo, &samples()).await.unwrap();
    let cluster = dir.path().join("clusters").join(manifest.cluster.as_str());
    let backups = cluster.join("backups");
    let backup = backups.join(manifest.backup.as_str());
    for place in [&dir.path().join("clusters"), &backups, &backup] {
        for name in [&b"\xff\xfe"[..], b"a\nb", b"\x1b[31m", b"%zz", b"..x"] {
            std::fs::create_dir(place.join(OsStr::from_bytes(name))).unwrap();
        }
        std::fs::write(place.join("pack-0#1"), "x").unwrap();
        symlink("nowhere", place.join("dangling")).unwrap();
        symlink("circle", place.join("circle")).unwrap();
        symlink(".", place.join("here")).unwrap();
    }
    let listed = repo.backups(&cx, None).await.unwrap();
    assert_eq!(select(listed, "latest").unwrap(), manifest);
    assert!(check_objects(&cx, &repo, &manifest).await.unwrap().ok());
    assert!(check_content(&cx, &repo, &manifest).await.unwrap().findings.is_empty());

    // A file where a directory should be is no empty directory.
    std::fs::rename(&backups, cluster.join("moved")).unwrap();
    std::fs::write(&backups, "").unwrap();
    assert_eq!(repo.backups(&cx, None).await.unwrap_err().kind(), ErrorKind::Store);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn absurd_sizes_in_a_manifest_are_findings(
    #[values(Lock::Open, Lock::Encrypted)] lock: Lock,
) {
    let matrix = Matrix::new(lock).await;
    let repo = matrix.open(&put_all(&matrix.objects).await).await.unwrap();
    let mut manifest = matrix.manifest.clone();
    manifest.totals.bytes_read = u64::MAX;
    manifest.totals.artifacts = u64::MAX;
    for pack in &mut manifest.packs {
        pack.bytes = u64::MAX;
    }
    assert!(!check_content(&matrix.cx, &repo, &manifest).await.unwrap().ok());
    assert!(!check_objects(&matrix.cx, &repo, &manifest).await.unwrap().ok());
}
