//! The figures as a table in Markdown, beside the goals.

use std::fmt::Write;

use crate::contest::{Contestant, Sample};

/// What a goal is about.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Measure {
    /// From start to end.
    Wall,
    /// Processor time of the client.
    Cpu,
    /// Bytes left.
    Bytes,
}

impl Measure {
    fn name(self) -> &'static str {
        match self {
            Measure::Wall => "wall",
            Measure::Cpu => "client CPU",
            Measure::Bytes => "bytes",
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    fn of(self, sample: &Sample) -> Option<f64> {
        match self {
            Measure::Wall => Some(sample.run.wall),
            Measure::Cpu => Some(sample.run.cpu),
            Measure::Bytes => sample.bytes.map(|bytes| bytes as f64),
        }
    }
}

/// At most `limit` times what the contestant whose name begins with `peer` takes.
pub(crate) struct Goal {
    /// Of what.
    pub(crate) measure: Measure,
    /// Beside whom.
    pub(crate) peer: &'static str,
    /// How often at most.
    pub(crate) limit: f64,
    /// What makes the peer another one than the goal means.
    pub(crate) but: Option<String>,
}

/// The most memory, in MiB.
const MEMORY: f64 = 256.0;
const MIB: f64 = 1024.0 * 1024.0;
const MB: f64 = 1e6;

/// The whole report; the first contestant is ours, and `bytes` says what the bytes are, if there
/// are any.
pub(crate) fn write(
    title: &str,
    notes: &[String],
    contestants: &[Contestant],
    goals: &[Goal],
    bytes: Option<&str>,
) -> String {
    let mut out = format!("### {title}\n\n");
    for note in notes {
        put(&mut out, format_args!("- {note}\n"));
    }
    table(&mut out, contestants, bytes);
    phases(&mut out, contestants);
    judge(&mut out, contestants, goals);
    out
}

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    out.write_fmt(what).expect("a string takes everything");
}

fn table(out: &mut String, contestants: &[Contestant], bytes: Option<&str>) {
    let mut heads: Vec<String> = [
        "tool",
        "wall s (from–to)",
        "client CPU s",
        "server CPU s",
        "peak RSS MiB",
        "CPU of others",
        "wall, ours ÷ its",
    ]
    .map(str::to_owned)
    .into();
    heads.extend(bytes.iter().flat_map(|b| [format!("{b} MB"), format!("{b}, ours ÷ its")]));
    put(out, format_args!("\n| {} |\n|{}\n", heads.join(" | "), "---|".repeat(heads.len())));
    for contestant in contestants {
        let mut cells = vec![contestant.name.clone()];
        match &contestant.out {
            Some(why) => cells.push(cell(why)),
            None => cells.extend(figures(contestant, &contestants[0], bytes.is_some())),
        }
        cells.resize(heads.len(), String::new());
        put(out, format_args!("| {} |\n", cells.join(" | ")));
    }
}

fn figures(contestant: &Contestant, ours: &Contestant, with_bytes: bool) -> Vec<String> {
    let median = |of: fn(&Sample) -> f64| contestant.median(|s| Some(of(s)));
    let (from, to) = contestant.range(|s| s.run.wall).unwrap_or_default();
    let mut figures = vec![
        format!("{} ({from:.2}–{to:.2})", number(median(|s| s.run.wall), 2)),
        number(median(|s| s.run.cpu), 2),
        number(median(|s| s.run.server_cpu), 2),
        number(median(|s| of_memory(s) / MIB), 0),
        number(median(|s| s.run.others * 100.0), 0) + " %",
        number(ratio(ours, contestant, Measure::Wall), 2),
    ];
    if with_bytes {
        figures.push(number(contestant.median(|s| Measure::Bytes.of(s)).map(|b| b / MB), 1));
        figures.push(number(ratio(ours, contestant, Measure::Bytes), 3));
    }
    figures
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn of_memory(sample: &Sample) -> f64 {
    sample.run.memory as f64
}

fn phases(out: &mut String, contestants: &[Contestant]) {
    for contestant in contestants {
        let phases: Vec<String> = contestant
            .phases()
            .iter()
            .map(|phase| format!("{} {:.2} s", phase.name, phase.seconds))
            .collect();
        if !phases.is_empty() {
            put(out, format_args!("\nPhases of {}: {}.\n", contestant.name, phases.join(", ")));
        }
    }
    without_reading_back(out, contestants);
}

/// The phase of holdfast that reads rows back and compares them, which no other tool does.
const READING_BACK: &str = "reading back";

fn without_reading_back(out: &mut String, contestants: &[Contestant]) {
    let of = |sample: &Sample| {
        let phase = sample.phases.iter().find(|phase| phase.name == READING_BACK)?;
        Some(sample.run.wall - phase.seconds)
    };
    let Some(wall) = contestants[0].median(of) else { return };
    let ratios: Vec<String> = contestants[1..]
        .iter()
        .filter_map(|c| {
            Some(format!("{:.2} × {}", wall / c.median(|s| Measure::Wall.of(s))?, c.name))
        })
        .collect();
    let ratios = ratios.join(", ");
    put(out, format_args!("\nWithout {READING_BACK}: {wall:.2} s ({ratios}).\n"));
}

fn judge(out: &mut String, contestants: &[Contestant], goals: &[Goal]) {
    out.push_str("\n| goal | measured | |\n|---|---|---|\n");
    for goal in goals {
        let text = format!("{} ≤ {} × {}", goal.measure.name(), goal.limit, goal.peer);
        let peer = contestants.iter().find(|c| c.name.starts_with(goal.peer));
        let ratio = peer.and_then(|peer| ratio(&contestants[0], peer, goal.measure));
        let verdict = match (ratio, &goal.but) {
            (None, _) => "nothing to compare with",
            (Some(_), Some(but)) => but,
            (Some(ratio), None) => verdict(ratio <= goal.limit),
        };
        put(out, format_args!("| {text} | {} | {verdict} |\n", number(ratio, 3)));
    }
    if let Some((_, most)) = contestants[0].range(of_memory) {
        let most = most / MIB;
        put(
            out,
            format_args!(
                "| resident memory ≤ {MEMORY} MiB, always | {most:.0} MiB | {} |\n",
                verdict(most <= MEMORY)
            ),
        );
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}

fn ratio(ours: &Contestant, its: &Contestant, measure: Measure) -> Option<f64> {
    let its = its.median(|s| measure.of(s)).filter(|&value| value > 0.0)?;
    Some(ours.median(|s| measure.of(s))? / its)
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.digits$}"))
}

/// Text that does not end a cell of a table.
fn cell(text: &str) -> String {
    text.replace(['|', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Run;

    fn contestant(name: &str, wall: f64, bytes: u64) -> Contestant {
        let run = Run { wall, cpu: 1.0, server_cpu: 1.0, memory: 300 << 20, others: 0.0 };
        let sample = Sample { run, bytes: Some(bytes), phases: Vec::new() };
        Contestant { name: name.into(), tool: None, samples: vec![sample], out: None }
    }

    #[test]
    fn goals_are_judged_by_ratios_and_those_who_failed_are_named() {
        let mut crashed = contestant("mydumper 1.0", 9.0, 9);
        crashed.samples.clear();
        crashed.out = Some("failed: signal: 11 | (core dumped)".into());
        let all = [contestant("ours", 2.0, 80), contestant("mysqldump", 8.0, 100), crashed];
        let goal = |measure, peer, limit| Goal { measure, peer, limit, but: None };
        let goals = [
            goal(Measure::Wall, "mysqldump", 0.35),
            goal(Measure::Bytes, "mysqldump", 0.75),
            goal(Measure::Wall, "mydumper", 0.4),
        ];
        let report = write("a title", &["a note".into()], &all, &goals, Some("stored"));
        for line in [
            "- a note\n",
            "| wall ≤ 0.35 × mysqldump | 0.250 | met |",
            "| bytes ≤ 0.75 × mysqldump | 0.800 | **missed** |",
            "| wall ≤ 0.4 × mydumper | – | nothing to compare with |",
            "| mydumper 1.0 | failed: signal: 11   (core dumped) |  |  |  |  |  |  |  |",
            "| resident memory ≤ 256 MiB, always | 300 MiB | **missed** |",
        ] {
            assert!(report.contains(line), "{line}\n{report}");
        }
    }
}
