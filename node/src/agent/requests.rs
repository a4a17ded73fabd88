//! What consoles ask: submitting events, reading logs, listing ceremonies.

use ceremonies::entry::Event;
use ceremonies::ids::CeremonyId;
use ceremonies::text::chain;
use ceremonies::wire::{VERSION, bus, log};
use prost::Message;
use tracing::warn;

use super::{Agent, now};
use crate::bus::{Request, RequestKind};

/// Most bytes of entries in one answer: below the bus's limit of 1 MiB, with room for the framing.
const MAX_ANSWER: usize = 768 * 1024;

impl Agent {
    pub(super) async fn request(&mut self, request: Request) {
        // Any node may be the one that is asked, also one that is behind: its answer is as new as the question.
        if let Err(error) = self.catch_up().await {
            warn!(error = %chain(&error), "a request is answered from what this node has read");
        }
        let answer = match &request.kind {
            RequestKind::Submit(ceremony) => {
                let outcome = match self.submit(ceremony, &request.payload).await {
                    Ok(seq) => bus::submit_reply::Outcome::Seq(seq),
                    Err(rejection) => bus::submit_reply::Outcome::Rejection(rejection),
                };
                bus::SubmitReply { outcome: Some(outcome) }.encode_to_vec()
            }
            RequestKind::Read(ceremony) => self.read(ceremony, &request.payload).encode_to_vec(),
            RequestKind::List => self.list().encode_to_vec(),
            RequestKind::Backup => self.take_released(&request.payload).await.encode_to_vec(),
        };
        if let Err(error) = self.bus.answer(request, answer).await {
            warn!(error = %chain(&error), "a request was not answered");
        }
    }

    async fn submit(&mut self, ceremony: &CeremonyId, payload: &[u8]) -> Result<u64, String> {
        let submit = bus::Submit::decode(payload).map_err(|_| "the submission cannot be decoded")?;
        if submit.version != VERSION {
            return Err(format!("submission version {} is not known to this node", submit.version));
        }
        let wire = submit.event.ok_or("the submission has no event")?;
        let event = Event::try_from(wire.clone()).map_err(|error| chain(&error))?;
        self.check_submission(ceremony, &event)?;
        self.append(ceremony, wire).await.map_err(|error| chain(&error))
    }

    /// Consoles submit what people sign. What agents and enclaves say comes from them alone.
    fn check_submission(&self, ceremony: &CeremonyId, event: &Event) -> Result<(), String> {
        match event {
            Event::Opened { manifest, .. } => {
                if manifest.ceremony != *ceremony {
                    return Err(format!("the manifest opens {}, not {ceremony}", manifest.ceremony));
                }
                if self.book.get(ceremony).is_some() {
                    return Err(format!("{ceremony} is open already"));
                }
                self.book.check_opening(manifest, now()).map_err(|error| error.to_string())
            }
            Event::Signed { .. } | Event::Withdrawn { .. } if self.book.get(ceremony).is_none() => {
                Err(format!("no ceremony {ceremony} is known here"))
            }
            Event::Signed { .. } | Event::Withdrawn { .. } => Ok(()),
            Event::Attested { .. }
            | Event::BackedUp(_)
            | Event::Proved { .. }
            | Event::Recovered { .. }
            | Event::Staged { .. }
            | Event::Prepared { .. }
            | Event::Retired { .. }
            | Event::Adopted { .. }
            | Event::TestSigned(_)
            | Event::Aborted(_)
            | Event::Faulted { .. } => Err("nodes and enclaves speak for themselves".to_owned()),
        }
    }

    fn read(&self, ceremony: &CeremonyId, payload: &[u8]) -> bus::ReadReply {
        let refusal = |text: &str| bus::ReadReply { refusal: text.to_owned(), ..Default::default() };
        let Ok(read) = bus::Read::decode(payload) else { return refusal("the request cannot be decoded") };
        if read.version != VERSION {
            return refusal("the request's version is not known to this node");
        }
        let Some(chapter) = self.book.get(ceremony) else {
            return refusal(&format!("no ceremony {ceremony} is known here"));
        };
        let skip = usize::try_from(read.from_seq.saturating_sub(1)).unwrap_or(usize::MAX);
        let mut size = 0;
        let fits = |entry: &&log::Entry| {
            size += entry.body.len() + entry.signature.len() + 16;
            size <= MAX_ANSWER
        };
        let entries = chapter.entries.iter().skip(skip).map(ceremonies::entry::Entry::raw);
        bus::ReadReply {
            entries: entries.take_while(fits).cloned().collect(),
            last_seq: chapter.ceremony.head().seq,
            refusal: String::new(),
        }
    }

    fn list(&self) -> bus::ListReply {
        let head = |(id, chapter): (&CeremonyId, &ceremonies::book::Chapter)| bus::Head {
            ceremony: id.to_string(),
            last_seq: chapter.ceremony.head().seq,
        };
        bus::ListReply { heads: self.book.iter().map(head).collect() }
    }
}
