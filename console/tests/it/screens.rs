//! Every screen at 80×24 and 160×50.

use std::sync::Arc;

use ceremonies::attestation::TrustRoot;
use ceremonies::book::Book;
use ceremonies::ceremony::Context;
use ceremonies::charter::Charter;
use ceremonies::evidence::{self, Expected};
use ceremonies::ids::NodeIndex;
use ceremonies::wire::bus::Progress;
use console::tui::{Event, Model, Popup, Screen, update, view};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Modifier;

use crate::{data, model};

fn drawn(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view(model, frame)).unwrap();
    terminal.backend().to_string()
}

fn snapshot(name: &str, model: &Model) {
    insta::assert_snapshot!(format!("{name}_80x24"), drawn(model, 80, 24));
    insta::assert_snapshot!(format!("{name}_160x50"), drawn(model, 160, 50));
}

fn press(model: &mut Model, keys: &[KeyCode]) {
    for key in keys {
        update(model, Event::Key(KeyEvent::new(*key, KeyModifiers::NONE)));
    }
}

#[test]
fn lists_show_nodes_ceremonies_wallets_and_the_log() {
    let mut whole = model(56);
    whole.open = None;
    for (name, screen) in [
        ("cluster", Screen::Cluster),
        ("ceremonies", Screen::Ceremonies),
        ("wallets", Screen::Wallets),
        ("log", Screen::Log),
    ] {
        whole.screen = screen;
        snapshot(name, &whole);
    }
}

#[test]
fn a_ceremony_shows_its_script_and_what_it_waits_for() {
    snapshot("ceremony_gathering", &model(6));
    let mut running = model(13);
    let id = running.open.clone().unwrap();
    for index in 1..=5u32 {
        let progress = Progress {
            version: 1,
            ceremony: id.to_string(),
            node: index,
            time_ms: running.now.0,
            phase: "open, set up multiplication".to_owned(),
            phase_number: 6,
            phase_count: 7,
            waiting_for: if index == 4 { vec![] } else { vec![4] },
            ..Progress::default()
        };
        update(&mut running, Event::News(console::client::News::Progress(Box::new(progress))));
    }
    snapshot("ceremony_generating", &running);
    snapshot("ceremony_read_back", &model(23));
    snapshot("ceremony_closed", &model(56));
}

#[test]
fn popups_show_the_statement_the_form_and_the_keys() {
    let mut signing = model(6);
    press(&mut signing, &[KeyCode::Char('s'), KeyCode::Enter]);
    assert!(matches!(signing.popup, Some(Popup::Review(_))));
    snapshot("popup_statement", &signing);
    press(&mut signing, &[KeyCode::Tab]);
    snapshot("popup_statement_code", &signing);
    let mut help = model(6);
    press(&mut help, &[KeyCode::Char('?')]);
    snapshot("popup_help", &help);
    let mut words = model(23);
    press(&mut words, &[KeyCode::Char('f')]);
    snapshot("popup_fingerprint", &words);
    let mut form = model(6);
    press(&mut form, &[KeyCode::Char('o'), KeyCode::Char('w')]);
    snapshot("popup_open", &form);
}

#[test]
fn an_excluded_node_has_a_word_and_a_sign_of_its_own_and_is_not_counted() {
    let mut model = model(0);
    let context = &model.cluster.context;
    let charter = Arc::new(context.charter().excluding(NodeIndex::new(4).unwrap()).unwrap());
    model.book = Book::new(Context::new(charter, Arc::clone(context.root())).unwrap());
    model.screen = Screen::Cluster;
    for colour in [true, false] {
        model.colour = colour;
        let screen = drawn(&model, 80, 24);
        for text in
            ["0 of 4 nodes healthy, 1 excluded, 3 sign", "⊘ node 4", "EXCLUDED: takes part in nothing"]
        {
            assert!(screen.contains(text), "{text}:\n{screen}");
        }
        assert_eq!(screen.matches("not heard from").count(), 4);
    }
}

/// The terminal of a cluster that has held an inventory.
fn with_an_inventory() -> Model {
    let read = |name: &str| std::fs::read(data("inventory").join(name)).unwrap();
    let charter = Arc::new(Charter::parse(&read("charter.toml")).unwrap());
    let root = Arc::new(TrustRoot::from_pem(&read("root.pem")).unwrap());
    let mut model = model(0);
    model.book = Book::new(Context::new(charter, root).unwrap());
    for entry in evidence::logs(&read("bundle.zip"), &Expected::default()).unwrap().into_iter().flatten() {
        model.now = entry.time;
        model.book.take(entry).unwrap();
    }
    model.screen = Screen::Wallets;
    model
}

#[test]
fn copies_that_are_gone_are_crossed_out_and_marked() {
    let model = with_an_inventory();
    snapshot("wallets_inventory", &model);
    let mut terminal = Terminal::new(TestBackend::new(160, 50)).unwrap();
    terminal.draw(|frame| view(&model, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let is_crossed_out = |row: u16| {
        (0..160).any(|column| buffer[(column, row)].style().add_modifier.contains(Modifier::CROSSED_OUT))
    };
    let rows = drawn(&model, 160, 50);
    let crossed_out: Vec<&str> =
        (0..50).zip(rows.lines()).filter(|(row, _)| is_crossed_out(*row)).map(|(_, row)| row).collect();
    assert!(
        matches!(crossed_out[..], [row] if row.contains("x node 2 sheet S-2: destroyed in inventory-treasury-")),
        "{crossed_out:?}"
    );
}

#[test]
fn a_terminal_that_is_too_small_says_so() {
    assert!(drawn(&model(6), 40, 10).contains("too small"));
}

#[test]
fn nothing_is_told_by_colour_alone() {
    let mut plain = model(56);
    plain.colour = false;
    assert_eq!(drawn(&plain, 80, 24), drawn(&model(56), 80, 24));
}
