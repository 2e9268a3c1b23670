//! Plans over random histories: primaries, replicas, failovers, rotation, lost pieces.

#![allow(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

use std::collections::BTreeSet;

use backup_core::{
    BinlogChain, BinlogRange, BinlogServer, Flavor, Gtid, GtidSet, MariaDbBinlogState, MariaDbGtid,
    MySqlGtid, Position, ReplayBase, ReplayTarget, SegmentInfo, Uuid,
};
use jiff::Timestamp;
use proptest::prelude::*;

/// The name of transaction `n` (from 1), which `primary` committed first.
fn gtid(flavor: Flavor, primary: usize, n: u64) -> Gtid {
    match flavor {
        // One counter for each primary would be right too; what counts is that names differ.
        Flavor::MySql => MySqlGtid::new(Uuid::from_u128(primary as u128 + 1), n).unwrap().into(),
        Flavor::MariaDb => MariaDbGtid { domain: 0, server: primary as u32 + 1, seq: n }.into(),
    }
}

/// What a server has in its binlogs, in order: numbers of transactions and who committed them.
#[derive(Debug, Clone, Default)]
struct Log(Vec<(usize, u64)>);

#[derive(Debug, Clone)]
struct World {
    flavor: Flavor,
    /// What survived, in order.
    history: Vec<(usize, u64)>,
    segments: Vec<SegmentInfo>,
    /// What each segment holds.
    contents: Vec<Vec<(usize, u64)>>,
}

fn set(flavor: Flavor, transactions: &[(usize, u64)]) -> GtidSet {
    let mut set = GtidSet::empty(flavor);
    for &(primary, n) in transactions {
        set.insert(&gtid(flavor, primary, n)).unwrap();
    }
    set
}

fn state(flavor: Flavor, transactions: &[(usize, u64)]) -> Option<MariaDbBinlogState> {
    let mut state = MariaDbBinlogState::default();
    for &(primary, seq) in transactions {
        state.update(MariaDbGtid { domain: 0, server: primary as u32 + 1, seq });
    }
    (flavor == Flavor::MariaDb).then_some(state)
}

fn at(n: u64) -> Timestamp {
    Timestamp::from_second(1_000_000 + n as i64 * 10).unwrap()
}

/// Cuts the log of a server into segments and files, and keeps those that are archived.
fn archive(
    world: &mut World,
    server: usize,
    log: &Log,
    begin: usize,
    cuts: &[(usize, bool)],
    lost: &BTreeSet<usize>,
) {
    let mut from = begin;
    let (mut file, mut offset, mut seq) = (1, 0_u64, 0);
    for &(len, rotates) in cuts {
        let to = (from + len).min(log.0.len());
        let here = &log.0[from..to];
        let end = offset + 100 + here.len() as u64 * 10;
        seq += 1;
        if !lost.contains(&(seq as usize)) {
            let times = here.iter().map(|(_, n)| at(*n));
            world.segments.push(SegmentInfo {
                cluster: "c".parse().unwrap(),
                server: match world.flavor {
                    Flavor::MySql => BinlogServer::of_uuid(Uuid::from_u128(server as u128 + 1)),
                    Flavor::MariaDb => BinlogServer::of_id(server as u32 + 1),
                },
                seq,
                flavor: world.flavor,
                version: String::new(),
                range: BinlogRange {
                    file: format!("binlog.{file:06}"),
                    file_started: file,
                    start: offset,
                    end,
                },
                format_description: String::new(),
                before: set(world.flavor, &log.0[..from]),
                after: set(world.flavor, &log.0[..to]),
                state_before: state(world.flavor, &log.0[..from]),
                state_after: state(world.flavor, &log.0[..to]),
                begins_inside: false,
                ends_inside: false,
                transactions: here.len() as u64,
                anonymous: 0,
                first_time: times.clone().min(),
                last_time: times.max(),
                closes_file: rotates,
                next_file: rotates.then(|| format!("binlog.{:06}", file + 1)),
                gap_before: None,
                sha256: String::new(),
                archived_at: at(1_000 + from as u64),
            });
            world.contents.push(here.to_vec());
        }
        (file, offset) = if rotates { (file + 1, 0) } else { (file, end) };
        from = to;
        if from == log.0.len() {
            break;
        }
    }
}

/// A cluster: two primaries, one after the other, and a replica of both; the first may have committed
/// something that nobody got.
#[derive(Debug, Clone)]
struct Script {
    mariadb: bool,
    first: u64,
    errant: u64,
    second: u64,
    cuts: Vec<Vec<(usize, bool)>>,
    begins: Vec<usize>,
    lost: Vec<BTreeSet<usize>>,
    archived: Vec<bool>,
}

fn script() -> impl Strategy<Value = Script> {
    let cuts = proptest::collection::vec((0_usize..6, any::<bool>()), 1..12);
    let lost = proptest::collection::btree_set(1_usize..8, 0..2);
    (
        any::<bool>(),
        1_u64..20,
        0_u64..4,
        0_u64..20,
        proptest::collection::vec(cuts, 3),
        proptest::collection::vec(0_usize..8, 3),
        proptest::collection::vec(lost, 3),
        proptest::collection::vec(any::<bool>(), 3),
    )
        .prop_map(|(mariadb, first, errant, second, cuts, begins, lost, archived)| Script {
            mariadb,
            first,
            errant,
            second,
            cuts,
            begins,
            lost,
            archived,
        })
}

fn world(script: &Script) -> World {
    let flavor = if script.mariadb { Flavor::MariaDb } else { Flavor::MySql };
    let mut history: Vec<(usize, u64)> = (1..=script.first).map(|n| (0, n)).collect();
    let mut old = Log(history.clone());
    old.0.extend((1..=script.errant).map(|n| (0, script.first + n)));
    history.extend((1..=script.second).map(|n| (1, script.first + n)));
    let new = Log(history.clone());
    let mut world = World { flavor, history, segments: Vec::new(), contents: Vec::new() };
    for (server, log) in [(0, &old), (1, &new), (2, &new)] {
        if script.archived[server] {
            let begin = script.begins[server].min(log.0.len());
            let (cuts, lost) = (&script.cuts[server], &script.lost[server]);
            archive(&mut world, server, log, begin, cuts, lost);
        }
    }
    world
}

impl World {
    fn base(&self, n: usize) -> ReplayBase {
        let gtid = Some(set(self.flavor, &self.history[..n.min(self.history.len())]));
        ReplayBase { server: None, position: Position { gtid, ..Position::default() } }
    }

    fn content(&self, segment: &SegmentInfo) -> &[(usize, u64)] {
        let at = self.segments.iter().position(|s| s == segment).unwrap();
        &self.contents[at]
    }

    /// What a target has after a plan, up to a transaction and with it. Panics when something is
    /// applied before what it builds on.
    fn replay(
        &self,
        base: usize,
        plan: &backup_core::ReplayPlan,
        until: Option<(usize, u64)>,
    ) -> Vec<(usize, u64)> {
        let applied = plan.applied.clone().unwrap();
        let mut done = self.history[..base.min(self.history.len())].to_vec();
        for stretch in &plan.stretches {
            for pair in stretch.segments.windows(2) {
                assert!(pair[0].after == pair[1].before);
            }
            for segment in &stretch.segments {
                for &(primary, n) in self.content(segment) {
                    let gtid = gtid(self.flavor, primary, n);
                    let only = stretch.only.as_ref();
                    if applied.contains(&gtid).unwrap()
                        || only.is_some_and(|only| !only.contains(&gtid))
                        || done.contains(&(primary, n))
                    {
                        continue;
                    }
                    assert_eq!(done.len() as u64 + 1, n, "{primary}:{n} comes out of turn");
                    done.push((primary, n));
                    if until == Some((primary, n)) {
                        return done;
                    }
                }
            }
        }
        done
    }

    /// What a target has after a plan, in whatever order.
    fn gathered(&self, base: usize, plan: &backup_core::ReplayPlan) -> BTreeSet<(usize, u64)> {
        let mut done: BTreeSet<_> = self.history[..base].iter().copied().collect();
        for stretch in &plan.stretches {
            let wanted = |&(primary, n): &(usize, u64)| {
                let gtid = gtid(self.flavor, primary, n);
                stretch.only.as_ref().is_none_or(|only| only.contains(&gtid))
            };
            let content = stretch.segments.iter().flat_map(|segment| self.content(segment));
            done.extend(content.copied().filter(wanted));
        }
        done
    }

    /// Whether there is any way at all to a transaction of the history: segments are applied whenever
    /// everything before them is there, of each only what belongs to the history.
    fn can_reach(&self, base: usize, wanted: u64) -> bool {
        let mut have = base as u64;
        loop {
            let before = have;
            for (segment, content) in self.segments.iter().zip(&self.contents) {
                let known = &self.history[..have as usize];
                let joins = segment.before.is_subset(&set(self.flavor, known)).unwrap()
                    && state(self.flavor, known).is_none_or(|known| {
                        segment.state_before.as_ref().unwrap().missing_in(&known).next().is_none()
                    });
                if joins {
                    for &(primary, n) in content {
                        if n == have + 1 && self.history.get(n as usize - 1) == Some(&(primary, n))
                        {
                            have = n;
                        }
                    }
                }
            }
            if have >= wanted {
                return true;
            }
            if have == before {
                return false;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_is_right_or_there_is_none(script in script(), base in 0_usize..30, wanted in 1_u64..40) {
        let world = world(&script);
        let base = base.min(world.history.len());
        let chain = BinlogChain::new(world.segments.clone());
        let Some(&(primary, n)) = world.history.get(wanted as usize - 1) else { return Ok(()) };
        let target = ReplayTarget::Gtid(gtid(world.flavor, primary, n));
        match chain.plan(&world.base(base), &target) {
            // The base is that point, or goes further within the segment, which its events tell.
            Ok(plan) if n <= base as u64 => {
                let last = plan.stretches.last().and_then(|stretch| stretch.segments.last());
                let known = world.base(base).position.gtid.unwrap();
                let within = |last: &SegmentInfo| {
                    let holds = last.holds(&gtid(world.flavor, primary, n));
                    holds && world.history[n as usize..base].iter().all(|t| {
                        let gtid = gtid(world.flavor, t.0, t.1);
                        // A primary of which nothing is archived is not known.
                        last.holds(&gtid) || world.segments.iter().all(|s| !s.holds(&gtid))
                    })
                };
                prop_assert!(last.map_or(n == base as u64, within), "{} of {}", n, known);
            }
            Ok(plan) => {
                let done = world.replay(base, &plan, Some((primary, n)));
                prop_assert_eq!(&done[..], &world.history[..n as usize]);
                // Nothing that it could do without: the last segment holds the point.
                let last = plan.stretches.last().unwrap().segments.last().unwrap();
                prop_assert!(last.holds(&gtid(world.flavor, primary, n)));
                let first = &plan.stretches[0].segments;
                if first.len() > 1 {
                    let known = world.base(base).position.gtid.unwrap();
                    prop_assert!(!first[1].before.is_subset(&known).unwrap());
                }
            }
            Err(e) => {
                let told = e.to_string();
                prop_assert!(n <= base as u64 || !world.can_reach(base, n), "{}", told);
                prop_assert!(told.len() > 20);
            }
        }
    }

    #[test]
    fn a_base_behind_the_point_is_none(
        script in script(),
        segment in any::<prop::sample::Index>(),
        upto in 0_usize..6,
    ) {
        let world = world(&script);
        prop_assume!(!world.segments.is_empty());
        let at = segment.index(world.segments.len());
        let (segment, content) = (&world.segments[at], &world.contents[at]);
        let upto = upto.min(content.len());
        let mut point = segment.before.clone();
        for &(primary, n) in &content[..upto] {
            point.insert(&gtid(world.flavor, primary, n)).unwrap();
        }
        let target = ReplayTarget::Position {
            server: Some(segment.server.clone()),
            file: segment.range.file.clone(),
            offset: segment.range.start + 100 + upto as u64 * 10,
        };
        let chain = BinlogChain::new(world.segments.clone());
        // Whether an archived binlog knows who counted it.
        let known = |t: &&(usize, u64)| world.segments.iter().any(|s| match world.flavor {
            Flavor::MySql => {
                (1..50).any(|n| s.after.contains(&gtid(world.flavor, t.0, n)).unwrap())
            }
            Flavor::MariaDb => !s.after.is_empty(),
        });
        for n in (0..=world.history.len()).rev() {
            let has = &world.history[..n];
            let more = has.iter().filter(known).any(|t| {
                !point.contains(&gtid(world.flavor, t.0, t.1)).unwrap()
            });
            match chain.plan(&world.base(n), &target) {
                // What lies within the segment, its events tell.
                Ok(_) => prop_assert!(!more || has.iter().any(|t| content[upto..].contains(t))),
                Err(e) => prop_assert!(more || !e.passed, "{} transactions: {}", n, e),
            }
        }
    }

    #[test]
    fn places_order_bases_where_there_are_no_gtids(
        script in script(),
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        (begin, end) in (1_u64..100, 1_u64..100),
    ) {
        let script = Script { mariadb: false, archived: vec![true, false, false], ..script };
        let mut world = world(&script);
        prop_assume!(world.contents.iter().any(|content| !content.is_empty()));
        for segment in &mut world.segments {
            (segment.before, segment.after) = (GtidSet::empty(Flavor::MySql), GtidSet::empty(Flavor::MySql));
            segment.anonymous = segment.transactions;
        }
        let (from, to) = (from.get(&world.segments), to.get(&world.segments));
        let base = ReplayBase {
            server: Some(from.server.clone()),
            position: Position::at(from.range.file.clone(), from.range.start + begin),
        };
        let target = ReplayTarget::Position {
            server: None,
            file: to.range.file.clone(),
            offset: to.range.start + end,
        };
        let passed = (from.seq, begin) > (to.seq, end);
        match BinlogChain::new(world.segments.clone()).plan(&base, &target) {
            Ok(plan) => {
                prop_assert!(!passed);
                prop_assert!(plan.stretches.iter().all(|s| s.begin.is_some()));
            }
            Err(e) => prop_assert_eq!(e.passed, passed, "{}", e),
        }
    }

    #[test]
    fn nothing_that_a_backup_needs_is_given_up(script in script(), bases in proptest::collection::vec(0_usize..30, 1..4)) {
        let world = world(&script);
        let bases: Vec<usize> = bases.iter().map(|b| (*b).min(world.history.len())).collect();
        let chain = BinlogChain::new(world.segments.clone());
        let backups: Vec<ReplayBase> = bases.iter().map(|b| world.base(*b)).collect();
        let gone: Vec<SegmentInfo> = chain.unneeded(&backups).into_iter().cloned().collect();
        let mut rest = world.clone();
        let kept = |s: &SegmentInfo| !gone.contains(s);
        rest.contents = world.segments.iter().zip(&world.contents)
            .filter(|(s, _)| kept(s)).map(|(_, c)| c.clone()).collect();
        rest.segments.retain(kept);
        for &base in &bases {
            for n in 1..=world.history.len() as u64 {
                prop_assert_eq!(world.can_reach(base, n), rest.can_reach(base, n));
            }
        }
        // The rest is still one piece where it was one.
        let servers: BTreeSet<_> = world.segments.iter().map(|s| s.server.clone()).collect();
        let left: BTreeSet<_> = rest.segments.iter().map(|s| s.server.clone()).collect();
        prop_assert_eq!(servers, left);
        prop_assert!(BinlogChain::new(rest.segments).gaps().len() <= chain.gaps().len());
        prop_assert!(chain.unneeded(&[]).is_empty());
    }
    #[test]
    fn no_hole_is_passed_over_in_silence(script in script(), base in 0_usize..30) {
        let world = world(&script);
        let base = base.min(world.history.len());
        let chain = BinlogChain::new(world.segments.clone());
        let from = world.base(base);
        let reachable = chain.plan(&from, &ReplayTarget::Reachable).unwrap();
        prop_assert_eq!(chain.plan(&from, &ReplayTarget::End).is_ok(), chain.reach(&from).is_ok_and(|r| r.whole));
        match chain.plan(&from, &ReplayTarget::End) {
            Ok(plan) => {
                prop_assert_eq!(&plan, &reachable);
                let done = world.gathered(base, &plan);
                let newest = done.iter().map(|(_, n)| *n).max().unwrap_or(0);
                let stopped = plan.stretches.last().and_then(|stretch| stretch.segments.last());
                for (segment, content) in world.segments.iter().zip(&world.contents) {
                    let behind = stopped.is_some_and(|stopped| {
                        stopped.server == segment.server && stopped.seq < segment.seq
                    });
                    if !behind && content.iter().all(|(_, n)| *n <= newest) {
                        continue;
                    }
                    for transaction in content {
                        // What a lost primary wrote under numbers of MariaDB that the base has, or beside
                        // which the next primary has gone on: it is of another history.
                        let gone_on = done.iter().any(|(primary, _)| *primary == 1);
                        let survived = world.history.contains(transaction);
                        let errant = script.mariadb
                            && (transaction.1 <= base as u64 || (gone_on && !survived));
                        prop_assert!(errant || done.contains(transaction), "{transaction:?} of {} is not in {done:?}, which stops at {:?}", segment.name(), stopped.map(|s| (s.name(), &s.range)));
                    }
                }
            }
            Err(e) => {
                let told = e.to_string();
                prop_assert!(told.contains("not archived"), "{}", told);
                let reached = (0..=world.history.len()).rev().find(|&n| world.can_reach(base, n as u64));
                let reached = set(world.flavor, &world.history[..reached.unwrap()]);
                let beyond = |s: &SegmentInfo| !s.after.is_subset(&reached).unwrap();
                // An alarm too many: before what a lost primary of MariaDB wrote alone, under numbers
                // that are used again, a piece is missing.
                let alone = script.mariadb && script.errant > 0;
                prop_assert!(alone || world.segments.iter().any(beyond), "{}", told);
            }
        }
    }

    /// A server that was restored without a point begins a history of its own.
    #[test]
    fn no_way_leads_from_one_history_into_another(
        mariadb in any::<bool>(),
        (ours, theirs) in (1_u64..20, 1_u64..20),
        cuts in proptest::collection::vec(proptest::collection::vec((1_usize..6, any::<bool>()), 20), 2),
        (base, wanted) in (1_u64..20, 1_u64..20),
    ) {
        let flavor = if mariadb { Flavor::MariaDb } else { Flavor::MySql };
        let logs = [(0, ours), (3, theirs)]
            .map(|(server, len)| Log((1..=len).map(|n| (server, n)).collect()));
        let mut world = World { flavor, history: Vec::new(), segments: Vec::new(), contents: Vec::new() };
        for (log, cuts) in logs.iter().zip(&cuts) {
            archive(&mut world, log.0[0].0, log, 0, cuts, &BTreeSet::new());
        }
        let chain = BinlogChain::new(world.segments.clone());
        for (here, there) in [(0, 1), (1, 0)] {
            let (here, there) = (&logs[here].0, &logs[there].0);
            let (from, to) = (&here[..(base as usize).min(here.len())], wanted as usize - 1);
            let gtid_set = Some(set(flavor, from));
            let base = ReplayBase { server: None, position: Position { gtid: gtid_set, ..Position::default() } };
            if let Some(&(server, n)) = there.get(to) {
                prop_assert!(chain.plan(&base, &ReplayTarget::Gtid(gtid(flavor, server, n))).is_err());
            }
            if let Some(&(server, n)) = here.get(to).filter(|(_, n)| *n > from.len() as u64) {
                let plan = chain.plan(&base, &ReplayTarget::Gtid(gtid(flavor, server, n))).unwrap();
                let servers = plan.stretches.iter().flat_map(|stretch| &stretch.segments);
                prop_assert!(servers.map(|segment| world.content(segment)).all(|c| c.iter().all(|t| t.0 == server)));
            }
            if let Ok(plan) = chain.plan(&base, &ReplayTarget::End) {
                let read = plan.stretches.iter().flat_map(|stretch| &stretch.segments);
                prop_assert!(read.flat_map(|segment| world.content(segment)).all(|t| t.0 == here[0].0));
            }
        }
    }

    #[test]
    fn nor_where_there_are_only_places(
        lens in proptest::collection::vec(1_usize..5, 2..8),
        lost in proptest::collection::btree_set(2_usize..7, 0..2),
        from in any::<prop::sample::Index>(),
    ) {
        let flavor = Flavor::MySql;
        let log = Log((1..=lens.iter().sum::<usize>() as u64).map(|n| (0, n)).collect());
        let mut world = World { flavor, history: Vec::new(), segments: Vec::new(), contents: Vec::new() };
        let cuts: Vec<(usize, bool)> = lens.iter().map(|len| (*len, false)).collect();
        archive(&mut world, 0, &log, 0, &cuts, &lost);
        for segment in &mut world.segments {
            (segment.before, segment.after) = (GtidSet::empty(flavor), GtidSet::empty(flavor));
            segment.anonymous = segment.transactions;
        }
        let from = from.get(&world.segments);
        let base = ReplayBase {
            server: Some(from.server.clone()),
            position: Position::at(from.range.file.clone(), from.range.start + 1),
        };
        let last = world.segments.last().unwrap();
        let behind = world.segments.iter().filter(|s| s.seq >= from.seq).count();
        let whole = last.seq - from.seq + 1 == behind as u64;
        let chain = BinlogChain::new(world.segments.clone());
        prop_assert_eq!(chain.plan(&base, &ReplayTarget::End).is_ok(), whole);
        let reached = chain.plan(&base, &ReplayTarget::Reachable).unwrap();
        prop_assert_eq!(&reached.stretches[0].segments[0], from);
        prop_assert_eq!(chain.reach(&base).unwrap().whole, whole);
    }
}
