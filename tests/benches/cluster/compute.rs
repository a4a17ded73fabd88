//! The same sessions as in the enclaves, all parties in this process and nothing between them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ceremonies::curve::Point;
use ceremonies::ids::{Hash, NodeIndex};
use ceremonies::wallet::{Record, Scheme};
use ceremonies::wire::log;
use enclave::scheme::dkls23::{
    Factory, KeyGeneration, KeyShare, NewShare, Product, Refreshing, Repairing, Signing,
};
use enclave::session::{Action, BootKeys, Session, SessionPlan};
use prost::Message as _;

const SIGNATURES: u32 = 50;

/// What a protocol costs when nothing is in its way.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Compute time of all parties, one after the other.
    pub(crate) total: Duration,
    /// Of the slowest party in each round, added up: what it takes with a core for every party.
    pub(crate) slowest: Duration,
    /// Measured from beginning to end with a thread for every party, on the cores that are there.
    pub(crate) threads: Duration,
}

/// A party, what it has computed in each round, and the round it is in.
struct Party {
    session: Session<Product>,
    spent: BTreeMap<u32, Duration>,
}

impl Party {
    fn work(
        &mut self,
        work: impl FnOnce(&mut Session<Product>) -> Vec<Action<Product>>,
    ) -> Vec<Action<Product>> {
        let begun = Instant::now();
        let actions = work(&mut self.session);
        let spent = begun.elapsed();
        let reached = actions.iter().filter_map(|action| match action {
            Action::Progress(progress) => Some(progress.number),
            _ => None,
        });
        let round = reached.max().or_else(|| self.spent.keys().max().copied()).unwrap_or(0);
        *self.spent.entry(round).or_default() += spent;
        actions
    }
}

fn parties(nodes: &[NodeIndex], factory: impl Fn(NodeIndex) -> Factory) -> BTreeMap<NodeIndex, Party> {
    let keys: BTreeMap<NodeIndex, Arc<BootKeys>> =
        nodes.iter().map(|party| (*party, Arc::new(BootKeys::generate()))).collect();
    let public: BTreeMap<_, _> = keys.iter().map(|(party, keys)| (*party, keys.public())).collect();
    let party = |own: NodeIndex, keys: &Arc<BootKeys>| {
        let plan = SessionPlan {
            label: Hash::of_bytes(b"bench"),
            context: Hash::of_bytes(b"bench"),
            own,
            parties: public.clone(),
            barrier_ms: 60_000,
            round_ms: 60_000,
        };
        let session = Session::new(plan, Arc::clone(keys), rand::random(), factory(own));
        Party { session, spent: BTreeMap::new() }
    };
    keys.iter().map(|(own, keys)| (*own, party(*own, keys))).collect()
}

/// Runs all parties one after the other.
fn in_turn(mut running: BTreeMap<NodeIndex, Party>) -> (BTreeMap<NodeIndex, Product>, Cost) {
    let mut products = BTreeMap::new();
    let mut queue = VecDeque::new();
    let mut act = |actions: Vec<Action<Product>>, from: NodeIndex, queue: &mut VecDeque<_>| {
        for action in actions {
            match action {
                Action::Send { to, bytes } => queue.push_back((to, bytes)),
                Action::Finished(outcome) => drop(products.insert(from, outcome.product)),
                Action::Failed(failure) => unreachable!("{}", failure.reason),
                Action::Progress(_) => {}
            }
        }
    };
    for (index, party) in &mut running {
        act(party.work(|session| session.start(0)), *index, &mut queue);
    }
    while let Some((to, bytes)) = queue.pop_front() {
        let actions = running.get_mut(&to).unwrap().work(|session| session.receive(0, &bytes));
        act(actions, to, &mut queue);
    }
    let mut slowest: BTreeMap<u32, Duration> = BTreeMap::new();
    for (round, spent) in running.values().flat_map(|party| &party.spent) {
        let most = slowest.entry(*round).or_default();
        *most = (*most).max(*spent);
    }
    let total = running.values().flat_map(|party| party.spent.values()).sum();
    (products, Cost { total, slowest: slowest.values().sum(), threads: Duration::ZERO })
}

/// Runs every party on a thread of its own.
fn in_threads(running: BTreeMap<NodeIndex, Party>) -> Duration {
    let mut senders = BTreeMap::new();
    let mut waiting = Vec::new();
    for (index, party) in running {
        let (sender, inbox) = channel::<Vec<u8>>();
        senders.insert(index, sender);
        waiting.push((party, inbox));
    }
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for (mut party, inbox) in waiting {
            let senders = &senders;
            scope.spawn(move || {
                let mut actions = party.session.start(0);
                loop {
                    for action in actions {
                        if let Action::Send { to, bytes } = action {
                            // A party that has its product no longer listens.
                            let _ = senders[&to].send(bytes);
                        }
                    }
                    if party.session.is_over() {
                        return;
                    }
                    actions = party.session.receive(0, &inbox.recv().unwrap());
                }
            });
        }
    });
    begun.elapsed()
}

/// What each protocol costs: of five parties, and for a signature of three, for a repair of three and a target.
pub(crate) struct Costs {
    pub(crate) dkg: Cost,
    pub(crate) signature: Cost,
    pub(crate) refresh: Cost,
    pub(crate) repair: Cost,
}

/// The record of a new key, as far as a session looks at it.
fn record(new: &NewShare) -> Record {
    let share = |(node, point): (&NodeIndex, &Point)| log::PublicShare {
        node: (*node).into(),
        point: point.as_bytes().to_vec(),
    };
    let record = log::GenerationRecord {
        version: 1,
        cluster: "bench".into(),
        ceremony: "bench".into(),
        manifest: vec![0; 32],
        wallet: "bench".into(),
        generation: 1,
        threshold: 3,
        public_key: new.public_key.as_bytes().to_vec(),
        chain_code: new.chain_code.as_bytes().to_vec(),
        public_shares: new.public_shares.iter().map(share).collect(),
        session: vec![0; 32],
        transcript: vec![0; 32],
        enclaves: vec![0; 32],
        scheme: Scheme::Dkls23Secp256k1.into(),
    };
    Record::parse(&record.encode_to_vec()).unwrap()
}

/// What both ways of running a session cost.
fn cost(session: impl Fn() -> BTreeMap<NodeIndex, Party>) -> Cost {
    let (_, mut cost) = in_turn(session());
    cost.threads = in_threads(session());
    cost
}

/// The costs of all protocols.
pub(crate) fn compute() -> Costs {
    let all: Vec<NodeIndex> = (1..=5).map(|i| NodeIndex::new(i).unwrap()).collect();
    let generation = || {
        parties(&all, |own| {
            let all = all.clone();
            Box::new(move |session| Ok(Box::new(KeyGeneration::new(own, all, 3, session)?)))
        })
    };
    let (products, mut dkg) = in_turn(generation());
    dkg.threads = in_threads(generation());
    let mut shares: BTreeMap<NodeIndex, Arc<KeyShare>> = BTreeMap::new();
    let mut made = None;
    for (party, product) in products {
        if let Product::Share(new) = product {
            made = Some(record(&new));
            shares.insert(party, Arc::new(new.share));
        }
    }
    let record = made.unwrap();
    let (key, subset) = (record.public_key, &all[..3]);
    let mut signature = Cost::default();
    for number in 0..SIGNATURES {
        let signing = |again: u8| {
            let digest = Hash::of_parts("bench", &[&number.to_be_bytes(), &[again]]);
            parties(subset, |own| {
                let (share, subset) = (Arc::clone(&shares[&own]), subset.to_vec());
                Box::new(move |session| {
                    Ok(Box::new(Signing::new(share, own, &subset, key, digest, session)?))
                })
            })
        };
        let (_, cost) = in_turn(signing(0));
        signature.total += cost.total / SIGNATURES;
        signature.slowest += cost.slowest / SIGNATURES;
        signature.threads += in_threads(signing(1)) / SIGNATURES;
    }
    let refresh = cost(|| {
        parties(&all, |own| {
            let (share, record) = (Arc::clone(&shares[&own]), record.clone());
            Box::new(move |session| Ok(Box::new(Refreshing::new(share, own, &record, session)?)))
        })
    });
    let (lost, group) = (all[3], &all[..4]);
    let repair = cost(|| {
        parties(group, |own| {
            let share = Some(Arc::clone(&shares[&own])).filter(|_| own != lost);
            let (group, record) = (group.to_vec(), record.clone());
            Box::new(move |session| Ok(Box::new(Repairing::new(share, own, lost, group, record, session)?)))
        })
    });
    Costs { dkg, signature, refresh, repair }
}
