//! A source that lies: a real server behind a line on which somebody changes what it sends. Whatever
//! comes, the receiver ends with an error or goes on, and nothing is archived that the server did not
//! write.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Context, ErrorKind, SegmentStore};
use backup_drivers::binlog::event::{ARTIFICIAL, Checksum, Event, HEADER_LEN, Header, kind};
use backup_drivers::binlog::{Dump, DumpOptions, Sent, check_segment, receive};
use backup_drivers::connect::{ConnectOptions, SslMode};
use bytes::Bytes;
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::server::{Server, WORK};
use crate::store::Store;

/// What becomes of a packet of the dump, by its number.
type Attack = fn(usize, &[u8]) -> Instead;

enum Instead {
    /// These packets instead.
    Packets(Vec<Vec<u8>>),
    /// These bytes, and nothing more.
    Last(Vec<u8>),
    /// These packets again and again.
    Flood(Vec<u8>),
    /// Nothing, for ever.
    Silence,
}

/// A line to the server at `port`.
async fn line(port: u16, attack: Attack) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let ours = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
            // Either side may go at any time.
            tokio::spawn(async move { carry(client, server, attack).await });
        }
    });
    ours
}

async fn packet(from: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 4];
    from.read_exact(&mut head).await?;
    let mut payload = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
    from.read_exact(&mut payload).await?;
    Ok((head[3], payload))
}

fn framed(seq: u8, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_le_bytes();
    [&[len[0], len[1], len[2], seq][..], payload].concat()
}

async fn carry(client: TcpStream, server: TcpStream, attack: Attack) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (asked, mut dumping) = tokio::sync::watch::channel(false);
    let up = async move {
        loop {
            let (seq, payload) = packet(&mut from_client).await?;
            if seq == 0 && payload.first() == Some(&0x12) {
                let _ = asked.send(true);
            }
            to_server.write_all(&framed(seq, &payload)).await?;
        }
        #[allow(unreachable_code)]
        std::io::Result::Ok(())
    };
    let down = async move {
        let mut n = 0;
        let mut seq = 1;
        loop {
            let (theirs, payload) = packet(&mut from_server).await?;
            if !*dumping.borrow_and_update() {
                to_client.write_all(&framed(theirs, &payload)).await?;
                continue;
            }
            match attack(n, &payload) {
                Instead::Packets(packets) => {
                    for payload in packets {
                        to_client.write_all(&framed(seq, &payload)).await?;
                        seq = seq.wrapping_add(1);
                    }
                }
                Instead::Last(bytes) => {
                    to_client.write_all(&bytes).await?;
                    to_client.shutdown().await?;
                    return Ok(());
                }
                Instead::Flood(payload) => loop {
                    to_client.write_all(&framed(seq, &payload)).await?;
                    seq = seq.wrapping_add(1);
                },
                Instead::Silence => std::future::pending::<()>().await,
            }
            n += 1;
        }
    };
    tokio::select! {
        done = up => done,
        done = down => done,
    }
}

/// The event in a packet with some of it changed, and a checksum that fits.
fn changed(payload: &[u8], change: impl FnOnce(&mut Header, &mut Vec<u8>)) -> Vec<u8> {
    let event = &payload[1..];
    let mut header = Header::parse(event).unwrap();
    let mut body = event[HEADER_LEN..event.len() - 4].to_vec();
    change(&mut header, &mut body);
    let (len, right) = (header.len, (HEADER_LEN + body.len() + 4) as u32);
    let event = Event::build(header, &body, Checksum::Crc32);
    let mut bytes = event.bytes().to_vec();
    if len as usize != payload.len() - 1 && len != right {
        // It says another length, and signs that.
        bytes[9..13].copy_from_slice(&len.to_le_bytes());
        let end = bytes.len() - 4;
        let crc = crc32(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&crc);
    }
    [&[0][..], &bytes].concat()
}

/// Bit by bit: it is only for a few events.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

fn rotate(name: &str, flags: u16) -> Vec<u8> {
    let header = Header { time: 0, kind: kind::ROTATE, server_id: 1, len: 0, end: 0, flags };
    let body = [&4_u64.to_le_bytes()[..], name.as_bytes()].concat();
    [&[0][..], Event::build(header, &body, Checksum::Crc32).bytes()].concat()
}

fn heartbeat(name: &str, end: u32) -> Vec<u8> {
    let header = Header { time: 0, kind: kind::HEARTBEAT, server_id: 1, len: 0, end, flags: 0 };
    [&[0][..], Event::build(header, name.as_bytes(), Checksum::Crc32).bytes()].concat()
}

fn as_it_is(payload: &[u8]) -> Instead {
    Instead::Packets(vec![payload.to_vec()])
}

/// The packet that is changed: in the middle of the first file.
const AT: usize = 20;

fn at(n: usize, payload: &[u8], change: impl FnOnce() -> Instead) -> Instead {
    if n == AT { change() } else { as_it_is(payload) }
}

fn instead(n: usize, payload: &[u8], packets: impl FnOnce() -> Vec<Vec<u8>>) -> Instead {
    at(n, payload, || Instead::Packets(packets()))
}

const ATTACKS: [(&str, Attack); 20] = [
    ("a flipped bit", |n, p| {
        instead(n, p, || {
            let mut p = p.to_vec();
            let at = p.len() / 2;
            p[at] ^= 4;
            vec![p]
        })
    }),
    ("a wrong checksum", |n, p| {
        instead(n, p, || {
            let mut p = p.to_vec();
            *p.last_mut().unwrap() ^= 1;
            vec![p]
        })
    }),
    ("a length that is too great", |n, p| instead(n, p, || vec![changed(p, |h, _| h.len += 1)])),
    ("a length of 4 GiB", |n, p| instead(n, p, || vec![changed(p, |h, _| h.len = u32::MAX)])),
    ("a length of nothing", |n, p| instead(n, p, || vec![changed(p, |h, _| h.len = 0)])),
    ("a lie about its end", |n, p| instead(n, p, || vec![changed(p, |h, _| h.end += 100)])),
    ("an end that goes back", |n, p| instead(n, p, || vec![changed(p, |h, _| h.end = 4)])),
    ("an event that is left out", |n, p| instead(n, p, Vec::new)),
    ("an event twice", |n, p| instead(n, p, || vec![p.to_vec(), p.to_vec()])),
    ("an event that grew", |n, p| {
        instead(n, p, || {
            vec![changed(p, |h, body| {
                body.extend([0; 8]);
                h.len += 8;
            })]
        })
    }),
    ("a file elsewhere", |n, p| instead(n, p, || vec![rotate("../x", ARTIFICIAL), p.to_vec()])),
    ("a file with a path", |n, p| instead(n, p, || vec![rotate("/etc/passwd", 0), p.to_vec()])),
    ("another file in the middle of one", |n, p| {
        instead(n, p, || vec![rotate("binlog.000009", ARTIFICIAL), p.to_vec()])
    }),
    ("a position ahead", |n, p| {
        instead(n, p, || vec![heartbeat("binlog.000001", u32::MAX - 7), p.to_vec()])
    }),
    ("nothing but signs of life", |n, p| {
        at(n, p, || Instead::Flood(heartbeat("binlog.000001", 4)))
    }),
    ("a packet that is no event", |n, p| instead(n, p, || vec![vec![0x55; 40]])),
    ("an empty packet", |n, p| instead(n, p, || vec![Vec::new()])),
    ("an event of three bytes", |n, p| instead(n, p, || vec![vec![0, 1, 2, 3]])),
    ("16 MiB that never come", |n, p| {
        at(n, p, || Instead::Last(vec![0xff, 0xff, 0xff, 22, 0, 1, 2]))
    }),
    ("a packet out of order", |n, p| at(n, p, || Instead::Last(framed(99, p)))),
];

fn through(port: u16) -> ConnectOptions {
    let mut options = ConnectOptions::tcp("127.0.0.1", port, "liar");
    options.tls.mode = SslMode::Disabled;
    options
}

/// Whether who reads once to the end meets an error.
async fn is_seen(source: &ConnectOptions, n: usize) -> bool {
    let options =
        DumpOptions { uuid: backup_core::Uuid::from_u128(n as u128), ..crate::dump::options() };
    let mut dump = Dump::begin(source, "binlog.000001", &options).await.unwrap();
    loop {
        match dump.next().await {
            Ok(Sent::End) => return false,
            Ok(_) => {}
            Err(e) => {
                let expected = [ErrorKind::Connect, ErrorKind::Damaged, ErrorKind::Source];
                assert!(expected.contains(&e.kind()), "{}", e.report());
                return true;
            }
        }
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_archived_that_the_server_did_not_write(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server =
        Arc::new(Server::start(name, |builder| builder.option("binlog_checksum", "CRC32")).await);
    server.run(&["CREATE USER liar@'%'", "GRANT ALL ON *.* TO liar@'%'"]).await;
    server.run(&WORK).await;
    let mut attacks = tokio::task::JoinSet::new();
    for (n, (what, attack)) in ATTACKS.into_iter().enumerate() {
        let server = Arc::clone(&server);
        attacks.spawn(async move {
            let store = Store::new().await;
            let port = line(server.0.port().unwrap(), attack).await;
            let repo = Arc::new(store.repo.clone());
            let source = through(port);
            let seen = is_seen(&source, n).await;
            let work = receive(&store.cx, &source, repo, store.options());
            let done = tokio::time::timeout(Duration::from_secs(240), work).await;
            let done = done.unwrap_or_else(|_| panic!("{what}: it does not end"));
            // What it tries again may be short enough to miss the lie.
            if let Err(e) = done {
                let expected = [ErrorKind::Connect, ErrorKind::Damaged, ErrorKind::Source];
                assert!(expected.contains(&e.kind()), "{what}: {}", e.report());
                println!("{what}: {}", e.report());
            }
            for info in store.segments().await {
                let content = store.repo.read(&store.cx, &info).await.unwrap();
                check_segment(&info, &content).unwrap();
                let mut there = std::fs::read(server.0.datadir().join(&info.range.file)).unwrap();
                there[4 + 17] &= !1;
                let range = info.range.start as usize..info.range.end as usize;
                assert!(there[range] == content[..], "{what}: {}", info.range);
            }
            // Over a good line it goes on.
            store.archive(&server).await;
            assert!(
                backup_core::BinlogChain::new(store.segments().await).gaps().is_empty(),
                "{what}"
            );
            (what, seen)
        });
    }
    let mut unseen = Vec::new();
    while let Some(done) = attacks.join_next().await {
        let (what, seen) = done.unwrap();
        if !seen {
            unseen.push(what);
        }
    }
    // Where the packet was one that is in no file, there was nothing to be seen.
    assert!(unseen.len() <= 3, "{unseen:?}");
}

/// A server that says nothing is taken for dead.
#[tokio::test]
async fn silence_ends() {
    let server = Server::start("mysql-9.7", |builder| builder).await;
    server.run(&["CREATE USER liar@'%'", "GRANT ALL ON *.* TO liar@'%'"]).await;
    server.run(&WORK).await;
    let silent: Attack = |n, p| at(n, p, || Instead::Silence);
    let port = line(server.0.port().unwrap(), silent).await;
    let options = DumpOptions { heartbeat: Duration::from_millis(100), ..crate::dump::options() };
    let mut dump = Dump::begin(&through(port), "binlog.000001", &options).await.unwrap();
    let work = async {
        loop {
            if let Err(e) = dump.next().await {
                return e;
            }
        }
    };
    let e = tokio::time::timeout(Duration::from_secs(120), work).await.unwrap();
    assert_eq!(e.kind(), ErrorKind::Connect, "{}", e.report());
}

/// No length makes room for itself.
#[test]
fn lengths_take_no_memory() {
    let mut bytes = vec![0; HEADER_LEN];
    bytes[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(Event::check(Bytes::from(bytes), Checksum::None).is_err());
    let _ = Context::builder().build();
}
