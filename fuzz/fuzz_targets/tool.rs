#![no_main]

#[path = "../bodies/tool.rs"]
mod tool;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tool::run(bytes));
