//! Health is tried, and tried again: what a ceremony will need is requested before anyone has signed, a trouble has a
//! time, and the next success clears it.

use std::collections::BTreeMap;

use ceremonies::ids::UnixMillis;
use ceremonies::said::{Topic, hear, say};
use ceremonies::wire::bus::{Heartbeat, HeldShare};
use ceremonies::wire::log;
use enclave_link::VERSION;
use enclave_link::message::{Credentials, KmsTried, Said, Welcome, from_enclave, to_enclave};
use node::core::{
    Core, Effect, Event, Identity, Now, Pace, Remembered, StoreOp, StoreReply, StreamEntry, Ticket,
};
use prost::Message as _;

use crate::host::stream::Stream;
use crate::simulation::charter::{CONTEXT, node, node_key};

const SECOND: u64 = 1000;

/// A core whose surroundings a test decides.
struct Bench {
    core: Core,
    now: u64,
    /// What the core asked for since it was last looked at.
    effects: Vec<Effect>,
}

impl Bench {
    fn new() -> Self {
        let identity = Identity { node: node(0), charter: CONTEXT.charter().clone(), nkey: node_key(0) };
        let remembered = Remembered {
            book: ceremonies::book::Book::new(CONTEXT.clone()),
            shelf: Vec::new(),
            ballots: BTreeMap::new(),
            aside: Vec::new(),
            read_to: None,
        };
        let core = Core::new(
            identity,
            remembered,
            Pace { vault_check_ms: Some(600_000), shelve_after_ms: 60_000, recheck_ms: 1000 },
            Self::at(1),
        );
        Self { core, now: 1, effects: Vec::new() }
    }

    fn at(now: u64) -> Now {
        Now { wall: UnixMillis(1_795_000_000_000 + i64::try_from(now).unwrap()), steady: now }
    }

    fn feed(&mut self, event: Event) {
        self.effects.extend(self.core.handle(Self::at(self.now), event));
    }

    /// Lets seconds pass, during which the store answers as told.
    fn pass(&mut self, seconds: u64, store: &Result<(), String>) {
        for _ in 0..seconds {
            self.now += SECOND;
            self.feed(Event::Tick);
            let probes: Vec<Ticket> = self
                .effects
                .iter()
                .filter_map(|effect| match effect {
                    Effect::Store(ticket, op) if matches!(**op, StoreOp::Probe(_)) => Some(*ticket),
                    _ => None,
                })
                .collect();
            for ticket in probes {
                let answer = store.clone().map(|()| StoreReply::Held(Vec::new()));
                self.feed(Event::Stored(ticket, answer.map_err(Into::into)));
            }
        }
    }

    fn welcome(&mut self) {
        let welcome = Welcome {
            version: VERSION,
            build: "enclave".to_owned(),
            identity: vec![1; 32],
            sealing: vec![2; 32],
            said: Vec::new(),
        };
        self.feed(Event::Enclave(from_enclave::Kind::Welcome(welcome)));
    }

    fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn asks_vault(&mut self) -> bool {
        self.take().contains(&Effect::Preflight)
    }

    /// The trial of the KMS that the enclave was told to make, with credentials lent.
    fn tries_kms(&mut self) -> Option<u64> {
        let fetch = self.take().into_iter().find_map(|effect| match effect {
            Effect::FetchCredentials(ticket) => Some(ticket),
            _ => None,
        })?;
        self.feed(Event::Credentials(fetch, Ok(Credentials::default())));
        self.take().into_iter().find_map(|effect| match effect {
            Effect::ToEnclave(kind) => match *kind {
                to_enclave::Kind::TryKms(order) => Some(order.request),
                _ => None,
            },
            _ => None,
        })
    }

    fn kms_answers(&mut self, request: u64, trouble: &str) {
        let tried = KmsTried { request, trouble: trouble.to_owned() };
        self.feed(Event::Enclave(from_enclave::Kind::KmsTried(tried)));
    }

    fn enclave_gives_up(&mut self, reason: &str) {
        let kind =
            log::event::Kind::Aborted(log::Aborted { reason: reason.to_owned(), ..log::Aborted::default() });
        let event = log::Event { kind: Some(kind) }.encode_to_vec();
        let said = Said { ceremony: "dkg-treasury-00000000".to_owned(), event };
        self.feed(Event::Enclave(from_enclave::Kind::Said(said)));
    }

    /// Hears another node, whose record has this digest.
    fn hear(&mut self, at: usize, digest: &[u8]) {
        let heartbeat = Heartbeat {
            node: node(at).into(),
            time_ms: Self::at(self.now).wall.0,
            record_digest: digest.to_vec(),
            ..Heartbeat::default()
        };
        let sign = |bytes: &[u8]| node_key(at).sign(bytes).map_err(Box::<dyn std::error::Error>::from);
        let cluster = CONTEXT.charter().cluster();
        let said = say(cluster, Topic::Heartbeat, node(at), heartbeat.encode_to_vec(), sign).unwrap();
        self.feed(Event::Heartbeat(said));
    }

    fn heartbeat(&mut self) -> Heartbeat {
        self.take();
        self.pass(1, &Ok(()));
        if let Some(said) = self.said() {
            return said;
        }
        // Before it says anything, a node waits until its store has answered.
        self.pass(1, &Ok(()));
        self.said().unwrap()
    }

    /// The first heartbeat among what the core asked for.
    fn said(&mut self) -> Option<Heartbeat> {
        let payload = self.take().into_iter().find_map(|effect| match effect {
            Effect::Publish { subject, payload } if subject.starts_with("health.") => Some(payload),
            _ => None,
        });
        let (_, body) = hear(CONTEXT.charter(), Topic::Heartbeat, &payload?).unwrap();
        Some(Heartbeat::decode(body.as_slice()).unwrap())
    }

    /// What the store is asked to list, one look later.
    fn probed(&mut self) -> Ticket {
        self.now += SECOND;
        self.feed(Event::Tick);
        let probe = self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Store(ticket, op) if matches!(**op, StoreOp::Probe(_)) => Some(*ticket),
            _ => None,
        });
        probe.unwrap()
    }
}

#[test]
fn no_heartbeat_says_that_shares_are_lost_which_were_not_read_yet_or_cannot_be_read_now() {
    let mut bench = Bench::new();
    let probe = bench.probed();
    assert!(bench.said().is_none(), "nothing is known of the shares yet");
    let share = HeldShare { wallet: "treasury".to_owned(), generation: 1, ..HeldShare::default() };
    bench.feed(Event::Stored(probe, Ok(StoreReply::Held(vec![share.clone()]))));
    let probe = bench.probed();
    assert_eq!(bench.said().unwrap().shares, std::slice::from_ref(&share));
    bench.feed(Event::Stored(probe, Err("the disk is full".into())));
    bench.probed();
    let said = bench.said().unwrap();
    assert!(said.store_trouble.contains("the disk is full"), "{}", said.store_trouble);
    assert_eq!(said.shares, [share], "what was listed before is not lost");
}

#[test]
fn store_that_never_answered_is_said_to_be_in_trouble() {
    let mut bench = Bench::new();
    let probe = bench.probed();
    bench.feed(Event::Stored(probe, Err("the disk is full".into())));
    bench.probed();
    assert!(bench.said().unwrap().store_trouble.contains("the disk is full"));
}

#[test]
fn a_data_key_is_got_as_soon_as_an_enclave_is_there_and_the_kms_is_tried_until_it_gives_one() {
    let mut bench = Bench::new();
    bench.pass(3, &Ok(()));
    assert!(bench.tries_kms().is_none(), "there is no enclave yet");
    bench.welcome();
    bench.pass(1, &Ok(()));
    let request = bench.tries_kms().unwrap();
    bench.kms_answers(request + 1, "");
    bench.kms_answers(request, "KMS refused GenerateDataKey: AccessDeniedException");
    let told = bench.heartbeat().kms_trouble;
    assert!(told.starts_with("KMS refused GenerateDataKey") && told.contains("(at 20"), "{told}");
    bench.pass(10, &Ok(()));
    let request = bench.tries_kms().unwrap();
    bench.kms_answers(request, "");
    assert_eq!(bench.heartbeat().kms_trouble, "");
    bench.pass(25, &Ok(()));
    assert!(bench.tries_kms().is_none(), "what works is not asked for all the time");
    bench.pass(10, &Ok(()));
    assert!(bench.tries_kms().is_some());
}

#[test]
fn the_kms_is_tried_again_as_soon_as_an_enclave_gives_up_and_its_words_decide_nothing() {
    let mut bench = Bench::new();
    bench.welcome();
    bench.pass(1, &Ok(()));
    let request = bench.tries_kms().unwrap();
    bench.kms_answers(request, "");
    bench.pass(1, &Ok(()));
    assert!(bench.tries_kms().is_none(), "it has just worked");
    bench.enclave_gives_up("KMS refused Decrypt");
    bench.pass(1, &Ok(()));
    let request = bench.tries_kms().unwrap();
    assert_eq!(bench.heartbeat().kms_trouble, "");
    bench.kms_answers(request, "KMS refused Decrypt: AccessDeniedException");
    assert!(bench.heartbeat().kms_trouble.starts_with("KMS refused Decrypt"));
}

#[test]
fn missing_credentials_are_a_trouble_of_the_kms_until_there_are_some() {
    let mut bench = Bench::new();
    bench.welcome();
    bench.pass(1, &Ok(()));
    let fetch = bench.take().into_iter().find_map(|effect| match effect {
        Effect::FetchCredentials(ticket) => Some(ticket),
        _ => None,
    });
    bench.feed(Event::Credentials(fetch.unwrap(), Err("token expired".into())));
    assert!(bench.heartbeat().kms_trouble.starts_with("token expired (at 20"));
    bench.pass(10, &Ok(()));
    let request = bench.tries_kms().unwrap();
    bench.kms_answers(request, "");
    assert_eq!(bench.heartbeat().kms_trouble, "");
}

#[test]
fn a_trial_that_is_never_answered_or_whose_enclave_is_lost_is_made_again() {
    let mut bench = Bench::new();
    bench.welcome();
    bench.pass(1, &Ok(()));
    assert!(bench.tries_kms().is_some());
    bench.pass(30, &Ok(()));
    assert!(bench.tries_kms().is_none());
    bench.pass(31, &Ok(()));
    assert!(bench.tries_kms().is_some());
    bench.feed(Event::EnclaveLost);
    bench.welcome();
    bench.pass(1, &Ok(()));
    assert!(bench.tries_kms().is_some(), "another enclave may be another image");
}

#[test]
fn peer_whose_record_stays_another_one_is_named_and_no_longer_once_it_is_the_same_or_silent() {
    let mut bench = Bench::new();
    let same = bench.heartbeat().record_digest;
    let mut differs_after = |seconds, digest: Option<&[u8]>| {
        for _ in 0..seconds {
            if let Some(digest) = digest {
                bench.hear(1, digest);
            }
            bench.pass(1, &Ok(()));
        }
        bench.heartbeat().differs
    };
    assert!(differs_after(18, Some(&[7; 32])).is_empty(), "it may be on its way");
    assert_eq!(differs_after(4, Some(&[7; 32])), [2]);
    assert!(differs_after(1, Some(&same)).is_empty());
    assert_eq!(differs_after(22, Some(&[7; 32])), [2]);
    assert!(differs_after(10, None).is_empty(), "nothing is known of it");
}

#[test]
fn kms_that_was_not_tried_yet_is_not_shown_as_working() {
    let mut bench = Bench::new();
    bench.welcome();
    bench.pass(1, &Ok(()));
    let request = bench.tries_kms().unwrap();
    assert_eq!(bench.heartbeat().kms_trouble, "not tried yet");
    bench.kms_answers(request, "");
    assert_eq!(bench.heartbeat().kms_trouble, "");
    bench.feed(Event::EnclaveLost);
    bench.welcome();
    assert_eq!(bench.heartbeat().kms_trouble, "not tried yet", "another enclave may be another image");
}

#[test]
fn endpoint_that_this_node_cannot_reach_is_the_reason_and_not_what_the_enclave_sees_of_it() {
    let mut bench = Bench::new();
    bench.welcome();
    bench.pass(1, &Ok(()));
    let request = bench.tries_kms().unwrap();
    bench.feed(Event::KmsReached(Err("no route to it".into())));
    bench.kms_answers(request, "TLS handshake: end of file");
    assert!(bench.heartbeat().kms_trouble.starts_with("no route to it (at 20"));
    bench.pass(10, &Ok(()));
    let request = bench.tries_kms().unwrap();
    bench.feed(Event::KmsReached(Ok(())));
    bench.kms_answers(request, "KMS refused GenerateDataKey");
    assert!(bench.heartbeat().kms_trouble.starts_with("KMS refused GenerateDataKey"));
}

#[test]
fn reason_of_an_earlier_trial_is_not_taken_for_that_of_the_next() {
    let mut bench = Bench::new();
    bench.welcome();
    bench.pass(1, &Ok(()));
    let request = bench.tries_kms().unwrap();
    bench.feed(Event::KmsReached(Err("no route to it".into())));
    bench.kms_answers(request, "TLS handshake: end of file");
    bench.pass(10, &Ok(()));
    // This one fails before there is a connection, so that nobody says again whether the KMS was reached.
    let request = bench.tries_kms().unwrap();
    bench.kms_answers(request, "the credentials are malformed");
    let told = bench.heartbeat().kms_trouble;
    assert!(told.starts_with("the credentials are malformed (at 20"), "{told}");
    // And nobody had credentials for that one.
    bench.feed(Event::KmsReached(Err("no route to it".into())));
    bench.pass(10, &Ok(()));
    let fetch = bench.take().into_iter().find_map(|effect| match effect {
        Effect::FetchCredentials(ticket) => Some(ticket),
        _ => None,
    });
    bench.feed(Event::Credentials(fetch.unwrap(), Err("token expired".into())));
    let told = bench.heartbeat().kms_trouble;
    assert!(told.starts_with("token expired (at 20"), "{told}");
}

#[test]
fn enclave_that_was_lost_and_is_back_at_once_is_remembered() {
    let mut bench = Bench::new();
    bench.feed(Event::LinkState(Ok(())));
    bench.welcome();
    bench.pass(20, &Ok(()));
    assert!(bench.heartbeat().past.is_empty());
    bench.feed(Event::EnclaveLost);
    bench.welcome();
    let past = bench.heartbeat().past;
    let told = &past[0].text;
    assert_eq!(past[0].part, "enclave");
    assert!(told.ends_with("; then: the link was lost"), "{told}");
    assert!(told.starts_with("no answer for 1"), "it had not answered before: {told}");
}

#[test]
fn enclave_that_never_says_its_keys_is_named_as_one_that_does_not_answer() {
    let mut bench = Bench::new();
    bench.feed(Event::LinkState(Ok(())));
    bench.pass(9, &Ok(()));
    assert_eq!(bench.heartbeat().enclave.unwrap().trouble, "");
    bench.pass(3, &Ok(()));
    let told = bench.heartbeat().enclave.unwrap().trouble;
    assert!(told.starts_with("no answer for 1"), "{told}");
    bench.welcome();
    bench.pass(1, &Ok(()));
    assert_eq!(bench.heartbeat().enclave.unwrap().trouble, "");
}

#[test]
fn the_vault_is_tried_from_the_start_and_its_trouble_is_cleared_when_it_works() {
    let mut bench = Bench::new();
    bench.pass(1, &Ok(()));
    assert!(bench.asks_vault());
    bench.feed(Event::Preflighted(Err("no hard links".into())));
    assert!(bench.heartbeat().vault_trouble.starts_with("no hard links (at 20"));
    bench.pass(10, &Ok(()));
    assert!(bench.asks_vault());
    bench.feed(Event::Preflighted(Ok(())));
    assert_eq!(bench.heartbeat().vault_trouble, "");
    bench.pass(60, &Ok(()));
    assert!(!bench.asks_vault());
}

#[test]
fn a_store_that_takes_no_writes_is_a_trouble_until_it_takes_one() {
    let mut bench = Bench::new();
    bench.pass(3, &Err("store failed: readonly database".into()));
    // The heartbeat goes out before the store answers to the probe of the same second.
    let told = bench.heartbeat().store_trouble;
    assert!(told.starts_with("store failed: readonly database (at 20"), "{told}");
    assert_eq!(bench.heartbeat().store_trouble, "");
}

#[test]
fn what_a_store_still_does_hides_nothing_that_it_does_not() {
    let mut bench = Bench::new();
    bench.pass(60, &Ok(()));
    let seen = Stream::new().seen(None);
    bench.feed(Event::StreamSeen(Ok(seen)));
    let message = StreamEntry { seq: 1, payload: b"junk".to_vec(), ceremony: None };
    bench.take();
    bench.feed(Event::StreamRead(Ok(vec![message])));
    bench.feed(Event::StreamRead(Ok(Vec::new())));
    let remembers = bench.take().into_iter().find_map(|effect| match effect {
        Effect::Store(ticket, op) if matches!(*op, StoreOp::ReadTo(_)) => Some(ticket),
        _ => None,
    });
    bench.pass(1, &Err("the disk is full".into()));
    bench.feed(Event::Stored(remembers.unwrap(), Ok(StoreReply::Done)));
    let told = bench.heartbeat().store_trouble;
    assert!(told.starts_with("the disk is full"), "{told}");
}
