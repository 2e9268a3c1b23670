//! The rules of one table, applied to its row packets.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::{hmac, rand::SecureRandom, rand::SystemRandom};
use backup_core::{Error, Result};

use super::super::catalog::{Catalog, Column, Table};
use super::super::ddl::Parts;
use super::charset::{Characters, Charset};
use super::column::ColumnMask;
use super::guards;
use super::rules::{Compiled, MaskRules};
use crate::connect::Session;
use crate::rows::{Kind, fields, put_fields};

/// All rules, and the secret.
#[derive(Debug)]
pub(in crate::logical) struct Masks {
    rules: Vec<Compiled>,
    key: hmac::Key,
    /// The character sets that the server was asked about.
    told: BTreeMap<String, Charset>,
}

impl Masks {
    /// `secret` makes the same of the same values in several backups; without one, each backup has
    /// a random secret of its own.
    pub(in crate::logical) fn new(rules: &MaskRules, secret: Option<&[u8]>) -> Result<Self> {
        let mut random = [0; 32];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| Error::internal("the system gives no random bytes"))?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.unwrap_or(&random));
        let rules = rules.mask.iter().map(Compiled::new).collect::<Result<_>>()?;
        Ok(Masks { rules, key, told: BTreeMap::new() })
    }

    /// For a server that does not tell cases of names apart: a rule for `Shop.People.mail` is for `shop.people` there.
    pub(in crate::logical) fn ignore_case(&mut self) {
        self.rules.iter_mut().for_each(Compiled::ignore_case);
    }

    /// Asks the server what the characters are of the columns that have to be read as text.
    pub(in crate::logical) async fn ask(
        &mut self,
        session: &mut Session,
        tables: &[Table],
    ) -> Result<()> {
        for table in tables {
            for column in &table.columns {
                let Some(name) = &column.charset else { continue };
                let unknown = Charset::unicode(name).is_none() && !self.told.contains_key(name);
                if unknown && self.rule(table, column).is_some() {
                    let characters = Characters::ask(session, name).await?;
                    self.told.insert(name.clone(), Charset::Told(Arc::new(characters)));
                }
            }
        }
        Ok(())
    }

    /// What is done with a column, by its name; `None` where nothing is.
    pub(super) fn column(&self, table: &Table, name: &str) -> Result<Option<ColumnMask>> {
        let mut columns = table.columns.iter();
        let column = columns.find(|c| c.name.to_lowercase() == name.to_lowercase());
        column.map_or(Ok(None), |column| self.mask(table, column))
    }

    fn mask(&self, table: &Table, column: &Column) -> Result<Option<ColumnMask>> {
        let rule = self.rule(table, column);
        rule.map(|rule| ColumnMask::new(rule, table, column, self.charset(column)?)).transpose()
    }

    /// The first rule that fits.
    fn rule(&self, table: &Table, column: &Column) -> Option<&Compiled> {
        let fits = |rule: &&Compiled| rule.matches(&table.database, &table.name, &column.name);
        self.rules.iter().find(fits)
    }

    fn charset(&self, column: &Column) -> Result<Charset> {
        let Some(name) = &column.charset else { return Ok(Charset::Utf8Mb4) };
        let told = || self.told.get(name).cloned();
        Charset::unicode(name)
            .or_else(told)
            .ok_or_else(|| Error::internal(format!("the characters of {name} were not asked for")))
    }

    /// Which of a table's columns are changed, and how. `None` where none is.
    pub(in crate::logical) fn table(&self, table: &Table) -> Result<Option<TableMask>> {
        let columns: Vec<Option<ColumnMask>> =
            table.columns.iter().map(|column| self.mask(table, column)).collect::<Result<_>>()?;
        let any = columns.iter().any(Option::is_some);
        Ok(any.then(|| TableMask { columns, key: self.key.clone() }))
    }

    /// Fails for a rule that fits nothing: a misspelt one would let values through. Takes what the
    /// definitions tell of values out of the catalogue.
    pub(in crate::logical) fn prepare(&self, catalog: &mut Catalog) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        for rule in &self.rules {
            let fits = catalog
                .tables
                .iter()
                .any(|t| t.columns.iter().any(|c| rule.matches(&t.database, &t.name, &c.name)));
            if !fits {
                return Err(Error::usage(format!(
                    "the rule for {} fits no column of this backup",
                    rule.text
                ))
                .with_remedy(
                    "correct the name, or take the rule out; generated columns follow the columns \
                     that they are made of",
                ));
            }
        }
        for table in &mut catalog.tables {
            let Some(mask) = self.table(table)? else { continue };
            for (column, _) in table.columns.iter().zip(&mask.columns).filter(|(_, m)| m.is_some())
            {
                table.masked.push(column.name.clone());
                table.histograms.remove(&column.name);
            }
            let masked = table.columns.iter().zip(&mask.columns);
            let masked: Vec<_> =
                masked.filter_map(|(column, mask)| Some((column, &mask.as_ref()?.with))).collect();
            warnings.extend(guards::of_table(table, &masked)?);
            let keys = Parts::of(&table.create).unique_keys();
            let merging = table.columns.iter().zip(&mask.columns).filter(|(column, mask)| {
                let merges = mask.as_ref().is_some_and(ColumnMask::merges);
                merges && keys.iter().any(|key| key.contains(&column.name))
            });
            warnings.extend(merging.map(|(column, _)| {
                format!(
                    "{}.{} is masked and part of a primary or unique key: a restore fails where two values become one",
                    table.full_name(),
                    column.name
                )
            }));
        }
        warnings.extend(guards::of_foreign_keys(self, catalog)?);
        Ok(warnings)
    }

    /// The unique keys of a table of which one fixed value is all that would be left, by their columns: with a second
    /// row no server takes the backup back.
    pub(in crate::logical) fn fixed_keys(&self, table: &Table) -> Result<Vec<Vec<String>>> {
        let Some(mask) = self.table(table)? else { return Ok(Vec::new()) };
        let fixed = |name: &String| {
            let mut columns = table.columns.iter().zip(&mask.columns);
            columns.any(|(column, mask)| {
                column.name == *name && mask.as_ref().is_some_and(ColumnMask::is_fixed)
            })
        };
        let keys = Parts::of(&table.create).unique_keys().into_iter();
        Ok(keys.filter(|key| !key.is_empty() && key.iter().all(fixed)).collect())
    }
}

/// The masks of a table's columns.
#[derive(Debug)]
pub(in crate::logical) struct TableMask {
    columns: Vec<Option<ColumnMask>>,
    key: hmac::Key,
}

impl TableMask {
    /// Whether ranges of the table's key would tell values that are masked.
    pub(in crate::logical) fn hides_key(&self, table: &Table) -> bool {
        let mut masked = table.columns.iter().zip(&self.columns).filter(|(_, mask)| mask.is_some());
        masked.any(|(column, _)| table.key.contains(&column.name))
    }

    /// Puts the masked row of `packet` into `out`.
    pub(in crate::logical) fn apply(
        &self,
        packet: &[u8],
        kinds: &[Kind],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let values = fields(packet, kinds)?;
        let mut masked: Vec<Option<Cow<'_, [u8]>>> = Vec::with_capacity(values.len());
        for ((value, kind), mask) in values.iter().zip(kinds).zip(&self.columns) {
            masked.push(match (value, mask) {
                (Some(value), Some(mask)) => mask.apply(&self.key, *kind, value)?,
                (value, _) => value.map(Cow::Borrowed),
            });
        }
        let masked: Vec<Option<&[u8]>> = masked.iter().map(|v| v.as_deref()).collect();
        put_fields(out, &masked, kinds);
        Ok(())
    }
}
