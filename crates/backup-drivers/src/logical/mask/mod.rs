//! Masking: values that are changed on the way, so that a copy can be given to people who must not
//! see the originals.
//!
//! Values change between the row packet and the block, before anything is stored. What is made of a
//! value depends on the value and on a secret that is never stored, so that equal values stay equal
//! in every table of the backup, and nobody can try values out.

mod charset;
mod column;
mod fixed;
mod guards;
mod rules;
mod table;
mod value;

pub use rules::{MaskRule, MaskRules, MaskWith};
pub(super) use table::{Masks, TableMask};
