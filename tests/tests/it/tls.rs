//! A bus that asks for TLS, with a certificate that only the configuration vouches for.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::path::Path;

use ceremonies::charter::CeremonyKind;
use lab::cluster::Cluster;
use lab::drive::Room;

use crate::ceremonies::{PATIENCE, open, plan};
use crate::consoles::run;

/// Writes a text into a file behind the first line that is this.
fn insert(file: &Path, after: &str, text: &str) {
    let before = fs::read_to_string(file).unwrap();
    let (head, tail) = before.split_once(after).unwrap();
    fs::write(file, format!("{head}{after}{text}{tail}")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ceremony_is_held_over_tls_and_a_certificate_of_nobody_known_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 3, 2)).await.unwrap();
    let layout = cluster.layout();
    for node in cluster.nodes() {
        cluster.agent(node).unwrap().hold().await;
    }
    cluster.broker().hold().await;

    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("bus.pem"), folder.path().join("bus.key"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = format!("tls {{ cert_file: {certificate:?}, key_file: {key:?} }}\n");
    let broker = layout.nats().join("nats.conf");
    fs::write(&broker, format!("{tls}{}", fs::read_to_string(&broker).unwrap())).unwrap();
    let stranger = layout.folder().join("stranger.toml");
    fs::copy(layout.console(), &stranger).unwrap();
    let ca = format!("\nca = {certificate:?}\n");
    insert(&layout.console(), "[nats]", &ca);
    cluster.broker().resume().await;
    for node in cluster.nodes() {
        insert(&layout.node(node).join("node.toml"), "[nats]", &ca);
        cluster.agent(node).unwrap().resume().await;
    }

    let refused = run(&stranger, &["status"], None).unwrap_err();
    assert!(refused.contains("certificate") && !refused.contains("panicked"), "{refused}");
    let mut room = Room::enter(&layout.console(), PATIENCE).await.unwrap();
    let dkg = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to_close(&dkg, PATIENCE, |_| ()).await.unwrap();
    cluster.stop().await;
}
