//! `CiphertextForRecipient` as AWS KMS makes it: a CMS `EnvelopedData` in BER with indefinite lengths.

use anyhow::Context as _;
use aws_lc_rs::cipher::{AES_256, DecryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use ceremonies::ids::Hash;

/// The longest octet string real KMS puts into one piece.
const CHUNK: usize = 1000;

const ENVELOPED_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03";
const DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
const AES_256_CBC: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x01\x2a";
const RSAES_OAEP: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x07";
const MGF1: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08";
const SHA256: &[u8] = b"\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00";
const VERSION_2: &[u8] = b"\x02\x01\x02";

/// Encrypts `plaintext` for the holder of the RSA key `spki` (DER `SubjectPublicKeyInfo`).
///
/// # Errors
/// When `spki` is not an RSA key that can be encrypted to.
pub fn encrypt_to(spki: &[u8], plaintext: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut content_key = [0; 32];
    rand::fill(&mut content_key).context("random content key")?;

    let public = PublicEncryptingKey::from_der(spki).ok().context("the public key is not an RSA key")?;
    let public = OaepPublicEncryptingKey::new(public).context("the RSA key cannot be used")?;
    let mut encrypted_key = vec![0; public.ciphertext_size()];
    public
        .encrypt(&OAEP_SHA256_MGF1SHA256, &content_key, &mut encrypted_key, None)
        .context("encrypting to the RSA key")?;

    let cipher = UnboundCipherKey::new(&AES_256, &content_key).context("content key")?;
    let cipher = PaddedBlockEncryptingKey::cbc_pkcs7(cipher).context("content key")?;
    let mut content = plaintext.to_vec();
    let DecryptionContext::Iv128(iv) = cipher.encrypt(&mut content).context("encrypting the content")? else {
        anyhow::bail!("AES-CBC without an initialisation vector");
    };
    let iv: &[u8; 16] = iv.as_ref();
    Ok(layout(Hash::of_bytes(spki).as_bytes(), &encrypted_key, iv, &content))
}

fn layout(recipient: &[u8], encrypted_key: &[u8], iv: &[u8; 16], content: &[u8]) -> Vec<u8> {
    let mask = definite(0x30, &[MGF1, SHA256]);
    let oaep = definite(0x30, &[&definite(0xa0, &[SHA256]), &definite(0xa1, &[&mask])]);
    let key_algorithm = definite(0x30, &[RSAES_OAEP, &oaep]);
    let recipient =
        [VERSION_2, &definite(0x80, &[recipient]), &key_algorithm, &definite(0x04, &[encrypted_key])];
    let recipients = definite(0x31, &[&definite(0x30, &recipient)]);

    let algorithm = definite(0x30, &[AES_256_CBC, &definite(0x04, &[iv])]);
    let content: Vec<u8> = content.chunks(CHUNK).flat_map(|chunk| definite(0x04, &[chunk])).collect();
    let content = indefinite(0x30, &[DATA, &algorithm, &indefinite(0xa0, &[&content])]);

    let enveloped = indefinite(0x30, &[VERSION_2, &recipients, &content]);
    indefinite(0x30, &[ENVELOPED_DATA, &indefinite(0xa0, &[&enveloped])])
}

fn definite(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let header = match significant {
        [] => vec![tag, 0],
        [short @ 0..128] => vec![tag, *short],
        #[expect(clippy::cast_possible_truncation, reason = "a length has at most eight bytes")]
        long => [&[tag, 0x80 | long.len() as u8], long].concat(),
    };
    [header, content].concat()
}

fn indefinite(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[tag, 0x80], parts.concat().as_slice(), &[0, 0]].concat()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn layout_is_byte_for_byte_the_one_of_aws() {
        let real = include_bytes!("../../../enclave/tests/data/kms-ciphertext-for-recipient.ber");
        let iv = real[415..431].try_into().unwrap();
        assert_eq!(layout(&real[33..65], &real[131..387], iv, &real[435..451]), real);
    }

    #[test]
    fn garbage_is_no_public_key() {
        assert!(encrypt_to(b"", b"key").is_err());
        assert!(encrypt_to(&[0x30; 294], b"key").is_err());
    }
}
