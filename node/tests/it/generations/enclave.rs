//! What an enclave does, after `enclave/src/service`, with the link's messages. Cryptographic sessions are left out: when
//! all parties are in one, it may come to its last round, and from there each party ends by itself.

use std::collections::{BTreeMap, BTreeSet};

use ceremonies::ceremony::{Ceremony, Context, Duty, test_digest};
use ceremonies::entry::{Aborted, TestSigned};
use ceremonies::ids::{CeremonyId, Generation, Hash};
use ceremonies::script::Act;
use ceremonies::subsets::Subset;
use ceremonies::wallet::{
    Point, Record, backed_up_message, prepared_message, proved_message, recovered_message, retired_message,
    staged_message,
};
use ceremonies::wire::log::{self, event::Kind};
use enclave_link::VERSION;
use enclave_link::message::{
    Attestation, Backups, KmsTried, Refused, Said, Sealed, Start, Welcome, from_enclave, to_enclave,
};
use prost::Message as _;

use super::charter::NODES;
use super::keys::{BootKeys, MACHINE, Sharing, ecdsa};
use super::ledger::{Due, Ledger, Order, Refusal};
use super::sessions::Session;
use super::world::{Slip, World};
use crate::simulation::charter::{line, node};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Prepared,
    Aborted,
}

/// Something that was ordered and has not yet produced an event for the log.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) order: Order,
    has_share: bool,
}

/// A new share that is sealed and must still come back from the store.
#[derive(Clone)]
struct Unproven {
    label: Hash,
    record: Record,
    blob: Hash,
}

/// The enclave's memory.
#[derive(Clone)]
pub(super) struct Enclave {
    pub(super) boot: String,
    pub(super) keys: BootKeys,
    ledger: Ledger,
    started: BTreeSet<Hash>,
    /// Open shares by their record, with the generation.
    shares: BTreeMap<Hash, Generation>,
    staged: BTreeMap<CeremonyId, (Record, Hash)>,
    decided: BTreeMap<CeremonyId, Word>,
    /// The latest generation that it signed, and in which ceremony.
    latest: Option<(Generation, CeremonyId)>,
    said: Vec<Said>,
    /// Of this connection alone.
    pub(super) open: BTreeMap<Hash, Job>,
    waiting: BTreeMap<CeremonyId, Unproven>,
}

impl Enclave {
    pub(super) fn new(boot: String, context: &Context) -> Self {
        Self {
            keys: BootKeys::new(&boot),
            boot,
            ledger: Ledger::new(context),
            started: BTreeSet::new(),
            shares: BTreeMap::new(),
            staged: BTreeMap::new(),
            decided: BTreeMap::new(),
            latest: None,
            said: Vec::new(),
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    pub(super) fn holds(&self, record: &Hash) -> bool {
        self.shares.contains_key(record)
    }

    /// Whether the last round of this job's session was taken in, and its share is not stored yet.
    pub(super) fn waits_in(&self, job: &Job) -> bool {
        self.waiting.contains_key(&job.order.ceremony.manifest().ceremony)
    }

    pub(super) fn welcome(&self) -> from_enclave::Kind {
        let keys = self.keys.public();
        from_enclave::Kind::Welcome(Welcome {
            version: VERSION,
            build: "mirror".to_owned(),
            identity: keys.identity.to_vec(),
            sealing: keys.sealing.to_vec(),
            said: self.said.clone(),
        })
    }

    /// Decides how a key generation ends for this enclave: the first statement stands.
    fn decide(&mut self, ceremony: &CeremonyId, word: Word) -> bool {
        if self.decided.contains_key(ceremony) {
            return false;
        }
        self.decided.insert(ceremony.clone(), word);
        true
    }
}

fn record_of(ceremony: &Ceremony, session: &Hash) -> Record {
    let manifest = ceremony.manifest();
    let sharing = Sharing::of(session);
    let record = log::GenerationRecord {
        version: 1,
        cluster: manifest.cluster.to_string(),
        ceremony: manifest.ceremony.to_string(),
        manifest: manifest.hash().as_bytes().to_vec(),
        wallet: manifest.wallet.to_string(),
        generation: manifest.generation.0,
        threshold: manifest.threshold.into(),
        public_key: sharing.point(0),
        chain_code: vec![2; 32],
        public_shares: (0..NODES)
            .map(|at| log::PublicShare { node: node(at).into(), point: sharing.point(node(at).get()) })
            .collect(),
        session: session.as_bytes().to_vec(),
        transcript: vec![4; 32],
        enclaves: ceremony.approved_or_current_enclaves().as_bytes().to_vec(),
    };
    Record::parse(&record.encode_to_vec()).unwrap()
}

fn numbers(subset: &Subset) -> Vec<u32> {
    subset.parties().iter().map(|party| u32::from(*party)).collect()
}

impl World {
    pub(super) fn enclave_hears(&mut self, at: usize, message: to_enclave::Kind) {
        match message {
            to_enclave::Kind::Attest(attest) => {
                let keys = self.nodes[at].enclave.keys.public();
                let document = MACHINE.document(&attest.nonce, self.wall(), &keys);
                let attestation = Attestation { request: attest.request, document };
                self.tell_agent(at, from_enclave::Kind::Attestation(attestation));
            }
            to_enclave::Kind::Start(start) => {
                let request = start.request;
                if let Err(refusal) = self.follow(at, &start) {
                    let (Refusal::Plain(reason) | Refusal::Fork(reason)) = &refusal;
                    let reason = reason.clone();
                    self.nodes[at].is_behind |= matches!(refusal, Refusal::Fork(_));
                    self.note(|| format!("enclave {} refuses: {reason}", node(at)));
                    self.tell_agent(at, from_enclave::Kind::Refused(Refused { request, reason }));
                }
            }
            to_enclave::Kind::Stored(stored) => {
                self.is_stored(at, &stored.ceremony.parse().unwrap(), &stored.blob);
            }
            to_enclave::Kind::TryKms(order) => {
                let tried = KmsTried { request: order.request, trouble: String::new() };
                self.tell_agent(at, from_enclave::Kind::KmsTried(tried));
            }
            other @ (to_enclave::Kind::Deliver(_)
            | to_enclave::Kind::StreamData(_)
            | to_enclave::Kind::StreamClosed(_)) => panic!("a core says {other:?}"),
        }
    }

    fn follow(&mut self, at: usize, start: &Start) -> Result<(), Refusal> {
        let now = self.wall();
        let enclave = &mut self.nodes[at].enclave;
        let own = enclave.keys.public();
        match enclave.ledger.read(start, &own, now)? {
            Due::Session(order) => self.take_up(at, *order, start),
            Due::Prepare(ceremony) => self.prepare(at, &ceremony),
            Due::Retire(wallet) => {
                let record = wallet.record;
                enclave.shares.retain(|_, generation| *generation >= record.generation);
                let signature = enclave.keys.sign(&retired_message(&record.digest(), node(at)));
                let digest = record.digest().as_bytes().to_vec();
                let retired = log::Retired { node: node(at).into(), record: digest, signature };
                self.say(at, &record.ceremony, Kind::Retired(retired));
                Ok(())
            }
        }
    }

    fn take_up(&mut self, at: usize, order: Order, start: &Start) -> Result<(), Refusal> {
        let enclave = &mut self.nodes[at].enclave;
        if order.spec.parties.len() > 1 && !enclave.started.insert(order.spec.label) {
            return Err("this session was begun before".into());
        }
        let has_share = match &order.wallet {
            Some(wallet) => {
                let record = wallet.record.digest();
                let expected = wallet.blobs.get(&node(at));
                let opens = enclave.holds(&record) || expected == Some(&Hash::of_bytes(&start.blob));
                if opens {
                    enclave.shares.insert(record, wallet.record.generation);
                }
                opens
            }
            None => order.ceremony.before().is_some_and(|before| enclave.holds(&before.record.digest())),
        };
        let job = Job { order, has_share };
        if job.order.duty.concerns_a_backup() {
            return self.with_backup(at, &job, &start.backup);
        }
        self.join(at, job);
        Ok(())
    }

    fn prepare(&mut self, at: usize, ceremony: &Ceremony) -> Result<(), Refusal> {
        let id = &ceremony.manifest().ceremony;
        let staged = ceremony.staged_wallet().map(|wallet| wallet.record.digest());
        let enclave = &mut self.nodes[at].enclave;
        let own = enclave.staged.get(id).filter(|(record, _)| Some(record.digest()) == staged);
        let (record, blob) = own.cloned().ok_or("this enclave holds no staged share")?;
        if self.say_prepared(at, &record, blob) {
            self.nodes[at].enclave.staged.remove(id);
        }
        Ok(())
    }

    fn say_prepared(&mut self, at: usize, record: &Record, blob: Hash) -> bool {
        let enclave = &mut self.nodes[at].enclave;
        let is_behind = |(generation, by): &(Generation, CeremonyId)| {
            *generation >= record.generation && *by != record.ceremony
        };
        if enclave.latest.as_ref().is_some_and(is_behind) || !enclave.decide(&record.ceremony, Word::Prepared)
        {
            return false;
        }
        enclave.latest = Some((record.generation, record.ceremony.clone()));
        let signature = enclave.keys.sign(&prepared_message(&record.digest(), node(at), &blob));
        let prepared = log::Prepared {
            node: node(at).into(),
            record: record.as_bytes().to_vec(),
            blob: blob.as_bytes().to_vec(),
            signature,
        };
        self.say(at, &record.ceremony, Kind::Prepared(prepared));
        true
    }

    fn with_backup(&mut self, at: usize, job: &Job, backup: &[u8]) -> Result<(), Refusal> {
        let by = node(at);
        let ceremony = &job.order.ceremony;
        let manifest = ceremony.manifest();
        let made = ceremony.made().ok_or("nothing is due")?;
        let enclave = &self.nodes[at].enclave;
        match &job.order.duty {
            Duty::Backup { .. } if job.has_share => {
                let write = |what: &str| format!("{what} of {by} by {}", enclave.boot).into_bytes();
                let (whole, root) = (write("whole"), write("root"));
                let digests = (Hash::of_bytes(&whole), Hash::of_bytes(&root));
                let message = backed_up_message(&made.record.digest(), by, &digests.0, &digests.1);
                let signature = enclave.keys.sign(&message);
                let backups = Backups { ceremony: manifest.ceremony.to_string(), whole, root, signature };
                self.tell_agent(at, from_enclave::Kind::Backups(backups));
            }
            Duty::Prove { .. } => {
                let release = ceremony.release(Act::Prove, by).ok_or("nothing is due")?;
                if release.sealed != enclave.boot.as_bytes() || Hash::of_bytes(backup) != release.object {
                    return Err("the backup was released for another enclave, or is another".into());
                }
                let point = made.record.public_shares.get(&by).ok_or("no share")?;
                let message = proved_message(&manifest.hash(), by, &release.object, point);
                let proved = log::Proved {
                    node: by.into(),
                    object: release.object.as_bytes().to_vec(),
                    point: Point::as_bytes(point).to_vec(),
                    signature: enclave.keys.sign(&message),
                };
                self.say(at, &manifest.ceremony, Kind::Proved(proved));
            }
            _ => return Err("this enclave does not have the share".into()),
        }
        Ok(())
    }

    fn say(&mut self, at: usize, id: &CeremonyId, kind: Kind) {
        let event = log::Event { kind: Some(kind) }.encode_to_vec();
        let said = Said { ceremony: id.to_string(), event };
        self.nodes[at].enclave.said.push(said.clone());
        self.tell_agent(at, from_enclave::Kind::Said(said));
    }

    fn join(&mut self, at: usize, job: Job) {
        let Order { ceremony, duty, spec, .. } = &job.order;
        let (label, context) = (spec.label, spec.context);
        let parties = spec.parties.keys().map(|party| usize::from(party.get()) - 1).collect();
        let needs = match duty {
            Duty::Repair { lost } => *lost != node(at),
            Duty::Generate => ceremony.manifest().kind.renews(),
            _ => true,
        };
        let is_able = job.has_share || !needs;
        self.nodes[at].enclave.open.insert(label, job);
        if !is_able {
            return self.give_up(at, &label);
        }
        let boot = self.nodes[at].enclave.boot.clone();
        let began = self.now;
        let session = self.sessions.entry(label).or_insert_with(|| Session {
            parties,
            joined: vec![],
            began,
            outcome: None,
        });
        session.joined.push((at, boot, context));
    }

    /// The last round reaches one party.
    pub(super) fn finish(&mut self, at: usize, label: &Hash) {
        let Some(outcome) = self.sessions.get(label).and_then(|session| session.outcome) else { return };
        let Some(job) = self.nodes[at].enclave.open.get(label).cloned() else { return };
        let ceremony = &job.order.ceremony;
        let manifest = ceremony.manifest();
        let id = manifest.ceremony.clone();
        match &job.order.duty {
            Duty::Repair { lost } => {
                self.nodes[at].enclave.open.remove(label);
                let Some(before) = ceremony.before().filter(|_| *lost == node(at)) else { return };
                let enclave = &mut self.nodes[at].enclave;
                enclave.shares.insert(before.record.digest(), before.record.generation);
                let signature = enclave.keys.sign(&recovered_message(&manifest.hash(), node(at)));
                self.say(at, &id, Kind::Recovered(log::Recovered { node: node(at).into(), signature }));
            }
            Duty::TestSign { subset, attempt, .. } => {
                self.nodes[at].enclave.open.remove(label);
                self.say_signed(at, ceremony, subset, *attempt, outcome);
            }
            _ => self.seal(at, ceremony, *label, &outcome),
        }
    }

    fn seal(&mut self, at: usize, ceremony: &Ceremony, label: Hash, session: &Hash) {
        let record = record_of(ceremony, session);
        let enclave = &mut self.nodes[at].enclave;
        let bytes = format!("the share of {label} in {}", enclave.boot).into_bytes();
        let blob = Hash::of_bytes(&bytes);
        enclave.waiting.insert(record.ceremony.clone(), Unproven { label, record: record.clone(), blob });
        if self.slip == Some(Slip::StagesBeforeStored) {
            return self.is_stored(at, &record.ceremony, &bytes);
        }
        let sealed = Sealed {
            ceremony: record.ceremony.to_string(),
            wallet: record.wallet.to_string(),
            generation: record.generation.0,
            record: record.digest().as_bytes().to_vec(),
            blob: bytes,
        };
        self.tell_agent(at, from_enclave::Kind::Sealed(sealed));
    }

    fn say_signed(&mut self, at: usize, ceremony: &Ceremony, subset: &Subset, attempt: u32, session: Hash) {
        let manifest = ceremony.manifest();
        let Some(record) = ceremony.record() else { return };
        let digest = test_digest(&manifest.hash(), &record.digest(), subset, attempt);
        let (r, s, recovery_id) = ecdsa(&digest);
        let (by, subset) = (node(at), subset.clone());
        let signed = TestSigned {
            node: by,
            subset,
            attempt,
            input: 0,
            session,
            r,
            s,
            recovery_id,
            signature: [0; 64],
        };
        let wire = log::TestSigned {
            input: 0,
            node: by.into(),
            subset: numbers(&signed.subset),
            attempt,
            session: session.as_bytes().to_vec(),
            r: r.to_vec(),
            s: s.to_vec(),
            recovery_id: recovery_id.into(),
            signature: self.nodes[at].enclave.keys.sign(&signed.message(&manifest.hash())),
        };
        self.say(at, &manifest.ceremony, Kind::TestSigned(wire));
    }

    /// What was stored opens again.
    fn is_stored(&mut self, at: usize, id: &CeremonyId, blob: &[u8]) {
        let enclave = &mut self.nodes[at].enclave;
        let Some(Unproven { label, record, blob: expected }) = enclave.waiting.remove(id) else { return };
        if Hash::of_bytes(blob) != expected {
            return self.give_up(at, &label);
        }
        let Some(job) = enclave.open.remove(&label) else { return };
        enclave.shares.insert(record.digest(), record.generation);
        if !job.order.ceremony.manifest().kind.renews() {
            self.say_prepared(at, &record, expected);
            return;
        }
        let signature = enclave.keys.sign(&staged_message(&record.digest(), node(at), &expected));
        let staged = log::Staged {
            node: node(at).into(),
            record: record.as_bytes().to_vec(),
            blob: expected.as_bytes().to_vec(),
            signature,
        };
        enclave.staged.insert(id.clone(), (record, expected));
        self.say(at, id, Kind::Staged(staged));
    }

    pub(super) fn give_up(&mut self, at: usize, label: &Hash) {
        let enclave = &mut self.nodes[at].enclave;
        let Some(Job { order, .. }) = enclave.open.remove(label) else { return };
        let manifest = order.ceremony.manifest();
        enclave.waiting.remove(&manifest.ceremony);
        let (subset, attempt) = match &order.duty {
            Duty::TestSign { subset, attempt, .. } => (subset.clone(), *attempt),
            Duty::Repair { lost } => (order.ceremony.repairing(*lost), 1),
            _ => (Subset::new(manifest.roster.iter().copied()), 1),
        };
        let gives_shares = matches!(order.duty, Duty::Generate | Duty::Repair { .. });
        if gives_shares && !enclave.decide(&manifest.ceremony, Word::Aborted) {
            return;
        }
        let aborted = Aborted {
            node: node(at),
            subset: subset.clone(),
            attempt,
            reason: line("given up"),
            culprit: None,
            banned: None,
            signature: [0; 64],
        };
        let wire = log::Aborted {
            node: node(at).into(),
            subset: numbers(&subset),
            attempt,
            reason: "given up".into(),
            culprit: 0,
            banned: 0,
            signature: enclave.keys.sign(&aborted.message(&manifest.hash())),
        };
        self.say(at, &manifest.ceremony, Kind::Aborted(wire));
    }

    /// The connection is gone, and with it everything that ran on it.
    pub(super) fn connection_ends(&mut self, at: usize) {
        let labels: Vec<Hash> = self.nodes[at].enclave.open.keys().copied().collect();
        for label in labels {
            self.give_up(at, &label);
        }
        self.nodes[at].enclave.waiting.clear();
    }
}
