//! What a console makes of heartbeats whose enclaves attest: what is wrong, of whom, and for how long already.

use std::sync::Arc;
use std::time::Duration;

use ceremonies::attestation::{EnclaveKeys, heartbeat_nonce};
use ceremonies::book::Book;
use ceremonies::ceremony::Context;
use ceremonies::charter::Charter;
use ceremonies::ids::NodeIndex;
use ceremonies::wire::bus::{Heartbeat, PeerHealth};
use ciborium::Value;
use console::checks::Check;
use console::client::News;
use console::health::{Hearing, Level, Moment, NodeStatus};

use crate::data;
use crate::machine::{MACHINE, NOW};

/// The recorded cluster, but that the machine of these tests attests.
fn charter() -> Charter {
    let mut charter: toml::Table = std::fs::read_to_string(data("charter.toml")).unwrap().parse().unwrap();
    let attestation = charter["attestation"].as_table_mut().unwrap();
    attestation["root_sha256"] = MACHINE.root.fingerprint().to_string().into();
    let measurement = toml::Table::try_from(crate::machine::allowed()).unwrap();
    attestation["measurements"] = vec![measurement].into();
    Charter::parse(toml::to_string(&charter).unwrap().as_bytes()).unwrap()
}

/// A console that has listened from a moment on, in seconds.
struct Console {
    book: Book,
    zero: Moment,
    hearing: Hearing,
}

impl Console {
    fn begin() -> Self {
        let context = Context::new(Arc::new(charter()), Arc::new(MACHINE.root.clone())).unwrap();
        let zero = Moment { wall: NOW.plus(60_000), steady: Moment::now().steady };
        let mut hearing = Hearing::begin(zero);
        hearing.has_bus(true, zero);
        Self { book: Book::new(context), zero, hearing }
    }

    fn at(&self, second: u64) -> Moment {
        let wall = self.zero.wall.plus(i64::try_from(second).unwrap() * 1000);
        Moment { wall, steady: self.zero.steady + Duration::from_secs(second) }
    }

    /// What a node says that is well and hears all others.
    fn well(&self, second: u64, node: u32) -> Heartbeat {
        let charter = self.book.context().charter();
        let index = node.try_into().unwrap();
        let nonce = heartbeat_nonce(charter.cluster(), index);
        let keys = EnclaveKeys { identity: [1; 32], sealing: [2; 32] };
        let payload = MACHINE.payload(nonce.as_bytes(), self.zero.wall, &keys);
        Heartbeat {
            node,
            time_ms: self.at(second).wall.0,
            charter: charter.hash().as_bytes().to_vec(),
            enclave: Some(ceremonies::wire::bus::EnclaveHealth {
                document: MACHINE.sign(&Value::Map(payload)),
                ..Default::default()
            }),
            peers: (1..=5)
                .filter(|peer| *peer != node)
                .map(|node| PeerHealth { node, ..PeerHealth::default() })
                .collect(),
            ..Heartbeat::default()
        }
    }

    /// These nodes send a heartbeat in each of these seconds, with a word more.
    fn beats(
        &mut self,
        seconds: std::ops::RangeInclusive<u64>,
        nodes: &[u32],
        say: impl Fn(u64, &mut Heartbeat),
    ) {
        for second in seconds {
            for node in nodes {
                let mut beat = self.well(second, *node);
                say(second, &mut beat);
                let (context, now) = (self.book.context().clone(), self.at(second));
                self.hearing.hear(&context, News::Health(Box::new(beat)), now);
            }
        }
    }

    /// More comes in a node's name than a node may send.
    fn sends_too_much(&mut self, second: u64, node: u8) {
        let (context, now) = (self.book.context().clone(), self.at(second));
        self.hearing.hear(&context, News::Surplus(NodeIndex::new(node).unwrap()), now);
    }

    fn nodes(&self, second: u64) -> Vec<NodeStatus> {
        self.hearing.health(&self.book, true, self.at(second)).nodes
    }

    fn check(&self, second: u64, node: usize) -> Option<Check> {
        self.nodes(second)[node - 1].check
    }
}

const ALL: &[u32] = &[1, 2, 3, 4, 5];

#[test]
fn node_counts_no_peer_as_heard_that_this_console_calls_silent() {
    let mut console = Console::begin();
    console.beats(1..=3, ALL, |_, _| ());
    assert_eq!(console.nodes(3)[0].summary, "healthy, hears 4 peers");
    // The node says so for eight seconds.
    console.beats(4..=10, &[1, 2], |_, _| ());
    for node in console.nodes(10).iter().take(2) {
        assert_eq!((node.level, node.summary.as_str()), (Level::Good, "healthy, hears 1 peer"));
    }
}

#[test]
fn log_that_forks_for_a_moment_is_no_trouble_and_one_that_stays_so_is() {
    let mut console = Console::begin();
    console.beats(1..=3, ALL, |_, _| ());
    let forks = |second: u64, beat: &mut Heartbeat| {
        // Another one each time nodes have settled the one before.
        beat.forked =
            vec![format!("dkg-treasury-{:08}", second / 4), "dkg-ops-1 (elsewhere: node 2)".to_owned()];
        beat.forked.truncate(if second < 20 { 1 } else { 2 });
    };
    for second in 4..=25 {
        console.beats(second..=second, ALL, forks);
        assert!(console.nodes(second).iter().all(|node| node.level == Level::Good), "{second}");
    }
    console.beats(26..=27, ALL, forks);
    for node in console.nodes(27) {
        assert_eq!(node.check, Some(Check::Fork));
        assert_eq!(node.summary, "the log of dkg-ops-1 (elsewhere: node 2) forks");
    }
}

#[test]
fn node_that_is_about_to_follow_the_others_is_not_accused_and_one_that_never_does_is() {
    let mut console = Console::begin();
    console.beats(1..=3, ALL, |_, _| ());
    let accuse = |_, beat: &mut Heartbeat| beat.elsewhere = if beat.node < 3 { vec![5] } else { Vec::new() };
    console.beats(4..=8, ALL, accuse);
    assert_eq!(console.check(8, 5), None);
    console.beats(9..=9, ALL, |_, _| ());
    console.beats(10..=14, ALL, accuse);
    assert_eq!(console.check(14, 5), None, "it has followed them in between");
    console.beats(15..=16, ALL, accuse);
    assert_eq!(console.check(16, 5), Some(Check::Elsewhere));
    assert!((1..5).all(|node| console.check(16, node).is_none()));
}

#[test]
fn node_that_sends_too_much_is_named_alone_and_no_longer_once_it_stopped() {
    let mut console = Console::begin();
    console.beats(1..=3, ALL, |_, _| ());
    for second in 4..=20 {
        console.sends_too_much(second, 3);
        console.beats(second..=second, ALL, |_, _| ());
        assert_eq!(console.check(second, 3), Some(Check::Surplus), "{second}");
        assert_eq!(
            console.nodes(second)[2].summary,
            "sends more than a node may: the surplus is dropped unread"
        );
        assert!([1, 2, 4, 5].into_iter().all(|node| console.check(second, node).is_none()));
    }
    console.beats(21..=31, ALL, |_, _| ());
    assert_eq!(console.check(31, 3), None);
}

#[test]
fn what_waited_for_a_console_that_stood_still_accuses_nobody() {
    let mut console = Console::begin();
    console.beats(1..=3, ALL, |_, _| ());
    console.hearing.runs(console.at(3));
    console.hearing.runs(console.at(100));
    for node in 1..=5 {
        console.sends_too_much(100, node);
    }
    console.beats(100..=106, ALL, |_, _| ());
    assert!((1..=5).all(|node| console.check(106, node).is_none()), "{:?}", console.nodes(106));
}
