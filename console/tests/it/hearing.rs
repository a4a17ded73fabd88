//! Who is silent: one node, all of them, the bus, or nobody yet.

use std::time::Duration;

use ceremonies::ids::{NodeIndex, UnixMillis};
use ceremonies::wire::bus::Heartbeat;
use console::checks::Check;
use console::client::News;
use console::health::{Health, Hearing, Level, Moment, NodeStatus};
use console::readiness::Share;
use console::tui::Model;
use proptest::prelude::*;

use crate::model;

/// A console that listens from a moment on, in milliseconds of its own clock.
struct Listening {
    model: Model,
    zero: Moment,
    hearing: Hearing,
}

impl Listening {
    fn begin() -> Self {
        let model = model(56);
        let zero = model.moment();
        let mut hearing = Hearing::begin(zero);
        hearing.has_bus(true, zero);
        Self { model, zero, hearing }
    }

    fn at(&self, ms: u64) -> Moment {
        let wall = self.zero.wall.plus(i64::try_from(ms).unwrap());
        Moment { wall, steady: self.zero.steady + Duration::from_millis(ms) }
    }

    /// These nodes send a heartbeat.
    fn beat(&mut self, ms: u64, nodes: &[u32]) {
        let now = self.at(ms);
        for node in nodes {
            let context = &self.model.cluster.context;
            let charter = context.charter().hash().as_bytes().to_vec();
            let beat = Heartbeat { node: *node, time_ms: now.wall.0, charter, ..Heartbeat::default() };
            self.hearing.hear(context, News::Health(Box::new(beat)), now);
        }
    }

    /// These nodes send one every second, from one second to another.
    fn beats(&mut self, from_s: u64, to_s: u64, nodes: &[u32]) {
        for second in from_s..=to_s {
            self.beat(second * 1000, nodes);
        }
    }

    fn health(&self, ms: u64) -> Health {
        self.hearing.health(&self.model.book, true, self.at(ms))
    }

    fn node(&self, ms: u64, node: usize) -> NodeStatus {
        self.health(ms).nodes.swap_remove(node - 1)
    }

    fn shares(&self, ms: u64) -> Vec<Share> {
        self.health(ms).wallets[0].shares.values().copied().collect()
    }
}

const ALL: &[u32] = &[1, 2, 3, 4, 5];

fn is_silent(status: &NodeStatus) -> bool {
    matches!(status.check, Some(Check::Silent | Check::Unheard | Check::Backdated))
}

#[test]
fn node_that_stops_is_silent_alone_as_soon_as_others_were_heard_for_as_long() {
    let mut console = Listening::begin();
    console.beats(1, 3, ALL);
    console.beats(4, 9, &[1, 2, 4, 5]);
    let third = console.node(9_000, 3);
    assert_eq!((third.level, third.check), (Level::Bad, Some(Check::Silent)));
    assert_eq!(third.summary, "not heard from for 6 s");
    assert_eq!(console.health(9_000).nodes.iter().filter(|status| is_silent(status)).count(), 1);
    assert_eq!(console.shares(9_000)[2], Share::Silent);
}

#[test]
fn node_whose_heartbeats_are_dated_in_the_past_is_not_called_silent() {
    let mut console = Listening::begin();
    console.beats(1, 3, ALL);
    for second in 4..=9 {
        console.beat(second * 1000, &[1, 2, 4, 5]);
        let now = console.at(second * 1000);
        let third = NodeIndex::new(3).unwrap();
        console.hearing.hear(&console.model.cluster.context, News::Backdated(third), now);
    }
    assert_eq!(console.node(9_000, 3).check, Some(Check::Backdated));
    assert_eq!(console.shares(9_000)[2], Share::Backdated);
    let said = console.health(9_000).wallets[0].text();
    assert!(said.contains("; node 3 sends heartbeats dated in the past"), "{said}");
    assert!(!said.contains("silent"), "{said}");
}

#[test]
fn node_that_misses_three_heartbeats_is_not_green_though_it_is_too_soon_to_call_it_silent() {
    let mut console = Listening::begin();
    console.beats(1, 3, ALL);
    console.beats(4, 7, &[1, 2, 4, 5]);
    for (ms, level) in [(5_900, None), (6_001, Some(Level::Unknown)), (8_000, Some(Level::Unknown))] {
        let third = console.node(ms, 3);
        assert_eq!(third.level == Level::Unknown, level.is_some(), "{ms}: {third:?}");
        assert!(
            level.is_none() || third.summary.contains("too soon to say whether it is silent"),
            "{third:?}"
        );
        assert_eq!(console.shares(ms)[2] == Share::Unknown && level.is_some(), level.is_some(), "{ms}");
    }
}

#[test]
fn console_that_began_to_listen_later_says_the_same_of_a_silent_node_after_five_seconds() {
    let (mut earlier, mut later) = (Listening::begin(), Listening::begin());
    earlier.beats(1, 20, ALL);
    earlier.beats(21, 40, &[1, 2]);
    later.beats(1, 6, &[1, 2]);
    assert_eq!(earlier.shares(40_000), later.shares(6_000));
    let answers = [earlier.health(40_000), later.health(6_000)].map(|health| health.wallets[0].can_sign);
    assert_eq!(answers[0], answers[1]);
    assert_eq!(later.node(6_000, 4).check, Some(Check::Unheard));
    assert_eq!(later.node(6_000, 4).level, Level::Bad);
}

#[test]
fn node_that_was_not_heard_yet_is_not_accused_before_five_seconds_were_listened() {
    let mut console = Listening::begin();
    console.beats(1, 4, &[1]);
    let second = console.node(4_000, 2);
    assert_eq!((second.level, second.check), (Level::Unknown, None));
    assert_eq!(second.summary, "not heard yet since this console listens");
    assert_eq!(console.shares(4_000)[1], Share::Unknown);
}

#[test]
fn broker_that_falls_silent_makes_all_nodes_unknown_and_none_silent() {
    let mut console = Listening::begin();
    console.beats(1, 8, ALL);
    // The last heartbeats before came one after another.
    for (node, ms) in [(1, 8_100), (2, 8_300), (3, 8_500), (4, 8_700), (5, 8_900)] {
        console.beat(ms, &[node]);
    }
    for ms in (9_000..30_000).step_by(100) {
        let health = console.health(ms);
        assert!(!health.nodes.iter().any(is_silent), "{ms}: {health:#?}");
        if ms > 13_900 {
            assert!(health.nodes.iter().all(|status| status.check == Some(Check::AllSilent)), "{ms}");
        }
    }
}

#[test]
fn nodes_that_come_back_one_by_one_after_a_silence_of_all_are_given_time() {
    for reconnects in [true, false] {
        let mut console = Listening::begin();
        console.beats(1, 5, ALL);
        if reconnects {
            console.hearing.has_bus(false, console.at(6_000));
            console.hearing.has_bus(true, console.at(30_000));
        }
        console.beats(30, 34, &[1]);
        assert!(!console.health(34_000).nodes.iter().any(is_silent));
        assert_eq!(console.node(34_000, 2).level, Level::Unknown);
        console.beats(35, 36, &[1]);
        assert_eq!(console.node(36_000, 2).check, Some(Check::Silent), "and no longer than that");
    }
}

#[test]
fn without_a_bus_nothing_is_known_whatever_was_heard() {
    let mut console = Listening::begin();
    console.beats(1, 5, ALL);
    let health = console.hearing.health(&console.model.book, false, console.at(5_100));
    assert!(health.nodes.iter().all(|status| status.check == Some(Check::NoBus)));
    assert!(health.wallets[0].shares.values().all(|share| *share == Share::Unknown));
}

#[test]
fn no_node_is_said_to_have_shown_nothing_where_none_can_be_heard() {
    let mut console = Listening::begin();
    console.beats(1, 5, ALL);
    let health = |is_connected, ms| console.hearing.health(&console.model.book, is_connected, console.at(ms));
    for (health, why) in
        [(health(false, 5_100), "the bus cannot be reached"), (health(true, 60_000), "no node is heard")]
    {
        let wallet = &health.wallets[0];
        assert_eq!(wallet.text(), format!("not known whether it can sign: {why}"));
        assert!(!health.nodes.iter().any(|status| status.summary.contains("not shown")), "{health:#?}");
    }
    assert!(health(true, 5_100).wallets[0].text().contains("of 5 shares, 3 needed"), "they are heard again");
}

#[test]
fn console_that_was_paused_accuses_no_node_until_it_has_listened_again() {
    for paused_s in [4, 180, 86_400] {
        let mut console = Listening::begin();
        for second in 1..=5 {
            console.hearing.runs(console.at(second * 1000));
            console.beat(second * 1000, ALL);
        }
        let woken = (5 + paused_s) * 1000;
        console.hearing.runs(console.at(woken));
        // Of what waited meanwhile, little is left; then each node is heard again in its own time, but for one.
        console.beat(woken, &[1]);
        for ms in (woken..woken + 5_000).step_by(250) {
            console.hearing.runs(console.at(ms));
            let health = console.health(ms);
            for status in &health.nodes {
                assert_eq!((status.level, status.check), (Level::Unknown, Some(Check::Paused)), "{paused_s}");
                assert!(status.summary.contains("this console stood still"), "{}", status.summary);
            }
            assert!(health.wallets[0].text().contains("this console stood still"), "{health:#?}");
            if ms % 1000 == 0 {
                console.beat(ms, &[1, 2, 4, 5]);
            }
        }
        console.hearing.runs(console.at(woken + 5_000));
        console.beat(woken + 5_500, &[1, 2, 4, 5]);
        let silent: Vec<_> =
            console.health(woken + 5_501).nodes.into_iter().map(|node| is_silent(&node)).collect();
        assert_eq!(silent, [false, false, true, false, false], "it has been silent since");
    }
}

#[test]
fn console_that_looks_now_and_then_only_was_not_paused() {
    let mut console = Listening::begin();
    console.beats(1, 5, ALL);
    console.hearing.begins_again(console.at(60_000));
    console.beat(60_100, ALL);
    console.hearing.runs(console.at(60_200));
    assert!(console.health(60_200).nodes.iter().all(|status| status.check != Some(Check::Paused)));
}

proptest! {
    #[test]
    fn what_is_older_than_three_seconds_is_never_good(
        beats in proptest::collection::vec((0..20_000u64, 1..6u32), 0..60),
        at in 0..40_000u64,
    ) {
        let mut console = Listening::begin();
        let mut beats: Vec<_> = beats.into_iter().filter(|(ms, _)| *ms <= at).collect();
        beats.sort_unstable();
        for (ms, node) in &beats {
            console.beat(*ms, &[*node]);
        }
        for status in console.health(at).nodes {
            let last = beats.iter().filter(|(_, node)| *node == u32::from(status.node)).map(|(ms, _)| *ms).max();
            let is_fresh = last.is_some_and(|ms| at - ms <= 3_000);
            prop_assert!(is_fresh || status.level <= Level::Unknown, "{status:?}");
        }
    }
}

#[test]
fn time_at_which_a_node_was_last_heard_is_that_of_its_latest_heartbeat() {
    let mut console = Listening::begin();
    assert_eq!(console.hearing.last(), None);
    console.beats(1, 3, &[4]);
    assert_eq!(console.hearing.last().map(|last| last.wall), Some(UnixMillis(console.zero.wall.0 + 3_000)));
    assert!(console.hearing.has_heard(&[NodeIndex::new(4).unwrap()]));
    assert!(!console.hearing.has_heard(&[NodeIndex::new(4).unwrap(), NodeIndex::new(5).unwrap()]));
}
