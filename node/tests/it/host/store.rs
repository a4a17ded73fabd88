//! A node's store in memory, by the rules of `node::store`.

use std::collections::{BTreeMap, BTreeSet};

use ceremonies::book::{Book, origin_of, record_in};
use ceremonies::ceremony::Context;
use ceremonies::ids::{CeremonyId, Hash};
use ceremonies::log::Entry;
use ceremonies::manifest::Origin;
use ceremonies::record::Memory;
use ceremonies::wallet::Record;
use node::core::{Mark, Remembered, Shelved, StoreOp, StoreReply, StoredLog};
use node::store::Claim;

use super::shares::Shares;

#[derive(Clone, Default)]
pub(crate) struct Store {
    entries: BTreeMap<CeremonyId, BTreeMap<u64, Entry>>,
    branches: BTreeMap<(CeremonyId, u64, Hash), Entry>,
    ballots: BTreeMap<CeremonyId, Memory>,
    read_to: Option<Mark>,
    shelf: BTreeMap<CeremonyId, Shelved>,
    pub(crate) shares: Shares,
    claims: BTreeSet<String>,
    /// Backups that keepers handed in.
    released: BTreeMap<Hash, (CeremonyId, Vec<u8>)>,
    /// Until when it takes nothing.
    pub(crate) refuses_until: u64,
}

/// How a start orders the logs that it folds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// As they rest on each other.
    Lineage,
    /// By the times that they claim: what a start must not do.
    Clock,
}

impl Store {
    pub(crate) fn perform(&mut self, op: StoreOp) -> Result<StoreReply, String> {
        match op {
            StoreOp::Append(entry) => self.append(entry)?,
            StoreOp::Switch { ceremony, keep, entries, memory } => {
                self.set_rest_aside(&ceremony, keep);
                for entry in entries {
                    self.entries.entry(ceremony.clone()).or_default().entry(entry.seq).or_insert(entry);
                }
                self.ballots.insert(ceremony, memory);
            }
            StoreOp::PutAside(entry) => self.put_aside(entry),
            StoreOp::Remember(ceremony, memory) => {
                self.ballots.insert(ceremony, memory);
            }
            StoreOp::ReadTo(mark) => self.read_to = Some(mark),
            StoreOp::Shelve(line) => {
                self.shelf.insert(line.ceremony.clone(), *line);
            }
            StoreOp::Recall(id) => return Ok(StoreReply::Log(Box::new(self.log(&id)))),
            StoreOp::Probe(_) => return Ok(StoreReply::Held(self.shares.held())),
            StoreOp::DiscardPending(ceremony) => {
                return Ok(StoreReply::Count(self.shares.discard_pending(&ceremony)));
            }
            StoreOp::DeleteBefore(_, generation) => {
                return Ok(StoreReply::Count(self.shares.delete_before(generation)));
            }
            StoreOp::PutPending(share) => {
                return Ok(StoreReply::Share(Some(self.shares.put_pending(share)?)));
            }
            StoreOp::Share(_, _, record) => {
                let share = self.shares.get(&record);
                return Ok(StoreReply::Share(share.map(|share| share.stored.clone())));
            }
            StoreOp::Promote(_, _, record) => self.shares.promote(&record)?,
            StoreOp::ClaimSigning { request, .. } => {
                let is_new = self.claims.insert(request);
                return Ok(StoreReply::Claim(if is_new { Claim::New } else { Claim::Used }));
            }
            StoreOp::KeepReleased(ceremony, object) => {
                self.released.entry(Hash::of_bytes(&object)).or_insert((ceremony, object));
            }
            StoreOp::Released(digest) => {
                let object = self.released.get(&digest).map(|(_, object)| object.clone());
                return Ok(StoreReply::Object(object));
            }
            StoreOp::DropReleased(id) => self.released.retain(|_, (ceremony, _)| *ceremony != id),
            // No core asks for them again.
            StoreOp::RecordBan { .. } | StoreOp::KeepEvidence(..) => {}
        }
        Ok(StoreReply::Done)
    }

    fn append(&mut self, entry: Entry) -> Result<(), String> {
        let log = self.entries.entry(entry.ceremony.clone()).or_default();
        let hash = entry.hash();
        let stored = log.entry(entry.seq).or_insert(entry);
        if stored.hash() == hash {
            return Ok(());
        }
        Err(format!("the log forks at entry {}: {} is stored, {hash} is offered", stored.seq, stored.hash()))
    }

    fn put_aside(&mut self, entry: Entry) {
        self.branches.insert((entry.ceremony.clone(), entry.seq, entry.hash()), entry);
    }

    fn set_rest_aside(&mut self, ceremony: &CeremonyId, keep: u64) {
        let rest = self.entries.get_mut(ceremony).map(|log| log.split_off(&(keep + 1))).unwrap_or_default();
        for entry in rest.into_values() {
            self.put_aside(entry);
        }
    }

    pub(crate) fn log(&self, id: &CeremonyId) -> StoredLog {
        let entries: Vec<Entry> =
            self.entries.get(id).map(|log| log.values().cloned().collect()).unwrap_or_default();
        StoredLog {
            record: self.record_before(&entries),
            entries,
            memory: self.ballots.get(id).cloned().unwrap_or_default(),
            aside: self.branches.values().filter(|entry| entry.ceremony == *id).cloned().collect(),
        }
    }

    pub(crate) fn record_before(&self, log: &[Entry]) -> Option<Record> {
        let Origin { ceremony, record } = origin_of(log)?;
        let made: Vec<Entry> = self.entries.get(ceremony)?.values().cloned().collect();
        record_in(&made, record)
    }

    /// Whether log and ballot still are where a line says.
    fn counts(&self, line: &Shelved) -> bool {
        let last = self.entries.get(&line.ceremony).and_then(|log| log.values().next_back());
        let ballot = self.ballots.get(&line.ceremony);
        last.is_some_and(|last| (last.seq, last.hash()) == (line.head.seq, line.head.hash))
            && ballot.is_some_and(|ballot| {
                let lock_round = ballot.lock.map(|lock| lock.round);
                (ballot.round, lock_round, ballot.undecided) == (line.round, Some(line.lock_round), false)
            })
    }

    /// Where every log ends.
    pub(crate) fn tips(&self) -> BTreeMap<CeremonyId, (u64, Hash)> {
        let tip = |log: &BTreeMap<u64, Entry>| log.values().next_back().map(|last| (last.seq, last.hash()));
        self.entries.iter().filter_map(|(id, log)| Some((id.clone(), tip(log)?))).collect()
    }

    /// The book of all its logs, also of those that are shelved.
    pub(crate) fn fold(&self, context: &Context) -> Book {
        let (book, aside) =
            Book::gather(context.clone(), self.entries.values().map(|log| log.values().cloned().collect()));
        assert!(aside.is_empty(), "a node's own copy does not fold: {aside:?}");
        book
    }

    /// What an agent starts with, as `node::shell` reads it.
    pub(crate) fn start(&mut self, context: &Context, order: Order) -> Remembered {
        let lines = std::mem::take(&mut self.shelf);
        self.shelf = lines.into_iter().filter(|(_, line)| self.counts(line)).collect();
        let mut logs: Vec<Vec<Entry>> = self
            .entries
            .iter()
            .filter(|(id, _)| !self.shelf.contains_key(*id))
            .map(|(_, log)| log.values().cloned().collect())
            .collect();
        let mut book = Book::new(context.clone());
        match order {
            Order::Clock => {
                logs.sort_by_key(|log| log.first().map(|entry| entry.time));
                for entry in logs.into_iter().flatten() {
                    let taken = book.take(entry);
                    taken.unwrap_or_else(|error| panic!("Start: own copy of a log does not fold: {error}"));
                }
            }
            Order::Lineage => {
                for log in &logs {
                    book.know_records(self.record_before(log));
                }
                for log in book.take_logs(logs) {
                    if log.from() > 1 {
                        self.set_rest_aside(&log.ceremony, log.from() - 1);
                    }
                }
            }
        }
        self.shelf.retain(|_, line| !book.is_overdue(&line.charter, line.began));
        let is_shelved = |id: &CeremonyId| self.shelf.contains_key(id);
        let ballots = self.ballots.iter().filter(|(id, _)| !is_shelved(id));
        let aside = self.branches.values().filter(|entry| !is_shelved(&entry.ceremony));
        Remembered {
            book,
            ballots: ballots.map(|(id, memory)| (id.clone(), memory.clone())).collect(),
            aside: aside.cloned().collect(),
            shelf: self.shelf.values().cloned().collect(),
            read_to: self.read_to,
        }
    }
}

impl Store {
    pub(crate) fn forget_branches(&mut self) {
        self.branches.clear();
    }

    pub(crate) fn forget_ballots(&mut self) {
        self.ballots.clear();
    }
}
