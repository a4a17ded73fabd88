//! The second half of a key's life: refresh, a lost node's recovery, and old shares that nobody accepts any more.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use ceremonies::ceremony::{Ceremony, Phase};
use ceremonies::charter::CeremonyKind;
use ceremonies::evidence::{Expected, verify};
use ceremonies::ids::{CeremonyId, Generation, NodeIndex};
use ceremonies::manifest::Way;
use ceremonies::script::Act;
use ceremonies::wallet::Wallet;
use console::room::{Topic, now};
use lab::cluster::Cluster;
use lab::drive::Room;
use node::store::{PendingShare, Store};

use crate::ceremonies::{PATIENCE, is_given_up, material, node, open, plan};

fn recovery(lost: &[u8], way: Way) -> Topic {
    let lost = lost.iter().map(|index| (node(*index), way)).collect::<BTreeMap<_, _>>();
    Topic::losses(CeremonyKind::Recover, "treasury".parse().unwrap(), lost)
}

async fn recover(room: &mut Room, lost: &[u8], way: Way) -> CeremonyId {
    room.open_about(recovery(lost, way), "Nodes were lost".parse().unwrap()).await.unwrap()
}

async fn closes(room: &mut Room, id: &CeremonyId) -> Wallet {
    room.lead_to_close(id, PATIENCE, |_| ()).await.unwrap();
    let bundle = material(room, id).bundle().unwrap();
    assert!(verify(&bundle, &Expected::default()).unwrap().complete);
    room.book.wallet(&"treasury".parse().unwrap()).unwrap()
}

async fn refuses(room: &Room, topic: Topic, why: &str) {
    let refused = room.open_about(topic, "Refused".parse().unwrap()).await.unwrap_err();
    assert!(format!("{refused:#}").contains(why), "{refused:#}");
}

/// The generations of the wallet that a node's store holds.
async fn held(cluster: &Cluster, index: u8) -> Vec<(u32, String)> {
    let store = Store::open(&cluster.store_url(node(index))).await.unwrap();
    let held = store.held(u32::MAX).await.unwrap();
    held.into_iter().map(|share| (share.generation, share.state)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_gives_every_node_a_new_share_of_the_same_key_and_the_old_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 5, 3)).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let dkg = open(&room, CeremonyKind::Dkg, "treasury").await;
    refuses(&room, Topic::of(CeremonyKind::Refresh, "treasury".parse().unwrap()), "is not committed").await;
    let first = closes(&mut room, &dkg).await;
    let before = room.book.clone();

    let refresh = open(&room, CeremonyKind::Refresh, "treasury").await;
    room.look(&refresh).await.unwrap();
    for other in [
        Topic::of(CeremonyKind::Refresh, "treasury".parse().unwrap()),
        Topic::of(CeremonyKind::TestSign, "treasury".parse().unwrap()),
    ] {
        refuses(&room, other, "under way").await;
    }
    room.lead_to(&refresh, Act::Commit, PATIENCE).await.unwrap();
    assert_eq!(room.ceremony(&refresh).unwrap().phase_at(now()), Phase::Authorised);
    assert_eq!(held(&cluster, 2).await, [(1, "current".to_owned()), (2, "pending".to_owned())]);
    let second = closes(&mut room, &refresh).await;
    assert_eq!(second.record.generation, Generation(2));
    assert_eq!(second.record.public_key, first.record.public_key);
    assert_eq!(second.record.chain_code, first.record.chain_code);
    for (party, share) in &second.record.public_shares {
        assert_ne!(first.record.public_shares.get(party), Some(share));
        assert_eq!(held(&cluster, party.get()).await, [(2, "current".to_owned())]);
    }

    let test = open(&room, CeremonyKind::TestSign, "treasury").await;
    closes(&mut room, &test).await;
    let behind =
        Room { cluster: room.cluster.clone(), client: room.client.clone(), book: before, endpoint: None };
    refuses(&behind, Topic::of(CeremonyKind::TestSign, "treasury".parse().unwrap()), "at generation 2").await;
    cluster.stop().await;
}

/// Nobody is asked to approve test signatures that a node without its share would make fail.
async fn attests_to_nothing_without_its_share(cluster: &Cluster, room: &mut Room, lost: NodeIndex) {
    let id = open(room, CeremonyKind::TestSign, "treasury").await;
    let attested = |ceremony: &Ceremony| ceremony.enclaves().keys().copied().collect::<BTreeSet<_>>();
    let others: BTreeSet<NodeIndex> = (1..=5).map(node).filter(|node| *node != lost).collect();
    room.wait(&id, PATIENCE, |ceremony| attested(ceremony).is_superset(&others)).await.unwrap();
    // A node that attests does so long before a console has listened to all.
    says(cluster, &format!("node {lost} lost its share and needs a recovery")).await;
    room.look(&id).await.unwrap();
    assert_eq!(attested(room.ceremony(&id).unwrap()), others);
    room.withdraw(&id, "a share is lost".parse().unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_everything_gets_its_share_back_by_repair() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 5, 3)).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let dkg = open(&room, CeremonyKind::Dkg, "treasury").await;
    let first = closes(&mut room, &dkg).await;

    cluster.lose(node(4)).await.unwrap();
    attests_to_nothing_without_its_share(&cluster, &mut room, node(4)).await;
    let id = recover(&mut room, &[4], Way::Repair).await;
    says(&cluster, "node 4 is being recovered").await;
    let second = closes(&mut room, &id).await;
    assert_eq!(second.record.public_key, first.record.public_key);
    assert_eq!(second.record.generation, Generation(2));
    assert_eq!(held(&cluster, 4).await, [(2, "current".to_owned())]);
    let test = open(&room, CeremonyKind::TestSign, "treasury").await;
    closes(&mut room, &test).await;

    refuses(&room, recovery(&[1, 2, 3], Way::Repair), "fewer nodes than the threshold").await;
    cluster.stop().await;
}

/// Waits until `custody status` says this, however it ends.
async fn says(cluster: &Cluster, told: &str) {
    let begun = Instant::now();
    loop {
        let console = cluster.layout().console();
        let printed = tokio::task::spawn_blocking(move || {
            let custody = lab::programs::folder().unwrap().join("custody");
            Command::new(custody).arg("status").env("CUSTODY_CLUSTER", console).output().unwrap().stdout
        });
        let printed = String::from_utf8(printed.await.unwrap()).unwrap();
        if printed.contains(told) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_of_five_nodes_that_lost_everything_get_their_shares_back_from_backups() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 5, 3)).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let dkg = open(&room, CeremonyKind::Dkg, "treasury").await;
    let first = closes(&mut room, &dkg).await;
    assert_eq!(room.ceremony(&dkg).unwrap().proved_nodes().len(), 5);

    for lost in [1, 3, 4] {
        cluster.lose(node(lost)).await.unwrap();
    }
    let told =
        "wallet treasury g1 ✗ CANNOT SIGN: 2 of 5 shares, 3 needed; nodes 1, 3 and 4 lost their shares";
    says(&cluster, told).await;
    let id = recover(&mut room, &[1, 3, 4], Way::Backup).await;
    let second = closes(&mut room, &id).await;
    assert_eq!(second.record.public_key, first.record.public_key);
    assert_eq!(second.record.generation, Generation(2));
    for index in 1..=5 {
        assert_eq!(held(&cluster, index).await, [(2, "current".to_owned())]);
    }
    says(&cluster, "wallet treasury g2 ✓ can sign: 5 of 5 shares, 3 needed").await;
    let test = open(&room, CeremonyKind::TestSign, "treasury").await;
    closes(&mut room, &test).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_machines_bring_a_wallet_back_from_its_bundle_and_backups_alone() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(folder.path(), 5, 3);
    let cluster = Cluster::start(&plan).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let dkg = open(&room, CeremonyKind::Dkg, "treasury").await;
    let first = closes(&mut room, &dkg).await;
    let bundle = folder.path().join("bundle.zip");
    std::fs::write(&bundle, material(&room, &dkg).bundle().unwrap()).unwrap();

    let next = cluster.lose_all(&plan.programs.node, std::slice::from_ref(&bundle)).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    assert_eq!(room.book.wallet(&"treasury".parse().unwrap()), Some(first.clone()));
    let amendment =
        room.open_about(Topic::charter(Arc::clone(&next)), "New machines".parse().unwrap()).await.unwrap();
    room.lead_to_close(&amendment, PATIENCE, |_| ()).await.unwrap();
    assert_eq!(room.book.context().charter().hash(), next.hash());

    let id = recover(&mut room, &[1, 2, 3, 4, 5], Way::Backup).await;
    let second = closes(&mut room, &id).await;
    assert_eq!(second.record.public_key, first.record.public_key);
    let test = open(&room, CeremonyKind::TestSign, "treasury").await;
    closes(&mut room, &test).await;
    cluster.stop().await;
}

/// Opens a test signing that a node fails for this reason.
async fn fails_to_sign(room: &mut Room, party: NodeIndex, why: &str) {
    let test = open(room, CeremonyKind::TestSign, "treasury").await;
    is_given_up(room, &test, party, why).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_set_back_is_refused_by_its_enclave_and_by_the_peers_and_nobody_is_banned() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 3, 2)).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let dkg = open(&room, CeremonyKind::Dkg, "treasury").await;
    let first = closes(&mut room, &dkg).await;
    let copy = cluster.copy_store(node(2)).await.unwrap();

    let refresh = open(&room, CeremonyKind::Refresh, "treasury").await;
    let second = closes(&mut room, &refresh).await;
    cluster.set_store_back(node(2), &copy).await.unwrap();
    let why = "has no share of treasury, generation 2: have the node recovered";
    fails_to_sign(&mut room, node(2), why).await;

    // Its host still hands the old share to the enclave.
    let store = Store::open(&cluster.store_url(node(2))).await.unwrap();
    let old =
        store.share(&first.record.wallet, Generation(1), &first.record.digest()).await.unwrap().unwrap();
    let disguised = PendingShare {
        wallet: first.record.wallet.clone(),
        generation: Generation(2),
        ceremony: refresh.clone(),
        record: second.record.digest(),
        blob: old.blob,
    };
    store.put_pending(&disguised).await.unwrap();
    let why = "handed in its share of treasury, generation 1, where generation 2 is due";
    fails_to_sign(&mut room, node(2), why).await;
    assert!(room.book.bans().next().is_none());
    cluster.stop().await;
}
