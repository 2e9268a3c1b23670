//! Renaming in `CREATE TABLE`.

use backup_core::Flavor;

use super::lexer::{Dialect, Token, TokenKind};
use super::{Edits, significant};
use crate::logical::select::{TableName, quote_name};

/// The longest name of a constraint that the servers take, in characters.
const MAX_NAME: usize = 64;

/// How a table is to be called, and everything it refers to.
pub(in crate::logical) struct TableRename<'a> {
    /// The server that will read the statement.
    pub flavor: Flavor,
    /// The name in the backup.
    pub old: &'a TableName,
    /// The name at the target.
    pub new: &'a TableName,
    /// Where other tables and sequences go.
    pub target: &'a dyn Fn(&TableName) -> TableName,
}

/// Renames the table, what its foreign keys and defaults refer to, and, where old and new table
/// share a database, the constraints whose names are unique in a database.
pub(in crate::logical) fn rename_table(create: &str, rename: &TableRename<'_>) -> String {
    let tokens = significant(create, Dialect::default());
    let mut edits = Edits::default();
    let name = tokens.iter().position(|t| t.is_word("TABLE") || t.is_word("SEQUENCE"));
    if let Some((range, _)) = name.and_then(|at| qualified(&tokens, at + 1)) {
        edits.replace(range, quote_name(&rename.new.table));
    }
    for (i, token) in tokens.iter().enumerate() {
        if token.is_word("REFERENCES") {
            if let Some((range, parts)) = qualified(&tokens, i + 1) {
                edits.replace(range, rename.reference(&parts));
            }
        } else if token.is_word("nextval") || token.is_word("lastval") {
            // MariaDB prints the database of a sequence always.
            let inside = tokens.get(i + 1).is_some_and(|t| t.is_sign('('));
            if let Some((range, parts)) = inside.then(|| qualified(&tokens, i + 2)).flatten() {
                let new = rename.resolve(&parts);
                let text = format!("{}.{}", quote_name(&new.database), quote_name(&new.table));
                edits.replace(range, text);
            }
        } else if token.is_word("CONSTRAINT")
            && rename.constraints_collide(&tokens, i + 2)
            && let Some(old) = tokens.get(i + 1).and_then(Token::name)
        {
            edits.replace(tokens[i + 1].range(), quote_name(&rename.constraint(&old)));
        }
    }
    edits.apply(create)
}

impl TableRename<'_> {
    /// The present name of a table that the old definition calls `parts`.
    fn resolve(&self, parts: &[String]) -> TableName {
        let (database, table) = match parts {
            [database, table] => (database.clone(), table.clone()),
            _ => (self.old.database.clone(), parts.concat()),
        };
        (self.target)(&TableName { database, table })
    }

    fn reference(&self, parts: &[String]) -> String {
        let new = self.resolve(parts);
        let table = quote_name(&new.table);
        if new.database == self.new.database {
            table
        } else {
            format!("{}.{table}", quote_name(&new.database))
        }
    }

    /// Names of foreign keys (InnoDB) and of CHECK constraints (MySQL) are unique in a database.
    fn constraints_collide(&self, tokens: &[Token<'_>], at: usize) -> bool {
        self.old.database == self.new.database
            && self.old.table != self.new.table
            && tokens.get(at).is_some_and(|t| {
                t.is_word("FOREIGN") || (t.is_word("CHECK") && self.flavor == Flavor::MySql)
            })
    }

    /// Names that the server made begin with the table's, as after `RENAME TABLE`; others get the
    /// new table's name at the end.
    fn constraint(&self, old: &str) -> String {
        let made = old
            .strip_prefix(&self.old.table)
            .filter(|rest| rest.starts_with("_ibfk_") || rest.starts_with("_chk_"));
        match made {
            Some(rest) => shortened(&self.new.table, rest),
            None => shortened(old, &format!("_{}", self.new.table)),
        }
    }
}

/// `start` and `end` together, `start` cut where both are too long for a name.
fn shortened(start: &str, end: &str) -> String {
    let end: String = end.chars().take(MAX_NAME / 2).collect();
    let room = MAX_NAME - end.chars().count();
    let start: String = start.chars().take(room).collect();
    start + &end
}

/// The name at `at`, of one or two parts: where it is, and its parts.
pub(super) fn qualified(
    tokens: &[Token<'_>],
    at: usize,
) -> Option<(std::ops::Range<usize>, Vec<String>)> {
    let first =
        tokens.get(at).filter(|t| t.kind == TokenKind::Name || t.kind == TokenKind::Word)?;
    let second = tokens
        .get(at + 1)
        .filter(|t| t.is_sign('.'))
        .and_then(|_| tokens.get(at + 2))
        .and_then(|t| Some((t, t.name()?)));
    Some(match second {
        Some((token, name)) => (first.start..token.range().end, vec![first.name()?, name]),
        None => (first.range(), vec![first.name()?]),
    })
}

/// Takes the collation off columns that have the table's own and no character set.
///
/// MySQL remembers whether a column was given its collation or has it from the table, and shows the
/// latter without its character set; written out, it would be the former from then on.
pub(in crate::logical) fn inherit_collation(create: &str) -> String {
    let tokens = significant(create, Dialect::default());
    let mut edits = Edits::default();
    let mut depth = 0;
    let mut charset = false;
    let mut columns = Vec::new();
    let mut table = None;
    for (i, token) in tokens.iter().enumerate() {
        match (depth, token.text) {
            (_, "(") => depth += 1,
            (_, ")") => depth -= 1,
            (1, ",") => charset = false,
            (1, _) if token.is_word("CHARACTER") => charset = true,
            (1, _) if token.is_word("COLLATE") && !charset => columns.extend(tokens.get(i + 1)),
            // DEFAULT CHARSET=x COLLATE=y
            (0, _) if token.is_word("COLLATE") => table = tokens.get(i + 2).or(table),
            _ => {}
        }
    }
    let same = |column: &&Token<'_>| {
        table.is_some_and(|table| column.text.eq_ignore_ascii_case(table.text))
    };
    for column in columns.into_iter().filter(same) {
        // Always with one blank before and after the word.
        if let Some(before) = create[..column.start].strip_suffix(" COLLATE ") {
            edits.replace(before.len()..column.range().end, "");
        }
    }
    edits.apply(create)
}

/// Takes `DATA DIRECTORY='…'` and `INDEX DIRECTORY='…'` away, of the table and of its partitions.
pub(in crate::logical) fn drop_directories(create: &str) -> String {
    let tokens = significant(create, Dialect::default());
    let mut edits = Edits::default();
    for at in 0..tokens.len() {
        let named = tokens[at].is_word("DATA") || tokens[at].is_word("INDEX");
        if !named || !tokens.get(at + 1).is_some_and(|t| t.is_word("DIRECTORY")) {
            continue;
        }
        let sign = tokens.get(at + 2).is_some_and(|t| t.is_sign('='));
        let value = tokens.get(at + 2 + usize::from(sign));
        if let Some(value) = value.filter(|t| t.kind == TokenKind::Text) {
            edits.replace(tokens[at].start..value.range().end, "");
        }
    }
    edits.apply(create)
}

/// Puts an engine in the place of another one, for the table and its partitions.
pub(in crate::logical) fn replace_engine(create: &str, old: &str, new: &str) -> String {
    let tokens = significant(create, Dialect::default());
    let mut edits = Edits::default();
    for window in tokens.windows(3) {
        let [word, sign, engine] = window else { continue };
        if word.is_word("ENGINE") && sign.is_sign('=') && engine.is_word(old) {
            edits.replace(engine.range(), new);
        }
    }
    edits.apply(create)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_go_and_columns_of_their_names_stay() {
        let create = "CREATE TABLE `t` (`DATA` int COMMENT 'DATA DIRECTORY=''x''') ENGINE=InnoDB DATA \
                      DIRECTORY='/a/' /*!50100 (PARTITION p DATA DIRECTORY = '/b' ENGINE = InnoDB) */";
        assert_eq!(
            drop_directories(create),
            "CREATE TABLE `t` (`DATA` int COMMENT 'DATA DIRECTORY=''x''') ENGINE=InnoDB  /*!50100 \
             (PARTITION p  ENGINE = InnoDB) */"
        );
    }

    #[test]
    fn an_engine_takes_the_place_of_another() {
        let create = "CREATE TABLE `t` (`ENGINE` int COMMENT 'ENGINE=FEDERATED') ENGINE=FEDERATED \
                      CONNECTION='s/FEDERATED' /*!50100 (PARTITION p ENGINE = FEDERATED) */";
        assert_eq!(
            replace_engine(create, "federated", "InnoDB"),
            "CREATE TABLE `t` (`ENGINE` int COMMENT 'ENGINE=FEDERATED') ENGINE=InnoDB \
             CONNECTION='s/FEDERATED' /*!50100 (PARTITION p ENGINE = InnoDB) */"
        );
    }

    fn name(database: &str, table: &str) -> TableName {
        TableName { database: database.into(), table: table.into() }
    }

    #[test]
    fn a_copy_beside_the_original_gets_constraints_of_its_own() {
        let create = "CREATE TABLE `a` (\n  `id` int COMMENT 'REFERENCES `a`',\n  CONSTRAINT `a_ibfk_1` \
                      FOREIGN KEY (`id`) REFERENCES `a` (`id`),\n  CONSTRAINT `up` FOREIGN KEY (`id`) \
                      REFERENCES `o`.`p` (`id`),\n  CONSTRAINT `a_chk_1` CHECK ((`id` > 0))\n)";
        let (old, new) = (name("s", "a"), name("s", "a`2"));
        let target = |t: &TableName| if *t == old { new.clone() } else { t.clone() };
        let rename = TableRename { flavor: Flavor::MySql, old: &old, new: &new, target: &target };
        assert_eq!(
            rename_table(create, &rename),
            "CREATE TABLE `a``2` (\n  `id` int COMMENT 'REFERENCES `a`',\n  CONSTRAINT `a``2_ibfk_1` \
             FOREIGN KEY (`id`) REFERENCES `a``2` (`id`),\n  CONSTRAINT `up_a``2` FOREIGN KEY (`id`) \
             REFERENCES `o`.`p` (`id`),\n  CONSTRAINT `a``2_chk_1` CHECK ((`id` > 0))\n)"
        );
    }

    #[test]
    fn references_follow_a_renamed_database() {
        let create = "CREATE TABLE `a` (\n  `n` int DEFAULT nextval(`s`.`q`),\n  CONSTRAINT `x` FOREIGN \
                      KEY (`n`) REFERENCES `b` (`n`),\n  CONSTRAINT `y` FOREIGN KEY (`n`) REFERENCES \
                      `k`.`c` (`n`)\n)";
        let (old, new) = (name("s", "a"), name("s2", "a"));
        let all = |t: &TableName| {
            let database = if t.database == "s" { "s2".into() } else { t.database.clone() };
            TableName { database, table: t.table.clone() }
        };
        let rename = TableRename { flavor: Flavor::MariaDb, old: &old, new: &new, target: &all };
        assert_eq!(rename_table(create, &rename), create.replace("`s`.`q`", "`s2`.`q`"));
        // Only this table goes elsewhere: the parent stays, and is named in full.
        let only = |t: &TableName| if *t == old { new.clone() } else { t.clone() };
        let rename = TableRename { flavor: Flavor::MariaDb, old: &old, new: &new, target: &only };
        assert!(rename_table(create, &rename).contains("REFERENCES `s`.`b` ("));
    }

    #[test]
    fn collations_from_the_table_are_not_written_out() {
        let create = "CREATE TABLE `t` (\n  `a` varchar(9) COLLATE x_bin DEFAULT 'COLLATE x_bin',\n  `b` \
                      varchar(9) CHARACTER SET x COLLATE x_bin,\n  `c` text COLLATE x_ci,\n  KEY ((`a` COLLATE \
                      x_bin))\n) DEFAULT CHARSET=x COLLATE=x_bin";
        let expected = create.replacen("varchar(9) COLLATE x_bin", "varchar(9)", 1);
        assert_eq!(inherit_collation(create), expected);
        assert_eq!(inherit_collation("CREATE TABLE `t` (COLLATE"), "CREATE TABLE `t` (COLLATE");
    }

    #[test]
    fn names_of_constraints_stay_within_what_the_servers_take() {
        let long = "x".repeat(64);
        let (old, new) = (name("s", "a"), name("s", &"y".repeat(64)));
        let rename =
            TableRename { flavor: Flavor::MySql, old: &old, new: &new, target: &|t| t.clone() };
        assert_eq!(rename.constraint(&long).chars().count(), 64);
        assert!(rename.constraint("a_ibfk_12").ends_with("_ibfk_12"));
        assert_ne!(rename.constraint("b"), "b");
    }
}
