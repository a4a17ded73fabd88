//! Doing what the fold says this node has to do next. Whatever is interrupted is found again here.

use ::enclave::wire::check_size;
use ::enclave::wire::link::{self, Attest, Start, ToEnclave, to_enclave};
use ceremonies::book::Chapter;
use ceremonies::ceremony::{Ceremony, Duty};
use ceremonies::entry::Entry;
use ceremonies::ids::{CeremonyId, Hash, Line};
use ceremonies::text::chain;
use ceremonies::wire::log;
use tracing::{info, warn};

use super::{Agent, Asked, now};
use crate::credentials;
use crate::store::Claim;

/// What an order is remembered by: its session, or where there is none, what is to be said.
pub(super) fn order_label(ceremony: &Ceremony, duty: &Duty) -> Option<Hash> {
    let word = match duty {
        Duty::Prepare => "prepare",
        Duty::Retire => "retire",
        _ => return ceremony.session(duty).map(|spec| spec.label),
    };
    let id = ceremony.manifest().ceremony.as_str();
    Some(Hash::of_parts("custody/order/v1", &[id.as_bytes(), word.as_bytes()]))
}

impl Agent {
    /// Once a tick: what is due, and what is no longer needed.
    pub(super) async fn look_after(&mut self) {
        self.say_what_was_not_taken().await;
        self.do_duties().await;
        self.drop_what_never_commits().await;
        self.report_health().await;
    }

    pub(super) async fn do_duties(&mut self) {
        let Some(own) = self.own else { return };
        let due: Vec<(CeremonyId, Duty)> = self
            .book
            .iter()
            .filter_map(|(id, chapter)| Some((id.clone(), chapter.ceremony.duty(self.node(), &own, now())?)))
            .collect();
        for (ceremony, duty) in due {
            self.do_duty(&ceremony, duty).await;
        }
    }

    async fn do_duty(&mut self, ceremony: &CeremonyId, duty: Duty) {
        match duty {
            Duty::Attest => self.ask_for_attestation(ceremony).await,
            Duty::Fault => self.fault(ceremony, "the approved enclave was lost").await,
            Duty::Adopt => self.adopt(ceremony).await,
            Duty::Repair { .. }
            | Duty::Rebuild
            | Duty::Generate
            | Duty::TestSign { .. }
            | Duty::Restore { .. }
            | Duty::Backup { .. }
            | Duty::Prove { .. }
            | Duty::Prepare
            | Duty::Retire => self.order(ceremony, &duty).await,
        }
    }

    /// Appends an event of this node's own and says when that fails.
    pub(super) async fn append_own(&mut self, ceremony: &CeremonyId, kind: log::event::Kind) {
        match self.append(ceremony, log::Event { kind: Some(kind) }).await {
            Ok(seq) => info!(%ceremony, seq, "appended"),
            Err(error) if error.is_known() => {}
            Err(error) => warn!(%ceremony, error = %chain(&error), "not appended"),
        }
    }

    pub(super) async fn fault(&mut self, ceremony: &CeremonyId, reason: &str) {
        let faulted = log::Faulted { node: self.node().into(), reason: Line::lossy(reason).to_string() };
        self.append_surely(ceremony.clone(), log::event::Kind::Faulted(faulted)).await;
    }

    async fn ask_for_attestation(&mut self, ceremony: &CeremonyId) {
        let waiting = |asked: &Asked| matches!(asked, Asked::Attestation(id) if id == ceremony);
        if self.asked.values().any(waiting) || !self.vault_is_ready(ceremony).await {
            return;
        }
        let Some(chapter) = self.book.get(ceremony) else { return };
        if let Some(rival) = self.book.rival(&chapter.ceremony, now()) {
            warn!(%ceremony, %rival, "not attested: another ceremony makes the same generation");
            return;
        }
        let nonce = chapter.ceremony.manifest().hash().as_bytes().to_vec();
        let request = self.request_id(Asked::Attestation(ceremony.clone()));
        self.link.send(to_enclave::Kind::Attest(Attest { request, nonce })).await;
    }

    pub(super) fn request_id(&mut self, asked: Asked) -> u64 {
        let request = self.next_request;
        self.next_request += 1;
        self.asked.insert(request, asked);
        request
    }

    async fn adopt(&mut self, ceremony: &CeremonyId) {
        let Some(wallet) = self.book.get(ceremony).and_then(|chapter| chapter.ceremony.committed()) else {
            return;
        };
        let record = wallet.record;
        let newest = self.book.wallet(&record.wallet).map(|wallet| wallet.record.generation);
        if newest.is_some_and(|newest| newest > record.generation) {
            return;
        }
        if let Err(error) = self.store.promote(&record.wallet, record.generation, &record.digest()).await {
            self.observed.store_trouble = chain(&error);
            warn!(%ceremony, error = %chain(&error), "committed share not made current");
            return;
        }
        info!(%ceremony, wallet = %record.wallet, generation = %record.generation, "share made current");
        let adopted = log::Adopted { node: self.node().into(), record: record.digest().as_bytes().to_vec() };
        self.append_own(ceremony, log::event::Kind::Adopted(adopted)).await;
    }

    /// Hands the enclave the log and lets it do what is due. Once a connection and session: an enclave that lost the
    /// session, or refused it, is not asked again.
    async fn order(&mut self, ceremony: &CeremonyId, duty: &Duty) {
        let Some(chapter) = self.book.get(ceremony) else { return };
        let Some(label) = order_label(&chapter.ceremony, duty) else { return };
        let rests = matches!(duty, Duty::Backup { .. }) && now() < self.vault_rests_until;
        if rests || !self.ordered.insert(label) {
            return;
        }
        let (blob, backup) = match self.claim_and_read(ceremony, duty).await {
            Ok(read) => read,
            // Its keeper hands it in again, and then it is asked for again.
            Err(reason) if duty.concerns_a_backup() => {
                warn!(%ceremony, %reason, "nothing done with the backup");
                self.observed.vault_trouble = reason;
                return;
            }
            Err(reason) => {
                warn!(%ceremony, %reason, "session not begun");
                self.fault(ceremony, &reason).await;
                return;
            }
        };
        let lent = match credentials::fetch(&self.config.kms.credentials).await {
            Ok(lent) => lent,
            Err(error) => {
                self.observed.kms_trouble = chain(&error);
                self.fault(ceremony, &chain(&error)).await;
                return;
            }
        };
        let request = self.request_id(Asked::Start(ceremony.clone(), duty.clone()));
        let Some(chapter) = self.book.get(ceremony) else { return };
        let encoded = |chapter: &Chapter| chapter.entries.iter().map(Entry::encode).collect();
        let needed = self.book.needed_for(ceremony, now());
        let start = Start {
            request,
            node: self.node().into(),
            charter: self.identity.charter.text().as_bytes().to_vec(),
            log: encoded(chapter),
            others: needed.logs.into_iter().map(|log| link::Log { entries: encoded(log) }).collect(),
            records: needed.records.into_iter().map(|record| record.as_bytes().to_vec()).collect(),
            blob,
            credentials: Some(lent),
            backup,
        };
        let message = ToEnclave { kind: Some(to_enclave::Kind::Start(start)) };
        if let Err(error) = check_size(&message) {
            self.asked.remove(&request);
            let reason = format!("the order for this ceremony is too large, {error}");
            warn!(%ceremony, %reason, "not ordered");
            self.fault(ceremony, &reason).await;
            return;
        }
        info!(%ceremony, ?duty, "ordered");
        if let Some(kind) = message.kind {
            self.link.send(kind).await;
        }
    }

    /// Claims a test signature, once for ever: what was begun before may have been signed, and is not begun again.
    async fn claim(&self, ceremony: &Ceremony, duty: &Duty) -> Result<(), String> {
        let Duty::TestSign { subset, attempt, input } = duty else { return Ok(()) };
        let to_sign = ceremony.to_sign(subset, *attempt, *input).ok_or("nothing to sign with")?;
        let request = format!("{}/{subset}/{attempt}/{input}", ceremony.manifest().ceremony);
        let path = to_sign.path.to_string();
        match self.store.claim_signing(&request, &to_sign.digest, &path, "approved in the ceremony").await {
            Ok(Claim::New) => Ok(()),
            Ok(Claim::Used) => Err("this try was begun before and lost".to_owned()),
            Err(error) => Err(chain(&error)),
        }
    }

    /// The sealed share that the enclave needs for a duty, or the backup that was released to it.
    async fn claim_and_read(&self, id: &CeremonyId, duty: &Duty) -> Result<(Vec<u8>, Vec<u8>), String> {
        let ceremony = &self.book.get(id).ok_or("the ceremony is not known")?.ceremony;
        self.claim(ceremony, duty).await?;
        let Some(record) = ceremony.share_for(duty, self.node()).map(|wallet| wallet.record) else {
            return Ok((Vec::new(), self.released(ceremony, duty).await?));
        };
        match self.store.share(&record.wallet, record.generation, &record.digest()).await {
            Ok(Some(share)) => Ok((share.blob, Vec::new())),
            Ok(None) => Err(format!(
                "this node's store has no share of {}, generation {}: have the node recovered",
                record.wallet, record.generation
            )),
            Err(error) => Err(chain(&error)),
        }
    }

    /// Pending shares of ceremonies that are proven never to commit. Any doubt keeps them.
    async fn drop_what_never_commits(&mut self) {
        let hopeless: Vec<CeremonyId> = self
            .book
            .iter()
            .filter(|(_, chapter)| chapter.ceremony.manifest().kind.makes_shares())
            .filter(|(_, chapter)| chapter.ceremony.can_never_commit())
            .map(|(id, _)| id.clone())
            .filter(|id| !self.observed.dropped.contains(id))
            .collect();
        for ceremony in hopeless {
            match self.store.discard_pending(&ceremony).await {
                Ok(_) => {
                    self.observed.dropped.insert(ceremony);
                }
                Err(error) => warn!(%ceremony, error = %chain(&error), "pending share not discarded"),
            }
        }
    }
}
