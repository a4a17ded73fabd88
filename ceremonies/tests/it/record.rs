//! Heads, trees, ballots and verdicts: what nodes sign of a log, and what follows from it.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;

use ceremonies::ids::{CeremonyId, Hash, NodeIndex, UnixMillis};
use ceremonies::record::{Ballot, Head, HeadError, Lock, Memory, SignedHead, Standing, Tip, Tree, Verdict};
use ceremonies::wire::record as wire;
use prost::Message as _;

use crate::cluster::{CHARTER, draft, nkey, node, written};
use crate::machine::NOW;

fn id() -> CeremonyId {
    "dkg-treasury-1".parse().unwrap()
}

fn members() -> BTreeSet<NodeIndex> {
    (1..=5).map(node).collect()
}

/// The entry of this name and number.
fn tip(seq: u64, name: &str) -> Tip {
    Tip { seq, hash: Hash::of_bytes(format!("{name}{seq}").as_bytes()) }
}

/// A tree that stands on `a1 … an`.
fn trunk(len: u64) -> Tree {
    let mut tree = Tree::default();
    for seq in 1..=len {
        tree.grow(tip(seq, "a").hash);
    }
    tree
}

/// Adds the branch that follows `a<from>` up to number `to`.
fn branch(tree: &mut Tree, name: &str, from: u64, to: u64) {
    let mut before = if from == 0 { Tip::ROOT } else { tip(from, "a") };
    for seq in from + 1..=to {
        let next = tip(seq, name);
        tree.put_aside(seq, next.hash, before.hash);
        before = next;
    }
}

fn head(by: u8, round: u32, votes: bool, tip: Tip, lock: Option<Lock>) -> SignedHead {
    signed(
        &format!("node {by}"),
        Head {
            cluster: CHARTER.cluster().clone(),
            ceremony: id(),
            node: node(by),
            round,
            votes,
            tip,
            lock,
            time: NOW,
        },
    )
}

fn signed(key: &str, head: Head) -> SignedHead {
    SignedHead::create(head, |message| nkey(key).sign(message)).unwrap()
}

fn vote(by: u8, round: u32, tip: Tip) -> SignedHead {
    head(by, round, true, tip, None)
}

fn locked(by: u8, round: u32, tip: Tip) -> SignedHead {
    head(by, round, true, tip, Some(Lock { round, tip }))
}

/// The ballot of node 1, which stands on the tree's main branch and votes for it.
fn ballot(tree: &Tree, memory: Memory) -> Ballot {
    let mut ballot = Ballot::new(node(1), memory);
    say(&mut ballot, tree);
    ballot
}

fn say(ballot: &mut Ballot, tree: &Tree) {
    let memory = ballot.memory().clone();
    let own = head(1, memory.round, !memory.undecided, tree.tip(), memory.lock);
    ballot.hear(tree, &members(), own, memory.proof);
}

fn hear(ballot: &mut Ballot, tree: &Tree, heads: impl IntoIterator<Item = SignedHead>) {
    for head in heads {
        ballot.hear(tree, &members(), head, Vec::new());
    }
}

fn at_round(round: u32) -> Memory {
    Memory { round, undecided: true, ..Memory::default() }
}

fn nothing_commits(_: Tip) -> bool {
    false
}

// Heads

#[test]
fn head_says_what_was_signed_after_it_travelled() {
    let head = locked(3, 2, tip(7, "a"));
    let raw = wire::Head::decode(head.raw().encode_to_vec().as_slice()).unwrap();
    let read = SignedHead::from_wire(raw).unwrap();
    assert_eq!(read, head);
    assert!(read.is_by_its_node(&CHARTER));
}

#[test]
fn head_is_nobodys_when_anything_in_it_differs_from_what_was_signed() {
    let head = locked(3, 2, tip(7, "a"));
    let body = wire::HeadBody::decode(head.raw().body.as_slice()).unwrap();
    let lock = body.lock.clone().unwrap();
    let changed = [
        wire::HeadBody { node: 4, ..body.clone() },
        wire::HeadBody { round: 3, ..body.clone() },
        wire::HeadBody { votes: false, ..body.clone() },
        wire::HeadBody { seq: 8, ..body.clone() },
        wire::HeadBody { hash: vec![1; 32], ..body.clone() },
        wire::HeadBody { lock: None, ..body.clone() },
        wire::HeadBody { lock: Some(wire::Lock { round: 1, ..lock }), ..body.clone() },
        wire::HeadBody { time_ms: 1, ..body.clone() },
        wire::HeadBody { ceremony: "dkg-treasury-2".into(), ..body.clone() },
        wire::HeadBody { cluster: "other".into(), ..body },
    ];
    for body in changed {
        let raw = wire::Head { body: body.encode_to_vec(), signature: head.raw().signature.clone() };
        assert!(!SignedHead::from_wire(raw).unwrap().is_by_its_node(&CHARTER), "{body:?}");
    }
}

#[test]
fn head_is_nobodys_when_another_key_signed_it_or_its_node_is_excluded_or_unknown_or_of_another_cluster() {
    let right = locked(3, 2, tip(7, "a")).head().clone();
    assert!(!signed("node 4", right.clone()).is_by_its_node(&CHARTER));
    assert!(!signed("node 6", Head { node: node(6), ..right.clone() }).is_by_its_node(&CHARTER));
    let elsewhere = Head { cluster: "elsewhere".parse().unwrap(), ..right.clone() };
    assert!(!signed("node 3", elsewhere).is_by_its_node(&CHARTER));
    let mut draft = draft();
    draft.amends = Some(CHARTER.hash());
    draft.nodes[2].excluded = true;
    assert!(!signed("node 3", right).is_by_its_node(&written(&draft).unwrap()));
}

#[test]
fn head_is_refused_when_it_is_malformed() {
    let head = locked(3, 2, tip(7, "a"));
    let body = wire::HeadBody::decode(head.raw().body.as_slice()).unwrap();
    let raw = |body: &wire::HeadBody| wire::Head { body: body.encode_to_vec(), signature: vec![0; 64] };
    let refused = |body: &wire::HeadBody| SignedHead::from_wire(raw(body)).unwrap_err();
    assert_eq!(refused(&wire::HeadBody { version: 2, ..body.clone() }), HeadError::Version(2));
    for malformed in [
        wire::HeadBody { hash: vec![0; 31], ..body.clone() },
        wire::HeadBody { node: 0, ..body.clone() },
        wire::HeadBody { node: 1000, ..body.clone() },
        wire::HeadBody { ceremony: "No Name".into(), ..body.clone() },
        wire::HeadBody { lock: Some(wire::Lock { hash: vec![], ..wire::Lock::default() }), ..body.clone() },
    ] {
        assert!(matches!(refused(&malformed), HeadError::Field(_)), "{malformed:?}");
    }
    let long = wire::Head { body: head.raw().body.clone(), signature: vec![0; 600] };
    assert!(matches!(SignedHead::from_wire(long), Err(HeadError::TooLarge(_))));
    let junk = wire::Head { body: vec![0xff; 20], signature: vec![0; 64] };
    assert!(matches!(SignedHead::from_wire(junk), Err(HeadError::Encoding(_))));
}

// Trees

#[test]
fn tree_knows_its_branches_and_where_they_part() {
    let mut tree = trunk(4);
    branch(&mut tree, "b", 2, 4);
    assert_eq!(tree.branch(tip(4, "b")).unwrap(), [tip(1, "a"), tip(2, "a"), tip(3, "b"), tip(4, "b")]);
    assert_eq!(tree.shared(tip(4, "b")), Some(2));
    assert_eq!(tree.contains(tip(4, "b"), tip(2, "a")), Some(true));
    assert_eq!(tree.contains(tip(4, "b"), tip(3, "a")), Some(false));
    assert_eq!(tree.contains(tip(2, "a"), tip(4, "a")), Some(false), "what comes later is not in it");
    assert_eq!(tree.conflicts(tip(4, "b"), tip(2, "a")), Some(false));
    assert_eq!(tree.conflicts(tip(4, "b"), tip(4, "a")), Some(true));
    assert_eq!(tree.contains(tip(4, "b"), Tip::ROOT), Some(true));
}

#[test]
fn tree_says_nothing_of_what_it_does_not_know() {
    let mut tree = trunk(2);
    let orphan = tip(5, "c");
    tree.put_aside(5, orphan.hash, tip(4, "c").hash);
    assert_eq!(tree.branch(orphan), None);
    assert_eq!(tree.shared(orphan), None);
    assert_eq!(tree.contains(orphan, tip(2, "a")), None);
    assert_eq!(tree.conflicts(orphan, tip(2, "a")), None);
    assert!(!tree.knows(tip(3, "a")));
    assert_eq!(tree.at(3), None);
    let elsewhere = Tip { seq: 4, hash: orphan.hash };
    assert!(!tree.knows(elsewhere), "another number is another entry");
    assert_eq!(tree.before(elsewhere), None);
}

#[test]
fn tree_stands_on_another_branch_and_keeps_the_one_before() {
    let mut tree = trunk(4);
    branch(&mut tree, "b", 2, 5);
    let other = tree.aside_len();
    assert!(tree.stand_on(tip(5, "b")));
    assert_eq!(tree.tip(), tip(5, "b"));
    assert_eq!(tree.shared(tip(4, "a")), Some(2));
    assert_eq!(tree.aside_len(), other - 3 + 2);
    assert!(tree.stand_on(tip(4, "a")) && tree.tip() == tip(4, "a"));
}

#[test]
fn tree_stays_where_it_is_when_the_branch_is_not_known() {
    let mut tree = trunk(3);
    tree.put_aside(6, tip(6, "c").hash, tip(5, "c").hash);
    let before = tree.clone();
    assert!(!tree.stand_on(tip(6, "c")) && !tree.stand_on(tip(9, "a")));
    assert_eq!(tree, before);
}

#[test]
fn tree_puts_nothing_aside_that_stands_on_the_main_branch() {
    let mut tree = trunk(3);
    tree.put_aside(2, tip(2, "a").hash, tip(1, "a").hash);
    assert_eq!(tree.aside_len(), 0);
    branch(&mut tree, "b", 3, 4);
    tree.grow(tip(4, "b").hash);
    assert_eq!(tree.aside_len(), 0, "what the main branch grows by is not aside any more");
}

// Ballots

#[test]
fn ballot_locks_the_last_entry_that_a_quorum_votes_for() {
    let tree = trunk(5);
    let mut ballot = ballot(&tree, Memory::default());
    hear(&mut ballot, &tree, [vote(2, 0, tip(5, "a")), vote(3, 0, tip(4, "a")), vote(4, 0, tip(3, "a"))]);
    assert!(ballot.lock(&tree, &members()));
    assert_eq!(ballot.memory().lock, Some(Lock { round: 0, tip: tip(3, "a") }));
    assert_eq!(ballot.memory().proof.len(), 4);
    assert!(!ballot.lock(&tree, &members()), "the same again is nothing new");
    hear(&mut ballot, &tree, [vote(4, 0, tip(5, "a"))]);
    assert!(ballot.lock(&tree, &members()));
    assert_eq!(ballot.memory().lock, Some(Lock { round: 0, tip: tip(4, "a") }));
}

#[test]
fn ballot_locks_nothing_without_a_quorum_that_votes_in_its_round_for_its_branch() {
    let mut tree = trunk(3);
    branch(&mut tree, "b", 0, 3);
    let cases: [(&str, Vec<SignedHead>); 6] = [
        ("three votes", vec![vote(2, 0, tip(3, "a")), vote(3, 0, tip(3, "a"))]),
        ("another round", vec![vote(2, 0, tip(3, "a")), vote(3, 0, tip(3, "a")), vote(4, 1, tip(3, "a"))]),
        (
            "a round that was only left",
            vec![vote(2, 0, tip(3, "a")), vote(3, 0, tip(3, "a")), head(4, 0, false, tip(3, "a"), None)],
        ),
        ("another branch", vec![vote(2, 0, tip(3, "a")), vote(3, 0, tip(3, "a")), vote(4, 0, tip(3, "b"))]),
        (
            "a branch that is not known",
            vec![vote(2, 0, tip(3, "a")), vote(3, 0, tip(3, "a")), vote(4, 0, tip(3, "c"))],
        ),
        ("a stranger", vec![vote(2, 0, tip(3, "a")), vote(3, 0, tip(3, "a")), vote(6, 0, tip(3, "a"))]),
    ];
    for (case, heads) in cases {
        let mut ballot = ballot(&tree, Memory::default());
        hear(&mut ballot, &tree, heads);
        assert!(!ballot.lock(&tree, &members()), "{case}");
    }
    let mut left = ballot(&tree, at_round(0));
    hear(&mut left, &tree, (2..=5).map(|by| vote(by, 0, tip(3, "a"))));
    assert!(!left.lock(&tree, &members()), "whoever has not voted itself");
}

#[test]
fn ballot_does_not_count_who_votes_for_two_branches_in_one_round() {
    let mut tree = trunk(3);
    branch(&mut tree, "b", 0, 3);
    let mut ballot = ballot(&tree, Memory::default());
    hear(&mut ballot, &tree, [vote(2, 0, tip(3, "b")), vote(2, 0, tip(3, "a"))]);
    hear(&mut ballot, &tree, [vote(3, 0, tip(3, "a")), vote(4, 0, tip(3, "a"))]);
    assert_eq!(ballot.two_faced().keys().copied().collect::<Vec<_>>(), [node(2)]);
    assert!(!ballot.lock(&tree, &members()));
    hear(&mut ballot, &tree, [vote(5, 0, tip(3, "a"))]);
    assert!(ballot.lock(&tree, &members()), "the honest ones are a quorum");
}

#[test]
fn node_that_voted_twice_counts_again_in_the_next_round() {
    let mut tree = trunk(3);
    branch(&mut tree, "b", 0, 3);
    let mut ballot = ballot(&tree, at_round(1));
    hear(&mut ballot, &tree, [vote(2, 0, tip(3, "b")), vote(2, 0, tip(3, "a"))]);
    hear(&mut ballot, &tree, [vote(3, 1, tip(3, "b")), vote(4, 1, tip(3, "b")), vote(5, 1, tip(3, "a"))]);
    let opponents = ballot.opponents(&tree, &members());
    assert_eq!(opponents, [node(3), node(4)], "what it said in that round is said by nobody");
    hear(&mut ballot, &tree, [vote(2, 1, tip(3, "b"))]);
    assert_eq!(ballot.opponents(&tree, &members()), [node(2), node(3), node(4)]);
    hear(&mut ballot, &tree, [vote(2, 1, tip(3, "a"))]);
    assert_eq!(ballot.opponents(&tree, &members()), opponents, "until it votes twice in that one too");
}

#[test]
fn whoever_hears_what_is_passed_on_leaves_out_the_same_nodes() {
    let mut tree = trunk(3);
    branch(&mut tree, "b", 1, 4);
    // Two nodes that stand on either branch have each heard another vote of node 3 first, and one of them both.
    let (ours, theirs) = (vote(3, 0, tip(3, "a")), vote(3, 0, tip(4, "b")));
    for (first, second) in [(&ours, &theirs), (&theirs, &ours)] {
        let mut knows_both = ballot(&tree, Memory::default());
        hear(&mut knows_both, &tree, [first.clone(), second.clone()]);
        for known in [&ours, &theirs] {
            let mut knows_one = ballot(&tree, Memory::default());
            hear(&mut knows_one, &tree, [known.clone()]);
            assert!(knows_one.two_faced().is_empty());
            hear(&mut knows_one, &tree, knows_both.passed_on().map(|(head, _)| head.clone()));
            assert!(knows_one.two_faced().contains_key(&node(3)));
        }
    }
}

#[test]
fn node_is_not_two_faced_when_it_votes_for_another_branch_in_another_round_or_for_more_of_one() {
    let mut tree = trunk(3);
    branch(&mut tree, "b", 0, 3);
    let mut ballot = ballot(&tree, Memory::default());
    hear(&mut ballot, &tree, [vote(2, 0, tip(1, "b")), vote(2, 0, tip(3, "b"))]);
    hear(&mut ballot, &tree, [head(2, 1, false, tip(3, "a"), None), vote(2, 1, tip(3, "a"))]);
    assert!(ballot.two_faced().is_empty());
}

#[test]
fn ballot_passes_over_old_statements() {
    let tree = trunk(5);
    let mut ballot = ballot(&tree, Memory::default());
    let latest = locked(2, 1, tip(4, "a"));
    assert!(ballot.hear(&tree, &members(), latest.clone(), Vec::new()));
    for old in [
        latest.clone(),
        vote(2, 1, tip(4, "a")),
        vote(2, 1, tip(3, "a")),
        head(2, 1, false, tip(5, "a"), None),
        vote(2, 0, tip(5, "a")),
    ] {
        assert!(!ballot.hear(&tree, &members(), old.clone(), Vec::new()), "{old:?}");
        assert_eq!(ballot.head_of(node(2)), Some(&latest));
    }
}

#[test]
fn ballot_takes_the_proof_of_a_lock_that_comes_after_the_statement() {
    let mut tree = trunk(3);
    branch(&mut tree, "b", 1, 3);
    let lock = Lock { round: 0, tip: tip(3, "b") };
    let theirs = head(2, 1, false, tip(3, "b"), Some(lock));
    let proof: Vec<SignedHead> = (2..=5).map(|by| vote(by, 0, tip(3, "b"))).collect();
    let mut ballot = ballot(&tree, at_round(1));
    assert!(ballot.hear(&tree, &members(), theirs.clone(), Vec::new()));
    assert_eq!(ballot.choose(&tree, &members(), nothing_commits).seq, 3);
    assert!(!ballot.hear(&tree, &members(), theirs.clone(), proof[1..].to_vec()), "no quorum");
    assert!(ballot.hear(&tree, &members(), theirs.clone(), proof.clone()));
    assert!(!ballot.hear(&tree, &members(), theirs, Vec::new()), "it does not go away again");
    assert_eq!(ballot.choose(&tree, &members(), nothing_commits), tip(3, "b"));
}

#[test]
fn ballot_believes_no_lock_without_the_votes_of_a_quorum_for_it() {
    let mut tree = trunk(3);
    branch(&mut tree, "b", 1, 3);
    let lock = Lock { round: 4, tip: tip(3, "b") };
    let claim = head(2, 5, false, tip(3, "b"), Some(lock));
    let good: Vec<SignedHead> = (2..=5).map(|by| vote(by, 4, tip(3, "b"))).collect();
    let others = |bad: SignedHead| [&good[..3], &[bad]].concat();
    let cases = [
        ("none", Vec::new()),
        ("three", good[..3].to_vec()),
        ("one twice", others(good[0].clone())),
        ("another round", others(vote(5, 3, tip(3, "b")))),
        ("not a vote", others(head(5, 4, false, tip(3, "b"), None))),
        ("another branch", others(vote(5, 4, tip(3, "a")))),
        ("less of it", others(vote(5, 4, tip(2, "b")))),
        ("a stranger", others(vote(6, 4, tip(3, "b")))),
        ("a branch that is not known", others(vote(5, 4, tip(9, "c")))),
    ];
    let own = Memory { lock: Some(Lock { round: 3, tip: tip(3, "a") }), ..at_round(5) };
    for (case, proof) in cases {
        let mut ballot = ballot(&tree, own.clone());
        ballot.hear(&tree, &members(), claim.clone(), proof);
        hear(&mut ballot, &tree, (3..=5).map(|by| head(by, 5, false, tip(3, "b"), None)));
        assert_eq!(ballot.choose(&tree, &members(), nothing_commits), tip(3, "a"), "{case}");
    }
    let mut ballot = ballot(&tree, own);
    ballot.hear(&tree, &members(), claim, good);
    assert_eq!(ballot.choose(&tree, &members(), nothing_commits), tip(3, "b"));
}

#[test]
fn ballot_keeps_to_its_lock_when_an_earlier_one_or_any_majority_stands_elsewhere() {
    let mut tree = trunk(3);
    branch(&mut tree, "b", 1, 3);
    let own = Memory { lock: Some(Lock { round: 3, tip: tip(2, "a") }), ..at_round(5) };
    let mut ballot = ballot(&tree, own);
    let lock = Lock { round: 2, tip: tip(3, "b") };
    let proof = (2..=5).map(|by| vote(by, 2, tip(3, "b"))).collect();
    ballot.hear(&tree, &members(), head(2, 5, false, tip(3, "b"), Some(lock)), proof);
    hear(&mut ballot, &tree, (3..=5).map(|by| head(by, 5, false, tip(3, "b"), None)));
    assert_eq!(ballot.choose(&tree, &members(), |tip| tip.hash == self::tip(3, "b").hash), tip(3, "a"));
}

#[test]
fn lock_on_more_of_a_branch_outlives_a_later_one_on_less_of_it() {
    let mut tree = trunk(6);
    branch(&mut tree, "b", 3, 5);
    let held = Lock { round: 0, tip: tip(6, "a") };
    let mut ballot = ballot(&tree, Memory { round: 1, lock: Some(held), ..Memory::default() });
    hear(&mut ballot, &tree, [2, 3, 4].map(|by| vote(by, 1, tip(3, "a"))));
    assert!(!ballot.lock(&tree, &members()), "a quorum may have locked what is held");
    assert_eq!(ballot.memory().lock, Some(held));
    // Nor does anybody else's, with its proof, make this node leave the branch.
    ballot.leave(2);
    say(&mut ballot, &tree);
    let later = Lock { round: 1, tip: tip(3, "a") };
    let proof = [2, 3, 4, 5].map(|by| vote(by, 1, tip(3, "a"))).to_vec();
    ballot.hear(&tree, &members(), head(2, 2, false, tip(5, "b"), Some(later)), proof);
    hear(&mut ballot, &tree, [3, 4, 5].map(|by| head(by, 2, false, tip(5, "b"), None)));
    assert_eq!(ballot.choose(&tree, &members(), nothing_commits), tip(6, "a"));
}

#[test]
fn lock_gives_way_to_a_later_one_of_the_same_branch_or_of_one_that_was_chosen_since() {
    let mut tree = trunk(4);
    let held = Lock { round: 0, tip: tip(3, "a") };
    let mut longer = ballot(&tree, Memory { round: 1, lock: Some(held), ..Memory::default() });
    hear(&mut longer, &tree, [2, 3, 4].map(|by| vote(by, 1, tip(3, "a"))));
    assert!(longer.lock(&tree, &members()));
    assert_eq!(longer.memory().lock, Some(Lock { round: 1, tip: tip(3, "a") }));

    branch(&mut tree, "b", 1, 4);
    tree.stand_on(tip(4, "b"));
    let mut other = ballot(&tree, Memory { round: 1, lock: Some(held), ..Memory::default() });
    hear(&mut other, &tree, [2, 3, 4].map(|by| vote(by, 1, tip(4, "b"))));
    assert!(other.lock(&tree, &members()));
    assert_eq!(other.memory().lock, Some(Lock { round: 1, tip: tip(4, "b") }));
}

#[test]
fn ballot_chooses_what_commits_then_what_more_stand_on_then_the_smaller_hash() {
    let mut tree = trunk(3);
    branch(&mut tree, "b", 1, 3);
    let stand = |by, name: &str| head(by, 1, false, tip(3, name), None);
    let mut ballot = ballot(&tree, at_round(1));
    hear(&mut ballot, &tree, [stand(2, "a"), stand(3, "b"), stand(4, "b"), stand(5, "b")]);
    assert_eq!(ballot.choose(&tree, &members(), nothing_commits), tip(3, "b"), "more stand there");
    let commits = |at: Tip| at == tip(3, "a");
    assert_eq!(ballot.choose(&tree, &members(), commits), tip(3, "a"), "a certificate weighs more");
    hear(&mut ballot, &tree, [head(5, 1, false, tip(1, "a"), None)]);
    let smaller = [tip(2, "a"), tip(2, "b")].into_iter().min_by_key(|tip| tip.hash).unwrap();
    let chosen = ballot.choose(&tree, &members(), nothing_commits);
    assert_eq!(tree.contains(chosen, smaller), Some(true));
}

#[test]
fn ballot_chooses_nothing_that_it_does_not_know_whole() {
    let tree = trunk(2);
    let mut ballot = ballot(&tree, at_round(1));
    hear(&mut ballot, &tree, (2..=5).map(|by| head(by, 1, false, tip(9, "c"), None)));
    assert_eq!(ballot.choose(&tree, &members(), nothing_commits), tip(2, "a"));
    assert_eq!(ballot.needs(&tree).len(), 4);
    let lost = Memory { lock: Some(Lock { round: 0, tip: tip(7, "d") }), ..at_round(1) };
    let forgetful = self::ballot(&tree, lost);
    assert_eq!(forgetful.choose(&tree, &members(), nothing_commits), tip(2, "a"));
}

#[test]
fn ballot_follows_rounds_that_more_have_gone_to_than_may_be_hostile() {
    let tree = trunk(2);
    let mut ballot = ballot(&tree, Memory::default());
    hear(&mut ballot, &tree, [head(2, u32::MAX, false, tip(2, "a"), None)]);
    assert_eq!(ballot.round_to_follow(&members()), None, "one may say anything");
    assert!(ballot.somebody_went_on(&members()));
    hear(&mut ballot, &tree, [head(6, 7, false, tip(2, "a"), None)]);
    assert_eq!(ballot.round_to_follow(&members()), None, "a stranger is nobody");
    hear(&mut ballot, &tree, [head(3, 4, false, tip(2, "a"), None)]);
    assert_eq!(ballot.round_to_follow(&members()), Some(4));
    ballot.leave(4);
    assert_eq!(ballot.round_to_follow(&members()), None);
    assert!(!ballot.votes());
    ballot.leave(3);
    assert_eq!(ballot.memory().round, 4, "never back");
}

#[test]
fn ballot_is_outvoted_when_so_many_stand_elsewhere_that_no_quorum_is_left() {
    let mut tree = trunk(3);
    branch(&mut tree, "b", 1, 3);
    let mut ballot = ballot(&tree, Memory::default());
    hear(&mut ballot, &tree, [vote(2, 0, tip(3, "b")), vote(3, 0, tip(1, "a")), vote(4, 0, tip(9, "c"))]);
    assert_eq!(ballot.opponents(&tree, &members()), [node(2)], "not who is behind, nor what is not known");
    assert!(!ballot.is_outvoted(&tree, &members()));
    hear(&mut ballot, &tree, [vote(5, 0, tip(2, "b"))]);
    assert!(ballot.is_outvoted(&tree, &members()));
}

// Verdicts

fn verdict(tree: &Tree, heads: &[SignedHead], seq: u64) -> Verdict {
    Standing::new(tree, heads, &members()).verdict(seq)
}

#[test]
fn entry_is_recorded_when_a_quorum_has_locked_it_or_a_later_one_in_one_round() {
    let tree = trunk(4);
    let heads = [
        locked(1, 2, tip(3, "a")),
        locked(2, 2, tip(4, "a")),
        locked(3, 2, tip(3, "a")),
        locked(4, 2, tip(4, "a")),
    ];
    let by = (1..=4).map(node).collect();
    assert_eq!(verdict(&tree, &heads, 3), Verdict::Recorded { by });
    assert_eq!(Standing::new(&tree, &heads, &members()).recorded_to(), 3);
}

#[test]
fn entry_is_not_recorded_by_votes_nor_by_locks_of_several_rounds_branches_or_strangers() {
    let mut tree = trunk(4);
    branch(&mut tree, "b", 2, 4);
    let heads = [locked(1, 2, tip(4, "a")), locked(2, 2, tip(4, "a")), locked(3, 2, tip(4, "a"))];
    let cases: [(&str, SignedHead); 7] = [
        ("a vote", vote(4, 2, tip(4, "a"))),
        ("another round", locked(4, 1, tip(4, "a"))),
        ("a later round", locked(4, 3, tip(4, "a"))),
        ("another branch", locked(4, 2, tip(4, "b"))),
        ("less", locked(4, 2, tip(3, "a"))),
        ("one of them again", locked(3, 2, tip(4, "a"))),
        ("a stranger", locked(6, 2, tip(4, "a"))),
    ];
    for (case, fourth) in cases {
        let heads = [&heads[..], &[fourth]].concat();
        assert!(!matches!(verdict(&tree, &heads, 4), Verdict::Recorded { .. }), "{case}");
        assert!(Standing::new(&tree, &heads, &members()).recorded_to() < 4, "{case}");
    }
    let all: Vec<SignedHead> = (1..=5).map(|by| vote(by, 0, tip(4, "a"))).collect();
    assert!(!matches!(verdict(&tree, &all, 4), Verdict::Recorded { .. }), "five votes");
}

#[test]
fn last_head_of_a_node_counts() {
    let tree = trunk(4);
    let mut heads: Vec<SignedHead> = (1..=4).map(|by| locked(by, 0, tip(4, "a"))).collect();
    heads.push(head(4, 1, false, tip(4, "a"), None));
    assert!(!matches!(verdict(&tree, &heads, 4), Verdict::Recorded { .. }));
}

#[test]
fn majority_is_said_only_when_no_other_branch_was_seen_and_the_rest_is_silent() {
    let mut tree = trunk(4);
    branch(&mut tree, "b", 2, 4);
    let heads: Vec<SignedHead> = (1..=3).map(|by| vote(by, 0, tip(4, "a"))).collect();
    let (by, silent) = ((1..=3).map(node).collect(), vec![node(4), node(5)]);
    assert_eq!(verdict(&tree, &heads, 4), Verdict::Majority { by, silent });
    for (case, fourth) in [
        ("another branch", vote(4, 0, tip(4, "b"))),
        ("one that is not known", vote(4, 0, tip(4, "c"))),
        ("one that is behind and speaks", vote(4, 0, tip(3, "a"))),
    ] {
        let heads = [&heads[..], &[fourth]].concat();
        assert!(matches!(verdict(&tree, &heads, 4), Verdict::Unknown { .. }), "{case}");
    }
    assert!(matches!(verdict(&tree, &heads[..2], 4), Verdict::Unknown { .. }), "two of five");
    assert!(matches!(verdict(&tree, &[], 4), Verdict::Unknown { .. }));
}

#[test]
fn other_branches_are_named_with_those_who_stand_on_them() {
    let mut tree = trunk(4);
    branch(&mut tree, "b", 2, 4);
    let heads = [
        vote(1, 0, tip(4, "a")),
        vote(2, 0, tip(4, "b")),
        vote(3, 0, tip(4, "b")),
        vote(4, 0, tip(9, "c")),
        vote(5, 0, tip(2, "a")),
    ];
    let others = Standing::new(&tree, &heads, &members()).other_branches();
    let expected = [(tip(4, "b"), vec![node(2), node(3)]), (tip(9, "c"), vec![node(4)])];
    assert_eq!(others, expected.into());
}

#[test]
fn time_of_a_head_decides_nothing() {
    let tree = trunk(2);
    let mut ballot = ballot(&tree, Memory::default());
    let late = Head { time: UnixMillis(i64::MAX), ..vote(2, 0, tip(1, "a")).head().clone() };
    hear(&mut ballot, &tree, [signed("node 2", late)]);
    let next = Head { time: UnixMillis(0), ..vote(2, 0, tip(2, "a")).head().clone() };
    assert!(ballot.hear(&tree, &members(), signed("node 2", next), Vec::new()));
}
