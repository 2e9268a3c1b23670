//! The point that a restore goes to, and the way there through archived binlogs.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use backup_core::{
    BinlogChain, BinlogServer, ClusterName, Context, Error, ErrorKind, Event, Flavor, Gtid,
    GtidSet, Manifest, Position, ReplayBase, ReplayTarget, Result, SegmentStore, Unreachable,
};
use backup_drivers::binlog::replay::{
    Applied, ApplyOptions, Means, apply, check_family, identity, position, preflight,
};
use backup_drivers::binlog::{Route, Skipping, SoundChain, Transaction};
use backup_drivers::connect::ConnectOptions;
use backup_storage::Repo;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::binlog::transaction;
use super::time::time;

/// Where to, and around what.
#[derive(clap::Args)]
#[command(next_help_heading = "Point in time, from archived binlogs")]
pub(crate) struct Point {
    /// Everything that was committed before this time, with its zone: 2026-11-20T10:15:30Z or
    /// 2026-11-20T11:15:30[Europe/Berlin]
    #[arg(long, value_name = "TIME", value_parser = time, group = "point")]
    to_time: Option<Timestamp>,
    /// Up to this transaction and with it
    #[arg(long, value_name = "GTID", group = "point")]
    to_gtid: Option<Gtid>,
    /// Up to this transaction and without it
    #[arg(long, value_name = "GTID", group = "point")]
    before_gtid: Option<Gtid>,
    /// Up to this place in a binlog: of the server that the backup was read from, or of the one that is named as
    /// `holdfast binlog list` has it
    #[arg(long, value_name = "[SERVER/]FILE:POS", group = "point")]
    to_position: Option<Place>,
    /// Everything that is archived; refused where the archive has a hole on the way there
    #[arg(long, group = "point")]
    to_latest: bool,
    /// Everything that can be reached: up to the hole, where the archive has one
    #[arg(long, group = "point")]
    to_last_reachable: bool,
    /// Without these transactions; the target has their GTIDs all the same, so that no replica
    /// brings them back
    #[arg(long, value_name = "GTID,…", value_delimiter = ',')]
    skip_gtid: Vec<Gtid>,
    /// Apply binlogs also to a server that seems to have executed them, or that cannot tell: you know
    /// that its data are those of before (a MySQL server skips what is in its gtid_executed)
    #[arg(long)]
    apply_again: bool,
    /// How the target applies them: as a replica of this machine, `direct`ly over a client connection
    /// (slower, for targets that cannot connect back or lack replication privileges), or as a replica
    /// where that goes
    #[arg(long, value_name = "HOW", value_enum, default_value = "auto")]
    apply: Apply,
    /// The address of this machine that the target can connect to [default: the one that this machine
    /// connects to it from]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<IpAddr>,
}

/// `--to-position`
#[derive(Debug, Clone)]
struct Place {
    /// Whose file it is.
    server: Option<BinlogServer>,
    file: String,
    offset: u64,
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (server, place) = match text.split_once('/') {
            Some((server, place)) => (Some(server.parse()?), place),
            None => (None, text),
        };
        match place.parse()? {
            Position { file: Some(file), offset: Some(offset), .. } => {
                Ok(Place { server, file, offset })
            }
            _ => Err(Error::usage(format!("\"{place}\" is no binlog position"))),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(server) = &self.server {
            write!(f, "{server}/")?;
        }
        write!(f, "{}:{}", self.file, self.offset)
    }
}

/// `--apply`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Apply {
    Auto,
    Replica,
    Direct,
}

/// What to do where the end of an archive cannot be reached.
const OVER_A_HOLE: &str = "put the missing piece back from a copy of the repository (`holdfast copy`); or \
                           stop before the hole: --to-last-reachable, or --to-position and the place that \
                           is named";

/// What to do where there is no archive.
const ARCHIVE: &str = "archive binlogs with `holdfast binlog backup` or `holdfast binlog stream`; without a \
                       point the backup is restored as it is";

/// The way to a point.
pub(crate) struct Way {
    pub(crate) route: Arc<Route>,
    options: ApplyOptions,
}

impl Point {
    /// The point that is asked for; `None` where it is the backup as it is.
    pub(super) fn target(&self) -> Option<ReplayTarget> {
        let gtid = |gtid: &Gtid| gtid.clone();
        if let Some(time) = self.to_time {
            return Some(ReplayTarget::Time(time));
        }
        if let Some(target) = &self.to_gtid {
            return Some(ReplayTarget::Gtid(gtid(target)));
        }
        if let Some(target) = &self.before_gtid {
            return Some(ReplayTarget::BeforeGtid(gtid(target)));
        }
        if let Some(Place { server, file, offset }) = self.to_position.clone() {
            return Some(ReplayTarget::Position { server, file, offset });
        }
        if self.to_last_reachable {
            return Some(ReplayTarget::Reachable);
        }
        (self.to_latest || !self.skip_gtid.is_empty()).then_some(ReplayTarget::End)
    }

    /// The point in flags, as `binlog apply` takes it, each after a space. A place without a server is of `server`:
    /// what it is applied to does not tell.
    pub(super) fn flags(&self, server: Option<&BinlogServer>) -> String {
        let mut text = String::new();
        let mut add = |flag: &str, value: Option<String>| {
            if let Some(value) = value {
                text.push_str(&format!(" --{flag} {value}"));
            }
        };
        add("to-time", self.to_time.map(|time| time.to_string()));
        add("to-gtid", self.to_gtid.as_ref().map(ToString::to_string));
        add("before-gtid", self.before_gtid.as_ref().map(ToString::to_string));
        let of_server = |place: &Place| {
            let server = place.server.clone().or_else(|| server.cloned());
            Place { server, ..place.clone() }.to_string()
        };
        add("to-position", self.to_position.as_ref().map(of_server));
        let skip: Vec<String> = self.skip_gtid.iter().map(ToString::to_string).collect();
        add("skip-gtid", (!skip.is_empty()).then(|| skip.join(",")));
        if self.to_latest {
            text.push_str(" --to-latest");
        }
        if self.to_last_reachable {
            text.push_str(" --to-last-reachable");
        }
        text
    }

    /// The newest of `manifests` (oldest first) from which there is a way to the point, and the way.
    pub(super) async fn choose(
        &self,
        cx: &Context,
        repo: &Repo,
        cluster: &ClusterName,
        manifests: Vec<Manifest>,
        target: &ReplayTarget,
    ) -> Result<(Manifest, Way)> {
        let mut chain = self.chain(cx, repo, cluster, target).await?;
        if manifests.is_empty() {
            let problem =
                format!("there is no backup of cluster {cluster} that binlogs could be applied to");
            return Err(Error::new(ErrorKind::Unreachable, problem).with_remedy(
                "take one of everything with `holdfast backup`: a logical one goes into a server (--target), one \
                 of data files into a directory (--target-dir)",
            ));
        }
        let mut problem = None;
        let mut mixed = None;
        for manifest in manifests.into_iter().rev() {
            if let ReplayTarget::Time(time) = target
                && manifest.finished_at > *time
            {
                continue;
            }
            let base = ReplayBase::of(&manifest);
            match self.route(cx, repo, &mut chain, &base, target).await {
                // By one history, if an older one leads there so.
                Ok((route, Some(text))) => drop(mixed.get_or_insert((manifest, route, text))),
                Ok((route, None)) => return Ok((manifest, self.way(cx, &chain, route))),
                Err(e) if e.kind() == ErrorKind::Unreachable => {
                    let e = e.context(format!("from backup {}", manifest.backup));
                    // Of backups behind the point the oldest is nearest to it.
                    problem = problem.filter(|problem| !is_passed(problem)).or(Some(e));
                }
                Err(e) => return Err(e),
            }
        }
        if let Some((manifest, mut route, text)) = mixed {
            route.warnings.push(text);
            return Ok((manifest, self.way(cx, &chain, route)));
        }
        Err(problem.unwrap_or_else(|| {
            Error::new(ErrorKind::Unreachable, format!("no full backup is older than {target}"))
                .with_remedy("`holdfast list` shows when backups were taken")
        }))
    }

    /// The archive. Whoever asks for its end has to have one.
    async fn chain(
        &self,
        cx: &Context,
        repo: &Repo,
        cluster: &ClusterName,
        target: &ReplayTarget,
    ) -> Result<SoundChain> {
        let chain = chain(cx, repo, cluster, target).await?;
        if chain.chain().is_empty() && (*target == ReplayTarget::End || self.to_last_reachable) {
            let problem = format!("nothing is archived of the binlogs of cluster {cluster}");
            return Err(Error::new(ErrorKind::Unreachable, problem).with_remedy(ARCHIVE));
        }
        Ok(chain)
    }

    /// The way from where `server` stands.
    pub(super) async fn way_on(
        &self,
        cx: &Context,
        repo: &Repo,
        cluster: &ClusterName,
        server: &ConnectOptions,
        target: &ReplayTarget,
    ) -> Result<Way> {
        let mut sound = self.chain(cx, repo, cluster, target).await?;
        let chain = sound.chain();
        if let Some(segment) = chain.segments().next() {
            cx.run(check_family(server, segment.flavor)).await?;
        }
        let here = cx.run(position(server)).await?;
        let begins = here.is_empty();
        let behind = matches!(target, ReplayTarget::Time(time) if chain.is_behind(&here, *time));
        let own = cx.run(identity(server)).await?;
        // What is all its own says nothing of where it stands; whether it may begin at the beginning is asked later.
        let alone = match (&here, &own) {
            (GtidSet::MySql(here), Some(own)) => here.tsids().all(|tsid| own.counts(tsid)),
            _ => false,
        };
        let here = if alone { GtidSet::empty(Flavor::MySql) } else { here };
        let position = Position { gtid: Some(here), ..Position::default() };
        let base = ReplayBase { server: own, position };
        if behind {
            return Err(Unreachable::passed(target, &base.position).into());
        }
        let (mut route, mixed) = self.route(cx, repo, &mut sound, &base, target).await?;
        // Of a backup it is known when it was taken; of a server, what it has.
        if let Some(gtid) = &route.passed {
            return Err(Unreachable::passed(target, gtid).into());
        }
        if let (true, ReplayTarget::Time(time), None, Some(first)) =
            (begins, target, &route.last, &route.first_left_out)
        {
            return Err(before_everything(*time, first));
        }
        route.warnings.extend(mixed);
        Ok(self.way(cx, &sound, route))
    }

    /// The way that is taken, with its warnings told.
    fn way(&self, cx: &Context, sound: &SoundChain, mut route: Route) -> Way {
        for text in &route.warnings {
            cx.event(Event::Warning { text: text.clone() });
        }
        // Those of the archive were told when they were met.
        route.warnings.extend_from_slice(sound.warnings());
        let means = match self.apply {
            Apply::Auto => Means::Auto,
            Apply::Replica => Means::Replica,
            Apply::Direct => Means::Direct,
        };
        let (again, listen) = (self.apply_again, self.listen);
        let options = ApplyOptions { again, means, listen, ..ApplyOptions::default() };
        Way { route: Arc::new(route), options }
    }

    /// A way, and why what it leads to may be of no server's history.
    async fn route(
        &self,
        cx: &Context,
        repo: &Repo,
        sound: &mut SoundChain,
        base: &ReplayBase,
        target: &ReplayTarget,
    ) -> Result<(Route, Option<String>)> {
        let planned = sound.plan(cx, repo, base, target).await;
        let chain = sound.chain();
        let plan = planned.map_err(|error| {
            // Where something is archived behind a hole.
            match (error.kind(), target) {
                (ErrorKind::Unreachable, _) if chain.is_empty() => error.with_remedy(ARCHIVE),
                (ErrorKind::Unreachable, ReplayTarget::End) => error.with_remedy(OVER_A_HOLE),
                _ => error,
            }
        })?;
        let skip: BTreeSet<Gtid> = self.skip_gtid.iter().cloned().collect();
        let mut route =
            Route::resolve(cx, repo, chain, &plan, target, skip, Skipping::Emptied).await?;
        if *target == ReplayTarget::Reachable
            && let Err(hole) = chain.plan(base, &ReplayTarget::End)
        {
            route.warnings.push(hole.to_string());
        }
        if matches!(target, ReplayTarget::End | ReplayTarget::Reachable) {
            route.warnings.extend(chain.left_out(base, &plan));
            route.warnings.extend(chain.unreached(std::slice::from_ref(base)));
        }
        if let ReplayTarget::Time(time) = target {
            route.warnings.extend(chain.left_out_before(&plan, *time));
        }
        let mixed = chain.mixed(base, &plan);
        Ok((route, mixed))
    }
}

/// A server that has nothing is at no time before the first transaction that is archived.
fn before_everything(time: Timestamp, first: &Transaction) -> Error {
    let name = first.gtid.as_ref().map(|gtid| format!("{gtid}, ")).unwrap_or_default();
    Error::new(
        ErrorKind::Unreachable,
        format!(
            "time {time} is before everything that is archived: the first transaction is {name}{}, and the \
             target has none",
            first.time
        ),
    )
    .with_remedy("begin with a backup that is older than that (`holdfast restore --to-time`), or choose a later time")
}

/// Whether a point cannot be reached because the backup goes further.
fn is_passed(e: &Error) -> bool {
    let mut cause = e.source();
    while let Some(e) = cause {
        if let Some(unreachable) = e.downcast_ref::<Unreachable>() {
            return unreachable.passed;
        }
        cause = e.source();
    }
    false
}

/// The archive, as far as it can be read. Of what cannot, only that at the end leaves no hole by which it
/// would be missed on the way to the end.
async fn chain(
    cx: &Context,
    repo: &Repo,
    cluster: &ClusterName,
    target: &ReplayTarget,
) -> Result<SoundChain> {
    let mut segments = Vec::new();
    let mut left_out = Vec::new();
    let mut listed = cx.run(repo.segments(cx, cluster)).await?.into_iter().peekable();
    while let Some(segment) = listed.next() {
        let name = format!("segment {}/{}", segment.server, segment.seq);
        let is_last = listed.peek().is_none_or(|next| next.server != segment.server);
        match segment.info {
            Ok(info) => segments.push(info),
            Err(e) if is_last && *target == ReplayTarget::End => {
                return Err(e
                    .context(format!("{name}, the last of its server, cannot be read"))
                    .with_remedy(OVER_A_HOLE));
            }
            Err(e) => left_out.push(format!("{name} is left out: {}", e.chain())),
        }
    }
    let mut chain = SoundChain::new(BinlogChain::new(segments));
    for text in left_out {
        chain.warn(cx, text);
    }
    Ok(chain)
}

impl Way {
    fn options(&self, tell_applied: bool) -> ApplyOptions {
        ApplyOptions { tell_applied, ..self.options.clone() }
    }

    /// Whether the target would take it.
    pub(super) async fn preflight(
        &self,
        cx: &Context,
        repo: &Repo,
        target: &ConnectOptions,
        tell_applied: bool,
    ) -> Result<()> {
        let store = Arc::new(repo.clone());
        preflight(cx, target, store, &self.route, &self.options(tell_applied)).await
    }

    /// Goes it.
    pub(super) async fn apply(
        &self,
        cx: &Context,
        repo: &Repo,
        target: &ConnectOptions,
        tell_applied: bool,
    ) -> Result<Applied> {
        cx.phase("binlogs");
        let options = self.options(tell_applied);
        apply(cx, target, Arc::new(repo.clone()), Arc::clone(&self.route), &options).await
    }

    /// How a command ends that goes it, or only says what it would do.
    pub(super) fn ending(&self) -> Option<ErrorKind> {
        (!self.route.warnings.is_empty()).then_some(ErrorKind::Warnings)
    }

    /// What is applied last, and what is not.
    pub(super) fn as_json(&self) -> Value {
        json!({
            "last_applied": self.route.last,
            "first_left_out": self.route.first_left_out,
            "skipped": self.route.skip,
            "warnings": self.route.warnings,
        })
    }

    pub(super) fn steps(&self) -> String {
        let route = &self.route;
        let mut text = match &route.last {
            Some(last) => {
                format!("Then from archived binlogs:\nLast applied:   {}", transaction(last))
            }
            None => {
                "Nothing of the archived binlogs is applied: it stands at that point.\n".to_owned()
            }
        };
        if let Some(first) = &route.first_left_out {
            text.push_str(&format!("First left out: {}", transaction(first)));
        }
        for gtid in &route.skip {
            text.push_str(&format!("Skipped:        {gtid}\n"));
        }
        text
    }

    /// The point where the target stands then.
    pub(super) fn reached(&self, base: &Position) -> Value {
        let last = self.route.last.as_ref();
        json!({
            "time": last.map(|last| last.time),
            "gtid": self.route.reached.as_ref().or(base.gtid.as_ref()),
            "file": last.map(|last| last.file.as_str()).or(base.file.as_deref()),
            "offset": last.map(|last| last.end).or(base.offset),
        })
    }
}
