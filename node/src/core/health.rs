//! What the node last proved, for its heartbeat.

use std::collections::BTreeSet;

use ceremonies::attestation::heartbeat_nonce;
use ceremonies::deploy::subject;
use ceremonies::ids::{CeremonyId, Hash, WalletName};
use ceremonies::said::{self, Topic};
use ceremonies::wire::{bus, log};
use enclave_link::message::{Attest, to_enclave};
use prost::Message;
use tracing::error;

use super::peers::Peers;
use super::{Asked, Core, Effect, Failure, Now, StoreOp, StoreReply, Waiting};

/// How old the attestation document in a heartbeat may get before the enclave is asked for another, in
/// milliseconds: well below any charter's limit, and soon enough that a frozen enclave is noticed.
const DOCUMENT_AGE_MS: u64 = 5_000;
/// How long the enclave may take to attest before that is reported, in milliseconds.
const DOCUMENT_WAIT_MS: u64 = 10_000;
/// How long a peer counts as heard after its last heartbeat, in milliseconds: longer than consoles take to find a node
/// silent, so that they do not see a silent node as a trouble of those that miss it.
const HEARD_MS: u64 = 8000;
/// How long another node's record must differ before that is reported, in milliseconds: many times what entries take to
/// get round.
const DIFFERS_MS: u64 = 20_000;
/// The most shares that a heartbeat lists; the log tells the others.
const MAX_TOLD: u32 = 100;
/// Most forked ceremonies that a heartbeat names.
const MAX_FORKED: usize = 20;

/// Something that is wrong, until it works again.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    text: String,
    /// When it was last found.
    at: Option<Now>,
}

impl Trouble {
    pub(super) fn rose(&mut self, text: &str, now: Now) {
        text.clone_into(&mut self.text);
        self.at = Some(now);
    }

    pub(super) fn cleared(&mut self) {
        self.text.clear();
        self.at = None;
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn told(&self) -> String {
        self.at.map_or_else(String::new, |at| format!("{} (at {})", self.text, at.wall))
    }
}

/// What the agent has seen since it started.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) entries: u64,
    /// Messages about the record that mean nothing here: what a hostile host can make others read.
    pub(super) junk: u64,
    /// The last entry that was dated too far ahead to be accepted.
    pub(super) ahead: Option<(CeremonyId, Hash)>,
    /// Why the entry that is next cannot be stored, until it is.
    pub(super) record: Trouble,
    /// What else the store could not do, until it shows that it can be written to.
    pub(super) store: Trouble,
    pub(super) kms: Trouble,
    pub(super) vault: Trouble,
    pub(super) enclave: Trouble,
    /// Whether the enclave is linked, and why not.
    pub(super) link: Result<(), Failure>,
    /// Since when it has been as it is.
    pub(super) linked_at: u64,
    pub(super) document: Vec<u8>,
    /// When the enclave was last asked for a document.
    document_asked: Option<u64>,
    /// What the store listed when it last answered; none before it has.
    shares: Option<Vec<bus::HeldShare>>,
    /// 0 for never.
    last_round: i64,
    last_signature: i64,
    pub(super) peers: Peers,
    /// Void ceremonies whose pending share has been discarded.
    pub(super) dropped: BTreeSet<CeremonyId>,
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            entries: 0,
            junk: 0,
            ahead: None,
            record: Trouble::default(),
            store: Trouble::default(),
            kms: Trouble::default(),
            vault: Trouble::default(),
            enclave: Trouble::default(),
            link: Err("not connected yet".into()),
            linked_at: 0,
            document: Vec::new(),
            document_asked: None,
            shares: None,
            last_round: 0,
            last_signature: 0,
            peers: Peers::new(),
            dropped: BTreeSet::new(),
        }
    }
}

impl Observed {
    /// What is wrong with the store.
    pub(super) fn store_trouble(&self) -> &Trouble {
        if self.record.text().is_empty() { &self.store } else { &self.record }
    }

    /// Whether the store listed a share of this wallet when it was last asked, or more shares than are listed.
    pub(super) fn may_hold(&self, wallet: &WalletName) -> bool {
        let shares = self.shares.as_deref().unwrap_or_default();
        shares.iter().any(|share| share.wallet == wallet.as_str())
            || u32::try_from(shares.len()).is_ok_and(|listed| listed >= MAX_TOLD)
    }

    pub(super) fn note_round(&mut self, now: Now) {
        self.last_round = now.wall.0;
    }

    pub(super) fn note_said(&mut self, kind: &log::event::Kind, now: Now) {
        match kind {
            log::event::Kind::TestSigned(_) => {
                self.last_signature = now.wall.0;
                self.kms.cleared();
            }
            log::event::Kind::Prepared(_) | log::event::Kind::Staged(_) => self.kms.cleared(),
            log::event::Kind::Aborted(_)
            | log::event::Kind::Opened(_)
            | log::event::Kind::Attested(_)
            | log::event::Kind::Signed(_)
            | log::event::Kind::Adopted(_)
            | log::event::Kind::Faulted(_)
            | log::event::Kind::Withdrawn(_)
            | log::event::Kind::Recovered(_)
            | log::event::Kind::Retired(_)
            | log::event::Kind::BackedUp(_)
            | log::event::Kind::Proved(_) => {}
        }
    }
}

impl Core {
    /// Has the store show that it can be written to, and reports this node's health.
    pub(super) fn report_health(&mut self) {
        self.keep_document_fresh();
        let is_waiting = self.waiting.values().any(|waiting| matches!(waiting, Waiting::Probed));
        if !is_waiting {
            self.store(StoreOp::Probe(MAX_TOLD), Waiting::Probed);
        }
        if self.observed.shares.is_none() && self.observed.store_trouble().text().is_empty() {
            // A heartbeat without shares would say that they are lost.
            return;
        }
        let heartbeat = self.heartbeat();
        let body = heartbeat.encode_to_vec();
        self.effect(Effect::Measure(Box::new(heartbeat)));
        let sign = |message: &[u8]| self.identity.sign(message);
        match said::say(self.identity.charter.cluster(), Topic::Heartbeat, self.node(), body, sign) {
            Ok(payload) => self.publish(subject::health(self.node()), payload),
            Err(error) => error!(%error, "heartbeat not signed"),
        }
    }

    pub(super) fn probed(&mut self, result: Result<StoreReply, Failure>) {
        self.store_tried(&result);
        // One that does not answer now is in trouble, and has not lost what it listed.
        if let Ok(StoreReply::Held(shares)) = result {
            self.observed.shares = Some(shares);
        }
    }

    pub(super) fn enclave_trouble(&self) -> String {
        if let Err(why) = &self.observed.link {
            return why.to_string();
        }
        let waits = self.asked.values().any(|asked| matches!(asked, Asked::Health));
        let asked = match &self.own {
            Some(_) => self.observed.document_asked.filter(|_| waits),
            // It speaks first, with its keys.
            None => Some(self.observed.linked_at),
        };
        let silent = asked.map(|at| self.now.steady.saturating_sub(at)).filter(|ms| *ms > DOCUMENT_WAIT_MS);
        match silent {
            Some(ms) => format!("no answer for {} s", ms / 1000),
            None => self.observed.enclave.told(),
        }
    }

    fn heartbeat(&self) -> bus::Heartbeat {
        let charter = self.book.context().charter();
        let now = self.now;
        let peers = self.observed.peers.iter().filter(|(node, peer)| {
            let heard = peer.heard.is_some_and(|at| now.steady.saturating_sub(at) <= HEARD_MS);
            heard && !charter.excludes(**node)
        });
        let peers: Vec<_> = peers.collect();
        let differs = peers.iter().filter(|(_, peer)| {
            peer.differs_since.is_some_and(|since| now.steady.saturating_sub(since) >= DIFFERS_MS)
        });
        let members = self.members();
        let opponents = |log: &super::Log| log.ballot.opponents(&log.tree, &members);
        let forked = self.logs.iter().filter(|(_, log)| !log.ballot.is_settled(&log.tree, &members));
        let forked = forked.map(|(id, log)| {
            let elsewhere = opponents(log).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            if elsewhere.is_empty() { id.to_string() } else { format!("{id} (elsewhere: node {elsewhere})") }
        });
        let settled = self.logs.values().filter(|log| log.ballot.is_settled(&log.tree, &members));
        let elsewhere: BTreeSet<u32> = settled.flat_map(opponents).map(u32::from).collect();
        bus::Heartbeat {
            version: ceremonies::wire::VERSION,
            node: self.node().into(),
            time_ms: now.wall.0,
            build: format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
            charter: charter.hash().as_bytes().to_vec(),
            enclave: Some(bus::EnclaveHealth {
                trouble: self.enclave_trouble(),
                document: self.observed.document.clone(),
                build: self.enclave_build.clone(),
            }),
            store_trouble: self.observed.store_trouble().told(),
            kms_trouble: self.kms_trouble(),
            vault_trouble: self.observed.vault.told(),
            shares: self.observed.shares.clone().unwrap_or_default(),
            differs: differs.map(|(node, _)| u32::from(**node)).collect(),
            peers: peers
                .iter()
                .map(|(node, peer)| bus::PeerHealth { node: (**node).into(), last_heard_ms: peer.time_ms })
                .collect(),
            last_round_ms: self.observed.last_round,
            last_signature_ms: self.observed.last_signature,
            entries: self.observed.entries,
            ceremonies: u32::try_from(self.logs.len() + self.shelf.len()).unwrap_or(u32::MAX),
            stream_trouble: self.stream_trouble().unwrap_or_default(),
            record_digest: self.record_digest(),
            started_ms: self.past.started().0,
            past: self.past.told(),
            forked: forked.take(MAX_FORKED).collect(),
            elsewhere: elsewhere.into_iter().collect(),
        }
    }

    fn keep_document_fresh(&mut self) {
        if self.own.is_none() || self.asked.values().any(|asked| matches!(asked, Asked::Health)) {
            return;
        }
        let now = self.now.steady;
        let asked = self.observed.document_asked;
        let fresh = asked.is_some_and(|at| now.saturating_sub(at) < DOCUMENT_AGE_MS);
        if fresh && !self.observed.document.is_empty() {
            return;
        }
        self.observed.document_asked = Some(now);
        let request = self.request_id(Asked::Health);
        let nonce = heartbeat_nonce(self.identity.charter.cluster(), self.node()).as_bytes().to_vec();
        self.tell_enclave(to_enclave::Kind::Attest(Attest { request, nonce }));
    }
}
