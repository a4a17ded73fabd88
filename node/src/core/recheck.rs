//! Whether the stream still has what was read from it: one log after another is read once more, for ever.
//!
//! A broker may lose a message in the middle, or show one that it does not keep. Nobody would notice before somebody
//! reads the stream from its beginning, and that may be the day on which every store is lost.

use std::collections::BTreeMap;

use ceremonies::ids::{CeremonyId, Hash};
use ceremonies::log::Entry;
use ceremonies::record::Tip;
use tracing::warn;

use super::record::place_before;
use super::{Core, Effect, StreamEntry, StreamError};

/// The most messages of one log that are read: far more than a stream may have of it. From a part nothing is concluded.
const MAX_READ: usize = 16 * 1024;

/// A log that is being read once more.
#[derive(Debug)]
struct Reading {
    ceremony: CeremonyId,
    /// How many of its entries the stream had when this began, where it is in memory.
    have: u64,
    /// How many messages were read.
    read: usize,
    /// Every entry that was found, and the place that it follows.
    found: BTreeMap<Hash, Tip>,
}

/// Which log was read last, and which is being read.
#[derive(Debug, Default)]
pub(super) struct Recheck {
    reading: Option<Reading>,
    last: Option<CeremonyId>,
    began_at: u64,
}

impl Core {
    /// Begins with the next log, once what was read before has been judged.
    pub(super) fn recheck(&mut self) {
        let now = self.now.steady;
        let is_due = now.saturating_sub(self.recheck.began_at) >= self.pace.recheck_ms;
        if !is_due || self.recheck.reading.is_some() || !self.stream.is_read() {
            return;
        }
        let last = self.recheck.last.as_ref();
        let Some(ceremony) = self.next_in_stream(last).or_else(|| self.next_in_stream(None)) else { return };
        let have = self.logs.get(&ceremony).map_or(0, |log| log.have);
        self.recheck.began_at = now;
        self.recheck.reading =
            Some(Reading { ceremony: ceremony.clone(), have, read: 0, found: BTreeMap::new() });
        self.effect(Effect::ReadLog { ceremony, after: 0 });
    }

    /// The log after this one of which the stream should have entries.
    fn next_in_stream(&self, last: Option<&CeremonyId>) -> Option<CeremonyId> {
        let follows = |id: &CeremonyId| last.is_none_or(|last| id > last);
        let log = self.logs.iter().find(|(id, log)| follows(id) && log.have > 0).map(|(id, _)| id);
        let line = self.shelf.next_complete(last);
        log.into_iter().chain(line).min().cloned()
    }

    /// What follows in the log that is being read, or its end.
    pub(super) fn log_read(&mut self, read: Result<Vec<StreamEntry>, StreamError>) {
        let Some(mut reading) = self.recheck.reading.take() else { return };
        let Ok(batch) = read else {
            // What is wrong with the broker is found out by whoever looks at the stream. The others must not wait for this one.
            self.recheck.last = Some(reading.ceremony);
            return;
        };
        let Some(after) = batch.last().map(|message| message.seq) else { return self.judge(reading) };
        let entries = batch.iter().filter_map(|message| Entry::decode(&message.payload).ok());
        let entries = entries.filter(|entry| entry.ceremony == reading.ceremony);
        reading.found.extend(entries.map(|entry| (entry.hash(), place_before(&entry))));
        reading.read += batch.len();
        if reading.read > MAX_READ {
            self.recheck.last = Some(reading.ceremony);
            return;
        }
        self.effect(Effect::ReadLog { ceremony: reading.ceremony.clone(), after });
        self.recheck.reading = Some(reading);
    }

    fn judge(&mut self, reading: Reading) {
        let Reading { ceremony, have, found, .. } = reading;
        if let Some(line) = self.shelf.get(&ceremony) {
            let follows = |tip: &Tip| found.get(&tip.hash).copied();
            let first = std::iter::successors(Some(line.tip()), follows).last();
            if first != Some(Tip::ROOT) {
                // The line does not tell which entry is missing: the log comes back, and is read again.
                return self.recall(&ceremony, None);
            }
        } else if let Some((chapter, log)) = self.book.get(&ceremony).zip(self.logs.get_mut(&ceremony)) {
            let kept = chapter.entries.iter().take_while(|entry| found.contains_key(&entry.hash()));
            let kept = u64::try_from(kept.count()).unwrap_or(u64::MAX);
            if kept < have.min(log.have) {
                warn!(%ceremony, seq = kept + 1, "the stream has lost an entry that was read from it: restoring it");
                (log.have, log.last) = (kept, None);
            }
        }
        self.recheck.last = Some(ceremony);
    }
}
