#![no_main]

#[path = "../bodies/gtid.rs"]
mod gtid;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gtid::run(bytes));
