//! Founding a cluster: its keys, charter and image, and all that must stay the same when it is started again.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use ceremonies::attestation::Measurement;
use ceremonies::charter::{
    AttestationRules, CeremonyKind, Charter, CharterDraft, ClusterKind, ConsoleKey, KmsRules, Node, Quorum,
    Role,
};
use ceremonies::deploy::kms_policy::key_policy;
use ceremonies::ids::NodeIndex;
use serde::{Deserialize, Serialize};

use super::files::{write_console, write_node, write_prometheus};
use super::{ADMIN_ARN, ENCLAVE_ARN, Layout, Plan};
use crate::kms;
use crate::microvm::{Image, Machines};
use crate::nsm::{self, LabRoot};
use crate::people::{self, LabPerson};
use crate::write_private;

pub(super) const REGION: &str = "eu-central-1";
pub(super) const KMS_HOST: &str = "kms.eu-central-1.amazonaws.com";
pub(super) const KEY_ARN: &str =
    "arn:aws:kms:eu-central-1:000000000000:key/11111111-2222-4333-8444-555555555555";
/// The ports that a cluster's parts listen on: the first, and how many there are.
const FIRST_PORT: u16 = 10_000;
const PORTS: u16 = 20_000;

/// What must stay the same when a cluster is started again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) nodes: u8,
    pub(super) threshold: u8,
    pub(super) machines: bool,
    pub(super) nats_port: u16,
    /// The port of each node's line to the broker; a cluster of an earlier version has none.
    #[serde(default)]
    pub(super) line_ports: Vec<u16>,
    /// Where each node serves its metrics; in a cluster of an earlier version nowhere.
    #[serde(default)]
    pub(super) metrics_ports: Vec<u16>,
    pub(super) kms_port: u16,
    pub(super) kms_secret: String,
}

impl Settings {
    pub(super) fn line_port(&self, node: NodeIndex) -> Option<u16> {
        port_of(&self.line_ports, node)
    }

    pub(super) fn metrics_address(&self, node: NodeIndex) -> Option<String> {
        port_of(&self.metrics_ports, node).map(|port| format!("127.0.0.1:{port}"))
    }
}

fn port_of(ports: &[u16], node: NodeIndex) -> Option<u16> {
    ports.get(usize::from(node.get().checked_sub(1)?)).copied()
}

pub(super) fn indices(nodes: u8) -> Result<Vec<NodeIndex>> {
    (1..=nodes).map(|index| Ok(NodeIndex::new(index)?)).collect()
}

/// A port that nobody listens on, below those that the kernel gives to connections (32,768 and up): one of those could be
/// taken before it is listened on.
fn free_port() -> Result<u16> {
    let mut tried = std::iter::repeat_with(|| FIRST_PORT + rand::random::<u16>() % PORTS).take(PORTS.into());
    let free = tried.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.with_context(|| format!("no port from {FIRST_PORT} on is free"))
}

pub(super) fn new_nkey(path: &Path) -> Result<String> {
    let key = nkeys::KeyPair::new_user();
    write_private(path, key.seed().context("an NKey without a seed")?.as_bytes())?;
    Ok(key.public_key())
}

/// Makes everything that a new cluster needs. An existing cluster stays as it is.
///
/// # Errors
/// When a file cannot be written.
pub fn found(plan: &Plan) -> Result<Layout> {
    let layout = Layout::new(&plan.folder);
    if layout.settings().exists() {
        return Ok(layout);
    }
    for folder in [layout.people(), layout.kms(), layout.nats(), layout.tools(), layout.backups()] {
        fs::create_dir_all(folder)?;
    }
    let root = LabRoot::open(&layout.nsm())?;
    fs::copy(root.pem(), layout.root())?;
    let kms_root = kms::LabRoot::open(&layout.kms())?;
    let settings = Settings {
        nodes: plan.nodes,
        threshold: plan.threshold,
        machines: plan.machines.is_some(),
        nats_port: free_port()?,
        line_ports: (0..plan.nodes).map(|_| free_port()).collect::<Result<_>>()?,
        metrics_ports: (0..plan.nodes).map(|_| free_port()).collect::<Result<_>>()?,
        kms_port: free_port()?,
        kms_secret: hex::encode(rand::random::<[u8; 20]>()),
    };
    for node in indices(plan.nodes)? {
        fs::create_dir_all(layout.node(node))?;
    }
    let measurement = if let Some(machines) = &plan.machines {
        found_image(&layout, plan, machines, kms_root.pem())?
    } else {
        for node in indices(plan.nodes)? {
            fs::copy(&plan.programs.enclave, layout.enclave_program(node))?;
        }
        nsm::measure(&plan.programs.enclave, &[&layout.root(), kms_root.pem()])?
    };
    let people = people::roll(&layout.people(), plan.nodes)?;
    let charter = draft(&layout, &settings, &root, measurement, &people)?.to_toml()?;
    Charter::parse(charter.as_bytes()).context("the lab's own charter")?;
    fs::write(layout.charter(), charter)?;
    let policy = key_policy(ADMIN_ARN, ENCLAVE_ARN, &[measurement])?;
    fs::write(layout.key_policy(), serde_json::to_vec_pretty(&policy)?)?;
    for node in indices(plan.nodes)? {
        write_node(&layout, &settings, node, plan.stores.get(&node))?;
    }
    write_console(&layout, &settings, &people)?;
    write_prometheus(&layout, &settings)?;
    fs::write(layout.settings(), toml::to_string(&settings)?)?;
    Ok(layout)
}

/// Builds the image with the cluster's roots in it, gives every node a copy, and measures it: what is measured
/// here must be what its builder said.
fn found_image(layout: &Layout, plan: &Plan, machines: &Machines, kms_root: &Path) -> Result<Measurement> {
    let image = layout.image();
    let printed = machines.build_image(&layout.root(), kms_root, &image)?;
    let measurement = Image::read(&fs::read(&image)?)?.measure();
    let built: Measurement = toml::from_str(&printed).context("what the image builder printed")?;
    ensure!(built == measurement, "the image measures {measurement:?}, but its builder said {built:?}");
    for node in indices(plan.nodes)? {
        fs::copy(&image, layout.enclave_image(node))?;
    }
    Ok(measurement)
}

fn draft(
    layout: &Layout,
    settings: &Settings,
    root: &LabRoot,
    measurement: Measurement,
    people: &[LabPerson],
) -> Result<CharterDraft> {
    let quorum = Quorum::from([
        (Role::Administrator, 1),
        (Role::Operator, u32::from(settings.threshold)),
        (Role::Witness, 1),
        (Role::Auditor, 1),
    ]);
    // An inventory moves no share, and operators need not come for it.
    let watching = Quorum::from([(Role::Administrator, 1), (Role::Witness, 1), (Role::Auditor, 1)]);
    let mut quorums: BTreeMap<_, _> = CeremonyKind::ALL.map(|kind| (kind, quorum.clone())).into();
    quorums.insert(CeremonyKind::Inventory, watching);
    let node = |index: NodeIndex| -> Result<Node> {
        let nkey = new_nkey(&layout.node(index).join("nats.seed"))?;
        Ok(Node { index, zone: format!("lab zone {index}").parse()?, nkey, excluded: false })
    };
    Ok(CharterDraft {
        amends: None,
        version: 1,
        cluster: format!("lab-{}", hex::encode(rand::random::<[u8; 3]>())).parse()?,
        kind: ClusterKind::Lab,
        threshold: settings.threshold,
        system_nkey: new_nkey(&layout.nats().join("system.seed"))?,
        attestation: AttestationRules {
            root_sha256: root.trust().fingerprint(),
            max_age_s: 300,
            measurements: vec![measurement],
        },
        backup: Some(people::keepers(people, &indices(settings.nodes)?)?),
        kms: KmsRules { key: KEY_ARN.into(), region: REGION.into(), host: KMS_HOST.into() },
        quorum: quorums,
        nodes: indices(settings.nodes)?.into_iter().map(node).collect::<Result<_>>()?,
        people: people::generate(people)?,
        consoles: vec![ConsoleKey {
            name: "console-1".parse()?,
            nkey: new_nkey(&layout.folder().join("console.seed"))?,
        }],
    })
}
