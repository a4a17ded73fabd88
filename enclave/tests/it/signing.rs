//! Signing: what quorums can do, and what a cheating signer costs it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ceremonies::curve::verifies;
use ceremonies::ids::{Hash, NodeIndex};
use ceremonies::subsets::subsets;
use enclave::scheme::dkls23::{Factory, Product, Signature, Signing};
use enclave::session::{Inbound, Outgoing, Protocol, ProtocolAbort, Step};
use k256::ecdsa::{RecoveryId, VerifyingKey};

use crate::generation::{Generated, generate, two_of_three};
use crate::network::{Network, Packet, Said, abort_of, at_one_table, node, parties};

pub(crate) fn signing(generated: &Generated, subset: &[NodeIndex], digest: Hash) -> Network {
    let indices: Vec<u8> = subset.iter().map(|party| party.get()).collect();
    let key = generated.record.public_key;
    let factory = |own: NodeIndex| -> Factory {
        let (share, subset) = (Arc::clone(&generated.shares[&own]), subset.to_vec());
        Box::new(move |session| Ok(Box::new(Signing::new(share, own, &subset, key, digest, session)?)))
    };
    Network::new(&parties(&indices), factory)
}

pub(crate) fn check(generated: &Generated, digest: Hash, signature: &Signature) {
    let key = generated.record.public_key;
    assert!(verifies(&key, &digest, &signature.r, &signature.s), "not a low-s signature");
    let scalars = k256::ecdsa::Signature::from_scalars(signature.r, signature.s).unwrap();
    let id = RecoveryId::from_byte(signature.recovery_id).unwrap();
    let recovered = VerifyingKey::recover_from_prehash(digest.as_bytes(), &scalars, id).unwrap();
    assert_eq!(recovered, VerifyingKey::from_sec1_bytes(key.as_bytes()).unwrap());
}

#[test]
fn three_of_five_generate_one_key_and_every_quorum_signs_with_it() {
    let generated = generate(5, 3);
    for subset in subsets(&generated.record.roster(), 3) {
        assert_eq!(generated.record.interpolate(&subset, 0), Some(generated.record.public_key), "{subset}");
        let digest = Hash::of_bytes(subset.to_string().as_bytes());
        let mut network = signing(&generated, subset.parties(), digest);
        network.run(|packet| vec![packet]);
        for party in subset.parties() {
            let Product::Signature(signature) = &network.outcome(party.get()).product else {
                panic!("a share")
            };
            check(&generated, digest, signature);
        }
    }
}

#[test]
fn a_relay_that_flips_bits_of_oblivious_transfers_bans_nobody() {
    let mut network = signing(two_of_three(), &[1, 2].map(node), Hash::of_bytes(b"digest"));
    network.run(|packet| {
        // Both the changed and the genuine message arrive, the changed one first.
        let mut changed: Packet = packet.clone();
        let middle = changed.bytes.len() / 2;
        changed.bytes[middle] ^= 1;
        vec![changed, packet]
    });
    for index in [1, 2] {
        network.outcome(index);
    }
    let mut network = signing(two_of_three(), &[1, 2].map(node), Hash::of_bytes(b"digest"));
    network.run(|mut packet| {
        if packet.from == node(1) && packet.bytes.len() > 10_000 {
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
    assert!(network.nobody_is_banned());
}

fn signer(own: u8, subset: &[u8], digest: &[u8], session: &[u8]) -> Result<Signing, ProtocolAbort> {
    let generated = two_of_three();
    let parties: Vec<NodeIndex> = subset.iter().map(|index| node(*index)).collect();
    let share = Arc::clone(&generated.shares[&node(own)]);
    let (digest, session) = (Hash::of_bytes(digest), Hash::of_bytes(session));
    Signing::new(share, node(own), &parties, generated.record.public_key, digest, session)
}

fn table() -> BTreeMap<NodeIndex, Signing> {
    [1, 2].map(|own| (node(own), signer(own, &[1, 2], b"digest", b"session").unwrap())).into()
}

/// Lets node 2 cheat in one round and returns how it ends for node 1.
fn verdict(round: usize, cheat: impl Fn(&mut Outgoing)) -> ProtocolAbort {
    let ends = at_one_table(table(), |number, said: &mut Said| {
        if number == round {
            cheat(said.get_mut(&node(2)).unwrap());
        }
    });
    abort_of(&ends, 1).clone()
}

#[test]
fn an_oblivious_transfer_that_its_signer_corrupted_bans_the_signer() {
    for round in [1, 2] {
        let abort = verdict(round, |outgoing| {
            let private = outgoing.private.get_mut(&node(1)).unwrap();
            let late = private.len() * 3 / 4;
            private[late] ^= 1;
        });
        assert_eq!((abort.culprit, abort.ban), (Some(node(2)), Some(node(2))), "{}", abort.reason);
        assert!(abort.reason.contains("node 2 is banned"), "{}", abort.reason);
        assert!(abort.reason.chars().count() <= 240, "a longer reason is cut in the log: {}", abort.reason);
    }
}

#[test]
fn a_wrong_signature_share_gives_no_signature_and_no_ban() {
    let abort = verdict(3, |outgoing| {
        let last = outgoing.broadcast.len() - 1;
        outgoing.broadcast[last] ^= 1;
    });
    assert_eq!((abort.culprit, abort.ban), (None, None), "{}", abort.reason);
    assert!(abort.reason.contains("signature verification failed"), "{}", abort.reason);
}

#[test]
fn bytes_beyond_what_a_round_holds_name_their_sender() {
    for (round, why) in [(1, "holds more"), (2, "holds more"), (3, "malformed")] {
        let abort = verdict(round, |outgoing| outgoing.broadcast.push(0));
        assert!(abort.reason.contains(why), "round {round}: {}", abort.reason);
        assert_eq!((abort.culprit, abort.ban), (Some(node(2)), None));
    }
    for (round, why) in [(1, "malformed"), (2, "malformed"), (3, "holds more")] {
        let abort = verdict(round, |outgoing| outgoing.private.entry(node(1)).or_default().push(0));
        assert!(abort.reason.contains(why), "round {round}: {}", abort.reason);
        assert_eq!((abort.culprit, abort.ban), (Some(node(2)), None));
    }
}

#[test]
fn a_message_that_names_another_sender_inside_names_who_sent_it() {
    for round in [1, 2] {
        // The sender's index is the message's first byte.
        let abort = verdict(round, |outgoing| outgoing.private.get_mut(&node(1)).unwrap()[0] = 3);
        assert!(abort.reason.contains("another sender or receiver"), "round {round}: {}", abort.reason);
        assert_eq!((abort.culprit, abort.ban), (Some(node(2)), None));
    }
}

#[test]
fn signers_of_another_digest_or_session_find_out_before_any_transfer_and_nobody_is_at_fault() {
    for (digest, session) in [(&b"another"[..], &b"session"[..]), (b"digest", b"another")] {
        let mut parties = table();
        parties.insert(node(2), signer(2, &[1, 2], digest, session).unwrap());
        let ends = at_one_table(parties, |_, _| {});
        for index in [1, 2] {
            let abort = abort_of(&ends, index);
            assert!(abort.reason.contains("different signing session"), "{}", abort.reason);
            assert_eq!((abort.culprit, abort.ban), (None, None));
        }
    }
}

#[test]
fn other_quorums_than_the_threshold_asks_for_are_refused() {
    for subset in [&[1][..], &[1, 2, 3], &[1, 1], &[1, 2, 2], &[1, 9]] {
        let refused =
            signer(1, subset, b"digest", b"session").and_then(|mut signing| signing.start().map(|_| ()));
        assert!(refused.is_err(), "{subset:?}");
    }
    assert!(signer(3, &[1, 2], b"digest", b"session").is_err(), "a node that takes no part");
}

#[test]
fn the_share_of_another_node_or_key_is_refused() {
    let (generated, other) = (two_of_three(), generate(2, 2));
    let share = || Arc::clone(&generated.shares[&node(1)]);
    let (digest, session) = (Hash::of_bytes(b"digest"), Hash::of_bytes(b"session"));
    let parties = [1, 2].map(node);
    let key = generated.record.public_key;
    assert!(Signing::new(share(), node(1), &parties, key, digest, session).is_ok());
    assert!(Signing::new(share(), node(2), &parties, key, digest, session).is_err());
    assert!(Signing::new(share(), node(1), &parties, other.record.public_key, digest, session).is_err());
}

#[test]
fn a_phase_runs_once() {
    let mut signing = signer(1, &[1, 2], b"digest", b"session").unwrap();
    signing.start().unwrap();
    let mut steps = Vec::new();
    at_one_table(table(), |number, said| {
        if number == 1 {
            for _ in 0..2 {
                let heard = said.iter().map(|(from, outgoing)| {
                    let private = outgoing.private.get(&node(1)).cloned().unwrap_or_default();
                    (*from, Inbound { broadcast: Vec::new(), private })
                });
                steps.push(matches!(signing.round(1, heard.collect()), Ok(Step::Next(_))));
            }
            said.clear();
        }
    });
    assert_eq!(steps, [true, false]);
}
