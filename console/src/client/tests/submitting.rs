//! Receipts: what nodes have signed decides, and never the word of one.

use ceremonies::record::Verdict;

use super::*;
use crate::client::SubmitError;
use crate::client::receipt::{Decision, Receipt, Reply, Tally};

async fn submitted(fake: &Fake) -> Result<Receipt, SubmitError> {
    let known = log_of(4);
    fake.nodes().submit_within(QUICK, &known, &id(), event("enough")).await
}

fn of_five(ways: &[(u8, Way)]) -> Fake {
    Fake::new(log_of(4), ways)
}

#[tokio::test]
async fn event_is_recorded_when_a_quorum_has_locked_it() {
    let fake = of_five(&[]);
    let receipt = submitted(&fake).await.unwrap();
    assert_eq!(receipt.to_string(), "entry 5, recorded by 5 of 5");
    assert_eq!(fake.world(|world| world.handed.len()), 1, "one node was enough");
    assert_eq!(fake.world(|world| world.log[4].event.clone()), parsed("enough"));
}

#[tokio::test]
async fn event_is_handed_to_others_when_the_first_nodes_do_nothing() {
    for way in [Way::Silent, Way::Absent, Way::Liar, Way::Stranger, Way::Another] {
        let fake = of_five(&[(2, way)]);
        for _ in 0..3 {
            fake.world(|world| {
                (world.log, world.locked) = (log_of(4), 4);
            });
            let receipt = submitted(&fake).await.unwrap();
            assert!(matches!(receipt.verdict, Verdict::Recorded { .. }), "{way:?}: {receipt}");
        }
    }
}

#[tokio::test]
async fn nodes_that_say_entry_six_and_keep_nothing_give_no_receipt() {
    let fake = of_five(&[1, 2, 3, 4, 5].map(|index| (index, Way::Liar)));
    let error = submitted(&fake).await.unwrap_err();
    let SubmitError::Unknown(outcome) = error else { panic!("{error}") };
    assert!(
        outcome.to_string().starts_with("outcome unknown, do not sign again: not in any node's log"),
        "{outcome}"
    );
}

#[tokio::test]
async fn entry_that_one_node_alone_shows_is_not_recorded() {
    let all_but = |forker: u8| {
        (1..=5).map(move |index| (index, if index == forker { Way::Forks } else { Way::Silent }))
    };
    let fake = of_five(&all_but(3).collect::<Vec<_>>());
    let SubmitError::Unknown(outcome) = submitted(&fake).await.unwrap_err() else { panic!("a receipt") };
    assert!(outcome.standing.contains("held by 1 of 5 (nodes 1, 2, 4, 5 silent or behind)"), "{outcome}");
}

#[tokio::test]
async fn private_fork_of_one_node_takes_no_event_away() {
    let fake = of_five(&[(1, Way::Forks)]);
    for _ in 0..5 {
        fake.world(|world| {
            (world.log, world.locked) = (log_of(4), 4);
            world.private.clear();
        });
        let receipt = submitted(&fake).await.unwrap();
        assert!(matches!(&receipt.verdict, Verdict::Recorded { by } if by.len() >= 4), "{receipt}");
    }
}

#[tokio::test]
async fn majority_while_all_others_are_silent_is_said_as_such() {
    let fake = of_five(&[(2, Way::Silent), (5, Way::Absent)]);
    fake.world(|world| world.locks = false);
    let receipt = submitted(&fake).await.unwrap();
    assert_eq!(receipt.to_string(), "entry 5, held by 3 of 5 (nodes 2, 5 silent)");
}

#[tokio::test]
async fn votes_without_locks_are_no_receipt_while_all_nodes_are_heard() {
    let fake = of_five(&[]);
    fake.world(|world| world.locks = false);
    // All five hold it, and none is silent: a majority, until the locks come.
    let receipt = submitted(&fake).await.unwrap();
    assert!(matches!(receipt.verdict, Verdict::Majority { .. }));
    assert!(!receipt.to_string().contains("recorded"), "{receipt}");
}

#[tokio::test]
async fn two_of_five_that_hold_it_are_no_majority() {
    let fake = of_five(&[(1, Way::Silent), (2, Way::Silent), (5, Way::Silent)]);
    let SubmitError::Unknown(outcome) = submitted(&fake).await.unwrap_err() else { panic!("a receipt") };
    assert!(outcome.standing.contains("entry 5, held by 2 of 5"), "{outcome}");
}

#[tokio::test]
async fn one_nodes_refusal_is_passed_over_when_others_take_it() {
    let fake = of_five(&[(1, Way::Refuses)]);
    for _ in 0..5 {
        fake.world(|world| {
            (world.log, world.locked) = (log_of(4), 4);
        });
        assert!(matches!(submitted(&fake).await.unwrap().verdict, Verdict::Recorded { .. }));
    }
}

#[tokio::test]
async fn two_nodes_refusals_are_a_refusal() {
    let fake = of_five(&[1, 2, 3, 4, 5].map(|index| (index, Way::Refuses)));
    let SubmitError::Refused(refusal) = submitted(&fake).await.unwrap_err() else { panic!("not refused") };
    assert!(refusal.by.len() >= 2, "{refusal}");
    assert!(refusal.to_string().contains("not this one"), "{refusal}");
}

#[tokio::test]
async fn event_that_is_in_the_log_already_is_recorded_and_not_refused() {
    let fake = Fake::new(grown(&log_of(4), 2, "enough"), &[]);
    let receipt = submitted(&fake).await.unwrap();
    assert_eq!((receipt.seq, receipt.to_string().as_str()), (5, "entry 5, recorded by 5 of 5"));
    assert_eq!(fake.world(|world| world.log.len()), 5);
}

#[tokio::test]
async fn nothing_is_known_when_nobody_is_on_the_bus() {
    let fake = of_five(&[1, 2, 3, 4, 5].map(|index| (index, Way::Absent)));
    let error = submitted(&fake).await.unwrap_err();
    // That nobody is there is the broker's word.
    assert!(
        matches!(&error, SubmitError::Unknown(outcome) if outcome.standing.contains("not on the bus")),
        "{error}"
    );
}

#[tokio::test]
async fn event_that_no_node_would_read_is_not_handed_in() {
    let fake = of_five(&[]);
    let known = log_of(4);
    let nothing = log::Event { kind: None };
    let error = fake.nodes().submit_within(QUICK, &known, &id(), nothing).await.unwrap_err();
    assert!(matches!(error, SubmitError::Event(_)));
    assert_eq!(fake.world(|world| world.asked), 0);
}

fn tally() -> Tally {
    Tally::new(id(), voices().nodes(), voices().members())
}

fn reject(tally: &mut Tally, nodes: &[u8]) {
    for index in nodes {
        tally.replied(node(*index), Reply::Rejected("no".to_owned()));
    }
}

#[test]
fn refusal_waits_until_nodes_were_read() {
    let (branches, heads) = (branches(&log_of(4), &[]), Heads::default());
    let mut tally = tally();
    reject(&mut tally, &[1, 2]);
    assert!(matches!(tally.decide(&branches, &[], &heads, false), Decision::Open));
    tally.read(&branches, &[], &heads);
    assert!(matches!(tally.decide(&branches, &[], &heads, false), Decision::Refused(_)));
    reject(&mut tally, &[3]);
    assert!(matches!(tally.decide(&branches, &[], &heads, false), Decision::Open), "read before the third");
}

#[test]
fn one_nodes_refusal_decides_nothing_whatever_the_others_do() {
    let (branches, heads) = (branches(&log_of(4), &[]), Heads::default());
    for reply in [
        // What they were sent may reach them later, whatever the broker says of them.
        (|| Reply::Unreached(Trouble::Silent(Duration::from_secs(1)))) as fn() -> Reply,
        || Reply::Unreached(Trouble::Absent),
        || Reply::Unreached(Trouble::NotConnected),
        || Reply::Taken,
        || Reply::Unknown("the store is full".to_owned()),
    ] {
        let mut tally = tally();
        reject(&mut tally, &[1]);
        for index in 2..=5 {
            tally.replied(node(index), reply());
        }
        tally.read(&branches, &[], &heads);
        for end in [false, true] {
            assert!(matches!(tally.decide(&branches, &[], &heads, end), Decision::Open));
        }
        assert!(tally.outcome(&branches, &[], &heads).to_string().contains("only node 1 refuses it: no"));
    }
}

#[test]
fn what_left_this_machine_once_was_not_unsent_whatever_became_of_the_bus() {
    let (branches, heads) = (branches(&log_of(4), &[]), Heads::default());
    let mut tally = tally();
    tally.replied(node(2), Reply::Unreached(Trouble::Absent));
    for index in 1..=5 {
        tally.replied(node(index), Reply::Unreached(Trouble::NotConnected));
        assert!(matches!(tally.decide(&branches, &[], &heads, false), Decision::Open));
    }
}

#[test]
fn nothing_was_sent_only_when_the_bus_was_never_reached() {
    let (branches, heads) = (branches(&log_of(4), &[]), Heads::default());
    let mut tally = tally();
    for index in 1..=5 {
        assert!(!matches!(tally.decide(&branches, &[], &heads, false), Decision::NotSent));
        tally.replied(node(index), Reply::Unreached(Trouble::NotConnected));
    }
    assert!(matches!(tally.decide(&branches, &[], &heads, false), Decision::NotSent));
    tally.replied(node(3), Reply::Unreached(Trouble::Absent));
    assert!(matches!(tally.decide(&branches, &[], &heads, true), Decision::Open));
}
