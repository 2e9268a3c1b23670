//! Views, routines, triggers, events: each under the settings that it was created under.

use std::collections::BTreeMap;

use backup_core::{Error, Flavor, Result};

use super::super::catalog::StoredObject;
use super::super::ddl::quote_text;
use super::super::inventory::{is_utf8, unhex};
use super::super::select::quote_name;
use super::charset;
use super::script::Script;
use super::sql::DatabaseOptions;

/// Writes what creates objects, and remembers which databases have another collation meanwhile.
pub(super) struct Code<'a> {
    pub(super) script: &'a mut Script,
    databases: &'a BTreeMap<&'a str, DatabaseOptions>,
    changed: BTreeMap<String, String>,
}

impl<'a> Code<'a> {
    pub(super) fn new(
        script: &'a mut Script,
        databases: &'a BTreeMap<&'a str, DatabaseOptions>,
    ) -> Self {
        Code { script, databases, changed: BTreeMap::new() }
    }

    /// Creates an object.
    pub(super) fn create(&mut self, object: &StoredObject) -> Result<()> {
        self.script.use_database(&object.database);
        if let Some(collation) = &object.database_collation {
            self.collation(&object.database, collation)?;
        }
        let (charset, statement) = self.statement(object)?;
        self.session(object, charset.as_deref());
        let delimiter = delimiter(&statement);
        self.script.raw(format!("DELIMITER {delimiter}\n"));
        self.script.note_length(statement.len());
        self.script.raw(&statement);
        // On a line of its own: code may end in a comment, which only the end of the line ends.
        self.script.raw(format!("\n{delimiter}\nDELIMITER ;\n"));
        Ok(())
    }

    /// The statement, and the character set that it is in.
    fn statement(&mut self, object: &StoredObject) -> Result<(Option<String>, Vec<u8>)> {
        let charset = object.charset.clone();
        if let Some(hex) = &object.create_bytes {
            let bytes = unhex(hex).ok_or_else(|| {
                Error::damaged(format!("the code of {} is damaged", object.full_name()))
            })?;
            return Ok((charset, bytes));
        }
        let text = &object.create;
        match &charset {
            Some(name) if !text.is_ascii() && !is_utf8(name) => {
                let why = match charset::encode(text, name) {
                    Some(bytes) if charset::misleads(text, &bytes) => {
                        format!("the clients would misread it in {name}")
                    }
                    Some(bytes) => return Ok((charset, bytes)),
                    None => format!("its text does not fit into {name}"),
                };
                self.script.warn(format!(
                    "the {} {} is created with the client character set utf8mb4: {why}",
                    object.kind,
                    object.full_name()
                ));
                Ok((Some("utf8mb4".to_owned()), text.clone().into_bytes()))
            }
            _ => Ok((charset, text.clone().into_bytes())),
        }
    }

    fn session(&mut self, object: &StoredObject, charset: Option<&str>) {
        let sql_mode = object.sql_mode.as_deref().unwrap_or_default();
        let sql_mode: Vec<&str> = sql_mode
            .split(',')
            // The only mode of MySQL 5.7 that 8.0 refuses.
            .filter(|m| self.script.flavor == Flavor::MariaDb || *m != "NO_AUTO_CREATE_USER")
            .collect();
        let mut assignments = vec![format!("sql_mode = {}", quote_text(&sql_mode.join(",")))];
        if let Some(charset) = charset {
            assignments.push(format!("character_set_client = {}", quote_text(charset)));
        }
        if let Some(collation) = &object.collation {
            assignments.push(format!("collation_connection = {}", quote_text(collation)));
        }
        let time_zone = object.time_zone.as_deref().unwrap_or("+00:00");
        assignments.push(format!("time_zone = {}", quote_text(time_zone)));
        let settings = assignments.join(", ");
        if self.script.settings.as_ref() != Some(&settings) {
            // The modes of the object before must not decide how strings are read.
            self.script.raw("SET SESSION sql_mode = '';\n");
            self.script.raw(format!("SET SESSION {settings};\n"));
            self.script.settings = Some(settings);
        }
    }

    /// Routines remember the collation that their database had when they were created.
    fn collation(&mut self, database: &str, collation: &str) -> Result<()> {
        let own = self.databases.get(database).and_then(|d| d.collation.as_deref());
        let present = self.changed.get(database).map(String::as_str).or(own);
        if present == Some(collation) {
            return Ok(());
        }
        let sql =
            format!("ALTER DATABASE {} COLLATE {}", quote_name(database), checked(collation)?);
        self.script.run(sql);
        self.changed.insert(database.to_owned(), collation.to_owned());
        Ok(())
    }

    /// Gives the databases the collations back that they had.
    pub(super) fn finish(self) {
        for name in self.changed.into_keys() {
            let own = self.databases.get(name.as_str());
            if let Some(options) = own.filter(|own| !own.text.is_empty()) {
                self.script.run(format!("ALTER DATABASE {} {}", quote_name(&name), options.text));
            }
        }
    }
}

/// A name of a character set or collation, which goes in without quotes.
fn checked(name: &str) -> Result<&str> {
    match name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        true => Ok(name),
        false => Err(Error::damaged(format!("`{}` is no collation", name.escape_debug()))),
    }
}

/// What ends a statement that has semicolons of its own: the first that is not in it.
fn delimiter(statement: &[u8]) -> String {
    let fixed = [";;", "$$", "//"].map(str::to_owned);
    let numbered = (0_u32..).map(|n| format!("@end{n}@"));
    let mut all = fixed.into_iter().chain(numbered);
    all.find(|d| memchr::memmem::find(statement, d.as_bytes()).is_none()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::delimiter;

    #[test]
    fn a_delimiter_is_not_in_the_statement() {
        assert_eq!(delimiter(b"BEGIN SELECT 1; END"), ";;");
        assert_eq!(delimiter(b";; $$"), "//");
        assert_eq!(delimiter(b";; $$ // @end0@"), "@end1@");
    }
}
