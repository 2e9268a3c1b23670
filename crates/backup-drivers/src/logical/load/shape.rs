//! In which form a table is created, and how its rows go in: what is quickest was measured, and is
//! not the same for the two families.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::Flavor;

use super::super::catalog::Table;
use super::super::ddl::{Parts, inherit_collation};
use super::super::select::TableName;

/// Tables of fewer rows are created as they are: an `ALTER TABLE` takes longer than its gain.
const MANY_ROWS: u64 = 10_000;

/// Tables of more bytes are loaded in chunks: one transaction would need as much room for sorting
/// and, where it fails, begin again.
const ONE_TRANSACTION: u64 = 16 << 30;

/// What the target is and how it is written.
#[derive(Debug, Clone)]
pub(in crate::logical) struct Way {
    pub flavor: Flavor,
    /// One transaction may be of any size: there is no binary log to write, and no cluster.
    pub large_transactions: bool,
    /// Tables that foreign keys of other tables of the target refer to: they need their indexes
    /// from the beginning.
    pub referenced: BTreeSet<TableName>,
    /// The notes of the shapes that an earlier run chose, by number of the table: what it began it
    /// must go on with.
    pub chosen: BTreeMap<usize, String>,
}

/// How one table is created, loaded and completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::logical) struct Shape {
    /// The statement that creates it.
    pub create: String,
    /// Whether all rows go in by one statement in one transaction.
    pub whole: bool,
    /// Whether secondary indexes were left out.
    pub indexes_later: bool,
    /// Whether foreign keys were left out.
    pub foreign_keys_later: bool,
    /// Whether the server was kept from gathering statistics while rows come in.
    pub statistics_later: bool,
}

impl Shape {
    /// The shapes of all tables, in their order.
    pub(in crate::logical) fn of_all(tables: &[Table], way: &Way) -> Vec<Shape> {
        let parts: Vec<Parts<'_>> = tables.iter().map(|t| Parts::of(&t.create)).collect();
        let mut shapes: Vec<Shape> = tables
            .iter()
            .zip(&parts)
            .enumerate()
            .map(|(i, (table, parts))| match way.chosen.get(&i) {
                Some(note) => Shape::noted(note),
                None => Shape::of(table, parts, way),
            })
            .collect();
        // A foreign key needs the index that it refers to.
        let later: Vec<TableName> = tables
            .iter()
            .zip(&shapes)
            .filter(|(_, shape)| shape.indexes_later)
            .map(|(table, _)| table.full_name())
            .collect();
        for (i, ((table, parts), shape)) in tables.iter().zip(&parts).zip(&mut shapes).enumerate() {
            if !way.chosen.contains_key(&i) {
                let parents = parts.parents(&table.database);
                shape.foreign_keys_later = !parents.is_empty()
                    && (shape.indexes_later || parents.iter().any(|p| later.contains(p)));
            }
            let create = parts.without(shape.indexes_later, shape.foreign_keys_later);
            let create = inherit_collation(&create);
            shape.create = match shape.statistics_later {
                true => Parts::with_option(&create, "STATS_AUTO_RECALC=0"),
                false => create,
            };
        }
        shapes
    }

    /// For a table that is there already and is not ours to change. All rows go in at once, so that
    /// two connections never wait for each other's locks.
    pub(in crate::logical) fn as_it_is() -> Shape {
        Shape { whole: true, ..Shape::noted("") }
    }

    fn of(table: &Table, parts: &Parts<'_>, way: &Way) -> Shape {
        let innodb = table.engine.eq_ignore_ascii_case("InnoDB");
        let many = innodb && table.digest.rows >= MANY_ROWS;
        let maria = way.flavor == Flavor::MariaDb;
        // MariaDB fills an empty table and all of its indexes from sorted entries, if one LOAD
        // brings all rows. That beats everything else there, and MySQL has nothing like it. It
        // does not do so for these.
        let sorted =
            maria && innodb && !parts.has_special() && !parts.has_option_word("VERSIONING");
        // A crash in an ALTER TABLE of a partitioned table leaves an index there that only the
        // table's definition has, and reading by it fails: the crash-safe DDL of MariaDB is so for
        // each partition by itself.
        let whole_alter = !(maria && parts.has_option_word("PARTITION"));
        let one_statement = table.chunks.len() <= 1
            || (way.large_transactions && table.data_bytes <= ONE_TRANSACTION);
        let whole = !table.transactional || (sorted && one_statement);
        Shape {
            create: String::new(),
            whole,
            indexes_later: many
                && !(whole && sorted)
                && whole_alter
                && parts.has_indexes_for_later()
                && !way.referenced.contains(&table.full_name()),
            foreign_keys_later: false,
            // A thread of the server would read the growing table again and again.
            statistics_later: many && maria && parts.option("STATS_AUTO_RECALC").is_none(),
        }
    }

    /// What was chosen, in a few letters.
    pub(super) fn note(&self) -> String {
        let letters = [
            ('w', self.whole),
            ('i', self.indexes_later),
            ('f', self.foreign_keys_later),
            ('s', self.statistics_later),
        ];
        letters.into_iter().filter_map(|(letter, chosen)| chosen.then_some(letter)).collect()
    }

    fn noted(note: &str) -> Shape {
        Shape {
            create: String::new(),
            whole: note.contains('w'),
            indexes_later: note.contains('i'),
            foreign_keys_later: note.contains('f'),
            statistics_later: note.contains('s'),
        }
    }

    /// How many units the rows come in.
    pub(in crate::logical) fn units(&self, table: &Table) -> usize {
        match table.chunks.len() {
            _ if table.digest.rows == 0 => 0,
            _ if self.whole => 1,
            chunks => chunks,
        }
    }

    /// Whether something is left to do when the rows are in.
    pub(in crate::logical) fn is_unfinished(&self) -> bool {
        self.indexes_later || self.statistics_later
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logical::catalog::Chunk;
    use crate::rows::RowDigest;

    fn table(name: &str, keys: &str, rows: u64, chunks: usize) -> Table {
        let digest = RowDigest { rows, sum: 0 };
        let chunk = |n: usize| Chunk {
            artifact: format!("{name}/{n}").parse().unwrap(),
            digest: RowDigest::default(),
            from: None,
            to: None,
            no_text: Vec::new(),
        };
        Table {
            database: "s".into(),
            name: name.into(),
            create: format!(
                "CREATE TABLE `{name}` (\n  `a` int,\n  `b` int,\n  PRIMARY KEY (`a`){keys}\n) ENGINE=InnoDB"
            ),
            engine: "InnoDB".into(),
            transactional: true,
            columns: Vec::new(),
            key: vec!["a".into()],
            rows_elsewhere: false,
            histograms: BTreeMap::new(),
            filter: None,
            rows_left_out: false,
            masked: Vec::new(),
            documents: BTreeMap::new(),
            history: false,
            estimated_rows: rows,
            data_bytes: rows * 100,
            digest,
            chunks: (0..chunks).map(chunk).collect(),
        }
    }

    #[test]
    fn each_family_gets_what_is_quickest_there() {
        let tables = [
            table("big", ",\n  KEY `k` (`b`)", 1_000_000, 3),
            table("child", ",\n  CONSTRAINT `f` FOREIGN KEY (`b`) REFERENCES `big` (`b`)", 10, 1),
            table("small", ",\n  KEY `k` (`b`)", 10, 1),
        ];
        let way = |flavor, large_transactions| Way {
            flavor,
            large_transactions,
            referenced: BTreeSet::new(),
            chosen: BTreeMap::new(),
        };
        let shapes = |flavor, large| Shape::of_all(&tables, &way(flavor, large));
        let mysql = shapes(Flavor::MySql, true);
        assert!(mysql[0].indexes_later && !mysql[0].whole && !mysql[0].create.contains("`k`"));
        assert_eq!(mysql[0].units(&tables[0]), 3);
        assert!(mysql[1].foreign_keys_later && !mysql[1].create.contains("FOREIGN"));
        assert_eq!(mysql[2].create, tables[2].create);

        let maria = shapes(Flavor::MariaDb, true);
        assert!(maria[0].whole && !maria[0].indexes_later && maria[0].statistics_later);
        assert!(maria[0].create.contains("KEY `k` (`b`)\n) STATS_AUTO_RECALC=0"));
        assert!(!maria[1].foreign_keys_later);
        let logged = shapes(Flavor::MariaDb, false);
        assert!(!logged[0].whole && logged[0].indexes_later && logged[1].foreign_keys_later);
        assert!(logged[2].whole, "what is one chunk anyway");

        // No index is added to partitions of MariaDB, however the other family writes them.
        let mut parted = table("parted", ",\n  KEY `k` (`b`)", 1_000_000, 3);
        let plain = parted.create.clone();
        for by in [" PARTITION BY HASH (`a`)", "\n/*!50100 PARTITION BY HASH (`a`) */"] {
            parted.create = format!("{plain}{by}");
            let shape =
                |flavor| Shape::of(&parted, &Parts::of(&parted.create), &way(flavor, false));
            assert!(!shape(Flavor::MariaDb).indexes_later && shape(Flavor::MySql).indexes_later);
        }

        // What refers to it at the target needs its index; what was chosen once stays.
        let mut way = way(Flavor::MySql, true);
        way.referenced = [tables[0].full_name()].into();
        let shapes = Shape::of_all(&tables, &way);
        assert!(!shapes[0].indexes_later && !shapes[1].foreign_keys_later);
        way.chosen = maria.iter().map(Shape::note).enumerate().collect();
        assert_eq!(Shape::of_all(&tables, &way), maria);
    }
}
