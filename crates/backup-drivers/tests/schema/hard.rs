//! What belongs to a whole server, rows that get lost, and views that are of no use any more: added
//! to [`nasty`](crate::nasty).

use backup_core::Flavor;

/// The statements, to be run by `root` after those of `nasty`.
pub(crate) fn statements(flavor: Flavor) -> Vec<&'static str> {
    let mut all = COMMON.to_vec();
    all.extend(match flavor {
        Flavor::MySql => MYSQL,
        Flavor::MariaDb => MARIADB,
    });
    all
}

const COMMON: &[&str] = &[
    "SET NAMES utf8mb4",
    "SET sql_mode = '', time_zone = '+00:00'",
    "USE shop",
    // Rows.
    "CREATE TABLE floats (f FLOAT, d DOUBLE, m DECIMAL(65,30))",
    "INSERT INTO floats VALUES (16777216, 0.1 + 0.2, 1e-30), (1.17549435e-38, 1.7976931348623157e308, \
     12345678901234567890123456789012345.123456789012345678901234567890), (3.4028235e38, 5e-324, -1)",
    "CREATE TABLE zero (id INT AUTO_INCREMENT PRIMARY KEY, t TIMESTAMP NULL, d DATETIME(6))",
    "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'",
    "INSERT INTO zero VALUES (0, '2038-01-19 03:14:07', '0000-00-00'), (-5, NULL, '2021-02-31 23:59:59.999999')",
    "SET sql_mode = ''",
    "CREATE TABLE bits (b BIT(64), x VARBINARY(300), e ENUM('', 'a'), s SET('a', 'b'))",
    "INSERT INTO bits VALUES (b'111', x'00010a0d1a5c27225b', '', ''), (NULL, '', 'a', 'a,b')",
    "INSERT INTO bits (e) VALUES ('none')",
    // Views of what is not there any more: a table, a column, a function, another view, a database.
    "CREATE DATABASE lost",
    "CREATE TABLE lost.t (a INT, b VARCHAR(9))",
    "CREATE VIEW bad_database AS SELECT t.a AS x, CONCAT(t.b, '-', 'é') AS y FROM lost.t",
    "CREATE TABLE gone (id INT, `co l` INT, k INT)",
    "CREATE FUNCTION gone_f (a INT, b INT) RETURNS INT DETERMINISTIC RETURN a + b",
    "CREATE VIEW bad_table AS SELECT g.id, g.`co l` FROM gone AS g WHERE g.k > 5",
    "CREATE VIEW a_bad_on_bad AS SELECT id FROM bad_table WITH CASCADED CHECK OPTION",
    "CREATE VIEW bad_function AS SELECT gone_f(a, shop.gone_f(1, a)) AS r FROM t",
    "CREATE TABLE narrower (a INT, b INT)",
    "CREATE VIEW bad_column AS SELECT n.a, n.b, COUNT(*) AS c FROM narrower AS n JOIN t ON t.a = n.b GROUP BY n.a, n.b",
    "CREATE TABLE ring1 (a INT)",
    "CREATE VIEW ring2 AS SELECT a FROM ring1",
    "CREATE VIEW ring3 AS SELECT a FROM ring2",
    "DROP TABLE ring1",
    "RENAME TABLE ring3 TO ring1",
    "DROP DATABASE lost",
    "DROP TABLE gone",
    "DROP FUNCTION gone_f",
    "ALTER TABLE narrower DROP COLUMN b",
    // Nested, with checks, in an order that does not help.
    "CREATE TABLE base (id INT PRIMARY KEY, n INT)",
    "CREATE VIEW z_first AS SELECT id, n FROM base WHERE n > 0 WITH LOCAL CHECK OPTION",
    "CREATE VIEW m_second AS SELECT id, n FROM z_first WHERE n < 100",
    "CREATE VIEW a_third AS SELECT id, n FROM m_second WHERE id > 0 WITH CASCADED CHECK OPTION",
    // Accounts.
    "CREATE ROLE `ro``le`",
    "CREATE ROLE deputy",
    "CREATE USER 'it''s'@'10.%' IDENTIFIED BY 'one' REQUIRE SSL WITH MAX_QUERIES_PER_HOUR 5 MAX_USER_CONNECTIONS 3",
    "CREATE USER 'ünï'@'%' REQUIRE SUBJECT '/CN=x' AND ISSUER '/CN=it''s'",
    "CREATE USER ''@'nowhere'",
    "CREATE USER definer@localhost",
    "CREATE USER locked@'192.168.0.0/255.255.0.0' ACCOUNT LOCK",
    "CREATE USER expired@localhost IDENTIFIED BY 'x' PASSWORD EXPIRE",
    "CREATE USER often@localhost IDENTIFIED BY 'x' PASSWORD EXPIRE INTERVAL 90 DAY",
    "GRANT SELECT (id), UPDATE (n), INSERT ON shop.base TO 'it''s'@'10.%' WITH GRANT OPTION",
    "GRANT SELECT ON `we ird.``db``/%é`.* TO 'ünï'@'%'",
    "GRANT SELECT, CREATE TEMPORARY TABLES ON `sh\\_p%`.* TO 'ünï'@'%'",
    "GRANT EXECUTE, ALTER ROUTINE ON PROCEDURE shop.p1 TO `ro``le`",
    "GRANT EXECUTE ON FUNCTION shop.f1 TO deputy",
    "GRANT SELECT ON shop.m_second TO definer@localhost",
    "GRANT RELOAD, PROCESS ON *.* TO deputy",
    "GRANT `ro``le` TO deputy WITH ADMIN OPTION",
    "GRANT deputy TO 'it''s'@'10.%'",
    "GRANT `ro``le` TO 'it''s'@'10.%'",
    "GRANT PROXY ON definer@localhost TO expired@localhost WITH GRANT OPTION",
    // A view that can be read only when its definer has been granted another view.
    "CREATE DEFINER = definer@localhost VIEW by_definer AS SELECT id FROM m_second",
    "CREATE VIEW a_on_definer AS SELECT id FROM by_definer",
];

const MYSQL: &[&str] = &[
    "SET DEFAULT ROLE deputy, `ro``le` TO 'it''s'@'10.%'",
    "ALTER USER 'it''s'@'10.%' IDENTIFIED BY 'two' RETAIN CURRENT PASSWORD",
    "CREATE USER strict@localhost IDENTIFIED BY 'x' PASSWORD HISTORY 5 PASSWORD REUSE INTERVAL 3 DAY PASSWORD REQUIRE \
     CURRENT FAILED_LOGIN_ATTEMPTS 3 PASSWORD_LOCK_TIME UNBOUNDED ATTRIBUTE '{\"a\": \"é''x\\\\\\\\\"}'",
    "CREATE USER commented@localhost COMMENT 'it''s \\\\ é'",
    "SET GLOBAL partial_revokes = ON",
    "CREATE USER partial@'%'",
    "GRANT SELECT, BACKUP_ADMIN ON *.* TO partial@'%'",
    "GRANT BINLOG_ADMIN ON *.* TO partial@'%' WITH GRANT OPTION",
    "REVOKE SELECT ON mysql.* FROM partial@'%'",
    "REVOKE SELECT ON `ORDER`.* FROM partial@'%'",
    // The server's own things.
    "CREATE SPATIAL REFERENCE SYSTEM 4000000 NAME 'a''b\\\\' ORGANIZATION 'me' IDENTIFIED BY 7 DEFINITION \
     'GEOGCS[\"x\",DATUM[\"y\",SPHEROID[\"z\",6378137,298.25]],PRIMEM[\"G\",0],UNIT[\"degree\",0.0174],\
     AXIS[\"Lat\",NORTH],AXIS[\"Lon\",EAST]]' DESCRIPTION 'é'",
    "CREATE TABLE own_srs (g POINT NOT NULL SRID 4000000)",
    "INSERT INTO own_srs VALUES (ST_GeomFromText('POINT(1 2)', 4000000))",
    "CREATE RESOURCE GROUP `r g` TYPE = USER VCPU = 0 THREAD_PRIORITY = 3",
    "CREATE RESOURCE GROUP off TYPE = USER DISABLE",
    "INSERT INTO base VALUES (1, 10), (2, 20), (3, NULL)",
    "ANALYZE TABLE base UPDATE HISTOGRAM ON n WITH 4 BUCKETS",
    "ANALYZE TABLE base UPDATE HISTOGRAM ON id WITH 2 BUCKETS AUTO UPDATE",
    "INSERT INTO vectors VALUES (TO_VECTOR('[1.5,-2,3e-20]'), NULL), (NULL, TO_VECTOR('[1]'))",
    "INSERT INTO in_tablespace VALUES (1), (2)",
    "CREATE DATABASE frozen",
    "CREATE TABLE frozen.t (a INT)",
    "INSERT INTO frozen.t VALUES (5)",
    "ALTER DATABASE frozen READ ONLY = 1",
];

const MARIADB: &[&str] = &[
    "SET DEFAULT ROLE deputy FOR 'it''s'@'10.%'",
    "INSTALL SONAME 'auth_ed25519'",
    "CREATE USER `both`@localhost IDENTIFIED VIA ed25519 USING PASSWORD('secret') OR unix_socket",
    "CREATE USER old@localhost IDENTIFIED BY PASSWORD '*B69027D44F6E5EDC07F1AEAD1477967B16F28227'",
    "CREATE ROLE led WITH ADMIN 'it''s'@'10.%'",
    "GRANT SELECT ON `ORDER`.* TO PUBLIC",
    "SET sql_mode = 'ORACLE'",
    "GRANT EXECUTE ON PACKAGE shop.pk TO deputy",
    "SET sql_mode = ''",
    // The past.
    "CREATE TABLE past (id INT PRIMARY KEY, v VARCHAR(9)) WITH SYSTEM VERSIONING",
    "INSERT INTO past VALUES (1, 'a'), (2, 'b')",
    "UPDATE past SET v = 'c' WHERE id = 1",
    "DELETE FROM past WHERE id = 2",
    "INSERT INTO history VALUES (1), (2)",
    "DELETE FROM history WHERE a = 1",
    "INSERT INTO versioned (a, b) VALUES (1, 2)",
    "UPDATE versioned SET a = 2",
    "INSERT INTO sequenced VALUES (), ()",
    "INSERT INTO base VALUES (1, 10), (2, 20), (3, NULL)",
];
