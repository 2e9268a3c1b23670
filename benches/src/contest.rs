//! Who takes part, and how often and how fast they ran.

use backup_core::{Error, Result};

use crate::measure::{Run, median};
use crate::tools::{Phase, Tool};

/// One run of a contestant.
pub(crate) struct Sample {
    /// What it took.
    pub(crate) run: Run,
    /// What it left, in bytes, where it left something.
    pub(crate) bytes: Option<u64>,
    /// How long its phases were, where it told them.
    pub(crate) phases: Vec<Phase>,
}

/// A tool that takes part, or would.
pub(crate) struct Contestant {
    /// What the report calls it.
    pub(crate) name: String,
    /// The tool, unless it could not be had.
    pub(crate) tool: Option<Tool>,
    /// Its runs.
    pub(crate) samples: Vec<Sample>,
    /// Why it does not take part, or no longer.
    pub(crate) out: Option<String>,
}

impl Contestant {
    /// One that can be had.
    pub(crate) fn new(name: String, tool: Tool) -> Self {
        Contestant { name, tool: Some(tool), samples: Vec::new(), out: None }
    }

    /// One that cannot be had.
    pub(crate) fn not_had(name: &str, why: &Error) -> Self {
        let out = Some(format!("not had: {}", why.chain()));
        Contestant { name: name.to_owned(), tool: None, samples: Vec::new(), out }
    }

    /// The tool, while it takes part.
    pub(crate) fn takes_part(&self) -> Option<&Tool> {
        self.tool.as_ref().filter(|_| self.out.is_none())
    }

    /// Takes the outcome of a run: a sample, or the end of its part. Ours must not fail.
    pub(crate) fn record(&mut self, outcome: Result<Sample, String>) -> Result<()> {
        match outcome {
            Ok(sample) => self.samples.push(sample),
            Err(how) if matches!(self.tool, Some(Tool::Holdfast(_))) => {
                return Err(Error::internal(format!("{} failed: {how}", self.name)));
            }
            Err(how) => {
                eprintln!("  {} failed: {how}", self.name);
                self.samples.clear();
                self.out = Some(format!("failed: {how}"));
            }
        }
        Ok(())
    }

    /// Forgets all but the `count` runs during which others used the machine least.
    pub(crate) fn keep_least_disturbed(&mut self, count: usize) {
        self.samples.sort_by(|a, b| a.run.others.total_cmp(&b.run.others));
        self.samples.truncate(count);
    }

    /// The median of some measure over its runs.
    pub(crate) fn median(&self, of: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.samples.iter().filter_map(of))
    }

    /// The smallest and the largest.
    pub(crate) fn range(&self, of: impl Fn(&Sample) -> f64) -> Option<(f64, f64)> {
        let values = || self.samples.iter().map(&of);
        Some((values().reduce(f64::min)?, values().reduce(f64::max)?))
    }

    /// The names of its phases and their median lengths.
    pub(crate) fn phases(&self) -> Vec<Phase> {
        let Some(first) = self.samples.first() else { return Vec::new() };
        let lengths = |name: &str| {
            let of = |phase: &&Phase| phase.name == name;
            self.median(|s| Some(s.phases.iter().filter(of).map(|p| p.seconds).sum()))
        };
        let mut phases: Vec<Phase> = Vec::new();
        for Phase { name, .. } in &first.phases {
            if phases.iter().all(|phase| &phase.name != name) {
                phases.push(Phase { name: name.clone(), seconds: lengths(name).unwrap_or(0.0) });
            }
        }
        phases
    }
}
