//! Sealing: how a share outlives its enclave.
//!
//! A share leaves the enclave only encrypted under a data key that the KMS unwraps for admitted enclaves alone. The
//! first charter, cluster, wallet, node and generation are bound in twice: as the KMS's encryption context and as
//! associated data of the share's own encryption; the commit certificate binds the blob by its digest once more. This
//! module must never read a blob before its size and digest are checked, and never say anything about a share that does
//! not open.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use ceremonies::ids::Hash;
use prost::Message as _;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::context::SealContext;
use crate::kms::{DataKey, MAX_WRAPPED_KEY};

mod proto {
    #![expect(unreachable_pub, reason = "generated for any module it may be included in")]
    include!(concat!(env!("OUT_DIR"), "/custody.sealed.v1.rs"));
}

/// Largest blob accepted: a share with its multiplication state is 210 KB for 3-of-5, and under 1 MiB for up to twenty
/// nodes.
pub const MAX_BLOB: usize = 1024 * 1024;

const VERSION: u32 = 1;
const TAG: usize = 16;

/// Why a share was not sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SealError {
    /// A share too large for the blob's limit.
    #[error("sealing this share would give {0} bytes, more than the {MAX_BLOB} accepted")]
    ShareSize(usize),
    /// A data key that its wrapping cannot belong to.
    #[error("the wrapped data key has {0} bytes, not 1 to {MAX_WRAPPED_KEY}: ask KMS for a new key")]
    WrappedKey(usize),
    /// AES-GCM refused to encrypt.
    #[error("encrypting the share failed: restart the enclave; if it recurs, its random source is broken")]
    Encryption,
    /// A blob above the limit.
    #[error(
        "the sealed share has {0} bytes, more than the {MAX_BLOB} accepted: read it from the store again"
    )]
    BlobSize(usize),
    /// Not the expected blob.
    #[error(
        "the sealed share has digest {found}, not {expected}: the store returned a different or altered share"
    )]
    Digest {
        /// What the record says.
        expected: Hash,
        /// What was handed in.
        found: Hash,
    },
    /// Not the format of a sealed share.
    #[error("this is not a sealed share in a version that this enclave reads: {0}")]
    Format(&'static str),
    /// Key, context or bytes differ from those that it was sealed with.
    #[error("the sealed share does not open for this charter, cluster, wallet, node and generation")]
    Opening,
}

/// A sealed share: bytes that anyone may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedBlob {
    bytes: Vec<u8>,
    sealed: proto::Sealed,
}

/// Seals a share for `context` under a data key that is used for nothing else.
///
/// # Errors
/// [`SealError`]: what is too large, or that encryption failed.
pub fn seal(share: &[u8], context: &SealContext, data_key: &DataKey) -> Result<SealedBlob, SealError> {
    let wrapped_key = data_key.wrapped.clone();
    if wrapped_key.is_empty() || wrapped_key.len() > MAX_WRAPPED_KEY {
        return Err(SealError::WrappedKey(wrapped_key.len()));
    }
    // Refused before the copy, and with room for the tag, so that no plaintext is left behind by a growing buffer. Once
    // encrypted, it holds no secret.
    if share.len() > MAX_BLOB {
        return Err(SealError::ShareSize(share.len()));
    }
    let mut ciphertext = Zeroizing::new(Vec::with_capacity(share.len() + TAG));
    ciphertext.extend_from_slice(share);
    let nonce = cipher(&data_key.key)
        .and_then(|cipher| {
            let aad = Aad::from(*context.associated_data(&wrapped_key).as_bytes());
            cipher.seal_in_place_append_tag(aad, &mut *ciphertext).ok()
        })
        .ok_or(SealError::Encryption)?;
    let sealed = proto::Sealed {
        version: VERSION,
        wrapped_key,
        nonce: nonce.as_ref().to_vec(),
        ciphertext: std::mem::take(&mut *ciphertext),
    };
    let bytes = sealed.encode_to_vec();
    if bytes.len() > MAX_BLOB {
        return Err(SealError::ShareSize(bytes.len()));
    }
    Ok(SealedBlob { bytes, sealed })
}

impl SealedBlob {
    /// Reads a stored blob: size first, then the digest its record names, then the format.
    ///
    /// # Errors
    /// [`SealError::BlobSize`], [`SealError::Digest`] and [`SealError::Format`].
    pub fn read(bytes: Vec<u8>, expected: &Hash) -> Result<Self, SealError> {
        if bytes.len() > MAX_BLOB {
            return Err(SealError::BlobSize(bytes.len()));
        }
        let found = Hash::of_bytes(&bytes);
        if found != *expected {
            return Err(SealError::Digest { expected: *expected, found });
        }
        let sealed =
            proto::Sealed::decode(bytes.as_slice()).map_err(|_| SealError::Format("not protobuf"))?;
        if sealed.version != VERSION {
            return Err(SealError::Format("another version"));
        }
        if sealed.wrapped_key.is_empty() || sealed.wrapped_key.len() > MAX_WRAPPED_KEY {
            return Err(SealError::Format("a wrapped key of an impossible length"));
        }
        if sealed.nonce.len() != NONCE_LEN || sealed.ciphertext.len() < TAG {
            return Err(SealError::Format("a nonce or ciphertext of an impossible length"));
        }
        // A blob has one encoding: unknown or repeated fields would be bytes that nothing authenticates.
        if sealed.encode_to_vec() != bytes {
            return Err(SealError::Format("not in its canonical encoding"));
        }
        Ok(Self { bytes, sealed })
    }

    /// The blob as it is stored.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The digest that names this very blob.
    #[must_use]
    pub fn digest(&self) -> Hash {
        Hash::of_bytes(&self.bytes)
    }

    /// What the KMS unwraps to the data key.
    #[must_use]
    pub fn wrapped_key(&self) -> &[u8] {
        &self.sealed.wrapped_key
    }

    /// Opens the share with its unwrapped data key.
    ///
    /// # Errors
    /// [`SealError::Opening`] when key, context or any byte differs from the sealing.
    pub fn open(
        &self,
        context: &SealContext,
        data_key: &Zeroizing<[u8; 32]>,
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let cipher = cipher(data_key).ok_or(SealError::Opening)?;
        let nonce = Nonce::try_assume_unique_for_key(&self.sealed.nonce).map_err(|_| SealError::Opening)?;
        let aad = Aad::from(*context.associated_data(&self.sealed.wrapped_key).as_bytes());
        let mut share = Zeroizing::new(self.sealed.ciphertext.clone());
        let length = cipher.open_in_place(nonce, aad, &mut share).map_err(|_| SealError::Opening)?.len();
        share.truncate(length);
        Ok(share)
    }
}

fn cipher(key: &Zeroizing<[u8; 32]>) -> Option<RandomizedNonceKey> {
    RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use ceremonies::ids::{Generation, NodeIndex};

    use super::*;

    fn context() -> SealContext {
        SealContext {
            charter: Hash::of_bytes(b"charter"),
            cluster: "lab".parse().unwrap(),
            wallet: "treasury".parse().unwrap(),
            node: NodeIndex::new(3).unwrap(),
            generation: Generation(1),
        }
    }

    fn data_key() -> DataKey {
        DataKey { key: Zeroizing::new([7; 32]), wrapped: vec![1; 184] }
    }

    fn reread(bytes: &[u8]) -> Result<SealedBlob, SealError> {
        SealedBlob::read(bytes.to_vec(), &Hash::of_bytes(bytes))
    }

    #[test]
    fn share_opens_again_from_its_stored_bytes() {
        let sealed = seal(b"a share", &context(), &data_key()).unwrap();
        let read = SealedBlob::read(sealed.bytes().to_vec(), &sealed.digest()).unwrap();
        assert_eq!(read.wrapped_key(), data_key().wrapped);
        assert_eq!(**read.open(&context(), &data_key().key).unwrap(), *b"a share");
        assert!(!sealed.bytes().windows(7).any(|bytes| bytes == b"a share"));
    }

    #[test]
    fn share_does_not_open_in_another_context() {
        let sealed = seal(b"a share", &context(), &data_key()).unwrap();
        let others = [
            SealContext { charter: Hash::of_bytes(b"another"), ..context() },
            SealContext { cluster: "lab-2".parse().unwrap(), ..context() },
            SealContext { wallet: "savings".parse().unwrap(), ..context() },
            SealContext { node: NodeIndex::new(4).unwrap(), ..context() },
            SealContext { generation: Generation(2), ..context() },
        ];
        for other in others {
            assert_eq!(sealed.open(&other, &data_key().key), Err(SealError::Opening), "{other:?}");
            assert_ne!(other.encryption_context(), context().encryption_context());
        }
    }

    #[test]
    fn share_does_not_open_with_another_key() {
        let sealed = seal(b"a share", &context(), &data_key()).unwrap();
        assert_eq!(sealed.open(&context(), &Zeroizing::new([8; 32])), Err(SealError::Opening));
    }

    #[test]
    fn blob_is_refused_under_another_digest() {
        let sealed = seal(b"a share", &context(), &data_key()).unwrap();
        let read = SealedBlob::read(sealed.bytes().to_vec(), &Hash::ZERO);
        assert_eq!(read, Err(SealError::Digest { expected: Hash::ZERO, found: sealed.digest() }));
        for at in 0..sealed.bytes().len() {
            let mut bytes = sealed.bytes().to_vec();
            bytes[at] ^= 1;
            assert!(
                matches!(SealedBlob::read(bytes, &sealed.digest()), Err(SealError::Digest { .. })),
                "byte {at}"
            );
        }
    }

    #[test]
    fn any_flipped_bit_is_refused_even_under_its_own_digest() {
        let sealed = seal(b"a share", &context(), &data_key()).unwrap();
        for bit in 0..sealed.bytes().len() * 8 {
            let mut bytes = sealed.bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let opened = reread(&bytes).and_then(|blob| blob.open(&context(), &data_key().key));
            assert!(
                matches!(opened, Err(SealError::Format(_) | SealError::Opening)),
                "bit {bit}: {opened:?}"
            );
        }
    }

    #[test]
    fn bytes_beside_the_format_are_refused() {
        let sealed = seal(b"a share", &context(), &data_key()).unwrap();
        // An unknown field, a field repeated, a default spelt out.
        for extra in [&[0x2a, 1, 0][..], &[0x08, 1], &[0x28, 0]] {
            let bytes = [sealed.bytes(), extra].concat();
            assert!(matches!(reread(&bytes), Err(SealError::Format(_))), "{extra:?}");
        }
        assert!(matches!(reread(&[]), Err(SealError::Format(_))));
    }

    #[test]
    fn sizes_are_limited_on_both_ways() {
        let oversized = vec![0; MAX_BLOB + 1];
        assert_eq!(reread(&oversized), Err(SealError::BlobSize(MAX_BLOB + 1)));
        assert!(matches!(seal(&oversized, &context(), &data_key()), Err(SealError::ShareSize(_))));
        let tight = vec![0; MAX_BLOB - 100];
        assert!(matches!(seal(&tight, &context(), &data_key()), Err(SealError::ShareSize(_))));
        for length in [0, MAX_WRAPPED_KEY + 1] {
            let data_key = DataKey { wrapped: vec![1; length], ..data_key() };
            assert_eq!(seal(b"a share", &context(), &data_key), Err(SealError::WrappedKey(length)));
        }
    }

    #[test]
    fn sealing_twice_never_repeats_a_nonce() {
        let first = seal(b"a share", &context(), &data_key()).unwrap();
        let second = seal(b"a share", &context(), &data_key()).unwrap();
        assert_ne!(first.sealed.nonce, second.sealed.nonce);
        assert_ne!(first.digest(), second.digest());
    }
}
