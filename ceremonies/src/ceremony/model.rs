//! The commit protocol, checked in every order of events that a few nodes can come to.
//!
//! Every action is a step that an agent, an enclave, a person or chance may take next; Stateright tries them all. Logs
//! are folded by the real [`Ceremony`](super::Ceremony), see [`fold`]. What enclave, agent and store do is mirrored in
//! plain data, after `enclave/src/signer/{voice,life}.rs`, `node/src/core/{append,duties,enclave}.rs` and
//! `node/src/store.rs`. The model may allow more than they do; it must never allow less, for what it leaves out is not
//! checked.
//!
//! Two things need no action. A crashed agent is one that does nothing for a while: its log is stored, and its enclave
//! says everything again. A deadline may have passed at any moment for one node and not for another: entries are dated
//! before it, and what follows from a log is evaluated after it.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks at the variants that it is about")]
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod checks;
mod fold;
mod properties;
mod state;

use std::sync::Arc;

use stateright::{Model, Property};

use self::fold::{Fold, View};
use self::state::{Enclave, Node, Outcome, Share, State, Word};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    LoseTail,
    /// Something that happens at this node.
    At(u8, Step),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Store(Outcome),
    Prove,
    GiveUp,
    LoseEnclave,
    LoseWords,
    ReadOn,
    Append(Word),
    Promote,
    Discard,
}

/// A rule of the protocol, broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    FirstWordStands,
    OnlyProofDiscards,
    AllNodesCommit,
    StoredBeforePrepared,
}

struct Commit {
    fold: Fold,
    nodes: u8,
    outcomes: &'static [Outcome],
    /// How many entries the broker may lose.
    losses: usize,
    /// How many failures a state may show.
    troubles: usize,
    broken: Option<Broken>,
}

impl Commit {
    fn is_broken(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    fn view(&self, log: &[Word]) -> Arc<View> {
        self.fold.view(log).unwrap()
    }

    fn committed(&self, log: &[Word]) -> Option<Outcome> {
        let view = self.view(log);
        if self.is_broken(Broken::AllNodesCommit) && view.prepared + 1 >= usize::from(self.nodes) {
            return Some(Outcome::Same);
        }
        view.committed
    }

    fn has_to_adopt(&self, node: u8, log: &[Word]) -> bool {
        let is_due = self.view(log).to_adopt[usize::from(node) - 1];
        is_due || self.is_broken(Broken::AllNodesCommit) && self.committed(log).is_some()
    }

    fn may_discard(&self, log: &[Word]) -> bool {
        let view = self.view(log);
        view.never_commits || self.is_broken(Broken::OnlyProofDiscards) && view.void
    }

    /// An enclave's first word about its key generation stands.
    fn say(&self, said: &mut Vec<Word>, word: Word) -> Option<()> {
        let may_speak = match word {
            Word::Prepared(..) if self.is_broken(Broken::FirstWordStands) => !said.contains(&word),
            _ => said.is_empty(),
        };
        may_speak.then(|| said.push(word))
    }

    /// Makes the agent read an entry, or give back one that the broker lost. In a fork it does neither.
    fn read_on(own: &mut Vec<Word>, stream: &mut Vec<Word>) -> Option<()> {
        let (from, to) = if own.len() < stream.len() { (stream, own) } else { (own, stream) };
        let next = *from.get(to.len())?;
        from.starts_with(to).then(|| to.push(next))
    }

    /// The stream accepts nothing from an agent that has not read it to its end. The agent may crash before it has
    /// stored what the stream accepted; otherwise it reads on at once.
    fn append(&self, own: &[Word], stream: &mut Vec<Word>, word: Word) -> Option<()> {
        let next = [own, &[word]].concat();
        let is_taken = own == stream && self.fold.view(&next).is_some();
        is_taken.then(|| *stream = next)
    }

    fn take(&self, by: u8, node: &mut Node, stream: &mut Vec<Word>, step: Step) -> Option<()> {
        match (step, node.enclave, node.share) {
            (Step::Store(outcome), Enclave::Generating, _) => {
                node.enclave = Enclave::Stored(outcome);
                node.share = Share::Pending(outcome);
            }
            (Step::Prove, Enclave::Stored(outcome), _) => {
                self.say(&mut node.said, Word::Prepared(by, outcome))?;
                node.enclave = Enclave::Proven;
            }
            (Step::Prove, Enclave::Generating, _) if self.is_broken(Broken::StoredBeforePrepared) => {
                self.say(&mut node.said, Word::Prepared(by, Outcome::Same))?;
            }
            (Step::GiveUp, Enclave::Generating | Enclave::Stored(_), _) => {
                self.say(&mut node.said, Word::Aborted(by))?;
            }
            (Step::LoseEnclave, Enclave::Generating | Enclave::Stored(_) | Enclave::Proven, _) => {
                node.enclave = Enclave::Lost;
            }
            (Step::LoseWords, Enclave::Lost, _) if !node.said.is_empty() => node.said.clear(),
            (Step::ReadOn, _, _) => return Self::read_on(&mut node.log, stream),
            (Step::Append(word), _, _) => return self.append(&node.log, stream, word),
            (Step::Promote, _, Share::Pending(outcome)) if self.has_to_adopt(by, &node.log) => {
                if self.committed(&node.log) != Some(outcome) {
                    return None;
                }
                node.share = Share::Current(outcome);
            }
            (Step::Discard, _, Share::Pending(_)) if self.may_discard(&node.log) => {
                node.share = Share::Discarded;
            }
            _ => return None,
        }
        Some(())
    }

    /// What the agent has to report and does not find in its log.
    fn reports(by: u8, node: &Node) -> Vec<Word> {
        let mut words = node.said.clone();
        if matches!(node.share, Share::Current(_)) {
            words.push(Word::Adopted(by));
        }
        words.retain(|word| !node.log.contains(word));
        words
    }

    /// What happens without anything going wrong.
    fn progress(&self, by: u8, node: &Node) -> Vec<Step> {
        let mut steps: Vec<Step> = self.outcomes.iter().map(|outcome| Step::Store(*outcome)).collect();
        steps.extend([Step::Prove, Step::ReadOn, Step::Promote, Step::Discard]);
        steps.extend(Self::reports(by, node).into_iter().map(Step::Append));
        steps
    }

    fn trouble(by: u8, node: &Node) -> Vec<Step> {
        let mut steps = vec![Step::GiveUp, Step::LoseEnclave, Step::LoseWords];
        steps.extend([Word::Faulted(by), Word::Withdrawn].map(Step::Append));
        if node.enclave == Enclave::Lost {
            steps.push(Step::Append(Word::Replaced(by)));
        }
        steps
    }

    fn after_step(&self, last: &State, by: u8, step: Step) -> Option<State> {
        let at = usize::from(by) - 1;
        let (mut node, mut stream) = (last.nodes[at].clone(), last.stream.clone());
        self.take(by, &mut node, &mut stream, step)?;
        let mut state = State { stream, ..last.clone() };
        state.nodes[at] = node;
        Some(state)
    }

    fn after_lost_tail(&self, last: &State) -> Option<State> {
        if last.lost == self.losses {
            return None;
        }
        let mut state = last.clone();
        state.stream.pop()?;
        state.lost += 1;
        Some(state)
    }

    /// Whether nothing will happen any more unless something goes wrong.
    fn is_at_rest(&self, state: &State) -> bool {
        let all_have_read = state.nodes.iter().all(|node| node.log == state.stream);
        let is_idle = |(by, node): (u8, &Node)| {
            self.progress(by, node).into_iter().all(|step| self.after_step(state, by, step).is_none())
        };
        all_have_read && state.numbered().all(is_idle)
    }
}

impl Model for Commit {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { nodes: vec![Node::new(); self.nodes.into()], stream: Vec::new(), lost: 0 }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (by, node) in state.numbered() {
            let steps = self.progress(by, node).into_iter().chain(Self::trouble(by, node));
            actions.extend(steps.map(|step| Action::At(by, step)));
        }
        actions.push(Action::LoseTail);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        match action {
            Action::LoseTail => self.after_lost_tail(last),
            Action::At(by, step) => self.after_step(last, by, step),
        }
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.troubles() <= self.troubles
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
