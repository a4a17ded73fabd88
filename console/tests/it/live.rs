//! What stands in front of a screen or under it is of now: it follows the news, and goes when its time is over.

use ceremonies::ids::{Hash, NodeIndex};
use ceremonies::statement::Release;
use ceremonies::wire::bus::Heartbeat;
use console::checks::Check;
use console::client::News;
use console::custodian::Released;
use console::tui::{Event, Model, Popup, Screen, update};
use crossterm::event::KeyCode;

use crate::model;
use crate::screens::{drawn, press};

fn beat(model: &mut Model, node: u32, trouble: &str) {
    let beat =
        Heartbeat { node, time_ms: model.now.0, store_trouble: trouble.to_owned(), ..Heartbeat::default() };
    update(model, Event::News(News::Health(Box::new(beat))));
}

/// What stands in front, on one line.
fn front(model: &Model) -> String {
    let screen = drawn(model, 80, 40);
    let lines: Vec<Vec<char>> = screen.lines().map(|line| line.chars().collect()).collect();
    let corner = |c: char| lines.iter().find_map(|line| line.iter().position(|other| *other == c));
    let (left, right) = (corner('╭').unwrap(), corner('╮').unwrap());
    let inner = lines.iter().skip_while(|line| line.get(left) != Some(&'╭')).skip(1);
    let inner = inner.take_while(|line| line.get(left) == Some(&'│'));
    let text: Vec<String> = inner.map(|line| line[left + 1..right].iter().collect()).collect();
    text.join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn node_in_front_follows_the_news_and_is_unknown_without_a_bus() {
    let mut model = model(56);
    model.screen = Screen::Cluster;
    beat(&mut model, 1, "the disk is full");
    press(&mut model, &[KeyCode::Enter]);
    assert!(matches!(model.popup, Some(Popup::Node(node)) if node.get() == 1));
    assert!(front(&model).contains("✗ store: the disk is full"), "{}", front(&model));
    beat(&mut model, 1, "the disk is gone");
    let after = front(&model);
    assert!(after.contains("✗ store: the disk is gone") && !after.contains("is full"), "{after}");
    update(&mut model, Event::Connected(false));
    let blind = front(&model);
    assert!(blind.contains("? not known: the bus cannot be reached"), "{blind}");
    assert!(blind.contains("shares: not known") && !blind.contains("is gone"), "{blind}");
}

#[test]
fn wallet_in_front_follows_the_news_and_is_unknown_without_a_bus() {
    let mut model = model(56);
    model.screen = Screen::Wallets;
    for node in 1..=5 {
        beat(&mut model, node, "the disk is full");
    }
    press(&mut model, &[KeyCode::Enter]);
    assert!(matches!(&model.popup, Some(Popup::Wallet(wallet)) if wallet.as_str() == "treasury"));
    assert!(front(&model).contains("signing: ✗ CANNOT SIGN"), "{}", front(&model));
    for node in 1..=5 {
        beat(&mut model, node, "");
    }
    assert!(!front(&model).contains("nodes 1, 2, 3, 4 and 5 cannot use"), "{}", front(&model));
    update(&mut model, Event::Connected(false));
    let blind = front(&model);
    assert!(blind.contains("? not known whether it can sign: the bus cannot be reached"), "{blind}");
}

#[test]
fn line_of_the_runbook_on_a_node_is_a_quotation() {
    let mut model = model(56);
    model.screen = Screen::Cluster;
    beat(&mut model, 1, "the disk is full");
    press(&mut model, &[KeyCode::Enter]);
    let shown = front(&model);
    let (live, quoted) = shown.split_once("The runbook says:").unwrap();
    assert!(live.contains("last heartbeat:"), "{shown}");
    let first: String = Check::Store.what_to_do().chars().take(30).collect();
    assert!(quoted.trim_start().starts_with(&format!("“{first}")), "{shown}");
}

#[test]
fn ceremony_is_withdrawn_on_its_own_screen_alone() {
    for screen in [Screen::Cluster, Screen::Wallets, Screen::Log] {
        let mut model = model(13);
        model.screen = screen;
        press(&mut model, &[KeyCode::Char('w')]);
        let refused = matches!(&model.popup, Some(Popup::Message { title, .. }) if title == "Withdraw what?");
        assert!(refused && model.open.is_some(), "{screen:?}");
    }
    let mut listed = model(13);
    listed.open = None;
    press(&mut listed, &[KeyCode::Char('w')]);
    assert!(matches!(&listed.popup, Some(Popup::Message { .. })));
    let mut shown = model(13);
    press(&mut shown, &[KeyCode::Char('w')]);
    assert!(matches!(shown.popup, Some(Popup::Who(_))));
}

#[test]
fn what_is_said_of_something_under_way_goes_when_that_has_ended() {
    let waiting = "Opening the backup of node 2… An age plugin may wait for you: touch its key.";
    let release = || Release { node: NodeIndex::new(2).unwrap(), object: Hash::ZERO, sealed: vec![1; 48] };
    let ends: [fn(Released, console::config::Me) -> Event; 3] = [
        |released, me| Event::Unwrapped(me, Box::new(released)),
        |_, _| Event::Failed("the plugin has no key for this".to_owned()),
        |_, _| Event::Unclear("outcome unknown".to_owned()),
    ];
    for end in ends {
        let mut model = model(13);
        model.busy = true;
        model.message = waiting.to_owned();
        let waits = |model: &Model| drawn(model, 80, 24).contains("age plugin may wait");
        assert!(waits(&model));
        let me = model.cluster.me[0].clone();
        update(&mut model, end(Released { release: release(), object: Vec::new() }, me));
        assert!(!model.busy && !waits(&model), "{}", drawn(&model, 80, 24));
    }
}
