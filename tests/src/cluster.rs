//! A cluster on this machine: founding it (charter, keys, configurations) and running it (broker, KMS,
//! security modules, enclaves, agents).

mod clock;
mod layout;
mod loss;

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ceremonies::attestation::Measurement;
use ceremonies::charter::{
    AttestationRules, CeremonyKind, Charter, CharterDraft, ClusterKind, ConsoleKey, KmsRules, Node, Quorum,
    Role,
};
use ceremonies::deploy::broker::{BrokerHost, nats_config};
use ceremonies::deploy::kms_policy::key_policy;
use ceremonies::ids::{NodeIndex, UnixMillis};
use console::keeper::{Made, make_stream};
use lab_enclave::ENCLAVE_PORT;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

pub use self::layout::Layout;
use crate::fault::HeldStore;
use crate::kms::{self, Credential, LabKms, LabKmsConfig};
use crate::line::Line;
use crate::microvm::{Image, Machine, Machines, Tools, VSOCK};
use crate::nsm::{self, LabRoot, ModuleServer};
use crate::people::{self, LabPerson};
use crate::service::{Launched, Launcher, Service, logged};
use crate::{broker, programs, write_private};

const REGION: &str = "eu-central-1";
const KMS_HOST: &str = "kms.eu-central-1.amazonaws.com";
const KEY_ARN: &str = "arn:aws:kms:eu-central-1:000000000000:key/11111111-2222-4333-8444-555555555555";
/// Who administers the lab KMS's key.
pub const ADMIN_ARN: &str = "arn:aws:iam::000000000000:role/custody-key-admin";
/// The role whose credentials the lab's agents lend.
pub const ENCLAVE_ARN: &str = "arn:aws:iam::000000000000:role/custody-enclave";
/// The ports that a cluster's parts listen on: the first, and how many there are.
const FIRST_PORT: u16 = 10_000;
const PORTS: u16 = 20_000;
/// How long a process of the lab may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a new cluster is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where everything lies.
    pub folder: PathBuf,
    /// How many nodes.
    pub nodes: u8,
    /// How many of them sign.
    pub threshold: u8,
    /// URLs of the nodes' stores; a node without one uses an SQLite file.
    pub stores: BTreeMap<NodeIndex, String>,
    /// The programs that it runs.
    pub programs: Programs,
    /// Its enclaves as virtual machines; if none, as processes.
    pub machines: Option<Machines>,
}

/// The programs of a cluster.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `custody-node`.
    pub node: PathBuf,
    /// `lab-enclave`.
    pub enclave: PathBuf,
}

/// What must stay the same when a cluster is started again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    nodes: u8,
    threshold: u8,
    machines: bool,
    nats_port: u16,
    /// The port of each node's line to the broker; a cluster of an earlier version has none.
    #[serde(default)]
    line_ports: Vec<u16>,
    /// Where each node serves its metrics; in a cluster of an earlier version nowhere.
    #[serde(default)]
    metrics_ports: Vec<u16>,
    kms_port: u16,
    kms_secret: String,
}

impl Settings {
    fn line_port(&self, node: NodeIndex) -> Option<u16> {
        port_of(&self.line_ports, node)
    }

    fn metrics_address(&self, node: NodeIndex) -> Option<String> {
        port_of(&self.metrics_ports, node).map(|port| format!("127.0.0.1:{port}"))
    }
}

fn port_of(ports: &[u16], node: NodeIndex) -> Option<u16> {
    ports.get(usize::from(node.get().checked_sub(1)?)).copied()
}

fn indices(nodes: u8) -> Result<Vec<NodeIndex>> {
    (1..=nodes).map(|index| Ok(NodeIndex::new(index)?)).collect()
}

/// A port that nobody listens on, below those that the kernel gives to connections (32,768 and up): one of those could be
/// taken before it is listened on.
fn free_port() -> Result<u16> {
    let mut tried = std::iter::repeat_with(|| FIRST_PORT + rand::random::<u16>() % PORTS).take(PORTS.into());
    let free = tried.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.with_context(|| format!("no port from {FIRST_PORT} on is free"))
}

fn new_nkey(path: &Path) -> Result<String> {
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

#[derive(Serialize)]
struct NodeFile<'a> {
    node: NodeIndex,
    charter: &'a str,
    root: &'a str,
    store: String,
    enclave: EnclaveFile<'a>,
    nats: NatsFile<'a>,
    kms: KmsFile<'a>,
    vault: VaultFile<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<MetricsFile>,
}

#[derive(Serialize)]
struct MetricsFile {
    listen: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum VaultFile<'a> {
    Directory { path: &'a str },
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum EnclaveFile<'a> {
    Unix(&'a str),
    HybridVsock { socket: &'a str, port: u32 },
}

#[derive(Serialize)]
struct NatsFile<'a> {
    servers: Vec<String>,
    seed: &'a str,
}

#[derive(Serialize)]
struct KmsFile<'a> {
    endpoint: String,
    credentials: CredentialsFile<'a>,
}

#[derive(Serialize)]
struct CredentialsFile<'a> {
    file: &'a str,
}

fn write_node(layout: &Layout, settings: &Settings, node: NodeIndex, store: Option<&String>) -> Result<()> {
    let file = NodeFile {
        node,
        charter: "../charter.toml",
        root: "../root.pem",
        store: store.cloned().unwrap_or_else(|| "sqlite:store.db".to_owned()),
        enclave: if settings.machines {
            EnclaveFile::HybridVsock { socket: VSOCK, port: ENCLAVE_PORT }
        } else {
            EnclaveFile::Unix("enclave.sock")
        },
        nats: NatsFile {
            servers: vec![settings.line_port(node).map_or_else(|| nats_url(settings), local_url)],
            seed: "nats.seed",
        },
        kms: KmsFile {
            endpoint: format!("127.0.0.1:{}", settings.kms_port),
            credentials: CredentialsFile { file: "aws.json" },
        },
        vault: VaultFile::Directory { path: "../backups" },
        metrics: settings.metrics_address(node).map(|listen| MetricsFile { listen }),
    };
    fs::write(layout.node(node).join("node.toml"), toml::to_string(&file)?)?;
    let credential = credential(settings);
    let lent = serde_json::json!({
        "Version": 1,
        "AccessKeyId": credential.access_key_id,
        "SecretAccessKey": credential.secret_access_key,
    });
    write_private(&layout.node(node).join("aws.json"), lent.to_string().as_bytes())?;
    Ok(())
}

fn local_url(port: u16) -> String {
    format!("nats://127.0.0.1:{port}")
}

fn nats_url(settings: &Settings) -> String {
    local_url(settings.nats_port)
}

fn credential(settings: &Settings) -> Credential {
    Credential {
        access_key_id: "AKIALABENCLAVE000001".into(),
        secret_access_key: settings.kms_secret.clone(),
        session_token: None,
        principal: ENCLAVE_ARN.into(),
    }
}

#[derive(Serialize)]
struct ConsoleFile<'a> {
    charter: &'a str,
    root: &'a str,
    nats: NatsFile<'a>,
    backups: &'a str,
    cache: &'a str,
    me: Vec<MeFile>,
    lab: LabFile<'a>,
}

#[derive(Serialize)]
struct LabFile<'a> {
    control: &'a str,
}

#[derive(Serialize)]
struct MeFile {
    person: String,
    role: String,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
}

fn write_console(layout: &Layout, settings: &Settings, people: &[LabPerson]) -> Result<()> {
    let file = ConsoleFile {
        charter: "charter.toml",
        root: "root.pem",
        nats: NatsFile { servers: vec![nats_url(settings)], seed: "console.seed" },
        backups: "backups",
        cache: "cache",
        me: people
            .iter()
            .map(|person| MeFile {
                person: person.name.to_string(),
                role: person.role.to_string(),
                key: format!("people/{}", person.name),
                identity: (person.role == Role::Custodian)
                    .then(|| format!("people/{}.identity", person.name)),
            })
            .collect(),
        lab: LabFile { control: "control.sock" },
    };
    fs::write(layout.console(), toml::to_string(&file)?)?;
    Ok(())
}

/// Writes what a Prometheus of the lab's own would be started with. JSON is YAML.
fn write_prometheus(layout: &Layout, settings: &Settings) -> Result<()> {
    let nodes = indices(settings.nodes)?.into_iter();
    let targets: Vec<String> = nodes.filter_map(|node| settings.metrics_address(node)).collect();
    let alerts = programs::workspace().join("runbooks/monitoring/alerts.yml");
    let config = serde_json::json!({
        "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
        "rule_files": [alerts],
        "scrape_configs": [{ "job_name": "custody", "static_configs": [{ "targets": targets }] }],
    });
    Ok(fs::write(layout.prometheus(), serde_json::to_vec_pretty(&config)?)?)
}

/// One node's processes, and its way to the broker.
struct NodeServices {
    enclave: Service,
    agent: Service,
    line: Option<Line>,
}

/// A running cluster. Everything it started ends when it is dropped.
pub struct Cluster {
    layout: Layout,
    settings: Settings,
    kms: LabKms,
    broker: Service,
    nodes: BTreeMap<NodeIndex, NodeServices>,
    held_stores: Mutex<BTreeMap<NodeIndex, HeldStore>>,
}

impl Cluster {
    /// Founds the cluster if there is none, and starts it.
    ///
    /// # Errors
    /// Says which part does not start.
    pub async fn start(plan: &Plan) -> Result<Self> {
        let layout = found(plan)?;
        let settings: Settings = toml::from_str(&fs::read_to_string(layout.settings())?)?;
        let root = Arc::new(LabRoot::open(&layout.nsm())?);
        let kms = start_kms(&layout, &settings, &root).await?;
        let broker = start_broker(&layout, &settings)?;
        wait_for_broker(settings.nats_port, &layout.nats().join("nats.log")).await?;
        keep_stream(&layout, &settings).await?;
        let mut nodes = BTreeMap::new();
        for node in indices(settings.nodes)? {
            let launcher = match &plan.machines {
                Some(machines) if settings.machines => {
                    machine_launcher(&layout, node, &root, &machines.tools)
                }
                None if !settings.machines => enclave_launcher(&layout, node, &root),
                _ => bail!(
                    "the cluster in {} was made with the other kind of enclave: use another --dir",
                    layout.folder().display()
                ),
            };
            let line = match settings.line_port(node) {
                Some(port) => Some(Line::lay(port, settings.nats_port).await?),
                None => None,
            };
            let enclave = Service::start(format!("enclave {node}"), launcher)?;
            let agent = Service::start(
                format!("agent {node}"),
                agent_launcher(&layout, node, plan.programs.node.clone()),
            )?;
            nodes.insert(node, NodeServices { enclave, agent, line });
        }
        Ok(Self { layout, settings, kms, broker, nodes, held_stores: Mutex::default() })
    }

    /// Where its files lie.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The KMS, with its audit log.
    #[must_use]
    pub fn kms(&self) -> &LabKms {
        &self.kms
    }

    /// Gives the KMS key the policy in this file, now and after a restart.
    ///
    /// # Errors
    /// When it is not a policy; the old one stays.
    pub fn put_key_policy(&self, file: &Path) -> Result<()> {
        let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        self.kms.put_key_policy(&serde_json::from_slice(&bytes)?)?;
        Ok(fs::write(self.layout.key_policy(), bytes)?)
    }

    /// Has a node run another enclave program or image from now on.
    ///
    /// # Errors
    /// When there is no such node, or the file cannot be copied.
    pub async fn install_enclave(&self, node: NodeIndex, file: &Path) -> Result<()> {
        let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let place = if self.settings.machines {
            self.layout.enclave_image(node)
        } else {
            self.layout.enclave_program(node)
        };
        let enclave = self.enclave(node)?;
        enclave.hold().await;
        let written = fs::write(&place, bytes).with_context(|| format!("writing {}", place.display()));
        enclave.resume().await;
        written
    }

    /// The broker's process.
    #[must_use]
    pub fn broker(&self) -> &Service {
        &self.broker
    }

    /// Makes the stream on the broker unless it is there, as an administrator who finds it gone would.
    ///
    /// # Errors
    /// When the broker cannot be reached, or has a stream without the required settings.
    pub async fn make_stream(&self) -> Result<Made> {
        keep_stream(&self.layout, &self.settings).await
    }

    /// Starts the broker again with the configuration of this charter.
    ///
    /// # Errors
    /// When the configuration cannot be written, or the broker does not start with it.
    pub async fn configure_broker(&self, charter: &Charter) -> Result<()> {
        write_broker(&self.layout, &self.settings, charter)?;
        self.broker.hold().await;
        self.broker.resume().await;
        wait_for_broker(self.settings.nats_port, &self.layout.nats().join("nats.log")).await
    }

    /// The broker's URL.
    #[must_use]
    pub fn nats_url(&self) -> String {
        nats_url(&self.settings)
    }

    /// A node's agent.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn agent(&self, node: NodeIndex) -> Result<&Service> {
        Ok(&self.services(node)?.agent)
    }

    /// A node's enclave.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn enclave(&self, node: NodeIndex) -> Result<&Service> {
        Ok(&self.services(node)?.enclave)
    }

    fn services(&self, node: NodeIndex) -> Result<&NodeServices> {
        self.nodes.get(&node).with_context(|| {
            format!("there is no node {node}: this cluster has nodes 1 to {}", self.nodes.len())
        })
    }

    /// Where a node serves its metrics.
    ///
    /// # Errors
    /// When there is no such node, or a cluster of an earlier version serves none.
    pub fn metrics_of(&self, node: NodeIndex) -> Result<String> {
        self.settings.metrics_address(node).with_context(|| format!("node {node} serves no metrics"))
    }

    /// A node's way to the broker.
    pub(crate) fn line(&self, node: NodeIndex) -> Result<&Line> {
        self.services(node)?.line.as_ref().context(
            "this cluster was made by an earlier version, whose nodes are connected to the broker without anything \
             between that could be cut: make a new one",
        )
    }

    /// Sets a node's clock wrong by so many seconds, and restarts its agent with it.
    ///
    /// # Errors
    /// When there is no such node, or its clock cannot be set.
    pub(crate) async fn skew_clock(&self, node: NodeIndex, seconds: i64) -> Result<()> {
        let agent = self.agent(node)?;
        clock::skew(&self.layout.node(node), seconds)?;
        agent.kill().await;
        Ok(())
    }

    /// Sets every clock right, and restarts the agents whose clock was wrong.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(crate) async fn set_clocks_right(&self) -> Result<()> {
        for (node, services) in &self.nodes {
            if clock::set_right(&self.layout.node(*node))? {
                services.agent.kill().await;
            }
        }
        Ok(())
    }

    /// The stores that take no writes now.
    pub(crate) fn held_stores(&self) -> MutexGuard<'_, BTreeMap<NodeIndex, HeldStore>> {
        self.held_stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        self.nodes.keys().copied()
    }

    /// Stops everything, agents first.
    pub async fn stop(self) {
        for node in self.nodes.values() {
            node.agent.stop().await;
        }
        for node in self.nodes.values() {
            node.enclave.stop().await;
        }
        self.broker.stop().await;
        self.kms.stop().await;
    }
}

async fn start_kms(layout: &Layout, settings: &Settings, root: &LabRoot) -> Result<LabKms> {
    let policy = serde_json::from_slice(&fs::read(layout.key_policy())?)?;
    let config = LabKmsConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], settings.kms_port)),
        host: KMS_HOST.into(),
        region: REGION.into(),
        key_arn: KEY_ARN.into(),
        policy,
        credentials: vec![credential(settings)],
        verifier: kms::attested_under(root.trust().clone()),
        clock: Arc::new(|| UnixMillis(jiff::Timestamp::now().as_millisecond())),
    };
    LabKms::start(&layout.kms(), config).await
}

fn keeper(layout: &Layout) -> Result<nkeys::KeyPair> {
    let seed = zeroize::Zeroizing::new(fs::read_to_string(layout.keeper())?);
    nkeys::KeyPair::from_seed(seed.trim()).context("the keeper's seed")
}

/// Makes the stream unless it is there, as the broker's administrator would.
async fn keep_stream(layout: &Layout, settings: &Settings) -> Result<Made> {
    let seed = zeroize::Zeroizing::new(fs::read_to_string(layout.keeper())?);
    Ok(make_stream(&nats_url(settings), &seed, 1).await?)
}

/// Writes the broker's configuration for a charter and returns where it is.
fn write_broker(layout: &Layout, settings: &Settings, charter: &Charter) -> Result<PathBuf> {
    let config = std::path::absolute(layout.nats())?.join("nats.conf");
    let listen = format!("127.0.0.1:{}", settings.nats_port);
    let store = std::path::absolute(layout.streams())?;
    // A cluster that was founded before streams had a keeper gets one.
    if !layout.keeper().exists() {
        new_nkey(&layout.keeper())?;
    }
    let keeper = keeper(layout)?.public_key();
    let host = BrokerHost { listen: &listen, store: &store, keeper: &keeper };
    fs::write(&config, nats_config(charter, host))?;
    Ok(config)
}

fn start_broker(layout: &Layout, settings: &Settings) -> Result<Service> {
    let config = write_broker(layout, settings, &Charter::parse(&fs::read(layout.charter())?)?)?;
    let program = broker::nats_server(&layout.tools())?;
    let log = std::path::absolute(layout.nats())?.join("nats.log");
    let launcher: Launcher = Arc::new(move || {
        let child = logged(&program, &log)?.arg("--config").arg(&config).spawn()?;
        Ok(Launched { child, companion: None })
    });
    Service::start("broker".to_owned(), launcher)
}

/// Measures the node's copy of the enclave program, opens a security module for that measurement, and only then runs
/// that very copy.
fn enclave_launcher(layout: &Layout, node: NodeIndex, root: &Arc<LabRoot>) -> Launcher {
    let (layout, root) = (layout.clone(), Arc::clone(root));
    Arc::new(move || {
        let folder = layout.node(node);
        let program = std::path::absolute(layout.enclave_program(node))?;
        let (attestation_root, kms_root) = (layout.root(), layout.kms().join("root.pem"));
        let measurement = nsm::measure(&program, &[&attestation_root, &kms_root])?;
        let socket = folder.join("module.sock");
        let module = ModuleServer::start(&socket, Arc::clone(&root), measurement)?;
        let child = logged(&program, &folder.join("enclave.log"))?
            .arg("--listen")
            .arg(folder.join("enclave.sock"))
            .arg("--module")
            .arg(&socket)
            .arg("--attestation-root")
            .arg(attestation_root)
            .arg("--kms-root")
            .arg(kms_root)
            .spawn()?;
        if let Some(process) = child.id() {
            module.admit_only(process);
        }
        Ok(Launched { child, companion: Some(Box::new(module)) })
    })
}

fn machine_launcher(layout: &Layout, node: NodeIndex, root: &Arc<LabRoot>, tools: &Tools) -> Launcher {
    let (folder, image) = (layout.node(node), layout.enclave_image(node));
    let (machine, root) = (Machine::new(&folder, &image, tools), Arc::clone(root));
    Arc::new(move || machine.launch(&root))
}

fn agent_launcher(layout: &Layout, node: NodeIndex, program: PathBuf) -> Launcher {
    let folder = layout.node(node);
    Arc::new(move || {
        let mut command = logged(&program, &folder.join("agent.log"))?;
        clock::give(&folder, &mut command)?;
        let child = command.arg("--config").arg(folder.join("node.toml")).spawn()?;
        Ok(Launched { child, companion: None })
    })
}

/// Waits until the broker greets. It reports at once if something else has the port, or why the broker ended.
async fn wait_for_broker(port: u16, log: &Path) -> Result<()> {
    let begun = Instant::now();
    // What it said on another day explains nothing.
    let before = fs::metadata(log).map_or(0, |log| log.len());
    loop {
        let said = last_line(log, before);
        if said.contains("address already in use") {
            bail!(
                "the broker's port {port} is taken: stop what listens there, or make a new cluster; {said}"
            );
        }
        match greeting(port).await {
            Some(greeting) if greeting.starts_with(b"INFO ") => return Ok(()),
            Some(_) => {
                bail!(
                    "what listens on the broker's port {port} is not NATS: stop it; the broker says: {said}"
                )
            }
            None if begun.elapsed() > PATIENCE => {
                bail!("the broker did not start: {said}; see {}", log.display())
            }
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The first bytes from whoever listens on a port; none if nobody does. NATS speaks first, and at once.
async fn greeting(port: u16) -> Option<[u8; 5]> {
    let mut greeting = [0; 5];
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    match tokio::time::timeout(Duration::from_secs(1), stream.read_exact(&mut greeting)).await {
        // Closed before it said anything: it is starting up or shutting down.
        Ok(Err(_)) => None,
        Ok(Ok(_)) | Err(_) => Some(greeting),
    }
}

/// The last line of a log after this place, or the one that says that a port is taken.
fn last_line(log: &Path, from: u64) -> String {
    let text = fs::read(log).unwrap_or_default();
    let new = text.get(usize::try_from(from).unwrap_or(usize::MAX)..).unwrap_or_default();
    let new = String::from_utf8_lossy(new);
    let taken = new.lines().find(|line| line.contains("address already in use"));
    taken.or_else(|| new.lines().last()).unwrap_or("nothing yet").to_owned()
}
