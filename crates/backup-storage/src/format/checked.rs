//! JSON objects that carry their own check: `holdfast.json` and key slots.

use sha2::{Digest, Sha256};

use super::hex;

/// What comes before the digest in the last line but one.
const CHECK: &str = "  \"check\": \"";

/// Adds the check to `members`, the text of an object up to and with the comma behind its last
/// member but one and a line feed.
pub(super) fn close(members: &str) -> Vec<u8> {
    let check = hex(&Sha256::digest(members.as_bytes()));
    format!("{members}{CHECK}{check}\"\n}}\n").into_bytes()
}

/// Checks the bytes of an object, and gives its text and the part of it that is covered.
///
/// # Errors
/// What is wrong with it, in a few words.
pub(super) fn open(bytes: &[u8]) -> Result<(&str, &str), &'static str> {
    let text = str::from_utf8(bytes).map_err(|_| "it is no text")?;
    let (covered, tail) = text.rfind(CHECK).map(|at| text.split_at(at)).ok_or("it has no check")?;
    let check = hex(&Sha256::digest(covered.as_bytes()));
    if tail != format!("{CHECK}{check}\"\n}}\n") {
        return Err("it does not match its check");
    }
    Ok((text, covered))
}

/// The members of a JSON object as [`close`] takes them.
pub(super) fn members(object: &impl serde::Serialize) -> String {
    let json = serde_json::to_string_pretty(object).expect("plain strings and numbers");
    format!("{},\n", json.trim_end_matches("\n}"))
}
