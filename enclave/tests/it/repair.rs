//! Repair: a lost share comes back to its node alone, and serves only a refresh.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ceremonies::ids::{Hash, NodeIndex};
use enclave::scheme::dkls23::{Factory, KeyShare, Product, Repairing};
use enclave::session::{Outgoing, Protocol, ProtocolAbort, SessionFailure};

use crate::generation::{Generated, generate, two_of_three};
use crate::network::{End, Network, abort_of, at_one_table, node, parties};
use crate::refresh::{every_quorum_signs, refresh, second_generation};
use crate::signing::signing;

fn repairing(generated: &Generated, helpers: &[u8], target: u8) -> Network {
    let indices = [helpers, &[target]].concat();
    let all: Vec<NodeIndex> = indices.iter().map(|index| node(*index)).collect();
    Network::new(&parties(&indices), |own| -> Factory {
        let share = (own != node(target)).then(|| Arc::clone(&generated.shares[&own]));
        let (all, record) = (all.clone(), generated.record.clone());
        Box::new(move |session| Ok(Box::new(Repairing::new(share, own, node(target), all, record, session)?)))
    })
}

/// What the target gets when nobody meddles; helpers must get nothing.
fn repair(generated: &Generated, helpers: &[u8], target: u8) -> KeyShare {
    let mut network = repairing(generated, helpers, target);
    network.run(|packet| vec![packet]);
    for helper in helpers {
        assert!(matches!(network.outcome(*helper).product, Product::Helped), "helper {helper}");
    }
    match network.ends.remove(&node(target)) {
        Some(End::Finished(outcome)) => match outcome.product {
            Product::Repaired(share) => *share,
            Product::Share(_) | Product::Helped | Product::Signature(_) => panic!("no repaired share"),
        },
        Some(End::Failed(failure)) => panic!("{}", failure.reason),
        None => panic!("no end"),
    }
}

/// The 2-of-3 key after node 3 got its share back.
fn with_repaired() -> &'static Generated {
    static REPAIRED: OnceLock<Generated> = OnceLock::new();
    REPAIRED.get_or_init(|| {
        let whole = two_of_three();
        let mut shares = whole.shares.clone();
        shares.insert(node(3), Arc::new(repair(whole, &[1, 2], 3)));
        Generated { shares, record: whole.record.clone() }
    })
}

#[test]
fn a_repaired_share_is_the_lost_one_without_its_multiplication_state() {
    let whole = two_of_three();
    let repaired = &with_repaired().shares[&node(3)];
    let lost = &whole.shares[&node(3)];
    assert!(repaired.belongs_to(&whole.record, node(3)));
    assert!(!repaired.belongs_to(&whole.record, node(1)));
    assert_eq!(repaired.public_point(), lost.public_point());
    assert_eq!(repaired.encode().unwrap(), lost.root().encode().unwrap());
}

#[test]
fn any_t_helpers_or_more_bring_back_the_same_share() {
    let generated = generate(4, 2);
    let lost = generated.shares[&node(2)].root().encode().unwrap();
    for helpers in [&[1, 3][..], &[3, 4], &[1, 3, 4]] {
        let repaired = repair(&generated, helpers, 2);
        assert_eq!(repaired.encode().unwrap(), lost, "by {helpers:?}");
    }
}

#[test]
fn a_repaired_share_cannot_sign_and_nobody_is_banned_for_it() {
    let mut network = signing(with_repaired(), &[1, 3].map(node), Hash::of_bytes(b"digest"));
    network.run(|packet| vec![packet]);
    for index in [1, 3] {
        let failure = network.failure(index);
        assert_eq!((failure.culprit, failure.ban), (None, None), "{}", failure.reason);
    }
    let failure = network.failure(3);
    assert!(failure.reason.contains("multiplication state"), "{}", failure.reason);
}

#[test]
fn a_repaired_share_can_be_refreshed_and_signs_then() {
    let refreshed = refresh(with_repaired());
    assert_eq!(refreshed.record.public_key, two_of_three().record.public_key);
    every_quorum_signs(&refreshed);
}

fn party(
    of: &Generated,
    share: Option<u8>,
    own: u8,
    target: u8,
    parties: &[u8],
) -> Result<Repairing, ProtocolAbort> {
    let share = share.map(|share| Arc::clone(&of.shares[&node(share)]));
    let parties = parties.iter().map(|index| node(*index)).collect();
    let record = two_of_three().record.clone();
    Repairing::new(share, node(own), node(target), parties, record, Hash::of_bytes(b"session"))
}

#[test]
fn helpers_need_their_share_and_the_target_must_have_none() {
    let (first, second) = (two_of_three(), second_generation());
    assert!(party(first, Some(1), 1, 3, &[1, 2, 3]).is_ok());
    assert!(party(first, None, 3, 3, &[1, 2, 3]).is_ok());
    for (why, refused) in [
        ("a helper without a share", party(first, None, 1, 3, &[1, 2, 3])),
        ("a helper with another node's share", party(first, Some(2), 1, 3, &[1, 2, 3])),
        ("a helper with another generation's share", party(second, Some(1), 1, 3, &[1, 2, 3])),
        ("a target with its share", party(first, Some(3), 3, 3, &[1, 2, 3])),
        ("a target that takes no part", party(first, Some(1), 1, 3, &[1, 2])),
        ("a helper that takes no part", party(first, Some(1), 1, 3, &[2, 3])),
    ] {
        let refused = refused.err().unwrap_or_else(|| panic!("{why} was taken"));
        assert!(refused.reason.contains("check the order"), "{why}: {}", refused.reason);
    }
}

#[test]
fn helpers_that_are_too_few_doubled_or_of_no_share_send_no_term() {
    for (why, target, parties) in [
        ("one helper of two", 3, &[1, 3][..]),
        ("the same helper twice", 3, &[1, 1, 3]),
        ("a helper outside of the roster", 3, &[1, 3, 9]),
        ("a target outside of the roster", 9, &[1, 2, 9]),
    ] {
        let mut helper = party(two_of_three(), Some(1), 1, target, parties).unwrap();
        assert!(helper.start().is_err(), "{why}");
    }
}

fn reason(failure: &SessionFailure) -> (&str, Option<NodeIndex>, Option<NodeIndex>) {
    (failure.reason.as_str(), failure.culprit, failure.ban)
}

#[test]
fn too_few_helpers_repair_nothing_and_nobody_is_at_fault() {
    let mut network = repairing(two_of_three(), &[1], 3);
    network.run(|packet| vec![packet]);
    assert_eq!(reason(network.failure(1)), ("invalid helper set", None, None));
    let (why, culprit, ban) = reason(network.failure(3));
    assert!(why.contains("nothing from node 1 in time, in `send the terms`"), "{why}");
    assert_eq!((culprit, ban), (None, None));
}

#[test]
fn a_relay_that_changes_terms_only_makes_time_pass() {
    let mut network = repairing(two_of_three(), &[1, 2], 3);
    network.run(|mut packet| {
        // Of all messages only the terms are sealed, and longer than this.
        if packet.from == node(1) && packet.to == node(3) && packet.bytes.len() > 350 {
            let middle = packet.bytes.len() / 2;
            packet.bytes[middle] ^= 1;
        }
        vec![packet]
    });
    let (why, culprit, ban) = reason(network.failure(3));
    assert!(why.contains("nothing from node 1 in time, in `send the terms`"), "{why}");
    assert_eq!((culprit, ban), (None, None));
}

fn table() -> BTreeMap<NodeIndex, Repairing> {
    [(1, Some(1)), (2, Some(2)), (3, None)]
        .map(|(own, share)| (node(own), party(two_of_three(), share, own, 3, &[1, 2, 3]).unwrap()))
        .into()
}

/// Lets helper 2 cheat and returns how it ends for the target.
fn verdict(cheat: impl Fn(&mut Outgoing)) -> ProtocolAbort {
    let ends = at_one_table(table(), |_, said| cheat(said.get_mut(&node(2)).unwrap()));
    assert!(matches!(ends[&node(1)], Ok(Product::Helped)));
    abort_of(&ends, 3).clone()
}

/// A term is the helper's index, the target's, the masked scalar, and what the helper knows of the key.
fn term(outgoing: &mut Outgoing) -> &mut Vec<u8> {
    outgoing.private.get_mut(&node(3)).unwrap()
}

#[test]
fn a_wrong_term_gives_no_share_and_what_to_do() {
    let abort = verdict(|outgoing| term(outgoing)[20] ^= 1);
    assert!(abort.reason.contains("do not match the target's verifying share"), "{}", abort.reason);
    assert!(abort.reason.contains("other helpers"), "{}", abort.reason);
    assert_eq!((abort.culprit, abort.ban), (None, None), "which of the terms is wrong cannot be told");
}

#[test]
fn a_term_for_another_target_or_of_another_key_gives_no_share() {
    // The target; the public key's sign, which leaves it a point; the chain code before it.
    let cheats: [fn(&mut Vec<u8>); 3] = [
        |term| term[1] = 1,
        |term| *term.iter_mut().nth_back(32).unwrap() ^= 1,
        |term| *term.iter_mut().nth_back(39).unwrap() ^= 1,
    ];
    for cheat in cheats {
        let abort = verdict(|outgoing| cheat(term(outgoing)));
        assert!(abort.reason.contains("disagree on their context"), "{}", abort.reason);
        assert_eq!((abort.culprit, abort.ban), (None, None));
    }
}

#[test]
fn a_term_that_names_another_helper_names_who_sent_it() {
    for helper in [1, 3, 9] {
        let abort = verdict(|outgoing| term(outgoing)[0] = helper);
        assert!(abort.reason.contains("a term names another helper"), "{}", abort.reason);
        assert_eq!((abort.culprit, abort.ban), (Some(node(2)), None));
    }
}

#[test]
fn a_malformed_term_or_bytes_beyond_one_name_their_sender() {
    let malformed: [fn(&mut Vec<u8>); 3] =
        [|term| term.push(0), |term| term.truncate(term.len() - 1), |term| term.clear()];
    for cheat in malformed {
        let abort = verdict(|outgoing| cheat(term(outgoing)));
        assert!(abort.reason.contains("malformed"), "{}", abort.reason);
        assert_eq!((abort.culprit, abort.ban), (Some(node(2)), None));
    }
    let ends = at_one_table(table(), |_, said| said.get_mut(&node(2)).unwrap().broadcast.push(0));
    for index in [1, 3] {
        let abort = abort_of(&ends, index);
        assert!(abort.reason.contains("holds more"), "{}", abort.reason);
        assert_eq!((abort.culprit, abort.ban), (Some(node(2)), None));
    }
}

#[test]
fn a_helper_takes_no_term() {
    let ends = at_one_table(table(), |_, said| {
        let two = said.get_mut(&node(2)).unwrap();
        let term = two.private[&node(3)].clone();
        two.private.insert(node(1), term);
    });
    let abort = abort_of(&ends, 1);
    assert!(abort.reason.contains("holds more"), "{}", abort.reason);
    assert_eq!((abort.culprit, abort.ban), (Some(node(2)), None));
}

#[test]
fn a_term_of_another_session_or_generation_gives_no_share() {
    let parties = || [1, 2, 3].map(node).to_vec();
    let (old, new) = (two_of_three(), second_generation());
    for (generated, session, why) in
        [(old, &b"another"[..], "do not match"), (new, b"session", "disagree on their context")]
    {
        let share = Some(Arc::clone(&generated.shares[&node(2)]));
        let record = generated.record.clone();
        let other = Repairing::new(share, node(2), node(3), parties(), record, Hash::of_bytes(session));
        let mut table = table();
        table.insert(node(2), other.unwrap());
        let ends = at_one_table(table, |_, _| {});
        let abort = abort_of(&ends, 3);
        assert!(abort.reason.contains(why), "{}", abort.reason);
        assert_eq!((abort.culprit, abort.ban), (None, None));
    }
}

#[test]
fn fewer_messages_than_parties_are_refused() {
    let ends = at_one_table(table(), |_, said| drop(said.remove(&node(2))));
    for index in [1, 3] {
        assert!(abort_of(&ends, index).reason.contains("not exactly one message from each party"));
    }
}
