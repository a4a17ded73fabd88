//! `node.toml`: which node this is, and where its charter, bus, store, enclave and KMS are.
//!
//! Unknown keys are refused. Paths are relative to the file's folder. No secret stands in the file itself.

use std::path::{Path, PathBuf};

use ceremonies::ids::NodeIndex;
use serde::Deserialize;
use thiserror::Error;

/// The file as written by people.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This node's index in the charter.
    pub node: NodeIndex,
    /// The charter's file.
    pub charter: PathBuf,
    /// The PEM of the attestation root that the charter names.
    pub root: PathBuf,
    /// The bus.
    pub nats: Nats,
    /// The store's URL: `postgres://…` or `sqlite:FILE`.
    pub store: String,
    /// Where the enclave listens.
    pub enclave: EnclaveAddress,
    /// The way to the KMS.
    pub kms: Kms,
}

/// The bus.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nats {
    /// URLs of its servers.
    pub servers: Vec<String>,
    /// The file with this node's NKey seed.
    pub seed: PathBuf,
}

/// Where the enclave listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum EnclaveAddress {
    /// A vsock port.
    Vsock {
        /// The enclave's context id.
        cid: u32,
        /// The port it listens on.
        port: u32,
    },
    /// A unix socket.
    Unix(PathBuf),
    /// A vsock port of a virtual machine whose monitor has vsock as a unix socket (Firecracker's hybrid
    /// vsock: `CONNECT port`, then the stream).
    HybridVsock {
        /// The monitor's socket.
        socket: PathBuf,
        /// The port it listens on.
        port: u32,
    },
}

/// The way to the KMS: where the enclave's stream ends, and the credentials it signs with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kms {
    /// `host:port`. Nothing else is ever connected to for the enclave.
    pub endpoint: String,
    /// Where AWS credentials come from.
    pub credentials: CredentialSource,
}

/// Where AWS credentials come from, in the JSON of AWS's `credential_process`
/// (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html>).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CredentialSource {
    /// A file that something else keeps fresh; read at every use.
    File(PathBuf),
    /// A program and its arguments, run at every use.
    Process(Vec<String>),
}

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {path} cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not the configuration's TOML.
    #[error("configuration {path} is malformed")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// Reads a configuration and makes its paths absolute.
    ///
    /// # Errors
    /// [`ConfigError`] names the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        for relative in [&mut config.charter, &mut config.root, &mut config.nats.seed] {
            *relative = folder.join(&relative);
        }
        match &mut config.enclave {
            EnclaveAddress::Unix(socket) | EnclaveAddress::HybridVsock { socket, .. } => {
                *socket = folder.join(&socket);
            }
            EnclaveAddress::Vsock { .. } => {}
        }
        if let CredentialSource::File(file) = &mut config.kms.credentials {
            *file = folder.join(&file);
        }
        if let Some(file) = config.store.strip_prefix("sqlite:") {
            config.store = format!("sqlite:{}", folder.join(file).display());
        }
        Ok(config)
    }
}
