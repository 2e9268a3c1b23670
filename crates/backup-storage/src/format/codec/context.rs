//! Working memory of zstd, used again rather than set up for every frame.

use std::io::Result;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, Strategy};

use super::pool::Pool;

/// The highest level whose memory is kept: beyond it is a multiple of the frame.
const KEPT: u8 = 3;
/// How many are kept.
const CONTEXTS: usize = 4;

static COMPRESSORS: Pool<(u8, Compressor<'static>), CONTEXTS> = Pool::new();
static DECOMPRESSORS: Pool<Decompressor<'static>, CONTEXTS> = Pool::new();

/// The fastest level looks for matches of five bytes rather than seven, with room to remember four times as
/// many: what databases keep is full of short repetitions. docs/compression.md has what that gains.
const FASTEST: [CParameter; 3] =
    [CParameter::Strategy(Strategy::ZSTD_fast), CParameter::HashLog(16), CParameter::MinMatch(5)];

fn compressor(level: u8) -> Result<Compressor<'static>> {
    let mut compressor = Compressor::new(i32::from(level))?;
    if level == 1 {
        for parameter in FASTEST {
            compressor.set_parameter(parameter)?;
        }
    }
    Ok(compressor)
}

pub(super) fn compress(raw: &[u8], level: u8) -> Result<Vec<u8>> {
    if level > KEPT {
        return compressor(level)?.compress(raw);
    }
    let mut context = match COMPRESSORS.take(|(kept, _)| *kept == level) {
        Some((_, context)) => context,
        None => compressor(level)?,
    };
    let compressed = context.compress(raw)?;
    COMPRESSORS.give_back((level, context));
    Ok(compressed)
}

/// Fills what room `raw` has.
pub(super) fn decompress(stored: &[u8], raw: &mut Vec<u8>) -> Result<()> {
    let mut context = match DECOMPRESSORS.take(|_| true) {
        Some(context) => context,
        None => Decompressor::new()?,
    };
    context.decompress_to_buffer(stored, raw)?;
    DECOMPRESSORS.give_back(context);
    Ok(())
}
