//! `custody-node`: the agent as a program.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ceremonies::charter::Charter;
use ceremonies::evidence::MAX_BUNDLE;
use ceremonies::text::chain;
use clap::{Parser, Subcommand, ValueEnum};
use node::config::Config;
use node::file::read;
use node::host::{self, EnclaveHost as _, NitroHost, Pace, Running};
use node::shell::{self, Agent};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::error;

/// The node agent of Custody.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The node's configuration.
    #[arg(long)]
    config: PathBuf,
    /// The log format.
    #[arg(long, value_enum, default_value = "text")]
    log: LogFormat,
    /// Check the configuration, charter, root, seed, and the image of `[host.nitro]`, then exit.
    #[arg(long)]
    check: bool,
    /// Without a command, the agent runs and, with `[host.nitro]`, keeps its enclave running.
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Manage the enclave of `[host.nitro]` on this host.
    #[command(subcommand)]
    Enclave(EnclaveCommand),
    /// Read the ceremonies of evidence bundles into this node's store, on a fresh machine, while the agent is not
    /// running.
    Take {
        /// The bundles.
        #[arg(required = true)]
        bundles: Vec<PathBuf>,
    },
}

#[derive(Clone, Copy, Subcommand)]
enum EnclaveCommand {
    /// Start it, if the charter allows its image. A running enclave is left alone.
    Start,
    /// Stop it, which destroys its keys. A running agent starts it again.
    Stop,
    /// Stop it and start it again, with new keys.
    Restart,
    /// Show whether it is running and with which id; fails if it is not.
    Status,
    /// Show its console. Only an enclave in debug mode has one, so this says why there is none.
    Console,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// How long pending file reads and writes may take after the agent has stopped.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A task that panicked would leave a node that looks alive and does less than its duties: the whole program ends, and
/// whoever supervises it starts it again.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

fn main() -> anyhow::Result<()> {
    end_on_panic();
    node::privacy::keep_memory_private().context("keeping this process's memory private")?;
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    let done = runtime.block_on(run(arguments));
    // A helper or a file that never answers must not hold the program up.
    runtime.shutdown_timeout(LAST_WORDS);
    done
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    // What the bus says goes through this program's own log, which bounds it: a broker may say anything, and much of it.
    let quiet = "async_nats=error".parse().context("the log's filter")?;
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy()
        .add_directive(quiet);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    let config = Config::load(&arguments.config)?;
    let stop = terminated()?;
    let waits = arguments.command.is_none() && !arguments.check;
    let Some(charter) = charter(&config, waits, &stop).await? else { return Ok(()) };
    let host = host::configured(&config, &charter);
    match arguments.command {
        Some(Command::Enclave(command)) => {
            let host = host.context("the configuration has no [host.nitro]: this host runs no enclave")?;
            return order(&host, command).await;
        }
        Some(Command::Take { bundles }) => {
            for bundle in bundles {
                let bytes =
                    read(&bundle, MAX_BUNDLE).with_context(|| format!("reading {}", bundle.display()))?;
                let known = shell::take_bundle(&config, &bytes).await?;
                println!("{}: read; {known} ceremonies are known here", bundle.display());
            }
            return Ok(());
        }
        None => {}
    }
    if arguments.check {
        shell::check(&config).await?;
        if let Some(host) = host {
            host.examine_image().await?;
        }
        return Ok(());
    }
    let agent = Agent::start(config).await.context("starting the agent")?;
    // The supervisor ends with this program; the enclave does not.
    if let Some(host) = host {
        tokio::spawn(async move { host::supervise(&host, Pace::default()).await });
    }
    agent.run(stop).await;
    Ok(())
}

/// Cancelled when the program is told to end.
fn terminated() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        stopped.cancel();
    });
    Ok(stop)
}

/// The charter in force according to the store. An agent `waits` for a store that cannot be used, and reports that in
/// the meantime; none if it was told to stop first.
async fn charter(
    config: &Config,
    waits: bool,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Arc<Charter>>> {
    loop {
        match shell::charter_in_force(config).await {
            Ok(charter) => return Ok(Some(charter)),
            Err(why) if waits && why.is_about_the_store() => {
                error!(why = %chain(&why), "the agent cannot start: trying again");
                tokio::select! {
                    () = stop.cancelled() => return Ok(None),
                    () = shell::complain(config, &why) => {}
                }
            }
            Err(why) => return Err(why.into()),
        }
    }
}

async fn order(host: &NitroHost, command: EnclaveCommand) -> anyhow::Result<()> {
    match command {
        EnclaveCommand::Start => say(&host.start().await?),
        EnclaveCommand::Restart => say(&host.restart().await?),
        EnclaveCommand::Status => {
            let running = host.running().await?;
            say(&running.with_context(|| format!("no enclave called {} is running", host.name()))?);
        }
        EnclaveCommand::Stop => match host.terminate().await? {
            Some(id) => println!("enclave {id} has stopped"),
            None => println!("no enclave called {} is running", host.name()),
        },
        EnclaveCommand::Console => host.console().await?,
    }
    Ok(())
}

fn say(running: &Running) {
    println!("enclave {} is running with cid {}", running.id, running.cid);
    for (pcr, value) in running.measurement.registers() {
        println!("PCR{pcr} {value}");
    }
}
