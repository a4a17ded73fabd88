//! What the nodes tell of each other: whether a trouble is one node's own, and whose.

use std::collections::{BTreeMap, BTreeSet};

use ceremonies::ids::NodeIndex;
use ceremonies::wire::bus::Heartbeat;

use super::hearing::Voice;
use super::{CLOCK_MS, Heard, Moment};

/// How many others must accuse a node before that is shown as its trouble: one alone may be the culprit.
pub(super) const ACCUSERS: usize = 2;

/// What the other nodes tell of a trouble: whether it is one node's own.
#[derive(Default)]
pub(super) struct Around<'a> {
    /// The nodes that this console does not hear, or hardly, or whose clock is wrong: it is no trouble of others if they
    /// miss them too.
    pub(super) missed: BTreeSet<NodeIndex>,
    /// The nodes that this console heard, or waited for, and does not hear now.
    pub(super) silent: BTreeSet<NodeIndex>,
    /// By how much all clocks differ from this console's in the same direction, if they do, in milliseconds.
    pub(super) all_are_off: Option<i64>,
    /// What the nodes' heartbeats say of each other.
    said: BTreeMap<NodeIndex, &'a Heartbeat>,
    /// By which nodes each is said to stand on another branch of a log than a quorum, for longer than it takes to settle.
    accused: BTreeMap<NodeIndex, BTreeSet<NodeIndex>>,
}

impl<'a> Around<'a> {
    /// What the heartbeats tell that were heard lately.
    pub(super) fn of(roster: &[NodeIndex], voice: impl Fn(NodeIndex) -> Voice<'a>, now: Moment) -> Self {
        let well_heard = |node: NodeIndex| voice(node).now().filter(|heard| !heard.has_just_returned(now));
        let offsets: Vec<i64> =
            roster.iter().filter_map(|node| well_heard(*node)).map(Heard::offset_ms).collect();
        // What others miss of a node whose clock is wrong is that node's trouble as well.
        let is_right = |heard: &Heard| heard.offset_ms().abs() <= CLOCK_MS;
        let missed = roster.iter().filter(|node| !well_heard(**node).is_some_and(is_right));
        let is_silent =
            |node: &&NodeIndex| matches!(voice(**node), Voice::Silent(..) | Voice::NotYet(Some(_)));
        let silent = roster.iter().filter(is_silent).copied().collect();
        let said = roster.iter().filter_map(|node| Some((*node, &well_heard(*node)?.heartbeat)));
        let names = |by: NodeIndex, of| well_heard(by).is_some_and(|heard| heard.keeps_elsewhere(of, now));
        let accused =
            roster.iter().map(|of| (*of, roster.iter().copied().filter(|by| names(*by, *of)).collect()));
        Self {
            missed: missed.copied().collect(),
            silent,
            all_are_off: all_are_off(&offsets),
            said: said.collect(),
            accused: accused.collect(),
        }
    }

    /// Whether more nodes than could lie about it say that this charter is in force: then it is this console that lacks one.
    pub(super) fn share_a_charter(&self, charter: &[u8]) -> bool {
        self.said.values().filter(|said| said.charter == charter).count() > ACCUSERS
    }

    /// Whether a node stands on another branch of a log than a quorum, by the word of several others.
    pub(super) fn is_elsewhere(&self, node: NodeIndex) -> bool {
        let by = self.accused.get(&node).into_iter().flatten();
        by.filter(|by| **by != node).count() >= ACCUSERS
    }

    /// The nodes whose records differ from this one's, by its word or by theirs, if they are several.
    pub(super) fn apart(&self, node: NodeIndex) -> Vec<NodeIndex> {
        let names = |by: NodeIndex, of: NodeIndex| {
            self.said.get(&by).is_some_and(|said| said.differs.contains(&of.into()))
        };
        let others = self.said.keys().copied().filter(|other| *other != node);
        let apart: Vec<_> = others.filter(|other| names(node, *other) || names(*other, node)).collect();
        if apart.len() >= ACCUSERS { apart } else { Vec::new() }
    }
}

/// Several clocks that are off in the same direction are one trouble: that of this console's clock or of the bus.
fn all_are_off(offsets: &[i64]) -> Option<i64> {
    let least = offsets.iter().copied().min_by_key(|offset| offset.abs())?;
    let is_shared = offsets.iter().all(|offset| offset.abs() > CLOCK_MS && offset.signum() == least.signum());
    (offsets.len() > 1 && is_shared).then_some(least)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_are_all_off_in_one_direction_are_one_trouble_and_others_are_not() {
        for (offsets, shared) in [
            (&[][..], None),
            (&[9000], None),
            (&[3000, 4000, 2500], Some(2500)),
            (&[-3000, -4000], Some(-3000)),
            (&[3000, -4000], None),
            (&[3000, 4000, 100], None),
            (&[0, 0], None),
        ] {
            assert_eq!(all_are_off(offsets), shared, "{offsets:?}");
        }
    }

    fn node(index: u8) -> NodeIndex {
        NodeIndex::new(index).unwrap()
    }

    /// What five nodes say, of whom only these name others.
    fn said(
        names: &[(u8, &[u32])],
        say: impl Fn(&mut Heartbeat, Vec<u32>),
    ) -> BTreeMap<NodeIndex, Heartbeat> {
        let mut all: BTreeMap<NodeIndex, Heartbeat> =
            (1..=5).map(|by| (node(by), Heartbeat::default())).collect();
        for (by, of) in names {
            say(all.get_mut(&node(*by)).unwrap(), of.to_vec());
        }
        all
    }

    fn around(said: &BTreeMap<NodeIndex, Heartbeat>) -> Around<'_> {
        Around { said: said.iter().map(|(by, said)| (*by, said)).collect(), ..Around::default() }
    }

    #[test]
    fn one_node_alone_accuses_nobody_of_another_branch() {
        for (names, guilty) in [
            (&[][..], &[][..]),
            (&[(1, &[3][..])], &[]),
            (&[(3, &[3]), (1, &[3])], &[]),
            (&[(1, &[3]), (2, &[3])], &[3]),
            (&[(1, &[2, 3, 4, 5]), (2, &[1, 3])], &[3]),
        ] {
            let mut around = Around::default();
            for (by, of) in names {
                for of in *of {
                    around.accused.entry(node(u8::try_from(*of).unwrap())).or_default().insert(node(*by));
                }
            }
            let found: Vec<u8> = (1..=5).filter(|of| around.is_elsewhere(node(*of))).collect();
            assert_eq!(found, guilty, "{names:?}");
        }
    }

    #[test]
    fn records_that_differ_are_shown_of_whoever_differs_from_several() {
        for (names, shown) in [
            (&[][..], &[][..]),
            (&[(1, &[3][..])], &[]),
            (&[(1, &[3]), (3, &[1])], &[]),
            (&[(3, &[1, 2, 4, 5])], &[3]),
            (&[(1, &[3]), (2, &[3])], &[3]),
            (&[(1, &[4, 5]), (2, &[4, 5]), (4, &[1, 3])], &[1, 2, 4, 5]),
        ] {
            let said = said(names, |heartbeat, of| heartbeat.differs = of);
            let around = around(&said);
            let found: Vec<u8> = (1..=5).filter(|of| !around.apart(node(*of)).is_empty()).collect();
            assert_eq!(found, shown, "{names:?}");
        }
    }
}
