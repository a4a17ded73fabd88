//! Reading: several nodes are asked, what does not chain is dropped, and one node's branch counts for that node only.

use ceremonies::record::{Tree, Verdict};
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::client::branches::{Budget, Misfit};
use crate::client::{ClientError, Reading, Troubles};
use crate::fork::{Fate, Fork, fork};
use crate::memory::{Seen, set_back_in};

/// When every entry here is appended, and long after that.
const APPENDED: UnixMillis = UnixMillis(1_800_000_000_000);
const LATER: UnixMillis = UnixMillis(1_800_000_060_000);

async fn read(fake: &Fake) -> Result<Reading, ClientError> {
    fake.nodes().read(&id(), &[]).await
}

#[tokio::test]
async fn log_is_read_in_pages_and_every_node_says_where_it_stands() {
    let log = log_of(8);
    let reading = read(&Fake::new(log.clone(), &[])).await.unwrap();
    assert_eq!(reading.log(), log);
    assert_eq!(reading.recorded().to_string(), "recorded by 5 of 5");
    assert_eq!(reading.recorded_tip(), Some(tip(&log)));
    assert!(reading.troubles().is_empty() && fork(&reading).is_none());
}

#[tokio::test]
async fn nodes_that_give_nothing_of_use_are_passed_over_and_named() {
    for way in [Way::Silent, Way::Absent, Way::Stranger, Way::Another, Way::Endless] {
        let log = log_of(5);
        let fake = Fake::new(log.clone(), &[(2, way)]);
        for _ in 0..2 {
            let reading = read(&fake).await.unwrap();
            assert_eq!(reading.log(), log, "{way:?}");
            assert!(reading.recorded().recorded, "{way:?}");
            if way != Way::Endless {
                assert!(reading.troubles().of(node(2)).is_some(), "{way:?}");
            }
        }
    }
}

#[tokio::test]
async fn reading_fails_with_each_nodes_reason_when_none_gives_anything() {
    let ways = [(1, Way::Absent), (2, Way::Absent), (3, Way::Another), (4, Way::Absent), (5, Way::Absent)];
    let error = read(&Fake::new(log_of(2), &ways)).await.unwrap_err().to_string();
    assert!(
        error.contains("nodes 1, 2, 4, 5 did not answer: not on the bus") || error.contains("not on the bus"),
        "{error}"
    );
    assert!(error.contains("node 3 did not answer: node 1 answered instead"), "{error}");
    let error = read(&Fake::new(Vec::new(), &[])).await.unwrap_err().to_string();
    assert!(error.contains("no such ceremony"), "{error}");
}

#[tokio::test]
async fn branch_of_one_node_is_not_shown_while_others_say_less() {
    let log = log_of(5);
    for first in 1..=5 {
        let fake = Fake::new(log.clone(), &[(3, Way::Honest)]);
        fake.world(|world| {
            world.private.insert(node(3), grown(&log, 3, "void"));
        });
        let nodes = fake.nodes();
        nodes.shared.turn.store(first, std::sync::atomic::Ordering::Relaxed);
        let reading = nodes.read(&id(), &[]).await.unwrap();
        assert_eq!(reading.log(), log);
    }
}

#[tokio::test]
async fn fork_is_shown_with_both_branches_and_who_signed_them() {
    let base = log_of(3);
    let (ours, theirs) = (grown(&base, 1, "ours"), grown(&grown(&base, 4, "theirs"), 4, "more"));
    let fake = Fake::new(ours.clone(), &[]);
    fake.world(|world| {
        world.locked = 3;
        world.private.insert(node(4), theirs.clone());
        world.private.insert(node(5), theirs.clone());
    });
    let reading = read(&fake).await.unwrap();
    assert_eq!(reading.log(), ours, "three stand on it");
    assert!(
        matches!(reading.verdict(4), Verdict::Unknown { by, elsewhere, .. } if by.len() == 3 && elsewhere.len() == 2)
    );
    let fork = fork(&reading).unwrap();
    assert_eq!((fork.after, fork.healed, fork.others.len()), (3, false, 1));
    assert_eq!(fork.others[0].nodes.iter().map(|stand| stand.node.get()).collect::<Vec<_>>(), [4, 5]);
    assert!(fork.others[0].entries.iter().all(|line| line.fate == Some(Fate::Undecided)));
    let text = fork.lines(LATER).join("\n");
    for part in
        ["FORK after entry 3", "round 0: votes of nodes 1, 2, 3", "votes of nodes 4, 5", "theirs", "ours"]
    {
        assert!(text.contains(part), "{part}:\n{text}");
    }
}

#[test]
fn healed_fork_says_what_became_of_the_branch_that_was_left() {
    let base = log_of(3);
    let left = grown(&grown(&base, 4, "kept"), 4, "lost");
    let main = grown(&grown(&base, 1, "ours"), 2, "kept");
    let branches = branches(&main, &[&left]);
    let heads: Vec<_> = (1..=5).map(|by| (by, head(by, &main, &main))).collect();
    let reading = Reading::new(id(), branches, own_heads(&heads), voices().members(), Troubles::default());
    let fork = fork(&reading).unwrap();
    assert!(fork.healed && reading.recorded().recorded);
    let fates: Vec<_> = fork.others[0].entries.iter().map(|line| line.fate).collect();
    assert_eq!(fates, [Some(Fate::TakenAgain(5)), Some(Fate::NotTaken)]);
    let text = fork.lines(LATER).join("\n");
    assert!(
        text.contains("healed")
            && text.contains("appended again as entry 5")
            && text.contains("not appended again"),
        "{text}"
    );
}

/// Where these nodes stand on these branches, of which the first is shown.
fn standing_on(branches: &Branches, heads: &[(u8, HeadNews)]) -> Reading {
    Reading::new(id(), branches.clone(), own_heads(heads), voices().members(), Troubles::default())
}

#[test]
fn two_entries_at_once_are_no_alarm_while_nodes_settle_and_one_once_that_takes_too_long() {
    let base = log_of(3);
    let (ours, theirs) = (grown(&base, 1, "ours"), grown(&base, 4, "theirs"));
    let branches = branches(&ours, &[&theirs]);
    let on = |by: u8| (by, head(by, if by < 4 { &ours } else { &theirs }, &base));
    let fork = fork(&standing_on(&branches, &[1, 2, 3, 4, 5].map(on))).unwrap();
    for soon in [0, 1500, 5000] {
        let now = APPENDED.plus(soon);
        let text = fork.lines(now).join("\n");
        assert!(fork.is_settling(now) && !fork.is_alarm(now));
        for part in ["two entries at once after entry 3: nodes are settling", "ours", "theirs", "nodes 4, 5"]
        {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert!(!text.contains("FORK"), "{text}");
    }
    for late in [5001, 3_600_000, -3000] {
        let now = APPENDED.plus(late);
        assert!(fork.is_alarm(now) && fork.lines(now)[0].starts_with("FORK after entry 3"), "{late}");
    }
}

#[test]
fn entry_that_one_node_alone_has_yet_is_no_alarm_until_it_stays_alone() {
    let base = log_of(3);
    let more = grown(&base, 4, "more");
    let branches = branches(&base, &[&more]);
    let on = |by: u8| (by, head(by, if by == 4 { &more } else { &base }, &base));
    let reading = standing_on(&branches, &[1, 2, 3, 4, 5].map(on));
    assert_eq!(reading.log(), base);
    let fork = fork(&reading).unwrap();
    let now = APPENDED.plus(900);
    assert!(fork.lines(now)[0].starts_with("an entry after entry 3 that not every node has yet"));
    assert!(fork.lines(now).join("\n").contains("votes of nodes 4") && fork.is_alarm(LATER));
}

#[test]
fn branch_of_one_node_beside_what_a_quorum_has_locked_keeps_nobody_from_signing() {
    let base = log_of(3);
    let (ours, theirs) = (grown(&base, 1, "ours"), grown(&base, 5, "theirs"));
    let branches = branches(&ours, &[&theirs]);
    let on = |by: u8| (by, if by == 5 { head(5, &theirs, &base) } else { head(by, &ours, &ours) });
    let fork = fork(&standing_on(&branches, &[1, 2, 3, 4, 5].map(on))).unwrap();
    assert!(fork.decided && !fork.healed && !fork.is_alarm(LATER));
    let text = fork.lines(LATER).join("\n");
    assert!(
        text.starts_with("node 5 on another branch after entry 3, which can never be recorded"),
        "{text}"
    );
    assert!(text.contains("theirs") && !text.contains("FORK"), "{text}");
}

#[test]
fn entries_that_one_node_claims_and_nobody_shows_keep_nobody_from_signing_and_those_of_two_do() {
    let log = log_of(4);
    let claimed = grown(&grown(&log, 5, "made up"), 5, "made up too");
    let claims = |by: &[u8]| {
        let on = |node: u8| {
            (node, if by.contains(&node) { head(node, &claimed, &log) } else { head(node, &log, &log) })
        };
        fork(&standing_on(&branches(&log, &[]), &[1, 2, 3, 4, 5].map(on))).unwrap()
    };
    let lone = claims(&[5]);
    let text = lone.lines(LATER).join("\n");
    assert!(
        text.starts_with("node 5 on another branch after entry 4, of which no node shows an entry"),
        "{text}"
    );
    assert!(!lone.is_alarm(LATER) && claims(&[4, 5]).is_alarm(LATER));
}

#[test]
fn fork_is_an_alarm_at_once_where_a_node_votes_twice_or_shows_no_entry() {
    let base = log_of(3);
    let (ours, theirs) = (grown(&base, 1, "ours"), grown(&base, 4, "theirs"));
    let now = APPENDED.plus(900);
    let on = |by: u8| (by, head(by, if by < 4 { &ours } else { &theirs }, &base));
    let mut heads = own_heads(&[1, 2, 3, 4, 5].map(on));
    heads.take(&voices(), &id(), node(1), vec![head(4, &ours, &base)]);
    let members = voices().members();
    let both = branches(&ours, &[&theirs]);
    let twice = fork(&Reading::new(id(), both, heads, members, Troubles::default())).unwrap();
    assert!(twice.is_alarm(now) && twice.began.is_none());
    let unseen = fork(&standing_on(&branches(&ours, &[]), &[1, 2, 3, 4, 5].map(on))).unwrap();
    assert!(unseen.is_alarm(now) && unseen.lines(now).join("\n").contains("no node shows its entries"));
}

#[test]
fn what_was_abandoned_before_does_not_make_the_next_contention_an_alarm() {
    let at = |ms: i64, log: &[Entry], by: u8, reason: &str| grown_at(APPENDED.plus(ms), log, by, reason);
    let base = log_of(3);
    let left = at(0, &base, 4, "left");
    let main = at(0, &base, 1, "kept");
    let (ours, theirs) = (at(60_000, &main, 1, "ours"), at(60_200, &main, 5, "theirs"));
    let branches = branches(&ours, &[&left, &theirs]);
    let on = |by: u8| (by, head(by, if by < 4 { &ours } else { &theirs }, &main));
    let fork = fork(&standing_on(&branches, &[1, 2, 3, 4, 5].map(on))).unwrap();
    let text = fork.lines(APPENDED.plus(61_000)).join("\n");
    assert!(text.starts_with("two entries at once after entry 4"), "{text}");
    assert!(text.contains("the abandoned branch") && text.contains("left: not appended again"), "{text}");
    assert!(fork.is_alarm(APPENDED.plus(70_000)));
}

#[test]
fn another_entry_in_the_same_place_does_not_make_a_lasting_fork_new() {
    let base = log_of(3);
    let forked = |ms: i64| {
        let made_up = grown_at(APPENDED.plus(ms), &base, 4, &format!("made up after {ms}"));
        let on = |by: u8| (by, head(by, if by == 4 { &made_up } else { &base }, &base));
        fork(&standing_on(&branches(&base, &[&made_up]), &[1, 2, 3, 4, 5].map(on))).unwrap()
    };
    let first = forked(0);
    let next = forked(4000);
    let now = APPENDED.plus(7000);
    assert!(next.is_settling(now));
    assert!(next.clone().seen_after(Some(&first)).is_alarm(now));
    assert!(next.clone().seen_after(None).is_settling(now));
    let elsewhere = Fork { after: 2, ..first };
    assert!(next.seen_after(Some(&elsewhere)).is_settling(now), "it has nothing to do with that one");
}

#[test]
fn entries_that_do_not_chain_are_refused() {
    let log = log_of(4);
    let mut branches = Branches::new(id(), &log[..2]);
    assert_eq!(branches.add(log[3].clone()), Err(Misfit::Unchained(4)));
    assert_eq!(branches.add(log[2].clone()), Ok(true));
    assert_eq!(branches.add(log[2].clone()), Ok(false));
    let elsewhere = Branches::new("dkg-x-1".parse().unwrap(), &[]).add(log[0].clone());
    assert_eq!(elsewhere, Err(Misfit::OtherCeremony(id())));
    let orphan = grown(&grown(&log_of(3), 5, "other"), 5, "orphan").pop().unwrap();
    assert_eq!(branches.add(orphan), Err(Misfit::Unchained(5)));
}

#[test]
fn budget_ends_with_the_last_entry_or_byte() {
    let log = log_of(3);
    let size = log[0].raw().body.len() + log[0].raw().signature.len();
    let mut entries = Budget::new(2, usize::MAX);
    assert!(entries.spend(&log[0]) && entries.spend(&log[1]) && !entries.spend(&log[2]));
    let mut bytes = Budget::new(9, size);
    assert!(bytes.spend(&log[0]) && !bytes.spend(&log[1]));
}

#[tokio::test]
async fn log_larger_than_its_budget_is_given_up() {
    let nodes = Fake::new(log_of(8), &[]).nodes();
    let given = nodes.pages(&voices(), &id(), node(1), 1, Budget::new(7, usize::MAX)).await;
    assert!(matches!(given, Err(Trouble::Overfull(_))));
    assert!(nodes.pages(&voices(), &id(), node(1), 1, Budget::new(8, usize::MAX)).await.is_ok());
}

#[test]
fn heads_of_others_clusters_and_ceremonies_count_for_nothing() {
    let log = log_of(2);
    let of = |change: &dyn Fn(&mut Head)| {
        let mut head = Head {
            cluster: KEYS.charter.cluster().clone(),
            ceremony: id(),
            node: node(2),
            round: 0,
            votes: true,
            tip: tip(&log),
            lock: Some(Lock { round: 0, tip: tip(&log) }),
            time: UnixMillis(0),
        };
        change(&mut head);
        head
    };
    let bad = [
        head_by(2, of(&|head| head.cluster = "other".parse().unwrap())),
        head_by(2, of(&|head| head.ceremony = "dkg-x-1".parse().unwrap())),
        head_by(3, of(&|_| ())),
        HeadNews::default(),
    ];
    let mut heads = Heads::default();
    heads.take(&voices(), &id(), node(2), bad.to_vec());
    assert!(heads.latest().is_empty());
    heads.take(&voices(), &id(), node(2), vec![head_by(2, of(&|_| ()))]);
    assert_eq!(heads.own().len(), 1);
}

#[test]
fn lock_that_is_relayed_of_a_silent_node_counts_and_an_old_place_does_not() {
    let log = log_of(3);
    let tree = Tree::of(&log);
    let mut heads = own_heads(&[1, 2, 3].map(|by| (by, head(by, &log, &log))));
    let members = voices().members();
    heads.take(&voices(), &id(), node(1), vec![head(4, &log[..1], &[])]);
    assert!(matches!(heads.verdict(&tree, &members, 3), Verdict::Majority { .. }));
    heads.take(&voices(), &id(), node(1), vec![head(4, &log, &log)]);
    assert!(matches!(heads.verdict(&tree, &members, 3), Verdict::Recorded { by } if by.len() == 4));
    // Older news does not replace newer news.
    heads.take(&voices(), &id(), node(2), vec![head(4, &log[..1], &[])]);
    assert!(matches!(heads.verdict(&tree, &members, 3), Verdict::Recorded { .. }));
}

#[test]
fn other_branch_that_is_relayed_of_a_silent_node_ends_a_majority() {
    let base = log_of(2);
    let (ours, theirs) = (grown(&base, 1, "ours"), grown(&base, 4, "theirs"));
    let branches = branches(&ours, &[&theirs]);
    let mut heads = own_heads(&[1, 2, 3].map(|by| (by, head(by, &ours, &[]))));
    let members = voices().members();
    assert!(matches!(heads.verdict(branches.tree(), &members, 3), Verdict::Majority { .. }));
    heads.take(&voices(), &id(), node(1), vec![head(4, &theirs, &[])]);
    assert!(matches!(heads.verdict(branches.tree(), &members, 3), Verdict::Unknown { .. }));
}

fn standing_at(log: &[Entry], nodes: &[u8]) -> Reading {
    let heads: Vec<_> = nodes.iter().map(|by| (*by, head(*by, log, log))).collect();
    let branches = Branches::new(id(), log);
    Reading::new(id(), branches, own_heads(&heads), voices().members(), Troubles::default())
}

#[test]
fn record_that_was_set_back_is_noticed_and_its_nodes_are_named() {
    let log = log_of(5);
    let seen = Seen { seq: 5, hash: tip(&log).hash, at: UnixMillis(0) };
    let soon = UnixMillis(1_000);
    assert_eq!(set_back_in(&seen, &standing_at(&log, &[1, 2, 3, 4]), soon), None);
    assert_eq!(set_back_in(&seen, &standing_at(&grown(&log, 1, "more"), &[1, 2]), soon), None);
    let back = set_back_in(&seen, &standing_at(&log[..3], &[1, 2, 3, 4, 5]), soon).unwrap();
    assert_eq!((back.nodes.len(), back.other), (5, false));
    let text = back.to_string();
    assert!(
        text.contains("nodes 1, 2, 3, 4, 5 show an older log of dkg-w-1")
            && text.contains("rolled stores back"),
        "{text}"
    );
    let other = grown(&log_of(4), 2, "another fifth");
    let back = set_back_in(&seen, &standing_at(&other, &[2, 3]), soon).unwrap();
    assert!(back.other && back.to_string().contains("show another log"), "{back}");
}

#[test]
fn one_node_alone_may_lag_for_a_while() {
    let log = log_of(5);
    let seen = Seen { seq: 5, hash: tip(&log).hash, at: UnixMillis(0) };
    let reading = standing_at(&log[..4], &[3]);
    assert_eq!(set_back_in(&seen, &reading, UnixMillis(1_000)), None);
    assert!(set_back_in(&seen, &reading, UnixMillis(120_000)).is_some());
}

#[test]
fn what_is_remembered_is_read_back_and_never_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::in_folder(Some(folder.path().join("a/b")));
    let log = log_of(4);
    assert!(memory.log(&id()).is_empty() && memory.seen(&id()).is_none());
    memory.keep(&id(), &log);
    assert_eq!(memory.log(&id()), log);
    memory.saw(&id(), tip(&log));
    memory.saw(&id(), tip(&log[..2]));
    assert_eq!(
        memory.last_seen(8).into_iter().map(|(id, seen)| (id, seen.seq)).collect::<Vec<_>>(),
        [(id(), 4)]
    );
    // What was damaged is read as far as it chains.
    let file = folder.path().join("a/b").join(format!("{}.binpb", id()));
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(memory.log(&id()).len() < 4);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder.path().join("a/b")), 0o700);
    memory.keep(&id(), &log);
    assert_eq!(mode(&file), 0o600);
    assert!(Memory::default().log(&id()).is_empty());
}
