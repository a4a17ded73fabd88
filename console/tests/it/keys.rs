//! What keys do: nothing irreversible on one press, and refusals that say why.

use std::collections::BTreeSet;

use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::script::Act;
use ceremonies::wire::bus::Heartbeat;
use console::client::News;
use console::config::Me;
use console::tui::{Effect, Event, Model, Popup, Screen, update};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::model;
use crate::screens::{drawn, show};

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

/// Why what was typed was not taken.
fn trouble(model: &Model) -> &str {
    match &model.popup {
        Some(Popup::Open(form)) => &form.trouble,
        Some(Popup::Type(typing)) => &typing.trouble,
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
    for other in ["sig", "n", "sing", "signs"] {
        write(&mut model, other);
        assert!(
            press(&mut model, KeyCode::Enter).is_empty(),
            "what did not sign is no part of what is typed next"
        );
    }
    write(&mut model, "sign");
    let effects = press(&mut model, KeyCode::Enter);
    assert!(matches!(effects.as_slice(), [Effect::Sign(review, None, known)]
        if known.len() == 6 && review.me.person.as_str() == "witness-1" && review.statement.contains("step: identities")));
}

#[test]
fn every_screen_says_whose_turn_it_is_and_one_key_goes_there() {
    let mut waiting = model(6);
    let id = waiting.open.take();
    for screen in Screen::ALL {
        waiting.screen = screen;
        assert!(
            drawn(&waiting, 80, 24).contains("▶ YOUR TURN (g) in dkg-treasury-c0187ed5: witness-1"),
            "{screen:?}"
        );
    }
    press(&mut waiting, KeyCode::Char('g'));
    assert_eq!((waiting.screen, &waiting.open), (Screen::Ceremonies, &id));
    press(&mut waiting, KeyCode::Char('g'));
    assert_eq!(waiting.open, id, "there is no other");

    let mut elsewhere = model(6);
    elsewhere.cluster.me.retain(|me| me.person.as_str() != "witness-1");
    for (mut nobody, words) in [
        (elsewhere, "it waits for nobody here"),
        (model(13), "it waits for nobody here"),
        (model(56), "no ceremony is under way"),
    ] {
        nobody.screen = Screen::Log;
        assert!(drawn(&nobody, 80, 24).contains(words), "{words}");
        press(&mut nobody, KeyCode::Char('g'));
        assert_eq!(nobody.screen, Screen::Log);
        assert!(nobody.message.contains("No ceremony waits"), "{}", nobody.message);
    }
}

#[test]
fn nothing_is_left_out_of_the_second_line_without_a_mark_however_narrow_the_screen() {
    let waiting = model(6);
    for width in [60, 70, 80, 120] {
        let screen = drawn(&waiting, width, 24);
        let second = screen.lines().nth(1).unwrap().trim_matches('"').trim_end().to_owned();
        assert!(second.contains("? 5") && second.contains("▶ YOUR TURN (g) in dkg"), "{second}");
        assert!(second.ends_with('…') || second.ends_with("witness-1"), "{second}");
    }
}

#[test]
fn every_screen_says_how_much_is_wrong() {
    let mut model = model(56);
    for screen in Screen::ALL {
        model.screen = screen;
        assert!(drawn(&model, 80, 24).contains("? 5 nodes not known │"), "{screen:?}");
    }
}

#[test]
fn nobody_is_asked_to_sign_unwarned_what_a_node_in_trouble_would_waste() {
    let mut model = model(6);
    let beat =
        |node, trouble: &str| Heartbeat { node, store_trouble: trouble.to_owned(), ..Heartbeat::default() };
    for node in 1..=5 {
        update(&mut model, Event::News(News::Health(Box::new(beat(node, "takes no writes")))));
    }
    press(&mut model, KeyCode::Char('s'));
    assert!(message(&model).contains("node 3: store: takes no writes"), "{}", message(&model));
    assert!(drawn(&model, 80, 24).contains("takes no writes"));
    press(&mut model, KeyCode::Enter);
    press(&mut model, KeyCode::Char('s'));
    assert!(matches!(model.popup, Some(Popup::Who(_))), "a person may know better");
    press(&mut model, KeyCode::Enter);
    assert!(drawn(&model, 80, 24).contains("the ceremony may fail"));
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
fn form_that_was_left_is_filled_in_as_it_was_until_its_ceremony_is_open() {
    let filled = |model: &Model| {
        let Some(Popup::Open(form)) = &model.popup else { unreachable!("the form is in front") };
        (form.kind, form.wallet.clone(), form.purpose.clone())
    };
    let mut model = model(6);
    press(&mut model, KeyCode::Char('o'));
    write(&mut model, "ops");
    press(&mut model, KeyCode::Enter);
    write(&mut model, "Key of ops");
    press(&mut model, KeyCode::Esc);
    assert!(
        model.popup.is_none() && model.message.contains("o shows what was filled in"),
        "{}",
        model.message
    );
    press(&mut model, KeyCode::Char('o'));
    let ops = (CeremonyKind::Dkg, "ops".to_owned(), "Key of ops".to_owned());
    assert_eq!(filled(&model), ops);
    // Read to the statement, and left there.
    press(&mut model, KeyCode::Enter);
    press(&mut model, KeyCode::Enter);
    assert!(matches!(model.popup, Some(Popup::Review(_))), "{}", trouble(&model));
    press(&mut model, KeyCode::Esc);
    press(&mut model, KeyCode::Char('o'));
    assert_eq!(filled(&model), ops);
    press(&mut model, KeyCode::Esc);
    update(&mut model, Event::Done("approve-treasury-00000000".parse().unwrap(), String::new()));
    press(&mut model, KeyCode::Char('o'));
    assert_eq!(filled(&model), ops, "another ceremony has gone on");
    press(&mut model, KeyCode::Esc);
    update(&mut model, Event::Done("dkg-ops-00000000".parse().unwrap(), String::new()));
    press(&mut model, KeyCode::Char('o'));
    assert_eq!(filled(&model), (CeremonyKind::Dkg, String::new(), String::new()));
}

#[test]
fn wrong_words_are_refused_before_anything_is_signed() {
    let mut model = model(23);
    press(&mut model, KeyCode::Char('s'));
    press(&mut model, KeyCode::Enter);
    write(&mut model, "aardvark adroitnes");
    press(&mut model, KeyCode::Enter);
    assert!(trouble(&model).contains("8 words, and 2 were given"), "{}", trouble(&model));
    // What was typed can be mended, and what is typed on commands nothing.
    write(&mut model, "s");
    assert!(matches!(&model.popup, Some(Popup::Type(typing)) if typing.text == "aardvark adroitness"));
}

#[test]
fn words_are_not_on_the_screen_while_somebody_types_those_that_they_heard() {
    let mut model = model(23);
    let words = model.ceremony().unwrap().spoken_words().unwrap();
    let first = words.split(' ').next().unwrap();
    assert!(drawn(&model, 160, 50).contains(first));
    press(&mut model, KeyCode::Char('s'));
    press(&mut model, KeyCode::Enter);
    assert!(matches!(&model.popup, Some(Popup::Type(_))));
    for (width, height) in [(80, 24), (160, 50)] {
        let screen = drawn(&model, width, height);
        assert!(!words.split(' ').any(|word| screen.contains(word)), "{screen}");
    }
    press(&mut model, KeyCode::Esc);
    assert!(drawn(&model, 160, 50).contains(first));
}

#[test]
fn what_is_typed_on_while_a_message_appears_commands_nothing() {
    let mut model = model(6);
    update(&mut model, Event::Failed("refused: no".to_owned()));
    for key in ['q', 's', 'w', 'o', 'y', ' ', '?'] {
        assert!(press(&mut model, KeyCode::Char(key)).is_empty());
        assert_eq!(message(&model), "refused: no", "after {key}");
    }
    press(&mut model, KeyCode::Enter);
    assert!(model.popup.is_none());
}

#[test]
fn code_is_of_what_the_screen_spells_in_words() {
    let code = |count: usize| {
        let mut model = model(count);
        press(&mut model, KeyCode::Char('f'));
        match model.popup {
            Some(Popup::Fingerprint { title, .. }) => title,
            _ => String::new(),
        }
    };
    assert_eq!(code(6), "Manifest");
    assert_eq!(code(13), "Manifest");
    assert_eq!(code(23), "Wallet treasury");
    assert_eq!(code(56), "Head, for paper");
    let mut unasked = model(56);
    unasked.standings.clear();
    press(&mut unasked, KeyCode::Char('f'));
    assert!(matches!(&unasked.popup, Some(Popup::Message { title, .. }) if title == "No words yet"));
}

#[test]
fn what_is_over_is_neither_signed_nor_withdrawn_and_says_how_it_ended() {
    for key in ['w', 's'] {
        let mut closed = model(56);
        press(&mut closed, KeyCode::Char(key));
        assert!(message(&closed).contains("The ceremony is over: closed."), "{key}: {}", message(&closed));
        let screen = drawn(&model(56), 80, 24);
        assert!(!screen.contains("w withdraw") && !screen.contains("s sign"), "{screen}");
    }
    let mut expired = model(13);
    expired.now = expired.ceremony().unwrap().manifest().expires.plus(1);
    press(&mut expired, KeyCode::Char('w'));
    assert!(message(&expired).contains("void: its deadline passed"), "{}", message(&expired));
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
    assert!(trouble(&model).contains("is not a name"), "{}", trouble(&model));
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
    let no_such = "there is no node 44 in this wallet: there are nodes 1, 2, 3, 4 and 5";
    assert!(trouble(&model).contains(no_such), "{}", trouble(&model));
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
fn transaction_that_can_be_carried_out_only_in_the_place_of_another_says_so_above_the_word() {
    let mut signing = model(6);
    press(&mut signing, KeyCode::Char('s'));
    press(&mut signing, KeyCode::Enter);
    let Some(Popup::Review(review)) = &mut signing.popup else { unreachable!("it is in front") };
    assert!(review.rivals.is_empty(), "it carries no transaction");
    let rival = "! same nonce 7 as transfer transfer-ops-1; only one of the two can be carried out";
    review.rivals = vec![rival.to_owned(), "! another".to_owned()];
    show(&mut signing, 100, 40);
    let screen = drawn(&signing, 100, 40);
    let (before, after) = screen.split_once(rival).unwrap();
    assert!(before.contains("Custody ceremony statement") && after.contains("Type `sign`"), "{screen}");
    assert!(after.contains("(and others)."), "{screen}");
}

/// Types and pastes more into a field than it takes; what is said of it each time must be on the screen.
fn overfill(model: &mut Model) {
    let on_screen = |model: &Model| {
        let screen = drawn(model, 80, 40);
        screen.split_whitespace().filter(|word| !word.contains('│')).collect::<Vec<_>>().join(" ")
    };
    update(model, Event::Paste("x".repeat(600)));
    let pasted = on_screen(model).to_lowercase();
    assert!(pasted.contains("not taken: the last 88 characters: the field takes 512"), "{pasted}");
    press(model, KeyCode::Char('y'));
    let typed = on_screen(model).to_lowercase();
    assert!(typed.contains("not taken: this key: the field takes 512 characters"), "{typed}");
    press(model, KeyCode::Backspace);
    let fits = on_screen(model).to_lowercase();
    assert!(!fits.contains("not taken"), "{fits}");
    press(model, KeyCode::Char('y'));
    assert!(!on_screen(model).to_lowercase().contains("not taken"), "it fits again");
}

#[test]
fn what_a_field_no_longer_takes_is_said_whichever_field_it_is() {
    let mut form = model(6);
    press(&mut form, KeyCode::Char('o'));
    overfill(&mut form);
    let mut reason = model(6);
    press(&mut reason, KeyCode::Char('w'));
    press(&mut reason, KeyCode::Enter);
    assert!(matches!(reason.popup, Some(Popup::Type(_))));
    overfill(&mut reason);
    let mut statement = model(6);
    press(&mut statement, KeyCode::Char('s'));
    press(&mut statement, KeyCode::Enter);
    show(&mut statement, 80, 40);
    overfill(&mut statement);
    let Some(Popup::Review(review)) = statement.popup.take() else { unreachable!("it is in front") };
    update(&mut statement, Event::Locked(Box::new(review)));
    overfill(&mut statement);
    for key in [':', '/'] {
        let mut line = model(6);
        press(&mut line, KeyCode::Char(key));
        overfill(&mut line);
    }
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
        assert!(trouble(&model).contains(code), "{}", trouble(&model));
    }
}

#[test]
fn reason_against_a_form_is_gone_once_its_text_is_another_and_stays_while_it_is_the_same() {
    let refused = || {
        let mut model = model(6);
        press(&mut model, KeyCode::Char('o'));
        write(&mut model, "Not A Name");
        press(&mut model, KeyCode::Enter);
        write(&mut model, "purpose");
        press(&mut model, KeyCode::Enter);
        assert!(!trouble(&model).is_empty());
        model
    };
    let mut moved = refused();
    press(&mut moved, KeyCode::Tab);
    press(&mut moved, KeyCode::F(1));
    assert!(!trouble(&moved).is_empty(), "nothing was changed");
    let mut typed = refused();
    write(&mut typed, "s");
    assert_eq!(trouble(&typed), "");
    let mut erased = refused();
    press(&mut erased, KeyCode::Backspace);
    assert_eq!(trouble(&erased), "");
    let mut pasted = refused();
    update(&mut pasted, Event::Paste("more".to_owned()));
    assert_eq!(trouble(&pasted), "");

    let mut words = model(23);
    press(&mut words, KeyCode::Char('s'));
    press(&mut words, KeyCode::Enter);
    write(&mut words, "aardvark");
    press(&mut words, KeyCode::Enter);
    assert!(!trouble(&words).is_empty());
    write(&mut words, "s");
    assert_eq!(trouble(&words), "");
}

fn offered(model: &mut Model) -> Vec<String> {
    press(model, KeyCode::Char('s'));
    match &model.popup {
        Some(Popup::Who(who)) => who.people.iter().map(|me| me.person.to_string()).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn only_people_for_whom_the_step_waits_are_offered() {
    assert_eq!(offered(&mut model(6)), ["witness-1"]);
    for count in 7..13 {
        let mut model = model(count);
        let step = "approve".parse().unwrap();
        let signed = model.ceremony().unwrap().signed(&step);
        let signed: Vec<String> = signed.map(|signed| signed.person.to_string()).collect();
        let people = offered(&mut model);
        assert!(people.iter().all(|person| !signed.contains(person)), "{count}: {people:?}");
    }
    // Whose role has signed as often as is asked is not needed, though the step waits for others.
    let mut twelve = model(12);
    let extra = twelve.cluster.me.iter().find(|me| me.person.as_str() == "operator-1").unwrap().clone();
    twelve.cluster.me.push(Me { person: "operator-4".parse().unwrap(), ..extra });
    let people = offered(&mut twelve);
    assert!(!people.contains(&"operator-4".to_owned()), "{people:?}");
}

#[test]
fn every_keeper_whose_backups_are_still_to_be_released_is_offered_whoever_has_released_theirs() {
    let mut seen = BTreeSet::new();
    for count in 1..56 {
        let mut model = model(count);
        let proves = |model: &Model| Some(model.ceremony()?.current_step()?.act == Act::Prove);
        if proves(&model) != Some(true) {
            continue;
        }
        let rules = model.charter().backup().unwrap().clone();
        let ada = model.cluster.me[0].clone();
        let keepers = rules.custodians.iter().map(|custodian| custodian.person.clone());
        model.cluster.me =
            keepers.map(|person| Me { person, role: Role::Custodian, ..ada.clone() }).collect();
        let ceremony = model.ceremony().unwrap();
        let wanted =
            model.cluster.me.iter().filter(|me| !ceremony.releases_wanted(Act::Prove, &me.person).is_empty());
        let wanted: Vec<String> = wanted.map(|me| me.person.to_string()).collect();
        assert_eq!(offered(&mut model), wanted, "{count}");
        seen.insert(wanted.len());
    }
    assert!(seen.len() > 2, "custodians release one after another: {seen:?}");
}

#[test]
fn enter_on_an_entry_of_the_log_opens_its_ceremony_and_keeps_to_the_filter() {
    let mut model = model(56);
    let id = model.open.take().unwrap();
    model.screen = Screen::Log;
    press(&mut model, KeyCode::Down);
    press(&mut model, KeyCode::Enter);
    assert_eq!((model.screen, &model.open), (Screen::Ceremonies, &Some(id)));
    model.open = None;
    model.screen = Screen::Log;
    model.filter = "nowhere".to_owned();
    press(&mut model, KeyCode::Enter);
    assert_eq!((model.screen, &model.open), (Screen::Log, &None), "no entry passes the filter");
}

#[test]
fn all_of_a_wallet_can_be_read_on_a_small_terminal() {
    let mut model = crate::screens::with_an_inventory();
    assert!(drawn(&model, 80, 24).contains("more lines: Enter shows all, and scrolls"));
    press(&mut model, KeyCode::Enter);
    let mut seen = String::new();
    for _ in 0..200 {
        show(&mut model, 80, 24);
        seen += &drawn(&model, 80, 24);
        press(&mut model, KeyCode::Down);
    }
    let wallet = model.book.wallets().into_values().next().unwrap();
    let words = ceremonies::words::spoken(&wallet.record.fingerprint());
    for word in words.split(' ').chain(["signing:", "Known copies", "destroyed in inventory-"]) {
        assert!(seen.contains(word), "{word}");
    }
    let end = drawn(&model, 80, 24);
    assert!(end.contains("↑ more") && !end.contains("… more"), "{end}");
    press(&mut model, KeyCode::Home);
    show(&mut model, 80, 24);
    let start = drawn(&model, 80, 24);
    assert!(!start.contains("↑ more") && start.contains("… more"), "{start}");
}

#[test]
fn message_that_is_longer_than_the_screen_is_scrolled_to_its_end_and_the_next_begins_at_its_beginning() {
    let mut model = model(6);
    let long: Vec<String> = (1..=60).map(|line| format!("line {line}")).collect();
    update(&mut model, Event::Failed(long.join("\n")));
    show(&mut model, 80, 24);
    assert!(drawn(&model, 80, 24).contains("line 1 ") && drawn(&model, 80, 24).contains("… more"));
    press(&mut model, KeyCode::End);
    show(&mut model, 80, 24);
    assert!(drawn(&model, 80, 24).contains("line 60"), "{}", drawn(&model, 80, 24));
    press(&mut model, KeyCode::Up);
    show(&mut model, 80, 24);
    assert!(!drawn(&model, 80, 24).contains("line 60"), "back from the end at once");
    press(&mut model, KeyCode::Enter);
    press(&mut model, KeyCode::Char('?'));
    assert!(drawn(&model, 60, 15).contains("1-4, Tab"), "{}", drawn(&model, 60, 15));
    press(&mut model, KeyCode::End);
    show(&mut model, 60, 15);
    assert!(drawn(&model, 60, 15).contains("⊘ excluded"));
}

#[test]
fn end_of_what_is_typed_is_in_sight_however_long_it_is() {
    let mut model = model(13);
    press(&mut model, KeyCode::Char('w'));
    press(&mut model, KeyCode::Enter);
    for _ in 0..60 {
        write(&mut model, "reason ");
    }
    write(&mut model, "at last");
    assert!(drawn(&model, 60, 15).contains("at last▏"), "{}", drawn(&model, 60, 15));
}

#[test]
fn console_is_left_while_something_that_signs_never_answers() {
    let mut model = model(6);
    press(&mut model, KeyCode::Char('s'));
    press(&mut model, KeyCode::Enter);
    show(&mut model, 80, 24);
    write(&mut model, "sign");
    assert!(matches!(press(&mut model, KeyCode::Enter).as_slice(), [Effect::Sign(..)]));
    assert!(model.busy && model.message.contains("touch it, or answer there"));
    press(&mut model, KeyCode::Char('q'));
    assert!(matches!(model.popup, Some(Popup::Quit)), "a ceremony is under way");
    assert!(matches!(press(&mut model, KeyCode::Char('y')).as_slice(), [Effect::Quit]));
}

#[test]
fn kind_is_changed_from_any_field_and_an_empty_field_is_named_before_the_next() {
    let mut model = model(56);
    press(&mut model, KeyCode::Char('o'));
    let form = |model: &Model| match &model.popup {
        Some(Popup::Open(form)) => Some((form.kind, form.field)),
        Some(_) | None => None,
    };
    assert_eq!(form(&model), Some((CeremonyKind::Dkg, 1)));
    press(&mut model, KeyCode::Enter);
    assert_eq!((form(&model), trouble(&model)), (Some((CeremonyKind::Dkg, 1)), "wallet is empty"));
    write(&mut model, "treasury");
    press(&mut model, KeyCode::Enter);
    press(&mut model, KeyCode::Enter);
    assert_eq!((form(&model), trouble(&model)), (Some((CeremonyKind::Dkg, 2)), "purpose is empty"));
    for _ in 0..3 {
        press(&mut model, KeyCode::Right);
    }
    assert_eq!((form(&model), trouble(&model)), (Some((CeremonyKind::Recover, 2)), ""));
    write(&mut model, "Disk of node 4");
    press(&mut model, KeyCode::Enter);
    press(&mut model, KeyCode::Enter);
    assert_eq!((form(&model), trouble(&model)), (Some((CeremonyKind::Recover, 3)), "lost is empty"));
    for (named, told) in [("4,4=backup", "node 4 is named twice"), ("9", "9")] {
        write(&mut model, named);
        press(&mut model, KeyCode::Enter);
        assert!(trouble(&model).contains(told), "{}", trouble(&model));
        assert!(!trouble(&model).contains("all the same"), "{}", trouble(&model));
        for _ in named.chars() {
            press(&mut model, KeyCode::Backspace);
        }
    }
    press(&mut model, KeyCode::Left);
    assert_eq!(form(&model), Some((CeremonyKind::Refresh, 2)), "a refresh has no such field");
    for _ in 0..3 {
        press(&mut model, KeyCode::Right);
    }
    assert_eq!(form(&model), Some((CeremonyKind::Transfer, 2)));
    assert!(trouble(&model).contains("from the command line"), "{}", trouble(&model));
    press(&mut model, KeyCode::Enter);
    assert_eq!(form(&model), Some((CeremonyKind::Transfer, 2)), "it is not opened with this form");
}

#[test]
fn opener_of_a_test_signing_is_told_of_shares_that_nobody_shows() {
    let mut model = model(56);
    press(&mut model, KeyCode::Char('o'));
    press(&mut model, KeyCode::BackTab);
    press(&mut model, KeyCode::Right);
    press(&mut model, KeyCode::Tab);
    write(&mut model, "treasury");
    press(&mut model, KeyCode::Tab);
    write(&mut model, "Yearly test");
    press(&mut model, KeyCode::Enter);
    assert!(trouble(&model).contains("not every signer's share is known to be there"), "{}", trouble(&model));
    press(&mut model, KeyCode::Enter);
    assert!(matches!(&model.popup, Some(Popup::Review(_))), "a person may know better");
}

#[test]
fn opener_of_a_refresh_is_told_of_a_lost_share_for_which_it_would_wait() {
    let mut model = model(56);
    update(&mut model, Event::Connected(true));
    // Long enough after its node took the share up.
    let without_shares = Heartbeat { node: 2, time_ms: model.now.0 + 60_000, ..Heartbeat::default() };
    update(&mut model, Event::News(News::Health(Box::new(without_shares))));
    press(&mut model, KeyCode::Char('o'));
    press(&mut model, KeyCode::BackTab);
    let is_refresh =
        |model: &Model| matches!(&model.popup, Some(Popup::Open(form)) if form.kind == CeremonyKind::Refresh);
    for _ in 0..CeremonyKind::ALL.len() {
        if !is_refresh(&model) {
            press(&mut model, KeyCode::Right);
        }
    }
    assert!(is_refresh(&model));
    press(&mut model, KeyCode::Tab);
    write(&mut model, "treasury");
    press(&mut model, KeyCode::Tab);
    write(&mut model, "Yearly refresh");
    press(&mut model, KeyCode::Enter);
    assert!(
        trouble(&model).contains("node 2 has lost its share, and would never attest"),
        "{}",
        trouble(&model)
    );
    press(&mut model, KeyCode::Enter);
    assert!(matches!(&model.popup, Some(Popup::Review(_))), "a person may know better");
}
