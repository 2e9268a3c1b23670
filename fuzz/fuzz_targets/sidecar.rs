#![no_main]

#[path = "../bodies/sidecar.rs"]
mod sidecar;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sidecar::run(bytes));
