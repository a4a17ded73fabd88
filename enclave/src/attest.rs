//! The security module, seen from inside: it vouches for the image that this program runs in.
//!
//! Production has one driver, the Nitro Security Module behind `/dev/nsm`. This module must never hold a key that signs
//! documents: whoever could sign one could pose as any enclave.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use async_trait::async_trait;
use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use aws_nitro_enclaves_nsm_api::driver;
use thiserror::Error;

const NSM: &str = "/dev/nsm";
/// How many bytes of the security module's randomness the kernel is given at boot.
const SEED: usize = 512;

/// Why there is no document.
#[derive(Debug, Error)]
pub enum AttestError {
    /// There is no security module.
    #[error("/dev/nsm cannot be opened: this program can attest only inside a Nitro enclave")]
    NoModule(#[source] std::io::Error),
    /// The security module answered with an error.
    #[error("the security module refused: {0}")]
    Refused(String),
    /// The kernel did not accept the seed.
    #[error("the kernel's random generator cannot be seeded")]
    Seed(#[source] std::io::Error),
    /// The module cannot be reached.
    #[error("the security module cannot be reached")]
    Unreachable(#[source] std::io::Error),
}

/// Vouches for this enclave.
#[async_trait]
pub trait SecurityModule: Send + Sync {
    /// An attestation document with this nonce, user data and public key (at most 512, 512 and 1024 bytes).
    ///
    /// # Errors
    /// [`AttestError`] when the module refuses or cannot be reached.
    async fn attest(&self, nonce: &[u8], user_data: &[u8], public_key: &[u8])
    -> Result<Vec<u8>, AttestError>;
}

/// The Nitro Security Module.
pub struct NitroModule(Arc<Device>);

struct Device(File);

impl Device {
    fn ask(&self, request: Request) -> Result<Response, AttestError> {
        let response = driver::nsm_process_request(self.0.as_raw_fd(), request);
        if let Response::Error(code) = response {
            return Err(AttestError::Refused(format!("{code:?}")));
        }
        Ok(response)
    }

    /// Mixes the module's randomness into the kernel's generator. A write to `/dev/urandom` mixes without
    /// claiming entropy, which is right here: it can only add, and the kernel's own count (from the CPU,
    /// `random.trust_cpu=on`) is what makes `getrandom` ready. Readers see it from the generator's next
    /// reseed on (at most half the uptime later while that is under two minutes, then within a minute).
    fn seed_kernel(&self) -> Result<(), AttestError> {
        let mut kernel = OpenOptions::new().write(true).open("/dev/urandom").map_err(AttestError::Seed)?;
        let mut seeded = 0;
        while seeded < SEED {
            let Response::GetRandom { random } = self.ask(Request::GetRandom)? else {
                return Err(AttestError::Refused("an answer of the wrong kind".to_owned()));
            };
            if random.is_empty() {
                return Err(AttestError::Refused("no randomness".to_owned()));
            }
            kernel.write_all(&random).map_err(AttestError::Seed)?;
            seeded += random.len();
        }
        Ok(())
    }
}

impl NitroModule {
    /// Opens the module and seeds the kernel's random generator from it.
    ///
    /// # Errors
    /// [`AttestError`]; without the module, nothing else may start.
    pub fn open() -> Result<Self, AttestError> {
        let device = OpenOptions::new().read(true).write(true).open(NSM).map_err(AttestError::NoModule)?;
        let device = Device(device);
        device.seed_kernel()?;
        Ok(Self(Arc::new(device)))
    }
}

#[async_trait]
impl SecurityModule for NitroModule {
    async fn attest(
        &self,
        nonce: &[u8],
        user_data: &[u8],
        public_key: &[u8],
    ) -> Result<Vec<u8>, AttestError> {
        let request = Request::Attestation {
            nonce: Some(nonce.to_vec().into()),
            user_data: Some(user_data.to_vec().into()),
            public_key: Some(public_key.to_vec().into()),
        };
        let device = Arc::clone(&self.0);
        let answer = tokio::task::spawn_blocking(move || device.ask(request)).await;
        let response = answer.map_err(|_| AttestError::Refused("the request was cancelled".to_owned()))??;
        let Response::Attestation { document } = response else {
            return Err(AttestError::Refused("an answer of the wrong kind".to_owned()));
        };
        Ok(document)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nitro_module_refuses_to_open_where_there_is_none() {
        if std::path::Path::new(NSM).exists() {
            return;
        }
        assert!(matches!(NitroModule::open(), Err(AttestError::NoModule(_))));
    }

    #[test]
    fn seeding_fails_when_the_device_is_not_the_security_module() -> std::io::Result<()> {
        let device = Device(OpenOptions::new().read(true).write(true).open("/dev/null")?);
        assert!(matches!(device.seed_kernel(), Err(AttestError::Refused(_))));
        Ok(())
    }
}
