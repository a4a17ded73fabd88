//! The same ceremonies with every enclave in a virtual machine of its own, reached over vsock.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::time::Duration;

use ceremonies::attestation::Measurement;
use ceremonies::ceremony::Phase;
use ceremonies::charter::CeremonyKind;
use lab::cluster::Cluster;
use lab::drive::Room;
use lab::microvm::{Machines, Tools};

use crate::canary::no_secret_is_outside;
use crate::ceremonies::{
    a_changed_enclave_is_red_and_does_not_take_part, bundles_verify_and_every_change_is_found, node, open,
    plan,
};

/// Emulated, a key generation of three takes about half a minute on two cores; one of five takes four times as long.
const PATIENCE: Duration = Duration::from_mins(10);

/// The kernel's command line stands in the image as it is; the kernel hands on what it does not know.
fn other_command_line(image: &mut [u8]) {
    let place = image.windows(5).position(|window| window == b"quiet").unwrap();
    image[place + 4] = b'7';
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witnessed_key_generation_in_virtual_machines_ends_closed_and_a_changed_image_is_refused() {
    if let Err(missing) = Tools::find() {
        assert!(std::env::var_os("CI").is_none(), "CI must not skip this: {missing:#}");
        eprintln!("SKIPPED: virtual machines: {missing:#}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut plan = plan(folder.path(), 3, 2);
    plan.machines = Some(Machines::prepare().unwrap());
    let cluster = Cluster::start(&plan).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    assert_eq!(room.ceremony(&id).unwrap().phase(), Phase::Closed);

    let built: Measurement =
        toml::from_str(&std::fs::read_to_string(folder.path().join("enclave.toml")).unwrap()).unwrap();
    for (node, enclave) in room.ceremony(&id).unwrap().enclaves() {
        assert_eq!(enclave.measurement, built, "node {node} runs what the image builder measured");
    }
    let test = open(&room, CeremonyKind::TestSign, "treasury").await;
    room.lead_to_close(&test, PATIENCE, |_| ()).await.unwrap();
    bundles_verify_and_every_change_is_found(&room, &id, &test);
    no_secret_is_outside(&cluster, &room, &id).await;

    let image = cluster.layout().enclave_image(node(2));
    a_changed_enclave_is_red_and_does_not_take_part(
        &cluster,
        &mut room,
        &image,
        other_command_line,
        PATIENCE,
    )
    .await;
    cluster.stop().await;
}
