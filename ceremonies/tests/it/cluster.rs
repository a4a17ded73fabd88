//! A lab cluster on paper: its people with their keys, its nodes, its charter.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::{Arc, LazyLock};

use ceremonies::ceremony::Context;
use ceremonies::charter::{
    AttestationRules, BackupRules, CeremonyKind, Charter, CharterDraft, CharterError, ClusterKind,
    ConsoleKey, Custodian, Keeper, KmsRules, Node, Person, Quorum, Role,
};
use ceremonies::ids::{Hash, Line, NodeIndex};
use ceremonies::statement::NAMESPACE;
use ceremonies::subsets::Subset;
use ed25519_dalek::Signer as _;
use nkeys::{KeyPair as NKey, KeyPairType};
use ssh_key::private::Ed25519Keypair;
use ssh_key::public::{KeyData, SkEd25519};
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

use crate::machine::{MACHINE, allowed};

/// How old an attestation may be.
pub(crate) const MAX_AGE_S: u32 = 300;
/// How long backups are locked, where there are any.
pub(crate) const LOCK_DAYS: u32 = 180;
/// FIDO2 flags: touched; touched, and person verified.
pub(crate) const TOUCHED: u8 = 1;
pub(crate) const VERIFIED: u8 = 5;

pub(crate) fn node(index: u8) -> NodeIndex {
    NodeIndex::new(index).unwrap()
}

pub(crate) fn group(parties: &[u8]) -> Subset {
    Subset::new(parties.iter().copied().map(node))
}

pub(crate) fn line(text: &str) -> Line {
    text.parse().unwrap()
}

pub(crate) fn seed(name: &str) -> [u8; 32] {
    *Hash::of_bytes(name.as_bytes()).as_bytes()
}

/// The people of the cluster: name, roles, and whether their key is a hardware key and must verify them.
const PEOPLE: [(&str, &[Role], bool, bool); 10] = [
    ("ada", &[Role::Administrator], false, false),
    ("adam", &[Role::Administrator], false, false),
    ("olga", &[Role::Operator], false, false),
    ("omar", &[Role::Operator], false, false),
    ("otto", &[Role::Operator], false, false),
    ("wendy", &[Role::Witness], false, false),
    ("arthur", &[Role::Auditor], false, false),
    ("both", &[Role::Operator, Role::Witness], false, false),
    ("hanna", &[Role::Operator], true, false),
    ("vera", &[Role::Operator], true, true),
];
/// Who approves, in which role: exactly the quorum.
pub(crate) const QUORUM: [(&str, Role); 6] = [
    ("ada", Role::Administrator),
    ("olga", Role::Operator),
    ("omar", Role::Operator),
    ("otto", Role::Operator),
    ("wendy", Role::Witness),
    ("arthur", Role::Auditor),
];

fn is_hardware(person: &str) -> bool {
    PEOPLE.iter().any(|(name, _, hardware, _)| *name == person && *hardware)
}

fn ssh_key(person: &str) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&seed(person)))
}

pub(crate) fn public_key(person: &str) -> PublicKey {
    let key = ssh_key(person).public_key().clone();
    if is_hardware(person) { PublicKey::from(hardware_key(person)) } else { key }
}

fn hardware_key(person: &str) -> KeyData {
    SkEd25519::new(*ssh_key(person).public_key().key_data().ed25519().unwrap(), "ssh:").into()
}

/// An armoured SSHSIG by a person's own key.
pub(crate) fn ssh_sign(person: &str, namespace: &str, text: &str) -> Vec<u8> {
    if is_hardware(person) {
        return hardware_sign(person, text, VERIFIED);
    }
    let signature = ssh_key(person).sign(namespace, HashAlg::Sha512, text.as_bytes()).unwrap();
    signature.to_pem(LineEnding::LF).unwrap().into_bytes()
}

/// The same by a FIDO2 key with these flags, as OpenSSH's PROTOCOL.u2f writes it.
pub(crate) fn hardware_sign(person: &str, text: &str, flags: u8) -> Vec<u8> {
    hardware_sign_labelled(person, text, flags, Algorithm::SkEd25519)
}

/// The same with another algorithm's name on the signature, which the signature itself does not cover.
pub(crate) fn hardware_sign_labelled(person: &str, text: &str, flags: u8, label: Algorithm) -> Vec<u8> {
    let message = SshSig::signed_data(NAMESPACE, HashAlg::Sha512, text.as_bytes()).unwrap();
    let trailer = [flags, 0, 0, 0, 9];
    let digest = |bytes: &[u8]| *Hash::of_bytes(bytes).as_bytes();
    let signed = [&digest(b"ssh:")[..], &trailer, &digest(&message)].concat();
    let signature = ed25519_dalek::SigningKey::from_bytes(&seed(person)).sign(&signed);
    let bytes = [&signature.to_bytes()[..], &trailer].concat();
    let signature = ssh_key::Signature::new(label, bytes).unwrap();
    let signature = SshSig::new(hardware_key(person), NAMESPACE, HashAlg::Sha512, signature).unwrap();
    signature.to_pem(LineEnding::LF).unwrap().into_bytes()
}

pub(crate) fn nkey(name: &str) -> NKey {
    NKey::new_from_raw(KeyPairType::User, seed(name)).unwrap()
}

/// What the charter of the cluster says.
pub(crate) fn draft() -> CharterDraft {
    let quorum: Quorum =
        [(Role::Administrator, 1), (Role::Operator, 3), (Role::Witness, 1), (Role::Auditor, 1)].into();
    CharterDraft {
        backup: None,
        amends: None,
        version: 1,
        cluster: "paper".parse().unwrap(),
        kind: ClusterKind::Lab,
        threshold: 3,
        system_nkey: nkey("system").public_key(),
        attestation: AttestationRules {
            root_sha256: MACHINE.root.fingerprint(),
            max_age_s: MAX_AGE_S,
            measurements: vec![allowed()],
        },
        kms: KmsRules { key: "alias/k".into(), region: "eu-central-1".into(), host: "kms.local".into() },
        quorum: CeremonyKind::ALL.map(|kind| (kind, quorum.clone())).into(),
        nodes: (1..=5)
            .map(|index| Node {
                index: node(index),
                zone: line(&format!("zone {index}")),
                excluded: false,
                nkey: nkey(&format!("node {index}")).public_key(),
            })
            .collect(),
        people: PEOPLE.map(|(name, roles, _, verified)| Person { verified, ..person(name, roles) }).into(),
        consoles: vec![ConsoleKey { name: "desk".parse().unwrap(), nkey: nkey("desk").public_key() }],
    }
}

fn person(name: &str, roles: &[Role]) -> Person {
    Person {
        name: name.parse().unwrap(),
        roles: roles.iter().copied().collect(),
        keys: vec![public_key(name)],
        verified: false,
    }
}

/// What the charter of the same cluster says with backups: cora keeps those of nodes 1 and 2, carl of 3 and 4, coby
/// of 5, and esther is the escrow trustee. Coby is an operator as well.
pub(crate) fn backed_draft() -> CharterDraft {
    let keeper = |name: &str| Keeper { person: name.parse().unwrap(), recipient: recipient(name) };
    let custodian = |name: &str, nodes: &[u8]| {
        let Keeper { person, recipient } = keeper(name);
        Custodian { person, recipient, nodes: nodes.iter().copied().map(node).collect() }
    };
    let mut draft = draft();
    draft.people.extend(["cora", "carl", "esther"].map(|name| person(name, &[Role::Custodian])));
    draft.people.push(person("coby", &[Role::Custodian, Role::Operator]));
    draft.backup = Some(BackupRules {
        lock_days: LOCK_DAYS,
        refresh_days: 90,
        escrow: keeper("esther"),
        custodians: vec![custodian("cora", &[1, 2]), custodian("carl", &[3, 4]), custodian("coby", &[5])],
    });
    draft
}

/// A person's age recipient, to which only a test would encrypt.
pub(crate) fn recipient(name: &str) -> String {
    let hrp = bech32::Hrp::parse("age").unwrap();
    bech32::encode::<bech32::Bech32>(hrp, &seed(name)).unwrap()
}

pub(crate) fn written(draft: &CharterDraft) -> Result<Charter, CharterError> {
    Charter::parse(draft.to_toml().unwrap().as_bytes())
}

pub(crate) static CHARTER: LazyLock<Arc<Charter>> = LazyLock::new(|| Arc::new(written(&draft()).unwrap()));
pub(crate) static BACKED: LazyLock<Arc<Charter>> =
    LazyLock::new(|| Arc::new(written(&backed_draft()).unwrap()));

pub(crate) fn context_of(charter: &Charter) -> Context {
    Context::new(Arc::new(charter.clone()), Arc::new(MACHINE.root.clone())).unwrap()
}

pub(crate) fn context() -> Context {
    context_of(&CHARTER)
}
