//! OpenSSH's signature files: read as `ssh-keygen -Y verify` reads them, written as `ssh-keygen -Y sign` writes them.
//!
//! The record promises that anyone can check its signatures with `ssh-keygen`. Whatever is stored must therefore be
//! what that program accepts, which is exactly one form of each signature: the one that it writes itself. A looser
//! reader would put signatures into the record that fail a manual check for ever.

use data_encoding::BASE64;
use ssh_encoding::{Decode as _, Encode as _};
use ssh_key::{Algorithm, SshSig};
use thiserror::Error;

/// Largest accepted signature file, in bytes.
pub const MAX_SIGNATURE: usize = 8 * 1024;

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----\n";
const END: &str = "\n-----END SSH SIGNATURE-----";
/// Characters in every line but the last, as `ssh-keygen` folds.
const WIDTH: usize = 70;
/// Flags and counter of a FIDO2 signature, which follow the signature proper (OpenSSH `PROTOCOL.u2f`).
const FIDO_TRAILER: usize = 5;

/// How UTF-16 text of a signature file begins, with its mark or without.
const UTF_16: [&[u8]; 4] = [b"\xff\xfe", b"\xfe\xff", b"-\0", b"\0-"];

/// Why bytes are not a signature file that `ssh-keygen` verifies.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// Larger than [`MAX_SIGNATURE`].
    #[error("it is larger than {MAX_SIGNATURE} bytes")]
    TooLarge,
    /// As Windows programs save text.
    #[error("it is UTF-16 text: save it as UTF-8")]
    Utf16,
    /// As some editors save text.
    #[error("it begins with a byte order mark, over which ssh-keygen stumbles: save it as UTF-8 without one")]
    Mark,
    /// A line that `ssh-keygen` would not recognise, though it looks right.
    #[error("there are spaces or tabs around its line `{0}`, over which ssh-keygen stumbles: remove them")]
    Blanks(&'static str),
    /// Something precedes the first line, or that line is missing.
    #[error("the first line is not `{}`: send the whole output of `ssh-keygen -Y sign`", BEGIN.trim_end())]
    Begin,
    /// Cut off.
    #[error("the line `{}` is missing: send the whole output of `ssh-keygen -Y sign`", END.trim_start())]
    End,
    /// Damaged between the two.
    #[error("the text between its first and last line is not base64: a character was changed or lost")]
    Base64,
    /// Base64 of something else.
    #[error("it does not contain a signature of a known kind: {0}")]
    Content(ssh_key::Error),
    /// `ssh-keygen` leaves the field out of what it verifies.
    #[error("its reserved field is not empty, so ssh-keygen would not verify it")]
    Reserved,
    /// Another encoding of the same signature.
    #[error(
        "it is not in the form that ssh-keygen writes: submit it with `custody ceremony submit`, which restores that \
         form"
    )]
    NotCanonical,
}

/// Reads a signature file as `ssh-keygen` does: folded anywhere, with anything behind its last line. Windows line
/// endings, on which `ssh-keygen` stumbles, are read too.
fn read(file: &[u8]) -> Result<SshSig, FormatError> {
    if file.len() > MAX_SIGNATURE {
        return Err(FormatError::TooLarge);
    }
    let text = String::from_utf8_lossy(file).replace("\r\n", "\n");
    let body = text.strip_prefix(BEGIN).ok_or_else(|| without_begin(file, &text))?;
    // An empty body has its end where its beginning ends.
    let (body, _) = body.split_once(END).ok_or_else(|| without_end(body))?;
    let body: String = body.split([' ', '\t', '\n', '\x0b', '\x0c', '\r']).collect();
    let bytes = BASE64.decode(body.as_bytes()).map_err(|_| FormatError::Base64)?;
    let mut reader = bytes.as_slice();
    let signature = SshSig::decode(&mut reader).map_err(FormatError::Content)?;
    // The decoder does not check the lengths of all inner strings.
    if encoded(&signature).map_err(FormatError::Content)? != bytes {
        return Err(FormatError::Content(ssh_key::Error::FormatEncoding));
    }
    if signature.reserved().is_empty() { Ok(signature) } else { Err(FormatError::Reserved) }
}

/// Why a file does not begin as it should.
fn without_begin(file: &[u8], text: &str) -> FormatError {
    let begin = BEGIN.trim_end();
    if UTF_16.iter().any(|bytes| file.starts_with(bytes)) {
        FormatError::Utf16
    } else if text.strip_prefix('\u{feff}').is_some_and(|text| text.starts_with(begin)) {
        FormatError::Mark
    } else if text.lines().next().is_some_and(|line| line.trim() == begin) {
        FormatError::Blanks(begin)
    } else {
        FormatError::Begin
    }
}

/// Why what follows the beginning does not end as it should.
fn without_end(body: &str) -> FormatError {
    let end = END.trim_start();
    let is_indented = body.lines().any(|line| line.trim_start().starts_with(end) && !line.starts_with(end));
    if is_indented { FormatError::Blanks(end) } else { FormatError::End }
}

/// The signature file that `ssh-keygen` writes of a signature.
///
/// # Errors
/// If something does not fit into the encoding.
pub fn write(signature: &SshSig) -> Result<Vec<u8>, ssh_key::Error> {
    let text = BASE64.encode(&encoded(signature)?);
    let mut file = String::from(BEGIN);
    for (position, character) in text.chars().enumerate() {
        if position > 0 && position % WIDTH == 0 {
            file.push('\n');
        }
        file.push(character);
    }
    file.push_str(END);
    file.push('\n');
    Ok(file.into_bytes())
}

/// The signature's bytes. `ssh-key` itself puts the trailer of an `ecdsa-sk` signature into the string before it.
fn encoded(signature: &SshSig) -> Result<Vec<u8>, ssh_key::Error> {
    let algorithm = signature.algorithm();
    let is_security_key = matches!(algorithm, Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256);
    let trailer = if is_security_key { FIDO_TRAILER } else { 0 };
    let bytes = signature.signature_bytes();
    let (proper, trailer) =
        bytes.split_at_checked(bytes.len().saturating_sub(trailer)).unwrap_or((bytes, &[]));
    let mut inner = Vec::new();
    algorithm.encode(&mut inner)?;
    proper.encode(&mut inner)?;
    inner.extend(trailer);
    let mut all = b"SSHSIG".to_vec();
    signature.version().encode(&mut all)?;
    signature.public_key().encode_prefixed(&mut all)?;
    signature.namespace().encode(&mut all)?;
    signature.reserved().encode(&mut all)?;
    signature.hash_alg().encode(&mut all)?;
    inner.encode(&mut all)?;
    Ok(all)
}

/// The form in which a signature file that somebody sent is stored: as `ssh-keygen` writes it.
///
/// # Errors
/// [`FormatError`] for what `ssh-keygen` does not read.
pub fn canonical(file: &[u8]) -> Result<Vec<u8>, FormatError> {
    write(&read(file)?).map_err(FormatError::Content)
}

/// Reads a stored signature: in its one form, and no other.
///
/// # Errors
/// [`FormatError`].
pub(crate) fn stored(file: &[u8]) -> Result<SshSig, FormatError> {
    let signature = read(file)?;
    let canonical = write(&signature).map_err(FormatError::Content)?;
    if canonical == file { Ok(signature) } else { Err(FormatError::NotCanonical) }
}
