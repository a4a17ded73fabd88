//! What must hold, whatever one host and the broker do.

use std::collections::{BTreeMap, BTreeSet};

use ceremonies::book::{Book, Examined, MAX_AHEAD_MS};
use ceremonies::ceremony::{Head, Phase};
use ceremonies::ids::{CeremonyId, Hash};
use ceremonies::log::{Entry, Place};
use ceremonies::record::{HOSTILE, Lock, SignedHead, Tip, quorum};
use ceremonies::wire::{bus, log, record};
use node::core::Remembered;
use prost::Message as _;

use super::charter::{CONTEXT, NODES, node, node_key, place};
use super::world::{Slip, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Property {
    /// What heads call recorded stays, at its place, in every honest log.
    Receipts,
    /// What an honest node accepted is in the record, or the fold refuses it.
    Loss,
    /// Honest nodes that can talk have the same logs.
    Forks,
    /// What all honest nodes have is recorded, whatever heads a console is shown.
    Recorded,
    /// A stream that must not be used is not written to, and one that has lost something is given it back.
    Stream,
    /// Whatever is in a store, the node starts, with what it had.
    Start,
}

/// What occurred in schedules: one in which nothing happens shows nothing.
#[derive(Debug, Default)]
pub(super) struct Tally {
    entries: usize,
    recorded: u64,
    closed: usize,
    amended: usize,
    switches: usize,
    shelved: usize,
    recalled: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.recorded += other.recorded;
        self.closed += other.closed;
        self.amended += other.amended;
        self.switches += other.switches;
        self.shelved += other.shelved;
        self.recalled += other.recalled;
    }
}

/// What heads have ever said.
#[derive(Default)]
pub(super) struct Ledger {
    /// The locks that honest nodes have ever shown.
    locks: BTreeMap<(CeremonyId, u32), BTreeMap<usize, BTreeSet<Tip>>>,
    /// The last entries that somebody who picked the heads they like could call recorded.
    receipts: BTreeMap<CeremonyId, BTreeSet<Tip>>,
    /// The lock that each honest node has shown last, and those of the hostile host that honest nodes passed on.
    shown: BTreeMap<(CeremonyId, usize), BTreeSet<Lock>>,
    /// Which entry stands before which.
    before: BTreeMap<Hash, Tip>,
}

impl Ledger {
    /// The entries of a branch from the first on; none where they are not known.
    pub(super) fn line(&self, tip: Tip) -> Option<Vec<Tip>> {
        let mut line = Vec::new();
        let mut here = tip;
        while here.seq > 0 {
            line.push(here);
            here = *self.before.get(&here.hash)?;
        }
        line.reverse();
        Some(line)
    }

    fn shared(one: &[Tip], other: &[Tip]) -> usize {
        one.iter().zip(other).take_while(|(a, b)| a == b).count()
    }
}

fn tip_of(entry: &Entry) -> Tip {
    Tip { seq: entry.seq, hash: entry.hash() }
}

impl World {
    pub(super) fn breaks(&self, property: Property, finding: impl FnOnce() -> String) {
        if self.only.is_none_or(|only| only == property) {
            let finding = finding();
            self.note(|| format!("BROKEN {property:?}: {finding}"));
            panic!("{property:?}: {finding}");
        }
    }

    /// Takes note of what an honest node says in public.
    pub(super) fn note_heads(&mut self, from: usize, subject: &str, payload: &[u8]) {
        let heads: Vec<record::Head> = match subject.split('.').next() {
            Some("head") => {
                let news = record::News::decode(payload).unwrap();
                news.heads.into_iter().filter_map(|news| news.head).collect()
            }
            Some("record") => match record::ToPeer::decode(payload).unwrap().kind {
                Some(record::to_peer::Kind::Entries(entries)) => {
                    entries.head.and_then(|news| news.head).into_iter().collect()
                }
                Some(record::to_peer::Kind::List(news)) => {
                    news.heads.into_iter().filter_map(|news| news.head).collect()
                }
                _ => Vec::new(),
            },
            Some("console") => {
                let body = record::Said::decode(payload).unwrap().body;
                let reply = bus::ReadReply::decode(body.as_slice()).unwrap_or_default();
                reply.heads.into_iter().filter_map(|news| news.head).collect()
            }
            _ => Vec::new(),
        };
        for head in heads.into_iter().filter_map(|raw| SignedHead::from_wire(raw).ok()) {
            let author = place(head.node);
            if author == from || author == self.hostile {
                let shown = self.ledger.shown.entry((head.ceremony.clone(), author)).or_default();
                if author == from {
                    shown.clear();
                }
                shown.extend(head.lock);
            }
            if author == from {
                self.note_head(from, &head);
            }
        }
    }

    fn note_head(&mut self, from: usize, head: &SignedHead) {
        let mut before = Tip::ROOT;
        for entry in self.log_of(from, &head.ceremony) {
            self.ledger.before.entry(entry.hash()).or_insert(before);
            before = tip_of(&entry);
        }
        let counted = if self.slip == Some(Slip::CountsVotes) {
            head.votes.then_some((head.round, head.tip))
        } else {
            head.lock.map(|lock| (lock.round, lock.tip))
        };
        let Some((round, tip)) = counted else { return };
        let key = (head.ceremony.clone(), round);
        if !self.ledger.locks.entry(key.clone()).or_default().entry(from).or_default().insert(tip) {
            return;
        }
        let Some(line) = self.ledger.line(tip) else {
            return self
                .breaks(Property::Receipts, || format!("{} shows a lock that it does not have", node(from)));
        };
        // How many are missing for a quorum when the hostile host says whatever fits.
        let honest = quorum(NODES) - HOSTILE;
        let mut shared: Vec<usize> = self.ledger.locks[&key]
            .values()
            .map(|tips| {
                let lines = tips.iter().filter_map(|tip| self.ledger.line(*tip));
                lines.map(|other| Ledger::shared(&line, &other)).max().unwrap_or_default()
            })
            .collect();
        shared.sort_unstable_by_key(|seq| std::cmp::Reverse(*seq));
        let recorded = shared.get(honest - 1).copied().unwrap_or_default();
        if recorded > 0 {
            self.is_recorded(&head.ceremony, line[recorded - 1], round);
        }
    }

    fn is_recorded(&mut self, ceremony: &CeremonyId, tip: Tip, round: u32) {
        if !self.ledger.receipts.entry(ceremony.clone()).or_default().insert(tip) {
            return;
        }
        self.note(|| {
            format!("recorded in round {round}: {ceremony} {} {:.8}", tip.seq, tip.hash.to_string())
        });
        let line = self.ledger.line(tip).unwrap();
        let others: Vec<Tip> = self.ledger.receipts[ceremony].iter().copied().collect();
        for other in others {
            let theirs = self.ledger.line(other).unwrap();
            if Ledger::shared(&line, &theirs) < line.len().min(theirs.len()) {
                self.breaks(Property::Receipts, || {
                    format!("{ceremony} is recorded up to {tip:?} and up to {other:?}")
                });
            }
        }
    }

    /// A console's own verdict must be among those.
    pub(super) fn console_believes(&mut self, ceremony: &CeremonyId, tip: Tip) {
        let receipts = self.ledger.receipts.get(ceremony).cloned().unwrap_or_default();
        let has = |receipt: &Tip| self.ledger.line(*receipt).is_some_and(|line| line.contains(&tip));
        if !receipts.iter().any(has) {
            self.breaks(Property::Receipts, || format!("a console calls {tip:?} of {ceremony} recorded"));
        }
    }

    pub(super) fn tally(&self) -> Tally {
        let Some(book) = self.whole_book(self.honest()[0]) else { return Tally::default() };
        let logs = || book.iter().map(|(_, chapter)| chapter);
        let last = |tips: &BTreeSet<Tip>| tips.iter().map(|tip| tip.seq).max().unwrap_or_default();
        Tally {
            entries: logs().map(|log| log.entries.len()).sum(),
            recorded: self.ledger.receipts.values().map(last).sum(),
            closed: logs().filter(|log| log.ceremony.phase() == Phase::Closed).count(),
            amended: book.amendments().count(),
            switches: self.switches,
            shelved: self.shelved,
            recalled: self.recalled,
        }
    }

    /// A node's log, wherever it has it.
    pub(super) fn log_of(&self, at: usize, ceremony: &CeremonyId) -> Vec<Entry> {
        let Some(core) = &self.hosts[at].core else { return Vec::new() };
        match core.book().get(ceremony) {
            Some(chapter) => chapter.entries.clone(),
            None if core.shelf().any(|line| line.ceremony == *ceremony) => {
                self.hosts[at].store.log(ceremony).entries
            }
            None => Vec::new(),
        }
    }

    /// A node's book with what is shelved.
    pub(super) fn whole_book(&self, at: usize) -> Option<Book> {
        let core = self.hosts[at].core.as_ref()?;
        let mut book = core.book().clone();
        for line in core.shelf() {
            book.read(&self.hosts[at].store.log(&line.ceremony).entries).unwrap();
        }
        Some(book)
    }

    fn heads_of(&self, at: usize) -> BTreeMap<CeremonyId, Tip> {
        let Some(core) = &self.hosts[at].core else { return BTreeMap::new() };
        let head = |head: Head| Tip { seq: head.seq, hash: head.hash };
        let folded = core.book().iter().map(|(id, chapter)| (id.clone(), head(chapter.ceremony.head())));
        folded.chain(core.shelf().map(|line| (line.ceremony.clone(), head(line.head)))).collect()
    }

    /// Whether all honest nodes have the same logs.
    fn is_of_one_mind(&self) -> bool {
        let honest = self.honest();
        honest.iter().all(|at| self.heads_of(*at) == self.heads_of(honest[0]))
    }

    /// What an honest node accepted and is in no log, although the fold would accept it.
    fn owed(&self) -> Vec<usize> {
        let Some(book) = self.whole_book(self.honest()[0]) else { return Vec::new() };
        let is_owed = |number: &usize| {
            let question = &self.questions[*number];
            question.is_owed && !self.has_ended(&book, &question.ceremony, question.event.as_ref().unwrap())
        };
        (0..self.questions.len()).filter(is_owed).collect()
    }

    fn has_ended(&self, book: &Book, ceremony: &CeremonyId, event: &log::Event) -> bool {
        let chapter = book.get(ceremony);
        let stands = chapter.is_some_and(|chapter| {
            chapter.entries.iter().any(|entry| {
                let body = log::EntryBody::decode(entry.raw().body.as_slice()).unwrap();
                body.event.as_ref() == Some(event)
            })
        });
        if stands {
            return true;
        }
        let now = self.clock(self.honest()[0]);
        let place = Place {
            ceremony: ceremony.clone(),
            seq: chapter.map_or(1, |chapter| chapter.ceremony.head().seq + 1),
            prev: chapter.map_or(Hash::ZERO, |chapter| chapter.ceremony.head().hash),
            time: chapter.map_or(now, |chapter| now.max(chapter.ceremony.head().time)),
            node: node(self.honest()[0]),
        };
        let key = node_key(self.honest()[0]);
        let sign = |bytes: &[u8]| key.sign(bytes).map_err(Box::<dyn std::error::Error>::from);
        let entry = Entry::create(place, event.clone(), sign).unwrap();
        match book.examine(entry) {
            Ok(Examined::New(_)) => false,
            Ok(Examined::Known) | Err(_) => true,
        }
    }

    /// Whether the stream has every entry of every log.
    fn lacks_in_stream(&self) -> Option<(CeremonyId, u64)> {
        let stream = self.streams[self.views[0]].as_ref()?;
        let has: BTreeSet<Hash> = stream
            .messages()
            .filter_map(|(_, bytes)| Entry::decode(bytes).ok())
            .map(|it| it.hash())
            .collect();
        let book = self.whole_book(self.honest()[0])?;
        let entries = book.iter().flat_map(|(_, chapter)| &chapter.entries);
        let lacks = entries.into_iter().find(|entry| !has.contains(&entry.hash()))?;
        Some((lacks.ceremony.clone(), lacks.seq))
    }

    /// A ceremony whose last entry no quorum has locked in one round.
    fn not_recorded(&self) -> Option<CeremonyId> {
        let is_recorded = |(id, tip): &(CeremonyId, Tip)| {
            let lockers = (0..NODES).flat_map(|at| {
                let shown = self.ledger.shown.get(&(id.clone(), at)).into_iter().flatten();
                let locks = shown.filter(|lock| lock.tip == *tip);
                locks.map(|lock| lock.round).collect::<BTreeSet<u32>>()
            });
            let mut rounds: BTreeMap<u32, usize> = BTreeMap::new();
            lockers.for_each(|round| *rounds.entry(round).or_default() += 1);
            rounds.into_values().any(|lockers| lockers >= quorum(NODES))
        };
        let all = self.heads_of(self.honest()[0]);
        all.into_iter().find(|log| !is_recorded(log)).map(|(id, _)| id)
    }

    /// How long, in milliseconds, until no honest clock is too slow for what the logs hold.
    pub(super) fn held_back_for(&self) -> u64 {
        let honest = self.honest();
        let now = honest.iter().map(|at| self.clock(*at)).min().unwrap();
        let books = honest.iter().filter_map(|at| Some(self.hosts[*at].core.as_ref()?.book()));
        let times = books.flat_map(|book| book.iter().map(|(_, chapter)| chapter.ceremony.head().time));
        let ahead = times.max().map_or(0, |last| last.since(now) - MAX_AHEAD_MS);
        u64::try_from(ahead).unwrap_or_default()
    }

    /// Whether nothing is left to be waited for.
    pub(super) fn is_at_rest(&self) -> bool {
        let settled = self.is_of_one_mind() && self.not_recorded().is_none();
        settled && (self.is_without_stream || self.owed().is_empty() && self.lacks_in_stream().is_none())
    }

    /// What must hold in the end.
    pub(super) fn check_end(&mut self) {
        let honest = self.honest();
        self.check_receipts();
        if !self.is_of_one_mind() {
            let heads: Vec<_> = honest.iter().map(|at| (node(*at), self.heads_of(*at))).collect();
            self.breaks(Property::Forks, || format!("honest nodes end with different logs: {heads:#?}"));
        }
        if let Some(id) = self.not_recorded() {
            self.breaks(Property::Recorded, || format!("{id} is never recorded to its end"));
        }
        if !self.is_without_stream {
            if let Some(number) = self.owed().first().copied() {
                let question = &self.questions[number];
                let (at, id) = (node(question.at), question.ceremony.clone());
                let event = question.event.as_ref().and_then(|event| event.kind.clone());
                let what = match event {
                    Some(log::event::Kind::Signed(signed)) => format!("{}'s {}", signed.person, signed.step),
                    Some(log::event::Kind::Withdrawn(withdrawn)) => {
                        format!("{}'s withdrawal", withdrawn.person)
                    }
                    _ => "the opening".to_owned(),
                };
                self.breaks(Property::Loss, || format!("{what} of {id}, question {number} to {at}, is lost"));
            }
            if let Some((id, seq)) = self.lacks_in_stream() {
                self.breaks(Property::Stream, || format!("the stream lacks entry {seq} of {id}"));
            }
        }
        self.check_start();
    }

    fn check_receipts(&mut self) {
        let receipts: Vec<(CeremonyId, Tip)> = self
            .ledger
            .receipts
            .iter()
            .flat_map(|(id, tips)| tips.iter().map(|tip| (id.clone(), *tip)))
            .collect();
        for (id, tip) in receipts {
            for at in self.honest() {
                if !self.log_of(at, &id).iter().any(|entry| tip_of(entry) == tip) {
                    let self_heads = self.log_of(at, &id).len();
                    self.breaks(Property::Receipts, || {
                        format!(
                            "entry {} of {id} was recorded, and {} ends without it: {:?}",
                            tip.seq,
                            node(at),
                            self_heads
                        )
                    });
                }
            }
        }
    }

    /// Every node starts again with what is in its store.
    fn check_start(&mut self) {
        for at in self.honest() {
            let before = self.heads_of(at);
            let mut store = self.hosts[at].store.clone();
            let order = self.start_order();
            let start = || store.start(&CONTEXT, order);
            let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(start));
            let heads = |remembered: &Remembered| -> BTreeMap<CeremonyId, Tip> {
                let head = |head: Head| Tip { seq: head.seq, hash: head.hash };
                let folded = remembered.book.iter().map(|(id, it)| (id.clone(), head(it.ceremony.head())));
                folded
                    .chain(remembered.shelf.iter().map(|line| (line.ceremony.clone(), head(line.head))))
                    .collect()
            };
            match again {
                Ok(remembered) if heads(&remembered) == before => {}
                Ok(remembered) => {
                    let after = heads(&remembered);
                    self.breaks(Property::Start, || {
                        format!("{} had {before:?} and starts with {after:?}", node(at))
                    });
                }
                Err(_) => self.breaks(Property::Start, || format!("{} does not start again", node(at))),
            }
        }
    }
}
