//! A node is excluded by the operators, the others go on, and it is taken back on a fresh machine with another NKey and
//! a share of its own.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::Arc;

use async_nats::ConnectOptions;
use ceremonies::charter::{CeremonyKind, Charter};
use ceremonies::evidence::{Expected, verify};
use ceremonies::ids::CeremonyId;
use ceremonies::manifest::Way;
use ceremonies::script::Act;
use console::health::{self, Level, Moment, NodeStatus};
use console::room::Topic;
use lab::cluster::Cluster;
use lab::drive::Room;

use crate::ceremonies::{PATIENCE, is_given_up, material, node, open, status_of, with_treasury};
use crate::consoles::run;

/// Puts a charter in force, and the broker under it.
async fn amends(cluster: &Cluster, room: &mut Room, next: &Arc<Charter>, purpose: &str) {
    let amendment =
        room.open_about(Topic::charter(Arc::clone(next)), purpose.parse().unwrap()).await.unwrap();
    room.lead_to_close(&amendment, PATIENCE, |_| ()).await.unwrap();
    assert_eq!(room.book.context().charter().hash(), next.hash());
    cluster.configure_broker(next).await.unwrap();
    *room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
}

async fn closes(room: &mut Room, id: &CeremonyId) {
    room.lead_to_close(id, PATIENCE, |_| ()).await.unwrap();
    let first = Expected { charter: Some(room.cluster.charter().hash()), ..Expected::default() };
    assert!(verify(&material(room, id).bundle().unwrap(), &first).unwrap().complete);
}

/// A ceremony with the treasury is refused, and these words say why.
async fn refuses(room: &Room, kind: CeremonyKind, words: &[&str]) {
    let opened = room.open(kind, &"treasury".parse().unwrap(), "in spite of all".parse().unwrap()).await;
    let refused = format!("{:#}", opened.unwrap_err());
    for word in words {
        assert!(refused.contains(word), "{word}: {refused}");
    }
}

/// The charter that the console's program writes with these arguments.
fn written(cluster: &Cluster, arguments: &[&str]) -> Result<Arc<Charter>, String> {
    let printed = run(&cluster.layout().console(), &[&["charter"], arguments].concat(), None)?;
    Ok(Arc::new(Charter::parse(printed.as_bytes()).unwrap()))
}

async fn is_let_in(cluster: &Cluster, seed: &str) -> bool {
    ConnectOptions::with_nkey(seed.trim().to_owned()).connect(cluster.nats_url()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_excluded_node_takes_part_in_nothing_until_it_is_taken_back_and_recovered() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room, _) = with_treasury(folder.path()).await;
    let before = room.book.clone();
    let seed = || std::fs::read_to_string(cluster.layout().node(node(4)).join("nats.seed")).unwrap();
    let old_seed = seed();
    assert!(is_let_in(&cluster, &old_seed).await);
    let early = open(&room, CeremonyKind::TestSign, "treasury").await;
    room.lead_to(&early, Act::Approve, PATIENCE).await.unwrap();

    let without = written(&cluster, &["exclude", "4"]).unwrap();
    amends(&cluster, &mut room, &without, "Two nodes accuse node 4").await;
    assert!(!is_let_in(&cluster, &old_seed).await, "the broker");
    assert_eq!(health::status(&room.book, node(4), None, Moment::now()).level, Level::Excluded);
    // It may add what was wrong while the broker was configured.
    let is_well = |status: &NodeStatus| status.summary.starts_with("healthy, hears 3 peers");
    status_of(&room, node(1), PATIENCE, is_well).await;
    // It succeeds only if all others are healthy.
    let status = (0..20).find_map(|_| run(&cluster.layout().console(), &["status"], None).ok()).unwrap();
    assert!(status.contains("node 4 ⊘ EXCLUDED"), "{status}");
    let ways_on = ["node 4", "new NKey", "recover", "sweep"];
    refuses(&room, CeremonyKind::Refresh, &ways_on).await;
    // The nodes say the same to a console that has not heard of the amendment.
    let unaware = Room { book: before, ..Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap() };
    refuses(&unaware, CeremonyKind::Refresh, &ways_on).await;
    refuses(&unaware, CeremonyKind::TestSign, &["node 4 is excluded"]).await;
    // What was opened before the exclusion, and approved in spite of it, is refused by the other nodes' enclaves.
    is_given_up(&mut room, &early, node(4), "node 4 was excluded from the cluster").await;
    let test = open(&room, CeremonyKind::TestSign, "treasury").await;
    closes(&mut room, &test).await;
    let enclaves: Vec<_> = room.ceremony(&test).unwrap().enclaves().keys().copied().collect();
    assert_eq!(enclaves, [1, 2, 3, 5].map(node));

    let nkey = cluster.replace(node(4)).await.unwrap();
    let old = without.node(node(4)).unwrap().nkey.clone();
    let refused = written(&cluster, &["readmit", "4", "--nkey", &old]).unwrap_err();
    assert!(refused.contains("give it a new one"), "{refused}");
    let again = written(&cluster, &["readmit", "4", "--nkey", &nkey]).unwrap();
    amends(&cluster, &mut room, &again, "Node 4 on a new machine").await;
    assert!(is_let_in(&cluster, &seed()).await && !is_let_in(&cluster, &old_seed).await);
    for kind in [CeremonyKind::Refresh, CeremonyKind::TestSign] {
        refuses(&room, kind, &["node 4 was excluded", "--lost 4"]).await;
    }
    let lost =
        Topic::losses(CeremonyKind::Recover, "treasury".parse().unwrap(), [(node(4), Way::Repair)].into());
    let recovery = room.open_about(lost, "A share for node 4".parse().unwrap()).await.unwrap();
    closes(&mut room, &recovery).await;
    let test = open(&room, CeremonyKind::TestSign, "treasury").await;
    closes(&mut room, &test).await;
    let tests = room.ceremony(&test).unwrap().tests();
    for index in 1..=5 {
        assert!(tests.iter().any(|test| test.is_complete() && test.subset.contains(node(index))), "{index}");
    }
    cluster.stop().await;
}
