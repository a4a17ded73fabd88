//! What a key, a tick or a message changes, and what must be done about it. No I/O, no drawing.

mod popups;

use std::collections::{BTreeMap, BTreeSet};

use ceremonies::ceremony::Ceremony;
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::entry::Entry;
use ceremonies::ids::{CeremonyId, NodeIndex};
use ceremonies::script::Act;
use ceremonies::text::chain;
use ceremonies::words;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use zeroize::Zeroizing;

pub use self::popups::SIGN_WORD;
use self::popups::in_popup;
use super::model::{
    Line, MAX_TYPED, Model, OpenForm, Popup, Review, ReviewAct, Rounds, Screen, Shown, Standing, Who, WhoFor,
};
use super::turn;
use crate::client::{Library, News, Reading, settle};
use crate::config::Me;
use crate::custodian::Released;
use crate::fork::fork;
use crate::health::{Heard, Moment};
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
                paste(text, &pasted, MAX_TYPED);
            }
            (true, Vec::new())
        }
        Event::Resized => (true, Vec::new()),
        Event::Shown(shown) => (popups::shown(model, shown), Vec::new()),
        Event::Tick(now) => {
            (model.now, model.steady) = (now.wall, now.steady);
            let effects = if model.loaded { follow_open(model) } else { load(model) };
            (true, effects)
        }
        Event::Connected(connected) => {
            model.connected = connected;
            (true, load(model))
        }
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
                model.message = format!("{id} cannot be read: {why}");
            }
            (true, read_next(model))
        }
        Event::Done(ceremony, what) => {
            model.busy = false;
            model.message = what;
            model.screen = Screen::Ceremonies;
            model.open = Some(ceremony);
            (true, follow_open(model))
        }
        Event::Failed(why) => {
            model.busy = false;
            model.popup = Some(Popup::Message { title: "Not done".to_owned(), text: why });
            (true, Vec::new())
        }
        Event::Unclear(why) => {
            model.busy = false;
            model.popup = Some(Popup::Message { title: "Outcome unknown".to_owned(), text: why });
            (true, Vec::new())
        }
        Event::Unwrapped(me, released) => {
            model.busy = false;
            popups::review_release(model, me, *released);
            (true, Vec::new())
        }
        Event::Locked(review) => {
            model.busy = false;
            // Allocated in full at the start: a growing buffer would leave copies behind.
            let typed = Zeroizing::new(String::with_capacity(MAX_TYPED * 4));
            model.popup = Some(Popup::Passphrase { review, typed });
            (true, Vec::new())
        }
    }
}

/// How many ceremonies are read at once.
const MAX_READING: usize = 8;
/// How many may wait for that.
const MAX_TO_READ: usize = 256;
/// How many of both may be ceremonies that are not known here.
const MAX_STRANGERS: usize = 4;
const MAX_STRANGERS_TO_READ: usize = 64;

/// In how many sessions one node is shown at most.
const MAX_SESSIONS: usize = 64;

fn told(model: &mut Model, news: News) -> (bool, Vec<Effect>) {
    match news {
        News::Log(id) => (false, catch_up(model, id)),
        News::Health(heartbeat) => {
            if let Ok(node) = NodeIndex::try_from(heartbeat.node) {
                let before = model.heartbeats.remove(&node);
                let heard = Heard::new(&model.cluster.context, *heartbeat, model.moment(), before);
                model.heartbeats.insert(node, heard);
            }
            (model.screen == Screen::Cluster, Vec::new())
        }
        News::Backdated(node) => {
            if let Some(heard) = model.heartbeats.get_mut(&node) {
                heard.came_backdated(model.steady);
            }
            (model.screen == Screen::Cluster, Vec::new())
        }
        News::Progress(progress) => {
            if let (Ok(id), Ok(node)) =
                (progress.ceremony.parse::<CeremonyId>(), NodeIndex::try_from(progress.node))
            {
                // A node that claims more sessions than that is making them up.
                if model.progress.keys().filter(|(_, by)| *by == node).count() >= MAX_SESSIONS {
                    model.progress.retain(|(_, by), _| *by != node);
                }
                let step = model.book.get(&id).and_then(|chapter| chapter.ceremony.current_step());
                let rounds =
                    Rounds { progress: *progress, heard: model.now, step: step.map(|step| step.id.clone()) };
                model.progress.insert((id, node), rounds);
            }
            (model.screen == Screen::Ceremonies, Vec::new())
        }
    }
}

/// Reads everything, unless that is under way. Also without a bus: what comes back is the reason that there is none.
fn load(model: &mut Model) -> Vec<Effect> {
    if model.loading {
        return Vec::new();
    }
    model.loading = true;
    vec![Effect::Load]
}

/// Reads a ceremony or, if a reading of it is under way, reads it once more after that.
fn catch_up(model: &mut Model, id: CeremonyId) -> Vec<Effect> {
    // The ceremony in front waits for nobody, and one node's talk of others that nobody knows not for long.
    let is_open = model.open.as_ref() == Some(&id);
    let is_known = |id: &CeremonyId| model.book.get(id).is_some();
    let strangers = model.reading.iter().filter(|id| !is_known(id)).count();
    let is_full = model.reading.len() >= MAX_READING || (!is_known(&id) && strangers >= MAX_STRANGERS);
    if model.reading.contains(&id) || (is_full && !is_open) {
        let waiting = model.to_read.iter().filter(|id| !is_known(id)).count();
        if model.to_read.len() < MAX_TO_READ && (is_known(&id) || waiting < MAX_STRANGERS_TO_READ) {
            model.to_read.insert(id);
        }
        return Vec::new();
    }
    model.reading.insert(id.clone());
    let known = log(model, &id);
    vec![Effect::CatchUp(id, known)]
}

fn read_next(model: &mut Model) -> Vec<Effect> {
    let mut waiting = model.to_read.iter().filter(|id| !model.reading.contains(*id));
    let next = waiting.clone().find(|id| model.book.get(id).is_some()).or_else(|| waiting.next()).cloned();
    match next {
        Some(id) if model.reading.len() < MAX_READING => {
            model.to_read.remove(&id);
            catch_up(model, id)
        }
        Some(_) | None => Vec::new(),
    }
}

/// A ceremony's log as it is known.
fn log(model: &Model, id: &CeremonyId) -> Vec<Entry> {
    model.book.get(id).map(|chapter| chapter.entries.clone()).unwrap_or_default()
}

/// The ceremony in front is read again now and then: a hint may have been lost, and nodes may since have recorded what
/// they hold.
fn follow_open(model: &mut Model) -> Vec<Effect> {
    let Some(ceremony) = model.ceremony() else { return Vec::new() };
    let closed = matches!(ceremony.phase_at(model.now), ceremonies::ceremony::Phase::Closed);
    let settled = closed && model.standing(ceremony).is_some_and(|standing| standing.recorded.recorded);
    let id = ceremony.manifest().ceremony.clone();
    if settled || !model.connected || model.reading.contains(&id) { Vec::new() } else { catch_up(model, id) }
}

/// Takes what was loaded. What has changed here in the meantime stays.
fn take_library(model: &mut Model, library: Library) {
    model.loading = false;
    model.loaded = true;
    model.load_trouble.clear();
    let mut book = library.book;
    for (id, chapter) in model.book.iter() {
        let loaded = book.get(id).map(|chapter| chapter.entries.as_slice()).unwrap_or_default();
        if chapter.entries.len() > loaded.len() && chapter.entries.starts_with(loaded) {
            // It was folded before, on this book or an earlier one.
            let _ = book.read(&chapter.entries);
        }
    }
    model.book = book;
    let known = |id: &CeremonyId| model.book.get(id).map_or(0, |chapter| chapter.ceremony.head().seq);
    let aside = library.aside.iter().filter(|log| known(&log.ceremony) < log.from());
    let aside: BTreeMap<_, _> = aside.map(|log| (log.ceremony.clone(), log.to_string())).collect();
    let missing = library.missing.into_iter().filter(|(id, _)| known(id) == 0);
    model.unread = missing.map(|(id, troubles)| (id, troubles.to_string())).collect();
    model.aside = aside;
    model.older = library.catalogue.left;
    model.set_back =
        library.set_back.into_iter().map(|set_back| (set_back.ceremony.clone(), set_back)).collect();
}

fn read(model: &mut Model, mut reading: Reading, set_back: Option<SetBack>) -> (bool, Vec<Effect>) {
    let id = reading.ceremony().clone();
    model.reading.remove(&id);
    match settle(&mut model.book, &mut reading) {
        Ok(()) => {
            let head = reading.branches().tree().tip().hash;
            let recorded = reading.recorded();
            // What a quorum has recorded stays recorded, whoever is silent now.
            let known =
                model.standings.get(&id).filter(|known| known.head == head && known.recorded.recorded);
            let recorded =
                known.filter(|_| !recorded.recorded).map_or(recorded, |known| known.recorded.clone());
            let standing = Standing { head, recorded, fork: fork(&reading) };
            model.standings.insert(id.clone(), standing);
            model.unread.remove(&id);
            model.aside.remove(&id);
        }
        Err(error) => model.message = format!("{id} was refused: {}", chain(&error)),
    }
    match set_back {
        Some(set_back) => drop(model.set_back.insert(id, set_back)),
        None => drop(model.set_back.remove(&id)),
    }
    (true, read_next(model))
}

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
    match key.code {
        KeyCode::Char('q') => return quit(model),
        KeyCode::Char('?') => model.popup = Some(Popup::Help),
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
        KeyCode::Up | KeyCode::Char('k') => select(model, |at| at.saturating_sub(1)),
        KeyCode::Down | KeyCode::Char('j') => select(model, |at| at.saturating_add(1)),
        KeyCode::PageUp => select(model, |at| at.saturating_sub(LEAF)),
        KeyCode::PageDown => select(model, |at| at.saturating_add(LEAF)),
        KeyCode::Home => select(model, |_| 0),
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

fn list_length(model: &Model) -> usize {
    match model.screen {
        Screen::Cluster => model.charter().nodes().len(),
        Screen::Ceremonies => model.listed().len(),
        Screen::Wallets => model.book.wallets().len(),
        Screen::Log => model.book.iter().map(|(_, chapter)| chapter.entries.len()).sum(),
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
    if model.screen == Screen::Cluster {
        show_node(model);
    } else if model.screen == Screen::Ceremonies && model.open.is_none() {
        let selected = model.listed().get(model.selection()).map(|(id, _)| (*id).clone());
        model.open = selected;
        model.scroll = 0;
    }
}

/// All that is known of the selected node, which a line of the screen may cut.
fn show_node(model: &mut Model) {
    let nodes = model.health().nodes;
    let Some(status) = nodes.get(model.selection()) else { return };
    let heard = match status.heard_ms_ago {
        Some(ms) => format!("{}.{} s ago", ms / 1000, ms % 1000 / 100),
        None => "not known".to_owned(),
    };
    let shares = match status.shares.as_deref() {
        None => "not known".to_owned(),
        Some([]) => "none".to_owned(),
        Some(shares) => shares.join(", "),
    };
    let mut text = format!(
        "{} {}\n\nattestation: {}\nshares: {shares}\nlast heartbeat: {heard}\nprogram: {}",
        status.level.mark(),
        status.summary,
        status.attestation,
        status.build,
    );
    if let Some(started) = status.started {
        text += &format!("\nagent runs since {started}");
    }
    for past in &status.lately {
        text += &format!("\nover: {past}");
    }
    if let Some(accused) = &status.accused {
        text += &format!("\n{accused}");
    }
    if let Some(check) = status.check {
        text += &format!("\n\n{}", check.what_to_do());
    }
    let title = format!("Node {}", status.node);
    show(model, &title, text);
}

fn back(model: &mut Model) {
    if !model.filter.is_empty() {
        model.filter.clear();
    } else if model.screen == Screen::Ceremonies {
        model.open = None;
    }
}

/// What signs a review: for the ceremony as its log is known here. What has been signed or has ended since the statement
/// was shown is not signed.
fn sign(model: &mut Model, review: Box<Review>, passphrase: Option<Zeroizing<String>>) -> Vec<Effect> {
    let known = match &review.act {
        ReviewAct::Open(_) => Vec::new(),
        ReviewAct::Sign(id, signature) | ReviewAct::Release(id, signature, _) => {
            let chapter = model.book.get(id).ok_or_else(|| format!("{id} is not known any more"));
            let statement = chapter.and_then(|chapter| {
                signature.0.statement(&chapter.ceremony, model.now).map_err(|error| chain(&error))
            });
            let changed = || "The ceremony has gone on, and the statement is another now: read it again.";
            match statement {
                Ok(statement) if statement == review.statement => log(model, id),
                Ok(_) => return refuse(model, changed()),
                Err(why) => return refuse(model, why),
            }
        }
    };
    model.busy = true;
    model.say("Signing… An SSH agent or a security key may wait for you: touch it, or answer there.");
    vec![Effect::Sign(review, passphrase, known)]
}

fn refuse(model: &mut Model, why: impl Into<String>) -> Vec<Effect> {
    show(model, "Nothing was signed", why);
    Vec::new()
}

fn show(model: &mut Model, title: &str, text: impl Into<String>) {
    model.popup = Some(Popup::Message { title: title.to_owned(), text: text.into() });
}

fn open_form(model: &mut Model) {
    if !model.loaded {
        show(
            model,
            "Not possible now",
            "The record has not been read from the nodes yet, so nobody can tell what may be opened.",
        );
    } else if model.cluster.me.iter().any(|me| me.role == Role::Administrator) {
        model.popup = Some(Popup::Open(OpenForm {
            kind: CeremonyKind::Dkg,
            wallet: String::new(),
            purpose: String::new(),
            lost: String::new(),
            field: 1,
            trouble: String::new(),
        }));
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
        Some(id) => {
            model.screen = Screen::Ceremonies;
            model.open = Some(id.clone());
            model.scroll = 0;
        }
        None => model.say("No ceremony waits for anybody who signs at this console."),
    }
}

fn sign_step(model: &mut Model) {
    if model.screen != Screen::Ceremonies || model.open.is_none() {
        show(model, "Sign what?", "Choose a ceremony first: 2, then Enter.");
        return;
    }
    let Some(ceremony) = model.ceremony() else {
        show(model, "Nothing to sign", "This ceremony has not been read.");
        return;
    };
    let people = turn::candidates(ceremony, &model.cluster.me);
    if let Some(why) = nothing_to_sign(model, ceremony) {
        show(model, "Nothing to sign", why);
    } else if people.is_empty() {
        let why = nobody_signs(model, ceremony);
        show(model, "Nobody here can sign", why);
    } else if let Some(doubt) = new_doubt(model) {
        let text = format!(
            "{doubt}\n\nWhat is signed now may be wasted: put that right first (Enter on the node, screen 1, says how). \
             Press s again to sign all the same."
        );
        show(model, "Wait", text);
    } else {
        model.popup = Some(Popup::Who(Who { people, selected: 0, purpose: WhoFor::Step }));
    }
}

/// Why nobody signs anything in a ceremony now, if nobody does.
fn nothing_to_sign(model: &Model, ceremony: &Ceremony) -> Option<String> {
    if !model.is_running(ceremony) {
        return Some(format!("The ceremony is over: {}.", ceremony.phase_at(model.now)));
    }
    let is_theirs = turn::step_to_sign(ceremony).is_none();
    is_theirs.then(|| match ceremony.current_step() {
        Some(step) => format!("The enclaves do the open step, `{}`: nobody signs it.", step.title),
        None => "No step is open.".to_owned(),
    })
}

/// Whom the open step waits for, and since when those here who have signed it are on record.
fn nobody_signs(model: &Model, ceremony: &Ceremony) -> String {
    let mut text = "This step waits for people who do not sign at this console.".to_owned();
    let signed = turn::step_to_sign(ceremony).map(|step| ceremony.signed(&step.id));
    for signed in signed.into_iter().flatten() {
        if model.cluster.me.iter().any(|me| me.person == signed.person) {
            text += &format!(
                "\n{} has already signed it: on record since entry {}, {}.",
                signed.person, signed.seq, signed.time
            );
        }
    }
    text
}

/// What stands against signing now, unless that very thing was shown before.
fn new_doubt(model: &mut Model) -> Option<String> {
    let doubts = model.doubts(model.ceremony()?);
    let nodes: BTreeSet<NodeIndex> = doubts.keys().copied().collect();
    let is_new = !nodes.is_subset(&model.doubted);
    model.doubted = nodes;
    is_new.then(|| doubts.into_values().collect::<Vec<_>>().join("\n"))
}

fn withdraw(model: &mut Model) {
    let Some(ceremony) = model.ceremony() else {
        show(model, "Withdraw what?", "Choose a ceremony first: 2, then Enter.");
        return;
    };
    let acting = |me: &&Me| {
        (me.role != Role::Administrator || me.person == ceremony.manifest().administrator)
            && !ceremony.signatures().iter().any(|s| s.person == me.person && s.role != me.role)
    };
    let people: Vec<Me> = model.cluster.me.iter().filter(acting).cloned().collect();
    if people.is_empty() {
        show(model, "Nobody here can sign", "Nobody who signs at this console has a role in this ceremony.");
    } else {
        model.popup = Some(Popup::Who(Who { people, selected: 0, purpose: WhoFor::Withdraw }));
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
        "help" => model.popup = Some(Popup::Help),
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
    if let Some(text) = typed_text(model) {
        edit(text, key, MAX_TYPED);
    }
}
