//! What the enclave says, and what becomes of it.

use ::enclave::wire::link::{self, from_enclave, to_enclave};
use ceremonies::attestation::EnclaveKeys;
use ceremonies::ceremony::Duty;
use ceremonies::ids::{CeremonyId, Generation, Hash, NodeIndex, WalletName};
use ceremonies::text::chain;
use ceremonies::wire::{bus, log};
use prost::Message;
use tracing::{info, warn};

use super::duties::order_label;
use super::{Agent, Asked, now};
use crate::credentials;
use crate::link::LinkEvent;
use crate::store::{PendingShare, StoreError};

impl Agent {
    pub(super) async fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Lost => {
                warn!("enclave lost; its sessions are over");
                self.own = None;
                self.asked.clear();
                self.ordered.clear();
                self.observed.document.clear();
            }
            LinkEvent::Message(message) => self.enclave_says(message).await,
        }
    }

    async fn enclave_says(&mut self, message: from_enclave::Kind) {
        match message {
            from_enclave::Kind::Welcome(welcome) => self.welcomed(welcome).await,
            from_enclave::Kind::Attestation(attestation) => self.attested(attestation).await,
            from_enclave::Kind::Refused(refused) => self.refused(refused).await,
            from_enclave::Kind::Send(send) => self.send_on(send).await,
            from_enclave::Kind::Progress(progress) => self.pass_progress(progress).await,
            from_enclave::Kind::Sealed(sealed) => self.store_sealed(sealed).await,
            from_enclave::Kind::Evidence(evidence) => self.keep_evidence(evidence).await,
            from_enclave::Kind::Backups(backups) => {
                self.put_backups(backups).await;
                self.do_duties().await;
            }
            from_enclave::Kind::Said(said) => {
                self.append_said(said).await;
                self.do_duties().await;
            }
            // The link's own task takes these.
            from_enclave::Kind::StreamOpened(_)
            | from_enclave::Kind::StreamData(_)
            | from_enclave::Kind::StreamClosed(_) => {}
        }
    }

    async fn welcomed(&mut self, welcome: link::Welcome) {
        let key = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).ok();
        let keys = key(&welcome.identity).zip(key(&welcome.sealing));
        let Some((identity, sealing)) = keys.filter(|_| welcome.version == ::enclave::wire::VERSION) else {
            self.observed.enclave_trouble =
                format!("the enclave speaks version {} of the link or has malformed keys", welcome.version);
            warn!(trouble = %self.observed.enclave_trouble, "enclave not usable");
            return;
        };
        info!(build = %welcome.build, "enclave is up");
        self.observed.enclave_trouble.clear();
        self.enclave_build = welcome.build;
        // What it said before a crash of this agent comes first: it may end what would be begun again.
        for said in welcome.said {
            self.append_said(said).await;
        }
        self.own = Some(EnclaveKeys { identity, sealing });
        self.do_duties().await;
    }

    async fn append_said(&mut self, said: link::Said) {
        let event = log::Event::decode(said.event.as_slice());
        let (Ok(ceremony), Ok(log::Event { kind: Some(kind) })) = (said.ceremony.parse(), event) else {
            warn!("the enclave said something malformed");
            return;
        };
        self.observed.note_said(&kind);
        if let log::event::Kind::Aborted(aborted) = &kind
            && let Ok(peer) = NodeIndex::try_from(aborted.banned)
            && let Err(error) = self.store.record_ban(self.node(), peer, &ceremony, &aborted.reason).await
        {
            warn!(error = %chain(&error), "ban not stored");
            return;
        }
        if let log::event::Kind::Retired(_) = &kind
            && let Err(error) = self.delete_retired(&ceremony).await
        {
            self.observed.store_trouble = chain(&error);
            warn!(%ceremony, error = %chain(&error), "old shares not deleted");
            // The enclave says it again when it is asked again.
            let chapter = self.book.get(&ceremony);
            let label = chapter.and_then(|chapter| order_label(&chapter.ceremony, &Duty::Retire));
            label.map(|label| self.ordered.remove(&label));
            return;
        }
        let used = matches!(kind, log::event::Kind::Proved(_) | log::event::Kind::Recovered(_));
        self.append_surely(ceremony.clone(), kind).await;
        if used && let Err(error) = self.store.drop_released(&ceremony).await {
            warn!(%ceremony, error = %chain(&error), "released backup not dropped");
        }
    }

    /// The enclave has forgotten its old shares; they go from the store before anybody hears of it.
    async fn delete_retired(&self, ceremony: &CeremonyId) -> Result<(), StoreError> {
        let made = self.book.get(ceremony).and_then(|chapter| chapter.ceremony.committed());
        let Some(record) = made.map(|wallet| wallet.record) else { return Ok(()) };
        let deleted = self.store.delete_before(&record.wallet, record.generation).await?;
        info!(%ceremony, wallet = %record.wallet, before = %record.generation, deleted, "old shares deleted");
        Ok(())
    }

    /// Keeps what an accusation rests on, for whoever investigates it.
    async fn keep_evidence(&mut self, evidence: link::Evidence) {
        let named =
            evidence.ceremony.parse::<CeremonyId>().ok().zip(NodeIndex::try_from(evidence.culprit).ok());
        let Some((ceremony, culprit)) = named else {
            warn!("the enclave accused nobody of something");
            return;
        };
        for envelope in &evidence.envelopes {
            if let Err(error) = self.store.keep_evidence(&ceremony, culprit, envelope).await {
                self.observed.store_trouble = chain(&error);
                warn!(%ceremony, %culprit, error = %chain(&error), "evidence not stored");
            }
        }
        warn!(%ceremony, %culprit, "node {culprit} contradicted itself; its signed messages are in the store");
    }

    async fn attested(&mut self, attestation: link::Attestation) {
        match self.asked.remove(&attestation.request) {
            Some(Asked::Attestation(ceremony)) => {
                let attested = log::Attested { node: self.node().into(), document: attestation.document };
                self.append_own(&ceremony, log::event::Kind::Attested(attested)).await;
            }
            Some(Asked::Health) => self.observed.document = attestation.document,
            Some(Asked::Start(..)) | None => warn!("the enclave answered what was not asked"),
        }
    }

    async fn refused(&mut self, refused: link::Refused) {
        match self.asked.remove(&refused.request) {
            Some(Asked::Start(ceremony, duty)) if duty.concerns_a_backup() => {
                warn!(%ceremony, reason = %refused.reason, "the enclave did nothing with the backup");
                self.observed.vault_trouble = refused.reason;
            }
            Some(Asked::Start(ceremony, _)) => {
                warn!(%ceremony, reason = %refused.reason, "the enclave refused the session");
                self.fault(&ceremony, &format!("the enclave refused: {}", refused.reason)).await;
            }
            Some(Asked::Attestation(_) | Asked::Health) => {
                self.observed.enclave_trouble.clone_from(&refused.reason);
                warn!(reason = %refused.reason, "the enclave did not attest");
            }
            None => warn!(reason = %refused.reason, "the enclave refused what was not asked"),
        }
    }

    async fn send_on(&mut self, send: link::Send) {
        let address = Hash::try_from(send.label.as_slice()).ok().zip(NodeIndex::try_from(send.to).ok());
        let Some((label, to)) = address else {
            warn!("the enclave addressed a message to nobody");
            return;
        };
        // A message that the bus loses ends its session at the deadline, and that is said by the enclaves.
        if let Err(error) = self.bus.send_session(to, &label, send.payload).await {
            warn!(%to, error = %chain(&error), "session message not sent");
        }
    }

    async fn pass_progress(&mut self, progress: link::Progress) {
        self.observed.note_round();
        let Ok(ceremony) = progress.ceremony.parse::<CeremonyId>() else { return };
        let news = bus::Progress {
            version: ceremonies::wire::VERSION,
            ceremony: progress.ceremony,
            node: self.node().into(),
            time_ms: now().0,
            session: hex::encode(&progress.label),
            phase: progress.phase,
            phase_number: progress.phase_number,
            phase_count: progress.phase_count,
            waiting_for: progress.waiting_for,
            parties: progress.parties,
        };
        // News, not record: what is lost is overtaken by the next.
        let _ = self.bus.publish_progress(&ceremony, news.encode_to_vec()).await;
    }

    /// Stores a new share as pending, reads it back and shows the enclave what was read.
    async fn store_sealed(&mut self, sealed: link::Sealed) {
        let ceremony = sealed.ceremony.clone();
        match self.store_and_read_back(sealed).await {
            Ok(stored) => self.link.send(to_enclave::Kind::Stored(stored)).await,
            Err(reason) => {
                warn!(%ceremony, %reason, "share not stored");
                self.observed.store_trouble.clone_from(&reason);
                if let Ok(ceremony) = ceremony.parse() {
                    self.fault(&ceremony, &format!("share not stored: {reason}")).await;
                }
            }
        }
    }

    async fn store_and_read_back(&mut self, sealed: link::Sealed) -> Result<link::Stored, String> {
        let malformed = |_| "the enclave named a malformed ceremony, wallet or record".to_owned();
        let ceremony: CeremonyId = sealed.ceremony.parse().map_err(malformed)?;
        let wallet: WalletName = sealed.wallet.parse().map_err(malformed)?;
        let record = Hash::try_from(sealed.record.as_slice()).map_err(malformed)?;
        let generation = Generation(sealed.generation);
        let share = PendingShare { wallet, generation, ceremony, record, blob: sealed.blob };
        // It may be proven meanwhile that it never commits; then it is looked at again.
        self.observed.dropped.remove(&share.ceremony);
        self.store.put_pending(&share).await.map_err(|error| chain(&error))?;
        let read = self.store.share(&share.wallet, generation, &record).await;
        let read = read.map_err(|error| chain(&error))?.ok_or("the store lost the share at once")?;
        let credentials =
            credentials::fetch(&self.config.kms.credentials).await.map_err(|error| chain(&error))?;
        Ok(link::Stored { ceremony: sealed.ceremony, blob: read.blob, credentials: Some(credentials) })
    }
}
