//! Logs that do not fold: they stand in nobody's way, and never look valid.

use std::collections::BTreeMap;

use ceremonies::book::{Book, SetAside};
use ceremonies::evidence::{self, Expected};
use ceremonies::log::Entry;
use console::client::{Catalogue, Library};
use console::tui::{Event, Model, Screen, update};
use crossterm::event::KeyCode;

use crate::screens::{drawn, press, with_an_inventory};
use crate::{data, entries, model};

fn library((book, aside): (Book, Vec<SetAside>)) -> Event {
    let (catalogue, missing) = (Catalogue::default(), BTreeMap::new());
    Event::Loaded(Box::new(Library { book, aside, catalogue, missing, set_back: Vec::new() }))
}

fn load(model: &mut Model, logs: Vec<Vec<Entry>>) {
    let gathered = Book::gather(model.book.first().clone(), logs);
    update(model, library(gathered));
}

fn loaded(logs: Vec<Vec<Entry>>) -> Model {
    let mut model = model(0);
    load(&mut model, logs);
    model
}

/// The recorded log with its 20th entry left out.
fn broken() -> Vec<Entry> {
    let mut log = entries();
    log.remove(19);
    log
}

#[test]
fn a_log_that_breaks_off_is_listed_with_mark_word_and_reason_and_is_not_opened() {
    for (width, height) in [(80, 24), (160, 50)] {
        for colour in [true, false] {
            let mut model = loaded(vec![broken()]);
            model.colour = colour;
            let id = entries()[0].ceremony.clone();
            let screen = drawn(&model, width, height);
            let row = screen.lines().find(|line| line.contains(id.as_str())).unwrap();
            assert!(row.contains("! ") && row.contains("SET ASIDE: it does not fold from entry 21"), "{row}");
            assert!(screen.contains(" 0 ceremonies "), "{screen}");
            press(&mut model, &[KeyCode::Enter]);
            assert_eq!(model.open, None);
            model.open = Some(id);
            assert!(model.ceremony().is_none(), "not even when it was in front before");
            press(&mut model, &[KeyCode::Char('s')]);
            assert!(drawn(&model, width, height).contains("Nothing to sign"));
        }
    }
}

#[test]
fn screens_whose_every_log_is_set_aside_say_that_nothing_is_known() {
    let without_opening = entries().split_off(1);
    let mut model = loaded(vec![without_opening]);
    for (width, height) in [(60, 15), (80, 24), (160, 50)] {
        for screen in [Screen::Cluster, Screen::Wallets, Screen::Log] {
            model.screen = screen;
            let screen = drawn(&model, width, height);
            assert!(screen.contains("Not known: no log of the record could be read;"), "{screen}");
            for nothing in ["No wallet", "No ceremony", "Nothing has"] {
                assert!(!screen.contains(nothing), "{nothing}: {screen}");
            }
        }
        model.screen = Screen::Ceremonies;
        assert!(drawn(&model, width, height).contains("SET ASIDE"));
        assert!(!drawn(&model, width, height).contains("No ceremony yet"));
    }
    // One log that folds is enough to know.
    let mut known = loaded(vec![entries()]);
    known.screen = Screen::Wallets;
    assert!(!drawn(&known, 80, 24).contains("Not known"));
}

#[test]
fn many_logs_that_do_not_fold_take_half_of_the_screen_and_the_rest_is_counted() {
    let mut model = loaded(vec![entries()]);
    for number in 0..40 {
        let id = format!("dkg-other-{number:08}").parse().unwrap();
        model.aside.insert(id, "does not fold: it is made up".to_owned());
    }
    let screen = drawn(&model, 80, 24);
    assert!(screen.contains("more that do not fold or could not be read"), "{screen}");
    assert!(screen.contains(entries()[0].ceremony.as_str()) && screen.contains(" 1 ceremony "), "{screen}");
    model.filter = "nothing has this in it".to_owned();
    assert!(!drawn(&model, 80, 24).contains('!'));
}

#[test]
fn a_ceremony_that_was_known_whole_stays_so_when_nodes_give_a_broken_log() {
    let mut model = loaded(vec![entries()]);
    load(&mut model, vec![broken()]);
    assert!(model.aside.is_empty());
    assert_eq!(model.listed()[0].1.entries.len(), entries().len());

    let mut model = loaded(vec![broken()]);
    assert_eq!((model.aside.len(), model.listed().len()), (1, 0));
    load(&mut model, vec![entries()]);
    assert!(model.aside.is_empty());
    assert_eq!(model.listed()[0].1.entries.len(), entries().len());
}

#[test]
fn terminal_shows_all_ceremonies_in_whatever_order_nodes_give_their_logs() {
    let mut model = with_an_inventory();
    let bundle = std::fs::read(data("inventory").join("bundle.zip")).unwrap();
    let mut logs = evidence::logs(&bundle, &Expected::default()).unwrap();
    logs.reverse();
    model.book = Book::new(model.book.first().clone());
    load(&mut model, logs.clone());
    assert!(model.aside.is_empty(), "{:?}", model.aside);
    assert_eq!(model.listed().len(), logs.len());
}

#[test]
fn ceremonies_that_were_not_read_are_counted_and_the_command_that_lists_them_is_named() {
    let mut model = model(0);
    let (book, aside) = Book::gather(model.book.first().clone(), [entries()]);
    let catalogue = Catalogue { left: 9_950, ..Catalogue::default() };
    let library = Library { book, aside, catalogue, missing: BTreeMap::new(), set_back: Vec::new() };
    update(&mut model, Event::Loaded(Box::new(library)));
    let screen = drawn(&model, 80, 24);
    assert!(screen.contains(" 1 ceremony and 9950 older: custody ceremony list "), "{screen}");
}
