//! What runs an enclave's signer in a schedule: the real signer, with stand-ins for its shares, for the KMS and for
//! sessions, see [`super::sessions`]. It does what the signer wants done and decides nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use ceremonies::attestation::{EnclaveKeys, TrustRoot};
use ceremonies::curve::Point;
use ceremonies::ids::{Hash, NodeIndex};
use ceremonies::wallet::Record;
use enclave::scheme::dkls23::{NewShare, Product, Signature};
use enclave::session::{Outcome, SessionFailure};
use enclave::signer::{Begin, Effect, Input, News, Open, OrderId, Released, Signer, Task, Work};
use enclave_link::message::{Attestation, KmsTried, Stored, from_enclave, to_enclave};

use super::charter::NODES;
use super::keys::{MACHINE, Sharing, boot_keys, ecdsa};
use super::sessions::Session;
use super::world::{Happening, Slip, World};
use crate::simulation::charter::{node, place};

/// What stands in for a share. Whoever has the other end sees whether it is still anywhere.
pub(super) struct Share(#[expect(dead_code, reason = "it only lives as long as the share")] Arc<()>);

/// A party's part in a session.
pub(super) struct Part {
    own: NodeIndex,
    task: Task<()>,
}

/// An enclave, as long as it is not restarted.
pub(super) struct Enclave {
    pub(super) boot: String,
    signer: Signer<Share>,
    /// The shares that it was ever given, by their records.
    shares: BTreeMap<Hash, Weak<()>>,
    /// The sessions that its signer has had begun and not ended.
    pub(super) parts: BTreeMap<OrderId, Part>,
}

impl Enclave {
    pub(super) fn new(boot: String, root: &Arc<TrustRoot>) -> Self {
        let signer = Signer::new(Arc::new(boot_keys(&boot)), Arc::clone(root));
        Self { boot, signer, shares: BTreeMap::new(), parts: BTreeMap::new() }
    }

    pub(super) fn keys(&self) -> EnclaveKeys {
        self.signer.public_keys()
    }

    pub(super) fn holds(&self, record: &Hash) -> bool {
        self.shares.get(record).is_some_and(|share| share.strong_count() > 0)
    }

    /// Whether it takes part in the session with this label.
    pub(super) fn takes_part(&self, label: &Hash) -> bool {
        self.parts.keys().any(|id| id.label == *label)
    }

    /// The share of this generation, open.
    fn share(&mut self, record: &Record) -> Share {
        let alive = Arc::new(());
        self.shares.insert(record.digest(), Arc::downgrade(&alive));
        Share(alive)
    }

    /// What the KMS and the keepers' files come to.
    fn does(&mut self, id: OrderId, work: Work<Share>) -> News<Share> {
        match work {
            Work::Open(order) => self.opens(&order),
            Work::Seal(_) => News::Sealed(format!("the share of {} in {}", id.label, self.boot).into_bytes()),
            Work::BackUp(order) => {
                let write = |what: &str| format!("{what} of {} by {}", order.node, self.boot).into_bytes();
                News::BackedUp { whole: write("whole"), root: write("root") }
            }
            Work::Prove(order) if self.unlocks(&order) => {
                order.record.public_shares.get(&order.node).copied().map_or_else(no_share, News::Proved)
            }
            Work::Restore(order) if self.unlocks(&order) => {
                News::Restored(Arc::new(self.share(&order.record)))
            }
            Work::Prove(_) | Work::Restore(_) => {
                News::Undone("the backup was released for another enclave".to_owned())
            }
        }
    }

    fn opens(&mut self, order: &Open) -> News<Share> {
        if Hash::of_bytes(&order.blob) == order.expected {
            News::Opened(Arc::new(self.share(&order.record)))
        } else {
            News::Undone("the store returned a different or altered share".to_owned())
        }
    }

    fn unlocks(&self, order: &Released) -> bool {
        order.key == self.boot.as_bytes()
    }

    /// What this part's session ends with at this party.
    fn product(&mut self, part: &Part, session: &Hash) -> Product<Share> {
        match &part.task {
            Task::Generate { .. } | Task::Refresh { .. } => Product::Share(Box::new(new_share(session))),
            Task::Repair { lost, before: Some(before), .. } if *lost == part.own => {
                Product::Repaired(Box::new(self.share(before)))
            }
            Task::Repair { .. } => Product::Helped,
            Task::Sign { to_sign: Some(to_sign), .. } => {
                let (r, s, recovery_id) = ecdsa(&to_sign.digest);
                Product::Signature(Signature { r, s, recovery_id })
            }
            Task::Sign { to_sign: None, .. } => panic!("there is nothing to sign"),
            Task::Rebuild { .. } => panic!("a rebuild is in no schedule"),
        }
    }
}

fn no_share() -> News<Share> {
    News::Undone("the backup does not hold a share".to_owned())
}

/// A party's share of the wallet as a session has shared it anew.
fn new_share(session: &Hash) -> NewShare<Share> {
    let sharing = Sharing::of(session);
    let point = |x: u8| Point::decode(&sharing.point(x)).unwrap();
    NewShare {
        share: Share(Arc::new(())),
        public_key: point(0),
        chain_code: Hash::from([2; 32]),
        public_shares: (0..NODES).map(|at| (node(at), point(node(at).get()))).collect(),
    }
}

/// The task without its share, and whether it can be done with that.
fn without_share(own: NodeIndex, task: Task<Share>) -> (Task<()>, bool) {
    match task {
        Task::Generate { threshold } => (Task::Generate { threshold }, true),
        Task::Refresh { share, before } => {
            let is_able = share.is_some() && before.is_some();
            (Task::Refresh { share: None, before }, is_able)
        }
        Task::Repair { lost, share, before } => {
            let is_able = (share.is_some() || lost == own) && before.is_some();
            (Task::Repair { lost, share: None, before }, is_able)
        }
        Task::Rebuild { lost, share, before } => {
            let is_able = (share.is_some() || lost.contains(&own)) && before.is_some();
            (Task::Rebuild { lost, share: None, before }, is_able)
        }
        Task::Sign { share, to_sign } => {
            let is_able = share.is_some() && to_sign.is_some();
            (Task::Sign { share: None, to_sign }, is_able)
        }
    }
}

/// Whether people restart an enclave that says this.
fn asks_for_a_restart(reason: &str) -> bool {
    ["forks at entry", "restart the enclave", "restart this enclave"]
        .iter()
        .any(|words| reason.contains(words))
}

impl World {
    pub(super) fn enclave_hears(&mut self, at: usize, message: to_enclave::Kind) {
        match message {
            to_enclave::Kind::Attest(attest) => {
                let keys = self.nodes[at].enclave.keys();
                let document = MACHINE.document(&attest.nonce, self.wall(), &keys);
                let attestation = Attestation { request: attest.request, document };
                self.tell_agent(at, from_enclave::Kind::Attestation(attestation));
            }
            to_enclave::Kind::Start(start) => self.feed_enclave(at, Input::Start(Box::new(start))),
            to_enclave::Kind::Stored(stored) => self.feed_enclave(at, Input::Stored(stored)),
            to_enclave::Kind::Stop(stop) => self.feed_enclave(at, Input::Stop(stop.ceremony)),
            to_enclave::Kind::TryKms(order) => {
                let tried = KmsTried { request: order.request, trouble: String::new() };
                self.tell_agent(at, from_enclave::Kind::KmsTried(tried));
            }
            other @ (to_enclave::Kind::Deliver(_)
            | to_enclave::Kind::StreamData(_)
            | to_enclave::Kind::StreamClosed(_)) => panic!("a core says {other:?}"),
        }
    }

    /// Tells a signer what happened, and does what it wants done.
    pub(super) fn feed_enclave(&mut self, at: usize, input: Input<Share>) {
        let now = self.wall();
        for effect in self.nodes[at].enclave.signer.handle(input, now) {
            match effect {
                Effect::Tell(kind) => self.signer_tells(at, kind),
                Effect::Begin(id, begin) => self.join(at, id, *begin),
                Effect::Hand(..) => panic!("messages of sessions are in no schedule"),
                Effect::End(id) => drop(self.nodes[at].enclave.parts.remove(&id)),
                Effect::Work(id, work) => {
                    let news = self.nodes[at].enclave.does(id, *work);
                    let link = self.nodes[at].links;
                    self.within(1..40, Happening::Worked(at, link, id, Box::new(news)));
                }
            }
        }
    }

    fn signer_tells(&mut self, at: usize, kind: from_enclave::Kind) {
        match kind {
            from_enclave::Kind::Refused(ref refused) => {
                self.nodes[at].is_behind |= asks_for_a_restart(&refused.reason);
                self.note(|| format!("enclave {} refuses: {}", node(at), refused.reason));
                self.tell_agent(at, kind);
            }
            from_enclave::Kind::Sealed(sealed) if self.slip == Some(Slip::HandsBackUnstored) => {
                let stored = Stored { ceremony: sealed.ceremony, blob: sealed.blob, credentials: None };
                self.feed_enclave(at, Input::Stored(stored));
            }
            other => self.tell_agent(at, other),
        }
    }

    /// Something has come of what a signer wanted done, unless the connection for which it was done is gone.
    pub(super) fn worked(&mut self, at: usize, link: u32, id: OrderId, news: News<Share>) {
        if self.nodes[at].is_linked && self.nodes[at].links == link {
            self.feed_enclave(at, Input::News(id, news));
        }
    }

    fn join(&mut self, at: usize, id: OrderId, order: Begin<Share>) {
        let Begin { label, context, own, parties, task } = order;
        let (task, is_able) = without_share(own, task);
        if !is_able {
            return self.give_up(at, id);
        }
        self.nodes[at].enclave.parts.insert(id, Part { own, task });
        let boot = self.nodes[at].enclave.boot.clone();
        let session = self.sessions.entry(label).or_insert_with(|| Session {
            parties: parties.keys().map(|party| place(*party)).collect(),
            joined: vec![],
            began: self.now,
            outcome: None,
        });
        session.joined.push((at, boot, context));
    }

    /// The last round reaches one party.
    pub(super) fn finish(&mut self, at: usize, id: OrderId) {
        let Some(session) = self.sessions.get(&id.label).and_then(|session| session.outcome) else { return };
        let enclave = &mut self.nodes[at].enclave;
        let Some(part) = enclave.parts.remove(&id) else { return };
        let product = enclave.product(&part, &session);
        let transcript = Hash::from([4; 32]);
        let outcome = Outcome { session, transcript, product, last_letters: Vec::new() };
        self.feed_enclave(at, Input::News(id, News::Finished(Box::new(outcome))));
    }

    /// One party gives a session up.
    pub(super) fn give_up(&mut self, at: usize, id: OrderId) {
        let failure = SessionFailure { reason: "given up".to_owned(), culprit: None, ban: None };
        self.feed_enclave(at, Input::News(id, News::Failed(failure, Vec::new())));
    }
}
