//! What was left for later, added to tables that have their rows.

use backup_core::{Context, Error, ErrorKind, Flavor, Result, ResultExt};

use super::super::catalog::Table;
use super::super::ddl::Parts;
use super::progress::Progress;
use super::session::LoadSettings;
use super::shape::Shape;
use super::tables::{definition, in_flux, known};
use crate::connect::{ConnectOptions, Session};

/// Builds the indexes that were left out and lets the server gather statistics. Does nothing twice.
pub(super) async fn finish(
    session: &mut Session,
    progress: Option<&Progress>,
    number: usize,
    table: &Table,
    shape: &Shape,
) -> Result<()> {
    let name = table.full_name();
    let mut changes = Vec::new();
    if shape.indexes_later {
        let there = definition(session, &name).await?;
        changes = Parts::of(&table.create).indexes_not_in(&Parts::of(&there));
    }
    if shape.statistics_later {
        changes.push("STATS_AUTO_RECALC=DEFAULT".to_owned());
    }
    alter(session, progress, number, table, shape, &changes)
        .await
        .context(|| format!("cannot build the indexes of table {name}"))?;
    if shape.statistics_later {
        // Its warnings are not ours; a table without statistics is slow, not wrong.
        session.run(&format!("ANALYZE TABLE {}", name.quoted())).await?;
    }
    Ok(())
}

/// Adds the foreign keys that were left out, when all tables that they refer to are whole.
pub(in crate::logical) async fn add_foreign_keys(
    cx: &Context,
    target: &ConnectOptions,
    settings: &LoadSettings,
    tables: &[Table],
    shapes: &[Shape],
    progress: Option<&Progress>,
) -> Result<()> {
    if !shapes.iter().any(|shape| shape.foreign_keys_later) {
        return Ok(());
    }
    cx.phase("foreign keys");
    let mut session = settings.definer(target).await?;
    for (i, (table, shape)) in tables.iter().zip(shapes).enumerate() {
        if !shape.foreign_keys_later {
            continue;
        }
        let name = table.full_name();
        let there = definition(&mut session, &name).await?;
        let changes = Parts::of(&table.create).foreign_keys_not_in(&Parts::of(&there));
        alter(&mut session, progress, i, table, shape, &changes)
            .await
            .context(|| format!("cannot add the foreign keys of table {name}"))?;
    }
    session.close().await
}

/// Says again what the counters of tables give next. MariaDB keeps that in the first page of the table, which it
/// clears when it takes back rows that came into an empty table; it knows better only until it opens the table anew.
pub(in crate::logical) async fn set_counters(
    target: &ConnectOptions,
    settings: &LoadSettings,
    tables: &[Table],
    shapes: &[Shape],
    progress: Option<&Progress>,
) -> Result<()> {
    if settings.facts.flavor != Flavor::MariaDb {
        return Ok(());
    }
    let mut session = settings.definer(target).await?;
    for (i, (table, shape)) in tables.iter().zip(shapes).enumerate() {
        let Some(next) = Parts::of(&table.create).option("AUTO_INCREMENT") else { continue };
        let changes = [format!("AUTO_INCREMENT={next}")];
        alter(&mut session, progress, i, table, shape, &changes)
            .await
            .context(|| format!("cannot set the counter of table {}", table.full_name()))?;
    }
    session.close().await
}

async fn alter(
    session: &mut Session,
    progress: Option<&Progress>,
    number: usize,
    table: &Table,
    shape: &Shape,
    changes: &[String],
) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let name = table.full_name();
    let mut mark = String::new();
    if let Some(progress) = progress {
        in_flux(session, progress, number, shape).await?;
        mark = format!(" /* holdfast-{} */", progress.id());
    }
    let sql = format!("ALTER{mark} TABLE {} {}", name.quoted(), changes.join(", "));
    session.run(&sql).await.map_err(|e| match e.kind() {
        ErrorKind::Source => Error::with_kind(e, ErrorKind::Target),
        _ => e,
    })?;
    match progress {
        Some(progress) => known(session, progress, number, &name, shape).await,
        None => Ok(()),
    }
}
