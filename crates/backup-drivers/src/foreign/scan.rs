//! A stream of a dump from its first byte to its last: what is in it, and what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use backup_core::{Flavor, Position};
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::lexer::Lexer;
use super::lines::Load;
use super::statement::{Named, Part, Statement};
use super::token::{Next, Place, Token};

/// More faults of one file than this say nothing more.
pub(super) const MOST: usize = 1000;

/// A part of a stream that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where the statement begins.
    pub start: Place,
    /// Behind its last row that is whole, where it inserts rows.
    pub good_end: Option<Place>,
    /// Where the next statement begins.
    pub end: Place,
    /// Where it was noticed.
    pub at: Place,
    /// What makes no sense.
    pub problem: String,
}

/// What a stream holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    /// The program that wrote it, as its first line says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// The version of the server that was dumped, as the dump says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// MySQL or MariaDB, where the dump tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<Flavor>,
    /// The position that the dump names.
    #[serde(default)]
    pub position: Position,
    /// Bytes, decompressed.
    pub bytes: u64,
    /// Lines.
    pub lines: u64,
    /// Statements.
    pub statements: u64,
    /// Rows by table, for every table that is created or filled.
    pub tables: BTreeMap<String, u64>,
    /// Other objects by kind.
    pub objects: BTreeMap<String, u64>,
    /// Whether the dump ends with the line that says that it is complete.
    pub complete: bool,
    /// Lines where another dump begins behind one that does not say that it is complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut_before: Vec<u64>,
    /// Variables that are saved at the beginning to be put back at the end, and are not. Not counted: dumps were
    /// imported before anybody looked at them.
    #[serde(skip)]
    pub not_put_back: BTreeSet<String>,
    /// The files that its statements load.
    #[serde(skip)]
    pub loads: Vec<Load>,
}

impl Contents {
    /// Rows of all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.values().sum()
    }

    /// Whether the program ends what it writes with a line that says so.
    #[must_use]
    pub fn says_its_end(&self) -> bool {
        self.program.as_ref().is_some_and(|p| p.contains(" dump "))
    }
}

/// Takes a stream in pieces.
pub struct Scan {
    lexer: Lexer,
    state: State,
}

struct State {
    contents: Contents,
    faults: Vec<Fault>,
    statement: Statement,
    database: Option<String>,
    /// What was lost: its statement, where it was noticed, why.
    lost: Option<(Statement, Place, String)>,
    position: PositionLines,
}

impl Default for Scan {
    fn default() -> Self {
        Scan::of_database(None)
    }
}

impl Scan {
    /// A scan of a stream whose statements mean a database that another file or its name tells.
    #[must_use]
    pub fn of_database(database: Option<String>) -> Self {
        Scan {
            lexer: Lexer::default(),
            state: State {
                contents: Contents::default(),
                faults: Vec::new(),
                statement: Statement::default(),
                database,
                lost: None,
                position: PositionLines::default(),
            },
        }
    }

    /// Statements end with a semicolon at the end of a line alone, as in files of mydumper with code.
    #[must_use]
    pub fn by_lines(self) -> Self {
        Scan { lexer: Lexer::by_lines(), ..self }
    }

    /// The next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let Scan { lexer, state } = self;
        lexer.feed(bytes, false, &mut |token, place, behind| state.take(token, place, behind));
    }

    /// Where the stream stands.
    #[must_use]
    pub fn place(&self) -> Place {
        self.lexer.place()
    }

    /// The end of the stream: what is in it, and what makes no sense.
    #[must_use]
    pub fn finish(self) -> (Contents, Vec<Fault>) {
        let Scan { mut lexer, mut state } = self;
        lexer.feed(b"", true, &mut |token, place, behind| state.take(token, place, behind));
        let place = lexer.place();
        state.found_again(place);
        let statement = std::mem::take(&mut state.statement);
        if let Some((what, began)) = lexer.open() {
            let problem = format!("{what} that begins here is never closed");
            state.fault(&statement, began, place, problem);
        } else if !statement.is_empty() {
            let problem = "the stream ends within a statement".to_owned();
            state.fault(&statement, place, place, problem);
        } else if let Some(began) = lexer.open_code() {
            let problem = "a comment that begins here is never closed".to_owned();
            state.fault(&statement, began, place, problem);
        }
        state.contents.bytes = place.offset;
        state.contents.lines = place.line;
        state.contents.position = state.position.position;
        (state.contents, state.faults)
    }
}

impl State {
    fn take(&mut self, token: Token<'_>, place: Place, behind: Place) -> Next {
        match token {
            Token::Found => {
                self.found_again(place);
                Next::Go
            }
            Token::Comment(text) => {
                if self.statement.is_empty() {
                    self.comment(&String::from_utf8_lossy(text), place);
                }
                Next::Go
            }
            Token::End => self.end(place, behind),
            token => match self.statement.take(token, place, behind) {
                None => Next::Go,
                Some(problem) => {
                    let mut statement = std::mem::take(&mut self.statement);
                    if statement.is_empty() {
                        statement.start = place;
                    }
                    self.lost = Some((statement, place, problem));
                    Next::Lost
                }
            },
        }
    }

    /// Statements begin again here.
    fn found_again(&mut self, place: Place) {
        if let Some((statement, at, problem)) = self.lost.take() {
            self.fault(&statement, at, place, problem);
        }
    }

    fn fault(&mut self, statement: &Statement, at: Place, end: Place, problem: String) {
        self.count(statement);
        if self.faults.len() < MOST {
            let start = if statement.is_empty() { at } else { statement.start };
            let good_end = statement.good_end;
            self.faults.push(Fault { start, good_end, end, at, problem });
        }
    }

    fn end(&mut self, place: Place, behind: Place) -> Next {
        let statement = std::mem::take(&mut self.statement);
        if statement.is_empty() {
            return Next::Go;
        }
        let next = statement.dialect().map_or(Next::Go, Next::Set);
        match statement.at_end() {
            Some(problem) => self.fault(&statement, place, behind, problem),
            None => {
                self.contents.statements += 1;
                self.count(&statement);
            }
        }
        next
    }

    fn count(&mut self, statement: &Statement) {
        if let Some((kind, name)) = statement.creates() {
            if kind == "TABLE" {
                let name = self.full(name);
                self.contents.tables.entry(name).or_default();
            } else {
                *self.contents.objects.entry(kind.to_lowercase()).or_default() += 1;
            }
        }
        if let Some(name) = statement.inserts_into() {
            let name = self.full(name);
            *self.contents.tables.entry(name).or_default() += statement.rows;
        }
        if let Some((file, name, format)) = statement.loads() {
            let table = self.full(name);
            self.contents.loads.push(Load { file, table, format });
        }
        if let Some(database) = statement.uses() {
            self.database = Some(database);
        }
        for (name, saved) in statement.old_variables() {
            match saved {
                true => self.contents.not_put_back.insert(name.to_owned()),
                false => self.contents.not_put_back.remove(name),
            };
        }
        self.position.statement(&statement.head);
    }

    fn full(&self, named: Named) -> String {
        match named.database.as_ref().or(self.database.as_ref()) {
            Some(database) => format!("{database}.{}", named.name),
            None => named.name,
        }
    }

    fn comment(&mut self, text: &str, place: Place) {
        let text = text.trim();
        // One dump behind another is not complete because the first was.
        if text.starts_with("MySQL dump ") || text.starts_with("MariaDB dump ") {
            if self.contents.says_its_end()
                && !self.contents.complete
                && self.contents.cut_before.len() < MOST
            {
                self.contents.cut_before.push(place.line);
            }
            self.contents.complete = false;
            self.contents.flavor =
                Some(if text.starts_with("MySQL") { Flavor::MySql } else { Flavor::MariaDb });
            self.contents.program.get_or_insert_with(|| text.to_owned());
        } else if text.starts_with("Dump completed") {
            self.contents.complete = true;
        } else if let Some(version) = text.strip_prefix("Server version") {
            let version = version.trim();
            if version.contains("MariaDB") {
                self.contents.flavor = Some(Flavor::MariaDb);
            }
            self.contents.server_version.get_or_insert_with(|| version.to_owned());
        }
        self.position.line(text);
    }
}

/// Looks for positions in the binary log, which programs write in several ways.
#[derive(Default)]
struct PositionLines {
    position: Position,
}

static LOG_FILE: LazyLock<Regex> = LazyLock::new(|| {
    let file = r"(?i)(?:MASTER|SOURCE)_LOG_FILE\s*=\s*'([^']{1,255})'\s*,\s*(?:MASTER|SOURCE)_LOG_POS\s*=\s*([0-9]{1,19})";
    Regex::new(file).expect("the expression is sound")
});

impl PositionLines {
    /// A comment: `CHANGE MASTER TO MASTER_LOG_FILE='binlog.000003', MASTER_LOG_POS=157;`.
    fn line(&mut self, text: &str) {
        let Some(found) = LOG_FILE.captures(text) else { return };
        self.position.file = found[1].parse().ok().or(self.position.file.take());
        self.position.offset = found[2].parse().ok();
    }

    fn statement(&mut self, head: &[Part]) {
        if head.first().is_some_and(|p| p.is_word("CHANGE")) {
            let text: Vec<String> = head
                .iter()
                .map(|part| match part {
                    Part::Word(word) | Part::Name(word) => word.clone(),
                    Part::Text(text) => format!("'{text}'"),
                    Part::Sign(sign) => char::from(*sign).to_string(),
                })
                .collect();
            self.line(&text.join(""));
        }
        let is_gtid = |part: &Part| matches!(part, Part::Word(w) if w.ends_with("GTID_PURGED") || w.ends_with("GTID_SLAVE_POS"));
        // Since 8.0 `SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ 'uuid:1-5'`.
        let set = head.iter().rev().find_map(|part| match part {
            Part::Text(text) if text.len() > 1 => Some(text.replace(['\n', ' '], "")),
            _ => None,
        });
        if head.iter().any(is_gtid)
            && let Some(gtid) = set.and_then(|set| set.parse().ok())
        {
            self.position.gtid = Some(gtid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(sql: &[u8]) -> (Contents, Vec<Fault>) {
        let mut scan = Scan::default();
        for piece in sql.chunks(7) {
            scan.feed(piece);
        }
        scan.finish()
    }

    const DUMP: &str = "-- MySQL dump 10.13  Distrib 9.7.0, for Linux (x86_64)\n--\n-- Server version\t9.7.4\n\
        -- CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='binlog.000003', SOURCE_LOG_POS=157;\n\
        CREATE DATABASE /*!32312 IF NOT EXISTS*/ `d`;\nUSE `d`;\n\
        CREATE TABLE `t` (\n  `a` int,\n  `b` text\n);\n\
        INSERT INTO `t` VALUES (1,'x;y'),(2,_binary 'it\\'s'),(3,NULL);\n\
        INSERT INTO `t` VALUES (4,0xAB),(-5,'(');\n\
        DELIMITER ;;\n/*!50003 CREATE*/ /*!50017 DEFINER=`r`@`h`*/ /*!50003 TRIGGER `tr` BEFORE INSERT ON `t` FOR EACH \
        ROW BEGIN SET @a = 1; END */;;\nDELIMITER ;\n-- Dump completed on 2026-11-20  1:02:03\n";

    #[test]
    fn a_dump_is_counted() {
        let (contents, faults) = scan(DUMP.as_bytes());
        assert_eq!(faults, []);
        assert_eq!(contents.tables, BTreeMap::from([("d.t".to_owned(), 5)]));
        assert_eq!(contents.objects["trigger"], 1);
        assert!(contents.complete && contents.says_its_end());
        assert_eq!(contents.server_version.as_deref(), Some("9.7.4"));
        assert_eq!(contents.position.offset, Some(157));
        assert_eq!(contents.lines, DUMP.lines().count() as u64 + 1);
    }

    #[test]
    fn ends_that_nothing_tells_are_found() {
        let table = "CREATE TABLE `t` (`a` int);\n";
        for open in ["/*!", "/*!4", "/*!40000", "/*!40000 ", "/*M!100616 ", "/*"] {
            let (_, faults) = scan(format!("{table}{open}").as_bytes());
            let [fault] = &faults[..] else { panic!("{open}: {faults:?}") };
            assert_eq!(fault.problem, "a comment that begins here is never closed");
            assert_eq!((fault.at.line, fault.at.offset), (2, table.len() as u64), "{open}");
        }
        for whole in ["/*!40000 */", "/*!40000 */;", "/*!40000 DO 0 */;\n", "/**/", "-- x"] {
            assert_eq!(scan(format!("{table}{whole}").as_bytes()).1, [], "{whole}");
        }
    }

    #[test]
    fn clients_refuse_nul_bytes_in_comments() {
        for comment in ["-- x\0\0y\n", "# \0\n", "/* \n\0 */\n", "SELECT 1 -- \0\n;\n"] {
            let text = format!("DO 0;\n{comment}DO 1;\nCREATE TABLE t (a int);\n");
            let (contents, faults) = scan(text.as_bytes());
            assert_eq!(faults.len(), 1, "{comment:?}: {faults:?}");
            assert_eq!((&faults[0].problem[..], faults[0].start.line), ("there are NUL bytes", 2));
            assert!(contents.tables.contains_key("t"), "{comment:?}");
            assert_eq!(scan(format!("DO 0;\n{}", comment.trim_end()).as_bytes()).1.len(), 1);
        }
    }

    #[test]
    fn clients_pass_over_a_byte_order_mark() {
        let (contents, faults) = scan(format!("\u{feff}{DUMP}").as_bytes());
        assert_eq!((faults, contents.complete), (Vec::new(), true));
        assert_eq!(contents.bytes, DUMP.len() as u64 + 3);
        assert!(!scan("DO 0;\n\u{feff}DO 1;\n".as_bytes()).1.is_empty());
    }

    #[test]
    fn what_is_saved_at_the_beginning_is_put_back_at_the_end() {
        let head = "/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;\n\
                    /*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;\n";
        let left = |tail: &str| {
            let (contents, faults) = scan(format!("{head}DO 0;\n{tail}").as_bytes());
            assert_eq!(faults, []);
            Vec::from_iter(contents.not_put_back)
        };
        assert_eq!(left(""), ["@OLD_CHARACTER_SET_CLIENT", "@OLD_SQL_MODE"]);
        let mode = "/*!40101 SET SQL_MODE=IFNULL(@OLD_SQL_MODE, '') */;\n";
        assert_eq!(left(mode), ["@OLD_CHARACTER_SET_CLIENT"]);
        let all =
            format!("{mode}/*!40101 SET CHARACTER_SET_CLIENT=@OLD_CHARACTER_SET_CLIENT */;\n");
        assert!(left(&all).is_empty());
        assert_eq!(left(&format!("{all}{head}")).len(), 2, "of another dump behind it");
    }

    #[test]
    fn one_statement_may_set_all_that_strings_are_written_by() {
        let code = "CREATE PROCEDURE p() SELECT 'C:\\', \"it's\" FROM t;\n";
        let mode = "sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'";
        for set in [
            format!("SET SESSION {mode}"),
            format!("SET SESSION {mode}, character_set_client = utf8mb4, collation_connection = x"),
            format!("SET NAMES utf8mb4, {mode}"),
            format!("SET @old = @@sql_mode, character_set_client = 'utf8mb4', {mode}"),
        ] {
            let (contents, faults) = scan(format!("{set};\n{code}SELECT 1;\n").as_bytes());
            assert_eq!((contents.statements, faults), (3, Vec::new()), "{set}");
        }
        let back = format!("SET {mode};\n{code}SET sql_mode = @old;\nSELECT 'it\\'s';\n");
        assert_eq!(scan(back.as_bytes()).1, []);
    }

    #[test]
    fn each_kind_of_damage_is_found_in_its_line() {
        let damaged = |from: &str, to: &str| {
            let text = DUMP.replacen(from, to, 1);
            assert_ne!(text, DUMP);
            scan(text.as_bytes())
        };
        for (from, to, problem, line) in [
            ("'x;y'),", "'x;y),", "", 11),
            (",(2,_binary", ",(2_binary", "a string stands behind a value", 11),
            ("(3,NULL)", "(3,NULL,1)", "a row has 3 values, and the first one 2", 11),
            ("(3,NULL)", "(3,)", "a value is missing", 11),
            ("(3,NULL)", "(3 NULL)", "`NULL` stands behind a value", 11),
            ("NULL);\nINSERT", "NULL;\nINSERT", "a parenthesis is never closed", 11),
            ("(4,0xAB)", "(4,\0\0\0\0)", "NUL", 12),
            ("CREATE TABLE", "\u{1}\u{2}TABLE", "begins no statement", 7),
            ("`b` text\n);", "`b` text\n;", "a parenthesis is never closed", 10),
        ] {
            let (contents, faults) = damaged(from, to);
            assert!(!faults.is_empty(), "{to}");
            assert!(faults[0].problem.contains(problem), "{to}: {faults:?}");
            assert_eq!(faults[0].at.line, line, "{to}: {faults:?}");
            // What comes behind is read again.
            assert!(contents.complete, "{to}");
            assert_eq!(contents.objects["trigger"], 1, "{to}");
        }
        let (contents, faults) = scan(&DUMP.as_bytes()[..DUMP.find("(3,NULL").unwrap() + 3]);
        assert!(!contents.complete && contents.rows() == 2);
        assert_eq!(faults[0].problem, "the stream ends within a statement");
        let (_, faults) = scan(&DUMP.as_bytes()[..DUMP.find("'s'),(3").unwrap()]);
        assert_eq!(faults[0].problem, "a string that begins here is never closed");
    }
}
