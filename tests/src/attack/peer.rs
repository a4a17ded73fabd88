//! A byzantine enclave: its image is allowed and its documents are genuine, but it says whatever its operator likes. It
//! has the keys of no other enclave.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ceremonies::attestation::{Measurement, TrustRoot};
use ceremonies::book::Book;
use ceremonies::ceremony::{Ceremony, Context, Duty, SessionSpec, test_digest};
use ceremonies::charter::Charter;
use ceremonies::ids::{Hash, Line, NodeIndex};
use ceremonies::log::{Aborted, Entry, TestSigned};
use ceremonies::subsets::Subset;
use ceremonies::wallet::{Record, Scheme, Sharing, prepared_message};
use ceremonies::wire::log;
use console::room::now;
use enclave::scheme::dkls23::{Factory, KeyGeneration, KeyShare, NewShare, Product, Signature, Signing};
use enclave::session::{
    Action, BootKeys, Millis, Outcome, Outgoing, Protocol, ProtocolAbort, Round, Session, SessionPlan, Step,
};
use enclave_link::VERSION;
use enclave_link::message::{
    Attestation, Deliver, FromEnclave, KmsTried, Said, Sealed, Send, Start, ToEnclave, Welcome, from_enclave,
    to_enclave,
};
use prost::Message as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::{flip, listen, redirect};
use crate::cluster::Cluster;
use crate::nsm::{DocumentSpec, LabRoot};

const BARRIER_MS: Millis = 30_000;
const ROUND_MS: Millis = 120_000;
const TICK: Duration = Duration::from_millis(200);

/// What a byzantine enclave does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerMisdeed {
    /// Runs two sessions under one name, and shows this node the other one.
    TwoFaces(NodeIndex),
    /// Flips a bit of what it says to just its first peer in this round, before it seals and signs it.
    CorruptPrivate(usize),
    /// Flips a bit of what it broadcasts in this round, before it signs it.
    CorruptBroadcast(usize),
    /// Sends bytes without meaning before every message.
    Garbage,
    /// Signs a result with a chain code other than the session's.
    LieAboutResult,
    /// Signs a result and then an abort of the same key generation.
    SayBoth,
}

type Misdeeds = Arc<Mutex<Vec<PeerMisdeed>>>;

/// A byzantine enclave in a node's place. Dropping it leaves the node without one.
pub struct Peer {
    misdeeds: Misdeeds,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    /// Takes the place of a node's enclave, with documents of the allowed image. The agent is restarted for that.
    ///
    /// # Errors
    /// When the node's files are not as a cluster writes them.
    pub async fn instead_of(cluster: &Cluster, node: NodeIndex) -> Result<Self> {
        let charter = Charter::parse(&fs::read(cluster.layout().charter())?)?;
        let measurement = *charter.attestation().measurements.first().context("no image is allowed")?;
        let root = LabRoot::open(&cluster.layout().nsm())?;
        let listener = listen(&cluster.layout().node(node).join("peer.sock"))?;
        let misdeeds = Misdeeds::default();
        let mind = Mind {
            keys: Arc::new(BootKeys::generate()),
            root,
            trust: Arc::new(TrustRoot::from_pem(&fs::read(cluster.layout().root())?)?),
            measurement,
            misdeeds: Arc::clone(&misdeeds),
            shares: BTreeMap::new(),
        };
        let task = tokio::spawn(serve(listener, mind));
        redirect(cluster, node, "peer.sock").await?;
        Ok(Self { misdeeds, task })
    }

    /// From now on it does these and no others.
    pub fn commits(&self, misdeeds: impl IntoIterator<Item = PeerMisdeed>) {
        *self.misdeeds.lock().unwrap_or_else(PoisonError::into_inner) = misdeeds.into_iter().collect();
    }
}

/// What it knows.
struct Mind {
    keys: Arc<BootKeys>,
    root: LabRoot,
    trust: Arc<TrustRoot>,
    measurement: Measurement,
    misdeeds: Misdeeds,
    shares: BTreeMap<Hash, Arc<KeyShare>>,
}

/// A session it takes part in: under one face, or under two.
struct Playing {
    node: NodeIndex,
    ceremony: Ceremony,
    duty: Duty,
    faces: Vec<Session<Product>>,
    /// The peer that sees the second face.
    fooled: Option<NodeIndex>,
    ended: bool,
}

async fn serve(listener: UnixListener, mut mind: Mind) {
    while let Ok((agent, _)) = listener.accept().await {
        if let Err(error) = mind.speak_with(agent).await {
            tracing::warn!(error = format!("{error:#}"), "the byzantine enclave failed");
        }
    }
}

impl Mind {
    fn does(&self) -> Vec<PeerMisdeed> {
        self.misdeeds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn speak_with(&mut self, agent: UnixStream) -> Result<()> {
        let (mut receiver, mut sender) = enclave_link::split(agent);
        let keys = self.keys.public();
        let welcome = Welcome {
            version: VERSION,
            build: "byzantine".to_owned(),
            identity: keys.identity.to_vec(),
            sealing: keys.sealing.to_vec(),
            said: Vec::new(),
        };
        sender.send(&FromEnclave { kind: Some(from_enclave::Kind::Welcome(welcome)) }).await?;
        let begun = Instant::now();
        let mut playing: BTreeMap<Hash, Playing> = BTreeMap::new();
        let mut early: Vec<Deliver> = Vec::new();
        let mut ticks = tokio::time::interval(TICK);
        loop {
            let message = tokio::select! {
                message = receiver.receive::<ToEnclave>() => message?.context("the agent is gone")?.kind,
                _ = ticks.tick() => None,
            };
            let now = Millis::try_from(begun.elapsed().as_millis())?;
            let answers = match message {
                Some(to_enclave::Kind::Attest(attest)) => vec![self.attest(attest.request, &attest.nonce)?],
                Some(to_enclave::Kind::Start(start)) => {
                    let (label, mut play) = self.play(&start)?;
                    let mut answers = self.act(&label, &mut play, |session| session.start(now))?;
                    for deliver in early.extract_if(.., |deliver| deliver.label == label.as_bytes()) {
                        answers.extend(
                            self.act(&label, &mut play, |session| session.receive(now, &deliver.payload))?,
                        );
                    }
                    playing.insert(label, play);
                    answers
                }
                Some(to_enclave::Kind::Deliver(deliver)) => {
                    let label = Hash::try_from(deliver.label.as_slice())?;
                    if let Some(play) = playing.get_mut(&label) {
                        self.act(&label, play, |session| session.receive(now, &deliver.payload))?
                    } else {
                        early.push(deliver);
                        Vec::new()
                    }
                }
                Some(to_enclave::Kind::TryKms(order)) => {
                    let tried = KmsTried { request: order.request, trouble: String::new() };
                    vec![from_enclave::Kind::KmsTried(tried)]
                }
                Some(
                    to_enclave::Kind::Stored(_)
                    | to_enclave::Kind::Stop(_)
                    | to_enclave::Kind::StreamData(_)
                    | to_enclave::Kind::StreamClosed(_),
                ) => Vec::new(),
                None => {
                    let mut answers = Vec::new();
                    for (label, play) in &mut playing {
                        answers.extend(self.act(label, play, |session| session.tick(now))?);
                    }
                    answers
                }
            };
            for kind in answers {
                sender.send(&FromEnclave { kind: Some(kind) }).await?;
            }
        }
    }

    fn attest(&self, request: u64, nonce: &[u8]) -> Result<from_enclave::Kind> {
        let spec = DocumentSpec::new(&self.measurement, now())
            .public_key(&[1; 294])
            .user_data(&self.keys.public().encode())
            .nonce(nonce);
        let document = self.root.sign(&spec)?;
        Ok(from_enclave::Kind::Attestation(Attestation { request, document }))
    }

    fn play(&self, start: &Start) -> Result<(Hash, Playing)> {
        let node = NodeIndex::try_from(start.node)?;
        let charter = Arc::new(Charter::parse(&start.charter)?);
        let mut book = Book::new(Context::new(charter, Arc::clone(&self.trust))?);
        let records = start.records.iter().map(|record| Record::parse(record));
        book.rest_on(records.collect::<Result<Vec<_>, _>>()?);
        let mut id = None;
        for bytes in start.others.iter().flat_map(|other| &other.entries).chain(&start.log) {
            let entry = Entry::decode(bytes)?;
            id = Some(entry.ceremony.clone());
            book.take(entry)?;
        }
        let folded = id.and_then(|id| book.get(&id)).context("an order without a log")?;
        let ceremony = folded.ceremony.clone();
        let duty = ceremony.duty(node, &self.keys.public(), now()).context("nothing is due")?;
        let spec = ceremony.session(&duty).context("no session is due")?;
        let record = match &ceremony.manifest().origin {
            Some(origin) => book.get(&origin.ceremony).and_then(|chapter| chapter.ceremony.committed()),
            None => ceremony.committed(),
        };
        let fooled = self.does().into_iter().find_map(|misdeed| {
            let PeerMisdeed::TwoFaces(fooled) = misdeed else { return None };
            Some(fooled)
        });
        let faces = (0..if fooled.is_some() { 2 } else { 1 })
            .map(|_| self.face(node, &spec, &ceremony, &duty, record.as_ref().map(|wallet| &wallet.record)))
            .collect::<Result<_>>()?;
        Ok((spec.label, Playing { node, ceremony, duty, faces, fooled, ended: false }))
    }

    fn face(
        &self,
        own: NodeIndex,
        spec: &SessionSpec,
        ceremony: &Ceremony,
        duty: &Duty,
        record: Option<&Record>,
    ) -> Result<Session<Product>> {
        let plan = SessionPlan {
            label: spec.label,
            context: spec.context,
            own,
            parties: spec.parties.clone(),
            barrier_ms: BARRIER_MS,
            round_ms: ROUND_MS,
        };
        let (threshold, misdeeds) = (spec.threshold, self.does());
        let parties: Vec<NodeIndex> = spec.parties.keys().copied().collect();
        let factory: Factory = if let Duty::TestSign { subset, attempt, .. } = duty {
            let record = record.context("no wallet to sign with")?;
            let share = Arc::clone(self.shares.get(&record.digest()).context("no share to sign with")?);
            let manifest = ceremony.manifest().hash();
            let digest = test_digest(&manifest, &record.digest(), subset, *attempt);
            let key = record.public_key;
            Box::new(move |session| {
                let honest = Signing::new(share, own, &parties, key, digest, session)?;
                Ok(Box::new(Cheat { honest, misdeeds }))
            })
        } else {
            Box::new(move |session| {
                let honest = KeyGeneration::new(own, parties, threshold, session)?;
                Ok(Box::new(Cheat { honest, misdeeds }))
            })
        };
        Ok(Session::new(plan, Arc::clone(&self.keys), rand::random(), factory))
    }

    /// Has every face do something, and sends what follows.
    fn act(
        &mut self,
        label: &Hash,
        play: &mut Playing,
        mut act: impl FnMut(&mut Session<Product>) -> Vec<Action<Product>>,
    ) -> Result<Vec<from_enclave::Kind>> {
        let mut answers = Vec::new();
        if play.ended {
            return Ok(answers);
        }
        // A phase computes for a second.
        let acted: Vec<Vec<Action<Product>>> =
            tokio::task::block_in_place(|| play.faces.iter_mut().map(&mut act).collect());
        for (face, actions) in acted.into_iter().enumerate() {
            for action in actions {
                match action {
                    Action::Send { to, bytes } if (play.fooled == Some(to)) == (face == 1) => {
                        answers.extend(self.send(label, to, bytes));
                    }
                    Action::Finished(outcome) if face == 0 => {
                        play.ended = true;
                        answers.extend(self.finish(play, *outcome)?);
                    }
                    Action::Failed(failure) if face == 0 => {
                        play.ended = true;
                        answers.push(self.abort(play, &failure.reason));
                    }
                    Action::Send { .. } | Action::Progress(_) | Action::Finished(_) | Action::Failed(_) => {}
                }
            }
        }
        Ok(answers)
    }

    fn send(&self, label: &Hash, to: NodeIndex, bytes: Vec<u8>) -> Vec<from_enclave::Kind> {
        let message = |payload| {
            from_enclave::Kind::Send(Send { label: label.as_bytes().to_vec(), to: to.into(), payload })
        };
        let mut messages = vec![message(bytes)];
        if self.does().contains(&PeerMisdeed::Garbage) {
            messages.insert(0, message(rand::random::<[u8; 32]>().to_vec()));
            messages.insert(0, message(Vec::new()));
        }
        messages
    }

    fn finish(&mut self, play: &Playing, outcome: Outcome<Product>) -> Result<Vec<from_enclave::Kind>> {
        match outcome.product {
            Product::Share(share) => self.prepare(play, outcome.session, outcome.transcript, &share),
            Product::Signature(signature) => Ok(vec![self.test_signed(play, outcome.session, &signature)?]),
            Product::Repaired(_) | Product::Helped => bail!("the attacker takes part in no repair"),
        }
    }

    fn prepare(
        &mut self,
        play: &Playing,
        session: Hash,
        transcript: Hash,
        share: &NewShare,
    ) -> Result<Vec<from_enclave::Kind>> {
        let manifest = play.ceremony.manifest();
        let mut chain_code = *share.chain_code.as_bytes();
        if self.does().contains(&PeerMisdeed::LieAboutResult) {
            chain_code[0] ^= 1;
        }
        let sharing = Sharing {
            scheme: Scheme::Dkls23Secp256k1,
            public_key: share.public_key,
            chain_code: chain_code.into(),
            public_shares: share.public_shares.clone(),
            session,
            transcript,
        };
        let record = Record::parse(&sharing.record(manifest, &play.ceremony.approved_or_current_enclaves()))?;
        let encoded = share.share.encode()?;
        self.shares.insert(record.digest(), Arc::new(KeyShare::decode(&encoded)?));
        // It keeps its share in memory, but gives its agent something to store.
        let blob = b"nothing".to_vec();
        let blob_digest = Hash::of_bytes(&blob);
        let sealed = Sealed {
            ceremony: manifest.ceremony.to_string(),
            wallet: manifest.wallet.to_string(),
            generation: manifest.generation.0,
            record: record.digest().as_bytes().to_vec(),
            blob,
        };
        let signature = self.keys.sign(&prepared_message(&record.digest(), play.node, &blob_digest));
        let prepared = log::Prepared {
            node: play.node.into(),
            record: record.as_bytes().to_vec(),
            blob: blob_digest.as_bytes().to_vec(),
            signature: signature.to_vec(),
        };
        let mut answers = vec![
            from_enclave::Kind::Sealed(sealed),
            said(&play.ceremony, log::event::Kind::Prepared(prepared)),
        ];
        if self.does().contains(&PeerMisdeed::SayBoth) {
            answers.push(self.abort(play, "on second thoughts"));
        }
        Ok(answers)
    }

    fn test_signed(
        &self,
        play: &Playing,
        session: Hash,
        signature: &Signature,
    ) -> Result<from_enclave::Kind> {
        let Duty::TestSign { subset, attempt, .. } = &play.duty else { bail!("no signature was due") };
        let mut signed = TestSigned {
            node: play.node,
            subset: subset.clone(),
            attempt: *attempt,
            input: 0,
            session,
            r: signature.r,
            s: signature.s,
            recovery_id: signature.recovery_id,
            signature: [0; 64],
        };
        signed.signature = self.keys.sign(&signed.message(&play.ceremony.manifest().hash()));
        let wire = log::TestSigned {
            node: signed.node.into(),
            subset: numbers(subset),
            attempt: signed.attempt,
            session: session.as_bytes().to_vec(),
            r: signed.r.to_vec(),
            s: signed.s.to_vec(),
            recovery_id: signed.recovery_id.into(),
            signature: signed.signature.to_vec(),
            input: 0,
        };
        Ok(said(&play.ceremony, log::event::Kind::TestSigned(wire)))
    }

    fn abort(&self, play: &Playing, reason: &str) -> from_enclave::Kind {
        let manifest = play.ceremony.manifest();
        let (subset, attempt) = if let Duty::TestSign { subset, attempt, .. } = &play.duty {
            (subset.clone(), *attempt)
        } else {
            (Subset::new(manifest.roster.iter().copied()), 1)
        };
        let mut aborted = Aborted {
            node: play.node,
            subset,
            attempt,
            reason: Line::lossy(reason),
            culprit: None,
            banned: None,
            signature: [0; 64],
        };
        aborted.signature = self.keys.sign(&aborted.message(&manifest.hash()));
        let wire = log::Aborted {
            node: aborted.node.into(),
            subset: numbers(&aborted.subset),
            attempt,
            reason: aborted.reason.into(),
            culprit: 0,
            banned: 0,
            signature: aborted.signature.to_vec(),
        };
        said(&play.ceremony, log::event::Kind::Aborted(wire))
    }
}

fn numbers(subset: &Subset) -> Vec<u32> {
    subset.parties().iter().map(|party| u32::from(*party)).collect()
}

fn said(ceremony: &Ceremony, kind: log::event::Kind) -> from_enclave::Kind {
    let event = log::Event { kind: Some(kind) }.encode_to_vec();
    from_enclave::Kind::Said(Said { ceremony: ceremony.manifest().ceremony.to_string(), event })
}

/// A protocol that cheats in what it signs.
struct Cheat<P> {
    honest: P,
    misdeeds: Vec<PeerMisdeed>,
}

impl<P> Cheat<P> {
    fn corrupt(&self, round: usize, mut outgoing: Outgoing) -> Outgoing {
        if self.misdeeds.contains(&PeerMisdeed::CorruptBroadcast(round)) {
            flip(&mut outgoing.broadcast);
        }
        if self.misdeeds.contains(&PeerMisdeed::CorruptPrivate(round)) {
            // In one only: the same error in all could be another valid polynomial.
            outgoing.private.values_mut().take(1).for_each(|private| flip(private));
        }
        outgoing
    }
}

impl<P: Protocol> Protocol for Cheat<P> {
    type Product = P::Product;

    fn rounds(&self) -> &'static [&'static str] {
        self.honest.rounds()
    }

    fn start(&mut self) -> Result<Outgoing, ProtocolAbort> {
        let outgoing = self.honest.start()?;
        Ok(self.corrupt(1, outgoing))
    }

    fn round(&mut self, number: usize, messages: Round) -> Result<Step<P::Product>, ProtocolAbort> {
        Ok(match self.honest.round(number, messages)? {
            Step::Next(outgoing) => Step::Next(self.corrupt(number + 1, outgoing)),
            done @ Step::Done(_) => done,
        })
    }
}
