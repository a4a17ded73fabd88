//! `custody-enclave`: the signer as it runs in a Nitro enclave, with the AWS trust root and the public web's
//! certificate authorities, and with no way to be given others.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use ceremonies::attestation::TrustRoot;
use clap::{Args, Parser, ValueEnum};
use enclave::attest::NitroModule;
use enclave::guest;
use enclave::kms::web_roots;
use enclave::listen::{self, Endpoint};
use enclave::shell::Enclave;
use tokio_vsock::{VsockAddr, VsockStream};

/// The enclave signer of Custody.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    endpoint: EndpointArguments,
    /// The log format.
    #[arg(long, value_enum, default_value = "text")]
    log: LogFormat,
    /// Check the arguments and the security module, then exit.
    #[arg(long)]
    check: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct EndpointArguments {
    /// Listen on this vsock port.
    #[arg(long)]
    port: Option<u32>,
    /// Listen on this unix socket.
    #[arg(long)]
    unix: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Where an agent finds the enclave of an image.
const IMAGE_PORT: u32 = 5005;
/// The context and port where the Nitro hypervisor waits for an enclave's heartbeat.
const HYPERVISOR: (u32, u32) = (3, 9000);

fn main() -> anyhow::Result<()> {
    guest::keep_memory_private().context("keeping this process's memory private")?;
    let arguments = if guest::is_first_process() {
        guest::prepare().context("preparing the enclave")?;
        // The kernel hands its own command line on to the first process.
        Arguments {
            endpoint: EndpointArguments { port: Some(IMAGE_PORT), unix: None },
            log: LogFormat::Json,
            check: false,
        }
    } else {
        Arguments::parse()
    };
    tokio::runtime::Runtime::new()?.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    let endpoint = match (arguments.endpoint.port, arguments.endpoint.unix) {
        (Some(port), _) => Endpoint::Vsock(port),
        (None, Some(path)) => Endpoint::Unix(path),
        (None, None) => anyhow::bail!("give --port or --unix"),
    };
    let module = NitroModule::open().context("opening the security module")?;
    let enclave = Enclave::boot(Arc::new(module), TrustRoot::aws_nitro_g1(), web_roots())
        .await
        .context("booting the enclave")?;
    if arguments.check {
        return Ok(());
    }
    if guest::is_first_process() {
        let hypervisor = VsockStream::connect(VsockAddr::new(HYPERVISOR.0, HYPERVISOR.1))
            .await
            .context("reaching the hypervisor")?;
        guest::report_up(hypervisor).await.context("reporting to the hypervisor")?;
    }
    listen::serve(enclave, endpoint).await.context("serving the agent")
}
