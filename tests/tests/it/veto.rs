//! A veto ends what it is about, whoever stalls and whatever they fill.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ceremonies::ceremony::{Ceremony, Phase};
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::ids::CeremonyId;
use ceremonies::log::Event;
use ceremonies::script::Act;
use ceremonies::statement::Answer;
use ceremonies::wire::bus::Heartbeat;
use console::client::{News, Receipt};
use console::room::{self, Signature, now};
use futures_util::StreamExt as _;
use lab::attack::Host;
use lab::cluster::Cluster;
use lab::drive::Room;
use node::store::Store;
use tokio::task::JoinSet;

use crate::ceremonies::{PATIENCE, node, open};
use crate::faults::with_wallet;
use crate::record::{HEALED, cluster, heartbeat, of_one_mind};

/// How soon a session must end: well before it would of itself, for want of a party.
const AT_ONCE: Duration = Duration::from_secs(8);

async fn withdraw(room: &Room, id: &CeremonyId) -> Receipt {
    let operator = room.people(Role::Operator).next().unwrap().clone();
    let end = Answer::Withdraw("stop".parse().unwrap());
    let veto = Signature::by(&operator, "withdraw".parse().unwrap(), end);
    room::sign(&room.client, &room.book, id, &veto, &operator.key, None).await.unwrap()
}

/// Waits until a node has read the stream up to here.
async fn has_read(cluster: &Cluster, index: u8, sequence: u64) {
    let store = Store::open(&cluster.store_url(node(index))).await.unwrap();
    let wait = async {
        while store.read_to().await.unwrap().is_none_or(|mark| mark.seq < sequence) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

/// Waits until a node reports that its session waits for this one.
async fn is_waited_for(room: &Room, index: u8) {
    let mut news = Box::pin(room.client.news().await.unwrap());
    let wait = async {
        while let Some(news) = news.next().await {
            let News::Progress(progress) = news else { continue };
            if progress.waiting_for.contains(&u32::from(index)) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

/// Which nodes' enclaves have said that they gave up because it is over.
fn gave_up(room: &Room, id: &CeremonyId) -> Vec<u8> {
    let entries = room.book.get(id).unwrap().entries.iter();
    let aborted = entries.filter_map(|entry| {
        let Event::Aborted(aborted) = &entry.event else { return None };
        (aborted.reason.as_str() == "the ceremony is over").then_some(aborted.node)
    });
    aborted.map(|node| u8::try_from(u32::from(node)).unwrap()).collect()
}

async fn has_given_up(room: &mut Room, id: &CeremonyId, index: u8) {
    let wait = async {
        while !gave_up(room, id).contains(&index) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            room.look(id).await.unwrap();
        }
    };
    tokio::time::timeout(AT_ONCE, wait).await.unwrap();
}

/// A test signing whose session has begun everywhere and waits for the first node's enclave, which is frozen.
async fn stalled(cluster: &Cluster, room: &mut Room) -> CeremonyId {
    let id = open(room, CeremonyKind::TestSign, "treasury").await;
    room.lead_to(&id, Act::Approve, PATIENCE).await.unwrap();
    cluster.enclave(node(1)).unwrap().freeze().await;
    let ((), led) = tokio::join!(is_waited_for(room, 1), async {
        let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
        room.lead_to(&id, Act::TestSign, PATIENCE).await
    });
    led.unwrap();
    id
}

/// The enclave goes on, and has done all that it was told while it was frozen: it answers in the order in which it was asked.
async fn goes_on(cluster: &Cluster, room: &Room) {
    let answers = |heartbeat: &Heartbeat| heartbeat.enclave.as_ref().is_some_and(|e| e.trouble.is_empty());
    heartbeat(room, 1, |heartbeat| !answers(heartbeat)).await;
    cluster.enclave(node(1)).unwrap().thaw().await;
    heartbeat(room, 1, answers).await;
}

fn is_unsigned(room: &Room, id: &CeremonyId) -> bool {
    let entries = &room.book.get(id).unwrap().entries;
    !entries.iter().any(|entry| matches!(entry.event, Event::TestSigned(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn veto_ends_a_session_in_which_one_party_stalls_and_nothing_is_signed_once_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = with_wallet(folder.path()).await;
    let id = stalled(&cluster, &mut room).await;
    let receipt = withdraw(&room, &id).await;
    assert!(receipt.recorded().recorded, "{receipt}");
    has_given_up(&mut room, &id, 2).await;
    goes_on(&cluster, &room).await;
    room.look(&id).await.unwrap();
    let ceremony = room.ceremony(&id).unwrap();
    assert!(matches!(ceremony.phase_at(now()), Phase::Void(_)), "{}", ceremony.phase_at(now()));
    assert!(is_unsigned(&room, &id));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn veto_that_the_broker_keeps_out_of_the_log_ends_the_session_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = with_wallet(folder.path()).await;
    let id = stalled(&cluster, &mut room).await;
    cluster.lose_streams().await.unwrap();
    for node in cluster.nodes() {
        heartbeat(&room, node.get(), |heartbeat| heartbeat.stream_trouble.contains("no stream")).await;
    }
    let unknown = format!("{:#}", room.withdraw(&id, "stop".parse().unwrap()).await.unwrap_err());
    assert!(
        unknown.contains("do not sign again") && unknown.contains("does nothing more in it"),
        "{unknown}"
    );
    goes_on(&cluster, &room).await;
    cluster.make_stream().await.unwrap();
    let is_void = |ceremony: &Ceremony| matches!(ceremony.phase_at(now()), Phase::Void(_));
    room.wait(&id, HEALED, is_void).await.unwrap();
    assert!(room.wait_recorded(&id, HEALED).await.unwrap().recorded);
    assert!(is_unsigned(&room, &id));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_of_other_logs_puts_off_no_veto_however_long_it_lasts() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to(&id, Act::Approve, PATIENCE).await.unwrap();
    let host = Arc::new(Host::with_credentials_of(&cluster, node(3)).await.unwrap());
    let mut flood = JoinSet::new();
    for writer in 0..16 {
        let host = Arc::clone(&host);
        flood.spawn(async move {
            let junk = format!("junk-{writer}").parse().unwrap();
            // Each log takes so many messages, and then no more.
            while host.put(&junk, b"x".to_vec()).await.is_ok() {}
        });
    }
    for index in 1..=5 {
        has_read(&cluster, index, 500).await;
    }
    // On a slow machine it takes longer than a console waits.
    let _ = room.withdraw(&id, "stop".parse().unwrap()).await;
    let is_void = |ceremony: &Ceremony| matches!(ceremony.phase_at(now()), Phase::Void(_));
    room.wait(&id, HEALED, is_void).await.unwrap();
    assert!(room.wait_recorded(&id, HEALED).await.unwrap().recorded);
    assert!(flood.try_join_next().is_none(), "it goes on all the while");
    flood.abort_all();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ceremony_whose_place_in_the_stream_is_full_is_vetoed_all_the_same_and_costs_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to(&id, Act::Approve, PATIENCE).await.unwrap();
    let host = Host::with_credentials_of(&cluster, node(3)).await.unwrap();
    host.flood(&id, 4096).await.unwrap();
    let mut last = 0;
    while let Ok(sequence) = host.put(&id, b"x".to_vec()).await {
        last = sequence;
    }
    for index in 1..=5 {
        has_read(&cluster, index, last).await;
    }

    // What people sign, and what follows from it, is recorded without the stream. Nodes read what they passed over once more
    // before they append, which may take longer than a console waits.
    let begun = Instant::now();
    while let Err(unknown) = room.lead_to(&id, Act::Generate, PATIENCE).await {
        assert!(begun.elapsed() < HEALED, "{unknown:#}");
        room.look(&id).await.unwrap();
    }
    let told =
        heartbeat(&room, 1, |heartbeat| heartbeat.stream_trouble.contains("has filled its place")).await;
    assert!(told.stream_trouble.starts_with(id.as_str()), "{}", told.stream_trouble);
    let receipt = withdraw(&room, &id).await;
    assert!(receipt.recorded().recorded, "{receipt}");
    let log = of_one_mind(&cluster, &[1, 2, 3, 4, 5], &id, usize::try_from(receipt.seq).unwrap()).await;
    assert!(log.iter().any(|entry| matches!(entry.event, Event::Withdrawn { .. })));

    let other = open(&room, CeremonyKind::Dkg, "ops").await;
    room.lead_to_close(&other, PATIENCE, |_| ()).await.unwrap();
    // Once it is over, nobody is troubled by it any more.
    for index in 1..=5 {
        heartbeat(&room, index, |heartbeat| heartbeat.stream_trouble.is_empty()).await;
    }
    // Whoever comes back with nothing has it from the others.
    let agent = cluster.agent(node(2)).unwrap();
    agent.hold().await;
    for file in ["store.db", "store.db-wal", "store.db-shm"] {
        let _ = std::fs::remove_file(cluster.layout().node(node(2)).join(file));
    }
    agent.resume().await;
    of_one_mind(&cluster, &[1, 2, 3, 4, 5], &id, log.len()).await;
    cluster.stop().await;
}
