//! Headers and frames: no bytes make the parser panic or reserve more than a frame may hold, and none
//! that were not sealed for a place open there.
#![no_main]

use backup_storage::format::{
    Codec, FRAME_HEADER_LEN, FrameHeader, FrameKind, ObjectKind, Packed, Place, RepositoryId,
    decompress, open, seal,
};
use backup_storage::{BackupObject, Key};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let id: RepositoryId = "00112233445566778899aabbccddeeff".parse().expect("an id");
    let cluster = "c".parse().expect("a name");
    let backup = "20261120T101530Z-full-7f3a9c".parse().expect("an id");
    let place = Place::new(&id, &Key::Backup(cluster, backup, BackupObject::Pack(0)));
    let _ = place.check_object_header(ObjectKind::Pack, bytes);
    let _ = FrameHeader::find(bytes, 0);
    if let Some((header, payload)) = bytes.split_first_chunk::<FRAME_HEADER_LEN>()
        && let Ok(header) = FrameHeader::parse(header)
    {
        assert!(header.stored_len <= header.raw_len);
        let _ = open(&place, 16, &header, Bytes::copy_from_slice(payload));
    }
    // What lies behind the digest: any payload, truly sealed.
    let Some((raw_len, stored)) = bytes.split_first_chunk::<4>() else { return };
    let raw_len = u32::from_le_bytes(*raw_len) % (1 << 20);
    let stored = Bytes::copy_from_slice(stored);
    let packed = Packed { codec: Codec::Zstd, raw_len, stored: stored.clone() };
    let (header, sealed) = seal(&place, 16, FrameKind::Data, &packed).expect("short enough");
    let content = decompress(Codec::Zstd, raw_len, stored.clone());
    if FrameHeader::parse(&sealed).is_ok() {
        assert_eq!(open(&place, 16, &header, stored.clone()).ok(), content.ok());
        assert!(open(&place, 17, &header, stored).is_err());
    }
});
