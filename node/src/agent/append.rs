//! Appending to the log: fold first, then the stream with the expected sequence, then the own store.

use ceremonies::book::{Examined, NotTaken};
use ceremonies::ceremony::Rejection;
use ceremonies::entry::{Entry, EntryError, Place};
use ceremonies::ids::{CeremonyId, Hash};
use ceremonies::text::chain;
use ceremonies::wire::log;
use prost::Message;
use thiserror::Error;
use tracing::{info, warn};

use super::{Agent, Tail, TakeError, now};
use crate::bus::AppendError;
use crate::store::StoreError;

/// How often an append gives way to entries that other agents appended first. With five agents that all
/// answer one entry at once, the last comes through at the fifth try.
const MAX_TRIES: u32 = 24;

/// Why an event is not in the log.
#[derive(Debug, Error)]
pub(super) enum NotAppended {
    #[error("the event is malformed")]
    Malformed(#[from] EntryError),
    #[error("the entry could not be signed")]
    Signing,
    #[error(transparent)]
    Refused(NotTaken),
    #[error("the log grew faster than this node could append; try again")]
    Contended,
    #[error("the bus did not take it; try again when it is back")]
    Bus(#[from] AppendError),
    #[error("this node's store did not take it; try again when it is back")]
    Store(#[from] StoreError),
}

impl NotAppended {
    /// Whether the same may be taken later.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Contended | Self::Bus(_) | Self::Store(_))
    }

    /// Whether the fold has the same event already, so that nothing is left to do.
    pub(super) fn is_known(&self) -> bool {
        let Self::Refused(NotTaken::Rejected { source, .. }) = self else { return false };
        matches!(
            **source,
            Rejection::SaidAlready(_) | Rejection::AttestedAlready(_) | Rejection::SignedAlready { .. }
        )
    }
}

impl Agent {
    /// Appends an event to a ceremony's log and returns its number.
    pub(super) async fn append(
        &mut self,
        ceremony: &CeremonyId,
        event: log::Event,
    ) -> Result<u64, NotAppended> {
        for _ in 0..MAX_TRIES {
            let entry = self.make_entry(ceremony, event.clone())?;
            let next = match self.book.examine(entry) {
                Ok(Examined::New(next)) => next,
                Ok(Examined::Known) => return Err(NotAppended::Contended),
                // What this node has not read yet may be what makes the event right.
                Err(_) if self.reads_on().await => continue,
                Err(refused) => return Err(NotAppended::Refused(refused)),
            };
            let tail = self.tails.get(ceremony).copied().unwrap_or_default();
            if tail.entry + 1 == next.entry().seq {
                match self.bus.append(ceremony, tail.stream, next.entry().encode()).await {
                    Ok(stream) => {
                        let seq = next.entry().seq;
                        self.store.append_entry(next.entry()).await?;
                        self.commit(*next);
                        self.tails.insert(ceremony.clone(), Tail { stream, entry: seq });
                        return Ok(seq);
                    }
                    Err(AppendError::Conflict) => self.catch_up().await?,
                    Err(error) => return Err(error.into()),
                }
            } else {
                // The stream lost entries that this node has, or has ones this node has not read.
                self.restore_one(ceremony).await;
                self.catch_up().await?;
            }
        }
        Err(NotAppended::Contended)
    }

    /// Appends what is said only once, now or as soon as bus and store take it again.
    pub(super) async fn append_surely(&mut self, ceremony: CeremonyId, kind: log::event::Kind) {
        let said = (ceremony, kind);
        if !self.unsaid.contains(&said) {
            self.unsaid.push_back(said);
        }
        self.say_what_was_not_taken().await;
    }

    /// In the order in which it was said.
    pub(super) async fn say_what_was_not_taken(&mut self) {
        while let Some((ceremony, kind)) = self.unsaid.front().cloned() {
            match self.append(&ceremony, log::Event { kind: Some(kind) }).await {
                Ok(seq) => info!(%ceremony, seq, "appended"),
                Err(error) if error.is_known() => {}
                Err(error) if error.is_passing() => {
                    warn!(%ceremony, error = %chain(&error), "not appended yet");
                    return;
                }
                Err(error) => warn!(%ceremony, error = %chain(&error), "not appended"),
            }
            self.unsaid.pop_front();
        }
    }

    fn make_entry(&self, ceremony: &CeremonyId, event: log::Event) -> Result<Entry, NotAppended> {
        let head = self.book.get(ceremony).map(|chapter| chapter.ceremony.head());
        let place = Place {
            ceremony: ceremony.clone(),
            seq: head.map_or(1, |head| head.seq + 1),
            prev: head.map_or(Hash::ZERO, |head| head.hash),
            time: head.map_or(now(), |head| now().max(head.time)),
            node: self.node(),
        };
        let sign = |message: &[u8]| self.identity.nkey.sign(message).map_err(|_| NotAppended::Signing);
        Entry::create(place, event, sign)
    }

    /// Whether the stream had more than this node had read.
    async fn reads_on(&mut self) -> bool {
        let before = self.read_to;
        self.catch_up().await.is_ok() && self.read_to != before
    }

    /// Reads what the stream has that this node has not read.
    ///
    /// # Errors
    /// [`NotAppended::Bus`] or [`NotAppended::Store`].
    pub(super) async fn catch_up(&mut self) -> Result<(), NotAppended> {
        while let Some(entry) = self.bus.entry_after(self.read_to).await? {
            let seq = entry.stream_seq;
            self.streamed(entry).await?;
            self.read_to = seq;
        }
        Ok(())
    }

    /// After every connection: the broker may have lost the tail of a log that this node still has.
    pub(super) async fn restore_stream(&mut self) {
        if let Err(error) = self.catch_up().await {
            warn!(error = %chain(&error), "stream not read");
            return;
        }
        let known: Vec<CeremonyId> = self.book.iter().map(|(id, _)| id.clone()).collect();
        for ceremony in known {
            self.restore_one(&ceremony).await;
        }
    }

    async fn restore_one(&mut self, ceremony: &CeremonyId) {
        let Some(chapter) = self.book.get(ceremony) else { return };
        let tail = self.tails.get(ceremony).copied().unwrap_or_default();
        let known = usize::try_from(tail.entry).unwrap_or(usize::MAX);
        let lost: Vec<Entry> = chapter.entries.iter().skip(known).cloned().collect();
        for entry in lost {
            let tail = self.tails.get(ceremony).copied().unwrap_or_default();
            match self.bus.append(ceremony, tail.stream, entry.raw().encode_to_vec()).await {
                Ok(stream) => {
                    info!(%ceremony, seq = entry.seq, "entry that the stream had lost appended again");
                    self.tails.insert(ceremony.clone(), Tail { stream, entry: entry.seq });
                }
                // Another node was quicker; what it appended arrives through the stream.
                Err(AppendError::Conflict) => return,
                Err(error) => {
                    warn!(%ceremony, error = %chain(&error), "lost entry not appended again");
                    return;
                }
            }
        }
    }
}

impl From<TakeError> for NotAppended {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::Store(error) => Self::Store(error),
            TakeError::Book(error) => Self::Refused(error),
        }
    }
}
