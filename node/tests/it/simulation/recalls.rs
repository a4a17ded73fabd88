//! How many finished logs one node's statements make others recall.

use std::collections::BTreeMap;
use std::ops::Range;

use ceremonies::book::Book;
use ceremonies::ceremony;
use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{Generation, Hash, UnixMillis};
use ceremonies::record::{Head, Lock, SignedHead, Tip};
use ceremonies::wire::record;
use nkeys::KeyPair;
use node::core::{Core, Effect, Event, Identity, Now, Pace, Remembered, Shelved, StoreOp};
use prost::Message as _;

use super::charter::{CONTEXT, node, node_key};
use super::world::BEGIN;

const LINES: usize = 300;

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

/// A node with nothing but lines, and the seconds since it was started.
struct Reader {
    core: Core,
    seconds: u64,
}

impl Reader {
    fn new() -> Self {
        let identity = Identity { node: node(0), charter: CONTEXT.charter().clone(), nkey: node_key(0) };
        let remembered = Remembered {
            book: Book::new(CONTEXT.clone()),
            shelf: (0..LINES).map(line).collect(),
            ballots: BTreeMap::new(),
            aside: Vec::new(),
            read_to: None,
        };
        let pace = Pace { vault_check_ms: None, shelve_after_ms: 1000, recheck_ms: 1000 };
        Self { core: Core::new(identity, remembered, pace, Now { wall: BEGIN, steady: 1 }), seconds: 0 }
    }

    /// How many logs it recalls when it hears this, in a second of its own.
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
        self.seconds += 2;
        let passed = i64::try_from(self.seconds * 1000).unwrap();
        let now = Now { wall: UnixMillis(BEGIN.0 + passed), steady: 1 + self.seconds * 1000 };
        let lines: Vec<Shelved> = lines.map(line).collect();
        let mut effects = Vec::new();
        for lines in lines.chunks(64) {
            let heads = lines.iter().map(|line| head(line, by, key, &change)).collect();
            effects.extend(self.core.handle(now, Event::Heads(record::News { heads }.encode_to_vec())));
        }
        let recall =
            |effect: &&Effect| matches!(effect, Effect::Store(_, op) if matches!(**op, StoreOp::Recall(_)));
        effects.iter().filter(recall).count()
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
    let first = reader.recalls(1, &node_key(1), |head| head.tip.hash = Hash::of_bytes(b"another"));
    assert!((1..=64).contains(&first), "{first} logs are recalled");
    assert_eq!(reader.recalls(1, &node_key(1), |head| head.tip.seq = 10), 0);
    assert_eq!(reader.recalls(1, &node_key(1), |head| head.round = 3), 0);
    assert_eq!(reader.recalls(1, &node_key(1), |head| head.votes = false), 0);
    let other = reader.recalls_of(200..LINES, 2, &node_key(2), |head| head.tip.seq = 8);
    assert!((1..=64).contains(&other), "another node is heard all the same: {other} logs are recalled");
}
