//! `custody-node`: the agent as a program.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use node::agent::{Agent, Identity};
use node::config::Config;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The node agent of Custody.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The node's configuration.
    #[arg(long)]
    config: PathBuf,
    /// How to log.
    #[arg(long, value_enum, default_value = "text")]
    log: LogFormat,
    /// Check the configuration, charter, root and seed, then end.
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    let config = Config::load(&arguments.config)?;
    if arguments.check {
        Identity::load(&config)?;
        return Ok(());
    }
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
    let agent = Agent::start(config).await.context("starting the agent")?;
    agent.run(stop).await;
    Ok(())
}
