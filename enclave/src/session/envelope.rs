//! Envelopes: who says what to whom in which session, signed; and what is for the receiver alone, sealed.
//!
//! Bytes that fail here come from anywhere, the bus and the hosts included. They are dropped and counted
//! and have no other effect: whoever relays could otherwise abort or ban at will.

use ceremonies::attestation::EnclaveKeys;
use ceremonies::ids::{Hash, NodeIndex};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use prost::Message;
use zeroize::Zeroizing;

use super::proto::{Content, Envelope, content};

/// Largest envelope read, in bytes: a DKG round has 143 KB for each peer (3-of-5); the bus carries 1 MiB.
pub const MAX_ENVELOPE: usize = 1024 * 1024;
/// The version of session messages.
pub(super) const VERSION: u32 = 1;
/// Bytes of an encapsulated X25519 key.
const ENCAPSULATED: usize = 32;

type SecretKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;

/// The key pairs an enclave makes at boot for its peers: identity and sealing. They are never stored.
pub struct BootKeys {
    identity: SigningKey,
    sealing: SecretKey,
    public: EnclaveKeys,
}

impl BootKeys {
    /// Fresh keys from the system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        let seed = Zeroizing::new(rand::random::<[u8; 32]>());
        let identity = SigningKey::from_bytes(&seed);
        let (sealing, public) = X25519HkdfSha256::gen_keypair();
        let public =
            EnclaveKeys { identity: identity.verifying_key().to_bytes(), sealing: public.to_bytes().into() };
        Self { identity, sealing, public }
    }

    /// The public keys that attestation documents vouch for.
    #[must_use]
    pub fn public(&self) -> EnclaveKeys {
        self.public
    }

    /// Signs with the identity.
    #[must_use]
    pub fn sign(&self, message: &Hash) -> [u8; 64] {
        self.identity.sign(message.as_bytes()).to_bytes()
    }
}

/// Why bytes from the bus are dropped without any effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dropped {
    /// Over [`MAX_ENVELOPE`].
    TooLarge,
    /// Not an envelope of this version.
    Malformed,
    /// For another session or another receiver.
    Elsewhere,
    /// By nobody who takes part.
    Stranger,
    /// Not signed by whom it names.
    Unsigned,
    /// Of a round that is over or too far ahead.
    OutOfTurn,
}

/// A message whose sender is proven.
pub(super) struct Proven {
    pub(super) from: NodeIndex,
    pub(super) hash: Hash,
    pub(super) body: content::Body,
}

fn signed(content: &[u8]) -> Hash {
    Hash::of_parts("custody/session-envelope/v1", &[content])
}

/// Signs a message of one party to another.
pub(super) fn write(
    keys: &BootKeys,
    label: &Hash,
    from: NodeIndex,
    to: NodeIndex,
    body: content::Body,
) -> Vec<u8> {
    let content = Content {
        version: VERSION,
        label: label.as_bytes().to_vec(),
        from: from.into(),
        to: to.into(),
        body: Some(body),
    }
    .encode_to_vec();
    let signature = keys.sign(&signed(&content)).to_vec();
    Envelope { content, signature }.encode_to_vec()
}

/// Checks size, form, session, receiver, sender and signature, in this order.
pub(super) fn read(
    bytes: &[u8],
    label: &Hash,
    own: NodeIndex,
    sender: impl Fn(NodeIndex) -> Option<EnclaveKeys>,
) -> Result<Proven, Dropped> {
    if bytes.len() > MAX_ENVELOPE {
        return Err(Dropped::TooLarge);
    }
    let envelope = Envelope::decode(bytes).map_err(|_| Dropped::Malformed)?;
    let content = Content::decode(envelope.content.as_slice()).map_err(|_| Dropped::Malformed)?;
    if content.version != VERSION {
        return Err(Dropped::Malformed);
    }
    if content.label != label.as_bytes() || content.to != u32::from(own) {
        return Err(Dropped::Elsewhere);
    }
    let from = NodeIndex::try_from(content.from).map_err(|_| Dropped::Stranger)?;
    let keys = sender(from).filter(|_| from != own).ok_or(Dropped::Stranger)?;
    let hash = signed(&envelope.content);
    let key = VerifyingKey::from_bytes(&keys.identity).map_err(|_| Dropped::Unsigned)?;
    let signature = Signature::from_slice(&envelope.signature).map_err(|_| Dropped::Unsigned)?;
    key.verify_strict(hash.as_bytes(), &signature).map_err(|_| Dropped::Unsigned)?;
    let body = content.body.ok_or(Dropped::Malformed)?;
    Ok(Proven { from, hash, body })
}

/// What a sealed payload is bound to: it opens nowhere else.
pub(super) struct Binding {
    pub(super) session: Hash,
    pub(super) round: u32,
    pub(super) from: NodeIndex,
    pub(super) to: NodeIndex,
}

impl Binding {
    fn info(&self) -> Hash {
        Hash::of_parts(
            "custody/session-seal/v1",
            &[self.session.as_bytes(), &self.round.to_be_bytes(), &[self.from.get()], &[self.to.get()]],
        )
    }

    /// Seals for the receiver. None only if the receiver's attested key is no key.
    pub(super) fn seal(&self, receiver: &EnclaveKeys, plain: &[u8]) -> Option<Vec<u8>> {
        let key = PublicKey::from_bytes(&receiver.sealing).ok()?;
        let (encapsulated, ciphertext) = hpke::single_shot_seal::<
            ChaCha20Poly1305,
            HkdfSha256,
            X25519HkdfSha256,
        >(&OpModeS::Base, &key, self.info().as_bytes(), plain, &[])
        .ok()?;
        Some([encapsulated.to_bytes().as_slice(), &ciphertext].concat())
    }

    /// Opens with the receiver's own key.
    pub(super) fn open(&self, keys: &BootKeys, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (encapsulated, ciphertext) = sealed.split_at_checked(ENCAPSULATED)?;
        let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &keys.sealing,
            &encapsulated,
            self.info().as_bytes(),
            ciphertext,
            &[],
        )
        .ok()
        .map(Zeroizing::new)
    }
}
