//! `node.toml`: which node this is, where its charter, bus, store, enclave, KMS and vault are, and who runs the enclave.
//!
//! Unknown keys are refused. Paths are relative to the file's folder. The file itself holds no secret.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ceremonies::ids::NodeIndex;
use serde::Deserialize;
use thiserror::Error;

use crate::file::{MAX_SETTINGS, read};

/// Longest name of an enclave, with room for the number that `nitro-cli` adds to a name in use.
const MAX_NAME: usize = 64;
/// The lowest context id that an enclave may have; those below are the hypervisor's and the hosts'.
const FIRST_CID: u32 = 4;

/// How long a finished ceremony stays in memory unless the file says otherwise, in seconds: as long as its heads are
/// repeated.
const SHELVE_AFTER_S: u32 = 60;

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
    /// The store: the URL of a PostgreSQL server (`postgres://…`), or `sqlite:` and the path of a file, literally.
    pub store: String,
    /// Where the enclave listens.
    pub enclave: EnclaveAddress,
    /// The way to the KMS.
    pub kms: Kms,
    /// What this host runs the enclave with; if left out, something else runs it.
    pub host: Option<Host>,
    /// Where this node keeps its backups; if left out, it keeps none.
    pub vault: Option<Vault>,
    /// How long a finished ceremony stays in memory after its last change, in seconds; its log stays in the store for
    /// ever.
    #[serde(default = "shelve_after_s")]
    pub shelve_after_s: u32,
    /// Where Prometheus fetches this node's metrics; if left out, nowhere.
    pub metrics: Option<Metrics>,
}

/// Where this node serves its metrics.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// An address of this host alone, such as `127.0.0.1:9464`.
    pub listen: Loopback,
}

/// An address that only this host reaches: metrics are served without asking who fetches them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "SocketAddr")]
pub struct Loopback(SocketAddr);

impl Loopback {
    /// The address.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        self.0
    }
}

impl TryFrom<SocketAddr> for Loopback {
    type Error = NotLoopback;
    fn try_from(address: SocketAddr) -> Result<Self, NotLoopback> {
        if address.ip().is_loopback() { Ok(Self(address)) } else { Err(NotLoopback(address)) }
    }
}

/// An address that others reach.
#[derive(Debug, Error)]
#[error("{0} can be reached by other hosts: use an address such as 127.0.0.1:9464")]
pub struct NotLoopback(SocketAddr);

fn shelve_after_s() -> u32 {
    SHELVE_AFTER_S
}

/// What this host runs the enclave with.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Host {
    /// AWS's `nitro-cli`.
    Nitro(Nitro),
}

/// An enclave as `nitro-cli run-enclave` takes it. Debug mode cannot be requested: in it, the host can read the
/// enclave's memory.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Nitro {
    /// The image (EIF).
    pub image: PathBuf,
    /// Memory in MiB, out of what the allocator set aside.
    pub memory_mib: u32,
    /// How many CPUs, out of those that the allocator set aside.
    pub cpus: u32,
    /// The enclave's context id, the one that `[enclave]` connects to.
    pub cid: u32,
    /// The name that tells this enclave from others on the host.
    pub name: EnclaveName,
}

/// An enclave's name: letters, digits, `-` and `_`, starting with a letter or digit, so that it is never taken for an
/// option.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct EnclaveName(String);

impl EnclaveName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EnclaveName {
    type Error = InvalidEnclaveName;
    fn try_from(name: String) -> Result<Self, InvalidEnclaveName> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins && name.len() <= MAX_NAME && name.chars().all(plain) {
            Ok(Self(name))
        } else {
            Err(InvalidEnclaveName(name.chars().take(2 * MAX_NAME).collect()))
        }
    }
}

/// Text that names no enclave.
#[derive(Debug, Error)]
#[error(
    "`{0}` is not an enclave name: use up to {MAX_NAME} letters, digits, `-` and `_`, starting with a letter or digit"
)]
pub struct InvalidEnclaveName(String);

/// The bus.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nats {
    /// URLs of its servers: `nats://` or, where a connection must not be without TLS, `tls://`.
    pub servers: Vec<String>,
    /// The PEM of the authority that signed the servers' certificates, if it is not one that this machine knows.
    pub ca: Option<PathBuf>,
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

/// The route to the KMS: where the enclave's stream ends, and the credentials that it signs with.
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

/// Where a node keeps its backups.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Vault {
    /// A folder on this host.
    Directory(Directory),
    /// An S3 bucket with versions and object locks.
    S3(Bucket),
}

/// A folder for backups.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// The folder, which must exist.
    pub path: PathBuf,
}

/// A bucket for backups.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Its name.
    pub bucket: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The URL of the provider; if left out, AWS in that region.
    pub endpoint: Option<String>,
    /// The source of credentials that may write and do nothing else.
    pub credentials: CredentialSource,
}

impl Vault {
    fn resolve(&mut self, folder: &Path) {
        match self {
            Self::Directory(directory) => directory.path = folder.join(&directory.path),
            Self::S3(bucket) => bucket.credentials.resolve(folder),
        }
    }
}

impl CredentialSource {
    fn resolve(&mut self, folder: &Path) {
        match self {
            Self::File(file) => *file = folder.join(&file),
            Self::Process(_) => {}
        }
    }
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
    /// It would be repeated in logs.
    #[error("a URL in `servers` of {0} has a user or password: leave it out, the broker knows nodes by NKey")]
    Password(PathBuf),
    /// The enclave would get a context id that is reserved for others.
    #[error(
        "configuration {path}: host.nitro.cid is {cid}, which no enclave can have; use {FIRST_CID} or more"
    )]
    ReservedCid {
        /// Which file.
        path: PathBuf,
        /// The context id.
        cid: u32,
    },
    /// The agent would look for the enclave where it is not.
    #[error(
        "configuration {path}: host.nitro runs the enclave with cid {cid}, but [enclave] points elsewhere; write \
         `vsock = {{ cid = {cid}, port = 5005 }}` there"
    )]
    Elsewhere {
        /// Which file.
        path: PathBuf,
        /// The context id.
        cid: u32,
    },
}

impl Config {
    /// Reads a configuration and makes its paths absolute.
    ///
    /// # Errors
    /// [`ConfigError`] names the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes =
            read(path, MAX_SETTINGS).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config: Self = toml::from_str(&String::from_utf8_lossy(&bytes))
            .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        if config.nats.servers.iter().any(|server| server.contains('@')) {
            return Err(ConfigError::Password(path.to_owned()));
        }
        config.nats.ca = config.nats.ca.map(|ca| folder.join(ca));
        for relative in [&mut config.charter, &mut config.root, &mut config.nats.seed] {
            *relative = folder.join(&relative);
        }
        match &mut config.enclave {
            EnclaveAddress::Unix(socket) | EnclaveAddress::HybridVsock { socket, .. } => {
                *socket = folder.join(&socket);
            }
            EnclaveAddress::Vsock { .. } => {}
        }
        config.kms.credentials.resolve(folder);
        if let Some(vault) = &mut config.vault {
            vault.resolve(folder);
        }
        if let Some(file) = config.store.strip_prefix("sqlite:") {
            // Every character of a path belongs to the path: it becomes a URL only in the form that SQLite takes.
            config.store = format!("sqlite:{}", folder.join(file.trim_start_matches("//")).display());
        }
        if let Some(Host::Nitro(nitro)) = &mut config.host {
            nitro.image = folder.join(&nitro.image);
            nitro.reached_by(&config.enclave, path)?;
        }
        Ok(config)
    }
}

impl Nitro {
    fn reached_by(&self, address: &EnclaveAddress, path: &Path) -> Result<(), ConfigError> {
        if self.cid < FIRST_CID || self.cid == u32::MAX {
            return Err(ConfigError::ReservedCid { path: path.to_owned(), cid: self.cid });
        }
        match address {
            EnclaveAddress::Vsock { cid, .. } if *cid == self.cid => Ok(()),
            EnclaveAddress::Vsock { .. } | EnclaveAddress::Unix(_) | EnclaveAddress::HybridVsock { .. } => {
                Err(ConfigError::Elsewhere { path: path.to_owned(), cid: self.cid })
            }
        }
    }
}
