//! What history weighs: the same cluster with few and with many finished ceremonies.
//!
//! They are test signings that were withdrawn at once, with a wallet that the cluster's own enclaves hold.

use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::log::Entry;
use ceremonies::statement::Answer;
use console::room::Topic;

use crate::PATIENCE;
use crate::past::Aging;
use crate::report::Report;
use crate::stage::Stage;

/// The log of a test signing that was withdrawn.
fn withdrawn(stage: &mut Stage<'_>) -> Vec<Entry> {
    let id = stage.open(Topic::of(CeremonyKind::TestSign, "bench".parse().unwrap()));
    let reason = Answer::Withdraw("it was a bench".parse().unwrap());
    stage.sign(&id, "withdraw".parse().unwrap(), stage.person(Role::Administrator), reason);
    stage.book.shelve(&id).unwrap().entries
}

/// Prints what a cluster with this many finished ceremonies takes.
pub(crate) async fn history(report: &mut Report, count: usize) {
    let mut aging = Aging::start().await;
    let (wallet, purpose) = ("bench".parse().unwrap(), "a bench".parse().unwrap());
    let id = aging.room.open(CeremonyKind::Dkg, &wallet, purpose).await.unwrap();
    aging.room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    let mut stage = Stage::set(&aging.cluster, &aging.room).await;
    let logs: Vec<Vec<Entry>> = (0..count).map(|_| withdrawn(&mut stage)).collect();
    aging.live_through(&logs, count).await;
    aging.measure(report, &format!("history-{count}")).await;
    aging.cluster.stop().await;
}
