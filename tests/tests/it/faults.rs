//! Each fault of the lab is named by what a console shows, with its node and nobody else's, and is gone once it is healed.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;
use std::time::{Duration, Instant};

use ceremonies::charter::CeremonyKind;
use ceremonies::ids::NodeIndex;
use console::checks::Check;
use console::health::{Health, Level, NodeStatus};
use console::watch::Watch;
use lab::cluster::Cluster;
use lab::drive::Room;
use lab::fault::Fault;

use crate::ceremonies::{PATIENCE, node, open, plan};
use crate::consoles::custody;

/// What a busy machine adds to the time within which a fault must be shown.
const SLACK: Duration = Duration::from_secs(6);

/// What a console sees.
pub(crate) struct Console(Watch);

impl Console {
    pub(crate) async fn at(room: &Room) -> Self {
        Self(Watch::begin(room.client.clone(), room.book.clone()).await.unwrap())
    }

    /// The cluster as it is shown a moment later.
    async fn look(&mut self) -> Health {
        self.0.look().await.unwrap().1
    }

    async fn until(&mut self, what: &str, patience: Duration, is_so: impl Fn(&Health) -> bool) {
        let begun = Instant::now();
        loop {
            let health = self.look().await;
            if is_so(&health) {
                return;
            }
            assert!(begun.elapsed() < patience, "{what}: {health:#?}");
        }
    }

    pub(crate) async fn is_well(&mut self) {
        self.until("healed", PATIENCE, |health| {
            health.nodes.iter().all(|status| status.level == Level::Good)
                && health.wallets.iter().all(|wallet| wallet.text().starts_with("can sign: 3 of 3"))
        })
        .await;
    }

    /// Waits until this check fails of a node, and no longer than it says, whatever is wrong with others.
    pub(crate) async fn finds(&mut self, of: u8, check: Check) {
        let patience = Duration::from_secs(check.within_s().unwrap().into()) + SLACK;
        let is_found = |status: &NodeStatus| status.node == node(of) && status.check == Some(check);
        self.until(check.id(), patience, |health| health.nodes.iter().any(is_found)).await;
    }

    /// Waits until these nodes are shown as well, whatever is wrong with others.
    pub(crate) async fn shows_well(&mut self, nodes: &[u8]) {
        let is_well =
            |status: &NodeStatus| !nodes.contains(&status.node.get()) || status.level == Level::Good;
        self.until("well", PATIENCE, |health| health.nodes.iter().all(is_well)).await;
    }

    /// Waits until no node is shown as anything but well.
    pub(crate) async fn shows_all_nodes_well(&mut self) {
        let is_well = |health: &Health| health.nodes.iter().all(|status| status.level == Level::Good);
        self.until("healed", PATIENCE, is_well).await;
    }

    /// Waits until this check fails of the struck nodes, with these words, and no longer than it says. Until then, no
    /// other node may be shown as anything but well.
    pub(crate) async fn names(&mut self, struck: &[u8], check: Check, words: &str) {
        let patience = Duration::from_secs(check.within_s().unwrap().into()) + SLACK;
        let is_struck = |of: NodeIndex| struck.contains(&of.get());
        let begun = Instant::now();
        loop {
            let health = self.look().await;
            let (guilty, innocent): (Vec<_>, Vec<_>) =
                health.nodes.iter().partition(|status| is_struck(status.node));
            for status in innocent {
                assert_eq!(status.level, Level::Good, "{words}: {status:#?}");
            }
            let is_named = |status: &&NodeStatus| {
                (status.level, status.check) == (check.level(), Some(check)) && status.summary.contains(words)
            };
            if guilty.iter().all(is_named) {
                return;
            }
            assert!(begun.elapsed() < patience, "{words}: {guilty:#?}");
        }
    }
}

/// Three nodes, and a wallet that two of them sign with.
pub(crate) async fn with_wallet(folder: &Path) -> (Cluster, Room) {
    let cluster = Cluster::start(&plan(folder, 3, 2)).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let dkg = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to_close(&dkg, PATIENCE, |_| ()).await.unwrap();
    (cluster, room)
}

async fn breaks(
    cluster: &Cluster,
    console: &mut Console,
    fault: Fault,
    (struck, check, words): (&[u8], Check, &str),
) {
    cluster.strike(&fault).await.unwrap();
    console.names(struck, check, words).await;
    cluster.strike(&Fault::Heal).await.unwrap();
    console.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_of_one_node_is_named_with_that_node_alone_and_is_gone_once_healed() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, room) = with_wallet(folder.path()).await;
    let mut console = Console::at(&room).await;
    console.is_well().await;
    let (two, nobody) = (node(2), node(9));
    for fault in [
        Fault::StopNode { node: nobody },
        Fault::BreakStore { node: nobody },
        Fault::Partition { nodes: vec![node(1), nobody] },
        Fault::SlowBus { milliseconds: 60_001 },
        Fault::SkewClock { node: nobody, seconds: 30 },
        Fault::SkewClock { node: two, seconds: 86_401 },
    ] {
        assert!(cluster.strike(&fault).await.is_err(), "{fault:?}");
    }
    let refused = cluster.strike(&Fault::LoseNode { node: nobody }).await.unwrap_err().to_string();
    assert_eq!(refused, "there is no node 9: this cluster has nodes 1 to 3");
    cluster.strike(&Fault::KillEnclave { node: two }).await.unwrap();
    console
        .until("an enclave that was killed and is back", PATIENCE, |health| {
            health.nodes.iter().all(|status| {
                let is_told = status.lately.iter().any(|past| past.part == "enclave");
                status.level == Level::Good
                    && is_told == (status.node == two)
                    && status.summary.contains("had trouble until") == is_told
            })
        })
        .await;
    for (fault, check, words) in [
        (Fault::StopNode { node: two }, Check::Silent, "not heard from for"),
        (Fault::PauseNode { node: two }, Check::Silent, "not heard from for"),
        (Fault::Partition { nodes: vec![two] }, Check::Silent, "not heard from for"),
        (Fault::StopEnclave { node: two }, Check::Enclave, "enclave: no answer for"),
        (Fault::BreakStore { node: two }, Check::Store, "store: "),
    ] {
        breaks(&cluster, &mut console, fault, (&[2], check, words)).await;
    }
    let behind = Fault::SkewClock { node: two, seconds: -20 };
    cluster.strike(&behind).await.unwrap();
    // What was heard before could be repeated; only what is dated later is believed.
    console.names(&[2], Check::Backdated, "its clock was set back").await;
    console
        .until("a clock that has passed what it showed before", PATIENCE, |health| {
            health.nodes.iter().any(|status| status.check == Some(Check::Clock))
        })
        .await;
    console.names(&[2], Check::Clock, "s behind this console's").await;
    cluster.strike(&Fault::Heal).await.unwrap();
    console.is_well().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_of_what_all_share_is_named_as_that_and_blames_no_node() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, room) = with_wallet(folder.path()).await;
    let mut console = Console::at(&room).await;
    console.is_well().await;
    let all: Vec<u8> = cluster.nodes().map(NodeIndex::get).collect();
    for (fault, check, words) in [
        (Fault::StopBroker, Check::AllSilent, "not known: "),
        (Fault::SlowBus { milliseconds: 4000 }, Check::Late, "heartbeats of every node come"),
        (Fault::BreakBackup, Check::Backups, "backups: "),
        (Fault::BreakKms, Check::Kms, "KMS: "),
    ] {
        breaks(&cluster, &mut console, fault, (&all, check, words)).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opener_is_told_of_a_lost_share_and_its_node_says_once_why_it_does_not_attest() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, room) = with_wallet(folder.path()).await;
    let mut console = Console::at(&room).await;
    console.is_well().await;
    cluster.lose(node(2)).await.unwrap();
    console.finds(2, Check::ShareLost).await;
    for (kind, told) in
        [("test-sign", "not every signer's share is known to be there"), ("refresh", "node 2")]
    {
        let manifest = folder.path().join(kind);
        let open = custody()
            .arg("--cluster")
            .arg(cluster.layout().console())
            .args(["ceremony", "open", kind, "--wallet", "treasury", "--purpose", "a test", "--manifest"])
            .arg(manifest)
            .output()
            .unwrap();
        let said = String::from_utf8(open.stderr).unwrap();
        assert!(open.status.success() && said.contains("WARNING") && said.contains(told), "{kind}: {said}");
    }

    let id = open(&room, CeremonyKind::TestSign, "treasury").await;
    let log = cluster.layout().node(node(2)).join("agent.log");
    let times = || {
        let log = std::fs::read_to_string(&log).unwrap();
        log.lines().filter(|line| line.contains("not attesting") && line.contains(id.as_str())).count()
    };
    let begun = Instant::now();
    while times() == 0 {
        assert!(begun.elapsed() < PATIENCE);
        console.look().await;
    }
    // It sees to its duties with each heartbeat.
    for _ in 0..4 {
        heartbeat_after(&room, 2).await;
    }
    assert_eq!(times(), 1);
    cluster.stop().await;
}

/// Waits for a heartbeat that a node sends from now on.
async fn heartbeat_after(room: &Room, index: u8) {
    let now = console::room::now();
    crate::record::heartbeat(room, index, |heartbeat| heartbeat.time_ms > now.0).await;
}
