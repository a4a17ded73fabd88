//! The KMS's answer to an enclave, from a host that may have made it up.
#![no_main]

use std::sync::LazyLock;

use enclave::kms::{Envelope, EnvelopeError, KmsKeys, MAX_ENVELOPE};
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<KmsKeys> = LazyLock::new(|| KmsKeys::generate().expect("an RSA key"));

/// Where an envelope of the KMS's layout names the key it is for.
const RECIPIENT: std::ops::Range<usize> = 33..65;

fuzz_target!(|data: &[u8]| {
    if let Ok(envelope) = Envelope::parse(data) {
        assert!(data.len() <= MAX_ENVELOPE);
        let opened = envelope.open(&KEYS);
        assert!(
            matches!(opened, Err(EnvelopeError::Recipient(_))),
            "opened for a key that did not exist yet"
        );
    }
    // The same for this enclave's key, which no input can name.
    let mut named = data.to_vec();
    if let Some(recipient) = named.get_mut(RECIPIENT) {
        recipient.copy_from_slice(KEYS.id().as_bytes());
        if let Ok(envelope) = Envelope::parse(&named) {
            assert!(envelope.open(&KEYS).is_err(), "opened without having been encrypted to this key");
        }
    }
});
