//! Which groups of parties sign: all subsets of a size, and the quick cover that uses every node and every
//! pair at least once.

use std::collections::BTreeSet;

use crate::ids::NodeIndex;

/// Parties that sign together, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Subset(Vec<NodeIndex>);

impl Subset {
    /// Sorts the parties and drops repetitions.
    pub fn new(parties: impl IntoIterator<Item = NodeIndex>) -> Self {
        Self(parties.into_iter().collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// The parties in ascending order.
    #[must_use]
    pub fn parties(&self) -> &[NodeIndex] {
        &self.0
    }

    /// Whether the party is one of them.
    #[must_use]
    pub fn contains(&self, party: NodeIndex) -> bool {
        self.0.contains(&party)
    }

    /// Every unordered pair in it.
    pub fn pairs(&self) -> impl Iterator<Item = (NodeIndex, NodeIndex)> + '_ {
        self.0.iter().enumerate().flat_map(|(i, a)| self.0[i + 1..].iter().map(|b| (*a, *b)))
    }
}

impl std::fmt::Display for Subset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
        f.pad(&text)
    }
}

/// Every subset of `size` parties, in lexicographic order, without building them all at once.
pub fn subsets(parties: &[NodeIndex], size: usize) -> impl Iterator<Item = Subset> + '_ {
    let mut places: Option<Vec<usize>> = (size <= parties.len()).then(|| (0..size).collect());
    std::iter::from_fn(move || {
        let current = places.take()?;
        let subset = Subset(current.iter().map(|place| parties[*place]).collect());
        places = next_places(current, parties.len());
        Some(subset)
    })
}

fn next_places(mut places: Vec<usize>, n: usize) -> Option<Vec<usize>> {
    let size = places.len();
    let moved = (0..size).rev().find(|i| places[*i] < n - size + i)?;
    places[moved] += 1;
    for i in moved + 1..size {
        places[i] = places[i - 1] + 1;
    }
    Some(places)
}

/// A small set of subsets in which every node and every pair of nodes signs at least once: greedy, and
/// the same for everybody who computes it.
#[must_use]
pub fn quick_cover(parties: &[NodeIndex], size: usize) -> Vec<Subset> {
    let mut open: BTreeSet<(NodeIndex, NodeIndex)> = Subset::new(parties.iter().copied()).pairs().collect();
    let mut cover = Vec::new();
    if size < 2 || size > parties.len() {
        return cover;
    }
    while let Some(first) = open.first().copied() {
        let mut subset = BTreeSet::from([first.0, first.1]);
        while subset.len() < size {
            let gain = |candidate: NodeIndex| {
                subset.iter().filter(|member| open.contains(&ordered(**member, candidate))).count()
            };
            let best = parties
                .iter()
                .copied()
                .filter(|candidate| !subset.contains(candidate))
                .max_by_key(|candidate| (gain(*candidate), std::cmp::Reverse(*candidate)));
            let Some(best) = best else { break };
            subset.insert(best);
        }
        let subset = Subset::new(subset);
        for pair in subset.pairs() {
            open.remove(&pair);
        }
        cover.push(subset);
    }
    cover
}

fn ordered(a: NodeIndex, b: NodeIndex) -> (NodeIndex, NodeIndex) {
    if a < b { (a, b) } else { (b, a) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use proptest::prelude::*;

    use super::*;

    fn parties(n: u8) -> Vec<NodeIndex> {
        (1..=n).map(|i| NodeIndex::new(i).unwrap()).collect()
    }

    #[test]
    fn three_of_five_has_ten_subsets_and_a_cover_of_four() {
        assert_eq!(subsets(&parties(5), 3).count(), 10);
        let cover = quick_cover(&parties(5), 3);
        assert_eq!(
            cover.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["1+2+3", "1+4+5", "2+3+4", "2+3+5"].map(String::from).to_vec()
        );
    }

    proptest! {
        #[test]
        fn a_cover_uses_every_pair(n in 2u8..=12, t in 2u8..=12) {
            prop_assume!(t <= n);
            let all = parties(n);
            let cover = quick_cover(&all, usize::from(t));
            let used: BTreeSet<_> = cover.iter().flat_map(|s| s.pairs().collect::<Vec<_>>()).collect();
            prop_assert_eq!(used.len(), usize::from(n) * (usize::from(n) - 1) / 2);
            prop_assert!(cover.iter().all(|s| s.parties().len() == usize::from(t)));
        }
    }
}
