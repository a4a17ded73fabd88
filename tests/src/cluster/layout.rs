//! Where the files of a cluster are. Paths only: nothing here may read or write one.

use std::path::{Path, PathBuf};

use ceremonies::ids::NodeIndex;

/// Where the files of a cluster are.
#[derive(Debug, Clone)]
pub struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// The layout of a cluster in this folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The folder itself.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The charter.
    #[must_use]
    pub fn charter(&self) -> PathBuf {
        self.folder.join("charter.toml")
    }

    /// The console's configuration.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.folder.join("cluster.toml")
    }

    /// The configuration of a Prometheus that watches the cluster.
    #[must_use]
    pub fn prometheus(&self) -> PathBuf {
        self.folder.join("prometheus.yml")
    }

    /// The attestation root.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.join("root.pem")
    }

    /// The people's keys.
    #[must_use]
    pub fn people(&self) -> PathBuf {
        self.folder.join("people")
    }

    /// A node's folder.
    #[must_use]
    pub fn node(&self, node: NodeIndex) -> PathBuf {
        self.folder.join(format!("node-{node}"))
    }

    /// The enclave program that is measured and launched, for every node a copy of its own.
    #[must_use]
    pub fn enclave_program(&self, node: NodeIndex) -> PathBuf {
        self.node(node).join("lab-enclave")
    }

    /// The image that is measured and run where enclaves are virtual machines, for every node a copy.
    #[must_use]
    pub fn enclave_image(&self, node: NodeIndex) -> PathBuf {
        self.node(node).join("enclave.eif")
    }

    /// The image as built; its builder writes the measurement next to it, with the extension `.toml`.
    pub(super) fn image(&self) -> PathBuf {
        self.folder.join("enclave.eif")
    }

    /// The supervisor's socket.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    pub(super) fn settings(&self) -> PathBuf {
        self.folder.join("lab.toml")
    }

    pub(super) fn kms(&self) -> PathBuf {
        self.folder.join("kms")
    }

    pub(crate) fn key_policy(&self) -> PathBuf {
        self.kms().join("policy.json")
    }

    pub(crate) fn nsm(&self) -> PathBuf {
        self.folder.join("nsm")
    }

    /// The vault that every node writes its backups to.
    #[must_use]
    pub fn backups(&self) -> PathBuf {
        self.folder.join("backups")
    }

    /// The broker's configuration and log.
    #[must_use]
    pub fn nats(&self) -> PathBuf {
        self.folder.join("nats")
    }

    /// The seed of the NKey that makes the stream.
    #[must_use]
    pub fn keeper(&self) -> PathBuf {
        self.nats().join("keeper.seed")
    }

    pub(super) fn streams(&self) -> PathBuf {
        self.nats().join("streams")
    }

    /// Tools fetched for this cluster.
    #[must_use]
    pub fn tools(&self) -> PathBuf {
        self.folder.join("tools")
    }
}
