//! Headers and frames: no bytes make the parser panic or reserve more than a frame may hold, and none
//! that were not sealed for a place open there.

use std::sync::OnceLock;

use backup_core::Context;
use backup_storage::format::{
    Cipher, Codec, Compression, FRAME_HEADER_LEN, FrameHeader, FrameKind, Keys, Packed, Place,
    Seals, compress, decompress, open, seal,
};
use backup_storage::{BackupObject, Key};
use bytes::Bytes;
use zeroize::Zeroizing;

/// A place in a repository without encryption, and one in a repository with it.
pub fn places() -> [Place; 2] {
    static CONTEXT: OnceLock<Context> = OnceLock::new();
    let cx = CONTEXT.get_or_init(|| Context::builder().build());
    let cluster = "c".parse().expect("a name");
    let backup = "20261120T101530Z-full-7f3a9c".parse().expect("an id");
    let key = Key::Backup(cluster, backup, BackupObject::Pack(0));
    [None, Some(Keys::new(Cipher::Aes256Gcm, Zeroizing::new([7; 32])))].map(|keys| {
        let repository = "00112233445566778899aabbccddeeff".parse().expect("an id");
        Seals { repository, keys }.new_place(cx, &key)
    })
}

pub fn run(bytes: &[u8]) {
    let places = places();
    let _ = FrameHeader::find(bytes, 0);
    if let Some((header, payload)) = bytes.split_first_chunk::<FRAME_HEADER_LEN>()
        && let Ok(header) = FrameHeader::parse(header)
    {
        assert!(header.stored_len <= header.raw_len);
        for place in &places {
            let _ = open(place, 16, &header, Bytes::copy_from_slice(payload));
        }
    }
    // What lies behind the digest: any payload, truly sealed.
    let Some((&[codec, a, b, c], stored)) = bytes.split_first_chunk::<4>() else { return };
    let codec = Codec::ALL[usize::from(codec) % Codec::ALL.len()];
    let raw_len = u32::from_le_bytes([a, b, c, 0]) % (1 << 20);
    let stored = Bytes::copy_from_slice(stored);
    let content = decompress(codec, raw_len, stored.clone()).ok();
    let [plain, encrypted] = &places;
    for (place, other) in [(plain, encrypted), (encrypted, plain)] {
        let packed = Packed { codec, raw_len, delta: None, stored: stored.clone() };
        let frame = seal(place, 16, FrameKind::Data, packed).expect("short enough");
        if FrameHeader::parse(&frame.head).is_ok() {
            assert_eq!(open(place, 16, &frame.header, frame.payload.clone()).ok(), content);
            assert!(open(place, 17, &frame.header, frame.payload.clone()).is_err());
            assert!(open(other, 16, &frame.header, frame.payload).is_err());
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for place in places() {
        for raw in [b"".to_vec(), b"0123456789".repeat(100), b"holdfast".to_vec()] {
            let packed = compress(Compression::Zstd(1), raw.into()).expect("enough memory");
            let frame = seal(&place, 16, FrameKind::Data, packed).expect("short enough");
            seeds.push([&frame.head, &frame.payload[..]].concat());
        }
    }
    seeds
}
