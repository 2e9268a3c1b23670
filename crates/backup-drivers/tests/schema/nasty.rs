//! A schema with everything that is known to get lost.

use backup_core::Flavor;

/// Databases, in the order in which they are created.
pub(crate) const DATABASES: &[&str] = &["shop", "we ird.`db`/%é", "ORDER", "x'y\\z"];

/// The statements that make the schema, to be run one after the other by `root`.
pub(crate) fn statements(flavor: Flavor) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    let mut add =
        |statements: &[&str]| all.extend(statements.iter().map(|s| s.as_bytes().to_vec()));
    add(COMMON);
    match flavor {
        Flavor::MySql => add(MYSQL),
        Flavor::MariaDb => add(MARIADB),
    }
    add(CODE);
    match flavor {
        Flavor::MySql => add(MYSQL_CODE),
        Flavor::MariaDb => add(MARIADB_CODE),
    }
    // Text in other character sets than UTF-8, written as Latin-1 in this source.
    let bytes = |statement: &str| statement.chars().map(|c| c as u32 as u8).collect::<Vec<u8>>();
    all.extend(OTHER_CHARSETS.iter().map(|s| bytes(s)));
    match flavor {
        Flavor::MySql => all.extend(MYSQL_BYTES.iter().map(|s| bytes(s))),
        Flavor::MariaDb => all.extend(MARIADB_BYTES.iter().map(|s| bytes(s))),
    }
    all
}

const COMMON: &[&str] = &[
    "SET NAMES utf8mb4",
    "SET sql_mode = ''",
    "SET time_zone = '+05:30'",
    "CREATE DATABASE shop CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE DATABASE `we ird.``db``/%é` CHARACTER SET latin1 COLLATE latin1_german1_ci",
    "CREATE DATABASE `ORDER`",
    "CREATE DATABASE `x'y\\z` CHARACTER SET gbk",
    "USE shop",
    // Names.
    "CREATE TABLE t (a INT)",
    "CREATE TABLE T (a INT)",
    "CREATE TABLE `select` (`from` INT PRIMARY KEY, `group by` INT, KEY `order` (`group by`))",
    "CREATE TABLE `a b.c/d\\e%f``g` (`x.y` INT, ` lead` INT, `ünïcödé 中` INT, `quo'te\"s` INT)",
    "CREATE TABLE `we ird.``db``/%é`.`é.``%_` (a INT)",
    "CREATE TABLE `x'y\\z`.`t'\\t` (`c'\\` VARCHAR(3) COMMENT 'a''b')",
    // Comments.
    "CREATE TABLE comments (a INT COMMENT 'it''s \"q\" \\\\ back\nnew\ttab; -- x /* y */ é', \
     KEY k (a) COMMENT 'k''ey') COMMENT = 'CREATE TABLE `x` (''a'',\\n\\\\) AUTO_INCREMENT=5'",
    // Defaults.
    "CREATE TABLE defaults (a DATE DEFAULT '0000-00-00', b DATETIME(6) NOT NULL DEFAULT \
     '0000-00-00 00:00:00.000000', c TIMESTAMP(3) NULL DEFAULT '2020-02-29 12:00:00.123', \
     d TIMESTAMP NOT NULL DEFAULT '0000-00-00 00:00:00', e TIMESTAMP(6) NOT NULL DEFAULT \
     CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), f YEAR DEFAULT '0000', \
     g TIME(2) DEFAULT '-838:59:59.00', h DECIMAL(65,30) DEFAULT '-0.000000000000000000000000000001', \
     i BIT(64) DEFAULT b'1010', j DOUBLE DEFAULT 1e-300, k FLOAT DEFAULT 3.4e38, \
     l TIMESTAMP NULL, m TIMESTAMP NOT NULL)",
    "CREATE TABLE bytes (a BINARY(4) DEFAULT 0x00FF27FE, b VARBINARY(9) DEFAULT 'é\\'\\\\\\0\\n', \
     c VARBINARY(3) DEFAULT '')",
    "CREATE TABLE expressions (a INT DEFAULT (1 + 1), b VARCHAR(40) DEFAULT (CONCAT('it''s', '\\\\', 'é🎉')), \
     c BLOB DEFAULT ('x'), d DATETIME DEFAULT (CURRENT_TIMESTAMP + INTERVAL 1 DAY))",
    "SET sql_mode = 'ALLOW_INVALID_DATES'",
    "CREATE TABLE impossible (a DATE DEFAULT '2021-02-31', b DATETIME DEFAULT '2020-00-00 00:00:00')",
    "SET sql_mode = ''",
    // Character sets.
    "CREATE TABLE charsets (a VARCHAR(9) CHARACTER SET latin1 DEFAULT 'é', b VARCHAR(9) CHARACTER SET gbk \
     COLLATE gbk_bin DEFAULT '中', c CHAR(3) CHARACTER SET ucs2 DEFAULT 'é', d TEXT CHARACTER SET utf16, \
     e VARCHAR(9) CHARACTER SET utf8mb3 COLLATE utf8mb3_bin DEFAULT 'é', f VARCHAR(9) CHARACTER SET \
     utf8mb4 DEFAULT 'a🎉?', g VARCHAR(9) CHARACTER SET utf16 DEFAULT '🎉', h VARCHAR(9) CHARACTER SET \
     ascii, i VARCHAR(9) CHARACTER SET sjis DEFAULT 'ソ', j VARCHAR(9) BINARY, k VARCHAR(9) CHARACTER SET \
     utf8mb4 DEFAULT '?') DEFAULT CHARACTER SET latin1 COLLATE latin1_german2_ci",
    "CREATE TABLE enums (a ENUM('a,b', 'it''s', '', '\\\\', 'é', ' x') DEFAULT 'it''s', b SET('x', 'y''z', 'é') \
     DEFAULT 'x,é', c ENUM('中', '\\\\中') CHARACTER SET gbk DEFAULT '中', d ENUM('ÿ') CHARACTER SET latin1)",
    "CREATE TABLE emoji (a ENUM('🎉', '?', 'é') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT '🎉', \
     b SET('x', '🎉', '🎈', '?') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin)",
    "INSERT INTO emoji VALUES ('🎉', '🎉,🎈'), ('?', '?'), ('é', 'x,🎈')",
    // Keys.
    "CREATE TABLE `keys` (a INT NOT NULL, b INT NOT NULL, c VARCHAR(200), d TEXT, e BLOB, UNIQUE KEY `u n` (b, a), \
     KEY pre (c(10), d(20), e(30)), KEY `de sc` (a DESC, b), FULLTEXT KEY ft (c, d)) ENGINE = InnoDB",
    "CREATE TABLE auto (id BIGINT UNSIGNED AUTO_INCREMENT, n INT, PRIMARY KEY (id), KEY (n)) AUTO_INCREMENT = 18446744073709551610",
    "CREATE TABLE `generated` (a INT, v INT AS (a + 1) VIRTUAL, s VARCHAR(30) AS (CONCAT(a, 'é')) STORED COMMENT 'c', \
     id INT NOT NULL PRIMARY KEY, UNIQUE KEY (s), KEY (v))",
    // Foreign keys.
    "CREATE TABLE parent (id INT PRIMARY KEY, up INT, other INT, KEY (other), CONSTRAINT `self` FOREIGN KEY (up) \
     REFERENCES parent (id) ON DELETE SET NULL)",
    "SET foreign_key_checks = 0",
    "CREATE TABLE cycle1 (id INT PRIMARY KEY, x INT, CONSTRAINT `c 1` FOREIGN KEY (x) REFERENCES cycle2 (id) ON UPDATE CASCADE)",
    "CREATE TABLE cycle2 (id INT PRIMARY KEY, x INT, FOREIGN KEY (x) REFERENCES cycle1 (id) ON DELETE CASCADE)",
    "CREATE TABLE `ORDER`.abroad (x INT, CONSTRAINT `self` FOREIGN KEY (x) REFERENCES `shop`.`parent` (id) ON DELETE RESTRICT)",
    "SET foreign_key_checks = 1",
    // Storage.
    "CREATE TABLE compressed (id INT PRIMARY KEY) ROW_FORMAT = COMPRESSED KEY_BLOCK_SIZE = 8 STATS_PERSISTENT = 0 \
     STATS_SAMPLE_PAGES = 7",
    "CREATE TABLE redundant (id INT PRIMARY KEY) ROW_FORMAT = REDUNDANT",
    "CREATE TABLE myisam (a INT, b VARCHAR(9), KEY (b)) ENGINE = MyISAM MAX_ROWS = 1000 PACK_KEYS = 1 DELAY_KEY_WRITE = 1",
    "CREATE TABLE memory (a INT NOT NULL, UNIQUE KEY (a) USING HASH, KEY (a) USING BTREE) ENGINE = MEMORY",
    // Partitions.
    "CREATE TABLE by_range (id INT, d DATE NOT NULL, PRIMARY KEY (id, d)) PARTITION BY RANGE (TO_DAYS(d)) SUBPARTITION BY \
     HASH (id) (PARTITION `p é` VALUES LESS THAN (737791) COMMENT = 'it''s' (SUBPARTITION `s 0`, SUBPARTITION s1), \
     PARTITION p1 VALUES LESS THAN MAXVALUE (SUBPARTITION s2, SUBPARTITION s3))",
    "CREATE TABLE by_list (a VARCHAR(9) CHARACTER SET utf8mb4, b INT) PARTITION BY LIST COLUMNS (a, b) \
     (PARTITION p0 VALUES IN (('é', 1), ('🎉', NULL)), PARTITION p1 VALUES IN (('it''s', 2)))",
    "CREATE TABLE by_key (id INT PRIMARY KEY) PARTITION BY LINEAR KEY (id) PARTITIONS 3",
];

const MYSQL: &[&str] = &[
    "CREATE TABLE `#mysql50#x` (a INT)",
    "CREATE TABLE checks (a INT, b VARCHAR(9) CHARACTER SET latin1, CONSTRAINT `ch eck` CHECK (a > 0 AND b <> 'é''\\\\') \
     NOT ENFORCED, CHECK (CONCAT('🎉', a) <> 'x'), CHECK (b <> _latin1 x'e9'), CHECK (b <> _binary x'fffe27'))",
    "CREATE TABLE invisible (a INT, b INT INVISIBLE, c INT DEFAULT 5 INVISIBLE COMMENT 'i', KEY k (a) INVISIBLE)",
    "SET sql_generate_invisible_primary_key = ON",
    "CREATE TABLE gipk (a INT)",
    "SET sql_generate_invisible_primary_key = OFF",
    "CREATE TABLE functional (a INT, j JSON DEFAULT ('{\"é\": [\"🎉\"]}'), KEY f1 ((a * 2)), KEY f2 ((CONCAT(a, 'é🎉')) DESC), \
     UNIQUE KEY f3 ((ABS(a))), KEY mv ((CAST(j->'$[*]' AS UNSIGNED ARRAY))))",
    "CREATE TABLE `spatial` (id INT PRIMARY KEY, p POINT NOT NULL SRID 4326, g GEOMETRY NOT NULL, SPATIAL KEY (p))",
    "CREATE TABLE ngram (a TEXT, FULLTEXT KEY (a) WITH PARSER ngram)",
    "CREATE TABLE vectors (v VECTOR(3), w VECTOR)",
    "SET restrict_fk_on_non_standard_key = OFF",
    "CREATE TABLE child_of_non_unique (x INT, FOREIGN KEY (x) REFERENCES parent (other))",
    "SET restrict_fk_on_non_standard_key = ON",
    "CREATE TABLESPACE `t s` ADD DATAFILE 'holdfast ts.ibd' ENGINE = InnoDB",
    "CREATE TABLE in_tablespace (a INT) TABLESPACE `t s`",
    "CREATE TABLESPACE `nothing in it` ADD DATAFILE 'nothing.ibd' FILE_BLOCK_SIZE = 8192 ENGINE = InnoDB",
    "CREATE TABLE `attributes` (a INT SECONDARY_ENGINE_ATTRIBUTE = '{\"k\": \"v''é\"}') AUTOEXTEND_SIZE = 4M",
    "ALTER DATABASE `ORDER` READ ONLY = 0",
    "CREATE TABLE merged (a INT, b VARCHAR(9), KEY (b)) ENGINE = MERGE UNION = (myisam) INSERT_METHOD = LAST",
];

const MARIADB: &[&str] = &[
    "CREATE TABLE checks (a INT CHECK (a > 0), b VARCHAR(9) CHARACTER SET latin1, CONSTRAINT `ch eck` CHECK (a > 0 AND b <> \
     'é''\\\\'), CHECK (CONCAT('🎉', a) <> 'x'), CHECK (b <> _latin1 x'e9'))",
    "CREATE TABLE invisible (a INT, b INT INVISIBLE, c INT INVISIBLE DEFAULT 5 COMMENT 'i', KEY k (a) IGNORED)",
    "CREATE TABLE persistent (a INT, p INT AS (a * 2) PERSISTENT, j JSON)",
    "CREATE SEQUENCE `se q` START WITH 5 MINVALUE 1 MAXVALUE 10 INCREMENT BY 2 CACHE 2 CYCLE",
    "CREATE SEQUENCE down START WITH -1 MINVALUE -100 MAXVALUE -1 INCREMENT BY -3 NOCACHE",
    "CREATE SEQUENCE `over` START WITH 1 MAXVALUE 2 NOCACHE NOCYCLE",
    "SELECT NEXTVAL(`se q`), NEXTVAL(`se q`), NEXTVAL(`se q`), NEXTVAL(`se q`)",
    "SELECT NEXTVAL(down), NEXTVAL(down)",
    "SELECT NEXTVAL(`over`), NEXTVAL(`over`)",
    "CREATE TABLE sequenced (id INT DEFAULT NEXTVAL(`se q`) PRIMARY KEY, b INT DEFAULT (NEXTVAL(`down`)))",
    "CREATE TABLE versioned (a INT, s TIMESTAMP(6) GENERATED ALWAYS AS ROW START INVISIBLE, e TIMESTAMP(6) GENERATED \
     ALWAYS AS ROW END, b INT WITHOUT SYSTEM VERSIONING, PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING",
    "CREATE TABLE history (a INT) WITH SYSTEM VERSIONING PARTITION BY SYSTEM_TIME INTERVAL 1 MONTH STARTS \
     TIMESTAMP'2020-01-01 00:00:00' (PARTITION p0 HISTORY, PARTITION pn CURRENT)",
    "CREATE TABLE periods (id INT, f DATE, t DATE, PERIOD FOR app (f, t), PRIMARY KEY (id, app WITHOUT OVERLAPS))",
    "CREATE TABLE types (i6 INET6 DEFAULT '::1', i4 INET4, u UUID DEFAULT UUID(), UNIQUE KEY (i6))",
    "CREATE TABLE long_unique (a TEXT, UNIQUE KEY (a))",
    "CREATE TABLE aria (a INT PRIMARY KEY) ENGINE = Aria TRANSACTIONAL = 1 PAGE_CHECKSUM = 1",
    "CREATE TABLE `spatial` (id INT PRIMARY KEY, p POINT REF_SYSTEM_ID = 4326 NOT NULL, SPATIAL KEY (p))",
    "CREATE TABLE engine_options (a INT) ENGINE = InnoDB PAGE_COMPRESSED = 1 ENCRYPTED = NO",
];

const CODE: &[&str] = &[
    "CREATE FUNCTION f1 () RETURNS INT DETERMINISTIC RETURN 1",
    "CREATE DEFINER = 'nobody'@'10.%' FUNCTION `f ``2` (a VARCHAR(9) CHARACTER SET latin1) RETURNS ENUM('a', 'é') CHARSET \
     utf8mb4 NO SQL DETERMINISTIC SQL SECURITY INVOKER COMMENT 'it''s\nün' RETURN 'é'",
    "CREATE PROCEDURE p1 (IN a INT, OUT `b c` DECIMAL(5,2), INOUT d JSON) MODIFIES SQL DATA BEGIN DECLARE x INT; \
     /* comment */ -- another\n # third\n SELECT 'it''s', \"double\", `a` FROM t; END",
    "CREATE PROCEDURE `ORDER`.`p.1` () SELECT '🎉'",
    // Only the end of the line ends it.
    "CREATE PROCEDURE ends_in_comment () SELECT 1 -- the end",
    "CREATE FUNCTION ends_in_hash () RETURNS INT DETERMINISTIC RETURN 1 # the end",
    "CREATE EVENT ev_ends_in_comment ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1 -- the end",
    // Each under an sql_mode of its own.
    "SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'",
    "CREATE PROCEDURE ansi () SELECT \"a\" || 'b' FROM \"t\"",
    "CREATE TRIGGER tr_ansi BEFORE INSERT ON \"select\" FOR EACH ROW SET NEW.\"from\" = LENGTH('x' || \"NEW\".\"from\")",
    "CREATE EVENT ev_ansi ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT \"a\" FROM \"t\"",
    "CREATE VIEW v_ansi AS SELECT 'a' || 'b' AS \"x y\", \"a\" FROM \"t\"",
    "SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
    "CREATE PROCEDURE no_escapes () COMMENT 'back\\slash' SELECT 'C:\\', '\\n'",
    "CREATE VIEW v_no_escapes AS SELECT 'C:\\' AS a, '\\n' AS b",
    "CREATE EVENT ev_no_escapes ON SCHEDULE EVERY 1 HOUR DISABLE COMMENT 'C:\\' DO SELECT '\\'",
    "SET sql_mode = 'HIGH_NOT_PRECEDENCE,IGNORE_SPACE,NO_UNSIGNED_SUBTRACTION,REAL_AS_FLOAT,ONLY_FULL_GROUP_BY'",
    "CREATE FUNCTION modes () RETURNS REAL DETERMINISTIC RETURN NOT 1 BETWEEN -5 AND 5",
    "SET sql_mode = ''",
    // Views: on views, in an order that the alphabet does not help with.
    "CREATE VIEW v3 AS SELECT a, f1() AS f, shop.f1() AS g FROM t",
    "CREATE VIEW v2 AS SELECT x.a, x.f FROM v3 AS x JOIN `ORDER`.abroad AS y ON x.a = y.x",
    "CREATE VIEW v1 (`c 1`, `é`) AS SELECT a, f FROM v2 WHERE a NOT IN (SELECT x FROM `ORDER`.abroad) UNION ALL SELECT 1, 'é🎉'",
    "CREATE ALGORITHM = MERGE DEFINER = 'gone'@'%' SQL SECURITY INVOKER VIEW v_check AS SELECT a FROM t WHERE a > 1 WITH LOCAL CHECK OPTION",
    "CREATE ALGORITHM = TEMPTABLE VIEW `v.``4` AS SELECT 'a`b' AS `c``d`, 'shop.`t`' AS e, `a b.c/d\\e%f``g`.`x.y` FROM `a b.c/d\\e%f``g`",
    "CREATE VIEW `ORDER`.`from shop` AS SELECT shop.a FROM shop.t AS shop",
    "CREATE VIEW v_cte AS WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT n FROM r",
    "CREATE VIEW v_window AS SELECT a, ROW_NUMBER() OVER (PARTITION BY a ORDER BY a DESC) AS n FROM T",
    // Triggers: several for one event, in an order of their own.
    "CREATE TABLE fired (n INT AUTO_INCREMENT PRIMARY KEY, who VARCHAR(9))",
    "CREATE TRIGGER z_first BEFORE INSERT ON t FOR EACH ROW INSERT INTO fired (who) VALUES ('first')",
    "CREATE TRIGGER a_third BEFORE INSERT ON t FOR EACH ROW FOLLOWS z_first INSERT INTO fired (who) VALUES ('third')",
    "CREATE TRIGGER m_second BEFORE INSERT ON shop.t FOR EACH ROW PRECEDES a_third INSERT INTO fired (who) VALUES ('second')",
    "CREATE DEFINER = 'gone'@'%' TRIGGER `shop`.`tr é.``x` AFTER UPDATE ON `a b.c/d\\e%f``g` FOR EACH ROW BEGIN SET @a = 'it''s ON `t`'; END",
    "CREATE TRIGGER after_delete AFTER DELETE ON t FOR EACH ROW SET @deleted = OLD.a",
    "CREATE TABLE moved_before (a INT)",
    "CREATE TRIGGER `moved` BEFORE INSERT ON moved_before FOR EACH ROW SET NEW.a = 1",
    "RENAME TABLE moved_before TO `moved after é`",
    // Events.
    "SET time_zone = '-03:30'",
    "CREATE EVENT ev_once ON SCHEDULE AT '2037-01-01 10:00:00' DO SELECT 1",
    "CREATE EVENT ev_over ON SCHEDULE AT '2001-01-01 10:00:00' ON COMPLETION PRESERVE DO SELECT 1",
    "CREATE DEFINER = 'gone'@'%' EVENT `ev.``é` ON SCHEDULE EVERY '1:30' HOUR_MINUTE STARTS '2020-01-01 10:00:00' ENDS \
     '2037-01-01 00:00:00' ON COMPLETION PRESERVE DISABLE COMMENT 'it''s\\n é' DO BEGIN SELECT 'é🎉'; END",
    "CREATE EVENT ev_on ON SCHEDULE EVERY 1 YEAR STARTS '2036-06-01 00:00:00' ENABLE DO DELETE FROM t",
    "CREATE EVENT ev_replica ON SCHEDULE EVERY 1 WEEK STARTS '2020-01-01 00:00:00' DISABLE ON SLAVE DO SELECT 1",
    "SET time_zone = '+05:30'",
];

const MYSQL_CODE: &[&str] = &[
    "CREATE LIBRARY `li b` LANGUAGE JAVASCRIPT AS $$ export function f () { return '`it''s`' } $$",
    "CREATE VIEW v_json AS SELECT j->>'$.é' AS x FROM functional",
    "CREATE VIEW v_lateral AS SELECT l.x FROM t, LATERAL (SELECT t.a + 1 AS x) AS l",
];

const MARIADB_CODE: &[&str] = &[
    "CREATE AGGREGATE FUNCTION agg (x INT) RETURNS INT BEGIN DECLARE s INT DEFAULT 0; DECLARE CONTINUE HANDLER FOR NOT FOUND \
     RETURN s; LOOP FETCH GROUP NEXT ROW; SET s = s + x; END LOOP; END",
    "SET sql_mode = 'ORACLE'",
    "CREATE PACKAGE pk AS FUNCTION f RETURN INT; END",
    "CREATE PACKAGE BODY pk AS FUNCTION f RETURN INT AS BEGIN RETURN 'é' || 1; END; END",
    "CREATE PROCEDURE oracle (a IN VARCHAR2) AS x INT := 1; BEGIN SELECT a || x FROM dual; END",
    "CREATE VIEW v_oracle AS SELECT 'a' || NULL || 'b' AS x FROM dual",
    "SET sql_mode = ''",
];

/// Written as Latin-1: each character is a byte.
const OTHER_CHARSETS: &[&str] = &[
    "SET NAMES latin1 COLLATE latin1_german1_ci",
    "CREATE DEFINER = `n\u{e9}`@`nohost` FUNCTION `latin \u{e9}` (`\u{e9}` INT) RETURNS ENUM('\u{e9}', 'x') CHARSET latin1 \
     DETERMINISTIC COMMENT 'it''s \u{e9}' RETURN '\u{e9}'",
    "CREATE TRIGGER `latin tr \u{e9}` BEFORE INSERT ON comments FOR EACH ROW SET @a = 'caf\u{e9}'",
    "CREATE EVENT `latin ev \u{e9}` ON SCHEDULE EVERY 1 DAY STARTS '2036-01-01 00:00:00' DISABLE COMMENT '\u{e9}' DO SELECT 'caf\u{e9}'",
    "CREATE VIEW `latin v \u{e9}` AS SELECT '\u{e9}' AS `\u{e9}`, _latin1'\u{e9}' AS a",
    "CREATE TRIGGER `latin moved` BEFORE UPDATE ON `moved after \u{e9}` FOR EACH ROW SET @a = 'caf\u{e9}'",
    "SET NAMES gbk",
    // The second bytes are a backslash and a backtick.
    "CREATE PROCEDURE gbk () SELECT '\u{d6}\u{d0}', '\u{81}\u{5c}', '\u{81}\u{60}'",
    "CREATE VIEW gbk_v AS SELECT '\u{d6}\u{d0}' AS `\u{d6}\u{d0}`, '\u{81}\u{60}' AS b, x'ff' AS c",
    "SET NAMES sjis",
    "CREATE PROCEDURE sjis () SELECT '\u{83}\u{5c}'",
    "SET NAMES utf8mb4",
    // A database whose collation was changed after its routines were made.
    "ALTER DATABASE `ORDER` COLLATE utf8mb4_bin",
];

const MYSQL_BYTES: &[&str] = &["CREATE PROCEDURE raw () SELECT _latin1'a', 1"];

const MARIADB_BYTES: &[&str] = &[
    "SET NAMES gbk",
    "CREATE VIEW shop.gbk_v2 AS SELECT '\u{81}\u{5c}' AS b",
    "SET NAMES utf8mb4",
    "CREATE PROCEDURE raw () SELECT _binary '\u{ff}\u{fe}', _latin1'\u{e9}'",
    "CREATE TRIGGER raw_tr BEFORE DELETE ON comments FOR EACH ROW SET @x = _binary '\u{ff}'",
];
