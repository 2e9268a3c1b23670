//! Donors that script every byte: what they say is taken or refused, and nothing else happens.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{
    ArtifactInfo, ArtifactName, ArtifactSink, ArtifactWriter, Context, Error, Layout, Result,
};
use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::descriptor::Locator;
use super::descriptor::tests::{descriptor, state};
use super::intake::Intake;
use super::rpc::Rpc;
use super::session::Session;
use super::spool::Spool;
use crate::connect::{ConnectOptions, SslMode};
use crate::wire::Connection;

/// Holds what was finished, by name.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<BTreeMap<ArtifactName, Vec<u8>>>>);

struct Item {
    shelf: Shelf,
    name: ArtifactName,
    bytes: Vec<u8>,
}

#[async_trait]
impl ArtifactSink for Shelf {
    async fn create(&self, name: ArtifactName, _: Layout) -> Result<Box<dyn ArtifactWriter>> {
        Ok(Box::new(Item { shelf: self.clone(), name, bytes: Vec::new() }))
    }
}

#[async_trait]
impl ArtifactWriter for Item {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }
    async fn finish(self: Box<Self>, attributes: serde_json::Value) -> Result<ArtifactInfo> {
        let Item { shelf, name, bytes } = *self;
        let info = ArtifactInfo {
            name: name.clone(),
            bytes: bytes.len() as u64,
            sha256: String::new(),
            layout: Layout::Stream,
            attributes,
        };
        match shelf.0.lock().unwrap().insert(name, bytes) {
            None => Ok(info),
            Some(_) => Err(Error::internal("two artifacts have one name")),
        }
    }
}

fn packet(seq: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_le_bytes()[..3].to_vec();
    bytes.push(seq);
    bytes.extend_from_slice(payload);
    bytes
}

/// A connection in clone mode, whose other end says all of `answers` at once, and then nothing more.
async fn line(answers: &[Vec<u8>]) -> Rpc {
    let mut greeting = b"\x0a9.7.4\0\x2a\0\0\0abcdefgh\0".to_vec();
    let [a, b, c, d] = 0x0008_a205u32.to_le_bytes();
    greeting.extend([a, b, 0x2d, 2, 0, c, d, 21]);
    greeting.extend([0; 10]);
    greeting.extend(b"ijklmnopqrst\0mysql_native_password\0");
    let mut bytes = packet(0, &greeting);
    bytes.extend(packet(2, &[0, 0, 0, 2, 0, 0, 0]));
    bytes.extend(answers.iter().flat_map(|answer| packet(0, answer)));
    let (ours, theirs) = duplex(1 << 16);
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(theirs);
        tokio::spawn(async move {
            let mut ignored = Vec::new();
            let _ = read.read_to_end(&mut ignored).await;
        });
        let _ = write.write_all(&bytes).await;
        let _ = write.shutdown().await;
    });
    let options = ConnectOptions::tcp("test", 3306, "u").with_ssl_mode(SslMode::Disabled);
    Rpc::over(Connection::over(Box::new(ours), &options).await.unwrap())
}

const COMPLETE: u8 = 99;

fn described(raw: &Bytes) -> Vec<u8> {
    // DATA_DESC, InnoDB, locator 0
    [&[2, 12, 0], &raw[..]].concat()
}

fn file(stage: u32, index: u32, name: &str, flags: u16, space: u32) -> Vec<u8> {
    described(&descriptor(4, |raw| {
        raw.put_u32(stage);
        raw.put_u64(32_768);
        raw.put_u64(32_768);
        raw.put_u32(space);
        raw.put_u32(4096);
        raw.put_u16(flags);
        raw.put_u32(7 + index);
        raw.put_u32(index);
        raw.put_u64(1 << 32 | 1);
        raw.put_u32(name.len() as u32 + 1);
        raw.put_slice(name.as_bytes());
        raw.put_u8(0);
    }))
}

fn data(stage: u32, chunk: u32, file: u32, offset: u64, said: u32, bytes: &[u8]) -> [Vec<u8>; 2] {
    let header = descriptor(5, |raw| {
        for n in [stage, 0, chunk, 1, file, said] {
            raw.put_u32(n);
        }
        raw.put_u64(offset);
        raw.put_u64(32_768);
    });
    [described(&header), [&[3], bytes].concat()]
}

/// What a donor says to the end, and what became of it.
async fn taken(answers: &[Vec<u8>]) -> (Result<()>, Shelf) {
    let main = line(answers).await;
    let acks = line(&vec![vec![COMPLETE]; 8]).await;
    let cx = Context::builder().build();
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::default();
    let spool = Spool::new(dir.path(), 1 << 20).unwrap();
    let mut intake = Intake::new(&cx, Arc::new(shelf.clone()), spool, 16_384, true);
    let mut session = Session::begun(Locator::of_version(), main, acks);
    let run = session.run(&cx, &mut intake);
    let outcome = tokio::time::timeout(Duration::from_secs(60), run).await;
    (outcome.expect("it ends"), shelf)
}

/// A whole clone of one file, without the farewell of the connections.
fn good() -> Vec<Vec<u8>> {
    let mut answers = vec![described(&state(1, 0)), described(&state(2, 1))];
    answers.push(file(2, 0, "./d/t.ibd", 0, 0));
    answers.extend(data(2, 1, 0, 0, 32_768, &[1; 32_768]));
    answers.push(described(&state(2, 0)));
    answers.push(described(&state(3, 1)));
    answers.extend(data(3, 1, 0, 16_384, 16_384, &[2; 16_384]));
    answers.push(described(&state(3, 0)));
    answers.push(described(&state(4, 1)));
    answers.push(described(&state(4, 0)));
    answers.push(described(&state(5, 1)));
    answers.push(vec![COMPLETE]);
    answers
}

#[tokio::test]
async fn a_good_donor_is_believed_and_every_lie_is_refused() {
    let (outcome, shelf) = taken(&good()).await;
    // Only the answers to our farewell are missing.
    assert!(outcome.unwrap_err().chain().contains("closed the connection"));
    let name: ArtifactName = "files/d/t.ibd".parse().unwrap();
    assert_eq!(shelf.0.lock().unwrap()[&name].len(), 32_768);

    let lies: [(usize, Vec<Vec<u8>>, &str); 18] = [
        (1, vec![described(&state(4, 1))], "out of order"),
        (2, vec![file(2, 0, "../../etc/passwd", 0, 0)], "names a file"),
        (2, vec![file(2, 0, "/a/../b", 0, 0)], "names a file"),
        (2, vec![file(5, 0, "./a", 0, 0)], "another state"),
        (2, vec![file(2, 0, "./a", 0, 15 << 1)], "no size"),
        (2, vec![file(2, 0, "./a", 4, 0)], "repository is not encrypted"),
        (2, vec![file(2, 0, "./a", 0, 1 << 13)], "repository is not encrypted"),
        (2, vec![file(2, 0, "./a", 32, 0)], "cut short"),
        (3, data(2, 1, 9, 0, 1, &[1]).to_vec(), "did not name"),
        (3, data(2, 1, 0, 0, 2, &[1]).to_vec(), "not what was announced"),
        (3, data(2, 41, 0, 0, 1, &[1]).to_vec(), "no chunk"),
        (3, data(2, 1, 0, u64::MAX, 1, &[1]).to_vec(), "beyond"),
        (3, data(2, 1, 0, 32_768, 1, &[1]).to_vec(), "beyond the end"),
        (3, data(2, 1, 0, 32_760, 9, &[1; 9]).to_vec(), "beyond the end"),
        (7, data(3, 1, 0, 1 << 40, 1, &[1]).to_vec(), "beyond the end"),
        (3, data(3, 1, 0, 0, 1, &[1]).to_vec(), "not what was announced"),
        (3, vec![vec![3, 1, 2]], "unannounced"),
        (5, vec![vec![COMPLETE]], "before everything"),
    ];
    for (at, lie, said) in lies {
        let mut answers = good();
        answers.truncate(at);
        answers.extend(lie);
        let e = taken(&answers).await.0.unwrap_err();
        assert!(e.chain().contains(said), "{said}: {}", e.chain());
        assert_eq!(e.kind(), backup_core::ErrorKind::Source, "{said}");
    }
}

#[tokio::test]
async fn an_endless_stream_of_pages_fills_no_disk() {
    let mut answers = good();
    answers.truncate(6 + 1);
    for _ in 0..100 {
        answers.extend(data(3, 1, 0, 16_384, 16_384, &[2; 16_384]));
    }
    let e = taken(&answers).await.0.unwrap_err();
    assert_eq!(e.kind(), backup_core::ErrorKind::Space, "{}", e.chain());
}

#[tokio::test]
async fn the_donors_own_error_is_kept() {
    let mut answers = good();
    answers.truncate(4);
    answers.push(
        [&[100][..], &3634u32.to_le_bytes(), b"Too many concurrent clone operations."].concat(),
    );
    let e = taken(&answers).await.0.unwrap_err();
    assert_eq!(e.server().unwrap().code, 3634);
    assert!(e.report().contains("Too many concurrent"), "{}", e.report());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn changed_streams_end_and_leave_the_names_inside(
        changes in prop::collection::vec((0usize..14, 0usize..200, any::<u8>(), 0u8..5), 1..6)
    ) {
        let mut answers = good();
        for (which, at, byte, how) in changes {
            let which = which % answers.len();
            let answer = &mut answers[which];
            let at = at % answer.len().max(1);
            match how {
                0 if !answer.is_empty() => answer[at] ^= byte,
                1 => answer.truncate(at),
                2 => answer.insert(at.min(answer.len()), byte),
                3 => { let again = answer.clone(); answers.insert(which, again); }
                _ => { answers.remove(which); }
            }
            if answers.is_empty() {
                answers.push(vec![byte]);
            }
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (outcome, shelf) = runtime.block_on(taken(&answers));
        prop_assert!(outcome.is_err());
        for name in shelf.0.lock().unwrap().keys() {
            prop_assert!(name.parts().iter().all(|part| part != ".." && part != "."));
        }
    }
}

#[test]
fn descriptors_are_whole() {
    let mut cut = BytesMut::from(&state(2, 1)[..]);
    cut.truncate(30);
    assert!(super::descriptor::Descriptor::parse(&cut.freeze()).is_err());
}
