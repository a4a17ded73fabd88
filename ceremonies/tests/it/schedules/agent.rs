//! What an agent does, after `node/src/agent`. It may die at every [`World::hazard`].

use ceremonies::book::{Book, Examined, NotTaken};
use ceremonies::ceremony::{Duty, Rejection};
use ceremonies::entry::{Entry, Place};
use ceremonies::ids::{CeremonyId, Hash};
use ceremonies::wire::log::{self, event::Kind};

use super::node::{Agent, Asked, Share, ShareState, Shown, Tail, ToAgent, ToEnclave};
use super::world::{Slip, World};
use crate::cluster::node;
use crate::kit::entry;

const TRIES: usize = 5;

/// Why an agent's append did not get through.
#[derive(Debug)]
pub(super) enum Stop {
    Crash,
    /// The same entry may be accepted later.
    Passing,
    Known,
    Refused,
}

fn order_label(ceremony: &ceremonies::ceremony::Ceremony, duty: &Duty) -> Option<Hash> {
    let word = match duty {
        Duty::Prepare => "prepare",
        Duty::Retire => "retire",
        _ => return ceremony.session(duty).map(|spec| spec.label),
    };
    Some(Hash::of_parts("order", &[ceremony.manifest().ceremony.as_str().as_bytes(), word.as_bytes()]))
}

impl World {
    fn agent(&mut self, at: usize) -> Result<&mut Agent, Stop> {
        self.nodes[at].agent.as_mut().ok_or(Stop::Crash)
    }

    /// Kills the agent here, if chance says so.
    fn hazard(&mut self, at: usize) -> Result<(), Stop> {
        if self.strikes(250) {
            self.kill_agent(at);
            return Err(Stop::Crash);
        }
        Ok(())
    }

    /// Store first, then the fold.
    fn keep(&mut self, at: usize, next: ceremonies::book::Next) -> Result<(), Stop> {
        self.hazard(at)?;
        let entry = next.entry().clone();
        let id = entry.ceremony.clone();
        self.nodes[at].store.logs.entry(id.clone()).or_default().push(entry);
        self.hazard(at)?;
        self.agent(at)?.book.commit(next);
        self.note_commits(at, &id);
        Ok(())
    }

    fn streamed(&mut self, at: usize, seq: u64, entry: Entry) -> Result<(), Stop> {
        let (id, number) = (entry.ceremony.clone(), entry.seq);
        let examined = self.agent(at)?.book.examine(entry);
        let taken = match examined {
            Ok(Examined::New(next)) => {
                self.keep(at, *next)?;
                true
            }
            Ok(Examined::Known) => true,
            Err(NotTaken::Fork { .. }) => {
                self.forks += 1;
                false
            }
            Err(_) => false,
        };
        let tail = self.agent(at)?.tails.entry(id).or_default();
        if !taken {
            tail.stream = tail.stream.max(seq);
        } else if seq > tail.stream {
            *tail = Tail { stream: seq, entry: number };
        }
        Ok(())
    }

    fn tail(&mut self, at: usize, id: &CeremonyId) -> Result<Tail, Stop> {
        Ok(self.agent(at)?.tails.get(id).copied().unwrap_or_default())
    }

    fn catch_up(&mut self, at: usize, id: &CeremonyId) -> Result<(), Stop> {
        let tail = self.tail(at, id)?;
        let news: Vec<_> = self.stream.after(id, tail.stream).cloned().collect();
        for (seq, entry) in news {
            self.streamed(at, seq, entry)?;
        }
        Ok(())
    }

    fn restore_one(&mut self, at: usize, id: &CeremonyId) -> Result<(), Stop> {
        let tail = self.tail(at, id)?;
        let Some(chapter) = self.agent(at)?.book.get(id) else { return Ok(()) };
        let known = usize::try_from(tail.entry).unwrap();
        let lost: Vec<Entry> = chapter.entries.iter().skip(known).cloned().collect();
        for entry in lost {
            let (tail, number) = (self.tail(at, id)?, entry.seq);
            let Some(stream) = self.stream.append(tail.stream, entry) else { return Ok(()) };
            self.hazard(at)?;
            self.agent(at)?.tails.insert(id.clone(), Tail { stream, entry: number });
        }
        Ok(())
    }

    fn reads_on(&mut self, at: usize, id: &CeremonyId) -> Result<bool, Stop> {
        let seq = |agent: &Agent| agent.book.get(id).map(|chapter| chapter.ceremony.head().seq);
        let before = seq(self.agent(at)?);
        self.catch_up(at, id)?;
        Ok(seq(self.agent(at)?) != before)
    }

    pub(super) fn append(&mut self, at: usize, id: &CeremonyId, kind: &Kind) -> Result<(), Stop> {
        for _ in 0..TRIES {
            let now = self.clock(at);
            let head = self.agent(at)?.book.get(id).map(|chapter| chapter.ceremony.head());
            let place = Place {
                ceremony: id.clone(),
                seq: head.map_or(1, |head| head.seq + 1),
                prev: head.map_or(Hash::ZERO, |head| head.hash),
                time: head.map_or(now, |head| now.max(head.time)),
                node: node(u8::try_from(at).unwrap() + 1),
            };
            let made = entry(place, kind.clone());
            let next = match self.agent(at)?.book.examine(made) {
                Ok(Examined::New(next)) => *next,
                Ok(Examined::Known) => return Err(Stop::Passing),
                Err(refused) => {
                    if self.reads_on(at, id)? {
                        continue;
                    }
                    self.note(format!("node {} may not append: {refused:?}", at + 1));
                    return Err(refusal(&refused));
                }
            };
            let tail = self.tail(at, id)?;
            if tail.entry + 1 == next.entry().seq {
                match self.stream.append(tail.stream, next.entry().clone()) {
                    Some(stream) => {
                        self.note_entry(next.entry());
                        if self.strikes(200) {
                            // The acknowledgment is lost.
                            return Err(Stop::Passing);
                        }
                        let entry = next.entry().seq;
                        self.keep(at, next)?;
                        self.agent(at)?.tails.insert(id.clone(), Tail { stream, entry });
                        return Ok(());
                    }
                    None => self.catch_up(at, id)?,
                }
            } else {
                self.restore_one(at, id)?;
                self.catch_up(at, id)?;
            }
        }
        Err(Stop::Passing)
    }

    /// The fold finds again what does not get through.
    fn append_own(&mut self, at: usize, id: &CeremonyId, kind: &Kind) -> Result<(), Stop> {
        match self.append(at, id, kind) {
            Err(Stop::Crash) => Err(Stop::Crash),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn append_surely(&mut self, at: usize, id: CeremonyId, kind: Kind) -> Result<(), Stop> {
        let unsaid = &mut self.agent(at)?.unsaid;
        if !unsaid.contains(&(id.clone(), kind.clone())) {
            unsaid.push_back((id, kind));
        }
        self.say_what_was_not_taken(at)
    }

    fn say_what_was_not_taken(&mut self, at: usize) -> Result<(), Stop> {
        while let Some((id, kind)) = self.agent(at)?.unsaid.front().cloned() {
            match self.append(at, &id, &kind) {
                Err(Stop::Crash) => return Err(Stop::Crash),
                Err(Stop::Passing) => return Ok(()),
                Ok(()) | Err(Stop::Known | Stop::Refused) => {}
            }
            self.agent(at)?.unsaid.pop_front();
        }
        Ok(())
    }

    fn fault(&mut self, at: usize, id: &CeremonyId, reason: &str) -> Result<(), Stop> {
        let faulted = log::Faulted { node: u32::try_from(at).unwrap() + 1, reason: reason.into() };
        self.append_surely(at, id.clone(), Kind::Faulted(faulted))
    }

    /// The next entry of the stream.
    pub(super) fn read_one(&mut self, at: usize) -> Result<(), Stop> {
        let position = self.agent(at)?.position;
        if let Some((seq, entry)) = self.stream.next(position).cloned() {
            self.agent(at)?.position = seq;
            self.streamed(at, seq, entry)?;
        }
        self.do_duties(at)
    }

    pub(super) fn reconnected(&mut self, at: usize) -> Result<(), Stop> {
        let agent = self.agent(at)?;
        agent.tails.clear();
        agent.is_stale = false;
        let ids: Vec<CeremonyId> = agent.book.iter().map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.catch_up(at, &id)?;
            self.restore_one(at, &id)?;
        }
        self.say_what_was_not_taken(at)
    }

    pub(super) fn tick(&mut self, at: usize) -> Result<(), Stop> {
        self.say_what_was_not_taken(at)?;
        self.do_duties(at)?;
        self.drop_what_never_commits(at)
    }

    pub(super) fn do_duties(&mut self, at: usize) -> Result<(), Stop> {
        let now = self.clock(at);
        let by = node(u8::try_from(at).unwrap() + 1);
        let agent = self.agent(at)?;
        let Some(own) = agent.own else { return Ok(()) };
        let due: Vec<(CeremonyId, Duty)> = agent
            .book
            .iter()
            .filter_map(|(id, chapter)| Some((id.clone(), chapter.ceremony.duty(by, &own, now)?)))
            .collect();
        for (id, duty) in due {
            match duty {
                Duty::Attest => self.ask_for_attestation(at, &id)?,
                Duty::Fault => self.fault(at, &id, "the approved enclave was lost")?,
                Duty::Adopt => self.adopt(at, &id)?,
                Duty::Prepare if self.slip == Some(Slip::PromotesWithoutCertificate) => {
                    self.adopt(at, &id)?;
                }
                _ => self.order(at, &id, &duty)?,
            }
        }
        Ok(())
    }

    fn ask(&mut self, at: usize, asked: Asked) -> Result<u64, Stop> {
        self.requests += 1;
        let request = self.requests;
        self.agent(at)?.asked.insert(request, asked);
        Ok(request)
    }

    fn send(&mut self, at: usize, message: ToEnclave) {
        let node = &mut self.nodes[at];
        if node.is_linked {
            node.to_enclave.push_back(message);
        }
    }

    fn ask_for_attestation(&mut self, at: usize, id: &CeremonyId) -> Result<(), Stop> {
        let agent = self.agent(at)?;
        if agent.asked.values().any(|asked| matches!(asked, Asked::Attestation(other) if other == id)) {
            return Ok(());
        }
        let Some(chapter) = agent.book.get(id) else { return Ok(()) };
        let nonce = chapter.ceremony.manifest().hash();
        let request = self.ask(at, Asked::Attestation(id.clone()))?;
        self.send(at, ToEnclave::Attest { request, nonce });
        Ok(())
    }

    fn adopt(&mut self, at: usize, id: &CeremonyId) -> Result<(), Stop> {
        let without_certificate = self.slip == Some(Slip::PromotesWithoutCertificate);
        let book = &self.agent(at)?.book;
        let Some(chapter) = book.get(id) else { return Ok(()) };
        let committed = chapter.ceremony.committed();
        let staged = chapter.ceremony.staged_wallet().filter(|_| without_certificate);
        let Some(wallet) = committed.or(staged) else { return Ok(()) };
        let record = wallet.record;
        let newest = book.wallet(&record.wallet).map(|wallet| wallet.record.generation);
        if newest.is_some_and(|newest| newest > record.generation) {
            return Ok(());
        }
        self.hazard(at)?;
        if !self.nodes[at].store.promote(&record.digest()) {
            return Ok(());
        }
        self.nodes[at].promoted.insert(record.generation.0);
        if self.slip == Some(Slip::DeletesOnFirstAdoption) {
            self.delete_before(at, record.generation.0);
        }
        self.hazard(at)?;
        let adopted = log::Adopted {
            node: u32::try_from(at).unwrap() + 1,
            record: record.digest().as_bytes().to_vec(),
        };
        self.append_own(at, id, &Kind::Adopted(adopted))
    }

    fn shown(book: &Book, id: &CeremonyId) -> Option<Shown> {
        let chapter = book.get(id)?;
        let hashes = chapter.entries.iter().map(Entry::hash).collect();
        Some(Shown { hashes, ceremony: chapter.ceremony.clone() })
    }

    fn order(&mut self, at: usize, id: &CeremonyId, duty: &Duty) -> Result<(), Stop> {
        let by = node(u8::try_from(at).unwrap() + 1);
        let now = self.clock(at);
        let agent = self.agent(at)?;
        let Some(chapter) = agent.book.get(id) else { return Ok(()) };
        let ceremony = chapter.ceremony.clone();
        let Some(label) = order_label(&ceremony, duty) else { return Ok(()) };
        if !agent.ordered.insert(label) {
            return Ok(());
        }
        if let Duty::TestSign { subset, attempt, .. } = duty {
            let claim = (id.clone(), format!("{subset}/{attempt}"));
            if !self.nodes[at].store.claims.insert(claim) {
                return self.fault(at, id, "this attempt was already begun and was lost");
            }
            self.hazard(at)?;
        }
        let blob = match ceremony.share_for(duty, by) {
            None => None,
            Some(wallet) => match self.nodes[at].store.share(&wallet.record.digest()) {
                Some(share) => Some(share.blob),
                None => return self.fault(at, id, "this node's store has no share"),
            },
        };
        let request = self.ask(at, Asked::Start(id.clone(), duty.clone()))?;
        let book = &self.agent(at)?.book;
        let needed = book.needed_for(id, now).logs.into_iter();
        let others = needed.map(|log| &log.ceremony.manifest().ceremony);
        let others = others.filter_map(|other| Self::shown(book, other)).collect();
        let Some(log) = Self::shown(book, id) else { return Ok(()) };
        self.send(at, ToEnclave::Start { request, log: Box::new(log), others, blob });
        Ok(())
    }

    fn drop_what_never_commits(&mut self, at: usize) -> Result<(), Stop> {
        let agent = self.agent(at)?;
        let hopeless: Vec<CeremonyId> = agent
            .book
            .iter()
            .filter(|(id, chapter)| {
                let ceremony = &chapter.ceremony;
                ceremony.manifest().kind.makes_shares()
                    && !agent.dropped.contains(id)
                    && ceremony.can_never_commit()
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in hopeless {
            self.hazard(at)?;
            let shares = &mut self.nodes[at].store.shares;
            shares.retain(|share| share.ceremony != id || share.state != ShareState::Pending);
            self.agent(at)?.dropped.insert(id);
        }
        Ok(())
    }

    pub(super) fn enclave_says(&mut self, at: usize, message: ToAgent) -> Result<(), Stop> {
        match message {
            ToAgent::Lost => {
                let agent = self.agent(at)?;
                agent.own = None;
                agent.asked.clear();
                agent.ordered.clear();
            }
            ToAgent::Welcome(keys, said) => {
                for (id, kind) in said {
                    self.append_said(at, id, kind)?;
                }
                self.agent(at)?.own = Some(keys);
                self.do_duties(at)?;
            }
            ToAgent::Attestation(request, document) => {
                if let Some(Asked::Attestation(id)) = self.agent(at)?.asked.remove(&request) {
                    let by = u32::try_from(at).unwrap() + 1;
                    let attested = Kind::Attested(log::Attested { node: by, document });
                    self.append_own(at, &id, &attested)?;
                }
            }
            ToAgent::Refused(request) => match self.agent(at)?.asked.remove(&request) {
                Some(Asked::Start(id, duty)) if !duty.concerns_a_backup() => {
                    self.fault(at, &id, "the enclave refused")?;
                }
                _ => {}
            },
            ToAgent::Sealed { record, blob } => {
                self.hazard(at)?;
                self.nodes[at].store.put_pending(Share {
                    generation: record.generation.0,
                    ceremony: record.ceremony.clone(),
                    record: record.digest(),
                    state: ShareState::Pending,
                    blob,
                });
                if self.slip != Some(Slip::DropsOnce) {
                    self.agent(at)?.dropped.remove(&record.ceremony);
                }
                self.hazard(at)?;
                let stored = self.nodes[at].store.share(&record.digest()).map(|share| share.blob);
                match stored {
                    Some(blob) => self.send(at, ToEnclave::Stored { ceremony: record.ceremony, blob }),
                    None => self.fail("a share is not stored"),
                }
            }
            ToAgent::BackedUp { ceremony, whole, root, signature } => {
                let until = self.clock(at).plus(31 * 24 * 3_600_000).0;
                let object = |digest: Hash, name: &str| {
                    Some(log::Object {
                        key: format!("node-{at}-{name}"),
                        version: "1".into(),
                        digest: digest.as_bytes().to_vec(),
                        locked_until_ms: until,
                    })
                };
                let backed_up = log::BackedUp {
                    node: u32::try_from(at).unwrap() + 1,
                    whole: object(whole, "whole"),
                    root: object(root, "root"),
                    signature,
                };
                self.append_own(at, &ceremony, &Kind::BackedUp(backed_up))?;
                self.do_duties(at)?;
            }
            ToAgent::Said(id, kind) => {
                self.append_said(at, id, kind)?;
                self.do_duties(at)?;
            }
        }
        Ok(())
    }

    fn append_said(&mut self, at: usize, id: CeremonyId, kind: Kind) -> Result<(), Stop> {
        if let Kind::Retired(_) = &kind {
            let made = self.agent(at)?.book.get(&id).and_then(|chapter| chapter.ceremony.committed());
            if let Some(record) = made.map(|wallet| wallet.record) {
                self.hazard(at)?;
                self.delete_before(at, record.generation.0);
                self.hazard(at)?;
            }
        }
        self.append_surely(at, id, kind)
    }

    /// The store's own order of work: what is older goes.
    fn delete_before(&mut self, at: usize, generation: u32) {
        self.check_deletion(at, generation);
        self.nodes[at].store.shares.retain(|share| share.generation >= generation);
    }

    /// Lets an order be given again: its keeper has handed a backup in.
    pub(super) fn ask_again(&mut self, at: usize, id: &CeremonyId, duty: &Duty) {
        let Some(agent) = self.nodes[at].agent.as_mut() else { return };
        let label = agent.book.get(id).and_then(|chapter| order_label(&chapter.ceremony, duty));
        if let Some(label) = label {
            agent.ordered.remove(&label);
        }
    }
}

fn refusal(refused: &NotTaken) -> Stop {
    if let NotTaken::Rejected { source, .. } = refused
        && let Rejection::SaidAlready(_) | Rejection::AttestedAlready(_) | Rejection::SignedAlready { .. } =
            **source
    {
        return Stop::Known;
    }
    Stop::Refused
}
