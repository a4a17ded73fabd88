//! `cluster.toml`: which cluster this console is for, how it reaches the bus, and who uses it.
//!
//! Unknown keys are refused. Paths are relative to the file's folder. The only secret it names is the
//! console's bus credential; people's keys stay where they are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ceremonies::attestation::{InvalidRoot, TrustRoot};
use ceremonies::ceremony::{Context, ForeignRoot};
use ceremonies::charter::{Charter, CharterError, ClusterKind, MAX_CHARTER, Role};
use ceremonies::ids::PersonName;
use ceremonies::text::{Encoding, utf8};
use serde::Deserialize;
use thiserror::Error;

use crate::file::{FileError, MAX_SETTINGS, read};

/// The file as written by people.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    /// The file of the cluster's first charter; amendments follow from the log.
    pub charter: PathBuf,
    /// The PEM of the attestation root that the charter names.
    pub root: PathBuf,
    /// The bus.
    pub nats: Nats,
    /// Who may sign at this console, with which key.
    #[serde(default)]
    pub me: Vec<Me>,
    /// The folder where custodians at this console have the backups they fetched, under the names in the log.
    pub backups: Option<PathBuf>,
    /// The folder in which this console keeps what it remembers, with a subfolder for each cluster; by default the
    /// person's cache folder.
    pub cache: Option<PathBuf>,
    /// The lab that runs the cluster, if one does.
    pub lab: Option<Lab>,
}

/// A lab, which breaks and mends what it runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lab {
    /// The socket at which its supervisor takes orders.
    pub control: PathBuf,
}

/// The bus.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nats {
    /// URLs of its servers: `nats://` or, where a connection must not be without TLS, `tls://`.
    pub servers: Vec<String>,
    /// The PEM of the authority that signed the servers' certificates, if it is not one that this machine knows.
    pub ca: Option<PathBuf>,
    /// The file with this console's NKey seed.
    pub seed: PathBuf,
}

/// A person at this console.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Me {
    /// Who.
    pub person: PersonName,
    /// In which role.
    pub role: Role,
    /// A private key file, or a public key file if the SSH agent holds its private half.
    pub key: PathBuf,
    /// A custodian's file of age identities.
    pub identity: Option<PathBuf>,
}

/// Why a cluster file cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not the configuration's TOML.
    #[error("cluster file {path} is malformed")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// The file is not UTF-8.
    #[error("cluster file {path} is {encoding}: save it as UTF-8")]
    Encoding {
        /// Which file.
        path: PathBuf,
        /// What it is.
        encoding: Encoding,
    },
    /// It would be repeated on screens and in logs.
    #[error(
        "a URL in `servers` of cluster file {0} has a user or password: leave it out, the broker knows consoles by NKey"
    )]
    Password(PathBuf),
    /// What is not a lab is not ordered about.
    #[error(
        "cluster file {path} has a [lab], and the charter is of a {kind} cluster: take the section out, this program \
         breaks nothing but labs"
    )]
    NotLab {
        /// Which file.
        path: PathBuf,
        /// What the cluster is.
        kind: ClusterKind,
    },
    /// The charter is refused.
    #[error("the charter is refused")]
    Charter(#[from] CharterError),
    /// The root is no certificate.
    #[error("the attestation root is refused")]
    Root(#[from] InvalidRoot),
    /// The root is not the charter's.
    #[error("the attestation root is not the one that the charter names")]
    Foreign(#[from] ForeignRoot),
}

/// A cluster file with charter and root read and checked.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The file's folder, to which paths are relative.
    pub folder: PathBuf,
    /// First charter and root.
    pub context: Context,
    /// The bus, with absolute paths.
    pub nats: Nats,
    /// Who may sign here, with absolute paths.
    pub me: Vec<Me>,
    /// Where custodians here have the backups they fetched.
    pub backups: Option<PathBuf>,
    /// Where this console keeps what it remembers, unless in the person's cache folder.
    pub cache: Option<PathBuf>,
    /// The socket of the lab that runs it; none where the charter's kind is not `lab`.
    pub lab: Option<PathBuf>,
}

impl Cluster {
    /// Reads a cluster file and what it names.
    ///
    /// # Errors
    /// [`ConfigError`] names the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes = read("cluster file", path, MAX_SETTINGS)?;
        let text =
            utf8(&bytes).map_err(|encoding| ConfigError::Encoding { path: path.to_owned(), encoding })?;
        let file: ClusterFile = toml::from_str(text)
            .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        if file.nats.servers.iter().any(|server| server.contains('@')) {
            return Err(ConfigError::Password(path.to_owned()));
        }
        let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
        let charter = Charter::parse(&read("charter", &folder.join(file.charter), MAX_CHARTER)?)?;
        if file.lab.is_some() && charter.kind() != ClusterKind::Lab {
            return Err(ConfigError::NotLab { path: path.to_owned(), kind: charter.kind() });
        }
        let root = TrustRoot::from_pem(&read("attestation root", &folder.join(file.root), MAX_SETTINGS)?)?;
        let absolute = |me: Me| Me {
            key: folder.join(&me.key),
            identity: me.identity.map(|identity| folder.join(identity)),
            ..me
        };
        let me = file.me.into_iter().map(absolute).collect();
        Ok(Self {
            context: Context::new(Arc::new(charter), Arc::new(root))?,
            nats: Nats {
                seed: folder.join(&file.nats.seed),
                ca: file.nats.ca.map(|ca| folder.join(ca)),
                servers: file.nats.servers,
            },
            me,
            backups: file.backups.map(|backups| folder.join(backups)),
            cache: file.cache.map(|cache| folder.join(cache)),
            lab: file.lab.map(|lab| folder.join(lab.control)),
            folder,
        })
    }

    /// The cluster's first charter.
    #[must_use]
    pub fn charter(&self) -> &Charter {
        self.context.charter()
    }
}
