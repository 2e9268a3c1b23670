//! Sets and positions of GTIDs, as text and as servers write them into events: what is read says again
//! what was read.

use backup_core::{Flavor, Gtid, GtidSet, MariaDbBinlogState, MySqlGtidSet};

/// The bytes as text, and as the body of an event.
pub fn run(bytes: &[u8]) {
    if let Ok(set) = MySqlGtidSet::decode(bytes) {
        assert_eq!(MySqlGtidSet::decode(&set.encode()).expect("its own bytes"), set);
        let text = GtidSet::from(set).to_string();
        let again = GtidSet::parse(Flavor::MySql, &text).expect("its own words");
        assert_eq!(again.to_string(), text);
    }
    if let Ok(state) = MariaDbBinlogState::decode(bytes) {
        assert_eq!(MariaDbBinlogState::decode(&state.encode()).expect("its own bytes"), state);
        let position = state.position();
        assert!(position.iter().all(|gtid| state.contains(gtid)));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        if let Ok(set) = GtidSet::parse(flavor, text) {
            let shown = set.to_string();
            assert_eq!(GtidSet::parse(flavor, &shown).expect("its own words"), set);
            let empty = set.difference(&set).expect("of one flavor").is_empty();
            assert!(empty && set.is_subset(&set).expect("of one flavor"));
        }
    }
    if let Ok(gtid) = text.parse::<Gtid>() {
        assert_eq!(gtid.to_string().parse::<Gtid>().expect("its own words"), gtid);
        let mut set = GtidSet::empty(gtid.flavor());
        set.insert(&gtid).expect("of one flavor");
        assert!(set.contains(&gtid).expect("of one flavor"));
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let text = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-3:11:47-49,\
                3e11fa47-71ca-11e1-9e33-c80aa9429563:tag:5:other:7-9";
    let set = GtidSet::parse(Flavor::MySql, text).expect("a good one");
    let GtidSet::MySql(set) = set else { return Vec::new() };
    let mut state = MariaDbBinlogState::default();
    for gtid in ["0-1-5", "0-2-9", "7-1-1"] {
        if let Ok(Gtid::MariaDb(gtid)) = gtid.parse() {
            state.update(gtid);
        }
    }
    vec![
        text.as_bytes().to_vec(),
        b"0-1-5,7-2-18446744073709551615".to_vec(),
        b"3e11fa47-71ca-11e1-9e33-c80aa9429562:9223372036854775806".to_vec(),
        set.encode(),
        state.encode(),
    ]
}
