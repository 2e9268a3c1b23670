//! `holdfast.json`: what parses is what was written.
#![no_main]

use backup_storage::format::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The digest keeps the fuzzer out of what lies behind it, so it is also given text to seal.
    let _ = Config::parse(bytes);
    if let Ok(config) = serde_json::from_slice::<Config>(bytes) {
        let encoded = config.encode();
        if let Ok(again) = Config::parse(&encoded) {
            assert_eq!(again, config);
        }
    }
});
