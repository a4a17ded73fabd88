//! A book from whole logs, in whatever order they come.
//!
//! A log is folded after those that it rests on: the amendments that led to its charter, and the ceremony that made the
//! wallet it works on. No claimed time orders anything here. A log that does not fold must never keep the rest from
//! folding: it is set aside, with the reason.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use thiserror::Error;

use super::{Book, Chapter, NotTaken, Taken};
use crate::ceremony::{Ceremony, Context, Rejection};
use crate::ids::{CeremonyId, Hash};
use crate::kinds::Carries;
use crate::log::{Entry, Event};
use crate::manifest::Manifest;
use crate::text::{chain, one_line};

/// A log, or the rest of one, that is not in the book.
#[derive(Debug)]
pub struct SetAside {
    /// Which ceremony's.
    pub ceremony: CeremonyId,
    /// The entry that does not fold, and those behind it.
    pub entries: Vec<Entry>,
    /// Why it does not.
    pub why: WhySetAside,
}

impl SetAside {
    /// The number of the first entry that is not in the book.
    #[must_use]
    pub fn from(&self) -> u64 {
        self.entries.first().map_or(1, |entry| entry.seq)
    }
}

/// What does not fold, and why, for a list of ceremonies.
impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = one_line(&chain(&self.why));
        match self.from() {
            1 => write!(f, "does not fold: {why}"),
            from => write!(f, "does not fold from entry {from} on: {why}"),
        }
    }
}

/// Why a log is set aside.
#[derive(Debug, Error)]
pub enum WhySetAside {
    /// An entry is refused, missing, or in another's place.
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    /// What it rests on is not there.
    #[error("it rests on {0}, which is unknown")]
    OriginMissing(CeremonyId),
    /// What it rests on does not fold itself, or not as far as it would have to.
    #[error("it rests on {0}, which does not fold")]
    OriginSetAside(CeremonyId),
    /// It rests on itself.
    #[error("it rests on {0}, which rests on it in turn: neither log can come first")]
    Circular(CeremonyId),
}

type Log = Vec<Entry>;

/// What was set aside, by ceremony.
#[derive(Default)]
struct Aside(BTreeMap<CeremonyId, Vec<SetAside>>);

impl Aside {
    fn has(&self, id: &CeremonyId) -> bool {
        self.0.contains_key(id)
    }

    fn put(&mut self, new: SetAside) {
        let known = self.0.entry(new.ceremony.clone()).or_default();
        // A shorter copy of the same log says nothing new.
        if !known.iter().any(|known| known.entries.starts_with(&new.entries)) {
            known.push(new);
        }
    }
}

/// The logs that are not amendments, each ceremony waiting for the one that it works on.
#[derive(Default)]
struct Waiting {
    logs: BTreeMap<CeremonyId, Vec<Log>>,
    /// What a ceremony waits for: one other, unless copies of its log contradict each other.
    waits: BTreeMap<CeremonyId, BTreeSet<CeremonyId>>,
    /// Who waits for a ceremony.
    waited_for: BTreeMap<CeremonyId, Vec<CeremonyId>>,
    ready: Vec<CeremonyId>,
}

impl Waiting {
    fn new(logs: BTreeMap<CeremonyId, Vec<Log>>) -> Self {
        let mut waiting = Self { logs, ..Self::default() };
        for (id, copies) in &waiting.logs {
            let origins = copies.iter().filter_map(|log| origin(log.first()?));
            let here: BTreeSet<_> =
                origins.filter(|origin| waiting.logs.contains_key(*origin)).cloned().collect();
            if here.is_empty() {
                waiting.ready.push(id.clone());
            } else {
                for origin in &here {
                    waiting.waited_for.entry(origin.clone()).or_default().push(id.clone());
                }
                waiting.waits.insert(id.clone(), here);
            }
        }
        waiting
    }

    /// The next ceremony that waits for nothing; if all wait, one of those that wait for each other.
    fn next(&mut self) -> Option<(CeremonyId, Vec<Log>)> {
        let id = self.ready.pop().or_else(|| self.on_a_circle())?;
        self.waits.remove(&id);
        self.logs.remove_entry(&id)
    }

    fn on_a_circle(&self) -> Option<CeremonyId> {
        let mut at = self.waits.keys().next()?;
        let mut seen = BTreeSet::new();
        while seen.insert(at) {
            at = self.waits.get(at)?.first()?;
        }
        Some(at.clone())
    }

    fn done(&mut self, id: &CeremonyId) {
        for next in self.waited_for.remove(id).unwrap_or_default() {
            let Some(waits) = self.waits.get_mut(&next) else { continue };
            waits.remove(id);
            if waits.is_empty() {
                self.waits.remove(&next);
                self.ready.push(next);
            }
        }
    }
}

/// The state of a log among those that are gathered together.
fn place(log: &Log) -> (Option<(&CeremonyId, u64)>, Reverse<usize>) {
    (log.first().map(|first| (&first.ceremony, first.seq)), Reverse(log.len()))
}

fn opening(first: &Entry) -> Option<&Manifest> {
    let Event::Opened { manifest, .. } = &first.event else { return None };
    Some(manifest)
}

fn origin(first: &Entry) -> Option<&CeremonyId> {
    Some(&opening(first)?.origin.as_ref()?.ceremony)
}

impl Book {
    /// A book of everything in these logs that folds, and what does not. The order in which they are given makes no
    /// difference. The entries of several copies of one log are merged.
    #[must_use]
    pub fn gather(first: Context, logs: impl IntoIterator<Item = Vec<Entry>>) -> (Self, Vec<SetAside>) {
        let mut book = Self::new(first);
        let aside = book.take_logs(logs);
        (book, aside)
    }

    /// Adds everything in these logs that folds, and returns what does not, by ceremony. Known logs may be among them.
    #[must_use]
    pub fn take_logs(&mut self, logs: impl IntoIterator<Item = Vec<Entry>>) -> Vec<SetAside> {
        let mut logs: Vec<Log> = logs.into_iter().filter(|log| !log.is_empty()).collect();
        // From here on, everything is a function of the logs as a set. The longest copy comes first: a bad one gives
        // way to the others from its first bad entry on.
        logs.sort_by(|a, b| {
            let hashes = |log: &Log| log.iter().map(Entry::hash).collect::<Vec<_>>();
            place(a).cmp(&place(b)).then_with(|| hashes(a).cmp(&hashes(b)))
        });
        logs.dedup();
        let mut amending: BTreeMap<Hash, Vec<Log>> = BTreeMap::new();
        let mut others: BTreeMap<CeremonyId, Vec<Log>> = BTreeMap::new();
        for log in logs {
            let Some(first) = log.first() else { continue };
            match self.amends(first) {
                Some(charter) => amending.entry(charter).or_default().push(log),
                None => others.entry(first.ceremony.clone()).or_default().push(log),
            }
        }
        let mut aside = Aside::default();
        self.take_amendments(amending, &mut aside);
        self.take_others(Waiting::new(others), &mut aside);
        aside.0.into_values().flatten().collect()
    }

    /// The charter that a log amends, if it does.
    fn amends(&self, first: &Entry) -> Option<Hash> {
        let known = || self.get(&first.ceremony).map(|chapter| chapter.ceremony.manifest());
        let manifest = opening(first).or_else(known)?;
        (manifest.kind.rules().special.carries == Carries::Charter).then_some(manifest.charter)
    }

    /// All that amend one charter, before any that amends the next.
    fn take_amendments(&mut self, mut amending: BTreeMap<Hash, Vec<Log>>, aside: &mut Aside) {
        let none = BTreeMap::new();
        let hashes = |book: &Self, amending: &BTreeMap<Hash, Vec<Log>>| {
            book.contexts().rev().map(|known| known.charter().hash()).find(|hash| amending.contains_key(hash))
        };
        while let Some(charter) = hashes(self, &amending) {
            for log in amending.remove(&charter).unwrap_or_default() {
                self.take_log(log, &none, aside);
            }
        }
        // Those of charters that never were in force: the fold says so.
        for log in amending.into_values().flatten() {
            self.take_log(log, &none, aside);
        }
    }

    fn take_others(&mut self, mut waiting: Waiting, aside: &mut Aside) {
        while let Some((id, logs)) = waiting.next() {
            for log in logs {
                self.take_log(log, &waiting.logs, aside);
            }
            waiting.done(&id);
        }
    }

    /// Adds what folds of a log and sets the rest aside; `open` are those that have not had their turn.
    fn take_log(&mut self, log: Log, open: &BTreeMap<CeremonyId, Vec<Log>>, aside: &mut Aside) {
        let Some(id) = log.first().map(|first| first.ceremony.clone()) else { return };
        let mut chapter = self.chapters.remove(&id);
        let was_known = chapter.is_some();
        let amended = |chapter: &Option<Chapter>| {
            chapter.as_ref().is_some_and(|chapter| chapter.ceremony.amended().is_some())
        };
        let had_amended = amended(&chapter);
        let mut backs_up = false;
        let mut entries = log.into_iter();
        while let Some(entry) = entries.next() {
            let taken = match &mut chapter {
                Some(chapter) => extend(chapter, &id, &entry),
                None => self.begin(&entry).map(|begun| chapter = Some(begun)),
            };
            if let Err(refused) = taken {
                let why = self.why(&entry, refused, open, aside);
                let entries = std::iter::once(entry).chain(entries).collect();
                aside.put(SetAside { ceremony: id.clone(), entries, why });
                break;
            }
            backs_up |= matches!(entry.event, Event::BackedUp(_));
        }
        let amends = !had_amended && amended(&chapter);
        self.chapters.extend(chapter.map(|chapter| (id.clone(), chapter)));
        // Nothing rests on what was not known.
        if backs_up && was_known {
            self.tell_of_backups(&id);
        }
        if amends {
            for overdue in self.follow_amendments() {
                aside.put(overdue);
            }
        }
    }

    fn begin(&self, first: &Entry) -> Result<Chapter, NotTaken> {
        if first.seq != 1 {
            return Err(NotTaken::Gap { ceremony: first.ceremony.clone(), got: first.seq, expected: 1 });
        }
        let ceremony =
            Ceremony::open(self.context_of(first), first).map_err(|source| rejected(first, source))?;
        Ok(Chapter { entries: vec![first.clone()], ceremony })
    }

    fn why(
        &self,
        entry: &Entry,
        refused: NotTaken,
        open: &BTreeMap<CeremonyId, Vec<Log>>,
        aside: &Aside,
    ) -> WhySetAside {
        let no_wallet = matches!(
            &refused,
            NotTaken::Rejected { source, .. } if matches!(**source, Rejection::Wallet)
        );
        match origin(entry).filter(|_| no_wallet) {
            Some(origin) if aside.has(origin) => WhySetAside::OriginSetAside(origin.clone()),
            Some(origin) if self.get(origin).is_some() => WhySetAside::NotTaken(refused),
            Some(origin) if *origin == entry.ceremony || open.contains_key(origin) => {
                WhySetAside::Circular(origin.clone())
            }
            Some(origin) => WhySetAside::OriginMissing(origin.clone()),
            None => WhySetAside::NotTaken(refused),
        }
    }

    /// Takes out the ceremonies that were opened under a charter too long after another came into force, and those that
    /// rest on them, since they would be refused if they arrived now.
    pub(super) fn take_out_overdue(&mut self) -> Vec<SetAside> {
        let is_overdue = |chapter: &Chapter| {
            let (charter, opened) = (chapter.ceremony.charter().hash(), chapter.entries.first());
            opened.is_some_and(|first| self.is_overdue(&charter, first.time))
        };
        let overdue = self.chapters.iter().filter(|(_, chapter)| is_overdue(chapter));
        let mut out: Vec<CeremonyId> = overdue.map(|(id, _)| id.clone()).collect();
        let mut aside = Aside::default();
        while let Some(id) = out.pop() {
            let Some(Chapter { entries, .. }) = self.chapters.remove(&id) else { continue };
            let rests_on_it = self.chapters.iter().filter(|(_, chapter)| {
                let origin = &chapter.ceremony.manifest().origin;
                origin.as_ref().is_some_and(|origin| origin.ceremony == id)
            });
            out.extend(rests_on_it.map(|(id, _)| id.clone()));
            let refused = entries.first().and_then(|first| Some((first, self.begin(first).err()?)));
            if let Some((first, refused)) = refused {
                let why = self.why(first, refused, &BTreeMap::new(), &aside);
                aside.put(SetAside { ceremony: id, entries, why });
            }
        }
        aside.0.into_values().flatten().collect()
    }
}

fn rejected(entry: &Entry, source: Rejection) -> NotTaken {
    NotTaken::Rejected { ceremony: entry.ceremony.clone(), seq: entry.seq, source: Box::new(source) }
}

/// Adds an entry to a chapter, unless it is there.
fn extend(chapter: &mut Chapter, id: &CeremonyId, entry: &Entry) -> Result<(), NotTaken> {
    if entry.ceremony == *id && chapter.place(entry)? == Taken::Known {
        return Ok(());
    }
    chapter.ceremony.apply(entry).map_err(|source| rejected(entry, source))?;
    chapter.entries.push(entry.clone());
    Ok(())
}
