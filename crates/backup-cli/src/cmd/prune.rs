//! `holdfast prune`

use std::fmt::Write;

use backup_core::retention::Policy;
use backup_core::{ClusterName, Error, ErrorKind, Result};
use backup_storage::{
    Fate, PruneOptions, PruneReport, Pruned, PrunedBinlogs, RepositoryOptions, holder, prune,
};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo};

use crate::answer::Answer;
use crate::app::App;
use crate::config::Retention;
use crate::human::{self, Align};

/// Remove backups that no rule keeps, and leftovers
///
/// A backup stays when any rule keeps it. What has to go is marked first, and removed by a run after
/// the waiting time; until then no new backup builds on it. Without any rule, only what earlier runs
/// marked is removed, and what interrupted runs left.
#[derive(clap::Args)]
pub(crate) struct Prune {
    /// Only backups of this cluster [default: that of the configuration, else all]
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// Keep the newest N
    #[arg(long, value_name = "N")]
    keep_last: Option<u32>,
    /// Keep all that are not older than this, before the newest: 30d, 8w, 6mo, 1y
    #[arg(long, value_name = "TIME")]
    keep_within: Option<String>,
    /// Keep the newest of each of the last N hours that have one
    #[arg(long, value_name = "N")]
    keep_hourly: Option<u32>,
    /// Keep the newest of each of the last N days that have one
    #[arg(long, value_name = "N")]
    keep_daily: Option<u32>,
    /// Keep the newest of each of the last N weeks that have one
    #[arg(long, value_name = "N")]
    keep_weekly: Option<u32>,
    /// Keep the newest of each of the last N months that have one
    #[arg(long, value_name = "N")]
    keep_monthly: Option<u32>,
    /// Keep the newest of each of the last N years that have one
    #[arg(long, value_name = "N")]
    keep_yearly: Option<u32>,
    /// What is younger stays, and takes no place in the rules [default: 24h]
    #[arg(long, value_name = "TIME")]
    grace: Option<String>,
    /// How long a backup is marked before it is removed [default: 24h]
    #[arg(long, value_name = "TIME")]
    wait: Option<String>,
    /// Keep archived binlogs of this time even where no backup needs them; what backups need stays in
    /// any case [default: 0]
    #[arg(long, value_name = "TIME")]
    keep_binlogs: Option<String>,
    /// Where hours, days and weeks end, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Say what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
}

impl Prune {
    /// Prunes.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        let options = self.options(&app.config.retention, app.config.cluster.as_ref())?;
        let repo = app.repo(RepositoryOptions::default()).await?;
        if let Some(cluster) = &self.cluster {
            app.known(&repo, Some(cluster), cluster).await?;
        }
        let report = prune(&app.cx, &repo, &options).await?;
        let ending = (!report.warnings.is_empty()).then_some(ErrorKind::Warnings);
        let answer = Answer::new(&report, text(&report))?.ending(ending);
        // A plan is what was asked for.
        Ok(if report.dry_run { answer } else { answer.summary() })
    }

    fn options(&self, file: &Retention, cluster: Option<&ClusterName>) -> Result<PruneOptions> {
        let default = PruneOptions::default();
        let count = |flag: Option<u32>, file: Option<u32>| flag.or(file).unwrap_or_default();
        let text = |flag: &Option<String>, file: &Option<String>| flag.clone().or(file.clone());
        let time = |name: &str, text: Option<String>, default: SignedDuration| {
            text.map_or(Ok(default), |text| duration(name, &text))
        };
        let within = text(&self.keep_within, &file.keep_within);
        let zone = text(&self.time_zone, &file.time_zone);
        Ok(PruneOptions {
            cluster: self.cluster.as_ref().or(cluster).cloned(),
            policy: Policy {
                keep_last: count(self.keep_last, file.keep_last),
                keep_within: within.map(|text| span("keep-within", &text)).transpose()?,
                keep_hourly: count(self.keep_hourly, file.keep_hourly),
                keep_daily: count(self.keep_daily, file.keep_daily),
                keep_weekly: count(self.keep_weekly, file.keep_weekly),
                keep_monthly: count(self.keep_monthly, file.keep_monthly),
                keep_yearly: count(self.keep_yearly, file.keep_yearly),
                grace: time("grace", text(&self.grace, &file.grace), default.policy.grace)?,
                time_zone: zone.map_or(Ok(TimeZone::UTC), |name| time_zone(&name))?,
            },
            wait: time("wait", text(&self.wait, &file.wait), default.wait)?,
            keep_binlogs: text(&self.keep_binlogs, &file.keep_binlogs)
                .map(|text| duration("keep-binlogs", &text))
                .transpose()?,
            dry_run: self.dry_run,
            holder: holder("prune"),
        })
    }
}

fn time_zone(name: &str) -> Result<TimeZone> {
    TimeZone::get(name).map_err(|e| {
        Error::usage(format!("there is no time zone `{name}`"))
            .with_source(e)
            .with_remedy("name one of the IANA database, such as Europe/Berlin or UTC")
    })
}

fn wrong(name: &str, text: &str) -> Error {
    Error::usage(format!("`{text}` is no time for `{name}`"))
        .with_remedy("write a number with a unit, such as 36h, 30d, 8w, 6mo or 1y")
}

/// A time as a calendar counts it.
fn span(name: &str, text: &str) -> Result<Span> {
    let span: Span = text.trim().parse().map_err(|e| wrong(name, text).with_source(e))?;
    // Nobody keeps backups for minutes; many write `6m` and mean months.
    if span.get_minutes() != 0 && text.trim().ends_with('m') {
        return Err(
            wrong(name, text).with_remedy("`m` is minutes: write `mo` for months, or `min`")
        );
    }
    if span.is_negative() { Err(wrong(name, text)) } else { Ok(span) }
}

/// A time as a clock counts it: a day has 24 hours.
fn duration(name: &str, text: &str) -> Result<SignedDuration> {
    if text.trim() == "0" {
        return Ok(SignedDuration::ZERO);
    }
    span(name, text)?
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|e| wrong(name, text).with_source(e).with_remedy("write hours, days or weeks"))
}

const COLUMNS: [(&str, Align); 5] = [
    ("BACKUP", Align::Left),
    ("CLUSTER", Align::Left),
    ("STORED", Align::Right),
    ("PLAN", Align::Left),
    ("WHY", Align::Left),
];

fn row(pruned: &Pruned, dry_run: bool) -> Vec<String> {
    let fate = match pruned.fate {
        Fate::Kept => "keep".to_owned(),
        Fate::Marked { due } => format!("remove after {}", human::time(due)),
        Fate::Held => "wait".to_owned(),
        Fate::Removed if dry_run => "remove".to_owned(),
        Fate::Removed => "removed".to_owned(),
        _ => "?".to_owned(),
    };
    vec![
        pruned.backup.to_string(),
        pruned.cluster.to_string(),
        human::bytes(pruned.bytes),
        fate,
        pruned.reasons.join("; "),
    ]
}

/// What a person reads. Writing to a String cannot fail.
fn text(report: &PruneReport) -> String {
    let mut text = String::new();
    if !report.rules {
        text.push_str(
            "No rule says what to keep: only backups that earlier runs marked may go, and leftovers.\n",
        );
    }
    if !report.backups.is_empty() {
        let rows: Vec<_> = report.backups.iter().map(|p| row(p, report.dry_run)).collect();
        text.push_str(&human::table(&COLUMNS, &rows));
    }
    let number =
        |fits: fn(&Fate) -> bool| report.backups.iter().filter(|p| fits(&p.fate)).count() as u64;
    let (would, done) = if report.dry_run { ("would be ", "would be ") } else { ("", "was ") };
    let removed = number(|f| *f == Fate::Removed);
    let marked = number(|f| matches!(f, Fate::Marked { .. }));
    if marked > 0 {
        let _ =
            writeln!(text, "{}: a later prune removes what is marked.", marked_line(marked, would));
    }
    if removed > 0 {
        let _ = writeln!(text, "{} {would}removed.", human::several(removed, "backup"));
    }
    let left = report.leftovers;
    if left.unfinished > 0 {
        let _ = writeln!(
            text,
            "{} {would}removed, {}.",
            human::several(left.unfinished, "unfinished backup"),
            human::bytes(left.unfinished_bytes),
        );
    }
    if left.retired > 0 {
        let _ = writeln!(
            text,
            "{} of backups removed earlier {would}removed, {}.",
            human::several(left.retired, "object"),
            human::bytes(left.retired_bytes),
        );
    }
    report.binlogs.iter().for_each(|binlogs| text.push_str(&binlog_line(binlogs, would)));
    let _ = writeln!(text, "{} {done}freed.", human::bytes(report.bytes_freed));
    if report.bytes_kept > 0 {
        let _ = writeln!(
            text,
            "{} of removed backups stay: backups that are kept need them.",
            human::bytes(report.bytes_kept)
        );
    }
    for refused in &report.refused {
        let _ = writeln!(text, "Kept: {} ({})", refused.object, refused.reason);
    }
    if report.dry_run {
        text.push_str("Nothing was done.\n");
    }
    human::plain(&text)
}

/// Nothing where all stay because they are needed.
fn binlog_line(binlogs: &PrunedBinlogs, would: &str) -> String {
    let PrunedBinlogs { cluster, removed, bytes, upto, kept, held } = binlogs;
    if let Some(why) = held {
        return format!("Binlogs of {cluster}: all stay: {why}.\n");
    }
    if *removed == 0 {
        return String::new();
    }
    let upto = upto.map(|time| format!(", up to {}", human::time(time))).unwrap_or_default();
    format!(
        "Binlogs of {cluster}: {} {would}removed that no backup needs, {}{upto}; {} stay.\n",
        human::several(*removed, "segment"),
        human::bytes(*bytes),
        human::count(*kept)
    )
}

fn marked_line(marked: u64, would: &str) -> String {
    let is = if would.is_empty() { if marked == 1 { "is " } else { "are " } } else { would };
    format!("{} {is}marked", human::several(marked, "backup"))
}
