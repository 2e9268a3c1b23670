//! Dumps of other programs: tokens, statements, counts.

use backup_drivers::foreign::Scan;

/// Whatever comes in: no panic, places that only grow, and the same result however it is cut.
pub fn run(bytes: &[u8]) {
    for scan in [Scan::default, || Scan::default().by_lines()] {
        check(bytes, scan);
    }
}

fn check(bytes: &[u8], scan: fn() -> Scan) {
    let (contents, faults) = whole(bytes, bytes.len().max(1), scan());
    assert_eq!(contents.bytes, bytes.len() as u64);
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
    assert_eq!(contents.lines, lines);
    for fault in &faults {
        assert!(fault.start <= fault.end && fault.at <= fault.end, "{fault:?}");
        assert!(
            fault.good_end.is_none_or(|good| fault.start < good && good <= fault.end),
            "{fault:?}"
        );
    }
    assert!(faults.windows(2).all(|w| w[0].end.offset <= w[1].start.offset), "{faults:?}");
    let size = usize::from(bytes.first().copied().unwrap_or(0)) + 1;
    assert_eq!(whole(bytes, size, scan()), (contents, faults));
}

fn whole(
    bytes: &[u8],
    size: usize,
    mut scan: Scan,
) -> (backup_drivers::foreign::Contents, Vec<backup_drivers::foreign::Fault>) {
    for piece in bytes.chunks(size) {
        scan.feed(piece);
    }
    scan.finish()
}

/// Dumps that are whole.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    [
        "-- MySQL dump 10.13\n--\nCREATE TABLE `t` (a INT);\nINSERT INTO `t` VALUES (1,'it''s \\' ;'),(-2.5e-7,NULL);\n\
         -- Dump completed on 2026\n",
        "/*!40101 SET SQL_MODE='ANSI_QUOTES,NO_BACKSLASH_ESCAPES' */;\nINSERT INTO \"t\" VALUES ('\\');\n",
        "DELIMITER ;;\n/*!50003 CREATE*/ /*!50003 TRIGGER x BEFORE INSERT ON t FOR EACH ROW BEGIN SET @a=1; END */;;\n\
         DELIMITER ;\nUSE `d`;\n",
        "REPLACE INTO d.t (a,b) VALUES (0xAB,_binary 'x\0'),(x'00',CAST(1 AS CHAR(3)));\n# comment\n/* ; ' */ COMMIT;",
        "SET @a=@@sql_mode;\nCREATE PROCEDURE p()\nBEGIN SELECT 1; \n-- it's\nSELECT ';'; END;\nDROP EVENT IF EXISTS `e`;",
        "LOAD DATA LOCAL INFILE 'd.t.dat' INTO TABLE `t` FIELDS TERMINATED BY '\\t' ENCLOSED BY '\"' ESCAPED BY '\\\\' \
         LINES STARTING BY '' TERMINATED BY '\\n' IGNORE 1 LINES (`a`,`b`);\n",
    ]
    .iter()
    .map(|seed| seed.as_bytes().to_vec())
    .collect()
}
