//! A console that hears nothing any more says so on every screen, and shows nothing old as if it were of now.

use std::time::Duration;

use ceremonies::ids::UnixMillis;
use ceremonies::record::Verdict;
use ceremonies::wire::bus::{Heartbeat, Progress};
use console::client::News;
use console::health::Moment;
use console::tui::{Effect, Event, Model, Screen, update};

use crate::screens::drawn;
use crate::{model, nodes, stand};

fn later(model: &Model, seconds: u64) -> Moment {
    let now = model.moment();
    let wall = UnixMillis(now.wall.0 + i64::try_from(seconds).unwrap() * 1000);
    Moment { wall, steady: now.steady + Duration::from_secs(seconds) }
}

fn tick(model: &mut Model, seconds: u64) -> Vec<Effect> {
    let then = later(model, seconds);
    update(model, Event::Tick(then)).1
}

fn beat(model: &mut Model, node: u32) {
    let beat = Heartbeat { node, time_ms: model.now.0, ..Heartbeat::default() };
    update(model, Event::News(News::Health(Box::new(beat))));
}

/// A console that has just heard every node.
fn hearing(count: usize) -> Model {
    let mut model = model(count);
    for node in 1..=5 {
        beat(&mut model, node);
    }
    model
}

fn screens(model: &mut Model) -> Vec<(Screen, String)> {
    let show = |screen| {
        model.screen = screen;
        (screen, drawn(model, 80, 24))
    };
    Screen::ALL.into_iter().map(show).collect()
}

fn loads(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Load)).count()
}

#[test]
fn every_screen_says_since_when_nothing_was_heard_and_that_it_is_from_then() {
    for lose_bus in [true, false] {
        let mut model = hearing(13);
        let from = model.now.clock();
        for (screen, drawn) in screens(&mut model) {
            assert!(!drawn.contains("Nothing heard"), "{screen:?}:\n{drawn}");
        }
        if lose_bus {
            update(&mut model, Event::Connected(false));
        }
        tick(&mut model, 42);
        for (screen, drawn) in screens(&mut model) {
            let said = format!("? Nothing heard since {from} (42 s): what is shown is from then.");
            assert!(drawn.contains(&said), "{screen:?}:\n{drawn}");
            let connection = if lose_bus { "✗ NO BUS" } else { "? SILENT" };
            assert!(drawn.contains(connection) && !drawn.contains("● bus"), "{drawn}");
            assert!(drawn.contains("? whose turn it is now is not known"), "{drawn}");
        }
    }
}

#[test]
fn lists_and_titles_of_a_lost_bus_are_as_of_the_time_of_the_last_word() {
    let mut model = hearing(13);
    let from = model.now.clock();
    model.open = None;
    update(&mut model, Event::Connected(false));
    tick(&mut model, 42);
    for (screen, drawn) in screens(&mut model) {
        assert!(drawn.contains(&format!("as of {from}")), "{screen:?}:\n{drawn}");
        assert!(screen != Screen::Ceremonies || drawn.contains("? authorised"), "{drawn}");
        assert!(screen != Screen::Cluster || !drawn.contains('✓'), "{drawn}");
    }
    let mut closed = hearing(56);
    update(&mut closed, Event::Connected(false));
    closed.screen = Screen::Wallets;
    let wallets = drawn(&closed, 80, 24);
    assert!(wallets.contains("? not known whether it can sign"), "{wallets}");
    closed.screen = Screen::Ceremonies;
    closed.open = None;
    assert!(drawn(&closed, 80, 24).contains("closed"), "what is over stays over");
    assert!(!drawn(&closed, 80, 24).contains("? closed"));
}

#[test]
fn ceremony_of_a_lost_bus_shows_a_question_mark_where_it_may_have_gone_on() {
    let mut model = hearing(13);
    let id = model.open.clone().unwrap();
    stand(&mut model, &Verdict::Majority { by: nodes(&[1, 3, 4]), silent: nodes(&[2, 5]) }, None);
    let progress = Progress {
        version: 1,
        ceremony: id.to_string(),
        node: 3,
        phase: "commit".to_owned(),
        phase_number: 2,
        phase_count: 7,
        ..Progress::default()
    };
    update(&mut model, Event::News(News::Progress(Box::new(progress))));
    assert!(drawn(&model, 100, 40).contains("▶ Enclaves generate the key"));
    update(&mut model, Event::Connected(false));
    tick(&mut model, 42);
    let screen = drawn(&model, 100, 40);
    for said in
        ["? Enclaves generate the key", "? AUTHORISED", "? held by 3 of 5", "? Waited then for", "? 42 s ago"]
    {
        assert!(screen.contains(said), "{said}:\n{screen}");
    }
    assert!(!screen.contains('▶') && !screen.contains("STALLED"), "no node is accused:\n{screen}");
}

#[test]
fn what_was_missed_is_read_when_the_bus_is_back_and_until_then_nothing_looks_like_now() {
    let mut model = hearing(13);
    model.open = None;
    update(&mut model, Event::Connected(false));
    update(&mut model, Event::NotLoaded("no server answers".to_owned()));
    tick(&mut model, 42);
    update(&mut model, Event::NotLoaded("no server answers".to_owned()));
    update(&mut model, Event::Connected(true));
    for node in 1..=5 {
        beat(&mut model, node);
    }
    for (screen, drawn) in screens(&mut model) {
        assert!(drawn.contains("; what came since is being read."), "{screen:?}:\n{drawn}");
    }
    // It is tried until it is read.
    update(&mut model, Event::NotLoaded("no answer".to_owned()));
    assert_eq!(loads(&tick(&mut model, 1)), 1);
    update(&mut model, Event::NotLoaded("no answer".to_owned()));
    assert_eq!(loads(&tick(&mut model, 1)), 1);
}

#[test]
fn silence_without_a_lost_bus_also_makes_the_record_be_read_again() {
    let mut model = hearing(13);
    model.open = None;
    assert_eq!(loads(&tick(&mut model, 2)), 0);
    tick(&mut model, 20);
    beat(&mut model, 1);
    assert_eq!(loads(&tick(&mut model, 1)), 1, "hints may have been missed");
}

#[test]
fn terminal_that_was_stopped_for_minutes_says_so_and_shows_no_node_as_bad() {
    let mut model = hearing(56);
    model.screen = Screen::Cluster;
    tick(&mut model, 1);
    tick(&mut model, 180);
    beat(&mut model, 1);
    for _ in 0..5 {
        let screen = drawn(&model, 80, 24);
        assert!(!screen.contains('✗'), "{screen}");
        assert!(screen.contains("this console stood still"), "{screen}");
        tick(&mut model, 1);
        beat(&mut model, 1);
    }
    tick(&mut model, 1);
    assert!(!drawn(&model, 80, 24).contains("this console stood still"), "{}", drawn(&model, 80, 24));
}
