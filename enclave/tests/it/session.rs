//! The session driver: barrier, order, limits, echo, deadlines.

use std::collections::BTreeSet;

use ceremonies::attestation::EnclaveKeys;
use ceremonies::ids::Hash;
use enclave::scheme::dkls23::{Factory, Product};
use enclave::session::{
    BootKeys, Dropped, MAX_ENVELOPE, Millis, Outgoing, Protocol, ProtocolAbort, Round, Step,
};

use crate::network::{BARRIER_MS, Greetings, Network, Packet, ROUND_MS, greet, greetings, node, parties};

const TICK_MS: Millis = 100;

#[test]
fn a_session_survives_any_order_and_replays() {
    let mut network = greet(&[1, 2, 3]);
    let mut held: Vec<Packet> = Vec::new();
    network.run(|packet| {
        let again = packet.clone();
        if held.len() < 2 && packet.to == node(2) {
            held.push(packet);
            return vec![again];
        }
        let mut out = vec![again];
        out.append(&mut held);
        out.push(packet);
        out
    });
    for index in 1..=3 {
        network.outcome(index);
    }
}

#[test]
fn all_parties_agree_on_session_and_transcript_and_no_two_sessions_share_them() {
    let mut ids = BTreeSet::new();
    let mut parties = parties(&[1, 2, 3]);
    for nonce in 0..3 {
        parties.get_mut(&node(2)).unwrap().nonce = [nonce; 32];
        let mut network = Network::new(&parties, greetings(&[1, 2, 3]));
        network.run(|packet| vec![packet]);
        let seen: BTreeSet<_> =
            (1..=3).map(|index| network.outcome(index)).map(|o| (o.session, o.transcript)).collect();
        assert_eq!(seen.len(), 1);
        ids.extend(seen);
    }
    assert_eq!(ids.len(), 3);
}

#[test]
fn every_flipped_bit_is_dropped_and_the_session_goes_on() {
    let mut network = greet(&[1, 2, 3]);
    let mut flips = 0;
    network.run(|packet| {
        let mut all = Vec::new();
        if (packet.from, packet.to) == (node(2), node(1)) {
            for bit in 0..packet.bytes.len() * 8 {
                let mut flipped = packet.clone();
                flipped.bytes[bit / 8] ^= 1 << (bit % 8);
                all.push(flipped);
                flips += 1;
            }
        }
        all.push(packet);
        all
    });
    for index in 1..=3 {
        network.outcome(index);
    }
    let dropped = network.sessions[&node(1)].dropped();
    assert_eq!(dropped.values().sum::<u64>(), flips, "{dropped:?}");
}

#[test]
fn a_relay_that_changes_everything_is_a_missing_peer_and_bans_nobody() {
    let mut network = greet(&[1, 2, 3]);
    network.run(|mut packet| {
        if packet.from == node(2) {
            let middle = packet.bytes.len() / 2;
            packet.bytes[middle] ^= 1;
        }
        vec![packet]
    });
    for index in [1, 3] {
        assert!(network.failure(index).reason.contains("nothing from node 2 in time, in `ready`"));
        assert_eq!(network.failure(index).culprit, None, "silence proves nothing");
    }
    assert!(network.nobody_is_banned());
}

#[test]
fn a_missing_peer_is_named_at_the_barrier() {
    let mut network = greet(&[1, 2, 3]);
    network.run(|packet| if packet.from == node(3) { vec![] } else { vec![packet] });
    assert!(network.failure(1).reason.contains("nothing from node 3 in time, in `ready`"));
}

/// Drops what a party says after its first `kept` packets.
fn falls_silent(index: u8, kept: usize) -> Network {
    let mut network = greet(&[1, 2, 3]);
    let mut said = 0;
    network.run(|packet| {
        said += usize::from(packet.from == node(index));
        if packet.from == node(index) && said > kept { vec![] } else { vec![packet] }
    });
    network
}

#[test]
fn a_peer_that_falls_silent_in_a_round_is_named_with_the_round() {
    // To each of two peers: a hello, the answer to theirs, and the reveal.
    let network = falls_silent(2, 6);
    for index in [1, 3] {
        assert_eq!(
            network.failure(index).reason.split(':').next(),
            Some("nothing from node 2 in time, in `greet`")
        );
        assert_eq!(network.failure(index).culprit, None, "silence proves nothing");
    }
}

#[test]
fn a_peer_that_listens_late_and_misses_even_the_answer_is_told_again() {
    let mut network = greet(&[1, 2]);
    network.start();
    // What node 1 says first is lost, and so is its answer to node 2's hello.
    network.queue.retain(|packet| packet.from == node(2));
    let hello = network.queue.pop_front().unwrap();
    network.deliver(node(1), &hello.bytes);
    network.queue.clear();
    for _ in 0..20 {
        network.pass(TICK_MS);
        network.settle(|packet| vec![packet]);
    }
    for index in [1, 2] {
        network.outcome(index);
    }
}

#[test]
fn what_is_lost_while_the_bus_is_down_is_said_again_whenever_that_is() {
    let mut whole = greet(&[1, 2, 3]);
    let mut packets = 0;
    whole.run(|packet| {
        packets += 1;
        vec![packet]
    });
    for down in 0..packets {
        for up in [down + 1, down + 4, down + 12] {
            let mut network = greet(&[1, 2, 3]);
            let mut number = 0;
            network.start();
            for _ in 0..95 {
                network.settle(|packet| {
                    number += 1;
                    if (down..up).contains(&(number - 1)) { vec![] } else { vec![packet] }
                });
                network.pass(TICK_MS);
            }
            for index in [1, 2, 3] {
                assert!(network.ends.contains_key(&node(index)), "{index} waits, lost {down} to {up}");
                network.outcome(index);
            }
        }
    }
}

#[test]
fn a_flood_of_replays_does_not_put_the_deadline_off() {
    let mut network = greet(&[1, 2, 3]);
    network.start();
    let hello = network.queue.iter().find(|packet| packet.to == node(1)).unwrap().clone();
    while network.now <= BARRIER_MS {
        network.deliver(node(1), &hello.bytes);
        network.now += TICK_MS;
    }
    network.deliver(node(1), &hello.bytes);
    assert!(network.failure(1).reason.contains("in time"));
}

#[test]
fn a_replayed_hello_is_answered_once_only() {
    let mut network = greet(&[1, 2, 3]);
    network.start();
    let hello = network.queue.iter().find(|packet| packet.to == node(1)).unwrap().clone();
    let before = network.queue.len();
    for _ in 0..5 {
        network.deliver(node(1), &hello.bytes);
    }
    assert_eq!(network.queue.len(), before + 1);
}

#[test]
fn peers_with_another_context_are_named_and_nobody_is_at_fault() {
    let mut parties = parties(&[1, 2, 3]);
    parties.get_mut(&node(2)).unwrap().context = Hash::of_bytes(b"another charter");
    let mut network = Network::new(&parties, greetings(&[1, 2, 3]));
    network.run(|packet| vec![packet]);
    for (index, named) in [(1, "node 2 sees"), (3, "node 2 sees"), (2, "node 1, node 3 sees")] {
        let failure = network.failure(index);
        assert!(failure.reason.contains(named), "{}", failure.reason);
        assert_eq!((failure.culprit, failure.ban), (None, None));
    }
}

#[test]
fn another_context_is_named_even_while_a_third_peer_is_missing() {
    let mut parties = parties(&[1, 2, 3]);
    parties.get_mut(&node(2)).unwrap().context = Hash::of_bytes(b"another charter");
    let mut network = Network::new(&parties, greetings(&[1, 2, 3]));
    network.run(|packet| if packet.from == node(3) { vec![] } else { vec![packet] });
    assert!(network.failure(1).reason.contains("that node 2 sees differs"));
}

#[test]
fn a_plan_with_other_keys_than_this_enclaves_or_with_shared_keys_is_refused_before_a_word_is_said() {
    let stranger = BootKeys::generate().public();
    let mut own = parties(&[1, 2]);
    own.get_mut(&node(1)).unwrap().believes = [(node(1), stranger)].into();
    let mut shared = parties(&[1, 2, 3]);
    let two = shared[&node(2)].keys.public();
    shared.get_mut(&node(1)).unwrap().believes =
        [(node(3), EnclaveKeys { sealing: stranger.sealing, ..two })].into();
    for (parties, why) in
        [(own, "not this enclave's"), (shared, "another node's keys"), (parties(&[1]), "two parties")]
    {
        let mut network = Network::new(&parties, greetings(&[1, 2, 3]));
        network.start();
        assert!(network.failure(1).reason.contains(why), "{}", network.failure(1).reason);
        assert!(network.queue.iter().all(|packet| packet.from != node(1)));
    }
}

/// Greets node 2 under another name than node 1.
fn lying(own: u8) -> Factory {
    let others = [1, 2, 3].map(node).into_iter().filter(|n| *n != node(own)).collect();
    Box::new(move |_| Ok(Box::new(Greetings { own: node(own), others, named: node(9) })))
}

#[test]
fn a_party_that_broadcasts_two_things_is_named_with_who_saw_what_and_evidence() {
    let parties = parties(&[1, 2, 3]);
    let mut network = Network::new(&parties, greetings(&[1, 2, 3]));
    let mut twin = Network::new(&parties, |own| lying(own.get()));
    network.run_with_twin(&mut twin, node(3), node(2));
    for (index, other) in [(1, 2), (2, 1)] {
        let failure = network.failure(index);
        assert_eq!((failure.culprit, failure.ban), (Some(node(3)), None), "{failure:?}");
        let seen = format!("node 3 broadcast one thing to node {index} and another to node {other}");
        assert!(failure.reason.contains(&seen), "{}", failure.reason);
        assert_eq!(network.sessions[&node(index)].evidence().len(), 2);
    }
}

#[test]
fn a_party_that_reveals_two_nonces_is_named_and_honest_ones_do_not_accuse_each_other() {
    let one = parties(&[1, 2, 3]);
    let mut other = one.clone();
    other.get_mut(&node(3)).unwrap().nonce = [99; 32];
    let mut network = Network::new(&one, greetings(&[1, 2, 3]));
    let mut twin = Network::new(&other, greetings(&[1, 2, 3]));
    network.run_with_twin(&mut twin, node(3), node(2));
    for index in [1, 2] {
        assert_eq!(network.failure(index).culprit, Some(node(3)), "{:?}", network.failure(index));
        assert_eq!(network.sessions[&node(index)].evidence().len(), 2);
    }
    assert!(network.nobody_is_banned());
}

/// Node 1, just started, and what node 2 said to it in a whole session with the same keys and nonces.
fn recorded(named: u8) -> (Network, Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let parties = parties(&[1, 2]);
    let record = |named: u8| {
        let factory = |own| -> Factory {
            let (others, named) = (vec![node(3 - own)], if own == 2 { node(named) } else { node(own) });
            Box::new(move |_| Ok(Box::new(Greetings { own: node(own), others, named })))
        };
        let mut network = Network::new(&parties, |own| factory(own.get()));
        let mut heard = Vec::new();
        network.run(|packet| {
            if packet.to == node(1) && !heard.contains(&packet.bytes) {
                heard.push(packet.bytes.clone());
            }
            vec![packet]
        });
        heard
    };
    let (honest, other) = (record(2), record(named));
    let mut fresh = Network::new(&parties, greetings(&[1, 2]));
    fresh.start();
    (fresh, honest, other)
}

#[test]
fn a_second_different_message_for_one_round_ends_the_session_and_both_are_kept() {
    let (mut network, honest, other) = recorded(9);
    // Hello, reveal, first round; then another first round under the same signature.
    for bytes in [&honest[0], &honest[1], &honest[2]] {
        network.deliver(node(1), bytes);
    }
    assert!(!network.sessions[&node(1)].is_over());
    network.deliver(node(1), &other[2]);
    let failure = network.failure(1);
    assert_eq!((failure.culprit, failure.ban), (Some(node(2)), None));
    assert!(failure.reason.contains("two different messages"), "{}", failure.reason);
    assert!(failure.reason.chars().count() <= 240, "a longer reason is cut in the log");
    assert_eq!(network.sessions[&node(1)].evidence(), [honest[2].clone(), other[2].clone()]);
}

#[test]
fn a_message_more_than_a_round_ahead_is_dropped() {
    let (mut network, honest, _) = recorded(2);
    network.deliver(node(1), &honest[2]);
    network.deliver(node(1), &honest[3]);
    let session = &network.sessions[&node(1)];
    assert_eq!(session.dropped().get(&Dropped::OutOfTurn), Some(&2));
    assert!(!session.is_over());
}

#[test]
fn strangers_other_sessions_other_receivers_and_oversized_messages_are_dropped() {
    let parties = parties(&[1, 2]);
    let mut network = Network::new(&parties, greetings(&[1, 2]));
    network.start();
    let hello_to_one = |parties: &crate::network::Parties, from: u8| {
        let mut other = Network::new(parties, greetings(&[1, 2, 3]));
        other.start();
        other.queue.iter().find(|p| (p.from, p.to) == (node(from), node(1))).unwrap().bytes.clone()
    };
    let impostor = hello_to_one(&crate::network::parties(&[1, 2]), 2);
    let stranger = hello_to_one(&crate::network::parties(&[1, 3]), 3);
    let mut elsewhere = parties.clone();
    elsewhere.get_mut(&node(2)).unwrap().label = Hash::of_bytes(b"another session");
    let elsewhere = hello_to_one(&elsewhere, 2);
    let to_two = network.queue.iter().find(|packet| packet.to == node(2)).unwrap().bytes.clone();
    for bytes in
        [&impostor, &stranger, &elsewhere, &to_two, &vec![0; MAX_ENVELOPE + 1], &b"no envelope".to_vec()]
    {
        network.deliver(node(1), bytes);
    }
    let session = &network.sessions[&node(1)];
    let expected = [
        (Dropped::TooLarge, 1),
        (Dropped::Malformed, 1),
        (Dropped::Elsewhere, 2),
        (Dropped::Stranger, 1),
        (Dropped::Unsigned, 1),
    ];
    assert_eq!(*session.dropped(), expected.into());
    assert!(!session.is_over());
}

#[test]
fn a_private_payload_that_does_not_open_names_its_sender_and_bans_nobody() {
    let mut parties = parties(&[1, 2]);
    let one = parties[&node(1)].keys.public();
    let wrong = EnclaveKeys { sealing: BootKeys::generate().public().sealing, ..one };
    parties.get_mut(&node(2)).unwrap().believes = [(node(1), wrong)].into();
    let mut network = Network::new(&parties, greetings(&[1, 2]));
    network.run(|packet| vec![packet]);
    let failure = network.failure(1);
    assert!(failure.reason.contains("does not open"), "{}", failure.reason);
    assert_eq!((failure.culprit, failure.ban), (Some(node(2)), None));
}

/// Does what its function does, in its first round.
struct Odd(fn() -> Result<Step<Product>, ProtocolAbort>);

impl Protocol for Odd {
    type Product = Product;

    fn rounds(&self) -> &'static [&'static str] {
        &["be odd"]
    }

    fn start(&mut self) -> Result<Outgoing, ProtocolAbort> {
        Ok(Outgoing::default())
    }

    fn round(&mut self, _: usize, _: Round) -> Result<Step<Product>, ProtocolAbort> {
        (self.0)()
    }
}

fn odd(act: fn() -> Result<Step<Product>, ProtocolAbort>) -> Network {
    let factory = move |_| -> Factory { Box::new(move |_| Ok(Box::new(Odd(act)))) };
    let mut network = Network::new(&parties(&[1, 2]), factory);
    network.run(|packet| vec![packet]);
    network
}

#[test]
fn a_panic_in_a_phase_takes_down_its_session_only() {
    let network = odd(|| panic!("as documented"));
    assert!(network.failure(1).reason.contains("panicked"));
    assert_eq!((network.failure(1).culprit, network.failure(1).ban), (None, None));
}

#[test]
fn a_ban_of_the_protocol_is_a_ban_of_the_session() {
    let network = odd(|| Err(ProtocolAbort { ban: Some(node(2)), ..ProtocolAbort::by(node(2), "cheated") }));
    assert_eq!((network.failure(1).culprit, network.failure(1).ban), (Some(node(2)), Some(node(2))));
}

#[test]
fn a_protocol_that_addresses_a_node_outside_the_plan_ends_its_session() {
    let network = odd(|| {
        let private = [(node(7), b"secret".to_vec().into())].into();
        Ok(Step::Next(Outgoing { broadcast: Vec::new(), private }))
    });
    assert!(network.failure(1).reason.contains("node 7"), "{}", network.failure(1).reason);
}

#[test]
fn a_session_that_is_over_says_nothing_more() {
    let mut network = greet(&[1, 2]);
    let mut last = None;
    network.run(|packet| {
        last = Some(packet.clone());
        vec![packet]
    });
    let last = last.unwrap();
    let session = network.sessions.get_mut(&last.to).unwrap();
    assert!(session.is_over());
    assert!(session.receive(0, &last.bytes).is_empty());
    assert!(session.tick(BARRIER_MS + ROUND_MS + ROUND_MS).is_empty());
}
