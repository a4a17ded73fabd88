//! What nodes show of one ceremony's log: entries that chain, on however many branches.
//!
//! Whether an entry is valid is for the fold to judge. How much one node may give is bounded by its [`Budget`].

use std::collections::BTreeMap;

use ceremonies::ids::{CeremonyId, Hash};
use ceremonies::log::{Entry, Event};
use ceremonies::record::{Tip, Tree};
use thiserror::Error;

/// Why an entry is not part of a ceremony's log.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Misfit {
    /// It belongs elsewhere.
    #[error("an entry of {0}")]
    OtherCeremony(CeremonyId),
    /// It follows nothing that is known.
    #[error("entry {0} does not follow the one before it")]
    Unchained(u64),
}

/// How much more of one ceremony is read from one node.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    entries: usize,
    bytes: usize,
}

impl Default for Budget {
    /// The entries of the largest log that the stream takes; bytes for many times what any ceremony has had.
    fn default() -> Self {
        Self { entries: 4096, bytes: 32 * 1024 * 1024 }
    }
}

impl Budget {
    /// A budget of so much.
    #[must_use]
    pub fn new(entries: usize, bytes: usize) -> Self {
        Self { entries, bytes }
    }

    /// Deducts an entry's size. False if the budget is used up.
    pub fn spend(&mut self, entry: &Entry) -> bool {
        let bytes = entry.raw().body.len() + entry.raw().signature.len();
        match (self.entries.checked_sub(1), self.bytes.checked_sub(bytes)) {
            (Some(entries), Some(bytes)) => {
                *self = Self { entries, bytes };
                true
            }
            _ => false,
        }
    }
}

/// The known entries of one ceremony, and how they chain.
#[derive(Debug, Clone)]
pub struct Branches {
    ceremony: CeremonyId,
    tree: Tree,
    entries: BTreeMap<Hash, Entry>,
}

impl Branches {
    /// A known log, which must chain.
    #[must_use]
    pub fn new(ceremony: CeremonyId, known: &[Entry]) -> Self {
        let entries = known.iter().map(|entry| (entry.hash(), entry.clone())).collect();
        Self { ceremony, tree: Tree::of(known), entries }
    }

    /// How the entries chain, and on which branch this stands.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Adds an entry. One that follows the branch this stands on extends it. Returns whether it is new.
    ///
    /// # Errors
    /// [`Misfit`].
    pub fn add(&mut self, entry: Entry) -> Result<bool, Misfit> {
        if entry.ceremony != self.ceremony {
            return Err(Misfit::OtherCeremony(entry.ceremony));
        }
        let before = entry.seq.checked_sub(1).map(|seq| Tip { seq, hash: entry.prev });
        let follows = |before: &Tip| *before == Tip::ROOT || (before.seq > 0 && self.tree.knows(*before));
        let before = before.filter(follows).ok_or(Misfit::Unchained(entry.seq))?;
        if self.entries.contains_key(&entry.hash()) {
            return Ok(false);
        }
        if before == self.tree.tip() {
            self.tree.grow(entry.hash());
        } else {
            self.tree.put_aside(entry.seq, entry.hash(), entry.prev);
        }
        self.entries.insert(entry.hash(), entry);
        Ok(true)
    }

    /// Stands on the branch that ends here. False where it is not known.
    pub fn stand_on(&mut self, tip: Tip) -> bool {
        self.tree.stand_on(tip)
    }

    /// The log that ends here, where it is known.
    #[must_use]
    pub fn log(&self, tip: Tip) -> Option<Vec<Entry>> {
        let tips = self.tree.branch(tip)?;
        tips.iter().map(|tip| self.entries.get(&tip.hash).cloned()).collect()
    }

    /// The branch that this stands on.
    #[must_use]
    pub fn main(&self) -> Vec<Entry> {
        self.log(self.tree.tip()).unwrap_or_default()
    }

    /// The entries that carry this very event, signature included.
    #[must_use]
    pub fn carrying(&self, event: &Event) -> Vec<Tip> {
        let found = self.entries.values().filter(|entry| entry.event == *event);
        found.map(|entry| Tip { seq: entry.seq, hash: entry.hash() }).collect()
    }

    /// The entries off the branch that this stands on, by their numbers.
    #[must_use]
    pub fn aside(&self) -> Vec<&Entry> {
        let is_aside = |entry: &&Entry| !self.tree.is_main(Tip { seq: entry.seq, hash: entry.hash() });
        let mut aside: Vec<&Entry> = self.entries.values().filter(is_aside).collect();
        aside.sort_by_key(|entry| (entry.seq, entry.hash()));
        aside
    }

    /// The ends of all branches.
    #[must_use]
    pub fn ends(&self) -> Vec<Tip> {
        let followed: std::collections::BTreeSet<(u64, Hash)> =
            self.entries.values().map(|entry| (entry.seq - 1, entry.prev)).collect();
        let tips = self.entries.values().map(|entry| Tip { seq: entry.seq, hash: entry.hash() });
        tips.filter(|tip| !followed.contains(&(tip.seq, tip.hash))).collect()
    }
}
