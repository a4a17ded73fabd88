//! What the model remembers of nodes and broker, and which of its states differ only in the numbering of nodes.
//!
//! Plain data. Nothing here may say what follows from a log; that is for the fold to say.

/// What the session gave: one key for all, unless a peer has split it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Outcome {
    Same,
    Other,
}

/// An entry of the log, by the node it is about. Nodes count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Word {
    Prepared(u8, Outcome),
    Aborted(u8),
    Faulted(u8),
    Replaced(u8),
    Withdrawn,
    Adopted(u8),
}

/// How far the enclave that people approved has come in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Enclave {
    Generating,
    Stored(Outcome),
    Proven,
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Share {
    None,
    Pending(Outcome),
    Current(Outcome),
    Discarded,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) enclave: Enclave,
    /// What the enclave said. It says it again until it is lost; then its agent may still hold it.
    pub(super) said: Vec<Word>,
    pub(super) share: Share,
    /// The agent's own copy of the log.
    pub(super) log: Vec<Word>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) nodes: Vec<Node>,
    /// The broker's copy of the log.
    pub(super) stream: Vec<Word>,
    /// How many acknowledged entries the broker has lost.
    pub(super) lost: usize,
}

impl Word {
    fn about(self) -> Option<u8> {
        match self {
            Self::Prepared(by, _)
            | Self::Aborted(by)
            | Self::Faulted(by)
            | Self::Replaced(by)
            | Self::Adopted(by) => Some(by),
            Self::Withdrawn => None,
        }
    }

    fn renamed(self, number: impl Fn(u8) -> u8) -> Self {
        match self {
            Self::Prepared(by, outcome) => Self::Prepared(number(by), outcome),
            Self::Aborted(by) => Self::Aborted(number(by)),
            Self::Faulted(by) => Self::Faulted(number(by)),
            Self::Replaced(by) => Self::Replaced(number(by)),
            Self::Withdrawn => Self::Withdrawn,
            Self::Adopted(by) => Self::Adopted(number(by)),
        }
    }
}

impl Node {
    pub(super) fn new() -> Self {
        Self { enclave: Enclave::Generating, said: Vec::new(), share: Share::None, log: Vec::new() }
    }

    pub(super) fn holds(&self, outcome: Outcome) -> bool {
        self.share == Share::Pending(outcome) || self.share == Share::Current(outcome)
    }

    /// The key with which this node signs.
    pub(super) fn signs(&self) -> Option<Outcome> {
        match self.share {
            Share::Current(outcome) => Some(outcome),
            Share::None | Share::Pending(_) | Share::Discarded => None,
        }
    }
}

impl State {
    pub(super) fn numbered(&self) -> impl Iterator<Item = (u8, &Node)> {
        (1..).zip(&self.nodes)
    }

    /// How many failures there have been, as far as they show.
    pub(super) fn troubles(&self) -> usize {
        let lost = self.nodes.iter().filter(|node| node.enclave == Enclave::Lost).count();
        let said = self.nodes.iter().flat_map(|node| &node.said);
        let aborts = said.filter(|word| matches!(word, Word::Aborted(_))).count();
        let is_ending = |word: &&Word| matches!(word, Word::Faulted(_) | Word::Replaced(_) | Word::Withdrawn);
        lost + aborts + self.lost + self.stream.iter().filter(is_ending).count()
    }

    /// The same state, with the nodes numbered by their own state.
    pub(super) fn renumbered(&self) -> Self {
        let fate = |by: &u8| {
            let node = &self.nodes[usize::from(*by) - 1];
            let place = self.stream.iter().position(|word| word.about() == Some(*by));
            let said = node.said.first().map(|word| word.renamed(|_| 0));
            (node.enclave, node.share, said, place, node.log.len())
        };
        let mut order: Vec<u8> = (1..).take(self.nodes.len()).collect();
        order.sort_by_cached_key(fate);
        let number = |old: u8| (1..).zip(&order).find(|(_, by)| **by == old).map_or(old, |(new, _)| new);
        let rename = |log: &[Word]| log.iter().map(|word| word.renamed(number)).collect::<Vec<_>>();
        let nodes = order.iter().map(|by| {
            let node = &self.nodes[usize::from(*by) - 1];
            Node { said: rename(&node.said), log: rename(&node.log), ..*node }
        });
        Self { nodes: nodes.collect(), stream: rename(&self.stream), lost: self.lost }
    }
}
