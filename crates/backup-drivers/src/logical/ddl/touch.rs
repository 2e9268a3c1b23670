//! What a statement of a binlog may have to do with some tables, told by its words alone. What is in
//! doubt counts as such: whoever leaves statements out must be sure.

use std::collections::BTreeSet;

use super::lexer::{Dialect, Token, TokenKind};
use super::significant;
use crate::logical::select::TableName;

/// The tables and databases that are of interest. Names are compared without regard to case, which
/// finds too much rather than too little.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    tables: BTreeSet<(String, String)>,
    databases: BTreeSet<String>,
}

/// What a statement means for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touch {
    /// Nothing.
    Nothing,
    /// It changes them, and needs nothing else.
    Them,
    /// It cannot be told, and why.
    Unclear(&'static str),
}

/// A statement as [`Wanted::statement`] reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) touch: Touch,
    /// Later statements may change the tables without naming them: there is a trigger, a view or a
    /// routine now.
    pub(crate) hides: bool,
}

/// What a statement is about; the words that tell it, in the order in which they are looked for.
pub(super) const OBJECTS: [&str; 17] = [
    "TEMPORARY",
    "USER",
    "ROLE",
    "SERVER",
    "TRIGGER",
    "PROCEDURE",
    "FUNCTION",
    "EVENT",
    "PACKAGE",
    "VIEW",
    "DATABASE",
    "SCHEMA",
    "SEQUENCE",
    "TABLESPACE",
    "INDEX",
    "TABLE",
    "TABLES",
];

impl Wanted {
    pub(crate) fn new<'a>(
        tables: impl IntoIterator<Item = &'a TableName>,
        databases: impl IntoIterator<Item = &'a String>,
    ) -> Self {
        let pair = |t: &TableName| (t.database.to_lowercase(), t.table.to_lowercase());
        Wanted {
            tables: tables.into_iter().map(pair).collect(),
            databases: databases.into_iter().map(|d| d.to_lowercase()).collect(),
        }
    }

    /// Whether a table is among them.
    pub(crate) fn has(&self, database: &str, table: &str) -> bool {
        let (database, table) = (database.to_lowercase(), table.to_lowercase());
        self.databases.contains(&database) || self.tables.contains(&(database, table))
    }

    /// Whether a text may mean one of them: a name of theirs is in it.
    pub(crate) fn is_mentioned_in(&self, text: &str) -> bool {
        self.mentioned(&names(&significant(text, Dialect::default())))
    }

    fn mentioned(&self, names: &BTreeSet<String>) -> bool {
        self.tables.iter().any(|(_, table)| names.contains(table))
            || self.databases.iter().any(|database| names.contains(database))
    }

    /// Reads a statement that was run with this default database. `hidden` says whether statements may
    /// change the tables without naming them.
    pub(crate) fn statement(&self, database: &str, sql: &str, hidden: bool) -> Read {
        let tokens = significant(sql, Dialect::default());
        let names = names(&tokens);
        let here = self.databases.contains(&database.to_lowercase());
        let mentioned = here || self.mentioned(&names);
        let has = |word: &str| tokens.iter().any(|t| t.is_word(word));
        let first = tokens.first().map(|t| t.text.to_ascii_uppercase()).unwrap_or_default();
        let mut hides = false;
        let touch = match first.as_str() {
            "BEGIN" | "START" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" | "XA"
            | "GRANT" | "REVOKE" | "FLUSH" | "SET" | "ANALYZE" | "OPTIMIZE" | "CHECK"
            | "INSTALL" | "UNINSTALL" => Touch::Nothing,
            "CREATE" | "ALTER" | "DROP" | "TRUNCATE" => {
                let head = tokens.iter().take(16).skip(1);
                let object = head
                    .filter(|t| t.kind == TokenKind::Word)
                    .find_map(|token| OBJECTS.into_iter().find(|object| token.is_word(object)));
                match object.unwrap_or("TABLE") {
                    "USER" | "ROLE" | "SERVER" => Touch::Nothing,
                    "DATABASE" | "SCHEMA" => {
                        let of_table = self.tables.iter().any(|(d, _)| names.contains(d));
                        if mentioned || of_table { Touch::Them } else { Touch::Nothing }
                    }
                    _ if !mentioned => Touch::Nothing,
                    "TRIGGER" => {
                        hides = true;
                        Touch::Them
                    }
                    "PROCEDURE" | "FUNCTION" | "EVENT" | "PACKAGE" => {
                        hides = true;
                        if self.databases.is_empty() { Touch::Nothing } else { Touch::Them }
                    }
                    "VIEW" if self.databases.is_empty() => {
                        hides = true;
                        Touch::Nothing
                    }
                    "VIEW" => Touch::Unclear("a view may refer to other databases"),
                    "TABLE" | "TABLES" | "INDEX" => {
                        let others =
                            ["RENAME", "LIKE", "SELECT", "EXCHANGE", "REFERENCES", "UNION"];
                        let several = first == "DROP" && tokens.iter().any(|t| t.is_sign(','));
                        match several || others.iter().any(|word| has(word)) {
                            true => Touch::Unclear("a statement about them needs another table"),
                            false => Touch::Them,
                        }
                    }
                    _ => Touch::Unclear("a statement about them is of a kind that is not followed"),
                }
            }
            "RENAME" if !mentioned || has("USER") => Touch::Nothing,
            "RENAME" => Touch::Unclear("a table is renamed"),
            "INSERT" | "REPLACE" | "UPDATE" | "DELETE" if mentioned && !hidden => {
                match is_of_one_table(&tokens) {
                    true => Touch::Them,
                    false => Touch::Unclear("a statement that changes them reads other tables"),
                }
            }
            _ if hidden => Touch::Unclear(
                "changes are in the binlog as statements, and triggers, views or routines name the \
                 tables",
            ),
            _ if mentioned => Touch::Unclear("a statement about them may read other tables"),
            _ => Touch::Nothing,
        };
        Read { touch, hides }
    }
}

/// Everything in a statement that may be a name, in lower case.
pub(super) fn names(tokens: &[Token<'_>]) -> BTreeSet<String> {
    let name = |token: &Token<'_>| match token.kind {
        // With ANSI_QUOTES it is a name.
        TokenKind::Text if token.text.starts_with('"') => {
            Some(token.text.trim_matches('"').to_lowercase())
        }
        _ => token.name().map(|name| name.to_lowercase()),
    };
    tokens.iter().filter_map(name).collect()
}

/// Whether an INSERT, REPLACE, UPDATE or DELETE has to do with one table only.
fn is_of_one_table(tokens: &[Token<'_>]) -> bool {
    let others = ["SELECT", "TABLE", "JOIN", "USING", "CALL", "WITH", "NEXTVAL"];
    if tokens.iter().any(|t| others.iter().any(|word| t.is_word(word))) {
        return false;
    }
    let changes = tokens[0].is_word("UPDATE") || tokens[0].is_word("DELETE");
    let list = tokens.iter().take_while(|t| !t.is_word("SET") && !t.is_word("WHERE"));
    !changes || !list.into_iter().any(|t| t.is_sign(','))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> TableName {
        text.parse().unwrap()
    }

    fn read(sql: &str, hidden: bool) -> Touch {
        Wanted::new([&table("shop.orders")], []).statement("crm", sql, hidden).touch
    }

    #[test]
    fn statements_about_a_table() {
        for sql in [
            "ALTER TABLE shop.orders ADD c INT",
            "create index i on `shop`.`Orders` (a)",
            "TRUNCATE orders",
            "DROP TABLE IF EXISTS `orders` /* generated by server */",
            "CREATE TABLE orders (a INT)",
            "DROP DATABASE shop",
            "CREATE DEFINER=`root`@`localhost` TRIGGER x BEFORE INSERT ON orders FOR EACH ROW SET @a = (SELECT 1)",
            "INSERT INTO shop.orders VALUES (1), (2)",
            "UPDATE \"orders\" SET a = 1, b = 2 WHERE c = 3",
            "DELETE FROM orders WHERE a = 1",
        ] {
            assert_eq!(read(sql, false), Touch::Them, "{sql}");
        }
        for sql in [
            "ALTER TABLE crm.people ADD c INT",
            "DROP DATABASE crm",
            "INSERT INTO people VALUES ('orders')",
            "GRANT SELECT ON shop.orders TO u",
            "CREATE USER orders",
            "CREATE PROCEDURE p() DELETE FROM orders",
            "SAVEPOINT orders",
            "COMMIT",
        ] {
            assert_eq!(read(sql, false), Touch::Nothing, "{sql}");
        }
        for sql in [
            "RENAME TABLE shop.orders TO shop.old",
            "ALTER TABLE crm.people RENAME TO shop.orders",
            "CREATE TABLE orders LIKE people",
            "CREATE TABLE orders AS SELECT * FROM people",
            "ALTER TABLE orders EXCHANGE PARTITION p WITH TABLE people",
            "ALTER TABLE orders ADD FOREIGN KEY (a) REFERENCES people (a)",
            "DROP TABLE people, orders",
            "INSERT INTO orders SELECT * FROM people",
            "UPDATE orders, people SET orders.a = people.a",
            "DELETE orders FROM orders JOIN people",
            "LOAD DATA INFILE 'x' INTO TABLE orders",
            "CREATE TEMPORARY TABLE orders (a INT)",
        ] {
            assert!(matches!(read(sql, false), Touch::Unclear(_)), "{sql}");
        }
        // A trigger may do it.
        assert!(matches!(read("INSERT INTO people VALUES (1)", true), Touch::Unclear(_)));
        assert_eq!(read("ALTER TABLE people ADD c INT", true), Touch::Nothing);
    }

    #[test]
    fn what_hides_later_changes() {
        let wanted = Wanted::new([&table("shop.orders")], []);
        let hides = |sql| wanted.statement("", sql, false).hides;
        assert!(hides("CREATE VIEW v AS SELECT * FROM shop.orders"));
        assert!(hides(
            "CREATE TRIGGER t AFTER INSERT ON crm.people FOR EACH ROW DELETE FROM shop.orders"
        ));
        assert!(!hides("CREATE VIEW v AS SELECT * FROM shop.customers"));
    }

    #[test]
    fn databases() {
        let wanted = Wanted::new([], [&"Shop".to_owned()]);
        let read = |database, sql| wanted.statement(database, sql, false).touch;
        assert_eq!(read("shop", "CREATE TABLE a (b INT)"), Touch::Them);
        assert_eq!(read("shop", "CREATE PROCEDURE p() SELECT 1"), Touch::Them);
        assert_eq!(read("crm", "ALTER TABLE shop.a ADD c INT"), Touch::Them);
        assert_eq!(read("crm", "ALTER TABLE a ADD c INT"), Touch::Nothing);
        assert!(matches!(read("shop", "CREATE VIEW v AS SELECT 1"), Touch::Unclear(_)));
        assert!(wanted.has("SHOP", "x") && !wanted.has("crm", "x"));
    }
}
