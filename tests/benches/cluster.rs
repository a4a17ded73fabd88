//! One run, printed: ceremonies through a whole cluster against the same dkls23 phases in one process, the
//! fold, the console's frame, and what the processes weigh.

#![expect(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a bench may stop at the first surprise"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ceremonies::book::Book;
use ceremonies::ceremony::Ceremony;
use ceremonies::charter::CeremonyKind;
use ceremonies::entry::{Entry, Event};
use ceremonies::ids::{Hash, NodeIndex, UnixMillis};
use console::tui::{Event as TuiEvent, Model, Screen, update, view};
use enclave::session::{
    Action, BootKeys, Factory, KeyGeneration, KeyShare, Product, Session, SessionPlan, Signing,
};
use lab::cluster::{Cluster, Plan};
use lab::drive::Room;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

const PATIENCE: Duration = Duration::from_mins(3);
const SIGNATURES: u32 = 20;

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Runs sessions of all parties in this process, one after the other, and returns their outcomes and the
/// compute time of all of them.
fn in_one_process(
    parties: &[NodeIndex],
    factory: impl Fn(NodeIndex) -> Factory,
) -> (BTreeMap<NodeIndex, Product>, Duration) {
    let keys: BTreeMap<NodeIndex, Arc<BootKeys>> =
        parties.iter().map(|party| (*party, Arc::new(BootKeys::generate()))).collect();
    let public: BTreeMap<_, _> = keys.iter().map(|(party, keys)| (*party, keys.public())).collect();
    let mut sessions: BTreeMap<NodeIndex, Session> = keys
        .iter()
        .map(|(own, keys)| {
            let plan = SessionPlan {
                label: Hash::of_bytes(b"bench"),
                context: Hash::of_bytes(b"bench"),
                own: *own,
                parties: public.clone(),
                barrier_ms: 60_000,
                round_ms: 60_000,
            };
            (*own, Session::new(plan, Arc::clone(keys), rand::random(), factory(*own)))
        })
        .collect();
    let begun = Instant::now();
    let mut products = BTreeMap::new();
    let mut queue = std::collections::VecDeque::new();
    let mut act = |actions: Vec<Action>, from: NodeIndex, queue: &mut std::collections::VecDeque<_>| {
        for action in actions {
            match action {
                Action::Send { to, bytes } => queue.push_back((to, bytes)),
                Action::Finished(outcome) => drop(products.insert(from, outcome.product)),
                Action::Failed(failure) => unreachable!("{}", failure.reason),
                Action::Progress(_) => {}
            }
        }
    };
    for party in parties {
        let actions = sessions.get_mut(party).unwrap().start(0);
        act(actions, *party, &mut queue);
    }
    while let Some((to, bytes)) = queue.pop_front() {
        let actions = sessions.get_mut(&to).unwrap().receive(0, &bytes);
        act(actions, to, &mut queue);
    }
    (products, begun.elapsed())
}

fn compute() -> (Duration, Duration) {
    let parties: Vec<NodeIndex> = (1..=5).map(|i| NodeIndex::new(i).unwrap()).collect();
    let all = parties.clone();
    let (products, dkg) = in_one_process(&parties, move |own| {
        let all = all.clone();
        Box::new(move |session| Ok(Box::new(KeyGeneration::new(own, all, 3, session)?)))
    });
    let mut shares: BTreeMap<NodeIndex, Arc<KeyShare>> = BTreeMap::new();
    let mut key = None;
    for (party, product) in products {
        if let Product::Share(new) = product {
            key = Some(new.public_key);
            shares.insert(party, Arc::new(new.share));
        }
    }
    let (key, subset) = (key.unwrap(), parties[..3].to_vec());
    let begun = Instant::now();
    for number in 0..SIGNATURES {
        let digest = Hash::of_bytes(&number.to_be_bytes());
        in_one_process(&subset, |own| {
            let (share, subset) = (Arc::clone(&shares[&own]), subset.clone());
            Box::new(move |session| Ok(Box::new(Signing::new(share, own, &subset, key, digest, session)?)))
        });
    }
    (dkg, begun.elapsed() / SIGNATURES)
}

fn between(entries: &[Entry], from: impl Fn(&Event) -> bool, to: impl Fn(&Event) -> bool) -> i64 {
    let first = entries.iter().filter(|entry| from(&entry.event)).map(|entry| entry.time).max();
    let last = entries.iter().filter(|entry| to(&entry.event)).map(|entry| entry.time).max();
    last.unwrap().since(first.unwrap())
}

/// Resident memory and CPU seconds of the processes whose command line has this in it.
fn weigh(program: &str) -> (f64, f64) {
    let (mut rss, mut cpu, mut count) = (0.0, 0.0, 0.0);
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |file: &str| std::fs::read_to_string(process.path().join(file)).unwrap_or_default();
        let command = read("cmdline");
        if !command.split('\0').next().unwrap_or_default().ends_with(program) {
            continue;
        }
        let kilobytes = read("status")
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse::<f64>().ok());
        let stat = read("stat");
        let ticks: f64 = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<f64>().ok())
            .sum();
        rss += kilobytes.unwrap_or(0.0) / 1024.0;
        cpu += ticks / 100.0;
        count += 1.0;
    }
    (rss / count, cpu / count)
}

fn fold(entries: &[Entry], book: &Book) {
    let context = book.context().clone();
    let encoded: Vec<Vec<u8>> = entries.iter().map(Entry::encode).collect();
    let people =
        entries.iter().filter(|e| matches!(e.event, Event::Signed { .. } | Event::Opened { .. })).count();
    let attested = entries.iter().filter(|e| matches!(e.event, Event::Attested { .. })).count();
    let rounds = 50;
    let begun = Instant::now();
    for _ in 0..rounds {
        let decoded: Vec<Entry> = encoded.iter().map(|bytes| Entry::decode(bytes).unwrap()).collect();
        Ceremony::fold(context.clone(), &decoded).unwrap();
    }
    let rate = f64::from(rounds) * entries.len() as f64 / begun.elapsed().as_secs_f64();
    println!(
        "fold: {rate:.0} entries/s, over {} entries of which {people} carry an SSHSIG and {attested} an attestation",
        entries.len()
    );
    let begun = Instant::now();
    for _ in 0..rounds {
        for bytes in &encoded {
            let entry = Entry::decode(bytes).unwrap();
            assert!(entry.is_by_its_node(context.charter()));
        }
    }
    let rate = f64::from(rounds) * entries.len() as f64 / begun.elapsed().as_secs_f64();
    println!("      {rate:.0} entries/s decoded and checked without SSHSIGs and attestations (aim ≥ 10000)");
}

fn frame(room: &Room) {
    let now = UnixMillis(jiff::Timestamp::now().as_millisecond());
    let mut model = Model::new(room.cluster.clone(), now, true);
    model.book = room.book.clone();
    model.loaded = true;
    let mut terminal = Terminal::new(TestBackend::new(160, 50)).unwrap();
    for screen in Screen::ALL {
        model.screen = screen;
        let begun = Instant::now();
        for _ in 0..50 {
            update(&mut model, TuiEvent::Tick(now));
            terminal.draw(|frame| view(&model, frame)).unwrap();
        }
        println!("frame {}: {:.2} ms (aim < 16)", screen.title(), millis(begun.elapsed()) / 50.0);
    }
}

#[tokio::main]
async fn main() {
    let cores = std::thread::available_parallelism().unwrap().get();
    let (dkg, signature) = compute();
    println!(
        "in one process, all parties: DKG {:.0} ms, signature {:.1} ms; {cores} cores",
        millis(dkg),
        millis(signature)
    );

    let folder = tempfile::tempdir().unwrap();
    let plan = Plan {
        folder: folder.path().to_owned(),
        nodes: 5,
        threshold: 3,
        stores: BTreeMap::new(),
        programs: lab::programs::build().unwrap(),
    };
    let cluster = Cluster::start(&plan).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let id = room.open(CeremonyKind::Dkg, &"bench".parse().unwrap(), "bench".parse().unwrap()).await.unwrap();
    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    let entries = room.book.get(&id).unwrap().entries.clone();
    let through = between(
        &entries,
        |event| matches!(event, Event::Signed { step, .. } if step.as_str() == "approve"),
        |event| matches!(event, Event::Prepared { .. }),
    );
    let floor = millis(dkg) / cores as f64;
    println!(
        "DKG through the cluster: {through} ms from the last approval to the certificate, KMS and stores included"
    );
    println!("      ratio {:.2} to total compute ÷ cores ({floor:.0} ms; aim ≤ 1.2)", through as f64 / floor);
    let tests = between(
        &entries,
        |event| matches!(event, Event::Signed { step, .. } if step.as_str() == "read-back"),
        |event| matches!(event, Event::TestSigned(_)),
    );
    let each = tests as f64 / room.ceremony(&id).unwrap().cover().len() as f64;
    println!("test signature through the cluster: {each:.0} ms each, log entries included");
    println!(
        "      ratio {:.2} to all signers' compute ({:.1} ms)",
        each / millis(signature),
        millis(signature)
    );

    fold(&entries, &room.book);
    frame(&room);
    for program in ["custody-node", "lab-enclave"] {
        let (_, before) = weigh(program);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let (rss, after) = weigh(program);
        println!("{program}: {rss:.1} MB resident, {:.2} % CPU idle", (after - before) * 10.0);
    }
    cluster.stop().await;
}
