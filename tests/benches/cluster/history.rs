//! What history weighs: the same cluster with few and with many finished ceremonies.
//!
//! The ceremonies are test signings that were withdrawn at once, signed by the lab's own people and written by one of its
//! nodes; every agent folds them, gives them to the stream and lets go of them as it would of any others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ceremonies::book::Book;
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::entry::Entry;
use ceremonies::ids::NodeIndex;
use ceremonies::statement::Answer;
use console::client::{Client, News, Scope};
use console::config::Cluster as Console;
use console::room::{self, Opening, Signature, Subject, now};
use futures_util::StreamExt as _;
use lab::attack::Host;
use lab::cluster::{Cluster, Plan};
use lab::drive::Room;
use node::store::Store;

use crate::report::Report;
use crate::{PATIENCE, millis, weigh};

const LOOK: Duration = Duration::from_millis(100);
/// How long agents may take to let go of all finished ceremonies.
const SHELVED: Duration = Duration::from_mins(30);
const ROUNDS: u32 = 5;

fn nodes() -> impl Iterator<Item = NodeIndex> {
    (1..=5).map(|index| NodeIndex::new(index).unwrap())
}

/// The logs of so many withdrawn test signings.
async fn withdrawn(cluster: &Cluster, room: &Room, count: usize) -> Vec<[Entry; 2]> {
    let host = Host::with_credentials_of(cluster, NodeIndex::new(1).unwrap()).await.unwrap();
    let administrator = room.people(Role::Administrator).next().unwrap().clone();
    let opening = Opening {
        subject: Subject::Wallet("bench".parse().unwrap()),
        purpose: "a bench".parse().unwrap(),
        administrator: administrator.person.clone(),
        lifetime_ms: 60 * 60 * 1000,
    };
    let withdrawal = || {
        let reason = Answer::Withdraw("it was a bench".parse().unwrap());
        Signature::by(&administrator, "withdraw".parse().unwrap(), reason)
    };
    let sign = |statement: &str| console::signer::sign(&administrator.key, statement, None).unwrap();
    let mut scratch: Book = room.book.clone();
    let mut log = || {
        let (manifest, statement) = room::prepare(&room.book, &opening).unwrap();
        let id = manifest.ceremony.clone();
        let first = host.opening(&id, room::opened(&manifest, sign(&statement)), now()).unwrap();
        let ceremony = scratch.read(std::slice::from_ref(&first)).unwrap();
        let end = withdrawal();
        let event = end.event(sign(&end.statement(&ceremony, now()).unwrap()));
        let last = host.entry(std::slice::from_ref(&first), event, now()).unwrap();
        scratch.shelve(&id);
        [first, last]
    };
    (0..count).map(|_| log()).collect()
}

/// Writes logs into one store, and copies them into the others.
async fn write(cluster: &Cluster, logs: &[[Entry; 2]]) {
    let file = |node: NodeIndex| cluster.layout().node(node).join("store.db");
    let first = nodes().next().unwrap();
    let store = Store::open(&cluster.store_url(first)).await.unwrap();
    for entry in logs.iter().flatten() {
        store.append_entry(entry).await.unwrap();
    }
    drop(store);
    let script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[2]); db.execute('ATTACH ? AS other', (sys.argv[1],)); \
                  db.execute('INSERT OR IGNORE INTO entries SELECT * FROM other.entries'); db.commit()";
    for node in nodes().skip(1) {
        let done = Command::new("python3").args(["-c", script]).arg(file(first)).arg(file(node)).status();
        assert!(done.unwrap().success());
    }
}

async fn are_shelved(cluster: &Cluster, count: usize) {
    let begun = Instant::now();
    for node in nodes() {
        loop {
            let shelved = Store::open(&cluster.store_url(node)).await.unwrap().shelf().await.unwrap().len();
            if shelved >= count {
                break;
            }
            assert!(begun.elapsed() < SHELVED, "node {node} has shelved {shelved} of {count}");
            tokio::time::sleep(10 * LOOK).await;
        }
    }
}

/// Waits until a node reports that it is healthy.
async fn is_well(client: &Client, node: NodeIndex) {
    let mut news = Box::pin(client.news().await.unwrap());
    let wait = async {
        while let Some(news) = news.next().await {
            if let News::Health(heartbeat) = news
                && heartbeat.node == u32::from(node)
                && heartbeat.stream_trouble.is_empty()
                && heartbeat.enclave.is_some_and(|enclave| enclave.trouble.is_empty())
            {
                return;
            }
        }
    };
    tokio::time::timeout(SHELVED, wait).await.unwrap();
}

fn command(program: &Path, cluster: &Path, arguments: &[&str]) -> f64 {
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        let done = Command::new(program).args(arguments).env("CUSTODY_CLUSTER", cluster).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    millis(begun.elapsed() / ROUNDS)
}

/// Prints what a cluster with this many finished ceremonies takes.
pub(crate) async fn history(report: &mut Report, count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let programs = lab::programs::build().unwrap();
    let custody: PathBuf = programs.node.with_file_name("custody");
    let plan = Plan {
        folder: folder.path().to_owned(),
        nodes: 5,
        threshold: 3,
        stores: BTreeMap::new(),
        programs,
        machines: None,
    };
    let cluster = Cluster::start(&plan).await.unwrap();
    let console = cluster.layout().console();
    let mut room = Room::enter(&console, PATIENCE).await.unwrap();
    let (wallet, purpose) = ("bench".parse().unwrap(), "a bench".parse::<ceremonies::ids::Line>().unwrap());
    let id = room.open(CeremonyKind::Dkg, &wallet, purpose).await.unwrap();
    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    let logs = withdrawn(&cluster, &room, count).await;
    for node in nodes() {
        cluster.agent(node).unwrap().hold().await;
    }
    write(&cluster, &logs).await;
    for node in nodes() {
        cluster.agent(node).unwrap().resume().await;
    }
    are_shelved(&cluster, count).await;

    let fourth = NodeIndex::new(4).unwrap();
    cluster.agent(fourth).unwrap().hold().await;
    let begun = Instant::now();
    cluster.agent(fourth).unwrap().resume().await;
    is_well(&room.client, fourth).await;
    let start = millis(begun.elapsed());
    for node in nodes() {
        let agent = cluster.agent(node).unwrap();
        agent.hold().await;
        agent.resume().await;
        is_well(&room.client, node).await;
    }
    let (memory, _) = weigh::weigh("custody-node");
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        let client = Client::connect(&Console::load(&console).unwrap()).await.unwrap();
        client.library(&Scope::Current).await.unwrap();
    }
    let current = millis(begun.elapsed() / ROUNDS);
    let name = format!("history-{count}");
    report.put(&name, "agent from start to healthy", start, "ms");
    report.put_beside(&name, "agent's resident memory", memory, "MB", "< 40");
    report.put(&name, "console connects and reads what it shows first", current, "ms");
    for arguments in [["ceremony", "list"].as_slice(), &["wallet", "show", "bench"]] {
        let time = command(&custody, &console, arguments);
        report.put(&name, &format!("custody {}", arguments.join(" ")), time, "ms");
    }
    cluster.stop().await;
}
