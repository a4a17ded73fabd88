//! Ceremonies that are held on a cluster's own charter without its machines: whole logs, made in one process.
//!
//! People sign with the lab's keys and nodes with their own. The enclaves are made up, with documents by the lab's root,
//! and together they hold a secret that this program knows. What is due next is asked of the fold, which accepts every
//! entry: nothing here decides what a ceremony needs.

use std::collections::BTreeMap;

use ceremonies::book::{Book, Taken};
use ceremonies::ceremony::{Ceremony, Duty};
use ceremonies::charter::Role;
use ceremonies::curve::Point;
use ceremonies::ids::{CeremonyId, Hash, NodeIndex, StepId};
use ceremonies::log::{Entry, TestSigned};
use ceremonies::script::Act;
use ceremonies::statement::{Answer, Release};
use ceremonies::subsets::Subset;
use ceremonies::wallet::{
    Record, Scheme, Sharing, backed_up_message, prepared_message, proved_message, retired_message,
    staged_message,
};
use ceremonies::wire::log::{self, event::Kind};
use console::config::Me;
use console::room::{self, LIFETIME_MS, Opening, Signature, Topic, now};
use enclave::session::BootKeys;
use k256::elliptic_curve::PrimeField as _;
use k256::elliptic_curve::group::GroupEncoding as _;
use k256::{ProjectivePoint, Scalar};
use lab::attack::Host;
use lab::cluster::Cluster;
use lab::drive::Room;
use lab::nsm::{DocumentSpec, LabRoot};

/// A cluster's people and nodes, with enclaves that nobody runs.
pub(crate) struct Stage<'a> {
    room: &'a Room,
    nodes: BTreeMap<NodeIndex, Node>,
    nsm: LabRoot,
    /// What the generation that is being made shares out: a polynomial, whose constant stays.
    sharing: Vec<Scalar>,
    /// What was in the room, and what has been held since.
    pub(crate) book: Book,
}

struct Node {
    agent: Host,
    enclave: BootKeys,
}

/// The node to which people hand in what they sign.
fn desk() -> NodeIndex {
    NodeIndex::new(1).unwrap()
}

fn some_scalar() -> Scalar {
    Scalar::from(rand::random::<u64>())
}

impl<'a> Stage<'a> {
    pub(crate) async fn set(cluster: &Cluster, room: &'a Room) -> Self {
        let mut nodes = BTreeMap::new();
        for index in cluster.nodes() {
            let agent = Host::with_credentials_of(cluster, index).await.unwrap();
            nodes.insert(index, Node { agent, enclave: BootKeys::generate() });
        }
        let nsm = LabRoot::open(&cluster.layout().folder().join("nsm")).unwrap();
        Self { room, nodes, nsm, sharing: vec![some_scalar()], book: room.book.clone() }
    }

    pub(crate) fn ceremony(&self, id: &CeremonyId) -> &Ceremony {
        &self.book.get(id).unwrap().ceremony
    }

    /// The first in this role.
    pub(crate) fn person(&self, role: Role) -> &'a Me {
        self.room.people(role).next().unwrap()
    }

    /// Opens a ceremony.
    pub(crate) fn open(&mut self, topic: Topic) -> CeremonyId {
        let me = self.person(Role::Administrator);
        let purpose = "a bench".parse().unwrap();
        let opening = Opening { topic, purpose, administrator: me.person.clone(), lifetime_ms: LIFETIME_MS };
        let (manifest, statement) = room::prepare(&self.book, &opening).unwrap();
        let signature = console::signer::sign(&me.key, &statement, None).unwrap();
        let agent = &self.nodes[&desk()].agent;
        let first = agent.opening(&manifest.ceremony, room::opened(&manifest, signature), now()).unwrap();
        self.take(first);
        self.share_anew(manifest.threshold);
        manifest.ceremony
    }

    /// Has everyone do what is due until the ceremony is as asked.
    pub(crate) fn lead(&mut self, id: &CeremonyId, until: impl Fn(&Ceremony) -> bool) {
        while !until(self.ceremony(id)) {
            let before = self.ceremony(id).head();
            match self.due(id) {
                Some((node, event)) => self.append(id, node, log::Event { kind: Some(event) }),
                None => self.sign_all(id),
            }
            assert_ne!(self.ceremony(id).head(), before, "nobody goes on with {id}");
        }
    }

    /// Has a person sign a step, or withdraw.
    pub(crate) fn sign(&mut self, id: &CeremonyId, step: StepId, me: &Me, answer: Answer) {
        let signature = Signature::by(me, step, answer);
        let statement = signature.statement(self.ceremony(id), now()).unwrap();
        let signed = console::signer::sign(&me.key, &statement, None).unwrap();
        self.append(id, desk(), signature.event(signed));
    }

    /// What a node would do next.
    pub(crate) fn duty(&self, id: &CeremonyId, node: NodeIndex) -> Option<Duty> {
        self.ceremony(id).duty(node, &self.nodes[&node].enclave.public(), now())
    }

    fn take(&mut self, entry: Entry) {
        assert_eq!(self.book.take(entry).unwrap(), Taken::New);
    }

    fn append(&mut self, id: &CeremonyId, by: NodeIndex, event: log::Event) {
        let log = &self.book.get(id).unwrap().entries;
        self.take(self.nodes[&by].agent.entry(log, event, now()).unwrap());
    }

    fn share_anew(&mut self, threshold: u8) {
        self.sharing.truncate(1);
        self.sharing.resize_with(threshold.into(), some_scalar);
    }

    /// Has everyone sign whom the open step still needs.
    fn sign_all(&mut self, id: &CeremonyId) {
        let step = self.ceremony(id).current_step().unwrap().clone();
        let answer = match step.act {
            Act::Prove => return self.release_all(id, &step.id),
            Act::ReadBack => Answer::Words(self.ceremony(id).spoken_words().unwrap()),
            Act::Agree => Answer::Agree,
            _ => Answer::None,
        };
        for me in self.room.unsigned(self.ceremony(id), &step) {
            self.sign(id, step.id.clone(), &me, answer.clone());
        }
    }

    /// Has custodians release every new backup to be proven.
    fn release_all(&mut self, id: &CeremonyId, step: &StepId) {
        for me in self.room.people(Role::Custodian) {
            for node in self.ceremony(id).releases_wanted(Act::Prove, &me.person) {
                let object = self.ceremony(id).backups()[&node].whole.digest;
                let release = Release { node, object, sealed: vec![6; 64] };
                self.sign(id, step.clone(), me, Answer::Release(release));
            }
        }
    }

    /// The first node that has something to do, and what it says when that is done.
    fn due(&self, id: &CeremonyId) -> Option<(NodeIndex, Kind)> {
        let first = |node: &NodeIndex| Some((*node, self.duty(id, *node)?));
        let (node, duty) = self.nodes.keys().find_map(first)?;
        let ceremony = self.ceremony(id);
        let said = match duty {
            Duty::Attest => self.attested(ceremony, node),
            Duty::Generate if ceremony.manifest().kind.renews() => self.staged(ceremony, node),
            Duty::Generate => self.prepared(ceremony, node, self.record(ceremony)),
            Duty::Prepare => {
                let record = ceremony.record().unwrap().as_bytes().to_vec();
                self.prepared(ceremony, node, record)
            }
            Duty::Adopt => {
                let record = ceremony.record().unwrap().digest().as_bytes().to_vec();
                Kind::Adopted(log::Adopted { node: node.into(), record })
            }
            Duty::TestSign { subset, attempt, input } => {
                self.test_signed(ceremony, node, (subset, attempt, input))
            }
            Duty::Backup { .. } => self.backed_up(ceremony, node),
            Duty::Prove { .. } => self.proved(ceremony, node),
            Duty::Retire => self.retired(ceremony, node),
            Duty::Fault | Duty::Repair { .. } | Duty::Rebuild | Duty::Restore { .. } => {
                panic!("nothing is lost here, but node {node} is to do this: {duty:?}")
            }
        };
        Some((node, said))
    }

    fn enclave_signs(&self, node: NodeIndex, message: &Hash) -> Vec<u8> {
        self.nodes[&node].enclave.sign(message).to_vec()
    }

    fn attested(&self, ceremony: &Ceremony, node: NodeIndex) -> Kind {
        let image = &ceremony.charter().attestation().measurements[0];
        let spec = DocumentSpec::new(image, now())
            .public_key(&[1; 294])
            .user_data(&self.nodes[&node].enclave.public().encode())
            .nonce(ceremony.manifest().hash().as_bytes());
        Kind::Attested(log::Attested { node: node.into(), document: self.nsm.sign(&spec).unwrap() })
    }

    fn public_share(&self, x: u8) -> Point {
        let x = Scalar::from(u64::from(x));
        let share = self.sharing.iter().rev().fold(Scalar::ZERO, |sum, coefficient| sum * x + coefficient);
        Point::decode(&(ProjectivePoint::GENERATOR * share).to_affine().to_bytes()).unwrap()
    }

    fn record(&self, ceremony: &Ceremony) -> Vec<u8> {
        let manifest = ceremony.manifest();
        let sharing = Sharing {
            scheme: Scheme::Dkls23Secp256k1,
            public_key: self.public_share(0),
            chain_code: Hash::from([2; 32]),
            public_shares: manifest
                .roster
                .iter()
                .map(|node| (*node, self.public_share(node.get())))
                .collect(),
            session: manifest.hash(),
            transcript: manifest.hash(),
        };
        sharing.record(manifest, &ceremony.approved_or_current_enclaves())
    }

    fn staged(&self, ceremony: &Ceremony, node: NodeIndex) -> Kind {
        let (record, blob) = (self.record(ceremony), sealed(ceremony, node, "share"));
        let message = staged_message(&Record::digest_of(&record), node, &blob);
        let signature = self.enclave_signs(node, &message);
        Kind::Staged(log::Staged { node: node.into(), record, blob: blob.as_bytes().to_vec(), signature })
    }

    fn prepared(&self, ceremony: &Ceremony, node: NodeIndex, record: Vec<u8>) -> Kind {
        let blob = sealed(ceremony, node, "share");
        let message = prepared_message(&Record::digest_of(&record), node, &blob);
        let signature = self.enclave_signs(node, &message);
        Kind::Prepared(log::Prepared { node: node.into(), record, blob: blob.as_bytes().to_vec(), signature })
    }

    fn test_signed(
        &self,
        ceremony: &Ceremony,
        node: NodeIndex,
        (subset, attempt, input): (Subset, u32, u32),
    ) -> Kind {
        let digest = ceremony.to_sign(&subset, attempt, input).unwrap().digest;
        let key = k256::ecdsa::SigningKey::from_bytes(&self.sharing[0].to_repr()).unwrap();
        let (signature, recovery) = key.sign_prehash_recoverable(digest.as_bytes());
        let (r, s) = signature.split_bytes();
        let (r, s, recovery_id) = (r.into(), s.into(), recovery.to_byte());
        let session = Hash::of_parts("session", &[digest.as_bytes()]);
        let parties = subset.parties().iter().map(|party| u32::from(*party)).collect();
        let signature = [0; 64];
        let said = TestSigned { node, subset, attempt, input, session, r, s, recovery_id, signature };
        Kind::TestSigned(log::TestSigned {
            node: node.into(),
            subset: parties,
            attempt,
            session: session.as_bytes().to_vec(),
            r: r.to_vec(),
            s: s.to_vec(),
            recovery_id: recovery_id.into(),
            signature: self.enclave_signs(node, &said.message(&ceremony.manifest().hash())),
            input,
        })
    }

    fn backed_up(&self, ceremony: &Ceremony, node: NodeIndex) -> Kind {
        let lock_ms = ceremony.charter().backup().unwrap().lock_ms();
        let object = |what: &str| log::Object {
            key: format!("{}/{node}/{what}", ceremony.manifest().ceremony),
            version: "1".to_owned(),
            digest: sealed(ceremony, node, what).as_bytes().to_vec(),
            locked_until_ms: now().plus(lock_ms).0,
        };
        let (whole, root) = (sealed(ceremony, node, "whole"), sealed(ceremony, node, "root"));
        let message = backed_up_message(&ceremony.record().unwrap().digest(), node, &whole, &root);
        Kind::BackedUp(log::BackedUp {
            node: node.into(),
            whole: Some(object("whole")),
            root: Some(object("root")),
            signature: self.enclave_signs(node, &message),
        })
    }

    fn proved(&self, ceremony: &Ceremony, node: NodeIndex) -> Kind {
        let object = sealed(ceremony, node, "whole");
        let point = ceremony.record().unwrap().public_shares[&node];
        let message = proved_message(&ceremony.manifest().hash(), node, &object, &point);
        Kind::Proved(log::Proved {
            node: node.into(),
            object: object.as_bytes().to_vec(),
            point: point.as_bytes().to_vec(),
            signature: self.enclave_signs(node, &message),
        })
    }

    fn retired(&self, ceremony: &Ceremony, node: NodeIndex) -> Kind {
        let record = ceremony.record().unwrap().digest();
        let signature = self.enclave_signs(node, &retired_message(&record, node));
        Kind::Retired(log::Retired { node: node.into(), record: record.as_bytes().to_vec(), signature })
    }
}

/// The digest of something that only this node's enclave could open.
fn sealed(ceremony: &Ceremony, node: NodeIndex, what: &str) -> Hash {
    Hash::of_parts("sealed", &[ceremony.manifest().hash().as_bytes(), &[node.get()], what.as_bytes()])
}
