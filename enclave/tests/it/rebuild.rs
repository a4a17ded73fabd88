//! The last resort: from a threshold of root shares, one enclave works out the lost ones, each for its node alone; and
//! what cheating nodes or a cheating dealer can do to that.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ceremonies::ids::NodeIndex;
use enclave::scheme::dkls23::{Factory, KeyShare, Product, Rebuilding};
use enclave::session::{Outgoing, ProtocolAbort};

use crate::generation::{Generated, generate, two_of_three};
use crate::network::{End, Network, Said, abort_of, at_one_table, node, parties};
use crate::refresh::{every_quorum_signs, refresh, second_generation};

/// A 2-of-4 key of which nodes 1 and 3 have their root shares on paper; nodes 2 and 4 have nothing.
fn two_of_four() -> &'static Generated {
    static GENERATED: OnceLock<Generated> = OnceLock::new();
    GENERATED.get_or_init(|| generate(4, 2))
}

const LOST: [u8; 2] = [2, 4];

fn nodes(indices: &[u8]) -> Vec<NodeIndex> {
    indices.iter().map(|index| node(*index)).collect()
}

/// A root share, as paper gives it back.
fn root(of: &Generated, index: u8) -> Arc<KeyShare> {
    Arc::new(of.shares[&node(index)].root())
}

fn rebuilding(of: &Generated) -> Network {
    Network::new(&parties(&[1, 2, 3, 4]), |own| -> Factory {
        let share = (!nodes(&LOST).contains(&own)).then(|| root(of, own.get()));
        let record = of.record.clone();
        Box::new(move |_| {
            Ok(Box::new(Rebuilding::new(share, own, nodes(&LOST), nodes(&[1, 2, 3, 4]), record)?))
        })
    })
}

/// The 2-of-4 key after its rebuild: every share is a root share.
fn rebuilt() -> &'static Generated {
    static REBUILT: OnceLock<Generated> = OnceLock::new();
    REBUILT.get_or_init(|| {
        let whole = two_of_four();
        let mut network = rebuilding(whole);
        network.run(|packet| vec![packet]);
        let mut shares: BTreeMap<_, _> = [1, 3].map(|index| (node(index), root(whole, index))).into();
        for (of, end) in network.ends {
            let End::Finished(outcome) = end else { panic!("node {of} failed") };
            match outcome.product {
                Product::Repaired(share) => drop(shares.insert(of, Arc::new(*share))),
                Product::Helped => assert!(!nodes(&LOST).contains(&of), "node {of} got nothing"),
                Product::Share(_) | Product::Signature(_) => panic!("node {of} got something else"),
            }
        }
        Generated { shares, record: whole.record.clone() }
    })
}

#[test]
fn rebuilt_shares_are_the_lost_ones_without_their_multiplication_state() {
    for index in LOST {
        let (rebuilt, lost) = (&rebuilt().shares[&node(index)], &two_of_four().shares[&node(index)]);
        assert!(rebuilt.belongs_to(&two_of_four().record, node(index)));
        assert_eq!(rebuilt.encode().unwrap(), lost.root().encode().unwrap());
    }
}

#[test]
fn rebuilt_shares_can_be_refreshed_and_every_quorum_signs_then() {
    let refreshed = refresh(rebuilt());
    assert_eq!(refreshed.record.public_key, two_of_four().record.public_key);
    every_quorum_signs(&refreshed);
}

fn party(
    share: Option<Arc<KeyShare>>,
    own: u8,
    lost: &[u8],
    all: &[u8],
) -> Result<Rebuilding, ProtocolAbort> {
    Rebuilding::new(share, node(own), nodes(lost), nodes(all), two_of_three().record.clone())
}

#[test]
fn those_who_lost_their_shares_have_none_and_as_many_as_sign_together_have_theirs() {
    let whole = two_of_three();
    let own = |index| Some(root(whole, index));
    assert!(party(own(1), 1, &[3], &[1, 2, 3]).is_ok());
    assert!(party(None, 3, &[3], &[1, 2, 3]).is_ok());
    let unlike = Some(Arc::clone(&second_generation().shares[&node(1)]));
    for (why, refused) in [
        ("a node without its share that lost none", party(None, 1, &[3], &[1, 2, 3])),
        ("a node with another node's share", party(own(2), 1, &[3], &[1, 2, 3])),
        ("a node with another generation's share", party(unlike, 1, &[3], &[1, 2, 3])),
        ("a node that lost its share and has it", party(own(3), 3, &[3], &[1, 2, 3])),
        ("a node that takes no part", party(own(1), 1, &[3], &[2, 3])),
        ("a lost node that takes no part", party(own(1), 1, &[3], &[1, 2])),
        ("nobody lost anything", party(own(1), 1, &[], &[1, 2])),
        ("one root share of two", party(own(1), 1, &[2, 3], &[1, 2, 3])),
        ("one share more than sign together", party(own(1), 1, &[4], &[1, 2, 3, 4])),
    ] {
        let refused = refused.err().unwrap_or_else(|| panic!("{why} was taken"));
        assert!(refused.reason.contains("check the order"), "{why}: {}", refused.reason);
    }
}

fn table() -> BTreeMap<NodeIndex, Rebuilding> {
    let whole = two_of_four();
    let member = |index: u8| {
        let share = (!LOST.contains(&index)).then(|| root(whole, index));
        let all = nodes(&[1, 2, 3, 4]);
        (node(index), Rebuilding::new(share, node(index), nodes(&LOST), all, whole.record.clone()).unwrap())
    };
    [1, 2, 3, 4].map(member).into()
}

/// How it ends for one party when another cheats in a round.
fn verdict(of: u8, round: usize, cheater: u8, cheat: impl Fn(&mut Outgoing)) -> ProtocolAbort {
    let ends = at_one_table(table(), |number, said: &mut Said| {
        if let Some(outgoing) = said.get_mut(&node(cheater)).filter(|_| number == round) {
            cheat(outgoing);
        }
    });
    abort_of(&ends, of).clone()
}

/// What a cheater does to the share that it sends.
type Cheat<'a> = dyn Fn(&mut Vec<u8>) + 'a;

fn letter(outgoing: &mut Outgoing, to: u8) -> &mut Vec<u8> {
    outgoing.private.get_mut(&node(to)).unwrap()
}

#[test]
fn a_wrong_root_share_names_who_handed_it_over() {
    let other = root(two_of_four(), 1).encode().unwrap();
    let cheats: [&Cheat<'_>; 5] = [
        &|share| *share = other.to_vec(),
        &|share| share[40] ^= 1,
        &|share| share.truncate(share.len() - 1),
        &|share| share.push(0),
        &|share| share.clear(),
    ];
    for cheat in cheats {
        let abort = verdict(2, 1, 3, |outgoing| cheat(letter(outgoing, 2)));
        assert!(abort.reason.contains("is not node 3's share"), "{}", abort.reason);
        assert_eq!((abort.culprit, abort.ban), (Some(node(3)), None));
    }
}

#[test]
fn a_wrong_dealt_share_names_the_dealer() {
    let others = root(two_of_four(), 2).encode().unwrap();
    let cheats: [&Cheat<'_>; 3] =
        [&|share| *share = others.to_vec(), &|share| share[40] ^= 1, &|share| share.clear()];
    for cheat in cheats {
        let abort = verdict(4, 2, 2, |outgoing| cheat(letter(outgoing, 4)));
        assert!(abort.reason.contains("is not node 4's share"), "{}", abort.reason);
        assert_eq!((abort.culprit, abort.ban), (Some(node(2)), None));
    }
}

#[test]
fn a_dealt_share_that_would_derive_other_keys_names_the_dealer() {
    let abort = verdict(4, 2, 2, |outgoing| {
        let share = letter(outgoing, 4);
        let windows = || share.windows(32).enumerate();
        let is_twice = |window: &[u8]| {
            window.iter().any(|byte| *byte != 0)
                && windows().filter(|(_, other)| *other == window).count() == 2
        };
        let second = windows().filter(|(_, window)| is_twice(window)).map(|(at, _)| at).next_back().unwrap();
        share[second + 31] ^= 1;
    });
    assert!(abort.reason.contains("is not node 4's share"), "{}", abort.reason);
    assert_eq!((abort.culprit, abort.ban), (Some(node(2)), None));
}

#[test]
fn nobody_but_the_dealer_is_handed_a_root_share_and_nobody_but_a_lost_node_is_dealt_one() {
    let misled = |outgoing: &mut Outgoing, from: u8, to: u8| {
        let share = outgoing.private[&node(from)].clone();
        outgoing.private.insert(node(to), share);
    };
    for to in [1, 4] {
        let abort = verdict(to, 1, 3, |outgoing| misled(outgoing, 2, to));
        assert!(abort.reason.contains("holds more"), "{}", abort.reason);
        assert_eq!(abort.culprit, Some(node(3)));
    }
    let abort = verdict(3, 2, 2, |outgoing| misled(outgoing, 4, 3));
    assert!(abort.reason.contains("holds more"), "{}", abort.reason);
    assert_eq!(abort.culprit, Some(node(2)));
    let abort = verdict(4, 2, 1, |outgoing| outgoing.broadcast.push(0));
    assert_eq!(abort.culprit, Some(node(1)));
    let abort = verdict(2, 1, 4, |outgoing| outgoing.broadcast.push(0));
    assert_eq!(abort.culprit, Some(node(4)));
}

#[test]
fn a_relay_that_changes_what_is_handed_over_only_makes_time_pass() {
    let mut network = rebuilding(two_of_four());
    network.run(|mut packet| {
        if packet.from == node(3) && packet.to == node(2) && packet.bytes.len() > 400 {
            let middle = packet.bytes.len() / 2;
            packet.bytes[middle] ^= 1;
        }
        vec![packet]
    });
    let failure = network.failure(2);
    assert!(failure.reason.contains("nothing from node 3 in time, in `hand over"), "{}", failure.reason);
    assert!(failure.culprit.is_none() && network.nobody_is_banned());
}

#[test]
fn a_rebuild_in_which_one_party_is_missing_gives_nobody_a_share() {
    for missing in [1, 3, 4] {
        let ends = at_one_table(table(), |_, said| drop(said.remove(&node(missing))));
        assert!(abort_of(&ends, 2).reason.contains("not exactly one message from each party"));
    }
}
