//! What a node does with a withdrawal while nothing can be appended: it counts for what a person has signed, and for nothing
//! else, whoever hands it in.

use std::collections::BTreeMap;

use ceremonies::book::Book;
use ceremonies::ceremony::opening_statement;
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::deploy::subject;
use ceremonies::ids::{CeremonyId, Generation, Hash, UnixMillis};
use ceremonies::log::{Entry, EntryError, Place};
use ceremonies::manifest::{Proposal, Subject};
use ceremonies::script::Script;
use ceremonies::wire::log::{self, event::Kind};
use ceremonies::wire::record::{self, to_peer};
use ceremonies::wire::{VERSION, bus};
use enclave_link::message::{Welcome, from_enclave, to_enclave};
use node::core::{Core, Effect, Event, Identity, Now, Pace, Remembered, Request, RequestKind};
use prost::Message as _;

use super::charter::{CONTEXT, line, node, node_key, ssh_sign};
use super::world::BEGIN;

const REASON: &str = "The wrong wallet";

fn moment(steady: u64) -> Now {
    Now { wall: UnixMillis(BEGIN.0 + 1000), steady }
}

/// A key generation that somebody opened.
fn opening() -> Entry {
    let proposal = Proposal {
        kind: CeremonyKind::Dkg,
        wallet: "treasury".parse().unwrap(),
        purpose: line("The first key"),
        administrator: "ada".parse().unwrap(),
        opened: BEGIN,
        lifetime_ms: 60_000,
        nonce: [3; 16],
        generation: Generation::FIRST,
        origin: None,
        subject: Subject::Wallet,
        signers: None,
    };
    let (charter, script) = (CONTEXT.charter(), Script::builtin(CeremonyKind::Dkg).unwrap());
    let manifest = proposal.manifest(charter, &script).unwrap();
    let text = opening_statement(&manifest, charter, &script).unwrap();
    let opened = log::Opened { manifest: manifest.as_bytes().to_vec(), signature: ssh_sign("ada", &text) };
    let place =
        Place { ceremony: manifest.ceremony.clone(), seq: 1, prev: Hash::ZERO, time: BEGIN, node: node(1) };
    let event = log::Event { kind: Some(Kind::Opened(opened)) };
    Entry::create(place, event, |message| Ok::<_, EntryError>(node_key(1).sign(message).unwrap())).unwrap()
}

/// A node with an enclave, and this ceremony in its record, but no broker.
fn core() -> (Core, CeremonyId) {
    let mut book = Book::new(CONTEXT.clone());
    let opening = opening();
    let id = opening.ceremony.clone();
    book.take(opening).unwrap();
    let identity = Identity { node: node(0), charter: CONTEXT.charter().clone(), nkey: node_key(0) };
    let remembered =
        Remembered { book, shelf: Vec::new(), ballots: BTreeMap::new(), aside: Vec::new(), read_to: None };
    let pace = Pace { vault_check_ms: None, shelve_after_ms: 1000, recheck_ms: 1000 };
    let mut core = Core::new(identity, remembered, pace, moment(1));
    let welcome = Welcome {
        version: enclave_link::VERSION,
        build: "here".into(),
        identity: vec![1; 32],
        sealing: vec![2; 32],
        said: Vec::new(),
    };
    core.handle(moment(1), Event::Enclave(from_enclave::Kind::Welcome(welcome)));
    (core, id)
}

/// A withdrawal of the ceremony, signed by somebody and said to be by somebody.
fn withdrawn(core: &Core, id: &CeremonyId, signer: &str, person: &str) -> log::Event {
    let ceremony = &core.book().get(id).unwrap().ceremony;
    let text = ceremony.withdrawal(Role::Operator, &"olga".parse().unwrap(), &line(REASON)).unwrap();
    let withdrawn = log::Withdrawn {
        person: person.into(),
        role: "operator".into(),
        reason: REASON.into(),
        signature: ssh_sign(signer, &text),
    };
    log::Event { kind: Some(Kind::Withdrawn(withdrawn)) }
}

fn submitted(id: &CeremonyId, event: &log::Event) -> Event {
    let event = Some(event.clone());
    Event::Request(Request {
        kind: RequestKind::Submit(id.clone()),
        subject: subject::submit(id, node(0)),
        payload: bus::Submit { version: VERSION, event, nonce: vec![7; 16] }.encode_to_vec(),
        reply: "console".into(),
    })
}

fn told(id: &CeremonyId, event: &log::Event) -> Event {
    let withdrawal = record::Withdrawal { ceremony: id.to_string(), event: Some(event.clone()) };
    let kind = Some(to_peer::Kind::Withdrawal(withdrawal));
    Event::FromPeer(node(3), record::ToPeer { version: VERSION, kind }.encode_to_vec())
}

/// How often the enclave is told to give up this ceremony.
fn stops(effects: &[Effect], id: &CeremonyId) -> usize {
    let stops = effects.iter().filter(|effect| match effect {
        Effect::ToEnclave(kind) => {
            matches!(&**kind, to_enclave::Kind::Stop(stop) if stop.ceremony == id.as_str())
        }
        _ => false,
    });
    stops.count()
}

/// On which subjects others are told of this withdrawal.
fn passed_on(effects: &[Effect], event: &log::Event) -> Vec<String> {
    let told = effects.iter().filter_map(|effect| {
        let Effect::Publish { subject, payload } = effect else { return None };
        let to_peer::Kind::Withdrawal(told) = record::ToPeer::decode(payload.as_slice()).ok()?.kind? else {
            return None;
        };
        (told.event.as_ref() == Some(event)).then(|| subject.clone())
    });
    told.collect()
}

#[test]
fn withdrawal_stops_the_enclave_at_once_and_is_passed_on_until_it_can_be_appended() {
    let (mut core, id) = core();
    let event = withdrawn(&core, &id, "olga", "olga");
    assert_eq!(stops(&core.handle(moment(2), submitted(&id, &event)), &id), 1);
    let everybody: Vec<String> = (1..5).map(|to| subject::peer(node(to), node(0))).collect();
    for look in 1..4 {
        let effects = core.handle(moment(look * 2000), Event::Tick);
        assert_eq!(passed_on(&effects, &event), everybody, "look {look}");
        assert_eq!(stops(&effects, &id), 0, "once is enough");
    }
}

#[test]
fn withdrawal_that_another_node_was_given_counts_as_if_it_had_been_given_here() {
    let (mut core, id) = core();
    let event = withdrawn(&core, &id, "olga", "olga");
    assert_eq!(stops(&core.handle(moment(2), told(&id, &event)), &id), 1);
    assert_eq!(stops(&core.handle(moment(3), told(&id, &event)), &id), 0);
    assert_eq!(passed_on(&core.handle(moment(3000), Event::Tick), &event).len(), 4);
}

#[test]
fn nobody_stops_a_ceremony_but_a_person_who_withdraws_that_very_one() {
    let (mut core, id) = core();
    let valid = withdrawn(&core, &id, "olga", "olga");
    let others_hand = withdrawn(&core, &id, "omar", "olga");
    let stranger = withdrawn(&core, &id, "olga", "mallory");
    let mut other_reason = valid.clone();
    if let Some(Kind::Withdrawn(withdrawn)) = &mut other_reason.kind {
        withdrawn.reason = "Another".into();
    }
    let faulted = log::Faulted { node: 1, reason: "lost".into() };
    let faulted = log::Event { kind: Some(Kind::Faulted(faulted)) };
    let elsewhere: CeremonyId = "dkg-treasury-00000000".parse().unwrap();
    let mut at = 2;
    for (ceremony, event) in [
        (&id, &others_hand),
        (&id, &stranger),
        (&id, &other_reason),
        (&id, &faulted),
        (&id, &log::Event { kind: None }),
        (&elsewhere, &valid),
    ] {
        for happening in [submitted(ceremony, event), told(ceremony, event)] {
            at += 2000;
            let mut effects = core.handle(moment(at), happening);
            effects.extend(core.handle(moment(at + 1000), Event::Tick));
            assert_eq!((stops(&effects, &id), stops(&effects, ceremony)), (0, 0), "{event:?}");
            assert!(passed_on(&effects, event).is_empty(), "{event:?}");
        }
    }
    assert_eq!(stops(&core.handle(moment(at + 2000), told(&id, &valid)), &id), 1);
}
