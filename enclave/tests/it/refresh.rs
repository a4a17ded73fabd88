//! Complete refresh: new shares of the same key for every party, and what a cheating party can do to them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ceremonies::ids::{Hash, NodeIndex};
use ceremonies::subsets::subsets;
use enclave::scheme::dkls23::{Factory, Product, Refreshing};
use enclave::session::{Inbound, Outgoing, Protocol, ProtocolAbort, Round, Step};
use k256::Scalar;
use k256::elliptic_curve::PrimeField as _;

use crate::generation::{Generated, collect, generate, two_of_three};
use crate::network::{Network, Said, abort_of, at_one_table, node, parties};
use crate::signing::{check, signing};

fn refreshing(generated: &Generated) -> Network {
    let indices: Vec<u8> = generated.shares.keys().map(|party| party.get()).collect();
    network_of(generated, &parties(&indices))
}

fn network_of(generated: &Generated, parties: &crate::network::Parties) -> Network {
    Network::new(parties, |own| -> Factory {
        let (share, record) = (Arc::clone(&generated.shares[&own]), generated.record.clone());
        Box::new(move |session| Ok(Box::new(Refreshing::new(share, own, &record, session)?)))
    })
}

/// The next generation of these shares.
pub(crate) fn refresh(generated: &Generated) -> Generated {
    let record = &generated.record;
    collect(refreshing(generated), record.threshold, record.generation.0 + 1)
}

/// The second generation of the 2-of-3 key, for all tests that only need one.
pub(crate) fn second_generation() -> &'static Generated {
    static REFRESHED: OnceLock<Generated> = OnceLock::new();
    REFRESHED.get_or_init(|| refresh(two_of_three()))
}

/// A 2-of-2 key, for parties that cheat each other.
fn two_of_two() -> &'static Generated {
    static GENERATED: OnceLock<Generated> = OnceLock::new();
    GENERATED.get_or_init(|| generate(2, 2))
}

/// Expects that all quorums of these shares sign.
pub(crate) fn every_quorum_signs(generated: &Generated) {
    for subset in subsets(&generated.record.roster(), generated.record.threshold.into()) {
        let digest = Hash::of_bytes(subset.to_string().as_bytes());
        let mut network = signing(generated, subset.parties(), digest);
        network.run(|packet| vec![packet]);
        for party in subset.parties() {
            let Product::Signature(signature) = &network.outcome(party.get()).product else {
                panic!("no signature")
            };
            check(generated, digest, signature);
        }
    }
}

#[test]
fn a_refresh_gives_every_party_a_new_share_of_the_same_key() {
    let (old, new) = (two_of_three(), second_generation());
    assert_eq!(new.record.public_key, old.record.public_key);
    assert_eq!(new.record.chain_code, old.record.chain_code);
    assert_eq!(new.record.roster(), old.record.roster());
    for (party, share) in &new.shares {
        assert!(share.belongs_to(&new.record, *party), "node {party}");
        assert!(!share.belongs_to(&old.record, *party), "node {party}");
        assert!(!old.shares[party].belongs_to(&new.record, *party), "node {party}");
        assert_ne!(new.record.public_shares[party], old.record.public_shares[party], "node {party}");
    }
}

#[test]
fn every_quorum_of_refreshed_shares_signs_and_so_does_every_one_of_the_next_generation() {
    every_quorum_signs(second_generation());
    every_quorum_signs(&refresh(second_generation()));
}

#[test]
fn shares_of_two_generations_do_not_sign_together_and_nobody_is_banned() {
    let (old, new) = (two_of_three(), second_generation());
    for (first, second) in [(old, new), (new, old)] {
        let shares =
            [(1, first), (2, second)].map(|(party, of)| (node(party), Arc::clone(&of.shares[&node(party)])));
        let mixed = Generated { shares: shares.into(), record: new.record.clone() };
        let mut network = signing(&mixed, &[1, 2].map(node), Hash::of_bytes(b"digest"));
        network.run(|packet| vec![packet]);
        for index in [1, 2] {
            let failure = network.failure(index);
            assert!(failure.reason.contains("different signing session"), "{}", failure.reason);
            assert_eq!((failure.culprit, failure.ban), (None, None));
        }
    }
}

#[test]
fn a_root_share_takes_part_in_a_refresh_and_comes_out_whole() {
    let whole = two_of_three();
    let mut shares = whole.shares.clone();
    shares.insert(node(3), Arc::new(whole.shares[&node(3)].root()));
    let refreshed = refresh(&Generated { shares, record: whole.record.clone() });
    assert_eq!(refreshed.record.public_key, whole.record.public_key);
    every_quorum_signs(&refreshed);
}

fn party(of: &Generated, share: u8, own: u8, record: &Generated) -> Result<Refreshing, ProtocolAbort> {
    let share = Arc::clone(&of.shares[&node(share)]);
    Refreshing::new(share, node(own), &record.record, Hash::of_bytes(b"session"))
}

#[test]
fn a_share_of_another_generation_key_or_node_is_refused() {
    let (old, new, other) = (two_of_three(), second_generation(), two_of_two());
    assert!(party(old, 1, 1, old).is_ok());
    for (of, share, own, record) in
        [(old, 1, 1, new), (new, 1, 1, old), (other, 1, 1, old), (old, 1, 2, old), (old, 1, 9, old)]
    {
        let refused = party(of, share, own, record).err().unwrap();
        assert!(refused.reason.contains("check which share was opened"), "{}", refused.reason);
        assert_eq!((refused.culprit, refused.ban), (None, None));
    }
}

#[test]
fn a_party_that_opened_another_generation_s_share_says_nothing_in_any_round() {
    let mut shares = two_of_three().shares.clone();
    shares.insert(node(2), Arc::clone(&second_generation().shares[&node(2)]));
    let mut network = refreshing(&Generated { shares, record: two_of_three().record.clone() });
    network.run(|packet| vec![packet]);
    assert!(network.failure(2).reason.contains("check which share was opened"));
    for index in [1, 3] {
        let failure = network.failure(index);
        assert!(failure.reason.contains("nothing from node 2 in time, in `share the corrections`"));
        assert_eq!((failure.culprit, failure.ban), (None, None));
    }
}

#[test]
fn a_relay_that_changes_round_messages_only_makes_time_pass() {
    let mut network = refreshing(two_of_two());
    network.run(|mut packet| {
        if packet.from == node(1) && packet.bytes.len() > 1000 {
            let middle = packet.bytes.len() / 2;
            packet.bytes[middle] ^= 1;
        }
        vec![packet]
    });
    let failure = network.failure(2);
    let why = "nothing from node 1 in time, in `open, set up multiplication`";
    assert!(failure.reason.contains(why), "{}", failure.reason);
    assert_eq!(failure.culprit, None);
    assert!(network.nobody_is_banned());
}

#[test]
fn commitments_that_differ_between_two_halves_are_named_before_anything_is_opened() {
    let parties = parties(&[1, 2, 3]);
    let mut network = network_of(two_of_three(), &parties);
    let mut twin = network_of(two_of_three(), &parties);
    network.run_with_twin(&mut twin, node(3), node(2));
    for index in [1, 2] {
        let failure = network.failure(index);
        assert_eq!((failure.culprit, failure.ban), (Some(node(3)), None), "{failure:?}");
        assert!(failure.reason.contains("node 3 broadcast one thing"), "{}", failure.reason);
    }
}

fn table(generated: &Generated) -> BTreeMap<NodeIndex, Refreshing> {
    let index = |own: &NodeIndex| own.get();
    generated
        .shares
        .keys()
        .map(|own| (*own, party(generated, index(own), index(own), generated).unwrap()))
        .collect()
}

/// Lets node 2 cheat in one round and gives how it ends for everybody.
fn cheated(
    generated: &Generated,
    round: usize,
    cheat: impl Fn(&mut Said),
) -> BTreeMap<NodeIndex, Result<Product, ProtocolAbort>> {
    at_one_table(table(generated), |number, said| {
        if number == round {
            cheat(said);
        }
    })
}

/// The same, and expects node 1 to name it for this reason, without a ban.
fn caught(generated: &Generated, round: usize, why: &str, cheat: impl Fn(&mut Said)) {
    let ends = cheated(generated, round, cheat);
    let abort = abort_of(&ends, 1);
    assert!(abort.reason.contains(why), "round {round}: {}", abort.reason);
    assert_eq!((abort.culprit, abort.ban), (Some(node(2)), None), "round {round}: {}", abort.reason);
}

fn two(said: &mut Said) -> &mut Outgoing {
    said.get_mut(&node(2)).unwrap()
}

/// The message of node 2 to node 1.
fn letter(said: &mut Said) -> &mut Vec<u8> {
    two(said).private.get_mut(&node(1)).unwrap()
}

#[test]
fn a_fragment_that_is_no_scalar_names_its_sender() {
    for fragment in [vec![0xff; 32], vec![1; 31], vec![1; 33], Vec::new()] {
        caught(two_of_two(), 1, "not a scalar", |said| *letter(said) = fragment.clone());
    }
}

#[test]
fn a_commitment_that_is_none_names_its_sender() {
    for commitment in [vec![1; 31], vec![1; 33], Vec::new()] {
        caught(two_of_two(), 2, "malformed", |said| two(said).broadcast = commitment.clone());
    }
}

#[test]
fn the_commitment_or_the_opening_of_somebody_else_names_who_repeated_it() {
    let repeated = |said: &mut Said| two(said).broadcast = said[&node(1)].broadcast.clone();
    // A commitment is a hash, and names nobody: what it commits to does.
    caught(two_of_two(), 2, "not committed to", repeated);
    caught(two_of_two(), 4, "an opening names another sender", repeated);
}

#[test]
fn a_private_message_for_somebody_else_names_its_sender() {
    for round in [2, 4] {
        caught(two_of_three(), round, "another sender or receiver", |said| {
            let for_three = two(said).private[&node(3)].clone();
            *letter(said) = for_three.to_vec();
        });
    }
}

#[test]
fn bytes_beyond_what_a_round_holds_name_their_sender() {
    for (round, why) in
        [(1, "holds more"), (2, "malformed"), (3, "holds more"), (4, "malformed"), (5, "holds more")]
    {
        caught(two_of_two(), round, why, |said| two(said).broadcast.push(0));
    }
    for (round, why) in [(2, "malformed"), (3, "holds more"), (4, "malformed"), (5, "holds more")] {
        caught(two_of_two(), round, why, |said| two(said).private.entry(node(1)).or_default().push(0));
    }
}

#[test]
fn a_proof_that_was_not_committed_to_is_refused() {
    // Node 2 commits to one proof and opens that of another run of the same session.
    let mut of_another_run = None;
    at_one_table(table(two_of_two()), |number, said| {
        if number == 4 {
            of_another_run = Some(two(said).broadcast.clone());
            said.clear();
        }
    });
    let other = of_another_run.unwrap();
    caught(two_of_two(), 4, "not committed to", |said| two(said).broadcast = other.clone());
}

/// Expects that no party has got a share, and that none is accused: who dealt wrongly cannot be told.
fn nobody_has_a_share(ends: &BTreeMap<NodeIndex, Result<Product, ProtocolAbort>>, why: &str) {
    for party in ends.keys() {
        let abort = abort_of(ends, party.get());
        assert!(abort.reason.contains(why), "node {party}: {}", abort.reason);
        assert_eq!((abort.culprit, abort.ban), (None, None), "node {party}: {}", abort.reason);
    }
}

#[test]
fn a_correction_that_would_change_the_key_gives_nobody_a_share() {
    // All fragments lie on one polynomial, but it is 1 at 0: every share would fit the others, of another key.
    let ends = cheated(two_of_three(), 1, |said| {
        for fragment in two(said).private.values_mut() {
            let bytes: [u8; 32] = fragment.as_slice().try_into().unwrap();
            let moved = Scalar::from_repr(bytes.into()).unwrap() + Scalar::ONE;
            fragment.copy_from_slice(&moved.to_repr());
        }
    });
    assert_eq!(ends.len(), 3);
    nobody_has_a_share(&ends, "polynomial inconsistency");
}

#[test]
fn a_fragment_of_another_polynomial_gives_nobody_a_share() {
    let ends = cheated(two_of_three(), 1, |said| {
        let for_three = two(said).private[&node(3)].clone();
        *letter(said) = for_three.to_vec();
    });
    assert_eq!(ends.len(), 3);
    nobody_has_a_share(&ends, "polynomial inconsistency");
}

#[test]
fn a_commitment_and_its_opening_repeated_under_another_index_give_nobody_a_share() {
    let ends = at_one_table(table(two_of_two()), |number, said| {
        if number == 2 || number == 4 {
            two(said).broadcast = said[&node(1)].broadcast.clone();
        }
        if number == 4 {
            // The index is an opening's first byte.
            two(said).broadcast[0] = 2;
        }
    });
    // The proof is no more bound to its prover than this; the polynomial that it stands for is.
    let abort = abort_of(&ends, 1);
    assert!(abort.reason.contains("polynomial inconsistency"), "{}", abort.reason);
    assert_eq!(abort.ban, None);
    assert!(ends[&node(2)].is_err());
}

#[test]
fn a_set_up_that_was_spoilt_gives_its_receiver_no_share() {
    // The first byte behind the two indices is the zero-share seed's; the last is of the multiplication.
    for (place, why) in
        [(2, "zero-share decommitment failed"), (usize::MAX, "multiplication verification failed")]
    {
        let ends = cheated(two_of_two(), 4, |said| {
            let letter = letter(said);
            let place = place.min(letter.len() - 1);
            letter[place] ^= 1;
        });
        let abort = abort_of(&ends, 1);
        assert!(abort.reason.contains(why), "{}", abort.reason);
        assert_eq!((abort.culprit, abort.ban), (Some(node(2)), None), "{}", abort.reason);
    }
}

#[test]
fn fewer_messages_than_parties_are_refused() {
    for round in 1..=5 {
        let ends = cheated(two_of_two(), round, |said| drop(said.remove(&node(2))));
        let abort = abort_of(&ends, 1);
        assert!(abort.reason.contains("not exactly one message from each party"), "{}", abort.reason);
    }
}

#[test]
fn a_round_that_is_run_twice_or_out_of_turn_is_refused() {
    let mut party = table(two_of_two()).remove(&node(1)).unwrap();
    let heard = |said: &Said| -> Round {
        let heard = said.iter().map(|(from, outgoing)| {
            let private = outgoing.private.get(&node(1)).cloned().unwrap_or_default();
            (*from, Inbound { broadcast: outgoing.broadcast.clone(), private })
        });
        heard.collect()
    };
    let mut went_on = Vec::new();
    party.start().unwrap();
    assert!(party.start().is_err(), "begun twice");
    at_one_table(table(two_of_two()), |number, said| {
        for round in [number + 1, number, number] {
            let step = party.round(round, heard(said));
            went_on.push((number, round, matches!(step, Ok(Step::Next(_)))));
        }
        if number == 2 {
            said.clear();
        }
    });
    assert_eq!(
        went_on,
        [(1, 2, false), (1, 1, true), (1, 1, false), (2, 3, false), (2, 2, true), (2, 2, false)]
    );
}
