//! What an enclave does, after `enclave/src/service`. Cryptographic sessions are left out: when all parties are in one,
//! it may come to its last round, and from there each party ends by itself.

use ceremonies::ceremony::{Ceremony, Duty, test_digest};
use ceremonies::entry::{Aborted, TestSigned};
use ceremonies::ids::{CeremonyId, Hash};
use ceremonies::script::Act;
use ceremonies::subsets::Subset;
use ceremonies::wallet::{
    Point, Record, Wallet, backed_up_message, prepared_message, proved_message, recovered_message,
    retired_message, staged_message,
};
use ceremonies::wire::log::{self, event::Kind};
use ciborium::Value;
use prost::Message as _;

use super::charter::NODES;
use super::node::{Job, Shown, ToAgent, ToEnclave, Word};
use super::world::{Session, Slip, World};
use crate::cluster::{line, node};
use crate::keys::Sharing;
use crate::kit::numbers;
use crate::machine::MACHINE;

const SECRET: u64 = 0x5eed_0001;

/// An order that the enclave does not follow.
struct Refused;

fn sharing(session: &Hash) -> Sharing {
    let slope = u64::from_be_bytes(session.as_bytes()[..8].try_into().unwrap());
    Sharing([SECRET, slope | 1, 0])
}

fn record_of(ceremony: &Ceremony, session: &Hash) -> Record {
    let manifest = ceremony.manifest();
    let sharing = sharing(session);
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
        public_shares: (1..=NODES)
            .map(|x| log::PublicShare { node: x.into(), point: sharing.point(x) })
            .collect(),
        session: session.as_bytes().to_vec(),
        transcript: vec![4; 32],
        enclaves: ceremony.approved_or_current_enclaves().as_bytes().to_vec(),
    };
    Record::parse(&record.encode_to_vec()).unwrap()
}

impl World {
    pub(super) fn ordered(&mut self, at: usize, message: ToEnclave) {
        match message {
            ToEnclave::Attest { request, nonce } => {
                let keys = self.nodes[at].enclave.keys.keys();
                let payload = MACHINE.payload(nonce.as_bytes(), self.now, &keys);
                let document = MACHINE.sign(&Value::Map(payload));
                self.nodes[at].to_agent.push_back(ToAgent::Attestation(request, document));
            }
            ToEnclave::Start { request, log, others, blob } => {
                if self.start(at, *log, others, blob).is_err() {
                    self.nodes[at].to_agent.push_back(ToAgent::Refused(request));
                }
            }
            ToEnclave::Stored { ceremony, blob } => self.stored(at, &ceremony, blob),
        }
    }

    /// An older log adds nothing, and one that forks from what was shown before is refused.
    fn learn(&mut self, at: usize, shown: Shown) -> Result<CeremonyId, Refused> {
        let id = shown.ceremony.manifest().ceremony.clone();
        let ledger = &mut self.nodes[at].enclave.ledger;
        match ledger.get(&id) {
            Some(known) => {
                let both = known.hashes.len().min(shown.hashes.len());
                if known.hashes[both - 1] != shown.hashes[both - 1] {
                    return Err(Refused);
                }
                if shown.hashes.len() > both {
                    ledger.insert(id.clone(), shown);
                }
            }
            None => drop(ledger.insert(id.clone(), shown)),
        }
        Ok(id)
    }

    fn start(
        &mut self,
        at: usize,
        log: Shown,
        others: Vec<Shown>,
        blob: Option<Hash>,
    ) -> Result<(), Refused> {
        for other in others {
            self.learn(at, other)?;
        }
        let id = self.learn(at, log)?;
        let by = node(u8::try_from(at).unwrap() + 1);
        let now = self.now;
        let enclave = &mut self.nodes[at].enclave;
        let ceremony = enclave.ledger[&id].ceremony.clone();
        let own = enclave.keys.keys();
        let duty = ceremony.duty(by, &own, now).ok_or(Refused)?;
        match duty {
            Duty::Prepare => return self.prepare(at, &ceremony),
            Duty::Retire => {
                let record = ceremony.committed().ok_or(Refused)?.record;
                enclave.shares.retain(|_, generation| *generation >= record.generation.0);
                let signature = enclave.keys.sign(&retired_message(&record.digest(), by));
                let record = record.digest().as_bytes().to_vec();
                self.say(at, &id, Kind::Retired(log::Retired { node: by.into(), record, signature }));
                return Ok(());
            }
            _ => {}
        }
        let committed: Vec<Wallet> =
            enclave.ledger.values().filter_map(|shown| shown.ceremony.committed()).collect();
        let current = committed.iter().map(|wallet| wallet.record.generation).max();
        if let (Some(before), Some(current)) = (ceremony.before(), current)
            && current > before.record.generation
            && ceremony.committed().is_none_or(|made| made.record.generation != current)
        {
            return Err(Refused);
        }
        let spec = ceremony.session(&duty).ok_or(Refused)?;
        if spec.parties.get(&by) != Some(&own) {
            return Err(Refused);
        }
        let wallet = ceremony.share_for(&duty, by);
        let expected = wallet.as_ref().and_then(|wallet| wallet.blobs.get(&by).copied());
        if expected != blob && committed.iter().any(|other| other.blobs.get(&by).copied() == blob) {
            return Err(Refused);
        }
        if spec.parties.len() > 1 && !enclave.started.insert(spec.label) {
            return Err(Refused);
        }
        let before = ceremony.before().map(|wallet| wallet.record.digest());
        let has_share = match &wallet {
            Some(wallet) => {
                let record = wallet.record.digest();
                let opens = enclave.shares.contains_key(&record) || expected == blob;
                if opens {
                    enclave.shares.insert(record, wallet.record.generation.0);
                }
                opens
            }
            None => before.is_some_and(|record| enclave.shares.contains_key(&record)),
        };
        let job = Job { ceremony, duty, spec, has_share };
        if job.duty.concerns_a_backup() {
            return self.with_backup(at, &job);
        }
        self.join(at, job);
        Ok(())
    }

    fn prepare(&mut self, at: usize, ceremony: &Ceremony) -> Result<(), Refused> {
        let id = &ceremony.manifest().ceremony;
        let staged = ceremony.staged_wallet().map(|wallet| wallet.record.digest());
        let enclave = &mut self.nodes[at].enclave;
        let own = enclave.staged.get(id).filter(|(record, _)| Some(record.digest()) == staged);
        let (record, blob) = own.cloned().ok_or(Refused)?;
        if self.say_prepared(at, &record, blob) {
            self.nodes[at].enclave.staged.remove(id);
        }
        Ok(())
    }

    fn say_prepared(&mut self, at: usize, record: &Record, blob: Hash) -> bool {
        let by = node(u8::try_from(at).unwrap() + 1);
        let enclave = &mut self.nodes[at].enclave;
        if enclave.decided.contains_key(&record.ceremony) {
            return false;
        }
        enclave.decided.insert(record.ceremony.clone(), Word::Prepared);
        let signature = enclave.keys.sign(&prepared_message(&record.digest(), by, &blob));
        let prepared = log::Prepared {
            node: by.into(),
            record: record.as_bytes().to_vec(),
            blob: blob.as_bytes().to_vec(),
            signature,
        };
        self.say(at, &record.ceremony, Kind::Prepared(prepared));
        true
    }

    fn with_backup(&mut self, at: usize, job: &Job) -> Result<(), Refused> {
        let by = node(u8::try_from(at).unwrap() + 1);
        let manifest = job.ceremony.manifest();
        let made = job.ceremony.made().ok_or(Refused)?;
        let enclave = &self.nodes[at].enclave;
        match &job.duty {
            Duty::Backup { .. } => {
                if !job.has_share {
                    return Err(Refused);
                }
                let digest =
                    |what: &str| Hash::of_parts(what, &[enclave.boot.as_bytes(), by.to_string().as_bytes()]);
                let (whole, root) = (digest("whole"), digest("root"));
                let message = backed_up_message(&made.record.digest(), by, &whole, &root);
                let signature = enclave.keys.sign(&message);
                let ceremony = manifest.ceremony.clone();
                self.nodes[at].to_agent.push_back(ToAgent::BackedUp { ceremony, whole, root, signature });
            }
            Duty::Prove { .. } => {
                let release = job.ceremony.release(Act::Prove, by).ok_or(Refused)?;
                if release.sealed != enclave.boot.as_bytes() {
                    return Err(Refused);
                }
                let object = release.object;
                let point = made.record.public_shares.get(&by).ok_or(Refused)?;
                let message = proved_message(&manifest.hash(), by, &object, point);
                let proved = log::Proved {
                    node: by.into(),
                    object: object.as_bytes().to_vec(),
                    point: Point::as_bytes(point).to_vec(),
                    signature: enclave.keys.sign(&message),
                };
                self.say(at, &manifest.ceremony, Kind::Proved(proved));
            }
            _ => return Err(Refused),
        }
        Ok(())
    }

    fn say(&mut self, at: usize, id: &CeremonyId, kind: Kind) {
        let node = &mut self.nodes[at];
        node.enclave.said.push((id.clone(), kind.clone()));
        if node.is_linked {
            node.to_agent.push_back(ToAgent::Said(id.clone(), kind));
        }
    }

    fn join(&mut self, at: usize, job: Job) {
        let label = job.spec.label;
        let parties = job.spec.parties.keys().map(|party| usize::from(party.get()) - 1).collect();
        let needs = match &job.duty {
            Duty::Repair { lost } => usize::from(lost.get()) - 1 != at,
            Duty::Generate => job.ceremony.manifest().kind.renews(),
            _ => true,
        };
        let is_able = job.has_share || !needs;
        let context = job.spec.context;
        self.nodes[at].enclave.open.insert(label, job);
        if !is_able {
            return self.give_up(at, &label);
        }
        let now = self.now;
        let session = self.sessions.entry(label).or_insert_with(|| Session {
            parties,
            joined: Vec::new(),
            began: now,
            outcome: None,
        });
        let boot = self.nodes[at].enclave.boot.clone();
        session.joined.push((at, boot, context));
    }

    /// The last round reaches one party.
    pub(super) fn finish(&mut self, at: usize, label: &Hash) {
        let Some(outcome) = self.sessions.get(label).and_then(|session| session.outcome) else { return };
        let by = node(u8::try_from(at).unwrap() + 1);
        let Some(job) = self.nodes[at].enclave.open.get(label).cloned() else { return };
        let manifest = job.ceremony.manifest();
        let id = manifest.ceremony.clone();
        match &job.duty {
            Duty::Repair { lost } => {
                self.nodes[at].enclave.open.remove(label);
                if *lost != by {
                    return;
                }
                let Some(before) = job.ceremony.before() else { return };
                let enclave = &mut self.nodes[at].enclave;
                enclave.shares.insert(before.record.digest(), before.record.generation.0);
                let signature = enclave.keys.sign(&recovered_message(&manifest.hash(), by));
                self.say(at, &id, Kind::Recovered(log::Recovered { node: by.into(), signature }));
            }
            Duty::TestSign { subset, attempt, .. } => {
                self.nodes[at].enclave.open.remove(label);
                self.say_signed(at, &job.ceremony, subset, *attempt, outcome);
            }
            _ => {
                let record = record_of(&job.ceremony, &outcome);
                let blob =
                    Hash::of_parts("blob", &[self.nodes[at].enclave.boot.as_bytes(), label.as_bytes()]);
                let node = &mut self.nodes[at];
                node.enclave.waiting.insert(id, (*label, record.clone(), blob));
                if self.slip == Some(Slip::StagesBeforeStored) {
                    return self.stored(at, &record.ceremony, blob);
                }
                node.to_agent.push_back(ToAgent::Sealed { record: Box::new(record), blob });
            }
        }
    }

    fn say_signed(&mut self, at: usize, ceremony: &Ceremony, subset: &Subset, attempt: u32, session: Hash) {
        let by = node(u8::try_from(at).unwrap() + 1);
        let manifest = ceremony.manifest();
        let Some(record) = ceremony.record() else { return };
        let digest = test_digest(&manifest.hash(), &record.digest(), subset, attempt);
        let (r, s, recovery_id) = Sharing([SECRET, 1, 0]).ecdsa(&digest);
        let (node, subset) = (by, subset.clone());
        let signed =
            TestSigned { node, subset, attempt, input: 0, session, r, s, recovery_id, signature: [0; 64] };
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
    fn stored(&mut self, at: usize, id: &CeremonyId, blob: Hash) {
        let by = node(u8::try_from(at).unwrap() + 1);
        let enclave = &mut self.nodes[at].enclave;
        let Some((label, record, expected)) = enclave.waiting.remove(id) else { return };
        if blob != expected {
            return self.give_up(at, &label);
        }
        let Some(job) = enclave.open.remove(&label) else { return };
        enclave.shares.insert(record.digest(), record.generation.0);
        if !job.ceremony.manifest().kind.renews() {
            self.say_prepared(at, &record, blob);
            return;
        }
        let signature = enclave.keys.sign(&staged_message(&record.digest(), by, &blob));
        let staged = log::Staged {
            node: by.into(),
            record: record.as_bytes().to_vec(),
            blob: blob.as_bytes().to_vec(),
            signature,
        };
        enclave.staged.insert(id.clone(), (record, blob));
        self.say(at, id, Kind::Staged(staged));
    }

    pub(super) fn give_up(&mut self, at: usize, label: &Hash) {
        let by = node(u8::try_from(at).unwrap() + 1);
        let enclave = &mut self.nodes[at].enclave;
        let Some(job) = enclave.open.remove(label) else { return };
        let manifest = job.ceremony.manifest();
        enclave.waiting.remove(&manifest.ceremony);
        let (subset, attempt) = match &job.duty {
            Duty::TestSign { subset, attempt, .. } => (subset.clone(), *attempt),
            Duty::Repair { lost } => (job.ceremony.repairing(*lost), 1),
            _ => (Subset::new(manifest.roster.iter().copied()), 1),
        };
        if matches!(job.duty, Duty::Generate | Duty::Repair { .. }) {
            if enclave.decided.contains_key(&manifest.ceremony) {
                return;
            }
            enclave.decided.insert(manifest.ceremony.clone(), Word::Aborted);
        }
        let aborted = Aborted {
            node: by,
            subset: subset.clone(),
            attempt,
            reason: line("given up"),
            culprit: None,
            banned: None,
            signature: [0; 64],
        };
        let wire = log::Aborted {
            node: by.into(),
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
    pub(super) fn unlink(&mut self, at: usize) {
        self.nodes[at].is_linked = false;
        self.nodes[at].to_enclave.clear();
        let labels: Vec<Hash> = self.nodes[at].enclave.open.keys().copied().collect();
        for label in labels {
            self.give_up(at, &label);
        }
        self.nodes[at].enclave.waiting.clear();
    }
}
