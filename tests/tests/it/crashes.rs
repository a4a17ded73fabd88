//! `kill -9` of every kind of process at every boundary of a key generation and of a signature: there is one outcome,
//! all stores agree, and what was begun ends committed or void.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ceremonies::ceremony::{Ceremony, Phase};
use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{CeremonyId, WalletName};
use ceremonies::manifest::Way;
use ceremonies::wire::bus::HeldShare;
use console::client::News;
use console::room::{Topic, now};
use futures_util::StreamExt as _;
use lab::attack::{Boundary, Parent, Passing, Side};
use lab::cluster::Cluster;
use lab::drive::Room;
use node::store::Store;

use crate::ceremonies::{PATIENCE, node, open, plan};

/// The node whose processes are killed.
const STRUCK: u8 = 2;
/// How often people try again at a console whose cluster is not all there.
const AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    Agent,
    Enclave,
    Broker,
}

/// Every boundary of a key generation of three at which the struck node holds or sends something new: it sends
/// to two peers, in the barrier, in the reveal and in five rounds.
fn boundaries_of_a_generation() -> Vec<Boundary> {
    let sent = (0..7).map(|stage| (Passing::Sent(2 * stage + 1), Side::After));
    let around = |passing| [(passing, Side::Before), (passing, Side::After)];
    let before = [Passing::Attest, Passing::Attestation, Passing::Start];
    let after = [Passing::Kms, Passing::Sealed, Passing::Stored, Passing::Prepared];
    before.into_iter().flat_map(around).chain(sent).chain(after.into_iter().flat_map(around)).collect()
}

/// Every boundary of a signature of two: the struck node sends to one peer, in the barrier, in the reveal and in
/// three rounds.
fn boundaries_of_a_signature() -> Vec<Boundary> {
    let around = |passing| [(passing, Side::Before), (passing, Side::After)];
    let sent = (1..=5).map(|number| (Passing::Sent(number), Side::After));
    around(Passing::Start).into_iter().chain(sent).chain(around(Passing::TestSigned)).collect()
}

/// Kills the process when the boundary is reached.
async fn strike(cluster: &Cluster, parent: &Parent, process: Process, case: &str) {
    assert!(parent.stopped(PATIENCE).await.is_ok(), "{case}: never reached");
    match process {
        Process::Agent => cluster.agent(node(STRUCK)).unwrap().kill().await,
        Process::Enclave => cluster.enclave(node(STRUCK)).unwrap().kill().await,
        Process::Broker => {
            cluster.broker().kill().await;
            parent.goes_on();
        }
    }
}

fn is_void(ceremony: &Ceremony) -> bool {
    matches!(ceremony.phase_at(now()), Phase::Void(_))
}

/// Leads a ceremony to its close, or until it is void.
async fn lead_to_an_end(room: &mut Room, id: &CeremonyId) {
    let begun = Instant::now();
    while let Err(error) = room.lead_to_close(id, PATIENCE, |_| ()).await {
        if room.ceremony(id).is_ok_and(is_void) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{error:#}");
        tokio::time::sleep(AGAIN).await;
    }
}

/// Opens a ceremony, as soon as the agent that is asked has read on far enough to let it.
async fn opens(room: &Room, topic: impl Fn() -> Topic) -> CeremonyId {
    let begun = Instant::now();
    loop {
        match room.open_about(topic(), "To be struck".parse().unwrap()).await {
            Ok(id) => return id,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error:#}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// For every store, how many shares of a wallet can sign.
async fn signing_shares(cluster: &Cluster, wallet: &str) -> BTreeSet<usize> {
    let mut all = BTreeSet::new();
    for index in cluster.nodes() {
        let url = format!("sqlite:{}", cluster.layout().node(index).join("store.db").display());
        let held = Store::open(&url).await.unwrap().held(u32::MAX).await.unwrap();
        let signs = |share: &&HeldShare| share.wallet == wallet && share.state == "current";
        all.insert(held.iter().filter(signs).count());
    }
    all
}

/// The boundaries of a refresh that a key generation has not: the old share is read, the new one waits beside it, is
/// backed up and proven, committed, and the old one goes. Of the rounds, which both have, only the last.
fn boundaries_of_a_refresh() -> Vec<Boundary> {
    let around = |passing| [(passing, Side::Before), (passing, Side::After)];
    let passings = [
        Passing::Start,
        Passing::Sealed,
        Passing::Stored,
        Passing::Staged,
        Passing::Backups,
        Passing::Proved,
        Passing::Prepared,
        Passing::Retired,
    ];
    let last_round = [(Passing::Sent(13), Side::After)];
    last_round.into_iter().chain(passings.into_iter().flat_map(around)).collect()
}

/// For every store, the generations that sign.
async fn generations(cluster: &Cluster) -> BTreeSet<Vec<u32>> {
    let mut all = BTreeSet::new();
    for index in cluster.nodes() {
        let held = Store::open(&cluster.store_url(index)).await.unwrap().held(u32::MAX).await.unwrap();
        let signs = |share: &&HeldShare| share.state == "current";
        all.insert(held.iter().filter(signs).map(|share| share.generation).collect());
    }
    all
}

/// Kills the process at each boundary of a refresh; or of a recovery or rebuild, for which the struck node and those
/// beside it lose everything first.
async fn renewals_survive(process: Process, boundaries: Vec<Boundary>, lost: &[(u8, Way)]) {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 3, 2)).await.unwrap();
    let parent = Parent::between(&cluster, node(STRUCK)).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let wallet: WalletName = "treasury".parse().unwrap();
    let dkg = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to_close(&dkg, PATIENCE, |_| ()).await.unwrap();
    let key = room.book.wallet(&wallet).unwrap().record.public_key;
    let named = || lost.iter().map(|(index, way)| (node(*index), *way)).collect();
    let topic = || match lost {
        [] => Topic::of(CeremonyKind::Refresh, wallet.clone()),
        [_] => Topic::losses(CeremonyKind::Recover, wallet.clone(), named()),
        _ => Topic::losses(CeremonyKind::Rebuild, wallet.clone(), named()),
    };
    for boundary in boundaries {
        let case = format!("{process:?} killed at {boundary:?}");
        for (index, _) in lost {
            cluster.lose(node(*index)).await.unwrap();
        }
        parent.stops_at(boundary);
        let id = opens(&room, topic).await;
        tokio::join!(lead_to_an_end(&mut room, &id), strike(&cluster, &parent, process, &case));
        if is_void(room.ceremony(&id).unwrap()) && !lost.is_empty() {
            let again = opens(&room, topic).await;
            lead_to_an_end(&mut room, &again).await;
        }
        let record = room.book.wallet(&wallet).unwrap().record;
        assert_eq!(generations(&cluster).await, [vec![record.generation.0]].into(), "{case}");
        assert_eq!(record.public_key, key, "{case}");
    }
    let test = open(&room, CeremonyKind::TestSign, "treasury").await;
    room.lead_to_close(&test, PATIENCE, |_| ()).await.unwrap();
    cluster.stop().await;
}

/// One boundary of so many, so that one pipeline, which gives each kind of process others, has time for all of them; the
/// nightly run gives all to each.
fn some(boundaries: Vec<Boundary>, first: usize, of: usize) -> Vec<Boundary> {
    let every = std::env::var_os("CUSTODY_EVERY_BOUNDARY").is_some();
    let (skip, step) = if every { (0, 1) } else { (first, of) };
    boundaries.into_iter().skip(skip).step_by(step).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_ends_on_one_generation_wherever_an_agent_is_killed() {
    renewals_survive(Process::Agent, some(boundaries_of_a_refresh(), 0, 3), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_ends_on_one_generation_wherever_an_enclave_is_killed() {
    renewals_survive(Process::Enclave, some(boundaries_of_a_refresh(), 1, 3), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_ends_on_one_generation_wherever_the_broker_is_killed() {
    renewals_survive(Process::Broker, some(boundaries_of_a_refresh(), 2, 3), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_ends_on_one_generation_wherever_a_process_is_killed() {
    let (before, after) = ((Passing::Recovered, Side::Before), (Passing::Recovered, Side::After));
    renewals_survive(Process::Agent, vec![before, after], &[(STRUCK, Way::Backup)]).await;
    renewals_survive(Process::Enclave, vec![before, after], &[(STRUCK, Way::Repair)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_ends_on_one_generation_wherever_a_process_of_the_dealer_is_killed() {
    let lost = [(STRUCK, Way::Repair), (3, Way::Backup)];
    let (dealt, said) = ((Passing::Sent(9), Side::After), (Passing::Recovered, Side::Before));
    renewals_survive(Process::Agent, vec![said], &lost).await;
    renewals_survive(Process::Enclave, vec![dealt], &lost).await;
}

async fn generations_survive(process: Process, boundaries: Vec<Boundary>) {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 3, 2)).await.unwrap();
    let parent = Parent::between(&cluster, node(STRUCK)).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    for (number, boundary) in boundaries.into_iter().enumerate() {
        let (wallet, case) = (format!("wallet-{number}"), format!("{process:?} killed at {boundary:?}"));
        parent.stops_at(boundary);
        let id = open(&room, CeremonyKind::Dkg, &wallet).await;
        tokio::join!(lead_to_an_end(&mut room, &id), strike(&cluster, &parent, process, &case));
        let ended = room
            .wait(&id, PATIENCE, |ceremony| is_void(ceremony) || ceremony.adopted_nodes().len() == 3)
            .await;
        assert!(ended.is_ok(), "{case}: {ended:?}");
        let signing = signing_shares(&cluster, &wallet).await;
        let committed = room.ceremony(&id).unwrap().committed().is_some();
        assert_eq!(signing, [usize::from(committed)].into(), "{case}");
    }
    // The cluster is as good as before.
    let id = open(&room, CeremonyKind::Dkg, "afterwards").await;
    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_generation_is_void_or_committed_wherever_an_agent_is_killed() {
    generations_survive(Process::Agent, some(boundaries_of_a_generation(), 0, 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_generation_is_void_or_committed_wherever_an_enclave_is_killed() {
    generations_survive(Process::Enclave, some(boundaries_of_a_generation(), 1, 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_generation_is_void_or_committed_wherever_the_broker_is_killed() {
    generations_survive(Process::Broker, some(boundaries_of_a_generation(), 2, 3)).await;
}

/// Freezes the agent when the boundary is reached, and resumes it once another node waits only for it.
async fn freeze(cluster: &Cluster, parent: &Parent, room: &Room) {
    let mut news = Box::pin(room.client.news().await.unwrap());
    assert!(parent.stopped(PATIENCE).await.is_ok(), "never reached");
    let agent = cluster.agent(node(STRUCK)).unwrap();
    agent.freeze().await;
    parent.goes_on();
    let waits = async {
        while let Some(heard) = news.next().await {
            if matches!(heard, News::Progress(progress) if progress.waiting_for == [u32::from(STRUCK)]) {
                return;
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waits).await.is_ok(), "nobody waits for the frozen agent");
    agent.thaw().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_frozen_in_the_rounds_and_goes_on_in_time_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 3, 2)).await.unwrap();
    let parent = Parent::between(&cluster, node(STRUCK)).await.unwrap();
    let watching = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    parent.stops_at((Passing::Sent(7), Side::Before));
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    let (led, ()) =
        tokio::join!(room.lead_to_close(&id, PATIENCE, |_| ()), freeze(&cluster, &parent, &watching));
    led.unwrap();
    assert_eq!(signing_shares(&cluster, "treasury").await, [1].into());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn test_signatures_are_completed_wherever_a_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 3, 2)).await.unwrap();
    let parent = Parent::between(&cluster, node(STRUCK)).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let dkg = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to_close(&dkg, PATIENCE, |_| ()).await.unwrap();
    for (first, process) in [Process::Agent, Process::Enclave, Process::Broker].into_iter().enumerate() {
        for boundary in some(boundaries_of_a_signature(), first, 3) {
            let case = format!("{process:?} killed at {boundary:?}");
            parent.stops_at(boundary);
            let id = open(&room, CeremonyKind::TestSign, "treasury").await;
            tokio::join!(lead_to_an_end(&mut room, &id), strike(&cluster, &parent, process, &case));
            assert_eq!(room.ceremony(&id).unwrap().phase(), Phase::Closed, "{case}");
        }
        assert_eq!(signing_shares(&cluster, "treasury").await, [1].into());
    }
    cluster.stop().await;
}
