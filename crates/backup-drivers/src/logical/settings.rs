//! Session variables that definitions depend on.

use std::collections::BTreeMap;

use backup_core::Result;
use mysql_async::Conn;

use super::ddl::quote_text;
use super::inventory::query;

/// A variable, and the value it is to have, both as `SHOW VARIABLES` prints them.
pub(super) struct Setting {
    pub name: &'static str,
    pub value: &'static str,
    /// A session that may not set it cannot go on.
    pub required: bool,
}

/// A setting that is worth having.
pub(super) const fn wanted(name: &'static str, value: &'static str) -> Setting {
    Setting { name, value, required: false }
}

/// A setting without which the result would be wrong.
pub(super) const fn required(name: &'static str, value: &'static str) -> Setting {
    Setting { name, value, required: true }
}

/// Sets those variables that the server knows and that have another value.
///
/// Some of them need a privilege to set at all, so none is set in vain.
pub(super) async fn apply(conn: &mut Conn, settings: &[Setting]) -> Result<()> {
    let names: Vec<String> = settings.iter().map(|s| quote_text(s.name)).collect();
    let sql = format!("SHOW SESSION VARIABLES WHERE Variable_name IN ({})", names.join(", "));
    let rows = query::rows(conn, sql, "cannot read session variables").await?;
    let present: BTreeMap<String, String> = rows
        .iter()
        .filter_map(|row| Some((query::text(row, 0)?, query::text(row, 1).unwrap_or_default())))
        .collect();
    for setting in settings {
        if present.get(setting.name).is_none_or(|value| value == setting.value) {
            continue;
        }
        let what = format!("cannot set {} to '{}'", setting.name, setting.value);
        let value = match setting.value {
            number if number.parse::<f64>().is_ok() => number.to_owned(),
            text => quote_text(text),
        };
        let sql = format!("SET SESSION {} = {value}", setting.name);
        match query::run(conn, sql, &what).await {
            // An account that may not is told so where it matters.
            Err(e) if !setting.required && e.server().is_some() => {}
            other => other?,
        }
    }
    Ok(())
}
