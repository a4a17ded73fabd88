//! The session driver: one party's barrier, rounds and deadlines as one state machine, with the rules in [`super`]. It
//! must never read what a protocol says, only carry, seal and compare it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ceremonies::ids::{Hash, NodeIndex};
use zeroize::Zeroizing;

use super::action::{Action, Outcome, SessionFailure, SessionProgress};
use super::barrier;
use super::echo::{self, Seen};
use super::envelope::{self, Binding, BootKeys, Dropped, Proven};
use super::plan::{Millis, SessionPlan};
use super::proto::{Round as RoundMessage, content};
use super::protocol::{Factory, Inbound, Outgoing, Protocol, ProtocolAbort, Round, Step};
use super::said::{Letter, Said};

/// Where a session stands. Slot 0 is the hello, 1 the reveal, then a slot for every round.
enum Stage<T> {
    Barrier,
    Running(Running<T>),
    Over,
}

struct Running<T> {
    session: Hash,
    protocol: Box<dyn Protocol<Product = T>>,
    /// This party's own messages of this round to itself.
    own: Inbound,
    /// What each party broadcast in the previous round; before the first round, its nonce.
    seen: Seen,
    transcript: Hash,
}

/// One party's session, which ends with a `T`.
pub struct Session<T> {
    plan: SessionPlan,
    keys: Arc<BootKeys>,
    factory: Option<Factory<T>>,
    nonce: Zeroizing<[u8; 32]>,
    stage: Stage<T>,
    slot: u32,
    deadline: Millis,
    said: Said,
    /// One value per peer and slot, for this slot and the next: nobody can be further ahead, because nobody advances
    /// without this party's message.
    received: BTreeMap<(u32, NodeIndex), Proven>,
    dropped: BTreeMap<Dropped, u64>,
    evidence: Vec<Vec<u8>>,
}

impl<T> Session<T> {
    /// A session that has not begun. `nonce` is this party's random part of the session's id.
    #[must_use]
    pub fn new(plan: SessionPlan, keys: Arc<BootKeys>, nonce: [u8; 32], factory: Factory<T>) -> Self {
        Self {
            plan,
            keys,
            factory: Some(factory),
            nonce: Zeroizing::new(nonce),
            stage: Stage::Barrier,
            slot: 0,
            deadline: Millis::MAX,
            said: Said::default(),
            received: BTreeMap::new(),
            dropped: BTreeMap::new(),
            evidence: Vec::new(),
        }
    }

    /// Begins: says hello to all parties. Call it once, before anything else.
    pub fn start(&mut self, now: Millis) -> Vec<Action<T>> {
        if let Err(failure) = barrier::check(&self.plan, &self.keys) {
            return vec![self.fail(failure)];
        }
        self.deadline = now.saturating_add(self.plan.barrier_ms);
        let mut actions = self.say(now, self.to_all(&self.hello()));
        actions.push(self.progress());
        actions
    }

    /// Whether the session has ended, with or without an outcome.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// How many messages were dropped without effect, by reason.
    #[must_use]
    pub fn dropped(&self) -> &BTreeMap<Dropped, u64> {
        &self.dropped
    }

    /// The signed envelopes, as received, on which a failure's accusation rests: two different ones for one place, or a
    /// broadcast and the echo that contradicts it. Empty if no party is accused of that. They hold no secret: what is
    /// private in them is sealed.
    #[must_use]
    pub fn evidence(&self) -> &[Vec<u8>] {
        &self.evidence
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Millis) -> Vec<Action<T>> {
        let mut actions = self.pass_time(now);
        if !self.is_over() {
            actions.push(self.progress());
        }
        actions
    }

    fn pass_time(&mut self, now: Millis) -> Vec<Action<T>> {
        if self.is_over() {
            return Vec::new();
        }
        if now >= self.deadline {
            return vec![self.deadline_passed()];
        }
        sends(self.said.again(now))
    }

    /// Takes bytes from the bus. May compute for as long as a protocol phase takes.
    pub fn receive(&mut self, now: Millis, bytes: &[u8]) -> Vec<Action<T>> {
        // A party that sends without pause must not be able to put off the deadline.
        let mut actions = self.pass_time(now);
        if !self.is_over() {
            actions.extend(self.take(now, bytes));
        }
        actions
    }

    fn take(&mut self, now: Millis, bytes: &[u8]) -> Vec<Action<T>> {
        let parties = &self.plan.parties;
        let read = envelope::read(bytes, &self.plan.label, self.plan.own, |from| parties.get(&from).copied());
        let taken = read.map_err(Reception::Dropped).and_then(|proven| self.place(proven));
        match taken {
            Ok(mut actions) => {
                while !self.is_over() && self.is_complete() {
                    match self.advance(now) {
                        Ok(more) => actions.extend(more),
                        Err(failure) => actions.push(self.fail(failure)),
                    }
                }
                if !self.is_over() {
                    actions.push(self.progress());
                }
                actions
            }
            Err(Reception::Dropped(why)) => {
                *self.dropped.entry(why).or_default() += 1;
                Vec::new()
            }
            Err(Reception::Repeated) => Vec::new(),
            Err(Reception::Failed(failure)) => vec![self.fail(failure)],
        }
    }

    /// Puts a proven message into its slot.
    fn place(&mut self, proven: Proven) -> Result<Vec<Action<T>>, Reception> {
        let from = proven.from;
        let slot = match &proven.body {
            content::Body::Hello(_) => 0,
            content::Body::Reveal(_) => 1,
            content::Body::Round(round) => {
                round.number.checked_add(barrier::SLOTS - 1).ok_or(Reception::Dropped(Dropped::OutOfTurn))?
            }
        };
        if let Some(known) = self.received.get(&(slot, from)) {
            if known.hash == proven.hash {
                return Err(Reception::Repeated);
            }
            let failure = SessionFailure::by(
                from,
                format!(
                    "node {from} signed two different messages for one round: isolate it, keep its log as \
                     evidence, open a new ceremony ({:.16}, {:.16})",
                    known.hash, proven.hash
                ),
            );
            self.evidence = vec![known.envelope.clone(), proven.envelope];
            return Err(Reception::Failed(failure));
        }
        if slot < self.slot || slot > self.slot + 1 {
            return Err(Reception::Dropped(Dropped::OutOfTurn));
        }
        let is_hello = slot == 0;
        self.received.insert((slot, from), proven);
        // Whoever says hello now may have missed ours.
        Ok(if is_hello { sends(vec![(from, self.write(from, &self.hello()))]) } else { Vec::new() })
    }

    fn peers(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        self.plan.parties.keys().copied().filter(|party| *party != self.plan.own)
    }

    fn missing(&self) -> Vec<NodeIndex> {
        self.peers().filter(|peer| !self.received.contains_key(&(self.slot, *peer))).collect()
    }

    fn is_complete(&self) -> bool {
        self.peers().all(|peer| self.received.contains_key(&(self.slot, peer)))
    }

    fn write(&self, to: NodeIndex, body: &content::Body) -> Vec<u8> {
        envelope::write(&self.keys, &self.plan.label, self.plan.own, to, body.clone())
    }

    fn to_all(&self, body: &content::Body) -> Vec<Letter> {
        self.peers().map(|peer| (peer, self.write(peer, body))).collect()
    }

    /// Begins a slot with these letters.
    fn say(&mut self, now: Millis, letters: Vec<Letter>) -> Vec<Action<T>> {
        self.said.say(now, letters.clone());
        sends(letters)
    }

    fn hello(&self) -> content::Body {
        barrier::hello(&self.plan, &self.nonce)
    }

    fn phase(&self) -> &'static str {
        let place = |slot: u32| usize::try_from(slot).unwrap_or(usize::MAX);
        match &self.stage {
            Stage::Barrier | Stage::Over => barrier::PHASES.get(place(self.slot)).copied(),
            Stage::Running(running) => {
                running.protocol.rounds().get(place(self.slot - barrier::SLOTS)).copied()
            }
        }
        .unwrap_or("finish")
    }

    fn progress(&self) -> Action<T> {
        let rounds = match &self.stage {
            Stage::Barrier | Stage::Over => 0,
            Stage::Running(running) => u32::try_from(running.protocol.rounds().len()).unwrap_or(u32::MAX),
        };
        Action::Progress(SessionProgress {
            phase: self.phase(),
            number: self.slot + 1,
            count: barrier::SLOTS.saturating_add(rounds),
            waiting_for: self.missing(),
        })
    }

    fn fail(&mut self, failure: SessionFailure) -> Action<T> {
        self.stage = Stage::Over;
        self.received.clear();
        Action::Failed(failure)
    }

    fn deadline_passed(&mut self) -> Action<T> {
        // A party that means another session explains more than one that is not there yet.
        let failure = self.contexts().err().unwrap_or_else(|| {
            let missing = echo::names(&self.missing());
            let phase = self.phase();
            SessionFailure::new(format!(
                "nothing from {missing} in time, in `{phase}`: check that node and its bus"
            ))
        });
        self.fail(failure)
    }

    /// All messages of the slot are there: on to the next.
    fn advance(&mut self, now: Millis) -> Result<Vec<Action<T>>, SessionFailure> {
        match self.slot {
            0 => self.reveal(now),
            1 => self.begin(now),
            _ => self.next_round(now),
        }
    }

    /// Checks that every party that said hello means the same session. No peer is at fault: it may be this node.
    fn contexts(&self) -> Result<(), SessionFailure> {
        let others: Vec<NodeIndex> = self
            .peers()
            .filter(|peer| self.body(0, *peer).is_some_and(|hello| barrier::differs(&self.plan, hello)))
            .collect();
        if others.is_empty() {
            return Ok(());
        }
        Err(SessionFailure::new(format!(
            "the ceremony, charter, roster, wallet or attestation that {} sees differs from what node {} sees: compare \
             their logs, then open a new ceremony",
            echo::names(&others),
            self.plan.own
        )))
    }

    fn reveal(&mut self, now: Millis) -> Result<Vec<Action<T>>, SessionFailure> {
        self.contexts()?;
        self.slot = 1;
        self.deadline = now.saturating_add(self.plan.round_ms);
        let reveals = self.to_all(&barrier::reveal(&self.nonce));
        Ok(self.say(now, reveals))
    }

    fn body(&self, slot: u32, from: NodeIndex) -> Option<&content::Body> {
        self.received.get(&(slot, from)).map(|proven| &proven.body)
    }

    fn begin(&mut self, now: Millis) -> Result<Vec<Action<T>>, SessionFailure> {
        let agreed = barrier::agree(&self.plan, &self.nonce, |slot, party| self.body(slot, party));
        let barrier::Agreed { session, nonces } = agreed.map_err(|party| {
            SessionFailure::by(
                party,
                format!(
                    "node {party} revealed a nonce other than the one it committed to: check what it runs"
                ),
            )
        })?;
        let factory = self
            .factory
            .take()
            .ok_or_else(|| SessionFailure::new("this session was already begun: open a new one"))?;
        let (protocol, outgoing) = guarded(|| {
            let mut protocol = factory(session)?;
            let outgoing = protocol.start()?;
            Ok((protocol, outgoing))
        })?;
        let running =
            Running { session, protocol, own: Inbound::default(), seen: nonces, transcript: session };
        self.enter_round(running, outgoing, now)
    }

    /// Sends a round's messages and waits for every party's.
    fn enter_round(
        &mut self,
        mut running: Running<T>,
        mut outgoing: Outgoing,
        now: Millis,
    ) -> Result<Vec<Action<T>>, SessionFailure> {
        self.slot += 1;
        self.deadline = now.saturating_add(self.plan.round_ms);
        let number = self.slot + 1 - barrier::SLOTS;
        let own = outgoing.private.remove(&self.plan.own).unwrap_or_default();
        running.own = Inbound { broadcast: outgoing.broadcast.clone(), private: own };
        let echo: Vec<Vec<u8>> = running.seen.values().map(|hash| hash.as_bytes().to_vec()).collect();
        let mut letters = Vec::new();
        for peer in self.peers().collect::<Vec<_>>() {
            let sealed = match outgoing.private.remove(&peer) {
                Some(plain) => {
                    let binding =
                        Binding { session: running.session, round: number, from: self.plan.own, to: peer };
                    self.plan.parties.get(&peer).and_then(|keys| binding.seal(keys, &plain))
                }
                None => Some(Vec::new()),
            };
            let sealed = sealed.ok_or_else(|| {
                SessionFailure::by(
                    peer,
                    format!("the sealing key that node {peer} attested cannot be used: restart its enclave"),
                )
            })?;
            let message = content::Body::Round(RoundMessage {
                session: running.session.as_bytes().to_vec(),
                number,
                broadcast: outgoing.broadcast.clone(),
                sealed,
                echo: echo.clone(),
            });
            letters.push((peer, self.write(peer, &message)));
        }
        if let Some(stranger) = outgoing.private.keys().next() {
            return Err(SessionFailure::new(format!(
                "the protocol addressed node {stranger}, which takes no part: the order and its plan differ"
            )));
        }
        self.stage = Stage::Running(running);
        Ok(self.say(now, letters))
    }

    fn next_round(&mut self, now: Millis) -> Result<Vec<Action<T>>, SessionFailure> {
        let Stage::Running(mut running) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Ok(Vec::new());
        };
        let number = self.slot + 1 - barrier::SLOTS;
        let own = std::mem::take(&mut running.own);
        self.compare_echoes(&running)?;
        let mut messages = Round::from([(self.plan.own, own)]);
        for peer in self.peers().collect::<Vec<_>>() {
            messages.insert(peer, self.open(&running.session, number, peer)?);
        }
        running.seen =
            messages.iter().map(|(party, message)| (*party, Hash::of_bytes(&message.broadcast))).collect();
        running.transcript = transcript(&running.transcript, number, &running.seen);
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        let step = guarded(|| running.protocol.round(place, messages))?;
        match step {
            Step::Next(outgoing) => self.enter_round(running, outgoing, now),
            Step::Done(product) => {
                self.received.clear();
                let rounds = self.slot + 1;
                let end = SessionProgress {
                    phase: "finish",
                    number: rounds,
                    count: rounds,
                    waiting_for: Vec::new(),
                };
                Ok(vec![
                    Action::Progress(end),
                    Action::Finished(Box::new(Outcome {
                        session: running.session,
                        transcript: running.transcript,
                        product,
                        last_letters: self.said.last(),
                    })),
                ])
            }
        }
    }

    /// Every party must have seen the same in the previous round. This comes before the session's id is compared: ids
    /// differ because a party revealed two nonces, and the echo shows which.
    fn compare_echoes(&mut self, running: &Running<T>) -> Result<(), SessionFailure> {
        let echo_of = |peer| match self.body(self.slot, peer) {
            Some(content::Body::Round(message)) => (peer, message.echo.as_slice()),
            Some(content::Body::Hello(_) | content::Body::Reveal(_)) | None => (peer, [].as_slice()),
        };
        let echoes = self.peers().map(echo_of).collect();
        let Err(split) = echo::compare(self.plan.own, &running.seen, &echoes) else { return Ok(()) };
        let rests_on = [(self.slot - 1, split.culprit), (self.slot, split.witness)];
        let envelopes = rests_on.iter().filter_map(|place| self.received.get(place));
        self.evidence = envelopes.map(|proven| proven.envelope.clone()).collect();
        Err(SessionFailure::by(split.culprit, split.reason))
    }

    /// Checks that a peer's round message is of this session, and opens what is for this party.
    fn open(&self, session: &Hash, number: u32, peer: NodeIndex) -> Result<Inbound, SessionFailure> {
        let failure = |reason: String| SessionFailure::by(peer, reason);
        let Some(content::Body::Round(message)) = self.body(self.slot, peer) else {
            return Err(failure(format!("node {peer} sent no message for round {number}")));
        };
        if message.session != session.as_bytes() {
            return Err(failure(format!(
                "node {peer} derived a different session id from the same nonces: check what it runs"
            )));
        }
        let private = if message.sealed.is_empty() {
            Zeroizing::default()
        } else {
            Binding { session: *session, round: number, from: peer, to: self.plan.own }
                .open(&self.keys, &message.sealed)
                .ok_or_else(|| {
                    failure(format!(
                        "the message that node {peer} sealed for this node does not open: check what it runs"
                    ))
                })?
        };
        Ok(Inbound { broadcast: message.broadcast.clone(), private })
    }
}

/// The effect of bytes that did not advance the session.
enum Reception {
    Dropped(Dropped),
    Repeated,
    Failed(SessionFailure),
}

fn sends<T>(letters: Vec<Letter>) -> Vec<Action<T>> {
    letters.into_iter().map(|(to, bytes)| Action::Send { to, bytes }).collect()
}

fn transcript(before: &Hash, number: u32, seen: &Seen) -> Hash {
    let mut parts: Vec<&[u8]> = vec![before.as_bytes()];
    let number = number.to_be_bytes();
    parts.push(&number);
    parts.extend(seen.values().map(|hash| hash.as_bytes().as_slice()));
    Hash::of_parts("custody/session-transcript/v1", &parts)
}

/// Runs a protocol phase; a panic in it takes down this session and nothing else.
fn guarded<T>(phase: impl FnOnce() -> Result<T, ProtocolAbort>) -> Result<T, SessionFailure> {
    match catch_unwind(AssertUnwindSafe(phase)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(abort)) => {
            Err(SessionFailure { reason: abort.reason, culprit: abort.culprit, ban: abort.ban })
        }
        Err(_) => {
            Err(SessionFailure::new("a phase of the protocol panicked: report it, then open a new ceremony"))
        }
    }
}
