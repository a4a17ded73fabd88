//! A signature that is on record is not given again: it is said since when.

use ceremonies::ids::{PersonName, UnixMillis};
use ceremonies::statement::Answer;
use console::room::{RoomError, Signature};
use console::tui::{Effect, Event, Model, Popup, update};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::screens::show;
use crate::{entries, model};

fn press(model: &mut Model, key: KeyCode) -> Vec<Effect> {
    update(model, Event::Key(KeyEvent::new(key, KeyModifiers::NONE))).1
}

fn message(model: &Model) -> String {
    match &model.popup {
        Some(Popup::Message { title, text }) => format!("{title}: {text}"),
        _ => String::new(),
    }
}

fn approval(person: &str) -> Signature {
    let role = person.rsplit_once('-').unwrap().0.parse().unwrap();
    let person: PersonName = person.parse().unwrap();
    Signature { step: "approve".parse().unwrap(), role, person, answer: Answer::None }
}

fn refusal(model: &Model, signature: &Signature, now: UnixMillis) -> RoomError {
    signature.statement(model.ceremony().unwrap(), now).unwrap_err()
}

#[test]
fn approval_that_is_on_record_is_refused_with_its_entry_and_the_phase_whatever_that_is() {
    for (count, phase) in [(13, "authorised"), (23, "committed"), (56, "closed")] {
        let model = model(count);
        let ceremony = model.ceremony().unwrap();
        let signed = ceremony.signed(&"approve".parse().unwrap()).find(|s| s.person.as_str() == "operator-1");
        let entry = signed.unwrap().seq;
        let refused = refusal(&model, &approval("operator-1"), model.now);
        assert!(matches!(&refused, RoomError::OnRecord { seq, .. } if *seq == entry), "{refused}");
        let said = refused.to_string();
        for part in ["operator-1 has already signed step `approve`", &format!("since entry {entry}"), phase] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(said.contains("nothing was signed or sent"), "{said}");
    }
    let expired = model(7);
    let late = expired.ceremony().unwrap().manifest().expires.plus(1);
    let mut confirmation = approval("witness-1");
    confirmation.step = "identities".parse().unwrap();
    let said = refusal(&expired, &confirmation, late).to_string();
    assert!(said.contains("since entry 7") && said.contains("void: its deadline passed"), "{said}");
}

#[test]
fn another_answer_does_not_make_a_signature_new_and_another_person_does() {
    let model = model(56);
    let verdict = |answer| Signature { step: "agree".parse().unwrap(), answer, ..approval("witness-1") };
    let disagrees = verdict(Answer::Disagree("I saw something else".parse().unwrap()));
    assert!(matches!(refusal(&model, &disagrees, model.now), RoomError::OnRecord { .. }));
    assert!(matches!(refusal(&model, &approval("operator-9"), model.now), RoomError::Rejected(_)));
    let ends = Signature {
        step: "withdraw".parse().unwrap(),
        answer: Answer::Withdraw("Enough".parse().unwrap()),
        ..approval("witness-1")
    };
    assert!(matches!(refusal(&model, &ends, model.now), RoomError::Rejected(_)));
}

#[test]
fn what_came_on_record_while_its_statement_was_read_is_not_signed_once_more() {
    let mut model = model(6);
    press(&mut model, KeyCode::Char('s'));
    press(&mut model, KeyCode::Enter);
    show(&mut model, 80, 24);
    for c in "sign".chars() {
        press(&mut model, KeyCode::Char(c));
    }
    model.book.take(entries().remove(6)).unwrap();
    assert!(press(&mut model, KeyCode::Enter).is_empty(), "nothing is signed");
    let said = message(&model);
    assert!(said.contains("Nothing was signed") && said.contains("since entry 7"), "{said}");
    assert!(!model.busy);
}

#[test]
fn statement_that_has_changed_since_it_was_read_is_not_signed() {
    let mut model = model(6);
    press(&mut model, KeyCode::Char('s'));
    press(&mut model, KeyCode::Enter);
    let Some(Popup::Review(review)) = &mut model.popup else { unreachable!("a statement is shown") };
    review.statement += "more\n";
    show(&mut model, 160, 50);
    for c in "sign".chars() {
        press(&mut model, KeyCode::Char(c));
    }
    assert!(press(&mut model, KeyCode::Enter).is_empty());
    assert!(message(&model).contains("read it again"), "{}", message(&model));
}

#[test]
fn key_that_signs_says_who_has_signed_and_how_a_ceremony_that_is_over_ended() {
    let mut signed = model(8);
    signed.cluster.me.retain(|me| ["administrator-1", "operator-1"].contains(&me.person.as_str()));
    let ceremony = signed.ceremony().unwrap();
    let first = ceremony.signed(&"approve".parse().unwrap()).next().unwrap().person.clone();
    signed.cluster.me.retain(|me| me.person == first);
    press(&mut signed, KeyCode::Char('s'));
    let said = message(&signed);
    assert!(said.contains(&format!("{first} has already signed it: on record since entry 8")), "{said}");

    let mut closed = model(56);
    press(&mut closed, KeyCode::Char('s'));
    assert!(message(&closed).contains("The ceremony is over: closed."), "{}", message(&closed));

    let mut generating = model(13);
    press(&mut generating, KeyCode::Char('s'));
    assert!(message(&generating).contains("Enclaves generate the key"), "{}", message(&generating));
}
