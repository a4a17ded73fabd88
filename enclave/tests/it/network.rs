//! Sessions of several parties on a network in memory, which the tests make misbehave; and protocols at one
//! table, without a network, whose parties cheat inside what they sign.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ceremonies::attestation::EnclaveKeys;
use ceremonies::ids::{Hash, NodeIndex};
use enclave::scheme::dkls23::{Factory, Product, Signature};
use enclave::session::{
    self, Action, BootKeys, Finished, Inbound, Millis, Outcome, Outgoing, Protocol, ProtocolAbort, Round,
    Session, SessionFailure, SessionPlan, Step,
};

pub(crate) const BARRIER_MS: Millis = 10_000;
pub(crate) const ROUND_MS: Millis = 20_000;

pub(crate) fn node(index: u8) -> NodeIndex {
    NodeIndex::new(index).unwrap()
}

#[derive(Clone)]
pub(crate) struct Packet {
    pub(crate) from: NodeIndex,
    pub(crate) to: NodeIndex,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) enum End<T = Product> {
    Finished(Box<Outcome<T>>),
    Failed(SessionFailure),
}

/// A party's keys and beliefs.
#[derive(Clone)]
pub(crate) struct Party {
    pub(crate) keys: Arc<BootKeys>,
    pub(crate) label: Hash,
    pub(crate) context: Hash,
    pub(crate) nonce: [u8; 32],
    /// Keys it believes others to have, where that is wrong.
    pub(crate) believes: BTreeMap<NodeIndex, EnclaveKeys>,
}

pub(crate) type Parties = BTreeMap<NodeIndex, Party>;

pub(crate) fn parties(indices: &[u8]) -> Parties {
    let party = |index: u8| Party {
        keys: Arc::new(BootKeys::generate()),
        label: Hash::of_bytes(b"label"),
        context: Hash::of_bytes(b"context"),
        nonce: [index; 32],
        believes: BTreeMap::new(),
    };
    indices.iter().map(|index| (node(*index), party(*index))).collect()
}

/// Parties and the packets between them.
pub(crate) struct Network<T = Product> {
    pub(crate) sessions: BTreeMap<NodeIndex, Session<T>>,
    pub(crate) queue: VecDeque<Packet>,
    pub(crate) ends: BTreeMap<NodeIndex, End<T>>,
    finished: BTreeMap<NodeIndex, Finished>,
    pub(crate) now: Millis,
}

impl<T> Network<T> {
    pub(crate) fn new(parties: &Parties, factory: impl Fn(NodeIndex) -> session::Factory<T>) -> Self {
        let keys: BTreeMap<NodeIndex, EnclaveKeys> =
            parties.iter().map(|(node, party)| (*node, party.keys.public())).collect();
        let session = |(own, party): (&NodeIndex, &Party)| {
            let mut keys = keys.clone();
            keys.extend(&party.believes);
            let plan = SessionPlan {
                label: party.label,
                context: party.context,
                own: *own,
                parties: keys,
                barrier_ms: BARRIER_MS,
                round_ms: ROUND_MS,
            };
            (*own, Session::new(plan, Arc::clone(&party.keys), party.nonce, factory(*own)))
        };
        Self {
            sessions: parties.iter().map(session).collect(),
            queue: VecDeque::new(),
            ends: BTreeMap::new(),
            finished: BTreeMap::new(),
            now: 0,
        }
    }

    fn act(&mut self, from: NodeIndex, actions: Vec<Action<T>>) {
        for action in actions {
            assert!(!self.ends.contains_key(&from), "node {from} acts after its end");
            match action {
                Action::Send { to, bytes } => self.queue.push_back(Packet { from, to, bytes }),
                Action::Progress(progress) => assert!(progress.number <= progress.count),
                Action::Finished(outcome) => {
                    let label = Hash::of_bytes(b"label");
                    self.finished.entry(from).or_default().keep(label, outcome.last_letters.clone());
                    self.ends.insert(from, End::Finished(outcome));
                }
                Action::Failed(failure) => {
                    self.ends.insert(from, End::Failed(failure));
                }
            }
        }
    }

    pub(crate) fn start(&mut self) {
        for node in self.sessions.keys().copied().collect::<Vec<_>>() {
            let actions = self.sessions.get_mut(&node).unwrap().start(self.now);
            self.act(node, actions);
        }
    }

    pub(crate) fn deliver(&mut self, to: NodeIndex, bytes: &[u8]) {
        let actions = self.sessions.get_mut(&to).unwrap().receive(self.now, bytes);
        self.act(to, actions);
    }

    pub(crate) fn pass(&mut self, time: Millis) {
        self.now += time;
        for node in self.sessions.keys().copied().collect::<Vec<_>>() {
            let actions = self.sessions.get_mut(&node).unwrap().tick(self.now);
            self.act(node, actions);
        }
    }

    /// Delivers until nothing is under way, letting `meddle` change, drop or add packets.
    pub(crate) fn settle(&mut self, mut meddle: impl FnMut(Packet) -> Vec<Packet>) {
        while let Some(packet) = self.queue.pop_front() {
            for Packet { from, to, bytes } in meddle(packet) {
                let finished = self.finished.get_mut(&to);
                if let Some(bytes) = finished.and_then(|of| of.answer(&Hash::of_bytes(b"label"), from)) {
                    self.queue.push_back(Packet { from: to, to: from, bytes });
                }
                self.deliver(to, &bytes);
            }
        }
    }

    /// Starts, delivers, then lets every deadline pass.
    pub(crate) fn run(&mut self, meddle: impl FnMut(Packet) -> Vec<Packet>) {
        self.start();
        self.settle(meddle);
        self.pass(BARRIER_MS + ROUND_MS);
    }

    /// Runs with one party duplicated: what `to` hears from `twin` comes from the other network, whose `twin` hears
    /// everything that this one's does.
    pub(crate) fn run_with_twin(&mut self, other: &mut Self, twin: NodeIndex, to: NodeIndex) {
        self.start();
        other.start();
        while !self.queue.is_empty() || !other.queue.is_empty() {
            while let Some(packet) = self.queue.pop_front() {
                if packet.to == twin {
                    other.deliver(twin, &packet.bytes);
                }
                if (packet.from, packet.to) != (twin, to) {
                    self.deliver(packet.to, &packet.bytes);
                }
            }
            while let Some(packet) = other.queue.pop_front() {
                if (packet.from, packet.to) == (twin, to) {
                    self.deliver(to, &packet.bytes);
                }
            }
        }
        self.pass(BARRIER_MS + ROUND_MS);
    }

    pub(crate) fn failure(&self, of: u8) -> &SessionFailure {
        match &self.ends[&node(of)] {
            End::Failed(failure) => failure,
            End::Finished(_) => panic!("node {of} finished"),
        }
    }

    pub(crate) fn outcome(&self, of: u8) -> &Outcome<T> {
        match &self.ends[&node(of)] {
            End::Finished(outcome) => outcome,
            End::Failed(failure) => panic!("node {of} failed: {}", failure.reason),
        }
    }

    pub(crate) fn nobody_is_banned(&self) -> bool {
        self.ends.values().all(|end| match end {
            End::Failed(failure) => failure.ban.is_none(),
            End::Finished(_) => true,
        })
    }
}

/// A short protocol: two rounds in which every party broadcasts and sends something private.
pub(crate) struct Greetings {
    pub(crate) own: NodeIndex,
    pub(crate) others: Vec<NodeIndex>,
    /// What it calls itself.
    pub(crate) named: NodeIndex,
}

impl Greetings {
    fn outgoing(&self) -> Outgoing {
        let private = self.others.iter().map(|to| (*to, format!("for {to}").into_bytes().into())).collect();
        Outgoing { broadcast: format!("node {} is here", self.named).into_bytes(), private }
    }
}

impl Protocol for Greetings {
    type Product = Product;

    fn rounds(&self) -> &'static [&'static str] {
        &["greet", "greet again"]
    }

    fn start(&mut self) -> Result<Outgoing, ProtocolAbort> {
        Ok(self.outgoing())
    }

    fn round(&mut self, number: usize, messages: Round) -> Result<Step<Product>, ProtocolAbort> {
        for (from, message) in &messages {
            if *from != self.own && message.private.as_slice() != format!("for {}", self.own).as_bytes() {
                return Err(ProtocolAbort::by(*from, "that was not for me"));
            }
        }
        if number == 1 {
            return Ok(Step::Next(self.outgoing()));
        }
        Ok(Step::Done(Product::Signature(Signature { r: [1; 32], s: [1; 32], recovery_id: 0 })))
    }
}

pub(crate) fn greetings(indices: &[u8]) -> impl Fn(NodeIndex) -> Factory + use<> {
    let all: Vec<NodeIndex> = indices.iter().map(|index| node(*index)).collect();
    move |own| {
        let others = all.iter().copied().filter(|other| *other != own).collect();
        Box::new(move |_| Ok(Box::new(Greetings { own, others, named: own })))
    }
}

pub(crate) fn greet(indices: &[u8]) -> Network {
    Network::new(&parties(indices), greetings(indices))
}

/// What all parties of a protocol send in one round.
pub(crate) type Said = BTreeMap<NodeIndex, Outgoing>;

/// Runs protocols against each other, letting `cheat` change what the parties of a round say, by its number. Ends when
/// no party has anything left to say.
pub(crate) fn at_one_table<P: Protocol>(
    mut protocols: BTreeMap<NodeIndex, P>,
    mut cheat: impl FnMut(usize, &mut Said),
) -> BTreeMap<NodeIndex, Result<P::Product, ProtocolAbort>> {
    let mut ends = BTreeMap::new();
    let mut said = Said::new();
    for (party, protocol) in &mut protocols {
        match protocol.start() {
            Ok(outgoing) => drop(said.insert(*party, outgoing)),
            Err(abort) => drop(ends.insert(*party, Err(abort))),
        }
    }
    for number in 1.. {
        if said.is_empty() {
            break;
        }
        cheat(number, &mut said);
        let mut next = Said::new();
        for (party, protocol) in protocols.iter_mut().filter(|(party, _)| said.contains_key(party)) {
            let heard = |(from, outgoing): (&NodeIndex, &Outgoing)| {
                let private = outgoing.private.get(party).cloned().unwrap_or_default();
                (*from, Inbound { broadcast: outgoing.broadcast.clone(), private })
            };
            match protocol.round(number, said.iter().map(heard).collect()) {
                Ok(Step::Next(outgoing)) => drop(next.insert(*party, outgoing)),
                Ok(Step::Done(product)) => drop(ends.insert(*party, Ok(product))),
                Err(abort) => drop(ends.insert(*party, Err(abort))),
            }
        }
        said = next;
    }
    ends
}

/// The abort of one party.
pub(crate) fn abort_of<T>(ends: &BTreeMap<NodeIndex, Result<T, ProtocolAbort>>, of: u8) -> &ProtocolAbort {
    match &ends[&node(of)] {
        Err(abort) => abort,
        Ok(_) => panic!("node {of} did not notice"),
    }
}
