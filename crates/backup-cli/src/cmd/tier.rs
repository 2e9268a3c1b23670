//! `holdfast tier`

use backup_core::{Error, ErrorKind, Result};
use backup_storage::{
    Policy, RepositoryOptions, TierName, TierPlan, TierReport, TierSpec, forget_tier, holder,
    move_packs, plan_moves, policy, preview, set_policy,
};
use jiff::SignedDuration;
use serde_json::json;

use crate::answer::Answer;
use crate::app::App;
use crate::human;

/// Move packs to cheaper stores as they age
#[derive(clap::Args)]
pub(crate) struct Tier {
    /// The store of the warm tier; with this the policy of the repository is set
    #[arg(long, value_name = "URL")]
    warm: Option<String>,
    /// How old the youngest backup that needs a pack is when the pack becomes warm, such as 30d
    #[arg(long, value_name = "AGE", value_parser = human::parse_age)]
    warm_after: Option<SignedDuration>,
    /// The store of the cold tier
    #[arg(long, value_name = "URL")]
    cold: Option<String>,
    /// How old it is when the pack becomes cold
    #[arg(long, value_name = "AGE", value_parser = human::parse_age)]
    cold_after: Option<SignedDuration>,
    /// Leave out a tier that is lost for good, warm or cold, with the packs that it held
    #[arg(long, value_name = "TIER", value_parser = tier_name,
          conflicts_with_all = ["warm", "warm_after", "cold", "cold_after", "dry_run"])]
    forget: Option<TierName>,
    /// Say what would move, and move nothing
    #[arg(long)]
    dry_run: bool,
}

impl Tier {
    /// Moves, or plans to.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        let cx = &app.cx;
        let repo = app.repo(RepositoryOptions::default()).await?;
        if let Some(name) = self.forget {
            return forgotten(name, &cx.run(forget_tier(cx, &repo, name)).await?);
        }
        let stored = cx.run(policy(&repo)).await?;
        let specs = self.specs(&stored)?;
        if stored.tiers.is_empty() && specs.is_none() {
            return Err(Error::usage("this repository has no tiers")
                .with_remedy("name one with --warm URL --warm-after AGE"));
        }
        if self.dry_run {
            let repo = match &specs {
                Some(specs) => cx.run(preview(&repo, specs)).await?,
                None => repo,
            };
            return planned(&cx.run(plan_moves(cx, &repo)).await?);
        }
        if let Some(specs) = specs {
            cx.run(set_policy(cx, &repo, &specs)).await?;
        }
        let (plan, report) = cx.run(move_packs(cx, &repo, &holder("tier"))).await?;
        moved(&plan, &report)
    }

    /// What the flags and the stored policy say together; `None` when no flag was given.
    fn specs(&self, stored: &Policy) -> Result<Option<Vec<TierSpec>>> {
        let flags = [
            (TierName::Warm, &self.warm, self.warm_after),
            (TierName::Cold, &self.cold, self.cold_after),
        ];
        if flags.iter().all(|(_, url, after)| url.is_none() && after.is_none()) {
            return Ok(None);
        }
        let mut specs = Vec::new();
        for (name, url, after) in flags {
            let known = stored.tiers.iter().find(|tier| tier.name == name);
            let url = match (url, known) {
                (Some(url), _) => Some(url.parse()?),
                (None, Some(known)) => Some(known.url.parse()?),
                (None, None) => None,
            };
            match (url, after.or(known.map(|tier| tier.after))) {
                (Some(url), Some(after)) => specs.push(TierSpec { name, url, after }),
                (None, None) => {}
                (Some(_), None) => {
                    return Err(Error::usage(format!("--{name} needs --{name}-after")));
                }
                (None, Some(_)) => {
                    return Err(Error::usage(format!("--{name}-after needs --{name}")));
                }
            }
        }
        Ok(Some(specs))
    }
}

/// `--forget`
fn tier_name(text: &str) -> Result<TierName, String> {
    let names = [TierName::Warm, TierName::Cold];
    let found = names.into_iter().find(|name| name.to_string() == text);
    found.ok_or_else(|| "write warm or cold".to_owned())
}

fn forgotten(name: TierName, policy: &Policy) -> Result<Answer> {
    let left: Vec<_> = policy.tiers.iter().map(|tier| tier.name).collect();
    let text = format!(
        "The {name} tier is forgotten. `holdfast verify --all --level objects` says which backups \
         miss packs that it held.\n"
    );
    Answer::new(&json!({ "forgotten": name, "tiers": left }), text)
}

fn held(plan: &TierPlan) -> serde_json::Value {
    let tiers = plan.names.iter().zip(&plan.held);
    tiers
        .map(|(name, (packs, bytes))| json!({"tier": name, "packs": packs, "bytes": bytes}))
        .collect()
}

fn planned(plan: &TierPlan) -> Result<Answer> {
    let moves: Vec<_> = plan
        .moves
        .iter()
        .map(|m| {
            json!({
                "object": m.key.to_string(), "bytes": m.pack.bytes,
                "from": plan.names[m.from], "to": plan.names[m.to],
            })
        })
        .collect();
    let document = json!({
        "dry_run": true, "tiers": held(plan), "moves": moves, "unreadable": plan.unreadable,
    });
    let mut text = String::new();
    for m in &plan.moves {
        let (from, to) = (&plan.names[m.from], &plan.names[m.to]);
        text.push_str(&format!("  {}  {from} to {to}, {}\n", m.key, human::bytes(m.pack.bytes)));
    }
    text.push_str(&format!(
        "{} packs would move, {}.{}\nNothing was done.\n",
        human::count(plan.moves.len() as u64),
        human::bytes(plan.bytes()),
        blocked(plan)
    ));
    Answer::new(&document, human::plain(&text))
}

fn moved(plan: &TierPlan, report: &TierReport) -> Result<Answer> {
    let problems: Vec<_> = report
        .problems
        .iter()
        .map(|(key, problem)| json!({ "object": key.to_string(), "problem": problem }))
        .collect();
    let document = json!({
        "dry_run": false, "packs": report.packs, "bytes": report.bytes, "problems": problems,
        "unreadable": plan.unreadable,
    });
    let mut text = format!(
        "{} packs moved and verified, {}.{}\n",
        human::count(report.packs),
        human::bytes(report.bytes),
        blocked(plan)
    );
    for (key, problem) in &report.problems {
        text.push_str(&format!("  {key} stays: {problem}\n"));
    }
    let ending = match (report.problems.is_empty(), plan.unreadable.is_empty()) {
        (false, _) => Some(ErrorKind::Damaged),
        (true, false) => Some(ErrorKind::Warnings),
        (true, true) => None,
    };
    Ok(Answer::new(&document, human::plain(&text))?.summary().ending(ending))
}

fn blocked(plan: &TierPlan) -> String {
    match plan.unreadable.as_slice() {
        [] => String::new(),
        ids => {
            let ids: Vec<&str> = ids.iter().map(backup_core::BackupId::as_str).collect();
            format!(
                " Clusters with manifests that cannot be read stay as they are: {}.",
                ids.join(", ")
            )
        }
    }
}
