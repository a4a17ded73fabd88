//! The signer alone: what it says and does at every stage of an order, whatever it is told.

mod backups;
mod desk;

use std::sync::Arc;

use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::ids::Hash;
use ceremonies::manifest::Way;
use ceremonies::wire::log::event::Kind;
use enclave::signer::{Effect, Input, News, OrderId, Task, Work};
use enclave_link::message::{Stored, from_enclave};

use self::desk::{
    At, Desk, EVERYWHERE, FIRST, GENERATION, OWN, REFRESH, Share, all_news, authorised, begun, event, failed,
    helped, opened, reason, refused, said, shared, undone,
};
use crate::cluster::group;
use crate::kit::Paper;

const LOST: &str = "the link to the agent was lost";

#[test]
fn share_that_comes_back_as_other_bytes_is_opened_as_the_one_that_was_sealed_and_ends_the_ceremony() {
    let (mut desk, id) = Desk::refreshing(At::Storing);
    let (_, expected) = opened(&desk.stored(&REFRESH, b"another".to_vec()));
    assert_eq!(expected, Hash::of_bytes(&[OWN]));
    let word = said(&desk.news(id, undone("a different or altered share")));
    assert_eq!(reason(&word), "a different or altered share");
    assert!(desk.stored(&REFRESH, vec![OWN]).is_empty());
    assert!(desk.news(id, News::Opened(Arc::new(Share))).is_empty());
}

#[test]
fn share_is_handed_back_once_and_only_when_it_is_awaited() {
    for at in [At::Opening, At::Running, At::Sealing, At::Reopening] {
        let (mut desk, _) = Desk::refreshing(at);
        assert!(desk.stored(&REFRESH, vec![OWN]).is_empty(), "{at:?}");
    }
    let (mut desk, _) = Desk::refreshing(At::Storing);
    for ceremony in [FIRST.ceremony.manifest().ceremony.to_string(), "none".to_owned(), String::new()] {
        let stored = Stored { ceremony, blob: vec![OWN], credentials: None };
        assert!(desk.feed(Input::Stored(stored), &REFRESH).is_empty());
    }
    opened(&desk.stored(&REFRESH, vec![OWN]));
}

/// A recovery in which this signer helps node 5, and in which it is then about to make new shares.
fn recovery() -> (Paper, Paper) {
    let helping = authorised(FIRST.recover(&[(5, Way::Repair)]));
    let mut generating = helping.clone();
    generating.get_back(5).unwrap();
    (helping, generating)
}

/// The same when all shares are staged and people have let them through.
fn let_through(mut paper: Paper) -> Paper {
    paper.stage_all();
    paper.read_words_back();
    paper.test_sign_all();
    paper.let_through_now();
    paper
}

/// A signer that helps, and the order by which it does.
fn helping(paper: &Paper) -> (Desk, OrderId) {
    let mut desk = Desk::new();
    let (id, _) = opened(&desk.start(paper));
    let effects = desk.news(id, News::Opened(Arc::new(Share)));
    let [Effect::Begin(_, begin)] = effects.as_slice() else { panic!("no session begins") };
    assert!(matches!(&begin.task, Task::Repair { share: Some(_), before: Some(_), .. }));
    (desk, id)
}

#[test]
fn no_abort_is_signed_after_a_result() {
    let (first, second) = recovery();
    let (mut desk, id) = helping(&first);
    let effects = desk.start(&second);
    assert!(matches!(desk.generates(&effects, &second), Kind::Staged(_)));
    let word = said(&desk.start(&let_through(second)));
    assert!(matches!(word, Kind::Prepared(_)));
    assert!(matches!(desk.news(id, failed("too late", None)).as_slice(), [Effect::End(_)]));
    desk.lose();
    let aborts = desk.connect().said.iter().filter(|said| matches!(event(said), Kind::Aborted(_))).count();
    assert_eq!(aborts, 0);
}

#[test]
fn no_result_is_signed_after_an_abort_whatever_log_is_shown() {
    let (first, second) = recovery();
    let (mut desk, id) = helping(&first);
    let effects = desk.news(id, failed("given up", None));
    assert!(matches!(effects.as_slice(), [Effect::End(_), Effect::Tell(from_enclave::Kind::Said(_))]));
    let effects = desk.start(&second);
    assert!(matches!(desk.generates(&effects, &second), Kind::Staged(_)));
    assert!(desk.start(&let_through(second)).is_empty());
    let words = desk.connect().said;
    assert_eq!(words.len(), 2);
    assert_eq!(reason(&event(&words[0])), "given up");
}

#[test]
fn key_generation_that_was_given_up_is_never_prepared() {
    let mut desk = Desk::new();
    let id = begun(&desk.start(&GENERATION));
    desk.news(id, shared(&GENERATION));
    desk.news(id, News::Sealed(vec![OWN]));
    desk.lose();
    assert_eq!(desk.connect().said.len(), 1);
    assert!(desk.stored(&GENERATION, vec![OWN]).is_empty());
    assert!(desk.news(id, News::Opened(Arc::new(Share))).is_empty());
    assert!(refused(&desk.start(&GENERATION)).contains("already begun"));
}

#[test]
fn what_ran_when_the_connection_was_lost_is_aborted_once_and_said_on_the_next() {
    for at in EVERYWHERE {
        let (mut desk, id) = Desk::refreshing(at);
        let effects = desk.lose();
        assert_eq!(effects.len(), usize::from(at == At::Running), "{at:?}");
        assert!(effects.iter().all(|effect| matches!(effect, Effect::End(ended) if *ended == id)));
        for _ in 0..2 {
            let words = desk.connect().said;
            assert_eq!(words.len(), 1, "{at:?}");
            assert_eq!(reason(&event(&words[0])), LOST, "{at:?}");
        }
    }
}

#[test]
fn news_that_comes_after_the_connection_was_lost_has_no_effect() {
    for at in EVERYWHERE {
        let (mut desk, id) = Desk::refreshing(at);
        desk.lose();
        desk.connect();
        for (number, news) in all_news(&REFRESH).into_iter().enumerate() {
            assert!(desk.news(id, news).is_empty(), "{at:?}, {number}");
        }
        assert!(desk.stored(&REFRESH, vec![OWN]).is_empty(), "{at:?}");
        assert_eq!(desk.connect().said.len(), 1, "{at:?}");
    }
}

#[test]
fn share_that_opens_after_the_connection_was_lost_is_not_kept() {
    let (mut desk, id) = Desk::refreshing(At::Opening);
    desk.lose();
    desk.connect();
    desk.news(id, News::Opened(Arc::new(Share)));
    opened(&desk.start(&authorised(FIRST.then(CeremonyKind::TestSign, |_| {}))));
}

#[test]
fn news_that_its_stage_does_not_wait_for_changes_nothing() {
    for at in EVERYWHERE {
        let count = all_news(&REFRESH).len();
        for number in 0..count {
            let awaited: &[usize] = match at {
                At::Opening | At::Reopening => &[4, 9],
                At::Running => &[0, 1, 2, 3],
                At::Sealing => &[5, 9],
                At::Storing => &[],
            };
            let (mut desk, id) = Desk::refreshing(at);
            let news = all_news(&REFRESH).into_iter().nth(number).unwrap();
            let effects = desk.news(id, news);
            assert_eq!(effects.is_empty(), !awaited.contains(&number), "{at:?}, {number}");
            if !awaited.contains(&number) {
                desk.lose();
                assert_eq!(reason(&event(&desk.connect().said[0])), LOST, "{at:?}, {number}");
            }
        }
    }
}

#[test]
fn agent_that_connects_anew_without_a_loss_finds_everything_given_up() {
    let (mut desk, id) = Desk::refreshing(At::Running);
    let effects = desk.feed(Input::Connected, &REFRESH);
    assert!(matches!(&effects[0], Effect::End(ended) if *ended == id));
    let Effect::Tell(from_enclave::Kind::Welcome(welcome)) = &effects[1] else { panic!("no welcome") };
    assert_eq!(reason(&event(&welcome.said[0])), LOST);
}

#[test]
fn ceremony_that_is_over_ends_its_order_at_every_stage_and_no_other() {
    for at in EVERYWHERE {
        let (mut desk, id) = Desk::refreshing(at);
        let other = FIRST.ceremony.manifest().ceremony.to_string();
        assert!(desk.feed(Input::Stop(other), &REFRESH).is_empty(), "{at:?}");
        let over = REFRESH.ceremony.manifest().ceremony.to_string();
        let mut effects = desk.feed(Input::Stop(over.clone()), &REFRESH);
        if matches!(at, At::Running) {
            assert!(matches!(effects.remove(0), Effect::End(ended) if ended == id));
        }
        assert_eq!(reason(&said(&effects)), "the ceremony is over", "{at:?}");
        for news in all_news(&REFRESH) {
            assert!(desk.news(id, news).is_empty(), "{at:?}: something comes of it");
        }
        assert!(desk.stored(&REFRESH, vec![OWN]).is_empty(), "{at:?}");
        assert!(desk.feed(Input::Stop(over), &REFRESH).is_empty(), "{at:?}: said once");
        assert!(refused(&desk.start(&REFRESH)).contains("already begun"), "{at:?}");
    }
}

#[test]
fn second_order_for_a_session_is_refused_at_every_stage_and_does_not_disturb_the_first() {
    for at in EVERYWHERE {
        let (mut desk, id) = Desk::refreshing(at);
        assert!(refused(&desk.start(&REFRESH)).contains("already begun"), "{at:?}");
        let effects = match at {
            At::Opening | At::Reopening => desk.news(id, News::Opened(Arc::new(Share))),
            At::Running => desk.news(id, shared(&REFRESH)),
            At::Sealing => desk.news(id, News::Sealed(vec![OWN])),
            At::Storing => desk.stored(&REFRESH, vec![OWN]),
        };
        assert!(!effects.is_empty(), "{at:?}");
    }
}

#[test]
fn failure_at_every_stage_is_said_once_with_its_reason() {
    for at in [At::Opening, At::Sealing, At::Reopening] {
        let (mut desk, id) = Desk::refreshing(at);
        assert_eq!(reason(&said(&desk.news(id, undone("no KMS")))), "no KMS", "{at:?}");
        desk.lose();
        let words = desk.connect().said;
        assert_eq!(words.len(), 1, "{at:?}");
        assert_eq!(reason(&event(&words[0])), "no KMS", "{at:?}");
    }
}

#[test]
fn outcome_that_is_no_key_is_given_up_and_nothing_is_sealed() {
    let (mut desk, id) = Desk::refreshing(At::Running);
    let News::Finished(mut outcome) = shared(&REFRESH) else { panic!("not finished") };
    let enclave::scheme::dkls23::Product::Share(new) = &mut outcome.product else { panic!("no share") };
    new.public_shares.clear();
    let effects = desk.news(id, News::Finished(outcome));
    let [Effect::End(_), Effect::Tell(from_enclave::Kind::Said(word))] = effects.as_slice() else {
        panic!("{} effects", effects.len())
    };
    assert!(reason(&event(word)).starts_with("the key generation did not give one key"));
}

#[test]
fn orders_of_one_ceremony_run_beside_each_other() {
    let (first, second) = recovery();
    let (mut desk, repair) = helping(&first);
    let generation = begun(&desk.start(&second));
    assert_ne!(repair.label, generation.label);
    for id in [repair, generation] {
        let effects = desk.deliver(id.label, 1, b"message".to_vec());
        assert!(matches!(effects.as_slice(), [Effect::Hand(to, _)] if *to == id));
    }
    assert!(matches!(desk.news(repair, helped()).as_slice(), [Effect::End(_)]));
    let effects = desk.deliver(generation.label, 1, b"message".to_vec());
    assert!(matches!(effects.as_slice(), [Effect::Hand(..)]));
    desk.lose();
    let words = desk.connect().said;
    assert_eq!(words.len(), 1);
    assert_eq!(reason(&event(&words[0])), LOST);
}

#[test]
fn ban_holds_before_any_log_shows_it_and_its_evidence_is_told_on_every_connection() {
    let (mut desk, id) = Desk::refreshing(At::Running);
    let effects = desk.news(id, failed("node 4 lies", Some(4)));
    let [Effect::End(_), Effect::Tell(from_enclave::Kind::Evidence(_)), Effect::Tell(_)] = effects.as_slice()
    else {
        panic!("{} effects", effects.len())
    };
    let effects = desk.feed(Input::Connected, &REFRESH);
    assert!(matches!(&effects[1], Effect::Tell(from_enclave::Kind::Evidence(_))));
    let mut withdrawn = REFRESH.clone();
    withdrawn.withdraw("ada", Role::Administrator).unwrap();
    let next = FIRST.then(CeremonyKind::Refresh, |proposal| proposal.nonce = [90; 16]);
    let next = authorised(next);
    let mut order = desk.order(&next);
    order.others.push(enclave_link::message::Log {
        entries: withdrawn.log.iter().map(ceremonies::log::Entry::encode).collect(),
    });
    let effects = desk.feed(Input::Start(Box::new(order)), &next);
    assert!(refused(&effects).contains("banned pair"), "{}", refused(&effects));
}

#[test]
fn messages_before_a_session_wait_for_it_within_bounds() {
    let mut desk = Desk::new();
    let label = opened(&desk.start(&REFRESH)).0.label;
    let other = Hash::of_bytes(b"another session");
    assert!(desk.deliver(label, 1, b"first".to_vec()).is_empty());
    for number in 0..63_u8 {
        assert!(desk.deliver(other, 1, vec![number]).is_empty());
    }
    assert!(desk.deliver(label, 3, vec![0; 4097]).is_empty());
    let id = OrderId { label, request: 1 };
    let effects = desk.news(id, News::Opened(Arc::new(Share)));
    let [Effect::Begin(..), Effect::Hand(to, first)] = effects.as_slice() else {
        panic!("{} effects", effects.len())
    };
    assert_eq!((*to, first.as_slice()), (id, b"first".as_slice()));

    let mut desk = Desk::new();
    opened(&desk.start(&REFRESH));
    for number in 0..65_u8 {
        desk.deliver(label, 1, vec![number]);
    }
    let effects = desk.news(id, News::Opened(Arc::new(Share)));
    assert_eq!(effects.len(), 1 + 64);
    assert!(matches!(&effects[1], Effect::Hand(_, oldest) if *oldest == [1]));
}

#[test]
fn peer_that_missed_the_end_of_a_session_is_answered_until_the_connection_ends() {
    let (mut desk, id) = Desk::refreshing(At::Sealing);
    for answered in [true, true, true, true, false] {
        let effects = desk.deliver(id.label, 1, b"again".to_vec());
        assert_eq!(!effects.is_empty(), answered);
    }
    assert!(desk.deliver(id.label, 3, b"again".to_vec()).is_empty());
    let (mut desk, id) = Desk::refreshing(At::Sealing);
    desk.lose();
    desk.connect();
    assert!(desk.deliver(id.label, 1, b"again".to_vec()).is_empty());
}

#[test]
fn refreshed_share_is_staged_then_prepared_and_the_old_one_is_forgotten() {
    let mut desk = Desk::new();
    let (id, expected) = opened(&desk.start(&REFRESH));
    assert_eq!(expected, Hash::of_bytes(&[OWN]));
    let old = Arc::new(Share);
    let effects = desk.news(id, News::Opened(Arc::clone(&old)));
    assert!(matches!(desk.generates(&effects, &REFRESH), Kind::Staged(_)));
    drop(effects);
    let mut paper = let_through(REFRESH.clone());
    assert!(matches!(said(&desk.start(&paper)), Kind::Prepared(_)));
    // Said once: until it is in the log, the agent finds it in the welcome.
    assert!(refused(&desk.start(&paper)).contains("holds no staged share"));
    paper.prepare_all();
    paper.adopt_all();
    assert_eq!(Arc::strong_count(&old), 2);
    assert!(matches!(said(&desk.start(&paper)), Kind::Retired(_)));
    assert_eq!(Arc::strong_count(&old), 1);
}

#[test]
fn staged_share_is_gone_with_the_boot_that_staged_it() {
    let mut desk = Desk::new();
    assert!(refused(&desk.start(&let_through(REFRESH.clone()))).contains("holds no staged share"));
}

#[test]
fn backup_is_written_as_often_as_it_is_ordered_and_no_failure_of_it_is_said_in_the_log() {
    let mut paper = authorised(Paper::dkg_under(crate::cluster::context_of(&crate::cluster::BACKED)));
    paper.prepare_all();
    paper.adopt_all();
    paper.read_words_back();
    paper.test_sign_all();
    let mut desk = Desk::new();
    let (first, second) = (desk.start(&paper), desk.start(&paper));
    let ((first, _), (second, _)) = (opened(&first), opened(&second));
    assert_eq!(first.label, second.label);
    let effects = desk.news(second, undone("no KMS"));
    assert_eq!(refused(&effects), "no KMS");
    let effects = desk.news(first, News::Opened(Arc::new(Share)));
    let [Effect::Work(_, work)] = effects.as_slice() else { panic!("{} effects", effects.len()) };
    let Work::BackUp(order) = &**work else { panic!("other work") };
    assert_eq!(order.recipients.len(), 2);
    let effects = desk.news(first, undone("no such recipient"));
    assert_eq!(refused(&effects), "backup of node 2: no such recipient");
    let effects = desk.start(&paper);
    let [Effect::Work(third, _)] = effects.as_slice() else { panic!("{} effects", effects.len()) };
    let effects = desk.news(*third, News::BackedUp { whole: vec![1], root: vec![2] });
    assert!(matches!(effects.as_slice(), [Effect::Tell(from_enclave::Kind::Backups(_))]));
    desk.start(&paper);
    assert!(desk.lose().is_empty());
    assert!(desk.connect().said.is_empty());
}

#[test]
fn test_signature_is_said_with_its_session_and_another_attempt_is_another_order() {
    let signing = authorised(FIRST.test_signing());
    let mut desk = Desk::new();
    let (id, _) = opened(&desk.start(&signing));
    begun(&desk.news(id, News::Opened(Arc::new(Share))));
    let subset = signing.ceremony.due_subset().unwrap();
    assert!(subset.contains(crate::cluster::node(OWN)), "{subset}");
    assert_eq!(subset, group(&[1, 2, 3]));
    let mut again = signing.clone();
    again.abort(1, &subset, 1).unwrap();
    let next = begun(&desk.start(&again));
    assert_ne!(id.label, next.label);
    let effects = desk.news(id, failed("node 3 fell silent", None));
    let [Effect::End(_), Effect::Tell(from_enclave::Kind::Said(word))] = effects.as_slice() else {
        panic!("{} effects", effects.len())
    };
    let Kind::Aborted(aborted) = event(word) else { panic!("no abort") };
    assert_eq!(aborted.attempt, 1);
    let News::Finished(mut outcome) = helped() else { panic!("not finished") };
    let signature = enclave::scheme::dkls23::Signature { r: [1; 32], s: [1; 32], recovery_id: 0 };
    outcome.product = enclave::scheme::dkls23::Product::Signature(signature);
    let effects = desk.news(next, News::Finished(outcome));
    let [Effect::End(_), Effect::Tell(from_enclave::Kind::Said(word))] = effects.as_slice() else {
        panic!("{} effects", effects.len())
    };
    let Kind::TestSigned(signed) = event(word) else { panic!("no signature") };
    assert_eq!((signed.attempt, signed.session), (2, vec![3; 32]));
}
