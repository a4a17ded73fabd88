//! The broker's stream as this node finds it: whether it is the one that it read before, and how far it has read.

use ceremonies::deploy::broker::{Difference, stream_differences};
use ceremonies::ids::CeremonyId;
use ceremonies::manifest::Manifest;
use tracing::{info, warn};

use super::writer::{Work, Writer};
use super::{Core, Effect, Mark, StoreOp, StreamEntry, StreamError, StreamSeen, Waiting};

/// How often a sound stream is checked again, in milliseconds.
const INSPECT_MS: u64 = 30_000;
/// How often the store is told how far the stream was read, in milliseconds.
const MARK_MS: u64 = 5000;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Not checked since the connection.
    Unseen,
    /// Not to be used, and why.
    Unusable(String),
    /// As it must be.
    Usable,
}

/// What is known of the stream.
#[derive(Debug)]
pub(super) struct Stream {
    state: State,
    /// The last message that was read.
    mark: Option<Mark>,
    /// The mark that the store has, and when it was told.
    stored: (Option<Mark>, u64),
    /// Whether everything was read since the connection.
    is_read: bool,
    inspected_at: Option<u64>,
    /// The sequence of the first message that it has, when it was last looked at.
    first: u64,
    /// What is wrong with a stream that is still used.
    blemish: Option<String>,
}

impl Stream {
    pub(super) fn new(mark: Option<Mark>) -> Self {
        Self {
            state: State::Unseen,
            mark,
            stored: (mark, 0),
            is_read: false,
            inspected_at: None,
            first: 1,
            blemish: None,
        }
    }

    /// Whether the node has read a stream before.
    pub(super) fn is_known(&self) -> bool {
        self.mark.is_some()
    }

    /// Whether everything that the stream has was read.
    pub(super) fn is_read(&self) -> bool {
        self.state == State::Usable && self.is_read
    }

    /// Whether it is the log's stream, and takes entries.
    pub(super) fn is_usable(&self) -> bool {
        self.state == State::Usable
    }

    pub(super) fn read_to(&self) -> u64 {
        self.mark.map_or(0, |mark| mark.seq)
    }

    /// What is wrong with it.
    pub(super) fn trouble(&self) -> Option<String> {
        match &self.state {
            State::Unseen => Some("the stream has not been checked since the bus connected".to_owned()),
            State::Unusable(why) => Some(why.clone()),
            State::Usable if !self.is_read => Some("the stream is being read".to_owned()),
            State::Usable => self.blemish.clone(),
        }
    }

    /// The connection is gone.
    pub(super) fn lost(&mut self) {
        self.state = State::Unusable("the broker is not connected".to_owned());
        self.is_read = false;
    }

    /// A request failed: nothing is done with the stream until it has been checked again.
    pub(super) fn failed(&mut self, error: &StreamError) {
        self.state = State::Unusable(error.to_string());
        self.is_read = false;
        self.inspected_at = None;
    }
}

impl Core {
    pub(super) fn connected(&mut self) {
        info!("bus connected");
        self.stream.state = State::Unseen;
        self.stream.is_read = false;
        self.inspect();
    }

    /// What is wrong with the stream, or with the place in it of a ceremony that is under way.
    pub(super) fn stream_trouble(&self) -> Option<String> {
        let full = || {
            self.running.iter().find(|id| self.logs.get(*id).is_some_and(|log| log.is_full(self.now.steady)))
        };
        self.stream.trouble().or_else(|| {
            let why = "the broker takes no more messages of it, because somebody has filled its place in the stream; nodes \
                       keep the rest of its log among themselves";
            full().map(|id| format!("{id}: {why}"))
        })
    }

    fn inspect(&mut self) {
        self.stream.inspected_at = Some(self.now.steady);
        self.effect(Effect::InspectStream(self.stream.mark));
    }

    /// Once per look: what is new in the stream, and whether it is still the same stream.
    pub(super) fn look_at_stream(&mut self) {
        let wait = if self.stream.state == State::Usable { INSPECT_MS } else { 1000 };
        let due = self.stream.inspected_at.is_none_or(|at| self.now.steady.saturating_sub(at) >= wait);
        if due {
            self.inspect();
        }
        if self.stream.state == State::Usable {
            self.plan(Work::Read);
        }
    }

    /// The stream as the broker describes it: used only if it can lose nothing; read from its beginning if it is not
    /// the previous one.
    pub(super) fn stream_seen(&mut self, seen: Result<StreamSeen, StreamError>) {
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                self.stream.state = State::Unusable(error.to_string());
                self.stream.is_read = false;
                return;
            }
        };
        let differences: Vec<String> =
            stream_differences(&seen.config).iter().map(Difference::to_string).collect();
        if !differences.is_empty() {
            let why = format!(
                "the stream does not have the log's settings and is not written to: {}",
                differences.join("; ")
            );
            if self.stream.trouble().as_ref() != Some(&why) {
                warn!(%why, "stream refused");
            }
            self.stream.state = State::Unusable(why);
            self.stream.is_read = false;
            return;
        }
        for log in self.logs.values_mut().filter(|log| log.read_to > seen.last) {
            log.read_to = 0;
        }
        let began = seen.first > 1 && seen.last > 0;
        self.stream.blemish =
            began.then(|| format!("the stream begins at message {}: earlier messages are gone", seen.first));
        let lost_its_beginning = began && seen.first > self.stream.first;
        self.stream.first = seen.first;
        if self.stream.mark.is_some() && (!seen.has_mark || lost_its_beginning) {
            warn!(
                "the stream was replaced or is shorter than before: reading it again and restoring what it lacks"
            );
            self.stream.mark = None;
            self.stream.is_read = false;
            for log in self.logs.values_mut() {
                (log.last, log.have, log.read_to) = (Some(0), 0, 0);
                (log.doubted, log.reread_to, log.full_until) = (None, 0, 0);
            }
            self.shelf.doubt_stream();
        }
        if self.stream.state != State::Usable {
            self.stream.state = State::Usable;
            self.stream.is_read = false;
        }
        self.plan(Work::Read);
    }

    pub(super) fn read_on(&mut self) {
        self.remember_mark();
        self.read_stream(None, self.stream.read_to());
    }

    /// Reads one log further than the stream: what others put on other subjects, and how much of it, must not delay it.
    pub(super) fn read_log(&mut self, id: CeremonyId, after: u64) {
        self.read_stream(Some(id), after);
    }

    fn read_stream(&mut self, of: Option<CeremonyId>, after: u64) {
        if self.stream.state == State::Usable {
            self.writer = Writer::Reading(of.clone());
            self.effect(Effect::ReadStream { of, after });
        }
    }

    /// Up to which message everything on a ceremony's subject was read.
    pub(super) fn log_read_to(&self, id: &CeremonyId) -> u64 {
        self.stream.read_to().max(self.logs.get(id).map_or(0, |log| log.read_to))
    }

    pub(super) fn plan_log(&mut self, id: &CeremonyId) {
        self.plan(Work::ReadLog(id.clone(), self.log_read_to(id)));
    }

    pub(super) fn plan_log_first(&mut self, id: &CeremonyId) {
        self.plan_first(Work::ReadLog(id.clone(), self.log_read_to(id)));
    }

    pub(super) fn stream_read(&mut self, read: Result<Vec<StreamEntry>, StreamError>) {
        let of = match std::mem::replace(&mut self.writer, Writer::Idle) {
            Writer::Reading(of) => of,
            other @ (Writer::Idle
            | Writer::Recalling(_)
            | Writer::Appending(..)
            | Writer::Restoring(..)
            | Writer::Storing { .. }) => {
                self.writer = other;
                return;
            }
        };
        match read {
            Ok(batch) => match (batch.last().map(StreamEntry::mark), of) {
                (Some(mark), Some(id)) => {
                    if let Some(log) = self.logs.get_mut(&id) {
                        log.read_to = log.read_to.max(mark.seq);
                    }
                    self.plan_first(Work::ReadLog(id, mark.seq));
                    self.take_batch(batch);
                }
                (Some(mark), None) => {
                    self.stream.mark = Some(mark);
                    // Once it was read to its end, what is to be appended does not wait until nobody writes any more.
                    if self.stream.is_read {
                        self.plan(Work::Read);
                    } else {
                        self.plan_first(Work::Read);
                    }
                    self.take_batch(batch);
                }
                (None, Some(_)) => {}
                (None, None) => self.read_to_the_end(),
            },
            Err(error) => {
                self.stream.failed(&error);
                warn!(%error, "stream not read");
            }
        }
    }

    fn take_batch(&mut self, batch: Vec<StreamEntry>) {
        for entry in batch.into_iter().rev() {
            self.plan_first(Work::Streamed(entry));
        }
    }

    fn read_to_the_end(&mut self) {
        if !self.stream.is_read {
            self.stream.is_read = true;
            self.append_again();
        }
        self.remember_mark();
    }

    /// Has the store keep how far the stream was read, from time to time; everything up to there has been taken.
    fn remember_mark(&mut self) {
        let (stored, at) = self.stream.stored;
        let old = self.now.steady.saturating_sub(at) >= MARK_MS;
        if let Some(mark) = self.stream.mark.filter(|mark| Some(*mark) != stored && old) {
            self.stream.stored = (Some(mark), self.now.steady);
            self.store(StoreOp::ReadTo(mark), Waiting::Nothing("remember how far the stream was read"));
        }
    }

    /// Ceremonies in the order in which their logs rest on each other: charters in their order, each amendment last under
    /// the charter that it amends, generations in theirs.
    pub(super) fn in_order(&self, mut ids: Vec<CeremonyId>) -> Vec<CeremonyId> {
        let mut charters = vec![self.book.first().charter().hash()];
        charters.extend(
            self.book
                .amendments()
                .filter_map(|chapter| Some(chapter.ceremony.manifest().amendment()?.hash())),
        );
        let place = |manifest: &Manifest| {
            let charter = charters.iter().position(|charter| *charter == manifest.charter);
            (charter.unwrap_or(charters.len()), manifest.amendment().is_some())
        };
        ids.sort_by_cached_key(|id| {
            let manifest = self.book.get(id).map(|chapter| chapter.ceremony.manifest());
            (manifest.map(place), self.book.origins(id).len())
        });
        ids
    }
}
