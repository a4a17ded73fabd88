//! How nodes agree on one order of a ceremony's log, whatever one host and the broker do.
//!
//! The broker's stream proposes an order; signed heads decide it, in two steps. A node votes for the branch it stands
//! on ([`Head`]). Once a [`quorum`] votes for an entry, a node that sees this locks that entry, and keeps to it in
//! every later round unless it is shown a later lock. An entry that a quorum has locked is *recorded*: no branch
//! without it can ever be recorded, for any two quorums share a node that is honest, and that node is locked. Where a
//! log forks, nodes leave the round, choose one branch by a fixed rule ([`Ballot::choose`]) and vote anew.
//!
//! One vote alone is not enough: with 4 of 5 votes counted, a host that votes twice could let 4 nodes record a branch
//! which the others then find outvoted. Nothing here may look at a clock, at the broker, or at an entry's meaning.

mod ballot;
mod head;
#[cfg(test)]
mod model;
mod standing;
mod tree;

pub use self::ballot::{Ballot, Memory, Need};
pub use self::head::{Head, HeadError, Lock, SignedHead, Tip};
pub use self::standing::{Standing, Verdict};
pub use self::tree::Tree;

/// How many hosts may be hostile.
pub const HOSTILE: usize = 1;

/// How many of `nodes` are a quorum: any two share more nodes than may be hostile.
#[must_use]
pub const fn quorum(nodes: usize) -> usize {
    (nodes + HOSTILE).div_euclid(2) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_quorums_share_an_honest_node() {
        for nodes in 1..=20 {
            assert!(2 * quorum(nodes) > nodes + HOSTILE, "{nodes}");
            assert!(2 * (quorum(nodes) - 1) <= nodes + HOSTILE, "{nodes}: no larger than needed");
        }
        assert_eq!(quorum(5), 4);
    }
}
