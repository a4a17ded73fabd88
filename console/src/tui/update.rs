//! What a key, a tick or a message changes, and what must be done about it. No I/O, no drawing.

mod popups;
mod reading;
mod signing;

use ceremonies::ceremony::Ceremony;
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::ids::{CeremonyId, NodeIndex};
use ceremonies::log::Entry;
use ceremonies::script::Act;
use ceremonies::words;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use zeroize::Zeroizing;

pub use self::popups::SIGN_WORD;
use self::popups::in_popup;
use self::reading::{bus, follow_open, load, read, read_next, take_library, told};
use self::signing::{sign_step, withdraw};
use super::model::{Line, MAX_TYPED, Model, OpenForm, Popup, Review, Screen, Shown};

use crate::client::{Library, News, Reading};
use crate::config::Me;
use crate::custodian::Released;
use crate::health::Moment;
use crate::memory::SetBack;
use crate::terminal::{edit, paste, types};

/// What happens to the terminal.
pub enum Event {
    /// A key was pressed.
    Key(KeyEvent),
    /// Text was pasted.
    Paste(String),
    /// The terminal has another size.
    Resized,
    /// A frame was drawn.
    Shown(Shown),
    /// A second has passed.
    Tick(Moment),
    /// The bus was connected or lost.
    Connected(bool),
    /// The bus tells something.
    News(News),
    /// All ceremonies, as nodes gave them.
    Loaded(Box<Library>),
    /// They could not be read, and why.
    NotLoaded(String),
    /// A ceremony as nodes have it, and whether they show less of it than was seen.
    Read(Box<Reading>, Option<SetBack>),
    /// It could not be read, and why.
    NotRead(CeremonyId, String),
    /// Something asked of the bus was done.
    Done(CeremonyId, String),
    /// Something asked of the bus was refused or failed.
    Failed(String),
    /// What was submitted may or may not be recorded.
    Unclear(String),
    /// The key needs a passphrase.
    Locked(Box<Review>),
    /// A backup was unwrapped and can be released.
    Unwrapped(Me, Box<Released>),
}

/// What has to be done.
pub enum Effect {
    /// Read all ceremonies.
    Load,
    /// Read what a ceremony has after these entries, and where nodes stand.
    CatchUp(CeremonyId, Vec<Entry>),
    /// Read the backup of a node that a step of this act asks for, and seal its file key to the node's enclave.
    Unwrap(Me, Box<Ceremony>, Act, NodeIndex),
    /// Sign and submit for a ceremony with this log.
    Sign(Box<Review>, Option<Zeroizing<String>>, Vec<Entry>),
    /// Redraw everything, whatever has been written over it.
    Redraw,
    /// Leave.
    Quit,
}

/// Takes one event. Whether anything visible changed is in the return value's first half.
pub fn update(model: &mut Model, event: Event) -> (bool, Vec<Effect>) {
    match event {
        Event::Key(key) => (true, pressed(model, key)),
        Event::Paste(pasted) => {
            // It may be a passphrase.
            let pasted = Zeroizing::new(pasted);
            if let Some(text) = model.fits.then(|| typed_text(model)).flatten() {
                let left = paste(text, &pasted, MAX_TYPED);
                forgive(model);
                if left > 0 {
                    say_of_field(model, format!("the last {left} characters: the field takes {MAX_TYPED}"));
                }
            }
            (true, Vec::new())
        }
        Event::Resized => (true, Vec::new()),
        Event::Shown(shown) => (popups::shown(model, shown), Vec::new()),
        Event::Tick(now) => {
            (model.now, model.steady) = (now.wall, now.steady);
            model.hearing.runs(now);
            let mut effects = if model.loaded { follow_open(model) } else { Vec::new() };
            if !model.loaded || model.is_behind {
                effects.extend(load(model));
            }
            (true, effects)
        }
        Event::Connected(connected) => (true, bus(model, connected)),
        Event::News(news) => told(model, news),
        Event::Loaded(library) => {
            take_library(model, *library);
            (true, follow_open(model))
        }
        Event::NotLoaded(why) => {
            model.loading = false;
            model.load_trouble = why;
            (true, Vec::new())
        }
        Event::Read(reading, set_back) => read(model, *reading, set_back),
        Event::NotRead(id, why) => {
            model.reading.remove(&id);
            if model.open.as_ref() == Some(&id) {
                // What was known of it is now stale.
                model.standings.remove(&id);
                model.not_read = format!("{id} cannot be read: {why}");
            }
            (true, read_next(model))
        }
        Event::Done(ceremony, what) => {
            ended(model);
            model
                .draft
                .take_if(|draft| ceremony.as_str().starts_with(&format!("{}-{}-", draft.kind, draft.wallet)));
            model.message = what;
            model.screen = Screen::Ceremonies;
            model.open = Some(ceremony);
            model.not_read.clear();
            (true, follow_open(model))
        }
        Event::Failed(why) => {
            ended(model);
            show(model, "Not done", why);
            (true, Vec::new())
        }
        Event::Unclear(why) => {
            ended(model);
            show(model, "Outcome unknown", why);
            (true, Vec::new())
        }
        Event::Unwrapped(me, released) => {
            ended(model);
            popups::review_release(model, me, *released);
            (true, Vec::new())
        }
        Event::Locked(review) => {
            ended(model);
            // Allocated in full at the start: a growing buffer would leave copies behind.
            let typed = Zeroizing::new(String::with_capacity(MAX_TYPED * 4));
            model.popup = Some(Popup::Passphrase { review, typed });
            (true, Vec::new())
        }
    }
}

/// Notes that what was under way has come to its end: what was said of it, and of whoever it waited for, is over.
fn ended(model: &mut Model) {
    model.busy = false;
    model.message.clear();
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other keys do nothing here, or are typed")]
fn pressed(model: &mut Model, key: KeyEvent) -> Vec<Effect> {
    let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if with_control && !model.fits => return vec![Effect::Quit],
        KeyCode::Char('c') if with_control => return quit(model),
        KeyCode::Char('l') if with_control => return vec![Effect::Redraw],
        // Keys do nothing, for the screen does not show what they would do.
        _ if !model.fits => return Vec::new(),
        _ => {}
    }
    if model.popup.is_some() {
        return in_popup(model, key);
    }
    if model.line.is_some() {
        return in_line(model, key);
    }
    if !types(&key) {
        return Vec::new();
    }
    // Whoever goes on has read it; what is under way still is.
    if !model.busy {
        model.message.clear();
    }
    if scrolled(0, key.code).is_some() {
        select(model, |at| scrolled(at, key.code).unwrap_or(at));
        return Vec::new();
    }
    match key.code {
        KeyCode::Char('q') => return quit(model),
        KeyCode::Char('?') => help(model),
        KeyCode::Char(':') => model.line = Some(Line::Command(String::new())),
        KeyCode::Char('/') => model.line = Some(Line::Filter(model.filter.clone())),
        KeyCode::Char(digit @ '1'..='4') => {
            let place = usize::from(u8::try_from(digit).unwrap_or(b'1') - b'1');
            if model.screen == Screen::ALL[place] {
                model.open = None;
            }
            model.screen = Screen::ALL[place];
        }
        KeyCode::Tab => next_screen(model),
        KeyCode::Enter => enter(model),
        KeyCode::Esc => back(model),
        KeyCode::Char('o') => open_form(model),
        KeyCode::Char('s') => sign_step(model),
        KeyCode::Char('w') => withdraw(model),
        KeyCode::Char('f') => fingerprint(model),
        KeyCode::Char('g') => go_to_turn(model),
        _ => {}
    }
    Vec::new()
}

fn help(model: &mut Model) {
    model.popup_scroll = 0;
    model.popup = Some(Popup::Help);
}

fn quit(model: &mut Model) -> Vec<Effect> {
    if model.is_busy_with_a_ceremony() && !matches!(model.popup, Some(Popup::Quit)) {
        model.popup = Some(Popup::Quit);
        return Vec::new();
    }
    vec![Effect::Quit]
}

fn next_screen(model: &mut Model) {
    let place = Screen::ALL.iter().position(|screen| *screen == model.screen).unwrap_or(0);
    model.screen = Screen::ALL[(place + 1) % Screen::ALL.len()];
}

/// How many lines `PageUp` and `PageDown` go: fewer than any terminal shows.
const LEAF: usize = 10;

/// Where a key that moves in a list or text leads from here; none for any other key. Who goes too far is led back when the
/// end is known.
#[expect(clippy::wildcard_enum_match_arm, reason = "all other keys do nothing here, or are typed")]
fn scrolled(at: usize, code: KeyCode) -> Option<usize> {
    match code {
        KeyCode::Up | KeyCode::Char('k') => Some(at.saturating_sub(1)),
        KeyCode::Down | KeyCode::Char('j') => Some(at.saturating_add(1)),
        KeyCode::PageUp => Some(at.saturating_sub(LEAF)),
        KeyCode::PageDown => Some(at.saturating_add(LEAF)),
        KeyCode::Home => Some(0),
        KeyCode::End => Some(usize::MAX),
        _ => None,
    }
}

fn list_length(model: &Model) -> usize {
    match model.screen {
        Screen::Cluster => model.charter().nodes().len(),
        Screen::Ceremonies => model.listed().len(),
        Screen::Wallets => model.wallets().len(),
        Screen::Log => model.entries().len(),
    }
}

fn select(model: &mut Model, to: impl Fn(usize) -> usize) {
    if model.screen == Screen::Ceremonies && model.ceremony().is_some() {
        model.scroll = to(model.scroll);
        return;
    }
    let last = list_length(model).saturating_sub(1);
    let at = to(model.selection()).min(last);
    model.selected.insert(model.screen.title(), at);
}

fn enter(model: &mut Model) {
    match model.screen {
        Screen::Cluster => show_node(model),
        Screen::Wallets => show_wallet(model),
        Screen::Ceremonies if model.open.is_none() => {
            let selected = model.listed().get(model.selection()).map(|(id, _)| (*id).clone());
            open_ceremony(model, selected);
        }
        Screen::Ceremonies => {}
        Screen::Log => {
            let selected = model.entries().get(model.selection()).map(|(id, _)| (*id).clone());
            open_ceremony(model, selected);
        }
    }
}

fn open_ceremony(model: &mut Model, id: Option<CeremonyId>) {
    if let Some(id) = id {
        model.screen = Screen::Ceremonies;
        model.open = Some(id);
        model.not_read.clear();
        model.scroll = 0;
    }
}

fn show_wallet(model: &mut Model) {
    let wallets = model.wallets();
    let Some(wallet) = wallets.get(model.selection()) else { return };
    front(model, Popup::Wallet(wallet.record.wallet.clone()));
}

fn show_node(model: &mut Model) {
    let nodes = model.health().nodes;
    let Some(status) = nodes.get(model.selection()) else { return };
    front(model, Popup::Node(status.node));
}

fn back(model: &mut Model) {
    if !model.filter.is_empty() {
        model.filter.clear();
    } else if model.screen == Screen::Ceremonies {
        model.open = None;
    }
}

fn front(model: &mut Model, popup: Popup) {
    model.popup_scroll = 0;
    model.popup = Some(popup);
}

fn show(model: &mut Model, title: &str, text: impl Into<String>) {
    front(model, Popup::Message { title: title.to_owned(), text: text.into() });
}

fn open_form(model: &mut Model) {
    if !model.loaded {
        show(
            model,
            "Not possible now",
            "The record has not been read from the nodes yet, so nobody can tell what may be opened.",
        );
    } else if model.cluster.me.iter().any(|me| me.role == Role::Administrator) {
        let empty = || OpenForm {
            kind: CeremonyKind::Dkg,
            wallet: String::new(),
            purpose: String::new(),
            lost: String::new(),
            field: 1,
            trouble: String::new(),
        };
        model.popup = Some(Popup::Open(model.draft.take().unwrap_or_else(empty)));
    } else {
        show(
            model,
            "Not possible here",
            "No administrator signs at this console. List one under [[me]] in the cluster file, or open the \
             ceremony elsewhere.",
        );
    }
}

/// Goes to a ceremony that waits for somebody who signs here: from one of them to the next.
fn go_to_turn(model: &mut Model) {
    let turns: Vec<CeremonyId> = model.turns().into_iter().map(|(id, _)| id.clone()).collect();
    let here =
        turns.iter().position(|id| Some(id) == model.open.as_ref() && model.screen == Screen::Ceremonies);
    match turns.get(here.map_or(0, |at| (at + 1) % turns.len())) {
        Some(id) => open_ceremony(model, Some(id.clone())),
        None => model.say("No ceremony waits for anybody who signs at this console."),
    }
}

fn fingerprint(model: &mut Model) {
    let Some(ceremony) = model.ceremony() else { return };
    let is_running = model.is_running(ceremony);
    if let Some(why) = model.no_words(ceremony).filter(|_| !is_running) {
        show(model, "No words yet", why);
        return;
    }
    let is_read_back = ceremony.current_step().is_some_and(|step| step.act == Act::ReadBack);
    let (title, hash) = match ceremony.record().filter(|_| is_read_back) {
        Some(record) if is_running => (format!("Wallet {}", record.wallet), record.fingerprint()),
        Some(_) | None if is_running => ("Manifest".to_owned(), ceremony.manifest().hash()),
        Some(_) | None => ("Head, for paper".to_owned(), ceremony.head().hash),
    };
    model.popup = Some(Popup::Fingerprint {
        title,
        words: words::spoken(&hash),
        code: hash.to_string().to_uppercase(),
    });
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other keys do nothing here, or are typed")]
fn in_line(model: &mut Model, key: KeyEvent) -> Vec<Effect> {
    match key.code {
        KeyCode::Esc => model.line = None,
        KeyCode::Enter => match model.line.take() {
            Some(Line::Filter(text)) => {
                model.filter = text;
                model.selected.clear();
            }
            Some(Line::Command(text)) => return command(model, text.trim()),
            None => {}
        },
        _ => type_into(model, &key),
    }
    Vec::new()
}

fn command(model: &mut Model, text: &str) -> Vec<Effect> {
    match text {
        "q" | "quit" => return quit(model),
        "help" => help(model),
        "open" => open_form(model),
        "sign" => sign_step(model),
        "withdraw" => withdraw(model),
        "cluster" => model.screen = Screen::Cluster,
        "ceremonies" => model.screen = Screen::Ceremonies,
        "wallets" => model.screen = Screen::Wallets,
        "log" => model.screen = Screen::Log,
        "reload" => return load(model),
        other => {
            model.message = format!(
                "`{other}` is not a command: use open, sign, withdraw, cluster, ceremonies, wallets, log, reload or \
                 quit"
            );
        }
    }
    Vec::new()
}

/// The text that keys and pastes go into, if any. Nothing is typed under a statement that has not been read.
fn typed_text(model: &mut Model) -> Option<&mut String> {
    match (&mut model.popup, &mut model.line) {
        (Some(Popup::Open(form)), _) => form.text(),
        (Some(Popup::Type(typing)), _) => Some(&mut typing.text),
        (Some(Popup::Review(review)), _) => review.read.then_some(&mut review.typed),
        (Some(Popup::Passphrase { typed, .. }), _) => Some(typed),
        (None, Some(Line::Command(text) | Line::Filter(text))) => Some(text),
        (Some(_), _) | (None, None) => None,
    }
}

fn type_into(model: &mut Model, key: &KeyEvent) {
    let Some(text) = typed_text(model) else { return };
    // Not even a copy of what is being typed: it may be a passphrase.
    let before = text.len();
    let fits = edit(text, key, MAX_TYPED);
    if text.len() != before {
        forgive(model);
    }
    if !fits {
        say_of_field(model, format!("this key: the field takes {MAX_TYPED} characters"));
    }
}

/// Says at the field, or else at the bottom, what of a text was not taken.
fn say_of_field(model: &mut Model, what: String) {
    match &mut model.popup {
        Some(Popup::Open(form)) => form.trouble = format!("not taken: {what}"),
        Some(Popup::Type(typing)) => typing.trouble = what,
        Some(_) | None => model.message = format!("Not taken: {what}."),
    }
}

/// What was said against a text is not said against another.
fn forgive(model: &mut Model) {
    match &mut model.popup {
        Some(Popup::Open(form)) => form.trouble.clear(),
        Some(Popup::Type(typing)) => typing.trouble.clear(),
        Some(_) | None if !model.busy => model.message.clear(),
        Some(_) | None => {}
    }
}
