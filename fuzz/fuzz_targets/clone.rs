#![no_main]

#[path = "../bodies/clone.rs"]
mod clone;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| clone::run(bytes));
