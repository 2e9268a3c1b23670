//! Binlogs: whatever bytes a source or an archive gives, nothing panics, no more memory is taken than
//! bytes are there (but for what is compressed, which has a bound), and what is read joins.

use backup_core::{
    Appended, BinlogServer, Claim, ClusterName, Context, Error, ListedSegment, Result, SegmentInfo,
    SegmentStore,
};
use backup_drivers::binlog::event::{Checksum, Event, Events, Format, Header, MAGIC, kind};
use backup_drivers::binlog::{
    Query, Rotate, check_segment, find_transactions, transactions_before,
};
use bytes::Bytes;
use futures::executor::block_on;

use super::events::{format, info};

/// An archive of one segment.
struct One(Bytes);

#[async_trait::async_trait]
impl SegmentStore for One {
    async fn segments(&self, _: &Context, _: &ClusterName) -> Result<Vec<ListedSegment>> {
        Ok(Vec::new())
    }
    async fn segment(
        &self,
        _: &ClusterName,
        _: &BinlogServer,
        _: u64,
    ) -> Result<Option<SegmentInfo>> {
        Ok(None)
    }
    async fn read(&self, _: &Context, _: &SegmentInfo) -> Result<Bytes> {
        Ok(self.0.clone())
    }
    async fn append(&self, _: &Context, _: &SegmentInfo, _: Bytes) -> Result<Appended> {
        Ok(Appended::Taken)
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

/// The first byte picks the flavor; then events follow: kind u8, length u16, body. They get right
/// headers and checksums, so that what is behind those is reached.
pub fn run(bytes: &[u8]) {
    // As they are.
    let raw = Bytes::copy_from_slice(bytes);
    for checksum in [Checksum::None, Checksum::Crc32] {
        let mut events = Events::new(raw.clone(), 4, checksum);
        while let Ok(Some(event)) = events.next_event() {
            let _ = Format::parse(event);
        }
        if let Ok(event) = Event::check(raw.clone(), checksum) {
            assert_eq!(event.bytes().len(), bytes.len());
        }
    }
    let Some((&flavor, mut rest)) = bytes.split_first() else { return };
    let format = format(if flavor & 1 == 0 { "9.7.4" } else { "10.11.19-MariaDB" });
    let mut content = [&MAGIC, &format.event.bytes()[..]].concat();
    while let Some((&[event_kind, a, b], after)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_le_bytes([a, b])).min(after.len());
        let (body, next) = after.split_at(len);
        rest = next;
        let end = (content.len() + 19 + len + 4) as u32;
        let header = Header { time: 7, kind: event_kind, server_id: 1, len: 0, end, flags: 0 };
        let event = Event::build(header, body, Checksum::Crc32);
        assert_eq!(
            Event::check(event.bytes().clone(), Checksum::Crc32).as_ref().ok(),
            Some(&event)
        );
        let _ = (Query::parse(&event), Rotate::parse(&event), transactions_before(&event));
        content.extend_from_slice(event.bytes());
    }
    let info = info(&format, content.len() as u64);
    let content = Bytes::from(content);
    let cx = Context::builder().build();
    let _ = check_segment(&info, &content);
    if let Ok(found) = block_on(find_transactions(&cx, &One(content), &[info], 8, |_| true)) {
        for transaction in found.transactions {
            assert!(transaction.start < transaction.end);
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let seed = |flavor: u8, events: &[(u8, Vec<u8>)]| {
        let mut seed = vec![flavor];
        for (kind, body) in events {
            seed.push(*kind);
            seed.extend((body.len() as u16).to_le_bytes());
            seed.extend(body);
        }
        seed
    };
    let mut gtid = vec![1; 25];
    gtid[17..25].copy_from_slice(&5_u64.to_le_bytes());
    gtid.push(2);
    gtid.extend([0; 16]);
    gtid.extend([0, 1, 2, 3, 4, 5, 0]);
    gtid.extend([0xfc, 0, 2]);
    let query = |sql: &str| [&[0; 14][..], sql.as_bytes()].concat();
    let map = vec![7, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b't', 0, 2, 3, 15, 2, 0x2c, 1, 0];
    let mut rows = vec![7, 0, 0, 0, 0, 0, 1, 0, 2, 0, 2, 3];
    rows.extend([0, 1, 0, 0, 0, 2, 0, b'a', b'b']);
    let tagged: Vec<u8> = [&[2, 0, 0, 0, 0, 2][..], &[2; 16], &[4, 10, 6, 2, b'x']].concat();
    let mut mariadb = 9_u64.to_le_bytes().to_vec();
    mariadb.extend([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let mut packed = vec![2, 1, 0, 3, 1, 40, 0];
    let inner = Event::build(
        Header { time: 1, kind: kind::QUERY, server_id: 1, len: 0, end: 0, flags: 0 },
        &query("DROP TABLE d.t"),
        Checksum::None,
    );
    packed.extend(zstd::bulk::compress(inner.bytes(), 1).expect("enough memory"));
    vec![
        seed(
            0,
            &[
                (kind::PREVIOUS_GTIDS, vec![0; 8]),
                (kind::GTID, gtid.clone()),
                (kind::QUERY, query("BEGIN")),
                (kind::TABLE_MAP, map),
                (kind::WRITE_ROWS, rows),
                (kind::XID, vec![0; 8]),
                (kind::ROTATE, [&[4, 0, 0, 0, 0, 0, 0, 0], &b"binlog.000002"[..]].concat()),
            ],
        ),
        seed(0, &[(kind::GTID, gtid), (kind::TRANSACTION_PAYLOAD, packed)]),
        seed(0, &[(kind::GTID_TAGGED, tagged), (kind::QUERY, query("CREATE TABLE t (a INT)"))]),
        seed(
            1,
            &[
                (kind::MARIADB_GTID_LIST, vec![0; 6]),
                (kind::MARIADB_GTID, mariadb),
                (kind::QUERY, query("DROP TABLE d.t")),
            ],
        ),
    ]
}
