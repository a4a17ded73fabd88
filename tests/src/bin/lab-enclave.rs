//! The lab's enclave: the enclave library as production runs it, wired to the lab's security module and
//! trust roots. It exists so that `custody-enclave` needs no way to be given others.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use ceremonies::attestation::TrustRoot;
use clap::Parser;
use enclave::listen::{self, Endpoint};
use enclave::service::Enclave;
use lab::nsm::LabModule;
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

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let root = TrustRoot::from_pem(&std::fs::read(&arguments.attestation_root)?)
        .context("reading the attestation root")?;
    let mut tls_roots = RootCertStore::empty();
    tls_roots
        .add(CertificateDer::from_pem_file(&arguments.kms_root).context("reading the KMS's TLS root")?)
        .context("taking the KMS's TLS root")?;
    let module = Arc::new(LabModule::new(arguments.module));
    let enclave = Enclave::boot(module, root, tls_roots).await.context("booting")?;
    listen::serve(enclave, Endpoint::Unix(arguments.listen)).await.context("serving the agent")
}
