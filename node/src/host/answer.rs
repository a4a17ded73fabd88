//! What `nitro-cli` prints (`src/common/json_output.rs` of aws-nitro-enclaves-cli), as far as it matters here.
//!
//! Fields that newer versions add are ignored; a field that is read must be present and have its type.

use ceremonies::attestation::{Measurement, Pcr};
use serde::Deserialize;

use super::HostError;

/// `describe-eif`.
#[derive(Debug, Deserialize)]
pub(super) struct Image {
    #[serde(rename = "Measurements")]
    pub(super) measured: Measured,
}

/// The registers of an image. `nitro-cli` computes them from the file, so even an enclave in debug mode shows
/// them.
#[derive(Debug, Deserialize)]
pub(super) struct Measured {
    #[serde(rename = "PCR0")]
    pcr0: Pcr,
    #[serde(rename = "PCR1")]
    pcr1: Pcr,
    #[serde(rename = "PCR2")]
    pcr2: Pcr,
    /// Only signed images have it.
    #[serde(rename = "PCR8", default)]
    pcr8: Option<Pcr>,
}

/// One enclave of `describe-enclaves`.
#[derive(Debug, Deserialize)]
pub(super) struct Described {
    #[serde(rename = "EnclaveID")]
    pub(super) id: String,
    #[serde(rename = "EnclaveCID")]
    pub(super) cid: u64,
    #[serde(rename = "State")]
    pub(super) state: State,
    #[serde(rename = "Flags")]
    pub(super) flags: Flags,
    #[serde(rename = "Measurements")]
    pub(super) measured: Measured,
}

/// An enclave's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum State {
    Empty,
    Running,
    Terminating,
}

/// How an enclave was started. A flag that this agent does not know may not be harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Flags {
    None,
    DebugMode,
}

/// `run-enclave`.
#[derive(Debug, Deserialize)]
pub(super) struct Started {
    #[serde(rename = "EnclaveName")]
    pub(super) name: String,
    #[serde(rename = "EnclaveID")]
    pub(super) id: String,
}

/// `terminate-enclave`.
#[derive(Debug, Deserialize)]
pub(super) struct Terminated {
    #[serde(rename = "EnclaveID")]
    pub(super) id: String,
    #[serde(rename = "Terminated")]
    pub(super) terminated: bool,
}

impl Measured {
    /// The entry of `allowed` that these registers match; otherwise the first register that differs from the
    /// nearest entry.
    pub(super) fn among(&self, what: &str, allowed: &[Measurement]) -> Result<Measurement, HostError> {
        let mut nearest: Option<(usize, HostError)> = None;
        for measurement in allowed {
            let differing: Vec<(u8, Pcr)> =
                measurement.registers().filter(|(pcr, value)| self.register(*pcr) != Some(*value)).collect();
            let Some((pcr, allowed)) = differing.first().copied() else {
                return Ok(*measurement);
            };
            if nearest.as_ref().is_none_or(|(fewest, _)| differing.len() < *fewest) {
                let what = what.to_owned();
                let error = match self.register(pcr) {
                    Some(found) => HostError::Measurement { what, pcr, found, allowed },
                    None => HostError::Unsigned { what, allowed },
                };
                nearest = Some((differing.len(), error));
            }
        }
        Err(nearest.map_or(HostError::NothingAllowed, |(_, error)| error))
    }

    fn register(&self, pcr: u8) -> Option<Pcr> {
        match pcr {
            0 => Some(self.pcr0),
            1 => Some(self.pcr1),
            2 => Some(self.pcr2),
            8 => self.pcr8,
            _ => None,
        }
    }
}
