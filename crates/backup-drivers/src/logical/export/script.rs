//! A file of statements, in the making: what the session is set to, and which database is current.

use std::fmt::Write as _;

use backup_core::{Flavor, Result};

use super::super::select::quote_name;
use crate::exchange::FileWriter;

/// So many bytes are collected before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// The mode under which definitions and rows are taken as they are: that of a restore.
pub(super) const BASE_MODE: &str =
    "NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION,ALLOW_INVALID_DATES";

/// A file of statements.
pub(super) struct Script {
    out: FileWriter,
    buffer: Vec<u8>,
    pub(super) flavor: Flavor,
    database: Option<String>,
    /// What the session is set to, where that is not the settings of the header.
    pub(super) settings: Option<String>,
    longest: usize,
    pub(super) warnings: Vec<String>,
}

impl Script {
    pub(super) fn new(out: FileWriter, flavor: Flavor) -> Self {
        Script {
            out,
            buffer: Vec::new(),
            flavor,
            database: None,
            settings: None,
            longest: 0,
            warnings: Vec::new(),
        }
    }

    /// Appends bytes as they are.
    pub(super) fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.buffer.extend_from_slice(bytes.as_ref());
    }

    /// A comment of one line; what would end it in the middle is escaped.
    pub(super) fn comment(&mut self, text: &str) {
        let text: String = text
            .chars()
            .flat_map(|c| match c.is_control() && c != '\t' {
                true => c.escape_default().collect::<Vec<_>>(),
                false => vec![c],
            })
            .collect();
        let line = if text.is_empty() { "--\n".to_owned() } else { format!("-- {text}\n") };
        self.raw(line);
    }

    /// A heading above a group of statements.
    pub(super) fn heading(&mut self, text: &str) {
        self.raw("\n--\n");
        self.comment(text);
        self.raw("--\n\n");
    }

    /// A statement, under the settings of the header.
    pub(super) fn run(&mut self, sql: impl AsRef<[u8]>) {
        self.base();
        self.statement(sql.as_ref());
    }

    /// A statement, under the settings as they are.
    pub(super) fn statement(&mut self, sql: &[u8]) {
        self.longest = self.longest.max(sql.len());
        self.raw(sql);
        self.raw(";\n");
    }

    /// Takes note of a statement that was written as raw bytes.
    pub(super) fn note_length(&mut self, bytes: usize) {
        self.longest = self.longest.max(bytes);
    }

    /// Puts the settings of the header back.
    pub(super) fn base(&mut self) {
        if self.settings.take().is_some() {
            self.raw("SET SESSION sql_mode = '';\n");
            self.raw(format!(
                "SET NAMES utf8mb4;\nSET SESSION sql_mode = '{BASE_MODE}', time_zone = '+00:00';\n"
            ));
        }
    }

    /// Makes a database the current one. In a comment, as the clients take a plain `USE` for a command
    /// of their own, and get names with backticks and backslashes wrong.
    pub(super) fn use_database(&mut self, database: &str) {
        if self.database.as_deref() != Some(database) {
            self.base();
            self.raw(format!("/*!40000 USE {} */;\n", quote_name(database)));
            self.database = Some(database.to_owned());
        }
    }

    /// A warning, also in the file.
    pub(super) fn warn(&mut self, text: String) {
        self.comment(&format!("Warning: {text}"));
        self.warnings.push(text);
    }

    /// Hands on what was collected, where it is enough to be worth it.
    pub(super) async fn flush(&mut self) -> Result<()> {
        if self.buffer.len() >= WRITE_BYTES {
            self.out.write(std::mem::take(&mut self.buffer)).await?;
        }
        Ok(())
    }

    /// Everything is in it: gives the file, and the length of the longest statement.
    pub(super) async fn end(mut self) -> Result<(FileWriter, usize, Vec<String>)> {
        if !self.buffer.is_empty() {
            self.out.write(std::mem::take(&mut self.buffer)).await?;
        }
        Ok((self.out, self.longest, self.warnings))
    }

    /// The settings of the header, kept for the end of the file.
    pub(super) fn set_up(&mut self, strict_formats: bool) {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;\n\
             /*!40101 SET @OLD_CHARACTER_SET_RESULTS=@@CHARACTER_SET_RESULTS */;\n\
             /*!40101 SET @OLD_COLLATION_CONNECTION=@@COLLATION_CONNECTION */;\n\
             SET NAMES utf8mb4;\n\
             /*!40103 SET @OLD_TIME_ZONE=@@TIME_ZONE, TIME_ZONE='+00:00' */;\n\
             /*!40101 SET @OLD_AUTOCOMMIT=@@AUTOCOMMIT, AUTOCOMMIT=1 */;\n\
             /*!40014 SET @OLD_UNIQUE_CHECKS=@@UNIQUE_CHECKS, UNIQUE_CHECKS=0 */;\n\
             /*!40014 SET @OLD_FOREIGN_KEY_CHECKS=@@FOREIGN_KEY_CHECKS, FOREIGN_KEY_CHECKS=0 */;\n\
             /*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='{BASE_MODE}' */;\n"
        );
        text.push_str(match self.flavor {
            Flavor::MySql => {
                "/*!80000 SET SESSION explicit_defaults_for_timestamp=ON */;\n\
                 /*!80011 SET SESSION default_collation_for_utf8mb4=utf8mb4_0900_ai_ci */;\n\
                 /*!80013 SET SESSION sql_require_primary_key=OFF */;\n\
                 /*!80030 SET SESSION sql_generate_invisible_primary_key=OFF */;\n\
                 /*!80400 SET SESSION restrict_fk_on_non_standard_key=OFF */;\n"
            }
            Flavor::MariaDb => {
                "SET SESSION check_constraint_checks=0;\n\
                 /*M!100804 SET SESSION explicit_defaults_for_timestamp=ON */;\n\
                 /*M!101100 SET SESSION system_versioning_insert_history=1 */;\n\
                 /*M!110500 SET SESSION character_set_collations='' */;\n"
            }
        });
        if !strict_formats {
            text.push_str("SET SESSION innodb_strict_mode=OFF;\n");
        }
        self.raw(text);
    }

    /// Puts back what the session was before.
    pub(super) fn tear_down(&mut self) {
        self.base();
        self.raw(
            "\n/*!40101 SET SQL_MODE=@OLD_SQL_MODE */;\n\
             /*!40014 SET FOREIGN_KEY_CHECKS=@OLD_FOREIGN_KEY_CHECKS */;\n\
             /*!40014 SET UNIQUE_CHECKS=@OLD_UNIQUE_CHECKS */;\n\
             /*!40101 SET AUTOCOMMIT=@OLD_AUTOCOMMIT */;\n\
             /*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */;\n\
             /*!40101 SET CHARACTER_SET_CLIENT=@OLD_CHARACTER_SET_CLIENT */;\n\
             /*!40101 SET CHARACTER_SET_RESULTS=@OLD_CHARACTER_SET_RESULTS */;\n\
             /*!40101 SET COLLATION_CONNECTION=@OLD_COLLATION_CONNECTION */;\n",
        );
    }
}
