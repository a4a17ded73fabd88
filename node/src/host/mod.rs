//! What runs the enclave on this machine: starting, watching and stopping it.
//!
//! The host is not trusted, so nothing here protects a share: it only refuses early, and with a clearer message, what
//! the other nodes and the KMS would refuse anyway. An enclave holds its keys in memory only, so this module must never
//! stop one because the agent stops, and never one that it did not start unless a person asks.

mod answer;
mod nitro;
mod supervise;

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use async_trait::async_trait;
use ceremonies::attestation::{Measurement, Pcr};
use ceremonies::charter::Charter;
use thiserror::Error;

pub use self::nitro::NitroHost;
pub use self::supervise::{Pace, supervise};
use crate::config::{Config, Host};

/// A running enclave that the charter allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The host's id for it; a restarted enclave has another.
    pub id: String,
    /// Its context id.
    pub cid: u32,
    /// The image that it runs.
    pub measurement: Measurement,
}

/// Something that runs this node's enclave.
#[async_trait]
pub trait EnclaveHost: Send + Sync {
    /// The enclave that is running now.
    ///
    /// # Errors
    /// Also for an enclave of this name that the charter does not allow.
    async fn running(&self) -> Result<Option<Running>, HostError>;

    /// Starts the enclave; a running one is left alone.
    async fn start(&self) -> Result<Running, HostError>;

    /// Stops the enclave, allowed or not. Returns its id, if there was one.
    async fn terminate(&self) -> Result<Option<String>, HostError>;

    /// Shows the enclave's console on standard output until it ends.
    async fn console(&self) -> Result<(), HostError>;

    /// Stops the enclave and starts it again.
    async fn restart(&self) -> Result<Running, HostError> {
        self.terminate().await?;
        self.start().await
    }
}

/// What runs the enclave according to the configuration, with the charter's measurements.
#[must_use]
pub fn configured(config: &Config, charter: &Charter) -> Option<NitroHost> {
    let Host::Nitro(nitro) = config.host.as_ref()?;
    Some(NitroHost::new("nitro-cli".into(), nitro.clone(), charter.attestation().measurements.clone()))
}

/// Why an enclave cannot be run, or its state is unknown.
#[derive(Debug, Error)]
pub enum HostError {
    /// The host's tool is not there.
    #[error("`{tool}` cannot be run; install aws-nitro-enclaves-cli, or correct PATH")]
    Tool {
        /// Which program.
        tool: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The host's tool hangs.
    #[error("nitro-cli {verb} did not finish within {} s; see /var/log/nitro_enclaves", .patience.as_secs())]
    Silent {
        /// What it was asked.
        verb: &'static str,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The host's tool refused.
    #[error("nitro-cli {verb} failed with {status}: {said}")]
    Failed {
        /// What it was asked.
        verb: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// Its own words.
        said: String,
    },
    /// The host's tool gave an answer that it does not document.
    #[error("nitro-cli {verb} gave an answer of unknown form; is it a different version?")]
    Answer {
        /// What it was asked.
        verb: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// An image that the charter does not allow.
    #[error(
        "PCR{pcr} of {what} is {found}, but the nearest measurement of the charter has {allowed}: use an image that \
         the charter allows, or amend the charter"
    )]
    Measurement {
        /// The image's file or the enclave's id.
        what: String,
        /// The first register that differs.
        pcr: u8,
        /// What it is.
        found: Pcr,
        /// What it should be.
        allowed: Pcr,
    },
    /// An image without the signature that the charter asks for.
    #[error("{what} has no PCR8: the charter allows only an image that is signed (PCR8 {allowed})")]
    Unsigned {
        /// The image's file or the enclave's id.
        what: String,
        /// The certificate's register.
        allowed: Pcr,
    },
    /// The charter has no measurements.
    #[error("the charter allows no image")]
    NothingAllowed,
    /// An enclave whose memory its host reads.
    #[error(
        "enclave {id} runs in debug mode, which no node accepts; stop it with `custody-node --config … enclave stop`, \
         then `enclave start`"
    )]
    Debug {
        /// Which enclave.
        id: String,
    },
    /// An enclave where the agent does not look for it.
    #[error("enclave {id} has cid {found} instead of {expected}; stop it with `enclave stop`, then start it")]
    OtherCid {
        /// Which enclave.
        id: String,
        /// Its context id.
        found: u64,
        /// The configuration's.
        expected: u32,
    },
    /// An enclave that is neither running nor gone.
    #[error("enclave {id} is being stopped; wait until `enclave status` says that none is running")]
    Ending {
        /// Which enclave.
        id: String,
    },
    /// Two enclaves cannot be one node's.
    #[error("{count} enclaves are called {name}; stop all but one with `nitro-cli terminate-enclave`")]
    Several {
        /// The name.
        name: String,
        /// How many have it.
        count: usize,
    },
    /// Somebody else started an enclave of the name at the same time.
    #[error(
        "nitro-cli called the new enclave {got}, because another {name} was running; the new one has been stopped"
    )]
    NameTaken {
        /// The configuration's name.
        name: String,
        /// The name it got.
        got: String,
    },
    /// The enclave did not survive its start.
    #[error(
        "enclave {id} ended as soon as it was started; see /var/log/nitro_enclaves, and check the memory given to it"
    )]
    Vanished {
        /// Which enclave.
        id: String,
    },
    /// The enclave is not gone.
    #[error("nitro-cli did not confirm that enclave {id} has stopped; check with `enclave status`")]
    NotEnded {
        /// Which enclave.
        id: String,
    },
    /// A production enclave has no console.
    #[error(
        "an enclave has a console only in debug mode, in which this program starts none: a charter refuses its zero \
         PCRs. Read the agent's log and the host's /var/log/nitro_enclaves instead. nitro-cli said: {said}"
    )]
    NoConsole {
        /// Its own words.
        said: String,
    },
    /// There is nothing to show.
    #[error("no enclave called {name} is running")]
    NotRunning {
        /// The configuration's name.
        name: String,
    },
}
