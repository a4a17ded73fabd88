//! Doing what the fold says this node must do next. Whatever is interrupted is found again here.

use ceremonies::book::Chapter;
use ceremonies::ceremony::{Ceremony, Duty, Phase};
use ceremonies::ids::{CeremonyId, Hash};
use ceremonies::log::{Entry, Event};
use ceremonies::record::{HOSTILE, quorum};
use ceremonies::script::Act;
use enclave_link::check_size;
use enclave_link::message::{self, Attest, Start, Stop, ToEnclave, to_enclave};
use tracing::{info, warn};

use super::append::{Pending, Wish};
use super::writer::{Then, Writer};
use super::{Asked, Core, Effect, Failure, StoreOp, StoreReply, Ticket, Waiting};
use crate::store::Claim;

/// How an order is remembered: by its session or, if there is none, by what is to be said.
pub(super) fn order_label(ceremony: &Ceremony, duty: &Duty) -> Option<Hash> {
    let word = match duty {
        Duty::Prepare => "prepare",
        Duty::Retire => "retire",
        Duty::Attest
        | Duty::Fault
        | Duty::Repair { .. }
        | Duty::Rebuild
        | Duty::Generate
        | Duty::Restore { .. }
        | Duty::Backup { .. }
        | Duty::Prove { .. }
        | Duty::Adopt
        | Duty::TestSign { .. } => return ceremony.session(duty).map(|spec| spec.label),
    };
    let id = ceremony.manifest().ceremony.as_str();
    Some(Hash::of_parts("custody/order/v1", &[id.as_bytes(), word.as_bytes()]))
}

/// An order on its way to the enclave.
#[derive(Debug)]
pub(super) struct Order {
    ceremony: CeremonyId,
    duty: Duty,
    /// The sealed share that it needs.
    blob: Vec<u8>,
    /// The released backup that it needs.
    backup: Vec<u8>,
}

impl Core {
    /// What is due in the ceremonies that are under way. Nothing is done on a log that has not been read whole, or
    /// about which nodes disagree.
    pub(super) fn do_duties(&mut self) {
        if !self.duties_due {
            return;
        }
        self.end_what_is_over();
        if !self.stream.is_read() {
            return;
        }
        self.duties_due = false;
        let now = self.now.wall;
        let (mut due, mut unheard) = (Vec::new(), Vec::new());
        for id in &self.running {
            let Some(chapter) = self.book.get(id) else { continue };
            if !self.has_heard(id) {
                unheard.push(id.clone());
            } else if let Some(own) = self.own.filter(|_| self.may_act(id)) {
                due.extend(chapter.ceremony.duty(self.node(), &own, now).map(|duty| (id.clone(), duty)));
            }
        }
        self.ask_for_heads(&unheard);
        for (ceremony, duty) in due {
            self.do_duty(&ceremony, duty);
        }
    }

    /// Whether this node may do what is due in a ceremony: nodes agree about its log, nothing of its own is on its way into
    /// it, and nobody has withdrawn it.
    fn may_act(&self, id: &CeremonyId) -> bool {
        self.is_settled(id) && !self.is_saying(id) && !self.is_being_ended(id)
    }

    /// Lets go of the ceremonies that are over. Whoever has withdrawn one need not wait for a session that is being stalled,
    /// nor for the rest of the record: the enclave gives it up at once.
    fn end_what_is_over(&mut self) {
        let now = self.now.wall;
        let mut over = Vec::new();
        for id in &self.running {
            match self.book.get(id).map(|chapter| chapter.ceremony.phase_at(now)) {
                Some(Phase::Void(_)) => over.push((id.clone(), true)),
                Some(Phase::Closed) => over.push((id.clone(), false)),
                Some(Phase::Gathering | Phase::Authorised | Phase::Committed | Phase::Abandoned(_))
                | None => {}
            }
        }
        for (id, is_void) in over {
            self.running.remove(&id);
            self.declined.remove(&id);
            if is_void && self.own.is_some() {
                self.stop_enclave(&id);
            }
        }
    }

    /// Has the enclave give up whatever it does in a ceremony.
    pub(super) fn stop_enclave(&mut self, id: &CeremonyId) {
        self.tell_enclave(to_enclave::Kind::Stop(Stop { ceremony: id.to_string() }));
    }

    /// Whether this node has heard where the others stand in a log, and has all that they have. A log that it did not know
    /// may have come only in part: a stream that was lost is given back entry by entry. They are not waited for any
    /// longer than it takes them to answer, because they may be down or lie; nor is what only one of them claims to have,
    /// which cannot be recorded.
    fn has_heard(&self, id: &CeremonyId) -> bool {
        let Some(log) = self.logs.get(id) else { return false };
        let members = self.members();
        let heads = log.ballot.heads().filter(|(head, _)| members.contains(&head.node));
        let is_whole = heads.count() >= quorum(members.len()) && log.ballot.needs(&log.tree).len() <= HOSTILE;
        is_whole || !log.is_new(self.now.steady)
    }

    /// Whether something of this node's own is on its way into the log: what it has to do next follows from it.
    fn is_saying(&self, id: &CeremonyId) -> bool {
        self.is_on_its_way(id, |pending| match pending.wish {
            Wish::Own | Wish::Once => true,
            Wish::Console(_) | Wish::Withdrawal(_) | Wish::Again => false,
        })
    }

    /// Whether such an event waits to be appended to a log, or is just being appended.
    pub(super) fn is_on_its_way(&self, id: &CeremonyId, is_such: impl Fn(&Pending) -> bool) -> bool {
        let waits = self.logs.get(id).is_some_and(|log| log.pending.iter().any(&is_such));
        let is_written = match &self.writer {
            Writer::Appending(next, pending)
            | Writer::Storing { then: Then::Commit(next, _, Some(pending)), .. } => {
                next.entry().ceremony == *id && is_such(pending)
            }
            Writer::Idle
            | Writer::Reading(_)
            | Writer::Recalling(_)
            | Writer::Restoring(..)
            | Writer::Storing { .. } => false,
        };
        waits || is_written
    }

    fn do_duty(&mut self, ceremony: &CeremonyId, duty: Duty) {
        match duty {
            Duty::Attest => self.ask_for_attestation(ceremony),
            Duty::Fault => self.fault(ceremony, "the approved enclave was lost"),
            Duty::Adopt => self.adopt(ceremony),
            Duty::Repair { .. }
            | Duty::Rebuild
            | Duty::Generate
            | Duty::TestSign { .. }
            | Duty::Restore { .. }
            | Duty::Backup { .. }
            | Duty::Prove { .. }
            | Duty::Prepare
            | Duty::Retire => self.order(ceremony, duty),
        }
    }

    fn ask_for_attestation(&mut self, id: &CeremonyId) {
        let waiting = |asked: &Asked| matches!(asked, Asked::Attestation(waiting) if waiting == id);
        if self.asked.values().any(waiting) {
            return;
        }
        // All are tried, so that every trouble is reported at once.
        let is_ready = [self.store_is_ready(), self.kms_is_ready(), self.vault_is_ready(id)];
        if is_ready.contains(&false) {
            return;
        }
        let Some(chapter) = self.book.get(id) else { return };
        if let Some(why) = self.why_not_attest(&chapter.ceremony) {
            return self.decline(id, why);
        }
        let nonce = chapter.ceremony.manifest().hash().as_bytes().to_vec();
        self.declined.remove(id);
        let request = self.request_id(Asked::Attestation(id.clone()));
        self.tell_enclave(to_enclave::Kind::Attest(Attest { request, nonce }));
    }

    /// Why this node's enclave must not take part in a ceremony as things are.
    fn why_not_attest(&self, ceremony: &Ceremony) -> Option<String> {
        if let Some(rival) = self.book.rival(ceremony, self.now.wall) {
            return Some(format!("another ceremony makes the same generation: {rival}"));
        }
        let lacks = !self.has_its_share_for(ceremony);
        lacks.then(|| format!("this node has no share of {}", ceremony.manifest().wallet))
    }

    /// Reports once why this node does not attest, and again if that changes: it may wait for as long as the ceremony lasts.
    fn decline(&mut self, id: &CeremonyId, why: String) {
        if self.declined.get(id) != Some(&why) {
            warn!(ceremony = %id, %why, "not attesting");
            self.declined.insert(id.clone(), why);
        }
    }

    /// Whether this node has a share of the wallet that a ceremony which has not begun works with: nobody should approve what
    /// must fail. That it is an old one, of a store that was set back, its enclave finds out, and says.
    fn has_its_share_for(&self, ceremony: &Ceremony) -> bool {
        let manifest = ceremony.manifest();
        let is_begun = ceremony.phase_at(self.now.wall) != Phase::Gathering;
        manifest.origin.is_none()
            || is_begun
            || manifest.lost().contains_key(&self.node())
            || self.observed.may_hold(&manifest.wallet)
    }

    pub(super) fn request_id(&mut self, asked: Asked) -> u64 {
        let request = self.next_request;
        self.next_request += 1;
        self.asked.insert(request, asked);
        request
    }

    fn adopt(&mut self, id: &CeremonyId) {
        let adopting = |waiting: &Waiting| matches!(waiting, Waiting::Promoted(waiting) if waiting == id);
        let committed = self.book.get(id).and_then(|chapter| chapter.ceremony.committed());
        let Some(record) = committed.map(|wallet| wallet.record) else { return };
        let newest = self.book.wallet(&record.wallet).map(|wallet| wallet.record.generation);
        if newest.is_some_and(|newest| newest > record.generation) || self.waiting.values().any(adopting) {
            return;
        }
        let op = StoreOp::Promote(record.wallet.clone(), record.generation, record.digest());
        self.store(op, Waiting::Promoted(id.clone()));
    }

    pub(super) fn promoted(&mut self, id: &CeremonyId, result: Result<(), Failure>) {
        if let Err(trouble) = result {
            warn!(ceremony = %id, %trouble, "committed share could not be made current");
            return;
        }
        let committed = self.book.get(id).and_then(|chapter| chapter.ceremony.committed());
        let Some(record) = committed.map(|wallet| wallet.record) else { return };
        info!(ceremony = %id, wallet = %record.wallet, generation = %record.generation, "share made current");
        self.append_own(id, Event::Adopted { node: self.node(), record: record.digest() });
    }

    /// Hands the enclave the log and lets it do what is due, once per connection and session: an enclave that lost the
    /// session, or refused it, is not asked again.
    fn order(&mut self, id: &CeremonyId, duty: Duty) {
        let Some(chapter) = self.book.get(id) else { return };
        let Some(label) = order_label(&chapter.ceremony, &duty) else { return };
        let rests = matches!(duty, Duty::Backup { .. }) && self.now.steady < self.vault_rests_until;
        if rests || !self.ordered.insert(label) {
            return;
        }
        let order = Box::new(Order { ceremony: id.clone(), duty, blob: Vec::new(), backup: Vec::new() });
        match self.claim(&order) {
            Some(op) => self.store(op, Waiting::Claimed(order)),
            None => self.read_for(order),
        }
    }

    /// Claims a test signature once and for all: one that was begun before may have been signed, and is not begun
    /// again.
    fn claim(&self, order: &Order) -> Option<StoreOp> {
        let Duty::TestSign { subset, attempt, input } = &order.duty else { return None };
        let to_sign = self.book.get(&order.ceremony)?.ceremony.to_sign(subset, *attempt, *input)?;
        Some(StoreOp::ClaimSigning {
            request: format!("{}/{subset}/{attempt}/{input}", order.ceremony),
            digest: to_sign.digest,
            path: to_sign.path.to_string(),
        })
    }

    pub(super) fn claimed(&mut self, order: Box<Order>, result: Result<StoreReply, Failure>) {
        match result {
            Ok(StoreReply::Claim(Claim::New)) => self.read_for(order),
            Ok(_) => self.not_ordered(&order, "this attempt was already begun and was lost"),
            Err(trouble) => self.not_ordered(&order, &trouble),
        }
    }

    /// The sealed share that the enclave needs for a duty, or the backup that was released to it.
    fn read_for(&mut self, order: Box<Order>) {
        let Some(chapter) = self.book.get(&order.ceremony) else { return };
        let ceremony = &chapter.ceremony;
        let op = match ceremony.share_for(&order.duty, self.node()).map(|wallet| wallet.record) {
            Some(record) => StoreOp::Share(record.wallet.clone(), record.generation, record.digest()),
            None => match self.released_object(ceremony, &order.duty) {
                Ok(Some(object)) => StoreOp::Released(object),
                Ok(None) => return self.fetch_credentials(order),
                Err(why) => return self.not_ordered(&order, why),
            },
        };
        self.store(op, Waiting::OrderRead(order));
    }

    /// The backup that a duty needs; none where it needs none.
    fn released_object(&self, ceremony: &Ceremony, duty: &Duty) -> Result<Option<Hash>, &'static str> {
        let act = match duty {
            Duty::Prove { .. } => Act::Prove,
            Duty::Restore { .. } => Act::Recover,
            Duty::Attest
            | Duty::Fault
            | Duty::Repair { .. }
            | Duty::Rebuild
            | Duty::Generate
            | Duty::Backup { .. }
            | Duty::Prepare
            | Duty::Retire
            | Duty::Adopt
            | Duty::TestSign { .. } => return Ok(None),
        };
        let release = ceremony.release(act, self.node()).ok_or("nothing was released to this node")?;
        Ok(Some(release.object))
    }

    pub(super) fn order_read(&mut self, mut order: Box<Order>, result: Result<StoreReply, Failure>) {
        match result {
            Ok(StoreReply::Share(Some(share))) => order.blob = share.blob,
            Ok(StoreReply::Object(Some(object))) => order.backup = object,
            Ok(StoreReply::Share(None)) => {
                let needed = self.book.get(&order.ceremony);
                let needed = needed.and_then(|chapter| chapter.ceremony.share_for(&order.duty, self.node()));
                let named = needed.map_or_else(String::new, |wallet| {
                    format!(" of {}, generation {}", wallet.record.wallet, wallet.record.generation)
                });
                return self.not_ordered(
                    &order,
                    &format!("this node's store has no share{named}: have the node recovered"),
                );
            }
            Ok(StoreReply::Object(None)) => {
                return self.not_ordered(&order, "the backup was released, but its file was never handed in");
            }
            Ok(
                StoreReply::Done
                | StoreReply::Count(_)
                | StoreReply::Claim(_)
                | StoreReply::Held(_)
                | StoreReply::Log(_),
            ) => {
                return self.not_ordered(&order, "the store gave an answer of the wrong kind");
            }
            Err(trouble) => return self.not_ordered(&order, &trouble),
        }
        self.fetch_credentials(order);
    }

    fn fetch_credentials(&mut self, order: Box<Order>) {
        let ticket = self.ticket(Waiting::OrderCredentials(order));
        self.effect(Effect::FetchCredentials(ticket));
    }

    pub(super) fn credentials(&mut self, ticket: Ticket, result: Result<message::Credentials, Failure>) {
        if let Err(trouble) = &result {
            if self.observed.kms.text() != &**trouble {
                warn!(%trouble, "no AWS credentials for the enclave");
            }
            self.observed.kms.rose(trouble, self.now);
        }
        match (self.waiting.remove(&ticket), result) {
            (Some(Waiting::TrialCredentials), lent) => self.trial_credentials(lent),
            (Some(Waiting::OrderCredentials(order)), Ok(lent)) => self.give_order(*order, lent),
            (Some(Waiting::OrderCredentials(order)), Err(trouble)) => {
                self.fault(&order.ceremony, &trouble);
            }
            (Some(Waiting::SealedCredentials(ceremony, blob)), Ok(lent)) => {
                let stored =
                    message::Stored { ceremony: ceremony.to_string(), blob, credentials: Some(lent) };
                self.tell_enclave(to_enclave::Kind::Stored(stored));
            }
            (Some(Waiting::SealedCredentials(ceremony, _)), Err(trouble)) => {
                self.fault(&ceremony, &format!("share not reopened: {trouble}"));
            }
            (Some(_), _) => warn!("credentials arrived that nothing needs"),
            // The enclave was lost meanwhile.
            (None, _) => {}
        }
    }

    /// Why nothing was ordered. A backup's keeper hands it in again, and then it is asked for again.
    fn not_ordered(&mut self, order: &Order, why: &str) {
        if order.duty.concerns_a_backup() {
            warn!(ceremony = %order.ceremony, %why, "nothing done with the backup");
            self.observed.vault.rose(why, self.now);
        } else {
            warn!(ceremony = %order.ceremony, %why, "session not begun");
            self.fault(&order.ceremony, why);
        }
    }

    fn give_order(&mut self, order: Order, lent: message::Credentials) {
        let Order { ceremony, duty, blob, backup } = order;
        let Some(chapter) = self.book.get(&ceremony).filter(|_| !self.is_being_ended(&ceremony)) else {
            return;
        };
        let encoded = |chapter: &Chapter| chapter.entries.iter().map(Entry::encode).collect();
        let needed = self.book.needed_for(&ceremony, self.now.wall);
        let start = Start {
            request: self.next_request,
            node: self.node().into(),
            charter: self.identity.charter.text().as_bytes().to_vec(),
            log: encoded(chapter),
            others: needed.logs.into_iter().map(|log| message::Log { entries: encoded(log) }).collect(),
            records: needed.records.into_iter().map(|record| record.as_bytes().to_vec()).collect(),
            blob,
            credentials: Some(lent),
            backup,
        };
        let message = ToEnclave { kind: Some(to_enclave::Kind::Start(start)) };
        if let Err(error) = check_size(&message) {
            let reason = format!("the order for this ceremony is too large: {error}");
            warn!(%ceremony, %reason, "not ordered");
            return self.fault(&ceremony, &reason);
        }
        info!(%ceremony, ?duty, "ordered");
        self.request_id(Asked::Start(ceremony, duty));
        if let Some(kind) = message.kind {
            self.tell_enclave(kind);
        }
    }

    /// Pending shares of ceremonies that are proven never to commit. Any doubt keeps them.
    pub(super) fn drop_what_never_commits(&mut self) {
        let hopeless: Vec<CeremonyId> = self
            .book
            .iter()
            .filter(|(_, chapter)| chapter.ceremony.manifest().kind.makes_shares())
            .filter(|(id, _)| !self.observed.dropped.contains(*id))
            .filter(|(_, chapter)| chapter.ceremony.can_never_commit())
            .map(|(id, _)| id.clone())
            .collect();
        for ceremony in hopeless {
            self.observed.dropped.insert(ceremony.clone());
            self.store(StoreOp::DiscardPending(ceremony.clone()), Waiting::Discarded(ceremony));
        }
    }

    pub(super) fn discarded(&mut self, ceremony: &CeremonyId, result: Result<(), Failure>) {
        if let Err(trouble) = result {
            warn!(%ceremony, %trouble, "pending share not discarded");
            self.observed.dropped.remove(ceremony);
        }
    }
}
