//! Whole ceremonies on a whole cluster, and what it refuses.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use ceremonies::ceremony::Phase;
use ceremonies::charter::{CeremonyKind, ClusterKind, Role};
use ceremonies::evidence::{Expected, Material, VerifyError, verify};
use ceremonies::ids::{CeremonyId, NodeIndex, WalletName};
use ceremonies::script::Act;
use ceremonies::statement::Answer;
use ceremonies::wire::log;
use console::client::{News, Receipt, SubmitError};
use console::health::{self, Level, Moment, NodeStatus};
use console::room::{RoomError, Signature, now};
use futures_util::StreamExt as _;
use lab::cluster::{Cluster, Plan};
use lab::drive::Room;
use lab::postgres::{self, Postgres};

use crate::stranger::finds_right;

pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) fn node(index: u8) -> NodeIndex {
    NodeIndex::new(index).unwrap()
}

pub(crate) fn plan(folder: &Path, nodes: u8, threshold: u8) -> Plan {
    Plan {
        folder: folder.to_owned(),
        nodes,
        threshold,
        stores: BTreeMap::new(),
        programs: lab::programs::build().unwrap(),
        machines: None,
    }
}

/// Five nodes with threshold three, the key of wallet `treasury`, and the key generation that made it.
pub(crate) async fn with_treasury(folder: &Path) -> (Cluster, Room, CeremonyId) {
    let cluster = Cluster::start(&plan(folder, 5, 3)).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let dkg = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to_close(&dkg, PATIENCE, |_| ()).await.unwrap();
    let first = Expected { charter: Some(room.cluster.charter().hash()), ..Expected::default() };
    assert!(verify(&material(&room, &dkg).bundle().unwrap(), &first).unwrap().complete);
    (cluster, room, dkg)
}

pub(crate) async fn open(room: &Room, kind: CeremonyKind, wallet: &str) -> CeremonyId {
    room.open(kind, &wallet.parse().unwrap(), "an end-to-end test".parse().unwrap()).await.unwrap()
}

/// Leads a test signing on until a node's signer set has given up a try for this reason, and withdraws it.
pub(crate) async fn is_given_up(room: &mut Room, test: &CeremonyId, party: NodeIndex, why: &str) {
    room.lead_to(test, Act::TestSign, PATIENCE).await.unwrap();
    room.wait(test, PATIENCE, |ceremony| {
        ceremony.cover().iter().any(|subset| subset.contains(party) && ceremony.attempt(subset) > 1)
    })
    .await
    .unwrap();
    let log = &room.book.get(test).unwrap().entries;
    let said = log.iter().map(|entry| format!("{:?}", entry.event)).collect::<Vec<_>>().join("\n");
    assert!(said.contains(why), "{said}");
    room.withdraw(test, "as expected".parse().unwrap()).await.unwrap();
}

fn refused(result: Result<Receipt, RoomError>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witnessed_key_generation_ends_closed_and_everything_beside_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 5, 3)).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let first = open(&room, CeremonyKind::Dkg, "first").await;
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to(&first, Act::Approve, PATIENCE).await.unwrap();
    room.lead_to(&id, Act::Approve, PATIENCE).await.unwrap();
    refuses_wrong_approvals(&mut room, &first, &id).await;
    refuses_words_that_are_not_peoples(&room, &id).await;

    room.lead_to(&id, Act::ReadBack, PATIENCE).await.unwrap();
    let step = room.ceremony(&id).unwrap().current_step().unwrap().clone();
    let auditor = room.people(Role::Auditor).next().unwrap().clone();
    let wrong = Answer::Words("aardvark adroitness".to_owned());
    assert!(refused(room.sign(&id, &step, &auditor, wrong).await).contains("stays open"));
    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    assert_eq!(room.ceremony(&id).unwrap().phase(), Phase::Closed);

    let again = room.open(CeremonyKind::Dkg, &"treasury".parse().unwrap(), "again".parse().unwrap()).await;
    assert!(again.unwrap_err().to_string().contains("treasury"));
    let unknown: WalletName = "unknown".parse().unwrap();
    assert!(room.open(CeremonyKind::TestSign, &unknown, "x".parse().unwrap()).await.is_err());

    let test = open(&room, CeremonyKind::TestSign, "treasury").await;
    room.lead_to_close(&test, PATIENCE, |_| ()).await.unwrap();
    bundles_verify_and_every_change_is_found(&room, &id, &test);
    let program = cluster.layout().enclave_program(node(2));
    // The end of the section table, which nothing that runs reads.
    let changed = |program: &mut [u8]| *program.last_mut().unwrap() ^= 1;
    a_node_with_another_ones_document_is_red(&room).await;
    a_changed_enclave_is_red_and_does_not_take_part(&cluster, &mut room, &program, changed, PATIENCE).await;
    cluster.stop().await;
}

/// An approval short, for another manifest, by one person in two roles, or twice: nothing starts.
async fn refuses_wrong_approvals(room: &mut Room, other: &CeremonyId, id: &CeremonyId) {
    let step = room.ceremony(id).unwrap().current_step().unwrap().clone();
    let operator = room.people(Role::Operator).next().unwrap().clone();
    let signature = |role: Role, person: &str| Signature {
        step: step.id.clone(),
        role,
        person: person.parse().unwrap(),
        answer: Answer::None,
    };
    let for_other = signature(operator.role, operator.person.as_str());
    let statement = for_other.statement(room.ceremony(other).unwrap(), now()).unwrap();
    let armoured = console::signer::sign(&operator.key, &statement, None).unwrap();
    let answer =
        room.client.submit(&room.book.get(id).unwrap().entries, id, for_other.event(armoured.clone())).await;
    assert!(
        matches!(&answer, Err(SubmitError::Refused(refusal)) if refusal.why.contains("not over this statement")),
        "{answer:?}"
    );

    let two_roles = signature(Role::Auditor, "witness-1");
    let answer =
        room.client.submit(&room.book.get(id).unwrap().entries, id, two_roles.event(armoured.clone())).await;
    assert!(
        matches!(&answer, Err(SubmitError::Refused(refusal)) if refusal.why.contains("witness-1 may not act as auditor")),
        "{answer:?}"
    );

    let once = room.sign(id, &step, &operator, Answer::None).await.unwrap();
    assert!(once.recorded().recorded, "{once}");
    // A console that has not read it yet sends it once more.
    let twice = room.sign(id, &step, &operator, Answer::None).await.unwrap();
    assert_eq!((twice.seq, twice.hash), (once.seq, once.hash), "the same signature is one entry");
    room.look(id).await.unwrap();
    let known = room.sign(id, &step, &operator, Answer::None).await.unwrap_err().to_string();
    assert!(known.contains(&format!("on record since entry {}", once.seq)), "{known}");
    assert_eq!(room.ceremony(id).unwrap().phase_at(now()), Phase::Gathering, "three approvals are missing");
}

/// What nodes and enclaves say cannot be submitted from a console.
async fn refuses_words_that_are_not_peoples(room: &Room, id: &CeremonyId) {
    let fault = log::Faulted { node: 1, reason: "made up".to_owned() };
    let events = [
        log::event::Kind::Faulted(fault),
        log::event::Kind::Adopted(log::Adopted { node: 1, record: vec![1; 32] }),
        log::event::Kind::Attested(log::Attested { node: 1, document: vec![1; 100] }),
    ];
    for kind in events {
        let answer = room
            .client
            .submit(&room.book.get(id).unwrap().entries, id, log::Event { kind: Some(kind) })
            .await;
        assert!(
            matches!(&answer, Err(SubmitError::Refused(refusal)) if refusal.why.contains("they cannot be submitted")),
            "{answer:?}"
        );
    }
}

pub(crate) fn material(room: &Room, id: &CeremonyId) -> Material {
    Material::of(&room.book, room.cluster.context.root().to_pem().unwrap().into_bytes(), id).unwrap()
}

pub(crate) fn bundles_verify_and_every_change_is_found(room: &Room, dkg: &CeremonyId, test: &CeremonyId) {
    let whole = material(room, dkg);
    let bundle = whole.bundle().unwrap();
    assert_eq!(bundle, whole.bundle().unwrap(), "the same log makes the same bytes");
    let report = verify(&bundle, &Expected::default()).unwrap();
    assert!(report.complete);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bundle).unwrap();
    assert!(finds_right(file.path()).contains("groups signed a test with the key"));
    let test_bundle = material(room, test).bundle().unwrap();
    assert!(
        verify(&test_bundle, &Expected { kind: Some(ClusterKind::Lab), ..Expected::default() })
            .unwrap()
            .complete
    );

    let production = Expected { kind: Some(ClusterKind::Production), ..Expected::default() };
    assert!(matches!(verify(&bundle, &production), Err(VerifyError::Kind { .. })));
    let paper = Expected { head: Some(report.head_words.to_uppercase()), ..Expected::default() };
    assert!(verify(&bundle, &paper).is_ok());
    let mut shorter = whole.clone();
    shorter.log.pop();
    let shorter = shorter.bundle().unwrap();
    assert!(matches!(verify(&shorter, &paper), Err(VerifyError::Head { .. })));
    let mut gap = whole;
    gap.log.remove(5);
    assert!(gap.bundle().is_err(), "a chain with a gap makes no bundle");
    // Every kind of place in the archive: heads, names, contents, sums, directory.
    for place in (0..bundle.len()).step_by(bundle.len() / 150).chain(bundle.len() - 30..bundle.len()) {
        let mut flipped = bundle.clone();
        flipped[place] ^= 1;
        assert!(verify(&flipped, &Expected::default()).is_err(), "byte {place}");
    }
    accepted_by_another_library(room, dkg);
}

/// libsecp256k1 accepts every test signature under the exported key.
fn accepted_by_another_library(room: &Room, id: &CeremonyId) {
    let ceremony = room.ceremony(id).unwrap();
    let key = ceremony.record().unwrap().public_key;
    let key = secp256k1::PublicKey::from_slice(key.as_bytes()).unwrap();
    let complete: Vec<_> = ceremony.tests().iter().filter(|test| test.is_complete()).collect();
    assert_eq!(complete.len(), ceremony.cover().len());
    for test in complete {
        let signature = secp256k1::ecdsa::Signature::from_compact(&[test.r, test.s].concat()).unwrap();
        let message = secp256k1::Message::from_digest(*test.digest.as_bytes());
        secp256k1::Secp256k1::verification_only().verify_ecdsa(message, &signature, &key).unwrap();
    }
}

/// One byte changed in what an enclave is measured from: another measurement, a red verdict that names the
/// register, no attestation.
/// An agent without an enclave that shows the document of another node's.
async fn a_node_with_another_ones_document_is_red(room: &Room) {
    let mut news = Box::pin(room.client.news().await.unwrap());
    while let Some(heard) = news.next().await {
        let News::Health(mut heartbeat) = heard else { continue };
        let from = NodeIndex::try_from(heartbeat.node).unwrap();
        let other = if from == node(1) { node(2) } else { node(1) };
        let status = |of, heartbeat| {
            let heard = health::Heard::new(room.book.context(), heartbeat, Moment::now(), None);
            health::status(&room.book, of, Some(&heard), Moment::now())
        };
        assert_eq!(status(from, (*heartbeat).clone()).attestation, "accepted");
        heartbeat.node = other.into();
        let borrowed = status(other, *heartbeat);
        assert_eq!(borrowed.level, Level::Bad);
        assert!(borrowed.attestation.contains("the wrong nonce"), "{}", borrowed.attestation);
        return;
    }
}

/// A node's status by its heartbeats, once it is as asked.
pub(crate) async fn status_of(
    room: &Room,
    index: NodeIndex,
    patience: Duration,
    until: impl Fn(&NodeStatus) -> bool,
) -> NodeStatus {
    let mut news = Box::pin(room.client.news().await.unwrap());
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < patience, "node {index} is not as expected");
        let Some(News::Health(heartbeat)) = news.next().await else { continue };
        if heartbeat.node != u32::from(index) {
            continue;
        }
        let heard = health::Heard::new(room.book.context(), *heartbeat, Moment::now(), None);
        let status = health::status(&room.book, index, Some(&heard), Moment::now());
        if until(&status) {
            return status;
        }
    }
}

pub(crate) async fn a_changed_enclave_is_red_and_does_not_take_part(
    cluster: &Cluster,
    room: &mut Room,
    measured: &Path,
    change: impl FnOnce(&mut [u8]),
    patience: Duration,
) {
    let mut bytes = std::fs::read(measured).unwrap();
    change(&mut bytes);
    let changed = cluster.layout().folder().join("changed");
    std::fs::write(&changed, bytes).unwrap();
    cluster.install_enclave(node(2), &changed).await.unwrap();
    let status = status_of(room, node(2), patience, |status| status.attestation.contains("PCR0")).await;
    assert_eq!(status.level, Level::Bad);
    let id = open(room, CeremonyKind::Dkg, "third").await;
    let others = cluster.nodes().count() - 1;
    room.wait(&id, patience, |ceremony| ceremony.enclaves().len() == others).await.unwrap();
    assert!(!room.ceremony(&id).unwrap().enclaves().contains_key(&node(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_generation_on_postgresql_ends_closed() {
    if postgres::installed().is_none() {
        assert!(std::env::var_os("CI").is_none(), "PostgreSQL is not installed, and CI must not skip it");
        eprintln!("SKIPPED: a_key_generation_on_postgresql_ends_closed: PostgreSQL is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Postgres::start().unwrap();
    let mut plan = plan(folder.path(), 3, 2);
    for index in 1..=3 {
        plan.stores.insert(node(index), server.database(&format!("node_{index}")).unwrap());
    }
    let cluster = Cluster::start(&plan).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    cluster.stop().await;
}
