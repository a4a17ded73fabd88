//! Key generation: what honest parties get, and what a cheating one can do to them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ceremonies::ids::{Hash, NodeIndex};
use ceremonies::subsets::subsets;
use ceremonies::wallet::{Record, Scheme};
use ceremonies::wire::log;
use enclave::scheme::dkls23::{Factory, KeyGeneration, KeyShare, Product};
use enclave::session::{Outcome, Protocol, Step};
use prost::Message;

use crate::network::{End, Network, Said, abort_of, at_one_table, node, parties};

pub(crate) struct Generated {
    pub(crate) shares: BTreeMap<NodeIndex, Arc<KeyShare>>,
    pub(crate) record: Record,
}

fn key_generation(n: u8, threshold: u8) -> impl Fn(NodeIndex) -> Factory {
    let all: Vec<NodeIndex> = (1..=n).map(node).collect();
    move |own| {
        let all = all.clone();
        Box::new(move |session| Ok(Box::new(KeyGeneration::new(own, all, threshold, session)?)))
    }
}

fn recorded(outcome: Outcome<Product>, threshold: u8, generation: u32) -> (Vec<u8>, KeyShare) {
    let Product::Share(new) = outcome.product else { panic!("no share") };
    let share = |(node, point): (&NodeIndex, &ceremonies::curve::Point)| log::PublicShare {
        node: (*node).into(),
        point: point.as_bytes().to_vec(),
    };
    let record = log::GenerationRecord {
        version: 1,
        cluster: "c".into(),
        ceremony: "dkg".into(),
        manifest: vec![0; 32],
        wallet: "w".into(),
        generation,
        threshold: threshold.into(),
        public_key: new.public_key.as_bytes().to_vec(),
        chain_code: new.chain_code.as_bytes().to_vec(),
        public_shares: new.public_shares.iter().map(share).collect(),
        session: outcome.session.as_bytes().to_vec(),
        transcript: outcome.transcript.as_bytes().to_vec(),
        enclaves: vec![0; 32],
        scheme: Scheme::Dkls23Secp256k1.into(),
    };
    (record.encode_to_vec(), new.share)
}

pub(crate) fn generate(n: u8, threshold: u8) -> Generated {
    let indices: Vec<u8> = (1..=n).collect();
    collect(Network::new(&parties(&indices), key_generation(n, threshold)), threshold, 1)
}

/// What the parties of a network get when nobody meddles: the same outcome, except for their shares.
pub(crate) fn collect(mut network: Network, threshold: u8, generation: u32) -> Generated {
    network.run(|packet| vec![packet]);
    let mut shares = BTreeMap::new();
    let mut record: Option<Vec<u8>> = None;
    for (node, end) in network.ends {
        let End::Finished(outcome) = end else { panic!("node {node} failed") };
        let (bytes, share) = recorded(*outcome, threshold, generation);
        assert_eq!(*record.get_or_insert_with(|| bytes.clone()), bytes, "all parties see one outcome");
        shares.insert(node, Arc::new(share));
    }
    Generated { shares, record: Record::parse(&record.unwrap()).unwrap() }
}

/// A 2-of-3 key for all tests that only need one.
pub(crate) fn two_of_three() -> &'static Generated {
    static GENERATED: OnceLock<Generated> = OnceLock::new();
    GENERATED.get_or_init(|| generate(3, 2))
}

#[test]
fn every_quorum_of_public_shares_interpolates_to_the_public_key_and_fewer_do_not() {
    let record = &two_of_three().record;
    for subset in subsets(&record.roster(), 2) {
        assert_eq!(record.interpolate(&subset, 0), Some(record.public_key), "{subset}");
    }
    for subset in subsets(&record.roster(), 1) {
        assert_ne!(record.interpolate(&subset, 0), Some(record.public_key), "{subset}");
    }
}

#[test]
fn a_share_survives_encoding_and_belongs_to_its_node_and_record_only() {
    let (generated, other) = (two_of_three(), generate(2, 2));
    for (owner, share) in &generated.shares {
        let again = KeyShare::decode(&share.encode().unwrap()).unwrap();
        for claimed in generated.shares.keys() {
            assert_eq!(again.belongs_to(&generated.record, *claimed), claimed == owner);
        }
        assert!(!again.belongs_to(&other.record, *owner));
    }
}

#[test]
fn corrupted_share_bytes_are_an_error_or_another_share_and_never_a_panic() {
    let generated = two_of_three();
    let bytes = generated.shares[&node(1)].encode().unwrap();
    for cut in (0..bytes.len()).step_by(bytes.len() / 300) {
        assert!(KeyShare::decode(&bytes[..cut]).is_err(), "{cut} bytes");
    }
    assert!(KeyShare::decode(&[&bytes[..], &[0]].concat()).is_err(), "a byte behind");
    // The head holds parameters, index, scalars and points: there every byte is tried.
    for place in (0..400).chain((400..bytes.len()).step_by(bytes.len() / 300)) {
        for flip in [0x01, 0x80, 0xff] {
            let mut corrupted = bytes.clone();
            corrupted[place] ^= flip;
            if let Ok(share) = KeyShare::decode(&corrupted) {
                assert_ne!(share.encode().unwrap(), bytes, "byte {place} means nothing");
            }
        }
    }
}

#[test]
fn a_relay_that_changes_round_messages_only_makes_time_pass() {
    let mut network = Network::new(&parties(&[1, 2]), key_generation(2, 2));
    network.run(|mut packet| {
        if packet.from == node(1) && packet.bytes.len() > 1000 {
            let middle = packet.bytes.len() / 2;
            packet.bytes[middle] ^= 1;
        }
        vec![packet]
    });
    assert!(
        network.failure(2).reason.contains("nothing from node 1 in time"),
        "{}",
        network.failure(2).reason
    );
    assert_eq!(network.failure(2).culprit, None);
    assert!(network.nobody_is_banned());
}

#[test]
fn commitments_that_differ_between_two_halves_are_named_before_anything_is_opened() {
    let parties = parties(&[1, 2, 3]);
    let mut network = Network::new(&parties, key_generation(3, 2));
    let mut twin = Network::new(&parties, key_generation(3, 2));
    network.run_with_twin(&mut twin, node(3), node(2));
    for index in [1, 2] {
        let failure = network.failure(index);
        assert_eq!((failure.culprit, failure.ban), (Some(node(3)), None), "{failure:?}");
        assert!(failure.reason.contains("node 3 broadcast one thing"), "{}", failure.reason);
    }
}

#[test]
fn a_roster_that_is_not_1_to_n_and_an_impossible_threshold_are_refused() {
    let session = Hash::of_bytes(b"session");
    let refused = |own: u8, parties: &[u8], threshold: u8| {
        let parties = parties.iter().map(|index| node(*index)).collect();
        KeyGeneration::new(node(own), parties, threshold, session).is_err()
    };
    assert!(!refused(1, &[1, 2, 3], 2));
    for (parties, threshold) in
        [(&[1, 2, 4][..], 2), (&[2, 1, 3], 2), (&[1, 1, 2], 2), (&[], 2), (&[1, 2, 3], 1), (&[1, 2, 3], 4)]
    {
        assert!(refused(1, parties, threshold), "{parties:?} {threshold}");
    }
    assert!(refused(4, &[1, 2, 3], 2), "a node that takes no part");
}

fn table(n: u8) -> BTreeMap<NodeIndex, KeyGeneration> {
    let all: Vec<NodeIndex> = (1..=n).map(node).collect();
    let session = Hash::of_bytes(b"session");
    let party = |own: &NodeIndex| (*own, KeyGeneration::new(*own, all.clone(), 2, session).unwrap());
    all.iter().map(party).collect()
}

/// Lets node 2 cheat in one round and expects node 1 to name it for this reason, without a ban.
fn caught(n: u8, round: usize, why: &str, cheat: impl Fn(&mut Said)) {
    let ends = at_one_table(table(n), |number, said| {
        if number == round {
            cheat(said);
        }
    });
    let abort = abort_of(&ends, 1);
    assert!(abort.reason.contains(why), "round {round}: {}", abort.reason);
    assert_eq!((abort.culprit, abort.ban), (Some(node(2)), None), "round {round}: {}", abort.reason);
}

fn two(said: &mut Said) -> &mut enclave::session::Outgoing {
    said.get_mut(&node(2)).unwrap()
}

#[test]
fn a_fragment_that_is_no_scalar_names_its_sender() {
    for fragment in [vec![0xff; 32], vec![1; 31], vec![1; 33], Vec::new()] {
        caught(2, 1, "not a scalar", |said| {
            two(said).private.insert(node(1), fragment.clone().into());
        });
    }
}

#[test]
fn a_commitment_or_an_opening_of_somebody_else_names_its_sender() {
    for (round, why) in [(2, "a commitment names another sender"), (4, "an opening names another sender")] {
        caught(2, round, why, |said| two(said).broadcast = said[&node(1)].broadcast.clone());
    }
}

#[test]
fn a_private_message_for_somebody_else_names_its_sender() {
    for round in [2, 4] {
        caught(3, round, "another sender or receiver", |said| {
            let for_three = two(said).private[&node(3)].clone();
            two(said).private.insert(node(1), for_three);
        });
    }
}

#[test]
fn bytes_beyond_what_a_round_holds_name_their_sender() {
    for (round, why) in
        [(1, "holds more"), (2, "malformed"), (3, "holds more"), (4, "malformed"), (5, "holds more")]
    {
        caught(2, round, why, |said| two(said).broadcast.push(0));
    }
    for (round, why) in [(2, "malformed"), (3, "holds more"), (4, "malformed"), (5, "holds more")] {
        caught(2, round, why, |said| two(said).private.entry(node(1)).or_default().push(0));
    }
}

#[test]
fn a_proof_that_was_not_committed_to_is_refused() {
    // Node 2 commits to one proof and opens that of another run of the same session.
    let mut of_another_run = None;
    at_one_table(table(2), |number, said| {
        if number == 4 {
            of_another_run = Some(two(said).broadcast.clone());
            said.clear();
        }
    });
    let other = of_another_run.unwrap();
    caught(2, 4, "not committed to", |said| two(said).broadcast = other.clone());
}

#[test]
fn a_fragment_of_another_polynomial_gives_nobody_a_share() {
    let ends = at_one_table(table(3), |number, said| {
        if number == 1 {
            let for_three = two(said).private[&node(3)].clone();
            two(said).private.insert(node(1), for_three);
        }
    });
    for index in 1..=3 {
        assert!(abort_of(&ends, index).reason.contains("polynomial inconsistency"));
        assert_eq!(abort_of(&ends, index).ban, None);
    }
}

#[test]
fn fewer_messages_than_parties_are_refused() {
    let ends = at_one_table(table(3), |number, said| {
        if number == 1 {
            said.remove(&node(3));
        }
    });
    assert!(
        abort_of(&ends, 1).reason.contains("not exactly one message from each party"),
        "{}",
        abort_of(&ends, 1).reason
    );
}

#[test]
fn a_round_that_is_run_twice_is_refused() {
    let mut party = table(2).remove(&node(1)).unwrap();
    let mut refused = 0;
    at_one_table(table(2), |number, said| {
        if number == 1 {
            party.start().unwrap();
            for _ in 0..2 {
                let heard = said.iter().map(|(from, outgoing)| {
                    let private = outgoing.private[&node(1)].clone();
                    (*from, enclave::session::Inbound { broadcast: Vec::new(), private })
                });
                let step = party.round(1, heard.collect());
                refused += u8::from(!matches!(step, Ok(Step::Next(_))));
            }
            said.clear();
        }
    });
    assert_eq!(refused, 1);
}
