//! The lab's wrapping key: AWS holds it in an HSM, the lab in a file of its state folder.
//!
//! Lab only. A wrapped key opens for its key id and encryption context and for nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use ceremonies::ids::Hash;

use super::state;

const VERSION: u8 = 1;
const TAG: usize = 16;

/// What a caller binds a wrapped key to.
pub type EncryptionContext = BTreeMap<String, String>;

/// The key that wraps data keys, under the ARN it goes by.
pub(super) struct WrappingKey {
    arn: String,
    cipher: RandomizedNonceKey,
}

impl WrappingKey {
    /// Opens the key in `dir`, and makes it on first use.
    ///
    /// # Errors
    /// Says which file cannot be read or written.
    pub(super) fn open(dir: &Path, arn: &str) -> anyhow::Result<Self> {
        let key = state::read_or_create(&dir.join("wrapping.key"), || {
            let mut key = vec![0; 32];
            rand::fill(&mut key).context("random wrapping key")?;
            Ok(key)
        })?;
        let cipher =
            RandomizedNonceKey::new(&AES_256_GCM, &key).context("wrapping.key is not 32 bytes long")?;
        Ok(Self { arn: arn.to_owned(), cipher })
    }

    /// The key's ARN.
    #[must_use]
    pub(super) fn arn(&self) -> &str {
        &self.arn
    }

    /// Whether `key_id` names this key: its ARN, or the id at the ARN's end.
    #[must_use]
    pub(super) fn is_named(&self, key_id: &str) -> bool {
        key_id == self.arn || self.arn.rsplit_once(":key/").is_some_and(|(_, id)| id == key_id)
    }

    /// Wraps a data key.
    ///
    /// # Errors
    /// Says that encryption failed.
    pub(super) fn wrap(&self, data_key: &[u8], context: &EncryptionContext) -> anyhow::Result<Vec<u8>> {
        let mut sealed = data_key.to_vec();
        let nonce = self
            .cipher
            .seal_in_place_append_tag(Aad::from(*self.binding(context).as_bytes()), &mut sealed)
            .context("wrapping a data key")?;
        Ok([
            &[VERSION][..],
            Hash::of_bytes(self.arn.as_bytes()).as_bytes(),
            nonce.as_ref().as_slice(),
            &sealed,
        ]
        .concat())
    }

    /// Unwraps a data key; `None` whatever the reason.
    #[must_use]
    pub(super) fn unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Option<Vec<u8>> {
        let (version, rest) = wrapped.split_first()?;
        let (key_id, rest) = rest.split_at_checked(size_of::<Hash>())?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        if *version != VERSION
            || key_id != Hash::of_bytes(self.arn.as_bytes()).as_bytes()
            || sealed.len() < TAG
        {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut data_key = sealed.to_vec();
        let binding = Aad::from(*self.binding(context).as_bytes());
        let length = self.cipher.open_in_place(nonce, binding, &mut data_key).ok()?.len();
        data_key.truncate(length);
        Some(data_key)
    }

    fn binding(&self, context: &EncryptionContext) -> Hash {
        let pairs = context.iter().flat_map(|(key, value)| [key.as_bytes(), value.as_bytes()]);
        let parts: Vec<&[u8]> = std::iter::once(self.arn.as_bytes()).chain(pairs).collect();
        Hash::of_parts("custody/lab-kms/v1", &parts)
    }
}
