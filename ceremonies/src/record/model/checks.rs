//! The checks: what the two-step vote keeps in every order of events, and that each of its rules is needed.
//!
//! No search here is limited in states or time, for a limit would end it as if it were complete.

use stateright::{Checker, HasDiscoveries, Model as _};

use super::properties::{AGREED, HEALED, MENDED, ONE_VOTE, RECORDED, RECORDED_LATER, RELEASED, STAYS};
use super::state::{Entry, State};
use super::steps::{Quorum, Steps};
use super::{Broken, Vote};

/// Entries that contest one place, or two, each with the one before it.
type Fork = &'static [Option<u8>];

const TWO: Fork = &[None, None];
const THREE: Fork = &[None, None, None];
const TWO_AFTER_ONE: Fork = &[None, Some(0), Some(0)];
const TWO_PLACES: Fork = &[None, None, Some(0), Some(0)];

/// Three honest nodes and a hostile one.
fn vote(fork: Fork, rounds: u8) -> Vote {
    Vote { steps: Steps::new(fork, 4, 1, Quorum::AsItIs), honest: 3, rounds, begun: None, broken: None }
}

/// Searches everything that can happen, and finds every promise kept and every one of these reached.
fn assert_kept(model: Vote, reached: &[&'static str]) {
    let checker = model.checker().symmetry_fn(State::renumbered).spawn_dfs().join();
    assert!(checker.is_done());
    println!("{} states", checker.unique_state_count());
    for promise in [AGREED, STAYS, ONE_VOTE, MENDED] {
        checker.assert_no_discovery(promise);
    }
    for name in reached {
        checker.assert_any_discovery(name);
    }
}

fn assert_broken(model: Vote, promise: &'static str) {
    let search = model.checker().symmetry_fn(State::renumbered);
    search
        .finish_when(HasDiscoveries::AnyOf([promise].into()))
        .spawn_dfs()
        .join()
        .assert_any_discovery(promise);
}

const EVERYTHING: [&str; 4] = [RECORDED, RECORDED_LATER, RELEASED, HEALED];

#[test]
fn two_entries_at_one_place_keep_the_promises_for_three_rounds() {
    assert_kept(vote(TWO, 3), &EVERYTHING);
}

#[test]
fn three_entries_at_one_place_keep_the_promises_for_three_rounds() {
    assert_kept(vote(THREE, 3), &EVERYTHING);
}

#[test]
fn two_contested_places_keep_the_promises_for_two_rounds() {
    assert_kept(vote(TWO_PLACES, 2), &EVERYTHING);
}

#[test]
fn two_branches_of_a_shared_beginning_keep_the_promises_for_two_rounds() {
    assert_kept(vote(TWO_AFTER_ONE, 2), &EVERYTHING);
}

#[test]
fn two_branches_of_a_locked_beginning_keep_the_promises_for_three_rounds() {
    assert_kept(Vote { begun: Some(Entry(0)), ..vote(TWO_AFTER_ONE, 3) }, &EVERYTHING);
}

#[test]
fn five_nodes_keep_the_promises_for_two_rounds() {
    let steps = Steps::new(TWO, 5, 1, Quorum::AsItIs);
    assert_kept(Vote { steps, honest: 4, ..vote(TWO, 2) }, &EVERYTHING);
}

#[test]
fn a_fork_of_two_to_one_is_healed_and_recorded_while_the_hostile_node_is_silent() {
    let steps = Steps::new(TWO, 4, 0, Quorum::AsItIs);
    assert_kept(Vote { steps, ..vote(TWO, 2) }, &[RECORDED, RECORDED_LATER, HEALED]);
}

#[test]
fn votes_counted_as_receipts_let_two_entries_be_recorded() {
    assert_broken(Vote { broken: Some(Broken::OneStep), ..vote(TWO, 2) }, AGREED);
}

#[test]
fn votes_without_the_lock_let_two_entries_be_recorded() {
    assert_broken(Vote { broken: Some(Broken::VotesWithoutLock), ..vote(TWO, 2) }, AGREED);
}

#[test]
fn a_later_lock_on_less_of_a_branch_lets_two_entries_be_recorded_when_it_wins() {
    let model = Vote { begun: Some(Entry(0)), ..vote(TWO_AFTER_ONE, 2) };
    assert_broken(Vote { broken: Some(Broken::LaterLockWins), ..model }, AGREED);
}

#[test]
fn a_quorum_of_one_less_lets_two_entries_be_recorded() {
    assert_broken(Vote { steps: Steps::new(TWO, 4, 1, Quorum::AnyTwo), ..vote(TWO, 1) }, AGREED);
}

#[test]
fn a_node_that_forgets_its_ballot_votes_twice() {
    assert_broken(Vote { broken: Some(Broken::ForgetsBallot), ..vote(TWO, 2) }, ONE_VOTE);
}

#[test]
fn a_node_that_forgets_its_ballot_lets_two_entries_be_recorded() {
    assert_broken(Vote { broken: Some(Broken::ForgetsBallot), ..vote(TWO, 2) }, AGREED);
}

#[test]
fn two_hostile_nodes_let_two_entries_be_recorded() {
    let steps = Steps::new(TWO, 4, 2, Quorum::AsItIs);
    assert_broken(Vote { steps, honest: 2, ..vote(TWO, 1) }, AGREED);
}
