//! Which entry follows which: the branch that a node stands on, and the entries of other branches that it knows.

use std::collections::BTreeMap;

use super::Tip;
use crate::ids::Hash;
use crate::log::Entry;

/// The shape of a ceremony's log, as far as it is known. It holds hashes only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// The branch that this node stands on, from its first entry.
    main: Vec<Hash>,
    /// The entries of other branches, each with its number and the entry before it.
    aside: BTreeMap<Hash, (u64, Hash)>,
}

impl Tree {
    /// The tree of one unforked log.
    #[must_use]
    pub fn of(entries: &[Entry]) -> Self {
        Self { main: entries.iter().map(Entry::hash).collect(), aside: BTreeMap::new() }
    }

    /// The end of the branch that this node stands on.
    #[must_use]
    pub fn tip(&self) -> Tip {
        self.main.last().map_or(Tip::ROOT, |hash| Tip { seq: self.main.len() as u64, hash: *hash })
    }

    /// The main branch's entry of this number.
    #[must_use]
    pub fn at(&self, seq: u64) -> Option<Tip> {
        if seq == 0 {
            return Some(Tip::ROOT);
        }
        let index = usize::try_from(seq - 1).ok()?;
        self.main.get(index).map(|hash| Tip { seq, hash: *hash })
    }

    /// Adds the main branch's next entry.
    pub fn grow(&mut self, hash: Hash) {
        self.aside.remove(&hash);
        self.main.push(hash);
    }

    /// Adds an entry of another branch.
    pub fn put_aside(&mut self, seq: u64, hash: Hash, prev: Hash) {
        if !self.is_main(Tip { seq, hash }) {
            self.aside.insert(hash, (seq, prev));
        }
    }

    /// How many entries of other branches are known.
    #[must_use]
    pub fn aside_len(&self) -> usize {
        self.aside.len()
    }

    /// Whether the entry is known.
    #[must_use]
    pub fn knows(&self, tip: Tip) -> bool {
        self.is_main(tip) || self.aside.get(&tip.hash).is_some_and(|(seq, _)| *seq == tip.seq)
    }

    /// Whether the entry stands on the main branch.
    #[must_use]
    pub fn is_main(&self, tip: Tip) -> bool {
        self.at(tip.seq).is_some_and(|known| known == tip)
    }

    /// The entry before this one, where this one is known.
    #[must_use]
    pub fn before(&self, tip: Tip) -> Option<Tip> {
        if self.is_main(tip) {
            return self.at(tip.seq.checked_sub(1)?);
        }
        let (seq, prev) = self.aside.get(&tip.hash).filter(|(seq, _)| *seq == tip.seq)?;
        Some(Tip { seq: seq.checked_sub(1)?, hash: *prev })
    }

    /// The entries of the branch that ends here, from the first; none where one of them is not known.
    #[must_use]
    pub fn branch(&self, tip: Tip) -> Option<Vec<Tip>> {
        let mut branch = Vec::new();
        let mut here = tip;
        while here.seq > 0 {
            branch.push(here);
            here = self.before(here)?;
        }
        (here == Tip::ROOT).then(|| {
            branch.reverse();
            branch
        })
    }

    /// Whether the branch that ends at `tip` contains `entry`; none where that is not known.
    #[must_use]
    pub fn contains(&self, tip: Tip, entry: Tip) -> Option<bool> {
        if entry == Tip::ROOT {
            return Some(true);
        }
        let mut here = tip;
        loop {
            if here.seq <= entry.seq {
                return Some(here == entry);
            }
            if self.is_main(here) {
                return Some(self.is_main(entry));
            }
            here = self.before(here)?;
        }
    }

    /// The last entry that the branch ending here shares with the main branch, by its number; none where that is not
    /// known.
    #[must_use]
    pub fn shared(&self, tip: Tip) -> Option<u64> {
        let mut here = tip;
        while !self.is_main(here) {
            here = self.before(here)?;
        }
        Some(here.seq)
    }

    /// Whether neither of two branches contains the other; none where that is not known.
    #[must_use]
    pub fn conflicts(&self, one: Tip, other: Tip) -> Option<bool> {
        let (long, short) = if one.seq >= other.seq { (one, other) } else { (other, one) };
        self.contains(long, short).map(|contains| !contains)
    }

    /// Moves to the branch that ends here, and puts the previous one aside. Returns false and changes nothing if the
    /// branch is not known.
    pub fn stand_on(&mut self, tip: Tip) -> bool {
        let Some(branch) = self.branch(tip) else { return false };
        let mut prev = Hash::ZERO;
        for (seq, hash) in (1..).zip(std::mem::take(&mut self.main)) {
            self.aside.insert(hash, (seq, prev));
            prev = hash;
        }
        for entry in &branch {
            self.aside.remove(&entry.hash);
        }
        self.main = branch.into_iter().map(|entry| entry.hash).collect();
        true
    }
}
