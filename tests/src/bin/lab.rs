//! `cargo lab`: a whole Custody cluster on this machine, and the console on it.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{Line, NodeIndex, WalletName};
use ceremonies::manifest::Way;
use clap::{Args, Parser, Subcommand, ValueEnum};
use console::broadcast::Endpoint;
use console::inventory::Entries;
use console::room::{self, RoomError, Topic};
use lab::cluster::{Cluster, Layout, Plan};
use lab::drive::Room;
use lab::fault::Fault;
use lab::microvm::Machines;
use lab::postgres::Postgres;
use lab::{control, programs};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long a cluster may take to answer, and a driven ceremony to go from step to step.
const PATIENCE: Duration = Duration::from_mins(3);

/// A whole Custody cluster on this machine. Without a command, it starts the cluster and opens the console.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The folder with the cluster's state.
    #[arg(long, global = true, default_value = ".lab")]
    dir: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Start the cluster, print `ready`, and keep running.
    Up(Up),
    /// Stop the running cluster.
    Down,
    /// Show whether the cluster is running, and the health of its nodes.
    Status,
    /// Break something in the running cluster, or mend it.
    #[command(subcommand)]
    Fault(Fault),
    /// Give the lab's KMS key the policy that `custody charter kms-policy` wrote.
    KeyPolicy { file: PathBuf },
    /// Have a node's enclave run another program or, with virtual machines, another image.
    InstallEnclave { node: u8, file: PathBuf },
    /// Lead a whole ceremony with the lab's generated people.
    Ceremony(Box<Drive>),
}

#[derive(Args, Clone)]
struct Up {
    /// The number of nodes.
    #[arg(long, default_value_t = 5)]
    nodes: u8,
    /// The threshold: how many of them sign together.
    #[arg(long, default_value_t = 3)]
    threshold: u8,
    /// How the enclaves run: as processes, or as virtual machines under QEMU with real vsock.
    #[arg(long, value_enum, default_value = "process")]
    enclave: EnclaveKind,
    /// Where the nodes keep their stores. A PostgreSQL server is started for the cluster's life.
    #[arg(long, value_enum, default_value = "sqlite")]
    store: StoreKind,
    /// Do not open the console.
    #[arg(long)]
    headless: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EnclaveKind {
    Process,
    Microvm,
}

#[derive(Clone, Copy, ValueEnum)]
enum StoreKind {
    Sqlite,
    Postgres,
}

#[derive(Args)]
struct Drive {
    /// Which ceremony.
    kind: CeremonyKind,
    /// The wallet; for an amendment, give --charter instead.
    #[arg(long, required_unless_present = "charter", conflicts_with = "charter")]
    wallet: Option<WalletName>,
    /// The new charter, for an amendment.
    #[arg(long, value_name = "FILE")]
    charter: Option<PathBuf>,
    /// A node that has lost its share, for a recovery or rebuild; repeat it for each node.
    #[arg(long, value_name = "NODE[=WAY]", value_parser = console::room::lost_node)]
    lost: Vec<(NodeIndex, Way)>,
    /// The transaction that `custody sweep` wrote, for a transfer.
    #[arg(long, value_name = "FILE", requires = "wallet")]
    transaction: Option<PathBuf>,
    /// The nodes that sign it.
    #[arg(long, value_delimiter = ',')]
    signers: Vec<NodeIndex>,
    /// Where to send the signed transaction; without it, the lab's operator signs that it is not sent.
    #[arg(long, value_name = "URL", requires = "transaction")]
    endpoint: Option<Endpoint>,
    /// Why it is held.
    #[arg(long, default_value = "Led by the lab")]
    purpose: Line,
    #[command(flatten)]
    entries: Entries,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let layout = Layout::new(&arguments.dir);
    let defaults = Up {
        nodes: 5,
        threshold: 3,
        enclave: EnclaveKind::Process,
        store: StoreKind::Sqlite,
        headless: false,
    };
    match arguments.command {
        None => up(&arguments.dir, &defaults).await,
        Some(Command::Up(options)) => up(&arguments.dir, &options).await,
        Some(Command::Down) => say(&layout, "down").await,
        Some(Command::Status) => {
            say(&layout, "status").await?;
            console(&layout, &["status"]).await
        }
        Some(Command::Fault(fault)) => {
            say(&layout, &format!("fault {}", serde_json::to_string(&fault)?)).await
        }
        Some(Command::KeyPolicy { file }) => say(&layout, &format!("key-policy {}", place(&file)?)).await,
        Some(Command::InstallEnclave { node, file }) => {
            say(&layout, &format!("install-enclave {node} {}", place(&file)?)).await
        }
        Some(Command::Ceremony(options)) => drive(&layout, *options).await,
    }
}

/// A file's absolute path, which the cluster's process can find.
fn place(file: &Path) -> Result<String> {
    let place = file.canonicalize().with_context(|| format!("finding {}", file.display()))?;
    let text = place.to_str().filter(|text| !text.contains(char::is_whitespace));
    Ok(text
        .with_context(|| format!("{} contains a space: choose another place", place.display()))?
        .to_owned())
}

async fn say(layout: &Layout, line: &str) -> Result<()> {
    println!("{}", control::order(&layout.control(), line).await?);
    Ok(())
}

/// Runs the console on the cluster, with this terminal.
async fn console(layout: &Layout, arguments: &[&str]) -> Result<()> {
    let program = programs::folder()?.join("custody");
    let before = tcgetattr(std::io::stdin()).ok();
    let status = tokio::process::Command::new(&program)
        .arg("--cluster")
        .arg(layout.console())
        .args(arguments)
        .status()
        .await
        .with_context(|| format!("running {}", program.display()))?;
    if status.success() {
        return Ok(());
    }
    // A console that was killed leaves the terminal as it had it.
    if std::io::stdout().is_terminal() {
        console::terminal::give_back();
    }
    if let Some(before) = before {
        tcsetattr(std::io::stdin(), OptionalActions::Now, &before)?;
    }
    bail!("the console ended with {status}")
}

async fn up(folder: &Path, options: &Up) -> Result<()> {
    let layout = Layout::new(folder);
    if control::order(&layout.control(), "status").await.is_ok() {
        if options.headless {
            bail!("a lab is already running in {}; `cargo lab down` stops it", folder.display());
        }
        return console(&layout, &[]).await;
    }
    std::fs::create_dir_all(folder)
        .with_context(|| format!("making the lab's folder {}", folder.display()))?;
    let folder = &std::fs::canonicalize(folder)?;
    eprintln!("building the programs (the first time takes some minutes)");
    let programs = programs::build()?;
    let machines = match options.enclave {
        EnclaveKind::Process => None,
        EnclaveKind::Microvm => {
            eprintln!("building the enclave's image and its builder (the first time takes some minutes)");
            Some(Machines::prepare()?)
        }
    };
    let (postgres, stores) = stores(options)?;
    let plan = Plan {
        folder: folder.clone(),
        nodes: options.nodes,
        threshold: options.threshold,
        stores,
        programs,
        machines,
    };
    eprintln!("starting broker, KMS, security modules, enclaves and agents");
    let cluster = Arc::new(Cluster::start(&plan).await?);
    let stop = CancellationToken::new();
    let listening = control::listen(Arc::clone(&cluster), stop.clone())?;
    Room::enter(&cluster.layout().console(), PATIENCE).await.context("waiting for the nodes")?;
    if options.headless {
        println!("ready");
        eprintln!(
            "cluster in {}; console: custody --cluster {}",
            folder.display(),
            cluster.layout().console().display()
        );
        wait_for_end(&stop).await?;
    } else {
        console(cluster.layout(), &[]).await?;
    }
    stop.cancel();
    listening.await?;
    eprintln!("stopping");
    if let Some(cluster) = Arc::into_inner(cluster) {
        cluster.stop().await;
    }
    drop(postgres);
    Ok(())
}

/// A server, and a database for every node, if PostgreSQL is requested.
fn stores(options: &Up) -> Result<(Option<Postgres>, BTreeMap<NodeIndex, String>)> {
    match options.store {
        StoreKind::Sqlite => Ok((None, BTreeMap::new())),
        StoreKind::Postgres => {
            let server = Postgres::start()?;
            let mut stores = BTreeMap::new();
            for index in 1..=options.nodes {
                stores.insert(NodeIndex::new(index)?, server.database(&format!("node_{index}"))?);
            }
            Ok((Some(server), stores))
        }
    }
}

async fn wait_for_end(stop: &CancellationToken) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        () = stop.cancelled() => {}
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}

async fn drive(layout: &Layout, options: Drive) -> Result<()> {
    let mut room = Room::enter(&layout.console(), PATIENCE).await?;
    room.endpoint = options.endpoint;
    let charter = match &options.charter {
        Some(file) => Some(std::fs::read(file).with_context(|| format!("reading {}", file.display()))?),
        None => None,
    };
    room::must_choose_no_signers(options.kind, &options.signers)?;
    let lost = room::lost_nodes(options.lost)?;
    let topic = match (options.transaction, options.wallet) {
        (Some(file), Some(wallet)) => {
            let bytes = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            room::transfer(&room.book, wallet, &bytes, options.signers)?
        }
        (None, Some(wallet)) if options.kind == CeremonyKind::Inventory => {
            options.entries.topic(&room.book, wallet)?
        }
        _ if !options.entries.is_empty() => bail!(RoomError::Generation),
        (_, wallet) => Topic::new(options.kind, wallet, charter.as_deref(), lost)?,
    };
    let id = room.open_about(topic, options.purpose).await?;
    println!("{id}");
    room.lead_to_close(&id, PATIENCE, |step| println!("  {step}")).await?;
    let ceremony = room.ceremony(&id)?;
    for test in ceremony.tests().iter().filter(|test| test.is_complete()) {
        let what = if ceremony.signed_transaction().is_some() { "signature" } else { "test signature" };
        println!("  {what} by {}: verified", test.subset);
    }
    if let Some(record) = ceremony.record() {
        println!("wallet {} generation {}: {}", record.wallet, record.generation, record.public_key);
    }
    if let Some(signed) = ceremony.signed_transaction() {
        println!("signed transaction: {}", hex::encode(signed));
    }
    if let Some((charter, at)) = ceremony.amended() {
        println!("charter {} in force since {at}", charter.hash());
    }
    for item in ceremony.manifest().inventory() {
        println!("  {item}");
    }
    let head = ceremonies::words::spoken(&ceremony.head().hash);
    let recorded = room.wait_recorded(&id, PATIENCE).await?;
    println!("closed, {recorded}; head {head}");
    Ok(())
}
