//! A new enclave image on a living cluster: allowed by an amendment, deployed node by node, with the old one refused by
//! every node from its date on.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ceremonies::attestation::Measurement;
use ceremonies::ceremony::Phase;
use ceremonies::charter::{CeremonyKind, Charter};
use ceremonies::deploy::kms_policy::key_policy;
use ceremonies::evidence::{Expected, verify};
use ceremonies::ids::{CeremonyId, UnixMillis};
use console::health::Level;
use console::room::{Topic, now};
use console::tui::{Model, Screen, view};
use enclave::kms::KmsError;
use lab::cluster::{ADMIN_ARN, Cluster, ENCLAVE_ARN};
use lab::drive::Room;
use lab::nsm::measure_bytes;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use crate::canary::secrets_of;
use crate::ceremonies::{PATIENCE, material, node, open, plan, status_of};

/// How long the old image is still allowed: enough for what is to be seen while both are.
const WINDOW: Duration = Duration::from_mins(1);

/// The image of a later build: the same program with a byte behind it.
fn later_image(cluster: &Cluster, folder: &Path, old: &Measurement) -> (PathBuf, Measurement) {
    let mut program = std::fs::read(cluster.layout().enclave_program(node(1))).unwrap();
    program.push(0);
    let place = folder.join("later-enclave");
    std::fs::write(&place, &program).unwrap();
    let measured = measure_bytes(&program, &[]);
    (place, Measurement { pcr0: measured.pcr0, ..*old })
}

/// Writes the charter's key policy, as the key's administrator does.
fn put_key_policy(cluster: &Cluster, folder: &Path, charter: &Charter) {
    let policy = key_policy(ADMIN_ARN, ENCLAVE_ARN, &charter.attestation().measurements).unwrap();
    let place = folder.join("next-policy.json");
    std::fs::write(&place, serde_json::to_vec(&policy).unwrap()).unwrap();
    cluster.put_key_policy(&place).unwrap();
}

/// What is to be amended is on the screen before anyone signs it.
fn changes_are_on_screen(room: &Room, amendment: &CeremonyId, new: &Measurement) {
    let mut model = Model::new(room.cluster.clone(), now(), false);
    model.book = room.book.clone();
    (model.loaded, model.screen, model.open) = (true, Screen::Ceremonies, Some(amendment.clone()));
    for (width, height) in [(80, 24), (160, 50)] {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| {
                view(&model, frame);
            })
            .unwrap();
        let screen = terminal.backend().to_string();
        let image = new.pcr0.to_string();
        for text in ["amendment of the charter", "allowed until", &format!("+ image {image:.8}…")] {
            assert!(screen.contains(text), "{text}:\n{screen}");
        }
    }
}

/// No second amendment of one charter: only one could come in force.
async fn refuses_to_amend(room: &Room, next: &Arc<Charter>, why: &str) {
    let opened = room.open_about(Topic::charter(Arc::clone(next)), "Another".parse().unwrap()).await;
    let refused = format!("{:#}", opened.unwrap_err());
    assert!(refused.contains(why), "{refused}");
}

async fn signs(room: &mut Room) -> CeremonyId {
    let test = open(room, CeremonyKind::TestSign, "treasury").await;
    room.lead_to_close(&test, PATIENCE, |_| ()).await.unwrap();
    test
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_image_takes_over_node_by_node_and_the_old_one_is_refused_from_its_day_on() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 3, 2)).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let dkg = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to_close(&dkg, PATIENCE, |_| ()).await.unwrap();
    let wallet = room.ceremony(&dkg).unwrap().committed().unwrap();

    let old = room.cluster.charter().attestation().measurements[0];
    let (image, new) = later_image(&cluster, folder.path(), &old);
    let seconds = now().0 / 1000 + i64::try_from(WINDOW.as_secs()).unwrap();
    let next = Arc::new(room.cluster.charter().allowing(&new, Some(UnixMillis(seconds * 1000))).unwrap());
    let amendment =
        room.open_about(Topic::charter(Arc::clone(&next)), "A later image".parse().unwrap()).await.unwrap();
    room.look(&amendment).await.unwrap();
    changes_are_on_screen(&room, &amendment, &new);
    refuses_to_amend(&room, &next, "may yet amend the charter").await;
    let unaware = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    room.lead_to_close(&amendment, PATIENCE, |_| ()).await.unwrap();
    assert_eq!(room.book.context().charter().hash(), next.hash());
    // A console that has not heard of the approval refuses for what it knows; one that has, for what is in force.
    refuses_to_amend(&unaware, &next, "may yet amend the charter").await;
    refuses_to_amend(&room, &next, "does not amend the one in force").await;
    put_key_policy(&cluster, folder.path(), &next);

    // Both are allowed: the old one is told to go, and nodes of both sign together.
    let ageing = status_of(&room, node(1), PATIENCE, |status| status.summary.contains("refused from")).await;
    assert_eq!((ageing.level, ageing.attestation.as_str()), (Level::Warn, "accepted"));
    cluster.install_enclave(node(2), &image).await.unwrap();
    let fresh = status_of(&room, node(2), PATIENCE, |status| status.image == Some(new)).await;
    assert_ne!(fresh.level, Level::Bad);
    signs(&mut room).await;
    secrets_of(&cluster, &room, &wallet, node(1), &old).await.unwrap();

    // An agent that starts now finds the charter in its own copy of the log.
    cluster.agent(node(2)).unwrap().kill().await;
    let late = status_of(&room, node(1), WINDOW + PATIENCE, |status| status.level == Level::Bad).await;
    assert!(late.attestation.contains("was allowed until"), "{}", late.attestation);
    let refused = secrets_of(&cluster, &room, &wallet, node(1), &old).await;
    assert!(matches!(refused, Err(KmsError::Refused { .. })), "the KMS");
    secrets_of(&cluster, &room, &wallet, node(1), &new).await.unwrap();
    cluster.install_enclave(node(3), &image).await.unwrap();
    let test = open(&room, CeremonyKind::TestSign, "treasury").await;
    room.wait(&test, PATIENCE, |ceremony| ceremony.enclaves().len() == 2).await.unwrap();
    assert!(!room.ceremony(&test).unwrap().enclaves().contains_key(&node(1)));
    assert_eq!(room.ceremony(&test).unwrap().phase_at(now()), Phase::Gathering);

    cluster.install_enclave(node(1), &image).await.unwrap();
    room.lead_to_close(&test, PATIENCE, |_| ()).await.unwrap();
    let bundle = material(&room, &test).bundle().unwrap();
    let first = Expected { charter: Some(room.cluster.charter().hash()), ..Expected::default() };
    assert!(verify(&bundle, &first).unwrap().complete);
    cluster.stop().await;
}
