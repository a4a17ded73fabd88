//! A byzantine enclave in the place of one node's, with documents of the allowed image.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks at the variants that it is about")]
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::time::Duration;

use ceremonies::ceremony::{Ceremony, Phase};
use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{CeremonyId, NodeIndex};
use ceremonies::log::Event;
use ceremonies::script::Act;
use ceremonies::subsets::Subset;
use console::room::now;
use lab::attack::{Peer, PeerMisdeed};
use lab::cluster::Cluster;
use lab::drive::Room;
use node::store::Store;

use crate::ceremonies::{PATIENCE, node, open, plan};

const BYZANTINE: u8 = 3;
/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(50);

struct Scene {
    folder: tempfile::TempDir,
    cluster: Cluster,
    room: Room,
    peer: Peer,
}

/// A small cluster whose node 3 has a byzantine enclave.
async fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 3, 2)).await.unwrap();
    let peer = Peer::instead_of(&cluster, node(BYZANTINE)).await.unwrap();
    let room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    Scene { folder, cluster, room, peer }
}

async fn begun(room: &mut Room, wallet: &str) -> CeremonyId {
    let id = open(room, CeremonyKind::Dkg, wallet).await;
    room.lead_to(&id, Act::Generate, PATIENCE).await.unwrap();
    id
}

fn is_void(ceremony: &Ceremony) -> bool {
    matches!(ceremony.phase_at(now()), Phase::Void(_))
}

/// The nodes that this ceremony's enclaves accuse.
fn culprits(room: &Room, id: &CeremonyId) -> Vec<NodeIndex> {
    let entries = &room.book.get(id).unwrap().entries;
    entries
        .iter()
        .filter_map(|entry| match &entry.event {
            Event::Aborted(aborted) => aborted.culprit,
            _ => None,
        })
        .collect()
}

async fn holds_no_current_share(cluster: &Cluster, honest: u8) {
    let store = store(cluster, honest).await;
    assert!(
        store.held(u32::MAX).await.unwrap().iter().all(|share| share.state != "current"),
        "node {honest}"
    );
}

/// The node accused, as soon as one is.
async fn accusations(room: &mut Room, id: &CeremonyId) -> Vec<NodeIndex> {
    loop {
        room.look(id).await.unwrap();
        let accused = culprits(room, id);
        if !accused.is_empty() {
            return accused;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn store(cluster: &Cluster, of: u8) -> Store {
    let url = format!("sqlite:{}", cluster.layout().node(node(of)).join("store.db").display());
    Store::open(&url).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_that_shows_two_faces_is_named_with_evidence_and_nobody_is_banned() {
    let Scene { cluster, mut room, peer, folder: _folder } = scene().await;
    peer.commits([PeerMisdeed::TwoFaces(node(1))]);
    let id = begun(&mut room, "treasury").await;
    room.wait(&id, PATIENCE, |ceremony| is_void(ceremony) && ceremony.can_never_commit()).await.unwrap();
    // The byzantine enclave's own word may come before those of the honest.
    let accused = tokio::time::timeout(PATIENCE, accusations(&mut room, &id)).await.unwrap();
    assert!(accused.iter().all(|culprit| *culprit == node(BYZANTINE)), "{accused:?}");
    let mut kept = 0;
    for honest in [1, 2] {
        holds_no_current_share(&cluster, honest).await;
        kept += store(&cluster, honest).await.evidence(&id).await.unwrap().len();
    }
    assert!(kept >= 2, "the envelopes that contradict each other are kept: {kept}");
    assert_eq!(room.book.bans().count(), 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_enclave_corrupts_in_what_it_signs_voids_the_key_generation_and_names_it() {
    let Scene { cluster, mut room, peer, folder: _folder } = scene().await;
    for (wallet, misdeed) in [
        ("fragment", PeerMisdeed::CorruptPrivate(1)),
        ("commitment", PeerMisdeed::CorruptBroadcast(2)),
        ("opening", PeerMisdeed::CorruptBroadcast(4)),
        ("set-up", PeerMisdeed::CorruptPrivate(4)),
    ] {
        peer.commits([misdeed]);
        let id = begun(&mut room, wallet).await;
        room.wait(&id, PATIENCE, is_void).await.unwrap();
        assert!(room.ceremony(&id).unwrap().committed().is_none(), "{wallet}");
        let accused = culprits(&room, &id);
        assert!(accused.iter().all(|culprit| *culprit == node(BYZANTINE)), "{wallet}: {accused:?}");
        assert_eq!(room.book.bans().filter(|(_, peer)| *peer != node(BYZANTINE)).count(), 0, "{wallet}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_about_the_result_commits_nothing_and_both_words_of_one_enclave_are_not_taken() {
    let Scene { cluster, mut room, peer, folder: _folder } = scene().await;
    peer.commits([PeerMisdeed::LieAboutResult]);
    let id = begun(&mut room, "lie").await;
    room.wait(&id, PATIENCE, |ceremony| is_void(ceremony) && ceremony.can_never_commit()).await.unwrap();
    for honest in [1, 2] {
        holds_no_current_share(&cluster, honest).await;
    }
    peer.commits([PeerMisdeed::SayBoth, PeerMisdeed::Garbage]);
    let id = begun(&mut room, "both").await;
    room.lead_to(&id, Act::ReadBack, PATIENCE).await.unwrap();
    assert!(room.ceremony(&id).unwrap().committed().is_some(), "the first word stands");
    assert!(culprits(&room, &id).is_empty());
    assert_eq!(room.book.bans().count(), 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_oblivious_transfer_bans_its_sender_for_good_and_no_honest_node() {
    let Scene { cluster, mut room, peer, folder: _folder } = scene().await;
    let dkg = begun(&mut room, "treasury").await;
    // The attacker's enclave writes no backup.
    room.lead_to(&dkg, Act::Backup, PATIENCE).await.unwrap();
    peer.commits([PeerMisdeed::CorruptPrivate(1)]);
    let first = open(&room, CeremonyKind::TestSign, "treasury").await;
    room.lead_to(&first, Act::TestSign, PATIENCE).await.unwrap();
    room.wait(&first, PATIENCE, |ceremony| !ceremony.bans().is_empty()).await.unwrap();
    assert!(room.book.bans().all(|(by, banned)| by != node(BYZANTINE) && banned == node(BYZANTINE)));

    // Neither a restart of the honest enclave, nor another ceremony, nor good behaviour undoes it.
    peer.commits([]);
    let (by, _) = room.book.bans().next().unwrap();
    cluster.enclave(by).unwrap().kill().await;
    let stored = store(&cluster, by.get()).await.bans().await.unwrap();
    assert!(stored.contains(&(by, node(BYZANTINE))));
    let test = open(&room, CeremonyKind::TestSign, "treasury").await;
    room.lead_to(&test, Act::TestSign, PATIENCE).await.unwrap();
    let refuses = |event: &Event| match event {
        Event::Faulted { node, reason } => *node == by && reason.as_str().contains("banned pair"),
        _ => false,
    };
    let begun = std::time::Instant::now();
    while !room.book.get(&test).unwrap().entries.iter().any(|entry| refuses(&entry.event)) {
        assert!(begun.elapsed() < PATIENCE, "the banned pair was not refused");
        room.wait(&test, PATIENCE, |_| true).await.unwrap();
    }
    let pair = |subset: &Subset| subset.contains(by) && subset.contains(node(BYZANTINE));
    assert!(!room.ceremony(&test).unwrap().tests().iter().any(|test| pair(&test.subset)));
    cluster.stop().await;
}
