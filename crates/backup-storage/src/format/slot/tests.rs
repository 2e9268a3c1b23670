use backup_core::{Secret, SecretBytes};

use super::*;
use proptest::prelude::*;

const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 8, iterations: 1, lanes: 1 };
const MASTER: [u8; 32] = *b"the master key of the repository";

fn repository() -> RepositoryId {
    "00112233445566778899aabbccddeeff".parse().unwrap()
}

fn passphrase(text: &str) -> Unlock {
    Unlock::Passphrase(Secret::new(text))
}

fn key_file(byte: u8) -> Unlock {
    Unlock::KeyFile(SecretBytes::new(vec![byte; 32]))
}

fn wrap(unlock: &Unlock, label: &str) -> Result<Slot> {
    let cx = Context::builder().build();
    Slot::wrap(&cx, &repository(), &MASTER, unlock, label, CHEAP)
}

/// Changes the text of a slot and gives it a check that fits.
fn forged(slot: &Slot, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(slot.encode()).unwrap();
    let members = text.split_inclusive("\",\n  \"check").next().unwrap();
    let members = members.strip_suffix("  \"check").unwrap();
    assert!(members.contains(from), "{members}");
    checked::close(&members.replacen(from, to, 1))
}

#[test]
fn a_slot_opens_with_what_made_it_and_with_nothing_else() {
    for right in [passphrase("correct horse"), passphrase("\u{e4}\u{1f600}"), key_file(1)] {
        let slot = wrap(&right, "of the \"night\" shift, \u{1f600}").unwrap();
        let parsed = Slot::parse(slot.name(), &slot.encode()).unwrap();
        assert!(parsed == slot);
        assert_eq!(*parsed.unwrap(&right).unwrap(), MASTER);
        for wrong in [passphrase("correct horsf"), key_file(2), passphrase(&"\x01".repeat(32))] {
            assert!(parsed.unwrap(&wrong).is_none(), "{parsed:?} {:?}", wrong.kind());
        }
    }
}

#[test]
fn the_object_is_as_documented() {
    let slot = wrap(&passphrase("p"), "ops").unwrap();
    let text = String::from_utf8(slot.encode()).unwrap();
    let keys: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix('"')?.split_once('"'))
        .map(|(key, _)| key)
        .collect();
    assert_eq!(
        keys,
        [
            "format",
            "repository",
            "slot",
            "kind",
            "label",
            "created_at",
            "kdf",
            "name",
            "memory_kib",
            "iterations",
            "lanes",
            "salt",
            "nonce",
            "wrapped",
            "check"
        ]
    );
    assert!(!text.contains(&hex(&MASTER)) && !text.contains("\"p\""));
    // Two slots share neither salt nor nonce nor wrapped key.
    let other = wrap(&passphrase("p"), "ops").unwrap();
    assert!(other.head.nonce != slot.head.nonce && other.head.kdf != slot.head.kdf);
    assert_ne!(other.wrapped, slot.wrapped);
}

#[test]
fn every_changed_bit_and_every_cut_is_seen() {
    let slot = wrap(&key_file(1), "ops").unwrap();
    let good = slot.encode();
    let refused = |bytes: &[u8], what: &str| {
        let e = Slot::parse(slot.name(), bytes).err().unwrap_or_else(|| panic!("{what}"));
        assert_eq!(e.kind(), ErrorKind::Store, "{what}");
        let said = e.report();
        assert!(said.contains("keys/") && said.contains("damaged"), "{what}: {said}");
    };
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        refused(&bad, &format!("bit {bit}"));
    }
    for length in 0..good.len() {
        refused(&good[..length], &format!("length {length}"));
    }
    refused(&[&good[..], b"\n"].concat(), "longer");
}

/// Everything in the slot is bound to the wrapped key: who writes to the store can put a check on
/// a change, and yet the slot does not open.
#[test]
fn a_forged_slot_does_not_open() {
    for unlock in [key_file(1), passphrase("p")] {
        let slot = wrap(&unlock, "ops").unwrap();
        let good = slot.encode();
        let end = good.windows(9).position(|w| w == b"  \"check\"").unwrap();
        for bit in 0..end * 8 {
            let mut members = good[..end].to_vec();
            members[bit / 8] ^= 1 << (bit % 8);
            let Ok(members) = String::from_utf8(members) else { continue };
            let parsed = Slot::parse(slot.name(), &checked::close(&members));
            if let Ok(parsed) = parsed {
                assert!(parsed.unwrap(&unlock).is_none(), "bit {bit}: {members}");
            }
        }
    }
    let slot = wrap(&key_file(1), "ops").unwrap();
    let relabelled = forged(&slot, "\"ops\"", "\"dev\"");
    let parsed = Slot::parse(slot.name(), &relabelled).unwrap();
    assert_eq!(parsed.label(), "dev");
    assert!(parsed.unwrap(&key_file(1)).is_none());
}

#[test]
fn a_slot_cannot_ask_for_more_than_its_share() {
    let slot = wrap(&passphrase("p"), "").unwrap();
    for (member, value) in [
        ("\"memory_kib\": 8", "\"memory_kib\": 262145"),
        ("\"memory_kib\": 8", "\"memory_kib\": 4294967295"),
        ("\"memory_kib\": 8", "\"memory_kib\": 7"),
        ("\"memory_kib\": 8", "\"memory_kib\": 0"),
        ("\"iterations\": 1", "\"iterations\": 4294967295"),
        ("\"iterations\": 1", "\"iterations\": 262145"),
        ("\"iterations\": 1", "\"iterations\": 0"),
        ("\"lanes\": 1", "\"lanes\": 17"),
        ("\"lanes\": 1", "\"lanes\": 0"),
    ] {
        let e = Slot::parse(slot.name(), &forged(&slot, member, value)).unwrap_err();
        assert!(e.report().contains("more memory or time"), "{value}: {}", e.report());
    }
    for (member, value) in [
        ("\"memory_kib\": 8", "\"memory_kib\": 4294967296"),
        ("\"memory_kib\": 8", "\"memory_kib\": -8"),
        ("\"memory_kib\": 8", "\"memory_kib\": 8.0"),
        ("argon2id", "argon2i"),
        ("\"passphrase\"", "\"key-file\""),
    ] {
        let e = Slot::parse(slot.name(), &forged(&slot, member, value)).unwrap_err();
        assert!(e.report().contains("damaged"), "{value}: {}", e.report());
    }
    let newer = forged(&slot, "\"format\": 1", "\"format\": 2");
    let e = Slot::parse(slot.name(), &newer).unwrap_err();
    assert!(e.report().contains("newer holdfast"), "{}", e.report());
    let elsewhere: SlotName = "00000000".parse().unwrap();
    assert!(Slot::parse(&elsewhere, &slot.encode()).is_err());
    let cost = Argon2Cost { memory_kib: 1 << 30, ..CHEAP };
    let cx = Context::builder().build();
    let e = Slot::wrap(&cx, &repository(), &MASTER, &passphrase("p"), "", cost).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Usage);
    assert!(Argon2Cost::default().params().is_some());
}

#[test]
fn weak_secrets_and_wild_labels_are_refused() {
    let file = |len| Unlock::KeyFile(SecretBytes::new(vec![7; len]));
    for unlock in [passphrase(""), file(0), file(31), file((1 << 20) + 1)] {
        assert_eq!(wrap(&unlock, "").unwrap_err().kind(), ErrorKind::Usage);
    }
    for unlock in [passphrase("x"), file(32), file(1 << 20)] {
        assert!(wrap(&unlock, "").is_ok());
    }
    for label in ["a\nb", "\u{1b}[31m", &"x".repeat(101)] {
        assert_eq!(wrap(&file(32), label).unwrap_err().kind(), ErrorKind::Usage);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let name: SlotName = "0123abcd".parse().unwrap();
        prop_assert!(Slot::parse(&name, &bytes).is_err());
    }

    /// Also those that a checksum is put on, and that look like a slot.
    #[test]
    fn any_members_are_survived(
        memory in any::<u64>(), iterations in any::<u64>(), lanes in any::<u32>(),
        label in any::<String>(), salt in "[0-9a-f]{30,34}", wrapped in "[0-9a-f]{94,98}",
        junk in any::<String>(),
    ) {
        let name: SlotName = "0123abcd".parse().unwrap();
        let members = format!(
            "{{\n  \"format\": 1,\n  \"repository\": \"{}\",\n  \"slot\": \"{name}\",\n  \
             \"kind\": \"passphrase\",\n  \"label\": {},\n  \"created_at\": \"2026-11-20T10:15:30Z\",\n  \
             \"kdf\": {{\"name\": \"argon2id\", \"memory_kib\": {memory}, \"iterations\": {iterations}, \
             \"lanes\": {lanes}, \"salt\": \"{salt}\"}},\n  \"nonce\": \"000102030405060708090a0b\",\n  \
             \"wrapped\": \"{wrapped}\",\n",
            repository(), serde_json::to_string(&label).unwrap(),
        );
        if let Ok(slot) = Slot::parse(&name, &checked::close(&members)) {
            prop_assert_eq!(slot.label(), label);
            prop_assert!(slot.memory() <= 256 << 20);
        }
        let longer = members + &junk;
        prop_assert!(
            Slot::parse(&name, &checked::close(&longer)).is_err() || junk.trim().is_empty()
        );
    }

    #[test]
    fn any_slot_comes_back(secret in "\\PC{1,40}", label in "\\PC{0,20}") {
        let unlock = passphrase(&secret);
        let slot = wrap(&unlock, &label).unwrap();
        let parsed = Slot::parse(slot.name(), &slot.encode()).unwrap();
        prop_assert_eq!(parsed.label(), label);
        prop_assert_eq!(*parsed.unwrap(&unlock).unwrap(), MASTER);
    }
}
