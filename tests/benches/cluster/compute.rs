//! The same sessions as in the enclaves, all parties in this process and nothing between them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ceremonies::ids::{Hash, NodeIndex};
use enclave::session::{
    Action, BootKeys, Factory, KeyGeneration, KeyShare, Product, Session, SessionPlan, Signing,
};

const SIGNATURES: u32 = 50;

/// What a protocol costs when nothing is in its way.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Compute time of all parties.
    pub(crate) total: Duration,
    /// Of the slowest party in each round, added up: what it takes with a core for every party.
    pub(crate) slowest: Duration,
}

impl Cost {
    /// What it takes on this many cores at the least.
    pub(crate) fn floor(&self, cores: u32) -> Duration {
        self.slowest.max(self.total / cores)
    }
}

/// A party, what it has computed in each round, and the round it is in.
struct Party {
    session: Session,
    spent: BTreeMap<u32, Duration>,
}

impl Party {
    fn work(&mut self, work: impl FnOnce(&mut Session) -> Vec<Action>) -> Vec<Action> {
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

fn in_one_process(
    parties: &[NodeIndex],
    factory: impl Fn(NodeIndex) -> Factory,
) -> (BTreeMap<NodeIndex, Product>, Cost) {
    let keys: BTreeMap<NodeIndex, Arc<BootKeys>> =
        parties.iter().map(|party| (*party, Arc::new(BootKeys::generate()))).collect();
    let public: BTreeMap<_, _> = keys.iter().map(|(party, keys)| (*party, keys.public())).collect();
    let mut running: BTreeMap<NodeIndex, Party> = keys
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
            let session = Session::new(plan, Arc::clone(keys), rand::random(), factory(*own));
            (*own, Party { session, spent: BTreeMap::new() })
        })
        .collect();
    let mut products = BTreeMap::new();
    let mut queue = VecDeque::new();
    let mut act = |actions: Vec<Action>, from: NodeIndex, queue: &mut VecDeque<_>| {
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
        let actions = running.get_mut(party).unwrap().work(|session| session.start(0));
        act(actions, *party, &mut queue);
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
    (products, Cost { total, slowest: slowest.values().sum() })
}

/// The cost of a key generation of five and of a signature of three of them.
pub(crate) fn compute() -> (Cost, Cost) {
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
    let mut signature = Cost::default();
    for number in 0..SIGNATURES {
        let digest = Hash::of_bytes(&number.to_be_bytes());
        let (_, cost) = in_one_process(&subset, |own| {
            let (share, subset) = (Arc::clone(&shares[&own]), subset.clone());
            Box::new(move |session| Ok(Box::new(Signing::new(share, own, &subset, key, digest, session)?)))
        });
        signature.total += cost.total;
        signature.slowest += cost.slowest;
    }
    let signature = Cost { total: signature.total / SIGNATURES, slowest: signature.slowest / SIGNATURES };
    (dkg, signature)
}
