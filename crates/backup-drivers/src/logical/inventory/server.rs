//! What belongs to the whole server (MySQL): spatial reference systems, resource groups.

use backup_core::{Flavor, Result};
use mysql_async::Conn;

use super::super::catalog::{Catalog, StoredKind, StoredObject};
use super::super::ddl::quote_text;
use super::super::select::{Selection, quote_name};
use super::{ServerFacts, query};

/// The largest number of a system that comes with the server: they are those of the EPSG.
const LAST_OWN_SYSTEM: u32 = 32_767;

/// Reads them, where they are wanted or used.
pub(super) async fn objects(
    conn: &mut Conn,
    facts: &ServerFacts,
    selection: &Selection,
    catalog: &mut Catalog,
) -> Result<()> {
    if facts.flavor != Flavor::MySql || !facts.version.at_least(8, 0, 3) {
        return Ok(());
    }
    let sql = format!(
        "SELECT CAST(SRS_ID AS CHAR), SRS_NAME, ORGANIZATION, CAST(ORGANIZATION_COORDSYS_ID AS CHAR), \
         DEFINITION, DESCRIPTION FROM information_schema.ST_SPATIAL_REFERENCE_SYSTEMS \
         WHERE SRS_ID > {LAST_OWN_SYSTEM} ORDER BY SRS_ID"
    );
    let what = "cannot list the spatial reference systems";
    for row in query::rows(conn, sql, what).await? {
        let number = query::required(&row, 0)?;
        let used = format!("SRID {number} ");
        if !selection.is_whole_server() && !catalog.tables.iter().any(|t| t.create.contains(&used))
        {
            continue;
        }
        let mut create = format!(
            "CREATE SPATIAL REFERENCE SYSTEM {number} NAME {} DEFINITION {}",
            quote_text(&query::required(&row, 1)?),
            quote_text(&query::required(&row, 4)?)
        );
        if let (Some(organization), Some(id)) = (query::text(&row, 2), query::text(&row, 3)) {
            create.push_str(&format!(
                " ORGANIZATION {} IDENTIFIED BY {id}",
                quote_text(&organization)
            ));
        }
        if let Some(description) = query::text(&row, 5) {
            create.push_str(&format!(" DESCRIPTION {}", quote_text(&description)));
        }
        let kind = StoredKind::SpatialReferenceSystem;
        catalog
            .stored
            .push(StoredObject { create, ..StoredObject::new(kind, String::new(), number) });
    }
    if selection.is_whole_server() {
        resource_groups(conn, catalog).await?;
    }
    Ok(())
}

async fn resource_groups(conn: &mut Conn, catalog: &mut Catalog) -> Result<()> {
    let sql = "SELECT RESOURCE_GROUP_NAME, RESOURCE_GROUP_TYPE, RESOURCE_GROUP_ENABLED, \
               CAST(VCPU_IDS AS CHAR), CAST(THREAD_PRIORITY AS CHAR) \
               FROM information_schema.RESOURCE_GROUPS \
               WHERE RESOURCE_GROUP_NAME NOT IN ('USR_default', 'SYS_default')";
    for row in query::rows(conn, sql, "cannot list the resource groups").await? {
        let name = query::required(&row, 0)?;
        let state = if query::number(&row, 2) == 1 { "ENABLE" } else { "DISABLE" };
        let create = format!(
            "CREATE RESOURCE GROUP {} TYPE = {} VCPU = {} THREAD_PRIORITY = {} {state}",
            quote_name(&name),
            query::required(&row, 1)?,
            query::required(&row, 3)?,
            query::required(&row, 4)?,
        );
        let kind = StoredKind::ResourceGroup;
        catalog
            .stored
            .push(StoredObject { create, ..StoredObject::new(kind, String::new(), name) });
    }
    Ok(())
}
