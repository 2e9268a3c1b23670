//! A database with tables of every shape that a load treats in its own way.

use backup_drivers::connect::Session;

/// So many rows have the tables whose indexes are built afterwards.
pub(crate) const MANY: u64 = 12_000;

/// Makes it: `stock`.
pub(crate) async fn fill(session: &mut Session) {
    let mysql = session.query_first::<String>("SELECT VERSION()").await.unwrap().unwrap();
    let mysql = !mysql.contains("MariaDB");
    let numbers = "(SELECT a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d AS n FROM stock.digit a, \
                   stock.digit b, stock.digit c, stock.digit d, stock.digit e) AS n";
    let many = |insert: &str, values: &str| {
        format!("INSERT INTO stock.{insert} SELECT {values} FROM {numbers} WHERE n < {MANY}")
    };
    let mut statements = vec![
        // Rows come in no order in which each follows the one it refers to.
        "SET SESSION foreign_key_checks = 0".to_owned(),
        "CREATE DATABASE stock CHARACTER SET utf8mb4".to_owned(),
        "CREATE TABLE stock.digit (d INT PRIMARY KEY)".to_owned(),
        "INSERT INTO stock.digit VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)".to_owned(),
        "CREATE TABLE stock.parent (id INT PRIMARY KEY, code VARCHAR(20) NOT NULL, up INT, UNIQUE KEY \
         code (code), KEY up (up), CONSTRAINT own FOREIGN KEY (up) REFERENCES parent (id))"
            .to_owned(),
        many("parent", "n, CONCAT('code ', n), NULLIF(n DIV 2, n)"),
        // Every kind of index, two foreign keys.
        "CREATE TABLE stock.big (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, code VARCHAR(20), n \
         INT, v VARCHAR(80) COMMENT 'a, KEY `b` (c)', at DATETIME(6), l INT AS (n * 2) VIRTUAL, s INT AS \
         (n + 1) STORED, UNIQUE KEY v (v), UNIQUE KEY two (n, v), KEY z (n), KEY l (l), KEY a (at, v(3)), \
         CONSTRAINT to_code FOREIGN KEY (code) REFERENCES parent (code) ON UPDATE CASCADE, CONSTRAINT \
         a_parent FOREIGN KEY (n) REFERENCES parent (id)) COMMENT='big; x, (y'"
            .to_owned(),
        many(
            "big (code, n, v, at)",
            "CONCAT('code ', n), n, CONCAT('v', SHA2(n, 224)), NOW(6)",
        ),
        // A small one that refers to an index which is built late.
        "CREATE TABLE stock.child (id INT PRIMARY KEY, code VARCHAR(20), CONSTRAINT child_1 FOREIGN KEY \
         (code) REFERENCES parent (code))"
            .to_owned(),
        "INSERT INTO stock.child VALUES (1, 'code 7'), (2, NULL)".to_owned(),
        // A counter that is not what the rows are kept by.
        "CREATE TABLE stock.counter (a INT, b INT, id INT AUTO_INCREMENT, KEY x (a), PRIMARY KEY (b, a), \
         KEY counter (id), KEY y (b), KEY id2 (id))"
            .to_owned(),
        many("counter (a, b)", "n MOD 7, n"),
        "CREATE TABLE stock.keyless (a INT NOT NULL, b VARCHAR(20), UNIQUE KEY u (a), KEY b (b))"
            .to_owned(),
        many("keyless", "n * 3, CONCAT('b', n MOD 100)"),
        "CREATE TABLE stock.heap_of_rows (a INT, b VARCHAR(20), KEY b (b))".to_owned(),
        many("heap_of_rows", "n MOD 10, 'same'"),
        "CREATE TABLE stock.words (id INT PRIMARY KEY, t VARCHAR(60), KEY t (t), FULLTEXT KEY f (t), KEY \
         tt (t, id)) ENGINE=InnoDB"
            .to_owned(),
        many("words", "n, CONCAT('word', n, ' and more')"),
        "CREATE TABLE stock.part (id INT, k INT, PRIMARY KEY (id), KEY k (k)) PARTITION BY RANGE (id) \
         (PARTITION a VALUES LESS THAN (4000), PARTITION b VALUES LESS THAN MAXVALUE)"
            .to_owned(),
        many("part", "n, n MOD 1000"),
        "CREATE TABLE stock.plain (id INT PRIMARY KEY, v VARCHAR(20), KEY v (v)) ENGINE=MyISAM".to_owned(),
        many("plain", "n, CONCAT('v', n)"),
        "CREATE TABLE stock.fleeting (id INT PRIMARY KEY, v VARCHAR(20)) ENGINE=MEMORY".to_owned(),
        "INSERT INTO stock.fleeting VALUES (1, 'a'), (2, 'b')".to_owned(),
        "CREATE TABLE stock.nothing (id INT PRIMARY KEY, v INT, KEY v (v))".to_owned(),
        "CREATE VIEW stock.shown AS SELECT id, code FROM stock.child".to_owned(),
        "CREATE FUNCTION stock.twice (n INT) RETURNS INT DETERMINISTIC RETURN n * 2".to_owned(),
        "CREATE TRIGGER stock.before_child BEFORE INSERT ON stock.child FOR EACH ROW SET NEW.id = NEW.id + 0"
            .to_owned(),
        "CREATE EVENT stock.never ON SCHEDULE EVERY 1 YEAR STARTS '2037-01-01 00:00:00' DO SELECT 1".to_owned(),
    ];
    if mysql {
        statements.push(
            "CREATE TABLE stock.clever (id INT PRIMARY KEY, j JSON, n INT, KEY up ((n + 1)), KEY many ((CAST(j \
             AS UNSIGNED ARRAY))), KEY hidden (n) INVISIBLE, KEY down (n DESC))"
                .to_owned(),
        );
        statements.push(many("clever", "n, JSON_ARRAY(n, n + 1), n"));
    } else {
        statements.push(
            "CREATE TABLE stock.versioned (id INT PRIMARY KEY, v INT, KEY v (v)) WITH SYSTEM VERSIONING"
                .to_owned(),
        );
        statements.push(many("versioned", "n, n MOD 9"));
        statements.push(
            "CREATE TABLE stock.tuned (id INT PRIMARY KEY, v INT, KEY v (v)) STATS_AUTO_RECALC=1 COMMENT='t'"
                .to_owned(),
        );
        statements.push(many("tuned", "n, n MOD 9"));
        statements.push("CREATE SEQUENCE stock.numbers START WITH 100 INCREMENT BY 10".to_owned());
        statements.push("SELECT NEXTVAL(stock.numbers)".to_owned());
    }
    for statement in statements {
        session.run(&statement).await.unwrap_or_else(|e| panic!("{}\n{statement}", e.report()));
    }
}
