use super::*;
use proptest::prelude::*;

/// One of each codec that writes, and of each kind of level.
fn compressions() -> impl Strategy<Value = Compression> {
    prop_oneof![
        Just(Compression::Auto),
        Just(Compression::None),
        Just(Compression::Lz4),
        (1u8..=19).prop_map(Compression::Zstd),
        (1u8..=9).prop_map(Compression::Gzip),
        (0u8..=9).prop_map(Compression::Xz),
    ]
}

fn codec_of(compression: Compression) -> Codec {
    match compression {
        Compression::None => Codec::None,
        Compression::Auto | Compression::Zstd(_) => Codec::Zstd,
        Compression::Lz4 => Codec::Lz4,
        Compression::Gzip(_) => Codec::Gzip,
        Compression::Xz(_) => Codec::Xz,
    }
}

/// The smallest level of each codec, and bzip2, of the same bytes.
fn packed(raw: &[u8]) -> Vec<Packed> {
    let mut all: Vec<Packed> =
        [Compression::Lz4, Compression::Zstd(1), Compression::Gzip(1), Compression::Xz(1)]
            .into_iter()
            .map(|compression| compress(compression, Bytes::copy_from_slice(raw)).unwrap())
            .collect();
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(raw).unwrap();
    let stored = encoder.finish().unwrap().into();
    all.push(Packed { codec: Codec::Bzip2, raw_len: raw.len() as u32, delta: None, stored });
    all
}

proptest! {
    #[test]
    fn bytes_come_back(
        raw in prop::collection::vec(prop_oneof![Just(7u8), any::<u8>()], 0..5000),
        compression in compressions(),
    ) {
        let raw = Bytes::from(raw);
        let packed = compress(compression, raw.clone()).unwrap();
        prop_assert!(packed.stored.len() <= raw.len());
        let smaller = packed.stored.len() < raw.len();
        prop_assert_eq!(packed.codec, if smaller { codec_of(compression) } else { Codec::None });
        prop_assert_eq!(decompress(packed.codec, packed.raw_len, packed.stored).unwrap(), raw);
    }

    #[test]
    fn any_bytes_are_survived(
        stored in prop::collection::vec(any::<u8>(), 0..300),
        raw_len in 0u32..1000,
    ) {
        for codec in Codec::ALL {
            if let Ok(raw) = decompress(codec, raw_len, stored.clone().into()) {
                prop_assert_eq!(raw.len(), raw_len as usize);
            }
        }
    }

    #[test]
    fn changed_streams_are_survived(
        raw in prop::collection::vec(prop_oneof![Just(7u8), any::<u8>()], 600..3000),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        for packed in packed(&raw) {
            let mut bytes = packed.stored.to_vec();
            for (at, value) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            if let Ok(raw) = decompress(packed.codec, packed.raw_len, bytes.into()) {
                prop_assert_eq!(raw.len(), packed.raw_len as usize);
            }
            if packed.codec == Codec::None {
                continue;
            }
            // A piece of a stream is no stream.
            let cut = packed.stored.slice(..cut.index(packed.stored.len()));
            prop_assert!(decompress(packed.codec, packed.raw_len, cut).is_err());
        }
    }
}

#[test]
fn a_bomb_gives_no_more_than_its_frame_says() {
    for packed in packed(&vec![0; 8 << 20]) {
        let stored = packed.stored;
        assert!(stored.len() < 100_000, "{:?}", packed.codec);
        assert_eq!(decompress(packed.codec, 8 << 20, stored.clone()).unwrap().len(), 8 << 20);
        for wrong in [0, 1000, (8 << 20) - 1, (8 << 20) + 1] {
            assert!(
                decompress(packed.codec, wrong, stored.clone()).is_err(),
                "{:?} {wrong}",
                packed.codec
            );
        }
    }
}

#[test]
fn a_stream_ends_with_its_frame() {
    for packed in packed(&b"0123456789".repeat(100)) {
        for behind in [&b"\0"[..], b"\0\0\0\0", &packed.stored.clone()] {
            let stored = [&packed.stored, behind].concat();
            assert!(
                decompress(packed.codec, packed.raw_len, stored.into()).is_err(),
                "{:?} {behind:?}",
                packed.codec
            );
        }
    }
}

#[test]
fn a_stream_of_xz_must_not_ask_for_more_memory_than_its_frame() {
    // Preset 9 has a dictionary of 64 MiB, whatever is in the stream.
    let raw = b"0123456789".repeat(1000);
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 9);
    encoder.write_all(&raw).unwrap();
    let stored = Bytes::from(encoder.finish().unwrap());
    let problem = decompress(Codec::Xz, raw.len() as u32, stored).unwrap_err();
    assert!(problem.contains("memory"), "{problem}");
    // What we write ourselves asks for what it needs, at every length and preset.
    for length in [1usize, 4095, 4097, 70_000, (1 << 20) + 1, 4 << 20] {
        for preset in [0, 6, 9] {
            let raw = Bytes::from(b"0123456789".repeat(length.div_ceil(10)));
            let packed = compress(Compression::Xz(preset), raw.clone()).unwrap();
            assert_eq!(decompress(packed.codec, packed.raw_len, packed.stored).unwrap(), raw);
        }
    }
}

/// Written by `gzip`, `xz --lzma2=dict=4KiB`, `bzip2` and `lz4` (without its frame): anybody's
/// streams are read.
#[test]
fn streams_of_other_programs() {
    let raw = [&b"holdfast"[..]; 8].concat();
    for (codec, hex) in STREAMS {
        let stored: Vec<u8> = (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        assert_eq!(decompress(codec, 64, stored.into()).unwrap(), raw, "{codec:?}");
    }
}

const STREAMS: [(Codec, &str); 4] = [
    (Codec::Gzip, "1f8b0800000000000203cbc8cf49494b2c2ec920930600a590f41d40000000"),
    (
        Codec::Xz,
        "fd377a585a000004e6d6b4460200210100000000372797d6e0003f000f5d00341bc9cd8ab8a6af3fb5cc77a8000000004de8481b24b2f33c00012b40d2092a201fb6f37d010000000004595a",
    ),
    (
        Codec::Bzip2,
        "425a68393141592653597dc7960b00000f818025448c002000310c080aa869b4787c50c1041060d1772453850907dc7960b0",
    ),
    (Codec::Lz4, "8f686f6c646661737408001d80686f6c6466617374"),
];
