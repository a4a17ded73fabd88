//! The echo: in each round, every party says what it saw each party broadcast in the previous round.
//!
//! Envelopes prove who said something, not that every party was told the same. Without the echo, a split view can pass
//! every check of a protocol and leave shares that never sign together. A difference always ends the session; it must
//! never let a peer's claim about another party pass for proof.

use std::collections::BTreeMap;

use ceremonies::ids::{Hash, NodeIndex};

/// Hash of what each party broadcast in a round, as one party saw it.
pub(super) type Seen = BTreeMap<NodeIndex, Hash>;

/// Two parties were shown different things, or one lies about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// What was seen by whom, and what to do.
    pub(super) reason: String,
    /// The party most likely at fault: certain if a party contradicts itself or misquotes what this party said, else
    /// the broadcaster.
    pub(super) culprit: NodeIndex,
    /// The peer whose echo shows it.
    pub(super) witness: NodeIndex,
}

/// Compares every peer's echo, in the order of the parties, with what this party saw itself.
pub(super) fn compare(
    own: NodeIndex,
    seen: &Seen,
    echoes: &BTreeMap<NodeIndex, &[Vec<u8>]>,
) -> Result<(), Split> {
    for (peer, echo) in echoes {
        let lies = |reason: String| Err(Split { reason, culprit: *peer, witness: *peer });
        if echo.len() != seen.len() {
            return lies(format!("node {peer} does not echo the previous round: check what it runs"));
        }
        for party in differing(seen, echo) {
            if party == *peer {
                return lies(format!(
                    "node {peer} broadcast one thing to node {own} and echoes another as its own: isolate it"
                ));
            }
            if party == own {
                return lies(format!(
                    "node {peer} echoes a broadcast of node {own} that node {own} never made: isolate node {peer}"
                ));
            }
        }
    }
    for party in seen.keys() {
        let others = echoes.iter().filter(|(peer, _)| *peer != party);
        let (other, mut same): (Vec<NodeIndex>, Vec<NodeIndex>) =
            others.map(|(peer, _)| *peer).partition(|peer| {
                echoes.get(peer).is_some_and(|echo| differing(seen, echo).any(|p| p == *party))
            });
        let Some(witness) = other.first() else { continue };
        same.insert(0, own);
        return Err(Split {
            reason: format!(
                "node {party} broadcast one thing to {} and another to {}, unless the latter lie: compare their \
                 logs, then open a new ceremony",
                names(&same),
                names(&other)
            ),
            culprit: *party,
            witness: *witness,
        });
    }
    Ok(())
}

/// The parties whose broadcast differed for this echo's author.
fn differing(seen: &Seen, echo: &[Vec<u8>]) -> impl Iterator<Item = NodeIndex> {
    seen.iter()
        .zip(echo)
        .filter(|((_, ours), theirs)| ours.as_bytes().as_slice() != theirs.as_slice())
        .map(|((party, _), _)| *party)
}

/// Nodes in words.
pub(super) fn names(nodes: &[NodeIndex]) -> String {
    nodes.iter().map(|node| format!("node {node}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

    use super::*;

    fn node(index: u8) -> NodeIndex {
        NodeIndex::new(index).unwrap()
    }

    fn honest() -> Seen {
        (1..=4).map(|index| (node(index), Hash::of_bytes(&[index]))).collect()
    }

    fn echo(seen: &Seen) -> Vec<Vec<u8>> {
        seen.values().map(|hash| hash.as_bytes().to_vec()).collect()
    }

    fn seen_otherwise(differing: &[u8]) -> Vec<Vec<u8>> {
        let mut seen = honest();
        for index in differing {
            seen.insert(node(*index), Hash::of_bytes(b"another"));
        }
        echo(&seen)
    }

    /// Node 1's verdict on what 2, 3 and 4 echo.
    fn verdict(two: &[Vec<u8>], three: &[Vec<u8>], four: &[Vec<u8>]) -> Result<(), Split> {
        compare(node(1), &honest(), &[(node(2), two), (node(3), three), (node(4), four)].into())
    }

    #[test]
    fn equal_views_pass() {
        let same = echo(&honest());
        assert_eq!(verdict(&same, &same, &same), Ok(()));
    }

    #[test]
    fn a_split_broadcast_names_the_broadcaster_and_who_saw_what() {
        let (same, other) = (echo(&honest()), seen_otherwise(&[4]));
        let split = verdict(&other, &same, &same).unwrap_err();
        assert_eq!((split.culprit, split.witness), (node(4), node(2)));
        assert!(
            split.reason.contains("one thing to node 1, node 3 and another to node 2"),
            "{}",
            split.reason
        );
    }

    #[test]
    fn a_peer_that_contradicts_itself_is_the_culprit() {
        let (same, other) = (echo(&honest()), seen_otherwise(&[3]));
        assert_eq!(verdict(&same, &other, &same).unwrap_err().culprit, node(3));
    }

    #[test]
    fn a_peer_that_knows_better_what_we_said_is_the_culprit_and_not_those_it_accuses_too() {
        let (same, other) = (echo(&honest()), seen_otherwise(&[1, 2, 3]));
        assert_eq!(verdict(&same, &same, &other).unwrap_err().culprit, node(4));
    }

    #[test]
    fn a_short_a_long_and_an_empty_echo_name_their_sender() {
        let same = echo(&honest());
        for wrong in [&same[..3], &[&same[..], &same[..1]].concat(), &[]] {
            assert_eq!(verdict(&same, wrong, &same).unwrap_err().culprit, node(3));
        }
    }
}
