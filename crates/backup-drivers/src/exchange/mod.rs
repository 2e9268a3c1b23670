//! Files of other people: what is handed out to them, and what they bring.
//!
//! A [`FileSet`] writes files that appear whole or not at all; [`Codec`] compresses and decompresses
//! streams as `gzip`, `bzip2`, `xz`, `zstd` and `lz4` do.

mod codec;
mod sums;
mod writer;

pub use codec::Codec;
pub use sums::{SumKind, Sums};
pub use writer::{FileSet, FileWriter, WrittenFile};
