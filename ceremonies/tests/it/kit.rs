//! A whole ceremony on paper: a cluster with its people, nodes, enclaves and attestations, and no process.
//!
//! Everything that other parts would contribute is made here with their own keys; what is allowed is never decided
//! here, but by the fold under test.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::sync::Arc;

use ceremonies::ceremony::{Ceremony, Context, Rejection, opening_statement, test_digest};
use ceremonies::charter::{CeremonyKind, Charter, Node, Role};
use ceremonies::curve::Point;
use ceremonies::evidence::Material;
use ceremonies::ids::{Generation, Hash, Line, UnixMillis};
use ceremonies::log::{Aborted, Entry, Place, TestSigned};
use ceremonies::manifest::{Manifest, Origin, Proposal, Subject, Way};
use ceremonies::script::Script;
use ceremonies::statement::{Answer, NAMESPACE, Release};
use ceremonies::subsets::Subset;
use ceremonies::wallet::{
    self, Record, Wallet, backed_up_message, prepared_message, proved_message, recovered_message,
    retired_message, staged_message,
};
use ceremonies::wire::log::{self, event::Kind};
use ciborium::Value;
use nkeys::KeyPair as NKey;
use prost::Message as _;

use crate::cluster::{BACKED, CHARTER, LOCK_DAYS, QUORUM, context, context_of, line, nkey, node, ssh_sign};
use crate::keys::{Enclave, REFRESHED, REFRESHED_AGAIN, SHARING, Sharing};
use crate::machine::{MACHINE, NOW};

pub(crate) const MINUTE: i64 = 60_000;
pub(crate) const LIFETIME: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * 60 * MINUTE;
/// Who keeps which node's backups, where there are any.
pub(crate) const KEEPERS: [(u8, &str); 5] = [(1, "cora"), (2, "cora"), (3, "carl"), (4, "carl"), (5, "coby")];

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
    proposal(kind, wallet, nonce).manifest(&CHARTER, &Script::builtin(kind).unwrap()).unwrap()
}

pub(crate) fn proposal(kind: CeremonyKind, wallet: Option<&Wallet>, nonce: u8) -> Proposal {
    let origin = wallet.map(|wallet| {
        let record = &wallet.record;
        Origin { ceremony: record.ceremony.clone(), record: record.digest() }
    });
    let before = wallet.map_or(0, |wallet| wallet.record.generation.0);
    let generation = Generation(if kind.makes_shares() { before + 1 } else { before.max(1) });
    Proposal {
        kind,
        wallet: "treasury".parse().unwrap(),
        purpose: line("To see that it works"),
        administrator: "ada".parse().unwrap(),
        opened: NOW.plus(MINUTE),
        lifetime_ms: LIFETIME,
        nonce: [nonce; 16],
        generation,
        origin,
        subject: Subject::Wallet,
        signers: None,
    }
}

/// The opening of a manifest, signed by ada.
pub(crate) fn opened(manifest: &Manifest) -> Kind {
    opened_under(&CHARTER, manifest)
}

/// The same under another charter.
pub(crate) fn opened_under(charter: &Charter, manifest: &Manifest) -> Kind {
    let text = opening_statement(manifest, charter, &Script::builtin(manifest.kind).unwrap()).unwrap();
    let signature = ssh_sign("ada", NAMESPACE, &text);
    Kind::Opened(log::Opened { manifest: manifest.as_bytes().to_vec(), signature })
}

/// An entry made and signed by this node's agent.
pub(crate) fn entry(place: Place, event: Kind) -> Entry {
    let key = nkey(&format!("node {}", place.node));
    entry_by(&key, place, event)
}

/// An entry signed by whatever key. Its event would be written as it was read.
pub(crate) fn entry_by(key: &NKey, place: Place, event: Kind) -> Entry {
    let event = log::Event { kind: Some(event) };
    let sign = |bytes: &[u8]| key.sign(bytes).map_err(Box::<dyn std::error::Error>::from);
    let entry = Entry::create(place, event.clone(), sign).unwrap();
    assert_eq!(log::Event::from(entry.event.clone()), event);
    entry
}

/// The place of a log's first entry.
pub(crate) fn first_place(manifest: &Manifest, time: UnixMillis) -> Place {
    Place { ceremony: manifest.ceremony.clone(), seq: 1, prev: Hash::ZERO, time, node: node(1) }
}

impl Paper {
    pub(crate) fn start(context: Context, manifest: &Manifest, origins: Vec<Vec<Entry>>) -> Self {
        let now = manifest.opened;
        let first = entry(first_place(manifest, now), opened_under(context.charter(), manifest));
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
        let kind = CeremonyKind::Dkg;
        let proposal = proposal(kind, None, 1);
        let manifest = proposal.manifest(context.charter(), &Script::builtin(kind).unwrap()).unwrap();
        Self::start(context, &manifest, Vec::new())
    }

    /// A test signing with this ceremony's wallet, opened. The enclaves have been restarted since.
    pub(crate) fn test_signing(&self) -> Self {
        self.then(CeremonyKind::TestSign, |_| {})
    }

    /// A refresh of this ceremony's wallet, opened. The enclaves have been restarted since.
    pub(crate) fn refresh(&self) -> Self {
        self.then(CeremonyKind::Refresh, |_| {})
    }

    /// A recovery of this ceremony's wallet, opened. The enclaves have been restarted since.
    pub(crate) fn recover(&self, lost: &[(u8, Way)]) -> Self {
        self.then(CeremonyKind::Recover, |proposal| {
            proposal.subject =
                Subject::Losses(lost.iter().map(|(index, way)| (node(*index), *way)).collect());
        })
    }

    /// What follows this ceremony with the wallet that it has made, opened as somebody proposes.
    pub(crate) fn then(&self, kind: CeremonyKind, change: impl FnOnce(&mut Proposal)) -> Self {
        let wallet = self.ceremony.committed().unwrap();
        let nonce = u8::try_from(self.origins.len()).unwrap() + 2;
        let mut proposal = proposal(kind, Some(&wallet), nonce);
        change(&mut proposal);
        let charter = self.ceremony.charter();
        let manifest = proposal.manifest(charter, &Script::builtin(kind).unwrap()).unwrap();
        let context = context_of(charter).with_wallet(Some(Arc::new(wallet)));
        let mut paper =
            Self::start(context, &manifest, [&*self.origins, std::slice::from_ref(&self.log)].concat());
        let enclave = |index| Enclave::new(&format!("enclave {index} in {}", manifest.ceremony));
        paper.enclaves = (1..=5).map(|index| (index, enclave(index))).collect();
        paper
    }

    /// From the opening to the approval.
    pub(crate) fn authorise(mut self) -> Self {
        self.attest_all();
        self.approve_all();
        self
    }

    /// A refresh with every new share staged.
    pub(crate) fn staged() -> Self {
        let mut paper = Self::committed().refresh().authorise();
        paper.stage_all();
        paper
    }

    /// A refresh that waits for the operators to commit it.
    pub(crate) fn tested() -> Self {
        let mut paper = Self::staged();
        paper.read_words_back();
        paper.test_sign_all();
        paper
    }

    /// A refresh that the operators have let through.
    pub(crate) fn let_through() -> Self {
        let mut paper = Self::tested();
        paper.let_through_now();
        paper
    }

    /// A key generation up to its approval.
    pub(crate) fn authorised() -> Self {
        Self::dkg().authorise()
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

    /// A key generation under a charter with backups, up to its end.
    pub(crate) fn backed_up() -> Self {
        let mut paper = Self::dkg_under(context_of(&BACKED)).authorise();
        paper.prepare_all();
        paper.adopt_all();
        paper.read_words_back();
        paper.finish();
        paper
    }

    pub(crate) fn manifest_hash(&self) -> Hash {
        self.ceremony.manifest().hash()
    }

    /// The place of this node's next entry.
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
        self.take(entry_by(&self.agent_key(by), self.place(by), event))
    }

    /// The NKey of this node's agent: the other one if the charter lists that.
    fn agent_key(&self, by: u8) -> NKey {
        let anew = nkey(&format!("node {by} anew"));
        let listed = |listed: &Node| listed.nkey == anew.public_key();
        if self.ceremony.charter().node(node(by)).is_some_and(listed) {
            anew
        } else {
            nkey(&format!("node {by}"))
        }
    }

    /// Applies an entry; a refused one must change nothing.
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
            Answer::None | Answer::Withdraw(_) => None,
            Answer::Release(release) => Some(Wire::Release(log::Release {
                node: release.node.into(),
                object: release.object.as_bytes().to_vec(),
                sealed: release.sealed,
            })),
            Answer::Words(words) => Some(Wire::Words(words)),
            Answer::Broadcast(confirmation) => Some(Wire::Broadcast(log::Confirmation {
                transaction: confirmation.transaction.to_string(),
                block: confirmation.block.as_bytes().to_vec(),
                height: confirmation.height,
            })),
            Answer::Withheld(reason) => Some(Wire::Withheld(reason.into())),
            Answer::Agree => opinion(log::Verdict::Agree, None),
            Answer::Disagree(reason) => opinion(log::Verdict::Disagree, Some(reason)),
        };
        let (step, role, person) = (step.into(), role.to_string(), person.into());
        self.append(2, Kind::Signed(log::Signed { step, role, person, answer, signature }))
    }

    /// A person signs what the ceremony shows them or, if it shows nothing, anything.
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
        self.approve_first();
    }

    fn approve_first(&mut self) {
        for (person, role) in &QUORUM[..5] {
            self.approve(person, *role).unwrap();
        }
    }

    pub(crate) fn approve_all(&mut self) {
        self.confirm();
        self.approve_rest();
    }

    /// The whole quorum approves what the witness has confirmed.
    pub(crate) fn approve_rest(&mut self) {
        self.approve_first();
        self.approve("arthur", Role::Auditor).unwrap();
    }

    /// The outcome of a key generation, as the enclaves would all write it.
    pub(crate) fn record(&self, sharing: &Sharing) -> log::GenerationRecord {
        let point = |x| Point::decode(&sharing.point(x)).unwrap();
        let made = wallet::Sharing {
            scheme: wallet::Scheme::Dkls23Secp256k1,
            public_key: point(0),
            chain_code: Hash::from([2; 32]),
            public_shares: (1..=5).map(|x| (node(x), point(x))).collect(),
            session: Hash::from([3; 32]),
            transcript: Hash::from([4; 32]),
        };
        let enclaves = self.ceremony.approved_or_current_enclaves();
        let record = made.record(self.ceremony.manifest(), &enclaves);
        log::GenerationRecord::decode(record.as_slice()).unwrap()
    }

    /// How the secret is shared in the generation that this ceremony makes or works on.
    pub(crate) fn sharing(&self) -> &'static Sharing {
        match self.ceremony.manifest().generation.0 {
            1 => &SHARING,
            even if even % 2 == 0 => &REFRESHED,
            _ => &REFRESHED_AGAIN,
        }
    }

    pub(crate) fn prepare_with(&mut self, by: u8, record: &log::GenerationRecord) -> Result<(), Rejection> {
        self.prepare_blob(by, record, &sealed(by))
    }

    pub(crate) fn prepare_blob(
        &mut self,
        by: u8,
        record: &log::GenerationRecord,
        blob: &Hash,
    ) -> Result<(), Rejection> {
        let record = record.encode_to_vec();
        let signature = self.enclaves[&by].sign(&prepared_message(&digest(&record), node(by), blob));
        let blob = blob.as_bytes().to_vec();
        self.append(by, Kind::Prepared(log::Prepared { node: by.into(), record, blob, signature }))
    }

    pub(crate) fn prepare(&mut self, by: u8) -> Result<(), Rejection> {
        self.prepare_with(by, &self.record(self.sharing()))
    }

    pub(crate) fn stage_with(&mut self, by: u8, record: &log::GenerationRecord) -> Result<(), Rejection> {
        let record = record.encode_to_vec();
        let signature = self.enclaves[&by].sign(&staged_message(&digest(&record), node(by), &sealed(by)));
        let blob = sealed(by).as_bytes().to_vec();
        self.append(by, Kind::Staged(log::Staged { node: by.into(), record, blob, signature }))
    }

    pub(crate) fn stage(&mut self, by: u8) -> Result<(), Rejection> {
        self.stage_with(by, &self.record(self.sharing()))
    }

    pub(crate) fn stage_all(&mut self) {
        for by in 1..=5 {
            self.stage(by).unwrap();
        }
    }

    pub(crate) fn commit(&mut self, person: &str) -> Result<(), Rejection> {
        self.sign("commit", person, Role::Operator, Answer::None)
    }

    pub(crate) fn let_through_now(&mut self) {
        self.commit("olga").unwrap();
        self.commit("omar").unwrap();
    }

    pub(crate) fn get_back(&mut self, by: u8) -> Result<(), Rejection> {
        let signature = self.enclaves[&by].sign(&recovered_message(&self.manifest_hash(), node(by)));
        self.append(by, Kind::Recovered(log::Recovered { node: by.into(), signature }))
    }

    pub(crate) fn retire_for(&mut self, by: u8, record: &Hash) -> Result<(), Rejection> {
        let signature = self.enclaves[&by].sign(&retired_message(record, node(by)));
        let record = record.as_bytes().to_vec();
        self.append(by, Kind::Retired(log::Retired { node: by.into(), record, signature }))
    }

    pub(crate) fn retire(&mut self, by: u8) -> Result<(), Rejection> {
        self.retire_for(by, &self.ceremony.record().map_or(Hash::ZERO, Record::digest))
    }

    pub(crate) fn retire_all(&mut self) {
        for by in 1..=5 {
            self.retire(by).unwrap();
        }
    }

    /// What this node's agent reports of a backup under the shortest lock that the charter asks for, not yet signed
    /// by its enclave.
    pub(crate) fn backup(&self, by: u8) -> log::BackedUp {
        let name = &self.ceremony.manifest().ceremony;
        let object = |what: &str| log::Object {
            key: format!("{name}/{by}/{what}"),
            version: "1".into(),
            digest: Hash::of_bytes(format!("{name}/{by}/{what}").as_bytes()).as_bytes().to_vec(),
            locked_until_ms: self.now.plus(i64::from(LOCK_DAYS) * DAY).0,
        };
        log::BackedUp {
            node: by.into(),
            whole: Some(object("whole")),
            root: Some(object("root")),
            signature: Vec::new(),
        }
    }

    /// Has this enclave sign the backup and the agent append it.
    pub(crate) fn back_up_with(&mut self, by: u8, mut backup: log::BackedUp) -> Result<(), Rejection> {
        let digest = |object: &Option<log::Object>| -> Hash {
            object.as_ref().unwrap().digest.as_slice().try_into().unwrap()
        };
        let record = self.ceremony.record().map_or(Hash::ZERO, Record::digest);
        let message = backed_up_message(&record, node(by), &digest(&backup.whole), &digest(&backup.root));
        backup.signature = self.enclaves[&by].sign(&message);
        self.append(by, Kind::BackedUp(backup))
    }

    pub(crate) fn back_up(&mut self, by: u8) -> Result<(), Rejection> {
        self.back_up_with(by, self.backup(by))
    }

    pub(crate) fn back_up_all(&mut self) {
        for by in 1..=5 {
            self.back_up(by).unwrap();
        }
    }

    /// A release of an object to the enclave of this node.
    pub(crate) fn release(
        &mut self,
        step: &str,
        person: &str,
        to: u8,
        object: Hash,
    ) -> Result<(), Rejection> {
        let release = Release { node: node(to), object, sealed: vec![6; 64] };
        self.sign(step, person, Role::Custodian, Answer::Release(release))
    }

    pub(crate) fn prove_with(&mut self, by: u8, object: &Hash, point: &[u8]) -> Result<(), Rejection> {
        let decoded = Point::decode(point).unwrap();
        let message = proved_message(&self.manifest_hash(), node(by), object, &decoded);
        let signature = self.enclaves[&by].sign(&message);
        let (object, point) = (object.as_bytes().to_vec(), point.to_vec());
        self.append(by, Kind::Proved(log::Proved { node: by.into(), object, point, signature }))
    }

    /// The digest of the backup that this node has written here.
    pub(crate) fn written(&self, by: u8) -> Hash {
        self.ceremony.backups()[&node(by)].whole.digest
    }

    pub(crate) fn prove(&mut self, by: u8) -> Result<(), Rejection> {
        self.prove_with(by, &self.written(by), &self.sharing().point(by))
    }

    /// Custodians release what they keep, and enclaves prove it.
    pub(crate) fn prove_all(&mut self) {
        for (by, keeper) in KEEPERS {
            self.release("prove", keeper, by, self.written(by)).unwrap();
            self.prove(by).unwrap();
        }
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
        self.append(by, Kind::Aborted(aborted.into()))
    }

    pub(crate) fn withdraw(&mut self, person: &str, role: Role) -> Result<(), Rejection> {
        let reason = line("The building is on fire");
        let text = self.ceremony.withdrawal(role, &person.parse().unwrap(), &reason);
        let signature = ssh_sign(person, NAMESPACE, &text.unwrap_or_else(|_| "something".into()));
        let (person, role) = (person.into(), role.to_string());
        self.append(1, Kind::Withdrawn(log::Withdrawn { person, role, reason: reason.into(), signature }))
    }

    /// What an enclave of this signer set reports of a good test signature, not yet signed by it.
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
        self.append(by, Kind::TestSigned(log::TestSigned { signature, ..signed.clone().into() }))
    }

    pub(crate) fn test_sign(&mut self, by: u8, subset: &Subset, attempt: u32) -> Result<(), Rejection> {
        self.report(&self.test_signature(by, subset, attempt))
    }

    pub(crate) fn read_words_back(&mut self) {
        let words = Answer::Words(self.ceremony.spoken_words().unwrap());
        self.sign("read-back", "olga", Role::Operator, words.clone()).unwrap();
        self.sign("read-back", "arthur", Role::Auditor, words).unwrap();
    }

    /// Every remaining signer set signs, at the attempt that is due.
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
        if self.ceremony.charter().backup().is_some() && self.ceremony.manifest().kind.makes_shares() {
            self.back_up_all();
            self.prove_all();
        }
        if self.ceremony.manifest().kind.renews() {
            self.let_through_now();
            self.prepare_all();
            self.adopt_all();
            self.retire_all();
        }
        self.sign("agree", "omar", Role::Operator, Answer::Agree).unwrap();
        self.sign("agree", "wendy", Role::Witness, Answer::Agree).unwrap();
        let doubt = Answer::Disagree(line("I could not see the third screen"));
        self.sign("agree", "arthur", Role::Auditor, doubt).unwrap();
        self.sign("close", "ada", Role::Administrator, Answer::None).unwrap();
    }

    /// What an evidence bundle is made of.
    pub(crate) fn material(&self) -> Material {
        Material {
            charter: self.ceremony.charter().text().as_bytes().to_vec(),
            root: MACHINE.root.to_pem().unwrap().into_bytes(),
            amendments: Vec::new(),
            log: self.log.clone(),
            origins: self.origins.clone(),
            heads: Vec::new(),
            branches: Vec::new(),
        }
    }
}

/// The digest of a node's sealed share.
fn sealed(by: u8) -> Hash {
    Hash::of_bytes(&[by])
}

fn digest(record: &[u8]) -> Hash {
    Hash::of_parts("custody/generation-record/v1", &[record])
}
