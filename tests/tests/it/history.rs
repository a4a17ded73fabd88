//! Finished ceremonies: the agents let go of them, and have them back whole when somebody asks.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use ceremonies::charter::CeremonyKind;
use ceremonies::evidence::{Expected, verify};
use ceremonies::ids::{CeremonyId, Generation};
use ceremonies::inventory::{Change, Item};
use ceremonies::listing::Wanted;
use ceremonies::manifest::{Origin, Way};
use console::room::Topic;
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

/// Leads a ceremony about the treasury to its close.
async fn holds(room: &mut Room, kind: CeremonyKind) -> CeremonyId {
    let id = open(room, kind, "treasury").await;
    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn old_generations_leave_memory_and_are_there_when_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    shelve_at_once(&cluster).await;
    let console = cluster.layout().console();
    let first = holds(&mut room, CeremonyKind::Dkg).await;
    let second = holds(&mut room, CeremonyKind::Refresh).await;
    holds(&mut room, CeremonyKind::Refresh).await;
    let fourth = holds(&mut room, CeremonyKind::Refresh).await;
    are_shelved(&cluster, &[&first, &second]).await;

    // Agents that start with the last two generations alone sign and make the next.
    for index in ALL {
        let agent = cluster.agent(node(index)).unwrap();
        agent.hold().await;
        agent.resume().await;
    }
    let signed = holds(&mut room, CeremonyKind::TestSign).await;
    let in_use = room.ceremony(&signed).unwrap().before_record().unwrap().generation;
    assert_eq!(in_use, Generation(4));

    // An inventory of a generation that is shelved has it back, and every console counts all generations.
    let origin = room.ceremony(&first).unwrap().committed().unwrap().record.digest();
    let found = Item::Copy { node: node(1), change: Change::CopyFound, what: "a disk".parse().unwrap() };
    let origin = Origin { ceremony: first.clone(), record: origin };
    let topic = Topic::copies("treasury".parse().unwrap(), Generation::FIRST, origin, vec![found]);
    let inventory = room.open_about(topic, "What was found".parse().unwrap()).await.unwrap();
    room.lead_to_close(&inventory, PATIENCE, |_| ()).await.unwrap();
    let shown = run(&console, &["wallet", "show", "treasury"], None).unwrap();
    for generation in 1..=4 {
        assert!(shown.contains(&format!("generation {generation}")), "{shown}");
    }
    assert!(shown.contains("a disk"), "{shown}");

    // A stream that has lost everything is given each generation after the one that it rests on, and a node that has lost
    // its store too learns all of them and gets a share of the next.
    let log = of_one_mind(&cluster, &ALL, &second, 10).await;
    cluster.lose_streams().await.unwrap();
    cluster.make_stream().await.unwrap();
    cluster.lose(node(4)).await.unwrap();
    assert_eq!(of_one_mind(&cluster, &ALL, &second, log.len()).await, log);
    of_one_mind(&cluster, &ALL, &fourth, log.len()).await;
    let wallet = "treasury".parse().unwrap();
    let lost = Topic::losses(CeremonyKind::Recover, wallet, BTreeMap::from([(node(4), Way::Repair)]));
    let recovery = room.open_about(lost, "A new disk".parse().unwrap()).await.unwrap();
    room.lead_to_close(&recovery, PATIENCE, |_| ()).await.unwrap();
    holds(&mut room, CeremonyKind::TestSign).await;
    cluster.stop().await;
}
