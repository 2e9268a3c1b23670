//! How fast rows become blocks, and blocks rows and lines again: the best of many runs over rows
//! like those of a shop's line items. Run with `--release`; nothing is asserted.

#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use backup_core::Result;
use backup_drivers::rows::{Block, BlockEncoder, Kind, TextFormat};

const KINDS: [Kind; 9] = [
    Kind::U64,
    Kind::I64,
    Kind::I32,
    Kind::Bytes,
    Kind::Bytes,
    Kind::Bytes,
    Kind::Date,
    Kind::DateTime,
    Kind::Bytes,
];

fn main() -> Result<()> {
    let rows: Vec<Vec<u8>> = (0..30_000).map(row).collect();
    let raw: usize = rows.iter().map(Vec::len).sum();
    let formats = [TextFormat { decimals: 6 }; KINDS.len()];
    let mut encoder = BlockEncoder::new(&KINDS, BlockEncoder::DEFAULT_TARGET)?;

    let mut blocks = Vec::new();
    measure("rows to blocks", raw, || {
        blocks.clear();
        for row in &rows {
            encoder.push(row)?;
            if encoder.is_full() {
                blocks.push(encoder.finish().bytes);
            }
        }
        blocks.push(encoder.finish().bytes);
        Ok(())
    })?;
    let size: usize = blocks.iter().map(bytes::Bytes::len).sum();
    println!("{raw} bytes of rows are {size} bytes of blocks before compression");

    let blocks = blocks.into_iter().map(Block::parse).collect::<Result<Vec<_>>>()?;
    measure("blocks to rows", raw, || {
        blocks.iter().try_for_each(|block| {
            block.packets(|packet| {
                std::hint::black_box(packet);
                Ok(())
            })
        })
    })?;
    measure("blocks to digests", raw, || {
        blocks.iter().try_for_each(|block| block.verify().map(drop))
    })?;
    let mut lines = Vec::new();
    measure("blocks to lines", raw, || {
        lines.clear();
        blocks.iter().try_for_each(|block| block.write_tsv(&mut lines, &formats))
    })
}

/// Prints bytes of row packets per second.
fn measure(what: &str, bytes: usize, mut work: impl FnMut() -> Result<()>) -> Result<()> {
    let (start, mut best) = (Instant::now(), Duration::MAX);
    while start.elapsed() < Duration::from_secs(1) {
        let run = Instant::now();
        work()?;
        best = best.min(run.elapsed());
    }
    println!("{what:18} {:6.0} MB/s", bytes as f64 / best.as_secs_f64() / 1e6);
    Ok(())
}

fn row(n: u64) -> Vec<u8> {
    let mut seed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let (month, day) = ((n % 12 + 1) as u8, (n % 28 + 1) as u8);
    let mut row = vec![0; 3];
    row.extend_from_slice(&n.to_le_bytes());
    row.extend_from_slice(&(n / 4).to_le_bytes());
    row.extend_from_slice(&(random(200_000) as u32).to_le_bytes());
    let words = ["iron", "copper", "velvet", "orchard", "lantern", "mist", "quartz", "bell"];
    let comment: Vec<&str> = (0..5).map(|_| words[random(8) as usize]).collect();
    let strings = [
        format!("{}.00", random(49) + 1),
        format!("{}.{:02}", random(100_000), random(100)),
        ["A", "R", "N"][random(3) as usize].to_owned(),
    ];
    for string in &strings {
        row.push(string.len() as u8);
        row.extend_from_slice(string.as_bytes());
    }
    row.extend_from_slice(&[4, 0xe8, 0x07, month, day]);
    row.extend_from_slice(&[11, 0xe8, 0x07, month, day, (n % 24) as u8, (n % 60) as u8, 1]);
    row.extend_from_slice(&(random(999_999) as u32 + 1).to_le_bytes());
    let comment = comment.join(" ");
    row.push(comment.len() as u8);
    row.extend_from_slice(comment.as_bytes());
    row
}
