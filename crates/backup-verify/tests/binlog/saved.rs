//! What MHA saved of a dead server goes to the archive, as far as it is not there.

use std::path::{Path, PathBuf};

use backup_core::{BinlogChain, ErrorKind, ReplayTarget, Result, SegmentInfo};
use backup_drivers::binlog::event::{Event, Format, Header};
use backup_drivers::binlog::{Received, RescueOptions, rescue};
use rstest::rstest;

use crate::failover::{catch_up, follow};
use crate::replay::{beginning, content, replay, route};
use crate::server::{Server, WORK};
use crate::store::{Store, cluster};

/// Where the events behind the head of a binlog begin, and the ROTATE among those of the head:
/// `parse_init_headers` of MHA::BinlogHeaderParser.
fn init_headers(binlog: &[u8]) -> (usize, Vec<u8>) {
    const ROTATE: u8 = 4;
    const FORMAT_DESCRIPTION: u8 = 15;
    const PREVIOUS_GTIDS: u8 = 35;
    let (mut at, mut rotates) = (4, Vec::new());
    while at < binlog.len() {
        let header = Header::parse(&binlog[at..]).unwrap();
        let end = at + header.len as usize;
        match header.kind {
            ROTATE => rotates.extend(&binlog[at..end]),
            FORMAT_DESCRIPTION | PREVIOUS_GTIDS => {}
            _ => break,
        }
        at = end;
    }
    (at, rotates)
}

/// What `save_binary_logs --command=save` of mha4mysql-node 0.58 writes of these binlogs, from a position of the first
/// one on: `concat_all_binlogs_from` of MHA::BinlogManager.
pub(crate) fn save_binary_logs(directory: &Path, files: &[String], from: usize) -> Vec<u8> {
    let mut saved = Vec::new();
    for (n, file) in files.iter().enumerate() {
        let binlog = std::fs::read(directory.join(file)).unwrap();
        let (begin, rotates) = init_headers(&binlog);
        let begin = if n == 0 {
            saved.extend(&binlog[..begin]);
            begin.max(from)
        } else {
            saved.extend(&rotates);
            begin
        };
        if begin < binlog.len() {
            saved.extend(&binlog[begin..]);
        }
    }
    saved
}

struct Dead {
    server: Server,
    store: Store,
    files: Vec<String>,
}

impl Dead {
    fn directory(&self) -> &Path {
        self.server.0.datadir()
    }

    /// Saved from these binlogs, from a position of the first one on.
    fn save(&self, first: &str, from: usize) -> PathBuf {
        let at = self.files.iter().position(|file| file == first).unwrap();
        self.keep(&save_binary_logs(self.directory(), &self.files[at..], from))
    }

    fn keep(&self, saved: &[u8]) -> PathBuf {
        let path = self.store.path("saved_master_binlog_from_10.0.0.1_3306_20261128143000.binlog");
        std::fs::write(&path, saved).unwrap();
        path
    }

    async fn rescue(&self, path: &Path) -> Result<Received> {
        self.rescue_with(path, RescueOptions::default()).await
    }

    async fn rescue_with(&self, path: &Path, options: RescueOptions) -> Result<Received> {
        rescue(&self.store.cx, &self.store.repo, &cluster(), path, options).await
    }

    /// Every archived piece is what the server has there; gives them.
    async fn expect_bytes(&self) -> Vec<SegmentInfo> {
        let segments = self.store.segments().await;
        for info in &segments {
            let mut there = std::fs::read(self.directory().join(&info.range.file)).unwrap();
            there[4 + 17] &= !1;
            let archived = backup_core::SegmentStore::read(&self.store.repo, &self.store.cx, info);
            let archived = archived.await.unwrap();
            let (start, end) = (info.range.start as usize, info.range.end as usize);
            assert!(archived == there[start..end], "{}", info.range);
        }
        segments
    }
}

/// The place in a binlog where so many events behind its head begin.
fn place(binlog: &[u8], events: usize) -> usize {
    let (mut at, _) = init_headers(binlog);
    for _ in 0..events {
        at += Header::parse(&binlog[at..]).unwrap().len as usize;
    }
    at
}

/// A server that has three binlogs with work in them, and dies; the first is archived, and some of the second.
async fn dead(name: &str, options: &[(&str, &str)]) -> (Dead, Vec<(String, Option<u64>)>) {
    let server = Server::start(name, |builder| {
        options.iter().fold(builder, |builder, (name, value)| builder.option(*name, *value))
    })
    .await;
    let store = Store::new().await;
    server.run(&WORK).await;
    store.archive(&server).await;
    server.run(&["DROP DATABASE d"]).await;
    server.run(&WORK).await;
    server.run(&["INSERT INTO d.t (a) VALUES ('the last one')"]).await;
    let there = content(&server).await;
    let files = server.binlogs().await;
    let mut dead = Dead { server, store, files };
    dead.server.0.kill();
    assert_eq!(dead.files.len(), 3);
    (dead, there)
}

async fn expect_all(
    dead: &Dead,
    name: &str,
    options: &[(&str, &str)],
    there: &[(String, Option<u64>)],
) {
    let chain = BinlogChain::new(dead.store.segments().await);
    assert!(chain.gaps().is_empty(), "{:?}", chain.gaps());
    let target = Server::start(name, |builder| {
        options.iter().fold(builder, |builder, (name, value)| builder.option(*name, *value))
    })
    .await;
    let mut base = beginning(&target, "");
    base.position.file = Some(dead.files[0].clone());
    base.position.offset = Some(4);
    let way = route(&dead.store, &base, &ReplayTarget::End, &[]).await;
    replay(&dead.store, &target, way.unwrap_or_else(|e| panic!("{}", e.report()))).await;
    assert_eq!(content(&target).await, there);
}

#[rstest]
#[case("mysql-9.7", &[])]
#[case("mysql-9.7", &[("gtid_mode", "OFF_PERMISSIVE")])]
#[case("mysql-9.7", &[("binlog_transaction_compression", "ON"), ("binlog_checksum", "NONE")])]
#[case("mariadb-10.11", &[])]
#[case("mariadb-10.11", &[("binlog_checksum", "CRC32")])]
#[case("mariadb-11.8", &[("binlog_checksum", "CRC32")])]
#[tokio::test]
async fn what_mha_saved_goes_on_where_the_archive_ends(
    #[case] name: &str,
    #[case] options: &[(&str, &str)],
) {
    let (dead, there) = dead(name, options).await;
    let archived = dead.store.segments().await;
    let tip = archived.last().unwrap().clone();
    assert_eq!(tip.range.file, dead.files[1]);
    // The furthest replica had less than the archive, up to the middle of a transaction; and something was
    // being written.
    let last = dead.directory().join(&dead.files[2]);
    let mut torn = std::fs::read(&last).unwrap();
    let (second, _) = init_headers(&torn);
    torn.extend_from_within(second..second + 30);
    std::fs::write(&last, torn).unwrap();
    let second = std::fs::read(dead.directory().join(&dead.files[1])).unwrap();
    let from = place(&second, 2);
    assert!((from as u64) < tip.range.end);
    let path = dead.save(&dead.files[1], from);
    let received = dead.rescue(&path).await.unwrap_or_else(|e| panic!("{}", e.report()));
    assert!(received.transactions > 10, "{received:?}");
    assert_eq!(received.warnings.len(), 1, "{received:?}");
    assert!(received.warnings[0].contains("the last 30 bytes"), "{received:?}");
    let segments = dead.expect_bytes().await;
    assert_eq!(segments[archived.len()].range.start, tip.range.end);
    let next = segments.last().unwrap();
    assert_eq!((&next.range.file, next.range.file_started), (&dead.files[2], 0));
    // Nothing is archived twice.
    let again = dead.rescue(&path).await.unwrap();
    assert_eq!((again.segments, again.warnings.len()), (0, 1), "{again:?}");
    // Nor from where the files are themselves.
    let again = dead.rescue(dead.directory()).await;
    if name.starts_with("mysql") || options.is_empty() {
        assert_eq!(again.unwrap().segments, 0);
    }
    expect_all(&dead, name, options, &there).await;
}

/// A binlog alone, with no event that names another one.
#[rstest]
#[tokio::test]
async fn the_last_binlog_alone(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let (dead, there) = dead(name, &[]).await;
    let known = dead.store.segments().await;
    // Of a binlog that is in part in the archive it is known by its first event.
    let second = dead.keep(&save_binary_logs(dead.directory(), &dead.files[1..2], 4));
    let second_alone = dead.rescue(&second).await.unwrap();
    assert!(second_alone.transactions > 3, "{second_alone:?}");
    // The next one is the one that the archive names.
    let third = dead.keep(&save_binary_logs(dead.directory(), &dead.files[2..], 4));
    assert!(dead.rescue(&third).await.unwrap().transactions > 3);
    assert!(dead.expect_bytes().await.len() > known.len() + 1);
    expect_all(&dead, name, &[], &there).await;
}

#[rstest]
#[tokio::test]
async fn what_cannot_be_placed_is_refused(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let (dead, _) = dead(name, &[]).await;
    let known = dead.store.segments().await;
    let tip = known.last().unwrap().range.clone();
    let refused = async |path: &Path, options: RescueOptions, kind: ErrorKind, says: &str| {
        let e = dead.rescue_with(path, options).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{}", e.report());
        assert!(e.report().contains(says), "{says}: {}", e.report());
        assert_eq!(dead.store.segments().await, known);
    };
    let nothing = RescueOptions::default;
    let named = |name: &str| RescueOptions { first_file: Some(name.parse().unwrap()), ..nothing() };
    let second = std::fs::read(dead.directory().join(&dead.files[1])).unwrap();
    let first = std::fs::read(dead.directory().join(&dead.files[0])).unwrap();
    // Something between the archive and what was saved.
    let beyond = (0..).map(|n| place(&second, n)).find(|at| *at as u64 > tip.end).unwrap();
    let path = dead.save(&dead.files[1], beyond);
    refused(&path, nothing(), ErrorKind::Source, "does not join the archive").await;
    let path = dead.keep(&save_binary_logs(dead.directory(), &dead.files[2..], 4));
    refused(&path, named("binlog.000009"), ErrorKind::Source, "binlog.000009").await;
    // Of the first binlog nothing was left: its head, and the events of the second one.
    let path = dead.save(&dead.files[0], first.len());
    if name.starts_with("mysql") {
        refused(&path, named(&dead.files[0]), ErrorKind::Usage, "begins with").await;
    }
    // Another server's.
    let other = Server::start(name, |builder| builder.option("server_id", "9")).await;
    other.run(&WORK).await;
    let files = other.binlogs().await;
    let theirs = std::fs::read(other.0.datadir().join(&files[0])).unwrap();
    let path = dead.keep(&save_binary_logs(other.0.datadir(), &files, place(&theirs, 5)));
    refused(&path, nothing(), ErrorKind::Usage, "nothing tells").await;
    let anyway = RescueOptions { anyway: true, ..nothing() };
    refused(&path, anyway, ErrorKind::Source, "missing").await;
    // Not the bytes that are archived.
    let mut changed = second.clone();
    let end = place(&second, 1);
    let len = |at: usize| Header::parse(&second[at..]).unwrap().len as usize;
    let mut start = 4;
    while start + len(start) < end {
        start += len(start);
    }
    let checksum = backup_drivers::binlog::event::Checksum::Crc32;
    let event = Event::check(second[start..end].to_vec().into(), checksum).unwrap();
    let mut body = event.body().to_vec();
    *body.last_mut().unwrap() ^= 1;
    let told = Event::build(*event.header(), &body, checksum);
    changed[start..end].copy_from_slice(told.bytes());
    let path = dead.keep(&changed);
    refused(&path, nothing(), ErrorKind::Source, "other events").await;
    // No binlogs of a source.
    let head = Header::parse(&second[4..]).unwrap();
    let event = Event::check(
        second[4..4 + head.len as usize].to_vec().into(),
        backup_drivers::binlog::event::Checksum::Crc32,
    );
    let format = Format::parse(event.unwrap()).unwrap();
    let relay =
        Event::build(Header { flags: 0x40, ..head }, format.event.body(), format.event.checksum());
    let path =
        dead.keep(&[b"\xfebin", &relay.bytes()[..], &second[4 + head.len as usize..]].concat());
    refused(&path, nothing(), ErrorKind::Usage, "relay log").await;
    let path = dead.keep(b"# Binary/Relay log file binlog.000002 started\n");
    refused(&path, nothing(), ErrorKind::Usage, "no binlog").await;
    let path = dead.keep(&second[..10]);
    refused(&path, nothing(), ErrorKind::Damaged, "does not begin").await;
}

/// Damage is no torn end: what comes before it is archived, and what comes behind is told of.
#[rstest]
#[tokio::test]
async fn damage_in_the_middle_is_told(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let checksum = ("binlog_checksum", "CRC32");
    let (dead, _) = dead(name, &[checksum]).await;
    let tip = dead.store.segments().await.last().unwrap().range.clone();
    let mut saved = save_binary_logs(dead.directory(), &dead.files[1..2], 4);
    let at = (0..).map(|n| place(&saved, n)).filter(|at| *at as u64 > tip.end).nth(6).unwrap();
    saved[at - 8] ^= 1;
    let path = dead.keep(&saved);
    let e = dead.rescue(&path).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Damaged, "{}", e.report());
    let segments = dead.expect_bytes().await;
    assert!(segments.last().unwrap().range.end > tip.end);
    // So is damage among whole files.
    saved[at - 8] ^= 1;
    let path = dead.keep(&saved);
    assert!(dead.rescue(&path).await.unwrap().transactions > 0);
    dead.expect_bytes().await;
}

/// The head of a binlog of which nothing else was left, before the events of the next one.
#[rstest]
#[tokio::test]
async fn the_head_of_the_binlog_before(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let (dead, there) = dead(name, &[]).await;
    store_all(&dead, 1).await;
    let second = std::fs::metadata(dead.directory().join(&dead.files[1])).unwrap().len();
    let path = dead.save(&dead.files[1], second as usize);
    let received = dead.rescue(&path).await;
    assert!(received.unwrap_or_else(|e| panic!("{}", e.report())).transactions > 3);
    let segments = dead.expect_bytes().await;
    let next = &segments.last().unwrap().range;
    assert_eq!((&next.file, next.file_started), (&dead.files[2], 0));
    expect_all(&dead, name, &[], &there).await;
}

/// Archives the rest of a binlog.
async fn store_all(dead: &Dead, file: usize) {
    let saved = save_binary_logs(dead.directory(), &dead.files[file..=file], 4);
    dead.rescue(&dead.keep(&saved)).await.unwrap();
}

/// The archive is that of a replica, which lacked the last transactions: they are taken by their GTIDs.
#[rstest]
#[tokio::test]
async fn what_a_replica_lacked(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let mysql = name.starts_with("mysql");
    let primary = Server::start(name, |builder| builder).await;
    let updates = if mysql { "log_replica_updates" } else { "log_slave_updates" };
    let replica =
        Server::start(name, |builder| builder.option("server_id", "2").option(updates, "ON")).await;
    primary
        .run(&[
            "CREATE USER repl@'%' IDENTIFIED BY 'repl'",
            "GRANT REPLICATION SLAVE ON *.* TO repl@'%'",
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY, a TEXT)",
            "INSERT INTO d.t VALUES (1, 'before')",
        ])
        .await;
    follow(&replica, &primary).await;
    let store = Store::new().await;
    let mut session = replica.session().await;
    catch_up(&mut session, &primary).await;
    session.run(if mysql { "STOP REPLICA" } else { "STOP SLAVE" }).await.unwrap();
    store.archive(&replica).await;
    let files = primary.binlogs().await;
    let had = std::fs::metadata(primary.0.datadir().join(&files[0])).unwrap().len() as usize;
    primary
        .run(&["INSERT INTO d.t VALUES (2, 'lacked')", "INSERT INTO d.t VALUES (3, 'lacked')"])
        .await;
    let there = content(&primary).await;
    let mut dead = Dead { server: primary, store, files };
    dead.server.0.kill();

    // Not from behind the first one that it lacked.
    let whole = std::fs::read(dead.directory().join(&dead.files[0])).unwrap();
    let next = had + Header::parse(&whole[had..]).unwrap().len as usize;
    let first_file = Some(dead.files[0].parse().unwrap());
    let options = || RescueOptions { first_file: first_file.clone(), ..RescueOptions::default() };
    let e = dead.rescue_with(&dead.save(&dead.files[0], next), options()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Source, "{}", e.report());
    // Nothing names the binlog.
    let path = dead.save(&dead.files[0], had);
    let e = dead.rescue(&path).await.unwrap_err();
    assert!(e.report().contains("--first-file"), "{}", e.report());
    let received = dead.rescue_with(&path, options()).await;
    let received = received.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(received.transactions, 2, "{received:?}");
    expect_all(&dead, name, &[], &there).await;
    // What it had, too, is not archived again.
    let early = place(&whole, 3);
    let again = dead.rescue_with(&dead.save(&dead.files[0], early), options()).await;
    assert_eq!(again.unwrap_or_else(|e| panic!("{}", e.report())).segments, 0);
}
