//! Everything that the terminal shows, as data, including pop-ups and half-typed text: drawing needs nothing else.

mod popups;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use ceremonies::book::{Book, Chapter};
use ceremonies::ceremony::{Ceremony, Phase};
use ceremonies::charter::Charter;
use ceremonies::ids::{CeremonyId, Hash, NodeIndex, StepId, UnixMillis};
use ceremonies::log::Entry;
use ceremonies::script::Step;
use ceremonies::wallet::Wallet;
use ceremonies::wire::bus::Progress;

pub(super) use self::popups::{FIELDS, ReviewAct, SignatureFor, Typing, TypingFor, Who, WhoFor};
pub use self::popups::{OpenForm, Page, Popup, Review, Shown};
use super::turn;
use crate::cli::event_line;
use crate::client::Recorded;
use crate::config::{Cluster, Me};
use crate::fork::Fork;
use crate::health::{Health, Hearing, LOST_MS, Moment};
use crate::memory::SetBack;
use crate::room::rivals_of;

/// Longest text typed into a field, in characters.
pub(super) const MAX_TYPED: usize = 512;

/// A screen of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    /// The nodes and their health.
    Cluster,
    /// All ceremonies, or the one that is open.
    Ceremonies,
    /// Committed wallets.
    Wallets,
    /// Every entry of every ceremony.
    Log,
}

impl Screen {
    /// The screens in the order of their keys.
    pub const ALL: [Self; 4] = [Self::Cluster, Self::Ceremonies, Self::Wallets, Self::Log];

    /// Its name, as shown.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Ceremonies => "Ceremonies",
            Self::Wallets => "Wallets",
            Self::Log => "Log",
        }
    }
}

/// What is typed at the bottom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A command after `:`.
    Command(String),
    /// A filter after `/`.
    Filter(String),
}

/// Where nodes stand in a ceremony, as they said when they were last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The last entry at that time.
    pub head: Hash,
    /// What nodes have signed of it.
    pub recorded: Recorded,
    /// Where the log forks or has forked.
    pub fork: Option<Fork>,
}

/// What a node has reported of its rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Rounds {
    /// What it told.
    pub progress: Progress,
    /// When that was heard.
    pub heard: UnixMillis,
    /// The step that was open then; a report from one step says nothing about the next.
    pub step: Option<StepId>,
}

/// The terminal's state.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and any combination occurs")]
pub struct Model {
    /// Charter, files, people.
    pub cluster: Cluster,
    /// All that has been folded.
    pub book: Book,
    /// Whether the book has been read since the start.
    pub loaded: bool,
    /// Whether it is being read.
    pub loading: bool,
    /// Why it could not be read the last time; empty where it was.
    pub load_trouble: String,
    /// The nodes for whose sake signing was last advised against.
    pub doubted: BTreeSet<NodeIndex>,
    /// The ceremonies that nodes list but the book lacks, each with the reason.
    pub unread: BTreeMap<CeremonyId, String>,
    /// The ceremonies whose logs do not fold, or not to their end, each with why.
    pub aside: BTreeMap<CeremonyId, String>,
    /// How many finished ceremonies nodes list that were not read.
    pub older: usize,
    /// Where nodes stand in the ceremonies that were read.
    pub standings: BTreeMap<CeremonyId, Standing>,
    /// The ceremonies of which nodes show less than this console has seen.
    pub set_back: BTreeMap<CeremonyId, SetBack>,
    /// The ceremonies that are being read.
    pub(super) reading: BTreeSet<CeremonyId>,
    /// Those that are to be read, once more or when others are done.
    pub(super) to_read: BTreeSet<CeremonyId>,
    /// Now, in whole seconds' steps.
    pub now: UnixMillis,
    /// The same moment, as durations are measured.
    pub steady: Instant,
    /// Whether the bus is connected.
    pub connected: bool,
    /// What is heard of the nodes.
    pub(super) hearing: Hearing,
    /// The last moment at which what is shown was what nodes have; none if nothing of them was read or heard yet.
    pub(super) known_to: Option<Moment>,
    /// Whether something may have been missed since, so that everything is read again.
    pub(super) is_behind: bool,
    /// The last progress of each node in each ceremony.
    pub progress: BTreeMap<(CeremonyId, NodeIndex), Rounds>,
    /// The screen in front.
    pub screen: Screen,
    /// The ceremony that is open on its screen.
    pub open: Option<CeremonyId>,
    /// The selected line of each list.
    pub selected: BTreeMap<&'static str, usize>,
    /// How far the open ceremony is scrolled, in lines.
    pub scroll: usize,
    /// How far a text in front is scrolled, in lines.
    pub(super) popup_scroll: usize,
    /// What waits in front.
    pub popup: Option<Popup>,
    /// A new ceremony that was filled in and is not opened yet.
    pub(super) draft: Option<OpenForm>,
    /// What is typed at the bottom.
    pub line: Option<Line>,
    /// Only items that contain this are listed.
    pub filter: String,
    /// What happened last, at the bottom.
    pub message: String,
    /// Why the ceremony in front could not be read the last time; empty where it was.
    pub(super) not_read: String,
    /// Whether something is on its way to the bus.
    pub busy: bool,
    /// Whether colours are used besides words and marks.
    pub colour: bool,
    /// Whether the terminal was large enough for the last frame; if not, keys do nothing.
    pub fits: bool,
}

impl Model {
    /// The state before anything is known.
    #[must_use]
    pub fn new(cluster: Cluster, now: UnixMillis, colour: bool) -> Self {
        let (book, steady) = (Book::new(cluster.context.clone()), Moment::now().steady);
        Self {
            cluster,
            book,
            loaded: false,
            loading: false,
            load_trouble: String::new(),
            doubted: BTreeSet::new(),
            unread: BTreeMap::new(),
            aside: BTreeMap::new(),
            older: 0,
            standings: BTreeMap::new(),
            set_back: BTreeMap::new(),
            reading: BTreeSet::new(),
            to_read: BTreeSet::new(),
            now,
            steady,
            connected: false,
            hearing: Hearing::begin(Moment { wall: now, steady }),
            known_to: None,
            is_behind: false,
            progress: BTreeMap::new(),
            screen: Screen::Cluster,
            open: None,
            selected: BTreeMap::new(),
            scroll: 0,
            popup_scroll: 0,
            popup: None,
            draft: None,
            line: None,
            filter: String::new(),
            message: "Press 2 for ceremonies, o to open one, ? for help.".to_owned(),
            not_read: String::new(),
            busy: false,
            colour,
            fits: true,
        }
    }

    /// The charter in force.
    #[must_use]
    pub fn charter(&self) -> &Charter {
        self.book.context().charter()
    }

    /// This moment.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment { wall: self.now, steady: self.steady }
    }

    /// Where nodes stand on the last entry of a ceremony; none if they have not been read since it came.
    #[must_use]
    pub fn standing(&self, ceremony: &Ceremony) -> Option<&Standing> {
        let standing = self.standings.get(&ceremony.manifest().ceremony)?;
        (standing.head == ceremony.head().hash).then_some(standing)
    }

    /// Whether nodes list ceremonies and none of them could be shown: then nobody can tell what the record holds.
    #[must_use]
    pub fn is_nothing_shown(&self) -> bool {
        self.book.iter().next().is_none() && !(self.aside.is_empty() && self.unread.is_empty())
    }

    /// What stands against a running ceremony now: the nodes of its roster that could not do their part.
    #[must_use]
    pub fn doubts(&self, ceremony: &Ceremony) -> BTreeMap<NodeIndex, String> {
        if !self.is_running(ceremony) {
            return BTreeMap::new();
        }
        let health = self.health();
        let nodes = health.in_the_way_of(ceremony.manifest());
        nodes.map(|status| (status.node, format!("! node {}: {}", status.node, status.summary))).collect()
    }

    /// The other transfers that can be carried out only in the place of a ceremony's, each in a sentence.
    #[must_use]
    pub fn rivals(&self, ceremony: &Ceremony) -> Vec<String> {
        let rivals = rivals_of(&self.book, ceremony, self.now).into_iter();
        rivals.map(|rival| format!("! {rival}")).collect()
    }

    /// Why the words for paper of a ceremony are not shown; none where its last entry is recorded.
    #[must_use]
    pub fn no_words(&self, ceremony: &Ceremony) -> Option<String> {
        match self.standing(ceremony) {
            Some(standing) if standing.recorded.recorded => None,
            Some(standing) => Some(format!("Words for paper: not yet, {}.", standing.recorded)),
            None => {
                Some("Words for paper: not yet, the nodes have not been asked where they stand.".to_owned())
            }
        }
    }

    /// How every wallet and every node is.
    #[must_use]
    pub fn health(&self) -> Health {
        self.hearing.health(&self.book, self.connected, self.moment())
    }

    /// From when what is shown is, if it is older than it looks: the bus is lost, no node is heard, or what was missed in
    /// the meantime has not been read yet.
    #[must_use]
    pub fn as_of(&self) -> Option<UnixMillis> {
        let known = self.known_to?;
        let age = self.steady.saturating_duration_since(known.steady).as_millis();
        let is_old = !self.connected || self.is_behind || age > LOST_MS.unsigned_abs().into();
        is_old.then_some(known.wall)
    }

    /// Whether nodes are heard, and only what was missed is not read yet.
    #[must_use]
    pub fn is_catching_up(&self) -> bool {
        let last = self.hearing.last();
        let age = last.map(|last| self.steady.saturating_duration_since(last.steady).as_millis());
        self.connected && self.is_behind && age.is_some_and(|ms| ms <= LOST_MS.unsigned_abs().into())
    }

    /// The ceremonies that fold to their end and that the filter lets through, latest first.
    #[must_use]
    pub fn listed(&self) -> Vec<(&CeremonyId, &Chapter)> {
        let passes = |id: &CeremonyId| self.passes(id.as_str()) && !self.aside.contains_key(id);
        let mut listed: Vec<_> = self.book.iter().filter(|(id, _)| passes(id)).collect();
        listed.sort_by_key(|(_, chapter)| std::cmp::Reverse(chapter.ceremony.manifest().opened));
        listed
    }

    /// Whether the filter lets a text through.
    #[must_use]
    pub fn passes(&self, text: &str) -> bool {
        self.filter.is_empty() || text.to_lowercase().contains(&self.filter.to_lowercase())
    }

    /// The ceremony that is open on its screen; none if its log does not fold to its end.
    #[must_use]
    pub fn ceremony(&self) -> Option<&Ceremony> {
        let open = self.open.as_ref().filter(|id| !self.aside.contains_key(*id));
        open.and_then(|id| self.book.get(id)).map(|chapter| &chapter.ceremony)
    }

    /// The step of the open ceremony that people sign now.
    #[must_use]
    pub fn step_to_sign(&self) -> Option<(&Ceremony, &Step)> {
        let ceremony = self.ceremony()?;
        turn::step_to_sign(ceremony).map(|step| (ceremony, step))
    }

    /// The ceremonies that wait for somebody who signs at this console, the oldest first, each with those people.
    #[must_use]
    pub fn turns(&self) -> Vec<(&CeremonyId, Vec<Me>)> {
        let running = self
            .book
            .iter()
            .filter(|(id, chapter)| !self.aside.contains_key(*id) && self.is_running(&chapter.ceremony));
        let mut running: Vec<_> = running.map(|(id, chapter)| (id, &chapter.ceremony)).collect();
        running.sort_by_key(|(id, ceremony)| (ceremony.manifest().opened, *id));
        let turns = running.into_iter().map(|(id, ceremony)| (id, turn::awaited(ceremony, &self.cluster.me)));
        turns.filter(|(_, people)| !people.is_empty()).collect()
    }

    /// The wallets that the filter lets through.
    #[must_use]
    pub fn wallets(&self) -> Vec<Wallet> {
        let wallets = self.book.wallets().into_values();
        wallets.filter(|wallet| self.passes(wallet.record.wallet.as_str())).collect()
    }

    /// Every entry that the filter lets through, latest first. Without a filter, none is rendered for it.
    #[must_use]
    pub fn entries(&self) -> Vec<(&CeremonyId, &Entry)> {
        let passes = |(id, entry): &(&CeremonyId, &Entry)| {
            self.passes(id.as_str()) || self.passes(&event_line(&entry.event))
        };
        let entries =
            self.book.iter().flat_map(|(id, chapter)| chapter.entries.iter().map(move |entry| (id, entry)));
        let mut entries: Vec<_> = entries.filter(passes).collect();
        entries.sort_by_key(|(_, entry)| std::cmp::Reverse((entry.time, entry.seq)));
        entries
    }

    /// Whether a ceremony is under way.
    #[must_use]
    pub fn is_busy_with_a_ceremony(&self) -> bool {
        self.book.iter().any(|(_, chapter)| self.is_running(&chapter.ceremony))
    }

    /// Whether a ceremony is not over.
    #[must_use]
    pub fn is_running(&self, ceremony: &Ceremony) -> bool {
        matches!(ceremony.phase_at(self.now), Phase::Gathering | Phase::Authorised | Phase::Committed)
    }

    /// Whether somebody is typing the words that they heard, so that the screen must not show them.
    #[must_use]
    pub fn is_reading_back(&self) -> bool {
        matches!(&self.popup, Some(Popup::Type(typing)) if typing.question == TypingFor::Words)
    }

    /// The selected line of the list in front.
    #[must_use]
    pub fn selection(&self) -> usize {
        self.selected.get(self.screen.title()).copied().unwrap_or(0)
    }

    /// Says what happened, at the bottom.
    pub(super) fn say(&mut self, message: &str) {
        message.clone_into(&mut self.message);
    }

    /// Where this console's files lie.
    #[must_use]
    pub fn folder(&self) -> &PathBuf {
        &self.cluster.folder
    }
}
