//! A restore that does not come out right must say so.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSource, Error, ErrorKind, Manifest,
    Repository, Restore, Restored, Result,
};
use backup_drivers::connect::Session;
use backup_drivers::logical::{
    CATALOG, LogicalOptions, LogicalRestore, LogicalRestoreOptions, Rename,
};
use bytes::Bytes;
use rstest::rstest;

use crate::pair::Pair;

/// Artifacts whose catalogue went through `edit`: every frame is sound, what it says is not.
struct Edited {
    inner: Arc<dyn ArtifactSource>,
    edit: fn(&str) -> String,
}

struct Once(Option<Bytes>);

#[async_trait]
impl ArtifactReader for Once {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        Ok(self.0.take())
    }
}

#[async_trait]
impl ArtifactSource for Edited {
    async fn list(&self) -> Result<Vec<ArtifactInfo>> {
        self.inner.list().await
    }
    async fn open(&self, name: &ArtifactName) -> Result<Box<dyn ArtifactReader>> {
        if name.as_str() != CATALOG {
            return self.inner.open(name).await;
        }
        let text = self.inner.read(name, 1 << 20).await?;
        let edited = (self.edit)(std::str::from_utf8(&text).unwrap());
        Ok(Box::new(Once(Some(Bytes::from(edited)))))
    }
}

async fn restore_edited(
    pair: &Pair,
    manifest: &Manifest,
    edit: fn(&str) -> String,
) -> Result<Restored> {
    let inner = pair.repository.artifacts(&pair.cx, manifest).await.unwrap();
    let options = LogicalRestoreOptions {
        overwrite: true,
        rename: ["shop=copy".parse().unwrap()].into_iter().collect::<Rename>(),
        ..Default::default()
    };
    LogicalRestore::new(pair.target(), options)
        .run(&pair.cx, manifest, Arc::new(Edited { inner, edit }))
        .await
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_the_target_does_not_hold_fails_the_restore(
    #[values("mysql-9.7", "mariadb-10.11")] server: &str,
) {
    let pair = Pair::start(server).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    for statement in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(10) NOT NULL)",
        "INSERT INTO shop.t VALUES (1, 'long text'), (2, 'x'), (3, 'y')",
    ] {
        source.run(statement).await.unwrap();
    }
    let manifest = pair.backup(LogicalOptions::default()).await;
    let same = restore_edited(&pair, &manifest, str::to_owned).await.unwrap();
    assert_eq!(same.rows, 3);

    let failure = |result: Result<Restored>, words: &str| {
        let error: Error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{}", error.report());
        assert!(error.report().contains(words), "{}", error.report());
        assert!(error.report().contains("copy.t"), "{}", error.report());
    };
    // The server cuts a value short on its way in.
    let narrower = |text: &str| text.replace("varchar(10)", "varchar(3)");
    failure(restore_edited(&pair, &manifest, narrower).await, "does not hold what was backed up");
    // The value is changed by a default character set that cannot hold it, or any other way: the
    // digest decides alone.
    let other_digest = |text: &str| {
        let at = text.find("\"sum\":\"").unwrap() + 7;
        let flipped = if text.as_bytes()[at] == b'0' { "1" } else { "0" };
        let old = text[at..at + 32].to_owned();
        text.replace(&old, &format!("{flipped}{}", &old[1..]))
    };
    failure(
        restore_edited(&pair, &manifest, other_digest).await,
        "does not hold what was backed up",
    );
    // A row too many is expected.
    let more_rows = |text: &str| text.replace("\"rows\":3", "\"rows\":4");
    failure(restore_edited(&pair, &manifest, more_rows).await, "3 of 4 rows");
    pair.stop().await;
}
