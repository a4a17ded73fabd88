//! What the vote promises, and what a check must reach for its promises to mean anything. A promise must never be
//! weakened to make a check pass.

use stateright::Property;

use super::Vote;
use super::healing::is_healed;
use super::state::{Entries, Node, State};

pub(super) const AGREED: &str = "no two entries are recorded at one place";
pub(super) const STAYS: &str = "who locked what is recorded keeps to it in every later round";
pub(super) const ONE_VOTE: &str = "nobody votes for two branches in one round";

pub(super) const MENDED: &str = "once messages get through, honest nodes record one branch";

pub(super) const RECORDED: &str = "an entry is recorded in the first round";
pub(super) const RECORDED_LATER: &str = "an entry is recorded in a later round";
pub(super) const RELEASED: &str = "a node votes against its lock";
pub(super) const HEALED: &str = "a fork is healed and recorded";

pub(super) fn all() -> Vec<Property<Vote>> {
    vec![
        Property::always(AGREED, agreed),
        Property::always(STAYS, stays),
        Property::always(ONE_VOTE, |model: &Vote, state: &State| {
            state.nodes.iter().flat_map(|node| node.votes).all(|votes| is_one_branch(model, votes))
        }),
        Property::always(MENDED, |model: &Vote, state: &State| {
            state.nodes.iter().all(|node| node.tip.is_none()) || is_healed(&model.steps, state)
        }),
        Property::sometimes(RECORDED, |model: &Vote, state: &State| !model.recorded_in(state, 0).is_empty()),
        Property::sometimes(RECORDED_LATER, |model: &Vote, state: &State| {
            (1..model.rounds).any(|round| !model.recorded_in(state, round).is_empty())
        }),
        Property::sometimes(RELEASED, |model: &Vote, state: &State| {
            let released = |node: &Node| {
                node.lock.zip(node.tip).is_some_and(|(lock, tip)| model.steps.conflict(lock.entry, tip))
            };
            state.nodes.iter().any(released)
        }),
        Property::sometimes(HEALED, |model: &Vote, state: &State| {
            let first =
                state.nodes.iter().map(|node| node.votes[0]).fold(Entries::default(), Entries::with_all);
            !is_one_branch(model, first)
                && (1..model.rounds).any(|round| !model.recorded_in(state, round).is_empty())
        }),
    ]
}

fn is_one_branch(model: &Vote, entries: Entries) -> bool {
    entries.iter().all(|one| entries.iter().all(|other| !model.steps.conflict(one, other)))
}

fn agreed(model: &Vote, state: &State) -> bool {
    is_one_branch(model, model.recorded(state))
}

fn stays(model: &Vote, state: &State) -> bool {
    (0..model.rounds).all(|round| {
        let recorded = model.recorded_in(state, round);
        recorded.iter().all(|entry| {
            let has_it = |branch| model.steps.contains(branch, entry);
            let is_locked = |node: &&Node| node.locks[usize::from(round)].iter().any(has_it);
            let later =
                |node: &Node| node.votes.into_iter().skip(usize::from(round) + 1).flat_map(Entries::iter);
            state
                .nodes
                .iter()
                .filter(is_locked)
                .all(|node| later(node).all(has_it) && node.lock.is_none_or(|lock| has_it(lock.entry)))
        })
    })
}
