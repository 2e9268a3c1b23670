//! Codecs: whatever the bytes, exactly as many come out as the frame says, or none. The first byte
//! is the codec, the next three are the raw length, the rest is the payload.

use backup_storage::format::{Codec, Compression, compress, decompress};
use bytes::Bytes;

const COMPRESSIONS: [Compression; 6] = [
    Compression::None,
    Compression::Zstd(3),
    Compression::Lz4,
    Compression::Gzip(1),
    Compression::Xz(0),
    Compression::Auto,
];

pub fn run(bytes: &[u8]) {
    let Some((&[codec, a, b, c], payload)) = bytes.split_first_chunk::<4>() else { return };
    let raw_len = u32::from_le_bytes([a, b, c, 0]);
    let payload = Bytes::copy_from_slice(payload);
    let codec = Codec::ALL[usize::from(codec) % Codec::ALL.len()];
    if let Ok(raw) = decompress(codec, raw_len, payload.clone()) {
        assert_eq!(raw.len(), raw_len as usize);
    }
    // The way back, with the same bytes as content.
    let compression = COMPRESSIONS[usize::from(a) % COMPRESSIONS.len()];
    let packed = compress(compression, payload.clone()).expect("enough memory");
    assert!(packed.stored.len() <= payload.len());
    let raw = decompress(packed.codec, packed.raw_len, packed.stored);
    assert_eq!(raw.as_ref(), Ok(&payload));
}

pub fn seeds() -> Vec<Vec<u8>> {
    let raw: Vec<u8> = (0..3000u32).map(|i| (i / 7 % 50) as u8).collect();
    let len = u32::try_from(raw.len()).expect("short").to_le_bytes();
    let mut seeds: Vec<Vec<u8>> = COMPRESSIONS
        .iter()
        .map(|compression| {
            let packed = compress(*compression, raw.clone().into()).expect("enough memory");
            [&[packed.codec as u8], &len[..3], &packed.stored].concat()
        })
        .collect();
    // bzip2 has no writer here: `printf holdfast | bzip2`.
    let bzip2 = b"BZh91AY&SY\x0bw\x05l\x00\x00\x01\x81\x80%D\x8c\x00 \x001\x0c\x08!\xa6\x8fI\x9a\xe0\x13\xc5\xdc\x91N\x14$\x02\xdd\xc1[\x00";
    seeds.push([&[5, 8, 0, 0], &bzip2[..]].concat());
    seeds
}
