//! `kill -9` in the middle of a key generation: void or committed, never in between, and all stores agree.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;

use ceremonies::ceremony::Phase;
use ceremonies::charter::CeremonyKind;
use ceremonies::ids::CeremonyId;
use ceremonies::script::Act;
use console::room::now;
use lab::cluster::Cluster;
use lab::drive::Room;
use node::store::Store;

use crate::ceremonies::{PATIENCE, node, open, plan};

/// What every node's store holds of a ceremony's wallet, after its agent was stopped.
async fn states(cluster: &Cluster, wallet: &str) -> BTreeSet<Vec<String>> {
    let mut all = BTreeSet::new();
    for index in 1..=5 {
        let url = format!("sqlite:{}", cluster.layout().node(node(index)).join("store.db").display());
        let held = Store::open(&url).await.unwrap().held().await.unwrap();
        let of_wallet = held.into_iter().filter(|share| share.wallet == wallet);
        all.insert(of_wallet.map(|share| share.state).filter(|state| state == "current").collect());
    }
    all
}

async fn approved(room: &mut Room, wallet: &str) -> CeremonyId {
    let id = open(room, CeremonyKind::Dkg, wallet).await;
    room.lead_to(&id, Act::Generate, PATIENCE).await.unwrap();
    id
}

fn is_decided(ceremony: &ceremonies::ceremony::Ceremony) -> bool {
    match ceremony.phase_at(now()) {
        Phase::Void(_) => true,
        Phase::Committed => ceremony.adopted_nodes().len() == 5,
        Phase::Gathering | Phase::Authorised | Phase::Closed | Phase::Abandoned(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_generation_is_void_or_committed_when_any_process_is_killed_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 5, 3)).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    for (wallet, what) in [("agent", "agent 2"), ("enclave", "enclave 3"), ("broker", "broker")] {
        let id = approved(&mut room, wallet).await;
        match wallet {
            "agent" => cluster.agent(node(2)).unwrap().kill().await,
            "enclave" => cluster.enclave(node(3)).unwrap().kill().await,
            _ => cluster.broker().kill().await,
        }
        room.wait(&id, PATIENCE, is_decided).await.unwrap();
        let states = states(&cluster, wallet).await;
        assert_eq!(states.len(), 1, "after the kill of {what} the stores disagree: {states:?}");
        let committed = room.ceremony(&id).unwrap().committed().is_some();
        let current = states.iter().all(|state| !state.is_empty());
        assert_eq!(committed, current, "after the kill of {what}");
    }
    // The cluster is as good as before.
    let id = open(&room, CeremonyKind::Dkg, "afterwards").await;
    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    cluster.stop().await;
}
