//! Finished ceremonies: the agents let go of them, and have them back whole when somebody asks.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use ceremonies::charter::CeremonyKind;
use ceremonies::evidence::{Expected, verify};
use ceremonies::ids::CeremonyId;
use ceremonies::listing::Wanted;
use lab::cluster::Cluster;
use lab::drive::Room;
use node::store::Store;

use crate::ceremonies::{PATIENCE, node, open};
use crate::consoles::run;
use crate::record::{HEALED, cluster, of_one_mind};
use crate::stranger::finds_right;

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(200);
const ALL: [u8; 5] = [1, 2, 3, 4, 5];

/// Makes every agent let go of finished ceremonies at once.
async fn shelve_at_once(cluster: &Cluster) {
    for index in ALL {
        let agent = cluster.agent(node(index)).unwrap();
        agent.hold().await;
        let file = cluster.layout().node(node(index)).join("node.toml");
        let rest = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("shelve_after_s = 1\n{rest}")).unwrap();
        agent.resume().await;
    }
}

async fn shelved(cluster: &Cluster, index: u8) -> BTreeSet<CeremonyId> {
    let store = Store::open(&cluster.store_url(node(index))).await.unwrap();
    store.shelf().await.unwrap().into_iter().map(|line| line.ceremony).collect()
}

/// Waits until every node has these on its shelf, and nothing else.
async fn are_shelved(cluster: &Cluster, ids: &[&CeremonyId]) {
    let wanted: BTreeSet<CeremonyId> = ids.iter().map(|id| (*id).clone()).collect();
    let begun = Instant::now();
    for index in ALL {
        while shelved(cluster, index).await != wanted {
            assert!(
                begun.elapsed() < PATIENCE,
                "node {index} has shelved {:?}",
                shelved(cluster, index).await
            );
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How many nodes list a ceremony, by what they say of it.
async fn listed(room: &Room, id: &CeremonyId, phase: &str) -> usize {
    // Agents that are being started do not answer yet.
    let Ok(catalogue) = room.client.catalogue(&[Wanted::one(id.clone())]).await else { return 0 };
    let Some(row) = catalogue.row(id) else { return 0 };
    row.said.values().filter(|summary| summary.phase.starts_with(phase)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn ceremony_that_is_over_leaves_memory_and_comes_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    shelve_at_once(&cluster).await;
    let made = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to_close(&made, PATIENCE, |_| ()).await.unwrap();
    let closed = open(&room, CeremonyKind::TestSign, "treasury").await;
    room.lead_to_close(&closed, PATIENCE, |_| ()).await.unwrap();
    let ended = open(&room, CeremonyKind::TestSign, "treasury").await;
    room.look(&ended).await.unwrap();
    room.withdraw(&ended, "the wrong day".parse().unwrap()).await.unwrap();
    let log = of_one_mind(&cluster, &ALL, &closed, 10).await;
    are_shelved(&cluster, &[&closed, &ended]).await;

    // What is asked for comes back, to the byte, with every node's statement that it is recorded.
    let fresh = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let reading = fresh.client.read(&closed, &[]).await.unwrap();
    assert_eq!(reading.log(), log);
    assert_eq!(reading.recorded().by.len(), 5, "{}", reading.recorded());

    // A restarted agent starts with the lines and says the same.
    for index in ALL {
        let agent = cluster.agent(node(index)).unwrap();
        agent.hold().await;
        agent.resume().await;
    }
    let begun = Instant::now();
    while listed(&fresh, &closed, "closed").await < 5 || listed(&fresh, &ended, "void").await < 5 {
        assert!(begun.elapsed() < HEALED, "nodes list something else");
        tokio::time::sleep(LOOK).await;
    }
    are_shelved(&cluster, &[&closed, &ended]).await;

    // A stream that has lost everything is given it back, and a node that has lost its store learns all of it.
    cluster.lose_streams().await.unwrap();
    cluster.make_stream().await.unwrap();
    cluster.lose(node(4)).await.unwrap();
    assert_eq!(of_one_mind(&cluster, &ALL, &closed, log.len()).await, log);
    of_one_mind(&cluster, &ALL, &ended, 2).await;
    are_shelved(&cluster, &[&closed, &ended]).await;

    let bundle = folder.path().join("b.zip");
    let export = ["evidence", "export", closed.as_str(), "-o", bundle.to_str().unwrap()];
    run(&cluster.layout().console(), &export, None).unwrap();
    let report = verify(&fs::read(&bundle).unwrap(), &Expected::default()).unwrap();
    assert!(report.recorded, "{report}");
    assert!(finds_right(&bundle).contains("the whole log is recorded"));
    cluster.stop().await;
}
