//! What the commit protocol promises, and what a check must reach for its promises to mean anything. A promise must
//! never be weakened to make a check pass.

use stateright::Property;

use super::Commit;
use super::state::{Node, Outcome, Share, State, Word};

pub(super) const NEVER_LOST: &str = "a committed share is lost nowhere";
pub(super) const NEVER_UNDONE: &str = "what signs stays committed";
pub(super) const NEVER_BOTH: &str = "no enclave says both";
pub(super) const ONE_OUTCOME: &str = "there is one outcome";
pub(super) const OF_ONE_MIND: &str = "at rest all nodes have adopted or none";

pub(super) const ADOPTED: &str = "all nodes adopt";
pub(super) const IN_SPITE_OF_A_FAULT: &str = "all nodes adopt in spite of a fault";
pub(super) const DISCARDED: &str = "a void generation is discarded";
pub(super) const KEPT: &str = "nodes in doubt keep their shares";

pub(super) fn all() -> Vec<Property<Commit>> {
    vec![
        Property::always(NEVER_LOST, never_lost),
        Property::always(NEVER_UNDONE, never_undone),
        Property::always(NEVER_BOTH, |_: &Commit, state: &State| {
            state.nodes.iter().all(|node| node.said.len() < 2)
        }),
        Property::always(ONE_OUTCOME, one_outcome),
        Property::always(OF_ONE_MIND, of_one_mind),
        Property::sometimes(ADOPTED, |_: &Commit, state: &State| all_adopted(state)),
        Property::sometimes(IN_SPITE_OF_A_FAULT, |_: &Commit, state: &State| {
            matches!(state.stream.first(), Some(Word::Faulted(_))) && all_adopted(state)
        }),
        Property::sometimes(DISCARDED, |_: &Commit, state: &State| {
            state.nodes.iter().all(|node| node.share == Share::Discarded)
        }),
        Property::sometimes(KEPT, |model: &Commit, state: &State| {
            state.nodes.iter().all(|node| matches!(node.share, Share::Pending(_))) && model.is_at_rest(state)
        }),
    ]
}

fn all_adopted(state: &State) -> bool {
    state.numbered().all(|(by, _)| state.stream.contains(&Word::Adopted(by)))
}

/// What is committed, in anyone's view.
fn committed<'a>(model: &'a Commit, state: &'a State) -> impl Iterator<Item = Outcome> + 'a {
    let logs = state.nodes.iter().map(|node| &node.log).chain([&state.stream]);
    logs.filter_map(|log| model.committed(log))
}

fn never_lost(model: &Commit, state: &State) -> bool {
    let needed = committed(model, state).chain(state.nodes.iter().filter_map(Node::signs));
    needed.into_iter().all(|outcome| state.nodes.iter().all(|node| node.holds(outcome)))
}

fn never_undone(model: &Commit, state: &State) -> bool {
    let stands = |node: &Node| node.signs().is_none_or(|key| model.committed(&node.log) == Some(key));
    state.nodes.iter().all(stands)
}

fn one_outcome(model: &Commit, state: &State) -> bool {
    let mut outcomes = committed(model, state);
    let first = outcomes.next();
    outcomes.all(|outcome| Some(outcome) == first)
}

/// Where the broker lost entries, the log may fork and stay forked: then nodes wait for people to repair it.
fn of_one_mind(model: &Commit, state: &State) -> bool {
    let signing = state.nodes.iter().filter(|node| node.signs().is_some()).count();
    let agree = signing == 0 || signing == state.nodes.len();
    agree || state.lost > 0 || !model.is_at_rest(state)
}
