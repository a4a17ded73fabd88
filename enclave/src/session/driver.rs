//! The session driver. See [`super`].

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ceremonies::ids::{Hash, NodeIndex};
use zeroize::Zeroizing;

use super::envelope::{self, Binding, BootKeys, Dropped, Proven};
use super::proto::{Hello, Reveal, Round as RoundMessage, content};
use super::protocol::{Factory, Inbound, Outgoing, Protocol, ProtocolAbort, Round, Step};
use super::{Action, Millis, Outcome, SessionFailure, SessionPlan, SessionProgress};

/// How often a party says that it is there, until everybody has answered: peers may start to listen late.
const HELLO_EVERY_MS: Millis = 500;
/// Slots before the protocol's own rounds: hello and reveal.
const BARRIER_SLOTS: u32 = 2;

/// Where a session stands. Slot 0 is the hello, 1 the reveal, then a slot for every round.
enum Stage {
    Barrier,
    Running(Running),
    Over,
}

struct Running {
    session: Hash,
    protocol: Box<dyn Protocol>,
    /// One's own messages of this round, to oneself.
    own: Inbound,
    /// Hash of each party's broadcast in the round before; empty in the first.
    echo: Vec<Hash>,
    transcript: Hash,
}

/// One party's session.
pub struct Session {
    plan: SessionPlan,
    keys: Arc<BootKeys>,
    factory: Option<Factory>,
    nonce: Zeroizing<[u8; 32]>,
    stage: Stage,
    slot: u32,
    deadline: Millis,
    next_hello: Millis,
    /// One value of each peer a slot, for this slot and the next: nobody can be further ahead, because
    /// nobody gets on without this party's message.
    received: BTreeMap<(u32, NodeIndex), Proven>,
    dropped: BTreeMap<Dropped, u64>,
}

impl Session {
    /// A session that has not begun. `nonce` is this party's random part of the session's id.
    #[must_use]
    pub fn new(plan: SessionPlan, keys: Arc<BootKeys>, nonce: [u8; 32], factory: Factory) -> Self {
        Self {
            plan,
            keys,
            factory: Some(factory),
            nonce: Zeroizing::new(nonce),
            stage: Stage::Barrier,
            slot: 0,
            deadline: 0,
            next_hello: 0,
            received: BTreeMap::new(),
            dropped: BTreeMap::new(),
        }
    }

    /// Begins: says hello to everybody.
    pub fn start(&mut self, now: Millis) -> Vec<Action> {
        self.deadline = now + self.plan.barrier_ms;
        self.next_hello = now + HELLO_EVERY_MS;
        let mut actions = self.to_all(&self.hello());
        actions.push(self.progress());
        actions
    }

    /// Whether the session has ended, with or without outcome.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// How many messages were dropped without effect, by reason.
    #[must_use]
    pub fn dropped(&self) -> &BTreeMap<Dropped, u64> {
        &self.dropped
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Millis) -> Vec<Action> {
        if self.is_over() {
            return Vec::new();
        }
        if now >= self.deadline {
            return self.deadline_passed();
        }
        if self.slot == 0 && now >= self.next_hello {
            self.next_hello = now + HELLO_EVERY_MS;
            return self.to_all(&self.hello());
        }
        Vec::new()
    }

    /// Bytes came from the bus. May compute for as long as a protocol phase takes.
    pub fn receive(&mut self, now: Millis, bytes: &[u8]) -> Vec<Action> {
        if self.is_over() {
            return Vec::new();
        }
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
    fn place(&mut self, proven: Proven) -> Result<Vec<Action>, Reception> {
        let from = proven.from;
        let slot = match &proven.body {
            content::Body::Hello(_) => 0,
            content::Body::Reveal(_) => 1,
            content::Body::Round(round) => {
                round.number.checked_add(BARRIER_SLOTS - 1).ok_or(Reception::Dropped(Dropped::OutOfTurn))?
            }
        };
        if let Some(known) = self.received.get(&(slot, from)) {
            return if known.hash == proven.hash {
                Err(Reception::Repeated)
            } else {
                Err(Reception::Failed(SessionFailure {
                    reason: format!(
                        "node {from} signed two different messages for one round ({} and {}): keep both \
                         nodes' logs as evidence and open a new ceremony",
                        known.hash, proven.hash
                    ),
                    culprit: Some(from),
                    ban: None,
                }))
            };
        }
        if slot < self.slot || slot > self.slot + 1 {
            return Err(Reception::Dropped(Dropped::OutOfTurn));
        }
        let is_hello = slot == 0;
        self.received.insert((slot, from), proven);
        // Whoever says hello now may have missed ours.
        Ok(if is_hello { vec![self.send(from, self.hello())] } else { Vec::new() })
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

    fn send(&self, to: NodeIndex, body: content::Body) -> Action {
        Action::Send { to, bytes: envelope::write(&self.keys, &self.plan.label, self.plan.own, to, body) }
    }

    fn to_all(&self, body: &content::Body) -> Vec<Action> {
        self.peers().map(|peer| self.send(peer, body.clone())).collect()
    }

    fn commitment(context: &Hash, party: NodeIndex, nonce: &[u8]) -> Hash {
        Hash::of_parts("custody/session-nonce/v1", &[context.as_bytes(), &[party.get()], nonce])
    }

    fn hello(&self) -> content::Body {
        let commitment = Self::commitment(&self.plan.context, self.plan.own, &*self.nonce);
        content::Body::Hello(Hello {
            context: self.plan.context.as_bytes().to_vec(),
            commitment: commitment.as_bytes().to_vec(),
        })
    }

    fn progress(&self) -> Action {
        let (phase, count) = match &self.stage {
            Stage::Barrier | Stage::Over => {
                (if self.slot == 0 { "ready" } else { "agree on the session" }, BARRIER_SLOTS)
            }
            Stage::Running(running) => {
                let rounds = running.protocol.rounds();
                let place = usize::try_from(self.slot - BARRIER_SLOTS).unwrap_or(usize::MAX);
                let count = u32::try_from(rounds.len()).unwrap_or(u32::MAX);
                (rounds.get(place).copied().unwrap_or("finish"), BARRIER_SLOTS + count)
            }
        };
        Action::Progress(SessionProgress { phase, number: self.slot + 1, count, waiting_for: self.missing() })
    }

    fn fail(&mut self, failure: SessionFailure) -> Action {
        self.stage = Stage::Over;
        self.received.clear();
        Action::Failed(failure)
    }

    fn deadline_passed(&mut self) -> Vec<Action> {
        let missing = self.missing();
        let names = missing.iter().map(|node| format!("node {node}")).collect::<Vec<_>>().join(", ");
        let place = match self.progress() {
            Action::Progress(progress) => progress.phase,
            Action::Send { .. } | Action::Finished(_) | Action::Failed(_) => "",
        };
        let failure = SessionFailure {
            reason: format!("nothing from {names} in time, in `{place}`: check that node and its bus"),
            culprit: None,
            ban: None,
        };
        vec![self.fail(failure)]
    }

    /// All messages of the slot are there: on to the next.
    fn advance(&mut self, now: Millis) -> Result<Vec<Action>, SessionFailure> {
        match self.slot {
            0 => self.reveal(now),
            1 => self.begin(now),
            _ => self.next_round(now),
        }
    }

    fn reveal(&mut self, now: Millis) -> Result<Vec<Action>, SessionFailure> {
        for peer in self.peers().collect::<Vec<_>>() {
            let Some(content::Body::Hello(hello)) = self.body(0, peer) else { continue };
            if hello.context != self.plan.context.as_bytes() {
                return Err(SessionFailure {
                    reason: format!(
                        "node {peer} sees another ceremony, charter, roster, wallet or attestation than this \
                         node: compare their logs, then open a new ceremony"
                    ),
                    culprit: None,
                    ban: None,
                });
            }
        }
        self.slot = 1;
        self.deadline = now + self.plan.round_ms;
        Ok(self.to_all(&content::Body::Reveal(Reveal { nonce: self.nonce.to_vec() })))
    }

    fn body(&self, slot: u32, from: NodeIndex) -> Option<&content::Body> {
        self.received.get(&(slot, from)).map(|proven| &proven.body)
    }

    /// The session's id: context, label and everybody's nonce, each as committed.
    fn agree(&self) -> Result<Hash, SessionFailure> {
        let mut parts = vec![self.plan.context.as_bytes().to_vec(), self.plan.label.as_bytes().to_vec()];
        for party in self.plan.parties.keys() {
            let nonce = if *party == self.plan.own {
                self.nonce.to_vec()
            } else {
                self.opened_nonce(*party).ok_or_else(|| SessionFailure {
                    reason: format!("node {party} revealed another nonce than it committed to"),
                    culprit: Some(*party),
                    ban: None,
                })?
            };
            parts.push([&[party.get()][..], &nonce].concat());
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Ok(Hash::of_parts("custody/session-id/v1", &parts))
    }

    fn opened_nonce(&self, party: NodeIndex) -> Option<Vec<u8>> {
        let Some(content::Body::Hello(hello)) = self.body(0, party) else { return None };
        let Some(content::Body::Reveal(reveal)) = self.body(1, party) else { return None };
        let expected = Self::commitment(&self.plan.context, party, &reveal.nonce);
        (reveal.nonce.len() == 32 && hello.commitment == expected.as_bytes()).then(|| reveal.nonce.clone())
    }

    fn begin(&mut self, now: Millis) -> Result<Vec<Action>, SessionFailure> {
        let session = self.agree()?;
        let factory = self.factory.take().ok_or_else(|| SessionFailure {
            reason: "this session has been begun before".to_owned(),
            culprit: None,
            ban: None,
        })?;
        let (protocol, outgoing) = guarded(|| {
            let mut protocol = factory(session)?;
            let outgoing = protocol.start()?;
            Ok((protocol, outgoing))
        })?;
        let running = Running {
            session,
            protocol,
            own: Inbound { broadcast: Vec::new(), private: Zeroizing::default() },
            echo: Vec::new(),
            transcript: session,
        };
        self.enter_round(running, outgoing, now)
    }

    /// Sends a round's messages and waits for everybody's.
    fn enter_round(
        &mut self,
        mut running: Running,
        mut outgoing: Outgoing,
        now: Millis,
    ) -> Result<Vec<Action>, SessionFailure> {
        self.slot += 1;
        self.deadline = now + self.plan.round_ms;
        let number = self.slot + 1 - BARRIER_SLOTS;
        let own = outgoing.private.remove(&self.plan.own).unwrap_or_default();
        running.own = Inbound { broadcast: outgoing.broadcast.clone(), private: own };
        let echo: Vec<Vec<u8>> = running.echo.iter().map(|hash| hash.as_bytes().to_vec()).collect();
        let mut actions = Vec::new();
        for peer in self.peers().collect::<Vec<_>>() {
            let sealed = match outgoing.private.remove(&peer) {
                Some(plain) => {
                    let binding =
                        Binding { session: running.session, round: number, from: self.plan.own, to: peer };
                    self.plan.parties.get(&peer).and_then(|keys| binding.seal(keys, &plain))
                }
                None => Some(Vec::new()),
            };
            let sealed = sealed.ok_or_else(|| SessionFailure {
                reason: format!("the sealing key that node {peer} attested cannot be used"),
                culprit: Some(peer),
                ban: None,
            })?;
            actions.push(self.send(
                peer,
                content::Body::Round(RoundMessage {
                    session: running.session.as_bytes().to_vec(),
                    number,
                    broadcast: outgoing.broadcast.clone(),
                    sealed,
                    echo: echo.clone(),
                }),
            ));
        }
        self.stage = Stage::Running(running);
        Ok(actions)
    }

    fn next_round(&mut self, now: Millis) -> Result<Vec<Action>, SessionFailure> {
        let Stage::Running(mut running) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Ok(Vec::new());
        };
        let number = self.slot + 1 - BARRIER_SLOTS;
        let own = std::mem::replace(
            &mut running.own,
            Inbound { broadcast: Vec::new(), private: Zeroizing::default() },
        );
        let mut messages = Round::from([(self.plan.own, own)]);
        for peer in self.peers().collect::<Vec<_>>() {
            messages.insert(peer, self.open(&running, number, peer)?);
        }
        let broadcasts: Vec<Hash> =
            messages.values().map(|message| Hash::of_bytes(&message.broadcast)).collect();
        running.transcript = transcript(&running.transcript, number, &broadcasts);
        running.echo = broadcasts;
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        let step = guarded(|| running.protocol.round(place, messages))?;
        match step {
            Step::Next(outgoing) => self.enter_round(running, outgoing, now),
            Step::Done(product) => {
                self.received.clear();
                Ok(vec![Action::Finished(Box::new(Outcome {
                    session: running.session,
                    transcript: running.transcript,
                    product,
                }))])
            }
        }
    }

    /// Checks a peer's round message against session and echo, and opens what is for this party.
    fn open(&self, running: &Running, number: u32, peer: NodeIndex) -> Result<Inbound, SessionFailure> {
        let failure = |reason: String, culprit| SessionFailure { reason, culprit: Some(culprit), ban: None };
        let Some(content::Body::Round(message)) = self.body(self.slot, peer) else {
            return Err(failure(format!("node {peer} sent no message for round {number}"), peer));
        };
        if message.session != running.session.as_bytes() {
            return Err(failure(format!("node {peer} sent a message of another session"), peer));
        }
        let echoed = message.echo.len() == running.echo.len();
        let differing = self
            .plan
            .parties
            .keys()
            .zip(running.echo.iter().zip(&message.echo))
            .find(|(_, (ours, theirs))| ours.as_bytes().as_slice() != theirs.as_slice());
        if !echoed {
            return Err(failure(
                format!("node {peer} did not echo the broadcasts of the round before"),
                peer,
            ));
        }
        if let Some((broadcaster, _)) = differing {
            return Err(failure(
                format!(
                    "node {broadcaster} broadcast one thing to node {} and another to node {peer}, or node \
                     {peer} lies: compare their logs, then open a new ceremony",
                    self.plan.own
                ),
                *broadcaster,
            ));
        }
        let private = if message.sealed.is_empty() {
            Zeroizing::default()
        } else {
            Binding { session: running.session, round: number, from: peer, to: self.plan.own }
                .open(&self.keys, &message.sealed)
                .ok_or_else(|| {
                    failure(format!("what node {peer} sealed for this node does not open"), peer)
                })?
        };
        Ok(Inbound { broadcast: message.broadcast.clone(), private })
    }
}

/// What became of bytes that did not move the session.
enum Reception {
    Dropped(Dropped),
    Repeated,
    Failed(SessionFailure),
}

fn transcript(before: &Hash, number: u32, broadcasts: &[Hash]) -> Hash {
    let mut parts: Vec<&[u8]> = vec![before.as_bytes()];
    let number = number.to_be_bytes();
    parts.push(&number);
    parts.extend(broadcasts.iter().map(|hash| hash.as_bytes().as_slice()));
    Hash::of_parts("custody/session-transcript/v1", &parts)
}

/// Runs a protocol phase; a panic in it takes down this session and nothing else.
fn guarded<T>(phase: impl FnOnce() -> Result<T, ProtocolAbort>) -> Result<T, SessionFailure> {
    match catch_unwind(AssertUnwindSafe(phase)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(abort)) => {
            Err(SessionFailure { reason: abort.reason, culprit: abort.culprit, ban: abort.ban })
        }
        Err(_) => Err(SessionFailure {
            reason: "a phase of the protocol panicked; its session is over".to_owned(),
            culprit: None,
            ban: None,
        }),
    }
}
