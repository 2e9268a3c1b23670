//! Objects in archive classes: named where they are read, asked for where that is wanted.

use backup_core::{ErrorKind, Manifest};
use backup_storage::{
    Availability, BackupObject, Key, Repo, StoreOptions, ThawRequest, ThawSpeed, thaw,
};
use http::Method;

use crate::common::{back_up, context, options, restore_all, samples};
use crate::server::{Dialect, Fault, Server};

const WEEK: ThawRequest = ThawRequest { days: 7, speed: ThawSpeed::Bulk };

/// A prefix with what a signature must write otherwise.
const PREFIX: &str = "my=repo/a+b,c";

async fn repo(server: &Server) -> (Repo, Manifest) {
    let store = server.store(PREFIX).await;
    let repo = Repo::init_on(&context(), store, options()).await.unwrap();
    let manifest = back_up(&context(), &repo, &samples()).await.unwrap();
    (repo, manifest)
}

fn packs(manifest: &Manifest) -> Vec<Key> {
    let pack = |n| {
        let (cluster, backup) = (manifest.cluster.clone(), manifest.backup.clone());
        Key::Backup(cluster, backup, BackupObject::Pack(n))
    };
    (0..manifest.packs.len() as u32).map(pack).collect()
}

fn restores(server: &Server) -> usize {
    server.seen().iter().filter(|seen| seen.method == Method::POST).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_in_an_archive_class_comes_back_when_it_was_asked_for() {
    for dialect in [Dialect::S3, Dialect::Oss] {
        let server = Server::start(dialect).await;
        let (cx, (repo, manifest)) = (context(), repo(&server).await);
        let all = manifest.packs.len() as u64;
        assert!(all > 1, "too few packs to tell anything: {all}");
        let ready = thaw(&cx, &repo, &manifest, None).await.unwrap();
        assert!(ready.is_readable() && ready.readable.0 == all + 1, "{ready:?}");
        for key in packs(&manifest) {
            server.freeze(&format!("my%3Drepo/a%2Bb%2Cc/{key}"));
        }

        // A restore names the way out.
        let error = restore_all(&cx, &repo, &manifest, &samples()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Store, "{error:?}");
        for part in ["InvalidObjectState", "holdfast thaw BACKUP", "pack-"] {
            assert!(error.report().contains(part), "{part} is not in: {}", error.report());
        }

        // The next backup goes on without what it would read; what it needs of the archive is known.
        let next = back_up(&cx, &repo, &samples()).await.unwrap();
        let needed: u64 = next.needs.iter().map(|n| n.packs.len() as u64).sum();
        let found = thaw(&cx, &repo, &next, None).await.unwrap();
        assert_eq!(found.archived.0, needed);

        // Looking asks for nothing.
        let found = thaw(&cx, &repo, &manifest, None).await.unwrap();
        let bytes = manifest.packs.iter().map(|pack| pack.bytes).sum();
        assert_eq!(found.archived, (all, bytes));
        assert!(!found.is_readable() && found.readable.0 == 1 && restores(&server) == 0);

        // Asking asks once for each.
        let found = thaw(&cx, &repo, &manifest, Some(WEEK)).await.unwrap();
        assert_eq!((found.archived, restores(&server)), ((all, bytes), all as usize));
        for request in [None, Some(WEEK)] {
            let found = thaw(&cx, &repo, &manifest, request).await.unwrap();
            assert_eq!((found.thawing.0, found.archived.0), (all, 0));
            assert!(!found.is_readable());
        }
        assert_eq!(restores(&server), all as usize, "what was asked for was asked for again");
        restore_all(&cx, &repo, &manifest, &samples()).await.unwrap_err();

        server.hours_pass();
        let found = thaw(&cx, &repo, &manifest, Some(WEEK)).await.unwrap();
        let until = "2026-12-20T00:00:00Z".parse().ok();
        assert_eq!((found.readable.0, found.until), (all + 1, until));
        assert_eq!(restores(&server), all as usize);
        restore_all(&cx, &repo, &manifest, &samples()).await.unwrap();
    }
}

/// Others may ask at the same moment, lines break, and stores refuse.
#[tokio::test(flavor = "multi_thread")]
async fn requests_for_a_thaw_may_fail() {
    let server = Server::start(Dialect::S3).await;
    let (cx, (repo, manifest)) = (context(), repo(&server).await);
    let key = packs(&manifest).swap_remove(0);
    let store = repo.store();
    let at = format!("my%3Drepo/a%2Bb%2Cc/{key}");

    server.freeze(&at);
    let busy = Fault::Answer(409, "RestoreAlreadyInProgress", "…");
    server.hurt(Method::POST, "pack-0", 1, busy);
    assert_eq!(store.thaw(&key, WEEK).await.unwrap(), Some(Availability::Thawing));

    // The answer was lost: the second attempt finds that it was asked for.
    server.hurt(Method::POST, "pack-0", 1, Fault::CutBefore);
    let found = store.thaw(&key, WEEK).await.unwrap();
    assert_eq!((found, server.pending()), (Some(Availability::Archived), 0));

    server.freeze(&at);
    let hurry = "GlacierExpeditedRetrievalNotAvailable";
    for (status, code, part) in
        [(403, "AccessDenied", "s3:RestoreObject"), (503, hurry, "--speed standard")]
    {
        server.hurt(Method::POST, "pack-0", 1, Fault::Answer(status, code, "…"));
        let error = thaw(&cx, &repo, &manifest, Some(WEEK)).await.unwrap_err();
        for part in [part, "ask for a thaw of", "pack-0"] {
            assert!(error.report().contains(part), "{part} is not in: {}", error.report());
        }
        assert_eq!(server.pending(), 0);
    }

    let mut gone = key.clone();
    if let Key::Backup(_, _, object) = &mut gone {
        *object = BackupObject::Pack(999);
    }
    assert_eq!(store.thaw(&gone, WEEK).await.unwrap(), None);
    assert_eq!(store.availability(&gone).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_wrong_key_is_refused() {
    let server = Server::start(Dialect::S3).await;
    let (_, manifest) = repo(&server).await;
    let mut options: StoreOptions = server.options();
    if let Some(backup_storage::Credentials::Key { secret, .. }) = &mut options.credentials {
        *secret = backup_core::Secret::new("another");
    }
    let store = server.store_with(&server.url(PREFIX), &options).await;
    let key = &packs(&manifest)[0];
    // HEAD has no body to say why.
    let error = store.thaw(key, WEEK).await.unwrap_err();
    assert!(error.report().contains("403"), "{}", error.report());
}

/// A directory has no classes.
#[tokio::test(flavor = "multi_thread")]
async fn elsewhere_everything_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = backup_storage::Store::local(dir.path()).unwrap();
    let repo = Repo::init_on(&context(), store, options()).await.unwrap();
    let manifest = back_up(&context(), &repo, &samples()).await.unwrap();
    let found = thaw(&context(), &repo, &manifest, Some(WEEK)).await.unwrap();
    assert_eq!(found.readable.0, manifest.packs.len() as u64 + 1);
    assert_eq!(found.until, None);
}
