//! Records of the history: what parses comes back as it was.

use backup_core::Record;

pub fn run(bytes: &[u8]) {
    if let Ok(record) = serde_json::from_slice::<Record>(bytes) {
        let again = serde_json::to_vec(&record).expect("a record is JSON");
        let again: Record = serde_json::from_slice(&again).expect("what was written can be read");
        // Compared as text: a number that is none is not equal to itself.
        assert_eq!(format!("{again:?}"), format!("{record:?}"));
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    [
        r#"{"time":"2026-11-20T10:15:30Z","backup":"20261120T101530Z-full-7f3a9c","kind":"proof",
           "level":"content","ok":false,"findings":[{"severity":"error","object":"pack-0",
           "problem":"it is damaged","remedy":"restore it","kind":"damaged"}],
           "duration_seconds":1.5}"#,
        r#"{"time":"2026-11-20T10:15:30Z","kind":"failed-run","exit_code":3,"error":"no server"}"#,
    ]
    .map(|text| {
        serde_json::from_str::<Record>(text).expect("a good record");
        text.as_bytes().to_vec()
    })
    .into()
}
