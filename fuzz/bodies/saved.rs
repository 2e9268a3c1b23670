//! What MHA saves of the binlogs of a dead server: whatever is in such a file, it is archived or refused. What is
//! archived is whole, and each piece is what is known of it.

use std::io::Write;
use std::sync::Mutex;

use backup_core::{
    Appended, BinlogServer, Claim, ClusterName, Context, Error, GtidSet, ListedSegment, Result,
    SegmentInfo, SegmentStore, Uuid,
};
use backup_drivers::binlog::event::{Checksum, Event, Format, Header, MAGIC, kind};
use backup_drivers::binlog::{RescueOptions, check_segment, rescue};
use bytes::Bytes;
use futures::executor::block_on;

use super::events::{format, info};

/// Where the archive ends: in the middle of the first binlog.
const ARCHIVED: u64 = 1000;
/// How many transactions it has.
const BEFORE: u64 = 4;

/// An archive that has the beginning of the first binlog.
struct Archive {
    known: SegmentInfo,
    more: Mutex<Vec<SegmentInfo>>,
}

#[async_trait::async_trait]
impl SegmentStore for Archive {
    async fn segments(&self, _: &Context, _: &ClusterName) -> Result<Vec<ListedSegment>> {
        let listed = |info: &SegmentInfo| ListedSegment {
            server: info.server.clone(),
            seq: info.seq,
            stored: info.bytes(),
            info: Ok(info.clone()),
        };
        let more = self.more.lock().expect("nobody panicked");
        Ok(std::iter::once(&self.known).chain(&*more).map(listed).collect())
    }
    async fn segment(
        &self,
        _: &ClusterName,
        _: &BinlogServer,
        _: u64,
    ) -> Result<Option<SegmentInfo>> {
        Ok(None)
    }
    async fn read(&self, _: &Context, info: &SegmentInfo) -> Result<Bytes> {
        Ok(vec![0; info.bytes() as usize].into())
    }
    async fn append(&self, _: &Context, info: &SegmentInfo, content: Bytes) -> Result<Appended> {
        check_segment(info, &content).expect("what is archived is what is known of it");
        let mut more = self.more.lock().expect("nobody panicked");
        if let Some(last) = more.last().filter(|last| last.range.file == info.range.file) {
            assert_eq!(last.range.end, info.range.start);
        }
        more.push(info.clone());
        Ok(Appended::Stored(info.bytes()))
    }
    async fn replace_damaged(&self, _: &Context, _: &SegmentInfo, _: Bytes) -> Result<()> {
        Err(Error::internal("nothing is damaged here"))
    }
    async fn claim(
        &self,
        _: &Context,
        _: &ClusterName,
        _: &BinlogServer,
    ) -> Result<Box<dyn Claim>> {
        Err(Error::internal("nobody receives here"))
    }
}

/// The first byte picks the flavor, and what is known besides the file.
pub fn run(bytes: &[u8]) {
    archived(bytes);
    let Some((&flavor, rest)) = bytes.split_first() else { return };
    let format = format_of(flavor);
    rescued(flavor, &format, &[&MAGIC, &format.event.bytes()[..], rest].concat());
}

/// How many pieces go to the archive of a file with these events: kind u8, place u8, length u16, body. They get right
/// checksums. A place of 0 is right behind the event before, 1 at the beginning of a binlog, 255 is not told, and any
/// other so many times 16 bytes behind the end of the archive.
pub fn archived(bytes: &[u8]) -> usize {
    let Some((&flavor, mut rest)) = bytes.split_first() else { return 0 };
    let format = format_of(flavor);
    let head = MAGIC.len() + format.event.bytes().len();
    let mut file = [&MAGIC, &format.event.bytes()[..]].concat();
    let mut position = head as u64;
    while let Some((&[kind, place, a, b], after)) = rest.split_first_chunk::<4>() {
        let len = usize::from(u16::from_le_bytes([a, b])).min(after.len());
        let (body, next) = after.split_at(len);
        rest = next;
        match place {
            0 | 255 => {}
            1 => position = if kind == kind::FORMAT_DESCRIPTION { 4 } else { head as u64 },
            n => position = ARCHIVED + u64::from(n - 2) * 16,
        }
        position += (19 + len + 4) as u64;
        let end = if place == 255 { 0 } else { position as u32 };
        let header = Header { time: 7, kind, server_id: 1, len: 0, end, flags: 0 };
        file.extend_from_slice(Event::build(header, body, Checksum::Crc32).bytes());
    }
    rescued(flavor, &format, &file)
}

fn format_of(flavor: u8) -> Format {
    format(if flavor & 1 == 0 { "9.7.4" } else { "10.11.19-MariaDB" })
}

fn rescued(flavor: u8, format: &Format, content: &[u8]) -> usize {
    let mut known = info(format, ARCHIVED);
    let after = match format.is_mariadb() {
        true => format!("0-1-{BEFORE}"),
        false => format!("{}:1-{BEFORE}", uuid()),
    };
    known.after = GtidSet::parse(known.flavor, &after).expect("a good one");
    if !format.is_mariadb() {
        known.server = BinlogServer::of_uuid(uuid());
    }
    if flavor & 2 != 0 {
        // The archive knows nothing of the head.
        known.format_description = String::new();
    }
    let cluster = known.cluster.clone();
    let archive = Archive { known, more: Mutex::default() };
    let mut file = tempfile::NamedTempFile::new().expect("room for a file");
    file.write_all(content).expect("room for a file");
    let first_file = (flavor & 4 == 0).then(|| "binlog.000001".parse().expect("a name"));
    let server = (flavor & 8 != 0).then(|| archive.known.server.clone());
    let options = RescueOptions { server, first_file, ..RescueOptions::default() };
    let cx = Context::builder().build();
    let rescued = block_on(rescue(&cx, &archive, &cluster, file.path(), options));
    let pieces = archive.more.into_inner().expect("nobody panicked");
    if let Ok(rescued) = rescued {
        assert_eq!(rescued.segments, pieces.len() as u64);
    }
    assert!(pieces.iter().map(SegmentInfo::bytes).sum::<u64>() <= 2 * content.len() as u64);
    pieces.len()
}

fn uuid() -> Uuid {
    Uuid::from_bytes([1; 16])
}

/// Events of a file as [`archived`] takes them.
fn seed(flavor: u8, events: &[(u8, u8, Vec<u8>)]) -> Vec<u8> {
    let mut seed = vec![flavor];
    for (kind, place, body) in events {
        seed.extend([*kind, *place]);
        seed.extend((body.len() as u16).to_le_bytes());
        seed.extend(body);
    }
    seed
}

/// A transaction of one row, with this number.
fn transaction(mysql: bool, number: u64, place: u8) -> Vec<(u8, u8, Vec<u8>)> {
    let query = |sql: &str| [&[0; 14][..], sql.as_bytes()].concat();
    let map = vec![7, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b't', 0, 1, 3, 0, 1];
    let rows = vec![7, 0, 0, 0, 0, 0, 1, 0, 2, 0, 1, 1, 0, 5, 0, 0, 0];
    let mut events = vec![
        (kind::QUERY, 0, query("BEGIN")),
        (kind::TABLE_MAP, 0, map),
        (kind::WRITE_ROWS, 0, rows),
        (kind::XID, 0, vec![0; 8]),
    ];
    let gtid = if mysql {
        // flags, uuid, number, 2, last committed and number in the order of commits, time, length, version
        let mut gtid = vec![0];
        gtid.extend(uuid().as_bytes());
        gtid.extend(number.to_le_bytes());
        gtid.push(2);
        gtid.extend([0; 16]);
        gtid.extend([0, 1, 2, 3, 4, 5, 0]);
        let len = gtid.len() + 3 + 4;
        let len: usize = events.iter().map(|(_, _, body)| body.len()).sum::<usize>() + len + 5 * 23;
        gtid.extend([0xfc, len as u8, (len >> 8) as u8]);
        gtid.extend([0, 0, 0, 0]);
        (kind::GTID, place, gtid)
    } else {
        events.remove(0);
        let mut gtid = number.to_le_bytes().to_vec();
        gtid.extend([0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0]);
        (kind::MARIADB_GTID, place, gtid)
    };
    events.insert(0, gtid);
    events
}

pub fn seeds() -> Vec<Vec<u8>> {
    let rotate = |n: u8| {
        (kind::ROTATE, 0, [&[4, 0, 0, 0, 0, 0, 0, 0], &b"binlog.00000"[..], &[b'0' + n]].concat())
    };
    let mut seeds = Vec::new();
    for flavor in [0, 1] {
        let mysql = flavor == 0;
        let before = match mysql {
            true => (kind::PREVIOUS_GTIDS, 0, vec![0; 8]),
            false => (kind::MARIADB_GTID_LIST, 0, vec![0; 4]),
        };
        // One server or domain, with transactions 1 to 5.
        let after: Vec<u8> = match mysql {
            true => {
                let numbers = [1, 1, 6].map(u64::to_le_bytes).concat();
                [&1u64.to_le_bytes()[..], uuid().as_bytes(), &numbers].concat()
            }
            false => [&[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0][..], &5u64.to_le_bytes()].concat(),
        };
        let after = (before.0, 0, after);
        let of = |number, place| transaction(mysql, number, place);
        // MHA knows no more of a head than MySQL writes.
        let head: Vec<_> = mysql.then_some(before).into_iter().collect();
        // From the end of the archive on, and the binlog behind it.
        let mut events = head.clone();
        events.extend([of(5, 2), of(6, 0), vec![rotate(2)], of(7, 1), of(8, 0)].concat());
        seeds.push(seed(flavor, &events));
        // What nobody has named, with the whole head of the next one.
        let mut events = head;
        events.extend(of(5, 2));
        events.push((kind::STOP, 0, Vec::new()));
        events.push((kind::FORMAT_DESCRIPTION, 1, format_of(flavor).event.body().to_vec()));
        events.push(after);
        events.extend(of(6, 0));
        seeds.push(seed(flavor | 8, &events));
        // A hole, and a torn end.
        let mut events = of(9, 20);
        events.pop();
        seeds.push(seed(flavor | 2, &events));
    }
    seeds
}
