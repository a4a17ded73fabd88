//! Lists: what nodes say together, and where they differ.

use super::*;
use crate::client::Troubles;
use crate::client::catalogue::{Catalogue, Summary};
use crate::memory::{Seen, set_back_in_list};

/// Long after what the lists tell of.
const LATER: UnixMillis = UnixMillis(1_800_000_000_000);

fn summary(seq: u64, opened: i64) -> Summary {
    Summary {
        tip: Tip { seq, hash: Hash::of_bytes(&seq.to_be_bytes()) },
        kind: "dkg".to_owned(),
        wallet: "w".to_owned(),
        generation: 1,
        phase: "gathering".to_owned(),
        opened: UnixMillis(opened),
        last: UnixMillis(opened),
    }
}

fn merged(lists: &[(u8, &[(&str, Summary)])]) -> Catalogue {
    let list = |list: &[(&str, Summary)]| {
        list.iter().map(|(id, summary)| (id.parse().unwrap(), summary.clone())).collect()
    };
    let lists = lists.iter().map(|(by, of)| (node(*by), list(of))).collect();
    Catalogue::merged(lists, Troubles::default())
}

#[test]
fn lists_are_brought_together_latest_first_and_last_what_only_one_of_several_lists() {
    let catalogue = merged(&[
        (1, &[("dkg-a-1", summary(3, 10)), ("dkg-b-1", summary(2, 90)), ("dkg-c-1", summary(2, 20))]),
        (2, &[("dkg-a-1", summary(3, 10)), ("dkg-c-1", summary(2, 20))]),
    ]);
    let ids: Vec<&str> = catalogue.rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["dkg-c-1", "dkg-a-1", "dkg-b-1"]);
    assert_eq!(catalogue.rows[1].agreement(2, LATER), "listed by 2 of 2");
    assert_eq!(catalogue.rows[2].agreement(2, LATER), "only node 1 knows it");
}

#[test]
fn what_one_node_alone_lists_is_nobodys_once_a_quorum_is_heard_and_only_then() {
    let listed = [("dkg-a-1", summary(3, 10))];
    for (heard, listing, is_lone) in [
        (5, 1, true),
        (4, 1, true),
        (3, 1, false),
        (1, 1, false),
        (5, 2, false),
        (4, 2, false),
        (5, 5, false),
    ] {
        let lists: Vec<(u8, &[(&str, Summary)])> =
            (1..=heard).map(|by| (by, if by <= listing { &listed[..] } else { &[] })).collect();
        let found = merged(&lists).is_lone(&"dkg-a-1".parse().unwrap(), 5);
        assert_eq!(found, is_lone, "{listing} of {heard} heard");
    }
}

#[test]
fn one_node_that_tells_another_phase_of_the_same_end_is_outvoted_and_shown() {
    let said = |phase: &str| [("dkg-a-1", Summary { phase: phase.to_owned(), ..summary(3, 10) })];
    let catalogue = merged(&[(1, &said("closed")), (2, &said("gathering")), (3, &said("gathering"))]);
    let row = &catalogue.rows[0];
    assert_eq!(row.summary().unwrap().phase, "gathering");
    let told = "NODES DIFFER: node 1 says closed, node 2 says gathering, node 3 says gathering";
    assert_eq!(row.agreement(5, LATER), told);
}

#[test]
fn different_heads_are_shown_as_such_and_the_most_decide_what_is_shown() {
    let catalogue = merged(&[
        (1, &[("dkg-a-1", summary(9, 10))]),
        (2, &[("dkg-a-1", summary(9, 10))]),
        (3, &[("dkg-a-1", Summary { phase: "void".to_owned(), ..summary(12, 99) })]),
    ]);
    let row = &catalogue.rows[0];
    assert_eq!(row.agreement(5, LATER), "nodes are at different entries: entry 12 (3), entry 9 (1, 2)");
    assert_eq!(row.summary().unwrap().phase, "gathering");
    assert_eq!(row.head().unwrap().0.seq, 9);
}

#[test]
fn two_ends_at_one_place_are_settled_at_first_and_a_difference_once_they_last() {
    let end = |hash: &[u8], last| Summary {
        tip: Tip { seq: 9, hash: Hash::of_bytes(hash) },
        last: UnixMillis(last),
        ..summary(9, 10)
    };
    let row = |ours: i64, theirs: i64| {
        let (ours, theirs) = ([("dkg-a-1", end(b"ours", ours))], [("dkg-a-1", end(b"theirs", theirs))]);
        let behind = [("dkg-a-1", summary(8, 10))];
        merged(&[(1, &ours), (2, &ours), (3, &theirs), (4, &behind)]).rows.remove(0)
    };
    let now = LATER.0;
    let said = row(now - 2000, now - 1500).agreement(5, LATER);
    assert!(
        said.starts_with("two entries at once, nodes are settling which comes first: entry 9 ("),
        "{said}"
    );
    // Whoever dates an entry as new makes no old one young.
    for (ours, theirs) in [(now - 9000, now), (now, now - 9000), (now + 60_000, now + 60_000)] {
        let said = row(ours, theirs).agreement(5, LATER);
        assert!(said.starts_with("NODES DIFFER: entry 9 ("), "{said}");
    }
}

#[test]
fn list_that_was_set_back_is_noticed() {
    let seen = Seen { seq: 9, hash: summary(9, 0).tip.hash, at: UnixMillis(0) };
    let heard = [node(1), node(2)];
    let back = |lists: &[(u8, &[(&str, Summary)])]| {
        let catalogue = merged(lists);
        set_back_in_list(&"dkg-a-1".parse().unwrap(), &seen, catalogue.rows.first(), &heard, UnixMillis(1))
    };
    let at = |seq: u64| [("dkg-a-1", summary(seq, 10))];
    assert_eq!(back(&[(1, &at(9)), (2, &at(9))]), None);
    assert_eq!(back(&[(1, &at(11)), (2, &at(8))]), None, "one may lag for a while");
    assert_eq!(back(&[(1, &at(8)), (2, &at(8))]).unwrap().nodes, heard);
    assert!(back(&[]).unwrap().to_string().contains("nodes 1, 2"));
    let other = Summary { tip: Tip { seq: 9, hash: Hash::ZERO }, ..summary(9, 10) };
    let other = [("dkg-a-1", other)];
    assert!(back(&[(1, &other), (2, &other)]).unwrap().other);
}

fn listing(ways: &[(u8, Way)]) -> Fake {
    let fake = Fake::new(Vec::new(), ways);
    fake.world(|world| {
        world.listed = (1..=5).map(|number| format!("dkg-w-{number}").parse().unwrap()).collect();
    });
    fake
}

#[tokio::test]
async fn lists_are_read_to_their_last_page() {
    let catalogue = listing(&[]).nodes().catalogue(&[]).await.unwrap();
    assert_eq!((catalogue.rows.len(), catalogue.heard.len()), (5, 5));
    assert!(catalogue.rows.iter().all(|row| row.agreement(5, LATER) == "listed by 5 of 5"));
}

#[tokio::test]
async fn endless_list_is_given_up_and_its_node_named() {
    let catalogue = listing(&[(2, Way::Endless), (3, Way::Absent)]).nodes().catalogue(&[]).await.unwrap();
    assert_eq!((catalogue.rows.len(), catalogue.heard.len()), (5, 3));
    assert!(matches!(catalogue.troubles.of(node(2)), Some(Trouble::Overfull(_) | Trouble::Silent(_))));
}

#[tokio::test]
async fn list_that_nobody_signed_is_nobodys_word() {
    let stranger = |index| (index, Way::Stranger);
    let one = listing(&[stranger(4)]).nodes().catalogue(&[]).await.unwrap();
    assert!(one.heard.len() == 4 && one.troubles.of(node(4)).is_some());
    // All of them: the nodes of a charter that the console has yet to learn. What they list must prove itself.
    let all = listing(&[1, 2, 3, 4, 5].map(stranger)).nodes().catalogue(&[]).await.unwrap();
    assert_eq!((all.rows.len(), all.heard.len()), (5, 0));
}

#[tokio::test]
async fn there_is_no_list_when_no_node_gives_one() {
    let ways = [1, 2, 3, 4, 5].map(|index| (index, if index == 3 { Way::Another } else { Way::Absent }));
    let error = listing(&ways).nodes().catalogue(&[]).await.unwrap_err().to_string();
    assert!(
        error.contains("not on the bus") && error.contains("node 3 did not answer: node 1 answered instead"),
        "{error}"
    );
}
