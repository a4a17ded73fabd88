//! How many finished logs others recall because of what one node says or puts into the stream.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use ceremonies::book::Book;
use ceremonies::ceremony;
use ceremonies::charter::CeremonyKind;
use ceremonies::deploy::broker::stream_config;
use ceremonies::ids::{CeremonyId, Generation, Hash, UnixMillis};
use ceremonies::log::{Entry, Place};
use ceremonies::manifest::{Origin, Proposal, Subject};
use ceremonies::record::{Head, Lock, SignedHead, Tip};
use ceremonies::script::Script;
use ceremonies::wire::record::{self, to_peer};
use ceremonies::wire::{VERSION, log};
use nkeys::KeyPair;
use node::core::{
    Core, Effect, Event, Identity, Now, Pace, Remembered, Shelved, StoreOp, StoreReply, StreamEntry,
    StreamSeen,
};
use prost::Message as _;

use super::charter::{CONTEXT, line as text, node, node_key, ssh_sign};
use super::world::BEGIN;

const LINES: usize = 300;
/// How many logs may be recalled in a second for one node.
const A_SECOND: usize = 4;

fn line(number: usize) -> Shelved {
    Shelved {
        ceremony: format!("test-sign-{number}").parse().unwrap(),
        kind: CeremonyKind::TestSign,
        wallet: "treasury".parse().unwrap(),
        generation: Generation(1),
        phase: "closed".to_owned(),
        opened: BEGIN,
        charter: CONTEXT.charter().hash(),
        began: BEGIN,
        head: ceremony::Head { seq: 9, hash: Hash::of_bytes(&number.to_be_bytes()), time: BEGIN },
        round: 2,
        lock_round: 1,
    }
}

fn head(line: &Shelved, by: usize, key: &KeyPair, change: impl Fn(&mut Head)) -> record::HeadNews {
    let tip = Tip { seq: line.head.seq, hash: line.head.hash };
    let mut head = Head {
        cluster: CONTEXT.charter().cluster().clone(),
        ceremony: line.ceremony.clone(),
        node: node(by),
        round: 2,
        votes: true,
        tip,
        lock: Some(Lock { round: 1, tip }),
        time: BEGIN,
    };
    change(&mut head);
    let signed = SignedHead::create(head, |bytes| key.sign(bytes)).unwrap();
    record::HeadNews { head: Some(signed.raw().clone()), proof: Vec::new() }
}

/// An entry as one node makes it.
fn entry(ceremony: &CeremonyId, seq: u64, kind: log::event::Kind, by: usize, key: &KeyPair) -> Entry {
    let prev = if seq == 1 { Hash::ZERO } else { Hash::of_bytes(b"before") };
    let place = Place { ceremony: ceremony.clone(), seq, prev, time: BEGIN, node: node(by) };
    let sign = |bytes: &[u8]| key.sign(bytes).map_err(Box::<dyn std::error::Error>::from);
    Entry::create(place, log::Event { kind: Some(kind) }, sign).unwrap()
}

fn something_in(line: &Shelved, by: usize) -> Entry {
    let faulted = log::Faulted { node: node(by).into(), reason: "the disk is full".to_owned() };
    entry(&line.ceremony, 5, log::event::Kind::Faulted(faulted), by, &node_key(by))
}

/// Another ceremony that works on the generation of one that is shelved.
fn opening_on(line: &Shelved, by: usize, key: &KeyPair) -> Entry {
    let script = Script::builtin(CeremonyKind::Refresh).unwrap();
    let proposal = Proposal {
        kind: CeremonyKind::Refresh,
        wallet: line.wallet.clone(),
        purpose: text("To see that it works"),
        administrator: "ada".parse().unwrap(),
        opened: BEGIN,
        lifetime_ms: 30 * 60_000,
        nonce: [7; 16],
        generation: Generation(2),
        origin: Some(Origin { ceremony: line.ceremony.clone(), record: Hash::of_bytes(b"record") }),
        subject: Subject::Wallet,
        signers: None,
    };
    let manifest = proposal.manifest(CONTEXT.charter(), &script).unwrap();
    let statement = ceremony::opening_statement(&manifest, CONTEXT.charter(), &script).unwrap();
    let signature = ssh_sign("ada", &statement);
    let opened = log::Opened { manifest: manifest.as_bytes().to_vec(), signature };
    entry(&manifest.ceremony, 1, log::event::Kind::Opened(opened), by, key)
}

/// A node with nothing but lines, which has read the stream as far as this, and the seconds since it was started.
struct Reader {
    core: Core,
    seconds: u64,
    read_to: u64,
}

impl Reader {
    fn new() -> Self {
        let identity = Identity { node: node(0), charter: CONTEXT.charter().clone(), nkey: node_key(0) };
        let known = StreamEntry { ceremony: None, seq: 1, payload: Vec::new() }.mark();
        let remembered = Remembered {
            book: Book::new(CONTEXT.clone()),
            shelf: (0..LINES).map(line).collect(),
            ballots: BTreeMap::new(),
            aside: Vec::new(),
            read_to: Some(known),
        };
        let pace = Pace { vault_check_ms: None, shelve_after_ms: 1000, recheck_ms: u64::MAX };
        let core = Core::new(identity, remembered, pace, Now { wall: BEGIN, steady: 1 });
        let mut reader = Self { core, seconds: 0, read_to: 1 };
        let seen = StreamSeen { config: stream_config(1), first: 1, last: 1, has_mark: true };
        reader.recalls_for([
            Event::Connected,
            Event::StreamSeen(Ok(seen)),
            Event::StreamRead(Ok(Vec::new())),
        ]);
        reader
    }

    /// How many logs it recalls for this, in a second of its own. The store gives nothing back: each log that was asked
    /// for is found empty.
    fn recalls_for(&mut self, events: impl IntoIterator<Item = Event>) -> usize {
        self.seconds += 2;
        let passed = i64::try_from(self.seconds * 1000).unwrap();
        let now = Now { wall: UnixMillis(BEGIN.0 + passed), steady: 1 + self.seconds * 1000 };
        let mut events: VecDeque<Event> = events.into_iter().collect();
        let mut recalled = 0;
        while let Some(event) = events.pop_front() {
            for effect in self.core.handle(now, event) {
                if let Effect::Store(ticket, op) = effect
                    && matches!(*op, StoreOp::Recall(_))
                {
                    recalled += 1;
                    events.push_front(Event::Stored(ticket, Ok(StoreReply::Log(Box::default()))));
                }
            }
        }
        recalled
    }

    /// How many logs it recalls when it hears this.
    fn recalls(&mut self, by: usize, key: &KeyPair, change: impl Fn(&mut Head)) -> usize {
        self.recalls_of(0..LINES, by, key, change)
    }

    fn recalls_of(
        &mut self,
        lines: Range<usize>,
        by: usize,
        key: &KeyPair,
        change: impl Fn(&mut Head),
    ) -> usize {
        let lines: Vec<Shelved> = lines.map(line).collect();
        let heads = |lines: &[Shelved]| lines.iter().map(|line| head(line, by, key, &change)).collect();
        let news: Vec<record::News> =
            lines.chunks(64).map(|lines| record::News { heads: heads(lines) }).collect();
        self.recalls_for(news.into_iter().map(|news| Event::Heads(news.encode_to_vec())))
    }

    /// How many logs it recalls when another node asks for all of them.
    fn recalls_when_asked(&mut self, by: usize, from_seq: u64) -> usize {
        let ask = |number| {
            let ask = record::Ask { ceremony: line(number).ceremony.to_string(), from_seq };
            let kind = Some(to_peer::Kind::Ask(ask));
            Event::FromPeer(node(by), record::ToPeer { version: VERSION, kind }.encode_to_vec())
        };
        self.recalls_for((0..60).map(ask))
    }

    /// How many logs it recalls for messages of the stream.
    fn recalls_for_messages(&mut self, entries: impl IntoIterator<Item = Entry>) -> usize {
        let mut batch = Vec::new();
        for entry in entries {
            self.read_to += 1;
            let (ceremony, payload) = (Some(entry.ceremony.clone()), entry.encode());
            batch.push(StreamEntry { ceremony, seq: self.read_to, payload });
        }
        self.recalls_for([Event::Tick, Event::StreamRead(Ok(batch))])
    }
}

#[test]
fn whoever_says_the_same_has_nothing_recalled() {
    let mut reader = Reader::new();
    assert_eq!(reader.recalls(1, &node_key(1), |_| {}), 0);
    assert_eq!(reader.recalls(1, &node_key(1), |head| head.round = 1), 0);
    assert_eq!(reader.recalls(1, &node_key(1), |head| head.lock = None), 0);
}

#[test]
fn strangers_word_has_nothing_recalled() {
    let mut reader = Reader::new();
    assert_eq!(reader.recalls(1, &node_key(2), |head| head.tip.seq = 10), 0);
    assert_eq!(reader.recalls(1, &KeyPair::new_user(), |head| head.tip.seq = 10), 0);
}

#[test]
fn one_nodes_word_has_no_more_than_some_logs_recalled_whatever_it_says_and_how_often() {
    let mut reader = Reader::new();
    let mut recalled = 0;
    for second in 0..LINES {
        let now = match second % 4 {
            0 => reader.recalls(1, &node_key(1), |head| head.tip.hash = Hash::of_bytes(b"another")),
            1 => reader.recalls(1, &node_key(1), |head| head.tip.seq = 10),
            2 => reader.recalls(1, &node_key(1), |head| head.round = 3),
            _ => reader.recalls(1, &node_key(1), |head| head.votes = false),
        };
        assert!(now <= A_SECOND, "{now} logs are recalled in one second");
        recalled += now;
    }
    assert!((1..=64).contains(&recalled), "{recalled} logs are recalled");
    let other = reader.recalls_of(200..LINES, 2, &node_key(2), |head| head.tip.seq = 8);
    assert_eq!(other, A_SECOND, "another node is heard all the same");
}

#[test]
fn asking_for_finished_logs_has_only_some_recalled_in_a_second() {
    let mut reader = Reader::new();
    assert_eq!(
        reader.recalls_when_asked(1, 10),
        0,
        "whoever asks for what follows the end gets the line's head"
    );
    assert_eq!(reader.recalls_when_asked(1, 1), A_SECOND);
    assert_eq!(reader.recalls_when_asked(2, 1), A_SECOND, "another node is answered all the same");
}

#[test]
fn what_the_stream_repeats_of_finished_logs_has_only_some_recalled_in_a_second() {
    let mut reader = Reader::new();
    let copies = (0..LINES).map(|number| something_in(&line(number), number % 5));
    assert_eq!(reader.recalls_for_messages(copies), A_SECOND);
}

#[test]
fn openings_by_strangers_have_no_log_recalled() {
    let mut reader = Reader::new();
    let stranger = KeyPair::new_user();
    assert_eq!(reader.recalls_for_messages([opening_on(&line(1), 1, &stranger)]), 0);
    assert_eq!(reader.recalls_for_messages([opening_on(&line(1), 1, &node_key(1))]), 1);
}
