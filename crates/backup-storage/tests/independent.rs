//! A second reader, written from `docs/format.md` alone: it uses nothing of the crate, only the bytes
//! in the directory. If it fails, the page is wrong or the format has changed.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use backup_core::{Repository, select};
use backup_storage::format::Compression;
use backup_storage::{Repo, RepoUrl, RepositoryOptions};
use common::{back_up, context, options, restore_all, samples};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

struct Frame {
    kind: u8,
    codec: u8,
    offset: usize,
    length: usize,
    check: Vec<u8>,
    content: Vec<u8>,
}

/// Sections 3.1 to 3.3.
fn frames(root: &Path, repository: &str, path: &str, kind: u8) -> Vec<Frame> {
    let bytes = std::fs::read(root.join(path)).unwrap();
    let mut place = b"HOLDFAST".to_vec();
    place.extend_from_slice(repository.as_bytes());
    place.extend_from_slice(&[path.len() as u8, (path.len() >> 8) as u8]);
    place.extend_from_slice(path.as_bytes());

    assert_eq!(bytes[..8], *b"HOLDFAST");
    assert_eq!(bytes[8..12], [kind, 1, 0, 0]);
    let crc = crc32fast::hash(&[&place, &bytes[..12]].concat());
    assert_eq!(number(&bytes[12..16]), u64::from(crc));

    let mut found = Vec::new();
    let mut offset = 16;
    while offset < bytes.len() {
        let header = &bytes[offset..offset + 80];
        assert_eq!(header[..5], *b"HFF1\x01");
        assert_eq!(header[7..12], [0; 5]);
        assert_eq!(header[20..60], [0; 40]);
        assert_eq!(number(&header[76..]), u64::from(crc32fast::hash(&header[..76])));
        let raw_length = number(&header[12..16]) as usize;
        let length = 80 + number(&header[16..20]) as usize;
        let payload = &bytes[offset + 80..offset + length];
        let covered = [&place, &(offset as u64).to_le_bytes()[..], &header[..60], payload].concat();
        assert_eq!(header[60..76], Sha256::digest(&covered)[..16]);
        let all = |mut from: Box<dyn Read + '_>| {
            let mut content = Vec::new();
            from.read_to_end(&mut content).unwrap();
            content
        };
        let content = match header[6] {
            0 => payload.to_vec(),
            1 => zstd::decode_all(payload).unwrap(),
            2 => lz4_flex::block::decompress(payload, raw_length).unwrap(),
            3 => all(Box::new(flate2::read::GzDecoder::new(payload))),
            4 => all(Box::new(liblzma::read::XzDecoder::new(payload))),
            codec => panic!("codec {codec}"),
        };
        assert_eq!(content.len(), raw_length);
        assert!(header[6] == 0 || payload.len() < raw_length);
        let check = header[60..76].to_vec();
        found.push(Frame { kind: header[5], codec: header[6], offset, length, check, content });
        offset += length;
    }
    found
}

/// Section 6.
fn lines(frames: &[Frame]) -> Vec<String> {
    let catalog = frames.iter().filter(|f| f.kind == 2);
    let mut lines: Vec<String> = catalog
        .flat_map(|f| str::from_utf8(&f.content).unwrap().split_inclusive('\n'))
        .map(|line| line.strip_suffix('\n').unwrap().to_owned())
        .collect();
    lines.sort();
    lines
}

/// Sections 4 and 7.
fn check_end(frames: &[Frame]) {
    let (end, before) = frames.split_last().unwrap();
    assert_eq!((end.kind, end.length), (5, 96));
    let first = frames.iter().find(|f| f.kind != 1 && f.kind != 6).unwrap();
    assert_eq!(number(&end.content[..8]), first.offset as u64);
    assert_eq!(number(&end.content[8..12]), before.len() as u64);
    assert_eq!(end.content[12..], [0; 4]);
}

/// Gives the artifacts, and the codecs of their frames.
fn restore(root: &Path) -> (BTreeMap<String, Vec<u8>>, BTreeSet<u8>) {
    // Section 2.
    let text = std::fs::read_to_string(root.join("holdfast.json")).unwrap();
    let (covered, tail) = text.split_at(text.find("  \"check\": \"").unwrap());
    assert_eq!(tail, format!("  \"check\": \"{}\"\n}}\n", hex(&Sha256::digest(covered))));
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["format"], 1);
    let repository = config["repository"].as_str().unwrap();

    let backups = root.join("clusters/shop/backups");
    let id = std::fs::read_dir(backups).unwrap().next().unwrap().unwrap().file_name();
    let directory = format!("clusters/shop/backups/{}", id.to_str().unwrap());

    // Section 8.
    let path = format!("{directory}/manifest");
    let [manifest] = &frames(root, repository, &path, 3)[..] else { panic!("one frame") };
    assert_eq!(manifest.kind, 3);
    let manifest: Value = serde_json::from_slice(&manifest.content).unwrap();
    assert_eq!(manifest["format"], 1);
    assert_eq!(manifest["backup"], id.to_str().unwrap());
    let object = |digest: &Value, kind| {
        let path = format!("{directory}/{}", digest["name"].as_str().unwrap());
        let bytes = std::fs::read(root.join(&path)).unwrap();
        assert_eq!(bytes.len() as u64, digest["bytes"].as_u64().unwrap());
        assert_eq!(hex(&Sha256::digest(&bytes)), digest["sha256"].as_str().unwrap());
        let found = frames(root, repository, &path, kind);
        check_end(&found);
        found
    };
    let index = object(&manifest["index"], 2);
    let packs: Vec<Vec<Frame>> =
        manifest["packs"].as_array().unwrap().iter().map(|p| object(p, 1)).collect();

    // Sections 6 and 7.
    let entries = lines(&index);
    let mut again: Vec<String> = packs.iter().flat_map(|frames| lines(frames)).collect();
    again.sort();
    assert_eq!(entries, again);
    let mut artifacts: BTreeMap<u64, BTreeMap<u64, Value>> = BTreeMap::new();
    for line in entries {
        let entry: Value = serde_json::from_str(&line).unwrap();
        let (id, seq) = (entry["id"].as_u64().unwrap(), entry["seq"].as_u64().unwrap());
        artifacts.entry(id).or_default().insert(seq, entry);
    }

    // Section 15.
    let mut restored = BTreeMap::new();
    for parts in artifacts.into_values() {
        let mut bytes = Vec::new();
        let (last, end) = parts.last_key_value().unwrap();
        assert_eq!(*last, parts.len() as u64 - 1);
        for extent in parts.values().flat_map(|p| p["extents"].as_array().unwrap()) {
            let n = |i: usize| extent[i].as_u64().unwrap() as usize;
            assert_eq!(n(0), 0);
            let frame = packs[n(1)].iter().find(|f| f.offset == n(2)).unwrap();
            assert_eq!((frame.kind, frame.length), (1, n(3)));
            assert_eq!(extent[6].as_str().unwrap(), hex(&frame.check[..8]));
            bytes.extend_from_slice(&frame.content[n(4)..n(4) + n(5)]);
        }
        let about = &end["end"];
        assert_eq!(about["bytes"].as_u64().unwrap(), bytes.len() as u64);
        assert_eq!(about["sha256"].as_str().unwrap(), hex(&Sha256::digest(&bytes)));
        assert_eq!(about["attributes"]["sample"], end["name"]);
        restored.insert(end["name"].as_str().unwrap().to_owned(), bytes);
    }
    assert_eq!(manifest["totals"]["artifacts"], restored.len());
    let data = packs.iter().flatten().filter(|frame| frame.kind == 1);
    (restored, data.map(|frame| frame.codec).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_describes_the_bytes() {
    let cx = context();
    let samples = samples();
    let expected: BTreeMap<String, Vec<u8>> =
        samples.iter().map(|s| (s.name.clone(), s.content())).collect();
    for (compression, codecs) in [
        (Compression::Zstd(1), &[0, 1][..]),
        (Compression::Auto, &[0, 1]),
        (Compression::None, &[0]),
        (Compression::Lz4, &[0, 2]),
        (Compression::Gzip(6), &[0, 3]),
        (Compression::Xz(6), &[0, 4]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let options = RepositoryOptions { compression, ..options() };
        let repo = Repo::init(&cx, &RepoUrl::from(dir.path()), options).await.unwrap();
        back_up(&cx, &repo, &samples).await.unwrap();
        let (restored, used) = restore(dir.path());
        assert!(restored == expected, "{compression}: the bytes differ");
        assert_eq!(used.into_iter().collect::<Vec<_>>(), codecs, "{compression}");
        // And as everybody reads it.
        let listed = repo.backups(&cx, None).await.unwrap();
        restore_all(&cx, &repo, &select(listed, "latest").unwrap(), &samples).await.unwrap();
    }
}
