//! The lab's enclave: the enclave library as production runs it, wired to the lab's security module and
//! trust roots. It exists so that `custody-enclave` needs no way to be given others.
//!
//! As a process, it is told where everything is; as the first process of a virtual machine, it knows.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use ceremonies::attestation::TrustRoot;
use clap::Parser;
use enclave::guest;
use enclave::listen::{self, Endpoint};
use enclave::shell::Enclave;
use lab_enclave::{ENCLAVE_PORT, LabModule};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

#[derive(Parser)]
struct Arguments {
    /// The unix socket to listen on for the agent.
    #[arg(long)]
    listen: PathBuf,
    /// The unix socket of the lab's security module.
    #[arg(long)]
    module: PathBuf,
    /// The PEM of the lab's attestation root.
    #[arg(long)]
    attestation_root: PathBuf,
    /// The PEM of the lab KMS's TLS root.
    #[arg(long)]
    kms_root: PathBuf,
}

/// What an enclave of the lab is wired to.
struct Wiring {
    endpoint: Endpoint,
    module: LabModule,
    attestation_root: PathBuf,
    kms_root: PathBuf,
}

impl Wiring {
    fn of_a_process(arguments: Arguments) -> Self {
        Self {
            endpoint: Endpoint::Unix(arguments.listen),
            module: LabModule::Unix(arguments.module),
            attestation_root: arguments.attestation_root,
            kms_root: arguments.kms_root,
        }
    }

    /// The roots are part of the image, and measured with it.
    fn of_a_machine() -> Self {
        Self {
            endpoint: Endpoint::Vsock(ENCLAVE_PORT),
            module: LabModule::Host,
            attestation_root: "/roots/attestation.pem".into(),
            kms_root: "/roots/kms.pem".into(),
        }
    }
}

fn main() -> Result<()> {
    guest::keep_memory_private().context("keeping this process's memory private")?;
    let wiring = if guest::is_first_process() {
        guest::prepare().context("preparing the virtual machine")?;
        Wiring::of_a_machine()
    } else {
        Wiring::of_a_process(Arguments::parse())
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    tokio::runtime::Runtime::new()?.block_on(run(wiring))
}

async fn run(wiring: Wiring) -> Result<()> {
    let root = TrustRoot::from_pem(&std::fs::read(&wiring.attestation_root)?)
        .context("reading the attestation root")?;
    let mut tls_roots = RootCertStore::empty();
    tls_roots
        .add(CertificateDer::from_pem_file(&wiring.kms_root).context("reading the KMS's TLS root")?)
        .context("taking the KMS's TLS root")?;
    let enclave = Enclave::boot(Arc::new(wiring.module), root, tls_roots).await.context("booting")?;
    listen::serve(enclave, wiring.endpoint).await.context("serving the agent")
}
