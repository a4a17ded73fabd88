//! What consoles ask: submitting events, reading logs, listing ceremonies, handing in backups. Every answer is signed and
//! bound to its question.

use std::collections::BTreeMap;

use ceremonies::book::OpeningError;
use ceremonies::ceremony::Ceremony;
use ceremonies::ids::{CeremonyId, Hash, UnixMillis};
use ceremonies::listing::{self, Line, Wanted};
use ceremonies::log::{Entry, EntryError, Event as LogEvent};
use ceremonies::said::{self, Topic};
use ceremonies::text::chain;
use ceremonies::wire::{VERSION, bus, log};
use prost::Message;
use thiserror::Error;
use tracing::error;

use super::append::Wish;
use super::settle::news;
use super::shelf::{Shelved, Then};
use super::{Core, Event, Request, RequestKind};

/// Most bytes of entries in one answer: below the bus's limit of 1 MiB, with room for heads and framing.
const MAX_ANSWER: usize = 640 * 1024;
/// Most bytes of entries of other branches in one answer.
const MAX_ASIDE: usize = 192 * 1024;
/// Most ceremonies in one answer to a list.
const MAX_LISTED: usize = 500;
/// The most wishes of one list that are read.
const MAX_WANTED: usize = 64;

/// Why a submission is rejected outright.
#[derive(Debug, Error)]
enum Refusal {
    #[error("the submission cannot be decoded")]
    Encoding(#[from] prost::DecodeError),
    #[error("this node does not know version {0}")]
    Version(u32),
    #[error("the submission has no event")]
    NoEvent,
    #[error("the event is malformed")]
    Event(#[from] EntryError),
    #[error("the manifest opens {opens}, not {asked}")]
    OtherManifest { opens: CeremonyId, asked: CeremonyId },
    #[error("{0} is already open")]
    OpenAlready(CeremonyId),
    #[error(transparent)]
    Opening(#[from] OpeningError),
    #[error("ceremony {0} is not known here")]
    Unknown(CeremonyId),
    #[error("events of nodes and enclaves come from them alone; they cannot be submitted")]
    NotForConsoles,
}

/// The entries from a number on, as far as they fit into one answer.
pub(super) fn that_fit(entries: &[Entry], from_seq: u64) -> Vec<log::Entry> {
    let skip = usize::try_from(from_seq.saturating_sub(1)).unwrap_or(usize::MAX);
    up_to(entries.iter().skip(skip), MAX_ANSWER)
}

/// The entries of other branches that fit into one answer, each behind the one before it.
pub(super) fn that_fit_aside(aside: &BTreeMap<Hash, Entry>) -> Vec<log::Entry> {
    let mut entries: Vec<&Entry> = aside.values().collect();
    entries.sort_by_key(|entry| entry.seq);
    up_to(entries.into_iter(), MAX_ASIDE)
}

fn up_to<'a>(entries: impl Iterator<Item = &'a Entry>, most: usize) -> Vec<log::Entry> {
    let mut size = 0;
    let fits = |entry: &&log::Entry| {
        size += entry.body.len() + entry.signature.len() + 16;
        size <= most
    };
    entries.map(Entry::raw).take_while(fits).cloned().collect()
}

impl Core {
    pub(super) fn request(&mut self, request: Request) {
        match request.kind.clone() {
            RequestKind::Submit(ceremony) | RequestKind::Read(ceremony) if self.shelf.has(&ceremony) => {
                self.recall(&ceremony, Some(Then::Handle(Event::Request(request))));
            }
            RequestKind::Submit(ceremony) => match self.needed_to_open(&request.payload) {
                Some(origin) => self.recall(&origin, Some(Then::Handle(Event::Request(request)))),
                None => self.submit(&ceremony, request),
            },
            RequestKind::Read(ceremony) => {
                let reply = self.read(&ceremony, &request.payload);
                self.answer(&request, &reply);
            }
            RequestKind::List => {
                let reply = self.list(&request.payload);
                self.answer(&request, &reply);
            }
            RequestKind::Backup => self.take_released(request),
        }
    }

    pub(super) fn answer(&mut self, request: &Request, reply: &impl Message) {
        let topic = Topic::answer_to(&request.subject, &request.payload);
        let sign = |message: &[u8]| self.identity.sign(message);
        match said::say(self.identity.charter.cluster(), topic, self.node(), reply.encode_to_vec(), sign) {
            Ok(payload) => self.publish(request.reply.clone(), payload),
            Err(error) => error!(%error, "an answer could not be signed"),
        }
    }

    /// The shelved ceremony without which an opening cannot be judged.
    fn needed_to_open(&self, payload: &[u8]) -> Option<CeremonyId> {
        let event = bus::Submit::decode(payload).ok()?.event?;
        self.shelved_origin(&LogEvent::try_from(event).ok()?)
    }

    fn submit(&mut self, ceremony: &CeremonyId, request: Request) {
        let outcome = match self.check_submission(ceremony, &request.payload) {
            Ok(event) if self.store_is_stuck() => {
                self.append(ceremony, event, Wish::Console(None));
                let trouble = self.observed.record.text();
                bus::submit_reply::Outcome::Unknown(format!(
                    "not appended yet: this node's store cannot be written: {trouble}"
                ))
            }
            Ok(event) => {
                return self.append(ceremony, event, Wish::Console(Some(Box::new(request))));
            }
            Err(Refusal::OpenAlready(id)) if self.is_that_opening(&id, &request.payload) => {
                bus::submit_reply::Outcome::Seq(1)
            }
            Err(refusal) if self.may_be_right_yet(&refusal) => {
                let trouble = self.stream.trouble().unwrap_or_else(|| chain(&refusal));
                bus::submit_reply::Outcome::Unknown(format!(
                    "not kept, for this node cannot tell yet: {trouble}"
                ))
            }
            Err(refusal) => bus::submit_reply::Outcome::Rejection(chain(&refusal)),
        };
        self.answer(&request, &bus::SubmitReply { outcome: Some(outcome) });
    }

    /// What is refused for want of something in the record is not refused while the record is still being read. A ceremony
    /// that is not known here may be withheld from this node by the broker, whatever that lets it read.
    fn may_be_right_yet(&self, refusal: &Refusal) -> bool {
        match refusal {
            Refusal::Unknown(_) => true,
            Refusal::Opening(_) => !self.stream.is_read(),
            Refusal::Encoding(_)
            | Refusal::Version(_)
            | Refusal::NoEvent
            | Refusal::Event(_)
            | Refusal::OtherManifest { .. }
            | Refusal::OpenAlready(_)
            | Refusal::NotForConsoles => false,
        }
    }

    fn is_that_opening(&self, id: &CeremonyId, payload: &[u8]) -> bool {
        let opening = self.book.get(id).and_then(|chapter| Self::event_of(chapter.entries.first()?));
        opening.is_some() && bus::Submit::decode(payload).is_ok_and(|submit| submit.event == opening)
    }

    /// Consoles submit what people sign. Events of agents and enclaves come from them alone.
    fn check_submission(&self, ceremony: &CeremonyId, payload: &[u8]) -> Result<log::Event, Refusal> {
        let submit = bus::Submit::decode(payload)?;
        if submit.version != VERSION {
            return Err(Refusal::Version(submit.version));
        }
        let wire = submit.event.ok_or(Refusal::NoEvent)?;
        match LogEvent::try_from(wire.clone())? {
            LogEvent::Opened { manifest, .. } => {
                if manifest.ceremony != *ceremony {
                    return Err(Refusal::OtherManifest {
                        opens: manifest.ceremony.clone(),
                        asked: ceremony.clone(),
                    });
                }
                if self.book.get(ceremony).is_some() {
                    return Err(Refusal::OpenAlready(ceremony.clone()));
                }
                self.book.check_opening(&manifest, self.now.wall)?;
            }
            LogEvent::Signed { .. } | LogEvent::Withdrawn { .. } => {
                if self.book.get(ceremony).is_none() {
                    return Err(Refusal::Unknown(ceremony.clone()));
                }
            }
            LogEvent::Attested { .. }
            | LogEvent::BackedUp(_)
            | LogEvent::Proved { .. }
            | LogEvent::Recovered { .. }
            | LogEvent::Staged { .. }
            | LogEvent::Prepared { .. }
            | LogEvent::Retired { .. }
            | LogEvent::Adopted { .. }
            | LogEvent::TestSigned(_)
            | LogEvent::Aborted(_)
            | LogEvent::Faulted { .. } => return Err(Refusal::NotForConsoles),
        }
        Ok(wire)
    }

    fn read(&self, ceremony: &CeremonyId, payload: &[u8]) -> bus::ReadReply {
        let refusal = |text: String| bus::ReadReply { refusal: text, ..Default::default() };
        let read = match bus::Read::decode(payload) {
            Ok(read) if read.version == VERSION => read,
            Ok(read) => return refusal(Refusal::Version(read.version).to_string()),
            Err(_) => return refusal("the request cannot be decoded".to_owned()),
        };
        let Some((chapter, log)) = self.book.get(ceremony).zip(self.logs.get(ceremony)) else {
            return refusal(Refusal::Unknown(ceremony.clone()).to_string());
        };
        bus::ReadReply {
            entries: that_fit(&chapter.entries, read.from_seq),
            last_seq: chapter.ceremony.head().seq,
            refusal: String::new(),
            heads: log.ballot.heads().map(|(head, _)| news(head, &[])).collect(),
            aside: that_fit_aside(&log.aside),
        }
    }

    /// One page of the requested ceremonies, newest first.
    fn list(&self, payload: &[u8]) -> bus::ListReply {
        let asked = bus::List::decode(payload).unwrap_or_default();
        let known = asked.wanted.len();
        let wanted: Vec<Wanted> =
            asked.wanted.iter().take(MAX_WANTED).filter_map(Wanted::from_wire).collect();
        if wanted.is_empty() && known > 0 {
            return bus::ListReply::default();
        }
        let folded = self.book.iter().map(|(_, chapter)| self.summary(&chapter.ceremony));
        let mut all: Vec<bus::Summary> = folded.chain(self.shelf.iter().map(Shelved::summary)).collect();
        all.sort_unstable_by(|one, other| {
            (other.opened_ms, &other.ceremony).cmp(&(one.opened_ms, &one.ceremony))
        });
        let lines: Vec<Line<'_>> = all.iter().map(line).collect();
        let (places, left) = listing::chosen(&wanted, &lines);
        let mut summaries: Vec<bus::Summary> = places.into_iter().map(|place| all[place].clone()).collect();
        let position = summaries.iter().position(|summary| summary.ceremony == asked.after);
        summaries.drain(..position.map_or(0, |position| position + 1));
        let more = summaries.len() > MAX_LISTED;
        summaries.truncate(MAX_LISTED);
        bus::ListReply { summaries, more, left: u32::try_from(left).unwrap_or(u32::MAX) }
    }

    fn summary(&self, ceremony: &Ceremony) -> bus::Summary {
        let (manifest, head) = (ceremony.manifest(), ceremony.head());
        bus::Summary {
            ceremony: manifest.ceremony.to_string(),
            last_seq: head.seq,
            last_hash: head.hash.as_bytes().to_vec(),
            kind: manifest.kind.to_string(),
            wallet: manifest.wallet.to_string(),
            generation: manifest.generation.0,
            phase: ceremony.standing_at(self.now.wall),
            opened_ms: manifest.opened.0,
            last_ms: head.time.0,
        }
    }
}

fn line(summary: &bus::Summary) -> Line<'_> {
    Line {
        ceremony: &summary.ceremony,
        wallet: &summary.wallet,
        kind: &summary.kind,
        phase: &summary.phase,
        opened: UnixMillis(summary.opened_ms),
    }
}
