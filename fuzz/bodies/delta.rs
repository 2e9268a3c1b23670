//! Deltas: whatever the payload, exactly as many bytes come out as the frame says, or none. The first
//! six bytes are the lengths of list, base and content, the rest is the payload.

use backup_storage::format::{
    BasePart, Codec, Delta, DeltaLengths, FrameHeader, FrameKind, compress_delta,
};
use bytes::Bytes;

/// The header of a delta's frame, as far as it matters here.
fn header(lengths: DeltaLengths, raw_len: u32, stored_len: usize) -> FrameHeader {
    FrameHeader {
        kind: FrameKind::Data,
        codec: Codec::Zstd,
        raw_len,
        stored_len: u32::try_from(stored_len).expect("a short input"),
        sealed: None,
        delta: Some(lengths),
        check: [0; 16],
    }
}

fn part(len: usize) -> BasePart {
    BasePart {
        backup: "20261120T101530Z-full-7f3a9c".parse().expect("an id"),
        pack: 3,
        offset: 16,
        frame_len: 96,
        raw_offset: 0,
        len: u32::try_from(len).expect("a short input"),
        check: [9; 8],
    }
}

/// What every delta is made against here.
fn base(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 / 3 % 251) as u8).collect()
}

pub fn run(bytes: &[u8]) {
    let Some((&[a, b, c, d, e, f], payload)) = bytes.split_first_chunk::<6>() else { return };
    let [list, base_len, raw_len] = [[a, b], [c, d], [e, f]].map(u16::from_le_bytes);
    let lengths = DeltaLengths { list: list.into(), base: base_len.into() };
    let payload = Bytes::copy_from_slice(payload);
    if let Ok(delta) = Delta::parse(&header(lengths, raw_len.into(), payload.len()), &payload) {
        let sum: u64 = delta.base.iter().map(|part| u64::from(part.len)).sum();
        assert_eq!(sum, u64::from(base_len));
        if let Ok(raw) = delta.apply(&base(base_len.into())) {
            assert_eq!(raw.len(), usize::from(raw_len));
        }
        assert!(delta.apply(&base(usize::from(base_len) + 1)).is_err());
    }
    // There and back, against a piece of itself.
    let (whole, parts) = (&payload[payload.len() / 3..], [part(payload.len() - payload.len() / 3)]);
    if whole.is_empty() {
        return;
    }
    if let Some(packed) = compress_delta(&payload, whole, &parts).expect("enough memory") {
        assert!(packed.stored.len() < payload.len());
        let lengths = packed.delta.expect("a delta");
        let header = header(lengths, packed.raw_len, packed.stored.len());
        let delta = Delta::parse(&header, &packed.stored).expect("what was written can be read");
        assert_eq!(delta.apply(whole).expect("its base"), payload);
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let whole = base(3000);
    let mut changed = whole.clone();
    changed[1500] ^= 1;
    let packed = compress_delta(&changed, &whole, &[part(3000)]).expect("enough memory");
    let packed = packed.expect("it is shorter");
    let lengths = packed.delta.expect("a delta");
    let numbers = [lengths.list, lengths.base, packed.raw_len];
    let numbers: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()[..2].to_vec()).collect();
    vec![[&numbers, &packed.stored[..]].concat()]
}
