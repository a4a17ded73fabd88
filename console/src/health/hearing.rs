//! What a console hears of its nodes, and since when it listens. Everything that it shows of them rests on this, whichever
//! screen or command shows it.

use std::collections::BTreeMap;
use std::time::Instant;

use ceremonies::book::Book;
use ceremonies::ceremony::Context;
use ceremonies::ids::NodeIndex;

use super::{FRESH_MS, Health, Heard, LOST_MS, Moment, all_silent, each, millis, paused, without_bus};
use crate::client::News;

/// How long a console that looks every second may take to look again, in milliseconds: if it takes longer, it stood still.
const PAUSE_MS: i64 = 3_000;

/// A console that listens.
#[derive(Debug)]
pub struct Hearing {
    heard: BTreeMap<NodeIndex, Heard>,
    /// Since when it listens without a break: nobody is silent for longer.
    since: Instant,
    is_connected: bool,
    /// When it last ran.
    ran: Instant,
    /// When it last went on after it had stood still: stopped, or asleep with its machine.
    went_on: Option<Instant>,
}

/// What is heard of one node.
#[derive(Debug, Clone, Copy)]
pub(super) enum Voice<'a> {
    /// It speaks.
    Heard(&'a Heard),
    /// It has been silent for so many milliseconds, while others were heard.
    Silent(Option<&'a Heard>, i64),
    /// Not long enough was listened to tell.
    NotYet(Option<&'a Heard>),
}

impl<'a> Voice<'a> {
    /// Its last words, however old.
    pub(super) fn last(self) -> Option<&'a Heard> {
        match self {
            Self::Heard(heard) => Some(heard),
            Self::Silent(heard, _) | Self::NotYet(heard) => heard,
        }
    }

    /// Its words, if they are of now.
    pub(super) fn now(self) -> Option<&'a Heard> {
        match self {
            Self::Heard(heard) => Some(heard),
            Self::Silent(..) | Self::NotYet(_) => None,
        }
    }
}

impl Hearing {
    /// A console that begins to listen.
    #[must_use]
    pub fn begin(now: Moment) -> Self {
        let (since, ran) = (now.steady, now.steady);
        Self { heard: BTreeMap::new(), since, is_connected: false, ran, went_on: None }
    }

    /// Notes that this console runs. Whoever listens says so every second: where that was left out, the console stood still,
    /// and what waited meanwhile says nothing of now.
    pub fn runs(&mut self, now: Moment) {
        if millis(self.ran, now.steady) > PAUSE_MS {
            self.went_on = Some(now.steady);
            self.since = now.steady;
        }
        self.ran = now.steady;
    }

    /// Notes that nobody asked this console to listen until now.
    pub fn begins_again(&mut self, now: Moment) {
        self.ran = now.steady;
    }

    /// Notes whether the bus is there. What nobody could hear is nobody's silence.
    pub fn has_bus(&mut self, is_connected: bool, now: Moment) {
        if is_connected && !self.is_connected {
            self.since = now.steady;
        }
        self.is_connected = is_connected;
    }

    /// Takes in what a node tells of itself.
    pub fn hear(&mut self, context: &Context, news: News, now: Moment) {
        match news {
            News::Health(heartbeat) => {
                let Ok(node) = NodeIndex::try_from(heartbeat.node) else { return };
                // After a silence of all, each may take as long as ever to be heard again.
                if self.last().is_some_and(|last| millis(last.steady, now.steady) > LOST_MS) {
                    self.since = now.steady;
                }
                let before = self.heard.remove(&node);
                self.heard.insert(node, Heard::new(context, *heartbeat, now, before));
            }
            News::Backdated(node) => {
                if let Some(heard) = self.heard.get_mut(&node) {
                    heard.came_backdated(now.steady);
                }
            }
            // What waited for a console that stood still comes all at once, and accuses nobody.
            News::Surplus(_) if self.has_just_gone_on(now) => {}
            News::Surplus(node) => {
                if let Some(heard) = self.heard.get_mut(&node) {
                    heard.came_in_surplus(now.steady);
                }
            }
            News::Log(_) | News::Progress(_) => {}
        }
    }

    /// Whether it went on a moment ago, after it had stood still.
    fn has_just_gone_on(&self, now: Moment) -> bool {
        self.went_on.is_some_and(|went_on| millis(went_on, now.steady) <= LOST_MS)
    }

    /// When any node was last heard.
    #[must_use]
    pub fn last(&self) -> Option<Moment> {
        self.heard.values().map(|heard| heard.received).max_by_key(|moment| moment.steady)
    }

    /// Whether every one of these nodes was heard since this console listens.
    pub fn has_heard<'n>(&self, nodes: impl IntoIterator<Item = &'n NodeIndex>) -> bool {
        let is_heard = |node| self.heard.get(node).is_some_and(|heard| heard.received.steady >= self.since);
        nodes.into_iter().all(is_heard)
    }

    /// How every wallet and every node is.
    ///
    /// Where all nodes fall silent, one cause is likelier than as many as there are nodes, and what has become of any of
    /// them is not known.
    #[must_use]
    pub fn health(&self, book: &Book, is_connected: bool, now: Moment) -> Health {
        if !is_connected {
            return without_bus(book, now);
        }
        if self.has_just_gone_on(now) {
            return paused(book, now);
        }
        let members = book.context().charter().members();
        let last = members.iter().filter_map(|node| Some(self.heard.get(node)?.received.steady)).max();
        match last {
            Some(last) if millis(last, now.steady) <= LOST_MS => {
                each(book, |node| self.voice(node, last, now), now)
            }
            last => all_silent(book, last.map(|last| millis(last, now.steady)), now),
        }
    }

    /// What is heard of a node, when some node was last heard at this moment. Its silence is its own only as long as others
    /// are heard.
    fn voice(&self, node: NodeIndex, last: Instant, now: Moment) -> Voice<'_> {
        let heard = self.heard.get(&node);
        let from = heard.map_or(self.since, |heard| heard.received.steady.max(self.since));
        match heard {
            Some(heard) if heard.age_ms(now) <= FRESH_MS => Voice::Heard(heard),
            heard if millis(from, last) > LOST_MS => Voice::Silent(heard, millis(from, now.steady)),
            heard => Voice::NotYet(heard),
        }
    }
}
