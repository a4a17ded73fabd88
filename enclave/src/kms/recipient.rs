//! `CiphertextForRecipient`: the envelope in which the KMS hands a data key to an attested enclave.
//!
//! A CMS `EnvelopedData` in BER with indefinite lengths: one key encrypted to the RSA key of the attestation document,
//! and 32 bytes encrypted under that key. Anyone who knows the public key can make one, so an envelope proves nothing
//! about who sent it: that is what TLS inside the enclave is for. This module must never accept an algorithm, recipient
//! or length other than those that the KMS uses for a data key, and never tell one failure to open from another.

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::iv::FixedLength;
use ceremonies::ids::Hash;
use cms::content_info::{CmsVersion, ContentInfo};
use cms::enveloped_data::{EnvelopedData, RecipientIdentifier, RecipientInfo};
use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::{Decode as _, Encode as _};
use thiserror::Error;
use zeroize::Zeroizing;

use super::keys::{KmsKeys, RSA_BYTES};

/// Largest envelope accepted. One with a data key has 493 bytes.
pub const MAX_ENVELOPE: usize = 4096;

const ENVELOPED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.3");
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const AES_256_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42");

/// `AlgorithmIdentifier` of RSAES-OAEP with SHA-256 for hash and mask, as the KMS encodes it.
const OAEP_SHA256: [u8; 62] = [
    0x30, 0x3c, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07, 0x30, 0x2f, 0xa0, 0x0f,
    0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0xa1, 0x1c,
    0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, 0x30, 0x0d, 0x06, 0x09,
    0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
];

const BLOCK: usize = 16;
const KEY: usize = 32;
/// What PKCS #7 appends to a plaintext of whole blocks.
const PADDING: [u8; BLOCK] = [16; BLOCK];

/// Why an envelope was not opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// More bytes than any envelope with a data key has.
    #[error("the envelope has {0} bytes, more than the {MAX_ENVELOPE} accepted")]
    Size(usize),
    /// Not the structure the KMS sends.
    #[error("the envelope does not have the form that KMS sends to an enclave: {0}")]
    Structure(&'static str),
    /// Encrypted to another key than this enclave's.
    #[error("the envelope is for RSA key {0}, not for this enclave's: attest again and repeat the call")]
    Recipient(String),
    /// The content does not decrypt to a data key.
    #[error("the envelope does not open with this enclave's key")]
    Opening,
}

/// A parsed envelope, not yet opened.
#[derive(Debug)]
pub struct Envelope {
    recipient: Vec<u8>,
    encrypted_key: [u8; RSA_BYTES],
    iv: [u8; BLOCK],
    content: Vec<u8>,
}

impl Envelope {
    /// Reads an envelope and checks every algorithm in it. Does not decrypt.
    ///
    /// # Errors
    /// [`EnvelopeError::Size`] and [`EnvelopeError::Structure`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        use EnvelopeError::Structure;
        if bytes.len() > MAX_ENVELOPE {
            return Err(EnvelopeError::Size(bytes.len()));
        }
        let info = ContentInfo::from_ber(bytes).map_err(|_| Structure("not a CMS ContentInfo"))?;
        if info.content_type != ENVELOPED_DATA {
            return Err(Structure("the content is not EnvelopedData"));
        }
        let data = info.content.to_der().map_err(|_| Structure("the EnvelopedData is malformed"))?;
        let data = EnvelopedData::from_ber(&data).map_err(|_| Structure("the EnvelopedData is malformed"))?;
        if data.version != CmsVersion::V2
            || data.originator_info.is_some()
            || data.unprotected_attrs.is_some()
        {
            return Err(Structure("the EnvelopedData is not plain version 2"));
        }

        let mut recipients = data.recip_infos.0.into_vec().into_iter();
        let (Some(RecipientInfo::Ktri(recipient)), None) = (recipients.next(), recipients.next()) else {
            return Err(Structure("it does not have exactly one key transport recipient"));
        };
        let (CmsVersion::V2, RecipientIdentifier::SubjectKeyIdentifier(id)) =
            (recipient.version, recipient.rid)
        else {
            return Err(Structure("the recipient is not identified by its key"));
        };
        if recipient.key_enc_alg.to_der().ok().as_deref() != Some(&OAEP_SHA256) {
            return Err(Structure("the key is not encrypted with RSAES-OAEP and SHA-256"));
        }
        let encrypted_key = recipient.enc_key.as_bytes().try_into();
        let encrypted_key =
            encrypted_key.map_err(|_| Structure("the encrypted key is not 256 bytes long"))?;

        let content = data.encrypted_content;
        if content.content_type != DATA || content.content_enc_alg.oid != AES_256_CBC {
            return Err(Structure("the content is not encrypted with AES-256-CBC"));
        }
        let iv = content.content_enc_alg.parameters.as_ref();
        let iv = iv.and_then(|iv| iv.decode_as::<&OctetStringRef>().ok());
        let iv = iv.and_then(|iv| iv.as_bytes().try_into().ok());
        let iv = iv.ok_or(Structure("the initialisation vector is not 16 bytes long"))?;
        let content = content.encrypted_content.ok_or(Structure("there is no content"))?;
        Ok(Self {
            recipient: id.0.into_bytes().into_vec(),
            encrypted_key,
            iv,
            content: content.into_bytes().into_vec(),
        })
    }

    /// Opens the data key with the enclave's RSA key.
    ///
    /// # Errors
    /// [`EnvelopeError::Recipient`] when it is for another key, [`EnvelopeError::Opening`] for whatever
    /// else keeps it closed.
    pub fn open(mut self, keys: &KmsKeys) -> Result<Zeroizing<[u8; KEY]>, EnvelopeError> {
        if self.recipient != keys.id().as_bytes() {
            let shown: Vec<u8> = self.recipient.into_iter().take(size_of::<Hash>()).collect();
            return Err(EnvelopeError::Recipient(hex::encode(shown)));
        }
        // A data key fills exactly two blocks, so its padding is one more known block: there is nothing to learn about
        // the length, and therefore no padding oracle.
        if self.content.len() != KEY + BLOCK {
            return Err(EnvelopeError::Opening);
        }
        let key = keys.open_key(&self.encrypted_key).ok_or(EnvelopeError::Opening)?;
        let key = UnboundCipherKey::new(&AES_256, key.as_ref()).map_err(|_| EnvelopeError::Opening)?;
        let cipher = DecryptingKey::cbc(key).map_err(|_| EnvelopeError::Opening)?;
        let mut content = Zeroizing::new(std::mem::take(&mut self.content));
        let iv = DecryptionContext::Iv128(FixedLength::from(self.iv));
        let plain = cipher.decrypt(&mut content, iv).map_err(|_| EnvelopeError::Opening)?;
        let (data_key, padding) = plain.split_at(KEY);
        verify_slices_are_equal(padding, &PADDING).map_err(|_| EnvelopeError::Opening)?;
        let mut opened = Zeroizing::new([0; KEY]);
        opened.copy_from_slice(data_key);
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::cast_possible_truncation,
        reason = "tests stop at the first surprise"
    )]

    use aws_lc_rs::cipher::{EncryptingKey, EncryptionContext};
    use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};

    use super::*;

    /// An envelope that AWS KMS made for a key that is not here.
    const REAL: &[u8] = include_bytes!("../../tests/data/kms-ciphertext-for-recipient.ber");

    fn definite(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len() as u16;
        let header = if length < 128 {
            vec![tag, length as u8]
        } else {
            vec![tag, 0x82, (length >> 8) as u8, length as u8]
        };
        [&header, content].concat()
    }

    fn indefinite(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, 0x80], content, &[0, 0]].concat()
    }

    fn oid(oid: ObjectIdentifier) -> Vec<u8> {
        oid.to_der().unwrap()
    }

    /// An envelope in KMS's layout, its content cut into octet strings of `chunk` bytes.
    fn envelope(id: &[u8], encrypted_key: &[u8], content: &[u8], chunk: usize) -> Vec<u8> {
        let recipient =
            [&[2, 1, 2][..], &definite(0x80, id), &OAEP_SHA256, &definite(0x04, encrypted_key)].concat();
        let chunks: Vec<u8> = content.chunks(chunk).flat_map(|chunk| definite(0x04, chunk)).collect();
        let algorithm = [oid(AES_256_CBC), definite(0x04, &[7; BLOCK])].concat();
        let encrypted = [oid(DATA), definite(0x30, &algorithm), indefinite(0xa0, &chunks)].concat();
        let recipients = definite(0x31, &definite(0x30, &recipient));
        let data = [&[2, 1, 2][..], &recipients, &indefinite(0x30, &encrypted)].concat();
        let data = indefinite(0xa0, &indefinite(0x30, &data));
        indefinite(0x30, &[oid(ENVELOPED_DATA), data].concat())
    }

    /// `padded` encrypted under a content key, and that key encrypted for `keys`.
    fn encrypted(keys: &KmsKeys, padded: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let content_key = [5; 32];
        let public = PublicEncryptingKey::from_der(keys.spki_der()).unwrap();
        let public = OaepPublicEncryptingKey::new(public).unwrap();
        let mut encrypted_key = vec![0; RSA_BYTES];
        public.encrypt(&OAEP_SHA256_MGF1SHA256, &content_key, &mut encrypted_key, None).unwrap();
        let cipher = EncryptingKey::cbc(UnboundCipherKey::new(&AES_256, &content_key).unwrap()).unwrap();
        let mut content = padded.to_vec();
        let iv = EncryptionContext::Iv128(FixedLength::from([7; BLOCK]));
        cipher.less_safe_encrypt(&mut content, iv).unwrap();
        (encrypted_key, content)
    }

    fn padded(key: [u8; 32]) -> Vec<u8> {
        [&key[..], &PADDING].concat()
    }

    #[test]
    fn envelope_from_aws_is_read() {
        let envelope = Envelope::parse(REAL).unwrap();
        assert_eq!(envelope.recipient, REAL[33..65]);
        assert_eq!(envelope.encrypted_key, REAL[131..387]);
        assert_eq!(envelope.iv, REAL[415..431]);
        assert_eq!(envelope.content, REAL[435..451]);
    }

    #[test]
    fn generated_layout_is_the_one_of_aws() {
        let real = Envelope::parse(REAL).unwrap();
        let mut made = envelope(&real.recipient, &real.encrypted_key, &real.content, 1000);
        made[415..431].copy_from_slice(&real.iv);
        assert_eq!(made, REAL);
    }

    #[test]
    fn envelope_opens_for_its_recipient_in_one_piece_or_several() {
        let keys = KmsKeys::generate().unwrap();
        let (key, content) = encrypted(&keys, &padded([9; 32]));
        for chunk in [1000, 48, 20, 1] {
            let bytes = envelope(keys.id().as_bytes(), &key, &content, chunk);
            assert_eq!(*Envelope::parse(&bytes).unwrap().open(&keys).unwrap(), [9; 32], "chunks of {chunk}");
        }
    }

    #[test]
    fn envelope_for_another_key_is_refused() {
        let keys = KmsKeys::generate().unwrap();
        let opened = Envelope::parse(REAL).unwrap().open(&keys);
        assert!(matches!(opened, Err(EnvelopeError::Recipient(_))), "{opened:?}");
        // The right name on it does not help when it is encrypted to another key.
        let other = KmsKeys::generate().unwrap();
        let (key, content) = encrypted(&other, &padded([9; 32]));
        let bytes = envelope(keys.id().as_bytes(), &key, &content, 48);
        assert_eq!(Envelope::parse(&bytes).unwrap().open(&keys), Err(EnvelopeError::Opening));
    }

    #[test]
    fn wrong_key_padding_and_length_all_fail_alike() {
        let keys = KmsKeys::generate().unwrap();
        let mut plaintexts =
            vec![padded([9; 32])[..32].to_vec(), [padded([9; 32]), PADDING.to_vec()].concat()];
        for at in 32..48 {
            for changed in [0, 1, 15, 17] {
                let mut plaintext = padded([9; 32]);
                plaintext[at] = changed;
                plaintexts.push(plaintext);
            }
        }
        for plaintext in plaintexts {
            let (key, content) = encrypted(&keys, &plaintext);
            let bytes = envelope(keys.id().as_bytes(), &key, &content, 48);
            assert_eq!(Envelope::parse(&bytes).unwrap().open(&keys), Err(EnvelopeError::Opening));
        }
        let (mut key, content) = encrypted(&keys, &padded([9; 32]));
        key[100] ^= 1;
        let bytes = envelope(keys.id().as_bytes(), &key, &content, 48);
        assert_eq!(Envelope::parse(&bytes).unwrap().open(&keys), Err(EnvelopeError::Opening));
    }

    #[test]
    fn other_algorithms_and_versions_are_refused() {
        // Version, recipient's version, its name's tag, every byte of both algorithms, the content types.
        let places = [2..13, 17..20, 28..33, 65..127, 389..413];
        for at in places.into_iter().flatten() {
            let mut bytes = REAL.to_vec();
            bytes[at] ^= 1;
            assert!(Envelope::parse(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn cut_lengthened_and_oversized_envelopes_are_refused() {
        for length in 0..REAL.len() {
            assert!(Envelope::parse(&REAL[..length]).is_err(), "{length} bytes");
        }
        assert!(Envelope::parse(&[REAL, &[0]].concat()).is_err());
        assert_eq!(
            Envelope::parse(&[0x30; MAX_ENVELOPE + 1]).unwrap_err(),
            EnvelopeError::Size(MAX_ENVELOPE + 1)
        );
    }

    #[test]
    fn deep_nesting_is_refused_without_exhausting_the_stack() {
        for start in [[0x30, 0x80], [0xa0, 0x80], [0x24, 0x80]] {
            let nested: Vec<u8> = start.iter().copied().cycle().take(MAX_ENVELOPE).collect();
            assert!(Envelope::parse(&nested).is_err());
            let inside = [&REAL[..15], &nested[..MAX_ENVELOPE - 15]].concat();
            assert!(Envelope::parse(&inside).is_err());
        }
    }

    #[test]
    fn no_single_changed_byte_makes_the_reader_panic() {
        for at in 0..REAL.len() {
            for value in [0, 1, 0x04, 0x30, 0x7f, 0x80, 0x84, 0xff] {
                let mut bytes = REAL.to_vec();
                bytes[at] = value;
                drop(Envelope::parse(&bytes));
            }
        }
    }
}
