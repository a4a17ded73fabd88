//! The writer: what is to be done to the logs, one thing after the other, each stored before the next begins.

use std::borrow::Cow;

use ceremonies::book::Next;
use ceremonies::ids::CeremonyId;
use ceremonies::log::{Entry, Event as LogEvent};
use ceremonies::record::Tip;

use super::append::Pending;
use super::{Core, Failure, StoreOp, StreamEntry, Waiting};

/// What the writer does next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Work {
    /// Take a message of the stream.
    Streamed(StreamEntry),
    /// Take an entry that another node handed over, or that was waiting for the one before it.
    Take(Box<Entry>),
    /// Find out where to stand in a ceremony.
    Settle(CeremonyId),
    /// Append what is pending.
    Append(CeremonyId),
    /// Give the stream back what it has lost.
    Restore(CeremonyId),
    /// Read what follows in the stream.
    Read,
    /// Read what follows in one log after this message, whatever else is in the stream.
    ReadLog(CeremonyId, u64),
}

impl Work {
    /// The ceremony that it is about, if it is about one.
    pub(super) fn ceremony(&self) -> Option<&CeremonyId> {
        match self {
            Self::Streamed(message) => message.ceremony.as_ref(),
            Self::Take(entry) => Some(&entry.ceremony),
            Self::Settle(id) | Self::Append(id) | Self::Restore(id) | Self::ReadLog(id, _) => Some(id),
            Self::Read => None,
        }
    }

    /// The entry that it is about, if it is about one.
    fn entry(&self) -> Option<Cow<'_, Entry>> {
        match self {
            Self::Streamed(message) => Entry::decode(&message.payload).ok().map(Cow::Owned),
            Self::Take(entry) => Some(Cow::Borrowed(entry)),
            Self::Append(_) | Self::Restore(_) | Self::Settle(_) | Self::Read | Self::ReadLog(..) => None,
        }
    }

    /// Whether it needs the log, not only its line. A message that is not an entry says nothing about any log.
    fn needs_log(&self) -> bool {
        match self {
            Self::Streamed(_) | Self::Take(_) => self.entry().is_some(),
            Self::Append(_) | Self::Restore(_) => true,
            Self::Settle(_) | Self::Read | Self::ReadLog(..) => false,
        }
    }
}

/// The writer: it does one thing at a time, so that no entry is judged before its predecessor is stored.
#[derive(Debug)]
pub(super) enum Writer {
    Idle,
    /// The stream is being read, or this log in it.
    Reading(Option<CeremonyId>),
    /// A log that is shelved is on its way back.
    Recalling(CeremonyId),
    /// An entry is on its way into the stream.
    Appending(Box<Next>, Box<Pending>),
    /// An entry that the stream has lost is on its way back, with its number.
    Restoring(CeremonyId, u64),
    /// The store is at work; if it failed, it is asked again at the next tick.
    Storing {
        op: Box<StoreOp>,
        then: Then,
        failed: bool,
    },
}

impl Writer {
    /// The ceremony that is being written to, if one is.
    pub(super) fn ceremony(&self) -> Option<&CeremonyId> {
        match self {
            Self::Recalling(id) | Self::Restoring(id, _) => Some(id),
            Self::Appending(next, _) => Some(&next.entry().ceremony),
            Self::Storing { then, .. } => Some(then.ceremony()),
            Self::Reading(of) => of.as_ref(),
            Self::Idle => None,
        }
    }
}

/// What follows once the store has it.
#[derive(Debug)]
pub(super) enum Then {
    /// The entry is the ceremony's head: with its sequence in the stream, and who wanted it.
    Commit(Box<Next>, Option<u64>, Option<Box<Pending>>),
    /// The entry belongs to another branch.
    Aside(Box<Entry>),
    /// The node stands on another branch.
    Switched(CeremonyId, Tip),
    /// The ballot is remembered.
    Settle(CeremonyId),
}

impl Then {
    fn ceremony(&self) -> &CeremonyId {
        match self {
            Self::Commit(next, ..) => &next.entry().ceremony,
            Self::Aside(entry) => &entry.ceremony,
            Self::Switched(id, _) | Self::Settle(id) => id,
        }
    }
}

impl Core {
    /// Work that is planned already is not planned again.
    pub(super) fn plan(&mut self, work: Work) {
        if !self.work.contains(&work) {
            self.work.push_back(work);
        }
    }

    pub(super) fn plan_first(&mut self, work: Work) {
        self.work.push_front(work);
    }

    /// The log that must come back from the shelf before something is done: the ceremony's own or, where that is opened,
    /// the one that it works on.
    fn shelved_for(&self, work: &Work) -> Option<CeremonyId> {
        let id = work.ceremony()?;
        if self.shelf.has(id) {
            return work.needs_log().then(|| id.clone());
        }
        if self.shelf.is_empty() || self.book.get(id).is_some() {
            return None;
        }
        self.shelved_origin(&work.entry()?.event)
    }

    /// The shelved ceremony that the one works on which this event opens.
    pub(super) fn shelved_origin(&self, event: &LogEvent) -> Option<CeremonyId> {
        let LogEvent::Opened { manifest, .. } = event else { return None };
        let origin = &manifest.origin.as_ref()?.ceremony;
        self.shelf.has(origin).then(|| origin.clone())
    }

    /// Does what is planned until the writer has to wait.
    pub(super) fn write_on(&mut self) {
        while matches!(self.writer, Writer::Idle) {
            let next = self.work.pop_front();
            if let Some((id, work)) = next.as_ref().and_then(|work| Some((self.shelved_for(work)?, work))) {
                if work.entry().is_some_and(|entry| !self.is_worth_a_recall(&id, &entry)) {
                    continue;
                }
                self.plan_first(work.clone());
                self.recall(&id, None);
                self.writer = Writer::Recalling(id);
                return;
            }
            match next {
                Some(Work::Streamed(entry)) => self.streamed(entry),
                Some(Work::Take(entry)) => self.take(*entry, None),
                Some(Work::Settle(id)) => self.settle(&id),
                Some(Work::Append(id)) => self.append_next(&id),
                Some(Work::Restore(id)) => self.restore(&id),
                Some(Work::Read) => self.read_on(),
                Some(Work::ReadLog(id, after)) => self.read_log(id, after),
                None => return,
            }
        }
    }

    /// Has the store do something before anything else is written.
    pub(super) fn write(&mut self, op: StoreOp, then: Then) {
        self.writer = Writer::Storing { op: Box::new(op.clone()), then, failed: false };
        self.store(op, Waiting::Record);
    }

    pub(super) fn retry_store(&mut self) {
        if let Writer::Storing { op, failed, .. } = &mut self.writer
            && *failed
        {
            *failed = false;
            let op = StoreOp::clone(op);
            self.store(op, Waiting::Record);
        }
    }

    /// Whether the store has failed to store what is being written.
    pub(super) fn store_is_stuck(&self) -> bool {
        !self.observed.record.text().is_empty()
    }

    pub(super) fn record_stored(&mut self, result: Result<(), Failure>) {
        if let Err(trouble) = result {
            if let Writer::Storing { failed, then, .. } = &mut self.writer {
                *failed = true;
                if let Then::Commit(next, Some(_), Some(pending)) = then {
                    let (seq, pending) = (next.entry().seq, pending.clone());
                    self.is_unknown(
                        &pending,
                        &format!("entry {seq} is in the stream, but this node cannot store it: {trouble}"),
                    );
                }
            }
            return;
        }
        let Writer::Storing { then, .. } = std::mem::replace(&mut self.writer, Writer::Idle) else { return };
        match then {
            Then::Commit(next, stream, pending) => self.commit(*next, stream, pending),
            Then::Aside(entry) => self.put_aside(*entry),
            Then::Switched(id, tip) => self.switched(&id, tip),
            Then::Settle(id) => self.plan_first(Work::Settle(id)),
        }
    }
}
