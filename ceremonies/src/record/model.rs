//! The two-step vote, checked in every order in which statements can reach a few nodes.
//!
//! Stateright tries every step that an honest node may take next. The outcome of a step is decided by the real
//! [`Ballot`](super::Ballot), [`Tree`](super::Tree) and [`Standing`](super::Standing), see [`steps`]. The model allows
//! more than agents do; it must never allow less, for what it leaves out is not checked:
//!
//! - There are no messages. A node may hear, at any step, any vote that an honest node ever signed, or none: late, lost,
//!   repeated and in any order.
//! - The hostile node shows every reader whatever suits the step: any vote, any lock, and every proof that signatures
//!   allow. Nobody catches it at this.
//! - Where nodes stand without a vote binds nobody, so every such statement may be heard from anybody.
//! - A node leaves a round when it likes. Leaving and voting are one step, for nothing is signed between them.
//! - Only what is stored outlives a step: every step begins as if the node had just been started again.
//!
//! An entry that a node does not have yet is a vote that it has not heard.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod checks;
mod healing;
mod properties;
mod state;
mod steps;

use stateright::{Model, Property};

use self::state::{Entries, Entry, Locked, Node, State};
use self::steps::Steps;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Take the entry that follows, and vote for it as well.
    Take(usize, Entry),
    /// Lock what a quorum votes for.
    Lock(usize, Locked),
    /// Leave the round for another and vote there for the branch that ends here.
    Vote(usize, u8, Entry),
    /// Start again without the ballot.
    Forget(usize),
}

/// A rule of the vote, broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// Votes are counted as if they were locks.
    OneStep,
    /// A node votes in a later round without its lock.
    VotesWithoutLock,
    /// A later lock always replaces an earlier one, also by less.
    LaterLockWins,
    /// A node that is started again has forgotten its ballot.
    ForgetsBallot,
}

struct Vote {
    steps: Steps,
    /// How many nodes are honest: the first ones.
    honest: usize,
    rounds: u8,
    /// What all honest nodes have voted for and locked already.
    begun: Option<Entry>,
    broken: Option<Broken>,
}

impl Vote {
    fn is_broken(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    fn others(state: &State, me: usize) -> impl Iterator<Item = &Node> {
        state.nodes.iter().enumerate().filter(move |(at, _)| *at != me).map(|(_, node)| node)
    }

    /// The locks that a node may come to.
    fn locks(&self, state: &State, me: usize) -> Vec<Locked> {
        let node = &state.nodes[me];
        let round = usize::from(node.round);
        let others: Vec<Entries> = Self::others(state, me).map(|other| other.votes[round]).collect();
        let forgets = self.is_broken(Broken::LaterLockWins);
        let lock = node.lock.filter(|lock| !forgets || lock.round == node.round);
        self.steps.locks(node, lock, others)
    }

    /// The locks that somebody can prove.
    fn proven(&self, state: &State) -> Vec<Locked> {
        let rounds = 0..self.rounds;
        let votes = |round: u8| state.nodes.iter().map(|node| node.votes[usize::from(round)]).collect();
        rounds.flat_map(|round| self.steps.provable(round, votes(round)).locked_in(round)).collect()
    }

    /// The branches that a node may vote for in a later round.
    fn ways(&self, state: &State, me: usize) -> Entries {
        let (node, proven) = (&state.nodes[me], self.proven(state));
        let gives_up = proven.iter().any(|proven| Some(*proven) > node.lock);
        let forgets =
            self.is_broken(Broken::VotesWithoutLock) || self.is_broken(Broken::LaterLockWins) && gives_up;
        self.steps.ways(node, node.lock.filter(|_| !forgets), &proven)
    }

    /// What somebody who chooses the statements can hold to be recorded, by locks of this round.
    fn recorded_in(&self, state: &State, round: u8) -> Entries {
        let round = usize::from(round);
        let claims = |node: &Node| {
            if self.is_broken(Broken::OneStep) { node.votes[round] } else { node.locks[round] }
        };
        self.steps.recorded(state.nodes.iter().map(claims).collect())
    }

    fn recorded(&self, state: &State) -> Entries {
        let rounds = (0..self.rounds).map(|round| self.recorded_in(state, round));
        rounds.fold(Entries::default(), Entries::with_all)
    }
}

impl Model for Vote {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut node = Node::default();
        if let Some(entry) = self.begun {
            node.take(entry);
            node.lock(Locked { round: 0, entry });
        }
        vec![State { nodes: vec![node; self.honest] }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (me, node) in state.nodes.iter().enumerate() {
            actions.extend(self.steps.following(node.tip).iter().map(|entry| Action::Take(me, entry)));
            if node.tip.is_none() {
                continue;
            }
            actions.extend(self.locks(state, me).into_iter().map(|lock| Action::Lock(me, lock)));
            if node.round + 1 < self.rounds {
                let ways = self.ways(state, me);
                let later = node.round + 1..self.rounds;
                let votes = later.flat_map(|round| ways.iter().map(move |way| (round, way)));
                actions.extend(votes.map(|(round, way)| Action::Vote(me, round, way)));
            }
            if self.is_broken(Broken::ForgetsBallot) && (node.lock.is_some() || node.round > 0) {
                actions.push(Action::Forget(me));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Take(me, entry) => state.nodes[me].take(entry),
            Action::Lock(me, lock) => state.nodes[me].lock(lock),
            Action::Vote(me, round, entry) => {
                state.nodes[me].round = round;
                state.nodes[me].take(entry);
            }
            Action::Forget(me) => {
                let node = &mut state.nodes[me];
                (node.round, node.lock) = (0, None);
                node.take(node.tip?);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
