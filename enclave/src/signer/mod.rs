//! The signer: what happens goes in, effects come out.
//!
//! It follows orders that the log calls for, has sessions held and shares sealed, and signs what came of it. It never
//! acts on the agent's word alone (`orders`), never signs both a result and an abort of one key generation (`voice`), and
//! never looks into a share. No clock, no I/O, no waiting and no randomness but its keys: what runs it in
//! an enclave and what runs it in a simulation decide nothing.

mod backups;
mod effect;
mod life;
mod orders;
mod post;
mod shares;
mod task;
mod voice;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ceremonies::attestation::{EnclaveKeys, TrustRoot};
use ceremonies::ceremony::Ceremony;
use ceremonies::ids::{CeremonyId, Hash, NodeIndex, UnixMillis};
use ceremonies::text::chain;
use ceremonies::wallet::Record;
use enclave_link::VERSION;
use enclave_link::message::{Refused, Said, Start, Welcome, from_enclave};
use tracing::warn;

pub use self::effect::{BackUp, Begin, Effect, Input, News, Open, OrderId, Released, Seal, Task, Work};
use self::life::Life;
use self::orders::{Due, Ledger, Order, OrderError};
use self::post::Post;
use self::shares::Shares;
use self::voice::Voice;
use crate::session::BootKeys;

/// The signer of one boot of an enclave. `S` is a share of its scheme.
pub struct Signer<S> {
    keys: Arc<BootKeys>,
    root: Arc<TrustRoot>,
    ledger: Ledger,
    /// Sessions ever begun: none is begun twice.
    begun: BTreeSet<Hash>,
    /// The peers that this enclave has banned and no log has shown yet.
    bans: BTreeSet<(NodeIndex, NodeIndex)>,
    shares: Shares<S>,
    /// New shares that are sealed and proven alongside the ones in use, with the digests of their sealed bytes.
    staged: BTreeMap<CeremonyId, (Record, Hash)>,
    voice: Voice,
    /// The orders of this connection that are under way, by their sessions' labels.
    lives: BTreeMap<OrderId, Life>,
    post: Post,
    /// What is to be done about the present input.
    effects: Vec<Effect<S>>,
}

impl<S> Signer<S> {
    /// The signer with these keys, for clusters under this trust root.
    #[must_use]
    pub fn new(keys: Arc<BootKeys>, root: Arc<TrustRoot>) -> Self {
        Self {
            voice: Voice::new(Arc::clone(&keys)),
            keys,
            root,
            ledger: Ledger::default(),
            begun: BTreeSet::new(),
            bans: BTreeSet::new(),
            shares: Shares::default(),
            staged: BTreeMap::new(),
            lives: BTreeMap::new(),
            post: Post::default(),
            effects: Vec::new(),
        }
    }

    /// The public keys that attestation documents vouch for.
    #[must_use]
    pub fn public_keys(&self) -> EnclaveKeys {
        self.keys.public()
    }

    /// What is to be done about something that happened, in this order. `now` is trusted time.
    #[must_use]
    pub fn handle(&mut self, input: Input<S>, now: UnixMillis) -> Vec<Effect<S>> {
        match input {
            Input::Connected => {
                self.give_up();
                self.welcome();
            }
            Input::Lost => self.give_up(),
            Input::Start(start) => {
                let request = start.request;
                if let Err(error) = self.start(*start, now) {
                    self.refuse(request, chain(&error));
                }
            }
            Input::Deliver(message) => self.deliver(message),
            Input::Stored(stored) => self.stored(stored),
            Input::Stop(ceremony) => self.stop(&ceremony),
            Input::News(id, news) => self.hear(id, news),
        }
        std::mem::take(&mut self.effects)
    }

    fn tell(&mut self, kind: from_enclave::Kind) {
        self.effects.push(Effect::Tell(kind));
    }

    fn say(&mut self, said: Said) {
        self.tell(from_enclave::Kind::Said(said));
    }

    /// Tells the agent why an order came to nothing, without an event for the log.
    fn refuse(&mut self, request: u64, reason: String) {
        warn!(%reason, "refused");
        self.tell(from_enclave::Kind::Refused(Refused { request, reason }));
    }

    fn welcome(&mut self) {
        let keys = self.public_keys();
        self.tell(from_enclave::Kind::Welcome(Welcome {
            version: VERSION,
            build: format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
            identity: keys.identity.to_vec(),
            sealing: keys.sealing.to_vec(),
            said: self.voice.said().collect(),
        }));
        let evidence =
            self.voice.evidence().map(|evidence| Effect::Tell(from_enclave::Kind::Evidence(evidence)));
        self.effects.extend(evidence);
    }

    /// Follows an order, if the log it comes with calls for it.
    fn start(&mut self, start: Start, now: UnixMillis) -> Result<(), OrderError> {
        match Order::read(&start, &mut self.ledger, &self.root, &self.keys.public(), now)? {
            Due::Session(order) => self.take_up(*order, start),
            Due::Prepare(node, ceremony) => self.certify(node, &ceremony),
            Due::Retire(node, wallet) => {
                self.shares.forget_before(&wallet.record);
                let said = self.voice.retired(node, &wallet.record);
                self.say(said);
                Ok(())
            }
        }
    }

    /// Signs the certificate for a staged share, if this enclave holds it.
    fn certify(&mut self, node: NodeIndex, ceremony: &Ceremony) -> Result<(), OrderError> {
        let id = &ceremony.manifest().ceremony;
        let staged = ceremony.staged_wallet().map(|wallet| wallet.record.digest());
        let own = self.staged.get(id).filter(|(record, _)| Some(record.digest()) == staged);
        let Some((record, blob)) = own.cloned() else { return Err(OrderError::NotStaged(id.clone())) };
        if self.say_prepared(node, &record, &blob) {
            self.staged.remove(id);
        }
        Ok(())
    }

    /// Signs a result, if this enclave may; returns whether it did.
    fn say_prepared(&mut self, node: NodeIndex, record: &Record, blob: &Hash) -> bool {
        match self.voice.prepared(node, record, blob) {
            Ok(said) => self.say(said),
            Err(silence) => {
                warn!(%silence, "no result is signed");
                return false;
            }
        }
        true
    }
}
