//! What is signed is seen whole: no key leads to a signature before the statement's last line has been on the screen.

use console::tui::{Effect, Event, Model, Popup, update};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use unicode_width::UnicodeWidthStr;

use crate::model;
use crate::screens::{press, show};

/// The terminal showing the statement of an opening for this purpose.
fn opening(purpose: &str) -> Model {
    let mut model = model(56);
    press(&mut model, &[KeyCode::Char('o')]);
    update(&mut model, Event::Paste("ops".to_owned()));
    press(&mut model, &[KeyCode::Tab]);
    update(&mut model, Event::Paste(purpose.to_owned()));
    press(&mut model, &[KeyCode::Enter]);
    assert!(matches!(model.popup, Some(Popup::Review(_))), "{}", model.message);
    model
}

fn statement(model: &Model) -> String {
    let Some(Popup::Review(review)) = &model.popup else { unreachable!("no statement is in front") };
    review.statement.clone()
}

/// The lines inside the frame, as a terminal draws them.
fn lines(terminal: &Terminal<TestBackend>) -> Vec<String> {
    let buffer = terminal.backend().buffer();
    let row = |y: u16| {
        let (mut text, mut x) = (String::new(), 0);
        while x < buffer.area.width {
            let symbol = buffer[(x, y)].symbol();
            text.push_str(symbol);
            x += u16::try_from(symbol.width()).unwrap().max(1);
        }
        text
    };
    let rows = (0..buffer.area.height).map(row).filter(|row| row.starts_with('│'));
    rows.map(|row| row.trim_matches('│').trim().to_owned()).collect()
}

/// What typing the word leads to.
fn signs(model: &mut Model) -> bool {
    let mut effects = Vec::new();
    for key in ["s", "i", "g", "n"]
        .map(|key| KeyCode::Char(key.chars().next().unwrap()))
        .into_iter()
        .chain([KeyCode::Enter])
    {
        effects.extend(update(model, Event::Key(KeyEvent::new(key, KeyModifiers::NONE))).1);
    }
    matches!(effects.as_slice(), [Effect::Sign(..)])
}

fn letters(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

/// Purposes of wide, narrow and marked characters.
fn purpose() -> impl Strategy<Value = String> {
    let word = "[a-z]{1,12}|[一-俿]{1,20}|(o\u{308}){1,9}|[０-９]{1,9}|👍{1,3}";
    proptest::collection::vec(word, 1..12)
        .prop_map(|words| words.join(" ").chars().take(200).collect::<String>().trim().to_owned())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn statement_is_signed_only_after_every_line_of_it_was_on_the_screen(
        purpose in purpose(),
        width in 60..110u16,
        height in 15..30u16,
    ) {
        let mut model = opening(&purpose);
        let text = statement(&model);
        prop_assert!(!signs(&mut model), "before anything was drawn");
        let mut seen: Vec<String> = Vec::new();
        loop {
            let shown = lines(&show(&mut model, width, height));
            let Some(Popup::Review(review)) = &model.popup else { unreachable!() };
            let (first, count, read) = (review.page.first, review.page.height, review.read);
            prop_assert!(first <= seen.len(), "no line is passed over");
            seen.truncate(first);
            seen.extend(shown.into_iter().take(count));
            if read {
                break;
            }
            prop_assert!(!signs(&mut model), "line {} of {}", seen.len(), text.lines().count());
            press(&mut model, &[KeyCode::PageDown]);
        }
        prop_assert_eq!(letters(&seen.concat()), letters(&text));
        prop_assert!(signs(&mut model));
    }
}

/// With more lines than any terminal here has.
const LONG: &str = "金庫の鍵を作る。金庫の鍵を作る。金庫の鍵を作る。金庫の鍵を作る。金庫の鍵を作る。金庫の鍵を作る。金庫の鍵を作る。";

#[test]
fn every_way_of_scrolling_reaches_the_end_and_none_passes_it() {
    for keys in [vec![KeyCode::Down; 60], vec![KeyCode::PageDown; 9], vec![KeyCode::End; 9]] {
        let mut model = opening(LONG);
        show(&mut model, 60, 15);
        for key in keys {
            press(&mut model, &[key]);
            show(&mut model, 60, 15);
        }
        let last = statement(&model).lines().last().unwrap().rsplit(' ').next().unwrap().to_owned();
        let shown = lines(&show(&mut model, 60, 15)).concat();
        assert!(shown.contains(&last[last.len() - 9..]) && shown.contains("Type `sign`"), "{shown}");
        press(&mut model, &[KeyCode::Home]);
        assert!(lines(&show(&mut model, 60, 15))[0].starts_with("Custody ceremony statement"));
    }
}

#[test]
fn word_is_not_taken_where_the_end_was_never_shown() {
    let mut model = opening(LONG);
    let prompt = |terminal| lines(&terminal).concat();
    assert!(prompt(show(&mut model, 80, 15)).contains("Read all of it"));
    assert!(!signs(&mut model));
    update(&mut model, Event::Paste("sign".to_owned()));
    press(&mut model, &[KeyCode::Enter]);
    assert!(model.message.contains("Read all of it before you sign"), "{}", model.message);
    // The code says all of it to a phone, and nothing to whoever sits here.
    press(&mut model, &[KeyCode::Tab]);
    show(&mut model, 160, 60);
    assert!(!signs(&mut model));
    press(&mut model, &[KeyCode::Tab]);
    show(&mut model, 80, 15);
    press(&mut model, &[KeyCode::End; 9]);
    assert!(!signs(&mut model), "keys alone show nothing");
    show(&mut model, 80, 15);
    assert!(!signs(&mut model), "what came between was never shown");
    for _ in 0..9 {
        press(&mut model, &[KeyCode::End]);
        show(&mut model, 80, 15);
    }
    assert!(signs(&mut model));
}

#[test]
fn nothing_is_signed_on_a_terminal_that_became_too_small() {
    let mut model = opening("Key of ops");
    show(&mut model, 80, 40);
    show(&mut model, 20, 5);
    assert!(!signs(&mut model));
    update(&mut model, Event::Paste("sign".to_owned()));
    assert!(!signs(&mut model));
    show(&mut model, 80, 40);
    assert!(signs(&mut model));
}
