//! Properties of whole blocks.

use backup_core::ErrorKind;
use bytes::Bytes;
use proptest::prelude::*;

use super::format::{ENTRY, HEADER, HEADER_CRC};
use super::*;

/// A value as `fields` gives it.
type Value = Option<Vec<u8>>;

/// Values of a column: some of them what tables hold, some of them anything the protocol allows.
fn value(kind: Kind, style: u8) -> BoxedStrategy<Vec<u8>> {
    let integer = match style {
        0 => any::<u64>().boxed(),
        1 => (0u64..5).prop_map(|v| v * 1000).boxed(),
        _ => (-3i64..300).prop_map(i64::cast_unsigned).boxed(),
    };
    if let Some(width) = kind.width() {
        return integer.prop_map(move |v| v.to_le_bytes()[..width].to_vec()).boxed();
    }
    let lengths: &'static [usize] = match kind {
        Kind::Date => &[0, 4],
        Kind::DateTime => &[0, 4, 7, 11],
        Kind::Time => &[0, 8, 12],
        _ => &[],
    };
    match (kind, style) {
        (Kind::Bytes, 0) => prop::collection::vec(any::<u8>(), 0..300).boxed(),
        (Kind::Bytes, 1) => "-?(0|[1-9][0-9]{0,6})\\.[0-9]{2}".prop_map(String::into_bytes).boxed(),
        (Kind::Bytes, 2) => "view|click|\t|".prop_map(String::into_bytes).boxed(),
        (Kind::Bytes, _) => "[a-z\\\\\t]{0,9}".prop_map(String::into_bytes).boxed(),
        (Kind::Time, 1..) => (0..2u8, 0..34u8, 0..24u8, 1..60u8, 0..60u8, prop::bool::ANY)
            .prop_map(|(sign, days, h, m, s, short)| {
                let micros: &[u8] = if short { &[] } else { &[s + 1, m, 1, 0] };
                [&[sign, days, 0, 0, 0, h, m, s], micros].concat()
            })
            .boxed(),
        (_, 1..) => (0..=12u8, 1..=31u8, 0..24u8, 1..60u8, prop::sample::select(lengths))
            .prop_map(|(month, day, h, s, length)| {
                [0xe8, 0x07, month, day, h, 0, s, s, 1, 2, 0][..length].to_vec()
            })
            .boxed(),
        _ => prop::sample::select(lengths)
            .prop_flat_map(|length| prop::collection::vec(any::<u8>(), length))
            .boxed(),
    }
}

fn column(rows: usize) -> impl Strategy<Value = (Kind, Vec<Value>)> {
    (
        prop::sample::select(&Kind::ALL[..]),
        0u8..4,
        prop::sample::select(&[0.001, 0.001, 0.1, 0.999][..]),
    )
        .prop_flat_map(move |(kind, style, nulls)| {
            let value = prop::option::weighted(1.0 - nulls, value(kind, style));
            (Just(kind), prop::collection::vec(value, rows))
        })
}

/// Kinds and row packets of a table.
fn table() -> impl Strategy<Value = (Vec<Kind>, Vec<Vec<u8>>)> {
    (1usize..12, 0usize..80)
        .prop_flat_map(|(columns, rows)| (prop::collection::vec(column(rows), columns), Just(rows)))
        .prop_map(|(columns, rows)| {
            let kinds: Vec<Kind> = columns.iter().map(|(kind, _)| *kind).collect();
            let packets = (0..rows).map(|row| {
                let values: Vec<&Value> = columns.iter().map(|(_, values)| &values[row]).collect();
                packet(&kinds, &values)
            });
            (kinds.clone(), packets.collect())
        })
}

fn packet(kinds: &[Kind], values: &[&Value]) -> Vec<u8> {
    let mut packet = vec![0; 1 + row::null_bytes(kinds.len())];
    for (column, (kind, value)) in kinds.iter().zip(values).enumerate() {
        match value {
            None => row::set_null(&mut packet[1..], column),
            Some(value) if kind.width().is_some() => packet.extend_from_slice(value),
            Some(value) => row::put_bytes(&mut packet, value),
        }
    }
    packet
}

fn encode(kinds: &[Kind], packets: &[Vec<u8>]) -> EncodedBlock {
    let mut encoder = BlockEncoder::new(kinds, BlockEncoder::DEFAULT_TARGET).unwrap();
    for packet in packets {
        encoder.push(packet).unwrap();
    }
    encoder.finish()
}

fn packets(block: &Block) -> backup_core::Result<Vec<Vec<u8>>> {
    let mut packets = Vec::new();
    block.packets(|packet| {
        packets.push(packet.to_vec());
        Ok(())
    })?;
    Ok(packets)
}

/// Makes the header's checksum right again.
fn seal(bytes: &mut [u8]) {
    let crc = crc32fast::hash(&bytes[..HEADER_CRC]);
    bytes[HEADER_CRC..HEADER].copy_from_slice(&crc.to_le_bytes());
}

/// Reads what may be damaged in every way there is.
fn read(bytes: Vec<u8>) {
    let length = bytes.len();
    let Ok(block) = Block::parse(Bytes::from(bytes)) else { return };
    assert!(block.kinds().len() * ENTRY < length);
    // A constant column is small whatever its rows; reading all of them takes a test too long.
    if block.raw_bytes() < 1 << 20 {
        let _ = block.verify();
        let _ = packets(&block);
        let _ = block.write_tsv(&mut Vec::new(), &vec![TextFormat::default(); block.kinds().len()]);
    }
}

proptest! {
    #[test]
    fn packets_come_back((kinds, rows) in table()) {
        let encoded = encode(&kinds, &rows);
        prop_assert_eq!(encoded.rows as usize, rows.len());
        prop_assert_eq!(encoded.raw_bytes, rows.iter().map(|r| r.len() as u64).sum::<u64>());
        let block = Block::parse(encoded.bytes).unwrap();
        prop_assert_eq!(block.kinds().collect::<Vec<_>>(), kinds);
        prop_assert_eq!(packets(&block).unwrap(), rows);
        prop_assert_eq!(block.verify().unwrap(), encoded.digest);
    }

    #[test]
    fn lines_are_the_text_of_the_fields((kinds, rows) in table(), decimals in 0u8..7) {
        let block = Block::parse(encode(&kinds, &rows).bytes).unwrap();
        let format = TextFormat { decimals };
        let mut expected = Vec::new();
        let mut finite = true;
        for row in &rows {
            for (kind, value) in kinds.iter().zip(fields(row, &kinds).unwrap()) {
                let mut text = Vec::new();
                match value {
                    None => expected.extend_from_slice(b"\\N"),
                    Some(value) => {
                        finite &= append_text(*kind, value, format, &mut text).is_ok();
                        escape_into(&text, &mut expected);
                    }
                }
                expected.push(b'\t');
            }
            *expected.last_mut().unwrap() = b'\n';
        }
        let mut lines = Vec::new();
        let written = block.write_tsv(&mut lines, &vec![format; kinds.len()]);
        prop_assert_eq!(written.is_ok(), finite);
        if finite {
            prop_assert_eq!(lines, expected);
        }
    }

    #[test]
    fn the_digest_depends_on_rows_but_not_on_their_order(
        (kinds, rows) in table(),
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = encode(&kinds, &rows).digest;
        let mut other = rows.clone();
        other.reverse();
        let (left, right) = other.split_at(cut.index(rows.len() + 1));
        prop_assert_eq!(encode(&kinds, left).digest.merge(encode(&kinds, right).digest), whole);
        if let Some(row) = other.pop() {
            prop_assert_ne!(encode(&kinds, &other).digest, whole);
            other.extend([row.clone(), row]);
            prop_assert_ne!(encode(&kinds, &other).digest, whole);
        }
    }

    #[test]
    fn blocks_are_a_function_of_their_rows((kinds, rows) in table(), (_, noise) in table()) {
        let fresh = encode(&kinds, &rows);
        let mut used = BlockEncoder::new(&kinds, 1 << 20).unwrap();
        for row in rows.iter().rev() {
            used.push(row).unwrap();
        }
        used.finish();
        for row in &rows {
            used.push(row).unwrap();
            // Rows of other tables, which are mostly malformed here, leave nothing behind.
            for bad in noise.iter().filter(|bad| fields(bad, &kinds).is_err()).take(2) {
                // A temporal value out of form may change how the rest of a column is kept.
                if kinds.iter().all(|kind| !kind.is_temporal()) {
                    prop_assert_eq!(used.push(bad).unwrap_err().kind(), ErrorKind::Source);
                }
            }
        }
        prop_assert_eq!(used.finish().bytes, fresh.bytes);
    }

    #[test]
    fn damaged_blocks_never_panic(
        (kinds, rows) in table(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let mut bytes = encode(&kinds, &rows).bytes.to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(HEADER + cut.index(bytes.len() - HEADER));
            let body = (bytes.len() - HEADER) as u64;
            bytes[12..20].copy_from_slice(&body.to_le_bytes());
        }
        seal(&mut bytes);
        read(bytes);
    }

    #[test]
    fn arbitrary_bodies_never_panic(
        columns in 1u16..4,
        rows in 0u32..300,
        body in prop::collection::vec(prop_oneof![Just(0u8), 0u8..16, any::<u8>()], 36..400),
    ) {
        let mut bytes = vec![0; HEADER];
        bytes[..4].copy_from_slice(b"HFRB");
        bytes[4] = 1;
        bytes[6..8].copy_from_slice(&columns.to_le_bytes());
        bytes[8..12].copy_from_slice(&rows.to_le_bytes());
        bytes[12..20].copy_from_slice(&(body.len() as u64).to_le_bytes());
        bytes[20..28].copy_from_slice(&(1u64 << 19).to_le_bytes());
        bytes.extend_from_slice(&body);
        // One column takes all there is.
        let directory = ENTRY * usize::from(columns);
        for entry in bytes[HEADER..][..directory].chunks_mut(ENTRY) {
            entry[0] = entry[0] % 15 + 1;
            entry[1] %= 4;
            entry[2] %= 2;
            entry[3..].fill(0);
        }
        let rest = (body.len() - directory) as u64;
        bytes[HEADER + 4..HEADER + 12].copy_from_slice(&rest.to_le_bytes());
        seal(&mut bytes);
        read(bytes);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = fields(&bytes, &Kind::ALL);
        let mut encoder = BlockEncoder::new(&Kind::ALL, 1 << 20).unwrap();
        let _ = encoder.push(&bytes);
        for kind in Kind::ALL {
            let _ = append_text(kind, &bytes, TextFormat::default(), &mut Vec::new());
        }
        let mut reader = BlockReader::default();
        reader.push(Bytes::from(bytes.clone()));
        let _ = reader.next_block();
        read(bytes);
    }

    #[test]
    fn a_stream_cut_anywhere_gives_its_blocks(
        tables in prop::collection::vec(table(), 0..4),
        cuts in prop::collection::vec(1usize..2000, 1..20),
    ) {
        let blocks: Vec<Bytes> = tables.iter().map(|(k, rows)| encode(k, rows).bytes).collect();
        let mut stream = Bytes::from(blocks.concat());
        let (mut reader, mut back) = (BlockReader::default(), Vec::new());
        for length in cuts.iter().cycle() {
            while let Some(block) = reader.next_block().unwrap() {
                back.push(block.as_bytes().clone());
            }
            if stream.is_empty() {
                break;
            }
            reader.push(stream.split_to((*length).min(stream.len())));
        }
        reader.finish().unwrap();
        prop_assert_eq!(back, blocks);
    }
}

#[test]
fn a_stream_that_ends_early_or_is_damaged_is_an_error() {
    let block = encode(&[Kind::U8], &[vec![0, 0, 7]]).bytes;
    let mut reader = BlockReader::default();
    reader.push(block.slice(..block.len() - 1));
    assert!(reader.next_block().unwrap().is_none());
    assert_eq!(reader.finish().unwrap_err().kind(), ErrorKind::Damaged);

    // A hostile length is refused or waited for, but never allocated.
    for (length, refused) in [(u64::MAX, true), (4 << 30, false)] {
        let mut bytes = block.to_vec();
        bytes[12..20].copy_from_slice(&length.to_le_bytes());
        seal(&mut bytes);
        let mut reader = BlockReader::default();
        reader.push(Bytes::from(bytes));
        assert_eq!(reader.next_block().is_err(), refused);
    }
}

#[test]
fn every_byte_of_the_header_and_directory_matters() {
    let packets = [vec![0, 0, 7, 1, b'x'], vec![0, 4, 0]];
    let bytes = encode(&[Kind::U8, Kind::Bytes], &packets).bytes;
    for at in 0..HEADER + 2 * ENTRY {
        let mut bad = bytes.to_vec();
        bad[at] ^= 0x41;
        let result = Block::parse(Bytes::from(bad)).and_then(|block| block.verify());
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Damaged, "byte {at}");
    }
}

#[test]
fn a_changed_value_is_found() {
    let rows: Vec<Vec<u8>> = (0..100u8).map(|i| vec![0, 0, i ^ 0x55]).collect();
    let mut bytes = encode(&[Kind::U8], &rows).bytes.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let block = Block::parse(Bytes::from(bytes)).unwrap();
    assert_eq!(block.verify().unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn a_small_block_cannot_stand_for_more_than_it_says() {
    // 200 equal rows of one string: a dictionary of one entry and no planes at all.
    let rows = vec![[&b"\0\0\xc8"[..], &[b'x'; 200]].concat(); 200];
    let encoded = encode(&[Kind::Bytes], &rows);
    assert!(encoded.bytes.len() < 400);
    let mut bytes = encoded.bytes.to_vec();
    bytes[20..28].copy_from_slice(&(encoded.raw_bytes - 1).to_le_bytes());
    seal(&mut bytes);
    assert!(Block::parse(Bytes::from(bytes)).is_err());
    // More rows than a block may have.
    let mut bytes = encoded.bytes.to_vec();
    bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    bytes[20..28].copy_from_slice(&(1u64 << 32).to_le_bytes());
    seal(&mut bytes);
    assert!(Block::parse(Bytes::from(bytes)).is_err());
}

#[test]
fn a_full_block_says_so_and_takes_no_more() {
    let mut encoder = BlockEncoder::new(&[Kind::U8], 6).unwrap();
    encoder.push(&[0, 0, 1]).unwrap();
    assert!(!encoder.is_full());
    encoder.push(&[0, 0, 2]).unwrap();
    assert!(encoder.is_full());
    assert_eq!(encoder.push(&[0, 0, 3]).unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(encoder.finish().rows, 2);
    assert!(encoder.is_empty() && !encoder.is_full());

    let mut encoder = BlockEncoder::new(&[Kind::U8], usize::MAX).unwrap();
    let mut rows = 0u32;
    while !encoder.is_full() {
        encoder.push(&[0, 4]).unwrap();
        rows += 1;
    }
    assert_eq!(rows, 262_144);
    let block = Block::parse(encoder.finish().bytes).unwrap();
    assert_eq!(block.verify().unwrap().rows, u64::from(rows));
}

#[test]
fn tables_without_columns_or_with_too_many_are_refused() {
    assert!(BlockEncoder::new(&[], 1).is_err());
    assert!(BlockEncoder::new(&[Kind::U8; 4097], 1).is_err());
    let wide = [Kind::U8; 4096];
    let row = vec![vec![0; 1 + row::null_bytes(4096) + 4096]; 3];
    let block = Block::parse(encode(&wide, &row).bytes).unwrap();
    assert_eq!(packets(&block).unwrap(), row);
}

#[test]
fn a_row_far_larger_than_the_target_is_a_block_of_its_own() {
    let value = vec![b'\\'; 40 << 20];
    let mut packet = vec![0, 0];
    row::put_bytes(&mut packet, &value);
    let mut encoder = BlockEncoder::new(&[Kind::Bytes], 1 << 20).unwrap();
    encoder.push(&packet).unwrap();
    assert!(encoder.is_full());
    let block = Block::parse(encoder.finish().bytes).unwrap();
    assert_eq!(packets(&block).unwrap(), [packet]);
    let mut line = Vec::new();
    block.write_tsv(&mut line, &[TextFormat::default()]).unwrap();
    assert_eq!(line.len(), 2 * value.len() + 1);
}

#[test]
fn low_cardinality_decimals_and_sorted_keys_are_small() {
    let kinds = [Kind::U64, Kind::Bytes, Kind::Bytes, Kind::Bytes];
    let rows: Vec<Vec<u8>> = (0..5000u64)
        .map(|i| {
            let mut packet = vec![0, 0];
            packet.extend_from_slice(&(i + 1_000_000).to_le_bytes());
            row::put_bytes(&mut packet, [&b"view"[..], b"click", b"buy"][(i * i % 3) as usize]);
            row::put_bytes(&mut packet, format!("{}.00", i * 7919 % 50).as_bytes());
            row::put_bytes(&mut packet, b"always the same");
            packet
        })
        .collect();
    // A byte for the second and one for the third column, and little else.
    assert!(encode(&kinds, &rows).bytes.len() < 2 * 5000 + 400);
}
