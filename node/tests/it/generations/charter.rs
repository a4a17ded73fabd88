//! The smallest clusters that a schedule can have: three nodes with threshold two, with and without backups.

use std::sync::{Arc, LazyLock};

use bech32::{Bech32, Hrp};
use ceremonies::ceremony::Context;
use ceremonies::charter::{
    AttestationRules, BackupRules, CeremonyKind, Charter, CharterDraft, ClusterKind, ConsoleKey, Custodian,
    Keeper, KmsRules, Node, Person, Quorum, Role,
};
use ceremonies::ids::Hash;

use super::keys::{MACHINE, image};
use crate::simulation::charter::{line, nkey, node, node_key, ssh};

pub(super) const NODES: usize = 3;
pub(super) const THRESHOLD: usize = 2;

/// Everybody, each in the one role they ever take.
pub(super) const PEOPLE: [(&str, Role); 10] = [
    ("ada", Role::Administrator),
    ("olga", Role::Operator),
    ("omar", Role::Operator),
    ("otto", Role::Operator),
    ("wendy", Role::Witness),
    ("arthur", Role::Auditor),
    ("carl-1", Role::Custodian),
    ("carl-2", Role::Custodian),
    ("carl-3", Role::Custodian),
    ("esther", Role::Custodian),
];

/// Who keeps a node's backups.
pub(super) fn custodian(at: usize) -> String {
    format!("carl-{}", node(at))
}

fn recipient(name: &str) -> String {
    let seed = Hash::of_bytes(name.as_bytes());
    bech32::encode::<Bech32>(Hrp::parse("age").unwrap(), seed.as_bytes()).unwrap()
}

fn backups() -> BackupRules {
    let custodian = |at: usize| {
        let name = custodian(at);
        Custodian { recipient: recipient(&name), person: name.parse().unwrap(), nodes: vec![node(at)] }
    };
    BackupRules {
        lock_days: 30,
        refresh_days: 30,
        escrow: Keeper { person: "esther".parse().unwrap(), recipient: recipient("esther") },
        custodians: (0..NODES).map(custodian).collect(),
    }
}

fn context(backup: Option<BackupRules>) -> Context {
    let quorum: Quorum =
        [(Role::Administrator, 1), (Role::Operator, 2), (Role::Witness, 1), (Role::Auditor, 1)].into();
    let draft = CharterDraft {
        backup,
        amends: None,
        version: 1,
        cluster: "paper".parse().unwrap(),
        kind: ClusterKind::Lab,
        threshold: u8::try_from(THRESHOLD).unwrap(),
        system_nkey: nkey("system").public_key(),
        attestation: AttestationRules {
            root_sha256: MACHINE.root.fingerprint(),
            max_age_s: 300,
            measurements: vec![image()],
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
    Context::new(Arc::new(charter), Arc::new(MACHINE.root.clone())).unwrap()
}

pub(super) static PLAIN: LazyLock<Context> = LazyLock::new(|| context(None));
pub(super) static BACKED_UP: LazyLock<Context> = LazyLock::new(|| context(Some(backups())));
