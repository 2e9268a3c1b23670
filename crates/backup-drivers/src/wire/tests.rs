//! The client against peers that script every byte: hostile ones, and the forms of the protocol
//! that the servers of the integration tests do not use.

use backup_core::ErrorKind;
use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::channel::{Channel, PART};
use super::compress::Compressed;
use super::handshake::Greeting;
use super::*;
use crate::connect::SslMode;

fn options() -> ConnectOptions {
    ConnectOptions::tcp("test", 3306, "u").with_ssl_mode(SslMode::Disabled)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// `payload` as packets from number `seq` on, and the number after them.
fn packets(mut seq: u8, payload: &[u8]) -> (Vec<u8>, u8) {
    let mut bytes = Vec::new();
    let mut rest = payload;
    loop {
        let (part, more) = rest.split_at(rest.len().min(PART));
        bytes.extend_from_slice(&(part.len() as u32).to_le_bytes()[..3]);
        bytes.push(seq);
        bytes.extend_from_slice(part);
        seq = seq.wrapping_add(1);
        rest = more;
        if part.len() < PART {
            return (bytes, seq);
        }
    }
}

fn conversation(first: u8, payloads: &[&[u8]]) -> Vec<u8> {
    let mut seq = first;
    let mut bytes = Vec::new();
    for payload in payloads {
        let (packet, next) = packets(seq, payload);
        bytes.extend(packet);
        seq = next;
    }
    bytes
}

/// A greeting without DEPRECATE_EOF and TLS, as of an old server or of our own replication source.
fn greeting() -> Vec<u8> {
    let capabilities = 0x0008_a205u32; // LONG_PASSWORD .. PLUGIN_AUTH
    let [a, b, c, d] = capabilities.to_le_bytes();
    let mut g = b"\x0a5.7.1\0\x2a\0\0\0abcdefgh\0".to_vec();
    g.extend([a, b, 0x2d, 2, 0, c, d, 21]);
    g.extend([0; 10]);
    g.extend(b"ijklmnopqrst\0mysql_native_password\0");
    g
}

const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
const OLD_EOF: &[u8] = &[0xfe, 1, 0, 2, 0];

fn column(name: &str) -> Vec<u8> {
    let mut c = b"\x03def\0\0\0".to_vec();
    c.push(name.len() as u8);
    c.extend(name.as_bytes());
    c.extend(b"\0\x0c\x2d\0\xff\0\0\0\xfd\0\0\0\0\0");
    c
}

/// A peer that sends everything at once and then ends the connection.
async fn peer(bytes: Vec<u8>) -> (DuplexStream, tokio::task::JoinHandle<()>) {
    let (ours, theirs) = duplex(1 << 16);
    let task = tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(theirs);
        let sink = tokio::spawn(async move {
            let mut ignored = Vec::new();
            let _ = read.read_to_end(&mut ignored).await;
        });
        let _ = write.write_all(&bytes).await;
        let _ = write.shutdown().await;
        let _ = sink.await;
    });
    (ours, task)
}

async fn signed_in(answers: &[u8]) -> Connection {
    let mut bytes = conversation(0, &[&greeting()]);
    bytes.extend(conversation(2, &[OK]));
    bytes.extend_from_slice(answers);
    let (stream, _) = peer(bytes).await;
    Connection::over(Box::new(stream), &options()).await.unwrap()
}

#[tokio::test]
async fn a_result_set_with_the_old_end_markers() {
    let answer = conversation(
        1,
        &[&[2], &column("a"), &column("b"), OLD_EOF, b"\x01x\xfb", b"\x00\x02yz", OLD_EOF],
    );
    let mut connection = signed_in(&answer).await;
    assert_eq!((connection.id(), connection.server_version()), (42, "5.7.1"));
    let mut rows = connection.query_rows("SELECT").await.unwrap();
    assert_eq!(rows.columns()[1].name_str(), "b");
    assert_eq!(rows.next().await.unwrap().unwrap(), &b"\x01x\xfb"[..]);
    assert_eq!(rows.next().await.unwrap().unwrap(), &b"\x00\x02yz"[..]);
    assert_eq!(rows.next().await.unwrap(), None);
    assert_eq!(rows.info().unwrap().warnings, 1);
    assert_eq!(rows.next().await.unwrap(), None);
}

#[tokio::test]
async fn an_error_in_mid_stream_keeps_the_rows_before_it_and_the_connection_after_it() {
    let mut answer = conversation(
        1,
        &[
            &[1],
            &column("a"),
            OLD_EOF,
            b"\x01x",
            b"\xff\x25\x05#70100Query execution was interrupted",
        ],
    );
    answer.extend(conversation(1, &[OK]));
    let mut connection = signed_in(&answer).await;
    let mut rows = connection.query_rows("SELECT 1").await.unwrap();
    assert_eq!(rows.next().await.unwrap().unwrap(), &b"\x01x"[..]);
    let e = rows.next().await.unwrap_err();
    assert_eq!((e.kind(), e.server().unwrap().code), (ErrorKind::Source, 1317));
    assert_eq!(e.to_string(), "cannot run `SELECT 1`");
    connection.query("DO 1").await.unwrap();
}

#[tokio::test]
async fn an_abandoned_result_set_is_not_taken_for_the_next_answer() {
    let answer = conversation(1, &[&[1], &column("a"), OLD_EOF, b"\x01x", OLD_EOF]);
    let mut connection = signed_in(&answer).await;
    drop(connection.query_rows("SELECT 1").await.unwrap());
    let e = connection.query("DO 1").await.unwrap_err();
    assert!(e.to_string().contains("in the middle of a statement"), "{e}");
}

#[tokio::test]
async fn an_unasked_farewell_is_the_error() {
    // What MySQL sends when a session idles too long: number 0, before we ask anything.
    let farewell = conversation(0, &[b"\xff\xbf\x0f#HY000disconnected by the server"]);
    let mut connection = signed_in(&farewell).await;
    let e = connection.query("DO 1").await.unwrap_err();
    assert_eq!((e.kind(), e.server().unwrap().code), (ErrorKind::Connect, 4031));
}

#[tokio::test]
async fn packets_out_of_order_are_refused() {
    let mut connection = signed_in(&conversation(7, &[OK])).await;
    let e = connection.query("DO 1").await.unwrap_err();
    assert!(e.chain().contains("out of order"), "{e:?}");
    let answer =
        [conversation(1, &[&[1], &column("a"), OLD_EOF, b"\x01x"]), conversation(9, &[OLD_EOF])];
    let mut connection = signed_in(&answer.concat()).await;
    let mut rows = connection.query_rows("SELECT").await.unwrap();
    rows.next().await.unwrap();
    assert!(rows.next().await.unwrap_err().chain().contains("out of order"));
}

#[tokio::test]
async fn a_server_that_asks_for_a_file_unasked_gets_none() {
    let mut connection = signed_in(&conversation(1, &[b"\xfb/etc/passwd"])).await;
    let e = connection.query("SELECT 1").await.unwrap_err();
    assert!(e.chain().contains("asks for a file"), "{e:?}");
}

#[tokio::test]
async fn cleartext_bytes_before_tls_are_not_taken_over_into_it() {
    let mut g = greeting();
    g[21] |= 0x08; // CLIENT_SSL
    let mut bytes = conversation(0, &[&g]);
    bytes.extend(conversation(2, &[OK]));
    let (stream, _) = peer(bytes).await;
    let options = options().with_ssl_mode(SslMode::Required);
    let e = Connection::over(Box::new(stream), &options).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Connect);
    assert!(e.chain().contains("before their turn"), "{e:?}");
}

#[tokio::test]
async fn tls_that_is_required_and_not_offered_is_refused() {
    let (stream, _) = peer(conversation(0, &[&greeting()])).await;
    let options = options().with_ssl_mode(SslMode::Required);
    let e = Connection::over(Box::new(stream), &options).await.unwrap_err();
    assert!(e.chain().contains("offers no TLS"), "{e:?}");
}

#[tokio::test]
async fn the_password_is_not_handed_out_in_clear() {
    let switch = b"\xfemysql_clear_password\0";
    for cleartext in [false, true] {
        let mut bytes = conversation(0, &[&greeting()]);
        bytes.extend(conversation(2, &[&switch[..], OK]));
        let (stream, _) = peer(bytes).await;
        let mut options = options().with_password(backup_core::Secret::new("hunter2"));
        options.enable_cleartext_plugin = cleartext; // without TLS it makes no difference
        let e = Connection::over(Box::new(stream), &options).await.unwrap_err();
        assert!(e.chain().contains("mysql_clear_password"), "{e:?}");
    }
}

#[test]
fn a_length_that_promises_too_much_is_refused() {
    // 65 full parts and one byte are more than 1 GiB.
    let (bytes, _) = packets(0, &vec![0; PART]);
    runtime().block_on(async {
        let (ours, mut theirs) = duplex(1 << 20);
        let sender = tokio::spawn(async move {
            let mut seq = 0u8;
            // Ends when the reader has gone.
            while theirs.write_all(&[0xff, 0xff, 0xff, seq]).await.is_ok() {
                if theirs.write_all(&bytes[4..4 + PART]).await.is_err() {
                    break;
                }
                seq = seq.wrapping_add(1);
            }
        });
        let mut channel = Channel::new(Box::new(ours), None);
        let e = channel.read().await.unwrap_err();
        assert!(e.chain().contains("1 GiB"), "{e:?}");
        drop(channel);
        sender.await.unwrap();
    });
}

#[test]
fn the_shortest_and_the_longest_nonce_are_parsed() {
    for len in [0, 8, 21, 127, 128, 255] {
        let mut g = greeting();
        g[7 + 20] = len;
        g.extend([1; 300]);
        assert!(Greeting::parse(&g).is_some(), "{len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the stream is cut, the packets are the same, by either way of reading.
    #[test]
    fn packets_survive_any_cut(
        payloads in prop::collection::vec(prop::collection::vec(1u8..0xfb, 1..2000), 1..40),
        cuts in prop::collection::vec(1usize..5000, 1..20),
        by_rows: bool,
    ) {
        let refs: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        let bytes = conversation(0, &refs);
        let read = runtime().block_on(async {
            let (ours, mut theirs) = duplex(4096);
            let sender = tokio::spawn(async move {
                let mut rest = &bytes[..];
                for cut in cuts.into_iter().cycle() {
                    let (piece, more) = rest.split_at(cut.min(rest.len()));
                    theirs.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                    rest = more;
                    if rest.is_empty() {
                        break;
                    }
                }
            });
            let mut channel = Channel::new(Box::new(ours), None);
            let mut read: Vec<Bytes> = Vec::new();
            while read.len() < payloads.len() {
                if by_rows {
                    let mut rows = Vec::new();
                    let batch = channel.read_rows(&mut rows).await.unwrap().unwrap();
                    read.extend(rows.iter().map(|&(at, len)| batch.slice(at as usize..(at + len) as usize)));
                } else {
                    read.push(channel.read().await.unwrap());
                }
            }
            sender.await.unwrap();
            read
        });
        prop_assert_eq!(read, payloads);
    }
}

/// What is written comes back, whole parts and their boundaries included.
#[tokio::test]
async fn long_packets_survive() {
    for len in [PART - 1, PART, PART + 1, 2 * PART - 1, 2 * PART, 2 * PART + 100] {
        let payload: Bytes = (0..len).map(|i| (i % 251) as u8).collect();
        let (ours, theirs) = duplex(1 << 20);
        let expected = payload.clone();
        let sender = tokio::spawn(async move {
            let mut channel = Channel::new(Box::new(ours), None);
            channel.write(&payload).await.unwrap();
            channel.write(b"next").await.unwrap();
        });
        let mut channel = Channel::new(Box::new(theirs), None);
        assert!(channel.read().await.unwrap() == expected, "{len}");
        assert_eq!(channel.read().await.unwrap(), &b"next"[..]);
        sender.await.unwrap();
    }
}

/// Whoever waits for a packet or for something else loses nothing when the other comes first.
#[tokio::test]
async fn a_cancelled_read_loses_nothing() {
    for len in [5usize, 1 << 16, 2 << 20, PART, PART + 5] {
        let payload: Bytes = (0..len).map(|i| (i % 251) as u8).collect();
        let bytes = conversation(0, &[&payload, b"next"]);
        let (ours, mut theirs) = duplex(1 << 20);
        let mut channel = Channel::new(Box::new(ours), None);
        let mut read = Vec::new();
        for piece in bytes.chunks(bytes.len() / 7 + 1) {
            let mut rest = piece;
            while !rest.is_empty() {
                tokio::select! {
                    biased;
                    packet = channel.read() => read.push(packet.unwrap()),
                    n = theirs.write(rest) => rest = &rest[n.unwrap()..],
                }
            }
        }
        while read.len() < 2 {
            read.push(channel.read().await.unwrap());
        }
        assert!(read[0] == payload && read[1] == b"next"[..], "{len}");
    }
}

/// Bytes that are close enough to the protocol to get far into it.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        Just(OK.to_vec()),
        Just(OLD_EOF.to_vec()),
        Just(column("a")),
        (0u8..4).prop_map(|n| vec![n]),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|mut p| {
            p.insert(0, 0xfe);
            p
        }),
        prop::collection::vec(any::<u8>(), 0..12).prop_map(|mut p| {
            p.insert(0, 0xff);
            p
        }),
        any::<(u8, [u8; 11])>().prop_map(|(_, p)| [&[0][..], &p].concat()),
    ];
    prop_oneof![
        4 => prop::collection::vec(payload, 0..8).prop_map(|payloads| {
            let refs: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
            conversation(1, &refs)
        }),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_greeting_is_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..60, with: u8) {
        let _ = Greeting::parse(&bytes);
        let mut mutated = greeting();
        let at = at % mutated.len();
        mutated[at] = with;
        let _ = Greeting::parse(&mutated);
    }

    #[test]
    fn any_sign_in_ends(mut bytes in hostile(), valid_start: bool) {
        runtime().block_on(async {
            if valid_start {
                // What follows is numbered from 1 on, and the sign-in goes on with 2.
                let mut all = conversation(0, &[&greeting()]);
                if let Some(seq) = bytes.get_mut(3) {
                    *seq = 2;
                }
                all.extend(bytes);
                bytes = all;
            }
            let (stream, _) = peer(bytes).await;
            let options = options().with_password(backup_core::Secret::new("p"));
            let _ = Connection::over(Box::new(stream), &options).await;
        });
    }

    #[test]
    fn any_answer_ends(bytes in hostile(), command in 0..4) {
        runtime().block_on(async {
            let mut connection = signed_in(&bytes).await;
            let _ = match command {
                0 => connection.query("SELECT 1").await.map(drop),
                1 => connection.query_values("SELECT 1").await.map(drop),
                2 => match connection.prepare("SELECT 1").await {
                    Ok(statement) if statement.params() == 0 => {
                        match connection.execute(&statement, &[]).await {
                            Ok(mut rows) => rows.next().await.map(drop),
                            Err(e) => Err(e),
                        }
                    }
                    result => result.map(drop),
                },
                _ => match connection.start_load("LOAD DATA").await {
                    Ok(mut load) => {
                        let _ = load.write(Bytes::from(vec![0; 1 << 17])).await;
                        load.finish().await.map(drop)
                    }
                    Err(e) => Err(e),
                },
            };
        });
    }
}

/// A compressed packet.
fn squeezed(payload: &[u8], raw_len: u32) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_le_bytes()[..3].to_vec();
    bytes.push(0);
    bytes.extend(&raw_len.to_le_bytes()[..3]);
    bytes.extend_from_slice(payload);
    bytes
}

/// What comes out of a compressed stream that a peer sends, and how it ends.
async fn unsqueezed(bytes: Vec<u8>, compression: Compression) -> (Vec<u8>, std::io::Result<()>) {
    let (stream, _) = peer(bytes).await;
    let mut stream = Compressed::new(Box::new(stream), compression).unwrap();
    let (mut all, mut some) = (Vec::new(), [0; 1000]);
    loop {
        match stream.read(&mut some).await {
            Ok(0) => return (all, Ok(())),
            Ok(n) => all.extend_from_slice(&some[..n]),
            Err(e) => return (all, Err(e)),
        }
    }
}

#[tokio::test]
async fn compressed_packets_that_lie_are_refused() {
    let zeros = vec![0; 1 << 20];
    for compression in [Compression::Zlib, Compression::Zstd(1)] {
        let payload = match compression {
            Compression::Zlib => {
                let mut encoder =
                    flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                std::io::Write::write_all(&mut encoder, &zeros).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd(level) => zstd::bulk::compress(&zeros, level.into()).unwrap(),
        };
        let honest = squeezed(&payload, 1 << 20);
        let plain = squeezed(b"as it is", 0);
        let both = [honest.clone(), plain.clone()].concat();
        let (all, end) = unsqueezed(both, compression).await;
        assert!(end.is_ok() && all.len() == (1 << 20) + 8 && all.ends_with(b"as it is"));
        for (lie, problem) in [
            // Longer and shorter than it says.
            (squeezed(&payload, (1 << 20) - 1), "compressed packet"),
            (squeezed(&payload, (1 << 20) + 1), "shorter than it says"),
            (squeezed(b"not compressed at all", 100), "cannot be decompressed"),
            (squeezed(&payload[..payload.len() / 2], 1 << 20), "compressed packet"),
            (squeezed(b"", 0), "empty"),
            (squeezed(b"", 5), "empty"),
            (honest[..honest.len() - 1].to_vec(), "unexpected end"),
            (honest[..6].to_vec(), "unexpected end"),
        ] {
            let (all, end) = unsqueezed([plain.clone(), lie].concat(), compression).await;
            assert_eq!(all, b"as it is");
            let e = end.unwrap_err().to_string();
            assert!(e.contains(problem), "{compression}: {e}");
        }
    }
}

proptest! {
    /// Whatever is written, in whatever pieces, comes out at the other end.
    #[test]
    fn compression_changes_nothing(
        pieces in prop::collection::vec((0..600_000usize, any::<u8>(), any::<bool>()), 1..6),
        zlib in any::<bool>(),
    ) {
        let compression = if zlib { Compression::Zlib } else { Compression::Zstd(1) };
        let sent: Vec<Vec<u8>> = pieces
            .iter()
            .map(|&(len, step, _)| (0..len).map(|i| (i * usize::from(step) / 7) as u8).collect())
            .collect();
        let all = sent.concat();
        let received = runtime().block_on(async {
            let (ours, theirs) = duplex(10_000);
            let mut write = Compressed::new(Box::new(ours), compression).unwrap();
            let flushes = pieces.iter().map(|&(_, _, flush)| flush).collect::<Vec<_>>();
            let writing = tokio::spawn(async move {
                for (piece, flush) in sent.iter().zip(flushes) {
                    write.write_all(piece).await.unwrap();
                    if flush {
                        write.flush().await.unwrap();
                    }
                }
                write.shutdown().await.unwrap();
            });
            let mut read = Compressed::new(Box::new(theirs), compression).unwrap();
            let mut received = Vec::new();
            read.read_to_end(&mut received).await.unwrap();
            writing.await.unwrap();
            received
        });
        prop_assert!(received == all);
    }

    #[test]
    fn no_compressed_bytes_bring_the_client_down(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        zlib in any::<bool>(),
    ) {
        let compression = if zlib { Compression::Zlib } else { Compression::Zstd(1) };
        let _ = runtime().block_on(unsqueezed(bytes, compression));
    }
}
