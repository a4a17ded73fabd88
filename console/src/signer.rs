//! Signing as a person: with a key file, or through the SSH agent. The console keeps no key longer than the
//! signature takes.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use ceremonies::sshsig;
use ceremonies::statement::NAMESPACE;
use ceremonies::text::chain;
use data_encoding::BASE64;
use ssh_key::{Algorithm, HashAlg, PrivateKey, PublicKey, SshSig};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::file::{FileError, MAX_SETTINGS, read};

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";

/// Why there is no signature.
#[derive(Debug, Error)]
pub enum SignError {
    /// The key's file cannot be read.
    #[error(transparent)]
    Read(#[from] FileError),
    /// The file holds something else, or is damaged.
    #[error("key {0} {1}")]
    Format(PathBuf, Unusable),
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
    #[error(
        "no SSH agent to sign with {0}: start one (`eval $(ssh-agent)`), add the key (`ssh-add`), and sign in that shell"
    )]
    NoAgent(PathBuf),
    /// The agent failed.
    #[error(
        "the SSH agent did not sign with {0} ({1}): `ssh-add -L` lists the keys that it holds, `ssh-add` adds one"
    )]
    Agent(PathBuf, String),
}

/// What keeps a file from being a key to sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unusable {
    /// PEM of another kind.
    #[error("is a private key in PEM, not in OpenSSH's own format: convert a copy with `ssh-keygen -p -f`")]
    Pem,
    /// The format of `PuTTY`.
    #[error("is in PuTTY's format: convert it with `puttygen KEY -O private-openssh -o NEW`")]
    Putty,
    /// RFC 4716.
    #[error("is a public key in RFC 4716's format: convert it with `ssh-keygen -i -f`")]
    Rfc4716,
    /// Signed by somebody.
    #[error("is a certificate: give the key that it was issued for")]
    Certificate,
    /// No end.
    #[error("is cut off: its last line `-----END OPENSSH PRIVATE KEY-----` is missing")]
    CutOff,
    /// Damaged.
    #[error("is damaged: copy it from its source again")]
    Damaged,
    /// A kind of key that people here do not sign with.
    #[error("is of a kind that no charter lists: use ssh-ed25519, or the sk- key of a security key")]
    Kind,
    /// Nothing known.
    #[error("is neither an OpenSSH private key nor an OpenSSH public key")]
    Unknown,
}

/// What a key's file says.
enum Key {
    Private(Box<PrivateKey>),
    /// Its private half is in the SSH agent, or in a security key that the agent speaks to.
    Public(Box<PublicKey>),
}

/// Signs a statement with the key in this file: a private key, or a public key whose private half the SSH
/// agent holds, or the handle of a security key, which only the agent can use. Returns an armoured SSHSIG.
///
/// # Errors
/// [`SignError`]; [`SignError::Locked`] asks for a passphrase.
pub fn sign(
    key: &Path,
    statement: &str,
    passphrase: Option<&Zeroizing<String>>,
) -> Result<Vec<u8>, SignError> {
    sign_in(NAMESPACE, key, statement, passphrase)
}

/// Signs a text other than a statement, in a namespace of its own.
///
/// # Errors
/// As [`sign`].
pub fn sign_in(
    namespace: &str,
    key: &Path,
    text: &str,
    passphrase: Option<&Zeroizing<String>>,
) -> Result<Vec<u8>, SignError> {
    let bytes = Zeroizing::new(read("key", key, MAX_SETTINGS)?);
    let signature = match parse(&bytes).map_err(|unusable| SignError::Format(key.to_owned(), unusable))? {
        Key::Private(private) => unlock(key, *private, passphrase)?
            .sign(namespace, HashAlg::Sha512, text.as_bytes())
            .map_err(|error| SignError::Sign(key.to_owned(), error))?,
        Key::Public(public) => sign_by_agent(namespace, key, &public, text)?,
    };
    sshsig::write(&signature).map_err(|error| SignError::Sign(key.to_owned(), error))
}

/// Reads what `ssh-keygen` reads, folded at whatever width.
fn parse(bytes: &[u8]) -> Result<Key, Unusable> {
    let text = std::str::from_utf8(bytes).map_err(|_| Unusable::Unknown)?;
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if let Some(rest) = text.strip_prefix(BEGIN) {
        let private = private(rest)?;
        return match private.algorithm() {
            Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => {
                Ok(Key::Public(Box::new(private.public_key().clone())))
            }
            Algorithm::Ed25519 => Ok(Key::Private(Box::new(private))),
            _ => Err(Unusable::Kind),
        };
    }
    if text.starts_with("-----BEGIN ") {
        return Err(Unusable::Pem);
    }
    if text.starts_with("PuTTY-User-Key-File") {
        return Err(Unusable::Putty);
    }
    if text.starts_with("---- BEGIN SSH2 PUBLIC KEY") {
        return Err(Unusable::Rfc4716);
    }
    text.lines().find_map(public).unwrap_or(Err(Unusable::Unknown)).map(|key| Key::Public(Box::new(key)))
}

/// A private key after its first line.
fn private(rest: &str) -> Result<PrivateKey, Unusable> {
    let (body, _) = rest.split_once(END).ok_or(Unusable::CutOff)?;
    let mut text = Zeroizing::new(Vec::with_capacity(body.len()));
    // Includes the vertical tab, which only C counts as a blank.
    text.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'\x0b'));
    let key = BASE64.decode(&text).map(Zeroizing::new).map_err(|_| Unusable::Damaged)?;
    PrivateKey::from_bytes(&key).map_err(|_| Unusable::Damaged)
}

/// The public key in a line, if there is one, also after options as in `authorized_keys`.
fn public(line: &str) -> Option<Result<PublicKey, Unusable>> {
    if line.trim_start().starts_with('#') {
        return None;
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let kinds = ["ssh-", "sk-ssh-", "ecdsa-sha2-", "sk-ecdsa-sha2-"];
    words.windows(2).find(|pair| kinds.iter().any(|kind| pair[0].starts_with(kind))).map(|pair| {
        if pair[0].contains("-cert-") {
            return Err(Unusable::Certificate);
        }
        PublicKey::from_openssh(&pair.join(" ")).map_err(|_| Unusable::Damaged)
    })
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
    private.decrypt(passphrase.as_bytes()).map_err(|error| match error {
        ssh_key::Error::Crypto => SignError::Passphrase(key.to_owned()),
        error => SignError::Sign(key.to_owned(), error),
    })
}

fn sign_by_agent(namespace: &str, key: &Path, public: &PublicKey, text: &str) -> Result<SshSig, SignError> {
    let failed = |error: &dyn std::error::Error| SignError::Agent(key.to_owned(), chain(error));
    let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
    let socket = socket.ok_or_else(|| SignError::NoAgent(key.to_owned()))?;
    // The library's errors do not say why there is no connection.
    UnixStream::connect(&socket).map_err(|error| {
        SignError::Agent(key.to_owned(), format!("{}: {error}", Path::new(&socket).display()))
    })?;
    let mut agent =
        ssh_agent_client_rs::Client::connect(Path::new(&socket)).map_err(|error| failed(&error))?;
    let signed =
        SshSig::signed_data(namespace, HashAlg::Sha512, text.as_bytes()).map_err(|error| failed(&error))?;
    let signature = agent.sign(public, &signed).map_err(|error| failed(&error))?;
    SshSig::new(public.key_data().clone(), namespace, HashAlg::Sha512, signature)
        .map_err(|error| failed(&error))
}
