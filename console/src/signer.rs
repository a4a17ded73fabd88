//! Signing as a person: with a key file, or through the SSH agent. The console keeps no key longer than the
//! signature takes.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ceremonies::sshsig;
use ceremonies::statement::NAMESPACE;
use ceremonies::text::{Encoding, chain, utf8};
use data_encoding::BASE64;
use rustix::process::getuid;
use ssh_key::{Algorithm, HashAlg, PrivateKey, PublicKey, SshSig};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::agent::{Agent, AgentError};
use crate::file::{FileError, MAX_SETTINGS, read};
use crate::waiting::Waiting;

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
/// The kinds of keys that a charter lists.
const KINDS: [&str; 3] = ["ssh-ed25519", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"];
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
    /// Others than the owner can read the key.
    #[error(
        "key {path} can be read by others (its mode is {mode:o}), and like ssh this program uses no such key: `chmod 600` \
         it, and have it replaced if others may have copied it"
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// What its mode allows.
        mode: u32,
    },
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
        "the SSH agent did not sign with {0} ({reason}): `ssh-add -L` lists the keys that it holds, `ssh-add` adds one",
        reason = chain(.1)
    )]
    Agent(PathBuf, AgentError),
    /// The agent was waited for in vain.
    #[error(
        "no signature with {0}, because the SSH agent at {1}: sign again and touch the security key when it blinks, or answer \
         what the agent asks; if it asks nothing, start another agent (`eval $(ssh-agent)`)"
    )]
    Silent(PathBuf, AgentError),
}

/// What keeps a file from being a key to sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unusable {
    /// PEM of another kind.
    #[error("is a private key in PEM, not in OpenSSH's own format: convert a copy with `ssh-keygen -p -f`")]
    Pem,
    /// A public key in PEM.
    #[error(
        "is a public key in PEM, not in OpenSSH's own format: give the `.pub` file, or convert it with `ssh-keygen -i -m \
         PKCS8 -f`"
    )]
    PublicPem,
    /// Not UTF-8.
    #[error("is {0}: save it as UTF-8, as `ssh-keygen` writes it")]
    Encoding(Encoding),
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
    /// The handle of a security key, which only the SSH agent can use.
    Handle(Box<PublicKey>),
    /// Its private half is in the SSH agent.
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
    sign_in(NAMESPACE, key, statement, passphrase, Waiting::quiet())
}

/// Signs a text in a namespace, and waits for an SSH agent no longer than this.
///
/// # Errors
/// As [`sign`].
pub fn sign_in(
    namespace: &str,
    key: &Path,
    text: &str,
    passphrase: Option<&Zeroizing<String>>,
    waiting: Waiting<'_>,
) -> Result<Vec<u8>, SignError> {
    let bytes = Zeroizing::new(read("key", key, MAX_SETTINGS)?);
    let signature = match parse(&bytes).map_err(|unusable| SignError::Format(key.to_owned(), unusable))? {
        Key::Handle(public) => {
            must_be_private(key)?;
            sign_by_agent(namespace, key, &public, text, waiting)?
        }
        Key::Private(private) => {
            must_be_private(key)?;
            unlock(key, *private, passphrase)?
                .sign(namespace, HashAlg::Sha512, text.as_bytes())
                .map_err(|error| SignError::Sign(key.to_owned(), error))?
        }
        Key::Public(public) => sign_by_agent(namespace, key, &public, text, waiting)?,
    };
    sshsig::write(&signature).map_err(|error| SignError::Sign(key.to_owned(), error))
}

/// Reads what `ssh-keygen` reads, folded at whatever width.
fn parse(bytes: &[u8]) -> Result<Key, Unusable> {
    let text = utf8(bytes).map_err(|encoding| match encoding {
        Encoding::Utf16 | Encoding::Utf32 => Unusable::Encoding(encoding),
        Encoding::Binary | Encoding::Unknown(_) => Unusable::Unknown,
    })?;
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if let Some(rest) = text.strip_prefix(BEGIN) {
        let private = private(rest)?;
        let algorithm = private.algorithm();
        return if matches!(algorithm, Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256) {
            Ok(Key::Handle(Box::new(private.public_key().clone())))
        } else if algorithm == Algorithm::Ed25519 {
            Ok(Key::Private(Box::new(private)))
        } else {
            Err(Unusable::Kind)
        };
    }
    if text.starts_with("-----BEGIN PUBLIC KEY") || text.starts_with("-----BEGIN RSA PUBLIC KEY") {
        return Err(Unusable::PublicPem);
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
        if !KINDS.contains(&pair[0]) {
            return Err(Unusable::Kind);
        }
        PublicKey::from_openssh(&pair.join(" ")).map_err(|_| Unusable::Damaged)
    })
}

/// Refuses a private key as ssh does: if it is the person's own, and others can read or change it.
fn must_be_private(key: &Path) -> Result<(), SignError> {
    let metadata = std::fs::metadata(key).map_err(|source| FileError::Read {
        what: "key",
        path: key.to_owned(),
        source,
    })?;
    let mode = metadata.mode() & 0o777;
    if metadata.uid() == getuid().as_raw() && mode & 0o077 != 0 {
        return Err(SignError::Exposed { path: key.to_owned(), mode });
    }
    Ok(())
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
    private.decrypt(passphrase.as_bytes()).map_err(|error| {
        let is_wrong = error == ssh_key::Error::Crypto;
        if is_wrong { SignError::Passphrase(key.to_owned()) } else { SignError::Sign(key.to_owned(), error) }
    })
}

fn sign_by_agent(
    namespace: &str,
    key: &Path,
    public: &PublicKey,
    text: &str,
    waiting: Waiting<'_>,
) -> Result<SshSig, SignError> {
    let failed = |error| SignError::Sign(key.to_owned(), error);
    let agent = Agent::of_environment().ok_or_else(|| SignError::NoAgent(key.to_owned()))?;
    let signed = SshSig::signed_data(namespace, HashAlg::Sha512, text.as_bytes()).map_err(failed)?;
    let signature = agent.sign(public, &signed, waiting).map_err(|error| match error {
        AgentError::Silent { .. } => SignError::Silent(key.to_owned(), error),
        AgentError::Unreachable(..) | AgentError::Refused(_) => SignError::Agent(key.to_owned(), error),
    })?;
    SshSig::new(public.key_data().clone(), namespace, HashAlg::Sha512, signature).map_err(failed)
}
