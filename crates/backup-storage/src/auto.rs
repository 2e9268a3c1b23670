//! `--compression auto`: what does not get smaller is left as it is, and everything else is
//! compressed as hard as the slower of source and store leaves time for.
//!
//! A controller climbs and descends a ladder of compressions. When frames wait for room, the store
//! does not take packs as fast as they come: smaller packs would help, and there is time to make
//! them. When they wait for a thread, compression itself is what holds everything up. When they
//! wait for nothing, the source is the slowest, and all is well as it is.

use std::sync::Mutex;
use std::time::Duration;

use crate::format::{Codec, Compression, compress};
use crate::sync::lock;

/// From the quickest to the smallest. Measured on pages of InnoDB in docs/compression.md; what is beyond
/// needs far more memory for a few hundredths. [`Compression::memory`] knows the last one.
const LADDER: [Compression; 5] = [
    Compression::Lz4,
    Compression::Zstd(1),
    Compression::Zstd(3),
    Compression::Zstd(6),
    Compression::Zstd(9),
];
/// Where it begins.
const FIRST: usize = 1;

/// How many frames there are between two looks. Packs of 32 MiB free room for all frames of one at
/// once, so a look has to span more than those.
const LOOK: u32 = 64;
/// How much of what was seen before counts at the next look.
const MEMORY: f64 = 0.5;
/// Shorter waits for each frame, in seconds, mean nothing: threads are handed over in such times.
const NOTHING: f64 = 0.000_3;
/// How many times as long one wait must be as the other.
const CLEARLY: f64 = 2.0;

/// How many bytes of a frame are tried, in so many pieces.
const SAMPLE: usize = 32 << 10;
const PIECES: usize = 8;

/// What a frame waited for on its way to a compressing thread.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Load {
    /// For room, which the store makes by taking packs.
    pub(crate) for_store: Duration,
    /// For a thread.
    pub(crate) for_thread: Duration,
}

/// Chooses the compression of each frame.
#[derive(Default)]
pub(crate) struct Auto(Mutex<State>);

struct State {
    rung: usize,
    frames: u32,
    for_store: f64,
    for_thread: f64,
}

impl Default for State {
    fn default() -> Self {
        State { rung: FIRST, frames: 0, for_store: 0.0, for_thread: 0.0 }
    }
}

impl Auto {
    /// How the next frame, which waited so long, is compressed if it can be.
    pub(crate) fn choose(&self, load: Load) -> Compression {
        let mut state = lock(&self.0);
        state.frames += 1;
        state.for_store += load.for_store.as_secs_f64();
        state.for_thread += load.for_thread.as_secs_f64();
        if state.frames == LOOK {
            state.look();
        }
        LADDER[state.rung]
    }
}

impl State {
    fn look(&mut self) {
        let nothing = NOTHING * f64::from(LOOK);
        if self.for_store > nothing.max(self.for_thread * CLEARLY) {
            self.rung = (self.rung + 1).min(LADDER.len() - 1);
        } else if self.for_thread > nothing.max(self.for_store * CLEARLY) {
            self.rung = self.rung.saturating_sub(1);
        }
        self.frames = 0;
        self.for_store *= MEMORY;
        self.for_thread *= MEMORY;
    }
}

/// Whether a sample of the frame gets smaller by a thirty-second at least. With an entropy coder:
/// hexadecimal digits have no repetitions, and yet half of them is air.
pub(crate) fn gets_smaller(raw: &[u8]) -> bool {
    if raw.len() <= 2 * SAMPLE {
        // To try it is to do it.
        return true;
    }
    // Pieces that do not all begin where pages do.
    let (piece, stride) = (SAMPLE / PIECES, raw.len() / PIECES);
    let sample: Vec<u8> = (0..PIECES)
        .flat_map(|i| {
            let room = stride - piece;
            let start = i * stride + room * (i + 1) / (PIECES + 1);
            raw[start..start + piece].iter().copied()
        })
        .collect();
    let length = sample.len();
    compress(Compression::Zstd(1), sample.into()).is_ok_and(|packed| {
        packed.codec != Codec::None && packed.stored.len() < length - length / 32
    })
}

#[cfg(test)]
mod tests;
