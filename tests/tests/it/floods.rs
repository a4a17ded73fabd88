//! What one node can make the others read, keep and carry: a bounded share, which is shown, and nothing once it stopped.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::time::Instant;

use ceremonies::charter::CeremonyKind;
use ceremonies::deploy::subject;
use ceremonies::script::Act;
use console::checks::Check;
use futures_util::StreamExt as _;
use lab::attack::{Host, Published, Raw};
use lab::cluster::Cluster;

use crate::broker::client;
use crate::ceremonies::{PATIENCE, node, open};
use crate::consoles::run;
use crate::faults::{Console, with_wallet};
use crate::record::{SOON, of_one_mind};

/// How much an agent may grow while another node floods the bus: some of what that node may have waiting.
const MAX_GROWTH: u64 = 24 * 1024 * 1024;

/// The resident memory of a node's agent.
fn memory(cluster: &Cluster, index: u8) -> u64 {
    let own = cluster.layout().node(node(index)).join("node.toml");
    let is_its = |process: &std::path::PathBuf| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(own.to_str().unwrap())
    };
    let mut processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let status = std::fs::read_to_string(processes.find(is_its).unwrap().join("status")).unwrap();
    let resident = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    resident.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_floods_the_bus_is_named_and_costs_the_others_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = with_wallet(folder.path()).await;
    let mut console = Console::at(&room).await;
    console.is_well().await;
    let id = open(&room, CeremonyKind::Dkg, "savings").await;
    let before = memory(&cluster, 1);

    let host = Host::with_credentials_of(&cluster, node(3)).await.unwrap();
    let flood = host.flood_heads(&id, 2_000, 60).unwrap();
    console.names(&[3], Check::Surplus, "sends more than a node may").await;
    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    let begun = Instant::now();
    run(&cluster.layout().console(), &["ceremony", "show", id.as_str()], None).unwrap();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let grown = memory(&cluster, 1).saturating_sub(before);
    assert!(grown < MAX_GROWTH, "an agent grew by {grown} bytes");
    cluster.agent(node(2)).unwrap().freeze().await;
    console.finds(2, Check::Silent).await;
    cluster.agent(node(2)).unwrap().thaw().await;

    flood.abort();
    console.shows_all_nodes_well().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_a_node_has_the_broker_deliver_on_the_bus_reach_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = with_wallet(folder.path()).await;
    let mut console = Console::at(&room).await;
    console.is_well().await;
    let id = open(&room, CeremonyKind::Dkg, "savings").await;
    let host = Host::with_credentials_of(&cluster, node(3)).await.unwrap();
    let one = host.put(&id, vec![b'x'; 4096]).await.unwrap();
    let subjects =
        ["head.3", "head.2", "health.2", "record.1.3", "record.1.2", "progress.dkg-x.2", "_INBOX_node_1.x"];

    // It is delivered, but only to the node itself.
    let (second, _) = client(
        &cluster.nats_url(),
        &cluster.layout().node(node(2)).join("nats.seed"),
        subject::node_inbox(node(2)),
    )
    .await;
    let (mut own, mut anothers) =
        (host.client().subscribe("head.3").await.unwrap(), second.subscribe("head.3").await.unwrap());
    tokio::try_join!(host.client().flush(), second.flush()).unwrap();
    host.deliver(one, "head.3").await.unwrap();
    let is_it = |message: &async_nats::Message| message.payload.len() == 4096;
    while !is_it(&own.next().await.unwrap()) {}

    let floods = subjects.map(|subject| host.flood_answers(subject, 60));
    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    console.is_well().await;
    for flood in floods {
        assert!(!flood.is_finished(), "the flood was cut off");
        flood.abort();
    }
    // What the node says itself comes after all that it had the broker deliver.
    host.client().publish("head.3", "the end".into()).await.unwrap();
    loop {
        let said = anothers.next().await.unwrap();
        assert!(!is_it(&said), "node 2 hears what node 3 had the broker deliver");
        if said.payload == "the end" {
            break;
        }
    }
    cluster.stop().await;
}

/// Headers that a publisher may send, and no client reads, or that pass for the broker's own.
const HEADERS: [&[u8]; 7] = [
    b"Nats-Sequence: 7777",
    b"Nats-Sequence: 1\r\nNats-Subject: head.1",
    b"no colon",
    b"Key: \xff\xfe",
    b": no name",
    b" spaced: name",
    b"Status: 404",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_no_client_reads_stops_no_log_and_cuts_nobody_off_but_its_sender() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = crate::record::cluster(folder.path()).await;
    let mut console = Console::at(&room).await;
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    let message = |subject: &[u8], headers: Option<&[u8]>| Published {
        subject: subject.to_vec(),
        headers: headers.map(<[u8]>::to_vec),
        payload: b"x".to_vec(),
    };

    let mut stored = Raw::with_credentials_of(&cluster, node(3)).await.unwrap();
    for headers in HEADERS {
        stored.publish(&message(subject::log(&id).as_bytes(), Some(headers))).await.unwrap();
        stored.publish(&message(b"ceremony.log.dkg-other-1", Some(headers))).await.unwrap();
    }
    stored.publish(&message(b"ceremony.log.\xff\xfe", None)).await.unwrap();
    room.lead_to(&id, Act::Approve, PATIENCE).await.unwrap();
    of_one_mind(&cluster, &[1, 2, 3, 4, 5], &id, 7).await;
    // So does an agent that starts while they are in the stream.
    cluster.agent(node(1)).unwrap().kill().await;
    console.shows_all_nodes_well().await;

    let said = ["head.3", "health.3", "record.1.3", "progress.dkg-x.3"].map(str::as_bytes);
    let live = said.iter().flat_map(|subject| HEADERS.map(|headers| message(subject, Some(headers))));
    let live = live.chain([message(b"mpc.1.\xff.3", None), message(b"mpc.2.\xff.3", None)]);
    let flood = Raw::with_credentials_of(&cluster, node(3)).await.unwrap().flood(live.collect(), 5);
    let other = open(&room, CeremonyKind::Dkg, "savings").await;
    assert!(room.wait_recorded(&other, PATIENCE).await.unwrap().recorded);
    console.shows_well(&[1, 2, 4, 5]).await;
    let begun = Instant::now();
    run(&cluster.layout().console(), &["ceremony", "show", other.as_str()], None).unwrap();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(!flood.is_finished(), "the flood was cut off");
    flood.abort();
    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    console.shows_all_nodes_well().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_that_no_client_reads_keeps_no_console_from_the_other_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, room) = crate::record::cluster(folder.path()).await;
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    cluster.agent(node(3)).unwrap().hold().await;
    let asked = [subject::submissions_to(node(3)), subject::reads_of(node(3)), subject::list(node(3))];
    let raw = Raw::with_credentials_of(&cluster, node(3)).await.unwrap();
    let answering = raw.answer(&asked, b"no colon").await.unwrap();
    for command in [vec!["ceremony", "list"], vec!["ceremony", "show", id.as_str()]] {
        let begun = Instant::now();
        let shown = run(&cluster.layout().console(), &command, None).unwrap();
        assert!(shown.contains(id.as_str()) && begun.elapsed() < SOON, "{shown} after {:?}", begun.elapsed());
    }
    let other = open(&room, CeremonyKind::Dkg, "savings").await;
    let shown = run(&cluster.layout().console(), &["ceremony", "show", other.as_str()], None).unwrap();
    assert!(shown.contains("recorded by 4 of 5"), "{shown}");
    assert!(!answering.is_finished(), "the hostile node was cut off");
    answering.abort();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_asks_itself_may_answer_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, _room) = with_wallet(folder.path()).await;
    let seed = cluster.layout().node(node(2)).join("nats.seed");
    let (second, mut complaints) = client(&cluster.nats_url(), &seed, subject::node_inbox(node(2))).await;
    let mut own = second.subscribe(subject::head(node(2))).await.unwrap();
    second.flush().await.unwrap();
    for elsewhere in ["head.3", "health.3", "record.1.3", "ceremony.list.1", "_INBOX_node_1.x"] {
        second.publish_with_reply(subject::head(node(2)), elsewhere, "?".into()).await.unwrap();
        // That it has arrived is what would let it answer.
        while own.next().await.unwrap().reply.as_deref() != Some(elsewhere) {}
        crate::broker::is_forbidden(&second, &mut complaints, elsewhere).await;
    }
    cluster.stop().await;
}
