//! Whether a wallet can sign: the shares that nodes show against the threshold, and never more than they show.

use std::collections::{BTreeMap, BTreeSet};

use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{Generation, Hash, NodeIndex, UnixMillis};
use ceremonies::log::Event;
use ceremonies::manifest::Way;
use console::checks::Check;
use console::health::{Health, Level, NodeStatus};
use console::readiness::{Answer, Held, Readiness, Share, readiness};
use console::room::{LIFETIME_MS, Opening, Topic, prepare};
use console::tui::Model;
use proptest::prelude::*;

use crate::model;

/// Entries up to the end of the recorded ceremony, and up to where its key is generated.
const CLOSED: usize = 56;
const NOT_READ_BACK: usize = 23;

fn digest(model: &Model) -> Hash {
    model.book.wallets().values().next().unwrap().record.digest()
}

/// When a node said that it took its share up.
fn adopted(model: &Model, of: NodeIndex) -> UnixMillis {
    let entries = model.book.iter().flat_map(|(_, chapter)| &chapter.entries);
    let adopted = entries.filter(|entry| matches!(entry.event, Event::Adopted { node, .. } if node == of));
    adopted.map(|entry| entry.time).next().unwrap()
}

fn well(model: &Model, node: NodeIndex) -> NodeStatus {
    let held = Held {
        at: UnixMillis(adopted(model, node).0 + 60_000),
        in_use: Some(BTreeSet::from([digest(model)])),
        opens: true,
        latest: BTreeMap::new(),
    };
    NodeStatus {
        node,
        level: Level::Good,
        check: None,
        summary: "healthy".to_owned(),
        attestation: "accepted".to_owned(),
        image: None,
        shares: None,
        heard_ms_ago: Some(500),
        build: String::new(),
        started: None,
        lately: Vec::new(),
        accused: None,
        held: Some(held),
    }
}

fn holds(status: NodeStatus, change: impl FnOnce(&mut Held)) -> NodeStatus {
    let mut held = status.held.clone().unwrap();
    change(&mut held);
    NodeStatus { held: Some(held), ..status }
}

/// Another record than the console's of this generation of the wallet.
fn later(generation: u32) -> (Option<BTreeSet<Hash>>, BTreeMap<String, Generation>) {
    let record = BTreeSet::from([Hash::of_bytes(b"another one")]);
    (Some(record), BTreeMap::from([("treasury".to_owned(), Generation(generation))]))
}

/// Every way in which a share can be as it is.
fn ways(model: &Model, node: NodeIndex) -> Vec<(Share, NodeStatus)> {
    let well = || well(model, node);
    let just_adopted = UnixMillis(adopted(model, node).0 + 1000);
    vec![
        (Share::Present, well()),
        (Share::Present, NodeStatus { level: Level::Warn, ..well() }),
        (Share::Lost, holds(well(), |held| held.in_use = Some(BTreeSet::new()))),
        (
            Share::Lost,
            holds(well(), |held| held.in_use = Some(BTreeSet::from([Hash::of_bytes(b"an older one")]))),
        ),
        (Share::Unknown, holds(well(), |held| (held.in_use, held.latest) = later(2))),
        (Share::Lost, holds(well(), |held| (held.in_use, held.latest) = later(1))),
        (Share::Unusable, NodeStatus { level: Level::Bad, ..well() }),
        (Share::Present, NodeStatus { level: Level::Bad, check: Some(Check::ShareLost), ..well() }),
        (Share::Unusable, NodeStatus { accused: Some("banned by 1, 2".to_owned()), ..well() }),
        (Share::Unusable, holds(well(), |held| held.opens = false)),
        (Share::Unusable, holds(well(), |held| held.in_use = None)),
        (Share::Silent, NodeStatus { level: Level::Bad, check: Some(Check::Silent), ..well() }),
        (Share::Silent, NodeStatus { level: Level::Bad, check: Some(Check::Unheard), held: None, ..well() }),
        (Share::Backdated, NodeStatus { level: Level::Bad, check: Some(Check::Backdated), ..well() }),
        (Share::Unknown, NodeStatus { level: Level::Unknown, ..well() }),
        (Share::Excluded, NodeStatus { level: Level::Excluded, held: None, ..well() }),
        (Share::Unknown, NodeStatus { level: Level::Bad, held: None, heard_ms_ago: None, ..well() }),
        (
            Share::Unknown,
            holds(well(), |held| (held.at, held.in_use) = (just_adopted, Some(BTreeSet::new()))),
        ),
    ]
}

fn of(model: &Model, nodes: &[NodeStatus]) -> Readiness {
    let mut all = readiness(&model.book, nodes, model.now);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn all() -> impl Iterator<Item = NodeIndex> {
    (1..=5).map(|index| NodeIndex::new(index).unwrap())
}

#[test]
fn a_wallet_with_every_share_signs_and_says_how_many_it_needs() {
    let model = model(CLOSED);
    let nodes: Vec<_> = all().map(|node| well(&model, node)).collect();
    let treasury = of(&model, &nodes);
    assert_eq!(treasury.can_sign, Answer::Yes);
    assert_eq!(treasury.text(), "can sign: 5 of 5 shares, 3 needed");
}

#[test]
fn three_lost_shares_of_five_are_a_wallet_that_cannot_sign_and_are_named() {
    let model = model(CLOSED);
    let mut nodes: Vec<_> = all().map(|node| well(&model, node)).collect();
    for lost in [0, 2, 3] {
        nodes[lost] = holds(nodes[lost].clone(), |held| held.in_use = Some(BTreeSet::new()));
    }
    let treasury = of(&model, &nodes);
    assert_eq!(treasury.can_sign, Answer::No);
    let told = "CANNOT SIGN: 2 of 5 shares, 3 needed; nodes 1, 3 and 4 lost their shares and need a recovery";
    assert_eq!(treasury.text(), told);
}

#[test]
fn nodes_that_were_not_heard_yet_are_unknown_and_not_good() {
    let model = model(CLOSED);
    let unheard = of(&model, &[]);
    assert_eq!(unheard.can_sign, Answer::Unknown);
    assert!(unheard.text().starts_with("not known whether it can sign: 0 of 5 shares, 3 needed"));
}

#[test]
fn a_wallet_whose_ceremony_is_not_finished_is_not_shown_as_ready() {
    let model = model(NOT_READ_BACK);
    let nodes: Vec<_> = all().map(|node| well(&model, node)).collect();
    let treasury = of(&model, &nodes);
    assert_eq!(treasury.can_sign, Answer::Degraded);
    assert!(
        treasury.text().ends_with("; NOT FINISHED, do not fund it (see the wallet)"),
        "{}",
        treasury.text()
    );
}

proptest! {
    #[test]
    fn the_answer_follows_from_the_shares_alone(drawn in proptest::collection::vec(any::<prop::sample::Index>(), 5)) {
        let model = model(CLOSED);
        let (shares, nodes): (Vec<_>, Vec<_>) = all()
            .zip(&drawn)
            .map(|(node, index)| index.get(&ways(&model, node)).clone())
            .unzip();
        let treasury = of(&model, &nodes);
        prop_assert_eq!(treasury.shares.values().copied().collect::<Vec<_>>(), shares.clone());
        let count = |kinds: &[Share]| shares.iter().filter(|share| kinds.contains(share)).count();
        let present = count(&[Share::Present]);
        let expected = match (present, present + count(&[Share::Unknown])) {
            (3.., _) if present + count(&[Share::Excluded]) == 5 => Answer::Yes,
            (3.., _) => Answer::Degraded,
            (_, 3..) => Answer::Unknown,
            _ => Answer::No,
        };
        prop_assert_eq!(treasury.can_sign, expected, "{}", treasury.text());
        let counted = format!("{present} of 5 shares, 3 needed");
        prop_assert!(treasury.text().contains(&counted));
    }
}

#[test]
fn lost_share_stands_in_the_way_of_what_needs_it_and_of_no_recovery_of_it() {
    let model = model(CLOSED);
    let (first, second) = (NodeIndex::new(1).unwrap(), NodeIndex::new(2).unwrap());
    let loses = |status: NodeStatus| NodeStatus {
        check: Some(Check::ShareLost),
        level: Level::Bad,
        ..holds(status, |held| held.in_use = Some(BTreeSet::new()))
    };
    let nodes: Vec<_> = all()
        .map(|node| if node == first { loses(well(&model, node)) } else { well(&model, node) })
        .collect();
    let health = Health { wallets: readiness(&model.book, &nodes, model.now), nodes };
    let treasury = || "treasury".parse().unwrap();
    let lost = |node| [(node, Way::Backup)].into();
    for (topic, stands) in [
        (Topic::of(CeremonyKind::TestSign, treasury()), true),
        (Topic::of(CeremonyKind::Refresh, treasury()), true),
        (Topic::losses(CeremonyKind::Recover, treasury(), lost(second)), true),
        (Topic::losses(CeremonyKind::Recover, treasury(), lost(first)), false),
        (Topic::of(CeremonyKind::Dkg, "ops".parse().unwrap()), false),
    ] {
        let opening = Opening {
            topic: topic.clone(),
            purpose: "A test".parse().unwrap(),
            administrator: "administrator-1".parse().unwrap(),
            lifetime_ms: LIFETIME_MS,
        };
        let (manifest, _) = prepare(&model.book, &opening).unwrap();
        let standing: Vec<_> = health.in_the_way_of(&manifest).map(|status| status.node).collect();
        assert_eq!(standing, if stands { vec![first] } else { vec![] }, "{topic:?}");
    }
}

#[test]
fn lost_share_does_not_stand_in_the_way_of_what_may_give_it_back_and_a_broken_store_does() {
    let model = model(CLOSED);
    let (_, chapter) = model.book.iter().next().unwrap();
    let node = chapter.ceremony.manifest().roster[0];
    for (check, stands) in
        [(Check::ShareLost, false), (Check::Kms, false), (Check::Store, true), (Check::Silent, true)]
    {
        let status = NodeStatus { check: Some(check), level: check.level(), ..well(&model, node) };
        let health = Health { wallets: Vec::new(), nodes: vec![status] };
        assert_eq!(
            health.in_the_way_of(chapter.ceremony.manifest()).next().is_some(),
            stands,
            "{}",
            check.id()
        );
    }
}
