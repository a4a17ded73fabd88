//! What the node last proved, for its heartbeat.

use std::collections::{BTreeMap, BTreeSet};

use ::enclave::wire::link::{Attest, to_enclave};
use ceremonies::attestation::heartbeat_nonce;
use ceremonies::ids::{CeremonyId, NodeIndex, UnixMillis};
use ceremonies::text::chain;
use ceremonies::wire::{bus, log};
use prost::Message;

use super::{Agent, Asked, now};
use crate::link::LinkState;

/// How old the attestation document in a heartbeat may get before the enclave is asked for another, in
/// milliseconds: well below any charter's limit, and few enough that nobody pays for it.
const DOCUMENT_AGE_MS: i64 = 30_000;

/// Most shares that a heartbeat lists; the log says which the others are.
const MAX_TOLD: u32 = 100;

/// What the agent has seen since it started.
#[derive(Default)]
pub(super) struct Observed {
    pub(super) entries: u64,
    pub(super) store_trouble: String,
    pub(super) kms_trouble: String,
    pub(super) vault_trouble: String,
    pub(super) enclave_trouble: String,
    pub(super) document: Vec<u8>,
    document_asked: Option<UnixMillis>,
    /// 0 for never.
    last_round: i64,
    last_signature: i64,
    peers: BTreeMap<NodeIndex, UnixMillis>,
    /// Void ceremonies whose pending share has been discarded.
    pub(super) dropped: BTreeSet<CeremonyId>,
}

impl Observed {
    pub(super) fn heard(&mut self, from: NodeIndex) {
        self.peers.insert(from, now());
    }

    pub(super) fn note_round(&mut self) {
        self.last_round = now().0;
    }

    pub(super) fn note_said(&mut self, kind: &log::event::Kind) {
        match kind {
            log::event::Kind::TestSigned(_) => {
                self.last_signature = now().0;
                self.kms_trouble.clear();
            }
            log::event::Kind::Prepared(_) => self.kms_trouble.clear(),
            log::event::Kind::Aborted(aborted) if aborted.reason.contains("KMS") => {
                self.kms_trouble.clone_from(&aborted.reason);
            }
            _ => {}
        }
    }
}

impl Agent {
    pub(super) async fn report_health(&mut self) {
        self.keep_document_fresh().await;
        let shares = match self.store.held(MAX_TOLD).await {
            Ok(held) => {
                self.observed.store_trouble.clear();
                held
            }
            Err(error) => {
                self.observed.store_trouble = chain(&error);
                Vec::new()
            }
        };
        let heartbeat = self.heartbeat(shares);
        // Missed heartbeats are what tells others that this node is cut off.
        let _ = self.bus.publish_health(heartbeat.encode_to_vec()).await;
    }

    fn heartbeat(&self, shares: Vec<bus::HeldShare>) -> bus::Heartbeat {
        let trouble = match self.link.state() {
            LinkState::Up => self.observed.enclave_trouble.clone(),
            LinkState::Down(why) => why,
        };
        let charter = self.book.context().charter();
        let peers = self.observed.peers.iter().filter(|(node, _)| !charter.excludes(**node));
        bus::Heartbeat {
            version: ceremonies::wire::VERSION,
            node: self.node().into(),
            time_ms: now().0,
            build: format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
            charter: charter.hash().as_bytes().to_vec(),
            enclave: Some(bus::EnclaveHealth {
                trouble,
                document: self.observed.document.clone(),
                build: self.enclave_build.clone(),
            }),
            store_trouble: self.observed.store_trouble.clone(),
            kms_trouble: self.observed.kms_trouble.clone(),
            vault_trouble: self.observed.vault_trouble.clone(),
            shares,
            peers: peers
                .map(|(node, at)| bus::PeerHealth { node: (*node).into(), last_heard_ms: at.0 })
                .collect(),
            last_round_ms: self.observed.last_round,
            last_signature_ms: self.observed.last_signature,
            entries: self.observed.entries,
            ceremonies: u32::try_from(self.book.iter().count()).unwrap_or(u32::MAX),
        }
    }

    async fn keep_document_fresh(&mut self) {
        if self.own.is_none() || self.asked.values().any(|asked| matches!(asked, Asked::Health)) {
            return;
        }
        let fresh = self.observed.document_asked.is_some_and(|at| now().since(at) < DOCUMENT_AGE_MS);
        if fresh && !self.observed.document.is_empty() {
            return;
        }
        self.observed.document_asked = Some(now());
        let request = self.request_id(Asked::Health);
        let nonce = heartbeat_nonce(self.identity.charter.cluster(), self.node()).as_bytes().to_vec();
        self.link.send(to_enclave::Kind::Attest(Attest { request, nonce })).await;
    }
}
