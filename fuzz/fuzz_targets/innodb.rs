#![no_main]

#[path = "../bodies/innodb.rs"]
mod innodb;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| innodb::run(bytes));
