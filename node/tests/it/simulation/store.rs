//! A node's store in memory, by the rules of `node::store`.

use std::collections::BTreeMap;

use ceremonies::book::{Book, origin_of, record_in};
use ceremonies::entry::Entry;
use ceremonies::ids::{CeremonyId, Hash};
use ceremonies::manifest::Origin;
use ceremonies::record::Memory;
use ceremonies::wallet::Record;
use node::core::{Mark, Remembered, Shelved, StoreOp, StoreReply, StoredLog};

use super::charter::CONTEXT;
use super::world::Slip;

#[derive(Clone, Default)]
pub(super) struct Store {
    entries: BTreeMap<CeremonyId, BTreeMap<u64, Entry>>,
    branches: BTreeMap<(CeremonyId, u64, Hash), Entry>,
    ballots: BTreeMap<CeremonyId, Memory>,
    read_to: Option<Mark>,
    shelf: BTreeMap<CeremonyId, Shelved>,
    /// Until when it takes nothing.
    pub(super) refuses_until: u64,
}

impl Store {
    pub(super) fn perform(&mut self, op: StoreOp) -> Result<StoreReply, String> {
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
            StoreOp::Probe(_) => return Ok(StoreReply::Held(Vec::new())),
            StoreOp::DiscardPending(_) | StoreOp::DeleteBefore(..) => return Ok(StoreReply::Count(0)),
            StoreOp::KeepReleased(..)
            | StoreOp::DropReleased(_)
            | StoreOp::RecordBan { .. }
            | StoreOp::KeepEvidence(..) => {}
            StoreOp::Released(_) => return Ok(StoreReply::Object(None)),
            StoreOp::Share(..) => return Ok(StoreReply::Share(None)),
            StoreOp::PutPending(_) | StoreOp::Promote(..) | StoreOp::ClaimSigning { .. } => {
                return Err("no enclave takes part".to_owned());
            }
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

    pub(super) fn log(&self, id: &CeremonyId) -> StoredLog {
        let entries: Vec<Entry> =
            self.entries.get(id).map(|log| log.values().cloned().collect()).unwrap_or_default();
        StoredLog {
            record: self.record_before(&entries),
            entries,
            memory: self.ballots.get(id).cloned().unwrap_or_default(),
            aside: self.branches.values().filter(|entry| entry.ceremony == *id).cloned().collect(),
        }
    }

    fn record_before(&self, log: &[Entry]) -> Option<Record> {
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

    /// What an agent starts with, as `node::shell` reads it.
    pub(super) fn start(&mut self, slip: Option<Slip>) -> Remembered {
        let lines = std::mem::take(&mut self.shelf);
        self.shelf = lines.into_iter().filter(|(_, line)| self.counts(line)).collect();
        let logs: Vec<Vec<Entry>> = self
            .entries
            .iter()
            .filter(|(id, _)| !self.shelf.contains_key(*id))
            .map(|(_, log)| log.values().cloned().collect())
            .collect();
        let book = if slip == Some(Slip::StartsByTheClock) {
            let mut logs = logs;
            logs.sort_by_key(|log| log.first().map(|entry| entry.time));
            let mut book = Book::new(CONTEXT.clone());
            for entry in logs.into_iter().flatten() {
                let taken = book.take(entry);
                taken.unwrap_or_else(|error| panic!("Start: own copy of a log does not fold: {error}"));
            }
            book
        } else {
            let mut book = Book::new(CONTEXT.clone());
            for log in &logs {
                book.know_records(self.record_before(log));
            }
            for log in book.take_logs(logs) {
                if log.from() > 1 {
                    self.set_rest_aside(&log.ceremony, log.from() - 1);
                }
            }
            book
        };
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
    pub(super) fn forget_branches(&mut self) {
        self.branches.clear();
    }

    pub(super) fn forget_ballots(&mut self) {
        self.ballots.clear();
    }
}
