//! Streams of files: what the tools write is read, what is written the tools read, and every way in which
//! a stream can be wrong is an error, also those that the tools themselves let pass.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;

use backup_core::{ErrorKind, Result};
use backup_drivers::xbstream::{Dialect, Event, StreamReader, StreamWriter};

/// A chunk by hand.
fn chunk(kind: u8, flags: u8, path: &str, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"XBSTCK01".to_vec();
    bytes.extend([flags, kind]);
    bytes.extend((path.len() as u32).to_le_bytes());
    bytes.extend(path.as_bytes());
    bytes.extend(rest);
    bytes
}

fn data(path: &str, offset: u64, payload: &[u8]) -> Vec<u8> {
    let mut rest = (payload.len() as u64).to_le_bytes().to_vec();
    rest.extend(offset.to_le_bytes());
    rest.extend(crc32fast::hash(payload).to_le_bytes());
    rest.extend(payload);
    chunk(b'P', 0, path, &rest)
}

fn end(path: &str) -> Vec<u8> {
    chunk(b'E', 0, path, b"")
}

fn renamed(path: &str, to: &str) -> Vec<u8> {
    chunk(b'R', 0, path, &[&(to.len() as u32).to_le_bytes()[..], to.as_bytes()].concat())
}

fn sparse(path: &str, offset: u64, map: &[(u32, u32)], payload: &[u8]) -> Vec<u8> {
    let entries: Vec<u8> = map
        .iter()
        .flat_map(|(skip, len)| [skip.to_le_bytes(), len.to_le_bytes()].concat())
        .collect();
    let mut rest = (map.len() as u32).to_le_bytes().to_vec();
    rest.extend((payload.len() as u64).to_le_bytes());
    rest.extend(offset.to_le_bytes());
    rest.extend(crc32fast::hash(&[&entries, payload].concat()).to_le_bytes());
    rest.extend(entries);
    rest.extend(payload);
    chunk(b'S', 0, path, &rest)
}

/// The files of a stream.
async fn read(stream: &[u8], dialect: Dialect) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut reader = StreamReader::new(stream, dialect);
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    while let Some(event) = reader.next().await? {
        match event {
            Event::Begin { path } => drop(files.insert(path.to_string(), Vec::new())),
            Event::Rename { from, to } => {
                let file = files.remove(&*from).unwrap();
                files.insert(to.to_string(), file);
            }
            Event::Remove { paths } => {
                paths.iter().for_each(|path| drop(files.remove(&**path).unwrap()));
            }
            Event::Data { path, bytes } => files.get_mut(&*path).unwrap().extend_from_slice(&bytes),
            Event::Zeros { path, length } => {
                let file = files.get_mut(&*path).unwrap();
                file.resize(file.len() + length as usize, 0);
            }
            Event::Patch { path, offset, bytes } => {
                let at = offset as usize;
                files.get_mut(&*path).unwrap()[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            Event::End { path, length } => assert_eq!(files[&*path].len() as u64, length),
        }
    }
    assert_eq!(reader.position(), stream.len() as u64);
    assert_eq!(reader.files(), files.len());
    Ok(files)
}

async fn refused(stream: &[u8], dialect: Dialect, why: &str) {
    let error = read(stream, dialect).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.report().contains(why), "{}", error.report());
}

#[tokio::test]
async fn chunks_of_several_files_interleave() {
    let stream = [
        data("a", 0, b"one "),
        data("./shop/b.ibd", 0, b"pages"),
        data("a", 4, b"two"),
        end("empty"),
        end("shop/b.ibd"),
        chunk(b'?', 1, "unknown", &data("x", 0, b"left out")[15..]),
        end("a"),
    ]
    .concat();
    for dialect in [Dialect::MariaDb, Dialect::XtraBackup] {
        let files = read(&stream, dialect).await.unwrap();
        assert_eq!(files["a"], b"one two");
        assert_eq!(files["shop/b.ibd"], b"pages");
        assert_eq!(files["empty"], b"");
        assert_eq!(files.len(), 3);
    }
}

#[tokio::test]
async fn the_two_meanings_of_s() {
    let seek = |offset: u64| chunk(b'S', 0, "aria_log.00000001", &offset.to_le_bytes());
    let log = "aria_log.00000001";
    let stream = [
        data(log, 0, b"head____body"),
        seek(4),
        data(log, 4, b"lsn."),
        seek(12),
        data(log, 12, b"more"),
        seek(10),
        data(log, 10, b"DYMOREandmore"),
        end(log),
    ]
    .concat();
    let files = read(&stream, Dialect::MariaDb).await.unwrap();
    assert_eq!(files[log], b"headlsn.boDYMOREandmore");
    refused(
        &[data(log, 0, b"head"), seek(5), end(log)].concat(),
        Dialect::MariaDb,
        "goes on from 5",
    )
    .await;

    let stream = [
        data("t.ibd", 0, b"page"),
        sparse("t.ibd", 4, &[(4, 4), (8, 2), (2, 0), (3, 0)], b"fiveei"),
        data("t.ibd", 27, b"!"),
        end("t.ibd"),
    ]
    .concat();
    let files = read(&stream, Dialect::XtraBackup).await.unwrap();
    assert_eq!(files["t.ibd"], b"page\0\0\0\0five\0\0\0\0\0\0\0\0ei\0\0\0\0\0!".to_vec());
    // Read as the other dialect it is no stream.
    assert!(read(&stream, Dialect::MariaDb).await.is_err());
}

/// What MariaDB's tool writes when definitions change while it reads.
#[tokio::test]
async fn files_come_again_get_other_names_and_are_taken_back() {
    let again = |path: &str, offset: u64, bytes: &[u8]| {
        let mut chunk = data(path, offset, bytes);
        chunk[8] = 2;
        chunk
    };
    let stream = [
        data("db/t.MYD", 0, b"old rows"),
        end("db/t.MYD"),
        again("db/t.MYD", 0, b"new"),
        again("db/t.MYD", 3, b" row"),
        chunk(b'E', 2, "db/t.MYD", b""),
        // One that did not come before says so, too.
        again("db/u.MYD", 0, b"u"),
        end("db/u.MYD"),
        data("db/v.MYD", 0, b"v"),
        end("db/v.MYD"),
        renamed("db/u.MYD", "db/v.MYD"),
        renamed("db/never.MYD", "db/w.MYD"),
        end("gone/db.opt"),
        end("gone2/db.opt"),
        chunk(b'D', 0, "gone", b""),
        chunk(b'D', 0, "never", b""),
        end("db/p#P#p0.MYD"),
        end("db/p#P#p1.MYI"),
        end("db/p.frm"),
        chunk(b'D', 0, "db/p#P#*", b""),
        again("db/p#P#p0.MYD", 0, b"p0"),
        chunk(b'E', 2, "db/p#P#p0.MYD", b""),
    ]
    .concat();
    let files = read(&stream, Dialect::MariaDb).await.unwrap();
    let expected: [(&str, &[u8]); 5] = [
        ("db/p#P#p0.MYD", b"p0"),
        ("db/p.frm", b""),
        ("db/t.MYD", b"new row"),
        ("db/v.MYD", b"u"),
        ("gone2/db.opt", b""),
    ];
    let found = files.iter().map(|(path, content)| (path.as_str(), content.as_slice()));
    assert!(found.eq(expected), "{files:?}");
    // The other tool means something else by the flag, and has no such chunks.
    let other = [data("a", 0, b"x"), end("a"), again("a", 0, b"y"), end("a")].concat();
    refused(&other, Dialect::XtraBackup, "a comes a second time").await;
    refused(&renamed("a", "b"), Dialect::XtraBackup, "unknown type `R`").await;
}

#[tokio::test]
async fn what_is_wrong_with_a_stream_is_told() {
    let both = [Dialect::MariaDb, Dialect::XtraBackup];
    let mut flipped = [data("a", 0, b"payload"), end("a")].concat();
    let at = flipped.len() - 20;
    flipped[at] ^= 1;
    for dialect in both {
        refused(b"", dialect, "it is empty").await;
        refused(&data("a", 0, b"x"), dialect, "before the end of a, of which 1 bytes came").await;
        refused(&flipped, dialect, "checksum of a chunk of a").await;
        refused(&[end("a"), end("a")].concat(), dialect, "a second time").await;
        refused(&[end("a"), data("a", 0, b"x")].concat(), dialect, "a second time").await;
        refused(&[data("a", 1, b"x"), end("a")].concat(), dialect, "where 0 is due").await;
        refused(&chunk(b'?', 0, "a", b""), dialect, "unknown type `?`").await;
        refused(&chunk(b'P', 4, "a", b""), dialect, "unknown flags 0x04").await;
        refused(b"XBSTCK02\0E\x01\0\0\0a", dialect, "no chunk at byte 0").await;
        refused(&chunk(b'E', 0, &"a".repeat(512), b""), dialect, "a path of 512 bytes").await;
        for path in
            ["/etc/passwd", "../x", "a/../../x", "a//b", "", ".", "a/.", "a\0b", "..", "a\\b"]
        {
            refused(&end(path), dialect, "leads elsewhere").await;
        }
        // Hostile lengths end where the stream does and are not believed before.
        for length in [u64::MAX, 1 << 40] {
            let mut bytes = data("a", 0, b"");
            let at = bytes.len() - 20;
            bytes[at..at + 8].copy_from_slice(&length.to_le_bytes());
            refused(&bytes, dialect, "inside a chunk of a").await;
        }
    }
    for open in ["a", "*", "a*"] {
        let stream = [data("a", 0, b"x"), chunk(b'D', 0, open, b""), end("a")].concat();
        refused(&stream, Dialect::MariaDb, "a is taken back before its end").await;
    }
    let moved = renamed("a", "b");
    for open in ["a", "b"] {
        let stream = [data(open, 0, b"x"), moved.clone(), end(open)].concat();
        refused(&stream, Dialect::MariaDb, "gets another name before its end").await;
    }
    refused(&renamed("a", "../b"), Dialect::MariaDb, "leads elsewhere").await;
    refused(&renamed("a", &"b".repeat(512)), Dialect::MariaDb, "a path of 512 bytes").await;
    // Only what says so comes again.
    refused(&[end("a"), moved, end("b")].concat(), Dialect::MariaDb, "b comes a second time").await;
    let map = chunk(b'S', 0, "a", &[&u32::MAX.to_le_bytes()[..], &[0; 20]].concat());
    refused(&map, Dialect::XtraBackup, "a map of 4294967295 entries").await;
    let uneven = sparse("a", 0, &[(0, 5)], b"four");
    refused(&uneven, Dialect::XtraBackup, "is of 5 bytes, the chunk of 4").await;
}

#[tokio::test]
async fn a_stream_that_was_cut_anywhere_is_refused() {
    let stream = [data("a", 0, b"one"), data("b", 0, b"other"), end("a"), end("b")].concat();
    read(&stream, Dialect::MariaDb).await.unwrap();
    // After the end of "a" nothing is missing but the file "b".
    for cut in 0..stream.len() {
        assert!(read(&stream[..cut], Dialect::MariaDb).await.is_err(), "{cut}");
    }
}

#[tokio::test]
async fn a_flipped_bit_is_seen_or_does_no_harm() {
    let stream = [data("a", 0, b"payload"), end("a"), end("b")].concat();
    let good = read(&stream, Dialect::XtraBackup).await.unwrap();
    for at in 0..stream.len() {
        for bit in 0..8 {
            let mut bytes = stream.clone();
            bytes[at] ^= 1 << bit;
            if let Ok(files) = read(&bytes, Dialect::XtraBackup).await {
                // Only names and flags have no checksum in this format.
                assert!(files.values().any(|file| file == &good["a"]), "{at} {bit}: {files:?}");
            }
        }
    }
}

fn mbstream(name: &str) -> std::process::Command {
    xtask::servers::install(name).unwrap().command("mbstream").unwrap()
}

#[tokio::test]
async fn mbstream_reads_what_is_written_and_writes_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let big: Vec<u8> =
        (0..25_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let files =
        [("shop/big.ibd", &big[..]), ("empty", b""), ("mariadb_backup_info", b"uuid = 1\n")];
    let mut writer = StreamWriter::new(Vec::new());
    let (first, second) = big.split_at(11_000_001);
    writer.write("shop/big.ibd", first).await.unwrap();
    writer.write("mariadb_backup_info", files[2].1).await.unwrap();
    writer.write("shop/big.ibd", second).await.unwrap();
    for (path, _) in files {
        writer.end(path).await.unwrap();
        assert!(writer.write(path, b"more").await.is_err());
    }
    let stream = writer.finish().await.unwrap();

    let mut child = mbstream("mariadb-10.11")
        .arg("-x")
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&stream).unwrap();
    assert!(child.wait().unwrap().success());
    for (path, bytes) in files {
        assert!(std::fs::read(dir.path().join(path)).unwrap() == bytes, "{path}");
    }

    let output = mbstream("mariadb-11.8")
        .args(["-c", "shop/big.ibd", "empty", "mariadb_backup_info"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success());
    let read = read(&output.stdout, Dialect::MariaDb).await.unwrap();
    assert_eq!(read.len(), 3);
    for (path, bytes) in files {
        assert!(read[path] == bytes, "{path}");
    }
}

/// Why the reader is stricter: the tool takes these without a word, as was seen with 10.11 and 11.8.
#[tokio::test]
async fn mbstream_lets_pass_what_is_refused_here() {
    for stream in [
        data("a", 0, b"no end"),
        Vec::new(),
        [data("a", 0, b"one"), end("a"), data("a", 0, b"two"), end("a")].concat(),
    ] {
        assert!(read(&stream, Dialect::MariaDb).await.is_err());
        let dir = tempfile::tempdir().unwrap();
        let mut child = mbstream("mariadb-11.8")
            .arg("-x")
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&stream).unwrap();
        assert!(child.wait().unwrap().success());
    }
}
