//! Sealed shares, as a host's store hands them back, and the content of one.
#![no_main]

use ceremonies::ids::Hash;
use enclave::scheme::dkls23::KeyShare;
use enclave::seal::{MAX_BLOB, SealedBlob};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(blob) = SealedBlob::read(data.to_vec(), &Hash::of_bytes(data)) {
        assert!(data.len() <= MAX_BLOB && blob.bytes() == data && !blob.wrapped_key().is_empty());
        assert!(SealedBlob::read(data.to_vec(), &Hash::ZERO).is_err(), "another blob than the record's");
    }
    if let Ok(share) = KeyShare::decode(data) {
        let written = share.encode().expect("a share that was just decoded");
        KeyShare::decode(&written).expect("a share that was just encoded");
    }
});
