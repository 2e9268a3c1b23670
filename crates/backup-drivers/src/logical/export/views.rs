//! Views in an order in which each finds what it reads, and those that find nothing any more.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::Result;

use super::super::catalog::{Catalog, StoredKind, StoredObject};
use super::super::ddl::view_references;
use super::super::recreate::{Scene, Stage};
use super::super::select::{TableName, quote_name};
use super::code::Code;

/// The views that can be used, each after those that it reads from.
pub(super) fn in_order(catalog: &Catalog) -> Vec<&StoredObject> {
    let views = catalog.stored.iter().filter(|o| o.kind == StoredKind::View && !o.invalid);
    let by_name: BTreeMap<TableName, &StoredObject> = views.map(|v| (v.full_name(), v)).collect();
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for &view in by_name.values() {
        // Deep chains of views need no deep stack: (view, whether what it reads is done).
        let mut stack = vec![(view, false)];
        while let Some((view, ready)) = stack.pop() {
            if ready {
                order.push(view);
                continue;
            }
            if !seen.insert(view.full_name()) {
                continue;
            }
            stack.push((view, true));
            for table in view_references(&view.create).tables {
                let database = table.database.unwrap_or_else(|| view.database.clone());
                let name = TableName { database, table: table.name };
                if let Some(other) = by_name.get(&name).filter(|_| !seen.contains(&name)) {
                    stack.push((other, false));
                }
            }
        }
    }
    order
}

/// Creates the views that could not be used on the source: on tables of their own, which are dropped
/// again. To be written before there are tables.
pub(super) async fn invalid(code: &mut Code<'_>, catalog: &Catalog) -> Result<()> {
    let views: Vec<&StoredObject> =
        catalog.stored.iter().filter(|o| o.kind == StoredKind::View && o.invalid).collect();
    if views.is_empty() {
        return Ok(());
    }
    code.script.heading("Views that were of no use on the source: what they read is not there");
    let databases = catalog.databases.iter().map(|d| d.name.clone()).collect();
    let mut set = Set { code, databases };
    let mut scene = Scene::new(catalog);
    let mut made = Vec::new();
    for (n, view) in views.iter().enumerate() {
        let name = format!("holdfast_view_{n}");
        if scene.create(&mut set, view, &name).await? {
            made.push((view, name));
        }
    }
    scene.strike(&mut set).await?;
    for (view, name) in made {
        let database = quote_name(&view.database);
        let (from, to) = (quote_name(&name), quote_name(&view.name));
        set.code.script.run(format!("RENAME TABLE {database}.{from} TO {database}.{to}"));
        set.code.script.warn(format!(
            "the view {} is as it was on the source: it reads from what is not there",
            view.full_name()
        ));
    }
    Ok(())
}

/// A scene that is set when the file is loaded.
struct Set<'a, 'c> {
    code: &'a mut Code<'c>,
    /// Databases that are there by then.
    databases: BTreeSet<String>,
}

impl Stage for Set<'_, '_> {
    async fn create(&mut self, sql: String, _: u16, _: &str) -> Result<bool> {
        // Nothing but the databases is there before, as far as anybody can tell.
        let there = |database: &String| sql == format!("CREATE DATABASE {}", quote_name(database));
        if self.databases.iter().any(there) {
            return Ok(false);
        }
        self.code.script.run(sql);
        Ok(true)
    }

    async fn run(&mut self, sql: String, _: &str) -> Result<()> {
        self.code.script.run(sql);
        Ok(())
    }

    async fn view(&mut self, view: &StoredObject) -> Result<()> {
        self.code.create(view)
    }

    async fn names(&mut self, _: &str) -> Result<()> {
        Ok(())
    }
}
