//! Attestation documents, from a host that may be anyone's.
#![no_main]

use std::sync::LazyLock;

use ceremonies::attestation::{Document, Expectation, MAX_DOCUMENT, TrustRoot, check, parse_and_verify};
use ceremonies::ids::UnixMillis;
use custody_fuzz::recorded::{FILES, LAB_ROOT, NITRO};
use libfuzzer_sys::fuzz_target;

static AWS_ROOT: LazyLock<TrustRoot> = LazyLock::new(TrustRoot::aws_nitro_g1);
/// What was ever signed under each root, as far as anybody here knows.
static AWS: LazyLock<Vec<Document>> =
    LazyLock::new(|| vec![parse_and_verify(NITRO, &AWS_ROOT).expect("the genuine document")]);
static LAB: LazyLock<Vec<Document>> = LazyLock::new(|| {
    let recorded = FILES.iter().filter(|(name, _)| name.starts_with("attestations/"));
    recorded.map(|(_, bytes)| parse_and_verify(bytes, &LAB_ROOT).expect("a recorded document")).collect()
});

fuzz_target!(|data: &[u8]| {
    for (root, genuine) in [(&*AWS_ROOT, &*AWS), (&*LAB_ROOT, &*LAB)] {
        if let Ok(document) = parse_and_verify(data, root) {
            assert!(data.len() <= MAX_DOCUMENT);
            assert!(genuine.contains(&document), "a document that nobody signed was believed");
        }
        let expected =
            Expectation { root, allowed: &[], nonce: None, at: UnixMillis(0), max_age_ms: u64::MAX };
        assert!(check(data, &expected).is_err(), "a document was believed where no image is allowed");
    }
});
