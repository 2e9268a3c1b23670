//! Encrypted repositories: who opens them, who does not, and what is seen from outside.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use backup_core::{Context, ErrorKind, Manifest, Result, Secret, SecretBytes};
use backup_storage::format::{Config, FRAME_HEADER_LEN, FrameHeader, Slot};
use backup_storage::{
    Cipher, Repo, RepositoryOptions, SlotKind, SlotName, Store, Unlock, check_content,
};
use bytes::Bytes;
use common::{
    Lock, back_up, context, key_file, listening, memory_repo, memory_repo_of, memory_repo_with,
    objects, options, put_all, restore_all, samples,
};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use rstest::rstest;

fn passphrase(text: &str) -> Unlock {
    Unlock::Passphrase(Secret::new(text))
}

async fn open(
    cx: &Context,
    inner: &Arc<dyn ObjectStore>,
    unlock: impl Into<Option<Unlock>>,
) -> Result<Repo> {
    let options = RepositoryOptions { unlock: unlock.into(), ..options() };
    Repo::open_on(cx, Store::new(Arc::clone(inner), "memory"), options).await
}

/// Objects of an encrypted repository with a backup in it.
async fn encrypted(cx: &Context) -> (BTreeMap<Path, Bytes>, Manifest) {
    let (repo, inner) = memory_repo_of(cx, Lock::Encrypted).await;
    let manifest = back_up(cx, &repo, &samples()).await.unwrap();
    (objects(&*inner).await, manifest)
}

fn slots(objects: &BTreeMap<Path, Bytes>) -> Vec<Path> {
    objects.keys().filter(|path| path.as_ref().starts_with("keys/")).cloned().collect()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_right_key_reads_and_writes(
    #[values(Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305)] cipher: Cipher,
    #[values(passphrase("correct horse"), key_file(7))] unlock: Unlock,
) {
    let (cx, warnings) = listening();
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = Store::new(Arc::clone(&inner), "memory");
    let options = RepositoryOptions { unlock: Some(unlock.clone()), cipher, ..options() };
    let repo = Repo::init_on(&cx, store, options).await.unwrap();
    let first = back_up(&cx, &repo, &samples()).await.unwrap();

    let repo = open(&cx, &inner, unlock).await.unwrap();
    let second = back_up(&cx, &repo, &samples()).await.unwrap();
    for manifest in [first, second] {
        restore_all(&cx, &repo, &manifest, &samples()).await.unwrap();
        assert!(check_content(&cx, &repo, &manifest).await.unwrap().findings.is_empty());
    }
    // Every frame says which cipher it is under.
    let ciphers: BTreeSet<u8> = objects(&*inner)
        .await
        .iter()
        .filter(|(path, _)| path.as_ref().contains("/pack-"))
        .map(|(_, bytes)| bytes[16 + 7])
        .collect();
    assert_eq!(ciphers, BTreeSet::from([cipher as u8]));
    assert_eq!(warnings.take(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_opens_nothing_and_says_what_there_is() {
    let cx = context();
    let (repo, inner) = memory_repo_of(&cx, Lock::Encrypted).await;
    let added = repo.add_key(&cx, &passphrase("correct horse"), "night shift").await.unwrap();
    let id = repo.id().as_str();
    for wrong in [
        key_file(8),
        passphrase("correct hors"),
        passphrase("correct horse\n"),
        passphrase("Correct horse"),
    ] {
        let e = open(&cx, &inner, wrong).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Usage);
        let said = e.report();
        let part =
            format!("wrong passphrase or key file for repository {id}; it has 2 key slots: ");
        assert!(said.contains(&part), "{said}");
        assert!(said.contains(&format!("{} (passphrase, \"night shift\")", added.name)), "{said}");
        assert!(said.contains("(key-file)"), "{said}");
    }
    let e = open(&cx, &inner, None).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Usage);
    for part in ["--passphrase-file", "--key-file", "HOLDFAST_PASSPHRASE", id] {
        assert!(e.report().contains(part), "{}", e.report());
    }
    for weak in [passphrase(""), Unlock::KeyFile(SecretBytes::new(vec![7; 31]))] {
        assert_eq!(open(&cx, &inner, weak).await.unwrap_err().kind(), ErrorKind::Usage);
    }
    // Also not the whole key of another repository.
    let (other, _) = memory_repo_of(&cx, Lock::Encrypted).await;
    assert_ne!(other.id(), repo.id());
    assert!(open(&cx, &inner, key_file(7)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_come_and_go() {
    let (cx, warnings) = listening();
    let (repo, inner) = memory_repo_of(&cx, Lock::Encrypted).await;
    let manifest = back_up(&cx, &repo, &samples()[..1]).await.unwrap();
    let first = repo.key_slots(&cx).await.unwrap().remove(0);
    assert!(first.opened && first.kind == SlotKind::KeyFile);

    // The last one stays.
    let e = repo.remove_key(&cx, &first.name).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Usage);
    assert!(e.report().contains("last key slot"), "{}", e.report());
    assert!(open(&cx, &inner, key_file(7)).await.is_ok());

    let second = repo.add_key(&cx, &passphrase("p"), "ops").await.unwrap();
    assert_eq!(
        (second.label.as_str(), second.kind, second.opened),
        ("ops", SlotKind::Passphrase, false)
    );
    assert_eq!(repo.key_slots(&cx).await.unwrap().len(), 2);
    let again = open(&cx, &inner, passphrase("p")).await.unwrap();
    assert_eq!(again.opened_with(), Some(&second.name));
    restore_all(&cx, &again, &manifest, &samples()[..1]).await.unwrap();

    // The one that it was opened with, too.
    repo.remove_key(&cx, &first.name).await.unwrap();
    assert!(open(&cx, &inner, key_file(7)).await.is_err());
    let repo = open(&cx, &inner, passphrase("p")).await.unwrap();
    restore_all(&cx, &repo, &manifest, &samples()[..1]).await.unwrap();
    let e = repo.remove_key(&cx, &first.name).await.unwrap_err();
    assert!(e.report().contains("no key slot") && e.report().contains("ops"), "{}", e.report());
    let e = repo.remove_key(&cx, &second.name).await.unwrap_err();
    assert!(e.report().contains("last key slot"), "{}", e.report());

    // A damaged slot does not count as one that is left, and can be removed.
    let damaged: SlotName = "00000000".parse().unwrap();
    inner.put(&"keys/00000000".into(), "garbage".into()).await.unwrap();
    assert!(repo.remove_key(&cx, &second.name).await.is_err());
    assert_eq!(warnings.take(), Vec::<String>::new());
    let repo = open(&cx, &inner, passphrase("p")).await.unwrap();
    assert!(warnings.take().iter().any(|w| w.contains("keys/00000000 is damaged")));
    repo.remove_key(&cx, &damaged).await.unwrap();
    assert_eq!(slots(&objects(&*inner).await).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_slots_is_bounded() {
    let cx = context();
    let (repo, inner) = memory_repo_of(&cx, Lock::Encrypted).await;
    for n in 1..32 {
        repo.add_key(&cx, &key_file(n + 100), &format!("{n}")).await.unwrap();
    }
    assert_eq!(repo.add_key(&cx, &key_file(99), "").await.unwrap_err().kind(), ErrorKind::Usage);
    assert!(open(&cx, &inner, key_file(131)).await.is_ok());
    for n in 0..33 {
        inner.put(&format!("keys/{n:08x}").as_str().into(), "x".into()).await.unwrap();
    }
    let e = open(&cx, &inner, key_file(7)).await.unwrap_err();
    assert!(e.report().contains("more than any repository has"), "{}", e.report());
}

/// With the only slot hurt in any way nothing opens, and it is said which object it is; a second slot
/// is not hindered.
#[tokio::test(flavor = "multi_thread")]
async fn every_damage_of_a_slot_is_seen() {
    let (cx, warnings) = listening();
    let (good, _) = encrypted(&cx).await;
    let path = slots(&good).remove(0);
    let slot = good[&path].clone();
    let inner = put_all(&good).await;
    open(&cx, &inner, key_file(7)).await.unwrap().add_key(&cx, &key_file(8), "").await.unwrap();
    let both = objects(&*inner).await;
    let inner = put_all(&good).await;

    let mut bad: Vec<Bytes> = (0..slot.len() * 8)
        .map(|bit| {
            let mut bad = slot.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            bad.into()
        })
        .collect();
    bad.extend((0..slot.len()).map(|length| slot.slice(..length)));
    bad.push(vec![b'x'; 20 << 10].into());
    bad.push(good[&Path::from("holdfast.json")].clone());
    let with_two = put_all(&both).await;
    for (n, bad) in bad.into_iter().enumerate() {
        inner.put(&path, bad.clone().into()).await.unwrap();
        let e = open(&cx, &inner, key_file(7)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Store, "{n}: {e:?}");
        assert!(e.report().contains("no key slot that is whole"), "{n}: {}", e.report());
        let said = warnings.take();
        assert!(said.len() == 1 && said[0].contains(path.as_ref()), "{n}: {said:?}");

        // Every twentieth: one with two slots.
        if n % 20 == 0 {
            with_two.put(&path, bad.into()).await.unwrap();
            open(&cx, &with_two, key_file(8)).await.unwrap();
            let e = open(&cx, &with_two, key_file(7)).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Usage, "{n}");
            assert!(warnings.take().iter().all(|w| w.contains(path.as_ref())));
        }
    }
    inner.delete(&path).await.unwrap();
    let e = open(&cx, &inner, key_file(7)).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Store && e.report().contains("has no key slot"), "{e:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_of_another_repository_are_passed_over() {
    let (cx, warnings) = listening();
    let (mine, _) = encrypted(&cx).await;
    let (theirs, _) = encrypted(&cx).await;
    let stranger = slots(&theirs).remove(0);
    let mut both = mine.clone();
    both.insert(stranger.clone(), theirs[&stranger].clone());
    let repo = open(&cx, &put_all(&both).await, key_file(7)).await.unwrap();
    assert_eq!(repo.key_slots(&cx).await.unwrap().len(), 1);

    // In place of ours.
    let own = slots(&mine).remove(0);
    both.remove(&own);
    let e = open(&cx, &put_all(&both).await, key_file(7)).await.unwrap_err();
    assert!(e.report().contains("has no key slot"), "{}", e.report());
    assert_eq!(warnings.take(), Vec::<String>::new());

    // Under our name, it is damage.
    let mut renamed = mine.clone();
    renamed.insert(own, theirs[&stranger].clone());
    let e = open(&cx, &put_all(&renamed).await, key_file(7)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Store);
}

/// `init` writes the slot, then holdfast.json; killed in between it leaves a place that it takes again.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_init_leaves_is_no_hindrance() {
    let cx = context();
    let (all, _) = encrypted(&cx).await;
    let path = slots(&all).remove(0);
    let left = BTreeMap::from([(path.clone(), all[&path].clone())]);
    let inner = put_all(&left).await;
    let init = async |lock: Lock| {
        Repo::init_on(&cx, Store::new(Arc::clone(&inner), "memory"), lock.options()).await
    };
    init(Lock::Encrypted).await.unwrap();
    assert_eq!(slots(&objects(&*inner).await).len(), 2);
    open(&cx, &inner, key_file(7)).await.unwrap();
    let before = objects(&*inner).await;
    for lock in [Lock::Open, Lock::Encrypted] {
        let e = init(lock).await.unwrap_err();
        assert!(e.report().contains("already"), "{}", e.report());
    }
    assert_eq!(objects(&*inner).await, before, "a refused init leaves nothing behind");

    for stranger in ["keys/notes.txt", "keys/0123ABCD", "keys/sub/01234567", "clusters/shop/x"] {
        let mut left = left.clone();
        left.insert(stranger.into(), "x".into());
        let store = Store::new(put_all(&left).await, "memory");
        let e = Repo::init_on(&cx, store, options()).await.unwrap_err();
        assert!(e.report().contains("not empty"), "{stranger}: {}", e.report());
    }
}

/// Who can write to the store cannot make Holdfast store a backup in the clear, nor under a cipher of
/// his choice.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_holdfast_json_is_noticed() {
    let (cx, warnings) = listening();
    let (good, manifest) = encrypted(&cx).await;
    let config = Path::from("holdfast.json");
    let replaced = async |json: Vec<u8>| {
        let mut objects = good.clone();
        objects.insert(config.clone(), json.into());
        put_all(&objects).await
    };
    let parsed = Config::parse(&good[&config]).unwrap();
    let open_config = Config { encryption: None, requires: Vec::new(), ..parsed.clone() };
    let inner = replaced(open_config.encode()).await;
    let repo = open(&cx, &inner, key_file(7)).await.unwrap();
    assert!(warnings.take().iter().any(|w| w.contains("not encrypted")));
    let e = back_up(&cx, &repo, &samples()[..1]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Usage);
    assert!(e.report().contains("in the clear"), "{}", e.report());
    let e = repo.manifest(&manifest.cluster, &manifest.backup).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Damaged);

    let mut other = parsed.clone();
    other.encryption.as_mut().unwrap().cipher = Cipher::ChaCha20Poly1305;
    let e = open(&cx, &replaced(other.encode()).await, key_file(7)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Store);
    assert!(e.report().contains("replaced"), "{}", e.report());

    // That of another repository with the same key file.
    let (theirs, _) = encrypted(&cx).await;
    let e = open(&cx, &replaced(theirs[&config].to_vec()).await, key_file(7)).await.unwrap_err();
    assert!(e.report().contains("has no key slot"), "{}", e.report());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_an_open_repository_is_warned_of() {
    let (cx, warnings) = listening();
    let (repo, inner) = memory_repo(&cx).await;
    let manifest = back_up(&cx, &repo, &samples()[..1]).await.unwrap();
    assert_eq!(warnings.take(), Vec::<String>::new());
    let again = open(&cx, &inner, passphrase("p")).await.unwrap();
    let said = warnings.take();
    assert!(said.len() == 1 && said[0].contains("not encrypted"), "{said:?}");
    restore_all(&cx, &again, &manifest, &samples()[..1]).await.unwrap();
    for e in [
        again.add_key(&cx, &passphrase("p"), "").await.unwrap_err(),
        again.remove_key(&cx, &"01234567".parse().unwrap()).await.unwrap_err(),
        back_up(&cx, &again, &samples()[..1]).await.unwrap_err(),
    ] {
        assert_eq!(e.kind(), ErrorKind::Usage);
        assert!(e.report().contains("not encrypted"), "{}", e.report());
    }
    assert!(again.key_slots(&cx).await.unwrap().is_empty());
}

/// The payloads of the frames of an object.
fn payloads(object: &Bytes) -> Vec<Bytes> {
    let mut payloads = Vec::new();
    let mut at = 16;
    while at < object.len() {
        let header = FrameHeader::parse(object[at..].first_chunk().unwrap()).unwrap();
        assert!(header.sealed.is_some());
        let end = at + header.frame_len() as usize;
        payloads.push(object.slice(at + FRAME_HEADER_LEN..end));
        at = end;
    }
    payloads
}

/// No eight bytes of what is stored are the same, be it in two repositories with the same key file, or
/// in two backups of one.
#[tokio::test(flavor = "multi_thread")]
async fn equal_content_leaves_no_equal_bytes() {
    let cx = context();
    let mut seen: HashSet<[u8; 8]> = HashSet::new();
    for _ in 0..2 {
        let options = RepositoryOptions { dedup: false, ..Lock::Encrypted.options() };
        let (repo, inner) = memory_repo_with(&cx, options).await;
        for _ in 0..2 {
            back_up(&cx, &repo, &samples()).await.unwrap();
        }
        for (path, object) in objects(&*inner).await {
            if !path.as_ref().starts_with("clusters/") {
                continue;
            }
            for payload in payloads(&object) {
                for window in payload.chunks_exact(8) {
                    let new = seen.insert(window.try_into().unwrap());
                    assert!(new, "{path}: {window:02x?} is there twice");
                }
            }
        }
    }
    assert!(seen.len() > 1_000_000, "{}", seen.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_ids_is_seen_from_outside() {
    let (objects, manifest) = encrypted(&context()).await;
    // None so short that chance would make it.
    let words = [
        "orders",
        "items",
        "create table",
        "schema",
        "rows-000001",
        "sample",
        "db:3306",
        "logical",
        "one snapshot",
        "totals",
        "artifacts",
    ];
    for (path, bytes) in &objects {
        for word in words {
            let found = bytes.windows(word.len()).any(|w| w == word.as_bytes());
            assert!(!found && !path.as_ref().contains(word), "{path}: {word}");
        }
    }
    assert!(manifest.packs.len() >= 3);
    let (open, inner) = memory_repo(&context()).await;
    back_up(&context(), &open, &samples()).await.unwrap();
    let text: Vec<u8> = common::objects(&*inner).await.into_values().flatten().collect();
    let found = |word: &str| text.windows(word.len()).any(|w| w == word.as_bytes());
    assert!(found("db:3306") && found("create table"), "the search finds what is there");
}

/// Objects and frames of another encrypted repository, even one with the same key file, in the place of
/// ours.
#[tokio::test(flavor = "multi_thread")]
async fn frames_of_another_repository_are_refused() {
    let cx = context();
    let (mine, manifest) = encrypted(&cx).await;
    let (theirs, other) = encrypted(&cx).await;
    let (of_mine, of_theirs) = (manifest.backup.as_str(), other.backup.as_str());
    let mut swapped = 0;
    for (path, bytes) in mine.iter().filter(|(path, _)| path.as_ref().contains(of_mine)) {
        let twin = Path::from(path.as_ref().replace(of_mine, of_theirs));
        let Some(foreign) = theirs.get(&twin) else { continue };
        let header_kept = [&bytes[..16], &foreign[16..]].concat();
        for bad in [foreign.clone(), Bytes::from(header_kept)] {
            let mut objects = mine.clone();
            objects.insert(path.clone(), bad);
            let repo = open(&cx, &put_all(&objects).await, key_file(7)).await.unwrap();
            let report = check_content(&cx, &repo, &manifest).await.unwrap();
            assert!(!report.ok(), "{path}");
            let restored = restore_all(&cx, &repo, &manifest, &samples()).await;
            if path.as_ref().contains("/pack-") {
                assert_eq!(restored.unwrap_err().kind(), ErrorKind::Damaged, "{path}");
            }
            swapped += 1;
        }
    }
    assert!(swapped >= 8, "{swapped}");
}

#[test]
fn secrets_are_not_shown() {
    for unlock in [passphrase("hunter2"), Unlock::KeyFile(SecretBytes::new(b"hunter2".to_vec()))] {
        let options = RepositoryOptions { unlock: Some(unlock), ..options() };
        let shown = format!("{options:?}");
        assert!(shown.contains("***") && !shown.contains("hunter2"), "{shown}");
        assert!(!shown.contains("104, 117"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_bound_to_what_it_says_of_itself() {
    let cx = context();
    let (objects, _) = encrypted(&cx).await;
    let path = slots(&objects).remove(0);
    let name: SlotName = path.filename().unwrap().parse().unwrap();
    let slot = Slot::parse(&name, &objects[&path]).unwrap();
    assert!(slot.unwrap(&key_file(7)).is_some());
    assert!(slot.unwrap(&key_file(8)).is_none());
    assert!(!format!("{slot:?}").contains("wrapped"));
}
