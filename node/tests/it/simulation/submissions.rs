//! What a node answers to a submission while it is still reading the record.

use std::collections::BTreeMap;

use ceremonies::book::Book;
use ceremonies::ceremony::opening_statement;
use ceremonies::charter::CeremonyKind;
use ceremonies::deploy::broker::stream_config;
use ceremonies::deploy::subject;
use ceremonies::ids::{CeremonyId, Generation, Hash};
use ceremonies::manifest::{Origin, Proposal, Subject, Way};
use ceremonies::said::{self, Topic};
use ceremonies::script::Script;
use ceremonies::wire::bus::submit_reply::Outcome;
use ceremonies::wire::log::{self, event::Kind};
use ceremonies::wire::{VERSION, bus};
use node::core::{
    Core, Effect, Event, Identity, Now, Pace, Remembered, Request, RequestKind, StreamEntry, StreamSeen,
};
use prost::Message as _;

use super::charter::{CONTEXT, line, node, node_key, ssh_sign};
use super::world::BEGIN;

/// A node without any record.
fn empty() -> Core {
    let identity = Identity { node: node(0), charter: CONTEXT.charter().clone(), nkey: node_key(0) };
    let remembered = Remembered {
        book: Book::new(CONTEXT.clone()),
        shelf: Vec::new(),
        ballots: BTreeMap::new(),
        aside: Vec::new(),
        read_to: None,
    };
    let pace = Pace { vault_check_ms: None, shelve_after_ms: 1000, recheck_ms: 1000 };
    Core::new(identity, remembered, pace, NOW)
}

const NOW: Now = Now { wall: BEGIN, steady: 1 };

fn seen() -> Event {
    Event::StreamSeen(Ok(StreamSeen { config: stream_config(1), first: 1, last: 1, has_mark: true }))
}

/// A message that is not an entry. The stream has been read up to it, but not to its end.
fn something() -> Event {
    Event::StreamRead(Ok(vec![StreamEntry { ceremony: None, seq: 1, payload: b"nothing".to_vec() }]))
}

fn answer(core: &mut Core, id: &CeremonyId, kind: &Kind) -> Outcome {
    let event = Some(log::Event { kind: Some(kind.clone()) });
    let payload = bus::Submit { version: VERSION, event, nonce: vec![7; 16] }.encode_to_vec();
    let subject = subject::submit(id, node(0));
    let topic = Topic::answer_to(&subject, &payload);
    let request = Request {
        kind: RequestKind::Submit(id.clone()),
        subject: subject.clone(),
        payload: payload.clone(),
        reply: "console".into(),
    };
    let effects = core.handle(NOW, Event::Request(request));
    let said = effects.iter().find_map(|effect| match effect {
        Effect::Publish { subject, payload } if subject == "console" => Some(payload),
        _ => None,
    });
    let (_, body) = said::hear(CONTEXT.charter(), topic, said.unwrap()).unwrap();
    bus::SubmitReply::decode(body.as_slice()).unwrap().outcome.unwrap()
}

/// A recovery from a backup that this record does not have.
fn opening() -> (CeremonyId, Kind) {
    let proposal = Proposal {
        kind: CeremonyKind::Recover,
        wallet: "treasury".parse().unwrap(),
        purpose: line("Its machine is gone"),
        administrator: "ada".parse().unwrap(),
        opened: BEGIN,
        lifetime_ms: 60_000,
        nonce: [3; 16],
        generation: Generation(2),
        origin: Some(Origin {
            ceremony: "dkg-treasury-01".parse().unwrap(),
            record: Hash::of_bytes(b"record"),
        }),
        subject: Subject::Losses([(node(0), Way::Backup)].into()),
        signers: None,
    };
    let (charter, script) = (CONTEXT.charter(), Script::builtin(CeremonyKind::Recover).unwrap());
    let manifest = proposal.manifest(charter, &script).unwrap();
    let text = opening_statement(&manifest, charter, &script).unwrap();
    let opened = log::Opened { manifest: manifest.as_bytes().to_vec(), signature: ssh_sign("ada", &text) };
    (manifest.ceremony.clone(), Kind::Opened(opened))
}

fn withdrawal() -> (CeremonyId, Kind) {
    let withdrawn = log::Withdrawn {
        person: "olga".into(),
        role: "operator".into(),
        reason: "The wrong wallet".into(),
        signature: ssh_sign("olga", "any statement"),
    };
    ("dkg-treasury-01".parse().unwrap(), Kind::Withdrawn(withdrawn))
}

#[test]
fn what_the_record_lacks_is_refused_only_after_it_was_read_to_its_end() {
    for (id, kind) in [opening(), withdrawal()] {
        let mut core = empty();
        let before: [Option<Event>; 4] = [None, Some(Event::Connected), Some(seen()), Some(something())];
        for event in before {
            if let Some(event) = event {
                core.handle(NOW, event);
            }
            let told = answer(&mut core, &id, &kind);
            assert!(matches!(&told, Outcome::Unknown(why) if why.contains("cannot tell yet")), "{told:?}");
        }
        core.handle(NOW, Event::StreamRead(Ok(Vec::new())));
        let told = answer(&mut core, &id, &kind);
        // The broker may withhold a ceremony from one node for as long as it likes.
        let is_judged = match &told {
            Outcome::Rejection(_) => matches!(kind, Kind::Opened(_)),
            Outcome::Unknown(why) => matches!(kind, Kind::Withdrawn(_)) && why.contains("not known here"),
            Outcome::Seq(_) => false,
        };
        assert!(is_judged, "{told:?}");
    }
}
