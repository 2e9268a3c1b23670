//! The catalog: where the bytes of each artifact are.

use backup_core::{ArtifactName, BackupId, Error, Layout, Result};
use serde::{Deserialize, Serialize};

use super::frame::{FRAME_HEADER_LEN, MAX_RAW};
use super::{hex, unhex};

/// One line of the catalog: a part of an artifact's extents, and in the last part what is known
/// about the artifact as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The number of the artifact, unique in the backup. Parts with the same number belong together.
    pub id: u64,
    /// The number of the part, counted from 0.
    pub seq: u32,
    /// The artifact's name.
    pub name: ArtifactName,
    /// Other backups of the same cluster that `extents` refer to: source 1 is the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<BackupId>,
    /// Where the bytes are, in their order.
    pub extents: Vec<Extent>,
    /// What is known about the whole; only in the last part. An artifact without it was not finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// What the last part of an artifact says about the whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Its layout.
    pub layout: Layout,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes, 64 hex digits.
    pub sha256: String,
    /// Where the parts of its map are, which the next backup compares it with. Not needed for reading.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub map: Vec<Extent>,
    /// What the driver says about it.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub attributes: serde_json::Value,
}

type Row = (u32, u32, u64, u32, u32, u32, String);

/// A run of an artifact's bytes inside one frame. In JSON an array of seven:
/// `[source, pack, offset, frame_len, raw_offset, len, "check"]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Row", into = "Row")]
pub struct Extent {
    /// 0 for this backup, else the number of an entry of [`Entry::sources`], from 1.
    pub source: u32,
    /// Number of the pack.
    pub pack: u32,
    /// Where the frame begins in the pack.
    pub offset: u64,
    /// Length of the frame, header and payload.
    pub frame_len: u32,
    /// Where the bytes begin in what the frame holds.
    pub raw_offset: u32,
    /// How many there are, at least 1.
    pub len: u32,
    /// The first 8 bytes of the frame's check.
    pub check: [u8; 8],
}

impl From<Extent> for Row {
    fn from(e: Extent) -> Row {
        (e.source, e.pack, e.offset, e.frame_len, e.raw_offset, e.len, hex(&e.check))
    }
}

impl TryFrom<Row> for Extent {
    type Error = &'static str;
    fn try_from(row: Row) -> Result<Self, &'static str> {
        let (source, pack, offset, frame_len, raw_offset, len, check) = row;
        let header = FRAME_HEADER_LEN as u32;
        if !(header..=header + MAX_RAW).contains(&frame_len) {
            return Err("an extent of a frame that is too short or too long");
        }
        if len == 0 || raw_offset.checked_add(len).is_none_or(|end| end > MAX_RAW) {
            return Err("an extent beyond the bounds of a frame");
        }
        if offset.checked_add(u64::from(frame_len)).is_none() {
            return Err("an extent beyond the bounds of an object");
        }
        let check = unhex(&check).ok_or("an extent whose check is not 16 hex digits")?;
        Ok(Extent { source, pack, offset, frame_len, raw_offset, len, check })
    }
}

/// Reads one line of the catalog, without its line feed.
///
/// # Errors
/// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when it is no valid entry.
pub fn parse_entry(line: &[u8]) -> Result<Entry> {
    let damaged = |e: serde_json::Error| {
        Error::damaged("a line of the catalog is no valid entry").with_source(e)
    };
    let entry: Entry = serde_json::from_slice(line).map_err(damaged)?;
    let map = entry.end.iter().flat_map(|end| &end.map);
    if entry.extents.iter().chain(map).any(|e| e.source as usize > entry.sources.len()) {
        return Err(Error::damaged(format!(
            "the catalog entry of {} refers to a backup that it does not name",
            entry.name
        )));
    }
    if let Some(end) = &entry.end
        && unhex::<32>(&end.sha256).is_none()
    {
        return Err(Error::damaged(format!(
            "the catalog entry of {} has no valid digest",
            entry.name
        )));
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENT: Extent = Extent {
        source: 1,
        pack: 2,
        offset: 16,
        frame_len: 96,
        raw_offset: 5,
        len: 7,
        check: [0, 1, 2, 3, 4, 5, 0xfe, 0xff],
    };

    fn entry() -> Entry {
        Entry {
            id: 9,
            seq: 1,
            name: "tables/shop/orders/rows-000001".parse().unwrap(),
            sources: vec!["20261120T101530Z-full-7f3a9c".parse().unwrap()],
            extents: vec![EXTENT],
            end: Some(End {
                layout: Layout::Pages(16384),
                bytes: 7,
                sha256: "ab".repeat(32),
                map: Vec::new(),
                attributes: serde_json::json!({"rows": 3}),
            }),
        }
    }

    #[test]
    fn a_line_is_as_documented() {
        let line = serde_json::to_string(&entry()).unwrap();
        assert_eq!(
            line,
            format!(
                r#"{{"id":9,"seq":1,"name":"tables/shop/orders/rows-000001","sources":["20261120T101530Z-full-7f3a9c"],"extents":[[1,2,16,96,5,7,"000102030405feff"]],"end":{{"layout":{{"pages":16384}},"bytes":7,"sha256":"{}","attributes":{{"rows":3}}}}}}"#,
                "ab".repeat(32)
            )
        );
        assert_eq!(parse_entry(line.as_bytes()).unwrap(), entry());
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let refused = |change: fn(&mut Entry)| {
            let mut bad = entry();
            change(&mut bad);
            let line = serde_json::to_vec(&bad).unwrap();
            assert!(parse_entry(&line).is_err(), "{}", String::from_utf8_lossy(&line));
        };
        refused(|e| e.extents[0].source = 2);
        refused(|e| e.end.as_mut().unwrap().map = vec![Extent { source: 2, ..EXTENT }]);
        refused(|e| e.sources.clear());
        refused(|e| e.extents[0].frame_len = 79);
        refused(|e| e.extents[0].frame_len = 81 + MAX_RAW);
        refused(|e| e.extents[0].len = 0);
        refused(|e| e.extents[0].len = u32::MAX);
        refused(|e| e.extents[0].raw_offset = MAX_RAW - 6);
        refused(|e| e.extents[0].offset = u64::MAX - 95);
        refused(|e| e.end.as_mut().unwrap().sha256.truncate(63));
        let mut edge = entry();
        edge.extents[0].raw_offset = MAX_RAW - 7;
        edge.extents[0].frame_len = 80 + MAX_RAW;
        edge.extents[0].offset = u64::MAX - u64::from(80 + MAX_RAW);
        assert_eq!(parse_entry(&serde_json::to_vec(&edge).unwrap()).unwrap(), edge);
    }
}
