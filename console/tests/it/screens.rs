//! Every screen at 80×24 and 160×50.

use std::collections::BTreeSet;
use std::sync::Arc;

use ceremonies::attestation::TrustRoot;
use ceremonies::book::Book;
use ceremonies::ceremony::Context;
use ceremonies::charter::Charter;
use ceremonies::evidence::{self, Expected};
use ceremonies::ids::{Hash, NodeIndex, UnixMillis};
use ceremonies::record::Verdict;
use ceremonies::wire::bus::Progress;
use console::client::{Branches, Heads, News, Reading, Troubles};
use console::fork::{self, Branch, Fate, Fork, Stand};
use console::health::Moment;
use console::memory::{Seen, SetBack};
use console::tui::{Effect, Event, Model, Popup, Screen, update, view};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};

use crate::{data, entries, model, nodes, stand};

pub(crate) fn drawn(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            view(model, frame);
        })
        .unwrap();
    terminal.backend().to_string()
}

/// Draws as the program does: reports to the state what a frame has shown, and draws again if that changes anything.
pub(crate) fn show(model: &mut Model, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    loop {
        let mut shown = None;
        terminal.draw(|frame| shown = Some(view(model, frame))).unwrap();
        if !update(model, Event::Shown(shown.unwrap())).0 {
            return terminal;
        }
    }
}

fn snapshot(name: &str, model: &Model) {
    insta::assert_snapshot!(format!("{name}_80x24"), drawn(model, 80, 24));
    insta::assert_snapshot!(format!("{name}_160x50"), drawn(model, 160, 50));
}

pub(crate) fn press(model: &mut Model, keys: &[KeyCode]) {
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
fn what_does_not_fit_on_a_ceremonys_screen_is_scrolled_to_and_no_further() {
    let mut closed = model(56);
    show(&mut closed, 80, 24);
    assert!(drawn(&closed, 80, 24).contains("… more: ↓ and PageDown"));
    assert!(!drawn(&closed, 80, 24).contains("Seal the record"));
    for _ in 0..9 {
        press(&mut closed, &[KeyCode::PageDown]);
        show(&mut closed, 80, 24);
    }
    let end = drawn(&closed, 80, 24);
    assert!(end.contains("✓ Seal the record") && !end.contains("… more"), "{end}");
    press(&mut closed, &[KeyCode::Home]);
    assert!(drawn(&closed, 80, 24).contains("✓ Open the ceremony"));
}

#[test]
fn text_above_and_below_what_is_shown_has_a_mark_each() {
    let mut closed = model(56);
    show(&mut closed, 80, 24);
    assert!(!drawn(&closed, 80, 24).contains("↑ more"));
    press(&mut closed, &[KeyCode::Down]);
    show(&mut closed, 80, 24);
    let between = drawn(&closed, 80, 24);
    assert!(between.contains("↑ more") && between.contains("… more"), "{between}");
    press(&mut closed, &[KeyCode::End]);
    show(&mut closed, 80, 24);
    let end = drawn(&closed, 80, 24);
    assert!(end.contains("↑ more") && !end.contains("… more"), "{end}");
    let mut signing = model(6);
    press(&mut signing, &[KeyCode::Char('s'), KeyCode::Enter]);
    show(&mut signing, 60, 15);
    assert!(!drawn(&signing, 60, 15).contains("↑ more"));
    press(&mut signing, &[KeyCode::PageDown]);
    show(&mut signing, 60, 15);
    assert!(drawn(&signing, 60, 15).contains("read it, then sign ↑ more"), "{}", drawn(&signing, 60, 15));
}

/// Lets the terminal read the first so many entries of the recorded ceremony.
fn read(model: &mut Model, count: usize) {
    let log: Vec<_> = entries().into_iter().take(count).collect();
    let id = log[0].ceremony.clone();
    let (heads, members, troubles) = (Heads::default(), BTreeSet::new(), Troubles::default());
    let reading = Reading::new(id.clone(), Branches::new(id, &log), heads, members, troubles);
    update(model, Event::Read(Box::new(reading), None));
}

#[test]
fn pane_of_a_ceremony_shows_its_top_again_when_the_step_changes_and_not_before() {
    let mut model = model(6);
    show(&mut model, 80, 24);
    press(&mut model, &[KeyCode::PageDown]);
    show(&mut model, 80, 24);
    let scrolled = model.scroll;
    assert!(scrolled > 0 && drawn(&model, 80, 24).contains("↑ more"));
    read(&mut model, 6);
    assert_eq!(model.scroll, scrolled, "nothing new came");
    let step = |model: &Model| model.ceremony().unwrap().current_step().unwrap().id.clone();
    let first = step(&model);
    for count in 7..20 {
        read(&mut model, count);
        if step(&model) != first {
            break;
        }
        assert_eq!(model.scroll, scrolled, "entry {count} leaves the step open");
    }
    assert_ne!(step(&model), first);
    let screen = drawn(&model, 80, 24);
    assert!(!screen.contains("↑ more") && screen.contains("Waiting for"), "{screen}");
}

#[test]
fn that_a_ceremony_cannot_be_read_is_said_until_it_was_read_and_no_longer() {
    let mut model = model(6);
    let id = model.open.clone().unwrap();
    update(&mut model, Event::NotRead(id, "no node answers".to_owned()));
    assert!(drawn(&model, 80, 24).contains("cannot be read: no node answers"));
    press(&mut model, &[KeyCode::Char('3')]);
    assert!(!drawn(&model, 80, 24).contains("cannot be read"), "it is of the ceremony alone");
    press(&mut model, &[KeyCode::Char('2')]);
    assert!(drawn(&model, 80, 24).contains("cannot be read: no node answers"), "it still is so");
    read(&mut model, 6);
    assert!(!drawn(&model, 80, 24).contains("cannot be read"), "{}", drawn(&model, 80, 24));
}

#[test]
fn how_many_there_are_is_a_question_mark_while_nothing_was_read() {
    let mut model = model(0);
    for (screen, title) in
        [(Screen::Ceremonies, "ceremonies"), (Screen::Wallets, "wallets"), (Screen::Log, "entries")]
    {
        model.screen = screen;
        model.loaded = false;
        assert!(drawn(&model, 80, 24).contains(&format!("┌ ? {title} ─")), "{}", drawn(&model, 80, 24));
        model.loaded = true;
        assert!(drawn(&model, 80, 24).contains(&format!("┌ 0 {title} ─")), "{}", drawn(&model, 80, 24));
    }
}

#[test]
fn popups_show_the_statement_the_form_and_the_keys() {
    let mut signing = model(6);
    press(&mut signing, &[KeyCode::Char('s'), KeyCode::Enter]);
    assert!(matches!(signing.popup, Some(Popup::Review(_))));
    snapshot("popup_statement_unread", &signing);
    show(&mut signing, 80, 24);
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
            ["0 of 4 nodes healthy, 1 excluded, threshold 3", "⊘ node 4", "EXCLUDED: takes part in nothing"]
        {
            assert!(screen.contains(text), "{text}:\n{screen}");
        }
        assert_eq!(screen.matches("not known: no node").count(), 4);
    }
}

fn line(seq: u64, by: u8, event: &str, fate: Option<Fate>) -> fork::Line {
    fork::Line { seq, node: NodeIndex::new(by).unwrap(), event: event.to_owned(), fate }
}

fn on(nodes: &[u8], round: u32) -> Vec<Stand> {
    let stand = |index: &u8| Stand { node: NodeIndex::new(*index).unwrap(), round, votes: true };
    nodes.iter().map(stand).collect()
}

fn forked(healed: bool) -> Fork {
    let (fate, node_4) =
        if healed { (Fate::TakenAgain(6), Vec::new()) } else { (Fate::Undecided, on(&[4, 5], 0)) };
    let shown = vec![line(6, 1, "operator-1 as operator, approve: -", None)];
    let other = vec![line(6, 4, "operator-2 as operator, approve: -", Some(fate))];
    let branch = |entries, nodes, hash: &[u8]| Branch { seq: 6, hash: Hash::of_bytes(hash), nodes, entries };
    Fork {
        after: 5,
        healed,
        decided: false,
        began: None,
        shown: branch(shown, on(&[1, 2, 3], u32::from(healed)), b"shown"),
        others: vec![branch(other, node_4, b"other")],
    }
}

#[test]
fn ceremony_shows_how_nodes_stand_and_both_branches_of_a_fork() {
    let mut model = model(6);
    stand(&mut model, &Verdict::Majority { by: nodes(&[1, 3, 4]), silent: nodes(&[2, 5]) }, None);
    let screen = drawn(&model, 80, 24);
    assert!(screen.contains("held by 3 of 5 (nodes 2, 5 silent)"), "{screen}");
    let unknown = Verdict::Unknown { by: nodes(&[1, 2, 3]), elsewhere: nodes(&[4, 5]), silent: Vec::new() };
    stand(&mut model, &unknown, Some(forked(false)));
    snapshot("ceremony_fork", &model);
    let contended = Fork { began: Some(UnixMillis(model.now.0 - 1200)), ..forked(false) };
    stand(&mut model, &unknown, Some(contended));
    snapshot("ceremony_contention", &model);
    let open = model.open.take();
    assert!(!drawn(&model, 80, 24).contains("FORK"), "{}", drawn(&model, 80, 24));
    model.now = model.now.plus(5000);
    assert!(drawn(&model, 80, 24).contains("FORK "), "{}", drawn(&model, 80, 24));
    model.open = open;
    assert!(drawn(&model, 80, 24).contains("FORK after entry 5"), "{}", drawn(&model, 80, 24));
    model.now = model.now.plus(-5000);
    stand(&mut model, &Verdict::Recorded { by: nodes(&[1, 2, 3, 4]) }, Some(forked(true)));
    snapshot("ceremony_healed", &model);
    model.standings.clear();
    assert!(drawn(&model, 80, 24).contains("the nodes have not been asked yet"));
}

#[test]
fn words_for_paper_are_not_shown_before_the_head_is_recorded() {
    let mut closed = model(56);
    let words = ceremonies::words::spoken(&closed.ceremony().unwrap().head().hash);
    let first = words.split(' ').next().unwrap().to_owned();
    assert!(drawn(&closed, 160, 50).contains(&first));
    let of_one = Verdict::Unknown { by: nodes(&[1]), elsewhere: Vec::new(), silent: nodes(&[2, 3, 4, 5]) };
    let of_three = Verdict::Majority { by: nodes(&[1, 2, 3]), silent: nodes(&[4, 5]) };
    for verdict in [Some(of_one), Some(of_three), None] {
        closed.standings.clear();
        if let Some(verdict) = &verdict {
            stand(&mut closed, verdict, None);
        }
        let screen = drawn(&closed, 160, 50);
        assert!(!screen.contains(&first) && screen.contains("Words for paper: not yet"), "{screen}");
        press(&mut closed, &[KeyCode::Char('f')]);
        assert!(matches!(&closed.popup, Some(Popup::Message { title, .. }) if title == "No words yet"));
        closed.popup = None;
    }
    // What nodes said about one entry says nothing about the next.
    let mut stale = model(55);
    let standings = stale.standings.clone();
    stale = model(56);
    stale.standings = standings;
    assert!(drawn(&stale, 160, 50).contains("Words for paper: not yet"));
}

#[test]
fn record_that_was_set_back_is_warned_of_on_every_screen() {
    let mut model = model(6);
    let id = model.open.clone().unwrap();
    let seen = Seen { seq: 9, hash: Hash::ZERO, at: model.now };
    let set_back = SetBack { ceremony: id.clone(), seen, nodes: nodes(&[1, 2]), other: false };
    model.set_back.insert(id, set_back);
    for screen in Screen::ALL {
        model.screen = screen;
        let drawn = drawn(&model, 80, 24);
        assert!(drawn.contains("WARNING: nodes 1, 2 show an older log"), "{drawn}");
        assert!(drawn.contains("rolled stores back"), "{drawn}");
    }
    model.screen = Screen::Cluster;
    snapshot("set_back", &model);
}

#[test]
fn what_is_not_known_is_not_shown_as_empty() {
    let mut model = model(0);
    model.loaded = false;
    for screen in [Screen::Ceremonies, Screen::Wallets, Screen::Log] {
        model.screen = screen;
        model.load_trouble.clear();
        let reading = drawn(&model, 80, 24);
        assert!(reading.contains("Reading from the nodes"), "{reading}");
        model.load_trouble = "no node gave a usable answer: node 3 did not answer: not on the bus".to_owned();
        let failed = drawn(&model, 80, 24);
        assert!(failed.contains("Not known: no node gave"), "{failed}");
        model.load_trouble = format!("{} the end", "a long reason ".repeat(9));
        assert!(drawn(&model, 80, 24).contains("the end"), "a reason is shown whole");
        assert!(
            !failed.contains("No ceremony yet") && !failed.contains("Nothing has been logged"),
            "{failed}"
        );
    }
    model.loaded = true;
    model.screen = Screen::Ceremonies;
    assert!(drawn(&model, 80, 24).contains("No ceremony yet"));
    model.unread.insert("dkg-x-1".parse().unwrap(), "it rests on dkg-w-1, which is not known".to_owned());
    let listed = drawn(&model, 80, 24);
    assert!(listed.contains("! dkg-x-1: listed but not shown: it rests on"), "{listed}");
    assert!(!listed.contains("No ceremony yet"), "{listed}");
    model.unread.clear();
    model.filter = "nowhere".to_owned();
    for screen in [Screen::Ceremonies, Screen::Wallets, Screen::Log] {
        model.screen = screen;
        let filtered = drawn(&model, 80, 24);
        assert!(filtered.contains("Nothing here contains `nowhere`: Esc clears"), "{filtered}");
        assert!(!filtered.contains(" yet"), "{filtered}");
    }
}

#[test]
fn one_load_and_one_reading_of_a_ceremony_are_under_way_at_a_time() {
    let mut model = model(6);
    model.loaded = false;
    let loads = |effects: &[Effect]| effects.iter().filter(|effect| matches!(effect, Effect::Load)).count();
    let tick = || Event::Tick(Moment::now());
    assert_eq!(loads(&update(&mut model, Event::Connected(true)).1), 1);
    for _ in 0..3 {
        assert_eq!(loads(&update(&mut model, tick()).1), 0);
    }
    update(&mut model, Event::NotLoaded("no answer".to_owned()));
    assert_eq!(loads(&update(&mut model, tick()).1), 1, "asked again");
    model.loaded = true;
    let id = model.open.clone().unwrap();
    let hint = || Event::News(News::Log(id.clone()));
    assert!(
        matches!(update(&mut model, hint()).1.as_slice(), [Effect::CatchUp(of, known)] if *of == id && known.len() == 6)
    );
    for _ in 0..3 {
        assert!(update(&mut model, hint()).1.is_empty() && update(&mut model, tick()).1.is_empty());
    }
    let after = update(&mut model, Event::NotRead(id.clone(), "no answer".to_owned())).1;
    assert!(
        matches!(after.as_slice(), [Effect::CatchUp(of, _)] if *of == id),
        "the hints were not forgotten"
    );
    assert!(drawn(&model, 80, 24).contains("no answer"));
    assert!(update(&mut model, Event::NotRead(id, "again".to_owned())).1.is_empty());
    // Hints of one node start no readings without end.
    let started: usize = (0..600)
        .map(|number| {
            let id = format!("dkg-x-{number}").parse().unwrap();
            update(&mut model, Event::News(News::Log(id))).1.len()
        })
        .sum();
    assert_eq!(started, 4);
    // Nor do they keep the ceremony in front from being read.
    let open = model.open.clone().unwrap();
    let read = update(&mut model, Event::News(News::Log(open.clone()))).1;
    assert!(matches!(read.as_slice(), [Effect::CatchUp(of, _)] if *of == open));
}

/// The terminal of a cluster that has held an inventory.
pub(crate) fn with_an_inventory() -> Model {
    of_bundle("inventory")
}

/// The terminal of the cluster whose ceremony, and what it rests on, is in a bundle.
pub(crate) fn of_bundle(folder: &str) -> Model {
    let read = |name: &str| std::fs::read(data(folder).join(name)).unwrap();
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
    terminal
        .draw(|frame| {
            view(&model, frame);
        })
        .unwrap();
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
fn a_terminal_that_is_too_small_says_so_and_its_keys_do_nothing() {
    assert!(drawn(&model(6), 40, 10).contains("Too small: needs at least 60×15"));
    let mut model = model(6);
    for (width, height) in [(20, 5), (1, 1), (59, 40), (200, 14)] {
        show(&mut model, width, height);
        for key in ["s", "w", "o", "q", "2"].map(|key| KeyCode::Char(key.chars().next().unwrap())) {
            let key = KeyEvent::new(key, KeyModifiers::NONE);
            assert!(update(&mut model, Event::Key(key)).1.is_empty());
            assert!(model.popup.is_none() && model.screen == Screen::Ceremonies, "{width}×{height}");
        }
        let leave = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(matches!(update(&mut model, Event::Key(leave)).1.as_slice(), [Effect::Quit]));
    }
    show(&mut model, 60, 15);
    press(&mut model, &[KeyCode::Char('s')]);
    assert!(model.popup.is_some());
}

#[test]
fn stalled_rounds_stay_on_the_screen_with_their_age_until_the_step_is_over() {
    let mut running = model(13);
    let id = running.open.clone().unwrap();
    let progress = |node: u32| Progress {
        version: 1,
        ceremony: id.to_string(),
        node,
        phase: "commit".to_owned(),
        phase_number: 2,
        phase_count: 7,
        ..Progress::default()
    };
    update(&mut running, Event::News(News::Progress(Box::new(progress(3)))));
    for (later, said) in [(9, "commit"), (42, "STALLED 42 s commit"), (3600, "STALLED 3600 s commit")] {
        let mut wall = running.now;
        running.now = wall.plus(later * 1000);
        let screen = drawn(&running, 100, 40);
        assert!(screen.contains("Rounds:") && screen.contains(said), "{screen}");
        std::mem::swap(&mut running.now, &mut wall);
    }
    for entry in crate::entries().into_iter().skip(13).take(10) {
        running.book.take(entry).unwrap();
    }
    assert!(!drawn(&running, 100, 40).contains("Rounds:"), "the step is over");
}

#[test]
fn wallet_is_not_shown_as_finished_before_its_ceremony_is_closed() {
    for count in [23, 30, 40, 55] {
        let mut model = model(count);
        model.screen = Screen::Wallets;
        let screen = drawn(&model, 80, 24);
        assert!(screen.contains("! NOT FINISHED, do not fund it: not done:"), "{count}:\n{screen}");
    }
    let mut closed = model(56);
    closed.screen = Screen::Wallets;
    assert!(!drawn(&closed, 80, 24).contains("NOT FINISHED"));
}

#[test]
fn disputed_record_looks_disputed_on_every_screen() {
    let mut model = of_bundle("disputed");
    model.open = None;
    let dispute = "could not see the third screen";
    for (screen, said) in [
        (Screen::Ceremonies, ["closed DISPUTED", "dkg-"]),
        (Screen::Wallets, ["! DISPUTED, do not fund it:", dispute]),
    ] {
        model.screen = screen;
        let drawn = drawn(&model, 80, 24);
        assert!(said.iter().all(|said| drawn.contains(said)), "{drawn}");
    }
    model.screen = Screen::Ceremonies;
    press(&mut model, &[KeyCode::Enter]);
    let screen = drawn(&model, 160, 50);
    let said = ["CLOSED, DISPUTED", &format!("arthur as auditor: disagree: I {dispute}")];
    assert!(said.iter().all(|said| screen.contains(said)), "{screen}");
    let mut terminal = Terminal::new(TestBackend::new(160, 50)).unwrap();
    terminal
        .draw(|frame| {
            view(&model, frame);
        })
        .unwrap();
    let buffer = terminal.backend().buffer();
    let green = (80..160).any(|x| buffer[(x, 2)].style().fg == Some(Color::Green));
    assert!(!green, "nothing of it is green");
}

#[test]
fn reason_of_an_end_is_shown_letter_by_letter() {
    let mut model = model(13);
    let id = model.open.clone().unwrap();
    assert!(drawn(&model, 80, 24).contains("AUTHORISED"));
    model.now = model.book.get(&id).unwrap().ceremony.manifest().expires.plus(1);
    let screen = drawn(&model, 80, 24);
    assert!(screen.contains("VOID") && screen.contains("its deadline passed"), "{screen}");
}

#[test]
fn what_is_cut_says_how_much_is_left_and_where_it_is_seen() {
    let mut model = model(56);
    model.screen = Screen::Cluster;
    let places = [" ? help ", "files    ", "charter  ", "bus      "];
    for height in 15..40 {
        let screen = drawn(&model, 80, height);
        let shown = places.iter().filter(|place| screen.contains(**place)).count();
        let left = format!("Where everything is (… {} more: ? shows them)", places.len() - shown);
        assert_eq!(screen.contains(&left), shown < places.len(), "{height}: {screen}");
    }
    press(&mut model, &[KeyCode::Char('?'), KeyCode::End]);
    show(&mut model, 80, 24);
    let help = drawn(&model, 80, 24);
    for place in ["files    /custody/lab", "charter  ", "bus      nats://127.0.0.1:4222"] {
        assert!(help.contains(place), "{help}");
    }
    model.popup = None;
    let large = drawn(&model, 160, 50);
    assert!(large.contains(" Where everything is ─") && large.contains("bus      nats://"), "{large}");
    model.connected = false;
    model.load_trouble = "no server answers ".repeat(40);
    let lines: Vec<String> = drawn(&model, 80, 24).lines().map(str::to_owned).collect();
    let last = lines.iter().rposition(|line| line.contains("no server answers")).unwrap();
    assert!(lines[last].trim_end_matches(['"', ' ']).ends_with('…'), "{lines:#?}");
}

#[test]
fn nothing_is_told_by_colour_alone() {
    let mut plain = model(56);
    plain.colour = false;
    assert_eq!(drawn(&plain, 80, 24), drawn(&model(56), 80, 24));
}

#[test]
fn keys_and_hints_are_whole_on_the_narrowest_terminal() {
    let mut model = with_an_inventory();
    for (screen, hints) in [
        (Screen::Cluster, "1-4 screens  Enter show  o open  / filter  ? help  q quit"),
        (Screen::Ceremonies, "o open  Enter show  / filter  ? help  q quit"),
    ] {
        model.screen = screen;
        assert!(drawn(&model, 60, 15).contains(hints), "{}", drawn(&model, 60, 15));
    }
    model.screen = Screen::Cluster;
    let narrow = drawn(&model, 60, 15);
    assert!(narrow.contains("Enter shows all of a node; o opens a ceremony; ? help "), "{narrow}");
    assert!(narrow.contains(" 1 Cluster 2 3 4 "), "{narrow}");

    model.screen = Screen::Ceremonies;
    press(&mut model, &[KeyCode::Enter]);
    let id = model.ceremony().unwrap().manifest().ceremony.clone();
    for width in [60, 62, 70, 80, 100] {
        let screen = drawn(&model, width, 60);
        assert!(screen.contains("f code  ↑ ↓ scroll  Esc list  ? help  q quit"), "{screen}");
        let right: Vec<String> = screen.lines().filter_map(now_pane).collect();
        let now = right.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        for whole in [
            format!("Changes (in full: custody ceremony show {id}):"),
            "Words for paper: not yet".to_owned(),
            format!("Keep the evidence: custody evidence export {id} -o FILE"),
        ] {
            assert!(now.replace(' ', "").contains(&whole.replace(' ', "")), "{whole}: {screen}");
        }
    }
}

/// What a line of a ceremony's screen has in its right part.
fn now_pane(line: &str) -> Option<String> {
    let (_, right) = line.split_once("││")?;
    Some(right.split('│').next().unwrap_or_default().to_owned())
}
