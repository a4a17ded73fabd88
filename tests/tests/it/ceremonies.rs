//! Whole ceremonies on a whole cluster: real broker, real stores, real processes.

use std::collections::BTreeMap;
use std::time::Duration;

use ceremonies::ceremony::Phase;
use ceremonies::charter::CeremonyKind;
use lab::cluster::{Cluster, Plan};
use lab::drive::Room;

const PATIENCE: Duration = Duration::from_secs(120);

fn plan(folder: &std::path::Path) -> Plan {
    Plan {
        folder: folder.to_owned(),
        nodes: 5,
        threshold: 3,
        stores: BTreeMap::new(),
        programs: lab::programs::build().unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witnessed_key_generation_ends_closed_with_verified_test_signatures() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path())).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let wallet = "treasury".parse().unwrap();
    let id = room.open(CeremonyKind::Dkg, &wallet, "first key".parse().unwrap()).await.unwrap();
    room.lead_to_close(&id, PATIENCE, |step| eprintln!("{step}")).await.unwrap();
    let ceremony = room.ceremony(&id).unwrap();
    assert_eq!(ceremony.phase(), Phase::Closed);
    assert!(ceremony.tests().iter().filter(|test| test.is_complete()).count() >= 4);
    let id = room.open(CeremonyKind::TestSign, &wallet, "drill".parse().unwrap()).await.unwrap();
    room.lead_to_close(&id, PATIENCE, |step| eprintln!("{step}")).await.unwrap();
    cluster.stop().await;
}
