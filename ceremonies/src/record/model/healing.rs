//! What becomes of a state once the hostile node is silent and every statement of an honest node gets through.
//!
//! Here nodes are not started again at each step, and do what the agent's rule says (`node/src/core/settle.rs`): all at
//! once, each after it has heard where the others stand. A wait is over when nothing else happens.

use std::collections::BTreeSet;

use super::super::{Ballot, Head, Memory, SignedHead, Standing, Tip, Tree, quorum};
use super::state::{Node, Remembered, State};
use super::steps::{Steps, index, remembered, signed};
use crate::ids::NodeIndex;

/// Far more turns than needed.
const TURNS: usize = 30;

struct Agent {
    ballot: Ballot,
    tree: Tree,
}

impl Agent {
    fn head(&self, like: &Head) -> SignedHead {
        let Memory { round, undecided, lock, .. } = *self.ballot.memory();
        signed(Head { round, votes: !undecided, tip: self.tree.tip(), lock, ..like.clone() })
    }

    fn hear(&mut self, members: &BTreeSet<NodeIndex>, heads: &[(SignedHead, Vec<SignedHead>)]) {
        for (head, proof) in heads {
            self.ballot.hear(&self.tree, members, head.clone(), proof.clone());
            let tip = self.tree.tip();
            if self.tree.contains(head.tip, tip) == Some(true) {
                assert!(self.tree.stand_on(head.tip));
            }
        }
    }

    /// Returns whether anything has changed.
    fn settle(&mut self, members: &BTreeSet<NodeIndex>, has_waited: bool) -> bool {
        if self.ballot.lock(&self.tree, members) {
            return true;
        }
        if self.ballot.votes() {
            let next = self.ballot.next_round(&self.tree, members, has_waited);
            if let Some(next) = next {
                self.ballot.leave(next);
            }
            return next.is_some();
        }
        let tip = self.ballot.choose(&self.tree, members, |_| false);
        if tip != self.tree.tip() {
            return self.tree.stand_on(tip);
        }
        let votes = has_waited || self.ballot.arrived(members) >= quorum(members.len());
        if votes {
            self.ballot.vote();
        }
        votes
    }
}

/// Whether all honest nodes come to stand on one branch that is recorded to its end, and then to rest.
pub(super) fn is_healed(steps: &Steps, state: &State) -> bool {
    let mut nodes: Vec<Remembered> = state.nodes.iter().map(Node::remembered).collect();
    nodes.sort_unstable();
    remembered(&steps.healed, nodes, |nodes| heal(steps, nodes))
}

fn heal(steps: &Steps, nodes: &[Remembered]) -> bool {
    let members: BTreeSet<NodeIndex> = (0..steps.nodes()).map(index).collect();
    let stored = (0..).zip(nodes).map(|(at, node)| steps.stored(at, *node));
    let mut agents: Vec<Agent> = stored.map(|(ballot, tree)| Agent { ballot, tree }).collect();
    let mut has_waited = false;
    for _ in 0..TURNS {
        let heads: Vec<_> = (0..)
            .zip(&agents)
            .filter(|(_, agent)| agent.tree.tip().seq > 0)
            .map(|(at, agent)| (agent.head(&Steps::nowhere(at)), agent.ballot.memory().proof.clone()))
            .collect();
        let before: Vec<Tip> = agents.iter().map(|agent| agent.tree.tip()).collect();
        for agent in &mut agents {
            agent.hear(&members, &heads);
        }
        let took = agents.iter().map(|agent| agent.tree.tip()).ne(before);
        let moved = agents.iter_mut().filter(|agent| agent.tree.tip().seq > 0);
        let moved =
            moved.map(|agent| agent.settle(&members, has_waited)).fold(took, |any, moved| any | moved);
        if !moved && has_waited {
            let heads: Vec<_> = heads.into_iter().map(|(head, _)| head).collect();
            let stand = |agent: &Agent| Standing::new(&agent.tree, &heads, &members).recorded_to();
            return agents.iter().all(|agent| stand(agent) == agent.tree.tip().seq);
        }
        has_waited = !moved;
    }
    false
}
