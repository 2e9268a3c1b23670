//! What `holdfast restore` answers, before and after.

use backup_core::{ErrorKind, Manifest, RestoreSteps, Restored, Result, Severity, Strategy};
use jiff::SignedDuration;
use serde_json::json;

use super::point::Way;
use crate::answer::Answer;
use crate::human;

/// What would be done. It ends as the restore itself would.
pub(super) fn plan(
    manifest: &Manifest,
    target: &str,
    steps: &RestoreSteps,
    way: Option<&Way>,
) -> Result<Answer> {
    let mut document = json!({
        "backup": manifest.backup,
        "target": target,
        "dry_run": true,
        "steps": steps.steps,
        "destroys": steps.destroys,
        "findings": steps.findings,
        "warnings": way.map(|way| way.route.warnings.as_slice()).unwrap_or_default(),
    });
    let mut text = format!("To restore {} into {target}:\n", manifest.backup);
    for (n, step) in steps.steps.iter().enumerate() {
        text.push_str(&format!("{:>4}. {step}\n", n + 1));
    }
    if !steps.destroys.is_empty() {
        text.push_str("This destroys:\n");
        for object in &steps.destroys {
            text.push_str(&format!("  {object}\n"));
        }
    }
    if let Some(way) = way {
        document["binlog"] = way.as_json();
        text.push_str(&way.steps());
    }
    if !steps.findings.is_empty() {
        text.push_str("To look at:\n");
        for finding in &steps.findings {
            text.push_str(&human::finding(finding));
        }
    }
    text.push_str("Nothing was done.\n");
    let worst = steps.findings.iter().max_by_key(|finding| finding.severity);
    let ending = match worst.map(|finding| (finding.severity, finding.kind)) {
        Some((Severity::Error, kind)) => Some(kind.unwrap_or(ErrorKind::Target)),
        Some((Severity::Warning, _)) => Some(ErrorKind::Warnings),
        _ => way.and_then(Way::ending),
    };
    Ok(Answer::new(&document, human::plain(&text))?.ending(ending))
}

pub(super) fn done(
    manifest: &Manifest,
    restored: &Restored,
    took: SignedDuration,
    way: Option<&Way>,
) -> Result<Answer> {
    let reached = &restored.reached;
    let of_way = way.map(|way| way.route.warnings.as_slice()).unwrap_or_default();
    let all_warnings = [&restored.warnings[..], of_way].concat();
    let at = match way {
        Some(way) => way.reached(reached),
        // A backup by itself stands for a position; only a replay of the binlog knows a time.
        None => json!({
            "time": null,
            "gtid": reached.gtid,
            "file": reached.file,
            "offset": reached.offset,
        }),
    };
    let mut document = json!({
        "backup": manifest.backup,
        "target": restored.target,
        "reached": at,
        "rows": restored.rows,
        "bytes": restored.bytes,
        "duration_seconds": took.as_secs_f64(),
        "warnings": all_warnings,
    });
    let position = match way {
        Some(way) => {
            document["binlog"] = way.as_json();
            way.steps()
        }
        None => format!("Position: {reached}\n"),
    };
    let warnings = match all_warnings.len() {
        0 => String::new(),
        n => format!("It ended with {} to look at.\n", human::warnings(n)),
    };
    let rows = match manifest.strategy {
        Strategy::Logical => format!("{} rows, ", human::count(restored.rows)),
        _ => String::new(),
    };
    let text = format!(
        "Restored {} into {}: {rows}{}, in {}; all of it was compared with the backup.\n\
         {position}{warnings}",
        manifest.backup,
        restored.target,
        human::bytes(restored.bytes),
        human::duration(took.as_secs_f64()),
    );
    let ending = (!all_warnings.is_empty()).then_some(ErrorKind::Warnings);
    Ok(Answer::new(&document, human::plain(&text))?.summary().ending(ending))
}
