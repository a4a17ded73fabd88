//! One record: what one hostile host, a lost or foreign stream, a fast clock, a frozen agent and a full store do to it.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::process::Command;
use std::time::{Duration, Instant};

use ceremonies::ceremony::{MAX_ATTESTATIONS, Phase};
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::deploy::subject;
use ceremonies::evidence::{Expected, verify};
use ceremonies::ids::{CeremonyId, Hash, NodeIndex};
use ceremonies::log::{Entry, Event};
use ceremonies::record::Tip;
use ceremonies::said::Topic;
use ceremonies::script::Act;
use ceremonies::statement::Answer;
use ceremonies::wire::{bus, log};
use console::checks::Check;
use console::client::News;
use console::room::{self, Signature, now};
use futures_util::StreamExt as _;
use lab::attack::Host;
use lab::cluster::Cluster;
use lab::drive::Room;
use node::store::Store;
use prost::Message as _;

use crate::ceremonies::{PATIENCE, node, open, plan};
use crate::consoles::run;
use crate::faults::Console;

/// How long nodes may take to agree again.
pub(crate) const HEALED: Duration = Duration::from_secs(30);
/// How long anything may take that one silent node must not delay.
pub(crate) const SOON: Duration = Duration::from_secs(8);

pub(crate) async fn cluster(folder: &std::path::Path) -> (Cluster, Room) {
    let cluster = Cluster::start(&plan(folder, 5, 3)).await.unwrap();
    let room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    (cluster, room)
}

/// A node's own copy of a log, as its store has it.
async fn stored(cluster: &Cluster, index: u8, id: &CeremonyId) -> Vec<log::Entry> {
    // A lost store may be made anew while this looks.
    match Store::open(&cluster.store_url(node(index))).await {
        Ok(store) => store.entries_from(id, 1).await.unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

/// Waits until the stores of these nodes have one log of at least so many entries, and returns it.
pub(crate) async fn of_one_mind(
    cluster: &Cluster,
    nodes: &[u8],
    id: &CeremonyId,
    least: usize,
) -> Vec<Entry> {
    let begun = Instant::now();
    loop {
        let mut logs = Vec::new();
        for index in nodes {
            logs.push(stored(cluster, *index, id).await);
        }
        if logs[0].len() >= least && logs.iter().all(|log| *log == logs[0]) {
            return logs.remove(0).into_iter().map(|raw| Entry::from_wire(raw).unwrap()).collect();
        }
        let lengths: Vec<usize> = logs.iter().map(Vec::len).collect();
        assert!(begun.elapsed() < HEALED, "{id} has {lengths:?} entries at nodes {nodes:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits for a heartbeat that is as asked.
pub(crate) async fn heartbeat(
    room: &Room,
    from: u8,
    until: impl Fn(&bus::Heartbeat) -> bool,
) -> bus::Heartbeat {
    let mut news = Box::pin(room.client.news().await.unwrap());
    let mut last = None;
    let wait = async {
        loop {
            if let Some(News::Health(heartbeat)) = news.next().await
                && heartbeat.node == u32::from(from)
            {
                if until(&heartbeat) {
                    return *heartbeat;
                }
                let enclave = heartbeat.enclave.map(|enclave| enclave.trouble);
                last = Some((enclave, heartbeat.store_trouble, heartbeat.stream_trouble));
            }
        }
    };
    let heard = tokio::time::timeout(HEALED, wait).await.ok();
    assert!(heard.is_some(), "node {from} does not say that; it last said {last:?}");
    heard.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_host_drops_no_veto_and_gives_no_receipt() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to(&id, Act::Approve, PATIENCE).await.unwrap();
    let before = of_one_mind(&cluster, &[1, 2, 3, 4, 5], &id, 7).await;

    let mut host = Host::with_credentials_of(&cluster, node(3)).await.unwrap();
    for others in
        ["ceremony.log.*", "ceremony.submit.*.*", "ceremony.submit.*.1", "_INBOX_node_1.>", "record.1.*"]
    {
        assert!(host.may_not_listen_to(others).await.unwrap(), "{others}");
    }
    cluster.agent(node(3)).unwrap().hold().await;
    let receipts = host.hand_out_receipts(before.last().unwrap().seq + 1).await.unwrap();

    let operator = room.people(Role::Operator).last().unwrap().clone();
    let veto =
        Signature::by(&operator, "withdraw".parse().unwrap(), Answer::Withdraw("stop".parse().unwrap()));
    let receipt = room::sign(&room.client, &room.book, &id, &veto, &operator.key, None).await.unwrap();
    assert!(receipt.recorded().recorded, "{receipt}");
    assert!(
        !receipt.recorded().by.contains(&node(3)),
        "a node that says nothing of where it stands: {receipt}"
    );
    let log = of_one_mind(&cluster, &[1, 2, 4, 5], &id, before.len() + 1).await;

    // A deliberate fork: another entry in the veto's place, and a head that says so.
    let reason = "made up".to_owned();
    let fault = log::Faulted { node: 3, reason };
    let event = log::Event { kind: Some(log::event::Kind::Faulted(fault)) };
    let other = host.entry(&before, event, now()).unwrap();
    host.put(&id, other.encode()).await.unwrap();
    let tip = Tip { seq: other.seq, hash: other.hash() };
    host.show(&host.head(&id, 0, tip, None).unwrap()).await.unwrap();
    room.look(&id).await.unwrap();
    assert!(matches!(room.ceremony(&id).unwrap().phase_at(now()), Phase::Void(_)));
    let shown = run(&cluster.layout().console(), &["ceremony", "show", id.as_str()], None).unwrap();
    assert!(
        shown.contains("void: withdrawn by operator-5") && shown.contains("recorded by 4 of 5"),
        "{shown}"
    );
    receipts.abort();

    cluster.agent(node(3)).unwrap().resume().await;
    let after = of_one_mind(&cluster, &[1, 2, 3, 4, 5], &id, log.len()).await;
    assert_eq!(after[..log.len()], log[..], "what was recorded stays in its place");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn branch_that_one_host_makes_up_holds_up_no_ceremony_and_its_node_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to(&id, Act::Approve, PATIENCE).await.unwrap();
    let log = of_one_mind(&cluster, &[1, 2, 3, 4, 5], &id, 7).await;
    let watcher = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let mut console = Console::at(&watcher).await;
    console.is_well().await;

    // Beside its agent, somebody has node 3's credentials. No later word of the agent outdoes this round.
    let host = Host::with_credentials_of(&cluster, node(3)).await.unwrap();
    let fault = log::Faulted { node: 3, reason: "made up".to_owned() };
    let event = log::Event { kind: Some(log::event::Kind::Faulted(fault)) };
    let other = host.entry(&log[..log.len() - 1], event, now()).unwrap();
    host.put(&id, other.encode()).await.unwrap();
    let tip = Tip { seq: other.seq, hash: other.hash() };
    host.show(&host.head(&id, u32::MAX, tip, None).unwrap()).await.unwrap();
    console.names(&[3], Check::Elsewhere, "signs another branch").await;

    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    let after = of_one_mind(&cluster, &[1, 2, 3, 4, 5], &id, log.len()).await;
    assert_eq!(after[..log.len()], log[..]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attestations_without_end_by_one_host_cost_their_ceremony_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    let mut log = of_one_mind(&cluster, &[1, 2, 3, 4, 5], &id, 6).await;
    room.look(&id).await.unwrap();
    let manifest = room.ceremony(&id).unwrap().manifest().hash();
    let host = Host::with_credentials_of(&cluster, node(3)).await.unwrap();
    for _ in 0..60 {
        let attested = host.attestation(&cluster, &manifest).unwrap();
        let entry = host.entry(&log, attested, now()).unwrap();
        host.put(&id, entry.encode()).await.unwrap();
        log.push(entry);
    }

    let other = open(&room, CeremonyKind::Dkg, "savings").await;
    room.lead_to_close(&other, PATIENCE, |_| ()).await.unwrap();
    let log = of_one_mind(&cluster, &[1, 2, 3, 4, 5], &id, 13).await;
    let by_three = |entry: &&Entry| matches!(entry.event, Event::Attested { node, .. } if node.get() == 3);
    assert_eq!(
        log.iter().filter(by_three).count(),
        usize::try_from(MAX_ATTESTATIONS).unwrap(),
        "the rest is refused"
    );
    let is_well = |heartbeat: &bus::Heartbeat| {
        heartbeat.enclave.as_ref().is_some_and(|enclave| enclave.trouble.is_empty())
            && heartbeat.forked.is_empty()
    };
    for index in 1..=5 {
        heartbeat(&room, index, is_well).await;
    }
    room.withdraw(&id, "one host attests without end".parse().unwrap()).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeat_of_a_stopped_node_is_not_heard_again_whoever_has_the_broker_deliver_it() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, room) = cluster(folder.path()).await;
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    let host = Host::with_credentials_of(&cluster, node(3)).await.unwrap();
    let mut heard = host.client().subscribe(subject::health(node(2))).await.unwrap();
    let genuine = heard.next().await.unwrap().payload.to_vec();
    heartbeat(&room, 2, |_| true).await;
    cluster.agent(node(2)).unwrap().hold().await;

    let mut news = Box::pin(room.client.news().await.unwrap());
    let claims = bus::Heartbeat { node: 2, time_ms: now().0 + 1000, ..Default::default() };
    let forged = host.say(Topic::Heartbeat, claims.encode_to_vec()).unwrap();
    for said in [forged, genuine] {
        let sequence = host.put(&id, said).await.unwrap();
        host.deliver(sequence, &subject::health(node(2))).await.unwrap();
    }
    // The others' heartbeats are the clock: three rounds of them without a word of node 2.
    let mut rounds = 0;
    while rounds < 12 {
        if let Some(News::Health(heartbeat)) = news.next().await {
            // What was on its way when the agent was stopped is its own.
            let is_new = heartbeat.time_ms > now().0 - 1000;
            assert!(heartbeat.node != 2 || !is_new, "{heartbeat:?}");
            rounds += usize::from(heartbeat.node != 2);
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_that_is_lost_or_foreign_is_said_not_written_to_and_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to(&id, Act::Approve, PATIENCE).await.unwrap();
    let log = of_one_mind(&cluster, &[1, 2, 3, 4, 5], &id, 7).await;

    cluster.lose_streams().await.unwrap();
    heartbeat(&room, 1, |heartbeat| heartbeat.stream_trouble.contains("no stream")).await;
    // Somebody was quicker than the keeper, with a stream that discards messages.
    let seed = std::fs::read_to_string(cluster.layout().keeper()).unwrap();
    let keeper = async_nats::ConnectOptions::with_nkey(seed.trim().to_owned())
        .custom_inbox_prefix(ceremonies::deploy::broker::KEEPER_INBOX)
        .connect(cluster.nats_url())
        .await
        .unwrap();
    let mut foreign = ceremonies::deploy::broker::stream_config(1);
    foreign["storage"] = "memory".into();
    let made = keeper.request("$JS.API.STREAM.CREATE.CEREMONIES", foreign.to_string().into()).await.unwrap();
    assert!(String::from_utf8_lossy(&made.payload).contains("memory"));
    for index in 1..=5 {
        heartbeat(&room, index, |heartbeat| heartbeat.stream_trouble.contains("storage")).await;
    }
    let info = keeper.request("$JS.API.STREAM.INFO.CEREMONIES", "".into()).await.unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
    assert_eq!(info["state"]["messages"], 0, "nobody writes to it");

    cluster.lose_streams().await.unwrap();
    cluster.make_stream().await.unwrap();
    // A node that loses its store learns everything from what was given back, and from the others.
    cluster.lose(node(4)).await.unwrap();
    assert_eq!(of_one_mind(&cluster, &[1, 2, 3, 4, 5], &id, log.len()).await[..log.len()], log[..]);
    assert!(room.wait_recorded(&id, PATIENCE).await.unwrap().recorded);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_of_junk_costs_nothing_after_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.look(&id).await.unwrap();
    let host = Host::with_credentials_of(&cluster, node(3)).await.unwrap();
    for ceremony in 0..20 {
        let junk = format!("junk-{ceremony}").parse().unwrap();
        host.flood(&junk, 100).await.unwrap();
    }
    host.flood(&id, 500).await.unwrap();
    // Meanwhile the broker may take longer than a console waits: then that is reported, and the event is recorded
    // later.
    let beside = room.withdraw(&id, "beside a flood".parse().unwrap()).await;
    assert!(
        beside.as_ref().map_or_else(|error| error.to_string().contains("do not sign again"), |()| true),
        "{beside:?}"
    );
    let is_void =
        |ceremony: &ceremonies::ceremony::Ceremony| matches!(ceremony.phase_at(now()), Phase::Void(_));
    room.wait(&id, PATIENCE, is_void).await.unwrap();
    assert!(room.wait_recorded(&id, HEALED).await.unwrap().recorded);
    // Once it is read, the place where reading ended is remembered: a restart reads none of it again.
    let before = Instant::now();
    while Store::open(&cluster.store_url(node(1)))
        .await
        .unwrap()
        .read_to()
        .await
        .unwrap()
        .is_none_or(|mark| mark.seq < 2500)
    {
        assert!(before.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let restarted = now();
    cluster.agent(node(1)).unwrap().kill().await;
    let well =
        |heartbeat: &bus::Heartbeat| heartbeat.time_ms > restarted.0 && heartbeat.stream_trouble.is_empty();
    let begun = Instant::now();
    heartbeat(&room, 1, well).await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let log = std::fs::metadata(cluster.layout().node(node(1)).join("agent.log")).unwrap();
    assert!(log.len() < 1024 * 1024, "{} bytes of log", log.len());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_clock_decides_who_starts() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    let first = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to(&first, Act::Approve, PATIENCE).await.unwrap();
    room.withdraw(&first, "enough".parse().unwrap()).await.unwrap();
    let log = of_one_mind(&cluster, &[1, 2, 3, 4, 5], &first, 8).await;

    // An entry from a clock that is five minutes fast: nobody accepts it, and its writer is named.
    let second = open(&room, CeremonyKind::Dkg, "savings").await;
    room.look(&second).await.unwrap();
    let second_log = of_one_mind(&cluster, &[1, 2, 3, 4, 5], &second, 6).await;
    let host = Host::with_credentials_of(&cluster, node(3)).await.unwrap();
    let fault = log::Faulted { node: 3, reason: "a fast clock".to_owned() };
    let event = log::Event { kind: Some(log::event::Kind::Faulted(fault)) };
    let fast = host.entry(&second_log, event, now().plus(5 * 60_000)).unwrap();
    host.put(&second, fast.encode()).await.unwrap();
    // What is in a store already, dated however, keeps nobody from starting: an opening that rests on nothing known.
    for index in 1..=5 {
        let store = Store::open(&cluster.store_url(node(index))).await.unwrap();
        let opened = Ceremonies::event(&log[0]);
        let stray = host.opening(&"dkg-treasury-0000".parse().unwrap(), opened, now().plus(-60_000)).unwrap();
        store.append_entry(&stray).await.unwrap();
        cluster.agent(node(index)).unwrap().kill().await;
    }
    room.withdraw(&second, "after the restart".parse().unwrap()).await.unwrap();
    assert!(room.wait_recorded(&second, PATIENCE).await.unwrap().recorded);
    assert!(!room.book.get(&second).unwrap().entries.iter().any(|entry| entry.hash() == fast.hash()));
    let listed = run(&cluster.layout().console(), &["ceremony", "list"], None).unwrap();
    assert!(listed.contains(first.as_str()) && listed.contains(second.as_str()), "{listed}");
    cluster.stop().await;
}

/// What an entry says, to be said again.
struct Ceremonies;

impl Ceremonies {
    fn event(entry: &Entry) -> log::Event {
        log::EntryBody::decode(entry.raw().body.as_slice()).unwrap().event.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_frozen_agent_or_an_endless_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.look(&id).await.unwrap();
    let console = cluster.layout().console();
    let entry = room.book.get(&id).unwrap().entries[0].clone();
    cluster.agent(node(2)).unwrap().freeze().await;
    cluster.agent(node(3)).unwrap().hold().await;
    let host = Host::with_credentials_of(&cluster, node(3)).await.unwrap();
    let endless = host.answer_without_end(&entry).await.unwrap();
    for command in [vec!["ceremony", "list"], vec!["ceremony", "show", id.as_str()], vec!["wallet", "list"]] {
        let begun = Instant::now();
        run(&console, &command, None).unwrap();
        assert!(begun.elapsed() < SOON, "{command:?} took {:?}", begun.elapsed());
    }
    // Three of five have it and two are silent: that is reported, and is not a quorum.
    let begun = Instant::now();
    let operator = room.people(Role::Operator).next().unwrap().clone();
    let veto =
        Signature::by(&operator, "withdraw".parse().unwrap(), Answer::Withdraw("stop".parse().unwrap()));
    let outcome = room::sign(&room.client, &room.book, &id, &veto, &operator.key, None).await;
    assert!(begun.elapsed() < Duration::from_secs(20));
    if let Ok(receipt) = &outcome {
        assert!(!receipt.recorded().recorded, "{receipt}");
    }
    endless.abort();
    cluster.agent(node(2)).unwrap().thaw().await;
    cluster.agent(node(3)).unwrap().resume().await;
    assert!(room.wait_recorded(&id, HEALED).await.unwrap().recorded);
    let log = of_one_mind(&cluster, &[1, 2, 3, 4, 5], &id, 2).await;
    assert!(log.iter().any(|entry| matches!(entry.event, ceremonies::log::Event::Withdrawn { .. })));
    cluster.stop().await;
}

/// Runs statements on a node's SQLite file, beside its agent.
fn sql(cluster: &Cluster, index: NodeIndex, statements: &str) {
    let file = cluster.layout().node(index).join("store.db");
    let script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], timeout=10); db.executescript(sys.argv[2]); db.commit()";
    let done = Command::new("python3").args(["-c", script]).arg(file).arg(statements).status().unwrap();
    assert!(done.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn store_that_takes_nothing_makes_no_fork_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to(&id, Act::Confirm, PATIENCE).await.unwrap();
    let full = "SELECT RAISE(FAIL, 'database or disk is full')";
    sql(
        &cluster,
        node(2),
        &format!(
            "CREATE TRIGGER full_entries BEFORE INSERT ON entries BEGIN {full}; END; \
             CREATE TRIGGER full_positions BEFORE INSERT ON positions BEGIN {full}; END;"
        ),
    );
    heartbeat(&room, 2, |heartbeat| heartbeat.store_trouble.contains("full")).await;
    let step = room.ceremony(&id).unwrap().current_step().unwrap().clone();
    let witness = room.people(Role::Witness).next().unwrap().clone();
    let receipt = room.sign(&id, &step, &witness, Answer::None).await.unwrap();
    assert!(receipt.recorded().recorded && !receipt.recorded().by.contains(&node(2)), "{receipt}");
    let log = of_one_mind(&cluster, &[1, 3, 4, 5], &id, usize::try_from(receipt.seq).unwrap()).await;

    sql(&cluster, node(2), "DROP TRIGGER full_entries; DROP TRIGGER full_positions;");
    heartbeat(&room, 2, |heartbeat| heartbeat.store_trouble.is_empty()).await;
    assert_eq!(of_one_mind(&cluster, &[1, 2, 3, 4, 5], &id, log.len()).await[..log.len()], log[..]);
    for index in 1..=5 {
        let store = Store::open(&cluster.store_url(node(index))).await.unwrap();
        assert!(store.aside().await.unwrap().is_empty(), "node {index} has seen a fork");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fork_is_healed_and_both_branches_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to(&id, Act::Confirm, PATIENCE).await.unwrap();
    let before = of_one_mind(&cluster, &[1, 2, 3, 4, 5], &id, 6).await;
    let host = Host::with_credentials_of(&cluster, node(3)).await.unwrap();
    cluster.agent(node(3)).unwrap().hold().await;

    // While the broker is away, node 1 is given one entry and node 2 another for the same place.
    let step = room.ceremony(&id).unwrap().current_step().unwrap().clone();
    let witness = room.people(Role::Witness).next().unwrap().clone();
    let operator = room.people(Role::Operator).next().unwrap().clone();
    let end = Answer::Withdraw("stop".parse().unwrap());
    let signatures = [
        (Signature::by(&witness, step.id.clone(), Answer::None), &witness.key),
        (Signature::by(&operator, "withdraw".parse().unwrap(), end), &operator.key),
    ];
    let entries = signatures.map(|(signature, key)| {
        let statement = signature.statement(room.ceremony(&id).unwrap(), now()).unwrap();
        let armoured = console::signer::sign(key, &statement, None).unwrap();
        host.entry(&before, signature.event(armoured), now()).unwrap()
    });
    for (index, entry) in [(1, &entries[0]), (2, &entries[1])] {
        let agent = cluster.agent(node(index)).unwrap();
        agent.hold().await;
        let store = Store::open(&cluster.store_url(node(index))).await.unwrap();
        store.append_entry(entry).await.unwrap();
        drop(store);
        agent.resume().await;
    }
    cluster.agent(node(3)).unwrap().resume().await;
    let healed = of_one_mind(&cluster, &[1, 2, 3, 4, 5], &id, before.len() + 1).await;
    let hashes: Vec<Hash> = entries.iter().map(Entry::hash).collect();
    assert!(hashes.contains(&healed[before.len()].hash()), "one of the two stands");
    assert!(room.wait_recorded(&id, HEALED).await.unwrap().recorded);
    // Whichever stands, the veto is in the record.
    room.look(&id).await.unwrap();
    let is_void =
        |ceremony: &ceremonies::ceremony::Ceremony| matches!(ceremony.phase_at(now()), Phase::Void(_));
    room.wait(&id, HEALED, is_void).await.unwrap();
    let mut aside = Vec::new();
    for index in 1..=5 {
        let store = Store::open(&cluster.store_url(node(index))).await.unwrap();
        aside.extend(
            store.aside().await.unwrap().into_iter().map(|raw| Entry::from_wire(raw).unwrap().hash()),
        );
    }
    assert!(hashes.iter().any(|hash| aside.contains(hash)), "the other is kept");

    // Anyone who was not there reads of both in the evidence.
    assert!(room.wait_recorded(&id, HEALED).await.unwrap().recorded);
    let bundle = folder.path().join("b.zip");
    let export = ["evidence", "export", id.as_str(), "-o", bundle.to_str().unwrap()];
    run(&cluster.layout().console(), &export, None).unwrap();
    let report = verify(&std::fs::read(bundle).unwrap(), &Expected::default()).unwrap();
    assert!(report.recorded, "{report}");
    let stands = healed[before.len()].hash();
    let other = hashes.iter().find(|hash| **hash != stands).unwrap().to_string();
    assert!(report.branches.iter().any(|branch| branch.contains(&other)), "{report}");
    cluster.stop().await;
}
