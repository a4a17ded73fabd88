//! What a wallet's generations weigh: the same cluster with a wallet that was refreshed a few times, and often.
//!
//! The wallet is made up whole, since every generation needs test signatures by its key. The cluster's own enclaves hold no
//! share of it, which no agent minds until it is to sign.

use std::time::{Duration, Instant};

use ceremonies::ceremony::{Duty, Phase};
use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{CeremonyId, WalletName};
use ceremonies::log::Entry;
use console::room::{Topic, now};
use enclave_link::message::{Log, Start};
use prost::Message as _;

use crate::millis;
use crate::past::Aging;
use crate::report::Report;
use crate::stage::Stage;

const ROUNDS: u32 = 50;

fn timed<T>(work: impl Fn() -> T) -> Duration {
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        std::hint::black_box(work());
    }
    begun.elapsed() / ROUNDS
}

fn held(stage: &mut Stage<'_>, topic: Topic) -> CeremonyId {
    let id = stage.open(topic);
    stage.lead(&id, |ceremony| ceremony.phase() == Phase::Closed);
    id
}

/// Prints what a cluster takes whose wallet was refreshed this many times.
pub(crate) async fn refreshed(report: &mut Report, count: usize) {
    let name = format!("refreshed-{count}");
    let aging = Aging::start().await;
    let mut stage = Stage::set(&aging.cluster, &aging.room).await;
    let wallet: WalletName = "bench".parse().unwrap();
    let mut ids = vec![held(&mut stage, Topic::of(CeremonyKind::Dkg, wallet.clone()))];
    for _ in 0..count {
        ids.push(held(&mut stage, Topic::of(CeremonyKind::Refresh, wallet.clone())));
    }
    let logs: Vec<Vec<Entry>> = ids.iter().map(|id| stage.book.get(id).unwrap().entries.clone()).collect();
    let may_be_shelved = stage.book.shelvable(now()).len();
    let bytes: usize = logs.last().unwrap().iter().map(Entry::size).sum();
    report.put(&name, "log of a refresh", bytes as f64 / 1024.0, "KiB");
    order(report, &name, &mut stage, Topic::of(CeremonyKind::TestSign, wallet));
    aging.live_through(&logs, may_be_shelved).await;
    aging.measure(report, &name).await;
    aging.cluster.stop().await;
}

/// Prints what an agent looks up for the last of the next ceremony's test signatures, and how much its enclave is shown.
fn order(report: &mut Report, name: &str, stage: &mut Stage<'_>, topic: Topic) {
    let id = stage.open(topic);
    stage.lead(&id, |ceremony| ceremony.due_subset().as_ref() == ceremony.cover().last());
    let node = stage.ceremony(&id).cover().last().unwrap().parties()[0];
    assert!(matches!(stage.duty(&id, node), Some(Duty::TestSign { .. })));
    // An agent holds no more of them.
    for old in stage.book.shelvable(now()) {
        stage.book.shelve(&old);
    }
    let microseconds = |time: Duration| millis(time) * 1000.0;
    let duty = microseconds(timed(|| stage.duty(&id, node)));
    report.put(name, "duty in the next test signing, looked up", duty, "µs");
    let needed = microseconds(timed(|| stage.book.needed_for(&id, now())));
    report.put(name, "what the order for it must show, looked up", needed, "µs");
    let encoded = |log: &[Entry]| log.iter().map(Entry::encode).collect();
    let needed = stage.book.needed_for(&id, now());
    let start = Start {
        charter: stage.book.context().charter().text().as_bytes().to_vec(),
        log: encoded(&stage.book.get(&id).unwrap().entries),
        others: needed.logs.into_iter().map(|log| Log { entries: encoded(&log.entries) }).collect(),
        records: needed.records.into_iter().map(|record| record.as_bytes().to_vec()).collect(),
        ..Default::default()
    };
    let kibibytes = start.encoded_len() as f64 / 1024.0;
    report.put_beside(name, "order for it, without share and credentials", kibibytes, "KiB", "< 512");
}
