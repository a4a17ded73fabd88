//! What the model remembers of honest nodes, and which of its states differ only in the numbering of nodes.
//!
//! Plain data. Nothing here may say what follows from a vote; that is for the ballot to say.

/// Most rounds of a check.
pub(super) const ROUNDS: usize = 3;

/// An entry that somebody has signed and every node could have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Entry(pub(super) u8);

/// A set of entries.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Entries(u8);

/// An entry locked in a round. A later round comes after an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Locked {
    pub(super) round: u8,
    pub(super) entry: Entry,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Node {
    pub(super) round: u8,
    /// The end of the branch that it stands on; none before the first entry.
    pub(super) tip: Option<Entry>,
    pub(super) lock: Option<Locked>,
    /// The ends of the branches that it ever voted for, by rounds.
    pub(super) votes: [Entries; ROUNDS],
    /// What it ever said to have locked, by rounds.
    pub(super) locks: [Entries; ROUNDS],
}

/// What a node stores: its round, the end of its branch, and its lock.
pub(super) type Remembered = (u8, Option<Entry>, Option<Locked>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) nodes: Vec<Node>,
}

impl Entries {
    pub(super) fn iter(self) -> impl Iterator<Item = Entry> {
        (0..8).map(Entry).filter(move |entry| self.has(*entry))
    }

    pub(super) fn has(self, entry: Entry) -> bool {
        self.0 & (1 << entry.0) != 0
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        self.0 |= 1 << entry.0;
    }

    pub(super) fn with_all(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them as locked in this round.
    pub(super) fn locked_in(self, round: u8) -> impl Iterator<Item = Locked> {
        self.iter().map(move |entry| Locked { round, entry })
    }
}

impl FromIterator<Entry> for Entries {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut all = Self::default();
        entries.into_iter().for_each(|entry| all.insert(entry));
        all
    }
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(|entry| entry.0)).finish()
    }
}

impl Node {
    /// Stands on the branch that ends here and votes for it in its round.
    pub(super) fn take(&mut self, tip: Entry) {
        self.tip = Some(tip);
        self.votes[usize::from(self.round)].insert(tip);
    }

    pub(super) fn remembered(&self) -> Remembered {
        (self.round, self.tip, self.lock)
    }

    pub(super) fn lock(&mut self, lock: Locked) {
        self.lock = Some(lock);
        self.locks[usize::from(lock.round)].insert(lock.entry);
    }
}

impl State {
    /// The same state, with the nodes ordered by their own state.
    pub(super) fn renumbered(&self) -> Self {
        let mut nodes = self.nodes.clone();
        nodes.sort_unstable();
        Self { nodes }
    }
}
