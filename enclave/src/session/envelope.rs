//! Envelopes: who says what to whom in which session, signed; and what only the receiver may read, sealed.
//!
//! Bytes that fail here may come from anywhere, the bus and the hosts included. They are dropped and counted and have
//! no other effect: otherwise whoever relays could abort or ban at will.

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
        let seed = || Zeroizing::new(rand::random::<[u8; 32]>());
        Self::from_seeds(&seed(), &seed())
    }

    /// The keys that follow from these seeds. Whoever knows the seeds has the keys.
    #[must_use]
    pub fn from_seeds(identity: &[u8; 32], sealing: &[u8; 32]) -> Self {
        let identity = SigningKey::from_bytes(identity);
        let (sealing, public) = X25519HkdfSha256::derive_keypair(sealing);
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

    /// Opens what was sealed to the sealing key with HPKE (RFC 9180, base mode) under this info: encapsulated key and
    /// ciphertext.
    #[must_use]
    pub fn unseal(&self, info: &Hash, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (encapsulated, ciphertext) = sealed.split_at_checked(ENCAPSULATED)?;
        let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.sealing,
            &encapsulated,
            info.as_bytes(),
            ciphertext,
            &[],
        )
        .ok()
        .map(Zeroizing::new)
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
    /// Not signed by the sender that it names.
    Unsigned,
    /// Of a round that is over or too far ahead.
    OutOfTurn,
}

/// A message whose sender is proven.
pub(super) struct Proven {
    pub(super) from: NodeIndex,
    pub(super) hash: Hash,
    pub(super) body: content::Body,
    /// The envelope as it arrived, which proves an accusation.
    pub(super) envelope: Vec<u8>,
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
    // A round counts from 1; 0 would share a slot with the barrier.
    if matches!(&body, content::Body::Round(round) if round.number == 0) {
        return Err(Dropped::Malformed);
    }
    Ok(Proven { from, hash, body, envelope: bytes.to_vec() })
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

    /// Seals for the receiver. None only if the receiver's attested key is malformed.
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
        keys.unseal(&self.info(), sealed)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

    use super::*;
    use crate::session::proto::{Reveal, Round};

    fn node(index: u8) -> NodeIndex {
        NodeIndex::new(index).unwrap()
    }

    fn binding(session: &[u8], round: u32, from: u8, to: u8) -> Binding {
        Binding { session: Hash::of_bytes(session), round, from: node(from), to: node(to) }
    }

    #[test]
    fn a_sealed_payload_opens_only_for_its_session_round_sender_and_receiver() {
        let keys = BootKeys::generate();
        let sealed = binding(b"one", 1, 2, 3).seal(&keys.public(), b"fragment").unwrap();
        assert_eq!(binding(b"one", 1, 2, 3).open(&keys, &sealed).unwrap().as_slice(), b"fragment");
        let elsewhere = [
            binding(b"two", 1, 2, 3),
            binding(b"one", 2, 2, 3),
            binding(b"one", 1, 1, 3),
            binding(b"one", 1, 2, 1),
        ];
        for other in elsewhere {
            assert!(other.open(&keys, &sealed).is_none());
        }
        assert!(binding(b"one", 1, 2, 3).open(&BootKeys::generate(), &sealed).is_none());
    }

    #[test]
    fn a_changed_or_cut_payload_does_not_open() {
        let keys = BootKeys::generate();
        let sealed = binding(b"one", 1, 2, 3).seal(&keys.public(), b"fragment").unwrap();
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert!(binding(b"one", 1, 2, 3).open(&keys, &changed).is_none(), "byte {place}");
            assert!(binding(b"one", 1, 2, 3).open(&keys, &sealed[..place]).is_none(), "{place} bytes");
        }
    }

    #[test]
    fn a_sealing_key_of_zeros_is_refused() {
        let keys = EnclaveKeys { sealing: [0; 32], ..BootKeys::generate().public() };
        assert!(binding(b"one", 1, 2, 3).seal(&keys, b"fragment").is_none());
    }

    fn written(keys: &BootKeys, from: u8, body: content::Body) -> Vec<u8> {
        write(keys, &Hash::of_bytes(b"label"), node(from), node(1), body)
    }

    fn reveal() -> content::Body {
        content::Body::Reveal(Reveal { nonce: vec![7; 32] })
    }

    fn refusal(bytes: &[u8], sender: &BootKeys) -> Dropped {
        let read = read(bytes, &Hash::of_bytes(b"label"), node(1), |from| {
            (from == node(1) || from == node(2)).then(|| sender.public())
        });
        match read {
            Ok(_) => panic!("accepted"),
            Err(why) => why,
        }
    }

    #[test]
    fn a_signature_of_another_party_a_stranger_and_oneself_are_refused() {
        let (two, other) = (BootKeys::generate(), BootKeys::generate());
        assert_eq!(refusal(&written(&other, 2, reveal()), &two), Dropped::Unsigned);
        assert_eq!(refusal(&written(&two, 3, reveal()), &two), Dropped::Stranger);
        assert_eq!(refusal(&written(&two, 1, reveal()), &two), Dropped::Stranger);
    }

    #[test]
    fn a_round_0_which_would_share_a_slot_with_the_barrier_is_refused() {
        let two = BootKeys::generate();
        let round = content::Body::Round(Round { number: 0, ..Round::default() });
        assert_eq!(refusal(&written(&two, 2, round), &two), Dropped::Malformed);
    }

    #[test]
    fn an_envelope_of_the_largest_size_is_read_and_one_byte_more_is_not() {
        let two = BootKeys::generate();
        assert_eq!(refusal(&vec![0xff; MAX_ENVELOPE], &two), Dropped::Malformed);
        assert_eq!(refusal(&vec![0xff; MAX_ENVELOPE + 1], &two), Dropped::TooLarge);
    }
}
