#![no_main]

#[path = "../bodies/xbstream.rs"]
mod xbstream;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xbstream::run(bytes));
