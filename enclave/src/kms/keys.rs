//! The RSA key that the KMS encrypts its answers to.
//!
//! It is made at boot, its public half goes into every attestation document, and its private half dies
//! with the enclave. Decryption is left to AWS-LC, which does it in constant time: the parent host shares
//! the processor and could time it. This module must never let the private key out, nor say why a
//! decryption failed.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use ceremonies::ids::Hash;
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes in an RSA-2048 modulus, and so in everything encrypted to the key.
pub const RSA_BYTES: usize = 256;

/// Why the key could not be made.
#[derive(Debug, Error)]
#[error("making the RSA key for KMS failed: restart the enclave; if it recurs, its random source is broken")]
pub struct KeyError;

/// The enclave's RSA-2048 key for KMS. AWS-LC holds the private half and wipes it when it is dropped.
pub struct KmsKeys {
    private: OaepPrivateDecryptingKey,
    spki: Vec<u8>,
    id: Hash,
}

impl KmsKeys {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`KeyError`] when AWS-LC cannot make one.
    pub fn generate() -> Result<Self, KeyError> {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(|_| KeyError)?;
        let spki: PublicKeyX509Der<'_> = private.public_key().as_der().map_err(|_| KeyError)?;
        let spki = spki.as_ref().to_vec();
        let private = OaepPrivateDecryptingKey::new(private).map_err(|_| KeyError)?;
        let id = Hash::of_bytes(&spki);
        Ok(Self { private, spki, id })
    }

    /// The public key as DER `SubjectPublicKeyInfo`: what the attestation document carries.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of [`Self::spki_der`]: how the KMS names the recipient of an answer.
    #[must_use]
    pub fn id(&self) -> Hash {
        self.id
    }

    /// Opens a 32-byte key encrypted with RSAES-OAEP (SHA-256 for hash and mask).
    pub(super) fn open_key(&self, encrypted: &[u8; RSA_BYTES]) -> Option<Zeroizing<[u8; 32]>> {
        let mut buffer = Zeroizing::new([0; RSA_BYTES]);
        let plain = self.private.decrypt(&OAEP_SHA256_MGF1SHA256, encrypted, buffer.as_mut(), None).ok()?;
        let mut key = Zeroizing::new([0; 32]);
        if plain.len() != key.len() {
            return None;
        }
        key.copy_from_slice(plain);
        Some(key)
    }
}
