//! The broker with the generated configuration: who may say what, and that nobody can rewrite the stream.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::path::Path;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use ceremonies::charter::CeremonyKind;
use ceremonies::deploy::subject;
use ceremonies::script::Act;
use lab::cluster::Cluster;
use lab::drive::Room;
use prost::Message as _;
use tokio::sync::mpsc;

use crate::ceremonies::{PATIENCE, node, open, plan};

/// A client with this seed, and what the broker complains of.
pub(crate) async fn client(url: &str, seed: &Path, inbox: String) -> (Client, mpsc::Receiver<String>) {
    let (sender, complaints) = mpsc::channel(64);
    let seed = std::fs::read_to_string(seed).unwrap();
    let client = ConnectOptions::with_nkey(seed.trim().to_owned())
        .custom_inbox_prefix(inbox)
        .event_callback(move |event| {
            let sender = sender.clone();
            async move {
                if let Event::ServerError(error) = event {
                    let _ = sender.send(error.to_string()).await;
                }
            }
        })
        .connect(url)
        .await
        .unwrap();
    (client, complaints)
}

pub(crate) async fn is_forbidden(client: &Client, complaints: &mut mpsc::Receiver<String>, subject: &str) {
    client.publish(subject.to_owned(), "x".into()).await.unwrap();
    client.flush().await.unwrap();
    let complaint = tokio::time::timeout(Duration::from_secs(5), complaints.recv()).await;
    let complaint = complaint.unwrap_or_else(|_| panic!("{subject} was not refused")).unwrap();
    assert!(complaint.to_lowercase().contains("permissions violation"), "{subject}: {complaint}");
    assert!(complaint.contains(subject), "{subject}: {complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_for_another_or_rewrites_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 3, 2)).await.unwrap();
    // The stream is there once the agents answer.
    Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let url = cluster.nats_url();

    let seed = cluster.layout().folder().join("console.seed");
    let (console, mut complaints) = client(&url, &seed, subject::console_inbox("console-1")).await;
    for forbidden in [
        "mpc.1.label.2",
        "ceremony.log.dkg-x",
        "health.1",
        "$JS.API.STREAM.DELETE.CEREMONIES",
        "$JS.API.STREAM.PURGE.CEREMONIES",
        "$JS.API.STREAM.MSG.DELETE.CEREMONIES",
    ] {
        is_forbidden(&console, &mut complaints, forbidden).await;
    }

    let seed = cluster.layout().node(node(2)).join("nats.seed");
    let (second, mut complaints) = client(&url, &seed, subject::node_inbox(node(2))).await;
    for forbidden in [
        "mpc.1.label.3",
        "health.3",
        "progress.dkg-x.3",
        "ceremony.submit.dkg-x.1",
        "head.3",
        "record.1.3",
        "$JS.API.STREAM.CREATE.CEREMONIES",
        "$JS.API.STREAM.DELETE.CEREMONIES",
        "$JS.API.STREAM.PURGE.CEREMONIES",
        "$JS.API.STREAM.MSG.DELETE.CEREMONIES",
        "$JS.API.STREAM.UPDATE.CEREMONIES",
    ] {
        is_forbidden(&second, &mut complaints, forbidden).await;
    }

    let stranger = nkeys::KeyPair::new_user().seed().unwrap();
    assert!(ConnectOptions::with_nkey(stranger).connect(&url).await.is_err());
    assert!(async_nats::connect(&url).await.is_err());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_says_that_is_no_entry_does_not_stop_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 3, 2)).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to(&id, Act::Approve, PATIENCE).await.unwrap();
    let elsewhere = open(&room, CeremonyKind::Dkg, "savings").await;
    room.look(&elsewhere).await.unwrap();

    let seed = cluster.layout().node(node(3)).join("nats.seed");
    let (third, _) = client(&cluster.nats_url(), &seed, subject::node_inbox(node(3))).await;
    let stream = async_nats::jetstream::new(third);
    let of_another = room.book.get(&elsewhere).unwrap().entries[0].raw().encode_to_vec();
    for said in [b"no entry".to_vec(), of_another] {
        stream.publish(subject::log(&id), said.into()).await.unwrap().await.unwrap();
    }
    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    cluster.stop().await;
}
