#![no_main]

#[path = "../bodies/dump.rs"]
mod dump;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dump::run(bytes));
