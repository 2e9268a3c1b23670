#![no_main]

#[path = "../bodies/binlog.rs"]
mod binlog;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| binlog::run(bytes));
