//! A cluster of five nodes that answer in this process, each as its test wants it to.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks at the variants that it is about")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod catalogue;
mod forged;
mod hearing;
mod reading;
mod submitting;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ceremonies::attestation::TrustRoot;
use ceremonies::ceremony::Context;
use ceremonies::charter::Charter;
use ceremonies::ids::{CeremonyId, Hash, NodeIndex, UnixMillis};
use ceremonies::log::{Entry, EntryError, Event, Place};
use ceremonies::record::{Head, Lock, SignedHead, Tip};
use ceremonies::said::{self, Topic};
use ceremonies::wire::record::HeadNews;
use ceremonies::wire::{VERSION, bus, log};
use nkeys::KeyPair;
use prost::Message;

use super::branches::Branches;
use super::failover::Pace;
use super::heads::Heads;
use super::submitting::Patience;
use super::{Bus, Nodes, Trouble, Voices};
use crate::memory::Memory;

/// Short, so that silence is noticed soon.
const QUICK: Patience = Patience {
    hand: Duration::from_millis(60),
    answer: Duration::from_millis(150),
    look: Pace { patience: Duration::from_millis(60), limit: Duration::from_millis(100) },
    limit: Duration::from_millis(900),
};

struct Keys {
    nodes: BTreeMap<NodeIndex, KeyPair>,
    charter: Arc<Charter>,
    root: Arc<TrustRoot>,
}

/// The charter of the recorded cluster, with nodes whose keys are at hand.
static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let data = |name: &str| {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
    };
    let mut draft = Charter::parse(&data("charter.toml")).unwrap().draft();
    let mut nodes = BTreeMap::new();
    for node in &mut draft.nodes {
        let key = KeyPair::new_user();
        node.nkey = key.public_key();
        nodes.insert(node.index, key);
    }
    Keys {
        nodes,
        charter: Arc::new(Charter::parse(draft.to_toml().unwrap().as_bytes()).unwrap()),
        root: Arc::new(TrustRoot::from_pem(&data("root.pem")).unwrap()),
    }
});

fn node(index: u8) -> NodeIndex {
    NodeIndex::new(index).unwrap()
}

fn id() -> CeremonyId {
    "dkg-w-1".parse().unwrap()
}

fn voices() -> Voices {
    Voices::new(Arc::clone(&KEYS.charter), None)
}

fn sign(by: u8, bytes: &[u8]) -> Result<Vec<u8>, nkeys::error::Error> {
    KEYS.nodes[&node(by)].sign(bytes)
}

/// Something that a person might sign, identified by its reason.
fn event(reason: &str) -> log::Event {
    let withdrawn = log::Withdrawn {
        person: "operator-1".to_owned(),
        role: "operator".to_owned(),
        reason: reason.to_owned(),
        signature: reason.as_bytes().to_vec(),
    };
    log::Event { kind: Some(log::event::Kind::Withdrawn(withdrawn)) }
}

fn parsed(reason: &str) -> Event {
    Event::try_from(event(reason)).unwrap()
}

/// The log with one more entry, appended by this node.
fn grown(log: &[Entry], by: u8, reason: &str) -> Vec<Entry> {
    grown_at(UnixMillis(1_800_000_000_000), log, by, reason)
}

/// The same at another time.
fn grown_at(time: UnixMillis, log: &[Entry], by: u8, reason: &str) -> Vec<Entry> {
    grown_in(&id(), time, log, by, reason)
}

/// The same in any ceremony.
fn grown_in(ceremony: &CeremonyId, time: UnixMillis, log: &[Entry], by: u8, reason: &str) -> Vec<Entry> {
    let place = Place {
        ceremony: ceremony.clone(),
        seq: log.len() as u64 + 1,
        prev: log.last().map_or(Hash::ZERO, Entry::hash),
        time,
        node: node(by),
    };
    let entry = Entry::create(place, event(reason), |bytes| Ok::<_, EntryError>(sign(by, bytes).unwrap()));
    log.iter().cloned().chain([entry.unwrap()]).collect()
}

/// A log of so many entries.
fn log_of(entries: usize) -> Vec<Entry> {
    (1..=entries).fold(Vec::new(), |log, number| grown(&log, 1, &format!("reason {number}")))
}

/// The same in another ceremony.
fn log_in(ceremony: &CeremonyId, entries: usize) -> Vec<Entry> {
    let time = UnixMillis(1_800_000_000_000);
    (1..=entries)
        .fold(Vec::new(), |log, number| grown_in(ceremony, time, &log, 1, &format!("reason {number}")))
}

fn other_id() -> CeremonyId {
    "dkg-w-2".parse().unwrap()
}

fn tip(log: &[Entry]) -> Tip {
    log.last().map_or(Tip::ROOT, |entry| Tip { seq: entry.seq, hash: entry.hash() })
}

fn head_by(key: u8, head: Head) -> HeadNews {
    let head = SignedHead::create(head, |bytes| sign(key, bytes)).unwrap();
    HeadNews { head: Some(head.raw().clone()), proof: Vec::new() }
}

/// A node's head at the end of this log, locked on the end of that one.
fn head(by: u8, log: &[Entry], locked: &[Entry]) -> HeadNews {
    head_in(&id(), by, log, locked)
}

/// The same in any ceremony.
fn head_in(ceremony: &CeremonyId, by: u8, log: &[Entry], locked: &[Entry]) -> HeadNews {
    head_by(by, claim(ceremony, by, log, locked))
}

/// What a head says.
fn claim(ceremony: &CeremonyId, of: u8, log: &[Entry], locked: &[Entry]) -> Head {
    Head {
        cluster: KEYS.charter.cluster().clone(),
        ceremony: ceremony.clone(),
        node: node(of),
        round: 0,
        votes: true,
        tip: tip(log),
        lock: (!locked.is_empty()).then(|| Lock { round: 0, tip: tip(locked) }),
        time: UnixMillis(0),
    }
}

/// Heads that nodes gave themselves.
fn own_heads(heads: &[(u8, HeadNews)]) -> Heads {
    let mut all = Heads::default();
    for (by, head) in heads {
        all.take(&voices(), &id(), node(*by), vec![head.clone()]);
    }
    all
}

/// How a node behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Honest,
    /// Takes questions and never answers.
    Silent,
    /// Is not on the bus.
    Absent,
    /// Says that it accepted every event, but keeps none.
    Liar,
    /// Refuses every event.
    Refuses,
    /// Appends what it is given to a log of its own.
    Forks,
    /// Signs with a key that nobody knows.
    Stranger,
    /// Answers with what node 1 signs.
    Another,
    /// Never comes to an end.
    Endless,
    /// Answers every question as it answered the first of its kind, whoever asked that.
    Replays,
    /// Answers with another ceremony.
    Elsewhere,
    /// Answers questions of one kind as if they were of another.
    Confuses,
    /// Answers with heads in the names of others besides.
    Borrows,
}

#[derive(Default)]
struct World {
    ways: BTreeMap<NodeIndex, Way>,
    /// The log of all honest nodes.
    log: Vec<Entry>,
    /// How many of its entries honest nodes are locked on.
    locked: usize,
    /// Whether honest nodes lock what they accept.
    locks: bool,
    private: BTreeMap<NodeIndex, Vec<Entry>>,
    /// The first answers of nodes, by the kind of the question.
    first: BTreeMap<(NodeIndex, String), Bytes>,
    /// The heads that a node borrows.
    borrowed: Vec<HeadNews>,
    /// What every node lists, latest first.
    listed: Vec<CeremonyId>,
    /// Who was handed an event.
    handed: Vec<NodeIndex>,
    asked: usize,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<World>>);

impl Fake {
    fn new(log: Vec<Entry>, ways: &[(u8, Way)]) -> Self {
        let ways = ways.iter().map(|(index, way)| (node(*index), *way)).collect();
        let locked = log.len();
        Self(Arc::new(Mutex::new(World { ways, log, locked, locks: true, ..World::default() })))
    }

    fn world<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    fn nodes(&self) -> Nodes<Fake> {
        let context = Context::new(Arc::clone(&KEYS.charter), Arc::clone(&KEYS.root)).unwrap();
        Nodes::new(self.clone(), context, Memory::default())
    }
}

impl World {
    fn way(&self, node: NodeIndex) -> Way {
        self.ways.get(&node).copied().unwrap_or(Way::Honest)
    }

    fn submit(&mut self, at: NodeIndex, submit: bus::Submit) -> bus::SubmitReply {
        use bus::submit_reply::Outcome;
        self.handed.push(at);
        let event = submit.event.unwrap();
        let wanted = Event::try_from(event.clone()).unwrap();
        let Some(log::event::Kind::Withdrawn(withdrawn)) = event.kind else {
            panic!("not what is handed in")
        };
        let log = if self.way(at) == Way::Forks {
            self.private.entry(at).or_insert_with(|| self.log.clone())
        } else {
            &mut self.log
        };
        let outcome = match self.ways.get(&at).copied().unwrap_or(Way::Honest) {
            Way::Liar => Outcome::Seq(6),
            Way::Refuses => Outcome::Rejection("not \u{7} this one".to_owned()),
            _ if log.iter().any(|entry| entry.event == wanted) => {
                Outcome::Rejection("is signed already".to_owned())
            }
            _ => {
                *log = grown(log, at.get(), &withdrawn.reason);
                Outcome::Seq(log.len() as u64)
            }
        };
        if self.locks && self.way(at) != Way::Forks {
            self.locked = self.log.len();
        }
        bus::SubmitReply { outcome: Some(outcome) }
    }

    fn list(&self, at: NodeIndex, list: &bus::List) -> bus::ListReply {
        let summary = |id: String| bus::Summary {
            ceremony: id,
            last_seq: 1,
            last_hash: Hash::ZERO.as_bytes().to_vec(),
            kind: "dkg".to_owned(),
            ..Default::default()
        };
        if self.way(at) == Way::Endless {
            let begun: usize = list.after.trim_start_matches("dkg-x-").parse().unwrap_or(0);
            let made_up = (begun + 1..=begun + 5_000).map(|number| summary(format!("dkg-x-{number}")));
            return bus::ListReply { summaries: made_up.collect(), more: true, left: 0 };
        }
        let skip = self.listed.iter().position(|id| id.as_str() == list.after).map_or(0, |at| at + 1);
        let page = self.listed.iter().skip(skip).take(2);
        bus::ListReply {
            summaries: page.map(|id| summary(id.to_string())).collect(),
            more: self.listed.len() > skip + 2,
            left: 0,
        }
    }

    fn read(&self, at: NodeIndex, read: &bus::Read) -> bus::ReadReply {
        let log = self.private.get(&at).unwrap_or(&self.log);
        if log.is_empty() {
            return bus::ReadReply { refusal: "no such ceremony".to_owned(), ..Default::default() };
        }
        if self.way(at) == Way::Elsewhere {
            let entries: Vec<Entry> = log_in(&other_id(), log.len());
            return bus::ReadReply {
                entries: entries.iter().map(|entry| entry.raw().clone()).collect(),
                last_seq: log.len() as u64,
                heads: vec![head_in(&other_id(), at.get(), &entries, &entries)],
                ..Default::default()
            };
        }
        // On a branch of its own a node may well say that it is locked on what nobody else has.
        let locked = self.locked.min(log.len());
        let skip = usize::try_from(read.from_seq).unwrap() - 1;
        // Pages of three, so that there are several.
        let entries = log.iter().skip(skip).take(3).map(|entry| entry.raw().clone()).collect();
        bus::ReadReply {
            entries,
            last_seq: if self.way(at) == Way::Endless { u64::MAX } else { log.len() as u64 },
            heads: [vec![head(at.get(), log, &log[..locked])], self.borrowed_by(at)].concat(),
            ..Default::default()
        }
    }

    fn borrowed_by(&self, at: NodeIndex) -> Vec<HeadNews> {
        if self.way(at) == Way::Borrows { self.borrowed.clone() } else { Vec::new() }
    }
}

impl Bus for Fake {
    async fn ask(&self, subject: String, request: Vec<u8>) -> Result<Bytes, Trouble> {
        let at = node(subject.rsplit('.').next().unwrap().parse().unwrap());
        let way = self.world(|world| {
            world.asked += 1;
            world.way(at)
        });
        match way {
            Way::Silent => std::future::pending().await,
            Way::Absent => return Err(Trouble::Absent),
            _ => {}
        }
        let body = self.world(|world| match subject.split('.').nth(1).unwrap() {
            "submit" => world.submit(at, bus::Submit::decode(request.as_slice()).unwrap()).encode_to_vec(),
            "read" => world.read(at, &bus::Read::decode(request.as_slice()).unwrap()).encode_to_vec(),
            "list" => world.list(at, &bus::List::decode(request.as_slice()).unwrap()).encode_to_vec(),
            other => panic!("nobody is asked for {other}"),
        });
        let body = match subject.split('.').nth(1) {
            Some("submit") if way == Way::Confuses => {
                bus::ListReply { more: true, ..Default::default() }.encode_to_vec()
            }
            Some(_) if way == Way::Confuses => {
                bus::SubmitReply { outcome: Some(bus::submit_reply::Outcome::Seq(5)) }.encode_to_vec()
            }
            _ => body,
        };
        let signer = if way == Way::Another { 1 } else { at.get() };
        let sign = |bytes: &[u8]| {
            if way == Way::Stranger { KeyPair::new_user().sign(bytes) } else { sign(signer, bytes) }
        };
        let topic = Topic::answer_to(&subject, &request);
        let answer: Bytes =
            said::say(KEYS.charter.cluster(), topic, node(signer), body, sign).unwrap().into();
        if way == Way::Replays {
            let kind = subject.split('.').nth(1).unwrap().to_owned();
            return Ok(self.world(|world| world.first.entry((at, kind)).or_insert(answer).clone()));
        }
        Ok(answer)
    }
}

fn branches(main: &[Entry], others: &[&[Entry]]) -> Branches {
    let mut branches = Branches::new(id(), main);
    for other in others {
        for entry in *other {
            branches.add(entry.clone()).unwrap();
        }
    }
    branches
}

fn heartbeat(by: u8, time_ms: i64) -> bus::Heartbeat {
    bus::Heartbeat { version: VERSION, node: by.into(), time_ms, ..Default::default() }
}
