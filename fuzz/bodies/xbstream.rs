//! Streams of files: any bytes are read or refused, no path leads elsewhere, and nothing is given out
//! that did not come.

use std::collections::BTreeMap;

use backup_drivers::xbstream::{Dialect, Event, StreamReader, StreamWriter};
use futures::executor::block_on;

pub fn run(bytes: &[u8]) {
    for dialect in [Dialect::MariaDb, Dialect::XtraBackup] {
        block_on(read(bytes, dialect));
    }
}

async fn read(bytes: &[u8], dialect: Dialect) {
    let mut reader = StreamReader::new(bytes, dialect);
    let mut lengths: BTreeMap<String, u64> = BTreeMap::new();
    let mut given = 0;
    while let Ok(Some(event)) = reader.next().await {
        match event {
            Event::Begin { path } => {
                let safe = |part: &str| !part.is_empty() && part != "." && part != "..";
                assert!(path.split('/').all(safe), "{path:?}");
                // Only MariaDB's tool begins one anew.
                let before = lengths.insert(path.to_string(), 0);
                assert!(before.is_none() || dialect == Dialect::MariaDb);
            }
            Event::Rename { from, to } => {
                let safe = |part: &str| !part.is_empty() && part != "." && part != "..";
                assert!(to.split('/').all(safe), "{to:?}");
                let length = lengths.remove(&*from).expect("it began");
                lengths.insert(to.to_string(), length);
            }
            Event::Remove { paths } => {
                for path in paths {
                    lengths.remove(&*path).expect("it began");
                }
            }
            Event::Data { path, bytes } => {
                assert!(!bytes.is_empty());
                given += bytes.len();
                *lengths.get_mut(&*path).expect("it began") += bytes.len() as u64;
            }
            Event::Zeros { path, length } => {
                *lengths.get_mut(&*path).expect("it began") += length;
            }
            Event::Patch { path, offset, bytes } => {
                given += bytes.len();
                assert!(offset + bytes.len() as u64 <= lengths[&*path]);
            }
            Event::End { path, length } => assert_eq!(lengths[&*path], length),
        }
    }
    assert!(given <= bytes.len());
}

pub fn seeds() -> Vec<Vec<u8>> {
    let written = block_on(async {
        let mut writer = StreamWriter::new(Vec::new());
        writer.write("ibdata1", b"pages").await?;
        writer.write("shop/t.ibd", b"more").await?;
        writer.write("ibdata1", b"and pages").await?;
        writer.end("ibdata1").await?;
        writer.end("shop/t.ibd").await?;
        writer.end("empty").await?;
        writer.finish().await
    });
    let written = written.expect("a stream into memory");
    let mut seek = written.clone();
    seek.extend_from_slice(b"XBSTCK01\0P\x01\0\0\0x\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    seek.extend(crc(b"y"));
    seek.extend_from_slice(b"yXBSTCK01\0S\x01\0\0\0x\0\0\0\0\0\0\0\0XBSTCK01\0E\x01\0\0\0x");
    let mut sparse = b"XBSTCK01\0S\x01\0\0\0x\x01\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    sparse.extend(crc(b"\x04\0\0\0\x01\0\0\0y"));
    sparse.extend_from_slice(b"\x04\0\0\0\x01\0\0\0yXBSTCK01\0E\x01\0\0\0x");
    let mut changes = written.clone();
    changes.extend_from_slice(b"XBSTCK01\0R\x05\0\0\0empty\x06\0\0\0shop/e");
    changes.extend_from_slice(b"XBSTCK01\x02E\x07\0\0\0ibdata1XBSTCK01\0D\x06\0\0\0shop/*");
    vec![written, seek, sparse, changes]
}

/// CRC-32, bit by bit.
fn crc(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
        }
    }
    (!crc).to_le_bytes()
}
