//! Key slots: what parses comes back as it was, asks for no more memory than a slot may, and opens with
//! its key file only as it was made.

use std::fmt::Write;
use std::sync::OnceLock;

use backup_core::{Context, Secret, SecretBytes};
use backup_storage::SlotName;
use backup_storage::format::{Argon2Cost, Slot, Unlock};
use sha2::{Digest, Sha256};

const MASTER: [u8; 32] = *b"the master key of the repository";
const CHECK: &str = "  \"check\": \"";

fn key_file() -> Unlock {
    Unlock::KeyFile(SecretBytes::new(vec![7; 32]))
}

fn originals() -> &'static [Slot] {
    static SLOTS: OnceLock<Vec<Slot>> = OnceLock::new();
    SLOTS.get_or_init(|| {
        let cx = Context::builder().build();
        let repository = "00112233445566778899aabbccddeeff".parse().expect("an id");
        let cheap = Argon2Cost { memory_kib: 8, iterations: 1, lanes: 1 };
        [key_file(), Unlock::Passphrase(Secret::new("correct horse"))]
            .map(|unlock| {
                Slot::wrap(&cx, &repository, &MASTER, &unlock, "night \"shift\"", cheap)
                    .expect("a good slot")
            })
            .into()
    })
}

/// The check keeps the fuzzer out of what lies behind it, so changed text also gets the right one.
fn checked(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(bytes).ok()?;
    let members = &text[..text.rfind(CHECK)?];
    let check = Sha256::digest(members).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    Some(format!("{members}{CHECK}{check}\"\n}}\n").into_bytes())
}

pub fn run(bytes: &[u8]) {
    for bytes in [Some(bytes.to_vec()), checked(bytes)].into_iter().flatten() {
        for original in originals() {
            parse(original.name(), &bytes);
        }
        // A slot that says it has another name.
        let said = serde_json::from_slice::<serde_json::Value>(&bytes).ok();
        let said = said.as_ref().and_then(|json| json.get("slot")?.as_str());
        if let Some(name) = said.and_then(|name| name.parse().ok()) {
            parse(&name, &bytes);
        }
    }
}

fn parse(name: &SlotName, bytes: &[u8]) {
    let Ok(slot) = Slot::parse(name, bytes) else { return };
    assert_eq!(slot.name(), name);
    assert!(slot.memory() <= 256 << 20);
    assert!(slot.label().len() <= Slot::MAX_LABEL);
    assert_eq!(slot.encode(), bytes);
    assert!(Slot::parse(name, &slot.encode()).is_ok_and(|again| again == slot));
    // A passphrase may take seconds, which are its own business.
    if slot.memory() == 0
        && let Some(master) = slot.unwrap(&key_file())
    {
        assert!(*master == MASTER && originals().contains(&slot), "another slot opens");
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    originals().iter().map(Slot::encode).collect()
}
