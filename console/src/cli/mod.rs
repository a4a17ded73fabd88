//! The subcommands: what the terminal shows, for scripts and for a plain line mode.

mod backup;
mod broadcast;
mod ceremony;
mod in_force;
mod offline;
mod output;
mod paper;
mod sweep;
mod wallet;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use ceremonies::attestation::Measurement;
use ceremonies::book::Book;
use ceremonies::charter::ClusterKind;
use ceremonies::ids::CeremonyId;
use clap::{CommandFactory, Parser, Subcommand};
use futures_util::StreamExt;
use serde_json::json;

pub(crate) use self::ceremony::event_line;
use self::output::Output;
use crate::client::{Client, News};
use crate::config::Cluster;
use crate::health;
use crate::room::now;

/// The operator's console of Custody. Without a command: the terminal.
#[derive(Parser)]
#[command(name = "custody", version)]
pub struct Arguments {
    /// The cluster: charter, bus, credentials, trusted root.
    #[arg(long, global = true, env = "CUSTODY_CLUSTER", value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// The health of the cluster.
    Status {
        /// Stay, and print it again when it changes.
        #[arg(long)]
        watch: bool,
    },
    /// Wallets and their generations.
    #[command(subcommand)]
    Wallet(wallet::WalletCommand),
    /// Ceremonies: open, follow, sign.
    #[command(subcommand)]
    Ceremony(ceremony::CeremonyCommand),
    /// Backups of shares, and what is done with them.
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Build a transaction from a wallet and show it: dust, or everything to another wallet.
    Sweep(sweep::SweepArguments),
    /// Send a ceremony's signed transaction and sign in which block it stands, or why it is not sent.
    Broadcast(broadcast::BroadcastArguments),
    /// Ceremony scripts.
    #[command(subcommand)]
    Script(offline::ScriptCommand),
    /// Evidence bundles.
    #[command(subcommand)]
    Evidence(EvidenceCommand),
    /// Backups on paper.
    #[command(subcommand)]
    Paper(paper::PaperCommand),
    /// Charters.
    #[command(subcommand)]
    Charter(offline::CharterCommand),
    /// Print shell completions.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

#[derive(Subcommand)]
enum EvidenceCommand {
    /// Write a ceremony's evidence bundle.
    Export {
        /// Which ceremony.
        id: CeremonyId,
        /// The file to write; one that exists is not overwritten.
        #[arg(short)]
        output: PathBuf,
    },
    /// Verify a bundle, offline.
    Verify {
        /// The bundle.
        bundle: PathBuf,
        /// The kind of cluster it must be of.
        #[arg(long)]
        kind: Option<ClusterKind>,
        /// The words of the head, as written on paper.
        #[arg(long)]
        head: Option<String>,
        /// The PEM of the attestation root it must be under.
        #[arg(long)]
        root: Option<PathBuf>,
        /// The file of the cluster's first charter, or its hash.
        #[arg(long, value_name = "FILE|HASH")]
        charter: Option<String>,
    },
}

/// What a console works with.
struct Desk {
    cluster: Cluster,
    client: Client,
    book: Book,
}

impl Desk {
    async fn open(path: Option<PathBuf>) -> Result<Self> {
        let cluster = cluster(path)?;
        let client = Client::connect(&cluster).await?;
        let book = client.book(&cluster).await.context("reading the ceremonies from the nodes")?;
        Ok(Self { cluster, client, book })
    }
}

fn cluster(path: Option<PathBuf>) -> Result<Cluster> {
    let path = path.context("which cluster? give --cluster FILE, or set CUSTODY_CLUSTER")?;
    Ok(Cluster::load(&path)?)
}

/// Runs a subcommand, or the terminal where there is none.
///
/// # Errors
/// Whatever was refused or failed.
pub async fn run(arguments: Arguments) -> Result<()> {
    let Arguments { cluster: path, json, command } = arguments;
    let output = Output { json };
    match command {
        None => crate::tui::run(cluster(path)?).await,
        Some(Command::Status { watch }) => status(cluster(path)?, output, watch).await,
        Some(Command::Wallet(command)) => wallet::run(&Desk::open(path).await?, output, command),
        Some(Command::Sweep(arguments)) => sweep::run(path, output, arguments).await,
        Some(Command::Broadcast(arguments)) => broadcast::run(path, output, arguments).await,
        Some(Command::Backup(command)) => backup::run(path, output, command).await,
        Some(Command::Ceremony(command)) => ceremony::run(path, output, command).await,
        Some(Command::Script(command)) => offline::script(output, command),
        Some(Command::Charter(offline::CharterCommand::InForce(command))) => {
            in_force::run(&Desk::open(path).await?, output, command)
        }
        Some(Command::Charter(command)) => offline::charter(output, command),
        Some(Command::Evidence(EvidenceCommand::Export { id, output: file })) => {
            offline::export(&Desk::open(path).await?, output, &id, &file)
        }
        Some(Command::Evidence(EvidenceCommand::Verify { bundle, kind, head, root, charter })) => {
            offline::verify(output, &bundle, kind, head, root, charter)
        }
        Some(Command::Paper(command)) => paper::run(output, command),
        Some(Command::Completions { shell }) => {
            let mut program = Arguments::command();
            clap_complete::generate(shell, &mut program, "custody", &mut std::io::stdout());
            Ok(())
        }
        Some(Command::Man) => Ok(clap_mangen::Man::new(Arguments::command()).render(&mut std::io::stdout())?),
    }
}

/// How long `status` listens for heartbeats, which come every second.
const LISTEN: std::time::Duration = std::time::Duration::from_millis(2_500);

async fn status(cluster: Cluster, output: Output, watch: bool) -> Result<()> {
    let client = Client::connect(&cluster).await?;
    let mut news = Box::pin(client.news().await?);
    let book = client.book(&cluster).await.context("reading the ceremonies from the nodes")?;
    let mut heartbeats = std::collections::BTreeMap::new();
    let nodes = cluster.charter().roster();
    let mut printed = Vec::new();
    loop {
        let until = tokio::time::Instant::now() + LISTEN;
        while let Ok(Some(heard)) = tokio::time::timeout_at(until, news.next()).await {
            if let News::Health(heartbeat) = heard {
                let before = heartbeats.remove(&heartbeat.node);
                let node = heartbeat.node;
                heartbeats.insert(node, health::Heard::new(&cluster.context, *heartbeat, before));
            }
        }
        let all: Vec<_> = nodes
            .iter()
            .map(|node| health::status(&book, *node, heartbeats.get(&u32::from(*node)), now()))
            .collect();
        let charter = book.context().charter();
        let mut text =
            format!("cluster {} ({})\n", charter.cluster(), charter.kind().to_string().to_uppercase());
        for node in &all {
            text += &format!("node {} {} {}", node.node, node.level.mark(), node.summary);
            text += &format!("\n       attestation {}", node.attestation);
            text.push('\n');
            text.extend(node.accused.iter().map(|accused| format!("       {accused}\n")));
            for (index, pcr) in node.image.iter().flat_map(Measurement::registers) {
                text += &format!("       PCR{index} {pcr}\n");
            }
            for share in &node.shares {
                text += &format!("       share {share}\n");
            }
        }
        let seen: Vec<_> = all.iter().map(|node| (node.level, node.attestation.clone())).collect();
        if printed != seen {
            output.print(
                &json!({ "cluster": charter.cluster(), "kind": charter.kind(), "nodes": all }),
                text.trim_end(),
            )?;
            printed = seen;
        }
        if !watch {
            let is_well = |level| matches!(level, health::Level::Good | health::Level::Excluded);
            let bad = all.iter().filter(|node| !is_well(node.level)).count();
            if bad > 0 {
                bail!("{bad} of {} nodes are not healthy", all.len());
            }
            return Ok(());
        }
    }
}
