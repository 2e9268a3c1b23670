//! Numbers, times and tables as people read them.

use std::fmt::Write;
use std::time::Duration;

use backup_core::Finding;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use unicode_width::UnicodeWidthStr;

/// `1.5 GiB`.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `0.8 s`, `42 s`, `3 min 05 s`, `2 h 07 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    let Ok(duration) = Duration::try_from_secs_f64(seconds) else {
        return "forever".to_owned();
    };
    let whole = duration.as_secs();
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// `2026-11-20 10:15:30 UTC`.
pub(crate) fn time(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%F %T UTC").to_string()
}

/// `1 warning`, `2 warnings`.
pub(crate) fn warnings(n: usize) -> String {
    several(n as u64, "warning")
}

/// `1 backup`, `2 backups`.
pub(crate) fn several(n: u64, what: &str) -> String {
    format!("{} {what}{}", count(n), if n == 1 { "" } else { "s" })
}

/// `text` without anything that a terminal would obey: names and messages come from outside.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Reads `268435456`, `256MiB`, `256M` or `1G`: units of 1024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no size; write bytes, or a number with K, M, G or T");
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let shift = match unit.strip_suffix("ib").unwrap_or(&unit) {
        "" if unit.is_empty() => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(bad()),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

/// Reads an age: `30d`, `2w`, `36h`, `0`.
pub(crate) fn parse_age(text: &str) -> Result<SignedDuration, String> {
    let bad = || format!("`{text}` is no age; write a number with h, d or w, such as 30d");
    if text.trim() == "0" {
        return Ok(SignedDuration::ZERO);
    }
    let span: Span = text.trim().parse().map_err(|_| bad())?;
    let age = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| bad())?;
    if age.is_negative() { Err(bad()) } else { Ok(age) }
}

/// A finding in one or two lines.
pub(crate) fn finding(finding: &Finding) -> String {
    let severity = finding.severity.to_string();
    let mut text = format!("  {severity:<8} {}: {}\n", finding.object, finding.problem);
    if !finding.remedy.is_empty() {
        let _ = writeln!(text, "           What to do: {}", finding.remedy);
    }
    plain(&text)
}

/// Which way a column of a [`table`] is aligned.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A table with aligned columns, two blanks between them, and a headline.
pub(crate) fn table(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head)
        .chain(rows.iter().map(|row| row.iter().map(|c| plain(c).replace('\n', "\\n")).collect()))
        .collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|i| rows.iter().map(|row| row[i].width()).max().unwrap_or_default())
        .collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(columns) {
            let space = " ".repeat(width - cell.width());
            let (before, after) =
                if *align == Align::Right { (space.as_str(), "") } else { ("", space.as_str()) };
            let gap = if line.is_empty() { "" } else { "  " };
            // Writing to a String cannot fail.
            let _ = write!(line, "{gap}{before}{cell}{after}");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (n, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_610_612_736, "1.5 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        for (text, n) in
            [("0", 0), ("10", 10), ("1K", 1024), ("256 MiB", 256 << 20), ("2g", 2 << 30)]
        {
            assert_eq!(parse_bytes(text), Ok(n), "{text}");
        }
        for bad in ["", "x", "-1", "1x", "1kb", "ib", "1ib", "99999999999T", "1.5G"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_and_durations() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.04, 59.9, 60.0, 3725.0, -1.0, f64::INFINITY].map(duration),
            ["0.0 s", "59 s", "1 min 00 s", "1 h 02 min", "0.0 s", "forever"]
        );
    }

    #[test]
    fn tables_are_aligned_and_harmless() {
        let rows = [vec!["é\u{1b}[31m".into(), "1".into()], vec!["b".into(), "22".into()]];
        let text = table(&[("NAME", Align::Left), ("N", Align::Right)], &rows);
        assert_eq!(text, "NAME          N\né\\u{1b}[31m   1\nb            22\n");
    }
}
