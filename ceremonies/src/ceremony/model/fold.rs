//! The real fold over the words of the model: what a log of them means to a node that has read it.
//!
//! Enclaves and agents sign here with keys of their own, so that [`Ceremony::apply`] judges their words as usual. A
//! withdrawal needs a person's signature, and a replacement a machine's document; both are written into the ceremony as
//! the fold would. Nothing here may decide what the fold decides.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ed25519_dalek::{Signer as _, SigningKey};
use k256::elliptic_curve::group::GroupEncoding as _;
use k256::{ProjectivePoint, Scalar};
use nkeys::{KeyPair, KeyPairType};
use ssh_key::private::{Ed25519Keypair, PrivateKey};

use super::super::{AttestedEnclave, Ceremony, Context, Duty, Ending, Head, Phase, Rejection, StepSignature};
use super::{Outcome, Word};
use crate::attestation::{EnclaveKeys, Measurement, Pcr, TrustRoot};
use crate::charter::{
    AttestationRules, CeremonyKind, Charter, CharterDraft, ClusterKind, KmsRules, Node, Person, Quorum, Role,
};
use crate::curve::Point;
use crate::ids::{Hash, Line, NodeIndex, UnixMillis};
use crate::log::{Aborted, Entry, Place};
use crate::manifest::{Proposal, Subject};
use crate::script::{Act, Script};
use crate::statement::{Answer, Presence};
use crate::subsets::Subset;
use crate::wallet::{Record, Scheme, Sharing, prepared_message};
use crate::wire::log::{self, event::Kind};

const OPENED: UnixMillis = UnixMillis(1_800_000_000_000);
const LIFETIME_MS: i64 = 60 * 60 * 1000;

/// What a log means to whoever has read it, at any moment: the deadline has passed.
#[derive(Debug)]
pub(super) struct View {
    ceremony: Ceremony,
    pub(super) committed: Option<Outcome>,
    pub(super) never_commits: bool,
    pub(super) void: bool,
    pub(super) prepared: usize,
    pub(super) to_adopt: Vec<bool>,
}

/// A ceremony of n nodes at the moment of its approval, and the logs that have been folded on it.
pub(super) struct Fold {
    approved: Ceremony,
    records: [Record; 2],
    views: Mutex<HashMap<Vec<Word>, Option<Arc<View>>>>,
}

fn seed(name: &str) -> [u8; 32] {
    *Hash::of_bytes(name.as_bytes()).as_bytes()
}

fn agent_key(node: NodeIndex) -> KeyPair {
    KeyPair::new_from_raw(KeyPairType::User, seed(&format!("agent {node}"))).unwrap()
}

fn enclave_key(node: NodeIndex) -> SigningKey {
    SigningKey::from_bytes(&seed(&format!("enclave {node}")))
}

fn index(node: u8) -> NodeIndex {
    NodeIndex::new(node).unwrap()
}

/// Who approves: the smallest quorum that a charter may set.
fn people(threshold: u8) -> Vec<(String, Role)> {
    let operators = (1..=threshold).map(|number| (format!("operator-{number}"), Role::Operator));
    let others = [Role::Administrator, Role::Witness, Role::Auditor].map(|role| (role.to_string(), role));
    operators.chain(others).collect()
}

fn charter(nodes: u8, threshold: u8, root: &TrustRoot) -> Charter {
    let pcr = Pcr::from([1; 48]);
    let mut quorum = Quorum::new();
    for (_, role) in people(threshold) {
        *quorum.entry(role).or_default() += 1;
    }
    let draft = CharterDraft {
        backup: None,
        amends: None,
        version: 1,
        cluster: "model".parse().unwrap(),
        kind: ClusterKind::Rehearsal,
        threshold,
        system_nkey: KeyPair::new_from_raw(KeyPairType::User, seed("system")).unwrap().public_key(),
        attestation: AttestationRules {
            root_sha256: root.fingerprint(),
            max_age_s: 300,
            measurements: vec![Measurement { pcr0: pcr, pcr1: pcr, pcr2: pcr, pcr8: None, until: None }],
        },
        kms: KmsRules { key: "key".into(), region: "region".into(), host: "host".into() },
        quorum: CeremonyKind::ALL.map(|kind| (kind, quorum.clone())).into(),
        nodes: (1..=nodes)
            .map(|node| Node {
                index: index(node),
                zone: Line::lossy("zone"),
                excluded: false,
                nkey: agent_key(index(node)).public_key(),
            })
            .collect(),
        people: people(threshold)
            .into_iter()
            .map(|(name, role)| Person {
                keys: vec![PrivateKey::from(Ed25519Keypair::from_seed(&seed(&name))).public_key().clone()],
                name: name.parse().unwrap(),
                roles: [role].into(),
                verified: false,
            })
            .collect(),
        consoles: Vec::new(),
    };
    Charter::parse(draft.to_toml().unwrap().as_bytes()).unwrap()
}

/// A ceremony whose enclaves have attested and whose people have approved them.
fn approved(nodes: u8) -> Ceremony {
    let threshold = nodes / 2 + 1;
    let root = TrustRoot::aws_nitro_g1();
    let charter = charter(nodes, threshold, &root);
    let script = Script::builtin(CeremonyKind::Dkg).unwrap();
    let proposal = Proposal {
        kind: CeremonyKind::Dkg,
        wallet: "treasury".parse().unwrap(),
        purpose: Line::lossy("To see every order of events"),
        administrator: "administrator".parse().unwrap(),
        opened: OPENED,
        lifetime_ms: LIFETIME_MS,
        nonce: [1; 16],
        generation: crate::ids::Generation::FIRST,
        origin: None,
        subject: Subject::Wallet,
        signers: None,
    };
    let manifest = proposal.manifest(&charter, &script).unwrap();
    let enclaves = manifest.roster.iter().map(|node| (*node, attested(*node, &charter))).collect();
    let step = script.step_for(Act::Approve).unwrap().id.clone();
    let approval = |(name, role): (String, Role)| StepSignature {
        seq: 1,
        time: OPENED,
        step: step.clone(),
        role,
        person: name.parse().unwrap(),
        answer: Answer::None,
        text: String::new(),
        signature: Vec::new(),
        presence: Presence { hardware: false, present: false, verified: false },
    };
    let signatures = people(threshold).into_iter().map(approval).collect();
    let mut ceremony = Ceremony {
        context: Context::new(Arc::new(charter), Arc::new(root)).unwrap(),
        script: Arc::new(script),
        manifest,
        head: Head { seq: 1, hash: Hash::ZERO, time: OPENED },
        enclaves,
        approved_enclaves: None,
        signatures,
        recovered: [].into(),
        staged: [].into(),
        prepared: [].into(),
        record: None,
        aborted: [].into(),
        backups: [].into(),
        proved: [].into(),
        adopted: [].into(),
        retired: [].into(),
        cover: Vec::new(),
        tests: Vec::new(),
        given_up: [].into(),
        bans: [].into(),
        ending: None,
        appended: [].into(),
    };
    ceremony.approved_enclaves = Some(ceremony.current_enclaves());
    assert_eq!(ceremony.phase(), Phase::Authorised);
    ceremony
}

fn attested(node: NodeIndex, charter: &Charter) -> AttestedEnclave {
    AttestedEnclave {
        seq: 1,
        keys: EnclaveKeys {
            identity: enclave_key(node).verifying_key().to_bytes(),
            sealing: seed(&format!("sealing {node}")),
        },
        measurement: charter.attestation().measurements[0],
        at: OPENED,
        document: Vec::new(),
        times: 1,
    }
}

/// What the session may give: a sharing of `secret`, on a line or a curve depending on the threshold.
fn record(ceremony: &Ceremony, secret: u64) -> Record {
    let manifest = ceremony.manifest();
    let point = |x: u8| {
        let powers = (1..manifest.threshold).map(|power| u64::from(x).pow(power.into()));
        let value = Scalar::from(secret + powers.sum::<u64>());
        Point::decode(&(ProjectivePoint::GENERATOR * value).to_affine().to_bytes()).unwrap()
    };
    let sharing = Sharing {
        scheme: Scheme::Dkls23Secp256k1,
        public_key: point(0),
        chain_code: Hash::from([2; 32]),
        public_shares: manifest.roster.iter().map(|node| (*node, point(node.get()))).collect(),
        session: Hash::from([3; 32]),
        transcript: Hash::from([4; 32]),
    };
    Record::parse(&sharing.record(manifest, &ceremony.approved_or_current_enclaves())).unwrap()
}

impl Fold {
    pub(super) fn new(nodes: u8) -> Self {
        let approved = approved(nodes);
        let records = [record(&approved, 7), record(&approved, 8)];
        Self { approved, records, views: Mutex::default() }
    }

    /// What this log means, or none if the fold refuses any of it.
    pub(super) fn view(&self, log: &[Word]) -> Option<Arc<View>> {
        if let Some(known) = self.views.lock().unwrap().get(log) {
            return known.clone();
        }
        let ceremony = match log.split_last() {
            None => Some(self.approved.clone()),
            Some((last, before)) => self.view(before).and_then(|before| {
                let mut ceremony = before.ceremony.clone();
                self.take(&mut ceremony, *last).ok().map(|()| ceremony)
            }),
        };
        let view = ceremony.map(|ceremony| Arc::new(self.view_of(ceremony)));
        self.views.lock().unwrap().insert(log.to_vec(), view.clone());
        view
    }

    fn view_of(&self, ceremony: Ceremony) -> View {
        let late = ceremony.manifest.expires.plus(1);
        let committed = ceremony.committed().map(|wallet| wallet.record);
        let outcome = |record: Record| if record == self.records[0] { Outcome::Same } else { Outcome::Other };
        let adopts =
            |node: &NodeIndex| ceremony.duty(*node, &ceremony.enclaves[node].keys, late) == Some(Duty::Adopt);
        View {
            committed: committed.map(outcome),
            never_commits: ceremony.can_never_commit(),
            void: matches!(ceremony.phase_at(late), Phase::Void(_)),
            prepared: ceremony.prepared_nodes().len(),
            to_adopt: ceremony.manifest.roster.iter().map(adopts).collect(),
            ceremony,
        }
    }

    fn take(&self, ceremony: &mut Ceremony, word: Word) -> Result<(), Rejection> {
        let over = match ceremony.phase() {
            Phase::Gathering | Phase::Authorised | Phase::Committed => None,
            phase @ (Phase::Closed | Phase::Abandoned(_) | Phase::Void(_)) => Some(phase.to_string()),
        };
        match (word, over) {
            (Word::Prepared(by, outcome), _) => {
                say(ceremony, by, prepared(by, &self.records[outcome as usize]))
            }
            (Word::Aborted(by), _) => {
                let aborted = aborted(ceremony, by);
                say(ceremony, by, aborted)
            }
            (Word::Faulted(by), _) => {
                let faulted = log::Faulted { node: by.into(), reason: "power cut".into() };
                say(ceremony, by, Kind::Faulted(faulted))
            }
            (Word::Adopted(by), _) => {
                let record = ceremony.record().map_or(Hash::ZERO, Record::digest).as_bytes().to_vec();
                say(ceremony, by, Kind::Adopted(log::Adopted { node: by.into(), record }))
            }
            (Word::Replaced(_) | Word::Withdrawn, Some(over)) => Err(Rejection::Over(over)),
            // An attestation that ends nothing is of no interest here.
            (Word::Replaced(by), None) if !ceremony.replacing_voids(index(by)) => {
                Err(Rejection::AttestedAlready(index(by)))
            }
            (Word::Replaced(by), None) => {
                ceremony.ending = Some(Ending::Replaced { node: index(by) });
                Ok(())
            }
            (Word::Withdrawn, None) => {
                let person = ceremony.manifest.administrator.clone();
                ceremony.ending = Some(Ending::Withdrawn { person, reason: Line::lossy("fire") });
                Ok(())
            }
        }
    }
}

/// Makes this node's agent append an event.
fn say(ceremony: &mut Ceremony, by: u8, event: Kind) -> Result<(), Rejection> {
    let head = ceremony.head();
    let place = Place {
        ceremony: ceremony.manifest.ceremony.clone(),
        seq: head.seq + 1,
        prev: head.hash,
        time: head.time,
        node: index(by),
    };
    let key = agent_key(index(by));
    let sign = |message: &[u8]| key.sign(message).map_err(Box::<dyn std::error::Error>::from);
    ceremony.apply(&Entry::create(place, log::Event { kind: Some(event) }, sign).unwrap())
}

fn prepared(by: u8, record: &Record) -> Kind {
    let blob = Hash::of_bytes(&[by]);
    let message = prepared_message(&record.digest(), index(by), &blob);
    Kind::Prepared(log::Prepared {
        node: by.into(),
        record: record.as_bytes().to_vec(),
        blob: blob.as_bytes().to_vec(),
        signature: enclave_key(index(by)).sign(message.as_bytes()).to_vec(),
    })
}

fn aborted(ceremony: &Ceremony, by: u8) -> Kind {
    let manifest = ceremony.manifest();
    let aborted = Aborted {
        node: index(by),
        subset: Subset::new(manifest.roster.iter().copied()),
        attempt: 1,
        reason: Line::lossy("no message in time"),
        culprit: None,
        banned: None,
        signature: [0; 64],
    };
    let message = aborted.message(&manifest.hash());
    Kind::Aborted(log::Aborted {
        node: by.into(),
        subset: manifest.roster.iter().map(|node| (*node).into()).collect(),
        attempt: aborted.attempt,
        reason: aborted.reason.into(),
        culprit: 0,
        banned: 0,
        signature: enclave_key(index(by)).sign(message.as_bytes()).to_vec(),
    })
}
