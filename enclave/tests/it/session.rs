//! Sessions of several parties on a network in memory, which the tests make misbehave.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ceremonies::attestation::EnclaveKeys;
use ceremonies::ceremony::verifies;
use ceremonies::ids::{Hash, NodeIndex};
use ceremonies::subsets::subsets;
use ceremonies::wallet::{Point, Record};
use ceremonies::wire::log;
use enclave::session::{
    Action, BootKeys, Dropped, Factory, KeyGeneration, KeyShare, Millis, Outcome, Outgoing, Product,
    Protocol, ProtocolAbort, Round, Session, SessionFailure, SessionPlan, Signature, Signing, Step,
};
use prost::Message;

const BARRIER_MS: Millis = 10_000;
const ROUND_MS: Millis = 20_000;

fn node(index: u8) -> NodeIndex {
    NodeIndex::new(index).unwrap()
}

struct Packet {
    from: NodeIndex,
    to: NodeIndex,
    bytes: Vec<u8>,
}

enum End {
    Finished(Box<Outcome>),
    Failed(SessionFailure),
}

/// Parties and the packets between them.
struct Network {
    sessions: BTreeMap<NodeIndex, Session>,
    queue: VecDeque<Packet>,
    ends: BTreeMap<NodeIndex, End>,
    now: Millis,
}

struct Party {
    keys: Arc<BootKeys>,
    context: Hash,
}

fn parties(indices: &[u8]) -> BTreeMap<NodeIndex, Party> {
    let party = || Party { keys: Arc::new(BootKeys::generate()), context: Hash::of_bytes(b"context") };
    indices.iter().map(|index| (node(*index), party())).collect()
}

impl Network {
    fn new(parties: &BTreeMap<NodeIndex, Party>, factory: impl Fn(NodeIndex) -> Factory) -> Self {
        let keys: BTreeMap<NodeIndex, EnclaveKeys> =
            parties.iter().map(|(node, party)| (*node, party.keys.public())).collect();
        let session = |(own, party): (&NodeIndex, &Party)| {
            let plan = SessionPlan {
                label: Hash::of_bytes(b"label"),
                context: party.context,
                own: *own,
                parties: keys.clone(),
                barrier_ms: BARRIER_MS,
                round_ms: ROUND_MS,
            };
            let nonce = [own.get(); 32];
            (*own, Session::new(plan, Arc::clone(&party.keys), nonce, factory(*own)))
        };
        Self {
            sessions: parties.iter().map(session).collect(),
            queue: VecDeque::new(),
            ends: BTreeMap::new(),
            now: 0,
        }
    }

    fn act(&mut self, from: NodeIndex, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { to, bytes } => self.queue.push_back(Packet { from, to, bytes }),
                Action::Progress(_) => {}
                Action::Finished(outcome) => {
                    self.ends.insert(from, End::Finished(outcome));
                }
                Action::Failed(failure) => {
                    self.ends.insert(from, End::Failed(failure));
                }
            }
        }
    }

    fn start(&mut self) {
        let nodes: Vec<NodeIndex> = self.sessions.keys().copied().collect();
        for node in nodes {
            let actions = self.sessions.get_mut(&node).unwrap().start(self.now);
            self.act(node, actions);
        }
    }

    fn deliver(&mut self, to: NodeIndex, bytes: &[u8]) {
        let actions = self.sessions.get_mut(&to).unwrap().receive(self.now, bytes);
        self.act(to, actions);
    }

    /// Delivers until nothing is under way, letting `meddle` change, drop (by emptying) or add packets;
    /// then lets every deadline pass.
    fn run(&mut self, mut meddle: impl FnMut(Packet) -> Vec<Packet>) {
        self.start();
        while let Some(packet) = self.queue.pop_front() {
            for packet in meddle(packet) {
                self.deliver(packet.to, &packet.bytes);
            }
        }
        self.now += BARRIER_MS + ROUND_MS;
        let nodes: Vec<NodeIndex> = self.sessions.keys().copied().collect();
        for node in nodes {
            let actions = self.sessions.get_mut(&node).unwrap().tick(self.now);
            self.act(node, actions);
        }
    }

    fn failure(&self, of: u8) -> &SessionFailure {
        match &self.ends[&node(of)] {
            End::Failed(failure) => failure,
            End::Finished(_) => panic!("node {of} finished"),
        }
    }

    fn outcome(&self, of: u8) -> &Outcome {
        match &self.ends[&node(of)] {
            End::Finished(outcome) => outcome,
            End::Failed(failure) => panic!("node {of} failed: {}", failure.reason),
        }
    }

    fn nobody_is_banned(&self) -> bool {
        self.ends.values().all(|end| match end {
            End::Failed(failure) => failure.ban.is_none(),
            End::Finished(_) => true,
        })
    }
}

/// A protocol that is over quickly: two rounds in which everybody broadcasts and sends something private.
struct Greetings {
    own: NodeIndex,
    others: Vec<NodeIndex>,
}

impl Greetings {
    fn outgoing(&self) -> Outgoing {
        let private = self.others.iter().map(|to| (*to, format!("for {to}").into_bytes().into())).collect();
        Outgoing { broadcast: format!("node {} is here", self.own).into_bytes(), private }
    }
}

impl Protocol for Greetings {
    fn rounds(&self) -> &'static [&'static str] {
        &["greet", "greet again"]
    }

    fn start(&mut self) -> Result<Outgoing, ProtocolAbort> {
        Ok(self.outgoing())
    }

    fn round(&mut self, number: usize, messages: Round) -> Result<Step, ProtocolAbort> {
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

fn greetings(indices: &[u8]) -> impl Fn(NodeIndex) -> Factory + use<> {
    let all: Vec<NodeIndex> = indices.iter().map(|index| node(*index)).collect();
    move |own| {
        let others = all.iter().copied().filter(|other| *other != own).collect();
        Box::new(move |_| Ok(Box::new(Greetings { own, others })))
    }
}

fn greet(indices: &[u8]) -> Network {
    Network::new(&parties(indices), greetings(indices))
}

fn key_generation(n: u8, threshold: u8) -> impl Fn(NodeIndex) -> Factory {
    let all: Vec<NodeIndex> = (1..=n).map(node).collect();
    move |own| {
        let all = all.clone();
        Box::new(move |session| Ok(Box::new(KeyGeneration::new(own, all, threshold, session)?)))
    }
}

struct Generated {
    shares: BTreeMap<NodeIndex, Arc<KeyShare>>,
    record: Record,
}

fn generate(n: u8, threshold: u8) -> Generated {
    let indices: Vec<u8> = (1..=n).collect();
    let mut network = Network::new(&parties(&indices), key_generation(n, threshold));
    network.run(|packet| vec![packet]);
    let mut shares = BTreeMap::new();
    let mut record: Option<Vec<u8>> = None;
    for index in indices {
        let Some(End::Finished(outcome)) = network.ends.remove(&node(index)) else {
            panic!("node {index} failed")
        };
        let Product::Share(new) = outcome.product else { panic!("no share") };
        let bytes = log::GenerationRecord {
            version: 1,
            cluster: "c".into(),
            ceremony: "dkg".into(),
            manifest: vec![0; 32],
            wallet: "w".into(),
            generation: 1,
            threshold: threshold.into(),
            public_key: new.public_key.as_bytes().to_vec(),
            chain_code: new.chain_code.as_bytes().to_vec(),
            public_shares: new
                .public_shares
                .iter()
                .map(|(node, point)| log::PublicShare {
                    node: (*node).into(),
                    point: point.as_bytes().to_vec(),
                })
                .collect(),
            session: outcome.session.as_bytes().to_vec(),
            transcript: outcome.transcript.as_bytes().to_vec(),
            enclaves: vec![0; 32],
        }
        .encode_to_vec();
        assert_eq!(*record.get_or_insert_with(|| bytes.clone()), bytes, "all parties see one outcome");
        shares.insert(node(index), Arc::new(new.share));
    }
    Generated { shares, record: Record::parse(&record.unwrap()).unwrap() }
}

fn sign(generated: &Generated, subset: &[NodeIndex], digest: Hash) -> Vec<Signature> {
    let indices: Vec<u8> = subset.iter().map(|party| party.get()).collect();
    let key: Point = generated.record.public_key;
    let factory = |own: NodeIndex| -> Factory {
        let (share, subset) = (Arc::clone(&generated.shares[&own]), subset.to_vec());
        Box::new(move |session| Ok(Box::new(Signing::new(share, own, &subset, key, digest, session)?)))
    };
    let mut network = Network::new(&parties(&indices), factory);
    network.run(|packet| vec![packet]);
    indices
        .iter()
        .map(|index| match &network.outcome(*index).product {
            Product::Signature(signature) => signature.clone(),
            Product::Share(_) => panic!("a share"),
        })
        .collect()
}

#[test]
fn three_of_five_generate_one_key_and_every_subset_signs_with_it() {
    let generated = generate(5, 3);
    for subset in subsets(&generated.record.roster(), 3) {
        let digest = Hash::of_bytes(subset.to_string().as_bytes());
        for signature in sign(&generated, subset.parties(), digest) {
            assert!(verifies(&generated.record.public_key, &digest, &signature.r, &signature.s), "{subset}");
        }
    }
    for (node, share) in &generated.shares {
        let bytes = share.encode().unwrap();
        let again = KeyShare::decode(&bytes).unwrap();
        assert!(again.belongs_to(&generated.record, *node));
        assert!(!again.belongs_to(&generated.record, NodeIndex::new(node.get() % 5 + 1).unwrap()));
        assert!(KeyShare::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(KeyShare::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}

#[test]
fn shares_of_two_keys_are_told_apart() {
    let (one, other) = (generate(2, 2), generate(2, 2));
    assert!(!one.shares[&node(1)].belongs_to(&other.record, node(1)));
}

#[test]
fn a_session_survives_any_order_and_replays() {
    let mut network = greet(&[1, 2, 3]);
    let mut held: Vec<Packet> = Vec::new();
    network.run(|packet| {
        let again = Packet { from: packet.from, to: packet.to, bytes: packet.bytes.clone() };
        if held.len() < 2 && packet.to == node(2) {
            held.push(packet);
            return vec![again];
        }
        let mut out: Vec<Packet> = held.drain(..).collect();
        out.insert(0, again);
        out.push(packet);
        out
    });
    for index in 1..=3 {
        network.outcome(index);
    }
}

#[test]
fn a_flipped_bit_is_dropped_and_bans_nobody() {
    let mut network = greet(&[1, 2, 3]);
    network.start();
    let packet = network.queue.pop_front().unwrap();
    for place in 0..packet.bytes.len() {
        let mut bytes = packet.bytes.clone();
        bytes[place] ^= 1;
        network.deliver(packet.to, &bytes);
        assert!(!network.sessions[&packet.to].is_over(), "byte {place}");
    }
    let dropped: u64 = network.sessions[&packet.to].dropped().values().sum();
    assert_eq!(dropped, packet.bytes.len() as u64);
}

#[test]
fn a_relay_that_changes_every_round_message_only_makes_time_pass() {
    let mut network = Network::new(&parties(&[1, 2]), key_generation(2, 2));
    network.run(|mut packet| {
        if packet.from == node(1) && packet.bytes.len() > 1000 {
            let last = packet.bytes.len() / 2;
            packet.bytes[last] ^= 1;
        }
        vec![packet]
    });
    assert!(network.failure(2).reason.contains("node 1"), "{}", network.failure(2).reason);
    assert!(network.nobody_is_banned());
}

#[test]
fn a_missing_peer_is_named_at_the_barrier_and_in_a_round() {
    let mut network = greet(&[1, 2, 3]);
    network.run(|packet| if packet.from == node(3) { vec![] } else { vec![packet] });
    assert!(network.failure(1).reason.contains("nothing from node 3 in time, in `ready`"));

    let mut network = greet(&[1, 2, 3]);
    let mut from_two = 0;
    network.run(|packet| {
        from_two += i32::from(packet.from == node(2));
        // Hellos (twice, once in answer) and reveals to two peers.
        if packet.from == node(2) && from_two > 6 { vec![] } else { vec![packet] }
    });
    assert!(network.failure(1).reason.contains("node 2"), "{}", network.failure(1).reason);
    assert!(network.failure(1).culprit.is_none(), "silence proves nothing");
}

#[test]
fn a_peer_with_another_context_is_a_configuration_error() {
    let mut parties = parties(&[1, 2, 3]);
    parties.get_mut(&node(2)).unwrap().context = Hash::of_bytes(b"another charter");
    let mut network = Network::new(&parties, greetings(&[1, 2, 3]));
    network.run(|packet| vec![packet]);
    assert!(network.failure(1).reason.contains("node 2 sees another ceremony"));
    assert!(network.nobody_is_banned());
}

/// Node 3's keys in two hands: what one says to node 1 and the other to node 2.
#[test]
fn a_party_that_broadcasts_two_things_is_named_by_the_echo() {
    let parties = parties(&[1, 2, 3]);
    let lying = |own: NodeIndex| -> Factory {
        let others: Vec<NodeIndex> = [1, 2, 3].map(node).into_iter().filter(|n| *n != own).collect();
        let named = if own == node(3) { node(9) } else { own };
        Box::new(move |_| Ok(Box::new(Liar { inner: Greetings { own, others }, named })))
    };
    let mut honest = Network::new(&parties, greetings(&[1, 2, 3]));
    let mut liars = Network::new(&parties, lying);
    honest.start();
    liars.start();
    // Only node 3 of the second network is used: its packets to node 2 replace the honest ones.
    loop {
        let mut moved = false;
        while let Some(packet) = honest.queue.pop_front() {
            moved = true;
            if packet.to == node(3) {
                liars.deliver(node(3), &packet.bytes);
            }
            if !(packet.from == node(3) && packet.to == node(2)) {
                honest.deliver(packet.to, &packet.bytes);
            }
        }
        while let Some(packet) = liars.queue.pop_front() {
            if packet.from == node(3) && packet.to == node(2) {
                moved = true;
                honest.deliver(node(2), &packet.bytes);
            }
        }
        if !moved {
            break;
        }
    }
    let failures: Vec<&SessionFailure> = honest
        .ends
        .values()
        .filter_map(|end| match end {
            End::Failed(failure) => Some(failure),
            End::Finished(_) => None,
        })
        .collect();
    assert!(!failures.is_empty());
    assert!(failures.iter().any(|failure| failure.culprit == Some(node(3))), "{failures:?}");
    assert!(honest.nobody_is_banned());
}

/// Greets under another name.
struct Liar {
    inner: Greetings,
    named: NodeIndex,
}

impl Protocol for Liar {
    fn rounds(&self) -> &'static [&'static str] {
        self.inner.rounds()
    }

    fn start(&mut self) -> Result<Outgoing, ProtocolAbort> {
        let broadcast = format!("node {} is here", self.named).into_bytes();
        Ok(Outgoing { broadcast, ..self.inner.outgoing() })
    }

    fn round(&mut self, number: usize, messages: Round) -> Result<Step, ProtocolAbort> {
        self.inner.round(number, messages)
    }
}

#[test]
fn a_second_different_message_for_one_round_ends_the_session_as_equivocation() {
    let parties = parties(&[1, 2]);
    let mut network = Network::new(&parties, greetings(&[1, 2]));
    let mut other = parties;
    other.get_mut(&node(2)).unwrap().context = Hash::of_bytes(b"another");
    let mut twin = Network::new(&other, greetings(&[1, 2]));
    network.start();
    twin.start();
    let hello = network.queue.iter().find(|packet| packet.from == node(2)).unwrap().bytes.clone();
    let second = twin.queue.iter().find(|packet| packet.from == node(2)).unwrap().bytes.clone();
    network.deliver(node(1), &hello);
    network.deliver(node(1), &second);
    let failure = network.failure(1);
    assert_eq!((failure.culprit, failure.ban), (Some(node(2)), None));
    assert!(failure.reason.contains("two different messages"), "{}", failure.reason);
}

#[test]
fn strangers_other_sessions_and_oversized_messages_are_dropped() {
    let mut network = greet(&[1, 2]);
    network.start();
    let mut strangers = greet(&[1, 2]);
    strangers.start();
    let forged = strangers.queue.iter().find(|packet| packet.to == node(1)).unwrap().bytes.clone();
    network.deliver(node(1), &forged);
    network.deliver(node(1), &vec![0; enclave::session::MAX_ENVELOPE + 1]);
    network.deliver(node(1), b"no envelope");
    let to_two = network.queue.iter().find(|packet| packet.to == node(2)).unwrap().bytes.clone();
    network.deliver(node(1), &to_two);
    let dropped = network.sessions[&node(1)].dropped().clone();
    for why in [Dropped::Unsigned, Dropped::TooLarge, Dropped::Elsewhere] {
        assert_eq!(dropped.get(&why), Some(&1), "{why:?} in {dropped:?}");
    }
    assert!(!network.sessions[&node(1)].is_over());
}

#[test]
fn a_panic_in_a_phase_takes_down_its_session_only() {
    struct Panics;
    impl Protocol for Panics {
        fn rounds(&self) -> &'static [&'static str] {
            &["panic"]
        }
        fn start(&mut self) -> Result<Outgoing, ProtocolAbort> {
            panic!("as documented")
        }
        fn round(&mut self, _: usize, _: Round) -> Result<Step, ProtocolAbort> {
            Err(ProtocolAbort::new("not reached"))
        }
    }
    let factory = |_| -> Factory { Box::new(|_| Ok(Box::new(Panics))) };
    let mut network = Network::new(&parties(&[1, 2]), factory);
    network.run(|packet| vec![packet]);
    assert!(network.failure(1).reason.contains("panicked"));
}
