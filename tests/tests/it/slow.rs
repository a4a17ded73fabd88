//! What answers slowly or never, next to one node: it may delay what needs it, and nothing else.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ceremonies::chain::address::{BitcoinAddress, BitcoinNetwork};
use ceremonies::chain::transaction::bitcoin::{Bitcoin, Input, Outpoint, Output, Txid};
use ceremonies::chain::transaction::{Sats, Transaction};
use ceremonies::charter::CeremonyKind;
use console::client::News;
use console::room;
use futures_util::StreamExt as _;
use lab::cluster::Cluster;
use lab::drive::Room;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::ceremonies::{PATIENCE, node, open, with_treasury};
use crate::record::SOON;

/// How long an agent may take to end.
const TERMINATION: Duration = Duration::from_secs(2);
/// The nodes whose vault and credential helper do not answer.
const SLOW: [u8; 2] = [4, 5];

/// A vault that takes connections and answers nothing on them.
struct SilentVault {
    url: String,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl SilentVault {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                held.push(connection);
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { url, connections, task }
    }
}

/// Where a node's credential helper writes which process it is.
fn pid_file(cluster: &Cluster, index: u8) -> PathBuf {
    cluster.layout().node(node(index)).join("helper.pid")
}

/// Gives a node this vault, and a credential helper that sleeps ten minutes.
async fn slow_down(cluster: &Cluster, index: u8, vault: &SilentVault) {
    let agent = cluster.agent(node(index)).unwrap();
    agent.hold().await;
    let file = cluster.layout().node(node(index)).join("node.toml");
    let mut config: toml::Table = fs::read_to_string(&file).unwrap().parse().unwrap();
    let script = format!("echo $$ > {}; exec sleep 600", pid_file(cluster, index).display());
    let helper = toml::Table::from_iter([("process".to_owned(), vec!["sh", "-c", &script].into())]);
    config["kms"].as_table_mut().unwrap().insert("credentials".to_owned(), helper.into());
    let bucket = format!(
        "bucket = 'backups'\nregion = 'eu-central-1'\nendpoint = '{}'\ncredentials = {{ file = 'aws.json' }}",
        vault.url
    );
    let bucket: toml::Table = bucket.parse().unwrap();
    config.insert("vault".to_owned(), toml::Table::from_iter([("s3".to_owned(), bucket.into())]).into());
    fs::write(&file, config.to_string()).unwrap();
    agent.resume().await;
}

/// Whether a node's credential helper sleeps now.
fn helper_sleeps(pid_file: &Path) -> bool {
    let process = fs::read_to_string(pid_file).unwrap_or_default();
    let line = fs::read_to_string(format!("/proc/{}/cmdline", process.trim())).unwrap_or_default();
    line.starts_with("sleep")
}

async fn wait_for(what: &str, until: impl Fn() -> bool) {
    let begun = Instant::now();
    while !until() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Signs a transfer of wallet `treasury` with the nodes that are not slow, and closes it. Returns how long that took.
async fn signs_elsewhere(room: &mut Room, spent: u8) -> Duration {
    let begun = Instant::now();
    let record = room.book.wallet(&"treasury".parse().unwrap()).unwrap().record;
    let network = BitcoinNetwork::Regtest;
    let address = BitcoinAddress::of(network, &record.public_key);
    let input = Input {
        outpoint: Outpoint { txid: Txid([spent; 32]), index: 0 },
        amount: Sats(50_000),
        address,
        path: "m".parse().unwrap(),
    };
    let stranger = BitcoinAddress::new(network, [9; 20]);
    let output = Output { amount: Sats(49_000), address: stranger.into() };
    let transaction = Transaction::Bitcoin(Bitcoin::new(network, vec![input], vec![output]).unwrap());
    let signers = [1, 2, 3].map(node).to_vec();
    let subject =
        room::transfer(&room.book, "treasury".parse().unwrap(), &transaction.encode(), signers).unwrap();
    let id = room.open_about(subject, "to a stranger".parse().unwrap()).await.unwrap();
    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    begun.elapsed()
}

/// Listens to the slow nodes' heartbeats until told to stop, and returns the longest silence of each.
async fn silences(room: &Room, stop: tokio::sync::oneshot::Receiver<()>) -> JoinHandle<[Duration; 2]> {
    let mut news = Box::pin(room.client.news().await.unwrap());
    tokio::spawn(async move {
        let (mut heard, mut longest) = ([Instant::now(); 2], [Duration::ZERO; 2]);
        let mut stop = stop;
        loop {
            tokio::select! {
                _ = &mut stop => break,
                said = news.next() => {
                    let Some(News::Health(heartbeat)) = said else { continue };
                    let place = SLOW.iter().position(|slow| u32::from(*slow) == heartbeat.node);
                    let Some(place) = place else { continue };
                    longest[place] = longest[place].max(heard[place].elapsed());
                    heard[place] = Instant::now();
                }
            }
        }
        [0, 1].map(|place| longest[place].max(heard[place].elapsed()))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn vault_that_never_answers_and_sleeping_credential_helper_do_not_slow_another_wallet() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room, _) = with_treasury(folder.path()).await;
    let savings = open(&room, CeremonyKind::Dkg, "savings").await;
    room.lead_to_close(&savings, PATIENCE, |_| ()).await.unwrap();
    let normal = signs_elsewhere(&mut room, 1).await;

    let vault = SilentVault::start().await;
    for index in SLOW {
        slow_down(&cluster, index, &vault).await;
    }
    // Before it attests a node asks the vault for a key generation, and the helper for whatever an enclave does.
    open(&room, CeremonyKind::Dkg, "third").await;
    open(&room, CeremonyKind::TestSign, "savings").await;
    let pids = SLOW.map(|index| pid_file(&cluster, index));
    wait_for("a vault that is asked", || vault.connections.load(Ordering::SeqCst) >= 2).await;
    wait_for("helpers that sleep", || pids.iter().all(|pid| helper_sleeps(pid))).await;

    let (stop, stopped) = tokio::sync::oneshot::channel();
    let listening = silences(&room, stopped).await;
    let beside = signs_elsewhere(&mut room, 2).await;
    stop.send(()).unwrap();
    eprintln!("a transfer took {normal:?}, and {beside:?} beside the slow ones");
    assert!(beside < 2 * normal + SOON, "{beside:?} instead of {normal:?}");
    for silence in listening.await.unwrap() {
        assert!(silence < SOON, "no heartbeat for {silence:?}");
    }

    for index in SLOW {
        let pid = pid_file(&cluster, index);
        wait_for("a helper that sleeps", || helper_sleeps(&pid)).await;
        let begun = Instant::now();
        cluster.agent(node(index)).unwrap().stop().await;
        assert!(begun.elapsed() < TERMINATION, "node {index} took {:?} to end", begun.elapsed());
        wait_for("the end of the helper", || !helper_sleeps(&pid)).await;
    }
    vault.task.abort();
    cluster.stop().await;
}
