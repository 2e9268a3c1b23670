//! The data set `shop`: five tables of the kinds that shops have, always the same for one scale.
//!
//! `lineitem` is long and narrow with two secondary keys, `customer` has UTF-8 and JSON, `document`
//! long texts and bytes under a random key, `event` a composite key, `log_nopk` no key at all.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// Its database.
pub(crate) const DATABASE: &str = "shop";

/// A table, and how it is made.
pub(crate) struct Table {
    /// Its name.
    pub(crate) name: &'static str,
    /// Everything between the parentheses of `CREATE TABLE`.
    columns: &'static str,
    /// What follows `LOAD DATA … INTO TABLE …`.
    load: &'static str,
    /// How many rows there are at scale 1.
    rows: u32,
    /// Writes a row, without the end of its line.
    row: fn(&mut String, &mut Maker, u32),
}

/// All of them, the longest to load first.
pub(crate) const TABLES: [Table; 5] = [
    Table {
        name: "lineitem",
        columns: "id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, order_id BIGINT NOT NULL, \
                  part INT NOT NULL, qty DECIMAL(12,2) NOT NULL, price DECIMAL(12,2) NOT NULL, \
                  flag CHAR(1), shipped DATE, updated DATETIME(6), comment VARCHAR(80), \
                  KEY (order_id), KEY (part, shipped)",
        load: "",
        rows: 4_500_000,
        row: lineitem,
    },
    Table {
        name: "customer",
        columns: "id INT NOT NULL PRIMARY KEY, name VARCHAR(60) CHARACTER SET utf8mb4, \
                  email VARCHAR(80), profile JSON, balance DOUBLE, created TIMESTAMP NULL, \
                  UNIQUE KEY (email)",
        load: "",
        rows: 400_000,
        row: customer,
    },
    Table {
        name: "document",
        columns: "id CHAR(36) NOT NULL PRIMARY KEY, body MEDIUMTEXT, digest VARBINARY(32), \
                  payload BLOB",
        load: "",
        rows: 60_000,
        row: document,
    },
    Table {
        name: "event",
        columns: "tenant INT NOT NULL, seq BIGINT NOT NULL, kind ENUM('view','click','buy'), \
                  tags SET('a','b','c','d'), at DATETIME(3), bits BIT(12), \
                  PRIMARY KEY (tenant, seq)",
        load: " (tenant, seq, kind, tags, at, @b) SET bits = CAST(@b AS UNSIGNED)",
        rows: 3_000_000,
        row: event,
    },
    Table {
        name: "log_nopk",
        columns: "at DATETIME, level TINYINT, line TEXT",
        load: "",
        rows: 600_000,
        row: log_nopk,
    },
];

impl Table {
    /// The statement that makes it, in the current database.
    pub(crate) fn create(&self) -> String {
        format!("CREATE TABLE {} ({}) ENGINE=InnoDB", self.name, self.columns)
    }

    /// The statement that loads it from its file in `directory`; `local` says that the client
    /// reads the file.
    pub(crate) fn load(&self, directory: &Path, local: bool) -> String {
        format!(
            "LOAD DATA {}INFILE '{}' INTO TABLE {} CHARACTER SET utf8mb4{}",
            if local { "LOCAL " } else { "" },
            self.file(directory).display(),
            self.name,
            self.load
        )
    }

    fn file(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{}.tsv", self.name))
    }

    /// The statement that adds one more row, made from the number `i`, to the table where it is one
    /// without escapes.
    pub(crate) fn insert(&self, maker: &mut Maker, i: u32) -> String {
        let mut line = String::new();
        (self.row)(&mut line, maker, i);
        let values: Vec<String> = line.split('\t').map(|value| format!("'{value}'")).collect();
        format!("INSERT INTO {} VALUES ({})", self.name, values.join(", "))
    }

    /// How many rows there are at a scale.
    pub(crate) fn rows(&self, scale: f64) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "scales are small"
        )]
        let rows = (f64::from(self.rows) * scale) as u32;
        rows
    }

    fn write(&self, directory: &Path, scale: f64) -> io::Result<u64> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(self.file(directory))?);
        let mut maker = Maker::new();
        let mut line = String::new();
        let mut bytes = 0;
        for i in 0..self.rows(scale) {
            line.clear();
            (self.row)(&mut line, &mut maker, i);
            line.push('\n');
            bytes += line.len() as u64;
            file.write_all(line.as_bytes())?;
        }
        file.into_inner()?;
        Ok(bytes)
    }
}

/// Writes the files of all tables, as `LOAD DATA` reads them by default. Gives their bytes: about
/// 0.9 GB at scale 1.
pub(crate) fn write(directory: &Path, scale: f64) -> io::Result<u64> {
    TABLES.iter().map(|table| table.write(directory, scale)).sum()
}

/// Random values that are the same in every run.
pub(crate) struct Maker {
    state: u64,
    words: Vec<String>,
}

impl Maker {
    /// Always begins with the same ones.
    pub(crate) fn new() -> Self {
        let mut maker = Maker { state: 42, words: Vec::new() };
        maker.words = (0..4000)
            .map(|_| (0..maker.between(3, 9)).map(|_| char::from(b'a' + maker.letter())).collect())
            .collect();
        maker
    }

    /// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u32, high: u32) -> u32 {
        let width = u64::from(high - low) + 1;
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of a u32 is one")]
        let offset = (self.next() % width) as u32;
        low + offset
    }

    fn letter(&mut self) -> u8 {
        #[expect(clippy::cast_possible_truncation, reason = "less than 26")]
        let letter = self.between(0, 25) as u8;
        letter
    }

    fn word(&mut self) -> &str {
        let at = self.between(0, 3999) as usize;
        &self.words[at]
    }

    /// Appends `n` words with spaces between.
    fn words(&mut self, out: &mut String, n: u32) {
        for i in 0..n {
            if i > 0 {
                out.push(' ');
            }
            out.push_str(self.word());
        }
    }

    /// Appends `digits` hexadecimal digits.
    fn hex(&mut self, out: &mut String, digits: usize) {
        let end = out.len() + digits;
        while out.len() < end {
            put(out, format_args!("{:016x}", self.next()));
        }
        out.truncate(end);
    }
}

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    out.write_fmt(what).expect("a string takes everything");
}

fn lineitem(out: &mut String, maker: &mut Maker, i: u32) {
    let i = i + 1;
    let (part, qty) = (maker.between(0, 199_999), maker.between(1, 49));
    let cents = maker.between(100, 9_999_998);
    let flag = ['A', 'R', 'N'][i as usize % 3];
    let (year, month, day) = (10 + i % 15, 1 + i % 12, 1 + i % 28);
    let (hour, minute, second, micros) = (i % 24, i % 60, i % 59, i % 1_000_000);
    put(
        out,
        format_args!(
            "{i}\t{}\t{part}\t{qty}.00\t{}.{:02}\t{flag}\t20{year}-{month:02}-{day:02}\t\
             20{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}\t",
            i / 4,
            cents / 100,
            cents % 100,
        ),
    );
    maker.words(out, 5);
}

fn customer(out: &mut String, maker: &mut Maker, i: u32) {
    put(out, format_args!("{i}\t"));
    out.push_str(match i {
        _ if i.is_multiple_of(5) => "客户",
        _ if i.is_multiple_of(7) => "Zoë ",
        _ if i.is_multiple_of(11) => "😀",
        _ => "",
    });
    maker.words(out, 2);
    put(out, format_args!("\tu{i}@example.com\t{{\"a\": {i}, \"tags\": ["));
    for n in 0..3 {
        put(out, format_args!("{}\"{}\"", if n > 0 { ", " } else { "" }, maker.word()));
    }
    let (x, balance) = (f64::from(i) / 7.0, f64::from(i) * 1.37);
    let (month, day, hour) = (1 + i % 12, 1 + i % 28, i % 9);
    put(
        out,
        format_args!(
            "], \"n\": {{\"x\": {x:?}}}}}\t{balance:?}\t2024-{month:02}-{day:02} 0{hour}:00:00"
        ),
    );
}

fn document(out: &mut String, maker: &mut Maker, i: u32) {
    put(out, format_args!("{i:08x}-0000-4000-8000-"));
    maker.hex(out, 12);
    out.push('\t');
    let words = maker.between(50, 500);
    maker.words(out, words);
    out.push('\t');
    maker.hex(out, 32);
    out.push('\t');
    maker.hex(out, 1000);
}

fn event(out: &mut String, _: &mut Maker, i: u32) {
    let kind = ["view", "click", "buy"][i as usize % 3];
    let tags = ["a", "b,c", "d", ""][i as usize % 4];
    let (month, day, millis) = (1 + i % 12, 1 + i % 28, i % 1000);
    put(
        out,
        format_args!(
            "{}\t{}\t{kind}\t{tags}\t2025-{month:02}-{day:02} 12:00:00.{millis:03}\t{}",
            i % 97,
            i / 97,
            i % 2
        ),
    );
}

fn log_nopk(out: &mut String, maker: &mut Maker, i: u32) {
    put(out, format_args!("2025-{:02}-{:02} 12:00:00\t{}\t", 1 + i % 12, 1 + i % 28, i % 5));
    let words = maker.between(5, 30);
    maker.words(out, words);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(table: &Table, n: u32) -> Vec<String> {
        let mut maker = Maker::new();
        let row = |i| {
            let mut line = String::new();
            (table.row)(&mut line, &mut maker, i);
            line
        };
        (0..n).map(row).collect()
    }

    #[test]
    fn every_row_has_a_value_for_every_column_and_runs_are_equal() {
        for (table, columns) in TABLES.iter().zip([9, 6, 4, 6, 3]) {
            let lines = rows(table, 1000);
            assert!(lines.iter().all(|line| line.split('\t').count() == columns), "{}", table.name);
            assert!(lines.iter().all(|line| !line.contains(['\\', '\n'])), "{}", table.name);
            assert_eq!(lines, rows(table, 1000));
        }
    }

    #[test]
    fn values_fit_their_columns() {
        let field = |line: &str, n: usize| line.split('\t').nth(n).unwrap().to_owned();
        for line in rows(&TABLES[0], 5000) {
            assert!(field(&line, 8).chars().count() <= 80, "{line}");
        }
        for line in rows(&TABLES[1], 500) {
            assert!(field(&line, 1).chars().count() <= 60, "{line}");
            let profile: serde_json::Value = serde_json::from_str(&field(&line, 3)).unwrap();
            assert_eq!(profile["tags"].as_array().unwrap().len(), 3);
        }
        for line in rows(&TABLES[2], 100) {
            assert_eq!((field(&line, 0).len(), field(&line, 2).len()), (36, 32));
        }
    }
}
