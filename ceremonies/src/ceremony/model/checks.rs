//! The checks: what the protocol keeps in every order of events, and that each of its rules is needed.
//!
//! No search here is limited in states or time, for a limit would end it as if it were complete.

use stateright::{Checker, HasDiscoveries, Model as _};

use super::fold::Fold;
use super::properties::{
    ADOPTED, DISCARDED, IN_SPITE_OF_A_FAULT, KEPT, NEVER_BOTH, NEVER_LOST, NEVER_UNDONE, OF_ONE_MIND,
    ONE_OUTCOME,
};
use super::state::{Outcome, State};
use super::{Broken, Commit};

const ANY: usize = usize::MAX;

fn commit(nodes: u8, troubles: usize) -> Commit {
    Commit { fold: Fold::new(nodes), nodes, outcomes: &[Outcome::Same], losses: 0, troubles, broken: None }
}

/// Searches everything that can happen, and finds every promise kept and every one of these reached.
fn assert_kept(model: Commit, reached: &[&'static str]) {
    let checker = model.checker().symmetry_fn(State::renumbered).spawn_dfs().join();
    assert!(checker.is_done());
    for promise in [NEVER_LOST, NEVER_UNDONE, NEVER_BOTH, ONE_OUTCOME, OF_ONE_MIND] {
        checker.assert_no_discovery(promise);
    }
    for name in reached {
        checker.assert_any_discovery(name);
    }
}

fn assert_broken(model: Commit, rule: Broken, promise: &'static str) {
    let model = Commit { broken: Some(rule), ..model };
    let search = model.checker().symmetry_fn(State::renumbered);
    search
        .finish_when(HasDiscoveries::AnyOf([promise].into()))
        .spawn_dfs()
        .join()
        .assert_any_discovery(promise);
}

const EVERYTHING: [&str; 4] = [ADOPTED, IN_SPITE_OF_A_FAULT, DISCARDED, KEPT];

#[test]
fn three_nodes_keep_the_promises_whatever_goes_wrong() {
    assert_kept(commit(3, ANY), &EVERYTHING);
}

#[test]
fn four_nodes_keep_the_promises_through_one_trouble() {
    assert_kept(commit(4, 1), &EVERYTHING);
}

#[test]
fn five_nodes_keep_the_promises_in_every_order_of_an_untroubled_commit() {
    assert_kept(commit(5, 0), &[ADOPTED]);
}

#[test]
fn three_nodes_whose_session_was_split_keep_the_promises_through_two_troubles() {
    let outcomes = &[Outcome::Same, Outcome::Other];
    assert_kept(Commit { outcomes, ..commit(3, 2) }, &EVERYTHING);
}

#[test]
fn a_split_session_alone_is_void_and_discarded() {
    let outcomes = &[Outcome::Same, Outcome::Other];
    assert_kept(Commit { outcomes, ..commit(4, 0) }, &[ADOPTED, DISCARDED]);
}

#[test]
fn three_nodes_keep_the_promises_when_the_broker_loses_an_acknowledged_entry() {
    assert_kept(Commit { losses: 1, ..commit(3, 2) }, &EVERYTHING);
}

#[test]
fn three_nodes_keep_the_promises_when_the_broker_loses_an_acknowledged_tail() {
    assert_kept(Commit { losses: 3, ..commit(3, 3) }, &EVERYTHING);
}

#[test]
fn an_enclave_that_takes_its_abort_back_says_both() {
    assert_broken(commit(3, 1), Broken::FirstWordStands, NEVER_BOTH);
}

#[test]
fn an_enclave_that_takes_its_abort_back_loses_shares_with_the_tail_of_a_log() {
    assert_broken(Commit { losses: 1, ..commit(3, 2) }, Broken::FirstWordStands, NEVER_LOST);
}

#[test]
fn discarding_without_proof_loses_shares() {
    assert_broken(commit(3, 0), Broken::OnlyProofDiscards, NEVER_LOST);
}

#[test]
fn a_commit_without_every_node_loses_shares() {
    assert_broken(commit(3, 1), Broken::AllNodesCommit, NEVER_LOST);
}

#[test]
fn a_word_before_its_share_is_stored_loses_shares() {
    assert_broken(commit(3, 0), Broken::StoredBeforePrepared, NEVER_LOST);
}
