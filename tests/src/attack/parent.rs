//! A compromised parent: it sits between a node's agent and its enclave and applies its misdeeds to what passes. It
//! holds no keys except those that every parent holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ceremonies::ids::NodeIndex;
use ceremonies::log::{Entry, Place};
use ceremonies::wire::log;
use enclave::session::MAX_ENVELOPE;
use enclave_link::message::{self, Deliver, FromEnclave, ToEnclave, from_enclave, to_enclave};
use nkeys::KeyPair;
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{flip, listen, redirect};
use crate::cluster::Cluster;

/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(20);

/// What a parent does to what it passes to its enclave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misdeed {
    /// Session messages do not arrive.
    Drop,
    /// Every session message arrives twice.
    Double,
    /// Every session message waits for the next one and arrives after it.
    Reorder,
    /// Every session message that was ever seen arrives again with each new one, under the new one's label.
    Replay,
    /// A copy of every session message arrives first, cut by its last byte.
    Truncate,
    /// A copy of every session message arrives first, with one bit flipped.
    FlipBit,
    /// A copy of every session message arrives first, as one of another node.
    OtherSender,
    /// A message a megabyte over the limit comes before every session message.
    Oversize,
    /// Session messages arrive only with a bit flipped.
    FlipEvery,
    /// Every order is given twice.
    StartTwice,
    /// Orders come with this charter.
    ShowCharter(Vec<u8>),
    /// Orders come without the last entries of the log.
    ForgetEntries(usize),
    /// Orders come with a last entry that this node's agent key has signed in place of the true one.
    ForkLog,
    /// Orders come with this sealed share.
    ShowBlob(Vec<u8>),
    /// What the store gives back has a bit flipped.
    FlipStored,
}

/// What passes between agent and enclave at which a process can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    /// The question for a document.
    Attest,
    /// The document.
    Attestation,
    /// The order to begin a session.
    Start,
    /// A message to a peer: its number among all messages of its session, from 1.
    Sent(u32),
    /// The first bytes for the KMS.
    Kms,
    /// The sealed share, to be stored.
    Sealed,
    /// The sealed share, as it was read back.
    Stored,
    /// The signed result of a key generation.
    Prepared,
    /// The signed part in a test signature.
    TestSigned,
    /// The report that a lost share is restored.
    Recovered,
    /// The report that a new share waits alongside the one in use.
    Staged,
    /// The new share, encrypted for its keepers.
    Backups,
    /// The report that a backup holds the share.
    Proved,
    /// The report that the old shares are forgotten.
    Retired,
}

/// On which side of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It has not arrived.
    Before,
    /// It has.
    After,
}

/// A place at which everything stops until the link breaks.
pub type Boundary = (Passing, Side);

#[derive(Default)]
struct State {
    misdeeds: Vec<Misdeed>,
    seen: Vec<Deliver>,
    held: Option<Deliver>,
    /// What the enclave refused, and why.
    refusals: Vec<String>,
    trap: Option<Boundary>,
    /// What each session, by its label, has sent; repetitions count once.
    sent: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
    /// Whether the enclave tries the KMS, for no ceremony.
    tries_kms: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Whether everything is stopped, at a boundary.
    frozen: watch::Sender<bool>,
    agent_key: KeyPair,
    node: NodeIndex,
}

/// A compromised parent. Dropping it leaves the node without an enclave.
pub struct Parent {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Parent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Parent {
    /// Steps between a node's agent and its enclave. The agent is restarted for that.
    ///
    /// # Errors
    /// When the node's files are not as a cluster writes them.
    pub async fn between(cluster: &Cluster, node: NodeIndex) -> Result<Self> {
        let folder = cluster.layout().node(node);
        let seed = std::fs::read_to_string(folder.join("nats.seed"))?;
        let listener = listen(&folder.join("parent.sock"))?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            frozen: watch::Sender::new(false),
            agent_key: KeyPair::from_seed(seed.trim())?,
            node,
        });
        let task = tokio::spawn(serve(listener, folder.join("enclave.sock"), Arc::clone(&shared)));
        redirect(cluster, node, "parent.sock").await?;
        Ok(Self { shared, task })
    }

    /// From now on, it does these misdeeds and no others.
    pub fn commits(&self, misdeeds: impl IntoIterator<Item = Misdeed>) {
        let mut state = self.shared.state();
        state.misdeeds = misdeeds.into_iter().collect();
        state.refusals.clear();
    }

    /// Stops everything at this boundary, the next time it is reached.
    pub fn stops_at(&self, boundary: Boundary) {
        self.shared.state().trap = Some(boundary);
    }

    /// Waits until the boundary is reached.
    ///
    /// # Errors
    /// When it is not reached in time.
    pub async fn stopped(&self, patience: Duration) -> Result<()> {
        let mut frozen = self.shared.frozen.subscribe();
        tokio::time::timeout(patience, frozen.wait_for(|frozen| *frozen)).await??;
        Ok(())
    }

    /// Lets everything go on.
    pub fn goes_on(&self) {
        self.shared.frozen.send_replace(false);
    }

    /// Waits until the enclave has refused something with these words in its reason.
    ///
    /// # Errors
    /// When it does not in time, with what it did refuse.
    pub async fn hears_refusal(&self, words: &str, patience: Duration) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if self.shared.state().refusals.iter().any(|reason| reason.contains(words)) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("no refusal for `{words}`, but {:?}", self.shared.state().refusals)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn freezes(&self, passing: Option<Passing>, side: Side) -> bool {
        let mut state = self.state();
        let freezes = passing.is_some_and(|passing| state.trap == Some((passing, side)));
        if freezes {
            state.trap = None;
            self.frozen.send_replace(true);
        }
        freezes
    }

    fn outward(&self, message: FromEnclave) -> Vec<FromEnclave> {
        if let Some(from_enclave::Kind::Refused(refused)) = &message.kind {
            self.state().refusals.push(refused.reason.clone());
        }
        vec![message]
    }

    fn inward(&self, message: ToEnclave) -> Vec<ToEnclave> {
        let Some(kind) = message.kind else { return Vec::new() };
        let kinds = match kind {
            to_enclave::Kind::Deliver(deliver) => {
                self.state().deliver(deliver).into_iter().map(to_enclave::Kind::Deliver).collect()
            }
            to_enclave::Kind::Start(start) => self.start(start),
            to_enclave::Kind::Stored(mut stored) => {
                if self.state().does(&Misdeed::FlipStored) {
                    flip(&mut stored.blob);
                }
                vec![to_enclave::Kind::Stored(stored)]
            }
            kind @ (to_enclave::Kind::Attest(_)
            | to_enclave::Kind::Stop(_)
            | to_enclave::Kind::TryKms(_)
            | to_enclave::Kind::StreamData(_)
            | to_enclave::Kind::StreamClosed(_)) => vec![kind],
        };
        kinds.into_iter().map(|kind| ToEnclave { kind: Some(kind) }).collect()
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other misdeeds happen elsewhere")]
    fn start(&self, mut start: message::Start) -> Vec<to_enclave::Kind> {
        let misdeeds = self.state().misdeeds.clone();
        let mut again = None;
        for misdeed in misdeeds {
            match misdeed {
                // Under a number that the agent did not assign, so that only the enclave can object.
                Misdeed::StartTwice => again = Some(u64::MAX),
                Misdeed::ShowCharter(charter) => start.charter = charter,
                Misdeed::ForgetEntries(count) => start.log.truncate(start.log.len().saturating_sub(count)),
                Misdeed::ForkLog => self.fork(&mut start.log),
                Misdeed::ShowBlob(blob) => start.blob = blob,
                _ => {}
            }
        }
        let twice = again.map(|request| to_enclave::Kind::Start(message::Start { request, ..start.clone() }));
        std::iter::once(to_enclave::Kind::Start(start)).chain(twice).collect()
    }

    /// Another last entry, in the same place, by the node whose parent this is.
    fn fork(&self, entries: &mut [Vec<u8>]) {
        let Some(last) = entries.last_mut() else { return };
        let Ok(true_one) = Entry::decode(last) else { return };
        let place = Place {
            ceremony: true_one.ceremony.clone(),
            seq: true_one.seq,
            prev: true_one.prev,
            time: true_one.time,
            node: self.node,
        };
        let reason = "there was something else here".to_owned();
        let faulted = log::Faulted { node: self.node.into(), reason };
        let event = log::Event { kind: Some(log::event::Kind::Faulted(faulted)) };
        let sign = |message: &[u8]| self.agent_key.sign(message).map_err(anyhow::Error::from);
        if let Ok(entry) = Entry::create(place, event, sign) {
            *last = entry.encode();
        }
    }
}

impl State {
    fn does(&self, misdeed: &Misdeed) -> bool {
        self.misdeeds.contains(misdeed)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other misdeeds happen elsewhere")]
    fn deliver(&mut self, deliver: Deliver) -> Vec<Deliver> {
        let mut arriving = Vec::new();
        let mut copy = |change: &dyn Fn(&mut Deliver)| {
            let mut copy = deliver.clone();
            change(&mut copy);
            arriving.push(copy);
        };
        for misdeed in &self.misdeeds {
            match misdeed {
                Misdeed::Double => copy(&|_| ()),
                Misdeed::Truncate => {
                    copy(&|copy| copy.payload.truncate(copy.payload.len().saturating_sub(1)));
                }
                Misdeed::FlipBit => copy(&|copy| flip(&mut copy.payload)),
                Misdeed::OtherSender => copy(&|copy| copy.from = copy.from % 3 + 1),
                Misdeed::Oversize => copy(&|copy| copy.payload.resize(MAX_ENVELOPE + (1 << 20), 0)),
                Misdeed::Replay => {
                    for old in &self.seen {
                        copy(&|copy| copy.payload.clone_from(&old.payload));
                    }
                }
                _ => {}
            }
        }
        self.seen.push(deliver.clone());
        if self.does(&Misdeed::Drop) {
            return Vec::new();
        }
        let mut last = deliver;
        if self.does(&Misdeed::FlipEvery) {
            flip(&mut last.payload);
        }
        if self.does(&Misdeed::Reorder) {
            arriving.extend(
                match self.held.take() {
                    None => {
                        self.held = Some(last);
                        None
                    }
                    Some(before) => Some([last, before]),
                }
                .into_iter()
                .flatten(),
            );
        } else {
            arriving.extend(self.held.take());
            arriving.push(last);
        }
        arriving
    }
}

fn inward(shared: &Shared, message: &ToEnclave) -> Option<Passing> {
    match message.kind.as_ref()? {
        to_enclave::Kind::Attest(_) => Some(Passing::Attest),
        to_enclave::Kind::Start(_) => Some(Passing::Start),
        to_enclave::Kind::Stored(_) => Some(Passing::Stored),
        to_enclave::Kind::TryKms(_) => {
            shared.state().tries_kms = true;
            None
        }
        to_enclave::Kind::Deliver(_)
        | to_enclave::Kind::Stop(_)
        | to_enclave::Kind::StreamData(_)
        | to_enclave::Kind::StreamClosed(_) => None,
    }
}

fn outward(shared: &Shared, message: &FromEnclave) -> Option<Passing> {
    match message.kind.as_ref()? {
        from_enclave::Kind::Attestation(_) => Some(Passing::Attestation),
        from_enclave::Kind::Send(send) => {
            let mut state = shared.state();
            let known = state.sent.entry(send.label.clone()).or_default();
            known.insert(send.payload.clone()).then_some(())?;
            u32::try_from(known.len()).ok().map(Passing::Sent)
        }
        // A trial belongs to no ceremony.
        from_enclave::Kind::StreamOpened(_) if shared.state().tries_kms => None,
        from_enclave::Kind::StreamOpened(_) => Some(Passing::Kms),
        from_enclave::Kind::KmsTried(_) => {
            shared.state().tries_kms = false;
            None
        }
        from_enclave::Kind::Sealed(_) => Some(Passing::Sealed),
        from_enclave::Kind::Backups(_) => Some(Passing::Backups),
        from_enclave::Kind::Said(said) => match log::Event::decode(said.event.as_slice()).ok()?.kind? {
            log::event::Kind::Prepared(_) => Some(Passing::Prepared),
            log::event::Kind::TestSigned(_) => Some(Passing::TestSigned),
            log::event::Kind::Recovered(_) => Some(Passing::Recovered),
            log::event::Kind::Staged(_) => Some(Passing::Staged),
            log::event::Kind::Proved(_) => Some(Passing::Proved),
            log::event::Kind::Retired(_) => Some(Passing::Retired),
            log::event::Kind::Opened(_)
            | log::event::Kind::Attested(_)
            | log::event::Kind::Signed(_)
            | log::event::Kind::Adopted(_)
            | log::event::Kind::Aborted(_)
            | log::event::Kind::Faulted(_)
            | log::event::Kind::Withdrawn(_)
            | log::event::Kind::BackedUp(_) => None,
        },
        from_enclave::Kind::Welcome(_)
        | from_enclave::Kind::Refused(_)
        | from_enclave::Kind::Progress(_)
        | from_enclave::Kind::StreamData(_)
        | from_enclave::Kind::StreamClosed(_)
        | from_enclave::Kind::Evidence(_) => None,
    }
}

async fn serve(listener: UnixListener, enclave: PathBuf, shared: Arc<Shared>) {
    while let Ok((agent, _)) = listener.accept().await {
        // The enclave is not there yet: the agent tries again.
        let Ok(enclave) = UnixStream::connect(&enclave).await else { continue };
        let (from_agent, to_agent) = enclave_link::split(agent);
        let (from_enclave, to_enclave) = enclave_link::split(enclave);
        // Whichever side ends, the other hears of it by the end of its own connection.
        tokio::select! {
            () = pass(from_agent, to_enclave, &shared, inward, |message| shared.inward(message)) => {}
            () = pass(from_enclave, to_agent, &shared, outward, |message| shared.outward(message)) => {}
        }
        shared.state().held = None;
        shared.frozen.send_replace(false);
    }
}

/// Passes on what arrives, until either end closes. What arrives while everything is stopped waits.
async fn pass<M: Message + Default>(
    mut from: enclave_link::Receiver<UnixStream>,
    mut to: enclave_link::Sender<UnixStream>,
    shared: &Shared,
    passing: fn(&Shared, &M) -> Option<Passing>,
    meddle: impl Fn(M) -> Vec<M>,
) {
    let mut frozen = shared.frozen.subscribe();
    let mut waiting = VecDeque::new();
    loop {
        tokio::select! {
            message = from.receive::<M>() => match message {
                Ok(Some(message)) => waiting.push_back((passing(shared, &message), message)),
                Ok(None) | Err(_) => return,
            },
            thawed = frozen.changed() => if thawed.is_err() { return },
        }
        while !*frozen.borrow_and_update()
            && let Some((passing, message)) = waiting.pop_front()
        {
            if shared.freezes(passing, Side::Before) {
                waiting.push_front((passing, message));
                break;
            }
            for message in meddle(message) {
                if to.send(&message).await.is_err() {
                    return;
                }
            }
            shared.freezes(passing, Side::After);
        }
    }
}
