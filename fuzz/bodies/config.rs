//! `holdfast.json`: what parses is what was written.

use backup_storage::format::Config;

pub fn run(bytes: &[u8]) {
    // The digest keeps the fuzzer out of what lies behind it, so it is also given text to seal.
    let _ = Config::parse(bytes);
    if let Ok(config) = serde_json::from_slice::<Config>(bytes) {
        let encoded = config.encode();
        if let Ok(again) = Config::parse(&encoded) {
            assert_eq!(again, config);
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let config: Config = serde_json::from_value(serde_json::json!({
        "format": 1,
        "repository": "00112233445566778899aabbccddeeff",
        "created_at": "2026-11-20T10:15:30Z",
        "writer": "holdfast 0.1.0",
        "requires": ["something"],
        "encryption": {"cipher": "aes-256-gcm", "key_check": "00".repeat(32)},
    }))
    .expect("a config");
    vec![config.encode(), serde_json::to_vec(&config).expect("JSON")]
}
