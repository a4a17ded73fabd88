//! A stream of the broker, by the rules of JetStream.

use std::collections::BTreeMap;

use ceremonies::deploy::broker::stream_config;
use ceremonies::ids::CeremonyId;
use node::core::{Mark, StreamEntry, StreamError, StreamSeen};
use serde_json::{Value, json};

/// Messages in one batch.
const BATCH: usize = 16;

#[derive(Clone)]
pub(crate) struct Stream {
    pub(crate) config: Value,
    first: u64,
    last: u64,
    messages: BTreeMap<u64, (Option<CeremonyId>, Vec<u8>)>,
}

impl Stream {
    pub(crate) fn new() -> Self {
        Self { config: stream_config(1), first: 1, last: 0, messages: BTreeMap::new() }
    }

    /// The same with a setting that loses messages.
    pub(crate) fn foreign() -> Self {
        let mut stream = Self::new();
        stream.config["storage"] = json!("memory");
        stream
    }

    fn last_of(&self, ceremony: &CeremonyId) -> u64 {
        let mut of = self.messages.iter().rev().filter(|(_, (id, _))| id.as_ref() == Some(ceremony));
        of.next().map_or(0, |(seq, _)| *seq)
    }

    /// Takes a message on any subject, whatever it says.
    pub(crate) fn put(&mut self, ceremony: Option<CeremonyId>, bytes: Vec<u8>) -> u64 {
        self.last += 1;
        self.messages.insert(self.last, (ceremony, bytes));
        self.last
    }

    pub(crate) fn shorten(&mut self, tail: u64) {
        self.last = self.last.saturating_sub(tail).max(self.first - 1);
        self.messages.split_off(&(self.last + 1));
    }

    pub(crate) fn lose_head(&mut self, head: u64) {
        self.first = (self.first + head).min(self.last + 1);
        self.messages = self.messages.split_off(&self.first);
    }

    pub(crate) fn lose_one(&mut self, seq: u64) {
        self.messages.remove(&seq);
    }

    pub(crate) fn lose_all_of(&mut self, bytes: &[u8]) {
        self.messages.retain(|_, (_, payload)| payload != bytes);
    }

    pub(crate) fn len(&self) -> u64 {
        self.last
    }

    pub(crate) fn messages(&self) -> impl Iterator<Item = (&Option<CeremonyId>, &[u8])> {
        self.messages.values().map(|(id, bytes)| (id, bytes.as_slice()))
    }

    fn entry(&self, seq: u64) -> Option<StreamEntry> {
        let (ceremony, payload) = self.messages.get(&seq)?.clone();
        Some(StreamEntry { ceremony, seq, payload })
    }

    pub(crate) fn seen(&self, mark: Option<Mark>) -> StreamSeen {
        StreamSeen {
            config: self.config.clone(),
            first: self.first,
            last: self.last,
            has_mark: mark.is_none_or(|mark| self.entry(mark.seq).is_some_and(|entry| entry.mark() == mark)),
        }
    }

    /// What follows of all logs, or of one.
    pub(crate) fn read(&self, ceremony: Option<&CeremonyId>, after: u64) -> Vec<StreamEntry> {
        let Some(from) = after.checked_add(1) else { return Vec::new() };
        let wanted =
            self.messages.range(from..).filter(|(_, (id, _))| ceremony.is_none() || id.as_ref() == ceremony);
        wanted.take(BATCH).filter_map(|(seq, _)| self.entry(*seq)).collect()
    }

    pub(crate) fn append(
        &mut self,
        ceremony: &CeremonyId,
        expected: Option<u64>,
        read_to: u64,
        bytes: Vec<u8>,
    ) -> Result<u64, StreamError> {
        let last = self.last_of(ceremony);
        let expected = expected.unwrap_or(last);
        if expected > read_to || expected != last {
            return Err(StreamError::Conflict);
        }
        Ok(self.put(Some(ceremony.clone()), bytes))
    }
}

pub(crate) fn unavailable() -> StreamError {
    StreamError::Unavailable("no answer within 3 s".to_owned())
}
