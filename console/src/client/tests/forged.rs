//! Answers that a node signed, to this question or another, and that say what they must not: they count for nothing.

use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{Generation, WalletName};
use ceremonies::manifest::{Manifest, Proposal, Subject};
use ceremonies::said::SaidError;
use ceremonies::script::Script;

use super::*;

/// Five nodes with a log, of which the third is hostile.
fn with(way: Way, entries: usize) -> Fake {
    Fake::new(log_of(entries), &[(3, way)])
}

async fn shown(fake: &Fake) -> (Vec<Entry>, String) {
    let reading = fake.nodes().read(&id(), &[]).await.unwrap();
    (reading.log(), reading.recorded().to_string())
}

#[tokio::test]
async fn answer_that_was_given_to_another_console_or_question_says_nothing_of_now() {
    let fake = with(Way::Replays, 4);
    // Whoever asks first gets the truth, and so does everybody of all others.
    assert_eq!(shown(&fake).await.0, log_of(4));
    fake.world(|world| (world.log, world.locked) = (log_of(6), 6));
    for _ in 0..5 {
        let reading = fake.nodes().read(&id(), &[]).await.unwrap();
        assert!(reading.log() == log_of(6) && reading.recorded().by == [1, 2, 4, 5].map(node));
        // Which of its old answers it repeats depends on what it was asked first, and so does what is wrong with that.
        match reading.troubles().of(node(3)) {
            Some(Trouble::Unverified(SaidError::Signature(by))) => assert_eq!(*by, node(3)),
            other => assert!(matches!(other, Some(Trouble::Misfit(_))), "{other:?}"),
        }
    }
}

#[tokio::test]
async fn receipt_for_one_event_is_none_for_another() {
    let fake = with(Way::Replays, 4);
    let submit = async |reason: &str| {
        let known = fake.world(|world| world.log.clone());
        fake.nodes().submit_within(QUICK, &known, &id(), event(reason)).await
    };
    // Until it has been handed one, and said so.
    let answered = || fake.world(|world| world.first.contains_key(&(node(3), "submit".to_owned())));
    let mut events = 0;
    while !answered() {
        events += 1;
        submit(&format!("event {events}")).await.unwrap();
    }
    for number in 0..5 {
        let receipt = submit(&format!("later {number}")).await.unwrap();
        assert!(receipt.recorded().recorded && !receipt.recorded().by.contains(&node(3)), "{receipt}");
        let carried = fake.world(|world| world.log.last().unwrap().event.clone());
        assert_eq!(carried, parsed(&format!("later {number}")));
    }
}

#[tokio::test]
async fn log_of_another_ceremony_is_not_taken_for_this_one() {
    let fake = with(Way::Elsewhere, 3);
    for _ in 0..5 {
        let reading = fake.nodes().read(&id(), &[]).await.unwrap();
        assert_eq!((reading.log(), reading.recorded().by), (log_of(3), [1, 2, 4, 5].map(node).to_vec()));
        let trouble = reading.troubles().of(node(3));
        assert!(matches!(trouble, Some(Trouble::Misfit(_))), "{trouble:?}");
    }
}

#[tokio::test]
async fn answer_to_a_question_of_another_kind_is_none() {
    let fake = with(Way::Confuses, 3);
    for _ in 0..5 {
        let (log, recorded) = shown(&fake).await;
        assert_eq!((log, recorded.as_str()), (log_of(3), "recorded by 4 of 5"));
    }
}

#[tokio::test]
async fn heads_in_the_names_of_others_count_only_where_those_have_signed_them() {
    let log = log_of(6);
    let fake = Fake::new(log.clone(), &[(1, Way::Silent), (2, Way::Silent), (3, Way::Borrows)]);
    // Node 1 did sign this, when the log was shorter. Nobody but node 3 signed the rest.
    let old = head(1, &log[..2], &log[..2]);
    let made_up = [1, 2].map(|of| head_by(3, claim(&id(), of, &log, &log)));
    let of_another = head_in(&other_id(), 2, &log, &log);
    let mut altered = head(1, &log[..2], &log[..2]);
    altered.head.as_mut().unwrap().body.push(0);
    let mut relabelled = head(2, &log[..2], &log[..2]);
    relabelled.head.as_mut().unwrap().body = made_up[1].head.as_ref().unwrap().body.clone();
    let borrowed = [vec![old, of_another, altered, relabelled], made_up.to_vec()].concat();
    fake.world(|world| world.borrowed = borrowed);
    let reading = fake.nodes().read(&id(), &[]).await.unwrap();
    assert_eq!(reading.log(), log);
    let recorded = reading.recorded();
    assert!(!recorded.recorded && recorded.by == [3, 4, 5].map(node), "{recorded}");
    assert!(reading.recorded_at(2).by.contains(&node(1)) && !reading.recorded_at(2).by.contains(&node(2)));
}

/// An amendment after which all nodes would have these keys; nobody has signed it.
fn amendment(keys: &BTreeMap<NodeIndex, KeyPair>) -> Manifest {
    let mut draft = KEYS.charter.draft();
    for node in &mut draft.nodes {
        node.nkey = keys[&node.index].public_key();
    }
    let next = Arc::new(Charter::parse(draft.to_toml().unwrap().as_bytes()).unwrap());
    let proposal = Proposal {
        kind: CeremonyKind::Amend,
        wallet: WalletName::of_the_charter(),
        purpose: "new keys for all".parse().unwrap(),
        administrator: "administrator-1".parse().unwrap(),
        opened: UnixMillis(1_800_000_000_000),
        lifetime_ms: 3_600_000,
        nonce: [7; 16],
        generation: Generation::FIRST,
        origin: None,
        subject: Subject::Charter(next),
        signers: None,
    };
    proposal.manifest(&KEYS.charter, &Script::builtin(CeremonyKind::Amend).unwrap()).unwrap()
}

#[tokio::test]
async fn node_that_makes_up_an_amendment_is_heard_in_no_name_but_its_own() {
    let keys: BTreeMap<NodeIndex, KeyPair> = (1..=5).map(|of| (node(of), KeyPair::new_user())).collect();
    let manifest = amendment(&keys);
    let place = Place {
        ceremony: manifest.ceremony.clone(),
        seq: 1,
        prev: Hash::ZERO,
        time: manifest.opened,
        node: node(3),
    };
    let opened = crate::room::opened(&manifest, b"signed by nobody".to_vec());
    let made_up =
        vec![Entry::create(place, opened, |bytes| Ok::<_, EntryError>(sign(3, bytes).unwrap())).unwrap()];
    let vote = |of: u8| {
        let claim = claim(&manifest.ceremony, of, &made_up, &made_up);
        let head = SignedHead::create(claim, |bytes| keys[&node(of)].sign(bytes)).unwrap();
        HeadNews { head: Some(head.raw().clone()), proof: Vec::new() }
    };
    let fake = Fake::new(Vec::new(), &[(3, Way::Borrows)]);
    fake.world(|world| {
        world.private.insert(node(3), made_up.clone());
        world.borrowed =
            (1..=5).map(vote).chain([head_in(&manifest.ceremony, 3, &made_up, &made_up)]).collect();
    });
    let nodes = fake.nodes();
    for _ in 0..5 {
        let reading = nodes.read(&manifest.ceremony, &[]).await.unwrap();
        assert_eq!(reading.recorded().by, [node(3)], "{}", reading.recorded());
        assert_eq!(reading.recorded_tip(), None);
        // What is remembered of it makes it no truer.
        nodes.remember(&reading);
    }
}
