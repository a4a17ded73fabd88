//! Starting the parts of a cluster: KMS, broker and its stream, enclaves, agents.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ceremonies::charter::Charter;
use ceremonies::deploy::broker::{BrokerHost, nats_config};
use ceremonies::ids::{NodeIndex, UnixMillis};
use console::keeper::{Made, make_stream};
use tokio::io::AsyncReadExt as _;

use super::files::{credential, nats_url};
use super::founding::{KEY_ARN, KMS_HOST, REGION, Settings, new_nkey};
use super::{Layout, clock};
use crate::broker;
use crate::kms::{self, LabKms, LabKmsConfig};
use crate::microvm::{Machine, Tools};
use crate::nsm::{self, LabRoot, ModuleServer};
use crate::service::{Launched, Launcher, Service, logged};

/// How long a process of the lab may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn start_kms(layout: &Layout, settings: &Settings, root: &LabRoot) -> Result<LabKms> {
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
pub(super) async fn keep_stream(layout: &Layout, settings: &Settings) -> Result<Made> {
    let seed = zeroize::Zeroizing::new(fs::read_to_string(layout.keeper())?);
    Ok(make_stream(&nats_url(settings), &seed, 1).await?)
}

/// Writes the broker's configuration for a charter and returns where it is.
pub(super) fn write_broker(layout: &Layout, settings: &Settings, charter: &Charter) -> Result<PathBuf> {
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

pub(super) fn start_broker(layout: &Layout, settings: &Settings) -> Result<Service> {
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
pub(super) fn enclave_launcher(layout: &Layout, node: NodeIndex, root: &Arc<LabRoot>) -> Launcher {
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

pub(super) fn machine_launcher(
    layout: &Layout,
    node: NodeIndex,
    root: &Arc<LabRoot>,
    tools: &Tools,
) -> Launcher {
    let (folder, image) = (layout.node(node), layout.enclave_image(node));
    let (machine, root) = (Machine::new(&folder, &image, tools), Arc::clone(root));
    Arc::new(move || machine.launch(&root))
}

pub(super) fn agent_launcher(layout: &Layout, node: NodeIndex, program: PathBuf) -> Launcher {
    let folder = layout.node(node);
    Arc::new(move || {
        let mut command = logged(&program, &folder.join("agent.log"))?;
        clock::give(&folder, &mut command)?;
        let child = command.arg("--config").arg(folder.join("node.toml")).spawn()?;
        Ok(Launched { child, companion: None })
    })
}

/// Waits until the broker greets. It reports at once if something else has the port, or why the broker ended.
pub(super) async fn wait_for_broker(port: u16, log: &Path) -> Result<()> {
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
