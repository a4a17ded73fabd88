//! What the enclave says, and what becomes of it.

use ceremonies::attestation::EnclaveKeys;
use ceremonies::ceremony::Duty;
use ceremonies::deploy::subject;
use ceremonies::ids::{CeremonyId, Generation, Hash, NodeIndex};
use ceremonies::log::Event;
use ceremonies::said::{self, Topic};
use ceremonies::wire::{bus, log};
use enclave_link::message::{self, from_enclave};
use prost::Message;
use tracing::{error, info, warn};

use super::{Asked, Core, Effect, Failure, StoreOp, StoreReply, Waiting};
use crate::store::PendingShare;

impl Core {
    pub(super) fn enclave_lost(&mut self) {
        warn!("enclave lost; its sessions are over");
        // It may be back before anybody looks.
        self.past.note("enclave", "the link was lost", self.now);
        self.own = None;
        self.asked.clear();
        self.ordered.clear();
        self.observed.document.clear();
        self.forget_kms_answer();
        self.waiting.retain(|_, waiting| {
            !matches!(
                waiting,
                Waiting::SealedCredentials(..)
                    | Waiting::SealedStored(_)
                    | Waiting::OrderCredentials(_)
                    | Waiting::TrialCredentials
            )
        });
    }

    pub(super) fn enclave_says(&mut self, message: from_enclave::Kind) {
        self.duties_due = true;
        match message {
            from_enclave::Kind::Welcome(welcome) => self.welcomed(welcome),
            from_enclave::Kind::Attestation(attestation) => self.attested(attestation),
            from_enclave::Kind::Refused(refused) => self.refused(&refused),
            from_enclave::Kind::Progress(progress) => self.pass_progress(progress),
            from_enclave::Kind::Sealed(sealed) => self.store_sealed(sealed),
            from_enclave::Kind::Evidence(evidence) => self.keep_evidence(evidence),
            from_enclave::Kind::Backups(backups) => self.put_backups(backups),
            from_enclave::Kind::Said(said) => self.append_said(&said),
            from_enclave::Kind::KmsTried(tried) => match self.asked.remove(&tried.request) {
                Some(Asked::Kms) if tried.trouble.is_empty() => self.kms_tried(Ok(())),
                Some(Asked::Kms) => self.kms_tried(Err(tried.trouble.into())),
                Some(Asked::Attestation(_) | Asked::Health | Asked::Start(..)) | None => {
                    warn!("the enclave answered what was not asked");
                }
            },
            // The relay and the link's own task handle these.
            from_enclave::Kind::Send(_)
            | from_enclave::Kind::StreamOpened(_)
            | from_enclave::Kind::StreamData(_)
            | from_enclave::Kind::StreamClosed(_) => {}
        }
    }

    fn welcomed(&mut self, welcome: message::Welcome) {
        let key = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).ok();
        let keys = key(&welcome.identity).zip(key(&welcome.sealing));
        let Some((identity, sealing)) = keys.filter(|_| welcome.version == enclave_link::VERSION) else {
            let trouble =
                format!("the enclave speaks version {} of the link or has malformed keys", welcome.version);
            warn!(%trouble, "enclave not usable");
            self.observed.enclave.rose(&trouble, self.now);
            return;
        };
        info!(build = %welcome.build, "enclave is up");
        self.observed.enclave.cleared();
        self.enclave_build = welcome.build;
        // What it said before this agent crashed comes first: it may end what would otherwise be begun again.
        for said in &welcome.said {
            self.append_said(said);
        }
        self.own = Some(EnclaveKeys { identity, sealing });
    }

    fn append_said(&mut self, said: &message::Said) {
        let event = log::Event::decode(said.event.as_slice());
        let (Ok(ceremony), Ok(log::Event { kind: Some(kind) })) = (said.ceremony.parse(), event) else {
            warn!("the enclave sent a malformed message");
            return;
        };
        self.observed.note_said(&kind, self.now);
        if matches!(kind, log::event::Kind::Aborted(_)) {
            self.forget_kms_trial();
        }
        if let log::event::Kind::Aborted(aborted) = &kind
            && let Ok(peer) = NodeIndex::try_from(aborted.banned)
        {
            let (id, reason) = (CeremonyId::clone(&ceremony), aborted.reason.clone());
            let op = StoreOp::RecordBan { peer, ceremony: id, reason };
            return self.store(op, Waiting::BanStored(ceremony, Box::new(kind)));
        }
        if let log::event::Kind::Retired(_) = &kind {
            return self.delete_retired(ceremony, kind);
        }
        self.say(&ceremony, kind);
    }

    fn say(&mut self, id: &CeremonyId, kind: log::event::Kind) {
        let used = matches!(kind, log::event::Kind::Proved(_) | log::event::Kind::Recovered(_));
        self.append_once(id, kind);
        if used {
            self.store(StoreOp::DropReleased(id.clone()), Waiting::Nothing("forget a released backup"));
        }
    }

    /// A ban is in the store before anyone hears of it.
    pub(super) fn ban_stored(
        &mut self,
        id: &CeremonyId,
        kind: log::event::Kind,
        result: Result<(), Failure>,
    ) {
        match result {
            Ok(()) => self.say(id, kind),
            Err(trouble) => {
                warn!(ceremony = %id, %trouble, "ban not stored yet");
                if let log::event::Kind::Aborted(aborted) = &kind
                    && let Ok(peer) = NodeIndex::try_from(aborted.banned)
                {
                    let op =
                        StoreOp::RecordBan { peer, ceremony: id.clone(), reason: aborted.reason.clone() };
                    self.later(op, Waiting::BanStored(id.clone(), Box::new(kind)));
                }
            }
        }
    }

    /// The enclave has forgotten its old shares; they are deleted from the store before anyone hears of it.
    fn delete_retired(&mut self, id: CeremonyId, kind: log::event::Kind) {
        let made = self.book.get(&id).and_then(|chapter| chapter.ceremony.committed());
        match made.map(|wallet| wallet.record) {
            Some(record) => {
                let op = StoreOp::DeleteBefore(record.wallet, record.generation);
                self.store(op, Waiting::RetiredDeleted(id, Box::new(kind)));
            }
            None => self.say(&id, kind),
        }
    }

    pub(super) fn retired_deleted(
        &mut self,
        id: &CeremonyId,
        kind: log::event::Kind,
        result: Result<(), Failure>,
    ) {
        match result {
            Ok(()) => {
                info!(ceremony = %id, "old shares deleted");
                self.say(id, kind);
            }
            Err(trouble) => {
                warn!(ceremony = %id, %trouble, "old shares not deleted");
                // The enclave says it again when it is asked again.
                self.ask_again(id, &Duty::Retire);
            }
        }
    }

    /// Keeps what an accusation rests on, for whoever investigates it.
    fn keep_evidence(&mut self, evidence: message::Evidence) {
        let named =
            evidence.ceremony.parse::<CeremonyId>().ok().zip(NodeIndex::try_from(evidence.culprit).ok());
        let Some((ceremony, culprit)) = named else {
            warn!("the enclave sent an accusation that names no node");
            return;
        };
        warn!(%ceremony, %culprit, "node {culprit} contradicted itself; keeping its signed messages in the store");
        let op = StoreOp::KeepEvidence(ceremony, culprit, evidence.envelopes);
        self.store(op, Waiting::Nothing("keep evidence"));
    }

    fn attested(&mut self, attestation: message::Attestation) {
        match self.asked.remove(&attestation.request) {
            Some(Asked::Attestation(ceremony)) => {
                let attested = Event::Attested { node: self.node(), document: attestation.document };
                self.append_own(&ceremony, attested);
            }
            Some(Asked::Health) => {
                self.observed.enclave.cleared();
                self.observed.document = attestation.document;
            }
            Some(Asked::Start(..) | Asked::Kms) | None => {
                warn!("the enclave answered what was not asked");
            }
        }
    }

    fn refused(&mut self, refused: &message::Refused) {
        match self.asked.remove(&refused.request) {
            Some(Asked::Start(ceremony, duty)) if duty.concerns_a_backup() => {
                warn!(%ceremony, reason = %refused.reason, "the enclave did nothing with the backup");
                self.observed.vault.rose(&refused.reason, self.now);
            }
            Some(Asked::Start(ceremony, _)) => {
                warn!(%ceremony, reason = %refused.reason, "the enclave refused the session");
                self.fault(&ceremony, &format!("the enclave refused: {}", refused.reason));
            }
            Some(Asked::Attestation(_) | Asked::Health) => {
                warn!(reason = %refused.reason, "the enclave did not attest");
                self.observed.enclave.rose(&refused.reason, self.now);
            }
            Some(Asked::Kms) => self.kms_tried(Err(refused.reason.as_str().into())),
            None => warn!(reason = %refused.reason, "the enclave refused what was not asked"),
        }
    }

    fn pass_progress(&mut self, progress: message::Progress) {
        self.observed.note_round(self.now);
        let Ok(ceremony) = progress.ceremony.parse::<CeremonyId>() else { return };
        let news = bus::Progress {
            version: ceremonies::wire::VERSION,
            ceremony: progress.ceremony,
            node: self.node().into(),
            time_ms: self.now.wall.0,
            session: hex::encode(&progress.label),
            phase: progress.phase,
            phase_number: progress.phase_number,
            phase_count: progress.phase_count,
            waiting_for: progress.waiting_for,
            parties: progress.parties,
        };
        let sign = |message: &[u8]| self.identity.sign(message);
        let cluster = self.identity.charter.cluster();
        match said::say(cluster, Topic::Progress, self.node(), news.encode_to_vec(), sign) {
            Ok(payload) => self.publish(subject::progress(&ceremony, self.node()), payload),
            Err(error) => error!(%error, "progress not signed"),
        }
    }

    /// Stores a new share as pending and shows the enclave what was read back.
    fn store_sealed(&mut self, sealed: message::Sealed) {
        let ceremony = sealed.ceremony.parse::<CeremonyId>().ok();
        let wallet = sealed.wallet.parse().ok();
        let record = Hash::try_from(sealed.record.as_slice()).ok();
        let Some(((ceremony, wallet), record)) = ceremony.zip(wallet).zip(record) else {
            warn!("the enclave named a malformed ceremony, wallet or record");
            return;
        };
        let generation = Generation(sealed.generation);
        // It may be proven in the meantime that it never commits; then it is looked at again.
        self.observed.dropped.remove(&ceremony);
        let share =
            PendingShare { wallet, generation, ceremony: ceremony.clone(), record, blob: sealed.blob };
        self.store(StoreOp::PutPending(share), Waiting::SealedStored(ceremony));
    }

    pub(super) fn sealed_stored(&mut self, ceremony: CeremonyId, result: Result<StoreReply, Failure>) {
        let why = match result {
            Ok(StoreReply::Share(Some(share))) => {
                let ticket = self.ticket(Waiting::SealedCredentials(ceremony, share.blob));
                return self.effect(Effect::FetchCredentials(ticket));
            }
            Ok(_) => "the store did not return the share that it had just stored".into(),
            Err(trouble) => trouble,
        };
        warn!(%ceremony, %why, "share not stored");
        self.fault(&ceremony, &format!("share not stored: {why}"));
    }
}
