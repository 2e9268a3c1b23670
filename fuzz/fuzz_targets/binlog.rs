#![no_main]

#[path = "../bodies/binlog.rs"]
mod binlog;
#[path = "../bodies/events.rs"]
mod events;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| binlog::run(bytes));
