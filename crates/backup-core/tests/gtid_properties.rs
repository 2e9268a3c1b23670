//! The algebra of GTIDs against a model that cannot be wrong: plain sets of single transactions.

// Clippy allows it in test functions, not in their helpers.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{
    Gtid, GtidSet, MAX_GNO, MariaDbBinlogState, MariaDbGtid, MariaDbGtidSet, MySqlGtid,
    MySqlGtidSet, Tsid,
};
use proptest::collection::vec;
use proptest::prelude::*;

const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const B: &str = "4c4b6f4e-0000-11ef-8d5e-0242ac110002";

fn mysql(text: &str) -> MySqlGtidSet {
    text.parse().unwrap()
}

fn mariadb(text: &str) -> MariaDbGtidSet {
    text.parse().unwrap()
}

fn tsid(uuid: &str, tag: &str) -> Tsid {
    Tsid { uuid: uuid.parse().unwrap(), tag: (!tag.is_empty()).then(|| tag.parse().unwrap()) }
}

/// A transaction of the small universe: source, tag, number.
type Transaction = (usize, usize, u64);
type Model = BTreeSet<Transaction>;

const UUIDS: [&str; 2] = [A, B];
const TAGS: [&str; 3] = ["", "a", "b_1"];
/// The model's numbers are 1..=NUMBERS; the upper ones stand for the highest that GTIDs can have.
const NUMBERS: u64 = 18;
const HIGH: u64 = 14;

fn number(n: u64) -> u64 {
    if n <= HIGH { n } else { MAX_GNO - NUMBERS + n }
}

fn transaction((uuid, tag, n): Transaction) -> MySqlGtid {
    MySqlGtid::new(tsid(UUIDS[uuid], TAGS[tag]), number(n)).unwrap()
}

fn universe() -> impl Iterator<Item = Transaction> {
    (0..UUIDS.len())
        .flat_map(|u| (0..TAGS.len()).flat_map(move |t| (1..=NUMBERS).map(move |n| (u, t, n))))
}

/// Ranges in any order, overlapping as they like: what a text or a caller may add.
fn ranges() -> impl Strategy<Value = Vec<(usize, usize, u64, u64)>> {
    let range = (0..UUIDS.len(), 0..TAGS.len(), 1..=NUMBERS, 0..5_u64);
    vec(range.prop_map(|(u, t, n, len)| (u, t, n, (n + len).min(NUMBERS))), 0..24)
}

fn model(ranges: &[(usize, usize, u64, u64)]) -> Model {
    ranges.iter().flat_map(|&(u, t, first, last)| (first..=last).map(move |n| (u, t, n))).collect()
}

/// The set of a model, built one transaction at a time.
fn set_of(model: &Model) -> MySqlGtidSet {
    model.iter().map(|t| transaction(*t)).collect()
}

fn transactions(set: &MySqlGtidSet) -> Model {
    universe().filter(|t| set.contains(&transaction(*t))).collect()
}

fn mariadb_gtids() -> impl Strategy<Value = Vec<MariaDbGtid>> {
    let gtid = (0..3_u32, 1..4_u32, 1..12_u64);
    vec(gtid.prop_map(|(domain, server, seq)| MariaDbGtid { domain, server, seq }), 0..12)
}

/// Every transaction a position covers, as domain and number.
fn covered(set: &MariaDbGtidSet) -> BTreeSet<(u32, u64)> {
    set.iter().flat_map(|g| (1..=g.seq).map(move |seq| (g.domain, seq))).collect()
}

proptest! {
    #[test]
    fn a_set_is_its_transactions_however_it_was_built(ranges in ranges(), seed in any::<u64>()) {
        let model = model(&ranges);
        let set = set_of(&model);
        prop_assert_eq!(transactions(&set), model.clone());
        prop_assert_eq!(set.count(), model.len() as u64);
        prop_assert_eq!(set.is_empty(), model.is_empty());
        let listed: u64 = set.intervals().map(|(_, range)| range.end() - range.start() + 1).sum();
        prop_assert_eq!(listed, set.count());

        // By ranges, in the order given. (No range spans the gap in the numbers.)
        let mut by_range = MySqlGtidSet::default();
        let mut text = String::new();
        for &(u, t, first, last) in &ranges {
            let tsid = tsid(UUIDS[u], TAGS[t]);
            let pieces = if first <= HIGH && HIGH < last {
                vec![(first, HIGH), (HIGH + 1, last)]
            } else {
                vec![(first, last)]
            };
            for (first, last) in pieces {
                let (first, last) = (number(first), number(last));
                by_range.add_range(tsid.clone(), first..=last).unwrap();
                text.push_str(&format!("{tsid}:{first}-{last},"));
            }
        }
        prop_assert_eq!(&by_range, &set);
        // By text, in the order given.
        prop_assert_eq!(&mysql(&text), &set);
        // One by one, in some other order.
        let mut shuffled: Vec<_> = model.iter().copied().collect();
        shuffled.sort_by_key(|&(u, t, n)| (u as u64 * 7 + t as u64 * 3 + n).wrapping_mul(seed | 1));
        let shuffled: MySqlGtidSet = shuffled.into_iter().map(transaction).collect();
        prop_assert_eq!(&shuffled, &set);
    }

    #[test]
    fn the_algebra_is_that_of_sets(a in ranges(), b in ranges()) {
        let (a, b) = (model(&a), model(&b));
        let (x, y) = (set_of(&a), set_of(&b));
        // Equality with a set built from scratch also proves the canonical form.
        prop_assert_eq!(x.union(&y), set_of(&(&a | &b)));
        prop_assert_eq!(x.subtract(&y), set_of(&(&a - &b)));
        prop_assert_eq!(x.intersect(&y), set_of(&(&a & &b)));
        prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
        for missing in &a {
            let mut less = a.clone();
            less.remove(missing);
            prop_assert!(!x.is_subset(&set_of(&less)));
        }
        prop_assert!(x.is_subset(&x.union(&y)));
        prop_assert!(x.intersect(&y).is_subset(&y));
        prop_assert_eq!(x == y, a == b);
    }

    #[test]
    fn text_bytes_and_json_come_back(ranges in ranges()) {
        let set = set_of(&model(&ranges));
        prop_assert_eq!(&mysql(&set.to_string()), &set);
        prop_assert_eq!(&mysql(&format!("{set:#}")), &set);
        prop_assert_eq!(&MySqlGtidSet::decode(&set.encode()).unwrap(), &set);
        let json = serde_json::to_string(&set).unwrap();
        prop_assert_eq!(&serde_json::from_str::<MySqlGtidSet>(&json).unwrap(), &set);
    }

    #[test]
    fn the_algebra_of_positions_is_that_of_what_they_cover(a in mariadb_gtids(), b in mariadb_gtids()) {
        let (x, y): (MariaDbGtidSet, MariaDbGtidSet) =
            (a.iter().copied().collect(), b.iter().copied().collect());
        let (a, b) = (covered(&x), covered(&y));
        prop_assert_eq!(covered(&x.union(&y)), &a | &b);
        prop_assert_eq!(x.is_covered_by(&y), a.is_subset(&b));
        let missing: BTreeSet<_> = x
            .difference(&y)
            .iter()
            .flat_map(|r| (r.first..=r.last).map(move |seq| (r.domain, seq)))
            .collect();
        prop_assert_eq!(missing, &a - &b);
        for domain in 0..3 {
            for seq in 1..13 {
                let gtid = MariaDbGtid { domain, server: 9, seq };
                prop_assert_eq!(x.covers(gtid), a.contains(&(domain, seq)));
            }
        }
        prop_assert_eq!(mariadb(&x.to_string()), x);
    }

    #[test]
    fn a_state_remembers_the_last_of_each_server(gtids in mariadb_gtids()) {
        let mut state = MariaDbBinlogState::default();
        let mut servers = BTreeMap::new();
        let mut last = BTreeMap::new();
        for gtid in gtids {
            state.update(gtid);
            servers.insert((gtid.domain, gtid.server), gtid.seq);
            last.insert(gtid.domain, gtid);
        }
        let listed: BTreeMap<_, _> = state.iter().map(|g| ((g.domain, g.server), g.seq)).collect();
        prop_assert_eq!(listed, servers);
        let position: Vec<_> = state.position().iter().collect();
        prop_assert_eq!(position, last.into_values().collect::<Vec<_>>());
        prop_assert_eq!(&MariaDbBinlogState::decode(&state.encode()).unwrap(), &state);
        let read: MariaDbBinlogState = state.to_string().parse().unwrap();
        prop_assert_eq!(read, state);
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = text.parse::<GtidSet>();
        let _ = text.parse::<Gtid>();
        let _ = text.parse::<MySqlGtidSet>();
        let _ = text.parse::<MariaDbGtidSet>();
        let _ = text.parse::<MariaDbBinlogState>();
    }

    #[test]
    fn nearly_right_text_is_read_or_refused(
        tokens in vec(
            prop_oneof![
                Just(A.to_owned()), Just(B.to_owned()), Just(":".to_owned()), Just(",".to_owned()),
                Just("-".to_owned()), Just(" ".to_owned()), Just("\u{e9}".to_owned()),
                "[0-9]{1,20}", "[a-z_]{1,34}",
            ],
            0..16,
        )
    ) {
        let text = tokens.concat();
        if let Ok(set) = text.parse::<MySqlGtidSet>() {
            prop_assert_eq!(mysql(&set.to_string()), set);
        }
        if let Ok(set) = text.parse::<MariaDbGtidSet>() {
            prop_assert_eq!(mariadb(&set.to_string()), set);
        }
        let _ = text.parse::<Gtid>();
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        let _ = MySqlGtidSet::decode(&bytes);
        let _ = MariaDbBinlogState::decode(&bytes);
    }

    #[test]
    fn damaged_bytes_never_give_a_set_that_cannot_be_written_again(
        ranges in ranges(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = set_of(&model(&ranges)).encode();
        prop_assert!(MySqlGtidSet::decode(&bytes[..cut.index(bytes.len())]).is_err());
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(set) = MySqlGtidSet::decode(&bytes) {
            prop_assert_eq!(MySqlGtidSet::decode(&set.encode()).unwrap(), set);
        }
    }
}
