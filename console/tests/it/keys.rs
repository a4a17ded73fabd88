//! What keys do: nothing irreversible on one press, and refusals that say why.

use console::tui::{Effect, Event, Model, Popup, update};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::model;
use crate::screens::show;

fn press(model: &mut Model, key: KeyCode) -> Vec<Effect> {
    update(model, Event::Key(KeyEvent::new(key, KeyModifiers::NONE))).1
}

fn write(model: &mut Model, text: &str) {
    for c in text.chars() {
        assert!(press(model, KeyCode::Char(c)).is_empty());
    }
}

fn message(model: &Model) -> &str {
    match &model.popup {
        Some(Popup::Message { text, .. }) => text,
        _ => "",
    }
}

#[test]
fn a_signature_needs_the_typed_word_under_its_statement() {
    let mut model = model(6);
    press(&mut model, KeyCode::Char('s'));
    assert!(press(&mut model, KeyCode::Enter).is_empty(), "the statement comes first");
    show(&mut model, 80, 24);
    assert!(press(&mut model, KeyCode::Enter).is_empty(), "nothing typed, nothing signed");
    write(&mut model, "sig");
    assert!(press(&mut model, KeyCode::Enter).is_empty());
    write(&mut model, "n");
    let effects = press(&mut model, KeyCode::Enter);
    assert!(matches!(effects.as_slice(), [Effect::Sign(review, None, known)]
        if known.len() == 6 && review.me.person.as_str() == "witness-1" && review.statement.contains("step: identities")));
}

#[test]
fn escape_leaves_a_statement_unsigned() {
    let mut model = model(6);
    press(&mut model, KeyCode::Char('s'));
    press(&mut model, KeyCode::Enter);
    write(&mut model, "sign");
    press(&mut model, KeyCode::Esc);
    assert!(model.popup.is_none() && model.message.contains("nothing was signed"));
}

#[test]
fn wrong_words_are_refused_before_anything_is_signed() {
    let mut model = model(23);
    press(&mut model, KeyCode::Char('s'));
    press(&mut model, KeyCode::Enter);
    write(&mut model, "aardvark adroitness");
    press(&mut model, KeyCode::Enter);
    assert!(message(&model).contains("not those of this wallet"));
}

#[test]
fn leaving_a_running_ceremony_is_asked_for() {
    let mut running = model(13);
    assert!(press(&mut running, KeyCode::Char('q')).is_empty());
    assert!(matches!(running.popup, Some(Popup::Quit)));
    assert!(press(&mut running, KeyCode::Char('n')).is_empty());
    press(&mut running, KeyCode::Char('q'));
    assert!(matches!(press(&mut running, KeyCode::Char('y')).as_slice(), [Effect::Quit]));
    let mut closed = model(56);
    assert!(matches!(press(&mut closed, KeyCode::Char('q')).as_slice(), [Effect::Quit]));
}

#[test]
fn a_step_of_the_enclaves_and_a_closed_ceremony_cannot_be_signed() {
    for count in [13, 46] {
        let mut model = model(count);
        press(&mut model, KeyCode::Char('s'));
        assert!(!message(&model).is_empty(), "after {count} entries");
    }
}

#[test]
fn a_console_without_an_administrator_opens_nothing() {
    let mut model = model(6);
    model.cluster.me.retain(|me| me.person.as_str() != "administrator-1");
    press(&mut model, KeyCode::Char('o'));
    assert!(message(&model).contains("No administrator"));
}

#[test]
fn a_malformed_wallet_name_stays_in_the_form_with_the_reason() {
    let mut model = model(6);
    press(&mut model, KeyCode::Char('o'));
    write(&mut model, "Not A Name");
    press(&mut model, KeyCode::Enter);
    write(&mut model, "purpose");
    press(&mut model, KeyCode::Enter);
    assert!(matches!(model.popup, Some(Popup::Open(_))));
    assert!(model.message.contains("is not a name"), "{}", model.message);
}

#[test]
fn a_refusal_of_the_nodes_is_shown_and_changes_nothing() {
    let mut model = model(6);
    let before = model.book.iter().map(|(_, chapter)| chapter.entries.len()).sum::<usize>();
    update(&mut model, Event::Failed("refused: no".to_owned()));
    assert_eq!(message(&model), "refused: no");
    assert_eq!(model.book.iter().map(|(_, chapter)| chapter.entries.len()).sum::<usize>(), before);
}

#[test]
fn resizing_loses_nothing() {
    let mut model = model(6);
    press(&mut model, KeyCode::Char('o'));
    write(&mut model, "treasury");
    update(&mut model, Event::Resized);
    assert!(matches!(&model.popup, Some(Popup::Open(form)) if form.wallet == "treasury"));
}

#[test]
fn a_recovery_is_opened_with_the_nodes_that_are_typed() {
    let mut model = model(56);
    press(&mut model, KeyCode::Char('o'));
    press(&mut model, KeyCode::BackTab);
    for _ in 0..3 {
        press(&mut model, KeyCode::Right);
    }
    for (text, next) in [("", true), ("treasury", true), ("Disk of node 4", true), ("2,44=backup", false)] {
        write(&mut model, text);
        if next {
            press(&mut model, KeyCode::Tab);
        }
    }
    press(&mut model, KeyCode::Enter);
    assert!(model.message.contains("not one of the wallet's nodes"), "{}", model.message);
    for _ in 0.."4=backup".len() {
        press(&mut model, KeyCode::Backspace);
    }
    write(&mut model, "=backup");
    press(&mut model, KeyCode::Enter);
    let Some(Popup::Review(review)) = &model.popup else { unreachable!("{}", model.message) };
    for said in ["kind: recover", "lost: node 2, by repair\nlost: node 4, by backup\n"] {
        assert!(review.statement.contains(said), "{}", review.statement);
    }
}

#[test]
fn keys_with_a_modifier_command_nothing() {
    for modifiers in [KeyModifiers::CONTROL, KeyModifiers::ALT, KeyModifiers::CONTROL | KeyModifiers::ALT] {
        for c in ('a'..='z').chain(['?', ':', '/', '1']).filter(|c| !['c', 'l'].contains(c)) {
            let mut model = model(6);
            let key = KeyEvent::new(KeyCode::Char(c), modifiers);
            assert!(update(&mut model, Event::Key(key)).1.is_empty());
            assert!(
                model.popup.is_none() && model.line.is_none() && model.open.is_some(),
                "{modifiers:?} {c}"
            );
        }
    }
    let mut shifted = model(6);
    update(&mut shifted, Event::Key(KeyEvent::new(KeyCode::Char('?'), KeyModifiers::SHIFT)));
    assert!(matches!(shifted.popup, Some(Popup::Help)));
}

#[test]
fn control_l_draws_anew_and_control_keys_edit_what_is_typed() {
    let mut model = model(6);
    let control = |model: &mut Model, c| {
        update(model, Event::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))).1
    };
    assert!(matches!(control(&mut model, 'l').as_slice(), [Effect::Redraw]));
    press(&mut model, KeyCode::Char('o'));
    write(&mut model, "treasurx");
    for (c, wallet) in [('h', "treasur"), ('x', "treasur"), ('w', ""), ('u', "")] {
        assert!(control(&mut model, c).is_empty());
        assert!(matches!(&model.popup, Some(Popup::Open(form)) if form.wallet == wallet), "Ctrl-{c}");
    }
    assert!(matches!(control(&mut model, 'l').as_slice(), [Effect::Redraw]), "in a form too");
}

#[test]
fn pasted_lines_become_one_with_its_words_apart() {
    let mut model = model(6);
    press(&mut model, KeyCode::Char('o'));
    press(&mut model, KeyCode::Tab);
    update(&mut model, Event::Paste("First\r\nkey of\u{1b}[2J\nall\n".to_owned()));
    assert!(matches!(&model.popup, Some(Popup::Open(form)) if form.purpose == "First key of[2J all"));
}

#[test]
fn text_that_nobody_sees_stays_in_the_form_with_its_code_point() {
    for (hidden, code) in [("\u{ad}", "U+00AD"), ("\u{2062}", "U+2062"), ("\u{3164}", "U+3164")] {
        let mut model = model(56);
        press(&mut model, KeyCode::Char('o'));
        write(&mut model, "ops");
        press(&mut model, KeyCode::Tab);
        update(&mut model, Event::Paste(format!("Key{hidden} of ops")));
        press(&mut model, KeyCode::Enter);
        assert!(matches!(model.popup, Some(Popup::Open(_))));
        assert!(model.message.contains(code), "{}", model.message);
    }
}
