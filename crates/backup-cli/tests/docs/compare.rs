//! Whether a command printed what its page shows.
//!
//! Compared are words; spaces, which align tables, do not matter. `…` in a line stands for anything,
//! a line of `…` for any lines. What differs from run to run only has to be of the same kind: ids of
//! backups, dates and times, durations, sizes and shares with their units, long hexadecimal numbers,
//! and positions in a binary log. Everything else, such as a number of rows, has to be the same.

/// The first shown line that was not printed where it should be, or what was printed besides.
pub(crate) fn difference(shown: &[String], printed: &str) -> Option<String> {
    let shown: Vec<String> = shown.iter().map(|line| kinds(line)).collect();
    let printed: Vec<&str> = printed.trim_end().lines().collect();
    let known: Vec<String> = printed.iter().map(|line| kinds(line)).collect();
    let mut furthest = 0;
    if lines_fit(&shown, &known, 0, &mut furthest) {
        return None;
    }
    Some(match printed.get(furthest) {
        Some(line) => format!("this does not fit what the page shows:\n{line}"),
        None => "the page shows more than that".to_owned(),
    })
}

fn lines_fit(shown: &[String], printed: &[String], at: usize, furthest: &mut usize) -> bool {
    *furthest = at.max(*furthest);
    match shown.split_first() {
        None => at == printed.len(),
        Some((line, rest)) if line == "…" => {
            (at..=printed.len()).any(|next| lines_fit(rest, printed, next, furthest))
        }
        Some((line, rest)) => {
            printed.get(at).is_some_and(|printed| fits(line, printed))
                && lines_fit(rest, printed, at + 1, furthest)
        }
    }
}

/// Whether a line is one that a line with `…` stands for.
fn fits(pattern: &str, line: &str) -> bool {
    let Some((before, after)) = pattern.split_once('…') else { return pattern == line };
    let Some(rest) = line.strip_prefix(before) else { return false };
    (0..=rest.len()).filter(|&i| rest.is_char_boundary(i)).any(|i| fits(after, &rest[i..]))
}

/// The line with single spaces, and the kind in place of what differs from run to run.
fn kinds(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let (open, rest) = word.split_at(word.len() - word.trim_start_matches('(').len());
        let core = rest.trim_end_matches([',', ';', '.', ')', ':']);
        let close = &rest[core.len()..];
        let number = words.last().is_some_and(|w| is_number(w.trim_start_matches('(')));
        match (kind(core), unit(core)) {
            (Some(kind), _) => words.push(format!("{open}{kind}{close}")),
            (None, Some(kind)) if number => {
                let before = words.pop().unwrap_or_default();
                let open = &before[..before.len() - before.trim_start_matches('(').len()];
                // `1 min 02 s` is one duration.
                if words.last().is_some_and(|w| w == kind) {
                    words.pop();
                }
                words.push(format!("{open}{kind}{close}"));
            }
            _ => words.push(word.to_owned()),
        }
    }
    words.join(" ")
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_digit() || c == '.')
}

fn unit(word: &str) -> Option<&'static str> {
    match word {
        "s" | "min" | "h" => Some("<duration>"),
        "B" | "KiB" | "MiB" | "GiB" | "TiB" => Some("<size>"),
        "%" => Some("<share>"),
        _ => None,
    }
}

fn kind(word: &str) -> Option<&'static str> {
    // Digits as 0, letters of hexadecimal numbers as themselves.
    let shape: String = word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let hex = |c: char| c.is_ascii_hexdigit() || matches!(c, '-' | ':' | ',');
    let id = shape.strip_prefix("00000000T000000Z-full-");
    if id.is_some_and(|rest| rest.len() == 6 && rest.chars().all(hex)) {
        Some("<backup>")
    } else if shape == "0000-00-00" {
        Some("<date>")
    } else if shape == "00:00:00" {
        Some("<time>")
    } else if shape.strip_prefix("binlog.000000:").is_some_and(is_number) {
        Some("<position>")
    } else if word.len() >= 32 && word.chars().all(hex) {
        Some("<hex>")
    } else {
        None
    }
}

#[test]
fn figures_differ_and_facts_do_not() {
    let same = |shown: &str, printed: &str| {
        difference(&shown.lines().map(str::to_owned).collect::<Vec<_>>(), printed).is_none()
    };
    assert!(same(
        "Backup 20261120T141249Z-full-c22169 is complete: 327,002 rows, 1.4 MiB, in 0.6 s; x",
        "Backup 20271231T235959Z-full-000000 is complete: 327,002 rows, 940 KiB, in 1 min 02 s; x\n",
    ));
    assert!(!same("complete: 327,002 rows", "complete: 327,003 rows"));
    assert!(same("  a  b\n…\nc", "a b\nx\ny\nc"));
    assert!(same("a\n…", "a") && same("a … c", "a b b c") && same("…", ""));
    assert!(!same("a\nc", "a\nb\nc") && !same("a", "a\nb") && !same("a\nb", "a"));
    assert!(same("took 2026-11-20 10:00:00 UTC", "took 2026-12-01 23:00:01 UTC"));
    assert!(same("(8.3 % of it)", "(11 % of it)") && !same("8.3 %", "many %"));
    let gtid = "Position: binlog.000001:24 (GTID 6fbf6d49-e4ec-11f1-86c9-02fc00000001:1-21)";
    assert!(same(gtid, &gtid.replace("24", "119").replace('6', "a")));
    assert!(!same(gtid, "Position: none"));
}
