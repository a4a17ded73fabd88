//! The cluster that a schedule is about: five nodes, and people with keys that follow from their names.

use std::sync::{Arc, LazyLock};

use ceremonies::attestation::{Measurement, Pcr, TrustRoot};
use ceremonies::ceremony::Context;
use ceremonies::charter::{
    AttestationRules, CeremonyKind, Charter, CharterDraft, ClusterKind, ConsoleKey, KmsRules, Node, Person,
    Quorum, Role,
};
use ceremonies::ids::{Hash, Line, NodeIndex};
use ceremonies::statement::NAMESPACE;
use nkeys::{KeyPair, KeyPairType};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{HashAlg, LineEnding, PrivateKey};

pub(super) const NODES: usize = 5;

/// Everybody, each in the one role they ever take.
pub(super) const PEOPLE: [(&str, Role); 6] = [
    ("ada", Role::Administrator),
    ("alma", Role::Administrator),
    ("olga", Role::Operator),
    ("omar", Role::Operator),
    ("wendy", Role::Witness),
    ("arthur", Role::Auditor),
];

fn seed(name: &str) -> [u8; 32] {
    *Hash::of_bytes(name.as_bytes()).as_bytes()
}

pub(crate) fn node(at: usize) -> NodeIndex {
    NodeIndex::new(u8::try_from(at).unwrap() + 1).unwrap()
}

pub(crate) fn place(node: NodeIndex) -> usize {
    usize::from(node.get()) - 1
}

pub(crate) fn line(text: &str) -> Line {
    text.parse().unwrap()
}

pub(crate) fn nkey(name: &str) -> KeyPair {
    KeyPair::new_from_raw(KeyPairType::User, seed(name)).unwrap()
}

pub(crate) fn node_key(at: usize) -> KeyPair {
    nkey(&format!("node {}", node(at)))
}

pub(crate) fn ssh(person: &str) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&seed(person)))
}

/// An armoured SSHSIG by a person's own key.
pub(crate) fn ssh_sign(person: &str, text: &str) -> Vec<u8> {
    let signature = ssh(person).sign(NAMESPACE, HashAlg::Sha512, text.as_bytes()).unwrap();
    signature.to_pem(LineEnding::LF).unwrap().into_bytes()
}

/// An image of which nobody has ever seen an enclave.
pub(super) fn image(byte: u8) -> Measurement {
    let pcr = |byte: u8| Pcr::from([byte; 48]);
    Measurement { pcr0: pcr(byte), pcr1: pcr(2), pcr2: pcr(3), pcr8: None, until: None }
}

fn context() -> Context {
    let quorum: Quorum =
        [(Role::Administrator, 1), (Role::Operator, 2), (Role::Witness, 1), (Role::Auditor, 1)].into();
    let root = TrustRoot::aws_nitro_g1();
    let draft = CharterDraft {
        backup: None,
        amends: None,
        version: 1,
        cluster: "paper".parse().unwrap(),
        kind: ClusterKind::Rehearsal,
        threshold: 2,
        system_nkey: nkey("system").public_key(),
        attestation: AttestationRules {
            root_sha256: root.fingerprint(),
            max_age_s: 300,
            measurements: vec![image(1)],
        },
        kms: KmsRules { key: "alias/k".into(), region: "eu-central-1".into(), host: "kms.local".into() },
        quorum: CeremonyKind::ALL.map(|kind| (kind, quorum.clone())).into(),
        nodes: (0..NODES)
            .map(|at| Node {
                index: node(at),
                zone: line(&format!("zone {at}")),
                excluded: false,
                nkey: node_key(at).public_key(),
            })
            .collect(),
        people: PEOPLE
            .map(|(name, role)| Person {
                name: name.parse().unwrap(),
                roles: [role].into(),
                keys: vec![ssh(name).public_key().clone()],
                verified: false,
            })
            .into(),
        consoles: vec![ConsoleKey { name: "desk".parse().unwrap(), nkey: nkey("desk").public_key() }],
    };
    let charter = Charter::parse(draft.to_toml().unwrap().as_bytes()).unwrap();
    Context::new(Arc::new(charter), Arc::new(root)).unwrap()
}

pub(crate) static CONTEXT: LazyLock<Context> = LazyLock::new(context);
