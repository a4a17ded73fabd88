//! What enclaves hold: their own keys, and together the shares of a secret that only a test may know.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use ceremonies::attestation::EnclaveKeys;
use ceremonies::ids::Hash;
use ed25519_dalek::Signer as _;
use k256::elliptic_curve::PrimeField as _;
use k256::elliptic_curve::group::GroupEncoding as _;
use k256::{ProjectivePoint, Scalar};

use crate::cluster::seed;

/// An enclave's keys, from a name that stands for one boot of it.
#[derive(Clone)]
pub(crate) struct Enclave {
    identity: ed25519_dalek::SigningKey,
    sealing: [u8; 32],
}

impl Enclave {
    pub(crate) fn new(boot: &str) -> Self {
        Self {
            identity: ed25519_dalek::SigningKey::from_bytes(&seed(boot)),
            sealing: seed(&format!("{boot} x")),
        }
    }

    pub(crate) fn keys(&self) -> EnclaveKeys {
        EnclaveKeys { identity: self.identity.verifying_key().to_bytes(), sealing: self.sealing }
    }

    /// The same enclave, except that it shows another's sealing key.
    pub(crate) fn with_sealing_of(&self, other: &Self) -> Self {
        Self { sealing: other.sealing, ..self.clone() }
    }

    pub(crate) fn sign(&self, message: &Hash) -> Vec<u8> {
        self.identity.sign(message.as_bytes()).to_bytes().to_vec()
    }
}

/// A sharing of a secret, as only a test may know it.
pub(crate) struct Sharing(pub(crate) [u64; 3]);

pub(crate) const SHARING: Sharing = Sharing([0x5eed_0001, 77, 1234]);
/// The same secret shared anew, and once more.
pub(crate) const REFRESHED: Sharing = Sharing([0x5eed_0001, 88, 4321]);
pub(crate) const REFRESHED_AGAIN: Sharing = Sharing([0x5eed_0001, 99, 5555]);
/// The same secret shared anew, except that node 3's share is unchanged.
pub(crate) const HALF_REFRESHED: Sharing = Sharing([0x5eed_0001, 80, 1233]);
pub(crate) const OTHER_SHARING: Sharing = Sharing([0x5eed_0002, 77, 1234]);

impl Sharing {
    fn at(&self, x: u8) -> Scalar {
        let x = Scalar::from(u64::from(x));
        self.0.iter().rev().fold(Scalar::ZERO, |sum, coefficient| sum * x + Scalar::from(*coefficient))
    }

    pub(crate) fn point(&self, x: u8) -> Vec<u8> {
        (ProjectivePoint::GENERATOR * self.at(x)).to_affine().to_bytes().to_vec()
    }

    fn key(&self) -> k256::ecdsa::SigningKey {
        k256::ecdsa::SigningKey::from_bytes(&self.at(0).to_repr()).unwrap()
    }

    /// (r, s, recovery id), with s in the lower half.
    pub(crate) fn ecdsa(&self, digest: &Hash) -> ([u8; 32], [u8; 32], u8) {
        let (signature, recovery) = self.key().sign_prehash_recoverable(digest.as_bytes());
        let (r, s) = signature.split_bytes();
        (r.into(), s.into(), recovery.to_byte())
    }

    /// The same with a nonce of its own.
    pub(crate) fn ecdsa_again(&self, digest: &Hash) -> ([u8; 32], [u8; 32], u8) {
        let signed = self.key().sign_prehash_recoverable_with_rng(&mut rand::rng(), digest.as_bytes());
        let (signature, recovery) = signed.unwrap();
        let (r, s) = signature.split_bytes();
        (r.into(), s.into(), recovery.to_byte())
    }
}

/// The same signature with s in the upper half: valid ECDSA, but malleable.
pub(crate) fn high(s: &[u8; 32]) -> [u8; 32] {
    let s: Option<Scalar> = Scalar::from_repr((*s).into()).into();
    (-s.unwrap()).to_repr().into()
}
