//! A line to a donor that is cut, or stands still, when it has carried so many bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use backup_drivers::connect::ConnectOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

pub(crate) struct Line {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// So many bytes it has carried.
    carried: AtomicU64,
    /// So many bytes it still carries before something happens to it, once.
    left: AtomicI64,
    /// It stands still then, and is not cut.
    hold: AtomicBool,
    held: Notify,
    released: Notify,
}

impl Line {
    pub(crate) async fn to(port: u16) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            carried: AtomicU64::new(0),
            left: AtomicI64::new(i64::MAX),
            hold: AtomicBool::new(false),
            held: Notify::new(),
            released: Notify::new(),
        });
        let all = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&all);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await {
                        shared.carry(client, server).await;
                    }
                });
            }
        });
        Line { address, shared }
    }

    /// Is cut after so many bytes; what connects then gets through.
    pub(crate) fn cut_after(&self, bytes: i64) {
        self.shared.hold.store(false, Ordering::SeqCst);
        self.shared.left.store(bytes, Ordering::SeqCst);
    }

    /// One of its connections stands still after so many bytes, until it is [released](Self::release).
    pub(crate) fn hold_after(&self, bytes: i64) {
        self.shared.hold.store(true, Ordering::SeqCst);
        self.shared.left.store(bytes, Ordering::SeqCst);
    }

    /// Waits until it stands still.
    pub(crate) async fn held(&self) {
        self.shared.held.notified().await;
    }

    /// How many bytes it has carried, both ways.
    pub(crate) fn carried(&self) -> u64 {
        self.shared.carried.load(Ordering::SeqCst)
    }

    pub(crate) fn release(&self) {
        self.shared.released.notify_one();
    }

    pub(crate) fn options(&self, user: &str, password: &str) -> ConnectOptions {
        let password = backup_core::Secret::new(password.to_owned());
        ConnectOptions::tcp("127.0.0.1", self.address.port(), user).with_password(password)
    }
}

impl Shared {
    async fn carry(&self, mut client: TcpStream, mut server: TcpStream) {
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
            self.carried.fetch_add(sent as u64, Ordering::SeqCst);
            let before = self.left.fetch_sub(sent as i64, Ordering::SeqCst);
            if before >= 0 && before < sent as i64 {
                // Once; the next connection carries everything.
                self.left.store(i64::MAX, Ordering::SeqCst);
                if !self.hold.load(Ordering::SeqCst) {
                    return;
                }
                self.held.notify_one();
                self.released.notified().await;
            }
        }
    }
}
