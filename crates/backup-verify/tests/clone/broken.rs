//! Connections that break, and backups that are given up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use backup_core::{Context, ErrorKind};
use backup_drivers::connect::{ConnectOptions, Endpoint};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::stage::{Stage, checksums, run};

/// A line to the donor that is cut when it has carried so many bytes.
struct Proxy {
    address: SocketAddr,
    left: Arc<AtomicI64>,
}

impl Proxy {
    async fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let budget = Arc::clone(&left);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let budget = Arc::clone(&budget);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await {
                        carry(client, server, budget).await;
                    }
                });
            }
        });
        Proxy { address, left }
    }

    fn cut_after(&self, bytes: i64) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    fn options(&self, password: &str) -> ConnectOptions {
        let mut options = ConnectOptions::socket("/", "backup");
        options.endpoint = Endpoint::Tcp { host: "127.0.0.1".into(), port: self.address.port() };
        options.password = Some(backup_core::Secret::new(password.to_owned()));
        options
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, left: Arc<AtomicI64>) {
    let (mut from_client, mut from_server) = ([0; 16 << 10], [0; 64 << 10]);
    loop {
        let sent = tokio::select! {
            n = client.read(&mut from_client) => match n {
                Ok(n) if n > 0 => server.write_all(&from_client[..n]).await.map(|()| n),
                _ => return,
            },
            n = server.read(&mut from_server) => match n {
                Ok(n) if n > 0 => client.write_all(&from_server[..n]).await.map(|()| n),
                _ => return,
            },
        };
        let Ok(sent) = sent else { return };
        let before = left.fetch_sub(sent as i64, Ordering::SeqCst);
        if before >= 0 && before < sent as i64 {
            // Once; the next connection carries everything.
            left.store(i64::MAX, Ordering::SeqCst);
            return;
        }
    }
}

async fn stage() -> (Stage, Proxy) {
    let stage = Stage::new(|builder| builder).await;
    let mut donor = stage.session().await;
    run(&mut donor, &[
        "CREATE USER backup@'%' IDENTIFIED BY 'secret'",
        "GRANT BACKUP_ADMIN ON *.* TO backup@'%'",
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY, a TEXT)",
        "INSERT INTO d.t WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 900) \
         SELECT n, REPEAT(SHA2(n, 256), 60) FROM r",
    ])
    .await;
    let proxy = Proxy::to(stage.donor.port().unwrap()).await;
    (stage, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_line_is_taken_up_again() {
    let (stage, proxy) = stage().await;
    let sums = checksums(&mut stage.session().await).await;
    let rounds = std::env::var("HOLDFAST_TEST_ROUNDS").ok().and_then(|n| n.parse().ok());
    let rounds: i64 = rounds.unwrap_or(5);
    // About as much as the clone sends, and the logins before it.
    const ALL: i64 = 80 << 20;
    let mut resumed = 0;
    for n in 0..rounds {
        proxy.cut_after(2000 + ALL * n / rounds);
        match stage.try_backup(&stage.cx, proxy.options("secret")).await {
            Ok(manifest) => {
                resumed += manifest.outcome.details["restarts"].as_u64().unwrap();
                if n % 5 == 0 || n == rounds - 1 {
                    let restored = stage.restored(&manifest, |builder| builder).await;
                    assert_eq!(checksums(&mut restored.session().await).await, sums);
                    restored.check_tables().await;
                }
            }
            // Cut before there was a clone to go on with.
            Err(e) => assert_eq!(e.kind(), ErrorKind::Connect, "{}", e.report()),
        }
        proxy.cut_after(i64::MAX);
    }
    assert!(resumed > 0, "no clone was resumed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_given_up_leaves_the_donor_free() {
    let (stage, proxy) = stage().await;
    for n in 0..4 {
        let cx = Context::builder().build();
        let (cancel, progress) = (cx.clone(), cx.clone());
        tokio::spawn(async move {
            // In the middle of the data.
            while progress.progress().snapshot().bytes < n * (8 << 20) + 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            cancel.cancel();
        });
        let e = stage.try_backup(&cx, proxy.options("secret")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Interrupted, "{}", e.report());
        // The donor takes one clone at a time: this one would be refused.
        let next = stage.try_backup(&stage.cx, proxy.options("secret")).await;
        assert!(next.is_ok(), "{}", next.unwrap_err().report());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_donor_lacks_is_said_with_its_remedy() {
    let (stage, proxy) = stage().await;
    let mut donor = stage.session().await;
    let wrong = stage.try_backup(&stage.cx, proxy.options("wrong")).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Connect);
    run(&mut donor, &["REVOKE BACKUP_ADMIN ON *.* FROM backup@'%'"]).await;
    let e = stage.try_backup(&stage.cx, proxy.options("secret")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Privilege);
    assert!(e.report().contains("GRANT BACKUP_ADMIN ON *.* TO 'backup'@'%'"), "{}", e.report());
    run(
        &mut donor,
        &["GRANT BACKUP_ADMIN ON *.* TO backup@'%'", "ALTER INSTANCE DISABLE INNODB REDO_LOG"],
    )
    .await;
    let e = stage.try_backup(&stage.cx, proxy.options("secret")).await.unwrap_err();
    assert!(e.report().contains("ALTER INSTANCE ENABLE INNODB REDO_LOG"), "{}", e.report());
    run(&mut donor, &["ALTER INSTANCE ENABLE INNODB REDO_LOG", "UNINSTALL PLUGIN clone"]).await;
    let e = stage.try_backup(&stage.cx, proxy.options("secret")).await.unwrap_err();
    assert!(e.report().contains("INSTALL PLUGIN clone"), "{}", e.report());
}
