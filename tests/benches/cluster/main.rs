//! One run, printed: stores, the console's frames, ceremonies through a whole cluster, and what history and a wallet's
//! generations weigh.
//!
//! `cargo bench -p lab -- [--json FILE] [--only NAME…]`; `history-1000`, `history-10000` and `refreshed-1000` run only by
//! name.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks at the variants that it is about")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a bench may stop at the first surprise"
)]

mod compute;
mod fold;
mod frames;
mod history;
mod past;
mod refreshed;
mod report;
mod stage;
mod store;
mod weigh;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ceremonies::charter::CeremonyKind;
use ceremonies::log::{Entry, Event};
use ceremonies::manifest::Way;
use ceremonies::wire::bus::Progress;
use console::client::{Client, News};
use console::room::Topic;
use futures_util::StreamExt as _;
use lab::cluster::{Cluster, Plan};
use lab::drive::Room;

use self::compute::Cost;
use self::report::Report;

const PATIENCE: Duration = Duration::from_mins(3);
/// Test signings held after the key generation, each with a signature of every group of the cover.
const TEST_SIGNINGS: usize = 3;

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// A cluster of five nodes, three of which sign.
fn plan(folder: &Path) -> Plan {
    Plan {
        folder: folder.to_owned(),
        nodes: 5,
        threshold: 3,
        stores: BTreeMap::new(),
        programs: lab::programs::build().unwrap(),
        machines: None,
    }
}

fn between(entries: &[Entry], from: impl Fn(&Event) -> bool, to: impl Fn(&Event) -> bool) -> f64 {
    let first = entries.iter().filter(|entry| from(&entry.event)).map(|entry| entry.time).max();
    let last = entries.iter().filter(|entry| to(&entry.event)).map(|entry| entry.time).max();
    last.unwrap().since(first.unwrap()) as f64
}

/// All progress that the cluster tells from now on.
async fn listen(client: &Client) -> Arc<Mutex<Vec<Progress>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let (mut news, heard) = (Box::pin(client.news().await.unwrap()), Arc::clone(&told));
    tokio::spawn(async move {
        while let Some(news) = news.next().await {
            if let News::Progress(progress) = news {
                heard.lock().unwrap().push(*progress);
            }
        }
    });
    told
}

/// Milliseconds of each finished session of this many parties, from the moment the first has everybody's
/// hello until the last has its product.
fn sessions(told: &Mutex<Vec<Progress>>, kind: &str, parties: usize) -> Vec<f64> {
    let mut sessions: BTreeMap<String, (i64, i64, usize)> = BTreeMap::new();
    let of_these =
        |progress: &&Progress| progress.parties.len() == parties && progress.ceremony.starts_with(kind);
    for progress in told.lock().unwrap().iter().filter(of_these) {
        let (begun, ended, finished) =
            sessions.entry(progress.session.clone()).or_insert((i64::MAX, i64::MIN, 0));
        if progress.phase_number == 2 {
            *begun = (*begun).min(progress.time_ms);
        }
        if progress.phase == "finish" {
            *ended = (*ended).max(progress.time_ms);
            *finished += 1;
        }
    }
    let whole = sessions.values().filter(|(_, _, finished)| *finished == parties);
    whole.map(|(begun, ended, _)| (ended - begun) as f64).collect()
}

fn compare(report: &mut Report, what: &str, times: &[f64], cost: Cost, cores: u32) {
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    report.put(what, &format!("a session through the cluster ({} held)", times.len()), mean, "ms");
    for (of, least) in [
        (format!("total compute ÷ {cores} cores"), cost.total / cores),
        ("the slowest party in each round".to_owned(), cost.slowest),
        ("a thread for every party in one process".to_owned(), cost.threads),
    ] {
        report.put(what, &of, millis(least), "ms");
        report.put(what, &format!("ratio to {of}"), mean / millis(least), "");
    }
}

#[tokio::main]
async fn main() {
    let mut report = Report::from_args();
    if report.wants("store") {
        store::store(&mut report).await;
    }
    if report.wants("frames") {
        frames::frames(&mut report);
    }
    if report.wants("ceremonies") {
        ceremonies(&mut report).await;
    }
    // With thousands of ceremonies it takes many minutes.
    let is_wanted = |report: &Report, bench: &str, count| {
        let name = format!("{bench}-{count}");
        report.names(&name) || count == 10 && report.wants(&name)
    };
    for count in [10, 1000, 10_000] {
        if is_wanted(&report, "history", count) {
            history::history(&mut report, count).await;
        }
    }
    for count in [10, 1000] {
        if is_wanted(&report, "refreshed", count) {
            refreshed::refreshed(&mut report, count).await;
        }
    }
    report.write();
}

/// Ceremonies through a whole cluster against the same dkls23 phases in one process, the fold, and what processes weigh.
async fn ceremonies(report: &mut Report) {
    let cores = u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
    let costs = compute::compute();
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path())).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let told = listen(&room.client).await;
    let (wallet, purpose) = ("bench".parse().unwrap(), "a bench".parse::<ceremonies::ids::Line>().unwrap());
    let id = room.open(CeremonyKind::Dkg, &wallet, purpose.clone()).await.unwrap();
    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    for _ in 0..TEST_SIGNINGS {
        let test = room.open(CeremonyKind::TestSign, &wallet, purpose.clone()).await.unwrap();
        room.lead_to_close(&test, PATIENCE, |_| ()).await.unwrap();
    }
    let refresh = room.open(CeremonyKind::Refresh, &wallet, purpose.clone()).await.unwrap();
    room.lead_to_close(&refresh, PATIENCE, |_| ()).await.unwrap();
    let lost = ceremonies::ids::NodeIndex::new(4).unwrap();
    cluster.lose(lost).await.unwrap();
    let recovery = Topic::losses(CeremonyKind::Recover, wallet.clone(), [(lost, Way::Repair)].into());
    let recovery = room.open_about(recovery, purpose.clone()).await.unwrap();
    room.lead_to_close(&recovery, PATIENCE, |_| ()).await.unwrap();
    let key_generation = "key generation (aim ≤ 1.2 to total ÷ cores)";
    compare(report, key_generation, &sessions(&told, "dkg", 5), costs.dkg, cores);
    let signature = "signature (aim ≤ 1.3 to the slowest party)";
    compare(report, signature, &sessions(&told, "test", 3), costs.signature, cores);
    compare(report, "refresh", &sessions(&told, "refresh", 5), costs.refresh, cores);
    compare(report, "repair", &sessions(&told, "recover", 4), costs.repair, cores);
    let entries = room.book.get(&id).unwrap().entries.clone();
    let certified = between(
        &entries,
        |event| matches!(event, Event::Signed { step, .. } if step.as_str() == "approve"),
        |event| matches!(event, Event::Prepared { .. }),
    );
    let tested = between(
        &entries,
        |event| matches!(event, Event::Signed { step, .. } if step.as_str() == "read-back"),
        |event| matches!(event, Event::TestSigned(_)),
    );
    let groups = room.ceremony(&id).unwrap().cover().len() as f64;
    let whole = "a key generation with KMS, stores, log and orders";
    report.put(whole, "last approval to certificate", certified, "ms");
    report.put(whole, "read-back to the last test signature, each", tested / groups, "ms");

    fold::fold(report, &entries, &room.book);
    for program in ["custody-node", "lab-enclave"] {
        let (_, before) = weigh::weigh(program);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let (rss, after) = weigh::weigh(program);
        report.put(program, "resident", rss, "MB");
        report.put(program, "idle", (after - before) * 10.0, "% CPU");
    }
    cluster.stop().await;
}
