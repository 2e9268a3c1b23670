#![no_main]

#[path = "../bodies/events.rs"]
mod events;
#[path = "../bodies/saved.rs"]
mod saved;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| saved::run(bytes));
