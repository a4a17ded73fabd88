//! A whole ceremony on paper: a cluster with its people, nodes, enclaves and attestations, and no process.
//!
//! Everything that outside parts would contribute is made here with their own keys; what is allowed is
//! never decided here but by the fold under test.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::sync::Arc;

use ceremonies::ceremony::{Ceremony, Context, Rejection, opening_statement, test_digest};
use ceremonies::charter::{CeremonyKind, Charter, Role};
use ceremonies::entry::{Aborted, Entry, Place, TestSigned};
use ceremonies::evidence::Material;
use ceremonies::ids::{Generation, Hash, Line, UnixMillis};
use ceremonies::manifest::{Manifest, Origin, Proposal};
use ceremonies::script::Script;
use ceremonies::statement::{Answer, NAMESPACE};
use ceremonies::subsets::Subset;
use ceremonies::wallet::{Record, Wallet, prepared_message};
use ceremonies::wire::log::{self, event::Kind};
use ciborium::Value;
use nkeys::KeyPair as NKey;
use prost::Message as _;

use crate::cluster::{CHARTER, QUORUM, context, line, nkey, node, ssh_sign};
use crate::keys::{Enclave, SHARING, Sharing};
use crate::machine::{MACHINE, NOW};

pub(crate) const MINUTE: i64 = 60_000;
pub(crate) const LIFETIME: i64 = 60 * MINUTE;

/// Refused with this reason, and nothing else.
#[macro_export]
macro_rules! refused {
    ($result:expr, $reason:pat $(if $guard:expr)?) => {
        match $result {
            Err($reason) $(if $guard)? => {}
            other => panic!("expected {}, got {other:?}", stringify!($reason)),
        }
    };
}

/// A ceremony with its log, and all that takes part in it.
#[derive(Clone)]
pub(crate) struct Paper {
    pub(crate) log: Vec<Entry>,
    pub(crate) origins: Vec<Vec<Entry>>,
    pub(crate) ceremony: Ceremony,
    pub(crate) enclaves: BTreeMap<u8, Enclave>,
    /// The clock of every agent.
    pub(crate) now: UnixMillis,
}

/// The manifest of a ceremony led by ada.
pub(crate) fn manifest(kind: CeremonyKind, wallet: Option<&Wallet>, nonce: u8) -> Manifest {
    manifest_under(&CHARTER, kind, wallet, nonce)
}

fn manifest_under(charter: &Charter, kind: CeremonyKind, wallet: Option<&Wallet>, nonce: u8) -> Manifest {
    let origin = wallet.map(|wallet| {
        let record = &wallet.record;
        Origin { ceremony: record.ceremony.clone(), record: record.digest() }
    });
    let before = wallet.map_or(0, |wallet| wallet.record.generation.0);
    let generation = Generation(if kind.makes_shares() { before + 1 } else { before.max(1) });
    let proposal = Proposal {
        kind,
        wallet: "treasury".parse().unwrap(),
        purpose: line("To see that it works"),
        administrator: "ada".parse().unwrap(),
        opened: NOW.plus(MINUTE),
        lifetime_ms: LIFETIME,
        nonce: [nonce; 16],
        generation,
        origin,
        amendment: None,
        lost: BTreeMap::new(),
        transaction: None,
    };
    proposal.manifest(charter, &Script::builtin(kind).unwrap()).unwrap()
}

/// The opening of a manifest, signed by ada.
pub(crate) fn opened(manifest: &Manifest) -> Kind {
    let text = opening_statement(manifest, &Script::builtin(manifest.kind).unwrap()).unwrap();
    let signature = ssh_sign("ada", NAMESPACE, &text);
    Kind::Opened(log::Opened { manifest: manifest.as_bytes().to_vec(), signature })
}

/// An entry made and signed by this node's agent.
pub(crate) fn entry(place: Place, event: Kind) -> Entry {
    let key = nkey(&format!("node {}", place.node));
    entry_by(&key, place, event)
}

/// An entry signed by whatever key.
pub(crate) fn entry_by(key: &NKey, place: Place, event: Kind) -> Entry {
    Entry::create(place, log::Event { kind: Some(event) }, |bytes| {
        key.sign(bytes).map_err(Box::<dyn std::error::Error>::from)
    })
    .unwrap()
}

/// Where a log's first entry stands.
pub(crate) fn first_place(manifest: &Manifest, time: UnixMillis) -> Place {
    Place { ceremony: manifest.ceremony.clone(), seq: 1, prev: Hash::ZERO, time, node: node(1) }
}

impl Paper {
    pub(crate) fn start(context: Context, manifest: &Manifest, origins: Vec<Vec<Entry>>) -> Self {
        let now = manifest.opened;
        let first = entry(first_place(manifest, now), opened(manifest));
        let ceremony = Ceremony::open(context, &first).unwrap();
        let enclaves = (1..=5).map(|index| (index, Enclave::new(&format!("enclave {index}")))).collect();
        Self { log: vec![first], origins, ceremony, enclaves, now }
    }

    /// A key generation, opened.
    pub(crate) fn dkg() -> Self {
        Self::dkg_with(1)
    }

    /// The same with another nonce, hence another ceremony.
    pub(crate) fn dkg_with(nonce: u8) -> Self {
        Self::start(context(), &manifest(CeremonyKind::Dkg, None, nonce), Vec::new())
    }

    /// The same under another charter.
    pub(crate) fn dkg_under(context: Context) -> Self {
        let manifest = manifest_under(context.charter(), CeremonyKind::Dkg, None, 1);
        Self::start(context, &manifest, Vec::new())
    }

    /// A test signing with this ceremony's wallet, opened. The enclaves have been restarted since.
    pub(crate) fn test_signing(&self) -> Self {
        let wallet = self.ceremony.committed().unwrap();
        let manifest = manifest(CeremonyKind::TestSign, Some(&wallet), 2);
        let mut paper =
            Self::start(context().with_wallet(Some(Arc::new(wallet))), &manifest, vec![self.log.clone()]);
        paper.enclaves = (1..=5).map(|index| (index, Enclave::new(&format!("second {index}")))).collect();
        paper
    }

    /// A key generation up to its approval.
    pub(crate) fn authorised() -> Self {
        let mut paper = Self::dkg();
        paper.attest_all();
        paper.approve_all();
        paper
    }

    /// A key generation up to its commit.
    pub(crate) fn committed() -> Self {
        let mut paper = Self::authorised();
        paper.prepare_all();
        paper
    }

    /// A key generation up to its test signatures.
    pub(crate) fn read_back() -> Self {
        let mut paper = Self::committed();
        paper.adopt_all();
        paper.read_words_back();
        paper
    }

    /// A key generation up to its end.
    pub(crate) fn closed() -> Self {
        let mut paper = Self::read_back();
        paper.finish();
        paper
    }

    pub(crate) fn manifest_hash(&self) -> Hash {
        self.ceremony.manifest().hash()
    }

    /// Where this node's next entry stands.
    pub(crate) fn place(&self, by: u8) -> Place {
        let head = self.ceremony.head();
        Place {
            ceremony: self.ceremony.manifest().ceremony.clone(),
            seq: head.seq + 1,
            prev: head.hash,
            time: self.now,
            node: node(by),
        }
    }

    /// Has this node's agent append an event.
    pub(crate) fn append(&mut self, by: u8, event: Kind) -> Result<(), Rejection> {
        self.now = self.now.plus(1000);
        self.take(entry(self.place(by), event))
    }

    /// Takes an entry; one that is refused must change nothing.
    pub(crate) fn take(&mut self, entry: Entry) -> Result<(), Rejection> {
        let before = format!("{:?}", self.ceremony);
        let verdict = self.ceremony.apply(&entry);
        match verdict {
            Ok(()) => self.log.push(entry),
            Err(_) => assert_eq!(format!("{:?}", self.ceremony), before, "a refused entry changed something"),
        }
        verdict
    }

    /// The document in which this enclave answers for this ceremony, now.
    pub(crate) fn document(&self, enclave: &Enclave) -> Vec<u8> {
        let payload = MACHINE.payload(self.manifest_hash().as_bytes(), self.now, &enclave.keys());
        MACHINE.sign(&Value::Map(payload))
    }

    pub(crate) fn attest_as(&mut self, by: u8, document: Vec<u8>) -> Result<(), Rejection> {
        self.append(by, Kind::Attested(log::Attested { node: by.into(), document }))
    }

    pub(crate) fn attest(&mut self, by: u8) -> Result<(), Rejection> {
        let document = self.document(&self.enclaves[&by]);
        self.attest_as(by, document)
    }

    /// A node comes back with a fresh enclave.
    pub(crate) fn restart(&mut self, by: u8) -> Result<(), Rejection> {
        self.enclaves.insert(by, Enclave::new(&format!("enclave {by} after {}", self.now)));
        self.attest(by)
    }

    pub(crate) fn attest_all(&mut self) {
        for by in 1..=5 {
            self.attest(by).unwrap();
        }
    }

    /// A step with whatever signature.
    pub(crate) fn sign_with(
        &mut self,
        step: &str,
        person: &str,
        role: Role,
        answer: Answer,
        signature: Vec<u8>,
    ) -> Result<(), Rejection> {
        use log::signed::Answer as Wire;
        let opinion = |verdict: log::Verdict, reason: Option<Line>| {
            let reason = reason.map(String::from).unwrap_or_default();
            Some(Wire::Opinion(log::Opinion { verdict: verdict.into(), reason }))
        };
        let answer = match answer {
            Answer::None | Answer::Release(_) | Answer::Withdraw(_) => None,
            Answer::Words(words) => Some(Wire::Words(words)),
            Answer::Agree => opinion(log::Verdict::Agree, None),
            Answer::Disagree(reason) => opinion(log::Verdict::Disagree, Some(reason)),
        };
        let (step, role, person) = (step.into(), role.to_string(), person.into());
        self.append(2, Kind::Signed(log::Signed { step, role, person, answer, signature }))
    }

    /// A person signs what the ceremony shows them; where it shows nothing, something.
    pub(crate) fn sign(
        &mut self,
        step: &str,
        person: &str,
        role: Role,
        answer: Answer,
    ) -> Result<(), Rejection> {
        let text = self.ceremony.statement(&step.parse().unwrap(), role, &person.parse().unwrap(), &answer);
        let signature = ssh_sign(person, NAMESPACE, &text.unwrap_or_else(|_| "something".into()));
        self.sign_with(step, person, role, answer, signature)
    }

    pub(crate) fn approve(&mut self, person: &str, role: Role) -> Result<(), Rejection> {
        self.sign("approve", person, role, Answer::None)
    }

    pub(crate) fn confirm(&mut self) {
        self.sign("identities", "wendy", Role::Witness, Answer::None).unwrap();
    }

    /// The witness confirms, and everyone but the last of the quorum approves.
    pub(crate) fn approve_but_one(&mut self) {
        self.confirm();
        for (person, role) in &QUORUM[..5] {
            self.approve(person, *role).unwrap();
        }
    }

    pub(crate) fn approve_all(&mut self) {
        self.approve_but_one();
        self.approve("arthur", Role::Auditor).unwrap();
    }

    /// The outcome of a key generation, as the enclaves would all write it.
    pub(crate) fn record(&self, sharing: &Sharing) -> log::GenerationRecord {
        let manifest = self.ceremony.manifest();
        log::GenerationRecord {
            version: 1,
            cluster: manifest.cluster.to_string(),
            ceremony: manifest.ceremony.to_string(),
            manifest: manifest.hash().as_bytes().to_vec(),
            wallet: manifest.wallet.to_string(),
            generation: 1,
            threshold: manifest.threshold.into(),
            public_key: sharing.point(0),
            chain_code: vec![2; 32],
            public_shares: (1..=5)
                .map(|x| log::PublicShare { node: x.into(), point: sharing.point(x) })
                .collect(),
            session: vec![3; 32],
            transcript: vec![4; 32],
            enclaves: self.ceremony.approved_or_current_enclaves().as_bytes().to_vec(),
        }
    }

    pub(crate) fn prepare_with(&mut self, by: u8, record: &log::GenerationRecord) -> Result<(), Rejection> {
        let record = record.encode_to_vec();
        let blob = Hash::of_bytes(&[by]);
        let digest = Hash::of_parts("custody/generation-record/v1", &[&record]);
        let signature = self.enclaves[&by].sign(&prepared_message(&digest, node(by), &blob));
        let blob = blob.as_bytes().to_vec();
        self.append(by, Kind::Prepared(log::Prepared { node: by.into(), record, blob, signature }))
    }

    pub(crate) fn prepare(&mut self, by: u8) -> Result<(), Rejection> {
        self.prepare_with(by, &self.record(&SHARING))
    }

    pub(crate) fn prepare_all(&mut self) {
        for by in 1..=5 {
            self.prepare(by).unwrap();
        }
    }

    pub(crate) fn adopt(&mut self, by: u8) -> Result<(), Rejection> {
        let record = self.ceremony.record().map_or(Hash::ZERO, Record::digest);
        self.append(by, Kind::Adopted(log::Adopted { node: by.into(), record: record.as_bytes().to_vec() }))
    }

    pub(crate) fn adopt_all(&mut self) {
        for by in 1..=5 {
            self.adopt(by).unwrap();
        }
    }

    pub(crate) fn fault(&mut self, by: u8) -> Result<(), Rejection> {
        self.append(by, Kind::Faulted(log::Faulted { node: by.into(), reason: "power cut".into() }))
    }

    /// An abort that names no peer.
    pub(crate) fn abort(&mut self, by: u8, subset: &Subset, attempt: u32) -> Result<(), Rejection> {
        self.abort_banning(by, subset, attempt, None)
    }

    pub(crate) fn abort_banning(
        &mut self,
        by: u8,
        subset: &Subset,
        attempt: u32,
        banned: Option<u8>,
    ) -> Result<(), Rejection> {
        let peer = banned.map(node);
        let mut aborted = Aborted {
            node: node(by),
            subset: subset.clone(),
            attempt,
            reason: line("a message that does not verify"),
            culprit: peer,
            banned: peer,
            signature: [0; 64],
        };
        let signature = self.enclaves[&by].sign(&aborted.message(&self.manifest_hash()));
        aborted.signature.copy_from_slice(&signature);
        self.append(
            by,
            Kind::Aborted(log::Aborted {
                node: by.into(),
                subset: numbers(subset),
                attempt,
                reason: aborted.reason.into(),
                culprit: banned.unwrap_or(0).into(),
                banned: banned.unwrap_or(0).into(),
                signature,
            }),
        )
    }

    pub(crate) fn withdraw(&mut self, person: &str, role: Role) -> Result<(), Rejection> {
        let reason = line("The building is on fire");
        let text = self.ceremony.withdrawal(role, &person.parse().unwrap(), &reason);
        let signature = ssh_sign(person, NAMESPACE, &text.unwrap_or_else(|_| "something".into()));
        let (person, role) = (person.into(), role.to_string());
        self.append(1, Kind::Withdrawn(log::Withdrawn { person, role, reason: reason.into(), signature }))
    }

    /// What an enclave of this group reports of a good test signature, not yet signed by it.
    pub(crate) fn test_signature(&self, by: u8, subset: &Subset, attempt: u32) -> TestSigned {
        let record = self.ceremony.record().unwrap().digest();
        let digest = test_digest(&self.manifest_hash(), &record, subset, attempt);
        let (r, s, recovery_id) = SHARING.ecdsa(&digest);
        TestSigned {
            node: node(by),
            subset: subset.clone(),
            attempt,
            input: 0,
            session: Hash::of_parts("session", &[digest.as_bytes()]),
            r,
            s,
            recovery_id,
            signature: [0; 64],
        }
    }

    /// Has the enclave sign and the agent append it.
    pub(crate) fn report(&mut self, signed: &TestSigned) -> Result<(), Rejection> {
        let by = signed.node.get();
        let signature = self.enclaves[&by].sign(&signed.message(&self.manifest_hash()));
        self.append(
            by,
            Kind::TestSigned(log::TestSigned {
                node: by.into(),
                subset: numbers(&signed.subset),
                attempt: signed.attempt,
                session: signed.session.as_bytes().to_vec(),
                r: signed.r.to_vec(),
                s: signed.s.to_vec(),
                recovery_id: signed.recovery_id.into(),
                signature,
                input: signed.input,
            }),
        )
    }

    pub(crate) fn test_sign(&mut self, by: u8, subset: &Subset, attempt: u32) -> Result<(), Rejection> {
        self.report(&self.test_signature(by, subset, attempt))
    }

    pub(crate) fn read_words_back(&mut self) {
        let words = Answer::Words(self.ceremony.spoken_words().unwrap());
        self.sign("read-back", "olga", Role::Operator, words.clone()).unwrap();
        self.sign("read-back", "arthur", Role::Auditor, words).unwrap();
    }

    /// Every group that is left signs, at the attempt that is due.
    pub(crate) fn test_sign_all(&mut self) {
        while let Some(subset) = self.ceremony.due_subset() {
            let attempt = self.ceremony.attempt(&subset);
            for party in subset.parties() {
                self.test_sign(party.get(), &subset, attempt).unwrap();
            }
        }
    }

    /// From the test signatures to the close.
    pub(crate) fn finish(&mut self) {
        self.test_sign_all();
        self.sign("agree", "omar", Role::Operator, Answer::Agree).unwrap();
        self.sign("agree", "wendy", Role::Witness, Answer::Agree).unwrap();
        let doubt = Answer::Disagree(line("I could not see the third screen"));
        self.sign("agree", "arthur", Role::Auditor, doubt).unwrap();
        self.sign("close", "ada", Role::Administrator, Answer::None).unwrap();
    }

    /// What an evidence bundle is made of.
    pub(crate) fn material(&self) -> Material {
        Material {
            charter: CHARTER.text().as_bytes().to_vec(),
            root: MACHINE.root.to_pem().unwrap().into_bytes(),
            amendments: Vec::new(),
            log: self.log.clone(),
            origins: self.origins.clone(),
        }
    }
}

fn numbers(subset: &Subset) -> Vec<u32> {
    subset.parties().iter().map(|party| u32::from(*party)).collect()
}
