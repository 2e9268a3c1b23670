//! From a clone to a point in time: its donor's binlogs, applied to the server that recovered it.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::{
    BinlogChain, Context, GtidSet, Position, ReplayBase, ReplayTarget, SegmentStore as _,
};
use backup_drivers::binlog::replay::{ApplyOptions, apply};
use backup_drivers::binlog::{ReceiveOptions, Route, Skipping, receive};
use backup_drivers::connect::ConnectOptions;
use backup_drivers::logical::Census;

use crate::stage::{Restored, Stage, spec};

/// Archives everything up to now.
pub(crate) async fn archive(stage: &Stage) {
    let options = ReceiveOptions::new(spec().cluster, stage.directory.path().join("binlog"));
    receive(&stage.cx, &stage.source(), Arc::new(stage.repository.clone()), options)
        .await
        .unwrap_or_else(|e| panic!("{}", e.report()));
}

/// Applies what the archive has after `from` up to `target`.
pub(crate) async fn replay(
    stage: &Stage,
    restored: &Restored,
    from: &GtidSet,
    target: &ReplayTarget,
) {
    let repo = Arc::new(stage.repository.clone());
    let listed = repo.segments(&stage.cx, &spec().cluster).await.unwrap();
    let chain = BinlogChain::new(listed.into_iter().map(|listed| listed.info.unwrap()).collect());
    let position = Position { gtid: Some(from.clone()), ..Position::default() };
    let base = ReplayBase { server: None, position };
    let plan = chain.plan(&base, target).unwrap_or_else(|e| panic!("{e:?}"));
    let skip = BTreeSet::new();
    let way = Skipping::Emptied;
    let route = Route::resolve(&stage.cx, &*repo, &chain, &plan, target, skip, way).await;
    let route = route.unwrap_or_else(|e| panic!("{}", e.report()));
    let options = ApplyOptions { tell_applied: true, ..ApplyOptions::default() };
    apply(&stage.cx, &restored.options(), repo, Arc::new(route), &options)
        .await
        .unwrap_or_else(|e| panic!("{}", e.report()));
}

/// Number and digest of the rows of every table, but for those of the database `without`.
pub(crate) async fn rows(
    cx: &Context,
    server: &ConnectOptions,
    without: &str,
) -> Vec<(String, String)> {
    let census = Census::take(cx, server).await.unwrap_or_else(|e| panic!("{}", e.report()));
    assert!(census.findings.is_empty(), "{:?}", census.findings);
    let tables = census.tables.into_iter().filter(|(name, _)| name.database != without);
    tables.map(|(name, digest)| (name.to_string(), format!("{} {digest}", digest.rows))).collect()
}
