//! GTIDs as servers print them and put them into their logs.

// Clippy allows it in test functions, not in their helpers.
#![allow(clippy::unwrap_used)]

use backup_core::{
    DomainRange, ErrorKind, Flavor, Gtid, GtidSet, GtidTag, MAX_GNO, MariaDbBinlogState,
    MariaDbGtid, MariaDbGtidSet, MySqlGtid, MySqlGtidSet, Tsid, Uuid,
};

const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const B: &str = "4c4b6f4e-0000-11ef-8d5e-0242ac110002";

fn mysql(text: &str) -> MySqlGtidSet {
    text.parse().unwrap_or_else(|e| panic!("{text:?}: {e:?}"))
}

fn mariadb(text: &str) -> MariaDbGtidSet {
    text.parse().unwrap_or_else(|e| panic!("{text:?}: {e:?}"))
}

fn tsid(uuid: &str, tag: &str) -> Tsid {
    Tsid { uuid: uuid.parse().unwrap(), tag: (!tag.is_empty()).then(|| tag.parse().unwrap()) }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let byte = |i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

mod text_of_mysql {
    use super::*;

    #[test]
    fn what_servers_print_comes_back_unchanged() {
        for text in [
            String::new(),
            format!("{A}:1"),
            format!("{A}:1-5:7"),
            format!("{A}:1-15177:15179"),
            format!("{A}:1-3:11:47-49,\n{B}:1-19"),
            format!("{A}:1:yangyidba:3"),
            format!("{A}:1-4:aaaa:1:abc:1-3:bbbbb:1:bbbbbb:1:x:1,\n{B}:1-2"),
            format!("{A}:_only_tagged_9:1-3"),
            format!("{A}:1-{MAX_GNO}"),
        ] {
            let set = mysql(&text);
            assert_eq!(format!("{set:#}"), text);
            assert_eq!(set.to_string(), text.replace('\n', ""));
        }
    }

    #[test]
    fn any_order_spacing_and_case_is_read_as_the_server_does() {
        for text in [
            format!("{A}:1-5:7:Tag:1-3"),
            format!("{A}:7:5:1-4:tag:3:1-2"),
            format!("{A}:1-3:2-5:4:7:tag:1-3:2"),
            format!("  {A} : 1 - 5\n:\t7 : TAG : 1 - 3 ,, ,"),
            format!(",{A}:7,{A}:tag:1-3,\r\n{A}:1-5"),
            format!("{}:1-5:7:tag:1-3", A.to_uppercase()),
            format!("{A}:tag:1-2,{A}:1:tag:3,{A}:2-5:7"),
        ] {
            assert_eq!(mysql(&text).to_string(), format!("{A}:1-5:7:tag:1-3"), "{text:?}");
        }
        assert_eq!(mysql(" ,\n, "), MySqlGtidSet::default());
    }

    #[test]
    fn adjacent_intervals_become_one() {
        assert_eq!(mysql(&format!("{A}:1-2:3:4-6")).to_string(), format!("{A}:1-6"));
        let mut set = mysql(&format!("{A}:1-2:4-6"));
        set.add(&format!("{A}:3").parse().unwrap());
        assert_eq!(set.to_string(), format!("{A}:1-6"));
    }

    #[test]
    fn malformed_text_is_a_usage_error_that_points_at_the_place() {
        let too_long = "t".repeat(GtidTag::MAX_LEN + 1);
        let unhyphenated = A.replace('-', "");
        for (text, expected) in [
            ("nonsense".to_owned(), "a UUID at \"nonsense\""),
            (A.to_owned(), "':' and a number at the end"),
            (format!("{A}:"), "a number from 1 to 2^63-2 at the end"),
            (format!("{A}:tag"), "':' and a number at the end"),
            (format!("{A}:1:tag"), "':' and a number at the end"),
            (format!("{A}:0"), "a number from 1 to 2^63-2 at \"0\""),
            (format!("{A}:010"), "a number from 1 to 2^63-2 at \"010\""),
            (format!("{A}:0x10"), "a number from 1 to 2^63-2 at \"0x10\""),
            (format!("{A}:-1"), "a number from 1 to 2^63-2 at \"-1\""),
            (format!("{A}:1-"), "a number from 1 to 2^63-2 at the end"),
            (format!("{A}:5-3"), "a range that rises at \"5-3\""),
            (format!("{A}:1-9223372036854775807"), "a number from 1 to 2^63-2"),
            (format!("{A}:99999999999999999999"), "a number from 1 to 2^63-2"),
            (format!("{A}:1 2"), "':', ',' or the end at \"2\""),
            (format!("{A}:1;{B}:1"), "':', ',' or the end"),
            (format!("{A}:1x"), "':', ',' or the end at \"x\""),
            (format!("{A}:{too_long}:1"), "a tag of 1 to 32"),
            (format!("{A}:tag-x:1"), "':' and a number at \"-x:1\""),
            (format!("{unhyphenated}:1"), "a UUID"),
            (format!("{{{A}}}:1"), "a UUID"),
            (format!("+{A}:1"), "a UUID at \"+"),
            ("0-1-5".to_owned(), "a UUID"),
            ("\u{1f600}".repeat(60), "a UUID"),
        ] {
            let error = text.parse::<MySqlGtidSet>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn single_gtids() {
        let gtid: MySqlGtid = format!(" {A} : Tag : 12 ").parse().unwrap();
        assert_eq!((gtid.tsid(), gtid.gno()), (&tsid(A, "tag"), 12));
        assert_eq!(gtid.to_string(), format!("{A}:tag:12"));
        assert_eq!(format!("{A}:7").parse::<MySqlGtid>().unwrap().tsid(), &tsid(A, ""));
        for text in ["", A, &format!("{A}:1-2"), &format!("{A}:1:2"), &format!("{A}:t"), "0-1-2"] {
            assert!(text.parse::<MySqlGtid>().is_err(), "{text}");
        }
        assert!(MySqlGtid::new(tsid(A, ""), 0).is_err());
        assert!(MySqlGtid::new(tsid(A, ""), MAX_GNO + 1).is_err());
        assert!(MySqlGtid::new(tsid(A, ""), MAX_GNO).is_ok());
    }

    #[test]
    fn a_refused_range_leaves_no_trace() {
        let mut set = MySqlGtidSet::default();
        #[expect(clippy::reversed_empty_ranges)]
        for range in [0..=1, 5..=4, 1..=MAX_GNO + 1] {
            assert!(set.add_range(tsid(A, ""), range).is_err());
            assert_eq!(set, MySqlGtidSet::default());
        }
        set.add_range(tsid(A, ""), 2..=4).unwrap();
        assert_eq!(set.to_string(), format!("{A}:2-4"));
        assert_eq!(set.last(&tsid(A, "")), Some(4));
        assert_eq!(set.last(&tsid(A, "t")), None);
    }

    #[test]
    fn json_is_the_text() {
        let set = mysql(&format!("{A}:1-5:t:2"));
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(json, format!("\"{A}:1-5:t:2\""));
        assert_eq!(serde_json::from_str::<MySqlGtidSet>(&json).unwrap(), set);
        assert!(serde_json::from_str::<MySqlGtidSet>("\"x\"").is_err());
        assert!(serde_json::from_str::<MySqlGtidSet>("5").is_err());
    }
}

mod bytes_of_mysql {
    use super::*;

    /// One source of the wire form.
    fn source(tag: Option<&str>, intervals: &[(u64, u64)]) -> Vec<u8> {
        let mut out = A.parse::<Uuid>().unwrap().as_bytes().to_vec();
        if let Some(tag) = tag {
            out.push((tag.len() * 2) as u8);
            out.extend_from_slice(tag.as_bytes());
        }
        out.extend_from_slice(&(intervals.len() as u64).to_le_bytes());
        for (start, end) in intervals {
            out.extend_from_slice(&start.to_le_bytes());
            out.extend_from_slice(&end.to_le_bytes());
        }
        out
    }

    fn with_header(header: [u8; 8], sources: &[Vec<u8>]) -> Vec<u8> {
        [&header[..], &sources.concat()].concat()
    }

    #[test]
    fn plain_form() {
        let bytes = with_header([1, 0, 0, 0, 0, 0, 0, 0], &[source(None, &[(1, 6), (7, 8)])]);
        let set = mysql(&format!("{A}:1-5:7"));
        assert_eq!(set.encode(), bytes);
        assert_eq!(MySqlGtidSet::decode(&bytes).unwrap(), set);
        assert_eq!(MySqlGtidSet::default().encode(), [0; 8]);
        assert_eq!(MySqlGtidSet::decode(&[0; 8]).unwrap(), MySqlGtidSet::default());
    }

    #[test]
    fn tagged_form() {
        let bytes = with_header(
            [1, 2, 0, 0, 0, 0, 0, 1],
            &[source(Some(""), &[(1, 2)]), source(Some("secondtest"), &[(1, 4)])],
        );
        let set = mysql(&format!("{A}:1:secondtest:1-3"));
        assert_eq!(set.encode(), bytes);
        assert_eq!(MySqlGtidSet::decode(&bytes).unwrap(), set);
    }

    #[test]
    fn previous_gtids_of_mysql_9_7_4() {
        let body = hex("0102000000000001 ad50bb5be4e111f1b43202fc00000001 00 0100000000000000 \
             0100000000000000 0200000000000000 ad50bb5be4e111f1b43202fc00000001 0a6d79746167 \
             0100000000000000 0100000000000000 0200000000000000");
        let set = mysql("ad50bb5b-e4e1-11f1-b432-02fc00000001:1:mytag:1");
        assert_eq!(MySqlGtidSet::decode(&body).unwrap(), set);
        assert_eq!(set.encode(), body);
        // A server that knows of tags uses the tagged form even for a set without any.
        let body = hex("0100000000000001");
        assert_eq!(MySqlGtidSet::decode(&body).unwrap(), MySqlGtidSet::default());
    }

    #[test]
    fn a_length_may_be_written_in_more_bytes_than_it_needs() {
        // 2 as a two-byte variable-length integer: value << 2 | 0b01.
        let mut bytes = with_header([1, 1, 0, 0, 0, 0, 0, 1], &[source(Some("ab"), &[(1, 2)])]);
        bytes.splice(24..25, [0b1001, 0]);
        assert_eq!(MySqlGtidSet::decode(&bytes).unwrap(), mysql(&format!("{A}:ab:1")));
        // And as the nine-byte form.
        bytes.splice(24..26, [0xff, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(MySqlGtidSet::decode(&bytes).unwrap(), mysql(&format!("{A}:ab:1")));
    }

    #[test]
    fn damaged_bytes_are_refused() {
        const PLAIN: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];
        const TAGGED: [u8; 8] = [1, 1, 0, 0, 0, 0, 0, 1];
        let plain = |intervals: &[(u64, u64)]| with_header(PLAIN, &[source(None, intervals)]);
        let tagged = |tag| with_header(TAGGED, &[source(Some(tag), &[(1, 2)])]);
        let trailing = [plain(&[(1, 2)]), vec![0]].concat();
        for (bytes, why) in [
            (vec![], "cut off"),
            (vec![1, 0, 0, 0, 0, 0, 0], "cut off"),
            (PLAIN.to_vec(), "cut off"),
            (vec![0, 0, 0, 0, 0, 0, 0, 2], "format"),
            (vec![0, 1, 0, 0, 0, 0, 0, 1], "format"),
            // Counts that would ask for exabytes.
            (vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0], "cut off"),
            (with_header(PLAIN, &[[[7; 16], [0xff; 16]].concat()]), "cut off"),
            (plain(&[(0, 2)]), "do not rise"),
            (plain(&[(2, 2)]), "do not rise"),
            (plain(&[(3, 2)]), "do not rise"),
            (plain(&[(1, 4), (3, 6)]), "do not rise"),
            (plain(&[(1, 4), (4, 6)]), "do not rise"),
            (plain(&[(1, MAX_GNO + 2)]), "do not rise"),
            (plain(&[(1, u64::MAX)]), "do not rise"),
            (trailing, "bytes follow"),
            (tagged("9x"), "invalid"),
            (tagged("t\u{e9}"), "invalid"),
            (tagged("ttttttttttttttttttttttttttttttttt"), "too long"),
        ] {
            let error = MySqlGtidSet::decode(&bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged);
            assert!(error.to_string().contains(why), "{bytes:?}: {error}");
        }
        // The highest number there is.
        assert_eq!(
            MySqlGtidSet::decode(&plain(&[(1, MAX_GNO + 1)])).unwrap(),
            mysql(&format!("{A}:1-{MAX_GNO}"))
        );
    }
}

mod positions_of_mariadb {
    use super::*;

    const fn gtid(domain: u32, server: u32, seq: u64) -> MariaDbGtid {
        MariaDbGtid { domain, server, seq }
    }

    #[test]
    fn what_servers_print_comes_back_unchanged() {
        for text in ["", "0-1-2", "0-2-112,1-4-1022", "0-4294967295-18446744073709551615", "7-1-0"]
        {
            assert_eq!(mariadb(text).to_string(), text);
        }
        assert_eq!(mariadb(" 1-4-1022 ,\n0-2-112\n").to_string(), "0-2-112,1-4-1022");
    }

    #[test]
    fn malformed_text_is_a_usage_error() {
        for text in [
            "0",
            "0-1",
            "0-1-",
            "-1-1",
            "0-1-2-3",
            "0-1-x",
            "0-+1-2",
            "4294967296-1-1",
            "0-1-2,",
            ",0-1-2",
            "0-1-18446744073709551616",
            "0-1-2;1-1-1",
            "0-1-2,0-3-4",
            &format!("{A}:1"),
        ] {
            let error = text.parse::<MariaDbGtidSet>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{text}");
        }
    }

    #[test]
    fn a_position_covers_what_any_server_wrote_before_it() {
        let position = mariadb("0-1-100,7-2-5");
        assert!(position.covers(gtid(0, 1, 100)));
        assert!(position.covers(gtid(0, 9, 42)));
        assert!(!position.covers(gtid(0, 1, 101)));
        assert!(!position.covers(gtid(7, 2, 6)));
        assert!(!position.covers(gtid(1, 1, 1)));
        assert_eq!(position.domains().collect::<Vec<_>>(), [0, 7]);
        assert_eq!(position.get(7), Some(gtid(7, 2, 5)));
        assert!(mariadb("0-3-100").is_covered_by(&position));
        assert!(!mariadb("0-3-100,1-1-1").is_covered_by(&position));
    }

    #[test]
    fn it_only_advances() {
        let mut position = mariadb("0-1-100");
        assert!(position.advance(gtid(0, 2, 101)));
        assert!(!position.advance(gtid(0, 1, 101)));
        assert!(!position.advance(gtid(0, 1, 7)));
        assert!(position.advance(gtid(3, 1, 1)));
        assert_eq!(position.to_string(), "0-2-101,3-1-1");
    }

    #[test]
    fn the_difference_is_ranges_of_domains() {
        let ranges = mariadb("0-1-100,1-1-5,2-1-9").difference(&mariadb("0-3-97,1-1-5,4-1-1"));
        let range = |domain, first, last| DomainRange { domain, first, last };
        assert_eq!(ranges, [range(0, 98, 100), range(2, 1, 9)]);
        assert_eq!(range(0, 4, 4).to_string(), "domain 0: 4");
        let full = format!("0-1-{}", u64::MAX);
        assert_eq!(mariadb(&full).difference(&mariadb(&full)), []);
    }

    #[test]
    fn a_binlog_state_knows_every_server() {
        let mut state: MariaDbBinlogState = "0-1-100,0-2-140,1-1-3".parse().unwrap();
        assert_eq!(state.position().to_string(), "0-2-140,1-1-3");
        assert!(state.contains(gtid(0, 1, 99)));
        assert!(!state.contains(gtid(0, 1, 101)));
        assert!(!state.contains(gtid(0, 3, 1)));
        // A log out of order: the last written counts, not the highest.
        state.update(gtid(0, 1, 139));
        assert_eq!(state.position().to_string(), "0-1-139,1-1-3");
        assert_eq!(state.to_string(), "0-2-140,0-1-139,1-1-3");
        assert_eq!(MariaDbBinlogState::decode(&state.encode()).unwrap(), state);
        assert!("0-1-1,0-1-2".parse::<MariaDbBinlogState>().is_err());
    }

    #[test]
    fn a_gtid_list_event_is_read_and_written() {
        let body = [
            &[2, 0, 0, 0x10][..], // a flag above the count
            &[0, 0, 0, 0, 2, 0, 0, 0, 140, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 1, 0, 0, 0, 139, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        let state = MariaDbBinlogState::decode(&body).unwrap();
        assert_eq!(state.to_string(), "0-2-140,0-1-139");
        assert_eq!(state.position().to_string(), "0-1-139");
        assert_eq!(state.encode()[4..], body[4..]);

        // MariaDB 11.8.9 with @@gtid_binlog_state = 0-9-2,0-1-3,7-9-1.
        let body =
            hex("03000000 07000000 09000000 0100000000000000 00000000 09000000 0200000000000000 \
             00000000 01000000 0300000000000000");
        let state = MariaDbBinlogState::decode(&body).unwrap();
        assert_eq!(state.to_string(), "0-9-2,0-1-3,7-9-1");
        assert_eq!("0-9-2,0-1-3,7-9-1".parse::<MariaDbBinlogState>().unwrap(), state);
        assert_eq!(state.position().to_string(), "0-1-3,7-9-1");

        let empty = MariaDbBinlogState::default();
        assert_eq!(empty.encode(), [0; 6]);
        assert_eq!(MariaDbBinlogState::decode(&[0; 6]).unwrap(), empty);
        assert_eq!(MariaDbBinlogState::decode(&[0; 4]).unwrap(), empty);

        let long = [&body[..], &[0; 16]].concat();
        for damaged in [&body[..3], &body[..35], &[0xff; 20], &long, &[0; 20], &[1, 0, 0, 0, 0, 0]]
        {
            let error = MariaDbBinlogState::decode(damaged).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged);
        }
    }
}

mod either_flavor {
    use super::*;

    fn set(text: &str) -> GtidSet {
        text.parse().unwrap()
    }

    #[test]
    fn the_form_tells_the_flavor() {
        assert_eq!(set(&format!("{A}:1")).flavor(), Some(Flavor::MySql));
        assert_eq!(set("0-1-2").flavor(), Some(Flavor::MariaDb));
        assert_eq!(set(" \n").flavor(), None);
        assert!("nonsense".parse::<GtidSet>().is_err());
        assert!(GtidSet::parse(Flavor::MySql, "0-1-2").is_err());
        assert!(GtidSet::parse(Flavor::MariaDb, &format!("{A}:1")).is_err());
        assert_eq!("0-1-2".parse::<Gtid>().unwrap().flavor(), Flavor::MariaDb);
        assert_eq!(format!("{A}:t:1").parse::<Gtid>().unwrap().flavor(), Flavor::MySql);
    }

    #[test]
    fn both_flavors_answer_alike() {
        for (early, late, gap, last) in [
            (format!("{A}:1-5"), format!("{A}:1-9"), format!("{A}:6-9"), format!("{A}:9")),
            ("0-1-5".into(), "0-2-9".into(), "domain 0: 6-9".into(), "0-2-9".into()),
        ] {
            let (early, late) = (set(&early), set(&late));
            let last: Gtid = last.parse().unwrap();
            assert!(early.is_subset(&late).unwrap() && !late.is_subset(&early).unwrap());
            assert!(late.contains(&last).unwrap() && !early.contains(&last).unwrap());
            assert_eq!(early.union(&late).unwrap(), late);
            assert_eq!(late.difference(&early).unwrap().to_string(), gap);
            assert!(early.difference(&late).unwrap().is_empty());
        }
    }

    #[test]
    fn flavors_do_not_mix() {
        let (a, b) = (set(&format!("{A}:1")), set("0-1-2"));
        let gtid: Gtid = "0-1-2".parse().unwrap();
        let errors = [
            a.contains(&gtid).unwrap_err(),
            a.is_subset(&b).unwrap_err(),
            b.is_subset(&a).unwrap_err(),
            a.union(&b).unwrap_err(),
            a.difference(&b).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Usage);
        }
        assert_ne!(a, b);
        assert!(a.union(&b).unwrap_err().report().contains("GTIDs of MySQL with GTIDs of MariaDB"));
    }

    #[test]
    fn an_empty_set_mixes_with_either() {
        for text in [format!("{A}:1-2"), "0-1-2".to_owned()] {
            let full = set(&text);
            for flavor in [Flavor::MySql, Flavor::MariaDb] {
                let empty = GtidSet::empty(flavor);
                assert_eq!(empty, set(""));
                assert_ne!(empty, full);
                assert!(empty.is_subset(&full).unwrap() && !full.is_subset(&empty).unwrap());
                assert_eq!(empty.union(&full).unwrap(), full);
                assert_eq!(full.union(&empty).unwrap(), full);
                assert!(empty.difference(&full).unwrap().is_empty());
                assert!(!full.difference(&empty).unwrap().is_empty());
                assert!(!empty.contains(&"0-1-2".parse().unwrap()).unwrap());
            }
        }
    }

    #[test]
    fn json_is_the_text() {
        for text in ["", "0-1-2,1-1-1", &format!("{A}:1-5")] {
            let json = format!("\"{text}\"");
            let read: GtidSet = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), json);
        }
    }
}
