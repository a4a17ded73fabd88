//! A cluster that is given a past: logs made elsewhere are written into its nodes' stores and its stream, and what they
//! make its agents and consoles take is measured.
//!
//! Every agent folds them, agrees about them with the others and lets go of what it may, as it would with any others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ceremonies::ids::{CeremonyId, NodeIndex, UnixMillis};
use ceremonies::log::Entry;
use ceremonies::record::Tip;
use ceremonies::wire::bus::Heartbeat;
use console::client::{Client, News, Scope};
use console::config::Cluster as Console;
use console::room::now;
use futures_util::StreamExt as _;
use lab::attack::Host;
use lab::cluster::Cluster;
use lab::drive::Room;
use node::store::Store;
use prost::Message as _;
use tempfile::TempDir;

use crate::report::Report;
use crate::{PATIENCE, millis, plan, weigh};

const LOOK: Duration = Duration::from_secs(1);
/// How long agents may take to agree about a whole past, or to be well again.
const SETTLED: Duration = Duration::from_mins(30);
const ROUNDS: u32 = 5;

/// A cluster and its people.
pub(crate) struct Aging {
    pub(crate) cluster: Cluster,
    pub(crate) room: Room,
    custody: PathBuf,
    // Everything is in it: it goes last.
    _folder: TempDir,
}

impl Aging {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(folder.path());
        let custody = plan.programs.node.with_file_name("custody");
        let cluster = Cluster::start(&plan).await.unwrap();
        let room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
        Self { cluster, room, custody, _folder: folder }
    }

    /// Gives every node these logs, of which so many may be shelved, and waits until they are part of the record.
    pub(crate) async fn live_through(&self, logs: &[Vec<Entry>], may_be_shelved: usize) {
        for node in self.cluster.nodes() {
            self.cluster.agent(node).unwrap().hold().await;
        }
        self.write(logs).await;
        for node in self.cluster.nodes() {
            self.cluster.agent(node).unwrap().resume().await;
        }
        let begun = Instant::now();
        for node in self.cluster.nodes() {
            while let Err(lacks) = self.has_settled(node, logs, may_be_shelved).await {
                assert!(begun.elapsed() < SETTLED, "node {node}: {lacks}");
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Writes logs into one store, copies them into the others, and puts them into the stream: five agents that each
    /// want to give it what it lacks would take longer than all the rest.
    async fn write(&self, logs: &[Vec<Entry>]) {
        let file = |node: NodeIndex| self.cluster.layout().node(node).join("store.db");
        let first = self.cluster.nodes().next().unwrap();
        let store = self.store(first).await;
        for entry in logs.iter().flatten() {
            store.append_entry(entry).await.unwrap();
        }
        drop(store);
        let agent = Host::with_credentials_of(&self.cluster, first).await.unwrap();
        for entry in logs.iter().flatten() {
            agent.put(&entry.ceremony, entry.encode()).await.unwrap();
        }
        let script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[2]); db.execute('ATTACH ? AS other', \
                      (sys.argv[1],)); db.execute('INSERT OR IGNORE INTO entries SELECT * FROM other.entries'); \
                      db.commit()";
        for node in self.cluster.nodes().skip(1) {
            let done = Command::new("python3").args(["-c", script]).arg(file(first)).arg(file(node)).status();
            assert!(done.unwrap().success());
        }
    }

    async fn store(&self, node: NodeIndex) -> Store {
        Store::open(&self.cluster.store_url(node)).await.unwrap()
    }

    /// Whether a node has read all logs in the stream, is locked on the last entry of each, and has shelved what may be
    /// shelved.
    async fn has_settled(
        &self,
        node: NodeIndex,
        logs: &[Vec<Entry>],
        may_be_shelved: usize,
    ) -> Result<(), String> {
        let store = self.store(node).await;
        let entries: usize = logs.iter().map(Vec::len).sum();
        let read = store.read_to().await.unwrap().map_or(0, |mark| mark.seq);
        if read < u64::try_from(entries).unwrap() {
            return Err(format!("{read} of {entries} entries are in the stream"));
        }
        let shelved: BTreeSet<CeremonyId> =
            store.shelf().await.unwrap().into_iter().map(|line| line.ceremony).collect();
        let locks: BTreeMap<CeremonyId, Tip> = store
            .ballots()
            .await
            .unwrap()
            .into_iter()
            .filter_map(|(id, memory)| Some((id, memory.lock?.tip)))
            .collect();
        let last = |log: &&Vec<Entry>| log.last().cloned().unwrap();
        let is_recorded = |last: &Entry| {
            let tip = Tip { seq: last.seq, hash: last.hash() };
            shelved.contains(&last.ceremony) || locks.get(&last.ceremony) == Some(&tip)
        };
        let recorded = logs.iter().filter(|log| is_recorded(&last(log))).count();
        if recorded < logs.len() || shelved.len() < may_be_shelved {
            return Err(format!("{recorded} of {} logs recorded, {} shelved", logs.len(), shelved.len()));
        }
        Ok(())
    }

    /// Waits until all of these nodes have reported, since then, that they are healthy. Returns the last report.
    async fn are_well(
        &self,
        mut news: impl futures_util::Stream<Item = News> + Unpin,
        mut nodes: BTreeSet<NodeIndex>,
        since: UnixMillis,
    ) -> Heartbeat {
        let is_well = |heartbeat: &Heartbeat| {
            heartbeat.time_ms >= since.0
                && heartbeat.stream_trouble.is_empty()
                && heartbeat.enclave.as_ref().is_some_and(|enclave| enclave.trouble.is_empty())
        };
        let wait = async {
            while let Some(news) = news.next().await {
                let News::Health(heartbeat) = news else { continue };
                let node = NodeIndex::try_from(heartbeat.node).unwrap();
                if is_well(&heartbeat) && nodes.remove(&node) && nodes.is_empty() {
                    return *heartbeat;
                }
            }
            panic!("no news any more")
        };
        tokio::time::timeout(SETTLED, wait).await.unwrap()
    }

    /// How long a node takes from the start of its agent until it is healthy, and what it reports then.
    async fn restart(&self, node: NodeIndex) -> (Duration, Heartbeat) {
        let agent = self.cluster.agent(node).unwrap();
        let news = Box::pin(self.room.client.news().await.unwrap());
        agent.hold().await;
        let (begun, since) = (Instant::now(), now());
        agent.resume().await;
        let heartbeat = self.are_well(news, [node].into(), since).await;
        (begun.elapsed(), heartbeat)
    }

    /// How long it takes from the start of the broker until every agent is healthy again.
    async fn reconnect(&self) -> Duration {
        let news = Box::pin(self.room.client.news().await.unwrap());
        self.cluster.broker().hold().await;
        let (begun, since) = (Instant::now(), now());
        self.cluster.broker().resume().await;
        self.are_well(news, self.cluster.nodes().collect(), since).await;
        begun.elapsed()
    }

    /// Prints what agents and consoles take with this past.
    pub(crate) async fn measure(&self, report: &mut Report, name: &str) {
        let fourth = NodeIndex::new(4).unwrap();
        let (start, _) = self.restart(fourth).await;
        let mut heartbeats = Vec::new();
        for node in self.cluster.nodes() {
            heartbeats.push(self.restart(node).await.1.encoded_len());
        }
        let (memory, _) = weigh::weigh("custody-node");
        report.put(name, "agent from start to healthy", millis(start), "ms");
        report.put_beside(name, "agent's resident memory", memory, "MB", "< 40");
        let heartbeat = heartbeats.into_iter().max().unwrap();
        report.put(name, "heartbeat", heartbeat as f64, "bytes");
        let reconnected = millis(self.reconnect().await);
        report.put(name, "from the broker's start until all agents are healthy again", reconnected, "ms");
        let console = self.cluster.layout().console();
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            let client = Client::connect(&Console::load(&console).unwrap()).await.unwrap();
            client.library(&Scope::Current).await.unwrap();
        }
        let current = millis(begun.elapsed() / ROUNDS);
        report.put(name, "console connects and reads what it shows first", current, "ms");
        for arguments in [["ceremony", "list"].as_slice(), &["wallet", "show", "bench"]] {
            let time = command(&self.custody, &console, arguments);
            report.put(name, &format!("custody {}", arguments.join(" ")), time, "ms");
        }
    }
}

fn command(program: &Path, cluster: &Path, arguments: &[&str]) -> f64 {
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        let done = Command::new(program).args(arguments).env("CUSTODY_CLUSTER", cluster).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    millis(begun.elapsed() / ROUNDS)
}
