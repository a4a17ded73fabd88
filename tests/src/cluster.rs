//! A cluster on this machine: founding it (charter, keys, configurations) and running it (broker, KMS,
//! security modules, enclaves, agents).

mod clock;
mod files;
mod founding;
mod layout;
mod loss;
mod starting;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use ceremonies::charter::Charter;
use ceremonies::ids::NodeIndex;
use console::keeper::Made;

use self::files::nats_url;
pub use self::founding::found;
use self::founding::{Settings, indices};
pub use self::layout::Layout;
use self::starting::{
    agent_launcher, enclave_launcher, keep_stream, machine_launcher, start_broker, start_kms,
    wait_for_broker, write_broker,
};
use crate::fault::HeldStore;
use crate::kms::LabKms;
use crate::line::Line;
use crate::microvm::Machines;
use crate::nsm::LabRoot;
use crate::service::Service;

/// Who administers the lab KMS's key.
pub const ADMIN_ARN: &str = "arn:aws:iam::000000000000:role/custody-key-admin";
/// The role whose credentials the lab's agents lend.
pub const ENCLAVE_ARN: &str = "arn:aws:iam::000000000000:role/custody-enclave";
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
