//! Parts of maps: what parses stays within its bounds and comes back as it was.

use backup_storage::format::{MAP_PART, MAX_RAW, MapPart, Run, RunBase, Spot};

pub fn run(bytes: &[u8]) {
    let Ok(part) = MapPart::parse(bytes) else { return };
    assert!(part.hashes.len() <= MAP_PART as usize && part.hashes.len() == part.lengths.len());
    let units: u64 = part.runs.iter().map(|run| u64::from(run.units)).sum();
    assert_eq!(units, part.hashes.len() as u64);
    let length: u64 = part.lengths.iter().map(|&len| u64::from(len)).sum();
    assert!(part.start.checked_add(length).is_some());
    for spot in part.runs.iter().flat_map(|run| [Some(run.spot), run.base.map(|base| base.spot)]) {
        let Some(spot) = spot else { continue };
        assert!(usize::from(spot.backup) < part.backups.len() && spot.raw_offset <= MAX_RAW);
    }
    assert_eq!(MapPart::parse(&part.encode()).expect("what was written can be read"), part);
}

pub fn seeds() -> Vec<Vec<u8>> {
    let spot = Spot { backup: 0, pack: 2, offset: 16, frame_len: 96, raw_offset: 5, check: [7; 8] };
    let base = RunBase { spot: Spot { pack: 1, ..spot }, len: 200 };
    let part = MapPart {
        start: 32_768,
        backups: vec!["20261120T101530Z-full-7f3a9c".parse().expect("an id")],
        hashes: vec![[1; 16], [2; 16], [3; 16]],
        lengths: vec![16_384, 16_384, 100],
        runs: vec![Run { units: 2, spot, base: None }, Run { units: 1, spot, base: Some(base) }],
    };
    let empty =
        MapPart { start: 0, backups: vec![], hashes: vec![], lengths: vec![], runs: vec![] };
    let seeds = vec![part.encode(), empty.encode()];
    seeds.iter().for_each(|seed| drop(MapPart::parse(seed).expect("a good part")));
    seeds
}
