//! A toy scheme under the same session driver as every other: an additive Schnorr key in two rounds, commit and open. It
//! shows what a second scheme takes, and must never leave the tests.

use std::collections::BTreeMap;

use ceremonies::ids::{Hash, NodeIndex};
use enclave::session::{
    Dropped, Factory, MAX_ENVELOPE, Outgoing, Protocol, ProtocolAbort, Round, Step, check_senders,
    check_silent, decode, encode,
};
use k256::elliptic_curve::group::GroupEncoding as _;
use k256::{AffinePoint, ProjectivePoint, Scalar};

use crate::network::{Network, Packet, node, parties};

/// A summand of the secret key, and the public key of the sum.
struct Key {
    summand: Scalar,
    public: ProjectivePoint,
}

/// One party's part in making a key.
struct Additive {
    own: NodeIndex,
    parties: Vec<NodeIndex>,
    session: Hash,
    summand: Scalar,
    commitments: BTreeMap<NodeIndex, [u8; 32]>,
}

impl Additive {
    fn point(&self) -> AffinePoint {
        (ProjectivePoint::GENERATOR * self.summand).to_affine()
    }

    fn commitment(&self, by: NodeIndex, point: &AffinePoint) -> [u8; 32] {
        let parts: [&[u8]; 3] = [self.session.as_bytes(), &[by.get()], &point.to_bytes()];
        *Hash::of_parts("toy/commitment", &parts).as_bytes()
    }

    fn open(&mut self, messages: Round) -> Result<Outgoing, ProtocolAbort> {
        for (from, message) in messages {
            check_silent(from, &message.private)?;
            self.commitments.insert(from, decode(from, &message.broadcast)?);
        }
        Ok(Outgoing { broadcast: encode(&self.point())?.to_vec(), ..Outgoing::default() })
    }

    fn finish(&self, messages: Round) -> Result<Key, ProtocolAbort> {
        let mut public = ProjectivePoint::IDENTITY;
        for (from, message) in messages {
            check_silent(from, &message.private)?;
            let point: AffinePoint = decode(from, &message.broadcast)?;
            if self.commitments.get(&from) != Some(&self.commitment(from, &point)) {
                return Err(ProtocolAbort::by(from, "an opened point was not committed to"));
            }
            public += point;
        }
        Ok(Key { summand: self.summand, public })
    }
}

impl Protocol for Additive {
    type Product = Key;

    fn rounds(&self) -> &'static [&'static str] {
        &["commit", "open"]
    }

    fn start(&mut self) -> Result<Outgoing, ProtocolAbort> {
        let commitment = self.commitment(self.own, &self.point());
        Ok(Outgoing { broadcast: encode(&commitment)?.to_vec(), ..Outgoing::default() })
    }

    fn round(&mut self, number: usize, messages: Round) -> Result<Step<Key>, ProtocolAbort> {
        check_senders(&self.parties, &messages)?;
        match number {
            1 => self.open(messages).map(Step::Next),
            2 => self.finish(messages).map(Step::Done),
            _ => Err(ProtocolAbort::new("a toy key has two rounds")),
        }
    }
}

/// A party that changes what it says in one round, before it is signed.
struct Cheat {
    honest: Additive,
    round: usize,
    change: fn(&mut Outgoing),
}

impl Cheat {
    fn say(&self, round: usize, mut outgoing: Outgoing) -> Outgoing {
        if round == self.round {
            (self.change)(&mut outgoing);
        }
        outgoing
    }
}

impl Protocol for Cheat {
    type Product = Key;

    fn rounds(&self) -> &'static [&'static str] {
        self.honest.rounds()
    }

    fn start(&mut self) -> Result<Outgoing, ProtocolAbort> {
        let outgoing = self.honest.start()?;
        Ok(self.say(1, outgoing))
    }

    fn round(&mut self, number: usize, messages: Round) -> Result<Step<Key>, ProtocolAbort> {
        Ok(match self.honest.round(number, messages)? {
            Step::Next(outgoing) => Step::Next(self.say(number + 1, outgoing)),
            done @ Step::Done(_) => done,
        })
    }
}

fn party(own: NodeIndex, summand: u64, session: Hash) -> Additive {
    let (parties, summand) = ([1, 2, 3].map(node).to_vec(), Scalar::from(summand));
    Additive { own, parties, session, summand, commitments: BTreeMap::new() }
}

/// Three parties, each with its number as its summand.
fn toy(own: NodeIndex) -> Factory<Key> {
    Box::new(move |session| Ok(Box::new(party(own, own.get().into(), session))))
}

/// How it ends when node 2 changes what it says in one round.
fn cheated(round: usize, change: fn(&mut Outgoing)) -> Network<Key> {
    let factory = |own: NodeIndex| -> Factory<Key> {
        if own != node(2) {
            return toy(own);
        }
        Box::new(move |session| Ok(Box::new(Cheat { honest: party(own, 2, session), round, change })))
    };
    let mut network = Network::new(&parties(&[1, 2, 3]), factory);
    network.run(|packet| vec![packet]);
    network
}

/// Expects that both others name node 2 for this reason, without a ban.
fn names_node_2(network: &Network<Key>, why: &str) {
    for index in [1, 3] {
        let failure = network.failure(index);
        assert!(failure.reason.contains(why), "{}", failure.reason);
        assert_eq!((failure.culprit, failure.ban), (Some(node(2)), None), "{}", failure.reason);
    }
}

#[test]
fn a_toy_key_is_the_sum_of_what_all_parties_open() {
    let mut network = Network::new(&parties(&[1, 2, 3]), toy);
    network.run(|packet| vec![packet]);
    let keys = [1, 2, 3].map(|index| &network.outcome(index).product);
    let secret: Scalar = keys.iter().map(|key| key.summand).sum();
    for key in keys {
        assert_eq!(key.public, ProjectivePoint::GENERATOR * secret);
    }
}

#[test]
fn a_toy_party_that_opens_something_else_than_it_committed_to_is_named() {
    let network = cheated(2, |outgoing| {
        outgoing.broadcast = encode(&AffinePoint::GENERATOR).unwrap().to_vec();
    });
    names_node_2(&network, "not committed to");
}

#[test]
fn a_toy_party_that_opens_another_party_s_point_is_named() {
    // Node 2 commits as node 1 does, which a commitment that left out its sender would allow.
    let parties = parties(&[1, 2, 3]);
    let commits_as_1 = |own: NodeIndex| -> Factory<Key> {
        let named = if own == node(2) { node(1) } else { own };
        Box::new(move |session| Ok(Box::new(party(named, named.get().into(), session))))
    };
    let mut network = Network::new(&parties, commits_as_1);
    network.run(|packet| vec![packet]);
    names_node_2(&network, "not committed to");
}

#[test]
fn a_toy_party_that_commits_to_two_keys_is_named_by_the_echo() {
    let parties = parties(&[1, 2, 3]);
    let other = |own| -> Factory<Key> { Box::new(move |session| Ok(Box::new(party(own, 9, session)))) };
    let mut network = Network::new(&parties, toy);
    network.run_with_twin(&mut Network::new(&parties, other), node(2), node(3));
    names_node_2(&network, "node 2 broadcast one thing");
}

#[test]
fn a_toy_party_that_falls_silent_is_named_with_the_round() {
    // To each of two peers: a hello, the answer to theirs, and the reveal; then the commitment.
    for (kept, round) in [(6, "commit"), (8, "open")] {
        let mut network = Network::new(&parties(&[1, 2, 3]), toy);
        let mut said = 0;
        network.run(|packet: Packet| {
            said += usize::from(packet.from == node(2));
            if packet.from == node(2) && said > kept { vec![] } else { vec![packet] }
        });
        for index in [1, 3] {
            let failure = network.failure(index);
            let why = format!("nothing from node 2 in time, in `{round}`");
            assert!(failure.reason.contains(&why), "{}", failure.reason);
            assert_eq!((failure.culprit, failure.ban), (None, None), "silence proves nothing");
        }
    }
}

#[test]
fn a_toy_message_with_a_byte_too_many_or_too_few_names_its_sender() {
    for round in [1, 2] {
        names_node_2(&cheated(round, |outgoing| outgoing.broadcast.push(0)), "malformed");
        let short = |outgoing: &mut Outgoing| outgoing.broadcast.truncate(31);
        names_node_2(&cheated(round, short), "malformed");
        let private = |outgoing: &mut Outgoing| {
            outgoing.private = [1, 3].map(|peer| (node(peer), vec![0].into())).into();
        };
        names_node_2(&cheated(round, private), "holds more");
    }
}

#[test]
fn a_toy_message_over_the_limit_of_envelopes_is_dropped_unread() {
    for (round, phase) in [(1, "commit"), (2, "open")] {
        let network = cheated(round, |outgoing| outgoing.broadcast.resize(MAX_ENVELOPE, 0));
        for index in [1, 3] {
            assert_eq!(*network.sessions[&node(index)].dropped(), [(Dropped::TooLarge, 1)].into());
            let why = format!("nothing from node 2 in time, in `{phase}`");
            assert!(network.failure(index).reason.contains(&why), "{}", network.failure(index).reason);
        }
        assert!(network.nobody_is_banned());
    }
}
