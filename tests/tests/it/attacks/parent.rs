//! A compromised parent, between the agent and the enclave of one node.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use ceremonies::ceremony::{Ceremony, Phase};
use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{CeremonyId, Generation};
use ceremonies::script::Act;
use console::room::now;
use lab::attack::{Misdeed, Parent};
use lab::cluster::Cluster;
use lab::drive::Room;
use node::store::Store;

use crate::ceremonies::{PATIENCE, node, open, plan};

struct Scene {
    folder: tempfile::TempDir,
    cluster: Cluster,
    room: Room,
    parent: Parent,
}

/// A small cluster whose node 2 has a compromised parent.
async fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 3, 2)).await.unwrap();
    let parent = Parent::between(&cluster, node(2)).await.unwrap();
    let room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    Scene { folder, cluster, room, parent }
}

async fn sealed_share(cluster: &Cluster, room: &Room, dkg: &CeremonyId) -> Vec<u8> {
    let url = format!("sqlite:{}", cluster.layout().node(node(2)).join("store.db").display());
    let record = room.ceremony(dkg).unwrap().record().unwrap().clone();
    let share = Store::open(&url).await.unwrap().share(&record.wallet, Generation(1), &record.digest()).await;
    share.unwrap().unwrap().blob
}

fn is_void(ceremony: &Ceremony) -> bool {
    matches!(ceremony.phase_at(now()), Phase::Void(_))
}

fn nobody_is_banned(room: &Room) {
    assert_eq!(room.book.bans().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn doubling_reordering_replaying_and_forging_messages_changes_nothing() {
    let Scene { cluster, mut room, parent, folder: _folder } = scene().await;
    parent.commits([
        Misdeed::Double,
        Misdeed::Reorder,
        Misdeed::Replay,
        Misdeed::Truncate,
        Misdeed::FlipBit,
        Misdeed::OtherSender,
        Misdeed::Oversize,
    ]);
    let dkg = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to_close(&dkg, PATIENCE, |_| ()).await.unwrap();
    let test = open(&room, CeremonyKind::TestSign, "treasury").await;
    room.lead_to_close(&test, PATIENCE, |_| ()).await.unwrap();
    nobody_is_banned(&room);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_or_changed_messages_void_the_key_generation_and_ban_nobody() {
    let Scene { cluster, mut room, parent, folder: _folder } = scene().await;
    for (wallet, misdeed) in [("dropped", Misdeed::Drop), ("changed", Misdeed::FlipEvery)] {
        parent.commits([misdeed]);
        let dkg = open(&room, CeremonyKind::Dkg, wallet).await;
        room.lead_to(&dkg, Act::Generate, PATIENCE).await.unwrap();
        room.wait(&dkg, PATIENCE, is_void).await.unwrap();
        assert!(room.ceremony(&dkg).unwrap().record().is_none());
    }
    nobody_is_banned(&room);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_the_log_or_charter_does_not_bear_out_are_refused_and_the_key_generation_is_void() {
    let Scene { cluster, mut room, parent, folder: _folder } = scene().await;
    let charter = std::fs::read_to_string(cluster.layout().charter()).unwrap();
    let other = charter.replace("max_age_s = ", "max_age_s = 1");
    assert_ne!(charter, other);
    // The enclave is shown its charter once before it is shown another.
    let first = open(&room, CeremonyKind::Dkg, "first").await;
    room.lead_to_close(&first, PATIENCE, |_| ()).await.unwrap();
    for (wallet, misdeed, refusal) in [
        ("unapproved", Misdeed::ForgetEntries(1), "calls for nothing"),
        ("empty", Misdeed::ForgetEntries(usize::MAX), "lacks a log"),
        ("another-charter", Misdeed::ShowCharter(other.into_bytes()), "another first charter"),
        ("no-charter", Misdeed::ShowCharter(Vec::new()), "charter is refused"),
    ] {
        parent.commits([misdeed]);
        let dkg = open(&room, CeremonyKind::Dkg, wallet).await;
        room.lead_to(&dkg, Act::Generate, PATIENCE).await.unwrap();
        parent.hears_refusal(refusal, PATIENCE).await.unwrap();
        room.wait(&dkg, PATIENCE, is_void).await.unwrap();
    }
    nobody_is_banned(&room);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_ordered_twice_runs_once() {
    let Scene { cluster, mut room, parent, folder: _folder } = scene().await;
    parent.commits([Misdeed::StartTwice]);
    let dkg = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to_close(&dkg, PATIENCE, |_| ()).await.unwrap();
    parent.hears_refusal("already begun that session", PATIENCE).await.unwrap();
    nobody_is_banned(&room);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_gives_back_another_share_makes_no_key() {
    let Scene { cluster, mut room, parent, folder: _folder } = scene().await;
    parent.commits([Misdeed::FlipStored]);
    let dkg = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to(&dkg, Act::Generate, PATIENCE).await.unwrap();
    room.wait(&dkg, PATIENCE, |ceremony| is_void(ceremony) && ceremony.can_never_commit()).await.unwrap();
    nobody_is_banned(&room);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_generations_share_or_a_forked_log_signs_nothing() {
    let Scene { cluster, mut room, parent, folder: _folder } = scene().await;
    let other = open(&room, CeremonyKind::Dkg, "other").await;
    room.lead_to_close(&other, PATIENCE, |_| ()).await.unwrap();
    let dkg = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to(&dkg, Act::ReadBack, PATIENCE).await.unwrap();
    let stale = sealed_share(&cluster, &room, &other).await;
    let mut flipped = sealed_share(&cluster, &room, &dkg).await;
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;

    for blob in [stale, flipped, Vec::new()] {
        // Otherwise the share is still open in the enclave, and no blob is looked at.
        cluster.enclave(node(2)).unwrap().kill().await;
        parent.commits([Misdeed::ShowBlob(blob)]);
        let test = open(&room, CeremonyKind::TestSign, "treasury").await;
        room.lead_to(&test, Act::TestSign, PATIENCE).await.unwrap();
        let gave_up = |ceremony: &Ceremony| ceremony.due_subset().is_none() && ceremony.tests().is_empty();
        room.wait(&test, PATIENCE, |ceremony| {
            gave_up(ceremony) || ceremony.cover().iter().any(|subset| ceremony.attempt(subset) > 1)
        })
        .await
        .unwrap();
        let signed_by_2 = |test: &ceremonies::ceremony::TestSignature| test.subset.contains(node(2));
        assert!(!room.ceremony(&test).unwrap().tests().iter().any(signed_by_2));
    }
    cluster.enclave(node(2)).unwrap().kill().await;
    parent.commits([Misdeed::ForkLog]);
    let test = open(&room, CeremonyKind::TestSign, "treasury").await;
    room.lead_to(&test, Act::TestSign, PATIENCE).await.unwrap();
    parent.hears_refusal("forks at entry", PATIENCE).await.unwrap();

    // With its own share and the true log it signs again.
    parent.commits([]);
    cluster.enclave(node(2)).unwrap().kill().await;
    let test = open(&room, CeremonyKind::TestSign, "treasury").await;
    room.lead_to_close(&test, PATIENCE, |_| ()).await.unwrap();
    nobody_is_banned(&room);
    cluster.stop().await;
}
