//! Signing as a person: with a key file, or through the SSH agent. The console keeps no key longer than the
//! signature takes.

use std::path::{Path, PathBuf};

use ceremonies::statement::NAMESPACE;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};
use thiserror::Error;
use zeroize::Zeroizing;

/// Why there is no signature.
#[derive(Debug, Error)]
pub enum SignError {
    /// The key's file cannot be read.
    #[error("key {0} cannot be read")]
    Read(PathBuf, #[source] std::io::Error),
    /// The file is no OpenSSH key.
    #[error("{0} is neither an OpenSSH private key nor a public key")]
    Format(PathBuf),
    /// The key is locked.
    #[error("key {0} needs its passphrase")]
    Locked(PathBuf),
    /// The passphrase is another.
    #[error("that is not the passphrase of key {0}")]
    Passphrase(PathBuf),
    /// Signing failed.
    #[error("key {0} did not sign")]
    Sign(PathBuf, #[source] ssh_key::Error),
    /// No agent.
    #[error("no SSH agent: set SSH_AUTH_SOCK, or give the private key's file")]
    NoAgent,
    /// The agent failed.
    #[error("the SSH agent did not sign with {0}: {1}")]
    Agent(PathBuf, String),
}

/// Signs a statement with the key in this file: a private key, or a public key whose private half the SSH
/// agent holds. Returns an armoured SSHSIG.
///
/// # Errors
/// [`SignError`]; [`SignError::Locked`] asks for a passphrase.
pub fn sign(
    key: &Path,
    statement: &str,
    passphrase: Option<&Zeroizing<String>>,
) -> Result<Vec<u8>, SignError> {
    let text = Zeroizing::new(std::fs::read(key).map_err(|error| SignError::Read(key.to_owned(), error))?);
    let armoured = |signature: SshSig| {
        signature
            .to_pem(LineEnding::LF)
            .map(String::into_bytes)
            .map_err(|error| SignError::Sign(key.to_owned(), error))
    };
    if let Ok(private) = PrivateKey::from_openssh(&*text) {
        let private = unlock(key, private, passphrase)?;
        let signature = private
            .sign(NAMESPACE, HashAlg::Sha512, statement.as_bytes())
            .map_err(|error| SignError::Sign(key.to_owned(), error))?;
        return armoured(signature);
    }
    let public = std::str::from_utf8(&text).ok().and_then(|text| PublicKey::from_openssh(text).ok());
    let public = public.ok_or_else(|| SignError::Format(key.to_owned()))?;
    armoured(sign_by_agent(key, &public, statement)?)
}

fn unlock(
    key: &Path,
    private: PrivateKey,
    passphrase: Option<&Zeroizing<String>>,
) -> Result<PrivateKey, SignError> {
    if !private.is_encrypted() {
        return Ok(private);
    }
    let passphrase = passphrase.ok_or_else(|| SignError::Locked(key.to_owned()))?;
    private.decrypt(passphrase.as_bytes()).map_err(|_| SignError::Passphrase(key.to_owned()))
}

fn sign_by_agent(key: &Path, public: &PublicKey, statement: &str) -> Result<SshSig, SignError> {
    let failed = |error: &dyn std::fmt::Display| SignError::Agent(key.to_owned(), error.to_string());
    let socket = std::env::var_os("SSH_AUTH_SOCK").ok_or(SignError::NoAgent)?;
    let mut agent =
        ssh_agent_client_rs::Client::connect(Path::new(&socket)).map_err(|error| failed(&error))?;
    let signed = SshSig::signed_data(NAMESPACE, HashAlg::Sha512, statement.as_bytes())
        .map_err(|error| failed(&error))?;
    let signature = agent.sign(public, &signed).map_err(|error| failed(&error))?;
    SshSig::new(public.key_data().clone(), NAMESPACE, HashAlg::Sha512, signature)
        .map_err(|error| failed(&error))
}

/// Whether a key's signatures can prove that somebody touched it.
#[must_use]
pub fn is_hardware(key: &PublicKey) -> bool {
    matches!(key.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256)
}
