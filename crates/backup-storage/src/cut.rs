//! Where streams are cut into units: where their content says so, so that what was moved by an
//! insertion is cut as before.

use std::sync::Arc;

use fastcdc::v2020::{self, Normalization};

use crate::format::Keys;

/// The shortest, the usual and the longest chunk.
const MIN: usize = 16 << 10;
const USUAL: usize = 64 << 10;
pub(crate) const MAX: usize = 256 << 10;

/// A chunker: FastCDC (Xia et al., 2020). Where the repository is encrypted its table of random numbers
/// is secret, since the lengths of chunks would else tell what is in them (eprint 2025/558).
#[derive(Clone)]
pub(crate) struct Chunker {
    gear: Arc<[u64]>,
    /// The same, shifted by one.
    shifted: Arc<[u64]>,
    masks: (u64, u64),
}

impl Chunker {
    pub(crate) fn new(keys: Option<&Keys>) -> Self {
        let gear: Vec<u64> = match keys {
            None => v2020::get_gear_with_seed(0).0.into_owned(),
            Some(keys) => (0..64)
                .flat_map(|block| {
                    let bytes = keys.derive(&format!("holdfast chunker {block}"));
                    let numbers = bytes.as_chunks::<8>().0.iter().map(|n| u64::from_le_bytes(*n));
                    numbers.collect::<Vec<_>>()
                })
                .collect(),
        };
        let shifted = gear.iter().map(|n| n << 1).collect();
        let masks = v2020::select_masks(USUAL, Normalization::Level1);
        Chunker { gear: gear.into(), shifted, masks }
    }

    /// How long the chunk is that `bytes` begin with; `None` when more bytes are needed to tell.
    /// `last` says that there are no more.
    pub(crate) fn cut(&self, bytes: &[u8], last: bool) -> Option<usize> {
        if bytes.len() < MAX && !last {
            return None;
        }
        let (small, large) = self.masks;
        let (gear, shifted) = (&self.gear, &self.shifted);
        let (_, len) = v2020::cut_gear(
            bytes,
            MIN,
            USUAL,
            MAX,
            small,
            large,
            small << 1,
            large << 1,
            gear,
            shifted,
        );
        Some(len)
    }
}
