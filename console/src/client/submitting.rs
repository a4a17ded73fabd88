//! Submitting an event: to one node, then to others, until nodes have signed heads that contain it.

use std::collections::VecDeque;
use std::time::Duration;

use ceremonies::deploy::subject;
use ceremonies::ids::{CeremonyId, NodeIndex};
use ceremonies::log::{Entry, EntryError, Event};
use ceremonies::text::one_line;
use ceremonies::wire::{VERSION, bus, log};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use prost::Message;
use thiserror::Error;
use tokio::time::{Instant, sleep_until};

use super::failover::Pace;
use super::reading::{Gathering, proposed};
use super::receipt::{Decision, Outcome, Receipt, Refusal, Reply, Tally};
use super::trouble::Trouble;
use super::voices::Voices;
use super::{Bus, ClientError, Nodes, answer};

/// How long to wait while an event is submitted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How long before another node is given it as well.
    pub(super) hand: Duration,
    /// For one node's answer.
    pub(super) answer: Duration,
    /// How long one look at the nodes may take.
    pub(super) look: Pace,
    /// In all.
    pub(super) limit: Duration,
}

const USUAL: Patience = Patience {
    hand: Duration::from_secs(1),
    answer: Duration::from_secs(6),
    look: Pace { patience: Duration::from_millis(700), limit: Duration::from_millis(1200) },
    limit: Duration::from_secs(12),
};
/// Pauses between two looks, the last one repeated.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(30),
    Duration::from_millis(70),
    Duration::from_millis(150),
    Duration::from_millis(300),
];

/// Why an event is not known to be recorded.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// Nodes would refuse to read it.
    #[error("every node would refuse this")]
    Event(#[from] EntryError),
    /// It is refused for good.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It may be recorded or not, now or later.
    #[error(transparent)]
    Unknown(#[from] Outcome),
    /// It was never sent.
    #[error("nothing was submitted")]
    Client(#[from] ClientError),
}

impl<B: Bus> Nodes<B> {
    /// Submits an event for a ceremony, whose log is `known` so far, and waits until nodes have signed heads that
    /// contain it.
    ///
    /// # Errors
    /// [`SubmitError`]; of these, [`SubmitError::Unknown`] says that the event may be recorded all the same.
    pub async fn submit(
        &self,
        known: &[Entry],
        ceremony: &CeremonyId,
        event: log::Event,
    ) -> Result<Receipt, SubmitError> {
        self.submit_within(USUAL, known, ceremony, event).await
    }

    pub(super) async fn submit_within(
        &self,
        patience: Patience,
        known: &[Entry],
        ceremony: &CeremonyId,
        event: log::Event,
    ) -> Result<Receipt, SubmitError> {
        let wanted = Event::try_from(event.clone())?;
        let opens =
            if let Event::Opened { manifest, .. } = &wanted { manifest.amendment().cloned() } else { None };
        let voices = self.voices(proposed(known).or(opens));
        let mut gathering = Gathering::new(ceremony.clone(), voices.clone(), known);
        let mut tally = Tally::new(ceremony.clone(), voices.nodes(), voices.members());
        let mut queue: VecDeque<NodeIndex> = self.order(&voices.nodes()).into();
        let mut untried = queue.len();
        let end = Instant::now() + patience.limit;
        let mut asked = FuturesUnordered::new();
        let (mut next_hand, mut next_read, mut reads) = (Instant::now(), Instant::now() + PAUSES[0], 0);
        loop {
            let now = Instant::now();
            if now >= next_hand
                && let Some(node) = queue.pop_front()
            {
                untried = untried.saturating_sub(1);
                let answer = self.hand(&voices, ceremony, node, event.clone(), patience.answer);
                asked.push(async move { (node, answer.await) });
                next_hand = now + patience.hand;
            }
            tokio::select! {
                Some((node, reply)) = asked.next() => {
                    let soon = if untried > 0 { PAUSES[0] } else { patience.hand };
                    match &reply {
                        Reply::Taken => next_read = Instant::now(),
                        Reply::Rejected(_) => {
                            next_read = Instant::now();
                            next_hand = Instant::now() + PAUSES[0];
                        }
                        // Others may take it meanwhile, and this one later.
                        Reply::Unknown(_) | Reply::Unreached(_) => {
                            queue.push_back(node);
                            next_hand = Instant::now() + soon;
                        }
                    }
                    tally.replied(node, reply);
                }
                () = sleep_until(next_read.min(end)) => {
                    self.poll(&mut gathering, patience.look).await;
                    let found = gathering.branches.carrying(&wanted);
                    tally.read(&gathering.branches, &found, &gathering.heads);
                    next_read = Instant::now() + PAUSES[reads.min(PAUSES.len() - 1)];
                    reads += 1;
                }
                () = sleep_until(next_hand), if !queue.is_empty() => {}
            }
            let at_end = Instant::now() >= end;
            let found = gathering.branches.carrying(&wanted);
            match tally.decide(&gathering.branches, &found, &gathering.heads, at_end) {
                Decision::Receipt(receipt) => return Ok(receipt),
                Decision::Refused(refusal) => return Err(refusal.into()),
                Decision::NotSent => return Err(ClientError::NotConnected.into()),
                Decision::Open if at_end => {
                    return Err(tally.outcome(&gathering.branches, &found, &gathering.heads).into());
                }
                Decision::Open => {}
            }
        }
    }

    async fn hand(
        &self,
        voices: &Voices,
        ceremony: &CeremonyId,
        node: NodeIndex,
        event: log::Event,
        patience: Duration,
    ) -> Reply {
        let submit = bus::Submit { version: VERSION, event: Some(event), nonce: answer::nonce() };
        let (subject, request) = (subject::submit(ceremony, node), submit.encode_to_vec());
        let asked = tokio::time::timeout(patience, self.ask(subject.clone(), request.clone())).await;
        let answer = match asked.unwrap_or(Err(Trouble::Silent(patience))) {
            Ok(answer) => answer,
            Err(trouble) => return Reply::Unreached(trouble),
        };
        let body = match answer::verified(voices, node, (&subject, &request), &answer) {
            Ok(body) => body,
            Err(trouble) => return Reply::Unreached(trouble),
        };
        match bus::SubmitReply::decode(body.as_slice()) {
            Ok(bus::SubmitReply { outcome: Some(bus::submit_reply::Outcome::Seq(_)) }) => Reply::Taken,
            Ok(bus::SubmitReply { outcome: Some(bus::submit_reply::Outcome::Rejection(why)) }) => {
                Reply::Rejected(one_line(&why))
            }
            Ok(bus::SubmitReply { outcome: Some(bus::submit_reply::Outcome::Unknown(why)) }) => {
                Reply::Unknown(one_line(&why))
            }
            Ok(bus::SubmitReply { outcome: None }) => Reply::Unknown("it gave no reason".to_owned()),
            Err(error) => Reply::Unreached(Trouble::Unreadable(error)),
        }
    }
}
